//! Bringing `fault_period` up to what a batch says, in one transaction.

use std::collections::BTreeMap;

use domain::fault_period::{self, Mark, Says};
use domain::order::{Head, Place, arrange, corrected};
use domain::{FaultPeriod, Seq, SourceId, TerminalId, Timestamp};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Connection, Row as _};
use time::OffsetDateTime;

use super::read::{code, codes, period, terminal};
use super::{LOOK_BACK, Of, says};
use crate::StoreError;
use crate::rows::STATE_ACTIVE;

/// Follows what was told. `all_new`: every row of it was stored just now, so the marks are what is stored.
pub(crate) async fn follow(
    connection: &mut PgConnection,
    told: BTreeMap<Of, Vec<Mark>>,
    all_new: bool,
) -> Result<(), StoreError> {
    if told.is_empty() {
        return Ok(());
    }
    let mut transaction = connection.begin().await?;
    let heads = heads_lock(&mut transaction, told.keys()).await?;
    let (mut straight, mut around) = (Vec::new(), Vec::new());
    for (of, marks) in told {
        let head = heads.get(&of).copied().flatten();
        let after = head.is_none_or(|head| head.precedes(marks.iter().map(|mark| mark.place)));
        // Without a head nothing was followed, but rows of an earlier version may be there.
        if all_new && after && head.is_some() {
            straight.push((of, head, marks));
        } else {
            around.push((of, head, marks));
        }
    }
    let mut changed: Vec<(Of, Vec<FaultPeriod>)> = Vec::new();
    let mut moved: Vec<(Of, Head)> = Vec::new();
    let mut open = open_of(&mut transaction, straight.iter().map(|(of, ..)| of)).await?;
    for (of, head, mut marks) in straight {
        arrange(&mut marks, |mark| mark.place, Mark::tie);
        let found = fault_period::follow(open.remove(&of).unwrap_or_default(), &marks);
        moved.extend(advanced(head, &marks).map(|head| (of.clone(), head)));
        changed.push((of, found));
    }
    for (of, head, marks) in around {
        let (found, read) = remade(&mut transaction, &of, &marks).await?;
        moved.extend(advanced(head, &read).map(|head| (of.clone(), head)));
        changed.push((of, found));
    }
    periods_store(&mut transaction, &changed).await?;
    heads_store(&mut transaction, &moved).await?;
    transaction.commit().await?;
    Ok(())
}

/// The head after these marks, which are in their order.
fn advanced(head: Option<Head>, marks: &[Mark]) -> Option<Head> {
    let next = Head::of(marks.iter().map(|mark| mark.place))?;
    let Some(head) = head else { return Some(next) };
    let seq = if next.source == head.source { head.seq.max(next.seq) } else { next.seq };
    let source_max = head.source_max.max(next.source_max);
    Some(Head { source: next.source, source_max, seq, at: head.at.max(next.at) })
}

/// The heads of terminals; their rows are locked, in one order, until the end of the transaction.
async fn heads_lock<'a>(
    connection: &mut PgConnection,
    of: impl Iterator<Item = &'a Of>,
) -> Result<BTreeMap<Of, Option<Head>>, StoreError> {
    let (elevators, terminals): (Vec<i64>, Vec<&str>) = of.map(|(id, name)| (*id, name.as_str())).unzip();
    let rows = sqlx::query(
        "INSERT INTO fault_head AS head (elevator_id, terminal_id)
         SELECT elevator_id, terminal_id
         FROM unnest($1::int8[], $2::text[]) AS asked (elevator_id, terminal_id)
         ORDER BY elevator_id, terminal_id
         ON CONFLICT (elevator_id, terminal_id) DO UPDATE
         SET seq = head.seq
         RETURNING elevator_id, terminal_id, source, source_max, seq, at",
    )
    .bind(elevators)
    .bind(terminals)
    .fetch_all(connection)
    .await?;
    let mut heads = BTreeMap::new();
    for row in &rows {
        let of = (row.try_get("elevator_id")?, terminal(row)?);
        let source: Option<i32> = row.try_get("source")?;
        let head = match source {
            Some(source) => Some(Head {
                source: SourceId(source),
                source_max: SourceId(row.try_get("source_max")?),
                seq: Seq(row.try_get("seq")?),
                at: Timestamp::from(row.try_get::<OffsetDateTime, _>("at")?),
            }),
            None => None,
        };
        heads.insert(of, head);
    }
    Ok(heads)
}

