//! A door for the fuzzer, behind the feature `fuzzing` and no part of the API: bytes of a client through framing,
//! codec and session, without socket and clock.
//!
//! Each function panics when a promise of the modules it drives is broken. The hub, the store and the client's
//! slowness are played by decisions taken from the input, so that one input is one history.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::ack::Settled;
use crate::auth::{Principal, PrincipalKind, Protocol};
use crate::codec;
use crate::config::WebSocketConfig;
use crate::inbound::{QoS, Reason};
use crate::packet::{ConnAck, ConnectCode, Message, Outgoing, Packet, Reply};
use crate::session::{Action, Limits, Session};
use crate::topic::{self, TopicFilter};
use crate::websocket;

/// Bytes at the beginning of an input of [`packets`] that are decisions; the client's bytes follow.
pub const HEAD: usize = 16;

// Small, so that an input of a few packets meets them.
const UNACKED_MAX: usize = 4;
const PAYLOAD_BYTES_MAX: usize = 512;
const SUBSCRIPTIONS_MAX: usize = 3;
const INFLIGHT_MAX: usize = 3;
const FRAME_BYTES_MAX: usize = 64 << 10;
const CONNECT_BYTES_MAX: usize = 16 << 10;

/// The first byte picks version and kind of client, the rest of the head says when the client's bytes arrive,
/// when messages are committed, fail or find no room, and when a subscriber gets something.
pub fn packets(input: &[u8]) {
    let Some((head, stream)) = input.split_at_checked(HEAD) else { return };
    let protocol = if head[0] & 1 == 0 { Protocol::V311 } else { Protocol::V5 };
    let kind = if head[0] & 2 == 0 { PrincipalKind::Terminal } else { PrincipalKind::Integration };
    Drive::new(protocol, kind, &head[1..]).run(stream);
}

/// Bytes before CONNECT was accepted, and every answer to it.
pub fn connect(input: &[u8]) {
    let Ok(Some(len)) = codec::frame_len(input, CONNECT_BYTES_MAX) else { return };
    assert!((2..=CONNECT_BYTES_MAX).contains(&len), "a frame has a header and respects its bound");
    if len > input.len() {
        return;
    }
    let Ok(connect) = codec::read_connect(Bytes::copy_from_slice(&input[..len])) else { return };
    assert_ne!(connect.receive_max, 0, "a client takes at least one message");
    if let Some(will) = &connect.will {
        assert!(will.topic.len() + will.payload.len() <= len, "a will is no larger than its packet");
    }
    for code in [ConnectCode::Accepted, ConnectCode::BadClientId, ConnectCode::NotAuthorized] {
        let ack = ConnAck {
            code,
            receive_max: 1,
            packet_bytes_max: 1 << 20,
            assigned_id: Some(connect.client_id.clone()),
            session_refused: !connect.clean,
        };
        let mut out = BytesMut::new();
        // An id of nearly 64 KiB is refused before it would be sent back.
        if codec::write_connack(connect.protocol, ack, &mut out).is_ok() {
            assert_framed(&out);
        }
    }
}

/// What the gate asks of a filter and a topic before either reaches the hub.
pub fn filter(filter: &TopicFilter, topic: &str) {
    if !topic::is_topic_name(topic) {
        assert!(!topic::is_topic_for_hub(topic), "the hub sees topics only");
        return;
    }
    if filter.matches(topic) {
        assert!(topic.starts_with(filter.literal_prefix()), "{filter} {topic:?}");
        assert!(!filter.is_for_hub() || topic.is_ascii() || filter.has_wildcard(), "{filter} {topic:?}");
    }
}

