//! Occurrences of faults that readings show, against the real database.

use std::sync::Arc;
use std::time::Duration;

use crate::common::*;
use domain::{
    Arrival, ArrivalNo, BootId, ClosedBy, Code, ElevatorId, EventBatch, EventState, FaultEvent, FaultPeriod,
    Field, Message, OpenedBy, Reading, Seq, ServiceMode, TelemetryBatch, Timestamp,
};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use store::testing::TestDatabase;
use store::{Database, Incoming, Item, StoreConfig, Writer};

fn codes(slugs: &[&str]) -> Vec<Code> {
    slugs.iter().map(|slug| Code::canonical(slug).unwrap()).collect()
}

/// Reading `seq`, `at` milliseconds after noon.
fn shows(seq: i64, at: i64, list: Option<&[&str]>, mode: Option<ServiceMode>) -> Reading {
    let mut reading = Reading::new(Seq(seq), at_ms(at));
    reading.load_kg = Field::Known(75);
    reading.codes = list.map_or(Field::Absent, |slugs| Field::Known(codes(slugs)));
    reading.service_mode = mode.map_or(Field::Absent, Field::Known);
    reading
}

fn listing(seq: i64, at: i64, list: &[&str]) -> Reading {
    shows(seq, at, Some(list), None)
}

fn said(elevator: i64, at: i64, message: Message) -> Item {
    Item::Message(Incoming {
        elevator_id: ElevatorId(elevator),
        terminal_id: terminal(&format!("t{elevator}")),
        arrival: Arrival { no: ArrivalNo(at), at: at_ms(at) },
        message: Arc::new(message),
    })
}

/// Readings that leave the terminal with the last of them, or later, and arrive at once.
fn readings(elevator: i64, boot: u32, sent: i64, readings: Vec<Reading>) -> Item {
    let (boot, sent_at) = (BootId(boot), Some(at_ms(sent)));
    let batch = TelemetryBatch { boot, sent: sent_at, prev_boot_last_seq: None, dropped: None, readings };
    said(elevator, sent, Message::Telemetry(batch))
}

fn event(elevator: i64, boot: u32, seq: i64, at: i64, slug: &str, state: EventState) -> Item {
    let code = Code::canonical(slug).unwrap();
    let events = vec![FaultEvent { seq: Seq(seq), time: at_ms(at), code, state }];
    let batch = EventBatch { boot: BootId(boot), sent: Some(at_ms(at)), events, active: None };
    said(elevator, at, Message::Event(batch))
}

fn active(elevator: i64, boot: u32, at: i64, slugs: &[&str]) -> Item {
    let active = Some(codes(slugs));
    let batch = EventBatch { boot: BootId(boot), sent: Some(at_ms(at)), events: vec![], active };
    said(elevator, at, Message::Event(batch))
}

async fn periods(database: &Database, elevator: i64) -> Vec<FaultPeriod> {
    let (from, to) = (at_ms(-100_000_000), at_ms(100_000_000));
    let found = database.fault_periods(ElevatorId(elevator), from, to).await.unwrap();
    found.into_iter().map(|record| record.period).collect()
}

type Brief = (String, i64, Option<i64>, OpenedBy, Option<ClosedBy>);

async fn brief(database: &Database, elevator: i64) -> Vec<Brief> {
    let after_noon = |at: Timestamp| at.millis() - noon().millis();
    let brief = |it: FaultPeriod| {
        let closed = it.closed.map(after_noon);
        (it.code.fault.slug.to_owned(), after_noon(it.opened), closed, it.opened_by, it.closed_by)
    };
    periods(database, elevator).await.into_iter().map(brief).collect()
}

fn by_list(slug: &str, opened: i64, closed: Option<i64>) -> Brief {
    (slug.to_owned(), opened, closed, OpenedBy::List, closed.map(|_| ClosedBy::List))
}

