//! Reading `fault_period`.

use domain::{BootId, ClosedBy, Code, ElevatorId, FaultPeriod, OpenedBy, TerminalId, Timestamp};
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use time::OffsetDateTime;

use crate::recovery::meaning;
use crate::{Database, StoreError};

/// An occurrence of a fault, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultPeriodRecord {
    /// Whose terminal told it.
    pub terminal_id: TerminalId,
    /// The occurrence.
    pub period: FaultPeriod,
}

impl Database {
    /// What lasts at an elevator, oldest first. Index `fault_period_closed`.
    pub async fn faults_open(&self, elevator: ElevatorId) -> Result<Vec<FaultPeriodRecord>, StoreError> {
        let rows = sqlx::query(
            "SELECT *
             FROM fault_period
             WHERE elevator_id = $1
               AND closed IS NULL
             ORDER BY opened, terminal_id, code",
        )
        .bind(elevator.0)
        .fetch_all(self.pool())
        .await?;
        rows.iter().map(record).collect()
    }

    /// What lasted at an elevator at any time from `from` until before `to`, oldest first. By its primary key.
    pub async fn fault_periods(
        &self,
        elevator: ElevatorId,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<FaultPeriodRecord>, StoreError> {
        let rows = sqlx::query(
            "SELECT *
             FROM fault_period
             WHERE elevator_id = $1
               AND opened < $3
               AND (closed IS NULL OR closed >= $2)
             ORDER BY opened, terminal_id, code",
        )
        .bind(elevator.0)
        .bind(from.to_utc())
        .bind(to.to_utc())
        .fetch_all(self.pool())
        .await?;
        rows.iter().map(record).collect()
    }
}

fn record(row: &PgRow) -> Result<FaultPeriodRecord, StoreError> {
    Ok(FaultPeriodRecord { terminal_id: terminal(row)?, period: period(row)? })
}

pub(super) fn terminal(row: &PgRow) -> Result<TerminalId, StoreError> {
    TerminalId::new(row.try_get("terminal_id")?).map_err(|error| StoreError::Corrupt(error.to_string()))
}

/// Column `boot`.
pub(crate) fn boot(row: &PgRow) -> Result<BootId, StoreError> {
    let boot = u32::try_from(row.try_get::<i64, _>("boot")?);
    boot.map(BootId).map_err(|error| StoreError::Corrupt(error.to_string()))
}

pub(super) fn period(row: &PgRow) -> Result<FaultPeriod, StoreError> {
    let at = |column| row.try_get::<Option<OffsetDateTime>, _>(column).map(|at| at.map(Timestamp::from));
    let unknown = |word: &str| StoreError::Corrupt(format!("{word} opens or closes no fault"));
    let (opened_by, closed_by): (&str, Option<&str>) = (row.try_get("opened_by")?, row.try_get("closed_by")?);
    let closed_by = closed_by.map(|word| ClosedBy::from_slug(word).ok_or_else(|| unknown(word)));
    Ok(FaultPeriod {
        code: code(row)?,
        opened: Timestamp::from(row.try_get::<OffsetDateTime, _>("opened")?),
        device_time: at("device_time")?,
        closed: at("closed")?,
        opened_by: OpenedBy::from_slug(opened_by).ok_or_else(|| unknown(opened_by))?,
        closed_by: closed_by.transpose()?,
        listed: at("listed")?,
    })
}

/// Columns `code` and `slug`.
pub(super) fn code(row: &PgRow) -> Result<Code, StoreError> {
    Ok(Code { raw: row.try_get::<&str, _>("code")?.into(), fault: meaning(row.try_get("slug")?)? })
}
