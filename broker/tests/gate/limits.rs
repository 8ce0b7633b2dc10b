//! What happens when the store is slow or away.

use std::time::Duration;

use broker::{GateConfig, HubConfig, Inbound, Reason};

use crate::harness::{Broker, Connect, Raw, config, soon, until};

const TOPIC: &str = "lift/v1/310115/T1/telemetry";

#[tokio::test]
async fn the_window_pauses_an_old_client_and_ends_a_new_one() {
    let config = GateConfig { unacked_max: 2, ..config() };
    let mut broker = Broker::with(config, HubConfig::default(), 100).await;
    let mut raw = Raw::connect(&broker, Connect::new("T1")).await;
    broker.presence().await;
    for pkid in 1..=5 {
        raw.publish(TOPIC, 1, pkid, &[pkid as u8]).await;
    }
    let (first, _second) = (broker.publish().await, broker.publish().await);
    until(|| broker.metrics.paused.get() == 1).await;
    assert!(broker.inbound.is_empty());
    first.ack.done();
    assert_eq!(&broker.publish().await.payload[..], [3]);

    let mut raw = Raw::connect(&broker, Connect { level: 5, ..Connect::new("T2") }).await;
    for pkid in 1..=3 {
        raw.publish("lift/v1/310115/T2/telemetry", 1, pkid, b"x").await;
    }
    assert_eq!(raw.packet().await, Some(vec![0xE0, 1, 0x93]), "receive maximum exceeded");
}

#[tokio::test]
async fn a_full_channel_pauses_and_loses_nothing() {
    let mut broker = Broker::with(config(), HubConfig::default(), 2).await;
    let mut raw = Raw::connect(&broker, Connect::new("T1")).await;
    broker.presence().await;
    for pkid in 1..=100 {
        raw.publish(TOPIC, 1, pkid, b"x").await;
    }
    until(|| broker.metrics.paused.get() > 0).await;
    for pkid in 1..=100 {
        broker.publish().await.ack.done();
        assert_eq!(raw.packet().await, Some(vec![0x40, 2, 0, pkid]));
    }
    assert_eq!(broker.metrics.dropped_unacked.get(), 0);
}

/// The store is away for longer than a pause: messages are dropped unacknowledged, pings answered, and when the
/// store is back the client is closed, so that it sends again.
#[tokio::test]
async fn a_full_budget_drops_unacknowledged_and_asks_to_send_again() {
    let config = GateConfig { budget_bytes: 80 << 10, pause_max: Duration::from_millis(100), ..config() };
    let mut broker = Broker::with(config, HubConfig::default(), 1_000).await;
    let mut raw = Raw::connect(&broker, Connect { level: 5, ..Connect::new("T1") }).await;
    broker.presence().await;
    let payload = vec![b'x'; 30_000];
    for pkid in 1..=4 {
        raw.publish(TOPIC, 1, pkid, &payload).await;
    }
    // Two fit the budget; the third waits for the pause to end.
    let held = [broker.publish().await, broker.publish().await];
    until(|| broker.metrics.dropped_unacked.get() == 2).await;
    raw.ping().await;
    assert!(matches!(broker.next().await, Inbound::Muted { client_id, .. } if *client_id == *"T1"));
    assert!(broker.inbound.is_empty(), "told once");
    for publish in held {
        publish.ack.done();
    }
    // What was kept is acknowledged; what comes after the dropped one is handed over, but not acknowledged.
    assert_eq!(raw.packet().await, Some(vec![0x40, 2, 0, 1]));
    assert_eq!(raw.packet().await, Some(vec![0x40, 2, 0, 2]));
    raw.publish(TOPIC, 1, 5, b"after").await;
    let after = broker.publish().await;
    assert_eq!(&after.payload[..], b"after");
    after.ack.done();
    raw.ping().await;

    broker.control.store_returned();
    assert_eq!(raw.packet().await, Some(vec![0xE0, 1, 0x89]), "server busy");
    raw.closed().await;
    assert_eq!(broker.presence().await.reason, Reason::Resend);
    let mut raw = Raw::connect(&broker, Connect::new("T1")).await;
    broker.presence().await;
    raw.publish(TOPIC, 1, 3, &payload).await;
    broker.publish().await.ack.done();
    assert_eq!(raw.packet().await, Some(vec![0x40, 2, 0, 3]));
    until(|| broker.metrics.budget_bytes.get() == 0).await;
}

/// Nobody calls `store_returned` when the store was never away, only slow: the connection notices by itself.
#[tokio::test]
async fn a_marked_connection_recovers_by_itself() {
    let config = GateConfig { budget_bytes: 80 << 10, pause_max: Duration::from_millis(50), ..config() };
    let mut broker = Broker::with(config, HubConfig::default(), 1_000).await;
    let mut raw = Raw::connect(&broker, Connect::new("T1")).await;
    broker.presence().await;
    for pkid in 1..=3 {
        raw.publish(TOPIC, 1, pkid, &vec![b'x'; 30_000]).await;
    }
    let held = [broker.publish().await, broker.publish().await];
    until(|| broker.metrics.dropped_unacked.get() == 1).await;
    assert!(matches!(broker.next().await, Inbound::Muted { .. }));
    for publish in held {
        publish.ack.done();
    }
    assert_eq!(raw.packet().await, Some(vec![0x40, 2, 0, 1]));
    assert_eq!(raw.packet().await, Some(vec![0x40, 2, 0, 2]));
    raw.closed().await;
    assert_eq!(broker.presence().await.reason, Reason::Resend);
}

#[tokio::test]
async fn the_budget_is_returned_whatever_becomes_of_the_connection() {
    let mut broker = Broker::start().await;
    let mut raw = Raw::connect(&broker, Connect::new("T1")).await;
    broker.presence().await;
    for pkid in 1..=10 {
        raw.publish(TOPIC, 1, pkid, &vec![b'x'; 20_000]).await;
    }
    let mut held = Vec::new();
    for _ in 0..10 {
        held.push(broker.publish().await);
    }
    until(|| broker.metrics.budget_bytes.get() > 200_000).await;
    drop(raw);
    broker.presence().await;
    assert!(broker.metrics.budget_bytes.get() > 200_000, "the messages are still held");
    drop(held);
    until(|| broker.metrics.budget_bytes.get() == 0).await;
}

#[tokio::test]
async fn presence_waits_for_a_full_channel() {
    let mut broker = Broker::with(config(), HubConfig::default(), 1).await;
    let mut clients = Vec::new();
    for i in 0..20 {
        let mut raw = Raw::open(&broker).await;
        raw.send(&Connect::new(&format!("T{i}")).bytes()).await;
        clients.push(raw);
    }
    let mut online = 0;
    while online < 20 {
        match broker.next().await {
            Inbound::Presence(presence) => online += u32::from(presence.online),
            other => panic!("{other:?}"),
        }
    }
    drop(clients);
    for _ in 0..20 {
        assert!(!soon(broker.presence()).await.online);
    }
}
