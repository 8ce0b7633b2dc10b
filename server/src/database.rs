//! Which database: the configured one, or the private one that Liftwatch keeps; and how far a command may go in it.
//!
//! A server prepares it: schema, and the settings it is configured with (spans of chunks, policies). Commands leave
//! both alone, as their configuration may be another: those that look change nothing at all, those that change rows
//! make a schema only where there is none.

use std::time::Duration;

use anyhow::Context;
use store::local::LocalDatabase;
use store::{Database, Edition, StoreConfig, StoreError};

use crate::config::Config;

/// The private database as configured.
fn local(config: &Config) -> LocalDatabase {
    match &config.database.home {
        Some(home) => LocalDatabase::new().at(home),
        None => LocalDatabase::new(),
    }
}

/// The configured URL, or that of the private database, started if needed.
pub(crate) async fn url(config: &Config) -> anyhow::Result<String> {
    match &config.database.url {
        Some(url) => Ok(url.clone()),
        None => up(config).await,
    }
}

/// Starts the private database and says on standard error what it does.
pub(crate) async fn up(config: &Config) -> anyhow::Result<String> {
    Ok(local(config).up(|step| eprintln!("{step}")).await?)
}

/// Stops the private database.
pub(crate) async fn down(config: &Config) -> anyhow::Result<()> {
    Ok(local(config).down().await?)
}

/// The URL of the private database, running or not.
pub(crate) async fn local_url(config: &Config) -> anyhow::Result<String> {
    Ok(local(config).url().await?)
}

/// Settings of the store.
pub(crate) fn store_config(config: &Config) -> StoreConfig {
    StoreConfig {
        retention: config.retention.of_store(),
        columnstore_after: Duration::from_hours(24 * u64::from(config.store.columnstore_after_days)),
        chunk_interval: Duration::from_hours(u64::from(config.store.chunk_hours)),
        pool_size: config.database.connections_max,
        commit_timeout: Duration::from_secs(config.database.answer_within_s),
        ..StoreConfig::default()
    }
}

/// Connects to look, whatever the schema is. Starts nothing.
pub(crate) async fn reach(config: &Config) -> anyhow::Result<Database> {
    let (url, private) = match &config.database.url {
        Some(url) => (url.clone(), false),
        None => (local_url(config).await?, true),
    };
    match Database::look(&url, store_config(config)).await {
        Err(error @ (StoreError::Unavailable(_) | StoreError::Timeout(_))) if private => {
            Err(error).context("the private database does not run: start it with 'liftwatch db up'")
        }
        connected => connected.map_err(explained),
    }
}

/// For commands that only look: at a schema of this version, in sessions that can change nothing.
pub(crate) async fn look(config: &Config) -> anyhow::Result<Database> {
    let database = reach(config).await?;
    database.schema_check().await.map_err(explained)?;
    Ok(database)
}

/// For commands that change rows: at a schema of this version, which is made where there is none.
pub(crate) async fn open(config: &Config) -> anyhow::Result<Database> {
    let database = connect(config, &url(config).await?).await?;
    if database.schema().await.map_err(explained)?.applied.is_none() {
        migrate(&database).await?;
    }
    database.schema_check().await.map_err(explained)?;
    Ok(database)
}

/// For `db migrate`: the schema alone. Settings are those of the server, and set when it starts.
pub(crate) async fn upgrade(config: &Config) -> anyhow::Result<()> {
    let database = connect(config, &url(config).await?).await?;
    migrate(&database).await?;
    database.schema_check().await.map_err(explained)?;
    Ok(())
}

async fn connect(config: &Config, url: &str) -> anyhow::Result<Database> {
    Database::connect_with(url, store_config(config)).await.map_err(explained)
}

async fn migrate(database: &Database) -> anyhow::Result<()> {
    database.migrate().await.map_err(explained).context("the schema could not be prepared")
}

/// For a server: connects, brings the schema to this version's, and the settings to what is configured.
pub(crate) async fn prepare(config: &Config, url: &str) -> anyhow::Result<(Database, Edition)> {
    let database = connect(config, url).await?;
    migrate(&database).await?;
    let edition = database.ensure().await.map_err(explained)?;
    Ok((database, edition))
}

/// With the way out, where there is one.
pub(crate) fn explained(error: StoreError) -> anyhow::Error {
    let no_database = matches!(
        error,
        StoreError::Unavailable(_) | StoreError::Timeout(_) | StoreError::Login(_) | StoreError::Url(_)
    );
    let error = anyhow::Error::new(error);
    if no_database {
        error.context(
            "no database: set LIFTWATCH_DATABASE__URL (or url under [database]) to a PostgreSQL with TimescaleDB, \
             or leave it out and Liftwatch keeps a private one",
        )
    } else {
        error
    }
}
