//! A fleet against a real broker that dies in the middle.

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use domain::TerminalId;
use simulator::{Fault, Fleet, FleetConfig, run};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// A mosquitto of our own, killed when dropped.
struct Broker(Child);

impl Broker {
    fn start(port: u16) -> Option<Self> {
        ["mosquitto", "/usr/sbin/mosquitto"].into_iter().find_map(|program| {
            let mut command = Command::new(program);
            command.args(["-p", &port.to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn().ok().map(Self)
        })
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "not within 20 s: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("a bound socket has an address")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_goes_as_fast_as_acknowledgements_allow_and_strikes_in_turn() {
    let address = free_address();
    let Some(_broker) = Broker::start(address.port()) else {
        eprintln!("SKIPPED: mosquitto is not installed");
        return;
    };
    let config = FleetConfig {
        broker: address,
        terminals: 4,
        rate: Some(0.0),
        json: true,
        duration: Some(Duration::from_secs(3)),
        ..FleetConfig::default()
    };
    let faults = vec![(Fault::SafetyCircuit, Duration::ZERO), (Fault::PowerCut, Duration::from_millis(100))];
    let report = run(config, faults, true, CancellationToken::new()).await.unwrap();
    println!("{report}");
    assert!(report.counters.readings_acked > 1_000 && report.counters.unacked == 0);
    let struck: Vec<_> = report.truth.iter().map(|one| (one.terminal_id.as_str(), one.fault)).collect();
    assert_eq!(struck, [("sim-000001", Fault::SafetyCircuit), ("sim-000002", Fault::PowerCut)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_dies_costs_nothing() {
    let address = free_address();
    let Some(broker) = Broker::start(address.port()) else {
        eprintln!("SKIPPED: mosquitto is not installed");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let acked_file = folder.path().join("acked.csv");
    let config = FleetConfig {
        broker: address,
        terminals: 20,
        rate: Some(200.0),
        keep_ledger: true,
        acked_file: Some(acked_file.clone()),
        truth_file: Some(folder.path().join("truth.json")),
        ..FleetConfig::default()
    };
    let fleet = Fleet::start(config).unwrap();
    wait_for("all are connected and speak", || {
        let counters = fleet.counters();
        counters.connected == 20 && counters.readings_acked > 100
    })
    .await;
    fleet.inject(3, Fault::UnintendedMovement).unwrap();
    assert!(fleet.inject(20, Fault::PowerCut).is_err());
    drop(broker);
    wait_for("all notice", || fleet.counters().connected == 0).await;
    let kept = fleet.counters().unacked;
    wait_for("readings gather", || fleet.counters().unacked > kept + 100).await;
    let _broker = Broker::start(address.port()).unwrap();
    wait_for("all are back", || fleet.counters().connected == 20).await;
    wait_for("the truth is told", || !fleet.truth().is_empty()).await;
    let struck = fleet.terminal_id(3).unwrap().clone();
    let report = fleet.stop(Duration::from_secs(20)).await.unwrap();
    println!("{report}");

    let counters = report.counters;
    assert_eq!((counters.unacked, counters.dropped, counters.connected), (0, 0, 0));
    assert!(counters.reconnects >= 20);
    assert_eq!((&report.truth[0].terminal_id, report.truth[0].fault), (&struck, Fault::UnintendedMovement));
    let mut seqs: HashMap<&TerminalId, HashSet<i64>> = HashMap::new();
    for one in &report.acked {
        for seq in one.first_seq..=one.last_seq {
            assert!(seqs.entry(&one.terminal_id).or_default().insert(seq), "acknowledged twice: {one:?}");
        }
    }
    assert_eq!(seqs.len(), 20);
    for (terminal, seqs) in &seqs {
        let last = *seqs.iter().max().unwrap();
        assert_eq!(seqs.len() as i64, last, "{terminal}: every number from 1 is acknowledged");
    }
    assert_eq!(seqs.values().map(HashSet::len).sum::<usize>() as u64, counters.readings_acked);
    let lines = std::fs::read_to_string(acked_file).unwrap();
    assert_eq!(lines.lines().count(), report.acked.len());
    assert!(report.puback_ms.p50 > 0.0 && report.puback_ms.max >= report.puback_ms.p99);
}
