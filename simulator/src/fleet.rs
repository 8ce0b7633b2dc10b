//! A fleet: many terminals in one process, each with its own connection.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use domain::{Area, BootId, TerminalId, Timestamp};
use hdrhistogram::Histogram;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::fault::{Fault, Truth};
use crate::lift::Lift;
use crate::report::{Counters, FleetReport, Latency, Ledger, Tally, locked};
use crate::session::{Order, Shared, live};
use crate::terminal::{Policy, Terminal};

/// Orders waiting for one terminal; beyond it [`InjectError::Busy`].
const ORDERS_MAX: usize = 8;

/// What a fleet is like.
#[derive(Debug, Clone)]
pub struct FleetConfig {
    /// The broker.
    pub broker: SocketAddr,
    /// How many terminals.
    pub terminals: u32,
    /// Readings a second over the whole fleet; 0 is as fast as acknowledgements allow. Without it, terminals
    /// speak as real ones do: on change, each second while running, each minute at rest.
    pub rate: Option<f64>,
    /// Trips of each lift on an average day.
    pub trips_per_day: f64,
    /// How long [`crate::run`] produces.
    pub duration: Option<Duration>,
    /// The same seed gives the same lifts.
    pub seed: u64,
    /// Areas, given to the terminals in turn. At least one.
    pub areas: Vec<Area>,
    /// Publishes under way at most, for each connection.
    pub window: u16,
    /// Open JSON instead of protobuf.
    pub json: bool,
    /// Ids are `{prefix}-000001` and so on.
    pub prefix: String,
    /// Where each acknowledged message is written down: `terminal,boot,first_seq,last_seq,kind`.
    pub acked_file: Option<PathBuf>,
    /// Where the truth is written at the end, as JSON.
    pub truth_file: Option<PathBuf>,
    /// Whether [`FleetReport::acked`] is filled. It grows without bound: for tests.
    pub keep_ledger: bool,
    /// Connections begun a second.
    pub connect_per_s: u32,
    /// The boot of all terminals; without it the seconds since 1970, so that a rerun is a new boot.
    pub boot: Option<u32>,
}

impl Default for FleetConfig {
    fn default() -> Self {
        Self {
            broker: SocketAddr::from((Ipv4Addr::LOCALHOST, 1883)),
            terminals: 100,
            rate: None,
            trips_per_day: crate::lift::TRIPS_PER_DAY,
            duration: None,
            seed: 1,
            areas: Area::from_number(350_102).into_iter().collect(),
            window: 20,
            json: false,
            prefix: "sim".to_owned(),
            acked_file: None,
            truth_file: None,
            keep_ledger: false,
            connect_per_s: 500,
            boot: None,
        }
    }
}

/// A fault cannot be ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InjectError {
    /// No terminal has this number.
    #[error("the fleet has no such terminal")]
    NoSuchTerminal,
    /// Its orders are not taken as fast as they come.
    #[error("the terminal has too many orders waiting")]
    Busy,
}

/// A running fleet. Dropping it ends its terminals without a goodbye.
#[derive(Debug)]
pub struct Fleet {
    config: FleetConfig,
    ids: Vec<TerminalId>,
    orders: Vec<mpsc::Sender<Order>>,
    shared: Arc<Shared>,
    tasks: TaskTracker,
}

impl Fleet {
    /// Starts all terminals; they connect one after another, and again whenever the broker is away. Needs a
    /// tokio runtime.
    pub fn start(config: FleetConfig) -> anyhow::Result<Self> {
        anyhow::ensure!(!config.areas.is_empty(), "a fleet needs at least one area");
        anyhow::ensure!(config.window > 0, "a window of 0 says nothing");
        anyhow::ensure!(config.rate.is_none_or(|rate| rate >= 0.0), "a rate is not below 0");
        let file = match &config.acked_file {
            Some(path) => Some(BufWriter::new(
                File::create(path).with_context(|| format!("cannot create {}", path.display()))?,
            )),
            None => None,
        };
        let started_at = Timestamp::from(OffsetDateTime::now_utc());
        let shared = Arc::new(Shared {
            broker: config.broker,
            window: usize::from(config.window),
            on_demand: config.rate == Some(0.0),
            started: Instant::now(),
            started_at,
            tally: Tally::default(),
            puback_us: Mutex::new(Histogram::new_with_bounds(1, 3_600_000_000, 3)?),
            ledger: Mutex::new(Ledger { file, kept: config.keep_ledger.then(Vec::new), failed: None }),
            truth: Mutex::new(Vec::new()),
            draining: CancellationToken::new(),
            leaving: CancellationToken::new(),
        });
        let boot = config.boot.unwrap_or((started_at.millis() / 1000) as u32);
        let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
        let mut fleet =
            Self { ids: Vec::new(), orders: Vec::new(), shared, tasks: TaskTracker::new(), config };
        for index in 0..fleet.config.terminals {
            fleet.add(index, BootId(boot), &mut rng)?;
        }
        fleet.tasks.close();
        Ok(fleet)
    }

