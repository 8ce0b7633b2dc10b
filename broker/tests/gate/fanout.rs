//! Committed messages reach subscribers, slow ones hurt nobody.

use broker::{GateConfig, HubConfig};
use tokio::io::AsyncReadExt;

use crate::harness::{Broker, Connect, Raw, config, soon, until};

#[tokio::test]
async fn committed_messages_reach_subscribers_of_either_version() {
    let mut broker = Broker::start().await;
    let _told = broker.commit_all();
    for version in ["mqttv311", "mqttv5"] {
        for qos in ["0", "1", "2"] {
            let mut subscriber = broker.mosquitto_sub(&["-t", "lift/v1/#", "-v", "-V", version, "-q", qos]);
            broker.settle(&mut subscriber).await;
            for sent_qos in ["0", "1", "2"] {
                let topic = "lift/v1/310115/T1/event.json";
                let message = format!("{version} {qos} {sent_qos}");
                let arguments = ["-i", "T1", "-t", topic, "-m", &message, "-q", sent_qos, "-V", version];
                assert!(broker.mosquitto_pub(&arguments).await.0);
                assert_eq!(subscriber.line().await, format!("{topic} {message}"));
            }
        }
    }
}

#[tokio::test]
async fn nothing_is_fanned_out_before_it_is_committed() {
    let mut broker = Broker::start().await;
    let mut subscriber = broker.mosquitto_sub(&["-t", "lift/v1/#", "-v"]);
    broker.settle(&mut subscriber).await;
    let mut raw = Raw::connect(&broker, Connect::new("T1")).await;
    broker.presence().await;
    raw.publish("lift/v1/1/T1/x", 1, 1, b"first").await;
    raw.publish("lift/v1/1/T1/x", 1, 2, b"second").await;
    let (first, second) = (broker.publish().await.ack, broker.publish().await.ack);
    second.done();
    raw.ping().await;
    broker.hub.publish("lift/v1/server", "between".into(), false);
    assert_eq!(subscriber.line().await, "lift/v1/server between");
    first.done();
    assert_eq!(subscriber.line().await, "lift/v1/1/T1/x first");
    assert_eq!(subscriber.line().await, "lift/v1/1/T1/x second");
}

#[tokio::test]
async fn a_message_is_fanned_out_though_its_connection_is_gone() {
    let mut broker = Broker::start().await;
    let mut subscriber = broker.mosquitto_sub(&["-t", "lift/v1/#", "-v"]);
    broker.settle(&mut subscriber).await;
    assert!(broker.mosquitto_pub(&["-i", "T1", "-t", "lift/v1/1/T1/x", "-m", "last"]).await.0);
    broker.presence().await;
    let publish = broker.publish().await;
    assert!(!broker.presence().await.online);
    publish.ack.done();
    assert_eq!(subscriber.line().await, "lift/v1/1/T1/x last");
}

#[tokio::test]
async fn retained_presence_reaches_who_subscribes_later() {
    let broker = Broker::start().await;
    for i in 0..1_000 {
        broker.hub.publish(&format!("lift/v1/310115/T{i}/presence"), "online".into(), true);
    }
    broker.hub.publish("lift/v1/310115/T7/presence", "offline".into(), true);
    broker.hub.publish("lift/v1/310115/T8/presence", "".into(), true);
    for qos in ["0", "1"] {
        let mut subscriber = broker.mosquitto_sub(&["-t", "lift/v1/#", "-v", "-q", qos, "-V", "mqttv5"]);
        let mut lines = std::collections::BTreeSet::new();
        for _ in 0..999 {
            lines.insert(subscriber.line().await);
        }
        assert_eq!(lines.len(), 999);
        assert!(lines.contains("lift/v1/310115/T7/presence offline"));
        assert!(!lines.iter().any(|line| line.contains("/T8/")));
        broker.settle(&mut subscriber).await;
    }
}

#[tokio::test]
async fn a_retained_last_will_is_kept_once_committed() {
    let mut broker = Broker::start().await;
    let _told = broker.commit_all();
    let topic = "lift/v1/310115/T1/presence";
    let arguments = ["-i", "T1", "-t", topic, "-m", "here", "-r", "-q", "1"];
    assert!(broker.mosquitto_pub(&arguments).await.0);
    until(|| broker.metrics.retained.get() == 1).await;
    let mut subscriber = broker.mosquitto_sub(&["-t", topic, "-F", "%r %p"]);
    assert_eq!(subscriber.line().await, "1 here");
}

