//! One subscriber's link: drained at once into a bounded queue of ours.
//!
//! The router drops what a slow link does not fetch, and dies of a link that answers `Unschedule` after it
//! has left. So a task of its own fetches at once, answers in order, and says goodbye last.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::{Buf, Bytes};
use rumqttd::local::{LinkRx, LinkTx};
use rumqttd::protocol::{self, Packet};
use rumqttd::{Forward, Notification};
use tokio::sync::{mpsc, oneshot};

use super::router::{ENVELOPE_BYTES, NO_EXPIRY, Router};
use super::{Seat, SubscribeError};
use crate::inbound::{Properties, QoS, Reason};
use crate::topic::TopicFilter;

/// Commands waiting for the link's task; the connection waits for each one anyway.
const COMMANDS: usize = 4;

/// A message for a subscriber.
#[derive(Debug)]
pub(crate) struct Forwarded {
    /// The subscription it matched.
    pub(crate) id: usize,
    pub(crate) topic: Bytes,
    pub(crate) payload: Bytes,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) arrived_us: i64,
    pub(crate) epoch: u64,
    pub(crate) properties: Option<Properties>,
}

impl Forwarded {
    fn bytes(&self) -> usize {
        let properties = self.properties.as_ref().map_or(0, Properties::bytes);
        self.topic.len() + self.payload.len() + properties + size_of::<Self>()
    }
}

enum Command {
    Join { filters: Vec<(TopicFilter, usize)>, joined: oneshot::Sender<()> },
    Leave(Vec<TopicFilter>),
}

/// The connection's end of its link.
#[derive(Debug)]
pub(crate) struct Subscriber {
    commands: mpsc::Sender<Command>,
    queue: mpsc::Receiver<Forwarded>,
    level: Arc<Level>,
    lost: Arc<OnceLock<Reason>>,
}

/// What connection and link know of each other's state.
#[derive(Debug, Default)]
struct Level {
    /// Waiting in the queue.
    bytes: AtomicUsize,
    /// The client is not connected.
    asleep: AtomicBool,
}

impl Subscriber {
    /// While the client is not connected, messages of QoS 0 are not collected for it.
    pub(crate) fn sleep(&self, asleep: bool) {
        self.level.asleep.store(asleep, Ordering::Relaxed);
    }

    /// Whether the link has ended: messages are missing.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.get().is_some() || self.commands.is_closed()
    }

    /// Subscribes; when it returns, everything published from now on will come.
    pub(crate) async fn join(&self, filters: Vec<(TopicFilter, usize)>) -> Result<(), SubscribeError> {
        let (joined, done) = oneshot::channel();
        let sent = self.commands.send(Command::Join { filters, joined }).await;
        sent.map_err(|_| SubscribeError::Lost)?;
        done.await.map_err(|_| SubscribeError::Lost)
    }

    /// Unsubscribes. Messages already on their way may still come.
    pub(crate) async fn leave(&self, filters: Vec<TopicFilter>) -> Result<(), SubscribeError> {
        self.commands.send(Command::Leave(filters)).await.map_err(|_| SubscribeError::Lost)
    }

    /// The next message; why there will be none, once the link is lost.
    pub(crate) async fn recv(&mut self) -> Result<Forwarded, Reason> {
        let message = self.queue.recv().await;
        self.taken(message)
    }

    /// Like [`Self::recv`], or `None` if nothing waits.
    pub(crate) fn try_recv(&mut self) -> Option<Result<Forwarded, Reason>> {
        match self.queue.try_recv() {
            Ok(message) => Some(self.taken(Some(message))),
            Err(mpsc::error::TryRecvError::Empty) => None,
            Err(mpsc::error::TryRecvError::Disconnected) => Some(self.taken(None)),
        }
    }

    fn taken(&self, message: Option<Forwarded>) -> Result<Forwarded, Reason> {
        let message = message.ok_or_else(|| self.lost.get().copied().unwrap_or(Reason::HubLost))?;
        self.level.bytes.fetch_sub(message.bytes(), Ordering::Relaxed);
        Ok(message)
    }
}

pub(super) fn start(seat: Seat, router: Arc<Router>, tx: LinkTx, rx: LinkRx) -> Subscriber {
    let config = &seat.0.0.config;
    // Full: the subscriber is disconnected and counted.
    let (queue_in, queue) = mpsc::channel(config.queue_len.max(1));
    let (commands, commands_in) = mpsc::channel(COMMANDS);
    let level = Arc::<Level>::default();
    let lost = Arc::new(OnceLock::new());
    let link = Link {
        seat,
        router,
        tx,
        queue: queue_in,
        level: Arc::clone(&level),
        waiting: VecDeque::new(),
        offsets: HashMap::new(),
    };
    tokio::spawn(link.run(rx, commands_in, Arc::clone(&lost)));
    Subscriber { commands, queue, level, lost }
}

struct Link {
    seat: Seat,
    router: Arc<Router>,
    tx: LinkTx,
    queue: mpsc::Sender<Forwarded>,
    level: Arc<Level>,
    /// One per SUBSCRIBE the router has not answered; only the last of a command has someone waiting.
    waiting: VecDeque<Option<oneshot::Sender<()>>>,
    /// Offset expected next in the router's log, per subscription.
    offsets: HashMap<usize, u64>,
}

