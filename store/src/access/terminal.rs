//! Administration of terminals and their secrets.

use domain::{Area, DeviceKind, ElevatorId, TerminalId, Timestamp};
use serde_json::json;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use super::{AccessError, Credential, note, snapshot};
use crate::{Database, StoreError};

/// A terminal to be registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTerminal {
    /// Its id.
    pub id: TerminalId,
    /// Division of the elevator.
    pub area: Area,
    /// The elevator it serves; without one, a new one is made.
    pub elevator: Option<ElevatorId>,
    /// Its secret: argon2, in PHC format. Without one it needs a certificate.
    pub hash: Option<String>,
    /// Name of its vendor profile; without one, that of the standard.
    pub profile: Option<String>,
    /// What kind of device its elevator is, where that is a new one; without it, a lift.
    pub kind: Option<DeviceKind>,
}

/// A new secret for a terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotation {
    /// The terminal.
    pub id: TerminalId,
    /// The new secret: argon2, in PHC format.
    pub hash: String,
    /// Until when the old secret is good, unless the new one is used before; `None`: it is worth nothing from
    /// now on.
    pub previous_until: Option<Timestamp>,
}

/// All that is known of a terminal's access.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TerminalDetail {
    /// Its id.
    pub id: TerminalId,
    /// The elevator it serves.
    pub elevator_id: ElevatorId,
    /// The division it is registered in.
    pub area: Area,
    /// Whether it may connect.
    pub enabled: bool,
    /// Name of its vendor profile.
    pub profile: String,
    /// When it was registered.
    pub created: Timestamp,
    /// Its secret.
    pub credential: Option<Credential>,
    /// When its secret was changed last.
    pub credential_changed: Option<Timestamp>,
}

const DETAIL: &str = "SELECT t.terminal_id, t.elevator_id, t.area, t.enabled, t.profile, t.created, c.hash,
        c.previous_hash, c.previous_until, c.changed
     FROM terminal AS t
     LEFT JOIN credential AS c USING (terminal_id)
     WHERE ($1::text IS NULL OR t.terminal_id = $1)
        AND ($2::int4 IS NULL OR t.area BETWEEN $2 AND $3)
     ORDER BY t.terminal_id";

