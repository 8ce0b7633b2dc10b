//! Fewer points that draw the same line: M4, the first, last, lowest and highest of each stretch of time.
//!
//! On a chart with one pixel column per stretch, the line through these four is the line through all (Jugel and
//! others, "M4: a visualization-oriented time series data aggregation", 2014); a mean would lose the spike that
//! somebody is looking for. The database picks the points of long series by the same rule; this is the rule in
//! few lines, and what makes an answer with many unknown stretches fit its bound.

use domain::Timestamp;

/// A value at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// Device time.
    pub time: Timestamp,
    /// `None`: not known from here to the next point. Draw nothing, not zero.
    pub value: Option<i32>,
}

/// Points that one stretch may keep: first, last, lowest, highest, and the first that is not known.
pub(super) const KEPT_MAX: usize = 5;

/// Of each stretch of `width_us` from `from` on: the first and last point, the lowest (the earliest of equal ones),
/// the highest (the latest of equal ones), and the first that is not known. `points` are in the order of time,
/// and so is the answer.
pub fn m4(points: &[Point], from: Timestamp, width_us: u64) -> Vec<Point> {
    let width = i64::try_from(width_us.max(1)).unwrap_or(i64::MAX);
    let stretch = |point: &Point| point.time.micros().saturating_sub(from.micros()).div_euclid(width);
    let mut kept = Vec::new();
    for points in points.chunk_by(|a, b| stretch(a) == stretch(b)) {
        let known = || (0..points.len()).filter(|at| points[*at].value.is_some());
        let mut places: Vec<usize> = [
            Some(0),
            known().min_by_key(|at| points[*at].value),
            known().max_by_key(|at| points[*at].value),
            points.iter().position(|point| point.value.is_none()),
            Some(points.len() - 1),
        ]
        .into_iter()
        .flatten()
        .collect();
        places.sort_unstable();
        places.dedup();
        kept.extend(places.into_iter().map(|at| points[at]));
    }
    kept
}

/// So wide are stretches of which at most `stretches` cover from `from` to `to`.
pub(super) fn width_us(from: Timestamp, to: Timestamp, stretches: usize) -> u64 {
    let span = u64::try_from(to.since(from).as_micros()).unwrap_or(u64::MAX);
    span.div_ceil(stretches.max(1) as u64).max(1)
}

/// At most `points_max` (at least [`KEPT_MAX`]) of points between `from` and `to`.
pub(super) fn bounded(points: Vec<Point>, from: Timestamp, to: Timestamp, points_max: usize) -> Vec<Point> {
    if points.len() <= points_max {
        return points;
    }
    m4(&points, from, width_us(from, to, points_max / KEPT_MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn series() -> impl Strategy<Value = Vec<Point>> {
        let point = (0..1_000_000_i64, proptest::option::weighted(0.9, -50..50_i32));
        proptest::collection::vec(point, 1..300).prop_map(|mut points| {
            points.sort_by_key(|(at, _)| *at);
            points.into_iter().map(|(at, value)| Point { time: Timestamp::from_micros(at), value }).collect()
        })
    }

    const FROM: Timestamp = Timestamp::from_micros(0);
    const TO: Timestamp = Timestamp::from_micros(1_000_000);

    proptest! {
        #[test]
        fn what_is_seen_is_kept(points in series(), stretches in 1..50_usize) {
            let width = width_us(FROM, TO, stretches);
            let kept = m4(&points, FROM, width);
            // In order, nothing made up, both ends.
            let mut rest = points.iter();
            prop_assert!(kept.iter().all(|point| rest.any(|other| other == point)));
            prop_assert_eq!(kept.first(), points.first());
            prop_assert_eq!(kept.last(), points.last());
            // Of every stretch: what it begins and ends with, its extremes, and whether it has a gap.
            let of = |points: &[Point], stretch: i64| -> Vec<Option<i32>> {
                let inside = |point: &&Point| point.time.micros() / width.cast_signed() == stretch;
                points.iter().filter(inside).map(|point| point.value).collect()
            };
            for stretch in 0..stretches as i64 {
                let (all, some) = (of(&points, stretch), of(&kept, stretch));
                prop_assert_eq!(all.first(), some.first());
                prop_assert_eq!(all.last(), some.last());
                prop_assert_eq!(all.iter().flatten().min(), some.iter().flatten().min());
                prop_assert_eq!(all.iter().flatten().max(), some.iter().flatten().max());
                prop_assert_eq!(all.contains(&None), some.contains(&None));
                prop_assert!(some.len() <= KEPT_MAX);
            }
        }

        #[test]
        fn never_more_than_asked(points in series(), points_max in KEPT_MAX..100) {
            let kept = bounded(points.clone(), FROM, TO, points_max);
            prop_assert!(kept.len() <= points_max);
            prop_assert!(points.len() > points_max || kept == points);
            let extremes = |points: &[Point]| {
                let known = || points.iter().filter_map(|point| point.value);
                (known().min(), known().max())
            };
            prop_assert_eq!(extremes(&points), extremes(&kept));
        }

        #[test]
        fn doing_it_again_changes_nothing(points in series(), stretches in 1..50_usize) {
            let width = width_us(FROM, TO, stretches);
            let once = m4(&points, FROM, width);
            prop_assert_eq!(m4(&once, FROM, width), once);
        }
    }

    #[test]
    fn a_spike_of_one_reading_survives() {
        let point = |at: i64, value| Point { time: Timestamp::from_millis(at), value: Some(value) };
        let mut points: Vec<_> = (0..86_400).map(|second| point(second * 1_000, 20)).collect();
        points[40_000].value = Some(2_300);
        let end = Timestamp::from_millis(86_400_000);
        let kept = bounded(points, FROM, end, 500);
        assert!(kept.len() <= 500);
        assert!(kept.contains(&point(40_000_000, 2_300)));
    }
}
