//! The books beside the rows, and how the ledger is mended.

use std::collections::{BTreeMap, HashMap};

use domain::{SourceId, Timestamp};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Connection, Row as _};
use time::OffsetDateTime;

use super::note::Run;
use super::table;
use super::verdict::{Books, Yardstick};
use crate::access::note;
use crate::{Database, SeqRanges, StoreError};

/// What is wrong in the ledger of a source.
#[derive(Debug)]
pub(crate) struct Mend {
    pub(crate) source: SourceId,
    pub(crate) add: SeqRanges,
    pub(crate) remove: SeqRanges,
}

/// Everything but the rows, in the order of their numbers: ranges out of order cost the square of their count. `floors`: of elevators whose rows may be deleted up to a later time than those of
/// others. Returns how many numbers were filled late.
pub(crate) async fn side_books(
    connection: &mut PgConnection,
    ids: &[i32],
    books: &mut BTreeMap<i32, Books>,
    by: &Yardstick,
    floors: &HashMap<i64, Timestamp>,
) -> Result<BTreeMap<i32, u64>, StoreError> {
    let range = |row: &PgRow| -> Result<(i32, i64, i64), StoreError> {
        Ok((row.try_get("source")?, row.try_get("seq_from")?, row.try_get("seq_to")?))
    };
    let quarantined = sqlx::query(
        "SELECT source.source, lower(range) AS seq_from, upper(range) - 1 AS seq_to, arrived
         FROM source
         JOIN quarantine USING (terminal_id, boot)
         CROSS JOIN LATERAL unnest(numbers) AS range
         WHERE source.source = ANY ($1)
           AND numbers IS NOT NULL
         ORDER BY source.source, range",
    )
    .bind(ids)
    .fetch_all(&mut *connection)
    .await?;
    for row in &quarantined {
        let (source, from, to) = range(row)?;
        let book = books.entry(source).or_default();
        book.quarantined.insert(from, to);
        book.heard.push((to, row.try_get::<OffsetDateTime, _>("arrived")?.into()));
    }
    let gone = sqlx::query(
        "SELECT source, seq_from, seq_to, noted, reason
         FROM sequence_dropped
         WHERE source = ANY ($1)
         ORDER BY source, seq_from",
    )
    .bind(ids)
    .fetch_all(&mut *connection)
    .await?;
    for row in &gone {
        let (source, from, to) = range(row)?;
        let book = books.entry(source).or_default();
        let by_operator = row.try_get::<&str, _>("reason")? == "discarded";
        if by_operator { &mut book.discarded } else { &mut book.dropped }.insert(from, to);
        book.heard.push((to, row.try_get::<OffsetDateTime, _>("noted")?.into()));
    }
    let told = sqlx::query(
        "SELECT own.source, told.seq_last, told.noted
         FROM unnest($1::int4[]) AS own (source)
         CROSS JOIN LATERAL source_told(own.source) AS told",
    )
    .bind(ids)
    .fetch_all(&mut *connection)
    .await?;
    for row in &told {
        let book = books.entry(row.try_get("source")?).or_default();
        let one = (row.try_get("seq_last")?, row.try_get::<OffsetDateTime, _>("noted")?.into());
        book.told = book.told.max(Some(one));
    }
    let ledger = sqlx::query(
        "SELECT source, time_first, elevators,
                ARRAY(SELECT lower(range) FROM unnest(accounted) AS range ORDER BY range) AS froms,
                ARRAY(SELECT upper(range) - 1 FROM unnest(accounted) AS range ORDER BY range) AS tos,
                ARRAY(SELECT lower(range) FROM unnest(expired) AS range ORDER BY range) AS expired_froms,
                ARRAY(SELECT upper(range) - 1 FROM unnest(expired) AS range ORDER BY range) AS expired_tos
         FROM sequence_ledger
         WHERE source = ANY ($1)",
    )
    .bind(ids)
    .fetch_all(&mut *connection)
    .await?;
    for row in &ledger {
        let book = books.entry(row.try_get("source")?).or_default();
        let (froms, tos): (Vec<i64>, Vec<i64>) = (row.try_get("froms")?, row.try_get("tos")?);
        book.claimed = froms.into_iter().zip(tos).collect();
        let (froms, tos): (Vec<i64>, Vec<i64>) = (row.try_get("expired_froms")?, row.try_get("expired_tos")?);
        book.expired = froms.into_iter().zip(tos).collect();
        let elevators: Vec<i64> = row.try_get("elevators")?;
        book.kept_since = elevators.iter().filter_map(|elevator| floors.get(elevator)).max().copied();
        book.time_first = row.try_get::<Option<OffsetDateTime>, _>("time_first")?.map(Timestamp::from);
    }
    let gaps = sqlx::query(
        "SELECT source, seq_from, seq_to, noted, settled, outcome
         FROM sequence_gap
         WHERE source = ANY ($1)
         ORDER BY source, seq_from",
    )
    .bind(ids)
    .fetch_all(&mut *connection)
    .await?;
    let mut filled: BTreeMap<i32, u64> = BTreeMap::new();
    for row in &gaps {
        let (source, from, to) = range(row)?;
        let settled: Option<OffsetDateTime> = row.try_get("settled")?;
        if row.try_get::<&str, _>("outcome")? == "filled" {
            if settled.is_some_and(|at| by.covers(at.into())) {
                let sum = filled.entry(source).or_default();
                *sum = sum.saturating_add((to - from).unsigned_abs() + 1);
            }
        } else {
            let noted = row.try_get::<OffsetDateTime, _>("noted")?.into();
            books.entry(source).or_default().noted.push((from, to, noted));
        }
    }
    Ok(filled)
}

