//! E3, E4 and the S1 faults.

use domain::{AlarmChange, AlarmState, DoorState, Field, Reading, ServiceMode, Severity};

use super::{Lift, moment, severity_and_state};
use crate::engine::Traits;

const RETROFIT: Traits = Traits { retrofit: true, infrared: false, heartbeat_s: None };

#[test]
fn e3_is_suspected_at_5_s() {
    for slug in ["entrapment", "entrapment_at_level", "entrapment_between_floors"] {
        let mut lift = Lift::parked();
        lift.at(1.0).open(slug);
        lift.at(5.9).expect_nothing();
        let alarm = lift.at(6.0).expect(slug, 40);
        assert_eq!(severity_and_state(&alarm), (Severity::S1, AlarmState::Suspected));
        assert_eq!(alarm.began, moment(1.0));
    }
}

#[test]
fn e3_ended_inside_the_filter_is_history_only() {
    let mut lift = Lift::parked();
    lift.at(1.0).open("entrapment");
    lift.at(5.5).close("entrapment");
    assert!(lift.at(60.0).expect_suppressed("ended_in_filter").trace.contains("ended after 4.5 s"));
}

#[test]
fn e3_from_once_from_a_reading_and_from_the_active_list() {
    let mut lift = Lift::parked();
    lift.at(1.0).once("entrapment");
    lift.at(6.0).expect("entrapment", 40);
    let mut lift = Lift::parked();
    lift.at(1.0).codes(&["entrapment_at_level"]);
    lift.at(6.0).expect("entrapment_at_level", 40);
    let mut lift = Lift::parked();
    lift.at(1.0).active(&["entrapment"]);
    lift.at(6.0).expect("entrapment", 40);
}

#[test]
fn an_empty_list_in_a_reading_ends_nothing_that_an_event_told() {
    let mut lift = Lift::parked();
    lift.at(1.0).open("entrapment");
    lift.at(2.0).codes(&[]);
    lift.at(6.0).expect("entrapment", 40);
}

#[test]
fn e3_of_a_retrofit_that_the_state_contradicts_is_only_a_candidate() {
    let mut lift = Lift::parked();
    lift.traits(RETROFIT);
    lift.at(1.0).run();
    lift.at(2.0).open("entrapment");
    assert!(lift.at(7.0).expect_suppressed("contradicted").trace.contains("running"));
    // A controller is believed.
    let mut lift = Lift::parked();
    lift.at(1.0).run();
    lift.at(2.0).open("entrapment");
    lift.at(7.0).expect("entrapment", 40);
}

#[test]
fn state_rule_and_code_of_one_retrofit_give_20_instead_of_30() {
    let mut lift = Lift::unknown();
    lift.traits(RETROFIT);
    lift.park();
    lift.board();
    lift.at(20.0).stop_outside();
    lift.at(50.0).expect("entrapment_between_floors", 40);
    lift.at(51.0).open("entrapment");
    lift.at(56.0).expect_updated("entrapment_between_floors", 60);
}

#[test]
fn e4_a_lone_press_is_suspected_whatever_the_latch() {
    let mut lift = Lift::parked();
    lift.at(1.0).once("alarm_button");
    lift.at(5.9).expect_nothing();
    let alarm = lift.at(6.0).expect("entrapment_at_level", 40);
    assert_eq!(severity_and_state(&alarm), (Severity::S1, AlarmState::Suspected));
}

#[test]
fn e4_only_a_close_within_3_s_rejects() {
    let mut lift = Lift::parked();
    lift.at(1.0).open("alarm_button");
    lift.at(4.0).close("alarm_button");
    lift.at(60.0).expect_suppressed("ended_in_filter");
    let mut lift = Lift::parked();
    lift.at(1.0).open("alarm_button");
    lift.at(4.1).close("alarm_button");
    lift.at(6.0).expect("entrapment_at_level", 40);
    let mut lift = Lift::parked();
    lift.at(1.0).open("alarm_button");
    lift.at(6.0).expect("entrapment_at_level", 40);
}

#[test]
fn e4_the_contact_of_a_reading_is_a_press() {
    let mut lift = Lift::parked();
    lift.at(1.0).reading(|it| it.flags = Field::Known(Reading::FLAG_ALARM_BUTTON));
    lift.at(3.0).reading(|it| it.flags = Field::Known(Reading::FLAG_ALARM_BUTTON));
    lift.at(6.0).expect("entrapment_at_level", 40);
    lift.at(30.0).expect_nothing();
    let mut lift = Lift::parked();
    lift.at(1.0).reading(|it| it.flags = Field::Known(Reading::FLAG_ALARM_BUTTON));
    lift.at(3.0).reading(|it| it.flags = Field::Known(0));
    lift.at(30.0).expect_suppressed("ended_in_filter");
}

