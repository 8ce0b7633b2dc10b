//! One publish, decoded: pure, and total over all bytes.

use std::fmt::Display;

use domain::{EventBatch, Field, Message, Reading, Seq, ServiceMode, Statistics, TelemetryBatch, limits};
use proto::decode::{Refused, Taken};
use sha2::{Digest, Sha256};
use store::QuarantineReason;

use crate::profile::{ProfileView, Vendor};
use crate::topic::{Channel, Format, Topic, TopicError};
use crate::{json, json_statistics};

/// A publish that a terminal may make.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// Where it came.
    pub topic: Topic,
    /// What it says. Every reading and event has a sequence number, its terminal's or a derived one.
    pub message: Message,
    /// Values that the terminal's profile does not know: read as unknown.
    pub unmapped: u32,
    /// Readings or events of it that are not taken: they go to quarantine, their neighbours do not.
    pub refused: Vec<Refused<String>>,
}

impl Decoded {
    /// What of it is refused, in words, for the vendor who has to mend it.
    pub fn refusal(&self) -> Option<Undecodable> {
        let (what, taken) = match &self.message {
            Message::Telemetry(batch) => ("readings", batch.readings.len()),
            Message::Event(batch) => ("events", batch.events.len()),
            Message::Statistics(_) => return None,
        };
        let count = self.refused.len();
        if count == 0 {
            return None;
        }
        let mut lines = vec![format!("{count} of its {what} refused, {taken} taken")];
        let told = self.refused.iter().take(REFUSED_TOLD_MAX);
        lines.extend(told.map(|Refused { place, error, .. }| format!("{what}[{place}]: {error}")));
        lines.extend(count.checked_sub(REFUSED_TOLD_MAX + 1).map(|more| format!("{} more", more + 1)));
        let detail = lines.join("; ");
        Some(Undecodable { reason: QuarantineReason::Undecodable, detail })
    }
}

/// Reasons told of one message.
const REFUSED_TOLD_MAX: usize = 8;

/// Why a publish goes to quarantine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undecodable {
    /// Why.
    pub reason: QuarantineReason,
    /// In words, for the vendor who has to mend it.
    pub detail: String,
}

/// Decodes one publish of a terminal that speaks as `view` says. Protobuf takes the codes of the profile and
/// nothing else of it: its fields have one meaning for everybody.
pub fn decode(topic: &str, payload: &[u8], view: ProfileView<'_>) -> Result<Decoded, Undecodable> {
    decode_as(topic, payload, view, view.profile.is_open_json())
}

/// Decodes what the store wrote in the open JSON, of a terminal whose codes are those of `view`.
pub fn decode_open(topic: &str, payload: &[u8], view: ProfileView<'_>) -> Result<Decoded, Undecodable> {
    decode_as(topic, payload, view, true)
}

fn decode_as(
    topic: &str,
    payload: &[u8],
    view: ProfileView<'_>,
    is_open: bool,
) -> Result<Decoded, Undecodable> {
    let refuse = |reason, detail: String| Undecodable { reason, detail };
    let undecodable = |detail| refuse(QuarantineReason::Undecodable, detail);
    let topic: Topic = topic
        .parse()
        .map_err(|error: TopicError| refuse(QuarantineReason::UnknownTopic, error.to_string()))?;
    if payload.len() > limits::PAYLOAD_BYTES_MAX {
        let detail = format!("{} bytes; at most {} are decoded", payload.len(), limits::PAYLOAD_BYTES_MAX);
        return Err(refuse(QuarantineReason::TooLarge, detail));
    }
    let table = &|raw: &str| view.meaning(raw);
    let mut vendor = Vendor::new(view);
    let read = match (topic.channel, topic.format) {
        (Channel::Telemetry, Format::Protobuf) => told(proto::decode::telemetry(payload, table), telemetry),
        (Channel::Event, Format::Protobuf) => told(proto::decode::events(payload, table), events),
        (Channel::Telemetry, Format::Json) if is_open => told(json::telemetry(payload, table), telemetry),
        (Channel::Event, Format::Json) if is_open => told(json::events(payload, table), events),
        (Channel::Telemetry, Format::Json) => told(vendor.telemetry(payload), telemetry),
        (Channel::Event, Format::Json) => told(vendor.events(payload), events),
        (Channel::Stats, Format::Protobuf) => told(proto::decode::statistics(payload).map(whole), statistics),
        (Channel::Stats, Format::Json) if is_open => {
            told(json_statistics::statistics(payload).map(whole), statistics)
        }
        (Channel::Stats, Format::Json) => told(vendor.statistics(payload).map(whole), statistics),
    };
    let (message, refused) = read.map_err(undecodable)?;
    let mut decoded = Decoded { topic, message, unmapped: vendor.unmapped, refused };
    if view.kind.is_escalator() {
        decoded.unmapped += escalate(&mut decoded.message);
    }
    Ok(decoded)
}

/// A message that is one thing.
fn whole<T, E>(taken: T) -> Taken<T, E> {
    Taken { taken, refused: Vec::new() }
}

type Read = Result<(Message, Vec<Refused<String>>), String>;

/// As a message, with its errors in words.
fn told<T, E: Display>(read: Result<Taken<T, E>, E>, message: fn(T) -> Message) -> Read {
    let Taken { taken, refused } = read.map_err(|error| error.to_string())?;
    let in_words =
        |Refused { place, seq, error }: Refused<E>| Refused { place, seq, error: error.to_string() };
    Ok((message(taken), refused.into_iter().map(in_words).collect()))
}