/// What is open at these terminals. What the server itself has opened is not theirs to close.
async fn open_of<'a>(
    connection: &mut PgConnection,
    of: impl Iterator<Item = &'a Of>,
) -> Result<BTreeMap<Of, Vec<FaultPeriod>>, StoreError> {
    let (elevators, terminals): (Vec<i64>, Vec<&str>) = of.map(|(id, name)| (*id, name.as_str())).unzip();
    let mut open: BTreeMap<Of, Vec<FaultPeriod>> = BTreeMap::new();
    if elevators.is_empty() {
        return Ok(open);
    }
    let rows = sqlx::query(
        "SELECT fault_period.*
         FROM unnest($1::int8[], $2::text[]) AS asked (elevator_id, terminal_id)
         JOIN fault_period USING (elevator_id, terminal_id)
         WHERE fault_period.closed IS NULL
           AND fault_period.opened_by <> 'server'
         ORDER BY fault_period.opened, fault_period.code",
    )
    .bind(elevators)
    .bind(terminals)
    .fetch_all(connection)
    .await?;
    for row in &rows {
        open.entry((row.try_get("elevator_id")?, terminal(row)?)).or_default().push(period(row)?);
    }
    Ok(open)
}

/// Makes the periods of a terminal anew from its stored rows. Gives them, and the marks of the rows, in order.
async fn remade(
    connection: &mut PgConnection,
    (elevator, terminal): &Of,
    marks: &[Mark],
) -> Result<(Vec<FaultPeriod>, Vec<Mark>), StoreError> {
    let oldest = marks.iter().map(|mark| mark.time.min(mark.place.at)).min().unwrap_or_default();
    let mut read = marks_of(connection, *elevator, terminal, oldest.minus(LOOK_BACK)).await?;
    arrange(&mut read, |mark| mark.place, Mark::tie);
    let Some(begin) = read.iter().map(|mark| mark.place.at).min() else { return Ok((Vec::new(), read)) };
    let base = sqlx::query(
        "DELETE FROM fault_period
         WHERE elevator_id = $1
           AND terminal_id = $2
           AND opened_by <> 'server'
           AND (opened >= $3 OR closed IS NULL OR closed >= $3)
         RETURNING *",
    )
    .bind(*elevator)
    .bind(terminal.as_str())
    .bind(begin.to_utc())
    .fetch_all(connection)
    .await?;
    let mut open = Vec::new();
    for row in &base {
        let mut period = period(row)?;
        if period.opened < begin {
            (period.closed, period.closed_by) = (None, None);
            open.push(period);
        }
    }
    open.sort_by(|one, other| (one.opened, &one.code.raw).cmp(&(other.opened, &other.code.raw)));
    Ok((fault_period::follow(open, &read), read))
}

async fn marks_of(
    connection: &mut PgConnection,
    elevator: i64,
    terminal: &TerminalId,
    since: Timestamp,
) -> Result<Vec<Mark>, StoreError> {
    let rows = sqlx::query(
        "SELECT fault.time, fault.seq, fault.arrived, fault.source, fault.age_ms,
                fault.state, fault.code, fault.slug, fault.codes, fault.code_slugs
         FROM fault
         JOIN source USING (source)
         WHERE fault.elevator_id = $1
           AND fault.time >= $3
           AND source.terminal_id = $2",
    )
    .bind(elevator)
    .bind(terminal.as_str())
    .bind(since.to_utc())
    .fetch_all(connection)
    .await?;
    rows.iter().filter_map(|row| mark(row).transpose()).collect()
}

