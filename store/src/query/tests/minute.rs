use domain::{Area, CarStatus, Code, DoorState};

use super::*;

async fn ask(queries: &Queries, question: &FleetMinute) -> Vec<MinuteReading> {
    let mut found = Vec::new();
    queries.fleet_minute(question, |reading| found.push(reading)).await.unwrap();
    found.sort_by_key(|one| one.elevator_id);
    found
}

#[tokio::test]
async fn a_minute_holds_of_each_field_what_was_sent_last() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    register(&database, 3, &[350_102, 360_100]).await;
    let mut first = at_height(1, second(60), Field::Known(1_000));
    first.door_state = Field::Known(DoorState::Open);
    first.codes = Field::Known(vec![Code::canonical("door_open_long").unwrap()]);
    // In the same second as the next, whose number is higher.
    let mut second_reading = at_height(2, second(90), Field::Known(-5));
    second_reading.load_kg = Field::Known(75);
    let mut third = at_height(3, second(90), Field::Absent);
    third.load_kg = Field::Unknown;
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
