//! The ways of rows into their table: straight, around what is there already, and around what is refused.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use domain::Timestamp;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Row as _};
use time::OffsetDateTime;

use super::batch::{Gap, Told, key_conflict};
use super::{CommitReport, Session};
use crate::copy::CopyBuffer;
use crate::error::{Class, classify};
use crate::fault_period::Again;
use crate::quarantine::{QuarantineEntry, QuarantineReason};
use crate::rows::{FaultRow, Key, ReadingRow, Row, STATE_ACTIVE, Table};
use crate::{SeqRanges, StoreError, fault_period};

/// Statements a batch may spend on halving; after them its remaining rows go one by one, so that a batch full
/// of refused rows costs at most one statement per row more.
const HALVINGS_MAX: u32 = 64;

/// Stores sorted rows without repeated keys. Rows that are there already stay; those there with other content,
/// and those the database refuses, go to quarantine.
pub(super) async fn store<R: Row>(
    session: &mut Session,
    rows: &[R],
    quarantine: &mut Vec<QuarantineEntry>,
    report: &mut CommitReport,
) -> Result<(), StoreError> {
    let mut waiting = vec![rows];
    let mut statements = 0;
    while let Some(part) = waiting.pop() {
        if part.is_empty() {
            continue;
        }
        statements += 1;
        report.statements += 1;
        let error = match session.store(part).await {
            Ok(stored) => {
                report.rows_stored += stored.rows;
                report.rows_repeated += part.len() as u64 - stored.rows - stored.conflicts.len() as u64;
                quarantine.extend(stored.conflicts);
                continue;
            }
            Err(error) => error,
        };
        if classify(&error) != Class::Poisoned {
            return Err(error.into());
        }
        if let [row] = part {
            tracing::error!(error = %error, table = R::table().name, "a row was refused and goes to quarantine");
            quarantine.push(row.quarantined(QuarantineReason::Refused, error.to_string()));
        } else if statements < HALVINGS_MAX {
            let (low, high) = part.split_at(part.len() / 2);
            waiting.extend([high, low]);
        } else {
            waiting.extend(part.chunks(1).rev());
        }
    }
    Ok(())
}

/// What a successful way into the table has found.
struct Stored {
    rows: u64,
    conflicts: Vec<QuarantineEntry>,
}

impl Session {
    /// Straight; where a key is there already, around it.
    async fn store<R: Row>(&mut self, rows: &[R]) -> Result<Stored, sqlx::Error> {
        let copied = copy(&mut self.connection, &R::table().copy, rows, &mut self.buffer).await;
        match copied {
            Ok(rows) => Ok(Stored { rows, conflicts: Vec::new() }),
            Err(error) if classify(&error) == Class::Repeated => self.store_around(rows).await,
            Err(error) => Err(error),
        }
    }

    /// Through a staging table, keeping what is there.
    async fn store_around<R: Row>(&mut self, rows: &[R]) -> Result<Stored, sqlx::Error> {
        let table = R::table();
        if !self.staged.contains(&table.name) {
            sqlx::raw_sql(AssertSqlSafe(table.staging_create.as_str())).execute(&mut self.connection).await?;
            self.staged.push(table.name);
        }
        let mut transaction = self.connection.begin().await?;
        copy(&mut transaction, &table.staging_copy, rows, &mut self.buffer).await?;
        let merged = sqlx::query(AssertSqlSafe(table.merge.as_str())).execute(&mut *transaction).await?;
        let conflicts = conflicts(&mut transaction, table, rows).await?;
        transaction.commit().await?;
        Ok(Stored { rows: merged.rows_affected(), conflicts })
    }
}

/// One COPY.
async fn copy<R: Row>(
    connection: &mut PgConnection,
    statement: &str,
    rows: &[R],
    buffer: &mut CopyBuffer,
) -> Result<u64, sqlx::Error> {
    buffer.begin();
    for row in rows {
        row.encode(buffer);
    }
    let mut copy = connection.copy_in_raw(statement).await?;
    copy.send(buffer.end()).await?;
    copy.finish().await
}

