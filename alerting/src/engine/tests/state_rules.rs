//! E1, E2 and E5, inspection, freshness and the timers.

use domain::{
    AlarmChange, AlarmState, BootId, CarStatus, Code, DoorState, EventBatch, EventState, FaultEvent, Field,
    Message, Reading, Seq, ServiceMode, Severity,
};

use super::{Lift, moment, severity_and_state};
use crate::engine::ThresholdsPatch;

#[test]
fn e1_stopped_outside_the_zone_with_people_for_30_s() {
    let mut lift = Lift::riding();
    lift.at(20.0).stop_outside();
    lift.at(49.9).expect_nothing();
    let alarm = lift.at(50.0).expect("entrapment_between_floors", 40);
    assert_eq!(severity_and_state(&alarm), (Severity::S1, AlarmState::Suspected));
    assert_eq!(alarm.began, moment(20.0), "alarm time is the begin of the condition");
    assert_eq!(alarm.raised, moment(50.0));
    assert_eq!(alarm.floor.as_deref(), Some("12"));
    let trace = &alarm.evidence[0].trace;
    assert!(
        trace.starts_with("stopped 30.0 s outside the zone (limit 30 s), door closed, latch yes"),
        "{trace}"
    );
    assert!(trace.ends_with("floor 12"), "{trace}");
    lift.at(300.0).expect_nothing();
}

/// One event without `boot`, and all that the terminal said afterwards under its boot was taken for an old story.
#[test]
fn e1_after_an_event_that_names_no_boot() {
    let mut lift = Lift::riding();
    let time = lift.at(15.0).next_event("battery_low", EventState::Once).time;
    let event = FaultEvent {
        seq: Seq(-9),
        time,
        code: Code::canonical("battery_low").unwrap(),
        state: EventState::Once,
    };
    let (boot, sent) = (BootId(0), None);
    lift.message(Message::Event(EventBatch { boot, sent, events: vec![event], active: None }));
    lift.seq -= 1;
    lift.at(20.0).stop_outside();
    lift.at(50.0).expect("entrapment_between_floors", 40);
}

#[test]
fn e1_any_door_state() {
    let mut lift = Lift::riding();
    lift.at(20.0).stop_outside();
    lift.at(22.0).door(DoorState::Open);
    lift.at(50.0).expect("entrapment_between_floors", 40);
}

#[test]
fn e1_not_with_a_reliable_no() {
    let mut lift = Lift::parked();
    lift.at(10.0).run();
    lift.at(20.0).stop_outside();
    lift.at(120.0).expect_nothing();
}

#[test]
fn e1_not_while_the_speed_says_moving() {
    let mut lift = Lift::riding();
    lift.at(20.0).reading(|it| {
        it.car_status = Field::Known(CarStatus::Stopped);
        it.velocity_mm_s = Field::Known(60);
    });
    lift.at(100.0).expect_nothing();
    lift.reading(|it| it.velocity_mm_s = Field::Known(-49));
    lift.at(129.0).expect_nothing();
    lift.at(130.0).expect("entrapment_between_floors", 40);
}

#[test]
fn a_timer_restarts_when_a_condition_breaks() {
    let mut lift = Lift::riding();
    lift.at(20.0).stop_outside();
    lift.at(45.0).run();
    let given_up = lift.at(46.0).expect_suppressed("condition_ended");
    assert_eq!(given_up.began, moment(20.0));
    assert!(given_up.trace.starts_with("held 25.0 s of 30 s"), "{}", given_up.trace);
    lift.at(47.0).stop_outside();
    lift.at(76.9).expect_nothing();
    lift.at(77.0).expect("entrapment_between_floors", 40);
}

#[test]
fn e1_zone_unknown_takes_60_s_and_the_conditions_of_e2() {
    let mut lift = Lift::riding();
    lift.at(20.0).reading(|it| {
        it.car_status = Field::Known(CarStatus::Stopped);
        it.door_zone = Field::Unknown;
    });
    lift.at(79.9).expect_nothing();
    lift.at(80.0).expect("entrapment", 40);

    let mut lift = Lift::riding();
    lift.at(20.0).reading(|it| {
        it.car_status = Field::Known(CarStatus::Stopped);
        it.door_zone = Field::Unknown;
    });
    lift.at(30.0).door(DoorState::Opening);
    lift.at(120.0).expect_nothing();
}

