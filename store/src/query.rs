//! Questions about much data: the fleet now, a lift over time, one minute of all, faults of months.
//!
//! Owns the connections on which they run, apart from those of the writers and of the shared pool. Promises:
//! an answer holds a bounded number of rows or is handed out row by row; a question that takes longer than the
//! configured time is ended by the server; nothing here can write. Each question is a type of its own that says
//! what it costs and which index it stands on; `docs/performance.md` has the measured times.
//!
//! Does not cache, and does not decide who may see what: regions come as arguments.

mod connections;
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
use sqlx::postgres::{PgArguments, PgConnection, PgRow};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::error::is_cancelled;
use crate::{Database, StoreError};
use connections::{Connections, Held};

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

/// The server ends a question that takes too long; one that does not even say so for this long after is given up.
const GRACE: Duration = Duration::from_secs(5);

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
    connections: Arc<Connections>,
    /// As many as may run and wait. Full: the question is refused as [`QueryError::Crowded`].
    places: Arc<Semaphore>,
    timeout: Duration,
    metrics: Arc<QueryMetrics>,
}

impl Queries {
    /// Connects when first asked.
    pub fn new(database: &Database, config: &QueryConfig, metrics: Arc<QueryMetrics>) -> Self {
        let connections = Arc::new(Connections::new(database, config));
        let places = Arc::new(Semaphore::new(config.connections.max(1) as usize + config.waiting_max));
        Self { connections, places, timeout: config.timeout, metrics }
    }

    /// How the database would answer, without doing it.
    pub async fn plan(&self, question: &impl Question) -> Result<Plan, QueryError> {
        question.check()?;
        let mut turn = self.turn().await?;
        let asked = question.statement("EXPLAIN (FORMAT JSON) ").fetch_one(turn.connection());
        let row = self.answer(asked).await?;
        turn.give_back();
        plan::read(&row)
    }

    /// Waits for the answers under way and closes the connections.
    pub async fn close(&self) {
        self.connections.close().await;
    }

    /// A place and a connection.
    async fn turn(&self) -> Result<Turn<'_>, QueryError> {
        let Ok(place) = self.places.try_acquire() else { return self.refuse() };
        let wait = self.timeout.max(Duration::from_secs(1));
        let Ok(permit) = tokio::time::timeout(wait, self.connections.permit()).await else {
            return self.refuse();
        };
        let permit = permit?;
        let held = self.connections.take().await?;
        Ok(Turn { held, queries: self, began: Instant::now(), _permit: permit, _place: place })
    }

    fn refuse<T>(&self) -> Result<T, QueryError> {
        self.metrics.refused.inc();
        Err(QueryError::Crowded)
    }

    /// What the server says, if it says something in time.
    async fn answer<T>(&self, asked: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, QueryError> {
        let wait = self.timeout + GRACE;
        match tokio::time::timeout(wait, asked).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) if is_cancelled(&error) => {
                self.metrics.ended.inc();
                Err(QueryError::TooLong(self.timeout))
            }
            Ok(Err(error)) => Err(QueryError::Store(error.into())),
            Err(_) => Err(QueryError::Store(StoreError::Timeout(wait))),
        }
    }

    /// All rows of an answer.
    async fn rows(&self, question: &impl Question) -> Result<Vec<PgRow>, QueryError> {
        let mut turn = self.turn().await?;
        let rows = self.answer(question.statement("").fetch_all(turn.connection())).await?;
        turn.done();
        Ok(rows)
    }
}

/// The right to ask one question. Dropped before its answer is whole, the connection is closed with it, and the
/// server ends what it was doing within a second or so.
struct Turn<'a> {
    held: Held,
    queries: &'a Queries,
    began: Instant,
    _permit: SemaphorePermit<'a>,
    _place: SemaphorePermit<'a>,
}

impl Turn<'_> {
    fn connection(&mut self) -> &mut PgConnection {
        &mut self.held.connection
    }

    fn done(self) {
        self.queries.metrics.seconds.observe(self.began.elapsed().as_secs_f64());
        self.give_back();
    }

    fn give_back(self) {
        let Self { held, queries, .. } = self;
        queries.connections.give_back(held);
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
