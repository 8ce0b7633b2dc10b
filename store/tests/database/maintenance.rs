//! Rolling up, late readings, and retention.

use std::time::Duration;

use domain::{CarStatus, Field, Reading, Timestamp};
use store::testing::TestDatabase;
use store::{Database, Edition, Item, StoreConfig};

use crate::common::*;

/// Minutes of the rollup: (minutes after noon, readings, running, fastest).
async fn minutes(database: &Database) -> Vec<(i64, i64, i64, Option<i32>)> {
    sqlx::query_as(
        "SELECT (extract(epoch FROM bucket - $1) / 60)::int8, readings, running, velocity_mm_s_max
         FROM telemetry_1m
         ORDER BY bucket, elevator_id",
    )
    .bind(noon().to_utc())
    .fetch_all(database.pool())
    .await
    .unwrap()
}

fn moving(seq: i64, second: i64, velocity_mm_s: i32) -> Reading {
    let mut reading = reading(seq);
    reading.time = at_ms(second * 1000);
    reading.car_status = Field::Known(CarStatus::Running);
    reading.velocity_mm_s = Field::Known(velocity_mm_s);
    reading
}

#[tokio::test]
async fn minutes_are_rolled_up_and_late_readings_correct_them() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    if database.edition().await.unwrap() == Edition::Community {
        return; // there, the server's own jobs do it
    }
    let mut writer = writer(&database);
    let later = |minutes| noon().plus(Duration::from_mins(minutes));
    assert_eq!(database.maintenance_run(noon()).await.unwrap().stretches, 0, "nothing to roll up");

    writer
        .commit(&[telemetry(1, 1, vec![moving(1, 0, -1500), reading(2), moving(3, 61, 200)])])
        .await
        .unwrap();
    let report = database.maintenance_run(later(6)).await.unwrap();
    assert_eq!(report.stretches, 1);
    assert_eq!(
        minutes(&database).await,
        [(0, 2, 1, Some(1500))],
        "the second minute is not over long enough"
    );

    // Two hours later one comes that is late for the first minute.
    database.maintenance_run(later(120)).await.unwrap();
    let Item::Message(mut late) = telemetry(1, 2, vec![moving(4, 30, 1700)]) else { panic!() };
    late.arrival.at = later(120);
    writer.commit(&[Item::Message(late)]).await.unwrap();
    let report = database.maintenance_run(later(121)).await.unwrap();
    assert_eq!(report.late_hours, 1);
    assert_eq!(minutes(&database).await, [(0, 3, 2, Some(1700)), (1, 1, 1, Some(200))]);
    let report = database.maintenance_run(later(121)).await.unwrap();
    assert_eq!((report.stretches, report.late_hours), (0, 0), "done is done");
}

#[tokio::test]
async fn what_is_older_than_the_retention_is_let_go() {
    let test = TestDatabase::new().await;
    let day = Duration::from_hours(24);
    let config = StoreConfig {
        retention: 10 * day,
        chunk_interval: Duration::from_hours(1),
        ..StoreConfig::default()
    };
    let database = test.open_with(config).await;
    let mut old = reading(1);
    old.time = noon().minus(9 * day);
    writer(&database).commit(&[telemetry(1, 1, vec![old, reading(2)])]).await.unwrap();
    let run = |now: Timestamp| database.maintenance_run(now);
    assert_eq!(run(noon()).await.unwrap().chunks_dropped, 0);
    assert_eq!(run(noon().plus(2 * day)).await.unwrap().chunks_dropped, 1);
    assert_eq!(database.reading_count().await.unwrap(), 1);
    assert_eq!(run(noon().plus(2 * day)).await.unwrap().chunks_dropped, 0);
}

#[tokio::test]
async fn one_process_at_a_time() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut other = database.connection().await.unwrap();
    sqlx::query("SELECT pg_advisory_lock(hashtext('liftwatch maintenance'))")
        .execute(&mut other)
        .await
        .unwrap();
    assert!(database.maintenance_run(noon()).await.unwrap().elsewhere);
    drop(other);
}

#[tokio::test]
async fn counts_tell_what_there_is() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    writer(&database).commit(&[telemetry(1, 1, vec![reading(1)])]).await.unwrap();
    let registry = store::Registry::load(&database).await.unwrap();
    registry.register(&[(terminal("a"), "350102".parse().unwrap())]).await.unwrap();
    let counts = database.counts().await.unwrap();
    assert_eq!((counts.elevators, counts.terminals, counts.quarantined), (1, 1, 0));
    assert_eq!(database.reading_count().await.unwrap(), 1);
    assert_eq!(database.fault_count().await.unwrap(), 0);
}
