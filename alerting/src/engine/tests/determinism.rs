//! The same log gives the same transitions, however it is cut; hostile values change that as little as they
//! bring down the process.

use std::sync::Arc;

use domain::{
    Arrival, ArrivalNo, BootId, CarStatus, DoorState, ElevatorId, EventBatch, EventState, FAULTS, FaultEvent,
    Field, Floor, Message, Passengers, Reading, Seq, ServiceMode, TelemetryBatch, TerminalId, Timestamp,
};
use proptest::prelude::*;

use super::{BEGIN_US, area, code};
use crate::engine::{ElevatorState, Engine, Input, Thresholds, ThresholdsBook, Traits, Transition, bounds};

fn field<T: Clone + std::fmt::Debug + 'static>(
    value: impl Strategy<Value = T> + 'static,
) -> BoxedStrategy<Field<T>> {
    prop_oneof![3 => Just(Field::Absent), 1 => Just(Field::Unknown), 4 => value.prop_map(Field::Known)]
        .boxed()
}

fn grave() -> impl Strategy<Value = String> {
    let slugs: Vec<String> = FAULTS
        .iter()
        .filter(|fault| fault.lift)
        .filter(|fault| {
            fault.is_life_safety_fault()
                || fault.is_entrapment()
                || fault.gb_code.is_some()
                || fault.safety_if_people
        })
        .map(|fault| fault.slug.to_owned())
        .collect();
    prop::sample::select(slugs)
}

fn time_offset(hostile: bool) -> BoxedStrategy<i64> {
    let usual = prop_oneof![8 => 0_i64..2_000_000, 1 => 0_i64..400_000_000];
    if hostile {
        prop_oneof![4 => usual, 1 => Just(i64::MAX), 1 => Just(i64::MIN), 1 => any::<i64>()].boxed()
    } else {
        usual.boxed()
    }
}

fn reading(hostile: bool) -> impl Strategy<Value = Reading> {
    let numbers: BoxedStrategy<i32> = if hostile { any::<i32>().boxed() } else { (-3000..3000_i32).boxed() };
    let state = (
        field(prop::sample::select(ServiceMode::ALL)),
        field(prop::sample::select(CarStatus::ALL)),
        field(any::<bool>()),
        field(prop::sample::select(DoorState::ALL)),
        field(prop::sample::select(Passengers::ALL)),
        field(numbers.clone()),
        field(numbers),
        field(prop::collection::vec(grave(), 0..3)),
        field(0..=Reading::FLAGS_ALL),
    );
    (1_i64..60, time_offset(hostile), state).prop_map(|(seq, offset, state)| {
        let mut it = Reading::new(Seq(seq), Timestamp::from_micros(offset));
        it.service_mode = state.0;
        it.car_status = state.1;
        it.door_zone = state.2;
        it.door_state = state.3;
        it.passengers = state.4;
        it.velocity_mm_s = state.5;
        it.load_kg = state.6.map(|load| load as i16);
        it.codes = state.7.map(|slugs| slugs.iter().map(|slug| code(slug)).collect());
        it.flags = state.8;
        it.floor = Field::Known(Floor::new("B1").unwrap());
        it
    })
}

#[derive(Debug, Clone)]
enum Step {
    Telemetry(Vec<Reading>, bool),
    Events(Vec<(i64, i64, String, EventState)>, Option<Vec<String>>),
    Presence(bool),
    Muted,
    Traits(bool),
    Wait,
}

fn step(hostile: bool) -> impl Strategy<Value = Step> {
    let states = prop::sample::select(vec![EventState::Open, EventState::Close, EventState::Once]);
    let event = (1_i64..60, time_offset(hostile), grave(), states);
    prop_oneof![
        6 => (prop::collection::vec(reading(hostile), 1..4), any::<bool>())
            .prop_map(|(readings, sent)| Step::Telemetry(readings, sent)),
        3 => (prop::collection::vec(event, 0..3), prop::option::weighted(0.2, prop::collection::vec(grave(), 0..3)))
            .prop_map(|(events, active)| Step::Events(events, active)),
        1 => any::<bool>().prop_map(Step::Presence),
        1 => Just(Step::Muted),
        1 => any::<bool>().prop_map(Step::Traits),
        1 => Just(Step::Wait),
    ]
}

