//! The sequence ledger: for each boot of each terminal which numbers are accounted for and which are missing,
//! so that "nothing lost" can be shown (promise 3).
//!
//! Owns `sequence_ledger`, `sequence_gap` and `sequence_mark`. Writers tell it what they have committed; a task
//! coalesces that and writes it about once a second on a connection of the pool, never on the way of an
//! acknowledgement, and for about 2 % of the time. Promises: the ledger never claims a number that is neither
//! a row nor in quarantine. It may be behind: after a crash by what was not written yet, which the next start
//! makes up from the rows that arrived after its mark. Readings, events and statistics share one counter;
//! derived (negative) numbers are none of its business.
//!
//! Does not judge: what a gap means is said by the audit, from the rows.
//!
//! Bounds: notes of [`NOTES_MAX`] batches (full: the batch is missed, counted, and the ledger catches up from the
//! rows); sources and ranges as [`note`] says.

mod audit;
mod books;
mod lost;
mod note;
mod ranges;
mod report;
mod table;
#[cfg(test)]
mod tests;
mod verdict;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use domain::{ArrivalNo, SourceId, Timestamp};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use sqlx::postgres::PgConnection;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

pub(crate) use note::Note;
pub use note::message_numbers;
pub use ranges::SeqRanges;
pub use report::{AuditGap, AuditReport, AuditScope, GAPS_NAMED_MAX, UsedTwice};
pub use verdict::GapOutcome;

use crate::{Database, Kept, StoreError};
use note::Waiting;
use table::{Sums, Written};

/// Batches on their way to the ledger: a second of many small ones.
const NOTES_MAX: usize = 4_096;
/// Between two writes, at least.
const PAUSE: Duration = Duration::from_secs(1);
/// A write that took long is followed by a pause this many times as long: 2 % of the time.
const PAUSE_FACTOR: u32 = 50;
/// But no longer: what took long may have been the wait for a database that was away.
const PAUSE_MAX: Duration = Duration::from_secs(15);
/// Between two looks at the sums, which are for the metrics, at least: they are made of all open gaps and all that was
/// ever declared, and [`PAUSE_FACTOR`] holds for them too.
const SUMS_EVERY: Duration = Duration::from_secs(10);
/// Between two looks at what is older than the retention.
const PRUNE_EVERY: Duration = Duration::from_hours(1);
/// After so long without an answer a write is given up, with its connection, and made again. Far longer than the
/// largest takes.
const WRITE_WITHIN: Duration = Duration::from_mins(5);
/// The same while it catches up from the rows.
const CATCH_UP_WITHIN: Duration = Duration::from_hours(1);
/// How long the last write may take when everything ends.
const LAST_WRITE: Duration = Duration::from_secs(5);

/// What the ledger counts.
#[derive(Debug, Default)]
pub struct LedgerMetrics {
    /// Gaps that are neither filled nor declared.
    pub gaps_open: Gauge,
    /// Numbers in them.
    pub numbers_missing: Gauge,
    /// Numbers that terminals say they had to discard.
    pub numbers_dropped: Gauge,
    /// Numbers that were found missing, ever.
    pub numbers_found: Counter,
    /// Numbers that were missing and came later.
    pub numbers_filled: Counter,
    /// Writes of the ledger.
    pub writes: Counter,
    /// Writes that failed; what they held is written again.
    pub write_failures: Counter,
    /// Batches that the ledger could not take; it catches up from the rows.
    pub notes_missed: Counter,
}

impl LedgerMetrics {
    /// Makes them and registers them under `ledger_...`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let ledger = registry.sub_registry_with_prefix("ledger");
        ledger.register("gaps_open", "Gaps neither filled nor declared", metrics.gaps_open.clone());
        ledger.register("numbers_missing", "Numbers in open gaps", metrics.numbers_missing.clone());
        ledger.register(
            "numbers_dropped",
            "Numbers declared dropped by terminals",
            metrics.numbers_dropped.clone(),
        );
        ledger.register("numbers_found", "Numbers found missing", metrics.numbers_found.clone());
        ledger.register("numbers_filled", "Missing numbers that came later", metrics.numbers_filled.clone());
        ledger.register("writes", "Writes of the ledger", metrics.writes.clone());
        ledger.register("write_failures", "Writes of the ledger that failed", metrics.write_failures.clone());
        ledger.register("notes_missed", "Batches the ledger could not take", metrics.notes_missed.clone());
        metrics
    }
}

/// Judges the gaps of a source anew, after something else than a writer has changed what is accounted for.
pub(crate) async fn judge(
    connection: &mut PgConnection,
    source: SourceId,
    now: Timestamp,
) -> Result<(), StoreError> {
    table::write(connection, &[], &[source], now).await.map(drop)
}

