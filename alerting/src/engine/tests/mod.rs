//! Scenarios in the words of the trade, one test for each sentence of the rules.

mod clear;
mod codes;
mod determinism;
mod latch;
mod late;
mod normal;
mod state_rules;

use std::collections::BTreeMap;
use std::sync::Arc;

use domain::{
    Alarm, AlarmChange, AlarmEvent, AlarmState, Area, Arrival, ArrivalNo, BootId, CarStatus, Code, DoorState,
    ElevatorId, EventBatch, EventState, FaultEvent, Field, Floor, Message, Passengers, Reading, Seq,
    ServiceMode, Severity, Suppression, TelemetryBatch, TerminalId, Timestamp,
};

use super::{ElevatorState, Engine, Input, Thresholds, ThresholdsBook, ThresholdsPatch, Traits, Transition};

/// Second 0 of every scenario.
const BEGIN_US: i64 = 1_700_000_000_000_000;
pub(super) const ELEVATOR: ElevatorId = ElevatorId(7);

pub(super) fn moment(seconds: f64) -> Timestamp {
    Timestamp::from_micros(BEGIN_US + (seconds * 1e6) as i64)
}

pub(super) fn area() -> Area {
    "350102".parse().unwrap()
}

/// One lift with its terminal, driven by hand. Readings are partial: each sends only what changes.
pub(super) struct Lift {
    pub(super) engine: Engine,
    pub(super) out: Vec<Transition>,
    pub(super) log: Vec<Input>,
    pub(super) terminal: TerminalId,
    pub(super) boot: u32,
    pub(super) seq: i64,
    no: i64,
    now: f64,
    /// How old readings and events are when they arrive, seconds.
    pub(super) age: f64,
    /// How far the terminal's clock is behind the server's, seconds.
    pub(super) skew: f64,
    /// The terminal tells `sent`.
    pub(super) sends_sent: bool,
    /// Transitions already looked at by an expectation.
    seen: usize,
}

impl Lift {
    /// Never heard of.
    pub(super) fn unknown() -> Self {
        Self::with(ThresholdsPatch::default())
    }

    pub(super) fn with(patch: ThresholdsPatch) -> Self {
        let patches = BTreeMap::from([(area(), patch)]);
        Self {
            engine: Engine::new(ThresholdsBook::new(1, &Thresholds::default(), &patches)),
            out: Vec::new(),
            log: Vec::new(),
            terminal: TerminalId::new("t1").unwrap(),
            boot: 1,
            seq: 0,
            no: 0,
            now: 0.0,
            age: 0.0,
            skew: 0.0,
            sends_sent: true,
            seen: 0,
        }
    }

    /// Parked at floor 1, empty, in normal service, latch no.
    pub(super) fn parked() -> Self {
        let mut lift = Self::unknown();
        lift.park();
        lift
    }

    pub(super) fn park(&mut self) {
        self.at(-100.0).snapshot();
        self.at(-90.0).door(DoorState::Open);
        self.at(-85.0).door(DoorState::Closed);
        self.at(0.0);
    }

    /// Somebody has got in at floor 1 and is on the way: running since second 10, latch yes.
    pub(super) fn riding() -> Self {
        let mut lift = Self::parked();
        lift.board();
        lift
    }

    pub(super) fn board(&mut self) {
        self.at(0.0).door(DoorState::Open);
        self.at(3.0).people(true);
        self.at(8.0).door(DoorState::Closed);
        self.at(10.0).run();
    }

    pub(super) fn at(&mut self, seconds: f64) -> &mut Self {
        self.now = seconds;
        self
    }

    pub(super) fn input(&mut self, input: Input) -> &mut Self {
        self.log.push(input.clone());
        self.engine.input(input, &mut self.out);
        self
    }

    fn arrival(&mut self) -> Arrival {
        self.no += 1;
        Arrival { no: ArrivalNo(self.no), at: moment(self.now) }
    }

    fn device_time(&self) -> Timestamp {
        moment(self.now - self.age - self.skew)
    }

    fn sent(&self) -> Option<Timestamp> {
        self.sends_sent.then(|| moment(self.now - self.skew))
    }

    pub(super) fn message(&mut self, message: Message) -> &mut Self {
        let (terminal_id, arrival) = (self.terminal.clone(), self.arrival());
        let message = Arc::new(message);
        self.input(Input::Message { elevator_id: ELEVATOR, terminal_id, area: area(), arrival, message })
    }

