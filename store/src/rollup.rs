//! `telemetry_1m`: what an elevator did in each minute, with the same columns on both editions.
//!
//! On the Community edition it is a continuous aggregate that the server keeps by itself. On the Apache edition
//! it is a table of ours: minutes are rolled up once they are over for [`LAG`], and a writer that stores a
//! reading of an earlier minute notes elevator and hour, which are then rolled up again. A minute so becomes
//! right again whatever comes late.

use std::collections::BTreeSet;
use std::time::Duration;

use domain::Timestamp;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};
use time::OffsetDateTime;

/// A minute is rolled up when it has been over for so long. Longer than [`LATE`] and the longest commit
/// together, so that no reading falls between the two.
pub(crate) const LAG: Duration = Duration::from_mins(5);
/// A reading older than this when it is stored is noted as late.
pub(crate) const LATE: Duration = Duration::from_mins(1);
/// One statement rolls up at most this stretch.
const STRETCH: Duration = Duration::from_hours(1);
/// Late hours rolled up again in one transaction.
const LATE_HOURS_MAX: i64 = 500;

/// Columns of `telemetry_1m` and how they come about.
const SELECT: &str = "
    SELECT time_bucket(INTERVAL '1 minute', time) AS bucket,
           elevator_id,
           count(*) AS readings,
           count(*) FILTER (WHERE car_status = 1) AS running,
           count(*) FILTER (WHERE door_state = 4) AS door_open,
           max(abs(velocity_mm_s)) AS velocity_mm_s_max,
           max(vibration_mm_s2) AS vibration_mm_s2_max,
           max(load_kg) AS load_kg_max,
           max(temperature_dc) AS temperature_dc_max
    FROM telemetry";

/// The continuous aggregate with its policy, and compression of what is older than a week.
pub(crate) async fn aggregate_ensure(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let view = format!(
        "CREATE MATERIALIZED VIEW IF NOT EXISTS telemetry_1m
         WITH (timescaledb.continuous, timescaledb.materialized_only = true)
         AS {SELECT}
         GROUP BY 1, 2
         WITH NO DATA"
    );
    sqlx::raw_sql(AssertSqlSafe(view)).execute(&mut *connection).await?;
    sqlx::raw_sql(
        "SELECT add_continuous_aggregate_policy(
             'telemetry_1m',
             start_offset => NULL,
             end_offset => INTERVAL '5 minutes',
             schedule_interval => INTERVAL '1 minute',
             if_not_exists => true
         )",
    )
    .execute(&mut *connection)
    .await?;
    let compressed: bool = sqlx::query_scalar(
        "SELECT compression_enabled
         FROM timescaledb_information.hypertables
         WHERE hypertable_name = 'telemetry'",
    )
    .fetch_one(&mut *connection)
    .await?;
    if !compressed {
        // arrival_no among the ordered columns gets a minimum and maximum per segment, which recovery needs.
        sqlx::raw_sql(
            "ALTER TABLE telemetry SET (
                 timescaledb.compress,
                 timescaledb.compress_segmentby = 'elevator_id',
                 timescaledb.compress_orderby = 'time, seq, source, arrival_no'
             )",
        )
        .execute(&mut *connection)
        .await?;
    }
    sqlx::raw_sql(
        "SELECT add_compression_policy('telemetry', compress_after => INTERVAL '7 days', if_not_exists => true)",
    )
    .execute(connection)
    .await
    .map(drop)
}

/// Our own table, with how far it goes and what has to be done again.
pub(crate) async fn table_ensure(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(
        "SET client_min_messages = warning;
         BEGIN;
         CREATE TABLE IF NOT EXISTS telemetry_1m (
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
             'telemetry_1m',
             by_range('bucket', INTERVAL '30 days'),
             create_default_indexes => false,
             if_not_exists => true
         );
         CREATE TABLE IF NOT EXISTS rollup_position (
             single  bool PRIMARY KEY DEFAULT true CHECK (single),
             done_to timestamptz NOT NULL
         );
         CREATE TABLE IF NOT EXISTS rollup_late (
             elevator_id int8,
             hour        timestamptz,
             PRIMARY KEY (elevator_id, hour)
         );
         COMMIT",
    )
    .execute(connection)
    .await
    .map(drop)
}

/// The hour a moment lies in.
pub(crate) fn hour_of(time: Timestamp) -> Timestamp {
    const HOUR_US: i64 = 3_600_000_000;
    Timestamp::from_micros(time.micros().div_euclid(HOUR_US) * HOUR_US)
}

