//! Things break; what was acknowledged is there, once.

use std::collections::HashSet;
use std::time::Duration;

use simulator::{Fleet, FleetConfig, FleetReport};
use sqlx::Connection;
use store::testing::{TestCluster, TestDatabase};

use crate::harness::{Server, eventually};

/// A fleet that sends 1,000 readings a second over 50 connections.
fn fleet(server: &Server) -> Fleet {
    let config = FleetConfig {
        broker: server.addresses.broker,
        terminals: 50,
        rate: Some(1_000.0),
        connect_per_s: 500,
        keep_ledger: true,
        ..FleetConfig::default()
    };
    Fleet::start(config).expect("the fleet starts")
}

/// Waits until so many more readings are acknowledged than at the call.
async fn acked_more(fleet: &Fleet, count: u64) {
    let begin = fleet.counters().readings_acked;
    eventually("readings are acknowledged", async || {
        (fleet.counters().readings_acked >= begin + count).then_some(())
    })
    .await;
}

/// Every acknowledged (terminal, boot, seq) of telemetry is exactly one row, and there is no other row.
async fn reconcile(url: &str, report: &FleetReport) {
    assert_eq!(report.counters.unacked, 0, "everything was acknowledged in the end: {report}");
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
    let mut acked = 0;
    for entry in report.acked.iter().filter(|entry| entry.kind == simulator::terminal::Kind::Telemetry) {
        for seq in entry.first_seq..=entry.last_seq {
            let key = (entry.terminal_id.to_string(), i64::from(entry.boot), seq);
            assert!(stored.contains(&key), "acknowledged, but not stored: {key:?}");
            acked += 1;
        }
    }
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
    let fleet = fleet(&server);
    acked_more(&fleet, 500).await;
    for _ in 0..3 {
        server.kill();
        server.restart().await;
        acked_more(&fleet, 1_000).await;
    }
    let report = fleet.stop(Duration::from_mins(1)).await.expect("the fleet stops");
    assert!(report.counters.reconnects >= 3 * 50, "every terminal was cut off three times: {report}");
    reconcile(database.url(), &report).await;
}

#[tokio::test]
async fn a_stop_under_load_loses_nothing_and_exits_0() {
    let database = TestDatabase::new().await;
    let mut server = Server::start(database.url()).await;
    let fleet = fleet(&server);
    acked_more(&fleet, 2_000).await;
    let status = server.terminate().await;
    assert!(status.success(), "{status}");
    server.restart().await;
    acked_more(&fleet, 500).await;
    let report = fleet.stop(Duration::from_mins(1)).await.expect("the fleet stops");
    reconcile(database.url(), &report).await;
}

#[tokio::test]
async fn a_database_away_for_five_seconds_loses_nothing() {
    let cluster = TestCluster::new().await;
    let server = Server::start(cluster.url()).await;
    let fleet = fleet(&server);
    acked_more(&fleet, 2_000).await;
    cluster.kill().await;
    eventually("the server notices", async || (server.get("/readyz").await.0 == 503).then_some(())).await;
    // Five seconds without: the fault itself, not a wait for something.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(server.get("/livez").await.0, 200, "the server lives on");
    assert_eq!(fleet.counters().connected, 50, "connections are kept");
    cluster.start().await;
    acked_more(&fleet, 5_000).await;
    let report = fleet.stop(Duration::from_mins(1)).await.expect("the fleet stops");
    reconcile(cluster.url(), &report).await;
}
