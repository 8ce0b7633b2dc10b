//! A session and its connections, driven by an input and checked against a model that is kept separately.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::{Bytes, BytesMut};

use super::assert_framed;
use crate::ack::Settled;
use crate::auth::{Principal, PrincipalKind, Protocol};
use crate::codec;
use crate::inbound::{QoS, Reason};
use crate::packet::{Message, Outgoing, Packet, Reply};
use crate::session::{Action, Held, Limits, Sending, Session};
use crate::topic::{self, TopicFilter};

// Small, so that an input of a few packets meets them.
const LIMITS: Limits = Limits {
    unacked_max: 4,
    payload_bytes_max: 512,
    subscriptions_max: 3,
    inflight_max: 3,
    topic_alias_max: 3,
    expiry_s_max: 1_000,
};
const FRAME_BYTES_MAX: usize = 64 << 10;
/// Connections a session may wait for, see `session::kept`.
const EARLIER_MAX: usize = 8;
const TOPIC: &str = "lift/v1/310115/T1/telemetry";

/// A message handed over and not yet settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Promise {
    Nothing,
    PubAck(u16),
    PubRec(Exact),
    /// The client will ask for this PUBREC on a later connection, or not.
    Silent(Exact),
}

/// Packet id and content of a QoS 2 publish.
type Exact = (u16, u64);

/// A message sent to the client and not yet acknowledged.
#[derive(Debug)]
struct Sent {
    pkid: u16,
    kept: bool,
    /// On this connection.
    now: bool,
}

pub(super) struct Drive<'a> {
    protocol: Protocol,
    rights: Principal,
    session: Session,
    decisions: std::iter::Cycle<std::iter::Copied<std::slice::Iter<'a, u8>>>,
    actions: Vec<Action>,
    out: BytesMut,
    closed: Option<Reason>,
    // The model.
    epoch: u64,
    promised: VecDeque<Promise>,
    earlier: Vec<(u64, VecDeque<Promise>)>,
    recorded: BTreeMap<u16, u64>,
    aliases: BTreeMap<u16, Bytes>,
    subscriptions: Vec<(TopicFilter, usize)>,
    sent: Vec<Sent>,
    inflight_max: usize,
}

impl<'a> Drive<'a> {
    pub(super) fn new(protocol: Protocol, kind: PrincipalKind, decisions: &'a [u8]) -> Self {
        // Parsed once a thread: an input costs about as much.
        thread_local! {
            static OWN: TopicFilter = TopicFilter::new("lift/v1/+/T1/#").expect("a filter");
        }
        let own = OWN.with(Clone::clone);
        let rights = Principal { kind, publish: vec![own.clone()], subscribe: vec![own] };
        Self {
            protocol,
            session: Session::new(protocol, rights.clone(), LIMITS, 60),
            rights,
            decisions: decisions.iter().copied().cycle(),
            actions: Vec::new(),
            out: BytesMut::new(),
            closed: None,
            epoch: 1,
            promised: VecDeque::new(),
            earlier: Vec::new(),
            recorded: BTreeMap::new(),
            aliases: BTreeMap::new(),
            subscriptions: Vec::new(),
            sent: Vec::new(),
            inflight_max: LIMITS.inflight_max,
        }
    }

    fn decide(&mut self) -> u8 {
        self.decisions.next().unwrap_or(0)
    }

