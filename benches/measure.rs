//! Measuring and printing for the benchmarks.

#![allow(dead_code)] // each benchmark uses its part

use std::process::{Command, Stdio};
use std::time::Duration;

use store::Database;

/// Load averages of the machine: others may be working on it.
pub(crate) fn load() -> String {
    use procfs::Current;
    procfs::LoadAverage::current().map_or_else(
        |_| "unknown".to_owned(),
        |load| format!("{:.1} {:.1} {:.1}", load.one, load.five, load.fifteen),
    )
}

/// The percentile of what was measured, in ms.
pub(crate) fn at(runs: &mut [Duration], share: f64) -> String {
    runs.sort_unstable();
    let place = (share * runs.len() as f64).ceil() as usize;
    let run = runs.get(place.saturating_sub(1)).copied().unwrap_or_default();
    format!("{:.1} ms", run.as_secs_f64() * 1e3)
}

/// A chunk's index by the name of the table's.
pub(crate) fn index_name(name: &str) -> String {
    let tail = name.strip_prefix("_hyper_").and_then(|rest| rest.split_once("_chunk_"));
    let Some((_, tail)) = tail else {
        // A chunk's key: 12_34_telemetry_pkey.
        return name.trim_start_matches(|sign: char| sign.is_ascii_digit() || sign == '_').to_owned();
    };
    tail.to_owned()
}

/// A table in Markdown.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(head: &[&str]) -> Self {
        Self { rows: vec![head.iter().map(|&text| text.to_owned()).collect()] }
    }

    pub(crate) fn row(&mut self, row: Vec<String>) {
        eprintln!("  {}", row.join(" | "));
        self.rows.push(row);
    }

    pub(crate) fn print(&self) {
        println!();
        for (at, row) in self.rows.iter().enumerate() {
            println!("| {} |", row.join(" | "));
            if at == 0 {
                println!("|{}", "---|".repeat(row.len()));
            }
        }
    }
}

/// What the table is now.
pub(crate) async fn describe(database: &Database) {
    let (chunks, bytes, rows, buffers): (i64, i64, i64, String) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM timescaledb_information.chunks WHERE hypertable_name = 'telemetry'),
                hypertable_size('telemetry'), approximate_row_count('telemetry'), current_setting('shared_buffers')",
    )
    .fetch_one(database.pool())
    .await
    .expect("sizes");
    println!(
        "telemetry: {:.1} M rows, {:.1} GB, {chunks} chunks; shared_buffers {buffers}",
        rows as f64 / 1e6,
        bytes as f64 / 1e9
    );
}

/// Takes the database's files out of the system's page cache, as far as this process may read them. What is in
/// PostgreSQL's own buffers stays.
pub(crate) async fn cold(database: &Database) {
    sqlx::raw_sql("CHECKPOINT").execute(database.pool()).await.expect("a superuser may checkpoint");
    let folder: String = sqlx::query_scalar(
        "SELECT current_setting('data_directory') || '/base/' || oid
         FROM pg_database
         WHERE datname = current_database()",
    )
    .fetch_one(database.pool())
    .await
    .expect("the folder");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        println!("cold is not: {folder} cannot be read");
        return;
    };
    for entry in entries.flatten().filter(|entry| entry.metadata().is_ok_and(|data| data.len() > 0)) {
        let _ = Command::new("dd")
            .arg(format!("if={}", entry.path().display()))
            .args(["iflag=nocache", "count=0"])
            .stderr(Stdio::null())
            .status();
    }
}

/// CPU seconds of the server processes that serve this database's connections.
pub(crate) async fn backends_cpu_s(database: &Database) -> f64 {
    let pids: Vec<i32> = sqlx::query_scalar(
        "SELECT pid
         FROM pg_stat_activity
         WHERE datname = current_database()
           AND backend_type = 'client backend'",
    )
    .fetch_all(database.pool())
    .await
    .expect("sessions");
    pids.into_iter().map(process_cpu_s).sum()
}

/// CPU seconds of a process so far.
pub(crate) fn process_cpu_s(pid: i32) -> f64 {
    let stat = procfs::process::Process::new(pid).and_then(|process| process.stat());
    stat.map_or(0.0, |stat| (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64)
}
