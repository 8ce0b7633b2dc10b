//! What maintenance counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::{MaintenanceReport, Step};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StepLabel {
    step: &'static str,
}

/// Counters and gauges of maintenance.
#[derive(Debug, Clone, Default)]
pub struct MaintenanceMetrics {
    runs: Family<StepLabel, Counter>,
    failures: Family<StepLabel, Counter>,
    chunks_dropped: Counter,
    rows_dropped: Counter,
    late_hours: Counter,
    late_hours_waiting: Gauge,
    rollup_lag_seconds: Gauge,
    rolled_up_to: Gauge,
    runs_lost: Counter,
    deleting_held: Gauge,
}

impl MaintenanceMetrics {
    /// Makes them and registers them under `maintenance_...`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        for step in Step::ALL {
            let label = StepLabel { step: step.name() };
            drop(metrics.runs.get_or_create(&label));
            drop(metrics.failures.get_or_create(&label));
        }
        let registry = registry.sub_registry_with_prefix("maintenance");
        registry.register("runs", "Runs of a step of maintenance", metrics.runs.clone());
        registry.register("failures", "Runs that failed", metrics.failures.clone());
        registry.register("chunks_dropped", "Chunks let go by retention", metrics.chunks_dropped.clone());
        registry.register("rows_dropped", "Rows let go by retention", metrics.rows_dropped.clone());
        registry.register(
            "late_hours",
            "Hours rolled up again for late readings",
            metrics.late_hours.clone(),
        );
        registry.register(
            "late_hours_waiting",
            "Hours of elevators that wait to be rolled up again",
            metrics.late_hours_waiting.clone(),
        );
        registry.register(
            "rollup_lag_seconds",
            "How far the rollup by minute was behind at the last run; 300 is usual",
            metrics.rollup_lag_seconds.clone(),
        );
        registry.register(
            "rolled_up_to_timestamp_seconds",
            "Minutes before it are rolled up, seconds since 1970; stands still where nothing runs",
            metrics.rolled_up_to.clone(),
        );
        registry.register(
            "runs_lost",
            "Runs that ended with the connection or did not begin",
            metrics.runs_lost.clone(),
        );
        registry.register(
            "deleting_held",
            "1 while nothing is deleted because the clock leapt ahead",
            metrics.deleting_held.clone(),
        );
        metrics
    }

    /// Counts a run. Of one that another process did it says how far the rollups go.
    pub fn ran(&self, report: &MaintenanceReport) {
        self.late_hours_waiting.set(i64::try_from(report.late_hours_waiting).unwrap_or(i64::MAX));
        if let Some(lag) = report.rollup_lag {
            self.rollup_lag_seconds.set(i64::try_from(lag.as_secs()).unwrap_or(i64::MAX));
        }
        if let Some(to) = report.rolled_up_to {
            self.rolled_up_to.set(to.micros().div_euclid(1_000_000));
        }
        if report.elsewhere {
            return;
        }
        self.deleting_held.set(report.deleting_from.is_some().into());
        for step in &report.steps {
            self.runs.get_or_create(&StepLabel { step: step.name() }).inc();
        }
        for (step, _) in &report.failed {
            self.failures.get_or_create(&StepLabel { step: step.name() }).inc();
        }
        self.chunks_dropped.inc_by(report.chunks_dropped);
        self.rows_dropped.inc_by(
            report.division_rows_dropped
                + report.quarantine_dropped
                + report.downlinks_dropped
                + report.records_dropped
                + report.alarm_events_dropped,
        );
        self.late_hours.inc_by(report.late_hours);
    }

    /// Counts a run of which nothing is known.
    pub fn lost(&self) {
        self.runs_lost.inc();
    }
}
