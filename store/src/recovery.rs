//! Reading back what was committed, as the messages it came from: how the rules catch up after a start.
//!
//! Promises: each row gives exactly the reading or event that was committed, rows of one arrival are one
//! message, messages come in the order of arrival. What went to quarantine is missing, and so is what a row
//! does not hold: `prev_boot_last_seq` and `dropped` of a batch. `sent` comes back in whole milliseconds.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use domain::{
    Arrival, ArrivalNo, BootId, Code, ElevatorId, EventBatch, EventState, FaultEvent, FaultKind, Field,
    Floor, Message, Reading, Seq, Statistics, TelemetryBatch, TerminalId, Timestamp, fault_by_slug, limits,
};
use futures_util::{Stream, TryStreamExt};
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use time::OffsetDateTime;

use crate::rows::{STATE_ACTIVE, sent};
use crate::{Database, Incoming, StoreError};

/// Messages that arrived after `after`, in the order of arrival. Reads from the server as it goes, over three
/// connections of the pool, so memory stays flat however many there are.
pub fn rows_after(database: &Database, after: ArrivalNo) -> Recovery {
    let readings = sqlx::query(
        "SELECT telemetry.arrival_no, telemetry.arrived, telemetry.elevator_id, source.terminal_id, source.boot,
                telemetry.time, telemetry.seq, telemetry.age_ms, telemetry.skew_ms,
                sent_mask, service_mode, car_status, direction, door_zone, door_state, passengers, floor,
                floor_ordinal, position_mm, velocity_mm_s, load_kg, people_count, flags, temperature_dc,
                vibration_mm_s2, codes, code_slugs
         FROM telemetry
         JOIN source USING (source)
         WHERE telemetry.arrival_no > $1
         ORDER BY telemetry.arrival_no, telemetry.item",
    );
    let faults = sqlx::query(
        "SELECT fault.arrival_no, fault.arrived, fault.elevator_id, source.terminal_id, source.boot,
                fault.time, fault.seq, fault.age_ms, fault.skew_ms,
                state, code, slug, codes, code_slugs
         FROM fault
         JOIN source USING (source)
         WHERE fault.arrival_no > $1
         ORDER BY fault.arrival_no, fault.item",
    );
    let statistics = sqlx::query(
        "SELECT statistics.arrival_no, statistics.arrived, statistics.elevator_id, source.terminal_id, source.boot,
                statistics.time, statistics.seq, statistics.age_ms, statistics.skew_ms,
                door_open_count, energy_wh, running_s, run_count, rope_bend_count, mileage_m, passenger_count,
                levelling_count, round_trip_count
         FROM statistics
         JOIN source USING (source)
         WHERE statistics.arrival_no > $1
         ORDER BY statistics.arrival_no",
    );
    Recovery {
        readings: Side::new(readings.bind(after.0).fetch(database.pool())),
        faults: Side::new(faults.bind(after.0).fetch(database.pool())),
        statistics: Side::new(statistics.bind(after.0).fetch(database.pool())),
        names: Names::default(),
    }
}

/// Messages read back, see [`rows_after`].
pub struct Recovery {
    readings: Side,
    faults: Side,
    statistics: Side,
    names: Names,
}

impl Recovery {
    /// The next message; `None` after the last.
    pub async fn next(&mut self) -> Result<Option<Incoming>, StoreError> {
        let mut next: Option<(i64, &mut Side, Rebuild)> = None;
        for (side, rebuild) in [
            (&mut self.readings, telemetry as Rebuild),
            (&mut self.faults, events),
            (&mut self.statistics, counted),
        ] {
            if let Some(no) = side.arrival_no().await?
                && next.as_ref().is_none_or(|(least, ..)| no < *least)
            {
                next = Some((no, side, rebuild));
            }
        }
        let Some((_, side, rebuild)) = next else { return Ok(None) };
        let rows = side.message().await?;
        let Some(first) = rows.first() else { return Ok(None) };
        let boot = u32::try_from(first.try_get::<i64, _>("boot")?).map_err(corrupt)?;
        let arrived = timestamp(first, "arrived")?;
        let no = ArrivalNo(first.try_get("arrival_no")?);
        let message = rebuild(&rows, boot, arrived)?;
        Ok(Some(Incoming {
            elevator_id: ElevatorId(first.try_get("elevator_id")?),
            terminal_id: self.names.terminal(first.try_get("terminal_id")?)?,
            arrival: Arrival { no, at: arrived },
            message: Arc::new(message),
        }))
    }

