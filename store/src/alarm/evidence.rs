//! The evidence of an alarm: what was known around it, sealed once.

use domain::{Alarm, AlarmEvent, AlarmId, Timestamp};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sqlx::types::{Json, Uuid};
use sqlx::{Connection, PgConnection};
use time::OffsetDateTime;

use super::commit::hex;
use super::rows::{self, AlarmRow, EventRow, alarm_columns};
use crate::{Database, StoreError};

/// Sealed evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// Canonical JSON (RFC 8785): keys sorted, no white space.
    pub json: String,
    /// Over the bytes of `json`, hexadecimal.
    pub sha256: String,
    /// Server clock.
    pub sealed: Timestamp,
}

/// An alarm that waits for its seal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsealed {
    /// Which.
    pub id: AlarmId,
    /// When it was raised.
    pub raised: Timestamp,
}

/// Rows of one kind in one seal: far more than a terminal sends in the minutes around an alarm.
const ROWS_MAX: i64 = 10_000;
/// Events of the alarm in one seal.
const EVENTS_MAX: i64 = 1_000;

impl Database {
    /// At most `limit` alarms raised up to `until` that wait for their seal, oldest first.
    pub async fn alarm_unsealed(&self, until: Timestamp, limit: u32) -> Result<Vec<Unsealed>, StoreError> {
        let found: Vec<(Uuid, OffsetDateTime)> = sqlx::query_as(
            "SELECT id, raised
            FROM alarm
            WHERE NOT sealed AND raised <= $1
            ORDER BY raised
            LIMIT $2",
        )
        .bind(until.to_utc())
        .bind(i64::from(limit))
        .fetch_all(self.pool())
        .await?;
        Ok(found
            .into_iter()
            .map(|(id, raised)| Unsealed { id: AlarmId(id), raised: raised.into() })
            .collect())
    }

    /// Gathers and seals the evidence of an alarm: its readings and faults from 60 s before it began to 60 s
    /// after it was raised, and its events with rule, version, thresholds and trace. Once: answers whether
    /// this call did it.
    pub async fn alarm_evidence_seal(&self, id: AlarmId, at: Timestamp) -> Result<bool, StoreError> {
        let mut connection = self.pool().acquire().await?;
        let mut transaction = connection.begin().await?;
        let row: Option<AlarmRow> =
            sqlx::query_as(concat!("SELECT ", alarm_columns!(), " FROM alarm WHERE id = $1 AND NOT sealed"))
                .bind(id.0)
                .fetch_optional(&mut *transaction)
                .await?;
        let Some(row) = row else { return Ok(false) };
        let alarm = Alarm::try_from(row)?;
        let json = gather(&mut transaction, &alarm).await?;
        let sha256 = Sha256::digest(json.as_bytes());
        // No lock before this: gathering takes a while, and updates of the alarm must not wait for it.
        let first = sqlx::query(
            "INSERT INTO alarm_evidence (sealed, alarm_id, json, sha256)
            VALUES ($1, $2, $3, $4)
            ON CONFLICT DO NOTHING",
        )
        .bind(at.to_utc())
        .bind(id.0)
        .bind(&json)
        .bind(sha256.as_slice())
        .execute(&mut *transaction)
        .await?
        .rows_affected();
        sqlx::query("UPDATE alarm SET sealed = true WHERE id = $1")
            .bind(id.0)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(first == 1)
    }
}

pub(super) async fn get(connection: &mut PgConnection, id: AlarmId) -> Result<Option<Evidence>, StoreError> {
    let found: Option<(String, Vec<u8>, OffsetDateTime)> = sqlx::query_as(
        "SELECT json, sha256, sealed
        FROM alarm_evidence
        WHERE alarm_id = $1",
    )
    .bind(id.0)
    .fetch_optional(connection)
    .await?;
    let evidence = |(json, sha256, sealed): (String, Vec<u8>, OffsetDateTime)| Evidence {
        json,
        sha256: hex(&sha256),
        sealed: sealed.into(),
    };
    Ok(found.map(evidence))
}

