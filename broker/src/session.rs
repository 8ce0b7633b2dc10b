//! What a connection must answer: the MQTT session as a pure state machine.
//!
//! Takes packets and settled messages, pushes [`Action`]s, knows neither clock nor socket nor version. Promises:
//! PUBACK and PUBREC leave in arrival order and only for messages reported as committed; a message that was
//! dropped holds back all acknowledgements after it; at most `unacked_max` publishes are unacknowledged; no
//! sequence of packets panics. What outlives a connection is in `kept`, what goes to the client in `outgoing`.

mod kept;
mod outgoing;

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;

use crate::ack::Settled;
use crate::auth::{Principal, PrincipalKind, Protocol};
use crate::downlink::DeliveryReceipt;
use crate::inbound::{Properties, QoS, Reason};
use crate::packet::{Message, Packet, PublishPacket, Reply, RetainedWish, SubCode, Wanted};
use crate::topic::{self, FilterError, TopicFilter};

use kept::Earlier;
pub(crate) use kept::Kept;

/// Topics a connection is remembered to be allowed; a terminal uses three to six.
const TOPICS_CACHED: usize = 8;

/// Bounds of one session.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) unacked_max: usize,
    pub(crate) payload_bytes_max: usize,
    pub(crate) subscriptions_max: usize,
    pub(crate) inflight_max: usize,
    pub(crate) topic_alias_max: u16,
    /// Longest life of a session without connection.
    pub(crate) expiry_s_max: u32,
}

/// What the shell is to do.
#[derive(Debug)]
pub(crate) enum Action {
    Reply(Reply),
    /// Hand the message over; its settling is reported by [`Session::settled`] in this order.
    Deliver(Accepted),
    /// Join these filters at the hub, then reply, then send what is retained for `replay`.
    Subscribe {
        joins: Vec<(TopicFilter, usize)>,
        replay: Vec<Replay>,
        reply: Reply,
    },
    /// Leave these filters at the hub.
    Unsubscribe {
        filters: Vec<TopicFilter>,
        reply: Reply,
    },
    /// End the connection; nothing follows.
    Close(Reason),
}

/// A publish the client was allowed to send.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) topic: Arc<str>,
    pub(crate) for_hub: bool,
    pub(crate) payload: Bytes,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) properties: Option<Box<Properties>>,
}

/// Retained messages owed to a subscriber.
#[derive(Debug)]
pub(crate) struct Replay {
    pub(crate) filter: TopicFilter,
    pub(crate) qos: QoS,
    pub(crate) identifier: u32,
}

/// How a message for a subscriber is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sending {
    /// 0 for QoS 0.
    pub(crate) pkid: u16,
    pub(crate) retain: bool,
    pub(crate) identifier: u32,
}

/// What is kept of a message until the client has acknowledged it.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) message: Message,
    pub(crate) receipt: Option<DeliveryReceipt>,
}

/// A QoS 1 message sent to the client and not yet acknowledged by it.
#[derive(Debug)]
struct Inflight {
    pkid: u16,
    held: Option<Box<Held>>,
}

/// What the session owes for a delivered message once it is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owed {
    Nothing,
    PubAck(u16),
    PubRec(Exact),
    /// A PUBREC of an earlier connection, which is sent only if the client asks for it again.
    Silent(Exact),
}

/// A QoS 2 publish. Its packet id alone does not tell it: a client that restarts with its messages and without their
/// ids uses them for others, which would be acknowledged and never handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Exact {
    pkid: u16,
    /// Hash of what it says.
    content: u64,
}

