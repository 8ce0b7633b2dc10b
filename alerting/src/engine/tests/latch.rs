//! The passenger latch and its sensor.

use domain::{DoorState, EventState, Field, Passengers};

use super::Lift;
use crate::engine::Traits;

#[test]
fn frozen_ten_seconds_after_the_doors_have_closed() {
    let mut lift = Lift::riding();
    assert_eq!(lift.at(18.0).latched(), Some(true));
    lift.at(19.0).people(false);
    assert_eq!(lift.at(100.0).latched(), Some(true), "people cannot vanish behind closed doors");
}

#[test]
fn a_fall_inside_the_hold_is_unknown_and_a_rise_is_yes() {
    let mut lift = Lift::parked();
    lift.at(0.0).door(DoorState::Open).people(true);
    lift.at(8.0).door(DoorState::Closed);
    lift.at(12.0).people(false);
    assert_eq!(lift.at(17.9).latched(), Some(false), "the raw reading counts until then");
    assert_eq!(lift.at(18.0).latched(), None);

    let mut lift = Lift::parked();
    lift.at(0.0).door(DoorState::Open);
    lift.at(8.0).door(DoorState::Closed);
    lift.at(9.0).people(true);
    lift.at(11.0).people(false);
    assert_eq!(lift.at(18.0).latched(), Some(true));
}

#[test]
fn raw_unknown_at_the_end_is_unknown() {
    let mut lift = Lift::parked();
    lift.at(0.0).door(DoorState::Open).reading(|it| it.passengers = Field::Unknown);
    lift.at(8.0).door(DoorState::Closed);
    assert_eq!(lift.at(18.0).latched(), None);
}

#[test]
fn load_and_people_counted_are_a_raw_yes() {
    for (load, count, expected) in [(30, 0, Some(true)), (29, 0, Some(false)), (0, 1, Some(true))] {
        let mut lift = Lift::parked();
        lift.at(0.0).door(DoorState::Open).reading(|it| {
            it.load_kg = Field::Known(load);
            it.people_count = Field::Known(count);
        });
        lift.at(8.0).door(DoorState::Closed);
        assert_eq!(lift.at(18.0).latched(), expected, "{load} kg, {count} people");
    }
}

#[test]
fn doors_opened_outside_the_zone_do_not_unfreeze() {
    let mut lift = Lift::riding();
    lift.at(20.0).stop_outside();
    lift.at(22.0).door(DoorState::Open);
    lift.at(23.0).people(false);
    lift.at(25.0).door(DoorState::Closed);
    assert_eq!(lift.at(40.0).latched(), Some(true));
}

#[test]
fn raw_yes_while_a_door_is_not_fully_closed_sets_yes() {
    let mut lift = Lift::parked();
    // With the boolean alone this is no opening: the car has stood for long.
    lift.at(0.0).door(DoorState::NotClosed);
    lift.at(1.0).people(true);
    assert_eq!(lift.at(1.5).latched(), Some(true));
    lift.at(3.0).door(DoorState::Closed).at(4.0).people(false);
    assert_eq!(lift.at(30.0).latched(), Some(true));
}

#[test]
fn a_device_code_and_a_valid_press_set_yes() {
    for slug in ["entrapment", "alarm_button"] {
        let mut lift = Lift::parked();
        lift.at(0.0).open(slug);
        assert_eq!(lift.at(4.9).latched(), Some(false), "{slug}");
        assert_eq!(lift.at(5.0).latched(), Some(true), "{slug}");
    }
}

#[test]
fn after_a_reboot_yes_stays_and_no_becomes_unknown() {
    let mut lift = Lift::parked();
    assert_eq!(lift.latched(), Some(false));
    (lift.boot, lift.seq) = (2, 0);
    lift.at(10.0).snapshot();
    assert_eq!(lift.latched(), None);

    let mut lift = Lift::riding();
    lift.at(30.0);
    (lift.boot, lift.seq) = (2, 0);
    lift.snapshot();
    assert_eq!(lift.latched(), Some(true));
}

#[test]
fn a_terminal_seen_for_the_first_time_is_unknown_until_an_opening() {
    let mut lift = Lift::unknown();
    lift.at(0.0).snapshot();
    assert_eq!(lift.at(60.0).latched(), None);
    lift.at(61.0).door(DoorState::Open);
    lift.at(65.0).door(DoorState::Closed);
    assert_eq!(lift.at(75.0).latched(), Some(false));
}

#[test]
fn without_a_door_signal_yes_needs_10_s_and_no_300_s_and_a_normal_run() {
    let mut lift = Lift::unknown();
    lift.at(0.0).snapshot().reading(|it| it.door_state = Field::Unknown);
    lift.at(10.0).people(true);
    assert_eq!(lift.at(19.9).latched(), None);
    assert_eq!(lift.at(20.0).latched(), Some(true));
    lift.at(30.0).run();
    lift.at(40.0).stop_level();
    lift.at(45.0).people(false);
    lift.at(344.0).heartbeat();
    assert_eq!(lift.latched(), Some(true));
    lift.at(345.0).heartbeat();
    assert_eq!(lift.latched(), Some(false));
}

