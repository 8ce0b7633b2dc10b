//! Databases of earlier versions, with rows in them.

use std::path::Path;
use std::sync::Arc;

use domain::{
    ArrivalNo, BootId, ClosedBy, Code, ElevatorId, EventBatch, EventState, FaultEvent, OpenedBy, Seq,
};
use sqlx::Connection;
use sqlx::migrate::Migrator;
use store::testing::TestDatabase;
use store::{AuditScope, Database, Ledger, LedgerMetrics};

use crate::common::*;

/// What every version could hold: a terminal with readings 1, 2 and 4, that says it had to discard 5, and a fault
/// that began with 3.
const ROWS: &str = "
    INSERT INTO elevator (elevator_id, area) VALUES (1, 350102);
    INSERT INTO terminal (terminal_id, elevator_id, area) VALUES ('t1', 1, 350102);
    INSERT INTO source (boot, terminal_id, first_seen) VALUES (7, 't1', '2025-01-01');
    INSERT INTO telemetry (elevator_id, time, seq, arrival_no, arrived, source, sent_mask, item)
    SELECT 1, '2026-11-22T12:00:00Z'::timestamptz + seq * INTERVAL '0.1 s', seq, seq, '2026-11-22T12:01:00Z', source, 0, 0
    FROM source, unnest(ARRAY[1, 2, 4]) AS seq;
    INSERT INTO fault (elevator_id, time, seq, arrival_no, arrived, source, age_ms, item, state, code, slug)
    SELECT 1, '2026-11-22T12:00:00.3Z', 3, 3, '2026-11-22T12:00:00.3Z', source, 0, 0, 1, 'position_lost', 'position_lost'
    FROM source;
    INSERT INTO quarantine (arrived, payload_len, terminal_id, topic, reason, detail, payload_sha256, payload)
    VALUES ('2026-11-22T12:01:00Z', 1, 't1', 'telemetry', 'undecodable', 'x', '\\x00', 'x');";

/// A database as a release with so many migrations left it.
async fn left_by(version: usize) -> TestDatabase {
    let test = TestDatabase::blank().await;
    let mut connection = sqlx::PgConnection::connect(test.url()).await.unwrap();
    sqlx::raw_sql("SET client_min_messages = warning; CREATE EXTENSION timescaledb")
        .execute(&mut connection)
        .await
        .unwrap();
    let mut migrator = Migrator::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations")).await.unwrap();
    migrator.migrations.to_mut().truncate(version);
    migrator.run(&mut connection).await.unwrap();
    sqlx::raw_sql(ROWS).execute(&mut connection).await.unwrap();
    let dropped = if version < 7 { "sequence_gap" } else { "sequence_dropped" };
    let sql = format!(
        "INSERT INTO {dropped} (source, seq_from, seq_to, reason)
         SELECT source, 5, 5, 'dropped'
         FROM source"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    test
}

#[tokio::test]
async fn databases_of_every_earlier_version_are_brought_up_with_their_rows() {
    let versions =
        std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations")).unwrap().count();
    for version in 1..versions {
        let test = left_by(version).await;
        let database = Database::connect(test.url()).await.unwrap();
        database.migrate().await.unwrap();
        database.ensure().await.unwrap();

        let mut ledger = Ledger::new(&database, ArrivalNo(0), Arc::new(LedgerMetrics::default()));
        let mut writer = writer(&database).with_ledger(ledger.notes());
        let ledger = tokio::spawn(ledger.run());
        let end = FaultEvent {
            seq: Seq(6),
            time: at_ms(600),
            code: Code::canonical("position_lost").unwrap(),
            state: EventState::Close,
        };
        let end = EventBatch { boot: BootId(7), sent: Some(at_ms(600)), events: vec![end], active: None };
        let batch = [telemetry(1, 10, vec![reading(1), reading(7)]), events(1, 11, end)];
        let report = writer.commit(&batch).await.unwrap();
        assert_eq!(
            (report.rows_stored, report.quarantined),
            (2, 1),
            "version {version}: 1 is there, otherwise"
        );
        drop(writer);
        ledger.await.unwrap();

        let periods = database.fault_periods(ElevatorId(1), at_ms(0), at_ms(60_000)).await.unwrap();
        let brief: Vec<_> =
            periods.iter().map(|it| (it.period.opened, it.period.opened_by, it.period.closed_by)).collect();
        let expected = [(at_ms(300), OpenedBy::Event, Some(ClosedBy::Event))];
        assert_eq!(brief, expected, "version {version}: a fault of before ends now");
        let report = database.ledger_audit(&AuditScope::default(), at_ms(3_600_000), None).await.unwrap();
        assert_eq!(report.verdict, "ok", "version {version}: {report:?}");
        assert_eq!((report.rows, report.declared_dropped), (6, 1), "version {version}");
    }
}
