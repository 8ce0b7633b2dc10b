//! Sets of sequence numbers as ranges: the pure heart of the ledger.

/// Numbers above which nothing is kept: a range ends before what an `int8range` can hold.
const NUMBER_MAX: i64 = i64::MAX - 1;

/// A set of positive numbers, as ranges with both ends included: sorted, apart from each other, not touching.
/// Numbers in their order cost one comparison each and no memory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SeqRanges(Vec<(i64, i64)>);

impl SeqRanges {
    /// One range; numbers that are not positive are left out.
    pub fn range(from: i64, to: i64) -> Self {
        let mut ranges = Self::default();
        ranges.insert(from, to);
        ranges
    }

    /// Adds `from` to `to`. What is not positive is left out: such numbers are derived, not the terminal's.
    pub fn insert(&mut self, from: i64, to: i64) {
        let (from, to) = (from.max(1), to.min(NUMBER_MAX));
        if from > to {
            return;
        }
        match self.0.last_mut() {
            // The usual case: the next number, or a repeated one of the last range.
            Some(last) if from >= last.0 && from <= last.1 + 1 => last.1 = last.1.max(to),
            Some(last) if from < last.0 => self.insert_below(from, to),
            _ => self.0.push((from, to)),
        }
    }

    /// As [`Self::insert`], unless there were more than `most` ranges then and more than before. False: not added.
    pub(crate) fn insert_bounded(&mut self, from: i64, to: i64, most: usize) -> bool {
        let mut with = self.clone();
        with.insert(from, to);
        let fits = with.0.len() <= most.max(self.0.len());
        if fits {
            *self = with;
        }
        fits
    }

    fn insert_below(&mut self, from: i64, to: i64) {
        // Ranges that touch the new one become one with it.
        let first = self.0.partition_point(|range| range.1 + 1 < from);
        let end = self.0.partition_point(|range| range.0 <= to + 1);
        if first == end {
            self.0.insert(first, (from, to));
            return;
        }
        let joined = (from.min(self.0[first].0), to.max(self.0[end - 1].1));
        self.0.splice(first..end, [joined]);
    }

    /// Adds all of `other`.
    pub fn extend(&mut self, other: &Self) {
        for (from, to) in &other.0 {
            self.insert(*from, *to);
        }
    }

