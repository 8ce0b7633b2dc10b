//! The services of one process: built, joined, supervised, drained in the order of the data.
//!
//! Every task has a name and is awaited here; one that ends early ends the process. On a stop the gate reads
//! no more and waits for the acknowledgements under way; then ingest drains, the rules save their state, and
//! last the edges that people look at close.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use alerting::engine::{Input, Thresholds, ThresholdsBook};
use alerting::{Alerting, Clock, Handle};
use anyhow::{Context, anyhow, bail};
use broker::{Authenticate, BindError, Gate, Hub, HubConfig};
use domain::Receipt;
use ingest::{Ingest, IngestConfig, IngestMetrics, IngestReceipt, Observed, Sink, StoreState, Wiring};
use prometheus_client::registry::Registry as MetricsRegistry;
use serde::Serialize;
use store::{Database, Ledger, LedgerMetrics, MaintenanceMetrics, Registry, Serving, StoreMetrics, Writer};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::auth::{self, AuthMetrics, Gatekeeper, TakeAtWord, Watch};
use crate::config::Config;
use crate::{database, downlink, profile, schema};

/// A stop that takes longer is ended by force, with exit code 1.
const STOP_WITHIN: Duration = Duration::from_secs(25);
/// Messages between the gate and ingest. Full: the gate pauses reading.
const INBOUND_QUEUE: usize = 8_192;

/// Terminals that used a new secret and are still to be told to the store. Full: told at their next connect.
const SETTLED_QUEUE: usize = 1_024;
/// Terminals that begin to listen for orders. Full: the next look at the store finds them.
const LISTENING_QUEUE: usize = 4_096;

/// Between two looks whether the database has moved.
const FOLLOW_EVERY: Duration = Duration::from_secs(2);
/// Between two rounds of maintenance of the store.
const MAINTAIN_EVERY: Duration = Duration::from_mins(1);

/// Where the services listen.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Addresses {
    /// MQTT.
    pub(crate) broker: Option<SocketAddr>,
    /// MQTT over TLS.
    pub(crate) broker_tls: Option<SocketAddr>,
    /// MQTT over WebSocket.
    pub(crate) broker_websocket: Option<SocketAddr>,
    /// gRPC.
    pub(crate) dispatch: Option<SocketAddr>,
    /// HTTP.
    pub(crate) web: Option<SocketAddr>,
}

/// Running totals, for the pages and the demo.
#[derive(Clone)]
pub(crate) struct Totals {
    broker: Arc<broker::Metrics>,
    ingest: Arc<IngestMetrics>,
    store: Arc<StoreMetrics>,
}

impl Totals {
    /// The totals now.
    pub(crate) fn figures(&self) -> web::Figures {
        web::Figures {
            terminals_connected: u64::try_from(self.broker.connected.get()).unwrap_or(0),
            readings_received: self.ingest.readings.get(),
            rows_committed: self.store.rows_stored.get(),
        }
    }
}

/// A running system.
pub(crate) struct App {
    addresses: Addresses,
    totals: Totals,
    /// Those the data runs through: they end one after the other when the first is stopped.
    data: Services,
    /// Those that people and programs look at: they end last.
    edges: Services,
    stops: Stops,
    /// The rules' input where no broker feeds it, so that they do not take it for a stop.
    unfed: Option<Handle<IngestReceipt>>,
    /// So that a second server on this database learns of this one.
    _serving: Option<Serving>,
}

