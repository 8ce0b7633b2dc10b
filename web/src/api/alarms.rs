//! Alarms, open and past. Names of people are not in the open API (DOMAIN.md 8); the dispatch service has them.

use std::str::FromStr;

use axum::Json;
use axum::extract::{Path, State as FromState};
use domain::{Alarm, AlarmEvent, AlarmId, Area, ElevatorId, EvidenceLine, Severity, Timestamp};
use serde::{Deserialize, Serialize};
use store::{AlarmCursor, AlarmFilter};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::extract::{Params, limit, parse, parse_option};
use super::moment::Moment;
use super::query::ask;
use crate::problem::Problem;
use crate::state::State;

/// Which alarms.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// Only those whose condition lasts and whose case nobody has ended.
    #[serde(default)]
    open_only: bool,
    /// Only those of this division or region (GB/T 2260): `350102`, or `350100` for the whole city.
    #[param(example = "350100")]
    area: Option<String>,
    /// The least grave severity: `S2` gives S1 and S2.
    #[param(example = "S2")]
    severity_min: Option<String>,
    /// Only those of this elevator.
    elevator_id: Option<i64>,
    /// Items of this page, 1 to 500; 100 if left out.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// One page of alarms, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AlarmPage {
    /// The alarms.
    items: Vec<AlarmView>,
    /// `cursor` of the next page; null on the last one.
    next: Option<String>,
}

/// An alarm as it stands.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AlarmView {
    /// Its id.
    alarm_id: Uuid,
    /// The elevator.
    elevator_id: i64,
    /// The terminal that spoke first.
    terminal_id: String,
    /// Division of the elevator (GB/T 2260).
    #[schema(example = "350102")]
    area: String,
    /// What is the matter: a name of the fault taxonomy.
    #[schema(example = "entrapment_between_floors")]
    kind: &'static str,
    /// The same in Chinese.
    #[schema(example = "非平层困人")]
    kind_chinese: &'static str,
    /// The same in English.
    #[schema(example = "shut in between floors")]
    kind_english: &'static str,
    /// S1 life safety, S2 unsafe or dead, S3 degraded, S4 information.
    #[schema(example = "S1")]
    severity: String,
    /// Where the case stands.
    #[schema(example = "confirmed")]
    state: &'static str,
    /// Confidence, 0 to 100.
    score: u8,
    /// Begin of the condition.
    began: Moment,
    /// When it was first raised, by the server's clock.
    raised: Moment,
    /// When the condition ended.
    cleared: Option<Moment>,
    /// When a dispatcher took note.
    acknowledged: Option<Moment>,
    /// Boot of the terminal and sequence number of the reading that began it.
    boot: u32,
    /// See `boot`; negative where the terminal gave no number.
    seq: i64,
    /// Floor at the begin.
    floor: Option<String>,
}

/// An alarm with its grounds and its history.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AlarmDetail {
    /// As it stands.
    #[serde(flatten)]
    alarm: AlarmView,
    /// The grounds, oldest first.
    evidence: Vec<EvidenceView>,
    /// What happened to it, oldest first, as far as it is kept.
    events: Vec<EventView>,
}

/// One ground of an alarm.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EvidenceView {
    /// What it counts as.
    #[schema(example = "state_rule")]
    evidence: &'static str,
    /// The rule.
    #[schema(example = "e1")]
    rule: &'static str,
    /// Version of the rule and its thresholds.
    rule_version: u32,
    /// When the rule decided, by the server's clock.
    at: Moment,
    /// The conditions with their values, the thresholds with their units.
    trace: String,
}

/// One thing that happened to an alarm.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EventView {
    /// Its number in the one order of all alarm events.
    no: Option<i64>,
    /// When, by the server's clock.
    at: Moment,
    /// raised, updated, cleared or acknowledged.
    change: &'static str,
    /// Severity after it.
    #[schema(example = "S1")]
    severity: String,
    /// State of the case after it.
    state: &'static str,
    /// Confidence after it.
    score: u8,
}

impl From<&Alarm> for AlarmView {
    fn from(alarm: &Alarm) -> Self {
        Self {
            alarm_id: alarm.id.0,
            elevator_id: alarm.elevator_id.0,
            terminal_id: alarm.terminal_id.to_string(),
            area: alarm.area.to_string(),
            kind: alarm.kind.slug(),
            kind_chinese: alarm.kind.0.chinese,
            kind_english: alarm.kind.0.english,
            severity: alarm.severity.to_string(),
            state: alarm.state.slug(),
            score: alarm.score,
            began: Moment(alarm.began),
            raised: Moment(alarm.raised),
            cleared: alarm.cleared.map(Moment),
            acknowledged: alarm.acknowledged.map(Moment),
            boot: alarm.boot.0,
            seq: alarm.seq.0,
            floor: alarm.floor.clone(),
        }
    }
}

