//! Quarantine seen by people: what is in it, and the ways out of it. Every way out leaves a line in the audit log.

use domain::{ArrivalNo, BootId, SourceId, Timestamp};
use serde::Serialize;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Postgres, QueryBuilder, Row as _};
use time::OffsetDateTime;

use super::multirange;
use crate::access::note;
use crate::{Database, SeqRanges, StoreError, ledger};

/// What to look for. Nothing given: everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QuarantineFilter {
    /// These numbers alone.
    pub ids: Vec<i64>,
    /// For this reason.
    pub reason: Option<String>,
    /// Of this terminal.
    pub terminal: Option<String>,
    /// That arrived then or later.
    pub since: Option<Timestamp>,
    /// That arrived before this.
    pub before: Option<Timestamp>,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QuarantineRecord {
    /// Its number.
    pub id: i64,
    /// Server clock at arrival.
    pub arrived: Timestamp,
    /// The message it was, or was part of.
    pub arrival_no: Option<ArrivalNo>,
    /// Who sent it; empty where nobody can be named.
    pub terminal: String,
    /// Where to; `telemetry`, `event` or `statistics` for a single row of a message.
    pub topic: String,
    /// Why it is here.
    pub reason: String,
    /// More about why.
    pub detail: String,
    /// Its boot, where that is known.
    pub boot: Option<i64>,
    /// Its sequence numbers, where they are known.
    pub numbers: Option<String>,
    /// Bytes of all of it.
    pub payload_len: i64,
    /// Bytes that are kept: all of it, or its first 4 KB.
    pub payload_kept: i64,
    /// What is kept; empty in lists.
    #[serde(skip)]
    pub payload: Vec<u8>,
}

impl QuarantineRecord {
    /// Whether all of it is kept, so that it can be decoded again.
    pub fn is_whole(&self) -> bool {
        self.payload_len == self.payload_kept
    }
}

/// An entry that has become rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantineRetried {
    /// Its number.
    pub id: i64,
    /// The boot of its rows.
    pub boot: BootId,
    /// Their numbers.
    pub numbers: SeqRanges,
}

/// Entries in one page, and bytes of their payloads.
const PAGE: i64 = 200;
const PAGE_BYTES_MAX: i64 = 16 * 1024 * 1024;
/// Entries named in one line of the audit log.
const NAMED_MAX: usize = 1_000;

impl Database {
    /// At most `limit` entries, the newest first, without their payloads.
    pub async fn quarantine_list(
        &self,
        filter: &QuarantineFilter,
        limit: i64,
    ) -> Result<Vec<QuarantineRecord>, StoreError> {
        let mut sql = QueryBuilder::new(
            "SELECT quarantine_id, arrived, arrival_no, terminal_id, topic, reason, detail, boot,
                    numbers::text AS numbers, payload_len, length(payload)::int8 AS payload_kept, ''::bytea AS payload
             FROM quarantine
             WHERE true",
        );
        conditions(&mut sql, filter);
        sql.push(" ORDER BY quarantine_id DESC LIMIT ");
        sql.push_bind(limit);
        let rows = sql.build().fetch_all(self.pool()).await?;
        rows.iter().map(record).collect()
    }