    /// As the connection does: what has arrived is cut into frames, which are read one by one.
    pub(super) fn run(mut self, stream: &[u8]) {
        let (mut start, mut arrived) = (0, 0);
        while arrived < stream.len() {
            let chunk = match self.decide() {
                byte @ 0..32 => 1 + usize::from(byte),
                32.. => stream.len(),
            };
            arrived = (arrived + chunk).min(stream.len());
            let Ok((end, _)) = codec::complete(&stream[start..arrived], FRAME_BYTES_MAX) else { break };
            assert!(end <= arrived - start, "frames lie within what has arrived");
            let mut frames = Bytes::copy_from_slice(&stream[start..start + end]);
            start += end;
            while !frames.is_empty() {
                let Ok(Some(len)) = codec::frame_len(&frames, FRAME_BYTES_MAX) else {
                    panic!("a frame that was complete is not");
                };
                self.frame(frames.split_to(len));
                if self.closed.is_none() {
                    self.elsewhere();
                }
                if self.closed.is_some() || self.decide() % 16 == 7 {
                    if self.session.expiry_s() == 0 {
                        return;
                    }
                    self.next_connection();
                }
            }
        }
        // In the end everything is committed.
        while self.closed.is_none() && !self.promised.is_empty() {
            self.settle(1, false);
        }
        while self.closed.is_none() && !self.earlier.is_empty() {
            self.settle_earlier(usize::MAX, false);
        }
    }

    fn frame(&mut self, frame: Bytes) {
        let is_publish = codec::is_publish(&frame);
        let promised = frame[0] & 0b110 != 0;
        if is_publish && self.decide() == 5 {
            return self.session.dropped_unread(promised);
        }
        let Ok(packet) = codec::read(self.protocol, frame) else {
            self.closed = Some(Reason::Protocol);
            return;
        };
        assert_eq!(is_publish, matches!(packet, Packet::Publish(_)), "the frame says what it is");
        let mut admitted = !self.decide().is_multiple_of(16);
        if is_publish && !self.session.has_room() {
            // A full window is waited for, or the publish is dropped.
            if self.decide().is_multiple_of(4) {
                admitted = false;
            } else {
                self.settle(1, false);
                admitted &= self.session.has_room();
            }
        }
        let seen = Seen::of(&packet, &mut self.aliases);
        let was_holed = self.session.is_holed();
        self.session.packet(packet, admitted, &mut self.actions);
        self.check_answers(&seen, admitted, was_holed);
    }

    /// Commits, failures, and messages for a subscriber.
    fn elsewhere(&mut self) {
        let byte = self.decide();
        if byte & 3 != 0 {
            let count = usize::from(byte & 3).min(self.promised.len());
            self.settle(count, byte > 250);
        }
        if self.closed.is_none() && byte & 8 != 0 && !self.earlier.is_empty() {
            self.settle_earlier(usize::from(byte & 3), byte > 240);
        }
        if self.closed.is_none() && byte & 4 != 0 {
            self.resend(byte);
            if self.session.can_send() {
                self.send(byte);
            }
        }
    }

    /// The connection breaks, or was closed, and the client comes back to its session.
    fn next_connection(&mut self) {
        let failed = self.closed.take() == Some(Reason::AckFailed);
        let kept = self.session.suspend(self.epoch, failed);
        assert!(kept.is_within(&self.rights), "a session holds nothing but what its client may have");
        let silent = |promise: &Promise| match *promise {
            Promise::PubRec(exact) | Promise::Silent(exact) => Promise::Silent(exact),
            Promise::PubAck(_) | Promise::Nothing => Promise::Nothing,
        };
        let promised = std::mem::take(&mut self.promised);
        if !failed {
            self.earlier.push((self.epoch, promised));
        }
        for (_, promises) in &mut self.earlier {
            *promises = promises.iter().map(silent).collect();
        }
        self.earlier.retain(|(_, promises)| promises.iter().any(|promise| *promise != Promise::Nothing));
        let surplus = self.earlier.len().saturating_sub(EARLIER_MAX);
        self.earlier.drain(..surplus);
        for (epoch, _) in &self.earlier {
            assert!(kept.awaits(*epoch), "what was handed over is waited for");
        }
        self.sent.retain(|sent| sent.kept);
        self.sent.iter_mut().for_each(|sent| sent.now = false);
        self.epoch += 1;
        // It may say another receive maximum than before.
        self.inflight_max = 1 + usize::from(self.decide()) % LIMITS.inflight_max;
        let limits = Limits { inflight_max: self.inflight_max, ..LIMITS };
        self.session = Session::new(self.protocol, self.rights.clone(), limits, 60);
        self.aliases.clear();
        self.session.resume(kept);
    }

