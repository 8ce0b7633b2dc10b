//! The steps of maintenance: which there are, how often they run, and what is noted of them.

use std::time::Duration;

use domain::Timestamp;
use sqlx::postgres::PgConnection;
use time::OffsetDateTime;

use super::Progress;
use crate::{Edition, StoreError};

/// One thing that maintenance does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// Rolls up minutes and hours (Apache edition).
    Rollup,
    /// Brings policies to what is configured and to what retention has let go (Community edition).
    Policies,
    /// Refreshes what came later than the policies look back (Community edition).
    Refresh,
    /// Drops chunks that nobody keeps.
    Chunks,
    /// Deletes rows of elevators whose division keeps them for less.
    Divisions,
    /// Deletes from tables that do not lie in chunks.
    Rows,
    /// Deletes the oldest part of the alarm stream.
    AlarmEvents,
}

const HOUR: Duration = Duration::from_hours(1);

impl Step {
    /// Every step, in the order in which they run: what is rolled up may be let go afterwards.
    pub const ALL: [Self; 7] = [
        Self::Rollup,
        Self::Policies,
        Self::Refresh,
        Self::Chunks,
        Self::Divisions,
        Self::Rows,
        Self::AlarmEvents,
    ];

    /// Its name in the database, in metrics and in `db status`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rollup => "rollup",
            Self::Policies => "policies",
            Self::Refresh => "refresh",
            Self::Chunks => "chunks",
            Self::Divisions => "divisions",
            Self::Rows => "rows",
            Self::AlarmEvents => "alarm_events",
        }
    }

    /// How often it runs.
    pub(crate) fn every(self) -> Duration {
        match self {
            Self::Rollup => Duration::ZERO,
            Self::Policies
            | Self::Refresh
            | Self::Chunks
            | Self::Divisions
            | Self::Rows
            | Self::AlarmEvents => HOUR,
        }
    }

    /// How long one run of it may take; between two transactions it is asked.
    pub(crate) fn time(self) -> Duration {
        match self {
            Self::Rollup => Duration::from_mins(2),
            Self::Refresh => Duration::from_mins(5),
            _ => Duration::from_secs(30),
        }
    }

    /// Whether what it does cannot be done again.
    fn deletes(self) -> bool {
        matches!(self, Self::Chunks | Self::Divisions | Self::Rows | Self::AlarmEvents)
    }

    pub(crate) fn runs_on(self, edition: Edition) -> bool {
        match self {
            Self::Rollup => edition == Edition::Apache,
            Self::Policies | Self::Refresh => edition == Edition::Community,
            _ => true,
        }
    }
}

/// After a failure.
const RETRY_AFTER: Duration = Duration::from_mins(5);

/// The steps to run now; those that delete only by a clock that is believed.
pub(super) async fn due(
    connection: &mut PgConnection,
    edition: Edition,
    now: Timestamp,
    believed: bool,
) -> Result<Vec<Step>, StoreError> {
    let noted: Vec<(String, OffsetDateTime)> =
        sqlx::query_as("SELECT step, due FROM maintenance_step").fetch_all(connection).await?;
    let is_due = |step: &Step| {
        let due = noted.iter().find(|(name, _)| name == step.name()).map(|(_, due)| Timestamp::from(*due));
        // Further ahead than it can be: a clock that was wrong has been set right.
        due.is_none_or(|due| due <= now || due > now.plus(step.every()))
    };
    let may_run = |step: &Step| step.runs_on(edition) && (believed || !step.deletes());
    Ok(Step::ALL.into_iter().filter(may_run).filter(is_due).collect())
}

/// Notes how it went and when it is due again.
pub(super) async fn note(
    connection: &mut PgConnection,
    step: Step,
    now: Timestamp,
    outcome: &Result<Progress, StoreError>,
) -> Result<(), StoreError> {
    let (wait, done, error) = match outcome {
        Ok(Progress { more: true, done }) => (Duration::ZERO, *done, None),
        Ok(Progress { done, .. }) => (step.every(), *done, None),
        Err(error) => (RETRY_AFTER.min(step.every()), 0, Some(chain(error))),
    };
    sqlx::query(
        "INSERT INTO maintenance_step (step, started, finished, succeeded, due, runs, failures, done, error)
         VALUES ($1, $2, clock_timestamp(), CASE WHEN $5 IS NULL THEN $2 END, $3, 1, ($5 IS NOT NULL)::int, $4, $5)
         ON CONFLICT (step) DO UPDATE
         SET started = excluded.started,
             finished = excluded.finished,
             succeeded = coalesce(excluded.succeeded, maintenance_step.succeeded),
             due = excluded.due,
             runs = maintenance_step.runs + 1,
             failures = maintenance_step.failures + excluded.failures,
             done = maintenance_step.done + excluded.done,
             error = excluded.error",
    )
    .bind(step.name())
    .bind(now.to_utc())
    .bind(now.plus(wait).to_utc())
    .bind(i64::try_from(done).unwrap_or(i64::MAX))
    .bind(error)
    .execute(connection)
    .await?;
    Ok(())
}

/// An error with its causes, in a line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}
