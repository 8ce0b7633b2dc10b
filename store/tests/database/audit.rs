//! The audit against the real database.

use std::sync::Arc;
use std::time::Duration;

use domain::{
    ArrivalNo, BootId, Code, Counter, EventBatch, EventState, FaultEvent, Message, Reading, Seq, Statistics,
    TelemetryBatch,
};
use store::testing::TestDatabase;
use store::{
    AuditReport, AuditScope, Database, GapOutcome, Item, Kept, Ledger, LedgerMetrics, QuarantineEntry,
    QuarantineReason, Retention, SeqRanges, StoreConfig,
};

use crate::common::*;

const DAY: Duration = Duration::from_hours(24);

async fn serve(database: &Database, batch: Vec<Item>) {
    let metrics = Arc::new(LedgerMetrics::default());
    let mut ledger = Ledger::new(database, ArrivalNo(0), metrics.clone());
    let mut writer = writer(database).with_ledger(ledger.notes());
    let task = tokio::spawn(ledger.run());
    caught_up(&metrics).await;
    writer.commit(&batch).await.unwrap();
    drop(writer);
    task.await.unwrap();
}

fn boot(elevator: i64, number: u32, seqs: &[i64], prev: Option<i64>, dropped: Option<(i64, i64)>) -> Item {
    let batch = TelemetryBatch {
        boot: BootId(number),
        sent: None,
        prev_boot_last_seq: prev,
        dropped,
        readings: seqs.iter().map(|seq| reading(*seq)).collect(),
    };
    item(elevator, i64::from(number), Message::Telemetry(batch))
}

async fn audit(database: &Database, scope: &AuditScope) -> AuditReport {
    database.ledger_audit(scope, at_ms(3_600_000), None).await.unwrap()
}

async fn execute(database: &Database, sql: &'static str) {
    sqlx::query(sql).execute(database.pool()).await.unwrap();
}

#[tokio::test]
async fn every_number_gets_its_word() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut future = reading(8);
    future.time = at_ms(7_200_000);
    let batch = vec![
        boot(1, 7, &[1, 2, 3, 6, 7, -5], None, Some((4, 4))),
        telemetry(1, 8, vec![future, reading(9)]),
        boot(1, 9, &[1], Some(11), None),
        telemetry(2, 10, vec![reading(40), reading(41)]),
    ];
    serve(&database, batch).await;
    let report = audit(&database, &AuditScope::default()).await;
    assert_eq!(report.verdict, "unaccounted");
    assert_eq!((report.terminals, report.sources, report.rows, report.rows_unnumbered), (2, 3, 10, 1));
    assert_eq!((report.numbers_stored, report.numbers_quarantined, report.quarantined), (9, 1, 1));
    assert_eq!((report.declared_dropped, report.unaccounted, report.open), (1, 3, 0));
    assert_eq!((report.ledger_behind, report.ledger_ahead, report.used_twice), (0, 0, 0));
    let gaps: Vec<_> =
        report.gaps.iter().map(|gap| (gap.boot, gap.from, gap.to, gap.tail, gap.outcome)).collect();
    let expected = [
        (7, 4, 4, false, GapOutcome::Dropped),
        (7, 5, 5, false, GapOutcome::Unaccounted),
        (7, 10, 11, true, GapOutcome::Unaccounted),
    ];
    assert_eq!(gaps, expected);

    // One terminal, one region, patience, a period.
    let of = |name: &str| AuditScope { terminals: vec![terminal(name)], ..AuditScope::default() };
    let two = audit(&database, &of("t2")).await;
    assert_eq!((two.verdict, two.rows, two.sources), ("ok", 2, 1));
    let nowhere = AuditScope { region: "350102".parse().ok(), ..AuditScope::default() };
    assert_eq!(audit(&database, &nowhere).await.sources, 0, "none is registered there");
    let patient = AuditScope { grace: Duration::from_hours(24 * 36_500), ..AuditScope::default() };
    let patient = audit(&database, &patient).await;
    assert_eq!((patient.verdict, patient.open), ("ok", 3));
    let before = AuditScope { to: Some(domain::Timestamp::from_millis(1)), ..AuditScope::default() };
    let before = audit(&database, &before).await;
    assert_eq!((before.rows, before.sources, before.unaccounted, before.quarantined), (0, 0, 0, 0));

    serve(&database, vec![boot(1, 7, &[5, 10, 11], None, None)]).await;
    let filled = audit(&database, &AuditScope::default()).await;
    assert_eq!((filled.verdict, filled.filled_late, filled.declared_dropped), ("ok", 3, 1));
}