/// A writer's way to the ledger.
#[derive(Debug)]
pub struct LedgerNotes {
    writer: usize,
    notes: mpsc::Sender<(usize, Note)>,
    missed: Arc<AtomicBool>,
    metrics: Arc<LedgerMetrics>,
}

impl LedgerNotes {
    /// Tells what was committed. Never waits.
    pub(crate) fn tell(&self, note: Note) {
        if self.notes.try_send((self.writer, note)).is_err() {
            self.missed.store(true, Ordering::Relaxed);
            self.metrics.notes_missed.inc();
        }
    }
}

/// The task that keeps the ledger of one process.
#[derive(Debug)]
pub struct Ledger {
    database: Database,
    metrics: Arc<LedgerMetrics>,
    sender: mpsc::Sender<(usize, Note)>,
    notes: mpsc::Receiver<(usize, Note)>,
    missed: Arc<AtomicBool>,
    /// The newest arrival each writer has told. Those before it of the same writer are committed too, so all
    /// rows up to the least of them are known.
    told: Vec<ArrivalNo>,
    arrival_start: ArrivalNo,
    waiting: Waiting,
    /// The mark stands still until the ledger has caught up from the rows.
    behind: bool,
    pruned: Option<Instant>,
}

/// What a write has left.
struct Outcome {
    took: Duration,
    caught_up: bool,
    /// To be written again; none where it is lost.
    unwritten: Option<Waiting>,
    written: Result<(Written, Option<Sums>), StoreError>,
}

impl Outcome {
    /// Before the next write.
    fn pause(&self) -> Duration {
        match self.written {
            Ok(_) => self.took.saturating_mul(PAUSE_FACTOR).clamp(PAUSE, PAUSE_MAX),
            Err(_) => PAUSE,
        }
    }

    /// When the sums are made again, where they were due at `before`.
    fn look_due(&self, before: Instant) -> Instant {
        match &self.written {
            Ok((_, Some(sums))) => {
                Instant::now() + sums.took.saturating_mul(PAUSE_FACTOR).clamp(SUMS_EVERY, PRUNE_EVERY)
            }
            Ok((_, None)) => before,
            Err(_) => before.max(Instant::now() + SUMS_EVERY),
        }
    }
}

impl Ledger {
    /// For the messages of one run of the server, which are numbered from `arrival_start`.
    pub fn new(database: &Database, arrival_start: ArrivalNo, metrics: Arc<LedgerMetrics>) -> Self {
        let (sender, notes) = mpsc::channel(NOTES_MAX);
        Self {
            database: database.clone(),
            metrics,
            sender,
            notes,
            missed: Arc::default(),
            told: Vec::new(),
            arrival_start,
            waiting: Waiting::default(),
            behind: true,
            pruned: None,
        }
    }

    /// The way of one more writer, see [`crate::Writer::with_ledger`].
    pub fn notes(&mut self) -> LedgerNotes {
        self.told.push(self.arrival_start);
        LedgerNotes {
            writer: self.told.len() - 1,
            notes: self.sender.clone(),
            missed: self.missed.clone(),
            metrics: self.metrics.clone(),
        }
    }

    /// Writes what writers that are gone have committed, and nothing else: for rows that come by another way
    /// than a server's. The mark stays where it is.
    pub async fn add(self) -> Result<(), StoreError> {
        let Self { database, sender, mut notes, mut waiting, .. } = self;
        drop(sender);
        while let Some((_, note)) = notes.recv().await {
            waiting.take(&note);
        }
        table::flush(&database, &waiting, None, now()).await.map(drop)
    }

