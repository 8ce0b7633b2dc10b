//! The shell around the engine: a bounded queue in, a real clock, commits and checkpoints out.
//!
//! ```text
//! Handle ──queue──► driver (engine, clock) ──decisions, states──► committer ──► store
//!                                                                     └──► Streams (fresh and provisional)
//! ```
//!
//! Promises that a receipt is done only after everything its input caused is on disk; that an alarm which
//! cannot be committed is shown provisionally; that a start continues where the last run was cut, whatever
//! cut it. A stop follows the data: when the last [`Handle`] is dropped, the driver saves all states and ends,
//! the committer writes what is left and ends, and then the rest.

mod committer;
mod dirty;
mod driver;

use std::sync::Arc;

use domain::Receipt;
use prometheus_client::registry::Registry;
use store::{Database, StoreError};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::engine::Input;
use crate::sealer::Sealer;
use crate::stream::Follower;
use crate::{Clock, Config, Metrics, Streams};
use committer::{Committer, Progress};
use driver::Driver;

/// Jobs between driver and committer; the committer's own queue is the one with room.
const JOB_QUEUE: usize = 64;

/// The running tasks. Dropping this ends them where they are.
#[derive(Debug)]
pub struct Alerting {
    streams: Streams,
    tasks: JoinSet<&'static str>,
    /// Ends the tasks that have no data to drain.
    idle: CancellationToken,
}

/// Why alerting did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// What the last run left could not be read.
    #[error("the engine's state could not be read")]
    Store(#[from] StoreError),
    /// The committer died while the log was replayed.
    #[error("the replay was cut off")]
    CutOff,
}

/// The engine takes no more inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("alerting has stopped")]
pub struct Stopped;

/// Where inputs go. Clones share the queue; when all are dropped, alerting drains and ends.
#[derive(Debug)]
pub struct Handle<R> {
    inputs: mpsc::Sender<(Input, R)>,
    metrics: Metrics,
}

impl<R> Clone for Handle<R> {
    fn clone(&self) -> Self {
        Self { inputs: self.inputs.clone(), metrics: self.metrics.clone() }
    }
}

impl<R: Receipt> Handle<R> {
    /// Hands an input to the engine; waits while the queue is full. Inputs are given in the order of their
    /// arrival numbers. `receipt` is done when everything that the input caused is on disk; dropped undone if
    /// alerting stops before.
    pub async fn submit(&self, input: Input, receipt: R) -> Result<(), Stopped> {
        self.inputs.send((input, receipt)).await.map_err(|_| Stopped)?;
        let waiting = self.inputs.max_capacity() - self.inputs.capacity();
        self.metrics.input_queue.set(waiting as i64);
        Ok(())
    }
}

impl Alerting {
    /// Loads what the last run left, replays what arrived after it, brings the clock to now, and runs. Inputs
    /// may be submitted when this has answered. `abandon` gives up on a database that stays away: without it a
    /// stop waits until all decisions are on disk.
    pub async fn start<R: Receipt>(
        config: Config,
        database: Database,
        clock: Clock,
        registry: &mut Registry,
        abandon: CancellationToken,
    ) -> Result<(Handle<R>, Self), StartError> {
        let metrics = Metrics::register(registry);
        let (streams, follower) = Streams::new(database.clone(), config.stream.clone(), metrics.clone());
        let (inputs, submitted) = mpsc::channel(config.input_queue_len);
        let (jobs, queued) = mpsc::channel(JOB_QUEUE);
        let progress = Arc::<Progress>::default();
        let committer = Committer::new(queued, &config, &database, streams.clone(), Arc::clone(&progress));
        let sealer = Sealer {
            database: database.clone(),
            clock: clock.clone(),
            config: config.clone(),
            metrics: metrics.clone(),
        };

        let mut alerting = Self { streams, tasks: JoinSet::new(), idle: CancellationToken::new() };
        alerting.spawn_around(follower, sealer, committer, abandon);
        let mut driver = Driver::new(config, clock, submitted, jobs, progress, metrics.clone());
        driver.recover(&database).await?;
        alerting.tasks.spawn(async {
            driver.run().await;
            "engine"
        });
        Ok((Handle { inputs, metrics }, alerting))
    }

    fn spawn_around<R: Receipt>(
        &mut self,
        follower: Follower,
        sealer: Sealer,
        committer: Committer<R>,
        abandon: CancellationToken,
    ) {
        let idle = self.idle.clone();
        self.tasks.spawn(async {
            follower.run(idle).await;
            "alarm stream"
        });
        let idle = self.idle.clone();
        self.tasks.spawn(async {
            sealer.run(idle).await;
            "evidence sealer"
        });
        self.tasks.spawn(async {
            committer.run(abandon).await;
            "alarm committer"
        });
    }

    /// The alarm stream, for [`crate::service::serve`].
    pub fn streams(&self) -> Streams {
        self.streams.clone()
    }

    /// Waits for the first task that ends, and names it. While there are handles, that is a failure.
    pub async fn ended(&mut self) -> Result<&'static str, JoinError> {
        match self.tasks.join_next().await {
            Some(ended) => ended,
            None => std::future::pending().await,
        }
    }

    /// Waits until everything is on disk and all tasks have ended; the handles must be dropped.
    pub async fn drain(mut self) -> Result<(), JoinError> {
        while let Some(ended) = self.tasks.join_next().await {
            // The stream and the sealer serve until the last decision is on disk.
            if ended? == "alarm committer" {
                self.idle.cancel();
            }
        }
        Ok(())
    }
}
