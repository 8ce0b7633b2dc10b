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
use crate::tls::{Tls, TlsError};

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
    let deadline = Instant::now() + gate.config.connect_timeout;
    set_options(&stream, &gate.config);
    let origin = Origin { peer, transport, certificate: None };
    // Boxed, so that a connection holds only the state it is in.
    match (transport, &gate.tls) {
        (Transport::Tls, Some(tls)) => {
            if let Some((stream, origin)) = Box::pin(secure(tls, stream, origin, deadline, &gate)).await {
                Box::pin(connection::serve(stream, origin, deadline, &gate)).await;
            }
        }
        _ => Box::pin(connection::serve(stream, origin, deadline, &gate)).await,
    }
}

async fn secure(
    tls: &Tls,
    stream: TcpStream,
    mut origin: Origin,
    deadline: Instant,
    gate: &Shared,
) -> Option<(crate::tls::Secured, Origin)> {
    let handshake = tokio::time::timeout_at(deadline, tls.accept(stream));
    let result = tokio::select! {
        result = handshake => result,
        () = gate.stop.cancelled() => return None,
    };
    let Ok(result) = result else {
        gate.refused("tls_timeout", origin.peer, None);
        return None;
    };
    match result {
        Ok(accepted) => {
            let kind = if accepted.resumed { &gate.metrics.tls_resumed } else { &gate.metrics.tls_full };
            kind.inc();
            origin.certificate = accepted.certificate;
            Some((accepted.stream, origin))
        }
        Err(refusal) => {
            tracing::debug!(peer = %origin.peer, error = %refusal.error, "TLS handshake failed");
            gate.refused(refusal.reason, origin.peer, refusal.common_name.as_deref());
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
