//! A vendor's JSON, read with its profile: the same batches as from the open JSON.
//!
//! Names are looked up whole, nested ones with dots (`status.door`). What the profile does not take is ignored.
//! A value without a meaning, of another type or out of its range is unknown and counted: one broken sensor must
//! not cost the rest of the reading. Only a payload without form or time is refused.

mod codes;

use domain::{
    BootId, Code, EventBatch, EventState, FaultEvent, Field, Floor, Passengers, RangeError, Reading, Seq,
    Statistics, TelemetryBatch, Timestamp, limits,
};
use proto::decode::{DecodeError, Part, Refused, Taken, apart, expanded, none_taken};
use serde_json::{Map, Value};

use super::ProfileView;
use super::rule::{Outcome, text_of};
use super::target::{Form, TARGETS_LEN, Target};
use super::trace::{FieldLine, Trace};
use crate::json_statistics;

/// Why a payload cannot be read with a profile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum VendorError {
    /// Not JSON.
    #[error("{0}")]
    Json(String),
    /// Neither an object nor a list of them.
    #[error("an object was expected, or a list of objects")]
    Shape,
    /// No moment.
    #[error("no time: profile {profile} reads it from {names}, and '{found}' is none it understands")]
    Time { profile: String, names: String, found: String },
    /// An event without its parts.
    #[error("an event has a code, a time and a state, or there is a list of all active codes")]
    Event,
    /// Readings of two boots, whose numbers would be taken for one row of numbers.
    #[error("readings of boot {one} and of boot {other} in one payload: each boot is sent on its own")]
    Boots { one: u32, other: u32 },
    /// A value outside its bounds.
    #[error(transparent)]
    Value(#[from] DecodeError),
}

impl From<RangeError> for VendorError {
    fn from(error: RangeError) -> Self {
        Self::Value(error.into())
    }
}

/// One payload being read.
pub(crate) struct Vendor<'a> {
    view: ProfileView<'a>,
    /// Values without a meaning.
    pub(crate) unmapped: u32,
    /// Steps, if somebody wants to see them.
    pub(crate) trace: Option<Trace>,
}

/// Objects within objects that names are looked for in.
const DEPTH_MAX: usize = 4;
/// Of a name with dots.
pub(super) const NAME_PARTS_MAX: usize = DEPTH_MAX + 1;

/// The values of one object, by what they become.
struct Found<'v> {
    values: [Option<(&'v Value, u8)>; TARGETS_LEN],
    /// Names, only while traced.
    names: Vec<(Target, String)>,
}

impl<'v> Found<'v> {
    fn get(&self, target: Target) -> Option<&'v Value> {
        self.values[target as usize].map(|(value, _)| value)
    }
}

/// What a payload says around its readings or events; where they stand in a list of their own, they say it
/// themselves.
#[derive(Default)]
struct Around {
    boot: Option<BootId>,
    sent: Option<Timestamp>,
    prev_boot_last_seq: Option<i64>,
    dropped: Option<(i64, i64)>,
}

impl<'a> Vendor<'a> {
    pub(crate) fn new(view: ProfileView<'a>) -> Self {
        Self { view, unmapped: 0, trace: None }
    }

    pub(crate) fn traced(view: ProfileView<'a>) -> Self {
        Self { view, unmapped: 0, trace: Some(Trace::default()) }
    }

