//! Elevators as the outside reads them: what is registered, and the latest state without the engine's memory.

use domain::{
    Area, CarStatus, Direction, DoorState, ElevatorId, Passengers, RangeError, ServiceMode, TerminalId,
    Timestamp,
};
use sqlx::Row;
use sqlx::postgres::PgRow;
use time::OffsetDateTime;

use crate::{Database, StoreError};

/// An elevator of the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ElevatorRecord {
    /// The elevator.
    pub elevator_id: ElevatorId,
    /// Its division.
    pub area: Area,
    /// What people call it.
    pub name: Option<String>,
    /// Registration code (注册代码).
    pub registration_code: Option<String>,
    /// Once its terminal has sent something.
    pub latest: Option<LatestState>,
}

/// The latest that is known of an elevator; `None` is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LatestState {
    /// The terminal that spoke last.
    pub terminal_id: TerminalId,
    /// Whether it is connected, once that is known.
    pub online: Option<bool>,
    /// The last sign of life (server clock).
    pub last_seen: Option<Timestamp>,
    /// When the message arrived that this covers (server clock).
    pub arrived: Timestamp,
    /// Device time of the latest live reading.
    pub time: Option<Timestamp>,
    /// Service mode.
    pub service_mode: Option<ServiceMode>,
    /// Moving or not.
    pub car_status: Option<CarStatus>,
    /// Direction of travel.
    pub direction: Option<Direction>,
    /// Car within the unlocking zone.
    pub door_zone: Option<bool>,
    /// Door.
    pub door_state: Option<DoorState>,
    /// Somebody in the car, raw.
    pub passengers: Option<Passengers>,
    /// Somebody in the car, as the rules judge (锁存).
    pub people: Option<bool>,
    /// Displayed floor.
    pub floor: Option<String>,
    /// Floor counted from the lowest stop.
    pub floor_ordinal: Option<i16>,
    /// Height above the lowest stop, mm.
    pub position_mm: Option<i32>,
    /// Speed, mm/s, up positive.
    pub velocity_mm_s: Option<i32>,
    /// Load, kg.
    pub load_kg: Option<i16>,
    /// Active codes, as sent.
    pub codes: Vec<String>,
    /// Their meanings, in the same order.
    pub code_slugs: Vec<String>,
}

impl Database {
    /// At most `limit` elevators after one, in the order of their ids; of a region, or of all.
    pub async fn elevator_list(
        &self,
        region: Option<Area>,
        after: Option<ElevatorId>,
        limit: u32,
    ) -> Result<Vec<ElevatorRecord>, StoreError> {
        let areas = region.map(Area::covered);
        let first = areas.as_ref().map(|areas| areas.start().cast_signed());
        let last = areas.as_ref().map(|areas| areas.end().cast_signed());
        let rows = sqlx::query(
            "SELECT elevator.elevator_id, elevator.area, elevator.name, elevator.registration_code,
                state.terminal_id, state.online, state.last_seen, state.arrived, state.time,
                state.service_mode, state.car_status, state.direction, state.door_zone, state.door_state,
                state.passengers, state.floor, state.floor_ordinal, state.position_mm, state.velocity_mm_s,
                state.load_kg, state.people, state.codes, state.code_slugs
            FROM elevator
            LEFT JOIN elevator_state AS state ON state.elevator_id = elevator.elevator_id
            WHERE elevator.elevator_id > $1
                AND ($2::integer IS NULL OR elevator.area BETWEEN $2 AND $3)
            ORDER BY elevator.elevator_id
            LIMIT $4",
        )
        .bind(after.map_or(i64::MIN, |id| id.0))
        .bind(first)
        .bind(last)
        .bind(i64::from(limit))
        .fetch_all(self.pool())
        .await?;
        rows.iter().map(record).collect()
    }

    /// One elevator.
    pub async fn elevator_get(&self, id: ElevatorId) -> Result<Option<ElevatorRecord>, StoreError> {
        // Ids are whole numbers: the one after id - 1 is id, if it exists.
        let Some(before) = id.0.checked_sub(1) else { return Ok(None) };
        let next = self.elevator_list(None, Some(ElevatorId(before)), 1).await?;
        Ok(next.into_iter().find(|record| record.elevator_id == id))
    }
}

fn record(row: &PgRow) -> Result<ElevatorRecord, StoreError> {
    let area: i32 = row.try_get("area")?;
    let area = u32::try_from(area).ok().and_then(|area| Area::from_number(area).ok());
    let terminal: Option<&str> = row.try_get("terminal_id")?;
    let terminal = terminal.map(TerminalId::new).transpose();
    let terminal = terminal.map_err(|error| StoreError::Corrupt(error.to_string()))?;
    Ok(ElevatorRecord {
        elevator_id: ElevatorId(row.try_get("elevator_id")?),
        area: area.ok_or_else(|| StoreError::Corrupt("area of an elevator".to_owned()))?,
        name: row.try_get("name")?,
        registration_code: row.try_get("registration_code")?,
        latest: terminal.map(|terminal| latest(row, terminal)).transpose()?,
    })
}

pub(crate) fn latest(row: &PgRow, terminal_id: TerminalId) -> Result<LatestState, StoreError> {
    let at = |column| row.try_get::<Option<OffsetDateTime>, _>(column).map(|at| at.map(Timestamp::from));
    let arrived: OffsetDateTime = row.try_get("arrived")?;
    Ok(LatestState {
        terminal_id,
        online: row.try_get("online")?,
        last_seen: at("last_seen")?,
        arrived: arrived.into(),
        time: at("time")?,
        service_mode: wire(row, "service_mode")?,
        car_status: wire(row, "car_status")?,
        direction: wire(row, "direction")?,
        door_zone: row.try_get("door_zone")?,
        door_state: wire(row, "door_state")?,
        passengers: wire(row, "passengers")?,
        people: row.try_get("people")?,
        floor: row.try_get("floor")?,
        floor_ordinal: row.try_get("floor_ordinal")?,
        position_mm: row.try_get("position_mm")?,
        velocity_mm_s: row.try_get("velocity_mm_s")?,
        load_kg: row.try_get("load_kg")?,
        codes: row.try_get("codes")?,
        code_slugs: row.try_get("code_slugs")?,
    })
}

/// A number of the wire as its type.
fn wire<T: TryFrom<i64, Error = RangeError>>(row: &PgRow, column: &str) -> Result<Option<T>, StoreError> {
    let number: Option<i16> = row.try_get(column)?;
    let value = number.map(|number| T::try_from(i64::from(number))).transpose();
    value.map_err(|error| StoreError::Corrupt(error.to_string()))
}
