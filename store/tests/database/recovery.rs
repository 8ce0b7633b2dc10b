//! What is committed comes back as it was.

use std::sync::Arc;

use domain::{
    Arrival, ArrivalNo, BootId, CarStatus, Code, Counter, Direction, DoorState, ElevatorId, EventBatch,
    EventState, FAULTS, FaultEvent, Field, Floor, Message, Passengers, Reading, Seq, ServiceMode, Statistics,
    TelemetryBatch, Timestamp, fault_by_slug,
};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use store::testing::TestDatabase;
use store::{Incoming, Item, recovery};

use crate::common::*;

fn field<T: Clone + std::fmt::Debug + 'static>(
    known: impl Strategy<Value = T> + 'static,
) -> BoxedStrategy<Field<T>> {
    prop_oneof![Just(Field::Absent), Just(Field::Unknown), known.prop_map(Field::Known)].boxed()
}

fn one_of<T: Copy + std::fmt::Debug + 'static>(all: &'static [T]) -> BoxedStrategy<T> {
    proptest::sample::select(all).boxed()
}

fn code() -> BoxedStrategy<Code> {
    let canonical = (0..FAULTS.len()).prop_map(|at| Code { raw: FAULTS[at].slug.into(), fault: &FAULTS[at] });
    let mapped = ("[ -~]{1,64}", 0..FAULTS.len())
        .prop_map(|(raw, at)| Code { raw: raw.as_str().into(), fault: &FAULTS[at] });
    let unknown = "[一-龟]{1,20}"
        .prop_map(|raw| Code { raw: raw.as_str().into(), fault: fault_by_slug("unknown_code").unwrap() });
    prop_oneof![canonical, mapped, unknown].boxed()
}

fn codes() -> BoxedStrategy<Vec<Code>> {
    proptest::collection::vec(code(), 0..5).boxed()
}

/// Device times that are stored: within the retention, to the microsecond.
fn device_time() -> BoxedStrategy<Timestamp> {
    (-150 * 86_400_000_000_i64..300_000_000)
        .prop_map(|us| Timestamp::from_micros(noon().micros() + us))
        .boxed()
}

fn arbitrary_reading() -> BoxedStrategy<Reading> {
    let contacts = (
        field(one_of(ServiceMode::ALL)),
        field(one_of(CarStatus::ALL)),
        field(one_of(Direction::ALL)),
        field(any::<bool>()),
        field(one_of(DoorState::ALL)),
        field(one_of(Passengers::ALL)),
        field("[!-~]{1,16}|[一-龟]{1,5}".prop_map(|label| Floor::new(&label).unwrap())),
        field(codes()),
    );
    let numbers = (
        field(-5_i16..300),
        field(-2_000_000..=2_000_000),
        field(-30_000..=30_000),
        field(0_i16..=30_000),
        field(0_i16..=200),
        field(0..=Reading::FLAGS_ALL),
        field(-2_000_i16..=2_000),
        field(0..=1_000_000),
    );
    let seq = prop_oneof![0..i64::MAX, i64::MIN..0];
    (seq, device_time(), contacts, numbers)
        .prop_map(|(seq, time, contacts, numbers)| Reading {
            seq: Seq(seq),
            time,
            service_mode: contacts.0,
            car_status: contacts.1,
            direction: contacts.2,
            door_zone: contacts.3,
            door_state: contacts.4,
            passengers: contacts.5,
            floor: contacts.6,
            floor_ordinal: numbers.0,
            position_mm: numbers.1,
            velocity_mm_s: numbers.2,
            load_kg: numbers.3,
            people_count: numbers.4,
            flags: numbers.5,
            flags_told: if numbers.5.known().is_some() { (seq & 31) as i32 } else { Reading::FLAGS_ALL },
            temperature_dc: numbers.6,
            vibration_mm_s2: numbers.7,
            codes: contacts.7,
        })
        .boxed()
}

fn sent() -> BoxedStrategy<Option<Timestamp>> {
    // Also clocks that are wrong by more than age and skew can hold.
    let sent = prop_oneof![-600_000_i64..600_000, -10_000_000_000_i64..10_000_000_000];
    proptest::option::of(sent.prop_map(at_ms)).boxed()
}

