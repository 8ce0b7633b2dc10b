//! All SQL of Liftwatch: schema, batch writer, registry, recovery, queries, and the private local database.
//!
//! Owns every statement and the judgement whether a failure is worth another try ([`StoreError::retryable`]).
//! Promises: what a call reports as stored is committed on disk, and storing it again adds no row.
//! Does not: decode payloads, judge alarms, or keep anything that is not also in the database.

mod access;
mod alarm;
mod copy;
mod database;
mod downlink;
mod elevator;
mod ensure;
mod error;
mod fault_period;
mod hosts;
mod ledger;
pub mod local;
mod maintenance;
mod presence;
mod quarantine;
mod query;
pub mod recovery;
mod registry;
mod retention;
mod rollup;
mod rows;
mod schema;
mod scratch;
mod serving;
mod size;
mod source;
mod state;
mod statistics;
mod status;
#[doc(hidden)]
pub mod testing;
mod writer;

pub use access::{
    AccessError, AccessListener, AccessSnapshot, AccountRecord, Credential, NewAccount, NewTerminal,
    Rotation, TerminalAccess, TerminalDetail,
};
pub use alarm::{
    AcknowledgeError, Acknowledged, Acknowledgement, AlarmCommitter, AlarmCursor, AlarmFilter, AlarmRecord,
    Evidence, GROUP_EVENTS_MAX, StreamPosition, Unsealed,
};
pub use database::{Database, StoreConfig};
pub use downlink::{DownlinkFate, DownlinkListener, DownlinkQueueError, DownlinkRecord};
pub use elevator::{ElevatorRecord, LatestState};
pub use ensure::Edition;
pub use error::StoreError;
pub use fault_period::FaultPeriodRecord;
pub use ledger::{
    AuditGap, AuditReport, AuditScope, GAPS_NAMED_MAX, GapOutcome, Ledger, LedgerMetrics, LedgerNotes,
    SeqRanges, UsedTwice, message_numbers,
};
pub use maintenance::{MaintenanceMetrics, MaintenanceReport, Step};
pub use presence::{PresenceRecord, TerminalPresence};
pub use quarantine::{
    Numbered, QuarantineEntry, QuarantineFilter, QuarantineReason, QuarantineRecord, QuarantineRetried,
};
pub use query::{
    Connection, ElevatorSeries, FaultCount, FaultsBy, FieldSeries, FleetFilter, FleetMinute, FleetState,
    LatestStates, Maintainer, MinuteReading, Month, Plan, Point, Queries, QueryConfig, QueryError,
    QueryMetrics, Question, Resolution, Series, SeriesField, StatesPage, m4,
};
pub use registry::{Registry, TerminalRecord};
pub use retention::{Kept, Retention};
pub use scratch::ScratchDatabase;
pub use serving::Serving;
pub use size::Counts;
pub use state::ElevatorState;
pub use statistics::{StatisticsTotals, TerminalSegment};
pub use status::{
    JobStatus, ReplicaStatus, RetentionStatus, RollupStatus, SchemaStatus, ServerStatus, StepStatus,
    StoreStatus, TableStatus, Warning,
};
pub use writer::{CommitReport, Incoming, Item, ReasonLabel, StoreMetrics, Writer};
