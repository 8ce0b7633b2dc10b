//! Bounds and deadlines of gate and hub, each with its default and reason.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

/// How the gate behaves.
#[derive(Debug, Clone)]
pub struct GateConfig {
    /// Where to listen for plain TCP; port 0 picks a free one, none is no such listener. Default 127.0.0.1:1883.
    pub listen: Option<SocketAddr>,
    /// TLS: its listener, its files. Default none.
    pub tls: Option<TlsConfig>,
    /// MQTT over WebSocket. Default none.
    pub websocket: Option<WebSocketConfig>,
    /// What one address and one client may take.
    pub limits: RateLimits,
    /// Connections at once, half-open ones included; further ones are closed on arrival. Default 20,000.
    pub connections_max: usize,
    /// From accept to a decided CONNECT, TLS and WebSocket handshakes included. Default 10 s.
    pub connect_timeout: Duration,
    /// Unacknowledged publishes per connection (`receive maximum` in MQTT 5). Default 1,000.
    pub unacked_max: u16,
    /// Bytes of unacknowledged publishes over all connections. Default 256 MiB.
    pub budget_bytes: usize,
    /// Bytes of one payload; a client that sends more is disconnected. Default 1 MiB.
    pub payload_bytes_max: usize,
    /// Longest pause in reading a connection when budget, channel or window is full; half the client's
    /// keep-alive if that is shorter. Default 30 s.
    pub pause_max: Duration,
    /// A peer that takes nothing of what is written to it for so long is closed. Default 20 s.
    pub write_timeout: Duration,
    /// How long a stop waits for outstanding acknowledgements. Default 10 s.
    pub drain_timeout: Duration,
    /// Subscriptions of one connection. Default 32.
    pub subscriptions_max: usize,
    /// QoS 1 messages on their way to one subscriber, unacknowledged by it. Default 100.
    pub inflight_max: u16,
    /// Deliveries waiting for one terminal; a full queue refuses. Default 32.
    pub deliveries_max: usize,
    /// Sessions kept without connection; beyond that the one that expires first is discarded. Default 50,000.
    pub sessions_max: usize,
    /// Those of them for which the hub collects messages, each with a queue of its own, likewise. Default 64.
    pub sessions_collecting_max: usize,
    /// Longest life of a session without connection. Default 24 h.
    pub session_expiry_max: Duration,
    /// Topic aliases an MQTT 5 client may use; 0 for none. Default 16.
    pub topic_alias_max: u16,
    /// Longest keep-alive. An MQTT 5 client that asks for more, or for none, is told to use this one. MQTT 3.1.1
    /// has no such word: terminals are held to it all the same, because a terminal that is silent for so long
    /// is not online; integrations get what they ask for. Default 600 s.
    pub keep_alive_max: Duration,
    /// Marked connections closed per second once the store is back. Default 500.
    pub resend_per_s: u32,
    /// Silence after which the system asks whether the peer is still there, four times in `tcp_keepalive / 2`: with
    /// the default of 120 s a peer that vanished is gone after 180 s, even with an MQTT keep-alive of 0, and a
    /// terminal with a keep-alive of its own never pays for a probe.
    pub tcp_keepalive: Duration,
}

impl Default for GateConfig {
    fn default() -> Self {
        Self {
            listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 1883))),
            tls: None,
            websocket: None,
            limits: RateLimits::default(),
            connections_max: 20_000,
            connect_timeout: Duration::from_secs(10),
            unacked_max: 1_000,
            budget_bytes: 256 << 20,
            payload_bytes_max: 1 << 20,
            pause_max: Duration::from_secs(30),
            write_timeout: Duration::from_secs(20),
            drain_timeout: Duration::from_secs(10),
            subscriptions_max: 32,
            inflight_max: 100,
            deliveries_max: 32,
            sessions_max: 50_000,
            sessions_collecting_max: 64,
            session_expiry_max: Duration::from_hours(24),
            topic_alias_max: 16,
            keep_alive_max: Duration::from_mins(10),
            resend_per_s: 500,
            tcp_keepalive: Duration::from_mins(2),
        }
    }
}

/// TLS 1.2 and 1.3. All files are PEM and read again when their content changes; files that cannot be used leave
/// the ones before them in force.
#[derive(Debug, Clone)]
pub struct TlsConfig {
    /// Where to listen for MQTT over TLS, usually port 8883; none if only the WebSocket listener uses the
    /// certificate.
    pub listen: Option<SocketAddr>,
    /// Certificate of the server, followed by its intermediates.
    pub certificate: PathBuf,
    /// Its private key (PKCS #8, SEC 1 or PKCS #1).
    pub key: PathBuf,
    /// The device CA: whose client certificates are believed. None: no client certificate is asked for.
    pub client_ca: Option<PathBuf>,
    /// Revocation lists of the device CA. A certificate of a CA without a list here is not revoked, and a list
    /// past its next update still counts: an operator who forgets to renew it must not lose the fleet.
    pub crl: Option<PathBuf>,
    /// Whether a client must show a certificate. Only with `client_ca`.
    pub client_certificates: ClientCertificates,
}

/// Whether a client must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientCertificates {
    /// Without one the handshake fails.
    #[default]
    Required,
    /// Without one the client has to know a secret.
    Optional,
}

