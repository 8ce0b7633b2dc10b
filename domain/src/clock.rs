//! Whether a terminal's clock is off (时钟偏差, DOMAIN.md 6): pure, with hysteresis, so that one message that was
//! held up by the network flags nobody, and a clock at the limit does not flap.

use std::time::Duration;

/// A clock further off than this is skewed (DOMAIN.md 6).
pub const SKEW_MAX: Duration = Duration::from_mins(1);
/// It is right again once it is nearer than this.
pub const SKEW_CLEARS: Duration = Duration::from_secs(30);
/// Messages in a row that must agree.
pub const SKEW_MESSAGES: u8 = 3;

/// What is known of one clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClockSkew {
    flagged: bool,
    /// Messages in a row that speak for the other judgement.
    against: u8,
}

impl ClockSkew {
    /// A clock that was found to be off before.
    pub const FLAGGED: Self = Self { flagged: true, against: 0 };

    /// Whether the clock is off.
    pub fn is_flagged(self) -> bool {
        self.flagged
    }

    /// Nothing speaks against this clock: it need not be remembered.
    pub fn is_calm(self) -> bool {
        self == Self::default()
    }

    /// Whether this skew alone, arrival less `sent`, lies beyond the limit.
    pub fn is_beyond(skew_ms: i64) -> bool {
        u128::from(skew_ms.unsigned_abs()) > SKEW_MAX.as_millis()
    }

    /// Takes the skew of a message. `Some`: the judgement has changed, to this.
    pub fn observe(&mut self, skew_ms: i64) -> Option<bool> {
        let is_near = u128::from(skew_ms.unsigned_abs()) < SKEW_CLEARS.as_millis();
        let disagrees = if self.flagged { is_near } else { Self::is_beyond(skew_ms) };
        if !disagrees {
            self.against = 0;
            return None;
        }
        self.against += 1;
        if self.against < SKEW_MESSAGES {
            return None;
        }
        *self = Self { flagged: !self.flagged, against: 0 };
        Some(self.flagged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn judgements(skews_s: &[i64]) -> Vec<Option<bool>> {
        let mut clock = ClockSkew::default();
        skews_s.iter().map(|seconds| clock.observe(seconds * 1_000)).collect()
    }

    #[test]
    fn three_in_a_row_flag_a_clock_and_three_clear_it() {
        let told = judgements(&[61, -61, 3_600, 3_600, 45, 29, 29, -29, 0]);
        assert_eq!(told, [None, None, Some(true), None, None, None, None, Some(false), None]);
        assert!(judgements(&[61, 61, 0, 61, 61, 0]).iter().all(Option::is_none), "held up by the network");
        assert!(judgements(&[60; 9]).iter().all(Option::is_none), "60 s is within the limit");
    }

    #[test]
    fn between_the_two_limits_nothing_changes() {
        let mut clock = ClockSkew::FLAGGED;
        for skew_ms in [30_000, 59_000, -45_000, i64::MAX, i64::MIN] {
            assert_eq!(clock.observe(skew_ms), None);
        }
        assert!(clock.is_flagged());
    }

    proptest! {
        #[test]
        fn judgements_alternate(skews_ms in prop::collection::vec(-100_000_i64..100_000, 0..60)) {
            let mut clock = ClockSkew::default();
            let told: Vec<bool> = skews_ms.into_iter().filter_map(|skew| clock.observe(skew)).collect();
            prop_assert!(told.iter().enumerate().all(|(index, flagged)| *flagged == (index % 2 == 0)));
            prop_assert_eq!(clock.is_flagged(), told.last().copied().unwrap_or(false));
        }
    }
}
