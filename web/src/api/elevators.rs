//! Elevators and their latest state.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State as FromState};
use domain::{Area, CarStatus, Direction, DoorState, ElevatorId, Passengers, ServiceMode, Timestamp};
use serde::{Deserialize, Serialize};
use store::{ElevatorRecord, FaultPeriodRecord, LatestState, TerminalPresence};
use utoipa::{IntoParams, ToSchema};

use super::extract::{Params, limit, parse, parse_option};
use super::moment::Moment;
use super::query::ask;
use crate::problem::Problem;
use crate::state::{State, now};

/// Which elevators.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// Only those of this division or region (GB/T 2260): `350102`, or `350100` for the whole city.
    #[param(example = "350100")]
    area: Option<String>,
    /// Items of this page, 1 to 500; 100 if left out.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// One page of elevators, in the order of their ids.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ElevatorPage {
    /// The elevators.
    items: Vec<ElevatorView>,
    /// `cursor` of the next page; null on the last one.
    next: Option<String>,
}

/// An elevator of the registry and the latest that is known about it.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct ElevatorView {
    /// Liftwatch's own number of the elevator.
    elevator_id: i64,
    /// Division (GB/T 2260).
    #[schema(example = "350102")]
    area: String,
    /// What people call it.
    name: Option<String>,
    /// Registration code (注册代码).
    #[schema(example = "31103501022016000123")]
    registration_code: Option<String>,
    /// Its terminals that are switched on. The elevator is as well connected as the worst of them.
    terminals: Vec<TerminalView>,
    /// Latest state; null until its terminal has sent something.
    state: Option<StateView>,
}

/// An elevator with the faults that last.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ElevatorDetail {
    /// The elevator.
    #[serde(flatten)]
    elevator: ElevatorView,
    /// Faults and modes that last, oldest first: what its terminals told, and what the server sees itself, such as
    /// `clock_skew`.
    faults: Vec<FaultView>,
}

/// A fault that lasts.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FaultView {
    /// Whose.
    terminal_id: String,
    /// Its code as sent.
    #[schema(example = "5")]
    code: String,
    /// Its name in the fault taxonomy; `unknown_code` where it is not mapped.
    #[schema(example = "stop_outside_zone")]
    kind: &'static str,
    /// The same in Chinese.
    kind_chinese: &'static str,
    /// The same in English.
    kind_english: &'static str,
    /// Its begin, by the terminal's clock corrected by the server's.
    began: Moment,
    /// What told it: `event`, `list` (of active codes) or `server`.
    #[schema(example = "event")]
    opened_by: &'static str,
}

/// A terminal and its connection.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct TerminalView {
    /// The terminal.
    #[schema(example = "fz-000123")]
    terminal_id: String,
    /// `online`, `away` (not connected, for less than 180 s) or `offline`; null until it has connected once.
    #[schema(example = "online")]
    presence: Option<&'static str>,
    /// Why it came or went, in one word: `connected`, `keep_alive`, `disconnected`, `gone`, `server_restart`...
    #[schema(example = "connected")]
    reason: Option<String>,
    /// Connected since; or without a sign of life since.
    since: Option<Moment>,
    /// Its last message or sign of life, by the server's clock.
    last_seen: Option<Moment>,
}

/// The latest state; what is not known is null. Names and numbers are those of the open telemetry JSON and GB/T 24476-2017.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct StateView {
    /// The terminal that spoke last.
    terminal_id: String,
    /// Whether it is connected; null while that is not known.
    online: Option<bool>,
    /// Its last sign of life, by the server's clock.
    last_seen: Option<Moment>,
    /// Time of the latest reading, by the terminal's clock.
    time: Option<Moment>,
    /// How old this state is, by the server's clock.
    age_ms: i64,
    /// 0 out of service, 1 normal, 2 inspection, 3 fire recall, 4 firefighter, 5 emergency power,
    /// 6 earthquake, 7 unknown.
    service_mode: Option<i16>,
    /// 0 stopped, 1 running.
    car_status: Option<i16>,
    /// 0 none, 1 up, 2 down.
    car_direction: Option<i16>,
    /// The car is in the unlocking zone.
    door_zone: Option<bool>,
    /// 0 unknown, 1 closing, 2 closed, 3 opening, 4 open, 5 locked, 6 held not fully closed, 7 not closed.
    door_state: Option<i16>,
    /// Somebody is in the car, as the sensor says.
    passengers: Option<bool>,
    /// Somebody is in the car, as the rules judge: remembered while the doors stay shut.
    people: Option<bool>,
    /// Displayed floor.
    #[schema(example = "B1")]
    floor: Option<String>,
    /// Floor counted from the lowest stop.
    floor_ordinal: Option<i16>,
    /// Height above the lowest stop, in mm.
    position_mm: Option<i32>,
    /// Speed in mm/s, up positive.
    velocity_mm_s: Option<i32>,
    /// Load in kg.
    load_kg: Option<i16>,
    /// Active fault and event codes, as sent.
    codes: Vec<String>,
    /// Their meanings in the fault taxonomy, in the same order.
    code_slugs: Vec<String>,
}

