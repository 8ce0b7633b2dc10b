//! The task that makes decisions durable, in their order, and tells the streams.
//!
//! Takes as many decisions as wait into one transaction. While the database is away it keeps them, shows them
//! provisionally after 250 ms, and tries again; receipts resolve after the commit and never before. Saved
//! states travel in the same queue and are written when everything before them is on disk, on a connection of
//! their own, so that no alarm behind them waits.
//!
//! The queue is bounded by the number of decisions. Full: nothing more is taken in, so the engine waits, ingest
//! behind it, and the gate pauses its sockets and at last drops, marks and closes them paced. Receipts that only
//! wait their turn take no place in it: they ride on the last decision before them.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use domain::{AlarmChange, AlarmEvent, ArrivalNo, Receipt, Suppression};
use store::{AlarmCommitter, Database, ElevatorState, GROUP_EVENTS_MAX, StoreError};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::metrics::severity_label;
use crate::{Config, Metrics, Streams};

/// The longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// What waits for the disk.
#[derive(Debug)]
pub(super) enum Job<R> {
    /// What the engine made of one input, and whoever waits for it. With no decision at all, the receipt
    /// waits for the decisions before it.
    Decisions(Decisions<R>),
    /// States that cover everything decided before.
    Checkpoint {
        /// Of some elevators.
        states: Vec<ElevatorState>,
        /// All elevators are covered up to here once these are saved.
        position: ArrivalNo,
    },
}

/// What the engine made of one input.
#[derive(Debug)]
pub(super) struct Decisions<R> {
    pub(super) number: u64,
    pub(super) events: Vec<AlarmEvent>,
    pub(super) suppressions: Vec<Suppression>,
    /// Of the input, and of later inputs that decided nothing but must not be acknowledged before it.
    pub(super) receipts: Vec<R>,
}

/// How far the committer is, for the engine's task.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Decisions up to this number are on disk.
    pub(super) committed: AtomicU64,
    /// A checkpoint is on its way.
    pub(super) checkpointing: AtomicBool,
}

/// A queued job with its story.
#[derive(Debug)]
struct Waiting<R> {
    since: Instant,
    job: Job<R>,
    /// Keys under which its events were shown provisionally.
    announced: Vec<u64>,
}

type Commit = Pin<Box<dyn Future<Output = (AlarmCommitter, Result<Vec<AlarmEvent>, StoreError>)> + Send>>;
type Save = Pin<Box<dyn Future<Output = (AlarmCommitter, usize)> + Send>>;

pub(super) struct Committer<R> {
    jobs: mpsc::Receiver<Job<R>>,
    queue: VecDeque<Waiting<R>>,
    queue_len_max: usize,
    provisional_after: Duration,
    streams: Streams,
    metrics: Metrics,
    progress: Arc<Progress>,
    /// The connections, while they are not at work.
    alarms: Option<AlarmCommitter>,
    states: Option<AlarmCommitter>,
    /// The transaction under way, with the number of jobs in it.
    commit: Option<(usize, Commit)>,
    save: Option<Save>,
    /// Jobs at the front that have waited long enough to be provisional.
    shown: usize,
    /// After a failure: try again then.
    retry: Option<Instant>,
    backoff: ExponentialBackoff,
    failing: bool,
    /// One by one, to find the decision that the store refuses for good.
    one_by_one: bool,
}

enum Woken<R> {
    Abandoned,
    Committed(AlarmCommitter, Result<Vec<AlarmEvent>, StoreError>),
    Saved(AlarmCommitter, usize),
    Job(Option<Job<R>>),
    Show,
    Retry,
}

impl<R: Receipt> Committer<R> {
    pub(super) fn new(
        jobs: mpsc::Receiver<Job<R>>,
        config: &Config,
        database: &Database,
        streams: Streams,
        progress: Arc<Progress>,
    ) -> Self {
        Self {
            jobs,
            queue: VecDeque::new(),
            queue_len_max: config.commit_queue_len,
            provisional_after: config.provisional_after,
            metrics: streams.metrics().clone(),
            streams,
            progress,
            alarms: Some(AlarmCommitter::new(database.clone())),
            states: Some(AlarmCommitter::new(database.clone())),
            commit: None,
            save: None,
            shown: 0,
            retry: None,
            backoff: backoff(),
            failing: false,
            one_by_one: false,
        }
    }

