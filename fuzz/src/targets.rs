//! What is fuzzed: each target takes any bytes and panics when a promise is broken.

use broker::TopicFilter;
use domain::{DeviceKind, EventBatch, Meaning, Message, Statistics, TelemetryBatch, limits};
use ingest::{ProfileView, Profiles};
use proto::decode::Taken;

use crate::mutate::Shape;

/// One target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Also the folder of its corpus.
    pub name: &'static str,
    /// Any bytes may be passed in.
    pub run: fn(&[u8]),
    /// What its inputs look like.
    pub shape: Shape,
    /// Share of the inputs of a run over all targets.
    pub weight: u64,
}

/// All targets.
pub const ALL: [Target; 12] = [
    Target {
        name: "packets",
        run: broker::fuzzing::packets,
        shape: Shape::Mqtt { head: broker::fuzzing::HEAD },
        weight: 6,
    },
    Target { name: "connect", run: broker::fuzzing::connect, shape: Shape::Mqtt { head: 0 }, weight: 2 },
    Target { name: "websocket", run: broker::fuzzing::websocket, shape: Shape::WebSocket, weight: 2 },
    Target { name: "telemetry", run: telemetry, shape: Shape::Protobuf, weight: 2 },
    Target { name: "event", run: event, shape: Shape::Protobuf, weight: 2 },
    Target { name: "telemetry_json", run: telemetry_json, shape: Shape::Json, weight: 2 },
    Target { name: "event_json", run: event_json, shape: Shape::Json, weight: 2 },
    Target { name: "statistics", run: statistics, shape: Shape::Protobuf, weight: 1 },
    Target { name: "statistics_json", run: statistics_json, shape: Shape::Json, weight: 1 },
    Target { name: "profile_json", run: profile_json, shape: Shape::Json, weight: 2 },
    Target { name: "profile_toml", run: profile_toml, shape: Shape::Topics, weight: 1 },
    Target { name: "topics", run: topics, shape: Shape::Topics, weight: 2 },
];

/// The target of that name.
pub fn by_name(name: &str) -> Option<&'static Target> {
    ALL.iter().find(|target| target.name == name)
}

/// A `TelemetryBatch` in protobuf.
pub fn telemetry(payload: &[u8]) {
    if let Some(Message::Telemetry(batch)) = decoded("telemetry", payload) {
        check_telemetry(&batch);
    }
}

/// An `EventBatch` in protobuf.
pub fn event(payload: &[u8]) {
    if let Some(Message::Event(batch)) = decoded("event", payload) {
        check_events(&batch);
    }
}

/// Telemetry in the open JSON format.
pub fn telemetry_json(payload: &[u8]) {
    if let Some(Message::Telemetry(batch)) = decoded("telemetry.json", payload) {
        check_telemetry(&batch);
    }
}

/// Events in the open JSON format.
pub fn event_json(payload: &[u8]) {
    if let Some(Message::Event(batch)) = decoded("event.json", payload) {
        check_events(&batch);
    }
}

/// `Statistics` in protobuf.
pub fn statistics(payload: &[u8]) {
    if let Some(Message::Statistics(counted)) = decoded("stats", payload) {
        check_statistics(&counted);
    }
}

/// Statistics in the open JSON format.
pub fn statistics_json(payload: &[u8]) {
    if let Some(Message::Statistics(counted)) = decoded("stats.json", payload) {
        check_statistics(&counted);
    }
}

fn gb24476(raw: &str) -> Meaning {
    ProfileView::canonical().meaning(raw)
}

/// A payload of a vendor; what it is made of says of which, and of what kind of device.
pub fn profile_json(payload: &[u8]) {
    let dice: usize = payload.iter().map(|byte| usize::from(*byte)).sum();
    let count = Profiles::shipped().all().count();
    let Some(profile) = Profiles::shipped().all().nth(dice % count) else { return };
    let kind = if (dice / count).is_multiple_of(2) { DeviceKind::Lift } else { DeviceKind::Escalator };
    let view = ProfileView { profile, kind };
    for channel in ["telemetry.json", "event.json"] {
        match ingest::decode(&format!("lift/v1/350102/T1/{channel}"), payload, view) {
            Ok(decoded) => {
                check_vendor(&decoded.message);
                check_refused(&decoded);
            }
            Err(refused) => assert!(!refused.detail.is_empty(), "a vendor is told why"),
        }
    }
}