/// A log: numbers mostly rise, boots rarely change, several lifts and terminals mix.
fn log(hostile: bool) -> impl Strategy<Value = Vec<Input>> {
    let entry = (step(hostile), 0_i64..4, 0_u32..3, 0_u32..20, 0_i64..40_000_000);
    prop::collection::vec(entry, 1..60).prop_map(|entries| {
        let mut at = BEGIN_US;
        let mut seqs = std::collections::BTreeMap::<(i64, u32, u32), i64>::new();
        let mut inputs = Vec::new();
        for (index, (step, lift, terminal, boot, wait)) in entries.into_iter().enumerate() {
            at += wait;
            let elevator_id = ElevatorId(lift % 2);
            let terminal = terminal % 2;
            let terminal_id = TerminalId::new(&format!("t{lift}-{terminal}")).unwrap();
            let arrival = Arrival { no: ArrivalNo(index as i64 + 1), at: Timestamp::from_micros(at) };
            let boot = boot / 19;
            // Most numbers are the next one; every sixth is as it comes: repeated, old or far ahead.
            let counter = seqs.entry((lift, terminal, boot)).or_default();
            let mut number = |drawn: i64| {
                if drawn % 6 == 0 {
                    return Seq(drawn);
                }
                *counter += 1;
                Seq(*counter)
            };
            let device = |offset: i64| Timestamp::from_micros(at.saturating_sub(offset));
            let message = match step {
                Step::Wait => {
                    inputs.push(Input::Clock(arrival.at));
                    continue;
                }
                Step::Presence(online) => {
                    inputs.push(Input::Presence { elevator_id, terminal_id, area: area(), arrival, online });
                    continue;
                }
                Step::Muted => {
                    inputs.push(Input::Muted { elevator_id, terminal_id, area: area(), arrival });
                    continue;
                }
                Step::Traits(retrofit) => {
                    let traits = Traits { retrofit, infrared: !retrofit, heartbeat_s: Some(20) };
                    inputs.push(Input::Traits { elevator_id, terminal_id, area: area(), arrival, traits });
                    continue;
                }
                Step::Telemetry(mut readings, sent) => {
                    for reading in &mut readings {
                        reading.seq = number(reading.seq.0);
                        reading.time = device(reading.time.micros());
                    }
                    let sent = sent.then_some(arrival.at);
                    Message::Telemetry(TelemetryBatch {
                        boot: BootId(boot),
                        sent,
                        prev_boot_last_seq: None,
                        dropped: None,
                        readings,
                    })
                }
                Step::Events(events, active) => {
                    let events = events
                        .into_iter()
                        .map(|(seq, offset, slug, state)| FaultEvent {
                            seq: number(seq),
                            time: device(offset),
                            code: code(&slug),
                            state,
                        })
                        .collect();
                    let active = active.map(|slugs| slugs.iter().map(|slug| code(slug)).collect());
                    Message::Event(EventBatch { boot: BootId(boot), sent: Some(arrival.at), events, active })
                }
            };
            let message = Arc::new(message);
            inputs.push(Input::Message { elevator_id, terminal_id, area: area(), arrival, message });
        }
        inputs.push(Input::Clock(Timestamp::from_micros(at + 20_000_000_000)));
        inputs
    })
}

fn engine() -> Engine {
    Engine::new(ThresholdsBook::new(1, &Thresholds::default(), &std::collections::BTreeMap::new()))
}

