//! The sequence ledger against the real database: true, never ahead, caught up after a crash.

use std::sync::Arc;

use domain::{ArrivalNo, BootId, Message, Seq, TelemetryBatch};
use store::testing::TestDatabase;
use store::{
    AuditScope, Database, Item, Ledger, LedgerMetrics, QuarantineEntry, QuarantineReason, SeqRanges,
};

use crate::common::*;

/// Commits items as a server does, and ends: everything is written.
async fn serve(database: &Database, batches: &[Vec<Item>]) -> Arc<LedgerMetrics> {
    let metrics = Arc::new(LedgerMetrics::default());
    let mut ledger = Ledger::new(database, ArrivalNo(0), metrics.clone());
    let mut writer = writer(database).with_ledger(ledger.notes());
    let task = tokio::spawn(ledger.run());
    caught_up(&metrics).await;
    for batch in batches {
        writer.commit(batch).await.unwrap();
    }
    drop(writer);
    task.await.unwrap();
    metrics
}

/// A crash: rows are committed, the ledger hears nothing.
async fn crash(database: &Database, batch: &[Item]) {
    writer(database).commit(batch).await.unwrap();
}

/// A start that has nothing to do but to catch up.
async fn start(database: &Database) -> Arc<LedgerMetrics> {
    let metrics = Arc::new(LedgerMetrics::default());
    let mut ledger = Ledger::new(database, ArrivalNo(10), metrics.clone());
    let idle = writer(database).with_ledger(ledger.notes());
    let task = tokio::spawn(ledger.run());
    caught_up(&metrics).await;
    drop(idle);
    task.await.unwrap();
    metrics
}

async fn accounted(database: &Database, terminal: &str, boot: i64) -> String {
    sqlx::query_scalar(
        "SELECT accounted::text
         FROM sequence_ledger
         JOIN source USING (source)
         WHERE terminal_id = $1 AND boot = $2",
    )
    .bind(terminal)
    .bind(boot)
    .fetch_one(database.pool())
    .await
    .unwrap()
}

/// Gaps in words: `2-3 open`, `7-9 filled tail`.
async fn gaps(database: &Database) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT format('%s-%s %s%s', seq_from, seq_to, outcome, CASE WHEN tail THEN ' tail' ELSE '' END)
         FROM sequence_gap
         ORDER BY source, seq_from",
    )
    .fetch_all(database.pool())
    .await
    .unwrap()
}

fn boot(number: u32, seqs: &[i64], prev: Option<i64>, dropped: Option<(i64, i64)>, arrival: i64) -> Item {
    let batch = TelemetryBatch {
        boot: BootId(number),
        sent: None,
        prev_boot_last_seq: prev,
        dropped,
        readings: seqs.iter().map(|seq| reading(*seq)).collect(),
    };
    item(1, arrival, Message::Telemetry(batch))
}

#[tokio::test]
async fn gaps_are_seen_filled_and_declared() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let metrics = serve(&database, &[vec![boot(7, &[1, 2, 6, 9, -4], None, None, 1)]]).await;
    assert_eq!(accounted(&database, "t1", 7).await, "{[1,3),[6,7),[9,10)}");
    assert_eq!(gaps(&database).await, ["3-5 open", "7-8 open"]);
    assert_eq!(metrics.numbers_found.get(), 0, "the last write is not counted: nobody looks any more");

    serve(&database, &[vec![boot(7, &[4], None, Some((8, 7)), 2)]]).await;
    assert_eq!(gaps(&database).await, ["3-3 open", "4-4 filled", "5-5 open", "7-8 dropped"]);
    serve(&database, &[vec![boot(7, &[3, 5, 8], None, None, 3)]]).await;
    assert_eq!(
        gaps(&database).await,
        ["3-3 filled", "4-4 filled", "5-5 filled", "7-7 dropped", "8-8 filled"]
    );
    // Again changes nothing, and neither do two servers.
    serve(&database, &[vec![boot(7, &[3, 5, 8], None, None, 4)]]).await;
    assert_eq!(accounted(&database, "t1", 7).await, "{[1,7),[8,10)}");
    assert_eq!(gaps(&database).await.len(), 5);
}

