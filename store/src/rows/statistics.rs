//! Statistics as rows of `statistics`.

use std::sync::LazyLock;

use domain::{Counter, Statistics};
use serde_json::{Map, Value};

use super::{Key, Origin, Row, Table};
use crate::copy::CopyBuffer;
use crate::quarantine::{QuarantineEntry, QuarantineReason};

/// What a terminal has counted, with whatever else its row says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StatisticsRow<'a> {
    pub(crate) origin: Origin<'a>,
    pub(crate) statistics: &'a Statistics,
}

static STATISTICS: LazyLock<Table> = LazyLock::new(|| {
    Table::new(
        "statistics",
        &["elevator_id", "time", "seq", "source"],
        &Counter::ALL.map(Counter::slug),
        &["arrival_no", "arrived", "age_ms", "skew_ms"],
    )
});

impl Row for StatisticsRow<'_> {
    fn table() -> &'static Table {
        &STATISTICS
    }

    fn key(&self) -> Key<'_> {
        Key {
            elevator_id: self.origin.elevator_id,
            time: self.statistics.time,
            seq: self.statistics.seq.0,
            source: self.origin.source.0,
            code: "",
        }
    }

    fn same_content(&self, other: &Self) -> bool {
        self.statistics.counters == other.statistics.counters
    }

    fn encode(&self, out: &mut CopyBuffer) {
        let Self { origin, statistics } = self;
        out.row(8 + Counter::COUNT as i16);
        out.int8(origin.elevator_id);
        out.timestamptz(statistics.time);
        out.int8(statistics.seq.0);
        out.int4(origin.source.0);

        for counter in Counter::ALL {
            out.int8_or_null(statistics.counters.get(counter));
        }

        out.int8(origin.arrival.no.0);
        out.timestamptz(origin.arrival.at);
        out.int4_or_null(origin.age_ms(statistics.time));
        out.int4_or_null(origin.skew_ms());
    }

    fn quarantined(&self, reason: QuarantineReason, detail: String) -> QuarantineEntry {
        let payload = describe(self).to_string();
        let terminal = self.origin.terminal_id.as_str();
        let entry = QuarantineEntry::new(
            self.origin.arrival.at,
            terminal,
            "stats",
            reason,
            detail,
            payload.as_bytes(),
        );
        self.origin.quarantined(self.statistics.seq, entry)
    }
}

/// The counters in the words of the open JSON, so that they can be read, corrected and sent again.
fn describe(row: &StatisticsRow<'_>) -> Value {
    let statistics = row.statistics;
    let mut fields = Map::new();
    fields.insert("boot".to_owned(), row.origin.boot.0.into());
    if statistics.seq.0 > 0 {
        // A derived one is derived again.
        fields.insert("seq".to_owned(), statistics.seq.0.into());
    }
    fields.insert("time".to_owned(), super::told_time(statistics.time));
    for (counter, value) in statistics.counters.iter() {
        let (name, value) = match counter {
            Counter::EnergyWh => ("energy_kwh", Value::from(value as f64 / 1_000.0)),
            Counter::RunningS => ("total_hours", Value::from(value as f64 / 3_600.0)),
            _ => (counter.slug(), Value::from(value)),
        };
        fields.insert(name.to_owned(), value);
    }
    Value::Object(fields)
}

#[cfg(test)]
mod tests {
    use domain::{Arrival, BootId, Seq, SourceId, TerminalId, Timestamp};

    use super::*;

    /// With it, no retry could read them again.
    #[test]
    fn a_number_that_was_derived_is_left_to_be_derived_again() {
        let (terminal_id, time) = (TerminalId::new("t1").unwrap(), Timestamp::from_millis(0));
        let origin = Origin {
            elevator_id: 1,
            terminal_id: &terminal_id,
            source: SourceId(1),
            boot: BootId(0),
            arrival: Arrival::default(),
            sent: None,
        };
        let counters = [(Counter::RunCount, 5)].into_iter().collect();
        let said = |seq: i64| {
            let statistics = Statistics { boot: BootId(0), sent: None, seq: Seq(seq), time, counters };
            describe(&StatisticsRow { origin, statistics: &statistics })
        };
        assert_eq!(said(-7).get("seq"), None);
        assert_eq!(said(7)["seq"], 7);
    }
}