    fn settle(&mut self, committed: usize, failed: bool) {
        let failed = failed && committed < self.promised.len();
        let expected: Vec<Promise> =
            self.promised.drain(..committed).filter(|promise| *promise != Promise::Nothing).collect();
        self.session.settled(Settled { committed, failed }, &mut self.actions);
        self.check_acks(&expected, failed);
        assert_eq!(failed, self.closed.is_some(), "a failure ends the connection");
    }

    /// The oldest connection that is still waited for hears of its messages.
    fn settle_earlier(&mut self, committed: usize, failed: bool) {
        let (epoch, promises) = &mut self.earlier[0];
        let epoch = *epoch;
        let committed = committed.min(promises.len());
        let failed = failed && committed < promises.len();
        let mut expected = Vec::new();
        for promise in promises.drain(..committed) {
            match promise {
                Promise::PubRec(_) => expected.push(promise),
                Promise::Silent((pkid, content)) => {
                    self.recorded.insert(pkid, content);
                }
                Promise::Nothing | Promise::PubAck(_) => {}
            }
        }
        let asked = promises.iter().any(|promise| matches!(promise, Promise::PubRec(_)));
        if failed || promises.iter().all(|promise| *promise == Promise::Nothing) {
            self.earlier.remove(0);
        }
        self.session.settled_earlier(epoch, Settled { committed, failed }, &mut self.actions);
        self.check_acks(&expected, failed);
        assert_eq!(failed && asked, self.closed.is_some(), "who asked hears of a failure");
        let awaited = self.earlier.iter().any(|(waiting, _)| *waiting == epoch);
        assert_eq!(self.session.awaits(epoch), awaited);
    }

    /// Commits are answered by exactly these, in order.
    fn check_acks(&mut self, expected: &[Promise], failed: bool) {
        let mut acked = Vec::new();
        for action in std::mem::take(&mut self.actions) {
            assert!(self.closed.is_none(), "nothing follows the end");
            match action {
                Action::Reply(reply @ (Reply::PubAck(_) | Reply::PubRec(_))) => acked.push(reply),
                Action::Close(reason @ Reason::AckFailed) if failed => self.closed = Some(reason),
                other => panic!("a commit answered by {other:?}"),
            }
        }
        assert_eq!(acked.len(), expected.len(), "acknowledged is what was committed, once");
        for (ack, promise) in acked.into_iter().zip(expected) {
            match (&ack, *promise) {
                (Reply::PubAck(pkid), Promise::PubAck(promised)) => assert_eq!(*pkid, promised, "in order"),
                (Reply::PubRec(pkid), Promise::PubRec((promised, content))) => {
                    assert_eq!(*pkid, promised, "in order");
                    self.recorded.insert(promised, content);
                }
                _ => panic!("{ack:?} for {promise:?}"),
            }
            self.write(ack);
        }
    }

