//! The life of one terminal on the network: connect, say, hear, lose, come back.

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use domain::Timestamp;
use hdrhistogram::Histogram;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rumqttc::mqttbytes::v4::Packet;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::fault::{Fault, Truth};
use crate::mqtt::{Connection, MqttError};
use crate::report::{Acked, Ledger, Tally, locked};
use crate::terminal::{Kind, Note, Outgoing, Terminal};

const KEEP_ALIVE_S: u16 = 60;
const PING_EVERY: Duration = Duration::from_secs(30);
const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// An order to one terminal.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Order {
    Inject(Fault),
    Release,
}

/// What all terminals of a fleet share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) broker: SocketAddr,
    pub(crate) window: usize,
    pub(crate) on_demand: bool,
    pub(crate) started: Instant,
    pub(crate) started_at: Timestamp,
    pub(crate) tally: Tally,
    pub(crate) puback_us: Mutex<Histogram<u64>>,
    pub(crate) ledger: Mutex<Ledger>,
    pub(crate) truth: Mutex<Vec<Truth>>,
    /// No new readings; leave once all is acknowledged.
    pub(crate) draining: CancellationToken,
    /// Leave now.
    pub(crate) leaving: CancellationToken,
}

impl Shared {
    /// The clock of all terminals: the wall clock at the start, and steady from then on.
    fn now(&self) -> Timestamp {
        self.started_at.plus(self.started.elapsed())
    }

    fn instant(&self, at: Timestamp) -> Instant {
        self.started + at.since(self.started_at)
    }
}

/// Lives until drained or told to leave.
pub(crate) async fn live(
    terminal: Terminal,
    orders: mpsc::Receiver<Order>,
    shared: Arc<Shared>,
    first_connect: Duration,
    seed: u64,
) {
    let leaving = shared.leaving.clone();
    let topics = [terminal.topic(Kind::Telemetry), terminal.topic(Kind::Event)];
    let mut feed = Feed { terminal, orders, shared, draining: false, counted: 0, dropped: 0 };
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let connecting = async {
        tokio::select! {
            () = sleep(first_connect) => {}
            () = feed.shared.draining.cancelled() => return,
        }
        let (mut backoff, mut connects) = (BACKOFF_MIN, 0_u64);
        while !feed.is_done() {
            let id = feed.terminal.id().as_str().to_owned();
            let broker = feed.shared.broker;
            match feed.during(Connection::open(broker, &id, KEEP_ALIVE_S)).await {
                Ok(connection) => {
                    connects += 1;
                    if connects > 1 {
                        feed.shared.tally.reconnects.fetch_add(1, Relaxed);
                    }
                    let up = Up::new(&feed.shared);
                    match converse(&mut feed, connection, &topics).await {
                        Ok(()) => return,
                        Err(error) => tracing::debug!(%id, %error, "connection lost"),
                    }
                    drop(up);
                    feed.terminal.disconnected();
                    backoff = BACKOFF_MIN;
                }
                Err(error) => tracing::debug!(%id, %error, "cannot connect"),
            }
            let wait = backoff.mul_f64(rng.random_range(0.5..1.0));
            feed.during(sleep(wait)).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    };
    tokio::select! {
        () = connecting => {}
        () = leaving.cancelled() => {}
    }
}

/// Counts a connection as long as it lives.
struct Up(Arc<Shared>);

impl Up {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.tally.connected.fetch_add(1, Relaxed);
        Self(Arc::clone(shared))
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        self.0.tally.connected.fetch_sub(1, Relaxed);
    }
}

/// A terminal and what moves it: the clock and orders.
struct Feed {
    terminal: Terminal,
    orders: mpsc::Receiver<Order>,
    shared: Arc<Shared>,
    draining: bool,
    /// Items of this terminal in the shared count.
    counted: i64,
    dropped: u64,
}

impl Feed {
    fn is_done(&self) -> bool {
        self.draining && self.terminal.outbox().is_empty()
    }

    /// Waits for `other` while the lift lives on and its readings gather.
    async fn during<T>(&mut self, other: impl Future<Output = T>) -> T {
        tokio::pin!(other);
        loop {
            tokio::select! {
                result = &mut other => return result,
                () = self.step() => {}
            }
        }
    }

    /// Waits for the next thing to do, and does it. May be dropped at its await.
    async fn step(&mut self) {
        if self.draining {
            return std::future::pending().await;
        }
        let due = self.shared.instant(self.terminal.next_due());
        let order = tokio::select! {
            () = self.shared.draining.cancelled() => {
                self.draining = true;
                return;
            }
            Some(order) = self.orders.recv() => Some(order),
            () = sleep_until(due) => None,
        };
        let now = self.shared.now();
        let notes = match order {
            None => self.terminal.tick(now),
            Some(Order::Release) => self.terminal.release(now),
            Some(Order::Inject(fault)) => {
                let (done, notes) = self.terminal.inject(fault, now);
                if !done {
                    tracing::warn!(terminal = %self.terminal.id(), %fault, "not injected: an earlier fault lasts");
                }
                notes
            }
        };
        self.note(notes);
        self.count();
    }

