//! The questions on a real database: what they answer, and which way the planner takes.

mod bounds;
mod faults;
mod hosts;
mod minute;
mod series;
mod states;

use std::sync::Arc;
use std::time::Duration;

use domain::{
    Arrival, ArrivalNo, BootId, ElevatorId, Field, Message, Reading, Seq, TelemetryBatch, TerminalId,
    Timestamp,
};

use super::*;
use crate::testing::TestDatabase;
use crate::{Incoming, Item, StoreMetrics, Writer};

/// 2027-01-15T08:00:00Z.
const BEGIN: Timestamp = Timestamp::from_millis(1_800_000_000_000);

fn second(second: u64) -> Timestamp {
    BEGIN.plus(Duration::from_secs(second))
}

fn queries(database: &Database) -> Queries {
    Queries::new(database, &QueryConfig::default(), Arc::default())
}

fn incoming(elevator: i64, boot: u32, readings: Vec<Reading>) -> Item {
    let at = readings[readings.len() - 1].time;
    Item::Message(Incoming {
        elevator_id: ElevatorId(elevator),
        terminal_id: TerminalId::new(&format!("t-{elevator}")).unwrap(),
        arrival: Arrival { no: ArrivalNo(at.micros()), at },
        message: Arc::new(Message::Telemetry(TelemetryBatch {
            boot: BootId(boot),
            sent: Some(at),
            prev_boot_last_seq: None,
            dropped: None,
            readings,
        })),
    })
}

async fn store(database: &Database, items: &[Item]) {
    let report = Writer::new(database, Arc::new(StoreMetrics::default())).commit(items).await.unwrap();
    assert_eq!(report.quarantined, 0);
}

/// Elevators 1 to `count`, in the areas in turn.
async fn register(database: &Database, count: i64, areas: &[i32]) {
    sqlx::query(
        "INSERT INTO elevator (elevator_id, area)
         SELECT id, ($2::int4[])[1 + (id - 1) % cardinality($2)]
         FROM generate_series(1, $1) AS id",
    )
    .bind(count)
    .bind(areas)
    .execute(database.pool())
    .await
    .unwrap();
}

/// Any statement.
struct Any(&'static str);

impl Question for Any {
    fn check(&self) -> Result<(), QueryError> {
        Ok(())
    }

    fn statement(&self, prefix: &str) -> PgQuery {
        sqlx::query(sqlx::AssertSqlSafe(format!("{prefix}{}", self.0)))
    }
}

/// A reading of nothing but a position.
fn at_height(seq: i64, at: Timestamp, position: Field<i32>) -> Reading {
    let mut reading = Reading::new(Seq(seq), at);
    reading.position_mm = position;
    reading
}
