//! The ledger's tables: what is written, and how it catches up from the rows.

use std::time::{Duration, Instant};

use domain::{ArrivalNo, ElevatorId, SourceId, Timestamp};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Connection, Row as _};
use time::OffsetDateTime;

use super::note::{Run, Waiting};
use crate::{Database, Edition, StoreError, rollup};

/// Tables whose rows carry sequence numbers of terminals. Readings, events and statistics share one counter.
pub(crate) const NUMBERED: &[&str] = &["telemetry", "fault", "statistics"];
/// Memory of a sort in the server before it goes to its disk.
pub(crate) const WORK_MEM: &str = "64MB";
/// Runs in one statement.
const RUNS_MAX: usize = 5_000;
/// Sources in one statement of which something was told or declared: it costs the square of their count.
const TOUCHED_MAX: usize = 500;
/// What was told or declared so long before the mark was set is in the ledger. More than the longest write takes (see
/// `CATCH_UP_WITHIN`), and than the clocks of database and server differ.
const NOTED_BEFORE: Duration = Duration::from_hours(3);

/// What a write has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Written {
    /// Numbers that are missing now.
    pub(crate) found: u64,
    /// Numbers that were missing and are not any more.
    pub(crate) filled: u64,
}

/// What the tables say in sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Sums {
    pub(crate) gaps_open: i64,
    pub(crate) numbers_missing: i64,
    pub(crate) numbers_dropped: i64,
    pub(crate) took: Duration,
}

/// Writes what waits; a part that was written and is written again changes nothing.
pub(crate) async fn write(
    connection: &mut PgConnection,
    runs: &[Run],
    touched: &[SourceId],
    at: Timestamp,
) -> Result<Written, StoreError> {
    let mut written = Written::default();
    let (mut runs, mut touched) = (runs.chunks(RUNS_MAX), touched.chunks(TOUCHED_MAX));
    loop {
        // What was touched goes with the last runs and after them, so that it is judged with them.
        let part = runs.next().unwrap_or_default();
        let with = if runs.len() == 0 { touched.next().unwrap_or_default() } else { &[] };
        if part.is_empty() && with.is_empty() {
            return Ok(written);
        }
        let (found, filled) = write_part(connection, part, with, at).await?;
        written.found = written.found.saturating_add(found);
        written.filled = written.filled.saturating_add(filled);
    }
}