#[tokio::test]
async fn a_tail_that_was_never_sent_is_a_gap_of_the_boot_before() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    serve(&database, &[vec![boot(7, &[1, 2], None, None, 1)]]).await;
    serve(&database, &[vec![boot(9, &[1], Some(5), None, 2)]]).await;
    assert_eq!(gaps(&database).await, ["3-5 open tail"]);
    // The outbox survived: two of them come under the old boot.
    serve(&database, &[vec![boot(7, &[4, 5], None, None, 3)]]).await;
    assert_eq!(gaps(&database).await, ["3-3 open", "4-5 filled tail"]);
}

/// Gaps with their boots: `8 4-500 open tail`.
async fn gaps_of_boots(database: &Database) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT format('%s %s-%s %s%s', boot, seq_from, seq_to, outcome, CASE WHEN tail THEN ' tail' ELSE '' END)
         FROM sequence_gap
         JOIN source USING (source)
         ORDER BY boot, seq_from",
    )
    .fetch_all(database.pool())
    .await
    .unwrap()
}

#[tokio::test]
async fn a_tail_moves_to_the_boot_between_that_arrives_late() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    serve(&database, &[vec![boot(7, &[1, 2], None, None, 1)]]).await;
    serve(&database, &[vec![boot(9, &[1], Some(500), None, 2)]]).await;
    assert_eq!(gaps_of_boots(&database).await, ["7 3-500 open tail"], "nobody has heard of 8");
    // The outbox survived: first of 8, then the end of 7.
    serve(&database, &[vec![boot(8, &[1, 2, 3], Some(4), None, 3)]]).await;
    assert_eq!(gaps_of_boots(&database).await, ["7 3-4 open tail", "8 4-500 open tail"]);
    serve(&database, &[vec![boot(7, &[3, 4], None, None, 4)]]).await;
    assert_eq!(gaps_of_boots(&database).await, ["7 3-4 filled tail", "8 4-500 open tail"]);
    let report = database.ledger_audit(&AuditScope::default(), at_ms(3_600_000), None).await.unwrap();
    assert_eq!((report.unaccounted, report.filled_late), (497, 2), "what moved was not filled");
}

#[tokio::test]
async fn a_tail_moves_too_when_its_boot_said_nothing_of_the_one_before() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    serve(&database, &[vec![boot(7, &[1, 2], None, None, 1)]]).await;
    serve(&database, &[vec![boot(9, &[1], Some(5), None, 2)]]).await;
    serve(&database, &[vec![boot(8, &[1], None, None, 3)]]).await;
    assert_eq!(gaps_of_boots(&database).await, ["8 2-5 open tail"]);
    assert_eq!(count(&database, "SELECT count(*) FROM sequence_ledger WHERE told IS NOT NULL").await, 1);
    // What an earlier version has left wrong is put right by the next start.
    for wrong in [
        "UPDATE sequence_ledger SET told = 5, missing = '{[3,6)}'
         WHERE source IN (SELECT source FROM source WHERE boot = 7)",
        "INSERT INTO sequence_gap (source, seq_from, seq_to, noted, tail, outcome)
         SELECT source, 3, 5, now(), true, 'open' FROM source WHERE boot = 7",
    ] {
        sqlx::query(wrong).execute(database.pool()).await.unwrap();
    }
    let metrics = start(&database).await;
    assert_eq!(gaps_of_boots(&database).await, ["8 2-5 open tail"]);
    assert_eq!(
        (metrics.gaps_open.get(), metrics.numbers_missing.get(), metrics.numbers_filled.get()),
        (1, 4, 0)
    );
}

#[tokio::test]
async fn quarantined_numbers_are_accounted_for() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut future = reading(2);
    future.time = at_ms(3_600_000);
    let entry = QuarantineEntry::new(noon(), "t1", "topic", QuarantineReason::Undecodable, "", b"x")
        .numbered(&terminal("t1"), BootId(7), [(4, 5), (8, 8)].into_iter().collect::<SeqRanges>());
    let batch =
        vec![telemetry(1, 1, vec![reading(1), future, reading(3)]), Item::Quarantine(Box::new(entry))];
    serve(&database, &[batch]).await;
    assert_eq!(accounted(&database, "t1", 7).await, "{[1,6),[8,9)}");
    let kept: Vec<(String, Option<i64>)> =
        sqlx::query_as("SELECT numbers::text, arrival_no FROM quarantine ORDER BY reason")
            .fetch_all(database.pool())
            .await
            .unwrap();
    assert_eq!(kept, [("{[2,3)}".to_owned(), Some(1)), ("{[4,6),[8,9)}".to_owned(), None)]);
}