impl From<&EvidenceLine> for EvidenceView {
    fn from(line: &EvidenceLine) -> Self {
        Self {
            evidence: line.evidence.slug(),
            rule: line.rule.slug(),
            rule_version: line.rule_version,
            at: Moment(line.at),
            trace: line.trace.clone(),
        }
    }
}

impl From<&AlarmEvent> for EventView {
    fn from(event: &AlarmEvent) -> Self {
        Self {
            no: event.no,
            at: Moment(event.at),
            change: event.change.slug(),
            severity: event.alarm.severity.to_string(),
            state: event.alarm.state.slug(),
            score: event.alarm.score,
        }
    }
}

/// A place in the list, as text: microseconds and id of the last alarm before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cursor(AlarmCursor);

impl std::fmt::Display for Cursor {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}_{}", self.0.raised.micros(), self.0.id)
    }
}

impl FromStr for Cursor {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let (micros, id) = text.split_once('_').ok_or(())?;
        let raised = Timestamp::from_micros(micros.parse().map_err(|_| ())?);
        raised.to_utc().ok_or(())?; // the store knows no other times
        let id = AlarmId(id.parse().map_err(|_| ())?);
        Ok(Self(AlarmCursor { raised, id }))
    }
}

impl ListParams {
    fn filter(&self) -> Result<AlarmFilter, Problem> {
        let area: Option<Area> = parse_option("area", self.area.as_deref(), "350102")?;
        let severity_min: Option<Severity> =
            parse_option("severity_min", self.severity_min.as_deref(), "S1, S2, S3 or S4")?;
        Ok(AlarmFilter {
            areas: area.into_iter().collect(),
            severity_min,
            open_only: self.open_only,
            elevator_id: self.elevator_id.map(ElevatorId),
        })
    }
}

/// Alarms, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/alarms",
    operation_id = "alarm_list",
    tag = "alarms",
    params(ListParams),
    responses((status = 200, body = AlarmPage, description = "One page"),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "A parameter is wrong"),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "Try again later"))
)]
pub(crate) async fn list(
    FromState(state): FromState<State>,
    Params(params): Params<ListParams>,
) -> Result<Json<AlarmPage>, Problem> {
    let limit = limit(params.limit)?;
    let filter = params.filter()?;
    let after: Option<Cursor> = parse_option("cursor", params.cursor.as_deref(), "the `next` of a page")?;
    let after = after.map(|cursor| cursor.0);
    let alarms = ask(&state, state.parts.database.alarm_list(&filter, after, limit)).await?;
    let full = alarms.len() == limit as usize;
    let place = |last: &Alarm| Cursor(AlarmCursor { raised: last.raised, id: last.id }).to_string();
    let next = alarms.last().filter(|_| full).map(place);
    Ok(Json(AlarmPage { items: alarms.iter().map(AlarmView::from).collect(), next }))
}

/// One alarm with its grounds and its history.
#[utoipa::path(
    get,
    path = "/api/v1/alarms/{alarm_id}",
    operation_id = "alarm_get",
    tag = "alarms",
    params(("alarm_id" = Uuid, Path, description = "Id of the alarm")),
    responses((status = 200, body = AlarmDetail, description = "The alarm"),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "The id is none"),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "Try again later"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such alarm"))
)]
pub(crate) async fn one(
    FromState(state): FromState<State>,
    Path(alarm_id): Path<String>,
) -> Result<Json<AlarmDetail>, Problem> {
    let id = AlarmId(parse("alarm_id", &alarm_id, "18081f82-f75c-55a7-bc4c-e282e51ede82")?);
    let Some(record) = ask(&state, state.parts.database.alarm_get(id)).await? else {
        let detail = format!("no alarm {id} is stored; /api/v1/alarms lists those that are");
        return Err(Problem::not_found(detail));
    };
    Ok(Json(AlarmDetail {
        alarm: AlarmView::from(&record.alarm),
        evidence: record.alarm.evidence.iter().map(EvidenceView::from).collect(),
        events: record.events.iter().map(EventView::from).collect(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn cursors_round_trip(micros in 0_i64..4_000_000_000_000_000, id: u128) {
            let place = AlarmCursor {
                raised: Timestamp::from_micros(micros),
                id: AlarmId(Uuid::from_u128(id)),
            };
            prop_assert_eq!(Cursor(place).to_string().parse(), Ok(Cursor(place)));
        }

        #[test]
        fn other_texts_are_no_cursors(text: String) {
            if let Ok(cursor) = text.parse::<Cursor>() {
                prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
            }
        }
    }
}
