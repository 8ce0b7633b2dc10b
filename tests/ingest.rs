//! From a publish to a row: what is stored, what is not, and who is told.

use sqlx::Connection;
use store::testing::TestDatabase;

use crate::harness::{Server, eventually, mosquitto_pub, now};

/// Counts rows with a statement that gives one number.
pub(crate) async fn count(url: &str, sql: &'static str) -> i64 {
    let mut connection = sqlx::PgConnection::connect(url).await.expect("connect");
    sqlx::query_scalar(sql).fetch_one(&mut connection).await.expect(sql)
}

#[tokio::test]
async fn a_published_reading_is_a_row_when_it_is_acknowledged() {
    let database = TestDatabase::new().await;
    let server = Server::start(database.url()).await;
    let payload =
        format!(r#"{{"boot":7,"seq":1,"time":"{}","floor":"12","load_kg":225,"passengers":null}}"#, now());
    let topic = "lift/v1/350102/t1/telemetry.json";
    let published = mosquitto_pub(server.addresses.broker, "t1", topic, payload.as_bytes()).await;
    assert!(published.status.success(), "{published:?}");
    let rows = "SELECT count(*) FROM telemetry WHERE floor = '12' AND load_kg = 225 AND passengers IS NULL";
    assert_eq!(count(database.url(), rows).await, 1, "acknowledged means on disk");

    let again = mosquitto_pub(server.addresses.broker, "t1", topic, payload.as_bytes()).await;
    assert!(again.status.success(), "a redelivery is acknowledged");
    assert_eq!(count(database.url(), "SELECT count(*) FROM telemetry").await, 1, "and adds no row");
}

#[tokio::test]
async fn a_reading_without_number_is_stored_once_too() {
    let database = TestDatabase::new().await;
    let server = Server::start(database.url()).await;
    let payload = format!(r#"{{"time":"{}","floor":"3"}}"#, now());
    for _ in 0..2 {
        let topic = "lift/v1/350102/t1/telemetry.json";
        assert!(
            mosquitto_pub(server.addresses.broker, "t1", topic, payload.as_bytes()).await.status.success()
        );
    }
    assert_eq!(count(database.url(), "SELECT count(*) FROM telemetry WHERE seq < 0").await, 1);
}

#[tokio::test]
async fn what_cannot_be_decoded_is_quarantined_beside_its_neighbours() {
    let database = TestDatabase::new().await;
    let server = Server::start(database.url()).await;
    let broker = server.addresses.broker;
    let topic = "lift/v1/350102/t1/telemetry.json";
    let good = |seq: u32| format!(r#"{{"boot":1,"seq":{seq},"time":"{}","floor":"1"}}"#, now());
    let future = r#"{"boot":1,"seq":9,"time":"2099-01-01T00:00:00Z","floor":"1"}"#;
    for payload in [good(1), "not JSON at all".to_owned(), future.to_owned(), good(2)] {
        let published = mosquitto_pub(broker, "t1", topic, payload.as_bytes()).await;
        assert!(published.status.success(), "{payload}: {published:?}");
    }
    let url = database.url();
    assert_eq!(count(url, "SELECT count(*) FROM telemetry").await, 2);
    assert_eq!(count(url, "SELECT count(*) FROM quarantine WHERE reason = 'undecodable'").await, 1);
    assert_eq!(count(url, "SELECT count(*) FROM quarantine WHERE reason = 'future'").await, 1);
    // Larger than is decoded: its hash and first 4 KB are kept.
    let large = vec![b'x'; 300 * 1024];
    assert!(mosquitto_pub(broker, "t1", topic, &large).await.status.success());
    let kept = "SELECT count(*) FROM quarantine WHERE reason = 'too_large' AND length(payload) = 4096";
    assert_eq!(count(url, kept).await, 1);
}

#[tokio::test]
async fn nobody_publishes_for_another_terminal() {
    let database = TestDatabase::new().await;
    let server = Server::start(database.url()).await;
    let payload = format!(r#"{{"seq":1,"time":"{}","floor":"1"}}"#, now());
    let foreign = "lift/v1/350102/t2/telemetry.json";
    let published = mosquitto_pub(server.addresses.broker, "t1", foreign, payload.as_bytes()).await;
    assert!(!published.status.success(), "the topic of another terminal is refused");
    let own = "lift/v1/350102/t1/telemetry.json";
    assert!(mosquitto_pub(server.addresses.broker, "t1", own, payload.as_bytes()).await.status.success());
    let moved = "lift/v1/999999/t1/telemetry.json";
    let second = payload.replace("\"seq\":1", "\"seq\":2");
    assert!(
        mosquitto_pub(server.addresses.broker, "t1", moved, second.as_bytes()).await.status.success(),
        "the right id in the wrong area is accepted"
    );
    let one = "SELECT count(DISTINCT elevator_id) FROM telemetry";
    assert_eq!(count(database.url(), one).await, 1, "and filed under its own elevator");
    assert_eq!(count(database.url(), "SELECT count(*) FROM telemetry").await, 2);
}

#[tokio::test]
async fn integrations_see_committed_messages_and_presence() {
    let database = TestDatabase::new().await;
    let server = Server::start(database.url()).await;
    let port = server.addresses.broker.port().to_string();
    let folder = tempfile::tempdir().expect("a folder");
    let seen = folder.path().join("seen");
    let mut subscriber = std::process::Command::new("mosquitto_sub")
        .args(["-h", "127.0.0.1", "-p", &port, "-i", "integration-1", "-q", "1", "-t", "lift/v1/#", "-v"])
        .stdout(std::fs::File::create(&seen).expect("a file"))
        .spawn()
        .expect("mosquitto_sub is installed");
    let text = || std::fs::read_to_string(&seen).expect("read");
    let mut seq = 0;
    // The subscription is there when something comes through.
    eventually("an integration sees a message", async || {
        seq += 1;
        let payload = format!(r#"{{"boot":1,"seq":{seq},"time":"{}","floor":"1"}}"#, now());
        let topic = "lift/v1/350102/t1/telemetry.json";
        let published = mosquitto_pub(server.addresses.broker, "t1", topic, payload.as_bytes()).await;
        assert!(published.status.success());
        text().contains("lift/v1/350102/t1/telemetry.json {").then_some(())
    })
    .await;
    eventually("presence", async || {
        let text = text();
        let online = text.contains(r#""state":"online""#) && text.contains(r#""state":"away""#);
        (online && text.contains("lift/v1/350102/t1/presence")).then_some(())
    })
    .await;
    subscriber.kill().expect("kill");
    subscriber.wait().expect("wait");
}