type Services = JoinSet<(&'static str, anyhow::Result<()>)>;

/// One token for each stage of a stop.
#[derive(Debug, Clone, Default)]
struct Stops {
    /// The gate reads no more. Ingest and the rules follow by themselves, when their queues close.
    gate: CancellationToken,
    /// The rules stop waiting for a database that stays away.
    abandon: CancellationToken,
    /// The pages and the dispatch API close.
    edges: CancellationToken,
}

/// Joins ingest to the rules; without them (`services.alerting = false`) there is nobody to wait for.
struct Rules(Option<Handle<IngestReceipt>>);

impl Sink for Rules {
    async fn submit(&self, observed: Observed, receipt: IngestReceipt) {
        let Some(handle) = &self.0 else { return receipt.done() };
        let input = match observed {
            Observed::Message { elevator_id, terminal_id, area, arrival, message } => {
                Input::Message { elevator_id, terminal_id, area, arrival, message }
            }
            Observed::Presence { elevator_id, terminal_id, area, arrival, online } => {
                Input::Presence { elevator_id, terminal_id, area, arrival, online }
            }
            Observed::Muted { elevator_id, terminal_id, area, arrival } => {
                Input::Muted { elevator_id, terminal_id, area, arrival }
            }
        };
        // After a failure of alerting the process ends; until then the terminals are not acknowledged.
        let _ = handle.submit(input, receipt).await;
    }
}

/// Binds one listener, or says which one could not be.
async fn bind(key: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| taken(key, address, &error))
}

fn taken(key: &str, address: SocketAddr, error: &std::io::Error) -> anyhow::Error {
    let variable = key.to_uppercase().replace('.', "__");
    anyhow!(
        "{key} {address} cannot be listened on ({error}): stop what listens there, or set another address \
         ({key} in the file, or LIFTWATCH_{variable}; port 0 takes a free one)"
    )
}

/// Says so where another server takes messages into this database; not of one that was killed just now, whose
/// connections the database has yet to miss.
async fn alone(database: &Database) -> anyhow::Result<Option<Serving>> {
    for pause in [Duration::ZERO, Duration::from_millis(200), Duration::from_secs(1)] {
        tokio::time::sleep(pause).await;
        if let Some(serving) = database.serving().await? {
            return Ok(Some(serving));
        }
    }
    tracing::warn!(
        "another server takes messages into this database: each takes the other's terminals for gone when it starts, \
         and after a kill the ledger of one needs 'liftwatch audit --repair'"
    );
    Ok(None)
}