#[tokio::test]
async fn a_ledger_that_claims_too_much_or_too_little_is_told_and_mended() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    serve(&database, vec![telemetry(1, 1, (1..=20).map(reading).collect())]).await;
    execute(&database, "DELETE FROM telemetry WHERE seq IN (19, 20)").await;
    let report = audit(&database, &AuditScope::default()).await;
    assert_eq!((report.verdict, report.ledger_ahead, report.unaccounted), ("ledger_ahead", 2, 0));
    execute(&database, "DELETE FROM telemetry WHERE seq = 5").await;
    let report = audit(&database, &AuditScope::default()).await;
    assert_eq!((report.verdict, report.ledger_ahead, report.unaccounted), ("unaccounted", 3, 1));

    // Rows of which the ledger knows nothing, as after a crash.
    writer(&database).commit(&[telemetry(2, 2, vec![reading(1), reading(3)])]).await.unwrap();
    let report = audit(&database, &AuditScope::default()).await;
    assert_eq!((report.ledger_behind, report.unaccounted), (2, 2));
    let mended = database.ledger_audit(&AuditScope::default(), at_ms(3_600_000), Some("me")).await.unwrap();
    assert_eq!(mended.repaired, 2);
    let after = audit(&database, &AuditScope::default()).await;
    assert_eq!((after.ledger_ahead, after.ledger_behind, after.unaccounted), (0, 0, 2));
    let audited = "SELECT count(*) FROM audit WHERE action = 'ledger.repair' AND actor = 'me'";
    assert_eq!(count(&database, audited).await, 1);
    let open = "SELECT count(*) FROM sequence_gap WHERE outcome = 'open' AND seq_from IN (2, 5)";
    assert_eq!(count(&database, open).await, 2);
    let known = "SELECT count(*) FROM sequence_ledger WHERE elevators <> '{}' AND time_first IS NOT NULL";
    assert_eq!(count(&database, known).await, 2, "as a server would have written it");
}

/// With readings that are kept for so many days.
fn keeping(days: u32) -> StoreConfig {
    let retention = Retention::default().with(Kept::Telemetry, days * DAY);
    StoreConfig { retention, chunk_interval: Duration::from_hours(1), ..StoreConfig::default() }
}

#[tokio::test]
async fn what_retention_deleted_is_no_loss_whatever_the_settings_of_the_auditor() {
    let test = TestDatabase::new().await;
    let database = test.open_with(keeping(10)).await;
    let old = |seq| Reading { time: at_ms(seq * 100).minus(9 * DAY), ..reading(seq) };
    let readings = (1..=10).map(old).chain((11..=20).map(reading)).collect();
    serve(&database, vec![telemetry(1, 1, readings)]).await;
    assert_eq!(audit(&database, &AuditScope::default()).await.kept_since, None);
    let report = database.maintenance_run(noon().plus(2 * DAY)).await.unwrap();
    assert_eq!(report.chunks_dropped, 1, "{report:?}");
    for days in [1, 10, 3_000] {
        let auditor = Database::look(test.url(), keeping(days)).await.unwrap();
        let report = audit(&auditor, &AuditScope::default()).await;
        assert_eq!((report.verdict, report.deleted_by_retention, report.numbers_stored), ("ok", 10, 10));
        assert_eq!(report.kept_since, Some(noon().minus(9 * DAY).plus(Duration::from_hours(1))));
    }
}

#[tokio::test]
async fn rows_that_retention_has_not_deleted_are_missed_however_little_the_auditor_keeps() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    serve(&database, vec![telemetry(1, 1, (1..=20).map(reading).collect())]).await;
    execute(&database, "DELETE FROM telemetry WHERE seq <= 10").await;
    let retention = Retention::default().with(Kept::Telemetry, Duration::from_mins(30));
    let config = StoreConfig { retention, ..StoreConfig::default() };
    let auditor = Database::look(test.url(), config).await.unwrap();
    let report = audit(&auditor, &AuditScope::default()).await;
    assert_eq!((report.verdict, report.ledger_ahead, report.kept_since), ("ledger_ahead", 10, None));
}

