//! How cost grows: by rows that are in the table already, and by terminals.
//! `cargo bench --bench growth [-- MILLIONS_MAX [TERMINALS_MAX [RATE]]] [--only rows|terminals]`; by default 100 million
//! rows, about 20 GB of disk, dropped at the end, and 50,000 terminals that send 10,000 messages a second together.
//!
//! Rows: 10,000 elevators that report every 15 s, in chunks of two hours, older and older ones added; at each size
//! what a commit costs and what the questions cost. Terminals: a real server on an empty table. Where the limit of
//! open files is too low for all connections (hard limit: `ulimit -Hn`), they come in waves, one after the other:
//! the server knows all of them, and holds the connections of the last wave.

mod city;
mod measure;
mod serve;
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use city::City;
use domain::{ElevatorId, Timestamp};
use measure::{Table, backends_cpu_s, load, process_cpu_s};
use prometheus_client::registry::Registry;
use serve::Served;
use simulator::{Fleet, FleetConfig, Rate};
use store::testing::TestDatabase;
use store::{
    Database, ElevatorSeries, FleetMinute, Item, Queries, QueryConfig, QueryMetrics, SeriesField,
    StoreConfig, StoreMetrics, Writer,
};

const LIFTS: i64 = 10_000;
/// Bytes of a row with its part of the indexes, generously.
const ROW_BYTES: u64 = 220;
const BATCH: i64 = 5_000;
const BATCHES: i64 = 60;

#[tokio::main]
async fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let numbers: Vec<u64> = words.iter().filter_map(|word| word.parse().ok()).collect();
    let number = |index: usize, default: u64| numbers.get(index).copied().unwrap_or(default);
    let only = |part: &str| {
        let asked = words.iter().position(|word| word == "--only").and_then(|at| words.get(at + 1));
        asked.is_none_or(|asked| asked == part)
    };
    println!("load average {}", load());
    if only("rows") {
        by_rows(number(0, 100)).await;
    }
    if only("terminals") {
        by_terminals(number(1, 50_000) as usize, number(2, 10_000)).await;
    }
    println!("\nload average {}", load());
}

async fn by_rows(millions_max: u64) {
    let test = TestDatabase::new().await;
    let config = StoreConfig { chunk_interval: Duration::from_hours(2), ..StoreConfig::default() };
    let database = test.open_with(config).await;
    city::register(&database, 50_000).await;
    let now: Timestamp = time::OffsetDateTime::now_utc().into();
    let end = Timestamp::from_micros(now.minus(Duration::from_mins(1)).micros() / 1_000_000 * 1_000_000);
    let city = City { elevators: LIFTS, busy: LIFTS, rush: false, end };
    let mut table = Table::new(&[
        "rows in the table",
        "chunks",
        "GB",
        "lifts of the batch",
        "commit us/row, batch 5,000",
        "PostgreSQL CPU us/row",
        "commit of 100 rows, p50",
        "a day, 500 points, p50",
        "a minute, p50",
    ]);
    let mut filled_s = 0;
    for (at, millions) in [1, 10, 100].into_iter().enumerate() {
        let millions = millions.min(millions_max).min(disk_free(&database).await / ROW_BYTES / 1_000_000);
        let wanted_s = millions.cast_signed() * 1_000_000 / LIFTS * city::PERIOD_S;
        if wanted_s <= filled_s {
            println!("not done: {} million rows", [1, 10, 100][at]);
            continue;
        }
        let began = Instant::now();
        let rows = city.fill(&database, wanted_s, filled_s).await;
        println!("{rows} rows in {:.0} s; load average {}", began.elapsed().as_secs_f64(), load());
        filled_s = wanted_s;
        sqlx::raw_sql("VACUUM (ANALYZE) telemetry").execute(database.pool()).await.expect("statistics");
        sqlx::raw_sql("CHECKPOINT").execute(database.pool()).await.expect("a superuser may");
        let (chunks, bytes): (i64, i64) = sqlx::query_as(
            "SELECT count(*), hypertable_size('telemetry')
             FROM timescaledb_information.chunks
             WHERE hypertable_name = 'telemetry'",
        )
        .fetch_one(database.pool())
        .await
        .expect("sizes");
        let (day, minute) = questions(&database, &city).await;
        // By terminals only where the table is small: the two do not depend on each other.
        let fleets: &[i64] = if at == 0 { &[1_000, LIFTS, 50_000] } else { &[LIFTS] };
        for lifts in fleets {
            let (wall, cpu, small) = commits(&database, *lifts).await;
            table.row(vec![
                format!("{:.0} M", (filled_s * LIFTS / city::PERIOD_S) as f64 / 1e6),
                chunks.to_string(),
                format!("{:.1}", bytes as f64 / 1e9),
                lifts.to_string(),
                format!("{wall:.2}"),
                format!("{cpu:.2}"),
                small.clone(),
                day.clone(),
                minute.clone(),
            ]);
        }
    }
    table.print();
}

