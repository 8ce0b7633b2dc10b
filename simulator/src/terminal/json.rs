//! The open JSON of `docs/wire.md`, for terminals without protobuf.

use domain::{Counter, EventBatch, EventState, Field, Passengers, Reading, Statistics, TelemetryBatch};
use serde_json::{Map, Value, json};

fn put<T: Into<Value>>(object: &mut Map<String, Value>, name: &str, field: Field<T>) {
    match field {
        Field::Absent => {}
        Field::Unknown => drop(object.insert(name.into(), Value::Null)),
        Field::Known(value) => drop(object.insert(name.into(), value.into())),
    }
}

fn codes(list: &[domain::Code]) -> Value {
    list.iter().map(|code| Value::from(&*code.raw)).collect()
}

fn reading(reading: &Reading) -> Value {
    let mut object = Map::new();
    object.insert("seq".into(), reading.seq.0.into());
    object.insert("time".into(), reading.time.to_string().into());
    put(&mut object, "service_mode", reading.service_mode.map(domain::ServiceMode::number));
    put(&mut object, "car_status", reading.car_status.map(domain::CarStatus::number));
    put(&mut object, "car_direction", reading.direction.map(domain::Direction::number));
    put(&mut object, "door_zone", reading.door_zone);
    put(&mut object, "door_state", reading.door_state.map(domain::DoorState::number));
    put(&mut object, "passengers", reading.passengers.map(|inside| inside == Passengers::Yes));
    put(&mut object, "floor", reading.floor.map(|floor| floor.as_str().to_owned()));
    put(&mut object, "floor_ordinal", reading.floor_ordinal);
    put(&mut object, "position_mm", reading.position_mm);
    put(&mut object, "velocity_mm_s", reading.velocity_mm_s);
    put(&mut object, "load_kg", reading.load_kg);
    put(&mut object, "people_count", reading.people_count);
    put(&mut object, "flags", reading.flags);
    put(&mut object, "car_temp_c", reading.temperature_dc.map(|tenths| f64::from(tenths) / 10.0));
    put(&mut object, "vibration_mm_s2", reading.vibration_mm_s2);
    put(&mut object, "codes", reading.codes.as_ref().map(|list| codes(list)));
    Value::Object(object)
}

pub(crate) fn telemetry(batch: &TelemetryBatch) -> Vec<u8> {
    let readings: Vec<Value> = batch.readings.iter().map(reading).collect();
    let mut object = json!({"boot": batch.boot.0, "readings": readings});
    if let Some(sent) = batch.sent {
        object["sent"] = sent.to_string().into();
    }
    if let Some(last) = batch.prev_boot_last_seq {
        object["prev_boot_last_seq"] = last.into();
    }
    if let Some((from, to)) = batch.dropped {
        object["dropped"] = json!({"from": from, "to": to});
    }
    object.to_string().into_bytes()
}

pub(crate) fn statistics(statistics: &Statistics) -> Vec<u8> {
    let mut object =
        json!({"boot": statistics.boot.0, "seq": statistics.seq.0, "time": statistics.time.to_string()});
    if let Some(sent) = statistics.sent {
        object["sent"] = sent.to_string().into();
    }
    for (counter, value) in statistics.counters.iter() {
        match counter {
            Counter::EnergyWh => object["energy_kwh"] = (value as f64 / 1_000.0).into(),
            Counter::RunningS => object["total_hours"] = (value as f64 / 3_600.0).into(),
            _ => object[counter.slug()] = value.into(),
        }
    }
    object.to_string().into_bytes()
}

pub(crate) fn events(batch: &EventBatch) -> Vec<u8> {
    let state = |state| match state {
        EventState::Open => "open",
        EventState::Close => "close",
        EventState::Once => "once",
    };
    let mut object = json!({"boot": batch.boot.0});
    if let Some(sent) = batch.sent {
        object["sent"] = sent.to_string().into();
    }
    if !batch.events.is_empty() {
        let events = batch.events.iter().map(|event| {
            json!({"seq": event.seq.0, "time": event.time.to_string(), "code": &*event.code.raw,
                   "state": state(event.state)})
        });
        object["events"] = events.collect();
    }
    if let Some(active) = &batch.active {
        object["active"] = codes(active);
    }
    object.to_string().into_bytes()
}