#[tokio::test]
async fn what_retention_took_from_quarantine_is_no_loss() {
    let test = TestDatabase::new().await;
    let retention = Retention::default().with(Kept::Quarantine, DAY);
    let database = test.open_with(StoreConfig { retention, ..StoreConfig::default() }).await;
    let mut future = reading(2);
    future.time = at_ms(7_200_000);
    serve(&database, vec![telemetry(1, 1, vec![reading(1), future, reading(3)])]).await;
    let at = noon().plus(2 * DAY);
    assert_eq!(database.maintenance_run(at).await.unwrap().quarantine_dropped, 1);
    let auditor = Database::look(test.url(), StoreConfig::default()).await.unwrap();
    let report = auditor.ledger_audit(&AuditScope::default(), at, None).await.unwrap();
    assert_eq!((report.verdict, report.deleted_by_retention, report.kept_since), ("ok", 1, None));
    // It excuses that number alone.
    execute(&database, "DELETE FROM telemetry WHERE seq = 3").await;
    let report = auditor.ledger_audit(&AuditScope::default(), at, None).await.unwrap();
    assert_eq!((report.verdict, report.deleted_by_retention, report.ledger_ahead), ("ledger_ahead", 1, 1));
}

#[tokio::test]
async fn what_retention_deleted_of_one_division_excuses_nothing_of_another() {
    let test = TestDatabase::new().await;
    let retention = Retention::default().with_division("350100".parse().unwrap(), Kept::Telemetry, 5 * DAY);
    let database = test.open_with(StoreConfig { retention, ..keeping(1_000) }).await;
    execute(
        &database,
        "INSERT INTO elevator (elevator_id, area) VALUES (1, 350102), (2, 360102), (3, 350102), (4, 360102)",
    )
    .await;
    let old = |seq| Reading { time: at_ms(seq * 100).minus(9 * DAY), ..reading(seq) };
    let readings = || (1..=10).map(old).chain((11..=20).map(reading)).collect();
    serve(&database, (1..=4).map(|elevator| telemetry(elevator, elevator, readings())).collect()).await;
    assert_eq!(database.maintenance_run(noon()).await.unwrap().division_rows_dropped, 20);
    // Two move: what is gone of the one stays gone, and of the other nothing is.
    execute(&database, "UPDATE elevator SET area = 360102 WHERE elevator_id = 3").await;
    execute(&database, "UPDATE elevator SET area = 370102 WHERE elevator_id = 4").await;
    let report = audit(&database, &AuditScope::default()).await;
    assert_eq!((report.verdict, report.deleted_by_retention), ("ok", 20));
    execute(&database, "DELETE FROM telemetry WHERE elevator_id IN (2, 4) AND seq IN (5, 6)").await;
    let report = audit(&database, &AuditScope::default()).await;
    assert_eq!((report.verdict, report.unaccounted, report.ledger_ahead), ("unaccounted", 4, 4));
    assert_eq!(report.deleted_by_retention, 20);
    let of = |name: &str| AuditScope { terminals: vec![terminal(name)], ..AuditScope::default() };
    for (name, verdict) in [("t1", "ok"), ("t2", "unaccounted"), ("t3", "ok"), ("t4", "unaccounted")] {
        assert_eq!(audit(&database, &of(name)).await.verdict, verdict, "{name}");
    }
}

/// Retention has deleted readings up to this time.
async fn marked(database: &Database, floor: &str) {
    sqlx::query(
        "INSERT INTO retention_mark (table_name, area, floor)
         VALUES ('telemetry', -1, $1::text::timestamptz)",
    )
    .bind(floor)
    .execute(database.pool())
    .await
    .unwrap();
}

#[tokio::test]
async fn what_is_in_quarantine_does_not_make_a_boot_old() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let epoch = "1970-01-01T00:00:00Z".parse().unwrap();
    let mut old = reading(1);
    old.time = epoch;
    let event = |seq, time| {
        let code = Code::canonical("power_off").unwrap();
        FaultEvent { seq: Seq(seq), time, code, state: EventState::Once }
    };
    let said = vec![event(1, epoch), event(2, at_ms(200)), event(3, at_ms(300))];
    let said = EventBatch { boot: BootId(7), sent: None, events: said, active: None };
    let counted = |seq, time| {
        let counters = [(Counter::RunCount, seq)].into_iter().collect();
        let message = Statistics { boot: BootId(7), sent: None, seq: Seq(seq), time, counters };
        item(3, 10 + seq, Message::Statistics(message))
    };
    let batch = vec![
        telemetry(1, 1, vec![old, reading(2), reading(3)]),
        events(2, 2, said),
        counted(1, epoch),
        counted(2, at_ms(200)),
        counted(3, at_ms(300)),
    ];
    serve(&database, batch).await;
    marked(&database, "2026-06-01T00:00:00Z").await;
    let young = "SELECT count(*)
                 FROM sequence_ledger
                 WHERE accounted = '{[1,4)}' AND time_first > '2026-11-22T12:00:00Z'";
    assert_eq!(count(&database, young).await, 3);
    assert_eq!(audit(&database, &AuditScope::default()).await.verdict, "ok");
    // Somebody takes the first row of each.
    execute(&database, "DELETE FROM telemetry WHERE seq = 2").await;
    execute(&database, "DELETE FROM fault WHERE seq = 2").await;
    execute(&database, "DELETE FROM statistics WHERE seq = 2").await;
    let report = audit(&database, &AuditScope::default()).await;
    assert_eq!((report.verdict, report.ledger_ahead, report.deleted_by_retention), ("unaccounted", 3, 0));
}

