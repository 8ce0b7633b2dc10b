//! Things break; what was acknowledged is there, once.

mod away;
mod disk;
mod failover;
mod schema;
mod slow;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use proto::dispatch::v1;
use simulator::{Fleet, FleetConfig, FleetHandle, Rate};
use store::Database;
use store::testing::{TestCluster, TestDatabase};

use crate::alarms;
use crate::harness::{PATIENCE, Server, command, eventually, within};
use crate::ingest::count;
use crate::reconcile::reconcile;

/// A fleet that sends 1,000 readings a second over 50 connections.
async fn fleet(server: &Server, ledger: &Path) -> FleetHandle {
    fleet_with(server, ledger, |_| {}).await
}

/// The same, changed.
async fn fleet_with(server: &Server, ledger: &Path, change: impl FnOnce(&mut FleetConfig)) -> FleetHandle {
    let mut config = FleetConfig {
        target: server.addresses.broker.to_string(),
        terminals: 50,
        rate: Rate::PerSecond(1_000.0),
        acked_file: Some(ledger.to_owned()),
        outbox_max: 100_000,
        drain: PATIENCE,
        ..FleetConfig::default()
    };
    change(&mut config);
    Fleet::start(config).await.expect("the fleet starts")
}

/// Waits until `/readyz` says that the store is away, and gives its words.
async fn until_not_ready(server: &Server) -> String {
    eventually("the server notices", async || {
        let (status, body) = server.get("/readyz").await;
        (status == 503).then_some(body)
    })
    .await
}

/// Waits until so many more readings are acknowledged than at the call.
async fn acked_more(fleet: &FleetHandle, count: u64) {
    let begin = fleet.counters().items_acked;
    eventually("readings are acknowledged", async || {
        (fleet.counters().items_acked >= begin + count).then_some(())
    })
    .await;
}

/// Waits until every terminal is connected.
async fn all_connected(fleet: &FleetHandle) {
    eventually("all are connected", async || (fleet.counters().connected == 50).then_some(())).await;
}

