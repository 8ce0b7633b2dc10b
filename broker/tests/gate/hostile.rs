//! What a client must not do, and what does not kill us.

use broker::Reason;

use crate::harness::{Broker, Connect, Raw, packet, until};

#[tokio::test]
async fn a_refused_topic_disconnects() {
    let mut broker = Broker::start().await;
    for level in [4, 5] {
        let mut raw = Raw::connect(&broker, Connect { level, ..Connect::new("T1") }).await;
        broker.presence().await;
        raw.publish("lift/v1/310115/T2/telemetry", 1, 1, b"x").await;
        if level == 5 {
            assert_eq!(raw.packet().await, Some(vec![0xE0, 1, 0x87]));
        }
        raw.closed().await;
        assert_eq!(broker.presence().await.reason, Reason::NotAuthorized);
    }
    let arguments = ["-i", "T1", "-q", "1", "-t", "lift/v1/310115/T2/telemetry", "-m", "x"];
    assert!(!broker.mosquitto_pub(&arguments).await.0);
}

#[tokio::test]
async fn a_refused_subscription_is_answered() {
    let broker = Broker::start().await;
    let mut raw = Raw::connect(&broker, Connect::new("T1")).await;
    assert_eq!(raw.subscribe("lift/v1/310115/T2/down", 1).await, [0x90, 3, 0, 1, 0x80]);
    assert_eq!(
        raw.subscribe("lift/v1/+/T1/down", 1).await,
        [0x90, 3, 0, 1, 0x80],
        "no wildcards for terminals"
    );
    assert_eq!(raw.subscribe("lift/v1/310115/T1/down", 2).await, [0x90, 3, 0, 1, 1], "QoS 1 at most");
    let mut raw = Raw::connect(&broker, Connect { level: 5, ..Connect::new("dashboard") }).await;
    assert_eq!(raw.subscribe("#", 1).await, [0x90, 4, 0, 1, 0, 0x87]);
    assert_eq!(raw.subscribe("$share/g/lift/v1/#", 1).await, [0x90, 4, 0, 1, 0, 0x9E]);
    assert_eq!(broker.metrics.subscribe_refused.get(), 4);
}

#[tokio::test]
async fn garbage_is_turned_away_and_others_are_served() {
    let broker = Broker::start().await;
    let mut good = Raw::connect(&broker, Connect::new("T1")).await;
    for garbage in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x16, 3, 1, 0, 5], &[0x10, 0xFF, 0xFF, 0xFF, 0xFF], &[0xC0, 0]]
    {
        let mut raw = Raw::open(&broker).await;
        raw.send(garbage).await;
        raw.closed().await;
    }
    for garbage in [
        &[0xFF; 64][..],
        &[0x30, 0xFF, 0xFF, 0xFF, 0xFF],
        &[0x32, 3, 0, 1, b'a'],
        &[0x60, 2, 0, 1],
        &[0xF0, 0],
    ] {
        for level in [4, 5] {
            let mut raw = Raw::connect(&broker, Connect { level, ..Connect::new("T9") }).await;
            raw.send(garbage).await;
            while let Some(packet) = raw.packet().await {
                assert_eq!(packet[0], 0xE0, "only a goodbye: {packet:?}");
            }
        }
    }
    let mut raw = Raw::connect(&broker, Connect::new("T9")).await;
    raw.send(&Connect::new("T9").bytes()).await;
    raw.closed().await;
    good.ping().await;
}

#[tokio::test]
async fn an_old_version_is_told_so() {
    let broker = Broker::start().await;
    let mut raw = Raw::open(&broker).await;
    raw.send(&Connect { level: 3, ..Connect::new("T1") }.bytes()).await;
    assert_eq!(raw.packet().await, Some(vec![0x20, 2, 0, 1]));
    raw.closed().await;
}

#[tokio::test]
async fn hostile_topics_never_reach_the_router() {
    let mut broker = Broker::start().await;
    let mut told = broker.commit_all();
    let mut subscriber = broker.mosquitto_sub(&["-t", "lift/v1/#", "-v"]);
    let mut raw = Raw::connect(&broker, Connect::new("gateway")).await;
    raw.publish("电梯/一", 1, 1, b"accepted, not fanned out").await;
    assert_eq!(raw.packet().await, Some(vec![0x40, 2, 0, 1]));
    assert_eq!(told.recv().await.unwrap(), "电梯/一 accepted, not fanned out");
    for topic in [&b"lift/v1/+"[..], b"lift/v1/#", b"lift/v1/\0", b"", b"lift/\xFF\xFE"] {
        let mut raw = Raw::connect(&broker, Connect::new("intruder")).await;
        let bytes = raw.publish_bytes(topic, 1, 1, b"x");
        raw.send(&bytes).await;
        raw.closed().await;
    }
    broker.hub.publish("电梯/一", "x".into(), true);
    broker.settle(&mut subscriber).await;
    raw.publish("lift/v1/after", 1, 2, b"still alive").await;
    assert_eq!(subscriber.line().await, "lift/v1/after still alive");
    assert_eq!(broker.metrics.hub_rebuilt.get(), 0);
}

#[tokio::test]
async fn payloads_are_bounded() {
    let mut broker = Broker::start().await;
    let mut told = broker.commit_all();
    let mut raw = Raw::connect(&broker, Connect { level: 5, ..Connect::new("T1") }).await;
    assert_eq!(told.recv().await.unwrap(), "T1 connected");
    raw.publish("lift/v1/310115/T1/telemetry", 1, 1, &vec![b'x'; 1 << 20]).await;
    assert_eq!(raw.packet().await, Some(vec![0x40, 2, 0, 1]));
    assert!(told.recv().await.unwrap().len() > 1 << 20);
    raw.publish("lift/v1/310115/T1/telemetry", 1, 2, &vec![b'x'; (1 << 20) + 1]).await;
    assert_eq!(raw.packet().await, Some(vec![0xE0, 1, 0x95]), "packet too large");
    raw.closed().await;
    let mut raw = Raw::connect(&broker, Connect::new("T1")).await;
    raw.send(&packet(0x82, &vec![0; 20_000])).await;
    raw.closed().await;
    until(|| broker.metrics.budget_bytes.get() == 0).await;
}
