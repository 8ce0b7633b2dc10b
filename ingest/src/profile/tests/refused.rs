//! What of a vendor's payload is refused, and what is taken all the same.

use super::*;

#[test]
fn neighbours_of_what_is_refused_are_taken() {
    let read = |channel: &str, payload: &str| {
        let topic = format!("lift/v1/350102/t1/{channel}.json");
        decode(&topic, payload.as_bytes(), view("exchange", DeviceKind::Lift))
    };
    let told = |decoded: &Decoded| {
        decoded.refused.iter().map(|one| (one.place, one.seq.map(|seq| seq.0))).collect::<Vec<_>>()
    };
    let list = r#"[{"seq":1,"time":1},{"seq":2,"time":"noon"},7,{"seq":4,"time":1,"codes":["a\u0000b"]}]"#;
    let decoded = read("telemetry", list).unwrap();
    assert_eq!(told(&decoded), [(1, Some(2)), (2, None), (3, Some(4))]);
    assert_eq!(store::message_numbers(&decoded.message).as_slice(), [(1, 1)]);
    assert!(read("telemetry", r#"[{"time":"noon"},7]"#).unwrap_err().detail.contains("noon"), "the first");

    let list = r#"{"code":"01","state":"open","seq":3,"events":[{"code":"04","state":"open","time":1,"seq":5},
        {"code":["04","a\u0000b"],"state":"open","time":1,"seq":6}]}"#;
    let decoded = read("event", list).unwrap();
    assert_eq!(told(&decoded), [(0, Some(3)), (2, Some(6))], "the first has no time of its own");
    assert_eq!(store::message_numbers(&decoded.message).as_slice(), [(5, 5)], "of the last there is no half");
    let one = r#"{"code":"04","state":"open","time":1}"#;
    let many = |count| format!("[{}]", vec![one; count].join(","));
    assert!(read("event", &many(256)).is_ok());
    assert!(read("event", &many(257)).unwrap_err().detail.contains("257 given"));
}

#[test]
fn what_has_no_form_is_refused_with_the_reason() {
    let refused = |channel: &str, payload: &str| {
        let topic = format!("lift/v1/350102/t1/{channel}.json");
        decode(&topic, payload.as_bytes(), view("exchange", DeviceKind::Lift)).unwrap_err().detail
    };
    assert!(refused("telemetry", "{").contains("line 1"));
    assert!(refused("telemetry", "7").contains("an object"));
    assert_eq!(
        refused("telemetry", r#"{"time":"noon"}"#),
        "no time: profile exchange reads it from Time_Stamps, time, and '\"noon\"' is none it understands"
    );
    assert!(refused("telemetry", r#"{"readings":[]}"#).contains("0 given"));
    assert!(refused("event", r#"{"time":1,"code":"01"}"#).contains("state"));
    assert!(refused("event", r#"{"time":1}"#).contains("state"));
    assert!(refused("telemetry", r#"{"time":1,"codes":["a\u0000b"]}"#).contains("control"));
}
