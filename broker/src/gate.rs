//! The accept loop, and what all connections share.
//!
//! Owns the listeners and one task per connection, which it awaits at the end. Promises: at most
//! `connections_max` sockets; one connection per client id, the newest; after [`Gate::run`] returns, every
//! connection has ended and the inbound channel has no more senders.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::ack::{Budget, Window, lock};
use crate::auth::{Authenticate, ClientCertificate};
use crate::config::GateConfig;
use crate::downlink::{DeliverError, Delivery, Mailbox};
use crate::hub::{Hub, now_us};
use crate::inbound::{Inbound, Reason};
use crate::limits::Limiter;
use crate::listen::{self, BindError, BoundAddresses, Listeners};
use crate::metrics::Metrics;
use crate::refusals::Refusals;
use crate::sessions::{self, Sessions};
use crate::tls::{Look, Tls, TlsError};

/// After a failed accept (out of file descriptors, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often gauges are refreshed, and how finely resends are paced.
const TICK: Duration = Duration::from_millis(100);
/// After the drain deadline, for the last writes and presences.
const CLOSE_GRACE: Duration = Duration::from_secs(5);

/// How often the limits forget who is at rest.
const PRUNE: Duration = Duration::from_secs(10);
/// How often the files for TLS are looked at.
const TLS_LOOK: Duration = Duration::from_secs(2);

/// Bound MQTT listeners; [`Gate::run`] serves them.
#[derive(Debug)]
pub struct Gate {
    listeners: Listeners,
    addresses: BoundAddresses,
    shared: Arc<Shared>,
}

/// What the rest of the process tells the gate. Cheap to clone.
#[derive(Clone)]
pub struct GateControl {
    resend: Arc<Notify>,
    directory: Arc<Directory>,
    sessions: Arc<Mutex<Sessions>>,
    deliveries_max: usize,
    tls: Option<Arc<Tls>>,
}

impl std::fmt::Debug for GateControl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GateControl").finish_non_exhaustive()
    }
}

impl GateControl {
    /// The store can be written again: connections of which messages were dropped unacknowledged are closed,
    /// paced, so that their clients send again.
    pub fn store_returned(&self) {
        self.resend.notify_one();
    }

    /// Looks at the files for TLS at once instead of within two seconds. New connections use what they say;
    /// connections whose certificate they revoke are ended.
    pub fn reload_tls(&self) {
        if let Some(tls) = &self.tls {
            tls.look.notify_one();
        }
    }

    /// Ends the connection of `client_id`, if there is one. Its last will is published, its offline presence
    /// carries `reason`.
    pub fn end(&self, client_id: &str, reason: Reason) {
        if let Some(handle) = self.directory.get(client_id) {
            handle.end(reason);
        }
        if reason == Reason::Revoked {
            lock(&self.sessions).expire(|id| id == client_id);
        }
    }

    /// Ends every connection that `concerned` picks by client id and certificate; answers how many.
    pub fn end_where(
        &self,
        reason: Reason,
        concerned: impl Fn(&str, Option<&ClientCertificate>) -> bool,
    ) -> usize {
        if reason == Reason::Revoked {
            lock(&self.sessions).expire(|id| concerned(id, None));
        }
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
    pub(crate) sessions: Arc<Mutex<Sessions>>,
    pub(crate) stop: CancellationToken,
    pub(crate) resend: Arc<Notify>,
    pub(crate) tls: Option<Arc<Tls>>,
    pub(crate) refusals: Refusals,
    pub(crate) limits: Arc<Limiter>,
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

    /// Counts a refusal and logs it, unless there are too many of its kind.
    pub(crate) fn refused(&self, reason: &'static str, peer: SocketAddr, client_id: Option<&str>) {
        self.refusals.note(reason, peer, client_id, &self.metrics);
    }

    /// Puts a connection in the place of its client id and returns the one it replaces.
    pub(crate) fn enter(&self, client_id: &Arc<str>, handle: &Arc<Handle>) -> Option<Arc<Handle>> {
        let replaced = self.directory.enter(client_id, handle);
        // The list may have changed since the handshake, and those it concerns may have been ended already.
        if let (Some(tls), Some(certificate)) = (&self.tls, &handle.certificate)
            && tls.is_revoked(certificate)
        {
            handle.end(Reason::Revoked);
        }
        replaced
    }

    /// Keeps TLS as the files say until the gate stops.
    async fn watch_tls(&self, tls: Arc<Tls>) {
        let mut tick = tokio::time::interval(TLS_LOOK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tls.look.notified() => {}
                _ = tick.tick() => {}
            }
            let looking = Arc::clone(&tls);
            match tokio::task::spawn_blocking(move || looking.refresh()).await {
                Ok(Look::Unchanged) => {}
                Ok(Look::Replaced) => {
                    self.metrics.tls_reloaded.inc();
                    let revoked = self.directory.find(|_, certificate| {
                        certificate.is_some_and(|certificate| tls.is_revoked(certificate))
                    });
                    tracing::info!(ended = revoked.len(), "the files for TLS have changed and are used");
                    for handle in &revoked {
                        handle.end(Reason::Revoked);
                    }
                }
                Ok(Look::Unusable(error)) => {
                    self.metrics.tls_unusable.inc();
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "the files for TLS cannot be used; those before stay in force");
                }
                Err(error) => tracing::error!(%error, "reading the files for TLS failed"),
            }
        }
    }
}

