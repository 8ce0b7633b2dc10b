//! A gate on a free port, its consumer, and a client of a few bytes.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use broker::{
    AuthFuture, Authenticate, BoundAddresses, ConnectInfo, Gate, GateConfig, GateControl, Hub, HubConfig,
    Inbound, Metrics, PresenceChange, Principal, PrincipalKind, Publish, Refusal, TopicFilter,
};
use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Longest wait for anything that should happen.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// Terminals are called T..., everybody else integrates; password, if asked for, is "secret". A certificate speaks for
/// its holder alone.
struct Doorkeeper;

impl Authenticate for Doorkeeper {
    fn authenticate<'a>(&'a self, info: &'a ConnectInfo) -> AuthFuture<'a> {
        Box::pin(async move {
            if info.username.as_deref() == Some("stranger") {
                return Err(Refusal::NotAuthorized);
            }
            if info.origin.certificate.as_ref().is_some_and(|shown| shown.common_name != info.client_id) {
                return Err(Refusal::NotAuthorized);
            }
            if info.username.is_some() && info.password.as_deref() != Some(b"secret") {
                return Err(Refusal::BadCredentials);
            }
            let filters = |texts: &[&str]| texts.iter().map(|text| TopicFilter::new(text).unwrap()).collect();
            Ok(if info.client_id.starts_with('T') {
                let own = format!("lift/v1/+/{}/#", info.client_id);
                Principal {
                    kind: PrincipalKind::Terminal,
                    publish: filters(&[&own]),
                    subscribe: filters(&[&own]),
                }
            } else {
                Principal {
                    kind: PrincipalKind::Integration,
                    publish: filters(&["lift/v1/#", "电梯/#"]),
                    subscribe: filters(&["lift/v1/#"]),
                }
            })
        })
    }
}

pub(crate) struct Broker {
    /// Of plain TCP.
    pub(crate) address: SocketAddr,
    pub(crate) addresses: BoundAddresses,
    pub(crate) hub: Hub,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) control: GateControl,
    pub(crate) inbound: mpsc::Receiver<Inbound>,
    pub(crate) stop: CancellationToken,
    pub(crate) running: JoinHandle<()>,
}

pub(crate) fn config() -> GateConfig {
    GateConfig { listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))), ..GateConfig::default() }
}

impl Broker {
    pub(crate) async fn start() -> Self {
        Self::with(config(), HubConfig::default(), 1_000).await
    }

    pub(crate) async fn with(config: GateConfig, hub: HubConfig, channel: usize) -> Self {
        let metrics = Arc::new(Metrics::default());
        let hub = Hub::start(hub, Arc::clone(&metrics));
        let (sender, inbound) = mpsc::channel(channel);
        let gate = Gate::bind(config, Arc::new(Doorkeeper), sender, hub.clone(), Arc::clone(&metrics))
            .await
            .unwrap();
        let (addresses, control) = (gate.addresses(), gate.control());
        let address = gate.local_addr().unwrap();
        let stop = CancellationToken::new();
        let running = tokio::spawn(gate.run(stop.clone()));
        Self { address, addresses, hub, metrics, control, inbound, stop, running }
    }

    /// The next item of the channel.
    pub(crate) async fn next(&mut self) -> Inbound {
        soon(self.inbound.recv()).await.expect("the channel is open")
    }

    /// The next message, which must be one.
    pub(crate) async fn publish(&mut self) -> Publish {
        match self.next().await {
            Inbound::Publish(publish) => publish,
            other => panic!("{other:?} instead of a message"),
        }
    }

    /// The next presence, which must be one.
    pub(crate) async fn presence(&mut self) -> PresenceChange {
        match self.next().await {
            Inbound::Presence(presence) => presence,
            other => panic!("{other:?} instead of presence"),
        }
    }

    /// Says done to everything from now on; messages and presence are told to the returned channel.
    pub(crate) fn commit_all(&mut self) -> mpsc::Receiver<String> {
        let (_, empty) = mpsc::channel(1);
        let mut inbound = std::mem::replace(&mut self.inbound, empty);
        let (told, tell) = mpsc::channel(100_000);
        tokio::spawn(async move {
            while let Some(item) = inbound.recv().await {
                let words = match item {
                    Inbound::Publish(publish) => {
                        let payload = String::from_utf8_lossy(&publish.payload).into_owned();
                        let words = format!("{} {payload}", publish.topic);
                        publish.ack.done();
                        words
                    }
                    Inbound::Presence(presence) => {
                        format!("{} {}", presence.client_id, presence.reason.as_str())
                    }
                    Inbound::Listening { client_id } => format!("{client_id} listening"),
                    Inbound::Muted { client_id, .. } => format!("{client_id} muted"),
                };
                let _ = told.try_send(words);
            }
        });
        tell
    }

