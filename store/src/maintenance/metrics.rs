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
            "How far the rollup by minute is behind now; 300 is usual",
            metrics.rollup_lag_seconds.clone(),
        );
        metrics
    }

    /// Counts a run. One that another process did says nothing.
    pub fn ran(&self, report: &MaintenanceReport) {
        if report.elsewhere {
            return;
        }
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
        self.late_hours_waiting.set(i64::try_from(report.late_hours_waiting).unwrap_or(i64::MAX));
        if let Some(lag) = report.rollup_lag {
            self.rollup_lag_seconds.set(i64::try_from(lag.as_secs()).unwrap_or(i64::MAX));
        }
    }
}
