//! The whole way: a fleet publishes QoS 1, one reading a message, to a real `liftwatch serve` process; every
//! message ends as a committed row. Prints messages per second, CPU per message of the server and of
//! PostgreSQL, and the server's memory. `cargo bench --bench pipeline [-- SECONDS CONNECTIONS WINDOW [RATE]]`
//!
//! Without a rate as fast as the server acknowledges; with one (20000) so many messages a second, evenly spread, and
//! how long each takes to be committed and acknowledged. Delivery counts from the making of a reading, so a server
//! that stands still delays all readings made meanwhile, and all of them count, those of the start as well.
//!
//! The fleet runs in this process, on the same cores; its CPU is printed beside the others.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use procfs::process::{Process, all_processes};
use simulator::{Fleet, FleetConfig, Rate};
use store::testing::TestDatabase;

/// Ninety-nine of a hundred messages are acknowledged within this time, commit included.
const ACKNOWLEDGE_MS_AIM: f64 = 25.0;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|text| text.parse().ok()).collect();
    let number = |index: usize, default: u64| numbers.get(index).copied().unwrap_or(default);
    let (seconds, connections, window) = (number(0, 15), number(1, 200), number(2, 50));
    let paced = numbers.get(3).copied();

    let test = TestDatabase::new().await;
    let folder = tempfile::tempdir().expect("a folder");
    let ready = folder.path().join("ready.json");
    let mut server = Command::new(env!("CARGO_BIN_EXE_liftwatch"))
        .args(["serve", "--dev", "--ready-file"])
        .arg(&ready)
        .env("LIFTWATCH_DATABASE__URL", test.url())
        .envs(["BROKER", "DISPATCH", "WEB"].map(|name| (format!("LIFTWATCH_{name}__LISTEN"), "127.0.0.1:0")))
        .stdout(Stdio::null())
        .spawn()
        .expect("liftwatch starts");
    let address = address(&ready, &mut server).await;

    let fleet = Fleet::start(FleetConfig {
        target: address,
        terminals: connections as usize,
        rate: paced.map_or(Rate::Unlimited, |per_s| Rate::PerSecond(per_s as f64)),
        window: window as usize,
        complete: true,
        drain: Duration::from_secs(30),
        ..FleetConfig::default()
    })
    .await
    .expect("the fleet starts");
    // Connected and warm.
    let warm = paced.map_or(20 * connections * window, |per_s| 2 * per_s);
    let deadline = Instant::now() + Duration::from_mins(1);
    while fleet.counters().acked < warm {
        assert!(Instant::now() < deadline, "the fleet did not get going: {:?}", fleet.last_refusal());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let before = (Instant::now(), fleet.counters(), cpu(server.id()));
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let after = (Instant::now(), fleet.counters(), cpu(server.id()));
    let memory = Process::new(server.id().cast_signed())
        .and_then(|process| process.status())
        .ok()
        .and_then(|status| status.vmrss)
        .unwrap_or(0);
    let report = fleet.stop().await;
    let stored = test.open().await.reading_count().await.expect("count");
    let _ = Command::new("kill").args(["-TERM", &server.id().to_string()]).status();
    let _ = server.wait();

    let elapsed = (after.0 - before.0).as_secs_f64();
    let messages = (after.1.acked - before.1.acked) as f64;
    let readings = (after.1.items_acked - before.1.items_acked) as f64;
    let per_message = |ticks: u64| ticks as f64 * 1e6 / procfs::ticks_per_second() as f64 / messages;
    println!("connections {connections}, window {window}, {elapsed:.1} s");
    println!(
        "messages/s            {:>10.0}   ({:.2} readings each)",
        messages / elapsed,
        readings / messages
    );
    println!("CPU us/message        {:>10.2}   server", per_message(after.2.server - before.2.server));
    println!(
        "                      {:>10.2}   PostgreSQL",
        per_message(after.2.postgres.saturating_sub(before.2.postgres))
    );
    println!("                      {:>10.2}   fleet", per_message(after.2.fleet - before.2.fleet));
    println!("memory                {:>10.1} MB server", memory as f64 / 1024.0);
    println!("acknowledge           {}", report.acknowledge);
    if let Some(per_s) = paced {
        println!("delivery              {}", report.delivery);
        let met = report.delivery.p99_ms < ACKNOWLEDGE_MS_AIM && messages / elapsed > 0.99 * per_s as f64;
        println!(
            "aim: p99 under {ACKNOWLEDGE_MS_AIM} ms at {per_s}/s  {}",
            if met { "PASS" } else { "MISS" }
        );
    }
    println!(
        "rows {stored}, items acknowledged {}, unacknowledged {}",
        report.counts.items_acked, report.unacked
    );
}

async fn address(ready: &std::path::Path, server: &mut Child) -> String {
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        let found = std::fs::read(ready).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let found: Option<serde_json::Value> = found;
        if let Some(address) = found.as_ref().and_then(|all| all["broker"].as_str()) {
            return address.to_owned();
        }
        assert!(server.try_wait().is_ok_and(|ended| ended.is_none()), "the server ended");
        assert!(Instant::now() < deadline, "the server is not ready");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// CPU ticks so far.
struct Cpu {
    server: u64,
    postgres: u64,
    fleet: u64,
}

fn cpu(server: u32) -> Cpu {
    let ticks = |process: &Process| process.stat().map_or(0, |stat| stat.utime + stat.stime);
    let postgres = all_processes().map_or(0, |processes| {
        processes
            .filter_map(Result::ok)
            // The private one runs through its own loader, which stands first on its command line.
            .filter(|process| {
                process.cmdline().is_ok_and(|line| line.iter().any(|word| word.contains("postgres")))
            })
            .map(|process| ticks(&process))
            .sum()
    });
    Cpu {
        server: Process::new(server.cast_signed()).map_or(0, |process| ticks(&process)),
        postgres,
        fleet: Process::myself().map_or(0, |process| ticks(&process)),
    }
}
