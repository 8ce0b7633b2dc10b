//! Alarms: what the rules raise, how they change, and what each is founded on.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{
    AlarmId, Area, ArrivalNo, BootId, ElevatorId, FaultKind, Seq, Severity, TerminalId, Timestamp,
    fault_by_slug,
};

/// No such name in this table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown {what} '{text}'")]
pub struct ParseSlugError {
    /// Which table.
    pub what: &'static str,
    /// What was asked for.
    pub text: String,
}

macro_rules! slugs {
    ($(#[$doc:meta])* $name:ident, $what:literal, { $($(#[$vdoc:meta])* $variant:ident = $slug:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "std::borrow::Cow<'_, str>", into = "&'static str")]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// Every value.
            pub const ALL: &[$name] = &[$($name::$variant),+];

            /// Its name everywhere: SQL, proto, metrics, pages.
            pub const fn slug(self) -> &'static str {
                match self { $($name::$variant => $slug),+ }
            }
        }

        impl From<$name> for &'static str {
            fn from(value: $name) -> Self { value.slug() }
        }

        impl FromStr for $name {
            type Err = ParseSlugError;
            fn from_str(text: &str) -> Result<Self, ParseSlugError> {
                match text {
                    $($slug => Ok($name::$variant),)+
                    _ => Err(ParseSlugError { what: $what, text: text.to_owned() }),
                }
            }
        }

        impl TryFrom<std::borrow::Cow<'_, str>> for $name {
            type Error = ParseSlugError;
            fn try_from(text: std::borrow::Cow<'_, str>) -> Result<Self, ParseSlugError> { text.parse() }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result { out.write_str(self.slug()) }
        }
    };
}

slugs! {
    /// Where a case stands (DOMAIN.md 7). Rules bring a case to `Suspected`, `Confirmed` or `Cancelled`;
    /// the other states belong to the people of the rescue.
    AlarmState, "alarm state", {
        /// 疑似: waits for an operator, or for its clock.
        Suspected = "suspected",
        /// 确认.
        Confirmed = "confirmed",
        /// 派单.
        Dispatched = "dispatched",
        /// 接单.
        Accepted = "accepted",
        /// 到场.
        OnSite = "on_site",
        /// 解救.
        Released = "released",
        /// 回访.
        Verified = "verified",
        /// 反馈.
        CauseFiled = "cause_filed",
        /// 归档.
        Archived = "archived",
        /// 误报.
        FalseAlarm = "false_alarm",
        /// 自行脱困.
        SelfReleased = "self_released",
        /// 重复.
        Duplicate = "duplicate",
        /// 取消: before dispatch, `signal_cleared` or a test.
        Cancelled = "cancelled",
        /// 事故.
        Accident = "accident",
    }
}

slugs! {
    /// What an alarm event tells.
    AlarmChange, "alarm change", {
        /// The alarm is new.
        Raised = "raised",
        /// More evidence, another score, kind or severity.
        Updated = "updated",
        /// The condition ended (解除); closes only what was not dispatched.
        Cleared = "cleared",
        /// A dispatcher has taken note; its re-sending stops.
        Acknowledged = "acknowledged",
    }
}

slugs! {
    /// A rule of DOMAIN.md 5. Stable: add, never rename.
    RuleId, "rule", {
        /// Stopped outside the zone with people.
        E1 = "e1",
        /// Door stays shut at a landing with people.
        E2 = "e2",
        /// The terminal itself reports an entrapment.
        E3 = "e3",
        /// Alarm button.
        E4 = "e4",
        /// Power or safety circuit gone with people inside.
        E5 = "e5",
        /// Stopped outside the zone, presence unknown.
        E6 = "e6",
        /// Silence with people inside.
        E7 = "e7",
        /// A fault of the taxonomy, after its debounce.
        Fault = "fault",
    }
}