impl Exact {
    fn of(pkid: u16, topic: &str, payload: &[u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        (topic, payload).hash(&mut hasher);
        Self { pkid, content: hasher.finish() }
    }
}

impl Owed {
    /// What of it outlives the connection.
    fn silent(self) -> Self {
        match self {
            Self::PubRec(publish) | Self::Silent(publish) => Self::Silent(publish),
            Self::PubAck(_) | Self::Nothing => Self::Nothing,
        }
    }
}

#[derive(Debug, Clone)]
struct Allowed {
    topic: Arc<str>,
    for_hub: bool,
}

#[derive(Debug)]
struct Subscription {
    filter: TopicFilter,
    id: usize,
    qos: QoS,
    identifier: u32,
    no_local: bool,
    retain_as_published: bool,
}

/// State of one connection after its CONNECT was accepted.
#[derive(Debug)]
pub(crate) struct Session {
    protocol: Protocol,
    principal: Principal,
    limits: Limits,
    /// How long it lives without connection, in seconds.
    expiry_s: u32,
    /// It began with an earlier connection.
    resumed: bool,
    allowed: Vec<Allowed>,
    /// Topics by alias, from 1.
    aliases: Vec<Option<Allowed>>,
    /// Delivered and not settled, in arrival order.
    owed: VecDeque<Owed>,
    /// How many of them the client waits for.
    promised: usize,
    /// QoS 2 publishes between PUBREC and PUBREL, by packet id.
    recorded: BTreeMap<u16, u64>,
    /// A promised message was dropped: no acknowledgement may overtake it.
    holed: bool,
    /// A publish was dropped unread: with it, perhaps, a topic alias.
    skipped: bool,
    earlier: Vec<Earlier>,
    subscriptions: Vec<Subscription>,
    subscription_id_last: usize,
    inflight: VecDeque<Inflight>,
    /// How many of them, the last ones, wait to be sent again.
    unsent: usize,
    inflight_id_last: u16,
}

impl Session {
    /// A session that lives `expiry_s` without connection, or as long as it may.
    pub(crate) fn new(protocol: Protocol, principal: Principal, limits: Limits, expiry_s: u32) -> Self {
        Self {
            protocol,
            principal,
            limits,
            expiry_s: expiry_s.min(limits.expiry_s_max),
            resumed: false,
            allowed: Vec::new(),
            aliases: Vec::new(),
            owed: VecDeque::new(),
            promised: 0,
            recorded: BTreeMap::new(),
            holed: false,
            skipped: false,
            earlier: Vec::new(),
            subscriptions: Vec::new(),
            subscription_id_last: 0,
            inflight: VecDeque::new(),
            unsent: 0,
            inflight_id_last: 0,
        }
    }

    /// Whether one more publish fits the window. While not, the shell does not read further. A client of MQTT 5
    /// that went beyond the maximum it was told is not waited for but ended.
    pub(crate) fn has_room(&self) -> bool {
        self.owed.len() < self.limits.unacked_max || self.exceeds_receive_max()
    }

    fn exceeds_receive_max(&self) -> bool {
        self.protocol == Protocol::V5 && self.promised >= self.limits.unacked_max
    }

    /// How long it outlives its connection, in seconds; 0: not at all.
    pub(crate) fn expiry_s(&self) -> u32 {
        self.expiry_s
    }

    pub(crate) fn kind(&self) -> PrincipalKind {
        self.principal.kind
    }

    /// Messages delivered and not yet settled.
    pub(crate) fn unsettled(&self) -> usize {
        self.owed.len()
    }

    /// Whether a promised message was dropped.
    pub(crate) fn is_holed(&self) -> bool {
        self.holed
    }

    /// A publish too large to be buffered now was dropped unread.
    pub(crate) fn dropped_unread(&mut self, promised: bool) {
        self.holed |= promised;
        self.skipped = true;
    }

    /// A packet came. `admitted` tells whether a publish can be handed over now; if not, it is dropped.
    pub(crate) fn packet(&mut self, packet: Packet, admitted: bool, actions: &mut Vec<Action>) {
        match packet {
            Packet::Publish(publish) => self.publish(publish, admitted, actions),
            Packet::PubAck(pkid) => self.acknowledged(pkid, actions),
            Packet::PubRel(pkid) => {
                let known = self.recorded.remove(&pkid).is_some();
                actions.push(Action::Reply(Reply::PubComp { pkid, known }));
            }
            Packet::Subscribe { pkid, filters, identifier } => {
                self.subscribe(pkid, filters, identifier, actions);
            }
            Packet::Unsubscribe { pkid, filters } => self.unsubscribe(pkid, &filters, actions),
            Packet::PingReq => actions.push(Action::Reply(Reply::PingResp)),
            Packet::Disconnect { with_will, expiry_s } => self.disconnect(with_will, expiry_s, actions),
            Packet::Unexpected => actions.push(Action::Close(Reason::Protocol)),
        }
    }

    fn disconnect(&mut self, with_will: bool, expiry_s: Option<u32>, actions: &mut Vec<Action>) {
        if let Some(expiry_s) = expiry_s {
            // 3.14.2.2.2 of MQTT 5: what was to end with the connection cannot live on after all.
            if self.expiry_s == 0 && expiry_s > 0 {
                return actions.push(Action::Close(Reason::Protocol));
            }
            self.expiry_s = expiry_s.min(self.limits.expiry_s_max);
        }
        let reason = if with_will { Reason::DisconnectedWithWill } else { Reason::Disconnected };
        actions.push(Action::Close(reason));
    }

