//! Fault events and lists of active faults as rows of `fault`.

use std::sync::LazyLock;

use domain::{Code, EventBatch, FaultEvent, Seq, Timestamp, limits};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Key, Origin, Row, Table, encode_code_slugs, encode_codes};
use crate::copy::CopyBuffer;
use crate::quarantine::{QuarantineEntry, QuarantineReason};

/// `fault.state` of a list of all active faults; the others are those of `domain::EventState`.
pub(crate) const STATE_ACTIVE: i16 = 4;

/// An event, or a list of active faults, with whatever else its row says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FaultRow<'a> {
    pub(crate) origin: Origin<'a>,
    pub(crate) item: i16,
    pub(crate) time: Timestamp,
    /// `time` is that of the arrival, so the key does not tell a list that was sent twice.
    pub(crate) timeless: bool,
    pub(crate) seq: Seq,
    pub(crate) state: i16,
    pub(crate) code: &'a str,
    pub(crate) slug: &'static str,
    pub(crate) codes: Option<&'a [Code]>,
}

impl<'a> FaultRow<'a> {
    /// One event.
    pub(crate) fn event(origin: Origin<'a>, item: i16, event: &'a FaultEvent) -> Self {
        Self {
            origin,
            item,
            time: event.time,
            timeless: false,
            seq: event.seq,
            state: event.state as i16,
            code: &event.code.raw,
            slug: event.code.fault.slug,
            codes: None,
        }
    }

    /// The list of active faults of `batch`. It has neither number nor time of its own: its time is that of
    /// the last event beside it, or of the transmission, or the arrival; its number comes from its content.
    pub(crate) fn active(
        origin: Origin<'a>,
        batch: &EventBatch,
        codes: &'a [Code],
        possible: impl Fn(Timestamp) -> bool,
    ) -> Self {
        // The event first: a terminal that sends again tells another time of transmission.
        let told = batch.events.last().map(|event| event.time).or(batch.sent).filter(|time| possible(*time));
        let time = told.unwrap_or(origin.arrival.at);
        let item = i16::try_from(limits::BATCH_EVENTS_MAX).unwrap_or(i16::MAX);
        let seq = derived_seq(codes);
        let timeless = told.is_none();
        Self {
            origin,
            item,
            time,
            timeless,
            seq,
            state: STATE_ACTIVE,
            code: "",
            slug: "",
            codes: Some(codes),
        }
    }
}

/// A negative number from the codes, so that the same list at the same time is the same row.
fn derived_seq(codes: &[Code]) -> Seq {
    let mut hash = Sha256::new();
    for code in codes {
        hash.update(code.raw.as_bytes());
        hash.update([0]);
    }
    let digest: [u8; 32] = hash.finalize().into();
    let number = digest.iter().take(8).fold(0_i64, |number, byte| number << 8 | i64::from(*byte));
    Seq(number | i64::MIN)
}

static FAULT: LazyLock<Table> = LazyLock::new(|| {
    Table::new(
        "fault",
        &["elevator_id", "time", "seq", "source", "code"],
        &["state", "codes"],
        &["arrival_no", "arrived", "age_ms", "skew_ms", "item", "slug", "code_slugs"],
    )
});

impl Row for FaultRow<'_> {
    fn table() -> &'static Table {
        &FAULT
    }

    fn key(&self) -> Key<'_> {
        Key {
            elevator_id: self.origin.elevator_id,
            time: self.time,
            seq: self.seq.0,
            source: self.origin.source.0,
            code: self.code,
        }
    }

    fn same_content(&self, other: &Self) -> bool {
        self.state == other.state && self.codes == other.codes
    }

    fn encode(&self, out: &mut CopyBuffer) {
        out.row(14);
        out.int8(self.origin.elevator_id);
        out.timestamptz(self.time);
        out.int8(self.seq.0);
        out.int4(self.origin.source.0);
        out.text(self.code);

        out.int2(self.state);
        encode_codes(self.codes, out);

        out.int8(self.origin.arrival.no.0);
        out.timestamptz(self.origin.arrival.at);
        out.int4_or_null(self.origin.age_ms(self.time));
        out.int4_or_null(self.origin.skew_ms());
        out.int2(self.item);
        out.text(self.slug);
        encode_code_slugs(self.codes, out);
    }

    fn quarantined(&self, reason: QuarantineReason, detail: String) -> QuarantineEntry {
        let payload = describe(self).to_string();
        let terminal = self.origin.terminal_id.as_str();
        let (arrived, payload) = (self.origin.arrival.at, payload.as_bytes());
        let entry = QuarantineEntry::new(arrived, terminal, "event", reason, detail, payload);
        self.origin.quarantined(self.seq, entry)
    }
}

/// The event in the words of the open JSON.
fn describe(row: &FaultRow<'_>) -> Value {
    let boot = row.origin.boot.0;
    if let Some(codes) = row.codes {
        let codes: Vec<&str> = codes.iter().map(|code| &*code.raw).collect();
        let sent = (!row.timeless).then(|| super::told_time(row.time));
        return json!({ "boot": boot, "sent": sent, "active": codes });
    }
    let state = match row.state {
        1 => "open",
        2 => "close",
        _ => "once",
    };
    // A derived number is derived again.
    let seq = Some(row.seq.0).filter(|seq| *seq > 0);
    json!({ "boot": boot, "seq": seq, "time": super::told_time(row.time), "code": row.code, "state": state })
}
