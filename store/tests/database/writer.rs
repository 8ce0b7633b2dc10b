//! The batch writer against the real database: once, neighbours safe, accounted.

use std::collections::BTreeSet;

use crate::common::{self, *};
use domain::limits::{PAYLOAD_BYTES_MAX, QUARANTINE_BYTES_PER_DAY_MAX};
use domain::{Code, EventBatch, EventState, FaultEvent, Field, Message, Reading, Seq, TelemetryBatch};
use store::testing::{TestCluster, TestDatabase};
use store::{Database, Item, QuarantineEntry, QuarantineFilter, QuarantineReason};

const READINGS: &str = "SELECT count(*) FROM telemetry";
const FAULTS: &str = "SELECT count(*) FROM fault";

#[tokio::test]
async fn a_redelivered_batch_adds_no_row() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut writer = writer(&database);
    let first = [telemetry(1, 1, vec![reading(1), reading(2)]), telemetry(2, 2, vec![reading(1)])];
    let report = writer.commit(&first).await.unwrap();
    assert_eq!((report.rows_stored, report.rows_repeated, report.statements), (3, 0, 1));

    // Delivered again as another message, together with one that is new, from a new connection.
    let mut other = common::writer(&database);
    let again = [telemetry(1, 9, vec![reading(1), reading(2), reading(3)])];
    let report = other.commit(&again).await.unwrap();
    assert_eq!((report.rows_stored, report.rows_repeated, report.quarantined), (1, 2, 0));
    // And once more through the same staging table.
    let report = other.commit(&again).await.unwrap();
    assert_eq!((report.rows_stored, report.rows_repeated), (0, 3));
    assert_eq!(count(&database, READINGS).await, 4);
    assert_eq!(count(&database, "SELECT count(*) FROM telemetry WHERE arrival_no = 1").await, 2);
    assert_eq!(count(&database, "SELECT count(*) FROM source").await, 2);
}

#[tokio::test]
async fn the_same_key_with_other_content_goes_to_quarantine() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut writer = writer(&database);
    writer.commit(&[telemetry(1, 1, vec![reading(1), reading(2)])]).await.unwrap();

    let mut forged = reading(1);
    forged.load_kg = Field::Unknown;
    let mixed = [telemetry(1, 2, vec![forged.clone(), reading(2), reading(3)])];
    for _ in 0..2 {
        let report = writer.commit(&mixed).await.unwrap();
        assert_eq!(report.quarantined, 1);
    }
    assert_eq!(count(&database, READINGS).await, 3);
    assert_eq!(quarantined(&database, "key_conflict").await, 1, "a redelivery adds no row here either");
    assert_eq!(count(&database, "SELECT count(*) FROM telemetry WHERE load_kg = 75").await, 3);

    // Both within one batch.
    let mut other = reading(4);
    other.load_kg = Field::Known(1);
    let report = writer
        .commit(&[
            telemetry(1, 3, vec![reading(4)]),
            telemetry(1, 4, vec![other]),
            telemetry(1, 5, vec![reading(4)]),
        ])
        .await
        .unwrap();
    assert_eq!((report.rows_stored, report.rows_repeated, report.quarantined), (1, 1, 1));
    assert_eq!(quarantined(&database, "key_conflict").await, 2);
}

/// Makes the database refuse what our decoding lets through.
async fn refuse_load(database: &Database, load_kg: i16) {
    sqlx::query(sqlx::AssertSqlSafe(format!("ALTER TABLE telemetry ADD CHECK (load_kg <> {load_kg})")))
        .execute(database.pool())
        .await
        .unwrap();
}

#[tokio::test]
async fn neighbours_of_refused_rows_are_stored() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    refuse_load(&database, 666).await;
    let mut writer = writer(&database);
    writer.commit(&[telemetry(1, 1, vec![reading(500)])]).await.unwrap();

    let mut readings: Vec<Reading> = (0..1000).map(reading).collect();
    for bad in [17, 18, 999] {
        readings[bad].load_kg = Field::Known(666);
    }
    let report = writer.commit(&[telemetry(1, 2, readings.clone())]).await.unwrap();
    assert_eq!((report.rows_stored, report.rows_repeated, report.quarantined), (996, 1, 3));
    assert_eq!(quarantined(&database, "refused").await, 3);
    assert_eq!(count(&database, READINGS).await, 997);

    // A batch of nothing else ends as well, at about one statement per row.
    for reading in &mut readings {
        reading.load_kg = Field::Known(666);
    }
    let report = writer.commit(&[telemetry(2, 3, readings[..200].to_vec())]).await.unwrap();
    assert_eq!((report.rows_stored, report.quarantined), (0, 200));
    assert!(report.statements < 200 + 2 * 64, "{report:?}");
    assert!(writer.is_connected());
}