    fn publish(&mut self, publish: PublishPacket, admitted: bool, actions: &mut Vec<Action>) {
        if publish.payload.len() > self.limits.payload_bytes_max {
            return actions.push(Action::Close(Reason::TooLarge));
        }
        let (topic, for_hub) = match self.resolve(&publish.topic, publish.alias) {
            Ok(allowed) => allowed,
            Err(reason) => return actions.push(Action::Close(reason)),
        };
        let exact =
            (publish.qos == QoS::ExactlyOnce).then(|| Exact::of(publish.pkid, &topic, &publish.payload));
        if let Some(exact) = exact
            && self.repeats(exact, actions)
        {
            return;
        }
        if !admitted {
            self.holed |= publish.qos != QoS::AtMostOnce;
            return;
        }
        // 3.3.4 of MQTT 5: the client was told its maximum. 3.1.1 has no such word, it is paused instead.
        if self.exceeds_receive_max() {
            return actions.push(Action::Close(Reason::ReceiveMaximum));
        }
        if let Some(exact) = exact {
            self.forget(exact.pkid);
        }
        let owed = match (publish.qos, exact) {
            _ if self.holed => Owed::Nothing,
            (QoS::AtMostOnce, _) => Owed::Nothing,
            (_, Some(exact)) => Owed::PubRec(exact),
            _ => Owed::PubAck(publish.pkid),
        };
        self.promised += usize::from(owed != Owed::Nothing);
        self.owed.push_back(owed);
        actions.push(Action::Deliver(Accepted {
            topic,
            for_hub,
            payload: publish.payload,
            qos: publish.qos,
            retain: publish.retain,
            properties: publish.properties,
        }));
    }

    /// Whether a QoS 2 publish needs no handing over: it was handed over before, or the connection ends by it.
    fn repeats(&mut self, exact: Exact, actions: &mut Vec<Action>) -> bool {
        let on_the_way = |owed: &&Owed| matches!(owed, Owed::PubRec(other) if other.pkid == exact.pkid);
        if let Some(owed) = self.owed.iter().find(on_the_way) {
            // Two messages under one id: the PUBREC of the first would be taken for that of the second.
            if *owed != Owed::PubRec(exact) {
                actions.push(Action::Close(Reason::Protocol));
            }
            return true;
        }
        if self.recorded.get(&exact.pkid) == Some(&exact.content) {
            actions.push(Action::Reply(Reply::PubRec(exact.pkid)));
            return true;
        }
        self.repeats_earlier(exact)
    }

    /// The topic behind an alias, or of the packet itself.
    fn resolve(&mut self, topic: &Bytes, alias: Option<u16>) -> Result<(Arc<str>, bool), Reason> {
        let Some(alias) = alias else { return self.allow(topic) };
        if alias == 0 || alias > self.limits.topic_alias_max {
            return Err(Reason::TopicAlias);
        }
        let index = usize::from(alias) - 1;
        if topic.is_empty() {
            let known = self.aliases.get(index).and_then(Option::as_ref);
            // Dropped unread with the publish that introduced it, perhaps: then it is our doing.
            let unknown = if self.skipped { Reason::Resend } else { Reason::Protocol };
            return known.map(|known| (Arc::clone(&known.topic), known.for_hub)).ok_or(unknown);
        }
        let (topic, for_hub) = self.allow(topic)?;
        if self.aliases.len() <= index {
            self.aliases.resize(index + 1, None);
        }
        self.aliases[index] = Some(Allowed { topic: Arc::clone(&topic), for_hub });
        Ok((topic, for_hub))
    }

    /// Checks a topic once and remembers it, so that the common case costs one comparison.
    fn allow(&mut self, topic: &Bytes) -> Result<(Arc<str>, bool), Reason> {
        if let Some(known) = self.allowed.iter().find(|known| known.topic.as_bytes() == topic) {
            return Ok((Arc::clone(&known.topic), known.for_hub));
        }
        let text = std::str::from_utf8(topic).map_err(|_| Reason::Protocol)?;
        if !topic::is_topic_name(text) {
            return Err(Reason::Protocol);
        }
        if !self.principal.may_publish(text) {
            return Err(Reason::NotAuthorized);
        }
        if self.allowed.len() == TOPICS_CACHED {
            self.allowed.remove(0);
        }
        let allowed = Allowed { topic: text.into(), for_hub: topic::is_topic_for_hub(text) };
        let result = (Arc::clone(&allowed.topic), allowed.for_hub);
        self.allowed.push(allowed);
        Ok(result)
    }

