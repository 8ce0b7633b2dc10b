//! One connection from its socket's first byte to its last: the async shell around the session.
//!
//! Owns the socket and the clock; decides nothing the session decides. Promises: presence and messages enter the
//! channel in order (online, messages, last will, offline), presence is never dropped, and a connection that took
//! over a client id begins only when the old one has handed over its last word (or the wait for it is over).

mod downlinks;
mod exchange;
mod fan_in;
mod input;
mod resume;
mod timers;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

use crate::ack::{Window, lock};
use crate::auth::{Origin, PrincipalKind};
use crate::gate::{Handle, Shared};
use crate::handshake::{self, Opened};
use crate::hub::now_us;
use crate::inbound::{Inbound, PresenceChange, QoS, Reason};
use crate::metrics::ReasonLabel;
use crate::packet::Will;
use crate::sessions::{DueWill, Stored};

use exchange::Exchange;
pub(crate) use fan_in::Replaying;
use resume::Suspended;
pub(crate) use resume::publish_will;

/// How long a newcomer waits for the connection it pushes out.
const TAKE_OVER_WAIT: Duration = Duration::from_secs(5);
/// For the last bytes to a client.
const FAREWELL: Duration = Duration::from_secs(2);

/// Serves one socket until it is closed. Its CONNECT must be decided by `deadline`.
pub(crate) async fn serve<S>(mut stream: S, origin: Origin, deadline: Instant, gate: &Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let peer = origin.peer;
    let opening = handshake::open(&mut stream, &origin, gate);
    let opening = tokio::time::timeout_at(deadline, opening);
    let opened = tokio::select! {
        opened = opening => opened,
        () = gate.stop.cancelled() => return,
    };
    let opened = match opened {
        Ok(Some(opened)) => opened,
        Ok(None) => return,
        Err(_) => return gate.refused("timeout", peer, None),
    };
    let mut opened = opened;
    let will = opened.connect.will.take();
    let (client, resumed) = Client::enter(&opened, peer, gate).await;
    tracing::debug!(client_id = %client.client_id, %peer, epoch = client.handle.epoch, "client connected");
    let (reason, suspended) = talk(&mut stream, opened, resumed, &client, gate).await;
    tracing::debug!(client_id = %client.client_id, %peer, reason = reason.as_str(), "client gone");
    if let Some(refusal) = refusal(reason) {
        gate.refused(refusal, peer, Some(&client.client_id));
    }
    client.handle.mailbox.close();
    // The socket first: nobody should wait for the store to learn that a connection is closed.
    drop(stream);
    let will = will.filter(|_| reason.publishes_will()).map(|will| client.due(will));
    let will = resume::store(&client, suspended, will, gate).await;
    client.leave(reason, will, gate).await;
}

/// CONNACK, everything after it, and the last bytes.
async fn talk<S>(
    stream: &mut S,
    opened: Opened,
    resumed: Option<Box<Stored>>,
    client: &Client,
    gate: &Arc<Shared>,
) -> (Reason, Option<Box<Suspended>>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let mut out = BytesMut::new();
    if let Err(error) = handshake::accepted(&opened, resumed.is_some(), gate, &mut out) {
        tracing::warn!(%error, "cannot write a CONNACK");
        return (Reason::Gone, None);
    }
    let inbound = gate.inbound.clone();
    let mut exchange = Exchange::new(opened, resumed, out, client, &inbound, gate);
    let (reader, writer) = tokio::io::split(&mut *stream);
    let reason = exchange.run(reader, writer).await;
    let silence_us = i64::try_from(exchange.silence().as_micros()).unwrap_or(i64::MAX);
    client.handle.heard_us.store(now_us().saturating_sub(silence_us), Ordering::Relaxed);
    let mut last = exchange.farewell(reason);
    let suspended = exchange.suspend(reason);
    drop(exchange);
    if reason != Reason::Gone {
        let farewell = async {
            stream.write_all_buf(&mut last).await?;
            stream.shutdown().await
        };
        // A client that does not listen to the end misses it.
        let _ = tokio::time::timeout(FAREWELL, farewell).await;
    }
    (reason, suspended)
}

