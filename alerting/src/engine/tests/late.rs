//! Duplicates, order, late and skewed messages, reboots.

use domain::{AlarmState, CarStatus, DoorState, EventState, Field, Passengers, ServiceMode, Severity};

use super::{ELEVATOR, Lift, code, moment, severity_and_state};

#[test]
fn what_was_seen_is_ignored() {
    let mut lift = Lift::riding();
    lift.at(20.0).stop_outside();
    // The reading that opened the door comes again: it opens nothing now.
    for back in 0..5 {
        lift.at(21.0).redeliver(back);
    }
    lift.at(50.0).expect("entrapment_between_floors", 40);
    lift.at(51.0).open("alarm_button");
    lift.at(56.0).expect_updated("entrapment_between_floors", 70);
    lift.at(57.0).redeliver(0).at(70.0).expect_nothing();
}

#[test]
fn a_redelivered_fault_raises_nothing_after_its_end() {
    let mut lift = Lift::parked();
    lift.at(1.0).open("overspeed").expect("overspeed", 100);
    lift.at(2.0).close("overspeed").expect_cleared("overspeed", AlarmState::Confirmed);
    lift.at(3.0).redeliver(1).at(60.0).expect_nothing();
}

#[test]
fn readings_without_numbers_are_told_apart_by_their_hash() {
    let mut lift = Lift::unknown();
    lift.sends_sent = false;
    lift.seq = -1_000;
    lift.at(0.0).snapshot();
    lift.seq = -500;
    lift.at(5.0).door(DoorState::Open);
    lift.at(6.0).redeliver(1).redeliver(0);
    assert_eq!(lift.engine.latest(ELEVATOR).unwrap().door_state, Some(DoorState::Open));
}

#[test]
fn absent_is_unchanged_and_null_is_unknown() {
    let mut lift = Lift::parked();
    lift.at(1.0).people(true);
    let latest = lift.engine.latest(ELEVATOR).unwrap();
    assert_eq!((latest.car_status, latest.door_zone), (Some(CarStatus::Stopped), Some(true)));
    lift.at(2.0).reading(|it| it.door_zone = Field::Unknown);
    assert_eq!(lift.engine.latest(ELEVATOR).unwrap().door_zone, None);
}

#[test]
fn after_a_hole_or_a_reboot_absent_is_unknown() {
    let mut lift = Lift::parked();
    lift.seq += 1;
    lift.at(1.0).people(true);
    let latest = lift.engine.latest(ELEVATOR).unwrap();
    assert_eq!((latest.car_status, latest.passengers), (None, Some(Passengers::Yes)));
    let mut lift = Lift::parked();
    (lift.boot, lift.seq) = (2, 0);
    lift.at(1.0).people(true);
    assert_eq!(lift.engine.latest(ELEVATOR).unwrap().car_status, None);
}

/// Counters take a number of the same counter: what follows them comes after no hole, what is missing before
/// them is one.
#[test]
fn statistics_are_no_hole_and_show_one() {
    let counted = |lift: &mut Lift, seconds: f64| {
        lift.seq += 1;
        let (boot, time) = (domain::BootId(lift.boot), moment(seconds));
        let counters = [(domain::Counter::RunCount, 7)].into_iter().collect();
        let seq = domain::Seq(lift.seq);
        let statistics = domain::Statistics { boot, sent: Some(time), seq, time, counters };
        lift.at(seconds).message(domain::Message::Statistics(statistics));
    };
    let mut lift = Lift::parked();
    counted(&mut lift, 1.0);
    lift.at(2.0).people(true);
    assert_eq!(lift.engine.latest(ELEVATOR).unwrap().car_status, Some(CarStatus::Stopped));
    lift.seq += 1;
    counted(&mut lift, 3.0);
    lift.at(4.0).people(true);
    assert_eq!(lift.engine.latest(ELEVATOR).unwrap().car_status, None);
}

#[test]
fn a_second_terminal_keeps_its_fields_through_the_reboot_of_the_first() {
    let mut lift = Lift::parked();
    let first = std::mem::replace(&mut lift.terminal, domain::TerminalId::new("t2").unwrap());
    lift.seq = 0;
    lift.at(1.0).reading(|it| it.people_count = Field::Known(2));
    (lift.terminal, lift.boot, lift.seq) = (first, 2, 0);
    lift.at(2.0).reading(|it| it.car_status = Field::Known(CarStatus::Stopped));
    let latest = lift.engine.latest(ELEVATOR).unwrap();
    assert_eq!((latest.people_count, latest.door_zone), (Some(2), None));
}