impl App {
    /// Builds and starts the services that `config` asks for.
    pub(crate) async fn start(config: &Config, database_url: &str, dev: bool) -> anyhow::Result<Self> {
        let profiles = Arc::new(profile::load(config)?);
        // Ports first: a mistake there shows at once.
        let web_listener = match config.services.web {
            true => Some(bind("web.listen", config.web.listen).await?),
            false => None,
        };
        let dispatch_listener = match config.services.alerting {
            true => Some(bind("dispatch.listen", config.dispatch.listen).await?),
            false => None,
        };
        let mut metrics = MetricsRegistry::with_prefix("liftwatch");
        let broker_metrics = broker::Metrics::register(metrics.sub_registry_with_prefix("broker"));
        let hub = Hub::start(HubConfig::default(), broker_metrics.clone());
        let (inbound_tx, inbound) = mpsc::channel(INBOUND_QUEUE);
        let (settled_tx, settled) = mpsc::channel(SETTLED_QUEUE);
        let keeper = match dev {
            true => None,
            false => Some(Arc::new(Gatekeeper::new(AuthMetrics::register(&mut metrics), settled_tx)?)),
        };
        let auth: Arc<dyn Authenticate> = match &keeper {
            Some(keeper) => keeper.clone(),
            None => Arc::new(TakeAtWord),
        };
        let gate = match config.services.broker {
            true => Some(
                Gate::bind(config.broker.gate(), auth, inbound_tx, hub.clone(), broker_metrics.clone())
                    .await
                    .map_err(|error| match error {
                        BindError::Address { address, source } => {
                            taken(config.listener_at(address), address, &source)
                        }
                        BindError::Tls(error) => error.into(),
                    })?,
            ),
            false => None,
        };
        let addresses = Addresses {
            broker: gate.as_ref().and_then(Gate::local_addr),
            broker_tls: gate.as_ref().and_then(|gate| gate.addresses().tls),
            broker_websocket: gate.as_ref().and_then(|gate| gate.addresses().websocket),
            dispatch: dispatch_listener.as_ref().map(TcpListener::local_addr).transpose()?,
            web: web_listener.as_ref().map(TcpListener::local_addr).transpose()?,
        };

        let (database, edition) = database::prepare(config, database_url).await?;
        tracing::info!(?edition, "the database is ready");
        let stops = Stops::default();
        let (mut data, mut edges) = (JoinSet::new(), JoinSet::new());
        let mut handle = None;
        if let Some(listener) = dispatch_listener {
            let services = (&mut data, &mut edges);
            handle = Some(start_alerting(config, &database, listener, &mut metrics, &stops, services).await?);
        }
        let totals = Totals {
            broker: broker_metrics,
            ingest: Arc::new(IngestMetrics::new(&mut metrics)),
            store: Arc::new(StoreMetrics::register(&mut metrics)),
        };
        let (store_up, store_is_up) = watch::channel(StoreState::Up);
        let mut serving = None;
        if let Some(gate) = gate {
            serving = alone(&database).await?;
            let registry = Arc::new(Registry::load(&database).await?);
            let control = gate.control();
            let arrival_start = database.run_begin(env!("CARGO_PKG_VERSION")).await?;
            let ledger_metrics = Arc::new(LedgerMetrics::register(&mut metrics));
            let mut ledger = Ledger::new(&database, arrival_start, ledger_metrics);
            let writers = (0..config.ingest.writers)
                .map(|_| Writer::new(&database, totals.store.clone()).with_ledger(ledger.notes()))
                .collect();
            let now = time::OffsetDateTime::now_utc().into();
            if let Some(keeper) = keeper {
                let (database, registry) = (database.clone(), registry.clone());
                let watch = Watch { database, registry, gate: control.clone(), keeper, settled };
                watch.prime().await.context("who may connect cannot be read")?;
                advise(config, &watch.registry);
                let stop = stops.edges.clone();
                edges.spawn(async move {
                    watch.run(stop).await;
                    ("access watch", Ok(()))
                });
            } else {
                let reread = auth::reread(database.clone(), registry.clone(), stops.edges.clone());
                edges.spawn(async move {
                    reread.await;
                    ("registry watch", Ok(()))
                });
            }
            let (listening, listens) = mpsc::channel(LISTENING_QUEUE);
            let downlinks = downlink::Reconciler::new(
                database.clone(),
                control.clone(),
                downlink::Metrics::register(&mut metrics),
            );
            let (stop, abandon) = (stops.edges.clone(), stops.abandon.clone());
            edges.spawn(async move {
                downlinks.run(listens, stop, abandon).await;
                ("downlink", Ok(()))
            });
            let wiring = Wiring {
                presence: database.presence_begin(arrival_start, now).await?,
                database: database.clone(),
                listening,
                inbound,
                registry,
                profiles,
                writers,
                sink: Rules(handle.take()),
                hub,
                arrival_start,
                store_up,
                metrics: totals.ingest.clone(),
                abandon: stops.abandon.clone(),
            };
            let ingest_config = IngestConfig {
                // More than the gate's budget lets in, at 256 bytes and more a message: the gate shall be the
                // one to slow terminals down. A queue takes memory only as it fills.
                queue_len: config.ingest.queue_len.max(config.broker.budget_bytes.as_usize() / 256 + 1),
                batch_rows_max: config.ingest.batch_rows_max,
                linger: Duration::from_millis(config.ingest.linger_ms),
                register_unknown: dev,
                offline_after: Duration::from_secs(config.ingest.offline_after_s),
            };
            data.spawn(
                async move { ("ingest", Ingest::run(ingest_config, wiring).await.map_err(Into::into)) },
            );
            // Ends when the writers of ingest have; a store that is given up is not waited for once more, as the
            // next start makes up what the ledger does not know.
            let given_up = stops.abandon.clone();
            data.spawn(async move {
                given_up.run_until_cancelled(ledger.run()).await;
                ("ledger", Ok(()))
            });
            let stop = stops.gate.clone();
            data.spawn(async move {
                gate.run(stop).await;
                ("broker", Ok(()))
            });
            let (mut changes, stop) = (store_is_up.clone(), stops.edges.clone());
            edges.spawn(async move {
                loop {
                    tokio::select! {
                        () = stop.cancelled() => break,
                        changed = changes.changed() => match changed {
                            Ok(()) if *changes.borrow_and_update() == StoreState::Up => control.store_returned(),
                            Ok(()) => {}
                            // Ingest has ended: there is nothing more to tell.
                            Err(_) => stop.cancelled().await,
                        },
                    }
                }
                ("store watch", Ok(()))
            });
        }
        let (followed, stop) = (database.clone(), stops.edges.clone());
        edges.spawn(async move {
            follow(&followed, stop).await;
            ("failover", Ok(()))
        });
        let (maintained, stop) = (database.clone(), stops.edges.clone());
        let maintenance_metrics = MaintenanceMetrics::register(&mut metrics);
        edges.spawn(async move {
            maintain(&maintained, &maintenance_metrics, stop).await;
            ("maintenance", Ok(()))
        });
        if let Some(listener) = web_listener {
            let probe = store_is_up;
            let check = web::Check::new("store", move || match &*probe.borrow() {
                StoreState::Up => Ok(()),
                StoreState::Away(why) => Err(format!("{why}; acknowledgements wait")),
            });
            let web_metrics = web::Metrics::new(&mut metrics);
            let figures = totals.clone();
            let state = web::State::new(web::Parts {
                database: database.clone(),
                registry: Arc::new(metrics),
                metrics: web_metrics,
                checks: vec![check],
                figures: Arc::new(move || figures.figures()),
                offline_after: Duration::from_secs(config.ingest.offline_after_s),
                documents: schema::documents(config, &addresses),
            });
            let stop = stops.edges.clone();
            edges.spawn(async move {
                web::serve(listener, state, stop).await;
                ("web", Ok(()))
            });
        }
        Ok(Self { addresses, totals, data, edges, stops, unfed: handle, _serving: serving })
    }

