//! The session against a small model of MQTT: a client as the standard wants it, a network that breaks anywhere, a
//! store that commits late, out of order, or not at all.
//!
//! Whatever happens: an acknowledgement means committed; acknowledgements of a connection leave in the order its
//! messages were handed over; a QoS 1 message is handed over at least once, a QoS 2 message exactly once (again
//! only after a failure, or after something before it was dropped); what is sent to the client arrives at least
//! once, first in order, with one packet id until it is acknowledged, never more at a time than it takes. And once
//! network and store behave, everything is delivered and acknowledged.

use std::collections::{HashMap, HashSet, VecDeque};

use bytes::Bytes;
use proptest::prelude::*;
use tokio::sync::oneshot;

use super::*;

const TOPIC: &str = "lift/v1/1/T1/x";
const UNACKED_MAX: usize = 5;
const INFLIGHT_MAX: usize = 3;

#[derive(Debug, Clone, Copy)]
enum Op {
    Publish(QoS),
    Offer,
    /// The server reads so many packets; with `false`, the first publish of them cannot be handed over.
    Serve(usize, bool),
    Listen(usize),
    Acknowledge(usize),
    Settle(usize, bool),
    Notice,
    Break,
    Connect,
    CleanStart,
    /// The client restarts with its messages and without their packet ids, and goes on with its session.
    Restart,
}

fn any_op() -> impl Strategy<Value = Op> {
    let qos =
        prop_oneof![1 => Just(QoS::AtMostOnce), 1 => Just(QoS::AtLeastOnce), 3 => Just(QoS::ExactlyOnce)];
    prop_oneof![
        8 => qos.prop_map(Op::Publish),
        4 => Just(Op::Offer),
        8 => (1..4_usize, prop::bool::weighted(0.97)).prop_map(|(n, admitted)| Op::Serve(n, admitted)),
        8 => (1..4_usize).prop_map(Op::Listen),
        5 => (1..4_usize).prop_map(Op::Acknowledge),
        8 => (0..9_usize, prop::bool::weighted(0.95)).prop_map(|(which, ok)| Op::Settle(which, ok)),
        6 => Just(Op::Notice),
        2 => Just(Op::Break),
        4 => Just(Op::Connect),
        1 => prop::bool::weighted(0.1).prop_map(|lost| if lost { Op::Restart } else { Op::Notice }),
        1 => prop::bool::weighted(0.2).prop_map(|clean| if clean { Op::CleanStart } else { Op::Connect }),
    ]
}

/// To the client.
#[derive(Debug)]
enum Down {
    Reply(Reply),
    Publish { pkid: u16, dup: bool, id: u32 },
}

/// A message in the client's outbox.
#[derive(Debug)]
struct Out {
    id: u32,
    pkid: u16,
    qos: QoS,
    released: bool,
}

/// What the store makes of the messages of one connection, as `ack::Window` reports it.
#[derive(Debug, Default)]
struct Window {
    slots: VecDeque<(u32, Option<bool>)>,
    news: VecDeque<u32>,
    failed: bool,
}

impl Window {
    fn settle(&mut self, id: u32, ok: bool) {
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.0 == id && slot.1.is_none()) {
            slot.1 = Some(ok);
        }
        while let Some((id, Some(ok))) = self.slots.front().copied() {
            self.slots.pop_front();
            self.failed |= !ok;
            if !self.failed {
                self.news.push_back(id);
            }
        }
    }

    fn take(&mut self) -> (Settled, Vec<u32>) {
        let ids: Vec<u32> = self.news.drain(..).collect();
        (Settled { committed: ids.len(), failed: self.failed }, ids)
    }
}

struct World {
    protocol: Protocol,
    session: Option<Session>,
    kept: Option<Kept>,
    epoch: u64,
    windows: Vec<(u64, Window)>,
    up: VecDeque<Packet>,
    down: VecDeque<Down>,
    // The client.
    outbox: Vec<Out>,
    id_last: u32,
    pkid_last: u16,
    qos_of: HashMap<u32, (QoS, u16)>,
    to_ack: VecDeque<u16>,
    received: Vec<u32>,
    // The server.
    handed: HashMap<u32, usize>,
    excused: HashMap<u32, usize>,
    committed: HashSet<u32>,
    abandoned: HashSet<u32>,
    offered: VecDeque<u32>,
    offer_last: u32,
    receipts: HashMap<u32, oneshot::Receiver<()>>,
    sent: HashMap<u16, u32>,
    on_the_wire: usize,
    /// The ids of before are never released; what makes room for them is handed over once more.
    has_restarted: bool,
    /// After a clean start a delivery comes again as a new one.
    began_anew: bool,
}