    fn check_answers(&mut self, seen: &Seen, admitted: bool, was_holed: bool) {
        let mut delivered = false;
        for action in std::mem::take(&mut self.actions) {
            assert!(self.closed.is_none(), "nothing follows the end");
            match action {
                Action::Deliver(accepted) => {
                    assert!(admitted && !delivered, "handed over once, with room");
                    delivered = true;
                    let Seen::Publish { qos, exact } = *seen else { panic!("no publish: {seen:?}") };
                    assert_eq!(accepted.qos, qos);
                    assert!(accepted.payload.len() <= LIMITS.payload_bytes_max);
                    assert!(
                        topic::is_topic_name(&accepted.topic) && self.rights.may_publish(&accepted.topic)
                    );
                    assert_eq!(accepted.for_hub, topic::is_topic_for_hub(&accepted.topic));
                    self.promise(qos, exact, was_holed);
                }
                Action::Reply(Reply::PubRec(pkid)) => {
                    let Seen::Publish { exact, .. } = *seen else { panic!("no publish: {seen:?}") };
                    let known = self.recorded.get(&pkid).map(|content| (pkid, *content));
                    assert_eq!(known, Some(exact), "PUBREC only for what is committed");
                    self.write(Reply::PubRec(pkid));
                }
                Action::Reply(Reply::PubComp { pkid, known }) => {
                    assert_eq!(known, self.recorded.remove(&pkid).is_some(), "released once");
                    self.write(Reply::PubComp { pkid, known });
                }
                Action::Reply(Reply::PubAck(pkid)) => panic!("{pkid} acknowledged before it is committed"),
                Action::Reply(reply) => self.write(reply),
                Action::Subscribe { joins, reply, .. } => {
                    for (filter, id) in joins {
                        assert!(self.rights.may_subscribe(&filter) && filter.is_for_hub());
                        assert!(
                            self.subscriptions.iter().all(|(_, known)| *known != id),
                            "a number of its own"
                        );
                        self.subscriptions.push((filter, id));
                    }
                    assert!(self.subscriptions.len() <= LIMITS.subscriptions_max);
                    let Seen::Lines(lines) = *seen else { panic!("no SUBSCRIBE: {seen:?}") };
                    let Reply::SubAck { codes, .. } = &reply else { panic!("{reply:?}") };
                    assert_eq!(codes.len(), lines, "one answer for each line");
                    self.write(reply);
                }
                Action::Unsubscribe { filters, reply } => {
                    self.subscriptions.retain(|(filter, _)| !filters.contains(filter));
                    let Seen::Lines(lines) = *seen else { panic!("no UNSUBSCRIBE: {seen:?}") };
                    let Reply::UnsubAck { existed, .. } = &reply else { panic!("{reply:?}") };
                    assert_eq!(existed.len(), lines, "one answer for each line");
                    self.write(reply);
                }
                Action::Close(reason) => {
                    self.closed = Some(reason);
                    self.write(Reply::Disconnect(reason));
                }
            }
        }
        match *seen {
            Seen::PubAck(pkid) => self.sent.retain(|sent| sent.pkid != pkid),
            // A repetition of what an earlier connection has handed over: its PUBREC is asked for now.
            Seen::Publish { qos: QoS::ExactlyOnce, exact } if !delivered && self.closed.is_none() => {
                let is_recorded = self.recorded.get(&exact.0) == Some(&exact.1);
                for promise in self.earlier.iter_mut().flat_map(|(_, promises)| promises) {
                    if *promise == Promise::Silent(exact) && !is_recorded {
                        *promise = Promise::PubRec(exact);
                    }
                }
            }
            _ => {}
        }
        assert_eq!(self.session.unsettled(), self.promised.len());
        assert_eq!(self.session.topics().len(), self.subscriptions.len());
        assert!(self.promised.len() <= LIMITS.unacked_max, "the window is kept");
        let recorded_max = (2 + EARLIER_MAX) * LIMITS.unacked_max;
        assert!(self.recorded.len() <= recorded_max, "so is what QoS 2 remembers");
        assert!(self.session.expiry_s() <= LIMITS.expiry_s_max);
    }

    fn promise(&mut self, qos: QoS, exact: Exact, was_holed: bool) {
        let promise = match qos {
            QoS::AtMostOnce => Promise::Nothing,
            QoS::AtLeastOnce => Promise::PubAck(exact.0),
            QoS::ExactlyOnce => {
                let known = [Promise::PubRec(exact), Promise::Silent(exact)];
                let waiting = self.earlier.iter().flat_map(|(_, promises)| promises).chain(&self.promised);
                let again = self.recorded.get(&exact.0) == Some(&exact.1)
                    || waiting.into_iter().any(|promise| known.contains(promise));
                assert!(!again, "QoS 2 is handed over once");
                self.forget(exact.0);
                Promise::PubRec(exact)
            }
        };
        self.promised.push_back(if was_holed { Promise::Nothing } else { promise });
    }

    /// Another publish has this packet id now.
    fn forget(&mut self, pkid: u16) {
        for promise in self.earlier.iter_mut().flat_map(|(_, promises)| promises) {
            if matches!(promise, Promise::PubRec((id, _)) | Promise::Silent((id, _)) if *id == pkid) {
                *promise = Promise::Nothing;
            }
        }
        self.recorded.remove(&pkid);
        if self.recorded.len() >= LIMITS.unacked_max {
            self.recorded.pop_first();
        }
    }

