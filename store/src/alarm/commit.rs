//! What the engine decided, made durable and numbered.

use std::collections::{BTreeMap, HashMap, HashSet};

use domain::{Alarm, AlarmChange, AlarmEvent, AlarmId, AlarmState, ArrivalNo, Suppression, Timestamp};
use serde::Serialize;
use sha2::{Digest, Sha256};
use sqlx::types::{Json, Uuid};
use sqlx::{Connection, PgConnection};
use time::OffsetDateTime;

use super::rows::{self, AlarmRow, alarm_columns};
use crate::error::{Class, classify};
use crate::state::{self, ElevatorState};
use crate::{Database, StoreError};

/// Events in one transaction: each locks its alarm's id in a table that PostgreSQL sizes for thousands.
pub const GROUP_EVENTS_MAX: usize = 512;

/// The connection on which alarms and checkpoints are committed: its own, so that no batch of readings is
/// ever in front of an alarm. Opens itself when needed; a failed commit closes it.
#[derive(Debug)]
pub struct AlarmCommitter {
    database: Database,
    connection: Option<PgConnection>,
}

impl AlarmCommitter {
    /// Connects at the first commit.
    pub fn new(database: Database) -> Self {
        Self { database, connection: None }
    }

    /// Commits what the engine decided, in its order, and answers the events that are new, with their
    /// numbers. Doing it again adds nothing and answers nothing. At most [`GROUP_EVENTS_MAX`] events.
    pub async fn alarm_commit(
        &mut self,
        events: &[AlarmEvent],
        suppressions: &[Suppression],
    ) -> Result<Vec<AlarmEvent>, StoreError> {
        let mut connection = self.connection().await?;
        let numbered = self.database.in_time(alarm_commit(&mut connection, events, suppressions)).await?;
        self.connection = Some(connection);
        Ok(numbered)
    }

    /// Writes states of elevators and the arrival up to which all elevators are covered. States older than
    /// what is stored change nothing, and the position never goes back.
    pub async fn checkpoint(
        &mut self,
        states: &[ElevatorState],
        position: ArrivalNo,
    ) -> Result<(), StoreError> {
        let mut connection = self.connection().await?;
        self.database.in_time(checkpoint(&mut connection, states, position)).await?;
        self.connection = Some(connection);
        Ok(())
    }

    /// Takes the connection out: it is put back only after success, so that a cancelled or failed commit
    /// never leaves a half-read one behind.
    async fn connection(&mut self) -> Result<PgConnection, StoreError> {
        match self.connection.take() {
            Some(connection) => Ok(connection),
            None => self.database.connection().await,
        }
    }
}

impl StoreError {
    /// Whether the values of the statement are at fault: the same again fails again, others may succeed.
    pub fn blames_the_data(&self) -> bool {
        matches!(self, Self::Refused(error) if matches!(classify(error), Class::Poisoned | Class::Repeated))
    }
}

/// An alarm as it is stored, with the decisions that made it so.
struct Known {
    alarm: Alarm,
    decisions: HashSet<Decision>,
}

type Decision = [u8; 32];

/// What is to be written.
#[derive(Default)]
struct Plan {
    events: Vec<NewEvent>,
    /// Index of the last event of each alarm: its row becomes what that event holds.
    last: BTreeMap<AlarmId, usize>,
}

#[derive(Serialize)]
struct NewEvent {
    at: Timestamp,
    change: AlarmChange,
    /// As hexadecimal text, since it travels in JSON.
    decision: Option<String>,
    alarm: Alarm,
}

async fn checkpoint(
    connection: &mut PgConnection,
    states: &[ElevatorState],
    position: ArrivalNo,
) -> Result<(), StoreError> {
    let mut transaction = connection.begin().await?;
    state::state_upsert(&mut transaction, states).await?;
    state::engine_position_set(&mut transaction, position).await?;
    transaction.commit().await?;
    Ok(())
}

async fn alarm_commit(
    connection: &mut PgConnection,
    events: &[AlarmEvent],
    suppressions: &[Suppression],
) -> Result<Vec<AlarmEvent>, StoreError> {
    let mut transaction = connection.begin().await?;
    let ids: Vec<AlarmId> = events.iter().map(|event| event.alarm.id).collect();
    alarm_lock(&mut transaction, &ids).await?;
    let mut known = known(&mut transaction, &ids).await?;
    let plan = plan(&mut known, events);
    suppression_add(&mut transaction, suppressions).await?;
    let first = if plan.events.is_empty() { 0 } else { event_append(&mut transaction, &plan).await? };
    transaction.commit().await?;
    let numbered = |(no, event): (i64, NewEvent)| AlarmEvent {
        no: Some(no),
        at: event.at,
        change: event.change,
        alarm: event.alarm,
    };
    Ok((first..).zip(plan.events).map(numbered).collect())
}

