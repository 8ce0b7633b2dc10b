//! Histories of clients of both versions, as their bytes.

use broker::fuzzing::HEAD;
use bytes::{Bytes, BytesMut};
use rumqttc::mqttbytes::{self as bytes4, v4};
use rumqttc::v5::mqttbytes::{self as bytes5, v5};

use super::Seed;

const OWN: &str = "lift/v1/310115/T1/telemetry";
const DOWN: &str = "lift/v1/310115/T1/down";

/// What a client does, in either version.
#[derive(Debug, Clone, Copy)]
enum Step {
    Publish(&'static str, u8, u16),
    Large(usize),
    Release(u16),
    Ack(u16),
    Subscribe(u16, &'static [&'static str]),
    Unsubscribe(u16, &'static str),
    Ping,
    Bye,
}

use Step::{Ack, Bye, Large, Ping, Publish, Release, Subscribe, Unsubscribe};

const HISTORIES: [(&str, &[Step]); 18] = [
    ("qos0", &[Publish(OWN, 0, 0), Publish(OWN, 0, 0), Ping]),
    ("qos1", &[Publish(OWN, 1, 1), Publish(OWN, 1, 2), Publish(OWN, 1, 3), Bye]),
    (
        "qos1_window",
        &[
            Publish(OWN, 1, 1),
            Publish(OWN, 1, 2),
            Publish(OWN, 1, 3),
            Publish(OWN, 1, 4),
            Publish(OWN, 1, 5),
            Publish(OWN, 1, 6),
            Ping,
            Publish(OWN, 1, 7),
        ],
    ),
    ("qos1_again", &[Publish(OWN, 1, 1), Publish(OWN, 1, 1), Publish(OWN, 1, 1)]),
    ("qos2", &[Publish(OWN, 2, 1), Release(1), Publish(OWN, 2, 2), Release(2), Bye]),
    (
        "qos2_again",
        &[Publish(OWN, 2, 1), Publish(OWN, 2, 1), Ping, Publish(OWN, 2, 1), Release(1), Release(1)],
    ),
    (
        "qos2_unreleased",
        &[
            Publish(OWN, 2, 1),
            Publish(OWN, 2, 2),
            Publish(OWN, 2, 3),
            Publish(OWN, 2, 4),
            Ping,
            Publish(OWN, 2, 5),
            Release(3),
            Publish(OWN, 2, 6),
        ],
    ),
    (
        "qos_mixed",
        &[Publish(OWN, 2, 1), Publish(OWN, 1, 2), Publish(OWN, 0, 0), Publish(OWN, 1, 3), Release(1)],
    ),
    ("down", &[Subscribe(1, &[DOWN]), Ping, Ack(1), Ping, Ack(2), Publish(OWN, 1, 9), Ack(3)]),
    ("down_unread", &[Subscribe(1, &[DOWN]), Ping, Ping, Ping, Ping, Ping, Ping, Ping, Ack(2), Ping, Ping]),
    ("wide", &[Subscribe(1, &["#", "lift/#", "lift/v1/+/T1/#", "$share/g/x", "a#"]), Ping, Ack(1)]),
    (
        "own_filters",
        &[Subscribe(1, &["lift/v1/1/T1/a", "lift/v1/+/T1/b"]), Subscribe(2, &["lift/v1/1/T1/c"])],
    ),
    (
        "quota",
        &[Subscribe(1, &["lift/v1/1/T1/a", "lift/v1/1/T1/b", "lift/v1/1/T1/c", "lift/v1/1/T1/d"]), Ping],
    ),
    (
        "leave",
        &[Subscribe(1, &[DOWN]), Ping, Unsubscribe(2, DOWN), Unsubscribe(3, "x"), Subscribe(4, &[DOWN])],
    ),
    ("foreign", &[Publish(OWN, 1, 1), Publish("lift/v1/310115/T2/telemetry", 1, 2), Ping]),
    ("not_ascii", &[Publish("lift/v1/310115/T1/电梯", 1, 1), Publish("电梯", 1, 2)]),
    ("wildcard", &[Publish("lift/v1/+/T1/x", 1, 1), Ping]),
    ("large", &[Large(500), Large(513), Ping]),
];

/// When things happen: all at once and committed soon; with messages for the client and a break; in pieces with
/// failures.
const HEADS: [[u8; HEAD - 1]; 3] = [
    [0xFF, 1, 1, 0xFF, 1, 5, 3, 0xFF, 1, 7, 2, 0xFF, 1, 1, 13],
    [0xFF, 1, 0x44, 0, 2, 0x44, 2, 1, 0x47, 0, 7, 0x44, 3, 1, 0x4C],
    [7, 0x10, 4, 31, 1, 0, 0x44, 0xFB, 3, 0x20, 5, 0x0C, 9, 64, 6],
];

pub(super) fn all() -> Vec<Seed> {
    let mut seeds = Vec::new();
    let mut put = |name: &str, version: u8, stream: &[u8]| {
        for (number, decisions) in HEADS.iter().enumerate() {
            // Terminals and integrations by turns.
            let mut bytes = vec![u8::from(version == 5) | (number as u8 & 1) << 1];
            bytes.extend(decisions);
            bytes.extend(stream);
            seeds.push(Seed::new("packets", format!("v{version}_{name}_{number}"), bytes));
        }
    };
    for (name, steps) in HISTORIES {
        let (mut old, mut new) = (BytesMut::new(), BytesMut::new());
        for step in steps {
            write_v4(*step, &mut old);
            write_v5(*step, &mut new);
        }
        put(name, 4, &old);
        put(name, 5, &new);
    }
    for (name, bytes) in only_v5() {
        put(name, 5, &bytes);
    }
    // What only servers send, broken lengths, reserved types.
    let odd: [&[u8]; 6] = [
        b"\x20\x02\0\0",
        b"\x90\x03\0\x01\0",
        b"\xd0\0\xc0\0",
        b"\xc0\xff\xff\xff\xff\x01",
        b"\x00\0\xf0\0",
        b"\x31\x02\0\0\xc0\0",
    ];
    for (number, bytes) in odd.iter().enumerate() {
        put(&format!("odd{number}"), 4, bytes);
        put(&format!("odd{number}"), 5, bytes);
    }
    seeds.extend(connects().into_iter().map(|(name, bytes)| Seed::new("connect", name, bytes)));
    seeds
}

const WRITES: &str = "the codec writes what it is given";

fn write_v4(step: Step, out: &mut BytesMut) {
    let written = match step {
        Publish(topic, qos, pkid) => {
            let mut packet = v4::Publish::new(topic, bytes4::qos(qos).expect("a QoS"), *b"payload");
            packet.pkid = pkid;
            packet.write(out)
        }
        Large(len) => {
            let mut packet = v4::Publish::new(OWN, bytes4::QoS::AtLeastOnce, vec![7; len]);
            packet.pkid = 1;
            packet.write(out)
        }
        Release(pkid) => v4::PubRel::new(pkid).write(out),
        Ack(pkid) => v4::PubAck::new(pkid).write(out),
        Subscribe(pkid, filters) => {
            let filter = |text: &&str| v4::SubscribeFilter::new((*text).into(), bytes4::QoS::AtLeastOnce);
            let mut packet = v4::Subscribe::new_many(filters.iter().map(filter));
            packet.pkid = pkid;
            packet.write(out)
        }
        Unsubscribe(pkid, filter) => {
            let mut packet = v4::Unsubscribe::new(filter);
            packet.pkid = pkid;
            packet.write(out)
        }
        Ping => v4::PingReq.write(out),
        Bye => v4::Disconnect.write(out),
    };
    written.expect(WRITES);
}

fn write_v5(step: Step, out: &mut BytesMut) {
    let written = match step {
        Publish(topic, qos, pkid) => {
            let mut packet = v5::Publish::new(topic, bytes5::qos(qos).expect("a QoS"), &b"payload"[..], None);
            packet.pkid = pkid;
            packet.write(out)
        }
        Large(len) => {
            let mut packet = v5::Publish::new(OWN, bytes5::QoS::AtLeastOnce, vec![7; len], None);
            packet.pkid = 1;
            packet.write(out)
        }
        Release(pkid) => v5::PubRel::new(pkid, None).write(out),
        Ack(pkid) => v5::PubAck::new(pkid, None).write(out),
        Subscribe(pkid, filters) => {
            let filter = |text: &&str| v5::Filter::new(*text, bytes5::QoS::AtLeastOnce);
            let mut packet = v5::Subscribe::new_many(filters.iter().map(filter), None);
            packet.pkid = pkid;
            packet.write(out)
        }
        Unsubscribe(pkid, filter) => {
            let mut packet = v5::Unsubscribe::new(filter, None);
            packet.pkid = pkid;
            packet.write(out)
        }
        Ping => v5::PingReq::write(out),
        Bye => v5::Disconnect::new(v5::DisconnectReasonCode::NormalDisconnection).write(out),
    };
    written.expect(WRITES);
}

fn pair(name: &str) -> Vec<(String, String)> {
    vec![(name.into(), "value".into())]
}

/// What 3.1.1 has no words for.
fn only_v5() -> Vec<(&'static str, BytesMut)> {
    let properties = v5::PublishProperties {
        payload_format_indicator: Some(1),
        message_expiry_interval: Some(60),
        response_topic: Some(DOWN.into()),
        correlation_data: Some(Bytes::from_static(&[0, 0xFF])),
        user_properties: pair("vendor"),
        content_type: Some("application/json".into()),
        ..v5::PublishProperties::default()
    };
    let publish = |topic: &str, properties: v5::PublishProperties| {
        let mut packet =
            v5::Publish::new(topic, bytes5::QoS::AtLeastOnce, &b"{\"time\":1}"[..], Some(properties));
        packet.pkid = 1;
        packet
    };
    let alias = v5::PublishProperties { topic_alias: Some(1), ..v5::PublishProperties::default() };
    let mut filter = v5::Filter::new(DOWN, bytes5::QoS::ExactlyOnce);
    filter.nolocal = true;
    filter.preserve_retain = true;
    filter.retain_forward_rule = v5::RetainForwardRule::OnNewSubscribe;
    let mut subscribe = v5::Subscribe::new(filter, None);
    subscribe.pkid = 1;
    let mut identified = subscribe.clone();
    identified.properties = Some(v5::SubscribeProperties { id: Some(300), user_properties: pair("a") });
    let disconnect = v5::Disconnect::new(v5::DisconnectReasonCode::DisconnectWithWillMessage);
    let mut with_expiry = disconnect.clone();
    with_expiry.properties = Some(v5::DisconnectProperties {
        session_expiry_interval: Some(3_600),
        reason_string: Some("battery".into()),
        user_properties: pair("b"),
        server_reference: None,
    });
    let publishes = |parts: &[(&str, &v5::PublishProperties)]| {
        let mut out = BytesMut::new();
        for (topic, properties) in parts {
            publish(topic, (*properties).clone()).write(&mut out).expect(WRITES);
        }
        out
    };
    let subscribes = |packet: &v5::Subscribe| {
        let mut out = BytesMut::new();
        packet.write(&mut out).expect(WRITES);
        packet.write(&mut out).expect(WRITES);
        out
    };
    let disconnects = |packet: &v5::Disconnect| {
        let mut out = BytesMut::new();
        packet.write(&mut out).expect(WRITES);
        out
    };
    vec![
        ("properties", publishes(&[(OWN, &properties)])),
        ("alias", publishes(&[(OWN, &alias), ("", &alias)])),
        ("options", subscribes(&subscribe)),
        ("identified", subscribes(&identified)),
        ("will", disconnects(&disconnect)),
        ("farewell", disconnects(&with_expiry)),
    ]
}

fn connects() -> Vec<(&'static str, BytesMut)> {
    let written = |result: Result<usize, bytes4::Error>, out| {
        result.expect(WRITES);
        out
    };
    let old = |change: &dyn Fn(&mut v4::Connect)| {
        let mut connect = v4::Connect::new("T1");
        change(&mut connect);
        let mut out = BytesMut::new();
        written(connect.write(&mut out), out)
    };
    let new = |properties, will: Option<v5::LastWill>, login: Option<v5::Login>| {
        let connect = v5::Connect { keep_alive: 60, client_id: "T1".into(), clean_start: true, properties };
        let mut out = BytesMut::new();
        connect.write(&will, &login, &mut out).expect(WRITES);
        out
    };
    let will = |properties| v5::LastWill {
        topic: Bytes::from_static(b"lift/v1/310115/T1/presence"),
        message: Bytes::from_static(b"gone"),
        qos: bytes5::QoS::AtLeastOnce,
        retain: true,
        properties,
    };
    let will_properties = v5::LastWillProperties {
        delay_interval: Some(30),
        payload_format_indicator: Some(1),
        message_expiry_interval: Some(600),
        content_type: Some("text/plain".into()),
        response_topic: Some(DOWN.into()),
        correlation_data: Some(Bytes::from_static(b"c")),
        user_properties: pair("w"),
    };
    let properties = v5::ConnectProperties {
        session_expiry_interval: Some(3_600),
        receive_maximum: Some(10),
        max_packet_size: Some(65_536),
        topic_alias_max: Some(5),
        request_response_info: Some(1),
        request_problem_info: Some(0),
        user_properties: pair("vendor"),
        authentication_method: None,
        authentication_data: None,
    };
    let mut scram = v5::ConnectProperties::new();
    scram.authentication_method = Some("SCRAM-SHA-256".into());
    scram.authentication_data = Some(Bytes::from_static(b"n,,n=T1"));
    let raw = |bytes: &[u8]| BytesMut::from(bytes);
    vec![
        ("v4_plain", old(&|_| {})),
        ("v4_login", old(&|connect| drop(connect.set_login("T1", "secret").clone()))),
        ("v4_kept", old(&|connect| (connect.clean_session, connect.keep_alive) = (false, 30))),
        ("v4_nobody", old(&|connect| connect.client_id.clear())),
        ("v4_long", old(&|connect| connect.client_id = "T".repeat(200))),
        ("v4_odd_id", old(&|connect| connect.client_id = "T/+#$电".into())),
        (
            "v4_will",
            old(&|connect| {
                let topic = "lift/v1/310115/T1/presence";
                connect.last_will = Some(v4::LastWill::new(topic, "gone", bytes4::QoS::AtLeastOnce, true));
            }),
        ),
        ("v5_plain", new(None, None, None)),
        ("v5_login", new(None, None, Some(v5::Login::new("T1", "secret")))),
        ("v5_properties", new(Some(properties), None, None)),
        ("v5_will", new(None, Some(will(None)), None)),
        ("v5_will_properties", new(None, Some(will(Some(will_properties))), Some(v5::Login::new("T1", "s")))),
        ("v5_scram", new(Some(scram), None, None)),
        ("v3_1", raw(b"\x10\x0e\0\x06MQIsdp\x03\x02\0\x3c\0\x00")),
        ("level_6", raw(b"\x10\x0c\0\x04MQTT\x06\x02\0\x3c\0\x00")),
        ("http", raw(b"GET /mqtt HTTP/1.1\r\nHost: x\r\n\r\n")),
        ("tls", raw(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03")),
    ]
}
