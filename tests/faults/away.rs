//! The database is away for longer than memory lasts.

use std::collections::BTreeSet;
use std::time::Duration;

use proto::dispatch::v1::{self, watch_response};
use store::testing::TestCluster;

use super::{acked_more, all_connected, fleet_with, until_not_ready};
use crate::alarms;
use crate::harness::{PATIENCE, Server, eventually, within};
use crate::reconcile::reconcile;

/// A figure of `/metrics`.
pub(super) async fn figure(server: &Server, name: &str) -> f64 {
    let (_, metrics) = server.get("/metrics").await;
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name} in:\n{metrics}"))
}

/// Waited for: the gauge is set ten times a second, not with each message.
async fn all_is_given_back(server: &Server) {
    eventually("the budget is given back", async || {
        (figure(server, "liftwatch_broker_budget_bytes").await < 1.0).then_some(())
    })
    .await;
}

const BUDGET: u32 = 1 << 20;

#[tokio::test]
async fn what_does_not_fit_memory_is_sent_again_paced_and_keep_alives_are_honoured() {
    let cluster = TestCluster::new().await;
    let settings =
        [("LIFTWATCH_BROKER__BUDGET_BYTES", "1 MiB"), ("LIFTWATCH_BROKER__SESSIONS__RESEND_PER_S", "10")];
    let server = Server::start_with(cluster.url(), &settings).await;
    let ledger = tempfile::NamedTempFile::new().expect("a file");
    let fleet = fleet_with(&server, ledger.path(), |config| {
        config.window = 400;
        config.keep_alive = Duration::from_secs(4);
        config.drain = PATIENCE * 2;
    })
    .await;
    acked_more(&fleet, 2_000).await;
    all_connected(&fleet).await;
    cluster.kill().await;
    until_not_ready(&server).await;
    let dropped = async || figure(&server, "liftwatch_broker_dropped_unacked_total").await;
    eventually("messages are dropped unacknowledged", async || (dropped().await > 100.0).then_some(())).await;
    // Longer than 1.5 keep-alives, all the while full: the fault itself, not a wait for something.
    let mut most = 0.0_f64;
    for _ in 0..100 {
        most = most.max(figure(&server, "liftwatch_broker_budget_bytes").await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(most > f64::from(BUDGET) / 2.0 && most <= f64::from(BUDGET), "{most} bytes of {BUDGET}");
    let counts = fleet.counters();
    assert_eq!((counts.connected, counts.reconnects), (50, 0), "connections are kept");
    let muted = figure(&server, "liftwatch_ingest_muted_total").await;
    assert!((1.0..=50.0).contains(&muted), "the rules are told of each terminal once: {muted}");
    cluster.start().await;
    let mut steps = BTreeSet::new();
    eventually("marked connections are closed", async || {
        steps.insert(fleet.counters().reconnects);
        (fleet.counters().reconnects >= 30).then_some(())
    })
    .await;
    assert!(steps.len() >= 3, "not all at once: {steps:?}");
    acked_more(&fleet, 3_000).await;
    let report = fleet.stop().await;
    reconcile(cluster.url(), &report, ledger.path()).await;
    all_is_given_back(&server).await;
}

/// What a hostile terminal may send in one message: tiny on the wire, large when decoded.
fn hostile(seq: usize) -> String {
    let code = r#""x""#;
    let codes = vec![code; 32].join(",");
    let time = crate::harness::now();
    let reading = |n: usize| format!(r#"{{"seq":{n},"time":"{time}","codes":[{codes}]}}"#);
    let readings: Vec<_> = (0..1_000).map(|n| reading(seq * 1_000 + n)).collect();
    format!(r#"{{"boot":1,"readings":[{}]}}"#, readings.join(","))
}

#[tokio::test]
async fn hostile_batches_are_counted_by_what_they_become() {
    let cluster = TestCluster::new().await;
    let settings = [("LIFTWATCH_BROKER__BUDGET_BYTES", "8 MiB"), ("LIFTWATCH_INGEST__BATCH_ROWS_MAX", "100")];
    let server = Server::start_with(cluster.url(), &settings).await;
    cluster.kill().await;
    let payload = hostile(1);
    assert!(payload.len() < 256 << 10, "{} bytes are decoded", payload.len());
    let (first, topic) = (server.addresses.broker, "lift/v1/350102/t1/telemetry.json");
    // Known before the database went away, or it could not be registered.
    cluster.start().await;
    let small = format!(r#"{{"boot":1,"seq":1,"time":"{}","floor":"1"}}"#, crate::harness::now());
    assert!(crate::harness::mosquitto_pub(first, "t1", topic, small.as_bytes()).await.status.success());
    cluster.kill().await;
    let before = figure(&server, "liftwatch_broker_budget_bytes").await;
    let publish =
        tokio::spawn(
            async move { crate::harness::mosquitto_pub(first, "t1", topic, payload.as_bytes()).await },
        );
    // 1,000 readings of 32 codes: over 2 MB, of 220 KB on the wire.
    eventually("its memory is charged", async || {
        let held = figure(&server, "liftwatch_broker_budget_bytes").await;
        assert!(held <= f64::from(8 << 20), "{held}");
        (held > before + 1_500_000.0).then_some(())
    })
    .await;
    cluster.start().await;
    assert!(publish.await.expect("it ran").status.success(), "acknowledged in the end");
    all_is_given_back(&server).await;
}

#[tokio::test]
async fn an_alarm_is_shown_while_the_database_is_away_and_numbered_under_its_id() {
    let cluster = TestCluster::new().await;
    let server = Server::start(cluster.url()).await;
    // Its terminal is known, its place in the stream as well.
    alarms::fault(&server, "t1", 1, "door_obstructed", "once").await;
    let mut client = alarms::client(&server).await;
    let mut stream = alarms::watch(&mut client, None).await;
    let mut next = async || {
        within("an event of an alarm", async {
            loop {
                let response = stream.message().await.expect("the stream lives").expect("it goes on");
                if let Some(watch_response::Message::Event(event)) = response.message
                    && event.alarm.as_ref().is_some_and(|alarm| alarm.kind == "unintended_movement")
                {
                    return event;
                }
            }
        })
        .await
    };
    cluster.kill().await;
    let (publish, shown) = tokio::join!(
        async {
            let away = alarms::fault(&server, "t1", 2, "unintended_movement", "open");
            away.await;
        },
        async {
            let shown: v1::AlarmEvent = next().await;
            assert!(shown.provisional, "{shown:?}");
            cluster.start().await;
            shown
        }
    );
    let () = publish;
    let numbered = loop {
        let event = next().await;
        if !event.provisional {
            break event;
        }
    };
    let id = |event: v1::AlarmEvent| event.alarm.expect("the alarm").id;
    assert!(numbered.no > 0);
    assert_eq!(id(shown), id(numbered), "the same alarm");
}
