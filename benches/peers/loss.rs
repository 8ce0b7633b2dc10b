//! What is lost when something dies, and beside rows that cannot be stored.

use std::process::{Command, Stdio};
use std::time::Duration;

use store::testing::TestDatabase;

use crate::system::{Kind, System};
use crate::{fleet, open_way, rows, settled_rows};

const TERMINALS: usize = 200;
const PER_S: f64 = 3_000.0;
const KILLS: u32 = 3;

pub(crate) async fn kill(kinds: &[Kind]) {
    println!("\n{KILLS} times kill -9 under {PER_S} messages a second");
    println!(
        "{:<30} {:>10} {:>12} {:>10} {:>8} {:>14}",
        "", "killed", "acknowledged", "rows", "lost", "never acked"
    );
    for kind in kinds {
        killed(*kind, false).await;
        if *kind != Kind::Liftwatch {
            killed(*kind, true).await;
        }
    }
}

async fn killed(kind: Kind, broker: bool) {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut system = System::start(kind, test.url(), true).await;
    open_way(&system, &database).await;
    let before = rows(&database).await;
    let fleet = fleet(&system, TERMINALS, PER_S).await;
    for _ in 0..KILLS {
        tokio::time::sleep(Duration::from_secs(5)).await;
        if broker {
            system.restart_broker().await;
        } else {
            system.restart_consumer().await;
        }
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    let report = fleet.stop().await;
    let stored = settled_rows(&database, Duration::from_mins(1)).await - before;
    let what = match (kind, broker) {
        (Kind::Liftwatch, _) => "all of it",
        (_, true) => "broker",
        (_, false) => "consumer",
    };
    let acked = report.counts.items_acked;
    println!(
        "{:<30} {what:>10} {acked:>12} {stored:>10} {:>8} {:>14}",
        kind.name(),
        acked as i64 - stored as i64,
        report.unacked
    );
    system.stop();
}

/// Payloads that are JSON and no reading: a load beyond every column, a floor with a NUL, no time.
const BAD: [&str; 3] = [
    r#"{"boot":1,"readings":[{"seq":1,"time":"2026-11-22T08:00:00Z","load_kg":99999999}]}"#,
    r#"{"boot":1,"readings":[{"seq":2,"time":"2026-11-22T08:00:00Z","floor":"\u0000"}]}"#,
    r#"{"boot":1,"readings":[{"seq":3,"time":null,"load_kg":1}]}"#,
];

pub(crate) async fn bad_rows(kinds: &[Kind]) {
    println!("\n{} bad rows in 6,000, 2,000 a second", BAD.len());
    println!("{:<30} {:>12} {:>10} {:>14}", "", "acknowledged", "rows", "good rows lost");
    for kind in kinds {
        let test = TestDatabase::new().await;
        let database = test.open().await;
        let system = System::start(*kind, test.url(), false).await;
        open_way(&system, &database).await;
        let before = rows(&database).await;
        let fleet = fleet(&system, TERMINALS, 2_000.0).await;
        for payload in BAD {
            tokio::time::sleep(Duration::from_millis(900)).await;
            if !publish(&system, payload) {
                println!("mosquitto_pub is not installed: SKIPPED");
                return;
            }
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        let report = fleet.stop().await;
        let stored = settled_rows(&database, Duration::from_secs(30)).await - before;
        let acked = report.counts.items_acked;
        println!("{:<30} {acked:>12} {stored:>10} {:>14}", kind.name(), acked as i64 - stored as i64);
        system.stop();
    }
}

fn publish(system: &System, payload: &str) -> bool {
    let port = system.port().to_string();
    let topic = "lift/v1/350102/bad-900001/telemetry.json";
    Command::new("mosquitto_pub")
        .args(["-h", "127.0.0.1", "-p", &port, "-i", "bad-900001", "-q", "1", "-t", topic, "-m", payload])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
