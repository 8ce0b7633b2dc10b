//! What the types alone cannot refuse.

use std::net::SocketAddr;

use super::{ByteSize, Config, ConfigError};

/// A setting outside its limits.
pub(super) struct Fault {
    pub(super) key: &'static str,
    pub(super) reason: String,
}

pub(super) fn within<T: PartialOrd + std::fmt::Display>(
    key: &'static str,
    value: T,
    low: T,
    high: T,
) -> Result<(), Fault> {
    if value < low || value > high {
        return Err(Fault { key, reason: format!("is {value}, but must lie between {low} and {high}") });
    }
    Ok(())
}

impl Config {
    /// Every limit, with its reason where the number alone does not tell it.
    pub(super) fn check(&self) -> Result<(), Fault> {
        // Below it a busy database is taken for a dead one.
        within("database.answer_within_s", self.database.answer_within_s, 2, 600)?;
        within(
            "database.connections_max",
            self.database.connections_max,
            store::Database::CONNECTIONS_MIN,
            1_000,
        )?;
        within("broker.connections_max", self.broker.connections_max, 1, 1_000_000)?;
        // MQTT packet ids are 16 bits wide.
        within("broker.unacked_max", self.broker.unacked_max, 1, 65_535)?;
        within("broker.budget_bytes", self.broker.budget_bytes, ByteSize::mib(1), ByteSize::mib(1 << 20))?;
        self.check_sessions()?;
        self.check_limits()?;
        within("ingest.batch_rows_max", self.ingest.batch_rows_max, 1, 50_000)?;
        // Terminals wait for their acknowledgements meanwhile.
        within("ingest.linger_ms", self.ingest.linger_ms, 0, 1_000)?;
        within("ingest.writers", self.ingest.writers, 1, 64)?;
        within("ingest.queue_len", self.ingest.queue_len, 1, 1_000_000)?;
        within("ingest.offline_after_s", self.ingest.offline_after_s, 1, 86_400)?;
        within("alerting.checkpoint_ms", self.alerting.checkpoint_ms, 100, 60_000)?;
        // The engine writes it as the last four digits of a rule's version.
        within("alerting.thresholds_version", self.alerting.thresholds_version, 0, 9_999)?;
        if let Some(days) = self.store.retention_days {
            let reason = format!(
                "has moved: write telemetry = {days} under [retention], where every table has its own span"
            );
            return Err(Fault { key: "store.retention_days", reason });
        }
        self.retention.check()?;
        within("store.chunk_hours", self.store.chunk_hours, 1, 24 * 31)?;
        // At least a day: below that, every reading after a night without network would meet the columnstore.
        within("store.columnstore_after_days", self.store.columnstore_after_days, 1, 36_500)?;
        self.check_text()?;
        self.check_services()?;
        self.check_listeners()
    }

    fn check_sessions(&self) -> Result<(), Fault> {
        let sessions = &self.broker.sessions;
        within("broker.sessions.kept_max", sessions.kept_max, 0, 1_000_000)?;
        within("broker.sessions.expiry_max_s", sessions.expiry_max_s, 0, 30 * 86_400)?;
        // MQTT's keep-alive is 16 bits wide; below 5 s a slow mobile link looks like a dead one.
        within("broker.sessions.keep_alive_max_s", sessions.keep_alive_max_s, 5, 65_535)?;
        within("broker.sessions.subscriptions_max", sessions.subscriptions_max, 1, 1_024)?;
        within("broker.sessions.resend_per_s", sessions.resend_per_s, 1, 100_000)
    }

    fn check_text(&self) -> Result<(), Fault> {
        if let Some(url) = &self.database.url
            && !url.starts_with("postgres://")
            && !url.starts_with("postgresql://")
        {
            let reason = "must begin with postgres://, such as postgres://user@host/database".to_owned();
            return Err(Fault { key: "database.url", reason });
        }
        if let Err(error) = tracing_subscriber::EnvFilter::try_new(&self.log.level) {
            let reason = format!("must be error, warn, info, debug, trace or a filter of them ({error})");
            return Err(Fault { key: "log.level", reason });
        }
        Ok(())
    }

    fn check_services(&self) -> Result<(), Fault> {
        let services = &self.services;
        if services.alerting && !services.broker {
            let reason = "is true, but in this version the rules read from the broker of their own process: \
                          set services.broker to true as well"
                .to_owned();
            return Err(Fault { key: "services.alerting", reason });
        }
        if !services.broker && !services.web {
            let reason = "is false, and so is services.broker: nothing is left to run".to_owned();
            return Err(Fault { key: "services.web", reason });
        }
        Ok(())
    }

    fn check_listeners(&self) -> Result<(), Fault> {
        self.check_tls()?;
        let listeners = self.listeners();
        for (index, (key, at)) in listeners.iter().enumerate() {
            let clash = listeners[..index].iter().find(|(_, other)| other == at && at.port() != 0);
            if let Some((other, _)) = clash {
                return Err(Fault { key, reason: format!("is {at}, which {other} has already") });
            }
        }
        Ok(())
    }

