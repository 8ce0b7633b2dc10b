//! Stops, runs and openings (DOMAIN.md 5, "Door words").

use domain::{DoorState, ServiceMode};
use serde::{Deserialize, Serialize};

use super::merge::Merged;
use super::state::At;
use super::thresholds::Thresholds;

/// Whether the car moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Moving {
    #[default]
    Unknown,
    Stopped,
    Running,
}

/// The present run, or the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Run {
    pub(super) started: At,
    /// In mode 1 throughout, from a start with no door open.
    pub(super) normal: bool,
    pub(super) ended: Option<At>,
    /// The first opening after its end.
    pub(super) opened: Option<At>,
}

/// What the readings tell of the car's movement and its door.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Motion {
    pub(super) state: Moving,
    /// Since when.
    pub(super) since: At,
    pub(super) run: Option<Run>,
    /// There was an opening since the stop.
    pub(super) opened: bool,
    /// The door as last known.
    closed: Option<bool>,
    /// When it left closed.
    left: Option<At>,
    /// Door open in the zone since.
    pub(super) open_zone: Option<At>,
    /// An opening whose closing has not come yet.
    cycle: bool,
    /// Readings were missed for long enough that a stop with an opening may have been among them.
    pub(super) doubtful: bool,
}

/// What one reading did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Moves {
    /// The car left a stop, where it had stood for so many microseconds.
    pub(super) left_after_us: Option<i64>,
    /// An opening.
    pub(super) opening: bool,
    /// The door became fully closed.
    pub(super) closing: bool,
    /// That closing completed a door cycle.
    pub(super) cycle: bool,
    /// That cycle ended a normal run: when the run began.
    pub(super) normal_run: Option<At>,
}

impl Motion {
    /// Takes a reading, merged, of time `at`.
    pub(super) fn follow(&mut self, merged: &Merged, at: At, numbers: &Thresholds) -> Moves {
        let mut moves = Moves::default();
        let moving = if merged.is_running(numbers.stopped_speed_mm_s) {
            Moving::Running
        } else if merged.is_stopped(numbers.stopped_speed_mm_s) {
            Moving::Stopped
        } else {
            Moving::Unknown
        };
        // A door that closes in the reading that starts a run belongs to the stop before it.
        if moving == Moving::Running {
            self.follow_door(merged, at, numbers, &mut moves);
            self.follow_car(moving, merged, at, numbers, &mut moves);
        } else {
            self.follow_car(moving, merged, at, numbers, &mut moves);
            self.follow_door(merged, at, numbers, &mut moves);
        }
        moves
    }

    fn follow_car(
        &mut self,
        moving: Moving,
        merged: &Merged,
        at: At,
        numbers: &Thresholds,
        moves: &mut Moves,
    ) {
        let in_mode = merged.service_mode == Some(ServiceMode::Normal);
        if let Some(run) = &mut self.run
            && run.ended.is_none()
        {
            run.normal &= in_mode;
        }
        if moving == self.state {
            return;
        }
        match moving {
            Moving::Running => {
                if self.state == Moving::Stopped {
                    moves.left_after_us = Some(at.since(self.since));
                }
                // A run of which a part was not seen goes on, unless it had ended.
                if self.run.is_none_or(|run| run.ended.is_some()) {
                    let normal = in_mode && !merged.door_is_open();
                    self.run = Some(Run { started: at, normal, ended: None, opened: None });
                    self.doubtful = false;
                }
                self.opened = false;
            }
            Moving::Stopped => {
                if let Some(run) = &mut self.run
                    && run.ended.is_none()
                {
                    run.ended = Some(at);
                    self.opened = false;
                    // Doors may begin to open while the car still levels.
                    let by_boolean = counts_left_closed(merged)
                        && self.left.is_some_and(|left| !at.is_past(left, numbers.arrive_open_s + 1));
                    if merged.door_open_in_zone() || by_boolean {
                        self.note_opening(at, moves);
                    }
                }
            }
            Moving::Unknown => {}
        }
        self.state = moving;
        self.since = at;
    }

    fn follow_door(&mut self, merged: &Merged, at: At, numbers: &Thresholds, moves: &mut Moves) {
        let open_zone = merged.door_open_in_zone();
        if open_zone && self.open_zone.is_none() {
            self.note_opening(at, moves);
        }
        self.open_zone = if open_zone { self.open_zone.or(Some(at)) } else { None };
        match merged.door_closed() {
            Some(true) => {
                moves.closing = self.closed == Some(false);
                if moves.closing && self.cycle {
                    self.cycle = false;
                    moves.cycle = true;
                    moves.normal_run =
                        self.run.filter(|run| run.ended_normally(numbers)).map(|run| run.started);
                }
                self.closed = Some(true);
                self.left = None;
            }
            Some(false) => {
                if self.closed == Some(true) {
                    self.left = Some(at);
                    let just_stopped =
                        self.state == Moving::Stopped && at <= self.since.plus_s(numbers.arrive_open_s);
                    if just_stopped && counts_left_closed(merged) {
                        self.note_opening(at, moves);
                    }
                }
                self.closed = Some(false);
            }
            None => {}
        }
    }

    fn note_opening(&mut self, at: At, moves: &mut Moves) {
        moves.opening = true;
        self.opened = true;
        self.cycle = true;
        self.doubtful = false;
        if let Some(run) = &mut self.run
            && run.ended.is_some()
        {
            run.opened.get_or_insert(at);
        }
    }

    /// The last run ended, and normally.
    pub(super) fn ended_normally(&self, numbers: &Thresholds) -> bool {
        self.run.is_some_and(|run| run.ended_normally(numbers))
    }
}

impl Run {
    /// An opening followed in time. It needs the zone, so the stop was not outside it.
    fn ended_normally(&self, numbers: &Thresholds) -> bool {
        let (Some(ended), Some(opened)) = (self.ended, self.opened) else { return false };
        self.normal && opened <= ended.plus_s(numbers.run_end_s)
    }
}

/// Only where the door cannot be seen open in the zone does leaving closed count.
fn counts_left_closed(merged: &Merged) -> bool {
    match merged.door_zone {
        Some(false) => false,
        Some(true) => merged.door_state == Some(DoorState::NotClosed),
        None => merged.door_closed() == Some(false),
    }
}
