use super::*;
use proptest::prelude::*;

const UNACKED_MAX: usize = 5;

fn session(protocol: Protocol, kind: PrincipalKind) -> Session {
    let filter = |text| TopicFilter::new(text).unwrap();
    let principal = Principal {
        kind,
        publish: vec![filter("lift/v1/+/T1/#")],
        subscribe: vec![filter("lift/v1/+/T1/#")],
    };
    let limits = Limits {
        unacked_max: UNACKED_MAX,
        payload_bytes_max: 100,
        subscriptions_max: 3,
        inflight_max: 4,
        topic_alias_max: 3,
        expiry_s_max: 1_000,
    };
    Session::new(protocol, principal, limits, 0)
}

fn terminal() -> Session {
    session(Protocol::V311, PrincipalKind::Terminal)
}

fn publish(qos: QoS, pkid: u16) -> Packet {
    publish_to("lift/v1/310115/T1/telemetry", qos, pkid)
}

/// Another payload under this id.
fn other(pkid: u16) -> Packet {
    let Packet::Publish(publish) = publish(QoS::ExactlyOnce, pkid) else { unreachable!() };
    Packet::Publish(PublishPacket { payload: Bytes::from_static(b"y"), ..publish })
}

fn publish_to(topic: &str, qos: QoS, pkid: u16) -> Packet {
    Packet::Publish(PublishPacket {
        qos,
        retain: false,
        topic: Bytes::copy_from_slice(topic.as_bytes()),
        pkid,
        payload: Bytes::from_static(b"x"),
        properties: None,
        alias: None,
    })
}

fn wanted(filter: &str) -> Wanted {
    Wanted {
        filter: filter.into(),
        qos: QoS::ExactlyOnce,
        no_local: false,
        retain_as_published: false,
        retained: RetainedWish::Always,
    }
}

/// One word per action.
fn words(actions: &[Action]) -> Vec<String> {
    actions
        .iter()
        .map(|action| match action {
            Action::Reply(reply) => format!("{reply:?}"),
            Action::Deliver(accepted) => format!("Deliver({:?})", accepted.qos),
            Action::Subscribe { joins, replay, reply } => {
                format!("Subscribe({} joins, {} replays, {reply:?})", joins.len(), replay.len())
            }
            Action::Unsubscribe { filters, reply } => format!("Unsubscribe({}, {reply:?})", filters.len()),
            Action::Close(reason) => format!("Close({})", reason.as_str()),
        })
        .collect()
}

fn feed(session: &mut Session, packet: Packet) -> Vec<String> {
    let mut actions = Vec::new();
    session.packet(packet, true, &mut actions);
    words(&actions)
}

fn drop_unadmitted(session: &mut Session, packet: Packet) -> Vec<String> {
    let mut actions = Vec::new();
    session.packet(packet, false, &mut actions);
    words(&actions)
}

fn settle(session: &mut Session, committed: usize, failed: bool) -> Vec<String> {
    let mut actions = Vec::new();
    session.settled(Settled { committed, failed }, &mut actions);
    words(&actions)
}

#[test]
fn nothing_is_acknowledged_before_it_is_committed() {
    let mut session = terminal();
    assert_eq!(feed(&mut session, publish(QoS::AtLeastOnce, 1)), ["Deliver(AtLeastOnce)"]);
    assert_eq!(feed(&mut session, publish(QoS::AtMostOnce, 0)), ["Deliver(AtMostOnce)"]);
    assert_eq!(feed(&mut session, publish(QoS::ExactlyOnce, 2)), ["Deliver(ExactlyOnce)"]);
    assert_eq!(settle(&mut session, 1, false), ["PubAck(1)"]);
    assert_eq!(settle(&mut session, 2, false), ["PubRec(2)"]);
    assert_eq!(session.unsettled(), 0);
}

