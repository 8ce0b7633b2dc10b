//! A writer at work beside what is measured.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use domain::{ArrivalNo, Timestamp};
use prometheus_client::registry::Registry;
use store::{Database, Item, StoreMetrics, Writer};

use crate::{measure, support};

/// Rows a second.
const BESIDE: i64 = 20_000;

/// A writer beside the questions.
pub(crate) struct Ingest {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<(i64, Duration, Vec<Duration>)>,
}

impl Ingest {
    /// Starts it; gives it back once the writer knows its terminals.
    pub(crate) async fn start(database: &Database, elevators: i64) -> Self {
        let mut writer = Writer::new(database, StoreMetrics::register(&mut Registry::default()).into());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let begin: Timestamp = time::OffsetDateTime::now_utc().into();
        // Numbers its readings are not known by yet.
        let first = begin.micros() % 1_000_000_000 * elevators;
        let task = tokio::spawn(async move {
            let (began, mut next, mut commits) = (Instant::now(), 0, Vec::new());
            while !stopped.load(Ordering::Relaxed) {
                let due = (began.elapsed().as_secs_f64() * BESIDE as f64) as i64;
                if due == next {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    continue;
                }
                let due = due.min(next + 5_000);
                let now: Timestamp = time::OffsetDateTime::now_utc().into();
                let items: Vec<_> = (next..due)
                    .map(|n| {
                        let mut one = support::incoming(n % elevators, elevators, now);
                        one.arrival.no = ArrivalNo(first + n);
                        Item::Message(renumber(one, first / elevators + n / elevators))
                    })
                    .collect();
                let commit = Instant::now();
                writer.commit(&items).await.expect("rows are committed");
                commits.push(commit.elapsed());
                next = due;
            }
            (next, began.elapsed(), commits)
        });
        // Its terminals are known before anything is measured.
        tokio::time::sleep(Duration::from_secs(6)).await;
        Self { stop, task }
    }

    /// Ends it, and tells what it has done.
    pub(crate) async fn stop(self) -> String {
        self.stop.store(true, Ordering::Relaxed);
        let (rows, elapsed, mut commits) = self.task.await.expect("the writer goes on");
        let rate = rows as f64 / elapsed.as_secs_f64();
        let (p50, p99) = (measure::at(&mut commits, 0.5), measure::at(&mut commits, 0.99));
        format!("{rate:.0} rows/s, commits p50 {p50}, p99 {p99}")
    }
}

/// The same message as its terminal's `seq`th.
fn renumber(mut incoming: store::Incoming, seq: i64) -> store::Incoming {
    if let domain::Message::Telemetry(batch) = Arc::make_mut(&mut incoming.message) {
        for reading in &mut batch.readings {
            reading.seq = domain::Seq(seq);
        }
    }
    incoming
}
