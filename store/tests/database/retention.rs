//! Letting go: whole chunks, rows of divisions that keep less, and what only grows. Rollups outlive readings.

use std::time::Duration;

use domain::{Reading, Seq, Timestamp};
use store::testing::TestDatabase;
use store::{Database, Item, Kept, Retention, Step, StoreConfig};

use crate::common::*;

const DAY: Duration = Duration::from_hours(24);

/// Ahead of every clock, so that only what the test says is late.
fn begin() -> Timestamp {
    "2090-03-01T00:00:00Z".parse().unwrap()
}

fn day(days: u32) -> Timestamp {
    begin().plus(days * DAY)
}

fn config(retention: Retention) -> StoreConfig {
    StoreConfig { retention, chunk_interval: Duration::from_hours(1), ..StoreConfig::default() }
}

fn telemetry_for(days: u32) -> Retention {
    Retention::default().with(Kept::Telemetry, days * DAY)
}

/// One reading of `time` that arrives at `at`.
async fn store_reading(database: &Database, elevator: i64, seq: i64, time: Timestamp, at: Timestamp) {
    let reading = Reading::new(Seq(seq), time);
    let Item::Message(mut message) = telemetry(elevator, seq, vec![reading]) else { panic!() };
    message.arrival.at = at;
    let report = writer(database).commit(&[Item::Message(message)]).await.unwrap();
    assert_eq!(report.rows_stored, 1, "{report:?}");
}

/// (Minutes, hours) rolled up of an elevator, as sums of readings.
async fn rolled_up(database: &Database, elevator: i64) -> (i64, i64) {
    sqlx::query_as(
        "SELECT (SELECT coalesce(sum(readings), 0)::int8 FROM telemetry_1m WHERE elevator_id = $1),
                (SELECT coalesce(sum(readings), 0)::int8 FROM telemetry_1h WHERE elevator_id = $1)",
    )
    .bind(elevator)
    .fetch_one(database.pool())
    .await
    .unwrap()
}

async fn run(database: &Database, at: Timestamp) -> store::MaintenanceReport {
    let report = database.maintenance_run(at).await.unwrap();
    assert!(report.failed.is_empty(), "{:?}", report.failed);
    report
}