#[test]
fn qos_2_is_forwarded_once_between_publish_and_release() {
    let mut session = terminal();
    feed(&mut session, publish(QoS::ExactlyOnce, 7));
    assert!(feed(&mut session, publish(QoS::ExactlyOnce, 7)).is_empty(), "not yet committed");
    assert_eq!(settle(&mut session, 1, false), ["PubRec(7)"]);
    assert_eq!(feed(&mut session, publish(QoS::ExactlyOnce, 7)), ["PubRec(7)"]);
    assert_eq!(feed(&mut session, Packet::PubRel(7)), ["PubComp { pkid: 7, known: true }"]);
    assert_eq!(feed(&mut session, Packet::PubRel(7)), ["PubComp { pkid: 7, known: false }"]);
    assert_eq!(feed(&mut session, publish(QoS::ExactlyOnce, 7)), ["Deliver(ExactlyOnce)"]);
}

/// It was answered with PUBREC and never handed over: acknowledged, and nowhere.
#[test]
fn a_client_that_lost_its_packet_ids_loses_no_message() {
    let mut begun = terminal();
    feed(&mut begun, publish(QoS::ExactlyOnce, 7));
    feed(&mut begun, publish(QoS::ExactlyOnce, 8));
    assert_eq!(settle(&mut begun, 1, false), ["PubRec(7)"]);
    let mut session = terminal();
    session.resume(begun.suspend(1, false));
    assert_eq!(feed(&mut session, other(7)), ["Deliver(ExactlyOnce)"]);
    assert_eq!(feed(&mut session, other(8)), ["Deliver(ExactlyOnce)"]);
    let mut actions = Vec::new();
    session.settled_earlier(1, Settled { committed: 1, failed: false }, &mut actions);
    assert!(actions.is_empty(), "it was of the message before");
    assert!(feed(&mut session, other(8)).is_empty(), "waits for its own commit");
    assert_eq!(settle(&mut session, 2, false), ["PubRec(7)", "PubRec(8)"]);
    assert_eq!(feed(&mut session, publish(QoS::ExactlyOnce, 9)), ["Deliver(ExactlyOnce)"]);
    assert_eq!(feed(&mut session, other(9)), ["Close(protocol)"], "two under one id on one connection");
}

#[test]
fn a_failed_message_closes_after_those_before_it_are_acknowledged() {
    let mut session = terminal();
    for pkid in 1..=3 {
        feed(&mut session, publish(QoS::AtLeastOnce, pkid));
    }
    assert_eq!(settle(&mut session, 1, true), ["PubAck(1)", "Close(ack_failed)"]);
}

#[test]
fn no_acknowledgement_overtakes_a_dropped_message() {
    let mut session = terminal();
    feed(&mut session, publish(QoS::AtLeastOnce, 1));
    assert!(drop_unadmitted(&mut session, publish(QoS::AtLeastOnce, 2)).is_empty());
    feed(&mut session, publish(QoS::AtLeastOnce, 3));
    assert_eq!(settle(&mut session, 2, false), ["PubAck(1)"]);
    assert!(session.is_holed());
    assert_eq!(feed(&mut session, Packet::PingReq), ["PingResp"]);
}

#[test]
fn a_dropped_message_without_promise_holds_nothing_back() {
    let mut session = terminal();
    drop_unadmitted(&mut session, publish(QoS::AtMostOnce, 0));
    assert!(!session.is_holed());
}

#[test]
fn topics_are_checked() {
    let cases: [(&str, &[&str]); 6] = [
        ("lift/v1/440300/T1/event", &["Deliver(AtLeastOnce)"]),
        ("lift/v1/440300/T2/event", &["Close(not_authorized)"]),
        ("lift/v1/440300/T1/+", &["Close(protocol)"]),
        ("", &["Close(protocol)"]),
        ("lift/v1/a\0/T1/x", &["Close(protocol)"]),
        ("电梯", &["Close(not_authorized)"]),
    ];
    for (topic, expected) in cases {
        assert_eq!(feed(&mut terminal(), publish_to(topic, QoS::AtLeastOnce, 1)), expected, "{topic:?}");
    }
}

