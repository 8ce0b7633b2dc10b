//! `liftwatch db status`: the state of the database, for people or as JSON.
//!
//! Changes nothing and starts nothing: a private database that does not run is said not to run.

use std::fmt::Write as _;

use anyhow::Context;
use domain::Timestamp;
use store::{StoreStatus, TableStatus};

use crate::config::Config;
use crate::database;

/// Reads and prints it. Warnings do not make the command fail.
pub(crate) async fn run(config: &Config, json: bool) -> anyhow::Result<()> {
    let database = database::reach(config).await?;
    let status = database.status().await.map_err(database::explained).context("the status cannot be read")?;
    database.close().await;
    if json {
        println!("{}", serde_json::to_string_pretty(&status)?);
    } else {
        print!("{}", text(&status));
    }
    Ok(())
}

/// The state in words and columns.
fn text(status: &StoreStatus) -> String {
    let mut out = String::new();
    head(&mut out, status);
    tables(&mut out, status);
    rollups(&mut out, status);
    retention(&mut out, status);
    maintenance(&mut out, status);
    out.push('\n');
    if status.warnings.is_empty() {
        out.push_str("Nothing needs you.\n");
    }
    for warning in &status.warnings {
        let _ = writeln!(out, "WARNING {}: {}\n  -> {}", warning.code, warning.text, warning.advice);
    }
    out
}

fn head(out: &mut String, status: &StoreStatus) {
    let server = &status.server;
    let schema = match status.schema.applied {
        None => "none".to_owned(),
        Some(applied) if status.schema.pending.is_empty() => applied.to_string(),
        Some(applied) => format!("{applied} ({} not applied)", status.schema.pending.len()),
    };
    let _ = writeln!(
        out,
        "PostgreSQL {}, TimescaleDB {} ({} edition), schema {schema}{}",
        status.postgresql,
        status.timescaledb,
        status.edition,
        if server.standby { ", standby" } else { "" }
    );
    let _ = writeln!(
        out,
        "database {}, connections {} of {} ({} here), log on disk {}",
        bytes(server.database_bytes),
        server.connections,
        server.connections_max,
        server.connections_here,
        server.wal_disk_bytes.map_or_else(|| "unknown (needs pg_monitor)".to_owned(), bytes),
    );
    for replica in &server.replicas {
        let behind = replica.behind_bytes.map_or_else(|| "unknown".to_owned(), bytes);
        let _ =
            writeln!(out, "standby {}: {} ({}), {behind} behind", replica.name, replica.state, replica.sync);
    }
}

fn tables(out: &mut String, status: &StoreStatus) {
    let rows = status.tables.iter().map(|table| {
        vec![
            table.name.clone(),
            table.rows_estimate.map(count).unwrap_or_default(),
            table.chunks.map(|chunks| chunks.to_string()).unwrap_or_default(),
            table.oldest.map(date).unwrap_or_default(),
            table.newest.map(date).unwrap_or_default(),
            bytes(table.heap_bytes),
            bytes(table.index_bytes),
            bytes(table.toast_bytes),
            columnstore(table),
        ]
    });
    let header = ["TABLE", "~ROWS", "CHUNKS", "FROM", "TO", "HEAP", "INDEX", "TOAST", "COLUMNSTORE"];
    out.push('\n');
    columns(out, &header, rows.collect());
}

fn columnstore(table: &TableStatus) -> String {
    let (Some(inside), Some(all)) = (table.columnstore_chunks.filter(|chunks| *chunks > 0), table.chunks)
    else {
        return String::new();
    };
    let ratio = table.columnstore_ratio().map(|ratio| format!(", {ratio:.1}x smaller")).unwrap_or_default();
    format!("{inside} of {all} chunks{ratio}")
}

