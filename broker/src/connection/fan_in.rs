//! The other direction of a connection: subscriptions, retained messages, what comes from the hub.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::exchange::Exchange;
use crate::auth::PrincipalKind;
use crate::codec;
use crate::hub::{Forwarded, SubscribeError, Subscriber, now_us};
use crate::inbound::{Properties, Reason};
use crate::packet::{Message, Outgoing, Reply, SubCode};
use crate::session::{Held, Replay};
use crate::topic::TopicFilter;

/// Bytes waiting to be written beyond which nothing is taken from the hub.
const OUT_SUBSCRIBED: usize = 64 << 10;
/// The router answers within milliseconds or is lost.
const HUB_TIMEOUT: Duration = Duration::from_secs(5);
/// What an MQTT 5 PUBLISH may have beside topic, payload and the publisher's properties.
const PUBLISH_OVERHEAD: usize = 80;

/// Retained messages being sent.
#[derive(Debug)]
pub(crate) struct Replaying {
    replay: Replay,
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
        mut replay: Vec<Replay>,
        mut reply: Reply,
    ) -> Result<(), Reason> {
        if let Reply::SubAck { codes, .. } = &reply {
            let refused = codes.iter().filter(|code| !matches!(code, SubCode::Granted(_))).count();
            self.gate.metrics.subscribe_refused.inc_by(refused as u64);
            if refused > 0 {
                self.gate.refused("subscribe", self.client.peer, Some(&self.client.client_id));
            }
        }
        if self.session.kind() == PrincipalKind::Terminal {
            self.listen();
            let refused = |codes: &[SubCode]| codes.iter().all(|code| !matches!(code, SubCode::Granted(_)));
            let listens = matches!(&reply, Reply::SubAck { codes, .. } if !refused(codes));
            self.reply(reply)?;
            if listens {
                self.announce();
            }
        } else {
            if !joins.is_empty() && !self.joined(joins).await? {
                replay.clear();
                if let Reply::SubAck { codes, .. } = &mut reply {
                    codes.fill(SubCode::QuotaExceeded);
                }
            }
            self.reply(reply)?;
        }
        let replaying = replay.into_iter().map(|replay| Replaying { replay, after: None });
        self.replays.extend(replaying);
        Ok(())
    }

    /// Joins at the hub. False: there is no place.
    async fn joined(&mut self, joins: Vec<(TopicFilter, usize)>) -> Result<bool, Reason> {
        let joined = tokio::time::timeout(HUB_TIMEOUT, self.join(joins)).await;
        match joined.unwrap_or(Err(SubscribeError::Lost)) {
            Ok(()) => Ok(true),
            Err(SubscribeError::TooMany) => {
                // There was no link yet, so these are all its subscriptions.
                self.session.forget_subscriptions();
                Ok(false)
            }
            Err(SubscribeError::Lost) => Err(Reason::HubLost),
        }
    }

    pub(super) async fn unsubscribe(
        &mut self,
        filters: Vec<TopicFilter>,
        reply: Reply,
    ) -> Result<(), Reason> {
        if !filters.is_empty() {
            if let Some(subscriber) = &self.subscriber {
                subscriber.leave(filters).await.map_err(|_| Reason::HubLost)?;
            } else {
                self.listen();
            }
        }
        self.reply(reply)
    }

    async fn join(&mut self, joins: Vec<(TopicFilter, usize)>) -> Result<(), SubscribeError> {
        if self.subscriber.is_none() {
            self.subscriber = Some(self.gate.hub.subscriber().await?);
        }
        match &self.subscriber {
            Some(subscriber) => subscriber.join(joins).await,
            None => Err(SubscribeError::Lost),
        }
    }

    pub(super) fn can_send(&self) -> bool {
        !self.stopping && self.has_room_to_send() && self.session.can_send()
    }

    pub(super) fn has_room_to_send(&self) -> bool {
        self.out.len() < OUT_SUBSCRIBED
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
            self.forward(message?)?;
        }
        Ok(())
    }

    /// Sends a page of retained messages. True: there are more.
    fn replay(&mut self, replaying: &mut Replaying) -> Result<bool, Reason> {
        let Replay { filter, qos, identifier } = &replaying.replay;
        let (page, next) = self.gate.hub.retained(filter, replaying.after.as_deref());
        for (topic, kept) in page {
            if !self.can_send() {
                return Ok(true);
            }
            let pkid = self.session.send_retained(*qos, kept.qos);
            let expiry_s = kept.properties.as_ref().and_then(|properties| properties.expiry_s);
            let message = Message {
                topic: Bytes::copy_from_slice(topic.as_bytes()),
                payload: kept.payload,
                retain: true,
                identifier: *identifier,
                properties: kept.properties,
                arrived_us: Some(kept.arrived_us),
                expires_us: expires_us(kept.arrived_us, expiry_s),
            };
            self.send_message(message, pkid)?;
            replaying.after = Some(topic);
        }
        replaying.after.clone_from(&next);
        Ok(next.is_some())
    }

    pub(super) fn forward(&mut self, message: Forwarded) -> Result<(), Reason> {
        let is_own = message.epoch == self.client.handle.epoch || message.epoch == self.previous_epoch;
        let Some(sending) = self.session.send(message.id, message.qos, message.retain, is_own) else {
            return Ok(());
        };
        let expiry_s = message.properties.as_ref().and_then(|properties| properties.expiry_s);
        let message = Message {
            topic: message.topic,
            payload: message.payload,
            retain: sending.retain,
            identifier: sending.identifier,
            properties: message.properties.map(Arc::new),
            arrived_us: Some(message.arrived_us),
            expires_us: expires_us(message.arrived_us, expiry_s),
        };
        self.send_message(message, sending.pkid)
    }

    fn send_message(&mut self, message: Message, pkid: u16) -> Result<(), Reason> {
        if self.write_message(&message, pkid, false)? && pkid != 0 && self.session.expiry_s() > 0 {
            self.session.hold(pkid, Box::new(Held { message, receipt: None }));
        }
        Ok(())
    }

    /// Writes a message, unless it has expired or is too large for the client; then its packet id is free again.
    pub(super) fn write_message(&mut self, message: &Message, pkid: u16, dup: bool) -> Result<bool, Reason> {
        let properties = message.properties.as_deref().map_or(0, Properties::bytes);
        let bytes = message.topic.len() + message.payload.len() + properties + PUBLISH_OVERHEAD;
        // 3.1.2.11.4 of MQTT 5: what is too large for the client counts as sent.
        let too_large = bytes > self.packet_bytes_max;
        // 3.3.2.3.3 of MQTT 5: the time it waited here is taken off, and what has expired is not sent.
        let left_us = message.expires_us.map(|expires_us| expires_us - now_us());
        if too_large || left_us.is_some_and(|left_us| left_us <= 0) {
            self.session.give_up(pkid);
            return Ok(false);
        }
        let expiry_s = left_us.map(|us| u32::try_from((us + 999_999) / 1_000_000).unwrap_or(u32::MAX));
        let outgoing = Outgoing { message, pkid, dup, expiry_s };
        self.gate.metrics.hub_out.inc();
        codec::write_publish(self.protocol, &outgoing, &mut self.out).map_err(|error| self.broken(&error))?;
        Ok(true)
    }
}

fn expires_us(arrived_us: i64, expiry_s: Option<u32>) -> Option<i64> {
    expiry_s.map(|expiry_s| arrived_us.saturating_add(i64::from(expiry_s) * 1_000_000))
}