#[tokio::test]
async fn a_terminal_that_invents_boots_fills_quarantine_and_not_the_sources() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    // So many today but one, and as many before.
    let earlier = "INSERT INTO source (terminal_id, boot, first_seen)
                   SELECT 't1', 10000 + boot,
                          now() - CASE WHEN boot <= 1500 THEN INTERVAL '25 hours' ELSE INTERVAL '1 hour' END
                   FROM generate_series(1, 2999) AS boot";
    sqlx::query(earlier).execute(database.pool()).await.unwrap();
    let of_boot = |boot: u32, no: i64, message: &str| {
        let boot = domain::BootId(boot);
        let message = match message {
            "event" => {
                let events = vec![event(1, "power_off", EventState::Once)];
                let active = Some(vec![Code::canonical("power_off").unwrap()]);
                Message::Event(EventBatch { boot, sent: Some(at_ms(2_000)), events, active })
            }
            "stats" => {
                let counters = [(domain::Counter::RunCount, 1)].into_iter().collect();
                let (seq, time) = (Seq(2), at_ms(2_000));
                Message::Statistics(domain::Statistics { boot, sent: None, seq, time, counters })
            }
            _ => Message::Telemetry(TelemetryBatch {
                boot,
                sent: None,
                prev_boot_last_seq: None,
                dropped: None,
                readings: vec![reading(3), reading(4)],
            }),
        };
        item(1, no, message)
    };
    const SOURCES: &str = "SELECT count(*) FROM source WHERE terminal_id = 't1'";
    let metrics = std::sync::Arc::new(store::StoreMetrics::default());
    let mut writer = store::Writer::new(&database, metrics.clone());
    // One fits. A boot that is known and a neighbour are stored beside those that are too many.
    let beyond = [of_boot(2, 2, "telemetry"), of_boot(3, 3, "event"), of_boot(4, 4, "stats")];
    let others =
        [of_boot(1, 1, "telemetry"), of_boot(10_001, 5, "telemetry"), telemetry(2, 6, vec![reading(1)])];
    for round in 0..2 {
        let report = writer.commit(&[&others[..], &beyond[..]].concat()).await.unwrap();
        assert_eq!((report.rows_stored + report.rows_repeated, report.quarantined), (5, 5), "round {round}");
        assert_eq!(quarantined(&database, "too_many_boots").await, 5);
        assert_eq!(count(&database, SOURCES).await, 3_000);
    }
    let label = store::ReasonLabel { reason: "too_many_boots" };
    assert_eq!(metrics.quarantined.get_or_create(&label).get(), 10, "counted as they come");
    let numbers = "SELECT count(*) FROM quarantine WHERE boot IN (2, 3, 4) AND numbers IS NOT NULL";
    assert_eq!(count(&database, numbers).await, 4, "all but the list, which has no number");

    // A day later they are taken.
    sqlx::query("UPDATE source SET first_seen = first_seen - INTERVAL '1 day'")
        .execute(database.pool())
        .await
        .unwrap();
    let report = writer.commit(&beyond).await.unwrap();
    assert_eq!((report.rows_stored, report.quarantined), (5, 0));
    assert_eq!(count(&database, SOURCES).await, 3_003);
}

#[tokio::test]
async fn impossible_device_times_are_kept_apart() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut writer = writer(&database);
    let mut old = reading(1);
    old.time = "2000-01-01T00:00:00Z".parse().unwrap();
    let mut future = reading(2);
    future.time = at_ms(60_000 + 5 * 60_000 + 1);
    let mut latest = reading(3);
    latest.time = at_ms(60_000 + 5 * 60_000);
    let batch = [telemetry(1, 1, vec![old, future, latest, reading(4)])];
    for _ in 0..2 {
        let report = writer.commit(&batch).await.unwrap();
        assert_eq!((report.rows_stored + report.rows_repeated, report.quarantined), (2, 2));
    }
    assert_eq!(quarantined(&database, "too_old").await, 1);
    assert_eq!(quarantined(&database, "future").await, 1);
}