    /// What is said of TLS and WebSocket fits together.
    fn check_tls(&self) -> Result<(), Fault> {
        let (broker, tls) = (&self.broker, &self.broker.tls);
        let fault = |key, reason: &str| Err(Fault { key, reason: reason.to_owned() });
        let pair = tls.certificate.is_some() && tls.key.is_some();
        if broker.tls_listen.is_some() && !pair {
            let reason = "needs certificate and key under [broker.tls]: 'liftwatch pki init' makes them";
            return fault("broker.tls_listen", reason);
        }
        if broker.websocket.tls && !pair {
            return fault("broker.websocket.tls", "needs certificate and key under [broker.tls]");
        }
        if tls.crl.is_some() && tls.client_ca.is_none() {
            return fault("broker.tls.crl", "revokes certificates of client_ca, which is not given");
        }
        if tls.client_certificates == super::broker::Certificates::Required && tls.client_ca.is_none() {
            return fault(
                "broker.tls.client_certificates",
                "is required, but client_ca, which issues them, is not given",
            );
        }
        if !broker.websocket.path.starts_with('/') {
            return fault("broker.websocket.path", "must begin with /, such as /mqtt");
        }
        if self.services.broker && self.gate_listeners().is_empty() {
            return fault(
                "broker.listen",
                "is off, and no other listener of the broker is set: nobody could connect",
            );
        }
        let wrong = broker.limits.trusted.iter().find(|text| super::broker::network(text).is_none());
        match wrong {
            Some(text) => {
                let reason = format!("holds '{text}', but must hold networks such as 10.0.0.0/8");
                Err(Fault { key: "broker.limits.trusted", reason })
            }
            None => Ok(()),
        }
    }

    fn check_limits(&self) -> Result<(), Fault> {
        let limits = &self.broker.limits;
        for (key, value) in [
            ("broker.limits.address_connections_max", limits.address_connections_max),
            ("broker.limits.address_connects_per_s", limits.address_connects_per_s),
            ("broker.limits.address_connects_burst", limits.address_connects_burst),
            ("broker.limits.address_failures_max", limits.address_failures_max),
            ("broker.limits.client_failures_max", limits.client_failures_max),
            ("broker.limits.client_connects_per_min", limits.client_connects_per_min),
            ("broker.limits.client_connects_burst", limits.client_connects_burst),
            ("broker.limits.client_messages_per_s", limits.client_messages_per_s),
            ("broker.limits.client_messages_burst", limits.client_messages_burst),
        ] {
            within(key, value, 1, 10_000_000)?;
        }
        for (key, value) in [
            ("broker.limits.failures_window_s", limits.failures_window_s),
            ("broker.limits.failures_pause_s", limits.failures_pause_s),
            ("broker.limits.client_slowed_max_s", limits.client_slowed_max_s),
        ] {
            within(key, value, 1, 7 * 86_400)?;
        }
        let (least, most) = (ByteSize(1 << 10), ByteSize::mib(1 << 10));
        within("broker.limits.client_bytes_per_s", limits.client_bytes_per_s, least, most)?;
        within("broker.limits.client_bytes_burst", limits.client_bytes_burst, least, most)
    }

    /// The listeners of the services that run.
    fn listeners(&self) -> Vec<(&'static str, SocketAddr)> {
        let mut all = if self.services.broker { self.gate_listeners() } else { Vec::new() };
        if self.services.alerting {
            all.push(("dispatch.listen", self.dispatch.listen));
        }
        if self.services.web {
            all.push(("web.listen", self.web.listen));
        }
        all
    }

    /// The listeners of the broker.
    fn gate_listeners(&self) -> Vec<(&'static str, SocketAddr)> {
        let all = [
            ("broker.listen", self.broker.listen),
            ("broker.tls_listen", self.broker.tls_listen),
            ("broker.websocket.listen", self.broker.websocket.listen),
        ];
        all.into_iter().filter_map(|(key, at)| Some((key, at?))).collect()
    }

    /// Whose listener an address is.
    pub(crate) fn listener_at(&self, at: SocketAddr) -> &'static str {
        self.gate_listeners().iter().find(|(_, known)| *known == at).map_or("broker.listen", |(key, _)| key)
    }

    /// `--dev` has no passwords, so it must not be reachable: every listener is a loopback address.
    pub(crate) fn check_dev(&self) -> Result<(), ConfigError> {
        for (key, at) in self.listeners() {
            if !at.ip().to_canonical().is_loopback() {
                let reason = format!(
                    "is {at}, but --dev has no passwords and listens on loopback addresses only: \
                     use 127.0.0.1:{}",
                    at.port()
                );
                return Err(ConfigError::Refused { place: None, key: key.to_owned(), reason });
            }
        }
        Ok(())
    }

    /// Whether `serve` may start like this.
    pub(crate) fn check_serve(&self, dev: bool) -> Result<(), ConfigError> {
        if dev { self.check_dev() } else { Ok(()) }
    }
}
