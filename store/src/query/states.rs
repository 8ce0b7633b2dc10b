//! The fleet now.

use std::time::Duration;

use domain::{Area, ArrivalNo, ElevatorId, PresenceState, TerminalId, Timestamp};
use sqlx::AssertSqlSafe;
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use time::OffsetDateTime;

use super::region::ranges;
use super::{PgQuery, Queries, QueryError, Question, invalid, unreadable};
use crate::StoreError;
use crate::elevator::{LatestState, latest};

/// Which elevators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FleetFilter {
    /// Every one.
    All,
    /// Those in any of these regions.
    Regions(Vec<Area>),
    /// These, at most [`LatestStates::LIMIT_MAX`].
    Elevators(Vec<ElevatorId>),
}

/// The latest state of elevators that have one, a page at a time in the order of their ids.
///
/// Index: `elevator_state_pkey` from the page's first id on, `elevator_pkey` beside it, and `presence_pkey` for each
/// row; of regions that hold a small part of the fleet `elevator_area` first. Cost: the rows of the page, about 5 us
/// of the server each; with
/// `changed_since` the rows of the fleet that are passed over as well, once over all pages. That is a scan on
/// purpose: `changed_no` changes with every update of a state, and an index on it would end the updates within
/// the page (HOT) that keep the table small and the engine's checkpoints cheap. A BRIN would not hinder them,
/// but every page of a living fleet holds recent rows, so it would exclude nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LatestStates {
    /// Which elevators.
    pub filter: FleetFilter,
    /// Only states that have changed since [`StatesPage::covered`] of an earlier answer, by messages or deadlines.
    /// [`FleetState::connection`] is no part of a state: it is as it is when read, and its changes bring none.
    pub changed_since: Option<ArrivalNo>,
    /// Only ids after this one: [`StatesPage::next`] of the page before.
    pub after: Option<ElevatorId>,
    /// At most so many, 1 to [`LatestStates::LIMIT_MAX`].
    pub limit: u32,
}

impl LatestStates {
    /// The longest page: about 5 MB here, so that 100,000 elevators are ten round trips.
    pub const LIMIT_MAX: u32 = 10_000;
}

/// A page of the fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatesPage {
    /// In the order of ids.
    pub states: Vec<FleetState>,
    /// Where the next page begins; `None` after the last.
    pub next: Option<ElevatorId>,
    /// All arrivals up to this one are in the states read. To follow the fleet, keep that of the *first* page
    /// and ask for what has changed since: nothing is missed, and what changed meanwhile may come twice.
    pub covered: ArrivalNo,
}

/// An elevator with its latest state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetState {
    /// The elevator.
    pub elevator_id: ElevatorId,
    /// Its division, by the registry.
    pub area: Area,
    /// The message that the state covers.
    pub arrival_no: ArrivalNo,
    /// The state.
    pub latest: LatestState,
    /// Of the terminal that spoke last; `None` where presence was never told. Not followed, see
    /// [`LatestStates::changed_since`]: a start of the server ends every connection at once.
    pub connection: Option<Connection>,
}

/// Whether a terminal is connected, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// Connected.
    pub online: bool,
    /// Connected or silent since.
    pub since: Timestamp,
}

impl Connection {
    /// What it means at `now`.
    pub fn state(self, now: Timestamp, offline_after: Duration) -> PresenceState {
        PresenceState::of(self.online, self.since, now, offline_after)
    }
}

impl Question for LatestStates {
    fn check(&self) -> Result<(), QueryError> {
        if self.limit == 0 || self.limit > Self::LIMIT_MAX {
            return invalid(format!("a page has 1 to {} elevators", Self::LIMIT_MAX));
        }
        match &self.filter {
            FleetFilter::Elevators(ids) if ids.len() > Self::LIMIT_MAX as usize => {
                invalid(format!("at most {} elevators can be named", Self::LIMIT_MAX))
            }
            _ => Ok(()),
        }
    }

