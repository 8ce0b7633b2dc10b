//! Things break; what was acknowledged is there, once.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use simulator::{Fleet, FleetConfig, FleetHandle, FleetReport, Rate};
use sqlx::Connection;
use store::testing::{TestCluster, TestDatabase};

use crate::harness::{PATIENCE, Server, eventually};

/// A fleet that sends 1,000 readings a second over 50 connections.
async fn fleet(server: &Server, ledger: &Path) -> FleetHandle {
    let config = FleetConfig {
        target: server.addresses.broker.to_string(),
        terminals: 50,
        rate: Rate::PerSecond(1_000.0),
        acked_file: Some(ledger.to_owned()),
        drain: PATIENCE,
        ..FleetConfig::default()
    };
    Fleet::start(config).await.expect("the fleet starts")
}

/// Waits until so many more readings are acknowledged than at the call.
async fn acked_more(fleet: &FleetHandle, count: u64) {
    let begin = fleet.counters().items_acked;
    eventually("readings are acknowledged", async || {
        (fleet.counters().items_acked >= begin + count).then_some(())
    })
    .await;
}

/// Every acknowledged (terminal, boot, seq) of telemetry is exactly one row, and there is no other row.
async fn reconcile(url: &str, report: &FleetReport, ledger: &Path) {
    assert_eq!(report.unacked, 0, "everything was acknowledged in the end: {report}");
    let mut connection = sqlx::PgConnection::connect(url).await.expect("connect");
    let rows: Vec<(String, i64, i64)> = sqlx::query_as(
        "SELECT terminal_id, boot, seq
         FROM telemetry
         JOIN source USING (source)",
    )
    .fetch_all(&mut connection)
    .await
    .expect("rows");
    let count = rows.len();
    let stored: HashSet<_> = rows.into_iter().collect();
    assert_eq!(stored.len(), count, "no reading twice");
    assert!(report.ledger_complete);
    let ledger = std::fs::read_to_string(ledger).expect("the ledger");
    let mut acked = HashSet::new();
    for line in ledger.lines().filter(|line| line.ends_with(",telemetry")) {
        let fields: Vec<_> = line.split(',').collect();
        let number = |index: usize| fields[index].parse::<i64>().expect("a number");
        let key = (fields[0].to_owned(), number(1), number(2));
        assert!(stored.contains(&key), "acknowledged, but not stored: {key:?}");
        acked.insert(key);
    }
    let acked = acked.len();
    assert!(acked > 2_000, "the load was real: {acked}");
    assert_eq!(acked, count, "every row was acknowledged");
    let quarantined: i64 = sqlx::query_scalar("SELECT count(*) FROM quarantine")
        .fetch_one(&mut connection)
        .await
        .expect("count");
    assert_eq!(quarantined, 0);
}

#[tokio::test]
async fn three_kills_under_load_lose_nothing_and_double_nothing() {
    let database = TestDatabase::new().await;
    let mut server = Server::start(database.url()).await;
    let ledger = tempfile::NamedTempFile::new().expect("a file");
    let fleet = fleet(&server, ledger.path()).await;
    acked_more(&fleet, 500).await;
    for _ in 0..3 {
        server.kill();
        server.restart().await;
        acked_more(&fleet, 1_000).await;
    }
    let report = fleet.stop().await;
    assert!(report.counts.reconnects >= 3 * 50, "every terminal was cut off three times: {report}");
    reconcile(database.url(), &report, ledger.path()).await;
}

#[tokio::test]
async fn a_stop_under_load_loses_nothing_and_exits_0() {
    let database = TestDatabase::new().await;
    let mut server = Server::start(database.url()).await;
    let ledger = tempfile::NamedTempFile::new().expect("a file");
    let fleet = fleet(&server, ledger.path()).await;
    acked_more(&fleet, 2_000).await;
    let status = server.terminate().await;
    assert!(status.success(), "{status}");
    server.restart().await;
    acked_more(&fleet, 500).await;
    let report = fleet.stop().await;
    reconcile(database.url(), &report, ledger.path()).await;
}

#[tokio::test]
async fn a_database_away_for_five_seconds_loses_nothing() {
    let cluster = TestCluster::new().await;
    let server = Server::start(cluster.url()).await;
    let ledger = tempfile::NamedTempFile::new().expect("a file");
    let fleet = fleet(&server, ledger.path()).await;
    acked_more(&fleet, 2_000).await;
    cluster.kill().await;
    eventually("the server notices", async || (server.get("/readyz").await.0 == 503).then_some(())).await;
    // Five seconds without: the fault itself, not a wait for something.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(server.get("/livez").await.0, 200, "the server lives on");
    assert_eq!(fleet.counters().connected, 50, "connections are kept");
    cluster.start().await;
    acked_more(&fleet, 5_000).await;
    let report = fleet.stop().await;
    reconcile(cluster.url(), &report, ledger.path()).await;
}

#[tokio::test]
async fn a_stop_while_the_database_is_away_ends_in_time_and_loses_nothing() {
    let cluster = TestCluster::new().await;
    let mut server = Server::start(cluster.url()).await;
    let ledger = tempfile::NamedTempFile::new().expect("a file");
    let fleet = fleet(&server, ledger.path()).await;
    acked_more(&fleet, 2_000).await;
    cluster.kill().await;
    eventually("the server notices", async || (server.get("/readyz").await.0 == 503).then_some(())).await;
    let status = server.terminate().await;
    assert!(status.success(), "{status}");
    cluster.start().await;
    server.restart().await;
    acked_more(&fleet, 2_000).await;
    let report = fleet.stop().await;
    reconcile(cluster.url(), &report, ledger.path()).await;
}
