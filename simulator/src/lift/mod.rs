//! The physical model of a lift: a car that moves within limits of speed, acceleration and jerk, doors,
//! people and their weight, calls by the hours of the day, and faults on demand.
//!
//! Pure: time is an argument, chance comes from a seed; the same seed and the same calls give the same lift.
//! Promises: without a fault the car never moves unless its door is closed, and always stops level. Knows
//! nothing of terminals, messages or clocks.

mod faults;
mod motion;
mod observation;
mod traffic;

use std::collections::VecDeque;
use std::time::Duration;

use domain::{CarStatus, Direction, DoorState, ServiceMode, Timestamp};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub use motion::{Limits, Motion, Profile, Stop};
pub use observation::{Codes, Observation};
use traffic::Call;

pub use faults::Episode;
use faults::Trouble;

/// Half the height of the unlocking zone (开锁区域), m: GB 7588 allows 0.2 m, 0.35 m with driven doors.
pub const DOOR_ZONE: f64 = 0.2;
/// Calls that wait; further people take the stairs.
const CALLS_MAX: usize = 4;

const DOOR_OPENING: Duration = Duration::from_millis(2_200);
const DOOR_CLOSING: Duration = Duration::from_millis(2_800);
/// From door open until people have got out and in.
const EXCHANGE: Duration = Duration::from_millis(1_500);
/// From then until the door closes.
const DWELL: Duration = Duration::from_secs(3);
/// Locking the door and lifting the brake.
const STARTING: Duration = Duration::from_millis(700);
/// From standing level until the door opens.
const ARRIVING: Duration = Duration::from_millis(300);
/// The door meets somebody and opens again, once in this many closings.
const OBSTRUCTED_ONE_IN: u32 = 50;
/// Runs that one call causes on average: often the car is on another floor.
const RUNS_PER_CALL: f64 = 1.9;

/// A lift's unchanging figures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spec {
    /// Number of stops, at least 2.
    pub floors: u8,
    /// How many of them lie below the entrance.
    pub basements: u8,
    /// Height of a floor, m.
    pub floor_height: f64,
    /// Drive.
    pub limits: Limits,
    /// Rated load, kg.
    pub load_kg_max: i16,
    /// Runs a day.
    pub trips_per_day: f64,
}

impl Spec {
    /// A lift as one meets them: 6 to 33 stops, 1 to 2.5 m/s, 100 to 600 trips a day (DOMAIN.md 9).
    pub fn draw(rng: &mut impl Rng) -> Self {
        let floors = rng.random_range(6..=33);
        let speed = if floors > 20 { 2.5 } else { [1.0, 1.5, 1.75][rng.random_range(0..3)] };
        Self {
            floors,
            basements: rng.random_range(0..=2),
            floor_height: f64::from(rng.random_range(28..=36_u8)) / 10.0,
            limits: Limits { speed, acceleration: 0.8, jerk: 0.9 },
            load_kg_max: [630, 800, 1_000, 1_350][rng.random_range(0..4)],
            // Mean 300: most lifts are calm, some are very busy.
            trips_per_day: 100.0 + 500.0 * rng.random::<f64>().powf(1.5),
        }
    }

    fn level(&self, floor: u8) -> f64 {
        f64::from(floor) * self.floor_height
    }

    fn nearest(&self, position: f64) -> u8 {
        (position / self.floor_height).round().clamp(0.0, f64::from(self.floors - 1)) as u8
    }
}

/// What the car and its door are doing.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    Idle,
    Opening,
    /// Before people move.
    Open,
    /// After they have.
    Dwelling,
    /// How many more times the door will be obstructed.
    Closing(u8),
    Starting,
    Moving(Profile),
    Braking(Stop),
    Arriving,
    /// Out of order, until released.
    Held,
}

/// What a lift has done since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Tally {
    /// Runs begun.
    pub runs: u64,
    /// Times the door opened.
    pub door_openings: u64,
    /// People who boarded.
    pub passengers: u64,
    /// How far it ran, up and down; a run that was cut short counts whole.
    pub travelled_m: f64,
    /// How long.
    pub running: Duration,
}

/// One journey of a group.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Trip {
    call: Call,
    boarded: bool,
}