#[test]
fn a_refused_topic_is_refused_even_while_dropping() {
    let mut session = terminal();
    let other = publish_to("lift/v1/440300/T2/event", QoS::AtLeastOnce, 1);
    assert_eq!(drop_unadmitted(&mut session, other), ["Close(not_authorized)"]);
}

#[test]
fn more_than_the_receive_maximum_ends_an_mqtt_5_session() {
    let mut session = session(Protocol::V5, PrincipalKind::Terminal);
    for pkid in 1..=UNACKED_MAX as u16 {
        assert_eq!(feed(&mut session, publish(QoS::AtLeastOnce, pkid)), ["Deliver(AtLeastOnce)"]);
    }
    assert_eq!(feed(&mut session, publish(QoS::AtLeastOnce, 99)), ["Close(receive_maximum)"]);
}

#[test]
fn a_full_window_pauses_everyone_else() {
    let mut old = terminal();
    let mut new = session(Protocol::V5, PrincipalKind::Terminal);
    for pkid in 1..=UNACKED_MAX as u16 {
        feed(&mut old, publish(QoS::AtLeastOnce, pkid));
        feed(&mut new, publish(QoS::AtMostOnce, 0));
    }
    assert!(!old.has_room() && !new.has_room());
    settle(&mut old, 1, false);
    assert!(old.has_room());
}

#[test]
fn subscriptions_stay_within_the_rights() {
    let subscribe = |kind, filter: &str| {
        let packet = Packet::Subscribe { pkid: 1, filters: vec![wanted(filter)], identifier: 0 };
        feed(&mut session(Protocol::V5, kind), packet).remove(0)
    };
    let refused =
        |code: &str| format!("Subscribe(0 joins, 0 replays, SubAck {{ pkid: 1, codes: [{code}] }})");
    let granted = "Subscribe(1 joins, 1 replays, SubAck { pkid: 1, codes: [Granted(AtLeastOnce)] })";
    let cases = [
        (PrincipalKind::Terminal, "lift/v1/310115/T1/down", granted.to_owned()),
        (PrincipalKind::Terminal, "lift/v1/310115/T1/#", refused("NotAuthorized")),
        (PrincipalKind::Terminal, "lift/v1/310115/T2/down", refused("NotAuthorized")),
        (PrincipalKind::Terminal, "$share/g/lift/v1/310115/T1/down", refused("SharedNotOffered")),
        (PrincipalKind::Integration, "lift/v1/+/T1/telemetry", granted.to_owned()),
        (PrincipalKind::Integration, "lift/#", refused("NotAuthorized")),
        (PrincipalKind::Integration, "lift/v1/a#", refused("FilterInvalid")),
        (PrincipalKind::Integration, "lift/v1/电/T1/x", refused("FilterInvalid")),
    ];
    for (kind, filter, expected) in cases {
        assert_eq!(subscribe(kind, filter), expected, "{filter}");
    }
}

#[test]
fn subscriptions_are_counted_replaced_and_left() {
    let mut session = session(Protocol::V5, PrincipalKind::Integration);
    let filters = ["a", "b", "c", "d"].map(|level| wanted(&format!("lift/v1/1/T1/{level}"))).to_vec();
    let words = feed(&mut session, Packet::Subscribe { pkid: 1, filters, identifier: 0 });
    assert!(words[0].contains("3 joins") && words[0].contains("QuotaExceeded"), "{words:?}");
    let mut again = wanted("lift/v1/1/T1/a");
    again.retained = RetainedWish::IfNew;
    again.qos = QoS::AtMostOnce;
    let words = feed(&mut session, Packet::Subscribe { pkid: 2, filters: vec![again], identifier: 0 });
    assert!(words[0].contains("0 joins, 0 replays"), "{words:?}");
    let filters = vec!["lift/v1/1/T1/a".to_owned(), "nothing".to_owned()];
    let words = feed(&mut session, Packet::Unsubscribe { pkid: 3, filters });
    assert!(words[0].contains("existed: [true, false]"), "{words:?}");
    assert_eq!(session.send(1, QoS::AtLeastOnce, false, false), None, "left");
    assert!(session.send(2, QoS::AtLeastOnce, false, false).is_some());
}

