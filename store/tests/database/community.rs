//! What only the Community edition has: continuous aggregates, the columnstore, policies. Runs where
//! `LIFTWATCH_TEST_COMMUNITY_URL` names such a server; says SKIPPED otherwise.

use std::sync::Arc;
use std::time::Duration;

use domain::{ArrivalNo, ElevatorId, Field, Reading, Seq, Timestamp};
use store::testing::TestDatabase;
use store::{
    Database, ElevatorSeries, FleetMinute, Item, Kept, MaintenanceReport, Queries, QueryConfig, QueryMetrics,
    Retention, SeriesField, StoreConfig, recovery,
};

use crate::common::*;

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// The beginning of the hour before last, by the clock of the policies.
fn recent() -> Timestamp {
    let now = Timestamp::from(time::OffsetDateTime::now_utc()).minus(2 * HOUR);
    Timestamp::from_micros(now.micros() / 3_600_000_000 * 3_600_000_000)
}

fn now() -> Timestamp {
    time::OffsetDateTime::now_utc().into()
}

/// Schema ensured, and no job of the server runs by itself: the tests call them, and a refresh that another
/// session is at is not done when the call returns.
async fn open(test: &TestDatabase, config: StoreConfig) -> Database {
    let database = Database::connect_with(test.url(), config).await.unwrap();
    sqlx::query("SELECT _timescaledb_functions.stop_background_workers()")
        .execute(database.pool())
        .await
        .unwrap();
    database.ensure().await.unwrap();
    database
}

fn config() -> StoreConfig {
    StoreConfig { chunk_interval: HOUR, ..StoreConfig::default() }
}

/// Runs the server's jobs of this kind.
async fn jobs(database: &Database, kind: &str) {
    let ids: Vec<i32> = sqlx::query_scalar(
        "SELECT job_id FROM timescaledb_information.jobs WHERE proc_name = $1 ORDER BY job_id",
    )
    .bind(kind)
    .fetch_all(database.pool())
    .await
    .unwrap();
    assert!(!ids.is_empty(), "no {kind}");
    for id in ids {
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("CALL run_job({id})")))
            .execute(database.pool())
            .await
            .unwrap();
    }
}

const REFRESH: &str = "policy_refresh_continuous_aggregate";
const COLUMNSTORE: &str = "policy_compression";

async fn run(database: &Database, at: Timestamp) -> MaintenanceReport {
    let report = database.maintenance_run(at).await.unwrap();
    assert!(report.failed.is_empty(), "{:?}", report.failed);
    report
}

fn moving(seq: i64, time: Timestamp) -> Reading {
    let mut reading = Reading::new(Seq(seq), time);
    reading.velocity_mm_s = Field::Known((seq % 2_000) as i32);
    reading.position_mm = Field::Known(seq as i32);
    reading.load_kg = Field::Known((seq % 900) as i16);
    reading
}

fn message(elevator: i64, arrival: i64, readings: Vec<Reading>) -> Item {
    let Item::Message(mut message) = telemetry(elevator, arrival, readings) else { panic!() };
    message.arrival.at = now();
    Item::Message(message)
}

/// `count` readings of each of three elevators, a minute apart, from `from` on.
async fn fill(database: &Database, arrival: i64, from: Timestamp, count: i64) {
    let items: Vec<Item> = (1..=3)
        .map(|elevator| {
            let time = |at: i64| from.plus(Duration::from_secs(at as u64 * 60));
            let readings = (0..count).map(|at| moving(arrival * 10_000 + at, time(at))).collect();
            message(elevator, arrival * 10 + elevator, readings)
        })
        .collect();
    let report = writer(database).commit(&items).await.unwrap();
    assert_eq!(report.rows_stored, 3 * count as u64, "{report:?}");
}

