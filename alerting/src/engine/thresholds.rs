//! Every number the rules decide by, per area and with a version.
//!
//! Owns the defaults of DOMAIN.md 5 and 6 and the way an area finds its own (DOMAIN.md 2: county, then city,
//! then province, then national). Does not know where they come from: the server reads configuration.

use std::collections::BTreeMap;

use domain::Area;
use serde::{Deserialize, Serialize};

/// Version of the rules' code; with the version of the numbers it makes a `rule_version`.
pub const RULES_VERSION: u32 = 1;

macro_rules! thresholds {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $value:expr),+ $(,)?) => {
        /// The numbers of DOMAIN.md 5 and 6. Units are in the names.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct Thresholds { $($(#[$doc])* pub $name: $type),+ }

        impl Default for Thresholds {
            fn default() -> Self {
                Self { $($name: $value),+ }
            }
        }

        /// The numbers that one area sets for itself; the others it inherits.
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct ThresholdsPatch {
            $($(#[$doc])* #[serde(skip_serializing_if = "Option::is_none")] pub $name: Option<$type>),+
        }

        impl ThresholdsPatch {
            fn onto(&self, base: &Thresholds) -> Thresholds {
                Thresholds { $($name: self.$name.unwrap_or(base.$name)),+ }
            }
        }
    };
}

thresholds! {
    /// E1: seconds stopped outside the zone with people (DOMAIN.md 5, E1).
    e1_s: u32 = 30,
    /// E1 where the zone is unknown (DOMAIN.md 5, E1).
    e1_zone_unknown_s: u32 = 60,
    /// E2: seconds at a landing with people and no opening; sensible from 45 to 90 (DOMAIN.md 5, E2).
    e2_s: u32 = 60,
    /// E2 variant: the door closed on people and no run follows (DOMAIN.md 5, E2).
    e2_reclose: bool = false,
    /// E3: a device code that ends within this is history only (DOMAIN.md 5, E3).
    e3_filter_s: u32 = 5,
    /// E4: seconds from the press to the decision (DOMAIN.md 5, E4).
    e4_filter_s: u32 = 5,
    /// E4: a press that ends within this is rejected (DOMAIN.md 5, E4).
    e4_press_s: u32 = 3,
    /// E4: after a press while running, the opening must follow the stop within this (DOMAIN.md 5, E4).
    e4_run_s: u32 = 60,
    /// E5: seconds without power or safety circuit with people inside (DOMAIN.md 5, E5).
    e5_s: u32 = 10,
    /// An opening follows a normal run within this (DOMAIN.md 5, "ends normally").
    run_end_s: u32 = 60,
    /// With only the boolean, or the zone unknown: leaving closed within this of a stop is an opening
    /// (DOMAIN.md 5, "Door words").
    arrive_open_s: u32 = 15,
    /// The raw presence counts until this long after the doors have closed (DOMAIN.md 5, "Latch").
    presence_hold_s: u32 = 10,
    /// Load from which somebody is in the car (DOMAIN.md 5, "Latch").
    presence_load_kg: i16 = 30,
    /// No door signal: steady yes for this long sets the latch (DOMAIN.md 5, "Latch").
    no_door_yes_s: u32 = 10,
    /// No door signal: steady no for this long, and a normal run, release it (DOMAIN.md 5, "Latch").
    no_door_no_s: u32 = 300,
    /// Raw yes without a change through this many door cycles: the sensor is stuck (DOMAIN.md 5, "Latch").
    stuck_cycles: u8 = 5,
    /// Below this speed a stopped car is stopped (DOMAIN.md 5, "Timers").
    stopped_speed_mm_s: i32 = 50,
    /// After this much inspection the restrictions on button and codes end (DOMAIN.md 5, "Inspection").
    inspection_max_s: u32 = 8 * 3600,
    /// First kind of evidence (DOMAIN.md 5, "Confidence").
    score_first: i16 = 40,
    /// Each further kind of evidence.
    score_further: i16 = 30,
    /// State rule and device code of one and the same retrofit terminal.
    score_same_retrofit: i16 = 20,
    /// Deduction: a retrofit's device code that the state contradicts.
    score_contradicted: i16 = 30,
    /// Deduction: the presence sensor flaps where presence decided.
    score_flapping: i16 = 30,
    /// Deduction: inspection.
    score_inspection: i16 = 40,
    /// From this score on the case is suspected (DOMAIN.md 5, "Outcome").
    score_suspected: i16 = 40,
    /// From this score on it is confirmed.
    score_confirmed: i16 = 70,
    /// A suspected case confirms itself after this; the case workflow runs this clock (DOMAIN.md 7).
    auto_confirm_s: u32 = 60,
    /// The same in mode 5, emergency power.
    auto_confirm_mode5_s: u32 = 180,
    /// More raw changes per minute than this: flapping (DOMAIN.md 5, "Confidence").
    flap_changes_per_min: u8 = 6,
    /// Flapping is counted only while parked longer than this.
    flap_parked_s: u32 = 600,
    /// An E1 or E2 held below only by flapping becomes an operator item after this (DOMAIN.md 5, "Outcome").
    flap_item_s: u32 = 300,
    /// Clear (a): the door stands open in the zone this long (DOMAIN.md 5, "Clear").
    clear_open_s: u32 = 2,
    /// A candidate without a case closes after this (DOMAIN.md 5, "Clear").
    candidate_max_s: u32 = 150 * 60,
    /// A timer of E1, E2 or E5 that broke after this share of its limit is kept as a suppressed candidate;
    /// shorter ones are every lift's daily stops.
    candidate_note_pct: u8 = 50,
    /// Faults that end within this are history only; controller-wired S1 faults do not wait
    /// (DOMAIN.md 5, "Fault debounce").
    fault_hold_s: u32 = 5,
    /// A terminal is heard at least this often; a terminal's traits may say otherwise (DOMAIN.md 6).
    heartbeat_s: u32 = 60,
    /// Data is fresh for this many tenths of a heartbeat period (DOMAIN.md 6).
    fresh_periods_tenths: u32 = 25,
    /// The broker drops a silent connection after this, so a terminal that went offline was heard at
    /// most this long before (DOMAIN.md 6).
    keepalive_drop_s: u32 = 90,
    /// Older by age than this is late (DOMAIN.md 6).
    late_age_s: u32 = 60,
    /// A backlog has ended when nothing newer came for this long (DOMAIN.md 6).
    backlog_quiet_s: u32 = 2,
    /// A timer starts at most this long before the arrival (DOMAIN.md 6).
    timer_back_s: u32 = 60,
}

/// The numbers in force for one elevator, and the version to write beside every decision.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// The numbers.
    pub thresholds: &'a Thresholds,
    /// Version of code and numbers: code × 10,000 + numbers.
    pub version: u32,
}

