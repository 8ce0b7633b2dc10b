//! The passenger latch (锁存): whether somebody is in the car, as the rules judge (DOMAIN.md 5, "Latch").

use domain::Passengers;
use serde::{Deserialize, Serialize};

use super::bounds;
use super::merge::Merged;
use super::motion::{Motion, Moves, Moving};
use super::state::At;
use super::thresholds::Thresholds;

/// What set it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum By {
    #[default]
    Sensor,
    Button,
    Code,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Phase {
    /// People cannot appear or vanish behind closed doors.
    #[default]
    Frozen,
    /// From an opening on the raw reading counts,
    Open,
    /// until some seconds after the doors have closed.
    Holding { closed: At, rose: bool, fell: bool },
}

/// The latch and the health of the presence sensor.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Latch {
    value: Option<bool>,
    by: By,
    /// Since when the value stands.
    pub(super) since: At,
    /// The moment from which the people were inside.
    inside: At,
    phase: Phase,
    /// Set by button or code while the raw reading counts.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    forced: bool,
    /// The "no" comes from an infrared sensor.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    weak: bool,
    /// The raw reading and since when it stands.
    pub(super) raw: Option<bool>,
    raw_since: At,
    /// Door cycles through which raw yes did not change.
    yes_cycles: u8,
    pub(super) faulty: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    flaps: Vec<At>,
    pub(super) flapping: bool,
    /// There is no door signal.
    no_door: bool,
}

impl Latch {
    /// Somebody in the car: yes, no, unknown.
    pub(super) fn people(&self) -> Option<bool> {
        match self.phase {
            Phase::Frozen => self.value,
            _ if self.forced => Some(true),
            _ => self.usable(),
        }
    }

    /// The raw reading, unless the sensor is known to be faulty.
    fn usable(&self) -> Option<bool> {
        if self.faulty { None } else { self.raw }
    }

    /// A no that can be relied on.
    pub(super) fn is_reliable_no(&self) -> bool {
        self.phase == Phase::Frozen && self.value == Some(false) && !self.weak
    }

    /// The yes comes from the presence sensor alone.
    pub(super) fn is_sensed(&self) -> bool {
        match self.phase {
            Phase::Frozen => self.by == By::Sensor,
            _ => !self.forced,
        }
    }

    /// The people were inside before the run that began at `started`, or said so themselves.
    pub(super) fn is_before_run(&self, started: Option<At>) -> bool {
        if !self.is_sensed() {
            return true;
        }
        let inside = match self.phase {
            Phase::Frozen => self.inside,
            Phase::Holding { closed, .. } => closed,
            Phase::Open => return false,
        };
        started.is_some_and(|started| inside <= started)
    }

    /// No door signal tells when people come and go.
    pub(super) fn has_no_door(&self) -> bool {
        self.no_door
    }

    /// A valid press, or a device code: somebody is inside.
    pub(super) fn force(&mut self, by: By, at: At) {
        if self.phase != Phase::Frozen {
            self.forced = true;
        }
        if self.value != Some(true) {
            self.since = at;
            self.inside = at;
        }
        self.value = Some(true);
        self.by = by;
    }

    /// After a reboot or a hole in the numbers a door may have opened unseen: yes stays, no becomes unknown.
    pub(super) fn doubt(&mut self, at: At) {
        if self.value == Some(false) {
            self.set(None, at);
        }
    }

    /// When the hold ends.
    pub(super) fn due(&self, numbers: &Thresholds) -> Option<At> {
        let hold = match self.phase {
            Phase::Holding { closed, .. } => Some(closed.plus_s(numbers.presence_hold_s)),
            _ => None,
        };
        let steady = self.is_waiting_for_yes().then(|| self.raw_since.plus_s(numbers.no_door_yes_s));
        hold.into_iter().chain(steady).min()
    }

    fn is_waiting_for_yes(&self) -> bool {
        self.no_door && self.phase == Phase::Frozen && self.value != Some(true) && self.usable() == Some(true)
    }

    /// Lets time pass up to `at`.
    pub(super) fn pass(&mut self, at: At, numbers: &Thresholds) {
        if let Phase::Holding { closed, rose, fell } = self.phase {
            let end = closed.plus_s(numbers.presence_hold_s);
            if end <= at {
                self.freeze(closed, end, rose, fell);
            }
        }
        let end = self.raw_since.plus_s(numbers.no_door_yes_s);
        if self.is_waiting_for_yes() && end <= at {
            self.set(Some(true), end);
            self.inside = self.raw_since;
        }
    }