/// TimescaleDB 2.29 refuses a refresh whose window another session is at, and earlier ones wait for it.
#[tokio::test]
async fn a_window_that_a_policy_is_at_is_looked_at_again_later() {
    let name = "a_window_that_a_policy_is_at_is_looked_at_again_later";
    let Some(test) = TestDatabase::community(name).await else { return };
    let database = open(&test, config()).await;
    fill(&database, 1, recent().minus(20 * DAY), 90).await;
    let registers: bool = sqlx::query_scalar(
        "SELECT to_regclass('_timescaledb_catalog.continuous_aggs_jobs_refresh_ranges') IS NOT NULL",
    )
    .fetch_one(database.pool())
    .await
    .unwrap();
    if !registers {
        eprintln!("SKIPPED {name}: this TimescaleDB does not register its refreshes");
        return;
    }
    // As a policy's session does while it is at all of the minutes.
    let mut policy = database.connection().await.unwrap();
    sqlx::query(
        "INSERT INTO _timescaledb_catalog.continuous_aggs_jobs_refresh_ranges
             (materialization_id, start_range, end_range, pid, job_id, created_at)
         SELECT mat_hypertable_id, -9223372036854775807, 9223372036854775806, pg_backend_pid(), 0, now()
         FROM _timescaledb_catalog.continuous_agg
         WHERE user_view_name = 'telemetry_1m'",
    )
    .execute(&mut policy)
    .await
    .unwrap();
    let report = run(&database, now()).await;
    assert!(report.more, "{report:?}");
    assert_ne!(rollup_differences(&database).await, (0, 0), "nothing was refreshed");
    // A registration counts while its session lives.
    sqlx::Connection::close(policy).await.unwrap();
    run(&database, now().plus(2 * HOUR)).await;
    assert_eq!(rollup_differences(&database).await, (0, 0));
}

#[tokio::test]
async fn aggregates_follow_what_comes_late() {
    let Some(test) = TestDatabase::community("aggregates_follow_what_comes_late").await else { return };
    let database = open(&test, config()).await;
    let base = recent();
    // Within what the policies look back at, and beyond it.
    let starts = [base.minus(3 * HOUR), base.minus(2 * DAY), base.minus(20 * DAY), base.minus(100 * DAY)];
    for (at, start) in (1..).zip(starts) {
        fill(&database, at, start, 90).await;
    }
    jobs(&database, REFRESH).await;
    let report = run(&database, now()).await;
    assert!(report.windows_refreshed >= 2 * 90, "{report:?}");
    assert_eq!(rollup_differences(&database).await, (0, 0));

    for (at, start) in (11..).zip(starts) {
        fill(&database, at, start.plus(Duration::from_secs(7)), 30).await;
    }
    assert_ne!(rollup_differences(&database).await, (0, 0), "late readings are not there before a refresh");
    jobs(&database, REFRESH).await;
    run(&database, now().plus(2 * HOUR)).await;
    assert_eq!(rollup_differences(&database).await, (0, 0));
}

#[tokio::test]
async fn the_columnstore_takes_late_readings_and_gives_back_what_it_took() {
    let name = "the_columnstore_takes_late_readings_and_gives_back_what_it_took";
    let Some(test) = TestDatabase::community(name).await else { return };
    let database = open(&test, config()).await;
    let old = recent().minus(20 * DAY);
    fill(&database, 1, old, 120).await;
    fill(&database, 2, recent(), 30).await;
    jobs(&database, REFRESH).await;
    run(&database, now()).await;

    let queries = Queries::new(&database, &QueryConfig::default(), Arc::new(QueryMetrics::default()));
    let series = ElevatorSeries {
        elevator_id: ElevatorId(1),
        from: old,
        to: old.plus(3 * HOUR),
        points: 500,
        fields: vec![SeriesField::PositionMm],
    };
    let minute = FleetMinute { minute: old.plus(HOUR), regions: vec![] };
    let ask = async || {
        let mut fleet = Vec::new();
        queries.fleet_minute(&minute, |reading| fleet.push(reading)).await.unwrap();
        fleet.sort_by_key(|reading| reading.elevator_id.0);
        format!("{:?} {fleet:?}", queries.elevator_series(&series).await.unwrap())
    };
    let rows_before = recovery::rows_after(&database, ArrivalNo(0)).all().await.unwrap();
    let answers_before = ask().await;

    jobs(&database, COLUMNSTORE).await;
    let compressed = count(
        &database,
        "SELECT count(*) FROM timescaledb_information.chunks WHERE is_compressed AND hypertable_name = 'telemetry'",
    )
    .await;
    assert_eq!(compressed, 2, "two hours of old readings; the new ones stay in the rowstore");
    assert_eq!(recovery::rows_after(&database, ArrivalNo(0)).all().await.unwrap(), rows_before);
    let after_some = recovery::rows_after(&database, rows_before[0].arrival.no).all().await.unwrap();
    assert_eq!(after_some, rows_before[1..]);
    assert_eq!(ask().await, answers_before);
    queries.close().await;

    // Late ones, some of them again, one that says something else under a known key.
    let mut late: Vec<Reading> =
        (0..60).map(|at| moving(50_000 + at, old.plus(Duration::from_secs(at as u64 * 60 + 3)))).collect();
    late.extend((0..10).map(|at| moving(10_000 + at, old.plus(Duration::from_secs(at as u64 * 60)))));
    late[65].load_kg = Field::Known(899);
    let report = writer(&database).commit(&[message(2, 99, late)]).await.unwrap();
    assert_eq!((report.rows_stored, report.rows_repeated, report.quarantined), (60, 9, 1), "{report:?}");
    assert_eq!(quarantined(&database, "key_conflict").await, 1);
    run(&database, now().plus(2 * HOUR)).await;
    assert_eq!(rollup_differences(&database).await, (0, 0));
    // The job puts what came late into the columnstore, too.
    jobs(&database, COLUMNSTORE).await;
    assert_eq!(rollup_differences(&database).await, (0, 0));
    assert_eq!(database.reading_count().await.unwrap(), 3 * 150 + 60);
}

