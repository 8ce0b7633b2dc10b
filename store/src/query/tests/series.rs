use domain::{Code, Counter, EventBatch, EventState, FaultEvent, Statistics};
use proptest::prelude::*;
use proptest::strategy::ValueTree;

use super::*;

fn question(seconds: u64, points: usize) -> ElevatorSeries {
    ElevatorSeries {
        elevator_id: ElevatorId(1),
        from: BEGIN,
        to: second(seconds),
        points,
        fields: vec![SeriesField::PositionMm],
    }
}

fn values(series: &Series) -> Vec<(u64, Option<i32>)> {
    let at = |point: &Point| (point.time.since(BEGIN).as_secs(), point.value);
    series.fields[0].points.iter().map(at).collect()
}

/// Height by second, numbered from 1.
fn readings(heights: &[(u64, Field<i32>)]) -> Vec<Reading> {
    (1..).zip(heights).map(|(seq, (at, height))| at_height(seq, second(*at), *height)).collect()
}

#[tokio::test]
async fn few_readings_come_as_they_are() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let sent = [
        (1, Field::Known(5)),
        (2, Field::Absent),
        (3, Field::Unknown),
        (4, Field::Known(-7)),
        (10, Field::Known(9)),
    ];
    store(&database, &[incoming(1, 1, readings(&sent))]).await;
    let queries = queries(&database);
    let series = queries.elevator_series(&question(10, 10)).await.unwrap();
    assert_eq!(series.resolution, Resolution::Reading);
    // What is absent is no point, what is unknown is one without a value, the end is not part of the span.
    assert_eq!(values(&series), [(1, Some(5)), (3, None), (4, Some(-7))]);
    assert_eq!(series.fields[0].before, None);
    let later = ElevatorSeries { from: second(4), ..question(100, 10) };
    let series = queries.elevator_series(&later).await.unwrap();
    assert_eq!(values(&series), [(4, Some(-7)), (10, Some(9))]);
    assert_eq!(series.fields[0].before, Some(Point { time: second(3), value: None }));
    let nobody = ElevatorSeries { elevator_id: ElevatorId(2), ..question(10, 10) };
    assert!(values(&queries.elevator_series(&nobody).await.unwrap()).is_empty());
    queries.close().await;
}

#[tokio::test]
async fn what_a_new_boot_or_a_hole_leaves_out_is_unknown() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let height = |seq, at, height| at_height(seq, second(at), height);
    let code = Code::canonical("door_open_long").unwrap();
    let event = FaultEvent { seq: Seq(3), time: second(25), code, state: EventState::Open };
    let events = EventBatch { boot: BootId(1), sent: Some(second(25)), events: vec![event], active: None };
    let event = Incoming {
        elevator_id: ElevatorId(1),
        terminal_id: TerminalId::new("t-1").unwrap(),
        arrival: Arrival { no: ArrivalNo(25), at: second(25) },
        message: Arc::new(Message::Event(events)),
    };
    let first = vec![
        height(1, 10, Field::Known(1)),
        height(2, 20, Field::Absent),
        // 3 was an event, 5 is missing.
        height(4, 30, Field::Absent),
        height(6, 40, Field::Absent),
        height(7, 45, Field::Known(2)),
    ];
    let rebooted = vec![height(1, 50, Field::Absent), height(2, 60, Field::Known(3))];
    store(&database, &[incoming(1, 1, first), incoming(1, 2, rebooted), Item::Message(event)]).await;
    let queries = queries(&database);
    let series = queries.elevator_series(&question(100, 10)).await.unwrap();
    let expected = [(10, Some(1)), (40, None), (45, Some(2)), (50, None), (60, Some(3))];
    assert_eq!(values(&series), expected);
    queries.close().await;
}

/// Counters of elevator 1, a message of their own.
fn counters(boot: u32, seq: i64, at: u64) -> Item {
    let counters = [(Counter::RunCount, seq)].into_iter().collect();
    let time = second(at);
    let statistics = Statistics { boot: BootId(boot), sent: Some(time), seq: Seq(seq), time, counters };
    Item::Message(Incoming {
        elevator_id: ElevatorId(1),
        terminal_id: TerminalId::new("t-1").unwrap(),
        arrival: Arrival { no: ArrivalNo(time.micros()), at: time },
        message: Arc::new(Message::Statistics(statistics)),
    })
}