/// MQTT over WebSocket. The first byte says whether a proper request goes before the rest of the input or the input
/// is the request too, the second in what pieces the bytes arrive.
pub fn websocket(input: &[u8]) {
    let Some(([kind, piece], rest)) = input.split_first_chunk() else { return };
    let before: &[u8] = if kind & 1 == 0 { UPGRADE } else { b"" };
    let bytes = Bytes::from([before, rest].concat());
    let answer = Arc::new(Mutex::new(Vec::new()));
    let piece = if *piece == 0 { usize::MAX } else { (*piece).into() };
    let socket = Memory { bytes, piece, written: Arc::clone(&answer) };
    let config = WebSocketConfig::new(([127, 0, 0, 1], 0).into());
    let served = async {
        let Some(Ok(mut packets)) = websocket::accept(Box::new(socket), &config).await else { return None };
        let (mut buffer, mut total) = ([0; 512], 0);
        loop {
            match packets.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(read) => total += read,
            }
            // What we say travels between, and must not disturb what comes.
            if packets.write_all(b"\xd0\0").await.is_err() {
                break;
            }
        }
        Some(total)
    };
    // The socket is always ready, so nothing waits.
    let total = served.now_or_never().expect("a connection without waiting ends");
    let answer = crate::ack::lock(&answer);
    if let Some(total) = total {
        assert!(total <= rest.len(), "what is read has been sent");
        assert!(answer.starts_with(b"HTTP/1.1 101 "), "an upgrade is granted before it is used");
    } else if kind & 1 == 0 {
        panic!("a proper upgrade is refused");
    }
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 "), "HTTP is answered by HTTP");
}

const UPGRADE: &[u8] = b"GET /mqtt HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Protocol: mqtt\r\n\r\n";

