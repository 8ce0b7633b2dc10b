//! The words of traces: values with their units, so that a reader can follow a decision.

use domain::{DoorState, FaultKind, fault_by_slug};

use super::state::{At, ElevatorState};

/// A row of the taxonomy that the rules name themselves.
pub(super) fn kind(slug: &'static str) -> &'static FaultKind {
    fault_by_slug(slug).expect("the rules name slugs of the taxonomy only")
}

/// The kind of an entrapment by where the car stands.
pub(super) fn kind_by_place(state: &ElevatorState) -> &'static FaultKind {
    match state.merged.door_zone {
        Some(true) => kind("entrapment_at_level"),
        Some(false) => kind("entrapment_between_floors"),
        None => kind("entrapment"),
    }
}

/// Seconds with one decimal.
pub(super) fn seconds(micros: i64) -> String {
    format!("{}.{} s", micros / 1_000_000, micros / 100_000 % 10)
}

/// The time between two moments, in seconds.
pub(super) fn span(from: At, to: At) -> String {
    seconds(to.since(from))
}

pub(super) fn floor(state: &ElevatorState) -> String {
    match (&state.merged.floor, state.merged.floor_ordinal) {
        (Some(label), _) => format!("floor {}", label.as_str()),
        (None, Some(ordinal)) => format!("floor no. {ordinal}"),
        (None, None) => "floor unknown".to_owned(),
    }
}

pub(super) fn door(state: &ElevatorState) -> &'static str {
    match state.merged.door_state {
        None | Some(DoorState::Unknown) => "door unknown",
        Some(DoorState::Closing) => "door closing",
        Some(DoorState::Closed) => "door closed",
        Some(DoorState::Opening) => "door opening",
        Some(DoorState::Open) => "door open",
        Some(DoorState::Locked) => "door locked",
        Some(DoorState::Held) => "door held not fully closed",
        Some(DoorState::NotClosed) => "door not fully closed",
    }
}

pub(super) fn zone(state: &ElevatorState) -> &'static str {
    match state.merged.door_zone {
        Some(true) => "in the zone",
        Some(false) => "outside the zone",
        None => "zone unknown",
    }
}

pub(super) fn latch(state: &ElevatorState) -> String {
    let word = match state.latch.people() {
        Some(true) => "yes",
        Some(false) => "no",
        None => "unknown",
    };
    if state.latch.since == At::default() {
        format!("latch {word}")
    } else {
        format!("latch {word} since {}", state.latch.since.time())
    }
}

pub(super) fn mode(state: &ElevatorState) -> String {
    match state.merged.service_mode {
        Some(mode) => format!("mode {}", mode.number()),
        None => "mode unknown".to_owned(),
    }
}
