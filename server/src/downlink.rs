//! Sends terminals the orders that wait for them.
//!
//! A reconciler: it takes no input but hints, reads what is due from the store, and offers it to the gate. An
//! order is delivered when the terminal has acknowledged it, and is said to be so in the store after that; in
//! between it may be sent again, under the same id. Hints: an order was given (a notification of the database),
//! a terminal begins to listen (the gate); and a tick, which finds what hints have missed. Bounded: so many
//! orders under way at once, the others wait in the store.

mod message;
mod send;

use std::collections::HashSet;
use std::time::Duration;

use broker::{DeliverError, Delivery, DeliveryReceipt, GateControl};
use domain::{Downlink, DownlinkId, SentDownlink, TerminalId, Timestamp};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use store::{Database, DownlinkListener, DownlinkRecord, StoreError};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use message::Format;
pub(crate) use send::{order, send};

/// Between two looks at the store.
const TICK: Duration = Duration::from_secs(5);
/// Orders looked at in one tick; the next goes on where this one ended.
const PAGE: u32 = 2_000;
/// Orders under way or acknowledged and not yet said so in the store.
const OFFERED_MAX: usize = 10_000;
/// A time that is older than this sets a clock wrong.
const CLOCK_KEEPS: Duration = Duration::from_secs(10);

/// What it counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics {
    offered: Counter,
    delivered: Counter,
    refused: Family<Vec<(&'static str, &'static str)>, Counter>,
}

impl Metrics {
    /// Makes them and registers them under `downlink_`.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let downlink = registry.sub_registry_with_prefix("downlink");
        downlink.register("offered", "Orders handed to connected terminals", metrics.offered.clone());
        downlink.register("delivered", "Orders acknowledged by their terminals", metrics.delivered.clone());
        downlink.register("refused", "Orders that could not be handed over now", metrics.refused.clone());
        metrics
    }
}

/// The reconciler.
pub(crate) struct Reconciler {
    database: Database,
    gate: GateControl,
    metrics: Metrics,
    /// Handed to the gate, not yet acknowledged.
    underway: HashSet<DownlinkId>,
    receipts: JoinSet<(DownlinkId, bool)>,
    /// Acknowledged, not yet said so in the store.
    delivered: HashSet<DownlinkId>,
    /// Where the tick has got to.
    after: DownlinkId,
    away: bool,
}

fn now() -> Timestamp {
    time::OffsetDateTime::now_utc().into()
}

impl Reconciler {
    /// One that has not looked yet.
    pub(crate) fn new(database: Database, gate: GateControl, metrics: Metrics) -> Self {
        Self {
            database,
            gate,
            metrics,
            underway: HashSet::new(),
            receipts: JoinSet::new(),
            delivered: HashSet::new(),
            after: DownlinkId(0),
            away: false,
        }
    }

    /// Until `stop`. `listening` tells who can be reached now. Once the store is given up (`abandon`), what was
    /// acknowledged last is not said there any more: those orders are sent again.
    pub(crate) async fn run(
        mut self,
        listening: mpsc::Receiver<TerminalId>,
        stop: CancellationToken,
        abandon: CancellationToken,
    ) {
        stop.run_until_cancelled(self.follow(listening)).await;
        // The last acknowledgements of connections that have just ended.
        while let Some(ended) = self.receipts.try_join_next() {
            self.settle(ended);
        }
        abandon.run_until_cancelled(self.save()).await;
    }

    /// Without end. May be dropped at any moment: what is not yet said in the store is kept.
    async fn follow(&mut self, mut listening: mpsc::Receiver<TerminalId>) {
        let mut listener = None;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut hints = true;
        loop {
            tokio::select! {
                _ = tick.tick() => {
                    if listener.is_none() {
                        listener = self.listen().await;
                    }
                    self.save().await;
                    self.look().await;
                }
                terminal = listening.recv(), if hints => match terminal {
                    Some(terminal_id) => self.offer_all(&terminal_id).await,
                    // Ingest has ended: nobody listens any more.
                    None => hints = false,
                },
                given = given(&mut listener) => match given {
                    Ok(Some(terminal_id)) => self.offer_all(&terminal_id).await,
                    // Words may have been missed; the next tick finds what they were about.
                    Ok(None) => {}
                    Err(error) => {
                        listener = None;
                        self.note(&error);
                    }
                },
                Some(ended) = self.receipts.join_next() => {
                    self.settle(ended);
                    while let Some(ended) = self.receipts.try_join_next() {
                        self.settle(ended);
                    }
                    self.save().await;
                }
            }
        }
    }

