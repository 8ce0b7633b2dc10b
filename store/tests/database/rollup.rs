//! Rollups by minute and by hour: whatever comes when, they end as what is stored says.

use std::time::Duration;

use domain::{CarStatus, DoorState, Field, Reading, Timestamp};
use store::testing::TestDatabase;
use store::{Database, Edition, Item};

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
    assert_eq!(report.late_hours_waiting, 0);
    assert_eq!(report.rollup_lag, Some(Duration::from_mins(5)));
}

/// Numbers that look random and are the same for a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// A reading of a random second of the first hours, with the minute in which it comes: mostly at once, some
/// minutes late, some hours late.
fn scattered(dice: &mut Dice, seq: i64, begin: Timestamp) -> (u64, i64, Reading) {
    let second = dice.below(5 * 3_600);
    let mut reading = Reading::new(domain::Seq(seq), begin.plus(Duration::from_secs(second)));
    reading.velocity_mm_s = Field::Known(dice.below(5_000) as i32 - 2_500);
    reading.load_kg =
        if dice.below(3) == 0 { Field::Unknown } else { Field::Known(dice.below(1_000) as i16) };
    reading.temperature_dc = Field::Known(dice.below(400) as i16);
    if dice.below(2) == 0 {
        reading.car_status = Field::Known(CarStatus::Running);
    }
    if dice.below(4) == 0 {
        reading.door_state = Field::Known(DoorState::Open);
    }
    let late_min = match dice.below(10) {
        0..=5 => 0,
        6..=7 => dice.below(15),
        _ => dice.below(9 * 60),
    };
    (second / 60 + late_min, 1 + dice.below(4) as i64, reading)
}

#[tokio::test]
async fn any_order_of_arrival_ends_in_what_is_stored() {
    // Ahead of every clock, so that what is early for the writer is early.
    let begin: Timestamp = "2090-03-01T00:00:00Z".parse().unwrap();
    for seed in 1..=6 {
        let test = TestDatabase::new().await;
        let database = test.open().await;
        if database.edition().await.unwrap() == Edition::Community {
            return; // has a test of its own
        }
        let mut writer = writer(&database);
        let mut dice = Dice(seed);
        let mut coming: Vec<_> = (0..250).map(|seq| scattered(&mut dice, seq, begin)).collect();
        coming.sort_by_key(|(minute, ..)| *minute);
        let mut clock = 0;
        for (no, (minute, elevator, reading)) in coming.into_iter().enumerate() {
            while clock < minute {
                clock += 1 + dice.below(40).min(minute - clock - 1);
                let report = database.maintenance_run(begin.plus(Duration::from_mins(clock))).await.unwrap();
                assert!(report.failed.is_empty(), "{:?}", report.failed);
            }
            let Item::Message(mut message) = telemetry(elevator, no as i64 + 1, vec![reading]) else {
                panic!()
            };
            message.arrival.at = begin.plus(Duration::from_mins(clock));
            // Some are delivered twice.
            for _ in 0..=dice.below(10) / 9 {
                writer.commit(&[Item::Message(message.clone())]).await.unwrap();
            }
        }
        database.maintenance_run(begin.plus(Duration::from_hours(16))).await.unwrap();
        assert_eq!(database.reading_count().await.unwrap(), 250);
        assert_eq!(rollup_differences(&database).await, (0, 0), "seed {seed}");
    }
}

#[tokio::test]
async fn a_stretch_without_anything_is_stepped_over() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let begin: Timestamp = "2090-03-01T00:00:00Z".parse().unwrap();
    let mut writer = writer(&database);
    for (no, day) in [0, 100].into_iter().enumerate() {
        let at = begin.plus(Duration::from_hours(24 * day));
        let reading = Reading::new(domain::Seq(no as i64), at);
        let Item::Message(mut message) = telemetry(1, no as i64 + 1, vec![reading]) else { panic!() };
        message.arrival.at = at;
        writer.commit(&[Item::Message(message)]).await.unwrap();
    }
    let report = database.maintenance_run(begin.plus(Duration::from_hours(24 * 101))).await.unwrap();
    assert!(report.stretches < 60, "{} stretches over 100 days with two hours of readings", report.stretches);
    assert_eq!(rollup_differences(&database).await, (0, 0));
}

/// One reading of the given second that arrives at once.
fn fresh(seq: i64, time: Timestamp) -> Item {
    let Item::Message(mut message) = telemetry(1, seq, vec![Reading::new(domain::Seq(seq), time)]) else {
        panic!()
    };
    message.arrival.at = time;
    Item::Message(message)
}

#[tokio::test]
async fn what_came_while_a_clock_was_ahead_is_rolled_up_when_it_is_set_right() {
    clock_ahead(true).await;
    clock_ahead(false).await;
}