#[test]
fn e1_takes_the_code_where_the_zone_is_unknown() {
    let mut lift = Lift::riding();
    lift.at(20.0).open("stop_outside_zone").reading(|it| {
        it.car_status = Field::Known(CarStatus::Stopped);
        it.door_zone = Field::Unknown;
    });
    lift.at(50.0).expect("entrapment_between_floors", 40);
}

#[test]
fn e2_no_opening_at_a_landing_for_60_s() {
    let mut lift = Lift::riding();
    lift.at(20.0).stop_level();
    lift.at(79.9).expect_nothing();
    let alarm = lift.at(80.0).expect("entrapment_at_level", 40);
    assert!(alarm.evidence[0].trace.contains("no opening since the stop"), "{}", alarm.evidence[0].trace);
}

#[test]
fn e2_not_after_an_opening() {
    let mut lift = Lift::riding();
    lift.at(20.0).stop_level();
    lift.at(22.0).door(DoorState::Open);
    lift.at(28.0).door(DoorState::Closed);
    lift.at(200.0).expect_nothing();
}

#[test]
fn e2_keeps_a_late_opening_as_a_given_up_candidate() {
    let mut lift = Lift::riding();
    lift.at(20.0).stop_level();
    lift.at(55.0).door(DoorState::Open);
    assert!(lift.at(56.0).expect_suppressed("door_opened").trace.starts_with("held 35.0 s of 60 s"));
}

#[test]
fn e2_not_closed_is_not_open() {
    let mut lift = Lift::riding();
    lift.at(20.0).stop_level();
    lift.at(40.0).door(DoorState::NotClosed);
    lift.at(80.0).expect("entrapment_at_level", 40);
}

#[test]
fn e2_with_the_boolean_leaving_closed_at_the_arrival_is_an_opening() {
    let mut lift = Lift::riding();
    lift.at(20.0).stop_level();
    lift.at(34.0).door(DoorState::NotClosed);
    lift.at(200.0).expect_quiet();
}

#[test]
fn e2_order_matters_people_before_the_run() {
    let mut lift = Lift::parked();
    lift.at(10.0).run();
    lift.at(20.0).stop_level();
    lift.at(22.0).door(DoorState::Open);
    lift.at(24.0).people(true);
    lift.at(28.0).door(DoorState::Closed);
    assert_eq!(lift.at(50.0).latched(), Some(true));
    lift.at(300.0).expect_nothing();
}

#[test]
fn e2_variant_door_closed_on_people_is_off_by_default() {
    let scenario = |patch| {
        let mut lift = Lift::with(patch);
        lift.park();
        lift.at(0.0).door(DoorState::Open);
        lift.at(3.0).people(true);
        lift.at(8.0).door(DoorState::Closed);
        lift.at(100.0);
        lift
    };
    scenario(ThresholdsPatch::default()).expect_nothing();
    let on = ThresholdsPatch { e2_reclose: Some(true), ..ThresholdsPatch::default() };
    scenario(on).expect("entrapment_at_level", 40);
}

#[test]
fn e2_not_in_fire_modes_but_in_out_of_service_and_unknown() {
    for (mode, raises) in [
        (ServiceMode::FireRecall, false),
        (ServiceMode::Firefighter, false),
        (ServiceMode::OutOfService, true),
        (ServiceMode::Earthquake, true),
        (ServiceMode::Unknown, true),
    ] {
        let mut lift = Lift::riding();
        lift.at(19.0).mode(mode);
        lift.at(20.0).stop_level();
        lift.at(100.0);
        if raises {
            lift.expect("entrapment_at_level", 40);
        } else {
            lift.expect_nothing();
        }
    }
}

#[test]
fn e1_in_fire_modes_too() {
    let mut lift = Lift::riding();
    lift.at(19.0).mode(ServiceMode::Firefighter);
    lift.at(20.0).stop_outside();
    lift.at(50.0).expect("entrapment_between_floors", 40);
}