impl World {
    fn new(protocol: Protocol) -> Self {
        let mut world = Self {
            protocol,
            session: None,
            kept: None,
            epoch: 0,
            windows: Vec::new(),
            up: VecDeque::new(),
            down: VecDeque::new(),
            outbox: Vec::new(),
            id_last: 0,
            pkid_last: 0,
            qos_of: HashMap::new(),
            to_ack: VecDeque::new(),
            received: Vec::new(),
            handed: HashMap::new(),
            excused: HashMap::new(),
            committed: HashSet::new(),
            abandoned: HashSet::new(),
            offered: VecDeque::new(),
            offer_last: 0,
            receipts: HashMap::new(),
            sent: HashMap::new(),
            on_the_wire: 0,
            has_restarted: false,
            began_anew: false,
        };
        world.connect(false);
        world
    }

    fn connect(&mut self, clean: bool) {
        self.cut(false);
        if clean {
            self.began_anew = true;
            self.abandoned.extend(self.outbox.drain(..).map(|out| out.id));
            self.windows.clear();
            self.kept = None;
            self.sent.clear();
            // Who offered them learns that they did not arrive, and offers them again.
            let receipts = std::mem::take(&mut self.receipts);
            let mut lost = Vec::new();
            for (id, mut told) in receipts {
                match told.try_recv() {
                    Ok(()) => {}
                    Err(oneshot::error::TryRecvError::Closed) => lost.push(id),
                    Err(oneshot::error::TryRecvError::Empty) => panic!("{id} is in flight nowhere"),
                }
            }
            lost.sort_unstable();
            self.offered = lost.into_iter().chain(self.offered.drain(..)).collect();
        }
        let filter = |text| TopicFilter::new(text).unwrap();
        let principal = Principal {
            kind: PrincipalKind::Terminal,
            publish: vec![filter("lift/#")],
            subscribe: vec![filter("lift/#")],
        };
        self.epoch += 1;
        let limits = Limits {
            unacked_max: UNACKED_MAX,
            payload_bytes_max: 100,
            subscriptions_max: 3,
            inflight_max: self.inflight_max(),
            topic_alias_max: 0,
            expiry_s_max: 1_000,
        };
        let mut session = Session::new(self.protocol, principal, limits, 100);
        self.windows.push((self.epoch, Window::default()));
        if let Some(kept) = self.kept.take() {
            session.resume(kept);
        } else {
            let wanted = Wanted {
                filter: TOPIC.into(),
                qos: QoS::AtLeastOnce,
                no_local: false,
                retain_as_published: false,
                retained: RetainedWish::Never,
            };
            let subscribe = Packet::Subscribe { pkid: 1, filters: vec![wanted], identifier: 0 };
            session.packet(subscribe, true, &mut Vec::new());
        }
        self.session = Some(session);
        // 4.4 of either version: everything unacknowledged again, in order, with its packet id.
        for i in 0..self.outbox.len() {
            self.transmit(i);
        }
        self.send();
    }

    /// How much the client takes at a time: another number with each connection.
    fn inflight_max(&self) -> usize {
        1 + usize::try_from(self.epoch).unwrap() % INFLIGHT_MAX
    }

    /// The connection breaks: what is on its way is lost.
    fn cut(&mut self, failed: bool) {
        let Some(mut session) = self.session.take() else { return };
        self.up.clear();
        self.down.clear();
        self.to_ack.clear();
        self.on_the_wire = 0;
        let kept = session.suspend(self.epoch, failed);
        let surplus = self.windows.len() > 8;
        let mut windows = std::mem::take(&mut self.windows);
        windows.retain(|(epoch, window)| {
            if kept.awaits(*epoch) {
                return true;
            }
            let unknown = window.slots.iter().map(|slot| slot.0).chain(window.news.iter().copied());
            for id in unknown.filter(|id| self.qos_of[id].0 == QoS::ExactlyOnce) {
                let excused = self.excused.contains_key(&id);
                let is_known = !(failed || window.failed || surplus || excused || self.has_restarted);
                assert!(!is_known, "message {id} is forgotten");
                *self.excused.entry(id).or_default() += 1;
            }
            false
        });
        self.windows = windows;
        self.kept = Some(kept);
    }

