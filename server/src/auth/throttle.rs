//! Keeps a flood of refusals from becoming a flood of log lines.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lines in one window.
const LINES: u32 = 10;
const WINDOW: Duration = Duration::from_secs(10);

/// Ten lines in ten seconds; the next one tells how many were left out.
#[derive(Debug, Default)]
pub(super) struct Throttle(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    began: Option<Instant>,
    said: u32,
    silent: u64,
}

impl Throttle {
    /// Whether to say something now, and how often nothing was said before.
    pub(super) fn pass(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.began.is_none_or(|began| now.duration_since(began) >= WINDOW) {
            (state.began, state.said) = (Some(now), 0);
        }
        if state.said == LINES {
            state.silent += 1;
            return None;
        }
        state.said += 1;
        Some(std::mem::take(&mut state.silent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_how_much_it_left_out() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        let said: Vec<_> = (0..15).map(|_| throttle.pass(now)).collect();
        assert_eq!(said[..10], [Some(0); 10]);
        assert_eq!(said[10..], [None; 5]);
        assert_eq!(throttle.pass(now + WINDOW), Some(5));
        assert_eq!(throttle.pass(now + WINDOW), Some(0));
    }
}
