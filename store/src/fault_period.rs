//! Occurrences of faults: `fault_period`, kept up with what terminals say before it is acknowledged.
//!
//! Promises: the periods of a terminal are what `domain::fault_period` makes of its stored rows, those of `fault`
//! and of what readings in `telemetry` show ([`Shown`]), whatever the order in which they came and however often.
//! What comes in order is followed from where the terminal stands ([`domain::order::Head`]). A reading that shows
//! nothing new costs a look-up in memory ([`Standings`]). Anything else (a late backlog, a redelivery, two boots
//! at once) has the periods made anew from the rows since [`LISTS_BACK`] before the first thing that is concerned.
//! Does not judge faults.
//!
//! Exact as long as the corrected times of a terminal are right to [`SLACK`] of one another, or for rows of `fault`
//! alone, which have their numbers, to [`LOOK_BACK`], and it has no more faults open and no more rows to be looked at
//! again than are followed (`domain::fault_period::OPEN_MAX`, `remade`): beyond, a fault has its row and no period, and
//! is counted. Where two processes store what one terminal says at the same
//! time, its periods are mended when its standing is read again.

mod follow;
mod lists;
mod read;
mod remade;
mod skew;
mod standing;

use std::collections::BTreeMap;
use std::time::Duration;

use domain::fault_period::{Mark, Says, Shown};
use domain::order::{Place, corrected};
use domain::{Code, Field, Reading, ServiceMode, TerminalId, Timestamp, fault_by_slug};

use crate::rows::{FaultRow, ReadingRow, STATE_ACTIVE};

pub(crate) use follow::{AllNew, follow};
pub(crate) use lists::{Again, lists_news};
pub use read::FaultPeriodRecord;
pub(crate) use read::boot;
pub(crate) use skew::Clocks;
pub(crate) use standing::Standings;

/// Rows of `fault` are read again from so long before the oldest thing that came out of order.
const LOOK_BACK: Duration = Duration::from_hours(7 * 24);
/// Rows of `telemetry` from so long before the first thing that is concerned: there are a thousand times as many.
const LISTS_BACK: Duration = Duration::from_mins(10);
/// Readings further than this from the begin and the end of every period need no closer look at their order.
const SLACK: Duration = Duration::from_mins(1);

/// A terminal at an elevator.
type Of = (i64, TerminalId);

/// What a batch says about faults at a terminal.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// In the order of arrival.
    marks: Vec<Mark>,
    /// Its periods are to be made anew from here on, whatever the marks.
    since: Option<Timestamp>,
}

impl Told {
    fn is_shown(&self) -> bool {
        self.marks.iter().all(|mark| matches!(mark.says, Says::Shown(_)))
    }

    fn has_shown(&self) -> bool {
        self.marks.iter().any(|mark| matches!(mark.says, Says::Shown(_)))
    }

    /// Its earliest time of either clock.
    fn oldest(&self) -> Option<Timestamp> {
        let times = self.marks.iter().map(|mark| mark.time.min(mark.place.at));
        times.chain(self.since).min()
    }
}

/// What the rows of a batch say about faults, of each terminal.
pub(crate) fn told(rows: &[FaultRow<'_>]) -> BTreeMap<Of, Told> {
    let mut told: BTreeMap<Of, Told> = BTreeMap::new();
    for row in rows {
        let of = (row.origin.elevator_id, row.origin.terminal_id.clone());
        told.entry(of).or_default().marks.extend(mark(row));
    }
    told
}

fn mark(row: &FaultRow<'_>) -> Option<Mark> {
    let at = corrected(row.origin.arrival.at, row.time, row.origin.age_ms(row.time));
    let place = Place::new(row.origin.source, row.origin.boot, row.seq, at);
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

/// What a reading shows of faults, as in [`Shown`]; nearly always an empty list, normal service, or both.
fn shows(reading: &Reading) -> Option<(Option<&[Code]>, bool)> {
    let codes = match &reading.codes {
        Field::Known(codes) => Some(codes.as_slice()),
        Field::Absent | Field::Unknown => None,
    };
    let normal = reading.service_mode == Field::Known(ServiceMode::Normal);
    (codes.is_some() || normal).then_some((codes, normal))
}

fn place(row: &ReadingRow<'_>) -> Place {
    let time = row.reading.time;
    let at = corrected(row.origin.arrival.at, time, row.origin.age_ms(time));
    Place::new(row.origin.source, row.origin.boot, row.reading.seq, at)
}

fn shown(row: &ReadingRow<'_>) -> Option<Mark> {
    let (codes, normal) = shows(row.reading)?;
    let says = Says::Shown(Shown { codes: codes.map(<[Code]>::to_vec), normal });
    Some(Mark { place: place(row), time: row.reading.time, says })
}