#[tokio::test]
async fn what_is_older_than_the_retention_is_let_go() {
    let test = TestDatabase::new().await;
    let day = DAY;
    let database = test.open_with(config(telemetry_for(10))).await;
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
async fn rollups_outlive_their_readings_and_what_comes_after_does_not_change_them() {
    let test = TestDatabase::new().await;
    let database = test.open_with(config(telemetry_for(10))).await;
    for seq in 0..5 {
        store_reading(&database, 1, seq, day(0).plus(Duration::from_secs(seq as u64)), day(0)).await;
    }
    store_reading(&database, 1, 10, day(12), day(12)).await;
    run(&database, day(1)).await;
    assert_eq!(rolled_up(&database, 1).await, (5, 5));
    run(&database, day(6)).await;
    assert_eq!(run(&database, day(12)).await.chunks_dropped, 1);
    assert_eq!(database.reading_count().await.unwrap(), 1);
    assert_eq!(rolled_up(&database, 1).await, (5, 5));

    // Now more is kept, and a reading of the hour that is gone comes: stored, but the hour stays as it was.
    database.close().await;
    let database = test.open_with(config(telemetry_for(20))).await;
    for seq in 20..30 {
        store_reading(&database, 1, seq, day(0).plus(Duration::from_secs(seq as u64)), day(13)).await;
    }
    let report = run(&database, day(13)).await;
    assert_eq!(report.late_hours, 1);
    assert_eq!(rolled_up(&database, 1).await, (6, 6), "five of the first hour, one of day 12");
}

#[tokio::test]
async fn a_division_may_keep_less_and_its_rollups_stay() {
    let test = TestDatabase::new().await;
    let retention = telemetry_for(30).with_division("350100".parse().unwrap(), Kept::Telemetry, 5 * DAY);
    let database = test.open_with(config(retention)).await;
    sqlx::query("INSERT INTO elevator (elevator_id, area) VALUES (1, 350102), (2, 360102), (3, 350100)")
        .execute(database.pool())
        .await
        .unwrap();
    for elevator in 1..=3 {
        for days in [0, 1, 8] {
            for seq in 0..20 {
                let time = day(days).plus(Duration::from_secs(seq * 60));
                store_reading(&database, elevator, i64::from(days) * 100 + seq as i64, time, time).await;
            }
        }
    }
    let report = run(&database, day(9)).await;
    assert_eq!(report.division_rows_dropped, 2 * 40);
    assert_eq!(report.chunks_dropped, 0);
    let left = count(&database, "SELECT count(*) FROM telemetry WHERE elevator_id = 2").await;
    assert_eq!((left, database.reading_count().await.unwrap()), (60, 100));
    for elevator in 1..=3 {
        assert_eq!(rolled_up(&database, elevator).await, (60, 60));
    }
    assert_eq!(run(&database, day(9).plus(DAY / 12)).await.division_rows_dropped, 0, "done is done");

    // A late reading of a day that is gone changes no rollup, and is itself gone within a week.
    store_reading(&database, 1, 900, day(1).plus(Duration::from_millis(1)), day(9)).await;
    assert_eq!(run(&database, day(10)).await.division_rows_dropped, 0);
    assert_eq!(rolled_up(&database, 1).await, (60, 60));
    let report = run(&database, day(17)).await;
    assert_eq!(report.division_rows_dropped, 1 + 2 * 20, "the late one, and what fell due since");
    assert_eq!(rolled_up(&database, 1).await, (60, 60));

    // Only what all keep for less goes as a whole.
    for days in [24, 30] {
        assert_eq!(run(&database, day(days)).await.chunks_dropped, 0);
    }
    assert_eq!(run(&database, day(32)).await.chunks_dropped, 2);
    assert_eq!(database.reading_count().await.unwrap(), 20);
}

#[tokio::test]
async fn an_elevator_that_moved_keeps_the_rollups_of_what_its_old_division_let_go() {
    let test = TestDatabase::new().await;
    let retention = telemetry_for(30).with_division("350102".parse().unwrap(), Kept::Telemetry, 5 * DAY);
    let database = test.open_with(config(retention)).await;
    sqlx::query("INSERT INTO elevator (elevator_id, area) VALUES (1, 350102)")
        .execute(database.pool())
        .await
        .unwrap();
    let mut fast = Reading::new(Seq(1), day(0));
    fast.velocity_mm_s = domain::Field::Known(1_500);
    let Item::Message(mut message) = telemetry(1, 1, vec![fast]) else { panic!() };
    message.arrival.at = day(0);
    writer(&database).commit(&[Item::Message(message)]).await.unwrap();
    store_reading(&database, 1, 2, day(9), day(9)).await;
    assert_eq!(run(&database, day(10)).await.division_rows_dropped, 1);

    sqlx::query("UPDATE elevator SET area = 360102").execute(database.pool()).await.unwrap();
    // As many readings of that minute as there were, and they say less.
    store_reading(&database, 1, 3, day(0).plus(Duration::from_secs(1)), day(10)).await;
    assert_eq!(run(&database, day(11)).await.late_hours, 1);
    for table in ["telemetry_1m", "telemetry_1h"] {
        let sql = format!("SELECT velocity_mm_s_max FROM {table} ORDER BY bucket LIMIT 1");
        let fastest: Option<i32> =
            sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(database.pool()).await.unwrap();
        assert_eq!(fastest, Some(1_500), "{table}");
    }
}

#[tokio::test]
async fn a_step_that_fails_stops_no_other_and_what_is_not_rolled_up_is_kept() {
    let test = TestDatabase::new().await;
    let database = test.open_with(config(telemetry_for(10))).await;
    store_reading(&database, 1, 1, day(0), day(0)).await;
    let quarantined = telemetry(1, 2, vec![Reading::new(Seq(2), day(900))]);
    writer(&database).commit(&[quarantined]).await.unwrap();
    assert_eq!(count(&database, "SELECT count(*) FROM quarantine").await, 1);
    sqlx::query("ALTER TABLE telemetry_1m ADD CONSTRAINT broken CHECK (elevator_id <> 1)")
        .execute(database.pool())
        .await
        .unwrap();
    let report = database.maintenance_run(day(400)).await.unwrap();
    assert!(matches!(report.failed[..], [(Step::Rollup, _)]), "{:?}", report.failed);
    assert_eq!((report.chunks_dropped, report.quarantine_dropped), (0, 1));
    assert_eq!(database.reading_count().await.unwrap(), 1);
    let (failures, error): (i64, Option<String>) =
        sqlx::query_as("SELECT failures, error FROM maintenance_step WHERE step = 'rollup'")
            .fetch_one(database.pool())
            .await
            .unwrap();
    assert_eq!(failures, 1);
    assert!(error.unwrap().contains("broken"));

    sqlx::query("ALTER TABLE telemetry_1m DROP CONSTRAINT broken").execute(database.pool()).await.unwrap();
    assert_eq!(run(&database, day(401)).await.chunks_dropped, 1);
    assert_eq!(rolled_up(&database, 1).await.1, 1);
}

#[tokio::test]
async fn what_only_grows_is_shortened_by_retention_alone() {
    let test = TestDatabase::new().await;
    let retention = Retention::default()
        .with(Kept::Suppression, 10 * DAY)
        .with(Kept::AlarmEvidence, 10 * DAY)
        .with(Kept::Downlink, DAY);
    let database = test.open_with(config(retention)).await;
    for sql in [
        "INSERT INTO suppression (at, began, elevator_id, rule_version, terminal_id, kind, rule, reason, trace)
         SELECT $1::timestamptz + days * INTERVAL '1 day', $1, 1, 1, 't', 'k', 'E1', 'r', ''
         FROM generate_series(0, 19) AS days",
        "INSERT INTO alarm (id, began, raised, cleared, elevator_id, seq, boot, no, area, severity, score, terminal_id,
                            kind, state, evidence)
         SELECT ('00000000-0000-0000-0000-00000000000' || n)::uuid, $1, $1, CASE n WHEN 1 THEN $1 END, 1, 1, 1, n, 1,
                1, 1, 't', 'k', CASE n WHEN 1 THEN 'archived' ELSE 'confirmed' END, '{}'
         FROM generate_series(1, 2) AS n",
        "INSERT INTO alarm_evidence (sealed, alarm_id, json, sha256)
         SELECT $1, id, '{}', sha256('') FROM alarm",
        "INSERT INTO downlink (created, expires, terminal_id, kind, actor) VALUES ($1, $1, 't', 'clock_set', 'a')",
    ] {
        sqlx::query(sql).bind(day(0).to_utc()).execute(database.pool()).await.unwrap();
    }
    let report = run(&database, day(20)).await;
    assert_eq!(report.records_dropped, 10 + 1, "ten notes, and the evidence of the alarm that is over");
    assert_eq!(report.downlinks_dropped, 1);
    let left =
        count(&database, "SELECT count(*) FROM alarm_evidence JOIN alarm ON id = alarm_id WHERE no = 2")
            .await;
    assert_eq!(left, 1);
    let refused = sqlx::query("DELETE FROM suppression").execute(database.pool()).await.unwrap_err();
    assert!(refused.to_string().contains("append-only"), "{refused}");
}

