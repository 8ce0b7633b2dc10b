//! The order of what one terminal said (DOMAIN.md 6, "Order"): by (boot, seq); without seq by corrected device
//! time. The order depends on what was said, not on the order in which it arrived.

use std::collections::{BTreeMap, BTreeSet};

use crate::{BootId, Seq, SourceId, Timestamp, limits};

/// Where something stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Boot of the terminal; [`Place::NO_BOOT`] where its time alone tells where it belongs.
    pub source: SourceId,
    /// Its own number, or a derived negative one.
    pub seq: Seq,
    /// Corrected device time.
    pub at: Timestamp,
}

impl Place {
    /// Of what names no boot (boot 0) and has no number: it is of the boot that was running at its time. No source has
    /// this number.
    pub const NO_BOOT: SourceId = SourceId(0);

    /// Of something said under `boot`, which is `source`.
    pub fn new(source: SourceId, boot: BootId, seq: Seq, at: Timestamp) -> Self {
        let names_none = boot == BootId(0) && !seq.is_from_terminal();
        Self { source: if names_none { Self::NO_BOOT } else { source }, seq, at }
    }

    fn names_boot(&self) -> bool {
        self.source != Self::NO_BOOT
    }
}

/// Corrected device time: arrival less age. Without `sent` the clock's error is not known: it is then the device
/// time, but never after the arrival. Of an age out of bounds only the arrival is left.
pub fn corrected(arrived: Timestamp, time: Timestamp, age_ms: Option<i32>) -> Timestamp {
    match age_ms.map(|age| i64::from(age.max(0))) {
        Some(age) if age >= limits::SKEW_MS_ABS_MAX => arrived,
        Some(age) => Timestamp::from_micros(arrived.micros().saturating_sub(age * 1_000)),
        None => time.min(arrived),
    }
}

/// Brings things of one terminal into their order. Boots follow one another by the earliest thing known of each;
/// what has no number comes after all of its boot that was not later, and what names no boot either belongs to the
/// last one that had begun. Equal places are told apart by `tie`.
pub fn arrange<T>(things: &mut [T], place: impl Fn(&T) -> Place, tie: impl Fn(&T) -> &str) {
    let mut begins: BTreeMap<SourceId, Timestamp> = BTreeMap::new();
    for Place { source, at, .. } in things.iter().map(&place).filter(Place::names_boot) {
        begins.entry(source).and_modify(|first| *first = at.min(*first)).or_insert(at);
    }
    let boots: BTreeSet<(Timestamp, SourceId)> = begins.iter().map(|(source, at)| (*at, *source)).collect();
    let boot = |place: Place| {
        if place.names_boot() {
            begins.get(&place.source).map(|begin| (*begin, place.source))
        } else {
            boots.range(..=(place.at, SourceId(i32::MAX))).next_back().copied()
        }
    };
    // Numbered first, so that each can be given the latest time of all up to it.
    things.sort_by(|one, other| {
        let key = |thing: &T| {
            let place = place(thing);
            let Place { source, seq, at } = place;
            (boot(place), !seq.is_from_terminal(), seq, at, source)
        };
        key(one).cmp(&key(other)).then_with(|| tie(one).cmp(tie(other)))
    });
    let mut until: BTreeMap<(SourceId, Seq), Timestamp> = BTreeMap::new();
    let mut latest: Option<(SourceId, Timestamp)> = None;
    for thing in &*things {
        let Place { source, seq, at } = place(thing);
        if seq.is_from_terminal() {
            let at = latest.filter(|(of, _)| *of == source).map_or(at, |(_, latest)| latest.max(at));
            latest = Some((source, at));
            until.insert((source, seq), at);
        }
    }
    things.sort_by_key(|thing| {
        let place = place(thing);
        let Place { source, seq, at } = place;
        let own = seq.is_from_terminal();
        let at = if own { until.get(&(source, seq)).copied().unwrap_or(at) } else { at };
        (boot(place), at, !own, if own { seq } else { Seq(0) })
    });
}

/// The end of what has been followed of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The last boot; [`Place::NO_BOOT`] while none was named.
    pub source: SourceId,
    /// The highest number of a boot seen: one above it is new.
    pub source_max: SourceId,
    /// The highest number in it; -1 where none was given.
    pub seq: Seq,
    /// The latest corrected time of all.
    pub at: Timestamp,
}

impl Head {
    /// Of things in their order.
    pub fn of(places: impl Iterator<Item = Place>) -> Option<Self> {
        places.fold(None, |head: Option<Self>, place| Some(Self::after(head, place)))
    }

