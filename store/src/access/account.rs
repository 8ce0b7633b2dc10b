//! Accounts of integrations.

use std::sync::Arc;

use domain::{Area, Timestamp};
use serde_json::json;
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};

use super::{AccessError, note, snapshot};
use crate::{Database, StoreError};

/// An account, its secret hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountRecord {
    /// User name, and what its client ids begin with.
    pub name: String,
    /// argon2, in PHC format.
    pub hash: Arc<str>,
    /// Regions it sees; none: all.
    pub areas: Vec<Area>,
    /// Whether it may connect.
    pub enabled: bool,
    /// When it was made.
    pub created: Timestamp,
    /// When it was changed last.
    pub changed: Timestamp,
}

/// An account to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAccount {
    /// 1 to 32 characters of `a-z 0-9 _ .`, the first a letter.
    pub name: String,
    /// argon2, in PHC format.
    pub hash: String,
    /// Regions it shall see; none: all.
    pub areas: Vec<Area>,
}

impl Database {
    /// Makes an account.
    pub async fn account_add(&self, account: &NewAccount, actor: &str) -> Result<(), AccessError> {
        let mut transaction = self.pool().begin().await?;
        let areas: Vec<i32> = account.areas.iter().map(|area| area.number().cast_signed()).collect();
        let done = sqlx::query(
            "INSERT INTO account (name, hash, areas)
             VALUES ($1, $2, $3)
             ON CONFLICT DO NOTHING",
        )
        .bind(&account.name)
        .bind(&account.hash)
        .bind(areas)
        .execute(&mut *transaction)
        .await?;
        if done.rows_affected() == 0 {
            return Err(AccessError::AccountExists(account.name.clone()));
        }
        let detail = json!({ "areas": account.areas });
        note(&mut transaction, actor, "account.add", &account.name, detail).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// All accounts, by name.
    pub async fn account_list(&self) -> Result<Vec<AccountRecord>, StoreError> {
        all(self.pool()).await
    }

    /// Switches an account on or off.
    pub async fn account_enable(&self, name: &str, enabled: bool, actor: &str) -> Result<(), AccessError> {
        let action = if enabled { "account.enable" } else { "account.disable" };
        self.account_change(name, actor, action, |name| {
            sqlx::query("UPDATE account SET enabled = $2, changed = now() WHERE name = $1")
                .bind(name)
                .bind(enabled)
        })
        .await
    }

    /// Gives an account another secret; the old one is worth nothing from now on.
    pub async fn account_rotate(&self, name: &str, hash: &str, actor: &str) -> Result<(), AccessError> {
        self.account_change(name, actor, "account.rotate", |name| {
            sqlx::query("UPDATE account SET hash = $2, changed = now() WHERE name = $1")
                .bind(name)
                .bind(hash.to_owned())
        })
        .await
    }

    /// Deletes an account.
    pub async fn account_remove(&self, name: &str, actor: &str) -> Result<(), AccessError> {
        self.account_change(name, actor, "account.remove", |name| {
            sqlx::query("DELETE FROM account WHERE name = $1").bind(name)
        })
        .await
    }

    async fn account_change(
        &self,
        name: &str,
        actor: &str,
        action: &'static str,
        statement: impl FnOnce(String) -> sqlx::query::Query<'static, sqlx::Postgres, sqlx::postgres::PgArguments>,
    ) -> Result<(), AccessError> {
        let mut transaction = self.pool().begin().await?;
        let done = statement(name.to_owned()).execute(&mut *transaction).await?;
        if done.rows_affected() == 0 {
            return Err(AccessError::AccountUnknown(name.to_owned()));
        }
        note(&mut transaction, actor, action, name, json!({})).await?;
        transaction.commit().await?;
        Ok(())
    }
}

pub(super) async fn all(pool: &PgPool) -> Result<Vec<AccountRecord>, StoreError> {
    let rows = sqlx::query("SELECT name, hash, areas, enabled, created, changed FROM account ORDER BY name")
        .fetch_all(pool)
        .await?;
    rows.iter().map(record).collect()
}

fn record(row: &PgRow) -> Result<AccountRecord, StoreError> {
    let areas: Vec<i32> = row.try_get("areas")?;
    let at = |column: &str| row.try_get::<time::OffsetDateTime, _>(column);
    Ok(AccountRecord {
        name: row.try_get("name")?,
        hash: row.try_get::<&str, _>("hash")?.into(),
        areas: areas.into_iter().map(snapshot::area).collect::<Result<_, _>>()?,
        enabled: row.try_get("enabled")?,
        created: at("created")?.into(),
        changed: at("changed")?.into(),
    })
}
