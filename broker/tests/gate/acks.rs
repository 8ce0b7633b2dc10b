//! Nothing is acknowledged before it is committed.

use std::time::Duration;

use broker::{QoS, Reason};

use crate::harness::{Broker, Connect, Raw, config, soon, until};

const TOPIC: &str = "lift/v1/310115/T1/telemetry";

#[tokio::test]
async fn a_foreign_client_of_either_version_is_acknowledged_after_done() {
    let mut broker = Broker::start().await;
    for version in ["mqttv311", "mqttv5"] {
        for qos in ["0", "1", "2"] {
            let arguments = ["-i", "T1", "-V", version, "-q", qos, "-t", TOPIC, "-m", "hello"];
            let mut child = broker.mosquitto("mosquitto_pub", &arguments).spawn().unwrap();
            assert_eq!(broker.presence().await.reason, Reason::Connected);
            let publish = broker.publish().await;
            assert_eq!(
                (&*publish.client_id, &*publish.topic, &publish.payload[..]),
                ("T1", TOPIC, &b"hello"[..])
            );
            let expected =
                [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][qos.parse::<usize>().unwrap()];
            assert_eq!(publish.qos, expected);
            if publish.qos != QoS::AtMostOnce {
                let waits = tokio::time::timeout(Duration::from_millis(100), child.wait()).await;
                assert!(waits.is_err(), "{version} QoS {qos}: acknowledged before done");
            }
            publish.ack.done();
            assert!(soon(child.wait()).await.unwrap().success(), "{version} QoS {qos}");
            let gone = broker.presence().await;
            assert_eq!((gone.online, gone.reason), (false, Reason::Disconnected));
        }
    }
}

#[tokio::test]
async fn acknowledgements_leave_in_order_of_arrival() {
    let mut broker = Broker::start().await;
    let mut raw = Raw::connect(&broker, Connect::new("T1")).await;
    broker.presence().await;
    for pkid in [1, 2, 3] {
        raw.publish(TOPIC, 1, pkid, b"x").await;
    }
    let first = broker.publish().await.ack;
    let second = broker.publish().await.ack;
    let third = broker.publish().await.ack;
    third.done();
    second.done();
    raw.ping().await;
    first.done();
    for pkid in [1, 2, 3] {
        assert_eq!(raw.packet().await, Some(vec![0x40, 2, 0, pkid]));
    }
    assert_eq!(broker.metrics.acked.get(), 3);
}

#[tokio::test]
async fn every_holder_must_be_done() {
    let mut broker = Broker::start().await;
    let mut raw = Raw::connect(&broker, Connect::new("T1")).await;
    broker.presence().await;
    raw.publish(TOPIC, 1, 9, b"x").await;
    let ack = broker.publish().await.ack;
    let other = ack.clone();
    ack.done();
    raw.ping().await;
    other.done();
    assert_eq!(raw.packet().await, Some(vec![0x40, 2, 0, 9]));
}

#[tokio::test]
async fn a_failed_ack_closes_the_connection() {
    let mut broker = Broker::start().await;
    for level in [4, 5] {
        let mut raw = Raw::connect(&broker, Connect { level, ..Connect::new("T1") }).await;
        broker.presence().await;
        raw.publish(TOPIC, 1, 1, b"kept").await;
        raw.publish(TOPIC, 1, 2, b"failed").await;
        let kept = broker.publish().await.ack;
        drop(broker.publish().await);
        kept.done();
        assert_eq!(raw.packet().await, Some(vec![0x40, 2, 0, 1]));
        if level == 5 {
            assert_eq!(raw.packet().await, Some(vec![0xE0, 1, 0x80]));
        }
        raw.closed().await;
        assert_eq!(broker.presence().await.reason, Reason::AckFailed);
    }
}

#[tokio::test]
async fn a_qos_2_message_is_handed_over_once() {
    let mut broker = Broker::start().await;
    let mut raw = Raw::connect(&broker, Connect::new("T1")).await;
    broker.presence().await;
    raw.publish(TOPIC, 2, 5, b"x").await;
    raw.publish(TOPIC, 2, 5, b"x").await;
    broker.publish().await.ack.done();
    assert_eq!(raw.packet().await, Some(vec![0x50, 2, 0, 5]));
    raw.publish(TOPIC, 2, 5, b"x").await;
    assert_eq!(raw.packet().await, Some(vec![0x50, 2, 0, 5]), "PUBREC again");
    raw.send(&[0x62, 2, 0, 5]).await;
    assert_eq!(raw.packet().await, Some(vec![0x70, 2, 0, 5]));
    raw.publish(TOPIC, 2, 5, b"next").await;
    assert_eq!(&broker.publish().await.payload[..], b"next", "the duplicates were not handed over");
}

#[tokio::test]
async fn a_stop_writes_the_acknowledgements_that_are_outstanding() {
    let mut broker = Broker::start().await;
    let mut raw = Raw::connect(&broker, Connect { level: 5, ..Connect::new("T1") }).await;
    broker.presence().await;
    raw.publish(TOPIC, 1, 1, b"x").await;
    let ack = broker.publish().await.ack;
    broker.stop.cancel();
    until(|| std::net::TcpStream::connect(broker.address).is_err()).await;
    assert!(!broker.running.is_finished(), "it waits");
    ack.done();
    assert_eq!(raw.packet().await, Some(vec![0x40, 2, 0, 1]));
    assert_eq!(raw.packet().await, Some(vec![0xE0, 1, 0x8B]), "server shutting down");
    raw.closed().await;
    assert_eq!(broker.presence().await.reason, Reason::Stopping);
    soon(&mut broker.running).await.unwrap();
    assert!(broker.inbound.recv().await.is_none(), "no more senders");
}

#[tokio::test]
async fn a_stop_does_not_wait_for_ever() {
    let config = broker::GateConfig { drain_timeout: Duration::from_millis(100), ..config() };
    let mut broker = Broker::with(config, broker::HubConfig::default(), 100).await;
    let mut raw = Raw::connect(&broker, Connect::new("T1")).await;
    broker.presence().await;
    raw.publish(TOPIC, 1, 1, b"x").await;
    let never = broker.publish().await.ack;
    broker.stop.cancel();
    raw.closed().await;
    soon(&mut broker.running).await.unwrap();
    never.done();
}

#[tokio::test]
async fn acks_of_a_connection_that_was_taken_over_go_nowhere() {
    let mut broker = Broker::start().await;
    let mut old = Raw::connect(&broker, Connect::new("T1")).await;
    broker.presence().await;
    old.publish(TOPIC, 1, 1, b"old").await;
    let ack = broker.publish().await.ack;
    let mut new = Raw::connect(&broker, Connect::new("T1")).await;
    ack.done();
    new.ping().await;
    new.publish(TOPIC, 1, 1, b"new").await;
    new.ping().await;
}