/// A lift.
#[derive(Debug, Clone)]
pub struct Lift {
    spec: Spec,
    rng: ChaCha8Rng,
    now: Timestamp,
    phase: Phase,
    /// When the phase began, and where the car was.
    since: Timestamp,
    origin: f64,
    /// When the phase ends by itself; never for `Idle` and `Held`.
    until: Option<Timestamp>,
    door: DoorState,
    /// The floor the car stands at or runs to.
    target: u8,
    people: u8,
    load_kg: i16,
    codes: Codes,
    trip: Option<Trip>,
    calls: VecDeque<Call>,
    next_call: Timestamp,
    trouble: Trouble,
    tally: Tally,
}

impl Lift {
    /// A lift parked somewhere with its door closed. Everything it will do follows from `spec` and `seed`.
    pub fn new(spec: Spec, seed: u64, start: Timestamp) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let target = rng.random_range(0..spec.floors);
        let next_call = traffic::next_call(&mut rng, start, spec.trips_per_day / RUNS_PER_CALL);
        Self {
            spec,
            rng,
            now: start,
            phase: Phase::Idle,
            since: start,
            origin: spec.level(target),
            until: None,
            door: DoorState::Closed,
            target,
            people: 0,
            load_kg: 0,
            codes: Codes::default(),
            trip: None,
            calls: VecDeque::new(),
            next_call,
            trouble: Trouble::default(),
            tally: Tally::default(),
        }
    }

    /// Its figures.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The moment it was last brought to.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Runs begun so far.
    pub fn runs(&self) -> u64 {
        self.tally.runs
    }

    /// What it has done so far.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// When something will next change by itself; a driver that stops there misses nothing.
    pub fn next_change(&self) -> Timestamp {
        let agenda = self.trouble.next();
        [self.until, agenda].into_iter().flatten().fold(self.next_call, Timestamp::min)
    }

    /// Lets time pass until `to`. A moment that is past changes nothing.
    pub fn advance(&mut self, to: Timestamp) {
        while self.next_change() <= to {
            self.now = self.next_change().max(self.now);
            if self.next_call <= self.now {
                self.call();
            } else if let Some(act) = self.trouble.due(self.now) {
                self.act(act);
            } else {
                self.end_phase();
            }
        }
        self.now = self.now.max(to);
    }

    /// Where the car is now and how it moves.
    pub fn motion(&self) -> Motion {
        let span = self.now.since(self.since).as_secs_f64();
        let mut motion = match self.phase {
            Phase::Moving(profile) => profile.at(span),
            Phase::Braking(stop) => stop.at(span),
            _ => Motion::default(),
        };
        motion.position += self.origin;
        motion
    }

    /// What the sensors show now.
    pub fn observe(&self) -> Observation {
        let motion = self.motion();
        let floor = self.spec.nearest(motion.position);
        let direction = match self.phase {
            Phase::Moving(_) | Phase::Braking(_) if motion.velocity > 0.0 => Direction::Up,
            Phase::Moving(_) | Phase::Braking(_) if motion.velocity < 0.0 => Direction::Down,
            Phase::Moving(_) if self.spec.level(self.target) > self.origin => Direction::Up,
            Phase::Moving(_) => Direction::Down,
            _ => Direction::None,
        };
        let running = matches!(self.phase, Phase::Moving(_) | Phase::Braking(_));
        // The car warms by half a degree a person; slow enough not to be a change of its own.
        let temperature_dc = 245 + i16::from(self.people) * 5;
        Observation {
            service_mode: ServiceMode::Normal,
            car_status: if running { CarStatus::Running } else { CarStatus::Stopped },
            direction,
            door_zone: (motion.position - self.spec.level(floor)).abs() <= DOOR_ZONE,
            door_state: self.door,
            people: self.people,
            load_kg: self.load_kg,
            floor,
            basements: self.spec.basements,
            position_mm: (motion.position * 1_000.0).round() as i32,
            velocity_mm_s: (motion.velocity * 1_000.0).round() as i32,
            temperature_dc,
            codes: self.codes,
        }
    }

    /// Whether the car moves now.
    pub fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Moving(_) | Phase::Braking(_))
    }

    fn enter(&mut self, phase: Phase, lasting: Option<Duration>) {
        self.origin = self.motion().position;
        self.phase = phase;
        self.since = self.now;
        self.until = lasting.map(|span| self.now.plus(span));
    }

    fn call(&mut self) {
        let call = traffic::draw_call(&mut self.rng, self.spec.floors, self.spec.load_kg_max);
        if self.calls.len() < CALLS_MAX {
            self.calls.push_back(call);
        }
        let per_day = self.spec.trips_per_day / RUNS_PER_CALL;
        self.next_call = traffic::next_call(&mut self.rng, self.now, per_day);
        if self.phase == Phase::Idle {
            self.next_job();
        }
    }

    /// An idle car looks for something to do: first what a staged fault asks for, then the oldest call.
    fn next_job(&mut self) {
        self.enter(Phase::Idle, None);
        if self.strike_idle() {
            return;
        }
        let Some(call) = self.staged_call().or_else(|| self.calls.pop_front()) else { return };
        self.trip = Some(Trip { call, boarded: false });
        if call.from == self.target { self.open() } else { self.start(call.from) }
    }

    fn open(&mut self) {
        self.door = DoorState::Opening;
        self.tally.door_openings += 1;
        self.enter(Phase::Opening, Some(DOOR_OPENING));
    }

    fn close(&mut self) {
        let chance = u8::from(self.rng.random_ratio(1, OBSTRUCTED_ONE_IN));
        let obstructions = self.staged_obstructions().unwrap_or(chance);
        self.door = DoorState::Closing;
        self.enter(Phase::Closing(obstructions), Some(DOOR_CLOSING));
    }

    fn start(&mut self, target: u8) {
        self.target = target;
        self.enter(Phase::Starting, Some(STARTING));
    }

    fn run(&mut self, limits: Limits) {
        let distance = self.spec.level(self.target) - self.motion().position;
        let profile = Profile::new(distance, limits);
        let lasting = Duration::from_secs_f64(profile.duration());
        self.tally.runs += 1;
        self.tally.running += lasting;
        self.tally.travelled_m += distance.abs();
        self.enter(Phase::Moving(profile), Some(lasting));
    }

    fn end_phase(&mut self) {
        match self.phase {
            Phase::Idle | Phase::Held => self.until = None,
            Phase::Opening => {
                self.door = DoorState::Open;
                self.enter(Phase::Open, Some(EXCHANGE));
                self.strike_open();
            }
            Phase::Open => {
                self.exchange();
                self.enter(Phase::Dwelling, Some(DWELL));
                self.strike_dwelling();
            }
            Phase::Dwelling => self.close(),
            Phase::Closing(0) => {
                self.door = DoorState::Closed;
                self.codes = self.codes.without(Codes::DOOR_OBSTRUCTED);
                self.closed();
            }
            Phase::Closing(obstructions) => {
                // Opens and tries again; the light curtain tells the controller why.
                self.codes = self.codes.with(Codes::DOOR_OBSTRUCTED);
                if self.door == DoorState::Closing {
                    self.door = DoorState::Opening;
                    self.enter(Phase::Closing(obstructions), Some(DOOR_OPENING));
                } else {
                    self.door = DoorState::Closing;
                    self.enter(Phase::Closing(obstructions - 1), Some(DOOR_CLOSING));
                }
            }
            Phase::Starting => {
                let limits = self.drive_limits();
                self.run(limits);
                self.strike_moving();
            }
            Phase::Moving(_) => {
                if self.brake_is_due() {
                    self.brake();
                } else {
                    self.arrive();
                }
            }
            Phase::Braking(_) => self.stranded(),
            Phase::Arriving => self.open(),
        }
    }

    fn arrive(&mut self) {
        // Levels exactly: the profile's rounding must not add up over a day.
        self.phase = Phase::Arriving;
        self.since = self.now;
        self.origin = self.spec.level(self.target);
        self.until = Some(self.now.plus(ARRIVING));
        self.strike_arriving();
    }

    fn closed(&mut self) {
        match self.trip {
            _ if self.must_level() => {
                let nearest = self.spec.nearest(self.motion().position);
                self.start(nearest);
            }
            Some(trip) if trip.boarded => self.start(trip.call.to),
            Some(trip) if trip.call.from != self.target => self.start(trip.call.from),
            _ => self.next_job(),
        }
    }

    /// People get out and in.
    fn exchange(&mut self) {
        let leaving = self.trip.is_none_or(|trip| trip.boarded && trip.call.to == self.target);
        if leaving {
            (self.people, self.load_kg, self.trip) = (0, 0, None);
        }
        if self.trip.is_none() {
            let next = self.calls.iter().position(|call| call.from == self.target);
            self.trip =
                next.and_then(|index| self.calls.remove(index)).map(|call| Trip { call, boarded: false });
        }
        if let Some(trip) = &mut self.trip
            && !trip.boarded
            && trip.call.from == self.target
        {
            trip.boarded = true;
            self.tally.passengers += u64::from(trip.call.people);
            (self.people, self.load_kg) = (trip.call.people, trip.call.weight_kg);
        }
    }
}

#[cfg(test)]
mod tests;
