//! What has to be done now and then: rolling up, and letting go of what is older than the retention.

use std::time::Duration;

use domain::Timestamp;
use sqlx::Connection;

use crate::{Database, Edition, StoreError, rollup};

/// Orders to terminals are kept this long, long after the last of them can be delivered; that they were given
/// stays in the audit log.
const DOWNLINKS_KEPT: Duration = Duration::from_hours(30 * 24);

/// What one run has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MaintenanceReport {
    /// Stretches of at most an hour that were rolled up. Always 0 on the Community edition.
    pub stretches: u64,
    /// (Elevator, hour) pairs rolled up again because readings came late.
    pub late_hours: u64,
    /// Chunks let go.
    pub chunks_dropped: u64,
    /// Quarantined things let go.
    pub quarantine_dropped: u64,
    /// Orders to terminals let go.
    pub downlinks_dropped: u64,
    /// Another process is at it; nothing was done.
    pub elsewhere: bool,
}

impl Database {
    /// To be called about once a minute, by any number of processes: one of them does it. Reads the database to
    /// see what is to be done, so a run that failed or was left out is made up by the next.
    pub async fn maintenance_run(&self, now: Timestamp) -> Result<MaintenanceReport, StoreError> {
        let edition = match self.edition_known() {
            Some(edition) => edition,
            None => self.ensure().await?,
        };
        // Its own connection: the lock is the session's, and ends with it whatever happens.
        let mut connection = self.connection().await?;
        let mine: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock(hashtext('liftwatch maintenance'))")
            .fetch_one(&mut connection)
            .await?;
        if !mine {
            return Ok(MaintenanceReport { elsewhere: true, ..MaintenanceReport::default() });
        }
        let mut report = MaintenanceReport::default();
        if edition == Edition::Apache {
            (report.stretches, report.late_hours) = rollup::rollup_run(&mut connection, now).await?;
        }
        let oldest = now.minus(self.config().retention).to_utc();
        for table in ["telemetry", "fault"] {
            let dropped = sqlx::query("SELECT drop_chunks($1::regclass, older_than => $2::timestamptz)")
                .bind(table)
                .bind(oldest)
                .fetch_all(&mut connection)
                .await?;
            report.chunks_dropped += dropped.len() as u64;
        }
        report.quarantine_dropped = sqlx::query("DELETE FROM quarantine WHERE arrived < $1")
            .bind(oldest)
            .execute(&mut connection)
            .await?
            .rows_affected();
        let oldest = now.minus(DOWNLINKS_KEPT).to_utc();
        report.downlinks_dropped = sqlx::query("DELETE FROM downlink WHERE created < $1")
            .bind(oldest)
            .execute(&mut connection)
            .await?
            .rows_affected();
        connection.close().await?;
        Ok(report)
    }
}