async fn write_part(
    connection: &mut PgConnection,
    runs: &[Run],
    touched: &[SourceId],
    at: Timestamp,
) -> Result<(u64, u64), StoreError> {
    let sources: Vec<i32> = runs.iter().map(|run| run.source.0).collect();
    let from: Vec<i64> = runs.iter().map(|run| run.from).collect();
    let to: Vec<i64> = runs.iter().map(|run| run.to).collect();
    let elevators: Vec<Option<i64>> = runs.iter().map(|run| run.elevator.map(|id| id.0)).collect();
    let times: Vec<Option<OffsetDateTime>> =
        runs.iter().map(|run| run.time_first.and_then(Timestamp::to_utc)).collect();
    let touched: Vec<i32> = touched.iter().map(|source| source.0).collect();
    let (found, filled): (i64, i64) = sqlx::query_as(
        "SELECT least(missed, 9e18)::int8, least(filled, 9e18)::int8
         FROM ledger_write($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(sources)
    .bind(from)
    .bind(to)
    .bind(elevators)
    .bind(times)
    .bind(touched)
    .bind(at.to_utc())
    .fetch_one(connection)
    .await?;
    Ok((found.unsigned_abs(), filled.unsigned_abs()))
}

/// Notes that all rows up to this arrival are in the ledger.
pub(crate) async fn mark_set(
    connection: &mut PgConnection,
    arrival_no: ArrivalNo,
    at: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO sequence_mark (arrival_no, at)
         VALUES ($1, $2)
         ON CONFLICT (one) DO UPDATE
         SET arrival_no = greatest(sequence_mark.arrival_no, excluded.arrival_no), at = excluded.at",
    )
    .bind(arrival_no.0)
    .bind(at.to_utc())
    .execute(connection)
    .await?;
    Ok(())
}

/// Brings the ledger up to the rows: reads those that arrived after the mark, and all of quarantine. Reads
/// from the server as it goes, so memory stays flat. Of those rows it also notes the late ones for the rollups.
pub(crate) async fn catch_up(database: &Database, at: Timestamp) -> Result<Written, StoreError> {
    let mut reader = database.connection().await?;
    let mut writer = database.connection().await?;
    let mut written = Written::default();
    let mut transaction = reader.begin().await?;
    sqlx::raw_sql(AssertSqlSafe(format!("SET LOCAL work_mem = '{WORK_MEM}'")))
        .execute(&mut *transaction)
        .await?;
    let mark: Option<(i64, OffsetDateTime)> =
        sqlx::query_as("SELECT arrival_no, at FROM sequence_mark").fetch_optional(&mut *transaction).await?;
    let (mark, marked) = mark.unzip();
    if let Some(mark) = mark.filter(|_| database.edition_known() == Some(Edition::Apache)) {
        rollup::own::late_find(&mut writer, mark).await?;
    }
    let since = format!("arrival_no > {}", mark.unwrap_or(-1));
    runs_declare(&mut transaction, &since).await?;
    while let Some(runs) = runs_fetch(&mut transaction).await? {
        let part = write(&mut writer, &runs, &[], at).await?;
        written.found = written.found.saturating_add(part.found);
        written.filled = written.filled.saturating_add(part.filled);
    }
    let quarantined = sqlx::query(
        "SELECT source, lower(range) AS seq_from, upper(range) - 1 AS seq_to,
                NULL::int8 AS elevator_id, NULL::timestamptz AS time_first
         FROM (
             SELECT source.source, unnest(range_agg(numbers)) AS range
             FROM quarantine
             JOIN source USING (terminal_id, boot)
             WHERE numbers IS NOT NULL
             GROUP BY source.source
         ) AS kept",
    )
    .fetch_all(&mut *transaction)
    .await?;
    let runs: Vec<Run> = quarantined.iter().map(run).collect::<Result<_, _>>()?;
    let touched = said(&mut transaction, marked.map(|at| Timestamp::from(at).minus(NOTED_BEFORE))).await?;
    let part = write(&mut writer, &runs, &touched, at).await?;
    written.found = written.found.saturating_add(part.found);
    written.filled = written.filled.saturating_add(part.filled);
    transaction.commit().await?;
    let _ = reader.close().await;
    let _ = writer.close().await;
    Ok(written)
}

/// Sources that have told or declared something since then, and those of which something else is told than the ledger
/// has noted: by a boot that was not written down, or by none any more, because a boot between has been heard of.
async fn said(connection: &mut PgConnection, since: Option<Timestamp>) -> Result<Vec<SourceId>, sqlx::Error> {
    let said: Vec<i32> = sqlx::query_scalar(
        "SELECT source FROM sequence_told WHERE noted >= $1
         UNION
         SELECT source FROM sequence_dropped WHERE noted >= $1
         UNION
         SELECT own.source
         FROM (
             SELECT before.source
             FROM sequence_told
             CROSS JOIN LATERAL source_before(sequence_told.source) AS before (source)
             WHERE before.source IS NOT NULL
             UNION
             SELECT source FROM sequence_ledger WHERE told IS NOT NULL
         ) AS own
         LEFT JOIN sequence_ledger AS ledger USING (source)
         WHERE ledger.told IS DISTINCT FROM (SELECT max(told.seq_last) FROM source_told(own.source) AS told)",
    )
    .bind(since.unwrap_or_default().to_utc())
    .fetch_all(connection)
    .await?;
    Ok(said.into_iter().map(SourceId).collect())
}

/// Opens a cursor over the numbers of these rows, as ranges by source and elevator.
pub(crate) async fn runs_declare(connection: &mut PgConnection, which: &str) -> Result<(), StoreError> {
    let declare = format!("DECLARE runs NO SCROLL CURSOR FOR {}", runs_of(which));
    sqlx::raw_sql(AssertSqlSafe(declare)).execute(connection).await?;
    Ok(())
}

/// The next of them; `None` after the last.
pub(crate) async fn runs_fetch(connection: &mut PgConnection) -> Result<Option<Vec<Run>>, StoreError> {
    let fetch = format!("FETCH {RUNS_MAX} FROM runs");
    let rows = sqlx::query(AssertSqlSafe(fetch)).fetch_all(connection).await?;
    let runs: Vec<Run> = rows.iter().map(run).collect::<Result<_, _>>()?;
    Ok(Some(runs).filter(|runs| !runs.is_empty()))
}

fn runs_of(which: &str) -> String {
    let numbers: Vec<String> = NUMBERED
        .iter()
        .map(|table| {
            format!(
                "SELECT source, elevator_id, seq, time
                 FROM {table}
                 WHERE {which}
                   AND seq BETWEEN 1 AND {}",
                i64::MAX - 1
            )
        })
        .collect();
    format!(
        "SELECT source, elevator_id, min(seq) AS seq_from, max(seq) AS seq_to, min(time) AS time_first
         FROM (
             SELECT source, elevator_id, seq, time, seq - dense_rank() OVER (
                        PARTITION BY source, elevator_id
                        ORDER BY seq
                    ) AS island
             FROM ({}) AS numbers
         ) AS marked
         GROUP BY source, elevator_id, island",
        numbers.join(" UNION ALL ")
    )
}

fn run(row: &PgRow) -> Result<Run, StoreError> {
    let time: Option<OffsetDateTime> = row.try_get("time_first")?;
    Ok(Run {
        source: SourceId(row.try_get("source")?),
        elevator: row.try_get::<Option<i64>, _>("elevator_id")?.map(ElevatorId),
        from: row.try_get("seq_from")?,
        to: row.try_get("seq_to")?,
        time_first: time.map(Timestamp::from),
    })
}

/// Forgets gaps that were filled longer ago than the retention.
pub(crate) async fn prune(database: &Database, now: Timestamp, kept: Duration) -> Result<u64, StoreError> {
    let done = sqlx::query("DELETE FROM sequence_gap WHERE outcome = 'filled' AND settled < $1")
        .bind(now.minus(kept).to_utc())
        .execute(database.pool())
        .await?;
    Ok(done.rows_affected())
}

/// Open gaps and what was declared, in sum.
pub(crate) async fn sums(connection: &mut PgConnection) -> Result<Sums, StoreError> {
    let begun = Instant::now();
    let (gaps_open, numbers_missing): (i64, i64) = sqlx::query_as(
        "SELECT count(*), least(coalesce(sum(seq_to::numeric - seq_from + 1), 0), 9e18)::int8
         FROM sequence_gap
         WHERE outcome = 'open'",
    )
    .fetch_one(&mut *connection)
    .await?;
    let numbers_dropped: i64 = sqlx::query_scalar(
        "SELECT least(coalesce(sum(seq_to::numeric - seq_from + 1), 0), 9e18)::int8
         FROM sequence_dropped",
    )
    .fetch_one(&mut *connection)
    .await?;
    Ok(Sums { gaps_open, numbers_missing, numbers_dropped, took: begun.elapsed() })
}

/// Writes what waits, then the mark.
pub(crate) async fn flush(
    database: &Database,
    waiting: &Waiting,
    mark: Option<ArrivalNo>,
    at: Timestamp,
) -> Result<Written, StoreError> {
    let mut connection = database.pool().acquire().await?;
    let touched: Vec<SourceId> = waiting.touched.iter().copied().collect();
    let written = write(&mut connection, &waiting.runs(), &touched, at).await?;
    if let Some(mark) = mark {
        mark_set(&mut connection, mark, at).await?;
    }
    Ok(written)
}