/// What a profile makes is within the same bounds as what the open formats say.
fn check_vendor(message: &Message) {
    match message {
        Message::Telemetry(batch) => {
            assert!((1..=limits::BATCH_READINGS_MAX).contains(&batch.readings.len()));
            for reading in &batch.readings {
                reading.check().expect("a decoded reading is within its ranges");
                assert_ne!(reading.seq.0, 0, "every reading has a number");
                for code in reading.codes.as_ref().known().into_iter().flatten() {
                    assert!((1..=limits::CODE_BYTES_MAX).contains(&code.raw.len()), "{:?}", code.raw);
                }
            }
        }
        Message::Event(batch) => {
            assert!(batch.events.len() <= limits::BATCH_EVENTS_MAX);
            assert!(!batch.events.is_empty() || batch.active.is_some(), "a batch says something");
            for event in &batch.events {
                assert_ne!(event.seq.0, 0, "every event has a number");
                assert!((1..=limits::CODE_BYTES_MAX).contains(&event.code.raw.len()), "{:?}", event.code.raw);
            }
        }
        Message::Statistics(_) => panic!("profiles have nothing to say of statistics"),
    }
}

/// A profile is sound, or every mistake has a place in its text.
pub fn profile_toml(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    match Profiles::shipped().read(text) {
        Ok(own) => {
            let view = ProfileView { profile: &own, kind: DeviceKind::Lift };
            let payload =
                br#"{"time":1,"codes":[1,"01","x"],"car_status":1,"door_zone":0,"passengers":"yes"}"#;
            let _ = ingest::decode("lift/v1/350102/T1/telemetry.json", payload, view);
        }
        Err(mistakes) => {
            assert!(!mistakes.is_empty(), "a refusal has a reason");
            let lines = text.split('\n').count();
            for mistake in mistakes {
                assert!((1..=lines).contains(&mistake.line), "{mistake}");
            }
        }
    }
}

fn decoded(channel: &str, payload: &[u8]) -> Option<Message> {
    match ingest::decode(&format!("lift/v1/350102/T1/{channel}"), payload, ProfileView::canonical()) {
        Ok(decoded) => {
            check_refused(&decoded);
            Some(decoded.message)
        }
        Err(refused) => {
            assert!(!refused.detail.is_empty(), "a vendor is told why");
            None
        }
    }
}

/// What is refused of a message has a place of its own in it, a number that counts or none, and a reason.
fn check_refused(decoded: &ingest::Decoded) {
    let (taken, most) = match &decoded.message {
        Message::Telemetry(batch) => (batch.readings.len(), limits::BATCH_READINGS_MAX),
        Message::Event(_) => (0, limits::BATCH_EVENTS_MAX),
        Message::Statistics(_) => (0, 0),
    };
    assert!(taken + decoded.refused.len() <= most);
    assert!(decoded.refused.is_sorted_by(|one, next| one.place < next.place));
    for refused in &decoded.refused {
        assert!(refused.place < most && refused.seq.is_none_or(|seq| seq.0 > 0) && !refused.error.is_empty());
    }
    assert_eq!(decoded.refusal().is_some(), !decoded.refused.is_empty());
}

