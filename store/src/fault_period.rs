//! Occurrences of faults: `fault_period`, kept up with the rows of `fault` before these are acknowledged.
//!
//! Promises: the periods of a terminal are what `domain::fault_period` makes of its stored rows, whatever the
//! order in which they came and however often. What comes in order is followed from where the terminal stands
//! ([`Head`]); anything else (a late backlog, a redelivery, two boots at once) has the periods made anew from
//! the rows of [`LOOK_BACK`] before the oldest thing that came. Does not judge faults.
//!
//! Exact as long as the device clock of a terminal does not jump by more than [`LOOK_BACK`] between its rows.

mod follow;
mod read;
mod skew;

use std::collections::BTreeMap;
use std::time::Duration;

use domain::fault_period::{Mark, Says};
use domain::order::{Place, corrected};
use domain::{Code, TerminalId, fault_by_slug};

use crate::rows::{FaultRow, STATE_ACTIVE};

pub(crate) use follow::follow;
pub use read::FaultPeriodRecord;
pub(crate) use skew::Clocks;

/// Rows are read again from so long before the oldest thing that came out of order.
const LOOK_BACK: Duration = Duration::from_hours(7 * 24);

/// A terminal at an elevator.
type Of = (i64, TerminalId);

/// What the rows of a batch say about faults, of each terminal in the order of arrival.
pub(crate) fn told(rows: &[FaultRow<'_>]) -> BTreeMap<Of, Vec<Mark>> {
    let mut told: BTreeMap<Of, Vec<Mark>> = BTreeMap::new();
    for row in rows {
        let of = (row.origin.elevator_id, row.origin.terminal_id.clone());
        told.entry(of).or_default().extend(mark(row));
    }
    told
}

fn mark(row: &FaultRow<'_>) -> Option<Mark> {
    let at = corrected(row.origin.arrival.at, row.time, row.origin.age_ms(row.time));
    let place = Place { source: row.origin.source, seq: row.seq, at };
    let says = if row.state == STATE_ACTIVE {
        Says::List(row.codes.unwrap_or_default().to_vec())
    } else {
        says(row.state, Code { raw: row.code.into(), fault: fault_by_slug(row.slug)? })?
    };
    Some(Mark { place, time: row.time, says })
}

fn says(state: i16, code: Code) -> Option<Says> {
    match state {
        1 => Some(Says::Open(code)),
        2 => Some(Says::Close(code)),
        3 => Some(Says::Once(code)),
        _ => None,
    }
}
