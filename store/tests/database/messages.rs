//! Statistics and occurrences of faults against the real database.

use std::sync::Arc;

use crate::common::*;
use domain::{
    Arrival, ArrivalNo, BootId, ClosedBy, Code, Counter, ElevatorId, EventBatch, EventState, FaultEvent,
    FaultPeriod, Message, OpenedBy, SegmentBegin, Seq, Statistics, Timestamp,
};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use store::testing::TestDatabase;
use store::{Database, Incoming, Item};

/// Statistics `seq` of a terminal, a minute after the other, told at once.
fn counted(terminal_name: &str, boot: u32, seq: i64, runs: i64) -> Item {
    let time = at_ms(seq * 60_000);
    let counters = [(Counter::RunCount, runs), (Counter::EnergyWh, runs * 100)].into_iter().collect();
    let message = Statistics { boot: BootId(boot), sent: Some(time), seq: Seq(seq), time, counters };
    said(1, terminal_name, seq, time, Message::Statistics(message))
}

fn said(elevator: i64, terminal_name: &str, no: i64, arrived: Timestamp, message: Message) -> Item {
    Item::Message(Incoming {
        elevator_id: ElevatorId(elevator),
        terminal_id: terminal(terminal_name),
        arrival: Arrival { no: ArrivalNo(no), at: arrived },
        message: Arc::new(message),
    })
}

async fn runs(database: &Database, from_minute: i64, to_minute: i64) -> (i64, Vec<SegmentBegin>) {
    let (from, to) = (at_ms(from_minute * 60_000), at_ms(to_minute * 60_000));
    let found = database.statistics_totals(ElevatorId(1), from, to).await.unwrap();
    let why = found.segments.iter().map(|one| one.segment.why).collect();
    (found.totals.get(Counter::RunCount).unwrap_or(0), why)
}

#[tokio::test]
async fn counters_add_up_over_resets_replaced_terminals_and_late_arrivals() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut writer = writer(&database);
    // 100, 140, reset, 5, 25; then another terminal at 9,000, 9,010. The second and the fifth come late.
    let first = [
        counted("old", 7, 1, 100),
        counted("old", 8, 3, 5),
        counted("new", 1, 10, 9_000),
        counted("new", 1, 11, 9_010),
    ];
    let report = writer.commit(&first).await.unwrap();
    assert_eq!((report.rows_stored, report.quarantined), (4, 0));
    writer.commit(&[counted("old", 8, 4, 25), counted("old", 7, 2, 140)]).await.unwrap();

    use SegmentBegin::{First, Reset};
    assert_eq!(runs(&database, 0, 60).await, (40 + 20 + 10, vec![First, First, Reset]));
    let (early, _) = runs(&database, 0, 4).await;
    let (late, _) = runs(&database, 4, 60).await;
    assert_eq!((early, late), (40, 20 + 10), "stretches add up");
    assert_eq!(runs(&database, 50, 60).await, (0, vec![First, First]), "nothing counted since the last");

    // Delivered again, and with other content under the same key.
    let report = writer.commit(&[counted("old", 7, 2, 140)]).await.unwrap();
    assert_eq!((report.rows_stored, report.rows_repeated), (0, 1));
    let report = writer.commit(&[counted("old", 7, 2, 139)]).await.unwrap();
    assert_eq!((report.rows_stored, report.quarantined), (0, 1));
    assert_eq!(quarantined(&database, "key_conflict").await, 1);
    assert_eq!(runs(&database, 0, 60).await.0, 70);
}

/// A counter in a message of its own, numbered by the minute.
fn alone(elevator: i64, minute: i64, counter: Counter, value: i64) -> Item {
    let time = at_ms(minute * 60_000);
    let counters = [(counter, value)].into_iter().collect();
    let message = Statistics { boot: BootId(7), sent: Some(time), seq: Seq(minute), time, counters };
    said(elevator, &format!("t{elevator}"), minute, time, Message::Statistics(message))
}

/// Energy and runs from minute to minute.
async fn counted_in(database: &Database, elevator: i64, from: i64, to: i64) -> (i64, i64) {
    let (from, to) = (at_ms(from * 60_000), at_ms(to * 60_000));
    let found = database.statistics_totals(ElevatorId(elevator), from, to).await.unwrap().totals;
    (found.get(Counter::EnergyWh).unwrap_or(0), found.get(Counter::RunCount).unwrap_or(0))
}

