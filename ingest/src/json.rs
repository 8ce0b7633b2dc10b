//! The open JSON payload, so that `mosquitto_pub` is a terminal. Field names of GB/T 24476-2017 as in
//! DOMAIN.md 3; `docs/wire.md` explains it for vendors. An absent field is unchanged within the boot, `null`
//! is unknown. Fields of other names are ignored, so that a newer terminal can speak to an older server.

mod values;

use domain::{
    BootId, CarStatus, Code, Direction, DoorState, EventBatch, EventState, FaultEvent, Field, Floor,
    Passengers, RangeError, Reading, Seq, ServiceMode, TelemetryBatch, limits,
};
use proto::decode::{CodeTable, DecodeError, Part, Taken, apart, code, expanded, none_taken, told};
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use values::JsonCode;
pub(crate) use values::{DeviceTime, Whole};

/// Why a JSON payload is not a message.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum JsonError {
    /// Not JSON, or not of this shape; names line and column.
    #[error("{0}")]
    Shape(String),
    /// A value outside its table, range or count.
    #[error(transparent)]
    Value(#[from] DecodeError),
    /// A measured value out of its range.
    #[error("{field} {value:?} is out of range")]
    Measured {
        /// The field.
        field: &'static str,
        /// What was sent.
        value: f64,
    },
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

/// Tells absent, `null` and a value apart; used with `#[serde(default)]`.
fn field<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Field<T>, D::Error> {
    Ok(match Option::<T>::deserialize(deserializer)? {
        Some(value) => Field::Known(value),
        None => Field::Unknown,
    })
}

/// The decoder's type, and beside it the same fields as a schema sees them: each may be left out or `null`.
macro_rules! fields {
    ($($(#[$doc:meta])* $name:ident: $type:ty $(=> $bounds:meta $(and $more:meta)?)?),+ $(,)?) => {
        #[derive(Deserialize)]
        struct JsonReading {
            seq: Option<Whole<u64>>,
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
            #[schemars(range(max = 9_223_372_036_854_775_806_u64))]
            seq: Option<Whole<u64>>,
            time: DeviceTime,
            $(
                $(#[$doc])*
                $(#[schemars($bounds $(, $more)?)])?
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
    service_mode: Whole<i64> => range(min = 0, max = 7),
    /// 0 stopped, 1 running.
    car_status: Whole<i64> => range(min = 0, max = 1),
    /// The same of an escalator or walk; ignored beside `car_status`.
    operation_status: Whole<i64> => range(min = 0, max = 1),
    /// 0 none, 1 up, 2 down.
    car_direction: Whole<i64> => range(min = 0, max = 2),
    /// The same of an escalator or walk; ignored beside `car_direction`.
    operation_direction: Whole<i64> => range(min = 0, max = 2),
    /// True: the car is in the unlocking zone.
    door_zone: bool,
    /// 0 unknown, 1 closing, 2 closed, 3 opening, 4 open, 5 locked, 6 held not fully closed, 7 only known to be not
    /// fully closed.
    door_state: Whole<i64> => range(min = 0, max = 7),
    /// True: fully closed. For terminals with nothing but the contact; ignored beside `door_state`.
    door_closed: bool,
    /// True: somebody is in the car.
    passengers: bool,
    /// As displayed, at most 16 bytes of UTF-8, no control characters.
    floor: String => length(min = 1, max = 16) and regex(pattern = "^[^\\u0000-\\u001F\\u007F-\\u009F]+$"),
    /// Counted from the lowest stop.
    floor_ordinal: Whole<i64> => range(min = -32_768, max = 32_767),
    /// Above the lowest stop, mm.
    position_mm: Whole<i64> => range(min = -2_000_000, max = 2_000_000),
    /// Up positive, mm/s.
    velocity_mm_s: Whole<i64> => range(min = -30_000, max = 30_000),
    /// kg.
    load_kg: Whole<i64> => range(min = 0, max = 30_000),
    /// People counted.
    people_count: Whole<i64> => range(min = 0, max = 200),
    /// Sum of 1 overload, 2 battery power, 4 safety circuit open, 8 door-lock circuit open, 16 alarm button.
    flags: Whole<i64> => range(min = 0, max = 31),
    /// Which bits of `flags` are told, where not all of them are; the others stay as they were.
    flags_told: Whole<i64> => range(min = 0, max = 31),
    /// °C.
    car_temp_c: f64 => range(min = -200.0, max = 200.0),
    /// mm/s².
    vibration_mm_s2: Whole<i64> => range(min = 0, max = 1_000_000),
    /// All codes active now.
    codes: Vec<JsonCode> => length(max = 32),
}

fn codes(list: &[JsonCode], table: CodeTable<'_>) -> Result<Vec<Code>, DecodeError> {
    proto::decode::codes(list.iter().map(|code| code.0.as_str()), table)
}

/// 0 where none was given.
pub(crate) fn seq(sent: Option<Whole<u64>>) -> Result<Seq, DecodeError> {
    proto::decode::seq(sent.map_or(0, |seq| seq.0))
}

/// The one, or the other where it was not sent.
fn or<T>(one: Field<T>, other: Field<T>) -> Field<T> {
    if one.is_sent() { one } else { other }
}

fn tabled<T: TryFrom<i64, Error = RangeError>>(value: Field<Whole<i64>>) -> Result<Field<T>, RangeError> {
    value.try_map(|value| T::try_from(value.0))
}

fn narrow<T: TryFrom<i64>>(field: &'static str, value: Field<Whole<i64>>) -> Result<Field<T>, RangeError> {
    value.try_map(|Whole(value)| T::try_from(value).map_err(|_| RangeError { field, value }))
}

/// A measured value within its bounds, before it is rounded to what is kept.
pub(crate) fn within(field: &'static str, value: f64, low: f64, high: f64) -> Result<f64, JsonError> {
    if (low..=high).contains(&value) { Ok(value) } else { Err(JsonError::Measured { field, value }) }
}

impl JsonReading {
    fn part(self, table: CodeTable<'_>) -> Part<Reading, JsonError> {
        let number = seq(self.seq);
        self.check(table).map_err(|error| (told(number), error))
    }

    fn check(self, table: CodeTable<'_>) -> Result<Reading, JsonError> {
        let mut reading = Reading::new(seq(self.seq)?, self.time.0);
        reading.service_mode = tabled::<ServiceMode>(self.service_mode)?;
        reading.car_status = or(tabled::<CarStatus>(self.car_status)?, tabled(self.operation_status)?);
        reading.direction = or(tabled::<Direction>(self.car_direction)?, tabled(self.operation_direction)?);
        reading.door_zone = self.door_zone;
        reading.door_state = tabled::<DoorState>(self.door_state)?;
        if !reading.door_state.is_sent() {
            let state = |closed| if closed { DoorState::Closed } else { DoorState::NotClosed };
            reading.door_state = self.door_closed.map(state);
        }
        reading.passengers =
            self.passengers.map(|inside| if inside { Passengers::Yes } else { Passengers::No });
        reading.floor = self.floor.try_map(|label| Floor::new(&label))?;
        reading.floor_ordinal = narrow("floor_ordinal", self.floor_ordinal)?;
        reading.position_mm = narrow("position_mm", self.position_mm)?;
        reading.velocity_mm_s = narrow("velocity_mm_s", self.velocity_mm_s)?;
        reading.load_kg = narrow("load_kg", self.load_kg)?;
        reading.people_count = narrow("people_count", self.people_count)?;
        reading.flags = narrow("flags", self.flags)?;
        if let Field::Known(told) = narrow("flags_told", self.flags_told)? {
            reading.flags_told = told;
        }
        let celsius = self.car_temp_c.try_map(|celsius| within("car_temp_c", celsius, -200.0, 200.0))?;
        reading.temperature_dc = celsius.map(|celsius| (celsius * 10.0).round() as i16);
        reading.vibration_mm_s2 = narrow("vibration_mm_s2", self.vibration_mm_s2)?;
        reading.codes = self.codes.try_map(|list| codes(&list, table))?;
        reading.check()?;
        if reading.flags.known().is_none() {
            reading.flags_told = Reading::FLAGS_ALL;
        }
        Ok(reading)
    }
}

/// Readings of one boot, oldest first, or what a reading that stands alone says around it.
#[derive(Deserialize, JsonSchema)]
#[serde(bound(deserialize = "R: Deserialize<'de>"))]
#[schemars(rename = "TelemetryBatch", bound = "")]
pub(crate) struct JsonTelemetry<R> {
    /// Names this run of the terminal's software; another number after every restart.
    #[serde(default)]
    #[schemars(range(max = 4_294_967_295_u32))]
    boot: Whole<u32>,
    /// The terminal's clock at this transmission, rewritten when it is sent again.
    sent: Option<DeviceTime>,
    /// In the first transmission after a restart: the last `seq` of the boot before.
    prev_boot_last_seq: Option<Whole<i64>>,
    /// Numbers the terminal had to discard.
    dropped: Option<JsonRange>,
    /// 1 to 1,000; without it this object is the reading.
    #[serde(default)]
    #[schemars(with = "Option<Vec<ReadingSchema>>", length(min = 1, max = 1_000))]
    readings: Option<Vec<R>>,
}

/// First and last, both included.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "SeqRange")]
struct JsonRange {
    /// The first.
    from: Whole<i64>,
    /// The last.
    to: Whole<i64>,
}

/// Decodes `telemetry.json`: a batch with `readings`, or one reading object. Seq 0 means "none given". An error where
/// no reading can be taken.
pub(crate) fn telemetry(
    payload: &[u8],
    table: CodeTable<'_>,
) -> Result<Taken<TelemetryBatch, JsonError>, JsonError> {
    match serde_json::from_slice::<JsonTelemetry<JsonReading>>(payload) {
        Ok(mut batch) => {
            if batch.readings.is_none() {
                batch.readings = Some(vec![serde_json::from_slice(payload)?]);
            }
            batch.read(|reading| reading.part(table))
        }
        // Some reading has not its shape: each by itself.
        Err(error) => match serde_json::from_slice::<JsonTelemetry<&RawValue>>(payload) {
            Ok(batch) if batch.readings.is_some() => {
                batch.read(|part| shaped(part, |reading: JsonReading| reading.part(table)))
            }
            _ => Err(error.into()),
        },
    }
}

/// One part of a list, if it has its shape.
fn shaped<'p, S: Deserialize<'p>, T>(
    part: &'p RawValue,
    read: impl Fn(S) -> Part<T, JsonError>,
) -> Part<T, JsonError> {
    #[derive(Deserialize)]
    struct Number {
        seq: Option<Whole<u64>>,
    }
    match serde_json::from_str(part.get()) {
        Ok(sent) => read(sent),
        Err(error) => {
            let number = serde_json::from_str::<Number>(part.get()).ok();
            Err((number.and_then(|number| told(seq(number.seq))), error.into()))
        }
    }
}

impl<R> JsonTelemetry<R> {
    fn read(
        self,
        read: impl Fn(R) -> Part<Reading, JsonError>,
    ) -> Result<Taken<TelemetryBatch, JsonError>, JsonError> {
        let parts = self.readings.unwrap_or_default();
        let count = parts.len();
        let no_readings = DecodeError::Count { what: "readings", count, bound: "1 to 1,000" };
        if count > limits::BATCH_READINGS_MAX {
            return Err(no_readings.into());
        }
        let Taken { taken: readings, refused } = apart(parts.into_iter().map(read));
        if readings.is_empty() {
            return Err(none_taken(refused, no_readings.into()));
        }
        let taken = TelemetryBatch {
            boot: BootId(self.boot.0),
            sent: self.sent.map(DeviceTime::whole_millis),
            prev_boot_last_seq: self.prev_boot_last_seq.map(|seq| seq.0),
            dropped: self.dropped.map(|range| (range.from.0, range.to.0)),
            readings,
        };
        Ok(Taken { taken, refused })
    }
}

/// Payload of lift/v1/{area}/{terminal}/event.json: one event, a list `events`, after a reconnect a list `active`
/// of all that is active, or several of them together. Names that are not listed are ignored.
#[derive(Deserialize, JsonSchema)]
#[serde(bound(deserialize = "E: Deserialize<'de>"))]
#[schemars(rename = "Event", transform = events_say_something, bound = "")]
pub(crate) struct JsonEvents<E> {
    /// Names this run of the terminal's software; another number after every restart.
    #[serde(default)]
    #[schemars(range(max = 4_294_967_295_u32))]
    boot: Whole<u32>,
    /// The terminal's clock at this transmission.
    sent: Option<DeviceTime>,
    /// From the same counter as readings; without it the server derives one.
    #[schemars(range(max = 9_223_372_036_854_775_806_u64))]
    seq: Option<Whole<u64>>,
    time: Option<DeviceTime>,
    code: Option<JsonCode>,
    /// It began, it ended, or it happened and no end will be told.
    #[schemars(with = "Option<StateSchema>")]
    state: Option<EventState>,
    /// At most 256.
    #[serde(default)]
    #[schemars(with = "Vec<JsonEvent>", length(max = 256))]
    events: Vec<E>,
    /// All codes active now; an empty list says that there are none.
    #[schemars(length(max = 32))]
    active: Option<Vec<JsonCode>>,
}

/// One event.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "OneEvent")]
struct JsonEvent {
    /// From the same counter as readings; without it the server derives one.
    #[schemars(range(max = 9_223_372_036_854_775_806_u64))]
    seq: Option<Whole<u64>>,
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
    fn part(self, table: CodeTable<'_>) -> Part<(FaultEvent, Option<Code>), JsonError> {
        let number = seq(self.seq);
        self.check(table).map_err(|error| (told(number), error.into()))
    }

    fn check(self, table: CodeTable<'_>) -> Result<(FaultEvent, Option<Code>), DecodeError> {
        let (code, second) = code(&self.code.0, table)?;
        Ok((FaultEvent { seq: seq(self.seq)?, time: self.time.0, code, state: self.state }, second))
    }
}

/// Decodes `event.json`: one event, a list `events`, a list `active`, or several of them together. An error where
/// nothing of it can be taken.
pub(crate) fn events(
    payload: &[u8],
    table: CodeTable<'_>,
) -> Result<Taken<EventBatch, JsonError>, JsonError> {
    match serde_json::from_slice::<JsonEvents<JsonEvent>>(payload) {
        Ok(batch) => batch.read(table, |event| event.part(table)),
        // Some event has not its shape: each by itself.
        Err(error) => match serde_json::from_slice::<JsonEvents<&RawValue>>(payload) {
            Ok(batch) if !batch.events.is_empty() => {
                batch.read(table, |part| shaped(part, |event: JsonEvent| event.part(table)))
            }
            _ => Err(error.into()),
        },
    }
}

impl<E> JsonEvents<E> {
    fn read(
        self,
        table: CodeTable<'_>,
        read: impl Fn(E) -> Part<(FaultEvent, Option<Code>), JsonError>,
    ) -> Result<Taken<EventBatch, JsonError>, JsonError> {
        // Also where there is no event that it numbers.
        seq(self.seq)?;
        let alone = match (self.time, self.code, self.state) {
            (Some(time), Some(code), Some(state)) => Some(JsonEvent { seq: self.seq, time, code, state }),
            (None | Some(_), None, None) => None,
            _ => return Err(JsonError::Empty),
        };
        let count = self.events.len() + usize::from(alone.is_some());
        if count > limits::BATCH_EVENTS_MAX {
            return Err(DecodeError::Count { what: "events", count, bound: "at most 256" }.into());
        }
        let active = self.active.map(|list| codes(&list, table)).transpose()?;
        let parts = alone.map(|event| event.part(table)).into_iter().chain(self.events.into_iter().map(read));
        let Taken { taken: events, refused } = expanded(parts.collect::<Vec<_>>().into_iter())?;
        if events.is_empty() && active.is_none() {
            return Err(none_taken(refused, JsonError::Empty));
        }
        let sent = self.sent.map(DeviceTime::whole_millis);
        Ok(Taken { taken: EventBatch { boot: BootId(self.boot.0), sent, events, active }, refused })
    }
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
        let batch = telemetry(EXAMPLE.as_bytes(), &gb24476).unwrap().taken;
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
        let batch = telemetry(alone, &gb24476).unwrap().taken;
        assert_eq!((batch.boot, batch.prev_boot_last_seq, batch.dropped), (BootId(8), Some(9), Some((2, 5))));
        assert_eq!(batch.readings.iter().map(|one| one.seq).collect::<Vec<_>>(), [Seq(1)]);
    }

    #[test]
    fn absent_null_and_value_are_three_things() {
        let one = |text: &str| telemetry(text.as_bytes(), &gb24476).unwrap().taken.readings.remove(0);
        let reading =
            one(r#"{"time":"2026-11-22 08:00:00","passengers":null,"door_closed":false,"codes":[5]}"#);
        assert_eq!(reading.time.to_string(), "2026-11-22T00:00:00Z", "no zone means UTC+8");
        let other = one(r#"{"time":"2026-11-22T08:00:00.5"}"#).time.to_string();
        assert_eq!(other, "2026-11-22T00:00:00.5Z", "as Python's isoformat() writes it");
        assert_eq!(reading.passengers, Field::Unknown);
        assert_eq!(reading.door_zone, Field::Absent);
        assert_eq!(reading.door_state, Field::Known(DoorState::NotClosed));
        assert_eq!(reading.codes.known().unwrap()[0].fault.slug, "unintended_movement");
    }

    #[test]
    fn reads_events_and_active_lists() {
        let event = r#"{"boot":7,"seq":9,"time":"2026-11-22T00:00:00Z","code":"entrapment","state":"open"}"#;
        let batch = events(event.as_bytes(), &gb24476).unwrap().taken;
        assert_eq!(
            (batch.events.len(), batch.events[0].seq, batch.events[0].state),
            (1, Seq(9), EventState::Open)
        );
        let batch = events(br#"{"active":["entrapment", 1]}"#, &gb24476).unwrap().taken;
        assert_eq!(batch.active.unwrap()[1].fault.slug, "safety_circuit_open");
        assert_eq!(events(br#"{"code":"entrapment"}"#, &gb24476), Err(JsonError::Empty));
    }

    #[test]
    fn sent_is_whole_milliseconds_as_the_store_keeps_it() {
        let payload = br#"{"time":0,"sent":"2026-11-22T00:00:00.123456Z"}"#;
        let sent = telemetry(payload, &gb24476).unwrap().taken.sent.unwrap();
        assert_eq!(sent.to_string(), "2026-11-22T00:00:00.123Z");
    }

    #[test]
    fn neighbours_of_what_is_refused_are_taken() {
        let list = r#"{"boot":7,"readings":[{"seq":1,"time":0},{"seq":2,"time":0,"load_kg":99999},
            {"seq":3,"time":"noon"},{"seq":4,"time":0,"floor":5},7,{"seq":6,"time":0}]}"#;
        let Taken { taken, refused } = telemetry(list.as_bytes(), &gb24476).unwrap();
        assert_eq!(taken.boot, BootId(7));
        assert_eq!(taken.readings.iter().map(|one| one.seq.0).collect::<Vec<_>>(), [1, 6]);
        let told: Vec<_> = refused.iter().map(|one| (one.place, one.seq.map(|seq| seq.0))).collect();
        assert_eq!(told, [(1, Some(2)), (2, Some(3)), (3, Some(4)), (4, None)]);
        assert_eq!(refused[0].error.to_string(), "load_kg 99999 is out of range");
        assert!(refused[1].error.to_string().contains("RFC 3339"));
        let none = r#"{"readings":[{"time":0,"load_kg":99999},{"time":0,"load_kg":99998}]}"#;
        let error = telemetry(none.as_bytes(), &gb24476).unwrap_err();
        assert_eq!(error.to_string(), "load_kg 99999 is out of range", "the first of them");

        let list = r#"{"time":0,"code":"a","state":"open","seq":4,
            "events":[{"time":0,"code":"","state":"once","seq":5},{"time":0,"code":"b","state":"ajar","seq":6}]}"#;
        let Taken { taken, refused } = events(list.as_bytes(), &gb24476).unwrap();
        assert_eq!(taken.events.iter().map(|one| one.seq.0).collect::<Vec<_>>(), [4]);
        let told: Vec<_> = refused.iter().map(|one| (one.place, one.seq.map(|seq| seq.0))).collect();
        assert_eq!(told, [(1, Some(5)), (2, Some(6))]);
        let active = r#"{"events":[{"time":0}],"active":["a"]}"#;
        let Taken { taken, refused } = events(active.as_bytes(), &gb24476).unwrap();
        assert_eq!((taken.active.map(|active| active.len()), refused.len()), (Some(1), 1));
        assert!(events(br#"{"events":[{"time":0}],"active":7}"#, &gb24476).is_err());
    }

    #[test]
    fn mistakes_are_named() {
        let error = |text: &str| telemetry(text.as_bytes(), &gb24476).unwrap_err().to_string();
        assert!(error("{").contains("line 1"), "{}", error("{"));
        assert_eq!(error(r#"{"time":0,"service_mode":8}"#), "service_mode 8 is out of range");
        assert_eq!(error(r#"{"time":0,"load_kg":99999}"#), "load_kg 99999 is out of range");
        assert_eq!(error(r#"{"time":0,"car_temp_c":9999999}"#), "car_temp_c 9999999.0 is out of range");
        assert_eq!(error(r#"{"time":0,"car_temp_c":1e300}"#), "car_temp_c 1e300 is out of range");
        for seq in [i64::MAX as u64, 1 << 63, u64::MAX] {
            let told = format!("seq {seq} is beyond 9223372036854775806, the last that can be counted");
            assert_eq!(error(&format!(r#"{{"time":0,"seq":{seq}}}"#)), told);
            let event = format!(r#"{{"active":[],"seq":{seq}}}"#);
            assert_eq!(events(event.as_bytes(), &gb24476).unwrap_err().to_string(), told);
        }
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