    fn freeze(&mut self, closed: At, end: At, rose: bool, fell: bool) {
        let raw = self.usable();
        let value = if self.forced || raw == Some(true) || (rose && !self.faulty) {
            Some(true)
        } else if fell || raw.is_none() {
            None
        } else {
            Some(false)
        };
        self.phase = Phase::Frozen;
        if self.forced {
            self.forced = false;
        } else {
            self.set(value, end);
            self.inside = closed;
        }
    }

    fn set(&mut self, value: Option<bool>, at: At) {
        if self.value != value {
            self.since = at;
        }
        self.value = value;
        self.by = By::Sensor;
    }

    /// Takes a reading, merged, of time `at`, after the motion has taken it.
    #[allow(clippy::too_many_arguments)] // one reading, seen from all sides
    pub(super) fn follow(
        &mut self,
        merged: &Merged,
        motion: &Motion,
        moves: &Moves,
        at: At,
        infrared: bool,
        has_candidate: bool,
        numbers: &Thresholds,
    ) {
        self.pass(at, numbers);
        self.weak = infrared;
        let closed = merged.door_closed();
        self.no_door = closed.is_none();
        self.take_raw(raw(merged, numbers), motion, at, has_candidate, numbers);
        if let Some(parked_us) = moves.left_after_us {
            self.settle_flapping(parked_us, at, numbers);
        }
        let outside = merged.door_zone == Some(false);
        if moves.opening {
            self.phase = Phase::Open;
            self.forced = false;
        }
        match (self.phase, closed) {
            (Phase::Open, Some(true)) => self.phase = Phase::Holding { closed: at, rose: false, fell: false },
            (Phase::Holding { .. }, Some(false)) if !outside => self.phase = Phase::Open,
            (Phase::Frozen, Some(false))
                if !outside && self.usable() == Some(true) && self.value != Some(true) =>
            {
                self.set(Some(true), at);
                self.inside = at;
            }
            _ => {}
        }
        if moves.cycle {
            self.count_cycle(at, numbers);
        }
        let steady_no = self.no_door
            && self.usable() == Some(false)
            && at.is_past(self.raw_since, numbers.no_door_no_s)
            && motion.run.is_some_and(|run| run.normal && run.ended.is_some())
            && !outside;
        if steady_no && self.phase == Phase::Frozen && self.value == Some(true) {
            self.set(Some(false), at);
        }
    }

    fn take_raw(
        &mut self,
        raw: Option<bool>,
        motion: &Motion,
        at: At,
        has_candidate: bool,
        numbers: &Thresholds,
    ) {
        if raw == self.raw {
            return;
        }
        let turned = raw.is_some() && self.raw.is_some();
        if turned
            && motion.state == Moving::Stopped
            && !has_candidate
            && at.is_past(motion.since, numbers.flap_parked_s + 1)
        {
            self.count_flap(at, numbers);
        }
        if let Phase::Holding { rose, fell, .. } = &mut self.phase
            && turned
        {
            *rose |= raw == Some(true);
            *fell |= raw == Some(false);
        }
        self.yes_cycles = 0;
        if raw == Some(false) {
            self.faulty = false;
        }
        self.raw = raw;
        self.raw_since = at;
    }

    fn count_flap(&mut self, at: At, numbers: &Thresholds) {
        if self.flaps.len() >= bounds::FLAPS_MAX {
            self.flaps.remove(0);
        }
        self.flaps.push(at);
        let minute = at.minus_s(60);
        let recent = self.flaps.iter().filter(|flap| **flap > minute).count();
        let most = usize::from(numbers.flap_changes_per_min).min(bounds::FLAPS_MAX - 1);
        self.flapping |= recent > most;
    }

    /// A whole quiet minute while parked ends the flapping.
    fn settle_flapping(&mut self, parked_us: i64, at: At, numbers: &Thresholds) {
        let judged = parked_us > i64::from(numbers.flap_parked_s + 60) * 1_000_000;
        if self.flapping && judged && self.flaps.last().is_none_or(|flap| at.is_past(*flap, 60)) {
            self.flapping = false;
            self.flaps.clear();
        }
    }

    fn count_cycle(&mut self, at: At, numbers: &Thresholds) {
        if self.raw != Some(true) {
            return;
        }
        self.yes_cycles = self.yes_cycles.saturating_add(1);
        if self.yes_cycles >= numbers.stuck_cycles && !self.faulty {
            self.faulty = true;
            if self.by == By::Sensor {
                self.set(None, at);
            }
        }
    }
}

/// What the sensors say now. Load and people counted can only say yes: a light parcel is nobody's absence.
fn raw(merged: &Merged, numbers: &Thresholds) -> Option<bool> {
    let weighs = merged.load_kg.is_some_and(|load| load >= numbers.presence_load_kg);
    let counted = merged.people_count.is_some_and(|count| count >= 1);
    if weighs || counted { Some(true) } else { merged.passengers.map(|seen| seen == Passengers::Yes) }
}