    /// The next entries after `after_id` up to `last_id` with their payloads, the oldest first: as many as
    /// 16 MiB hold, at least one.
    pub async fn quarantine_page(
        &self,
        filter: &QuarantineFilter,
        after_id: i64,
        last_id: i64,
    ) -> Result<Vec<QuarantineRecord>, StoreError> {
        // The length of a payload is known without reading it.
        let mut sql = QueryBuilder::new(
            "SELECT quarantine_id, arrived, arrival_no, terminal_id, topic, reason, detail, boot,
                    numbers::text AS numbers, payload_len, length(payload)::int8 AS payload_kept, payload
             FROM quarantine
             JOIN (
                 SELECT quarantine_id, sum(bytes) OVER before AS bytes_before
                 FROM (
                     SELECT quarantine_id, length(payload) AS bytes
                     FROM quarantine
                     WHERE quarantine_id > ",
        );
        sql.push_bind(after_id).push(" AND quarantine_id <= ").push_bind(last_id);
        conditions(&mut sql, filter);
        sql.push(" ORDER BY quarantine_id LIMIT ").push_bind(PAGE);
        sql.push(
            "    ) AS next
                 WINDOW before AS (ORDER BY quarantine_id ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
             ) AS page USING (quarantine_id)
             WHERE bytes_before - length(payload) = 0
                OR bytes_before <= ",
        );
        sql.push_bind(PAGE_BYTES_MAX).push(" ORDER BY quarantine_id");
        let rows = sql.build().fetch_all(self.pool()).await?;
        rows.iter().map(record).collect()
    }

    /// The number of the newest entry.
    pub async fn quarantine_last(&self) -> Result<Option<i64>, StoreError> {
        Ok(sqlx::query_scalar("SELECT max(quarantine_id) FROM quarantine").fetch_one(self.pool()).await?)
    }

    /// How many there are.
    pub async fn quarantine_count(&self, filter: &QuarantineFilter) -> Result<i64, StoreError> {
        let mut sql = QueryBuilder::new("SELECT count(*) FROM quarantine WHERE true");
        conditions(&mut sql, filter);
        Ok(sql.build_query_scalar().fetch_one(self.pool()).await?)
    }

    /// Takes entries out that have become rows. What one claimed and does not hold is then claimed by the ledger no
    /// more, unless a row or another entry holds it.
    pub async fn quarantine_retried(
        &self,
        retried: &[QuarantineRetried],
        actor: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        for part in retried.chunks(NAMED_MAX) {
            let mut transaction = self.pool().begin().await?;
            let removed: Vec<(i64, Option<i32>, Option<String>)> = sqlx::query_as(
                "WITH removed AS (
                     DELETE FROM quarantine
                     USING unnest($1::int8[], $2::int8[], $3::text[]) AS held (id, boot, numbers)
                     WHERE quarantine_id = held.id
                     RETURNING quarantine_id, terminal_id, quarantine.boot,
                               CASE WHEN quarantine.boot = held.boot
                                   THEN quarantine.numbers - held.numbers::int8multirange
                                   ELSE quarantine.numbers
                               END AS claimed
                 )
                 SELECT quarantine_id, source, nullif(claimed, '{}')::text
                 FROM removed
                 LEFT JOIN source USING (terminal_id, boot)
                 ORDER BY quarantine_id",
            )
            .bind(part.iter().map(|one| one.id).collect::<Vec<_>>())
            .bind(part.iter().map(|one| i64::from(one.boot.0)).collect::<Vec<_>>())
            .bind(part.iter().map(|one| multirange(&one.numbers)).collect::<Vec<_>>())
            .fetch_all(&mut *transaction)
            .await?;
            for (_, source, claimed) in &removed {
                if let (Some(source), Some(claimed)) = (source, claimed) {
                    claim_drop(&mut transaction, SourceId(*source), claimed, now).await?;
                }
            }
            let ids: Vec<i64> = removed.into_iter().map(|(id, ..)| id).collect();
            let (subject, detail) = named(&ids);
            note(&mut transaction, actor, "quarantine.retry", &subject, detail).await?;
            transaction.commit().await?;
        }
        Ok(())
    }

    /// Of these numbers of entries, those that are there.
    pub async fn quarantine_known(&self, ids: &[i64]) -> Result<Vec<i64>, StoreError> {
        Ok(sqlx::query_scalar("SELECT quarantine_id FROM quarantine WHERE quarantine_id = ANY ($1)")
            .bind(ids)
            .fetch_all(self.pool())
            .await?)
    }

    /// Drops entries for good, but none that comes meanwhile. Their numbers stay explained: as discarded by an
    /// operator. Returns how many.
    pub async fn quarantine_drop(&self, filter: &QuarantineFilter, actor: &str) -> Result<u64, StoreError> {
        let mut dropped = 0;
        let last = self.quarantine_last().await?;
        loop {
            let mut transaction = self.pool().begin().await?;
            let mut sql = QueryBuilder::new("SELECT quarantine_id FROM quarantine WHERE quarantine_id <= ");
            sql.push_bind(last);
            conditions(&mut sql, filter);
            sql.push(" ORDER BY quarantine_id LIMIT ");
            sql.push_bind(NAMED_MAX as i64);
            sql.push(" FOR UPDATE");
            let ids: Vec<i64> = sql.build_query_scalar().fetch_all(&mut *transaction).await?;
            if ids.is_empty() {
                return Ok(dropped);
            }
            sqlx::query(
                "INSERT INTO sequence_dropped (source, seq_from, seq_to, reason)
                 SELECT DISTINCT source.source, lower(range), upper(range) - 1, 'discarded'
                 FROM quarantine
                 JOIN source USING (terminal_id, boot)
                 CROSS JOIN LATERAL unnest(numbers) AS range
                 WHERE quarantine_id = ANY ($1)
                 ON CONFLICT DO NOTHING",
            )
            .bind(&ids)
            .execute(&mut *transaction)
            .await?;
            sqlx::query("DELETE FROM quarantine WHERE quarantine_id = ANY ($1)")
                .bind(&ids)
                .execute(&mut *transaction)
                .await?;
            let (subject, detail) = named(&ids);
            note(&mut transaction, actor, "quarantine.drop", &subject, detail).await?;
            transaction.commit().await?;
            dropped += ids.len() as u64;
        }
    }
}

/// Takes numbers out of the ledger that are neither rows nor in quarantine, and judges its gaps anew.
async fn claim_drop(
    connection: &mut PgConnection,
    source: SourceId,
    claimed: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    // Held before the rows are looked at: what a server writes meanwhile is added afterwards.
    sqlx::query("SELECT FROM sequence_ledger WHERE source = $1 FOR UPDATE")
        .bind(source.0)
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "UPDATE sequence_ledger AS ledger
         SET accounted = ledger_bounded(accounted - ($2::int8multirange - held.rows - held.entries))
         FROM (
             SELECT (
                 SELECT coalesce(range_agg(int8range(seq, seq, '[]')), '{}')
                 FROM (
                     SELECT elevator_id, source, seq FROM telemetry
                     UNION ALL
                     SELECT elevator_id, source, seq FROM fault
                     UNION ALL
                     SELECT elevator_id, source, seq FROM statistics
                 ) AS row
                 WHERE row.source = $1
                   AND row.elevator_id = ANY (ARRAY(SELECT unnest(elevators) FROM sequence_ledger WHERE source = $1))
                   AND row.seq > 0
                   AND row.seq < 9223372036854775807
                   AND $2::int8multirange @> row.seq
             ) AS rows,
             (
                 SELECT coalesce(range_agg(numbers), '{}')
                 FROM source
                 JOIN quarantine USING (terminal_id, boot)
                 WHERE source.source = $1
                   AND numbers IS NOT NULL
             ) AS entries
         ) AS held
         WHERE ledger.source = $1",
    )
    .bind(source.0)
    .bind(claimed)
    .execute(&mut *connection)
    .await?;
    ledger::judge(connection, source, now).await
}