/// Takes away what the ledger claims wrongly and adds what it lacks, which for rows is read again with elevator
/// and time. What the server writes meanwhile stays.
pub(crate) async fn mend(
    database: &Database,
    connection: &mut PgConnection,
    mends: &[Mend],
    actor: &str,
    now: Timestamp,
) -> Result<u64, StoreError> {
    let mut reader = database.connection().await?;
    let mut rows = reader.begin().await?;
    let mut transaction = connection.begin().await?;
    let (mut added, mut removed) = (0_u64, 0_u64);
    for mend in mends.iter().filter(|mend| !mend.remove.is_empty()) {
        removed = removed.saturating_add(mend.remove.count());
        let (from, to): (Vec<i64>, Vec<i64>) = mend.remove.as_slice().iter().copied().unzip();
        sqlx::query(
            "UPDATE sequence_ledger
             SET accounted = accounted - (
                 SELECT range_agg(int8range(seq_from, seq_to, '[]'))
                 FROM unnest($2::int8[], $3::int8[]) AS wrong (seq_from, seq_to)
             )
             WHERE source = $1",
        )
        .bind(mend.source.0)
        .bind(from)
        .bind(to)
        .execute(&mut *transaction)
        .await?;
    }
    let behind: Vec<String> =
        mends.iter().filter(|mend| !mend.add.is_empty()).map(|mend| mend.source.0.to_string()).collect();
    if !behind.is_empty() {
        table::runs_declare(&mut rows, &format!("source = ANY ('{{{}}}'::int4[])", behind.join(","))).await?;
        while let Some(runs) = table::runs_fetch(&mut rows).await? {
            table::write(&mut transaction, &runs, &[], now).await?;
        }
    }
    for part in mends.chunks(1_000) {
        let run = |source: SourceId, (from, to): (i64, i64)| Run {
            source,
            elevator: None,
            from,
            to,
            time_first: None,
        };
        let runs: Vec<Run> = part
            .iter()
            .flat_map(|mend| mend.add.as_slice().iter().map(|range| run(mend.source, *range)))
            .collect();
        added = part.iter().fold(added, |sum, mend| sum.saturating_add(mend.add.count()));
        let touched: Vec<SourceId> = part.iter().map(|mend| mend.source).collect();
        table::write(&mut transaction, &runs, &touched, now).await?;
    }
    let detail = serde_json::json!({ "sources": mends.len(), "added": added, "removed": removed });
    note(&mut transaction, actor, "ledger.repair", "", detail).await?;
    transaction.commit().await?;
    rows.commit().await?;
    let _ = reader.close().await;
    Ok(mends.len() as u64)
}