    /// All that is left, in memory. For tests and short stretches.
    pub async fn all(mut self) -> Result<Vec<Incoming>, StoreError> {
        let mut messages = Vec::new();
        while let Some(incoming) = self.next().await? {
            messages.push(incoming);
        }
        Ok(messages)
    }
}

/// From the rows of one arrival to its message.
type Rebuild = fn(&[PgRow], u32, Timestamp) -> Result<Message, StoreError>;

/// Rows of one table, looked at one ahead.
struct Side {
    rows: Pin<Box<dyn Stream<Item = Result<PgRow, sqlx::Error>> + Send>>,
    ahead: Option<PgRow>,
    ended: bool,
}

impl Side {
    fn new(rows: Pin<Box<dyn Stream<Item = Result<PgRow, sqlx::Error>> + Send>>) -> Self {
        Self { rows, ahead: None, ended: false }
    }

    /// Arrival of the next row.
    async fn arrival_no(&mut self) -> Result<Option<i64>, StoreError> {
        if self.ahead.is_none() && !self.ended {
            self.ahead = self.rows.try_next().await?;
            self.ended = self.ahead.is_none();
        }
        Ok(self.ahead.as_ref().map(|row| row.try_get("arrival_no")).transpose()?)
    }

    /// The next row and all others of its arrival.
    async fn message(&mut self) -> Result<Vec<PgRow>, StoreError> {
        let mut rows: Vec<PgRow> = Vec::new();
        let Some(wanted) = self.arrival_no().await? else { return Ok(rows) };
        while self.arrival_no().await? == Some(wanted) {
            rows.extend(self.ahead.take());
        }
        Ok(rows)
    }
}

/// Names of terminals, each held once.
#[derive(Default)]
struct Names(HashMap<String, TerminalId>);

impl Names {
    fn terminal(&mut self, name: &str) -> Result<TerminalId, StoreError> {
        if let Some(known) = self.0.get(name) {
            return Ok(known.clone());
        }
        let terminal = TerminalId::new(name).map_err(corrupt)?;
        self.0.insert(name.to_owned(), terminal.clone());
        Ok(terminal)
    }
}

fn telemetry(rows: &[PgRow], boot: u32, arrived: Timestamp) -> Result<Message, StoreError> {
    let readings = rows.iter().map(reading).collect::<Result<_, _>>()?;
    let sent = transmitted(rows, arrived)?;
    let boot = BootId(boot);
    Ok(Message::Telemetry(TelemetryBatch { boot, sent, prev_boot_last_seq: None, dropped: None, readings }))
}

pub(crate) fn reading(row: &PgRow) -> Result<Reading, StoreError> {
    let mask: i32 = row.try_get("sent_mask")?;
    let number = |column: &str, bit: i32| field(mask, bit, || row.try_get::<Option<i16>, _>(column));
    let wide = |column: &str, bit: i32| field(mask, bit, || row.try_get::<Option<i32>, _>(column));

    let mut reading = Reading::new(Seq(row.try_get("seq")?), timestamp(row, "time")?);
    reading.service_mode = table(number("service_mode", sent::SERVICE_MODE)?)?;
    reading.car_status = table(number("car_status", sent::CAR_STATUS)?)?;
    reading.direction = table(number("direction", sent::DIRECTION)?)?;
    reading.door_zone = number("door_zone", sent::DOOR_ZONE)?.map(|zone| zone != 0);
    reading.door_state = table(number("door_state", sent::DOOR_STATE)?)?;
    reading.passengers = table(number("passengers", sent::PASSENGERS)?)?;
    let floor = field(mask, sent::FLOOR, || row.try_get::<Option<&str>, _>("floor"))?;
    reading.floor = floor.try_map(Floor::new).map_err(corrupt)?;
    reading.floor_ordinal = number("floor_ordinal", sent::FLOOR_ORDINAL)?;
    reading.position_mm = wide("position_mm", sent::POSITION_MM)?;
    reading.velocity_mm_s = wide("velocity_mm_s", sent::VELOCITY_MM_S)?;
    reading.load_kg = number("load_kg", sent::LOAD_KG)?;
    reading.people_count = number("people_count", sent::PEOPLE_COUNT)?;
    reading.flags = wide("flags", sent::FLAGS)?;
    reading.flags_told = Reading::FLAGS_ALL & !(mask >> sent::FLAGS_UNTOLD_SHIFT);
    reading.temperature_dc = number("temperature_dc", sent::TEMPERATURE_DC)?;
    reading.vibration_mm_s2 = wide("vibration_mm_s2", sent::VIBRATION_MM_S2)?;
    reading.codes = field(mask, sent::CODES, || codes(row))?;
    Ok(reading)
}