/// (Kind, table) of each job with a setting of it.
async fn settings(database: &Database) -> Vec<(i32, String, String)> {
    sqlx::query_as(
        "SELECT job_id, proc_name::text,
                coalesce(config->>'compress_after', config->>'start_offset')::interval::text
         FROM timescaledb_information.jobs
         WHERE job_id >= 1000
           AND hypertable_name IS NOT NULL
         ORDER BY 1",
    )
    .fetch_all(database.pool())
    .await
    .unwrap()
}

#[tokio::test]
async fn policies_are_made_once_and_follow_the_configuration() {
    let Some(test) = TestDatabase::community("policies_are_made_once_and_follow_the_configuration").await
    else {
        return;
    };
    let database = open(&test, config()).await;
    let first = settings(&database).await;
    let seconds = async |database: &Database, days: u32| {
        let found: Vec<(String, i64)> = sqlx::query_as(
            "SELECT proc_name::text,
                    (extract(epoch FROM coalesce(config->>'compress_after', config->>'start_offset')::interval)
                     / 86400)::int8
             FROM timescaledb_information.jobs
             WHERE job_id >= 1000 AND hypertable_name IS NOT NULL",
        )
        .fetch_all(database.pool())
        .await
        .unwrap();
        assert!(found.iter().all(|(_, after)| *after == i64::from(days)), "{found:?}");
        assert_eq!(found.iter().filter(|(kind, _)| kind == REFRESH).count(), 2, "{found:?}");
        found.len()
    };
    let jobs_made = seconds(&database, 7).await;
    assert!(jobs_made >= 6, "{first:?}");
    database.ensure().await.unwrap();
    assert_eq!(settings(&database).await, first, "ensuring again changes nothing");
    database.close().await;

    let database = open(&test, StoreConfig { columnstore_after: 14 * DAY, ..config() }).await;
    assert_eq!(seconds(&database, 14).await, jobs_made);
    database.close().await;
    let database = open(&test, StoreConfig { columnstore_after: 3 * DAY, ..config() }).await;
    assert_eq!(seconds(&database, 3).await, jobs_made);
}

#[tokio::test]
async fn rollups_outlive_their_readings() {
    let Some(test) = TestDatabase::community("rollups_outlive_their_readings").await else { return };
    let database = open(&test, config()).await;
    let days = [60, 30, 3];
    for (at, day) in (1..).zip(days) {
        fill(&database, at, recent().minus(day * DAY), 60).await;
    }
    jobs(&database, REFRESH).await;
    run(&database, now()).await;
    assert_eq!(rollup_differences(&database).await, (0, 0));
    jobs(&database, COLUMNSTORE).await;
    database.close().await;

    let sums = "SELECT (SELECT sum(readings) FROM telemetry_1m)::int8 * 1000
                       + (SELECT sum(readings) FROM telemetry_1h)::int8";
    let shorter = Retention::default().with(Kept::Telemetry, 40 * DAY);
    let database = open(&test, StoreConfig { retention: shorter, ..config() }).await;
    assert_eq!(run(&database, now().plus(2 * HOUR)).await.chunks_dropped, 1);
    assert_eq!(database.reading_count().await.unwrap(), 2 * 180);
    assert_eq!(count(&database, sums).await, 540_540);
    database.close().await;

    // More is kept again: nothing may be refreshed where readings are gone.
    let database = open(&test, StoreConfig { columnstore_after: 100 * DAY, ..config() }).await;
    jobs(&database, REFRESH).await;
    run(&database, now().plus(4 * HOUR)).await;
    assert_eq!(count(&database, sums).await, 540_540);
}