/// An escalator's mode is 0 stopped, 1 normal, 2 inspection, 3 unknown (DOMAIN.md 3.1): what else the open formats
/// let through is a lift's word, and not known of an escalator. Gives how many it was.
fn escalate(message: &mut Message) -> u32 {
    let mut strange = 0;
    let Message::Telemetry(batch) = message else { return 0 };
    for reading in &mut batch.readings {
        use ServiceMode::{Earthquake, EmergencyPower, FireRecall, Firefighter};
        match reading.service_mode {
            // Number 3.
            Field::Known(FireRecall) => reading.service_mode = Field::Known(ServiceMode::Unknown),
            Field::Known(Firefighter | EmergencyPower | Earthquake) => {
                reading.service_mode = Field::Known(ServiceMode::Unknown);
                strange += 1;
            }
            _ => {}
        }
    }
    strange
}

fn telemetry(mut batch: TelemetryBatch) -> Message {
    let boot = batch.boot;
    for reading in &mut batch.readings {
        if reading.seq == Seq(0) {
            // Of the reading alone: `sent` and the neighbours change when a batch is sent again.
            let alone = TelemetryBatch {
                boot,
                sent: None,
                prev_boot_last_seq: None,
                dropped: None,
                readings: vec![reading.clone()],
            };
            let subsecond = reading.time.micros().to_be_bytes();
            // Protobuf tells all contacts or none.
            let told = reading.flags_told.to_be_bytes();
            let told = if reading.flags_told == Reading::FLAGS_ALL { &[][..] } else { &told };
            reading.seq = derived(&[&proto::encode::telemetry(&alone), &subsecond, told]);
        }
    }
    Message::Telemetry(batch)
}

fn events(mut batch: EventBatch) -> Message {
    for event in &mut batch.events {
        if event.seq == Seq(0) {
            let time = event.time.micros().to_be_bytes();
            event.seq = derived(&[&time, event.code.raw.as_bytes(), &[event.state as u8]]);
        }
    }
    Message::Event(batch)
}

fn statistics(mut one: Statistics) -> Message {
    if one.seq == Seq(0) {
        let alone = Statistics { sent: None, ..one.clone() };
        let subsecond = one.time.micros().to_be_bytes();
        one.seq = derived(&[b"statistics", &proto::encode::statistics(&alone), &subsecond]);
    }
    Message::Statistics(one)
}

/// A negative number from a hash, so that it never meets a terminal's own (DESIGN.md 4).
fn derived(parts: &[&[u8]]) -> Seq {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    let digest = hash.finalize();
    let mut head = [0; 8];
    head.copy_from_slice(&digest[..8]);
    Seq(i64::from_be_bytes(head) | i64::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decoded(text: &str) -> Decoded {
        decode("lift/v1/350102/t1/telemetry.json", text.as_bytes(), ProfileView::canonical()).unwrap()
    }

    fn seq_of(text: &str) -> Seq {
        let Message::Telemetry(batch) = decoded(text).message else { panic!("telemetry expected") };
        batch.readings[0].seq
    }

    #[test]
    fn a_reading_without_number_gets_one_from_its_content() {
        let first = seq_of(r#"{"time":1000,"sent":2000,"floor":"1"}"#);
        assert!(first.0 < 0);
        assert_eq!(first, seq_of(r#"{"floor":"1","time":1000,"sent":9000}"#), "sent again, other order");
        assert_ne!(first, seq_of(r#"{"time":1000,"floor":"2"}"#));
        assert_ne!(first, seq_of(r#"{"time":1001,"floor":"1"}"#));
        assert_eq!(seq_of(r#"{"time":1000,"seq":5}"#), Seq(5));
    }

    #[test]
    fn what_is_refused_of_a_message_is_told_in_words() {
        let with = |bad: usize| {
            let list = |count, load| vec![format!(r#"{{"time":0,"load_kg":{load}}}"#); count].join(",");
            let payload = format!(r#"{{"readings":[{},{}]}}"#, list(2, 75), list(bad, 99_999));
            let topic = "lift/v1/350102/t1/telemetry.json";
            decode(topic, payload.as_bytes(), ProfileView::canonical()).unwrap().refusal().unwrap().detail
        };
        assert_eq!(with(1), "1 of its readings refused, 2 taken; readings[2]: load_kg 99999 is out of range");
        assert!(with(8).ends_with("readings[9]: load_kg 99999 is out of range"));
        assert!(with(9).ends_with("; 1 more") && with(20).ends_with("; 12 more"));
        assert_eq!(decoded(r#"{"time":0}"#).refusal(), None);
    }

    #[test]
    fn what_cannot_be_decoded_says_why() {
        let refuse =
            |topic: &str, payload: &[u8]| decode(topic, payload, ProfileView::canonical()).unwrap_err();
        assert_eq!(refuse("lift/v1/1/t/telemetry", b"").reason, QuarantineReason::UnknownTopic);
        assert_eq!(refuse("lift/v1/350102/t/telemetry", b"\xff\xff").reason, QuarantineReason::Undecodable);
        assert_eq!(refuse("lift/v1/350102/t/event.json", b"hello").reason, QuarantineReason::Undecodable);
        let large = vec![0; limits::PAYLOAD_BYTES_MAX + 1];
        assert_eq!(refuse("lift/v1/350102/t/telemetry", &large).reason, QuarantineReason::TooLarge);
    }

    proptest! {
        #[test]
        fn hostile_publishes_never_panic(
            channel in prop::sample::select(vec!["telemetry", "event", "stats", "telemetry.json", "event.json", "stats.json", "x"]),
            payload in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let _ = decode(&format!("lift/v1/350102/t/{channel}"), &payload, ProfileView::canonical());
        }
    }
}