/// Notes elevators and hours whose minutes may have been rolled up before these readings were stored.
pub(crate) async fn late_insert(
    connection: &mut PgConnection,
    late: BTreeSet<(i64, Timestamp)>,
) -> Result<(), sqlx::Error> {
    if late.is_empty() {
        return Ok(());
    }
    let (elevators, hours): (Vec<i64>, Vec<Option<OffsetDateTime>>) =
        late.iter().map(|(elevator, hour)| (*elevator, hour.to_utc())).unzip();
    sqlx::query(
        "INSERT INTO rollup_late (elevator_id, hour)
         SELECT elevator_id, hour
         FROM unnest($1::int8[], $2::timestamptz[]) AS late (elevator_id, hour)
         ON CONFLICT DO NOTHING",
    )
    .bind(elevators)
    .bind(hours)
    .execute(connection)
    .await
    .map(drop)
}

/// Rolls up all minutes that are over, then what came late. Returns (stretches of time, late hours) done. One
/// caller at a time: a second one waits for the position's row.
pub(crate) async fn rollup_run(
    connection: &mut PgConnection,
    now: Timestamp,
) -> Result<(u64, u64), sqlx::Error> {
    let target = minute_of(now.minus(LAG));
    let mut stretches = 0;
    while stretch_run(connection, target).await? {
        stretches += 1;
    }
    let mut hours = 0;
    loop {
        let done = late_run(connection).await?;
        hours += done;
        if done < LATE_HOURS_MAX.unsigned_abs() {
            return Ok((stretches, hours));
        }
    }
}

fn minute_of(time: Timestamp) -> Timestamp {
    const MINUTE_US: i64 = 60_000_000;
    Timestamp::from_micros(time.micros().div_euclid(MINUTE_US) * MINUTE_US)
}

/// One stretch towards `target`; false if there is none left.
async fn stretch_run(connection: &mut PgConnection, target: Timestamp) -> Result<bool, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    // The first time, the beginning of what is stored.
    sqlx::query(
        "INSERT INTO rollup_position (done_to)
         SELECT time_bucket(INTERVAL '1 minute', min(time))
         FROM telemetry
         HAVING min(time) IS NOT NULL
         ON CONFLICT DO NOTHING",
    )
    .execute(&mut *transaction)
    .await?;
    let position: Option<OffsetDateTime> =
        sqlx::query_scalar("SELECT done_to FROM rollup_position FOR UPDATE")
            .fetch_optional(&mut *transaction)
            .await?;
    let Some(from) = position.map(Timestamp::from).filter(|from| *from < target) else {
        transaction.commit().await?;
        return Ok(false);
    };
    let to = target.min(from.plus(STRETCH));
    let statement = upsert("WHERE time >= $1 AND time < $2");
    sqlx::query(AssertSqlSafe(statement))
        .bind(from.to_utc())
        .bind(to.to_utc())
        .execute(&mut *transaction)
        .await?;
    sqlx::query("UPDATE rollup_position SET done_to = $1")
        .bind(to.to_utc())
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(true)
}

/// Some of the late hours, as far as the position has passed them; what lies after it is still to come.
async fn late_run(connection: &mut PgConnection) -> Result<u64, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    let late: Vec<(i64, OffsetDateTime)> = sqlx::query_as(
        "DELETE FROM rollup_late
         WHERE (elevator_id, hour) IN (
             SELECT elevator_id, hour
             FROM rollup_late
             ORDER BY hour, elevator_id
             LIMIT $1
         )
         RETURNING elevator_id, hour",
    )
    .bind(LATE_HOURS_MAX)
    .fetch_all(&mut *transaction)
    .await?;
    if late.is_empty() {
        transaction.commit().await?;
        return Ok(0);
    }
    let (elevators, hours): (Vec<i64>, Vec<OffsetDateTime>) = late.iter().copied().unzip();
    let first = hours.iter().min().copied();
    let last = hours.iter().max().map(|hour| *hour + STRETCH);
    let statement = upsert(
        "JOIN unnest($1::int8[], $2::timestamptz[]) AS late (id, hour)
           ON telemetry.elevator_id = late.id
          AND time >= late.hour
          AND time < late.hour + INTERVAL '1 hour'
         WHERE time >= $3
           AND time < LEAST($4, (SELECT done_to FROM rollup_position))",
    );
    sqlx::query(AssertSqlSafe(statement))
        .bind(elevators)
        .bind(hours)
        .bind(first)
        .bind(last)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(late.len() as u64)
}

fn upsert(condition: &str) -> String {
    format!(
        "INSERT INTO telemetry_1m (
             bucket, elevator_id, readings, running, door_open, velocity_mm_s_max, vibration_mm_s2_max,
             load_kg_max, temperature_dc_max
         )
         {SELECT}
         {condition}
         GROUP BY 1, 2
         ON CONFLICT (elevator_id, bucket) DO UPDATE
         SET readings = excluded.readings,
             running = excluded.running,
             door_open = excluded.door_open,
             velocity_mm_s_max = excluded.velocity_mm_s_max,
             vibration_mm_s2_max = excluded.vibration_mm_s2_max,
             load_kg_max = excluded.load_kg_max,
             temperature_dc_max = excluded.temperature_dc_max"
    )
}
