//! Bringing `fault_period` up to what a batch says, in one transaction.

use std::collections::BTreeMap;
use std::sync::Arc;

use domain::fault_period::{self, Mark, Says, Shown};
use domain::order::{Head, Place, arrange};
use domain::{FaultPeriod, Timestamp};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Connection, Row as _};

use super::read::{period, terminal};
use super::remade::remade;
use super::standing::{self, Standing, Standings};
use super::{Of, SLACK, Told};
use crate::StoreError;

/// A terminal as its rows say, and what it tells now, in order.
struct One {
    of: Of,
    head: Option<Head>,
    /// All that it ever said was followed; nothing, if there is no head.
    is_whole: bool,
    changed: Option<Timestamp>,
    open: Vec<FaultPeriod>,
    marks: Vec<Mark>,
}

/// Whether every row of a batch was stored just now, so that its marks are what is stored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AllNew {
    pub(crate) events: bool,
    pub(crate) readings: bool,
}

/// What following took.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Report {
    pub(crate) statements: u32,
    /// Faults not opened, because a terminal has as many open as are kept.
    pub(crate) left_out: u64,
}

/// Follows what was told.
pub(crate) async fn follow(
    connection: &mut PgConnection,
    standings: &mut Standings,
    mut told: BTreeMap<Of, Told>,
    new: AllNew,
) -> Result<Report, StoreError> {
    let mut report =
        Report { statements: late_take(connection, standings, &mut told, new).await?, left_out: 0 };
    if told.is_empty() {
        return Ok(report);
    }
    report.statements += 4;
    let mut transaction = connection.begin().await?;
    let mut heads = heads_lock(&mut transaction, told.keys()).await?;
    let mut open = open_of(&mut transaction, told.keys()).await?;
    let mut changes = Changes::default();
    let mut moved: Vec<(Of, Head, Option<Timestamp>)> = Vec::new();
    let mut followed: Vec<One> = Vec::new();
    for (of, told) in told {
        let (head, until, is_whole) = heads.remove(&of).unwrap_or_default();
        let before = open.remove(&of).unwrap_or_default();
        let standing = standings.get(&of);
        let (only_shown, oldest, mut since) = (told.is_shown(), told.oldest(), told.since);
        let all_new = (new.events || only_shown) && (new.readings || !told.has_shown());
        if standing.is_none_or(|it| it.head != head || it.open != before) {
            // Another process has followed meanwhile what is not known here.
            since = since.into_iter().chain(standing.and_then(|standing| standing.quiet)).min();
        }
        // Nothing was followed, so nothing has changed either.
        let changed = if is_whole && head.is_none() { Some(Timestamp::default()) } else { until };
        let mut one = One { of, head, is_whole, changed, open: before, marks: told.marks };
        arrange(&mut one.marks, |mark| mark.place, Mark::tie);
        if since.is_none() && all_new && is_straight(&one, standing) {
            let found = fault_period::follow(one.open.clone(), &one.marks);
            report.left_out += found.left_out;
            let before = std::mem::take(&mut one.open);
            one.go_on(found.periods, &before, None, &mut changes);
        } else if let Some(oldest) = oldest.into_iter().chain(since).min() {
            report.statements += 4;
            if let Some(remade) = remade(&mut transaction, &one.of, &one.marks, oldest).await? {
                report.left_out += remade.left_out;
                one.go_on(remade.periods, &remade.before, Some(&remade.read), &mut changes);
            }
        }
        moved.extend(one.head.map(|head| (one.of.clone(), head, one.changed)));
        followed.push(one);
    }
    periods_delete(&mut transaction, &changes.gone).await?;
    periods_store(&mut transaction, &changes.new).await?;
    heads_store(&mut transaction, &moved).await?;
    transaction.commit().await?;
    for One { of, head, changed, open, marks, .. } in followed {
        standings.followed(of, head, changed, open, &marks);
    }
    Ok(report)
}

/// What is to be written.
#[derive(Debug, Default)]
struct Changes {
    /// Periods that are new, or not as they were.
    new: Vec<(Of, FaultPeriod)>,
    /// Periods that never were, as it turns out.
    gone: Vec<(Of, FaultPeriod)>,
}

