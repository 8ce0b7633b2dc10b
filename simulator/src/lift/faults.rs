//! Staged faults: how each of them strikes the lift, and its way back to service.
//!
//! A fault waits until the lift is in a state it can strike (an entrapment needs a run with people, so the
//! lift is given one). While one is on, others wait; at most [`PENDING_MAX`] do.

use std::collections::VecDeque;
use std::time::Duration;

use domain::{DoorState, Timestamp};

use super::motion::{Limits, Profile, Stop};
use super::observation::Codes;
use super::traffic::{self, Call};
use super::{DOOR_ZONE, Lift, Phase};
use crate::fault::{Fault, FaultKind};

/// Faults that wait for their turn; more are refused.
const PENDING_MAX: usize = 8;
/// A brake is staged to stop the car at least this far outside every zone, m.
const CLEAR_OF_ZONE: f64 = 0.15;
/// The rescuers wind the car to the next floor slowly; re-levelling is as slow.
const RESCUE: Limits = Limits { speed: 0.3, acceleration: 0.3, jerk: 0.5 };
const DRIFT: Limits = Limits { speed: 0.15, acceleration: 0.3, jerk: 0.5 };
/// How far a car creeps before its protection stops it, m: past the zone.
const DRIFT_LENGTH: f64 = 0.35;
/// From standing until a terminal reports an entrapment by itself.
const DEVICE_CODE_AFTER: Duration = Duration::from_secs(2);
/// From standing until somebody presses the button, and for how long.
const BUTTON_AFTER: Duration = Duration::from_secs(10);
const BUTTON_HELD: Duration = Duration::from_secs(6);
const RECLOSINGS: u8 = 4;

/// What really happened, from begin to end. [`crate::Truth`] adds whose lift it was.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Episode {
    /// What was staged.
    pub kind: FaultKind,
    /// Its begin.
    pub begin: Timestamp,
    /// Its end; `None` while it lasts.
    pub end: Option<Timestamp>,
    /// People in the car at the begin.
    pub people: u8,
    /// The alarm a perfect system raises.
    pub expected: Option<&'static str>,
}

/// Something planned for later.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Act {
    On(Codes),
    Off(Codes),
    EndPress,
    Release,
}

/// The lift's trouble: waiting, present, and what has been.
#[derive(Debug, Clone, Default)]
pub(super) struct Trouble {
    pending: VecDeque<Fault>,
    active: Option<Fault>,
    agenda: Vec<(Timestamp, Act)>,
    brake_at: Option<Timestamp>,
    /// The rescuers are at work: the next opening at a landing ends the episode.
    rescuing: bool,
    /// The car stands off level and must be brought to a floor first.
    must_level: bool,
    /// Since the last [`Lift::take_episodes`]; the open one stays.
    episodes: Vec<Episode>,
}

impl Trouble {
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.agenda.iter().map(|(at, _)| *at).min()
    }

    pub(super) fn due(&mut self, now: Timestamp) -> Option<Act> {
        let index = self.agenda.iter().position(|(at, _)| *at <= now)?;
        Some(self.agenda.remove(index).1)
    }
}

impl Lift {
    /// Stages a fault; it strikes as soon as it can. False when too many wait already.
    pub fn inject(&mut self, fault: Fault) -> bool {
        if self.trouble.pending.len() >= PENDING_MAX {
            return false;
        }
        self.trouble.pending.push_back(fault);
        match self.phase {
            Phase::Idle => self.next_job(),
            Phase::Open => self.strike_open(),
            Phase::Dwelling => self.strike_dwelling(),
            Phase::Moving(_) => self.strike_moving(),
            _ => {}
        }
        true
    }

    /// The rescuers come now, or the power is back: ends the present fault, if it waits for that.
    pub fn release(&mut self) {
        if self.phase != Phase::Held {
            return;
        }
        self.trouble.agenda.clear();
        let outside = self.codes.has(Codes::STOP_OUTSIDE_ZONE);
        self.codes = if outside { Codes::STOP_OUTSIDE_ZONE } else { Codes::default() };
        self.trip = None;
        self.trouble.rescuing = true;
        let position = self.motion().position;
        self.target = self.spec.nearest(position);
        self.trouble.must_level = (position - self.spec.level(self.target)).abs() > 0.001;
        match (self.trouble.must_level, self.door) {
            (true, DoorState::Closed) => self.start(self.target),
            (false, DoorState::Closed) if self.people > 0 => self.open(),
            (false, DoorState::Closed) => {
                self.end_episode();
                self.next_job();
            }
            (false, DoorState::Open) => {
                self.exchange();
                self.end_episode();
                self.enter(Phase::Dwelling, Some(super::DWELL));
            }
            _ => self.close(),
        }
    }

