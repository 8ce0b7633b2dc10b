//! Who may come in, who pushes out whom, and what is published of those who leave without a word.

use std::time::Duration;

use broker::{GateConfig, HubConfig, Reason};
use tokio::io::AsyncReadExt;

use crate::harness::{Broker, Connect, Raw, config, soon};

#[tokio::test]
async fn credentials_are_asked_for() {
    let broker = Broker::start().await;
    let publish = ["-t", "lift/v1/x", "-m", "x"];
    for version in ["mqttv311", "mqttv5"] {
        let run = |user: &'static [&'static str]| {
            let arguments = [&publish[..], &["-V", version], user].concat();
            let broker = &broker;
            async move { broker.mosquitto_pub(&arguments).await }
        };
        assert!(run(&["-u", "user", "-P", "secret"]).await.0, "{version}");
        let (accepted, said) = run(&["-u", "user", "-P", "wrong"]).await;
        assert!(!accepted, "{version}: {said}");
        let (accepted, said) = run(&["-u", "stranger", "-P", "secret"]).await;
        assert!(!accepted && said.to_lowercase().contains("not authori"), "{version}: {said}");
    }
}

#[tokio::test]
async fn a_half_open_connection_is_closed_in_time() {
    let config = GateConfig { connect_timeout: Duration::from_millis(100), ..config() };
    let broker = Broker::with(config, HubConfig::default(), 10).await;
    let mut silent = Raw::open(&broker).await;
    let mut slow = Raw::open(&broker).await;
    slow.send(&Connect::new("T1").bytes()[..5]).await;
    silent.closed().await;
    slow.closed().await;
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let broker = Broker::start().await;
    let metrics = std::sync::Arc::clone(&broker.metrics);
    let config = GateConfig { listen: Some(broker.address), ..GateConfig::default() };
    let (sender, _receiver) = tokio::sync::mpsc::channel(1);
    let nobody = std::sync::Arc::new(Nobody);
    let error = broker::Gate::bind(config, nobody, sender, broker.hub.clone(), metrics).await.unwrap_err();
    assert_eq!(error.to_string(), format!("cannot listen for MQTT on {}", broker.address));
}

pub(crate) struct Nobody;

impl broker::Authenticate for Nobody {
    fn authenticate<'a>(&'a self, _: &'a broker::ConnectInfo) -> broker::AuthFuture<'a> {
        Box::pin(async { Err(broker::Refusal::Unavailable) })
    }
}

#[tokio::test]
async fn the_newer_connection_wins_and_the_old_one_is_told() {
    let mut broker = Broker::start().await;
    let will = Some(("lift/v1/310115/T1/gone", "taken", 1));
    let mut old = Raw::connect(&broker, Connect { level: 5, will, ..Connect::new("T1") }).await;
    let online = broker.presence().await;
    assert!(online.online && &*online.client_id == "T1" && online.epoch > 0);
    let mut new = Raw::connect(&broker, Connect::new("T1")).await;
    assert_eq!(old.packet().await, Some(vec![0xE0, 1, 0x8E]), "session taken over");
    old.closed().await;
    let will = broker.publish().await;
    assert_eq!(
        (&*will.topic, &will.payload[..], will.epoch),
        ("lift/v1/310115/T1/gone", &b"taken"[..], online.epoch)
    );
    let offline = broker.presence().await;
    assert_eq!((offline.online, offline.reason, offline.epoch), (false, Reason::TakenOver, online.epoch));
    let again = broker.presence().await;
    assert!(again.online && again.epoch > online.epoch);
    new.ping().await;
}

#[tokio::test]
async fn the_last_will_is_published_when_due() {
    let mut broker = Broker::start().await;
    let topic = "lift/v1/310115/T1/presence";
    let connect = |level| Connect { level, will: Some((topic, "gone", 1)), ..Connect::new("T1") };

    let raw = Raw::connect(&broker, connect(4)).await;
    broker.presence().await;
    drop(raw);
    let will = broker.publish().await;
    assert_eq!((&*will.topic, &will.payload[..], &*will.client_id), (topic, &b"gone"[..], "T1"));
    assert_eq!(broker.presence().await.reason, Reason::Gone);

    let mut raw = Raw::connect(&broker, connect(4)).await;
    broker.presence().await;
    raw.send(&[0xE0, 0]).await;
    assert_eq!(broker.presence().await.reason, Reason::Disconnected, "no will after a goodbye");

    let mut raw = Raw::connect(&broker, connect(5)).await;
    broker.presence().await;
    raw.send(&[0xE0, 1, 4]).await;
    assert_eq!(&broker.publish().await.payload[..], b"gone");
    assert_eq!(broker.presence().await.reason, Reason::DisconnectedWithWill);
}

#[tokio::test]
async fn a_will_for_another_is_refused_at_once() {
    let broker = Broker::start().await;
    let mut raw = Raw::open(&broker).await;
    let will = Some(("lift/v1/310115/T2/presence", "gone", 1));
    raw.send(&Connect { will, ..Connect::new("T1") }.bytes()).await;
    assert_eq!(raw.packet().await, Some(vec![0x20, 2, 0, 5]), "not authorized");
    raw.closed().await;
}

#[tokio::test]
async fn a_client_without_id_needs_a_clean_session() {
    let broker = Broker::start().await;
    let mut raw = Raw::open(&broker).await;
    raw.send(&Connect { clean: false, ..Connect::new("") }.bytes()).await;
    assert_eq!(raw.packet().await, Some(vec![0x20, 2, 0, 2]), "identifier rejected");
    Raw::connect(&broker, Connect::new("")).await.ping().await;
    let mut raw = Raw::open(&broker).await;
    raw.send(&Connect { level: 5, ..Connect::new("") }.bytes()).await;
    let ack = raw.packet().await.unwrap();
    let assigned = ack.windows(9).any(|bytes| bytes == b"anonymous");
    assert!(ack[3] == 0 && assigned, "told its id: {ack:?}");
}

#[tokio::test]
async fn silence_beyond_the_keep_alive_ends_a_connection() {
    let mut broker = Broker::start().await;
    let began = std::time::Instant::now();
    let mut raw = Raw::connect(&broker, Connect { keep_alive_s: 1, ..Connect::new("T1") }).await;
    broker.presence().await;
    raw.closed().await;
    assert!(began.elapsed() >= Duration::from_millis(1_500));
    let offline = broker.presence().await;
    assert_eq!(offline.reason, Reason::KeepAlive);
    assert!(
        offline.heard_us <= offline.at_us - 1_400_000,
        "silent for one and a half keep-alives: {offline:?}"
    );
}

#[tokio::test]
async fn connections_are_bounded() {
    let config = GateConfig { connections_max: 1, ..config() };
    let broker = Broker::with(config, HubConfig::default(), 10).await;
    let first = Raw::connect(&broker, Connect::new("T1")).await;
    let mut second = Raw::open(&broker).await;
    second.closed().await;
    drop(first);
    // The seat is free a moment after the socket is closed.
    soon(async {
        loop {
            let mut third = Raw::open(&broker).await;
            let sent =
                tokio::io::AsyncWriteExt::write_all(&mut third.stream, &Connect::new("T3").bytes()).await;
            if sent.is_ok() && matches!(third.stream.read(&mut [0; 4]).await, Ok(4)) {
                return;
            }
        }
    })
    .await;
}
