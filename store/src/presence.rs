//! Whether terminals are connected, kept over restarts.
//!
//! Rows change when a terminal comes or goes, many in one statement; never with its messages. A row holds what
//! was seen; whether it means away or offline is for [`domain::PresenceState::of`] to say.

use std::borrow::Cow;

use domain::{ArrivalNo, ElevatorId, PresenceState, TerminalId, Timestamp};
use sqlx::Row;
use sqlx::postgres::PgRow;
use time::OffsetDateTime;

use crate::state::storable;
use crate::{Database, StoreError};

/// The reason in the row of a terminal that was connected when the server before this one ended.
const RESTART: &str = "server_restart";

/// What is known of a terminal's connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresenceRecord {
    /// The terminal.
    pub terminal_id: TerminalId,
    /// Whether it is connected.
    pub online: bool,
    /// Why it came or went, in one word.
    pub reason: Cow<'static, str>,
    /// Connected since; or silent since.
    pub since: Timestamp,
    /// The last sign of life known.
    pub last_seen: Timestamp,
    /// The change it covers.
    pub arrival_no: ArrivalNo,
}

/// A terminal of an elevator with what is known of its connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TerminalPresence {
    /// The terminal.
    pub terminal_id: TerminalId,
    /// `None` until it has connected once.
    pub presence: Option<PresenceRecord>,
}

impl PresenceRecord {
    /// What it means at `now`.
    pub fn state(&self, now: Timestamp, offline_after: std::time::Duration) -> PresenceState {
        PresenceState::of(self.online, self.since, now, offline_after)
    }
}

impl Database {
    /// Writes these, in one statement; a row that covers a later change stays as it is.
    pub async fn presence_store(&self, records: &[PresenceRecord]) -> Result<(), StoreError> {
        // Locks are taken in the order of keys, whoever writes; of one terminal the last only.
        let mut sorted: Vec<&PresenceRecord> = records.iter().collect();
        sorted.sort_unstable_by(|a, b| (&a.terminal_id, b.arrival_no).cmp(&(&b.terminal_id, a.arrival_no)));
        sorted.dedup_by(|later, kept| later.terminal_id == kept.terminal_id);
        fn column<T>(sorted: &[&PresenceRecord], of: impl Fn(&PresenceRecord) -> T) -> Vec<T> {
            sorted.iter().map(|record| of(record)).collect()
        }
        let utc = |time: Timestamp| storable(time).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        sqlx::query(
            "INSERT INTO presence AS old (terminal_id, arrival_no, since, last_seen, online, reason)
             SELECT *
             FROM unnest($1::text[], $2::bigint[], $3::timestamptz[], $4::timestamptz[], $5::boolean[],
                $6::text[])
             ON CONFLICT (terminal_id) DO UPDATE
             SET arrival_no = excluded.arrival_no,
                 since = excluded.since,
                 last_seen = greatest(old.last_seen, excluded.last_seen),
                 online = excluded.online,
                 reason = excluded.reason
             WHERE old.arrival_no <= excluded.arrival_no",
        )
        .bind(column(&sorted, |record| record.terminal_id.to_string()))
        .bind(column(&sorted, |record| record.arrival_no.0))
        .bind(column(&sorted, |record| utc(record.since)))
        .bind(column(&sorted, |record| utc(record.last_seen)))
        .bind(column(&sorted, |record| record.online))
        .bind(column(&sorted, |record| record.reason.clone().into_owned()))
        .execute(self.pool())
        .await?;
        Ok(())
    }

    /// At the start of a server: whoever was connected to the one before is not connected now, and has from
    /// `now` on the usual time to come back. Answers what is known of every terminal.
    pub async fn presence_begin(
        &self,
        start: ArrivalNo,
        now: Timestamp,
    ) -> Result<Vec<PresenceRecord>, StoreError> {
        let mut transaction = self.pool().begin().await?;
        // The state of the lift was saved with the terminal's messages: it knows better when it was heard.
        sqlx::query(
            "UPDATE presence
             SET online = false,
                 reason = $1,
                 since = $2,
                 arrival_no = $3,
                 last_seen = greatest(presence.last_seen, heard.last_seen)
             FROM presence AS old
             LEFT JOIN terminal USING (terminal_id)
             LEFT JOIN elevator_state AS heard
                ON heard.elevator_id = terminal.elevator_id AND heard.terminal_id = terminal.terminal_id
             WHERE old.online
                AND presence.terminal_id = old.terminal_id
                AND presence.arrival_no <= $3",
        )
        .bind(RESTART)
        .bind(storable(now).unwrap_or(OffsetDateTime::UNIX_EPOCH))
        .bind(start.0)
        .execute(&mut *transaction)
        .await?;
        let rows = sqlx::query(
            "SELECT terminal_id, arrival_no, since, last_seen, online, reason
             FROM presence",
        )
        .fetch_all(&mut *transaction)
        .await?;
        transaction.commit().await?;
        rows.iter().map(|row| record(row, terminal_id(row)?)).collect()
    }

    /// The terminals of these elevators that are switched on, with their presence; in the order of elevators
    /// and ids.
    pub async fn presence_of(
        &self,
        elevators: &[ElevatorId],
    ) -> Result<Vec<(ElevatorId, TerminalPresence)>, StoreError> {
        // What was heard on a connection that still holds is in the state of the lift.
        let rows = sqlx::query(
            "SELECT terminal.elevator_id, terminal.terminal_id, presence.arrival_no, presence.since,
                greatest(presence.last_seen, heard.last_seen) AS last_seen, presence.online, presence.reason
             FROM terminal
             LEFT JOIN presence USING (terminal_id)
             LEFT JOIN elevator_state AS heard
                ON heard.elevator_id = terminal.elevator_id AND heard.terminal_id = terminal.terminal_id
             WHERE terminal.elevator_id = ANY ($1)
                AND terminal.enabled
             ORDER BY terminal.elevator_id, terminal.terminal_id",
        )
        .bind(elevators.iter().map(|id| id.0).collect::<Vec<_>>())
        .fetch_all(self.pool())
        .await?;
        let one = |row: &PgRow| {
            let terminal_id = terminal_id(row)?;
            let known = row.try_get::<Option<bool>, _>("online")?.is_some();
            let presence = known.then(|| record(row, terminal_id.clone())).transpose()?;
            Ok((ElevatorId(row.try_get("elevator_id")?), TerminalPresence { terminal_id, presence }))
        };
        rows.iter().map(one).collect()
    }
}

fn terminal_id(row: &PgRow) -> Result<TerminalId, StoreError> {
    let text: &str = row.try_get("terminal_id")?;
    TerminalId::new(text).map_err(|error| StoreError::Corrupt(error.to_string()))
}

fn record(row: &PgRow, terminal_id: TerminalId) -> Result<PresenceRecord, StoreError> {
    let at = |column| row.try_get::<OffsetDateTime, _>(column).map(Timestamp::from);
    let reason: String = row.try_get("reason")?;
    Ok(PresenceRecord {
        terminal_id,
        online: row.try_get("online")?,
        // One text for the whole fleet that was connected.
        reason: if reason == RESTART { Cow::Borrowed(RESTART) } else { Cow::Owned(reason) },
        since: at("since")?,
        last_seen: at("last_seen")?,
        arrival_no: ArrivalNo(row.try_get("arrival_no")?),
    })
}
