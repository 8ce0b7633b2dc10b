//! Figures about the HTTP side itself.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// The hundreds of a status: a bounded label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Class(u16);

impl EncodeLabelValue for Class {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        let text = match self.0 {
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            5 => "5xx",
            _ => "1xx",
        };
        text.encode(encoder)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    status: Class,
}

/// Counters of requests and connections.
#[derive(Debug, Clone)]
pub struct Metrics {
    requests: Family<RequestLabels, Counter>,
    pub(crate) connections_opened: Counter,
    pub(crate) connections_closed: Counter,
}

impl Metrics {
    /// Registers the counters.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            connections_opened: Counter::default(),
            connections_closed: Counter::default(),
        };
        let registry = registry.sub_registry_with_prefix("web");
        registry.register("requests", "HTTP requests answered, by class of status", metrics.requests.clone());
        registry.register(
            "connections_opened",
            "HTTP connections accepted",
            metrics.connections_opened.clone(),
        );
        registry.register("connections_closed", "HTTP connections ended", metrics.connections_closed.clone());
        metrics
    }

    pub(crate) fn answered(&self, status: u16) {
        self.requests.get_or_create(&RequestLabels { status: Class(status / 100) }).inc();
    }
}
