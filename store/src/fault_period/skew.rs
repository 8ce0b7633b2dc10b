//! Clocks that are off, as periods of `clock_skew` opened by the server: one write when a clock goes wrong and
//! one when it is right again, never one per message.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use domain::clock::ClockSkew;
use domain::{ElevatorId, Message, TerminalId, Timestamp};
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
        for alike in changes.chunk_by(|one, next| one.flagged == next.flagged) {
            store(connection, alike).await?;
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

// What all of these ask for is in the index `fault_period_server`, however much the table keeps.

const FLAGGED: &str = "SELECT terminal_id
     FROM fault_period
     WHERE closed IS NULL
       AND opened_by = 'server'
       AND slug = 'clock_skew'";

const COUNT: &str = "SELECT count(*)
     FROM fault_period
     WHERE closed IS NULL
       AND opened_by = 'server'
       AND slug = 'clock_skew'";

const OPEN: &str = "INSERT INTO fault_period (elevator_id, terminal_id, code, slug, opened, opened_by)
     SELECT elevator_id, terminal_id, 'clock_skew', 'clock_skew', at, 'server'
     FROM unnest($1::int8[], $2::text[], $3::timestamptz[]) AS wrong (elevator_id, terminal_id, at)
     WHERE NOT EXISTS (
         SELECT
         FROM fault_period
         WHERE fault_period.terminal_id = wrong.terminal_id
           AND fault_period.elevator_id = wrong.elevator_id
           AND opened_by = 'server'
           AND slug = 'clock_skew'
           AND closed IS NULL
     )
     ON CONFLICT DO NOTHING";

/// Wherever a terminal was mounted when its clock went wrong.
const CLOSE: &str = "UPDATE fault_period
     SET closed = greatest(opened, at), closed_by = 'server'
     FROM unnest($1::text[], $2::timestamptz[]) AS right_again (terminal_id, at)
     WHERE fault_period.terminal_id = right_again.terminal_id
       AND opened_by = 'server'
       AND slug = 'clock_skew'
       AND closed IS NULL";

async fn flagged(connection: &mut PgConnection) -> Result<HashMap<TerminalId, ClockSkew>, StoreError> {
    let rows = sqlx::query(FLAGGED).fetch_all(connection).await?;
    rows.iter().map(|row| Ok((terminal(row)?, ClockSkew::FLAGGED))).collect()
}

async fn count(connection: &mut PgConnection) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar(COUNT).fetch_one(connection).await?)
}

/// Clocks that all went wrong, or all became right again; none of them twice.
async fn store(connection: &mut PgConnection, changes: &[Change]) -> Result<(), StoreError> {
    let terminals: Vec<&str> = changes.iter().map(|change| change.terminal_id.as_str()).collect();
    let times: Vec<_> = changes.iter().map(|change| change.at.to_utc()).collect();
    let statement = if changes.first().is_some_and(|change| change.flagged) {
        let elevators: Vec<i64> = changes.iter().map(|change| change.elevator_id.0).collect();
        sqlx::query(OPEN).bind(elevators)
    } else {
        sqlx::query(CLOSE)
    };
    statement.bind(terminals).bind(times).execute(connection).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use sqlx::AssertSqlSafe;

    use super::*;
    use crate::testing::TestDatabase;

    fn changes(terminals: std::ops::Range<i64>, flagged: bool, at: i64) -> Vec<Change> {
        let change = |number: i64| Change {
            elevator_id: ElevatorId(number),
            terminal_id: TerminalId::new(&format!("t{number}")).unwrap(),
            at: Timestamp::from_millis(at),
            flagged,
        };
        terminals.map(change).collect()
    }

    #[tokio::test]
    async fn many_clocks_go_wrong_and_right_in_a_statement_each() {
        let test = TestDatabase::new().await;
        let mut connection = test.open().await.connection().await.unwrap();
        store(&mut connection, &changes(0..2_000, true, 5_000)).await.unwrap();
        store(&mut connection, &changes(1_000..3_000, true, 6_000)).await.unwrap();
        assert_eq!(count(&mut connection).await.unwrap(), 3_000, "one that is open stays as it is");
        store(&mut connection, &changes(0..2_999, false, 4_000)).await.unwrap();
        let left: Vec<_> = flagged(&mut connection).await.unwrap().into_keys().collect();
        assert_eq!(left, [TerminalId::new("t2999").unwrap()]);
        let odd: i64 = sqlx::query_scalar("SELECT count(*) FROM fault_period WHERE closed < opened")
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!(odd, 0, "no occurrence ends before it begins");
    }

    /// They run beside acknowledgements; the table keeps ten years.
    #[tokio::test]
    async fn clocks_are_looked_up_among_what_is_open() {
        let test = TestDatabase::new().await;
        let mut connection = test.open().await.connection().await.unwrap();
        sqlx::raw_sql(
            "INSERT INTO fault_period (elevator_id, terminal_id, code, slug, opened, opened_by, closed, closed_by)
             SELECT number % 100, 't' || number % 100, '5', 'unintended_movement',
                    TIMESTAMPTZ '2026-01-01' + number * INTERVAL '1 s', 'event',
                    TIMESTAMPTZ '2026-01-02' + number * INTERVAL '1 s', 'event'
             FROM generate_series(1, 20000) AS number;
             ANALYZE fault_period",
        )
        .execute(&mut connection)
        .await
        .unwrap();
        for statement in [FLAGGED, COUNT, OPEN, CLOSE] {
            let text = format!("EXPLAIN {statement}");
            let query = sqlx::query_scalar::<_, String>(AssertSqlSafe(text.as_str()));
            let query = if statement == OPEN { query.bind(vec![1_i64]) } else { query };
            let asks = statement.contains("unnest");
            let times = vec![Timestamp::from_millis(0).to_utc()];
            let query = if asks { query.bind(vec!["t1"]).bind(times) } else { query };
            let plan = query.fetch_all(&mut connection).await.unwrap().join("\n");
            assert!(plan.contains("fault_period_server"), "{statement}\n{plan}");
        }
    }
}
