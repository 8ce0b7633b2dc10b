//! Between alarms of the domain and messages of `liftwatch.dispatch.v1`. Towards the wire the conversions
//! are total; from the wire, for clients, they check every field.

use domain::{
    Alarm, AlarmChange, AlarmEvent, AlarmId, AlarmState, Area, ArrivalNo, BootId, ElevatorId, EvidenceLine,
    IdError, ParseSlugError, Seq, Severity, TerminalId, Timestamp,
};

use crate::dispatch::v1;

/// Why a message from the wire is not an alarm.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AlarmError {
    /// A text that should be a UUID.
    #[error("an alarm id is a UUID, such as 18081f82-f75c-55a7-bc4c-e282e51ede82")]
    AlarmId,
    /// A terminal or an area.
    #[error(transparent)]
    Id(#[from] IdError),
    /// A kind, rule or kind of evidence that is not in its table.
    #[error(transparent)]
    Slug(#[from] ParseSlugError),
    /// A number outside its table or range, or a message that is missing.
    #[error("{field} is missing or out of range")]
    Field {
        /// Which.
        field: &'static str,
    },
}

/// Reads an alarm id.
pub fn alarm_id(text: &str) -> Result<AlarmId, AlarmError> {
    uuid::Uuid::try_parse(text).map(AlarmId).map_err(|_| AlarmError::AlarmId)
}

/// A severity from the wire; `None` if unspecified.
pub fn severity(number: i32) -> Result<Option<Severity>, AlarmError> {
    match number {
        0 => Ok(None),
        _ => {
            Severity::from_number(i64::from(number)).map(Some).ok_or(AlarmError::Field { field: "severity" })
        }
    }
}

impl From<Severity> for v1::Severity {
    fn from(severity: Severity) -> Self {
        match severity {
            Severity::S1 => Self::S1,
            Severity::S2 => Self::S2,
            Severity::S3 => Self::S3,
            Severity::S4 => Self::S4,
        }
    }
}

macro_rules! same_names {
    ($domain:ident, $field:literal, { $($variant:ident),+ $(,)? }) => {
        impl From<$domain> for v1::$domain {
            fn from(value: $domain) -> Self {
                match value { $($domain::$variant => Self::$variant),+ }
            }
        }

        impl TryFrom<v1::$domain> for $domain {
            type Error = AlarmError;
            fn try_from(value: v1::$domain) -> Result<Self, AlarmError> {
                match value {
                    v1::$domain::Unspecified => Err(AlarmError::Field { field: $field }),
                    $(v1::$domain::$variant => Ok(Self::$variant)),+
                }
            }
        }
    };
}

same_names!(AlarmState, "state", {
    Suspected, Confirmed, Dispatched, Accepted, OnSite, Released, Verified, CauseFiled, Archived, FalseAlarm,
    SelfReleased, Duplicate, Cancelled, Accident,
});
same_names!(AlarmChange, "change", { Raised, Updated, Cleared, Acknowledged });

impl From<&Alarm> for v1::Alarm {
    fn from(alarm: &Alarm) -> Self {
        Self {
            id: alarm.id.to_string(),
            elevator_id: alarm.elevator_id.0,
            terminal_id: alarm.terminal_id.to_string(),
            area: alarm.area.to_string(),
            kind: alarm.kind.slug().to_owned(),
            severity: v1::Severity::from(alarm.severity) as i32,
            state: v1::AlarmState::from(alarm.state) as i32,
            score: u32::from(alarm.score),
            began_us: alarm.began.micros(),
            raised_us: alarm.raised.micros(),
            cleared_us: alarm.cleared.map(Timestamp::micros),
            acknowledged_by: alarm.acknowledged_by.clone(),
            acknowledged_us: alarm.acknowledged.map(Timestamp::micros),
            floor: alarm.floor.clone(),
            evidence: alarm.evidence.iter().map(v1::EvidenceLine::from).collect(),
            boot: alarm.boot.0,
            seq: alarm.seq.0,
        }
    }
}

impl TryFrom<v1::Alarm> for Alarm {
    type Error = AlarmError;
    fn try_from(sent: v1::Alarm) -> Result<Self, AlarmError> {
        let (found_severity, found_state) = (severity(sent.severity)?, sent.state());
        Ok(Self {
            id: alarm_id(&sent.id)?,
            elevator_id: ElevatorId(sent.elevator_id),
            terminal_id: TerminalId::new(&sent.terminal_id)?,
            area: sent.area.parse::<Area>()?,
            kind: sent.kind.parse()?,
            severity: found_severity.ok_or(AlarmError::Field { field: "severity" })?,
            state: found_state.try_into()?,
            score: u8::try_from(sent.score)
                .ok()
                .filter(|score| *score <= 100)
                .ok_or(AlarmError::Field { field: "score" })?,
            began: Timestamp::from_micros(sent.began_us),
            raised: Timestamp::from_micros(sent.raised_us),
            cleared: sent.cleared_us.map(Timestamp::from_micros),
            acknowledged_by: sent.acknowledged_by,
            acknowledged: sent.acknowledged_us.map(Timestamp::from_micros),
            boot: BootId(sent.boot),
            seq: Seq(sent.seq),
            floor: sent.floor,
            evidence: sent.evidence.into_iter().map(EvidenceLine::try_from).collect::<Result<_, _>>()?,
        })
    }
}

impl From<&EvidenceLine> for v1::EvidenceLine {
    fn from(line: &EvidenceLine) -> Self {
        Self {
            evidence: line.evidence.slug().to_owned(),
            rule: line.rule.slug().to_owned(),
            rule_version: line.rule_version,
            at_us: line.at.micros(),
            arrival_no: line.arrival_no.0,
            trace: line.trace.clone(),
        }
    }
}

impl TryFrom<v1::EvidenceLine> for EvidenceLine {
    type Error = AlarmError;
    fn try_from(sent: v1::EvidenceLine) -> Result<Self, AlarmError> {
        Ok(Self {
            evidence: sent.evidence.parse()?,
            rule: sent.rule.parse()?,
            rule_version: sent.rule_version,
            at: Timestamp::from_micros(sent.at_us),
            arrival_no: ArrivalNo(sent.arrival_no),
            trace: sent.trace,
        })
    }
}

/// An event as one stream sends it: `prev` is the number sent before it there.
pub fn event(event: &AlarmEvent, prev: i64) -> v1::AlarmEvent {
    v1::AlarmEvent {
        no: event.no.unwrap_or(0),
        prev,
        provisional: event.no.is_none(),
        at_us: event.at.micros(),
        change: v1::AlarmChange::from(event.change) as i32,
        alarm: Some(v1::Alarm::from(&event.alarm)),
        repeated: false,
    }
}

impl TryFrom<v1::AlarmEvent> for AlarmEvent {
    type Error = AlarmError;
    fn try_from(sent: v1::AlarmEvent) -> Result<Self, AlarmError> {
        let change = sent.change().try_into()?;
        Ok(Self {
            no: (!sent.provisional).then_some(sent.no),
            at: Timestamp::from_micros(sent.at_us),
            change,
            alarm: sent.alarm.ok_or(AlarmError::Field { field: "alarm" })?.try_into()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{EvidenceKind, RuleId};
    use prost::Message;

    fn alarm() -> Alarm {
        Alarm {
            id: alarm_id("18081f82-f75c-55a7-bc4c-e282e51ede82").unwrap(),
            elevator_id: ElevatorId(7),
            terminal_id: TerminalId::new("t-1").unwrap(),
            area: "350102".parse().unwrap(),
            kind: "entrapment_between_floors".parse().unwrap(),
            severity: Severity::S1,
            state: AlarmState::Suspected,
            score: 70,
            began: Timestamp::from_micros(1),
            raised: Timestamp::from_micros(30_000_001),
            cleared: None,
            acknowledged_by: Some("seat 4".into()),
            acknowledged: Some(Timestamp::from_micros(31_000_000)),
            boot: BootId(u32::MAX),
            seq: Seq(-5),
            floor: Some("12A".into()),
            evidence: vec![EvidenceLine {
                evidence: EvidenceKind::StateRule,
                rule: RuleId::E1,
                rule_version: 1,
                at: Timestamp::from_micros(30_000_001),
                arrival_no: ArrivalNo(9),
                trace: "stopped 30 s".into(),
            }],
        }
    }

    #[test]
    fn every_state_and_change_crosses_the_wire() {
        for state in AlarmState::ALL {
            assert_eq!(AlarmState::try_from(v1::AlarmState::from(*state)), Ok(*state));
        }
        for change in AlarmChange::ALL {
            let no = (*change != AlarmChange::Updated).then_some(12);
            let before = AlarmEvent { no, at: Timestamp::from_micros(5), change: *change, alarm: alarm() };
            let bytes = event(&before, 3).encode_to_vec();
            let sent = v1::AlarmEvent::decode(bytes.as_slice()).unwrap();
            assert_eq!((sent.prev, sent.provisional), (3, no.is_none()));
            assert_eq!(AlarmEvent::try_from(sent), Ok(before));
        }
    }

    #[test]
    fn a_hostile_alarm_is_refused() {
        let good = v1::Alarm::from(&alarm());
        let refused = |change: fn(&mut v1::Alarm)| {
            let mut bad = good.clone();
            change(&mut bad);
            Alarm::try_from(bad).unwrap_err()
        };
        assert_eq!(refused(|alarm| alarm.id = "x".into()), AlarmError::AlarmId);
        assert_eq!(refused(|alarm| alarm.score = 101), AlarmError::Field { field: "score" });
        assert_eq!(refused(|alarm| alarm.severity = 0), AlarmError::Field { field: "severity" });
        assert_eq!(refused(|alarm| alarm.severity = 9), AlarmError::Field { field: "severity" });
        assert_eq!(refused(|alarm| alarm.state = 99), AlarmError::Field { field: "state" });
        assert_eq!(refused(|alarm| alarm.area = "35".into()), AlarmError::Id(IdError::Area));
        assert!(matches!(refused(|alarm| alarm.kind = "nonsense".into()), AlarmError::Slug(_)));
    }
}
