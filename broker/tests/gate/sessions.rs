//! What outlives a connection, what ends with it, and the wills that wait.

use std::time::Duration;

use broker::{Delivery, DeliveryReceipt, GateConfig, HubConfig, Inbound, Reason};

use crate::harness::{Broker, Connect, Raw, config, soon, until};

const DOWN: &str = "lift/v1/310115/T1/down";
const GONE: &str = "lift/v1/310115/T1/gone";
/// Session expiry interval of 100 s.
const EXPIRY: &[u8] = &[0x11, 0, 0, 0, 100];

fn old(client_id: &str) -> Connect<'_> {
    Connect { clean: false, ..Connect::new(client_id) }
}

fn new(client_id: &str) -> Connect<'_> {
    Connect { level: 5, clean: false, properties: EXPIRY, ..Connect::new(client_id) }
}

async fn gone(raw: Raw, broker: &Broker) {
    drop(raw);
    until(|| broker.metrics.connected.get() == 0).await;
}

#[tokio::test]
async fn a_session_is_present_until_it_is_begun_anew() {
    let mut broker = Broker::start().await;
    let _told = broker.commit_all();
    for is_new in [false, true] {
        let connect = if is_new { new } else { old };
        for expected in [false, true, true] {
            let (raw, present) = Raw::resume(&broker, connect("T1")).await;
            assert_eq!(present, expected);
            gone(raw, &broker).await;
        }
        let (raw, present) = Raw::resume(&broker, Connect { clean: true, ..connect("T1") }).await;
        assert!(!present, "clean");
        gone(raw, &broker).await;
        let (raw, present) = Raw::resume(&broker, connect("T1")).await;
        assert_eq!(present, is_new, "clean is for good in 3.1.1, for the beginning in 5");
        gone(raw, &broker).await;
        gone(Raw::connect(&broker, Connect::new("T1")).await, &broker).await;
    }
    until(|| broker.metrics.sessions.get() == 0).await;
}

#[tokio::test]
async fn a_goodbye_can_change_how_long_a_session_lives() {
    let mut broker = Broker::start().await;
    let _told = broker.commit_all();
    let (mut raw, _) = Raw::resume(&broker, new("T1")).await;
    raw.send(&[0xE0, 7, 0, 5, 0x11, 0, 0, 0, 0]).await;
    raw.closed().await;
    let (mut raw, present) = Raw::resume(&broker, Connect { properties: &[], ..new("T1") }).await;
    assert!(!present, "it ended with the goodbye");
    raw.send(&[0xE0, 7, 0, 5, 0x11, 0, 0, 0, 1]).await;
    assert_eq!(raw.packet().await, Some(vec![0xE0, 1, 0x82]), "what has no life cannot be given one");

    let (mut raw, _) = Raw::resume(&broker, new("T1")).await;
    raw.send(&[0xE0, 7, 0, 5, 0x11, 0, 0, 0, 1]).await;
    raw.closed().await;
    until(|| broker.metrics.sessions.get() == 0).await;
    let (_, present) = Raw::resume(&broker, new("T1")).await;
    assert!(!present, "expired");
}

#[tokio::test]
async fn a_delivery_in_flight_survives_the_connection() {
    let mut broker = Broker::start().await;
    for connect in [old, new] {
        let (mut raw, _) = Raw::resume(&broker, connect("T1")).await;
        broker.presence().await;
        raw.subscribe(DOWN, 1).await;
        assert!(matches!(broker.next().await, Inbound::Listening { .. }));
        let mut told = Vec::new();
        for payload in ["first", "second"] {
            let (receipt, done) = DeliveryReceipt::watched();
            told.push(done);
            let (topic, payload) = (DOWN.into(), payload.into());
            broker.control.deliver("T1", Delivery { topic, payload, expires_us: None, receipt }).unwrap();
        }
        assert_eq!(raw.delivered().await, (0x32, 1, "first".into()));
        assert_eq!(raw.delivered().await, (0x32, 2, "second".into()));
        drop(raw);
        assert_eq!(broker.presence().await.reason, Reason::Gone);

        let (mut raw, present) = Raw::resume(&broker, connect("T1")).await;
        assert!(present);
        broker.presence().await;
        assert!(matches!(broker.next().await, Inbound::Listening { .. }), "without another SUBSCRIBE");
        assert_eq!(raw.delivered().await, (0x3A, 1, "first".into()), "the same id, DUP");
        assert_eq!(raw.delivered().await, (0x3A, 2, "second".into()));
        raw.puback(1).await;
        soon(told.remove(0)).await.unwrap();
        let (receipt, _done) = DeliveryReceipt::watched();
        let (topic, payload) = (DOWN.into(), "third".into());
        broker.control.deliver("T1", Delivery { topic, payload, expires_us: None, receipt }).unwrap();
        assert_eq!(raw.delivered().await, (0x32, 3, "third".into()));
        drop(raw);
        broker.presence().await;
        // A clean start is the end of what was in flight.
        let raw = Raw::connect(&broker, Connect::new("T1")).await;
        assert!(soon(told.remove(0)).await.is_err());
        broker.presence().await;
        drop(raw);
        broker.presence().await;
    }
}

