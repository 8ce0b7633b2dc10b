//! What a committed batch tells the ledger, and what waits to be written: pure.

use std::collections::{BTreeSet, HashMap};

use domain::{ArrivalNo, ElevatorId, Message, Seq, SourceId, Timestamp};

use super::ranges::SeqRanges;

/// Ranges of one source that are written at once, and that the table keeps of it (`ledger_bounded`). Full: the
/// ones in the middle are forgotten; the ledger then claims less than the rows, and the audit mends it.
pub(crate) const RANGES_MAX: usize = 256;
/// Sources whose numbers wait to be written, about 150 bytes each. Full: all are forgotten, and the ledger
/// catches up from the rows.
pub(super) const WAITING_MAX: usize = 500_000;

/// The numbers of a message that are its terminal's own.
pub fn message_numbers(message: &Message) -> SeqRanges {
    let one = |seq: Seq| (seq.0, seq.0);
    match message {
        Message::Telemetry(batch) => batch.readings.iter().map(|reading| one(reading.seq)).collect(),
        Message::Event(batch) => batch.events.iter().map(|event| one(event.seq)).collect(),
        Message::Statistics(statistics) => SeqRanges::range(statistics.seq.0, statistics.seq.0),
    }
}

/// Numbers of one source that follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) source: SourceId,
    /// Under which the rows are; none for what is in quarantine alone.
    pub(crate) elevator: Option<ElevatorId>,
    pub(crate) from: i64,
    pub(crate) to: i64,
    /// Least device time.
    pub(crate) time_first: Option<Timestamp>,
}

/// What one committed batch means to the ledger.
#[derive(Debug, Default)]
pub(crate) struct Note {
    /// The newest message of the batch: those before it of the same writer are committed too.
    pub(crate) arrival_no: ArrivalNo,
    pub(crate) runs: Vec<Run>,
    /// Sources that told about the boot before, or that something was discarded.
    pub(crate) touched: Vec<SourceId>,
}

impl Note {
    /// A row. Derived numbers are no business of the ledger.
    pub(crate) fn row(&mut self, source: SourceId, elevator: ElevatorId, seq: Seq, time: Timestamp) {
        if seq.0 <= 0 || seq.0 == i64::MAX {
            return;
        }
        match self.runs.last_mut() {
            Some(run) if run.to + 1 == seq.0 && run.source == source && run.elevator == Some(elevator) => {
                run.to = seq.0;
                run.time_first = run.time_first.min(Some(time));
            }
            _ => self.runs.push(Run {
                source,
                elevator: Some(elevator),
                from: seq.0,
                to: seq.0,
                time_first: Some(time),
            }),
        }
    }

    /// What is in quarantine.
    pub(crate) fn quarantined(&mut self, source: SourceId, numbers: &SeqRanges) {
        let run =
            |(from, to): &(i64, i64)| Run { source, elevator: None, from: *from, to: *to, time_first: None };
        self.runs.extend(numbers.as_slice().iter().map(run));
    }
}

/// What waits to be written.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    numbers: HashMap<(SourceId, Option<ElevatorId>), (SeqRanges, Option<Timestamp>)>,
    pub(crate) touched: BTreeSet<SourceId>,
}

impl Waiting {
    /// Takes a note. False: there was too much, and all is forgotten.
    pub(crate) fn take(&mut self, note: &Note) -> bool {
        self.touched.extend(note.touched.iter().copied());
        for run in &note.runs {
            self.add(*run);
        }
        let fits = self.numbers.len() + self.touched.len() <= WAITING_MAX;
        if !fits {
            *self = Self::default();
        }
        fits
    }

    fn add(&mut self, run: Run) {
        let (ranges, first) = self.numbers.entry((run.source, run.elevator)).or_default();
        ranges.insert(run.from, run.to);
        if ranges.as_slice().len() > 4 * RANGES_MAX {
            ranges.bound(RANGES_MAX);
        }
        *first = match (*first, run.time_first) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }

    /// Puts back what could not be written.
    pub(crate) fn put_back(&mut self, other: Self) -> bool {
        let runs = other.runs();
        self.take(&Note { runs, touched: other.touched.into_iter().collect(), ..Note::default() })
    }

    /// By source, at most [`RANGES_MAX`] of each.
    pub(crate) fn runs(&self) -> Vec<Run> {
        let mut runs = Vec::with_capacity(self.numbers.len());
        for ((source, elevator), (ranges, time_first)) in &self.numbers {
            let mut ranges = ranges.clone();
            ranges.bound(RANGES_MAX);
            runs.extend(ranges.as_slice().iter().map(|(from, to)| Run {
                source: *source,
                elevator: *elevator,
                from: *from,
                to: *to,
                time_first: *time_first,
            }));
        }
        runs.sort_by_key(|run| (run.source.0, run.from));
        runs
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.numbers.is_empty() && self.touched.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(source: i32, from: i64, to: i64) -> (i32, i64, i64) {
        (source, from, to)
    }

    fn told(waiting: &Waiting) -> Vec<(i32, i64, i64)> {
        waiting.runs().iter().map(|one| run(one.source.0, one.from, one.to)).collect()
    }

    #[test]
    fn rows_in_their_order_are_one_run() {
        let (mut note, at) = (Note::default(), Timestamp::from_millis);
        for seq in [5, 6, 7, -3, 9] {
            note.row(SourceId(1), ElevatorId(1), Seq(seq), at(100 - seq));
        }
        note.row(SourceId(2), ElevatorId(2), Seq(10), at(1));
        note.row(SourceId(2), ElevatorId(3), Seq(11), at(1));
        let runs: Vec<_> = note.runs.iter().map(|one| (one.source.0, one.from, one.to)).collect();
        assert_eq!(runs, [(1, 5, 7), (1, 9, 9), (2, 10, 10), (2, 11, 11)]);
        assert_eq!(note.runs[0].time_first, Some(at(93)));
    }

    #[test]
    fn what_waits_is_coalesced_and_can_be_put_back() {
        let mut waiting = Waiting::default();
        for seq in (1..100).chain(200..210).chain(1..20) {
            let mut note = Note::default();
            note.row(SourceId(1), ElevatorId(1), Seq(seq), Timestamp::default());
            assert!(waiting.take(&note));
        }
        assert_eq!(told(&waiting), [run(1, 1, 99), run(1, 200, 209)]);
        let failed = std::mem::take(&mut waiting);
        assert!(waiting.is_empty());
        let mut note = Note { touched: vec![SourceId(3)], ..Note::default() };
        note.row(SourceId(1), ElevatorId(1), Seq(100), Timestamp::default());
        waiting.take(&note);
        assert!(waiting.put_back(failed));
        assert_eq!(told(&waiting), [run(1, 1, 100), run(1, 200, 209)]);
        assert_eq!(waiting.touched.len(), 1);
    }

    #[test]
    fn a_terminal_that_counts_by_twos_is_bounded() {
        let mut waiting = Waiting::default();
        for seq in 0..10_000 {
            let mut note = Note::default();
            note.row(SourceId(1), ElevatorId(1), Seq(1 + 2 * seq), Timestamp::default());
            waiting.take(&note);
        }
        let runs = told(&waiting);
        assert_eq!(runs.len(), RANGES_MAX);
        assert_eq!((runs[0], runs[RANGES_MAX - 1]), (run(1, 1, 1), run(1, 19_999, 19_999)));
    }
}
