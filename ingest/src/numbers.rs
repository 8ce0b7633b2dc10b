//! The sequence numbers of a message that is not taken: read as far as they can be, so that its place in the
//! sequence is accounted for while it is in quarantine. Only what the message itself says plainly counts.

use domain::{BootId, TerminalId, limits};
use serde_json::Value;
use store::{QuarantineEntry, SeqRanges};

use crate::{ProfileView, decode};

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
        let numbers = store::message_numbers(&decoded.message);
        return entry.numbered(&terminal_id, decoded.message.boot(), numbers);
    }
    match peek(payload) {
        Some((boot, numbers)) => entry.numbered(&terminal_id, boot, numbers),
        None => entry,
    }
}

/// `boot` and all `seq` of a JSON object whose other fields may be anything. Without `boot` nothing: a terminal's
/// profile may name it otherwise, and numbers must not be claimed for a boot that is not theirs.
fn peek(payload: &[u8]) -> Option<(BootId, SeqRanges)> {
    let value: Value = serde_json::from_slice(payload).ok()?;
    let boot = u32::try_from(value.get("boot")?.as_u64()?).ok()?;
    let seq = |one: &Value| one.get("seq").and_then(Value::as_i64).map(|seq| (seq, seq));
    let lists = ["readings", "events"].iter().filter_map(|list| value.get(*list)?.as_array()).flatten();
    Some((BootId(boot), lists.chain([&value]).filter_map(seq).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(payload: &str, expected: &[(i64, i64)]) {
        let found = peek(payload.as_bytes()).map(|(_, numbers)| numbers.as_slice().to_vec());
        assert_eq!(found.unwrap_or_default(), expected, "{payload}");
    }

    #[test]
    fn numbers_are_found_beside_what_cannot_be_read() {
        check(r#"{"boot":7,"seq":5,"time":"noon"}"#, &[(5, 5)]);
        check(
            r#"{"boot":7,"readings":[{"seq":5},{"seq":6,"load_kg":"much"},{"seq":9},{}]}"#,
            &[(5, 6), (9, 9)],
        );
        check(r#"{"boot":7,"events":[{"seq":2}],"seq":"x"}"#, &[(2, 2)]);
        check(r#"{"boot":-1,"seq":5}"#, &[]);
        check(r#"{"boot":7,"seq":-5}"#, &[]);
        check(r#"{"Boot_Count":7,"seq":5,"time":"noon"}"#, &[]);
        check("[1,2]", &[]);
        check("nothing", &[]);
    }
}