#[tokio::test]
async fn a_terminal_that_tells_faults_by_its_readings_alone_has_periods() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut writer = writer(&database);
    let fault = ["entrapment"].as_slice();
    for (seq, list) in [(1, [].as_slice()), (2, fault), (3, fault), (4, [].as_slice()), (5, [].as_slice())] {
        let at = seq * 1_000;
        writer.commit(&[readings(1, 7, at, vec![listing(seq, at, list)])]).await.unwrap();
    }
    assert_eq!(brief(&database, 1).await, [by_list("entrapment", 2_000, Some(4_000))]);

    // Another, all of it in one message, with a number of its own language that means that there is none.
    let list = |at: i64, slugs: &[&str]| listing(-at, at, slugs);
    let lists = vec![list(1, &["no_fault"]), list(2, fault), list(3, &["no_fault"])];
    writer.commit(&[readings(2, 7, 3, lists)]).await.unwrap();
    assert_eq!(brief(&database, 2).await, [by_list("entrapment", 2, Some(3))]);
}

#[tokio::test]
async fn a_reading_that_shows_nothing_new_needs_no_statement() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut writer = writer(&database);
    let normal = Some(ServiceMode::Normal);
    let one = |seq: i64, list: &[&str]| {
        let reading = shows(seq, seq * 1_000, Some(list), normal);
        [readings(1, 7, seq * 1_000, vec![reading])]
    };
    let asked = async |writer: &mut Writer, items: &[Item]| {
        let report = writer.commit(items).await.unwrap();
        assert_eq!((report.rows_stored, report.statements), (1, 1));
        report.fault_statements
    };
    assert_eq!(asked(&mut writer, &one(1, &[])).await, 1, "where it stands is read once");
    for seq in 2..6 {
        assert_eq!(asked(&mut writer, &one(seq, &[])).await, 0);
    }
    assert!(asked(&mut writer, &one(6, &["entrapment"])).await > 0);
    for seq in 7..12 {
        assert_eq!(asked(&mut writer, &one(seq, &["entrapment"])).await, 0, "it lasts");
    }
    assert!(asked(&mut writer, &one(12, &[])).await > 0);
    assert_eq!(asked(&mut writer, &one(13, &[])).await, 0);
    // A backlog of the time before, a day's worth behind what is open.
    let old: Vec<Reading> =
        (0..50).map(|seq| shows(-seq - 1, seq * 1_000 - 4_000_000, Some(&[]), None)).collect();
    let report = writer.commit(&[readings(1, 7, 14_000, old)]).await.unwrap();
    assert_eq!(report.rows_stored, 50);
    let late: Vec<Reading> = (0..50).map(|seq| shows(-seq - 1, seq + 100_000, Some(&[]), None)).collect();
    writer.commit(&[active(1, 7, 200_000, &[])]).await.unwrap();
    let report = writer.commit(&[readings(1, 7, 210_000, late)]).await.unwrap();
    assert_eq!(report.fault_statements, 0, "late, but no period is near");
    assert_eq!(brief(&database, 1).await, [by_list("entrapment", 6_000, Some(12_000))]);

    // Nothing about faults at all: not even the first time.
    let plain = readings(2, 7, 1_000, vec![shows(1, 1_000, None, Some(ServiceMode::Inspection))]);
    assert_eq!(asked(&mut writer, &[plain]).await, 0);
    // Believed for no time: read again each time.
    let mut careful = crate::common::writer(&database).believing_faults_for(Duration::ZERO);
    for seq in 20..23 {
        assert_eq!(asked(&mut careful, &one(seq * 10, &[])).await, 1);
    }
}

