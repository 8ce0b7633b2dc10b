//! Readings as rows of `telemetry`.

use std::sync::LazyLock;

use domain::{CarStatus, Direction, DoorState, Field, Passengers, Reading, ServiceMode};
use serde_json::{Map, Value, json};

use super::{Key, Origin, Row, Table, encode_code_slugs, encode_codes};
use crate::copy::CopyBuffer;
use crate::quarantine::{QuarantineEntry, QuarantineReason};

/// Bits of `sent_mask`. Fixed for ever: rows hold them.
pub(crate) mod sent {
    pub(crate) const SERVICE_MODE: i32 = 1;
    pub(crate) const CAR_STATUS: i32 = 1 << 1;
    pub(crate) const DIRECTION: i32 = 1 << 2;
    pub(crate) const DOOR_ZONE: i32 = 1 << 3;
    pub(crate) const DOOR_STATE: i32 = 1 << 4;
    pub(crate) const PASSENGERS: i32 = 1 << 5;
    pub(crate) const FLOOR: i32 = 1 << 6;
    pub(crate) const FLOOR_ORDINAL: i32 = 1 << 7;
    pub(crate) const POSITION_MM: i32 = 1 << 8;
    pub(crate) const VELOCITY_MM_S: i32 = 1 << 9;
    pub(crate) const LOAD_KG: i32 = 1 << 10;
    pub(crate) const PEOPLE_COUNT: i32 = 1 << 11;
    pub(crate) const FLAGS: i32 = 1 << 12;
    pub(crate) const TEMPERATURE_DC: i32 = 1 << 13;
    pub(crate) const VIBRATION_MM_S2: i32 = 1 << 14;
    pub(crate) const CODES: i32 = 1 << 15;
    /// From here on, of known `flags`: the bits that were not told, as in `Reading::FLAGS_ALL`.
    pub(crate) const FLAGS_UNTOLD_SHIFT: u32 = 16;
}

/// A reading with whatever else its row says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReadingRow<'a> {
    pub(crate) origin: Origin<'a>,
    pub(crate) item: i16,
    pub(crate) reading: &'a Reading,
}

fn sent_mask(reading: &Reading) -> i32 {
    let bit = |sent: bool, bit: i32| if sent { bit } else { 0 };
    let untold = (Reading::FLAGS_ALL & !reading.flags_told) << sent::FLAGS_UNTOLD_SHIFT;
    bit(reading.service_mode.is_sent(), sent::SERVICE_MODE)
        | bit(reading.car_status.is_sent(), sent::CAR_STATUS)
        | bit(reading.direction.is_sent(), sent::DIRECTION)
        | bit(reading.door_zone.is_sent(), sent::DOOR_ZONE)
        | bit(reading.door_state.is_sent(), sent::DOOR_STATE)
        | bit(reading.passengers.is_sent(), sent::PASSENGERS)
        | bit(reading.floor.is_sent(), sent::FLOOR)
        | bit(reading.floor_ordinal.is_sent(), sent::FLOOR_ORDINAL)
        | bit(reading.position_mm.is_sent(), sent::POSITION_MM)
        | bit(reading.velocity_mm_s.is_sent(), sent::VELOCITY_MM_S)
        | bit(reading.load_kg.is_sent(), sent::LOAD_KG)
        | bit(reading.people_count.is_sent(), sent::PEOPLE_COUNT)
        | bit(reading.flags.is_sent(), sent::FLAGS)
        | bit(reading.temperature_dc.is_sent(), sent::TEMPERATURE_DC)
        | bit(reading.vibration_mm_s2.is_sent(), sent::VIBRATION_MM_S2)
        | bit(reading.codes.is_sent(), sent::CODES)
        | bit(reading.flags.known().is_some(), untold)
}

static TELEMETRY: LazyLock<Table> = LazyLock::new(|| {
    Table::new(
        "telemetry",
        &["elevator_id", "time", "seq", "source"],
        &[
            "sent_mask",
            "position_mm",
            "velocity_mm_s",
            "flags",
            "vibration_mm_s2",
            "service_mode",
            "car_status",
            "direction",
            "door_zone",
            "door_state",
            "passengers",
            "floor_ordinal",
            "load_kg",
            "people_count",
            "temperature_dc",
            "floor",
            "codes",
        ],
        &["arrival_no", "arrived", "age_ms", "skew_ms", "item", "code_slugs"],
    )
});

