//! Presence over restarts, and orders that wait.

use std::time::Duration;

use domain::{ArrivalNo, Downlink, DownlinkId, ElevatorId, PresenceState, Timestamp, limits};
use store::testing::TestDatabase;
use store::{Database, DownlinkFate, DownlinkQueueError, PresenceRecord, Registry};

use crate::common::*;

fn seen(name: &str, online: bool, second: i64, no: i64) -> PresenceRecord {
    let at = at_ms(second * 1_000);
    PresenceRecord {
        terminal_id: terminal(name),
        online,
        reason: if online { "connected".into() } else { "gone".into() },
        since: at,
        last_seen: at,
        arrival_no: ArrivalNo(no),
    }
}

async fn registered(database: &Database, names: &[&str]) -> Vec<ElevatorId> {
    let registry = Registry::load(database).await.unwrap();
    let area = "350102".parse().unwrap();
    let asked: Vec<_> = names.iter().map(|name| (terminal(name), area)).collect();
    registry.register(&asked).await.unwrap();
    names.iter().map(|name| registry.lookup(name).unwrap().elevator_id).collect()
}

#[tokio::test]
async fn the_latest_presence_stays_whatever_the_order_of_writing() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let elevators = registered(&database, &["a", "b", "silent"]).await;
    database
        .presence_store(&[seen("a", false, 20, 12), seen("a", true, 10, 11), seen("b", true, 10, 5)])
        .await
        .unwrap();
    database.presence_store(&[seen("a", true, 5, 3), seen("b", true, 30, 13)]).await.unwrap();
    let known = database.presence_of(&elevators).await.unwrap();
    let known: Vec<_> = known.into_iter().map(|(_, terminal)| terminal.presence).collect();
    assert_eq!(known, [Some(seen("a", false, 20, 12)), Some(seen("b", true, 30, 13)), None]);
}

#[tokio::test]
async fn a_new_start_finds_nobody_connected_and_gives_everybody_time() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let fleet: Vec<_> = (0..10_000).map(|n| seen(&format!("t{n}"), n % 2 == 0, 0, n)).collect();
    database.presence_store(&fleet).await.unwrap();
    let (start, now) = (ArrivalNo::start_of_run(9), at_ms(600_000));
    let known = database.presence_begin(start, now).await.unwrap();
    assert_eq!(known.len(), 10_000);
    let state = |record: &PresenceRecord, at| record.state(at, limits::OFFLINE_AFTER);
    for record in &known {
        assert!(!record.online);
        let was_online = record.reason == "server_restart";
        assert_eq!(was_online, record.terminal_id.as_str()[1..].parse::<i64>().unwrap() % 2 == 0);
        let expected = if was_online { PresenceState::Away } else { PresenceState::Offline };
        assert_eq!(state(record, now), expected);
        assert_eq!(state(record, now.plus(limits::OFFLINE_AFTER)), PresenceState::Offline);
        assert_eq!(record.last_seen, at_ms(0));
    }
    // What an older server still writes changes nothing.
    database.presence_store(&[seen("t0", true, 601, 77)]).await.unwrap();
    let again =
        database.presence_begin(ArrivalNo::start_of_run(10), now.plus(Duration::from_mins(1))).await.unwrap();
    let first = again.iter().find(|record| record.terminal_id == terminal("t0")).unwrap();
    assert_eq!((first.since, first.arrival_no), (now, start), "its time runs on from the first start");
}

async fn queue(
    database: &Database,
    name: &str,
    order: Downlink,
    now: Timestamp,
) -> Result<DownlinkId, DownlinkQueueError> {
    database.downlink_queue(&terminal(name), order, "wang", now).await
}

