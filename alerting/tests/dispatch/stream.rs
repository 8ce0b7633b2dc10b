//! What a watcher sees.

use std::collections::BTreeMap;

use domain::{AlarmEvent, EventState, Severity};
use proto::dispatch::v1;
use proto::dispatch::v1::watch_response::Message as Told;
use store::testing::TestDatabase;
use store::{AlarmCommitter, Database};
use tokio::task::JoinHandle;
use tonic::Code;

use crate::common::{TestClock, at, config, fault, raised, start, unintended_movement, within};

fn all() -> v1::WatchRequest {
    v1::WatchRequest::default()
}

fn after(no: i64) -> v1::WatchRequest {
    v1::WatchRequest { resume_after: Some(no), ..all() }
}

async fn commit(database: &Database, events: Vec<AlarmEvent>) {
    AlarmCommitter::new(database.clone()).alarm_commit(&events, &[]).await.unwrap();
}

/// Another process that raises alarms one by one, two of them at once.
fn raise_in_background(database: &Database, writers: i64, each: i64) -> Vec<JoinHandle<()>> {
    let write = |writer: i64| {
        let mut committer = AlarmCommitter::new(database.clone());
        tokio::spawn(async move {
            for seq in 1..=each {
                committer.alarm_commit(&[raised(writer, seq)], &[]).await.unwrap();
            }
        })
    };
    (1..=writers).map(write).collect()
}

#[tokio::test]
async fn a_fault_reaches_a_watcher_committed_and_numbered() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut running = start(&database, &TestClock::new(at(0)), config()).await;
    let mut watch = running.watch(all()).await;
    let snapshot = watch.snapshot().await;
    assert_eq!((snapshot.no, snapshot.alarms.len(), snapshot.more), (0, 0, false));

    running.submit(unintended_movement(1, 1, 0)).await;
    let stored = database.alarm_events_after(0, 10).await.unwrap();
    assert_eq!(stored.len(), 1, "on disk when the receipt is done");
    let event = watch.event().await;
    assert_eq!((event.no, event.prev, event.provisional, event.repeated), (1, 0, false, false));
    assert_eq!(AlarmEvent::try_from(event).unwrap(), stored[0]);

    // The same message again, as a terminal sends it that got no acknowledgement.
    running.submit(unintended_movement(1, 2, 1)).await;
    running.submit(fault(1, 3, 2, "unintended_movement", EventState::Close)).await;
    let event = watch.event().await;
    assert_eq!((event.no, event.prev, event.change()), (2, 1, v1::AlarmChange::Cleared));
    running.stop().await;
    assert_eq!(watch.end().await.code(), Code::Unavailable);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_cut_resumes_without_gap_or_repeat() {
    const TOTAL: i64 = 4 * 60;
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut running = start(&database, &TestClock::new(at(0)), config()).await;
    let writers = raise_in_background(&database, 4, TOTAL / 4);
    let (mut handled, mut cuts) = (0, 0);
    while handled < TOTAL {
        // Cut after 1, 2, ... events, each time at another place of a page.
        let mut watch = running.watch(after(handled)).await;
        for _ in 0..=cuts % 17 {
            if handled == TOTAL {
                break;
            }
            let event = watch.event().await;
            assert_eq!(event.no, handled + 1);
            handled = event.no;
        }
        cuts += 1;
    }
    assert!(cuts > 20, "{cuts} cuts");
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(database.alarm_stream_position().await.unwrap().head, TOTAL);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_continues_without_a_gap() {
    const TOTAL: i64 = 4 * 40;
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut running = start(&database, &TestClock::new(at(0)), config()).await;
    let writers = raise_in_background(&database, 4, TOTAL / 4);
    for _ in 0..8 {
        let mut watch = running.watch(all()).await;
        let snapshot = watch.snapshot().await;
        // Nothing is cleared here: alarms and numbers go together.
        assert_eq!(snapshot.alarms.len() as i64, snapshot.no);
        let mut seen: BTreeMap<String, i64> =
            snapshot.alarms.into_iter().map(|alarm| (alarm.id, snapshot.no)).collect();
        for no in snapshot.no + 1..=TOTAL {
            let event = watch.event().await;
            assert_eq!(event.no, no);
            assert!(seen.insert(event.alarm.unwrap().id, no).is_none(), "told twice");
        }
        assert_eq!(seen.len() as i64, TOTAL);
    }
    for writer in writers {
        writer.await.unwrap();
    }
}

#[tokio::test]
async fn a_large_snapshot_comes_in_parts() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    for from in 0..2 {
        commit(&database, (1..=300).map(|elevator| raised(from * 300 + elevator, 1)).collect()).await;
    }
    let mut running = start(&database, &TestClock::new(at(0)), config()).await;
    let mut watch = running.watch(all()).await;
    let (mut parts, mut count) = (0, 0);
    loop {
        let part = watch.snapshot().await;
        assert_eq!(part.no, 600);
        parts += 1;
        count += part.alarms.len();
        if !part.more {
            break;
        }
    }
    assert_eq!((parts, count), (3, 600));
}