    /// Of what ended at `head`, if anything, and one more thing that stands after it.
    pub fn after(head: Option<Self>, place: Place) -> Self {
        let Some(head) = head else {
            let seq = place.seq.max(Seq(-1));
            return Self { source: place.source, source_max: place.source, seq, at: place.at };
        };
        let at = head.at.max(place.at);
        if !place.names_boot() {
            return Self { at, ..head };
        }
        let before = if head.source == place.source { head.seq } else { Seq(-1) };
        let source_max = head.source_max.max(place.source);
        Self { source: place.source, source_max, seq: before.max(place.seq), at }
    }

    /// Whether all of these come after it, so that what was followed needs no second look. False is always safe.
    pub fn precedes(&self, places: impl Iterator<Item = Place>) -> bool {
        let mut source = None;
        places.into_iter().all(|place| {
            if !place.names_boot() {
                return place.at > self.at;
            }
            let one_boot = source.replace(place.source).is_none_or(|before| before == place.source);
            let later_boot = place.source > self.source_max;
            let same_boot =
                place.source == self.source && (!place.seq.is_from_terminal() || place.seq > self.seq);
            one_boot && place.at > self.at && (later_boot || same_boot)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn place(source: i32, seq: i64, at: i64) -> Place {
        Place { source: SourceId(source), seq: Seq(seq), at: Timestamp::from_millis(at) }
    }

    /// `{"active":[...]}` without `boot` made all that boot 7 said afterwards come before it.
    #[test]
    fn what_names_no_boot_stands_by_its_time() {
        let none = |at| Place::new(SourceId(9), BootId(0), Seq(-1), Timestamp::from_millis(at));
        assert_eq!(none(1).source, Place::NO_BOOT);
        let numbered = Place::new(SourceId(9), BootId(0), Seq(3), Timestamp::from_millis(1));
        assert_eq!(numbered.source, SourceId(9), "a number is of its own boot");
        let order = [none(1), place(2, 1, 5), none(6), place(2, 2, 50), none(51), place(1, 1, 60), none(60)];
        let mut mixed = order.to_vec();
        mixed.reverse();
        assert_eq!(arranged(mixed), order);
        let head = Head::of(order.into_iter()).unwrap();
        assert_eq!((head.source, head.seq, head.at), (SourceId(1), Seq(1), Timestamp::from_millis(60)));
        assert!(head.precedes([none(61), place(1, 2, 62), none(63)].into_iter()));
        assert!(!head.precedes([none(60)].into_iter()));
    }

    fn arranged(mut places: Vec<Place>) -> Vec<Place> {
        arrange(&mut places, |place| *place, |_| "");
        places
    }

    #[test]
    fn numbers_order_a_boot_and_times_what_has_none() {
        let order = [place(1, 1, 10), place(1, 2, 8), place(1, -5, 10), place(1, 3, 12), place(1, -4, 13)];
        let mut mixed = order.to_vec();
        mixed.reverse();
        assert_eq!(arranged(mixed), order);
        let boots = [place(2, 1, 5), place(2, 2, 50), place(1, 1, 30)];
        assert_eq!(
            arranged(vec![boots[2], boots[1], boots[0]]),
            boots,
            "the boot that began earlier is first"
        );
    }

    #[test]
    fn corrected_time_never_lies_after_the_arrival() {
        let at = Timestamp::from_millis;
        assert_eq!(corrected(at(100), at(5), Some(30)), at(70));
        assert_eq!(corrected(at(100), at(5), Some(-30)), at(100));
        assert_eq!(corrected(at(100), at(5), Some(i32::MAX)), at(100));
        assert_eq!(corrected(at(100), at(5), None), at(5));
        assert_eq!(corrected(at(100), at(500), None), at(100));
    }

    prop_compose! {
        fn any_place()(source in 1..4_i32, seq in prop_oneof![1..9_i64, -4..0_i64], at in 0..12_i64) -> Place {
            // The third names no boot.
            let boot = BootId(u32::from(source < 3));
            Place::new(SourceId(source), boot, Seq(seq), Timestamp::from_millis(at))
        }
    }

    proptest! {
        #[test]
        fn the_order_is_that_of_what_was_said(
            (places, mixed) in prop::collection::vec(any_place(), 0..12)
                .prop_flat_map(|places| (Just(places.clone()), Just(places).prop_shuffle())),
        ) {
            prop_assert_eq!(arranged(places), arranged(mixed));
        }

        #[test]
        fn what_comes_after_the_head_is_appended(
            old in prop::collection::vec(any_place(), 0..8), new in prop::collection::vec(any_place(), 0..4),
        ) {
            let (old, new) = (arranged(old), arranged(new));
            let head = Head::of(old.iter().copied());
            if head.is_none_or(|head| head.precedes(new.iter().copied())) {
                let whole = arranged(old.iter().chain(&new).copied().collect());
                prop_assert_eq!(whole, old.into_iter().chain(new).collect::<Vec<_>>());
            }
        }
    }
}
