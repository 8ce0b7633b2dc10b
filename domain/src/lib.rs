//! The words of the trade: identities, time, readings, the fault taxonomy, alarms and limits.
//!
//! Owns the types every other crate speaks in, and the checks that make them impossible to hold wrongly.
//! Does no I/O, reads no clock and holds no state: time and identities arrive as arguments.

mod alarm;
pub mod clock;
mod device;
mod downlink;
mod fault;
pub mod fault_period;
mod id;
pub mod limits;
mod message;
pub mod order;
mod presence;
mod reading;
mod receipt;
pub mod segment;
mod statistics;
mod time;

pub use alarm::{
    Alarm, AlarmChange, AlarmEvent, AlarmKind, AlarmState, EvidenceKind, EvidenceLine, ParseSlugError,
    RuleId, Suppression,
};
pub use device::DeviceKind;
pub use downlink::{Downlink, DownlinkError, DownlinkId, DownlinkKind, SentDownlink};
pub use fault::{FAULTS, FaultGroup, FaultKind, Severity, fault_by_slug};
pub use fault_period::{ClosedBy, FaultPeriod, OpenedBy};
pub use id::{AlarmId, Area, BootId, ElevatorId, IdError, Seq, SourceId, TerminalId};
pub use message::{Code, EventBatch, EventState, FaultEvent, Meaning, Message, TelemetryBatch};
pub use presence::PresenceState;
pub use reading::{
    CarStatus, Direction, DoorState, Field, Floor, Passengers, RangeError, Reading, ServiceMode,
};
pub use receipt::Receipt;
pub use segment::{Segment, SegmentBegin};
pub use statistics::{Counter, Counters, Statistics};
pub use time::{Arrival, ArrivalNo, ParseTimestampError, Timestamp};
