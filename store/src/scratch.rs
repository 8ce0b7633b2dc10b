//! A database for one run: made empty, dropped at the end. For the demo and for benchmarks.

use std::str::FromStr;

use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};

use crate::StoreError;

/// An empty database of this process. It stays if the process is killed; the next [`ScratchDatabase::create`]
/// with the same prefix drops what nobody is connected to.
#[derive(Debug)]
pub struct ScratchDatabase {
    server: String,
    name: String,
    url: String,
}

impl ScratchDatabase {
    /// Makes `{prefix}_{process id}` on the server of this URL. `prefix` is lower-case letters and `_`.
    pub async fn create(server: &str, prefix: &str) -> Result<Self, StoreError> {
        let mut admin = admin(server).await?;
        let stale: Vec<String> = sqlx::query_scalar(
            "SELECT datname::text
             FROM pg_database
             WHERE starts_with(datname, $1)
               AND NOT EXISTS (SELECT FROM pg_stat_activity AS session
                               WHERE session.datname = pg_database.datname
                                 AND session.backend_type = 'client backend')",
        )
        .bind(format!("{prefix}_"))
        .fetch_all(&mut admin)
        .await?;
        for name in stale {
            drop_database(&mut admin, &name).await?;
        }
        let name = format!("{prefix}_{}", std::process::id());
        sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE \"{name}\""))).execute(&mut admin).await?;
        admin.close().await?;
        let url = PgConnectOptions::from_str(server).map_err(StoreError::Url)?.database(&name).to_url_lossy();
        Ok(Self { server: server.to_owned(), name, url: url.to_string() })
    }

    /// Its URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Drops it, with whoever is still connected.
    pub async fn remove(self) -> Result<(), StoreError> {
        let mut admin = admin(&self.server).await?;
        drop_database(&mut admin, &self.name).await?;
        Ok(admin.close().await?)
    }
}

/// Making and dropping a database takes its time; nobody has to be warned of that.
async fn admin(server: &str) -> Result<PgConnection, StoreError> {
    let options = PgConnectOptions::from_str(server).map_err(StoreError::Url)?.disable_statement_logging();
    Ok(options.connect().await?)
}

async fn drop_database(admin: &mut PgConnection, name: &str) -> Result<(), StoreError> {
    let sql = format!("DROP DATABASE IF EXISTS \"{name}\" WITH (FORCE)");
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(admin).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Database;

    #[tokio::test]
    async fn a_scratch_database_is_there_and_then_gone() {
        let test = crate::testing::TestDatabase::new().await;
        let scratch = ScratchDatabase::create(test.url(), "liftwatch_scratchtest").await.unwrap();
        let url = scratch.url().to_owned();
        let database = Database::connect(&url).await.unwrap();
        database.migrate().await.unwrap();
        drop(database);
        scratch.remove().await.unwrap();
        assert!(Database::connect(&url).await.is_err());
    }
}
