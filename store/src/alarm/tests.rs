use std::collections::BTreeMap;
use std::time::Duration;

use domain::{
    Alarm, AlarmChange, AlarmEvent, AlarmId, AlarmState, ArrivalNo, BootId, ElevatorId, EvidenceKind,
    EvidenceLine, RuleId, Seq, Severity, Suppression, TerminalId, Timestamp,
};
use sha2::{Digest, Sha256};

use super::*;
use crate::Database;
use crate::testing::TestDatabase;

const KIND: &str = "entrapment_between_floors";

pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(1_800_000_000_000_000 + seconds * 1_000_000)
}

/// The alarm that reading `seq` of elevator `elevator` began.
pub(super) fn alarm(elevator: i64, seq: i64) -> Alarm {
    let terminal_id = TerminalId::new("t-1").unwrap();
    let elevator_id = ElevatorId(elevator);
    Alarm {
        id: AlarmId::derive(elevator_id, KIND, &terminal_id, BootId(1), Seq(seq), 0),
        elevator_id,
        terminal_id,
        area: "350102".parse().unwrap(),
        kind: KIND.parse().unwrap(),
        severity: Severity::S1,
        state: AlarmState::Suspected,
        score: 40,
        began: at(seq),
        raised: at(seq + 30),
        cleared: None,
        acknowledged_by: None,
        acknowledged: None,
        boot: BootId(1),
        seq: Seq(seq),
        floor: Some("12A".into()),
        evidence: vec![line(RuleId::E1, seq + 30)],
    }
}

fn line(rule: RuleId, seconds: i64) -> EvidenceLine {
    EvidenceLine {
        evidence: EvidenceKind::StateRule,
        rule,
        rule_version: 10_000,
        at: at(seconds),
        arrival_no: ArrivalNo(7),
        trace: "stopped outside the zone for 30 s".into(),
    }
}

pub(super) fn raised(alarm: &Alarm) -> AlarmEvent {
    AlarmEvent { no: None, at: alarm.raised, change: AlarmChange::Raised, alarm: alarm.clone() }
}

pub(super) fn updated(alarm: &Alarm, seconds: i64) -> AlarmEvent {
    let mut alarm = alarm.clone();
    alarm.evidence.push(line(RuleId::E4, seconds));
    (alarm.score, alarm.state) = (70, AlarmState::Confirmed);
    AlarmEvent { no: None, at: at(seconds), change: AlarmChange::Updated, alarm }
}

pub(super) fn cleared(before: &AlarmEvent, seconds: i64) -> AlarmEvent {
    let cleared = Some(at(seconds));
    let alarm = Alarm { cleared, state: AlarmState::Cancelled, ..before.alarm.clone() };
    AlarmEvent { no: None, at: at(seconds), change: AlarmChange::Cleared, alarm }
}

async fn commit(database: &Database, events: &[AlarmEvent]) -> Vec<AlarmEvent> {
    AlarmCommitter::new(database.clone()).alarm_commit(events, &[]).await.unwrap()
}

fn numbers(events: &[AlarmEvent]) -> Vec<i64> {
    events.iter().map(|event| event.no.unwrap()).collect()
}

fn note(alarm_id: AlarmId, actor: &str, key: &str) -> Acknowledgement {
    let (actor, idempotency_key, note) = (actor.to_owned(), key.to_owned(), String::new());
    Acknowledgement { alarm_id, actor, idempotency_key, note, at: at(1_000) }
}

#[tokio::test]
async fn a_replay_of_the_log_adds_nothing() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let first = raised(&alarm(1, 1));
    let second = updated(&first.alarm, 40);
    let third = cleared(&second, 50);
    let log = [first, raised(&alarm(2, 1)), second, third];

    let told = commit(&database, &log[..2]).await;
    assert_eq!(numbers(&told), [1, 2]);
    let told = commit(&database, &log).await;
    assert_eq!(numbers(&told), [3, 4], "the first two are known");
    for from in 0..log.len() {
        assert_eq!(commit(&database, &log[from..]).await, [], "from {from}");
    }
    let stored = database.alarm_events_after(0, 10).await.unwrap();
    assert_eq!(numbers(&stored), [1, 2, 3, 4]);
    for (stored, told) in stored.iter().zip(&log) {
        assert_eq!((stored.at, stored.change, &stored.alarm), (told.at, told.change, &told.alarm));
    }
    let record = database.alarm_get(log[0].alarm.id).await.unwrap().unwrap();
    assert_eq!(record.alarm, log[3].alarm);
    assert_eq!(numbers(&record.events), [1, 3, 4]);
    assert_eq!(database.alarm_stream_position().await.unwrap(), StreamPosition { head: 4, retired: 0 });
}