#[test]
fn messages_to_a_subscriber_are_bounded_until_it_acknowledges() {
    let mut session = session(Protocol::V5, PrincipalKind::Integration);
    let filters = vec![wanted("lift/v1/1/T1/a")];
    feed(&mut session, Packet::Subscribe { pkid: 1, filters, identifier: 0 });
    for pkid in 1..=4 {
        assert!(session.can_send());
        let sending = session.send(1, QoS::ExactlyOnce, true, false);
        assert_eq!(sending, Some(Sending { pkid, retain: false, identifier: 0 }));
    }
    assert!(!session.can_send());
    assert!(feed(&mut session, Packet::PubAck(2)).is_empty());
    assert!(session.can_send());
    assert_eq!(feed(&mut session, Packet::PubAck(2)), ["Close(protocol)"]);
}

#[test]
fn packet_ids_wrap_around_those_in_flight() {
    let mut session = session(Protocol::V5, PrincipalKind::Integration);
    assert_eq!(session.send_retained(QoS::AtLeastOnce, QoS::AtLeastOnce), 1);
    session.inflight_id_last = u16::MAX;
    assert_eq!(session.send_retained(QoS::AtLeastOnce, QoS::AtLeastOnce), 2);
}

#[test]
fn a_session_is_resumed_only_within_the_rights() {
    let filters = vec![wanted("lift/v1/1/T1/a")];
    let mut begun = session(Protocol::V5, PrincipalKind::Terminal);
    feed(&mut begun, Packet::Subscribe { pkid: 1, filters, identifier: 0 });
    let kept = begun.suspend(1, false);
    let principal = |kind, filter| Principal {
        kind,
        publish: Vec::new(),
        subscribe: vec![TopicFilter::new(filter).unwrap()],
    };
    assert!(kept.is_within(&principal(PrincipalKind::Terminal, "lift/v1/+/T1/#")));
    assert!(!kept.is_within(&principal(PrincipalKind::Terminal, "lift/v1/+/T2/#")), "withdrawn");
    assert!(!kept.is_within(&principal(PrincipalKind::Integration, "#")), "another kind of client");
    assert!(!kept.needs_hub(), "terminals take no place at the hub");
}

#[test]
fn an_alias_lost_with_a_dropped_publish_is_not_held_against_the_client() {
    let aliased = |topic: &str| {
        let Packet::Publish(publish) = publish_to(topic, QoS::AtMostOnce, 0) else { unreachable!() };
        Packet::Publish(PublishPacket { alias: Some(1), ..publish })
    };
    let mut session = session(Protocol::V5, PrincipalKind::Terminal);
    drop_unadmitted(&mut session, aliased("lift/v1/1/T1/x"));
    assert_eq!(feed(&mut session, aliased("")), ["Deliver(AtMostOnce)"], "dropped after it was read");
    session.dropped_unread(false);
    let mut unknown = aliased("");
    if let Packet::Publish(publish) = &mut unknown {
        publish.alias = Some(2);
    }
    assert_eq!(feed(&mut session, unknown), ["Close(resend)"]);
}

fn any_qos() -> impl Strategy<Value = QoS> {
    prop_oneof![Just(QoS::AtMostOnce), Just(QoS::AtLeastOnce), Just(QoS::ExactlyOnce)]
}

