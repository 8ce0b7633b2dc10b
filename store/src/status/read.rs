//! Reads what `status` tells of tables, rollups, retention and jobs.

use domain::Timestamp;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, FromRow};
use time::OffsetDateTime;

use super::{JobStatus, RetentionStatus, RollupStatus, StepStatus, StoreStatus, TableStatus, server};
use crate::maintenance::{HYPERTABLE_OF, clock};
use crate::retention::Kept;
use crate::{Edition, StoreConfig, StoreError, rollup, schema};

/// Tables that grow with time and are not under retention.
const ALSO: [&str; 8] = [
    "elevator_state",
    "alarm",
    "audit",
    "source",
    "sequence_gap",
    "sequence_ledger",
    "presence",
    "rollup_late",
];

/// Everything but the warnings.
pub(super) async fn status(
    connection: &mut PgConnection,
    edition: Edition,
    config: &StoreConfig,
) -> Result<StoreStatus, StoreError> {
    let (at, postgresql, timescaledb): (OffsetDateTime, String, String) = sqlx::query_as(
        "SELECT now(),
                current_setting('server_version'),
                (SELECT extversion FROM pg_extension WHERE extname = 'timescaledb')",
    )
    .fetch_one(&mut *connection)
    .await?;
    let at = Timestamp::from(at);
    let schema = schema::status(connection).await?;
    let mut tables = Vec::new();
    for name in Kept::ALL.iter().map(|table| table.name()).chain(ALSO) {
        tables.extend(table(connection, edition, name).await?);
    }
    let has = |name: &str| tables.iter().any(|table: &TableStatus| table.name == name);
    let rollups =
        if has("telemetry_1m") { rollups(connection, edition, at).await? } else { RollupStatus::default() };
    let kept_well = schema.applied.is_some() && exists(connection, "retention_mark").await?;
    let mut retention = Vec::new();
    for table in Kept::ALL.into_iter().filter(|table| has(table.name())) {
        retention.push(retained(connection, config, table, at, kept_well).await?);
    }
    let maintenance = if kept_well { steps(connection).await? } else { Vec::new() };
    let clock_known = exists(connection, "maintenance_clock").await?;
    let deleting_from = if clock_known { clock::doubted_until(connection).await? } else { None };
    let jobs = if edition == Edition::Community { jobs(connection).await? } else { Vec::new() };
    Ok(StoreStatus {
        at,
        edition: edition.name(),
        postgresql,
        timescaledb,
        schema,
        tables,
        rollups,
        retention,
        maintenance,
        deleting_from,
        jobs,
        server: server::server(connection).await?,
        warnings: Vec::new(),
    })
}

async fn exists(connection: &mut PgConnection, table: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL").bind(table).fetch_one(connection).await
}

#[derive(FromRow, Default)]
struct Sizes {
    heap: Option<i64>,
    index: Option<i64>,
    toast: Option<i64>,
    total: Option<i64>,
}

#[derive(FromRow)]
struct Chunks {
    chunks: i64,
    oldest: Option<OffsetDateTime>,
    newest: Option<OffsetDateTime>,
    active_rows: Option<i64>,
    active_s: Option<i64>,
    dead: Option<i64>,
    rows: Option<i64>,
    interval_s: Option<i64>,
}