fn event(seq: i64, slug: &str, state: EventState) -> FaultEvent {
    FaultEvent { seq: Seq(seq), time: at_ms(seq * 1000), code: Code::canonical(slug).unwrap(), state }
}

#[tokio::test]
async fn events_are_rows_once() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut writer = writer(&database);
    let batch = EventBatch {
        boot: domain::BootId(7),
        sent: Some(at_ms(9_000)),
        events: vec![
            event(-5, "door_close_fault", EventState::Open),
            event(-5, "power_off", EventState::Once),
            event(6, "door_close_fault", EventState::Close),
        ],
        active: Some(vec![Code::canonical("power_off").unwrap()]),
    };
    let mixed = [events(1, 1, batch.clone()), telemetry(1, 2, vec![reading(1)])];
    let report = writer.commit(&mixed).await.unwrap();
    assert_eq!((report.rows_stored, report.rows_repeated), (5, 0));
    let report = writer.commit(&[events(1, 3, batch.clone())]).await.unwrap();
    assert_eq!((report.rows_stored, report.rows_repeated), (0, 4));

    let mut contrary = batch;
    contrary.events[0].state = EventState::Close;
    let report = writer.commit(&[events(1, 4, contrary)]).await.unwrap();
    assert_eq!((report.rows_repeated, report.quarantined), (3, 1));
    assert_eq!(count(&database, FAULTS).await, 4);
}

#[tokio::test]
async fn a_list_of_active_faults_without_a_time_is_stored_once_until_something_happens() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut writer = writer(&database);
    let list = |arrival: i64, slugs: &[&str]| {
        let active = slugs.iter().map(|slug| Code::canonical(slug).unwrap()).collect();
        let batch =
            EventBatch { boot: domain::BootId(7), sent: None, events: Vec::new(), active: Some(active) };
        let Item::Message(mut incoming) = events(1, arrival, batch) else { panic!() };
        incoming.arrival.at = at_ms(arrival);
        Item::Message(incoming)
    };
    let happened = |arrival: i64| {
        let event = FaultEvent { time: at_ms(arrival), ..event(arrival, "power_off", EventState::Open) };
        let batch = EventBatch { boot: domain::BootId(7), sent: None, events: vec![event], active: None };
        events(1, arrival, batch)
    };
    let report = writer.commit(&[list(1, &["power_off"]), list(2, &["power_off"])]).await.unwrap();
    assert_eq!((report.rows_stored, report.rows_repeated), (1, 1), "within a batch");
    let report = writer.commit(&[list(3, &["power_off"])]).await.unwrap();
    assert_eq!((report.rows_stored, report.rows_repeated), (0, 1), "delivered again");
    let report = writer.commit(&[list(4, &[]), list(5, &["power_off"])]).await.unwrap();
    assert_eq!((report.rows_stored, report.rows_repeated), (2, 0), "another list, and back");
    let report = writer.commit(&[happened(6), list(7, &["power_off"])]).await.unwrap();
    assert_eq!((report.rows_stored, report.rows_repeated), (2, 0), "an event lies between");
    writer.commit(&[happened(8)]).await.unwrap();
    let report = writer.commit(&[list(9, &["power_off"])]).await.unwrap();
    assert_eq!((report.rows_stored, report.rows_repeated), (1, 0), "an event is stored between");
}

#[tokio::test]
async fn what_a_terminal_discarded_is_noted_once() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut writer = writer(&database);
    let batch = TelemetryBatch {
        boot: domain::BootId(7),
        sent: None,
        prev_boot_last_seq: Some(3),
        dropped: Some((20, 10)),
        readings: vec![reading(30)],
    };
    let batch = [item(1, 1, Message::Telemetry(batch))];
    writer.commit(&batch).await.unwrap();
    writer.commit(&batch).await.unwrap();
    let range: (i64, i64) = sqlx::query_as("SELECT seq_from, seq_to FROM sequence_dropped")
        .fetch_one(database.pool())
        .await
        .unwrap();
    assert_eq!(range, (10, 20));
}