#[tokio::test]
async fn a_filtered_stream_tells_what_it_skipped() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut running = start(&database, &TestClock::new(at(0)), config()).await;
    let request = v1::WatchRequest {
        areas: vec!["360000".into(), "350200".into()],
        severity_min: v1::Severity::S2 as i32,
        resume_after: Some(0),
    };
    let mut watch = running.watch(request).await;
    let mut events: Vec<AlarmEvent> = (1..=8).map(|elevator| raised(elevator, 1)).collect();
    for index in [1, 4, 5] {
        events[index].alarm.area = "360103".parse().unwrap();
    }
    events[4].alarm.severity = Severity::S3;
    events[5].alarm.severity = Severity::S2;
    commit(&database, events).await;
    let (first, second) = (watch.event().await, watch.event().await);
    assert_eq!((first.no, first.prev), (2, 0));
    assert_eq!((second.no, second.prev), (6, 2));
    while watch.heartbeat().await.no != 8 {}
    // Resumed after what the heartbeat told: nothing comes again.
    let mut again = running.watch(v1::WatchRequest { resume_after: Some(8), ..all() }).await;
    assert_eq!(again.heartbeat().await.no, 8);
}

#[tokio::test]
async fn far_behind_is_read_from_the_store() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut running = start(&database, &TestClock::new(at(0)), config()).await;
    // More than memory holds, while the server runs.
    for group in 0..6 {
        commit(&database, (1..=300).map(|elevator| raised(group * 300 + elevator, 1)).collect()).await;
    }
    let mut watch = running.watch(after(0)).await;
    for no in 1..=1_800 {
        assert_eq!(watch.event().await.no, no);
    }
}

#[tokio::test]
async fn a_number_that_means_nothing_gets_a_way_out() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let done: Vec<AlarmEvent> = (1..=5)
        .flat_map(|elevator| {
            let event = raised(elevator, 1);
            let end = crate::common::cleared(&event, 2);
            [event, end]
        })
        .collect();
    commit(&database, done).await;
    let mut running = start(&database, &TestClock::new(at(0)), config()).await;
    let refused = async |no, running: &mut crate::common::Running| {
        let status = running.watch(after(no)).await.end().await;
        assert_eq!(status.code(), Code::OutOfRange);
        assert!(status.message().contains("without resume_after"), "{}", status.message());
    };
    refused(11, &mut running).await;
    refused(i64::MAX, &mut running).await;
    assert_eq!(running.watch(after(10)).await.heartbeat().await.no, 10);

    assert_eq!(database.alarm_event_retire(at(100).to_utc().unwrap()).await.unwrap(), 10);
    commit(&database, vec![raised(9, 200)]).await;
    let mut watch = running.watch(all()).await;
    assert_eq!(watch.snapshot().await.no, 11);
    refused(0, &mut running).await;
    refused(9, &mut running).await;
    assert_eq!(running.watch(after(10)).await.event().await.no, 11);
}

#[tokio::test]
async fn an_s1_is_told_again_until_somebody_takes_it() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut running = start(&database, &TestClock::new(at(0)), config()).await;
    let mut watch = running.watch(all()).await;
    watch.snapshot().await;
    running.submit(unintended_movement(1, 1, 0)).await;
    let first = watch.event().await;
    let repeated = async |watch: &mut crate::common::Watch| loop {
        match watch.next().await.unwrap() {
            Told::Event(event) if event.repeated => return event,
            Told::Event(event) => panic!("{event:?}"),
            _ => {}
        }
    };
    for _ in 0..3 {
        let event = repeated(&mut watch).await;
        assert_eq!((event.no, event.prev, &event.alarm), (first.no, 0, &first.alarm));
    }
    // A new stream sees it too, after its snapshot.
    let mut late = running.watch(all()).await;
    assert_eq!(late.snapshot().await.alarms.len(), 1);
    repeated(&mut late).await;

    let id = first.alarm.unwrap().id;
    running.client.acknowledge(crate::common::acknowledge(&id, "k")).await.unwrap();
    let event = watch.event().await;
    assert_eq!((event.no, event.change()), (2, v1::AlarmChange::Acknowledged));
    for _ in 0..3 {
        // Nothing but heartbeats from here on.
        let next = within(watch.next()).await.unwrap();
        assert!(matches!(next, Told::Heartbeat(_)), "{next:?}");
    }
}

#[tokio::test]
async fn a_stopping_server_sends_its_clients_away() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut running = start(&database, &TestClock::new(at(0)), config()).await;
    let mut watches = vec![running.watch(all()).await, running.watch(after(0)).await];
    watches[0].snapshot().await;
    running.stop.cancel();
    for watch in &mut watches {
        let status = watch.end().await;
        assert_eq!(status.code(), Code::Unavailable, "{status}");
        assert!(status.message().contains("resume"), "{}", status.message());
    }
    running.stop().await;
}

#[tokio::test]
async fn streams_are_counted_and_bounded() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut config = config();
    config.stream.watchers_max = 2;
    let mut running = start(&database, &TestClock::new(at(0)), config).await;
    let first = running.watch(all()).await;
    let _second = running.watch(all()).await;
    let status = running.client.watch(all()).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    drop(first);
    // The place is free as soon as the server has noticed.
    let again = async {
        loop {
            match running.client.watch(all()).await {
                Ok(_) => return,
                Err(status) => assert_eq!(status.code(), Code::ResourceExhausted),
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    within(again).await;
}