impl One {
    /// Takes what became of the periods that were stored before, and what was read for it if not only its marks.
    fn go_on(
        &mut self,
        found: Vec<FaultPeriod>,
        before: &[FaultPeriod],
        read: Option<&[Mark]>,
        changes: &mut Changes,
    ) {
        self.head = advanced(self.head, read.unwrap_or(&self.marks));
        let ends = found.iter().flat_map(|it| [Some(it.opened), it.closed, it.listed]).flatten();
        self.changed = ends.chain(self.changed).max();
        self.open = found.iter().filter(|period| period.is_open()).cloned().collect();
        in_order(&mut self.open);
        let key = |period: &FaultPeriod| (Arc::clone(&period.code.raw), period.opened);
        let mut before: BTreeMap<_, &FaultPeriod> = before.iter().map(|it| (key(it), it)).collect();
        for period in found {
            if before.remove(&key(&period)) != Some(&period) {
                changes.new.push((self.of.clone(), period));
            }
        }
        changes.gone.extend(before.into_values().map(|period| (self.of.clone(), period.clone())));
    }
}

/// In the order in which open periods are held and compared.
pub(super) fn in_order(open: &mut [FaultPeriod]) {
    open.sort_by(|one, other| (one.opened, &one.code.raw).cmp(&(other.opened, &other.code.raw)));
}

/// Whether the marks come after everything that its periods are made of.
fn is_straight(one: &One, standing: Option<&Standing>) -> bool {
    // Without a head nothing was followed, but rows of an earlier version may be there.
    let begins = one.is_whole && one.head.is_none();
    (begins || one.head.is_some_and(|head| head.precedes(one.marks.iter().map(|mark| mark.place))))
        && standing.is_some_and(|standing| standing.lets_pass(&one.open, &one.marks))
}

/// Takes readings that came late and show only what the periods say of their time, for all terminals at once and
/// without a transaction. Gives how many statements that took.
async fn late_take(
    connection: &mut PgConnection,
    standings: &mut Standings,
    told: &mut BTreeMap<Of, Told>,
    new: AllNew,
) -> Result<u32, StoreError> {
    let mut late: BTreeMap<Of, (Timestamp, Timestamp)> = BTreeMap::new();
    for (of, told) in told.iter().filter(|(_, told)| told.since.is_none() && told.is_shown()) {
        let Some(head) = standings.get(of).and_then(|standing| standing.head) else { continue };
        let places = || told.marks.iter().map(|mark| mark.place);
        let (first, last) = (places().map(|place| place.at).min(), places().map(|place| place.at).max());
        // Numbered after what was followed, and not later by the clock: it was set back. Time tells no order then.
        let is_set_back = |place: Place| {
            place.source == head.source && place.seq > head.seq && place.at <= head.at && head.seq.0 > 0
        };
        if let (Some(first), Some(last)) = (first, last)
            && !(new.readings && head.precedes(places()))
            && !places().any(is_set_back)
        {
            late.insert(of.clone(), (first.minus(SLACK), last.plus(SLACK)));
        }
    }
    if late.is_empty() {
        return Ok(0);
    }
    let mut periods = periods_of(connection, &late).await?;
    for (of, (from, to)) in late {
        let mut open = periods.remove(&of).unwrap_or_default();
        let lies_within = |at: Timestamp| (from..=to).contains(&at);
        let changes =
            |it: &FaultPeriod| [Some(it.opened), it.closed, it.listed].into_iter().flatten().any(lies_within);
        if open.iter().any(changes) {
            continue;
        }
        for period in &mut open {
            period.listed = period.listed.filter(|listed| *listed < from);
        }
        let says_nothing_new = |mark: &Mark| match &mark.says {
            Says::Shown(Shown { codes, normal }) => !Shown::is_news(&open, codes.as_deref(), *normal),
            _ => false,
        };
        if let Some(told) = told.get(&of).filter(|told| told.marks.iter().all(says_nothing_new)) {
            standings.take_late(&of, &told.marks);
        } else {
            continue;
        }
        told.remove(&of);
    }
    Ok(1)
}

