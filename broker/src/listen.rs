//! The gate's listeners, and the way of one socket from its accept to its MQTT stream.
//!
//! Owns the listening sockets and the order of what happens to an accepted one: socket options, TLS, WebSocket,
//! MQTT. Promises: one deadline over all of it, begun at the accept; the accept loop waits for no client; what
//! a handshake needed is given back when it is over.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::auth::{Origin, Transport};
use crate::config::GateConfig;
use crate::connection;
use crate::gate::Shared;
use crate::tls::{Accepted, HandshakeRefusal, Secured, TlsError};
use crate::websocket::{self, Packets, Socket};

/// Probes of a silent peer before it counts as gone.
const KEEPALIVE_PROBES: u32 = 4;

/// The gate cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address could not be bound.
    #[error("cannot listen for MQTT on {address}")]
    Address {
        /// Address that was asked for.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Certificate, key, device CA or revocation list cannot be used.
    #[error("the files for TLS cannot be used")]
    Tls(#[from] TlsError),
}

/// Where a gate listens, with the ports the system chose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BoundAddresses {
    /// Plain TCP.
    pub tcp: Option<SocketAddr>,
    /// TLS.
    pub tls: Option<SocketAddr>,
    /// WebSocket.
    pub websocket: Option<SocketAddr>,
}

#[derive(Debug)]
pub(crate) struct Listeners {
    tcp: Option<TcpListener>,
    tls: Option<TcpListener>,
    websocket: Option<TcpListener>,
}

impl Listeners {
    pub(crate) async fn bind(config: &GateConfig) -> Result<Self, BindError> {
        Ok(Self {
            tcp: bind(config.listen).await?,
            tls: bind(config.tls.as_ref().and_then(|tls| tls.listen)).await?,
            websocket: bind(config.websocket.as_ref().map(|websocket| websocket.listen)).await?,
        })
    }

    pub(crate) fn addresses(&self) -> BoundAddresses {
        let address = |listener: &Option<TcpListener>| listener.as_ref().and_then(|l| l.local_addr().ok());
        BoundAddresses {
            tcp: address(&self.tcp),
            tls: address(&self.tls),
            websocket: address(&self.websocket),
        }
    }

    /// The next socket of any listener. Cancel safe.
    pub(crate) async fn accept(&self) -> io::Result<(TcpStream, SocketAddr, Transport)> {
        let (accepted, transport) = tokio::select! {
            accepted = accept(self.tcp.as_ref()) => (accepted, Transport::Tcp),
            accepted = accept(self.tls.as_ref()) => (accepted, Transport::Tls),
            accepted = accept(self.websocket.as_ref()) => (accepted, Transport::WebSocket),
        };
        let (stream, peer) = accepted?;
        Ok((stream, peer, transport))
    }
}

async fn bind(address: Option<SocketAddr>) -> Result<Option<TcpListener>, BindError> {
    let Some(address) = address else { return Ok(None) };
    let listener = TcpListener::bind(address).await;
    listener.map(Some).map_err(|source| BindError::Address { address, source })
}

async fn accept(listener: Option<&TcpListener>) -> io::Result<(TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

/// Serves one accepted socket to its end.
pub(crate) async fn serve(stream: TcpStream, peer: SocketAddr, transport: Transport, gate: Arc<Shared>) {
    let now = Instant::now();
    let _seat = match gate.limits.arrive(peer.ip(), now) {
        Ok(seat) => seat,
        Err(reason) => return gate.refused(reason, peer, None),
    };
    let deadline = now + gate.config.connect_timeout;
    set_options(&stream, &gate.config);
    let origin = Origin { peer, transport, certificate: None };
    // Boxed, so that a connection holds only the state it is in.
    match transport {
        Transport::Tcp => Box::pin(connection::serve(stream, origin, deadline, &gate)).await,
        Transport::Tls => {
            let secured = async {
                let tls = gate.tls.as_deref()?;
                secured(tls.accept(stream), origin, &gate).await
            };
            if let Some(Some((stream, origin))) = Box::pin(in_time(secured, deadline, peer, &gate)).await {
                Box::pin(connection::serve(stream, origin, deadline, &gate)).await;
            }
        }
        Transport::WebSocket => {
            let upgraded = in_time(upgraded(stream, origin, &gate), deadline, peer, &gate);
            if let Some(Some((stream, origin))) = Box::pin(upgraded).await {
                Box::pin(connection::serve(stream, origin, deadline, &gate)).await;
            }
        }
    }
}

/// `None` if the deadline or the gate's end came first.
async fn in_time<F: Future>(
    handshake: F,
    deadline: Instant,
    peer: SocketAddr,
    gate: &Shared,
) -> Option<F::Output> {
    tokio::select! {
        result = tokio::time::timeout_at(deadline, handshake) => {
            result.inspect_err(|_| gate.refused("handshake_timeout", peer, None)).ok()
        }
        () = gate.stop.cancelled() => None,
    }
}

async fn secured(
    handshake: impl Future<Output = Result<Accepted, HandshakeRefusal>>,
    mut origin: Origin,
    gate: &Shared,
) -> Option<(Secured, Origin)> {
    match handshake.await {
        Ok(accepted) => {
            let kind = if accepted.resumed { &gate.metrics.tls_resumed } else { &gate.metrics.tls_full };
            kind.inc();
            origin.certificate = accepted.certificate;
            Some((accepted.stream, origin))
        }
        Err(refusal) => {
            tracing::debug!(peer = %origin.peer, error = %refusal.error, "TLS handshake failed");
            if let Some(reason) = refusal.reason {
                gate.refused(reason, origin.peer, refusal.common_name.as_deref());
            }
            None
        }
    }
}

async fn upgraded(stream: TcpStream, origin: Origin, gate: &Shared) -> Option<(Packets, Origin)> {
    let config = gate.config.websocket.as_ref()?;
    let (socket, origin): (Box<dyn Socket>, _) = match gate.tls.as_deref().filter(|_| config.tls) {
        Some(tls) => {
            let (stream, origin) = secured(tls.accept_web(stream), origin, gate).await?;
            (Box::new(stream), origin)
        }
        None => (Box::new(stream), origin),
    };
    match websocket::accept(socket, config).await? {
        Ok(packets) => Some((packets, origin)),
        Err(refusal) => {
            gate.refused(refusal.reason, origin.peer, None);
            None
        }
    }
}

/// Acks are small and waited for; peers that vanish without a word are noticed. A socket without either works too.
fn set_options(stream: &TcpStream, config: &GateConfig) {
    let keepalive = TcpKeepalive::new()
        .with_time(config.tcp_keepalive)
        .with_interval(config.tcp_keepalive / (2 * KEEPALIVE_PROBES))
        .with_retries(KEEPALIVE_PROBES);
    if let Err(error) = stream.set_nodelay(true).and(SockRef::from(stream).set_tcp_keepalive(&keepalive)) {
        tracing::debug!(%error, "cannot set the options of a socket");
    }
}
