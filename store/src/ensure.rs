//! What is made at every start, by what the edition of TimescaleDB allows.

use std::time::Duration;

use sqlx::Connection;
use sqlx::postgres::PgConnection;

use crate::{Database, StoreConfig, StoreError, rollup};

/// The edition of TimescaleDB that a database uses. Told by the licence setting of its server and by what its rollups
/// are, never by trying functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edition {
    /// Apache 2: hypertables, no continuous aggregates, compression or jobs. Debian packages this one. A database that
    /// was made with it stays with it, also where the server has become one of the other.
    Apache,
    /// Timescale licence: everything. The official image has this one.
    Community,
}

/// What the edition is told by.
#[derive(Debug, sqlx::FromRow)]
struct Found {
    community: bool,
    version: Option<String>,
    /// Whether the rollups are continuous aggregates, which are views; nothing before there are any.
    aggregates: Option<bool>,
}

impl Found {
    fn edition(&self) -> Result<Edition, StoreError> {
        match (self.community, self.aggregates) {
            (true, Some(false)) => Ok(Edition::Apache),
            (true, _) => Ok(Edition::Community),
            (false, Some(true)) => Err(StoreError::AggregatesWithoutLicence),
            (false, _) => Ok(Edition::Apache),
        }
    }
}

impl Database {
    /// Checks the extension and brings settings and derived tables to what is configured. Idempotent;
    /// concurrent calls wait for each other.
    pub async fn ensure(&self) -> Result<Edition, StoreError> {
        let found = self.found().await?;
        let edition = found.edition()?;
        if found.community && edition == Edition::Apache {
            tracing::info!(
                "the server is of the Community edition of TimescaleDB, this database was made with the Apache edition and \
                 stays so: rollups are tables, nothing goes to the columnstore"
            );
        }
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

    /// The edition that this database uses; refuses a server that is too old or cannot read what it holds.
    pub async fn edition(&self) -> Result<Edition, StoreError> {
        self.found().await?.edition()
    }

    async fn found(&self) -> Result<Found, StoreError> {
        let found: Found = sqlx::query_as(
            "SELECT coalesce(current_setting('timescaledb.license', true) = 'timescale', false) AS community,
                    (SELECT extversion FROM pg_extension WHERE extname = 'timescaledb') AS version,
                    (SELECT relkind = 'v' FROM pg_class WHERE oid = to_regclass('telemetry_1m')) AS aggregates",
        )
        .fetch_one(self.pool())
        .await?;
        let version = found.version.as_deref().ok_or(StoreError::Extension(sqlx::Error::RowNotFound))?;
        if !is_supported(version) {
            return Err(StoreError::ExtensionOld(version.to_owned()));
        }
        if found.community {
            return Ok(found);
        }
        let compressed: i64 = sqlx::query_scalar(
            "SELECT count(*)
             FROM timescaledb_information.chunks
             WHERE is_compressed",
        )
        .fetch_one(self.pool())
        .await?;
        match compressed {
            0 => Ok(found),
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
    let patch = parts.next().unwrap_or(0);
    // 2.18.0 wants a columnstore policy to stay further back than the refresh policy looks; ours meet.
    (major, minor, patch) >= (2, 18, 1)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use domain::{
        Arrival, ArrivalNo, BootId, ElevatorId, Message, Reading, Seq, TelemetryBatch, TerminalId, Timestamp,
    };

    use super::*;
    use crate::testing::TestDatabase;
    use crate::{Incoming, Item, StoreMetrics, Writer};

    #[test]
    fn versions_are_compared_as_numbers() {
        for good in ["2.18.1", "2.19.0", "2.19.3", "2.20-dev", "3.0.0"] {
            assert!(is_supported(good), "{good}");
        }
        for bad in ["2.18.0", "2.18", "2.17.2", "2.9.0", "1.99", "", "x"] {
            assert!(!is_supported(bad), "{bad}");
        }
    }

    #[tokio::test]
    async fn aggregates_without_a_licence_are_refused_with_what_to_do() {
        let test = TestDatabase::new().await;
        let database = test.open().await;
        // As the Apache edition finds continuous aggregates.
        sqlx::raw_sql("DROP TABLE telemetry_1m; CREATE VIEW telemetry_1m AS SELECT 1 AS readings")
            .execute(database.pool())
            .await
            .unwrap();
        for refused in [database.ensure().await.err(), database.status().await.err()] {
            let refused = refused.expect("refused");
            assert!(matches!(refused, StoreError::AggregatesWithoutLicence), "{refused:?}");
            assert!(refused.to_string().contains("timescaledb.license"), "{refused}");
        }
    }

    #[tokio::test]
    async fn a_database_of_the_apache_edition_goes_on_where_the_server_has_become_one_of_the_other() {
        let test = TestDatabase::community(
            "a_database_of_the_apache_edition_goes_on_where_the_server_has_become_one_of_the_other",
        )
        .await;
        let Some(test) = test else { return };
        let database = Database::connect(test.url()).await.unwrap();
        rollup::own::ensure(&mut database.connection().await.unwrap()).await.unwrap();
        for _ in 0..2 {
            assert_eq!(database.ensure().await.unwrap(), Edition::Apache);
        }
        let begin: Timestamp = "2090-03-01T00:00:00Z".parse().unwrap();
        let readings = vec![Reading::new(Seq(1), begin)];
        let batch =
            TelemetryBatch { boot: BootId(1), sent: None, prev_boot_last_seq: None, dropped: None, readings };
        let message = Incoming {
            elevator_id: ElevatorId(1),
            terminal_id: TerminalId::new("t").unwrap(),
            arrival: Arrival { no: ArrivalNo(1), at: begin },
            message: Arc::new(Message::Telemetry(batch)),
        };
        let mut writer = Writer::new(&database, Arc::new(StoreMetrics::default()));
        writer.commit(&[Item::Message(message)]).await.unwrap();
        let later = begin.plus(Duration::from_hours(2));
        let report = database.maintenance_run(later).await.unwrap();
        assert!(report.failed.is_empty() && report.hours > 0, "{report:?}");
        let status = database.status().await.unwrap();
        assert_eq!(status.edition, "apache");
        assert!(status.rollups.hours_to > Some(begin), "{:?}", status.rollups);
        let told = status.warnings.iter().filter(|warning| warning.code == "edition_unused");
        assert_eq!(told.count(), 1, "{:?}", status.warnings);
    }
}
