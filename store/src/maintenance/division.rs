//! Deleting rows of elevators whose division keeps them for less than others do.
//!
//! Chunk by chunk from the oldest on, some elevators at a time, few rows in a transaction, with pauses as long
//! as the work: off the way of the writers. Where it has got to is kept per table and division, so it goes on
//! where it ended. Once a week it begins anew, for readings that came late. A chunk in the columnstore is done
//! once all of it is due: deleting from it means to read whole segments of an elevator, which is bearable once,
//! not every hour. Rollups of the Community edition are continuous aggregates, from which nobody can delete by
//! elevator: they go as a whole, by the longest span of any division.

use std::time::Duration;

use domain::{Area, Timestamp};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};
use time::OffsetDateTime;

use super::chunks::mark;
use super::{Budget, Progress};
use crate::retention::Kept;
use crate::rollup::{self, hour_of};
use crate::{Edition, StoreConfig, StoreError};

/// Rows deleted in one transaction from the rowstore.
const ROWS_MAX: i64 = 10_000;
/// Elevators in one statement: each is a stretch of the key's index.
const ELEVATORS_MAX: usize = 16;
/// Between two passes over everything.
const SWEEP_EVERY: Duration = Duration::from_hours(7 * 24);

/// A chunk as the catalog tells it.
#[derive(Debug, sqlx::FromRow)]
struct Chunk {
    chunk_schema: String,
    chunk_name: String,
    range_start: OffsetDateTime,
    range_end: OffsetDateTime,
    is_compressed: bool,
}

/// Deletes what is due, of all divisions.
pub(super) async fn run(
    connection: &mut PgConnection,
    config: &StoreConfig,
    edition: Edition,
    now: Timestamp,
    budget: &Budget,
) -> Result<Progress, StoreError> {
    let retention = &config.retention;
    let reach = rollup::reach(connection, edition).await?;
    let areas: Vec<i32> = sqlx::query_scalar("SELECT DISTINCT area FROM elevator ORDER BY area")
        .fetch_all(&mut *connection)
        .await?;
    let mut progress = Progress::default();
    for table in Kept::ALL.into_iter().filter(|table| table.by_division()) {
        let aggregate =
            edition == Edition::Community && matches!(table, Kept::Telemetry1m | Kept::Telemetry1h);
        if aggregate {
            continue;
        }
        for &number in &areas {
            let Ok(area) = Area::from_number(number.unsigned_abs()) else { continue };
            let span = retention.span_of(table, area);
            if span >= retention.longest(table) {
                continue;
            }
            let Some(cutoff) = reach.may_go(table, now.minus(span)) else { continue };
            let one = Division { table, area: number, cutoff: hour_of(cutoff), now };
            let Progress { done, more } = one.run(connection, budget).await?;
            progress.done += done;
            if more {
                return Ok(Progress { more, ..progress });
            }
        }
    }
    Ok(progress)
}

/// One table's rows of one division.
struct Division {
    table: Kept,
    area: i32,
    cutoff: Timestamp,
    now: Timestamp,
}

impl Division {
    async fn run(&self, connection: &mut PgConnection, budget: &Budget) -> Result<Progress, sqlx::Error> {
        // First the mark: rollups must not be made again from what is left, in no order of events.
        mark(connection, self.table, self.area, self.cutoff).await?;
        let chunks = self.chunks(connection).await?;
        let mut progress = Progress::default();
        if chunks.is_empty() {
            return Ok(progress);
        }
        let elevators: Vec<i64> =
            sqlx::query_scalar("SELECT elevator_id FROM elevator WHERE area = $1 ORDER BY 1")
                .bind(self.area)
                .fetch_all(&mut *connection)
                .await?;
        for chunk in chunks {
            let end = Timestamp::from(chunk.range_end);
            if chunk.is_compressed && end > self.cutoff {
                break;
            }
            // In the columnstore every row of a segment is read: one elevator at a time.
            let group = if chunk.is_compressed { 1 } else { ELEVATORS_MAX };
            for elevators in elevators.chunks(group) {
                loop {
                    let begun = budget.begin();
                    let deleted = self.delete(connection, &chunk, elevators).await?;
                    progress.done += deleted;
                    if budget.spent() {
                        return Ok(Progress { more: true, ..progress });
                    }
                    // Small transactions too: of a large division there are thousands.
                    if deleted > 0 {
                        budget.pace(begun).await;
                    }
                    if chunk.is_compressed || deleted < ROWS_MAX.unsigned_abs() {
                        break;
                    }
                }
            }
            self.reached(connection, end.min(self.cutoff)).await?;
        }
        Ok(progress)
    }

