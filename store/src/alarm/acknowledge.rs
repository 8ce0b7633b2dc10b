//! Somebody has taken note of an alarm.

use domain::{Alarm, AlarmChange, AlarmId, Timestamp};
use sqlx::types::{Json, Uuid};
use sqlx::{Connection, PgConnection};

use super::commit::{alarm_lock, event_append_one};
use super::rows::{AlarmRow, alarm_columns};
use crate::{Database, StoreError};

/// Who takes note of what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledgement {
    /// The alarm.
    pub alarm_id: AlarmId,
    /// Who.
    pub actor: String,
    /// Chosen by the caller: the same again gives the first result.
    pub idempotency_key: String,
    /// In their words; may be empty.
    pub note: String,
    /// Server clock.
    pub at: Timestamp,
}

/// The result of an acknowledgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledged {
    /// The number of the event that tells it.
    pub no: i64,
    /// The alarm after it.
    pub alarm: Alarm,
}

/// Why an alarm was not acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum AcknowledgeError {
    /// No alarm of this id is stored.
    #[error("no alarm {0} is stored")]
    NotFound(AlarmId),
    /// The key belongs to another alarm.
    #[error("the idempotency key was used for alarm {0}")]
    KeyReused(AlarmId),
    /// The store failed.
    #[error("alarm not acknowledged")]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for AcknowledgeError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

impl Database {
    /// Marks an alarm as taken note of. The first acknowledgement of an alarm stays; a later one by somebody
    /// else is kept in the audit log and gets the first one's result, and so does a repeated key.
    pub async fn alarm_acknowledge(
        &self,
        request: &Acknowledgement,
    ) -> Result<Acknowledged, AcknowledgeError> {
        let mut connection = self.pool().acquire().await?;
        let mut transaction = connection.begin().await?;
        key_lock(&mut transaction, &request.idempotency_key).await?;
        if let Some((first, no)) = key_used(&mut transaction, &request.idempotency_key).await? {
            if first != request.alarm_id {
                return Err(AcknowledgeError::KeyReused(first));
            }
            return result_at(&mut transaction, first, no).await;
        }
        alarm_lock(&mut transaction, &[request.alarm_id]).await?;
        let alarm = alarm_get(&mut transaction, request.alarm_id).await?;
        let result = match acknowledged_before(&mut transaction, request.alarm_id).await? {
            Some(no) => again(&mut transaction, request, no).await?,
            None => first(&mut transaction, request, alarm).await?,
        };
        transaction.commit().await?;
        Ok(result)
    }
}

/// Nobody had taken note before.
async fn first(
    connection: &mut PgConnection,
    request: &Acknowledgement,
    alarm: Alarm,
) -> Result<Acknowledged, AcknowledgeError> {
    let alarm =
        Alarm { acknowledged_by: Some(request.actor.clone()), acknowledged: Some(request.at), ..alarm };
    audit(connection, request, "acknowledged").await?;
    // The key keeps the number, so it follows the statement that takes it.
    let no = event_append_one(connection, request.at, AlarmChange::Acknowledged, alarm.clone()).await?;
    key_add(connection, request, no).await?;
    Ok(Acknowledged { no, alarm })
}

/// Somebody had, by event `no`.
async fn again(
    connection: &mut PgConnection,
    request: &Acknowledgement,
    no: i64,
) -> Result<Acknowledged, AcknowledgeError> {
    audit(connection, request, "acknowledged before").await?;
    key_add(connection, request, no).await?;
    result_at(connection, request.alarm_id, no).await
}

/// One at a time with the same key: the second sees what the first did.
async fn key_lock(connection: &mut PgConnection, key: &str) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1, 4711))")
        .bind(key)
        .execute(connection)
        .await?;
    Ok(())
}

async fn key_used(connection: &mut PgConnection, key: &str) -> Result<Option<(AlarmId, i64)>, sqlx::Error> {
    let found: Option<(Uuid, i64)> = sqlx::query_as(
        "SELECT alarm_id, no
        FROM alarm_acknowledgement
        WHERE idempotency_key = $1",
    )
    .bind(key)
    .fetch_optional(connection)
    .await?;
    Ok(found.map(|(id, no)| (AlarmId(id), no)))
}

async fn key_add(
    connection: &mut PgConnection,
    request: &Acknowledgement,
    no: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO alarm_acknowledgement (at, no, alarm_id, idempotency_key, actor, note)
        VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(request.at.to_utc())
    .bind(no)
    .bind(request.alarm_id.0)
    .bind(&request.idempotency_key)
    .bind(&request.actor)
    .bind(&request.note)
    .execute(connection)
    .await?;
    Ok(())
}

async fn acknowledged_before(
    connection: &mut PgConnection,
    alarm_id: AlarmId,
) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT min(no)
        FROM alarm_acknowledgement
        WHERE alarm_id = $1",
    )
    .bind(alarm_id.0)
    .fetch_one(connection)
    .await
}

async fn alarm_get(connection: &mut PgConnection, alarm_id: AlarmId) -> Result<Alarm, AcknowledgeError> {
    let row: Option<AlarmRow> =
        sqlx::query_as(concat!("SELECT ", alarm_columns!(), " FROM alarm WHERE id = $1"))
            .bind(alarm_id.0)
            .fetch_optional(connection)
            .await?;
    let row = row.ok_or(AcknowledgeError::NotFound(alarm_id))?;
    Ok(Alarm::try_from(row)?)
}

/// The alarm as event `no` left it, or as it is now if that event is no longer kept.
async fn result_at(
    connection: &mut PgConnection,
    alarm_id: AlarmId,
    no: i64,
) -> Result<Acknowledged, AcknowledgeError> {
    let then: Option<Json<Alarm>> = sqlx::query_scalar("SELECT alarm FROM alarm_event WHERE no = $1")
        .bind(no)
        .fetch_optional(&mut *connection)
        .await?;
    let alarm = match then {
        Some(Json(alarm)) => alarm,
        None => alarm_get(connection, alarm_id).await?,
    };
    Ok(Acknowledged { no, alarm })
}

/// Every change by a person is on record (DESIGN.md 2, promise 9).
async fn audit(
    connection: &mut PgConnection,
    request: &Acknowledgement,
    outcome: &str,
) -> Result<(), sqlx::Error> {
    let detail = serde_json::json!({
        "idempotency_key": request.idempotency_key,
        "note": request.note,
        "outcome": outcome,
    });
    sqlx::query(
        "INSERT INTO audit (at, actor, organisation, action, subject, detail)
        VALUES ($1, $2, '', 'alarm_acknowledge', $3, $4)",
    )
    .bind(request.at.to_utc())
    .bind(&request.actor)
    .bind(request.alarm_id.to_string())
    .bind(Json(detail))
    .execute(connection)
    .await?;
    Ok(())
}
