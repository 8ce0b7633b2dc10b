//! A start continues where the last run was cut.

use std::sync::Arc;
use std::time::Duration;

use alerting::Config;
use alerting::engine::Input;
use domain::{
    AlarmId, ArrivalNo, BootId, CarStatus, DoorState, ElevatorId, Field, Message, Passengers, Reading, Seq,
    ServiceMode, TelemetryBatch,
};
use prometheus_client::registry::Registry;
use store::testing::TestDatabase;
use store::{
    Database, FleetFilter, Incoming, Item, LatestStates, Queries, QueryConfig, QueryMetrics, StoreMetrics,
    Writer,
};

use crate::common::{Running, TestClock, at, config, input, start, terminal, within};

const ELEVATOR: i64 = 7;

/// People enter, the door closes, the car leaves and stops between floors at 20 s.
fn story() -> Vec<Input> {
    let reading = |no: i64, seconds: i64, change: &dyn Fn(&mut Reading)| {
        let mut reading = Reading::new(Seq(no), at(seconds));
        reading.service_mode = Field::Known(ServiceMode::Normal);
        reading.passengers = Field::Known(Passengers::Yes);
        reading.car_status = Field::Known(CarStatus::Stopped);
        reading.door_zone = Field::Known(true);
        reading.door_state = Field::Known(DoorState::Closed);
        change(&mut reading);
        let batch = TelemetryBatch {
            boot: BootId(1),
            sent: Some(at(seconds)),
            prev_boot_last_seq: None,
            dropped: None,
            readings: vec![reading],
        };
        input(ELEVATOR, no, seconds, Message::Telemetry(batch))
    };
    vec![
        reading(1, 0, &|reading| reading.door_state = Field::Known(DoorState::Closed)),
        reading(2, 1, &|reading| reading.door_state = Field::Known(DoorState::Open)),
        reading(3, 4, &|reading| reading.door_state = Field::Known(DoorState::Closed)),
        reading(4, 16, &|reading| {
            reading.car_status = Field::Known(CarStatus::Running);
            reading.door_zone = Field::Known(false);
        }),
        reading(5, 20, &|reading| reading.door_zone = Field::Known(false)),
    ]
}

async fn write(database: &Database, inputs: &[Input]) {
    let metrics = Arc::new(StoreMetrics::register(&mut Registry::default()));
    let mut writer = Writer::new(database, metrics);
    let items: Vec<Item> = inputs
        .iter()
        .filter_map(|input| {
            let Input::Message { elevator_id, terminal_id, arrival, message, .. } = input else {
                return None;
            };
            Some(Item::Message(Incoming {
                elevator_id: *elevator_id,
                terminal_id: terminal_id.clone(),
                arrival: *arrival,
                message: Arc::clone(message),
            }))
        })
        .collect();
    writer.commit(&items).await.unwrap();
}

async fn only_alarm(database: &Database) -> Option<AlarmId> {
    let events = database.alarm_events_after(0, 10).await.unwrap();
    assert!(events.len() <= 1, "{events:#?}");
    events.first().map(|event| event.alarm.id)
}