#[tokio::test]
async fn mqtt_5_subscribers_learn_when_a_message_arrived() {
    let mut broker = Broker::start().await;
    let mut subscriber = broker.mosquitto_sub(&["-t", "lift/v1/1/#", "-V", "mqttv5", "-F", "%P %C"]);
    let mut raw = Raw::connect(&broker, Connect::new("T0")).await;
    broker.presence().await;
    // Until the subscription holds: it tells nobody.
    soon(async {
        loop {
            raw.publish("lift/v1/1/T0/x", 0, 0, b"x").await;
            broker.publish().await.ack.done();
            let line = tokio::time::timeout(std::time::Duration::from_millis(200), subscriber.line()).await;
            if line.is_ok() {
                return;
            }
        }
    })
    .await;
    let command = ["-i", "T1", "-V", "mqttv5", "-t", "lift/v1/1/T1/x", "-m", "x", "-q", "1"];
    let properties =
        ["-D", "publish", "user-property", "a", "b", "-D", "publish", "content-type", "text/plain"];
    let mut child = broker.mosquitto("mosquitto_pub", &[&command[..], &properties].concat()).spawn().unwrap();
    broker.presence().await;
    let publish = broker.publish().await;
    let properties = publish.properties.clone().unwrap();
    assert_eq!(properties.content_type.as_deref(), Some("text/plain"));
    let arrived_us = publish.arrived_us;
    publish.ack.done();
    soon(child.wait()).await.unwrap();
    let mut line = subscriber.line().await;
    // Those that were sent until the subscription held may come late.
    while line.starts_with("liftwatch-arrived-us:") {
        line = subscriber.line().await;
    }
    assert_eq!(line, format!("a:b liftwatch-arrived-us:{arrived_us} text/plain"));
}

#[tokio::test]
async fn a_subscriber_that_stops_reading_hurts_nobody() {
    let hub = HubConfig { queue_len: 1_000, ..HubConfig::default() };
    let mut broker = Broker::with(config(), hub, 10_000).await;
    let mut told = broker.commit_all();
    let mut slow = Raw::connect(&broker, Connect { level: 5, ..Connect::new("slow") }).await;
    slow.subscribe("lift/v1/#", 0).await;
    let mut good = broker.mosquitto_sub(&["-t", "lift/v1/1/T1/#", "-v", "-q", "1"]);
    broker.settle_on("lift/v1/1/T1/sentinel", &mut good).await;
    let mut raw = Raw::connect(&broker, Connect::new("T1")).await;
    assert_eq!(told.recv().await.unwrap(), "T1 connected");
    let payload = vec![b'x'; 20_000];
    let mut sent = 0_u32;
    // It never reads: socket buffers, then its queue, then it is out.
    while broker.metrics.hub_overflowed.get() == 0 {
        sent += 1;
        assert!(sent < 20_000, "never disconnected");
        raw.publish("lift/v1/1/T1/x", 1, (sent % 60_000 + 1) as u16, &payload).await;
        assert_eq!(raw.packet().await.unwrap()[0], 0x40);
        assert!(good.line().await.ends_with('x'));
    }
    // Everyone else went on, and the router lives when the slow one is gone for good.
    drop(slow);
    raw.publish("lift/v1/1/T1/last", 1, 65_000, b"last").await;
    assert_eq!(good.line().await, "lift/v1/1/T1/last last");
    until(|| broker.metrics.hub_subscribers.get() == 1).await;
    assert_eq!(broker.metrics.hub_rebuilt.get(), 0);
}

