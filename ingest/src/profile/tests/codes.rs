//! The tables of codes, copied from the handbook row by row, against the profiles that ship.

use domain::{DeviceKind, EventState, FAULTS};

use super::{events, read, view};

/// `1 top_overrun, 2 pit_overrun, 4 top_overrun + entrapment` for devices of this kind.
fn check(profile: &str, kind: DeviceKind, rows: &str) {
    let view = view(profile, kind);
    for row in rows.split(',').map(str::trim) {
        let (raw, slugs) = row.split_once(' ').unwrap();
        let meaning = view.meaning(raw);
        let found: Vec<&str> =
            [Some(meaning.first), meaning.second].into_iter().flatten().map(|fault| fault.slug).collect();
        assert_eq!(found.join(" + "), slugs, "profile {profile}, {kind}, code {raw}");
    }
}

fn unknown(profile: &str, kind: DeviceKind, raw: &str) {
    for raw in raw.split(' ') {
        let slug = view(profile, kind).meaning(raw).first.slug;
        assert_eq!(slug, "unknown_code", "profile {profile}, {kind}, code {raw}");
    }
}

const GB: &str = "0 no_fault, 1 safety_circuit_open, 2 door_close_fault, 3 door_open_fault, 4 stop_outside_zone, \
    5 unintended_movement, 6 run_time_limiter, 7 position_lost, 8 restart_prevented, 40 auto_mode, 41 power_off, \
    42 out_of_service, 43 inspection_mode, 44 fire_recall, 45 firefighter_mode, 46 emergency_power, \
    47 earthquake_mode, 90 alarm_button";
const RETROFIT: &str = "1 top_overrun, 2 pit_overrun, 3 overspeed, 4 door_opened_running, 5 ran_door_open, \
    6 stop_outside_zone, 7 entrapment_at_level, 8 entrapment_between_floors, 9 power_off, 10 safety_circuit_open, \
    11 door_open_fault, 12 door_close_fault, 13 door_lock_open, 14 call_button_stuck, 15 abnormal_speed";

#[test]
fn gb24476() {
    check("gb24476", DeviceKind::Lift, GB);
    unknown("gb24476", DeviceKind::Lift, "9 10 39 48 89 F9999");
    // The column "Code" of the taxonomy says the same.
    for fault in FAULTS {
        if let Some(code) = fault.gb_code {
            let meaning = view("gb24476", DeviceKind::Lift).meaning(&code.to_string());
            assert_eq!(meaning.first.slug, fault.slug, "GB {code}");
        }
    }
}

#[test]
fn chongqing() {
    check("chongqing", DeviceKind::Lift, GB);
    check("chongqing", DeviceKind::Lift, "91 pit_overrun, 92 top_overrun, 93 entrapment_at_level");
}

#[test]
fn exchange() {
    check(
        "exchange",
        DeviceKind::Lift,
        "01 safety_circuit_open, 02 door_close_fault, 03 door_open_fault, 04 stop_outside_zone, \
         05 unintended_movement, 06 run_time_limiter, 07 position_lost, 08 restart_prevented, 09 top_overrun, \
         10 pit_overrun, 11 entrapment",
    );
    check(
        "exchange",
        DeviceKind::Escalator,
        "61 esc_safety_circuit_open, 62 esc_overspeed, 63 esc_reversal, 64 esc_step_missing, \
         65 esc_restart_prevented",
    );
    unknown("exchange", DeviceKind::Lift, "1 9 001 00 12 40");
    let group = view("exchange", DeviceKind::Escalator).meaning("61").first.group;
    assert_eq!(group, domain::FaultGroup::Fault, "a fault, although its number is in the band of events");
}

#[test]
fn shanghai_city() {
    check("shanghai_city", DeviceKind::Lift, "01 safety_circuit_open, 08 restart_prevented, 41 power_off");
    check("shanghai_city", DeviceKind::Lift, "09 entrapment, 90 alarm_button, 00 no_fault");
    unknown("shanghai_city", DeviceKind::Lift, "9 10 11");
}

