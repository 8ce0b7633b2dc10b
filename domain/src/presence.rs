//! Whether a terminal is there (DOMAIN.md 6): connected, away for a while, or offline.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// What is shown of a terminal's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PresenceState {
    /// Connected.
    Online,
    /// Not connected, but not for long: mobile links drop and come back.
    Away,
    /// Away for longer than a link takes to come back (离线).
    Offline,
}

impl PresenceState {
    /// Of a terminal that is `online`, or has been silent since `since`. Nothing else decides: away becomes
    /// offline by the clock alone, `offline_after` after the last sign of life.
    pub fn of(online: bool, since: Timestamp, now: Timestamp, offline_after: Duration) -> Self {
        if online {
            Self::Online
        } else if now < since.plus(offline_after) {
            Self::Away
        } else {
            Self::Offline
        }
    }

    /// One word for messages and pages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Away => "away",
            Self::Offline => "offline",
        }
    }
}

impl fmt::Display for PresenceState {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn away_becomes_offline_by_the_clock_alone() {
        let since = Timestamp::from_millis(1_000_000);
        let after = |seconds| {
            PresenceState::of(false, since, since.plus(Duration::from_secs(seconds)), Duration::from_mins(3))
        };
        assert_eq!(
            (after(0), after(179), after(180)),
            (PresenceState::Away, PresenceState::Away, PresenceState::Offline)
        );
        let long_ago = Timestamp::default();
        assert_eq!(PresenceState::of(true, long_ago, since, Duration::from_mins(3)), PresenceState::Online);
        // A clock that was set back makes nobody offline.
        assert_eq!(PresenceState::of(false, since, long_ago, Duration::from_mins(3)), PresenceState::Away);
    }
}
