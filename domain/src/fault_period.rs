//! Occurrences of faults, from what a terminal said: pure. Events open and close them; the list of active faults
//! after a reconnect opens what is missing and closes what has vanished (重连对账, DOMAIN.md 6).
//!
//! Promises: the periods depend on what was said and when, not on the order in which it arrived or how often.

use crate::order::Place;
use crate::{Code, Timestamp};

/// What was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Says {
    /// The fault began.
    Open(Code),
    /// It happened; its end will not be told.
    Once(Code),
    /// It ended.
    Close(Code),
    /// All that is active.
    List(Vec<Code>),
}

/// Something said about faults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Where it stands among what its terminal said.
    pub place: Place,
    /// Device time as sent.
    pub time: Timestamp,
    /// What.
    pub says: Says,
}

impl Mark {
    /// Tells marks of equal place apart.
    pub fn tie(&self) -> &str {
        match &self.says {
            Says::Open(code) | Says::Once(code) | Says::Close(code) => &code.raw,
            Says::List(_) => "",
        }
    }
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// Its name in the store.
            pub const fn slug(self) -> &'static str {
                match self { $($name::$variant => $word),+ }
            }

            /// From its name.
            pub fn from_slug(slug: &str) -> Option<Self> {
                match slug { $($word => Some($name::$variant),)+ _ => None }
            }
        }
    };
}

words! {
    /// What opened a period.
    OpenedBy {
        /// An event with state `open`.
        Event = "event",
        /// An event with state `once`.
        Once = "once",
        /// The list of active faults: its begin was missed.
        List = "list",
        /// The server saw it.
        Server = "server",
    }
}

words! {
    /// What closed a period.
    ClosedBy {
        /// An event with state `close`.
        Event = "event",
        /// It was of a moment.
        Once = "once",
        /// The list of active faults no longer has it (`reconciled`).
        List = "list",
        /// `no_fault`.
        NoFault = "no_fault",
        /// The state says normal: back to automatic.
        Normal = "normal",
        /// The server saw it.
        Server = "server",
    }
}

/// One occurrence of a fault at a terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultPeriod {
    /// Which.
    pub code: Code,
    /// Begin, corrected.
    pub opened: Timestamp,
    /// Device time as sent of what opened it.
    pub device_time: Option<Timestamp>,
    /// End, corrected; `None`: it lasts.
    pub closed: Option<Timestamp>,
    /// What opened it.
    pub opened_by: OpenedBy,
    /// What closed it.
    pub closed_by: Option<ClosedBy>,
    /// A list of active faults has named it.
    pub listed: bool,
}

impl FaultPeriod {
    fn end(&mut self, at: Timestamp, by: ClosedBy) {
        self.closed = Some(at.max(self.opened));
        self.closed_by = Some(by);
    }

    fn is_open(&self) -> bool {
        self.closed.is_none()
    }
}

/// What a list of active faults asks for; the rest stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reconciled {
    /// Missing: to be opened.
    pub opens: Vec<Code>,
    /// Vanished: to be closed.
    pub closes: Vec<Code>,
}

/// Compares what is open with a list of all active faults, by the codes as sent.
pub fn reconcile<'a>(open: impl Iterator<Item = &'a Code> + Clone, list: &[Code]) -> Reconciled {
    let mut opens: Vec<Code> = Vec::new();
    for code in list.iter().filter(|code| !ends_others(code)) {
        let is_known = open.clone().any(|known| known.raw == code.raw)
            || opens.iter().any(|known| known.raw == code.raw);
        if !is_known {
            opens.push(code.clone());
        }
    }
    let closes = open.filter(|known| !list.iter().any(|code| code.raw == known.raw)).cloned().collect();
    Reconciled { opens, closes }
}

/// Codes that are no fault, but the end of others.
fn ends_others(code: &Code) -> bool {
    matches!(code.fault.slug, "no_fault" | "auto_mode")
}

/// Follows marks in their order (`order::arrange`), beginning with what was open before them. Gives what was open
/// before, as it is now, and all periods opened since.
pub fn follow(open: Vec<FaultPeriod>, marks: &[Mark]) -> Vec<FaultPeriod> {
    let mut periods = open;
    for mark in marks {
        let at = mark.place.at;
        match &mark.says {
            Says::Open(code) | Says::Once(code) if code.fault.slug == "no_fault" => {
                end_all(&mut periods, at, ClosedBy::NoFault, |_| true);
            }
            Says::Open(code) | Says::Once(code) if code.fault.slug == "auto_mode" => {
                end_all(&mut periods, at, ClosedBy::Normal, |slug| {
                    matches!(slug, "inspection_mode" | "maintenance_mode" | "power_off")
                });
            }
            Says::Open(code) => begin(&mut periods, mark, code, OpenedBy::Event),
            Says::Once(code) => begin(&mut periods, mark, code, OpenedBy::Once),
            Says::Close(code) => {
                let same = |period: &&mut FaultPeriod| period.is_open() && period.code.raw == code.raw;
                if let Some(period) = periods.iter_mut().find(same) {
                    period.end(at, ClosedBy::Event);
                }
            }
            Says::List(list) => {
                let open = periods.iter().filter(|period| period.is_open()).map(|period| &period.code);
                let Reconciled { opens, closes } = reconcile(open, list);
                for period in periods.iter_mut().filter(|period| period.is_open()) {
                    if closes.contains(&period.code) {
                        period.end(at, ClosedBy::List);
                    } else {
                        period.listed = true;
                    }
                }
                for code in &opens {
                    begin(&mut periods, mark, code, OpenedBy::List);
                }
            }
        }
    }
    periods
}

