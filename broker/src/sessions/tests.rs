use super::*;
use crate::auth::{Principal, PrincipalKind, Protocol};
use crate::session::{Limits, Session};
use bytes::Bytes;

const S: i64 = 1_000_000;

fn stored(client_id: &str, expires_s: i64, will_s: Option<i64>) -> Stored {
    let principal = Principal { kind: PrincipalKind::Terminal, publish: Vec::new(), subscribe: Vec::new() };
    let limits = Limits {
        unacked_max: 1,
        payload_bytes_max: 1,
        subscriptions_max: 1,
        inflight_max: 1,
        topic_alias_max: 0,
        expiry_s_max: 100,
    };
    let will = || Will {
        topic: "gone".into(),
        payload: Bytes::new(),
        qos: crate::QoS::AtMostOnce,
        retain: false,
        properties: None,
        delay_s: 0,
    };
    let hub = crate::Hub::idle(crate::HubConfig::default(), Arc::new(Metrics::default()));
    let due = || DueWill {
        client_id: client_id.into(),
        epoch: 7,
        window: Window::new(crate::ack::Budget::new(1 << 20), hub),
        will: Box::new(will()),
    };
    Stored {
        kept: Session::new(Protocol::V5, principal, limits, 100).suspend(1, false),
        subscriber: None,
        replays: Vec::new(),
        windows: Vec::new(),
        epoch: 7,
        expires_us: expires_s * S,
        will: will_s.map(|s| (due(), s * S)),
    }
}

fn sessions(len_max: usize) -> Sessions {
    Sessions::new(len_max, 1, Arc::new(Metrics::default()))
}

fn ids(wills: &[DueWill]) -> Vec<&str> {
    wills.iter().map(|will| &*will.client_id).collect()
}

#[test]
fn a_will_comes_when_its_delay_passes_or_the_session_ends() {
    let mut sessions = sessions(9);
    assert!(sessions.put(&"a".into(), stored("a", 10, Some(5))).is_empty());
    assert!(sessions.put(&"b".into(), stored("b", 10, Some(50))).is_empty());
    assert!(sessions.put(&"c".into(), stored("c", 10, None)).is_empty());
    assert!(sessions.due(4 * S).is_empty());
    assert_eq!(ids(&sessions.due(5 * S)), ["a"]);
    assert!(sessions.due(9 * S).is_empty(), "once");
    assert_eq!(ids(&sessions.due(10 * S)), ["b"]);
    assert!(sessions.take("a").is_none() && sessions.take("c").is_none());
    assert!(sessions.by_expiry.is_empty() && sessions.by_will.is_empty());
}

#[test]
fn who_comes_back_in_time_finds_all_of_it() {
    let mut sessions = sessions(9);
    sessions.put(&"a".into(), stored("a", 10, Some(5)));
    let stored = sessions.take("a").unwrap();
    assert!(stored.will.is_some() && stored.epoch == 7);
    assert!(sessions.due(100 * S).is_empty() && sessions.by_expiry.is_empty() && sessions.by_will.is_empty());
    assert!(sessions.take("a").is_none());
}

#[test]
fn the_one_that_expires_first_makes_room() {
    let mut sessions = sessions(2);
    sessions.put(&"a".into(), stored("a", 30, Some(5)));
    sessions.put(&"b".into(), stored("b", 20, Some(5)));
    assert_eq!(ids(&sessions.put(&"c".into(), stored("c", 40, None))), ["b"], "its session ended");
    assert!(sessions.take("b").is_none() && sessions.take("a").is_some() && sessions.take("c").is_some());
    let discarded =
        sessions.metrics.sessions_discarded.get_or_create(&ReasonLabel { reason: "evicted" }).get();
    assert_eq!((discarded, sessions.metrics.sessions.get()), (1, 0));
}

#[test]
fn a_session_can_be_made_to_expire() {
    let mut sessions = sessions(9);
    sessions.put(&"a".into(), stored("a", 30, Some(5)));
    sessions.put(&"b".into(), stored("b", 30, None));
    sessions.expire(|id| id == "a");
    assert_eq!(ids(&sessions.due(0)), ["a"]);
    assert!(sessions.take("a").is_none() && sessions.take("b").is_some());
}