    async fn listen(&mut self) -> Option<DownlinkListener> {
        self.database.downlink_listener().await.map_err(|error| self.note(&error)).ok()
    }

    /// One page of what is due for those who are connected, from where the last one ended.
    async fn look(&mut self) {
        match self.database.in_time(self.database.downlink_due(self.after, now(), PAGE)).await {
            Ok(due) => {
                self.away = false;
                let full = due.len() == PAGE as usize;
                self.after = due.last().filter(|_| full).map_or(DownlinkId(0), |record| record.id);
                for record in due {
                    self.offer(record);
                }
            }
            Err(error) => self.note(&error),
        }
    }

    async fn offer_all(&mut self, terminal_id: &TerminalId) {
        match self.database.in_time(self.database.downlink_due_of(terminal_id, now())).await {
            Ok(due) => {
                for record in due {
                    self.offer(record);
                }
            }
            Err(error) => self.note(&error),
        }
    }

    /// Hands an order to the gate, unless it is under way. What the gate refuses waits on in the store.
    fn offer(&mut self, record: DownlinkRecord) {
        let offered = self.underway.len() + self.delivered.len();
        let id = record.id;
        if offered >= OFFERED_MAX || self.underway.contains(&id) || self.delivered.contains(&id) {
            return;
        }
        let sent = SentDownlink { id, sent: now(), order: record.order };
        let expires = match record.order {
            Downlink::ClockSet => record.expires.min(sent.sent.plus(CLOCK_KEEPS)),
            Downlink::ReportRate { .. } | Downlink::LiveView => record.expires,
        };
        for format in [Format::Protobuf, Format::Json] {
            let (receipt, told) = DeliveryReceipt::watched();
            let delivery = Delivery {
                topic: message::topic(record.area, &record.terminal_id, format),
                payload: message::payload(&sent, format).into(),
                expires_us: Some(expires.micros()),
                receipt,
            };
            let reason = match self.gate.deliver(record.terminal_id.as_str(), delivery) {
                Ok(()) => {
                    self.metrics.offered.inc();
                    self.underway.insert(id);
                    self.receipts.spawn(async move { (id, told.await.is_ok()) });
                    return;
                }
                // It may listen in the other format.
                Err(DeliverError::NotSubscribed) if format == Format::Protobuf => continue,
                Err(DeliverError::NotSubscribed) => "not_subscribed",
                Err(DeliverError::NotConnected) => "not_connected",
                Err(DeliverError::Full) => "full",
            };
            self.metrics.refused.get_or_create(&vec![("reason", reason)]).inc();
            return;
        }
    }

    fn settle(&mut self, ended: Result<(DownlinkId, bool), tokio::task::JoinError>) {
        // The tasks do nothing that could fail.
        let Ok((id, acknowledged)) = ended else { return };
        self.underway.remove(&id);
        if acknowledged {
            self.metrics.delivered.inc();
            self.delivered.insert(id);
        }
    }

    async fn save(&mut self) {
        if self.delivered.is_empty() {
            return;
        }
        let ids: Vec<_> = self.delivered.iter().copied().collect();
        match self.database.in_time(self.database.downlink_delivered(&ids, now())).await {
            Ok(_) => self.delivered.clear(),
            Err(error) => self.note(&error),
        }
    }

    /// Says once that the store is away.
    fn note(&mut self, error: &StoreError) {
        if !std::mem::replace(&mut self.away, true) {
            tracing::warn!(error = %error, "orders to terminals wait: the store is away");
        }
    }
}

async fn given(listener: &mut Option<DownlinkListener>) -> Result<Option<TerminalId>, StoreError> {
    match listener {
        Some(listener) => listener.next().await,
        None => std::future::pending().await,
    }
}
