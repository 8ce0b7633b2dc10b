//! The open JSON payload, so that `mosquitto_pub` is a terminal. Field names of GB/T 24476-2017 as in
//! DOMAIN.md 3; `docs/wire.md` explains it for vendors. An absent field is unchanged within the boot, `null`
//! is unknown. Fields of other names are ignored, so that a newer terminal can speak to an older server.

use std::borrow::Cow;

use domain::{
    BootId, CarStatus, Code, Direction, DoorState, EventBatch, EventState, FaultEvent, Field, Floor,
    Passengers, RangeError, Reading, Seq, ServiceMode, TelemetryBatch, Timestamp, limits,
};
use proto::decode::{CodeTable, DecodeError, code, expanded};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};
use time::macros::{format_description, offset};

/// Why a JSON payload is not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JsonError {
    /// Not JSON, or not of this shape; names line and column.
    #[error("{0}")]
    Shape(String),
    /// A value outside its table, range or count.
    #[error(transparent)]
    Value(#[from] DecodeError),
    /// An event batch that says nothing.
    #[error("an event has \"code\", \"time\" and \"state\" (open, close or once), or there is \"active\"")]
    Empty,
}

impl From<serde_json::Error> for JsonError {
    fn from(error: serde_json::Error) -> Self {
        Self::Shape(error.to_string())
    }
}

impl From<RangeError> for JsonError {
    fn from(error: RangeError) -> Self {
        Self::Value(error.into())
    }
}

/// A device time: RFC 3339; `YYYY-MM-DD HH:MM:SS` without a zone is UTC+8 (DOMAIN.md 6); a number is
/// milliseconds since 1970.
pub(crate) struct DeviceTime(pub(crate) Timestamp);

impl JsonSchema for DeviceTime {
    fn schema_name() -> Cow<'static, str> {
        "DeviceTime".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Device time: RFC 3339; or YYYY-MM-DD HH:MM:SS, which is UTC+8; or ms since 1970",
            "anyOf": [
                {
                    "type": "string",
                    "pattern": "^\\d{4}-\\d{2}-\\d{2}([Tt]\\d{2}:\\d{2}:\\d{2}(\\.\\d+)?([Zz]|[+-]\\d{2}:\\d{2})| \\d{2}:\\d{2}:\\d{2})$",
                },
                { "type": "integer", "minimum": i64::MIN, "maximum": i64::MAX },
            ],
        })
    }
}

impl DeviceTime {
    /// Without the part below a millisecond: `sent` is kept in the store as a difference in milliseconds, and
    /// what the rules see live must be what they see again in a replay.
    pub(crate) fn whole_millis(self) -> Timestamp {
        Timestamp::from_millis(self.0.millis())
    }
}

impl<'de> Deserialize<'de> for DeviceTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Millis(i64),
            Text(String),
        }
        let error = || {
            serde::de::Error::custom(
                "a time is RFC 3339 (2026-11-22T08:00:00+08:00), \"2026-11-22 08:00:00\" (UTC+8), or ms since 1970",
            )
        };
        match Form::deserialize(deserializer).map_err(|_| error())? {
            Form::Millis(millis) => Ok(Self(Timestamp::from_millis(millis))),
            Form::Text(text) => text.parse().or_else(|_| local(&text)).map(Self).map_err(|()| error()),
        }
    }
}

fn local(text: &str) -> Result<Timestamp, ()> {
    let layout = format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");
    let at = time::PrimitiveDateTime::parse(text, layout).map_err(|_| ())?;
    Ok(at.assume_offset(offset!(+8)).into())
}

/// Tells absent, `null` and a value apart; used with `#[serde(default)]`.
fn field<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Field<T>, D::Error> {
    Ok(match Option::<T>::deserialize(deserializer)? {
        Some(value) => Field::Known(value),
        None => Field::Unknown,
    })
}

