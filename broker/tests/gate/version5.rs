//! What only MQTT 5 can say, and what other clients make of our sessions.

use std::time::Duration;

use broker::{Delivery, DeliveryReceipt, Inbound};
use rumqttc::v5;

use crate::harness::{Broker, Connect, Raw, packet, soon, until};

const TOPIC: &str = "lift/v1/310115/T1/telemetry";

fn new(client_id: &str) -> Connect<'_> {
    Connect { level: 5, ..Connect::new(client_id) }
}

/// A PUBLISH with a topic alias.
fn aliased(topic: &str, alias: u8, payload: &str) -> Vec<u8> {
    let mut body = vec![0, topic.len() as u8];
    body.extend(topic.as_bytes());
    body.extend([3, 0x23, 0, alias]);
    body.extend(payload.as_bytes());
    packet(0x30, &body)
}

#[tokio::test]
async fn connack_says_what_is_offered() {
    let broker = Broker::start().await;
    let properties = |ack: &[u8], property: &[u8]| ack.windows(property.len()).any(|bytes| bytes == property);
    for (client_id, no_wildcards) in [("T1", true), ("dashboard", false)] {
        let mut raw = Raw::open(&broker).await;
        // Lives for ever, if it may.
        let expiry = [0x11, 0xFF, 0xFF, 0xFF, 0xFF];
        raw.send(&Connect { keep_alive_s: 0, properties: &expiry, ..new(client_id) }.bytes()).await;
        let ack = raw.packet().await.unwrap();
        assert!(properties(&ack, &[0x11, 0, 1, 0x51, 0x80]), "a day: {ack:?}");
        assert!(properties(&ack, &[0x13, 2, 0x58]), "keep-alive of 600 s: {ack:?}");
        assert!(properties(&ack, &[0x21, 3, 0xE8]), "receive maximum: {ack:?}");
        assert!(properties(&ack, &[0x22, 0, 16]), "topic aliases: {ack:?}");
        assert!(properties(&ack, &[0x2A, 0]), "no shared subscriptions: {ack:?}");
        assert_eq!(properties(&ack, &[0x28, 0]), no_wildcards, "{ack:?}");
    }
}

#[tokio::test]
async fn a_topic_alias_stands_for_its_topic() {
    let mut broker = Broker::start().await;
    let mut raw = Raw::connect(&broker, new("T1")).await;
    broker.presence().await;
    raw.send(&aliased(TOPIC, 16, "one")).await;
    raw.send(&aliased("", 16, "two")).await;
    raw.send(&aliased("lift/v1/1/T1/other", 16, "three")).await;
    raw.send(&aliased("", 16, "four")).await;
    for expected in
        [(TOPIC, "one"), (TOPIC, "two"), ("lift/v1/1/T1/other", "three"), ("lift/v1/1/T1/other", "four")]
    {
        let publish = broker.publish().await;
        assert_eq!((&*publish.topic, &*String::from_utf8_lossy(&publish.payload)), expected);
    }
    for (alias, code) in [(0, 0x94), (17, 0x94), (3, 0x82)] {
        let mut raw = Raw::connect(&broker, new("T2")).await;
        raw.send(&aliased("", alias, "x")).await;
        assert_eq!(raw.packet().await, Some(vec![0xE0, 1, code]), "alias {alias}");
    }
}

#[tokio::test]
async fn subscription_identifiers_come_with_the_messages() {
    let broker = Broker::start().await;
    broker.hub.publish("lift/v1/kept", "kept".into(), true);
    let mut raw = Raw::connect(&broker, new("dashboard")).await;
    let mut body = vec![0, 1, 2, 0x0B, 9, 0, 9];
    body.extend(b"lift/v1/#");
    body.push(1);
    raw.send(&packet(0x82, &body)).await;
    assert_eq!(raw.packet().await, Some(vec![0x90, 4, 0, 1, 0, 1]));
    let identified = |publish: &[u8]| publish.windows(2).any(|bytes| bytes == [0x0B, 9]);
    let kept = raw.packet().await.unwrap();
    assert!(identified(&kept) && kept.ends_with(b"kept"));
    broker.hub.publish("lift/v1/x", "live".into(), false);
    let live = raw.packet().await.unwrap();
    assert!(identified(&live) && live.ends_with(b"live"));
}

