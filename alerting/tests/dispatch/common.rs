//! A running alerting with a clock that the test sets, a client, and things to submit.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use alerting::engine::Input;
use alerting::{Alerting, Clock, Config, Handle, service};
use domain::{
    Alarm, AlarmChange, AlarmEvent, AlarmId, AlarmState, Area, Arrival, ArrivalNo, BootId, Code, ElevatorId,
    EventBatch, EventState, EvidenceKind, EvidenceLine, FaultEvent, Message, Receipt, RuleId, Seq, Severity,
    TerminalId, Timestamp,
};
use prometheus_client::registry::Registry;
use proto::dispatch::v1;
use proto::dispatch::v1::dispatch_service_client::DispatchServiceClient;
use proto::dispatch::v1::watch_response::Message as Told;
use store::Database;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use tonic::transport::Channel;

pub(crate) const AREA: &str = "350102";
pub(crate) type Client = DispatchServiceClient<Channel>;

/// Server time in the tests, seconds after some day in 2027.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(1_800_000_000_000_000 + seconds * 1_000_000)
}

#[derive(Clone)]
pub(crate) struct TestClock(Arc<AtomicI64>);

impl TestClock {
    pub(crate) fn new(now: Timestamp) -> Self {
        Self(Arc::new(AtomicI64::new(now.micros())))
    }

    pub(crate) fn set(&self, now: Timestamp) {
        self.0.store(now.micros(), Ordering::Relaxed);
    }

    pub(crate) fn clock(&self) -> Clock {
        let micros = Arc::clone(&self.0);
        Clock::new(move || Timestamp::from_micros(micros.load(Ordering::Relaxed)))
    }
}

/// Says when it is done; dropping it undone says so too.
pub(crate) struct Done(oneshot::Sender<()>);

impl Receipt for Done {
    fn done(self) {
        let _ = self.0.send(());
    }
}

pub(crate) fn receipt() -> (Done, oneshot::Receiver<()>) {
    let (sender, receiver) = oneshot::channel();
    (Done(sender), receiver)
}

/// Fast paces, so that tests need not wait. Nothing is provisional, on a slow machine either, unless a test
/// asks for it.
pub(crate) fn config() -> Config {
    let mut config = Config {
        checkpoint_every: Duration::from_millis(50),
        provisional_after: Duration::from_mins(1),
        ..Config::default()
    };
    config.stream.heartbeat_every = Duration::from_millis(200);
    config.stream.poll_every = Duration::from_millis(50);
    config
}

pub(crate) struct Running {
    pub(crate) handle: Handle<Done>,
    pub(crate) alerting: Alerting,
    pub(crate) metrics: Registry,
    pub(crate) client: Client,
    pub(crate) address: String,
    pub(crate) stop: CancellationToken,
    pub(crate) serving: JoinHandle<Result<(), service::ServeError>>,
}

pub(crate) async fn start(database: &Database, clock: &TestClock, config: Config) -> Running {
    let mut metrics = Registry::default();
    let abandon = CancellationToken::new();
    let started = Alerting::start(config, database.clone(), clock.clock(), &mut metrics, abandon).await;
    let (handle, alerting) = started.expect("alerting starts");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    let serving = tokio::spawn(service::serve(listener, alerting.streams(), clock.clock(), stop.clone()));
    let client = Client::connect(address.clone()).await.expect("the service answers");
    Running { handle, alerting, metrics, client, address, stop, serving }
}

impl Running {
    /// Submits and waits until it is on disk.
    pub(crate) async fn submit(&self, input: Input) {
        let (receipt, done) = receipt();
        self.handle.submit(input, receipt).await.unwrap();
        within(done).await.expect("done, not dropped");
    }

    /// As a kill would: tasks end where they are.
    pub(crate) fn crash(self) {
        self.serving.abort();
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        within(self.serving).await.unwrap().unwrap();
        drop(self.handle);
        within(self.alerting.drain()).await.unwrap();
    }

    pub(crate) async fn watch(&mut self, request: v1::WatchRequest) -> Watch {
        let stream = self.client.watch(request).await.expect("a stream").into_inner();
        Watch(stream)
    }
}

pub(crate) async fn within<F: Future>(work: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), work).await.expect("within 20 s")
}

/// One alarm stream.
pub(crate) struct Watch(pub(crate) Streaming<v1::WatchResponse>);