#[tokio::test]
async fn after_a_crash_the_ledger_catches_up_from_the_rows() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    serve(&database, &[vec![boot(7, &[1, 2], None, None, 1)]]).await;
    let mut future = reading(6);
    future.time = at_ms(3_600_000);
    crash(&database, &[boot(7, &[4, 5], None, None, 2), telemetry(1, 3, vec![future])]).await;
    crash(&database, &[boot(8, &[1], Some(9), None, 4), telemetry(2, 5, vec![reading(1)])]).await;
    let metrics = start(&database).await;
    assert_eq!(accounted(&database, "t1", 7).await, "{[1,3),[4,7)}");
    assert_eq!(accounted(&database, "t2", 7).await, "{[1,2)}");
    assert_eq!(gaps(&database).await, ["3-3 open", "7-9 open tail"]);
    assert_eq!((metrics.gaps_open.get(), metrics.numbers_missing.get()), (2, 4));
    assert_eq!(count(&database, "SELECT arrival_no FROM sequence_mark").await, 10);
}

/// Every start judged all boots that had ever told of the boot before: with 80,000 of them for minutes.
#[tokio::test]
async fn a_start_looks_only_at_what_may_have_been_told_since() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    serve(&database, &[vec![boot(7, &[1, 2], None, None, 1), boot(8, &[1], Some(5), None, 2)]]).await;
    for table in ["sequence_told", "sequence_dropped"] {
        let age = format!("UPDATE {table} SET noted = noted - INTERVAL '1 day'");
        sqlx::query(sqlx::AssertSqlSafe(age)).execute(database.pool()).await.unwrap();
    }
    let versions = async || -> Vec<String> {
        sqlx::query_scalar("SELECT xmin::text FROM sequence_ledger ORDER BY source")
            .fetch_all(database.pool())
            .await
            .unwrap()
    };
    let before = versions().await;
    start(&database).await;
    assert_eq!(versions().await, before, "nothing was told since");
    // A crash: more is told, and of it the ledger hears nothing.
    crash(&database, &[boot(8, &[], Some(9), None, 3)]).await;
    let fresh = "SELECT count(*) FROM sequence_told WHERE noted > now() - INTERVAL '1 hour'";
    assert_eq!(count(&database, fresh).await, 1, "what is told anew is as old as that");
    start(&database).await;
    assert_eq!(gaps(&database).await, ["3-9 open tail"]);
}

#[tokio::test]
async fn a_terminal_that_counts_by_twos_does_not_grow_the_ledger_without_end() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    for part in 0..3 {
        let seqs: Vec<i64> = (0..500).map(|n| 1 + 2 * (500 * part + n)).collect();
        serve(&database, &[vec![boot(7, &seqs, None, None, part + 1)]]).await;
    }
    let ranges = "SELECT count(*) FROM sequence_ledger, unnest(accounted)";
    assert_eq!(count(&database, ranges).await, 256);
    assert_eq!(count(&database, "SELECT count(*) FROM sequence_gap WHERE outcome = 'open'").await, 255);
    let untrue = "SELECT count(*)
                  FROM sequence_ledger, unnest(accounted) AS range, generate_series(lower(range), upper(range) - 1) AS claimed
                  WHERE NOT EXISTS (SELECT FROM telemetry WHERE telemetry.seq = claimed)";
    assert_eq!(count(&database, untrue).await, 0, "less than the rows, never more");
}

/// A boot that declares numbers from `from` on as discarded, one by one and each apart from the next.
fn declares_apart(from: i64, count: i64) -> Vec<Item> {
    (0..count).map(|n| boot(7, &[], None, Some((from + 2 * n, from + 2 * n)), from + n)).collect()
}