    fn send(&mut self, byte: u8) {
        // To a subscriber as a rule, to one that is none now and then.
        let number = usize::from(byte >> 3 & 3);
        let known = self.subscriptions.get(number % self.subscriptions.len().max(1));
        let id = known.filter(|_| byte & 32 == 0).map_or(number, |(_, id)| *id);
        let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(byte >> 5) % 3];
        let sending = self.session.send(id, qos, byte & 8 != 0, byte & 16 != 0);
        let Some(Sending { pkid, retain, identifier }) = sending else { return };
        assert!(self.subscriptions.iter().any(|(_, known)| *known == id), "sent to a subscriber only");
        let message = Message {
            topic: Bytes::from_static(TOPIC.as_bytes()),
            payload: Bytes::from_static(b"x"),
            retain,
            identifier,
            properties: None,
            arrived_us: Some(1),
            expires_us: None,
        };
        self.write_message(&message, pkid, false);
        if pkid == 0 {
            return;
        }
        assert!(self.sent.iter().all(|sent| sent.pkid != pkid), "a packet id that is free");
        let kept = self.decide() & 1 == 0;
        if kept {
            self.session.hold(pkid, Box::new(Held { message, receipt: None }));
        }
        self.sent.push(Sent { pkid, kept, now: true });
        self.check_inflight();
    }

    /// What was in flight when the last connection broke.
    fn resend(&mut self, byte: u8) {
        while let Some((pkid, held)) = self.session.resend() {
            let next = self.sent.iter_mut().find(|sent| !sent.now).expect("something is to be sent again");
            assert_eq!(next.pkid, pkid, "sent again in order");
            next.now = true;
            self.write_message(&held.message, pkid, true);
            if byte & 16 == 0 {
                self.session.hold(pkid, held);
            } else {
                self.session.give_up(pkid);
                self.sent.retain(|sent| sent.pkid != pkid);
            }
            self.check_inflight();
        }
    }

    fn check_inflight(&self) {
        let now = self.sent.iter().filter(|sent| sent.now).count();
        assert!(now <= self.inflight_max, "what a subscriber has not acknowledged is bounded");
    }

    fn write_message(&mut self, message: &Message, pkid: u16, dup: bool) {
        self.out.clear();
        let outgoing = Outgoing { message, pkid, dup, expiry_s: Some(1) };
        codec::write_publish(self.protocol, &outgoing, &mut self.out).expect("a message can be written");
        assert_framed(&self.out);
    }

    fn write(&mut self, reply: Reply) {
        self.out.clear();
        codec::write(self.protocol, reply, &mut self.out).expect("a reply can be written");
        assert_framed(&self.out);
    }
}

/// What the model needs to know of a packet.
#[derive(Debug)]
enum Seen {
    Publish { qos: QoS, exact: Exact },
    PubAck(u16),
    Lines(usize),
    Other,
}

impl Seen {
    /// Topics by alias are learned from it.
    fn of(packet: &Packet, aliases: &mut BTreeMap<u16, Bytes>) -> Self {
        match packet {
            Packet::Publish(publish) => {
                let mut topic = publish.topic.clone();
                if let Some(alias) = publish.alias {
                    if topic.is_empty() {
                        topic = aliases.get(&alias).cloned().unwrap_or_default();
                    } else {
                        aliases.insert(alias, topic.clone());
                    }
                }
                let mut hasher = DefaultHasher::new();
                (topic, &publish.payload).hash(&mut hasher);
                Self::Publish { qos: publish.qos, exact: (publish.pkid, hasher.finish()) }
            }
            Packet::PubAck(pkid) => Self::PubAck(*pkid),
            Packet::Subscribe { filters, .. } => Self::Lines(filters.len()),
            Packet::Unsubscribe { filters, .. } => Self::Lines(filters.len()),
            _ => Self::Other,
        }
    }
}
