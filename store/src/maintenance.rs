//! What has to be done now and then: rolling up, and letting go of what is older than the retention.
//!
//! Promises: one process at a time, whoever calls; every step bounded in time and in what one transaction
//! holds, and made up by the next run if it was cut short; a step that fails does not keep the others from
//! running; readings that are not rolled up yet are not let go, and nothing is by a clock that leapt ahead
//! ([`clock`]). What it did and when it is due is kept in
//! `maintenance_step`. Does not: schedule itself, or touch the registry, alarms or the audit log.

mod budget;
mod chunks;
pub(crate) mod clock;
mod division;
mod metrics;
mod rows;
mod step;

use std::time::Duration;

use domain::Timestamp;
use sqlx::Connection;
use sqlx::postgres::PgConnection;

use crate::rollup::{aggregate, own};
use crate::{Database, Edition, StoreError, rollup};
pub(crate) use budget::Budget;
pub(crate) use chunks::HYPERTABLE_OF;
pub use metrics::MaintenanceMetrics;
pub use step::Step;

/// A statement of maintenance that takes longer is given up, and tried again by a later run.
const STATEMENT_TIMEOUT: Duration = Duration::from_mins(30);
/// A lock that is not to be had for so long is given up: nobody queues behind maintenance for longer.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
/// After its time and that of its last statement a step has no answer any more, and its connection is given up.
const SILENCE: Duration = Duration::from_mins(1);

/// What one run has done.
#[derive(Debug, Default)]
pub struct MaintenanceReport {
    /// Stretches of at most an hour whose minutes were rolled up. Always 0 on the Community edition.
    pub stretches: u64,
    /// Hours rolled up. Always 0 on the Community edition.
    pub hours: u64,
    /// (Elevator, hour) pairs rolled up again because readings came late. Always 0 on the Community edition.
    pub late_hours: u64,
    /// Late (elevator, hour) pairs that still wait.
    pub late_hours_waiting: u64,
    /// How far the rollup by minute is behind; nothing before the first.
    pub rollup_lag: Option<Duration>,
    /// Minutes before it are rolled up.
    pub rolled_up_to: Option<Timestamp>,
    /// The clock leapt ahead: nothing is deleted until then, or until it is set back.
    pub deleting_from: Option<Timestamp>,
    /// Windows of continuous aggregates looked at for late readings. Always 0 on the Apache edition.
    pub windows_refreshed: u64,
    /// Chunks let go.
    pub chunks_dropped: u64,
    /// Rows of elevators whose division keeps them for less, let go.
    pub division_rows_dropped: u64,
    /// Quarantined things let go.
    pub quarantine_dropped: u64,
    /// Orders to terminals let go.
    pub downlinks_dropped: u64,
    /// Notes of candidates that were not raised, evidence, and ended fault periods let go.
    pub records_dropped: u64,
    /// Events of the alarm stream let go.
    pub alarm_events_dropped: u64,
    /// Steps that ran, in order.
    pub steps: Vec<Step>,
    /// Steps that failed, with why. They are tried again by a later run.
    pub failed: Vec<(Step, StoreError)>,
    /// A step's time ended before its work did: the next run goes on.
    pub more: bool,
    /// Another process is at it; nothing was done.
    pub elsewhere: bool,
}

impl Database {
    /// To be called about once a minute, by any number of processes, with [`Database::clock`]: one of them does
    /// it. Reads the database to see what is to be done, so a run that failed or was left out is made up by the
    /// next. May be dropped at any moment.
    pub async fn maintenance_run(&self, now: Timestamp) -> Result<MaintenanceReport, StoreError> {
        let edition = match self.edition_known() {
            Some(edition) => edition,
            None => self.in_time(self.ensure()).await?,
        };
        // Its own connection: the lock is the session's, and ends with it whatever happens.
        let mut connection = self.connection().await?;
        let mut report = MaintenanceReport::default();
        let begun = self.in_time(begin(&mut connection, edition, now)).await?;
        report.elsewhere = begun.is_none();
        let Begun { due, deleting_from } = begun.unwrap_or_default();
        report.deleting_from = deleting_from;
        for step in due {
            report.steps.push(step);
            let budget = Budget::new(step.time());
            let wait = step.time() + STATEMENT_TIMEOUT + SILENCE;
            let work = Box::pin(self.step_run(&mut connection, step, edition, now, &budget, &mut report));
            let outcome = tokio::time::timeout(wait, work).await.unwrap_or(Err(StoreError::Timeout(wait)));
            let lost = matches!(&outcome, Err(StoreError::Unavailable(_) | StoreError::Timeout(_)));
            if !lost {
                self.in_time(step::note(&mut connection, step, now, &outcome)).await?;
            }
            match outcome {
                Ok(progress) => report.more |= progress.more,
                Err(error) => report.failed.push((step, error)),
            }
            if lost {
                return Ok(report);
            }
        }
        let reach = self.in_time(async { Ok(rollup::reach(&mut connection, edition).await?) }).await?;
        report.rollup_lag = reach.minutes_to.map(|to| now.since(to));
        report.rolled_up_to = reach.minutes_to;
        report.late_hours_waiting = reach.late_waiting.unsigned_abs();
        self.in_time(async { Ok(connection.close().await?) }).await?;
        Ok(report)
    }