#[tokio::test]
async fn counters_in_messages_of_their_own_grow_from_their_own_last_sample() {
    use Counter::{EnergyWh, RunCount};
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut writer = writer(&database);
    let sent = [
        alone(1, 1, EnergyWh, 500),
        alone(1, 2, RunCount, 10),
        alone(1, 4, RunCount, 12),
        alone(1, 5, EnergyWh, 1_000),
        alone(1, 6, RunCount, 20),
    ];
    writer.commit(&sent).await.unwrap();
    assert_eq!(counted_in(&database, 1, 3, 60).await, (500, 10), "from the last of each before");
    assert_eq!(counted_in(&database, 1, 0, 3).await, (0, 0));
    // What comes late parts a step in two.
    writer.commit(&[alone(1, 3, EnergyWh, 900)]).await.unwrap();
    for cut in 0..8 {
        let (early, late) = (counted_in(&database, 1, 0, cut).await, counted_in(&database, 1, cut, 60).await);
        assert_eq!((early.0 + late.0, early.1 + late.1), (500, 10), "cut at {cut}: {early:?} and {late:?}");
    }
    assert_eq!(counted_in(&database, 1, 4, 60).await, (100, 10));

    // A reset that only one counter shows ends what the other had counted too.
    let sent = [
        alone(2, 1, EnergyWh, 500),
        alone(2, 2, RunCount, 10),
        alone(2, 3, RunCount, 3),
        alone(2, 5, EnergyWh, 700),
        alone(2, 6, RunCount, 5),
    ];
    writer.commit(&sent).await.unwrap();
    for cut in 0..8 {
        let (early, late) = (counted_in(&database, 2, 0, cut).await, counted_in(&database, 2, cut, 60).await);
        assert_eq!((early.0 + late.0, early.1 + late.1), (0, 2), "cut at {cut}: {early:?} and {late:?}");
    }
}

#[tokio::test]
async fn counters_with_an_impossible_time_go_to_quarantine() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut writer = writer(&database);
    let at = |time: &str, seq| {
        let (time, counters) = (time.parse().unwrap(), [(Counter::RunCount, 1)].into_iter().collect());
        let message = Statistics { boot: BootId(1), sent: None, seq: Seq(seq), time, counters };
        item(1, seq, Message::Statistics(message))
    };
    let report =
        writer.commit(&[at("1970-01-01T00:00:00Z", 1), at("2030-01-01T00:00:00Z", 2)]).await.unwrap();
    assert_eq!((report.rows_stored, report.quarantined), (0, 2));
    assert_eq!(quarantined(&database, "too_old").await, 1);
    assert_eq!(quarantined(&database, "future").await, 1);
}

/// Something about faults, told `at` milliseconds after noon and arrived a little later.
fn told(elevator: i64, no: i64, at: i64, events: Vec<FaultEvent>, active: Option<&[&str]>) -> Item {
    let active = active.map(|slugs| slugs.iter().map(|slug| Code::canonical(slug).unwrap()).collect());
    let batch = EventBatch { boot: BootId(7), sent: Some(at_ms(at)), events, active };
    said(elevator, &format!("t{elevator}"), no, at_ms(at + 5), Message::Event(batch))
}

fn event(seq: i64, at: i64, slug: &str, state: EventState) -> FaultEvent {
    FaultEvent { seq: Seq(seq), time: at_ms(at), code: Code::canonical(slug).unwrap(), state }
}

fn brief(period: &FaultPeriod) -> (&str, i64, Option<i64>, OpenedBy, Option<ClosedBy>) {
    let after_noon = |at: Timestamp| at.millis() - noon().millis();
    let FaultPeriod { code, opened, closed, opened_by, closed_by, .. } = period;
    (code.fault.slug, after_noon(*opened), closed.map(after_noon), *opened_by, *closed_by)
}

async fn periods(database: &Database, elevator: i64) -> Vec<FaultPeriod> {
    let (from, to) = (at_ms(-1_000), at_ms(10_000_000));
    let found = database.fault_periods(ElevatorId(elevator), from, to).await.unwrap();
    found.into_iter().map(|record| record.period).collect()
}