#[tokio::test]
async fn messages_wait_for_an_integration_that_sleeps() {
    let mut broker = Broker::start().await;
    let _told = broker.commit_all();
    for (not_kept, connect) in [50, 100].into_iter().zip([old, new]) {
        let (mut raw, _) = Raw::resume(&broker, connect("recorder")).await;
        raw.subscribe("lift/v1/#", 1).await;
        broker.hub.publish("lift/v1/x", "0".into(), false);
        assert_eq!(raw.delivered().await, (0x32, 1, "0".into()));
        gone(raw, &broker).await;
        let mut terminal = Raw::connect(&broker, Connect::new("T1")).await;
        for i in 1..=50_u8 {
            terminal.publish("lift/v1/1/T1/x", 0, 0, b"not kept").await;
            terminal.publish("lift/v1/1/T1/x", 1, i.into(), i.to_string().as_bytes()).await;
            assert_eq!(terminal.packet().await, Some(vec![0x40, 2, 0, i]));
        }
        gone(terminal, &broker).await;
        // The hub may be behind the acknowledgements: what it brings to one that is back is not left out.
        until(|| broker.metrics.hub_not_kept.get() == not_kept).await;
        let (mut raw, present) = Raw::resume(&broker, connect("recorder")).await;
        assert!(present);
        assert_eq!(raw.delivered().await, (0x3A, 1, "0".into()), "in flight first");
        for i in 1..=50 {
            let (first, pkid, payload) = raw.delivered().await;
            assert_eq!((first, payload), (0x32, i.to_string()));
            raw.puback(pkid).await;
        }
        raw.puback(1).await;
        broker.hub.publish("lift/v1/x", "live".into(), false);
        assert_eq!(raw.delivered().await.2, "live");
        gone(raw, &broker).await;
        gone(Raw::connect(&broker, Connect::new("recorder")).await, &broker).await;
    }
    until(|| broker.metrics.hub_subscribers.get() == 0).await;
}

#[tokio::test]
async fn a_session_with_missing_messages_is_not_resumed() {
    let hub = HubConfig { queue_len: 10, topics_max: 100, ..HubConfig::default() };
    let broker = Broker::with(config(), hub, 100).await;
    let (mut raw, _) = Raw::resume(&broker, old("recorder")).await;
    raw.subscribe("lift/v1/x", 1).await;
    gone(raw, &broker).await;
    for _ in 0..20 {
        broker.hub.publish("lift/v1/x", "x".into(), false);
    }
    until(|| broker.metrics.sessions.get() == 0).await;
    let (mut raw, present) = Raw::resume(&broker, old("recorder")).await;
    assert!(!present, "its queue overflowed");

    raw.subscribe("lift/v1/x", 1).await;
    gone(raw, &broker).await;
    for i in 0..101 {
        broker.hub.publish(&format!("lift/v1/many/{i}"), "x".into(), false);
    }
    until(|| broker.metrics.sessions.get() == 0).await;
    assert_eq!(broker.metrics.hub_rebuilt.get(), 1);
    let (_, present) = Raw::resume(&broker, old("recorder")).await;
    assert!(!present, "the router was replaced");
}

