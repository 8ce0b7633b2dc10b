//! The way of a message: decoded, given its place in the order of arrivals, shown to the rules, written.
//!
//! One task orders and decodes; each writer is a task of its own with its own connection. Queues and their
//! answer to "full?":
//! - inbound (broker to here): bounded by the broker, which pauses the sockets.
//! - writer queues: [`IngestConfig::queue_len`], which must be more than the broker's byte budget lets in, so
//!   that it is the broker who slows terminals down. Full all the same: the message is *shed*, shown to the
//!   rules but neither stored nor acknowledged, and counted; the broker closes the connection, and the
//!   terminal sends it again.
//! - messages of terminals that are being registered: the same bound, the same answer.
//!
//! What a message becomes when it is decoded is larger than what came over the wire, up to fifty times for a
//! hostile one. It is charged to the broker's byte budget; where that is overdrawn, the message is shed too, and not
//! even shown to the rules when as many such messages wait for them as there is room for ([`Spare`]).

use std::collections::HashMap;
use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use broker::{Ack, Inbound, PresenceChange, Publish, Reason};
use domain::{Area, Arrival, ArrivalNo, ElevatorId, Message, TerminalId, Timestamp, limits};
use store::{
    Database, Incoming, Item, PresenceRecord, QuarantineEntry, QuarantineReason, Registry, TerminalRecord,
    Writer,
};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::presence::{self, Change, Presences};
use crate::profile::{Profiles, Resolver};
use crate::receipt::{IngestReceipt, Spare};
use crate::shard::{Queue, Shard, Work};
use crate::store_state::{StoreState, StoreView};
use crate::unknown::Unknowns;
use crate::{IngestMetrics, ProfileView, Topic, Undecodable, decode, numbers};

/// Bounds of ingest.
#[derive(Debug, Clone)]
pub struct IngestConfig {
    /// Messages that wait for one writer, at most.
    pub queue_len: usize,
    /// Rows written in one transaction, at most; one message more than that is written alone.
    pub batch_rows_max: usize,
    /// From the beginning of a commit of a few rows to that of the next, at least; nothing but readings waits for
    /// it.
    pub linger: Duration,
    /// Whether unknown terminals register themselves (`--dev`).
    pub register_unknown: bool,
    /// A terminal without a sign of life for so long is shown as offline.
    pub offline_after: Duration,
}

impl Default for IngestConfig {
    fn default() -> Self {
        Self {
            queue_len: 1_000_000,
            batch_rows_max: 5_000,
            linger: Duration::from_millis(5),
            register_unknown: false,
            offline_after: limits::OFFLINE_AFTER,
        }
    }
}

/// What the rules are shown, in the order of arrivals.
#[derive(Debug)]
pub enum Observed {
    /// A decoded message.
    Message {
        /// The elevator the terminal serves.
        elevator_id: ElevatorId,
        /// The terminal.
        terminal_id: TerminalId,
        /// Division of the elevator.
        area: Area,
        /// When and as which message.
        arrival: Arrival,
        /// What it says.
        message: Arc<Message>,
    },
    /// A terminal came or went.
    Presence {
        /// The elevator the terminal serves.
        elevator_id: ElevatorId,
        /// The terminal.
        terminal_id: TerminalId,
        /// Division of the elevator.
        area: Area,
        /// When and as which message.
        arrival: Arrival,
        /// Came, or went.
        online: bool,
    },
    /// What a terminal says does not reach the rules from here on, until its next message or connection.
    Muted {
        /// The elevator the terminal serves.
        elevator_id: ElevatorId,
        /// The terminal.
        terminal_id: TerminalId,
        /// Division of the elevator.
        area: Area,
        /// When and as which message.
        arrival: Arrival,
    },
}

/// The consumer that judges what is observed. It may make ingest wait; it must keep the order.
pub trait Sink: Send + 'static {
    /// Takes an observation; says `done` on the receipt when all that it caused is committed.
    fn submit(&self, observed: Observed, receipt: IngestReceipt) -> impl Future<Output = ()> + Send;
}