    /// Where the services listen.
    pub(crate) fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Running totals.
    pub(crate) fn totals(&self) -> Totals {
        self.totals.clone()
    }

    /// Serves until `cancel`, or until a service ends by itself; then drains.
    pub(crate) async fn run(mut self, cancel: CancellationToken) -> anyhow::Result<()> {
        let early = tokio::select! {
            () = cancel.cancelled() => None,
            Some(ended) = self.data.join_next() => Some(ended),
            Some(ended) = self.edges.join_next() => Some(ended),
        };
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        tracing::info!("stopping: acknowledgements under way are finished first");
        let drained = tokio::time::timeout(STOP_WITHIN, self.drain()).await;
        if let Some(ended) = early {
            let (name, outcome) = ended.context("a service panicked")?;
            outcome.with_context(|| format!("{name} failed"))?;
            bail!("{name} ended by itself");
        }
        match drained {
            Ok(outcome) => outcome?,
            Err(_) => {
                bail!("the stop took longer than {STOP_WITHIN:?}; what was not acknowledged comes again")
            }
        }
        tracing::info!("stopped");
        Ok(())
    }

    /// Gate, ingest, rules: each ends when what feeds it has. Then the edges.
    async fn drain(self) -> anyhow::Result<()> {
        let Self { data, edges, stops, unfed, .. } = self;
        stops.gate.cancel();
        drop(unfed);
        let abandon = stops.abandon.clone();
        let patience = tokio::spawn(async move {
            tokio::time::sleep(STOP_WITHIN / 2).await;
            abandon.cancel();
        });
        let data = all_ended(data).await;
        patience.abort();
        stops.edges.cancel();
        data.and(all_ended(edges).await)
    }
}