#[tokio::test]
async fn a_better_wording_is_no_news() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let first = raised(&alarm(1, 1));
    let second = updated(&first.alarm, 40);
    commit(&database, &[first.clone(), second.clone()]).await;
    let mut reworded = second;
    reworded.alarm.evidence[1].trace = "button pressed".into();
    reworded.alarm.evidence[1].rule_version = 10_001;
    assert_eq!(commit(&database, &[first, reworded]).await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_are_gapless_in_the_order_of_commits() {
    const WRITERS: i64 = 6;
    const EACH: i64 = 25;
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let write = |writer: i64| {
        let database = database.clone();
        tokio::spawn(async move {
            let mut committer = AlarmCommitter::new(database);
            for round in 0..EACH {
                // Neighbours raise the same alarms too, in another order: only one of them wins.
                let mine = raised(&alarm(writer, round));
                let shared = raised(&alarm(1_000 + round, 1));
                let group = if writer % 2 == 0 { [mine, shared] } else { [shared, mine] };
                committer.alarm_commit(&group, &[]).await.unwrap();
            }
        })
    };
    let writers: Vec<_> = (0..WRITERS).map(write).collect();

    // A follower that reads all the while never misses a number and never sees one appear behind it.
    let total = WRITERS * EACH + EACH;
    let mut seen = 0;
    let follow = async {
        while seen < total {
            for event in database.alarm_events_after(seen, 7).await.unwrap() {
                assert_eq!(event.no, Some(seen + 1));
                seen += 1;
            }
        }
    };
    tokio::time::timeout(Duration::from_mins(1), follow).await.expect("all events appear");
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(database.alarm_stream_position().await.unwrap().head, total);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_and_what_follows_it_are_the_whole() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let writer = {
        let database = database.clone();
        tokio::spawn(async move {
            let mut committer = AlarmCommitter::new(database);
            for round in 0..60 {
                let first = raised(&alarm(round, 1));
                let second = updated(&first.alarm, 40);
                let third = cleared(&second, 50);
                let keep_open = round % 3 == 0;
                committer.alarm_commit(&[first, second], &[]).await.unwrap();
                if !keep_open {
                    committer.alarm_commit(&[third], &[]).await.unwrap();
                }
            }
        })
    };
    let mut snapshots = vec![];
    while !writer.is_finished() {
        snapshots.push(database.alarm_open_snapshot(&AlarmFilter::default()).await.unwrap());
    }
    writer.await.unwrap();
    let (_, end) = database.alarm_open_snapshot(&AlarmFilter::default()).await.unwrap();
    let sorted = |alarms: Vec<Alarm>| -> BTreeMap<AlarmId, Alarm> {
        alarms.into_iter().map(|alarm| (alarm.id, alarm)).collect()
    };
    let end = sorted(end);
    assert_eq!(end.len(), 20);
    assert!(snapshots.len() > 3, "{} snapshots", snapshots.len());
    for (no, open) in snapshots {
        let mut open = sorted(open);
        for event in database.alarm_events_after(no, 10_000).await.unwrap() {
            if event.alarm.cleared.is_some() {
                open.remove(&event.alarm.id);
            } else {
                open.insert(event.alarm.id, event.alarm);
            }
        }
        assert_eq!(open, end, "from {no}");
    }
}

#[tokio::test]
async fn an_acknowledgement_is_given_once_and_outlives_the_engine() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let first = raised(&alarm(1, 1));
    let id = first.alarm.id;
    commit(&database, std::slice::from_ref(&first)).await;
    assert_eq!(numbers(&database.alarm_unacknowledged(10).await.unwrap()), [1]);

    let result = database.alarm_acknowledge(&note(id, "seat 4", "k1")).await.unwrap();
    assert_eq!((result.no, result.alarm.acknowledged_by.as_deref()), (2, Some("seat 4")));
    assert_eq!(database.alarm_unacknowledged(10).await.unwrap(), []);
    let second = updated(&first.alarm, 40);
    assert_eq!(numbers(&commit(&database, std::slice::from_ref(&second)).await), [3]);
    let now = database.alarm_get(id).await.unwrap().unwrap().alarm;
    assert_eq!(
        (now.acknowledged_by.as_deref(), now.acknowledged, now.score),
        (Some("seat 4"), Some(at(1_000)), 70)
    );

    let again = database.alarm_acknowledge(&note(id, "seat 4", "k1")).await.unwrap();
    assert_eq!(again, result, "the same key gives the first result");
    let other = database.alarm_acknowledge(&note(id, "seat 5", "k2")).await.unwrap();
    assert_eq!(other, result, "the first acknowledgement stays");
    assert_eq!(database.alarm_stream_position().await.unwrap().head, 3, "neither told anything");

    commit(&database, &[raised(&alarm(2, 1))]).await;
    let reused = database.alarm_acknowledge(&note(alarm(2, 1).id, "seat 4", "k1")).await;
    assert!(matches!(reused, Err(AcknowledgeError::KeyReused(first)) if first == id));
    let unknown = database.alarm_acknowledge(&note(alarm(3, 1).id, "seat 4", "k3")).await;
    assert!(matches!(unknown, Err(AcknowledgeError::NotFound(_))));

    let audited: i64 = sqlx::query_scalar("SELECT count(*) FROM audit WHERE action = 'alarm_acknowledge'")
        .fetch_one(database.pool())
        .await
        .unwrap();
    assert_eq!(audited, 2, "one row for each person who did something");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledgements_at_once_have_one_result() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let first = raised(&alarm(1, 1));
    commit(&database, std::slice::from_ref(&first)).await;
    let ask = |key: &'static str| {
        let (database, id) = (database.clone(), first.alarm.id);
        tokio::spawn(async move { database.alarm_acknowledge(&note(id, key, key)).await.unwrap() })
    };
    let asked: Vec<_> = ["a", "a", "a", "b", "b", "c"].map(ask).into();
    let mut results = vec![];
    for one in asked {
        results.push(one.await.unwrap());
    }
    assert!(results.iter().all(|result| *result == results[0]), "{results:?}");
    assert_eq!(database.alarm_stream_position().await.unwrap().head, 2);
}

