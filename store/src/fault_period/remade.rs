//! Making the periods of a terminal anew from its stored rows.
//!
//! Promises: what the rows that are still there cannot explain stays as it is. Readings are kept for a shorter
//! time than periods. No more rows are read than [`READINGS_MAX`] and [`MARKS_MAX`]: what a terminal has said before
//! its newest so many stays as it is too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use domain::fault_period::{self, Followed, Mark, Says, Shown};
use domain::order::{Place, arrange, corrected};
use domain::{ClosedBy, FaultPeriod, OpenedBy, Seq, SourceId, TerminalId, Timestamp, limits};
use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgRow};
use time::OffsetDateTime;

use super::follow::in_order;
use super::read::{boot, code, period};
use super::{LISTS_BACK, LOOK_BACK, Of, says};
use crate::StoreError;
use crate::recovery::codes;
use crate::rows::STATE_ACTIVE;

/// Readings that are looked through: eight days of one a second.
const READINGS_MAX: i64 = 700_000;
/// Rows of `fault`, and readings that show something else than the one before, that are followed again: a fault
/// that comes and goes all week each 12 s.
const MARKS_MAX: usize = 100_000;

/// The periods of a terminal since some time.
pub(super) struct Remade {
    pub(super) periods: Vec<FaultPeriod>,
    /// As they were stored before.
    pub(super) before: Vec<FaultPeriod>,
    /// What was read, in order.
    pub(super) read: Vec<Mark>,
    /// As in `Followed`.
    pub(super) left_out: u64,
}

/// Makes the periods of a terminal anew from `oldest` on, or from where its stored rows say that one of `marks`
/// belongs; nothing where no row is left.
pub(super) async fn remade(
    connection: &mut PgConnection,
    (elevator, terminal): &Of,
    marks: &[Mark],
    oldest: Timestamp,
) -> Result<Option<Remade>, StoreError> {
    let told = events(connection, *elevator, terminal, oldest.minus(LOOK_BACK)).await?;
    let since = first_concerned(&told, marks).map_or(oldest, |first| first.min(oldest)).minus(LISTS_BACK);
    let since = since.max(bounded(&told)).max(readings_from(connection, *elevator, since).await?);
    let mut read = readings(connection, *elevator, terminal, since).await?;
    let since = since.max(bounded(&read));
    let lists_from = read.iter().map(|mark| mark.place.at).filter(|at| *at >= since).min();
    read.extend(told);
    // Boots follow one another by all that is known of them, not by what is left of each from here on.
    arrange(&mut read, |mark| mark.place, Mark::tie);
    read.retain(|mark| mark.place.at >= since);
    let Some(begin) = read.iter().map(|mark| mark.place.at).min() else { return Ok(None) };
    let rows = sqlx::query(
        "SELECT *
         FROM fault_period
         WHERE elevator_id = $1
           AND terminal_id = $2
           AND opened_by <> 'server'
           AND closed IS NULL
         UNION ALL
         SELECT *
         FROM fault_period
         WHERE elevator_id = $1
           AND terminal_id = $2
           AND opened_by <> 'server'
           AND closed >= $3",
    )
    .bind(*elevator)
    .bind(terminal.as_str())
    .bind(begin.to_utc())
    .fetch_all(connection)
    .await?;
    let said: BTreeSet<Timestamp> = read.iter().map(|mark| mark.place.at).collect();
    let is_gone =
        |at: Timestamp| at >= begin && lists_from.is_none_or(|from| at < from) && !said.contains(&at);
    let before = rows.iter().map(period).collect::<Result<Vec<_>, _>>()?;
    let (mut open, mut stay) = (Vec::new(), Vec::new());
    for mut period in before.iter().cloned() {
        let by_list = matches!(period.closed_by, Some(ClosedBy::List | ClosedBy::Normal | ClosedBy::NoFault));
        if by_list && period.closed.is_some_and(is_gone) {
            stay.push(period);
        } else if period.opened < begin || (period.opened_by == OpenedBy::List && is_gone(period.opened)) {
            (period.closed, period.closed_by) = (None, None);
            period.listed = period.listed.filter(|listed| *listed < begin || is_gone(*listed));
            open.push(period);
        }
    }
    in_order(&mut open);
    let Followed { mut periods, left_out } = fault_period::follow(open, &read);
    let too_old = |mark: &&Mark| mark.place.at < since && matches!(mark.says, Says::Open(_) | Says::Once(_));
    let left_out = left_out + marks.iter().filter(too_old).count() as u64;
    let until = |it: &FaultPeriod| ((Arc::clone(&it.code.raw), it.opened), it.closed);
    let stays: BTreeMap<_, _> = stay.iter().map(until).collect();
    periods.retain(|period| {
        let key = (Arc::clone(&period.code.raw), period.opened);
        let before = stays.range(..=&key).next_back().filter(|((raw, _), _)| *raw == key.0);
        !before.is_some_and(|(_, closed)| closed.is_some_and(|closed| period.opened <= closed))
    });
    periods.extend(stay);
    Ok(Some(Remade { periods, before, read, left_out }))
}

