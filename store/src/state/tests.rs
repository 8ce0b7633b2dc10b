use super::*;
use crate::AlarmCommitter;
use crate::testing::TestDatabase;

fn state(elevator: i64, arrival_no: i64) -> ElevatorState {
    let at = Timestamp::from_micros(1_800_000_000_000_000 + arrival_no);
    ElevatorState {
        elevator_id: ElevatorId(elevator),
        terminal_id: TerminalId::new("t-1").unwrap(),
        area: "050102".parse().unwrap(),
        online: Some(true),
        last_seen: Some(at),
        time: Some(at),
        service_mode: Some(ServiceMode::Normal),
        car_status: Some(CarStatus::Running),
        direction: Some(Direction::Up),
        door_zone: Some(false),
        door_state: Some(DoorState::Closed),
        passengers: None,
        people: Some(true),
        floor: Some("B1".into()),
        floor_ordinal: Some(-1),
        position_mm: Some(-3_000),
        velocity_mm_s: Some(1_750),
        load_kg: Some(225),
        people_count: Some(3),
        flags: Some(5),
        temperature_dc: Some(-25),
        vibration_mm_s2: Some(9),
        codes: vec!["E 7".into(), "5".into()],
        code_slugs: vec!["unknown_code".into(), "unintended_movement".into()],
        arrival: Arrival { no: ArrivalNo(arrival_no), at },
        changed: ArrivalNo(arrival_no),
        engine_version: 1,
        engine: r#"{"a": [1, 2]}"#.into(),
    }
}

async fn all(database: &Database) -> Vec<ElevatorState> {
    let mut found = vec![];
    database.state_load_all(|state| found.push(state)).await.unwrap();
    found.sort_by_key(|state| state.elevator_id);
    found
}

#[tokio::test]
async fn states_go_forward_only() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut committer = AlarmCommitter::new(database.clone());
    let mut blank = state(2, 7);
    (blank.online, blank.time, blank.floor, blank.service_mode) = (None, None, None, None);
    (blank.codes, blank.code_slugs) = (vec![], vec![]);
    // Unsorted, and one elevator twice.
    let states = [blank.clone(), state(1, 5), state(1, 9), state(1, 8)];
    committer.checkpoint(&states, ArrivalNo(6)).await.unwrap();
    assert_eq!(all(&database).await, [state(1, 9), blank.clone()]);
    assert_eq!(database.engine_position_get().await.unwrap(), ArrivalNo(6));

    let mut newer = state(2, 8);
    newer.time = Some(Timestamp::from_micros(i64::MAX));
    committer.checkpoint(&[state(1, 8), newer.clone()], ArrivalNo(5)).await.unwrap();
    newer.time = None;
    assert_eq!(all(&database).await, [state(1, 9), newer.clone()], "an older state changes nothing");
    assert_eq!(database.engine_position_get().await.unwrap(), ArrivalNo(6), "nor does an older position");
    assert_eq!(database.state_get(ElevatorId(2)).await.unwrap(), Some(newer));
    assert_eq!(database.state_get(ElevatorId(3)).await.unwrap(), None);
}

#[tokio::test]
async fn updates_of_states_can_stay_on_their_page() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut committer = AlarmCommitter::new(database.clone());
    // As in a city: a checkpoint saves a tenth of the fleet.
    let fleet = 1_i64..=1_000;
    let all: Vec<_> = fleet.clone().map(|elevator| state(elevator, 0)).collect();
    committer.checkpoint(&all, ArrivalNo(0)).await.unwrap();
    for round in 1..=40 {
        let some = fleet.clone().filter(|elevator| elevator % 10 == round % 10);
        let states: Vec<_> = some.map(|elevator| state(elevator, round)).collect();
        committer.checkpoint(&states, ArrivalNo(round)).await.unwrap();
    }
    drop(committer);
    let hot = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'elevator_state'";
    // Statistics arrive when the backend is idle or gone.
    for _ in 0..600 {
        let (updates, hot): (i64, i64) = sqlx::query_as(hot).fetch_one(database.pool()).await.unwrap();
        if updates == 40 * 100 {
            // Nine of ten when alone; neighbours that hold back the clean-up make it fewer. An index on a
            // column that changes would make it none.
            assert!(hot * 4 > updates, "{hot} of {updates}");
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("no statistics after 60 s");
}