#[tokio::test]
async fn kept_sessions_are_bounded() {
    let config = GateConfig { sessions_max: 2, sessions_collecting_max: 1, ..config() };
    let mut broker = Broker::with(config, HubConfig::default(), 100).await;
    let _told = broker.commit_all();
    for id in ["T1", "T2", "T3"] {
        gone(Raw::resume(&broker, new(id)).await.0, &broker).await;
    }
    assert_eq!(broker.metrics.sessions.get(), 2);
    assert!(!Raw::resume(&broker, Connect { properties: &[], ..new("T1") }).await.1, "evicted");
    assert!(Raw::resume(&broker, Connect { properties: &[], ..new("T3") }).await.1);
    until(|| broker.metrics.connected.get() == 0).await;
    for id in ["one", "two"] {
        let (mut raw, _) = Raw::resume(&broker, new(id)).await;
        raw.subscribe("lift/v1/x", 1).await;
        gone(raw, &broker).await;
    }
    assert!(!Raw::resume(&broker, new("one")).await.1, "one place to collect");
    assert!(Raw::resume(&broker, new("two")).await.1);
}

#[tokio::test]
async fn qos_2_is_handed_over_once_though_the_connection_breaks() {
    let mut broker = Broker::start().await;
    for connect in [old, new] {
        let (mut raw, _) = Raw::resume(&broker, connect("T1")).await;
        broker.presence().await;
        raw.publish("lift/v1/1/T1/x", 2, 7, b"x").await;
        raw.publish("lift/v1/1/T1/x", 2, 8, b"y").await;
        let (first, second) = (broker.publish().await, broker.publish().await);
        drop(raw);
        broker.presence().await;
        first.ack.done();
        let (mut raw, present) = Raw::resume(&broker, connect("T1")).await;
        assert!(present);
        broker.presence().await;
        raw.ping().await;
        // Committed while it was away: answered at once. Not yet: when it is. Neither comes out again.
        raw.publish("lift/v1/1/T1/x", 2, 7, b"x").await;
        assert_eq!(raw.packet().await, Some(vec![0x50, 2, 0, 7]));
        raw.publish("lift/v1/1/T1/x", 2, 8, b"y").await;
        raw.ping().await;
        second.ack.done();
        assert_eq!(raw.packet().await, Some(vec![0x50, 2, 0, 8]));
        assert!(broker.inbound.is_empty());
        for pkid in [7, 8] {
            raw.send(&[0x62, 2, 0, pkid]).await;
            assert_eq!(raw.packet().await, Some(vec![0x70, 2, 0, pkid]));
        }
        drop(raw);
        broker.presence().await;
        let raw = Raw::connect(&broker, Connect::new("T1")).await;
        broker.presence().await;
        drop(raw);
        broker.presence().await;
    }
}

#[tokio::test]
async fn what_failed_while_its_client_was_away_is_handed_over_again() {
    let mut broker = Broker::start().await;
    let (mut raw, _) = Raw::resume(&broker, old("T1")).await;
    broker.presence().await;
    raw.publish("lift/v1/1/T1/x", 2, 7, b"x").await;
    let publish = broker.publish().await;
    drop(raw);
    broker.presence().await;
    drop(publish);
    let (mut raw, present) = Raw::resume(&broker, old("T1")).await;
    assert!(present);
    broker.presence().await;
    raw.publish("lift/v1/1/T1/x", 2, 7, b"x").await;
    broker.publish().await.ack.done();
    assert_eq!(raw.packet().await, Some(vec![0x50, 2, 0, 7]));
}

fn with_will(delay_s: &[u8]) -> Connect<'_> {
    Connect { will: Some((GONE, "gone", 1)), will_properties: delay_s, ..new("T1") }
}