#[tokio::test]
async fn what_a_client_cannot_take_is_not_sent_to_it() {
    let mut broker = Broker::start().await;
    // Packets of 200 bytes, one message at a time.
    let properties = [0x27, 0, 0, 0, 200, 0x21, 0, 1];
    let mut raw = Raw::connect(&broker, Connect { properties: &properties, ..new("T1") }).await;
    broker.presence().await;
    raw.subscribe("lift/v1/1/T1/down", 1).await;
    assert!(matches!(broker.next().await, Inbound::Listening { .. }));
    let deliver = |payload: String| {
        let (receipt, told) = DeliveryReceipt::watched();
        let (topic, payload) = ("lift/v1/1/T1/down".into(), payload.into());
        broker.control.deliver("T1", Delivery { topic, payload, expires_us: None, receipt }).unwrap();
        told
    };
    let large = deliver("x".repeat(300));
    let (first, second) = (deliver("first".into()), deliver("second".into()));
    assert!(soon(large).await.is_err());
    let (_, pkid, payload) = raw.delivered().await;
    assert_eq!(payload, "first");
    raw.ping().await;
    raw.puback(pkid).await;
    soon(first).await.unwrap();
    let (_, pkid, payload) = raw.delivered().await;
    assert_eq!(payload, "second");
    raw.puback(pkid).await;
    soon(second).await.unwrap();
}

#[tokio::test]
async fn a_delivery_says_how_long_it_is_good_for() {
    let mut broker = Broker::start().await;
    let mut raw = Raw::connect(&broker, new("T1")).await;
    broker.presence().await;
    raw.subscribe("lift/v1/1/T1/down", 1).await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let expires_us = Some(now.as_micros() as i64 + 200_000_000);
    let (receipt, _told) = DeliveryReceipt::watched();
    let delivery = Delivery { topic: "lift/v1/1/T1/down".into(), payload: "x".into(), expires_us, receipt };
    broker.control.deliver("T1", delivery).unwrap();
    let publish = raw.packet().await.unwrap();
    let property = publish.windows(5).find(|bytes| bytes[..4] == [2, 0, 0, 0]).expect("message expiry");
    assert!((190..=200).contains(&property[4]), "{property:?}");
}

/// rumqttc of version 5 sleeps through messages and gets them, its acknowledged ones not again.
#[tokio::test]
async fn a_foreign_client_of_version_5_resumes_its_session() {
    let mut broker = Broker::start().await;
    let _told = broker.commit_all();
    let connect = || {
        let mut options = v5::MqttOptions::new("recorder", "127.0.0.1", broker.address.port());
        options
            .set_clean_start(false)
            .set_session_expiry_interval(Some(100))
            .set_keep_alive(Duration::from_secs(30));
        v5::AsyncClient::new(options, 10)
    };
    let mut expected = 0_u32;
    for round in 0..3 {
        let (client, mut events) = connect();
        if round == 0 {
            client.subscribe("lift/v1/#", v5::mqttbytes::QoS::AtLeastOnce).await.unwrap();
        }
        let mut subscribed = round > 0;
        while expected < round * 10 || !subscribed {
            match soon(events.poll()).await.unwrap() {
                v5::Event::Incoming(v5::Incoming::ConnAck(ack)) => assert_eq!(ack.session_present, round > 0),
                v5::Event::Incoming(v5::Incoming::SubAck(_)) => subscribed = true,
                v5::Event::Incoming(v5::Incoming::Publish(publish)) => {
                    assert_eq!(publish.payload, expected.to_string());
                    expected += 1;
                }
                _ => {}
            }
        }
        // All that was received is acknowledged before the goodbye.
        client.disconnect().await.unwrap();
        while soon(events.poll()).await.is_ok() {}
        drop(events);
        until(|| broker.metrics.connected.get() == 0).await;
        for i in 0..10 {
            broker.hub.publish("lift/v1/x", (round * 10 + i).to_string().into(), false);
        }
    }
    assert_eq!(expected, 20);
}

/// The same with version 3.1.1, and without a goodbye.
#[tokio::test]
async fn a_foreign_client_of_version_3_resumes_its_session() {
    use rumqttc::{AsyncClient, Event, Incoming, MqttOptions, QoS};
    let mut broker = Broker::start().await;
    let _told = broker.commit_all();
    let connect = || {
        let mut options = MqttOptions::new("recorder", "127.0.0.1", broker.address.port());
        options.set_clean_session(false).set_keep_alive(Duration::from_secs(30));
        AsyncClient::new(options, 10)
    };
    let (client, mut events) = connect();
    client.subscribe("lift/v1/#", QoS::AtLeastOnce).await.unwrap();
    while !matches!(soon(events.poll()).await.unwrap(), Event::Incoming(Incoming::SubAck(_))) {}
    drop((client, events));
    until(|| broker.metrics.connected.get() == 0).await;
    for i in 0..10 {
        broker.hub.publish("lift/v1/x", i.to_string().into(), false);
    }
    let (_client, mut events) = connect();
    let mut expected = 0;
    while expected < 10 {
        match soon(events.poll()).await.unwrap() {
            Event::Incoming(Incoming::ConnAck(ack)) => assert!(ack.session_present),
            Event::Incoming(Incoming::Publish(publish)) => {
                assert_eq!(publish.payload, expected.to_string());
                expected += 1;
            }
            _ => {}
        }
    }
}
