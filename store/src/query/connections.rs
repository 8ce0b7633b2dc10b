//! The connections on which questions run: few, apart from all others, and to the present primary.
//!
//! Owns them and their settings. Promises: at most so many questions at once; a connection given out has just
//! answered, and reaches the host that takes writes now, as far as this process knows: one to a host that was
//! left is dropped. A standby would answer too, but from an earlier moment, so that who follows the fleet from
//! page to page would miss what lies between. Does not look for another primary by itself: it asks
//! [`Database::connection`], as writers do.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::QueryConfig;
use crate::hosts::is_good;
use crate::{Database, StoreError};

/// A connection is made anew after this long: what the server remembers of chunks grows.
const LIFE: Duration = Duration::from_mins(30);

/// See the module.
#[derive(Debug)]
pub(super) struct Connections {
    database: Database,
    settings: String,
    count: u32,
    /// The right to use one.
    running: Semaphore,
    /// Not in use now, so never more than `count`.
    idle: Mutex<Vec<Held>>,
}

/// A connection and where it leads.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) connection: PgConnection,
    host: usize,
    made: Instant,
}

impl Connections {
    /// Connects when first asked.
    pub(super) fn new(database: &Database, config: &QueryConfig) -> Self {
        let timeout_ms = config.timeout.as_millis().clamp(1, i32::MAX as u128);
        // Set, not given at the start: whether a server takes writes is asked before. Whoever gave up waiting needs
        // no answer, so the server looks whether somebody is still there. One core for one question, and memory
        // for its sorts. Chunks are left out by the values asked for: a plan for any values would look at all.
        let settings = format!(
            "SET application_name = 'liftwatch queries';
             SET statement_timeout = {timeout_ms};
             SET idle_in_transaction_session_timeout = {timeout_ms};
             SET client_connection_check_interval = '1s';
             SET default_transaction_read_only = on;
             SET max_parallel_workers_per_gather = 0;
             SET work_mem = '32MB';
             SET plan_cache_mode = force_custom_plan"
        );
        let count = config.connections.max(1);
        let running = Semaphore::new(count as usize);
        Self { database: database.clone(), settings, count, running, idle: Mutex::default() }
    }

    /// The right to use a connection, once one of them is free; an error after the end.
    pub(super) async fn permit(&self) -> Result<SemaphorePermit<'_>, StoreError> {
        self.running.acquire().await.map_err(|_| StoreError::Unavailable(sqlx::Error::PoolClosed))
    }

    /// A connection for whoever has the right: one that is good, or a new one.
    pub(super) async fn take(&self) -> Result<Held, StoreError> {
        loop {
            let held = self.idle().pop();
            let Some(mut held) = held else { return self.make().await };
            let of_use = held.host == self.database.host() && held.made.elapsed() < LIFE;
            if of_use && is_good(&mut held.connection).await.is_ok() {
                return Ok(held);
            }
        }
    }

    async fn make(&self) -> Result<Held, StoreError> {
        let (mut connection, host) = self.database.connection_to_host().await?;
        let set = async {
            sqlx::raw_sql(AssertSqlSafe(self.settings.as_str())).execute(&mut connection).await?;
            Ok(())
        };
        self.database.in_time(set).await?;
        Ok(Held { connection, host, made: Instant::now() })
    }

    /// Takes one back whose answer was read to its end. Any other is dropped by who has it: nobody knows what
    /// it would say next.
    pub(super) fn give_back(&self, held: Held) {
        self.idle().push(held);
    }

    /// Waits for what is under way and closes all.
    pub(super) async fn close(&self) {
        let Ok(_all) = self.running.acquire_many(self.count).await else { return };
        self.running.close();
        let idle = std::mem::take(&mut *self.idle());
        for held in idle {
            // One that is gone is closed already.
            let _ = sqlx::Connection::close(held.connection).await;
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Held>> {
        // Nothing that holds it can panic half-way.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