fn time_of(input: &Input) -> Timestamp {
    match input {
        Input::Clock(at) => *at,
        Input::Message { arrival, .. }
        | Input::Presence { arrival, .. }
        | Input::Muted { arrival, .. }
        | Input::Traits { arrival, .. } => arrival.at,
    }
}

fn run(engine: &mut Engine, inputs: &[Input]) -> Vec<Transition> {
    let mut out = Vec::new();
    for input in inputs {
        engine.input(input.clone(), &mut out);
    }
    out
}

fn checkpoint(engine: &Engine) -> Engine {
    let texts: Vec<String> = engine.states().map(ElevatorState::to_json).collect();
    let mut fresh = self::engine();
    // In any order: here backwards.
    fresh.restore(texts.iter().rev().map(|text| ElevatorState::from_json(text).unwrap()));
    fresh
}

fn text(transitions: &[Transition]) -> String {
    serde_json::to_string(transitions).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn a_log_stopped_anywhere_and_restored_goes_on_the_same(inputs in log(false), cut in any::<prop::sample::Index>()) {
        let whole = run(&mut engine(), &inputs);
        let (before, after) = inputs.split_at(cut.index(inputs.len()));
        let mut first = engine();
        let mut parts = run(&mut first, before);
        let mut second = checkpoint(&first);
        prop_assert!(first.states().eq(second.states()));
        prop_assert_eq!(first.next_deadline(), second.next_deadline());
        parts.extend(run(&mut second, after));
        prop_assert_eq!(text(&whole), text(&parts));
    }

    #[test]
    fn a_checkpoint_after_every_input_changes_nothing(inputs in log(true)) {
        let whole = run(&mut engine(), &inputs);
        let mut parts = Vec::new();
        let mut one = engine();
        for input in &inputs {
            one.input(input.clone(), &mut parts);
            one = checkpoint(&one);
        }
        prop_assert_eq!(text(&whole), text(&parts));
    }

    #[test]
    fn extra_clocks_change_nothing(inputs in log(false), shares in prop::collection::vec(0.0..=1.0_f64, 1..200)) {
        let whole = run(&mut engine(), &inputs);
        let mut shares = shares.into_iter().cycle();
        let mut with_clocks = Vec::new();
        let mut last = Timestamp::from_micros(BEGIN_US);
        for input in &inputs {
            let span = time_of(input).micros() - last.micros();
            for _ in 0..3 {
                let share = shares.next().unwrap_or(0.0);
                let micros = (last.micros() + (span as f64 * share) as i64).min(time_of(input).micros());
                with_clocks.push(Input::Clock(Timestamp::from_micros(micros)));
            }
            last = time_of(input);
            with_clocks.push(input.clone());
        }
        prop_assert_eq!(text(&whole), text(&run(&mut engine(), &with_clocks)));
    }

    #[test]
    fn lifts_do_not_see_each_other(inputs in log(false)) {
        let together = run(&mut engine(), &inputs);
        for lift in [ElevatorId(0), ElevatorId(1)] {
            let own: Vec<Input> = inputs.iter().filter(|input| match input {
                Input::Clock(_) => true,
                Input::Message { elevator_id, .. }
                | Input::Presence { elevator_id, .. }
                | Input::Muted { elevator_id, .. }
                | Input::Traits { elevator_id, .. } => *elevator_id == lift,
            }).cloned().collect();
            let alone = run(&mut engine(), &own);
            let its: Vec<Transition> = together.iter().filter(|it| it.elevator_id() == lift).cloned().collect();
            prop_assert_eq!(text(&its), text(&alone));
        }
    }

    #[test]
    fn a_redelivered_log_raises_nothing_new(inputs in log(false), from in any::<prop::sample::Index>()) {
        let mut engine = engine();
        run(&mut engine, &inputs);
        // A redelivery is a sign of life and would let paused timers run on: first let them.
        let end = Timestamp::from_micros(time_of(&inputs[inputs.len() - 1]).micros() + 1);
        let there = (0..8_i64).map(|number| Input::Presence {
            elevator_id: ElevatorId(number / 2 % 2),
            terminal_id: TerminalId::new(&format!("t{}-{}", number / 2, number % 2)).unwrap(),
            area: area(),
            arrival: Arrival { no: ArrivalNo(1000 + number), at: end },
            online: true,
        });
        run(&mut engine, &there.collect::<Vec<_>>());
        run(&mut engine, &[Input::Clock(end.plus(std::time::Duration::from_hours(10)))]);
        let mut again = Vec::new();
        for input in &inputs[from.index(inputs.len())..] {
            if let Input::Message { message, .. } = input
                && let Message::Telemetry(_) = **message
            {
                again.push(input.clone());
            }
        }
        let states: Vec<String> = engine.states().map(|it| format!("{:?}", it.latest().map(|it| it.time))).collect();
        let told = run(&mut engine, &again);
        let raised = told.iter().any(|it| matches!(it, Transition::Event(_)));
        prop_assert!(!raised, "{told:#?}");
        let after: Vec<String> = engine.states().map(|it| format!("{:?}", it.latest().map(|it| it.time))).collect();
        prop_assert_eq!(states, after);
    }

    #[test]
    fn hostile_values_bring_nothing_down_and_leave_bounds_and_text_whole(inputs in log(true)) {
        let mut engine = engine();
        let told = run(&mut engine, &inputs);
        for transition in &told {
            let text = serde_json::to_string(transition).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Transition>(&text).unwrap(), transition);
            if let Transition::Event(event) = transition {
                prop_assert!(event.alarm.evidence.len() <= bounds::EVIDENCE_MAX);
                prop_assert!(event.alarm.began <= event.at);
                prop_assert!(event.no.is_none());
            }
        }
        for state in engine.states() {
            prop_assert!(state.terminals.len() <= bounds::TERMINALS_MAX);
            prop_assert!(state.codes.len() <= bounds::CODES_MAX);
            prop_assert!(state.late.len() <= bounds::LATE_MAX);
            prop_assert_eq!(&ElevatorState::from_json(&state.to_json()).unwrap(), state);
        }
    }
}

