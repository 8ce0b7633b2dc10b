//! `[broker]`: the gate's listeners, its TLS, and what it allows one address and one client.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ::broker::{ClientCertificates, GateConfig, RateLimits, TlsConfig, WebSocketConfig};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{ByteSize, loopback, source};

/// `[broker]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Broker {
    /// MQTT over plain TCP; `off` for none.
    #[serde(with = "source::listen_or_off")]
    pub(crate) listen: Option<SocketAddr>,
    /// MQTT over TLS.
    #[serde(with = "source::listen_option")]
    pub(crate) tls_listen: Option<SocketAddr>,
    /// Connections at once.
    pub(crate) connections_max: usize,
    /// Unacknowledged messages per connection.
    pub(crate) unacked_max: usize,
    /// Payload bytes of all unacknowledged messages together.
    pub(crate) budget_bytes: ByteSize,
    /// Certificates.
    pub(crate) tls: Tls,
    /// MQTT over WebSocket.
    pub(crate) websocket: WebSocket,
    /// What a session may hold, and for how long.
    pub(crate) sessions: Sessions,
    /// What one address and one client may take.
    pub(crate) limits: Limits,
}

/// `[broker.sessions]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Sessions {
    /// Sessions kept without a connection.
    pub(crate) kept_max: usize,
    /// The longest life of one.
    pub(crate) expiry_max_s: u64,
    /// The longest keep-alive of a terminal.
    pub(crate) keep_alive_max_s: u64,
    /// Subscriptions of one connection.
    pub(crate) subscriptions_max: usize,
    /// Connections closed per second, so that they send again, once the store is back.
    pub(crate) resend_per_s: u32,
}

/// `[broker.tls]`
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Tls {
    /// Certificate of the server, followed by its intermediates.
    pub(crate) certificate: Option<PathBuf>,
    /// Its key.
    pub(crate) key: Option<PathBuf>,
    /// The authority whose client certificates are believed.
    pub(crate) client_ca: Option<PathBuf>,
    /// Its revocation list.
    pub(crate) crl: Option<PathBuf>,
    /// Whether a client must show a certificate.
    pub(crate) client_certificates: Certificates,
}

/// Whether a client must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Certificates {
    /// A secret will do as well.
    #[default]
    Optional,
    /// Nobody connects by TLS without.
    Required,
}

/// `[broker.websocket]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct WebSocket {
    /// Where to listen.
    #[serde(with = "source::listen_option")]
    pub(crate) listen: Option<SocketAddr>,
    /// Path of the upgrade request.
    pub(crate) path: String,
    /// With the certificate of `[broker.tls]`.
    pub(crate) tls: bool,
    /// Origins whose pages may connect.
    #[serde(deserialize_with = "source::words")]
    pub(crate) origins: Vec<String>,
}

/// `[broker.limits]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Limits {
    /// Networks to which none of these apply.
    #[serde(deserialize_with = "source::words")]
    pub(crate) trusted: Vec<String>,
    /// Connections of one address at once.
    pub(crate) address_connections_max: u32,
    /// Connections of one address that begin per second, in the long run.
    pub(crate) address_connects_per_s: u32,
    /// Connections of one address that may begin at once.
    pub(crate) address_connects_burst: u32,
    /// Wrong credentials from one address before a pause.
    pub(crate) address_failures_max: u32,
    /// Wrong credentials of one client id at one address before a pause.
    pub(crate) client_failures_max: u32,
    /// Within so many seconds.
    pub(crate) failures_window_s: u64,
    /// The pause.
    pub(crate) failures_pause_s: u64,
    /// Connections of one client id per minute, in the long run.
    pub(crate) client_connects_per_min: u32,
    /// Connections of one client id at once.
    pub(crate) client_connects_burst: u32,
    /// Publishes of one client per second, in the long run.
    pub(crate) client_messages_per_s: u32,
    /// Publishes of one client at once.
    pub(crate) client_messages_burst: u32,
    /// Bytes of publishes of one client per second, in the long run.
    pub(crate) client_bytes_per_s: ByteSize,
    /// Bytes of publishes of one client at once.
    pub(crate) client_bytes_burst: ByteSize,
    /// A client that was slowed for so long is disconnected.
    pub(crate) client_slowed_max_s: u64,
}

impl Default for Broker {
    fn default() -> Self {
        Self {
            listen: Some(loopback(1883)),
            tls_listen: None,
            connections_max: 60_000,
            unacked_max: 1_000,
            budget_bytes: ByteSize::mib(256),
            tls: Tls::default(),
            websocket: WebSocket::default(),
            sessions: Sessions::default(),
            limits: Limits::default(),
        }
    }
}