fn rollups(out: &mut String, status: &StoreStatus) {
    let rollups = &status.rollups;
    let to = |at: Option<Timestamp>| at.map_or_else(|| "nothing yet".to_owned(), moment);
    let lag = rollups.lag_s.map(|lag| format!(" ({} behind)", span(lag))).unwrap_or_default();
    let _ = writeln!(
        out,
        "\nrolled up: minutes to {}{lag}, hours to {}; late hours waiting: {}{}",
        to(rollups.minutes_to),
        to(rollups.hours_to),
        rollups.late_hours_waiting,
        rollups.late_hours_oldest.map(|at| format!(", from {}", moment(at))).unwrap_or_default(),
    );
}

fn retention(out: &mut String, status: &StoreStatus) {
    let rows = status.retention.iter().map(|table| {
        let divisions = (table.days_shortest, table.days_longest);
        vec![
            table.table.to_owned(),
            table.days.to_string(),
            if divisions == (table.days, table.days) {
                String::new()
            } else {
                format!("{} to {}", divisions.0, divisions.1)
            },
            table.chunks_due.map(|due| due.to_string()).unwrap_or_default(),
            table.next_due.map(moment).unwrap_or_default(),
            table.chunks_dropped.to_string(),
            table.rows_dropped.to_string(),
        ]
    });
    let header = ["KEPT", "DAYS", "BY DIVISION", "CHUNKS DUE", "NEXT DUE", "CHUNKS GONE", "ROWS GONE"];
    out.push('\n');
    columns(out, &header, rows.collect());
}

fn maintenance(out: &mut String, status: &StoreStatus) {
    let steps = status.maintenance.iter().map(|step| {
        vec![
            step.step.clone(),
            step.succeeded.map_or_else(|| "never".to_owned(), moment),
            moment(step.due),
            step.runs.to_string(),
            step.failures.to_string(),
            step.done.to_string(),
        ]
    });
    let jobs = status.jobs.iter().map(|job| {
        vec![
            format!("{} {}", job.job, job.table.as_deref().unwrap_or_default()),
            job.succeeded.map_or_else(|| "never".to_owned(), moment),
            job.next.map(moment).unwrap_or_default(),
            job.runs.to_string(),
            job.failures.to_string(),
            String::new(),
        ]
    });
    out.push('\n');
    columns(
        out,
        &["MAINTENANCE", "LAST GOOD", "NEXT", "RUNS", "FAILED", "DONE"],
        steps.chain(jobs).collect(),
    );
}

/// Columns as wide as their widest cell; the first to the left, numbers to the right as they come.
fn columns(out: &mut String, header: &[&str], rows: Vec<Vec<String>>) {
    let width = |at: usize| {
        let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count());
        cells.max().unwrap_or(0).max(header[at].len())
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (cell, width) in cells.zip(&widths) {
            let _ = write!(text, "{cell:<width$}  ");
        }
        let _ = writeln!(out, "{}", text.trim_end());
    };
    line(&mut header.iter().copied());
    for row in &rows {
        line(&mut row.iter().map(String::as_str));
    }
}

fn bytes(bytes: i64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", units[unit]) }
}

/// With commas between thousands.
fn count(number: i64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn date(at: Timestamp) -> String {
    at.to_string().chars().take(10).collect()
}

/// To the second, of UTC.
fn moment(at: Timestamp) -> String {
    let text = at.to_string();
    match text.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => text,
    }
}

fn span(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_units() {
        assert_eq!(bytes(1_023), "1023 B");
        assert_eq!(bytes(5 << 30), "5.0 GiB");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(12), "12");
        assert_eq!(span(90), "90 s");
        assert_eq!(span(7_000), "116 min");
        assert_eq!(moment("2026-11-22T08:00:00.123Z".parse().unwrap()), "2026-11-22T08:00:00Z");
    }

    #[test]
    fn columns_stand_below_each_other() {
        let mut out = String::new();
        columns(
            &mut out,
            &["A", "LONG"],
            vec![vec!["abc".into(), "1".into()], vec!["d".into(), String::new()]],
        );
        assert_eq!(out, "A    LONG\nabc  1\nd\n");
    }
}
