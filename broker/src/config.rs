//! Bounds and deadlines of gate and hub, each with its default and reason.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// How the gate behaves.
#[derive(Debug, Clone)]
pub struct GateConfig {
    /// Where to listen; port 0 picks a free one. Default 127.0.0.1:1883.
    pub listen: SocketAddr,
    /// Connections at once, half-open ones included; further ones are closed on arrival. Default 20,000.
    pub connections_max: usize,
    /// From accept to a decided CONNECT. Default 10 s.
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
    /// Marked connections closed per second once the store is back. Default 500.
    pub resend_per_s: u32,
}

impl Default for GateConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 1883)),
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
            resend_per_s: 500,
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