/// The decoder's type, and beside it the same fields as a schema sees them: each may be left out or `null`.
macro_rules! fields {
    ($($(#[$doc:meta])* $name:ident: $type:ty $(=> $bounds:meta)?),+ $(,)?) => {
        #[derive(Deserialize)]
        struct JsonReading {
            seq: Option<u64>,
            time: DeviceTime,
            $(
                $(#[$doc])*
                #[serde(default = "absent", deserialize_with = "field")]
                $name: Field<$type>,
            )+
        }

        /// One reading. Everything but `time` may be left out: absent is unchanged within the boot, `null` is not
        /// known.
        #[derive(JsonSchema)]
        #[schemars(rename = "Reading")]
        #[allow(dead_code)] // only its schema is used
        pub(crate) struct ReadingSchema {
            /// Increases by one with each reading or event of a boot; without it the server derives one.
            #[schemars(range(max = 9_223_372_036_854_775_807_u64))]
            seq: Option<u64>,
            time: DeviceTime,
            $(
                $(#[$doc])*
                $(#[schemars($bounds)])?
                $name: Option<$type>,
            )+
        }
    };
}

fn absent<T>() -> Field<T> {
    Field::Absent
}

fields! {
    /// 0 out of service, 1 normal, 2 inspection, 3 fire recall, 4 firefighter, 5 emergency power, 6 earthquake,
    /// 7 unknown; of an escalator 0 stopped, 1 normal, 2 inspection, 3 unknown.
    service_mode: i64 => range(min = 0, max = 7),
    /// 0 stopped, 1 running.
    // Escalators and walks name them so.
    #[serde(alias = "operation_status")]
    car_status: i64 => range(min = 0, max = 1),
    /// 0 none, 1 up, 2 down.
    #[serde(alias = "operation_direction")]
    car_direction: i64 => range(min = 0, max = 2),
    /// True: the car is in the unlocking zone.
    door_zone: bool,
    /// 0 unknown, 1 closing, 2 closed, 3 opening, 4 open, 5 locked, 6 held not fully closed, 7 only known to be not
    /// fully closed.
    door_state: i64 => range(min = 0, max = 7),
    /// True: fully closed. For terminals with nothing but the contact; ignored beside `door_state`.
    door_closed: bool,
    /// True: somebody is in the car.
    passengers: bool,
    /// As displayed, at most 16 bytes of UTF-8.
    floor: String => length(min = 1, max = 16),
    /// Counted from the lowest stop.
    floor_ordinal: i64 => range(min = -32_768, max = 32_767),
    /// Above the lowest stop, mm.
    position_mm: i64 => range(min = -2_000_000, max = 2_000_000),
    /// Up positive, mm/s.
    velocity_mm_s: i64 => range(min = -30_000, max = 30_000),
    /// kg.
    load_kg: i64 => range(min = 0, max = 30_000),
    /// People counted.
    people_count: i64 => range(min = 0, max = 200),
    /// Sum of 1 overload, 2 battery power, 4 safety circuit open, 8 door-lock circuit open, 16 alarm button.
    flags: i64 => range(min = 0, max = 31),
    /// Which bits of `flags` are told, where not all of them are; the others stay as they were.
    flags_told: i64 => range(min = 0, max = 31),
    /// °C.
    car_temp_c: f64 => range(min = -200.0, max = 200.0),
    /// mm/s².
    vibration_mm_s2: i64 => range(min = 0, max = 1_000_000),
    /// All codes active now.
    codes: Vec<JsonCode> => length(max = 32),
}

/// A slug, or a number of the profile, written as text or number.
#[derive(Deserialize)]
#[serde(untagged)]
enum JsonCode {
    Text(String),
    Number(u64),
}

impl JsonSchema for JsonCode {
    fn schema_name() -> Cow<'static, str> {
        "Code".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A slug of the taxonomy, or a code of the terminal's profile: 1 to 64 bytes",
            "anyOf": [
                { "type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[^\\u0000-\\u001F\\u007F-\\u009F]+$" },
                { "type": "integer", "minimum": 0, "maximum": u64::MAX },
            ],
        })
    }
}

impl JsonCode {
    fn text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Number(number) => number.to_string(),
        }
    }
}

fn codes(list: Vec<JsonCode>, table: CodeTable<'_>) -> Result<Vec<domain::Code>, DecodeError> {
    let texts: Vec<String> = list.into_iter().map(JsonCode::text).collect();
    proto::decode::codes(texts.iter().map(String::as_str), table)
}

pub(crate) fn seq(sent: Option<u64>) -> Result<Seq, RangeError> {
    let number = sent.unwrap_or(0);
    i64::try_from(number).map(Seq).map_err(|_| RangeError { field: "seq", value: number.cast_signed() })
}

fn tabled<T: TryFrom<i64, Error = RangeError>>(value: Field<i64>) -> Result<Field<T>, RangeError> {
    Ok(match value {
        Field::Known(value) => Field::Known(T::try_from(value)?),
        Field::Unknown => Field::Unknown,
        Field::Absent => Field::Absent,
    })
}

