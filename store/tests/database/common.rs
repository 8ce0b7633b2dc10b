//! What several tests need.

use std::sync::Arc;

use domain::{
    Arrival, ArrivalNo, BootId, ElevatorId, EventBatch, Field, Message, Reading, Seq, TelemetryBatch,
    TerminalId, Timestamp,
};
use store::{Database, Incoming, Item, StoreMetrics, Writer};

/// Noon of a day: the same in every run.
pub(crate) fn noon() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

pub(crate) fn at_ms(ms: i64) -> Timestamp {
    Timestamp::from_micros(noon().micros() + ms * 1000)
}

pub(crate) fn terminal(name: &str) -> TerminalId {
    TerminalId::new(name).unwrap()
}

/// Reading `seq`, `seq` tenths of a second after noon, of a car in its floor.
pub(crate) fn reading(seq: i64) -> Reading {
    let mut reading = Reading::new(Seq(seq), at_ms(seq * 100));
    reading.position_mm = Field::Known(seq as i32 * 10);
    reading.load_kg = Field::Known(75);
    reading
}

pub(crate) fn telemetry(elevator: i64, arrival: i64, readings: Vec<Reading>) -> Item {
    let batch = TelemetryBatch {
        boot: BootId(7),
        sent: readings.last().map(|reading| reading.time),
        prev_boot_last_seq: None,
        dropped: None,
        readings,
    };
    item(elevator, arrival, Message::Telemetry(batch))
}

pub(crate) fn events(elevator: i64, arrival: i64, batch: EventBatch) -> Item {
    item(elevator, arrival, Message::Event(batch))
}

/// From the terminal of the elevator's number, arrived a minute after noon.
pub(crate) fn item(elevator: i64, arrival: i64, message: Message) -> Item {
    Item::Message(Incoming {
        elevator_id: ElevatorId(elevator),
        terminal_id: terminal(&format!("t{elevator}")),
        arrival: Arrival { no: ArrivalNo(arrival), at: at_ms(60_000) },
        message: Arc::new(message),
    })
}

pub(crate) fn writer(database: &Database) -> Writer {
    Writer::new(database, Arc::new(StoreMetrics::default()))
}

pub(crate) async fn count(database: &Database, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(database.pool()).await.unwrap()
}

/// How many things are in quarantine for this reason.
pub(crate) async fn quarantined(database: &Database, reason: &str) -> i64 {
    let counts = database.quarantine_counts().await.unwrap();
    counts.iter().find(|(name, _)| name == reason).map_or(0, |(_, count)| *count)
}

/// Rows of (telemetry_1m, telemetry_1h) that are not what the readings stored say, and the other way round.
pub(crate) async fn rollup_differences(database: &Database) -> (i64, i64) {
    let differences = |table: &str, unit: &str| {
        format!(
            "WITH direct AS (
                 SELECT time_bucket(INTERVAL '1 {unit}', time) AS bucket, elevator_id, count(*) AS readings,
                        count(*) FILTER (WHERE car_status = 1) AS running,
                        count(*) FILTER (WHERE door_state = 4) AS door_open,
                        max(abs(velocity_mm_s)) AS velocity, max(vibration_mm_s2) AS vibration,
                        max(load_kg) AS load, max(temperature_dc) AS temperature
                 FROM telemetry
                 GROUP BY 1, 2
             ), kept AS (
                 SELECT bucket, elevator_id, readings, running, door_open, velocity_mm_s_max, vibration_mm_s2_max,
                        load_kg_max, temperature_dc_max
                 FROM {table}
             )
             SELECT count(*)
             FROM ((TABLE direct EXCEPT TABLE kept) UNION ALL (TABLE kept EXCEPT TABLE direct)) AS differing"
        )
    };
    let count = async |sql: String| -> i64 {
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(database.pool()).await.unwrap()
    };
    (count(differences("telemetry_1m", "minute")).await, count(differences("telemetry_1h", "hour")).await)
}

/// The first write of a ledger's start catches up with the rows that are there.
pub(crate) async fn caught_up(metrics: &store::LedgerMetrics) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while metrics.writes.get() == 0 {
        assert!(std::time::Instant::now() < deadline, "{metrics:?}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// Waits until something is so.
pub(crate) async fn eventually(is_so: impl AsyncFn() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !is_so().await {
        assert!(std::time::Instant::now() < deadline, "it never came to that");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}