/// With hours made before it is set right, or none yet.
async fn clock_ahead(hours_made: bool) {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let begin: Timestamp = "2090-03-01T00:50:00Z".parse().unwrap();
    let minute = |minutes: u64| begin.plus(Duration::from_mins(minutes));
    let mut writer = writer(&database);
    writer.commit(&[fresh(9, begin.minus(Duration::from_hours(2)))]).await.unwrap();
    writer.commit(&[fresh(1, begin)]).await.unwrap();
    // An hour ahead: minutes and hours that are not over yet count as done.
    database.maintenance_run(minute(70)).await.unwrap();
    if !hours_made {
        sqlx::raw_sql("DELETE FROM telemetry_1h; UPDATE rollup_position SET hours_to = NULL")
            .execute(database.pool())
            .await
            .unwrap();
    }
    writer.commit(&[fresh(2, minute(1)), fresh(3, minute(12))]).await.unwrap();
    assert_eq!(count(&database, "SELECT count(*) FROM rollup_late").await, 1, "one is late by itself");
    database.maintenance_run(minute(13)).await.unwrap();
    writer.commit(&[fresh(4, minute(14))]).await.unwrap();
    let report = database.maintenance_run(minute(80)).await.unwrap();
    assert_eq!(report.rollup_lag, Some(Duration::from_mins(5)));
    assert_eq!(rollup_differences(&database).await, (0, 0));
}

#[tokio::test]
async fn late_is_what_the_clock_of_the_database_calls_late() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    for sql in [
        "CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql
         AS $$ SELECT pg_catalog.clock_timestamp() + INTERVAL '1 hour' $$",
        "DO $$ BEGIN
             EXECUTE format('ALTER DATABASE %I SET search_path = public, pg_catalog', current_database());
         END $$",
    ] {
        sqlx::query(sql).execute(database.pool()).await.unwrap();
    }
    let now = Timestamp::from(time::OffsetDateTime::now_utc());
    writer(&database).commit(&[fresh(1, now)]).await.unwrap();
    assert_eq!(count(&database, "SELECT count(*) FROM rollup_late").await, 1);
}

#[tokio::test]
async fn a_writer_does_not_wait_for_hours_that_are_made_again() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let begin: Timestamp = "2090-03-01T00:00:00Z".parse().unwrap();
    let minute = move |minutes: u64| begin.plus(Duration::from_mins(minutes));
    let mut writer = writer(&database);
    let late = |seq: i64| {
        let Item::Message(mut message) = fresh(seq, minute(seq as u64)) else { panic!() };
        message.arrival.at = minute(200);
        Item::Message(message)
    };
    writer.commit(&[fresh(1, minute(1))]).await.unwrap();
    database.maintenance_run(minute(200)).await.unwrap();
    writer.commit(&[late(2)]).await.unwrap();

    let mut holder = database.pool().begin().await.unwrap();
    sqlx::query("LOCK telemetry_1h IN SHARE MODE").execute(&mut *holder).await.unwrap();
    let other = database.clone();
    let made = tokio::spawn(async move { other.maintenance_run(minute(201)).await });
    eventually(async || count(&database, "SELECT count(*) FROM rollup_late_taken").await == 1).await;
    let batch = [late(3)];
    let stored = tokio::time::timeout(Duration::from_secs(20), writer.commit(&batch));
    assert_eq!(stored.await.expect("it waited").unwrap().rows_stored, 1);
    holder.rollback().await.unwrap();
    let report = made.await.unwrap().unwrap();
    assert!(report.failed.is_empty(), "{:?}", report.failed);
    database.maintenance_run(minute(202)).await.unwrap();
    assert_eq!(count(&database, "SELECT count(*) FROM rollup_late_taken").await, 0);
    assert_eq!(rollup_differences(&database).await, (0, 0));
}

#[tokio::test]
async fn a_writer_that_is_killed_before_it_notes_a_late_reading_leaves_no_hole() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let begin: Timestamp = "2090-03-01T00:00:00Z".parse().unwrap();
    let minute = |minutes: u64| begin.plus(Duration::from_mins(minutes));
    let start = async || {
        let metrics = std::sync::Arc::new(store::LedgerMetrics::default());
        let mut ledger = store::Ledger::new(&database, domain::ArrivalNo(0), metrics.clone());
        let writer = writer(&database).with_ledger(ledger.notes());
        let task = tokio::spawn(ledger.run());
        caught_up(&metrics).await;
        (writer, task)
    };
    let (mut first, task) = start().await;
    first.commit(&[fresh(1, minute(1))]).await.unwrap();
    drop(first);
    task.await.unwrap();
    database.maintenance_run(minute(200)).await.unwrap();
    // Its rows are there; of its note and the ledger nothing is.
    let Item::Message(mut message) = fresh(2, minute(2)) else { panic!() };
    message.arrival.at = minute(200);
    writer(&database).commit(&[Item::Message(message)]).await.unwrap();
    sqlx::query("DELETE FROM rollup_late").execute(database.pool()).await.unwrap();

    let (next, task) = start().await;
    drop(next);
    task.await.unwrap();
    assert_eq!(database.maintenance_run(minute(201)).await.unwrap().late_hours, 1);
    assert_eq!(rollup_differences(&database).await, (0, 0));
}
