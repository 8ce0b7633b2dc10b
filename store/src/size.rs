//! How much there is.

use crate::{Database, StoreError};

/// How much there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct Counts {
    /// Elevators in the registry.
    pub elevators: i64,
    /// Terminals in the registry.
    pub terminals: i64,
    /// Things in quarantine.
    pub quarantined: i64,
    /// Readings, by the planner's estimate: it lags behind by minutes, and costs nothing.
    pub readings_estimate: i64,
}

impl Database {
    /// Cheap counts, for a page.
    pub async fn counts(&self) -> Result<Counts, StoreError> {
        Ok(sqlx::query_as(
            "SELECT (SELECT count(*) FROM elevator) AS elevators,
                    (SELECT count(*) FROM terminal) AS terminals,
                    (SELECT count(*) FROM quarantine) AS quarantined,
                    approximate_row_count('telemetry') AS readings_estimate",
        )
        .fetch_one(self.pool())
        .await?)
    }

    /// Readings stored, counted one by one: reads a whole index, so for checks and small stores.
    pub async fn reading_count(&self) -> Result<i64, StoreError> {
        Ok(sqlx::query_scalar("SELECT count(*) FROM telemetry").fetch_one(self.pool()).await?)
    }

    /// Fault events and lists of active faults stored, counted one by one.
    pub async fn fault_count(&self) -> Result<i64, StoreError> {
        Ok(sqlx::query_scalar("SELECT count(*) FROM fault").fetch_one(self.pool()).await?)
    }
}
