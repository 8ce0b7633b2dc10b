//! TLS and client certificates on real sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use broker::{BindError, ClientCertificates, GateConfig, HubConfig, Reason};
use rustls::version::{TLS12, TLS13};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::harness::{Broker, Connect, Raw, config, soon, until};
use crate::pki::{self, Pki};

async fn gate(pki: &Pki, client_certificates: ClientCertificates) -> (Broker, SocketAddr) {
    gate_with(pki, client_certificates, config()).await
}

async fn gate_with(
    pki: &Pki,
    client_certificates: ClientCertificates,
    config: GateConfig,
) -> (Broker, SocketAddr) {
    let config = GateConfig { tls: Some(pki.config(client_certificates)), ..config };
    let hub = HubConfig { segment_bytes: 16 << 20, ..HubConfig::default() };
    let broker = Broker::with(config, hub, 1_000).await;
    let address = broker.addresses.tls.unwrap();
    (broker, address)
}

/// Connects as `client_id` and gives the code of the CONNACK.
async fn greet(address: SocketAddr, client: &Arc<rustls::ClientConfig>, client_id: &str) -> Option<u8> {
    let stream = soon(pki::connect(address, client)).await.ok()?;
    Raw::on(stream).greet(Connect::new(client_id)).await
}

#[tokio::test]
async fn a_certificate_speaks_for_its_holder_alone() {
    let pki = Pki::new();
    let (mut broker, address) = gate(&pki, ClientCertificates::Required).await;
    for version in [&TLS12, &TLS13] {
        let client = pki.client(Some(pki.issue("T1", 10)), &[version]);
        let mut raw = Raw::on(soon(pki::connect(address, &client)).await.unwrap());
        assert_eq!(raw.greet(Connect::new("T1")).await, Some(0), "{version:?}");
        assert!(broker.presence().await.online);
        raw.publish("lift/v1/310115/T1/telemetry", 1, 1, &vec![b'x'; 200_000]).await;
        broker.publish().await.ack.done();
        assert_eq!(raw.packet().await, Some(vec![0x40, 2, 0, 1]));
        drop(raw);
        assert!(!broker.presence().await.online);
        assert_eq!(greet(address, &client, "T2").await, Some(5), "another's name");
    }
}

#[tokio::test]
async fn strangers_are_refused_and_counted_by_reason() {
    let (pki, other) = (Pki::new(), Pki::new());
    let (broker, address) = gate(&pki, ClientCertificates::Required).await;
    pki.revoke(&[7]);
    broker.control.reload_tls();
    until(|| broker.metrics.tls_reloaded.get() >= 1).await;
    let cases = [
        (None, "certificate_missing"),
        (Some(other.issue("T1", 10)), "certificate_issuer"),
        (Some(pki.issue_until("T1", 10, 2_020)), "certificate_expired"),
        (Some(pki.issue("T1", 7)), "certificate_revoked"),
    ];
    for (identity, reason) in cases {
        let client = pki.client(identity, &[&TLS12, &TLS13]);
        assert_eq!(greet(address, &client, "T1").await, None, "{reason}");
        until(|| broker.metrics.refused_for(reason) == 1).await;
    }
    assert_eq!(greet(address, &pki.client(Some(pki.issue("T1", 10)), &[&TLS13]), "T1").await, Some(0));
}

#[tokio::test]
async fn without_a_certificate_a_secret_has_to_do() {
    let pki = Pki::new();
    let (_broker, address) = gate(&pki, ClientCertificates::Optional).await;
    assert_eq!(greet(address, &pki.client(None, &[&TLS13]), "T1").await, Some(0));
    let other = Pki::new();
    let client = pki.client(Some(other.issue("T1", 10)), &[&TLS13]);
    assert_eq!(greet(address, &client, "T1").await, None, "a wrong one is worse than none");
}

