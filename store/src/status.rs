//! What an operator wants to know of the database, in one reading: `liftwatch db status`.
//!
//! Reads only, with the rights of an ordinary owner of the schema; what needs more is left out. Cheap on a
//! large store: sizes and chunks come from catalogs, rows from the planner's estimates. Works on a schema that
//! is older than this version, and says so. Warnings are made by a pure function of what was read ([`warnings`]).

mod read;
mod server;
mod warnings;

use domain::Timestamp;
use serde::Serialize;
use sqlx::Connection;

pub use warnings::Warning;

use crate::{Database, Edition, StoreError};

/// The state of a database.
#[derive(Debug, Clone, Serialize)]
pub struct StoreStatus {
    /// When it was read, by the database's clock.
    pub at: Timestamp,
    /// `apache` or `community`.
    pub edition: &'static str,
    /// Version of PostgreSQL.
    pub postgresql: String,
    /// Version of TimescaleDB.
    pub timescaledb: String,
    /// Migrations of the schema.
    pub schema: SchemaStatus,
    /// Tables that grow.
    pub tables: Vec<TableStatus>,
    /// Rollups.
    pub rollups: RollupStatus,
    /// How long things are kept, and what is due.
    pub retention: Vec<RetentionStatus>,
    /// Steps of maintenance.
    pub maintenance: Vec<StepStatus>,
    /// The clock leapt ahead: nothing is deleted until then, or until it is set back.
    pub deleting_from: Option<Timestamp>,
    /// Jobs of the server itself (Community edition).
    pub jobs: Vec<JobStatus>,
    /// The server.
    pub server: ServerStatus,
    /// What needs somebody, with what to do.
    pub warnings: Vec<Warning>,
}

/// Migrations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SchemaStatus {
    /// The latest that is applied; nothing in an empty database.
    pub applied: Option<i64>,
    /// The latest that this version knows.
    pub known: i64,
    /// Those of this version that are not applied.
    pub pending: Vec<i64>,
}

/// One table.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct TableStatus {
    /// Its name.
    pub name: String,
    /// Rows, by the planner's estimate: minutes behind, and nothing before the first ANALYZE. Those in the columnstore
    /// are as many as went there.
    pub rows_estimate: Option<i64>,
    /// Chunks; nothing if it does not lie in chunks.
    pub chunks: Option<i64>,
    /// Span of new chunks, in seconds.
    pub chunk_interval_s: Option<i64>,
    /// Beginning of the oldest chunk.
    pub oldest: Option<Timestamp>,
    /// End of the newest chunk.
    pub newest: Option<Timestamp>,
    /// Rows of the densest of the newest chunks, by estimate.
    pub active_chunk_rows: Option<i64>,
    /// The span of that chunk, in seconds: it may have been made before the span of new ones was changed.
    pub active_chunk_s: Option<i64>,
    /// Bytes of rows.
    pub heap_bytes: i64,
    /// Bytes of indexes.
    pub index_bytes: i64,
    /// Bytes of long values.
    pub toast_bytes: i64,
    /// All of it.
    pub total_bytes: i64,
    /// Chunks in the columnstore.
    pub columnstore_chunks: Option<i64>,
    /// Bytes of those before they went there.
    pub columnstore_bytes_before: Option<i64>,
    /// Bytes of those now.
    pub columnstore_bytes: Option<i64>,
    /// Rows of the rowstore that are deleted and not vacuumed, by estimate.
    pub dead_rows: i64,
}

impl TableStatus {
    /// How many times smaller the columnstore has made what is there.
    pub fn columnstore_ratio(&self) -> Option<f64> {
        match (self.columnstore_bytes_before, self.columnstore_bytes) {
            (Some(before), Some(after)) if after > 0 => Some(before as f64 / after as f64),
            _ => None,
        }
    }
}

/// How far the rollups go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RollupStatus {
    /// Minutes before it are rolled up.
    pub minutes_to: Option<Timestamp>,
    /// Hours before it are.
    pub hours_to: Option<Timestamp>,
    /// How far that of minutes is behind now, in seconds; 300 to 360 is usual.
    pub lag_s: Option<u64>,
    /// Hours of elevators that wait to be rolled up again (Apache edition).
    pub late_hours_waiting: i64,
    /// The oldest of them.
    pub late_hours_oldest: Option<Timestamp>,
}