async fn disk_free(database: &Database) -> u64 {
    let folder: String = sqlx::query_scalar("SELECT current_setting('data_directory')")
        .fetch_one(database.pool())
        .await
        .expect("a folder");
    let told = std::process::Command::new("df").args(["--output=avail", "-B1", &folder]).output();
    let told = told.map(|told| String::from_utf8_lossy(&told.stdout).into_owned()).unwrap_or_default();
    // Room for others, and for the log.
    told.split_whitespace()
        .last()
        .and_then(|word| word.parse::<u64>().ok())
        .unwrap_or(0)
        .saturating_sub(12 << 30)
}

/// Microseconds a row of a writer and of its server process, and the median of small commits.
async fn commits(database: &Database, lifts: i64) -> (f64, f64, String) {
    let mut writer = Writer::new(database, StoreMetrics::register(&mut Registry::default()).into());
    let begin: Timestamp = time::OffsetDateTime::now_utc().into();
    let mut next = 0;
    let mut items = |count: i64| {
        let items: Vec<_> =
            (next..next + count).map(|n| Item::Message(support::incoming(n, lifts, begin))).collect();
        next += count;
        items
    };
    for _ in 0..(lifts / BATCH + 2) {
        writer.commit(&items(BATCH)).await.expect("commit");
    }
    let (mut wall, cpu) = (Duration::ZERO, backends_cpu_s(database).await);
    for _ in 0..BATCHES {
        let items = items(BATCH);
        let began = Instant::now();
        let report = writer.commit(&items).await.expect("commit");
        wall += began.elapsed();
        assert_eq!(report.rows_stored, BATCH.cast_unsigned(), "every row is new");
    }
    let cpu = backends_cpu_s(database).await - cpu;
    let mut small = Vec::new();
    for _ in 0..200 {
        let items = items(100);
        let began = Instant::now();
        writer.commit(&items).await.expect("commit");
        small.push(began.elapsed());
    }
    let per_row = |seconds: f64| seconds * 1e6 / (BATCH * BATCHES) as f64;
    (per_row(wall.as_secs_f64()), per_row(cpu), measure::at(&mut small, 0.5))
}

/// Medians of one elevator's day, as far as the table goes back, and of one minute of the fleet.
async fn questions(database: &Database, city: &City) -> (String, String) {
    let config = QueryConfig { timeout: Duration::from_mins(2), ..QueryConfig::default() };
    let queries = Queries::new(database, &config, Arc::new(QueryMetrics::default()));
    let (mut days, mut minutes) = (Vec::new(), Vec::new());
    for round in 0..20_u64 {
        let day = ElevatorSeries {
            elevator_id: ElevatorId(1 + (round.cast_signed() * 37) % LIFTS),
            from: city.end.minus(Duration::from_hours(24)),
            to: city.end,
            points: 500,
            fields: vec![SeriesField::PositionMm],
        };
        let began = Instant::now();
        queries.elevator_series(&day).await.expect("a day");
        days.push(began.elapsed());
        let minute = city.end.minus(Duration::from_mins(2 + round));
        let began = Instant::now();
        queries.fleet_minute(&FleetMinute { minute, regions: Vec::new() }, drop).await.expect("a minute");
        minutes.push(began.elapsed());
    }
    queries.close().await;
    (measure::at(&mut days, 0.5), measure::at(&mut minutes, 0.5))
}