/// What ingest is connected to.
pub struct Wiring<S> {
    /// From the broker, in the order of arrival.
    pub inbound: mpsc::Receiver<Inbound>,
    /// Which terminal serves which elevator.
    pub registry: Arc<Registry>,
    /// What their terminals speak.
    pub profiles: Arc<Profiles>,
    /// One connection each; elevators are hashed to them.
    pub writers: Vec<Writer>,
    /// The rules.
    pub sink: S,
    /// Retained presence goes out here.
    pub hub: broker::Hub,
    /// Presence is kept here.
    pub database: Database,
    /// What [`Database::presence_begin`] said.
    pub presence: Vec<PresenceRecord>,
    /// Told which terminals can be reached with orders. Full: a hint is lost, and whoever sends them finds the
    /// terminal by itself.
    pub listening: mpsc::Sender<TerminalId>,
    /// The number before the first message of this run.
    pub arrival_start: ArrivalNo,
    /// Tells the broker and the pages whether the store takes rows, those of every writer.
    pub store_up: watch::Sender<StoreState>,
    /// Where to count.
    pub metrics: Arc<IngestMetrics>,
    /// Gives up on a store that stays away: what waits for it is not acknowledged and comes again.
    pub abandon: CancellationToken,
}

/// A part of ingest ended before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a writer or the registration of terminals ended by itself")]
pub struct IngestError;

/// The running service.
pub struct Ingest;

impl Ingest {
    /// Runs until the broker has closed its end and every queue is drained, or until a part of it fails.
    pub async fn run<S: Sink>(config: IngestConfig, wiring: Wiring<S>) -> Result<(), IngestError> {
        let Wiring { mut inbound, registry, profiles, writers, sink, hub, .. } = wiring;
        let Wiring { database, presence, listening, arrival_start, store_up, metrics, abandon, .. } = wiring;
        let views = StoreView::of(store_up, writers.len());
        let mut tasks = JoinSet::new();
        let mut queues = Vec::with_capacity(writers.len());
        for (writer, store) in writers.into_iter().zip(views) {
            let (sender, queue) = Queue::new(config.queue_len);
            queues.push(sender);
            let shard = Shard {
                writer,
                rows_max: config.batch_rows_max,
                linger: config.linger,
                store,
                metrics: metrics.clone(),
                abandon: abandon.clone(),
                is_refused: false,
            };
            tasks.spawn(shard.run(queue));
        }
        let (unregistered, registrations) = mpsc::channel(1);
        let (registered_tx, mut registered) = mpsc::channel(1);
        tasks.spawn(register(registry.clone(), registrations, registered_tx));

        // Full: what changes meanwhile waits in the shell, the latest of each terminal only.
        let (presence_tx, presence_rx) = mpsc::channel(1);
        tasks.spawn(presence::save(database, presence_rx, metrics.clone(), abandon.clone()));

        let mut shell = Shell {
            presence: Presences::new(config.offline_after, presence),
            presence_tx,
            listening,
            profiles: Resolver::new(profiles),
            unknowns: Unknowns::default(),
            config,
            registry,
            queues,
            sink,
            hub,
            arrival: arrival_start,
            metrics,
            waiting: HashMap::new(),
            spare: Spare::default(),
        };
        shell.present_all(now());
        let mut tick = tokio::time::interval(PRESENCE_TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut buffer = Vec::with_capacity(512);
        let mut registering = false;
        loop {
            tokio::select! {
                biased;
                Some(ended) = tasks.join_next() => {
                    // Writers end before their queue only when they are told to abandon it.
                    if !abandon.is_cancelled() {
                        tracing::error!(outcome = ?ended, "a task of ingest ended by itself");
                        return Err(IngestError);
                    }
                }
                Some(terminals) = registered.recv() => {
                    registering = false;
                    shell.release(terminals).await;
                }
                _ = tick.tick() => shell.expire(now()).await,
                count = inbound.recv_many(&mut buffer, 512) => {
                    if count == 0 {
                        break;
                    }
                    for message in buffer.drain(..) {
                        shell.take(message).await;
                    }
                }
            }
            if !registering && !shell.waiting.is_empty() {
                registering = unregistered.try_send(shell.unregistered()).is_ok();
            }
        }
        // The last messages of terminals that were new when the broker stopped.
        while registering || !shell.waiting.is_empty() {
            if !registering && unregistered.try_send(shell.unregistered()).is_err() {
                break;
            }
            let Some(terminals) = registered.recv().await else { break };
            shell.release(terminals).await;
            registering = false;
        }
        drop(unregistered);
        shell.save_all(&abandon).await;
        drop(shell);
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(error = %error, "a task of ingest failed");
                return Err(IngestError);
            }
        }
        Ok(())
    }
}

