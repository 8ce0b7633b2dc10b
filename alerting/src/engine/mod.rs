//! The alarm engine: inputs in one total order become alarms and suppressed candidates.
//!
//! Owns the rules of DOMAIN.md 5 (E1 to E5, the S1 faults), the state of each elevator they need, and the
//! order in which deadlines fire. Promises: the same log gives byte-identical transitions however it is cut
//! into calls, and a state that went through JSON continues as if it had never stopped. Reads no clock, does no
//! I/O, knows no randomness and never sees the state of a case (DESIGN.md 2, promise 8). Does not commit,
//! number or send anything: the shell does.
//!
//! Bounds: every list in a state has one, see [`bounds`]; each says what happens when it is full.

use std::sync::Arc;

use domain::{AlarmEvent, Area, Arrival, ElevatorId, Message, Suppression, TerminalId, Timestamp};
use serde::{Deserialize, Serialize};

mod apply;
pub mod bounds;
mod clear;
mod codes;
mod confidence;
mod driver;
mod e1;
mod e2;
mod e3;
mod e4;
mod e5;
mod events;
mod faults;
mod freshness;
mod inspection;
mod latch;
mod late;
mod latest;
mod merge;
mod motion;
mod state;
mod terminal;
mod thresholds;
mod timer;
mod words;

#[cfg(test)]
mod tests;

pub use apply::{apply, next_deadline};
pub use driver::Engine;
pub use latest::Latest;
pub use state::{ElevatorState, StateError};
pub use thresholds::{RULES_VERSION, Rules, Thresholds, ThresholdsBook, ThresholdsPatch};

/// One entry of the engine's input log. Entries of one elevator are handed over in the order of arrivals.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// A terminal said something.
    Message {
        /// The elevator the terminal serves.
        elevator_id: ElevatorId,
        /// Who speaks.
        terminal_id: TerminalId,
        /// Division of the elevator: chooses the thresholds.
        area: Area,
        /// When and as which message it arrived.
        arrival: Arrival,
        /// What it says.
        message: Arc<Message>,
    },
    /// A terminal came or went.
    Presence {
        /// The elevator the terminal serves.
        elevator_id: ElevatorId,
        /// Who.
        terminal_id: TerminalId,
        /// Division of the elevator.
        area: Area,
        /// When the broker saw it.
        arrival: Arrival,
        /// Came, or went.
        online: bool,
    },
    /// What a terminal says does not come through any more, for our own reasons: its data is not fresh until it
    /// speaks again or comes anew.
    Muted {
        /// The elevator the terminal serves.
        elevator_id: ElevatorId,
        /// Who.
        terminal_id: TerminalId,
        /// Division of the elevator.
        area: Area,
        /// When the first of it was dropped.
        arrival: Arrival,
    },
    /// The registry says what kind of terminal this is. Without it: [`Traits::default`].
    Traits {
        /// The elevator the terminal serves.
        elevator_id: ElevatorId,
        /// Which.
        terminal_id: TerminalId,
        /// Division of the elevator.
        area: Area,
        /// When it was told.
        arrival: Arrival,
        /// What it is.
        traits: Traits,
    },
    /// Time has come this far; deadlines up to it fire.
    Clock(Timestamp),
}

/// What the rules must know of a terminal's kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Traits {
    /// Fitted beside the controller, with sensors of its own (加装). Its codes and S1 faults are trusted less.
    pub retrofit: bool,
    /// Presence comes from an infrared sensor: its "no" is weak evidence.
    pub infrared: bool,
    /// Expected heartbeat period in seconds, where it differs from `heartbeat_s`.
    pub heartbeat_s: Option<u32>,
}

/// What the engine decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transition {
    /// An alarm was raised, changed or cleared. Its number is `None`: the store gives it on commit.
    Event(AlarmEvent),
    /// A candidate was given up, and why.
    Suppressed(Suppression),
}

impl Transition {
    /// The elevator it is about.
    pub fn elevator_id(&self) -> ElevatorId {
        match self {
            Transition::Event(event) => event.alarm.elevator_id,
            Transition::Suppressed(candidate) => candidate.elevator_id,
        }
    }
}
