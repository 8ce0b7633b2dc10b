//! Which terminal belongs to which elevator: a snapshot in memory over the tables.
//!
//! Owns the snapshot. A look-up takes a read lock for the time of one hash look-up. Telemetry never changes
//! what is registered: a terminal that publishes in another area keeps the area it was registered with.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use domain::{Area, DeviceKind, ElevatorId, TerminalId};
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::{Database, StoreError};

/// What is known of a terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TerminalRecord {
    /// The elevator it serves.
    pub elevator_id: ElevatorId,
    /// The division it is registered in.
    pub area: Area,
    /// Name of its vendor profile.
    pub profile: Arc<str>,
    /// What kind of device its elevator is.
    pub device_kind: DeviceKind,
    /// Whether its messages are taken.
    pub enabled: bool,
}

/// All terminals.
#[derive(Debug)]
pub struct Registry {
    database: Database,
    terminals: RwLock<HashMap<TerminalId, TerminalRecord>>,
}

/// An elevator that was made in this very statement is not seen by the join: it is a lift.
const COLUMNS: &str = "SELECT t.terminal_id, t.elevator_id, t.area, t.enabled, t.profile,
        coalesce(e.device_kind, 'lift') AS device_kind
     FROM terminals AS t
     LEFT JOIN elevator AS e USING (elevator_id)";

/// [`COLUMNS`] of this table or function.
fn columns(terminals: &str) -> String {
    COLUMNS.replace("FROM terminals", &format!("FROM {terminals}"))
}

impl Registry {
    /// Reads all terminals.
    pub async fn load(database: &Database) -> Result<Self, StoreError> {
        let registry = Self { database: database.clone(), terminals: RwLock::default() };
        registry.reload().await?;
        Ok(registry)
    }

    /// Reads all terminals again, after somebody else has changed them.
    pub async fn reload(&self) -> Result<(), StoreError> {
        let sql = columns("terminal");
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_all(self.database.pool()).await?;
        let mut profiles = Profiles::default();
        let terminals = rows.iter().map(|row| record(row, &mut profiles)).collect::<Result<_, _>>()?;
        *self.terminals.write().unwrap_or_else(PoisonError::into_inner) = terminals;
        Ok(())
    }

    /// What is known of this terminal.
    pub fn lookup(&self, terminal: &str) -> Option<TerminalRecord> {
        self.terminals.read().unwrap_or_else(PoisonError::into_inner).get(terminal).cloned()
    }

    /// The same with its id, which shares the registry's memory.
    pub fn lookup_id(&self, terminal: &str) -> Option<(TerminalId, TerminalRecord)> {
        let terminals = self.terminals.read().unwrap_or_else(PoisonError::into_inner);
        terminals.get_key_value(terminal).map(|(id, record)| (id.clone(), record.clone()))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.terminals.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every terminal with its record, in no order.
    pub fn snapshot(&self) -> Vec<(TerminalId, TerminalRecord)> {
        let terminals = self.terminals.read().unwrap_or_else(PoisonError::into_inner);
        terminals.iter().map(|(id, record)| (id.clone(), record.clone())).collect()
    }

    /// Registers those that are unknown, each with a new elevator, in one round trip; those that are known stay
    /// as they are. Safe to call again and concurrently, also from other processes.
    pub async fn register(&self, terminals: &[(TerminalId, Area)]) -> Result<(), StoreError> {
        let ids: Vec<&str> = terminals.iter().map(|(id, _)| id.as_str()).collect();
        let areas: Vec<i32> = terminals.iter().map(|(_, area)| area.number().cast_signed()).collect();
        let sql = columns("terminal_register($1, $2)");
        let pool = self.database.pool();
        let asked = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(ids).bind(areas).fetch_all(pool);
        let rows = self.database.in_time(async { Ok(asked.await?) }).await?;
        let mut profiles = Profiles::default();
        let records: Vec<_> = rows.iter().map(|row| record(row, &mut profiles)).collect::<Result<_, _>>()?;
        self.terminals.write().unwrap_or_else(PoisonError::into_inner).extend(records);
        Ok(())
    }
}

/// Few names, shared by many terminals.
#[derive(Default)]
struct Profiles(HashMap<String, Arc<str>>);

impl Profiles {
    fn shared(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.get(name) {
            return known.clone();
        }
        let shared: Arc<str> = name.into();
        self.0.insert(name.to_owned(), shared.clone());
        shared
    }
}

fn record(row: &PgRow, profiles: &mut Profiles) -> Result<(TerminalId, TerminalRecord), StoreError> {
    let terminal: &str = row.try_get("terminal_id")?;
    let terminal = TerminalId::new(terminal).map_err(|error| StoreError::Corrupt(error.to_string()))?;
    let area: i32 = row.try_get("area")?;
    let area = u32::try_from(area).ok().and_then(|area| Area::from_number(area).ok());
    let kind: &str = row.try_get("device_kind")?;
    let record = TerminalRecord {
        elevator_id: ElevatorId(row.try_get("elevator_id")?),
        area: area.ok_or_else(|| StoreError::Corrupt(format!("area of terminal {terminal}")))?,
        profile: profiles.shared(row.try_get("profile")?),
        device_kind: kind
            .parse()
            .map_err(|_| StoreError::Corrupt(format!("kind of elevator of {terminal}")))?,
        enabled: row.try_get("enabled")?,
    };
    Ok((terminal, record))
}
