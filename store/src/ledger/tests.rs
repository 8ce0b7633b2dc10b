//! The ledger's task: when it writes, and what it does not forget.

use domain::{Arrival, BootId, ElevatorId, Message, Reading, Seq, SourceId, TelemetryBatch, TerminalId};
use sqlx::Connection;

use super::note::WAITING_MAX;
use super::*;
use crate::testing::TestDatabase;
use crate::{Incoming, Item, Writer};

/// The ledger stayed behind for two minutes after it had waited 2.3 s for a connection.
#[test]
fn a_write_that_waited_for_the_database_is_not_followed_by_minutes() {
    let pause = |took, written| {
        let outcome = Outcome { took, caught_up: false, unwritten: None, written };
        outcome.pause()
    };
    let good = || Ok((Written::default(), None));
    assert_eq!(pause(Duration::from_millis(2), good()), PAUSE);
    assert_eq!(pause(Duration::from_millis(100), good()), Duration::from_secs(5));
    assert_eq!(pause(Duration::from_millis(2_300), good()), PAUSE_MAX);
    assert_eq!(pause(Duration::from_secs(5), Err(StoreError::Corrupt("away".into()))), PAUSE);
}

/// Nothing forgets what was declared, so its sum takes longer and longer.
#[test]
fn sums_that_took_long_are_made_less_often() {
    let begun = Instant::now();
    let due = |written| {
        Outcome { took: Duration::ZERO, caught_up: false, unwritten: None, written }.look_due(begun)
    };
    let sums = |took| Ok((Written::default(), Some(Sums { took, ..Sums::default() })));
    assert_eq!(due(Ok((Written::default(), None))), begun, "it was not looked");
    assert!(due(sums(Duration::from_millis(1))) < begun + PRUNE_EVERY);
    assert!(due(sums(Duration::from_millis(1))) >= begun + SUMS_EVERY);
    assert!(due(sums(Duration::from_secs(6))) >= begun + Duration::from_mins(5));
    assert!(due(Err(StoreError::Corrupt("away".into()))) >= begun + SUMS_EVERY);
}

/// Three readings of one terminal.
fn message(arrival_no: i64) -> Item {
    let reading = |seq| Reading::new(Seq(seq), now());
    let batch = TelemetryBatch {
        boot: BootId(7),
        sent: None,
        prev_boot_last_seq: None,
        dropped: None,
        readings: (1..=3).map(reading).collect(),
    };
    Item::Message(Incoming {
        elevator_id: ElevatorId(1),
        terminal_id: TerminalId::new("t1").unwrap(),
        arrival: Arrival { no: ArrivalNo(arrival_no), at: now() },
        message: Arc::new(Message::Telemetry(batch)),
    })
}

async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while !is_so().await {
        assert!(Instant::now() < deadline, "waited for: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn accounted(database: &Database) -> Vec<String> {
    sqlx::query_scalar("SELECT accounted::text FROM sequence_ledger")
        .fetch_all(database.pool())
        .await
        .unwrap()
}

#[tokio::test]
async fn what_overflows_while_it_catches_up_is_caught_up_afterwards() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let metrics = Arc::new(LedgerMetrics::default());
    let mut ledger = Ledger::new(&database, ArrivalNo(5), metrics.clone());
    let mut writer = Writer::new(&database, Arc::default()).with_ledger(ledger.notes());
    let flood = ledger.notes();

    // It has looked through the rows and waits for quarantine.
    let mut other = database.connection().await.unwrap();
    let mut held = other.begin().await.unwrap();
    sqlx::query("LOCK TABLE quarantine").execute(&mut *held).await.unwrap();
    let task = tokio::spawn(ledger.run());
    let waits = "SELECT EXISTS (SELECT FROM pg_locks
                                WHERE NOT granted AND relation = 'quarantine'::regclass
                                  AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))";
    eventually("the catch-up waits", async || {
        sqlx::query_scalar(waits).fetch_one(database.pool()).await.unwrap()
    })
    .await;

    // What it has not seen is told, and forgotten with all that is too much.
    writer.commit(&[message(7)]).await.unwrap();
    let touched = (0..=i32::try_from(WAITING_MAX).unwrap()).map(SourceId).collect();
    flood.tell(Note { arrival_no: ArrivalNo(8), touched, ..Note::default() });
    eventually("the notes are taken", async || flood.notes.capacity() == NOTES_MAX).await;
    assert_eq!(metrics.notes_missed.get(), 0, "the overflow is that of what waits");
    held.rollback().await.unwrap();
    eventually("the catch-up is done", async || metrics.writes.get() == 1).await;
    drop((writer, flood));
    task.await.unwrap();
    assert_eq!(accounted(&database).await, [""; 0], "that is why it must not be left at that");
    let mark: i64 =
        sqlx::query_scalar("SELECT arrival_no FROM sequence_mark").fetch_one(database.pool()).await.unwrap();
    assert_eq!(mark, 5, "before the message that was forgotten");

    let metrics = Arc::new(LedgerMetrics::default());
    let mut ledger = Ledger::new(&database, ArrivalNo(10), metrics.clone());
    let idle = ledger.notes();
    let task = tokio::spawn(ledger.run());
    eventually("the next start has caught up", async || metrics.writes.get() == 1).await;
    drop(idle);
    task.await.unwrap();
    assert_eq!(accounted(&database).await, ["{[1,4)}"]);
}
