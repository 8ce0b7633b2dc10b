//! Whether a terminal's clock is off (时钟偏差, DOMAIN.md 6): pure, with hysteresis, so that one message that was
//! held up by the network flags nobody, and a clock at the limit does not flap.

use std::time::Duration;

use crate::Timestamp;

/// A clock further off than this is skewed (DOMAIN.md 6).
pub const SKEW_MAX: Duration = Duration::from_mins(1);
/// It is right again once it is nearer than this.
pub const SKEW_CLEARS: Duration = Duration::from_secs(30);
/// Messages in a row that must agree.
pub const SKEW_MESSAGES: u8 = 3;
/// Without `sent` they must go on for so long, each at the same distance: then the clock goes at the pace of ours. What
/// a terminal sends of the past comes nearer with each message.
pub const OFFSET_FOR: Duration = Duration::from_mins(2);

/// What is known of one clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClockSkew {
    flagged: bool,
    /// Messages in a row that speak for the other judgement.
    against: u8,
    /// Of messages without `sent`: how far off the first of them was, in ms, and its arrival.
    offset: Option<(i64, Timestamp)>,
}

impl ClockSkew {
    /// A clock that was found to be off before.
    pub const FLAGGED: Self = Self { flagged: true, against: 0, offset: None };

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
        self.offset = None;
        if !disagrees {
            self.against = 0;
            return None;
        }
        self.against += 1;
        if self.against < SKEW_MESSAGES {
            return None;
        }
        *self = Self { flagged: !self.flagged, ..Self::default() };
        Some(self.flagged)
    }

    /// Takes a message that tells no `sent`, by its newest device time: arrival less that is skew and age in one. Age
    /// does not stay the same for [`OFFSET_FOR`].
    pub fn observe_offset(&mut self, offset_ms: i64, arrived: Timestamp) -> Option<bool> {
        if self.flagged || !Self::is_beyond(offset_ms) {
            return self.observe(offset_ms);
        }
        let is_same = |first: i64| u128::from(first.abs_diff(offset_ms)) <= SKEW_CLEARS.as_millis();
        let Some((first, since)) = self.offset.filter(|(first, _)| is_same(*first)) else {
            (self.against, self.offset) = (1, Some((offset_ms, arrived)));
            return None;
        };
        self.against = self.against.saturating_add(1);
        if self.against < SKEW_MESSAGES || arrived < since.plus(OFFSET_FOR) {
            self.offset = Some((first, since));
            return None;
        }
        *self = Self::FLAGGED;
        Some(true)
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

    /// Offsets of messages without `sent`, by the second of their arrival.
    fn by_offset(offsets: impl IntoIterator<Item = (i64, i64)>) -> Vec<Option<bool>> {
        let mut clock = ClockSkew::default();
        let at = |second: i64| Timestamp::from_millis(second * 1_000);
        offsets.into_iter().map(|(second, offset)| clock.observe_offset(offset * 1_000, at(second))).collect()
    }

    #[test]
    fn without_sent_a_clock_is_off_that_stays_off_by_the_same() {
        let judged = by_offset((0..14).map(|minute| (minute * 10, 3_600 + minute % 3)));
        assert_eq!(judged.iter().position(Option::is_some), Some(12), "after 120 s: {judged:?}");
        let ahead = by_offset([(0, -200), (60, -201), (119, -199), (120, -200)]);
        assert_eq!(ahead, [None, None, None, Some(true)]);
    }

    #[test]
    fn a_backlog_without_sent_is_no_clock_that_is_off() {
        // An hour of readings each 10 s, sent at five times the pace; then what is new.
        let backlog = (0..450).map(|number| (number * 2, 3_600 - number * 8));
        assert!(by_offset(backlog).iter().all(Option::is_none));
        // All of it in seconds, what is new between it.
        let at_once =
            (0..360).map(|number| (number / 30, if number % 7 == 0 { 1 } else { 3_600 - number * 10 }));
        assert!(by_offset(at_once).iter().all(Option::is_none));
        // A link that holds everything up for a minute and a half.
        assert!(by_offset((0..90).map(|second| (90, 90 - second))).iter().all(Option::is_none));
    }

    #[test]
    fn a_clock_that_was_set_right_is_cleared_without_sent_too() {
        let mut clock = ClockSkew::FLAGGED;
        let told: Vec<_> =
            (0..4).map(|second| clock.observe_offset(900, Timestamp::from_millis(second))).collect();
        assert_eq!(told, [None, None, Some(false), None]);
        assert!(clock.is_calm());
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
