use prometheus_client::registry::Registry;
use store::AlarmFilter;
use store::testing::TestDatabase;
use tokio::sync::oneshot;

use super::*;
use crate::testing::event;

struct Done(oneshot::Sender<()>);

impl Receipt for Done {
    fn done(self) {
        let _ = self.0.send(());
    }
}

fn decision(number: u64, events: Vec<AlarmEvent>) -> (Job<Done>, oneshot::Receiver<()>) {
    let (sender, receiver) = oneshot::channel();
    let receipts = vec![Done(sender)];
    (Job::Decisions(Decisions { number, events, suppressions: vec![], receipts }), receiver)
}

async fn within<F: Future>(work: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), work).await.expect("within 20 s")
}

/// A decision that no database takes must not hold up the others, and must not be acknowledged.
#[tokio::test]
async fn a_poisoned_decision_is_shown_and_its_neighbours_are_stored() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let metrics = Metrics::register(&mut Registry::default());
    let (streams, _follower) = Streams::new(database.clone(), Config::default().stream, metrics.clone());
    let progress = Arc::<Progress>::default();
    let (jobs, queued) = mpsc::channel(16);
    let committer =
        Committer::new(queued, &Config::default(), &database, streams.clone(), Arc::clone(&progress));

    let mut poison = event(2);
    poison.alarm.evidence[0].trace = "a zero \0 byte".into();
    let (first, first_done) = decision(1, vec![event(1)]);
    let (second, second_done) = decision(2, vec![poison.clone()]);
    let (third, third_done) = decision(3, vec![event(3)]);
    // An empty decision waits for those before it.
    let (last, last_done) = decision(0, vec![]);
    for job in [first, second, third, last] {
        jobs.send(job).await.unwrap();
    }
    // All at once, so that they share a transaction first.
    drop(jobs);
    within(committer.run(CancellationToken::new())).await;
    assert!(first_done.await.is_ok() && third_done.await.is_ok() && last_done.await.is_ok());
    assert!(second_done.await.is_err(), "its terminal sends again");
    let stored = database.alarm_events_after(0, 10).await.unwrap();
    let ids: Vec<_> = stored.iter().map(|event| (event.no, event.alarm.id)).collect();
    assert_eq!(ids, [(Some(1), event(1).alarm.id), (Some(2), event(3).alarm.id)]);
    assert_eq!((metrics.unstorable.get(), progress.committed.load(Ordering::Acquire)), (1, 3));
    let shown = streams.pending(&AlarmFilter::default());
    assert_eq!(shown.len(), 1);
    assert_eq!(shown[0].event.alarm.id, poison.alarm.id);
}

/// A decision larger than a transaction is still one decision.
#[tokio::test]
async fn a_large_decision_is_committed_in_parts() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let metrics = Metrics::register(&mut Registry::default());
    let (streams, _follower) = Streams::new(database.clone(), Config::default().stream, metrics);
    let (jobs, queued) = mpsc::channel(16);
    let count = GROUP_EVENTS_MAX as i64 * 2 + 1;
    let (large, done) = decision(1, (1..=count).map(event).collect());
    jobs.send(large).await.unwrap();
    drop(jobs);
    let committer =
        Committer::new(queued, &Config::default(), &database, streams, Arc::<Progress>::default());
    within(committer.run(CancellationToken::new())).await;
    assert!(done.await.is_ok());
    assert_eq!(database.alarm_stream_position().await.unwrap().head, count);
}

/// Receipts that wait their turn take no place of decisions.
#[tokio::test]
async fn a_full_queue_takes_receipts_but_no_decisions() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let metrics = Metrics::register(&mut Registry::default());
    let (streams, _follower) = Streams::new(database.clone(), Config::default().stream, metrics.clone());
    let (jobs, queued) = mpsc::channel(16);
    let config = Config { commit_queue_len: 2, ..Config::default() };
    let mut committer = Committer::new(queued, &config, &database, streams, Arc::<Progress>::default());
    let (first, first_done) = decision(1, vec![event(1)]);
    committer.push(first);
    let mut turns = Vec::new();
    for _ in 0..1_000 {
        let (turn, done) = decision(0, vec![]);
        committer.push(turn);
        turns.push(done);
    }
    assert_eq!(committer.queue.len(), 1);
    drop(jobs);
    within(committer.run(CancellationToken::new())).await;
    assert!(first_done.await.is_ok());
    for done in turns {
        assert!(done.await.is_ok());
    }
}
