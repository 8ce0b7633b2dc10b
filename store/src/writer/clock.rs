//! The database's clock, as a session of the writer knows it.

use std::time::{Duration, Instant};

use domain::Timestamp;
use sqlx::postgres::PgConnection;
use time::OffsetDateTime;

/// After so long it is asked again: either clock may have been set.
const BELIEVED_FOR: Duration = Duration::from_mins(1);
/// Ours went by so much more or less than time did: it was set.
const STEP: Duration = Duration::from_secs(1);

/// What was found when the database was asked last.
#[derive(Debug, Clone, Copy)]
pub(super) struct DatabaseClock {
    asked: Instant,
    /// By our clock.
    asked_at: Timestamp,
    /// By how much the database's is ahead of ours.
    ahead: Duration,
}

impl DatabaseClock {
    pub(super) async fn ask(connection: &mut PgConnection) -> Result<Self, sqlx::Error> {
        let clock: OffsetDateTime =
            sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(connection).await?;
        let asked_at = now();
        let ahead = Timestamp::from(clock).since(asked_at);
        Ok(Self { asked: Instant::now(), asked_at, ahead })
    }

    /// The later of the two clocks, after one round trip where what is known is too old.
    pub(super) async fn latest(&mut self, connection: &mut PgConnection) -> Result<Timestamp, sqlx::Error> {
        if !self.is_known(Instant::now(), now()) {
            *self = Self::ask(connection).await?;
        }
        Ok(now().plus(self.ahead))
    }

    fn is_known(&self, instant: Instant, now: Timestamp) -> bool {
        let elapsed = instant.saturating_duration_since(self.asked);
        let expected = self.asked_at.plus(elapsed);
        elapsed < BELIEVED_FOR && now.since(expected) < STEP && expected.since(now) < STEP
    }

    #[cfg(test)]
    pub(super) fn forget(&mut self) {
        self.asked_at = Timestamp::default();
    }
}

fn now() -> Timestamp {
    OffsetDateTime::now_utc().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_asked_again_after_a_minute_and_when_ours_was_set() {
        let (asked, asked_at) = (Instant::now(), Timestamp::from_millis(1_800_000_000_000));
        let clock = DatabaseClock { asked, asked_at, ahead: Duration::ZERO };
        let is_known = |instant_ms: u64, now_ms: i64| {
            let now = Timestamp::from_millis(asked_at.millis() + now_ms);
            clock.is_known(asked + Duration::from_millis(instant_ms), now)
        };
        assert!(is_known(0, 0));
        assert!(is_known(59_999, 59_500), "clocks are corrected a little all the time");
        assert!(!is_known(60_000, 60_000));
        assert!(!is_known(5_000, 5_000 - 600_000), "set back");
        assert!(!is_known(5_000, 6_000), "set ahead");
    }
}