fn narrow<T: TryFrom<i64>>(name: &'static str, value: Field<i64>) -> Result<Field<T>, RangeError> {
    Ok(match value {
        Field::Known(value) => {
            Field::Known(T::try_from(value).map_err(|_| RangeError { field: name, value })?)
        }
        Field::Unknown => Field::Unknown,
        Field::Absent => Field::Absent,
    })
}

impl JsonReading {
    fn check(self, table: CodeTable<'_>) -> Result<Reading, JsonError> {
        let mut reading = Reading::new(seq(self.seq)?, self.time.0);
        reading.service_mode = tabled::<ServiceMode>(self.service_mode)?;
        reading.car_status = tabled::<CarStatus>(self.car_status)?;
        reading.direction = tabled::<Direction>(self.car_direction)?;
        reading.door_zone = self.door_zone;
        reading.door_state = tabled::<DoorState>(self.door_state)?;
        if !reading.door_state.is_sent() {
            let state = |closed| if closed { DoorState::Closed } else { DoorState::NotClosed };
            reading.door_state = self.door_closed.map(state);
        }
        reading.passengers =
            self.passengers.map(|inside| if inside { Passengers::Yes } else { Passengers::No });
        reading.floor = match self.floor {
            Field::Known(label) => Field::Known(Floor::new(&label)?),
            Field::Unknown => Field::Unknown,
            Field::Absent => Field::Absent,
        };
        reading.floor_ordinal = narrow("floor_ordinal", self.floor_ordinal)?;
        reading.position_mm = narrow("position_mm", self.position_mm)?;
        reading.velocity_mm_s = narrow("velocity_mm_s", self.velocity_mm_s)?;
        reading.load_kg = narrow("load_kg", self.load_kg)?;
        reading.people_count = narrow("people_count", self.people_count)?;
        reading.flags = narrow("flags", self.flags)?;
        if let (Field::Known(_), Field::Known(told)) = (reading.flags, narrow("flags_told", self.flags_told)?)
        {
            reading.flags_told = told;
        }
        // `as` saturates, and the range check below refuses what saturated.
        reading.temperature_dc =
            narrow("car_temp_c", self.car_temp_c.map(|celsius| (celsius * 10.0).round() as i64))?;
        reading.vibration_mm_s2 = narrow("vibration_mm_s2", self.vibration_mm_s2)?;
        reading.codes = match self.codes {
            Field::Known(list) => Field::Known(codes(list, table)?),
            Field::Unknown => Field::Unknown,
            Field::Absent => Field::Absent,
        };
        reading.check()?;
        Ok(reading)
    }
}

/// Readings of one boot, oldest first, or what a reading that stands alone says around it.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "TelemetryBatch")]
pub(crate) struct JsonTelemetry {
    /// Names this run of the terminal's software; another number after every restart.
    #[serde(default)]
    #[schemars(range(max = 4_294_967_295_u32))]
    boot: u32,
    /// The terminal's clock at this transmission, rewritten when it is sent again.
    sent: Option<DeviceTime>,
    /// In the first transmission after a restart: the last `seq` of the boot before.
    prev_boot_last_seq: Option<i64>,
    /// Numbers the terminal had to discard.
    dropped: Option<JsonRange>,
    /// 1 to 1,000; without it this object is the reading.
    #[serde(default)]
    #[schemars(with = "Vec<ReadingSchema>", length(min = 1, max = 1_000))]
    readings: Option<Vec<JsonReading>>,
}

/// First and last, both included.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "SeqRange")]
struct JsonRange {
    /// The first.
    from: i64,
    /// The last.
    to: i64,
}

/// Decodes `telemetry.json`: a batch with `readings`, or one reading object. Seq 0 means "none given".
pub(crate) fn telemetry(payload: &[u8], table: CodeTable<'_>) -> Result<TelemetryBatch, JsonError> {
    let batch: JsonTelemetry = serde_json::from_slice(payload)?;
    let readings = match batch.readings {
        Some(readings) => readings,
        None => vec![serde_json::from_slice(payload)?],
    };
    let count = readings.len();
    if count == 0 || count > limits::BATCH_READINGS_MAX {
        return Err(DecodeError::Count { what: "readings", count, bound: "1 to 1,000" }.into());
    }
    Ok(TelemetryBatch {
        boot: BootId(batch.boot),
        sent: batch.sent.map(DeviceTime::whole_millis),
        prev_boot_last_seq: batch.prev_boot_last_seq,
        dropped: batch.dropped.map(|range| (range.from, range.to)),
        readings: readings.into_iter().map(|one| one.check(table)).collect::<Result<_, _>>()?,
    })
}

