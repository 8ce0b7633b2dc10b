//! The codes of a vendor's JSON: one, a list, or a text of several.

use domain::{Code, Field, limits};
use proto::decode::codes;
use serde_json::{Number, Value};

use super::{Vendor, VendorError};
use crate::profile::rule::text_of;
use crate::profile::trace::CodeLine;

impl Vendor<'_> {
    pub(super) fn codes(&mut self, value: &Value) -> Result<Field<Vec<Code>>, VendorError> {
        if value.is_null() {
            return Ok(Field::Unknown);
        }
        let mut raw = self.raw_codes(value);
        // A list of what is active: told twice is active once.
        let mut seen = Vec::with_capacity(raw.len().min(limits::CODES_MAX));
        raw.retain(|code| {
            let fresh = !seen.contains(code);
            if fresh && seen.len() <= limits::CODES_MAX {
                seen.push(code.clone());
            }
            fresh
        });
        let list = codes(raw.iter().map(String::as_str), &|raw| self.view.meaning(raw))?;
        for code in &list {
            self.tell_code(code);
        }
        Ok(Field::Known(list))
    }

    /// The codes of an array, a number, or a text with separators, each as text.
    pub(super) fn raw_codes(&self, value: &Value) -> Vec<String> {
        match value {
            Value::Array(list) => list.iter().flat_map(|one| self.raw_code(one)).collect(),
            one => self.raw_code(one),
        }
    }

    fn raw_code(&self, value: &Value) -> Vec<String> {
        let codes = &self.view.profile.codes;
        match value {
            Value::Number(number) => match whole(number) {
                Some(number) => vec![codes.text_of(number)],
                None => text_of(value).into_iter().collect(),
            },
            Value::String(text) => text
                .split(codes.separator)
                .map(str::trim)
                .filter(|one| !one.is_empty())
                .flat_map(|one| self.unpacked(one))
                .collect(),
            Value::Null => Vec::new(),
            // Of no use to anybody, but never dropped.
            strange => {
                vec![strange.to_string().chars().filter(|letter| !letter.is_control()).take(16).collect()]
            }
        }
    }

    /// `0a04` is `0a` and `04` where codes have two digits.
    fn unpacked(&self, text: &str) -> Vec<String> {
        let codes = &self.view.profile.codes;
        let digits = text.strip_prefix("0x").unwrap_or(text);
        let width = codes.width;
        let packed = codes.packed
            && digits.len() > width
            && digits.len().is_multiple_of(width)
            && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !packed {
            return vec![text.to_owned()];
        }
        digits.as_bytes().chunks(width).map(|part| String::from_utf8_lossy(part).into_owned()).collect()
    }

    /// A pressed button stands in the list of active codes where the payload has one. Without a list it is told by its
    /// contact alone: a list of nothing else would say that all other codes have ended, and nothing would end it.
    pub(super) fn add_alarm_button(&mut self, list: &mut Vec<Code>) {
        let Some((raw, fault)) = &self.view.profile.alarm_button_code else { return };
        let code = Code { raw: (&**raw).into(), fault };
        self.tell_code(&code);
        list.truncate(limits::CODES_MAX - 1);
        list.push(code);
    }

    pub(super) fn tell_code(&mut self, code: &Code) {
        let view = self.view;
        if let Some(trace) = &mut self.trace {
            trace.codes.push(CodeLine {
                raw: code.raw.to_string(),
                slug: code.fault.slug,
                english: code.fault.english,
                chinese: code.fault.chinese,
                severity: code.fault.severity.to_string(),
                detail: view.detail(&code.raw).map(ToOwned::to_owned),
            });
        }
    }
}

/// A number without a fraction; `10.0` is ten, since some languages know no other numbers.
fn whole(number: &Number) -> Option<u64> {
    let parts = || number.as_f64().filter(|parts| parts.fract() == 0.0 && (0.0..1e15).contains(parts));
    number.as_u64().or_else(|| parts().map(|parts| parts as u64))
}
