//! The listener, and what all connections share.
//!
//! Owns the accept loop and one task per connection, which it awaits at the end. Promises: at most
//! `connections_max` sockets; one connection per client id, the newest; after [`Gate::run`] returns, every
//! connection has ended and the inbound channel has no more senders.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::ack::{Budget, Window, lock};
use crate::auth::{Authenticate, ClientCertificate, Origin, Transport};
use crate::config::GateConfig;
use crate::connection;
use crate::downlink::{DeliverError, Delivery, Mailbox};
use crate::hub::Hub;
use crate::inbound::{Inbound, Reason};
use crate::metrics::{Metrics, ReasonLabel};

/// After a failed accept (out of file descriptors, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often gauges are refreshed, and how finely resends are paced.
const TICK: Duration = Duration::from_millis(100);
/// After the drain deadline, for the last writes and presences.
const CLOSE_GRACE: Duration = Duration::from_secs(5);

/// The address could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for MQTT on {address}")]
pub struct BindError {
    /// Address that was asked for.
    pub address: SocketAddr,
    /// What the system says.
    #[source]
    pub source: io::Error,
}

/// A bound MQTT listener; [`Gate::run`] serves it.
#[derive(Debug)]
pub struct Gate {
    listener: TcpListener,
    local_addr: SocketAddr,
    shared: Arc<Shared>,
}

/// What the rest of the process tells the gate. Cheap to clone.
#[derive(Clone, Debug)]
pub struct GateControl {
    resend: Arc<Notify>,
    directory: Arc<Directory>,
    deliveries_max: usize,
}

impl GateControl {
    /// The store can be written again: connections of which messages were dropped unacknowledged are closed,
    /// paced, so that their clients send again.
    pub fn store_returned(&self) {
        self.resend.notify_one();
    }

    /// Ends the connection of `client_id`, if there is one. Its last will is published, its offline presence
    /// carries `reason`.
    pub fn end(&self, client_id: &str, reason: Reason) {
        if let Some(handle) = self.directory.get(client_id) {
            handle.end(reason);
        }
    }

    /// Ends every connection that `concerned` picks by client id and certificate; answers how many.
    pub fn end_where(
        &self,
        reason: Reason,
        concerned: impl Fn(&str, Option<&ClientCertificate>) -> bool,
    ) -> usize {
        let handles = self.directory.find(concerned);
        for handle in &handles {
            handle.end(reason);
        }
        handles.len()
    }

    /// Puts a message for a connected terminal into its queue, from which it is sent with QoS 1 (QoS 0 if that
    /// is what it subscribed with). Does not wait; the receipt tells the end.
    pub fn deliver(&self, client_id: &str, delivery: Delivery) -> Result<(), DeliverError> {
        let handle = self.directory.get(client_id).ok_or(DeliverError::NotConnected)?;
        handle.mailbox.put(delivery, self.deliveries_max)?;
        handle.window.bell.notify_one();
        Ok(())
    }
}

pub(crate) struct Shared {
    pub(crate) config: GateConfig,
    pub(crate) auth: Arc<dyn Authenticate>,
    pub(crate) inbound: mpsc::Sender<Inbound>,
    pub(crate) hub: Hub,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) stop: CancellationToken,
    pub(crate) resend: Arc<Notify>,
    epoch_last: AtomicU64,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn next_epoch(&self) -> u64 {
        self.epoch_last.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn refused(&self, reason: &'static str) {
        self.metrics.refused.get_or_create(&ReasonLabel { reason }).inc();
    }
}

impl Gate {
    /// Binds the listener. Messages go to `inbound`, fan-out to `hub`; the channel's length is how far the
    /// consumer may be behind before reading from clients pauses.
    pub async fn bind(
        config: GateConfig,
        auth: Arc<dyn Authenticate>,
        inbound: mpsc::Sender<Inbound>,
        hub: Hub,
        metrics: Arc<Metrics>,
    ) -> Result<Self, BindError> {
        let address = config.listen;
        let fail = |source| BindError { address, source };
        let listener = TcpListener::bind(address).await.map_err(fail)?;
        let local_addr = listener.local_addr().map_err(fail)?;
        let budget = Budget::new(config.budget_bytes);
        let shared = Arc::new(Shared {
            config,
            auth,
            inbound,
            hub,
            metrics,
            budget,
            directory: Arc::default(),
            stop: CancellationToken::new(),
            resend: Arc::new(Notify::new()),
            epoch_last: AtomicU64::new(0),
        });
        Ok(Self { listener, local_addr, shared })
    }

    /// Where it listens, with the port the system chose.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The handle for the rest of the process.
    pub fn control(&self) -> GateControl {
        GateControl {
            resend: Arc::clone(&self.shared.resend),
            directory: Arc::clone(&self.shared.directory),
            deliveries_max: self.shared.config.deliveries_max,
        }
    }