#[tokio::test]
async fn a_will_waits_for_its_delay_unless_its_client_comes_back() {
    let mut broker = Broker::start().await;
    let soon_due = [0x18, 0, 0, 0, 1];
    let (raw, _) = Raw::resume(&broker, with_will(&soon_due)).await;
    broker.presence().await;
    let began = std::time::Instant::now();
    drop(raw);
    assert_eq!(broker.presence().await.reason, Reason::Gone);
    assert_eq!(&broker.publish().await.payload[..], b"gone");
    assert!(began.elapsed() > Duration::from_millis(500), "not at once");

    // Taken over and resumed: the old connection's will is not published.
    let late = [0x18, 0, 0, 0, 60];
    let (raw, present) = Raw::resume(&broker, with_will(&late)).await;
    assert!(present);
    let epoch = broker.presence().await.epoch;
    let (taking, present) = Raw::resume(&broker, with_will(&late)).await;
    assert!(present);
    let offline = broker.presence().await;
    assert_eq!((offline.reason, offline.epoch), (Reason::TakenOver, epoch));
    assert!(broker.presence().await.online);
    drop(raw);

    // A clean start ends the session: the will is due.
    drop(taking);
    broker.presence().await;
    let _clean = Raw::connect(&broker, Connect { level: 5, ..Connect::new("T1") }).await;
    let will = broker.publish().await;
    assert_eq!((&*will.topic, &*will.client_id), (GONE, "T1"));
    assert!(broker.presence().await.online);
}

#[tokio::test]
async fn wills_that_wait_are_published_at_a_stop_and_when_access_is_withdrawn() {
    let mut broker = Broker::start().await;
    let late = [0x18, 0, 0, 0, 60];
    for withdrawn in [true, false] {
        let (raw, _) = Raw::resume(&broker, with_will(&late)).await;
        broker.presence().await;
        drop(raw);
        broker.presence().await;
        if withdrawn {
            broker.control.end("T1", Reason::Revoked);
        } else {
            broker.stop.cancel();
        }
        assert_eq!(&broker.publish().await.payload[..], b"gone");
    }
    soon(&mut broker.running).await.unwrap();
    assert!(soon(broker.inbound.recv()).await.is_none(), "nobody can send any more");
}

#[tokio::test]
async fn a_will_without_delay_is_published_though_its_session_goes_on() {
    let mut broker = Broker::start().await;
    let (mut old, _) = Raw::resume(&broker, with_will(&[])).await;
    broker.presence().await;
    let (mut new, present) = Raw::resume(&broker, with_will(&[])).await;
    assert!(present, "the session was handed on");
    assert_eq!(old.packet().await, Some(vec![0xE0, 1, 0x8E]), "session taken over");
    assert_eq!(&broker.publish().await.payload[..], b"gone");
    assert_eq!(broker.presence().await.reason, Reason::TakenOver);
    assert!(broker.presence().await.online);
    new.ping().await;
}

#[tokio::test]
async fn retained_messages_still_owed_come_after_a_resume() {
    let config = GateConfig { inflight_max: 2, ..config() };
    let broker = Broker::with(config, HubConfig::default(), 100).await;
    for i in 0..5 {
        broker.hub.publish(&format!("lift/v1/{i}"), i.to_string().into(), true);
    }
    let (mut raw, _) = Raw::resume(&broker, new("dashboard")).await;
    raw.subscribe("lift/v1/#", 1).await;
    assert_eq!(raw.delivered().await, (0x33, 1, "0".into()));
    assert_eq!(raw.delivered().await, (0x33, 2, "1".into()));
    gone(raw, &broker).await;
    let (mut raw, _) = Raw::resume(&broker, new("dashboard")).await;
    for (i, first) in [0x3B, 0x3B, 0x33, 0x33, 0x33].into_iter().enumerate() {
        let (byte, pkid, payload) = raw.delivered().await;
        assert_eq!((byte, payload), (first, i.to_string()));
        raw.puback(pkid).await;
    }
}

#[tokio::test]
async fn subscribers_get_a_will_after_what_was_published_before_it() {
    let mut broker = Broker::start().await;
    let mut subscriber = Raw::connect(&broker, Connect::new("dashboard")).await;
    subscriber.subscribe("lift/v1/#", 1).await;
    let mut raw =
        Raw::connect(&broker, Connect { will: Some((GONE, "gone", 1)), ..Connect::new("T1") }).await;
    broker.presence().await;
    raw.publish(GONE, 1, 1, b"here").await;
    let here = broker.publish().await;
    drop(raw);
    broker.publish().await.ack.done();
    broker.presence().await;
    subscriber.ping().await;
    here.ack.done();
    assert_eq!(subscriber.delivered().await.2, "here");
    assert_eq!(subscriber.delivered().await.2, "gone");
}