/// Waits for all of them; the first failure counts.
async fn all_ended(mut services: Services) -> anyhow::Result<()> {
    let mut outcome = Ok(());
    while let Some(ended) = services.join_next().await {
        let (name, result) = ended.context("a service panicked")?;
        tracing::debug!(service = name, "ended");
        outcome = outcome.and(result.with_context(|| format!("{name} failed")));
    }
    outcome
}

/// Finds the primary among the hosts of the URL when it moves.
async fn follow(database: &Database, stop: CancellationToken) {
    let mut tick = tokio::time::interval(FOLLOW_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        // A database that is away is said by those who need it.
        let _ = stop.run_until_cancelled(database.follow()).await;
    }
}

/// Rolls up, drops what is older than is kept; again every minute, by the database's clock. Idempotent, and one
/// process at a time.
async fn maintain(database: &Database, metrics: &MaintenanceMetrics, stop: CancellationToken) {
    let mut tick = tokio::time::interval(MAINTAIN_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut held = None;
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        let run = async { database.maintenance_run(database.clock().await?).await };
        match stop.run_until_cancelled(run).await {
            Some(Ok(report)) => {
                metrics.ran(&report);
                if let Some(until) = report.deleting_from.filter(|until| held != Some(*until)) {
                    tracing::warn!(
                        %until,
                        "the database's clock leapt ahead by more than a week: nothing is deleted until it has gone \
                         on for a day; if it is wrong, set it right"
                    );
                }
                held = report.deleting_from;
                for (step, error) in &report.failed {
                    tracing::warn!(
                        step = step.name(),
                        error = error as &dyn std::error::Error,
                        "a step of maintenance failed; it is tried again"
                    );
                }
            }
            Some(Err(error)) => {
                metrics.lost();
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "maintenance of the store failed; it is tried again"
                );
            }
            None => break,
        }
    }
}

/// What an operator should know of how terminals reach this server.
fn advise(config: &Config, registry: &Registry) {
    if let Some(listen) = config.broker.listen.filter(|listen| !listen.ip().to_canonical().is_loopback()) {
        tracing::warn!(
            %listen,
            "broker.listen is open to the network without TLS: secrets and readings pass in clear; prefer broker.tls_listen"
        );
    }
    if registry.is_empty() {
        tracing::warn!("no terminal is registered: add one with 'liftwatch terminal add ID --area 350102'");
    }
}

/// Starts the rules and the dispatch API; gives where inputs go.
async fn start_alerting(
    config: &Config,
    database: &Database,
    listener: TcpListener,
    metrics: &mut MetricsRegistry,
    stops: &Stops,
    (data, edges): (&mut Services, &mut Services),
) -> anyhow::Result<Handle<IngestReceipt>> {
    let settings = alerting::Config {
        checkpoint_every: Duration::from_millis(config.alerting.checkpoint_ms),
        thresholds: ThresholdsBook::new(
            config.alerting.thresholds_version,
            &Thresholds::default(),
            &config.alerting.thresholds,
        ),
        ..alerting::Config::default()
    };
    let (handle, mut running) =
        Alerting::start(settings, database.clone(), Clock::system(), metrics, stops.abandon.clone())
            .await
            .context("the rules do not start")?;
    let streams = running.streams();
    let stop = stops.gate.clone();
    data.spawn(async move {
        let outcome = tokio::select! {
            // First: after a stop its tasks may have ended before this one is polled.
            biased;
            // Drained when the last input has been given: ingest ends first and lets go of its handle.
            () = stop.cancelled() => running.drain().await.map_err(Into::into),
            ended = running.ended() => match ended {
                Ok(task) => Err(anyhow!("its task '{task}' ended by itself")),
                Err(error) => Err(error.into()),
            },
        };
        ("alerting", outcome)
    });
    let stop = stops.edges.clone();
    edges.spawn(async move {
        let served = alerting::service::serve(listener, streams, Clock::system(), stop).await;
        ("dispatch", served.map_err(Into::into))
    });
    Ok(handle)
}