    pub(super) fn send(&mut self, readings: Vec<Reading>) -> &mut Self {
        let (boot, sent) = (BootId(self.boot), self.sent());
        self.message(Message::Telemetry(TelemetryBatch {
            boot,
            sent,
            prev_boot_last_seq: None,
            dropped: None,
            readings,
        }))
    }

    /// The next reading; `set` says what it sends.
    pub(super) fn next(&mut self, set: impl FnOnce(&mut Reading)) -> Reading {
        self.seq += 1;
        let mut reading = Reading::new(Seq(self.seq), self.device_time());
        set(&mut reading);
        reading
    }

    pub(super) fn reading(&mut self, set: impl FnOnce(&mut Reading)) -> &mut Self {
        let reading = self.next(set);
        self.send(vec![reading])
    }

    pub(super) fn snapshot(&mut self) -> &mut Self {
        self.reading(|it| {
            it.service_mode = Field::Known(ServiceMode::Normal);
            it.car_status = Field::Known(CarStatus::Stopped);
            it.door_zone = Field::Known(true);
            it.door_state = Field::Known(DoorState::Closed);
            it.passengers = Field::Known(Passengers::No);
            it.floor = Field::Known(Floor::new("1").unwrap());
        })
    }

    pub(super) fn door(&mut self, door: DoorState) -> &mut Self {
        self.reading(|it| it.door_state = Field::Known(door))
    }

    pub(super) fn people(&mut self, inside: bool) -> &mut Self {
        let seen = if inside { Passengers::Yes } else { Passengers::No };
        self.reading(|it| it.passengers = Field::Known(seen))
    }

    pub(super) fn mode(&mut self, mode: ServiceMode) -> &mut Self {
        self.reading(|it| it.service_mode = Field::Known(mode))
    }

    /// Runs, outside the zone.
    pub(super) fn run(&mut self) -> &mut Self {
        self.reading(|it| {
            it.car_status = Field::Known(CarStatus::Running);
            it.door_zone = Field::Known(false);
        })
    }

    /// Stops between floors.
    pub(super) fn stop_outside(&mut self) -> &mut Self {
        self.reading(|it| {
            it.car_status = Field::Known(CarStatus::Stopped);
            it.floor = Field::Known(Floor::new("12").unwrap());
        })
    }

    /// Stops at a landing.
    pub(super) fn stop_level(&mut self) -> &mut Self {
        self.reading(|it| {
            it.car_status = Field::Known(CarStatus::Stopped);
            it.door_zone = Field::Known(true);
        })
    }

    /// Says that it is still there.
    pub(super) fn heartbeat(&mut self) -> &mut Self {
        self.reading(|_| {})
    }

    pub(super) fn next_event(&mut self, slug: &str, state: EventState) -> FaultEvent {
        self.seq += 1;
        FaultEvent { seq: Seq(self.seq), time: self.device_time(), code: code(slug), state }
    }

    pub(super) fn send_events(&mut self, events: Vec<FaultEvent>, active: Option<Vec<Code>>) -> &mut Self {
        let (boot, sent) = (BootId(self.boot), self.sent());
        self.message(Message::Event(EventBatch { boot, sent, events, active }))
    }

    pub(super) fn event(&mut self, slug: &str, state: EventState) -> &mut Self {
        let event = self.next_event(slug, state);
        self.send_events(vec![event], None)
    }

    pub(super) fn open(&mut self, slug: &str) -> &mut Self {
        self.event(slug, EventState::Open)
    }

    pub(super) fn close(&mut self, slug: &str) -> &mut Self {
        self.event(slug, EventState::Close)
    }

    pub(super) fn once(&mut self, slug: &str) -> &mut Self {
        self.event(slug, EventState::Once)
    }

    pub(super) fn active(&mut self, slugs: &[&str]) -> &mut Self {
        let list = slugs.iter().map(|slug| code(slug)).collect();
        self.send_events(Vec::new(), Some(list))
    }

    pub(super) fn codes(&mut self, slugs: &[&str]) -> &mut Self {
        let list = slugs.iter().map(|slug| code(slug)).collect();
        self.reading(|it| it.codes = Field::Known(list))
    }

    pub(super) fn presence(&mut self, online: bool) -> &mut Self {
        let (terminal_id, arrival) = (self.terminal.clone(), self.arrival());
        self.input(Input::Presence { elevator_id: ELEVATOR, terminal_id, area: area(), arrival, online })
    }

