//! The database is there, but slow, or does not answer at all.

use std::time::Duration;

use sqlx::Connection;
use store::testing::{TestCluster, TestDatabase};

use super::away::figure;
use super::{acked_more, all_connected, fleet, fleet_with, until_not_ready};
use crate::harness::{Server, eventually, mosquitto_pub, now};
use crate::ingest::count;
use crate::proxy::{Proxy, Upstream};
use crate::reconcile::reconcile;

/// The URL of a cluster by way of a proxy.
fn through(proxy: &Proxy) -> String {
    format!("postgres://liftwatch@{}/liftwatch?sslmode=disable", proxy.address())
}

async fn proxied(cluster: &TestCluster) -> Proxy {
    Proxy::start(Upstream::Unix(cluster.home().join("run/.s.PGSQL.5432"))).await
}

/// Freezing blocks its thread; the fleet goes on in others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_database_keeps_connections_and_loses_nothing() {
    let cluster = TestCluster::new().await;
    let server = Server::start(cluster.url()).await;
    let ledger = tempfile::NamedTempFile::new().expect("a file");
    let keep_alive = Duration::from_secs(4);
    let fleet = fleet_with(&server, ledger.path(), |config| config.keep_alive = keep_alive).await;
    acked_more(&fleet, 1_000).await;
    all_connected(&fleet).await;
    cluster.freeze();
    let why = until_not_ready(&server).await;
    assert!(why.contains("does not answer"), "{why}");
    // Longer than 1.5 keep-alives, with the 5 s until the server says so.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(fleet.counters().connected, 50, "keep-alives are honoured");
    cluster.thaw();
    acked_more(&fleet, 2_000).await;
    eventually("ready again", async || (server.get("/readyz").await.0 == 200).then_some(())).await;
    let report = fleet.stop().await;
    assert_eq!(report.counts.reconnects, 0, "nobody was cut off: {report}");
    reconcile(cluster.url(), &report, ledger.path()).await;
}

#[tokio::test]
async fn a_slow_database_makes_larger_batches() {
    let cluster = TestCluster::new().await;
    let proxy = proxied(&cluster).await;
    let server = Server::start(&through(&proxy)).await;
    let ledger = tempfile::NamedTempFile::new().expect("a file");
    let fleet = fleet(&server, ledger.path()).await;
    acked_more(&fleet, 500).await;
    proxy.slow(Duration::from_millis(100));
    acked_more(&fleet, 3_000).await;
    assert_eq!(server.get("/readyz").await.0, 200, "slow is not away");
    proxy.mend();
    let report = fleet.stop().await;
    reconcile(cluster.url(), &report, ledger.path()).await;
}

#[tokio::test]
async fn a_half_open_connection_is_given_up_and_made_again() {
    let cluster = TestCluster::new().await;
    let proxy = proxied(&cluster).await;
    let settings = [("LIFTWATCH_DATABASE__ANSWER_WITHIN_S", "3")];
    let server = Server::start_with(&through(&proxy), &settings).await;
    let ledger = tempfile::NamedTempFile::new().expect("a file");
    let fleet = fleet(&server, ledger.path()).await;
    acked_more(&fleet, 1_000).await;
    all_connected(&fleet).await;
    proxy.freeze();
    let why = until_not_ready(&server).await;
    assert!(why.contains("did not answer"), "{why}");
    assert_eq!(fleet.counters().connected, 50, "connections of terminals are kept");
    // The server has let go of what was frozen: a new wire is all it needs.
    proxy.mend();
    acked_more(&fleet, 2_000).await;
    // Statements of the pool come back too.
    eventually("the pool answers", async || (server.get("/api/v1/elevators").await.0 == 200).then_some(()))
        .await;
    let report = fleet.stop().await;
    reconcile(cluster.url(), &report, ledger.path()).await;
}

/// A batch that takes longer than the database is given is not tried as it is for ever.
#[tokio::test]
async fn a_batch_that_is_too_much_is_stored_in_halves() {
    let database = TestDatabase::new().await;
    let settings = [("LIFTWATCH_DATABASE__ANSWER_WITHIN_S", "2")];
    let server = Server::start_with(database.url(), &settings).await;
    let mut connection = sqlx::PgConnection::connect(database.url()).await.expect("connect");
    // 0.2 s for each occurrence of a fault: what waits while the first is stored takes longer than 2 s.
    let slow = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql
                AS $$ BEGIN PERFORM pg_sleep(0.2); RETURN NEW; END $$;
                CREATE TRIGGER slow BEFORE INSERT ON fault_period FOR EACH ROW EXECUTE FUNCTION slow()";
    sqlx::raw_sql(slow).execute(&mut connection).await.expect("a trigger");
    // Nothing is stored before all have sent: else a slow machine would send them one after the other.
    let hold = "BEGIN; LOCK TABLE fault_period IN ACCESS EXCLUSIVE MODE";
    sqlx::raw_sql(hold).execute(&mut connection).await.expect("the lock");
    let mut publishers = tokio::task::JoinSet::new();
    for terminal in 1..=40 {
        let (broker, terminal, time) = (server.addresses.broker, format!("t{terminal}"), now());
        publishers.spawn(async move {
            let topic = format!("lift/v1/350102/{terminal}/event.json");
            let event = r#""seq":1,"code":"entrapment","state":"open""#;
            let payload = format!(r#"{{"boot":7,"sent":"{time}","time":"{time}",{event}}}"#);
            mosquitto_pub(broker, &terminal, &topic, payload.as_bytes()).await
        });
    }
    eventually("all have sent", async || {
        (figure(&server, "liftwatch_broker_publish_qos1_total").await >= 40.0).then_some(())
    })
    .await;
    // What could not be stored in time for the lock's sake may be halved as well, and is not meant here.
    let before = server.log().len();
    sqlx::raw_sql("ROLLBACK").execute(&mut connection).await.expect("the lock is released");
    for published in publishers.join_all().await {
        assert!(published.status.success(), "all are acknowledged: {published:?}");
    }
    assert_eq!(count(database.url(), "SELECT count(*) FROM fault_period").await, 40);
    assert!(server.log()[before..].contains("it is halved"));
}
