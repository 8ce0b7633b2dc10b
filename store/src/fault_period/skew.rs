//! Clocks that are off, as periods of `clock_skew` opened by the server: one write when a clock goes wrong and
//! one when it is right again, never one per message.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use domain::clock::ClockSkew;
use domain::{ElevatorId, Message, TerminalId, Timestamp};
use sqlx::Row as _;
use sqlx::postgres::PgConnection;

use super::read::terminal;
use crate::{Incoming, StoreError};

/// Clocks that something speaks against; the others are not held. Bounded by the terminals of the registry.
#[derive(Debug, Default)]
pub(crate) struct Clocks {
    /// And when it was read; `None` until then.
    known: Option<(HashMap<TerminalId, ClockSkew>, Instant)>,
}

/// How long it is believed which clocks are flagged: another process may flag or clear one.
const READ_AGAIN: Duration = Duration::from_mins(5);

/// A clock went wrong, or is right again.
struct Change {
    elevator_id: ElevatorId,
    terminal_id: TerminalId,
    at: Timestamp,
    flagged: bool,
}

impl Clocks {
    /// Takes the clocks of messages that are committed, in the order of arrival. Gives how many are off now, of
    /// all terminals, where that may have changed.
    pub(crate) async fn follow<'a>(
        &mut self,
        connection: &mut PgConnection,
        messages: impl Iterator<Item = &'a Incoming>,
        now: Instant,
    ) -> Result<Option<i64>, StoreError> {
        // Taken out: after a failure it is read again, and the batch comes again.
        let known = self.known.take();
        let is_fresh = known.as_ref().is_some_and(|(_, read)| now.duration_since(*read) < READ_AGAIN);
        let (mut known, read) = match known {
            Some(known) if is_fresh => known,
            believed => {
                let mut known = believed.map(|(known, _)| known).unwrap_or_default();
                known.retain(|_, clock| !clock.is_flagged());
                known.extend(flagged(connection).await?);
                (known, now)
            }
        };
        let changes: Vec<Change> = messages.filter_map(|message| observe(&mut known, message)).collect();
        for change in &changes {
            store(connection, change).await?;
        }
        let count = if !is_fresh || !changes.is_empty() { Some(count(connection).await?) } else { None };
        self.known = Some((known, read));
        Ok(count)
    }
}

fn observe(known: &mut HashMap<TerminalId, ClockSkew>, message: &Incoming) -> Option<Change> {
    let arrived = message.arrival.at;
    let sent = message.message.sent();
    let clock = sent.or_else(|| newest(&message.message))?;
    let off_ms = arrived.millis().saturating_sub(clock.millis());
    // The usual case: a clock that is right, and no memory of another.
    if !ClockSkew::is_beyond(off_ms) && (known.is_empty() || !known.contains_key(&message.terminal_id)) {
        return None;
    }
    let clock = known.entry(message.terminal_id.clone()).or_default();
    let judged = if sent.is_some() { clock.observe(off_ms) } else { clock.observe_offset(off_ms, arrived) };
    if clock.is_calm() {
        known.remove(&message.terminal_id);
    }
    judged.map(|flagged| Change {
        elevator_id: message.elevator_id,
        terminal_id: message.terminal_id.clone(),
        at: message.arrival.at,
        flagged,
    })
}

/// The newest device time that it tells.
fn newest(message: &Message) -> Option<Timestamp> {
    match message {
        Message::Telemetry(batch) => batch.readings.iter().map(|reading| reading.time).max(),
        Message::Event(batch) => batch.events.iter().map(|event| event.time).max(),
        Message::Statistics(statistics) => Some(statistics.time),
    }
}

async fn flagged(connection: &mut PgConnection) -> Result<HashMap<TerminalId, ClockSkew>, StoreError> {
    let rows = sqlx::query(
        "SELECT terminal_id
         FROM fault_period
         WHERE closed IS NULL
           AND opened_by = 'server'
           AND slug = 'clock_skew'",
    )
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok((terminal(row)?, ClockSkew::FLAGGED))).collect()
}

async fn count(connection: &mut PgConnection) -> Result<i64, StoreError> {
    let row = sqlx::query(
        "SELECT count(*) AS clocks
         FROM fault_period
         WHERE closed IS NULL
           AND opened_by = 'server'
           AND slug = 'clock_skew'",
    )
    .fetch_one(connection)
    .await?;
    Ok(row.try_get("clocks")?)
}

async fn store(connection: &mut PgConnection, change: &Change) -> Result<(), StoreError> {
    if !change.flagged {
        // Wherever it was mounted when its clock went wrong.
        return close(connection, &change.terminal_id, change.at).await;
    }
    sqlx::query(
        "INSERT INTO fault_period (elevator_id, terminal_id, code, slug, opened, opened_by)
         SELECT $1, $2, 'clock_skew', 'clock_skew', $3, 'server'
         WHERE NOT EXISTS (
             SELECT
             FROM fault_period
             WHERE terminal_id = $2
               AND elevator_id = $1
               AND opened_by = 'server'
               AND slug = 'clock_skew'
               AND closed IS NULL
         )
         ON CONFLICT DO NOTHING",
    )
    .bind(change.elevator_id.0)
    .bind(change.terminal_id.as_str())
    .bind(change.at.to_utc())
    .execute(connection)
    .await?;
    Ok(())
}

async fn close(
    connection: &mut PgConnection,
    terminal_id: &TerminalId,
    at: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE fault_period
         SET closed = greatest(opened, $2), closed_by = 'server'
         WHERE terminal_id = $1
           AND opened_by = 'server'
           AND slug = 'clock_skew'
           AND closed IS NULL",
    )
    .bind(terminal_id.as_str())
    .bind(at.to_utc())
    .execute(connection)
    .await?;
    Ok(())
}
