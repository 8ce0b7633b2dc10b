//! The batch writer: decoded messages to committed rows.
//!
//! Owns one connection. Promises: once [`Writer::commit`] says `Ok`, every reading and event of the batch is
//! committed, was there before, or is in quarantine with its reason; calling it again with the same batch
//! adds nothing. A call that fails or is dropped has stored some, all or none of it: commit the batch again.
//! Does not retry, wait or queue: its owner does (see [`StoreError::retryable`]), and knows when to stop.
//!
//! The statements of a batch commit each by itself: every table knows its rows again by their key, and
//! nothing is promised before all have succeeded. So the usual batch is one COPY without a transaction
//! around it, which saves two round trips.

mod batch;
mod clock;
mod metrics;
mod path;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::{Arrival, ElevatorId, Message, TerminalId};
use sqlx::postgres::PgConnection;

use crate::copy::CopyBuffer;
use crate::fault_period::AllNew;
use crate::quarantine::{QuarantineEntry, QuarantineReason, Room, quarantine_insert};
use crate::source::Sources;
use crate::{Database, Edition, LedgerNotes, StoreError, fault_period, rollup};
use batch::Batch;
use clock::DatabaseClock;
pub use metrics::{ReasonLabel, StoreMetrics};

/// A decoded message whose elevator is known.
#[derive(Debug, Clone, PartialEq)]
pub struct Incoming {
    /// Whose state it tells.
    pub elevator_id: ElevatorId,
    /// Who sent it.
    pub terminal_id: TerminalId,
    /// When and as which message it came.
    pub arrival: Arrival,
    /// What it says.
    pub message: Arc<Message>,
}

impl Incoming {
    /// Its rows as entries of quarantine, each with its number and a way back, for a message that the database
    /// refuses as a whole. What a batch says around its readings is not kept: where the boot before ended, and
    /// what its terminal discarded.
    pub fn refused(&self, detail: &str) -> Vec<QuarantineEntry> {
        batch::refused(self, detail)
    }
}

/// One thing to be committed.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// A message: its readings or events become rows.
    Message(Incoming),
    /// What could not be decoded. Boxed, so that it does not make every message in a queue three times as large.
    Quarantine(Box<QuarantineEntry>),
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CommitReport {
    /// New rows of readings and events.
    pub rows_stored: u64,
    /// Rows that were there already.
    pub rows_repeated: u64,
    /// Things put into quarantine, new or there already.
    pub quarantined: u64,
    /// Why the last of them is there.
    pub quarantined_as: Option<QuarantineReason>,
    /// Of these, payloads that were cut because their terminal has too much in quarantine.
    pub quarantined_cut: u64,
    /// Statements that sent rows; 1 on the straight way.
    pub statements: u32,
    /// Statements about occurrences of faults; none for readings that show nothing new.
    pub fault_statements: u32,
    /// Faults of which no occurrence is kept, because their terminal has as many open as are kept. Their rows are.
    pub faults_left_out: u64,
    /// Declarations of discarded numbers that are not noted, because their boot has made too many that lie apart.
    pub declarations_left_out: u64,
    /// From call to return.
    pub micros: u64,
}

/// Commits batches on a connection of its own. One batch at a time; run several for parallelism, with
/// elevators hashed to them.
#[derive(Debug)]
pub struct Writer {
    database: Database,
    metrics: Arc<StoreMetrics>,
    sources: Sources,
    /// `None`: what it commits is of the past, and tells nothing of clocks.
    clocks: Option<fault_period::Clocks>,
    standings: fault_period::Standings,
    quarantine_room: Room,
    session: Option<Session>,
    ledger: Option<LedgerNotes>,
}

/// A connection with what is known about its state.
#[derive(Debug)]
struct Session {
    connection: PgConnection,
    buffer: CopyBuffer,
    /// Tables whose staging table exists in this session.
    staged: Vec<&'static str>,
    clock: DatabaseClock,
}

impl Writer {
    /// Connects when first used.
    pub fn new(database: &Database, metrics: Arc<StoreMetrics>) -> Self {
        Self {
            database: database.clone(),
            metrics,
            sources: Sources::default(),
            clocks: Some(fault_period::Clocks::default()),
            standings: fault_period::Standings::default(),
            quarantine_room: Room::default(),
            session: None,
            ledger: None,
        }
    }

    /// Tells the ledger what it commits.
    #[must_use]
    pub fn with_ledger(self, notes: LedgerNotes) -> Self {
        Self { ledger: Some(notes), ..self }
    }

    /// Judges no clocks: for messages that were sent long ago.
    #[must_use]
    pub fn of_the_past(self) -> Self {
        Self { clocks: None, ..self }
    }

    /// Reads again after `span` what faults are open at a terminal, because another process may have written.
    #[must_use]
    pub fn believing_faults_for(self, span: Duration) -> Self {
        Self { standings: fault_period::Standings::believed_for(span), ..self }
    }