    /// The oldest `settled.committed` delivered messages are committed, and the one after them may have failed.
    pub(crate) fn settled(&mut self, settled: Settled, actions: &mut Vec<Action>) {
        for _ in 0..settled.committed {
            let owed = self.owed.pop_front();
            self.promised -= usize::from(owed.is_some_and(|owed| owed != Owed::Nothing));
            match owed {
                Some(Owed::PubAck(pkid)) => actions.push(Action::Reply(Reply::PubAck(pkid))),
                Some(Owed::PubRec(Exact { pkid, content })) => {
                    self.recorded.insert(pkid, content);
                    actions.push(Action::Reply(Reply::PubRec(pkid)));
                }
                Some(Owed::Nothing | Owed::Silent(_)) | None => {}
            }
        }
        if settled.failed {
            actions.push(Action::Close(Reason::AckFailed));
        }
    }

    fn subscribe(&mut self, pkid: u16, filters: Vec<Wanted>, identifier: u32, actions: &mut Vec<Action>) {
        if pkid == 0 || filters.is_empty() {
            return actions.push(Action::Close(Reason::Protocol));
        }
        let (mut joins, mut replay, mut codes) = (Vec::new(), Vec::new(), Vec::with_capacity(filters.len()));
        for wanted in filters {
            let filter = match self.may_subscribe(&wanted.filter) {
                Ok(filter) => filter,
                Err(code) => {
                    codes.push(code);
                    continue;
                }
            };
            let qos = wanted.qos.min(QoS::AtLeastOnce);
            let is_new = self.put_subscription(&filter, qos, identifier, &wanted, &mut joins);
            let wants_retained = match wanted.retained {
                RetainedWish::Always => true,
                RetainedWish::IfNew => is_new,
                RetainedWish::Never => false,
            };
            if wants_retained {
                replay.push(Replay { filter, qos, identifier });
            }
            codes.push(SubCode::Granted(qos));
        }
        actions.push(Action::Subscribe { joins, replay, reply: Reply::SubAck { pkid, codes } });
    }

    fn may_subscribe(&self, text: &str) -> Result<TopicFilter, SubCode> {
        let filter = TopicFilter::new(text).map_err(|error| match error {
            FilterError::Shared => SubCode::SharedNotOffered,
            _ => SubCode::FilterInvalid,
        })?;
        if !self.principal.may_subscribe(&filter) {
            return Err(SubCode::NotAuthorized);
        }
        if !filter.is_for_hub() {
            return Err(SubCode::FilterInvalid);
        }
        let known = self.subscriptions.iter().any(|s| s.filter == filter);
        if !known && self.subscriptions.len() >= self.limits.subscriptions_max {
            return Err(SubCode::QuotaExceeded);
        }
        Ok(filter)
    }

    /// Adds or replaces a subscription; only a new one joins the hub.
    fn put_subscription(
        &mut self,
        filter: &TopicFilter,
        qos: QoS,
        identifier: u32,
        wanted: &Wanted,
        joins: &mut Vec<(TopicFilter, usize)>,
    ) -> bool {
        let known = self.subscriptions.iter_mut().find(|s| s.filter == *filter);
        if let Some(subscription) = known {
            subscription.qos = qos;
            subscription.identifier = identifier;
            subscription.no_local = wanted.no_local;
            subscription.retain_as_published = wanted.retain_as_published;
            return false;
        }
        self.subscription_id_last += 1;
        let id = self.subscription_id_last;
        self.subscriptions.push(Subscription {
            filter: filter.clone(),
            id,
            qos,
            identifier,
            no_local: wanted.no_local,
            retain_as_published: wanted.retain_as_published,
        });
        joins.push((filter.clone(), id));
        true
    }

    /// The hub has no place for this client: it has no subscriptions.
    pub(crate) fn forget_subscriptions(&mut self) {
        self.subscriptions.clear();
    }

    fn unsubscribe(&mut self, pkid: u16, filters: &[String], actions: &mut Vec<Action>) {
        if pkid == 0 || filters.is_empty() {
            return actions.push(Action::Close(Reason::Protocol));
        }
        let mut left = Vec::new();
        let mut existed = Vec::with_capacity(filters.len());
        for filter in filters {
            let position = self.subscriptions.iter().position(|s| s.filter.as_str() == filter);
            existed.push(position.is_some());
            if let Some(position) = position {
                left.push(self.subscriptions.swap_remove(position).filter);
            }
        }
        actions.push(Action::Unsubscribe { filters: left, reply: Reply::UnsubAck { pkid, existed } });
    }

    pub(crate) fn has_subscriptions(&self) -> bool {
        !self.subscriptions.is_empty()
    }

    /// The filters it has subscribed to.
    pub(crate) fn topics(&self) -> Vec<TopicFilter> {
        self.subscriptions.iter().map(|subscription| subscription.filter.clone()).collect()
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
