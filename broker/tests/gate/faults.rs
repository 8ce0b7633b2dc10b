//! Bad networks and bad clients on real sockets.

use std::net::SocketAddr;
use std::time::Duration;

use broker::{ClientCertificates, GateConfig, HubConfig, Inbound};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::harness::{Broker, Connect, Raw, config, soon, until};
use crate::pki::{self, Pki};

#[tokio::test]
async fn a_connect_byte_by_byte_ends_with_the_deadline() {
    let config = GateConfig { connect_timeout: Duration::from_millis(300), ..config() };
    let broker = Broker::with(config, HubConfig::default(), 10).await;
    let mut slow = TcpStream::connect(broker.address).await.unwrap();
    let will = Some(("lift/v1/310115/T1/presence", "a will that takes its time", 0));
    let connect = Connect { will, ..Connect::new("T1") }.bytes();
    let dripping = async {
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        for byte in connect.iter().cycle() {
            tick.tick().await;
            if slow.write_all(&[*byte]).await.is_err() {
                return;
            }
        }
    };
    soon(dripping).await;
    until(|| broker.metrics.refused_for("timeout") == 1).await;
}

/// Every connection that was announced is taken back, whenever its reset came.
#[tokio::test]
async fn resets_before_connack_leave_nothing_behind() {
    let mut broker = Broker::start().await;
    for i in 0..200 {
        let mut stream = TcpStream::connect(broker.address).await.unwrap();
        let connect = Connect::new(&format!("T{i}")).bytes();
        stream.write_all(&connect[..if i % 4 == 0 { 7 } else { connect.len() }]).await.unwrap();
        stream.set_zero_linger().unwrap();
        drop(stream);
    }
    until(|| broker.metrics.closed.get() == 200).await;
    assert_eq!(broker.metrics.connected.get(), 0);
    let mut online = std::collections::HashSet::new();
    while let Ok(item) = broker.inbound.try_recv() {
        if let Inbound::Presence(presence) = item {
            let fits = match presence.online {
                true => online.insert(presence.client_id),
                false => online.remove(&presence.client_id),
            };
            assert!(fits, "online once, offline once");
        }
    }
    assert!(online.is_empty(), "{online:?}");
    Raw::connect(&broker, Connect::new("T1")).await.ping().await;
}

#[tokio::test]
async fn garbage_after_connect_ends_one_connection_only() {
    let broker = Broker::start().await;
    let mut witness = Raw::connect(&broker, Connect::new("witness")).await;
    let mut noise = 0x9E37_79B9_u32;
    for level in [4, 5].repeat(20) {
        let mut raw = Raw::connect(&broker, Connect { level, ..Connect::new("guest") }).await;
        let garbage: Vec<u8> = std::iter::repeat_with(|| {
            noise ^= noise << 13;
            noise ^= noise >> 17;
            noise ^= noise << 5;
            noise as u8
        })
        .take(64)
        .collect();
        // First a packet of no type at all, so that the garbage cannot happen to be the beginning of a long one.
        let _ = soon(raw.stream.write_all(&[&[0, 0], &garbage[..]].concat())).await;
        while raw.packet().await.is_some() {}
    }
    until(|| broker.metrics.refused_for("protocol") == 40).await;
    witness.ping().await;
}

#[tokio::test]
async fn ids_that_look_like_filters_are_ids() {
    let mut broker = Broker::start().await;
    let mut dashboard = Raw::connect(&broker, Connect::new("dashboard")).await;
    dashboard.subscribe("lift/v1/#", 0).await;
    for id in ["a/b", "+", "#", "$SYS/x", "$share/g/#", "电梯/+#$", " ", "../.."] {
        let mut raw = Raw::connect(&broker, Connect::new(id)).await;
        let ack = raw.subscribe("lift/v1/x", 0).await;
        assert_eq!(ack.last(), Some(&0), "{id}");
        raw.publish("lift/v1/x", 1, 1, id.as_bytes()).await;
        let publish = broker.publish().await;
        assert_eq!(&*publish.client_id, id);
        publish.ack.done();
        // Its own message, before or after the PUBACK, and the dashboard's copy.
        for _ in 0..2 {
            assert!(raw.packet().await.is_some(), "{id}");
        }
        let copy = dashboard.packet().await.unwrap();
        assert!(copy.ends_with(id.as_bytes()), "{id}");
    }
}

#[tokio::test]
async fn topics_may_begin_with_any_letter() {
    let mut broker = Broker::start().await;
    let mut dashboard = Raw::connect(&broker, Connect::new("dashboard")).await;
    dashboard.subscribe("lift/v1/#", 0).await;
    let mut raw = Raw::connect(&broker, Connect::new("recorder")).await;
    for pkid in 1..=3 {
        raw.publish("电梯/一号", 1, pkid, b"x").await;
        let publish = broker.publish().await;
        assert_eq!(&*publish.topic, "电梯/一号");
        publish.ack.done();
        assert_eq!(raw.packet().await, Some(vec![0x40, 2, 0, pkid as u8]));
    }
    // The hub lives on.
    raw.publish("lift/v1/x", 1, 4, b"after").await;
    broker.publish().await.ack.done();
    assert!(dashboard.packet().await.unwrap().ends_with(b"after"));
}