#[tokio::test]
async fn normal_service_ends_inspection_that_an_event_told() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut writer = writer(&database);
    let mode = |seq: i64, mode: ServiceMode| {
        readings(1, 7, seq * 1_000, vec![shows(seq, seq * 1_000, None, Some(mode))])
    };
    writer.commit(&[mode(1, ServiceMode::Normal)]).await.unwrap();
    writer.commit(&[event(1, 7, 2, 2_000, "inspection_mode", EventState::Open)]).await.unwrap();
    writer.commit(&[mode(3, ServiceMode::Inspection)]).await.unwrap();
    assert_eq!(database.faults_open(ElevatorId(1)).await.unwrap().len(), 1);
    writer.commit(&[mode(4, ServiceMode::Normal), mode(5, ServiceMode::Normal)]).await.unwrap();
    let inspection = |opened, closed| {
        ("inspection_mode".to_owned(), opened, Some(closed), OpenedBy::Event, Some(ClosedBy::Normal))
    };
    assert_eq!(brief(&database, 1).await, [inspection(2_000, 4_000)]);
    // Told after the reading that ends it, and of the time before it; both in one batch, too.
    writer.commit(&[mode(8, ServiceMode::Normal)]).await.unwrap();
    writer.commit(&[event(1, 7, 7, 7_000, "inspection_mode", EventState::Open)]).await.unwrap();
    let both = [mode(11, ServiceMode::Normal), event(1, 7, 10, 10_000, "inspection_mode", EventState::Open)];
    writer.commit(&both).await.unwrap();
    let expected = [inspection(2_000, 4_000), inspection(7_000, 8_000), inspection(10_000, 11_000)];
    assert_eq!(brief(&database, 1).await, expected);
}

#[tokio::test]
async fn a_backlog_after_live_readings_ends_in_the_same_periods() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    // An hour, a reading each 20 s: a fault for some minutes, another until the end; then an hour of live ones.
    let list = |index: i64| match index {
        40..52 => ["entrapment"].as_slice(),
        120..=180 => ["door_open_fault"].as_slice(),
        200.. => ["position_lost"].as_slice(),
        _ => [].as_slice(),
    };
    let reading = |index: i64| listing(index, index * 20_000, list(index));
    let mut writer = writer(&database);
    for from in (0..360).step_by(10) {
        let batch = (from..from + 10).map(reading).collect();
        writer.commit(&[readings(1, 7, (from + 9) * 20_000, batch)]).await.unwrap();
    }
    for index in 180..360 {
        writer.commit(&[readings(2, 7, index * 20_000, vec![reading(index)])]).await.unwrap();
    }
    for from in [150, 120, 0, 30, 60, 90] {
        let batch = (from..from + 30).map(reading).collect();
        writer.commit(&[readings(2, 7, 359 * 20_000, batch)]).await.unwrap();
    }
    let expected = [
        by_list("entrapment", 800_000, Some(1_040_000)),
        by_list("door_open_fault", 2_400_000, Some(3_620_000)),
        by_list("position_lost", 4_000_000, None),
    ];
    assert_eq!(brief(&database, 1).await, expected);
    assert_eq!(brief(&database, 2).await, expected);
    assert_eq!(periods(&database, 2).await, periods(&database, 1).await);
}

#[tokio::test]
async fn a_late_list_splits_a_period_and_moves_its_begin() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut writer = writer(&database);
    let (none, fault) = ([].as_slice(), ["entrapment"].as_slice());
    // Each shows what is open now, but not what was open then.
    for (seq, list) in [(1, none), (20, fault), (30, none), (25, none), (10, fault), (40, fault), (35, fault)]
    {
        let at = seq * 1_000;
        writer.commit(&[readings(1, 7, at, vec![listing(seq, at, list)])]).await.unwrap();
    }
    let expected = [by_list("entrapment", 10_000, Some(25_000)), by_list("entrapment", 35_000, None)];
    assert_eq!(brief(&database, 1).await, expected);
}

#[tokio::test]
async fn a_clock_set_back_within_a_boot_hides_no_fault_that_began_meanwhile() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut writer = writer(&database);
    writer.commit(&[readings(1, 7, 1_000, vec![listing(1, 1_000, &[])])]).await.unwrap();
    writer.commit(&[readings(1, 7, 9_000_000, vec![listing(2, 9_000_000, &["entrapment"])])]).await.unwrap();
    writer.commit(&[readings(1, 7, 9_500_000, vec![listing(3, 9_500_000, &[])])]).await.unwrap();
    // Set back to before all that: by time alone there was no fault then, which is what this shows.
    writer.commit(&[readings(1, 7, 5_000_000, vec![listing(4, 5_000_000, &["power_off"])])]).await.unwrap();
    let report = writer.commit(&[readings(1, 7, 5_200_000, vec![listing(5, 5_200_000, &[])])]).await.unwrap();
    assert!(report.fault_statements > 1, "not taken for a late one: {report:?}");
    assert_eq!(database.faults_open(ElevatorId(1)).await.unwrap().len(), 0);
}