/// One table's retention.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RetentionStatus {
    /// Its name.
    pub table: &'static str,
    /// Days it is kept, where no division says otherwise.
    pub days: u64,
    /// The most of any division: older chunks go as a whole.
    pub days_longest: u64,
    /// The least of any division.
    pub days_shortest: u64,
    /// Older than this is due.
    pub cutoff: Timestamp,
    /// Whole chunks that are due now.
    pub chunks_due: Option<i64>,
    /// When the next chunk falls due.
    pub next_due: Option<Timestamp>,
    /// Chunks let go so far.
    pub chunks_dropped: i64,
    /// Rows of divisions let go so far.
    pub rows_dropped: i64,
    /// Rows before it are gone, everywhere.
    pub gone_before: Option<Timestamp>,
}

/// One step of maintenance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StepStatus {
    /// Its name.
    pub step: String,
    /// When its last run began.
    pub started: Timestamp,
    /// When it last went well.
    pub succeeded: Option<Timestamp>,
    /// When it runs next.
    pub due: Timestamp,
    /// Runs so far.
    pub runs: i64,
    /// Runs that failed.
    pub failures: i64,
    /// Stretches, windows, chunks or rows done so far.
    pub done: i64,
    /// Why its last run failed.
    pub error: Option<String>,
}

/// One job of the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JobStatus {
    /// Its number.
    pub job_id: i32,
    /// What it does.
    pub job: String,
    /// For which table.
    pub table: Option<String>,
    /// Its settings, as the server writes them.
    pub config: Option<String>,
    /// How often, in seconds.
    pub every_s: i64,
    /// When it last went well.
    pub succeeded: Option<Timestamp>,
    /// When it runs next.
    pub next: Option<Timestamp>,
    /// Whether its last run failed.
    pub failed_last: bool,
    /// Runs so far.
    pub runs: i64,
    /// Runs that failed.
    pub failures: i64,
    /// What the last failure said.
    pub error: Option<String>,
    /// Its last failure came after its work was done and committed.
    pub failed_after_work: bool,
}

/// The server.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ServerStatus {
    /// Since when it runs.
    pub started: Option<Timestamp>,
    /// Whether it is a standby.
    pub standby: bool,
    /// Connections of clients, to all databases.
    pub connections: i64,
    /// Those of this database.
    pub connections_here: i64,
    /// The most it takes.
    pub connections_max: i64,
    /// Bytes of this database.
    pub database_bytes: i64,
    /// Bytes of write-ahead log since the statistics were reset; nothing on servers that do not tell.
    pub wal_written_bytes: Option<i64>,
    /// Since when that is counted.
    pub wal_since: Option<Timestamp>,
    /// Bytes of write-ahead log on disk; nothing without the right to look (`pg_monitor`).
    pub wal_disk_bytes: Option<i64>,
    /// Transactions since the oldest was frozen: at 2 billion the server stops.
    pub frozen_age: i64,
    /// Seconds since the oldest transaction of a client began.
    pub oldest_transaction_s: Option<i64>,
    /// Settings that promises rest upon, as they are for others of this database. Liftwatch sets some for itself.
    pub settings: std::collections::BTreeMap<String, String>,
    /// Standbys that are connected; empty without the right to look, too.
    pub replicas: Vec<ReplicaStatus>,
}

/// One standby.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReplicaStatus {
    /// Its name.
    pub name: String,
    /// What it does: `streaming`, `catchup`...
    pub state: String,
    /// `sync`, `async`...
    pub sync: String,
    /// Bytes it is behind; nothing without the right to look.
    pub behind_bytes: Option<i64>,
}

impl Edition {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Apache => "apache",
            Self::Community => "community",
        }
    }
}

impl Database {
    /// Reads the state of the database; changes nothing. `retention` and `columnstore_after` are those of this
    /// connection's settings.
    pub async fn status(&self) -> Result<StoreStatus, StoreError> {
        let edition = self.edition().await?;
        let mut connection = self.connection().await?;
        // Whoever looks must not wait for ever, nor get in the way.
        sqlx::raw_sql(
            "SET statement_timeout = '30s'; SET lock_timeout = '2s'; SET default_transaction_read_only = on",
        )
        .execute(&mut connection)
        .await?;
        let mut status = read::status(&mut connection, edition, self.config()).await?;
        connection.close().await?;
        let mut others = self.connection_of_others().await?;
        status.server.settings = server::settings(&mut others).await?;
        others.close().await?;
        status.warnings = warnings::warnings(&status, self.config());
        Ok(status)
    }
}