async fn the_alarm(database: &Database) -> AlarmId {
    let raised = async {
        loop {
            if let Some(id) = only_alarm(database).await {
                return id;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within(raised).await
}

fn expected() -> AlarmId {
    let kind = "entrapment_between_floors";
    AlarmId::derive(ElevatorId(ELEVATOR), kind, &terminal(ELEVATOR), BootId(1), Seq(5), 0)
}

async fn tell(running: &Running, inputs: Vec<Input>) {
    for input in inputs {
        running.submit(input).await;
    }
}

/// Waits until the state covers this arrival.
async fn saved(database: &Database, no: i64) {
    let saved = async {
        loop {
            let state = database.state_get(ElevatorId(ELEVATOR)).await.unwrap();
            if state.is_some_and(|state| state.arrival.no.0 >= no) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within(saved).await;
}

async fn registered() -> (TestDatabase, Database) {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    register(&database).await;
    (test, database)
}

/// Gives the story's elevator its id.
async fn register(database: &Database) {
    let registry = store::Registry::load(database).await.unwrap();
    let area = crate::common::area();
    for elevator in 1..=ELEVATOR {
        registry.register(&[(terminal(elevator), area)]).await.unwrap();
    }
    assert_eq!(registry.lookup(terminal(ELEVATOR).as_str()).unwrap().elevator_id, ElevatorId(ELEVATOR));
}

#[tokio::test]
async fn without_a_restart_e1_raises_after_30_s() {
    let (_test, database) = registered().await;
    let clock = TestClock::new(at(0));
    let running = start(&database, &clock, config()).await;
    tell(&running, story()).await;
    clock.set(at(49));
    saved(&database, 5).await;
    assert_eq!(only_alarm(&database).await, None);
    clock.set(at(50));
    assert_eq!(the_alarm(&database).await, expected());
}

#[tokio::test]
async fn who_follows_the_fleet_hears_of_what_a_deadline_changes() {
    let (_test, database) = registered().await;
    let clock = TestClock::new(at(0));
    let running = start(&database, &clock, config()).await;
    tell(&running, story()).await;
    clock.set(at(49));
    saved(&database, 5).await;
    let queries = Queries::new(&database, &QueryConfig::default(), Arc::new(QueryMetrics::default()));
    let since =
        |changed_since| LatestStates { filter: FleetFilter::All, changed_since, after: None, limit: 10 };
    let covered = queries.latest_states(&since(None)).await.unwrap().covered;
    assert_eq!(covered, ArrivalNo(5));
    assert!(queries.latest_states(&since(Some(covered))).await.unwrap().states.is_empty());
    clock.set(at(50));
    let heard = async {
        while queries.latest_states(&since(Some(covered))).await.unwrap().states.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within(heard).await;
    queries.close().await;
}

#[tokio::test]
async fn a_saved_timer_survives_a_crash() {
    let (_test, database) = registered().await;
    let clock = TestClock::new(at(0));
    let running = start(&database, &clock, config()).await;
    tell(&running, story()).await;
    clock.set(at(30));
    saved(&database, 5).await;
    running.crash();

    let _running = start(&database, &clock, config()).await;
    clock.set(at(49));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(only_alarm(&database).await, None, "not before its time");
    clock.set(at(51));
    assert_eq!(the_alarm(&database).await, expected());
    let event = &database.alarm_events_after(0, 1).await.unwrap()[0];
    assert_eq!(event.at, at(50), "decided when it was due");
}

#[tokio::test]
async fn an_unsaved_timer_is_replayed_from_the_rows() {
    let (_test, database) = registered().await;
    let clock = TestClock::new(at(0));
    // Only the first three messages are covered by a saved state; the others are rows.
    let running = start(&database, &clock, config()).await;
    let story = story();
    write(&database, &story).await;
    tell(&running, story[..3].to_vec()).await;
    saved(&database, 3).await;
    running.crash();
    let never = Config { checkpoint_every: Duration::from_hours(1), ..config() };
    let running = start(&database, &clock, never).await;
    clock.set(at(30));
    running.crash();

    // The time comes while nobody runs: raised at the start, as of when it was due.
    clock.set(at(70));
    let running = start(&database, &clock, config()).await;
    assert_eq!(the_alarm(&database).await, expected());
    assert_eq!(database.alarm_events_after(0, 1).await.unwrap()[0].at, at(50));
    // What the terminal sends again because nobody acknowledged it changes nothing.
    tell(&running, story[3..].to_vec()).await;
    running.stop().await;
    assert_eq!(only_alarm(&database).await, Some(expected()));
    let state = database.state_get(ElevatorId(ELEVATOR)).await.unwrap().unwrap();
    assert_eq!(state.car_status, Some(CarStatus::Stopped));
    assert!(database.engine_position_get().await.unwrap().0 >= 5);
}

#[tokio::test]
async fn an_alarm_without_its_saved_state_is_not_raised_twice() {
    let (_test, database) = registered().await;
    let clock = TestClock::new(at(0));
    let never = Config { checkpoint_every: Duration::from_hours(1), ..config() };
    let running = start(&database, &clock, never).await;
    write(&database, &story()).await;
    tell(&running, story()).await;
    clock.set(at(51));
    assert_eq!(the_alarm(&database).await, expected());
    running.crash();
    assert_eq!(database.engine_position_get().await.unwrap().0, 0, "nothing was saved");

    let running = start(&database, &clock, config()).await;
    saved(&database, 5).await;
    running.stop().await;
    assert_eq!(only_alarm(&database).await, Some(expected()));
}
