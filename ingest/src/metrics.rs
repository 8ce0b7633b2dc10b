//! What ingest counts.

use domain::Message;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Label `profile`: names of loaded profiles only, so there are a few hundred at most.
pub(crate) type ByProfile = Vec<(&'static str, std::sync::Arc<str>)>;

/// Counters of the way from message to row.
#[derive(Debug)]
pub struct IngestMetrics {
    /// Readings decoded.
    pub readings: Counter,
    /// Fault events decoded.
    pub events: Counter,
    /// Statistics messages decoded.
    pub statistics: Counter,
    /// Messages to quarantine, in whole or in part, by reason.
    pub undecodable: Family<Vec<(&'static str, &'static str)>, Counter>,
    /// Codes without a meaning in the terminal's profile, by profile.
    pub(crate) unknown_codes: Family<ByProfile, Counter>,
    /// Values without a meaning in the terminal's profile, by profile.
    pub(crate) unmapped_values: Family<ByProfile, Counter>,
    /// Messages of terminals whose profile is not known here; read with the canonical one.
    pub unknown_profile: Counter,
    /// Messages under another area than the registry's.
    pub wrong_area: Counter,
    /// Messages neither stored nor acknowledged because a queue was full.
    pub shed: Counter,
    /// Times that messages of a terminal began to be dropped, so that the rules hear nothing of it.
    pub muted: Counter,
    /// Of those shed, messages that were not shown to the rules either: too large, with too many of their kind.
    pub shed_unseen: Counter,
    /// Tries to commit that failed and were repeated.
    pub commit_retries: Counter,
    /// Batches given up.
    pub commit_failures: Counter,
    /// Rows of presence written.
    pub presence_stored: Counter,
    /// Messages per commit.
    pub batch_messages: Histogram,
}

impl IngestMetrics {
    /// Makes them and registers them under `ingest_`.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            readings: Counter::default(),
            events: Counter::default(),
            statistics: Counter::default(),
            undecodable: Family::default(),
            unknown_codes: Family::default(),
            unmapped_values: Family::default(),
            unknown_profile: Counter::default(),
            wrong_area: Counter::default(),
            shed: Counter::default(),
            shed_unseen: Counter::default(),
            muted: Counter::default(),
            commit_retries: Counter::default(),
            commit_failures: Counter::default(),
            presence_stored: Counter::default(),
            batch_messages: Histogram::new(exponential_buckets(1.0, 2.0, 14)),
        };
        let ingest = registry.sub_registry_with_prefix("ingest");
        ingest.register("readings", "Readings decoded", metrics.readings.clone());
        ingest.register("events", "Fault events decoded", metrics.events.clone());
        ingest.register("statistics", "Statistics messages decoded", metrics.statistics.clone());
        ingest.register(
            "undecodable",
            "Messages to quarantine, in whole or in part",
            metrics.undecodable.clone(),
        );
        ingest.register("unknown_codes", "Codes kept without a meaning", metrics.unknown_codes.clone());
        ingest.register("unmapped_values", "Values read as unknown", metrics.unmapped_values.clone());
        let help = "Messages of terminals whose profile is not known";
        ingest.register("unknown_profile", help, metrics.unknown_profile.clone());
        ingest.register("wrong_area", "Messages under another area", metrics.wrong_area.clone());
        ingest.register("shed", "Messages not stored because a queue was full", metrics.shed.clone());
        ingest.register(
            "muted",
            "Times that messages of a terminal began to be dropped, so that the rules hear nothing of it",
            metrics.muted.clone(),
        );
        ingest.register(
            "shed_unseen",
            "Messages not stored and not shown to the rules either, because what they become is too large",
            metrics.shed_unseen.clone(),
        );
        ingest.register("commit_retries", "Commits tried again", metrics.commit_retries.clone());
        ingest.register("commit_failures", "Batches given up", metrics.commit_failures.clone());
        ingest.register("presence_stored", "Rows of presence written", metrics.presence_stored.clone());
        ingest.register("batch_messages", "Messages per commit", metrics.batch_messages.clone());
        metrics
    }

    pub(crate) fn decoded(&self, message: &Message) {
        match message {
            Message::Telemetry(batch) => self.readings.inc_by(batch.readings.len() as u64),
            Message::Event(batch) => self.events.inc_by(batch.events.len() as u64),
            Message::Statistics(_) => self.statistics.inc(),
        };
    }

    pub(crate) fn undecodable(&self, reason: &'static str) {
        self.undecodable.get_or_create(&vec![("reason", reason)]).inc();
    }
}