#[test]
fn a_backlog_after_the_present_state_changes_nothing() {
    let mut lift = Lift::riding();
    lift.at(12.0).presence(false);
    let missed = lift.seq;
    lift.seq += 50;
    lift.at(300.0).presence(true).snapshot();
    let newest = lift.seq;
    lift.expect_quiet();
    // The backlog says: stopped outside the zone for minutes.
    lift.seq = missed;
    lift.age = 200.0;
    for _ in 0..20 {
        lift.stop_outside().reading(|it| it.door_zone = Field::Known(false));
    }
    assert_eq!(lift.engine.latest(ELEVATOR).unwrap().door_zone, Some(true));
    lift.at(500.0).expect_nothing();
    (lift.age, lift.seq) = (0.0, newest);
    assert_eq!(lift.heartbeat().engine.latest(ELEVATOR).unwrap().door_zone, Some(true));
}

/// In a long hole the lift may have arrived, opened and closed again: E2 then needs a sensor that sees people
/// now. A short hole has no room for that.
#[test]
fn e2_after_a_hole() {
    for (hole_s, raw, raises) in [(300.0, false, false), (300.0, true, true), (5.0, false, true)] {
        let mut lift = Lift::riding();
        lift.at(20.0).heartbeat();
        lift.seq += 5;
        lift.at(20.0 + hole_s).snapshot().people(raw);
        lift.at(20.0 + hole_s + 60.0);
        if raises {
            lift.expect("entrapment_at_level", 40);
        } else {
            lift.at(1000.0).expect_nothing();
        }
    }
}

#[test]
fn a_backlog_sent_oldest_first_starts_no_timers_and_shows_nothing_until_its_last() {
    let mut lift = Lift::riding();
    lift.at(12.0).presence(false);
    lift.at(600.0).presence(true);
    lift.age = 500.0;
    lift.stop_outside();
    for second in 0..100 {
        lift.at(600.0 + f64::from(second) * 0.1).heartbeat();
    }
    let latest = lift.engine.latest(ELEVATOR).unwrap();
    assert_eq!(latest.car_status, Some(CarStatus::Running), "as it was before");
    lift.at(611.8).expect_nothing();
    // None newer for 2 s: now it is the newest, and so live. Its timer starts 60 s before its arrival.
    let alarm = lift.at(611.9).expect("entrapment_between_floors", 40);
    assert_eq!(alarm.began, moment(609.9 - 500.0));
    assert_eq!(lift.engine.latest(ELEVATOR).unwrap().car_status, Some(CarStatus::Stopped));
}

#[test]
fn a_backlog_carries_the_latch_on() {
    let mut lift = Lift::riding();
    lift.at(12.0).presence(false);
    lift.at(600.0).presence(true);
    // In the meantime: arrived, everybody out, called elsewhere, stuck empty.
    for (age, step) in [(500.0, 0), (495.0, 1), (493.0, 2), (485.0, 3), (470.0, 4), (400.0, 5)] {
        lift.age = age;
        match step {
            0 => lift.stop_level(),
            1 => lift.door(DoorState::Open),
            2 => lift.people(false),
            3 => lift.door(DoorState::Closed),
            4 => lift.run(),
            _ => lift.stop_outside(),
        };
    }
    lift.at(700.0).expect_quiet();
    assert_eq!(lift.latched(), Some(false));
}

#[test]
fn a_timer_starts_at_corrected_time_but_at_most_60_s_before_arrival() {
    let mut lift = Lift::riding();
    lift.age = 25.0;
    lift.skew = 7200.0;
    lift.at(45.0).stop_outside();
    lift.at(49.9).expect_nothing();
    let alarm = lift.at(50.0).expect("entrapment_between_floors", 40);
    assert_eq!(alarm.began, moment(20.0), "the rules use corrected time at any skew");
}

#[test]
fn readings_of_one_message_are_judged_at_their_own_times() {
    let mut lift = Lift::riding();
    lift.at(55.0);
    lift.age = 35.0;
    let stop = lift.next(|it| it.car_status = Field::Known(CarStatus::Stopped));
    lift.age = 1.0;
    let run = lift.next(|it| it.car_status = Field::Known(CarStatus::Running));
    lift.send(vec![stop, run]);
    let alarm = lift.expect("entrapment_between_floors", 40);
    assert_eq!((alarm.began, alarm.raised), (moment(20.0), moment(55.0)), "nothing is decided in the past");
}

#[test]
fn a_future_time_does_not_freeze_the_latest_state() {
    let mut lift = Lift::parked();
    lift.sends_sent = false;
    lift.age = -86_400.0 * 400.0;
    lift.at(1.0).people(true);
    lift.age = 0.0;
    lift.at(2.0).people(false);
    assert_eq!(lift.engine.latest(ELEVATOR).unwrap().passengers, Some(Passengers::No));
}

