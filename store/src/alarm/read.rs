//! Reading alarms and their stream.

use domain::{Alarm, AlarmEvent, AlarmId, Area, ElevatorId, Severity, Timestamp};
use sqlx::Connection;
use time::OffsetDateTime;

use super::alarm_is_open;
use super::evidence::{self, Evidence};
use super::rows::{self, AlarmRow, EventRow, alarm_columns};
use crate::{Database, StoreError};

/// Events of the stream that retention deletes in one transaction.
pub(crate) const RETIRE_MAX: i64 = 5_000;

/// Where the stream of alarm events begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamPosition {
    /// The last number given.
    pub head: i64,
    /// Events up to this number are no longer kept.
    pub retired: i64,
}

/// Which alarms.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AlarmFilter {
    /// Regions; each covers its own. Empty: all.
    pub areas: Vec<Area>,
    /// The least grave severity.
    pub severity_min: Option<Severity>,
    /// Only those whose condition lasts and whose case is not ended.
    pub open_only: bool,
    /// One elevator's.
    pub elevator_id: Option<ElevatorId>,
}

impl AlarmFilter {
    /// Whether it lets an alarm of this place and severity through, open or not.
    pub fn covers(&self, area: Area, severity: Severity) -> bool {
        let area_fits = self.areas.is_empty() || self.areas.iter().any(|region| region.covers(area));
        area_fits && self.severity_min.is_none_or(|least| severity <= least)
    }

    /// The first and last division of each region.
    fn bounds(&self) -> (Vec<i32>, Vec<i32>) {
        let bounds = |region: &Area| {
            let covered = region.covered();
            (*covered.start() as i32, *covered.end() as i32)
        };
        self.areas.iter().map(bounds).unzip()
    }

    fn severity_bound(&self) -> i16 {
        self.severity_min.unwrap_or(Severity::S4).number()
    }
}

/// A place in the list of alarms, newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AlarmCursor {
    /// When the alarm there was raised.
    pub raised: Timestamp,
    /// Which it is.
    pub id: AlarmId,
}

/// All that is kept about one alarm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlarmRecord {
    /// As it is now.
    pub alarm: Alarm,
    /// What happened to it, oldest first; as far as it is kept.
    pub events: Vec<AlarmEvent>,
    /// Once sealed.
    pub evidence: Option<Evidence>,
}

/// Events of one alarm that [`Database::alarm_get`] answers.
const RECORD_EVENTS_MAX: i64 = 1_000;

impl Database {
    /// Where the stream begins and ends.
    pub async fn alarm_stream_position(&self) -> Result<StreamPosition, StoreError> {
        let (head, retired) =
            sqlx::query_as("SELECT n, retired FROM alarm_stream").fetch_one(self.pool()).await?;
        Ok(StreamPosition { head, retired })
    }

    /// At most `limit` events right after number `no`, in order. A first event other than `no + 1` means that
    /// those between are no longer kept.
    pub async fn alarm_events_after(&self, no: i64, limit: u32) -> Result<Vec<AlarmEvent>, StoreError> {
        let found: Vec<EventRow> = sqlx::query_as(
            "SELECT no, at, change, alarm
            FROM alarm_event
            WHERE no > $1
            ORDER BY no
            LIMIT $2",
        )
        .bind(no)
        .bind(i64::from(limit))
        .fetch_all(self.pool())
        .await?;
        rows::events(found)
    }

