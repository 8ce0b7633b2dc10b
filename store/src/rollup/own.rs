//! The rollups of the Apache edition: tables of ours, and the work that keeps them.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::Timestamp;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};
use time::OffsetDateTime;

use super::{HOUR_SELECT, LAG, MINUTE_SELECT, Reach, hour_of, minute_of};
use crate::maintenance::Budget;

/// One statement rolls up at most this stretch.
const STRETCH: Duration = Duration::from_hours(1);
/// Late hours rolled up again in one transaction.
const LATE_HOURS_MAX: i64 = 500;

/// The tables, with how far they go and what has to be done again.
pub(crate) async fn ensure(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let table = |name: &str, interval: &str| {
        format!(
            "CREATE TABLE IF NOT EXISTS {name} (
                 bucket              timestamptz NOT NULL,
                 elevator_id         int8 NOT NULL,
                 readings            int8 NOT NULL,
                 running             int8 NOT NULL,
                 door_open           int8 NOT NULL,
                 velocity_mm_s_max   int4,
                 vibration_mm_s2_max int4,
                 load_kg_max         int2,
                 temperature_dc_max  int2,
                 PRIMARY KEY (elevator_id, bucket)
             );
             SELECT create_hypertable(
                 '{name}',
                 by_range('bucket', INTERVAL '{interval}'),
                 create_default_indexes => false,
                 if_not_exists => true
             );"
        )
    };
    let sql = format!(
        "SET client_min_messages = warning;
         BEGIN;
         {}
         {}
         CREATE TABLE IF NOT EXISTS rollup_position (
             single  bool PRIMARY KEY DEFAULT true CHECK (single),
             done_to timestamptz NOT NULL
         );
         ALTER TABLE rollup_position ADD COLUMN IF NOT EXISTS hours_to timestamptz;
         CREATE TABLE IF NOT EXISTS rollup_late (
             elevator_id int8,
             hour        timestamptz,
             PRIMARY KEY (elevator_id, hour)
         );
         CREATE INDEX IF NOT EXISTS rollup_late_hour ON rollup_late (hour, elevator_id);
         CREATE TABLE IF NOT EXISTS rollup_late_taken (
             elevator_id int8,
             hour        timestamptz,
             PRIMARY KEY (elevator_id, hour)
         );
         CREATE INDEX IF NOT EXISTS telemetry_1m_brin ON telemetry_1m USING brin (bucket) WITH (autosummarize = on);
         COMMIT",
        table("telemetry_1m", "30 days"),
        table("telemetry_1h", "365 days"),
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.map(drop)
}

/// What one run has done.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Done {
    /// Stretches of minutes.
    pub(crate) stretches: u64,
    /// Hours.
    pub(crate) hours: u64,
    /// Late (elevator, hour) pairs.
    pub(crate) late_hours: u64,
    /// The budget ended it.
    pub(crate) more: bool,
}

/// Rolls up all minutes and hours that are over, then what came late. One caller at a time.
pub(crate) async fn run(
    connection: &mut PgConnection,
    now: Timestamp,
    budget: &Budget,
) -> Result<Done, sqlx::Error> {
    let target = minute_of(now.minus(LAG));
    let mut done = Done::default();
    while stretch_run(connection, target).await? {
        done.stretches += 1;
        if budget.spent() {
            return Ok(Done { more: true, ..done });
        }
    }
    while hour_run(connection).await? {
        done.hours += 1;
        if budget.spent() {
            return Ok(Done { more: true, ..done });
        }
    }
    loop {
        let hours = late_run(connection).await?;
        done.late_hours += hours;
        if hours < LATE_HOURS_MAX.unsigned_abs() {
            return Ok(done);
        }
        if budget.spent() {
            return Ok(Done { more: true, ..done });
        }
    }
}

/// How far the tables go.
pub(crate) async fn reach(connection: &mut PgConnection) -> Result<Reach, sqlx::Error> {
    type Row = (Option<OffsetDateTime>, Option<OffsetDateTime>, i64, Option<OffsetDateTime>);
    let (minutes, hours, late_waiting, oldest): Row = sqlx::query_as(
        "SELECT (SELECT done_to FROM rollup_position),
                (SELECT hours_to FROM rollup_position),
                (SELECT count(*) FROM rollup_late) + (SELECT count(*) FROM rollup_late_taken),
                least((SELECT min(hour) FROM rollup_late), (SELECT min(hour) FROM rollup_late_taken))",
    )
    .fetch_one(connection)
    .await?;
    Ok(Reach {
        minutes_to: minutes.map(Into::into),
        hours_to: hours.map(Into::into),
        late_waiting,
        late_oldest: oldest.map(Into::into),
    })
}

