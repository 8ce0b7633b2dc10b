use super::*;
use crate::auth::Protocol::{V5, V311};
use crate::packet::Message;
use proptest::prelude::*;

fn frames(bytes: &[u8]) -> Vec<Bytes> {
    let (mut end, _) = complete(bytes, 1 << 20).unwrap();
    let mut all = Bytes::copy_from_slice(&bytes[..end]);
    let mut frames = Vec::new();
    while end > 0 {
        let len = frame_len(&all, 1 << 20).unwrap().unwrap();
        frames.push(all.split_to(len));
        end -= len;
    }
    frames
}

#[test]
fn frames_are_found() {
    assert_eq!(frame_len(&[0xC0], 9), Ok(None));
    assert_eq!(frame_len(&[0xC0, 0], 9), Ok(Some(2)));
    assert_eq!(frame_len(&[0x30, 0x80, 0x01], 999), Ok(Some(131)));
    assert_eq!(frame_len(&[0x30, 0x80, 0x01], 99), Err(CodecError::TooLarge(131)));
    assert_eq!(frame_len(&[0x30, 0x80, 0x80, 0x80], 99), Ok(None));
    assert_eq!(frame_len(&[0x30, 0x80, 0x80, 0x80, 0x80], 99), Err(CodecError::Length));
    assert_eq!(complete(&[0xC0, 0, 0xC0, 0, 0x30, 9, 1], 99), Ok((4, Some(11))));
    assert_eq!(complete(&[0xC0, 0, 0x30, 99], 50), Ok((2, None)), "the good one is served first");
    assert_eq!(frames(&[0xC0, 0, 0xE0, 0]).len(), 2);
}

#[test]
fn both_versions_connect_through_one_door() {
    let mut bytes = BytesMut::new();
    let mut connect = v4::Connect::new("T1");
    connect.set_login("user", "secret");
    connect.write(&mut bytes).unwrap();
    let read = read_connect(bytes.split().freeze()).unwrap();
    assert_eq!((read.protocol, read.client_id.as_str(), read.clean), (V311, "T1", true));
    assert_eq!((read.username.as_deref(), read.password.as_deref()), (Some("user"), Some(&b"secret"[..])));

    let connect = v5::Connect { keep_alive: 7, client_id: "T2".into(), clean_start: true, properties: None };
    let will = v5::LastWill::new("lift/x", "gone", mqttbytes5::QoS::AtLeastOnce, true, None);
    connect.write(&Some(will), &None, &mut bytes).unwrap();
    let read = read_connect(bytes.split().freeze()).unwrap();
    assert_eq!((read.protocol, read.client_id.as_str(), read.keep_alive_s), (V5, "T2", 7));
    let will = read.will.unwrap();
    assert_eq!((&*will.topic, will.qos, will.retain), ("lift/x", QoS::AtLeastOnce, true));
}

#[test]
fn what_is_not_a_connect_is_said_so() {
    let cases: [(&[u8], CodecError); 4] = [
        (b"GET / HTTP/1.1\r\n\r\n", CodecError::NotConnect),
        (&[0xC0, 0], CodecError::NotConnect),
        (b"\x10\x0c\0\x04MQTT\x03\x02\0\x3c\0\0", CodecError::Level(3)),
        (b"\x10\x0e\0\x06MQIsdp\x03\x02\0\x3c\0\0", CodecError::NotConnect),
    ];
    for (bytes, expected) in cases {
        assert_eq!(read_connect(Bytes::from_static(bytes)).unwrap_err(), expected);
    }
}

#[test]
fn a_connect_with_wrong_flags_is_malformed() {
    let connect = |level: u8, flags: u8| {
        let mut bytes = b"\x10\0\0\x04MQTT".to_vec();
        bytes.extend([level, flags, 0, 60]);
        bytes.extend((level == 5).then_some(0));
        bytes.extend([0, 1, b'x', 0, 1, b'y']);
        bytes[1] = bytes.len() as u8 - 2;
        read_connect(Bytes::from(bytes))
    };
    assert!(connect(4, 0x82).is_ok() && connect(5, 0x82).is_ok());
    for (level, flags) in [(4, 0x83), (5, 0x83), (4, 0x42)] {
        assert!(matches!(connect(level, flags), Err(CodecError::Malformed(_))), "{level} {flags:#x}");
    }
}

#[test]
fn a_client_that_takes_nothing_is_malformed() {
    let connect = |property: &[u8]| {
        let mut bytes = b"\x10\0\0\x04MQTT\x05\x02\0\x3c".to_vec();
        bytes.push(property.len() as u8);
        bytes.extend(property);
        bytes.extend([0, 1, b'x']);
        bytes[1] = bytes.len() as u8 - 2;
        read_connect(Bytes::from(bytes))
    };
    assert_eq!(connect(&[0x21, 0, 7]).unwrap().receive_max, 7);
    assert!(connect(&[0x21, 0, 0]).is_err() && connect(&[0x27, 0, 0, 0, 0]).is_err());
}

#[test]
fn publishes_are_read() {
    let mut bytes = BytesMut::new();
    let mut publish = v4::Publish::new("lift/x", mqttbytes::QoS::AtLeastOnce, "payload");
    publish.pkid = 9;
    publish.write(&mut bytes).unwrap();
    assert!(is_publish(&bytes));
    let Packet::Publish(read) = read(V311, bytes.freeze()).unwrap() else { panic!("not a publish") };
    assert_eq!((&read.topic[..], read.pkid, &read.payload[..]), (&b"lift/x"[..], 9, &b"payload"[..]));
}

