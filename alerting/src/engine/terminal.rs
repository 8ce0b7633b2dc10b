//! One terminal's numbering, clock and connection (DOMAIN.md 6, "Order", "Age", "Late").

use domain::{BootId, Code, Seq, TerminalId, Timestamp, limits};
use serde::{Deserialize, Serialize};

use super::state::At;
use super::{Traits, bounds, codes, thresholds::Thresholds};

/// Where a message stands in its terminal's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// The next one. `hole`: numbers are missing before it. `boot`: first of a boot.
    Next { hole: bool, boot: bool },
    /// Not seen before, but newer ones were: evidence only.
    Older,
    /// Seen before.
    Seen,
}

/// When it was, as far as can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Timing {
    /// Arrival less age.
    pub(super) corrected: At,
    /// Not late by age.
    pub(super) live: bool,
    /// Arrival less device time, where the terminal does not send `sent`.
    offset_us: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Boot {
    #[serde(rename = "b")]
    boot: BootId,
    /// Highest number seen; `None` where numbers are not given.
    #[serde(rename = "h")]
    high: Option<i64>,
    /// Numbers below it that were not seen: first and last, in rising order.
    #[serde(rename = "g", default, skip_serializing_if = "Vec::is_empty")]
    gaps: Vec<(i64, i64)>,
}

/// What is remembered of one terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Terminal {
    pub(super) id: TerminalId,
    pub(super) traits: Traits,
    /// The present boot first.
    boots: Vec<Boot>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    hashes: Vec<i64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    offsets: Vec<i64>,
    /// Fields of the merged state that are this terminal's.
    pub(super) owns: u32,
    /// Corrected time of its newest reading.
    pub(super) time: At,
    /// Last heartbeat.
    pub(super) heard: At,
    /// As the broker says.
    pub(super) online: Option<bool>,
    /// Since when what it says is dropped.
    #[serde(rename = "mu", default, skip_serializing_if = "Option::is_none")]
    pub(super) muted: Option<At>,
    /// A backlog is being read; it has ended if nothing newer came by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) backlog: Option<At>,
    /// Its own list of active codes.
    #[serde(with = "codes::list", default, skip_serializing_if = "Vec::is_empty")]
    pub(super) codes: Vec<Code>,
    /// A newer list, read only once the terminal is live again.
    #[serde(with = "codes::maybe_list", default, skip_serializing_if = "Option::is_none")]
    pub(super) unread_codes: Option<Vec<Code>>,
    /// When the newest late reading was.
    #[serde(rename = "lt", default, skip_serializing_if = "Option::is_none")]
    pub(super) late_timing: Option<Timing>,
}

impl Terminal {
    pub(super) fn new(id: TerminalId) -> Self {
        Self {
            id,
            traits: Traits::default(),
            boots: Vec::new(),
            hashes: Vec::new(),
            offsets: Vec::new(),
            owns: 0,
            time: At::default(),
            heard: At::default(),
            online: None,
            muted: None,
            backlog: None,
            codes: Vec::new(),
            unread_codes: None,
            late_timing: None,
        }
    }

    /// Its newest list of active codes, read or not.
    pub(super) fn newest_codes(&self) -> &[Code] {
        self.unread_codes.as_deref().unwrap_or(&self.codes)
    }

    /// The present boot and the highest number seen in it.
    pub(super) fn newest(&self) -> (BootId, Seq) {
        self.boots.first().map_or((BootId(0), Seq(-1)), |boot| (boot.boot, Seq(boot.high.unwrap_or(-1))))
    }

    /// Corrected time and age of something with this device time.
    pub(super) fn timing(
        &self,
        sent: Option<Timestamp>,
        device: Timestamp,
        arrival: At,
        thresholds: &Thresholds,
    ) -> Timing {
        let offset_us = match sent {
            Some(_) => None,
            None => Some(arrival.micros().saturating_sub(device.micros())),
        };
        let age = match (sent, offset_us) {
            (Some(sent), _) => sent.micros().saturating_sub(device.micros()),
            (None, Some(offset)) => offset.saturating_sub(self.offset_median()),
            (None, None) => 0,
        };
        let impossible = i64::try_from(limits::RETENTION.as_micros()).unwrap_or(i64::MAX);
        let age = if age > impossible { 0 } else { age.max(0) };
        let late_us = i64::from(thresholds.late_age_s) * 1_000_000;
        Timing { corrected: arrival.plus_micros(-age), live: age <= late_us, offset_us }
    }

    /// Keeps the clock offset of a live reading.
    pub(super) fn note_offset(&mut self, timing: &Timing) {
        let Some(offset) = timing.offset_us else { return };
        if self.offsets.len() >= bounds::OFFSETS_MAX {
            self.offsets.remove(0);
        }
        self.offsets.push(offset);
    }

