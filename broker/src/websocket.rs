//! MQTT over WebSocket: the upgrade, and binary messages as a stream of bytes.
//!
//! Owns the HTTP side of a WebSocket connection. Promises: an HTTP request that is no proper upgrade gets a plain
//! answer; a packet may span messages and a message may hold many packets (6 of MQTT 5); what one
//! connection buffers is bounded. Does not look at what the bytes mean.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::machine::TryParse;
use tokio_tungstenite::tungstenite::handshake::server::{Request, create_response, write_response};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig as FrameConfig};
use tokio_tungstenite::tungstenite::{Error, error::ProtocolError};

use crate::config::WebSocketConfig;

/// Longest request.
const REQUEST_BYTES_MAX: usize = 8 << 10;
/// Longest message, in one frame or many; larger MQTT packets span several.
const MESSAGE_BYTES_MAX: usize = 256 << 10;
/// Longest message that is sent.
const WRITE_BYTES: usize = 16 << 10;
/// Of an idle connection.
const READ_BYTES: usize = 2 << 10;
const PROTOCOL: &str = "mqtt";

/// What is below: TCP or TLS.
pub(crate) trait Socket: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Socket for S {}

/// Why an upgrade was refused: the word for the log, the status for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UpgradeRefusal {
    pub(crate) reason: &'static str,
    status: &'static str,
    words: &'static str,
}

const NOT_HTTP: UpgradeRefusal =
    UpgradeRefusal { reason: "websocket_malformed", status: "400 Bad Request", words: "not understood" };
const METHOD: UpgradeRefusal = UpgradeRefusal {
    reason: "websocket_method",
    status: "405 Method Not Allowed",
    words: "only GET is served here",
};
const PATH: UpgradeRefusal =
    UpgradeRefusal { reason: "websocket_path", status: "404 Not Found", words: "nothing is served here" };
const ORIGIN: UpgradeRefusal = UpgradeRefusal {
    reason: "websocket_origin",
    status: "403 Forbidden",
    words: "pages of this origin may not connect",
};
const NO_UPGRADE: UpgradeRefusal = UpgradeRefusal {
    reason: "websocket_upgrade",
    status: "426 Upgrade Required",
    words: "MQTT over WebSocket: connect with subprotocol mqtt",
};

/// Reads the request and answers it. `None`: the client went before it had said anything.
pub(crate) async fn accept(
    mut socket: Box<dyn Socket>,
    config: &WebSocketConfig,
) -> Option<Result<Packets, UpgradeRefusal>> {
    let mut head = BytesMut::with_capacity(1 << 10);
    let decided = loop {
        match Request::try_parse(&head) {
            Ok(Some((len, request))) => {
                head.advance(len);
                break decide(&request, config);
            }
            Ok(None) if head.len() < REQUEST_BYTES_MAX => {}
            Err(Error::Protocol(ProtocolError::WrongHttpMethod)) => break Err(METHOD),
            _ => break Err(NOT_HTTP),
        }
        if !matches!(socket.read_buf(&mut head).await, Ok(n) if n > 0) {
            return head.is_empty().then_some(()).map_or(Some(Err(NOT_HTTP)), |()| None);
        }
    };
    let (answer, refusal) = match decided {
        Ok(answer) => (answer, None),
        Err(refusal) => (refusal.answer().into_bytes(), Some(refusal)),
    };
    // A client that does not take the answer is noticed by whoever reads next.
    let sent = socket.write_all(&answer).await.and(socket.flush().await);
    if let Some(refusal) = refusal {
        let _ = socket.shutdown().await;
        return Some(Err(refusal));
    }
    sent.ok()?;
    let frames = FrameConfig::default()
        .read_buffer_size(READ_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(4 * WRITE_BYTES)
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    let stream =
        WebSocketStream::from_partially_read(socket, head.to_vec(), Role::Server, Some(frames)).await;
    Some(Ok(Packets { stream, rest: Bytes::new(), unflushed: false }))
}

/// The answer to an upgrade that is granted.
fn decide(request: &Request, config: &WebSocketConfig) -> Result<Vec<u8>, UpgradeRefusal> {
    if request.uri().path() != config.path {
        return Err(PATH);
    }
    let headers = request.headers();
    if let Some(origin) = headers.get("origin")
        && !config.origins.iter().any(|allowed| allowed == "*" || origin == allowed.as_str())
    {
        return Err(ORIGIN);
    }
    let offered = headers.get_all("sec-websocket-protocol").iter().filter_map(|value| value.to_str().ok());
    let mut offered = offered.flat_map(|value| value.split(',')).map(str::trim);
    if !offered.any(|protocol| protocol == PROTOCOL) {
        return Err(NO_UPGRADE);
    }
    let mut response = create_response(request).map_err(|_| NO_UPGRADE)?;
    response.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(PROTOCOL));
    let mut answer = Vec::new();
    write_response(&mut answer, &response).map_err(|_| NOT_HTTP)?;
    Ok(answer)
}

impl UpgradeRefusal {
    fn answer(self) -> String {
        let Self { status, words, .. } = self;
        let upgrade = if self == NO_UPGRADE { "upgrade: websocket\r\n" } else { "" };
        format!(
            "HTTP/1.1 {status}\r\n{upgrade}connection: close\r\ncontent-type: text/plain\r\n\
             content-length: {}\r\n\r\n{words}\n",
            words.len() + 1
        )
    }
}

/// The bytes in the binary messages of a WebSocket. Needs no flush: what the socket did not take goes out as long as
/// somebody reads or writes.
pub(crate) struct Packets {
    stream: WebSocketStream<Box<dyn Socket>>,
    /// Of a message that was not read to its end.
    rest: Bytes,
    unflushed: bool,
}

impl Packets {
    fn drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(Pin::new(&mut self.stream).poll_flush(cx)).map_err(other);
        self.unflushed = false;
        Poll::Ready(flushed)
    }
}

fn other(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        error => io::Error::other(error),
    }
}

impl AsyncRead for Packets {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.unflushed
            && let Poll::Ready(Err(error)) = self.drain(cx)
        {
            return Poll::Ready(Err(error));
        }
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) => self.rest = bytes,
                Some(Ok(Message::Close(_))) | None => return Poll::Ready(Ok(())),
                Some(Ok(Message::Text(_))) => {
                    let error = io::Error::new(io::ErrorKind::InvalidData, "MQTT travels in binary messages");
                    return Poll::Ready(Err(error));
                }
                // Answered below us, with the next read.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(other(error))),
            }
        }
        let len = self.rest.len().min(buf.remaining());
        buf.put_slice(&self.rest.split_to(len));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Packets {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.unflushed {
            ready!(self.drain(cx))?;
        }
        ready!(Pin::new(&mut self.stream).poll_ready(cx)).map_err(other)?;
        let len = buf.len().min(WRITE_BYTES);
        let message = Message::Binary(Bytes::copy_from_slice(&buf[..len]));
        Pin::new(&mut self.stream).start_send(message).map_err(other)?;
        self.unflushed = true;
        if let Poll::Ready(Err(error)) = self.drain(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(len))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.drain(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.stream).poll_close(cx)) {
            Ok(()) | Err(Error::ConnectionClosed | Error::AlreadyClosed) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(other(error))),
        }
    }
}
