//! Deleting from tables that do not lie in chunks, some rows at a time.

use domain::Timestamp;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};

use super::Budget;
use super::chunks::mark;
use crate::alarm::alarm_is_open;
use crate::retention::{Kept, Retention};

/// Rows deleted in one transaction.
const ROWS_MAX: i64 = 5_000;

/// What was let go.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Dropped {
    pub(super) quarantine: u64,
    pub(super) downlinks: u64,
    pub(super) records: u64,
    pub(super) more: bool,
}

/// Deletes what is due.
pub(super) async fn run(
    connection: &mut PgConnection,
    retention: &Retention,
    now: Timestamp,
    budget: &Budget,
) -> Result<Dropped, sqlx::Error> {
    let mut dropped = Dropped::default();
    let tables =
        [Kept::Quarantine, Kept::Downlink, Kept::Suppression, Kept::AlarmEvidence, Kept::FaultPeriod];
    for table in tables {
        if !exists(connection, table.name()).await? {
            continue;
        }
        let before = now.minus(retention.span(table));
        let (rows, more) = delete(connection, table, before, budget).await?;
        match table {
            Kept::Quarantine => dropped.quarantine += rows,
            Kept::Downlink => dropped.downlinks += rows,
            _ => dropped.records += rows,
        }
        dropped.more |= more;
        if more {
            break;
        }
    }
    Ok(dropped)
}

/// Whether there is such a table.
pub(super) async fn exists(connection: &mut PgConnection, table: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL").bind(table).fetch_one(connection).await
}

/// What may go besides being old.
fn condition(table: Kept) -> &'static str {
    match table {
        Kept::AlarmEvidence => concat!(
            "AND NOT EXISTS (SELECT FROM alarm WHERE alarm.id = alarm_evidence.alarm_id AND ",
            alarm_is_open!(),
            ")"
        ),
        // By the index of `opened`, which is never later.
        Kept::FaultPeriod => "AND opened < $1",
        _ => "",
    }
}

async fn delete(
    connection: &mut PgConnection,
    table: Kept,
    before: Timestamp,
    budget: &Budget,
) -> Result<(u64, bool), sqlx::Error> {
    let (name, column) = (table.name(), table.time_column());
    let sql = format!(
        "DELETE FROM {name}
         WHERE ctid = ANY (ARRAY(
             SELECT ctid
             FROM {name}
             WHERE {column} < $1 {}
             LIMIT $2
         ))",
        condition(table)
    );
    let mut rows = 0;
    loop {
        let begun = budget.begin();
        let mut transaction = connection.begin().await?;
        // What may only grow refuses every other way of deleting.
        sqlx::query("SELECT set_config('liftwatch.retention', 'on', true)")
            .execute(&mut *transaction)
            .await?;
        let deleted = sqlx::query(AssertSqlSafe(sql.as_str()))
            .bind(before.to_utc())
            .bind(ROWS_MAX)
            .execute(&mut *transaction)
            .await?
            .rows_affected();
        // The audit must know that numbers it looks for may be gone.
        if table == Kept::Quarantine && deleted > 0 {
            mark(&mut transaction, table, -1, before).await?;
        }
        transaction.commit().await?;
        rows += deleted;
        if deleted < ROWS_MAX.unsigned_abs() {
            return Ok((rows, false));
        }
        if budget.spent() {
            return Ok((rows, true));
        }
        budget.pace(begun).await;
    }
}
