//! Who may connect: terminals with their secrets, accounts of integrations, and the word of changes.
//!
//! Owns the tables `credential` and `account` and all administration of `terminal`. Every change is one
//! transaction, leaves a line in `audit`, and reaches running servers by [`AccessListener`]. Secrets come and go
//! as hashes only: nobody here sees one.

mod account;
mod listen;
mod snapshot;
mod terminal;

pub use account::{AccountRecord, NewAccount};
pub use listen::AccessListener;
pub use snapshot::{AccessSnapshot, Credential, TerminalAccess};
pub use terminal::{NewTerminal, Rotation, TerminalDetail};

use sqlx::PgConnection;

use crate::StoreError;

/// Why a change of who may connect was not made. Nothing of it was.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// These ids are terminals already.
    #[error("already registered: {}", some_of(.0))]
    TerminalExists(Vec<String>),
    /// These ids are no terminals.
    #[error("not registered: {}", some_of(.0))]
    TerminalUnknown(Vec<String>),
    /// There are no such elevators.
    #[error("no such elevator: {}", some_of(.0))]
    ElevatorUnknown(Vec<i64>),
    /// An account of this name exists.
    #[error("the account {0} exists already")]
    AccountExists(String),
    /// There is no account of this name.
    #[error("there is no account {0}")]
    AccountUnknown(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for AccessError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// The first ten; a list of thousands helps nobody.
fn some_of<T: ToString>(all: &[T]) -> String {
    let mut named = all.iter().take(10).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if all.len() > 10 {
        named = format!("{named} and {} more", all.len() - 10);
    }
    named
}

/// A line in the audit log, in the transaction of what it tells.
pub(crate) async fn note(
    connection: &mut PgConnection,
    actor: &str,
    action: &'static str,
    subject: &str,
    detail: serde_json::Value,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO audit (actor, organisation, action, subject, detail)
         VALUES ($1, '', $2, $3, $4)",
    )
    .bind(actor)
    .bind(action)
    .bind(subject)
    .bind(detail)
    .execute(connection)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_are_cut() {
        let ids: Vec<String> = (0..12).map(|n| format!("t{n}")).collect();
        let text = AccessError::TerminalExists(ids).to_string();
        assert!(text.ends_with("t9 and 2 more"), "{text}");
    }
}
