//! Statistics in the open JSON: the names of DOMAIN.md 3.2, in the units a terminal's display has. They are
//! kept in whole Wh and seconds.

use domain::{BootId, Counter, Statistics, limits};
use proto::decode::DecodeError;
use schemars::{JsonSchema, Schema};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::json::{DeviceTime, JsonError, Whole, seq, within};

const KWH_MAX: f64 = limits::COUNTER_MAX as f64 / 1_000.0;
const HOURS_MAX: f64 = limits::COUNTER_MAX as f64 / 3_600.0;

/// Payload of lift/v1/{area}/{terminal}/stats.json: what the terminal has counted. Counters only grow; one that is
/// smaller than before says that it was reset. Names that are not listed are ignored.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "Statistics", transform = something_is_counted)]
pub(crate) struct JsonStatistics {
    /// Names this run of the terminal's software; another number after every restart.
    #[serde(default)]
    #[schemars(range(max = 4_294_967_295_u32))]
    boot: Whole<u32>,
    /// The terminal's clock at this transmission.
    sent: Option<DeviceTime>,
    /// From the same counter as readings; without it the server derives one.
    #[schemars(range(max = 9_223_372_036_854_775_806_u64))]
    seq: Option<Whole<u64>>,
    time: DeviceTime,
    /// Openings of the door.
    #[schemars(range(min = 0, max = 1_000_000_000_000_i64))]
    door_open_count: Option<Whole<i64>>,
    /// Energy, kWh; kept in whole Wh.
    #[schemars(range(min = 0.0, max = KWH_MAX))]
    energy_kwh: Option<f64>,
    /// Hours of running; kept in whole seconds.
    #[schemars(range(min = 0.0, max = HOURS_MAX))]
    total_hours: Option<f64>,
    /// Runs.
    #[schemars(range(min = 0, max = 1_000_000_000_000_i64))]
    run_count: Option<Whole<i64>>,
    /// Bends of the rope (钢丝绳折弯次数).
    #[schemars(range(min = 0, max = 1_000_000_000_000_i64))]
    rope_bend_count: Option<Whole<i64>>,
    /// Way travelled, m.
    #[schemars(range(min = 0, max = 1_000_000_000_000_i64))]
    mileage_m: Option<Whole<i64>>,
    /// Passengers.
    #[schemars(range(min = 0, max = 1_000_000_000_000_i64))]
    passenger_count: Option<Whole<i64>>,
    /// Levellings.
    #[schemars(range(min = 0, max = 1_000_000_000_000_i64))]
    levelling_count: Option<Whole<i64>>,
    /// Round trips.
    #[schemars(range(min = 0, max = 1_000_000_000_000_i64))]
    round_trip_count: Option<Whole<i64>>,
}

/// One counter at least.
fn something_is_counted(schema: &mut Schema) {
    let around = ["boot", "sent", "seq", "time"];
    let names: Vec<String> = schema
        .get("properties")
        .and_then(serde_json::Value::as_object)
        .into_iter()
        .flat_map(|properties| properties.keys())
        .filter(|name| !around.contains(&name.as_str()))
        .cloned()
        .collect();
    let given = |name: &String| serde_json::json!({ "required": [name], "properties": { name: { "type": "number" } } });
    let any: Vec<_> = names.iter().map(given).collect();
    schema.insert("anyOf".to_owned(), any.into());
}

/// Decodes `stats.json`. Seq 0 means "none given".
pub(crate) fn statistics(payload: &[u8]) -> Result<Statistics, JsonError> {
    checked(serde_json::from_slice(payload)?)
}

/// The same of an object whose time is as the open JSON has it, and whose counters may have the names of
/// GB/T 24476 (DOMAIN.md 3.1).
pub(crate) fn named(mut object: Map<String, Value>) -> Result<Statistics, JsonError> {
    for (theirs, ours) in [("Total_Running_Time", "total_hours"), ("Present_Counter_Value", "run_count")] {
        if let Some(value) = object.remove(theirs) {
            object.entry(ours).or_insert(value);
        }
    }
    checked(serde_json::from_value(Value::Object(object))?)
}

