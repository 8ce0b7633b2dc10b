//! Where terminals stand, as a writer remembers it, so that a reading that shows nothing new costs no statement.
//!
//! Owns the memory, and reads it from the database in one statement for all terminals of a batch that are not in
//! it. Bounded: when it is full it is emptied, which costs reading again. Forgets after [`Standings::READ_AGAIN`],
//! because another process may have written since; what was taken for no news meanwhile is then looked at again.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use domain::fault_period::{self, Mark, Says, Shown};
use domain::order::{Head, Place, corrected};
use domain::{Code, FaultPeriod, Seq, SourceId, TerminalId, Timestamp};
use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgRow};
use time::OffsetDateTime;

use super::follow::in_order;
use super::read::{boot, period, terminal};
use super::{Of, SLACK, Told, place, shown, shows};
use crate::StoreError;
use crate::rows::ReadingRow;

/// Where a terminal stands.
#[derive(Debug, Default)]
pub(super) struct Standing {
    elevator: i64,
    /// Of what was followed.
    pub(super) head: Option<Head>,
    /// No period begins or ends after it.
    pub(super) changed: Option<Timestamp>,
    pub(super) open: Vec<FaultPeriod>,
    heard: Option<Heard>,
    /// The earliest reading taken for no news since it was read.
    pub(super) quiet: Option<Timestamp>,
    read: Option<Instant>,
}

/// What the readings of a terminal showed last.
#[derive(Debug, Clone)]
struct Heard {
    /// All lists after `since`; `None`: there was none.
    codes: Option<Vec<Code>>,
    /// Some after `since` showed normal service.
    normal: bool,
    /// What was shown until then is not known.
    since: Timestamp,
    /// The end of the readings.
    head: Head,
}

impl Standing {
    /// Whether a reading changes no period: nothing new to what is open, at a place where that is what was open.
    fn is_quiet(&self, place: Place, codes: Option<&[Code]>, normal: bool) -> bool {
        let after_all = self.changed.is_none_or(|changed| place.at > changed.plus(SLACK));
        let in_order = || self.head.is_none_or(|head| head.precedes(std::iter::once(place)));
        (after_all || in_order()) && !Shown::is_news(&self.open, codes, normal)
    }

    fn hear(&mut self, place: Place, codes: Option<&[Code]>, normal: bool) {
        let Some(heard) = &mut self.heard else {
            let head = Head::after(None, place);
            let codes = codes.map(<[Code]>::to_vec);
            self.heard = Some(Heard { codes, normal, since: place.at, head });
            return;
        };
        heard.normal |= normal;
        match (&heard.codes, codes) {
            (None, Some(codes)) => heard.codes = Some(codes.to_vec()),
            (Some(known), Some(codes)) if known.as_slice() != codes => {
                heard.since = heard.since.max(place.at);
                if place.at >= heard.head.at {
                    heard.codes = Some(codes.to_vec());
                }
            }
            _ => {}
        }
        heard.head = advanced(Some(heard.head), place);
    }

    /// Takes readings of its terminal, if all are quiet.
    fn take(&mut self, group: &[ReadingRow<'_>]) -> bool {
        let all = || group.iter().filter_map(|row| shows(row.reading).map(|shows| (place(row), shows)));
        if !all().all(|(place, (codes, normal))| self.is_quiet(place, codes, normal)) {
            return false;
        }
        for (place, (codes, normal)) in all() {
            self.take_one(place, codes, normal);
        }
        true
    }

    fn take_one(&mut self, place: Place, codes: Option<&[Code]>, normal: bool) {
        self.hear(place, codes, normal);
        self.quiet = Some(self.quiet.map_or(place.at, |quiet| quiet.min(place.at)));
    }

    /// Whether the readings heard change nothing of what becomes of `open` after these marks, which are in order.
    pub(super) fn lets_pass(&self, open: &[FaultPeriod], marks: &[Mark]) -> bool {
        let Some(heard) = &self.heard else { return true };
        if heard.head.precedes(marks.iter().map(|mark| mark.place)) {
            return true;
        }
        if marks.iter().any(|mark| mark.place.at <= heard.since) {
            return false;
        }
        // As if each was followed by such a reading.
        let says = Says::Shown(Shown { codes: heard.codes.clone(), normal: heard.normal });
        let with = |mark: &Mark| [mark.clone(), Mark { says: says.clone(), ..mark.clone() }];
        let beside: Vec<Mark> = marks.iter().flat_map(with).collect();
        fault_period::follow(open.to_vec(), &beside).periods
            == fault_period::follow(open.to_vec(), marks).periods
    }
}

/// The head after one more thing, which need not stand after all others.
fn advanced(head: Option<Head>, place: Place) -> Head {
    match head {
        Some(head) if place.source != head.source && place.at < head.at => head,
        head => Head::after(head, place),
    }
}

/// Standings of the terminals that were heard lately.
#[derive(Debug)]
pub(crate) struct Standings {
    known: HashMap<TerminalId, Standing>,
    read_again: Duration,
}

impl Default for Standings {
    fn default() -> Self {
        Self { known: HashMap::new(), read_again: Self::READ_AGAIN }
    }
}

impl Standings {
    /// About 300 bytes each, more where faults last.
    const LEN_MAX: usize = 65_536;
    /// How long a standing is believed.
    const READ_AGAIN: Duration = Duration::from_mins(5);

