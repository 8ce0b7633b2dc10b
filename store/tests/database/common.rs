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
