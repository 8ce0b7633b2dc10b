//! The latest state of every elevator, the engine's memory, and the arrivals they cover.
//!
//! Promises that a row never goes back to an older arrival, and that everything up to the engine's position
//! is covered by the rows. Does not look into the engine's memory: it is JSON of the engine's own.

use std::collections::HashMap;

use domain::{
    Area, Arrival, ArrivalNo, CarStatus, Direction, DoorState, ElevatorId, Passengers, RangeError,
    ServiceMode, TerminalId, Timestamp,
};
use futures_util::TryStreamExt;
use sqlx::PgConnection;
use time::OffsetDateTime;

use crate::{Database, StoreError};

/// What is known about an elevator now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ElevatorState {
    /// The elevator.
    pub elevator_id: ElevatorId,
    /// The terminal that spoke last.
    pub terminal_id: TerminalId,
    /// Its division.
    pub area: Area,
    /// Whether its terminals are connected; `None` where presence was never told.
    pub online: Option<bool>,
    /// The last sign of life (server clock).
    pub last_seen: Option<Timestamp>,
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
    /// People counted.
    pub people_count: Option<i16>,
    /// Contacts.
    pub flags: Option<i32>,
    /// Car temperature, tenths of a degree Celsius.
    pub temperature_dc: Option<i16>,
    /// Vibration, mm/s².
    pub vibration_mm_s2: Option<i32>,
    /// Active codes, as sent.
    pub codes: Vec<String>,
    /// Their meanings, in the same order.
    pub code_slugs: Vec<String>,
    /// The message that all of this covers.
    pub arrival: Arrival,
    /// Its latest change in the order of arrivals: later than `arrival` where a deadline made it. The engine's
    /// position was before it until this was saved.
    pub changed: ArrivalNo,
    /// Which engine wrote `engine`.
    pub engine_version: i32,
    /// The engine's memory, as JSON.
    pub engine: String,
}

#[derive(sqlx::FromRow)]
struct StateRow {
    elevator_id: i64,
    arrival_no: i64,
    changed_no: i64,
    arrived: OffsetDateTime,
    last_seen: Option<OffsetDateTime>,
    time: Option<OffsetDateTime>,
    position_mm: Option<i32>,
    velocity_mm_s: Option<i32>,
    area: i32,
    flags: Option<i32>,
    vibration_mm_s2: Option<i32>,
    engine_version: i32,
    service_mode: Option<i16>,
    car_status: Option<i16>,
    direction: Option<i16>,
    door_state: Option<i16>,
    passengers: Option<i16>,
    floor_ordinal: Option<i16>,
    load_kg: Option<i16>,
    people_count: Option<i16>,
    temperature_dc: Option<i16>,
    online: Option<bool>,
    door_zone: Option<bool>,
    people: Option<bool>,
    terminal_id: String,
    floor: Option<String>,
    codes: Vec<String>,
    code_slugs: Vec<String>,
    engine: String,
}

/// A value that only we write is not what we write.
fn corrupt(column: &'static str, found: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt(format!("elevator_state.{column}: {found}"))
}

fn area(number: i32) -> Result<Area, StoreError> {
    u32::try_from(number)
        .ok()
        .and_then(|number| Area::from_number(number).ok())
        .ok_or_else(|| corrupt("area", number))
}

impl TryFrom<StateRow> for ElevatorState {
    type Error = StoreError;
    fn try_from(row: StateRow) -> Result<Self, StoreError> {
        fn wire<T: TryFrom<i64, Error = RangeError>>(
            column: &'static str,
            value: Option<i16>,
        ) -> Result<Option<T>, StoreError> {
            value
                .map(|value| T::try_from(i64::from(value)))
                .transpose()
                .map_err(|error| corrupt(column, error))
        }
        Ok(Self {
            elevator_id: ElevatorId(row.elevator_id),
            terminal_id: TerminalId::new(&row.terminal_id).map_err(|error| corrupt("terminal_id", error))?,
            area: area(row.area)?,
            online: row.online,
            last_seen: row.last_seen.map(Timestamp::from),
            time: row.time.map(Timestamp::from),
            service_mode: wire("service_mode", row.service_mode)?,
            car_status: wire("car_status", row.car_status)?,
            direction: wire("direction", row.direction)?,
            door_zone: row.door_zone,
            door_state: wire("door_state", row.door_state)?,
            passengers: wire("passengers", row.passengers)?,
            people: row.people,
            floor: row.floor,
            floor_ordinal: row.floor_ordinal,
            position_mm: row.position_mm,
            velocity_mm_s: row.velocity_mm_s,
            load_kg: row.load_kg,
            people_count: row.people_count,
            flags: row.flags,
            temperature_dc: row.temperature_dc,
            vibration_mm_s2: row.vibration_mm_s2,
            codes: row.codes,
            code_slugs: row.code_slugs,
            arrival: Arrival { no: ArrivalNo(row.arrival_no), at: row.arrived.into() },
            changed: ArrivalNo(row.changed_no),
            engine_version: row.engine_version,
            engine: row.engine,
        })
    }
}

