//! From items to rows: pure, no database in sight.

use std::collections::BTreeSet;
use std::time::Duration;

use domain::limits::{self, Admission, admit};
use domain::{ElevatorId, Message, Seq, SourceId, Timestamp};

use super::{CommitReport, Incoming, Item};
use crate::ledger::Note;
use crate::quarantine::{QuarantineEntry, QuarantineReason};
use crate::rows::{FaultRow, Origin, ReadingRow, Row, StatisticsRow};
use crate::source::Sources;
use crate::{SeqRanges, StoreError, rollup};

/// The rows of a batch, in the order of arrival.
#[derive(Debug, Default)]
pub(super) struct Batch<'a> {
    pub(super) readings: Vec<ReadingRow<'a>>,
    pub(super) faults: Vec<FaultRow<'a>>,
    pub(super) statistics: Vec<StatisticsRow<'a>>,
    pub(super) gaps: Vec<Gap>,
    pub(super) told: Vec<Told>,
    /// For the ledger, once all of it is committed.
    pub(super) note: Note,
    pub(super) quarantine: Vec<QuarantineEntry>,
}

/// Sequence numbers that a terminal says it had to discard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) source: SourceId,
    pub(super) from: i64,
    pub(super) to: i64,
}

/// The last number of the boot before this one, as the terminal says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) source: SourceId,
    pub(super) seq_last: i64,
}

impl<'a> Batch<'a> {
    /// Sorts out what has an impossible device time. Sources must be resolved.
    pub(super) fn new(items: &'a [Item], sources: &Sources, retention: Duration) -> Result<Self, StoreError> {
        let mut batch = Batch { readings: Vec::with_capacity(items.len()), ..Batch::default() };
        for item in items {
            match item {
                Item::Quarantine(entry) => {
                    if let Some(numbered) = &entry.numbered
                        && let Some(source) = sources.get(&numbered.terminal_id, numbered.boot)
                    {
                        batch.note.quarantined(source, &numbered.numbers);
                    }
                    batch.note.arrival_no = batch.note.arrival_no.max(entry.arrival_no.unwrap_or_default());
                    batch.quarantine.push((**entry).clone());
                }
                Item::Message(incoming) => {
                    let (terminal, boot) = (&incoming.terminal_id, incoming.message.boot());
                    if sources.is_refused(terminal, boot) {
                        batch.note.arrival_no = batch.note.arrival_no.max(incoming.arrival.no);
                        batch.quarantine.extend(too_many_boots(incoming));
                        continue;
                    }
                    let source = sources
                        .get(terminal, boot)
                        .ok_or_else(|| StoreError::Corrupt("a source without a number".to_owned()))?;
                    batch.take(incoming, source, retention);
                }
            }
        }
        Ok(batch)
    }

    fn take(&mut self, incoming: &'a Incoming, source: SourceId, retention: Duration) {
        let origin = Origin {
            elevator_id: incoming.elevator_id.0,
            terminal_id: &incoming.terminal_id,
            source,
            boot: incoming.message.boot(),
            arrival: incoming.arrival,
            sent: incoming.message.sent(),
        };
        let arrived = incoming.arrival.at;
        let elevator = ElevatorId(origin.elevator_id);
        self.note.arrival_no = self.note.arrival_no.max(incoming.arrival.no);
        match &*incoming.message {
            Message::Telemetry(telemetry) => {
                for (item, reading) in (0_i16..).zip(&telemetry.readings) {
                    let row = ReadingRow { origin, item, reading };
                    match refusal(reading.time, arrived, retention) {
                        None => {
                            self.note.row(source, elevator, reading.seq, reading.time);
                            self.readings.push(row);
                        }
                        Some(why) => self.keep(source, &row, reading.seq, why),
                    }
                }
                if let Some((one, other)) = telemetry.dropped {
                    // Bounded as the ledger's ranges are; what lies outside is no number of a terminal.
                    let (from, to) = (one.min(other).max(1), one.max(other).min(i64::MAX - 1));
                    if from <= to {
                        self.gaps.push(Gap { source, from, to });
                        self.note.touched.push(source);
                    }
                }
                if let Some(seq_last) = telemetry.prev_boot_last_seq.filter(|seq| *seq > 0) {
                    self.told.push(Told { source, seq_last: seq_last.min(i64::MAX - 1) });
                    self.note.touched.push(source);
                }
            }
            Message::Event(events) => {
                for (item, event) in (0_i16..).zip(&events.events) {
                    let row = FaultRow::event(origin, item, event);
                    match refusal(event.time, arrived, retention) {
                        None => {
                            self.note.row(source, elevator, event.seq, event.time);
                            self.faults.push(row);
                        }
                        Some(why) => self.keep(source, &row, event.seq, why),
                    }
                }
                if let Some(active) = &events.active {
                    let possible = |time| refusal(time, arrived, retention).is_none();
                    self.faults.push(FaultRow::active(origin, events, active, possible));
                }
            }
            Message::Statistics(statistics) => {
                let row = StatisticsRow { origin, statistics };
                match refusal(statistics.time, arrived, retention) {
                    None => {
                        self.note.row(source, elevator, statistics.seq, statistics.time);
                        self.statistics.push(row);
                    }
                    Some(why) => self.keep(source, &row, statistics.seq, why),
                }
            }
        }
    }