    /// Runs until all writers are gone, and writes the rest. A store that stays away then is given up after
    /// a few seconds: the next start catches up.
    pub async fn run(self) {
        let Self { database, metrics, sender, mut notes, missed, mut told, mut waiting, mut behind, .. } =
            self;
        let mut pruned = self.pruned;
        let mut look_due = Instant::now();
        // Something was forgotten since the write under way began: a catch-up does not make up for that.
        let mut overflowed = false;
        drop(sender);
        let mut job: Option<JoinHandle<Outcome>> = None;
        let mut due = tokio::time::Instant::now();
        let mut buffer = Vec::with_capacity(64);
        loop {
            tokio::select! {
                count = notes.recv_many(&mut buffer, 64) => {
                    if count == 0 {
                        break;
                    }
                    for (writer, note) in buffer.drain(..) {
                        told[writer] = told[writer].max(note.arrival_no);
                        overflowed |= !waiting.take(&note);
                    }
                }
                Some(outcome) = ended(&mut job) => {
                    due = tokio::time::Instant::now() + outcome.pause();
                    look_due = outcome.look_due(look_due);
                    behind &= !outcome.caught_up;
                    behind |= !settle(outcome, &mut waiting, &metrics);
                }
                () = tokio::time::sleep_until(due), if job.is_none() => {
                    let first = missed.swap(false, Ordering::Relaxed);
                    behind |= first | std::mem::take(&mut overflowed);
                    let now = Instant::now();
                    let look = now >= look_due;
                    let prune = pruned.is_none_or(|at| now.duration_since(at) >= PRUNE_EVERY);
                    if waiting.is_empty() && !behind && !look {
                        due = tokio::time::Instant::now() + PAUSE;
                        continue;
                    }
                    pruned = if prune { Some(now) } else { pruned };
                    // What a later note brings is above this mark, or the mark stands still.
                    let mark = told.iter().min().copied();
                    let work = Work { waiting: std::mem::take(&mut waiting), behind, mark, look, prune };
                    job = Some(tokio::spawn(work.run(database.clone())));
                }
            }
        }
        if let Some(outcome) = ended(&mut job).await {
            behind &= !outcome.caught_up;
            behind |= !settle(outcome, &mut waiting, &metrics);
        }
        behind |= overflowed | missed.load(Ordering::Relaxed);
        // Everything the writers were given is committed and told: the mark is the newest of all.
        let mark = told.iter().max().copied().filter(|_| !behind);
        let last = table::flush(&database, &waiting, mark, now());
        match tokio::time::timeout(LAST_WRITE, last).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::warn!(error = %error, "the ledger is behind; the next start catches up");
            }
            Err(_) => tracing::warn!("the ledger is behind; the next start catches up"),
        }
    }
}

/// One write.
struct Work {
    waiting: Waiting,
    behind: bool,
    mark: Option<ArrivalNo>,
    look: bool,
    prune: bool,
}

impl Work {
    async fn run(self, database: Database) -> Outcome {
        let begun = Instant::now();
        let wait = if self.behind { CATCH_UP_WITHIN } else { WRITE_WITHIN };
        let written = tokio::time::timeout(wait, Box::pin(self.write(&database))).await;
        let written = written.unwrap_or(Err(StoreError::Timeout(wait)));
        let caught_up = self.behind && written.is_ok();
        let unwritten = Some(if written.is_ok() { Waiting::default() } else { self.waiting });
        Outcome { took: begun.elapsed(), caught_up, unwritten, written }
    }

    async fn write(&self, database: &Database) -> Result<(Written, Option<Sums>), StoreError> {
        let mut written =
            table::flush(database, &self.waiting, self.mark.filter(|_| !self.behind), now()).await?;
        if self.behind {
            let more = table::catch_up(database, now()).await?;
            written.found = written.found.saturating_add(more.found);
            written.filled = written.filled.saturating_add(more.filled);
            if let Some(mark) = self.mark {
                let mut connection = database.pool().acquire().await?;
                table::mark_set(&mut connection, mark, now()).await?;
            }
        }
        if self.prune {
            table::prune(database, now(), database.config().retention.longest(Kept::Telemetry)).await?;
        }
        let sums = match self.look {
            true => Some(table::sums(&mut *database.pool().acquire().await?).await?),
            false => None,
        };
        Ok((written, sums))
    }
}

/// Waits for the write under way; `None` at once where there is none.
async fn ended(job: &mut Option<JoinHandle<Outcome>>) -> Option<Outcome> {
    let outcome = job.as_mut()?.await;
    *job = None;
    Some(outcome.unwrap_or_else(|error| Outcome {
        took: Duration::ZERO,
        caught_up: false,
        unwritten: None,
        written: Err(StoreError::Corrupt(error.to_string())),
    }))
}

/// Counts, and puts back what was not written. False: that is lost, or more than can wait.
fn settle(outcome: Outcome, waiting: &mut Waiting, metrics: &LedgerMetrics) -> bool {
    match outcome.written {
        Ok((written, sums)) => {
            metrics.writes.inc();
            metrics.numbers_found.inc_by(written.found);
            metrics.numbers_filled.inc_by(written.filled);
            if let Some(sums) = sums {
                metrics.gaps_open.set(sums.gaps_open);
                metrics.numbers_missing.set(sums.numbers_missing);
                metrics.numbers_dropped.set(sums.numbers_dropped);
            }
            true
        }
        Err(error) => {
            metrics.write_failures.inc();
            if !error.retryable() {
                tracing::error!(error = %error, "the ledger cannot be written");
            }
            outcome.unwritten.is_some_and(|unwritten| waiting.put_back(unwritten))
        }
    }
}

fn now() -> Timestamp {
    time::OffsetDateTime::now_utc().into()
}
