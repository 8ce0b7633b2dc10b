//! From telemetry messages to domain types. Hostile bytes give an error, never a panic.

use domain::{
    BootId, CarStatus, Code, Counter, Counters, Direction, DoorState, Downlink, DownlinkError, DownlinkId,
    EventBatch, EventState, FaultEvent, Field, Floor, Meaning, Passengers, RangeError, Reading, SentDownlink,
    Seq, ServiceMode, Statistics, TelemetryBatch, Timestamp, limits,
};
use prost::Message;

use crate::telemetry::v1;

/// Why a payload is not a batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not this protobuf message.
    #[error("not a protobuf message of this type: {0}")]
    Protobuf(String),
    /// A value outside its table or range.
    #[error(transparent)]
    Range(#[from] RangeError),
    /// A count outside its bounds.
    #[error("{what}: {count} given, {bound} allowed")]
    Count {
        /// Of what.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many may be.
        bound: &'static str,
    },
    /// A sequence number too large.
    #[error("seq {0} is beyond {max}, the last that can be counted", max = limits::SEQ_MAX)]
    Seq(u64),
    /// A value of an order outside its range.
    #[error(transparent)]
    Downlink(#[from] DownlinkError),
    /// An order that this version does not know.
    #[error("an order of a kind that is not known")]
    Order,
    /// A code that is empty, too long, or holds control characters.
    #[error("a code is 1 to 64 bytes without control characters")]
    Code,
}

impl From<prost::DecodeError> for DecodeError {
    fn from(error: prost::DecodeError) -> Self {
        Self::Protobuf(error.to_string())
    }
}

/// A reading or an event that is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused<E> {
    /// Its place in its batch, from 0.
    pub place: usize,
    /// Its own number, where it tells one.
    pub seq: Option<Seq>,
    /// Why.
    pub error: E,
}

/// What of a batch is taken: the neighbours of a reading or event that is refused are safe (promise 4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken<T, E> {
    /// What is taken.
    pub taken: T,
    /// What is not.
    pub refused: Vec<Refused<E>>,
}

/// A reading or an event, or its number and why it is refused.
pub type Part<T, E> = Result<T, (Option<Seq>, E)>;

/// Those that are taken, and those that are refused.
pub fn apart<T, E>(parts: impl ExactSizeIterator<Item = Part<T, E>>) -> Taken<Vec<T>, E> {
    let (mut taken, mut refused) = (Vec::with_capacity(parts.len()), Vec::new());
    for (place, part) in parts.enumerate() {
        match part {
            Ok(part) => taken.push(part),
            Err((seq, error)) => refused.push(Refused { place, seq, error }),
        }
    }
    Taken { taken, refused }
}

/// A batch of which nothing is taken is refused as a whole, for the first reason.
pub fn none_taken<E>(refused: Vec<Refused<E>>, otherwise: E) -> E {
    refused.into_iter().next().map_or(otherwise, |first| first.error)
}

/// A number that counts, where there is one.
pub fn told(seq: Result<Seq, DecodeError>) -> Option<Seq> {
    seq.ok().filter(|seq| *seq != Seq(0))
}

/// The meaning of a raw code in the terminal's profile; `unknown_code` where it has none.
pub type CodeTable<'a> = &'a dyn Fn(&str) -> Meaning;

/// A code with its meaning, two where it says two things at once. Shared by every payload format, so that each
/// refuses the same texts.
pub fn code(raw: &str, table: CodeTable<'_>) -> Result<(Code, Option<Code>), DecodeError> {
    if raw.is_empty() || raw.len() > limits::CODE_BYTES_MAX || raw.chars().any(char::is_control) {
        return Err(DecodeError::Code);
    }
    Ok(Code::of(raw, table(raw)))
}

/// A list of codes with their meanings; what means two things counts twice.
pub fn codes<'a>(
    list: impl ExactSizeIterator<Item = &'a str>,
    table: CodeTable<'_>,
) -> Result<Vec<Code>, DecodeError> {
    let count = |count| DecodeError::Count { what: "codes", count, bound: "at most 32" };
    if list.len() > limits::CODES_MAX {
        return Err(count(list.len()));
    }
    let mut found = Vec::with_capacity(list.len());
    for raw in list {
        let (first, second) = code(raw, table)?;
        found.push(first);
        found.extend(second);
    }
    if found.len() > limits::CODES_MAX { Err(count(found.len())) } else { Ok(found) }
}

