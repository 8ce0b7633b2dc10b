//! The configuration: what a file and the environment may say, with the defaults of everything.
//!
//! Owns the names and limits of all settings, and the words in which a wrong one is refused: the file, the
//! line, the key, the nearest right one. Promises that a loaded [`Config`] lies within its limits. Reads no
//! environment and no clock by itself: the environment arrives as an argument. Starts nothing.
//!
//! Order: defaults, then the file, then variables `LIFTWATCH_<SECTION>__<KEY>`; the later wins.

mod broker;
mod bytes;
mod checks;
mod error;
mod overlay;
mod retention;
mod source;
mod template;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use alerting::engine::ThresholdsPatch;
use domain::Area;
use figment::Figment;
use figment::providers::Serialized;
use serde::{Deserialize, Serialize};

use broker::Broker;
pub(crate) use bytes::ByteSize;
pub(crate) use error::ConfigError;
use overlay::Overlay;
use retention::Retention;
use source::Source;

/// Every setting of a process.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Which services this process runs.
    pub(crate) services: Services,
    /// Where the rows go.
    pub(crate) database: Database,
    /// The gate that terminals connect to.
    pub(crate) broker: Broker,
    /// The gRPC listener for dispatch centres.
    pub(crate) dispatch: Dispatch,
    /// The HTTP listener: status page, API, metrics, health.
    pub(crate) web: Web,
    /// From decoded messages to rows.
    pub(crate) ingest: Ingest,
    /// The rules.
    pub(crate) alerting: Alerting,
    /// How rows are kept.
    pub(crate) store: Store,
    /// How long.
    pub(crate) retention: Retention,
    /// What is written to standard error.
    pub(crate) log: Log,
}

/// `[services]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Services {
    /// MQTT gate and ingest: a message taken by the gate is written by the same process.
    pub(crate) broker: bool,
    /// Rules and the gRPC service of the dispatch centres.
    pub(crate) alerting: bool,
    /// HTTP.
    pub(crate) web: bool,
}

/// `[database]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Database {
    /// PostgreSQL with TimescaleDB; without it, Liftwatch keeps a private one.
    pub(crate) url: Option<String>,
    /// Folder of the private database.
    pub(crate) home: Option<PathBuf>,
    /// Connections for queries; writers and alarms hold their own.
    pub(crate) connections_max: u32,
    /// A statement without an answer for so long is given up with its connection, and tried again.
    pub(crate) answer_within_s: u64,
}

/// `[dispatch]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Dispatch {
    /// gRPC.
    #[serde(with = "source::listen")]
    pub(crate) listen: SocketAddr,
}

/// `[web]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Web {
    /// HTTP.
    #[serde(with = "source::listen")]
    pub(crate) listen: SocketAddr,
}

/// `[ingest]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Ingest {
    /// Rows of one commit.
    pub(crate) batch_rows_max: usize,
    /// From one small commit to the next, at least; nothing but readings waits for it.
    pub(crate) linger_ms: u64,
    /// Writers, each with a connection; elevators are hashed to them.
    pub(crate) writers: usize,
    /// Messages that may wait before each writer, at least; what `broker.budget_bytes` lets in may wait in any case.
    pub(crate) queue_len: usize,
    /// A terminal without a sign of life for so long is shown as offline.
    pub(crate) offline_after_s: u64,
    /// Directory of an operator's own vendor profiles.
    pub(crate) profiles: Option<PathBuf>,
}

/// `[alerting]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Alerting {
    /// How often the state of the rules is saved.
    pub(crate) checkpoint_ms: u64,
    /// Written beside every decision, together with the version of the rules.
    pub(crate) thresholds_version: u32,
    /// Thresholds that differ from their defaults, by the region they hold for; `000000` is the nation.
    pub(crate) thresholds: BTreeMap<Area, ThresholdsPatch>,
}

/// `[store]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Store {
    /// Where the retention stood before it had a section of its own; refused, with the way out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) retention_days: Option<u32>,
    /// Hours of readings in one chunk of the hypertable.
    pub(crate) chunk_hours: u32,
    /// Days after which chunks go to the columnstore, where the edition has one.
    pub(crate) columnstore_after_days: u32,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Log {
    /// How lines look.
    pub(crate) format: LogFormat,
    /// A level, or a filter such as `info,broker=debug`.
    pub(crate) level: String,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), port)
}

impl Default for Services {
    fn default() -> Self {
        Self { broker: true, alerting: true, web: true }
    }
}

impl Default for Database {
    fn default() -> Self {
        Self { url: None, home: None, connections_max: 16, answer_within_s: 30 }
    }
}

impl Default for Dispatch {
    fn default() -> Self {
        Self { listen: loopback(50051) }
    }
}

impl Default for Web {
    fn default() -> Self {
        Self { listen: loopback(8080) }
    }
}

impl Default for Ingest {
    fn default() -> Self {
        Self {
            batch_rows_max: 5_000,
            linger_ms: 5,
            writers: 2,
            queue_len: 10_000,
            offline_after_s: domain::limits::OFFLINE_AFTER.as_secs(),
            profiles: None,
        }
    }
}

impl Default for Alerting {
    fn default() -> Self {
        Self { checkpoint_ms: 1_000, thresholds_version: 1, thresholds: BTreeMap::new() }
    }
}

impl Default for Store {
    fn default() -> Self {
        Self { retention_days: None, chunk_hours: 6, columnstore_after_days: 7 }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Auto, level: "info".to_owned() }
    }
}

impl Config {
    /// Reads the file, if one is named, lays `env` over it, and checks the whole. `env` is the environment
    /// of the process (`std::env::vars_os()`); only names that begin with `LIFTWATCH_` are looked at.
    pub(crate) fn load(
        path: Option<&Path>,
        env: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        let overlay = Overlay::collect(env)?;
        match path {
            None => Self::from_sources(&Source::empty(), &overlay),
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
                Self::from_sources(&Source::parse(path, text)?, &overlay)
            }
        }
    }

    fn from_sources(source: &Source, overlay: &Overlay) -> Result<Self, ConfigError> {
        let config: Self = Figment::from(Serialized::defaults(source.table()))
            .merge(Serialized::defaults(overlay.dict()))
            .extract()
            .map_err(|error| error::explain(error, |key| overlay.place(key).or_else(|| source.place(key))))?;
        config.check().map_err(|fault| {
            let place = overlay.place(fault.key).or_else(|| source.place(fault.key));
            ConfigError::Refused { place, key: fault.key.to_owned(), reason: fault.reason }
        })?;
        Ok(config)
    }

    /// The configuration as a file with comments, such that loading it gives the same configuration.
    pub(crate) fn to_toml(&self) -> String {
        template::fill(self)
    }
}