/// The beginning of the first chunk of `table` that ends after `after`, or `after` if it lies inside one.
async fn data_from(
    connection: &mut PgConnection,
    table: &str,
    after: Option<Timestamp>,
) -> Result<Option<Timestamp>, sqlx::Error> {
    let from: Option<OffsetDateTime> = sqlx::query_scalar(
        "SELECT greatest(min(range_start), $2)
         FROM timescaledb_information.chunks
         WHERE hypertable_name = $1
           AND hypertable_schema = current_schema()
           AND ($2 IS NULL OR range_end > $2)
         HAVING count(*) > 0",
    )
    .bind(table)
    .bind(after.and_then(Timestamp::to_utc))
    .fetch_optional(connection)
    .await?;
    Ok(from.map(Into::into))
}

/// One stretch towards `target`; false if there is none left.
async fn stretch_run(connection: &mut PgConnection, target: Timestamp) -> Result<bool, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    let position: Option<OffsetDateTime> =
        sqlx::query_scalar("SELECT done_to FROM rollup_position FOR UPDATE")
            .fetch_optional(&mut *transaction)
            .await?;
    let position = position.map(Timestamp::from);
    if position.is_some_and(|position| position > target) {
        // The clock was ahead. What came since was not noted as late: it is rolled up again.
        // Hours that were never made stay so: `least` would take them for made.
        sqlx::query(
            "UPDATE rollup_position
             SET done_to = $1, hours_to = CASE WHEN hours_to > $2 THEN $2 ELSE hours_to END",
        )
        .bind(target.to_utc())
        .bind(hour_of(target).to_utc())
        .execute(&mut *transaction)
        .await?;
    }
    if position.is_some_and(|position| position >= target) {
        transaction.commit().await?;
        return Ok(false);
    }
    // The first time, the beginning of what is stored; later, over stretches where nothing is. What is stored
    // there from now on is noted as late.
    let from = match data_from(&mut transaction, "telemetry", position).await? {
        Some(from) => from.min(target),
        None if position.is_none() => {
            transaction.commit().await?;
            return Ok(false);
        }
        None => target,
    };
    let to = target.min(hour_of(from).plus(STRETCH));
    if from < to {
        let statement = upsert("telemetry_1m", MINUTE_SELECT, "WHERE time >= $1 AND time < $2");
        sqlx::query(AssertSqlSafe(statement))
            .bind(from.to_utc())
            .bind(to.to_utc())
            .execute(&mut *transaction)
            .await?;
    }
    sqlx::query(
        "INSERT INTO rollup_position (done_to)
         VALUES ($1)
         ON CONFLICT (single) DO UPDATE
         SET done_to = excluded.done_to",
    )
    .bind(to.to_utc())
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(from < to)
}

/// One hour whose minutes are all done; false if there is none left.
async fn hour_run(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    let position: Option<(OffsetDateTime, Option<OffsetDateTime>)> =
        sqlx::query_as("SELECT done_to, hours_to FROM rollup_position FOR UPDATE")
            .fetch_optional(&mut *transaction)
            .await?;
    let Some((minutes_to, hours_to)) = position else {
        transaction.commit().await?;
        return Ok(false);
    };
    let target = hour_of(minutes_to.into());
    let hours_to = hours_to.map(Timestamp::from);
    if hours_to.is_some_and(|hours_to| hours_to >= target) {
        transaction.commit().await?;
        return Ok(false);
    }
    let from = if let Some(from) = hours_to {
        from
    } else {
        // The first time, all there is, also where minutes were kept by an earlier version.
        let oldest: Option<OffsetDateTime> =
            sqlx::query_scalar("SELECT min(bucket) FROM telemetry_1m").fetch_one(&mut *transaction).await?;
        oldest.map_or(target, |oldest| hour_of(oldest.into()).min(target))
    };
    // Over long stretches without anything.
    let from = match data_from(&mut transaction, "telemetry_1m", Some(from)).await? {
        Some(from) => hour_of(from).min(target),
        None => target,
    };
    let to = target.min(from.plus(STRETCH));
    if from < to {
        let statement = upsert("telemetry_1h", HOUR_SELECT, "WHERE bucket >= $1 AND bucket < $2");
        sqlx::query(AssertSqlSafe(statement))
            .bind(from.to_utc())
            .bind(to.to_utc())
            .execute(&mut *transaction)
            .await?;
    }
    sqlx::query("UPDATE rollup_position SET hours_to = $1")
        .bind(to.to_utc())
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(from < to)
}

