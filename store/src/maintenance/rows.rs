//! Deleting from tables that do not lie in chunks, some rows at a time.

use domain::Timestamp;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};

use super::Budget;
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

/// Deletes from quarantine, and notes in the ledger which numbers are gone with it, so that the audit need not
/// wonder. The ledger is locked in the order in which it is written.
fn expire(delete: &str) -> String {
    format!(
        "WITH gone AS (
             {delete}
             RETURNING terminal_id, boot, numbers
         ), numbered AS (
             SELECT source, range_agg(numbers) AS numbers
             FROM gone
             JOIN source USING (terminal_id, boot)
             WHERE numbers IS NOT NULL
             GROUP BY source
         ), locked AS (
             SELECT source, numbered.numbers
             FROM sequence_ledger AS ledger
             JOIN numbered USING (source)
             ORDER BY source
             FOR UPDATE OF ledger
         ), noted AS (
             UPDATE sequence_ledger AS ledger
             SET expired = ledger_bounded(ledger.expired + locked.numbers)
             FROM locked
             WHERE ledger.source = locked.source
         )
         SELECT FROM gone"
    )
}

async fn delete(
    connection: &mut PgConnection,
    table: Kept,
    before: Timestamp,
    budget: &Budget,
) -> Result<(u64, bool), sqlx::Error> {
    let (name, column) = (table.name(), table.time_column());
    let delete = format!(
        "DELETE FROM {name}
         WHERE ctid = ANY (ARRAY(
             SELECT ctid
             FROM {name}
             WHERE {column} < $1 {}
             LIMIT $2
         ))",
        condition(table)
    );
    let sql = if table == Kept::Quarantine { expire(&delete) } else { delete };
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
