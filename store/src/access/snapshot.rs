//! Everything that decides on a connect, read at once.

use std::collections::HashMap;
use std::sync::Arc;

use domain::{Area, TerminalId, Timestamp};
use sqlx::Row;
use sqlx::postgres::PgRow;

use super::account::{self, AccountRecord};
use crate::{Database, StoreError};

/// The hashed secret of a terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// argon2, in PHC format.
    pub hash: Arc<str>,
    /// The secret before a rotation, and until when it is good.
    pub previous: Option<(Arc<str>, Timestamp)>,
}

/// A terminal as far as connecting goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TerminalAccess {
    /// The division it is registered in.
    pub area: Area,
    /// Whether it may connect.
    pub enabled: bool,
    /// Its secret; without one it needs a certificate.
    pub credential: Option<Credential>,
}

/// Who may connect, as of one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccessSnapshot {
    /// Terminals, those that are switched off included.
    pub terminals: HashMap<TerminalId, TerminalAccess>,
    /// Accounts by name, those that are switched off included.
    pub accounts: HashMap<String, AccountRecord>,
}

impl Database {
    /// Reads who may connect: about 0.2 s for 50,000 terminals.
    pub async fn access_snapshot(&self) -> Result<AccessSnapshot, StoreError> {
        let rows = sqlx::query(
            "SELECT t.terminal_id, t.area, t.enabled, c.hash, c.previous_hash, c.previous_until
             FROM terminal AS t
             LEFT JOIN credential AS c USING (terminal_id)",
        )
        .fetch_all(self.pool())
        .await?;
        let terminals = rows.iter().map(terminal).collect::<Result<_, _>>()?;
        let accounts = account::all(self.pool()).await?;
        let accounts = accounts.into_iter().map(|account| (account.name.clone(), account)).collect();
        Ok(AccessSnapshot { terminals, accounts })
    }
}

fn terminal(row: &PgRow) -> Result<(TerminalId, TerminalAccess), StoreError> {
    let id: &str = row.try_get("terminal_id")?;
    let id = TerminalId::new(id).map_err(|error| StoreError::Corrupt(error.to_string()))?;
    let access = TerminalAccess {
        area: area(row.try_get("area")?)?,
        enabled: row.try_get("enabled")?,
        credential: credential(row)?,
    };
    Ok((id, access))
}

pub(super) fn credential(row: &PgRow) -> Result<Option<Credential>, StoreError> {
    let Some(hash) = row.try_get::<Option<&str>, _>("hash")? else { return Ok(None) };
    let previous: Option<&str> = row.try_get("previous_hash")?;
    let until: Option<time::OffsetDateTime> = row.try_get("previous_until")?;
    let previous = previous.zip(until).map(|(hash, until)| (hash.into(), until.into()));
    Ok(Some(Credential { hash: hash.into(), previous }))
}

pub(super) fn area(number: i32) -> Result<Area, StoreError> {
    let area = u32::try_from(number).ok().and_then(|number| Area::from_number(number).ok());
    area.ok_or_else(|| StoreError::Corrupt(format!("{number} is no division")))
}
