//! Sessions without connection: kept for a while, bounded, and the last wills that wait with them.
//!
//! Everything is in memory: a restart of the server forgets it, and clients learn that from `session present`.
//! Full: the session that expires first is discarded and counted. [`Sessions`] is pure, the time is an argument;
//! [`keep`] is the task that looks after it. A session that ends gives up its will, which is published then.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crate::ack::{Window, lock};
use crate::connection::{Replaying, publish_will};
use crate::gate::Shared;
use crate::hub::{Subscriber, now_us};
use crate::metrics::{Metrics, ReasonLabel};
use crate::packet::Will;
use crate::session::Kept;

/// How often expiries and delays are looked at.
const TICK: Duration = Duration::from_millis(250);
/// At a stop, for the wills that still wait.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A session without connection.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) kept: Kept,
    /// Its place at the hub, where messages wait for it.
    pub(crate) subscriber: Option<Subscriber>,
    /// Retained messages it is still owed.
    pub(crate) replays: Vec<Replaying>,
    /// Windows of ended connections whose commits it waits for, with their epochs.
    pub(crate) windows: Vec<(u64, Arc<Window>)>,
    /// The connection that ended last.
    pub(crate) epoch: u64,
    pub(crate) expires_us: i64,
    /// The will of that connection and when it is due.
    pub(crate) will: Option<(DueWill, i64)>,
}

/// A will that is to be published now.
#[derive(Debug)]
pub(crate) struct DueWill {
    pub(crate) client_id: Arc<str>,
    pub(crate) epoch: u64,
    /// Of its connection, so that subscribers get it after what the client published before.
    pub(crate) window: Arc<Window>,
    pub(crate) will: Box<Will>,
}

#[derive(Debug)]
pub(crate) struct Sessions {
    by_client: HashMap<Arc<str>, Box<Stored>>,
    by_expiry: BTreeSet<(i64, Arc<str>)>,
    /// Those with a will, by when it is due.
    by_will: BTreeSet<(i64, Arc<str>)>,
    /// Those for which the hub collects.
    collecting: HashSet<Arc<str>>,
    len_max: usize,
    collecting_max: usize,
    metrics: Arc<Metrics>,
}

impl Sessions {
    pub(crate) fn new(len_max: usize, collecting_max: usize, metrics: Arc<Metrics>) -> Self {
        Self {
            by_client: HashMap::new(),
            by_expiry: BTreeSet::new(),
            by_will: BTreeSet::new(),
            collecting: HashSet::new(),
            len_max,
            collecting_max,
            metrics,
        }
    }

    /// Keeps a session; answers with the wills of those that had to go for it.
    pub(crate) fn put(&mut self, client_id: &Arc<str>, stored: Stored) -> Vec<DueWill> {
        let mut wills = Vec::new();
        wills.extend(self.discard(client_id, "replaced"));
        if stored.subscriber.is_some() {
            self.collecting.insert(Arc::clone(client_id));
        }
        self.by_expiry.insert((stored.expires_us, Arc::clone(client_id)));
        if let Some((_, due_us)) = &stored.will {
            self.by_will.insert((*due_us, Arc::clone(client_id)));
        }
        self.by_client.insert(Arc::clone(client_id), Box::new(stored));
        while self.by_client.len() > self.len_max {
            let Some((_, first)) = self.by_expiry.first().cloned() else { break };
            wills.extend(self.discard(&first, "evicted"));
        }
        while self.collecting.len() > self.collecting_max {
            let expires_us = |id: &&Arc<str>| self.by_client.get(*id).map(|stored| stored.expires_us);
            let Some(first) = self.collecting.iter().min_by_key(expires_us).cloned() else { break };
            wills.extend(self.discard(&first, "evicted"));
        }
        self.metrics.sessions.set(self.by_client.len() as i64);
        wills
    }

    /// Takes a session out, to be resumed or discarded by the caller.
    pub(crate) fn take(&mut self, client_id: &str) -> Option<Box<Stored>> {
        let (client_id, stored) = self.by_client.remove_entry(client_id)?;
        self.collecting.remove(&client_id);
        if let Some((_, due_us)) = &stored.will {
            self.by_will.remove(&(*due_us, Arc::clone(&client_id)));
        }
        self.by_expiry.remove(&(stored.expires_us, client_id));
        self.metrics.sessions.set(self.by_client.len() as i64);
        Some(stored)
    }

    /// The sessions that `concerned` picks expire at once.
    pub(crate) fn expire(&mut self, concerned: impl Fn(&str) -> bool) {
        let picked: Vec<_> = self.by_client.keys().filter(|id| concerned(id)).cloned().collect();
        for client_id in picked {
            let Some(stored) = self.by_client.get_mut(&client_id) else { continue };
            self.by_expiry.remove(&(stored.expires_us, Arc::clone(&client_id)));
            stored.expires_us = i64::MIN;
            self.by_expiry.insert((i64::MIN, client_id));
        }
    }

    /// Discards what has expired or can no longer be resumed; answers with the wills that are due.
    pub(crate) fn due(&mut self, now_us: i64) -> Vec<DueWill> {
        let mut wills = Vec::new();
        while let Some((expires_us, client_id)) = self.by_expiry.first().cloned()
            && expires_us <= now_us
        {
            wills.extend(self.discard(&client_id, "expired"));
        }
        while let Some((due_us, client_id)) = self.by_will.first().cloned()
            && due_us <= now_us
        {
            self.by_will.pop_first();
            let Some(stored) = self.by_client.get_mut(&client_id) else { continue };
            wills.extend(stored.will.take().map(|(will, _)| will));
        }
        let is_lost = |id: &&Arc<str>| {
            let subscriber = self.by_client.get(*id).and_then(|stored| stored.subscriber.as_ref());
            subscriber.is_some_and(Subscriber::is_lost)
        };
        let lost: Vec<_> = self.collecting.iter().filter(is_lost).cloned().collect();
        wills.extend(lost.iter().filter_map(|client_id| self.discard(client_id, "hub_lost")));
        wills
    }

    fn discard(&mut self, client_id: &Arc<str>, reason: &'static str) -> Option<DueWill> {
        let stored = self.take(client_id)?;
        self.metrics.sessions_discarded.get_or_create(&ReasonLabel { reason }).inc();
        stored.will.map(|(will, _)| will)
    }
}

/// Looks after the sessions until the gate stops.
pub(crate) async fn keep(gate: Arc<Shared>) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = gate.stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let wills = lock(&gate.sessions).due(now_us());
        publish_all(wills, &gate).await;
    }
}

/// Ends all sessions: with the server's memory they are over, so what waits of their wills is published.
pub(crate) async fn close(gate: &Arc<Shared>) {
    let wills = {
        let mut sessions = lock(&gate.sessions);
        sessions.expire(|_| true);
        sessions.due(now_us())
    };
    if tokio::time::timeout(CLOSE_TIMEOUT, publish_all(wills, gate)).await.is_err() {
        tracing::warn!("not every last will could be handed over before the end");
    }
}

pub(crate) async fn publish_all(wills: Vec<DueWill>, gate: &Arc<Shared>) {
    for will in wills {
        publish_will(will, gate).await;
    }
}

#[cfg(test)]
mod tests;