impl Gate {
    /// Binds the listeners. Messages go to `inbound`, fan-out to `hub`; the channel's length is how far the
    /// consumer may be behind before reading from clients pauses.
    pub async fn bind(
        config: GateConfig,
        auth: Arc<dyn Authenticate>,
        inbound: mpsc::Sender<Inbound>,
        hub: Hub,
        metrics: Arc<Metrics>,
    ) -> Result<Self, BindError> {
        let listeners = Listeners::bind(&config).await?;
        let addresses = listeners.addresses();
        let tls = config.tls.clone().map(Tls::load).transpose()?.map(Arc::new);
        if tls.is_none() && config.websocket.as_ref().is_some_and(|websocket| websocket.tls) {
            return Err(TlsError::NoCertificate.into());
        }
        let limits = Limiter::new(config.limits.clone(), metrics.limits_uncounted.clone());
        let budget = Budget::new(config.budget_bytes);
        let sessions =
            Sessions::new(config.sessions_max, config.sessions_collecting_max, Arc::clone(&metrics));
        let shared = Arc::new(Shared {
            config,
            auth,
            inbound,
            hub,
            metrics,
            budget,
            directory: Arc::default(),
            sessions: Arc::new(Mutex::new(sessions)),
            stop: CancellationToken::new(),
            resend: Arc::new(Notify::new()),
            tls,
            refusals: Refusals::default(),
            limits,
            epoch_last: AtomicU64::new(0),
        });
        Ok(Self { listeners, addresses, shared })
    }