    /// Whether a staged fault is on or waits.
    pub fn in_trouble(&self) -> bool {
        self.trouble.active.is_some() || !self.trouble.pending.is_empty()
    }

    /// Whether [`Lift::take_episodes`] has anything to tell.
    pub fn has_episodes(&self) -> bool {
        !self.trouble.episodes.is_empty()
    }

    /// What has happened: finished episodes leave the list, the open one is shown too.
    pub fn take_episodes(&mut self) -> Vec<Episode> {
        let all = self.trouble.episodes.clone();
        self.trouble.episodes.retain(|episode| episode.end.is_none());
        all
    }

    /// The pending fault, if it is one of these and no other is on.
    fn pending(&self, kinds: &[FaultKind]) -> Option<Fault> {
        let first = self.trouble.pending.front().filter(|_| self.trouble.active.is_none())?;
        kinds.contains(&first.kind).then_some(*first)
    }

    fn begin(&mut self, fault: Fault, begin: Timestamp, expected: Option<&'static str>) {
        self.trouble.pending.pop_front();
        self.trouble.active = Some(fault);
        let people = self.people;
        self.trouble.episodes.push(Episode { kind: fault.kind, begin, end: None, people, expected });
    }

    fn end_episode(&mut self) {
        self.trouble.active = None;
        (self.trouble.rescuing, self.trouble.must_level) = (false, false);
        self.codes = self.codes.without(Codes::STOP_OUTSIDE_ZONE);
        if let Some(open) = self.trouble.episodes.iter_mut().find(|episode| episode.end.is_none()) {
            open.end = Some(self.now);
        }
    }

    fn plan(&mut self, after: Duration, act: Act) {
        self.trouble.agenda.push((self.now.plus(after), act));
    }

    pub(super) fn act(&mut self, act: Act) {
        match act {
            Act::On(codes) => self.codes = self.codes.with(codes),
            Act::Off(codes) => self.codes = self.codes.without(codes),
            Act::EndPress => {
                self.codes = self.codes.without(Codes::ALARM_BUTTON);
                self.end_episode();
                if self.phase == Phase::Idle {
                    self.next_job();
                }
            }
            Act::Release => self.release(),
        }
    }

    fn press(&mut self, fault: Fault, expected: &'static str) {
        self.begin(fault, self.now, Some(expected));
        self.codes = self.codes.with(Codes::ALARM_BUTTON);
        self.plan(fault.hold.unwrap_or(BUTTON_HELD), Act::EndPress);
    }

    /// Strikes a parked car. True when the car is out of service now.
    pub(super) fn strike_idle(&mut self) -> bool {
        if let Some(fault) = self.pending(&[FaultKind::ButtonPress]) {
            self.press(fault, "alarm_button");
        } else if let Some(fault) = self.pending(&[FaultKind::PowerCut]) {
            self.cut_power(fault);
            self.hold();
        }
        self.phase == Phase::Held
    }

    /// The run that a pending fault needs: from here to the far end of the building.
    pub(super) fn staged_call(&mut self) -> Option<Call> {
        let fault = *self.trouble.pending.front().filter(|_| self.trouble.active.is_none())?;
        let top = self.spec.floors - 1;
        let to = if self.target > top / 2 { 0 } else { top };
        let call = traffic::draw_group(&mut self.rng, self.target, to, 2, self.spec.load_kg_max);
        (fault.kind != FaultKind::ButtonPress).then_some(call)
    }

    /// Strikes a car whose door stands open at a landing, or ends its rescue there.
    pub(super) fn strike_open(&mut self) {
        if self.trouble.rescuing {
            self.end_episode();
        }
        if let Some(fault) = self.pending(&[FaultKind::NuisancePress]) {
            self.press(fault, "nuisance_call");
        }
    }

    /// Strikes a car whose people have just got in.
    pub(super) fn strike_dwelling(&mut self) {
        self.strike_open();
        if let Some(fault) = self.pending(&[FaultKind::UnintendedMovement]) {
            self.begin(fault, self.now, Some("unintended_movement"));
            self.codes = self.codes.with(Codes::UNINTENDED_MOVEMENT);
            let down = self.target == self.spec.floors - 1;
            let profile = Profile::new(if down { -DRIFT_LENGTH } else { DRIFT_LENGTH }, DRIFT);
            self.enter(Phase::Moving(profile), Some(Duration::from_secs_f64(profile.duration())));
            self.trouble.brake_at = self.until;
        } else if let Some(fault) = self.pending(&[FaultKind::PowerCut]) {
            self.cut_power(fault);
            self.hold();
        }
    }

    pub(super) fn staged_obstructions(&mut self) -> Option<u8> {
        let fault = self.pending(&[FaultKind::DoorReclose])?;
        self.begin(fault, self.now, None);
        self.end_episode();
        Some(RECLOSINGS)
    }

