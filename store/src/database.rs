//! The connection to the database: hosts, pool, migrations, and the numbering of server runs.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use domain::{ArrivalNo, Timestamp};
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnection, PgListener, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions, Connection};
use time::OffsetDateTime;

use crate::hosts::{self, Hosts, Reached};
use crate::{Edition, Retention, StoreError};

pub(crate) static MIGRATOR: Migrator = sqlx::migrate!("./migrations");

/// Settings of the store.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// How long each table is kept; device times older than what is kept of readings are quarantined.
    pub retention: Retention,
    /// Chunks older than this go to the columnstore, where the edition has one. Longer than terminals store and
    /// forward, so that late readings meet chunks that take them cheaply.
    pub columnstore_after: Duration,
    /// Time span of one chunk of `telemetry`, at least an hour. Aim for 1 to 10 million rows in a chunk: the
    /// default of 6 h suits about 1,000 to 6,000 elevators that report on change, a city of 60,000 wants 1 h.
    pub chunk_interval: Duration,
    /// Connections of the shared pool. Writers have their own.
    pub pool_size: u32,
    /// How long to wait for a connection, of the pool or new.
    pub connect_timeout: Duration,
    /// How long one commit of a writer may take before its connection is given up.
    pub commit_timeout: Duration,
}

impl StoreConfig {
    /// The shortest chunk: below it, planning costs more than it saves.
    pub const CHUNK_INTERVAL_MIN: Duration = Duration::from_hours(1);
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            retention: Retention::default(),
            columnstore_after: Duration::from_hours(7 * 24),
            chunk_interval: Duration::from_hours(6),
            pool_size: 8,
            connect_timeout: Duration::from_secs(5),
            commit_timeout: Duration::from_secs(30),
        }
    }
}

/// A database: a pool for whoever asks, and the options for those who want a connection of their own.
#[derive(Debug, Clone)]
pub struct Database {
    pool: PgPool,
    hosts: Arc<Hosts>,
    config: StoreConfig,
    edition: Arc<OnceLock<Edition>>,
    /// Its sessions are read only.
    looking: bool,
}

impl Database {
    /// Fewer connections in the pool are raised to this: reading back after a start holds three at once.
    pub const CONNECTIONS_MIN: u32 = 4;