/// Staged rows whose key is held by a row that says something else.
async fn conflicts<R: Row>(
    connection: &mut PgConnection,
    table: &Table,
    rows: &[R],
) -> Result<Vec<QuarantineEntry>, sqlx::Error> {
    let first = rows.iter().map(|row| row.key().time).min().unwrap_or_default();
    let last = rows.iter().map(|row| row.key().time).max().unwrap_or_default();
    let found = sqlx::query(AssertSqlSafe(table.conflicts.as_str()))
        .bind(first.to_utc())
        .bind(last.to_utc())
        .fetch_all(connection)
        .await?;
    let mut entries = Vec::with_capacity(found.len());
    for held in &found {
        let time: OffsetDateTime = held.try_get("time")?;
        let key = Key {
            elevator_id: held.try_get("elevator_id")?,
            time: Timestamp::from(time),
            seq: held.try_get("seq")?,
            source: held.try_get("source")?,
            code: held.try_get("code")?,
        };
        // Sorted by key, without repeated keys.
        if let Ok(at) = rows.binary_search_by(|row| row.key().cmp(&key)) {
            entries.push(key_conflict(&rows[at]));
        }
    }
    Ok(entries)
}

/// Lets go of timeless lists of active faults that only say again what is stored last of their source, and counts
/// them as repeated: their key holds the arrival and cannot tell. One stays that would open or close something all
/// the same, since readings have meanwhile. `rows` are in the order of arrival.
pub(super) async fn lists_dedupe(
    connection: &mut PgConnection,
    rows: &mut Vec<FaultRow<'_>>,
    readings: &[ReadingRow<'_>],
    report: &mut CommitReport,
) -> Result<(), StoreError> {
    if !rows.iter().any(|row| row.timeless) {
        return Ok(());
    }
    let list_key = |row: &FaultRow<'_>| (row.origin.elevator_id, row.origin.source.0);
    let stored = lists_last(connection, rows).await?;
    let mut came: HashMap<(i64, i32), Option<i64>> = HashMap::new();
    let mut again: Vec<Again> = Vec::with_capacity(rows.len());
    for row in &*rows {
        let says = (row.state == STATE_ACTIVE).then_some(row.seq.0);
        let before = came.insert(list_key(row), says);
        again.push(match before {
            _ if !row.timeless => Again::Not,
            Some(before) if before == says => Again::InBatch,
            None if stored.get(&list_key(row)).copied() == says => Again::Stored,
            _ => Again::Not,
        });
    }
    let news = fault_period::lists_news(connection, rows, &again, readings).await?;
    let mut repeats = again.iter().zip(news).map(|(again, is_news)| *again != Again::Not && !is_news);
    rows.retain(|_| {
        let repeats = repeats.next() == Some(true);
        report.rows_repeated += u64::from(repeats);
        !repeats
    });
    Ok(())
}

/// The number of the list that is stored last of each source with a timeless one; absent where that is an event.
async fn lists_last(
    connection: &mut PgConnection,
    rows: &[FaultRow<'_>],
) -> Result<HashMap<(i64, i32), i64>, sqlx::Error> {
    let asked = || rows.iter().filter(|row| row.timeless);
    let elevators: Vec<i64> = asked().map(|row| row.origin.elevator_id).collect();
    let sources: Vec<i32> = asked().map(|row| row.origin.source.0).collect();
    let arrived: Vec<Option<OffsetDateTime>> = asked().map(|row| row.origin.arrival.at.to_utc()).collect();
    let found: Vec<(i64, i32, i64)> = sqlx::query_as(
        "SELECT asked.elevator_id, asked.source, last.seq
         FROM unnest($1::int8[], $2::int4[], $3::timestamptz[]) AS asked (elevator_id, source, arrived)
         CROSS JOIN LATERAL (
             SELECT seq, state
             FROM fault
             WHERE fault.elevator_id = asked.elevator_id
               AND fault.source = asked.source
               AND fault.time > asked.arrived - INTERVAL '1 day'
               AND fault.time > $4
             ORDER BY fault.time DESC
             LIMIT 1
         ) AS last
         WHERE last.state = $5",
    )
    .bind(elevators)
    .bind(sources)
    .bind(&arrived)
    .bind(arrived.iter().flatten().min().map(|first| *first - time::Duration::DAY))
    .bind(STATE_ACTIVE)
    .fetch_all(connection)
    .await?;
    Ok(found.into_iter().map(|(elevator, source, seq)| ((elevator, source), seq)).collect())
}

/// Ranges of one source that its terminal may declare as discarded; those that touch are one. Full: what comes apart
/// from them is not noted, so its numbers stay unaccounted for. Each costs every write of that source's ledger.
const DECLARED_MAX: usize = 1_000;

/// Notes what terminals say they had to discard. Gives how many declarations were not noted.
pub(super) async fn gaps_insert(connection: &mut PgConnection, gaps: &[Gap]) -> Result<u64, StoreError> {
    if gaps.is_empty() {
        return Ok(0);
    }
    let sources: BTreeSet<i32> = gaps.iter().map(|gap| gap.source.0).collect();
    let before: Vec<(i32, i64, i64)> = sqlx::query_as(
        "SELECT source, seq_from, seq_to
         FROM sequence_dropped
         WHERE source = ANY ($1)
           AND reason = 'dropped'",
    )
    .bind(sources.into_iter().collect::<Vec<_>>())
    .fetch_all(&mut *connection)
    .await?;
    let before: BTreeSet<(i32, i64, i64)> = before.into_iter().collect();
    let mut held: BTreeMap<i32, SeqRanges> = BTreeMap::new();
    for (source, from, to) in &before {
        held.entry(*source).or_default().insert(*from, *to);
    }
    let is_left_out =
        |gap: &&Gap| !held.entry(gap.source.0).or_default().insert_bounded(gap.from, gap.to, DECLARED_MAX);
    let left_out = gaps.iter().filter(is_left_out).count() as u64;
    let of_source = |(source, ranges): (i32, SeqRanges)| {
        ranges.as_slice().iter().map(|(from, to)| (source, *from, *to)).collect::<Vec<_>>()
    };
    let now: BTreeSet<(i32, i64, i64)> = held.into_iter().flat_map(of_source).collect();
    if now == before {
        return Ok(left_out);
    }
    // In one statement: what one joins is never gone meanwhile.
    sqlx::query(
        "WITH joined AS (
             DELETE FROM sequence_dropped AS old
             USING unnest($1::int4[], $2::int8[], $3::int8[]) AS gone (source, seq_from, seq_to)
             WHERE old.source = gone.source
               AND old.seq_from = gone.seq_from
               AND old.seq_to = gone.seq_to
               AND old.reason = 'dropped'
         )
         INSERT INTO sequence_dropped (source, seq_from, seq_to, reason)
         SELECT source, seq_from, seq_to, 'dropped'
         FROM unnest($4::int4[], $5::int8[], $6::int8[]) AS new (source, seq_from, seq_to)
         ON CONFLICT DO NOTHING",
    )
    .bind(before.difference(&now).map(|(source, ..)| *source).collect::<Vec<_>>())
    .bind(before.difference(&now).map(|(_, from, _)| *from).collect::<Vec<_>>())
    .bind(before.difference(&now).map(|(.., to)| *to).collect::<Vec<_>>())
    .bind(now.difference(&before).map(|(source, ..)| *source).collect::<Vec<_>>())
    .bind(now.difference(&before).map(|(_, from, _)| *from).collect::<Vec<_>>())
    .bind(now.difference(&before).map(|(.., to)| *to).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(left_out)
}

/// Notes what terminals say of the boot before.
pub(super) async fn told_insert(connection: &mut PgConnection, told: &[Told]) -> Result<(), sqlx::Error> {
    if told.is_empty() {
        return Ok(());
    }
    let sources: Vec<i32> = told.iter().map(|one| one.source.0).collect();
    let last: Vec<i64> = told.iter().map(|one| one.seq_last).collect();
    sqlx::query(
        "INSERT INTO sequence_told (source, seq_last)
         SELECT source, max(seq_last)
         FROM unnest($1::int4[], $2::int8[]) AS told (source, seq_last)
         GROUP BY source
         ORDER BY source
         ON CONFLICT (source) DO UPDATE
         SET seq_last = excluded.seq_last, noted = excluded.noted
         WHERE sequence_told.seq_last < excluded.seq_last",
    )
    .bind(sources)
    .bind(last)
    .execute(connection)
    .await
    .map(drop)
}