async fn gather(connection: &mut PgConnection, alarm: &Alarm) -> Result<String, StoreError> {
    let minute = std::time::Duration::from_mins(1);
    let (from, to) = (alarm.began.minus(minute), alarm.raised.max(alarm.began).plus(minute));
    let readings = rows_around(
        connection,
        "SELECT to_jsonb(row) - '{elevator_id,time,arrived}'::text[] || jsonb_build_object(
            'terminal_id', terminal_id, 'boot', boot,
            'time_us', (extract(epoch FROM time) * 1000000)::bigint,
            'arrived_us', (extract(epoch FROM arrived) * 1000000)::bigint)
        FROM telemetry AS row
        JOIN source USING (source)
        WHERE elevator_id = $1
            AND time BETWEEN $2::timestamptz - interval '1 day' AND $3::timestamptz + interval '1 day'
            AND coalesce(arrived - greatest(age_ms, 0) * interval '1 ms', time) BETWEEN $2 AND $3
        ORDER BY arrival_no, item
        LIMIT $4",
        alarm,
        (from, to),
    )
    .await?;
    let faults = rows_around(
        connection,
        "SELECT to_jsonb(row) - '{elevator_id,time,arrived}'::text[] || jsonb_build_object(
            'terminal_id', terminal_id, 'boot', boot,
            'time_us', (extract(epoch FROM time) * 1000000)::bigint,
            'arrived_us', (extract(epoch FROM arrived) * 1000000)::bigint)
        FROM fault AS row
        JOIN source USING (source)
        WHERE elevator_id = $1
            AND time BETWEEN $2::timestamptz - interval '1 day' AND $3::timestamptz + interval '1 day'
            AND coalesce(arrived - greatest(age_ms, 0) * interval '1 ms', time) BETWEEN $2 AND $3
        ORDER BY arrival_no, item
        LIMIT $4",
        alarm,
        (from, to),
    )
    .await?;
    let events: Vec<EventRow> = sqlx::query_as(
        "SELECT no, at, change, alarm
        FROM alarm_event
        WHERE alarm_id = $1
        ORDER BY no
        LIMIT $2",
    )
    .bind(alarm.id.0)
    .bind(EVENTS_MAX)
    .fetch_all(connection)
    .await?;
    let events: Vec<AlarmEvent> = rows::events(events)?;
    let whole = json!({
        "format": 1,
        "alarm": alarm,
        "events": events,
        "from": from,
        "to": to,
        "readings": readings,
        "faults": faults,
    });
    Ok(canonical(&whole))
}

/// Rows of an elevator whose corrected device time (arrival less age, DOMAIN.md 6) lies in the span. Device
/// time as sent, by which chunks are found, may be a day off.
async fn rows_around(
    connection: &mut PgConnection,
    statement: &'static str,
    alarm: &Alarm,
    (from, to): (Timestamp, Timestamp),
) -> Result<Vec<Value>, StoreError> {
    let rows: Vec<Json<Value>> = sqlx::query_scalar(statement)
        .bind(alarm.elevator_id.0)
        .bind(from.to_utc())
        .bind(to.to_utc())
        .bind(ROWS_MAX)
        .fetch_all(connection)
        .await?;
    Ok(rows.into_iter().map(|Json(row)| row).collect())
}

/// JSON with sorted keys and no white space: the same content is the same bytes, whoever writes it.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let mut sorted: Vec<_> = fields.iter().collect();
            sorted.sort_unstable_by_key(|(name, _)| *name);
            let field = |(name, value): (&String, &Value)| format!("{}:{}", json!(name), canonical(value));
            format!("{{{}}}", sorted.into_iter().map(field).collect::<Vec<_>>().join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        plain => plain.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_json_sorts_its_keys() {
        let value: Value =
            serde_json::from_str(r#"{ "b": [1, {"d": null, "c": "x\"y"}], "a": -5 }"#).unwrap();
        assert_eq!(canonical(&value), r#"{"a":-5,"b":[1,{"c":"x\"y","d":null}]}"#);
    }
}
