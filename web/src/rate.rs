//! How fast a counter grows.

use std::collections::VecDeque;
use std::time::Instant;

use crate::limits;

/// The counts of the last [`limits::RATE_WINDOW`], noted about once a second.
#[derive(Debug, Default)]
pub(crate) struct Rate {
    samples: VecDeque<(Instant, u64)>,
}

impl Rate {
    /// Takes note of the count at `now`, and forgets what lies before the window.
    pub(crate) fn note(&mut self, now: Instant, count: u64) {
        // A counter that goes back began anew.
        if self.samples.back().is_some_and(|(_, last)| count < *last) {
            self.samples.clear();
        }
        self.samples.push_back((now, count));
        while self.samples.front().is_some_and(|(at, _)| now.duration_since(*at) > limits::RATE_WINDOW) {
            self.samples.pop_front();
        }
    }

    /// Growth per second over the window; zero before there are two notes.
    pub(crate) fn per_second(&self) -> f64 {
        let (Some((began, first)), Some((ended, last))) = (self.samples.front(), self.samples.back()) else {
            return 0.0;
        };
        let seconds = ended.duration_since(*began).as_secs_f64();
        if seconds > 0.0 { (last - first) as f64 / seconds } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Counts noted one second apart.
    fn check(counts: &[u64], expected: f64) {
        let began = Instant::now();
        let mut rate = Rate::default();
        for (second, count) in counts.iter().enumerate() {
            rate.note(began + Duration::from_secs(second as u64), *count);
        }
        assert!((rate.per_second() - expected).abs() < 1e-9, "{counts:?}: {}", rate.per_second());
    }

    #[test]
    fn counts_per_second_over_the_window() {
        check(&[], 0.0);
        check(&[100], 0.0);
        check(&[100, 150], 50.0);
        check(&[100, 150, 160], 30.0);
        check(&[100, 150, 10, 30], 20.0);
        // Only the last ten seconds count.
        check(&[0, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000], 0.0);
    }
}