async fn table(
    connection: &mut PgConnection,
    edition: Edition,
    name: &str,
) -> Result<Option<TableStatus>, sqlx::Error> {
    if !exists(connection, name).await? {
        return Ok(None);
    }
    let sql = format!("SELECT ({HYPERTABLE_OF})::text");
    let hypertable: String =
        sqlx::query_scalar(AssertSqlSafe(sql)).bind(name).fetch_one(&mut *connection).await?;
    // Of the newest chunks the densest: the very newest is not full yet, or holds a few readings of a clock that is
    // ahead. What statistics say of a chunk in the columnstore is of before it went there.
    let chunks: Chunks = sqlx::query_as(
        "WITH chunk AS (
             SELECT range_start, range_end,
                    statistics.n_live_tup * (NOT is_compressed)::int AS live,
                    statistics.n_dead_tup * (NOT is_compressed)::int AS dead,
                    extract(epoch FROM range_end - range_start)::int8 AS span_s,
                    row_number() OVER (ORDER BY range_start DESC) AS from_newest
             FROM timescaledb_information.chunks
             LEFT JOIN pg_stat_all_tables AS statistics
                    ON statistics.schemaname = chunk_schema AND statistics.relname = chunk_name
             WHERE hypertable_name = $1
               AND hypertable_schema IN (current_schema(), '_timescaledb_internal')
         ), active AS (
             SELECT live, span_s
             FROM chunk
             WHERE from_newest <= 3
             ORDER BY live::float8 / span_s DESC NULLS LAST
             LIMIT 1
         )
         SELECT count(*) AS chunks,
                min(range_start) AS oldest,
                max(range_end) AS newest,
                (SELECT live FROM active) AS active_rows,
                (SELECT span_s FROM active) AS active_s,
                sum(dead)::int8 AS dead,
                sum(live)::int8 AS rows,
                (SELECT extract(epoch FROM time_interval)::int8
                 FROM timescaledb_information.dimensions
                 WHERE hypertable_name = $1
                   AND hypertable_schema IN (current_schema(), '_timescaledb_internal')
                   AND dimension_number = 1) AS interval_s
         FROM chunk",
    )
    .bind(&hypertable)
    .fetch_one(&mut *connection)
    .await?;
    let mut status = TableStatus { name: name.to_owned(), ..TableStatus::default() };
    let in_chunks = chunks.interval_s.is_some();
    if in_chunks {
        status.chunks = Some(chunks.chunks);
        status.chunk_interval_s = chunks.interval_s;
        status.oldest = chunks.oldest.map(Into::into);
        status.newest = chunks.newest.map(Into::into);
        status.active_chunk_rows = chunks.active_rows;
        status.active_chunk_s = chunks.active_s;
        status.dead_rows = chunks.dead.unwrap_or_default();
    }
    let sizes: Sizes = if in_chunks {
        sqlx::query_as(
            "SELECT sum(table_bytes)::int8 AS heap, sum(index_bytes)::int8 AS index,
                    sum(toast_bytes)::int8 AS toast, sum(total_bytes)::int8 AS total
             FROM hypertable_detailed_size($1::text::regclass)",
        )
        .bind(name)
        .fetch_optional(&mut *connection)
        .await?
        .unwrap_or_default()
    } else {
        let (sizes, dead) = plain_sizes(connection, name).await?;
        status.dead_rows = dead;
        sizes
    };
    status.heap_bytes = sizes.heap.unwrap_or_default();
    status.index_bytes = sizes.index.unwrap_or_default();
    status.toast_bytes = sizes.toast.unwrap_or_default();
    status.total_bytes = sizes.total.unwrap_or_default();
    let estimate: Option<i64> = sqlx::query_scalar("SELECT approximate_row_count($1::text::regclass)")
        .bind(name)
        .fetch_one(&mut *connection)
        .await?;
    let in_columnstore = if edition == Edition::Community && in_chunks {
        columnstore(connection, &hypertable, &mut status).await?
    } else {
        0
    };
    // Two estimates, the one of ANALYZE and the one of the running statistics: early on one of them is empty, and
    // small chunks in the columnstore are hardly ever analysed.
    let rows = chunks.rows.map(|rows| rows + in_columnstore);
    status.rows_estimate = estimate.max(rows).map(|rows| rows.max(0));
    Ok(Some(status))
}

async fn plain_sizes(connection: &mut PgConnection, name: &str) -> Result<(Sizes, i64), sqlx::Error> {
    let sizes = sqlx::query_as(
        "SELECT pg_table_size(class.oid) - coalesce(pg_total_relation_size(nullif(reltoastrelid, 0)), 0) AS heap,
                pg_indexes_size(class.oid) AS index,
                coalesce(pg_total_relation_size(nullif(reltoastrelid, 0)), 0) AS toast,
                pg_total_relation_size(class.oid) AS total
         FROM pg_class AS class
         WHERE class.oid = to_regclass($1)",
    )
    .bind(name)
    .fetch_one(&mut *connection)
    .await?;
    let dead: Option<i64> =
        sqlx::query_scalar("SELECT n_dead_tup FROM pg_stat_user_tables WHERE relid = to_regclass($1)")
            .bind(name)
            .fetch_optional(connection)
            .await?;
    Ok((sizes, dead.unwrap_or_default()))
}

