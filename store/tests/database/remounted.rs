//! Occurrences of faults of a terminal that moves to another elevator: each elevator's are judged by what is known
//! of that elevator, also where a batch holds readings of both.

use std::sync::Arc;

use domain::{
    Arrival, ArrivalNo, BootId, Code, ElevatorId, EventBatch, EventState, FaultEvent, Field, Message,
    Reading, Seq, ServiceMode, TelemetryBatch,
};
use store::testing::TestDatabase;
use store::{Database, Incoming, Item};

use crate::common::*;

/// Terminal `t1` at an elevator, in message number `at`, `at` seconds after noon.
fn said(elevator: i64, at: i64, message: Message) -> Item {
    Item::Message(Incoming {
        elevator_id: ElevatorId(elevator),
        terminal_id: terminal("t1"),
        arrival: Arrival { no: ArrivalNo(at), at: at_ms(at * 1_000) },
        message: Arc::new(message),
    })
}

/// A reading of normal service with this list of active faults.
fn lists(elevator: i64, at: i64, slugs: &[&str]) -> Item {
    let mut reading = Reading::new(Seq(at), at_ms(at * 1_000));
    reading.codes = Field::Known(slugs.iter().map(|slug| Code::canonical(slug).unwrap()).collect());
    reading.service_mode = Field::Known(ServiceMode::Normal);
    let batch = TelemetryBatch {
        boot: BootId(7),
        sent: Some(at_ms(at * 1_000)),
        prev_boot_last_seq: None,
        dropped: None,
        readings: vec![reading],
    };
    said(elevator, at, Message::Telemetry(batch))
}

fn opens(elevator: i64, at: i64, slug: &str) -> Item {
    let (time, code) = (at_ms(at * 1_000), Code::canonical(slug).unwrap());
    let events = vec![FaultEvent { seq: Seq(at), time, code, state: EventState::Open }];
    let batch = EventBatch { boot: BootId(7), sent: Some(time), events, active: None };
    said(elevator, at, Message::Event(batch))
}

/// (Elevator, fault, opened, closed), in seconds after noon.
async fn periods(database: &Database) -> Vec<(i64, String, i64, Option<i64>)> {
    sqlx::query_as(
        "SELECT elevator_id, slug, extract(epoch FROM opened - $1)::int8, extract(epoch FROM closed - $1)::int8
         FROM fault_period
         ORDER BY elevator_id, opened",
    )
    .bind(noon().to_utc())
    .fetch_all(database.pool())
    .await
    .unwrap()
}

fn period(elevator: i64, slug: &str, opened: i64, closed: Option<i64>) -> (i64, String, i64, Option<i64>) {
    (elevator, slug.to_owned(), opened, closed)
}

#[tokio::test]
async fn a_fault_of_the_old_elevator_ends_though_the_new_one_has_none() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut writer = writer(&database);
    writer.commit(&[lists(1, 1, &["entrapment"])]).await.unwrap();
    assert_eq!(periods(&database).await, [period(1, "entrapment", 1, None)]);
    writer.commit(&[lists(1, 2, &[]), lists(2, 3, &[])]).await.unwrap();
    assert_eq!(periods(&database).await, [period(1, "entrapment", 1, Some(2))]);
}

#[tokio::test]
async fn a_fault_of_the_old_elevator_begins_though_the_new_one_has_it_already() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut writer = writer(&database);
    writer.commit(&[lists(2, 1, &["entrapment"])]).await.unwrap();
    writer.commit(&[lists(1, 2, &[])]).await.unwrap();
    writer.commit(&[lists(1, 3, &["entrapment"]), lists(2, 4, &["entrapment"])]).await.unwrap();
    let expected = [period(1, "entrapment", 3, None), period(2, "entrapment", 1, None)];
    assert_eq!(periods(&database).await, expected);
}

#[tokio::test]
async fn what_one_elevator_showed_is_not_taken_for_what_the_other_did() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut writer = writer(&database);
    for at in [1, 10, 30] {
        writer.commit(&[lists(2, at, &[])]).await.unwrap();
    }
    // Late, and of both: what is remembered is the one's, what is followed is the other's.
    writer.commit(&[lists(1, 5, &[]), lists(2, 6, &["entrapment"])]).await.unwrap();
    assert_eq!(periods(&database).await, [period(2, "entrapment", 6, Some(10))]);
    // Later than what was followed; but at 30 s a reading showed normal service.
    writer.commit(&[opens(2, 20, "inspection_mode")]).await.unwrap();
    let expected = [period(2, "entrapment", 6, Some(10)), period(2, "inspection_mode", 20, Some(30))];
    assert_eq!(periods(&database).await, expected);
}