    fn publish(&mut self, qos: QoS) {
        if self.outbox.len() >= UNACKED_MAX {
            return;
        }
        self.id_last += 1;
        let id = self.id_last;
        if qos == QoS::AtMostOnce {
            self.qos_of.insert(id, (qos, 0));
            if self.session.is_some() {
                self.up.push_back(publish(id, 0, qos));
            }
            return;
        }
        // Ids are used again soon, to meet those that are not done with.
        loop {
            self.pkid_last = self.pkid_last % 7 + 1;
            if !self.outbox.iter().any(|out| out.pkid == self.pkid_last) {
                break;
            }
        }
        self.qos_of.insert(id, (qos, self.pkid_last));
        self.outbox.push(Out { id, pkid: self.pkid_last, qos, released: false });
        if self.session.is_some() {
            self.transmit(self.outbox.len() - 1);
        }
    }

    fn transmit(&mut self, i: usize) {
        let Out { id, pkid, qos, released } = self.outbox[i];
        self.up.push_back(if released { Packet::PubRel(pkid) } else { publish(id, pkid, qos) });
    }

    fn serve(&mut self, admitted: bool) {
        let Some(session) = &mut self.session else { return };
        let id = match self.up.front() {
            Some(Packet::Publish(_)) if !session.has_room() => return,
            Some(Packet::Publish(publish)) => id_of(&publish.payload),
            _ => 0,
        };
        let Some(packet) = self.up.pop_front() else { return };
        if matches!(packet, Packet::PubAck(_)) {
            self.on_the_wire -= 1;
        }
        if let Packet::PubAck(pkid) = &packet {
            self.sent.remove(pkid).expect("the client acknowledges what was sent");
        }
        let mut actions = Vec::new();
        session.packet(packet, admitted || id == 0, &mut actions);
        let holed = session.is_holed();
        for action in actions {
            match action {
                Action::Deliver(accepted) => {
                    assert_eq!(id_of(&accepted.payload), id);
                    *self.handed.entry(id).or_default() += 1;
                    let window = &mut self.windows.last_mut().unwrap().1;
                    let behind_failure =
                        window.failed || window.slots.iter().any(|slot| slot.1 == Some(false));
                    if holed || behind_failure {
                        *self.excused.entry(id).or_default() += 1;
                    }
                    window.slots.push_back((id, None));
                }
                Action::Reply(reply) => self.reply(reply),
                other => panic!("{other:?}"),
            }
        }
        self.send();
    }

    fn reply(&mut self, reply: Reply) {
        if let Reply::PubAck(pkid) | Reply::PubRec(pkid) = reply {
            let out = self.outbox.iter().find(|out| out.pkid == pkid).expect("the client waits for it");
            assert!(self.committed.contains(&out.id), "{reply:?} before {out:?} is committed");
            let is_2 = matches!(reply, Reply::PubRec(_));
            assert_eq!(out.qos == QoS::ExactlyOnce, is_2);
        }
        self.down.push_back(Down::Reply(reply));
    }

    /// The server sends what it may.
    fn send(&mut self) {
        let Some(session) = &mut self.session else { return };
        while let Some((pkid, held)) = session.resend() {
            let id = id_of(&held.message.payload);
            assert_eq!(self.sent.get(&pkid), Some(&id), "the same packet id");
            self.down.push_back(Down::Publish { pkid, dup: true, id });
            self.on_the_wire += 1;
            session.hold(pkid, held);
        }
        while session.can_send()
            && let Some(id) = self.offered.pop_front()
        {
            let sending = session.send_delivery(TOPIC).expect("it has subscribed");
            assert_eq!(self.sent.insert(sending.pkid, id), None, "a packet id of its own");
            let (receipt, told) = DeliveryReceipt::watched();
            self.receipts.insert(id, told);
            let message = Message {
                topic: Bytes::from_static(TOPIC.as_bytes()),
                payload: payload(id),
                retain: false,
                identifier: 0,
                properties: None,
                arrived_us: None,
                expires_us: None,
            };
            session.hold(sending.pkid, Box::new(Held { message, receipt: Some(receipt) }));
            self.down.push_back(Down::Publish { pkid: sending.pkid, dup: false, id });
            self.on_the_wire += 1;
        }
        assert!(self.on_the_wire <= self.inflight_max());
    }

