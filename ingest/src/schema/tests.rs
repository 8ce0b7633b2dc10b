//! The schemas against what is documented, what the simulator's terminals say, and what the decoder refuses.

use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{Endpoint, Schema, asyncapi};
use crate::{ProfileView, decode};

/// Values that are right for some field, wrong for others, and at the edge of a few.
fn any_value() -> impl Strategy<Value = Value> {
    let values = json!([
        null, true, -1, 0, 1, 2, 5, 7, 8, 31, 32, 200, 16.0, -0.0, 0.5, -0.0001, 200.04, -200.05, 30_000, 30_001,
        1_000_000_000.000_4, 277_777_777.777, 277_777_777.79, 1e300, 4_294_967_296_i64, i64::MAX, "", "5", "B1",
        "a\u{85}b", "12345678901234567", "2026-11-22T08:00:00+08:00", "2026-11-22 08:00:00", "2026-11-22T08:00:00.5", "2026-11-22x08:00:00Z",
        "+2026-11-22 08:00:00", "open", "ajar", [], [5], [5.0], [-5], ["x", 5.5], {}, [{"time": 0}], [{"seq": 1}],
        {"from": 1, "to": 2.0},
    ]);
    prop::sample::select(values.as_array().unwrap().clone())
}

/// A payload of some fields of a schema, the time as often right as not.
fn any_payload(schema: Schema) -> impl Strategy<Value = Value> {
    const AROUND: [&str; 4] = ["boot", "seq", "sent", "time"];
    let names: &[&str] = match schema {
        Schema::Telemetry => &[
            "readings",
            "dropped",
            "service_mode",
            "car_status",
            "operation_status",
            "car_direction",
            "operation_direction",
            "door_zone",
            "door_state",
            "door_closed",
            "passengers",
            "floor",
            "floor_ordinal",
            "position_mm",
            "velocity_mm_s",
            "load_kg",
            "people_count",
            "flags",
            "flags_told",
            "car_temp_c",
            "vibration_mm_s2",
            "codes",
        ],
        Schema::Event => &["code", "state", "events", "active"],
        _ => &["door_open_count", "energy_kwh", "total_hours", "run_count", "mileage_m"],
    };
    let name = prop::sample::select([&AROUND, names].concat());
    let fields = prop::collection::vec((name, any_value()), 0..4);
    (any::<bool>(), fields).prop_map(|(timed, fields)| {
        let time = timed.then(|| ("time", json!(0)));
        let fields = time.into_iter().chain(fields);
        fields.map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>().into()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn decoder_and_schema_agree_on_any_payload(
        (schema, payload) in prop::sample::select(vec![Schema::Telemetry, Schema::Event, Schema::Stats])
            .prop_flat_map(|schema| (Just(schema), any_payload(schema))),
    ) {
        static VALIDATORS: LazyLock<[jsonschema::Validator; 5]> = LazyLock::new(|| Schema::ALL.map(validator));
        let valid = VALIDATORS[schema as usize].is_valid(&payload);
        prop_assert_eq!(is_decoded(schema, &payload), valid, "{}: {}", schema.name(), payload);
    }
}

fn validator(schema: Schema) -> jsonschema::Validator {
    jsonschema::validator_for(&schema.document()).unwrap()
}

fn is_decoded(schema: Schema, payload: &Value) -> bool {
    let topic = format!("lift/v1/350102/t1/{}.json", schema.name());
    let decoded = decode(&topic, payload.to_string().as_bytes(), ProfileView::canonical());
    decoded.is_ok_and(|decoded| decoded.refused.is_empty())
}

/// The decoder and the schema agree.
fn check(schema: Schema, payload: Value, good: bool) {
    let found: Vec<String> = validator(schema).iter_errors(&payload).map(|error| error.to_string()).collect();
    assert_eq!(found.is_empty(), good, "schema {}: {payload}: {found:?}", schema.name());
    assert_eq!(is_decoded(schema, &payload), good, "decoder: {payload}");
}

#[test]
fn what_is_decoded_is_valid() {
    for payload in [
        json!({"time": 0}),
        json!({"time": "2026-11-22T08:00:00.123+08:00"}),
        json!({"time": "2026-11-22 08:00:00", "boot": 7, "sent": 5, "seq": 9}),
        json!({"time": 0, "boot": 8, "seq": 1, "prev_boot_last_seq": 9, "dropped": {"from": 1, "to": 5}}),
        json!({"time": 0, "floor": null, "codes": null, "service_mode": null, "door_zone": null}),
        json!({"time": 0, "codes": ["entrapment", 5, "F9999"], "colour": {"deep": [1]}}),
        json!({"readings": [{"time": 0}, {"time": 1, "flags": 31, "car_temp_c": -10.5}]}),
        // Whole numbers of languages that know floats alone.
        json!({"boot": 1.0, "seq": 5.0, "time": 1_763_769_600_000.0, "load_kg": 225.0, "floor_ordinal": -0.0}),
        json!({"time": 0, "codes": [200.0], "dropped": {"from": 1.0, "to": 2.0}, "prev_boot_last_seq": 3.0}),
        json!({"time": 0, "operation_status": 1, "operation_direction": null}),
        json!({"time": 0, "operation_status": 1, "car_status": 0, "car_direction": 1, "operation_direction": 2}),
        json!({"time": "2026-11-22 08:00:00Z"}),
        json!({"time": "2026-11-22T08:00:00"}),
        json!({"time": "2026-11-22T08:00:00.123456"}),
        json!({"time": "2026-11-22_08:00:00.5+08:00"}),
        json!({"readings": null, "time": 0}),
        json!({"time": 0, "flags_told": 31}),
        json!({"boot": 4_294_967_295_u32, "prev_boot_last_seq": 9, "dropped": {"from": 1, "to": 5},
               "readings": [{"time": 0, "position_mm": -2_000_000, "velocity_mm_s": 30_000, "load_kg": 30_000}]}),
    ] {
        check(Schema::Telemetry, payload, true);
    }
    for payload in [
        json!({"boot": 7, "seq": 9, "time": "2026-11-22T00:00:00Z", "code": "entrapment", "state": "open"}),
        json!({"time": 0, "code": 5, "state": "close", "active": ["entrapment"]}),
        json!({"events": [{"time": 0, "code": "x", "state": "once"}]}),
        json!({"active": []}),
        json!({"active": [3.0], "seq": 5.0, "boot": 2.0}),
    ] {
        check(Schema::Event, payload, true);
    }
}

#[test]
fn statistics_count_something() {
    check(
        Schema::Stats,
        json!({"boot": 7, "seq": 10, "time": 0, "run_count": 51_234, "energy_kwh": 8123.5}),
        true,
    );
    check(Schema::Stats, json!({"time": 0, "total_hours": 0, "mileage_m": null}), true);
    check(Schema::Stats, json!({"time": 0.0, "run_count": 5.0, "boot": 1.0, "seq": 2.0}), true);
    check(Schema::Stats, json!({"time": 0, "total_hours": 277_777_777.777, "energy_kwh": 1e9}), true);
    for payload in [
        json!({"time": 0}),
        json!({"time": 0, "run_count": null}),
        json!({"run_count": 1}),
        json!({"time": 0, "run_count": 1.5}),
        json!({"time": 0, "run_count": -1}),
        json!({"time": 0, "energy_kwh": -0.0001}),
        json!({"time": 0, "energy_kwh": 1_000_000_000.000_4}),
        json!({"time": 0, "total_hours": 277_777_777.79}),
        json!({"time": 0, "energy_kwh": "much"}),
        json!({"time": 0, "total_hours": 1e300}),
    ] {
        check(Schema::Stats, payload, false);
    }
}

#[test]
fn what_is_refused_for_its_shape_is_invalid() {
    for payload in [
        json!(7),
        json!([]),
        json!({}),
        json!({"seq": 1}),
        json!({"time": "noon"}),
        json!({"time": null}),
        json!({"time": "2026-11-22x08:00:00Z"}),
        json!({"time": "+2026-11-22 08:00:00"}),
        json!({"time": "-2026-11-22 08:00:00"}),
        json!({"time": 0.5}),
        json!({"readings": null}),
        json!({"time": 0, "load_kg": 0.5}),
        json!({"time": 0, "operation_status": 2}),
        json!({"time": 0, "floor": "a\u{85}b"}),
        json!({"time": 0, "car_temp_c": 200.04}),
        json!({"time": 0, "flags_told": 2_000_000}),
        json!({"time": 0, "seq": i64::MAX}),
        json!({"time": 0, "service_mode": 8}),
        json!({"time": 0, "service_mode": "normal"}),
        json!({"time": 0, "door_zone": 1}),
        json!({"time": 0, "passengers": "yes"}),
        json!({"time": 0, "load_kg": 99_999}),
        json!({"time": 0, "load_kg": -1}),
        json!({"time": 0, "floor": ""}),
        json!({"time": 0, "floor": "12345678901234567"}),
        json!({"time": 0, "floor": 12}),
        json!({"time": 0, "car_temp_c": 1e300}),
        json!({"time": 0, "codes": "5"}),
        json!({"time": 0, "codes": [""]}),
        json!({"time": 0, "codes": ["a\u{0}b"]}),
        json!({"time": 0, "codes": [{}]}),
        json!({"time": 0, "codes": vec![5; 33]}),
        json!({"time": 0, "seq": -1}),
        json!({"time": 0, "boot": -1}),
        json!({"readings": []}),
        json!({"readings": {}}),
        json!({"readings": [{}]}),
        json!({"readings": [{"time": 0, "flags": 32}]}),
        json!({"readings": vec![json!({"time": 0}); 1_001]}),
        json!({"dropped": {"from": 1}, "readings": [{"time": 0}]}),
    ] {
        check(Schema::Telemetry, payload, false);
    }
    for payload in [
        json!({}),
        json!({"code": "entrapment"}),
        json!({"code": "entrapment", "state": "open"}),
        json!({"time": 0, "code": "entrapment"}),
        json!({"time": 0, "state": "open"}),
        json!({"time": 0, "code": "entrapment", "state": "ajar"}),
        json!({"events": []}),
        json!({"events": [{"code": 5, "state": "open"}]}),
        json!({"active": "entrapment"}),
        json!({"active": [], "seq": u64::MAX}),
        json!({"active": vec!["x"; 33]}),
    ] {
        check(Schema::Event, payload, false);
    }
}

/// Every JSON object of docs/wire.md that a terminal publishes, or is told.
#[test]
fn every_example_of_the_wire_document_is_valid() {
    let text = include_str!("../../../docs/wire.md");
    let mut seen = 0;
    for (index, _) in text.match_indices("{\"") {
        let mut stream = serde_json::Deserializer::from_str(&text[index..]).into_iter::<Value>();
        let Some(Ok(example)) = stream.next() else { continue };
        let has = |name: &str| example.get(name).is_some();
        // Parts of an example, and shortened ones ("time":"...").
        if example.to_string().contains("...") || example.as_object().is_none_or(|object| object.len() < 2) {
            continue;
        }
        let schema = if has("readings") {
            Schema::Telemetry
        } else if has("clock_set") || has("report_rate") || has("live_view") {
            Schema::Down
        } else if has("reason") {
            Schema::Presence
        } else if has("run_count") {
            Schema::Stats
        } else if has("active") || has("events") {
            Schema::Event
        } else {
            continue;
        };
        seen += 1;
        let errors: Vec<String> =
            validator(schema).iter_errors(&example).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{example}: {errors:?}");
    }
    assert!(seen >= 8, "{seen} examples found");
}

#[test]
fn every_field_has_a_description() {
    fn described(name: &str, value: &Value) {
        if let Some(properties) = value.get("properties").and_then(Value::as_object) {
            for (field, schema) in properties {
                let told = schema.get("description").is_some() || schema.get("$ref").is_some();
                let referred = schema.get("anyOf").is_some();
                assert!(told || referred, "{name}.{field} has no description: {schema}");
                described(field, schema);
            }
        }
        for definition in value.get("$defs").and_then(Value::as_object).into_iter().flatten() {
            described(definition.0, definition.1);
        }
    }
    for schema in Schema::ALL {
        let document = schema.document();
        assert!(document["$schema"].as_str().unwrap().contains("2020-12"));
        assert_eq!(Schema::named(schema.name()), Some(schema));
        described(schema.name(), &document);
    }
}

#[test]
fn the_asyncapi_document_is_whole() {
    let endpoint = Endpoint {
        name: "tls",
        host: "lift.example:8883".to_owned(),
        protocol: "mqtts",
        pathname: None,
        certificates: true,
    };
    let document = asyncapi("1.2.3", &[endpoint]);
    assert_eq!((&document["asyncapi"], &document["info"]["version"]), (&json!("3.0.0"), &json!("1.2.3")));
    assert_eq!(document["servers"]["tls"]["host"], "lift.example:8883");
    assert_eq!(document["servers"]["tls"]["security"].as_array().unwrap().len(), 2);
    assert_eq!(document["channels"]["telemetryJson"]["address"], "lift/v1/{area}/{terminal}/telemetry.json");
    // The parser of AsyncAPI refuses a file with several messages and no root, or more than one.
    for (channel, name) in [
        ("telemetry", "TelemetryBatch"),
        ("event", "EventBatch"),
        ("stats", "Statistics"),
        ("down", "Downlink"),
    ] {
        let proto = document["components"]["messages"][channel]["payload"]["schema"].as_str().unwrap();
        let root = format!("// @RootNode\nmessage {name} {{\n");
        assert!(proto.contains(&root) && proto.matches("@RootNode").count() == 1, "{channel}");
    }

    // Every reference leads somewhere.
    fn references<'v>(value: &'v Value, found: &mut Vec<&'v str>) {
        match value {
            Value::Object(object) => {
                for (name, value) in object {
                    match value {
                        Value::String(text) if name == "$ref" => found.push(text),
                        value => references(value, found),
                    }
                }
            }
            Value::Array(list) => list.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 20);
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap_or_else(|| panic!("{reference} leads outside"));
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
    // Payloads are schemas that a validator takes.
    for channel in ["telemetryJson", "eventJson", "statsJson", "presence", "downJson"] {
        let schema = &document["components"]["messages"][channel]["payload"]["schema"];
        let validator = jsonschema::draft7::new(schema).unwrap_or_else(|error| panic!("{channel}: {error}"));
        assert!(!validator.is_valid(&json!(7)), "{channel}");
    }
}