#[tokio::test]
async fn after_a_reconnect_the_list_opens_the_missing_and_closes_the_vanished() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut writer = writer(&database);
    let open = told(1, 1, 1_000, vec![event(1, 1_000, "door_close_fault", EventState::Open)], None);
    let kept = told(1, 2, 2_000, vec![event(2, 2_000, "position_lost", EventState::Open)], None);
    writer.commit(&[open.clone(), kept]).await.unwrap();
    assert_eq!(database.faults_open(ElevatorId(1)).await.unwrap().len(), 2);

    let list = told(1, 3, 50_000, vec![], Some(&["position_lost", "power_off"]));
    writer.commit(std::slice::from_ref(&list)).await.unwrap();
    let expected = [
        ("door_close_fault", 1_005, Some(50_005), OpenedBy::Event, Some(ClosedBy::List)),
        ("position_lost", 2_005, None, OpenedBy::Event, None),
        ("power_off", 50_005, None, OpenedBy::List, None),
    ];
    let found = periods(&database, 1).await;
    assert_eq!(found.iter().map(brief).collect::<Vec<_>>(), expected);
    assert_eq!(found[0].device_time, Some(at_ms(1_000)), "the device's own time is kept too");

    // Delivered again: at once, later, from another connection, with a lost answer.
    writer.commit(&[list.clone(), open.clone()]).await.unwrap();
    let mut other = crate::common::writer(&database);
    other.commit(&[open, list]).await.unwrap();
    assert_eq!(periods(&database, 1).await, found);

    // An end that was under way while newer things came.
    let late = told(1, 9, 60_000, vec![event(3, 3_000, "position_lost", EventState::Close)], None);
    writer.commit(&[late]).await.unwrap();
    let position: Vec<_> = periods(&database, 1).await;
    let position: Vec<_> = position.iter().map(brief).filter(|it| it.0 == "position_lost").collect();
    assert_eq!(
        position,
        [
            ("position_lost", 2_005, Some(3_005), OpenedBy::Event, Some(ClosedBy::Event)),
            ("position_lost", 50_005, None, OpenedBy::List, None),
        ],
        "it ended before the list, which opened it again"
    );
    writer
        .commit(&[told(1, 10, 70_000, vec![event(4, 70_000, "no_fault", EventState::Open)], None)])
        .await
        .unwrap();
    assert_eq!(database.faults_open(ElevatorId(1)).await.unwrap(), []);
}

/// What a terminal says, one message each: (time, events or a list).
fn any_log() -> impl Strategy<Value = Vec<(EventState, &'static str, Option<Vec<&'static str>>)>> {
    let slug =
        || prop::sample::select(vec!["door_close_fault", "position_lost", "inspection_mode", "no_fault"]);
    let state =
        prop::sample::select(vec![EventState::Open, EventState::Close, EventState::Open, EventState::Once]);
    let list = prop::option::weighted(0.3, prop::collection::vec(slug(), 0..3));
    prop::collection::vec((state, slug(), list), 1..12)
}

#[tokio::test]
async fn any_order_of_deliveries_ends_in_the_same_periods() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut writer = writer(&database);
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    for round in 0..12_i64 {
        let log = any_log().new_tree(&mut runner).unwrap().current();
        let count = log.len();
        let items = |elevator: i64| {
            let one = |(index, (state, slug, list)): (usize, &(EventState, &str, Option<Vec<&str>>))| {
                let at = (index as i64 + 1) * 1_000;
                match list {
                    Some(list) => told(elevator, at, at, vec![], Some(list.as_slice())),
                    None => told(elevator, at, at, vec![event(index as i64 + 1, at, slug, *state)], None),
                }
            };
            log.iter().enumerate().map(one).collect::<Vec<_>>()
        };
        let (straight, mixed) = (round * 2 + 1, round * 2 + 2);
        for item in items(straight) {
            writer.commit(&[item]).await.unwrap();
        }
        let twice: Vec<usize> = (0..count).chain(0..count).collect();
        let order = Just(twice).prop_shuffle().new_tree(&mut runner).unwrap().current();
        let shuffled = items(mixed);
        for part in order.chunks(3) {
            let part: Vec<Item> = part.iter().map(|index| shuffled[*index].clone()).collect();
            writer.commit(&part).await.unwrap();
        }
        assert_eq!(
            periods(&database, mixed).await,
            periods(&database, straight).await,
            "{log:?} in {order:?}"
        );
    }
}