    /// Connects with default settings.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        Self::connect_with(url, StoreConfig::default()).await
    }

    /// Connects; fails unless the server answers. Does not touch the schema.
    pub async fn connect_with(url: &str, config: StoreConfig) -> Result<Self, StoreError> {
        let database = Self::lazy(url, config)?;
        database.follow().await?;
        drop(database.pool.acquire().await?);
        Ok(database)
    }

    /// Like [`Database::connect_with`], but connects when first used: for a server that may be away now.
    pub fn lazy(url: &str, config: StoreConfig) -> Result<Self, StoreError> {
        Self::make(url, config, false)
    }

    /// Like [`Database::connect_with`], for whoever only looks: the server refuses whatever would change anything.
    pub async fn look(url: &str, config: StoreConfig) -> Result<Self, StoreError> {
        let database = Self::make(url, config, true)?;
        database.follow().await?;
        drop(database.pool.acquire().await?);
        Ok(database)
    }

    fn make(url: &str, config: StoreConfig, looking: bool) -> Result<Self, StoreError> {
        let hosts = Arc::new(Hosts::parse(url)?);
        let several = hosts.are_several();
        let pool = PgPoolOptions::new()
            .max_connections(config.pool_size.max(Self::CONNECTIONS_MIN))
            .acquire_timeout(config.connect_timeout)
            .idle_timeout(Duration::from_mins(10))
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    if several && hosts::is_read_only(connection).await? {
                        return Err(sqlx::Error::Io(std::io::Error::other("a standby")));
                    }
                    // Not among the options: a host would seem to be a standby then.
                    if looking { hosts::only_look(connection).await } else { Ok(()) }
                })
            })
            .after_release(|connection, _| Box::pin(hosts::is_good(connection)))
            .connect_lazy_with(hosts.current());
        Ok(Self { pool, hosts, config, edition: Arc::default(), looking })
    }

    /// The shared pool.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// The host of the URL that was good last, by its place.
    pub(crate) fn host(&self) -> usize {
        self.hosts.place()
    }

    /// Listens on a channel, on a connection of its own. One that was lost is made again.
    pub(crate) async fn listen(&self, channel: &str) -> Result<PgListener, StoreError> {
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(self.config.connect_timeout)
            .idle_timeout(None::<Duration>)
            .max_lifetime(None::<Duration>)
            .connect_lazy_with(self.hosts.current());
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.listen(channel).await?;
        Ok(listener)
    }

    /// The settings in force.
    pub fn config(&self) -> &StoreConfig {
        &self.config
    }

    /// What [`Database::ensure`] or [`Database::schema_check`] has found; nothing before it.
    pub(crate) fn edition_known(&self) -> Option<Edition> {
        self.edition.get().copied()
    }

    pub(crate) fn edition_found(&self, edition: Edition) {
        // The edition of a running server does not change: the first finding stands.
        let _ = self.edition.set(edition);
    }

    /// A connection of one's own, outside the pool.
    pub async fn connection(&self) -> Result<PgConnection, StoreError> {
        self.connection_to_host().await.map(|(connection, _)| connection)
    }

    /// The same, with the place of its host.
    pub(crate) async fn connection_to_host(&self) -> Result<(PgConnection, usize), StoreError> {
        let Reached { mut connection, place, moved } =
            self.hosts.connect(self.config.connect_timeout).await?;
        if moved {
            let options = self.hosts.current();
            tracing::warn!(
                host = options.get_host(),
                port = options.get_port(),
                "another host is the primary now"
            );
            self.pool.set_connect_options(options);
        }
        if self.looking {
            hosts::only_look(&mut connection).await?;
        }
        Ok((connection, place))
    }

    /// A session with the settings that the server gives to others of this database, not with ours.
    pub(crate) async fn connection_of_others(&self) -> Result<PgConnection, StoreError> {
        self.in_time(async { Ok(self.hosts.others().connect().await?) }).await
    }

    /// Where the URL names several hosts: looks for the primary, if the pool does not reach it any more. Those
    /// with a connection of their own look by themselves.
    pub async fn follow(&self) -> Result<(), StoreError> {
        if self.hosts.are_several() && self.ping().await.is_err() {
            self.connection().await?.close().await?;
        }
        Ok(())
    }

    /// The answer to `work`, or [`StoreError::Timeout`] after [`StoreConfig::commit_timeout`]: a connection whose
    /// other end says nothing any more must not hold up anyone for ever.
    pub fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> impl Future<Output = Result<T, StoreError>> {
        let wait = self.config.commit_timeout;
        // On the heap: these futures hold statements, and are held by many.
        let work = Box::pin(work);
        async move { tokio::time::timeout(wait, work).await.unwrap_or(Err(StoreError::Timeout(wait))) }
    }

    /// Creates the extension and applies what migrations are missing. Concurrent calls wait for each other
    /// (a session advisory lock). A schema that is newer than this binary is refused.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        let mut connection = self.connection().await?;
        // The migrator locks for itself, but IF NOT EXISTS sees no extension that is just being made elsewhere.
        sqlx::query("SELECT pg_advisory_lock(hashtext('liftwatch migrate'))")
            .execute(&mut connection)
            .await?;
        sqlx::raw_sql("SET client_min_messages = warning; CREATE EXTENSION IF NOT EXISTS timescaledb")
            .execute(&mut connection)
            .await
            .map_err(|error| match StoreError::from(error) {
                StoreError::Refused(error) => StoreError::Extension(error),
                other => other,
            })?;
        MIGRATOR.run(&mut connection).await?;
        connection.close().await?;
        Ok(())
    }

    /// Whether the database answers now.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.in_time(async {
            sqlx::query("SELECT 1").execute(&self.pool).await?;
            Ok(())
        })
        .await
    }

    /// The database's clock: one for all processes that work on it.
    pub async fn clock(&self) -> Result<Timestamp, StoreError> {
        self.in_time(async {
            let now: OffsetDateTime =
                sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(&self.pool).await?;
            Ok(now.into())
        })
        .await
    }

    /// Numbers a start of the server; messages of this run are numbered from what this returns.
    pub async fn run_begin(&self, version: &str) -> Result<ArrivalNo, StoreError> {
        let run: i32 = sqlx::query_scalar(
            "INSERT INTO server_run (version)
             VALUES ($1)
             RETURNING run",
        )
        .bind(version)
        .fetch_one(&self.pool)
        .await?;
        Ok(ArrivalNo::start_of_run(run.unsigned_abs()))
    }

    /// Closes the pool and waits for its connections to end.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}
