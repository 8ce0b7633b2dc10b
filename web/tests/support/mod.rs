//! A server on a free port, a tiny HTTP client, and things to put into the database.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use domain::{
    Alarm, AlarmChange, AlarmEvent, AlarmId, AlarmState, Area, Arrival, ArrivalNo, BootId, CarStatus,
    Direction, DoorState, ElevatorId, EvidenceKind, EvidenceLine, Passengers, RuleId, Seq, ServiceMode,
    TerminalId, Timestamp,
};
use prometheus_client::registry::Registry;
use store::testing::TestDatabase;
use store::{Database, ElevatorState};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use web::{Check, Documents, Figures, Metrics, Parts, State};

/// A running server; stops when dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) stop: CancellationToken,
    pub(crate) task: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(database: Database, checks: Vec<Check>) -> Self {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        let figures =
            || Figures { terminals_connected: 12_345, readings_received: 77, rows_committed: 9_876_543 };
        let parts = Parts {
            database,
            registry: Arc::new(registry),
            metrics,
            checks,
            figures: Arc::new(figures),
            offline_after: domain::limits::OFFLINE_AFTER,
            documents: Documents {
                asyncapi: r#"{"asyncapi":"3.0.0"}"#.to_owned(),
                schemas: vec![("telemetry", "{}".to_owned())],
            },
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let task = tokio::spawn(web::serve(listener, State::new(parts), stop.clone()));
        Self { address, stop, task }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.request("GET", path).await
    }

    pub(crate) async fn request(&self, method: &str, path: &str) -> Answer {
        request(self.address, method, path).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: HashMap<String, String>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// One request on a connection of its own.
pub(crate) async fn request(address: SocketAddr, method: &str, path: &str) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer}"));
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
    Answer { status, headers, body: body.to_owned() }
}

/// Waits until a condition holds.
pub(crate) async fn until(mut holds: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "the condition did not come to hold");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// An empty database; keep the first part as long as the second is used.
pub(crate) async fn database() -> (TestDatabase, Database) {
    let kept = TestDatabase::new().await;
    let database = kept.open().await;
    (kept, database)
}

/// Registers an elevator with terminal `t0`, `t1`, ... in each area, and gives their ids.
pub(crate) async fn fill(database: &Database, areas: &[&str]) -> Vec<ElevatorId> {
    let registry = store::Registry::load(database).await.unwrap();
    let mut ids = Vec::new();
    for (index, area) in areas.iter().enumerate() {
        let terminal = TerminalId::new(&format!("t{index}")).unwrap();
        registry.register(&[(terminal.clone(), area.parse().unwrap())]).await.unwrap();
        ids.push(registry.lookup(terminal.as_str()).unwrap().elevator_id);
    }
    ids
}

/// Seconds since 1970.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

/// The state of an elevator of terminal `t1` that travels down with somebody in it.
pub(crate) fn elevator_state(elevator_id: ElevatorId, area: &str) -> ElevatorState {
    let time: Timestamp = "2026-11-22T08:00:00.123456+08:00".parse().unwrap();
    ElevatorState {
        elevator_id,
        terminal_id: TerminalId::new("t1").unwrap(),
        area: area.parse().unwrap(),
        online: Some(true),
        last_seen: Some(time),
        time: Some(time),
        service_mode: Some(ServiceMode::Normal),
        car_status: Some(CarStatus::Running),
        direction: Some(Direction::Down),
        door_zone: Some(false),
        door_state: Some(DoorState::Locked),
        passengers: Some(Passengers::Yes),
        people: Some(true),
        floor: Some("<b>".to_owned()),
        floor_ordinal: Some(-1),
        position_mm: Some(33_250),
        velocity_mm_s: Some(-1_750),
        load_kg: None,
        people_count: Some(2),
        flags: None,
        temperature_dc: None,
        vibration_mm_s2: None,
        codes: vec!["5".to_owned()],
        code_slugs: vec!["unintended_movement".to_owned()],
        arrival: Arrival { no: ArrivalNo(1), at: time },
        changed: ArrivalNo(1),
        engine_version: 1,
        engine: "{}".to_owned(),
    }
}

/// A new alarm of an elevator, raised at a second.
pub(crate) fn alarm(elevator_id: ElevatorId, area: &str, kind: &str, seq: i64, raised: i64) -> AlarmEvent {
    let area: Area = area.parse().unwrap();
    let terminal_id = TerminalId::new("t1").unwrap();
    let kind: domain::AlarmKind = kind.parse().unwrap();
    let began = at(raised - 1);
    let id = AlarmId::derive(elevator_id, kind.slug(), &terminal_id, BootId(1), Seq(seq), began.micros());
    let evidence = vec![EvidenceLine {
        evidence: EvidenceKind::StateRule,
        rule: RuleId::E1,
        rule_version: 1,
        at: at(raised),
        arrival_no: ArrivalNo(seq),
        trace: "a < b & c".to_owned(),
    }];
    let alarm = Alarm {
        id,
        elevator_id,
        terminal_id,
        area,
        kind,
        severity: kind.0.severity,
        state: AlarmState::Confirmed,
        score: 90,
        began,
        raised: at(raised),
        cleared: None,
        acknowledged_by: None,
        acknowledged: None,
        boot: BootId(1),
        seq: Seq(seq),
        floor: Some("<b>".to_owned()),
        evidence,
    };
    AlarmEvent { no: None, at: at(raised), change: AlarmChange::Raised, alarm }
}