    fn listen(&mut self) {
        match self.down.pop_front() {
            Some(Down::Publish { pkid, dup, id }) => {
                assert!(dup || !self.received.contains(&id) || self.began_anew, "a repetition says so");
                self.received.push(id);
                self.to_ack.push_back(pkid);
            }
            Some(Down::Reply(Reply::PubAck(pkid))) => self.finish(pkid, false),
            Some(Down::Reply(Reply::PubRec(pkid))) => {
                let out = self.outbox.iter_mut().find(|out| out.pkid == pkid).expect("PUBREC is awaited");
                out.released = true;
                self.up.push_back(Packet::PubRel(pkid));
            }
            Some(Down::Reply(Reply::PubComp { pkid, .. })) => self.finish(pkid, true),
            Some(Down::Reply(other)) => panic!("{other:?}"),
            None => {}
        }
    }

    fn finish(&mut self, pkid: u16, released: bool) {
        let i = self.outbox.iter().position(|out| out.pkid == pkid).expect("it is awaited");
        assert_eq!(self.outbox[i].released, released, "PUBCOMP ends only what was released");
        self.outbox.remove(i);
    }

    fn acknowledge(&mut self) {
        if let Some(pkid) = self.to_ack.pop_front() {
            self.up.push_back(Packet::PubAck(pkid));
        }
    }

    fn settle(&mut self, which: usize, ok: bool) {
        let unsettled = self.windows.iter().flat_map(|(_, window)| &window.slots);
        let ids: Vec<u32> = unsettled.filter(|slot| slot.1.is_none()).map(|slot| slot.0).collect();
        if ids.is_empty() {
            return;
        }
        let id = ids[which % ids.len()];
        if ok {
            self.committed.insert(id);
        }
        let mut windows = self.windows.iter_mut().map(|(_, window)| window);
        let window = windows.find(|window| window.slots.contains(&(id, None))).unwrap();
        window.settle(id, ok);
    }

