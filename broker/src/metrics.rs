//! Counters and gauges of gate and hub.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};
use prometheus_client::registry::Registry;

/// Label of counters by reason.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabel {
    /// One of a fixed set of words.
    pub reason: &'static str,
}

/// What gate and hub count.
#[derive(Debug, Default)]
pub struct Metrics {
    /// TCP connections accepted.
    pub accepted: Counter,
    /// TCP connections that ended, for whatever reason.
    pub closed: Counter,
    /// Clients connected now (CONNECT accepted).
    pub connected: Gauge,
    /// Sessions that ended, by [`Reason`](crate::Reason).
    pub ended: Family<ReasonLabel, Counter>,
    /// Connections, handshakes, CONNECTs, publishes and filters refused, by reason.
    pub refused: Family<ReasonLabel, Counter>,
    /// TLS handshakes in full.
    pub tls_full: Counter,
    /// TLS handshakes abbreviated by a ticket.
    pub tls_resumed: Counter,
    /// Times changed files for TLS were put to use.
    pub tls_reloaded: Counter,
    /// Times changed files for TLS could not be used.
    pub tls_unusable: Counter,
    /// Filters refused in SUBSCRIBE.
    pub subscribe_refused: Counter,
    /// Publishes received with QoS 0.
    pub publish_qos0: Counter,
    /// Publishes received with QoS 1.
    pub publish_qos1: Counter,
    /// Publishes received with QoS 2.
    pub publish_qos2: Counter,
    /// Bytes read from clients.
    pub bytes_in: Counter,
    /// Bytes written to clients.
    pub bytes_out: Counter,
    /// Publishes acknowledged (PUBACK and PUBREC).
    pub acked: Counter,
    /// Publishes dropped unacknowledged because the store is slow or away (QoS 0 included).
    pub dropped_unacked: Counter,
    /// Times reading a connection was paused.
    pub paused: Counter,
    /// Newcomers that the limits could not count because their tables were full.
    pub limits_uncounted: Counter,
    /// Times a client over its rate had to wait.
    pub slowed: Counter,
    /// Bytes of the budget in use.
    pub budget_bytes: Gauge,
    /// Sessions kept without connection now.
    pub sessions: Gauge,
    /// Sessions that were resumed.
    pub sessions_resumed: Counter,
    /// Sessions without connection that were discarded, by reason.
    pub sessions_discarded: Family<ReasonLabel, Counter>,
    /// Messages given to the hub.
    pub hub_in: Counter,
    /// Messages written to subscribers.
    pub hub_out: Counter,
    /// Messages not fanned out because the hub's queue was full.
    pub hub_dropped: Counter,
    /// Messages of QoS 0 not kept for subscribers that are not connected.
    pub hub_not_kept: Counter,
    /// Subscribers now.
    pub hub_subscribers: Gauge,
    /// Subscribers disconnected because their queue was full or the router had dropped messages of them.
    pub hub_overflowed: Counter,
    /// Times the router was replaced.
    pub hub_rebuilt: Counter,
    /// Messages that should have been retained but were over the bound.
    pub retained_refused: Counter,
    /// Messages retained now.
    pub retained: Gauge,
}

impl Metrics {
    /// Makes the metrics and registers them, best under a prefix such as `mqtt`.
    pub fn register(registry: &mut Registry) -> Arc<Self> {
        let m = Self::default();
        registry.register("accepted", "TCP connections accepted", m.accepted.clone());
        registry.register("closed", "TCP connections ended", m.closed.clone());
        registry.register("connected", "clients connected now", m.connected.clone());
        registry.register("ended", "sessions ended, by reason", m.ended.clone());
        registry.register("refused", "what was refused, by reason", m.refused.clone());
        registry.register("tls_full", "TLS handshakes in full", m.tls_full.clone());
        registry.register("tls_resumed", "TLS handshakes by a ticket", m.tls_resumed.clone());
        registry.register("tls_reloaded", "changed TLS files put to use", m.tls_reloaded.clone());
        registry.register("tls_unusable", "changed TLS files not usable", m.tls_unusable.clone());
        registry.register("subscribe_refused", "filters refused in SUBSCRIBE", m.subscribe_refused.clone());
        registry.register("publish_qos0", "publishes received with QoS 0", m.publish_qos0.clone());
        registry.register("publish_qos1", "publishes received with QoS 1", m.publish_qos1.clone());
        registry.register("publish_qos2", "publishes received with QoS 2", m.publish_qos2.clone());
        registry.register("in_bytes", "bytes read from clients", m.bytes_in.clone());
        registry.register("out_bytes", "bytes written to clients", m.bytes_out.clone());
        registry.register("acked", "publishes acknowledged", m.acked.clone());
        registry.register("dropped_unacked", "publishes dropped unacknowledged", m.dropped_unacked.clone());
        registry.register("paused", "times reading a connection was paused", m.paused.clone());
        registry.register("limits_uncounted", "newcomers to full tables", m.limits_uncounted.clone());
        registry.register("slowed", "times a client over its rate had to wait", m.slowed.clone());
        registry.register("budget_bytes", "bytes of unacknowledged publishes", m.budget_bytes.clone());
        registry.register("sessions", "sessions kept without connection", m.sessions.clone());
        registry.register("sessions_resumed", "sessions resumed", m.sessions_resumed.clone());
        registry.register(
            "sessions_discarded",
            "kept sessions discarded, by reason",
            m.sessions_discarded.clone(),
        );
        registry.register("hub_in", "messages given to the hub", m.hub_in.clone());
        registry.register("hub_out", "messages written to subscribers", m.hub_out.clone());
        registry.register("hub_dropped", "messages not fanned out, queue full", m.hub_dropped.clone());
        registry.register("hub_subscribers", "subscribers now", m.hub_subscribers.clone());
        let help = "messages of QoS 0 not kept for subscribers that are not connected";
        registry.register("hub_not_kept", help, m.hub_not_kept.clone());
        registry.register("hub_overflowed", "subscribers disconnected as too slow", m.hub_overflowed.clone());
        registry.register("hub_rebuilt", "times the router was replaced", m.hub_rebuilt.clone());
        registry.register("retained_refused", "messages over the retained bound", m.retained_refused.clone());
        registry.register("retained", "messages retained now", m.retained.clone());
        Arc::new(m)
    }

    /// How much was refused for `reason`.
    pub fn refused_for(&self, reason: &'static str) -> u64 {
        self.refused.get_or_create(&ReasonLabel { reason }).get()
    }
}
