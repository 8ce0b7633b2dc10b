//! The database is away: alarms do not wait for it (DESIGN.md 2, promise 5).

use std::time::Duration;

use alerting::Config;
use domain::AlarmEvent;
use proto::dispatch::v1;
use proto::dispatch::v1::watch_response::Message as Told;
use store::Database;
use store::testing::TestCluster;
use tokio::sync::oneshot::error::TryRecvError;
use tonic::Code;

use crate::common::{
    Running, TestClock, Watch, acknowledge, at, config, receipt, start, unintended_movement, within,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alarm_is_shown_at_once_and_numbered_when_the_database_returns() {
    let cluster = TestCluster::new().await;
    let database = Database::connect(cluster.url()).await.unwrap();
    let soon = Config { provisional_after: Duration::from_millis(250), ..config() };
    let mut running = start(&database, &TestClock::new(at(0)), soon).await;
    running.submit(unintended_movement(1, 1, 0)).await;
    let mut watch = running.watch(v1::WatchRequest::default()).await;
    assert_eq!(watch.snapshot().await.no, 1);

    cluster.stop().await;
    let (promise, mut done) = receipt();
    running.handle.submit(unintended_movement(2, 2, 1), promise).await.unwrap();
    let provisional = watch.event().await;
    assert_eq!((provisional.no, provisional.prev, provisional.provisional), (0, 0, true));
    let told = AlarmEvent::try_from(provisional).unwrap();
    assert_eq!(done.try_recv(), Err(TryRecvError::Empty), "not acknowledged");
    // The same message again decides nothing, but must wait for what the first one decided.
    let (promise, mut repeated) = receipt();
    running.handle.submit(unintended_movement(2, 3, 2), promise).await.unwrap();

    // The stream stays open, says how far it has looked, and tells the provisional S1 again.
    assert_eq!(watch.heartbeat().await.no, 1);
    loop {
        match watch.next().await.unwrap() {
            Told::Event(event) if event.repeated && event.provisional => break,
            Told::Event(event) => assert!(event.repeated, "{event:?}"),
            _ => {}
        }
    }
    // Acting on it has to wait, and says so.
    let refused = running.client.acknowledge(acknowledge(&told.alarm.id.to_string(), "k")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains("same idempotency key"), "{}", refused.message());
    // Who comes now sees it too; the snapshot follows when there is one.
    let mut late = running.watch(v1::WatchRequest::default()).await;
    let first = late.event().await;
    assert_eq!((first.provisional, first.alarm.unwrap().id), (true, told.alarm.id.to_string()));
    let mut resumed = running.watch(v1::WatchRequest { resume_after: Some(1), ..Default::default() }).await;
    assert!(resumed.event().await.provisional);
    assert_eq!(repeated.try_recv(), Err(TryRecvError::Empty), "nor is its repetition");

    cluster.start().await;
    within(done).await.expect("committed");
    within(repeated).await.expect("committed before");
    for stream in [&mut watch, &mut resumed] {
        let event = stream.event().await;
        assert_eq!((event.no, event.provisional), (2, false));
        let event = AlarmEvent::try_from(event).unwrap();
        assert_eq!((event.alarm, event.change, event.at), (told.alarm.clone(), told.change, told.at));
    }
    let snapshot = late.snapshot().await;
    assert_eq!((snapshot.no, snapshot.alarms.len()), (2, 2));
    let taken = running.client.acknowledge(acknowledge(&told.alarm.id.to_string(), "k")).await.unwrap();
    assert_eq!(taken.into_inner().no, 3);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_database_loses_and_repeats_nothing() {
    const ALARMS: i64 = 120;
    let cluster = TestCluster::new().await;
    let database = Database::connect(cluster.url()).await.unwrap();
    let mut running = start(&database, &TestClock::new(at(0)), config()).await;
    let mut receipts = vec![];
    for elevator in 1..=ALARMS {
        let (promise, done) = receipt();
        running.handle.submit(unintended_movement(elevator, elevator, 0), promise).await.unwrap();
        receipts.push(done);
        if elevator % 50 == 25 {
            // In the middle of commits: some are under way with an outcome nobody knows.
            cluster.kill().await;
            cluster.start().await;
        }
    }
    for done in receipts {
        within(done).await.expect("committed in the end");
    }
    let mut watch = running.watch(v1::WatchRequest { resume_after: Some(0), ..Default::default() }).await;
    let mut elevators = vec![];
    while elevators.len() < ALARMS as usize {
        let event = watch.event().await;
        if !event.provisional {
            assert_eq!(event.no, elevators.len() as i64 + 1);
            elevators.push(event.alarm.unwrap().elevator_id);
        }
    }
    elevators.sort_unstable();
    assert_eq!(elevators, (1..=ALARMS).collect::<Vec<_>>());
    assert_eq!(database.alarm_stream_position().await.unwrap().head, ALARMS);
}

/// Numbers of the time after the backup would mean other events now.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_backup_sends_watchers_back_to_a_snapshot() {
    let cluster = TestCluster::new().await;
    let database = Database::connect(cluster.url()).await.unwrap();
    let mut running = start(&database, &TestClock::new(at(0)), config()).await;
    let submit = async |running: &Running, elevators: std::ops::RangeInclusive<i64>| {
        for elevator in elevators {
            running.submit(unintended_movement(elevator, elevator, 0)).await;
        }
    };
    submit(&running, 1..=3).await;
    let backup = tempfile::tempdir().unwrap();
    cluster.stop().await;
    copy(cluster.home(), backup.path());
    cluster.start().await;
    submit(&running, 4..=5).await;
    let mut watch = running.watch(v1::WatchRequest { resume_after: Some(3), ..Default::default() }).await;
    assert_eq!(numbered(&mut watch).await, 4);
    assert_eq!(numbered(&mut watch).await, 5);

    cluster.stop().await;
    for entry in std::fs::read_dir(cluster.home()).unwrap() {
        let path = entry.unwrap().path();
        let removed = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
        removed.unwrap();
    }
    copy(backup.path(), cluster.home());
    cluster.start().await;
    let status = watch.end().await;
    assert_eq!(status.code(), Code::OutOfRange);
    assert!(status.message().contains("without resume_after"), "{}", status.message());
    let mut again = running.watch(v1::WatchRequest::default()).await;
    assert_eq!(again.snapshot().await.no, 3);
    submit(&running, 6..=6).await;
    assert_eq!(numbered(&mut again).await, 4);
}

async fn numbered(watch: &mut Watch) -> i64 {
    loop {
        let event = watch.event().await;
        if !event.provisional {
            return event.no;
        }
    }
}

/// Copies a directory with owners and modes.
fn copy(from: &std::path::Path, to: &std::path::Path) {
    let copied = std::process::Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status().unwrap();
    assert!(copied.success());
}
