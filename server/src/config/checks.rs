//! What the types alone cannot refuse.

use std::net::SocketAddr;

use super::{ByteSize, Config, ConfigError};

/// A setting outside its limits.
pub(super) struct Fault {
    pub(super) key: &'static str,
    pub(super) reason: String,
}

fn within<T: PartialOrd + std::fmt::Display>(
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
        within("database.connections_max", self.database.connections_max, 2, 1_000)?;
        within("broker.connections_max", self.broker.connections_max, 1, 1_000_000)?;
        // MQTT packet ids are 16 bits wide.
        within("broker.unacked_max", self.broker.unacked_max, 1, 65_535)?;
        within("broker.budget_bytes", self.broker.budget_bytes, ByteSize::mib(1), ByteSize::mib(1 << 20))?;
        // The gate disconnects above 1 MiB whatever the setting.
        within(
            "broker.payload_bytes_max",
            self.broker.payload_bytes_max,
            ByteSize(1 << 10),
            ByteSize::mib(1),
        )?;
        within("ingest.batch_rows_max", self.ingest.batch_rows_max, 1, 50_000)?;
        within("ingest.writers", self.ingest.writers, 1, 64)?;
        within("ingest.queue_len", self.ingest.queue_len, 1, 1_000_000)?;
        within("ingest.offline_after_s", self.ingest.offline_after_s, 1, 86_400)?;
        within("alerting.checkpoint_ms", self.alerting.checkpoint_ms, 100, 60_000)?;
        // The engine writes it as the last four digits of a rule's version.
        within("alerting.thresholds_version", self.alerting.thresholds_version, 0, 9_999)?;
        within("store.retention_days", self.store.retention_days, 1, 36_500)?;
        within("store.chunk_hours", self.store.chunk_hours, 1, 24 * 31)?;
        self.check_text()?;
        self.check_services()?;
        self.check_listeners()
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
        if self.broker.tls_listen.is_some() {
            let reason = "is not in this version: TLS comes with the next one; leave it out".to_owned();
            return Err(Fault { key: "broker.tls_listen", reason });
        }
        let listeners = self.listeners();
        for (index, (key, at)) in listeners.iter().enumerate() {
            let clash = listeners[..index].iter().find(|(_, other)| other == at && at.port() != 0);
            if let Some((other, _)) = clash {
                return Err(Fault { key, reason: format!("is {at}, which {other} has already") });
            }
        }
        Ok(())
    }

    /// The listeners of the services that run.
    fn listeners(&self) -> Vec<(&'static str, SocketAddr)> {
        let all = [
            (self.services.broker, "broker.listen", self.broker.listen),
            (self.services.alerting, "dispatch.listen", self.dispatch.listen),
            (self.services.web, "web.listen", self.web.listen),
        ];
        all.into_iter().filter(|(runs, ..)| *runs).map(|(_, key, at)| (key, at)).collect()
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