    /// Serves until `stop` is cancelled. Then accepts and reads no more, waits at most `drain_timeout` for
    /// outstanding acknowledgements to be resolved and written, and closes every connection.
    pub async fn run(self, stop: CancellationToken) {
        let Self { listener, shared, .. } = self;
        let tasks = TaskTracker::new();
        let abandon = CancellationToken::new();
        let seats = Arc::new(Semaphore::new(shared.config.connections_max));
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut resends = Vec::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => {
                        shared.metrics.accepted.inc();
                        let Ok(seat) = Arc::clone(&seats).try_acquire_owned() else {
                            shared.refused("connections_max");
                            shared.metrics.closed.inc();
                            continue;
                        };
                        // Acks are small and waited for; a socket without it works too.
                        let _ = stream.set_nodelay(true);
                        let origin = Origin { peer, transport: Transport::Tcp, certificate: None };
                        let shared = Arc::clone(&shared);
                        let abandoned = abandon.clone();
                        tasks.spawn(async move {
                            tokio::select! {
                                () = connection::serve(stream, origin, &shared) => {}
                                () = abandoned.cancelled() => {}
                            }
                            shared.metrics.closed.inc();
                            drop(seat);
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                () = shared.resend.notified() => resends.extend(shared.directory.marked()),
                _ = tick.tick() => {
                    shared.metrics.budget_bytes.set(shared.budget.in_use() as i64);
                    let share = resends.len().min(resends_per_tick(shared.config.resend_per_s));
                    for handle in resends.drain(..share) {
                        handle.end(Reason::Resend);
                    }
                }
            }
        }
        drop(listener);
        shared.stop.cancel();
        tasks.close();
        if tokio::time::timeout(shared.config.drain_timeout + CLOSE_GRACE, tasks.wait()).await.is_err() {
            tracing::warn!(connections = tasks.len(), "connections did not end in time and are abandoned");
            abandon.cancel();
            tasks.wait().await;
        }
        shared.metrics.budget_bytes.set(shared.budget.in_use() as i64);
    }
}

fn resends_per_tick(per_s: u32) -> usize {
    (per_s as usize * TICK.as_millis() as usize / 1_000).max(1)
}

/// The gate's side of a connection: how others reach it.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) epoch: u64,
    pub(crate) window: Arc<Window>,
    pub(crate) certificate: Option<Arc<ClientCertificate>>,
    /// Deliveries for it.
    pub(crate) mailbox: Mailbox,
    /// A message of it was dropped unacknowledged.
    pub(crate) marked: AtomicBool,
    /// Cancelled when its last message and its presence are handed over.
    pub(crate) ended: CancellationToken,
    end: OnceLock<Reason>,
}

impl Handle {
    pub(crate) fn new(
        epoch: u64,
        window: Arc<Window>,
        certificate: Option<Arc<ClientCertificate>>,
    ) -> Arc<Self> {
        let (marked, ended, end) = (AtomicBool::new(false), CancellationToken::new(), OnceLock::new());
        Arc::new(Self { epoch, window, certificate, mailbox: Mailbox::default(), marked, ended, end })
    }

    /// Asks the connection to end, from outside.
    pub(crate) fn end(&self, reason: Reason) {
        // The first reason counts.
        let _ = self.end.set(reason);
        self.window.bell.notify_one();
    }

    /// Why it is to end, if it is.
    pub(crate) fn asked_to_end(&self) -> Option<Reason> {
        self.end.get().copied()
    }
}

/// Who is connected: one connection per client id.
#[derive(Debug, Default)]
pub(crate) struct Directory(Mutex<HashMap<Arc<str>, Arc<Handle>>>);

impl Directory {
    /// Puts a connection in the place of its client id and returns the one it replaces.
    pub(crate) fn enter(&self, client_id: &Arc<str>, handle: &Arc<Handle>) -> Option<Arc<Handle>> {
        lock(&self.0).insert(Arc::clone(client_id), Arc::clone(handle))
    }

    /// Removes a connection, unless another has taken its place.
    pub(crate) fn leave(&self, client_id: &str, epoch: u64) {
        let mut connected = lock(&self.0);
        if connected.get(client_id).is_some_and(|handle| handle.epoch == epoch) {
            connected.remove(client_id);
        }
    }

    fn get(&self, client_id: &str) -> Option<Arc<Handle>> {
        lock(&self.0).get(client_id).cloned()
    }

    fn find(&self, concerned: impl Fn(&str, Option<&ClientCertificate>) -> bool) -> Vec<Arc<Handle>> {
        let connected = lock(&self.0);
        let found = connected.iter().filter(|(id, handle)| concerned(id, handle.certificate.as_deref()));
        found.map(|(_, handle)| Arc::clone(handle)).collect()
    }

    fn marked(&self) -> Vec<Arc<Handle>> {
        let connected = lock(&self.0);
        // Swapped, so that one hint asks each connection once.
        connected.values().filter(|handle| handle.marked.swap(false, Ordering::AcqRel)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HubConfig;

    fn handle(epoch: u64) -> Arc<Handle> {
        let hub = Hub::idle(HubConfig::default(), Arc::new(Metrics::default()));
        Handle::new(epoch, Window::new(Budget::new(1 << 20), hub), None)
    }

    #[test]
    fn the_newest_connection_keeps_the_place() {
        let directory = Directory::default();
        let id: Arc<str> = "T1".into();
        assert!(directory.enter(&id, &handle(1)).is_none());
        assert_eq!(directory.enter(&id, &handle(2)).map(|old| old.epoch), Some(1));
        directory.leave("T1", 1);
        assert_eq!(directory.enter(&id, &handle(3)).map(|old| old.epoch), Some(2));
        directory.leave("T1", 3);
        assert!(directory.enter(&id, &handle(4)).is_none());
    }

    #[test]
    fn the_first_reason_to_end_counts() {
        let handle = handle(1);
        assert_eq!(handle.asked_to_end(), None);
        handle.end(Reason::TakenOver);
        handle.end(Reason::Resend);
        assert_eq!(handle.asked_to_end(), Some(Reason::TakenOver));
    }

    #[test]
    fn resends_are_paced() {
        assert_eq!(resends_per_tick(500), 50);
        assert_eq!(resends_per_tick(0), 1);
    }
}