/// Where so many were read that there may be older ones: from where on it is all.
fn bounded(read: &[Mark]) -> Timestamp {
    let oldest = read.iter().map(|mark| mark.place.at).min();
    oldest.filter(|_| read.len() >= MARKS_MAX).unwrap_or_default()
}

/// `since`, or later: where the newest [`READINGS_MAX`] begin.
async fn readings_from(
    connection: &mut PgConnection,
    elevator: i64,
    since: Timestamp,
) -> Result<Timestamp, StoreError> {
    let found: Option<OffsetDateTime> = sqlx::query_scalar(
        "SELECT time
         FROM telemetry
         WHERE elevator_id = $1
           AND time >= $2
         ORDER BY time DESC
         OFFSET $3
         LIMIT 1",
    )
    .bind(elevator)
    .bind(since.to_utc())
    .bind(READINGS_MAX)
    .fetch_optional(connection)
    .await?;
    Ok(found.map_or(since, Timestamp::from))
}

/// The earliest time of what comes at or after any of `marks` in the order of all.
fn first_concerned(told: &[Mark], marks: &[Mark]) -> Option<Timestamp> {
    let mut all: Vec<&Mark> = told.iter().chain(marks).collect();
    arrange(&mut all, |mark| mark.place, |mark| mark.tie());
    let key = |mark: &Mark| (mark.place.source, mark.place.seq, mark.place.at);
    let places: BTreeSet<_> = marks.iter().map(key).collect();
    let concerned = all.iter().position(|mark| places.contains(&key(mark)))?;
    all[concerned..].iter().map(|mark| mark.time.min(mark.place.at)).min()
}

async fn events(
    connection: &mut PgConnection,
    elevator: i64,
    terminal: &TerminalId,
    since: Timestamp,
) -> Result<Vec<Mark>, StoreError> {
    let rows = sqlx::query(
        "SELECT fault.time, fault.seq, fault.arrived, fault.source, source.boot, fault.age_ms,
                fault.state, fault.code, fault.slug, fault.codes, fault.code_slugs
         FROM fault
         JOIN source USING (source)
         WHERE fault.elevator_id = $1
           AND fault.time >= $3
           AND source.terminal_id = $2
         ORDER BY fault.time DESC
         LIMIT $4",
    )
    .bind(elevator)
    .bind(terminal.as_str())
    .bind(since.to_utc())
    .bind(MARKS_MAX as i64)
    .fetch_all(connection)
    .await?;
    rows.iter().filter_map(|row| event(row).transpose()).collect()
}

fn event(row: &PgRow) -> Result<Option<Mark>, StoreError> {
    let (place, time) = place(row)?;
    let state: i16 = row.try_get("state")?;
    let says = if state == STATE_ACTIVE {
        Some(Says::List(codes(row)?.unwrap_or_default()))
    } else {
        says(state, code(row)?)
    };
    Ok(says.map(|says| Mark { place, time, says }))
}