fn named(ids: &[i64]) -> (String, serde_json::Value) {
    (format!("{} entries", ids.len()), serde_json::json!({ "ids": ids }))
}

fn conditions(sql: &mut QueryBuilder<Postgres>, filter: &QuarantineFilter) {
    if !filter.ids.is_empty() {
        sql.push(" AND quarantine_id = ANY (").push_bind(filter.ids.clone()).push(")");
    }
    if let Some(reason) = &filter.reason {
        sql.push(" AND reason = ").push_bind(reason.clone());
    }
    if let Some(terminal) = &filter.terminal {
        sql.push(" AND terminal_id = ").push_bind(terminal.clone());
    }
    if let Some(since) = filter.since {
        sql.push(" AND arrived >= ").push_bind(since.to_utc());
    }
    if let Some(before) = filter.before {
        sql.push(" AND arrived < ").push_bind(before.to_utc());
    }
}

fn record(row: &PgRow) -> Result<QuarantineRecord, StoreError> {
    Ok(QuarantineRecord {
        id: row.try_get("quarantine_id")?,
        arrived: row.try_get::<OffsetDateTime, _>("arrived")?.into(),
        arrival_no: row.try_get::<Option<i64>, _>("arrival_no")?.map(ArrivalNo),
        terminal: row.try_get("terminal_id")?,
        topic: row.try_get("topic")?,
        reason: row.try_get("reason")?,
        detail: row.try_get("detail")?,
        boot: row.try_get("boot")?,
        numbers: row.try_get("numbers")?,
        payload_len: row.try_get("payload_len")?,
        payload_kept: row.try_get("payload_kept")?,
        payload: row.try_get("payload")?,
    })
}