/// The periods of terminals that lie in a span of each, or reach into it.
async fn periods_of(
    connection: &mut PgConnection,
    spans: &BTreeMap<Of, (Timestamp, Timestamp)>,
) -> Result<BTreeMap<Of, Vec<FaultPeriod>>, StoreError> {
    let rows = sqlx::query(
        "SELECT fault_period.*
         FROM unnest($1::int8[], $2::text[], $3::timestamptz[], $4::timestamptz[])
             AS asked (elevator_id, terminal_id, since, until)
         CROSS JOIN LATERAL (
             SELECT *
             FROM fault_period
             WHERE fault_period.elevator_id = asked.elevator_id
               AND fault_period.terminal_id = asked.terminal_id
               AND fault_period.closed IS NULL
             UNION ALL
             SELECT *
             FROM fault_period
             WHERE fault_period.elevator_id = asked.elevator_id
               AND fault_period.terminal_id = asked.terminal_id
               AND fault_period.closed >= asked.since
         ) AS fault_period
         WHERE fault_period.opened_by <> 'server'
           AND fault_period.opened <= asked.until",
    )
    .bind(spans.keys().map(|(elevator, _)| *elevator).collect::<Vec<_>>())
    .bind(spans.keys().map(|(_, terminal)| terminal.as_str()).collect::<Vec<_>>())
    .bind(spans.values().map(|(from, _)| from.to_utc()).collect::<Vec<_>>())
    .bind(spans.values().map(|(_, to)| to.to_utc()).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    periods_by_terminal(&rows)
}

fn periods_by_terminal(rows: &[PgRow]) -> Result<BTreeMap<Of, Vec<FaultPeriod>>, StoreError> {
    let mut periods: BTreeMap<Of, Vec<FaultPeriod>> = BTreeMap::new();
    for row in rows {
        periods.entry((row.try_get("elevator_id")?, terminal(row)?)).or_default().push(period(row)?);
    }
    Ok(periods)
}

/// The head after these marks, which are in their order.
fn advanced(head: Option<Head>, marks: &[Mark]) -> Option<Head> {
    marks.iter().fold(head, |head, mark| Some(Head::after(head, mark.place)))
}

/// The heads of terminals; their rows are locked, in one order, until the end of the transaction. Beside each whether
/// its terminal was first heard when all was followed already: since migration 9.
async fn heads_lock<'a>(
    connection: &mut PgConnection,
    of: impl Iterator<Item = &'a Of>,
) -> Result<BTreeMap<Of, (Option<Head>, Option<Timestamp>, bool)>, StoreError> {
    let (elevators, terminals): (Vec<i64>, Vec<&str>) = of.map(|(id, name)| (*id, name.as_str())).unzip();
    let rows = sqlx::query(
        "INSERT INTO fault_head AS head (elevator_id, terminal_id)
         SELECT elevator_id, terminal_id
         FROM unnest($1::int8[], $2::text[]) AS asked (elevator_id, terminal_id)
         ORDER BY elevator_id, terminal_id
         ON CONFLICT (elevator_id, terminal_id) DO UPDATE
         SET seq = head.seq
         RETURNING elevator_id, terminal_id, source, source_max, seq, at, changed,
             CASE WHEN source IS NULL THEN (
                 SELECT source.first_seen
                 FROM source
                 WHERE source.terminal_id = head.terminal_id
                 ORDER BY source.source
                 LIMIT 1
             ) > (
                 SELECT installed_on
                 FROM _sqlx_migrations
                 WHERE version = 9
             ) END IS TRUE AS is_whole",
    )
    .bind(elevators)
    .bind(terminals)
    .fetch_all(connection)
    .await?;
    let mut heads = BTreeMap::new();
    for row in &rows {
        let of = (row.try_get("elevator_id")?, terminal(row)?);
        let (head, changed) = standing::head(row, "source", "seq")?;
        heads.insert(of, (head, changed, row.try_get("is_whole")?));
    }
    Ok(heads)
}

/// What is open at these terminals. What the server itself has opened is not theirs to close.
pub(super) async fn open_of<'a>(
    connection: &mut PgConnection,
    of: impl Iterator<Item = &'a Of>,
) -> Result<BTreeMap<Of, Vec<FaultPeriod>>, StoreError> {
    let (elevators, terminals): (Vec<i64>, Vec<&str>) = of.map(|(id, name)| (*id, name.as_str())).unzip();
    let rows = sqlx::query(
        "SELECT fault_period.*
         FROM unnest($1::int8[], $2::text[]) AS asked (elevator_id, terminal_id)
         JOIN fault_period USING (elevator_id, terminal_id)
         WHERE fault_period.closed IS NULL
           AND fault_period.opened_by <> 'server'",
    )
    .bind(elevators)
    .bind(terminals)
    .fetch_all(connection)
    .await?;
    let mut open = periods_by_terminal(&rows)?;
    for open in open.values_mut() {
        in_order(open);
    }
    Ok(open)
}

