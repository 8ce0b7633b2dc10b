//! From domain types to telemetry messages: what a terminal, and so the simulator, publishes, and what it is told.

use domain::{
    Code, Counter, Downlink, EventBatch, Field, Passengers, Reading, SentDownlink, Statistics,
    TelemetryBatch, Timestamp, limits,
};
use prost::Message;

use crate::telemetry::v1;

fn codes(list: &[Code]) -> v1::Codes {
    v1::Codes { code: list.iter().map(|code| code.raw.to_string()).collect() }
}

/// Encodes a batch. Readings must be in order of `seq`, with none more than 2³² after the first.
pub fn telemetry(batch: &TelemetryBatch) -> Vec<u8> {
    let first = batch.readings.first();
    let time_ms = first.map_or(0, |reading| reading.time.millis());
    let seq = first.map_or(0, |reading| reading.seq.0.max(0));
    let unsigned = |value: i64| value.max(0).cast_unsigned();
    v1::TelemetryBatch {
        boot: batch.boot.0,
        sent_ms: batch.sent.map(Timestamp::millis),
        prev_boot_last_seq: batch.prev_boot_last_seq.map(unsigned),
        dropped: batch.dropped.map(|(from, to)| v1::SeqRange { from: unsigned(from), to: unsigned(to) }),
        time_ms,
        seq: unsigned(seq),
        readings: batch.readings.iter().map(|one| reading(one, seq, time_ms)).collect(),
    }
    .encode_to_vec()
}

fn reading(reading: &Reading, first_seq: i64, first_ms: i64) -> v1::Reading {
    let mut unknown = 0;
    fn field<T, U>(
        unknown: &mut u32,
        number: u32,
        value: Field<T>,
        convert: impl FnOnce(T) -> U,
    ) -> Option<U> {
        if matches!(value, Field::Unknown) {
            *unknown |= 1 << number;
        }
        value.known().map(convert)
    }
    let unsigned = |value: i16| u32::from(value.max(0).cast_unsigned());
    let mut sent = v1::Reading {
        seq_offset: (reading.seq.0 - first_seq).clamp(0, i64::from(u32::MAX)) as u32,
        time_offset_ms: (reading.time.millis() - first_ms).clamp(i64::from(i32::MIN), i64::from(i32::MAX))
            as i32,
        service_mode: field(&mut unknown, 3, reading.service_mode, |value| unsigned(value.number())),
        car_status: field(&mut unknown, 4, reading.car_status, |value| unsigned(value.number())),
        car_direction: field(&mut unknown, 5, reading.direction, |value| unsigned(value.number())),
        door_zone: field(&mut unknown, 6, reading.door_zone, |value| value),
        door_state: field(&mut unknown, 7, reading.door_state, |value| unsigned(value.number())),
        passengers: field(&mut unknown, 8, reading.passengers, |value| value == Passengers::Yes),
        floor: field(&mut unknown, 9, reading.floor, |value| value.as_str().to_owned()),
        floor_ordinal: field(&mut unknown, 10, reading.floor_ordinal, i32::from),
        position_mm: field(&mut unknown, 11, reading.position_mm, |value| value),
        velocity_mm_s: field(&mut unknown, 12, reading.velocity_mm_s, |value| value),
        load_kg: field(&mut unknown, 13, reading.load_kg, unsigned),
        people_count: field(&mut unknown, 14, reading.people_count, unsigned),
        flags: field(&mut unknown, 15, reading.flags, |value| value.max(0).cast_unsigned()),
        temperature_dc: field(&mut unknown, 16, reading.temperature_dc, i32::from),
        vibration_mm_s2: field(&mut unknown, 17, reading.vibration_mm_s2, |value| {
            value.max(0).cast_unsigned()
        }),
        codes: field(&mut unknown, 18, reading.codes.as_ref(), |list| codes(list)),
        unknown: 0,
    };
    sent.unknown = unknown;
    sent
}

/// Encodes a batch of events.
pub fn events(batch: &EventBatch) -> Vec<u8> {
    v1::EventBatch {
        boot: batch.boot.0,
        sent_ms: batch.sent.map(Timestamp::millis),
        events: batch
            .events
            .iter()
            .map(|event| v1::Event {
                seq: event.seq.0.max(0).cast_unsigned(),
                time_ms: event.time.millis(),
                code: event.code.raw.to_string(),
                state: event.state as i32,
            })
            .collect(),
        active: batch.active.as_deref().map(codes),
    }
    .encode_to_vec()
}

/// Encodes statistics.
pub fn statistics(statistics: &Statistics) -> Vec<u8> {
    let value = |counter| statistics.counters.get(counter).map(|value| value.max(0).cast_unsigned());
    v1::Statistics {
        boot: statistics.boot.0,
        sent_ms: statistics.sent.map(Timestamp::millis),
        seq: statistics.seq.0.max(0).cast_unsigned(),
        time_ms: statistics.time.millis(),
        door_open_count: value(Counter::DoorOpenCount),
        energy_wh: value(Counter::EnergyWh),
        running_s: value(Counter::RunningS),
        run_count: value(Counter::RunCount),
        rope_bend_count: value(Counter::RopeBendCount),
        mileage_m: value(Counter::MileageM),
        passenger_count: value(Counter::PassengerCount),
        levelling_count: value(Counter::LevellingCount),
        round_trip_count: value(Counter::RoundTripCount),
    }
    .encode_to_vec()
}

/// Encodes an order to a terminal.
pub fn downlink(sent: &SentDownlink) -> Vec<u8> {
    use v1::downlink::Order;
    let order = match sent.order {
        // The time of this sending: an order that waited must not set the clock back.
        Downlink::ClockSet => Order::ClockSet(v1::ClockSet { time_ms: sent.sent.millis() }),
        Downlink::ReportRate { interval_ms, for_s } => {
            Order::ReportRate(v1::ReportRate { interval_ms, for_s })
        }
        Downlink::LiveView => {
            Order::LiveView(v1::LiveView { lease_s: limits::LIVE_VIEW_LEASE.as_secs() as u32 })
        }
    };
    v1::Downlink { id: sent.id.0.max(0).cast_unsigned(), sent_ms: sent.sent.millis(), order: Some(order) }
        .encode_to_vec()
}