#[tokio::test]
async fn three_kills_under_load_lose_nothing_and_double_nothing() {
    let database = TestDatabase::new().await;
    let mut server = Server::start(database.url()).await;
    let ledger = tempfile::NamedTempFile::new().expect("a file");
    let fleet = fleet(&server, ledger.path()).await;
    acked_more(&fleet, 500).await;
    all_connected(&fleet).await;
    for _ in 0..3 {
        server.kill();
        server.restart().await;
        acked_more(&fleet, 1_000).await;
        all_connected(&fleet).await;
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
async fn a_stop_during_the_start_is_heard() {
    // A database that takes connections and says nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("postgres://liftwatch@{}/liftwatch", silent.local_addr().expect("an address"));
    let folder = tempfile::tempdir().expect("a folder");
    let ready = folder.path().join("ready.json");
    std::fs::write(&ready, "{}").expect("what a killed run left");
    let mut starting = tokio::process::Command::from(command())
        .args(["serve", "--dev", "--ready-file"])
        .arg(&ready)
        .env("LIFTWATCH_DATABASE__URL", &url)
        .env("LIFTWATCH_BROKER__LISTEN", "127.0.0.1:0")
        .env("LIFTWATCH_DISPATCH__LISTEN", "127.0.0.1:0")
        .env("LIFTWATCH_WEB__LISTEN", "127.0.0.1:0")
        .kill_on_drop(true)
        .spawn()
        .expect("liftwatch starts");
    // It asks the database after it has begun to listen to signals.
    let asked = within("it connects", silent.accept()).await;
    assert!(!ready.exists(), "it is not ready");
    let pid = starting.id().expect("it runs").to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs").success());
    let status = within("it ends", starting.wait()).await.expect("wait");
    assert!(status.success(), "{status}: {asked:?}");
}

#[tokio::test]
async fn a_database_that_refuses_everything_is_not_ready() {
    let database = TestDatabase::new().await;
    let server = Server::start(database.url()).await;
    let store = database.open().await;
    let run = async |sql: String| {
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(store.pool()).await.expect("it is done");
    };
    let ledger = tempfile::NamedTempFile::new().expect("a file");
    let fleet = fleet(&server, ledger.path()).await;
    acked_more(&fleet, 500).await;
    run("CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql
         AS $$ BEGIN RAISE 'never' USING ERRCODE = '23514'; END $$"
        .to_owned())
    .await;
    for table in ["quarantine", "telemetry"] {
        run(format!("CREATE TRIGGER never BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION never()"))
            .await;
    }
    let why = until_not_ready(&server).await;
    assert!(why.contains("never"), "{why}");
    run("DROP TRIGGER never ON telemetry".to_owned()).await;
    eventually("it is ready again", async || (server.get("/readyz").await.0 == 200).then_some(())).await;
    // Not before: what was refused a moment ago would still go there, which is right, and not what is asked here.
    run("DROP TRIGGER never ON quarantine".to_owned()).await;
    acked_more(&fleet, 1_000).await;
    let report = fleet.stop().await;
    reconcile(database.url(), &report, ledger.path()).await;
}

/// A table that is not found stands for a right that is missing: both are mended by a person.
async fn rename(store: &Database, from: &str, to: &str) {
    let sql = format!("ALTER TABLE {from} RENAME TO {to}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(store.pool()).await.expect("rename");
}

/// Each reading was acknowledged into quarantine, and the server was ready meanwhile.
#[tokio::test]
async fn a_right_that_is_missing_is_nobodys_fault_but_the_databases() {
    let database = TestDatabase::new().await;
    let server = Server::start(database.url()).await;
    let store = database.open().await;
    let rename = async |from, to| rename(&store, from, to).await;
    let ledger = tempfile::NamedTempFile::new().expect("a file");
    let fleet = fleet(&server, ledger.path()).await;
    acked_more(&fleet, 500).await;
    rename("telemetry", "telemetry_away").await;
    let why = until_not_ready(&server).await;
    assert!(why.contains("does not exist"), "{why}");
    rename("telemetry_away", "telemetry").await;
    acked_more(&fleet, 2_000).await;
    let report = fleet.stop().await;
    reconcile(database.url(), &report, ledger.path()).await;
    let refused = "SELECT count(*) FROM quarantine WHERE reason = 'refused'";
    assert_eq!(count(database.url(), refused).await, 0);
}

/// The stream ended, acting failed for good, although nothing of it was the dispatcher's fault.
#[tokio::test]
async fn dispatchers_see_a_right_that_is_missing_as_a_database_that_is_away() {
    let database = TestDatabase::new().await;
    let server = Server::start(database.url()).await;
    let store = database.open().await;
    let rename = async |from, to| rename(&store, from, to).await;
    let mut client = alarms::client(&server).await;
    let mut stream = alarms::watch(&mut client, Some(0)).await;
    alarms::fault(&server, "t1", 1, "unintended_movement", "open").await;
    let first = alarms::next_event(&mut stream).await;
    assert_eq!(first.no, 1);
    rename("alarm_event", "alarm_event_away").await;
    let request = v1::AcknowledgeRequest {
        alarm_id: first.alarm.expect("an alarm").id,
        actor: "seat 3".to_owned(),
        idempotency_key: "k".to_owned(),
        ..Default::default()
    };
    let refused = client.acknowledge(request.clone()).await.expect_err("it cannot be noted");
    assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused}");
    rename("alarm_event_away", "alarm_event").await;
    let taken = client.acknowledge(request).await.expect("acknowledged").into_inner();
    assert_eq!(taken.no, 2);
    assert_eq!(alarms::next_event(&mut stream).await.no, 2, "on the same stream");
}

#[tokio::test]
async fn a_database_away_for_five_seconds_loses_nothing() {
    let cluster = TestCluster::new().await;
    let server = Server::start(cluster.url()).await;
    let ledger = tempfile::NamedTempFile::new().expect("a file");
    let fleet = fleet(&server, ledger.path()).await;
    acked_more(&fleet, 2_000).await;
    all_connected(&fleet).await;
    cluster.kill().await;
    until_not_ready(&server).await;
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
    until_not_ready(&server).await;
    let status = server.terminate().await;
    assert!(status.success(), "{status}");
    cluster.start().await;
    server.restart().await;
    acked_more(&fleet, 2_000).await;
    let report = fleet.stop().await;
    reconcile(cluster.url(), &report, ledger.path()).await;
}