/// A batch is within its bounds, and says the same after a way through protobuf.
fn check_telemetry(batch: &TelemetryBatch) {
    assert!((1..=limits::BATCH_READINGS_MAX).contains(&batch.readings.len()));
    for reading in &batch.readings {
        reading.check().expect("a decoded reading is within its ranges");
        assert_ne!(reading.seq.0, 0, "every reading has a number");
        if let Some(codes) = reading.codes.as_ref().known() {
            assert!(codes.len() <= limits::CODES_MAX);
        }
    }
    let again = proto::decode::telemetry(&proto::encode::telemetry(batch), &gb24476);
    let Taken { taken: mut back, refused } = again.expect("a batch can be sent again");
    assert!(refused.is_empty(), "{refused:?}");
    assert_eq!(back.boot, batch.boot);
    assert_eq!(back.readings.len(), batch.readings.len());
    for (back, reading) in back.readings.iter_mut().zip(&batch.readings) {
        // The encoder wants rising numbers, and milliseconds.
        (back.seq, back.time) = (reading.seq, reading.time);
        assert_eq!(back, reading);
    }
}

fn check_events(batch: &EventBatch) {
    assert!(batch.events.len() <= limits::BATCH_EVENTS_MAX);
    assert!(!batch.events.is_empty() || batch.active.is_some(), "a batch says something");
    assert!(batch.active.as_ref().is_none_or(|active| active.len() <= limits::CODES_MAX));
    let again = proto::decode::events(&proto::encode::events(batch), &gb24476);
    let Taken { taken: back, refused } = again.expect("a batch can be sent again");
    assert!(refused.is_empty(), "{refused:?}");
    assert_eq!((back.boot, &back.active), (batch.boot, &batch.active));
    assert_eq!(back.events.len(), batch.events.len());
    for (back, event) in back.events.iter().zip(&batch.events) {
        assert_ne!(event.seq.0, 0, "every event has a number");
        assert!(event.code.raw.len() <= limits::CODE_BYTES_MAX);
        assert_eq!((&back.code, back.state), (&event.code, event.state));
    }
}

fn check_statistics(counted: &Statistics) {
    counted.check().expect("decoded counters are within their ranges");
    assert!(!counted.counters.is_empty(), "statistics say something");
    assert_ne!(counted.seq.0, 0, "statistics have a number");
    let back = proto::decode::statistics(&proto::encode::statistics(counted)).expect("it can be sent again");
    assert_eq!((back.boot, back.counters), (counted.boot, counted.counters));
}

/// Three lines: a filter, a second one, a topic.
pub fn topics(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let mut lines = text.splitn(3, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let (wide, narrow, topic) = (line(), line(), line());
    if let Ok(known) = topic.parse::<ingest::Topic>() {
        let begin = format!("lift/v1/{}/{}/", known.area, known.terminal_id);
        assert!(topic.starts_with(&begin), "{topic:?} is {known:?}");
    }
    let is_name = !topic.is_empty() && !topic.contains(['+', '#', '\0']);
    let filters = [wide, narrow].map(TopicFilter::new);
    for filter in filters.iter().flatten() {
        broker::fuzzing::filter(filter, topic);
        assert!(filter.covers(filter) || filter.as_str().starts_with('$'), "{filter} covers itself");
        if is_name {
            assert_eq!(filter.matches(topic), selects(filter.as_str(), topic), "{filter} {topic:?}");
        }
    }
    if let [Ok(wide), Ok(narrow)] = filters
        && is_name
        && wide.covers(&narrow)
        && narrow.matches(topic)
    {
        assert!(wide.matches(topic), "{wide} covers {narrow}, which selects {topic:?}");
    }
}

/// Section 4.7 of MQTT once more, as plainly as possible.
fn selects(filter: &str, topic: &str) -> bool {
    fn levels(filter: &[&str], topic: &[&str]) -> bool {
        match (filter, topic) {
            (["#"], _) | ([], []) => true,
            (["+", filter @ ..], [_, topic @ ..]) => levels(filter, topic),
            ([a, filter @ ..], [b, topic @ ..]) => a == b && levels(filter, topic),
            _ => false,
        }
    }
    let hidden = topic.starts_with('$') && filter.starts_with(['+', '#']);
    let split = |text| str::split(text, '/').collect::<Vec<_>>();
    !hidden && levels(&split(filter), &split(topic))
}