/// Some of the late hours, as far as the position has passed them; what lies after it is still to come.
async fn late_run(connection: &mut PgConnection) -> Result<u64, sqlx::Error> {
    let position: Option<(OffsetDateTime, Option<OffsetDateTime>)> =
        sqlx::query_as("SELECT done_to, hours_to FROM rollup_position")
            .fetch_optional(&mut *connection)
            .await?;
    // Without a position nothing is rolled up, so nothing is late: the first stretch takes it.
    let minutes_to = position.map(|(minutes, _)| Timestamp::from(minutes));
    let hours_to = position.and_then(|(_, hours)| hours).map(Timestamp::from);
    let (Some(minutes_to), Some(hours_to)) = (minutes_to, hours_to) else {
        return Ok(0);
    };
    late_take(connection).await?;
    let mut transaction = connection.begin().await?;
    let taken: Vec<(i64, OffsetDateTime, bool)> = sqlx::query_as(
        "SELECT elevator_id,
                hour,
                EXISTS (
                    SELECT
                    FROM retention_mark AS mark
                    WHERE mark.table_name = 'telemetry'
                      AND mark.floor > taken.hour
                      AND (mark.area = -1 OR mark.area = elevator.area)
                ) OR coalesce(elevator.kept_since > taken.hour, false) AS gone
         FROM rollup_late_taken AS taken
         LEFT JOIN elevator USING (elevator_id)",
    )
    .fetch_all(&mut *transaction)
    .await?;
    // Of hours whose readings may be gone nothing is made again.
    let mut hours: BTreeMap<Timestamp, Vec<i64>> = BTreeMap::new();
    for (elevator, hour, _) in taken.iter().filter(|(_, _, gone)| !gone) {
        hours.entry(Timestamp::from(*hour)).or_default().push(*elevator);
    }
    let minutes =
        upsert("telemetry_1m", MINUTE_SELECT, "WHERE elevator_id = ANY ($1) AND time >= $2 AND time < $3");
    let whole =
        upsert("telemetry_1h", HOUR_SELECT, "WHERE elevator_id = ANY ($1) AND bucket >= $2 AND bucket < $3");
    for (hour, elevators) in hours {
        let end = hour.plus(STRETCH);
        let statements = [(&minutes, end.min(minutes_to)), (&whole, end.min(hours_to))];
        for (statement, to) in statements.into_iter().filter(|(_, to)| *to > hour) {
            sqlx::query(AssertSqlSafe(statement.as_str()))
                .bind(&elevators)
                .bind(hour.to_utc())
                .bind(to.to_utc())
                .execute(&mut *transaction)
                .await?;
        }
    }
    sqlx::query("DELETE FROM rollup_late_taken").execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(taken.len() as u64)
}

/// Notes the late readings that arrived after `mark`: a writer that was killed between its rows and its note left
/// rows without one. In the order in which writers note, so that neither waits for the other in a circle.
pub(crate) async fn late_find(connection: &mut PgConnection, mark: i64) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO rollup_late (elevator_id, hour)
         SELECT DISTINCT elevator_id, time_bucket(INTERVAL '1 hour', time)
         FROM telemetry
         WHERE arrival_no > $1
           AND time < (SELECT done_to FROM rollup_position)
         ORDER BY 1, 2
         ON CONFLICT DO NOTHING",
    )
    .bind(mark)
    .execute(connection)
    .await
    .map(drop)
}

/// Takes the oldest notes, in a statement of its own: a writer that notes one of them again waits for nobody who
/// makes hours. What an earlier run has taken and not done comes first.
async fn late_take(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query(
        "WITH taken AS (
             DELETE FROM rollup_late
             WHERE NOT EXISTS (SELECT FROM rollup_late_taken)
               AND (elevator_id, hour) IN (
                   SELECT elevator_id, hour
                   FROM rollup_late
                   ORDER BY hour, elevator_id
                   LIMIT $1
               )
             RETURNING elevator_id, hour
         )
         INSERT INTO rollup_late_taken (elevator_id, hour)
         TABLE taken",
    )
    .bind(LATE_HOURS_MAX)
    .execute(connection)
    .await
    .map(drop)
}

/// Readings are only added, but for retention: fewer than before means that some were let go, and what is left
/// of them says less than what is there.
fn upsert(table: &str, select: &str, condition: &str) -> String {
    format!(
        "INSERT INTO {table} (
             bucket, elevator_id, readings, running, door_open, velocity_mm_s_max, vibration_mm_s2_max,
             load_kg_max, temperature_dc_max
         )
         {select}
         {condition}
         GROUP BY 1, 2
         ON CONFLICT (elevator_id, bucket) DO UPDATE
         SET readings = excluded.readings,
             running = excluded.running,
             door_open = excluded.door_open,
             velocity_mm_s_max = excluded.velocity_mm_s_max,
             vibration_mm_s2_max = excluded.vibration_mm_s2_max,
             load_kg_max = excluded.load_kg_max,
             temperature_dc_max = excluded.temperature_dc_max
         WHERE {table}.readings <= excluded.readings"
    )
}