#[tokio::test]
async fn nothing_is_deleted_by_a_clock_that_leapt_ahead_until_it_has_gone_on_for_a_day() {
    let test = TestDatabase::new().await;
    let retention = telemetry_for(10).with_division("350100".parse().unwrap(), Kept::Telemetry, 5 * DAY);
    let database = test.open_with(config(retention)).await;
    sqlx::query("INSERT INTO elevator (elevator_id, area) VALUES (1, 350102)")
        .execute(database.pool())
        .await
        .unwrap();
    store_reading(&database, 1, 1, day(0), day(0)).await;
    run(&database, day(1)).await;
    let hour = Duration::from_hours(1);
    let leapt = run(&database, day(400)).await;
    assert_eq!(leapt.deleting_from, Some(day(401)));
    assert!(!leapt.steps.contains(&Step::Chunks) && !leapt.steps.contains(&Step::Divisions));
    run(&database, day(400).plus(23 * hour)).await;
    let codes: Vec<_> =
        database.status().await.unwrap().warnings.iter().map(|warning| warning.code).collect();
    assert!(codes.contains(&"clock_leapt"), "{codes:?}");
    assert_eq!(database.reading_count().await.unwrap(), 1);

    // Set right: everything goes on as before.
    let right = run(&database, day(3)).await;
    assert_eq!((right.deleting_from, right.rollup_lag), (None, Some(Duration::from_mins(5))));
    assert_eq!(database.reading_count().await.unwrap(), 1);
    assert_eq!(run(&database, day(6)).await.division_rows_dropped, 1);

    // It is so late indeed.
    store_reading(&database, 2, 1, day(6), day(6)).await;
    assert_eq!(run(&database, day(400)).await.chunks_dropped, 0);
    assert_eq!(run(&database, day(401)).await.chunks_dropped, 2);
}
