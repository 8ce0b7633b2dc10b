//! What questions cost.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Counters of all questions together.
#[derive(Debug)]
pub struct QueryMetrics {
    /// Refused because too many were waiting.
    pub refused: Counter,
    /// Ended by the server because they took too long.
    pub ended: Counter,
    /// Time of an answer, without the wait for a connection.
    pub seconds: Histogram,
}

impl Default for QueryMetrics {
    fn default() -> Self {
        // 1 ms to 32 s.
        let seconds = Histogram::new(exponential_buckets(0.001, 2.0, 16));
        Self { refused: Counter::default(), ended: Counter::default(), seconds }
    }
}

impl QueryMetrics {
    /// Makes them and registers them under `query_...`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("query");
        registry.register("refused", "Questions refused: too many were waiting", metrics.refused.clone());
        registry.register("ended", "Questions ended: they took too long", metrics.ended.clone());
        registry.register("seconds", "Time of an answer", metrics.seconds.clone());
        metrics
    }
}