/// National numbers and what single areas change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ThresholdsBook {
    version: u32,
    national: Thresholds,
    /// Resolved when the book is made: a lookup per message does not merge anything.
    areas: BTreeMap<Area, Thresholds>,
}

impl ThresholdsBook {
    /// A book. A patch for `000000` changes the national numbers; a city inherits from its province, a
    /// county from its city.
    pub fn new(version: u32, national: &Thresholds, patches: &BTreeMap<Area, ThresholdsPatch>) -> Self {
        let mut by_width: Vec<_> = patches.iter().collect();
        by_width.sort_by_key(|(area, _)| (width(**area), **area));
        let mut book = Self { version, national: national.clone(), areas: BTreeMap::new() };
        for (area, patch) in by_width {
            let resolved = patch.onto(book.thresholds(*area));
            if width(*area) == 0 {
                book.national = resolved;
            } else {
                book.areas.insert(*area, resolved);
            }
        }
        book
    }

    /// The numbers' version.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The numbers of an area: the most specific entry that covers it.
    pub fn thresholds(&self, area: Area) -> &Thresholds {
        if self.areas.is_empty() {
            return &self.national;
        }
        let number = area.number();
        [number, number / 100 * 100, number / 10_000 * 10_000]
            .into_iter()
            .filter_map(|number| Area::from_number(number).ok())
            .find_map(|area| self.areas.get(&area))
            .unwrap_or(&self.national)
    }