    /// In quarantine. The ledger has its number but not its time, which is none of a row that retention deletes.
    fn keep<R: Row>(&mut self, source: SourceId, row: &R, seq: Seq, why: (QuarantineReason, String)) {
        self.note.quarantined(source, &SeqRanges::range(seq.0, seq.0));
        self.quarantine.push(row.quarantined(why.0, why.1));
    }
}

/// Every row of a message that the database refuses as a whole, as it is kept in quarantine.
pub(super) fn refused(incoming: &Incoming, detail: &str) -> Vec<QuarantineEntry> {
    row_by_row(incoming, QuarantineReason::Refused, detail)
}

/// Every row of a message of a boot that is one too many of its terminal's today.
fn too_many_boots(incoming: &Incoming) -> Vec<QuarantineEntry> {
    let most = limits::BOOTS_PER_DAY_MAX;
    let detail = format!("boot {} comes after {most} others within a day", incoming.message.boot().0);
    row_by_row(incoming, QuarantineReason::TooManyBoots, &detail)
}

/// Every row of a message as it is kept in quarantine. Without number of a source: entries go by terminal and boot.
fn row_by_row(incoming: &Incoming, reason: QuarantineReason, detail: &str) -> Vec<QuarantineEntry> {
    let mut batch = Batch::default();
    batch.take(incoming, SourceId(0), Duration::MAX);
    let Batch { readings, faults, statistics, quarantine: impossible, .. } = &batch;
    let readings = readings.iter().map(|row| row.quarantined(reason, detail.to_owned()));
    let faults = faults.iter().map(|row| row.quarantined(reason, detail.to_owned()));
    let statistics = statistics.iter().map(|row| row.quarantined(reason, detail.to_owned()));
    impossible.iter().cloned().chain(readings).chain(faults).chain(statistics).collect()
}

impl Batch<'_> {
    /// Elevators and hours of readings that are late when stored at `now`.
    pub(super) fn late(&self, now: Timestamp) -> BTreeSet<(i64, Timestamp)> {
        let fresh = now.minus(rollup::LATE);
        let late = self.readings.iter().filter(|row| row.reading.time < fresh);
        late.map(|row| (row.origin.elevator_id, rollup::hour_of(row.reading.time))).collect()
    }
}

fn refusal(time: Timestamp, arrived: Timestamp, retention: Duration) -> Option<(QuarantineReason, String)> {
    let reason = match admit(time, arrived, retention) {
        Admission::Stored => return None,
        Admission::TooOld => QuarantineReason::TooOld,
        Admission::Future => QuarantineReason::Future,
    };
    Some((reason, format!("device time {time}, arrived {arrived}")))
}

/// Sorts rows by key and leaves one of each: the first that came. Another that says the same is repeated;
/// one that says something else goes to quarantine.
pub(super) fn unique<'r, R: Row>(
    rows: &'r mut Vec<R>,
    quarantine: &mut Vec<QuarantineEntry>,
    report: &mut CommitReport,
) -> &'r [R] {
    // Stable, so the first that came stays first.
    rows.sort_by(|one, other| one.key().cmp(&other.key()));
    rows.dedup_by(|later, first| {
        if later.key() != first.key() {
            return false;
        }
        if later.same_content(first) {
            report.rows_repeated += 1;
        } else {
            quarantine.push(key_conflict(later));
        }
        true
    });
    rows
}

/// A row whose key is taken by another.
pub(super) fn key_conflict<R: Row>(row: &R) -> QuarantineEntry {
    let key = row.key();
    let detail =
        format!("elevator {} time {} seq {} source {}", key.elevator_id, key.time, key.seq, key.source);
    row.quarantined(QuarantineReason::KeyConflict, detail)
}

/// Chunks that one statement touches at most: each costs locks and an open index.
const CHUNKS_MAX: usize = 32;

/// Cuts sorted rows so that none of the parts touches more than [`CHUNKS_MAX`] chunks. Nearly always one part.
pub(super) fn windows<R: Row + Copy>(rows: &[R], chunk: Duration) -> Vec<std::borrow::Cow<'_, [R]>> {
    let chunk_us = i64::try_from(chunk.as_micros()).unwrap_or(i64::MAX).max(1);
    let chunk_of = |row: &R| row.key().time.micros().div_euclid(chunk_us);
    let (Some(first), Some(last)) = (rows.iter().map(chunk_of).min(), rows.iter().map(chunk_of).max()) else {
        return Vec::new();
    };
    if last - first < CHUNKS_MAX as i64 {
        return vec![rows.into()];
    }
    let mut chunks: Vec<i64> = rows.iter().map(chunk_of).collect();
    chunks.sort_unstable();
    chunks.dedup();
    let part = |window: &[i64]| {
        let within = window[0]..=window[window.len() - 1];
        rows.iter().copied().filter(|row| within.contains(&chunk_of(row))).collect::<Vec<R>>().into()
    };
    chunks.chunks(CHUNKS_MAX).map(part).collect()
}

const _: () = assert!(limits::BATCH_READINGS_MAX < i16::MAX as usize, "a place in a message fits `item`");