#[tokio::test]
async fn a_revoked_certificate_ends_its_connection_and_brings_no_ticket_back() {
    let pki = Pki::new();
    let (mut broker, address) = gate(&pki, ClientCertificates::Required).await;
    let stolen = pki.client(Some(pki.issue("T1", 10)), &[&TLS13]);
    let honest = pki.client(Some(pki.issue("T2", 11)), &[&TLS13]);
    let mut raw = Raw::on(soon(pki::connect(address, &stolen)).await.unwrap());
    assert_eq!(raw.greet(Connect { level: 5, ..Connect::new("T1") }).await, Some(0));
    let mut other = Raw::on(soon(pki::connect(address, &honest)).await.unwrap());
    assert_eq!(other.greet(Connect::new("T2")).await, Some(0));
    broker.presence().await;
    broker.presence().await;

    pki.revoke(&[10]);
    // Nobody says so: the gate looks by itself.
    let gone = broker.presence().await;
    assert_eq!((&*gone.client_id, gone.online, gone.reason), ("T1", false, Reason::Revoked));
    other.ping().await;
    assert_eq!(greet(address, &stolen, "T1").await, None);
    until(|| broker.metrics.refused_for("certificate_revoked") == 1).await;
}

#[tokio::test]
async fn a_client_that_comes_back_is_resumed() {
    for version in [&TLS12, &TLS13] {
        let pki = Pki::new();
        let (broker, address) = gate(&pki, ClientCertificates::Required).await;
        let client = pki.client(Some(pki.issue("T1", 10)), &[version]);
        assert_eq!(greet(address, &client, "T1").await, Some(0));
        assert_eq!(broker.metrics.tls_resumed.get(), 0);
        assert_eq!(greet(address, &client, "T1").await, Some(0), "the certificate is known again");
        assert_eq!(broker.metrics.tls_resumed.get(), 1, "{version:?}");
        assert_eq!(greet(address, &client, "T2").await, Some(5), "and what it says");
    }
}

#[tokio::test]
async fn the_server_certificate_is_rotated_without_a_restart() {
    let pki = Pki::new();
    let (broker, address) = gate(&pki, ClientCertificates::Optional).await;
    let shown = async || {
        let client = pki.client(None, &[&TLS13]);
        let stream = soon(pki::connect(address, &client)).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].clone()
    };
    let first = shown().await;
    pki.renew_server();
    broker.control.reload_tls();
    until(|| broker.metrics.tls_reloaded.get() >= 1).await;
    let second = shown().await;
    assert_ne!(first, second);

    // A look between the writing of certificate and key may have found them unusable before.
    let unusable = broker.metrics.tls_unusable.get();
    std::fs::write(pki.file("server.pem"), "no certificate").unwrap();
    broker.control.reload_tls();
    until(|| broker.metrics.tls_unusable.get() > unusable).await;
    assert_eq!(shown().await, second, "the one before stays in force");
}

#[tokio::test]
async fn unusable_files_keep_the_gate_from_starting() {
    let pki = Pki::new();
    let metrics = Arc::new(broker::Metrics::default());
    let hub = broker::Hub::start(HubConfig::default(), Arc::clone(&metrics));
    let attempt = async |tls| {
        let config = GateConfig { tls: Some(tls), ..config() };
        let (sender, _inbound) = tokio::sync::mpsc::channel(1);
        let nobody = Arc::new(crate::connect::Nobody);
        let error = broker::Gate::bind(config, nobody, sender, hub.clone(), Arc::clone(&metrics)).await;
        match error.unwrap_err() {
            BindError::Tls(error) => error.to_string(),
            error @ BindError::Address { .. } => panic!("{error}"),
        }
    };
    let good = pki.config(ClientCertificates::Required);
    let missing = pki.file("missing.pem");
    let said = attempt(broker::TlsConfig { certificate: missing.clone(), ..good.clone() }).await;
    assert_eq!(said, format!("cannot read {}", missing.display()));
    let swapped = broker::TlsConfig { key: pki.file("ca.pem"), ..good.clone() };
    assert_eq!(attempt(swapped).await, format!("{} holds no private key", pki.file("ca.pem").display()));
    let foreign = Pki::new();
    let said = attempt(broker::TlsConfig { key: foreign.file("server.key"), ..good.clone() }).await;
    assert_eq!(said, "certificate and key do not make a pair");
    let said = attempt(broker::TlsConfig { client_ca: None, ..good }).await;
    assert_eq!(said, "a revocation list is given, but no device CA");
}

