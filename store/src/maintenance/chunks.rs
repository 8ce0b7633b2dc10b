//! Dropping chunks that are older than what any division keeps.

use domain::Timestamp;
use sqlx::Connection;
use sqlx::postgres::PgConnection;
use time::OffsetDateTime;

use super::{Budget, Progress};
use crate::retention::Kept;
use crate::{Edition, StoreConfig, StoreError, rollup};

/// Chunks dropped in one transaction: each takes a few locks of the server's table of them.
const CHUNKS_MAX: i64 = 20;

/// Drops what is due, oldest first.
pub(super) async fn run(
    connection: &mut PgConnection,
    config: &StoreConfig,
    edition: Edition,
    now: Timestamp,
    budget: &Budget,
) -> Result<Progress, StoreError> {
    let reach = rollup::reach(connection, edition).await?;
    let mut progress = Progress::default();
    for table in Kept::ALL.into_iter().filter(|table| table.in_chunks()) {
        let Some(cutoff) = reach.may_go(table, now.minus(config.retention.longest(table))) else { continue };
        loop {
            let dropped = drop_some(connection, table, cutoff).await?;
            progress.done += dropped;
            if dropped == 0 {
                break;
            }
            if budget.spent() {
                return Ok(Progress { more: true, ..progress });
            }
        }
    }
    Ok(progress)
}

/// The name under which the catalog knows a table's chunks: a continuous aggregate keeps them in a hypertable of
/// its own.
pub(crate) const HYPERTABLE_OF: &str = "coalesce(
    (SELECT materialization_hypertable_name
     FROM timescaledb_information.continuous_aggregates
     WHERE view_name = $1 AND view_schema = current_schema()),
    $1
)";

/// Drops some chunks that end by `cutoff`, and says how many.
async fn drop_some(
    connection: &mut PgConnection,
    table: Kept,
    cutoff: Timestamp,
) -> Result<u64, sqlx::Error> {
    let sql = format!(
        "SELECT max(range_end)
         FROM (
             SELECT range_end
             FROM timescaledb_information.chunks
             WHERE hypertable_name = {HYPERTABLE_OF}
               AND hypertable_schema IN (current_schema(), '_timescaledb_internal')
               AND range_end <= $2
             ORDER BY range_end
             LIMIT $3
         ) AS oldest"
    );
    let end: Option<OffsetDateTime> = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
        .bind(table.name())
        .bind(cutoff.to_utc())
        .bind(CHUNKS_MAX)
        .fetch_one(&mut *connection)
        .await?;
    let Some(end) = end else { return Ok(0) };
    let mut transaction = connection.begin().await?;
    // First the mark: rollups must not be made again from what is left, in no order of events.
    mark(&mut transaction, table, -1, end.into()).await?;
    let dropped = sqlx::query("SELECT drop_chunks($1::regclass, older_than => $2::timestamptz)")
        .bind(table.name())
        .bind(end)
        .fetch_all(&mut *transaction)
        .await?
        .len();
    sqlx::query("UPDATE retention_mark SET deleted = deleted + $2 WHERE table_name = $1 AND area = -1")
        .bind(table.name())
        .bind(dropped as i64)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(dropped as u64)
}

/// Notes that rows before `floor` may be gone from now on.
pub(super) async fn mark(
    connection: &mut PgConnection,
    table: Kept,
    area: i32,
    floor: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO retention_mark (table_name, area, floor)
         VALUES ($1, $2, $3)
         ON CONFLICT (table_name, area) DO UPDATE
         SET floor = greatest(retention_mark.floor, excluded.floor)",
    )
    .bind(table.name())
    .bind(area)
    .bind(floor.to_utc())
    .execute(connection)
    .await
    .map(drop)
}
