//! Messages of the server for one terminal: acknowledged, bounded, told of when they do not arrive.

use broker::{DeliverError, Delivery, DeliveryReceipt, GateConfig, HubConfig, Inbound, Reason};
use tokio::sync::oneshot;

use crate::harness::{Broker, Connect, Raw, config, soon};

const DOWN: &str = "lift/v1/310115/T1/down";

fn delivery(payload: &str) -> (Delivery, oneshot::Receiver<()>) {
    let (receipt, told) = DeliveryReceipt::watched();
    let payload = payload.to_owned().into();
    (Delivery { topic: DOWN.into(), payload, expires_us: None, receipt }, told)
}

async fn listening(broker: &mut Broker) {
    match broker.next().await {
        Inbound::Listening { client_id } => assert_eq!(&*client_id, "T1"),
        other => panic!("{other:?} instead of listening"),
    }
}

/// A connected terminal that listens with `qos`.
async fn terminal(broker: &mut Broker, level: u8, qos: u8) -> Raw {
    let mut raw = Raw::connect(broker, Connect { level, ..Connect::new("T1") }).await;
    broker.presence().await;
    let ack = raw.subscribe(DOWN, qos).await;
    assert_eq!((ack[0], ack.last()), (0x90, Some(&qos)));
    listening(broker).await;
    raw
}

fn publish(level: u8, first: u8, pkid: Option<u8>, payload: &str) -> Vec<u8> {
    let mut body = vec![0, DOWN.len() as u8];
    body.extend(DOWN.as_bytes());
    body.extend(pkid.iter().flat_map(|pkid| [0, *pkid]));
    body.extend((level == 5).then_some(0));
    body.extend(payload.as_bytes());
    crate::harness::packet(first, &body)
}

#[tokio::test]
async fn a_delivery_ends_with_the_acknowledgement() {
    let mut broker = Broker::start().await;
    for level in [4, 5] {
        let mut raw = terminal(&mut broker, level, 1).await;
        let (first, mut told) = delivery("first");
        broker.control.deliver("T1", first).unwrap();
        assert_eq!(raw.packet().await, Some(publish(level, 0x32, Some(1), "first")));
        raw.ping().await;
        assert_eq!(told.try_recv(), Err(oneshot::error::TryRecvError::Empty), "not yet acknowledged");
        raw.send(&[0x40, 2, 0, 1]).await;
        soon(told).await.unwrap();
        drop(raw);
        assert_eq!(broker.presence().await.reason, Reason::Gone);
    }
}

#[tokio::test]
async fn a_delivery_with_qos_0_ends_when_it_is_written() {
    let mut broker = Broker::start().await;
    let mut raw = terminal(&mut broker, 4, 0).await;
    let (first, told) = delivery("first");
    broker.control.deliver("T1", first).unwrap();
    assert_eq!(raw.packet().await, Some(publish(4, 0x30, None, "first")));
    soon(told).await.unwrap();
}

#[tokio::test]
async fn only_who_listens_is_delivered_to() {
    let mut broker = Broker::start().await;
    let deliver = |broker: &Broker, client_id: &str| broker.control.deliver(client_id, delivery("x").0);
    assert_eq!(deliver(&broker, "T1"), Err(DeliverError::NotConnected));
    let mut raw = Raw::connect(&broker, Connect::new("T1")).await;
    broker.presence().await;
    assert_eq!(deliver(&broker, "T1"), Err(DeliverError::NotSubscribed));
    raw.subscribe("lift/v1/310115/T1/other", 1).await;
    listening(&mut broker).await;
    assert_eq!(deliver(&broker, "T1"), Err(DeliverError::NotSubscribed));
    raw.subscribe(DOWN, 1).await;
    listening(&mut broker).await;
    assert_eq!(deliver(&broker, "T1"), Ok(()));
    assert_eq!(raw.packet().await, Some(publish(4, 0x32, Some(1), "x")));
    let mut body = vec![0, 7, 0, DOWN.len() as u8];
    body.extend(DOWN.as_bytes());
    raw.send(&crate::harness::packet(0xA2, &body)).await;
    assert_eq!(raw.packet().await, Some(vec![0xB0, 2, 0, 7]));
    assert_eq!(deliver(&broker, "T1"), Err(DeliverError::NotSubscribed));
    // What the hub carries is not for terminals.
    broker.hub.publish(DOWN, "from the hub".into(), false);
    raw.ping().await;
}

#[tokio::test]
async fn the_queue_is_bounded_and_its_receipts_are_dropped_with_the_connection() {
    let config = GateConfig { inflight_max: 1, deliveries_max: 2, ..config() };
    let mut broker = Broker::with(config, HubConfig::default(), 100).await;
    let mut raw = terminal(&mut broker, 5, 1).await;
    let (first, told_first) = delivery("first");
    broker.control.deliver("T1", first).unwrap();
    assert_eq!(raw.packet().await, Some(publish(5, 0x32, Some(1), "first")));
    let (second, told_second) = delivery("second");
    let (third, told_third) = delivery("third");
    broker.control.deliver("T1", second).unwrap();
    broker.control.deliver("T1", third).unwrap();
    let (fourth, told_fourth) = delivery("fourth");
    assert_eq!(broker.control.deliver("T1", fourth), Err(DeliverError::Full));
    assert!(soon(told_fourth).await.is_err());
    raw.send(&[0x40, 2, 0, 1]).await;
    soon(told_first).await.unwrap();
    assert_eq!(raw.packet().await, Some(publish(5, 0x32, Some(2), "second")));
    drop(raw);
    assert!(soon(told_second).await.is_err(), "sent, not acknowledged, clean session");
    assert!(soon(told_third).await.is_err(), "never sent");
}

#[tokio::test]
async fn what_has_expired_is_not_sent() {
    let mut broker = Broker::start().await;
    let mut raw = terminal(&mut broker, 4, 1).await;
    let (mut late, told) = delivery("late");
    late.expires_us = Some(1);
    broker.control.deliver("T1", late).unwrap();
    assert!(soon(told).await.is_err());
    raw.ping().await;
}