#[tokio::test]
async fn only_what_retention_can_have_reached_counts_as_deleted() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    marked(&database, "2026-11-12T13:00:00Z").await;
    // Readings of a day long ago, numbered from 1, and of noon, numbered from 11; each arrived when it was made.
    let batch = |elevator: i64, no: i64, old: bool| {
        let (seqs, age) = if old { (1..=10, 12 * DAY) } else { (11..=20, Duration::ZERO) };
        let readings = seqs.map(|seq| {
            let mut reading = reading(seq);
            reading.time = at_ms(seq * 100).minus(age);
            reading
        });
        let Item::Message(mut incoming) = telemetry(elevator, no, readings.collect()) else { panic!() };
        incoming.arrival.at = at_ms(60_000).minus(age);
        Item::Message(incoming)
    };
    // 1 has both, 2 only old ones, 3 only young ones.
    serve(&database, vec![batch(1, 1, true), batch(1, 2, false), batch(2, 3, true), batch(3, 4, false)])
        .await;
    assert_eq!(audit(&database, &AuditScope::default()).await.verdict, "ok");
    let of = async |name: &str| {
        let scope = AuditScope { terminals: vec![terminal(name)], ..AuditScope::default() };
        let report = audit(&database, &scope).await;
        (report.verdict, report.deleted_by_retention, report.ledger_ahead, report.unaccounted)
    };
    execute(&database, "DELETE FROM telemetry WHERE elevator_id = 1 AND seq IN (5, 9, 10)").await;
    execute(&database, "DELETE FROM telemetry WHERE elevator_id IN (2, 3)").await;
    assert_eq!(of("t1").await, ("ok", 3, 0, 0));
    assert_eq!(of("t2").await, ("ok", 10, 0, 0), "nothing is left of it");
    assert_eq!(of("t3").await, ("ledger_ahead", 0, 10, 0), "it was never old");
    // Beside rows that are too young to be deleted somebody took some.
    execute(&database, "DELETE FROM telemetry WHERE elevator_id = 1 AND seq IN (15, 20)").await;
    assert_eq!(of("t1").await, ("unaccounted", 3, 2, 1));
}

#[tokio::test]
async fn a_number_used_twice_is_told() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut other = reading(2);
    other.time = at_ms(1);
    serve(&database, vec![telemetry(1, 1, vec![reading(1), reading(2), reading(3), other])]).await;
    let report = audit(&database, &AuditScope::default()).await;
    assert_eq!((report.verdict, report.used_twice, report.used_twice_at.len()), ("ok", 1, 1));
}

#[tokio::test]
async fn what_comes_to_quarantine_while_it_is_emptied_stays() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut future = reading(2);
    future.time = at_ms(7_200_000);
    serve(&database, vec![telemetry(1, 1, vec![reading(1), future, reading(3)])]).await;
    execute(
        &database,
        "CREATE FUNCTION comes() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             INSERT INTO quarantine (arrived, arrival_no, terminal_id, topic, reason, detail, payload_sha256, payload,
                                     payload_len)
             VALUES (OLD.arrived, 2, OLD.terminal_id, OLD.topic, OLD.reason, '', sha256(OLD.payload), '', 0);
             RETURN NULL;
         END
         $$",
    )
    .await;
    execute(
        &database,
        "CREATE TRIGGER comes AFTER DELETE ON quarantine FOR EACH ROW EXECUTE FUNCTION comes()",
    )
    .await;
    let filter = store::QuarantineFilter { reason: Some("future".to_owned()), ..Default::default() };
    assert_eq!(database.quarantine_drop(&filter, "me").await.unwrap(), 1);
    assert_eq!(database.quarantine_count(&filter).await.unwrap(), 1);
}

