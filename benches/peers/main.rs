//! The same job, in the same run, on the same database server: readings by MQTT, QoS 1, one in a message as open
//! JSON, become rows of `telemetry`. Liftwatch; mosquitto with a Python consumer, as it is usually written and as it
//! should be; mosquitto with Node-RED in batches.
//!
//! `cargo bench --bench ingest_peers [-- --only rate,kill,bad --peers python,node-red --seconds 5]`
//!
//! - rate: steps of offered messages a second; the most rows a second that a system wrote in a step, and the CPU of
//!   broker and consumer together by row, the database apart, at the highest step it kept up with.
//! - kill: 3,000 messages a second from terminals that store and forward, three `kill -9` of the consumer, then in
//!   another run three of the broker. Lost: acknowledged to its terminal, and no row.
//! - bad: 6,000 messages with three among them that no row can hold.
//!
//! Peers are fetched by pip and npm into a folder of the build; what cannot be had is left out with a word. Each has
//! a session that outlives it, QoS 1 and no bound on what waits for it; mosquitto writes what it holds to disk every
//! second where something is killed. The fleet lives in this process, on the same cores.

mod install;
mod loss;
mod rate;
#[path = "../support/mod.rs"]
mod support;
mod system;

use std::time::{Duration, Instant};

use clap::Parser;
use simulator::{Fleet, FleetConfig, FleetHandle, Format, Rate};
use store::Database;
use support::run::print_load;
use system::{Kind, System};

#[derive(Debug, Parser)]
struct Arguments {
    /// Length of a step.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Some of rate, kill, bad.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Some of python, node-red.
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
    /// Cargo says so.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Arguments {
    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }

    fn wants_peer(&self, kind: Kind) -> bool {
        let name = match kind {
            Kind::Liftwatch => return true,
            Kind::PythonQuick | Kind::PythonCareful => "python",
            Kind::NodeRed => "node-red",
        };
        self.peers.is_empty() || self.peers.iter().any(|peer| peer == name)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments = Arguments::parse();
    let mut kinds = Vec::new();
    for kind in Kind::ALL.into_iter().filter(|kind| arguments.wants_peer(*kind)) {
        match kind.install() {
            Ok(()) => kinds.push(kind),
            Err(error) => println!("{}: SKIPPED, {error}", kind.name()),
        }
    }
    print_load();
    if arguments.wants("rate") {
        rate::measure(&kinds, Duration::from_secs(arguments.seconds)).await;
    }
    if arguments.wants("kill") {
        loss::kill(&kinds).await;
    }
    if arguments.wants("bad") {
        loss::bad_rows(&kinds).await;
    }
    print_load();
}

/// Terminals that send so many messages a second together and keep what is not acknowledged.
async fn fleet(system: &System, terminals: usize, per_s: f64) -> FleetHandle {
    let config = FleetConfig {
        target: system.address(),
        terminals,
        rate: Rate::PerSecond(per_s),
        format: Format::Json,
        complete: true,
        window: 50,
        outbox_max: 20_000,
        backoff_max: Duration::from_secs(1),
        connects_per_second: 2_000.0,
        drain: Duration::from_secs(15),
        ..FleetConfig::default()
    };
    Fleet::start(config).await.expect("the fleet starts")
}

async fn rows(database: &Database) -> u64 {
    u64::try_from(database.reading_count().await.expect("count")).unwrap_or(0)
}

/// Waits until no more rows come for two seconds, and says how many there are.
async fn settled_rows(database: &Database, at_most: Duration) -> u64 {
    let begun = Instant::now();
    let mut last = (rows(database).await, Instant::now());
    while last.1.elapsed() < Duration::from_secs(2) && begun.elapsed() < at_most {
        tokio::time::sleep(Duration::from_millis(250)).await;
        let now = rows(database).await;
        if now != last.0 {
            last = (now, Instant::now());
        }
    }
    last.0
}

/// Waits until the first rows show that the whole way is open.
async fn open_way(system: &System, database: &Database) {
    let fleet = fleet(system, 10, 100.0).await;
    let deadline = Instant::now() + Duration::from_mins(1);
    while rows(database).await == 0 {
        assert!(Instant::now() < deadline, "no row comes through: {}", system.last_words());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let _ = fleet.stop().await;
    settled_rows(database, Duration::from_secs(30)).await;
}