/// Payload of lift/v1/{area}/{terminal}/event.json: one event, a list `events`, after a reconnect a list `active`
/// of all that is active, or several of them together. Names that are not listed are ignored.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "Event", transform = events_say_something)]
pub(crate) struct JsonEvents {
    /// Names this run of the terminal's software; another number after every restart.
    #[serde(default)]
    #[schemars(range(max = 4_294_967_295_u32))]
    boot: u32,
    /// The terminal's clock at this transmission.
    sent: Option<DeviceTime>,
    /// From the same counter as readings; without it the server derives one.
    #[schemars(range(max = 9_223_372_036_854_775_807_u64))]
    seq: Option<u64>,
    time: Option<DeviceTime>,
    code: Option<JsonCode>,
    /// It began, it ended, or it happened and no end will be told.
    #[schemars(with = "Option<StateSchema>")]
    state: Option<EventState>,
    /// At most 256.
    #[serde(default)]
    #[schemars(length(max = 256))]
    events: Vec<JsonEvent>,
    /// All codes active now; an empty list says that there are none.
    #[schemars(length(max = 32))]
    active: Option<Vec<JsonCode>>,
}

/// One event.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "OneEvent")]
struct JsonEvent {
    /// From the same counter as readings; without it the server derives one.
    #[schemars(range(max = 9_223_372_036_854_775_807_u64))]
    seq: Option<u64>,
    time: DeviceTime,
    code: JsonCode,
    /// It began, it ended, or it happened and no end will be told.
    #[schemars(with = "StateSchema")]
    state: EventState,
}

/// The words of [`EventState`].
#[derive(JsonSchema)]
#[schemars(rename = "State", rename_all = "snake_case")]
#[allow(dead_code)] // only its schema is used
enum StateSchema {
    Open,
    Close,
    Once,
}

/// What [`events`] demands beyond the fields: an event is whole, and there is one or a list of what is active.
fn events_say_something(schema: &mut Schema) {
    // A name with `null` is as good as none.
    let given = |name: &str| serde_json::json!({ "required": [name], "properties": { name: { "not": { "type": "null" } } } });
    let parts = ["time", "code", "state"].map(given);
    let whole = serde_json::json!({ "allOf": parts });
    let some = serde_json::json!({ "required": ["events"], "properties": { "events": { "minItems": 1 } } });
    schema.insert("anyOf".to_owned(), serde_json::json!([whole, some, given("active")]));
    let half = serde_json::json!({ "anyOf": [given("code"), given("state")] });
    schema.insert("if".to_owned(), half);
    schema.insert("then".to_owned(), whole);
}

impl JsonEvent {
    fn check(self, table: CodeTable<'_>) -> Result<(FaultEvent, Option<Code>), DecodeError> {
        let (code, second) = code(&self.code.text(), table)?;
        Ok((FaultEvent { seq: seq(self.seq)?, time: self.time.0, code, state: self.state }, second))
    }
}

