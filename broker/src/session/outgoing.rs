//! What the session sends: packet ids, what is in flight, what is sent again after a resume.
//!
//! The first `inflight.len() - unsent` messages in flight were sent on this connection, in that order; the others
//! were sent on an earlier one and wait to be sent again. Nothing new is sent before them.

use super::{Action, Held, Inflight, Sending, Session};
use crate::inbound::{QoS, Reason};

impl Session {
    /// Whether one more message can be sent to the client. While not, the shell leaves them in the queue.
    pub(crate) fn can_send(&self) -> bool {
        self.unsent == 0 && self.inflight.len() < self.limits.inflight_max
    }

    /// A message came from the hub for subscription `id`. `None`: it is not for this client (any more).
    pub(crate) fn send(&mut self, id: usize, qos: QoS, retain: bool, is_own: bool) -> Option<Sending> {
        let subscription = self.subscriptions.iter().find(|s| s.id == id)?;
        if is_own && subscription.no_local {
            return None;
        }
        let retain = retain && subscription.retain_as_published;
        let (qos, identifier) = (qos.min(subscription.qos), subscription.identifier);
        Some(Sending { pkid: self.packet_id(qos), retain, identifier })
    }

    /// A message of the server for a terminal. `None`: it has not subscribed to `topic` (any more).
    pub(crate) fn send_delivery(&mut self, topic: &str) -> Option<Sending> {
        let subscription = self.subscriptions.iter().find(|s| s.filter.as_str() == topic)?;
        let (qos, identifier) = (subscription.qos, subscription.identifier);
        Some(Sending { pkid: self.packet_id(qos), retain: false, identifier })
    }

    /// A retained message is owed for a subscription of `granted`.
    pub(crate) fn send_retained(&mut self, granted: QoS, qos: QoS) -> u16 {
        self.packet_id(qos.min(granted))
    }

    /// The next message of an earlier connection to be sent again, if the client can take one. Handed back by
    /// [`Self::hold`] once it is sent.
    pub(crate) fn resend(&mut self) -> Option<(u16, Box<Held>)> {
        while self.unsent > 0 && self.sent() < self.limits.inflight_max {
            let next = self.sent();
            self.unsent -= 1;
            let inflight = self.inflight.get_mut(next)?;
            if let Some(held) = inflight.held.take() {
                return Some((inflight.pkid, held));
            }
            self.inflight.remove(next);
        }
        None
    }

    fn sent(&self) -> usize {
        self.inflight.len() - self.unsent
    }

    /// Keeps the message just sent as `pkid` until it is acknowledged.
    pub(crate) fn hold(&mut self, pkid: u16, held: Box<Held>) {
        if let Some(inflight) = self.inflight.iter_mut().rfind(|inflight| inflight.pkid == pkid) {
            inflight.held = Some(held);
        }
    }

    /// What was numbered `pkid` is not sent after all.
    pub(crate) fn give_up(&mut self, pkid: u16) {
        self.remove(pkid);
    }

    /// Takes a message out of those in flight.
    fn remove(&mut self, pkid: u16) -> Option<Inflight> {
        let position = self.inflight.iter().position(|inflight| inflight.pkid == pkid)?;
        if position >= self.sent() {
            self.unsent -= 1;
        }
        self.inflight.remove(position)
    }

    fn packet_id(&mut self, qos: QoS) -> u16 {
        if qos == QoS::AtMostOnce {
            return 0;
        }
        // Far fewer than 65,535 are in flight, so this ends.
        loop {
            self.inflight_id_last = self.inflight_id_last.checked_add(1).unwrap_or(1);
            let pkid = self.inflight_id_last;
            if !self.inflight.iter().any(|inflight| inflight.pkid == pkid) {
                self.inflight.push_back(Inflight { pkid, held: None });
                return pkid;
            }
        }
    }

    /// PUBACK came.
    pub(super) fn acknowledged(&mut self, pkid: u16, actions: &mut Vec<Action>) {
        let Some(acknowledged) = self.remove(pkid) else {
            // What expired while the client was away was not sent again, but it may have got it before.
            if !self.resumed {
                actions.push(Action::Close(Reason::Protocol));
            }
            return;
        };
        if let Some(receipt) = acknowledged.held.and_then(|held| held.receipt) {
            receipt.done();
        }
    }
}
