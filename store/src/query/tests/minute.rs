use domain::{Area, CarStatus, Code, DoorState, Floor};
use proptest::prelude::*;
use proptest::strategy::ValueTree;

use super::*;

async fn ask(queries: &Queries, question: &FleetMinute) -> Vec<MinuteReading> {
    let mut found = Vec::new();
    queries.fleet_minute(question, |reading| found.push(reading)).await.unwrap();
    assert!(found.is_sorted_by_key(|one| one.elevator_id));
    found
}

#[tokio::test]
async fn a_minute_holds_of_each_field_what_was_sent_last() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    register(&database, 3, &[350_102, 360_100]).await;
    let mut first = at_height(1, second(60), Field::Known(1_000));
    first.door_state = Field::Known(DoorState::Open);
    first.flags = Field::Known(Reading::FLAG_ALARM_BUTTON | Reading::FLAG_BATTERY_POWER);
    first.codes = Field::Known(vec![Code::canonical("door_open_long").unwrap()]);
    // In the same second as the next, whose number is higher.
    let mut second_reading = at_height(2, second(90), Field::Known(-5));
    second_reading.load_kg = Field::Known(75);
    let mut third = at_height(3, second(90), Field::Absent);
    third.load_kg = Field::Unknown;
    (third.flags, third.flags_told) = (Field::Known(0), Reading::FLAG_BATTERY_POWER);
    third.car_status = Field::Known(CarStatus::Running);
    let readings = vec![at_height(9, second(59), Field::Known(7)), first, second_reading, third];
    let other = |at| vec![at_height(1, second(at), Field::Known(3))];
    store(&database, &[incoming(1, 1, readings), incoming(2, 1, other(119)), incoming(3, 1, other(120))])
        .await;

    let queries = queries(&database);
    let found = ask(&queries, &FleetMinute { minute: second(77), regions: vec![] }).await;
    assert_eq!(
        found.iter().map(|one| (one.elevator_id.0, one.readings)).collect::<Vec<_>>(),
        [(1, 3), (2, 1)]
    );
    let mut expected = at_height(3, second(90), Field::Known(-5));
    expected.door_state = Field::Known(DoorState::Open);
    expected.flags = Field::Known(Reading::FLAG_ALARM_BUTTON);
    expected.car_status = Field::Known(CarStatus::Running);
    expected.load_kg = Field::Unknown;
    expected.codes = Field::Known(vec![Code::canonical("door_open_long").unwrap()]);
    assert_eq!(found[0].reading, expected);

    let region =
        |code: &str| FleetMinute { minute: second(60), regions: vec![code.parse::<Area>().unwrap()] };
    let ids = async |code| {
        ask(&queries, &region(code)).await.iter().map(|one| one.elevator_id.0).collect::<Vec<_>>()
    };
    assert_eq!(ids("350000").await, [1]);
    assert_eq!(ids("360100").await, [2]);
    assert_eq!(ids("370000").await, [0; 0]);
    queries.close().await;
}

#[tokio::test]
async fn a_minute_is_looked_for_in_one_chunk() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    for hours in [0, 6, 12, 18] {
        let at = |n: u64| second(hours * 3_600 + n * 5);
        let readings = |n: u64| vec![at_height(n.cast_signed(), at(n), Field::Known(1))];
        store(
            &database,
            &(0..500).map(|n| incoming(1 + n % 50, 1, readings(n.cast_unsigned()))).collect::<Vec<_>>(),
        )
        .await;
    }
    sqlx::query("ANALYZE telemetry").execute(database.pool()).await.unwrap();
    let queries = queries(&database);
    let question = FleetMinute { minute: second(6 * 3_600), regions: vec![] };
    let plan = queries.plan(&question).await.unwrap();
    assert_eq!(plan.chunks(), 1, "{:#}", plan.json);
    assert_eq!(ask(&queries, &question).await.len(), 12);
    queries.close().await;
}