/// At one moment, deadlines and inputs of several lifts come in the order of time, then of elevator.
#[test]
fn deadlines_fire_in_the_order_of_time_and_elevator() {
    let mut engine = engine();
    let mut out = Vec::new();
    for (lift, second) in [(3_i64, 1_i64), (1, 2), (2, 1)] {
        let at = Timestamp::from_micros(BEGIN_US + second * 1_000_000);
        let event = FaultEvent { seq: Seq(1), time: at, code: code("entrapment"), state: EventState::Open };
        engine.input(
            Input::Message {
                elevator_id: ElevatorId(lift),
                terminal_id: TerminalId::new(&format!("t{lift}")).unwrap(),
                area: area(),
                arrival: Arrival { no: ArrivalNo(lift), at },
                message: Arc::new(Message::Event(EventBatch {
                    boot: BootId(1),
                    sent: Some(at),
                    events: vec![event],
                    active: None,
                })),
            },
            &mut out,
        );
    }
    engine.input(Input::Clock(Timestamp::from_micros(BEGIN_US + 60_000_000)), &mut out);
    let order: Vec<i64> = out.iter().map(|it| it.elevator_id().0).collect();
    assert_eq!(order, [2, 3, 1]);
    assert_eq!(engine.take_dirty(), [ElevatorId(1), ElevatorId(2), ElevatorId(3)]);
    assert_eq!(engine.take_dirty(), []);
}

#[test]
fn a_state_of_another_version_is_refused() {
    let text = ElevatorState::new(ElevatorId(1), area()).to_json().replacen("\"v\":1", "\"v\":2", 1);
    assert_eq!(
        ElevatorState::from_json(&text).unwrap_err().to_string(),
        "state version 2, this engine reads 1"
    );
    assert!(ElevatorState::from_json("{}").is_err());
}