    fn offset_median(&self) -> i64 {
        let count = self.offsets.len().min(bounds::OFFSETS_MAX);
        if count == 0 {
            return 0;
        }
        let mut sorted = [0; bounds::OFFSETS_MAX];
        sorted[..count].copy_from_slice(&self.offsets[..count]);
        *sorted[..count].select_nth_unstable(count / 2).1
    }

    /// Places a message in the order and remembers it.
    ///
    /// What names no boot (boot 0) while the terminal's other messages name theirs belongs to the present one: by its
    /// time, and by numbers of its own where it has any. Taken for a run of its own it would make an old one of the
    /// boot that goes on, and nothing that boot says would count any more.
    pub(super) fn place(&mut self, boot: BootId, seq: Seq, timing: &Timing) -> Order {
        let position = self.boots.iter().position(|known| known.boot == boot);
        let present = self.boots.first().map(|known| known.boot);
        let is_unnamed = boot == BootId(0) && present.is_some_and(|present| present != boot);
        // Boot ids name runs and need not grow: a run never heard of is old only if both its number is
        // smaller and its readings are late.
        let is_old = match (position, present) {
            _ if is_unnamed => false,
            (Some(position), _) => position > 0,
            (None, Some(present)) => !timing.live && boot < present,
            (None, None) => false,
        };
        let index = position.unwrap_or_else(|| {
            let index = usize::from(is_old || is_unnamed).min(self.boots.len());
            self.boots.insert(index, Boot { boot, high: None, gaps: Vec::new() });
            self.boots.truncate(bounds::BOOTS_MAX);
            index
        });
        let mut order = if seq.is_from_terminal() {
            self.boots[index].place(seq.0)
        } else if self.hashes.contains(&seq.0) {
            Order::Seen
        } else {
            if self.hashes.len() >= bounds::HASHES_MAX {
                self.hashes.remove(0);
            }
            self.hashes.push(seq.0);
            Order::Next { hole: false, boot: false }
        };
        // GB/T 24476 time stamps have whole seconds.
        let is_before = timing.corrected.plus_s(1) < self.time;
        if is_before && (is_unnamed || !seq.is_from_terminal()) && order != Order::Seen {
            order = Order::Older;
        }
        match order {
            Order::Next { .. } if is_old => Order::Older,
            Order::Next { hole, .. } => Order::Next { hole, boot: position.is_none() && !is_unnamed },
            order => order,
        }
    }
}

impl Boot {
    fn place(&mut self, seq: i64) -> Order {
        let Some(high) = self.high else {
            self.high = Some(seq);
            // Numbers begin at 1.
            if seq > 1 {
                self.gaps.push((1, seq - 1));
            }
            return Order::Next { hole: false, boot: false };
        };
        if seq > high {
            self.high = Some(seq);
            let hole = seq - high > 1;
            if hole {
                self.gaps.push((high + 1, seq - 1));
                self.join();
            }
            return Order::Next { hole, boot: false };
        }
        let Some(index) = self.gaps.iter().position(|(first, last)| (*first..=*last).contains(&seq)) else {
            return Order::Seen;
        };
        let (first, last) = self.gaps.remove(index);
        if seq < last {
            self.gaps.insert(index, (seq + 1, last));
        }
        if first < seq {
            self.gaps.insert(index, (first, seq - 1));
        }
        self.join();
        Order::Older
    }