/// How often presence is looked at: who has become offline, and what is to be stored.
const PRESENCE_TICK: Duration = Duration::from_secs(1);

fn now() -> Timestamp {
    time::OffsetDateTime::now_utc().into()
}

/// Messages of one terminal that wait for its registration. Full: the next is shed.
const WAITING_MAX: usize = 5_000;

/// Messages of one terminal that waits to be registered.
struct Waiting {
    area: Area,
    messages: Vec<Inbound>,
}

struct Shell<S> {
    config: IngestConfig,
    registry: Arc<Registry>,
    profiles: Resolver,
    unknowns: Unknowns,
    queues: Vec<Queue>,
    sink: S,
    hub: broker::Hub,
    arrival: ArrivalNo,
    metrics: Arc<IngestMetrics>,
    waiting: HashMap<TerminalId, Waiting>,
    presence: Presences,
    presence_tx: mpsc::Sender<Vec<PresenceRecord>>,
    listening: mpsc::Sender<TerminalId>,
    spare: Spare,
}

impl<S: Sink> Shell<S> {
    async fn take(&mut self, inbound: Inbound) {
        match inbound {
            Inbound::Publish(publish) => self.publish(publish).await,
            Inbound::Presence(change) => self.presence(change).await,
            Inbound::Listening { client_id } => {
                if let Ok(terminal_id) = TerminalId::new(&client_id) {
                    // Full: found by the next round of whoever sends.
                    let _ = self.listening.try_send(terminal_id);
                }
            }
            Inbound::Muted { client_id, at_us } => {
                // Of one that is not registered yet the rules know nothing.
                if let Some((terminal_id, record)) = self.registry.lookup_id(&client_id) {
                    self.mute(terminal_id, &record, at_us).await;
                }
            }
        }
    }

    fn arrived(&mut self, at_us: i64) -> Arrival {
        self.arrival = self.arrival.next();
        Arrival { no: self.arrival, at: Timestamp::from_micros(at_us) }
    }

    async fn publish(&mut self, publish: Publish) {
        if !self.waiting.is_empty()
            && let Some(waiting) = self.waiting.get_mut(&*publish.client_id)
        {
            return hold(waiting, Inbound::Publish(publish), &self.metrics);
        }
        let Some((terminal_id, record)) = self.registry.lookup_id(&publish.client_id) else {
            let Ok(terminal_id) = TerminalId::new(&publish.client_id) else {
                return self.quarantine(publish, &unknown("the client id is no terminal id"));
            };
            let area = publish.topic.parse::<Topic>().map(|topic| topic.area);
            let (true, Ok(area)) = (self.config.register_unknown, area) else {
                return self.quarantine(publish, &unknown("not in the registry"));
            };
            let messages = vec![Inbound::Publish(publish)];
            self.waiting.insert(terminal_id, Waiting { area, messages });
            return;
        };
        if !record.enabled {
            return self.quarantine(publish, &unknown("switched off in the registry"));
        }
        let (profile, is_known) = self.profiles.resolve(&record.profile);
        if !is_known {
            self.unknowns.profile(&record.profile, &self.metrics);
        }
        let view = ProfileView { profile, kind: record.device_kind };
        let decoded = match decode(&publish.topic, &publish.payload, view) {
            Ok(decoded) => decoded,
            Err(error) => return self.quarantine(publish, &error),
        };
        if decoded.topic.area != record.area {
            self.metrics.wrong_area.inc();
        }
        self.unknowns.count(&decoded, profile, &terminal_id, &self.metrics);
        self.metrics.decoded(&decoded.message);
        // A number of its own, before that of its neighbours: what has a number is committed as a whole.
        let refused = decoded.refusal().map(|refusal| {
            let entry = self.entry(&publish, &refusal);
            entry.numbered(&terminal_id, decoded.message.boot(), numbers::refused(&decoded))
        });
        let arrival = self.arrived(publish.arrived_us);
        let message = Arc::new(decoded.message);
        let bytes = message.memory();
        let fits = publish.ack.grow(bytes);
        let mut receipt = IngestReceipt::from(publish.ack.clone());
        if !fits {
            self.metrics.shed.inc();
            receipt.spare = self.spare.take(bytes);
            if receipt.spare.is_none() {
                self.metrics.shed_unseen.inc();
                return self.mute(terminal_id, &record, publish.arrived_us).await;
            }
        }
        let observed = Observed::Message {
            elevator_id: record.elevator_id,
            terminal_id: terminal_id.clone(),
            area: record.area,
            arrival,
            message: message.clone(),
        };
        self.sink.submit(observed, receipt).await;
        if !fits {
            return;
        }
        if let Some(entry) = refused {
            self.queue(record.elevator_id, Item::Quarantine(Box::new(entry)), publish.ack.clone());
        }
        let incoming = Incoming { elevator_id: record.elevator_id, terminal_id, arrival, message };
        self.queue(record.elevator_id, Item::Message(incoming), publish.ack);
    }