    /// Commits a batch; see the promise of this module. Any size is taken; 1 to 5,000 rows are quick.
    pub async fn commit(&mut self, items: &[Item]) -> Result<CommitReport, StoreError> {
        let begun = Instant::now();
        // Taken out, so that a failed or dropped call leaves no connection in the middle of a COPY behind.
        let mut session = match self.session.take() {
            Some(session) => session,
            None => Session::open(&self.database).await?,
        };
        let wait = self.database.config().commit_timeout;
        let stored = tokio::time::timeout(wait, self.store(&mut session, items)).await;
        let outcome = match stored {
            Ok(Ok(report)) => Ok(report),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(StoreError::Timeout(wait)),
        };
        match outcome {
            Ok(mut report) => {
                self.session = Some(session);
                report.micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
                self.metrics.committed(&report);
                Ok(report)
            }
            Err(error) => {
                self.metrics.failures.inc();
                Err(error)
            }
        }
    }

    /// Whether it holds a connection; false after a failure, until the next commit.
    pub fn is_connected(&self) -> bool {
        self.session.is_some()
    }

    async fn store(&mut self, session: &mut Session, items: &[Item]) -> Result<CommitReport, StoreError> {
        let messages = || {
            items.iter().filter_map(|item| match item {
                Item::Message(incoming) => Some(incoming),
                Item::Quarantine(_) => None,
            })
        };
        let numbered = items.iter().filter_map(|item| match item {
            Item::Message(_) => None,
            Item::Quarantine(entry) => entry.numbered.as_ref(),
        });
        let wanted = messages()
            .map(|incoming| (&incoming.terminal_id, incoming.message.boot()))
            .chain(numbered.map(|numbered| (&numbered.terminal_id, numbered.boot)));
        self.sources.resolve(&mut session.connection, wanted).await?;

        let config = self.database.config();
        let mut batch = Batch::new(items, &self.sources, config.retention.admitted())?;
        let mut report = CommitReport::default();
        let readings = batch::unique(&mut batch.readings, &mut batch.quarantine, &mut report);
        let mut told = fault_period::told(&batch.faults);
        report.fault_statements =
            self.standings.know(&mut session.connection, readings, &mut told, Instant::now()).await?;
        for rows in batch::windows(readings, config.chunk_interval) {
            path::store(session, &rows, &mut batch.quarantine, &mut report).await?;
        }
        let stored_before = report.rows_stored;
        let readings_new = stored_before == readings.len() as u64;
        let fault_rows = batch.faults.len() as u64;
        path::lists_dedupe(&mut session.connection, &mut batch.faults, readings, &mut report).await?;
        let faults = batch::unique(&mut batch.faults, &mut batch.quarantine, &mut report);
        for rows in batch::windows(faults, Duration::from_hours(7 * 24)) {
            path::store(session, &rows, &mut batch.quarantine, &mut report).await?;
        }
        let new = AllNew { events: report.rows_stored - stored_before == fault_rows, readings: readings_new };
        let connection = &mut session.connection;
        self.standings.hear(readings, &mut told);
        let followed = fault_period::follow(connection, &mut self.standings, told, new).await?;
        report.fault_statements += followed.statements;
        report.faults_left_out = followed.left_out;
        let statistics = batch::unique(&mut batch.statistics, &mut batch.quarantine, &mut report);
        for rows in batch::windows(statistics, Duration::from_hours(7 * 24)) {
            path::store(session, &rows, &mut batch.quarantine, &mut report).await?;
        }
        if self.database.edition_known() == Some(Edition::Apache) {
            // The latest of the clocks: rows may have waited for the store since they arrived, and rollups go by
            // that of the database.
            let newest = messages().map(|incoming| incoming.arrival.at).max().unwrap_or_default();
            let now = session.clock.latest(&mut session.connection).await?;
            rollup::late_insert(&mut session.connection, batch.late(now.max(newest))).await?;
        }
        report.declarations_left_out = path::gaps_insert(&mut session.connection, &batch.gaps).await?;
        path::told_insert(&mut session.connection, &batch.told).await?;
        if let Some(clocks) = &mut self.clocks
            && let Some(skewed) = clocks.follow(&mut session.connection, messages(), Instant::now()).await?
        {
            self.metrics.clock_skewed.set(skewed);
        }
        if !batch.quarantine.is_empty() {
            report.quarantined_cut = self
                .quarantine_room
                .cut(&mut session.connection, &mut batch.quarantine, Instant::now())
                .await?;
            quarantine_insert(&mut session.connection, &batch.quarantine).await?;
            report.quarantined = batch.quarantine.len() as u64;
            report.quarantined_as = batch.quarantine.last().map(|entry| entry.reason);
            self.metrics.quarantined(&batch.quarantine);
        }
        // Last: the ledger never claims what is not committed.
        if let Some(ledger) = &self.ledger {
            ledger.tell(batch.note);
        }
        Ok(report)
    }
}

impl Session {
    async fn open(database: &Database) -> Result<Self, StoreError> {
        let mut connection = database.connection().await?;
        let clock = DatabaseClock::ask(&mut connection).await?;
        Ok(Self { connection, buffer: CopyBuffer::default(), staged: Vec::new(), clock })
    }
}
