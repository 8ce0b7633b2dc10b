//! `liftwatch simulate`: runs a fleet, shows how it goes, and reports.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use tokio_util::sync::CancellationToken;

use crate::fleet::{Fleet, FleetConfig, FleetMonitor, FleetReport};

const SHOW_EVERY: Duration = Duration::from_millis(500);

/// A run of a fleet, as asked for on the command line.
#[derive(Debug, Clone, Default)]
pub struct SimulateOptions {
    /// The fleet.
    pub fleet: FleetConfig,
    /// Where to write the ground truth, as JSON lines.
    pub truth_file: Option<PathBuf>,
    /// Show nothing while it runs. Without a terminal nothing is shown anyway.
    pub quiet: bool,
}

/// Runs until the duration is over or `cancel`.
pub async fn run(options: SimulateOptions, cancel: CancellationToken) -> anyhow::Result<FleetReport> {
    let terminals = options.fleet.terminals;
    let fleet = Fleet::start(options.fleet).await?;
    let bar = if options.quiet { ProgressBar::hidden() } else { ProgressBar::new_spinner() };
    bar.set_style(
        ProgressStyle::with_template("{spinner} {elapsed} {msg}")
            .context("the progress line is malformed")?,
    );
    let monitor = fleet.monitor();
    let report = {
        let finish = fleet.finish(&cancel);
        tokio::pin!(finish);
        let mut show = tokio::time::interval(SHOW_EVERY);
        let mut before = 0;
        loop {
            tokio::select! {
                report = &mut finish => break report,
                _ = show.tick() => {
                    let acked = monitor.counters().items_acked;
                    bar.set_message(line(&monitor, terminals, acked - before));
                    before = acked;
                    bar.tick();
                }
            }
        }
    };
    bar.finish_and_clear();
    if let Some(path) = &options.truth_file {
        tokio::fs::write(path, report.truth_lines())
            .await
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(report)
}

fn line(monitor: &FleetMonitor, terminals: usize, fresh: u64) -> String {
    let counts = monitor.counters();
    let per_second = fresh as f64 / SHOW_EVERY.as_secs_f64();
    let mut line = format!(
        "{} of {terminals} connected, {per_second:.0} readings/s acknowledged, {} in all, {} on their way",
        counts.connected,
        counts.items_acked,
        counts.sent.saturating_sub(counts.acked)
    );
    if let Some(refusal) = monitor.last_refusal().filter(|_| counts.connected == 0) {
        line = format!("{line}; {refusal}");
    }
    line
}