    async fn mute(&mut self, terminal_id: TerminalId, record: &TerminalRecord, at_us: i64) {
        let (elevator_id, area, arrival) = (record.elevator_id, record.area, self.arrived(at_us));
        self.metrics.muted.inc();
        let observed = Observed::Muted { elevator_id, terminal_id, area, arrival };
        self.sink.submit(observed, IngestReceipt::none()).await;
    }

    /// For quarantine, as it arrived.
    fn entry(&mut self, publish: &Publish, why: &Undecodable) -> QuarantineEntry {
        let Undecodable { reason, detail } = why;
        self.metrics.undecodable(reason.slug());
        let arrival = self.arrived(publish.arrived_us);
        let Publish { client_id, topic, payload, .. } = publish;
        let entry = QuarantineEntry::new(arrival.at, client_id, topic, *reason, &**detail, payload);
        entry.arrived_as(arrival.no)
    }

    fn quarantine(&mut self, publish: Publish, why: &Undecodable) {
        let entry = self.entry(&publish, why);
        let record = self.registry.lookup(&publish.client_id);
        let view = match &record {
            Some(record) => {
                ProfileView { profile: self.profiles.resolve(&record.profile).0, kind: record.device_kind }
            }
            None => ProfileView::canonical(),
        };
        let entry = numbers::known(entry, &publish.topic, &publish.payload, view);
        let mut hash = DefaultHasher::new();
        publish.client_id.hash(&mut hash);
        let shard = ElevatorId((hash.finish() >> 1).cast_signed());
        self.queue(shard, Item::Quarantine(Box::new(entry)), publish.ack);
    }

    fn queue(&self, elevator_id: ElevatorId, item: Item, ack: Ack) {
        let shard = elevator_id.0.rem_euclid(self.queues.len() as i64) as usize;
        let work = Work { item, receipt: ack.into() };
        if !self.queues[shard].put(work) {
            self.metrics.shed.inc();
        }
    }

    async fn presence(&mut self, change: PresenceChange) {
        let Ok(terminal_id) = TerminalId::new(&change.client_id) else { return };
        if let Some(waiting) = self.waiting.get_mut(&terminal_id) {
            return hold(waiting, Inbound::Presence(change), &self.metrics);
        }
        // A terminal that is not known yet shows itself with its first message; one that was switched off still
        // goes.
        let record = self.registry.lookup(terminal_id.as_str());
        let Some(record) = record.filter(|record| record.enabled || !change.online) else { return };
        let change = Change {
            online: change.online,
            reason: change.reason.as_str(),
            stopping: change.reason == Reason::Stopping,
            epoch: change.epoch,
            at: Timestamp::from_micros(change.at_us),
            heard: Timestamp::from_micros(change.heard_us),
        };
        self.present(terminal_id, record, change).await;
    }

    async fn present(&mut self, terminal_id: TerminalId, record: TerminalRecord, change: Change) {
        let arrival = self.arrived(change.at.micros());
        if !self.presence.change(&terminal_id, change, arrival.no) {
            return;
        }
        self.publish_presence(&terminal_id, record.area, change.at);
        let (elevator_id, area, online) = (record.elevator_id, record.area, change.online);
        let observed = Observed::Presence { elevator_id, terminal_id, area, arrival, online };
        self.sink.submit(observed, IngestReceipt::none()).await;
    }

    fn publish_presence(&self, terminal_id: &TerminalId, area: Area, now: Timestamp) {
        if let Some(record) = self.presence.get(terminal_id) {
            let (topic, payload) = self.presence.message(record, area, now);
            self.hub.publish(&topic, payload.into(), true);
        }
    }

