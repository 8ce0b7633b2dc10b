//! One terminal of a fleet: joins the pure terminal with counters, mailbox and planned faults.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use domain::Timestamp;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::Publish;
use tokio::sync::Notify;

use super::Shared;
use super::counters::add;
use crate::fault::Fault;
use crate::mqtt::{Client, ConnectError};
use crate::terminal::{Qos, Terminal};

/// Orders that wait for a terminal; more are refused.
const ORDERS_MAX: usize = 16;

#[derive(Debug, Clone, Copy)]
pub(super) enum Order {
    Inject(Fault),
    Release,
    Reboot,
}

/// Orders to a terminal; a channel each would cost more than the terminal.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    orders: Mutex<Vec<Order>>,
    pub(super) wake: Notify,
}

impl Mailbox {
    /// False when too many wait.
    pub(super) fn put(&self, order: Order) -> bool {
        let Ok(mut orders) = self.orders.lock() else { return false };
        if orders.len() >= ORDERS_MAX {
            return false;
        }
        orders.push(order);
        self.wake.notify_one();
        true
    }

    fn take(&self) -> Vec<Order> {
        self.orders.lock().map(|mut orders| std::mem::take(&mut *orders)).unwrap_or_default()
    }
}

pub(super) struct Member {
    index: usize,
    terminal: Terminal,
    mailbox: Arc<Mailbox>,
    shared: Arc<Shared>,
    /// Planned faults, the last of the list first.
    planned: Vec<(Timestamp, Fault)>,
    rest_at: Option<Timestamp>,
    resting: bool,
    boot: u32,
    connects: u64,
    dropped: u64,
}

impl Member {
    pub(super) fn new(
        index: usize,
        terminal: Terminal,
        boot: u32,
        planned: Vec<(Timestamp, Fault)>,
        rest_at: Option<Timestamp>,
        shared: Arc<Shared>,
    ) -> Self {
        let mailbox = Arc::clone(&shared.mailboxes[index]);
        let (resting, connects, dropped) = (false, 0, 0);
        Self { index, terminal, mailbox, shared, planned, rest_at, resting, boot, connects, dropped }
    }

    fn inject(&mut self, fault: Fault, now: Timestamp) {
        if !self.terminal.inject(fault, now) {
            add(&self.shared.counters.faults_refused, 1);
        }
    }

    fn obey(&mut self, now: Timestamp) {
        for order in self.mailbox.take() {
            match order {
                Order::Inject(fault) => self.inject(fault, now),
                Order::Release => self.terminal.release(now),
                Order::Reboot => {
                    self.boot = self.boot.wrapping_add(1);
                    self.terminal.reboot(self.boot);
                }
            }
        }
        while let Some((_, fault)) = self.planned.pop_if(|(at, _)| *at <= now) {
            self.inject(fault, now);
        }
    }

    fn tell(&mut self) {
        for truth in self.terminal.take_truths() {
            self.shared.tell(truth);
        }
        let dropped = self.terminal.dropped();
        add(&self.shared.counters.dropped, dropped - self.dropped);
        self.dropped = dropped;
    }

    /// At the end of the run: what nobody acknowledged.
    pub(super) fn close(mut self) {
        self.tell();
        add(&self.shared.unacknowledged, self.terminal.unacknowledged() as u64);
    }
}

impl Client for Member {
    fn next_due(&self) -> Option<Timestamp> {
        let planned = self.planned.last().map(|(at, _)| *at);
        let rest = self.rest_at.filter(|_| !self.resting);
        [self.terminal.next_due(), planned, rest].into_iter().flatten().min()
    }

    fn tick(&mut self, now: Timestamp) {
        self.terminal.tick(now);
        self.obey(now);
        if !self.resting && (self.shared.resting.load(Relaxed) || self.rest_at.is_some_and(|at| at <= now)) {
            self.resting = true;
            self.planned.clear();
            self.terminal.rest();
        }
        self.tell();
    }

    fn connected(&mut self, now: Timestamp) {
        self.terminal.connected(now);
        add(&self.shared.counters.connected, 1);
        add(&self.shared.counters.reconnects, u64::from(self.connects > 0));
        self.connects += 1;
    }

    fn disconnected(&mut self, _now: Timestamp) {
        self.terminal.disconnected();
        self.shared.counters.connected.fetch_sub(1, Relaxed);
    }

    fn refused(&mut self, error: &ConnectError) {
        add(&self.shared.counters.refused, 1);
        self.shared.note_refusal(error);
    }

    fn next_frame(&mut self, now: Timestamp, output: &mut BytesMut) -> bool {
        let Some(message) = self.terminal.next_message(now) else { return false };
        let qos = match self.shared.settings.qos {
            Qos::AtMostOnce => QoS::AtMostOnce,
            Qos::AtLeastOnce => QoS::AtLeastOnce,
            Qos::ExactlyOnce => QoS::ExactlyOnce,
        };
        let counters = &self.shared.counters;
        add(&counters.payload_bytes, message.payload.len() as u64);
        let pkid = if qos == QoS::AtMostOnce { 0 } else { message.pkid };
        let publish = Publish {
            dup: false,
            qos,
            retain: false,
            topic: message.topic.as_ref().to_owned(),
            pkid,
            payload: Bytes::from(message.payload),
        };
        publish.write(output).expect("a packet id, and far below 256 MB");
        add(&counters.sent, 1);
        add(&counters.items_sent, message.items as u64);
        add(&counters.resent, u64::from(message.resent));
        true
    }

    fn acknowledged(&mut self, pkid: u16, now: Timestamp) {
        let Some(delivered) = self.terminal.acknowledged(pkid) else { return };
        let counters = &self.shared.counters;
        add(&counters.acked, 1);
        add(&counters.items_acked, delivered.seqs.len() as u64);
        let delivery = delivered.made.map(|made| now.since(made));
        self.shared.latencies.record(self.index, now.since(delivered.sent), delivery);
        if let Some(ledger) = &self.shared.ledger {
            ledger.note(self.terminal.id().as_str(), &delivered);
        }
    }

    fn finished(&self) -> bool {
        self.resting && self.terminal.unacknowledged() == 0
    }
}
