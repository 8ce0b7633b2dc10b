//! What is made at every start, by what the edition of TimescaleDB allows.

use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{Connection, Row};

use crate::{Database, StoreConfig, StoreError, rollup};

/// The edition of TimescaleDB. Told by its licence setting, never by trying functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edition {
    /// Apache 2: hypertables, no continuous aggregates, compression or jobs. Debian packages this one.
    Apache,
    /// Timescale licence: everything. The official image has this one.
    Community,
}

impl Database {
    /// Checks the extension and brings settings and derived tables to what is configured. Idempotent;
    /// concurrent calls wait for each other.
    pub async fn ensure(&self) -> Result<Edition, StoreError> {
        let edition = self.edition().await?;
        let mut connection = self.connection().await?;
        // Held by the session, as a continuous aggregate cannot be made inside a transaction.
        sqlx::query("SELECT pg_advisory_lock(hashtext('liftwatch ensure'))").execute(&mut connection).await?;
        chunk_interval_ensure(&mut connection, self.config().chunk_interval).await?;
        match edition {
            Edition::Apache => rollup::own::ensure(&mut connection).await?,
            Edition::Community => {
                rollup::aggregate::ensure(&mut connection).await?;
                let now = time::OffsetDateTime::now_utc().into();
                rollup::aggregate::policies_ensure(&mut connection, self.config(), now).await?;
            }
        }
        connection.close().await?;
        self.edition_found(edition);
        Ok(edition)
    }

    /// The edition of the server; refuses one that is too old or cannot read what it holds.
    pub async fn edition(&self) -> Result<Edition, StoreError> {
        let row = sqlx::query(
            "SELECT coalesce(current_setting('timescaledb.license', true), '') AS license,
                    (SELECT extversion FROM pg_extension WHERE extname = 'timescaledb') AS version",
        )
        .fetch_one(self.pool())
        .await?;
        let version: Option<String> = row.try_get("version")?;
        let version = version.ok_or_else(|| StoreError::Extension(sqlx::Error::RowNotFound))?;
        if !is_supported(&version) {
            return Err(StoreError::ExtensionOld(version));
        }
        let license: String = row.try_get("license")?;
        if license == "timescale" {
            return Ok(Edition::Community);
        }
        let compressed: i64 = sqlx::query_scalar(
            "SELECT count(*)
             FROM timescaledb_information.chunks
             WHERE is_compressed",
        )
        .fetch_one(self.pool())
        .await?;
        match compressed {
            0 => Ok(Edition::Apache),
            chunks => Err(StoreError::CompressedWithoutLicence(chunks)),
        }
    }
}

/// New chunks of `telemetry` take the configured span; those that exist keep theirs.
async fn chunk_interval_ensure(connection: &mut PgConnection, wanted: Duration) -> Result<(), sqlx::Error> {
    let wanted = wanted.max(StoreConfig::CHUNK_INTERVAL_MIN);
    sqlx::query(
        "SELECT set_chunk_time_interval('telemetry', make_interval(secs => $1))
         FROM timescaledb_information.dimensions
         WHERE hypertable_name = 'telemetry'
           AND hypertable_schema = current_schema()
           AND time_interval <> make_interval(secs => $1)",
    )
    .bind(wanted.as_secs_f64())
    .execute(connection)
    .await
    .map(drop)
}

fn is_supported(version: &str) -> bool {
    let mut parts =
        version.split(|sign: char| !sign.is_ascii_digit()).map(|part| part.parse::<u32>().unwrap_or(0));
    let major = parts.next().unwrap_or(0);
    let minor = parts.next().unwrap_or(0);
    (major, minor) >= (2, 18)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        for good in ["2.18.0", "2.19.3", "2.20-dev", "3.0.0"] {
            assert!(is_supported(good), "{good}");
        }
        for bad in ["2.17.2", "2.9.0", "1.99", "", "x"] {
            assert!(!is_supported(bad), "{bad}");
        }
    }
}
