//! What a terminal says in one message, decoded and checked.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{BootId, FaultKind, Field, Reading, Seq, Statistics, Timestamp, fault_by_slug};

/// A fault, event or alarm code: what the terminal sent, and what it means to us. A code that its profile
/// does not know means [`FaultKind`] `unknown_code`; the raw text is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Code {
    /// As sent.
    pub raw: Arc<str>,
    /// Its meaning.
    pub fault: &'static FaultKind,
}

impl Code {
    /// The code of the canonical taxonomy with this slug.
    pub fn canonical(slug: &str) -> Option<Self> {
        fault_by_slug(slug).map(|fault| Self { raw: fault.slug.into(), fault })
    }

    /// What was sent, with its meaning. Where that is two things at once, the second keeps apart by its raw text:
    /// `04` is `04` and `04:entrapment`, because the raw text is what tells codes from each other everywhere
    /// (keys of the store, active codes of the rules).
    pub fn of(raw: &str, meaning: Meaning) -> (Self, Option<Self>) {
        let second = meaning.second.map(|fault| Self { raw: format!("{raw}:{}", fault.slug).into(), fault });
        (Self { raw: raw.into(), fault: meaning.first }, second)
    }
}

/// What a raw code means in a profile: one row of the taxonomy, or two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meaning {
    /// The first, most often the only one.
    pub first: &'static FaultKind,
    /// What it says besides.
    pub second: Option<&'static FaultKind>,
}

impl From<&'static FaultKind> for Meaning {
    fn from(first: &'static FaultKind) -> Self {
        Self { first, second: None }
    }
}

/// Readings of one boot, in the order sent.
#[derive(Debug, Clone, PartialEq)]
pub struct TelemetryBatch {
    /// The boot they belong to.
    pub boot: BootId,
    /// Terminal clock at this transmission.
    pub sent: Option<Timestamp>,
    /// After a reboot: the last sequence number given in the boot before.
    pub prev_boot_last_seq: Option<i64>,
    /// Sequence numbers the terminal had to discard, first and last.
    pub dropped: Option<(i64, i64)>,
    /// One or more readings.
    pub readings: Vec<Reading>,
}

/// What happened to the fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(i16)]
pub enum EventState {
    /// It began.
    Open = 1,
    /// It ended.
    Close = 2,
    /// It happened; its end will not be told.
    Once = 3,
}

impl TryFrom<i64> for EventState {
    type Error = crate::RangeError;
    fn try_from(value: i64) -> Result<Self, crate::RangeError> {
        match value {
            1 => Ok(Self::Open),
            2 => Ok(Self::Close),
            3 => Ok(Self::Once),
            _ => Err(crate::RangeError { field: "state", value }),
        }
    }
}

/// A fault opened or closed, an event, or a press of the alarm button.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultEvent {
    /// Sequence number within the boot, shared with readings.
    pub seq: Seq,
    /// Device time as sent.
    pub time: Timestamp,
    /// Which.
    pub code: Code,
    /// Begin, end, or a thing of a moment.
    pub state: EventState,
}

/// Events of one boot, in the order sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventBatch {
    /// The boot they belong to.
    pub boot: BootId,
    /// Terminal clock at this transmission.
    pub sent: Option<Timestamp>,
    /// Events.
    pub events: Vec<FaultEvent>,
    /// After a reconnect: all active faults (重连对账, DOMAIN.md 6).
    pub active: Option<Vec<Code>>,
}

/// One decoded message.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// `.../telemetry`
    Telemetry(TelemetryBatch),
    /// `.../event`
    Event(EventBatch),
    /// `.../stats`
    Statistics(Statistics),
}

impl Message {
    /// The boot it belongs to.
    pub fn boot(&self) -> BootId {
        match self {
            Message::Telemetry(batch) => batch.boot,
            Message::Event(batch) => batch.boot,
            Message::Statistics(statistics) => statistics.boot,
        }
    }

    /// About how many bytes of memory it holds, with what it allocated: for budgets. Never much less than the
    /// truth; raw codes that share their text are counted each.
    pub fn memory(&self) -> usize {
        let held = match self {
            Message::Telemetry(batch) => {
                let codes: usize = batch.readings.iter().map(codes_memory).sum();
                batch.readings.capacity() * size_of::<Reading>() + codes
            }
            Message::Event(batch) => {
                let raw: usize = batch.events.iter().map(|event| text_memory(&event.code)).sum();
                let active = batch.active.as_ref().map_or(0, code_list_memory);
                batch.events.capacity() * size_of::<FaultEvent>() + raw + active
            }
            Message::Statistics(_) => 0,
        };
        size_of::<Self>() + ALLOCATION + held
    }

    /// Terminal clock at transmission.
    pub fn sent(&self) -> Option<Timestamp> {
        match self {
            Message::Telemetry(batch) => batch.sent,
            Message::Event(batch) => batch.sent,
            Message::Statistics(statistics) => statistics.sent,
        }
    }
}

/// What an allocation costs beside its bytes: the allocator's header, and the counters of an `Arc`.
const ALLOCATION: usize = 32;

fn text_memory(code: &Code) -> usize {
    code.raw.len() + ALLOCATION
}

fn code_list_memory(codes: &Vec<Code>) -> usize {
    codes.capacity() * size_of::<Code>() + ALLOCATION + codes.iter().map(text_memory).sum::<usize>()
}

fn codes_memory(reading: &Reading) -> usize {
    match &reading.codes {
        Field::Known(codes) if codes.capacity() > 0 => code_list_memory(codes),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn telemetry(readings: Vec<Reading>) -> Message {
        let boot = BootId(1);
        Message::Telemetry(TelemetryBatch {
            boot,
            sent: None,
            prev_boot_last_seq: None,
            dropped: None,
            readings,
        })
    }

    #[test]
    fn memory_counts_readings_and_their_codes() {
        let plain = Reading::new(Seq(1), Timestamp::default());
        let mut coded = plain.clone();
        coded.codes = Field::Known(vec![Code::canonical("entrapment").unwrap(); 100]);
        let one = telemetry(vec![plain.clone()]).memory();
        let thousand = telemetry(vec![plain; 1_000]).memory();
        assert_eq!(thousand - one, 999 * size_of::<Reading>());
        let with_codes = telemetry(vec![coded]).memory();
        assert!(with_codes - one > 100 * size_of::<Code>(), "{with_codes}");
    }
}
