//! Orders that wait for terminals.
//!
//! An order waits until its terminal has acknowledged it, a newer one of its kind replaces it, or it is too
//! old. Promises: bounded per terminal; every order given is in the audit log; delivered is said once and stays
//! said. Does not send: whoever does is woken by [`DownlinkListener`], and asks what is due.

use domain::{Downlink, DownlinkId, DownlinkKind, TerminalId, Timestamp, limits};
use sqlx::postgres::{PgListener, PgRow};
use sqlx::{PgConnection, Row};
use time::OffsetDateTime;

use crate::state::storable;
use crate::{Database, StoreError};

/// Notified with the terminal's id whenever an order is given.
const CHANNEL: &str = "liftwatch_downlink";

/// An order that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DownlinkRecord {
    /// Which.
    pub id: DownlinkId,
    /// For whom.
    pub terminal_id: TerminalId,
    /// Division of the terminal.
    pub area: domain::Area,
    /// What to do.
    pub order: Downlink,
    /// When it was given.
    pub created: Timestamp,
    /// When it is worthless.
    pub expires: Timestamp,
}

/// What became of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DownlinkFate {
    /// The terminal has not acknowledged it yet.
    Waiting,
    /// The terminal has acknowledged it.
    Delivered(Timestamp),
    /// It was not delivered in its time.
    Expired,
    /// A newer one of its kind took its place, or it is no longer kept.
    Gone,
}

/// Why an order is not taken.
#[derive(Debug, thiserror::Error)]
pub enum DownlinkQueueError {
    /// There is no such terminal.
    #[error("no terminal '{0}' is registered")]
    Unknown(TerminalId),
    /// The terminal is switched off.
    #[error("terminal '{0}' is switched off")]
    Disabled(TerminalId),
    /// Too many wait for it.
    #[error("{0} orders wait for this terminal already: it must come and take them first")]
    Full(usize),
    /// The store does not take it now, or not at all.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for DownlinkQueueError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

const COLUMNS: &str = "SELECT downlink.downlink_id, downlink.created, downlink.expires, downlink.kind, \
    downlink.interval_ms, downlink.for_s, terminal.terminal_id, terminal.area FROM downlink JOIN terminal \
    USING (terminal_id) WHERE terminal.enabled AND downlink.delivered IS NULL AND downlink.expires > $1";

impl Database {
    /// Gives an order; a waiting one of its kind is replaced. Wakes whoever sends.
    pub async fn downlink_queue(
        &self,
        terminal_id: &TerminalId,
        order: Downlink,
        actor: &str,
        now: Timestamp,
    ) -> Result<DownlinkId, DownlinkQueueError> {
        let mut transaction = self.pool().begin().await?;
        // Locked, so that two orders at once count each other.
        let enabled: Option<bool> = sqlx::query_scalar(
            "SELECT enabled
             FROM terminal
             WHERE terminal_id = $1
             FOR NO KEY UPDATE",
        )
        .bind(terminal_id.as_str())
        .fetch_optional(&mut *transaction)
        .await?;
        match enabled {
            None => return Err(DownlinkQueueError::Unknown(terminal_id.clone())),
            Some(false) => return Err(DownlinkQueueError::Disabled(terminal_id.clone())),
            Some(true) => {}
        }
        let (at, slug) = (utc(now), order.kind().slug());
        sqlx::query("DELETE FROM downlink WHERE terminal_id = $1 AND kind = $2 AND delivered IS NULL")
            .bind(terminal_id.as_str())
            .bind(slug)
            .execute(&mut *transaction)
            .await?;
        let waiting: i64 = sqlx::query_scalar(
            "SELECT count(*)
             FROM downlink
             WHERE terminal_id = $1 AND delivered IS NULL AND expires > $2",
        )
        .bind(terminal_id.as_str())
        .bind(at)
        .fetch_one(&mut *transaction)
        .await?;
        let waiting = usize::try_from(waiting).unwrap_or(usize::MAX);
        if waiting >= limits::DOWNLINKS_WAITING_MAX {
            return Err(DownlinkQueueError::Full(waiting));
        }
        let (interval_ms, for_s) = match order {
            Downlink::ReportRate { interval_ms, for_s } => (Some(interval_ms), Some(for_s)),
            Downlink::ClockSet | Downlink::LiveView => (None, None),
        };
        let id: i64 = sqlx::query_scalar(
            "INSERT INTO downlink (created, expires, interval_ms, for_s, terminal_id, kind, actor)
             VALUES ($1, $2, $3, $4, $5, $6, $7)
             RETURNING downlink_id",
        )
        .bind(at)
        .bind(utc(now.plus(order.keeps_for())))
        .bind(interval_ms.map(u32::cast_signed))
        .bind(for_s.map(u32::cast_signed))
        .bind(terminal_id.as_str())
        .bind(slug)
        .bind(actor)
        .fetch_one(&mut *transaction)
        .await?;
        audit(&mut transaction, id, terminal_id, order, actor, at).await?;
        sqlx::query("SELECT pg_notify($1, $2)")
            .bind(CHANNEL)
            .bind(terminal_id.as_str())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(DownlinkId(id))
    }

    /// What waits for one terminal, oldest first.
    pub async fn downlink_due_of(
        &self,
        terminal_id: &TerminalId,
        now: Timestamp,
    ) -> Result<Vec<DownlinkRecord>, StoreError> {
        let sql = format!("{COLUMNS} AND downlink.terminal_id = $2 ORDER BY downlink.downlink_id LIMIT $3");
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(utc(now))
            .bind(terminal_id.as_str())
            .bind(i64::try_from(limits::DOWNLINKS_WAITING_MAX).unwrap_or(i64::MAX))
            .fetch_all(self.pool())
            .await?;
        rows.iter().map(record).collect()
    }

