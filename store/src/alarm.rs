//! Alarms and their stream: the current row of each alarm, and what happened to it in one gapless order.
//!
//! Promises that raising an alarm twice is raising it once, that the numbers of events are gapless and in the
//! order of commits, and that an acknowledgement outlives whatever the engine says later. Knows nothing of
//! rules: it is told what was decided.
//!
//! Whoever changes alarms first locks their ids (advisory, for the transaction), then reads, decides, and
//! writes everything that carries a number in one last statement: the row of `alarm_stream`, which all writers
//! share, is locked for no longer than that statement and the commit.

mod acknowledge;
mod commit;
mod evidence;
mod read;
mod rows;
#[cfg(test)]
mod tests;

pub use acknowledge::{AcknowledgeError, Acknowledged, Acknowledgement};
pub use commit::{AlarmCommitter, GROUP_EVENTS_MAX};
pub use evidence::{Evidence, Unsealed};
pub(crate) use read::RETIRE_MAX;
pub use read::{AlarmCursor, AlarmFilter, AlarmRecord, StreamPosition};

/// Open: its condition lasts and nobody has ended the case. The same text as the predicate of the index
/// `alarm_open`, so that PostgreSQL uses it.
macro_rules! alarm_is_open {
    () => {
        "cleared IS NULL AND state NOT IN \
         ('archived', 'false_alarm', 'self_released', 'duplicate', 'cancelled', 'accident')"
    };
}
pub(crate) use alarm_is_open;
