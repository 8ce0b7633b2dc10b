//! Whether a clock may be deleted by: one that leapt ahead has to go on from there for a day first.
//!
//! What a clock that is a year ahead deletes is gone. Whatever else it does wrong is put right when it is set back.

use std::time::Duration;

use domain::Timestamp;
use sqlx::Connection;
use sqlx::postgres::PgConnection;
use time::OffsetDateTime;

/// From one run to the next; a server may have been off for so long.
const LEAP: Duration = Duration::from_hours(7 * 24);
/// Until a clock that leapt is believed.
const DOUBT: Duration = Duration::from_hours(24);

/// What is known of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Clock {
    /// At the last run.
    seen: Timestamp,
    /// If it is not believed yet.
    leapt: Option<Leap>,
}

/// A leap of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Leap {
    /// What it showed when it was believed last.
    from: Timestamp,
    /// Where it has gone on from.
    to: Timestamp,
}

impl Clock {
    /// After a run at `now`.
    fn at(known: Option<Self>, now: Timestamp) -> Self {
        Self { seen: now, leapt: known.and_then(|known| known.doubts(now)) }
    }

    /// What is to be believed of `now`.
    fn doubts(self, now: Timestamp) -> Option<Leap> {
        let from = self.leapt.map_or(self.seen, |leap| leap.from);
        if now <= from.plus(LEAP) {
            return None;
        }
        let goes_on = |leap: &Leap| now >= leap.to && now <= self.seen.plus(LEAP);
        match self.leapt.filter(goes_on) {
            Some(leap) if now >= leap.to.plus(DOUBT) => None,
            Some(leap) => Some(leap),
            // Ahead, once more ahead, or set back, but not to where it was.
            None => Some(Leap { from, to: now }),
        }
    }
}

/// Notes the time of a run; returns until when nothing is to be deleted.
pub(super) async fn doubted(
    connection: &mut PgConnection,
    now: Timestamp,
) -> Result<Option<Timestamp>, sqlx::Error> {
    type Row = (OffsetDateTime, Option<OffsetDateTime>, Option<OffsetDateTime>);
    let mut transaction = connection.begin().await?;
    let known: Option<Row> = sqlx::query_as(
        "SELECT seen, leapt, believed FROM maintenance_clock
         UNION ALL
         SELECT max(started), NULL, NULL FROM maintenance_step
         WHERE NOT EXISTS (SELECT FROM maintenance_clock)
         HAVING count(*) > 0",
    )
    .fetch_optional(&mut *transaction)
    .await?;
    let known = known.map(|(seen, leapt, believed)| {
        // One of an earlier version has no `believed`: only time can tell.
        let from = believed.map(Into::into).unwrap_or_default();
        Clock { seen: seen.into(), leapt: leapt.map(|to| Leap { from, to: to.into() }) }
    });
    let clock = Clock::at(known, now);
    sqlx::query(
        "INSERT INTO maintenance_clock (seen, leapt, believed)
         VALUES ($1, $2, $3)
         ON CONFLICT (single) DO UPDATE
         SET seen = excluded.seen, leapt = excluded.leapt, believed = excluded.believed",
    )
    .bind(clock.seen.to_utc())
    .bind(clock.leapt.and_then(|leap| leap.to.to_utc()))
    .bind(clock.leapt.and_then(|leap| leap.from.to_utc()))
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(clock.leapt.map(|leap| leap.to.plus(DOUBT)))
}

/// Until when nothing is to be deleted, as the last run has noted.
pub(crate) async fn doubted_until(connection: &mut PgConnection) -> Result<Option<Timestamp>, sqlx::Error> {
    let leapt: Option<OffsetDateTime> =
        sqlx::query_scalar("SELECT leapt FROM maintenance_clock WHERE leapt IS NOT NULL")
            .fetch_optional(connection)
            .await?;
    Ok(leapt.map(|leapt| Timestamp::from(leapt).plus(DOUBT)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hour(hours: i64) -> Timestamp {
        Timestamp::from_millis(hours * 3_600_000)
    }

    /// What is doubted after runs at these hours.
    fn doubted(hours: impl IntoIterator<Item = i64>) -> Option<Timestamp> {
        let clock = hours.into_iter().fold(None, |known, at| Some(Clock::at(known, hour(at))));
        clock.and_then(|clock| clock.leapt).map(|leap| leap.to)
    }

    #[test]
    fn a_clock_that_leapt_is_believed_after_a_day_or_when_it_is_set_back() {
        assert_eq!(doubted([0]), None, "nothing is known of another time");
        assert_eq!(doubted([0, 7 * 24]), None, "a week off");
        assert_eq!(doubted([0, 7 * 24 + 1]), Some(hour(7 * 24 + 1)));
        assert_eq!(doubted((0..3).chain(9_000..9_024)), Some(hour(9_000)));
        assert_eq!(doubted((0..3).chain(9_000..9_025)), None, "it goes on from there");
        assert_eq!(doubted((0..3).chain(9_000..9_010).chain([13])), None, "it is set right");
        assert_eq!(doubted((0..3).chain([9_000]).chain([13, 20_000])), Some(hour(20_000)));
        assert_eq!(doubted((0..3).chain([9_000, 9_100, 20_000])), Some(hour(20_000)), "once more");
    }

    #[test]
    fn a_clock_that_is_set_back_only_in_part_is_doubted_on() {
        assert_eq!(doubted([0, 9_000, 5_000]), Some(hour(5_000)));
        assert_eq!(doubted([0, 9_000, 8_999]), Some(hour(8_999)));
        assert_eq!(doubted([0, 9_000, 9_100 + 168]), Some(hour(9_268)), "nor is it when it leaps on");
        assert_eq!(doubted([0, 9_000].into_iter().chain(5_000..5_024)), Some(hour(5_000)));
        assert_eq!(doubted([0, 9_000].into_iter().chain(5_000..5_025)), None, "it goes on from there");
        assert_eq!(doubted([0, 9_000, 5_000, 7 * 24]), None, "as it may be after a week off");
    }
}
