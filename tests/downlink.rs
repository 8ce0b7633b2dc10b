//! Orders reach terminals that sleep, and presence outlives the server.

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use domain::{Downlink, DownlinkId, TerminalId, Timestamp};
use serde_json::Value;
use store::testing::TestDatabase;
use store::{Database, DownlinkFate};

use crate::access::run_admin;
use crate::harness::{Server, eventually, mosquitto_pub, now};

const TOPIC: &str = "lift/v1/350102/t1/down.json";

/// A client that writes what it hears to a file. Killed when dropped.
struct Subscriber(Child);

impl Subscriber {
    fn start(broker: SocketAddr, arguments: &[&str], file: &Path) -> Self {
        let child = Command::new("mosquitto_sub")
            .args(["-h", "127.0.0.1", "-p", &broker.port().to_string(), "-q", "1"])
            .args(arguments)
            .stdout(File::create(file).expect("a file"))
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto_sub is installed: apt install mosquitto-clients");
        Self(child)
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn clock() -> Timestamp {
    time::OffsetDateTime::now_utc().into()
}

/// Has terminal t1 registered by its first message, after which it sleeps.
async fn known_terminal(server: &Server) {
    let payload = format!(r#"{{"boot":1,"seq":1,"time":"{}","floor":"1"}}"#, now());
    let topic = "lift/v1/350102/t1/telemetry.json";
    assert!(mosquitto_pub(server.addresses.broker, "t1", topic, payload.as_bytes()).await.status.success());
}

async fn ordered(database: &Database, order: Downlink) -> DownlinkId {
    let terminal = TerminalId::new("t1").expect("an id");
    database.downlink_queue(&terminal, order, "test", clock()).await.expect("the order is taken")
}

/// The orders a subscriber has written down.
fn heard(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).expect("read");
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The orders a subscriber has written down, once they are so many: it acknowledges before it writes.
async fn heard_all(file: &Path, count: usize) -> Vec<Value> {
    eventually("the orders are written down", async || Some(heard(file)).filter(|all| all.len() >= count))
        .await
}

async fn delivered(database: &Database, id: DownlinkId) {
    eventually("the order is delivered", async || {
        let fate = database.downlink_fate(id, clock()).await.ok()?;
        matches!(fate, DownlinkFate::Delivered(_)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_sleeping_terminal_finds_its_orders_though_the_server_was_killed() {
    let test = TestDatabase::new().await;
    let mut server = Server::start(test.url()).await;
    known_terminal(&server).await;
    let database = test.open().await;
    ordered(&database, Downlink::report_rate(9_000, 600).expect("a rate")).await;
    let rate = ordered(&database, Downlink::report_rate(500, 60).expect("a rate")).await;
    let set = ordered(&database, Downlink::ClockSet).await;
    server.kill();
    server.restart().await;

    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("down");
    let before = clock();
    let terminal = Subscriber::start(server.addresses.broker, &["-i", "t1", "-c", "-t", TOPIC], &file);
    delivered(&database, rate).await;
    delivered(&database, set).await;
    let orders = heard_all(&file, 2).await;
    assert_eq!(
        orders.iter().map(|order| order["id"].as_i64()).collect::<Vec<_>>(),
        [Some(rate.0), Some(set.0)]
    );
    assert_eq!(orders[0]["report_rate"], serde_json::json!({ "interval_ms": 500, "for_s": 60 }));
    let time: Timestamp = orders[1]["clock_set"]["time"].as_str().expect("a time").parse().expect("a time");
    assert!(time >= Timestamp::from_millis(before.millis()), "the time of the sending, not of the order");

    // While it listens, an order comes at once; while it sleeps again, it waits.
    let live = ordered(&database, Downlink::LiveView).await;
    delivered(&database, live).await;
    assert_eq!(heard_all(&file, 3).await.len(), 3);
    drop(terminal);
    let later = ordered(&database, Downlink::ClockSet).await;
    let second = folder.path().join("second");
    let _terminal = Subscriber::start(server.addresses.broker, &["-i", "t1", "-c", "-t", TOPIC], &second);
    delivered(&database, later).await;
    let ids: Vec<Value> = heard_all(&second, 1).await.iter().map(|order| order["id"].clone()).collect();
    assert_eq!(ids, [later.0], "nothing twice");
}

#[tokio::test]
async fn an_order_in_protobuf_reaches_a_terminal_that_listens_for_it() {
    let test = TestDatabase::new().await;
    let server = Server::start(test.url()).await;
    known_terminal(&server).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("down");
    let topic = "lift/v1/350102/t1/down";
    let arguments = ["-i", "t1", "-t", topic, "-F", "%x"];
    let _terminal = Subscriber::start(server.addresses.broker, &arguments, &file);
    shown(&server, "online").await;
    let sent = run_admin(test.url(), &["terminal", "send", "t1", "live", "--wait"]);
    assert!(sent.status.success(), "{sent:?}");
    let text = eventually("it is written down", async || {
        let text = std::fs::read_to_string(&file).expect("read");
        text.ends_with('\n').then_some(text)
    })
    .await;
    let bytes: Vec<u8> = (0..text.trim().len() / 2)
        .map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).expect("hex"))
        .collect();
    let sent = proto::decode::downlink(&bytes).expect("an order");
    assert_eq!(sent.order, Downlink::LiveView);
}

/// What an integration is shown of t1 when it subscribes, once it is what is waited for.
async fn shown(server: &Server, state: &str) -> Value {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("presence");
    let topic = "lift/v1/350102/t1/presence";
    let _watcher = Subscriber::start(server.addresses.broker, &["-i", "integration-1", "-t", topic], &file);
    eventually(state, async || heard(&file).into_iter().find(|shown| shown["state"] == state)).await
}

async fn reason_in_store(database: &Database) -> Option<(bool, String)> {
    sqlx::query_as("SELECT online, reason FROM presence WHERE terminal_id = 't1'")
        .fetch_optional(database.pool())
        .await
        .expect("a row")
}

#[tokio::test]
async fn presence_outlives_the_server_and_offline_comes_by_the_clock() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut server = Server::start_with(test.url(), &[("LIFTWATCH_INGEST__OFFLINE_AFTER_S", "12")]).await;
    known_terminal(&server).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("down");
    let terminal = Subscriber::start(server.addresses.broker, &["-i", "t1", "-t", TOPIC], &file);
    shown(&server, "online").await;
    eventually("it is stored", async || reason_in_store(&database).await.filter(|(online, _)| *online)).await;
    assert!(server.terminate().await.success());
    // The server went, not the terminal.
    assert_eq!(reason_in_store(&database).await, Some((true, "connected".to_owned())));
    drop(terminal);
    server.restart().await;
    let away = shown(&server, "away").await;
    assert_eq!(away["reason"], "server_restart");
    let offline = shown(&server, "offline").await;
    let at =
        |shown: &Value| shown["time"].as_str().and_then(|at| at.parse::<Timestamp>().ok()).expect("a time");
    assert_eq!(at(&offline).since(at(&away)).as_secs(), 12, "the time to come back");
    let (status, body) = server.get("/api/v1/elevators").await;
    let page: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!((status, &page["items"][0]["terminals"][0]["presence"]), (200, &"offline".into()), "{body}");
    // It comes back.
    let _terminal = Subscriber::start(server.addresses.broker, &["-i", "t1", "-t", TOPIC], &file);
    assert_eq!(shown(&server, "online").await["reason"], "connected");
}
