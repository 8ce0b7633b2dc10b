//! Alarms for tests.

use domain::{
    Alarm, AlarmChange, AlarmEvent, AlarmId, AlarmState, ArrivalNo, BootId, ElevatorId, EvidenceKind,
    EvidenceLine, RuleId, Seq, Severity, TerminalId, Timestamp,
};

/// A raised S1 of its own elevator, numbered `no`.
pub(crate) fn event(no: i64) -> AlarmEvent {
    let at = Timestamp::from_micros(1_800_000_000_000_000 + no);
    let terminal_id = TerminalId::new("t-1").unwrap();
    let (elevator_id, boot, seq, kind) = (ElevatorId(no), BootId(1), Seq(no), "entrapment_between_floors");
    let id = AlarmId::derive(elevator_id, kind, &terminal_id, boot, seq, 0);
    let evidence = vec![EvidenceLine {
        evidence: EvidenceKind::StateRule,
        rule: RuleId::E1,
        rule_version: 1,
        at,
        arrival_no: ArrivalNo(no),
        trace: "stopped outside the zone for 30 s".into(),
    }];
    let alarm = Alarm {
        id,
        elevator_id,
        terminal_id,
        area: "350102".parse().unwrap(),
        kind: kind.parse().unwrap(),
        severity: Severity::S1,
        state: AlarmState::Suspected,
        score: 40,
        began: at,
        raised: at,
        cleared: None,
        acknowledged_by: None,
        acknowledged: None,
        boot,
        seq,
        floor: Some("12A".into()),
        evidence,
    };
    AlarmEvent { no: Some(no), at, change: AlarmChange::Raised, alarm }
}