    fn note(&self, notes: Vec<Note>) {
        let id = self.terminal.id();
        for note in notes {
            let mut truth = locked(&self.shared.truth);
            match note {
                Note::Began(began, fault, people) => {
                    let (terminal_id, expected) = (id.clone(), fault.expected());
                    truth.push(Truth { terminal_id, fault, began, ended: None, people, expected });
                }
                Note::Ended(at, fault) => {
                    let open = |one: &&mut Truth| {
                        one.terminal_id == *id && one.fault == fault && one.ended.is_none()
                    };
                    if let Some(one) = truth.iter_mut().rev().find(open) {
                        one.ended = Some(at);
                    }
                }
            }
        }
    }

    /// Brings the shared counts up to date with the outbox.
    fn count(&mut self) {
        let outbox = self.terminal.outbox();
        let (len, dropped) = (outbox.len() as i64, outbox.dropped_count());
        self.shared.tally.unacked.fetch_add(len - self.counted, Relaxed);
        self.shared.tally.dropped.fetch_add(dropped - self.dropped, Relaxed);
        (self.counted, self.dropped) = (len, dropped);
    }
}

/// A publish whose PUBACK is awaited.
struct Awaited {
    message: Outgoing,
    written: Instant,
}

/// One connection, from CONNACK to its end. `Ok`: drained, and said goodbye.
async fn converse(
    feed: &mut Feed,
    mut connection: Connection,
    topics: &[String; 2],
) -> Result<(), MqttError> {
    let shared = Arc::clone(&feed.shared);
    let mut awaited: HashMap<u16, Awaited> = HashMap::new();
    let mut pkid: u16 = 0;
    let mut ping_at = Instant::now() + PING_EVERY;
    let mut pinged = false;
    if !feed.draining {
        feed.terminal.connected(shared.now());
    }
    loop {
        while awaited.len() < shared.window {
            let now = shared.now();
            if shared.on_demand && !feed.draining && feed.terminal.outbox().waiting() == 0 {
                feed.terminal.read(now);
            }
            let Some(mut message) = feed.terminal.next_message(now) else { break };
            pkid = free_pkid(pkid, &awaited);
            let topic = &topics[usize::from(message.kind == Kind::Event)];
            connection.publish(pkid, topic, std::mem::take(&mut message.payload))?;
            shared.tally.messages_sent.fetch_add(1, Relaxed);
            shared.tally.resent.fetch_add(u64::from(message.resent), Relaxed);
            shared.tally.readings_sent.fetch_add(message.fresh_readings as u64, Relaxed);
            awaited.insert(pkid, Awaited { message, written: Instant::now() });
        }
        feed.count();
        if feed.is_done() && awaited.is_empty() {
            return connection.close().await;
        }
        tokio::select! {
            packet = connection.drive() => match packet? {
                Packet::PubAck(ack) => if let Some(one) = awaited.remove(&ack.pkid) {
                    acknowledge(feed, &one);
                },
                Packet::PingResp => pinged = false,
                _ => {}
            },
            () = feed.step() => {}
            () = sleep_until(ping_at) => {
                if pinged {
                    return Err(MqttError::Timeout);
                }
                connection.ping()?;
                pinged = true;
                ping_at = Instant::now() + PING_EVERY;
            }
        }
    }
}

fn free_pkid(last: u16, awaited: &HashMap<u16, Awaited>) -> u16 {
    let mut pkid = last;
    loop {
        pkid = pkid.checked_add(1).unwrap_or(1);
        if !awaited.contains_key(&pkid) {
            return pkid;
        }
    }
}

fn acknowledge(feed: &mut Feed, one: &Awaited) {
    let tally = &feed.shared.tally;
    tally.messages_acked.fetch_add(1, Relaxed);
    let micros = u64::try_from(one.written.elapsed().as_micros()).unwrap_or(u64::MAX);
    locked(&feed.shared.puback_us).saturating_record(micros);
    let Some(id) = one.message.id else { return };
    let items = feed.terminal.acknowledged(id);
    tally.readings_acked.fetch_add(items as u64, Relaxed);
    let Outgoing { first_seq, last_seq, kind, .. } = one.message;
    let (terminal_id, boot) = (feed.terminal.id().clone(), feed.terminal.boot().0);
    locked(&feed.shared.ledger).note(Acked { terminal_id, boot, first_seq, last_seq, kind });
}
