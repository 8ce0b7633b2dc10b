//! The whole way: a fleet publishes QoS 1 to a real `liftwatch serve` process; every reading ends as a committed
//! row. Prints messages and readings per second, CPU per message of the server and of PostgreSQL, and the server's
//! memory.
//!
//! `cargo bench --bench pipeline [-- SECONDS CONNECTIONS WINDOW [RATE]] [--outage-h HOURS] [--than PROGRAM]`
//!
//! - Without a rate as fast as the server acknowledges; with one (20000) so many messages a second, evenly spread,
//!   and how long each takes to be committed and acknowledged. Delivery counts from the making of a reading, so a
//!   server that stands still delays all readings made meanwhile, and all of them count, those of the start as well.
//! - `--outage-h 6`: the server was away for six hours, and each terminal brings a reading for each second of it, 50
//!   in a message, as fast as they are acknowledged. Beside it, in the same run: COPY BINARY of such rows as they are.
//! - `--than PROGRAM`: another `liftwatch`, measured in turns with this one on the same database server.
//!
//! The fleet runs in this process, on the same cores; its CPU is printed beside the others.

mod support;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Parser;
use simulator::{Fleet, FleetConfig, FleetReport, Rate};
use store::Database;
use store::testing::TestDatabase;
use support::raw_copy::{self, RawCopy};
use support::run::{Cpu, CpuMark, Server, database_name, memory_mb, print_load};

/// Ninety-nine of a hundred messages are acknowledged within this time, commit included.
const ACKNOWLEDGE_MS_AIM: f64 = 25.0;
/// Readings in a message of a backlog.
const BACKLOG_BATCH: usize = 50;
/// Turns of each program with `--than`.
const TURNS: usize = 3;

#[derive(Debug, Parser)]
struct Arguments {
    /// Length of the measurement.
    #[arg(default_value_t = 15)]
    seconds: u64,
    #[arg(default_value_t = 200)]
    connections: usize,
    /// Unacknowledged messages of each connection.
    #[arg(default_value_t = 50)]
    window: usize,
    /// Messages a second; as many as are acknowledged without it.
    rate: Option<u64>,
    /// Hours of readings that each terminal brings.
    #[arg(long, conflicts_with = "rate")]
    outage_h: Option<u64>,
    /// Another program to compare with.
    #[arg(long)]
    than: Option<PathBuf>,
    /// Cargo says so.
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments = Arguments::parse();
    let ours = Path::new(env!("CARGO_BIN_EXE_liftwatch"));
    print_load();
    let Some(theirs) = &arguments.than else {
        measure(ours, &arguments).await;
        return print_load();
    };
    let (mut here, mut there) = (Figures::default(), Figures::default());
    for turn in 1..=TURNS {
        println!("-- turn {turn}: {}", theirs.display());
        there.add(measure(theirs, &arguments).await);
        println!("-- turn {turn}: this one");
        here.add(measure(ours, &arguments).await);
    }
    let ratio = |figure: fn(&Figures) -> f64| figure(&here) / figure(&there);
    println!("this one / {}, sums of {TURNS} turns:", theirs.display());
    println!("  readings/s          {:>8.3}", ratio(|sum| sum.readings / sum.seconds));
    println!("  server CPU/reading  {:>8.3}", ratio(|sum| sum.cpu.server / sum.readings));
    println!("  PostgreSQL CPU/r.   {:>8.3}", ratio(|sum| sum.cpu.postgres / sum.readings));
    print_load();
}

/// Of one measurement, or the sum of several.
#[derive(Debug, Default)]
struct Figures {
    seconds: f64,
    messages: f64,
    readings: f64,
    cpu: Cpu,
}

impl Figures {
    fn add(&mut self, other: Figures) {
        self.seconds += other.seconds;
        self.messages += other.messages;
        self.readings += other.readings;
        self.cpu = self.cpu.plus(&other.cpu);
    }
}

