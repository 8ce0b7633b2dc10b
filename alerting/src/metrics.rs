//! What alerting counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// S1 to S4.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SeverityLabel {
    /// The severity.
    pub severity: &'static str,
}

/// Metrics of the engine's shell, the stream and the service. Clones share the same counters.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Inputs that the engine has taken.
    pub inputs: Counter,
    /// Inputs waiting for the engine.
    pub input_queue: Gauge,
    /// Alarms stored for the first time.
    pub raised: Family<SeverityLabel, Counter>,
    /// Candidates that were not raised.
    pub suppressed: Counter,
    /// Decisions waiting for their commit.
    pub commit_queue: Gauge,
    /// From the decision to its commit, in seconds.
    pub commit_seconds: Histogram,
    /// Commits that failed and were tried again.
    pub commit_retries: Counter,
    /// Decisions that the store refused for good: an alarm on ourselves.
    pub unstorable: Counter,
    /// Events streamed before they were committed.
    pub provisional: Counter,
    /// States of elevators saved.
    pub checkpointed: Counter,
    /// Elevators whose state changed since it was saved.
    pub checkpoint_dirty: Gauge,
    /// Messages that a start would have to replay.
    pub checkpoint_lag: Gauge,
    /// Streams open now.
    pub watchers: Gauge,
    /// Events sent on all streams, repeated and provisional ones included.
    pub events_sent: Counter,
    /// Provisional events that a slow stream missed.
    pub provisional_missed: Counter,
    /// Alarms whose evidence was sealed.
    pub sealed: Counter,
    /// Acknowledgements by people.
    pub acknowledged: Counter,
}

impl Metrics {
    /// Registers all of them, under the prefix `alerting`.
    pub fn register(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("alerting");
        let metrics = Self {
            inputs: Counter::default(),
            input_queue: Gauge::default(),
            raised: Family::default(),
            suppressed: Counter::default(),
            commit_queue: Gauge::default(),
            commit_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 14)),
            commit_retries: Counter::default(),
            unstorable: Counter::default(),
            provisional: Counter::default(),
            checkpointed: Counter::default(),
            checkpoint_dirty: Gauge::default(),
            checkpoint_lag: Gauge::default(),
            watchers: Gauge::default(),
            events_sent: Counter::default(),
            provisional_missed: Counter::default(),
            sealed: Counter::default(),
            acknowledged: Counter::default(),
        };
        let all = metrics.clone();
        registry.register("inputs", "Inputs that the engine has taken", all.inputs);
        registry.register("input_queue", "Inputs waiting for the engine", all.input_queue);
        registry.register("alarms_raised", "Alarms stored for the first time", all.raised);
        registry.register("suppressed", "Candidates that were not raised", all.suppressed);
        registry.register("commit_queue", "Decisions waiting for their commit", all.commit_queue);
        registry.register("commit_seconds", "From decision to commit", all.commit_seconds);
        registry.register("commit_retries", "Commits that failed and were tried again", all.commit_retries);
        registry.register("unstorable", "Decisions that the store refused for good", all.unstorable);
        registry.register("provisional", "Events streamed before their commit", all.provisional);
        registry.register("checkpointed", "States of elevators saved", all.checkpointed);
        registry.register("checkpoint_dirty", "Elevators changed since saved", all.checkpoint_dirty);
        registry.register("checkpoint_lag", "Messages that a start would replay", all.checkpoint_lag);
        registry.register("watchers", "Alarm streams open", all.watchers);
        registry.register("events_sent", "Events sent on all streams", all.events_sent);
        registry.register("provisional_missed", "Missed by a slow stream", all.provisional_missed);
        registry.register("sealed", "Alarms whose evidence was sealed", all.sealed);
        registry.register("acknowledged", "Acknowledgements by people", all.acknowledged);
        metrics
    }
}

/// The label of a severity.
pub(crate) fn severity_label(severity: domain::Severity) -> SeverityLabel {
    let severity = match severity {
        domain::Severity::S1 => "S1",
        domain::Severity::S2 => "S2",
        domain::Severity::S3 => "S3",
        domain::Severity::S4 => "S4",
    };
    SeverityLabel { severity }
}