#[tokio::test]
async fn payloads_too_large_to_be_decoded_are_cut_hashed_and_kept_once() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut writer = writer(&database);
    let payload = vec![0xff; PAYLOAD_BYTES_MAX + 1];
    let entry = QuarantineEntry::new(
        noon(),
        "t1",
        "lift/v1/350102/t1/tele\0metry",
        QuarantineReason::Undecodable,
        "not protobuf\0",
        &payload,
    );
    let other = QuarantineEntry { reason: QuarantineReason::TooLarge, ..entry.clone() };
    let batch = [entry.clone(), entry, other].map(|entry| Item::Quarantine(Box::new(entry)));
    writer.commit(&batch).await.unwrap();
    writer.commit(&batch).await.unwrap();
    assert_eq!(quarantined(&database, "undecodable").await, 1);
    assert_eq!(quarantined(&database, "too_large").await, 1);
    let kept: (i64, i32) = sqlx::query_as(
        "SELECT payload_len, length(payload)
         FROM quarantine
         WHERE reason = 'undecodable'
           AND payload_sha256 = sha256($1)",
    )
    .bind(&payload)
    .fetch_one(database.pool())
    .await
    .unwrap();
    assert_eq!(kept, (PAYLOAD_BYTES_MAX as i64 + 1, 4096));
}

fn undecodable(terminal: &str, payload: &[u8]) -> Item {
    let topic = "lift/v1/350102/t1/telemetry.json";
    Item::Quarantine(Box::new(QuarantineEntry::new(
        noon(),
        terminal,
        topic,
        QuarantineReason::Undecodable,
        "",
        payload,
    )))
}

/// One bad value in a batch of 50 readings cost the other 49: what was over 4 KB was cut and could not come back.
#[tokio::test]
async fn what_can_be_decoded_again_is_kept_whole_and_read_page_by_page() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let payloads: Vec<Vec<u8>> = (0..70).map(|n| vec![n; PAYLOAD_BYTES_MAX]).collect();
    let batch: Vec<Item> = payloads.iter().map(|payload| undecodable("t1", payload)).collect();
    let report = writer(&database).commit(&batch).await.unwrap();
    assert_eq!((report.quarantined, report.quarantined_cut), (70, 0));
    let all = QuarantineFilter::default();
    let listed = database.quarantine_list(&all, 100).await.unwrap();
    assert!(listed.iter().all(|entry| entry.is_whole() && entry.payload.is_empty()), "told, not read");

    let last = database.quarantine_last().await.unwrap().unwrap();
    let first_page = database.quarantine_page(&all, i64::MIN, last).await.unwrap();
    let second_page = database.quarantine_page(&all, first_page[63].id, last).await.unwrap();
    assert_eq!((first_page.len(), second_page.len()), (64, 6), "16 MiB, and the rest");
    let read: BTreeSet<Vec<u8>> =
        first_page.into_iter().chain(second_page).map(|entry| entry.payload).collect();
    assert_eq!(read, payloads.into_iter().collect());
}

#[tokio::test]
async fn a_terminal_fills_quarantine_with_whole_payloads_up_to_a_bound_a_day() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let room = i64::try_from(QUARANTINE_BYTES_PER_DAY_MAX).unwrap() - 15_000;
    sqlx::query(
        "INSERT INTO quarantine (arrived, payload_len, terminal_id, topic, reason, detail, payload_sha256, payload)
         SELECT $1, $2, 't1', '', 'undecodable', '', '', convert_to(repeat('x', 5000), 'UTF8')",
    )
    .bind(noon().to_utc())
    .bind(room)
    .execute(database.pool())
    .await
    .unwrap();
    let batch = [
        undecodable("t1", &[1; 10_000]),
        undecodable("t1", &[2; 10_000]),
        undecodable("t1", &[3; 4_096]),
        undecodable("t2", &[4; 10_000]),
    ];
    let mut writer = writer(&database);
    let report = writer.commit(&batch).await.unwrap();
    assert_eq!((report.quarantined, report.quarantined_cut), (4, 1));
    // As after a failure: what is there whole stays so. Who has too much is remembered for a while.
    assert_eq!(writer.commit(&batch).await.unwrap().quarantined_cut, 2);
    let kept: Vec<(i64, i32)> =
        sqlx::query_as("SELECT payload_len, length(payload) FROM quarantine ORDER BY get_byte(payload, 0)")
            .fetch_all(database.pool())
            .await
            .unwrap();
    let expected = [(10_000, 10_000), (10_000, 4_096), (4_096, 4_096), (10_000, 10_000), (room, 5_000)];
    assert_eq!(kept, expected);
}