#[tokio::test]
async fn a_late_event_meets_readings_of_before_the_start_and_no_list_of_later() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut writer = writer(&database);
    let normal = |seq: i64, list: Option<&[&str]>| {
        let reading = shows(seq, seq * 1_000, list, Some(ServiceMode::Normal));
        readings(1, 7, seq * 1_000, vec![reading])
    };
    writer.commit(&[event(1, 7, 1, 1_000, "power_off", EventState::Open)]).await.unwrap();
    writer.commit(&[normal(5, None)]).await.unwrap();
    let mut restarted = crate::common::writer(&database);
    restarted.commit(&[event(1, 7, 3, 3_000, "inspection_mode", EventState::Open)]).await.unwrap();
    let power_off = ("power_off".to_owned(), 1_000, None, OpenedBy::Event, None);
    let mode = ("inspection_mode".to_owned(), 3_000, Some(5_000), OpenedBy::Event, Some(ClosedBy::Normal));
    assert_eq!(brief(&database, 1).await, [power_off.clone(), mode.clone()]);

    // The empty list was before the first that names it.
    restarted.commit(&[normal(1_100, Some(&[]))]).await.unwrap();
    restarted.commit(&[normal(1_200, Some(&["power_off"]))]).await.unwrap();
    restarted.commit(&[event(1, 7, 1_150, 1_150_000, "entrapment", EventState::Once)]).await.unwrap();
    let mut found = brief(&database, 1).await;
    assert_eq!(found.pop().unwrap().0, "entrapment");
    assert_eq!(found, [power_off, mode]);
}

#[tokio::test]
async fn a_late_event_leaves_what_readings_that_are_gone_had_shown() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut writer = writer(&database);
    writer.commit(&[event(1, 7, 1, 1_000, "power_off", EventState::Open)]).await.unwrap();
    for (seq, list) in [(2, ["entrapment"].as_slice()), (3, &[]), (4, &["position_lost"])] {
        let at = seq * 1_000;
        writer.commit(&[readings(1, 7, at, vec![listing(seq, at, list)])]).await.unwrap();
    }
    let before = brief(&database, 1).await;
    sqlx::query("DELETE FROM telemetry").execute(database.pool()).await.unwrap();
    let late = event(1, 7, 0, 500, "door_open_fault", EventState::Once);
    writer.commit(&[late]).await.unwrap();
    let mut after = brief(&database, 1).await;
    assert_eq!(after.remove(0).0, "door_open_fault");
    assert_eq!(after, before);
}

#[tokio::test]
async fn what_another_process_followed_meanwhile_is_looked_at_again() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let (mut one, mut other) = (writer(&database), writer(&database));
    let shown =
        |seq: i64, list: &[&str]| [readings(1, 7, seq * 1_000, vec![listing(seq, seq * 1_000, list)])];
    one.commit(&shown(1, &[])).await.unwrap();
    other.commit(&shown(2, &["entrapment"])).await.unwrap();
    // Believed to be no news.
    one.commit(&shown(3, &[])).await.unwrap();
    assert_eq!(brief(&database, 1).await, [by_list("entrapment", 2_000, None)]);
    one.commit(&shown(4, &["position_lost"])).await.unwrap();
    let expected = [by_list("entrapment", 2_000, Some(3_000)), by_list("position_lost", 4_000, None)];
    assert_eq!(brief(&database, 1).await, expected);
}

