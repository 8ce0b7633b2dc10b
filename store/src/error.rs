//! Failures of the store, and the one place that reads SQLSTATE.

use sqlx::migrate::MigrateError;

/// Why an operation of the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The URL cannot be read.
    #[error("not a database URL; expected postgres://user@host/database")]
    Url(#[source] sqlx::Error),
    /// No connection, or it was lost. Whether the statement under way took effect is not known.
    #[error("the database cannot be reached")]
    Unavailable(#[source] sqlx::Error),
    /// No answer in time. Whether the statement under way took effect is not known.
    #[error("the database did not answer within {0:?}")]
    Timeout(std::time::Duration),
    /// The server is there, but cannot serve now: starting, shutting down, full, deadlock.
    #[error("the database cannot serve now")]
    Busy(#[source] sqlx::Error),
    /// Those that answer take no writes: no host of the URL is a primary now.
    #[error("no host of the database URL takes writes: each that answers is a standby")]
    Standby,
    /// The server refuses, and will again.
    #[error("the database refused")]
    Refused(#[source] sqlx::Error),
    /// The server refuses this login or knows no such database.
    #[error("the database refused the login: check user, password and database name of the URL")]
    Login(#[source] sqlx::Error),
    /// The server refuses the statement whatever rows it brings: a right is missing, a table, a column.
    #[error("the database is not as Liftwatch left it: a right, a table or a column is missing")]
    Unfit(#[source] sqlx::Error),
    /// The schema was made by a newer Liftwatch.
    #[error(
        "the schema has migration {0}, which this version does not know: install the newer liftwatch again"
    )]
    SchemaNewer(i64),
    /// The schema was made by an older Liftwatch.
    #[error(
        "the schema is of an earlier version (migrations not applied: {0}): use the liftwatch of the version that \
         serves, or bring the schema to this version: start its server, or run 'liftwatch db migrate'"
    )]
    SchemaOlder(String),
    /// No Liftwatch has ever been here.
    #[error(
        "there is no schema of Liftwatch in this database yet: start the server, or run 'liftwatch db migrate'"
    )]
    SchemaMissing,
    /// A migration failed or was changed after it was applied.
    #[error("the schema could not be migrated")]
    Migrate(#[source] MigrateError),
    /// There is no TimescaleDB to be had on this server.
    #[error(
        "this server has no usable TimescaleDB: install it (Debian: postgresql-17-timescaledb), add it to \
         shared_preload_libraries, and let a superuser run CREATE EXTENSION timescaledb in the database"
    )]
    Extension(#[source] sqlx::Error),
    /// TimescaleDB is too old to be trusted with compressed chunks.
    #[error("TimescaleDB {0} is too old: 2.18.1 or later is needed")]
    ExtensionOld(String),
    /// Compressed chunks cannot be read safely by the Apache edition.
    #[error(
        "{0} compressed chunks, but this is the Apache edition of TimescaleDB: use the Community edition"
    )]
    CompressedWithoutLicence(i64),
    /// The Apache edition can neither read nor keep rollups of the Community edition.
    #[error(
        "the rollups are continuous aggregates, but this is the Apache edition of TimescaleDB: use the Community edition \
         (timescaledb.license = 'timescale'), with which the database was made"
    )]
    AggregatesWithoutLicence,
    /// What is stored does not make sense to this version.
    #[error("cannot read stored data: {0}")]
    Corrupt(String),
    /// The private database could not be managed.
    #[error("the private database failed ({what}): {detail}; or give a database URL (DATABASE__URL)")]
    Local {
        /// What was tried.
        what: &'static str,
        /// What the script or system said.
        detail: String,
    },
}

impl StoreError {
    /// What an operator should read of it on a page, in one line: the failure and, where the server said so, why.
    pub fn brief(&self) -> String {
        let said = match self {
            Self::Busy(error) | Self::Refused(error) | Self::Login(error) | Self::Unfit(error) => {
                error.as_database_error()
            }
            _ => None,
        };
        match said {
            Some(said) if said.code().as_deref() == Some("53100") => {
                "the disk of the database is full".to_owned()
            }
            Some(said) => format!("{self}: {}", said.message()),
            None => self.to_string(),
        }
    }