#[tokio::test]
async fn a_clock_is_judged_without_sent_and_never_by_what_is_retried() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let reading = |seq: i64, behind_s: i64| {
        let arrived = at_ms(seq * 30_000);
        let mut one = domain::Reading::new(Seq(seq), at_ms(seq * 30_000 - behind_s * 1_000));
        one.load_kg = domain::Field::Known(75);
        let readings = vec![one];
        let batch = domain::TelemetryBatch {
            boot: BootId(7),
            sent: None,
            prev_boot_last_seq: None,
            dropped: None,
            readings,
        };
        said(1, "t1", seq, arrived, Message::Telemetry(batch))
    };
    let open = async || database.faults_open(ElevatorId(1)).await.unwrap().len();
    let mut past = writer(&database).of_the_past();
    for seq in 1..8 {
        past.commit(&[reading(seq, 7_200)]).await.unwrap();
    }
    assert_eq!(open().await, 0, "tried again long after");
    let mut live = writer(&database);
    for seq in 11..15 {
        live.commit(&[reading(seq, 7_200)]).await.unwrap();
    }
    assert_eq!(open().await, 0, "it may be what was kept for two hours");
    live.commit(&[reading(15, 7_200)]).await.unwrap();
    assert_eq!(open().await, 1, "at the same distance for 120 s");
    past.commit(&[reading(21, 0), reading(22, 0), reading(23, 0)]).await.unwrap();
    assert_eq!(open().await, 1);
    live.commit(&[reading(31, 0), reading(32, 0), reading(33, 0)]).await.unwrap();
    assert_eq!(open().await, 0);
}

#[tokio::test]
async fn a_clock_that_is_off_is_flagged_once_and_cleared_once() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let metrics = Arc::new(store::StoreMetrics::default());
    let writer = || store::Writer::new(&database, metrics.clone());
    // Readings are of the clock of the terminal: `behind` seconds late.
    let reading = |seq: i64, behind: i64| {
        let (arrived, clock) = (at_ms(seq * 1_000), at_ms((seq - behind) * 1_000));
        let mut one = domain::Reading::new(Seq(seq), clock);
        one.load_kg = domain::Field::Known(75);
        let batch = domain::TelemetryBatch {
            boot: BootId(7),
            sent: Some(clock),
            prev_boot_last_seq: None,
            dropped: None,
            readings: vec![one],
        };
        said(1, "t1", seq, arrived, Message::Telemetry(batch))
    };
    let mut first = writer();
    first.commit(&[reading(1, 3_600), reading(2, 3_600)]).await.unwrap();
    assert_eq!(
        (database.faults_open(ElevatorId(1)).await.unwrap().len(), metrics.clock_skewed.get()),
        (0, 0)
    );
    for seq in 3..9 {
        first.commit(&[reading(seq, 3_600)]).await.unwrap();
    }
    let open = database.faults_open(ElevatorId(1)).await.unwrap();
    assert_eq!(
        open.iter().map(|it| brief(&it.period)).collect::<Vec<_>>(),
        [("clock_skew", 3_000, None, OpenedBy::Server, None)]
    );
    assert_eq!(metrics.clock_skewed.get(), 1);

    // What the terminal lists is not about this; and another process goes on from what is stored.
    let list = told(1, 900, 8_500, vec![], Some(&[]));
    let mut second = writer();
    second.commit(&[list]).await.unwrap();
    // The list was the first message of a clock that is right, this is the second.
    second.commit(&[reading(10, 0)]).await.unwrap();
    assert_eq!(
        (database.faults_open(ElevatorId(1)).await.unwrap().len(), metrics.clock_skewed.get()),
        (1, 1)
    );
    second.commit(&[reading(11, 0)]).await.unwrap();
    assert_eq!(
        (database.faults_open(ElevatorId(1)).await.unwrap().len(), metrics.clock_skewed.get()),
        (0, 0)
    );
    let closed = &periods(&database, 1).await[0];
    assert_eq!(brief(closed), ("clock_skew", 3_000, Some(11_000), OpenedBy::Server, Some(ClosedBy::Server)));
}