/// Keeps others from changing these alarms until the transaction ends, whether they exist or not. In one
/// order, so that two groups never wait for each other.
pub(super) async fn alarm_lock(connection: &mut PgConnection, ids: &[AlarmId]) -> Result<(), StoreError> {
    let mut keys: Vec<i64> = ids.iter().map(|id| id.0.as_u64_pair().0.cast_signed()).collect();
    keys.sort_unstable();
    keys.dedup();
    sqlx::query(
        "SELECT pg_advisory_xact_lock(key)
        FROM unnest($1::bigint[]) WITH ORDINALITY AS locks (key, place)
        ORDER BY place",
    )
    .bind(keys)
    .execute(connection)
    .await?;
    Ok(())
}

async fn known(
    connection: &mut PgConnection,
    ids: &[AlarmId],
) -> Result<HashMap<AlarmId, Known>, StoreError> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    let found: Vec<AlarmRow> =
        sqlx::query_as(concat!("SELECT ", alarm_columns!(), " FROM alarm WHERE id = ANY($1)"))
            .bind(&ids)
            .fetch_all(&mut *connection)
            .await?;
    let mut known: HashMap<AlarmId, Known> = rows::alarms(found)?
        .into_iter()
        .map(|alarm| (alarm.id, Known { alarm, decisions: HashSet::new() }))
        .collect();
    if known.is_empty() {
        return Ok(known);
    }
    let decisions: Vec<(Uuid, Vec<u8>)> = sqlx::query_as(
        "SELECT alarm_id, decision
        FROM alarm_event
        WHERE alarm_id = ANY($1) AND decision IS NOT NULL",
    )
    .bind(&ids)
    .fetch_all(connection)
    .await?;
    for (id, decision) in decisions {
        if let (Some(known), Ok(decision)) = (known.get_mut(&AlarmId(id)), Decision::try_from(decision)) {
            known.decisions.insert(decision);
        }
    }
    Ok(known)
}

/// Which events are new, and what each alarm is after them.
fn plan(known: &mut HashMap<AlarmId, Known>, events: &[AlarmEvent]) -> Plan {
    let mut plan = Plan::default();
    for event in events {
        let decision = decision(event);
        let told = storable(event);
        let alarm = match known.get_mut(&event.alarm.id) {
            None => {
                known.insert(told.id, Known { alarm: told.clone(), decisions: HashSet::from([decision]) });
                told
            }
            Some(known) => {
                let Some(alarm) = merge(&known.alarm, told, event.change) else { continue };
                if !known.decisions.insert(decision) {
                    continue;
                }
                known.alarm = alarm.clone();
                alarm
            }
        };
        plan.last.insert(alarm.id, plan.events.len());
        plan.events.push(NewEvent {
            at: event.at,
            change: event.change,
            decision: Some(hex(&decision)),
            alarm,
        });
    }
    plan
}

/// What `stored` becomes when the engine tells `told`, or `None` if that is no news. The engine does not
/// know what people did: their marks stay.
fn merge(stored: &Alarm, told: Alarm, change: AlarmChange) -> Option<Alarm> {
    let raised_again = change == AlarmChange::Raised;
    let older_than_its_end = stored.cleared.is_some() && told.cleared.is_none();
    if raised_again || older_than_its_end {
        return None;
    }
    let of_the_rules = [AlarmState::Suspected, AlarmState::Confirmed, AlarmState::Cancelled];
    let merged = Alarm {
        acknowledged_by: stored.acknowledged_by.clone(),
        acknowledged: stored.acknowledged,
        state: if of_the_rules.contains(&stored.state) { told.state } else { stored.state },
        ..told
    };
    (merged != *stored).then_some(merged)
}

/// The alarm with times that PostgreSQL and RFC 3339 can hold. A terminal with an absurd clock must not keep
/// an alarm out of the store.
fn storable(event: &AlarmEvent) -> Alarm {
    let alarm = event.alarm.clone();
    let fit = |time| fit(time, event.at);
    Alarm { began: fit(alarm.began), raised: fit(alarm.raised), cleared: alarm.cleared.map(fit), ..alarm }
}

fn fit(time: Timestamp, otherwise: Timestamp) -> Timestamp {
    if state::storable(time).is_some() { time } else { otherwise }
}

/// What makes a decision this one: not its wording, so that a server with better traces repeats nothing.
fn decision(event: &AlarmEvent) -> Decision {
    let alarm = &event.alarm;
    let grounds: Vec<_> =
        alarm.evidence.iter().map(|line| (line.evidence, line.rule, line.at.micros())).collect();
    let cleared = alarm.cleared.map(Timestamp::micros);
    let parts = (
        event.change,
        event.at.micros(),
        alarm.state,
        alarm.severity,
        alarm.kind,
        alarm.score,
        cleared,
        grounds,
    );
    let text = serde_json::to_vec(&parts).expect("a tuple of names and numbers is JSON");
    Sha256::digest(&text).into()
}

pub(super) fn hex(bytes: &[u8]) -> String {
    let digits = |byte: u8| [byte >> 4, byte & 15].map(|digit| char::from_digit(digit.into(), 16));
    bytes.iter().flat_map(|byte| digits(*byte)).flatten().collect()
}