#[test]
fn e4_another_contact_that_comes_alone_does_not_let_go_of_the_button() {
    let mut lift = Lift::parked();
    lift.at(1.0).reading(|it| it.flags = Field::Known(Reading::FLAG_ALARM_BUTTON));
    lift.at(2.0).reading(|it| {
        it.flags = Field::Known(0);
        it.flags_told = Reading::FLAG_DOOR_LOCK_OPEN;
    });
    lift.at(6.0).expect("entrapment_at_level", 40);
}

#[test]
fn e4_with_the_door_open_in_the_zone_is_a_nuisance_call() {
    let mut lift = Lift::parked();
    lift.at(0.0).door(DoorState::Open);
    lift.at(1.0).once("alarm_button");
    let alarms = lift.at(6.0).expect_events(&[
        (AlarmChange::Raised, "nuisance_call", 100),
        (AlarmChange::Cleared, "nuisance_call", 100),
    ]);
    assert_eq!(alarms[0].severity, Severity::S3);
    assert_eq!(alarms[0].began, moment(1.0));
}

#[test]
fn e4_in_a_run_that_ends_normally_is_a_nuisance_call() {
    let mut lift = Lift::riding();
    lift.at(12.0).once("alarm_button");
    lift.at(30.0).stop_level();
    lift.at(50.0).expect_nothing();
    lift.at(89.0).door(DoorState::Open);
    lift.at(95.0).expect_events(&[
        (AlarmChange::Raised, "nuisance_call", 100),
        (AlarmChange::Cleared, "nuisance_call", 100),
    ]);
}

#[test]
fn e4_in_a_run_without_an_opening_within_60_s_of_the_stop_is_suspected() {
    let mut lift = Lift::parked();
    lift.at(10.0).run();
    lift.at(12.0).once("alarm_button");
    lift.at(30.0).stop_level();
    lift.at(89.9).expect_quiet();
    // The press set the latch, so E2 ran beside it and counts too.
    lift.at(90.0).expect_events(&[
        (AlarmChange::Raised, "entrapment_at_level", 40),
        (AlarmChange::Updated, "entrapment_at_level", 70),
    ]);
}

#[test]
fn e4_a_press_while_running_supports_other_rules_at_once() {
    let mut lift = Lift::riding();
    lift.at(12.0).once("alarm_button");
    lift.at(20.0).stop_outside();
    let alarm = lift.at(50.0).expect("entrapment_between_floors", 70);
    assert_eq!(severity_and_state(&alarm), (Severity::S1, AlarmState::Confirmed));
    lift.at(200.0).expect_nothing();
}

#[test]
fn e4_a_run_outside_mode_1_that_ends_with_an_opening_is_no_nuisance() {
    let mut lift = Lift::riding();
    lift.at(11.0).mode(ServiceMode::FireRecall);
    lift.at(12.0).once("alarm_button");
    lift.at(30.0).stop_level();
    lift.at(32.0).door(DoorState::Open);
    lift.at(33.0).expect("entrapment_at_level", 40);
}

#[test]
fn in_inspection_a_press_is_an_operator_item_never_silent() {
    let mut lift = Lift::parked();
    lift.at(0.0).mode(ServiceMode::Inspection);
    lift.at(1.0).once("alarm_button");
    let alarm = lift.at(6.0).expect("entrapment_at_level", 0);
    assert_eq!(severity_and_state(&alarm), (Severity::S2, AlarmState::Suspected));
}

#[test]
fn after_8_h_of_inspection_the_restriction_ends() {
    let mut lift = Lift::parked();
    lift.at(0.0).mode(ServiceMode::Inspection);
    lift.at(8.0 * 3600.0).once("alarm_button");
    lift.at(8.0 * 3600.0 + 5.0).expect("entrapment_at_level", 40);
}

#[test]
fn an_s1_fault_of_a_controller_is_told_at_once_and_once() {
    let mut lift = Lift::parked();
    lift.at(1.0).open("unintended_movement");
    let alarm = lift.expect("unintended_movement", 100);
    assert_eq!(severity_and_state(&alarm), (Severity::S1, AlarmState::Confirmed));
    lift.at(2.0).open("unintended_movement").expect_nothing();
    lift.at(9.0).close("unintended_movement");
    let closed = lift.expect_cleared("unintended_movement", AlarmState::Confirmed);
    assert_eq!(closed.id, alarm.id);
}