async fn by_terminals(terminals_max: usize, rate: u64) {
    let limits = procfs::process::Process::myself().and_then(|process| process.limits());
    let files = limits.ok().map(|limits| limits.max_open_files.soft_limit);
    let files = match files {
        Some(procfs::process::LimitValue::Value(files)) => files as usize,
        _ => 1_000_000,
    };
    let mut table = Table::new(&[
        "terminals known",
        "connected",
        "messages/s",
        "server CPU us/message",
        "PostgreSQL CPU us/message",
        "server memory, MB",
        "PUBACK p50",
        "p99",
        "load",
    ]);
    for terminals in [1_000, 10_000, 50_000] {
        if terminals > terminals_max {
            println!("not done: {terminals} terminals");
            continue;
        }
        // Beside the connections, the processes have some files open.
        let waves = terminals.div_ceil(files.saturating_sub(500).max(1));
        if waves > 1 {
            println!("{files} open files: {terminals} terminals in {waves} waves");
        }
        table.row(fleet(terminals / waves, waves, rate).await);
    }
    table.print();
}

/// A server with so many waves of so many terminals; the last is measured.
async fn fleet(terminals: usize, waves: usize, rate: u64) -> Vec<String> {
    let test = TestDatabase::new().await;
    let served = Served::start(test.url()).await;
    let database = test.open().await;
    for wave in 1..=waves {
        let fleet = Fleet::start(FleetConfig {
            target: served.broker.clone(),
            terminals,
            prefix: format!("wave{wave}-"),
            rate: Rate::PerSecond(rate as f64),
            window: 50,
            complete: true,
            connects_per_second: 1_500.0,
            backoff_max: Duration::from_secs(20),
            drain: Duration::from_mins(1),
            ..FleetConfig::default()
        })
        .await
        .expect("the fleet starts");
        let deadline = Instant::now() + Duration::from_mins(3);
        // Each has spoken, and what gathered while they connected is through.
        let through = |fleet: &simulator::FleetHandle| {
            let counts = fleet.counters();
            counts.connected as usize >= terminals && counts.acked as usize >= 2 * terminals
        };
        while !through(&fleet) {
            assert!(Instant::now() < deadline, "the fleet did not get going: {:?}", fleet.last_refusal());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        if wave < waves {
            let _ = fleet.stop().await;
            continue;
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        let now = async || {
            let server = process_cpu_s(served.pid());
            (Instant::now(), fleet.counters(), server, backends_cpu_s(&database).await)
        };
        let before = now().await;
        tokio::time::sleep(Duration::from_secs(20)).await;
        let after = now().await;
        let memory = served.resident_mb();
        let connected = fleet.counters().connected;
        let report = fleet.stop().await;
        let messages = (after.1.acked - before.1.acked) as f64;
        let per_message = |seconds: f64| format!("{:.2}", seconds * 1e6 / messages);
        return vec![
            (terminals * waves).to_string(),
            connected.to_string(),
            format!("{:.0}", messages / (after.0 - before.0).as_secs_f64()),
            per_message(after.2 - before.2),
            per_message(after.3 - before.3),
            format!("{memory:.0}"),
            format!("{:.1} ms", report.acknowledge.p50_ms),
            format!("{:.1} ms", report.acknowledge.p99_ms),
            load(),
        ];
    }
    unreachable!("the last wave returns")
}