impl Row for ReadingRow<'_> {
    fn table() -> &'static Table {
        &TELEMETRY
    }

    fn key(&self) -> Key<'_> {
        Key {
            elevator_id: self.origin.elevator_id,
            time: self.reading.time,
            seq: self.reading.seq.0,
            source: self.origin.source.0,
            code: "",
        }
    }

    fn same_content(&self, other: &Self) -> bool {
        self.reading == other.reading
    }

    fn encode(&self, out: &mut CopyBuffer) {
        let Self { origin, item, reading } = self;
        out.row(27);
        out.int8(origin.elevator_id);
        out.timestamptz(reading.time);
        out.int8(reading.seq.0);
        out.int4(origin.source.0);

        out.int4(sent_mask(reading));
        out.int4_or_null(reading.position_mm.known());
        out.int4_or_null(reading.velocity_mm_s.known());
        out.int4_or_null(reading.flags.known());
        out.int4_or_null(reading.vibration_mm_s2.known());
        out.int2_or_null(reading.service_mode.known().map(ServiceMode::number));
        out.int2_or_null(reading.car_status.known().map(CarStatus::number));
        out.int2_or_null(reading.direction.known().map(Direction::number));
        out.int2_or_null(reading.door_zone.known().map(i16::from));
        out.int2_or_null(reading.door_state.known().map(DoorState::number));
        out.int2_or_null(reading.passengers.known().map(Passengers::number));
        out.int2_or_null(reading.floor_ordinal.known());
        out.int2_or_null(reading.load_kg.known());
        out.int2_or_null(reading.people_count.known());
        out.int2_or_null(reading.temperature_dc.known());
        match reading.floor {
            Field::Known(floor) => out.text(floor.as_str()),
            Field::Absent | Field::Unknown => out.null(),
        }
        let codes = match &reading.codes {
            Field::Known(codes) => Some(codes.as_slice()),
            Field::Absent | Field::Unknown => None,
        };
        encode_codes(codes, out);

        out.int8(origin.arrival.no.0);
        out.timestamptz(origin.arrival.at);
        out.int4_or_null(origin.age_ms(reading.time));
        out.int4_or_null(origin.skew_ms());
        out.int2(*item);
        encode_code_slugs(codes, out);
    }

    fn quarantined(&self, reason: QuarantineReason, detail: String) -> QuarantineEntry {
        let payload = describe(self).to_string();
        let terminal = self.origin.terminal_id.as_str();
        let (arrived, payload) = (self.origin.arrival.at, payload.as_bytes());
        let entry = QuarantineEntry::new(arrived, terminal, "telemetry", reason, detail, payload);
        self.origin.quarantined(self.reading.seq, entry)
    }
}

/// The reading in the words of the open JSON, so that it can be read, corrected and sent again.
fn describe(row: &ReadingRow<'_>) -> Value {
    fn put<T: Into<Value>>(fields: &mut Map<String, Value>, name: &str, field: Field<T>) {
        match field {
            Field::Absent => {}
            Field::Unknown => drop(fields.insert(name.to_owned(), Value::Null)),
            Field::Known(value) => drop(fields.insert(name.to_owned(), value.into())),
        }
    }
    let reading = row.reading;
    let mut fields = Map::new();
    if reading.seq.0 > 0 {
        // A derived one is derived again.
        fields.insert("seq".to_owned(), reading.seq.0.into());
    }
    fields.insert("time".to_owned(), super::told_time(reading.time));
    put(&mut fields, "service_mode", reading.service_mode.map(ServiceMode::number));
    put(&mut fields, "car_status", reading.car_status.map(CarStatus::number));
    put(&mut fields, "car_direction", reading.direction.map(Direction::number));
    put(&mut fields, "door_zone", reading.door_zone);
    put(&mut fields, "door_state", reading.door_state.map(DoorState::number));
    put(&mut fields, "passengers", reading.passengers.map(|passengers| passengers.number() == 1));
    put(&mut fields, "floor", reading.floor.map(|floor| floor.as_str().to_owned()));
    put(&mut fields, "floor_ordinal", reading.floor_ordinal);
    put(&mut fields, "position_mm", reading.position_mm);
    put(&mut fields, "velocity_mm_s", reading.velocity_mm_s);
    put(&mut fields, "load_kg", reading.load_kg);
    put(&mut fields, "people_count", reading.people_count);
    put(&mut fields, "flags", reading.flags);
    if reading.flags.known().is_some() && reading.flags_told != Reading::FLAGS_ALL {
        fields.insert("flags_told".to_owned(), reading.flags_told.into());
    }
    put(&mut fields, "car_temp_c", reading.temperature_dc.map(|tenths| f64::from(tenths) / 10.0));
    put(&mut fields, "vibration_mm_s2", reading.vibration_mm_s2);
    put(
        &mut fields,
        "codes",
        reading
            .codes
            .as_ref()
            .map(|codes| codes.iter().map(|code| Value::from(&*code.raw)).collect::<Vec<_>>()),
    );
    json!({ "boot": row.origin.boot.0, "readings": [fields] })
}