fn mark(row: &PgRow) -> Result<Option<Mark>, StoreError> {
    let time = Timestamp::from(row.try_get::<OffsetDateTime, _>("time")?);
    let arrived = Timestamp::from(row.try_get::<OffsetDateTime, _>("arrived")?);
    let at = corrected(arrived, time, row.try_get("age_ms")?);
    let place = Place { source: SourceId(row.try_get("source")?), seq: Seq(row.try_get("seq")?), at };
    let state: i16 = row.try_get("state")?;
    let says = if state == STATE_ACTIVE { Some(Says::List(codes(row)?)) } else { says(state, code(row)?) };
    Ok(says.map(|says| Mark { place, time, says }))
}

async fn periods_store(
    connection: &mut PgConnection,
    changed: &[(Of, Vec<FaultPeriod>)],
) -> Result<(), StoreError> {
    let rows = || {
        changed.iter().flat_map(|((elevator, terminal), periods)| {
            periods.iter().map(move |period| (*elevator, terminal.as_str(), period))
        })
    };
    if rows().next().is_none() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO fault_period AS period
             (elevator_id, opened, closed, device_time, listed, terminal_id, code, slug, opened_by, closed_by)
         SELECT *
         FROM unnest($1::int8[], $2::timestamptz[], $3::timestamptz[], $4::timestamptz[], $5::bool[],
                     $6::text[], $7::text[], $8::text[], $9::text[], $10::text[])
         ON CONFLICT (elevator_id, terminal_id, code, opened) DO UPDATE
         SET closed = EXCLUDED.closed, closed_by = EXCLUDED.closed_by, listed = EXCLUDED.listed
         WHERE (period.closed, period.closed_by, period.listed)
             IS DISTINCT FROM (EXCLUDED.closed, EXCLUDED.closed_by, EXCLUDED.listed)",
    )
    .bind(rows().map(|(elevator, ..)| elevator).collect::<Vec<_>>())
    .bind(rows().map(|(.., period)| period.opened.to_utc()).collect::<Vec<_>>())
    .bind(rows().map(|(.., period)| period.closed.and_then(Timestamp::to_utc)).collect::<Vec<_>>())
    .bind(rows().map(|(.., period)| period.device_time.and_then(Timestamp::to_utc)).collect::<Vec<_>>())
    .bind(rows().map(|(.., period)| period.listed).collect::<Vec<_>>())
    .bind(rows().map(|(_, terminal, _)| terminal).collect::<Vec<_>>())
    .bind(rows().map(|(.., period)| &*period.code.raw).collect::<Vec<_>>())
    .bind(rows().map(|(.., period)| period.code.fault.slug).collect::<Vec<_>>())
    .bind(rows().map(|(.., period)| period.opened_by.slug()).collect::<Vec<_>>())
    .bind(rows().map(|(.., period)| period.closed_by.map(domain::ClosedBy::slug)).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

async fn heads_store(connection: &mut PgConnection, moved: &[(Of, Head)]) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE fault_head
         SET source = moved.source, source_max = moved.source_max, seq = moved.seq, at = moved.at
         FROM unnest($1::int8[], $2::text[], $3::int4[], $4::int4[], $5::int8[], $6::timestamptz[])
             AS moved (elevator_id, terminal_id, source, source_max, seq, at)
         WHERE fault_head.elevator_id = moved.elevator_id
           AND fault_head.terminal_id = moved.terminal_id",
    )
    .bind(moved.iter().map(|((elevator, _), _)| *elevator).collect::<Vec<_>>())
    .bind(moved.iter().map(|((_, terminal), _)| terminal.as_str()).collect::<Vec<_>>())
    .bind(moved.iter().map(|(_, head)| head.source.0).collect::<Vec<_>>())
    .bind(moved.iter().map(|(_, head)| head.source_max.0).collect::<Vec<_>>())
    .bind(moved.iter().map(|(_, head)| head.seq.0).collect::<Vec<_>>())
    .bind(moved.iter().map(|(_, head)| head.at.to_utc()).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}
