//! What reading a payload with a profile did, step by step: for `liftwatch profile try`.

use domain::Message;
use serde::Serialize;
use serde_json::Value;

use super::ProfileView;
use super::read::Vendor;
use crate::decode::{Decoded, decode};
use crate::topic::Channel;

/// One value of the payload.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FieldLine {
    /// The vendor's name, nested ones with dots.
    pub name: String,
    /// What was sent.
    pub raw: Value,
    /// The canonical field.
    pub field: &'static str,
    /// What it became.
    pub value: String,
    /// The profile does not say what it means.
    pub unmapped: bool,
}

/// One code of the payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CodeLine {
    /// As it is kept.
    pub raw: String,
    /// Its meaning.
    pub slug: &'static str,
    /// In English.
    pub english: &'static str,
    /// 中文.
    pub chinese: &'static str,
    /// S1 to S4.
    pub severity: String,
    /// What the profile says besides.
    pub detail: Option<String>,
}

/// Everything that was looked at, in order.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Trace {
    /// Values that became something.
    pub fields: Vec<FieldLine>,
    /// Codes.
    pub codes: Vec<CodeLine>,
    /// Names that no profile entry takes.
    pub ignored: Vec<String>,
}

/// How a payload is read.
#[derive(Debug, Clone, PartialEq)]
pub struct Tried {
    /// The message, or why there is none.
    pub message: Result<Message, String>,
    /// What of it is not taken, and why.
    pub refused: Option<String>,
    /// Values read as unknown.
    pub unmapped: u32,
    /// What was looked at, as far as it came.
    pub trace: Trace,
}

/// Reads a JSON payload as a server would, and says what it did. A profile of the open JSON is strict: the trace
/// then shows what was looked at, and `message` has the last word.
pub fn try_read(channel: Channel, payload: &[u8], view: ProfileView<'_>) -> Tried {
    let mut vendor = Vendor::traced(view);
    let name = match channel {
        Channel::Telemetry => {
            let _ = vendor.telemetry(payload);
            "telemetry"
        }
        Channel::Event => {
            let _ = vendor.events(payload);
            "event"
        }
        Channel::Stats => {
            let _ = vendor.statistics(payload);
            "stats"
        }
    };
    let decoded = decode(&format!("lift/v1/000000/t/{name}.json"), payload, view);
    Tried {
        unmapped: decoded.as_ref().map_or(0, |decoded| decoded.unmapped),
        refused: decoded
            .as_ref()
            .map_or_else(|whole| Some(whole.clone()), Decoded::refusal)
            .map(|why| why.detail),
        message: decoded.map(|decoded| decoded.message).map_err(|refused| refused.detail),
        trace: vendor.trace.unwrap_or_default(),
    }
}