/// One thing a terminal says.
#[derive(Debug, Clone)]
enum Step {
    Event(EventState, &'static str),
    Active(Vec<&'static str>),
    Reading(Option<Vec<&'static str>>, Option<ServiceMode>),
}

fn any_log() -> impl Strategy<Value = Vec<(Step, bool)>> {
    let slug = || {
        prop::sample::select(vec![
            "entrapment",
            "position_lost",
            "entrapment",
            "inspection_mode",
            "power_off",
            "no_fault",
            "auto_mode",
        ])
    };
    let state = prop::sample::select(vec![EventState::Open, EventState::Close, EventState::Once]);
    let list = move || prop::collection::vec(slug(), 0..3);
    let mode = prop::sample::select(vec![ServiceMode::Normal, ServiceMode::Inspection]);
    let step = prop_oneof![
        2 => (state, slug()).prop_map(|(state, slug)| Step::Event(state, slug)),
        1 => list().prop_map(Step::Active),
        5 => (prop::option::weighted(0.8, list()), prop::option::of(mode))
            .prop_map(|(list, mode)| Step::Reading(list, mode)),
    ];
    prop::collection::vec((step, any::<bool>()), 1..24)
}

/// The log as messages of an elevator: numbered or not, in two boots, `apart` milliseconds from one another. Some of
/// those without a number name no boot.
fn items(log: &[(Step, bool)], elevator: i64, apart: i64) -> Vec<Item> {
    let one = |(index, (step, numbered)): (usize, &(Step, bool))| {
        let number = index as i64 + 1;
        let names_none = index % 3 == 0 && (!numbered || matches!(step, Step::Active(_)));
        let boot = if names_none { 0 } else { 7 + u32::from(index > 12) };
        let at = number * apart;
        let seq = if *numbered { number } else { -number };
        match step {
            Step::Event(state, slug) => event(elevator, boot, seq, at, slug, *state),
            Step::Active(list) => active(elevator, boot, at, list),
            Step::Reading(list, mode) => {
                readings(elevator, boot, at, vec![shows(seq, at, list.as_deref(), *mode)])
            }
        }
    };
    log.iter().enumerate().map(one).collect()
}

#[tokio::test]
async fn readings_and_events_in_any_order_end_in_the_same_periods() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut straight = writer(&database);
    let mut alone = writer(&database);
    let careful = || writer(&database).believing_faults_for(Duration::ZERO);
    let (mut first, mut second) = (careful(), careful());
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let rounds: i64 = std::env::var("LIFTWATCH_TEST_ROUNDS").map_or(24, |rounds| rounds.parse().unwrap());
    for round in 0..rounds {
        let log = any_log().new_tree(&mut runner).unwrap().current();
        let apart = if round % 2 == 0 { 1_000 } else { 150_000 };
        let of = |kind: i64| items(&log, round * 4 + kind, apart);
        for item in of(1) {
            straight.commit(&[item]).await.unwrap();
        }
        straight.commit(&of(2)).await.unwrap();
        // Repetition mends, too: only every third round has it.
        let times = 1 + usize::from(round % 3 == 0);
        let order: Vec<usize> = (0..times).flat_map(|_| 0..log.len()).collect();
        let order = Just(order).prop_shuffle().new_tree(&mut runner).unwrap().current();
        let (one, two) = (of(3), of(4));
        for (index, part) in order.chunks(1 + round as usize % 3).enumerate() {
            let of = |items: &[Item]| part.iter().map(|index| items[*index].clone()).collect::<Vec<_>>();
            alone.commit(&of(&one)).await.unwrap();
            if index % 2 == 0 { &mut first } else { &mut second }.commit(&of(&two)).await.unwrap();
        }
        let expected = periods(&database, round * 4 + 1).await;
        for kind in 2..=4 {
            let found = periods(&database, round * 4 + kind).await;
            assert_eq!(found, expected, "round {round}, way {kind}: {log:?} in {order:?}");
        }
    }
}

/// `{"active":[...]}` without a boot made all that boot 7 said afterwards come before it: an open entrapment was
/// over at once, and a close did not count.
#[tokio::test]
async fn a_list_that_names_no_boot_stands_by_its_time() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut writer = writer(&database);
    writer.commit(&[readings(1, 7, 1_000, vec![listing(1, 1_000, &[])])]).await.unwrap();
    writer.commit(&[event(1, 7, 2, 2_000, "power_off", EventState::Open)]).await.unwrap();
    let list = timeless(1, 0, 3_000, &["power_off", "door_open_fault"]);
    let report = writer.commit(std::slice::from_ref(&list)).await.unwrap();
    assert_eq!(report.fault_statements, 4, "followed straight: {report:?}");
    writer.commit(&[event(1, 7, 3, 4_000, "power_off", EventState::Close)]).await.unwrap();
    let report = writer.commit(&[event(1, 7, 4, 5_000, "entrapment", EventState::Open)]).await.unwrap();
    assert_eq!(report.fault_statements, 4, "and what comes after it too: {report:?}");
    let power_off = ("power_off".to_owned(), 2_000, Some(4_000), OpenedBy::Event, Some(ClosedBy::Event));
    let entrapment = ("entrapment".to_owned(), 5_000, None, OpenedBy::Event, None);
    let expected = [power_off, by_list("door_open_fault", 3_000, None), entrapment];
    assert_eq!(brief(&database, 1).await, expected);

    // In another order, by another writer.
    let mut other = crate::common::writer(&database);
    for item in [
        event(2, 7, 4, 5_000, "entrapment", EventState::Open),
        timeless(2, 0, 3_000, &["power_off", "door_open_fault"]),
        event(2, 7, 3, 4_000, "power_off", EventState::Close),
        readings(2, 7, 1_000, vec![listing(1, 1_000, &[])]),
        event(2, 7, 2, 2_000, "power_off", EventState::Open),
    ] {
        other.commit(&[item]).await.unwrap();
    }
    assert_eq!(brief(&database, 2).await, expected);
}

/// A clock set back at a restart: where boots overlap in time, no occurrence is lost by how messages were cut.
#[tokio::test]
async fn boots_that_overlap_in_time_keep_their_occurrences() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut writer = writer(&database);
    let pairs = |boot: u32, begin: i64, of: std::ops::Range<i64>, arrives: i64| {
        let one = |number: i64| {
            let (open, close) = (begin + number * 600_000, begin + number * 600_000 + 180_000);
            [(2 * number + 1, open, EventState::Open), (2 * number + 2, close, EventState::Close)]
        };
        let event = |(seq, at, state)| FaultEvent {
            seq: Seq(seq),
            time: at_ms(at),
            code: Code::canonical("entrapment").unwrap(),
            state,
        };
        let events = of.flat_map(one).map(event).collect();
        said(1, arrives, Message::Event(EventBatch { boot: BootId(boot), sent: None, events, active: None }))
    };
    let now = 50_000_000;
    writer.commit(&[pairs(60, 0, 0..30, now)]).await.unwrap();
    for (part, arrives) in [(0..7, 1), (7..13, 2), (13..30, 3)] {
        writer.commit(&[pairs(61, 864_000, part, now + arrives)]).await.unwrap();
    }
    assert_eq!(brief(&database, 1).await.len(), 60);
}

