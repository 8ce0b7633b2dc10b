//! Keeps what may connect fresh, and ends the connections of those who may no longer.
//!
//! Hears of changes by the store's listener and reads everything again; also every 30 s, in case a word was lost.
//! With the database away, what was read last stays in force.

use std::sync::Arc;
use std::time::Duration;

use broker::{GateControl, Reason};
use domain::TerminalId;
use store::{Database, Registry, StoreError};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Gatekeeper;

/// Between two readings without a word of a change.
const READ_EVERY: Duration = Duration::from_secs(30);
/// After a reading that failed, and before listening again.
const RETRY: Duration = Duration::from_secs(2);
/// Changes that come together are read together.
const GATHER: Duration = Duration::from_millis(50);
/// Changes of the registry with `--dev`, where each terminal's first message is one.
const GATHER_DEV: Duration = Duration::from_secs(2);
/// Terminals told of at once to the store.
const SETTLE_MAX: usize = 1_000;

/// The task that keeps authentication and registry fresh.
pub(crate) struct Watch {
    /// Where the truth lies.
    pub(crate) database: Database,
    /// What ingest knows of terminals.
    pub(crate) registry: Arc<Registry>,
    /// Whose connections may have to end.
    pub(crate) gate: GateControl,
    /// Whom to keep fresh.
    pub(crate) keeper: Arc<Gatekeeper>,
    /// Terminals that used their new secret.
    pub(crate) settled: mpsc::Receiver<(TerminalId, String)>,
}

impl Watch {
    /// Reads once; before that nobody is let in.
    pub(crate) async fn prime(&self) -> Result<(), StoreError> {
        self.keeper.install(self.database.access_snapshot().await?);
        Ok(())
    }

    /// Until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let changed = Notify::new();
        let database = self.database.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            () = hear(&database, &changed) => {}
            () = self.keep_fresh(&changed) => {}
        }
    }

    async fn keep_fresh(&mut self, changed: &Notify) {
        let mut due = Instant::now() + READ_EVERY;
        let mut used = Vec::new();
        loop {
            tokio::select! {
                () = changed.notified() => tokio::time::sleep(GATHER).await,
                () = tokio::time::sleep_until(due) => {}
                _ = self.settled.recv_many(&mut used, SETTLE_MAX) => {
                    // A failure is mended by the terminal's next connect.
                    if let Err(error) = self.database.in_time(self.database.terminal_settle(&used)).await {
                        tracing::debug!(%error, "secrets before a rotation stay good for now");
                    }
                    used.clear();
                    continue;
                }
            }
            due = Instant::now() + READ_EVERY;
            if let Err(error) = self.refresh().await {
                self.keeper.metrics().refreshed("failed");
                tracing::debug!(%error, "who may connect cannot be read now; what was read last holds");
                due = Instant::now() + RETRY;
            }
        }
    }

    async fn refresh(&self) -> Result<(), StoreError> {
        let snapshot = self.database.in_time(self.database.access_snapshot()).await?;
        self.database.in_time(self.registry.reload()).await?;
        let moved = self.keeper.install(snapshot);
        let review = self.keeper.review(moved, time::OffsetDateTime::now_utc().into());
        let ended = self.gate.end_where(Reason::Revoked, |id, certificate| review.lost(id, certificate));
        review.finish();
        if ended > 0 {
            self.keeper.metrics().ended.inc_by(ended as u64);
            tracing::info!(connections = ended, "ended: who may connect has changed");
        }
        Ok(())
    }
}

/// With `--dev` nobody is kept out; what may change is what is known of terminals, such as their profile.
/// Until `stop`.
pub(crate) async fn reread(database: Database, registry: Arc<Registry>, stop: CancellationToken) {
    let changed = Notify::new();
    let reload = async {
        loop {
            changed.notified().await;
            tokio::time::sleep(GATHER_DEV).await;
            if let Err(error) = database.in_time(registry.reload()).await {
                tracing::debug!(%error, "terminals cannot be read now; what was read last holds");
                changed.notify_one();
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = hear(&database, &changed) => {}
        () = reload => {}
    }
}

/// Passes on the word of changes, for ever.
async fn hear(database: &Database, changed: &Notify) {
    let mut silent = false;
    loop {
        match database.access_listen().await {
            Ok(mut listener) => {
                silent = false;
                loop {
                    // First: something may have changed before we listened.
                    changed.notify_one();
                    if let Err(error) = listener.changed().await {
                        tracing::debug!(%error, "the listener for changes was cut off");
                        break;
                    }
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut silent, true) {
                    tracing::warn!(%error, "changes of who may connect are found by regular reading only");
                }
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}
