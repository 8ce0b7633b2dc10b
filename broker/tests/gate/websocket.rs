//! MQTT over WebSocket, by a foreign client and by hand.

use std::net::SocketAddr;

use broker::{ClientCertificates, GateConfig, HubConfig, WebSocketConfig};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::harness::{Broker, Connect, Raw, Stream, config, packet, soon, until};
use crate::pki::{self, Pki};

fn listener() -> WebSocketConfig {
    WebSocketConfig::new(SocketAddr::from(([127, 0, 0, 1], 0)))
}

async fn gate(websocket: WebSocketConfig) -> (Broker, SocketAddr) {
    let config = GateConfig { websocket: Some(websocket), ..config() };
    let hub = HubConfig { segment_bytes: 16 << 20, ..HubConfig::default() };
    let broker = Broker::with(config, hub, 1_000).await;
    let address = broker.addresses.websocket.unwrap();
    (broker, address)
}

struct Browser(WebSocketStream<Box<dyn Stream>>);

impl Browser {
    async fn open(stream: impl Stream + 'static, origin: Option<&str>) -> Result<Self, u16> {
        let mut request = "ws://localhost/mqtt".into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("mqtt"));
        if let Some(origin) = origin {
            request.headers_mut().insert("origin", origin.parse().unwrap());
        }
        let stream: Box<dyn Stream> = Box::new(stream);
        match soon(tokio_tungstenite::client_async(request, stream)).await {
            Ok((stream, response)) => {
                assert_eq!(response.headers()["sec-websocket-protocol"], "mqtt");
                Ok(Self(stream))
            }
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    async fn send(&mut self, bytes: &[u8]) {
        soon(self.0.send(Message::binary(bytes.to_vec()))).await.unwrap();
    }

    /// So many bytes, in however many messages; `None` when the gate closes.
    async fn receive(&mut self, len: usize) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        while bytes.len() < len {
            match soon(self.0.next()).await {
                Some(Ok(Message::Binary(message))) => bytes.extend_from_slice(&message),
                Some(Ok(Message::Pong(_))) => {}
                _ => return None,
            }
        }
        assert_eq!(bytes.len(), len);
        Some(bytes)
    }
}

#[tokio::test]
async fn packets_and_messages_need_not_begin_together() {
    let (mut broker, address) = gate(listener()).await;
    let stream = TcpStream::connect(address).await.unwrap();
    let mut browser = Browser::open(stream, None).await.ok().unwrap();
    let connect = Connect::new("T1").bytes();
    browser.send(&connect[..3]).await;
    browser.send(&[]).await;
    let mut rest = connect[3..].to_vec();
    rest.extend_from_slice(&[0xC0, 0, 0xC0]);
    browser.send(&rest).await;
    assert_eq!(browser.receive(6).await, Some(vec![0x20, 2, 0, 0, 0xD0, 0]));
    assert!(broker.presence().await.online);
    soon(browser.0.send(Message::Ping("still here".into()))).await.unwrap();
    browser.send(&[0]).await;
    assert_eq!(browser.receive(2).await, Some(vec![0xD0, 0]));
    let mut body = vec![0, 27];
    body.extend_from_slice(b"lift/v1/310115/T1/telemetry\0\x01");
    body.extend_from_slice(&vec![b'x'; 700_000]);
    // Larger than a message may be.
    for part in packet(0x32, &body).chunks(200_000) {
        browser.send(part).await;
    }
    let publish = broker.publish().await;
    assert_eq!(publish.payload.len(), 700_000);
    publish.ack.done();
    assert_eq!(browser.receive(4).await, Some(vec![0x40, 2, 0, 1]));
    soon(browser.0.close(None)).await.unwrap();
    assert!(!broker.presence().await.online);
}