#[tokio::test]
async fn a_router_that_knows_too_much_is_replaced() {
    let hub = HubConfig { topics_max: 50, ..HubConfig::default() };
    let broker = Broker::with(config(), hub, 100).await;
    broker.hub.publish("lift/v1/kept", "kept".into(), true);
    let mut first = Raw::connect(&broker, Connect { level: 5, ..Connect::new("first") }).await;
    first.subscribe("lift/v1/many/#", 0).await;
    for i in 0..60 {
        broker.hub.publish(&format!("lift/v1/many/{i}"), "x".into(), false);
    }
    until(|| broker.metrics.hub_rebuilt.get() == 1).await;
    // Its subscribers are sent away, come back, and find what is retained.
    while let Some(packet) = first.packet().await {
        assert!(packet[0] == 0x30 || packet[..] == [0xE0, 1, 0x89], "{packet:?}");
    }
    let mut second = broker.mosquitto_sub(&["-t", "lift/v1/#", "-v"]);
    assert_eq!(second.line().await, "lift/v1/kept kept");
    broker.settle(&mut second).await;
    assert_eq!(broker.metrics.hub_rebuilt.get(), 1, "once");
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_closed() {
    let config = GateConfig { write_timeout: std::time::Duration::from_millis(300), ..config() };
    let broker = Broker::with(config, HubConfig::default(), 100).await;
    let mut raw = Raw::connect(&broker, Connect { level: 5, ..Connect::new("deaf") }).await;
    raw.subscribe("lift/v1/#", 0).await;
    let payload = bytes::Bytes::from(vec![b'x'; 100_000]);
    until(|| {
        broker.hub.publish("lift/v1/x", payload.clone(), false);
        broker.metrics.connected.get() == 0
    })
    .await;
    while raw.stream.read(&mut [0; 8_192]).await.is_ok_and(|n| n > 0) {}
}

#[tokio::test]
async fn a_message_that_expires_is_left_out_and_hurts_nobody() {
    let mut broker = Broker::start().await;
    let _told = broker.commit_all();
    let mut subscriber = broker.mosquitto_sub(&["-t", "lift/v1/#", "-V", "mqttv5", "-q", "1", "-F", "%p %E"]);
    broker.settle(&mut subscriber).await;
    let publish = ["-i", "T1", "-V", "mqttv5", "-q", "1", "-t", "lift/v1/1/T1/x"];
    let expiry = |seconds| ["-m", "x", "-D", "publish", "message-expiry-interval", seconds];
    for seconds in ["0", "0", "100"] {
        assert!(broker.mosquitto_pub(&[&publish[..], &expiry(seconds)].concat()).await.0);
    }
    let line = subscriber.line().await;
    // Less what it has waited.
    let left = line.strip_prefix("x ").and_then(|left| left.parse::<u32>().ok());
    assert!(left.is_some_and(|left| (50..=100).contains(&left)), "{line}");
    assert_eq!(broker.metrics.hub_overflowed.get(), 0);
}

#[tokio::test]
async fn properties_of_any_size_are_bounded_on_the_way_out() {
    let mut broker = Broker::start().await;
    let _told = broker.commit_all();
    let mut subscriber = broker.mosquitto_sub(&["-t", "lift/v1/#", "-V", "mqttv5", "-F", "%p %P"]);
    broker.settle(&mut subscriber).await;
    let large = "x".repeat(2_000);
    let publish = ["-i", "T1", "-V", "mqttv5", "-t", "lift/v1/1/T1/x", "-m", "m"];
    let property = ["-D", "publish", "user-property", "a", &large];
    assert!(broker.mosquitto_pub(&[&publish[..], &property].concat()).await.0);
    let line = subscriber.line().await;
    assert!(line.starts_with("m liftwatch-arrived-us:"), "{line}");
}

#[tokio::test]
async fn a_fleet_does_not_shut_out_a_dashboard() {
    let hub = HubConfig { subscribers_max: 1, ..HubConfig::default() };
    let broker = Broker::with(config(), hub, 100).await;
    let mut clients = Vec::new();
    let cases = [("T1", 1), ("T2", 1), ("dashboard", 1), ("another", 0x80)];
    for (id, expected) in cases {
        let mut raw = Raw::connect(&broker, Connect::new(id)).await;
        assert_eq!(
            raw.subscribe(&format!("lift/v1/1/{id}/down"), 1).await,
            [0x90, 3, 0, 1, expected],
            "{id}"
        );
        raw.ping().await;
        clients.push(raw);
    }
    assert_eq!(broker.metrics.hub_subscribers.get(), 1, "terminals take no place");
}
