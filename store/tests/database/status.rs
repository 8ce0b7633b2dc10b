//! The state of a database as `db status` reads it.

use std::time::Duration;

use store::testing::{TestCluster, TestDatabase};
use store::{Database, Edition, StoreConfig};

use crate::common::*;

#[tokio::test]
async fn status_tells_of_tables_rollups_and_retention() {
    let test = TestDatabase::new().await;
    let config = StoreConfig { chunk_interval: Duration::from_hours(1), ..StoreConfig::default() };
    let database = test.open_with(config).await;
    if database.edition().await.unwrap() == Edition::Community {
        return; // has a test of its own
    }
    let readings: Vec<_> = (1..=500).map(reading).collect();
    writer(&database).commit(&[telemetry(1, 1, readings)]).await.unwrap();
    database.maintenance_run(noon().plus(Duration::from_mins(20))).await.unwrap();
    sqlx::raw_sql("ANALYZE").execute(database.pool()).await.unwrap();
    let status = database.status().await.unwrap();
    assert_eq!(status.edition, "apache");
    assert!(status.postgresql.starts_with("17"), "{}", status.postgresql);
    assert_eq!(status.schema.applied, Some(status.schema.known));
    let table = |name: &str| status.tables.iter().find(|table| table.name == name).unwrap();
    let telemetry = table("telemetry");
    assert_eq!((telemetry.chunks, telemetry.chunk_interval_s), (Some(1), Some(3_600)));
    assert_eq!(telemetry.rows_estimate, Some(500));
    assert_eq!(telemetry.oldest, Some(noon()));
    assert!(telemetry.heap_bytes > 0 && telemetry.index_bytes > 0);
    assert!(telemetry.total_bytes >= telemetry.heap_bytes + telemetry.index_bytes);
    assert_eq!(table("telemetry_1m").rows_estimate, Some(1));
    assert_eq!(table("audit").chunks, None);
    assert_eq!(status.rollups.minutes_to, Some(noon().plus(Duration::from_mins(15))));
    assert_eq!(status.rollups.hours_to, Some(noon()));
    let kept = status.retention.iter().find(|kept| kept.table == "telemetry").unwrap();
    // The readings are of a certain day: after half a year their chunk is due.
    let is_due = kept.cutoff >= noon().plus(Duration::from_hours(1));
    assert_eq!((kept.days, kept.chunks_due), (180, Some(i64::from(is_due))));
    let due = noon().plus(Duration::from_hours(180 * 24 + 1));
    assert_eq!(kept.next_due, (!is_due).then_some(due));
    let step = status.maintenance.iter().find(|step| step.step == "chunks").unwrap();
    assert_eq!((step.runs, step.failures), (1, 0));
    assert!(status.jobs.is_empty());
    assert!(status.server.database_bytes > 0 && status.server.connections_max > 0);
    assert_eq!(status.server.settings["fsync"], "on");
    serde_json::to_string(&status).unwrap();
}

#[tokio::test]
async fn status_works_on_a_schema_that_is_not_made_yet_and_on_an_older_one() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    sqlx::raw_sql(
        "DELETE FROM _sqlx_migrations WHERE version = 8;
         DROP TABLE retention_mark, maintenance_step",
    )
    .execute(database.pool())
    .await
    .unwrap();
    let status = database.status().await.unwrap();
    assert_eq!(status.schema.pending, [8]);
    assert!(status.warnings.iter().any(|warning| warning.code == "schema_pending"));
    assert!(status.maintenance.is_empty());

    let scratch = store::ScratchDatabase::create(test.url(), "liftwatch_statustest").await.unwrap();
    let empty = Database::connect(scratch.url()).await.unwrap();
    sqlx::raw_sql("SET client_min_messages = warning; CREATE EXTENSION timescaledb")
        .execute(empty.pool())
        .await
        .unwrap();
    let status = empty.status().await.unwrap();
    assert_eq!(status.schema.applied, None);
    assert!(status.tables.is_empty());
    empty.close().await;
    scratch.remove().await.unwrap();
}

#[tokio::test]
async fn settings_are_those_of_the_server_and_of_no_other_database() {
    let cluster = TestCluster::new().await;
    let database = Database::connect(cluster.url()).await.unwrap();
    for sql in ["CREATE DATABASE other", "ALTER DATABASE other SET synchronous_commit = local"] {
        sqlx::query(sql).execute(database.pool()).await.unwrap();
    }
    let status = database.status().await.unwrap();
    assert_eq!(status.server.settings["synchronous_commit"], "on");
    let shown: String = sqlx::query_scalar("SHOW shared_buffers").fetch_one(database.pool()).await.unwrap();
    assert_eq!(status.server.settings["shared_buffers"], shown);
    for sql in ["ALTER SYSTEM SET synchronous_commit = off", "SELECT pg_reload_conf()"] {
        sqlx::query(sql).execute(database.pool()).await.unwrap();
    }
    // As the server reads its files again.
    eventually(async || {
        let status = database.status().await.unwrap();
        status.server.settings["synchronous_commit"] == "off"
            && status.warnings.iter().any(|warning| warning.code == "synchronous_commit_off")
    })
    .await;
    let ours: String =
        sqlx::query_scalar("SHOW synchronous_commit").fetch_one(database.pool()).await.unwrap();
    assert_eq!(ours, "on");
}