#[tokio::test]
async fn a_backlog_over_many_chunks_is_stored() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut writer = writer(&database);
    let readings: Vec<Reading> = (0..100)
        .map(|day| {
            let mut reading = reading(day);
            reading.time = at_ms(-day * 24 * 3_600_000);
            reading
        })
        .collect();
    let report = writer.commit(&[telemetry(1, 1, readings)]).await.unwrap();
    assert_eq!((report.rows_stored, report.statements), (100, 4));
}

#[tokio::test]
async fn a_cut_connection_is_told_as_worth_a_retry_and_the_retry_adds_nothing() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut writer = writer(&database);
    let batch = [telemetry(1, 1, vec![reading(1), reading(2)])];
    writer.commit(&batch).await.unwrap();
    let cut = "SELECT count(pg_terminate_backend(pid))
               FROM pg_stat_activity
               WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'";
    assert!(count(&database, cut).await >= 1);
    let error = writer.commit(&batch).await.unwrap_err();
    assert!(error.retryable(), "{error:?}");
    assert!(!writer.is_connected());
    let report = writer.commit(&batch).await.unwrap();
    assert_eq!((report.rows_stored, report.rows_repeated), (0, 2));
}

#[tokio::test]
async fn a_commit_dropped_half_way_does_not_harm_the_next() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut writer = writer(&database);
    writer.commit(&[telemetry(1, 1, vec![reading(1)])]).await.unwrap();
    // Holds up the COPY, so that it is surely under way when it is dropped.
    let mut blocker = database.pool().begin().await.unwrap();
    sqlx::query("LOCK TABLE telemetry IN ACCESS EXCLUSIVE MODE").execute(&mut *blocker).await.unwrap();
    let batch = [telemetry(1, 2, vec![reading(2)])];
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted";
    tokio::select! {
        stored = writer.commit(&batch) => panic!("stored in spite of the lock: {stored:?}"),
        () = async {
            while count(&database, waiting).await == 0 {
                tokio::task::yield_now().await;
            }
        } => {}
    }
    blocker.rollback().await.unwrap();
    assert!(!writer.is_connected());
    let report = writer.commit(&batch).await.unwrap();
    assert_eq!(report.rows_stored + report.rows_repeated, 1);
    assert_eq!(count(&database, READINGS).await, 2);
}

#[tokio::test]
async fn two_writers_may_store_the_same_at_once() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let mut writer = writer(&database);
            tokio::spawn(async move {
                let readings: Vec<Reading> = (0..500).map(reading).collect();
                let batch = [telemetry(1, 1, readings.clone()), telemetry(2, 2, readings)];
                loop {
                    match writer.commit(&batch).await {
                        Ok(report) => return report,
                        Err(error) => assert!(error.retryable(), "{error:?}"),
                    }
                }
            })
        })
        .collect();
    let mut stored = 0;
    for task in tasks {
        let report = task.await.unwrap();
        assert_eq!(report.rows_stored + report.rows_repeated, 1000);
        stored += report.rows_stored;
    }
    assert_eq!(stored, 1000);
    assert_eq!(count(&database, READINGS).await, 1000);
}

#[tokio::test]
async fn what_was_committed_survives_a_kill_of_the_server() {
    let cluster = TestCluster::new().await;
    let database = Database::connect(cluster.url()).await.unwrap();
    let mut writer = writer(&database);
    let batch = [telemetry(1, 1, (0..100).map(reading).collect())];
    assert_eq!(writer.commit(&batch).await.unwrap().rows_stored, 100);
    cluster.kill().await;
    let error = writer.commit(&batch).await.unwrap_err();
    assert!(error.retryable(), "{error:?}");
    let error = writer.commit(&batch).await.unwrap_err();
    assert!(error.retryable(), "cannot connect: {error:?}");
    cluster.start().await;
    let report = writer.commit(&batch).await.unwrap();
    assert_eq!((report.rows_stored, report.rows_repeated), (0, 100));
    cluster.stop().await;
    assert!(writer.commit(&batch).await.unwrap_err().retryable());
}