    pub(crate) fn mosquitto(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(["-h", "127.0.0.1", "-p", &self.address.port().to_string()]).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// Runs `mosquitto_pub` to its end and returns whether it was content, and what it said.
    pub(crate) async fn mosquitto_pub(&self, arguments: &[&str]) -> (bool, String) {
        let output = soon(self.mosquitto("mosquitto_pub", arguments).output()).await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), said)
    }

    /// Starts `mosquitto_sub`; [`Self::settle`] waits for its subscription.
    pub(crate) fn mosquitto_sub(&self, arguments: &[&str]) -> Subscriber {
        let mut child = self.mosquitto("mosquitto_sub", arguments).spawn().unwrap();
        let lines = child.stdout.take().unwrap();
        Subscriber { _child: child, lines: tokio::io::BufReader::new(lines), sentinel: 0 }
    }

    /// Waits until `subscriber` receives, by publishing until it does.
    pub(crate) async fn settle(&self, subscriber: &mut Subscriber) {
        self.settle_on("lift/v1/sentinel", subscriber).await;
    }

    /// The same on a topic within its filter.
    pub(crate) async fn settle_on(&self, topic: &str, subscriber: &mut Subscriber) {
        subscriber.sentinel += 1;
        let word = format!("sentinel-{}", subscriber.sentinel);
        let deadline = tokio::time::Instant::now() + SOON;
        loop {
            self.hub.publish(topic, word.clone().into(), false);
            let line = tokio::time::timeout(Duration::from_millis(200), subscriber.raw_line()).await;
            if line.is_ok_and(|line| line.contains(&word)) {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "the subscriber receives nothing");
        }
    }
}

pub(crate) struct Subscriber {
    /// Killed when dropped.
    _child: Child,
    lines: tokio::io::BufReader<tokio::process::ChildStdout>,
    sentinel: u32,
}

impl Subscriber {
    async fn raw_line(&mut self) -> String {
        use tokio::io::AsyncBufReadExt;
        let mut line = String::new();
        self.lines.read_line(&mut line).await.unwrap();
        line.trim_end().to_owned()
    }

    /// The next line it prints, sentinels left out.
    pub(crate) async fn line(&mut self) -> String {
        loop {
            let line = soon(self.raw_line()).await;
            assert!(!line.is_empty(), "mosquitto_sub ended");
            if !line.contains("sentinel") {
                return line;
            }
        }
    }
}

pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(SOON, future).await.expect("it happens soon")
}

/// Polls a condition that no event tells about.
pub(crate) async fn until(mut condition: impl FnMut() -> bool) {
    soon(async {
        let mut tick = tokio::time::interval(Duration::from_millis(2));
        while !condition() {
            tick.tick().await;
        }
    })
    .await;
}

/// Whatever MQTT travels on.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// MQTT 3.1.1, or 5 without properties, byte by byte: for what a polite client would not do.
pub(crate) struct Raw {
    pub(crate) stream: Box<dyn Stream>,
    level: u8,
    received: BytesMut,
}

fn text(out: &mut Vec<u8>, text: &[u8]) {
    out.put_u16(text.len() as u16);
    out.put_slice(text);
}

pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut len = body.len();
    loop {
        let byte = (len % 128) as u8;
        len /= 128;
        out.push(if len > 0 { byte | 0x80 } else { byte });
        if len == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
    out
}

pub(crate) struct Connect<'a> {
    pub(crate) client_id: &'a str,
    pub(crate) level: u8,
    pub(crate) keep_alive_s: u16,
    pub(crate) clean: bool,
    /// Topic, payload, QoS.
    pub(crate) will: Option<(&'a str, &'a str, u8)>,
    /// User name and password.
    pub(crate) login: Option<(&'a str, &'a str)>,
    /// Of MQTT 5, without their length.
    pub(crate) properties: &'a [u8],
    pub(crate) will_properties: &'a [u8],
}