/// Events, each with its code's meaning; of a code that means two things there are two, alike but for the code.
pub fn expanded<E: From<DecodeError>>(
    events: impl ExactSizeIterator<Item = Part<(FaultEvent, Option<Code>), E>>,
) -> Result<Taken<Vec<FaultEvent>, E>, E> {
    let Taken { taken, refused } = apart(events);
    let mut found = Vec::with_capacity(taken.len());
    for (first, second) in taken {
        let second = second.map(|code| FaultEvent { code, ..first.clone() });
        found.push(first);
        found.extend(second);
    }
    if found.len() > limits::BATCH_EVENTS_MAX {
        return Err(DecodeError::Count { what: "events", count: found.len(), bound: "at most 256" }.into());
    }
    Ok(Taken { taken: found, refused })
}

/// Decodes an order, as a terminal does.
pub fn downlink(payload: &[u8]) -> Result<SentDownlink, DecodeError> {
    use v1::downlink::Order;
    let sent = v1::Downlink::decode(payload)?;
    let order = match sent.order.ok_or(DecodeError::Order)? {
        Order::ClockSet(_) => Downlink::ClockSet,
        Order::ReportRate(rate) => Downlink::report_rate(rate.interval_ms, rate.for_s)?,
        Order::LiveView(_) => Downlink::LiveView,
    };
    let id = i64::try_from(sent.id).map_err(|_| RangeError { field: "id", value: sent.id.cast_signed() })?;
    Ok(SentDownlink { id: DownlinkId(id), sent: Timestamp::from_millis(sent.sent_ms), order })
}

/// A sequence number as it was sent.
pub fn seq(sent: u64) -> Result<Seq, DecodeError> {
    let number = i64::try_from(sent).ok().filter(|number| *number <= limits::SEQ_MAX);
    number.map(Seq).ok_or(DecodeError::Seq(sent))
}

/// Decodes the payload of a telemetry topic. A reading without sequence number of its terminal keeps seq 0
/// in `batch.readings[i].seq`: the caller derives one from the payload. An error where no reading can be taken.
pub fn telemetry(
    payload: &[u8],
    table: CodeTable<'_>,
) -> Result<Taken<TelemetryBatch, DecodeError>, DecodeError> {
    let batch = v1::TelemetryBatch::decode(payload)?;
    let count = batch.readings.len();
    let no_readings = DecodeError::Count { what: "readings", count, bound: "1 to 1,000" };
    if count > limits::BATCH_READINGS_MAX {
        return Err(no_readings);
    }
    let dropped = match batch.dropped {
        Some(range) => Some((seq(range.from)?.0, seq(range.to)?.0)),
        None => None,
    };
    let Taken { taken: readings, refused } = apart(batch.readings.iter().map(|one| {
        let number = match batch.seq {
            0 => Ok(Seq(0)),
            first => seq(first.saturating_add(u64::from(one.seq_offset))),
        };
        let read = number.clone().and_then(|number| reading(one, number, batch.time_ms, table));
        read.map_err(|error| (told(number), error))
    }));
    if readings.is_empty() {
        return Err(none_taken(refused, no_readings));
    }
    let taken = TelemetryBatch {
        boot: BootId(batch.boot),
        sent: batch.sent_ms.map(Timestamp::from_millis),
        prev_boot_last_seq: batch
            .prev_boot_last_seq
            .map(|last| Ok::<_, DecodeError>(seq(last)?.0))
            .transpose()?,
        dropped,
        readings,
    };
    Ok(Taken { taken, refused })
}