    /// Runs until the engine's task is gone and all is on disk, or until `abandon`: then what is not on disk
    /// stays unacknowledged.
    pub(super) async fn run(mut self, abandon: CancellationToken) {
        let mut open = true;
        loop {
            self.begin(&abandon);
            self.metrics.commit_queue.set(self.queue.len() as i64);
            if !open && self.queue.is_empty() && self.save.is_none() {
                return;
            }
            match self.wait(open, &abandon).await {
                Woken::Abandoned => {
                    let left = self.queue.len();
                    if left > 0 {
                        warn!(left, "stopped before all was on disk: what was not acknowledged comes again");
                    }
                    return;
                }
                Woken::Committed(connection, result) => self.committed(connection, result),
                Woken::Saved(connection, count) => self.saved(connection, count),
                Woken::Job(Some(job)) => self.push(job),
                Woken::Job(None) => open = false,
                Woken::Show => self.show(),
                Woken::Retry => self.retry = None,
            }
        }
    }

    fn push(&mut self, job: Job<R>) {
        if job.is_empty()
            && let Some(Waiting { job: Job::Decisions(before), .. }) = self.queue.back_mut()
            && let Job::Decisions(turn) = job
        {
            before.receipts.extend(turn.receipts);
            return;
        }
        self.queue.push_back(Waiting { since: Instant::now(), job, announced: vec![] });
    }

    async fn wait(&mut self, open: bool, abandon: &CancellationToken) -> Woken<R> {
        let room = self.queue.len() < self.queue_len_max;
        let (show, retry) = (self.show_at(), self.retry);
        tokio::select! {
            biased;
            () = abandon.cancelled() => Woken::Abandoned,
            (connection, result) = finished(self.commit.as_mut().map(|(_, commit)| commit)) => {
                Woken::Committed(connection, result)
            }
            (connection, count) = finished(self.save.as_mut()) => Woken::Saved(connection, count),
            () = until(show) => Woken::Show,
            job = self.jobs.recv(), if open && room => Woken::Job(job),
            () = until(retry) => Woken::Retry,
        }
    }

    /// Starts what can be started.
    fn begin(&mut self, abandon: &CancellationToken) {
        if self.commit.is_some() {
            return;
        }
        // Receipts that waited for nothing but their turn.
        while self.queue.front().is_some_and(|waiting| waiting.job.is_empty()) {
            self.finish(1);
        }
        let saves = matches!(self.queue.front(), Some(Waiting { job: Job::Checkpoint { .. }, .. }));
        if saves
            && let Some(connection) = self.states.take()
            && let Some(Waiting { job: Job::Checkpoint { states, position }, .. }) = self.queue.pop_front()
        {
            self.shown = self.shown.saturating_sub(1);
            self.save = Some(Box::pin(save(connection, states, position, abandon.clone())));
        }
        if self.retry.is_none() {
            self.begin_commit();
        }
    }

    /// As many decisions as one transaction takes; one if that one alone is larger.
    fn begin_commit(&mut self) {
        let (mut events, mut suppressions, mut count) = (vec![], vec![], 0);
        for waiting in &self.queue {
            let Job::Decisions(decisions) = &waiting.job else { break };
            let full = events.len() + decisions.events.len() > GROUP_EVENTS_MAX
                || suppressions.len() > GROUP_EVENTS_MAX;
            if count > 0 && (full || self.one_by_one) {
                break;
            }
            events.extend_from_slice(&decisions.events);
            suppressions.extend_from_slice(&decisions.suppressions);
            count += 1;
        }
        if count > 0
            && let Some(connection) = self.alarms.take()
        {
            self.commit = Some((count, Box::pin(commit(connection, events, suppressions))));
        }
    }

    fn committed(&mut self, connection: AlarmCommitter, result: Result<Vec<AlarmEvent>, StoreError>) {
        self.alarms = Some(connection);
        let Some((count, _)) = self.commit.take() else { return };
        match result {
            Ok(numbered) => self.tell(count, numbered),
            Err(failure) if failure.blames_the_data() && count == 1 => self.give_up(&failure),
            Err(failure) if failure.blames_the_data() => self.one_by_one = true,
            Err(failure) => {
                self.metrics.commit_retries.inc();
                self.retry = Some(Instant::now() + self.backoff.next().unwrap_or(PAUSE_MAX));
                if !self.failing {
                    self.failing = true;
                    warn!(
                        error = &failure as &dyn std::error::Error,
                        "decisions cannot be committed: they are shown provisionally and tried again"
                    );
                }
            }
        }
    }

    /// The first `count` jobs are on disk, as these events.
    fn tell(&mut self, count: usize, numbered: Vec<AlarmEvent>) {
        if self.failing {
            self.failing = false;
            info!("decisions are committed again");
        }
        self.backoff = backoff();
        for event in numbered.iter().filter(|event| event.change == AlarmChange::Raised) {
            self.metrics.raised.get_or_create(&severity_label(event.alarm.severity)).inc();
        }
        let announced: Vec<u64> =
            self.queue.iter().take(count).flat_map(|waiting| waiting.announced.iter().copied()).collect();
        self.streams.committed(&announced, numbered);
        self.finish(count);
        self.one_by_one &= !self.queue.is_empty();
    }

