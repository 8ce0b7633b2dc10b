//! What the writers count.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use super::CommitReport;
use crate::quarantine::{QuarantineEntry, QuarantineReason};

/// Counters of all writers together.
#[derive(Debug)]
pub struct StoreMetrics {
    /// New rows committed.
    pub rows_stored: Counter,
    /// Rows that were there already.
    pub rows_repeated: Counter,
    /// Things put into quarantine.
    pub quarantined: Family<ReasonLabel, Counter>,
    /// Payloads of which quarantine keeps only the first 4 KB, because their terminal has too much there.
    pub quarantined_cut: Counter,
    /// Faults of which no occurrence is kept: their terminal has too many open.
    pub faults_left_out: Counter,
    /// Declarations of discarded numbers that are not noted: too many of one boot lie apart.
    pub declarations_left_out: Counter,
    /// Terminals whose clock is off now.
    pub clock_skewed: Gauge,
    /// Batches committed.
    pub commits: Counter,
    /// Batches that needed more than the one COPY: redelivered or refused rows, late backlogs.
    pub commits_detoured: Counter,
    /// Commits that failed.
    pub failures: Counter,
    /// Time of a successful commit.
    pub commit_seconds: Histogram,
}

/// Why something is in quarantine.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabel {
    /// [`QuarantineReason::slug`].
    pub reason: &'static str,
}

impl Default for StoreMetrics {
    fn default() -> Self {
        Self {
            rows_stored: Counter::default(),
            rows_repeated: Counter::default(),
            quarantined: Family::default(),
            quarantined_cut: Counter::default(),
            faults_left_out: Counter::default(),
            declarations_left_out: Counter::default(),
            clock_skewed: Gauge::default(),
            commits: Counter::default(),
            commits_detoured: Counter::default(),
            failures: Counter::default(),
            // 0.25 ms to 8 s.
            commit_seconds: Histogram::new(exponential_buckets(0.00025, 2.0, 16)),
        }
    }
}

impl StoreMetrics {
    /// Makes them and registers them under `store_...`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        for reason in QuarantineReason::ALL {
            drop(metrics.quarantined.get_or_create(&ReasonLabel { reason: reason.slug() }));
        }
        let registry = registry.sub_registry_with_prefix("store");
        registry.register("rows_stored", "New rows committed", metrics.rows_stored.clone());
        registry.register("rows_repeated", "Rows that were there already", metrics.rows_repeated.clone());
        registry.register("quarantined", "Things put into quarantine", metrics.quarantined.clone());
        registry.register(
            "quarantined_cut",
            "Payloads of which quarantine keeps only the first 4 KB, because their terminal has too much there",
            metrics.quarantined_cut.clone(),
        );
        registry.register(
            "faults_left_out",
            "Faults of which no occurrence is kept, because their terminal has too many open",
            metrics.faults_left_out.clone(),
        );
        registry.register(
            "declarations_left_out",
            "Declarations of discarded numbers that are not noted, because too many of one boot lie apart",
            metrics.declarations_left_out.clone(),
        );
        registry.register("clock_skewed", "Terminals whose clock is off now", metrics.clock_skewed.clone());
        registry.register("commits", "Batches committed", metrics.commits.clone());
        registry.register(
            "commits_detoured",
            "Batches that needed more than one COPY",
            metrics.commits_detoured.clone(),
        );
        registry.register("commit_failures", "Commits that failed", metrics.failures.clone());
        registry.register("commit_seconds", "Time of a successful commit", metrics.commit_seconds.clone());
        metrics
    }

    pub(super) fn committed(&self, report: &CommitReport) {
        self.rows_stored.inc_by(report.rows_stored);
        self.rows_repeated.inc_by(report.rows_repeated);
        self.quarantined_cut.inc_by(report.quarantined_cut);
        self.faults_left_out.inc_by(report.faults_left_out);
        self.declarations_left_out.inc_by(report.declarations_left_out);
        self.commits.inc();
        if report.statements > 1 {
            self.commits_detoured.inc();
        }
        self.commit_seconds.observe(report.micros as f64 / 1e6);
    }

    pub(super) fn quarantined(&self, entries: &[QuarantineEntry]) {
        for entry in entries {
            self.quarantined.get_or_create(&ReasonLabel { reason: entry.reason.slug() }).inc();
        }
    }
}