/// An accepted client as the rest of the gate sees it.
#[derive(Debug)]
struct Client {
    client_id: Arc<str>,
    peer: SocketAddr,
    handle: Arc<Handle>,
    has_presence: bool,
}

impl Client {
    /// Takes the place of the client id, pushing out whoever has it, and goes on with the session it left.
    async fn enter(opened: &Opened, peer: SocketAddr, gate: &Arc<Shared>) -> (Self, Option<Box<Stored>>) {
        let window = Window::new(Arc::clone(&gate.budget), gate.hub.clone());
        let handle = Handle::new(opened.epoch, window, opened.certificate.clone());
        let client_id = Arc::clone(&opened.client_id);
        let replaced = gate.enter(&client_id, &handle);
        let has_presence = opened.principal.kind == PrincipalKind::Terminal;
        let client = Self { client_id, peer, handle, has_presence };
        if let Some(old) = replaced {
            old.end(Reason::TakenOver);
            if tokio::time::timeout(TAKE_OVER_WAIT, old.ended.cancelled()).await.is_err() {
                tracing::warn!(client_id = %client.client_id, "the connection that was taken over does not end");
                let sessions = lock(&gate.sessions);
                old.supersede();
                drop(sessions);
            }
        }
        let stored = resume::resumable(&client, opened.connect.clean, &opened.principal, gate).await;
        gate.metrics.connected.inc();
        client.presence(true, Reason::Connected, gate).await;
        (client, stored)
    }

    /// Its will, as of now.
    fn due(&self, will: Box<Will>) -> DueWill {
        let (client_id, window) = (Arc::clone(&self.client_id), Arc::clone(&self.handle.window));
        DueWill { client_id, epoch: self.handle.epoch, window, will }
    }

    /// Publishes the last will if it is due, tells that the client is gone, frees its place.
    async fn leave(self, reason: Reason, will: Option<DueWill>, gate: &Arc<Shared>) {
        gate.metrics.connected.dec();
        gate.metrics.ended.get_or_create(&ReasonLabel { reason: reason.as_str() }).inc();
        if let Some(will) = will {
            publish_will(will, gate).await;
        }
        self.presence(false, reason, gate).await;
        gate.directory.leave(&self.client_id, self.handle.epoch);
        self.handle.ended.cancel();
    }

    /// Waits for as long as it takes: presence is never dropped.
    async fn presence(&self, online: bool, reason: Reason, gate: &Shared) {
        if !self.has_presence {
            return;
        }
        let (client_id, at_us) = (Arc::clone(&self.client_id), now_us());
        let heard_us = if online { at_us } else { self.handle.heard_us.load(Ordering::Relaxed).min(at_us) };
        let change = PresenceChange { client_id, online, reason, at_us, heard_us, epoch: self.handle.epoch };
        // Fails only when the consumer is gone; then the process is ending.
        let _ = gate.inbound.send(Inbound::Presence(change)).await;
    }
}

/// The word for an end that refuses what the client did.
fn refusal(reason: Reason) -> Option<&'static str> {
    match reason {
        Reason::NotAuthorized => Some("publish"),
        Reason::Protocol | Reason::TopicAlias => Some("protocol"),
        Reason::TooLarge => Some("too_large"),
        Reason::ReceiveMaximum => Some("receive_maximum"),
        Reason::Revoked => Some("revoked"),
        Reason::RateLimit => Some("rate_limit"),
        _ => None,
    }
}

fn count_publish(qos: QoS, gate: &Shared) {
    match qos {
        QoS::AtMostOnce => gate.metrics.publish_qos0.inc(),
        QoS::AtLeastOnce => gate.metrics.publish_qos1.inc(),
        QoS::ExactlyOnce => gate.metrics.publish_qos2.inc(),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpStream;

    fn bytes_of<'a, F>(_: impl FnOnce(TcpStream, Origin, Instant, &'a Arc<Shared>) -> F) -> usize {
        size_of::<F>()
    }

    /// What every connection costs beside its buffers and its socket; what is rare is boxed.
    #[test]
    fn a_connection_stays_small() {
        let bytes = bytes_of(serve::<TcpStream>);
        assert!(bytes <= 3_600, "{bytes}");
    }
}
