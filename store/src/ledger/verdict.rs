//! The books of one source, judged: pure.
//!
//! A number is accounted for if it is a row or in quarantine; it is explained if its terminal declared that it
//! had to discard it, an operator discarded it from quarantine, or retention has deleted its row. Whatever is
//! left between the first number that is known and the last, or the last that the boot after tells, is
//! *open* while it is younger than the grace, and *unaccounted* from then on.

use std::time::Duration;

use domain::Timestamp;

use super::note::RANGES_MAX;
use super::ranges::SeqRanges;

/// How to judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Yardstick {
    pub(crate) now: Timestamp,
    pub(crate) grace: Duration,
    /// Gaps that were noticed in this time.
    pub(crate) from: Option<Timestamp>,
    pub(crate) to: Option<Timestamp>,
    /// Each boot began with number 1.
    pub(crate) from_one: bool,
    /// Rows with a device time before this may have been deleted, of any elevator; none where retention has deleted
    /// nothing yet.
    pub(crate) kept_since: Option<Timestamp>,
}

/// A terminal's clock that is set back gives a higher number an earlier time; by so much it may, within a boot,
/// before rows that retention deleted look as if somebody had taken them. A profile's zone corrected is 8 hours.
pub(super) const SET_BACK_MAX: Duration = Duration::from_hours(24);

impl Yardstick {
    /// Rows with a device time from this on are not deleted by retention, nor is what was numbered after them.
    pub(crate) fn young_since(kept_since: Timestamp) -> Timestamp {
        kept_since.plus(SET_BACK_MAX)
    }

    /// Of a gap that nobody explains.
    pub(crate) fn outcome(&self, noted: Option<Timestamp>) -> GapOutcome {
        match noted {
            Some(noted) if self.now.since(noted) < self.grace => GapOutcome::Open,
            _ => GapOutcome::Unaccounted,
        }
    }

    pub(crate) fn covers(&self, at: Timestamp) -> bool {
        self.from.is_none_or(|from| from <= at) && self.to.is_none_or(|to| at < to)
    }
}

/// All that is known of a source.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Books {
    /// Numbers that are rows.
    pub(crate) stored: SeqRanges,
    /// Of each range of `stored`, in order, when the first of its rows arrived.
    pub(crate) arrived: Vec<Timestamp>,
    pub(crate) quarantined: SeqRanges,
    /// Last numbers in quarantine, and of what was declared or discarded, each with when it was heard of.
    pub(crate) heard: Vec<(i64, Timestamp)>,
    /// Declared by the terminal.
    pub(crate) dropped: SeqRanges,
    /// From quarantine, by an operator.
    pub(crate) discarded: SeqRanges,
    /// Were in quarantine, until retention deleted them.
    pub(crate) expired: SeqRanges,
    /// Rows with a device time before this may have been deleted in the divisions of its elevators.
    pub(crate) kept_since: Option<Timestamp>,
    /// The last number, as the boot after tells, and since when that is known.
    pub(crate) told: Option<(i64, Timestamp)>,
    /// What the ledger claims.
    pub(crate) claimed: SeqRanges,
    /// Least device time of its rows, as the ledger knows.
    pub(crate) time_first: Option<Timestamp>,
    /// The lowest number of a row that is too young to be deleted, see [`Yardstick::young_since`].
    pub(crate) young: Option<i64>,
    /// Gaps with the time they were noted, in order; none overlaps another.
    pub(crate) noted: Vec<(i64, i64, Timestamp)>,
}

/// What became of numbers that are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GapOutcome {
    /// Younger than the grace: its terminal may still hold it.
    Open,
    /// Its terminal says that it had to discard it.
    Dropped,
    /// An operator discarded it from quarantine.
    Discarded,
    /// Nobody knows.
    Unaccounted,
}

/// A gap of one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gap {
    pub(crate) from: i64,
    pub(crate) to: i64,
    /// After the last number that is known.
    pub(crate) tail: bool,
    pub(crate) noted: Option<Timestamp>,
    pub(crate) outcome: GapOutcome,
}