/// The planner took the groups for a few and looked up 100,000 elevators by key: 10 s where they were not in memory.
#[tokio::test]
async fn a_minute_of_the_whole_fleet_is_never_looked_up_by_key() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let readings: Vec<_> =
        (0..4).map(|n| at_height(n, second(n.cast_unsigned() * 15), Field::Known(1))).collect();
    let fleet = (0..500).map(|elevator| incoming(1 + elevator, 1, readings.clone()));
    store(&database, &fleet.collect::<Vec<_>>()).await;
    // Where it has nothing better, the planner looks up whatever can be looked up.
    sqlx::raw_sql(
        "ANALYZE telemetry;
         DO $$ BEGIN
             EXECUTE format('ALTER DATABASE %I SET enable_hashjoin = off', current_database());
             EXECUTE format('ALTER DATABASE %I SET enable_mergejoin = off', current_database());
         END $$",
    )
    .execute(database.pool())
    .await
    .unwrap();
    let queries = queries(&database);
    let question = FleetMinute { minute: second(0), regions: vec![] };
    let plan = queries.plan(&question).await.unwrap();
    assert!(!plan.uses("telemetry_pkey"), "{:#}", plan.json);
    assert_eq!(ask(&queries, &question).await.len(), 500);
    queries.close().await;
}

fn sent<T: Clone + std::fmt::Debug>(value: impl Strategy<Value = T>) -> impl Strategy<Value = Field<T>> {
    prop_oneof![3 => Just(Field::Absent), 1 => Just(Field::Unknown), 3 => value.prop_map(Field::Known)]
}

/// Readings of one boot, its number first: often several of one second, and not always in the order of time.
fn boot() -> impl Strategy<Value = Vec<Reading>> {
    let codes = prop_oneof![
        Just(vec![]),
        Just(vec![Code::canonical("door_open_long").unwrap()]),
        Just(vec![Code { raw: "E7".into(), ..Code::canonical("door_open_long").unwrap() }]),
    ];
    let floor = (1..9).prop_map(|floor: i32| Floor::new(&floor.to_string()).unwrap());
    let reading = (
        0..75_u64,
        sent(-50..50_i32),
        sent(0..900_i16),
        sent(prop_oneof![Just(DoorState::Open), Just(DoorState::Closed)]),
        sent(any::<bool>()),
        sent(floor),
        sent(codes),
    );
    proptest::collection::vec(reading, 0..12).prop_map(|readings| {
        (1..)
            .zip(readings)
            .map(|(seq, (at, position, load, door, zone, floor, codes))| {
                let mut reading = at_height(seq, second(52 + at / 3 * 3), position);
                reading.load_kg = load;
                reading.door_state = door;
                reading.door_zone = zone;
                reading.floor = floor;
                reading.codes = codes;
                reading
            })
            .collect()
    })
}

/// Of each field the last that was sent, by looking at one field after the other.
fn folded(readings: &[&Reading]) -> Reading {
    let newest = readings[readings.len() - 1];
    let mut folded = Reading::new(newest.seq, newest.time);
    fn last<T: Clone>(readings: &[&Reading], field: impl Fn(&Reading) -> &Field<T>) -> Field<T> {
        let sent = readings.iter().rev().map(|reading| field(reading)).find(|field| field.is_sent());
        sent.cloned().unwrap_or_default()
    }
    folded.position_mm = last(readings, |reading| &reading.position_mm);
    folded.load_kg = last(readings, |reading| &reading.load_kg);
    folded.door_state = last(readings, |reading| &reading.door_state);
    folded.door_zone = last(readings, |reading| &reading.door_zone);
    folded.floor = last(readings, |reading| &reading.floor);
    folded.codes = last(readings, |reading| &reading.codes);
    folded
}

#[tokio::test]
async fn the_database_folds_as_a_loop_over_the_readings_does() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut expected = Vec::new();
    for elevator in 1..=150_i64 {
        // Two boots, the older one first, so that its source has the lower number.
        let boots = (boot(), boot()).new_tree(&mut runner).unwrap().current();
        let mut heard = Vec::new();
        for (number, readings) in [(1, boots.0), (2, boots.1)] {
            if readings.is_empty() {
                continue;
            }
            store(&database, &[incoming(elevator, number, readings.clone())]).await;
            let inside = |reading: &Reading| (second(60)..second(120)).contains(&reading.time);
            heard.extend(readings.into_iter().filter(inside).map(|reading| (number, reading)));
        }
        heard.sort_by_key(|(number, reading)| (reading.time, reading.seq, *number));
        let heard: Vec<_> = heard.iter().map(|(_, reading)| reading).collect();
        if !heard.is_empty() {
            let (elevator_id, readings) = (ElevatorId(elevator), heard.len() as i64);
            expected.push(MinuteReading { elevator_id, readings, reading: folded(&heard) });
        }
    }
    let queries = queries(&database);
    let found = ask(&queries, &FleetMinute { minute: second(60), regions: vec![] }).await;
    assert!(found.len() > 100, "{}", found.len());
    assert_eq!(found, expected);
    queries.close().await;
}
