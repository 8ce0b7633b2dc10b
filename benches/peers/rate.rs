//! How many messages a second each can take to rows, and what a message costs.

use std::time::{Duration, Instant};

use store::testing::TestDatabase;

use crate::system::{Kind, System};
use crate::{fleet, open_way, rows, settled_rows};

/// Messages offered a second.
const STEPS: [u32; 12] =
    [2_000, 4_000, 6_000, 9_000, 12_000, 16_000, 22_000, 30_000, 45_000, 65_000, 90_000, 120_000];
const TERMINALS: usize = 500;
/// A step is kept up with when so much of it becomes rows in time.
const KEPT_UP: f64 = 0.97;
/// Below that there is no point in going on.
const GIVEN_UP: f64 = 0.8;

#[derive(Debug, Default, Clone, Copy)]
struct Best {
    rows_per_s: f64,
    kept_up: u32,
    cpu_us: f64,
    /// At the first step, which all keep up with.
    calm_cpu_us: f64,
}

pub(crate) async fn measure(kinds: &[Kind], length: Duration) {
    let mut all = Vec::new();
    for kind in kinds {
        all.push((*kind, ramp(*kind, length).await));
    }
    println!(
        "\n{:<30} {:>10} {:>12} {:>16} {:>18}",
        "", "rows/s", "kept up with", "CPU us/msg then", "CPU us/msg at 2000"
    );
    let ours = all.first().map(|(_, best)| *best).unwrap_or_default();
    for (kind, best) in &all {
        let Best { rows_per_s, kept_up, cpu_us, calm_cpu_us } = best;
        println!("{:<30} {rows_per_s:>10.0} {kept_up:>12} {cpu_us:>16.2} {calm_cpu_us:>18.2}", kind.name());
        if *kind != Kind::Liftwatch {
            println!(
                "{:<30} {:>10.1} {:>12.1} {:>16.1} {:>18.1}",
                "  Liftwatch does better by",
                ours.rows_per_s / rows_per_s,
                f64::from(ours.kept_up) / f64::from(*kept_up),
                cpu_us / ours.cpu_us,
                calm_cpu_us / ours.calm_cpu_us,
            );
        }
    }
}

async fn ramp(kind: Kind, length: Duration) -> Best {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let system = System::start(kind, test.url(), false).await;
    open_way(&system, &database).await;
    let mut best = Best::default();
    for per_s in STEPS {
        let fleet = fleet(&system, TERMINALS, f64::from(per_s)).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        let before = (rows(&database).await, system.cpu(), Instant::now());
        tokio::time::sleep(length).await;
        let after = (rows(&database).await, system.cpu(), Instant::now());
        let written = (after.0 - before.0) as f64;
        let rate = written / (after.2 - before.2).as_secs_f64();
        let cpu_us = (after.1 - before.1) * 1e6 / written;
        println!(
            "{:<30} offered {per_s:>7}/s, {rate:>8.0} rows/s, {cpu_us:>6.2} us of CPU a row",
            kind.name()
        );
        best.rows_per_s = best.rows_per_s.max(rate);
        if rate >= KEPT_UP * f64::from(per_s) {
            best.kept_up = per_s;
            best.cpu_us = cpu_us;
        }
        if per_s == STEPS[0] {
            best.calm_cpu_us = cpu_us;
        }
        if rate < GIVEN_UP * f64::from(per_s) {
            // What is on its way is let go with the processes.
            drop(system);
            let _ = fleet.stop().await;
            return best;
        }
        let _ = fleet.stop().await;
        settled_rows(&database, Duration::from_secs(30)).await;
    }
    system.stop();
    best
}