    /// Fills a fresh hub with what was known before.
    fn present_all(&self, now: Timestamp) {
        for record in self.presence.all() {
            if let Some(known) = self.registry.lookup(record.terminal_id.as_str()) {
                let (topic, payload) = self.presence.message(record, known.area, now);
                self.hub.publish(&topic, payload.into(), true);
            }
        }
    }

    /// Shows those as offline whose time is over, and gives away what is to be stored.
    async fn expire(&mut self, now: Timestamp) {
        for expired in self.presence.expire(now) {
            let Some(record) = self.registry.lookup(expired.terminal_id.as_str()) else { continue };
            self.publish_presence(&expired.terminal_id, record.area, now);
            if expired.untold {
                let (arrival, online) = (self.arrived(now.micros()), false);
                let (elevator_id, terminal_id, area) = (record.elevator_id, expired.terminal_id, record.area);
                let observed = Observed::Presence { elevator_id, terminal_id, area, arrival, online };
                self.sink.submit(observed, IngestReceipt::none()).await;
            }
        }
        if !self.presence.is_saved()
            && let Ok(place) = self.presence_tx.try_reserve()
        {
            place.send(self.presence.take_unsaved());
        }
    }

    /// The last of it, unless the store is given up.
    async fn save_all(&mut self, abandon: &CancellationToken) {
        while !self.presence.is_saved() {
            let batch = self.presence.take_unsaved();
            if abandon.run_until_cancelled(self.presence_tx.send(batch)).await.is_none() {
                return;
            }
        }
    }

    fn unregistered(&self) -> Vec<(TerminalId, Area)> {
        self.waiting.iter().map(|(terminal_id, waiting)| (terminal_id.clone(), waiting.area)).collect()
    }

    /// These terminals are registered now, or could not be: lets their messages go on.
    async fn release(&mut self, terminals: Vec<TerminalId>) {
        for terminal_id in terminals {
            let Some(waiting) = self.waiting.remove(&terminal_id) else { continue };
            let Some(record) = self.registry.lookup(terminal_id.as_str()) else {
                // Not registered: the store is away. Not acknowledged, so they come again.
                self.metrics.shed.inc_by(waiting.messages.len() as u64);
                continue;
            };
            let first = waiting.messages.iter().find_map(|message| match message {
                Inbound::Publish(publish) => Some((publish.arrived_us, publish.epoch)),
                Inbound::Presence(_) | Inbound::Listening { .. } | Inbound::Muted { .. } => None,
            });
            let (at_us, epoch) = first.unwrap_or_default();
            let at = Timestamp::from_micros(at_us);
            let reason = Reason::Connected.as_str();
            let change = Change { online: true, reason, stopping: false, epoch, at, heard: at };
            self.present(terminal_id, record, change).await;
            for message in waiting.messages {
                // Boxed: a terminal is either waiting or not, so this goes one level deep.
                Box::pin(self.take(message)).await;
            }
        }
    }
}

fn unknown(detail: &str) -> Undecodable {
    Undecodable { reason: QuarantineReason::UnknownTerminal, detail: detail.to_owned() }
}

fn hold(waiting: &mut Waiting, message: Inbound, metrics: &IngestMetrics) {
    if waiting.messages.len() < WAITING_MAX {
        waiting.messages.push(message);
    } else {
        metrics.shed.inc();
    }
}

/// Registers unknown terminals, many in one round trip; answers with those it was asked for.
async fn register(
    registry: Arc<Registry>,
    mut requests: mpsc::Receiver<Vec<(TerminalId, Area)>>,
    answers: mpsc::Sender<Vec<TerminalId>>,
) {
    let mut told = false;
    while let Some(terminals) = requests.recv().await {
        let registered = registry.register(&terminals).await;
        let told_before = std::mem::replace(&mut told, registered.is_err());
        if let Err(error) = registered {
            if !told_before {
                tracing::warn!(error = %error, terminals = terminals.len(), "new terminals could not be registered");
            }
            // Paces the next try; the messages of these terminals are given back meanwhile.
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        if answers.send(terminals.into_iter().map(|(terminal_id, _)| terminal_id).collect()).await.is_err() {
            return;
        }
    }
}