    /// The numbers of an area with the version to write beside decisions.
    pub fn rules(&self, area: Area) -> Rules<'_> {
        let version = RULES_VERSION * 10_000 + self.version.min(9_999);
        Rules { thresholds: self.thresholds(area), version }
    }
}

/// Digits of the scope prefix: 0 nation, 2 province, 4 city, 6 county.
fn width(area: Area) -> u8 {
    match area.number() {
        0 => 0,
        number if number.is_multiple_of(10_000) => 2,
        number if number.is_multiple_of(100) => 4,
        _ => 6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn area(text: &str) -> Area {
        text.parse().unwrap()
    }

    fn book(entries: &[(&str, u32)]) -> ThresholdsBook {
        let patch = |e1_s| ThresholdsPatch { e1_s: Some(e1_s), ..ThresholdsPatch::default() };
        let patches = entries.iter().map(|(text, e1_s)| (area(text), patch(*e1_s))).collect();
        ThresholdsBook::new(7, &Thresholds::default(), &patches)
    }

    #[test]
    fn the_most_specific_area_wins_and_inherits_the_rest() {
        let mut patches = BTreeMap::new();
        patches.insert(area("350000"), ThresholdsPatch { e2_s: Some(45), ..ThresholdsPatch::default() });
        patches.insert(area("350100"), ThresholdsPatch { e1_s: Some(20), ..ThresholdsPatch::default() });
        let book = ThresholdsBook::new(3, &Thresholds::default(), &patches);
        let numbers = |text| (book.thresholds(area(text)).e1_s, book.thresholds(area(text)).e2_s);
        assert_eq!(numbers("350102"), (20, 45));
        assert_eq!(numbers("350202"), (30, 45));
        assert_eq!(numbers("360102"), (30, 60));
        assert_eq!(book.rules(area("350102")).version, 10_003);
    }

    #[test]
    fn a_patch_for_the_nation_changes_the_national_numbers() {
        assert_eq!(book(&[("000000", 25)]).thresholds(area("990102")).e1_s, 25);
    }

    #[test]
    fn unknown_keys_are_refused() {
        assert!(
            serde_json::from_str::<Thresholds>(r#"{"e1_s": 20}"#)
                .is_ok_and(|it| it.e1_s == 20 && it.e2_s == 60)
        );
        assert!(serde_json::from_str::<ThresholdsPatch>(r#"{"e9_s": 20}"#).is_err());
    }

    proptest! {
        #[test]
        fn a_lookup_finds_what_covers(
            entries in prop::collection::btree_map(0_u32..999_999, 1_u32..1000, 0..12),
            coarse in prop::collection::vec(any::<bool>(), 12),
            asked in 0_u32..999_999,
        ) {
            let entries: BTreeMap<Area, u32> = entries.into_iter().zip(coarse)
                .map(|((number, e1_s), coarse)| {
                    let number = if coarse { asked / 100 * 100 } else { number };
                    (Area::from_number(number).unwrap(), e1_s)
                })
                .collect();
            let named: Vec<(String, u32)> = entries.iter().map(|(area, e1_s)| (area.to_string(), *e1_s)).collect();
            let named: Vec<(&str, u32)> = named.iter().map(|(area, e1_s)| (area.as_str(), *e1_s)).collect();
            let asked = Area::from_number(asked).unwrap();
            let expected = entries.iter()
                .filter(|(area, _)| area.covers(asked))
                .max_by_key(|(area, _)| width(**area))
                .map_or(30, |(_, e1_s)| *e1_s);
            prop_assert_eq!(book(&named).thresholds(asked).e1_s, expected);
        }
    }
}