#[tokio::test]
async fn an_order_waits_until_it_is_delivered_replaced_or_too_old() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    registered(&database, &["a", "b"]).await;
    let later = |seconds| noon().plus(Duration::from_secs(seconds));
    let slow = Downlink::report_rate(5_000, 600).unwrap();
    let clock = queue(&database, "a", Downlink::ClockSet, noon()).await.unwrap();
    let old = queue(&database, "a", slow, noon()).await.unwrap();
    let fast = queue(&database, "a", Downlink::report_rate(500, 60).unwrap(), noon()).await.unwrap();
    let live = queue(&database, "a", Downlink::LiveView, noon()).await.unwrap();
    let due = async |at| -> Vec<_> {
        let due = database.downlink_due_of(&terminal("a"), at).await.unwrap();
        due.into_iter().map(|record| (record.id, record.order)).collect()
    };
    let rate = Downlink::ReportRate { interval_ms: 500, for_s: 60 };
    assert_eq!(due(noon()).await, [(clock, Downlink::ClockSet), (fast, rate), (live, Downlink::LiveView)]);
    assert_eq!(database.downlink_fate(old, noon()).await.unwrap(), DownlinkFate::Gone, "replaced");
    assert_eq!(due(later(60)).await.len(), 2, "nobody looks any more");
    assert_eq!(database.downlink_fate(live, later(60)).await.unwrap(), DownlinkFate::Expired);
    assert_eq!(database.downlink_delivered(&[clock], later(61)).await.unwrap(), 1);
    assert_eq!(database.downlink_delivered(&[clock], later(99)).await.unwrap(), 0, "once");
    assert_eq!(database.downlink_fate(clock, later(99)).await.unwrap(), DownlinkFate::Delivered(later(61)));
    assert_eq!(due(later(61)).await, [(fast, rate)]);
    assert_eq!(due(later(86_400)).await, []);
    let audited =
        count(&database, "SELECT count(*) FROM audit WHERE action = 'downlink' AND actor = 'wang'").await;
    assert_eq!(audited, 4, "every order, the replaced one too");
    // Maintenance lets go of old orders, not of the audit log.
    database.maintenance_run(noon().plus(Duration::from_hours(29 * 24))).await.unwrap();
    assert_eq!(count(&database, "SELECT count(*) FROM downlink").await, 3);
    let report = database.maintenance_run(noon().plus(Duration::from_hours(31 * 24))).await.unwrap();
    assert_eq!(report.downlinks_dropped, 3);
}

#[tokio::test]
async fn orders_are_for_known_terminals_and_bounded() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    registered(&database, &["a", "off"]).await;
    let refused = queue(&database, "nobody", Downlink::LiveView, noon()).await.unwrap_err();
    assert!(matches!(refused, DownlinkQueueError::Unknown(_)), "{refused}");
    sqlx::query("UPDATE terminal SET enabled = false WHERE terminal_id = 'off'")
        .execute(database.pool())
        .await
        .unwrap();
    let refused = queue(&database, "off", Downlink::LiveView, noon()).await.unwrap_err();
    assert!(matches!(refused, DownlinkQueueError::Disabled(_)), "{refused}");
    sqlx::query(
        "INSERT INTO downlink (created, expires, terminal_id, kind, actor)
         SELECT $1, $1 + interval '1 hour', 'a', 'clock_set', 'x' FROM generate_series(1, 32)",
    )
    .bind(noon().to_utc())
    .execute(database.pool())
    .await
    .unwrap();
    let refused = queue(&database, "a", Downlink::LiveView, noon()).await.unwrap_err();
    assert!(matches!(refused, DownlinkQueueError::Full(32)), "{refused}");
    assert_eq!(count(&database, "SELECT count(*) FROM audit").await, 0, "what is refused was not ordered");
}

#[tokio::test]
async fn whoever_sends_is_woken_and_finds_those_who_are_there() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    registered(&database, &["a", "b", "c"]).await;
    let mut listener = database.downlink_listener().await.unwrap();
    let mut ids = Vec::new();
    for name in ["a", "b", "c"] {
        ids.push(queue(&database, name, Downlink::ClockSet, noon()).await.unwrap());
        assert_eq!(listener.next().await.unwrap(), Some(terminal(name)));
    }
    database
        .presence_store(&[seen("a", true, 0, 1), seen("b", false, 0, 2), seen("c", true, 0, 3)])
        .await
        .unwrap();
    let due = database.downlink_due(DownlinkId(0), noon(), 10).await.unwrap();
    assert_eq!(due.iter().map(|record| record.id).collect::<Vec<_>>(), [ids[0], ids[2]]);
    let due = database.downlink_due(ids[0], noon(), 10).await.unwrap();
    assert_eq!(due.iter().map(|record| record.terminal_id.as_str()).collect::<Vec<_>>(), ["c"]);
}