    fn join(&mut self) {
        while self.gaps.len() > bounds::GAPS_MAX {
            let (_, last) = self.gaps.remove(1);
            self.gaps[0].1 = last;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn terminal() -> Terminal {
        Terminal::new(TerminalId::new("t").unwrap())
    }

    fn at(seconds: i64) -> At {
        At::of_micros(1_700_000_000_000_000 + seconds * 1_000_000)
    }

    fn live(seconds: i64) -> Timing {
        Timing { corrected: at(seconds), live: true, offset_us: None }
    }

    #[test]
    fn numbers_tell_next_holes_older_and_seen() {
        let mut it = terminal();
        let mut place = |seq| it.place(BootId(1), Seq(seq), &live(0));
        assert_eq!(place(5), Order::Next { hole: false, boot: true });
        assert_eq!(place(6), Order::Next { hole: false, boot: false });
        assert_eq!(place(6), Order::Seen);
        assert_eq!(place(9), Order::Next { hole: true, boot: false });
        assert_eq!(place(7), Order::Older);
        assert_eq!(place(7), Order::Seen);
        assert_eq!(place(3), Order::Older, "before the first we heard");
        assert_eq!(place(5), Order::Seen);
    }

    #[test]
    fn an_older_boot_never_becomes_the_present_one() {
        let mut it = terminal();
        let late = Timing { live: false, ..live(0) };
        assert_eq!(it.place(BootId(7), Seq(1), &live(0)), Order::Next { hole: false, boot: true });
        assert_eq!(it.place(BootId(8), Seq(1), &live(1)), Order::Next { hole: false, boot: true });
        assert_eq!(it.place(BootId(7), Seq(2), &late), Order::Older);
        assert_eq!(it.place(BootId(6), Seq(2), &late), Order::Older);
        assert_eq!(it.newest(), (BootId(8), Seq(1)));
        assert_eq!(it.place(BootId(3), Seq(1), &live(2)), Order::Next { hole: false, boot: true });
        assert_eq!(it.newest(), (BootId(3), Seq(1)), "a live one is present, whatever its number");
    }

    /// One event without `boot` made everything that followed under boot 7 an old story, an entrapment among it.
    #[test]
    fn what_names_no_boot_belongs_to_the_present_one() {
        let next = |hole| Order::Next { hole, boot: false };
        let mut it = terminal();
        assert_eq!(it.place(BootId(7), Seq(1), &live(0)), Order::Next { hole: false, boot: true });
        it.time = at(0);
        assert_eq!(it.place(BootId(0), Seq(-5), &live(1)), next(false));
        assert_eq!(it.place(BootId(7), Seq(2), &live(2)), next(false), "goes on");
        assert_eq!(it.place(BootId(0), Seq(-5), &live(3)), Order::Seen);
        it.time = at(10);
        assert_eq!(it.place(BootId(0), Seq(-6), &live(4)), Order::Older, "by its time");
        assert_eq!(it.place(BootId(0), Seq(9), &live(11)), next(false), "numbers of its own");
        assert_eq!(it.place(BootId(7), Seq(3), &live(11)), next(false));
        assert_eq!(it.place(BootId(0), Seq(9), &live(12)), Order::Seen);
        assert_eq!(it.newest(), (BootId(7), Seq(3)));
        assert_eq!(it.place(BootId(8), Seq(1), &live(13)), Order::Next { hole: false, boot: true });
        assert_eq!(it.place(BootId(0), Seq(10), &live(14)), next(false));
        assert_eq!(it.newest(), (BootId(8), Seq(1)));

        let mut it = terminal();
        assert_eq!(it.place(BootId(0), Seq(1), &live(0)), Order::Next { hole: false, boot: true });
        assert_eq!(it.place(BootId(1), Seq(1), &live(1)), Order::Next { hole: false, boot: true });
        assert_eq!(it.newest(), (BootId(1), Seq(1)), "a boot that is named follows one that was not");
    }

    #[test]
    fn without_sent_the_age_comes_from_the_median_offset() {
        let mut it = terminal();
        let numbers = Thresholds::default();
        let device = |seconds| Timestamp::from_micros(at(seconds).micros());
        for second in 0..10 {
            let timing = it.timing(None, device(second - 3600), at(second), &numbers);
            it.note_offset(&timing);
        }
        let timing = it.timing(None, device(10 - 3600), at(10), &numbers);
        assert_eq!((timing.corrected, timing.live), (at(10), true));
        let timing = it.timing(None, device(10 - 3600 - 61), at(10), &numbers);
        assert_eq!((timing.corrected, timing.live), (at(10 - 61), false));
        let timing = it.timing(None, device(1_000_000), at(11), &numbers);
        assert_eq!((timing.corrected, timing.live), (at(11), true), "a negative age counts as 0");
    }

    #[test]
    fn impossible_times_count_as_arrival() {
        let it = terminal();
        let numbers = Thresholds::default();
        for device in [i64::MIN, 0, i64::MAX] {
            for sent in [None, Some(i64::MIN), Some(0), Some(i64::MAX)] {
                let timing = it.timing(
                    sent.map(Timestamp::from_micros),
                    Timestamp::from_micros(device),
                    at(0),
                    &numbers,
                );
                assert_eq!((timing.corrected, timing.live), (at(0), true), "{device} {sent:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn every_number_is_new_once(seqs in prop::collection::vec(1_i64..40, 1..200)) {
            let mut it = terminal();
            let mut seen = BTreeSet::new();
            for seq in seqs {
                let order = it.place(BootId(1), Seq(seq), &live(0));
                let is_next = seen.last().is_none_or(|high| seq > *high);
                prop_assert_eq!(order == Order::Seen, !seen.insert(seq));
                prop_assert_eq!(matches!(order, Order::Next { .. }), is_next);
            }
        }

        #[test]
        fn a_number_not_seen_is_never_taken_as_seen(seqs in prop::collection::vec(1_i64..4_000, 1..200)) {
            let mut it = terminal();
            let mut seen = BTreeSet::new();
            for seq in seqs {
                let order = it.place(BootId(1), Seq(seq), &live(0));
                if seen.insert(seq) {
                    prop_assert_ne!(order, Order::Seen);
                }
                prop_assert!(it.boots[0].gaps.len() <= bounds::GAPS_MAX);
            }
        }
    }
}