#[test]
fn e2_latch_unknown_counts_as_yes_while_the_door_does_not_open() {
    let scenario = |fault: bool| {
        let mut lift = Lift::unknown();
        lift.at(0.0).snapshot().at(5.0).run();
        if fault {
            lift.open("door_open_fault");
        }
        lift.at(20.0).stop_level();
        lift.at(100.0);
        lift
    };
    scenario(true).expect("entrapment_at_level", 40);
    scenario(false).expect_nothing();
}

#[test]
fn e5_power_gone_for_10_s_with_people() {
    let mut lift = Lift::riding();
    lift.at(15.0).open("power_off");
    lift.at(16.0).stop_outside();
    lift.at(24.9).expect_nothing();
    let alarm = lift.at(25.0).expect("entrapment_between_floors", 40);
    assert_eq!(alarm.began, moment(15.0));
    assert!(alarm.evidence[0].trace.contains("auto-confirm after 60 s"));
    // E1 follows as one more line of the same kind of evidence.
    let alarm = lift.at(46.0).expect_updated("entrapment_between_floors", 40);
    assert_eq!(alarm.evidence.len(), 2);
}

#[test]
fn e5_goes_by_mode_5_battery_and_safety_circuit() {
    let causes: [fn(&mut Lift); 4] = [
        |lift| {
            lift.mode(ServiceMode::EmergencyPower);
        },
        |lift| {
            lift.reading(|it| it.flags = Field::Known(Reading::FLAG_BATTERY_POWER));
        },
        |lift| {
            lift.reading(|it| it.flags = Field::Known(Reading::FLAG_SAFETY_CIRCUIT_OPEN));
        },
        |lift| {
            lift.open("safety_circuit_open");
        },
    ];
    for (number, cause) in causes.iter().enumerate() {
        let mut lift = Lift::riding();
        lift.at(15.0);
        cause(&mut lift);
        let alarm = lift.at(25.0).expect("entrapment_between_floors", 40);
        let confirm = if number == 0 { "auto-confirm after 180 s" } else { "auto-confirm after 60 s" };
        assert!(alarm.evidence[0].trace.contains(confirm), "{}", alarm.evidence[0].trace);
    }
}

#[test]
fn e5_not_with_the_door_open_in_the_zone_nor_without_people() {
    let mut lift = Lift::parked();
    lift.at(0.0).door(DoorState::Open).people(true).open("power_off");
    lift.at(100.0).expect_nothing();
    let mut lift = Lift::parked();
    lift.at(0.0).open("power_off");
    lift.at(100.0).expect_nothing();
}

#[test]
fn inspection_takes_the_guard_and_says_so() {
    let mut lift = Lift::parked();
    lift.at(0.0).mode(ServiceMode::Inspection);
    lift.at(2.0).door(DoorState::Open).people(true);
    lift.at(5.0).door(DoorState::Closed);
    lift.at(10.0).run();
    lift.at(20.0).stop_outside();
    let given_up = lift.at(60.0).expect_suppressed("inspection");
    assert_eq!(given_up.at, moment(50.0));
    // The guard comes back with normal service, and the timer begins anew.
    lift.at(70.0).mode(ServiceMode::Normal);
    lift.at(99.9).expect_nothing();
    lift.at(100.0).expect("entrapment_between_floors", 40);
}

#[test]
fn inspection_that_begins_with_people_inside_keeps_the_guard() {
    let mut lift = Lift::riding();
    lift.at(15.0).mode(ServiceMode::Inspection);
    lift.at(20.0).stop_outside();
    lift.at(50.0).expect("entrapment_between_floors", 40);
    let mut lift = Lift::riding();
    lift.at(15.0).open("maintenance_mode");
    lift.at(20.0).stop_outside();
    lift.at(50.0).expect("entrapment_between_floors", 40);
}