#[test]
fn code_5_and_code_9_mean_something_else_everywhere() {
    for (profile, five, nine) in [
        ("gb24476", "unintended_movement", "unknown_code"),
        ("exchange", "unintended_movement", "top_overrun"),
        ("shanghai_city", "unintended_movement", "entrapment"),
        ("retrofit", "ran_door_open", "power_off"),
        ("terminal_json", "overspeed", "unknown_code"),
        ("gprs_tlv", "top_overrun", "door_opened_running"),
        ("bacnet_lift", "safety_circuit_open", "call_button_stuck"),
        ("edge_camera", "pit_overrun", "unknown_code"),
    ] {
        let reading = read(profile, DeviceKind::Lift, r#""codes":[5,9]"#);
        let slugs: Vec<&str> = reading.codes.known().unwrap().iter().map(|code| code.fault.slug).collect();
        assert_eq!(slugs, [five, nine], "rows 'code 5' and 'code 9 / 09', column {profile}");
    }
}

#[test]
fn retrofit() {
    check("retrofit", DeviceKind::Lift, RETROFIT);
    unknown("retrofit", DeviceKind::Lift, "0 16 24 90");
}

#[test]
fn retrofit_a() {
    check("retrofit_a", DeviceKind::Lift, RETROFIT);
    check(
        "retrofit_a",
        DeviceKind::Escalator,
        "16 esc_overspeed, 17 esc_overspeed, 18 esc_reversal, 19 esc_stopping_distance, 20 esc_handrail_slow, \
         21 esc_handrail_slow, 22 esc_step_missing, 23 esc_step_missing, 24 esc_brake_not_released, \
         25 esc_aux_brake, 26 esc_cover_open",
    );
    let view = view("retrofit_a", DeviceKind::Escalator);
    let details = ["16", "17", "20", "21", "22", "23"].map(|raw| view.detail(raw).unwrap());
    assert_eq!(details, ["1.2×", "1.4×", "left", "right", "upper", "lower"]);
}

#[test]
fn retrofit_b() {
    check("retrofit_b", DeviceKind::Lift, RETROFIT);
    check(
        "retrofit_b",
        DeviceKind::Lift,
        "16 brake_fault, 17 run_time_limiter, 18 sensor_fault, 19 position_lost, 20 door_obstructed, \
         21 alarm_button, 22 battery_low, 28 auto_mode, 29 inspection_mode, 30 power_off, 36 maintenance_mode, \
         37 ebike_in_car, 38 abnormal_vibration, 39 no_mask, 40 door_motor_blocked, 41 switched_off, \
         42 sensor_fault",
    );
    check(
        "retrofit_b",
        DeviceKind::Escalator,
        "18 sensor_fault, 22 battery_low, 23 esc_safety_circuit_open, 24 esc_overspeed, 25 esc_reversal, \
         26 esc_step_missing, 27 esc_unclassified, 28 auto_mode, 29 inspection_mode, 30 power_off, \
         31 esc_emergency_stop, 32 esc_cover_open, 33 esc_step_missing, 34 esc_brake_not_released, \
         35 esc_comb_fault, 36 maintenance_mode, 41 switched_off, 42 sensor_fault",
    );
    let view = view("retrofit_b", DeviceKind::Escalator);
    assert_eq!(
        ["18", "33", "42"].map(|raw| view.detail(raw).unwrap()),
        ["temperature", "pallet", "pressure"]
    );
}

#[test]
fn edge_camera() {
    check(
        "edge_camera",
        DeviceKind::Lift,
        "1 entrapment, 2 ran_door_open, 3 stop_outside_zone, 4 top_overrun, 5 pit_overrun, 6 overspeed, \
         11 door_cycling, 12 door_close_fault, 202 ebike_in_car",
    );
}

#[test]
fn terminal_json() {
    check(
        "terminal_json",
        DeviceKind::Lift,
        "1 entrapment_between_floors, 2 entrapment_at_level, 3 door_opened_running, 4 stop_outside_zone, \
         5 overspeed, 6 top_overrun, 7 pit_overrun, 8 ran_door_open",
    );
}

#[test]
fn gprs_tlv() {
    check(
        "gprs_tlv",
        DeviceKind::Lift,
        "01 overspeed, 02 entrapment, 03 door_close_fault, 04 top_overrun + entrapment, 05 top_overrun, \
         06 pit_overrun + entrapment, 07 pit_overrun, 08 ran_door_open, 09 door_opened_running, \
         0a entrapment_between_floors, 0b stop_outside_zone, 0c power_off, 0d door_open_fault, \
         10 door_open_between_floors",
    );
    check("gprs_tlv", DeviceKind::Lift, "0A entrapment_between_floors, 0x0a entrapment_between_floors");
    let codes = |sent: &str| -> Vec<(String, &str)> {
        let reading = read("gprs_tlv", DeviceKind::Lift, sent);
        reading.codes.known().unwrap().iter().map(|code| (code.raw.to_string(), code.fault.slug)).collect()
    };
    let pair = |raw: &str, slug: &'static str| (raw.to_owned(), slug);
    assert_eq!(codes(r#""codes":[10]"#), [pair("0a", "entrapment_between_floors")], "a number is the value");
    assert_eq!(codes(r#""codes":"10""#), [pair("10", "door_open_between_floors")], "a text is hexadecimal");
    let packed = [pair("0a", "entrapment_between_floors"), pair("0c", "power_off")];
    assert_eq!(codes(r#""codes":"0a0c""#), packed);
    assert_eq!(codes(r#""codes":"0a, 0c""#), packed);
    assert_eq!(codes(r#""codes":"""#), []);
}

#[test]
fn one_code_may_be_two_and_they_stay_apart() {
    let reading = read("gprs_tlv", DeviceKind::Lift, r#""codes":["04"]"#);
    let told: Vec<_> =
        reading.codes.known().unwrap().iter().map(|it| (it.raw.to_string(), it.fault.slug)).collect();
    let expected = [("04", "top_overrun"), ("04:entrapment", "entrapment")].map(|it| (it.0.to_owned(), it.1));
    assert_eq!(told, expected);
    let batch = events("gprs_tlv", DeviceKind::Lift, r#"{"time":1000,"code":"06","state":"open"}"#);
    let told: Vec<_> = batch.events.iter().map(|it| (&*it.code.raw, it.code.fault.slug, it.state)).collect();
    let open = EventState::Open;
    assert_eq!(told, [("06", "pit_overrun", open), ("06:entrapment", "entrapment", open)]);
    assert_ne!(batch.events[0].seq, batch.events[1].seq, "derived from time, code and state");
    // A row that comes back from quarantine says only its own half.
    let meaning = view("gprs_tlv", DeviceKind::Lift).meaning("06:entrapment");
    assert_eq!((meaning.first.slug, meaning.second), ("entrapment", None));
    unknown("gprs_tlv", DeviceKind::Lift, "06:pit_overrun 05:entrapment");
}

#[test]
fn telecom_flag() {
    check(
        "telecom_flag",
        DeviceKind::Lift,
        "F9999 entrapment_at_level, F9998 door_open_long, F9997 ran_door_open, F9996 ran_door_open, \
         F9995 entrapment, F9994 entrapment_between_floors, F9993 alarm_button, F9992 top_overrun, \
         F9991 pit_overrun, F9990 door_opened_running, F9989 unknown_code, F9988 car_impact, E9899 battery_low, \
         E9898 smoke_in_car, E9897 overcrowded, E9896 ebike_in_car, E9895 abnormal_speed",
    );
    check("telecom_flag", DeviceKind::Lift, "f9995 entrapment");
    let view = view("telecom_flag", DeviceKind::Lift);
    assert_eq!(["F9997", "F9996"].map(|raw| view.detail(raw).unwrap()), ["up", "down"]);
    let batch = events("telecom_flag", DeviceKind::Lift, r#"{"time":1,"flag":"F9995","state":"open"}"#);
    assert_eq!(batch.events[0].code.fault.slug, "entrapment");
}

#[test]
fn bacnet_lift() {
    check(
        "bacnet_lift",
        DeviceKind::Lift,
        "0 controller_fault, 1 drive_fault, 2 governor_safety_gear, 3 shaft_device_fault, 4 power_off, \
         5 safety_circuit_open, 6 door_close_fault, 7 door_open_fault, 8 stop_outside_zone, 9 call_button_stuck, \
         10 restart_prevented, 11 controller_supply_fault, 12 self_test_failed, 13 run_time_limiter, \
         14 position_lost, 15 drive_overtemp, 16 load_measure_fault",
    );
    unknown("bacnet_lift", DeviceKind::Lift, "17 1024 65535");
    let lift = |sent| read("bacnet_lift", DeviceKind::Lift, sent);
    let reading = lift(r#""Passenger_Alarm":true,"Fault_Signals":[8,1024]"#);
    let told: Vec<_> =
        reading.codes.as_ref().known().unwrap().iter().map(|it| (&*it.raw, it.fault.slug)).collect();
    let expected =
        [("8", "stop_outside_zone"), ("1024", "unknown_code"), ("Passenger_Alarm", "alarm_button")];
    assert_eq!(told, expected);
    assert_eq!(reading.flag(domain::Reading::FLAG_ALARM_BUTTON), domain::Field::Known(true));
    assert_eq!(lift(r#""Car_Position":3,"Floor_Text":"2F""#).floor.known().unwrap().as_str(), "2F");
}

/// A list of the button alone would end all other codes, and the reading that releases it has no list to end it.
#[test]
fn a_button_without_a_list_is_told_by_its_contact_alone() {
    for (sent, pressed) in [(r#""Passenger_Alarm":true"#, true), (r#""Passenger_Alarm":false"#, false)] {
        let reading = read("bacnet_lift", DeviceKind::Lift, sent);
        assert_eq!(reading.codes, domain::Field::Absent, "{sent}");
        assert_eq!(reading.flag(domain::Reading::FLAG_ALARM_BUTTON), domain::Field::Known(pressed));
    }
    let reading = read("bacnet_lift", DeviceKind::Lift, r#""Passenger_Alarm":true,"Fault_Signals":null"#);
    assert_eq!(reading.codes, domain::Field::Unknown);
}

#[test]
fn bacnet_escalator() {
    for kind in [DeviceKind::Escalator, DeviceKind::Walk] {
        check(
            "bacnet_escalator",
            kind,
            "0 controller_fault, 1 drive_fault, 2 esc_mechanical_fault, 3 esc_overspeed, 4 power_off, \
             5 esc_safety_circuit_open, 6 controller_supply_fault, 7 drive_overtemp, 8 esc_comb_fault",
        );
    }
    unknown("bacnet_escalator", DeviceKind::Lift, "0 3 5");
}

#[test]
fn a_bare_number_of_an_escalator_is_never_read_with_the_table_of_a_lift() {
    for profile in super::Profiles::shipped().names().filter(|name| *name != "bacnet_escalator") {
        for kind in [DeviceKind::Escalator, DeviceKind::Walk] {
            unknown(profile, kind, "1 2 3 4 5 01 02 03 04 05");
        }
    }
    for kind in [DeviceKind::Escalator, DeviceKind::Walk] {
        check("gb24476", kind, "0 no_fault, 40 auto_mode, 41 power_off, 43 inspection_mode");
    }
}

#[test]
fn every_profile_understands_slugs_and_keeps_what_it_does_not_know() {
    for profile in super::Profiles::shipped().names() {
        for fault in FAULTS {
            assert_eq!(view(profile, DeviceKind::Lift).meaning(fault.slug).first, fault, "{profile}");
        }
        // The open JSON refuses an object in a list of codes.
        if view(profile, DeviceKind::Lift).profile.is_open_json() {
            continue;
        }
        let kind = view(profile, DeviceKind::Lift).profile.kinds()[0];
        let reading = read(profile, kind, r#""codes":["entrapment","X-77",{"odd":1}]"#);
        let codes = reading.codes.known().unwrap();
        let raw: Vec<&str> = codes.iter().map(|code| &*code.raw).collect();
        assert_eq!(raw, ["entrapment", "X-77", r#"{"odd":1}"#], "{profile}");
    }
}