    /// What of this is not in `other`.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        let mut left = Vec::new();
        let mut others = other.0.as_slice();
        for (from, to) in &self.0 {
            let mut from = *from;
            while let Some(first) = others.first() {
                if first.1 < from {
                    others = &others[1..];
                    continue;
                }
                if first.0 > *to {
                    break;
                }
                if first.0 > from {
                    left.push((from, first.0 - 1));
                }
                from = first.1 + 1;
                if from > *to {
                    break;
                }
            }
            if from <= *to {
                left.push((from, *to));
            }
        }
        Self(left)
    }

    /// What is in both.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        self.minus(&self.minus(other))
    }

    /// What lies between the first and the last number and is not in here.
    #[must_use]
    pub fn gaps(&self) -> Self {
        Self(self.0.windows(2).map(|pair| (pair[0].1 + 1, pair[1].0 - 1)).collect())
    }

    /// Keeps the first and the newest ranges, `most` together: what was said of the rest is forgotten.
    /// Returns whether anything was.
    pub fn bound(&mut self, most: usize) -> bool {
        let surplus = self.0.len().saturating_sub(most.max(2));
        if surplus == 0 {
            return false;
        }
        self.0.drain(1..=surplus);
        true
    }

    /// How many numbers.
    pub fn count(&self) -> u64 {
        self.0.iter().fold(0_u64, |sum, (from, to)| sum.saturating_add((to - from).unsigned_abs() + 1))
    }

    /// The ranges, in order.
    pub fn as_slice(&self) -> &[(i64, i64)] {
        &self.0
    }

    /// The lowest number.
    pub fn first(&self) -> Option<i64> {
        self.0.first().map(|range| range.0)
    }

    /// The highest number.
    pub fn last(&self) -> Option<i64> {
        self.0.last().map(|range| range.1)
    }

    /// The highest number up to which nothing is missing.
    pub fn contiguous(&self) -> Option<i64> {
        self.0.first().map(|range| range.1)
    }

    /// Whether there is no number in here.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(i64, i64)> for SeqRanges {
    fn from_iter<I: IntoIterator<Item = (i64, i64)>>(ranges: I) -> Self {
        let mut set = Self::default();
        for (from, to) in ranges {
            set.insert(from, to);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn naive(ranges: &[(i64, i64)]) -> BTreeSet<i64> {
        ranges.iter().flat_map(|(from, to)| *from..=*to).filter(|number| *number > 0).collect()
    }

    fn numbers(ranges: &SeqRanges) -> BTreeSet<i64> {
        ranges.as_slice().iter().flat_map(|(from, to)| *from..=*to).collect()
    }

    fn check(ranges: &SeqRanges) {
        for pair in ranges.as_slice().windows(2) {
            assert!(pair[0].1 + 1 < pair[1].0, "sorted, apart: {ranges:?}");
        }
        assert!(ranges.as_slice().iter().all(|(from, to)| 0 < *from && from <= to), "{ranges:?}");
    }

    /// In order, in bulk, out of order, twice: short ranges and long ones.
    fn some() -> impl Strategy<Value = Vec<(i64, i64)>> {
        prop::collection::vec((-5_i64..120, 0_i64..12), 0..60)
            .prop_map(|list| list.into_iter().map(|(from, len)| (from, from + len)).collect())
    }

    proptest! {
        #[test]
        fn it_is_the_set_that_was_put_in(one in some(), other in some()) {
            let (ours, theirs): (SeqRanges, SeqRanges) =
                (one.iter().copied().collect(), other.iter().copied().collect());
            check(&ours);
            prop_assert_eq!(numbers(&ours), naive(&one));
            prop_assert_eq!(ours.count(), naive(&one).len() as u64);
            let (minus, and) = (ours.minus(&theirs), ours.and(&theirs));
            check(&minus);
            check(&and);
            prop_assert_eq!(numbers(&minus), &naive(&one) - &naive(&other));
            prop_assert_eq!(numbers(&and), &naive(&one) & &naive(&other));
            let mut both = ours.clone();
            both.extend(&theirs);
            check(&both);
            prop_assert_eq!(numbers(&both), &naive(&one) | &naive(&other));
        }

        #[test]
        fn gaps_are_what_is_missing_between_first_and_last(list in some()) {
            let ours: SeqRanges = list.iter().copied().collect();
            let set = naive(&list);
            let missing: BTreeSet<i64> = match (set.first(), set.last()) {
                (Some(first), Some(last)) => (*first..=*last).filter(|number| !set.contains(number)).collect(),
                _ => BTreeSet::new(),
            };
            prop_assert_eq!(numbers(&ours.gaps()), missing);
            prop_assert_eq!(ours.first(), set.first().copied());
            prop_assert_eq!(ours.last(), set.last().copied());
        }

        #[test]
        fn a_bound_forgets_and_never_invents(list in some(), most in 0_usize..8) {
            let whole: SeqRanges = list.iter().copied().collect();
            let mut ours = whole.clone();
            let forgot = ours.bound(most);
            check(&ours);
            prop_assert!(ours.as_slice().len() <= most.max(2));
            prop_assert!(ours.minus(&whole).is_empty());
            prop_assert_eq!(forgot, ours != whole);
            prop_assert_eq!((ours.first(), ours.last()), (whole.first(), whole.last()));
        }
    }

    #[test]
    fn the_ends_of_the_numbers_do_no_harm() {
        let mut ranges = SeqRanges::range(i64::MIN, i64::MAX);
        assert_eq!(ranges.as_slice(), [(1, NUMBER_MAX)]);
        ranges.insert(NUMBER_MAX, i64::MAX);
        ranges.insert(i64::MAX, i64::MAX);
        assert_eq!(ranges.count(), NUMBER_MAX.unsigned_abs());
        assert!(SeqRanges::range(5, 4).is_empty());
        assert!(SeqRanges::range(-9, 0).is_empty());
    }
}