/// Writes events and alarms under the next numbers and answers the first of them. The transaction's last
/// data statement: from here to the commit everybody else who numbers events waits.
async fn event_append(connection: &mut PgConnection, plan: &Plan) -> Result<i64, StoreError> {
    let last: Vec<i64> = plan.last.values().map(|index| *index as i64 + 1).collect();
    let before: i64 = sqlx::query_scalar(
        "WITH head AS (
            UPDATE alarm_stream
            SET n = n + $2
            RETURNING n - $2 AS before
        ), told AS (
            SELECT head.before + place AS no, place, at, change, decode(decision, 'hex') AS decision,
                told.alarm AS whole, alarm.*
            FROM head,
                ROWS FROM (jsonb_to_recordset($1)
                    AS (at timestamptz, change text, decision text, alarm jsonb))
                WITH ORDINALITY AS told (at, change, decision, alarm, place),
                jsonb_to_record(told.alarm) AS alarm (
                    id uuid, elevator_id bigint, terminal_id text, area text, kind text, severity text,
                    state text, score smallint, began timestamptz, raised timestamptz, cleared timestamptz,
                    acknowledged_by text, acknowledged timestamptz, boot bigint, seq bigint, floor text,
                    evidence jsonb)
        ), event AS (
            INSERT INTO alarm_event
                (no, at, elevator_id, area, severity, alarm_id, change, alarm, decision)
            SELECT no, at, elevator_id, area::integer, right(severity, 1)::smallint, id, change, whole, decision
            FROM told
        ), row AS (
            INSERT INTO alarm (
                id, elevator_id, terminal_id, area, kind, severity, state, score, began, raised, cleared,
                acknowledged_by, acknowledged, boot, seq, floor, evidence, no)
            SELECT id, elevator_id, terminal_id, area::integer, kind, right(severity, 1)::smallint, state,
                score, began, raised, cleared, acknowledged_by, acknowledged, boot, seq, floor, evidence, no
            FROM told
            WHERE place = ANY($3)
            ON CONFLICT (id) DO UPDATE
            SET terminal_id = excluded.terminal_id,
                area = excluded.area,
                kind = excluded.kind,
                severity = excluded.severity,
                state = excluded.state,
                score = excluded.score,
                began = excluded.began,
                raised = excluded.raised,
                cleared = excluded.cleared,
                acknowledged_by = excluded.acknowledged_by,
                acknowledged = excluded.acknowledged,
                floor = excluded.floor,
                evidence = excluded.evidence,
                no = excluded.no
        )
        SELECT before
        FROM head",
    )
    .bind(Json(&plan.events))
    .bind(plan.events.len() as i64)
    .bind(last)
    .fetch_one(connection)
    .await?;
    Ok(before + 1)
}

/// Appends one event about an alarm whose id is locked, sets its row, and answers the event's number.
pub(super) async fn event_append_one(
    connection: &mut PgConnection,
    at: Timestamp,
    change: AlarmChange,
    alarm: Alarm,
) -> Result<i64, StoreError> {
    let last = BTreeMap::from([(alarm.id, 0)]);
    let plan = Plan { events: vec![NewEvent { at, change, decision: None, alarm }], last };
    event_append(connection, &plan).await
}

/// Keeps why candidates were not raised. Doing it again adds nothing.
async fn suppression_add(
    connection: &mut PgConnection,
    suppressions: &[Suppression],
) -> Result<(), StoreError> {
    if suppressions.is_empty() {
        return Ok(());
    }
    let column = |time: fn(&Suppression) -> Timestamp| -> Vec<OffsetDateTime> {
        let utc = |one: &Suppression| fit(time(one), one.at).to_utc();
        suppressions.iter().map(|one| utc(one).unwrap_or(OffsetDateTime::UNIX_EPOCH)).collect()
    };
    let text = |of: fn(&Suppression) -> &str| -> Vec<String> {
        suppressions.iter().map(|one| of(one).to_owned()).collect()
    };
    let elevators: Vec<i64> = suppressions.iter().map(|one| one.elevator_id.0).collect();
    let versions: Vec<i32> =
        suppressions.iter().map(|one| i32::try_from(one.rule_version).unwrap_or(i32::MAX)).collect();
    sqlx::query(
        "INSERT INTO suppression
            (elevator_id, at, began, rule_version, terminal_id, kind, rule, reason, trace)
        SELECT *
        FROM unnest($1::bigint[], $2::timestamptz[], $3::timestamptz[], $4::integer[], $5::text[],
            $6::text[], $7::text[], $8::text[], $9::text[])
        ON CONFLICT DO NOTHING",
    )
    .bind(elevators)
    .bind(column(|one| one.at))
    .bind(column(|one| one.began))
    .bind(versions)
    .bind(text(|one| one.terminal_id.as_str()))
    .bind(text(|one| one.kind.slug()))
    .bind(text(|one| one.rule.slug()))
    .bind(text(|one| &one.reason))
    .bind(text(|one| &one.trace))
    .execute(connection)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests;