fn place(row: &PgRow) -> Result<(Place, Timestamp), StoreError> {
    let time = Timestamp::from(row.try_get::<OffsetDateTime, _>("time")?);
    let arrived = Timestamp::from(row.try_get::<OffsetDateTime, _>("arrived")?);
    let at = corrected(arrived, time, row.try_get("age_ms")?);
    let (source, seq) = (SourceId(row.try_get("source")?), Seq(row.try_get("seq")?));
    Ok((Place::new(source, boot(row)?, seq, at), time))
}

/// What readings show, each that does not repeat what stands right before it: a reading that shows the same twice
/// says no more than once, unless an event came between, or something of another boot, or without one, at that time.
/// The order is that of `domain::order::arrange`. An event is neither in normal service nor has it a list, so no
/// reading is the same.
async fn readings(
    connection: &mut PgConnection,
    elevator: i64,
    terminal: &TerminalId,
    since: Timestamp,
) -> Result<Vec<Mark>, StoreError> {
    let rows = sqlx::query(
        "WITH said AS (
             SELECT telemetry.time, telemetry.seq, telemetry.arrived, telemetry.source, telemetry.age_ms,
                    telemetry.codes, telemetry.code_slugs, true AS is_shown,
                    coalesce(telemetry.service_mode = 1, false) AS normal
             FROM telemetry
             WHERE telemetry.elevator_id = $1
               AND telemetry.time >= $3
               AND telemetry.source = ANY (ARRAY (SELECT source FROM source WHERE terminal_id = $2))
               AND (telemetry.codes IS NOT NULL OR telemetry.service_mode = 1)
             UNION ALL
             SELECT fault.time, fault.seq, fault.arrived, fault.source, fault.age_ms,
                    NULL, NULL, false, false
             FROM fault
             WHERE fault.elevator_id = $1
               AND fault.time >= $3
               AND fault.source = ANY (ARRAY (SELECT source FROM source WHERE terminal_id = $2))
         ), timed AS (
             SELECT *,
                    CASE
                        WHEN age_ms IS NULL THEN least(time, arrived)
                        WHEN age_ms >= $4 THEN arrived
                        ELSE arrived - greatest(age_ms, 0) * INTERVAL '1 millisecond'
                    END AS at
             FROM said
         ), placed AS (
             SELECT *,
                    CASE
                        WHEN seq < 0 THEN at
                        ELSE max(at) FILTER (WHERE seq >= 0) OVER (PARTITION BY source ORDER BY seq)
                    END AS until
             FROM timed
         ), compared AS (
             SELECT *,
                    lag(codes) OVER of_boot AS codes_before,
                    lag(normal) OVER of_boot AS normal_before,
                    lag(codes) OVER of_all AS codes_at,
                    lag(normal) OVER of_all AS normal_at
             FROM placed
             WINDOW of_boot AS (PARTITION BY source ORDER BY until, seq < 0, seq),
                    of_all AS (ORDER BY until, source, seq < 0, seq)
         )
         SELECT time, seq, arrived, source, source.boot, age_ms, codes, code_slugs, normal
         FROM compared
         JOIN source USING (source)
         WHERE is_shown
           AND (
               (normal, codes) IS DISTINCT FROM (normal_before, codes_before)
               OR (normal, codes) IS DISTINCT FROM (normal_at, codes_at)
           )
         ORDER BY time DESC
         LIMIT $5",
    )
    .bind(elevator)
    .bind(terminal.as_str())
    .bind(since.to_utc())
    .bind(i32::try_from(limits::SKEW_MS_ABS_MAX).unwrap_or(i32::MAX))
    .bind(MARKS_MAX as i64)
    .fetch_all(connection)
    .await?;
    rows.iter().map(reading).collect()
}

fn reading(row: &PgRow) -> Result<Mark, StoreError> {
    let (place, time) = place(row)?;
    let codes = codes(row)?;
    Ok(Mark { place, time, says: Says::Shown(Shown { codes, normal: row.try_get("normal")? }) })
}