impl<'a> Connect<'a> {
    pub(crate) fn new(client_id: &'a str) -> Self {
        Self {
            client_id,
            level: 4,
            keep_alive_s: 60,
            clean: true,
            will: None,
            login: None,
            properties: &[],
            will_properties: &[],
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut body = Vec::new();
        text(&mut body, b"MQTT");
        body.push(self.level);
        let will = self.will.map_or(0, |(_, _, qos)| 0x04 | qos << 3);
        let login = if self.login.is_some() { 0xC0 } else { 0 };
        body.push(u8::from(self.clean) << 1 | will | login);
        body.put_u16(self.keep_alive_s);
        if self.level == 5 {
            body.push(self.properties.len() as u8);
            body.put_slice(self.properties);
        }
        text(&mut body, self.client_id.as_bytes());
        if let Some((topic, payload, _)) = self.will {
            if self.level == 5 {
                body.push(self.will_properties.len() as u8);
                body.put_slice(self.will_properties);
            }
            text(&mut body, topic.as_bytes());
            text(&mut body, payload.as_bytes());
        }
        if let Some((user, password)) = self.login {
            text(&mut body, user.as_bytes());
            text(&mut body, password.as_bytes());
        }
        packet(0x10, &body)
    }
}

impl Raw {
    pub(crate) async fn open(broker: &Broker) -> Self {
        let stream = TcpStream::connect(broker.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::on(stream)
    }

    /// On a stream that is there already.
    pub(crate) fn on(stream: impl Stream + 'static) -> Self {
        Self { stream: Box::new(stream), level: 4, received: BytesMut::new() }
    }

    /// Sends CONNECT and gives the code of the CONNACK, or `None` when the server closed the connection.
    pub(crate) async fn greet(&mut self, connect: Connect<'_>) -> Option<u8> {
        self.level = connect.level;
        // A server that has refused us already answers nothing.
        let _ = soon(self.stream.write_all(&connect.bytes())).await;
        let _ = soon(self.stream.flush()).await;
        self.packet().await.map(|ack| ack[3])
    }

    /// Connects and expects to be accepted.
    pub(crate) async fn connect(broker: &Broker, connect: Connect<'_>) -> Self {
        let mut raw = Self::open(broker).await;
        raw.level = connect.level;
        raw.send(&connect.bytes()).await;
        let ack = raw.packet().await.expect("a CONNACK");
        assert_eq!((ack[0], ack[2], ack[3]), (0x20, 0, 0), "accepted, no session: {ack:?}");
        raw
    }

    /// Connects, expects to be accepted, and tells whether the session is present.
    pub(crate) async fn resume(broker: &Broker, connect: Connect<'_>) -> (Self, bool) {
        let mut raw = Self::open(broker).await;
        raw.level = connect.level;
        raw.send(&connect.bytes()).await;
        let ack = raw.packet().await.expect("a CONNACK");
        assert_eq!((ack[0], ack[3]), (0x20, 0), "accepted: {ack:?}");
        (raw, ack[2] == 1)
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        soon(self.stream.write_all(bytes)).await.unwrap();
        soon(self.stream.flush()).await.unwrap();
    }

    pub(crate) fn publish_bytes(&self, topic: &[u8], qos: u8, pkid: u16, payload: &[u8]) -> Vec<u8> {
        let mut body = Vec::new();
        text(&mut body, topic);
        if qos > 0 {
            body.put_u16(pkid);
        }
        if self.level == 5 {
            body.push(0);
        }
        body.put_slice(payload);
        packet(0x30 | qos << 1, &body)
    }

    pub(crate) async fn publish(&mut self, topic: &str, qos: u8, pkid: u16, payload: &[u8]) {
        let bytes = self.publish_bytes(topic.as_bytes(), qos, pkid, payload);
        self.send(&bytes).await;
    }

    pub(crate) async fn subscribe(&mut self, filter: &str, qos: u8) -> Vec<u8> {
        let mut body = vec![0, 1];
        if self.level == 5 {
            body.push(0);
        }
        text(&mut body, filter.as_bytes());
        body.push(qos);
        self.send(&packet(0x82, &body)).await;
        self.packet().await.expect("a SUBACK")
    }

    /// PINGREQ and its answer, which must be the next packet: nothing else was on the way.
    pub(crate) async fn ping(&mut self) {
        self.send(&[0xC0, 0]).await;
        assert_eq!(self.packet().await, Some(vec![0xD0, 0]));
    }

    /// The next PUBLISH with QoS 1: its first byte, packet id and payload.
    pub(crate) async fn delivered(&mut self) -> (u8, u16, String) {
        let packet = self.packet().await.expect("a PUBLISH");
        assert_eq!(packet[0] & 0xF6, 0x32, "QoS 1: {packet:?}");
        let topic = usize::from(packet[3]);
        let pkid = u16::from_be_bytes([packet[4 + topic], packet[5 + topic]]);
        let properties = if self.level == 5 { 1 + usize::from(packet[6 + topic]) } else { 0 };
        let payload = String::from_utf8_lossy(&packet[6 + topic + properties..]).into_owned();
        (packet[0], pkid, payload)
    }

    pub(crate) async fn puback(&mut self, pkid: u16) {
        let [high, low] = pkid.to_be_bytes();
        self.send(&[0x40, 2, high, low]).await;
    }

    /// The next packet, or `None` when the server closed the connection.
    pub(crate) async fn packet(&mut self) -> Option<Vec<u8>> {
        soon(async {
            loop {
                if let Some(packet) = self.cut() {
                    return Some(packet);
                }
                if !matches!(self.stream.read_buf(&mut self.received).await, Ok(n) if n > 0) {
                    return None;
                }
            }
        })
        .await
    }

    fn cut(&mut self) -> Option<Vec<u8>> {
        let (mut len, mut at) = (0, 1);
        loop {
            let byte = *self.received.get(at)?;
            len |= usize::from(byte & 0x7F) << (7 * (at - 1));
            at += 1;
            if byte & 0x80 == 0 {
                break;
            }
        }
        (self.received.len() >= at + len).then(|| self.received.split_to(at + len).to_vec())
    }

    /// Expects the server to close without another word.
    pub(crate) async fn closed(&mut self) {
        assert_eq!(self.packet().await, None);
    }
}