    /// Reads what came under `telemetry.json`. An error where no reading can be taken.
    pub(crate) fn telemetry(
        &mut self,
        payload: &[u8],
    ) -> Result<Taken<TelemetryBatch, VendorError>, VendorError> {
        let root = parse(payload)?;
        let mut around = Around::default();
        let (envelope, list) = match &root {
            Value::Object(object) => {
                let envelope = self.find(object);
                self.around(&mut around, &envelope, object)?;
                let list = match envelope.get(Target::Readings) {
                    Some(Value::Array(list)) => list.as_slice(),
                    Some(one @ Value::Object(_)) => std::slice::from_ref(one),
                    Some(_) => return Err(VendorError::Shape),
                    None => &[],
                };
                (Some(envelope), list)
            }
            Value::Array(list) => (None, list.as_slice()),
            _ => return Err(VendorError::Shape),
        };
        let Taken { taken: readings, refused } = if let Some(alone) =
            envelope.as_ref().filter(|envelope| envelope.get(Target::Readings).is_none())
        {
            Taken { taken: vec![self.reading(alone, None)?], refused: vec![] }
        } else {
            let count = list.len();
            let no_readings = DecodeError::Count { what: "readings", count, bound: "1 to 1,000" };
            if count > limits::BATCH_READINGS_MAX {
                return Err(no_readings.into());
            }
            let time = envelope.as_ref().and_then(|envelope| self.moment(envelope, Target::Time));
            let mut parts = Vec::with_capacity(count);
            for value in list {
                parts.push(self.part(value, &mut around, |this, found| this.reading(found, time))?);
            }
            let read = apart(parts.into_iter());
            if read.taken.is_empty() {
                return Err(none_taken(read.refused, no_readings.into()));
            }
            read
        };
        let taken = TelemetryBatch {
            boot: around.boot.unwrap_or_default(),
            sent: around.sent.map(whole_millis),
            prev_boot_last_seq: around.prev_boot_last_seq,
            dropped: around.dropped,
            readings,
        };
        Ok(Taken { taken, refused })
    }

