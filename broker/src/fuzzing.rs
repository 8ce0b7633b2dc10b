//! A door for the fuzzer, behind the feature `fuzzing` and no part of the API: bytes of a client through framing,
//! codec and session, without socket and clock.
//!
//! Each function panics when a promise of the modules it drives is broken. The hub, the store and the client's
//! slowness are played by decisions taken from the input, so that one input is one history.

mod drive;

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::auth::{PrincipalKind, Protocol};
use crate::codec;
use crate::config::WebSocketConfig;
use crate::packet::{ConnAck, ConnectCode};
use crate::topic::{self, TopicFilter};
use crate::websocket;

/// Bytes at the beginning of an input of [`packets`] that are decisions; the client's bytes follow.
pub const HEAD: usize = 16;

const CONNECT_BYTES_MAX: usize = 16 << 10;

/// The first byte picks version and kind of client, the rest of the head says when the client's bytes arrive,
/// when messages are committed, fail or find no room, when a subscriber gets something, and when the connection
/// breaks and the session goes on with the next one.
pub fn packets(input: &[u8]) {
    let Some((head, stream)) = input.split_at_checked(HEAD) else { return };
    let protocol = if head[0] & 1 == 0 { Protocol::V311 } else { Protocol::V5 };
    let kind = if head[0] & 2 == 0 { PrincipalKind::Terminal } else { PrincipalKind::Integration };
    drive::Drive::new(protocol, kind, &head[1..]).run(stream);
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
            session_present: !connect.clean && code == ConnectCode::Accepted,
            expiry_s: Some(connect.expiry_s),
            keep_alive_s: Some(connect.keep_alive_s),
            topic_alias_max: 16,
            wildcards: true,
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

/// What we write is whole frames.
fn assert_framed(out: &[u8]) {
    let (end, _) = codec::complete(out, usize::MAX).expect("what we write is well-formed");
    assert_eq!(end, out.len(), "what we write is whole frames");
}