fn end_all(periods: &mut [FaultPeriod], at: Timestamp, by: ClosedBy, is_meant: impl Fn(&str) -> bool) {
    for period in periods.iter_mut().filter(|period| period.is_open() && is_meant(period.code.fault.slug)) {
        period.end(at, by);
    }
}

/// Begins a period, unless one is open already. One that ended in the very moment goes on.
fn begin(periods: &mut Vec<FaultPeriod>, mark: &Mark, code: &Code, by: OpenedBy) {
    let at = mark.place.at;
    let same =
        |period: &&mut FaultPeriod| period.code.raw == code.raw && (period.is_open() || period.opened == at);
    match periods.iter_mut().find(same) {
        Some(period) if period.is_open() || by == OpenedBy::Once => {}
        Some(period) => {
            (period.closed, period.closed_by) = (None, None);
            // Or the same list told twice would say more than once.
            period.listed |= by == OpenedBy::List;
        }
        None => {
            let mut period = FaultPeriod {
                code: code.clone(),
                opened: at,
                device_time: Some(mark.time),
                closed: None,
                opened_by: by,
                closed_by: None,
                listed: by == OpenedBy::List,
            };
            if by == OpenedBy::Once {
                period.end(at, ClosedBy::Once);
            }
            periods.push(period);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::arrange;
    use crate::{Seq, SourceId};
    use proptest::prelude::*;

    const SLUGS: [&str; 6] =
        ["door_open_fault", "position_lost", "inspection_mode", "power_off", "no_fault", "auto_mode"];

    fn code(slug: &str) -> Code {
        Code::canonical(slug).unwrap()
    }

    fn mark(seq: i64, at: i64, says: Says) -> Mark {
        let at = Timestamp::from_millis(at);
        Mark { place: Place { source: SourceId(1), seq: Seq(seq), at }, time: at, says }
    }

    fn periods(mut marks: Vec<Mark>) -> Vec<FaultPeriod> {
        arrange(&mut marks, |mark| mark.place, Mark::tie);
        follow(Vec::new(), &marks)
    }

    fn told(periods: &[FaultPeriod]) -> Vec<(&str, i64, Option<i64>, &str, &str)> {
        periods
            .iter()
            .map(|it| {
                let closed = it.closed.map(Timestamp::millis);
                let by = it.closed_by.map_or("", ClosedBy::slug);
                (it.code.fault.slug, it.opened.millis(), closed, it.opened_by.slug(), by)
            })
            .collect()
    }

    #[test]
    fn a_list_opens_the_missing_closes_the_vanished_and_leaves_the_rest() {
        let (door, lost, power) = (code("door_open_fault"), code("position_lost"), code("power_off"));
        let found = periods(vec![
            mark(1, 10, Says::Open(door)),
            mark(2, 20, Says::Open(lost.clone())),
            mark(-9, 30, Says::List(vec![lost, power])),
        ]);
        assert_eq!(
            told(&found),
            [
                ("door_open_fault", 10, Some(30), "event", "list"),
                ("position_lost", 20, None, "event", ""),
                ("power_off", 30, None, "list", ""),
            ]
        );
    }

    #[test]
    fn a_late_end_or_an_older_list_does_not_undo_what_came_after_it() {
        let door = || code("door_open_fault");
        let found = periods(vec![
            mark(3, 30, Says::Open(door())),
            mark(1, 10, Says::Open(door())),
            mark(-7, 25, Says::List(vec![])),
            mark(2, 20, Says::Close(door())),
        ]);
        let expected =
            [("door_open_fault", 10, Some(20), "event", "event"), ("door_open_fault", 30, None, "event", "")];
        assert_eq!(told(&found), expected);
    }

    #[test]
    fn a_list_told_twice_says_no_more_than_once() {
        let door = || code("door_open_fault");
        let once = vec![mark(-7, 10, Says::Once(door())), mark(-6, 10, Says::List(vec![door()]))];
        let twice = once.iter().chain(&once).cloned().collect();
        assert_eq!(periods(once), periods(twice));
    }

    #[test]
    fn no_fault_ends_all_and_automatic_ends_modes() {
        let found = periods(vec![
            mark(1, 10, Says::Open(code("position_lost"))),
            mark(2, 11, Says::Open(code("inspection_mode"))),
            mark(3, 20, Says::Once(code("auto_mode"))),
            mark(4, 30, Says::Once(code("alarm_button"))),
            mark(5, 40, Says::Open(code("no_fault"))),
        ]);
        assert_eq!(
            told(&found),
            [
                ("position_lost", 10, Some(40), "event", "no_fault"),
                ("inspection_mode", 11, Some(20), "event", "normal"),
                ("alarm_button", 30, Some(30), "once", "once"),
            ]
        );
    }

    fn any_says() -> impl Strategy<Value = Says> {
        let any_code = || prop::sample::select(SLUGS.as_slice()).prop_map(code);
        prop_oneof![
            3 => any_code().prop_map(Says::Open),
            1 => any_code().prop_map(Says::Once),
            2 => any_code().prop_map(Says::Close),
            2 => prop::collection::vec(any_code(), 0..3).prop_map(Says::List),
        ]
    }

    /// A log of three boots: numbers rise, times nearly so.
    fn any_log() -> impl Strategy<Value = Vec<Mark>> {
        prop::collection::vec((any_says(), 0..40_i64, any::<bool>()), 0..14).prop_map(|steps| {
            let entry = |(index, (says, jitter, numbered)): (usize, (Says, i64, bool))| {
                let number = index as i64 + 1;
                let is_list = matches!(says, Says::List(_));
                let seq = if numbered && !is_list { number } else { -number };
                let mut one = mark(seq, number * 20 + jitter, says);
                one.place.source = SourceId(1 + index as i32 / 5);
                one
            };
            steps.into_iter().enumerate().map(entry).collect()
        })
    }

    proptest! {
        #[test]
        fn order_and_repetition_of_deliveries_change_nothing(
            (log, mixed) in any_log().prop_flat_map(|log| {
                let twice: Vec<Mark> = log.iter().chain(&log).cloned().collect();
                (Just(log), Just(twice).prop_shuffle())
            }),
        ) {
            prop_assert_eq!(periods(log), periods(mixed));
        }

        #[test]
        fn following_in_two_steps_is_following_at_once(log in any_log(), cut in 0..14_usize) {
            let mut log = log;
            arrange(&mut log, |mark| mark.place, Mark::tie);
            let (first, second) = log.split_at(cut.min(log.len()));
            let (ended, open): (Vec<_>, Vec<_>) =
                follow(Vec::new(), first).into_iter().partition(|period| !period.is_open());
            let mut steps: Vec<_> = ended;
            for period in follow(open, second) {
                // As the store does: the same fault opened in the same moment is the same period.
                steps.retain(|known| known.code != period.code || known.opened != period.opened);
                steps.push(period);
            }
            let key = |period: &FaultPeriod| (period.opened, period.code.raw.clone(), period.closed);
            let mut whole = follow(Vec::new(), &log);
            whole.sort_by_key(key);
            steps.sort_by_key(key);
            let brief = |it: &FaultPeriod| (it.code.raw.clone(), it.opened, it.closed.is_some());
            prop_assert_eq!(
                whole.iter().map(brief).collect::<Vec<_>>(), steps.iter().map(brief).collect::<Vec<_>>()
            );
        }

        #[test]
        fn after_a_list_exactly_the_listed_is_open(log in any_log(), list in prop::collection::vec(0..4_usize, 0..4)) {
            let list: Vec<Code> = list.into_iter().map(|index| code(SLUGS[index])).collect();
            let mut log = log;
            arrange(&mut log, |mark| mark.place, Mark::tie);
            log.push(mark(-1, 10_000, Says::List(list.clone())));
            let mut open: Vec<_> = follow(Vec::new(), &log)
                .into_iter().filter(FaultPeriod::is_open).map(|period| period.code.raw).collect();
            let mut listed: Vec<_> = list.into_iter().map(|code| code.raw).collect();
            open.sort();
            listed.sort();
            listed.dedup();
            prop_assert_eq!(open, listed);
        }

        #[test]
        fn one_fault_is_open_once_and_ends_after_it_begins(log in any_log()) {
            let found = periods(log);
            for period in &found {
                prop_assert!(period.closed.is_none_or(|closed| closed >= period.opened));
                prop_assert_eq!(period.closed.is_some(), period.closed_by.is_some());
                let twins = found.iter().filter(|it| it.code == period.code && it.is_open());
                prop_assert!(!period.is_open() || twins.count() == 1);
            }
        }
    }
}
