//! Questions about much data: the fleet now, a lift over time, one minute of all, faults of months.
//!
//! Owns the connections on which they run, apart from those of the writers and of the shared pool. Promises:
//! an answer holds a bounded number of rows or is handed out row by row; a question that takes longer than the
//! configured time is ended by the server; nothing here can write. Each question is a type of its own that says
//! what it costs and which index it stands on; `docs/performance.md` has the measured times.
//!
//! Does not cache, and does not decide who may see what: regions come as arguments.

mod downsample;
mod faults;
mod metrics;
mod minute;
mod month;
mod plan;
mod region;
mod series;
mod states;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::Postgres;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgPool, PgPoolOptions, PgRow};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::error::is_cancelled;
use crate::{Database, StoreError};

pub use downsample::{Point, m4};
pub use faults::{FaultCount, FaultsBy, Maintainer};
pub use metrics::QueryMetrics;
pub use minute::{FleetMinute, MinuteReading};
pub use month::Month;
pub use plan::Plan;
pub use series::{ElevatorSeries, FieldSeries, Resolution, Series, SeriesField};
pub use states::{Connection, FleetFilter, FleetState, LatestStates, StatesPage};

/// Settings of [`Queries`].
#[derive(Debug, Clone)]
pub struct QueryConfig {
    /// Questions answered at the same time, each on a connection of its own.
    pub connections: u32,
    /// Questions that may wait for a connection; the next is refused.
    pub waiting_max: usize,
    /// The server ends a question that takes longer.
    pub timeout: Duration,
}

impl Default for QueryConfig {
    fn default() -> Self {
        // Two of the cores at the most, however many ask: the writers must go on.
        Self { connections: 2, waiting_max: 32, timeout: Duration::from_secs(20) }
    }
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// It makes no sense, or asks for more than is given at once.
    #[error("{0}")]
    Invalid(String),
    /// It took too long and was ended; ask for less.
    #[error("the question took longer than {0:?} and was ended")]
    TooLong(Duration),
    /// Too many are asking; later it may work.
    #[error("too many questions are waiting")]
    Crowded,
    /// The database failed.
    #[error(transparent)]
    Store(StoreError),
}

type PgQuery = sqlx::query::Query<'static, Postgres, PgArguments>;

/// A question that can be asked of the database.
pub trait Question {
    /// Whether it makes sense and stays within its bounds.
    fn check(&self) -> Result<(), QueryError>;
    /// Its statement with the values bound, after `prefix`.
    #[doc(hidden)]
    fn statement(&self, prefix: &str) -> sqlx::query::Query<'static, Postgres, PgArguments>;
}

/// Answers questions on connections of its own. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Queries {
    pool: PgPool,
    /// As many as may run and wait. Full: the question is refused as [`QueryError::Crowded`].
    places: Arc<Semaphore>,
    timeout: Duration,
    metrics: Arc<QueryMetrics>,
}

impl Queries {
    /// Connects when first asked.
    pub fn new(database: &Database, config: &QueryConfig, metrics: Arc<QueryMetrics>) -> Self {
        let timeout_ms = config.timeout.as_millis().max(1).to_string();
        let options = database.connect_options().application_name("liftwatch queries").options([
            ("statement_timeout", timeout_ms.as_str()),
            ("idle_in_transaction_session_timeout", timeout_ms.as_str()),
            ("default_transaction_read_only", "on"),
            // One core for one question, and memory for its sorts.
            ("max_parallel_workers_per_gather", "0"),
            ("work_mem", "32MB"),
            // Chunks are left out by the values asked for: a plan for any values would look at all of them.
            ("plan_cache_mode", "force_custom_plan"),
        ]);
        let connections = config.connections.max(1);
        let pool = PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(config.timeout.max(Duration::from_secs(1)))
            .idle_timeout(Duration::from_mins(10))
            .connect_lazy_with(options);
        let places = Arc::new(Semaphore::new(connections as usize + config.waiting_max));
        Self { pool, places, timeout: config.timeout, metrics }
    }

    /// How the database would answer, without doing it.
    pub async fn plan(&self, question: &impl Question) -> Result<Plan, QueryError> {
        question.check()?;
        let mut turn = self.turn().await?;
        let row = question.statement("EXPLAIN (FORMAT JSON) ").fetch_one(&mut *turn.connection).await;
        plan::read(&turn.judge(row)?)
    }

    /// Closes the connections and waits for them to end.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// A place and a connection.
    async fn turn(&self) -> Result<Turn<'_>, QueryError> {
        let Ok(place) = self.places.try_acquire() else {
            self.metrics.refused.inc();
            return Err(QueryError::Crowded);
        };
        match self.pool.acquire().await {
            Ok(connection) => Ok(Turn { connection, queries: self, began: Instant::now(), _place: place }),
            Err(sqlx::Error::PoolTimedOut) => {
                self.metrics.refused.inc();
                Err(QueryError::Crowded)
            }
            Err(error) => Err(QueryError::Store(error.into())),
        }
    }

    /// All rows of an answer.
    async fn rows(&self, question: &impl Question) -> Result<Vec<PgRow>, QueryError> {
        let mut turn = self.turn().await?;
        let rows = question.statement("").fetch_all(&mut *turn.connection).await;
        let rows = turn.judge(rows)?;
        turn.done();
        Ok(rows)
    }
}

/// The right to ask one question. Dropped in the middle of an answer, the server works on until it is done or the
/// time is up; the connection is of use again after that.
struct Turn<'a> {
    connection: PoolConnection<Postgres>,
    queries: &'a Queries,
    began: Instant,
    _place: SemaphorePermit<'a>,
}

impl Turn<'_> {
    fn judge<T>(&self, result: Result<T, sqlx::Error>) -> Result<T, QueryError> {
        result.map_err(|error| {
            if is_cancelled(&error) {
                self.queries.metrics.ended.inc();
                return QueryError::TooLong(self.queries.timeout);
            }
            QueryError::Store(error.into())
        })
    }

    fn done(self) {
        self.queries.metrics.seconds.observe(self.began.elapsed().as_secs_f64());
    }
}

fn invalid<T>(why: impl Into<String>) -> Result<T, QueryError> {
    Err(QueryError::Invalid(why.into()))
}

impl From<StoreError> for QueryError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// A column that is not as it was written.
fn unreadable(error: sqlx::Error) -> QueryError {
    QueryError::Store(error.into())
}