fn reading(
    sent: &v1::Reading,
    number: Seq,
    first_ms: i64,
    table: CodeTable<'_>,
) -> Result<Reading, DecodeError> {
    let time = Timestamp::from_millis(first_ms.saturating_add(i64::from(sent.time_offset_ms)));
    let unknown = |field: u32| sent.unknown & (1 << field) != 0;

    fn field<T, U>(
        value: Option<T>,
        unknown: bool,
        convert: impl FnOnce(T) -> Result<U, RangeError>,
    ) -> Result<Field<U>, RangeError> {
        match value {
            Some(value) => convert(value).map(Field::Known),
            None if unknown => Ok(Field::Unknown),
            None => Ok(Field::Absent),
        }
    }
    fn narrow<T: TryFrom<i64>>(name: &'static str) -> impl Fn(i64) -> Result<T, RangeError> {
        move |value| T::try_from(value).map_err(|_| RangeError { field: name, value })
    }

    let mut reading = Reading::new(number, time);
    reading.service_mode =
        field(sent.service_mode, unknown(3), |value| ServiceMode::try_from(i64::from(value)))?;
    reading.car_status = field(sent.car_status, unknown(4), |value| CarStatus::try_from(i64::from(value)))?;
    reading.direction = field(sent.car_direction, unknown(5), |value| Direction::try_from(i64::from(value)))?;
    reading.door_zone = field(sent.door_zone, unknown(6), Ok)?;
    reading.door_state = field(sent.door_state, unknown(7), |value| DoorState::try_from(i64::from(value)))?;
    reading.passengers =
        field(sent.passengers, unknown(8), |value| Ok(if value { Passengers::Yes } else { Passengers::No }))?;
    reading.floor = field(sent.floor.as_deref(), unknown(9), Floor::new)?;
    reading.floor_ordinal =
        field(sent.floor_ordinal, unknown(10), |value| narrow("floor_ordinal")(i64::from(value)))?;
    reading.position_mm = field(sent.position_mm, unknown(11), Ok)?;
    reading.velocity_mm_s = field(sent.velocity_mm_s, unknown(12), Ok)?;
    reading.load_kg = field(sent.load_kg, unknown(13), |value| narrow("load_kg")(i64::from(value)))?;
    reading.people_count =
        field(sent.people_count, unknown(14), |value| narrow("people_count")(i64::from(value)))?;
    reading.flags = field(sent.flags, unknown(15), |value| narrow("flags")(i64::from(value)))?;
    reading.temperature_dc =
        field(sent.temperature_dc, unknown(16), |value| narrow("temperature_dc")(i64::from(value)))?;
    reading.vibration_mm_s2 =
        field(sent.vibration_mm_s2, unknown(17), |value| narrow("vibration_mm_s2")(i64::from(value)))?;
    reading.codes = match &sent.codes {
        Some(list) => Field::Known(codes(list.code.iter().map(String::as_str), table)?),
        None if unknown(18) => Field::Unknown,
        None => Field::Absent,
    };
    reading.check()?;
    Ok(reading)
}

/// Decodes the payload of an event topic. As with [`telemetry`], seq 0 means "none given".
pub fn events(payload: &[u8], table: CodeTable<'_>) -> Result<Taken<EventBatch, DecodeError>, DecodeError> {
    let batch = v1::EventBatch::decode(payload)?;
    let count = batch.events.len();
    if count > limits::BATCH_EVENTS_MAX {
        return Err(DecodeError::Count { what: "events", count, bound: "at most 256" });
    }
    let active = batch.active.as_ref();
    let active = active.map(|list| codes(list.code.iter().map(String::as_str), table)).transpose()?;
    let event = |event: &v1::Event| {
        let (code, second) = code(&event.code, table)?;
        let seq = seq(event.seq)?;
        let (time, state) =
            (Timestamp::from_millis(event.time_ms), EventState::try_from(i64::from(event.state))?);
        Ok::<_, DecodeError>((FaultEvent { seq, time, code, state }, second))
    };
    let Taken { taken: events, refused } =
        expanded(batch.events.iter().map(|sent| event(sent).map_err(|error| (told(seq(sent.seq)), error))))?;
    if events.is_empty() && active.is_none() {
        let nothing = DecodeError::Count { what: "events", count, bound: "1 to 256, or the active list" };
        return Err(none_taken(refused, nothing));
    }
    let sent = batch.sent_ms.map(Timestamp::from_millis);
    Ok(Taken { taken: EventBatch { boot: BootId(batch.boot), sent, events, active }, refused })
}

/// Decodes the payload of a statistics topic. As with [`telemetry`], seq 0 means "none given".
pub fn statistics(payload: &[u8]) -> Result<Statistics, DecodeError> {
    let sent = v1::Statistics::decode(payload)?;
    let number = |field: &'static str, value: u64| {
        i64::try_from(value).map_err(|_| RangeError { field, value: value.cast_signed() })
    };
    let mut counters = Counters::default();
    for (counter, value) in [
        (Counter::DoorOpenCount, sent.door_open_count),
        (Counter::EnergyWh, sent.energy_wh),
        (Counter::RunningS, sent.running_s),
        (Counter::RunCount, sent.run_count),
        (Counter::RopeBendCount, sent.rope_bend_count),
        (Counter::MileageM, sent.mileage_m),
        (Counter::PassengerCount, sent.passenger_count),
        (Counter::LevellingCount, sent.levelling_count),
        (Counter::RoundTripCount, sent.round_trip_count),
    ] {
        counters.set(counter, value.map(|value| number(counter.slug(), value)).transpose()?);
    }
    if counters.is_empty() {
        return Err(DecodeError::Count { what: "counters", count: 0, bound: "1 to 9" });
    }
    let statistics = Statistics {
        boot: BootId(sent.boot),
        sent: sent.sent_ms.map(Timestamp::from_millis),
        seq: seq(sent.seq)?,
        time: Timestamp::from_millis(sent.time_ms),
        counters,
    };
    statistics.check()?;
    Ok(statistics)
}

#[cfg(test)]
mod tests;