/// Tells of the columnstore; returns how many rows went there.
async fn columnstore(
    connection: &mut PgConnection,
    hypertable: &str,
    status: &mut TableStatus,
) -> Result<i64, sqlx::Error> {
    let found: Option<(i64, Option<i64>, Option<i64>)> = sqlx::query_as(
        "SELECT number_compressed_chunks, before_compression_total_bytes, after_compression_total_bytes
         FROM timescaledb_information.chunks AS chunk,
              LATERAL hypertable_compression_stats(format('%I.%I', chunk.hypertable_schema, $1)::regclass)
         WHERE chunk.hypertable_name = $1
           AND chunk.hypertable_schema IN (current_schema(), '_timescaledb_internal')
         LIMIT 1",
    )
    .bind(hypertable)
    .fetch_optional(&mut *connection)
    .await?;
    // A table without the columnstore has no statistics of it.
    if let Some((chunks, before, after)) = found {
        status.columnstore_chunks = Some(chunks);
        status.columnstore_bytes_before = before;
        status.columnstore_bytes = after;
    }
    sqlx::query_scalar(
        "SELECT coalesce(sum(size.numrows_pre_compression), 0)::int8
         FROM _timescaledb_catalog.compression_chunk_size AS size
         JOIN _timescaledb_catalog.chunk ON chunk.id = size.chunk_id
         JOIN _timescaledb_catalog.hypertable ON hypertable.id = chunk.hypertable_id
         WHERE hypertable.table_name = $1
           AND hypertable.schema_name IN (current_schema(), '_timescaledb_internal')",
    )
    .bind(hypertable)
    .fetch_one(connection)
    .await
}

async fn rollups(
    connection: &mut PgConnection,
    edition: Edition,
    at: Timestamp,
) -> Result<RollupStatus, sqlx::Error> {
    let reach = rollup::reach(connection, edition).await?;
    Ok(RollupStatus {
        minutes_to: reach.minutes_to,
        hours_to: reach.hours_to,
        lag_s: reach.minutes_to.map(|to| at.since(to).as_secs()),
        late_hours_waiting: reach.late_waiting,
        late_hours_oldest: reach.late_oldest.filter(|_| reach.late_waiting > 0),
    })
}

async fn retained(
    connection: &mut PgConnection,
    config: &StoreConfig,
    table: Kept,
    at: Timestamp,
    marked: bool,
) -> Result<RetentionStatus, sqlx::Error> {
    let days = |span: std::time::Duration| span.as_secs() / 86_400;
    let longest = config.retention.longest(table);
    let cutoff = at.minus(longest);
    let mut status = RetentionStatus {
        table: table.name(),
        days: days(config.retention.span(table)),
        days_longest: days(longest),
        days_shortest: days(config.retention.shortest(table)),
        cutoff,
        chunks_due: None,
        next_due: None,
        chunks_dropped: 0,
        rows_dropped: 0,
        gone_before: None,
    };
    if table.in_chunks() {
        let sql = format!(
            "SELECT count(*) FILTER (WHERE range_end <= $2), min(range_end) FILTER (WHERE range_end > $2)
             FROM timescaledb_information.chunks
             WHERE hypertable_name = {HYPERTABLE_OF}
               AND hypertable_schema IN (current_schema(), '_timescaledb_internal')"
        );
        let (due, next): (i64, Option<OffsetDateTime>) = sqlx::query_as(AssertSqlSafe(sql))
            .bind(table.name())
            .bind(cutoff.to_utc())
            .fetch_one(&mut *connection)
            .await?;
        status.chunks_due = Some(due);
        status.next_due = next.map(|end| Timestamp::from(end).plus(longest));
    }
    if marked {
        let (chunks, rows, gone): (i64, i64, Option<OffsetDateTime>) = sqlx::query_as(
            "SELECT coalesce(sum(deleted) FILTER (WHERE area = -1), 0)::int8,
                    coalesce(sum(deleted) FILTER (WHERE area <> -1), 0)::int8,
                    max(floor) FILTER (WHERE area = -1 AND floor > '-infinity')
             FROM retention_mark
             WHERE table_name = $1",
        )
        .bind(table.name())
        .fetch_one(connection)
        .await?;
        status.chunks_dropped = chunks;
        status.rows_dropped = rows;
        status.gone_before = gone.map(Into::into);
    }
    Ok(status)
}