impl Gap {
    pub(crate) fn count(&self) -> u64 {
        (self.to - self.from).unsigned_abs() + 1
    }
}

/// What the books say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Verdict {
    pub(crate) gaps: Vec<Gap>,
    /// Rows the ledger knows, and entries of quarantine, that retention has deleted.
    pub(crate) deleted: SeqRanges,
    /// Accounted for, and the ledger does not know yet.
    pub(crate) behind: SeqRanges,
    /// Claimed by the ledger without a row or an entry in quarantine.
    pub(crate) ahead: SeqRanges,
    /// The ledger holds as many ranges as it can: it is behind by design.
    pub(crate) coarse: bool,
}

impl Books {
    /// The highest number that is known, of whatever became of it.
    pub(crate) fn last_known(&self) -> Option<i64> {
        let books =
            [&self.stored, &self.quarantined, &self.dropped, &self.discarded, &self.expired, &self.claimed];
        books.iter().filter_map(|numbers| numbers.last()).max()
    }

    /// Judges them.
    pub(crate) fn judge(&self, by: &Yardstick) -> Verdict {
        let mut accounted = self.stored.clone();
        accounted.extend(&self.quarantined);
        let ghosts = self.claimed.minus(&accounted).minus(&self.discarded);
        let mut deleted = ghosts.and(&self.reached(by));
        deleted.extend(&self.expired.minus(&accounted).minus(&self.discarded));
        let ahead = ghosts.minus(&deleted);

        let mut known = accounted.clone();
        known.extend(&self.dropped);
        known.extend(&self.discarded);
        let last_known = known.last();
        let told = self.told.filter(|(seq, _)| last_known.is_none_or(|last| *seq > last));
        if let Some((seq, _)) = told {
            known.insert(seq, seq);
        }
        let first = if by.from_one { known.first().map(|_| 1) } else { known.first() };
        let mut missing = match (first, known.last()) {
            (Some(first), Some(last)) => SeqRanges::range(first, last).minus(&accounted),
            _ => SeqRanges::default(),
        };
        missing = missing.minus(&deleted);
        let dropped = missing.and(&self.dropped);
        missing = missing.minus(&dropped);
        let discarded = missing.and(&self.discarded);
        missing = missing.minus(&discarded);

        let since = self.since();
        let mut gaps = Vec::new();
        let mut name = |ranges: &SeqRanges, fixed: Option<GapOutcome>| {
            for (from, to) in ranges.as_slice() {
                let noted = self.noted_at(*from, *to, &since);
                let outcome = fixed.unwrap_or_else(|| by.outcome(noted));
                let tail = last_known.is_none_or(|last| *from > last);
                // One that nobody knows the age of belongs to every period.
                if noted.is_none_or(|noted| by.covers(noted)) {
                    gaps.push(Gap { from: *from, to: *to, tail, noted, outcome });
                }
            }
        };
        name(&missing, None);
        name(&dropped, Some(GapOutcome::Dropped));
        name(&discarded, Some(GapOutcome::Discarded));
        gaps.sort_by_key(|gap| gap.from);
        Verdict {
            gaps,
            deleted,
            behind: accounted.minus(&self.claimed),
            ahead,
            coarse: self.claimed.as_slice().len() >= RANGES_MAX,
        }
    }

    /// Numbers whose rows retention can have deleted: of a source that reaches back so far, those below the first
    /// that is too young. Numbers grow with time, so what comes after that is younger still.
    fn reached(&self, by: &Yardstick) -> SeqRanges {
        match self.time_first.zip(self.kept_since.max(by.kept_since)) {
            Some((first, kept)) if first < kept => {
                SeqRanges::range(1, self.young.map_or(i64::MAX, |young| young - 1))
            }
            _ => SeqRanges::default(),
        }
    }

    /// Numbers in order, each with when the first one at or above it was heard of.
    fn since(&self) -> Vec<(i64, Timestamp)> {
        let stored = self.stored.as_slice().iter().map(|range| range.1).zip(self.arrived.iter().copied());
        let mut since: Vec<(i64, Timestamp)> = stored.chain(self.heard.iter().copied()).collect();
        since.sort_unstable();
        for place in (1..since.len()).rev() {
            since[place - 1].1 = since[place - 1].1.min(since[place].1);
        }
        since
    }

