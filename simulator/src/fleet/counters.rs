//! What a fleet counts while it runs: atomics written by every terminal, histograms in shards.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Histograms are sharded by terminal, so that two of them seldom wait for one lock.
const SHARDS: usize = 8;
/// Longest latency told apart, us.
const LATENCY_US_MAX: u64 = 3_600_000_000;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// Counts of a fleet at a moment.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)+
        }

        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: AtomicU64,)+
        }

        impl Counters {
            pub(crate) fn snapshot(&self) -> Counts {
                Counts { $($name: self.$name.load(Relaxed),)+ }
            }
        }
    };
}

counters! {
    /// Connections open now.
    connected,
    /// Connections accepted after the first of each terminal.
    reconnects,
    /// Attempts that came to nothing.
    refused,
    /// Messages sent, repetitions included.
    sent,
    /// Messages that repeat something sent before.
    resent,
    /// Messages acknowledged.
    acked,
    /// Readings and events sent, repetitions included.
    items_sent,
    /// Readings and events acknowledged.
    items_acked,
    /// Readings and events discarded by full outboxes.
    dropped,
    /// Payload bytes sent.
    payload_bytes,
    /// Staged faults that were refused because too many waited.
    faults_refused,
}

pub(crate) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Relaxed);
}

#[derive(Debug)]
struct Shard {
    acknowledge: Histogram<u64>,
    delivery: Histogram<u64>,
}

/// Latencies of a fleet.
#[derive(Debug)]
pub(crate) struct Latencies(Vec<Mutex<Shard>>);

impl Latencies {
    pub(crate) fn new() -> Self {
        let empty = || Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("bounds in order, 3 digits");
        let shard = || Mutex::new(Shard { acknowledge: empty(), delivery: empty() });
        Self((0..SHARDS).map(|_| shard()).collect())
    }

    /// `acknowledge`: from the last transmission; `delivery`: from the making of the oldest reading inside.
    pub(crate) fn record(&self, terminal: usize, acknowledge: Duration, delivery: Option<Duration>) {
        let micros = |span: Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX).max(1);
        let Ok(mut shard) = self.0[terminal % SHARDS].lock() else { return };
        shard.acknowledge.saturating_record(micros(acknowledge));
        if let Some(delivery) = delivery {
            shard.delivery.saturating_record(micros(delivery));
        }
    }

    /// Summaries of both.
    pub(crate) fn summarize(&self) -> (Percentiles, Percentiles) {
        let empty = || Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("bounds in order, 3 digits");
        let (mut acknowledge, mut delivery) = (empty(), empty());
        for shard in self.0.iter().filter_map(|shard| shard.lock().ok()) {
            // Same bounds everywhere, so nothing can fail to fit.
            let _ = acknowledge.add(&shard.acknowledge);
            let _ = delivery.add(&shard.delivery);
        }
        (Percentiles::of(&acknowledge), Percentiles::of(&delivery))
    }
}

/// A distribution of latencies, ms.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Percentiles {
    /// How many were measured.
    pub count: u64,
    /// Mean.
    pub mean_ms: f64,
    /// Half are faster.
    pub p50_ms: f64,
    /// 90 % are faster.
    pub p90_ms: f64,
    /// 99 % are faster.
    pub p99_ms: f64,
    /// 99.9 % are faster.
    pub p999_ms: f64,
    /// The slowest.
    pub max_ms: f64,
}

impl Percentiles {
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1_000.0;
        Self {
            count: histogram.len(),
            mean_ms: histogram.mean() / 1_000.0,
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: histogram.max() as f64 / 1_000.0,
        }
    }
}

impl std::fmt::Display for Percentiles {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { p50_ms, p90_ms, p99_ms, p999_ms, max_ms, .. } = self;
        write!(
            out,
            "p50 {p50_ms:.2} ms, p90 {p90_ms:.2}, p99 {p99_ms:.2}, p99.9 {p999_ms:.2}, max {max_ms:.2}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_of_all_shards_are_summed() {
        let latencies = Latencies::new();
        for terminal in 0..100 {
            let span = Duration::from_millis(terminal + 1);
            latencies.record(terminal as usize, span, Some(span * 2));
        }
        let (acknowledge, delivery) = latencies.summarize();
        assert_eq!((acknowledge.count, delivery.count), (100, 100));
        assert!((acknowledge.p50_ms - 50.0).abs() < 0.1 && (delivery.max_ms - 200.0).abs() < 0.2);
    }
}
