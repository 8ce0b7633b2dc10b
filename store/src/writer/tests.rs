use std::sync::Arc;
use std::time::Duration;

use domain::{
    Arrival, ArrivalNo, BootId, ElevatorId, Field, Message, Reading, Seq, SourceId, TelemetryBatch,
    TerminalId, Timestamp,
};

use super::batch::{unique, windows};
use super::{CommitReport, Incoming, Item, StoreMetrics, Writer};
use crate::quarantine::QuarantineReason;
use crate::rows::{Origin, ReadingRow, Row};
use crate::testing::TestDatabase;

fn row<'a>(terminal_id: &'a TerminalId, reading: &'a Reading) -> ReadingRow<'a> {
    let arrival = Arrival { no: ArrivalNo(1), at: reading.time };
    let origin =
        Origin { elevator_id: 1, terminal_id, source: SourceId(1), boot: BootId(1), arrival, sent: None };
    ReadingRow { origin, item: 0, reading }
}

#[test]
fn one_of_each_key_is_left_and_it_is_the_first() {
    let terminal = TerminalId::new("t").unwrap();
    let first = Reading::new(Seq(2), Timestamp::from_millis(5));
    let mut other = first.clone();
    other.load_kg = Field::Known(1);
    let earlier = Reading::new(Seq(1), Timestamp::from_millis(4));
    let mut rows: Vec<_> = [&first, &earlier, &first, &other].map(|reading| row(&terminal, reading)).into();
    let (mut quarantine, mut report) = (Vec::new(), CommitReport::default());
    let left: Vec<i64> =
        unique(&mut rows, &mut quarantine, &mut report).iter().map(|row| row.key().seq).collect();
    assert_eq!(left, [1, 2]);
    assert_eq!(rows[1].reading, &first);
    assert_eq!(report.rows_repeated, 1);
    assert_eq!(quarantine.len(), 1);
    assert_eq!(quarantine[0].reason, QuarantineReason::KeyConflict);
    assert!(String::from_utf8(quarantine[0].payload.to_vec()).unwrap().contains("\"load_kg\":1"));
}

#[test]
fn a_long_backlog_is_cut_by_chunks_and_loses_nothing() {
    let hour = Duration::from_hours(1);
    let check = |hours: i64, parts: usize| {
        let terminal = TerminalId::new("t").unwrap();
        let readings: Vec<Reading> = (0..hours)
            .flat_map(|at| [at * 3_600_000, at * 3_600_000 + 1])
            .map(|at_ms| Reading::new(Seq(at_ms), Timestamp::from_millis(at_ms)))
            .collect();
        let rows: Vec<_> = readings.iter().map(|reading| row(&terminal, reading)).collect();
        let cut = windows(&rows, hour);
        assert_eq!(cut.len(), parts, "{hours} h");
        let stored: Vec<i64> = cut.iter().flat_map(|part| part.iter().map(|row| row.key().seq)).collect();
        assert_eq!(stored, readings.iter().map(|reading| reading.seq.0).collect::<Vec<_>>());
    };
    check(0, 0);
    check(1, 1);
    check(32, 1);
    check(33, 2);
    check(100, 4);
}

#[tokio::test]
async fn late_is_what_the_clock_of_the_database_calls_late_also_after_a_clock_was_set() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut writer = Writer::new(&database, Arc::new(StoreMetrics::default()));
    let fresh = |seq: i64| {
        let at = Timestamp::from(time::OffsetDateTime::now_utc());
        let readings = vec![Reading::new(Seq(seq), at)];
        let batch =
            TelemetryBatch { boot: BootId(1), sent: None, prev_boot_last_seq: None, dropped: None, readings };
        Item::Message(Incoming {
            elevator_id: ElevatorId(1),
            terminal_id: TerminalId::new("t").unwrap(),
            arrival: Arrival { no: ArrivalNo(seq), at },
            message: Arc::new(Message::Telemetry(batch)),
        })
    };
    let late = async || -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM rollup_late").fetch_one(database.pool()).await.unwrap()
    };
    writer.commit(&[fresh(1)]).await.unwrap();
    let session = writer.session.as_mut().unwrap();
    sqlx::raw_sql(
        "CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql
         AS $$ SELECT pg_catalog.clock_timestamp() + INTERVAL '1 hour' $$;
         SET search_path = public, pg_catalog",
    )
    .execute(&mut session.connection)
    .await
    .unwrap();
    assert_eq!(late().await, 0);
    session.clock.forget();
    writer.commit(&[fresh(2)]).await.unwrap();
    assert_eq!(late().await, 1);
}
