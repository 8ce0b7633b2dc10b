//! Readings for the benchmarks.

use std::sync::Arc;

use domain::{
    Arrival, ArrivalNo, BootId, CarStatus, Direction, DoorState, ElevatorId, Field, Floor, Message,
    Passengers, Reading, Seq, ServiceMode, TelemetryBatch, TerminalId, Timestamp,
};
use store::Incoming;

/// Message `n` of a fleet of `lifts` running lifts, one reading each, from `begin` on.
pub(crate) fn incoming(n: i64, lifts: i64, begin: Timestamp) -> Incoming {
    let lift = n % lifts;
    let at = begin.plus(std::time::Duration::from_micros(n.cast_unsigned() * 100));
    let mut reading = Reading::new(Seq(1 + n / lifts), at);
    reading.service_mode = Field::Known(ServiceMode::Normal);
    reading.car_status = Field::Known(CarStatus::Running);
    reading.direction = Field::Known(Direction::Up);
    reading.door_zone = Field::Known(false);
    reading.door_state = Field::Known(DoorState::Closed);
    reading.passengers = Field::Known(Passengers::Yes);
    reading.floor = Floor::new("12").map_or(Field::Absent, Field::Known);
    reading.position_mm = Field::Known(33_250);
    reading.velocity_mm_s = Field::Known(1_750);
    reading.load_kg = Field::Known(225);
    Incoming {
        elevator_id: ElevatorId(1 + lift),
        terminal_id: TerminalId::new(&format!("bench-{lift:06}")).expect("a terminal id"),
        arrival: Arrival { no: ArrivalNo(1 + n), at },
        message: Arc::new(Message::Telemetry(TelemetryBatch {
            boot: BootId(1),
            sent: Some(at),
            prev_boot_last_seq: None,
            dropped: None,
            readings: vec![reading],
        })),
    }
}
