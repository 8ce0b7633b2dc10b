//! What may be sent to a terminal (DOMAIN.md 12): orders to the terminal itself, never to the elevator.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{ParseSlugError, Timestamp, limits};

/// Names one order. Grows; a terminal that sees an id again has the order already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DownlinkId(pub i64);

impl fmt::Display for DownlinkId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

/// An order to a terminal. There are no others: nothing here can move a car, open a door, reset a fault or
/// change a service mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Downlink {
    /// Set the clock to the server's. The time is that of the sending, not of the order.
    ClockSet,
    /// Report a reading this often, for a while.
    ReportRate {
        /// Between two readings, ms.
        interval_ms: u32,
        /// For how long; then as before, s.
        for_s: u32,
    },
    /// Somebody is looking: report once a second for [`limits::LIVE_VIEW_LEASE`].
    LiveView,
}

/// Which of them, without its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DownlinkKind {
    /// [`Downlink::ClockSet`]
    ClockSet,
    /// [`Downlink::ReportRate`]
    ReportRate,
    /// [`Downlink::LiveView`]
    LiveView,
}

/// An order as a terminal gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SentDownlink {
    /// Which; a repeat carries the same.
    pub id: DownlinkId,
    /// Server clock at this transmission.
    pub sent: Timestamp,
    /// What to do.
    pub order: Downlink,
}

/// A value of an order is not allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{field} {value} is out of range: {min} to {max}")]
pub struct DownlinkError {
    /// Which value.
    pub field: &'static str,
    /// What it was.
    pub value: u32,
    /// The least that is allowed.
    pub min: u32,
    /// The most.
    pub max: u32,
}

impl Downlink {
    /// A report rate within its limits.
    pub fn report_rate(interval_ms: u32, for_s: u32) -> Result<Self, DownlinkError> {
        let within = |field, value, (min, max)| match (min..=max).contains(&value) {
            true => Ok(value),
            false => Err(DownlinkError { field, value, min, max }),
        };
        Ok(Self::ReportRate {
            interval_ms: within("interval_ms", interval_ms, limits::REPORT_INTERVAL_MS)?,
            for_s: within("for_s", for_s, limits::REPORT_RATE_FOR_S)?,
        })
    }

    /// Which it is.
    pub fn kind(&self) -> DownlinkKind {
        match self {
            Self::ClockSet => DownlinkKind::ClockSet,
            Self::ReportRate { .. } => DownlinkKind::ReportRate,
            Self::LiveView => DownlinkKind::LiveView,
        }
    }

    /// How long it waits for a sleeping terminal; after that it is worthless.
    pub fn keeps_for(&self) -> Duration {
        match self {
            Self::ClockSet | Self::ReportRate { .. } => limits::DOWNLINK_KEEPS,
            Self::LiveView => limits::LIVE_VIEW_LEASE,
        }
    }
}

impl DownlinkKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::ClockSet, Self::ReportRate, Self::LiveView];

    /// Its name in the store, in JSON and in metrics.
    pub fn slug(self) -> &'static str {
        match self {
            Self::ClockSet => "clock_set",
            Self::ReportRate => "report_rate",
            Self::LiveView => "live_view",
        }
    }
}

impl FromStr for DownlinkKind {
    type Err = ParseSlugError;
    fn from_str(text: &str) -> Result<Self, ParseSlugError> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.slug() == text)
            .ok_or_else(|| ParseSlugError { what: "downlink", text: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_limits() {
        assert!(Downlink::report_rate(1_000, 3_600).is_ok());
        let error = Downlink::report_rate(10, 3_600).unwrap_err();
        assert_eq!(error.to_string(), "interval_ms 10 is out of range: 200 to 3600000");
        assert_eq!(Downlink::report_rate(1_000, 0).unwrap_err().field, "for_s");
    }

    #[test]
    fn kinds_are_named() {
        for kind in DownlinkKind::ALL {
            assert_eq!(kind.slug().parse::<DownlinkKind>().ok(), Some(kind));
        }
        assert!("door_open".parse::<DownlinkKind>().is_err(), "nothing that touches the elevator");
    }
}
