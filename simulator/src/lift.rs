//! One lift: motion, doors, passengers, traffic by the hour, and what can go wrong with it.
//!
//! Owns the physical state. Promises: the same seed gives the same life, however often one looks; the car
//! never moves with its doors not closed; nothing moves faster than [`Bounds::TRAVEL`], save under the
//! brake. Knows nothing of terminals and reads no clock. It serves one call after another (no collective
//! control); a call beyond [`CALLS_MAX`] waiting takes the stairs.

use std::collections::VecDeque;
use std::time::Duration;

use domain::{CarStatus, Direction, DoorState, EventState, Reading, Timestamp};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::fault::Fault;
use crate::motion::{Bounds, Motion, State};

/// Height of a floor, m.
pub const FLOOR_M: f64 = 3.0;
/// Half the unlocking zone, m.
pub const ZONE_M: f64 = 0.15;
/// Calls waiting at most.
pub const CALLS_MAX: usize = 16;
/// Trips of a lift on an average day (DOMAIN.md 9).
pub const TRIPS_PER_DAY: f64 = 300.0;

/// Share of the day's trips in each hour of UTC+8, percent (DOMAIN.md 9).
const HOUR_SHARES: [f64; 24] = [
    0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 4.0, 10.5, 12.5, 6.0, 4.5, 6.0, 6.0, 4.0, 3.5, 3.5, 4.5, 7.5, 9.5, 5.5,
    4.0, 3.0, 1.5, 1.0,
];
const HOUR_US: i64 = 3_600_000_000;
const ZONE_OFFSET_US: i64 = 8 * HOUR_US;

const OPENING: Duration = Duration::from_secs(2);
const ALIGHTING: Duration = Duration::from_millis(1_500);
const CLOSING: Duration = Duration::from_millis(2_500);
const PERSON_KG: i16 = 75;

/// What sensors in and on the car show.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// Moving or not.
    pub car_status: CarStatus,
    /// Where to.
    pub direction: Direction,
    /// Within the unlocking zone.
    pub door_zone: bool,
    /// Doors.
    pub door_state: DoorState,
    /// Somebody in the car.
    pub passengers: bool,
    /// Label of the nearest floor.
    pub floor: String,
    /// The same counted from the lowest stop, which is 0.
    pub floor_ordinal: i16,
    /// Height above the lowest stop, mm.
    pub position_mm: i32,
    /// Speed, mm/s, up positive.
    pub velocity_mm_s: i32,
    /// Load, kg.
    pub load_kg: i16,
    /// Contacts, see [`Reading`].
    pub flags: i32,
    /// Slugs of all codes active.
    pub codes: Vec<&'static str>,
}

/// What happened while the lift was advanced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happening {
    /// A code opened or closed.
    Code(Timestamp, &'static str, EventState),
    /// A fault began, with or without people in the car. Not reported by any terminal: the truth.
    Began(Timestamp, Fault, bool),
    /// A fault ended. The truth again.
    Ended(Timestamp, Fault),
}

#[derive(Debug, Clone)]
enum Phase {
    /// Level, doors closed, nothing to do.
    Idle,
    Opening,
    /// Doors open, those who arrived leave at its end.
    Alighting,
    /// Doors open, the others are in.
    Boarding,
    Closing,
    /// To the floor in `to`, or, with `stuck`, into an entrapment.
    Moving {
        motion: Motion,
        to: usize,
        stuck: bool,
    },
    Braking {
        motion: Motion,
    },
    /// At rest by a fault, until released.
    Dead {
        door: DoorState,
    },
}

#[derive(Debug, Clone, Copy)]
struct Call {
    from: usize,
    to: usize,
    people: i16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Waits for its circumstances.
    Pending,
    /// Has begun; its code opens then.
    Begun(Option<Timestamp>),
    /// Has begun, and its code is open; closes by itself then.
    Reported(Option<Timestamp>),
}

/// One lift.
#[derive(Debug, Clone)]
pub struct Lift {
    rng: ChaCha8Rng,
    floors: usize,
    trips_per_day: f64,
    now: Timestamp,
    phase: Phase,
    began: Timestamp,
    until: Option<Timestamp>,
    rest: f64,
    next_call: Timestamp,
    calls: VecDeque<Call>,
    /// The call being served; its people are in the car or waiting at its floor.
    serving: Option<Call>,
    people: i16,
    fault: Option<(Fault, Stage)>,
}

