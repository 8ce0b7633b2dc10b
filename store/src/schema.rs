//! The schema of a database beside the one this version needs.
//!
//! Reads only, and works on any database. Commands check before they work: who only looks must not migrate under
//! a server that runs, and nobody may read or write by a schema he does not know.

use sqlx::migrate::MigrateError;
use sqlx::postgres::PgConnection;

use crate::database::MIGRATOR;
use crate::{Database, Edition, SchemaStatus, StoreError};

impl Database {
    /// Which migrations are applied. Changes nothing.
    pub async fn schema(&self) -> Result<SchemaStatus, StoreError> {
        Ok(status(&mut *self.pool().acquire().await?).await?)
    }

    /// Finds the edition of a database whose schema is this version's, and refuses any other. Changes nothing,
    /// unlike [`Database::migrate`] and [`Database::ensure`].
    pub async fn schema_check(&self) -> Result<Edition, StoreError> {
        judge(&applied(&mut *self.pool().acquire().await?).await?)?;
        let edition = self.edition().await?;
        self.edition_found(edition);
        Ok(edition)
    }
}

/// A migration that was applied.
struct Applied {
    version: i64,
    checksum: Vec<u8>,
}

/// In order; none where no Liftwatch has ever been.
async fn applied(connection: &mut PgConnection) -> Result<Vec<Applied>, sqlx::Error> {
    let known: bool = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await?;
    if !known {
        return Ok(Vec::new());
    }
    let rows: Vec<(i64, Vec<u8>)> =
        sqlx::query_as("SELECT version, checksum FROM _sqlx_migrations WHERE success ORDER BY version")
            .fetch_all(connection)
            .await?;
    Ok(rows.into_iter().map(|(version, checksum)| Applied { version, checksum }).collect())
}

/// What is applied, and what is not.
pub(crate) async fn status(connection: &mut PgConnection) -> Result<SchemaStatus, sqlx::Error> {
    let applied = applied(connection).await?;
    Ok(SchemaStatus {
        applied: applied.last().map(|last| last.version),
        known: MIGRATOR.iter().map(|migration| migration.version).max().unwrap_or_default(),
        pending: pending(&applied),
    })
}

fn pending(applied: &[Applied]) -> Vec<i64> {
    let known = MIGRATOR.iter().map(|migration| migration.version);
    known.filter(|version| applied.iter().all(|one| one.version != *version)).collect()
}

/// Whether this is the schema of this version: neither newer, nor older, nor changed.
fn judge(applied: &[Applied]) -> Result<(), StoreError> {
    for one in applied.iter().rev() {
        match MIGRATOR.iter().find(|known| known.version == one.version) {
            None => return Err(StoreError::SchemaNewer(one.version)),
            Some(known) if *known.checksum != *one.checksum => {
                return Err(StoreError::Migrate(MigrateError::VersionMismatch(one.version)));
            }
            Some(_) => {}
        }
    }
    match pending(applied) {
        pending if pending.is_empty() => Ok(()),
        _ if applied.is_empty() => Err(StoreError::SchemaMissing),
        pending => {
            let pending: Vec<String> = pending.iter().map(i64::to_string).collect();
            Err(StoreError::SchemaOlder(pending.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_schema_of_this_version_will_do() {
        let all = || -> Vec<Applied> {
            let one = |known: &sqlx::migrate::Migration| Applied {
                version: known.version,
                checksum: known.checksum.to_vec(),
            };
            MIGRATOR.iter().map(one).collect()
        };
        assert!(judge(&all()).is_ok());
        assert!(matches!(judge(&[]), Err(StoreError::SchemaMissing)));
        let mut older = all();
        let last = older.pop().unwrap().version;
        assert!(
            matches!(judge(&older), Err(StoreError::SchemaOlder(pending)) if pending == last.to_string())
        );
        let mut holed = all();
        let gone = holed.remove(1).version;
        assert!(
            matches!(judge(&holed), Err(StoreError::SchemaOlder(pending)) if pending == gone.to_string())
        );
        let mut newer = all();
        newer.push(Applied { version: 9_999, checksum: Vec::new() });
        assert!(matches!(judge(&newer), Err(StoreError::SchemaNewer(9_999))));
        // Newer goes before older: a branch that this version does not know.
        newer.remove(0);
        assert!(matches!(judge(&newer), Err(StoreError::SchemaNewer(9_999))));
        let mut changed = all();
        changed[0].checksum[0] ^= 1;
        assert!(matches!(judge(&changed), Err(StoreError::Migrate(MigrateError::VersionMismatch(_)))));
    }
}