#[tokio::test]
async fn the_states_of_people_are_not_the_engines() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let first = raised(&alarm(1, 1));
    commit(&database, std::slice::from_ref(&first)).await;
    sqlx::query("UPDATE alarm SET state = 'on_site'").execute(database.pool()).await.unwrap();
    let second = updated(&first.alarm, 40);
    let third = cleared(&second, 50);
    let told = commit(&database, &[second, third]).await;
    assert!(told.iter().all(|event| event.alarm.state == AlarmState::OnSite));
    assert_eq!(told[1].alarm.cleared, Some(at(50)), "the signal's end is kept as it is");
}

#[tokio::test]
async fn an_absurd_clock_keeps_no_alarm_out() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    for (elevator, micros) in [(1, i64::MIN), (2, i64::MAX), (3, -62_167_219_200_000_001)] {
        let mut event = raised(&alarm(elevator, 1));
        event.alarm.began = Timestamp::from_micros(micros);
        let suppression = Suppression {
            elevator_id: ElevatorId(elevator),
            terminal_id: event.alarm.terminal_id.clone(),
            kind: event.alarm.kind,
            rule: RuleId::E3,
            rule_version: u32::MAX,
            began: Timestamp::from_micros(micros),
            at: event.at,
            reason: "ended_in_filter".into(),
            trace: "ended after 2 s".into(),
        };
        let mut committer = AlarmCommitter::new(database.clone());
        let told = committer.alarm_commit(&[event], &[suppression.clone(), suppression]).await.unwrap();
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].alarm.began, at(31));
    }
    let kept: i64 =
        sqlx::query_scalar("SELECT count(*) FROM suppression").fetch_one(database.pool()).await.unwrap();
    assert_eq!(kept, 3, "each once");
}

#[tokio::test]
async fn events_are_append_only_and_retention_leaves_no_hole() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    for elevator in 1..=4 {
        let first = raised(&alarm(elevator, elevator * 100));
        let second = cleared(&updated(&first.alarm, elevator * 100 + 40), elevator * 100 + 50);
        // Elevator 3's stays open.
        let group = if elevator == 3 { vec![first] } else { vec![first, second] };
        commit(&database, &group).await;
    }
    for statement in ["UPDATE alarm_event SET at = now()", "DELETE FROM alarm_event", "TRUNCATE alarm_event"]
    {
        let refused = sqlx::query(statement).execute(database.pool()).await.unwrap_err();
        assert!(refused.to_string().contains("append-only"), "{statement}: {refused}");
    }
    let everything = at(1_000).to_utc().unwrap();
    assert_eq!(database.alarm_event_retire(everything).await.unwrap(), 4, "up to the open alarm");
    assert_eq!(database.alarm_event_retire(everything).await.unwrap(), 0);
    let position = database.alarm_stream_position().await.unwrap();
    assert_eq!(position, StreamPosition { head: 7, retired: 4 });
    assert_eq!(numbers(&database.alarm_events_after(0, 10).await.unwrap()), [5, 6, 7]);
}