/// A list of active faults that tells no time, as it arrives.
fn timeless(elevator: i64, boot: u32, at: i64, slugs: &[&str]) -> Item {
    let active = Some(codes(slugs));
    said(elevator, at, Message::Event(EventBatch { boot: BootId(boot), sent: None, events: vec![], active }))
}

#[tokio::test]
async fn a_timeless_list_is_no_repetition_once_readings_have_changed_what_is_open() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut writer = writer(&database);
    let stored = async |writer: &mut Writer, item: Item| writer.commit(&[item]).await.unwrap().rows_stored;
    let door = ["door_open_fault"].as_slice();
    assert_eq!(stored(&mut writer, timeless(1, 7, 1_000, door)).await, 1);
    assert_eq!(stored(&mut writer, timeless(1, 7, 2_000, door)).await, 0, "the same again");
    // A reading takes it up, and the next one no longer names it: it has ended.
    writer.commit(&[readings(1, 7, 3_000, vec![listing(1, 3_000, door)])]).await.unwrap();
    writer.commit(&[readings(1, 7, 4_000, vec![listing(2, 4_000, &[])])]).await.unwrap();
    assert_eq!(stored(&mut writer, timeless(1, 7, 100_000, door)).await, 1, "and is back");
    assert_eq!(stored(&mut writer, timeless(1, 7, 101_000, door)).await, 0);
    let opened = |opened, closed| by_list("door_open_fault", opened, closed);
    assert_eq!(brief(&database, 1).await, [opened(1_000, Some(4_000)), opened(100_000, None)]);

    // The reading and the list in one batch.
    let ends = readings(1, 7, 200_000, vec![listing(3, 199_000, door), listing(4, 200_000, &[])]);
    let report = writer.commit(&[ends, timeless(1, 7, 201_000, door)]).await.unwrap();
    assert_eq!((report.rows_stored, report.rows_repeated), (3, 0));
    let found = brief(&database, 1).await;
    assert_eq!(found[1..], [opened(100_000, Some(200_000)), opened(201_000, None)]);
}

