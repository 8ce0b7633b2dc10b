//! The rollups of the Community edition: continuous aggregates, hours made from minutes, and the policies that
//! keep them and the columnstore.
//!
//! A policy refreshes what is younger than the columnstore's horizon, every minute. What came later than that
//! is refreshed by maintenance, a day at a time ([`refresh`]), as a policy may not reach into the columnstore.
//! No refresh reaches below [`refresh_from`]: a refresh makes buckets from the readings that are there, and
//! where retention has deleted some it would erase what they were rolled up to. The older names of the
//! columnstore (`compress`) are used: every TimescaleDB from 2.18 on knows them.

use std::time::Duration;

use domain::Timestamp;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};
use time::OffsetDateTime;

use super::{HOUR_SELECT, LAG, MINUTE_SELECT, Reach};
use crate::StoreConfig;
use crate::error::is_locked;
use crate::maintenance::Budget;
use crate::retention::Kept;

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
/// Added before rounding down, it rounds up.
const ALMOST_HOUR: Duration = Duration::from_micros(3_600_000_000 - 1);
/// The least a policy may look back: its window must hold two buckets.
const LOOK_BACK_MIN: Duration = Duration::from_hours(3);

/// A rollup, how it comes about, and how often its policy runs.
struct Aggregate {
    table: Kept,
    select: &'static str,
    every: Duration,
}

const AGGREGATES: [Aggregate; 2] = [
    Aggregate { table: Kept::Telemetry1m, select: MINUTE_SELECT, every: Duration::from_mins(1) },
    Aggregate { table: Kept::Telemetry1h, select: HOUR_SELECT, every: Duration::from_mins(5) },
];

/// What goes into the columnstore: table, its segments, the order in them. `arrival_no` among the ordered columns
/// gets a minimum and maximum per segment, which recovery needs.
const COLUMNSTORE: [(Kept, &str); 3] = [
    (Kept::Telemetry, "time, seq, source, arrival_no"),
    (Kept::Fault, "time, seq, source, code, arrival_no"),
    (Kept::Statistics, "time, seq, source, arrival_no"),
];

/// The continuous aggregates.
pub(crate) async fn ensure(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    for Aggregate { table, select, .. } in &AGGREGATES {
        let view = format!(
            "CREATE MATERIALIZED VIEW IF NOT EXISTS {}
             WITH (timescaledb.continuous, timescaledb.materialized_only = true)
             AS {select}
             GROUP BY 1, 2
             WITH NO DATA",
            table.name()
        );
        sqlx::raw_sql(AssertSqlSafe(view)).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Refresh and columnstore policies as configured; one whose interval has changed is replaced.
pub(crate) async fn policies_ensure(
    connection: &mut PgConnection,
    config: &StoreConfig,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    for aggregate in &AGGREGATES {
        refresh_policy_ensure(connection, aggregate, config, now).await?;
    }
    for (table, order) in COLUMNSTORE {
        let Some((enabled, current)) = columnstore_state(connection, table).await? else { continue };
        if !enabled {
            let sql = format!(
                "ALTER TABLE {} SET (
                     timescaledb.compress,
                     timescaledb.compress_segmentby = 'elevator_id',
                     timescaledb.compress_orderby = '{order}'
                 )",
                table.name()
            );
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *connection).await?;
        }
        columnstore_policy_ensure(connection, table, config.columnstore_after, current).await?;
    }
    for Aggregate { table, .. } in &AGGREGATES {
        let Some((enabled, current)) = columnstore_state(connection, *table).await? else { continue };
        if !enabled {
            let sql = format!("ALTER MATERIALIZED VIEW {} SET (timescaledb.compress = true)", table.name());
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *connection).await?;
        }
        columnstore_policy_ensure(connection, *table, config.columnstore_after, current).await?;
    }
    Ok(())
}

/// The hypertable that holds an aggregate, by the name under which policies and statistics know it.
const JOB_OF: &str = "
    FROM timescaledb_information.jobs AS job
    WHERE job.hypertable_name IN (
        SELECT $1
        UNION ALL
        SELECT materialization_hypertable_name::text
        FROM timescaledb_information.continuous_aggregates
        WHERE view_name = $1
    )";