    /// What waits for terminals that are connected, after one order and oldest first, `limit` at most.
    pub async fn downlink_due(
        &self,
        after: DownlinkId,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<DownlinkRecord>, StoreError> {
        let sql = format!(
            "{COLUMNS} AND downlink.downlink_id > $2
                AND EXISTS (SELECT FROM presence WHERE presence.terminal_id = downlink.terminal_id AND online)
             ORDER BY downlink.downlink_id LIMIT $3"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(utc(now))
            .bind(after.0)
            .bind(i64::from(limit))
            .fetch_all(self.pool())
            .await?;
        rows.iter().map(record).collect()
    }

    /// Terminals have acknowledged these. Saying it again changes nothing.
    pub async fn downlink_delivered(&self, ids: &[DownlinkId], now: Timestamp) -> Result<u64, StoreError> {
        let done = sqlx::query(
            "UPDATE downlink
             SET delivered = $2
             WHERE downlink_id = ANY ($1) AND delivered IS NULL",
        )
        .bind(ids.iter().map(|id| id.0).collect::<Vec<_>>())
        .bind(utc(now))
        .execute(self.pool())
        .await?;
        Ok(done.rows_affected())
    }

    /// What became of one.
    pub async fn downlink_fate(&self, id: DownlinkId, now: Timestamp) -> Result<DownlinkFate, StoreError> {
        let row = sqlx::query("SELECT delivered, expires FROM downlink WHERE downlink_id = $1")
            .bind(id.0)
            .fetch_optional(self.pool())
            .await?;
        let Some(row) = row else { return Ok(DownlinkFate::Gone) };
        let delivered: Option<OffsetDateTime> = row.try_get("delivered")?;
        let expires: OffsetDateTime = row.try_get("expires")?;
        Ok(match delivered {
            Some(at) => DownlinkFate::Delivered(at.into()),
            None if Timestamp::from(expires) <= now => DownlinkFate::Expired,
            None => DownlinkFate::Waiting,
        })
    }

    /// Listens for orders being given, on a connection of its own.
    pub async fn downlink_listener(&self) -> Result<DownlinkListener, StoreError> {
        Ok(DownlinkListener(self.listen(CHANNEL).await?))
    }
}

/// Tells whom an order was given to. A hint: what was given while it was not connected is not told.
#[derive(Debug)]
pub struct DownlinkListener(PgListener);

impl DownlinkListener {
    /// The next terminal; `None` where the connection was lost and is there again, so that words may have been
    /// missed. An error: the listener is of no more use. May be cancelled without loss.
    pub async fn next(&mut self) -> Result<Option<TerminalId>, StoreError> {
        let notification = self.0.try_recv().await?;
        Ok(notification.and_then(|notification| TerminalId::new(notification.payload()).ok()))
    }
}

fn utc(time: Timestamp) -> OffsetDateTime {
    storable(time).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

async fn audit(
    connection: &mut PgConnection,
    id: i64,
    terminal_id: &TerminalId,
    order: Downlink,
    actor: &str,
    at: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    let mut detail = serde_json::json!({ "downlink_id": id, "order": order.kind().slug() });
    if let (Downlink::ReportRate { interval_ms, for_s }, Some(detail)) = (order, detail.as_object_mut()) {
        detail.insert("interval_ms".to_owned(), interval_ms.into());
        detail.insert("for_s".to_owned(), for_s.into());
    }
    sqlx::query(
        "INSERT INTO audit (at, actor, organisation, action, subject, detail)
         VALUES ($1, $2, '', 'downlink', $3, $4::jsonb)",
    )
    .bind(at)
    .bind(actor)
    .bind(terminal_id.as_str())
    .bind(detail.to_string())
    .execute(connection)
    .await
    .map(drop)
}

fn record(row: &PgRow) -> Result<DownlinkRecord, StoreError> {
    let corrupt = |error: &dyn std::fmt::Display| StoreError::Corrupt(error.to_string());
    let at = |column| row.try_get::<OffsetDateTime, _>(column).map(Timestamp::from);
    let unsigned = |column| -> Result<u32, sqlx::Error> {
        Ok(row.try_get::<Option<i32>, _>(column)?.unwrap_or_default().cast_unsigned())
    };
    let kind: &str = row.try_get("kind")?;
    let order = match kind.parse::<DownlinkKind>().map_err(|error| corrupt(&error))? {
        DownlinkKind::ClockSet => Downlink::ClockSet,
        DownlinkKind::LiveView => Downlink::LiveView,
        DownlinkKind::ReportRate => Downlink::report_rate(unsigned("interval_ms")?, unsigned("for_s")?)
            .map_err(|error| corrupt(&error))?,
    };
    let terminal: &str = row.try_get("terminal_id")?;
    let area: i32 = row.try_get("area")?;
    let area = u32::try_from(area).ok().and_then(|area| domain::Area::from_number(area).ok());
    Ok(DownlinkRecord {
        id: DownlinkId(row.try_get("downlink_id")?),
        terminal_id: TerminalId::new(terminal).map_err(|error| corrupt(&error))?,
        area: area.ok_or_else(|| StoreError::Corrupt(format!("area of terminal {terminal}")))?,
        order,
        created: at("created")?,
        expires: at("expires")?,
    })
}
