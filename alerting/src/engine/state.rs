//! What the engine remembers of one elevator.

use std::fmt;

use domain::{Area, ArrivalNo, BootId, ElevatorId, Seq, TerminalId, Timestamp};
use serde::{Deserialize, Serialize};

use super::codes::ActiveCode;
use super::confidence::Case;
use super::e4::Waiting;
use super::faults::FaultAlarm;
use super::inspection::Inspection;
use super::latch::Latch;
use super::late::LateOpen;
use super::merge::Merged;
use super::motion::Motion;
use super::terminal::Terminal;
use super::timer::Timer;

/// A moment of the server's clock inside a state: microseconds since 1970, between the years 1970 and 9999, so
/// that it always has a text form.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct At(i64);

impl At {
    const LAST: i64 = 253_402_300_799_000_000;
    const SECOND: i64 = 1_000_000;

    pub(super) fn of(time: Timestamp) -> Self {
        Self::of_micros(time.micros())
    }

    pub(super) fn of_micros(micros: i64) -> Self {
        Self(micros.clamp(0, Self::LAST))
    }

    pub(super) fn micros(self) -> i64 {
        self.0
    }

    pub(super) fn time(self) -> Timestamp {
        Timestamp::from_micros(self.0)
    }

    pub(super) fn plus_s(self, seconds: u32) -> Self {
        Self::of_micros(self.0 + i64::from(seconds) * Self::SECOND)
    }

    pub(super) fn minus_s(self, seconds: u32) -> Self {
        Self::of_micros(self.0 - i64::from(seconds) * Self::SECOND)
    }

    pub(super) fn plus_micros(self, micros: i64) -> Self {
        Self::of_micros(self.0.saturating_add(micros))
    }

    /// Microseconds since `earlier`, not below zero.
    pub(super) fn since(self, earlier: At) -> i64 {
        (self.0 - earlier.0).max(0)
    }

    /// Whether `seconds` have passed since `earlier`.
    pub(super) fn is_past(self, earlier: At, seconds: u32) -> bool {
        self >= earlier.plus_s(seconds)
    }
}

impl fmt::Debug for At {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.time())
    }
}

/// The reading or event that began something; names the alarm (DESIGN.md 6).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Origin {
    #[serde(rename = "t")]
    pub(super) terminal: TerminalId,
    #[serde(rename = "b")]
    pub(super) boot: BootId,
    #[serde(rename = "n")]
    pub(super) seq: Seq,
    /// Device time as sent, microseconds.
    #[serde(rename = "d")]
    pub(super) device_us: i64,
}

/// Why a stored state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Not JSON of a state.
    #[error("not a state of the engine")]
    Json(#[from] serde_json::Error),
    /// Written by another version of the engine.
    #[error("state version {found}, this engine reads {}", ElevatorState::VERSION)]
    Version {
        /// The version found.
        found: u32,
    },
}

/// Everything the engine remembers of one elevator. Opaque; goes through JSON without loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ElevatorState {
    #[serde(rename = "v")]
    version: u32,
    #[serde(rename = "id")]
    pub(super) elevator_id: ElevatorId,
    pub(super) area: Area,
    /// Latest server time handled.
    pub(super) now: At,
    /// Last message handled.
    #[serde(rename = "no")]
    pub(super) arrival_no: ArrivalNo,
    /// The reading or event handled last: what a deadline's findings are attributed to.
    #[serde(rename = "last")]
    pub(super) origin: Option<Origin>,
    pub(super) terminals: Vec<Terminal>,
    /// What the readings add up to.
    #[serde(rename = "m")]
    pub(super) merged: Merged,
    /// The latest state as it was before a backlog that is being read; shown until it has passed.
    #[serde(rename = "shown", default, skip_serializing_if = "Option::is_none")]
    pub(super) shown: Option<Box<Merged>>,
    pub(super) motion: Motion,
    pub(super) latch: Latch,
    #[serde(rename = "insp")]
    pub(super) inspection: Inspection,
    /// Data has not been fresh since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) stale: Option<At>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) e1: Option<Timer>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) e2: Option<Timer>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) e5: Option<Timer>,
    /// A press while running that waits for the stop and what follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) e4: Option<Waiting>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) codes: Vec<ActiveCode>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) late: Vec<LateOpen>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) late_raised: Vec<domain::AlarmId>,
    /// The entrapment candidate or alarm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) case: Option<Box<Case>>,
    #[serde(rename = "falarms", default, skip_serializing_if = "Vec::is_empty")]
    pub(super) fault_alarms: Vec<FaultAlarm>,
}

impl ElevatorState {
    /// Version of the form; another one is refused by [`ElevatorState::from_json`].
    pub const VERSION: u32 = 1;

    /// An elevator never heard of.
    pub fn new(elevator_id: ElevatorId, area: Area) -> Self {
        Self {
            version: Self::VERSION,
            elevator_id,
            area,
            now: At::default(),
            arrival_no: ArrivalNo::default(),
            origin: None,
            terminals: Vec::new(),
            merged: Merged::default(),
            shown: None,
            motion: Motion::default(),
            latch: Latch::default(),
            inspection: Inspection::default(),
            stale: None,
            e1: None,
            e2: None,
            e5: None,
            e4: None,
            codes: Vec::new(),
            late: Vec::new(),
            late_raised: Vec::new(),
            case: None,
            fault_alarms: Vec::new(),
        }
    }

    /// Whose state this is.
    pub fn elevator_id(&self) -> ElevatorId {
        self.elevator_id
    }

    /// Division of the elevator, as last told.
    pub fn area(&self) -> Area {
        self.area
    }

    /// The last message it covers: a start replays what arrived after it.
    pub fn covered(&self) -> ArrivalNo {
        self.arrival_no
    }

    /// As JSON, for the checkpoint.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a state has string keys only and no floats")
    }

    /// From a checkpoint.
    pub fn from_json(text: &str) -> Result<Self, StateError> {
        #[derive(Deserialize)]
        struct Version {
            v: u32,
        }
        let Version { v: found } = serde_json::from_str(text)?;
        if found != Self::VERSION {
            return Err(StateError::Version { found });
        }
        Ok(serde_json::from_str(text)?)
    }

    /// The terminal with this id, taken on if new.
    pub(super) fn terminal_index(&mut self, id: &TerminalId) -> usize {
        if let Some(index) = self.terminals.iter().position(|terminal| terminal.id == *id) {
            return index;
        }
        if self.terminals.len() < super::bounds::TERMINALS_MAX {
            self.terminals.push(Terminal::new(id.clone()));
            return self.terminals.len() - 1;
        }
        let oldest = (0..self.terminals.len()).min_by_key(|index| self.terminals[*index].heard).unwrap_or(0);
        let gone = self.terminals[oldest].owns;
        self.merged.forget(gone);
        self.terminals[oldest] = Terminal::new(id.clone());
        oldest
    }

    /// Late readings are being read: what they add up to is not the present.
    pub(super) fn is_in_backlog(&self) -> bool {
        self.terminals.iter().any(|terminal| terminal.backlog.is_some())
    }

    /// Whether some code with this slug is active.
    pub(super) fn is_active(&self, slug: &str) -> bool {
        !self.codes.is_empty()
            && self.codes.iter().any(|active| active.ended.is_none() && active.code.fault.slug == slug)
    }
}