async fn periods_delete(connection: &mut PgConnection, gone: &[(Of, FaultPeriod)]) -> Result<(), StoreError> {
    if gone.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "DELETE FROM fault_period
         USING unnest($1::int8[], $2::text[], $3::text[], $4::timestamptz[])
             AS gone (elevator_id, terminal_id, code, opened)
         WHERE fault_period.elevator_id = gone.elevator_id
           AND fault_period.terminal_id = gone.terminal_id
           AND fault_period.code = gone.code
           AND fault_period.opened = gone.opened",
    )
    .bind(gone.iter().map(|((elevator, _), _)| *elevator).collect::<Vec<_>>())
    .bind(gone.iter().map(|((_, terminal), _)| terminal.as_str()).collect::<Vec<_>>())
    .bind(gone.iter().map(|(_, period)| &*period.code.raw).collect::<Vec<_>>())
    .bind(gone.iter().map(|(_, period)| period.opened.to_utc()).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

async fn periods_store(
    connection: &mut PgConnection,
    periods: &[(Of, FaultPeriod)],
) -> Result<(), StoreError> {
    let rows = || periods.iter().map(|((elevator, terminal), period)| (*elevator, terminal.as_str(), period));
    if periods.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO fault_period
             (elevator_id, opened, closed, device_time, listed, terminal_id, code, slug, opened_by, closed_by)
         SELECT *
         FROM unnest($1::int8[], $2::timestamptz[], $3::timestamptz[], $4::timestamptz[], $5::timestamptz[],
                     $6::text[], $7::text[], $8::text[], $9::text[], $10::text[])
         ON CONFLICT (elevator_id, terminal_id, code, opened) DO UPDATE
         SET closed = EXCLUDED.closed, closed_by = EXCLUDED.closed_by, listed = EXCLUDED.listed,
             device_time = EXCLUDED.device_time, opened_by = EXCLUDED.opened_by, slug = EXCLUDED.slug",
    )
    .bind(rows().map(|(elevator, ..)| elevator).collect::<Vec<_>>())
    .bind(rows().map(|(.., period)| period.opened.to_utc()).collect::<Vec<_>>())
    .bind(rows().map(|(.., period)| period.closed.and_then(Timestamp::to_utc)).collect::<Vec<_>>())
    .bind(rows().map(|(.., period)| period.device_time.and_then(Timestamp::to_utc)).collect::<Vec<_>>())
    .bind(rows().map(|(.., period)| period.listed.and_then(Timestamp::to_utc)).collect::<Vec<_>>())
    .bind(rows().map(|(_, terminal, _)| terminal).collect::<Vec<_>>())
    .bind(rows().map(|(.., period)| &*period.code.raw).collect::<Vec<_>>())
    .bind(rows().map(|(.., period)| period.code.fault.slug).collect::<Vec<_>>())
    .bind(rows().map(|(.., period)| period.opened_by.slug()).collect::<Vec<_>>())
    .bind(rows().map(|(.., period)| period.closed_by.map(domain::ClosedBy::slug)).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

async fn heads_store(
    connection: &mut PgConnection,
    moved: &[(Of, Head, Option<Timestamp>)],
) -> Result<(), StoreError> {
    if moved.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "UPDATE fault_head
         SET source = moved.source, source_max = moved.source_max, seq = moved.seq, at = moved.at,
             changed = moved.changed
         FROM unnest($1::int8[], $2::text[], $3::int4[], $4::int4[], $5::int8[], $6::timestamptz[],
                     $7::timestamptz[])
             AS moved (elevator_id, terminal_id, source, source_max, seq, at, changed)
         WHERE fault_head.elevator_id = moved.elevator_id
           AND fault_head.terminal_id = moved.terminal_id",
    )
    .bind(moved.iter().map(|((elevator, _), ..)| *elevator).collect::<Vec<_>>())
    .bind(moved.iter().map(|((_, terminal), ..)| terminal.as_str()).collect::<Vec<_>>())
    .bind(moved.iter().map(|(_, head, _)| head.source.0).collect::<Vec<_>>())
    .bind(moved.iter().map(|(_, head, _)| head.source_max.0).collect::<Vec<_>>())
    .bind(moved.iter().map(|(_, head, _)| head.seq.0).collect::<Vec<_>>())
    .bind(moved.iter().map(|(_, head, _)| head.at.to_utc()).collect::<Vec<_>>())
    .bind(moved.iter().map(|(.., changed)| changed.and_then(Timestamp::to_utc)).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}
