//! How a vendor's value becomes a canonical one.

use std::collections::HashMap;

use domain::Field;
use serde_json::Value;

use super::target::{Form, TargetInfo};

/// Which of several values counts, where one is an array: doors of a car.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Several {
    /// An array is no value.
    None,
    /// True if any is true, false if all are known to be false.
    Any,
    /// True if all are true, false if any is false.
    All,
    /// The door that is furthest open; unknown if one is unknown and none is open.
    MostOpen,
}

/// How the values of one target are read.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) info: &'static TargetInfo,
    /// By the value as text. Where there are none, the canonical numbers and words hold.
    pub(super) values: Option<HashMap<Box<str>, i16>>,
    /// The values are said of this field, not of all that are yes or no.
    pub(super) is_own: bool,
    /// What any other value means; without it, unknown.
    pub(super) otherwise: Option<i16>,
    /// What makes the vendor's unit ours.
    pub(super) factor: f64,
    pub(super) several: Several,
    /// In an array, these are no values: doors that do not exist.
    pub(super) ignored: Vec<Box<str>>,
    /// Nothing is read: another kind of device speaks so.
    pub(super) closed: bool,
}

/// What became of a value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Outcome {
    /// It has a meaning.
    Known(i16),
    /// It says that it is not known.
    Unknown,
    /// The profile does not say what it means: read as unknown, and counted.
    Unmapped,
}

/// A scalar as text: `1`, `1.5`, `true`, `open`.
pub(super) fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.trim().to_owned()),
        Value::Bool(yes) => Some(yes.to_string()),
        // 1.0 is 1: some languages know no other numbers.
        Value::Number(number) => Some(match number.as_f64() {
            Some(parts) if number.is_f64() && parts.fract() == 0.0 && parts.abs() < 1e15 => {
                (parts as i64).to_string()
            }
            _ => number.to_string(),
        }),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

impl Rule {
    pub(super) fn canonical(info: &'static TargetInfo) -> Self {
        Self {
            info,
            values: None,
            is_own: false,
            otherwise: None,
            factor: 1.0,
            several: Several::None,
            ignored: Vec::new(),
            closed: false,
        }
    }

    /// The number of a word or a boolean, or of an array of them.
    pub(super) fn number(&self, value: &Value) -> Outcome {
        if self.closed {
            return Outcome::Unmapped;
        }
        match value {
            Value::Null => Outcome::Unknown,
            Value::Array(list) if self.several != Several::None => self.joined(list),
            scalar => self.scalar(scalar),
        }
    }

    fn scalar(&self, value: &Value) -> Outcome {
        let Some(text) = text_of(value) else { return Outcome::Unmapped };
        let found = match &self.values {
            Some(values) => values.get(text.as_str()).copied(),
            None => self.info.number_of(&text),
        };
        found.or(self.otherwise).map_or(Outcome::Unmapped, Outcome::Known)
    }

    fn joined(&self, list: &[Value]) -> Outcome {
        let skipped = |value: &&Value| {
            !text_of(value).is_some_and(|text| self.ignored.iter().any(|ignored| **ignored == *text))
        };
        let outcomes: Vec<Outcome> = list
            .iter()
            .filter(skipped)
            .map(|value| if value.is_null() { Outcome::Unknown } else { self.scalar(value) })
            .collect();
        let known = |number: i16| outcomes.contains(&Outcome::Known(number));
        let doubtful = outcomes.iter().find(|outcome| !matches!(outcome, Outcome::Known(_))).copied();
        // Furthest open first; what is not known may be open, so it goes before what is closed.
        let order: &[i16] = match self.several {
            Several::Any => &[1],
            Several::All => &[0],
            Several::MostOpen => &[4, 3, 6, 7, 1],
            Several::None => &[],
        };
        let rest: &[i16] = match self.several {
            Several::Any => &[0],
            Several::All => &[1],
            Several::MostOpen => &[0, 2, 5],
            Several::None => &[],
        };
        if let Some(first) = order.iter().find(|number| known(**number)) {
            return Outcome::Known(*first);
        }
        if let Some(doubtful) = doubtful {
            return doubtful;
        }
        rest.iter().find(|number| known(**number)).map_or(Outcome::Unknown, |number| Outcome::Known(*number))
    }

    /// A measured number in our unit, within its bounds; `Err` is one that is not.
    pub(super) fn measure(&self, value: &Value, factor: f64) -> Result<Field<f64>, ()> {
        let Form::Number { low, high, .. } = self.info.form else { return Err(()) };
        let number = match value {
            Value::Null => return Ok(Field::Unknown),
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok(),
            Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        };
        let ours = number.map(|number| number * factor).filter(|ours| (low..=high).contains(ours));
        ours.map(Field::Known).ok_or(())
    }
}
