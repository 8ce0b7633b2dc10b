//! Clear, and what it leaves open.

use domain::{AlarmState, DoorState, ServiceMode};

use super::Lift;

fn suspected() -> Lift {
    let mut lift = Lift::riding();
    lift.at(20.0).stop_outside();
    lift.at(50.0).expect("entrapment_between_floors", 40);
    lift
}

#[test]
fn a_door_open_in_the_zone_for_2_s_clears() {
    let mut lift = suspected();
    lift.at(100.0).run().stop_level();
    lift.at(110.0).door(DoorState::Open);
    lift.at(111.9).expect_nothing();
    let alarm = lift.at(112.0).expect_cleared("entrapment_between_floors", AlarmState::Cancelled);
    assert!(alarm.evidence.last().unwrap().trace.starts_with("signal_cleared: door open in the zone"));
}

#[test]
fn a_door_open_outside_the_zone_or_briefly_clears_nothing() {
    let mut lift = suspected();
    lift.at(100.0).door(DoorState::Open);
    lift.at(200.0).expect_nothing();
    let mut lift = suspected();
    lift.at(100.0).run().stop_level();
    lift.at(110.0).door(DoorState::Open);
    lift.at(111.5).door(DoorState::Closing);
    lift.at(200.0).expect_nothing();
}

#[test]
fn with_the_boolean_alone_only_a_normal_run_with_a_cycle_clears() {
    let mut lift = suspected();
    lift.at(100.0).run();
    lift.at(110.0).stop_level();
    lift.at(113.0).door(DoorState::NotClosed);
    lift.at(119.0).expect_nothing();
    lift.at(120.0).door(DoorState::Closed);
    let alarm = lift.expect_cleared("entrapment_between_floors", AlarmState::Cancelled);
    assert!(alarm.evidence.last().unwrap().trace.contains("normal run"));
}

#[test]
fn a_run_outside_mode_1_is_not_normal() {
    let mut lift = suspected();
    lift.at(99.0).mode(ServiceMode::Earthquake);
    lift.at(100.0).run();
    lift.at(110.0).stop_level();
    lift.at(113.0).door(DoorState::NotClosed);
    lift.at(120.0).door(DoorState::Closed);
    lift.at(130.0).expect_quiet();
}

#[test]
fn the_run_that_ended_in_the_entrapment_does_not_clear_it() {
    let mut lift = Lift::riding();
    lift.at(20.0).stop_level();
    lift.at(80.0).expect("entrapment_at_level", 40);
    lift.at(90.0).door(DoorState::NotClosed);
    lift.at(95.0).door(DoorState::Closed);
    lift.at(130.0).expect_nothing();
}

#[test]
fn what_was_confirmed_keeps_its_state_and_notes_the_clear() {
    let mut lift = Lift::riding();
    lift.at(20.0).stop_outside();
    lift.at(21.0).once("alarm_button");
    lift.at(26.0).expect("entrapment_between_floors", 40);
    lift.at(50.0).expect_updated("entrapment_between_floors", 70);
    lift.at(100.0).run().stop_level().door(DoorState::Open);
    lift.at(102.0).expect_cleared("entrapment_between_floors", AlarmState::Confirmed);
}

#[test]
fn entering_inspection_never_clears() {
    let mut lift = suspected();
    lift.at(100.0).mode(ServiceMode::Inspection);
    lift.at(10_000.0).expect_nothing();
}

#[test]
fn after_a_clear_a_new_condition_raises_a_new_alarm() {
    let mut lift = suspected();
    lift.at(100.0).run().stop_level().door(DoorState::Open);
    let first = lift.at(102.0).expect_cleared("entrapment_between_floors", AlarmState::Cancelled);
    lift.at(110.0).door(DoorState::Closed);
    lift.at(112.0).run();
    lift.at(120.0).stop_outside();
    let second = lift.at(150.0).expect("entrapment_between_floors", 40);
    assert_ne!(first.id, second.id);
}

#[test]
fn an_alarm_that_waits_is_never_closed_by_time() {
    let mut lift = suspected();
    lift.at(50.0 + 9001.0).expect_nothing();
    lift.at(1e6).expect_nothing();
}