fn message() -> BoxedStrategy<Message> {
    let boot = any::<u32>().prop_map(BootId);
    let telemetry = (boot.clone(), sent(), proptest::collection::vec(arbitrary_reading(), 1..6));
    let event = (
        any::<i64>(),
        device_time(),
        code(),
        one_of(&[EventState::Open, EventState::Close, EventState::Once]),
    )
        .prop_map(|(seq, time, code, state)| FaultEvent { seq: Seq(seq), time, code, state });
    let events =
        (boot.clone(), sent(), proptest::collection::vec(event, 1..5), proptest::option::of(codes()));
    let value = proptest::option::of(0..=domain::limits::COUNTER_MAX);
    let values = proptest::collection::vec(value, Counter::COUNT);
    let counted = (boot.clone(), sent(), any::<i64>(), device_time(), values).prop_map(
        |(boot, sent, seq, time, values)| {
            let counters = Counter::ALL.into_iter().zip(values);
            let counters = counters.filter_map(|(counter, value)| Some((counter, value?))).collect();
            Message::Statistics(Statistics { boot, sent, seq: Seq(seq), time, counters })
        },
    );
    prop_oneof![
        telemetry.prop_map(|(boot, sent, readings)| Message::Telemetry(TelemetryBatch {
            boot,
            sent,
            prev_boot_last_seq: None,
            dropped: None,
            readings,
        })),
        events.prop_map(|(boot, sent, events, active)| Message::Event(EventBatch {
            boot,
            sent,
            events,
            active
        })),
        counted,
    ]
    .boxed()
}

/// `sent` lies out of the bounds of both age and skew for every row, so that it cannot come back.
fn sent_is_lost(message: &Message, arrived: Timestamp) -> bool {
    let Some(sent) = message.sent() else { return false };
    let beyond = |other: Timestamp| (sent.millis() - other.millis()).abs() >= domain::limits::SKEW_MS_ABS_MAX;
    let times: Vec<Timestamp> = match message {
        Message::Telemetry(batch) => batch.readings.iter().map(|reading| reading.time).collect(),
        Message::Event(batch) => batch.events.iter().map(|event| event.time).collect(),
        Message::Statistics(statistics) => vec![statistics.time],
    };
    beyond(arrived) && times.into_iter().all(beyond)
}

#[tokio::test]
async fn messages_come_back_as_they_were() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut writer = writer(&database);
    let mut runner = TestRunner::default();
    let mut written = Vec::new();
    for round in 0..40_i64 {
        let mut items = Vec::new();
        for place in 0..10 {
            let no = round * 10 + place + 1;
            let message = message().new_tree(&mut runner).unwrap().current();
            let arrival = Arrival { no: ArrivalNo(no), at: Timestamp::from_micros(noon().micros() + no) };
            if sent_is_lost(&message, arrival.at) {
                continue;
            }
            items.push(Incoming {
                elevator_id: ElevatorId(no % 7),
                terminal_id: terminal(&format!("t{}", no % 9)),
                arrival,
                message: Arc::new(message),
            });
        }
        let batch: Vec<Item> = items.iter().cloned().map(Item::Message).collect();
        let report = writer.commit(&batch).await.unwrap();
        assert_eq!(report.quarantined, 0, "{items:#?}");
        written.extend(items);
    }
    let read = recovery::rows_after(&database, ArrivalNo(0)).all().await.unwrap();
    assert_eq!(read.len(), written.len());
    for (read, written) in read.iter().zip(&written) {
        assert_eq!(read, written);
    }

    let middle = written[written.len() / 2].arrival.no;
    let later = recovery::rows_after(&database, middle).all().await.unwrap();
    assert_eq!(later.first(), written.get(written.len() / 2 + 1));
    assert_eq!(later.len(), written.len() - written.len() / 2 - 1);
}

#[tokio::test]
async fn a_clock_beyond_all_bounds_comes_back_as_none() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let batch = TelemetryBatch {
        boot: BootId(1),
        sent: Some(Timestamp::from_millis(0)),
        prev_boot_last_seq: None,
        dropped: None,
        readings: vec![reading(1)],
    };
    writer(&database).commit(&[item(1, 1, Message::Telemetry(batch))]).await.unwrap();
    let read = recovery::rows_after(&database, ArrivalNo(0)).all().await.unwrap();
    assert_eq!(read[0].message.sent(), None);
}

#[tokio::test]
async fn nothing_comes_back_from_nothing() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    assert!(recovery::rows_after(&database, ArrivalNo(0)).next().await.unwrap().is_none());
}