    /// Strikes a car that has just begun to move, or moves already.
    pub(super) fn strike_moving(&mut self) {
        let Phase::Moving(profile) = self.phase else { return };
        if let Some(fault) = self.pending(&[FaultKind::PowerCut]) {
            self.cut_power(fault);
            self.brake();
            return;
        }
        let kinds = [FaultKind::EntrapmentBetweenFloors, FaultKind::SafetyCircuitOpen];
        if self.people == 0 || self.pending(&kinds).is_none() {
            return;
        }
        // The first moment from 40 % of the run on at which the brake leaves the car clear of every zone.
        let elapsed = self.now.since(self.since).as_secs_f64();
        let mut at = elapsed.max(profile.duration() * 0.4);
        while at < profile.duration() {
            let motion = profile.at(at);
            let stop = self.origin + motion.position + Stop::new(motion.velocity).distance();
            let off = (stop - self.spec.level(self.spec.nearest(stop))).abs();
            if off > DOOR_ZONE + CLEAR_OF_ZONE {
                let brake_at = self.since.plus(Duration::from_secs_f64(at));
                (self.until, self.trouble.brake_at) = (Some(brake_at), Some(brake_at));
                return;
            }
            at += 0.05;
        }
    }

    /// Whether the car must be brought to a floor before anything else.
    pub(super) fn must_level(&self) -> bool {
        self.trouble.must_level
    }

    /// Rescuers wind slowly.
    pub(super) fn drive_limits(&self) -> Limits {
        if self.trouble.must_level { RESCUE } else { self.spec.limits }
    }

    pub(super) fn brake_is_due(&self) -> bool {
        self.trouble.brake_at.is_some_and(|at| at <= self.now)
    }

    /// The brake falls in.
    pub(super) fn brake(&mut self) {
        self.trouble.brake_at = None;
        if self.pending(&[FaultKind::SafetyCircuitOpen]).is_some() {
            self.codes = self.codes.with(Codes::SAFETY_CIRCUIT_OPEN);
        }
        let stop = Stop::new(self.motion().velocity);
        self.enter(Phase::Braking(stop), Some(Duration::from_secs_f64(stop.duration())));
    }

    /// The car stands where it should not.
    pub(super) fn stranded(&mut self) {
        let kinds = [FaultKind::EntrapmentBetweenFloors, FaultKind::SafetyCircuitOpen];
        if let Some(fault) = self.pending(&kinds) {
            self.begin(fault, self.now, Some("entrapment_between_floors"));
        }
        self.hold();
    }

    /// Strikes a car that stands level with people, before the door opens.
    pub(super) fn strike_arriving(&mut self) {
        if self.people == 0 {
            return;
        }
        if let Some(fault) = self.pending(&[FaultKind::EntrapmentAtLevel]) {
            self.begin(fault, self.now, Some("entrapment_at_level"));
            self.hold();
        }
    }

    fn cut_power(&mut self, fault: Fault) {
        let closed = self.door == DoorState::Closed;
        let expected = match (self.people > 0 && closed, self.is_running()) {
            (false, _) => "power_off",
            (true, true) => "entrapment_between_floors",
            (true, false) => "entrapment_at_level",
        };
        self.begin(fault, self.now, Some(expected));
        self.codes = self.codes.with(Codes::POWER_OFF);
    }

    /// Out of order until released.
    fn hold(&mut self) {
        self.enter(Phase::Held, None);
        let position = self.origin;
        let outside = (position - self.spec.level(self.spec.nearest(position))).abs() > DOOR_ZONE;
        if outside && self.door == DoorState::Closed {
            self.codes = self.codes.with(Codes::STOP_OUTSIDE_ZONE);
        }
        let Some(fault) = self.trouble.active else { return };
        let people = self.people > 0 && self.door == DoorState::Closed;
        if people && fault.device_code {
            let code = if outside { Codes::ENTRAPMENT_BETWEEN_FLOORS } else { Codes::ENTRAPMENT_AT_LEVEL };
            self.plan(DEVICE_CODE_AFTER, Act::On(code));
        }
        if people && fault.button {
            self.plan(BUTTON_AFTER, Act::On(Codes::ALARM_BUTTON));
            self.plan(BUTTON_AFTER + BUTTON_HELD, Act::Off(Codes::ALARM_BUTTON));
        }
        if let Some(hold) = fault.hold {
            self.plan(hold, Act::Release);
        }
        // A power cut may leave the car level by chance: what it is called follows from where it stands.
        if let Some(open) = self.trouble.episodes.iter_mut().find(|episode| episode.end.is_none())
            && fault.kind == FaultKind::PowerCut
            && people
        {
            open.expected = Some(if outside { "entrapment_between_floors" } else { "entrapment_at_level" });
        }
    }
}