    fn add(&mut self, index: u32, boot: BootId, rng: &mut ChaCha8Rng) -> anyhow::Result<()> {
        let config = &self.config;
        let id = TerminalId::new(&format!("{}-{:06}", config.prefix, index + 1)).context("prefix")?;
        let area = config.areas[index as usize % config.areas.len()];
        let first_connect = Duration::from_secs(1) * index / config.connect_per_s.max(1);
        let at = self.shared.started_at;
        let mut lift = Lift::new(rng.random(), rng.random_range(6..34), at);
        lift.set_trips_per_day(config.trips_per_day);
        let policy = match config.rate {
            None => Policy::OnChange,
            Some(rate) if rate > 0.0 => {
                Policy::Every(Duration::from_secs_f64((f64::from(config.terminals) / rate).clamp(1e-4, 1e6)))
            }
            Some(_) => Policy::OnDemand,
        };
        let spread = match policy {
            Policy::Every(interval) => interval.mul_f64(rng.random()),
            _ => Duration::ZERO,
        };
        let terminal = Terminal::new(id.clone(), area, boot, lift, policy, at)
            .with_json(config.json)
            .with_first_reading(at.plus(first_connect + spread));
        let (sender, receiver) = mpsc::channel(ORDERS_MAX);
        self.ids.push(id);
        self.orders.push(sender);
        let shared = Arc::clone(&self.shared);
        self.tasks.spawn(live(terminal, receiver, shared, first_connect, rng.random()));
        Ok(())
    }

    /// What it has done so far.
    pub fn counters(&self) -> Counters {
        self.shared.tally.snapshot()
    }

    /// Makes something go wrong with the lift of terminal `index`, counted from 0. Whether and when it
    /// really begins is told by [`Fleet::truth`].
    pub fn inject(&self, index: usize, fault: Fault) -> Result<(), InjectError> {
        self.order(index, Order::Inject(fault))
    }

    /// Ends the fault of the lift of terminal `index`.
    pub fn release(&self, index: usize) -> Result<(), InjectError> {
        self.order(index, Order::Release)
    }

    fn order(&self, index: usize, order: Order) -> Result<(), InjectError> {
        let orders = self.orders.get(index).ok_or(InjectError::NoSuchTerminal)?;
        orders.try_send(order).map_err(|_| InjectError::Busy)
    }

    /// The id of terminal `index`, counted from 0.
    pub fn terminal_id(&self, index: usize) -> Option<&TerminalId> {
        self.ids.get(index)
    }

    /// What really happened so far.
    pub fn truth(&self) -> Vec<Truth> {
        locked(&self.shared.truth).clone()
    }

    /// Produces nothing more, waits at most `drain` until everything is acknowledged, says goodbye.
    pub async fn stop(self, drain: Duration) -> anyhow::Result<FleetReport> {
        let shared = Arc::clone(&self.shared);
        let produced = shared.started.elapsed();
        shared.draining.cancel();
        if tokio::time::timeout(drain, self.tasks.wait()).await.is_err() {
            shared.leaving.cancel();
            self.tasks.wait().await;
        }
        let counters = shared.tally.snapshot();
        let truth = self.truth();
        if let Some(path) = &self.config.truth_file {
            let write = || -> anyhow::Result<()> {
                let mut file = BufWriter::new(File::create(path)?);
                serde_json::to_writer_pretty(&mut file, &truth)?;
                Ok(file.flush()?)
            };
            write().with_context(|| format!("cannot write {}", path.display()))?;
        }
        let mut ledger = locked(&shared.ledger);
        ledger.flush().context("cannot write the file of acknowledged messages")?;
        let puback_ms = Latency::of(&locked(&shared.puback_us));
        Ok(FleetReport {
            terminals: self.config.terminals,
            counters,
            seconds: produced.as_secs_f64(),
            acked_per_second: FleetReport::rate(counters.readings_acked, shared.started.elapsed()),
            puback_ms,
            truth,
            acked: ledger.kept.take().unwrap_or_default(),
        })
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.shared.leaving.cancel();
    }
}