fn checked(sent: JsonStatistics) -> Result<Statistics, JsonError> {
    let energy_kwh = sent.energy_kwh.map(|kwh| within("energy_kwh", kwh, 0.0, KWH_MAX)).transpose()?;
    let hours = sent.total_hours.map(|hours| within("total_hours", hours, 0.0, HOURS_MAX)).transpose()?;
    let parts = |value: Option<f64>, parts: f64| value.map(|value| Whole((value * parts).round() as i64));
    let counters = [
        (Counter::DoorOpenCount, sent.door_open_count),
        (Counter::EnergyWh, parts(energy_kwh, 1_000.0)),
        (Counter::RunningS, parts(hours, 3_600.0)),
        (Counter::RunCount, sent.run_count),
        (Counter::RopeBendCount, sent.rope_bend_count),
        (Counter::MileageM, sent.mileage_m),
        (Counter::PassengerCount, sent.passenger_count),
        (Counter::LevellingCount, sent.levelling_count),
        (Counter::RoundTripCount, sent.round_trip_count),
    ];
    let statistics = Statistics {
        boot: BootId(sent.boot.0),
        sent: sent.sent.map(DeviceTime::whole_millis),
        seq: seq(sent.seq)?,
        time: sent.time.0,
        counters: counters.into_iter().filter_map(|(counter, value)| Some((counter, value?.0))).collect(),
    };
    if statistics.counters.is_empty() {
        return Err(DecodeError::Count { what: "counters", count: 0, bound: "1 to 9" }.into());
    }
    statistics.check()?;
    Ok(statistics)
}

const _: () = assert!(limits::COUNTER_MAX < 1 << 53, "a counter passes through a decimal number unhurt");

#[cfg(test)]
mod tests {
    use super::*;
    use domain::Seq;
    use proptest::prelude::*;

    const EXAMPLE: &str = r#"{"boot":7,"seq":10,"time":"2026-11-22T08:00:00+08:00","door_open_count":9000,
        "energy_kwh":8123.5,"total_hours":1200.25,"run_count":51234,"rope_bend_count":204936,
        "mileage_m":813000,"passenger_count":null}"#;

    #[test]
    fn reads_the_names_and_units_of_the_wire_document() {
        let counted = statistics(EXAMPLE.as_bytes()).unwrap();
        assert_eq!((counted.boot, counted.seq), (BootId(7), Seq(10)));
        assert_eq!(counted.time.to_string(), "2026-11-22T00:00:00Z");
        let value = |counter| counted.counters.get(counter);
        assert_eq!(value(Counter::EnergyWh), Some(8_123_500));
        assert_eq!(value(Counter::RunningS), Some(4_320_900));
        assert_eq!(value(Counter::RunCount), Some(51_234));
        assert_eq!(value(Counter::PassengerCount), None);
        assert_eq!(value(Counter::LevellingCount), None);
    }

    #[test]
    fn mistakes_are_named() {
        let error = |text: &str| statistics(text.as_bytes()).unwrap_err().to_string();
        assert_eq!(error(r#"{"time":0}"#), "counters: 0 given, 1 to 9 allowed");
        assert_eq!(error(r#"{"time":0,"run_count":-1}"#), "run_count -1 is out of range");
        assert_eq!(error(r#"{"time":0,"energy_kwh":-0.1}"#), "energy_kwh -0.1 is out of range");
        assert_eq!(error(r#"{"time":0,"total_hours":1e300}"#), "total_hours 1e300 is out of range");
        assert!(error(r#"{"run_count":1}"#).contains("time"));
        assert!(error(r#"{"time":0,"run_count":1.5}"#).contains("line 1"));
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0_usize..300) {
            let _ = statistics(&bytes);
            let mut bent = EXAMPLE.as_bytes().to_vec();
            let at = at % bent.len();
            bent[at] = bytes.first().copied().unwrap_or(b'"');
            let _ = statistics(&bent);
        }

        #[test]
        fn decimals_are_kept_to_the_unit(wh in 0..=limits::COUNTER_MAX, s in 0..=limits::COUNTER_MAX) {
            let text = format!(
                r#"{{"time":0,"energy_kwh":{}.{:03},"total_hours":{}}}"#,
                wh / 1_000, wh % 1_000, s as f64 / 3_600.0
            );
            let counted = statistics(text.as_bytes()).unwrap();
            prop_assert_eq!(counted.counters.get(Counter::EnergyWh), Some(wh));
            prop_assert_eq!(counted.counters.get(Counter::RunningS), Some(s));
        }
    }
}