impl Database {
    /// Registers terminals, all or none: thousands at once are one transaction of a few statements.
    pub async fn terminal_add(&self, new: &[NewTerminal], actor: &str) -> Result<(), AccessError> {
        let mut transaction = self.pool().begin().await?;
        // Against a concurrent registration of the same ids, by us or by a server; the same lock as in
        // `terminal_register`.
        sqlx::query("SELECT pg_advisory_xact_lock(hashtext('liftwatch terminal_register'))")
            .execute(&mut *transaction)
            .await?;
        refuse_known(&mut transaction, new).await?;
        let (placed, unplaced): (Vec<&NewTerminal>, _) = new.iter().partition(|one| one.elevator.is_some());
        refuse_missing_elevators(&mut transaction, &placed).await?;
        sqlx::query("SELECT count(*) FROM terminal_register($1, $2)")
            .bind(ids(&unplaced))
            .bind(areas(&unplaced))
            .execute(&mut *transaction)
            .await?;
        let elevators: Vec<i64> = placed.iter().filter_map(|one| one.elevator).map(|id| id.0).collect();
        sqlx::query(
            "INSERT INTO terminal (terminal_id, area, elevator_id)
             SELECT * FROM unnest($1::text[], $2::int4[], $3::int8[])",
        )
        .bind(ids(&placed))
        .bind(areas(&placed))
        .bind(elevators)
        .execute(&mut *transaction)
        .await?;
        let spoken: Vec<&NewTerminal> = new.iter().filter(|one| one.profile.is_some()).collect();
        let profiles: Vec<&str> = spoken.iter().filter_map(|one| one.profile.as_deref()).collect();
        sqlx::query(
            "UPDATE terminal AS t
             SET profile = asked.profile
             FROM unnest($1::text[], $2::text[]) AS asked (id, profile)
             WHERE t.terminal_id = asked.id",
        )
        .bind(ids(&spoken))
        .bind(profiles)
        .execute(&mut *transaction)
        .await?;
        let special: Vec<&NewTerminal> = unplaced.into_iter().filter(|one| one.kind.is_some()).collect();
        let kinds: Vec<&str> = special.iter().filter_map(|one| one.kind).map(DeviceKind::slug).collect();
        sqlx::query(
            "UPDATE elevator AS e
             SET device_kind = asked.kind
             FROM unnest($1::text[], $2::text[]) AS asked (id, kind)
             JOIN terminal AS t ON t.terminal_id = asked.id
             WHERE e.elevator_id = t.elevator_id",
        )
        .bind(ids(&special))
        .bind(kinds)
        .execute(&mut *transaction)
        .await?;
        let with_secret: Vec<&NewTerminal> = new.iter().filter(|one| one.hash.is_some()).collect();
        let hashes: Vec<&str> = with_secret.iter().filter_map(|one| one.hash.as_deref()).collect();
        sqlx::query(
            "INSERT INTO credential (terminal_id, hash)
             SELECT * FROM unnest($1::text[], $2::text[])",
        )
        .bind(ids(&with_secret))
        .bind(hashes)
        .execute(&mut *transaction)
        .await?;
        let subject = match new {
            [one] => one.id.as_str().to_owned(),
            many => format!("{} terminals", many.len()),
        };
        let all: Vec<&NewTerminal> = new.iter().collect();
        note(&mut transaction, actor, "terminal.add", &subject, json!({ "ids": ids(&all) })).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Terminals by id; those of `region` only, where one is given.
    pub async fn terminal_list(&self, region: Option<Area>) -> Result<Vec<TerminalDetail>, StoreError> {
        let covered = region.map(Area::covered);
        let bound = |number: Option<u32>| number.map(u32::cast_signed);
        let rows = sqlx::query(DETAIL)
            .bind(None::<&str>)
            .bind(bound(covered.as_ref().map(|range| *range.start())))
            .bind(bound(covered.as_ref().map(|range| *range.end())))
            .fetch_all(self.pool())
            .await?;
        rows.iter().map(detail).collect()
    }

    /// One terminal.
    pub async fn terminal_show(&self, id: &str) -> Result<TerminalDetail, AccessError> {
        let row = sqlx::query(DETAIL)
            .bind(id)
            .bind(None::<i32>)
            .bind(None::<i32>)
            .fetch_optional(self.pool())
            .await?;
        let row = row.ok_or_else(|| AccessError::TerminalUnknown(vec![id.to_owned()]))?;
        Ok(detail(&row)?)
    }

    /// Switches terminals on or off, all or none.
    pub async fn terminal_enable(
        &self,
        terminals: &[TerminalId],
        enabled: bool,
        actor: &str,
    ) -> Result<(), AccessError> {
        let mut transaction = self.pool().begin().await?;
        let wanted: Vec<&str> = terminals.iter().map(TerminalId::as_str).collect();
        let found: Vec<String> = sqlx::query_scalar(
            "UPDATE terminal
             SET enabled = $2
             WHERE terminal_id = ANY ($1)
             RETURNING terminal_id",
        )
        .bind(&wanted)
        .bind(enabled)
        .fetch_all(&mut *transaction)
        .await?;
        refuse_unknown(&wanted, &found)?;
        let action = if enabled { "terminal.enable" } else { "terminal.disable" };
        note(&mut transaction, actor, action, &wanted.join(" "), json!({})).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Says what terminals speak, and what kind of device their elevators are, all or none; `None` stays as it is.
    pub async fn terminal_describe(
        &self,
        terminals: &[TerminalId],
        profile: Option<&str>,
        kind: Option<DeviceKind>,
        actor: &str,
    ) -> Result<(), AccessError> {
        let mut transaction = self.pool().begin().await?;
        let wanted: Vec<&str> = terminals.iter().map(TerminalId::as_str).collect();
        if let Some(kind) = kind {
            sqlx::query(
                "UPDATE elevator
                 SET device_kind = $2
                 WHERE elevator_id IN (SELECT t.elevator_id FROM terminal AS t WHERE t.terminal_id = ANY ($1))",
            )
            .bind(&wanted)
            .bind(kind.slug())
            .execute(&mut *transaction)
            .await?;
        }
        // Also where the profile stays: this is what tells running servers to read again.
        let found: Vec<String> = sqlx::query_scalar(
            "UPDATE terminal
             SET profile = coalesce($2, profile)
             WHERE terminal_id = ANY ($1)
             RETURNING terminal_id",
        )
        .bind(&wanted)
        .bind(profile)
        .fetch_all(&mut *transaction)
        .await?;
        refuse_unknown(&wanted, &found)?;
        let detail = json!({ "profile": profile, "device_kind": kind.map(DeviceKind::slug) });
        note(&mut transaction, actor, "terminal.describe", &wanted.join(" "), detail).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Gives terminals new secrets, all or none. Where the secret before was never used, the one that is still in
    /// use stays the previous one, for no longer than it was promised.
    pub async fn terminal_rotate(&self, rotations: &[Rotation], actor: &str) -> Result<(), AccessError> {
        let mut transaction = self.pool().begin().await?;
        let wanted: Vec<&str> = rotations.iter().map(|one| one.id.as_str()).collect();
        let known: Vec<String> =
            sqlx::query_scalar("SELECT terminal_id FROM terminal WHERE terminal_id = ANY ($1)")
                .bind(&wanted)
                .fetch_all(&mut *transaction)
                .await?;
        refuse_unknown(&wanted, &known)?;
        let hashes: Vec<&str> = rotations.iter().map(|one| one.hash.as_str()).collect();
        let until: Vec<Option<time::OffsetDateTime>> =
            rotations.iter().map(|one| one.previous_until.and_then(Timestamp::to_utc)).collect();
        sqlx::query(
            "INSERT INTO credential AS old (terminal_id, hash)
             SELECT r.terminal_id, r.hash FROM unnest($1::text[], $2::text[]) AS r (terminal_id, hash)
             ON CONFLICT (terminal_id) DO UPDATE
             SET (hash, changed, previous_hash, previous_until) = (
                SELECT excluded.hash, now(),
                    CASE WHEN r.until IS NULL THEN NULL
                        WHEN old.previous_until > now() THEN old.previous_hash
                        ELSE old.hash END,
                    CASE WHEN r.until IS NULL THEN NULL
                        WHEN old.previous_until > now() THEN least(old.previous_until, r.until)
                        ELSE r.until END
                FROM unnest($1::text[], $3::timestamptz[]) AS r (terminal_id, until)
                WHERE r.terminal_id = excluded.terminal_id)",
        )
        .bind(&wanted)
        .bind(hashes)
        .bind(until)
        .execute(&mut *transaction)
        .await?;
        let detail = json!({ "at_once": rotations.iter().all(|one| one.previous_until.is_none()) });
        note(&mut transaction, actor, "terminal.rotate", &wanted.join(" "), detail).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// These terminals have used their new secrets (given by its hash): the ones before are worth nothing from
    /// now on.
    pub async fn terminal_settle(&self, used: &[(TerminalId, String)]) -> Result<(), StoreError> {
        let (ids, hashes): (Vec<&str>, Vec<&str>) =
            used.iter().map(|(id, hash)| (id.as_str(), hash.as_str())).unzip();
        sqlx::query(
            "UPDATE credential AS c
             SET previous_hash = NULL, previous_until = NULL
             FROM unnest($1::text[], $2::text[]) AS used (terminal_id, hash)
             WHERE c.terminal_id = used.terminal_id
                AND c.hash = used.hash
                AND c.previous_hash IS NOT NULL",
        )
        .bind(ids)
        .bind(hashes)
        .execute(self.pool())
        .await?;
        Ok(())
    }
}

fn ids<'a>(terminals: &[&'a NewTerminal]) -> Vec<&'a str> {
    terminals.iter().map(|one| one.id.as_str()).collect()
}

fn areas(terminals: &[&NewTerminal]) -> Vec<i32> {
    terminals.iter().map(|one| one.area.number().cast_signed()).collect()
}

async fn refuse_known(connection: &mut PgConnection, new: &[NewTerminal]) -> Result<(), AccessError> {
    let wanted: Vec<&str> = new.iter().map(|one| one.id.as_str()).collect();
    let known: Vec<String> = sqlx::query_scalar(
        "SELECT terminal_id FROM terminal WHERE terminal_id = ANY ($1) ORDER BY terminal_id",
    )
    .bind(wanted)
    .fetch_all(connection)
    .await?;
    if known.is_empty() { Ok(()) } else { Err(AccessError::TerminalExists(known)) }
}

async fn refuse_missing_elevators(
    connection: &mut PgConnection,
    placed: &[&NewTerminal],
) -> Result<(), AccessError> {
    let elevators: Vec<i64> = placed.iter().filter_map(|one| one.elevator).map(|id| id.0).collect();
    let missing: Vec<i64> = sqlx::query_scalar(
        "SELECT DISTINCT wanted.id
         FROM unnest($1::int8[]) AS wanted (id)
         WHERE NOT EXISTS (SELECT FROM elevator AS e WHERE e.elevator_id = wanted.id)
         ORDER BY wanted.id",
    )
    .bind(elevators)
    .fetch_all(connection)
    .await?;
    if missing.is_empty() { Ok(()) } else { Err(AccessError::ElevatorUnknown(missing)) }
}

fn refuse_unknown(wanted: &[&str], found: &[String]) -> Result<(), AccessError> {
    let missing: Vec<String> = wanted
        .iter()
        .filter(|id| !found.iter().any(|known| known == *id))
        .map(|id| (*id).to_owned())
        .collect();
    if missing.is_empty() { Ok(()) } else { Err(AccessError::TerminalUnknown(missing)) }
}

fn detail(row: &PgRow) -> Result<TerminalDetail, StoreError> {
    let id: &str = row.try_get("terminal_id")?;
    let created: time::OffsetDateTime = row.try_get("created")?;
    let changed: Option<time::OffsetDateTime> = row.try_get("changed")?;
    Ok(TerminalDetail {
        id: TerminalId::new(id).map_err(|error| StoreError::Corrupt(error.to_string()))?,
        elevator_id: ElevatorId(row.try_get("elevator_id")?),
        area: snapshot::area(row.try_get("area")?)?,
        enabled: row.try_get("enabled")?,
        profile: row.try_get("profile")?,
        created: created.into(),
        credential: snapshot::credential(row)?,
        credential_changed: changed.map(Into::into),
    })
}
