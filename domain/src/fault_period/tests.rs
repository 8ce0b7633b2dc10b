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
    follow(Vec::new(), &marks).periods
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

fn shown(codes: Option<&[&str]>, normal: bool) -> Says {
    Says::Shown(Shown { codes: codes.map(|slugs| slugs.iter().map(|slug| code(slug)).collect()), normal })
}

#[test]
fn the_list_of_a_reading_ends_only_what_such_lists_have_named() {
    let found = periods(vec![
        mark(1, 10, Says::Open(code("position_lost"))),
        mark(2, 20, shown(Some(&["door_open_fault"]), true)),
        mark(3, 30, shown(None, true)),
        mark(4, 40, shown(Some(&[]), true)),
        mark(5, 50, shown(Some(&["position_lost"]), true)),
        mark(6, 60, shown(Some(&[]), true)),
        mark(7, 70, Says::Open(code("power_off"))),
        mark(8, 80, shown(Some(&["no_fault"]), true)),
    ]);
    assert_eq!(
        told(&found),
        [
            ("position_lost", 10, Some(60), "event", "list"),
            ("door_open_fault", 20, Some(40), "list", "list"),
            ("power_off", 70, Some(80), "event", "no_fault"),
        ]
    );
}

#[test]
fn normal_service_ends_modes_that_no_list_of_a_reading_names() {
    let found = periods(vec![
        mark(1, 10, Says::Open(code("inspection_mode"))),
        mark(2, 20, shown(None, false)),
        mark(3, 30, shown(None, true)),
        mark(4, 40, shown(Some(&["maintenance_mode"]), true)),
        mark(5, 50, Says::Open(code("power_off"))),
        mark(6, 60, shown(None, true)),
        mark(7, 70, shown(Some(&["auto_mode"]), true)),
    ]);
    assert_eq!(
        told(&found),
        [
            ("inspection_mode", 10, Some(30), "event", "normal"),
            ("maintenance_mode", 40, Some(70), "list", "list"),
            ("power_off", 50, Some(70), "event", "normal"),
        ]
    );
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

fn numbered(number: usize) -> Code {
    Code { raw: format!("c{number}").into(), fault: code("unknown_code").fault }
}

#[test]
fn a_terminal_that_counts_in_its_codes_fills_no_memory() {
    let told = |from: usize| (from..from + OPEN_MAX + 44).map(numbered);
    let marks = told(0).zip(1..).map(|(code, seq)| mark(seq, seq * 10, Says::Open(code)));
    let Followed { periods, left_out } = follow(Vec::new(), &marks.collect::<Vec<_>>());
    assert_eq!((periods.len(), left_out), (OPEN_MAX, 44));
    let missing = [numbered(999)];
    assert!(!Shown::is_news(&periods, Some(&missing), false) && is_list_news(&periods, &missing));
    let both = Shown { codes: Some(missing.to_vec()), normal: false };
    let after = follow(periods.clone(), &[mark(9_000, 9_000, Says::Shown(both))]);
    assert_eq!((after.periods == periods, after.left_out), (true, 1));
    // Once there is room, the next is opened.
    let marks = [mark(9_001, 9_010, Says::Close(numbered(0))), mark(9_002, 9_020, Says::Open(numbered(999)))];
    let after = follow(periods, &marks);
    assert_eq!((after.periods.len(), after.left_out), (OPEN_MAX + 1, 0));
    assert_eq!(after.periods.iter().filter(|period| period.is_open()).count(), OPEN_MAX);
}

/// 160,000 occurrences. Looking through those that have ended, for each code of each list, was 13 thousand million
/// comparisons, and held the writer for minutes.
#[test]
fn codes_that_alternate_cost_no_more_the_longer_they_do() {
    let list = |odd: bool| (0..32).filter(|_| odd).map(numbered).collect::<Vec<_>>();
    let marks: Vec<Mark> =
        (1..=10_000).map(|seq| mark(seq, seq * 10, Says::List(list(seq % 2 == 1)))).collect();
    let found = follow(Vec::new(), &marks);
    assert_eq!(found.periods.len(), 5_000 * 32);
    assert!(
        found
            .periods
            .iter()
            .all(|period| period.closed == Some(period.opened.plus(std::time::Duration::from_millis(10))))
    );
}

fn any_says() -> impl Strategy<Value = Says> {
    let any_code = || prop::sample::select(SLUGS.as_slice()).prop_map(code);
    prop_oneof![
        3 => any_code().prop_map(Says::Open),
        1 => any_code().prop_map(Says::Once),
        2 => any_code().prop_map(Says::Close),
        2 => prop::collection::vec(any_code(), 0..3).prop_map(Says::List),
        4 => any_shown().prop_map(Says::Shown),
    ]
}

fn any_shown() -> impl Strategy<Value = Shown> {
    let any_code = prop::sample::select(SLUGS.as_slice()).prop_map(code);
    (prop::option::of(prop::collection::vec(any_code, 0..3)), any::<bool>())
        .prop_map(|(codes, normal)| Shown { codes, normal })
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
            follow(Vec::new(), first).periods.into_iter().partition(|period| !period.is_open());
        let mut steps: Vec<_> = ended;
        for period in follow(open, second).periods {
            // As the store does: the same fault opened in the same moment is the same period.
            steps.retain(|known| known.code != period.code || known.opened != period.opened);
            steps.push(period);
        }
        let key = |period: &FaultPeriod| (period.opened, period.code.raw.clone(), period.closed);
        let mut whole = follow(Vec::new(), &log).periods;
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
            .periods.into_iter().filter(FaultPeriod::is_open).map(|period| period.code.raw).collect();
        let mut listed: Vec<_> = list.into_iter().map(|code| code.raw).collect();
        open.sort();
        listed.sort();
        listed.dedup();
        prop_assert_eq!(open, listed);
    }

    #[test]
    fn what_is_no_news_changes_nothing(log in any_log(), shown in any_shown()) {
        let mut log = log;
        arrange(&mut log, |mark| mark.place, Mark::tie);
        let mut open = follow(Vec::new(), &log).periods;
        open.retain(FaultPeriod::is_open);
        let is_news = Shown::is_news(&open, shown.codes.as_deref(), shown.normal);
        let after = follow(open.clone(), &[mark(-1, 10_000, Says::Shown(shown))]).periods;
        prop_assert_eq!(after != open, is_news);
    }

    #[test]
    fn a_list_that_is_no_news_changes_nothing(log in any_log(), list in prop::collection::vec(0..6_usize, 0..4)) {
        let list: Vec<Code> = list.into_iter().map(|index| code(SLUGS[index])).collect();
        let mut log = log;
        arrange(&mut log, |mark| mark.place, Mark::tie);
        let mut open = follow(Vec::new(), &log).periods;
        open.retain(FaultPeriod::is_open);
        let is_news = is_list_news(&open, &list);
        let after = follow(open.clone(), &[mark(-1, 10_000, Says::List(list))]).periods;
        prop_assert_eq!(after != open, is_news);
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