    pub(crate) fn believed_for(read_again: Duration) -> Self {
        Self { read_again, ..Self::default() }
    }

    pub(super) fn get(&self, of: &Of) -> Option<&Standing> {
        self.known.get(&of.1).filter(|standing| standing.elevator == of.0)
    }

    fn is_fresh(&self, standing: &Standing, elevator: i64, now: Instant) -> bool {
        let age = standing.read.map(|read| now.saturating_duration_since(read));
        standing.elevator == elevator && age.is_some_and(|age| age < self.read_again)
    }

    /// Reads where the terminals of a batch stand, as far as that is not known; before its rows are stored, so that
    /// they are not taken for what was heard before. Readings are sorted by elevator. Gives how many statements that
    /// took; nearly always none.
    pub(crate) async fn know(
        &mut self,
        connection: &mut PgConnection,
        readings: &[ReadingRow<'_>],
        told: &mut BTreeMap<Of, Told>,
        now: Instant,
    ) -> Result<u32, StoreError> {
        let mut unread = self.unread(readings, told, now);
        if unread.is_empty() {
            return Ok(0);
        }
        if self.known.len() + unread.len() > Self::LEN_MAX {
            self.known.clear();
            unread = self.unread(readings, told, now);
        }
        self.read(connection, &unread, told, now).await?;
        Ok(1)
    }

    /// The terminals of a batch that are not known, each with its earliest time.
    fn unread(
        &self,
        readings: &[ReadingRow<'_>],
        told: &BTreeMap<Of, Told>,
        now: Instant,
    ) -> BTreeMap<Of, Timestamp> {
        let is_known = |terminal: &TerminalId, elevator: i64| {
            self.known.get(terminal).is_some_and(|standing| self.is_fresh(standing, elevator, now))
        };
        let mut unread: BTreeMap<Of, Timestamp> = BTreeMap::new();
        for (of, told) in told.iter().filter(|(of, _)| !is_known(&of.1, of.0)) {
            unread.extend(told.oldest().map(|oldest| (of.clone(), oldest)));
        }
        for (elevator, terminal, group) in groups(readings) {
            if let Some(first) = first_shown(group).filter(|_| !is_known(terminal, elevator)) {
                let oldest = unread.entry((elevator, terminal.clone())).or_insert(first);
                *oldest = (*oldest).min(first);
            }
        }
        unread
    }

    /// Takes what readings show, which are stored and sorted by elevator. What may change a period is added to
    /// `told`; nearly always nothing.
    pub(crate) fn hear(&mut self, readings: &[ReadingRow<'_>], told: &mut BTreeMap<Of, Told>) {
        let mut rest: Vec<(Of, &[ReadingRow<'_>])> = Vec::new();
        for (elevator, terminal, group) in groups(readings) {
            if first_shown(group).is_none() {
                continue;
            }
            let is_told = !told.is_empty() && told.contains_key(&(elevator, terminal.clone()));
            let standing = self.known.get_mut(terminal).filter(|standing| standing.elevator == elevator);
            if is_told || !standing.is_some_and(|standing| standing.take(group)) {
                rest.push(((elevator, terminal.clone()), group));
            }
        }
        for (of, group) in rest {
            self.sort_out(of, group, told);
        }
    }

    /// Takes readings that are quiet, and gives the others to `told`.
    fn sort_out(&mut self, of: Of, group: &[ReadingRow<'_>], told: &mut BTreeMap<Of, Told>) {
        let events_at = told.get(&of).and_then(|told| told.marks.iter().map(|mark| mark.place.at).min());
        // What lies before the first event is judged for itself: a backlog beside the list of a reconnect.
        let is_before = |row: &&ReadingRow<'_>| events_at.is_none_or(|at| place(row).at < at.minus(SLACK));
        let (before, beside): (Vec<&ReadingRow<'_>>, Vec<&ReadingRow<'_>>) =
            group.iter().partition(is_before);
        let before: Vec<ReadingRow<'_>> = before.into_iter().copied().collect();
        let standing = self.known.get_mut(of.1.as_str()).filter(|standing| standing.elevator == of.0);
        let is_taken = standing.is_some_and(|standing| standing.take(&before));
        let before = if is_taken { &[] } else { before.as_slice() };
        let marks: Vec<Mark> = before.iter().chain(beside).filter_map(shown).collect();
        if !marks.is_empty() {
            told.entry(of).or_default().marks.extend(marks);
        }
    }

    /// What a terminal stands at after it was followed, and what its readings among the marks showed.
    pub(super) fn followed(
        &mut self,
        of: Of,
        head: Option<Head>,
        changed: Option<Timestamp>,
        open: Vec<FaultPeriod>,
        marks: &[Mark],
    ) {
        // Not known, or at another elevator: it was emptied, or remounted. It is read again when it is needed.
        let standing = self.known.get_mut(&of.1).filter(|standing| standing.elevator == of.0);
        let Some(standing) = standing else { return };
        let heard = standing.heard.take();
        *standing = Standing { elevator: of.0, head, changed, open, heard, quiet: None, read: standing.read };
        for mark in marks {
            if let Says::Shown(Shown { codes, normal }) = &mark.says {
                standing.hear(mark.place, codes.as_deref(), *normal);
            }
        }
    }

    /// Takes readings that came late and change nothing.
    pub(super) fn take_late(&mut self, of: &Of, marks: &[Mark]) {
        let standing = self.known.get_mut(&of.1).filter(|standing| standing.elevator == of.0);
        let Some(standing) = standing else { return };
        for mark in marks {
            if let Says::Shown(Shown { codes, normal }) = &mark.says {
                standing.take_one(mark.place, codes.as_deref(), *normal);
            }
        }
    }

    /// Reads standings. Where one is not what was believed, its periods since then are made anew.
    async fn read(
        &mut self,
        connection: &mut PgConnection,
        of: &BTreeMap<Of, Timestamp>,
        told: &mut BTreeMap<Of, Told>,
        now: Instant,
    ) -> Result<(), StoreError> {
        for (of, standing) in standings(connection, of).await? {
            let standing = Standing { elevator: of.0, read: Some(now), ..standing };
            let believed = self.known.remove(&of.1).filter(|believed| believed.elevator == of.0);
            let quiet = believed
                .filter(|it| {
                    (it.head, it.changed, &it.open) != (standing.head, standing.changed, &standing.open)
                })
                .and_then(|it| it.quiet);
            if let Some(quiet) = quiet {
                told.entry(of.clone()).or_default().since = Some(quiet);
            }
            self.known.insert(of.1, standing);
        }
        Ok(())
    }
}

/// Readings by elevator and terminal.
fn groups<'a, 'b>(
    readings: &'b [ReadingRow<'a>],
) -> impl Iterator<Item = (i64, &'a TerminalId, &'b [ReadingRow<'a>])> {
    let key = |row: &ReadingRow<'a>| (row.origin.elevator_id, row.origin.terminal_id);
    readings.chunk_by(move |one, other| key(one) == key(other)).filter_map(move |group| {
        let (elevator, terminal) = key(group.first()?);
        Some((elevator, terminal, group))
    })
}

/// The time of the first that shows something of faults.
fn first_shown(group: &[ReadingRow<'_>]) -> Option<Timestamp> {
    group.iter().find(|row| shows(row.reading).is_some()).map(|row| row.reading.time)
}

/// Standings of terminals, each with the newest reading since a time that shows something.
async fn standings(
    connection: &mut PgConnection,
    of: &BTreeMap<Of, Timestamp>,
) -> Result<BTreeMap<Of, Standing>, StoreError> {
    let rows = sqlx::query(
        "SELECT asked.elevator_id, asked.terminal_id,
                head.source AS head_source, head.source_max, head.seq AS head_seq, head.at, head.changed,
                newest.source, newest.boot, newest.seq, newest.time, newest.arrived, newest.age_ms,
                period.opened, period.closed, period.device_time, period.listed, period.code, period.slug,
                period.opened_by, period.closed_by
         FROM unnest($1::int8[], $2::text[], $3::timestamptz[]) AS asked (elevator_id, terminal_id, since)
         LEFT JOIN fault_head AS head USING (elevator_id, terminal_id)
         LEFT JOIN LATERAL (
             SELECT telemetry.source, telemetry.seq, telemetry.time, telemetry.arrived, telemetry.age_ms,
                    (SELECT source.boot FROM source WHERE source.source = telemetry.source)
             FROM telemetry
             WHERE telemetry.elevator_id = asked.elevator_id
               AND telemetry.time >= asked.since
               AND telemetry.time >= $4
               AND (telemetry.codes IS NOT NULL OR telemetry.service_mode = 1)
               AND telemetry.source = ANY (
                   ARRAY (SELECT source.source FROM source WHERE source.terminal_id = asked.terminal_id)
               )
             ORDER BY telemetry.time DESC
             LIMIT 1
         ) AS newest ON true
         LEFT JOIN fault_period AS period
             ON period.elevator_id = asked.elevator_id
            AND period.terminal_id = asked.terminal_id
            AND period.closed IS NULL
            AND period.opened_by <> 'server'",
    )
    .bind(of.keys().map(|(elevator, _)| *elevator).collect::<Vec<_>>())
    .bind(of.keys().map(|(_, terminal)| terminal.as_str()).collect::<Vec<_>>())
    .bind(of.values().map(|since| since.to_utc()).collect::<Vec<_>>())
    .bind(of.values().min().map(|since| since.to_utc()))
    .fetch_all(connection)
    .await?;
    let mut found: BTreeMap<Of, Standing> = BTreeMap::new();
    for row in &rows {
        let of = (row.try_get("elevator_id")?, terminal(row)?);
        let standing = match found.entry(of) {
            std::collections::btree_map::Entry::Occupied(held) => held.into_mut(),
            std::collections::btree_map::Entry::Vacant(free) => free.insert(standing(row)?),
        };
        if row.try_get::<Option<OffsetDateTime>, _>("opened")?.is_some() {
            standing.open.push(period(row)?);
        }
    }
    for standing in found.values_mut() {
        in_order(&mut standing.open);
    }
    Ok(found)
}

fn standing(row: &PgRow) -> Result<Standing, StoreError> {
    let (head, changed) = head(row, "head_source", "head_seq")?;
    let source: Option<i32> = row.try_get("source")?;
    let heard = match source.map(SourceId) {
        None => None,
        Some(source) => {
            let time = Timestamp::from(row.try_get::<OffsetDateTime, _>("time")?);
            let arrived = Timestamp::from(row.try_get::<OffsetDateTime, _>("arrived")?);
            let at = corrected(arrived, time, row.try_get("age_ms")?);
            let place = Place::new(source, boot(row)?, Seq(row.try_get("seq")?), at);
            Some(Heard { codes: None, normal: false, since: at, head: Head::after(None, place) })
        }
    };
    Ok(Standing { head, changed, heard, ..Standing::default() })
}

/// A row of `fault_head`: the head, and since when nothing changed.
pub(super) fn head(
    row: &PgRow,
    source: &str,
    seq: &str,
) -> Result<(Option<Head>, Option<Timestamp>), StoreError> {
    let Some(source) = row.try_get::<Option<i32>, _>(source)? else { return Ok((None, None)) };
    let head = Head {
        source: SourceId(source),
        source_max: SourceId(row.try_get("source_max")?),
        seq: Seq(row.try_get(seq)?),
        at: Timestamp::from(row.try_get::<OffsetDateTime, _>("at")?),
    };
    let changed = row.try_get::<Option<OffsetDateTime>, _>("changed")?;
    Ok((Some(head), Some(changed.map_or(head.at, Timestamp::from))))
}
