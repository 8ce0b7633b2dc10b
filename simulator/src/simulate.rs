//! A fleet from the command line: start, show, let things go wrong, stop.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::fault::Fault;
use crate::fleet::{Fleet, FleetConfig};
use crate::report::{Counters, FleetReport};

/// How long a fleet may take to get everything acknowledged at its end.
const DRAIN: Duration = Duration::from_secs(30);

/// Runs a fleet until its duration is over or `cancel` is. The faults strike terminals 1, 2, 3 ... at their
/// time after the start. A progress line is shown only where stderr is a terminal.
pub async fn run(
    config: FleetConfig,
    mut faults: Vec<(Fault, Duration)>,
    progress: bool,
    cancel: CancellationToken,
) -> anyhow::Result<FleetReport> {
    faults.sort_by_key(|(_, after)| *after);
    let mut faults = faults.into_iter().enumerate().peekable();
    let terminals = config.terminals as usize;
    anyhow::ensure!(terminals > 0 || faults.peek().is_none(), "a fleet of none has no faults");
    let start = Instant::now();
    let end = config.duration.map(|duration| start + duration);
    let fleet = Fleet::start(config)?;
    let line = (progress && std::io::stderr().is_terminal()).then(|| {
        ProgressBar::new_spinner().with_style(
            ProgressStyle::with_template("{elapsed_precise} {msg}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner()),
        )
    });
    let mut second = interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut acked_before = 0;
    loop {
        let strike = faults.peek().map(|(_, (_, after))| start + *after);
        tokio::select! {
            () = cancel.cancelled() => break,
            () = reached(end) => break,
            () = reached(strike) => if let Some((index, (fault, _))) = faults.next() {
                let index = index % terminals;
                if let Err(error) = fleet.inject(index, fault) {
                    tracing::warn!(index, %fault, %error, "fault not injected");
                }
            },
            _ = second.tick() => if let Some(line) = &line {
                let counters = fleet.counters();
                line.set_message(told(&counters, terminals, counters.readings_acked - acked_before));
                acked_before = counters.readings_acked;
            },
        }
    }
    if let Some(line) = &line {
        line.set_message("draining");
    }
    let report = fleet.stop(DRAIN).await;
    if let Some(line) = line {
        line.finish_and_clear();
    }
    report
}

async fn reached(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn told(counters: &Counters, terminals: usize, in_this_second: u64) -> String {
    let Counters { connected, readings_acked, unacked, reconnects, .. } = counters;
    format!(
        "{connected}/{terminals} connected, {readings_acked} acknowledged ({in_this_second}/s), \
         {unacked} waiting, {reconnects} reconnects"
    )
}
