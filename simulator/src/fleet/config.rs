//! What a fleet is and does.

use std::collections::HashMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use domain::Area;

use crate::fault::PlannedFault;
use crate::terminal::{Format, Pace, Qos, Settings};

/// How much a fleet has to say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rate {
    /// Each terminal on change, as lifts move.
    OnChange,
    /// This many messages a second, all terminals together, evenly spread.
    PerSecond(f64),
    /// As many as the server acknowledges: every window is always full.
    Unlimited,
}

/// A rate cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is neither on-change, unlimited nor a number of messages per second")]
pub struct ParseRateError(String);

impl FromStr for Rate {
    type Err = ParseRateError;
    fn from_str(text: &str) -> Result<Self, ParseRateError> {
        match text {
            "on-change" => Ok(Self::OnChange),
            "unlimited" | "max" => Ok(Self::Unlimited),
            _ => match text.parse::<f64>() {
                Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(Self::PerSecond(rate)),
                _ => Err(ParseRateError(text.to_owned())),
            },
        }
    }
}

/// A fleet of simulated terminals.
#[derive(Debug, Clone)]
pub struct FleetConfig {
    /// The broker, `host:port`.
    pub target: String,
    /// How many terminals.
    pub terminals: usize,
    /// What they say.
    pub rate: Rate,
    /// How long they say it; `None`: until stopped.
    pub duration: Option<Duration>,
    /// Everything by chance follows from it.
    pub seed: u64,
    /// Faults to stage.
    pub faults: Vec<PlannedFault>,
    /// Divisions; terminals are dealt to them in turn.
    pub areas: Vec<Area>,
    /// Terminal ids are this and a number of six digits, from 1.
    pub prefix: String,
    /// Quality of service.
    pub qos: Qos,
    /// Payload format.
    pub format: Format,
    /// Each reading says all.
    pub complete: bool,
    /// Readings in one message of a backlog.
    pub backlog_batch: usize,
    /// The server was away for so long before the start: each terminal brings a reading for each second of it.
    pub outage: Duration,
    /// Unacknowledged messages per terminal.
    pub window: usize,
    /// Readings and events each terminal keeps.
    pub outbox_max: usize,
    /// Seconds between readings of a parked lift.
    pub heartbeat: Duration,
    /// Between two messages of statistics of a terminal; `None`: none.
    pub statistics: Option<Duration>,
    /// MQTT keep-alive.
    pub keep_alive: Duration,
    /// Connects a second at the start.
    pub connects_per_second: f64,
    /// Longest wait before a reconnect.
    pub backoff_max: Duration,
    /// Boot id of every terminal; `None`: the second of the start, so that no two runs share numbers.
    pub boot: Option<u32>,
    /// Clocks run ahead by up to this much.
    pub skew_max: Duration,
    /// Times as many trips as usual.
    pub traffic: f64,
    /// How long to wait for acknowledgements at the end.
    pub drain: Duration,
    /// Where to write the ledger of acknowledgements (CSV).
    pub acked_file: Option<PathBuf>,
    /// Password of every terminal that has none of its own; the user name is its id.
    pub password: Option<String>,
    /// Passwords by terminal id.
    pub secrets: Arc<HashMap<String, String>>,
}

impl Default for FleetConfig {
    fn default() -> Self {
        let defaults = Settings::default();
        let areas = [350_102, 350_103, 360_102].into_iter().filter_map(|code| Area::from_number(code).ok());
        Self {
            target: "127.0.0.1:1883".into(),
            terminals: 100,
            rate: Rate::OnChange,
            duration: None,
            seed: 1,
            faults: Vec::new(),
            areas: areas.collect(),
            prefix: "sim-".into(),
            qos: defaults.qos,
            format: defaults.format,
            complete: defaults.complete,
            backlog_batch: defaults.backlog_batch,
            outage: Duration::ZERO,
            window: defaults.window,
            outbox_max: defaults.outbox_max,
            heartbeat: defaults.heartbeat,
            statistics: None,
            keep_alive: Duration::from_mins(1),
            connects_per_second: 1_000.0,
            backoff_max: Duration::from_secs(5),
            boot: None,
            skew_max: Duration::ZERO,
            traffic: 1.0,
            drain: Duration::from_secs(10),
            acked_file: None,
            password: None,
            secrets: Arc::default(),
        }
    }
}

impl FleetConfig {
    /// What all terminals have in common.
    pub(super) fn settings(&self) -> Settings {
        let pace = match self.rate {
            Rate::OnChange => Pace::OnChange,
            // At least a microsecond, the resolution of our time.
            Rate::PerSecond(total) => {
                Pace::Every(Duration::from_secs_f64((self.terminals as f64 / total).max(1e-6)))
            }
            Rate::Unlimited => Pace::Unlimited,
        };
        Settings {
            pace,
            heartbeat: self.heartbeat,
            format: self.format,
            complete: self.complete,
            qos: self.qos,
            // Packet ids are 16 bits; half of them never wrap onto one that is still on its way.
            window: self.window.clamp(1, 32_000),
            // Half of it may be on its way.
            outbox_max: if self.outage.is_zero() {
                self.outbox_max
            } else {
                self.outbox_max.max(2 * self.window * self.backlog_batch)
            },
            backlog_batch: self.backlog_batch.max(1),
            statistics: self.statistics,
            ..Settings::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read() {
        assert_eq!("on-change".parse(), Ok(Rate::OnChange));
        assert_eq!("unlimited".parse(), Ok(Rate::Unlimited));
        assert_eq!("2500".parse(), Ok(Rate::PerSecond(2_500.0)));
        for bad in ["", "0", "-1", "nan", "inf", "fast"] {
            assert_eq!(bad.parse::<Rate>(), Err(ParseRateError(bad.into())));
        }
    }
}
