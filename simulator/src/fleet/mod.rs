//! Thousands of terminals in one process, each over its own MQTT connection.
//!
//! Owns the tasks of the terminals and what they count. Promises: a terminal keeps what is unacknowledged
//! through any outage of the server, up to its outbox; nothing acknowledged is sent again. A task and about
//! 5 KB each; the only queue, a terminal's mailbox, is bounded and refuses when full.

mod config;
pub(crate) mod counters;
mod ledger;
mod member;
mod report;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use domain::{Area, IdError, TerminalId, Timestamp};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use config::{FleetConfig, ParseRateError, Rate};
pub use counters::{Counts, Percentiles};
pub use report::FleetReport;

use crate::clock::Clock;
use crate::fault::{Fault, Truth};
use crate::lift::{Lift, Spec};
use crate::mqtt::{ConnectError, LinkOptions, drive, resolve};
use crate::terminal::{Pace, Settings, Terminal};
use counters::{Counters, Latencies};
use ledger::Ledger;
use member::{Mailbox, Member, Order};

/// Connections from one local address; the system has about 28,000 ports for each.
const CONNECTIONS_PER_SOURCE: usize = 20_000;

/// Why a fleet does not start.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// The broker's name means nothing.
    #[error(transparent)]
    Target(#[from] ConnectError),
    /// The prefix makes no valid terminal id.
    #[error("the prefix makes no terminal id: {0}")]
    Prefix(#[from] IdError),
    /// Nowhere to live.
    #[error("a fleet needs at least one terminal and one area")]
    Empty,
    /// The ledger cannot be written.
    #[error("cannot write the ledger {path}: {source}")]
    Ledger {
        /// Where.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

/// What the terminals of a fleet share.
#[derive(Debug)]
struct Shared {
    settings: Arc<Settings>,
    counters: Counters,
    unacknowledged: AtomicU64,
    latencies: Latencies,
    ledger: Option<Ledger>,
    truths: Mutex<BTreeMap<(Timestamp, TerminalId), Truth>>,
    last_refusal: Mutex<Option<String>>,
    mailboxes: Vec<Arc<Mailbox>>,
    resting: AtomicBool,
}

impl Shared {
    fn tell(&self, truth: Truth) {
        if let Ok(mut truths) = self.truths.lock() {
            truths.insert((truth.begin, truth.terminal.clone()), truth);
        }
    }

    fn note_refusal(&self, error: &ConnectError) {
        if let Ok(mut last) = self.last_refusal.lock() {
            *last = Some(error.to_string());
        }
    }
}

/// A view of a running fleet; cheap to clone.
#[derive(Debug, Clone)]
pub struct FleetMonitor {
    shared: Arc<Shared>,
}

impl FleetMonitor {
    /// What was counted until now.
    pub fn counters(&self) -> Counts {
        self.shared.counters.snapshot()
    }

    /// Stages a fault at the terminal of this index. False: no such terminal, or too many orders wait.
    pub fn inject(&self, terminal: usize, fault: Fault) -> bool {
        self.order(terminal, Order::Inject(fault))
    }

    /// Ends the fault that is on at this terminal's lift.
    pub fn release(&self, terminal: usize) -> bool {
        self.order(terminal, Order::Release)
    }

    /// Restarts the software of this terminal: another boot.
    pub fn reboot(&self, terminal: usize) -> bool {
        self.order(terminal, Order::Reboot)
    }

    fn order(&self, terminal: usize, order: Order) -> bool {
        self.shared.mailboxes.get(terminal).is_some_and(|mailbox| mailbox.put(order))
    }

    /// What has really happened so far, oldest first.
    pub fn truths(&self) -> Vec<Truth> {
        self.shared.truths.lock().map(|truths| truths.values().cloned().collect()).unwrap_or_default()
    }

    /// Why the last connect failed, if one did.
    pub fn last_refusal(&self) -> Option<String> {
        self.shared.last_refusal.lock().ok().and_then(|last| last.clone())
    }
}

/// A running fleet. Dropping it leaves the fleet running; [`FleetHandle::stop`] ends it.
#[derive(Debug)]
#[must_use]
pub struct FleetHandle {
    monitor: FleetMonitor,
    tracker: TaskTracker,
    cancel: CancellationToken,
    begun: Instant,
    config: FleetConfig,
}

impl std::ops::Deref for FleetHandle {
    type Target = FleetMonitor;
    fn deref(&self) -> &FleetMonitor {
        &self.monitor
    }
}

/// Starts fleets.
#[derive(Debug)]
pub struct Fleet;

impl Fleet {
    /// Starts all terminals; returns at once, while they still connect. A server that is away is tried again.
    pub async fn start(config: FleetConfig) -> Result<FleetHandle, FleetError> {
        if config.terminals == 0 || config.areas.is_empty() {
            return Err(FleetError::Empty);
        }
        TerminalId::new(&terminal_name(&config.prefix, config.terminals - 1))?;
        let target = resolve(&config.target).await?;
        let ledger = match &config.acked_file {
            Some(path) => Some(
                Ledger::create(path)
                    .map_err(|source| FleetError::Ledger { path: path.display().to_string(), source })?,
            ),
            None => None,
        };
        let shared = Arc::new(Shared {
            settings: Arc::new(config.settings()),
            counters: Counters::default(),
            unacknowledged: AtomicU64::new(0),
            latencies: Latencies::new(),
            ledger,
            truths: Mutex::default(),
            last_refusal: Mutex::default(),
            mailboxes: (0..config.terminals).map(|_| Arc::default()).collect(),
            resting: AtomicBool::new(false),
        });
        let (tracker, cancel, clock) = (TaskTracker::new(), CancellationToken::new(), Clock::start());
        let begun = Instant::now();
        let start = clock.now();
        for index in 0..config.terminals {
            let recruit = Recruit::new(&config, index, target, start)?;
            tracker.spawn(recruit.serve(Arc::clone(&shared), clock, cancel.clone()));
        }
        tracker.close();
        Ok(FleetHandle { monitor: FleetMonitor { shared }, tracker, cancel, begun, config })
    }
}

impl FleetHandle {
    /// A view that can be given away.
    pub fn monitor(&self) -> FleetMonitor {
        self.monitor.clone()
    }

    /// Until the configured duration is over, or `cancel`; then as [`FleetHandle::stop`].
    pub async fn finish(self, cancel: &CancellationToken) -> FleetReport {
        if let Some(duration) = self.config.duration {
            tokio::select! {
                () = tokio::time::sleep_until(self.begun + duration) => {}
                () = cancel.cancelled() => {}
            }
        } else {
            cancel.cancelled().await;
        }
        self.stop().await
    }

    /// Makes no more readings, waits for the missing acknowledgements (at most the configured time),
    /// disconnects, and reports.
    pub async fn stop(self) -> FleetReport {
        let shared = &self.monitor.shared;
        let elapsed_s = self.begun.elapsed().as_secs_f64();
        shared.resting.store(true, Relaxed);
        for mailbox in &shared.mailboxes {
            mailbox.wake.notify_one();
        }
        if tokio::time::timeout(self.config.drain, self.tracker.wait()).await.is_err() {
            self.cancel.cancel();
            self.tracker.wait().await;
        }
        let ledger = shared.ledger.as_ref().map_or(Ok(()), Ledger::finish);
        if let Err(error) = &ledger {
            tracing::error!(%error, "the ledger of acknowledgements is incomplete");
        }
        let counts = shared.counters.snapshot();
        let (acknowledge, delivery) = shared.latencies.summarize();
        FleetReport {
            terminals: self.config.terminals,
            elapsed_s,
            counts,
            unacked: shared.unacknowledged.load(Relaxed),
            items_acked_per_s: counts.items_acked as f64 / elapsed_s.max(1e-9),
            acknowledge,
            delivery,
            ledger_complete: ledger.is_ok(),
            last_refusal: self.monitor.last_refusal(),
            truth: self.monitor.truths(),
        }
    }
}

/// The id of the terminal with this index.
pub fn terminal_name(prefix: &str, index: usize) -> String {
    format!("{prefix}{:06}", index + 1)
}

/// Everything a terminal will be, before its turn to connect.
struct Recruit {
    index: usize,
    id: TerminalId,
    area: Area,
    options: LinkOptions,
    start: Timestamp,
    begin: Timestamp,
    boot: u32,
    seed: u64,
    traffic: f64,
    skew_max: Duration,
    outage: Duration,
    planned: Vec<(Timestamp, Fault)>,
    rest_at: Option<Timestamp>,
}

impl Recruit {
    fn new(
        config: &FleetConfig,
        index: usize,
        target: SocketAddr,
        start: Timestamp,
    ) -> Result<Self, FleetError> {
        let id = TerminalId::new(&terminal_name(&config.prefix, index))?;
        let options = LinkOptions {
            source: source_address(config.terminals, index, target),
            password: config.secrets.get(id.as_str()).or(config.password.as_ref()).cloned(),
            keep_alive: config.keep_alive,
            backoff_max: config.backoff_max,
            ..LinkOptions::new(target, id.as_str())
        };
        let mine = config.faults.iter().filter(|fault| fault.terminal == index);
        let mut planned: Vec<_> = mine.map(|fault| (start.plus(fault.after), fault.fault)).collect();
        planned.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        let wait = index as f64 / config.connects_per_second.max(0.001);
        Ok(Self {
            index,
            id,
            area: config.areas[index % config.areas.len()],
            options,
            start,
            begin: start.plus(Duration::from_secs_f64(wait)),
            boot: config.boot.unwrap_or((start.micros() / 1_000_000) as u32),
            // Spread by the golden ratio: neighbouring seeds must not make neighbouring lifts alike.
            seed: config.seed ^ (index as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15),
            traffic: config.traffic,
            skew_max: config.skew_max,
            outage: config.outage,
            planned,
            rest_at: config.duration.map(|duration| start.plus(duration)),
        })
    }

    fn terminal(&self, settings: &Arc<Settings>) -> Terminal {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let mut spec = Spec::draw(&mut rng);
        spec.trips_per_day *= self.traffic;
        let lift = Lift::new(spec, self.seed, self.begin.max(self.start));
        let phase = match settings.pace {
            Pace::Every(interval) => interval.mul_f64(rng.random()),
            Pace::OnChange | Pace::Unlimited => settings.heartbeat.mul_f64(rng.random()),
        };
        let (settings, id) = (Arc::clone(settings), self.id.clone());
        let terminal = Terminal::new(settings, id, self.area, lift, self.boot, self.begin.plus(phase))
            .with_skew(self.skew_max.mul_f64(rng.random()));
        if self.outage.is_zero() {
            return terminal;
        }
        let past = Lift::new(spec, self.seed, self.start.minus(self.outage));
        terminal.with_outage(past, self.outage)
    }

    async fn serve(self, shared: Arc<Shared>, clock: Clock, cancel: CancellationToken) {
        let mailbox = Arc::clone(&shared.mailboxes[self.index]);
        loop {
            if shared.resting.load(Relaxed) {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep_until(clock.instant(self.begin)) => break,
                () = mailbox.wake.notified() => {}
                () = cancel.cancelled() => return,
            }
        }
        let terminal = self.terminal(&shared.settings);
        let mut member = Member::new(self.index, terminal, self.boot, self.planned, self.rest_at, shared);
        drive(&mut member, &self.options, clock, &mailbox.wake, &cancel).await;
        member.close();
    }
}

/// A large fleet towards this very machine spreads over the loopback network.
fn source_address(terminals: usize, index: usize, target: SocketAddr) -> Option<Ipv4Addr> {
    let local = matches!(target.ip(), IpAddr::V4(address) if address.is_loopback());
    if !local || terminals <= CONNECTIONS_PER_SOURCE {
        return None;
    }
    let number = u8::try_from(index / CONNECTIONS_PER_SOURCE).unwrap_or(200).min(200);
    Some(Ipv4Addr::new(127, 0, 0, number + 2))
}
