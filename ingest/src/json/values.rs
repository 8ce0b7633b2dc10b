//! Single values of the open JSON. Where a vendor may write one in several ways and all mean the same, all are taken;
//! the schema beside each says which.

use std::any::type_name;
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use domain::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// A whole number, also as `225.0`: JSON knows no difference, and some languages know no other numbers.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[serde(transparent)]
pub(crate) struct Whole<T>(pub(crate) T);

/// Above it a number with a point or an exponent is no longer exact: two would be taken for one.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

fn whole(number: f64) -> Option<i64> {
    (number.fract() == 0.0 && number.abs() <= EXACT_MAX).then_some(number as i64)
}

impl<T: JsonSchema> JsonSchema for Whole<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

struct WholeVisitor<T>(PhantomData<T>);

impl<'de, T: TryFrom<i128>> Deserialize<'de> for Whole<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_i64(WholeVisitor(PhantomData))
    }
}

impl<T: TryFrom<i128>> Visitor<'_> for WholeVisitor<T> {
    type Value = Whole<T>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "a whole number ({})", type_name::<T>())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Whole<T>, E> {
        let fitting = T::try_from(i128::from(number)).map(Whole);
        fitting.map_err(|_| E::invalid_value(Unexpected::Signed(number), &self))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Whole<T>, E> {
        let fitting = T::try_from(i128::from(number)).map(Whole);
        fitting.map_err(|_| E::invalid_value(Unexpected::Unsigned(number), &self))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Whole<T>, E> {
        match whole(number) {
            Some(whole) => self.visit_i64(whole),
            None => Err(E::invalid_type(Unexpected::Float(number), &self)),
        }
    }
}

/// A device time: RFC 3339, also with a space or `_` for the `T`; without a zone it is UTC+8 (DOMAIN.md 6); a number
/// is milliseconds since 1970.
pub(crate) struct DeviceTime(pub(crate) Timestamp);

impl JsonSchema for DeviceTime {
    fn schema_name() -> Cow<'static, str> {
        "DeviceTime".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Device time: RFC 3339, without a zone UTC+8; or ms since 1970",
            "anyOf": [
                {
                    "type": "string",
                    "pattern": "^\\d{4}-\\d{2}-\\d{2}[Tt _]\\d{2}:\\d{2}:\\d{2}(\\.\\d+)?([Zz]|[+-]\\d{2}:\\d{2})?$",
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

#[derive(Clone, Copy)]
struct TimeVisitor;

impl<'de> Deserialize<'de> for DeviceTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TimeVisitor)
    }
}

impl Visitor<'_> for TimeVisitor {
    type Value = DeviceTime;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(
            "a time: RFC 3339 (2026-11-22T08:00:00+08:00), \"2026-11-22 08:00:00\" (UTC+8), or ms since 1970",
        )
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<DeviceTime, E> {
        let read = moment(text).map(DeviceTime);
        read.ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }

    fn visit_i64<E: Error>(self, millis: i64) -> Result<DeviceTime, E> {
        Ok(DeviceTime(Timestamp::from_millis(millis)))
    }

    fn visit_u64<E: Error>(self, millis: u64) -> Result<DeviceTime, E> {
        let fitting = i64::try_from(millis);
        self.visit_i64(fitting.map_err(|_| E::invalid_value(Unexpected::Unsigned(millis), &self))?)
    }

    fn visit_f64<E: Error>(self, millis: f64) -> Result<DeviceTime, E> {
        let fitting = whole(millis);
        self.visit_i64(fitting.ok_or_else(|| E::invalid_value(Unexpected::Float(millis), &self))?)
    }
}

fn moment(text: &str) -> Option<Timestamp> {
    // The readers below take more than RFC 3339 does: years with a sign, and any separator.
    let is_plain = text.as_bytes().first()?.is_ascii_digit() && b"Tt _".contains(text.as_bytes().get(10)?);
    let read = || text.parse().ok().or_else(|| local(text));
    is_plain.then(read).flatten()
}

/// Without a zone.
fn local(text: &str) -> Option<Timestamp> {
    format!("{text}+08:00").parse().ok()
}

/// A slug, or a number of the profile, written as text or number.
pub(crate) struct JsonCode(pub(crate) String);

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

#[derive(Clone, Copy)]
struct CodeVisitor;

impl<'de> Deserialize<'de> for JsonCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CodeVisitor)
    }
}

impl Visitor<'_> for CodeVisitor {
    type Value = JsonCode;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a code: a text, or a whole number that is not negative")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<JsonCode, E> {
        Ok(JsonCode(text.to_owned()))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<JsonCode, E> {
        Ok(JsonCode(number.to_string()))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<JsonCode, E> {
        let fitting = whole(number).and_then(|number| u64::try_from(number).ok());
        self.visit_u64(fitting.ok_or_else(|| E::invalid_value(Unexpected::Float(number), &self))?)
    }
}