    async fn step_run(
        &self,
        connection: &mut PgConnection,
        step: Step,
        edition: Edition,
        now: Timestamp,
        budget: &Budget,
        report: &mut MaintenanceReport,
    ) -> Result<Progress, StoreError> {
        let config = self.config();
        let progress = match step {
            Step::Rollup => {
                let done = own::run(connection, now, budget).await?;
                report.stretches = done.stretches;
                report.hours = done.hours;
                report.late_hours = done.late_hours;
                Progress { done: done.stretches + done.hours + done.late_hours, more: done.more }
            }
            Step::Policies => {
                aggregate::policies_ensure(connection, config, now).await?;
                Progress::default()
            }
            Step::Refresh => {
                let (windows, more) = aggregate::refresh(connection, config, now, budget).await?;
                report.windows_refreshed = windows;
                Progress { done: windows, more }
            }
            Step::Chunks => {
                let progress = chunks::run(connection, config, edition, now, budget).await?;
                report.chunks_dropped = progress.done;
                progress
            }
            Step::Divisions => {
                let progress = division::run(connection, config, edition, now, budget).await?;
                report.division_rows_dropped = progress.done;
                progress
            }
            Step::Rows => {
                let dropped = rows::run(connection, &config.retention, now, budget).await?;
                report.quarantine_dropped = dropped.quarantine;
                report.downlinks_dropped = dropped.downlinks;
                report.records_dropped = dropped.records;
                let done = dropped.quarantine + dropped.downlinks + dropped.records;
                Progress { done, more: dropped.more }
            }
            Step::AlarmEvents => {
                let progress = self.alarm_events_run(now, budget).await?;
                report.alarm_events_dropped = progress.done;
                progress
            }
        };
        Ok(progress)
    }

    /// The oldest part of the alarm stream, some at a time.
    async fn alarm_events_run(&self, now: Timestamp, budget: &Budget) -> Result<Progress, StoreError> {
        let before = now.minus(self.config().retention.span(crate::Kept::AlarmEvent));
        let mut done = 0;
        while let Some(before) = before.to_utc() {
            let pace = budget.begin();
            let retired = self.alarm_event_retire(before).await?;
            done += retired;
            if retired < crate::alarm::RETIRE_MAX.unsigned_abs() {
                break;
            }
            if budget.spent() {
                return Ok(Progress { done, more: true });
            }
            budget.pace(pace).await;
        }
        Ok(Progress { done, more: false })
    }
}

/// What a run begins with.
#[derive(Debug, Default)]
struct Begun {
    due: Vec<Step>,
    deleting_from: Option<Timestamp>,
}

/// The steps that are due; nothing where another process is at it.
async fn begin(
    connection: &mut PgConnection,
    edition: Edition,
    now: Timestamp,
) -> Result<Option<Begun>, StoreError> {
    let mine: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock(hashtext('liftwatch maintenance'))")
        .fetch_one(&mut *connection)
        .await?;
    if !mine {
        return Ok(None);
    }
    sqlx::query(
        "SELECT set_config('statement_timeout', $1, false),
                set_config('lock_timeout', $2, false)",
    )
    .bind(STATEMENT_TIMEOUT.as_millis().to_string())
    .bind(LOCK_TIMEOUT.as_millis().to_string())
    .execute(&mut *connection)
    .await?;
    let deleting_from = clock::doubted(connection, now).await?;
    let due = step::due(connection, edition, now, deleting_from.is_none()).await?;
    Ok(Some(Begun { due, deleting_from }))
}

/// What a step has done.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Progress {
    /// Chunks, rows or stretches.
    pub(crate) done: u64,
    /// Its time ended before its work did.
    pub(crate) more: bool,
}
