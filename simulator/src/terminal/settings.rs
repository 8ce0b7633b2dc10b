//! What terminals of one make have in common.

use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// When readings are made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// On change, at 1 Hz while the car runs, and as a heartbeat.
    OnChange,
    /// Evenly, whatever the lift does: for load.
    Every(Duration),
    /// As fast as acknowledgements come: the window is always full.
    Unlimited,
}

/// How payloads are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Native.
    Protobuf,
    /// Open JSON.
    Json,
}

/// Quality of service of all publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Qos {
    /// 0: sent and forgotten.
    AtMostOnce,
    /// 1: kept until PUBACK.
    AtLeastOnce,
    /// 2: kept until PUBREC.
    ExactlyOnce,
}

/// A word of an option is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not one of {known}")]
pub struct ParseOptionError {
    text: String,
    known: &'static str,
}

impl FromStr for Format {
    type Err = ParseOptionError;
    fn from_str(text: &str) -> Result<Self, ParseOptionError> {
        match text {
            "protobuf" => Ok(Self::Protobuf),
            "json" => Ok(Self::Json),
            _ => Err(ParseOptionError { text: text.to_owned(), known: "protobuf, json" }),
        }
    }
}

impl FromStr for Qos {
    type Err = ParseOptionError;
    fn from_str(text: &str) -> Result<Self, ParseOptionError> {
        match text {
            "0" => Ok(Self::AtMostOnce),
            "1" => Ok(Self::AtLeastOnce),
            "2" => Ok(Self::ExactlyOnce),
            _ => Err(ParseOptionError { text: text.to_owned(), known: "0, 1, 2" }),
        }
    }
}

/// The settings.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// When readings are made.
    pub pace: Pace,
    /// Between readings of a standing car.
    pub heartbeat: Duration,
    /// Between readings of a running car.
    pub running: Duration,
    /// Protobuf or JSON.
    pub format: Format,
    /// Each reading says all; otherwise only what changed.
    pub complete: bool,
    /// Quality of service.
    pub qos: Qos,
    /// Messages on their way at most.
    pub window: usize,
    /// Readings and events kept at most; above, the oldest goes and is told as dropped.
    pub outbox_max: usize,
    /// Readings in one message while online.
    pub live_batch: usize,
    /// Readings in one message of a backlog.
    pub backlog_batch: usize,
    /// Between two messages of statistics; `None`: none.
    pub statistics: Option<Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            pace: Pace::OnChange,
            heartbeat: Duration::from_mins(1),
            running: Duration::from_secs(1),
            format: Format::Protobuf,
            complete: true,
            qos: Qos::AtLeastOnce,
            window: 20,
            outbox_max: 2_000,
            live_batch: 1,
            backlog_batch: 100,
            statistics: None,
        }
    }
}