#[test]
fn an_impossible_clock_never_silences_the_rules() {
    for years in [-60.0, 300.0] {
        let mut lift = Lift::unknown();
        lift.skew = years * 365.0 * 86_400.0;
        lift.park();
        lift.board();
        lift.at(20.0).stop_outside();
        lift.at(50.0).expect("entrapment_between_floors", 40);
    }
}

#[test]
fn without_sent_a_skewed_clock_is_learnt() {
    let mut lift = Lift::unknown();
    lift.sends_sent = false;
    lift.skew = 3600.0;
    lift.park();
    lift.at(0.0).door(DoorState::Open);
    lift.at(3.0).people(true);
    lift.at(8.0).door(DoorState::Closed);
    lift.at(11.0).run();
    lift.at(20.0).stop_outside();
    lift.at(50.0).expect("entrapment_between_floors", 40);
}

#[test]
fn a_late_s1_without_an_end_goes_to_the_queue_marked_late() {
    for (slug, kind) in
        [("entrapment", "entrapment"), ("alarm_button", "entrapment"), ("overspeed", "overspeed")]
    {
        let mut lift = Lift::parked();
        lift.at(10.0);
        lift.age = 300.0;
        lift.open(slug);
        lift.at(11.9).expect_nothing();
        let score = if slug == "overspeed" { 100 } else { 40 };
        let alarm = lift.at(12.0).expect(kind, score);
        assert_eq!(severity_and_state(&alarm), (Severity::S1, AlarmState::Suspected));
        assert!(alarm.evidence[0].trace.starts_with("late: "), "{}", alarm.evidence[0].trace);
        assert_eq!(alarm.began, moment(-290.0));
        lift.redeliver(0).at(60.0).expect_nothing();
    }
}

#[test]
fn a_late_s1_that_has_its_end_is_history() {
    let mut lift = Lift::parked();
    lift.at(10.0);
    lift.age = 300.0;
    let open = lift.next_event("entrapment", EventState::Open);
    lift.age = 250.0;
    let close = lift.next_event("entrapment", EventState::Close);
    lift.send_events(vec![open, close], None);
    lift.at(60.0).expect_suppressed("late");
}

#[test]
fn a_late_event_of_a_boot_before_is_taken_but_does_not_bring_that_boot_back() {
    let mut lift = Lift::parked();
    let before = lift.seq;
    (lift.boot, lift.seq) = (2, 0);
    lift.at(5.0).snapshot();
    (lift.boot, lift.seq) = (1, before);
    lift.at(6.0);
    lift.age = 120.0;
    lift.open("entrapment");
    lift.at(8.0).expect("entrapment", 40);
    assert_eq!(lift.engine.latest(ELEVATOR).unwrap().service_mode, Some(ServiceMode::Normal));
}

#[test]
fn an_active_list_opens_the_missing_and_ends_the_vanished() {
    let mut lift = Lift::parked();
    lift.at(1.0).open("overspeed").expect("overspeed", 100);
    lift.at(10.0).active(&["pit_overrun"]);
    lift.expect_events(&[
        (domain::AlarmChange::Cleared, "overspeed", 100),
        (domain::AlarmChange::Raised, "pit_overrun", 100),
    ]);
    lift.at(11.0).active(&["pit_overrun"]).expect_nothing();
}

#[test]
fn a_redelivered_active_list_with_events_already_seen_is_stale() {
    let mut lift = Lift::parked();
    lift.at(1.0);
    let event = lift.next_event("overspeed", EventState::Open);
    lift.send_events(vec![event], Some(vec![code("overspeed")])).expect("overspeed", 100);
    lift.at(2.0).close("overspeed").expect_cleared("overspeed", AlarmState::Confirmed);
    lift.at(3.0).redeliver(1).at(30.0).expect_nothing();
}

#[test]
fn an_older_end_does_not_end_a_newer_begin() {
    let mut lift = Lift::parked();
    lift.at(1.0);
    let close = lift.next_event("overspeed", EventState::Close);
    lift.open("overspeed").expect("overspeed", 100);
    lift.at(2.0).send_events(vec![close], None).expect_nothing();
}

#[test]
fn the_present_stays_online_and_seen() {
    let mut lift = Lift::unknown();
    lift.at(0.0).presence(true).snapshot();
    let latest = lift.engine.latest(ELEVATOR).unwrap();
    assert_eq!((latest.online, latest.last_seen), (Some(true), moment(0.0)));
    lift.at(500.0).presence(false);
    let latest = lift.engine.latest(ELEVATOR).unwrap();
    assert_eq!((latest.online, latest.last_seen), (Some(false), moment(410.0)));
}