    fn statement(&self, prefix: &str) -> PgQuery {
        let (join, condition) = match &self.filter {
            FleetFilter::All => ("", ""),
            // The ranges do not overlap, so no elevator comes twice.
            FleetFilter::Regions(_) => (
                "JOIN unnest($4::int4[], $5::int4[]) AS region (first, last)
                   ON elevator.area BETWEEN region.first AND region.last",
                "",
            ),
            FleetFilter::Elevators(_) => ("", "AND state.elevator_id = ANY ($4)"),
        };
        // The begin is said of both tables: the planner does not see that what holds for the one holds for the other,
        // and would read `elevator` from its first row on. LIMIT 1: a look-up for each row of the page; it would read
        // all of `presence` for every page, which is as dear for 10,000 rows and several times dearer for 1,000.
        let sql = format!(
            "{prefix}
             SELECT page.*, presence.online AS connected, presence.since
             FROM (
                 SELECT state.elevator_id, elevator.area, state.arrival_no, state.arrived, state.terminal_id,
                        state.online, state.last_seen, state.time, state.service_mode, state.car_status,
                        state.direction, state.door_zone, state.door_state, state.passengers, state.people,
                        state.floor, state.floor_ordinal, state.position_mm, state.velocity_mm_s,
                        state.load_kg, state.codes, state.code_slugs
                 FROM elevator_state AS state
                 JOIN elevator ON elevator.elevator_id = state.elevator_id
                 {join}
                 WHERE state.elevator_id > $1
                   AND elevator.elevator_id > $1
                   AND greatest(state.changed_no, state.arrival_no) > $2
                   {condition}
                 ORDER BY state.elevator_id
                 LIMIT $3
             ) AS page
             LEFT JOIN LATERAL (
                 SELECT online, since
                 FROM presence
                 WHERE presence.terminal_id = page.terminal_id
                 LIMIT 1
             ) AS presence ON true
             ORDER BY page.elevator_id"
        );
        let query = sqlx::query(AssertSqlSafe(sql))
            .bind(self.after.map_or(i64::MIN, |id| id.0))
            .bind(self.changed_since.map_or(i64::MIN, |no| no.0))
            .bind(i64::from(self.limit));
        match &self.filter {
            FleetFilter::All => query,
            FleetFilter::Regions(regions) => {
                let (firsts, lasts) = ranges(regions);
                query.bind(firsts).bind(lasts)
            }
            FleetFilter::Elevators(ids) => query.bind(ids.iter().map(|id| id.0).collect::<Vec<_>>()),
        }
    }
}

impl Queries {
    /// A page of the fleet.
    pub async fn latest_states(&self, question: &LatestStates) -> Result<StatesPage, QueryError> {
        question.check()?;
        let mut turn = self.turn().await?;
        // Read before the rows: what it covers is in them.
        let covered =
            sqlx::query_scalar("SELECT arrival_no FROM engine_position").fetch_one(turn.connection());
        let covered = ArrivalNo(self.answer(covered).await?);
        let rows = self.answer(question.statement("").fetch_all(turn.connection())).await?;
        turn.done();
        let states: Vec<_> = rows.iter().map(state).collect::<Result<_, _>>()?;
        let full = states.len() == question.limit as usize;
        let next = states.last().filter(|_| full).map(|last| last.elevator_id);
        Ok(StatesPage { states, next, covered })
    }
}

fn state(row: &PgRow) -> Result<FleetState, QueryError> {
    let area: i32 = row.try_get("area").map_err(unreadable)?;
    let area = u32::try_from(area).ok().and_then(|area| Area::from_number(area).ok());
    let terminal: &str = row.try_get("terminal_id").map_err(unreadable)?;
    let terminal = TerminalId::new(terminal).map_err(|error| StoreError::Corrupt(error.to_string()))?;
    let online: Option<bool> = row.try_get("connected").map_err(unreadable)?;
    let since: Option<OffsetDateTime> = row.try_get("since").map_err(unreadable)?;
    Ok(FleetState {
        elevator_id: ElevatorId(row.try_get("elevator_id").map_err(unreadable)?),
        area: area.ok_or_else(|| StoreError::Corrupt("area of an elevator".to_owned()))?,
        arrival_no: ArrivalNo(row.try_get("arrival_no").map_err(unreadable)?),
        latest: latest(row, terminal)?,
        connection: online.zip(since).map(|(online, since)| Connection { online, since: since.into() }),
    })
}