impl Default for Sessions {
    fn default() -> Self {
        let gate = GateConfig::default();
        Self {
            kept_max: gate.sessions_max,
            expiry_max_s: gate.session_expiry_max.as_secs(),
            keep_alive_max_s: gate.keep_alive_max.as_secs(),
            subscriptions_max: gate.subscriptions_max,
            resend_per_s: gate.resend_per_s,
        }
    }
}

impl Default for WebSocket {
    fn default() -> Self {
        Self { listen: None, path: "/mqtt".to_owned(), tls: false, origins: Vec::new() }
    }
}

impl Default for Limits {
    fn default() -> Self {
        let limits = RateLimits::default();
        Self {
            trusted: limits.trusted.iter().map(ToString::to_string).collect(),
            address_connections_max: limits.address_connections_max,
            address_connects_per_s: limits.address_connects_per_s,
            address_connects_burst: limits.address_connects_burst,
            address_failures_max: limits.address_failures_max,
            client_failures_max: limits.client_failures_max,
            failures_window_s: limits.failures_window.as_secs(),
            failures_pause_s: limits.failures_pause.as_secs(),
            client_connects_per_min: limits.client_connects_per_min,
            client_connects_burst: limits.client_connects_burst,
            client_messages_per_s: limits.client_messages_per_s,
            client_messages_burst: limits.client_messages_burst,
            client_bytes_per_s: ByteSize(limits.client_bytes_per_s.into()),
            client_bytes_burst: ByteSize(limits.client_bytes_burst.into()),
            client_slowed_max_s: limits.client_slowed_max.as_secs(),
        }
    }
}

impl Broker {
    /// The gate's own settings. What [`super::checks`] has let pass fits.
    pub(crate) fn gate(&self) -> GateConfig {
        GateConfig {
            listen: self.listen,
            tls: self.gate_tls(),
            websocket: self.websocket.listen.map(|listen| WebSocketConfig {
                listen,
                path: self.websocket.path.clone(),
                tls: self.websocket.tls,
                origins: self.websocket.origins.clone(),
            }),
            limits: self.limits.gate(),
            connections_max: self.connections_max,
            unacked_max: u16::try_from(self.unacked_max).unwrap_or(u16::MAX),
            budget_bytes: self.budget_bytes.as_usize(),
            sessions_max: self.sessions.kept_max,
            session_expiry_max: Duration::from_secs(self.sessions.expiry_max_s),
            keep_alive_max: Duration::from_secs(self.sessions.keep_alive_max_s),
            subscriptions_max: self.sessions.subscriptions_max,
            resend_per_s: self.sessions.resend_per_s,
            ..GateConfig::default()
        }
    }

    /// Only where something listens with it.
    fn gate_tls(&self) -> Option<TlsConfig> {
        let used = self.tls_listen.is_some() || (self.websocket.tls && self.websocket.listen.is_some());
        let (true, Some(certificate), Some(key)) = (used, &self.tls.certificate, &self.tls.key) else {
            return None;
        };
        Some(TlsConfig {
            listen: self.tls_listen,
            certificate: certificate.clone(),
            key: key.clone(),
            client_ca: self.tls.client_ca.clone(),
            crl: self.tls.crl.clone(),
            client_certificates: match self.tls.client_certificates {
                Certificates::Optional => ClientCertificates::Optional,
                Certificates::Required => ClientCertificates::Required,
            },
        })
    }
}

impl Limits {
    fn gate(&self) -> RateLimits {
        let bytes = |size: ByteSize| u32::try_from(size.0).unwrap_or(u32::MAX);
        RateLimits {
            trusted: self.trusted.iter().filter_map(|text| network(text)).collect(),
            address_connections_max: self.address_connections_max,
            address_connects_per_s: self.address_connects_per_s,
            address_connects_burst: self.address_connects_burst,
            address_failures_max: self.address_failures_max,
            client_failures_max: self.client_failures_max,
            failures_window: Duration::from_secs(self.failures_window_s),
            failures_pause: Duration::from_secs(self.failures_pause_s),
            client_connects_per_min: self.client_connects_per_min,
            client_connects_burst: self.client_connects_burst,
            client_messages_per_s: self.client_messages_per_s,
            client_messages_burst: self.client_messages_burst,
            client_bytes_per_s: bytes(self.client_bytes_per_s),
            client_bytes_burst: bytes(self.client_bytes_burst),
            client_slowed_max: Duration::from_secs(self.client_slowed_max_s),
            ..RateLimits::default()
        }
    }
}

/// `10.0.0.0/8`, or one address.
pub(super) fn network(text: &str) -> Option<IpNet> {
    IpNet::from_str(text).ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(IpNet::from))
}