/// rumqttd alone dies of this.
#[tokio::test]
async fn a_subscriber_that_stops_reading_and_goes_harms_nobody() {
    let broker = Broker::start().await;
    let mut good = Raw::connect(&broker, Connect::new("good")).await;
    good.subscribe("lift/v1/x", 0).await;
    for round in 0..3 {
        let mut lazy = Raw::connect(&broker, Connect::new("lazy")).await;
        lazy.subscribe("lift/v1/big", 1).await;
        for _ in 0..100 {
            broker.hub.publish("lift/v1/big", vec![0; 200_000].into(), false);
        }
        drop(lazy);
        until(|| broker.metrics.connected.get() == 1).await;
        broker.hub.publish("lift/v1/x", format!("round {round}").into(), false);
        assert!(good.packet().await.unwrap().ends_with(format!("round {round}").as_bytes()));
    }
}

/// The system asks a silent peer whether it is still there: a terminal with keep-alive 0 that lost its link does not
/// stay for ever.
#[tokio::test]
async fn accepted_sockets_are_kept_alive_by_the_system() {
    let broker = Broker::start().await;
    let stream = TcpStream::connect(broker.address).await.unwrap();
    let port = stream.local_addr().unwrap().port();
    let mut raw = Raw::on(stream);
    assert_eq!(raw.greet(Connect { keep_alive_s: 0, ..Connect::new("T1") }).await, Some(0));
    let accepted = format!("0100007F:{:04X} 0100007F:{port:04X} 01", broker.address.port());
    // Field `tr`: 02 is a running keep-alive timer. The table is not of one moment: a line may be missing.
    until(|| {
        let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let line = sockets.lines().find(|line| line.contains(&accepted));
        let timer = line.and_then(|line| line.split_whitespace().nth(5));
        timer.is_some_and(|timer| timer.starts_with("02:"))
    })
    .await;
}

/// A carrier's outage ends: everybody comes back by TLS while the gate still holds the connections from before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_terminals_come_back_at_once() {
    const TERMINALS: usize = 1_000;
    let pki = Pki::new();
    let config = GateConfig {
        tls: Some(pki.config(ClientCertificates::Optional)),
        // So many handshakes at once take a slow machine a while.
        connect_timeout: Duration::from_mins(1),
        ..config()
    };
    let mut broker = Broker::with(config, HubConfig::default(), 100).await;
    let _told = broker.commit_all();
    let address: SocketAddr = broker.addresses.tls.unwrap();
    let client = pki.client(None, &[&rustls::version::TLS13]);
    let mut before = Vec::new();
    for round in 0..2 {
        let arriving: Vec<_> = (0..TERMINALS)
            .map(|i| {
                let client = client.clone();
                tokio::spawn(async move {
                    let mut raw = Raw::on(pki::connect(address, &client).await.unwrap());
                    assert_eq!(raw.greet(Connect::new(&format!("T{i}"))).await, Some(0));
                    raw.ping().await;
                    raw
                })
            })
            .collect();
        let mut settled = Vec::new();
        for arrival in arriving {
            settled.push(tokio::time::timeout(Duration::from_mins(1), arrival).await.unwrap().unwrap());
        }
        until(|| broker.metrics.connected.get() == TERMINALS as i64).await;
        assert_eq!(broker.metrics.accepted.get(), (TERMINALS * (round + 1)) as u64);
        for mut old in std::mem::replace(&mut before, settled) {
            old.closed().await;
        }
    }
    for raw in &mut before {
        raw.ping().await;
    }
}

#[tokio::test]
async fn every_refusal_is_counted_by_its_reason() {
    let broker = Broker::start().await;
    let mut raw = Raw::open(&broker).await;
    let wrong = Connect { login: Some(("T1", "wrong")), ..Connect::new("T1") };
    assert_eq!(raw.greet(wrong).await, Some(4));
    let mut raw = Raw::open(&broker).await;
    let stranger = Connect { login: Some(("stranger", "secret")), ..Connect::new("T1") };
    assert_eq!(raw.greet(stranger).await, Some(5));
    let mut raw = Raw::open(&broker).await;
    raw.send(b"GET / HTTP/1.1\r\n\r\n").await;
    raw.closed().await;
    let mut raw = Raw::connect(&broker, Connect::new("T1")).await;
    assert_eq!(raw.subscribe("lift/v1/310115/T2/down", 1).await.last(), Some(&0x80));
    raw.publish("lift/v1/310115/T2/telemetry", 0, 0, b"x").await;
    raw.closed().await;
    for reason in ["credentials", "not_authorized", "malformed", "subscribe", "publish"] {
        until(|| broker.metrics.refused_for(reason) == 1).await;
    }
}