#[test]
fn without_a_door_signal_a_seen_departure_spares_e2() {
    let scenario = |leaves: bool| {
        let mut lift = Lift::unknown();
        lift.at(0.0).snapshot().reading(|it| it.door_state = Field::Unknown);
        lift.at(5.0).people(true);
        lift.at(20.0).run();
        lift.at(40.0).stop_level();
        if leaves {
            lift.at(45.0).people(false);
        }
        lift.at(200.0);
        lift
    };
    scenario(true).expect_quiet();
    scenario(false).expect("entrapment_at_level", 40);
}

#[test]
fn people_first_seen_during_the_run_are_not_people_from_before_it() {
    let mut lift = Lift::unknown();
    lift.at(0.0).snapshot().reading(|it| it.door_state = Field::Unknown);
    lift.at(15.0).people(true);
    lift.at(20.0).run();
    lift.at(40.0).stop_level();
    lift.at(100.0).expect("entrapment_at_level", 40);
    let mut lift = Lift::unknown();
    lift.at(0.0).snapshot().reading(|it| it.door_state = Field::Unknown);
    lift.at(20.0).run();
    lift.at(25.0).people(true);
    lift.at(40.0).stop_level();
    lift.at(200.0).expect_nothing();
}

#[test]
fn people_frozen_at_one_stop_were_inside_from_its_closing_on() {
    let mut lift = Lift::riding();
    lift.at(20.0).stop_level();
    lift.at(21.0).door(DoorState::Open);
    lift.at(25.0).door(DoorState::Closed);
    // The run that follows takes the same people on: they were inside before it.
    lift.at(60.0).run();
    lift.at(70.0).stop_level();
    lift.at(130.0).expect("entrapment_at_level", 40);
}

#[test]
fn a_sensor_stuck_at_yes_through_5_cycles_is_faulty() {
    let mut lift = Lift::parked();
    lift.people(true);
    for cycle in 0..5 {
        let at = f64::from(cycle) * 40.0;
        lift.at(at).door(DoorState::Open);
        lift.at(at + 5.0).door(DoorState::Closed);
        let expected = if cycle < 4 { Some(true) } else { None };
        assert_eq!(lift.at(at + 16.0).latched(), expected, "cycle {cycle}");
    }
    lift.at(300.0).run();
    lift.at(310.0).stop_outside();
    lift.at(400.0).expect_nothing();
    // Its first no shows that it lives.
    lift.at(401.0).people(false);
    lift.at(402.0).people(true);
    assert_eq!(lift.at(403.0).latched(), None, "frozen until the next opening");
}

#[test]
fn flapping_while_parked_takes_30_from_what_presence_decided() {
    let mut lift = Lift::parked();
    flap(&mut lift, 700.0, 7);
    ride_and_stop(&mut lift, 800.0);
    let given_up = lift.at(850.0).expect_suppressed("sensor_flapping");
    assert!(given_up.trace.starts_with("score 10 (needs 40)"), "{}", given_up.trace);
    // Still unreleased after 300 s: an operator item without auto-confirm.
    let alarm = lift.at(1151.0).expect("entrapment_between_floors", 10);
    assert_eq!(alarm.severity, domain::Severity::S2);
}

#[test]
fn six_changes_in_a_minute_or_before_10_min_parked_are_no_flapping() {
    let mut lift = Lift::parked();
    flap(&mut lift, 700.0, 6);
    ride_and_stop(&mut lift, 800.0);
    lift.at(850.0).expect("entrapment_between_floors", 40);
    let mut lift = Lift::parked();
    flap(&mut lift, 400.0, 20);
    ride_and_stop(&mut lift, 800.0);
    lift.at(850.0).expect("entrapment_between_floors", 40);
}

#[test]
fn the_button_lifts_a_flapping_candidate_into_a_case() {
    let mut lift = Lift::parked();
    flap(&mut lift, 700.0, 7);
    ride_and_stop(&mut lift, 800.0);
    lift.at(850.0).expect_suppressed("sensor_flapping");
    lift.at(860.0).once("alarm_button");
    lift.at(865.0).expect("entrapment_between_floors", 40);
}

#[test]
fn a_candidate_without_a_case_closes_after_150_min() {
    let mut lift = Lift::parked();
    lift.traits(Traits { retrofit: true, ..Traits::default() });
    lift.at(10.0).event("entrapment", EventState::Open);
    assert!(lift.at(15.0).expect_suppressed("contradicted").trace.contains("reliable no"));
    lift.at(15.0 + 8999.0).expect_nothing();
    lift.at(15.0 + 9000.0).expect_suppressed("expired");
}

/// The sensor turns `times` times, a second apart, and ends at no.
fn flap(lift: &mut Lift, from: f64, times: u32) {
    for time in 0..times {
        lift.at(from + f64::from(time)).people(time % 2 == 0);
    }
    if times % 2 == 1 {
        lift.at(from + 65.0).people(false);
    }
}

fn ride_and_stop(lift: &mut Lift, from: f64) {
    lift.at(from).door(DoorState::Open);
    lift.at(from + 2.0).reading(|it| it.passengers = Field::Known(Passengers::Yes));
    lift.at(from + 5.0).door(DoorState::Closed);
    lift.at(from + 7.0).run();
    lift.at(from + 20.0).stop_outside();
}
