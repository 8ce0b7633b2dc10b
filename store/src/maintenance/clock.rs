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
    /// To where it leapt, if it is not believed yet.
    leapt: Option<Timestamp>,
}

impl Clock {
    /// After a run at `now`.
    fn at(known: Option<Self>, now: Timestamp) -> Self {
        let leapt = match known {
            Some(known) if now > known.seen.plus(LEAP) => Some(now),
            // Set back before where it leapt: it was wrong, and is right.
            Some(known) => known.leapt.filter(|leapt| now >= *leapt && now < leapt.plus(DOUBT)),
            None => None,
        };
        Self { seen: now, leapt }
    }
}

/// Notes the time of a run; returns until when nothing is to be deleted.
pub(super) async fn doubted(
    connection: &mut PgConnection,
    now: Timestamp,
) -> Result<Option<Timestamp>, sqlx::Error> {
    type Row = (OffsetDateTime, Option<OffsetDateTime>);
    let mut transaction = connection.begin().await?;
    let known: Option<Row> = sqlx::query_as(
        "SELECT seen, leapt FROM maintenance_clock
         UNION ALL
         SELECT max(started), NULL FROM maintenance_step
         WHERE NOT EXISTS (SELECT FROM maintenance_clock)
         HAVING count(*) > 0",
    )
    .fetch_optional(&mut *transaction)
    .await?;
    let known = known.map(|(seen, leapt)| Clock { seen: seen.into(), leapt: leapt.map(Into::into) });
    let clock = Clock::at(known, now);
    sqlx::query(
        "INSERT INTO maintenance_clock (seen, leapt)
         VALUES ($1, $2)
         ON CONFLICT (single) DO UPDATE
         SET seen = excluded.seen, leapt = excluded.leapt",
    )
    .bind(clock.seen.to_utc())
    .bind(clock.leapt.and_then(Timestamp::to_utc))
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(clock.leapt.map(|leapt| leapt.plus(DOUBT)))
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
        clock.and_then(|clock| clock.leapt)
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
}