impl Link {
    async fn run(
        mut self,
        mut rx: LinkRx,
        mut commands: mpsc::Receiver<Command>,
        lost: Arc<OnceLock<Reason>>,
    ) {
        let ended = loop {
            let result = tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.command(command).await,
                    // The connection ended.
                    None => break None,
                },
                notification = rx.next() => match notification {
                    Ok(Some(notification)) => self.notified(notification, &rx),
                    Ok(None) => Ok(()),
                    Err(_) => Err(Reason::HubLost),
                },
            };
            if let Err(reason) = result {
                break Some(reason);
            }
        };
        if let Some(reason) = ended {
            if reason == Reason::Slow {
                self.seat.0.0.metrics.hub_overflowed.inc();
            }
            // Before the queue closes, so that the connection finds the reason.
            let _ = lost.set(reason);
        }
        let goodbye =
            protocol::Disconnect { reason_code: protocol::DisconnectReasonCode::NormalDisconnection };
        if self.tx.send(Packet::Disconnect(goodbye, None)).await.is_err() {
            self.router.broken.notify_one();
        }
    }

    async fn command(&mut self, command: Command) -> Result<(), Reason> {
        match command {
            Command::Join { filters, joined } => {
                let mut joined = Some(joined);
                let last = filters.len().saturating_sub(1);
                for (i, (filter, id)) in filters.into_iter().enumerate() {
                    self.router.note_filter(&filter);
                    self.tx.send(subscribe(&filter, id)).await.map_err(|_| Reason::HubLost)?;
                    self.waiting.push_back(if i == last { joined.take() } else { None });
                }
                if let Some(joined) = joined {
                    // Nothing to wait for; the connection may have gone meanwhile.
                    let _ = joined.send(());
                }
            }
            Command::Leave(filters) => {
                let filters = filters.iter().map(ToString::to_string).collect();
                let packet = Packet::Unsubscribe(protocol::Unsubscribe { pkid: 1, filters }, None);
                self.tx.send(packet).await.map_err(|_| Reason::HubLost)?;
            }
        }
        Ok(())
    }

    fn notified(&mut self, notification: Notification, rx: &LinkRx) -> Result<(), Reason> {
        match notification {
            Notification::Forward(forward) => self.forwarded(forward),
            Notification::Unschedule => rx.ready().map_err(|_| Reason::HubLost),
            Notification::Disconnect(..) => Err(Reason::HubLost),
            other => {
                if let Some(Packet::SubAck(..)) = Option::<Packet>::from(other)
                    && let Some(Some(joined)) = self.waiting.pop_front()
                {
                    // The connection may have gone meanwhile.
                    let _ = joined.send(());
                }
                Ok(())
            }
        }
    }

    fn forwarded(&mut self, forward: Forward) -> Result<(), Reason> {
        let offset = forward.cursor.map(|(_, offset)| offset);
        let Some(message) = open(forward) else { return Ok(()) };
        // Offsets of a filter's log are consecutive: a jump is something the router has dropped.
        if let Some(offset) = offset
            && self.offsets.insert(message.id, offset + 1).is_some_and(|expected| expected != offset)
        {
            return Err(Reason::Slow);
        }
        if message.qos == QoS::AtMostOnce && self.level.asleep.load(Ordering::Relaxed) {
            self.seat.0.0.metrics.hub_not_kept.inc();
            return Ok(());
        }
        let bytes = message.bytes();
        if self.level.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > self.seat.0.0.config.queue_bytes {
            return Err(Reason::Slow);
        }
        match self.queue.try_send(message) {
            // Closed: the connection ended; the closed command channel says so next.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => Err(Reason::Slow),
        }
    }
}

/// Always QoS 0 towards the router: the session numbers and counts QoS 1 messages itself.
fn subscribe(filter: &TopicFilter, id: usize) -> Packet {
    let filter = protocol::Filter {
        path: filter.to_string(),
        qos: protocol::QoS::AtMostOnce,
        nolocal: false,
        preserve_retain: false,
        retain_forward_rule: protocol::RetainForwardRule::Never,
    };
    let properties = protocol::SubscribeProperties { id: Some(id), user_properties: Vec::new() };
    Packet::Subscribe(protocol::Subscribe { pkid: 1, filters: vec![filter] }, Some(properties))
}

/// Takes the router's message apart again, see `router::packet`. `None` if it is not one of ours.
fn open(forward: Forward) -> Option<Forwarded> {
    let properties = forward.properties?;
    let id = *properties.subscription_identifiers.last()?;
    let mut envelope = properties.correlation_data?;
    if envelope.len() < ENVELOPE_BYTES {
        return None;
    }
    let flags = envelope.get_u8();
    let arrived_us = envelope.get_i64();
    let epoch = envelope.get_u64();
    let expiry_s = envelope.get_u32();
    let qos = match flags & 3 {
        0 => QoS::AtMostOnce,
        1 => QoS::AtLeastOnce,
        _ => QoS::ExactlyOnce,
    };
    let ours = Properties {
        payload_format: properties.payload_format_indicator,
        expiry_s: (expiry_s != NO_EXPIRY).then_some(expiry_s),
        content_type: properties.content_type,
        response_topic: properties.response_topic,
        correlation: (!envelope.is_empty()).then_some(envelope),
        user: properties.user_properties,
    };
    Some(Forwarded {
        id,
        topic: forward.publish.topic,
        payload: forward.publish.payload,
        qos,
        retain: flags & 4 != 0,
        arrived_us,
        epoch,
        properties: (ours != Properties::default()).then_some(ours),
    })
}