    /// Where it listens for plain TCP, if it does, with the port the system chose.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.addresses.tcp
    }

    /// Where it listens, with the ports the system chose.
    pub fn addresses(&self) -> BoundAddresses {
        self.addresses
    }

    /// The handle for the rest of the process.
    pub fn control(&self) -> GateControl {
        let Shared { config, resend, directory, sessions, tls, .. } = &*self.shared;
        GateControl {
            resend: Arc::clone(resend),
            directory: Arc::clone(directory),
            sessions: Arc::clone(sessions),
            deliveries_max: config.deliveries_max,
            tls: tls.clone(),
        }
    }

    /// Serves until `stop` is cancelled. Then accepts and reads no more, waits at most `drain_timeout` for
    /// outstanding acknowledgements to be resolved and written, and closes every connection.
    pub async fn run(self, stop: CancellationToken) {
        let Self { listeners, shared, .. } = self;
        let tasks = TaskTracker::new();
        let abandon = CancellationToken::new();
        let seats = Arc::new(Semaphore::new(shared.config.connections_max));
        let (keeper, abandoned) = (sessions::keep(Arc::clone(&shared)), abandon.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = keeper => {}
                () = abandoned.cancelled() => {}
            }
        });
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut prune = tokio::time::interval(PRUNE);
        prune.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut resends = Vec::new();
        if let Some(tls) = shared.tls.clone() {
            let shared = Arc::clone(&shared);
            tasks.spawn(async move { shared.watch_tls(tls).await });
        }
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                accepted = listeners.accept() => match accepted {
                    Ok((stream, peer, transport)) => {
                        shared.metrics.accepted.inc();
                        let Ok(seat) = Arc::clone(&seats).try_acquire_owned() else {
                            shared.refused("connections_max", peer, None);
                            shared.metrics.closed.inc();
                            continue;
                        };
                        let shared = Arc::clone(&shared);
                        let abandoned = abandon.clone();
                        tasks.spawn(async move {
                            let metrics = Arc::clone(&shared.metrics);
                            tokio::select! {
                                () = listen::serve(stream, peer, transport, shared) => {}
                                () = abandoned.cancelled() => {}
                            }
                            metrics.closed.inc();
                            drop(seat);
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                () = shared.resend.notified() => resends.extend(shared.directory.marked()),
                _ = prune.tick() => shared.limits.prune(tokio::time::Instant::now()),
                _ = tick.tick() => {
                    shared.metrics.budget_bytes.set(shared.budget.in_use() as i64);
                    shared.refusals.tick();
                    let share = resends.len().min(resends_per_tick(shared.config.resend_per_s));
                    for handle in resends.drain(..share) {
                        handle.end(Reason::Resend);
                    }
                }
            }
        }
        drop(listeners);
        shared.stop.cancel();
        tasks.close();
        if tokio::time::timeout(shared.config.drain_timeout + CLOSE_GRACE, tasks.wait()).await.is_err() {
            tracing::warn!(connections = tasks.len(), "connections did not end in time and are abandoned");
            abandon.cancel();
            tasks.wait().await;
        }
        sessions::close(&shared).await;
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
    /// When bytes came last, in microseconds since 1970; of an ended connection only.
    pub(crate) heard_us: AtomicI64,
    /// A message of it was dropped unacknowledged.
    pub(crate) marked: AtomicBool,
    /// It waits to be ended for that.
    pub(crate) is_resending: AtomicBool,
    /// Cancelled when its last message and its presence are handed over.
    pub(crate) ended: CancellationToken,
    end: OnceLock<Reason>,
    superseded: AtomicBool,
}

impl Handle {
    pub(crate) fn new(
        epoch: u64,
        window: Arc<Window>,
        certificate: Option<Arc<ClientCertificate>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            epoch,
            window,
            certificate,
            mailbox: Mailbox::default(),
            heard_us: AtomicI64::new(now_us()),
            marked: AtomicBool::new(false),
            is_resending: AtomicBool::new(false),
            ended: CancellationToken::new(),
            end: OnceLock::new(),
            superseded: AtomicBool::new(false),
        })
    }

    /// Asks the connection to end, from outside.
    pub(crate) fn end(&self, reason: Reason) {
        // The first reason counts.
        let _ = self.end.set(reason);
        self.window.bell.notify_one();
    }

    /// Its successor waits no longer: what it leaves behind comes too late.
    pub(crate) fn supersede(&self) {
        self.superseded.store(true, Ordering::Release);
    }

    pub(crate) fn is_superseded(&self) -> bool {
        self.superseded.load(Ordering::Acquire)
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
        // Swapped, so that each connection takes one place among those that wait to be ended.
        let is_new = |handle: &&Arc<Handle>| {
            handle.marked.swap(false, Ordering::AcqRel) && !handle.is_resending.swap(true, Ordering::AcqRel)
        };
        connected.values().filter(is_new).cloned().collect()
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
    fn a_connection_waits_once_to_be_ended_for_a_resend() {
        let directory = Directory::default();
        let (one, other) = (handle(1), handle(2));
        directory.enter(&"T1".into(), &one);
        directory.enter(&"T2".into(), &other);
        one.marked.store(true, Ordering::Release);
        assert_eq!(directory.marked().len(), 1);
        // While it waits more is dropped, and it looks every few seconds whether there is room.
        one.marked.store(true, Ordering::Release);
        assert_eq!(directory.marked().len(), 0);
        other.marked.store(true, Ordering::Release);
        assert_eq!(directory.marked().iter().map(|handle| handle.epoch).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn resends_are_paced() {
        assert_eq!(resends_per_tick(500), 50);
        assert_eq!(resends_per_tick(0), 1);
    }
}