#[test]
fn an_s1_fault_of_a_retrofit_waits_5_s() {
    let mut lift = Lift::parked();
    lift.traits(RETROFIT);
    lift.at(1.0).open("overspeed");
    lift.at(5.0).close("overspeed");
    lift.at(6.0).expect_suppressed("ended_in_filter");
    lift.at(10.0).open("overspeed");
    lift.at(14.9).expect_nothing();
    let alarm = lift.at(15.0).expect("overspeed", 100);
    assert_eq!(severity_and_state(&alarm), (Severity::S1, AlarmState::Suspected));
    lift.at(20.0).open("top_overrun");
    assert_eq!(lift.at(25.0).expect("top_overrun", 100).severity, Severity::S2, "low-trust source");
}

#[test]
fn an_s1_fault_ends_when_it_vanishes_from_codes_or_active_list() {
    let mut lift = Lift::parked();
    lift.at(1.0).codes(&["pit_overrun"]).expect("pit_overrun", 100);
    lift.at(5.0).codes(&[]).expect_cleared("pit_overrun", AlarmState::Confirmed);
    lift.at(10.0).open("pit_overrun").expect("pit_overrun", 100);
    lift.at(15.0).active(&["door_close_fault"]).expect_cleared("pit_overrun", AlarmState::Confirmed);
    lift.at(20.0).open("pit_overrun").expect("pit_overrun", 100);
    lift.at(25.0).once("no_fault").expect_cleared("pit_overrun", AlarmState::Confirmed);
}

#[test]
fn a_fault_that_happened_once_ends_with_the_next_normal_run() {
    let mut lift = Lift::parked();
    lift.at(1.0).once("ran_door_open").expect("ran_door_open", 100);
    lift.at(10.0).run();
    lift.at(20.0).stop_level();
    lift.at(22.0).door(DoorState::Open);
    lift.at(26.0).expect_nothing();
    lift.door(DoorState::Closed).expect_cleared("ran_door_open", AlarmState::Confirmed);
}

#[test]
fn faults_below_s1_raise_nothing_by_themselves() {
    let mut lift = Lift::parked();
    for slug in ["door_close_fault", "stop_outside_zone", "run_time_limiter", "smoke_in_car", "power_off"] {
        lift.at(1.0).open(slug);
    }
    lift.at(600.0).expect_nothing();
}

#[test]
fn some_are_s1_with_people_inside() {
    let mut lift = Lift::riding();
    lift.at(19.0).open("smoke_in_car");
    let alarm = lift.at(24.0).expect("smoke_in_car", 100);
    assert_eq!(alarm.severity, Severity::S1);
}

#[test]
fn two_terminals_with_one_fault_make_one_alarm() {
    let mut lift = Lift::parked();
    lift.at(1.0).open("overspeed").expect("overspeed", 100);
    let first = std::mem::replace(&mut lift.terminal, domain::TerminalId::new("t2").unwrap());
    let seq = std::mem::replace(&mut lift.seq, 0);
    lift.at(2.0).open("overspeed").expect_updated("overspeed", 100);
    lift.at(3.0).close("overspeed").expect_nothing();
    (lift.terminal, lift.seq) = (first, seq);
    lift.at(4.0).close("overspeed").expect_cleared("overspeed", AlarmState::Confirmed);
}

#[test]
fn a_terminal_that_repeats_itself_fills_the_evidence_and_no_more() {
    let mut lift = Lift::parked();
    for time in 0..200 {
        lift.at(f64::from(time) * 10.0).once("entrapment");
    }
    lift.at(3000.0).clock();
    let events = lift.out.iter().filter(|it| matches!(it, crate::engine::Transition::Event(_))).count();
    assert_eq!(events, crate::engine::bounds::EVIDENCE_MAX);
    // What changes the alarm is still told.
    lift.out.clear();
    lift.at(3001.0).once("alarm_button").at(3006.0).clock();
    let crate::engine::Transition::Event(event) = &lift.out[0] else { panic!() };
    assert_eq!((event.alarm.score, event.alarm.state), (70, AlarmState::Confirmed));
}

#[test]
fn more_codes_than_fit_leave_the_grave_ones() {
    let mut lift = Lift::parked();
    lift.at(1.0).open("overspeed").expect("overspeed", 100);
    for number in 0..200 {
        lift.terminal = domain::TerminalId::new(&format!("x{}", number % 7)).unwrap();
        lift.at(2.0);
        let mut event = lift.next_event("power_off", domain::EventState::Open);
        event.code.raw = format!("p{number}").into();
        lift.send_events(vec![event], None);
    }
    lift.terminal = domain::TerminalId::new("t1").unwrap();
    lift.at(3.0).close("overspeed").expect_cleared("overspeed", AlarmState::Confirmed);
}