    /// The open alarms that fit, gravest and oldest first, and the number of the stream at which this is
    /// what was open: everything after that number is not in it yet, everything up to it is.
    pub async fn alarm_open_snapshot(&self, filter: &AlarmFilter) -> Result<(i64, Vec<Alarm>), StoreError> {
        let mut connection = self.pool().acquire().await?;
        let mut transaction =
            connection.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        let no: i64 = sqlx::query_scalar("SELECT n FROM alarm_stream").fetch_one(&mut *transaction).await?;
        let (first, last) = filter.bounds();
        let open: Vec<AlarmRow> = sqlx::query_as(concat!(
            "SELECT ",
            alarm_columns!(),
            " FROM alarm
            WHERE ",
            alarm_is_open!(),
            " AND severity <= $1
                AND (cardinality($2::integer[]) = 0 OR EXISTS (
                    SELECT FROM unnest($2, $3::integer[]) AS region (first, last)
                    WHERE area BETWEEN first AND last))
            ORDER BY severity, raised, id",
        ))
        .bind(filter.severity_bound())
        .bind(first)
        .bind(last)
        .fetch_all(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok((no, rows::alarms(open)?))
    }

    /// The latest event of each open alarm of severity S1 that nobody has acknowledged, at most `limit`,
    /// newest first.
    pub async fn alarm_unacknowledged(&self, limit: u32) -> Result<Vec<AlarmEvent>, StoreError> {
        let found: Vec<EventRow> = sqlx::query_as(concat!(
            "SELECT event.no, event.at, event.change, event.alarm
            FROM alarm
            JOIN alarm_event AS event ON event.no = alarm.no
            WHERE ",
            alarm_is_open!(),
            " AND alarm.severity = 1 AND alarm.acknowledged IS NULL
            ORDER BY alarm.raised DESC
            LIMIT $1",
        ))
        .bind(i64::from(limit))
        .fetch_all(self.pool())
        .await?;
        rows::events(found)
    }

    /// At most `limit` alarms that fit, newest first, after a place in that order.
    pub async fn alarm_list(
        &self,
        filter: &AlarmFilter,
        after: Option<AlarmCursor>,
        limit: u32,
    ) -> Result<Vec<Alarm>, StoreError> {
        let (first, last) = filter.bounds();
        let found: Vec<AlarmRow> = sqlx::query_as(concat!(
            "SELECT ",
            alarm_columns!(),
            " FROM alarm
            WHERE severity <= $1
                AND (cardinality($2::integer[]) = 0 OR EXISTS (
                    SELECT FROM unnest($2, $3::integer[]) AS region (first, last)
                    WHERE area BETWEEN first AND last))
                AND ($4::bigint IS NULL OR elevator_id = $4)
                AND (NOT $5 OR (",
            alarm_is_open!(),
            "))
                AND ($6::timestamptz IS NULL OR (raised, id) < ($6, $7::uuid))
            ORDER BY raised DESC, id DESC
            LIMIT $8",
        ))
        .bind(filter.severity_bound())
        .bind(first)
        .bind(last)
        .bind(filter.elevator_id.map(|id| id.0))
        .bind(filter.open_only)
        .bind(after.and_then(|after| after.raised.to_utc()))
        .bind(after.map(|after| after.id.0))
        .bind(i64::from(limit))
        .fetch_all(self.pool())
        .await?;
        rows::alarms(found)
    }

    /// Everything kept about one alarm.
    pub async fn alarm_get(&self, id: AlarmId) -> Result<Option<AlarmRecord>, StoreError> {
        let mut connection = self.pool().acquire().await?;
        let found: Option<AlarmRow> =
            sqlx::query_as(concat!("SELECT ", alarm_columns!(), " FROM alarm WHERE id = $1"))
                .bind(id.0)
                .fetch_optional(&mut *connection)
                .await?;
        let Some(row) = found else { return Ok(None) };
        let events: Vec<EventRow> = sqlx::query_as(
            "SELECT no, at, change, alarm
            FROM alarm_event
            WHERE alarm_id = $1
            ORDER BY no
            LIMIT $2",
        )
        .bind(id.0)
        .bind(RECORD_EVENTS_MAX)
        .fetch_all(&mut *connection)
        .await?;
        let evidence = evidence::get(&mut connection, id).await?;
        Ok(Some(AlarmRecord { alarm: row.try_into()?, events: rows::events(events)?, evidence }))
    }

    /// Deletes events of alarms decided before `before`, save those of open alarms and what follows them, at most
    /// 5,000 in one call, and answers how many. The stream then begins later.
    pub async fn alarm_event_retire(&self, before: OffsetDateTime) -> Result<u64, StoreError> {
        let mut connection = self.pool().acquire().await?;
        // Numbers are in the order of commits, which is nearly that of time: the first tells whether any is due.
        let due: Option<bool> = sqlx::query_scalar("SELECT at < $1 FROM alarm_event ORDER BY no LIMIT 1")
            .bind(before)
            .fetch_optional(&mut *connection)
            .await?;
        if due != Some(true) {
            return Ok(0);
        }
        let mut transaction = connection.begin().await?;
        sqlx::query("SET LOCAL liftwatch.retention = 'on'").execute(&mut *transaction).await?;
        // A prefix of the stream, so that what is kept stays gapless.
        let last: Option<i64> = sqlx::query_scalar(concat!(
            "SELECT least(
                (SELECT retired + $2 FROM alarm_stream),
                coalesce(
                    (SELECT no - 1
                     FROM alarm_event
                     WHERE at >= $1
                       AND no <= (SELECT retired + $2 FROM alarm_stream)
                     ORDER BY no
                     LIMIT 1),
                    (SELECT max(no) FROM alarm_event)
                ),
                (SELECT min(event.no) - 1
                 FROM alarm JOIN alarm_event AS event ON event.alarm_id = alarm.id
                 WHERE ",
            alarm_is_open!(),
            "))",
        ))
        .bind(before)
        .bind(RETIRE_MAX)
        .fetch_one(&mut *transaction)
        .await?;
        let Some(last) = last else { return Ok(0) };
        let deleted = sqlx::query("DELETE FROM alarm_event WHERE no <= $1")
            .bind(last)
            .execute(&mut *transaction)
            .await?
            .rows_affected();
        sqlx::query("UPDATE alarm_stream SET retired = greatest(retired, $1)")
            .bind(last)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(deleted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_takes_the_graver() {
        let area = "350102".parse().unwrap();
        let filter = AlarmFilter {
            areas: vec!["350100".parse().unwrap()],
            severity_min: Some(Severity::S2),
            ..AlarmFilter::default()
        };
        assert!(filter.covers(area, Severity::S1));
        assert!(filter.covers(area, Severity::S2));
        assert!(!filter.covers(area, Severity::S3));
        assert!(!filter.covers("350202".parse().unwrap(), Severity::S1));
        assert!(AlarmFilter::default().covers(area, Severity::S4));
    }
}