    /// Whoever waits for the first `count` jobs may go.
    fn finish(&mut self, count: usize) {
        let now = Instant::now();
        for waiting in self.queue.drain(..count) {
            let Job::Decisions(decisions) = waiting.job else { continue };
            if !decisions.events.is_empty() {
                let seconds = now.saturating_duration_since(waiting.since).as_secs_f64();
                self.metrics.commit_seconds.observe(seconds);
            }
            self.progress.committed.fetch_max(decisions.number, Ordering::Release);
            decisions.receipts.into_iter().for_each(Receipt::done);
        }
        self.shown = self.shown.saturating_sub(count);
    }

    /// The store will never take this one. Dispatchers have seen it or see it now; a person must act.
    fn give_up(&mut self, failure: &StoreError) {
        let Some(mut waiting) = self.queue.pop_front() else { return };
        self.shown = self.shown.saturating_sub(1);
        show(&self.streams, &mut waiting);
        self.metrics.unstorable.inc();
        if let Job::Decisions(decisions) = waiting.job {
            error!(
                error = failure as &dyn std::error::Error,
                events = serde_json::to_string(&decisions.events).unwrap_or_default(),
                suppressions = serde_json::to_string(&decisions.suppressions).unwrap_or_default(),
                "the store refuses a decision for good"
            );
            self.progress.committed.fetch_max(decisions.number, Ordering::Release);
        }
    }

    fn saved(&mut self, connection: AlarmCommitter, count: usize) {
        self.states = Some(connection);
        self.save = None;
        self.metrics.checkpointed.inc_by(count as u64);
        self.progress.checkpointing.store(false, Ordering::Release);
    }

    /// When the next decision becomes provisional.
    fn show_at(&self) -> Option<Instant> {
        self.queue.get(self.shown).map(|waiting| waiting.since + self.provisional_after)
    }

    /// Shows what has waited long enough.
    fn show(&mut self) {
        let now = Instant::now();
        while let Some(waiting) = self.queue.get_mut(self.shown)
            && waiting.since + self.provisional_after <= now
        {
            show(&self.streams, waiting);
            self.shown += 1;
        }
    }
}

impl<R> Job<R> {
    /// Receipts that wait for nothing but their turn.
    pub(super) fn turns(receipts: Vec<R>) -> Self {
        Self::Decisions(Decisions { number: 0, events: vec![], suppressions: vec![], receipts })
    }

    fn is_empty(&self) -> bool {
        let Job::Decisions(decisions) = self else { return false };
        decisions.events.is_empty() && decisions.suppressions.is_empty()
    }
}

fn show<R>(streams: &Streams, waiting: &mut Waiting<R>) {
    if let Job::Decisions(decisions) = &waiting.job
        && waiting.announced.is_empty()
    {
        waiting.announced = decisions.events.iter().map(|event| streams.announce(event.clone())).collect();
    }
}

fn backoff() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(PAUSE_MAX)
        .without_max_times()
        .with_jitter()
        .build()
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn finished<F: Future + Unpin>(work: Option<&mut F>) -> F::Output {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}

async fn commit(
    mut connection: AlarmCommitter,
    events: Vec<AlarmEvent>,
    suppressions: Vec<Suppression>,
) -> (AlarmCommitter, Result<Vec<AlarmEvent>, StoreError>) {
    let mut numbered = vec![];
    // One transaction, save for a decision that is larger than one: its parts may be repeated freely.
    for part in 0..events.len().div_ceil(GROUP_EVENTS_MAX).max(1) {
        let from = part * GROUP_EVENTS_MAX;
        let to = events.len().min(from + GROUP_EVENTS_MAX);
        let given_up = if part == 0 { suppressions.as_slice() } else { &[] };
        match connection.alarm_commit(&events[from..to], given_up).await {
            Ok(more) => numbered.extend(more),
            Err(failure) => return (connection, Err(failure)),
        }
    }
    (connection, Ok(numbered))
}

/// Saves states, however often it takes. Answers how many.
async fn save(
    mut connection: AlarmCommitter,
    states: Vec<ElevatorState>,
    position: ArrivalNo,
    abandon: CancellationToken,
) -> (AlarmCommitter, usize) {
    let mut backoff = backoff();
    let mut told = false;
    loop {
        let failure = match connection.checkpoint(&states, position).await {
            Ok(()) => return (connection, states.len()),
            Err(failure) => failure,
        };
        if !told {
            told = true;
            warn!(error = &failure as &dyn std::error::Error, "states cannot be saved: tried again");
        }
        tokio::select! {
            () = abandon.cancelled() => return (connection, 0),
            () = tokio::time::sleep(backoff.next().unwrap_or(PAUSE_MAX)) => {}
        }
    }
}

#[cfg(test)]
mod tests;
