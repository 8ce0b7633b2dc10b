//! What the handlers share.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use domain::Timestamp;
use prometheus_client::registry::Registry;
use store::Database;
use time::OffsetDateTime;
use tokio::sync::Semaphore;

use crate::api::documents::Documents;
use crate::metrics::Metrics;
use crate::page::OpenAlarms;
use crate::rate::Rate;
use crate::{api, limits};

/// Running totals of this process, for the status page.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Terminals connected now.
    pub terminals_connected: u64,
    /// Readings received since the start.
    pub readings_received: u64,
    /// Rows committed since the start.
    pub rows_committed: u64,
}

/// Where the figures come from. Asked about once a second and once per view; must not block.
pub trait LiveFigures: Send + Sync + 'static {
    /// The figures now.
    fn figures(&self) -> Figures;
}

impl<F: Fn() -> Figures + Send + Sync + 'static> LiveFigures for F {
    fn figures(&self) -> Figures {
        self()
    }
}

/// The server's clock: the one place of this crate that reads it.
pub(crate) fn now() -> Timestamp {
    OffsetDateTime::now_utc().into()
}

type Probe = dyn Fn() -> Result<(), String> + Send + Sync;

/// One condition of being ready.
pub struct Check {
    name: &'static str,
    probe: Box<Probe>,
}

impl Check {
    /// A condition with its name. The probe answers at once, from what is already known; an `Err` says in a
    /// short sentence what is missing.
    pub fn new(name: &'static str, probe: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self { name, probe: Box::new(probe) }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn run(&self) -> Result<(), String> {
        (self.probe)()
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Check").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What the process gives to its HTTP side.
pub struct Parts {
    /// Read only.
    pub database: Database,
    /// All metrics of the process, complete before this is built.
    pub registry: Arc<Registry>,
    /// Our own metrics, registered in it.
    pub metrics: Metrics,
    /// All must hold for `/readyz`.
    pub checks: Vec<Check>,
    /// For the status page.
    pub figures: Arc<dyn LiveFigures>,
    /// A terminal without a sign of life for so long is shown as offline.
    pub offline_after: Duration,
    /// Served as they are.
    pub documents: Documents,
}

/// Shared by all handlers; cheap to clone.
#[derive(Clone)]
pub struct State(Arc<Shared>);

/// Inside of [`State`].
pub struct Shared {
    pub(crate) parts: Parts,
    /// Permits to query the database; a request that finds none waits until its own time is over.
    pub(crate) queries: Semaphore,
    pub(crate) openapi: String,
    /// Held across the query on purpose: of all viewers one asks, the others wait for its answer.
    pub(crate) open_alarms: tokio::sync::Mutex<OpenAlarms>,
    rate: Mutex<Rate>,
}

impl State {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(Shared {
            parts,
            queries: Semaphore::new(limits::QUERIES_MAX),
            openapi: api::document(),
            open_alarms: tokio::sync::Mutex::default(),
            rate: Mutex::default(),
        }))
    }
}

impl Deref for State {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Shared {
    /// Notes the present count of readings for the rate.
    pub(crate) fn sample(&self, now: Instant) {
        let count = self.parts.figures.figures().readings_received;
        self.rate.lock().unwrap_or_else(PoisonError::into_inner).note(now, count);
    }

    pub(crate) fn readings_per_second(&self) -> f64 {
        self.rate.lock().unwrap_or_else(PoisonError::into_inner).per_second()
    }
}
