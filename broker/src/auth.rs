//! Who connects and what it may do: the seam between the gate and whoever knows the accounts.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use crate::topic::TopicFilter;

/// Version of MQTT a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// MQTT 3.1.1.
    V311,
    /// MQTT 5.
    V5,
}

/// How a client is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// MQTT over plain TCP.
    Tcp,
    /// MQTT over TLS.
    Tls,
    /// MQTT over WebSocket.
    WebSocket,
}

/// A client certificate that the gate has verified against its device CA.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClientCertificate {
    /// Common name of the subject: whose certificate it is.
    pub common_name: String,
    /// Serial number, lower-case hexadecimal without leading zeros.
    pub serial: String,
}

/// Where a connection comes from, known before its first MQTT packet.
#[derive(Debug, Clone)]
pub struct Origin {
    /// Address of the peer.
    pub peer: SocketAddr,
    /// How it is connected.
    pub transport: Transport,
    /// The certificate it has proven to hold, if it showed one.
    pub certificate: Option<Arc<ClientCertificate>>,
}

/// What a client says of itself in CONNECT.
#[derive(Debug, Clone)]
pub struct ConnectInfo {
    /// Never empty: a client without one got a generated id (`generated_id`).
    pub client_id: String,
    /// Whether the gate made up the id. No terminal has such an id.
    pub generated_id: bool,
    /// User name, if one was sent.
    pub username: Option<String>,
    /// Password, if one was sent.
    pub password: Option<Bytes>,
    /// Where it connects from.
    pub origin: Origin,
    /// Version it speaks.
    pub protocol: Protocol,
}

/// What kind of client an account belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PrincipalKind {
    /// A terminal on an elevator: has presence, subscribes to plain topics only.
    Terminal,
    /// A dashboard, a recorder, another system: no presence, wildcards allowed.
    Integration,
}

/// An authenticated client and its rights.
#[derive(Debug, Clone)]
pub struct Principal {
    /// What it is.
    pub kind: PrincipalKind,
    /// Topics it may publish to, its last will included.
    pub publish: Vec<TopicFilter>,
    /// Filters within which it may subscribe.
    pub subscribe: Vec<TopicFilter>,
}

impl Principal {
    pub(crate) fn may_publish(&self, topic: &str) -> bool {
        self.publish.iter().any(|filter| filter.matches(topic))
    }

    pub(crate) fn may_subscribe(&self, wanted: &TopicFilter) -> bool {
        if self.kind == PrincipalKind::Terminal && wanted.has_wildcard() {
            return false;
        }
        self.subscribe.iter().any(|filter| filter.covers(wanted))
    }
}

/// Why a CONNECT is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// User name or password are wrong.
    #[error("bad user name or password")]
    BadCredentials,
    /// Known, but may not connect (here, now, under this id).
    #[error("not authorized")]
    NotAuthorized,
    /// The client id is not one that can exist.
    #[error("client id not valid")]
    BadClientId,
    /// Cannot be decided now: try again.
    #[error("authentication unavailable")]
    Unavailable,
}

/// What [`Authenticate::authenticate`] returns.
pub type AuthFuture<'a> = Pin<Box<dyn Future<Output = Result<Principal, Refusal>> + Send + 'a>>;

/// Decides who may connect.
///
/// The gate keeps one connection per client id and the newer one wins, so an implementation must make sure
/// that the credentials belong to the client id; otherwise one account could push out another's connection.
/// The deadline for CONNECT covers the decision.
pub trait Authenticate: Send + Sync + 'static {
    /// Decides on one CONNECT.
    fn authenticate<'a>(&'a self, info: &'a ConnectInfo) -> AuthFuture<'a>;
}