fn any_packet() -> impl Strategy<Value = Packet> {
    let topic = prop_oneof![
        20 => Just("lift/v1/1/T1/x".to_owned()),
        1 => "[ -~电\0]{0,6}",
    ];
    prop_oneof![
        10 => (topic, any_qos(), 1..8_u16).prop_map(|(topic, qos, pkid)| publish_to(&topic, qos, pkid)),
        3 => (0..8_u16).prop_map(Packet::PubRel),
        1 => (0..8_u16).prop_map(Packet::PubAck),
        2 => (0..4_u16, prop::collection::vec("lift/v1/1/T1/[ab#+]", 0..4)).prop_map(|(pkid, filters)| {
            Packet::Subscribe { pkid, filters: filters.iter().map(|f| wanted(f)).collect(), identifier: 0 }
        }),
        1 => (0..4_u16, prop::collection::vec("lift/v1/1/T1/[ab#+]", 0..4))
            .prop_map(|(pkid, filters)| Packet::Unsubscribe { pkid, filters }),
        1 => Just(Packet::PingReq),
        1 => Just(Packet::Unexpected),
    ]
}

#[derive(Debug, Clone)]
enum Input {
    Packet(Packet, bool),
    Settle(usize),
    Send(usize),
}

fn any_input() -> impl Strategy<Value = Input> {
    prop_oneof![
        8 => (any_packet(), prop::bool::weighted(0.9)).prop_map(|(packet, admitted)| Input::Packet(packet, admitted)),
        4 => (0..4_usize).prop_map(Input::Settle),
        1 => (0..4_usize).prop_map(Input::Send),
    ]
}

proptest! {
    /// Whatever a client sends: acknowledgements are a prefix, in order, of what was delivered and committed,
    /// nothing passes a dropped message, and the window is kept when the shell respects `has_room`.
    #[test]
    fn acknowledgements_are_ordered_earned_and_bounded(inputs in prop::collection::vec(any_input(), 0..200)) {
        let mut session = terminal();
        let mut delivered: VecDeque<Option<u16>> = VecDeque::new();
        let mut holed = false;
        for input in inputs {
            let mut actions = Vec::new();
            let mut expected: Vec<u16> = Vec::new();
            let mut incoming = None;
            match input {
                Input::Packet(packet, admitted) => {
                    let admitted = admitted && session.has_room();
                    if let Packet::Publish(publish) = &packet {
                        incoming = Some((publish.qos, publish.pkid, admitted));
                    }
                    session.packet(packet, admitted, &mut actions);
                }
                Input::Settle(count) => {
                    let count = count.min(delivered.len());
                    expected = delivered.drain(..count).flatten().collect();
                    session.settled(Settled { committed: count, failed: false }, &mut actions);
                }
                Input::Send(id) => {
                    if session.can_send() {
                        session.send(id, QoS::AtLeastOnce, false, false);
                    }
                }
            }
            let mut acked = Vec::new();
            for action in &actions {
                match action {
                    Action::Deliver(accepted) => {
                        let (qos, pkid, admitted) = incoming.unwrap();
                        prop_assert!(admitted);
                        prop_assert_eq!(accepted.qos, qos);
                        delivered.push_back((qos != QoS::AtMostOnce && !holed).then_some(pkid));
                    }
                    Action::Reply(Reply::PubAck(pkid)) => acked.push(*pkid),
                    // A repeated PUBREC answers a duplicate, not a settling.
                    Action::Reply(Reply::PubRec(pkid)) if incoming.is_none() => acked.push(*pkid),
                    _ => {}
                }
            }
            prop_assert_eq!(acked, expected);
            holed |= session.is_holed();
            prop_assert!(session.unsettled() <= UNACKED_MAX);
            prop_assert_eq!(session.unsettled(), delivered.len());
            prop_assert!(session.inflight.len() <= 4 && session.recorded.len() <= 2 * UNACKED_MAX);
            if actions.iter().any(|action| matches!(action, Action::Close(_))) {
                prop_assert!(matches!(actions.last(), Some(Action::Close(_))));
                break;
            }
        }
    }
}