#[derive(FromRow)]
struct StepRow {
    step: String,
    started: OffsetDateTime,
    succeeded: Option<OffsetDateTime>,
    due: OffsetDateTime,
    runs: i64,
    failures: i64,
    done: i64,
    error: Option<String>,
}

async fn steps(connection: &mut PgConnection) -> Result<Vec<StepStatus>, sqlx::Error> {
    let rows: Vec<StepRow> = sqlx::query_as(
        "SELECT step, started, succeeded, due, runs, failures, done, error
         FROM maintenance_step
         ORDER BY step",
    )
    .fetch_all(connection)
    .await?;
    let step = |row: StepRow| StepStatus {
        step: row.step,
        started: row.started.into(),
        succeeded: row.succeeded.map(Into::into),
        due: row.due.into(),
        runs: row.runs,
        failures: row.failures,
        done: row.done,
        error: row.error,
    };
    Ok(rows.into_iter().map(step).collect())
}

#[derive(FromRow)]
struct JobRow {
    job_id: i32,
    job: String,
    table: Option<String>,
    config: Option<String>,
    every_s: i64,
    succeeded: Option<OffsetDateTime>,
    next: Option<OffsetDateTime>,
    failed_last: bool,
    runs: i64,
    failures: i64,
    error: Option<String>,
    failed_after_work: bool,
}

/// Jobs of tables of ours, with what the last failure said. SQLSTATE 24000 is that of PostgreSQL 17.12, which
/// refuses how TimescaleDB ends a job whose work is committed.
async fn jobs(connection: &mut PgConnection) -> Result<Vec<JobStatus>, sqlx::Error> {
    let rows: Vec<JobRow> = sqlx::query_as(
        "SELECT job.job_id,
                job.proc_name::text AS job,
                coalesce(aggregate.view_name, job.hypertable_name)::text AS table,
                job.config::text AS config,
                extract(epoch FROM job.schedule_interval)::int8 AS every_s,
                CASE WHEN isfinite(run.last_successful_finish) THEN run.last_successful_finish END AS succeeded,
                CASE WHEN isfinite(run.next_start) THEN run.next_start END AS next,
                coalesce(run.last_run_status = 'Failed', false) AS failed_last,
                coalesce(run.total_runs, 0) AS runs,
                coalesce(run.total_failures, 0) AS failures,
                failure.err_message AS error,
                coalesce(failure.sqlerrcode = '24000', false) AS failed_after_work
         FROM timescaledb_information.jobs AS job
         LEFT JOIN timescaledb_information.job_stats AS run USING (job_id)
         LEFT JOIN timescaledb_information.continuous_aggregates AS aggregate
                ON aggregate.materialization_hypertable_name = job.hypertable_name
         LEFT JOIN LATERAL (
             SELECT err_message, sqlerrcode
             FROM timescaledb_information.job_errors AS error
             WHERE error.job_id = job.job_id
             ORDER BY start_time DESC
             LIMIT 1
         ) AS failure ON true
         WHERE job.hypertable_name IS NOT NULL
         ORDER BY job.job_id",
    )
    .fetch_all(connection)
    .await?;
    let job = |row: JobRow| JobStatus {
        job_id: row.job_id,
        job: row.job,
        table: row.table,
        config: row.config,
        every_s: row.every_s,
        succeeded: row.succeeded.map(Into::into),
        next: row.next.map(Into::into),
        failed_last: row.failed_last,
        runs: row.runs,
        failures: row.failures,
        error: row.error,
        failed_after_work: row.failed_after_work,
    };
    Ok(rows.into_iter().map(job).collect())
}