/// Decodes `event.json`: one event, a list `events`, a list `active`, or several of them together.
pub(crate) fn events(payload: &[u8], table: CodeTable<'_>) -> Result<EventBatch, JsonError> {
    let mut batch: JsonEvents = serde_json::from_slice(payload)?;
    match (batch.time, batch.code, batch.state) {
        (Some(time), Some(code), Some(state)) => {
            batch.events.insert(0, JsonEvent { seq: batch.seq, time, code, state });
        }
        (None | Some(_), None, None) => {}
        _ => return Err(JsonError::Empty),
    }
    if batch.events.is_empty() && batch.active.is_none() {
        return Err(JsonError::Empty);
    }
    let count = batch.events.len();
    if count > limits::BATCH_EVENTS_MAX {
        return Err(DecodeError::Count { what: "events", count, bound: "at most 256" }.into());
    }
    Ok(EventBatch {
        boot: BootId(batch.boot),
        sent: batch.sent.map(DeviceTime::whole_millis),
        events: expanded(batch.events.into_iter().map(|event| event.check(table)))?,
        active: batch.active.map(|list| codes(list, table)).transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ProfileView;
    use proptest::prelude::*;

    fn gb24476(raw: &str) -> domain::Meaning {
        ProfileView::canonical().meaning(raw)
    }

    const EXAMPLE: &str = r#"{"boot":7,"readings":[{"seq":1,"time":"2026-11-22T08:00:00.123+08:00",
        "service_mode":1,"car_status":1,"car_direction":1,"door_zone":false,"door_state":2,"passengers":true,
        "floor":"12","position_mm":33250,"velocity_mm_s":1750,"load_kg":225,"codes":[]}]}"#;

    #[test]
    fn reads_the_example_of_the_wire_document() {
        let batch = telemetry(EXAMPLE.as_bytes(), &gb24476).unwrap();
        assert_eq!(batch.boot, BootId(7));
        let reading = &batch.readings[0];
        assert_eq!(reading.time.to_string(), "2026-11-22T00:00:00.123Z");
        assert_eq!(reading.door_state, Field::Known(DoorState::Closed));
        assert_eq!(reading.codes, Field::Known(vec![]));
        assert_eq!(reading.people_count, Field::Absent);
    }

    #[test]
    fn a_reading_that_stands_alone_tells_of_the_boot_before_and_of_what_was_dropped() {
        let alone = br#"{"boot":8,"seq":1,"prev_boot_last_seq":9,"dropped":{"from":2,"to":5},"time":0}"#;
        let batch = telemetry(alone, &gb24476).unwrap();
        assert_eq!((batch.boot, batch.prev_boot_last_seq, batch.dropped), (BootId(8), Some(9), Some((2, 5))));
        assert_eq!(batch.readings.iter().map(|one| one.seq).collect::<Vec<_>>(), [Seq(1)]);
    }

    #[test]
    fn absent_null_and_value_are_three_things() {
        let one = |text: &str| telemetry(text.as_bytes(), &gb24476).unwrap().readings.remove(0);
        let reading =
            one(r#"{"time":"2026-11-22 08:00:00","passengers":null,"door_closed":false,"codes":[5]}"#);
        assert_eq!(reading.time.to_string(), "2026-11-22T00:00:00Z", "no zone means UTC+8");
        assert_eq!(reading.passengers, Field::Unknown);
        assert_eq!(reading.door_zone, Field::Absent);
        assert_eq!(reading.door_state, Field::Known(DoorState::NotClosed));
        assert_eq!(reading.codes.known().unwrap()[0].fault.slug, "unintended_movement");
    }

    #[test]
    fn reads_events_and_active_lists() {
        let event = r#"{"boot":7,"seq":9,"time":"2026-11-22T00:00:00Z","code":"entrapment","state":"open"}"#;
        let batch = events(event.as_bytes(), &gb24476).unwrap();
        assert_eq!(
            (batch.events.len(), batch.events[0].seq, batch.events[0].state),
            (1, Seq(9), EventState::Open)
        );
        let batch = events(br#"{"active":["entrapment", 1]}"#, &gb24476).unwrap();
        assert_eq!(batch.active.unwrap()[1].fault.slug, "safety_circuit_open");
        assert_eq!(events(br#"{"code":"entrapment"}"#, &gb24476), Err(JsonError::Empty));
    }

    #[test]
    fn sent_is_whole_milliseconds_as_the_store_keeps_it() {
        let payload = br#"{"time":0,"sent":"2026-11-22T00:00:00.123456Z"}"#;
        let sent = telemetry(payload, &gb24476).unwrap().sent.unwrap();
        assert_eq!(sent.to_string(), "2026-11-22T00:00:00.123Z");
    }

    #[test]
    fn mistakes_are_named() {
        let error = |text: &str| telemetry(text.as_bytes(), &gb24476).unwrap_err().to_string();
        assert!(error("{").contains("line 1"), "{}", error("{"));
        assert_eq!(error(r#"{"time":0,"service_mode":8}"#), "service_mode 8 is out of range");
        assert_eq!(error(r#"{"time":0,"load_kg":99999}"#), "load_kg 99999 is out of range");
        assert!(error(r#"{"time":0,"car_temp_c":1e300}"#).contains("car_temp_c"));
        assert!(error(r#"{"time":"noon"}"#).contains("RFC 3339"));
        assert!(error(r#"{"seq":1}"#).contains("time"));
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0_usize..300) {
            let _ = telemetry(&bytes, &gb24476);
            let _ = events(&bytes, &gb24476);
            let mut bent = EXAMPLE.as_bytes().to_vec();
            let at = at % bent.len();
            bent[at] = bytes.first().copied().unwrap_or(b'"');
            let _ = telemetry(&bent, &gb24476);
        }
    }
}