#[tokio::test]
async fn statistics_make_no_hole_and_hide_none() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let height = |seq, at, height| at_height(seq, second(at), height);
    let first = vec![
        height(1, 10, Field::Known(1)),
        // 2 and 3 were counters.
        height(4, 20, Field::Absent),
        height(5, 30, Field::Known(2)),
        // 6 is missing, 7 were counters.
        height(8, 40, Field::Absent),
        height(9, 50, Field::Known(3)),
    ];
    // Its first were counters.
    let rebooted = vec![height(2, 60, Field::Absent), height(3, 70, Field::Absent)];
    let counted = [counters(1, 2, 12), counters(1, 3, 14), counters(1, 7, 35), counters(2, 1, 55)];
    store(&database, &[&[incoming(1, 1, first), incoming(1, 2, rebooted)], &counted[..]].concat()).await;
    let queries = queries(&database);
    let series = queries.elevator_series(&question(100, 10)).await.unwrap();
    let expected = [(10, Some(1)), (30, Some(2)), (40, None), (50, Some(3)), (60, None)];
    assert_eq!(values(&series), expected);
    // A stretch that begins with counters says nothing of what was before.
    let later = ElevatorSeries { from: second(800), to: second(900), ..question(0, 10) };
    store(&database, &[counters(3, 1, 795), incoming(1, 3, vec![height(2, 810, Field::Absent)])]).await;
    assert!(values(&queries.elevator_series(&later).await.unwrap()).is_empty());
    queries.close().await;
}

#[tokio::test]
async fn fields_are_chosen_each_for_itself() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut all = readings(&(0..1_000).map(|at| (at, Field::Known(0))).collect::<Vec<_>>());
    all[500].position_mm = Field::Known(9_999);
    for reading in all.iter_mut().step_by(100) {
        reading.load_kg = Field::Known(75);
    }
    store(&database, &[incoming(1, 1, all)]).await;
    let queries = queries(&database);
    let fields = vec![SeriesField::LoadKg, SeriesField::PositionMm];
    let asked = ElevatorSeries { fields, ..question(1_000, 40) };
    let series = queries.elevator_series(&asked).await.unwrap();
    let [load, position] = &series.fields[..] else { panic!("two fields") };
    assert_eq!((load.field, load.points.len()), (SeriesField::LoadKg, 10));
    assert!(load.points.iter().all(|point| point.value == Some(75)));
    assert!(position.points.len() <= 40);
    assert!(position.points.contains(&Point { time: second(500), value: Some(9_999) }));
    queries.close().await;
}

#[tokio::test]
async fn the_database_chooses_as_the_reference_does() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let queries = queries(&database);
    // A seed of its own for each elevator, the same in every run.
    for elevator in 1..=8_i64 {
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let height = prop_oneof![1 => Just(Field::Unknown), 2 => Just(Field::Absent), 20 => (-40..40).prop_map(Field::Known)];
        let heights = proptest::collection::vec((0..5_000_u64, height), 100 * elevator as usize);
        let mut heights = heights.new_tree(&mut runner).unwrap().current();
        heights.sort_by_key(|(at, _)| *at);
        let all = readings(&heights);
        store(&database, &[incoming(elevator, 1, all.clone())]).await;
        let points: Vec<_> = all
            .iter()
            .filter(|reading| reading.position_mm.is_sent())
            .map(|reading| Point { time: reading.time, value: reading.position_mm.known() })
            .collect();
        let asked = ElevatorSeries { elevator_id: ElevatorId(elevator), ..question(5_000, 80) };
        let series = queries.elevator_series(&asked).await.unwrap();
        let reference = if points.len() > 80 {
            let stretch = u64::try_from(series.stretch.as_micros()).unwrap();
            downsample::bounded(m4(&points, BEGIN, stretch), BEGIN, asked.to, 80)
        } else {
            points
        };
        assert_eq!(series.fields[0].points, reference, "elevator {elevator}");
    }
    queries.close().await;
}

#[tokio::test]
async fn long_spans_are_answered_by_the_minute() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut all = readings(&[(0, Field::Known(1)), (3_600, Field::Known(1)), (90_000, Field::Known(1))]);
    all[0].velocity_mm_s = Field::Known(-2_500);
    all[2].velocity_mm_s = Field::Known(100);
    store(&database, &[incoming(1, 1, all)]).await;
    database.maintenance_run(second(100_000)).await.unwrap();
    let queries = queries(&database);
    let days = ElevatorSeries { fields: vec![SeriesField::VelocityMmS], ..question(5 * 86_400, 100) };
    let series = queries.elevator_series(&days).await.unwrap();
    assert_eq!(series.resolution, Resolution::Minute);
    assert_eq!(
        values(&series),
        [(0, Some(2_500)), (90_000, Some(100))],
        "amounts, and no minute without any"
    );
    let weeks = ElevatorSeries { to: second(20 * 86_400), ..days.clone() };
    let series = queries.elevator_series(&weeks).await.unwrap();
    assert_eq!(series.resolution, Resolution::Hour);
    assert_eq!(values(&series), [(0, Some(2_500)), (90_000, Some(100))]);
    let position = ElevatorSeries { fields: vec![SeriesField::PositionMm], ..days };
    assert!(matches!(queries.elevator_series(&position).await, Err(QueryError::Invalid(_))));
    queries.close().await;
}