async fn refresh_policy_ensure(
    connection: &mut PgConnection,
    aggregate: &Aggregate,
    config: &StoreConfig,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let name = aggregate.table.name();
    let from = refresh_from(connection, aggregate.table, config, now).await?;
    // In whole hours, so that it does not change with every look.
    let since_floor = now.since(from).as_secs() / 3_600 * 3_600;
    let look_back = Duration::from_secs(since_floor).min(config.columnstore_after).max(LOOK_BACK_MIN);
    let lag = LAG;
    let wanted = [look_back.as_secs_f64(), lag.as_secs_f64(), aggregate.every.as_secs_f64()];
    let sql = format!(
        "SELECT (config->>'start_offset')::interval = make_interval(secs => $2)
                AND (config->>'end_offset')::interval = make_interval(secs => $3)
                AND schedule_interval = make_interval(secs => $4)
         {JOB_OF}
         AND job.proc_name = 'policy_refresh_continuous_aggregate'"
    );
    let found: Vec<Option<bool>> = sqlx::query_scalar(AssertSqlSafe(sql))
        .bind(name)
        .bind(wanted[0])
        .bind(wanted[1])
        .bind(wanted[2])
        .fetch_all(&mut *connection)
        .await?;
    if matches!(found[..], [Some(true)]) {
        return Ok(());
    }
    let mut transaction = connection.begin().await?;
    if !found.is_empty() {
        sqlx::query("SELECT remove_continuous_aggregate_policy($1::regclass, if_exists => true)")
            .bind(name)
            .execute(&mut *transaction)
            .await?;
    }
    // The columnstore policy has to stay behind the refresh: the two are compared when either is made.
    if !found.is_empty() {
        sqlx::query("SELECT remove_compression_policy($1::regclass, if_exists => true)")
            .bind(name)
            .execute(&mut *transaction)
            .await?;
    }
    sqlx::query(
        "SELECT add_continuous_aggregate_policy(
             $1::regclass,
             start_offset => make_interval(secs => $2),
             end_offset => make_interval(secs => $3),
             schedule_interval => make_interval(secs => $4)
         )",
    )
    .bind(name)
    .bind(wanted[0])
    .bind(wanted[1])
    .bind(wanted[2])
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await
}

/// Whether the columnstore is on for a table, and after how many seconds its policy moves chunks there. Nothing
/// if there is no such table.
async fn columnstore_state(
    connection: &mut PgConnection,
    table: Kept,
) -> Result<Option<(bool, Option<f64>)>, sqlx::Error> {
    let sql = format!(
        "SELECT compression_enabled,
                (SELECT extract(epoch FROM (config->>'compress_after')::interval)::float8
                 {JOB_OF}
                 AND job.proc_name IN ('policy_compression', 'policy_columnstore')
                 LIMIT 1)
         FROM (
             SELECT hypertable_name AS name, compression_enabled
             FROM timescaledb_information.hypertables
             UNION ALL
             SELECT view_name, compression_enabled
             FROM timescaledb_information.continuous_aggregates
         ) AS known
         WHERE name = $1"
    );
    sqlx::query_as(AssertSqlSafe(sql)).bind(table.name()).fetch_optional(connection).await
}

async fn columnstore_policy_ensure(
    connection: &mut PgConnection,
    table: Kept,
    after: Duration,
    current: Option<f64>,
) -> Result<(), sqlx::Error> {
    if current == Some(after.as_secs_f64()) {
        return Ok(());
    }
    let mut transaction = connection.begin().await?;
    sqlx::query("SELECT remove_compression_policy($1::regclass, if_exists => true)")
        .bind(table.name())
        .execute(&mut *transaction)
        .await?;
    sqlx::query("SELECT add_compression_policy($1::regclass, compress_after => make_interval(secs => $2))")
        .bind(table.name())
        .bind(after.as_secs_f64())
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await
}

/// Nothing before it may be refreshed: readings (for hours: minutes) may be gone there, or go while it runs.
async fn refresh_from(
    connection: &mut PgConnection,
    table: Kept,
    config: &StoreConfig,
    now: Timestamp,
) -> Result<Timestamp, sqlx::Error> {
    let source = if table == Kept::Telemetry1h { Kept::Telemetry1m } else { Kept::Telemetry };
    let gone: Option<OffsetDateTime> = sqlx::query_scalar(
        "SELECT max(floor)
         FROM retention_mark
         WHERE table_name IN ('telemetry', $1)
           AND floor > '-infinity'",
    )
    .bind(source.name())
    .fetch_one(connection)
    .await?;
    let spans = config.retention.shortest(Kept::Telemetry).min(config.retention.longest(source));
    let kept = now.minus(spans).plus(HOUR);
    Ok(gone.map_or(kept, |gone| kept.max(gone.into())))
}