/// A socket whose peer has sent `bytes` and gone.
struct Memory {
    bytes: Bytes,
    piece: usize,
    written: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for Memory {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let len = self.bytes.len().min(self.piece).min(buf.remaining());
        buf.put_slice(&self.bytes.split_to(len));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Memory {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        crate::ack::lock(&self.written).extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A message handed over and not yet settled, as the model remembers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Promise {
    Nothing,
    PubAck(u16),
    PubRec(u16),
}

struct Drive<'a> {
    protocol: Protocol,
    rights: Principal,
    session: Session,
    decisions: std::iter::Cycle<std::iter::Copied<std::slice::Iter<'a, u8>>>,
    actions: Vec<Action>,
    out: BytesMut,
    closed: bool,
    // What must be true, kept separately.
    promised: VecDeque<Promise>,
    recorded: HashSet<u16>,
    subscriptions: Vec<(TopicFilter, usize)>,
    inflight: usize,
}

impl<'a> Drive<'a> {
    fn new(protocol: Protocol, kind: PrincipalKind, decisions: &'a [u8]) -> Self {
        // Parsed once a thread: an input costs about as much.
        thread_local! {
            static OWN: TopicFilter = TopicFilter::new("lift/v1/+/T1/#").expect("a filter");
        }
        let own = OWN.with(Clone::clone);
        let rights = Principal { kind, publish: vec![own.clone()], subscribe: vec![own] };
        let limits = Limits {
            unacked_max: UNACKED_MAX,
            payload_bytes_max: PAYLOAD_BYTES_MAX,
            subscriptions_max: SUBSCRIPTIONS_MAX,
            inflight_max: INFLIGHT_MAX,
        };
        Self {
            protocol,
            session: Session::new(protocol, rights.clone(), limits),
            rights,
            decisions: decisions.iter().copied().cycle(),
            actions: Vec::new(),
            out: BytesMut::new(),
            closed: false,
            promised: VecDeque::new(),
            recorded: HashSet::new(),
            subscriptions: Vec::new(),
            inflight: 0,
        }
    }

    fn decide(&mut self) -> u8 {
        self.decisions.next().unwrap_or(0)
    }

    /// As the connection does: what has arrived is cut into frames, which are read one by one.
    fn run(&mut self, stream: &[u8]) {
        let (mut start, mut arrived) = (0, 0);
        while !self.closed && arrived < stream.len() {
            let chunk = match self.decide() {
                byte @ 0..32 => 1 + usize::from(byte),
                32.. => stream.len(),
            };
            arrived = (arrived + chunk).min(stream.len());
            let Ok((end, _)) = codec::complete(&stream[start..arrived], FRAME_BYTES_MAX) else { return };
            assert!(end <= arrived - start, "frames lie within what has arrived");
            let mut frames = Bytes::copy_from_slice(&stream[start..start + end]);
            start += end;
            while !self.closed && !frames.is_empty() {
                let Ok(Some(len)) = codec::frame_len(&frames, FRAME_BYTES_MAX) else {
                    panic!("a frame that was complete is not");
                };
                self.frame(frames.split_to(len));
                self.elsewhere();
            }
        }
        while !self.closed && !self.promised.is_empty() {
            self.settle(1, false);
        }
    }

    fn frame(&mut self, frame: Bytes) {
        let is_publish = codec::is_publish(&frame);
        let Ok(packet) = codec::read(self.protocol, frame) else {
            self.closed = true;
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
        let seen = Seen::of(&packet);
        let was_holed = self.session.is_holed();
        self.session.packet(packet, admitted, &mut self.actions);
        self.check_answers(&seen, admitted, was_holed);
    }

    /// Commits, failures, and messages for a subscriber.
    fn elsewhere(&mut self) {
        let byte = self.decide();
        if !self.closed && byte & 3 != 0 {
            let count = usize::from(byte & 3).min(self.promised.len());
            self.settle(count, byte > 250);
        }
        if !self.closed && byte & 4 != 0 && self.session.can_send() {
            self.send(byte);
        }
    }

    fn settle(&mut self, committed: usize, failed: bool) {
        let failed = failed && committed < self.promised.len();
        let expected: Vec<Promise> =
            self.promised.drain(..committed).filter(|promise| *promise != Promise::Nothing).collect();
        self.session.settled(Settled { committed, failed }, &mut self.actions);
        let mut acked = Vec::new();
        for action in std::mem::take(&mut self.actions) {
            assert!(!self.closed, "nothing follows the end");
            match action {
                Action::Reply(Reply::PubAck(pkid)) => acked.push(Promise::PubAck(pkid)),
                Action::Reply(Reply::PubRec(pkid)) => {
                    self.recorded.insert(pkid);
                    acked.push(Promise::PubRec(pkid));
                }
                Action::Close(Reason::AckFailed) if failed => self.closed = true,
                other => panic!("a commit answered by {other:?}"),
            }
        }
        assert_eq!(acked, expected, "acknowledged is what was committed, in order, once");
        assert_eq!(failed, self.closed, "a failure ends the connection");
        for ack in acked {
            match ack {
                Promise::PubAck(pkid) => self.write(Reply::PubAck(pkid)),
                Promise::PubRec(pkid) => self.write(Reply::PubRec(pkid)),
                Promise::Nothing => {}
            }
        }
    }

    fn check_answers(&mut self, seen: &Seen, admitted: bool, was_holed: bool) {
        let mut delivered = false;
        for action in std::mem::take(&mut self.actions) {
            assert!(!self.closed, "nothing follows the end");
            match action {
                Action::Deliver(accepted) => {
                    assert!(admitted && !delivered, "handed over once, with room");
                    delivered = true;
                    let Seen::Publish { qos, pkid } = *seen else { panic!("no publish: {seen:?}") };
                    assert_eq!(accepted.qos, qos);
                    assert!(accepted.payload.len() <= PAYLOAD_BYTES_MAX);
                    assert!(
                        topic::is_topic_name(&accepted.topic) && self.rights.may_publish(&accepted.topic)
                    );
                    assert_eq!(accepted.for_hub, topic::is_topic_for_hub(&accepted.topic));
                    self.promise(qos, pkid, was_holed);
                }
                Action::Reply(Reply::PubRec(pkid)) => {
                    assert!(self.recorded.contains(&pkid), "PUBREC only for what is committed");
                    self.write(Reply::PubRec(pkid));
                }
                Action::Reply(Reply::PubComp { pkid, known }) => {
                    assert_eq!(known, self.recorded.remove(&pkid), "released once");
                    self.write(Reply::PubComp { pkid, known });
                }
                Action::Reply(Reply::PubAck(pkid)) => panic!("{pkid} acknowledged before it is committed"),
                Action::Reply(reply) => self.write(reply),
                Action::Subscribe { joins, reply, .. } => {
                    for (filter, id) in joins {
                        assert!(self.rights.may_subscribe(&filter) && filter.is_for_hub());
                        self.subscriptions.push((filter, id));
                    }
                    assert!(self.subscriptions.len() <= SUBSCRIPTIONS_MAX);
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
                    self.closed = true;
                    self.write(Reply::Disconnect(reason));
                }
            }
        }
        if let (Seen::PubAck, false) = (seen, self.closed) {
            self.inflight -= 1;
        }
        assert_eq!(self.session.unsettled(), self.promised.len());
        assert!(self.promised.len() <= UNACKED_MAX, "the window is kept");
        assert!(self.recorded.len() <= 2 * UNACKED_MAX, "so is what QoS 2 remembers");
    }

    fn promise(&mut self, qos: QoS, pkid: u16, was_holed: bool) {
        let promise = match qos {
            QoS::AtMostOnce => Promise::Nothing,
            QoS::AtLeastOnce => Promise::PubAck(pkid),
            QoS::ExactlyOnce => {
                let again = self.recorded.contains(&pkid) || self.promised.contains(&Promise::PubRec(pkid));
                assert!(!again, "QoS 2 is handed over once");
                Promise::PubRec(pkid)
            }
        };
        self.promised.push_back(if was_holed { Promise::Nothing } else { promise });
    }

    fn send(&mut self, byte: u8) {
        let id = usize::from(byte >> 3 & 3);
        let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(byte >> 5) % 3];
        let sending = self.session.send(id, qos, byte & 8 != 0, byte & 16 != 0);
        let Some(sending) = sending else { return };
        assert!(self.subscriptions.iter().any(|(_, known)| *known == id), "sent to a subscriber only");
        self.inflight += usize::from(sending.pkid != 0);
        assert!(self.inflight <= INFLIGHT_MAX, "what a subscriber has not acknowledged is bounded");
        let message = Message {
            topic: Bytes::from_static(b"lift/v1/310115/T1/telemetry"),
            payload: Bytes::from_static(b"x"),
            retain: sending.retain,
            identifier: sending.identifier,
            properties: None,
            arrived_us: Some(1),
            expires_us: None,
        };
        let outgoing = Outgoing { message: &message, pkid: sending.pkid, dup: false, expiry_s: Some(1) };
        self.out.clear();
        codec::write_publish(self.protocol, &outgoing, &mut self.out).expect("a publish can be written");
        assert_framed(&self.out);
    }

    fn write(&mut self, reply: Reply) {
        self.out.clear();
        let is_last = matches!(reply, Reply::Disconnect(_));
        codec::write(self.protocol, reply, &mut self.out).expect("a reply can be written");
        // rumqttc ends a DISCONNECT without properties with a byte too many; nothing follows it.
        if is_last && self.out.len() == 4 {
            self.out.truncate(3);
        }
        assert_framed(&self.out);
    }
}

/// What the model needs to know of a packet.
#[derive(Debug)]
enum Seen {
    Publish { qos: QoS, pkid: u16 },
    PubAck,
    Lines(usize),
    Other,
}

impl Seen {
    fn of(packet: &Packet) -> Self {
        match packet {
            Packet::Publish(publish) => Self::Publish { qos: publish.qos, pkid: publish.pkid },
            Packet::PubAck(_) => Self::PubAck,
            Packet::Subscribe { filters, .. } => Self::Lines(filters.len()),
            Packet::Unsubscribe { filters, .. } => Self::Lines(filters.len()),
            _ => Self::Other,
        }
    }
}

/// What we write is whole frames.
fn assert_framed(out: &[u8]) {
    let (end, _) = codec::complete(out, usize::MAX).expect("what we write is well-formed");
    assert_eq!(end, out.len(), "what we write is whole frames");
}
