//! One check for each cell of the handbook's table of traps (DOMAIN.md 3.3), each with the name of its cell, and
//! one for each row of its tables of codes (DOMAIN.md 4, 4.1).

mod codes;
mod mistakes;
mod refused;

use domain::{
    BootId, Counter, DeviceKind, EventBatch, Field, Message, Reading, Seq, TelemetryBatch, Timestamp,
};
use proptest::prelude::*;

use super::{ProfileView, Profiles, try_read};
use crate::decode::{Decoded, decode};
use crate::topic::Channel;

fn view(profile: &str, kind: DeviceKind) -> ProfileView<'static> {
    let profile = Profiles::shipped().get(profile).unwrap_or_else(|| panic!("profile {profile}"));
    ProfileView { profile, kind }
}

fn batch(view: ProfileView<'_>, payload: &str) -> (TelemetryBatch, u32) {
    let decoded = decode("lift/v1/350102/t1/telemetry.json", payload.as_bytes(), view);
    let Decoded { message: Message::Telemetry(batch), unmapped, .. } =
        decoded.unwrap_or_else(|error| panic!("{payload}: {error:?}"))
    else {
        panic!("telemetry expected")
    };
    (batch, unmapped)
}

fn read(profile: &str, kind: DeviceKind, fields: &str) -> Reading {
    batch(view(profile, kind), &format!(r#"{{"time":1763769600000,{fields}}}"#)).0.readings.remove(0)
}

fn events(profile: &str, kind: DeviceKind, payload: &str) -> EventBatch {
    let decoded = decode("lift/v1/350102/t1/event.json", payload.as_bytes(), view(profile, kind));
    let Message::Event(batch) = decoded.unwrap().message else { panic!("events expected") };
    batch
}

/// A field of a reading as its debug text.
fn field(reading: &Reading, name: &str) -> String {
    match name {
        "service_mode" => format!("{:?}", reading.service_mode),
        "car_status" => format!("{:?}", reading.car_status),
        "direction" => format!("{:?}", reading.direction),
        "door_zone" => format!("{:?}", reading.door_zone),
        "door_state" => format!("{:?}", reading.door_state),
        "passengers" => format!("{:?}", reading.passengers),
        other => panic!("no field {other}"),
    }
}

/// Each cell: profile, what it sends, what it means.
fn cells(row: &str, name: &str, cells: &[(&str, &str, &str)]) {
    for (profile, sent, expected) in cells {
        let kind = Profiles::shipped().get(profile).unwrap().kinds()[0];
        let found = field(&read(profile, kind, sent), name);
        let expected = match *expected {
            "Unknown" => "Unknown".to_owned(),
            known => format!("Known({known})"),
        };
        assert_eq!(found, expected, "row '{row}', column {profile}: {sent}");
    }
}

#[test]
fn booleans() {
    cells(
        "booleans",
        "passengers",
        &[
            ("gb24476", r#""passengers":true"#, "Yes"),
            ("gb24476", r#""passengers":false"#, "No"),
            ("exchange", r#""passengers":1"#, "Yes"),
            ("exchange", r#""passengers":2"#, "No"),
            ("exchange", r#""Passenger_Status":"2""#, "No"),
            ("exchange", r#""passengers":0"#, "Unknown"),
            ("retrofit", r#""passengers":0"#, "No"),
            ("retrofit", r#""passengers":1"#, "Yes"),
            ("retrofit", r#""passengers":2"#, "Unknown"),
            ("terminal_json", r#""passengers":0"#, "No"),
            ("terminal_json", r#""passengers":1"#, "Yes"),
            ("gprs_tlv", r#""passengers":0"#, "No"),
            ("gprs_tlv", r#""passengers":1"#, "Yes"),
            ("bacnet_lift", r#""passengers":true"#, "Yes"),
            ("bacnet_lift", r#""passengers":false"#, "No"),
        ],
    );
}

#[test]
fn service_mode() {
    cells(
        "service mode",
        "service_mode",
        &[
            ("gb24476", r#""service_mode":0"#, "OutOfService"),
            ("gb24476", r#""service_mode":1"#, "Normal"),
            ("gb24476", r#""service_mode":2"#, "Inspection"),
            ("exchange", r#""service_mode":0"#, "OutOfService"),
            ("exchange", r#""service_mode":1"#, "Normal"),
            ("exchange", r#""service_mode":2"#, "Inspection"),
            ("retrofit", r#""service_mode":0"#, "Normal"),
            ("retrofit", r#""service_mode":1"#, "Inspection"),
            ("retrofit", r#""service_mode":2"#, "OutOfService"),
            ("retrofit", r#""service_mode":3"#, "Unknown"),
            ("retrofit_a", r#""service_mode":0"#, "Normal"),
            ("retrofit_b", r#""service_mode":2"#, "OutOfService"),
            ("gprs_tlv", r#""service_mode":0"#, "Inspection"),
            ("gprs_tlv", r#""service_mode":1"#, "Normal"),
            ("gprs_tlv", r#""service_mode":2"#, "Unknown"),
        ],
    );
    let modes = [
        (0, "Unknown)"),
        (1, "Normal)"),
        (2, "Normal)"),
        (3, "Normal)"),
        (4, "Normal)"),
        (5, "Normal)"),
        (6, "Firefighter)"),
        (7, "EmergencyPower)"),
        (8, "Inspection)"),
        (9, "Inspection)"),
        (10, "Earthquake)"),
        (11, "FireRecall)"),
        (12, "OutOfService)"),
        (13, "Unknown)"),
    ];
    for (number, mode) in modes {
        let reading = read("bacnet_lift", DeviceKind::Lift, &format!(r#""Car_Mode":{number}"#));
        let found = field(&reading, "service_mode");
        assert_eq!(found, format!("Known({mode}"), "row 'service mode', column BACnet: {number}");
    }
    let reading = read("bacnet_lift", DeviceKind::Lift, r#""Car_Mode":1024"#);
    assert_eq!(reading.service_mode, Field::Unknown, "a vendor's own mode");
}

#[test]
fn door_zone() {
    cells(
        "in door zone",
        "door_zone",
        &[
            ("gb24476", r#""door_zone":true"#, "true"),
            ("gb24476", r#""door_zone":false"#, "false"),
            ("exchange", r#""door_zone":1"#, "true"),
            ("exchange", r#""Door_Zone":2"#, "false"),
            ("retrofit", r#""door_zone":0"#, "true"),
            ("retrofit", r#""door_zone":1"#, "false"),
            ("retrofit_b", r#""door_zone":0"#, "true"),
            ("terminal_json", r#""door_zone":1"#, "true"),
            ("terminal_json", r#""door_zone":0"#, "false"),
            ("bacnet_lift", r#""Car_Door_Zone":true"#, "true"),
            ("bacnet_lift", r#""Car_Door_Zone":false"#, "false"),
            ("bacnet_lift", r#""Car_Door_Zone":[false,true]"#, "true"),
            ("bacnet_lift", r#""Car_Door_Zone":[false,null]"#, "Unknown"),
        ],
    );
}

#[test]
fn door() {
    cells(
        "door",
        "door_state",
        &[
            ("gb24476", r#""door_closed":true"#, "Closed"),
            ("gb24476", r#""door_closed":false"#, "NotClosed"),
            ("exchange", r#""door_closed":1"#, "Closed"),
            ("exchange", r#""Door_Status":2"#, "NotClosed"),
            ("retrofit", r#""door_closed":1"#, "Closed"),
            ("retrofit", r#""door_closed":0"#, "NotClosed"),
            ("terminal_json", r#""door_state":0"#, "Closed"),
            ("terminal_json", r#""Door_Status":1"#, "Open"),
            ("terminal_json", r#""door":2"#, "Closing"),
            ("terminal_json", r#""door_state":3"#, "Opening"),
            ("terminal_json", r#""door_closed":0"#, "Closed"),
            ("gprs_tlv", r#""door_closed":0"#, "NotClosed"),
            ("gprs_tlv", r#""door_closed":1"#, "Closed"),
            ("bacnet_lift", r#""Car_Door_Status":0"#, "Closed"),
            ("bacnet_lift", r#""Car_Door_Status":[1]"#, "Open"),
            ("bacnet_lift", r#""Car_Door_Status":6"#, "Closing"),
            ("bacnet_lift", r#""Car_Door_Status":7"#, "Opening"),
            ("bacnet_lift", r#""Car_Door_Status":8"#, "Locked"),
            ("bacnet_lift", r#""Car_Door_Status":9"#, "Held"),
        ],
    );
    for number in [2, 3, 4, 5, 10] {
        let reading = read("bacnet_lift", DeviceKind::Lift, &format!(r#""Car_Door_Status":{number}"#));
        let door = reading.door_state.known().unwrap_or(domain::DoorState::Unknown);
        assert_eq!(door, domain::DoorState::Unknown, "row 'door', column BACnet: {number}");
    }
}

#[test]
fn doors_are_arrays_and_the_one_furthest_open_counts() {
    for (doors, expected) in [
        ("[0,0]", "Known(Closed)"),
        ("[8,8]", "Known(Locked)"),
        ("[8,0]", "Known(Closed)"),
        ("[0,1]", "Known(Open)"),
        ("[6,7]", "Known(Opening)"),
        ("[0,6]", "Known(Closing)"),
        ("[0,9]", "Known(Held)"),
        ("[0,5]", "Known(Closed)"),
        ("[4,0]", "Known(Closed)"),
        ("[4,5]", "Unknown"),
        ("[]", "Unknown"),
        ("[0,2]", "Known(Unknown)"),
        ("[0,77]", "Unknown"),
        ("[1,77]", "Known(Open)"),
        ("[0,null]", "Unknown"),
    ] {
        let reading = read("bacnet_lift", DeviceKind::Lift, &format!(r#""Car_Door_Status":{doors}"#));
        assert_eq!(field(&reading, "door_state"), expected, "{doors}");
    }
}

#[test]
fn direction() {
    for profile in ["gb24476", "exchange", "retrofit", "terminal_json"] {
        for (number, expected) in [(0, "None"), (1, "Up"), (2, "Down")] {
            let sent = format!(r#""car_direction":{number}"#);
            cells("direction", "direction", &[(profile, sent.as_str(), expected)]);
        }
    }
    cells(
        "direction",
        "direction",
        &[
            ("gprs_tlv", r#""car_direction":0"#, "Up"),
            ("gprs_tlv", r#""car_direction":1"#, "Down"),
            ("gprs_tlv", r#""car_direction":2"#, "None"),
            ("gprs_tlv", r#""car_direction":255"#, "None"),
            ("edge_camera", r#""car_direction":3"#, "None"),
            ("edge_camera", r#""car_direction":2"#, "Down"),
            ("bacnet_lift", r#""Car_Moving_Direction":0"#, "None"),
            ("bacnet_lift", r#""Car_Moving_Direction":1"#, "None"),
            ("bacnet_lift", r#""Car_Moving_Direction":2"#, "None"),
            ("bacnet_lift", r#""Car_Moving_Direction":3"#, "Up"),
            ("bacnet_lift", r#""Car_Moving_Direction":4"#, "Down"),
            ("bacnet_lift", r#""Car_Moving_Direction":5"#, "None"),
        ],
    );
}

#[test]
fn running() {
    for profile in ["gb24476", "exchange", "retrofit", "terminal_json", "gprs_tlv"] {
        for (number, expected) in [(1, "Running"), (0, "Stopped")] {
            let sent = format!(r#""car_status":{number}"#);
            cells("running", "car_status", &[(profile, sent.as_str(), expected)]);
        }
    }
    cells("running", "car_status", &[("exchange", r#""Car_Status":2"#, "Stopped")]);
    for number in 2..=9 {
        let sent = format!(r#""Car_Drive_Status":{number}"#);
        cells("running", "car_status", &[("bacnet_lift", sent.as_str(), "Running")]);
    }
    cells(
        "running",
        "car_status",
        &[
            ("bacnet_lift", r#""Car_Drive_Status":1"#, "Stopped"),
            ("bacnet_lift", r#""Car_Drive_Status":0"#, "Unknown"),
        ],
    );
}

#[test]
fn escalators_have_enumerations_of_their_own() {
    for profile in ["gb24476", "chongqing", "exchange", "shanghai_city"] {
        for (number, expected) in [(0, "OutOfService"), (1, "Normal"), (2, "Inspection"), (3, "Unknown")] {
            for kind in [DeviceKind::Escalator, DeviceKind::Walk] {
                let reading = read(profile, kind, &format!(r#""service_mode":{number}"#));
                assert_eq!(
                    field(&reading, "service_mode"),
                    format!("Known({expected})"),
                    "{profile} {number}"
                );
            }
        }
        let lift = read(profile, DeviceKind::Lift, r#""service_mode":3"#);
        assert_eq!(field(&lift, "service_mode"), "Known(FireRecall)", "{profile}");
    }
    // What is not known of these escalators is not taken from the lift's table.
    let reading = read("retrofit", DeviceKind::Escalator, r#""service_mode":0"#);
    assert_eq!(reading.service_mode, Field::Unknown);
    let names = r#""operation_status":1,"operation_direction":2"#;
    for profile in ["gb24476", "exchange"] {
        let reading = read(profile, DeviceKind::Escalator, names);
        assert_eq!(field(&reading, "car_status"), "Known(Running)", "{profile}");
        assert_eq!(field(&reading, "direction"), "Known(Down)", "{profile}");
    }
    let reading = read("bacnet_escalator", DeviceKind::Walk, r#""Operation_Direction":4,"Escalator_Mode":4"#);
    assert_eq!(field(&reading, "car_status"), "Known(Running)");
    assert_eq!(field(&reading, "direction"), "Known(Down)");
    assert_eq!(field(&reading, "service_mode"), "Known(Inspection)");
    // A profile that does not speak for this kind of device says nothing of it.
    let reading = read("bacnet_lift", DeviceKind::Escalator, r#""Car_Mode":1,"Fault_Signals":[3]"#);
    assert_eq!(reading.service_mode, Field::Unknown);
    assert_eq!(reading.codes.known().unwrap()[0].fault.slug, "unknown_code");
}

#[test]
fn units_become_ours() {
    let lift = DeviceKind::Lift;
    let reading = read("terminal_json", lift, r#""speed":17"#);
    assert_eq!(reading.velocity_mm_s, Field::Known(1_700), "steps of 0.1 m/s");
    let reading = read("terminal_json", lift, r#""velocity_mm_s":1700"#);
    assert_eq!(reading.velocity_mm_s, Field::Known(1_700), "the canonical name says its unit");
    let reading = read("retrofit", lift, r#""speed_mps":"-1.75","car_temp_c":21.37"#);
    assert_eq!((reading.velocity_mm_s, reading.temperature_dc), (Field::Known(-1_750), Field::Known(214)));
    let (batch, unmapped) = batch(view("retrofit", lift), r#"{"time":1,"load_kg":65535,"speed_mps":1}"#);
    let reading = &batch.readings[0];
    assert_eq!((reading.load_kg, unmapped), (Field::Unknown, 1), "one broken sensor does not cost the rest");
    assert_eq!(reading.velocity_mm_s, Field::Known(1_000));
}

#[test]
fn clocks_are_of_the_zone_of_the_profile() {
    let time = |profile: &str, time: &str| {
        let (batch, _) = batch(view(profile, DeviceKind::Lift), &format!(r#"{{"Time_Stamps":{time}}}"#));
        batch.readings[0].time.to_string()
    };
    assert_eq!(time("exchange", r#""2026-11-22 08:00:00""#), "2026-11-22T00:00:00Z");
    assert_eq!(time("gprs_tlv", r#""20261122080000""#), "2026-11-22T00:00:00Z");
    assert_eq!(time("retrofit", "1763769600123"), "2025-11-22T00:00:00.123Z");
    let text = "name=\"x\"\ntitle=\"x\"\n[clock]\nzone=\"-03:30\"\nnumber=\"s\"\n";
    let own = Profiles::shipped().read(text).unwrap();
    let view = ProfileView { profile: &own, kind: DeviceKind::Lift };
    assert_eq!(batch(view, r#"{"time":1763769600}"#).0.readings[0].time.to_string(), "2025-11-22T00:00:00Z");
    let local = r#"{"time":"2026-11-22 08:00:00"}"#;
    assert_eq!(batch(view, local).0.readings[0].time.to_string(), "2026-11-22T11:30:00Z");
}

#[test]
fn payloads_have_several_shapes() {
    let lift = view("exchange", DeviceKind::Lift);
    let (batch, _) = batch(
        lift,
        r#"{"boot":"7","sent":1763769601000,"dropped":{"from":1,"to":4},
            "readings":[{"seq":5,"time":1763769600000,"Door_Zone":1},{"seq":"6","time":1763769601000}]}"#,
    );
    assert_eq!((batch.boot.0, batch.dropped, batch.readings.len()), (7, Some((1, 4)), 2));
    assert_eq!((batch.readings[1].seq.0, batch.readings[0].door_zone), (6, Field::Known(true)));
    let (batch, _) = self::batch(lift, r#"[{"time":1},{"time":2}]"#);
    assert!(batch.readings.len() == 2 && batch.readings[0].seq.0 < 0, "numbers are derived");

    let text = "name=\"x\"\ntitle=\"x\"\n[fields.readings]\nnames=[\"data\"]\n[fields.door_zone]\n\
                names=[\"state.door.zone\"]\nvalues={ level = true, away = false }\n";
    let own = Profiles::shipped().read(text).unwrap();
    let own = ProfileView { profile: &own, kind: DeviceKind::Lift };
    let payload = r#"{"data":{"time":1,"state":{"door":{"zone":"level"},"other":1}}}"#;
    assert_eq!(self::batch(own, payload).0.readings[0].door_zone, Field::Known(true));
}

#[test]
fn readings_in_a_list_say_their_boot_themselves() {
    let lift = view("exchange", DeviceKind::Lift);
    let (batch, _) = batch(
        lift,
        r#"[{"boot":7,"seq":5,"time":1763769600000,"sent":1763769602000,"prev_boot_last_seq":90,
             "dropped":{"from":1,"to":4}},
            {"boot":7,"seq":6,"time":1763769601000,"sent":1763769603000}]"#,
    );
    assert_eq!((batch.boot.0, batch.prev_boot_last_seq, batch.dropped), (7, Some(90), Some((1, 4))));
    assert_eq!(batch.sent.map(Timestamp::millis), Some(1_763_769_603_000), "the last that was sent");
    let within = r#"{"readings":[{"boot":7,"time":1},{"time":2}]}"#;
    assert_eq!(self::batch(lift, within).0.boot.0, 7);
    let list = r#"[{"boot":8,"seq":1,"time":1763769600000,"code":"04","state":"open"}]"#;
    assert_eq!(events("exchange", DeviceKind::Lift, list).boot.0, 8);
    for mixed in
        [r#"[{"boot":7,"time":1},{"boot":8,"time":2}]"#, r#"{"boot":7,"readings":[{"boot":8,"time":2}]}"#]
    {
        let error = decode("lift/v1/350102/t1/telemetry.json", mixed.as_bytes(), lift).unwrap_err();
        assert_eq!(
            error.detail,
            "readings of boot 7 and of boot 8 in one payload: each boot is sent on its own"
        );
    }
}

#[test]
fn boots_that_are_moments_stay_apart() {
    let lift = view("exchange", DeviceKind::Lift);
    let boot = |boot: i64| batch(lift, &format!(r#"{{"boot":{boot},"time":1}}"#)).0.boot.0;
    assert_eq!(boot(i64::from(u32::MAX)), u32::MAX);
    let (one, other) = (boot(1_763_769_600_000), boot(1_763_769_600_001));
    assert!(one != 0 && other == one.wrapping_add(1), "{one} {other}");
    let (strange, unmapped) = batch(lift, r#"{"boot":"a5","time":1}"#);
    assert_eq!((strange.boot.0, unmapped), (0, 1), "counted");
}

#[test]
fn a_code_that_is_a_whole_float_is_the_code_of_its_number() {
    let raw = |profile: &str, codes: &str| {
        let reading = read(profile, DeviceKind::Lift, &format!(r#""codes":{codes}"#));
        reading.codes.known().unwrap_or_default().iter().map(|code| code.raw.to_string()).collect::<Vec<_>>()
    };
    let is_asked = |name: &&str| Profiles::shipped().get(name).unwrap().kinds().contains(&DeviceKind::Lift);
    for profile in Profiles::shipped().names().filter(is_asked) {
        assert_eq!(raw(profile, "[10.0,4.0]"), raw(profile, "[10,4]"), "{profile}");
    }
    assert_eq!(raw("exchange", "[1.5]"), ["1.5"]);
}

#[test]
fn a_number_beyond_all_floats_costs_its_own_field_alone() {
    let endless = r#"{"time":1,"floor":"1e400 \" 1e400","load_kg":1e400,"speed":-2E+999,"codes":[3,1e400]}"#;
    let (batch, unmapped) = batch(view("terminal_json", DeviceKind::Lift), endless);
    let reading = &batch.readings[0];
    assert_eq!((reading.load_kg, reading.velocity_mm_s, unmapped), (Field::Unknown, Field::Unknown, 2));
    assert_eq!(reading.floor.known().unwrap().as_str(), "1e400 \" 1e400", "a text is left as it is");
    let codes: Vec<_> = reading.codes.as_ref().known().unwrap().iter().map(|code| &*code.raw).collect();
    assert_eq!(codes, ["3", "1e400"]);
}

#[test]
fn a_code_that_is_null_is_none() {
    let batch = events("exchange", DeviceKind::Lift, r#"{"active":["04"],"code":null}"#);
    assert_eq!((batch.events.len(), batch.active.map(|list| list.len())), (0, Some(1)));
}

#[test]
fn a_time_around_a_list_is_that_of_its_events() {
    let list = r#"{"time":1763769600000,"events":[{"code":"04","state":"open"},
        {"time":1763769601000,"code":"05","state":"open"}]}"#;
    let times = events("exchange", DeviceKind::Lift, list)
        .events
        .iter()
        .map(|it| it.time.millis())
        .collect::<Vec<_>>();
    assert_eq!(times, [1_763_769_600_000, 1_763_769_601_000]);
}

/// A reading of a profile with these lines after its head.
fn read_own(lines: &str, fields: &str) -> Reading {
    let text = format!("name=\"x\"\ntitle=\"x\"\n{lines}");
    let own = Profiles::shipped().read(&text).unwrap_or_else(|mistakes| panic!("{lines}: {mistakes:?}"));
    let view = ProfileView { profile: &own, kind: DeviceKind::Lift };
    batch(view, &format!(r#"{{"time":1,{fields}}}"#)).0.readings.remove(0)
}

#[test]
fn what_extends_the_standard_has_its_names_and_contacts() {
    for base in ["gb24476", "chongqing"] {
        let lines = format!("extends = \"{base}\"\n[fields.floor]\nnames = [\"at\"]");
        let reading = read_own(&lines, r#""at":"3","Door_Zone":true,"battery_power":true"#);
        assert_eq!(reading.floor.known().unwrap().as_str(), "3");
        assert_eq!(reading.door_zone, Field::Known(true), "{base}");
        assert_eq!((reading.flags, reading.flags_told), (Field::Known(2), 2), "{base}");
    }
}

#[test]
fn open_json_has_the_codes_of_its_base_and_no_field_of_it() {
    let text = "name=\"x\"\ntitle=\"x\"\nextends = \"retrofit\"\nopen_json = true";
    let own = Profiles::shipped().read(text).unwrap();
    let view = ProfileView { profile: &own, kind: DeviceKind::Escalator };
    let sent = r#"{"time":1,"door_zone":true,"service_mode":2,"speed_mps":1,"codes":[5]}"#;
    let tried = try_read(Channel::Telemetry, sent.as_bytes(), view);
    let Ok(Message::Telemetry(batch)) = tried.message else { panic!("{tried:?}") };
    assert_eq!(batch.readings[0].door_zone, Field::Known(true));
    let told: Vec<_> = tried.trace.fields.iter().map(|line| (line.field, &*line.value)).collect();
    assert!(
        told.contains(&("door_zone", "true")) && told.contains(&("service_mode", "inspection")),
        "{told:?}"
    );
    assert_eq!(tried.trace.ignored, ["speed_mps"]);
    assert_eq!(own.codes_len(DeviceKind::Lift), 15, "those of retrofit");
}

#[test]
fn values_for_all_leave_a_field_with_values_of_its_own() {
    let reading = read_own(
        "extends = \"retrofit\"\nbooleans = { 0 = false, 1 = true, 2 = false }",
        r#""door_zone":0,"passengers":2"#,
    );
    assert_eq!(reading.door_zone, Field::Known(true), "0 is level there");
    assert_eq!(reading.passengers, Field::Known(domain::Passengers::No));
}

#[test]
fn a_unit_is_that_of_the_names_beside_it() {
    let lines = "extends = \"retrofit\"\n[fields.velocity_mm_s]\nnames = [\"v\"]\nunit = \"cm/s\"";
    assert_eq!(read_own(lines, r#""v":17"#).velocity_mm_s, Field::Known(170));
    assert_eq!(read_own(lines, r#""speed_mps":17"#).velocity_mm_s, Field::Absent, "not seventeen cm/s");
    let same = "extends = \"retrofit\"\n[fields.velocity_mm_s]\nnames = [\"v\"]";
    assert_eq!(read_own(same, r#""speed_mps":1.7"#).velocity_mm_s, Field::Known(1_700));
}

#[test]
fn statistics_have_the_clock_of_the_profile_and_the_names_of_the_standard() {
    let clock = "name=\"x\"\ntitle=\"x\"\n[clock]\nzone = \"+09:00\"";
    let profile = Profiles::shipped().read(clock).unwrap();
    let view = ProfileView { profile: &profile, kind: DeviceKind::Lift };
    let counted = |fields: &str| {
        let topic = "lift/v1/350102/t1/stats.json";
        match decode(topic, format!("{{{fields}}}").as_bytes(), view) {
            Ok(Decoded { message: Message::Statistics(counted), .. }) => Ok(counted),
            other => Err(format!("{other:?}")),
        }
    };
    let names = r#""Time_Stamps":"2026-11-22 09:00:00","seq":4,"boot":3,"Total_Running_Time":1.5,"Present_Counter_Value":7"#;
    let found = counted(names).unwrap();
    assert_eq!(found.time.to_string(), "2026-11-22T00:00:00Z", "nine o'clock in that zone");
    assert_eq!((found.seq, found.boot), (Seq(4), BootId(3)));
    let value = |counter| found.counters.get(counter);
    assert_eq!((value(Counter::RunningS), value(Counter::RunCount)), (Some(5_400), Some(7)));
    assert!(counted(r#""Present_Counter_Value":7"#).unwrap_err().contains("no time"));
    assert!(counted(r#""Time_Stamps":"2026-11-22 09:00:00""#).is_err(), "nothing is counted");
}

#[test]
fn a_contact_that_comes_alone_says_nothing_of_the_others() {
    let told = |fields| {
        let reading = read("bacnet_lift", DeviceKind::Lift, fields);
        (reading.flags, reading.flags_told)
    };
    assert_eq!(told(r#""Passenger_Alarm":true"#), (Field::Known(16), 16));
    assert_eq!(told(r#""battery_power":false"#), (Field::Known(0), 2));
    assert_eq!(
        told(r#""Passenger_Alarm":null,"battery_power":true"#),
        (Field::Known(2), 2),
        "null is not told"
    );
    assert_eq!(told(r#""Passenger_Alarm":null"#), (Field::Unknown, Reading::FLAGS_ALL));
    assert_eq!(told(r#""flags":5,"Passenger_Alarm":true"#), (Field::Known(21), Reading::FLAGS_ALL));
    assert_eq!(told(r#""floor":"1""#), (Field::Absent, Reading::FLAGS_ALL));
    // Without numbers of their own they are two readings, although both say 0.
    let batch = |fields| {
        batch(view("bacnet_lift", DeviceKind::Lift), &format!(r#"{{"time":1763769600000,{fields}}}"#))
    };
    let seq = |fields| batch(fields).0.readings[0].seq;
    assert_ne!(seq(r#""battery_power":false"#), seq(r#""door_lock_open":false"#));
    assert_eq!(seq(r#""battery_power":false"#), seq(r#""battery_power":false"#));
}

proptest! {
    /// Fields of the open JSON mean the same whether they are read fast or with a profile that says nothing.
    #[test]
    fn a_blank_profile_reads_the_open_json(
        mode in 0_i64..8, door in 0_i64..8, zone in any::<bool>(), velocity in -30_000_i64..=30_000,
        temp in -2_000_i64..=2_000, load in 0_i64..=30_000, floor in "[0-9A-Z-]{1,4}", null in any::<bool>(),
    ) {
        let blank = Profiles::shipped().read("name=\"x\"\ntitle=\"x\"").unwrap();
        let blank = ProfileView { profile: &blank, kind: DeviceKind::Lift };
        let zone = if null { serde_json::Value::Null } else { zone.into() };
        let payload = serde_json::json!({ "boot": 3, "readings": [{
            "seq": 9, "time": 1_763_769_600_000_i64, "service_mode": mode, "door_state": door, "door_zone": zone,
            "velocity_mm_s": velocity, "car_temp_c": temp as f64 / 10.0, "load_kg": load, "floor": floor,
            "codes": ["entrapment"], "flags": 5,
        }]}).to_string();
        prop_assert_eq!(batch(blank, &payload), batch(ProfileView::canonical(), &payload));
    }

    #[test]
    fn hostile_bytes_never_panic(
        profile in prop::sample::select(Profiles::shipped().names().collect::<Vec<_>>()),
        kind in prop::sample::select(DeviceKind::ALL.to_vec()),
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        at in 0_usize..400,
    ) {
        const SEED: &str = r#"{"time":"2026-11-22 08:00:00","Car_Door_Status":[0,1],"codes":"04,0a","flag":"F9999",
            "Fault_Signals":[3,1024],"Passenger_Alarm":true,"code":4,"state":"open","speed":17,"floor":"B1"}"#;
        let mut bent = SEED.as_bytes().to_vec();
        let at = at % bent.len();
        bent[at] = bytes.first().copied().unwrap_or(b'"');
        for channel in ["telemetry", "event"] {
            let topic = format!("lift/v1/350102/t1/{channel}.json");
            let _ = decode(&topic, &bytes, view(profile, kind));
            let _ = decode(&topic, &bent, view(profile, kind));
        }
    }
}
