//! What authentication counts.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

type Labels = [(&'static str, &'static str); 1];

/// Counters of who was let in, and who was not.
#[derive(Debug, Default)]
pub(crate) struct AuthMetrics {
    accepted: Family<Labels, Counter>,
    refused: Family<Labels, Counter>,
    refreshes: Family<Labels, Counter>,
    pub(super) ended: Counter,
    pub(super) terminals: Gauge,
    pub(super) accounts: Gauge,
}

impl AuthMetrics {
    /// Makes them and registers them under `auth_`.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let auth = registry.sub_registry_with_prefix("auth");
        auth.register("accepted", "Clients let in, by proof", metrics.accepted.clone());
        auth.register("refused", "Clients refused, by reason", metrics.refused.clone());
        auth.register("refreshes", "Readings of who may connect, by outcome", metrics.refreshes.clone());
        auth.register("ended", "Connections ended because their right was taken", metrics.ended.clone());
        auth.register("terminals", "Terminals that are registered", metrics.terminals.clone());
        auth.register("accounts", "Accounts of integrations", metrics.accounts.clone());
        metrics
    }

    pub(super) fn accepted(&self, proof: &'static str) {
        self.accepted.get_or_create(&[("proof", proof)]).inc();
    }

    pub(super) fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&[("reason", reason)]).inc();
    }

    pub(super) fn refreshed(&self, outcome: &'static str) {
        self.refreshes.get_or_create(&[("outcome", outcome)]).inc();
    }
}