#[tokio::test]
async fn a_division_may_keep_less_also_in_the_columnstore() {
    let Some(test) = TestDatabase::community("a_division_may_keep_less_also_in_the_columnstore").await else {
        return;
    };
    let retention = Retention::default().with_division("350102".parse().unwrap(), Kept::Telemetry, 15 * DAY);
    let database = open(&test, StoreConfig { retention, ..config() }).await;
    sqlx::query("INSERT INTO elevator (elevator_id, area) VALUES (1, 350102), (2, 360102), (3, 360102)")
        .execute(database.pool())
        .await
        .unwrap();
    for (at, day) in (1..).zip([20, 14, 2]) {
        fill(&database, at, recent().minus(day * DAY), 60).await;
    }
    jobs(&database, REFRESH).await;
    // Nobody refreshes below the shortest retention: what lies there came with the first refresh, or never.
    for view in ["telemetry_1m", "telemetry_1h"] {
        let sql = format!("CALL refresh_continuous_aggregate('{view}', NULL, NULL)");
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(database.pool()).await.unwrap();
    }
    assert_eq!(rollup_differences(&database).await, (0, 0));
    jobs(&database, COLUMNSTORE).await;
    let report = run(&database, now()).await;
    assert_eq!(report.division_rows_dropped, 60, "{report:?}");
    assert_eq!(database.reading_count().await.unwrap(), 3 * 180 - 60);
    let of_one = "SELECT sum(readings)::int8 FROM telemetry_1m WHERE elevator_id = 1";
    jobs(&database, REFRESH).await;
    run(&database, now().plus(2 * HOUR)).await;
    assert_eq!(count(&database, of_one).await, 180, "rollups stay");
}

#[tokio::test]
async fn status_tells_of_columnstore_and_jobs() {
    let Some(test) = TestDatabase::community("status_tells_of_columnstore_and_jobs").await else { return };
    let database = open(&test, config()).await;
    fill(&database, 1, recent().minus(20 * DAY), 240).await;
    // Nobody vacuums what goes to the columnstore.
    sqlx::raw_sql("DELETE FROM telemetry WHERE elevator_id = 3; SELECT pg_stat_force_next_flush()")
        .execute(database.pool())
        .await
        .unwrap();
    fill(&database, 2, recent(), 30).await;
    jobs(&database, REFRESH).await;
    run(&database, now()).await;
    jobs(&database, COLUMNSTORE).await;
    let table = async |name: &str| {
        let tables = database.status().await.unwrap().tables;
        tables.into_iter().find(|table| table.name == name).unwrap()
    };
    assert_eq!(table("telemetry").await.dead_rows, 0, "those went with the rowstore");
    sqlx::raw_sql("SELECT pg_stat_reset()").execute(database.pool()).await.unwrap();
    assert!(table("telemetry").await.rows_estimate >= Some(2 * 240), "before anybody analyses");
    sqlx::raw_sql("ANALYZE").execute(database.pool()).await.unwrap();
    let status = database.status().await.unwrap();
    assert_eq!(status.edition, "community");
    let table = |name: &str| status.tables.iter().find(|table| table.name == name).unwrap();
    let telemetry = table("telemetry");
    assert_eq!(telemetry.rows_estimate, Some(2 * 240 + 3 * 30));
    assert_eq!((telemetry.chunks, telemetry.columnstore_chunks), (Some(5), Some(4)));
    assert!(telemetry.columnstore_ratio().is_some());
    assert!(table("telemetry_1m").columnstore_chunks > Some(0), "{:?}", table("telemetry_1m"));
    assert!(table("telemetry_1h").total_bytes > 0);
    assert!(status.rollups.minutes_to > Some(recent()), "{:?}", status.rollups);
    assert!(status.jobs.iter().any(|job| job.table.as_deref() == Some("telemetry_1h")), "{:?}", status.jobs);
    assert!(status.jobs.iter().all(|job| !job.failed_last), "{:?}", status.jobs);
    assert!(serde_json::to_string(&status).unwrap().contains("\"columnstore_chunks\":4"));
}