#[tokio::test]
async fn a_short_span_of_long_ago_is_answered_by_what_is_left() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut all = readings(&[(10, Field::Known(1)), (90_000, Field::Known(1))]);
    all[0].velocity_mm_s = Field::Known(-2_500);
    store(&database, &[incoming(1, 1, all)]).await;
    database.maintenance_run(second(100_000)).await.unwrap();
    let queries = queries(&database);
    // It begins within a minute, which counts as a whole.
    let asked =
        ElevatorSeries { from: second(30), fields: vec![SeriesField::VelocityMmS], ..question(3_600, 100) };
    let gone = async |table: &'static str, area: i32| {
        sqlx::query("INSERT INTO retention_mark (table_name, area, floor) VALUES ($1, $2, $3)")
            .bind(table)
            .bind(area)
            .bind(second(86_400).to_utc())
            .execute(database.pool())
            .await
            .unwrap();
        let series = queries.elevator_series(&asked).await.unwrap();
        let points: Vec<_> = series.fields[0].points.iter().map(|point| point.value).collect();
        (series.resolution, points)
    };
    assert_eq!(gone("telemetry", 111_111).await, (Resolution::Reading, vec![]), "that is elsewhere");
    sqlx::raw_sql(
        "INSERT INTO elevator (elevator_id, area) VALUES (1, 111111);
         UPDATE elevator SET area = 222222",
    )
    .execute(database.pool())
    .await
    .unwrap();
    let moved = queries.elevator_series(&asked).await.unwrap();
    assert_eq!(moved.resolution, Resolution::Minute, "that was where it was before");
    sqlx::query("DELETE FROM elevator").execute(database.pool()).await.unwrap();
    assert_eq!(gone("telemetry", -1).await, (Resolution::Minute, vec![Some(2_500)]));
    assert_eq!(gone("telemetry_1m", -1).await, (Resolution::Hour, vec![Some(2_500)]));
    let height = ElevatorSeries { fields: vec![SeriesField::PositionMm], ..asked.clone() };
    let series = queries.elevator_series(&height).await.unwrap();
    assert_eq!(series.resolution, Resolution::Reading, "nothing else has it");
    queries.close().await;
}

#[tokio::test]
async fn a_day_is_read_by_the_key_of_its_chunks() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    // Four chunks of 1,500 rows, 100 elevators.
    for hours in [0, 6, 12, 18] {
        let items: Vec<_> = (1..=100)
            .map(|elevator| {
                let at = |n: u64| second(hours * 3_600 + n * 60);
                let readings = (0..15).map(|n| at_height((hours + n).cast_signed(), at(n), Field::Known(1)));
                incoming(elevator, 1, readings.collect())
            })
            .collect();
        store(&database, &items).await;
    }
    sqlx::raw_sql("ANALYZE telemetry, fault").execute(database.pool()).await.unwrap();
    let queries = queries(&database);
    let asked = ElevatorSeries { from: second(6 * 3_600), to: second(18 * 3_600), ..question(0, 100) };
    let plan = queries.plan(&asked).await.unwrap();
    assert!(plan.uses("telemetry_pkey"), "{:#}", plan.json);
    assert!(plan.scanned.is_empty(), "{:#}", plan.json);
    // The ten minutes before lie in a third.
    assert_eq!(plan.relations.iter().filter(|name| name.contains("_chunk")).count(), 3, "{:#}", plan.json);
    queries.close().await;
}

#[test]
fn what_makes_no_sense_is_refused() {
    let refused = |question: ElevatorSeries| assert!(question.check().is_err(), "{question:?}");
    let good = question(10, 100);
    assert!(good.check().is_ok());
    refused(ElevatorSeries { to: BEGIN, ..good.clone() });
    refused(ElevatorSeries { from: Timestamp::from_micros(i64::MIN), ..good.clone() });
    refused(ElevatorSeries { points: 9, ..good.clone() });
    refused(ElevatorSeries { points: 2_001, ..good.clone() });
    refused(ElevatorSeries { fields: vec![], ..good.clone() });
    refused(ElevatorSeries { fields: vec![SeriesField::LoadKg; 2], ..good.clone() });
    refused(ElevatorSeries { to: second(86_400 * 366 * 6), fields: vec![SeriesField::LoadKg], ..good });
    assert_eq!("load_kg".parse::<SeriesField>().unwrap(), SeriesField::LoadKg);
    assert!("engine".parse::<SeriesField>().is_err());
}
