//! Limits of one address and one client, from outside.

use std::time::Duration;

use broker::{GateConfig, HubConfig, RateLimits};

use crate::harness::{Broker, Connect, Raw, config, soon, until};

const TOPIC: &str = "lift/v1/310115/T1/telemetry";

/// Loopback is not exempt here.
async fn gate(limits: RateLimits) -> Broker {
    let limits = RateLimits { trusted: Vec::new(), ..limits };
    Broker::with(GateConfig { limits, ..config() }, HubConfig::default(), 1_000).await
}

#[tokio::test]
async fn an_address_has_so_many_connections() {
    let broker = gate(RateLimits { address_connections_max: 2, ..RateLimits::default() }).await;
    let first = Raw::connect(&broker, Connect::new("T1")).await;
    let _second = Raw::connect(&broker, Connect::new("T2")).await;
    let mut third = Raw::open(&broker).await;
    third.closed().await;
    until(|| broker.metrics.refused_for("address_connections") == 1).await;
    drop(first);
    until(|| broker.metrics.closed.get() == 2).await;
    Raw::connect(&broker, Connect::new("T3")).await.ping().await;
}

#[tokio::test]
async fn an_address_connects_so_often() {
    let limits = RateLimits { address_connects_burst: 3, address_connects_per_s: 1, ..RateLimits::default() };
    let broker = gate(limits).await;
    for _ in 0..20 {
        drop(Raw::open(&broker).await);
    }
    until(|| broker.metrics.closed.get() == 20).await;
    assert!(broker.metrics.refused_for("address_connects") >= 10);
}

#[tokio::test]
async fn guessing_is_stopped_before_the_password_is_looked_at() {
    let broker = gate(RateLimits { client_failures_max: 3, ..RateLimits::default() }).await;
    for _ in 0..3 {
        let mut raw = Raw::open(&broker).await;
        assert_eq!(raw.greet(Connect { login: Some(("T1", "wrong")), ..Connect::new("T1") }).await, Some(4));
    }
    let login = |password| Connect { login: Some(("T1", password)), ..Connect::new("T1") };
    let mut raw = Raw::open(&broker).await;
    assert_eq!(raw.greet(login("secret")).await, Some(3), "even the right one, for a while");
    let mut raw = Raw::open(&broker).await;
    assert_eq!(raw.greet(Connect { level: 5, ..login("secret") }).await, Some(0x9F));
    assert_eq!(broker.metrics.refused_for("too_often"), 2);
    let mut other = Raw::open(&broker).await;
    assert_eq!(other.greet(Connect { login: Some(("T2", "secret")), ..Connect::new("T2") }).await, Some(0));
}

#[tokio::test]
async fn a_client_connects_so_often() {
    let broker =
        gate(RateLimits { client_connects_burst: 2, client_connects_per_min: 1, ..RateLimits::default() })
            .await;
    for expected in [0, 0, 3] {
        assert_eq!(Raw::open(&broker).await.greet(Connect::new("T1")).await, Some(expected));
    }
    assert_eq!(Raw::open(&broker).await.greet(Connect::new("T2")).await, Some(0));
}

#[tokio::test]
async fn a_noisy_client_is_slowed_and_loses_nothing() {
    let limits = RateLimits { client_messages_burst: 5, client_messages_per_s: 50, ..RateLimits::default() };
    let mut broker = gate(limits).await;
    let mut told = broker.commit_all();
    let broker = &broker;
    let mut noisy = Raw::connect(broker, Connect { keep_alive_s: 2, ..Connect::new("T1") }).await;
    let mut quiet = Raw::connect(broker, Connect::new("T2")).await;
    let started = tokio::time::Instant::now();
    for pkid in 1..=200 {
        noisy.publish(TOPIC, 1, pkid, b"x").await;
    }
    quiet.publish("lift/v1/310115/T2/telemetry", 1, 1, b"x").await;
    assert_eq!(quiet.packet().await, Some(vec![0x40, 2, 0, 1]));
    for pkid in 1..=200_u8 {
        assert_eq!(noisy.packet().await, Some(vec![0x40, 2, 0, pkid]));
    }
    // 195 of them at 50 a second: it cannot have been faster. Longer than one and a half keep-alives, too.
    assert!(started.elapsed() >= Duration::from_millis(3_800));
    assert!(broker.metrics.slowed.get() > 0);
    noisy.ping().await;
    let mut messages = 0;
    while messages < 201 {
        messages += u32::from(soon(told.recv()).await.unwrap().ends_with(" x"));
    }
}

#[tokio::test]
async fn abuse_ends_the_connection() {
    let limits = RateLimits {
        client_messages_burst: 1,
        client_messages_per_s: 100,
        client_slowed_max: Duration::from_millis(300),
        ..RateLimits::default()
    };
    let mut broker = gate(limits).await;
    let mut raw = Raw::connect(&broker, Connect { level: 5, ..Connect::new("T1") }).await;
    let mut told = broker.commit_all();
    // At once: the gate may close while a client still writes.
    let all: Vec<u8> =
        (1..=200).flat_map(|pkid| raw.publish_bytes(TOPIC.as_bytes(), 0, pkid, b"x")).collect();
    raw.send(&all).await;
    while soon(told.recv()).await.unwrap() != "T1 rate_limit" {}
    assert_eq!(raw.packet().await, Some(vec![0xE0, 1, 0x96]), "message rate too high");
    assert_eq!(broker.metrics.refused_for("rate_limit"), 1);
}
