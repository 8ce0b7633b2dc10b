//! The sequence numbers of a message that is not taken: read as far as they can be, so that its place in the
//! sequence is accounted for while it is in quarantine. Only what the message itself says plainly counts.

use domain::{BootId, TerminalId, limits};
use serde::Deserialize;
use serde_json::Value;
use store::{QuarantineEntry, SeqRanges};

use crate::json::Whole;
use crate::topic::{Channel, Topic};
use crate::{Decoded, ProfileView, decode};

/// The entry with its numbers, where they are known.
pub(crate) fn known(
    entry: QuarantineEntry,
    topic: &str,
    payload: &[u8],
    view: ProfileView<'_>,
) -> QuarantineEntry {
    if payload.len() > limits::PAYLOAD_BYTES_MAX {
        return entry;
    }
    let Ok(terminal_id) = TerminalId::new(&entry.terminal_id) else { return entry };
    // Whole messages of terminals that are not known, or switched off.
    if let Ok(decoded) = decode(topic, payload, view) {
        let mut numbers = store::message_numbers(&decoded.message);
        numbers.extend(&refused(&decoded));
        return entry.numbered(&terminal_id, decoded.message.boot(), numbers);
    }
    let Ok(topic) = topic.parse::<Topic>() else { return entry };
    match peek(topic.channel, payload) {
        Some((boot, numbers)) => entry.numbered(&terminal_id, boot, numbers),
        None => entry,
    }
}

/// The numbers of what is refused of it, where it tells them.
pub(crate) fn refused(decoded: &Decoded) -> SeqRanges {
    decoded.refused.iter().filter_map(|one| one.seq).map(|seq| (seq.0, seq.0)).collect()
}

/// `boot` and all `seq` of a JSON object whose other fields may be anything, where a decoder would read them. Without
/// `boot` nothing: a terminal's profile may name it otherwise, and numbers must not be claimed for a boot that is not
/// theirs. With more than a message may hold nothing either: no terminal sends that many.
fn peek(channel: Channel, payload: &[u8]) -> Option<(BootId, SeqRanges)> {
    let value: Value = serde_json::from_slice(payload).ok()?;
    let boot = Whole::<u32>::deserialize(value.get("boot")?).ok()?.0;
    let given = |name: &str| value.get(name).filter(|value| !value.is_null());
    let (list, most) = match channel {
        Channel::Telemetry => (given("readings"), limits::BATCH_READINGS_MAX),
        Channel::Event => (given("events"), limits::BATCH_EVENTS_MAX),
        Channel::Stats => (None, 1),
    };
    // Beside a list the object's own number is that of an event, if it is one.
    let is_alone = match channel {
        Channel::Event if list.is_some() || given("active").is_some() => {
            given("code").is_some() && given("state").is_some()
        }
        _ => list.is_none(),
    };
    let listed = list.and_then(Value::as_array).into_iter().flatten();
    let parts: Vec<&Value> = listed.chain(Some(&value).filter(|_| is_alone)).take(most + 1).collect();
    let seq = |one: &&Value| Some(Whole::<i64>::deserialize(one.get("seq")?).ok()?.0);
    let numbers = parts.iter().filter_map(seq).map(|seq| (seq, seq)).collect();
    (parts.len() <= most).then_some((BootId(boot), numbers))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(channel: Channel, payload: &str, expected: &[(i64, i64)]) {
        let found = peek(channel, payload.as_bytes()).map(|(_, numbers)| numbers.as_slice().to_vec());
        assert_eq!(found.unwrap_or_default(), expected, "{payload}");
    }

    #[test]
    fn numbers_are_found_beside_what_cannot_be_read() {
        let check = |payload, expected: &[_]| check(Channel::Telemetry, payload, expected);
        check(r#"{"boot":7,"seq":5,"time":"noon"}"#, &[(5, 5)]);
        check(r#"{"boot":7.0,"seq":5.0,"time":"noon"}"#, &[(5, 5)]);
        check(
            r#"{"boot":7,"readings":[{"seq":5},{"seq":6,"load_kg":"much"},{"seq":9},{}]}"#,
            &[(5, 6), (9, 9)],
        );
        check(r#"{"boot":-1,"seq":5}"#, &[]);
        check(r#"{"boot":7,"seq":-5}"#, &[]);
        check(r#"{"Boot_Count":7,"seq":5,"time":"noon"}"#, &[]);
        check("[1,2]", &[]);
        check("nothing", &[]);
    }

    /// What the decoder would not read as a number of the message is not claimed as one.
    #[test]
    fn numbers_are_those_of_the_topic_alone() {
        check(
            Channel::Telemetry,
            r#"{"boot":7,"seq":5,"readings":[{"seq":9}],"events":[{"seq":2}]}"#,
            &[(9, 9)],
        );
        check(Channel::Telemetry, r#"{"boot":7,"seq":5,"readings":{}}"#, &[]);
        check(Channel::Event, r#"{"boot":7,"events":[{"seq":2}],"readings":[{"seq":9}],"seq":5}"#, &[(2, 2)]);
        check(
            Channel::Event,
            r#"{"boot":7,"events":[{"seq":2}],"seq":5,"code":"x","state":"ajar"}"#,
            &[(2, 2), (5, 5)],
        );
        check(Channel::Event, r#"{"boot":7,"seq":5,"code":"x"}"#, &[(5, 5)]);
        check(Channel::Event, r#"{"boot":7,"seq":5,"active":"x"}"#, &[]);
        check(Channel::Stats, r#"{"boot":7,"seq":5,"readings":[{"seq":9}]}"#, &[(5, 5)]);
    }

    #[test]
    fn more_than_a_message_may_hold_claims_no_number() {
        let many = |list: &str, count: usize| {
            let parts: Vec<String> = (1..=count).map(|seq| format!(r#"{{"seq":{seq}}}"#)).collect();
            format!(r#"{{"boot":7,"{list}":[{}]}}"#, parts.join(","))
        };
        check(Channel::Telemetry, &many("readings", 1_000), &[(1, 1_000)]);
        check(Channel::Telemetry, &many("readings", 1_001), &[]);
        check(Channel::Event, &many("events", 256), &[(1, 256)]);
        check(Channel::Event, &many("events", 257), &[]);
    }
}
