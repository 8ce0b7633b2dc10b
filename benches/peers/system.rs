//! The four systems that do the same job: from MQTT to rows of the table `telemetry`.

use std::fmt::Write as _;
use std::fs::File;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::install;
use crate::support::run::{Server, cpu_of};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Liftwatch,
    PythonQuick,
    PythonCareful,
    NodeRed,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] =
        [Self::Liftwatch, Self::PythonQuick, Self::PythonCareful, Self::NodeRed];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Liftwatch => "Liftwatch",
            Self::PythonQuick => "mosquitto + Python",
            Self::PythonCareful => "mosquitto + Python, careful",
            Self::NodeRed => "mosquitto + Node-RED",
        }
    }

    /// Fetches what it needs.
    pub(crate) fn install(self) -> Result<(), String> {
        match self {
            Self::Liftwatch => Ok(()),
            Self::PythonQuick | Self::PythonCareful => {
                install::mosquitto().and_then(|_| install::python()).map(drop)
            }
            Self::NodeRed => install::mosquitto().and_then(|_| install::node_red()).map(drop),
        }
    }
}

/// Running processes of one kind.
#[derive(Debug)]
pub(crate) struct System {
    kind: Kind,
    database_url: String,
    port: u16,
    folder: tempfile::TempDir,
    /// The broker writes what it holds to disk every second.
    durable: bool,
    server: Option<Server>,
    broker: Option<Child>,
    consumer: Option<Child>,
    /// CPU of processes that are gone.
    spent: f64,
}

impl System {
    pub(crate) async fn start(kind: Kind, database_url: &str, durable: bool) -> Self {
        let mut system = Self {
            kind,
            database_url: database_url.to_owned(),
            port: free_port(),
            folder: tempfile::tempdir().expect("a folder"),
            durable,
            server: None,
            broker: None,
            consumer: None,
            spent: 0.0,
        };
        system.start_broker().await;
        system.start_consumer();
        system
    }

    /// Where terminals connect.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Seconds of CPU of broker and consumer.
    pub(crate) fn cpu(&self) -> f64 {
        let server = self.server.as_ref().map_or(0.0, |server| cpu_of(server.id()));
        let children = [&self.broker, &self.consumer];
        let children: f64 = children.into_iter().flatten().map(|child| cpu_of(child.id())).sum();
        self.spent + server + children
    }

    pub(crate) fn has_separate_broker(&self) -> bool {
        self.kind != Kind::Liftwatch
    }

    /// `kill -9` of what writes rows, and a new one at once.
    pub(crate) async fn restart_consumer(&mut self) {
        self.spent = self.cpu();
        if let Some(server) = self.server.take() {
            server.kill();
            return self.start_broker().await;
        }
        end(&mut self.consumer);
        self.start_consumer();
    }

    /// `kill -9` of the broker, and a new one at once.
    pub(crate) async fn restart_broker(&mut self) {
        if !self.has_separate_broker() {
            return self.restart_consumer().await;
        }
        self.spent = self.cpu();
        end(&mut self.broker);
        self.start_broker().await;
    }