#[tokio::test]
async fn a_terminal_that_counts_in_its_codes_is_left_out_and_counted_and_costs_what_is_new() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut writer = writer(&database);
    let unknown = |number: i64| Code {
        raw: format!("c{number}").into(),
        fault: domain::fault_by_slug("unknown_code").unwrap(),
    };
    let open = |from: i64, count: i64| -> Vec<Item> {
        let one = |seq: i64| {
            let (time, code) = (at_ms(seq * 10), unknown(seq));
            let events = vec![FaultEvent { seq: Seq(seq), time, code, state: EventState::Open }];
            let batch = EventBatch { boot: BootId(7), sent: Some(time), events, active: None };
            said(1, seq * 10, Message::Event(batch))
        };
        (from..from + count).map(one).collect()
    };
    let report = writer.commit(&open(1, 250)).await.unwrap();
    assert_eq!((report.rows_stored, report.faults_left_out), (250, 0));
    let report = writer.commit(&open(251, 100)).await.unwrap();
    assert_eq!((report.rows_stored, report.faults_left_out), (100, 94));
    let touched = "SELECT count(*) FROM fault_period WHERE xmax::text <> '0'";
    assert_eq!(count(&database, touched).await, 0, "what stays as it is, is not written again");
    assert_eq!(database.faults_open(ElevatorId(1)).await.unwrap().len(), domain::fault_period::OPEN_MAX);
    assert_eq!(count(&database, "SELECT count(*) FROM fault").await, 350, "their rows are there");
    // Out of order: all of it once more.
    let report = writer.commit(&open(-5, 1)).await.unwrap();
    assert_eq!(report.rows_stored, 1);
    assert_eq!(database.faults_open(ElevatorId(1)).await.unwrap().len(), domain::fault_period::OPEN_MAX);
}

#[tokio::test]
async fn periods_are_made_anew_from_the_newest_rows_that_are_followed_at_most() {
    let test = TestDatabase::new().await;
    // Seconds of work in one commit, on a slow machine many.
    let patient = StoreConfig { commit_timeout: Duration::from_mins(10), ..StoreConfig::default() };
    let database = test.open_with(patient).await;
    let mut first = writer(&database);
    first.commit(&[event(1, 7, 1, 0, "power_off", EventState::Once)]).await.unwrap();
    // A fault that comes and goes each second, for 100,010 s; its periods are not there.
    let rows = "INSERT INTO fault (elevator_id, time, arrived, seq, arrival_no, source, age_ms, item, state, code, slug)
                SELECT 1, fault.time + n * INTERVAL '1 second', fault.time + n * INTERVAL '1 second', n + 1, n, source,
                       0, 0, 2 - n % 2, 'power_off', 'power_off'
                FROM fault, generate_series(1, 100010) AS n";
    sqlx::query(rows).execute(database.pool()).await.unwrap();
    // One more that is late.
    let late = event(1, 7, 200_000, -500, "entrapment", EventState::Once);
    let report = writer(&database).commit(&[late]).await.unwrap();
    assert_eq!((report.rows_stored, report.faults_left_out), (1, 1));
    let found =
        count(&database, "SELECT count(*) FROM fault_period WHERE code = 'power_off' AND closed > opened")
            .await;
    assert_eq!(found, 50_000, "of 50,005");
    assert_eq!(count(&database, "SELECT count(*) FROM fault_period").await, 50_001, "the first of all stays");
}