impl Lift {
    /// A lift with `floors` stops (at least 2) standing idle at a floor of its seed's choice.
    pub fn new(seed: u64, floors: u16, at: Timestamp) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let floors = usize::from(floors.max(2));
        let rest = rng.random_range(0..floors) as f64 * FLOOR_M;
        let mut lift = Self {
            rng,
            floors,
            trips_per_day: TRIPS_PER_DAY,
            now: at,
            phase: Phase::Idle,
            began: at,
            until: None,
            rest,
            next_call: at,
            calls: VecDeque::new(),
            serving: None,
            people: 0,
            fault: None,
        };
        lift.next_call = lift.draw_call_time();
        lift
    }

    /// Changes how busy it is, from now on.
    pub fn set_trips_per_day(&mut self, trips: f64) {
        self.trips_per_day = trips.clamp(0.001, 20_000.0);
        self.next_call = self.draw_call_time();
    }

    /// Lives on until `to`, and tells what happened. Going back in time does nothing.
    pub fn advance(&mut self, to: Timestamp) -> Vec<Happening> {
        let mut happened = Vec::new();
        while let Some(next) = self.next_change().filter(|next| *next <= to) {
            self.now = self.now.max(next);
            self.happen(&mut happened);
        }
        self.now = self.now.max(to);
        happened
    }

    /// When something other than motion changes next.
    pub fn next_change(&self) -> Option<Timestamp> {
        let timer = match self.fault {
            Some((_, Stage::Begun(at) | Stage::Reported(at))) => at,
            _ => None,
        };
        [self.until, timer, Some(self.next_call)].into_iter().flatten().min()
    }

    /// Whether the car moves.
    pub fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Moving { .. } | Phase::Braking { .. })
    }

    /// Makes something go wrong at `at`, or as soon after as its circumstances allow. Says `false`, and
    /// does nothing, while an earlier fault lasts.
    pub fn inject(&mut self, fault: Fault, at: Timestamp) -> (bool, Vec<Happening>) {
        let mut happened = self.advance(at);
        if self.fault.is_some() {
            return (false, happened);
        }
        self.fault = Some((fault, Stage::Pending));
        match fault {
            Fault::EntrapmentBetweenFloors | Fault::EntrapmentAtLevel | Fault::NuisancePress => {
                // Somebody takes the lift where it will stand next.
                let from = self.next_floor();
                let to = if from == 0 { self.floors - 1 } else { 0 };
                self.calls.push_front(Call { from, to, people: 2 });
                self.calls.truncate(CALLS_MAX);
                self.serve();
            }
            Fault::AlarmButton => self.press_if_shut(&mut happened),
            Fault::PowerCut | Fault::SafetyCircuit => {
                self.fail();
                self.begin_fault(Duration::ZERO, &mut happened);
            }
            Fault::UnintendedMovement => self.begin_fault(Duration::ZERO, &mut happened),
        }
        happened.extend(self.advance(at));
        (true, happened)
    }

    /// Ends the fault that lasts, or takes back one that has not begun.
    pub fn release(&mut self, at: Timestamp) -> Vec<Happening> {
        let mut happened = self.advance(at);
        self.end_fault(&mut happened);
        if let Phase::Dead { door } = self.phase {
            let level = self.is_level(self.rest);
            match (level, door.is_closed()) {
                // The doors of a level car open, half-closed ones open again: people leave.
                (true, true) if self.people == 0 => self.serve(),
                (true, _) => self.enter(Phase::Opening, OPENING),
                (false, _) => self.depart(self.nearest(self.rest), false),
            }
        }
        // A car that still brakes comes to rest first; see `finish`.
        happened
    }

    /// What the sensors show now.
    pub fn observe(&self) -> Observation {
        let State { position, velocity, .. } = self.state();
        let running = self.is_running();
        let door_state = match self.phase {
            Phase::Opening => DoorState::Opening,
            Phase::Alighting | Phase::Boarding => DoorState::Open,
            Phase::Closing => DoorState::Closing,
            Phase::Idle | Phase::Moving { .. } | Phase::Braking { .. } => DoorState::Closed,
            Phase::Dead { door } => door,
        };
        let ordinal = self.nearest(position);
        let codes: Vec<&'static str> = match self.fault {
            Some((fault, Stage::Reported(_))) => fault.code().into_iter().collect(),
            _ => Vec::new(),
        };
        let flag = |slug, bit| if codes.contains(&slug) { bit } else { 0 };
        Observation {
            car_status: if running { CarStatus::Running } else { CarStatus::Stopped },
            direction: match &self.phase {
                Phase::Moving { motion, .. } | Phase::Braking { motion } => {
                    if motion.end() >= motion.at(0.0).position { Direction::Up } else { Direction::Down }
                }
                _ => Direction::None,
            },
            door_zone: self.is_level(position),
            door_state,
            passengers: self.people > 0,
            floor: if ordinal == 0 { "B1".to_owned() } else { ordinal.to_string() },
            floor_ordinal: ordinal as i16,
            position_mm: (position * 1000.0).round() as i32,
            velocity_mm_s: (velocity * 1000.0).round() as i32,
            load_kg: self.people * PERSON_KG,
            flags: flag("alarm_button", Reading::FLAG_ALARM_BUTTON)
                | flag("power_off", Reading::FLAG_BATTERY_POWER)
                | flag("safety_circuit_open", Reading::FLAG_SAFETY_CIRCUIT_OPEN),
            codes,
        }
    }

    fn state(&self) -> State {
        match &self.phase {
            Phase::Moving { motion, .. } | Phase::Braking { motion } => {
                motion.at(self.now.since(self.began).as_secs_f64())
            }
            _ => State { position: self.rest, ..State::default() },
        }
    }

    fn nearest(&self, position: f64) -> usize {
        ((position / FLOOR_M).round().max(0.0) as usize).min(self.floors - 1)
    }

    fn is_level(&self, position: f64) -> bool {
        (position - self.nearest(position) as f64 * FLOOR_M).abs() <= ZONE_M
    }

    /// The floor where the car stands or is bound for.
    fn next_floor(&self) -> usize {
        match &self.phase {
            Phase::Moving { to, .. } => *to,
            _ => self.nearest(self.rest),
        }
    }

    fn enter(&mut self, phase: Phase, lasting: Duration) {
        self.phase = phase;
        self.began = self.now;
        self.until = Some(self.now.plus(lasting));
    }

    fn stand(&mut self, phase: Phase) {
        self.phase = phase;
        self.began = self.now;
        self.until = None;
    }

    /// Everything that is due at `now`.
    fn happen(&mut self, happened: &mut Vec<Happening>) {
        if self.next_call <= self.now {
            self.call();
        }
        if let Some((fault, Stage::Begun(Some(at)))) = self.fault
            && at <= self.now
        {
            self.report(fault, happened);
        }
        if let Some((_, Stage::Reported(Some(at)))) = self.fault
            && at <= self.now
        {
            self.end_fault(happened);
        }
        if self.until.is_some_and(|until| until <= self.now) {
            self.finish(happened);
        }
    }

    /// The present phase is over.
    fn finish(&mut self, happened: &mut Vec<Happening>) {
        match self.phase.clone() {
            Phase::Idle | Phase::Dead { .. } => self.until = None,
            Phase::Opening => self.enter(Phase::Alighting, ALIGHTING),
            Phase::Alighting => self.board(happened),
            Phase::Boarding => self.enter(Phase::Closing, CLOSING),
            Phase::Closing => {
                self.stand(Phase::Idle);
                self.press_if_shut(happened);
                self.serve();
            }
            Phase::Moving { motion, stuck, .. } => {
                self.rest = motion.end();
                if stuck {
                    self.stand(Phase::Dead { door: DoorState::Closed });
                    self.begin_fault(Duration::from_secs(2), happened);
                } else {
                    self.enter(Phase::Opening, OPENING);
                }
            }
            Phase::Braking { motion } => {
                self.rest = motion.end();
                self.stand(Phase::Dead { door: DoorState::Closed });
                if self.fault.is_none() {
                    happened.extend(self.release(self.now));
                }
            }
        }
    }

    /// Those in the car leave; those of the call at this floor come in.
    fn board(&mut self, happened: &mut Vec<Happening>) {
        let here = self.nearest(self.rest);
        if self.people > 0 {
            self.people = 0;
            self.serving = None;
        }
        if self.serving.is_none() && self.calls.front().is_some_and(|call| call.from == here) {
            self.serving = self.calls.pop_front();
        }
        if let Some(call) = self.serving.filter(|call| call.from == here) {
            self.people = call.people;
        }
        let dwell = Duration::from_millis(self.rng.random_range(2_500..5_000));
        if matches!(self.fault, Some((Fault::NuisancePress, Stage::Pending))) {
            self.enter(Phase::Boarding, dwell + Duration::from_secs(4));
            self.begin_fault(Duration::ZERO, happened);
        } else {
            self.enter(Phase::Boarding, dwell);
        }
    }

    /// What an idle car does: carries those who are in it, else takes the next call.
    fn serve(&mut self) {
        let may_start = matches!(self.phase, Phase::Idle)
            || (matches!(self.phase, Phase::Dead { door } if door.is_closed()) && self.fault.is_none());
        // Whoever presses the alarm button behind closed doors is in a car that does not go.
        let pressed = matches!(self.fault, Some((Fault::AlarmButton, stage)) if stage != Stage::Pending);
        if !may_start || pressed {
            return;
        }
        let here = self.nearest(self.rest);
        if self.people == 0 && self.serving.is_none() {
            self.serving = self.calls.pop_front();
        }
        match self.serving {
            Some(call) if self.people > 0 => self.depart(call.to, true),
            Some(call) if call.from == here => self.enter(Phase::Opening, OPENING),
            Some(call) => self.depart(call.from, false),
            None if self.people > 0 => self.enter(Phase::Opening, OPENING),
            None => self.stand(Phase::Idle),
        }
    }

    fn depart(&mut self, to: usize, loaded: bool) {
        let level = to as f64 * FLOOR_M;
        let pending = match self.fault {
            Some((fault, Stage::Pending)) if loaded => Some(fault),
            _ => None,
        };
        let stuck = matches!(pending, Some(Fault::EntrapmentBetweenFloors | Fault::EntrapmentAtLevel));
        let between = self.rest + (level - self.rest).signum() * FLOOR_M / 2.0;
        let end = if pending == Some(Fault::EntrapmentBetweenFloors) { between } else { level };
        let motion = Motion::travel(self.rest, end, Bounds::TRAVEL);
        let lasting = Duration::from_secs_f64(motion.seconds());
        self.enter(Phase::Moving { motion, to, stuck }, lasting);
    }

    /// The brake falls in, the doors stay as they are.
    fn fail(&mut self) {
        let state = self.state();
        match self.phase {
            Phase::Moving { .. } => {
                let motion = Motion::stop(state, Bounds::BRAKE);
                let lasting = Duration::from_secs_f64(motion.seconds());
                self.enter(Phase::Braking { motion }, lasting);
            }
            Phase::Opening | Phase::Closing => self.stand(Phase::Dead { door: DoorState::Held }),
            Phase::Alighting | Phase::Boarding => self.stand(Phase::Dead { door: DoorState::Open }),
            Phase::Idle => self.stand(Phase::Dead { door: DoorState::Closed }),
            Phase::Braking { .. } | Phase::Dead { .. } => {}
        }
    }

    fn press_if_shut(&mut self, happened: &mut Vec<Happening>) {
        let shut = matches!(self.phase, Phase::Idle);
        if shut && matches!(self.fault, Some((Fault::AlarmButton, Stage::Pending))) {
            self.begin_fault(Duration::ZERO, happened);
        }
    }

    /// The pending fault begins now; its code, if it has one, opens after `delay`.
    fn begin_fault(&mut self, delay: Duration, happened: &mut Vec<Happening>) {
        let Some((fault, Stage::Pending)) = self.fault else { return };
        happened.push(Happening::Began(self.now, fault, self.people > 0));
        self.fault = Some((fault, Stage::Begun(Some(self.now.plus(delay)))));
    }

    fn report(&mut self, fault: Fault, happened: &mut Vec<Happening>) {
        let lasting = match fault {
            Fault::AlarmButton => Some(6),
            Fault::NuisancePress => Some(4),
            Fault::UnintendedMovement => Some(20),
            _ => None,
        };
        let close_at = lasting.map(|seconds| self.now.plus(Duration::from_secs(seconds)));
        self.fault = Some((fault, Stage::Reported(close_at)));
        if let Some(code) = fault.code() {
            happened.push(Happening::Code(self.now, code, EventState::Open));
        }
    }

    fn end_fault(&mut self, happened: &mut Vec<Happening>) {
        let Some((fault, stage)) = self.fault.take() else { return };
        if let (Stage::Reported(_), Some(code)) = (stage, fault.code()) {
            happened.push(Happening::Code(self.now, code, EventState::Close));
        }
        if stage != Stage::Pending {
            happened.push(Happening::Ended(self.now, fault));
        }
        // A car bound for an entrapment that was taken back goes on to its floor after all.
        if let Phase::Moving { stuck, .. } = &mut self.phase {
            *stuck = false;
        }
        if matches!(self.phase, Phase::Idle) {
            self.serve();
        }
    }

    /// Somebody calls.
    fn call(&mut self) {
        let from = self.rng.random_range(0..self.floors);
        let to = (from + self.rng.random_range(1..self.floors)) % self.floors;
        let people = self.rng.random_range(1..=4);
        if self.calls.len() < CALLS_MAX {
            self.calls.push_back(Call { from, to, people });
        }
        self.next_call = self.draw_call_time();
        if self.people == 0 && matches!(self.phase, Phase::Idle) {
            self.serve();
        }
    }

    /// The next arrival of a Poisson process whose rate is constant within each hour.
    fn draw_call_time(&mut self) -> Timestamp {
        let mut at = self.now;
        loop {
            let local = at.micros().saturating_add(ZONE_OFFSET_US);
            let share = HOUR_SHARES[local.div_euclid(HOUR_US).rem_euclid(24) as usize];
            let per_second = self.trips_per_day * share / 100.0 / 3600.0;
            let uniform: f64 = self.rng.random_range(f64::EPSILON..1.0);
            let wait = Duration::from_secs_f64((-uniform.ln() / per_second).min(1e6));
            let hour_left = Duration::from_micros((HOUR_US - local.rem_euclid(HOUR_US)) as u64);
            if wait < hour_left {
                return at.plus(wait);
            }
            at = at.plus(hour_left);
        }
    }
}

#[cfg(test)]
mod tests;