#[tokio::test]
async fn a_slow_handshake_ends_with_the_one_deadline() {
    let pki = Pki::new();
    let config = GateConfig { connect_timeout: Duration::from_secs(5), ..config() };
    let (broker, address) = gate_with(&pki, ClientCertificates::Required, config).await;
    let mut slow = TcpStream::connect(address).await.unwrap();
    // The beginning of a ClientHello, byte by byte.
    let dripping = async {
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        for byte in [0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3].into_iter().chain(std::iter::repeat(0x55)) {
            tick.tick().await;
            if slow.write_all(&[byte]).await.is_err() {
                return;
            }
        }
    };
    soon(dripping).await;
    until(|| broker.metrics.refused_for("handshake_timeout") == 1).await;
    let client = pki.client(Some(pki.issue("T1", 10)), &[&TLS13]);
    // TLS in time, but no CONNECT: the same deadline.
    let mut silent = Raw::on(soon(pki::connect(address, &client)).await.unwrap());
    silent.closed().await;
    until(|| broker.metrics.refused_for("timeout") == 1).await;
    // Plain MQTT on the port of TLS.
    let mut plain = Raw::on(TcpStream::connect(address).await.unwrap());
    plain.greet(Connect::new("T1")).await;
    until(|| broker.metrics.refused_for("tls_malformed") == 1).await;
}

#[tokio::test]
async fn rumqttc_speaks_tls_with_the_gate() {
    use rumqttc::{AsyncClient, Event, MqttOptions, Packet, TlsConfiguration, Transport};
    let pki = Pki::new();
    let (mut broker, address) = gate(&pki, ClientCertificates::Required).await;
    let client = pki.client(Some(pki.issue("T1", 10)), &[&TLS12, &TLS13]);
    let mut options = MqttOptions::new("T1", "localhost", address.port());
    options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(client)));
    let (client, mut events) = AsyncClient::new(options, 10);
    let polling = tokio::spawn(async move {
        loop {
            if let Ok(Event::Incoming(Packet::PubAck(ack))) = events.poll().await {
                return ack.pkid;
            }
        }
    });
    assert!(broker.presence().await.online);
    let topic = "lift/v1/310115/T1/telemetry";
    client.publish(topic, rumqttc::QoS::AtLeastOnce, false, "from rumqttc").await.unwrap();
    let publish = broker.publish().await;
    assert_eq!(&publish.payload[..], b"from rumqttc");
    publish.ack.done();
    assert_eq!(soon(polling).await.unwrap(), 1);
}

/// A subscriber over TLS that reads slowly gets every byte: what a full socket did not take is sent later.
#[tokio::test]
async fn a_full_socket_below_tls_loses_nothing() {
    let pki = Pki::new();
    let (broker, address) = gate(&pki, ClientCertificates::Optional).await;
    let stream = soon(pki::connect(address, &pki.client(None, &[&TLS13]))).await.unwrap();
    let mut raw = Raw::on(stream);
    assert_eq!(raw.greet(Connect::new("dashboard")).await, Some(0));
    raw.subscribe("lift/v1/big", 0).await;
    let payload = vec![b'x'; 400_000];
    for _ in 0..30 {
        broker.hub.publish("lift/v1/big", payload.clone().into(), false);
    }
    for _ in 0..30 {
        let packet = raw.packet().await.unwrap();
        assert!(packet.len() > 400_000, "{}", packet.len());
    }
}

#[tokio::test]
async fn a_stop_waits_for_no_handshake() {
    let pki = Pki::new();
    let config = GateConfig { connect_timeout: Duration::from_hours(1), ..config() };
    let (broker, address) = gate_with(&pki, ClientCertificates::Required, config).await;
    let _silent = TcpStream::connect(address).await.unwrap();
    until(|| broker.metrics.accepted.get() == 1).await;
    broker.stop.cancel();
    soon(broker.running).await.unwrap();
    assert_eq!(broker.metrics.closed.get(), 1);
}
