//! A vendor's clock: how it writes a moment, and in which zone.

use domain::Timestamp;
use serde_json::Value;
use time::format_description::OwnedFormatItem;
use time::macros::offset;
use time::{PrimitiveDateTime, UtcOffset};

/// What a number means that stands for a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tick {
    /// Seconds since 1970.
    Seconds,
    /// Milliseconds since 1970.
    Millis,
}

/// How moments are written.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    /// Of texts that name no zone themselves (DOMAIN.md 6).
    pub(crate) zone: UtcOffset,
    pub(crate) tick: Tick,
    /// Tried in this order, after RFC 3339.
    pub(crate) layouts: Vec<OwnedFormatItem>,
}

/// The layout of GB/T 24476, with a fraction if there is one.
pub(crate) const LAYOUT: &str = "[year]-[month]-[day] [hour]:[minute]:[second][optional [.[subsecond]]]";

impl Default for Clock {
    fn default() -> Self {
        Self { zone: offset!(+8), tick: Tick::Millis, layouts: layout(LAYOUT).into_iter().collect() }
    }
}

/// A layout in the words of the `time` crate: `[year]-[month]-[day] [hour]:[minute]:[second]`.
pub(crate) fn layout(text: &str) -> Result<OwnedFormatItem, time::error::InvalidFormatDescription> {
    time::format_description::parse_owned::<1>(text)
}

/// Whether a text of this layout tells a moment: it has a date and a time of day.
pub(crate) fn is_whole(layout: &OwnedFormatItem) -> bool {
    let some = time::macros::datetime!(2026-11-22 20:21:22.5 +8);
    some.format(layout).is_ok_and(|text| PrimitiveDateTime::parse(&text, layout).is_ok())
}

impl Clock {
    /// The moment that a value says.
    pub(crate) fn read(&self, value: &Value) -> Option<Timestamp> {
        match value {
            Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(whole), _) => self.ticks(whole),
                (None, Some(parts)) => self.parts(parts),
                (None, None) => None,
            },
            Value::String(text) => self.text(text.trim()),
            _ => None,
        }
    }

    fn text(&self, text: &str) -> Option<Timestamp> {
        if let Ok(time) = text.parse() {
            return Some(time);
        }
        let local = |layout: &OwnedFormatItem| PrimitiveDateTime::parse(text, layout).ok();
        if let Some(time) = self.layouts.iter().find_map(local) {
            return Some(time.assume_offset(self.zone).into());
        }
        text.parse::<i64>().ok().and_then(|number| self.ticks(number))
    }

    fn ticks(&self, number: i64) -> Option<Timestamp> {
        match self.tick {
            Tick::Millis => Some(Timestamp::from_millis(number)),
            Tick::Seconds => number.checked_mul(1_000).map(Timestamp::from_millis),
        }
    }

    fn parts(&self, number: f64) -> Option<Timestamp> {
        let micros = match self.tick {
            Tick::Millis => number * 1e3,
            Tick::Seconds => number * 1e6,
        };
        // Far outside any calendar: no moment.
        (micros.abs() < 9e17).then(|| Timestamp::from_micros(micros.round() as i64))
    }
}

/// `+08:00`, `-05:30` or `Z`.
pub(crate) fn zone(text: &str) -> Option<UtcOffset> {
    if text == "Z" {
        return Some(UtcOffset::UTC);
    }
    let (sign, digits) = match text.as_bytes().first()? {
        b'+' => (1, &text[1..]),
        b'-' => (-1, &text[1..]),
        _ => return None,
    };
    let (hours, minutes) = digits.split_once(':')?;
    if hours.len() != 2 || minutes.len() != 2 {
        return None;
    }
    let (hours, minutes): (i8, i8) = (hours.parse().ok()?, minutes.parse().ok()?);
    if hours > 14 || minutes > 59 {
        return None;
    }
    UtcOffset::from_hms(sign * hours, sign * minutes, 0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(clock: &Clock, value: Value) -> Option<String> {
        clock.read(&value).map(|time| time.to_string())
    }

    #[test]
    fn texts_without_a_zone_are_of_the_clocks_zone() {
        let mut clock = Clock::default();
        let text = json!("2026-11-22 08:00:00");
        assert_eq!(read(&clock, text.clone()).as_deref(), Some("2026-11-22T00:00:00Z"));
        clock.zone = zone("+00:00").unwrap();
        assert_eq!(read(&clock, text).as_deref(), Some("2026-11-22T08:00:00Z"));
        let named = json!("2026-11-22T08:00:00.5+08:00");
        assert_eq!(read(&clock, named).as_deref(), Some("2026-11-22T00:00:00.5Z"), "its own zone holds");
        assert_eq!(read(&clock, json!("2026-02-30 08:00:00")), None);
        assert_eq!(read(&clock, json!("noon")), None);
    }

    #[test]
    fn numbers_are_ticks_also_as_text() {
        let mut clock = Clock::default();
        assert_eq!(read(&clock, json!(1_763_769_600_123_i64)).as_deref(), Some("2025-11-22T00:00:00.123Z"));
        clock.tick = Tick::Seconds;
        assert_eq!(read(&clock, json!("1763769600")).as_deref(), Some("2025-11-22T00:00:00Z"));
        assert_eq!(read(&clock, json!(1_763_769_600.25)).as_deref(), Some("2025-11-22T00:00:00.25Z"));
        assert_eq!(read(&clock, json!(i64::MAX)), None);
        assert_eq!(read(&clock, json!(1e300)), None);
        assert_eq!(read(&clock, json!(null)), None);
    }

    #[test]
    fn zones_are_offsets() {
        assert_eq!(zone("-05:30").map(UtcOffset::whole_seconds), Some(-19_800));
        for bad in ["", "8", "+8", "+8:00", "+15:00", "Asia/Shanghai", "+08:60", "+é:00"] {
            assert_eq!(zone(bad), None, "{bad}");
        }
    }
}