#[tokio::test]
async fn the_first_list_of_a_terminal_is_followed_without_reading_its_rows() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut writer = writer(&database);
    let lists: Vec<Item> = (1..=50).map(|elevator| active(elevator, 7, 1_000, &["power_off"])).collect();
    let report = writer.commit(&lists).await.unwrap();
    assert_eq!((report.rows_stored, report.fault_statements), (50, 5), "for all of them");
    assert_eq!(brief(&database, 50).await, [by_list("power_off", 1_000, None)]);

    // Nor is it with readings beside it: what comes with the list was not heard before it.
    let beside = (51..=100).flat_map(|elevator| {
        let shown = vec![listing(1, 990, &[]), listing(2, 1_010, &["power_off"]), listing(3, 1_020, &[])];
        [active(elevator, 7, 1_000, &["power_off"]), readings(elevator, 7, 1_030, shown)]
    });
    let report = writer.commit(&beside.collect::<Vec<Item>>()).await.unwrap();
    assert_eq!((report.rows_stored, report.fault_statements), (200, 5), "for all of them");
    assert_eq!(brief(&database, 100).await, [by_list("power_off", 1_000, Some(1_020))]);

    // Of a terminal that an earlier version has heard, its rows are read.
    let earlier = "UPDATE source SET first_seen = '2020-01-01'";
    sqlx::query(earlier).execute(database.pool()).await.unwrap();
    sqlx::query("DELETE FROM fault_head").execute(database.pool()).await.unwrap();
    sqlx::query("DELETE FROM fault_period").execute(database.pool()).await.unwrap();
    let mut other = crate::common::writer(&database);
    let again = event(50, 7, 3, 2_000, "door_open_fault", EventState::Open);
    assert!(other.commit(&[again]).await.unwrap().fault_statements > 5);
    assert_eq!(brief(&database, 50).await.len(), 2, "the list is followed as well");
}

#[tokio::test]
async fn a_backlog_of_many_beside_open_faults_is_looked_at_in_one_statement() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut writer = writer(&database);
    let day = 86_400_000;
    let lists: Vec<Item> = (1..=50).map(|elevator| active(elevator, 7, day, &["power_off"])).collect();
    writer.commit(&lists).await.unwrap();
    let quiet = |elevator: i64| {
        let shown = (0..20).map(|at| listing(at - 100, at * 1_000, &[])).collect();
        readings(elevator, 7, day + 1_000, shown)
    };
    let report = writer.commit(&(1..=50).map(quiet).collect::<Vec<_>>()).await.unwrap();
    assert_eq!((report.rows_stored, report.fault_statements), (1_000, 1));

    // The one that shows something is followed, and no other.
    let shown = vec![listing(-80, 30_000, &["entrapment"]), listing(-79, 31_000, &[])];
    let report = writer.commit(&[readings(1, 7, day + 2_000, shown), quiet(2)]).await.unwrap();
    assert_eq!((report.rows_stored, report.fault_statements), (2, 1 + 4 + 4));
    let found = brief(&database, 1).await;
    assert_eq!(found[0], by_list("entrapment", 30_000, Some(31_000)));
    assert_eq!(found.len(), 2);

    // A terminal that has never had a fault is believed so by the next process.
    writer.commit(&[active(60, 7, day, &[])]).await.unwrap();
    let mut next = crate::common::writer(&database);
    let shown = (0..20).map(|at| listing(at - 100, at * 1_000, &[])).collect();
    let report = next.commit(&[readings(60, 7, day + 1_000, shown)]).await.unwrap();
    assert_eq!((report.rows_stored, report.fault_statements), (20, 1), "where it stands");
}
