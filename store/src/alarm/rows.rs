//! Rows of `alarm` and `alarm_event` as domain types.

use domain::{Alarm, AlarmEvent, AlarmId, Area, BootId, ElevatorId, Seq, Severity, TerminalId, Timestamp};
use sqlx::types::{Json, Uuid};
use time::OffsetDateTime;

use crate::StoreError;

/// The columns of [`AlarmRow`].
macro_rules! alarm_columns {
    () => {
        "id, elevator_id, terminal_id, area, kind, severity, state, score, began, raised, cleared, \
         acknowledged_by, acknowledged, boot, seq, floor, evidence"
    };
}
pub(super) use alarm_columns;

#[derive(sqlx::FromRow)]
pub(super) struct AlarmRow {
    id: Uuid,
    elevator_id: i64,
    terminal_id: String,
    area: i32,
    kind: String,
    severity: i16,
    state: String,
    score: i16,
    began: OffsetDateTime,
    raised: OffsetDateTime,
    cleared: Option<OffsetDateTime>,
    acknowledged_by: Option<String>,
    acknowledged: Option<OffsetDateTime>,
    boot: i64,
    seq: i64,
    floor: Option<String>,
    evidence: Json<Vec<domain::EvidenceLine>>,
}

/// A value that only we write is not what we write.
fn foreign<T, E: std::fmt::Display>(column: &'static str, value: Result<T, E>) -> Result<T, StoreError> {
    value.map_err(|error| StoreError::Corrupt(format!("alarm.{column}: {error}")))
}

pub(super) fn area(number: i32) -> Result<Area, StoreError> {
    foreign(
        "area",
        u32::try_from(number)
            .map_err(|error| error.to_string())
            .and_then(|number| Area::from_number(number).map_err(|error| error.to_string())),
    )
}

impl TryFrom<AlarmRow> for Alarm {
    type Error = StoreError;
    fn try_from(row: AlarmRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: AlarmId(row.id),
            elevator_id: ElevatorId(row.elevator_id),
            terminal_id: foreign("terminal_id", TerminalId::new(&row.terminal_id))?,
            area: area(row.area)?,
            kind: foreign("kind", row.kind.parse())?,
            severity: foreign(
                "severity",
                Severity::from_number(i64::from(row.severity)).ok_or_else(|| row.severity.to_string()),
            )?,
            state: foreign("state", row.state.parse())?,
            score: foreign("score", u8::try_from(row.score))?,
            began: row.began.into(),
            raised: row.raised.into(),
            cleared: row.cleared.map(Timestamp::from),
            acknowledged_by: row.acknowledged_by,
            acknowledged: row.acknowledged.map(Timestamp::from),
            boot: BootId(foreign("boot", u32::try_from(row.boot))?),
            seq: Seq(row.seq),
            floor: row.floor,
            evidence: row.evidence.0,
        })
    }
}

#[derive(sqlx::FromRow)]
pub(super) struct EventRow {
    no: i64,
    at: OffsetDateTime,
    change: String,
    alarm: Json<Alarm>,
}

impl TryFrom<EventRow> for AlarmEvent {
    type Error = StoreError;
    fn try_from(row: EventRow) -> Result<Self, StoreError> {
        Ok(Self {
            no: Some(row.no),
            at: row.at.into(),
            change: foreign("change", row.change.parse())?,
            alarm: row.alarm.0,
        })
    }
}

pub(super) fn alarms(rows: Vec<AlarmRow>) -> Result<Vec<Alarm>, StoreError> {
    rows.into_iter().map(Alarm::try_from).collect()
}

pub(super) fn events(rows: Vec<EventRow>) -> Result<Vec<AlarmEvent>, StoreError> {
    rows.into_iter().map(AlarmEvent::try_from).collect()
}