/// The audit said ok: what was told of boot 6 was held against boot 5, which had come further.
#[tokio::test]
async fn a_boot_of_which_nothing_came_is_named() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let ten: Vec<i64> = (1..=10).collect();
    let batch = vec![
        boot(1, 5, &ten, None, None),
        boot(1, 7, &[1], Some(4), None),
        boot(2, 2, &[1], Some(50), None),
        // Boots that do not count by one.
        boot(3, 1_000, &[1, 2, 3], None, None),
        boot(3, 2_000, &[1, 2], Some(3), None),
    ];
    serve(&database, batch).await;
    let report = audit(&database, &AuditScope::default()).await;
    let gaps: Vec<_> = report
        .gaps
        .iter()
        .map(|gap| (gap.terminal.as_str(), gap.boot, gap.from, gap.to, gap.tail, gap.outcome))
        .collect();
    let lost = GapOutcome::Unaccounted;
    assert_eq!(gaps, [("t1", 6, 1, 4, true, lost), ("t2", 1, 1, 50, true, lost)]);
    assert_eq!((report.verdict, report.unaccounted, report.sources), ("unaccounted", 54, 7));

    let one = AuditScope { terminals: vec![terminal("t1")], ..AuditScope::default() };
    assert_eq!(audit(&database, &one).await.unaccounted, 4);
    let before = AuditScope { to: Some(domain::Timestamp::from_millis(1)), ..AuditScope::default() };
    assert_eq!(audit(&database, &before).await.unaccounted, 0);
    let patient = AuditScope { grace: Duration::from_hours(24 * 36_500), ..AuditScope::default() };
    let patient = audit(&database, &patient).await;
    assert_eq!((patient.verdict, patient.open), ("ok", 54));

    // Out of an outbox after all, the end of one missing.
    serve(&database, vec![boot(1, 6, &[1, 2, 3, 4], None, None), boot(2, 1, &[1, 2], None, None)]).await;
    let report = audit(&database, &AuditScope::default()).await;
    assert_eq!((report.unaccounted, report.gaps.len()), (48, 1));
}

#[tokio::test]
async fn rows_and_books_of_a_boot_that_is_gone_are_told() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let rows = vec![reading(1), reading(2), reading(3)];
    serve(&database, vec![telemetry(1, 1, rows.clone()), telemetry(2, 2, rows)]).await;
    execute(&database, "DELETE FROM telemetry WHERE elevator_id = 2").await;
    execute(&database, "DELETE FROM source").await;
    let report = audit(&database, &AuditScope::default()).await;
    assert_eq!((report.verdict, report.ledger_ahead), ("ledger_ahead", 6));
}

/// The ledger claimed for ever what an entry had claimed and its message did not hold.
#[tokio::test]
async fn what_a_retried_entry_claimed_and_does_not_hold_is_claimed_no_more() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let entry = |payload: &[u8], from, to| {
        let entry = QuarantineEntry::new(noon(), "t1", "topic", QuarantineReason::Undecodable, "", payload);
        let numbers = SeqRanges::range(from, to);
        Item::Quarantine(Box::new(entry.numbered(&terminal("t1"), BootId(7), numbers)))
    };
    let batch = vec![boot(1, 7, &[1, 2, 3, 7], None, None), entry(b"x", 5, 9), entry(b"y", 9, 9)];
    serve(&database, batch).await;
    assert_eq!(audit(&database, &AuditScope::default()).await.unaccounted, 1);
    // It was number 5.
    serve(&database, vec![boot(1, 7, &[5], None, None)]).await;
    let first = "SELECT quarantine_id FROM quarantine WHERE payload = 'x'";
    let id = count(&database, first).await;
    let retried = store::QuarantineRetried { id, boot: BootId(7), numbers: SeqRanges::range(5, 5) };
    database.quarantine_retried(&[retried], "me", at_ms(0)).await.unwrap();
    let accounted: String = sqlx::query_scalar("SELECT accounted::text FROM sequence_ledger")
        .fetch_one(database.pool())
        .await
        .unwrap();
    assert_eq!(accounted, "{[1,4),[5,6),[7,8),[9,10)}", "7 is a row, 9 another entry");
    let report = audit(&database, &AuditScope::default()).await;
    assert_eq!((report.ledger_ahead, report.ledger_behind, report.unaccounted), (0, 0, 3));
    let open = "SELECT count(*) FROM sequence_gap WHERE outcome = 'open' AND seq_from IN (4, 6, 8)";
    assert_eq!(count(&database, open).await, 3, "and is missed");
}