    /// One of a list. An error where no other of the list can be taken either.
    fn part<T>(
        &mut self,
        value: &Value,
        around: &mut Around,
        read: impl FnOnce(&mut Self, &Found<'_>) -> Result<T, VendorError>,
    ) -> Result<Part<T, VendorError>, VendorError> {
        let Value::Object(object) = value else { return Ok(Err((None, VendorError::Shape))) };
        let found = self.find(object);
        self.around(around, &found, object)?;
        let part = read(self, &found);
        Ok(part.map_err(|error| (own_number(&found), error)))
    }

    /// Reads what came under `stats.json`: times, numbers and boots by the profile, counters by the names of the open
    /// JSON or of GB/T 24476, in their units.
    pub(crate) fn statistics(&mut self, payload: &[u8]) -> Result<Statistics, VendorError> {
        const AROUND: [Target; 4] = [Target::Time, Target::Sent, Target::Seq, Target::Boot];
        let Value::Object(object) = parse(payload)? else { return Err(VendorError::Shape) };
        let found = self.find(&object);
        let Some(time) = self.moment(&found, Target::Time) else { return Err(self.no_time(&found)) };
        let sent = self.moment(&found, Target::Sent);
        let (seq, boot) = (self.count(&found, Target::Seq), self.boot(&found).unwrap_or_default().0);
        let is_around = |name: &str| {
            let targets = self.view.profile.names.get(name);
            targets.is_some_and(|targets| targets.iter().any(|(target, _)| AROUND.contains(target)))
        };
        let mut plain: Map<String, Value> = object
            .iter()
            .filter(|(name, _)| !is_around(name))
            .map(|(name, it)| (name.clone(), it.clone()))
            .collect();
        plain.insert("time".to_owned(), time.to_string().into());
        plain.extend(sent.map(|sent| ("sent".to_owned(), sent.to_string().into())));
        plain.extend(seq.map(|seq| ("seq".to_owned(), seq.into())));
        plain.insert("boot".to_owned(), boot.into());
        json_statistics::named(plain).map_err(|error| VendorError::Json(error.to_string()))
    }

    /// Reads what came under `event.json`. An error where nothing of it can be taken.
    pub(crate) fn events(&mut self, payload: &[u8]) -> Result<Taken<EventBatch, VendorError>, VendorError> {
        let root = parse(payload)?;
        let mut around = Around::default();
        let (mut active, mut time, mut list) = (None, None, &[][..]);
        let (mut events, mut parts) = (Vec::new(), Vec::new());
        match &root {
            Value::Array(all) => list = all.as_slice(),
            Value::Object(object) => {
                let found = self.find(object);
                self.around(&mut around, &found, object)?;
                if let Some(codes) = found.get(Target::Active) {
                    active = self.codes(codes)?.known();
                }
                match found.get(Target::Events) {
                    Some(Value::Array(all)) => list = all.as_slice(),
                    Some(one @ Value::Object(_)) => list = std::slice::from_ref(one),
                    Some(Value::Null) | None => {}
                    Some(_) => return Err(VendorError::Shape),
                }
                if found.get(Target::Code).is_some_and(|code| !code.is_null()) {
                    let part = self.event(&found, None, &mut events);
                    parts.push(part.map_err(|error| (own_number(&found), error)));
                }
                if !list.is_empty() {
                    time = self.moment(&found, Target::Time);
                }
            }
            _ => return Err(VendorError::Shape),
        }
        for value in list {
            parts.push(self.part(value, &mut around, |this, found| this.event(found, time, &mut events))?);
            if events.len() > limits::BATCH_EVENTS_MAX {
                break;
            }
        }
        let refused: Vec<Refused<VendorError>> = apart(parts.into_iter()).refused;
        if events.is_empty() && active.is_none() {
            return Err(none_taken(refused, VendorError::Event));
        }
        let events = expanded::<VendorError>(events.into_iter().map(Ok))?.taken;
        let (boot, sent) = (around.boot.unwrap_or_default(), around.sent.map(whole_millis));
        Ok(Taken { taken: EventBatch { boot, sent, events, active }, refused })
    }

    fn reading(&mut self, found: &Found<'_>, time: Option<Timestamp>) -> Result<Reading, VendorError> {
        let Some(time) = self.moment(found, Target::Time).or(time) else { return Err(self.no_time(found)) };
        let mut reading = Reading::new(Seq(self.count(found, Target::Seq).unwrap_or(0)), time);
        reading.service_mode = self.word(found, Target::ServiceMode);
        reading.car_status = self.word(found, Target::CarStatus);
        reading.direction = self.word(found, Target::CarDirection);
        reading.door_zone = self.flag(found, Target::DoorZone);
        reading.door_state = self.word(found, Target::DoorState);
        let closed = self.flag(found, Target::DoorClosed);
        if !reading.door_state.is_sent() {
            use domain::DoorState::{Closed, NotClosed};
            reading.door_state = closed.map(|closed| if closed { Closed } else { NotClosed });
        }
        reading.passengers = self
            .flag(found, Target::Passengers)
            .map(|inside| if inside { Passengers::Yes } else { Passengers::No });
        reading.floor = self.floor(found);
        reading.floor_ordinal = self.measure(found, Target::FloorOrdinal).map(|number| number as i16);
        reading.position_mm = self.measure(found, Target::PositionMm).map(|number| number as i32);
        reading.velocity_mm_s = self.measure(found, Target::VelocityMmS).map(|number| number as i32);
        reading.load_kg = self.measure(found, Target::LoadKg).map(|number| number as i16);
        reading.people_count = self.measure(found, Target::PeopleCount).map(|number| number as i16);
        reading.vibration_mm_s2 = self.measure(found, Target::VibrationMmS2).map(|number| number as i32);
        reading.temperature_dc = self.tenths(found, Target::CarTempC);
        let button = self.flag(found, Target::AlarmButton);
        (reading.flags, reading.flags_told) = self.flags(found, button);
        if let Some(value) = found.get(Target::Codes) {
            reading.codes = self.codes(value)?;
        }
        if let (Field::Known(true), Field::Known(list)) = (button, &mut reading.codes) {
            self.add_alarm_button(list);
        }
        reading.check()?;
        Ok(reading)
    }

    /// Adds all that an object says, or nothing. What is more than a message may hold is not added.
    fn event(
        &mut self,
        found: &Found<'_>,
        time: Option<Timestamp>,
        events: &mut Vec<(FaultEvent, Option<Code>)>,
    ) -> Result<(), VendorError> {
        let (Some(value), Some(_)) = (found.get(Target::Code), found.get(Target::State)) else {
            return Err(VendorError::Event);
        };
        let Some(time) = self.moment(found, Target::Time).or(time) else { return Err(self.no_time(found)) };
        // A state without a meaning: it happened, and its end will not be told.
        let state = match self.number(found, Target::State) {
            Field::Known(number) => EventState::try_from(i64::from(number))?,
            Field::Unknown | Field::Absent => EventState::Once,
        };
        let seq = Seq(self.count(found, Target::Seq).unwrap_or(0));
        let before = events.len();
        for raw in self.raw_codes(value) {
            let (code, second) = match proto::decode::code(&raw, &|raw| self.view.meaning(raw)) {
                Ok(codes) => codes,
                Err(error) => {
                    events.truncate(before);
                    return Err(error.into());
                }
            };
            for code in [Some(&code), second.as_ref()].into_iter().flatten() {
                self.tell_code(code);
            }
            events.push((FaultEvent { seq, time, code, state }, second));
            if events.len() > limits::BATCH_EVENTS_MAX {
                break;
            }
        }
        Ok(())
    }

    /// What of an object the profile takes.
    fn find<'v>(&mut self, object: &'v Map<String, Value>) -> Found<'v> {
        let mut found = Found { values: [None; TARGETS_LEN], names: Vec::new() };
        self.collect(object, "", 0, &mut found);
        found
    }

    fn collect<'v>(
        &mut self,
        object: &'v Map<String, Value>,
        prefix: &str,
        depth: usize,
        found: &mut Found<'v>,
    ) {
        let mut joined = String::new();
        for (key, value) in object {
            let path = if prefix.is_empty() {
                key.as_str()
            } else {
                joined.clear();
                joined.extend([prefix, ".", key]);
                joined.as_str()
            };
            // An object is a value only where a list of objects is wanted; elsewhere it holds names.
            let takes = |targets: &&Vec<(Target, u8)>| {
                !value.is_object() || targets.iter().any(|(target, _)| target.info().form == Form::List)
            };
            if let Some(targets) = self.view.profile.names.get(path).filter(takes) {
                for (target, rank) in targets {
                    let place = &mut found.values[*target as usize];
                    if place.is_none_or(|(_, before)| *rank < before) {
                        *place = Some((value, *rank));
                        if self.trace.is_some() {
                            found.names.retain(|(known, _)| known != target);
                            found.names.push((*target, path.to_owned()));
                        }
                    }
                }
            } else if let (Value::Object(inner), true) = (value, depth < DEPTH_MAX) {
                let path = path.to_owned();
                self.collect(inner, &path, depth + 1, found);
            } else if let Some(trace) = &mut self.trace
                && !path.starts_with("dropped.")
            {
                trace.ignored.push(path.to_owned());
            }
        }
    }

    fn number(&mut self, found: &Found<'_>, target: Target) -> Field<i16> {
        let Some(value) = found.get(target) else { return Field::Absent };
        let rule = self.view.profile.rules(self.view.kind).of(target);
        let spoken = self.view.profile.kinds.contains(&self.view.kind) || target == Target::State;
        let outcome = if spoken { rule.number(value) } else { Outcome::Unmapped };
        let told = match outcome {
            Outcome::Known(number) => rule.info.word_of(number),
            Outcome::Unknown | Outcome::Unmapped => "unknown",
        };
        self.tell(found, target, value, told, outcome == Outcome::Unmapped);
        match outcome {
            Outcome::Known(number) => Field::Known(number),
            Outcome::Unknown | Outcome::Unmapped => Field::Unknown,
        }
    }

    fn word<T: TryFrom<i64>>(&mut self, found: &Found<'_>, target: Target) -> Field<T> {
        let number = self.number(found, target);
        number.try_map(|number| T::try_from(i64::from(number))).unwrap_or(Field::Unknown)
    }

    fn flag(&mut self, found: &Found<'_>, target: Target) -> Field<bool> {
        self.number(found, target).map(|number| number != 0)
    }

    /// Contacts, each by a name of its own or all in one number, and which of them are told. One that is not known
    /// is not told.
    fn flags(&mut self, found: &Found<'_>, button: Field<bool>) -> (Field<i32>, i32) {
        let mut all = self.measure(found, Target::Flags).map(|number| number as i32);
        let mut told = if all.known().is_some() { Reading::FLAGS_ALL } else { 0 };
        for (target, bit) in [
            (Target::CarOverload, Reading::FLAG_OVERLOAD),
            (Target::BatteryPower, Reading::FLAG_BATTERY_POWER),
            (Target::SafetyCircuitOpen, Reading::FLAG_SAFETY_CIRCUIT_OPEN),
            (Target::DoorLockOpen, Reading::FLAG_DOOR_LOCK_OPEN),
            (Target::AlarmButton, Reading::FLAG_ALARM_BUTTON),
        ] {
            let one = if target == Target::AlarmButton { button } else { self.flag(found, target) };
            if let Field::Known(set) = one {
                let before = all.known().unwrap_or(0);
                all = Field::Known(if set { before | bit } else { before });
                told |= bit;
            } else if all == Field::Absent && one.is_sent() {
                all = Field::Unknown;
            }
        }
        (all, if all.known().is_some() { told } else { Reading::FLAGS_ALL })
    }

    fn measured(&mut self, found: &Found<'_>, target: Target, steps: f64) -> Field<f64> {
        let Some(value) = found.get(target) else { return Field::Absent };
        let rule = self.view.profile.rules(self.view.kind).of(target);
        // A canonical name says its unit itself.
        let is_canonical = found.values[target as usize].is_some_and(|(_, rank)| rank == 0);
        let read = rule.measure(value, if is_canonical { 1.0 } else { rule.factor });
        let told = match (&read, self.trace.is_some()) {
            (Ok(Field::Known(number)), true) => {
                format!("{} {}", (number * steps).round() / steps, rule.info.unit)
            }
            _ => "unknown".to_owned(),
        };
        self.tell(found, target, value, told.trim_end(), read.is_err());
        read.unwrap_or(Field::Unknown)
    }

    /// Rounded to our unit.
    fn measure(&mut self, found: &Found<'_>, target: Target) -> Field<f64> {
        self.measured(found, target, 1.0).map(f64::round)
    }

    /// Tenths of our unit.
    fn tenths(&mut self, found: &Found<'_>, target: Target) -> Field<i16> {
        self.measured(found, target, 10.0).map(|number| (number * 10.0).round() as i16)
    }

    fn floor(&mut self, found: &Found<'_>) -> Field<Floor> {
        let Some(value) = found.get(Target::Floor) else { return Field::Absent };
        let label = text_of(value).and_then(|text| Floor::new(&text).ok());
        let told = label.as_ref().map_or("unknown", Floor::as_str).to_owned();
        self.tell(found, Target::Floor, value, &told, label.is_none() && !value.is_null());
        label.map_or(Field::Unknown, Field::Known)
    }

    fn count(&mut self, found: &Found<'_>, target: Target) -> Option<i64> {
        let value = found.get(target).filter(|value| !value.is_null())?;
        let number = counted(value);
        let told = number.map_or("none".to_owned(), |number| number.to_string());
        self.tell(found, target, value, &told, number.is_none());
        number
    }

    /// Of a number that is too large for 32 bits, such as the milliseconds of the start, the lower ones: boots stay
    /// apart, and one number more is one boot later.
    fn boot(&mut self, found: &Found<'_>) -> Option<BootId> {
        let value = found.get(Target::Boot).filter(|value| !value.is_null())?;
        let boot = counted(value).map(|number| BootId(number as u32));
        let told = boot.map_or("none".to_owned(), |boot| boot.0.to_string());
        self.tell(found, Target::Boot, value, &told, boot.is_none());
        boot
    }

    /// Takes what `found` says beside its reading or event: the first word counts, of `sent` the last moment.
    fn around(
        &mut self,
        around: &mut Around,
        found: &Found<'_>,
        object: &Map<String, Value>,
    ) -> Result<(), VendorError> {
        if let Some(boot) = self.boot(found) {
            let first = *around.boot.get_or_insert(boot);
            if first != boot {
                return Err(VendorError::Boots { one: first.0, other: boot.0 });
            }
        }
        around.sent = around.sent.max(self.moment(found, Target::Sent));
        if let Some(seq) = self.count(found, Target::PrevBootLastSeq) {
            around.prev_boot_last_seq.get_or_insert(seq);
        }
        around.dropped = around.dropped.or_else(|| dropped(object));
        Ok(())
    }

    fn moment(&mut self, found: &Found<'_>, target: Target) -> Option<Timestamp> {
        let value = found.get(target).filter(|value| !value.is_null())?;
        let read = self.view.profile.clock.read(value);
        let told = read.map_or("unknown".to_owned(), |time| time.to_string());
        self.tell(found, target, value, &told, read.is_none());
        read
    }

    fn no_time(&self, found: &Found<'_>) -> VendorError {
        let mut names: Vec<&str> = self
            .view
            .profile
            .names
            .iter()
            .filter(|(_, targets)| targets.iter().any(|(target, _)| *target == Target::Time))
            .map(|(name, _)| &**name)
            .collect();
        names.sort_unstable();
        let found = found.get(Target::Time).map_or("nothing".to_owned(), Value::to_string);
        VendorError::Time {
            profile: self.view.profile.name.to_string(),
            names: names.join(", "),
            found: found.chars().take(64).collect(),
        }
    }

    fn tell(&mut self, found: &Found<'_>, target: Target, raw: &Value, value: &str, unmapped: bool) {
        self.unmapped += u32::from(unmapped);
        if let Some(trace) = &mut self.trace {
            let name = found.names.iter().find(|(known, _)| *known == target);
            trace.fields.push(FieldLine {
                name: name.map_or_else(|| target.info().name.to_owned(), |(_, name)| name.clone()),
                raw: raw.clone(),
                field: target.info().name,
                value: value.to_owned(),
                unmapped,
            });
        }
    }
}

