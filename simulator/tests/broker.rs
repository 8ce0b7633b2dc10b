//! Fleets, recordings and replays against a real broker in another process.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use simulator::{
    Fault, FaultKind, Fleet, FleetConfig, FleetMonitor, PlannedFault, Qos, Rate, RecordOptions, Recording,
    ReplayOptions, record, replay,
};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// A mosquitto of our own, killed when dropped.
struct Broker {
    child: Child,
    port: u16,
    /// What it says; shown when the test fails.
    log: tempfile::NamedTempFile,
}

impl Broker {
    /// `None` where mosquitto is not installed: the end-to-end tests of `server` run fleets against our gate.
    async fn start() -> Option<Self> {
        // Below the ports that the kernel gives to outgoing connections (from 32768), of which a fleet makes
        // many: a broker that is killed finds its port free again.
        let mut ports = (20_000..32_000).cycle().skip(std::process::id() as usize % 12_000).step_by(7);
        loop {
            let port = ports.next().expect("a cycle");
            if TcpListener::bind(("127.0.0.1", port)).is_err()
                || !TAKEN.lock().expect("no panic while it is held").insert(port)
            {
                continue;
            }
            let mut broker = Self::at(port).await?;
            if !broker.ended() {
                return Some(broker);
            }
            eprintln!("another process was faster at port {port}");
        }
    }

    /// At a port that was ours before, or is free.
    async fn at(port: u16) -> Option<Self> {
        let log = tempfile::NamedTempFile::new().expect("a file for its log");
        let start = |program: &&str| {
            let mut command = Command::new(program);
            command.args(["-p", &port.to_string()]).stdout(Stdio::null());
            command.stderr(log.reopen().expect("its log"));
            command.spawn().ok()
        };
        let child = ["mosquitto", "/usr/sbin/mosquitto"].iter().find_map(start)?;
        let mut broker = Self { child, port, log };
        let target = broker.target();
        wait_for("mosquitto answers, or has ended", || broker.ended() || answers(&target).is_ok()).await;
        Some(broker)
    }

    fn ended(&mut self) -> bool {
        self.child.try_wait().expect("its state").is_some()
    }

    fn target(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

/// Ports of this process: its tests run side by side.
static TAKEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A listening socket says little: its process may still end. A broker that grants a session is up.
fn answers(target: &str) -> std::io::Result<()> {
    // MQTT 3.1.1, clean session, keep-alive 60 s, no client id.
    const CONNECT: [u8; 14] = [0x10, 12, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, 0];
    let mut stream = TcpStream::connect(target)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(&CONNECT)?;
    let mut granted = [0; 4];
    stream.read_exact(&mut granted)?;
    if granted == [0x20, 2, 0, 0] { Ok(()) } else { Err(std::io::ErrorKind::ConnectionRefused.into()) }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("mosquitto:\n{}", std::fs::read_to_string(self.log.path()).unwrap_or_default());
        }
    }
}

async fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while !holds() {
        assert!(Instant::now() < deadline, "not within 60 s: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

async fn acked(monitor: &FleetMonitor, count: u64) {
    wait_for("enough acknowledgements", || monitor.counters().items_acked >= count).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_killed_twice_costs_nothing() {
    let Some(mut broker) = Broker::start().await else {
        return eprintln!("no mosquitto: not run");
    };
    let folder = tempfile::tempdir().unwrap();
    let acked_file = folder.path().join("acked.csv");
    let config = FleetConfig {
        target: broker.target(),
        terminals: 50,
        rate: Rate::PerSecond(500.0),
        acked_file: Some(acked_file.clone()),
        faults: vec![PlannedFault {
            terminal: 7,
            after: Duration::from_millis(500),
            fault: Fault::new(FaultKind::PowerCut).until_released(),
        }],
        ..FleetConfig::default()
    };
    let fleet = Fleet::start(config).await.unwrap();
    let monitor = fleet.monitor();
    acked(&monitor, 300).await;
    for _ in 0..2 {
        let port = broker.port;
        drop(broker);
        wait_for("all notice", || monitor.counters().connected == 0).await;
        broker = Broker::at(port).await.unwrap();
        assert!(!broker.ended(), "it found its port free again");
        wait_for("all are back", || monitor.counters().connected == 50).await;
        acked(&monitor, monitor.counters().items_acked + 500).await;
    }
    wait_for("the fault has struck", || !monitor.truths().is_empty()).await;
    assert!(!monitor.inject(50, Fault::new(FaultKind::PowerCut)), "there is no such terminal");
    let report = fleet.stop().await;
    println!("{report}");
    assert_eq!((report.unacked, report.counts.dropped, report.counts.connected), (0, 0, 0));
    assert_eq!(report.counts.reconnects, 100);
    assert!(report.ledger_complete && report.truth[0].fault == FaultKind::PowerCut);

    // The ledger has every number of every terminal, once.
    let mut seqs: BTreeMap<String, BTreeSet<i64>> = BTreeMap::new();
    for line in std::fs::read_to_string(acked_file).unwrap().lines().skip(1) {
        let cells: Vec<&str> = line.split(',').collect();
        let fresh = seqs.entry(cells[0].into()).or_default().insert(cells[2].parse().unwrap());
        assert!(fresh, "acknowledged twice: {line}");
    }
    assert_eq!(seqs.len(), 50);
    for (terminal, seqs) in &seqs {
        assert_eq!(seqs.last(), Some(&(seqs.len() as i64)), "{terminal}: no number is missing");
    }
    assert_eq!(seqs.values().map(BTreeSet::len).sum::<usize>() as u64, report.counts.items_acked);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_quality_of_service_works() {
    let Some(broker) = Broker::start().await else { return eprintln!("no mosquitto: not run") };
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
        let config = FleetConfig {
            target: broker.target(),
            terminals: 5,
            rate: Rate::PerSecond(200.0),
            duration: Some(Duration::from_secs(2)),
            qos,
            ..FleetConfig::default()
        };
        let report = Fleet::start(config).await.unwrap().finish(&CancellationToken::new()).await;
        let sent = report.counts.items_sent;
        assert!(sent > 200 && report.unacked == 0, "{qos:?}: {report}");
        let acked = if qos == Qos::AtMostOnce { 0 } else { sent };
        assert_eq!(report.counts.items_acked, acked, "{qos:?}: {report}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replayed_recording_is_the_recording() {
    let Some(broker) = Broker::start().await else { return eprintln!("no mosquitto: not run") };
    let folder = tempfile::tempdir().unwrap();
    let stop = CancellationToken::new();
    let taken = |name: &str| {
        let options = RecordOptions {
            client_id: name.into(),
            ..RecordOptions::new(broker.target(), folder.path().join(name))
        };
        let (seen, stop) = (std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0)), stop.child_token());
        let (counter, token) = (seen.clone(), stop.clone());
        let task = tokio::spawn(async move {
            let tell = |report: &simulator::RecordReport| {
                counter.store(report.messages, std::sync::atomic::Ordering::Relaxed);
            };
            record(&options, tell, &token).await.unwrap()
        });
        (task, seen, stop)
    };
    let (first, seen, first_stop) = taken("first");
    // The file is made once the subscription is granted.
    wait_for("the recorder listens", || folder.path().join("first").exists()).await;
    let config = FleetConfig {
        target: broker.target(),
        terminals: 10,
        rate: Rate::PerSecond(300.0),
        duration: Some(Duration::from_secs(2)),
        ..FleetConfig::default()
    };
    let sent = Fleet::start(config).await.unwrap().finish(&CancellationToken::new()).await.counts.sent;
    let count = || seen.load(std::sync::atomic::Ordering::Relaxed);
    wait_for("all is recorded", || count() >= sent).await;
    first_stop.cancel();
    assert_eq!(first.await.unwrap().messages, sent);

    let (second, seen, second_stop) = taken("second");
    wait_for("the recorder listens", || folder.path().join("second").exists()).await;
    let options =
        ReplayOptions { speed: 0.0, ..ReplayOptions::new(folder.path().join("first"), broker.target()) };
    let report = replay(&options, |_| {}, &CancellationToken::new()).await.unwrap();
    println!("{report}");
    assert_eq!((report.read, report.counts.acked, report.unacked, report.terminals), (sent, sent, 0, 10));
    wait_for("all is recorded", || seen.load(std::sync::atomic::Ordering::Relaxed) >= sent).await;
    second_stop.cancel();
    second.await.unwrap();

    // Byte for byte, and each terminal in its own order.
    let by_topic = |name: &str| {
        let mut messages: BTreeMap<String, Vec<bytes::Bytes>> = BTreeMap::new();
        for entry in Recording::open(&folder.path().join(name)).unwrap() {
            let entry = entry.unwrap();
            messages.entry(entry.topic).or_default().push(entry.payload);
        }
        messages
    };
    assert_eq!(by_topic("first"), by_topic("second"));
}