#[tokio::test]
async fn lists_are_paged_and_filtered() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut events: Vec<AlarmEvent> =
        (1..=9).map(|elevator| raised(&alarm(elevator, elevator / 3))).collect();
    events[2].alarm.severity = Severity::S3;
    events[3].alarm.area = "360100".parse().unwrap();
    let done = cleared(&updated(&events[4].alarm, 40), 50);
    commit(&database, &events).await;
    commit(&database, &[done]).await;

    let ids = |alarms: &[Alarm]| -> Vec<i64> {
        let mut ids: Vec<i64> = alarms.iter().map(|alarm| alarm.elevator_id.0).collect();
        ids.sort_unstable();
        ids
    };
    let mut all: Vec<Alarm> = vec![];
    loop {
        let after = all.last().map(|alarm| AlarmCursor { raised: alarm.raised, id: alarm.id });
        let page = database.alarm_list(&AlarmFilter::default(), after, 2).await.unwrap();
        if page.is_empty() {
            break;
        }
        all.extend(page);
    }
    assert_eq!(ids(&all), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert!(all.is_sorted_by_key(|alarm| std::cmp::Reverse((alarm.raised, alarm.id))));

    let list = async |filter: AlarmFilter| ids(&database.alarm_list(&filter, None, 100).await.unwrap());
    let fujian = vec!["350000".parse().unwrap()];
    assert_eq!(
        list(AlarmFilter { areas: fujian.clone(), ..Default::default() }).await,
        [1, 2, 3, 5, 6, 7, 8, 9]
    );
    assert_eq!(list(AlarmFilter { elevator_id: Some(ElevatorId(4)), ..Default::default() }).await, [4]);
    let grave = AlarmFilter { severity_min: Some(Severity::S2), open_only: true, ..Default::default() };
    assert_eq!(list(grave.clone()).await, [1, 2, 4, 6, 7, 8, 9]);
    let (no, open) = database.alarm_open_snapshot(&AlarmFilter { areas: fujian, ..grave }).await.unwrap();
    assert_eq!((no, ids(&open)), (10, vec![1, 2, 6, 7, 8, 9]));
}

#[tokio::test]
async fn evidence_is_sealed_once_over_the_readings_around_the_alarm() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let first = raised(&alarm(1, 100));
    let id = first.alarm.id;
    commit(&database, std::slice::from_ref(&first)).await;
    // Begun at 100 s, raised at 130 s: from 40 s to 190 s. The terminal's clock is 300 s behind.
    sqlx::raw_sql(
        "INSERT INTO source (boot, terminal_id) VALUES (1, 't-1');
        INSERT INTO telemetry (elevator_id, time, seq, arrival_no, arrived, source, sent_mask, age_ms, item, floor)
        SELECT elevator, to_timestamp(1800000000 + s - 300), s, s, to_timestamp(1800000000 + s), 1, 0, 0, 0, '12A'
        FROM generate_series(0, 300, 10) AS s, generate_series(1, 2) AS elevator;
        INSERT INTO fault (elevator_id, time, seq, arrival_no, arrived, source, age_ms, item, state, code, slug)
        VALUES (1, to_timestamp(1799999805), 1005, 1005, to_timestamp(1800000105), 1, 0, 0, 1, '5', 'entrapment')",
    )
    .execute(database.pool())
    .await
    .unwrap();

    assert_eq!(database.alarm_unsealed(at(129), 10).await.unwrap(), []);
    assert_eq!(database.alarm_unsealed(at(130), 10).await.unwrap(), [Unsealed { id, raised: at(130) }]);
    assert!(database.alarm_evidence_seal(id, at(195)).await.unwrap());
    assert!(!database.alarm_evidence_seal(id, at(199)).await.unwrap(), "once");
    assert_eq!(database.alarm_unsealed(at(130), 10).await.unwrap(), []);

    let evidence = database.alarm_get(id).await.unwrap().unwrap().evidence.unwrap();
    assert_eq!(evidence.sealed, at(195));
    let digest = Sha256::digest(evidence.json.as_bytes());
    assert_eq!(evidence.sha256, commit::hex(&digest));
    let json: serde_json::Value = serde_json::from_str(&evidence.json).unwrap();
    let seqs: Vec<i64> =
        json["readings"].as_array().unwrap().iter().map(|row| row["seq"].as_i64().unwrap()).collect();
    assert_eq!(seqs, (40..=190).step_by(10).collect::<Vec<i64>>());
    assert_eq!(json["readings"][0]["terminal_id"], "t-1");
    assert_eq!(json["readings"][0]["floor"], "12A");
    assert_eq!(json["faults"][0]["slug"], "entrapment");
    assert_eq!(json["alarm"]["evidence"][0]["trace"], "stopped outside the zone for 30 s");
    assert_eq!(json["events"][0]["change"], "raised");
}