macro_rules! state_columns {
    () => {
        "elevator_id, arrival_no, arrived, last_seen, time, position_mm, velocity_mm_s, area, flags, \
         vibration_mm_s2, engine_version, service_mode, car_status, direction, door_state, passengers, \
         floor_ordinal, load_kg, people_count, temperature_dc, online, door_zone, people, terminal_id, \
         floor, codes, code_slugs, changed_no, engine::text AS engine"
    };
}

/// A time that PostgreSQL and RFC 3339 can hold: years 0 to 9999. A terminal's clock may be anything.
pub(crate) fn storable(time: Timestamp) -> Option<OffsetDateTime> {
    let years = -62_167_219_200_000_000..=253_402_300_799_999_999;
    years.contains(&time.micros()).then(|| time.to_utc()).flatten()
}

/// Writes the states, in the order of their keys; one older than its row changes nothing.
pub(crate) async fn state_upsert(
    connection: &mut PgConnection,
    states: &[ElevatorState],
) -> Result<(), StoreError> {
    if states.is_empty() {
        return Ok(());
    }
    // Locks are taken in the order of keys, whoever writes.
    let mut sorted: Vec<&ElevatorState> = states.iter().collect();
    sorted.sort_by_key(|state| (state.elevator_id, state.arrival.no));
    // Of one elevator the last only: a statement may not touch a row twice. A deadline brings no arrival, so that of
    // two with the same the later in `states` is the last.
    sorted.dedup_by(|later, kept| {
        let same = later.elevator_id == kept.elevator_id;
        if same {
            *kept = *later;
        }
        same
    });
    fn column<T>(sorted: &[&ElevatorState], of: impl Fn(&ElevatorState) -> T) -> Vec<T> {
        sorted.iter().map(|state| of(state)).collect()
    }
    let utc = |time: Option<Timestamp>| time.and_then(storable);
    sqlx::query(
        "INSERT INTO elevator_state AS old (
            elevator_id, arrival_no, arrived, last_seen, time, position_mm, velocity_mm_s, area, flags,
            vibration_mm_s2, engine_version, service_mode, car_status, direction, door_state, passengers,
            floor_ordinal, load_kg, people_count, temperature_dc, online, door_zone, people, terminal_id,
            floor, codes, code_slugs, engine, changed_no)
        SELECT elevator_id, arrival_no, arrived, last_seen, time, position_mm, velocity_mm_s, area, flags,
            vibration_mm_s2, engine_version, service_mode, car_status, direction, door_state, passengers,
            floor_ordinal, load_kg, people_count, temperature_dc, online, door_zone, people, terminal_id,
            floor, string_to_array(codes, E'\\n'), string_to_array(code_slugs, E'\\n'), engine::jsonb, changed_no
        FROM unnest(
            $1::bigint[], $2::bigint[], $3::timestamptz[], $4::timestamptz[], $5::timestamptz[],
            $6::integer[], $7::integer[], $8::integer[], $9::integer[], $10::integer[],
            $11::integer[], $12::smallint[], $13::smallint[], $14::smallint[], $15::smallint[],
            $16::smallint[], $17::smallint[], $18::smallint[], $19::smallint[], $20::smallint[],
            $21::boolean[], $22::boolean[], $23::boolean[], $24::text[], $25::text[], $26::text[],
            $27::text[], $28::text[], $29::bigint[]
        ) AS new (
            elevator_id, arrival_no, arrived, last_seen, time, position_mm, velocity_mm_s, area, flags,
            vibration_mm_s2, engine_version, service_mode, car_status, direction, door_state, passengers,
            floor_ordinal, load_kg, people_count, temperature_dc, online, door_zone, people, terminal_id,
            floor, codes, code_slugs, engine, changed_no)
        ON CONFLICT (elevator_id) DO UPDATE
        SET arrival_no = excluded.arrival_no,
            arrived = excluded.arrived,
            last_seen = excluded.last_seen,
            time = excluded.time,
            position_mm = excluded.position_mm,
            velocity_mm_s = excluded.velocity_mm_s,
            area = excluded.area,
            flags = excluded.flags,
            vibration_mm_s2 = excluded.vibration_mm_s2,
            engine_version = excluded.engine_version,
            service_mode = excluded.service_mode,
            car_status = excluded.car_status,
            direction = excluded.direction,
            door_state = excluded.door_state,
            passengers = excluded.passengers,
            floor_ordinal = excluded.floor_ordinal,
            load_kg = excluded.load_kg,
            people_count = excluded.people_count,
            temperature_dc = excluded.temperature_dc,
            online = excluded.online,
            door_zone = excluded.door_zone,
            people = excluded.people,
            terminal_id = excluded.terminal_id,
            floor = excluded.floor,
            codes = excluded.codes,
            code_slugs = excluded.code_slugs,
            engine = excluded.engine,
            changed_no = excluded.changed_no
        WHERE old.arrival_no <= excluded.arrival_no",
    )
    .bind(column(&sorted, |state| state.elevator_id.0))
    .bind(column(&sorted, |state| state.arrival.no.0))
    .bind(column(&sorted, |state| state.arrival.at.to_utc().unwrap_or(OffsetDateTime::UNIX_EPOCH)))
    .bind(column(&sorted, |state| utc(state.last_seen)))
    .bind(column(&sorted, |state| utc(state.time)))
    .bind(column(&sorted, |state| state.position_mm))
    .bind(column(&sorted, |state| state.velocity_mm_s))
    .bind(column(&sorted, |state| state.area.number() as i32))
    .bind(column(&sorted, |state| state.flags))
    .bind(column(&sorted, |state| state.vibration_mm_s2))
    .bind(column(&sorted, |state| state.engine_version))
    .bind(column(&sorted, |state| state.service_mode.map(ServiceMode::number)))
    .bind(column(&sorted, |state| state.car_status.map(CarStatus::number)))
    .bind(column(&sorted, |state| state.direction.map(Direction::number)))
    .bind(column(&sorted, |state| state.door_state.map(DoorState::number)))
    .bind(column(&sorted, |state| state.passengers.map(Passengers::number)))
    .bind(column(&sorted, |state| state.floor_ordinal))
    .bind(column(&sorted, |state| state.load_kg))
    .bind(column(&sorted, |state| state.people_count))
    .bind(column(&sorted, |state| state.temperature_dc))
    .bind(column(&sorted, |state| state.online))
    .bind(column(&sorted, |state| state.door_zone))
    .bind(column(&sorted, |state| state.people))
    .bind(column(&sorted, |state| state.terminal_id.as_str().to_owned()))
    .bind(column(&sorted, |state| state.floor.clone()))
    .bind(column(&sorted, |state| state.codes.join("\n")))
    .bind(column(&sorted, |state| state.code_slugs.join("\n")))
    .bind(column(&sorted, |state| state.engine.clone()))
    .bind(column(&sorted, |state| state.changed.0))
    .execute(connection)
    .await?;
    Ok(())
}