/// Refreshes what came later than the policies look back, a day at a time, the newest first. Returns the windows
/// looked at, and whether some are left.
pub(crate) async fn refresh(
    connection: &mut PgConnection,
    config: &StoreConfig,
    now: Timestamp,
    budget: &Budget,
) -> Result<(u64, bool), sqlx::Error> {
    let mut windows = 0;
    for aggregate in &AGGREGATES {
        let name = aggregate.table.name();
        let from = refresh_from(connection, aggregate.table, config, now).await?;
        let oldest: Option<OffsetDateTime> = sqlx::query_scalar(
            "SELECT min(range_start)
             FROM timescaledb_information.chunks
             WHERE hypertable_name = 'telemetry'
               AND hypertable_schema = current_schema()",
        )
        .fetch_one(&mut *connection)
        .await?;
        let Some(oldest) = oldest else { return Ok((windows, false)) };
        // Whole hours only: up to the next one, where it begins within one.
        let from = super::hour_of(from.max(oldest.into()).plus(ALMOST_HOUR));
        // It may overlap the policies' part: refreshing what is fresh is quick.
        let mut to = super::hour_of(now.minus(config.columnstore_after)).plus(2 * HOUR);
        while from < to {
            if budget.spent() {
                return Ok((windows, true));
            }
            let begin = from.max(to.minus(DAY));
            let sql = format!("CALL refresh_continuous_aggregate('{name}', '{begin}', '{to}')");
            match sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *connection).await {
                Ok(_) => windows += 1,
                // A policy is at this very window; TimescaleDB 2.29 refuses then, earlier versions wait.
                Err(error) if is_locked(&error) => return Ok((windows, true)),
                Err(error) => return Err(error),
            }
            to = begin;
        }
    }
    Ok((windows, false))
}

/// How far the aggregates go: to where the last refresh that went well looked, or the newest bucket, if that is
/// later. Where maintenance has not looked through all older readings, nothing counts as settled.
pub(crate) async fn reach(connection: &mut PgConnection) -> Result<Reach, sqlx::Error> {
    let rows: Vec<(String, Option<OffsetDateTime>)> = sqlx::query_as(
        "SELECT view_name::text,
                greatest(
                    nullif(_timescaledb_functions.to_timestamp(
                               _timescaledb_functions.cagg_watermark(hypertable.id)), '-infinity'),
                    (SELECT max(run.last_run_started_at) - make_interval(secs => $1)
                     FROM timescaledb_information.jobs AS job
                     JOIN timescaledb_information.job_stats AS run USING (job_id)
                     WHERE job.proc_name = 'policy_refresh_continuous_aggregate'
                       AND job.hypertable_name IN (aggregate.view_name, hypertable.table_name)
                       AND run.last_run_status = 'Success')
                )
         FROM timescaledb_information.continuous_aggregates AS aggregate
         JOIN _timescaledb_catalog.hypertable
           ON hypertable.schema_name = aggregate.materialization_hypertable_schema
          AND hypertable.table_name = aggregate.materialization_hypertable_name
         WHERE view_name IN ('telemetry_1m', 'telemetry_1h')
           AND view_schema = current_schema()",
    )
    .bind(LAG.as_secs_f64())
    .fetch_all(&mut *connection)
    .await?;
    // Before the first refresh the watermark is the calendar's beginning.
    let known = |wanted: Kept| {
        let row = rows.iter().find(|(name, _)| name == wanted.name());
        row.and_then(|(_, at)| *at).map(Timestamp::from).filter(|at| at.micros() > 0)
    };
    // In a schema of an earlier version nobody has looked.
    let noted: bool = sqlx::query_scalar("SELECT to_regclass('maintenance_step') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await?;
    let looked_through: bool = noted
        && sqlx::query_scalar(
            "SELECT EXISTS (
                 SELECT
                 FROM maintenance_step
                 WHERE step = 'refresh' AND error IS NULL AND due > started
             )",
        )
        .fetch_one(connection)
        .await?;
    Ok(Reach {
        minutes_to: known(Kept::Telemetry1m),
        hours_to: known(Kept::Telemetry1h),
        late_waiting: 0,
        late_oldest: (!looked_through).then(Timestamp::default),
    })
}