fn parse(payload: &[u8]) -> Result<Value, VendorError> {
    let unread = |error: serde_json::Error| VendorError::Json(error.to_string());
    match serde_json::from_slice(payload) {
        // `1e400` is JSON and no number of ours. As a text it costs its own field alone.
        Err(error) if error.to_string().starts_with("number out of range") => {
            serde_json::from_slice(&with_endless_quoted(payload)).map_err(unread)
        }
        read => read.map_err(unread),
    }
}

/// The same text with each number too large for a float in quotes.
fn with_endless_quoted(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 2);
    let mut rest = payload;
    while let Some(first) = rest.first() {
        let is_text = *first == b'"';
        let len = match first {
            b'"' => text_len(rest),
            b'-' | b'0'..=b'9' => rest.iter().take_while(|byte| b"+-.eE0123456789".contains(byte)).count(),
            _ => 1,
        };
        let (token, after) = rest.split_at(len);
        let number =
            if is_text { None } else { std::str::from_utf8(token).ok().and_then(|it| it.parse().ok()) };
        let quote: &[u8] = if number.is_some_and(f64::is_infinite) { b"\"" } else { b"" };
        out.extend(quote.iter().chain(token).chain(quote));
        rest = after;
    }
    out
}

/// Bytes of the text in quotes that a payload begins with.
fn text_len(payload: &[u8]) -> usize {
    let mut is_escaped = false;
    let end = payload.iter().skip(1).position(|byte| {
        let is_end = *byte == b'"' && !is_escaped;
        is_escaped = *byte == b'\\' && !is_escaped;
        is_end
    });
    end.map_or(payload.len(), |end| end + 2)
}

/// As [`Vendor::count`] reads it, of what is not taken.
fn own_number(found: &Found<'_>) -> Option<Seq> {
    found.get(Target::Seq).and_then(counted).filter(|number| *number > 0).map(Seq)
}

/// As in the open JSON: `{"dropped":{"from":1,"to":2}}`.
fn dropped(object: &Map<String, Value>) -> Option<(i64, i64)> {
    let range = object.get("dropped")?;
    Some((range.get("from")?.as_i64()?, range.get("to")?.as_i64()?))
}

/// A number that counts something, or a text of one.
fn counted(value: &Value) -> Option<i64> {
    text_of(value)?.parse().ok().filter(|number| (0..=limits::SEQ_MAX).contains(number))
}

/// As the store keeps `sent`: see `json.rs`.
fn whole_millis(time: Timestamp) -> Timestamp {
    Timestamp::from_millis(time.millis())
}