impl ElevatorView {
    fn of(record: ElevatorRecord, terminals: Vec<TerminalView>, now: Timestamp) -> Self {
        Self {
            terminals,
            elevator_id: record.elevator_id.0,
            area: record.area.to_string(),
            name: record.name,
            registration_code: record.registration_code,
            state: record.latest.map(|latest| StateView::of(latest, now)),
        }
    }
}

impl From<&FaultPeriodRecord> for FaultView {
    fn from(record: &FaultPeriodRecord) -> Self {
        let code = &record.period.code;
        Self {
            terminal_id: record.terminal_id.to_string(),
            code: code.raw.to_string(),
            kind: code.fault.slug,
            kind_chinese: code.fault.chinese,
            kind_english: code.fault.english,
            began: Moment(record.period.opened),
            opened_by: record.period.opened_by.slug(),
        }
    }
}

impl TerminalView {
    fn of(terminal: TerminalPresence, now: Timestamp, offline_after: Duration) -> Self {
        let known = terminal.presence;
        Self {
            terminal_id: terminal.terminal_id.to_string(),
            presence: known.as_ref().map(|known| known.state(now, offline_after).as_str()),
            since: known.as_ref().map(|known| Moment(known.since)),
            last_seen: known.as_ref().map(|known| Moment(known.last_seen)),
            reason: known.map(|known| known.reason.into_owned()),
        }
    }
}

/// Adds the terminals to elevators, which are in the order of their ids.
async fn with_terminals(state: &State, found: Vec<ElevatorRecord>) -> Result<Vec<ElevatorView>, Problem> {
    let ids: Vec<_> = found.iter().map(|record| record.elevator_id).collect();
    let mut terminals = ask(state, state.parts.database.presence_of(&ids)).await?.into_iter().peekable();
    let now = now();
    let views = found.into_iter().map(|record| {
        let mut its = Vec::new();
        while let Some((_, terminal)) = terminals.next_if(|(id, _)| *id == record.elevator_id) {
            its.push(TerminalView::of(terminal, now, state.parts.offline_after));
        }
        ElevatorView::of(record, its, now)
    });
    Ok(views.collect())
}

impl StateView {
    fn of(state: LatestState, now: Timestamp) -> Self {
        Self {
            terminal_id: state.terminal_id.to_string(),
            online: state.online,
            last_seen: state.last_seen.map(Moment),
            time: state.time.map(Moment),
            age_ms: i64::try_from(now.since(state.arrived).as_millis()).unwrap_or(i64::MAX),
            service_mode: state.service_mode.map(ServiceMode::number),
            car_status: state.car_status.map(CarStatus::number),
            car_direction: state.direction.map(Direction::number),
            door_zone: state.door_zone,
            door_state: state.door_state.map(DoorState::number),
            passengers: state.passengers.map(|passengers| passengers == Passengers::Yes),
            people: state.people,
            floor: state.floor,
            floor_ordinal: state.floor_ordinal,
            position_mm: state.position_mm,
            velocity_mm_s: state.velocity_mm_s,
            load_kg: state.load_kg,
            codes: state.codes,
            code_slugs: state.code_slugs,
        }
    }
}

/// Elevators with their latest state.
#[utoipa::path(
    get,
    path = "/api/v1/elevators",
    operation_id = "elevator_list",
    tag = "elevators",
    params(ListParams),
    responses((status = 200, body = ElevatorPage, description = "One page"),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "A parameter is wrong"),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "Try again later"))
)]
pub(crate) async fn list(
    FromState(state): FromState<State>,
    Params(params): Params<ListParams>,
) -> Result<Json<ElevatorPage>, Problem> {
    let limit = limit(params.limit)?;
    let area: Option<Area> = parse_option("area", params.area.as_deref(), "350102")?;
    let after = parse_option("cursor", params.cursor.as_deref(), "the `next` of a page")?.map(ElevatorId);
    let found = ask(&state, state.parts.database.elevator_list(area, after, limit)).await?;
    let full = found.len() == limit as usize;
    let next = found.last().filter(|_| full).map(|last| last.elevator_id.to_string());
    Ok(Json(ElevatorPage { items: with_terminals(&state, found).await?, next }))
}

/// One elevator with its latest state and the faults that last.
#[utoipa::path(
    get,
    path = "/api/v1/elevators/{elevator_id}",
    operation_id = "elevator_get",
    tag = "elevators",
    params(("elevator_id" = i64, Path, description = "Liftwatch's own number of the elevator")),
    responses((status = 200, body = ElevatorDetail, description = "The elevator"),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "The id is none"),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "Try again later"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such elevator"))
)]
pub(crate) async fn one(
    FromState(state): FromState<State>,
    Path(elevator_id): Path<String>,
) -> Result<Json<ElevatorDetail>, Problem> {
    let id = ElevatorId(parse("elevator_id", &elevator_id, "17")?);
    let found = ask(&state, state.parts.database.elevator_get(id)).await?;
    let Some(elevator) = with_terminals(&state, found.into_iter().collect()).await?.pop() else {
        return Err(Problem::not_found(format!(
            "no elevator {id} is registered; /api/v1/elevators lists those that are"
        )));
    };
    let open = ask(&state, state.parts.database.faults_open(id)).await?;
    Ok(Json(ElevatorDetail { elevator, faults: open.iter().map(FaultView::from).collect() }))
}
