//! Compares what terminals were acknowledged with what is on disk.

use std::collections::HashSet;
use std::path::Path;

use simulator::FleetReport;
use sqlx::Connection;

use crate::harness::command;

/// Every acknowledged (terminal, boot, seq) is exactly one row of its table, and terminals of this `prefix` have no
/// other row. Answers how many readings there are.
pub(crate) async fn reconcile_prefix(url: &str, report: &FleetReport, ledger: &Path, prefix: &str) -> usize {
    assert_eq!(report.unacked, 0, "everything was acknowledged in the end: {report}");
    assert_eq!(report.counts.dropped, 0, "no outbox was full: {report}");
    assert!(report.ledger_complete);
    let ledger = std::fs::read_to_string(ledger).expect("the ledger");
    let mut connection = sqlx::PgConnection::connect(url).await.expect("connect");
    for (table, channel) in [("fault", "event"), ("statistics", "stats")] {
        reconcile_table(&mut connection, table, channel, &ledger, prefix).await;
    }
    reconcile_table(&mut connection, "telemetry", "telemetry", &ledger, prefix).await
}

async fn reconcile_table(
    connection: &mut sqlx::PgConnection,
    table: &str,
    channel: &str,
    ledger: &str,
    prefix: &str,
) -> usize {
    // Lists of active faults have no number of their own, and each reconnect brings one.
    let numbered = if table == "fault" { "AND seq > 0" } else { "" };
    let rows: Vec<(String, i64, i64)> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "SELECT terminal_id, boot, seq
         FROM {table}
         JOIN source USING (source)
         WHERE starts_with(terminal_id, $1)
           {numbered}"
    )))
    .bind(prefix)
    .fetch_all(connection)
    .await
    .expect("rows");
    let count = rows.len();
    let stored: HashSet<_> = rows.into_iter().collect();
    assert_eq!(stored.len(), count, "{table}: no row twice");
    let mut acked = HashSet::new();
    for line in ledger.lines() {
        let fields: Vec<_> = line.split(',').collect();
        if fields.last() != Some(&channel) {
            continue;
        }
        let number = |index: usize| fields[index].parse::<i64>().expect("a number");
        let key = (fields[0].to_owned(), number(1), number(2));
        assert!(stored.contains(&key), "acknowledged, but not in {table}: {key:?}");
        acked.insert(key);
    }
    assert_eq!(acked.len(), count, "every row of {table} was acknowledged");
    count
}

/// The same for a whole database without quarantine, after a load that was real.
pub(crate) async fn reconcile(url: &str, report: &FleetReport, ledger: &Path) {
    let acked = reconcile_prefix(url, report, ledger, "").await;
    assert!(acked > 2_000, "the load was real: {acked}");
    let mut connection = sqlx::PgConnection::connect(url).await.expect("connect");
    let quarantined: i64 = sqlx::query_scalar("SELECT count(*) FROM quarantine")
        .fetch_one(&mut connection)
        .await
        .expect("count");
    assert_eq!(quarantined, 0);
}

/// `liftwatch audit --json`: its exit code and what it says.
pub(crate) fn audit(url: &str) -> (Option<i32>, serde_json::Value) {
    let output = command()
        .args(["audit", "--json"])
        .env("LIFTWATCH_DATABASE__URL", url)
        .output()
        .expect("liftwatch runs");
    let said = serde_json::from_slice(&output.stdout);
    let said = said.unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output.status.code(), said)
}