    async fn start_broker(&mut self) {
        if self.kind == Kind::Liftwatch {
            let program = Path::new(env!("CARGO_BIN_EXE_liftwatch"));
            self.server = Some(Server::start_at(program, &self.database_url, &self.address()).await);
            return;
        }
        let path = self.folder.path().join("mosquitto.conf");
        // No bounds of its own: neither on what waits for the consumer nor on what is on its way to it.
        let mut text = format!(
            "listener {} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nmax_inflight_messages 0\n\
             max_packet_size 2000000\nlog_type error\n",
            self.port
        );
        if self.durable {
            text += "persistence true\nautosave_interval 1\n";
            let _ = writeln!(text, "persistence_location {}/", self.folder.path().display());
            // Run by root it becomes another user, to whom the folder must belong.
            text += "user root\n";
        }
        std::fs::write(&path, text).expect("the folder can be written");
        let program = install::mosquitto().expect("installed before");
        self.broker = Some(self.spawn(Command::new(program).arg("-c").arg(path), "mosquitto.log"));
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(self.address()).is_err() {
            assert!(Instant::now() < deadline, "mosquitto does not listen");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn start_consumer(&mut self) {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../benches/peers");
        self.consumer = match self.kind {
            Kind::Liftwatch => None,
            Kind::PythonQuick | Kind::PythonCareful => {
                let mut command = Command::new(install::python().expect("installed before"));
                command.arg(source.join("consumer.py")).args(["--port", &self.port.to_string()]);
                command.args(["--database", &peer_url(&self.database_url)]);
                if self.kind == Kind::PythonCareful {
                    command.arg("--careful");
                }
                Some(self.spawn(&mut command, "consumer.log"))
            }
            Kind::NodeRed => {
                let home = install::node_red().expect("installed before");
                let flow = self.folder.path().join("flow.json");
                std::fs::write(&flow, flow_of(&source, self.port)).expect("the folder can be written");
                let mut command = Command::new("node");
                command.arg(home.join("node_modules/node-red/red.js"));
                command.arg("--settings").arg(source.join("node_red_settings.js"));
                command.env("PEERS_FOLDER", &home).env("PEERS_FLOW", flow);
                command.env("PEERS_USER_FOLDER", self.folder.path());
                command
                    .env("PEERS_UI_PORT", free_port().to_string())
                    .env("PEERS_DATABASE", peer_url(&self.database_url));
                Some(self.spawn(&mut command, "consumer.log"))
            }
        };
    }

    fn spawn(&self, command: &mut Command, log: &str) -> Child {
        let log = File::options().create(true).append(true).open(self.log(log)).expect("a log");
        let errors = log.try_clone().expect("a log");
        command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn().expect("it starts")
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What the consumer said last, for when nothing comes through.
    pub(crate) fn last_words(&self) -> String {
        let text = std::fs::read_to_string(self.log("consumer.log")).unwrap_or_default();
        text.lines().rev().take(3).collect::<Vec<_>>().join(" | ")
    }

    pub(crate) fn stop(mut self) {
        if let Some(server) = self.server.take() {
            server.stop();
        }
    }
}

impl Drop for System {
    fn drop(&mut self) {
        end(&mut self.consumer);
        end(&mut self.broker);
        if let Some(server) = self.server.take() {
            server.kill();
        }
    }
}

fn end(child: &mut Option<Child>) {
    if let Some(mut child) = child.take() {
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Clients that know a socket from a host only where the URL names no host.
fn peer_url(url: &str) -> String {
    if url.contains("host=%2F") { url.replacen("@localhost/", "@/", 1) } else { url.to_owned() }
}

/// Taken by nobody a moment ago.
fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("an address").port()
}

/// mqtt in (JSON parsed) -> join (batches of 2,000 or what 50 ms bring) -> function (COPY).
fn flow_of(source: &Path, port: u16) -> String {
    let write = std::fs::read_to_string(source.join("node_red_write.js")).expect("it is beside this file");
    json!([
        { "id": "flow", "type": "tab", "label": "readings" },
        { "id": "broker", "type": "mqtt-broker", "name": "", "broker": "127.0.0.1", "port": port.to_string(),
          "clientid": "node-red", "autoConnect": true, "usetls": false, "protocolVersion": "4",
          "keepalive": "60", "cleansession": false, "autoUnsubscribe": false },
        { "id": "in", "type": "mqtt in", "z": "flow", "topic": "lift/v1/+/+/telemetry.json", "qos": "1",
          "datatype": "json", "broker": "broker", "nl": false, "rap": true, "rh": 0, "inputs": 0,
          "x": 100, "y": 100, "wires": [["batch"]] },
        { "id": "batch", "type": "join", "z": "flow", "mode": "custom", "build": "array", "property": "",
          "propertyType": "full", "key": "topic", "joiner": "", "joinerType": "str", "useparts": false,
          "accumulate": false, "timeout": "0.05", "count": "2000", "x": 300, "y": 100, "wires": [["write"]] },
        { "id": "write", "type": "function", "z": "flow", "name": "write", "func": write, "outputs": 0,
          "timeout": 0, "noerr": 0, "initialize": "", "finalize": "", "libs": [], "x": 500, "y": 100,
          "wires": [] },
    ])
    .to_string()
}