#[test]
fn an_mqtt_5_goodbye_of_any_length_is_read() {
    let cases: [(&[u8], bool); 4] =
        [(&[0xE0, 0], false), (&[0xE0, 1, 0], false), (&[0xE0, 1, 4], true), (&[0xE0, 2, 4, 0], true)];
    for (bytes, expected) in cases {
        let packet = read(V5, Bytes::from_static(bytes)).unwrap();
        assert!(
            matches!(packet, Packet::Disconnect { with_will, expiry_s: None } if with_will == expected),
            "{bytes:?}"
        );
    }
}

#[test]
fn acks_are_four_bytes() {
    for protocol in [V311, V5] {
        let mut out = BytesMut::new();
        write(protocol, Reply::PubAck(0x0102), &mut out).unwrap();
        write(protocol, Reply::PubRec(0x0304), &mut out).unwrap();
        write(protocol, Reply::PubComp { pkid: 5, known: true }, &mut out).unwrap();
        write(protocol, Reply::PingResp, &mut out).unwrap();
        let expected = [0x40, 2, 1, 2, 0x50, 2, 3, 4, 0x70, 2, 0, 5, 0xD0, 0];
        assert_eq!(&out[..], expected, "{protocol:?}");
    }
}

#[test]
fn a_subscriber_of_mqtt_5_learns_the_time_of_arrival() {
    let payload = Bytes::from_static(b"p");
    let user = vec![("a".to_owned(), "b".to_owned())];
    let properties = Properties { user, content_type: Some("text/plain".into()), ..Properties::default() };
    let message = Message {
        topic: Bytes::from_static(b"lift/x"),
        payload,
        retain: true,
        identifier: 300,
        properties: Some(std::sync::Arc::new(properties)),
        arrived_us: Some(1_234),
        expires_us: None,
    };
    let publish = Outgoing { message: &message, pkid: 3, dup: true, expiry_s: Some(9) };
    let mut out = BytesMut::new();
    write_publish(V5, &publish, &mut out).unwrap();
    assert_eq!(out[0], 0x3B, "DUP, QoS 1, retain");
    assert!(out.windows(3).any(|bytes| bytes == [0x0B, 0xAC, 2]), "subscription identifier 300");
    let frame = out.freeze();
    assert!(read(V5, frame.clone()).is_err(), "a client must not send identifiers");
    let header = v5::check(frame.iter(), None).unwrap();
    let read = v5::Publish::read(header, frame).unwrap().properties.unwrap();
    assert_eq!(read.message_expiry_interval, Some(9));
    assert_eq!(read.content_type.as_deref(), Some("text/plain"));
    assert_eq!(read.user_properties[1], (ARRIVED_PROPERTY.to_owned(), "1234".to_owned()));
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64), kind in any::<u8>()) {
        let _ = read_connect(Bytes::from(bytes.clone()));
        let mut framed = vec![kind, bytes.len() as u8];
        framed.extend(&bytes);
        let frame = Bytes::from(framed);
        let _ = read(V311, frame.clone());
        let _ = read(V5, frame.clone());
        let mut connect = vec![0x10, bytes.len() as u8 + 7, 0, 4];
        connect.extend(b"MQTT");
        connect.push(4 + kind % 2);
        connect.extend(&bytes);
        let _ = read_connect(Bytes::from(connect));
    }

    #[test]
    fn a_publish_is_read_as_the_library_reads_it(body in prop::collection::vec(0..100_u8, 0..200), flags in 0..16_u8) {
        let mut frame = vec![0x30 | flags];
        let mut left = body.len();
        while left >= 0x80 {
            frame.push(left as u8 & 0x7F | 0x80);
            left >>= 7;
        }
        frame.push(left as u8);
        frame.extend(&body);
        let frame = Bytes::from(frame);
        let header = mqttbytes::check(frame.iter(), frame.len()).unwrap();
        let theirs = v4::Publish::read(header, frame.clone());
        match (read(V311, frame), theirs) {
            (Ok(Packet::Publish(ours)), Ok(theirs)) => {
                prop_assert_eq!(&ours.topic[..], theirs.topic.as_bytes());
                prop_assert_eq!((ours.pkid, ours.retain), (theirs.pkid, theirs.retain));
                prop_assert_eq!(ours.payload, theirs.payload);
            }
            (ours, theirs) => prop_assert!(ours.is_err() && theirs.is_err(), "{:?} {:?}", ours, theirs),
        }
    }

    #[test]
    fn hostile_framing_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..64), max in 0..200_usize) {
        if let Ok((end, next)) = complete(&bytes, max) {
            prop_assert!(end <= bytes.len());
            prop_assert!(next.is_none_or(|len| len <= max && end + len > bytes.len()));
        }
    }
}

#[test]
fn a_disconnect_is_as_long_as_it_says() {
    for (reason, code) in [(Reason::TakenOver, 0x8E), (Reason::Protocol, 0x82), (Reason::RateLimit, 0x96)] {
        let mut out = BytesMut::new();
        write(Protocol::V5, Reply::Disconnect(reason), &mut out).unwrap();
        assert_eq!(&out[..], [0xE0, 1, code]);
    }
}