#[test]
fn e5_goes_by_the_mode_before_the_cut() {
    let mut lift = Lift::parked();
    lift.at(0.0).mode(ServiceMode::Inspection);
    lift.at(2.0).door(DoorState::Open).people(true);
    lift.at(5.0).door(DoorState::Closed);
    lift.at(20.0).mode(ServiceMode::EmergencyPower);
    lift.at(40.0).expect_suppressed("inspection");
}

#[test]
fn a_restart_in_the_middle_of_a_timer_changes_nothing() {
    let mut lift = Lift::riding();
    lift.at(20.0).stop_outside();
    lift.at(35.0).restart();
    lift.at(49.9).expect_nothing();
    let alarm = lift.at(50.0).expect("entrapment_between_floors", 40);
    lift.at(60.0).restart();
    // The alarm is still known: the button merges into it.
    lift.once("alarm_button");
    let merged = lift.at(65.0).expect_updated("entrapment_between_floors", 70);
    assert_eq!(merged.id, alarm.id);
    assert_eq!(merged.state, AlarmState::Confirmed);
}

#[test]
fn timers_pause_while_data_is_not_fresh() {
    let patch = ThresholdsPatch { heartbeat_s: Some(10), ..ThresholdsPatch::default() };
    let mut lift = Lift::with(patch);
    lift.park();
    lift.board();
    lift.at(20.0).stop_outside();
    // Fresh for 2.5 periods, so until second 45: 25 of the 30 seconds have run.
    lift.at(100.0).expect_nothing();
    lift.at(100.0).heartbeat();
    lift.at(104.9).expect_nothing();
    lift.at(105.0).expect("entrapment_between_floors", 40);
}

#[test]
fn a_connected_terminal_is_fresh() {
    let patch = ThresholdsPatch { heartbeat_s: Some(10), ..ThresholdsPatch::default() };
    let mut lift = Lift::with(patch);
    lift.at(-110.0).presence(true);
    lift.park();
    lift.board();
    lift.at(20.0).stop_outside();
    lift.at(50.0).expect("entrapment_between_floors", 40);
}

#[test]
fn a_connected_terminal_whose_messages_are_dropped_is_not_fresh() {
    let mut lift = Lift::unknown();
    lift.presence(true);
    lift.park();
    lift.board();
    lift.at(20.0).stop_outside();
    // 15 of the 30 seconds have run; that nothing is heard of it is our own doing.
    lift.at(35.0).muted();
    lift.at(40.0).muted();
    lift.at(4_000.0).expect_nothing();
    lift.restart();
    // The end of its connection is no news of it, its return is.
    lift.at(4_001.0).presence(false);
    lift.at(4_200.0).expect_nothing();
    lift.at(4_200.0).presence(true);
    lift.at(4_214.9).expect_nothing();
    lift.at(4_215.0).expect("entrapment_between_floors", 40);
}

#[test]
fn kinds_of_evidence_add_up_in_any_order() {
    let mut lift = Lift::riding();
    lift.at(20.0).stop_outside();
    lift.at(21.0).open("alarm_button");
    let first = lift.at(26.0).expect("entrapment_between_floors", 40);
    assert_eq!(first.state, AlarmState::Suspected);
    let second = lift.at(50.0).expect_updated("entrapment_between_floors", 70);
    assert_eq!((second.id, second.state), (first.id, AlarmState::Confirmed));
    assert_eq!(second.began, first.began, "the first alarm time wins");
    lift.at(60.0).open("entrapment");
    lift.at(65.0).expect_updated("entrapment_between_floors", 100);
}

#[test]
fn merged_evidence_is_also_a_candidate_given_up() {
    let mut lift = Lift::riding();
    lift.at(20.0).stop_outside();
    lift.at(21.0).open("alarm_button");
    let alarm = lift.at(26.0).expect("entrapment_between_floors", 40);
    let from = lift.out.len();
    lift.at(50.0).expect_events(&[(AlarmChange::Updated, "entrapment_between_floors", 70)]);
    let crate::engine::Transition::Suppressed(merged) = &lift.out[from + 1] else { panic!() };
    assert_eq!(merged.reason, "merged");
    assert!(merged.trace.contains(&alarm.id.to_string()));
}