async fn measure(program: &Path, arguments: &Arguments) -> Figures {
    // Without a schema, which the program makes: it may be of another version.
    let test = TestDatabase::blank().await;
    let name = database_name(test.url());
    let server = Server::start(program, test.url()).await;
    let fleet = Fleet::start(fleet(server.broker(), arguments)).await.expect("the fleet starts");
    // Connected and warm.
    let warm = match (arguments.rate, arguments.outage_h) {
        (Some(per_s), _) => 2 * per_s,
        (None, Some(_)) => 4 * arguments.connections as u64,
        (None, None) => 20 * (arguments.connections * arguments.window) as u64,
    };
    let deadline = Instant::now() + Duration::from_mins(1);
    while fleet.counters().acked < warm {
        assert!(Instant::now() < deadline, "the fleet did not get going: {:?}", fleet.last_refusal());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let before = (Instant::now(), fleet.counters(), CpuMark::now(Some(server.id()), name));
    tokio::time::sleep(Duration::from_secs(arguments.seconds)).await;
    let after = (Instant::now(), fleet.counters(), CpuMark::now(Some(server.id()), name));
    let memory_mb = memory_mb(server.id());
    let report = fleet.stop().await;
    let database = Database::connect(test.url()).await.expect("the database answers");
    let stored = database.reading_count().await.expect("count");
    server.stop();

    let figures = Figures {
        seconds: (after.0 - before.0).as_secs_f64(),
        messages: (after.1.acked - before.1.acked) as f64,
        readings: (after.1.items_acked - before.1.items_acked) as f64,
        cpu: after.2.since(&before.2),
    };
    print(&figures, arguments);
    println!("memory                {memory_mb:>10.1} MB server");
    if arguments.outage_h.is_some() {
        let raw = raw_copy::of_backlog(database.pool(), name).await;
        compare(&figures, &raw);
    }
    told(&figures, &report, arguments);
    println!(
        "rows {stored}, items acknowledged {}, unacknowledged {}",
        report.counts.items_acked, report.unacked
    );
    figures
}

fn fleet(target: &str, arguments: &Arguments) -> FleetConfig {
    let rate = match (arguments.rate, arguments.outage_h) {
        (Some(per_s), _) => Rate::PerSecond(per_s as f64),
        (None, Some(_)) => Rate::OnChange,
        (None, None) => Rate::Unlimited,
    };
    FleetConfig {
        target: target.to_owned(),
        terminals: arguments.connections,
        rate,
        window: arguments.window,
        complete: true,
        drain: Duration::from_secs(30),
        backlog_batch: BACKLOG_BATCH,
        outage: Duration::from_hours(arguments.outage_h.unwrap_or(0)),
        ..FleetConfig::default()
    }
}

fn print(figures: &Figures, arguments: &Arguments) {
    let Figures { seconds, messages, readings, cpu } = figures;
    println!("connections {}, window {}, {seconds:.1} s", arguments.connections, arguments.window);
    println!(
        "messages/s            {:>10.0}   ({:.2} readings each)",
        messages / seconds,
        readings / messages
    );
    println!("readings/s            {:>10.0}", readings / seconds);
    for (name, spent) in [("server", cpu.server), ("PostgreSQL", cpu.postgres), ("fleet", cpu.own)] {
        let (a_message, a_reading) = (spent * 1e6 / messages, spent * 1e6 / readings);
        println!("CPU us/message        {a_message:>10.2}   {name} ({a_reading:.2} a reading)");
    }
}

fn compare(figures: &Figures, raw: &RawCopy) {
    println!("raw COPY of such rows {:>10.2} us/row, {:.2} of it CPU of PostgreSQL", raw.us(), raw.cpu_us());
    let postgres = figures.cpu.postgres * 1e6 / figures.readings;
    println!("PostgreSQL CPU, all we write / raw COPY {:.2}", postgres / raw.cpu_us());
}

fn told(figures: &Figures, report: &FleetReport, arguments: &Arguments) {
    println!("acknowledge           {}", report.acknowledge);
    if let Some(per_s) = arguments.rate {
        println!("delivery              {}", report.delivery);
        let met = report.delivery.p99_ms < ACKNOWLEDGE_MS_AIM
            && figures.messages / figures.seconds > 0.99 * per_s as f64;
        println!(
            "aim: p99 under {ACKNOWLEDGE_MS_AIM} ms at {per_s}/s  {}",
            if met { "PASS" } else { "MISS" }
        );
    }
}