fn field<T, E>(
    mask: i32,
    bit: i32,
    value: impl FnOnce() -> Result<Option<T>, E>,
) -> Result<Field<T>, StoreError>
where
    StoreError: From<E>,
{
    if mask & bit == 0 {
        return Ok(Field::Absent);
    }
    Ok(value()?.map_or(Field::Unknown, Field::Known))
}

/// A number of one of the domain's tables.
fn table<T: TryFrom<i64, Error = domain::RangeError>>(number: Field<i16>) -> Result<Field<T>, StoreError> {
    number.try_map(|number| T::try_from(i64::from(number))).map_err(corrupt)
}

fn counted(rows: &[PgRow], boot: u32, arrived: Timestamp) -> Result<Message, StoreError> {
    let row = rows.first().ok_or_else(|| StoreError::Corrupt("a message without rows".to_owned()))?;
    Ok(Message::Statistics(Statistics {
        boot: BootId(boot),
        sent: transmitted(rows, arrived)?,
        seq: Seq(row.try_get("seq")?),
        time: timestamp(row, "time")?,
        counters: crate::statistics::counters(row)?,
    }))
}

fn events(rows: &[PgRow], boot: u32, arrived: Timestamp) -> Result<Message, StoreError> {
    let mut events = Vec::with_capacity(rows.len());
    let mut active = None;
    for row in rows {
        let state: i16 = row.try_get("state")?;
        if state == STATE_ACTIVE {
            active = codes(row)?;
            continue;
        }
        events.push(FaultEvent {
            seq: Seq(row.try_get("seq")?),
            time: timestamp(row, "time")?,
            code: Code { raw: row.try_get::<&str, _>("code")?.into(), fault: meaning(row.try_get("slug")?)? },
            state: EventState::try_from(i64::from(state)).map_err(corrupt)?,
        });
    }
    let sent = transmitted(rows, arrived)?;
    Ok(Message::Event(EventBatch { boot: BootId(boot), sent, events, active }))
}

/// Columns `codes` and `code_slugs`: what the codes meant when they came, not what they would mean now.
pub(crate) fn codes(row: &PgRow) -> Result<Option<Vec<Code>>, StoreError> {
    let Some(raw) = row.try_get::<Option<Vec<String>>, _>("codes")? else { return Ok(None) };
    let slugs: Option<Vec<String>> = row.try_get("code_slugs")?;
    let slugs = slugs.as_ref().unwrap_or(&raw);
    if slugs.len() != raw.len() {
        return Err(StoreError::Corrupt("codes and their meanings differ in number".to_owned()));
    }
    let code = |(raw, slug): (&String, &String)| Ok(Code { raw: raw.as_str().into(), fault: meaning(slug)? });
    raw.iter().zip(slugs).map(code).collect::<Result<_, StoreError>>().map(Some)
}

/// A meaning that only a newer version knows is an unknown code to this one.
pub(crate) fn meaning(slug: &str) -> Result<&'static FaultKind, StoreError> {
    let known = fault_by_slug(slug).or_else(|| fault_by_slug("unknown_code"));
    known.ok_or_else(|| StoreError::Corrupt("the taxonomy has no unknown_code".to_owned()))
}

/// The terminal's clock at transmission, from the row's time and age, or from its arrival and skew; not where
/// both lay out of bounds.
fn transmitted(rows: &[PgRow], arrived: Timestamp) -> Result<Option<Timestamp>, StoreError> {
    let exact = |span: Option<i32>| span.map(i64::from).filter(|span| span.abs() < limits::SKEW_MS_ABS_MAX);
    for row in rows {
        if let Some(age) = exact(row.try_get("age_ms")?) {
            return Ok(Some(Timestamp::from_millis(timestamp(row, "time")?.millis() + age)));
        }
        if let Some(skew) = exact(row.try_get("skew_ms")?) {
            return Ok(Some(Timestamp::from_millis(arrived.millis() - skew)));
        }
    }
    Ok(None)
}

fn timestamp(row: &PgRow, column: &str) -> Result<Timestamp, StoreError> {
    Ok(Timestamp::from(row.try_get::<OffsetDateTime, _>(column)?))
}

fn corrupt(error: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt(error.to_string())
}