    /// The connection looks what has settled.
    fn notice(&mut self) {
        let Some(session) = &mut self.session else { return };
        let mut replies = Vec::new();
        let mut closed = false;
        for (epoch, window) in &mut self.windows {
            let (settled, ids) = window.take();
            let mut actions = Vec::new();
            let holed = session.is_holed();
            let is_current = *epoch == self.epoch;
            if is_current {
                session.settled(settled, &mut actions);
            } else {
                session.settled_earlier(*epoch, settled, &mut actions);
            }
            let mut answered = Vec::new();
            for action in actions {
                match action {
                    Action::Reply(reply) => {
                        answered.extend(match reply {
                            Reply::PubAck(pkid) | Reply::PubRec(pkid) => Some(pkid),
                            _ => None,
                        });
                        replies.push(reply);
                    }
                    Action::Close(Reason::AckFailed) => closed = true,
                    other => panic!("{other:?}"),
                }
            }
            if is_current && !holed {
                let promised = ids.iter().filter(|id| self.qos_of[id].0 != QoS::AtMostOnce);
                let promised: Vec<u16> = promised.map(|id| self.qos_of[id].1).collect();
                assert_eq!(answered, promised, "all that is committed, in order");
            }
        }
        let unknown: Vec<u32> = self
            .windows
            .iter()
            .filter(|(epoch, window)| window.failed && *epoch != self.epoch)
            .flat_map(|(_, window)| window.slots.iter().map(|slot| slot.0))
            .collect();
        for id in unknown {
            *self.excused.entry(id).or_default() += 1;
        }
        self.windows.retain(|(epoch, _)| *epoch == self.epoch || session.awaits(*epoch));
        for reply in replies {
            self.reply(reply);
        }
        if closed {
            let failed = self.windows.last().is_some_and(|(_, window)| window.failed);
            self.cut(failed);
        }
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Publish(qos) => self.publish(qos),
            Op::Offer => {
                self.offer_last += 1;
                self.offered.push_back(self.offer_last);
                self.send();
            }
            Op::Serve(n, admitted) => (0..n).for_each(|i| self.serve(admitted || i > 0)),
            Op::Listen(n) => (0..n).for_each(|_| self.listen()),
            Op::Acknowledge(n) => (0..n).for_each(|_| self.acknowledge()),
            Op::Settle(which, ok) => {
                if !ok {
                    self.excuse_failing(which);
                }
                self.settle(which, ok);
            }
            Op::Notice => self.notice(),
            Op::Break => self.cut(false),
            Op::Connect if self.session.is_none() => self.connect(false),
            Op::Connect => {}
            Op::CleanStart => self.connect(true),
            Op::Restart => self.restart(),
        }
    }

    fn restart(&mut self) {
        self.has_restarted = true;
        self.cut(false);
        // What was recorded is acknowledged to it.
        self.outbox.retain(|out| !out.released);
        self.pkid_last = 0;
        for out in &mut self.outbox {
            self.pkid_last += 1;
            out.pkid = self.pkid_last;
            self.qos_of.insert(out.id, (out.qos, out.pkid));
        }
        self.connect(false);
    }

    /// What fails, and what comes after it in its window, may be handed over again.
    fn excuse_failing(&mut self, which: usize) {
        let unsettled = self.windows.iter().flat_map(|(_, window)| &window.slots);
        let ids: Vec<u32> = unsettled.filter(|slot| slot.1.is_none()).map(|slot| slot.0).collect();
        let Some(id) = ids.get(which % ids.len().max(1)) else { return };
        let window = self.windows.iter().find(|(_, window)| window.slots.contains(&(*id, None)));
        let Some((_, window)) = window else { return };
        let after = window.slots.iter().skip_while(|slot| slot.0 != *id);
        let after: Vec<u32> = after.map(|slot| slot.0).collect();
        for id in after {
            *self.excused.entry(id).or_default() += 1;
        }
    }

    /// Network and store behave until there is nothing left to do.
    fn finish_all(&mut self) {
        for _ in 0..500 {
            if self.session.as_ref().is_none_or(Session::is_holed) {
                self.connect(false);
            }
            for _ in 0..50 {
                self.settle(0, true);
                self.serve(true);
                self.listen();
                self.acknowledge();
            }
            self.notice();
            let quiet = self.up.is_empty() && self.down.is_empty() && self.to_ack.is_empty();
            if quiet && self.outbox.is_empty() && self.offered.is_empty() && self.sent.is_empty() {
                return;
            }
        }
        panic!("it does not come to an end: {:?} {:?}", self.outbox, self.sent);
    }
}

fn payload(id: u32) -> Bytes {
    Bytes::copy_from_slice(&id.to_be_bytes())
}

fn id_of(payload: &Bytes) -> u32 {
    u32::from_be_bytes(payload[..].try_into().unwrap())
}

fn publish(id: u32, pkid: u16, qos: QoS) -> Packet {
    Packet::Publish(PublishPacket {
        qos,
        retain: false,
        topic: Bytes::from_static(TOPIC.as_bytes()),
        pkid,
        payload: payload(id),
        properties: None,
        alias: None,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]
    #[test]
    fn the_session_keeps_what_mqtt_promises(
        is_new in any::<bool>(), ops in prop::collection::vec(any_op(), 0..300),
    ) {
        let mut world = World::new(if is_new { Protocol::V5 } else { Protocol::V311 });
        for op in ops {
            world.run(op);
        }
        world.finish_all();
        for (id, (qos, _)) in &world.qos_of {
            let handed = world.handed.get(id).copied().unwrap_or(0);
            let excused = world.excused.get(id).copied().unwrap_or(0);
            match qos {
                QoS::AtMostOnce => prop_assert!(handed <= 1),
                _ if world.abandoned.contains(id) => {}
                QoS::AtLeastOnce => prop_assert!(handed >= 1, "{id} is lost"),
                QoS::ExactlyOnce => {
                    prop_assert!(handed >= 1, "{id} is lost");
                    let once = handed <= 1 + excused || world.has_restarted;
                    prop_assert!(once, "{id} was handed over {handed} times");
                }
            }
        }
        let mut first = Vec::new();
        for id in &world.received {
            if !first.contains(id) {
                first.push(*id);
            }
        }
        let offered: Vec<u32> = (1..=world.offer_last).collect();
        prop_assert_eq!(first, offered, "all of them, in order");
        for told in world.receipts.values_mut() {
            prop_assert_eq!(told.try_recv(), Ok(()));
        }
    }
}