#[tokio::test]
async fn a_dashboard_receives_more_than_a_socket_holds() {
    let (broker, address) = gate(listener()).await;
    let stream = TcpStream::connect(address).await.unwrap();
    let mut browser = Browser::open(stream, None).await.ok().unwrap();
    browser.send(&Connect::new("dashboard").bytes()).await;
    assert_eq!(browser.receive(4).await, Some(vec![0x20, 2, 0, 0]));
    browser.send(&packet(0x82, b"\0\x01\0\x0Blift/v1/big\0")).await;
    assert_eq!(browser.receive(5).await, Some(vec![0x90, 3, 0, 1, 0]));
    let payload = vec![b'x'; 400_000];
    for _ in 0..30 {
        broker.hub.publish("lift/v1/big", payload.clone().into(), false);
    }
    let one = packet(0x30, &vec![0; 2 + 11 + payload.len()]).len();
    let bytes = browser.receive(30 * one).await.unwrap();
    for message in bytes.chunks(one) {
        assert!(message[0] == 0x30 && message.ends_with(&payload));
    }
}

#[tokio::test]
async fn with_tls_and_only_for_known_pages() {
    let pki = Pki::new();
    let page = "https://wallboard.example";
    let config = GateConfig {
        tls: Some(pki.config(ClientCertificates::Required)),
        websocket: Some(WebSocketConfig { tls: true, origins: vec![page.into()], ..listener() }),
        ..config()
    };
    let broker = Broker::with(config, HubConfig::default(), 1_000).await;
    let address = broker.addresses.websocket.unwrap();
    // A browser has no client certificate.
    let client = pki.client(None, &[&rustls::version::TLS13]);
    let open = async |origin| {
        let stream = soon(pki::connect(address, &client)).await.unwrap();
        Browser::open(stream, origin).await
    };
    let mut browser = open(Some(page)).await.ok().unwrap();
    browser.send(&Connect::new("dashboard").bytes()).await;
    assert_eq!(browser.receive(4).await, Some(vec![0x20, 2, 0, 0]));
    assert_eq!(open(Some("https://elsewhere.example")).await.err(), Some(403));
    assert_eq!(broker.metrics.refused_for("websocket_origin"), 1);
    assert!(open(None).await.is_ok(), "no page at all");
}

#[tokio::test]
async fn pages_may_not_connect_unless_they_are_named() {
    let (_broker, address) = gate(listener()).await;
    let stream = TcpStream::connect(address).await.unwrap();
    assert_eq!(Browser::open(stream, Some("http://localhost:8080")).await.err(), Some(403));
    let (_broker, address) = gate(WebSocketConfig { origins: vec!["*".into()], ..listener() }).await;
    let stream = TcpStream::connect(address).await.unwrap();
    assert!(Browser::open(stream, Some("http://localhost:8080")).await.is_ok());
}

#[tokio::test]
async fn what_is_no_upgrade_gets_a_plain_answer() {
    let (broker, address) = gate(listener()).await;
    let websocket = "Host: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let cases = [
        ("GET /mqtt HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), "426", "websocket_upgrade"),
        (format!("GET /mqtt HTTP/1.1\r\n{websocket}"), "426", "websocket_upgrade"),
        (format!("GET / HTTP/1.1\r\n{websocket}"), "404", "websocket_path"),
        ("POST /mqtt HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), "405", "websocket_method"),
        ("\x10\x10\0\x04MQTT\r\n\r\n".to_owned(), "400", "websocket_malformed"),
        (format!("GET /mqtt HTTP/1.1\r\nX: {}", "y".repeat(9_000)), "400", "websocket_malformed"),
    ];
    for (request, status, reason) in cases {
        let before = broker.metrics.refused_for(reason);
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // A reset after the answer is a way to close, too.
        let _ = soon(stream.read_to_end(&mut answer)).await;
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {answer:?}");
        until(|| broker.metrics.refused_for(reason) == before + 1).await;
    }
}

#[tokio::test]
async fn text_and_oversized_messages_end_the_connection() {
    let (broker, address) = gate(listener()).await;
    for message in [Message::text("hello"), Message::binary(vec![0x30; 300_000])] {
        let stream = TcpStream::connect(address).await.unwrap();
        let mut browser = Browser::open(stream, None).await.ok().unwrap();
        browser.send(&Connect::new("dashboard").bytes()).await;
        assert_eq!(browser.receive(4).await, Some(vec![0x20, 2, 0, 0]));
        let _ = soon(browser.0.send(message)).await;
        assert_eq!(browser.receive(1).await, None);
    }
    let mut raw = Raw::connect(&broker, Connect::new("T1")).await;
    raw.ping().await;
}