#[tokio::test]
async fn declarations_of_one_boot_are_joined_and_bounded() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut writer = writer(&database);
    let declared = "SELECT count(*) FROM sequence_dropped";
    // One after the other: one range, however they come.
    for (from, to) in [(1, 1), (2, 2), (4, 4), (3, 3), (2, 6), (5, 5)] {
        writer.commit(&[boot(7, &[], None, Some((from, to)), 1)]).await.unwrap();
    }
    assert_eq!(count(&database, declared).await, 1);
    let report = writer.commit(&declares_apart(10, 900)).await.unwrap();
    assert_eq!(report.declarations_left_out, 0);
    let report = writer.commit(&declares_apart(10_000, 300)).await.unwrap();
    assert_eq!(report.declarations_left_out, 201);
    assert_eq!(count(&database, declared).await, 1_000);
    // Again, and what joins two of them, has a place.
    let mut again = declares_apart(10, 900);
    again.push(boot(7, &[], None, Some((11, 11)), 2));
    assert_eq!(writer.commit(&again).await.unwrap().declarations_left_out, 0);
    assert_eq!(count(&database, declared).await, 999);
}

#[tokio::test]
async fn a_write_touches_only_the_gaps_that_are_not_as_they_were() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let noted = "UPDATE sequence_gap SET noted = TIMESTAMPTZ '2020-01-01' + seq_from * INTERVAL '1 second'";
    let mut first = declares_apart(2, 40);
    first.push(boot(7, &[1, 100], None, None, 1));
    serve(&database, &[first]).await;
    sqlx::query(noted).execute(database.pool()).await.unwrap();
    let versions =
        "SELECT seq_from, xmin::text, noted = TIMESTAMPTZ '2020-01-01' + seq_from * INTERVAL '1 second'
                    FROM sequence_gap
                    ORDER BY seq_from";
    let before: Vec<(i64, String, bool)> = sqlx::query_as(versions).fetch_all(database.pool()).await.unwrap();
    assert_eq!(before.len(), 80, "2 dropped, 3 open, 4 dropped, ..., then 81 to 99 open");
    // One fills, one is declared, one is halved.
    serve(&database, &[vec![boot(7, &[3, 90], None, Some((5, 5)), 2)]]).await;
    let after: Vec<(i64, String, bool)> = sqlx::query_as(versions).fetch_all(database.pool()).await.unwrap();
    let changed: Vec<i64> =
        after.iter().filter(|row| !before.contains(row)).map(|(from, ..)| *from).collect();
    assert_eq!(changed, [3, 4, 81, 90, 91], "{after:?}");
    let shown = gaps(&database).await;
    assert_eq!(shown[..4], ["2-2 dropped", "3-3 filled", "4-6 dropped", "7-7 open"]);
    assert_eq!(shown[shown.len() - 3..], ["81-89 open", "90-90 filled", "91-99 open"]);
    // Each part keeps the time of the gap it was part of; what grew together, of the oldest.
    let old: Vec<(i64, String)> = sqlx::query_as(
        "SELECT seq_from, extract(epoch FROM noted - TIMESTAMPTZ '2020-01-01')::int8::text
         FROM sequence_gap
         WHERE seq_from IN (3, 4, 81, 90, 91)
         ORDER BY seq_from",
    )
    .fetch_all(database.pool())
    .await
    .unwrap();
    let expected = [(3, "3"), (4, "4"), (81, "81"), (90, "81"), (91, "81")];
    assert_eq!(old, expected.map(|(from, noted)| (from, noted.to_owned())));
}

#[tokio::test]
async fn numbers_at_the_end_of_the_scale_do_no_harm() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut last = reading(1);
    last.seq = Seq(i64::MAX);
    let mut large = reading(2);
    large.seq = Seq(i64::MAX - 1);
    let told = TelemetryBatch {
        boot: BootId(8),
        sent: None,
        prev_boot_last_seq: Some(i64::MAX),
        dropped: Some((i64::MIN, i64::MAX)),
        readings: vec![reading(3)],
    };
    let batch = vec![telemetry(1, 1, vec![reading(1), last, large]), item(1, 2, Message::Telemetry(told))];
    serve(&database, &[batch]).await;
    assert_eq!(gaps(&database).await.len(), 3, "{:?}", gaps(&database).await);
}
