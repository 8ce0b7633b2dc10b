use domain::{Area, PresenceState, ServiceMode};

use super::*;
use crate::{AlarmCommitter, ElevatorState, PresenceRecord};

fn state(elevator: i64, arrival_no: i64) -> ElevatorState {
    let at = second(arrival_no.cast_unsigned());
    ElevatorState {
        elevator_id: ElevatorId(elevator),
        terminal_id: TerminalId::new(&format!("t-{elevator}")).unwrap(),
        area: "350102".parse().unwrap(),
        online: Some(true),
        last_seen: Some(at),
        time: Some(at),
        service_mode: Some(ServiceMode::Normal),
        car_status: None,
        direction: None,
        door_zone: None,
        door_state: None,
        passengers: None,
        people: None,
        floor: Some("B1".into()),
        floor_ordinal: None,
        position_mm: Some(12),
        velocity_mm_s: None,
        load_kg: None,
        people_count: None,
        flags: None,
        temperature_dc: None,
        vibration_mm_s2: None,
        codes: vec![],
        code_slugs: vec![],
        arrival: Arrival { no: ArrivalNo(arrival_no), at },
        changed: ArrivalNo(arrival_no),
        engine_version: 1,
        engine: "{}".into(),
    }
}

fn question(filter: FleetFilter) -> LatestStates {
    LatestStates { filter, changed_since: None, after: None, limit: 100 }
}

fn ids(page: &StatesPage) -> Vec<i64> {
    page.states.iter().map(|state| state.elevator_id.0).collect()
}

/// Ten elevators, the last without a state, in two provinces by turns.
async fn fleet(database: &Database) {
    register(database, 10, &[350_102, 360_100]).await;
    let states: Vec<_> = (1..10).map(|id| state(id, id)).collect();
    AlarmCommitter::new(database.clone()).checkpoint(&states, ArrivalNo(9)).await.unwrap();
}

#[tokio::test]
async fn pages_give_every_elevator_with_a_state_once() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    fleet(&database).await;
    let queries = queries(&database);
    for limit in [1, 3, 9, 10] {
        let (mut after, mut found, mut pages) = (None, vec![], 0);
        loop {
            let page = queries
                .latest_states(&LatestStates { after, limit, ..question(FleetFilter::All) })
                .await
                .unwrap();
            found.extend(ids(&page));
            pages += 1;
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found, (1..10).collect::<Vec<_>>());
        assert_eq!(pages, 1 + 9 / limit, "a full page may be the last: then an empty one follows");
    }
    let page = queries.latest_states(&question(FleetFilter::All)).await.unwrap();
    let first = &page.states[0];
    assert_eq!((first.area.number(), first.arrival_no), (350_102, ArrivalNo(1)));
    assert_eq!(first.latest.floor.as_deref(), Some("B1"));
    assert_eq!(first.latest.time, Some(second(1)));
    assert_eq!(first.connection, None);
    queries.close().await;
}

#[tokio::test]
async fn filters_overlap_without_giving_an_elevator_twice() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    fleet(&database).await;
    let queries = queries(&database);
    let of = async |filter| ids(&queries.latest_states(&question(filter)).await.unwrap());
    let regions = |codes: &[&str]| {
        FleetFilter::Regions(codes.iter().map(|code| code.parse::<Area>().unwrap()).collect())
    };
    assert_eq!(of(regions(&["350000"])).await, [1, 3, 5, 7, 9]);
    assert_eq!(of(regions(&["350102", "350100", "350000", "360100"])).await, (1..10).collect::<Vec<_>>());
    assert_eq!(of(regions(&["370000"])).await, [0; 0]);
    assert_eq!(of(regions(&[])).await, [0; 0], "who sees no region sees nothing");
    let named = |ids: &[i64]| FleetFilter::Elevators(ids.iter().copied().map(ElevatorId).collect());
    assert_eq!(of(named(&[4, 2, 4, 10, 77])).await, [2, 4]);
    let page = LatestStates { after: Some(ElevatorId(3)), limit: 2, ..question(regions(&["350000"])) };
    let page = queries.latest_states(&page).await.unwrap();
    assert_eq!((ids(&page), page.next), (vec![5, 7], Some(ElevatorId(7))));
    queries.close().await;
}

