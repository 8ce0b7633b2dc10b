//! What was counted, from samples of counters that may be reset: pure. Counters only grow; where one is smaller
//! than before, the terminal was replaced or reset, and a new segment begins (DOMAIN.md 3.2).

use crate::order::{Place, arrange};
use crate::{Counter, Counters, Timestamp};

/// Counters of one terminal at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Where it stands among what its terminal said.
    pub place: Place,
    /// Device time as sent.
    pub time: Timestamp,
    /// The counters.
    pub counters: Counters,
}

/// Why a segment began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SegmentBegin {
    /// The first that is known of this terminal.
    First,
    /// A counter was smaller than before.
    Reset,
}

/// A stretch in which one terminal counted without a reset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Device time of its first sample; of the last one before what was asked for, where there is one.
    pub begin: Timestamp,
    /// Device time of its last.
    pub end: Timestamp,
    /// Why it began.
    pub why: SegmentBegin,
    /// How many samples it has.
    pub samples: u64,
    /// By how much each counter grew from sample to sample that has it; nothing is guessed of what was counted
    /// between the last sample before a reset and the first after it.
    pub grown: Counters,
    /// The last value of each counter.
    last: Counters,
    /// Nothing of it is asked for so far: it tells where the growth of others begins.
    is_base: bool,
}

impl Segment {
    fn begin(sample: &Sample, why: SegmentBegin, is_base: bool) -> Self {
        let (begin, counters) = (sample.time, sample.counters);
        let grown = counters.iter().map(|(counter, _)| (counter, 0)).collect();
        Self { begin, end: begin, why, samples: 1, grown, last: counters, is_base }
    }

    fn is_reset_by(&self, counters: &Counters) -> bool {
        counters.iter().any(|(counter, value)| self.last.get(counter).is_some_and(|last| value < last))
    }

    /// Takes the next sample. What grew up to one before what is asked for belongs to the stretch before.
    fn extend(&mut self, sample: &Sample, is_base: bool) {
        if is_base && self.is_base {
            (self.begin, self.samples) = (sample.time, 0);
        }
        self.end = sample.time;
        self.samples += 1;
        self.is_base &= is_base;
        for (counter, value) in sample.counters.iter() {
            let step =
                if is_base { 0 } else { value.saturating_sub(self.last.get(counter).unwrap_or(value)) };
            let grown = self.grown.get(counter).unwrap_or(0).saturating_add(step);
            self.grown.set(counter, Some(grown));
            self.last.set(counter, Some(value));
        }
    }
}

/// The segments of one terminal, whatever the order in which its samples are given.
pub fn segments(samples: Vec<Sample>) -> Vec<Segment> {
    segments_since(samples, Timestamp::from_micros(i64::MIN))
}

/// The segments of one terminal from device time `from` on. Samples before that tell where growth begins, each
/// for the counters it has: a terminal may send them in messages of their own. To be exact they must reach back
/// to the last one of each counter. Stretches that follow one another add up: each step belongs to that of the
/// sample it leads to.
pub fn segments_since(mut samples: Vec<Sample>, from: Timestamp) -> Vec<Segment> {
    arrange(&mut samples, |sample| sample.place, |_| "");
    let mut segments: Vec<Segment> = Vec::new();
    for sample in &samples {
        let is_base = sample.time < from;
        match segments.last_mut() {
            None => segments.push(Segment::begin(sample, SegmentBegin::First, is_base)),
            Some(last) if last.is_reset_by(&sample.counters) => {
                // One that ended before what is asked for is no part of it.
                let is_over = last.is_base && is_base;
                let why = if is_over { last.why } else { SegmentBegin::Reset };
                if is_over {
                    segments.pop();
                }
                segments.push(Segment::begin(sample, why, is_base));
            }
            Some(last) => last.extend(sample, is_base),
        }
    }
    segments
}

/// What all of these have counted together.
pub fn total<'a>(segments: impl IntoIterator<Item = &'a Segment>) -> Counters {
    let mut total = Counters::default();
    for (counter, grown) in segments.into_iter().flat_map(|segment| segment.grown.iter()) {
        let before = total.get(counter).unwrap_or(0);
        total.set(counter, Some(before.saturating_add(grown)));
    }
    total
}