    /// Whether the same call may succeed later without anyone doing anything.
    pub fn retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Timeout(_) | Self::Busy(_) | Self::Standby)
    }

    /// Whether the same call may succeed later, by itself or once a person has mended the database; no row is to
    /// blame.
    pub fn mendable(&self) -> bool {
        self.retryable() || matches!(self, Self::Login(_) | Self::Unfit(_))
    }
}

/// What a failed statement means to whoever ran it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// The connection is gone; outcome unknown.
    Lost,
    /// Later it may work.
    Transient,
    /// 23505: a key is there already.
    Repeated,
    /// Other 22xxx and 23xxx: a row that cannot be stored.
    Poisoned,
    /// 28xxx, 3D000.
    Login,
    /// 42xxx: rights, tables, columns, functions.
    Unfit,
    /// Everything else.
    Fatal,
}

pub(crate) fn classify(error: &sqlx::Error) -> Class {
    let sqlx::Error::Database(refusal) = error else {
        return match error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Class::Lost,
            _ => Class::Fatal,
        };
    };
    classify_sqlstate(refusal.code().as_deref().unwrap_or_default())
}

/// Whether the server ended the statement: its time was up, or somebody cancelled it.
pub(crate) fn is_cancelled(error: &sqlx::Error) -> bool {
    has_sqlstate(error, "57014")
}

/// Whether somebody else holds what the statement needs.
pub(crate) fn is_locked(error: &sqlx::Error) -> bool {
    has_sqlstate(error, "55P03")
}

fn has_sqlstate(error: &sqlx::Error, state: &str) -> bool {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref() == Some(state)
}

fn classify_sqlstate(code: &str) -> Class {
    match code {
        "23505" => Class::Repeated,
        // A limit of the configuration: trying again only repeats it.
        "53400" => Class::Fatal,
        // Shut down, crashed, not yet up, idle too long: the connection ends with the message.
        "57P01" | "57P02" | "57P03" | "57P05" | "25P03" => Class::Lost,
        // Cancelled; lock not available; read-only while a standby takes over; aborted transaction.
        "57014" | "55P03" | "25006" | "25P02" => Class::Transient,
        "3D000" => Class::Login,
        _ => match code.get(..2) {
            Some("22" | "23") => Class::Poisoned,
            Some("08") => Class::Lost,
            // Serialization and deadlock; out of disk, memory, connections; I/O errors of the server.
            Some("40" | "53" | "58") => Class::Transient,
            Some("28") => Class::Login,
            Some("42") => Class::Unfit,
            _ => Class::Fatal,
        },
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match classify(&error) {
            Class::Lost => Self::Unavailable(error),
            Class::Transient => Self::Busy(error),
            Class::Login => Self::Login(error),
            Class::Unfit => Self::Unfit(error),
            Class::Repeated | Class::Poisoned | Class::Fatal => Self::Refused(error),
        }
    }
}

impl From<MigrateError> for StoreError {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::VersionMissing(version) => Self::SchemaNewer(version),
            MigrateError::Execute(error) => match classify(&error) {
                Class::Lost | Class::Transient | Class::Login => error.into(),
                _ => Self::Migrate(MigrateError::Execute(error)),
            },
            other => Self::Migrate(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_judged_by_what_helps() {
        for (code, class) in [
            ("23505", Class::Repeated),
            ("23514", Class::Poisoned),
            ("22003", Class::Poisoned),
            ("53400", Class::Fatal),
            ("53300", Class::Transient),
            ("53100", Class::Transient),
            ("40P01", Class::Transient),
            ("57P01", Class::Lost),
            ("08006", Class::Lost),
            ("42P01", Class::Unfit),
            ("42501", Class::Unfit),
            ("28P01", Class::Login),
            ("3D000", Class::Login),
            ("", Class::Fatal),
        ] {
            assert_eq!(classify_sqlstate(code), class, "{code}");
        }
    }

    #[test]
    fn only_what_time_may_heal_is_retried() {
        assert!(StoreError::from(sqlx::Error::PoolTimedOut).retryable());
        assert!(!StoreError::from(sqlx::Error::RowNotFound).retryable());
        assert!(!StoreError::SchemaNewer(9).retryable());
        assert!(StoreError::Unfit(sqlx::Error::RowNotFound).mendable());
        assert!(!StoreError::Refused(sqlx::Error::RowNotFound).mendable());
    }
}