/// All elevators are covered up to this arrival; never goes back.
pub(crate) async fn engine_position_set(
    connection: &mut PgConnection,
    position: ArrivalNo,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE engine_position
        SET arrival_no = $1
        WHERE arrival_no < $1",
    )
    .bind(position.0)
    .execute(connection)
    .await?;
    Ok(())
}

impl Database {
    /// The arrival up to which all elevators are covered by their states.
    pub async fn engine_position_get(&self) -> Result<ArrivalNo, StoreError> {
        let no = sqlx::query_scalar("SELECT arrival_no FROM engine_position").fetch_one(self.pool()).await?;
        Ok(ArrivalNo(no))
    }

    /// Hands every state to `each`, one at a time: there may be more than one would hold in memory twice.
    pub async fn state_load_all(&self, mut each: impl FnMut(ElevatorState)) -> Result<(), StoreError> {
        let mut rows =
            sqlx::query_as(concat!("SELECT ", state_columns!(), " FROM elevator_state")).fetch(self.pool());
        while let Some(row) = rows.try_next().await? {
            let row: StateRow = row;
            each(row.try_into()?);
        }
        Ok(())
    }

    /// The division of every registered elevator.
    pub async fn elevator_areas(&self) -> Result<HashMap<ElevatorId, Area>, StoreError> {
        let found: Vec<(i64, i32)> =
            sqlx::query_as("SELECT elevator_id, area FROM elevator").fetch_all(self.pool()).await?;
        found.into_iter().map(|(id, number)| Ok((ElevatorId(id), area(number)?))).collect()
    }

    /// One elevator's state.
    pub async fn state_get(&self, id: ElevatorId) -> Result<Option<ElevatorState>, StoreError> {
        let row: Option<StateRow> = sqlx::query_as(concat!(
            "SELECT ",
            state_columns!(),
            " FROM elevator_state WHERE elevator_id = $1"
        ))
        .bind(id.0)
        .fetch_optional(self.pool())
        .await?;
        row.map(ElevatorState::try_from).transpose()
    }
}

#[cfg(test)]
mod tests;