    /// Since when this gap can be known: as the ledger noted it, or when a number above it was heard of first.
    fn noted_at(&self, from: i64, to: i64, since: &[(i64, Timestamp)]) -> Option<Timestamp> {
        let first = self.noted.partition_point(|gap| gap.1 < from);
        let noted = self.noted[first..].iter().take_while(|gap| gap.0 <= to).map(|gap| gap.2).min();
        let above = since.partition_point(|(number, _)| *number < to);
        noted.or_else(|| since.get(above).map(|(_, at)| *at)).or(self.told.map(|(_, at)| at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_millis(second * 1000)
    }

    fn set(ranges: &[(i64, i64)]) -> SeqRanges {
        ranges.iter().copied().collect()
    }

    fn yardstick() -> Yardstick {
        Yardstick { now: at(1000), ..Yardstick::default() }
    }

    fn said(books: &Books, by: &Yardstick) -> Vec<(i64, i64, GapOutcome)> {
        books.judge(by).gaps.iter().map(|gap| (gap.from, gap.to, gap.outcome)).collect()
    }

    #[test]
    fn each_number_gets_one_word() {
        let books = Books {
            stored: set(&[(10, 20), (30, 40)]),
            arrived: vec![at(1), at(900)],
            quarantined: set(&[(22, 22)]),
            dropped: set(&[(5, 8), (24, 25)]),
            discarded: set(&[(27, 27)]),
            told: Some((42, at(950))),
            claimed: set(&[(10, 20)]),
            ..Books::default()
        };
        use GapOutcome::*;
        let expected = [
            (5, 8, Dropped),
            (9, 9, Unaccounted),
            (21, 21, Unaccounted),
            (23, 23, Unaccounted),
            (24, 25, Dropped),
            (26, 26, Unaccounted),
            (27, 27, Discarded),
            (28, 29, Unaccounted),
            (41, 42, Unaccounted),
        ];
        assert_eq!(said(&books, &yardstick()), expected);
        let verdict = books.judge(&yardstick());
        assert!(verdict.gaps[8].tail && !verdict.gaps[7].tail);
        assert_eq!(verdict.behind, set(&[(22, 22), (30, 40)]));
        assert!(verdict.ahead.is_empty());

        let patient = Yardstick { grace: Duration::from_secs(200), ..yardstick() };
        let open: Vec<i64> =
            said(&books, &patient).iter().filter(|gap| gap.2 == Open).map(|gap| gap.0).collect();
        assert_eq!(open, [21, 23, 26, 28, 41], "9 is known to be missing since second 1");
        let today = Yardstick { from: Some(at(920)), ..yardstick() };
        assert_eq!(said(&books, &today), [(41, 42, Unaccounted)]);
        let strict = Yardstick { from_one: true, ..yardstick() };
        assert_eq!(said(&books, &strict)[0], (1, 4, Unaccounted));
    }

    /// The ledger had not written yet, and the gap was unaccounted for whatever the grace and in every period.
    #[test]
    fn a_gap_below_what_is_no_row_has_an_age_too() {
        let books = Books {
            stored: set(&[(1, 3)]),
            arrived: vec![at(1)],
            quarantined: set(&[(6, 6)]),
            dropped: set(&[(8, 9)]),
            heard: vec![(6, at(900)), (9, at(950))],
            ..Books::default()
        };
        use GapOutcome::*;
        let patient = Yardstick { grace: Duration::from_secs(200), ..yardstick() };
        assert_eq!(said(&books, &patient), [(4, 5, Open), (7, 7, Open), (8, 9, Dropped)]);
        let noted: Vec<_> = books.judge(&patient).gaps.iter().map(|gap| gap.noted).collect();
        assert_eq!(noted, [Some(at(900)), Some(at(950)), Some(at(950))]);
        let before = Yardstick { to: Some(at(900)), ..yardstick() };
        assert_eq!(said(&books, &before), []);
    }

    #[test]
    fn retention_explains_what_it_can_have_reached() {
        let books = Books {
            stored: set(&[(50, 60)]),
            arrived: vec![at(900)],
            claimed: set(&[(1, 60)]),
            time_first: Some(at(10)),
            ..Books::default()
        };
        let old = books.judge(&Yardstick { kept_since: Some(at(100)), ..yardstick() });
        assert_eq!((old.deleted, old.ahead), (set(&[(1, 49)]), SeqRanges::default()));
        let young = books.judge(&yardstick());
        assert_eq!((young.deleted, young.ahead), (SeqRanges::default(), set(&[(1, 49)])));
    }

    #[test]
    fn retention_explains_nothing_that_was_numbered_after_a_young_row() {
        let by = Yardstick { kept_since: Some(at(100)), ..yardstick() };
        let mut books = Books {
            stored: set(&[(10, 14), (16, 18), (30, 40)]),
            arrived: vec![at(1), at(2), at(900)],
            claimed: set(&[(1, 50)]),
            time_first: Some(at(10)),
            young: Some(30),
            ..Books::default()
        };
        let verdict = books.judge(&by);
        assert_eq!((verdict.deleted, verdict.ahead), (set(&[(1, 9), (15, 15), (19, 29)]), set(&[(41, 50)])));
        // All that is left is old.
        books.young = None;
        let verdict = books.judge(&by);
        assert_eq!((verdict.deleted.count(), verdict.ahead), (31, SeqRanges::default()));
        // Nothing is left at all.
        let gone = Books { stored: SeqRanges::default(), arrived: Vec::new(), ..books };
        let verdict = gone.judge(&by);
        assert_eq!((verdict.deleted, verdict.ahead), (set(&[(1, 50)]), SeqRanges::default()));
    }

    fn some() -> impl Strategy<Value = SeqRanges> {
        prop::collection::vec((1_i64..60, 0_i64..6), 0..8)
            .prop_map(|list| list.into_iter().map(|(from, len)| (from, from + len)).collect())
    }

    proptest! {
        #[test]
        fn nothing_between_first_and_last_is_left_without_a_word(
            stored in some(), quarantined in some(), dropped in some(), discarded in some(), claimed in some(),
            told in prop::option::of(1_i64..80), reached in any::<bool>(), young in prop::option::of(1_i64..80),
        ) {
            let books = Books {
                arrived: stored.as_slice().iter().map(|range| at(range.0)).collect(),
                time_first: reached.then_some(at(0)),
                told: told.map(|seq| (seq, at(0))),
                young,
                stored, quarantined, dropped, discarded, claimed,
                ..Books::default()
            };
            let verdict = books.judge(&Yardstick { kept_since: Some(at(1)), ..yardstick() });
            let numbers = |set: &SeqRanges| -> BTreeSet<i64> {
                set.as_slice().iter().flat_map(|(from, to)| *from..=*to).collect()
            };
            let accounted = &numbers(&books.stored) | &numbers(&books.quarantined);
            let mut worded = accounted.clone();
            for gap in &verdict.gaps {
                for number in gap.from..=gap.to {
                    prop_assert!(worded.insert(number), "{number} twice");
                    prop_assert_eq!(numbers(&books.dropped).contains(&number), gap.outcome == GapOutcome::Dropped);
                }
            }
            let deleted = numbers(&verdict.deleted);
            prop_assert!(deleted.is_disjoint(&accounted));
            worded.extend(&deleted);
            let explained = &numbers(&books.dropped) | &numbers(&books.discarded);
            let known = &accounted | &explained;
            if let (Some(first), Some(last)) = (known.first(), known.last()) {
                let last = told.unwrap_or(0).max(*last);
                for number in *first..=last {
                    prop_assert!(worded.contains(&number), "{number} of {first} to {last}");
                }
            }
            // The ledger is true where it is neither ahead nor behind.
            let mut mended = books.claimed.minus(&verdict.ahead).minus(&verdict.deleted).minus(&books.discarded.minus(
                &books.stored).minus(&books.quarantined));
            mended.extend(&verdict.behind);
            prop_assert_eq!(numbers(&mended), accounted);
        }
    }
}