slugs! {
    /// The four kinds of evidence that a confidence score counts (DOMAIN.md 5, "Confidence"), and notes.
    EvidenceKind, "evidence kind", {
        /// E1, E2, E5, or E6 once S1.
        StateRule = "state_rule",
        /// The alarm button.
        Button = "button",
        /// A device code of the entrapment family.
        DeviceCode = "device_code",
        /// A person seen by camera.
        Camera = "camera",
        /// Counts nothing: kept for the reader.
        Note = "note",
    }
}

/// The kind of an alarm: a slug of the taxonomy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AlarmKind(pub &'static FaultKind);

impl AlarmKind {
    /// The slug.
    pub fn slug(self) -> &'static str {
        self.0.slug
    }
}

impl fmt::Display for AlarmKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.0.slug)
    }
}

impl FromStr for AlarmKind {
    type Err = ParseSlugError;
    fn from_str(text: &str) -> Result<Self, ParseSlugError> {
        fault_by_slug(text)
            .map(AlarmKind)
            .ok_or_else(|| ParseSlugError { what: "alarm kind", text: text.to_owned() })
    }
}

impl Serialize for AlarmKind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.slug)
    }
}

impl<'de> Deserialize<'de> for AlarmKind {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// One ground of an alarm: which rule spoke, when, on which message, and why, in words and figures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceLine {
    /// What it counts as.
    pub evidence: EvidenceKind,
    /// The rule.
    pub rule: RuleId,
    /// Version of the rule's code and thresholds.
    pub rule_version: u32,
    /// When the rule decided (server clock).
    pub at: Timestamp,
    /// The message that brought it, in the order of arrivals; the clock's deadlines have that of the
    /// last message before them.
    pub arrival_no: ArrivalNo,
    /// The trace of the decision: the conditions with their values, thresholds with their units.
    pub trace: String,
}

/// An alarm as it stands after an event. Events carry all of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// Derived from what began it.
    pub id: AlarmId,
    /// The elevator.
    pub elevator_id: ElevatorId,
    /// The terminal that spoke first.
    pub terminal_id: TerminalId,
    /// Division of the elevator.
    pub area: Area,
    /// What is the matter.
    pub kind: AlarmKind,
    /// How grave.
    pub severity: Severity,
    /// Where the case stands.
    pub state: AlarmState,
    /// Confidence 0 to 100 (DOMAIN.md 5); 100 for faults that need no judgement.
    pub score: u8,
    /// Begin of the condition (alarm time, DOMAIN.md 5 "Timers").
    pub began: Timestamp,
    /// When it was first raised (server clock).
    pub raised: Timestamp,
    /// When the condition ended.
    pub cleared: Option<Timestamp>,
    /// Who took note, and when.
    pub acknowledged_by: Option<String>,
    /// When somebody took note.
    pub acknowledged: Option<Timestamp>,
    /// Boot of the reading that began it.
    pub boot: BootId,
    /// Sequence number of the reading that began it.
    pub seq: Seq,
    /// Floor label at the begin, if known.
    pub floor: Option<String>,
    /// The grounds, oldest first.
    pub evidence: Vec<EvidenceLine>,
}

/// One entry of the alarm stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlarmEvent {
    /// Its number in the one gapless order of commits; `None` while provisional.
    pub no: Option<i64>,
    /// Server clock when it was decided.
    pub at: Timestamp,
    /// What happened.
    pub change: AlarmChange,
    /// The alarm after it.
    pub alarm: Alarm,
}

/// A candidate that was not raised, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suppression {
    /// The elevator.
    pub elevator_id: ElevatorId,
    /// The terminal.
    pub terminal_id: TerminalId,
    /// What it would have been.
    pub kind: AlarmKind,
    /// The rule that had it in hand.
    pub rule: RuleId,
    /// Version of that rule.
    pub rule_version: u32,
    /// Begin of its condition.
    pub began: Timestamp,
    /// When it was given up (server clock).
    pub at: Timestamp,
    /// Why, as a slug: `ended_in_filter`, `inspection`, `late`, `merged`, ...
    pub reason: String,
    /// The trace of the decision.
    pub trace: String,
}

impl Severity {
    /// Whether it pages dispatch at once.
    pub fn is_life_safety(self) -> bool {
        self == Severity::S1
    }
}