#[tokio::test]
async fn who_follows_misses_nothing() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    fleet(&database).await;
    let queries = queries(&database);
    let first = queries.latest_states(&question(FleetFilter::All)).await.unwrap();
    assert_eq!(first.covered, ArrivalNo(9));
    let mut committer = AlarmCommitter::new(database.clone());
    // 12 is saved before 11 is: the position stays behind both.
    committer.checkpoint(&[state(3, 12)], ArrivalNo(10)).await.unwrap();
    let since = |covered| LatestStates { changed_since: Some(covered), ..question(FleetFilter::All) };
    let second = queries.latest_states(&since(first.covered)).await.unwrap();
    assert_eq!((ids(&second), second.covered), (vec![3], ArrivalNo(10)));
    committer.checkpoint(&[state(4, 11)], ArrivalNo(12)).await.unwrap();
    let third = queries.latest_states(&since(second.covered)).await.unwrap();
    assert_eq!((ids(&third), third.covered), (vec![3, 4], ArrivalNo(12)));
    assert_eq!(ids(&queries.latest_states(&since(third.covered)).await.unwrap()), [0; 0]);
    // A deadline changes what 7 said last: no message comes, and the position stays.
    let latched = ElevatorState { people: Some(true), changed: ArrivalNo(13), ..state(7, 7) };
    committer.checkpoint(&[latched], ArrivalNo(12)).await.unwrap();
    let fourth = queries.latest_states(&since(third.covered)).await.unwrap();
    assert_eq!((ids(&fourth), fourth.states[0].latest.people), (vec![7], Some(true)));
    assert_eq!(fourth.states[0].arrival_no, ArrivalNo(7), "what is read again after a start is as it was");
    queries.close().await;
}

#[tokio::test]
async fn presence_stands_beside_the_state() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    fleet(&database).await;
    let record = PresenceRecord {
        terminal_id: TerminalId::new("t-2").unwrap(),
        online: false,
        reason: "closed".into(),
        since: second(100),
        last_seen: second(100),
        arrival_no: ArrivalNo(8),
    };
    database.presence_store(&[record]).await.unwrap();
    let queries = queries(&database);
    let page = queries.latest_states(&question(FleetFilter::Elevators(vec![ElevatorId(2)]))).await.unwrap();
    let connection = page.states[0].connection.unwrap();
    assert_eq!(connection, Connection { online: false, since: second(100) });
    assert_eq!(connection.state(second(101), Duration::from_mins(3)), PresenceState::Away);
    queries.close().await;
}

#[tokio::test]
async fn a_page_is_read_from_where_it_begins() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    register(&database, 5_000, &[350_102, 360_100, 360_200, 370_100, 370_200]).await;
    let states: Vec<_> = (1..=5_000).map(|id| state(id, id)).collect();
    AlarmCommitter::new(database.clone()).checkpoint(&states, ArrivalNo(9)).await.unwrap();
    let presence = |state: &ElevatorState| PresenceRecord {
        terminal_id: state.terminal_id.clone(),
        online: true,
        reason: "connected".into(),
        since: second(100),
        last_seen: second(100),
        arrival_no: state.arrival.no,
    };
    database.presence_store(&states.iter().map(presence).collect::<Vec<_>>()).await.unwrap();
    sqlx::raw_sql("ANALYZE elevator, elevator_state, presence").execute(database.pool()).await.unwrap();
    let queries = queries(&database);
    let page = LatestStates { after: Some(ElevatorId(1_000)), ..question(FleetFilter::All) };
    let plan = queries.plan(&page).await.unwrap();
    assert!(plan.uses("elevator_state_pkey") && plan.uses("elevator_pkey"), "{:#}", plan.json);
    assert!(plan.uses("presence_pkey"), "{:#}", plan.json);
    assert!(plan.scanned.is_empty(), "{:#}", plan.json);
    assert!(
        queries.latest_states(&page).await.unwrap().states.iter().all(|state| state.connection.is_some())
    );
    queries.close().await;
}

#[test]
fn a_page_has_a_bound() {
    assert!(LatestStates { limit: 0, ..question(FleetFilter::All) }.check().is_err());
    assert!(
        LatestStates { limit: LatestStates::LIMIT_MAX + 1, ..question(FleetFilter::All) }.check().is_err()
    );
    let many = vec![ElevatorId(1); LatestStates::LIMIT_MAX as usize + 1];
    assert!(question(FleetFilter::Elevators(many)).check().is_err());
}
