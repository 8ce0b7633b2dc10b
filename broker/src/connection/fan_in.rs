//! The other direction of a connection: subscriptions, retained messages, what comes from the hub.

use std::sync::Arc;
use std::time::Duration;

use super::exchange::Exchange;
use crate::codec;
use crate::hub::{Forwarded, SubscribeError, Subscriber, now_us};
use crate::inbound::{Properties, QoS, Reason};
use crate::packet::{Outgoing, Packet, Reply, SubCode};
use crate::session::Replay;
use crate::topic::TopicFilter;

/// Bytes waiting to be written beyond which nothing is taken from the hub.
const OUT_SUBSCRIBED: usize = 64 << 10;
/// The router answers within milliseconds or is lost.
const HUB_TIMEOUT: Duration = Duration::from_secs(5);
/// What an MQTT 5 PUBLISH may have beside topic, payload and the publisher's properties.
const PUBLISH_OVERHEAD: usize = 80;

/// Retained messages being sent.
#[derive(Debug)]
pub(super) struct Replaying {
    filter: TopicFilter,
    qos: QoS,
    after: Option<Arc<str>>,
}

/// The next message of a subscriber, if there is one.
pub(super) async fn next_message(subscriber: Option<&mut Subscriber>) -> Result<Forwarded, Reason> {
    match subscriber {
        Some(subscriber) => subscriber.recv().await,
        None => std::future::pending().await,
    }
}

impl Exchange<'_> {
    pub(super) async fn subscribe(
        &mut self,
        joins: Vec<(TopicFilter, usize)>,
        replay: Vec<Replay>,
        mut reply: Reply,
    ) -> Result<(), Reason> {
        if let Reply::SubAck { codes, .. } = &reply {
            let refused = codes.iter().filter(|code| !matches!(code, SubCode::Granted(_))).count();
            self.gate.metrics.subscribe_refused.inc_by(refused as u64);
        }
        let mut replay = replay;
        if !joins.is_empty() {
            let joined = tokio::time::timeout(HUB_TIMEOUT, self.join(joins)).await;
            match joined.unwrap_or(Err(SubscribeError::Lost)) {
                Ok(()) => {}
                Err(SubscribeError::TooMany) => {
                    // There was no link yet, so these are all its subscriptions.
                    self.session.forget_subscriptions();
                    replay.clear();
                    if let Reply::SubAck { codes, .. } = &mut reply {
                        codes.fill(SubCode::QuotaExceeded);
                    }
                }
                Err(SubscribeError::Lost) => return Err(Reason::HubLost),
            }
        }
        self.reply(reply)?;
        let replaying = replay.into_iter().map(|r| Replaying { filter: r.filter, qos: r.qos, after: None });
        self.replays.extend(replaying);
        Ok(())
    }

    async fn join(&mut self, joins: Vec<(TopicFilter, usize)>) -> Result<(), SubscribeError> {
        if self.subscriber.is_none() {
            self.subscriber = Some(self.gate.hub.subscriber(self.session.kind()).await?);
        }
        match &self.subscriber {
            Some(subscriber) => subscriber.join(joins).await,
            None => Err(SubscribeError::Lost),
        }
    }

    pub(super) fn can_send(&self) -> bool {
        !self.stopping
            && self.out.len() < OUT_SUBSCRIBED
            && self.subscriber.is_some()
            && self.session.can_send()
    }

    /// Writes what is retained and what waits in the hub's queue, as far as the client can take it.
    pub(super) fn fan_in(&mut self) -> Result<(), Reason> {
        while self.can_send()
            && let Some(mut replaying) = self.replays.pop()
        {
            if self.replay(&mut replaying)? {
                self.replays.push(replaying);
            }
        }
        while self.can_send()
            && let Some(message) = self.subscriber.as_mut().and_then(Subscriber::try_recv)
        {
            self.forward(&message?)?;
        }
        Ok(())
    }

    /// Sends a page of retained messages. True: there are more.
    fn replay(&mut self, replaying: &mut Replaying) -> Result<bool, Reason> {
        let (page, next) = self.gate.hub.retained(&replaying.filter, replaying.after.as_deref());
        for (topic, kept) in page {
            if !self.can_send() {
                return Ok(true);
            }
            let sending = self.session.send_retained(replaying.qos, kept.qos);
            let outgoing = Outgoing {
                topic: &topic,
                payload: &kept.payload,
                pkid: sending.pkid,
                retain: true,
                properties: kept.properties.as_deref(),
                arrived_us: kept.arrived_us,
            };
            self.write_publish(&outgoing)?;
            replaying.after = Some(topic);
        }
        replaying.after.clone_from(&next);
        Ok(next.is_some())
    }

    pub(super) fn forward(&mut self, message: &Forwarded) -> Result<(), Reason> {
        let Ok(topic) = std::str::from_utf8(&message.topic) else { return Ok(()) };
        let is_own = message.epoch == self.client.handle.epoch;
        let Some(sending) = self.session.send(message.id, message.qos, message.retain, is_own) else {
            return Ok(());
        };
        self.write_publish(&Outgoing {
            topic,
            payload: &message.payload,
            pkid: sending.pkid,
            retain: sending.retain,
            properties: message.properties.as_ref(),
            arrived_us: message.arrived_us,
        })
    }

    fn write_publish(&mut self, publish: &Outgoing<'_>) -> Result<(), Reason> {
        let properties = publish.properties.map_or(0, Properties::bytes);
        let bytes = publish.topic.len() + publish.payload.len() + properties + PUBLISH_OVERHEAD;
        // 3.1.2.11.4 of MQTT 5: what is too large for the client counts as sent.
        if bytes > self.packet_bytes_max {
            self.leave_out(publish);
            return Ok(());
        }
        let Some(expiry_s) = publish.properties.and_then(|properties| properties.expiry_s) else {
            return self.encode(publish);
        };
        // 3.3.2.3.3 of MQTT 5: the time it waited here is taken off, and what has expired is not sent.
        let waited_s = u32::try_from((now_us() - publish.arrived_us).max(0) / 1_000_000).unwrap_or(u32::MAX);
        if waited_s >= expiry_s {
            self.leave_out(publish);
            return Ok(());
        }
        let mut properties = publish.properties.cloned().unwrap_or_default();
        properties.expiry_s = Some(expiry_s - waited_s);
        let publish = Outgoing { properties: Some(&properties), ..*publish };
        self.encode(&publish)
    }

    fn encode(&mut self, publish: &Outgoing<'_>) -> Result<(), Reason> {
        self.gate.metrics.hub_out.inc();
        codec::write_publish(self.protocol, publish, &mut self.out).map_err(|error| self.broken(&error))
    }

    /// Does not send a message whose packet id the session has given out already.
    fn leave_out(&mut self, publish: &Outgoing<'_>) {
        if publish.pkid != 0 {
            self.session.packet(Packet::PubAck(publish.pkid), true, &mut self.actions);
        }
    }
}
