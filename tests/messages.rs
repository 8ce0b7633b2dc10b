//! Statistics, lists of active faults and clocks, from `mosquitto_pub` to the rows.

use domain::{ArrivalNo, ClosedBy, Counter, ElevatorId, Message, OpenedBy, Timestamp};
use store::testing::TestDatabase;
use store::{Database, FaultPeriodRecord, Incoming, recovery};

use crate::harness::{Server, mosquitto_pub, now};

async fn publish(server: &Server, channel: &str, payload: &str) {
    let topic = format!("lift/v1/350102/t1/{channel}");
    let published = mosquitto_pub(server.addresses.broker, "t1", &topic, payload.as_bytes()).await;
    assert!(published.status.success(), "{published:?}");
}

fn stretch() -> (Timestamp, Timestamp) {
    let now = Timestamp::from(time::OffsetDateTime::now_utc());
    let hour = std::time::Duration::from_hours(1);
    (now.minus(hour), now.plus(hour))
}

async fn elevator(database: &Database) -> ElevatorId {
    let listed = database.elevator_list(None, None, 2).await.expect("the list");
    assert_eq!(listed.len(), 1, "one terminal has registered itself");
    listed[0].elevator_id
}

#[tokio::test]
async fn counters_that_are_reset_add_up() {
    let test = TestDatabase::new().await;
    let server = Server::start(test.url()).await;
    let counted = |seq, runs, kwh: f64| {
        format!(r#"{{"boot":1,"seq":{seq},"time":"{}","run_count":{runs},"energy_kwh":{kwh}}}"#, now())
    };
    let second = counted(2, 1_040, 80.75);
    for payload in [&counted(1, 1_000, 80.5), &second, &counted(3, 4, 0.5), &counted(4, 10, 1.0), &second] {
        publish(&server, "stats.json", payload).await;
    }
    // Acknowledged, so committed: nothing to wait for.
    let database = test.open().await;
    let (from, to) = stretch();
    let found = database.statistics_totals(elevator(&database).await, from, to).await.expect("totals");
    assert_eq!(found.totals.get(Counter::RunCount), Some(40 + 6));
    assert_eq!(found.totals.get(Counter::EnergyWh), Some(250 + 500));
    let samples: Vec<_> = found.segments.iter().map(|one| one.segment.samples).collect();
    assert_eq!(samples, [2, 2], "two segments, and the redelivery is no sample");
}

#[tokio::test]
async fn a_list_after_a_reconnect_closes_what_vanished_and_opens_what_is_missing() {
    let test = TestDatabase::new().await;
    let server = Server::start(test.url()).await;
    let at = now();
    let open = format!(
        r#"{{"boot":1,"sent":"{at}","seq":1,"time":"{at}","code":"unintended_movement","state":"open"}}"#
    );
    publish(&server, "event.json", &open).await;
    let database = test.open().await;
    let elevator = elevator(&database).await;
    let open_now = async || database.faults_open(elevator).await.expect("open faults");
    let slugs = |records: &[FaultPeriodRecord]| -> Vec<&'static str> {
        records.iter().map(|record| record.period.code.fault.slug).collect()
    };
    assert_eq!(slugs(&open_now().await), ["unintended_movement"]);

    // Each mosquitto_pub is a connection of its own: the terminal was away, and says what is active now.
    publish(&server, "event.json", r#"{"boot":1,"active":["entrapment"]}"#).await;
    let open_after = open_now().await;
    assert_eq!(slugs(&open_after), ["entrapment"]);
    assert_eq!(open_after[0].period.opened_by, OpenedBy::List);
    let (from, to) = stretch();
    let all = database.fault_periods(elevator, from, to).await.expect("periods");
    assert_eq!(all[0].period.closed_by, Some(ClosedBy::List));

    // The rules agree: the fault that vanished no longer holds its alarm, the missing one has begun.
    crate::harness::eventually("the alarms follow the list", async || {
        let (_, page) = server.get("/api/v1/alarms").await;
        let page: serde_json::Value = serde_json::from_str(&page).ok()?;
        let alarms = page["items"].as_array()?;
        let of = |kind: &str| alarms.iter().find(|alarm| alarm["kind"] == kind);
        let vanished = of("unintended_movement")?;
        (!vanished["cleared"].is_null() && of("entrapment").is_some()).then_some(())
    })
    .await;

    // Sent again, both: nothing changes.
    publish(&server, "event.json", &open).await;
    publish(&server, "event.json", r#"{"boot":1,"active":["entrapment"]}"#).await;
    assert_eq!(database.fault_periods(elevator, from, to).await.expect("periods"), all);
}

#[tokio::test]
async fn both_times_are_kept_and_an_impossible_one_is_quarantined_and_counted() {
    let test = TestDatabase::new().await;
    let server = Server::start(test.url()).await;
    publish(&server, "telemetry.json", r#"{"seq":1,"time":"1999-01-01T00:00:00Z","floor":"1"}"#).await;
    publish(&server, "telemetry.json", r#"{"seq":2,"time":"2222-01-01T00:00:00Z","floor":"1"}"#).await;
    publish(&server, "telemetry.json", &format!(r#"{{"seq":3,"time":"{}","floor":"1"}}"#, now())).await;
    let (_, metrics) = server.get("/metrics").await;
    for reason in ["too_old", "future"] {
        let line = format!(r#"liftwatch_store_quarantined_total{{reason="{reason}"}} 1"#);
        assert!(metrics.contains(&line), "{line} in {metrics}");
    }
    let database = test.open().await;
    let kept = recovery::rows_after(&database, ArrivalNo(0)).all().await.expect("rows");
    let [Incoming { arrival, message, .. }] = kept.as_slice() else { panic!("one row of {kept:?}") };
    let Message::Telemetry(batch) = &**message else { panic!("a reading in {message:?}") };
    assert!(arrival.at > batch.readings[0].time, "server time and device time are kept");
}
