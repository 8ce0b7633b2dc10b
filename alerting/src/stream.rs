//! The alarm stream in memory: the latest numbered events, the provisional ones, and the S1 that nobody has
//! acknowledged, for any number of watchers.
//!
//! The store is the truth; this only saves every watcher from asking it. Fresh events come from the committer
//! of this process at once, those of other processes by a poll, and whatever is missing in between is read
//! from the store, so that the tail is always a gapless run of numbers that ends at its head.

mod follower;
mod tail;
mod unacknowledged;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::{AlarmEvent, AlarmId};
use store::{AlarmFilter, Database};
use tokio::sync::{Semaphore, broadcast, mpsc, watch};
use tokio::time::Instant;

use crate::Metrics;
use crate::config::{FRESH_QUEUE, PENDING_MAX, PROVISIONAL_QUEUE, SNAPSHOTS_AT_ONCE, StreamConfig};
pub(crate) use follower::Follower;
pub(crate) use tail::{Head, Tail, TailRead};
use unacknowledged::Unacknowledged;

/// The alarm stream. Clones are the same stream.
#[derive(Debug, Clone)]
pub struct Streams {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    database: Database,
    config: StreamConfig,
    metrics: Metrics,
    // Held for a few pushes or clones of `Arc`s, never across an await.
    tail: Mutex<Tail>,
    unacknowledged: Mutex<Unacknowledged>,
    pending: Mutex<Pending>,
    head: watch::Sender<Option<Head>>,
    provisional: broadcast::Sender<Arc<Provisional>>,
    fresh: mpsc::Sender<Vec<AlarmEvent>>,
    snapshots: Semaphore,
}

/// Provisional events that are not committed yet, in the order of their announcement.
#[derive(Debug, Default)]
struct Pending {
    next: u64,
    events: BTreeMap<u64, Arc<Provisional>>,
}

/// An event on its way to the database.
#[derive(Debug)]
pub(crate) struct Provisional {
    key: u64,
    since: Instant,
    pub(crate) event: AlarmEvent,
}

impl Provisional {
    /// Its place in the order of announcements.
    pub(crate) fn key(&self) -> u64 {
        self.key
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Streams {
    /// The stream, and the task that must run to fill it.
    pub(crate) fn new(database: Database, config: StreamConfig, metrics: Metrics) -> (Self, Follower) {
        let (fresh, received) = mpsc::channel(FRESH_QUEUE);
        let shared = Shared {
            database,
            config,
            metrics,
            tail: Mutex::default(),
            unacknowledged: Mutex::default(),
            pending: Mutex::default(),
            head: watch::Sender::new(None),
            provisional: broadcast::Sender::new(PROVISIONAL_QUEUE),
            fresh,
            snapshots: Semaphore::new(SNAPSHOTS_AT_ONCE),
        };
        let streams = Self { shared: Arc::new(shared) };
        (streams.clone(), Follower::new(streams, received))
    }

    pub(crate) fn database(&self) -> &Database {
        &self.shared.database
    }

    pub(crate) fn config(&self) -> &StreamConfig {
        &self.shared.config
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// Reading a snapshot needs a permit.
    pub(crate) fn snapshots(&self) -> &Semaphore {
        &self.shared.snapshots
    }

    /// Tells how far the stream has come; `None` until the store was read for the first time.
    pub(crate) fn heads(&self) -> watch::Receiver<Option<Head>> {
        self.shared.head.subscribe()
    }

    /// What follows number `no`.
    pub(crate) fn tail_after(&self, no: i64) -> TailRead {
        lock(&self.shared.tail).after(no)
    }

    /// Shows an event before its commit. [`Streams::committed`] ends it.
    pub(crate) fn announce(&self, event: AlarmEvent) -> u64 {
        let mut pending = lock(&self.shared.pending);
        let key = pending.next;
        pending.next += 1;
        let provisional = Arc::new(Provisional { key, since: Instant::now(), event });
        pending.events.insert(key, Arc::clone(&provisional));
        while pending.events.len() > PENDING_MAX {
            pending.events.pop_first();
        }
        drop(pending);
        self.shared.metrics.provisional.inc();
        // Nobody watching is no failure.
        let _ = self.shared.provisional.send(provisional);
        key
    }

    /// The announced events are on disk (or never will be), as the numbered `events`.
    pub(crate) fn committed(&self, announced: &[u64], events: Vec<AlarmEvent>) {
        if !events.is_empty() {
            // Full or closed: the follower reads them from the store.
            let _ = self.shared.fresh.try_send(events);
        }
        if !announced.is_empty() {
            let mut pending = lock(&self.shared.pending);
            for key in announced {
                pending.events.remove(key);
            }
        }
    }

    /// Something was written that was not announced here, such as an acknowledgement.
    pub(crate) fn hint(&self) {
        let _ = self.shared.fresh.try_send(Vec::new());
    }

    /// Provisional events from now on.
    pub(crate) fn provisional(&self) -> broadcast::Receiver<Arc<Provisional>> {
        self.shared.provisional.subscribe()
    }

    /// Whether this event is still provisional.
    pub(crate) fn is_pending(&self, provisional: &Provisional) -> bool {
        lock(&self.shared.pending).events.contains_key(&provisional.key)
    }

    /// Whether the alarm is known here though not on disk yet.
    pub(crate) fn is_alarm_pending(&self, id: AlarmId) -> bool {
        lock(&self.shared.pending).events.values().any(|provisional| provisional.event.alarm.id == id)
    }

    /// Provisional events that fit, oldest first.
    pub(crate) fn pending(&self, filter: &AlarmFilter) -> Vec<Arc<Provisional>> {
        let pending = lock(&self.shared.pending);
        let fits = |one: &&Arc<Provisional>| filter.covers(one.event.alarm.area, one.event.alarm.severity);
        pending.events.values().filter(fits).cloned().collect()
    }

    /// Unacknowledged S1 up to number `no` that fit and were last told at least `age` ago: those on disk,
    /// then the provisional.
    pub(crate) fn to_repeat(&self, filter: &AlarmFilter, no: i64, age: Duration) -> Vec<AlarmEvent> {
        let now = Instant::now();
        let mut events = lock(&self.shared.unacknowledged).to_repeat(filter, no, now, age);
        let provisional = self.pending(filter);
        let due = |one: &&Arc<Provisional>| {
            one.event.alarm.severity.is_life_safety() && now.saturating_duration_since(one.since) >= age
        };
        events.extend(provisional.iter().filter(due).map(|one| one.event.clone()));
        events
    }
}