impl Watch {
    pub(crate) async fn next(&mut self) -> Result<Told, tonic::Status> {
        let next = within(self.0.message()).await?;
        Ok(next.expect("streams end with a status").message.expect("a message"))
    }

    pub(crate) async fn snapshot(&mut self) -> v1::Snapshot {
        loop {
            match self.next().await.unwrap() {
                Told::Snapshot(snapshot) => return snapshot,
                Told::Event(event) => assert!(event.provisional, "{event:?}"),
                Told::Heartbeat(beat) => assert_eq!(beat.no, 0),
            }
        }
    }

    /// The next event that is told for the first time.
    pub(crate) async fn event(&mut self) -> v1::AlarmEvent {
        loop {
            if let Told::Event(event) = self.next().await.unwrap()
                && !event.repeated
            {
                return event;
            }
        }
    }

    pub(crate) async fn heartbeat(&mut self) -> v1::Heartbeat {
        loop {
            if let Told::Heartbeat(beat) = self.next().await.unwrap() {
                return beat;
            }
        }
    }

    /// The status with which it ends.
    pub(crate) async fn end(&mut self) -> tonic::Status {
        loop {
            if let Err(status) = self.next().await {
                return status;
            }
        }
    }
}

pub(crate) fn terminal(elevator: i64) -> TerminalId {
    TerminalId::new(&format!("t-{elevator}")).unwrap()
}

pub(crate) fn area() -> Area {
    AREA.parse().unwrap()
}

/// A controller says that a fault of this slug began or ended; S1 faults raise at once.
pub(crate) fn fault(elevator: i64, no: i64, seconds: i64, slug: &str, state: EventState) -> Input {
    let event = FaultEvent { seq: Seq(no), time: at(seconds), code: Code::canonical(slug).unwrap(), state };
    let batch = EventBatch { boot: BootId(1), sent: Some(at(seconds)), events: vec![event], active: None };
    input(elevator, no, seconds, Message::Event(batch))
}

pub(crate) fn input(elevator: i64, no: i64, seconds: i64, message: Message) -> Input {
    Input::Message {
        elevator_id: ElevatorId(elevator),
        terminal_id: terminal(elevator),
        area: area(),
        arrival: Arrival { no: ArrivalNo(no), at: at(seconds) },
        message: Arc::new(message),
    }
}

pub(crate) fn unintended_movement(elevator: i64, no: i64, seconds: i64) -> Input {
    fault(elevator, no, seconds, "unintended_movement", EventState::Open)
}

/// An event for the store, past the engine.
pub(crate) fn raised(elevator: i64, seq: i64) -> AlarmEvent {
    let (terminal_id, kind) = (terminal(elevator), "entrapment_between_floors");
    let id = AlarmId::derive(ElevatorId(elevator), kind, &terminal_id, BootId(1), Seq(seq), 0);
    let evidence = vec![EvidenceLine {
        evidence: EvidenceKind::StateRule,
        rule: RuleId::E1,
        rule_version: 10_000,
        at: at(seq),
        arrival_no: ArrivalNo(seq),
        trace: "stopped outside the zone for 30 s".into(),
    }];
    let alarm = Alarm {
        id,
        elevator_id: ElevatorId(elevator),
        terminal_id,
        area: area(),
        kind: kind.parse().unwrap(),
        severity: Severity::S1,
        state: AlarmState::Suspected,
        score: 40,
        began: at(seq),
        raised: at(seq),
        cleared: None,
        acknowledged_by: None,
        acknowledged: None,
        boot: BootId(1),
        seq: Seq(seq),
        floor: None,
        evidence,
    };
    AlarmEvent { no: None, at: at(seq), change: AlarmChange::Raised, alarm }
}

pub(crate) fn cleared(event: &AlarmEvent, seconds: i64) -> AlarmEvent {
    let alarm = Alarm { cleared: Some(at(seconds)), state: AlarmState::Cancelled, ..event.alarm.clone() };
    AlarmEvent { no: None, at: at(seconds), change: AlarmChange::Cleared, alarm }
}

pub(crate) fn acknowledge(id: &str, key: &str) -> v1::AcknowledgeRequest {
    v1::AcknowledgeRequest {
        alarm_id: id.into(),
        actor: "seat 4".into(),
        idempotency_key: key.into(),
        note: String::new(),
    }
}