/// What one counter has counted; 0 where it was never sent.
pub fn total_of(segments: &[Segment], counter: Counter) -> i64 {
    total(segments).get(counter).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Seq, SourceId};
    use proptest::prelude::*;

    fn sample(seq: i64, values: &[(Counter, i64)]) -> Sample {
        let at = Timestamp::from_millis(seq * 1_000);
        let place = Place { source: SourceId(1), seq: Seq(seq), at };
        Sample { place, time: at, counters: values.iter().copied().collect() }
    }

    fn runs(seq: i64, value: i64) -> Sample {
        sample(seq, &[(Counter::RunCount, value)])
    }

    #[test]
    fn a_drop_begins_a_segment_and_growth_is_added_over_segments() {
        let found = segments(vec![runs(4, 7), runs(1, 100), runs(3, 3), runs(2, 150)]);
        let told: Vec<_> =
            found.iter().map(|it| (it.why, it.samples, it.begin.millis(), it.end.millis())).collect();
        assert_eq!(told, [(SegmentBegin::First, 2, 1_000, 2_000), (SegmentBegin::Reset, 2, 3_000, 4_000)]);
        assert_eq!(total_of(&found, Counter::RunCount), 50 + 4);
        assert_eq!(total_of(&found, Counter::MileageM), 0);
    }

    #[test]
    fn counters_that_are_left_out_keep_their_place() {
        let found = segments(vec![
            sample(1, &[(Counter::RunCount, 10), (Counter::EnergyWh, 500)]),
            sample(2, &[(Counter::RunCount, 12)]),
            sample(3, &[(Counter::EnergyWh, 900), (Counter::MileageM, 40)]),
        ]);
        assert_eq!(found.len(), 1);
        let grown: Vec<_> = total(&found).iter().collect();
        assert_eq!(grown, [(Counter::EnergyWh, 400), (Counter::RunCount, 2), (Counter::MileageM, 0)]);
    }

    proptest! {
        #[test]
        fn what_was_counted_is_found_whatever_the_order(
            steps in prop::collection::vec((0..50_i64, prop::bool::weighted(0.2)), 1..30),
            seed in any::<u64>(),
        ) {
            let (mut value, mut counted, mut samples) = (1_000_i64, 0, Vec::new());
            for (index, (step, reset)) in steps.iter().enumerate() {
                if *reset && value > 0 {
                    value = 0;
                } else if index > 0 {
                    value += step;
                    counted += step;
                }
                samples.push(runs(index as i64 + 1, value));
            }
            let in_order = segments(samples.clone());
            prop_assert_eq!(total_of(&in_order, Counter::RunCount), counted);
            let count = samples.len();
            for index in 0..count {
                samples.swap(index, (seed.wrapping_mul(index as u64 + 1) % count as u64) as usize);
            }
            prop_assert_eq!(segments(samples), in_order);
        }

        #[test]
        fn stretches_add_up_whatever_is_sent_together(
            sent in prop::collection::vec((0..20_i64, prop::option::of(0..20_i64)), 2..20), cut in 0..20_i64,
        ) {
            use Counter::{EnergyWh, RunCount};
            let samples: Vec<_> = (1..)
                .zip(&sent)
                .map(|(seq, (value, other))| match (other, seq % 2) {
                    (Some(other), _) => sample(seq, &[(RunCount, *value), (EnergyWh, *other)]),
                    (None, 0) => sample(seq, &[(RunCount, *value)]),
                    (None, _) => sample(seq, &[(EnergyWh, *value)]),
                })
                .collect();
            let from = Timestamp::from_millis(cut * 1_000);
            let (whole, late) = (segments(samples.clone()), segments_since(samples.clone(), from));
            let early = segments(samples.into_iter().filter(|sample| sample.time < from).collect());
            for counter in [RunCount, EnergyWh] {
                prop_assert_eq!(
                    total_of(&early, counter) + total_of(&late, counter), total_of(&whole, counter)
                );
            }
        }

        #[test]
        fn two_stretches_that_share_a_sample_add_up(
            values in prop::collection::vec(0..100_i64, 2..20), cut in 0..20_usize,
        ) {
            let samples: Vec<_> = values.iter().enumerate().map(|(at, value)| runs(at as i64 + 1, *value)).collect();
            let cut = cut % samples.len();
            let whole = total_of(&segments(samples.clone()), Counter::RunCount);
            let (first, second) = (segments(samples[..=cut].to_vec()), segments(samples[cut..].to_vec()));
            prop_assert_eq!(
                total_of(&first, Counter::RunCount) + total_of(&second, Counter::RunCount), whole
            );
        }
    }
}
