//! Deliveries to a terminal: from its mailbox onto the wire.

use std::sync::Arc;

use tokio::sync::mpsc::error::TrySendError;

use super::exchange::Exchange;
use crate::downlink::Delivery;
use crate::hub::now_us;
use crate::inbound::{Inbound, Reason};
use crate::packet::Message;
use crate::session::Held;

impl Exchange<'_> {
    /// The terminal's subscriptions have changed.
    pub(super) fn listen(&mut self) {
        self.client.handle.mailbox.listen(self.session.topics());
    }

    /// Tells that deliveries reach the terminal now. Waits for a place in the channel without stopping anything
    /// else.
    pub(super) fn announce(&mut self) {
        self.announcing = matches!(self.inbound.try_send(self.listening()), Err(TrySendError::Full(_)));
    }

    pub(super) fn listening(&self) -> Inbound {
        Inbound::Listening { client_id: Arc::clone(&self.client.client_id) }
    }

    /// Writes what waits in the mailbox, as far as the client can take it.
    pub(super) fn deliveries(&mut self) -> Result<(), Reason> {
        while self.can_send()
            && let Some(delivery) = self.client.handle.mailbox.take()
        {
            self.deliver_one(delivery)?;
        }
        Ok(())
    }

    /// What cannot be sent (left topic, expired, too large for the client) is dropped with its receipt.
    fn deliver_one(&mut self, delivery: Delivery) -> Result<(), Reason> {
        if delivery.expires_us.is_some_and(|expires_us| expires_us <= now_us()) {
            return Ok(());
        }
        let Some(sending) = self.session.send_delivery(&delivery.topic) else { return Ok(()) };
        let message = Message {
            topic: delivery.topic.into(),
            payload: delivery.payload,
            retain: false,
            identifier: sending.identifier,
            properties: None,
            arrived_us: None,
            expires_us: delivery.expires_us,
        };
        if !self.write_message(&message, sending.pkid, false)? {
            return Ok(());
        }
        if sending.pkid == 0 {
            self.unwritten.push(delivery.receipt);
        } else {
            let receipt = Some(delivery.receipt);
            self.session.hold(sending.pkid, Box::new(Held { message, receipt }));
        }
        Ok(())
    }

    /// Everything written so far has left for the socket.
    pub(super) fn flushed(&mut self) {
        for receipt in self.unwritten.drain(..) {
            receipt.done();
        }
    }
}