/// MQTT over WebSocket, for integrations in browsers.
#[derive(Debug, Clone)]
pub struct WebSocketConfig {
    /// Where to listen, a listener of its own.
    pub listen: SocketAddr,
    /// Path of the upgrade request, by custom `/mqtt`.
    pub path: String,
    /// Whether with TLS, by the certificate of [`TlsConfig`]. Client certificates are not asked for: a browser
    /// would trouble its user with a dialog.
    pub tls: bool,
    /// Origins (`https://wallboard.example`) whose pages may connect; `*` allows every page. A browser tells the
    /// origin of the page, other programs tell none and may connect. Default none: no page may, because
    /// any page of the web could otherwise reach a gate that its reader's browser can reach.
    pub origins: Vec<String>,
}

impl WebSocketConfig {
    /// A listener at `/mqtt` without TLS, for programs that are no browsers.
    pub fn new(listen: SocketAddr) -> Self {
        Self { listen, path: "/mqtt".into(), tls: false, origins: Vec::new() }
    }
}

/// What one address and one client may take. All but `trusted` protect the many from the one, so they are far above
/// what a terminal needs.
///
/// Mobile carriers put thousands of terminals behind one address (carrier-grade NAT), and after an outage all of
/// them come back at once. The limits of an address therefore only stop what is no fleet. An operator
/// whose terminals come from one private network lists it in `trusted`.
#[derive(Debug, Clone)]
pub struct RateLimits {
    /// Networks to which none of these limits apply. Default loopback.
    pub trusted: Vec<IpNet>,
    /// Connections of one address (of one /64 in IPv6) at once. Default 5,000.
    pub address_connections_max: u32,
    /// Connections of one address that begin per second, in the long run. Default 100.
    pub address_connects_per_s: u32,
    /// Connections of one address that may begin at once. Default 5,000.
    pub address_connects_burst: u32,
    /// Wrong credentials from one address within `failures_window` after which its CONNECTs are refused unread for
    /// `failures_pause`, unless a client certificate was shown. Default 100.
    pub address_failures_max: u32,
    /// The same for one client id at one address. Default 10.
    pub client_failures_max: u32,
    /// See above. Default 60 s.
    pub failures_window: Duration,
    /// See above. Default 60 s.
    pub failures_pause: Duration,
    /// Connections of one client id per minute, in the long run. Default 30.
    pub client_connects_per_min: u32,
    /// Connections of one client id at once. Default 30.
    pub client_connects_burst: u32,
    /// Publishes of one client per second, in the long run; above that it is read more slowly. Default 100.
    pub client_messages_per_s: u32,
    /// Publishes of one client at once. Default 2,000.
    pub client_messages_burst: u32,
    /// Bytes of publishes of one client per second, in the long run. Default 128 KiB.
    pub client_bytes_per_s: u32,
    /// Bytes of publishes of one client at once. Default 4 MiB.
    pub client_bytes_burst: u32,
    /// A client that was slowed for so long without catching up is disconnected. Default 1 h: the backlog of a
    /// day, one message a second, takes 15 minutes.
    pub client_slowed_max: Duration,
    /// Addresses and clients remembered, each. When full, a newcomer is admitted without being counted: the
    /// bound on all connections still holds, and refusing it would do an attacker's work. Default 65,536.
    pub remembered_max: usize,
}

impl Default for RateLimits {
    fn default() -> Self {
        let loopback = [
            IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8),
            IpNet::new_assert(IpAddr::V6(Ipv6Addr::LOCALHOST), 128),
        ];
        Self {
            trusted: loopback.into(),
            address_connections_max: 5_000,
            address_connects_per_s: 100,
            address_connects_burst: 5_000,
            address_failures_max: 100,
            client_failures_max: 10,
            failures_window: Duration::from_mins(1),
            failures_pause: Duration::from_mins(1),
            client_connects_per_min: 30,
            client_connects_burst: 30,
            client_messages_per_s: 100,
            client_messages_burst: 2_000,
            client_bytes_per_s: 128 << 10,
            client_bytes_burst: 4 << 20,
            client_slowed_max: Duration::from_hours(1),
            remembered_max: 65_536,
        }
    }
}

/// How the hub behaves.
#[derive(Debug, Clone)]
pub struct HubConfig {
    /// Messages between the gate and the router; a full queue drops and counts. Default 16,384.
    pub feed_len: usize,
    /// Messages waiting for one subscriber; a full queue disconnects it. Default 8,192.
    pub queue_len: usize,
    /// Bytes waiting for one subscriber; too many disconnect it. Default 16 MiB.
    pub queue_bytes: usize,
    /// Subscribing connections at once; further SUBSCRIBEs are refused. Terminals take no place.
    /// Default 1,024.
    pub subscribers_max: usize,
    /// Retained messages; a new one beyond that is passed on but not kept. Default 400,000.
    pub retained_max: usize,
    /// Bytes of retained topics and payloads, like `retained_max`. Default 64 MiB.
    pub retained_bytes: usize,
    /// Bytes of one segment of a filter's log in the router. Default 256 KiB.
    pub segment_bytes: usize,
    /// Segments of a filter's log. Default 4.
    pub segments: usize,
    /// Distinct topics after which the router, which forgets none, is replaced. Default 1,000,000.
    pub topics_max: usize,
    /// Distinct filters after which the router, which keeps a log for each, is replaced. Default 1,024.
    pub filters_max: usize,
    /// Links after which the router, which keeps a grave for each, is replaced. Default 100,000.
    pub links_max: u64,
}

impl Default for HubConfig {
    fn default() -> Self {
        Self {
            feed_len: 16_384,
            queue_len: 8_192,
            queue_bytes: 16 << 20,
            subscribers_max: 1_024,
            retained_max: 400_000,
            retained_bytes: 64 << 20,
            segment_bytes: 256 << 10,
            segments: 4,
            topics_max: 1_000_000,
            filters_max: 1_024,
            links_max: 100_000,
        }
    }
}
