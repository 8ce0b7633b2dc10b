//! Rows of the two hypertables: their keys, their columns, and how they are told apart.

mod fault;
mod reading;
mod statistics;

use std::fmt::Write as _;

use domain::{Arrival, BootId, Code, Seq, SourceId, TerminalId, Timestamp, limits};

use crate::SeqRanges;
use crate::copy::CopyBuffer;
use crate::quarantine::{QuarantineEntry, QuarantineReason};

pub(crate) use fault::{FaultRow, STATE_ACTIVE};
pub(crate) use reading::{ReadingRow, sent};
pub(crate) use statistics::StatisticsRow;

/// What makes a row the row it is. Orders as the primary keys do. `code` is empty for readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key<'a> {
    pub(crate) elevator_id: i64,
    pub(crate) time: Timestamp,
    pub(crate) seq: i64,
    pub(crate) source: i32,
    pub(crate) code: &'a str,
}

/// A device time in the open JSON, so that it can be read again: as ms since 1970 where no calendar has it.
fn told_time(time: Timestamp) -> serde_json::Value {
    let text = time.to_string();
    if text.parse::<Timestamp>().is_ok() { text.into() } else { time.millis().into() }
}

/// A row on its way to its table.
pub(crate) trait Row: Send + Sync {
    /// Its table.
    fn table() -> &'static Table;
    fn key(&self) -> Key<'_>;
    /// Whether `other`, which has the same key, says the same.
    fn same_content(&self, other: &Self) -> bool;
    /// Writes the columns of its table, in their order.
    fn encode(&self, out: &mut CopyBuffer);
    /// The row as kept in quarantine.
    fn quarantined(&self, reason: QuarantineReason, detail: String) -> QuarantineEntry;
}

/// From whom a row is, and when it came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin<'a> {
    pub(crate) elevator_id: i64,
    pub(crate) terminal_id: &'a TerminalId,
    pub(crate) source: SourceId,
    pub(crate) boot: BootId,
    pub(crate) arrival: Arrival,
    pub(crate) sent: Option<Timestamp>,
}

impl Origin<'_> {
    /// A row's entry in quarantine, with its number, so that this is accounted for.
    fn quarantined(&self, seq: Seq, entry: QuarantineEntry) -> QuarantineEntry {
        let numbers = SeqRanges::range(seq.0, seq.0);
        entry.arrived_as(self.arrival.no).numbered(self.terminal_id, self.boot, numbers)
    }

    pub(crate) fn age_ms(&self, time: Timestamp) -> Option<i32> {
        self.sent.map(|sent| bounded_ms(sent, time))
    }

    fn skew_ms(&self) -> Option<i32> {
        self.sent.map(|sent| bounded_ms(self.arrival.at, sent))
    }
}

/// `later - earlier`, in whole milliseconds of each, so that it can be added again without loss.
fn bounded_ms(later: Timestamp, earlier: Timestamp) -> i32 {
    let span = later.millis() - earlier.millis();
    span.clamp(-limits::SKEW_MS_ABS_MAX, limits::SKEW_MS_ABS_MAX) as i32
}

/// Column `codes`.
fn encode_codes(codes: Option<&[Code]>, out: &mut CopyBuffer) {
    match codes {
        Some(codes) => out.text_array(codes.iter().map(|code| &*code.raw)),
        None => out.null(),
    }
}

/// Column `code_slugs`: meanings of codes, where any of them differs from what was sent.
fn encode_code_slugs(codes: Option<&[Code]>, out: &mut CopyBuffer) {
    match codes {
        Some(codes) if codes.iter().any(|code| *code.raw != *code.fault.slug) => {
            out.text_array(codes.iter().map(|code| code.fault.slug));
        }
        _ => out.null(),
    }
}

/// The statements of a table.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) name: &'static str,
    /// COPY into the table itself.
    pub(crate) copy: String,
    pub(crate) staging_create: String,
    pub(crate) staging_copy: String,
    /// From staging to the table; what is there stays.
    pub(crate) merge: String,
    /// Keys of staged rows that are in the table with other content. Bounds of their time are given, so that
    /// only their chunks are looked at; the LATERAL with its limit keeps it at one index look-up per row.
    pub(crate) conflicts: String,
}

impl Table {
    /// `content` is what a row says; `about` may differ between two deliveries of the same row: when it came,
    /// and how its codes were understood then.
    fn new(name: &'static str, key: &[&str], content: &[&str], about: &[&str]) -> Self {
        let columns = [key, content, about].concat().join(", ");
        let keys = key.join(", ");
        let mut same_key = String::new();
        for column in key {
            let _ = write!(same_key, "held.{column} = staged.{column} AND ");
        }
        let of =
            |row: &str| content.iter().map(|column| format!("{row}.{column}")).collect::<Vec<_>>().join(", ");
        let (staged, held) = (of("staged"), of("held"));
        let code = if key.contains(&"code") { "staged.code" } else { "''" };
        Self {
            name,
            copy: format!("COPY {name} ({columns}) FROM STDIN (FORMAT binary)"),
            staging_create: format!(
                "CREATE TEMP TABLE staging_{name} (LIKE {name})
                 ON COMMIT DELETE ROWS"
            ),
            staging_copy: format!("COPY staging_{name} ({columns}) FROM STDIN (FORMAT binary)"),
            merge: format!(
                "INSERT INTO {name} ({columns})
                 SELECT {columns}
                 FROM staging_{name}
                 ORDER BY {keys}
                 ON CONFLICT DO NOTHING"
            ),
            conflicts: format!(
                "SELECT staged.elevator_id, staged.time, staged.seq, staged.source, {code} AS code
                 FROM staging_{name} AS staged
                 CROSS JOIN LATERAL (
                     SELECT *
                     FROM {name} AS held
                     WHERE {same_key} held.time BETWEEN $1 AND $2
                     LIMIT 1
                 ) AS held
                 WHERE ({staged}) IS DISTINCT FROM ({held})"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_beyond_the_calendar_can_be_read_again() {
        assert_eq!(told_time(Timestamp::from_millis(1_500)), "1970-01-01T00:00:01.5Z");
        for millis in [i64::MAX, i64::MIN, -100_000_000_000_000] {
            let told = told_time(Timestamp::from_millis(millis));
            let again = Timestamp::from_millis(told.as_i64().expect("ms since 1970"));
            assert_eq!(again.millis(), Timestamp::from_millis(millis).millis());
        }
    }
}