    pub(super) fn muted(&mut self) -> &mut Self {
        let (terminal_id, arrival) = (self.terminal.clone(), self.arrival());
        self.input(Input::Muted { elevator_id: ELEVATOR, terminal_id, area: area(), arrival })
    }

    pub(super) fn traits(&mut self, traits: Traits) -> &mut Self {
        let (terminal_id, arrival) = (self.terminal.clone(), self.arrival());
        self.input(Input::Traits { elevator_id: ELEVATOR, terminal_id, area: area(), arrival, traits })
    }

    /// The same message once more, as the broker would hand it over after a redelivery.
    pub(super) fn redeliver(&mut self, back: usize) -> &mut Self {
        let messages: Vec<_> =
            self.log.iter().filter(|input| matches!(input, Input::Message { .. })).cloned().collect();
        let Input::Message { message, .. } = messages[messages.len() - 1 - back].clone() else {
            unreachable!()
        };
        self.message((*message).clone())
    }

    pub(super) fn clock(&mut self) -> &mut Self {
        let now = moment(self.now);
        self.input(Input::Clock(now))
    }

    /// Stops the server and starts it from its checkpoint.
    pub(super) fn restart(&mut self) -> &mut Self {
        let json = self.engine.state(ELEVATOR).unwrap().to_json();
        let mut engine = Engine::new(self.engine.book().clone());
        engine.restore([ElevatorState::from_json(&json).unwrap()]);
        assert_eq!(engine.state(ELEVATOR), self.engine.state(ELEVATOR));
        self.engine = engine;
        self
    }

    fn news(&mut self) -> Vec<Transition> {
        self.clock();
        let news = self.out[self.seen..].to_vec();
        self.seen = self.out.len();
        news
    }

    /// Up to now, exactly these events since the last expectation: change, kind, score.
    pub(super) fn expect_events(&mut self, expected: &[(AlarmChange, &str, u8)]) -> Vec<Alarm> {
        let events: Vec<AlarmEvent> = self.news().into_iter().filter_map(event).collect();
        let told: Vec<_> =
            events.iter().map(|it| (it.change, it.alarm.kind.slug(), it.alarm.score)).collect();
        assert_eq!(told, expected, "at {}: {events:#?}", self.now);
        events.into_iter().map(|it| it.alarm).collect()
    }

    /// One alarm was raised.
    pub(super) fn expect(&mut self, kind: &str, score: u8) -> Alarm {
        self.expect_events(&[(AlarmChange::Raised, kind, score)]).remove(0)
    }

    pub(super) fn expect_updated(&mut self, kind: &str, score: u8) -> Alarm {
        self.expect_events(&[(AlarmChange::Updated, kind, score)]).remove(0)
    }

    pub(super) fn expect_cleared(&mut self, kind: &str, state: AlarmState) -> Alarm {
        let events: Vec<AlarmEvent> = self.news().into_iter().filter_map(event).collect();
        let [AlarmEvent { change: AlarmChange::Cleared, alarm, .. }] = &events[..] else {
            panic!("at {}: {events:#?}", self.now)
        };
        assert_eq!((alarm.kind.slug(), alarm.state), (kind, state));
        assert!(alarm.cleared.is_some());
        alarm.clone()
    }

    /// No alarm.
    pub(super) fn expect_quiet(&mut self) -> &mut Self {
        self.expect_events(&[]);
        self
    }

    /// No alarm, and one candidate given up for this reason.
    pub(super) fn expect_suppressed(&mut self, reason: &str) -> Suppression {
        let news = self.news();
        let [Transition::Suppressed(suppression)] = &news[..] else { panic!("at {}: {news:#?}", self.now) };
        assert_eq!(suppression.reason, reason, "{}", suppression.trace);
        suppression.clone()
    }

    /// Neither alarm nor candidate.
    pub(super) fn expect_nothing(&mut self) -> &mut Self {
        let news = self.news();
        assert_eq!(news, [], "at {}", self.now);
        self
    }

    pub(super) fn latched(&mut self) -> Option<bool> {
        self.clock();
        self.engine.latest(ELEVATOR).unwrap().people
    }
}

fn event(transition: Transition) -> Option<AlarmEvent> {
    match transition {
        Transition::Event(event) => Some(event),
        Transition::Suppressed(_) => None,
    }
}

pub(super) fn code(slug: &str) -> Code {
    Code::canonical(slug).unwrap()
}

pub(super) fn severity_and_state(alarm: &Alarm) -> (Severity, AlarmState) {
    (alarm.severity, alarm.state)
}