    /// Chunks with something due, from where the last run ended; from the oldest on once a week.
    async fn chunks(&self, connection: &mut PgConnection) -> Result<Vec<Chunk>, sqlx::Error> {
        sqlx::query(
            "UPDATE retention_mark
             SET position = '-infinity', swept = $3
             WHERE table_name = $1
               AND area = $2
               AND (swept < $3 - make_interval(secs => $4) OR swept > $3)",
        )
        .bind(self.table.name())
        .bind(self.area)
        .bind(self.now.to_utc())
        .bind(SWEEP_EVERY.as_secs_f64())
        .execute(&mut *connection)
        .await?;
        sqlx::query_as(
            "SELECT chunk_schema::text, chunk_name::text, range_start, range_end, is_compressed
             FROM timescaledb_information.chunks
             WHERE hypertable_name = $1
               AND hypertable_schema = current_schema()
               AND range_start < $3
               AND range_end > (
                   SELECT position
                   FROM retention_mark
                   WHERE table_name = $1 AND area = $2
               )
             ORDER BY range_start",
        )
        .bind(self.table.name())
        .bind(self.area)
        .bind(self.cutoff.to_utc())
        .fetch_all(connection)
        .await
    }

    async fn delete(
        &self,
        connection: &mut PgConnection,
        chunk: &Chunk,
        elevators: &[i64],
    ) -> Result<u64, sqlx::Error> {
        let (table, column) = (self.table.name(), self.table.time_column());
        let cutoff = self.cutoff.to_utc();
        let mut transaction = connection.begin().await?;
        let deleted = if chunk.is_compressed {
            // Through the hypertable, which alone knows the columnstore; some versions read what they delete.
            sqlx::query(
                "SELECT set_config('timescaledb.max_tuples_decompressed_per_dml_transaction', '0', true)",
            )
            .execute(&mut *transaction)
            .await?;
            let sql = format!(
                "DELETE FROM {table} WHERE elevator_id = ANY ($1) AND {column} >= $2 AND {column} < $3"
            );
            sqlx::query(AssertSqlSafe(sql))
                .bind(elevators)
                .bind(chunk.range_start)
                .bind(chunk.range_end)
                .execute(&mut *transaction)
                .await?
                .rows_affected()
        } else {
            // The chunk itself, so that its own row addresses can be used.
            let name = format!("\"{}\".\"{}\"", chunk.chunk_schema, chunk.chunk_name);
            let sql = format!(
                "DELETE FROM {name}
                 WHERE ctid = ANY (ARRAY(
                     SELECT ctid
                     FROM {name}
                     WHERE elevator_id = ANY ($1) AND {column} < $2
                     LIMIT $3
                 ))"
            );
            sqlx::query(AssertSqlSafe(sql))
                .persistent(false)
                .bind(elevators)
                .bind(cutoff)
                .bind(ROWS_MAX)
                .execute(&mut *transaction)
                .await?
                .rows_affected()
        };
        if deleted > 0 {
            sqlx::query(
                "UPDATE retention_mark SET deleted = deleted + $3 WHERE table_name = $1 AND area = $2",
            )
            .bind(table)
            .bind(self.area)
            .bind(deleted as i64)
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await?;
        Ok(deleted)
    }

    async fn reached(&self, connection: &mut PgConnection, to: Timestamp) -> Result<(), sqlx::Error> {
        sqlx::query("UPDATE retention_mark SET position = $3 WHERE table_name = $1 AND area = $2")
            .bind(self.table.name())
            .bind(self.area)
            .bind(to.to_utc())
            .execute(connection)
            .await
            .map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::testing::TestDatabase;

    #[tokio::test]
    async fn small_transactions_leave_room_for_others_too() {
        let test = TestDatabase::new().await;
        let database = test.open().await;
        // Two groups of elevators with a reading each, and one with none.
        sqlx::raw_sql(
            "INSERT INTO elevator (elevator_id, area) SELECT id, 350102 FROM generate_series(1, 40) AS id;
             INSERT INTO source (source, boot, terminal_id, first_seen)
             OVERRIDING SYSTEM VALUE VALUES (1, 1, 't', '2090-03-01');
             INSERT INTO telemetry (elevator_id, time, seq, arrival_no, arrived, source, sent_mask, item)
             SELECT id, '2090-03-01', 1, id, '2090-03-01', 1, 0, 0 FROM generate_series(1, 32) AS id",
        )
        .execute(database.pool())
        .await
        .unwrap();
        let cutoff: Timestamp = "2090-03-02T00:00:00Z".parse().unwrap();
        let division = Division { table: Kept::Telemetry, area: 350_102, cutoff, now: cutoff };
        let budget = Budget::new(Duration::from_hours(1));
        let mut connection = database.connection().await.unwrap();
        let progress = division.run(&mut connection, &budget).await.unwrap();
        assert_eq!((progress.done, budget.pauses.load(Ordering::Relaxed)), (32, 2));
    }
}
