//! The loop of a connection: read, hand over, acknowledge, write.
//!
//! One turn does all there is to do without waiting, then waits for the next event. Many packets are read with
//! one system call, their acknowledgements written with one. When the budget, the channel or the window is full,
//! reading pauses; when the pause has lasted as long as it may, reading goes on and what cannot be handed over is
//! dropped unacknowledged, counted, and the connection marked, so that PINGREQs are answered.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::time::Instant;

use super::fan_in::{Replaying, next_message};
use super::input::{self, Input, Next};
use super::timers::{Due, Timers};
use super::{Client, count_publish};
use crate::ack::Window;
use crate::auth::{PrincipalKind, Protocol};
use crate::codec::{self, CodecError};
use crate::downlink::DeliveryReceipt;
use crate::gate::Shared;
use crate::handshake::{self, Opened};
use crate::hub::{Fanout, Subscriber, now_us};
use crate::inbound::{Inbound, Publish, Reason};
use crate::limits::{Meter, Turn};
use crate::packet::Reply;
use crate::session::{Accepted, Action, Limits, Session};
use crate::sessions::Stored;

/// Bytes waiting to be written beyond which nothing is read.
const OUT_MAX: usize = 256 << 10;
/// A written buffer above that is given back.
const OUT_KEPT: usize = 4 << 10;
/// What is missing before the next publish can be handed over.
#[derive(Debug, Clone, Copy)]
enum Lacking {
    Window,
    Budget(usize),
    Channel,
    /// Time: it is over its rate.
    Rate(Instant),
}

/// Whether messages of a terminal were dropped since its last that was handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Muted {
    No,
    /// Since then; waits for a place in the channel to say so.
    Untold(i64),
    Told,
}

pub(super) struct Exchange<'a> {
    pub(super) gate: &'a Arc<Shared>,
    pub(super) client: &'a Client,
    pub(super) inbound: &'a mpsc::Sender<Inbound>,
    pub(super) protocol: Protocol,
    pub(super) packet_bytes_max: usize,
    pub(super) session: Session,
    input: Input,
    pub(super) out: BytesMut,
    timers: Timers,
    meter: Option<Arc<Meter>>,
    pub(super) actions: Vec<Action>,
    /// Place in the channel for the next publish.
    slot: Option<mpsc::Permit<'a, Inbound>>,
    /// Bytes taken from the budget for the next publish.
    held: usize,
    lacking: Option<Lacking>,
    /// The pause is over: drop what cannot be handed over.
    dropping: bool,
    pub(super) subscriber: Option<Subscriber>,
    pub(super) replays: Vec<Replaying>,
    /// Deliveries with QoS 0 that wait in `out`.
    pub(super) unwritten: Vec<DeliveryReceipt>,
    /// Waits for a place in the channel to say that the terminal listens.
    pub(super) announcing: bool,
    muted: Muted,
    /// Windows of ended connections of this session, with their epochs.
    pub(super) earlier: Vec<(u64, Arc<Window>)>,
    /// The connection before, if the session was resumed.
    pub(super) previous_epoch: u64,
    pub(super) stopping: bool,
    /// The last read took all there was.
    drained: bool,
}

impl<'a> Exchange<'a> {
    /// `out` holds the CONNACK.
    pub(super) fn new(
        opened: Opened,
        resumed: Option<Box<Stored>>,
        out: BytesMut,
        client: &'a Client,
        inbound: &'a mpsc::Sender<Inbound>,
        gate: &'a Arc<Shared>,
    ) -> Self {
        let config = &gate.config;
        let connect = &opened.connect;
        let limits = Limits {
            unacked_max: config.unacked_max.max(1).into(),
            payload_bytes_max: config.payload_bytes_max,
            subscriptions_max: config.subscriptions_max,
            inflight_max: config.inflight_max.min(connect.receive_max).max(1).into(),
            topic_alias_max: config.topic_alias_max,
            expiry_s_max: handshake::expiry_s_max(&opened, gate),
        };
        let keep_alive_s = handshake::keep_alive_s(&opened, gate);
        let (protocol, expiry_s) = (connect.protocol, connect.expiry_s);
        let packet_bytes_max = connect.packet_bytes_max as usize;
        let now = Instant::now();
        let mut exchange = Self {
            gate,
            client,
            inbound,
            protocol,
            packet_bytes_max,
            session: Session::new(protocol, opened.principal, limits, expiry_s),
            input: Input::new(opened.rest, handshake::frame_bytes_max(gate)),
            out,
            timers: Timers::new(keep_alive_s, config.pause_max, config.write_timeout, now),
            meter: opened.meter,
            actions: Vec::new(),
            slot: None,
            held: 0,
            lacking: None,
            dropping: false,
            subscriber: None,
            replays: Vec::new(),
            unwritten: Vec::new(),
            announcing: false,
            muted: Muted::No,
            earlier: Vec::new(),
            previous_epoch: 0,
            stopping: false,
            drained: false,
        };
        if let Some(stored) = resumed {
            exchange.session.resume(stored.kept);
            exchange.subscriber = stored.subscriber;
            exchange.replays = stored.replays;
            exchange.earlier = stored.windows;
            exchange.previous_epoch = stored.epoch;
            exchange.listen_again();
        }
        exchange
    }

    /// Until something ends the connection.
    pub(super) async fn run<R, W>(&mut self, mut reader: R, mut writer: W) -> Reason
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let gate = self.gate;
        let window = &self.client.handle.window;
        let mut stopped = pin!(gate.stop.cancelled());
        let mut sleep = pin!(tokio::time::sleep_until(self.timers.next(Instant::now())));
        loop {
            if let Err(reason) = self.turn().await {
                return reason;
            }
            let deadline = self.timers.next(Instant::now());
            if deadline < sleep.deadline() {
                sleep.as_mut().reset(deadline);
            }
            let can_read = !self.stopping && self.lacking.is_none() && self.out.len() < OUT_MAX;
            let can_receive = self.subscriber.is_some() && self.can_send();
            let lacking = self.wanting();
            tokio::select! {
                biased;
                () = window.bell.notified() => {}
                written = writer.write_buf(&mut self.out), if !self.out.is_empty() => match written {
                    Ok(n) if n > 0 => self.wrote(n),
                    _ => return Reason::Gone,
                },
                read = reader.read_buf(self.input.room()), if can_read => match read {
                    Ok(n) if n > 0 => self.read(n),
                    _ => return Reason::Gone,
                },
                message = next_message(self.subscriber.as_mut()), if can_receive => {
                    if let Err(reason) = message.and_then(|message| self.forward(message)) {
                        return reason;
                    }
                }
                found = find(lacking, gate, self.inbound), if lacking.is_some() => {
                    match found {
                        Found::Slot(slot) if self.announcing => {
                            self.announcing = false;
                            slot.send(self.listening());
                        }
                        Found::Slot(slot) if let Muted::Untold(at_us) = self.muted => {
                            self.muted = Muted::Told;
                            let client_id = Arc::clone(&self.client.client_id);
                            slot.send(Inbound::Muted { client_id, at_us });
                        }
                        Found::Slot(slot) => {
                            self.lacking = None;
                            self.slot = Some(slot);
                        }
                        Found::Bytes(bytes) => {
                            self.lacking = None;
                            self.held += bytes;
                        }
                        Found::Time => {
                            self.lacking = None;
                            // It was us who did not listen.
                            self.timers.heard(Instant::now());
                        }
                        Found::Closed => return Reason::Stopping,
                    }
                }
                () = &mut stopped, if !self.stopping => self.stop(),
                () = &mut sleep => {
                    let now = Instant::now();
                    if let Err(reason) = self.due(now) {
                        return reason;
                    }
                    sleep.as_mut().reset(self.timers.next(now));
                }
            }
        }
    }

    /// What to wait for from the rest of the gate.
    fn wanting(&self) -> Option<Lacking> {
        let tells = self.announcing || matches!(self.muted, Muted::Untold(_));
        if tells { Some(Lacking::Channel) } else { self.lacking.filter(|_| !self.stopping) }
    }

    /// How long nothing has come from the client.
    pub(super) fn silence(&self) -> Duration {
        self.timers.silence(Instant::now())
    }

    /// What the client gets to read at the end.
    pub(super) fn farewell(&mut self, reason: Reason) -> BytesMut {
        let mut out = std::mem::take(&mut self.out);
        if let Err(error) = codec::write(self.protocol, Reply::Disconnect(reason), &mut out) {
            tracing::debug!(%error, "cannot write a DISCONNECT");
        }
        self.gate.metrics.bytes_out.inc_by(out.len() as u64);
        out
    }

    /// Everything that can be done without waiting for anyone but the hub.
    async fn turn(&mut self) -> Result<(), Reason> {
        let settled = self.client.handle.window.take();
        if settled.committed > 0 || settled.failed {
            self.session.settled(settled, &mut self.actions);
            self.perform().await?;
            if matches!(self.lacking, Some(Lacking::Window)) {
                self.lacking = None;
            }
        }
        if !self.earlier.is_empty() {
            self.settle_earlier();
            self.perform().await?;
        }
        if let Some(reason) = self.client.handle.asked_to_end() {
            return Err(reason);
        }
        if self.stopping {
            return if self.session.unsettled() == 0 { Err(Reason::Stopping) } else { Ok(()) };
        }
        if self.lacking.is_none() && self.out.len() < OUT_MAX {
            self.packets().await?;
        }
        self.resends()?;
        self.fan_in()?;
        self.deliveries()?;
        if self.out.is_empty() {
            self.timers.written();
        } else {
            self.timers.writing(false, Instant::now());
        }
        Ok(())
    }

    /// Serves the frames that are here, as far as they can be handed over.
    async fn packets(&mut self) -> Result<(), Reason> {
        let mut arrived_us = None;
        loop {
            match self.input.peek().map_err(|error| self.broken(&error))? {
                Next::Nothing => break,
                Next::Large { bytes, promised } => {
                    if self.hold(input::cost(bytes)) {
                        self.input.expect_large(bytes);
                    } else if self.dropping {
                        self.input.skip_large(bytes);
                        self.session.dropped_unread(promised);
                        self.dropped();
                    } else {
                        self.lack(Lacking::Budget(input::cost(bytes) - self.held));
                        return Ok(());
                    }
                }
                Next::Frame { bytes, is_publish } => {
                    if self.is_too_fast()? {
                        return Ok(());
                    }
                    let mut admitted = true;
                    if is_publish && let Err(lacking) = self.admit(input::cost(bytes))? {
                        if !self.dropping {
                            self.lack(lacking);
                            return Ok(());
                        }
                        admitted = false;
                    }
                    if let Some(meter) = &self.meter {
                        meter.charge(is_publish, bytes, Instant::now());
                    }
                    let frame = self.input.take(bytes);
                    let packet = codec::read(self.protocol, frame).map_err(|error| self.broken(&error))?;
                    let before = self.session.unsettled();
                    self.session.packet(packet, admitted, &mut self.actions);
                    if is_publish && !admitted {
                        self.dropped();
                    }
                    if self.session.unsettled() > before {
                        let arrived_us = *arrived_us.get_or_insert_with(now_us);
                        self.deliver(input::cost(bytes), arrived_us);
                    }
                    self.perform().await?;
                    if self.out.len() >= OUT_MAX {
                        return Ok(());
                    }
                }
            }
        }
        if self.drained && (self.dropping || self.timers.is_paused()) {
            self.timers.caught_up(Instant::now());
            self.dropping &= self.session.is_holed();
        }
        // Kept while the next frame needs them, given back to the others otherwise.
        self.slot = None;
        if !self.input.expects_large() {
            self.give_back();
        }
        Ok(())
    }

    /// Whether the client has to wait before it is served again. Nothing is dropped for that.
    fn is_too_fast(&mut self) -> Result<bool, Reason> {
        match self.meter.as_ref().map_or(Turn::Now, |meter| meter.turn(Instant::now())) {
            Turn::Now => Ok(false),
            Turn::At(until) => {
                self.gate.metrics.slowed.inc();
                // What it took of the budget may be in use already; its place in the channel is not.
                self.slot = None;
                self.lacking = Some(Lacking::Rate(until));
                Ok(true)
            }
            Turn::Never => Err(Reason::RateLimit),
        }
    }

    fn give_back(&mut self) {
        if self.held > 0 {
            self.gate.budget.give(std::mem::take(&mut self.held));
        }
    }

    /// Gathers what a publish needs to be handed over. Budget before channel: nobody holds a place in the channel
    /// while waiting for bytes.
    fn admit(&mut self, bytes: usize) -> Result<Result<(), Lacking>, Reason> {
        if !self.session.has_room() {
            return Ok(Err(Lacking::Window));
        }
        if !self.hold(bytes) {
            return Ok(Err(Lacking::Budget(bytes - self.held)));
        }
        if self.slot.is_none() {
            match self.inbound.try_reserve() {
                Ok(slot) => self.slot = Some(slot),
                Err(TrySendError::Full(())) => return Ok(Err(Lacking::Channel)),
                Err(TrySendError::Closed(())) => return Err(Reason::Stopping),
            }
        }
        Ok(Ok(()))
    }

    fn hold(&mut self, bytes: usize) -> bool {
        if self.held < bytes {
            if !self.gate.budget.try_take(bytes - self.held) {
                return false;
            }
            self.held = bytes;
        }
        true
    }

    fn lack(&mut self, lacking: Lacking) {
        if matches!(lacking, Lacking::Window) {
            self.slot = None;
            self.give_back();
        }
        self.lacking = Some(lacking);
        if self.timers.pause(Instant::now()) {
            self.gate.metrics.paused.inc();
        }
    }

    fn dropped(&mut self) {
        self.gate.metrics.dropped_unacked.inc();
        if self.muted == Muted::No && self.session.kind() == PrincipalKind::Terminal {
            self.muted = Muted::Untold(now_us());
        }
        self.timers.dropped(Instant::now());
        if self.session.is_holed() {
            self.client.handle.marked.store(true, Ordering::Release);
        }
    }

    /// Hands over the publish the session has just accepted: the only `Deliver` among the actions.
    fn deliver(&mut self, bytes: usize, arrived_us: i64) {
        let position = self.actions.iter().position(|action| matches!(action, Action::Deliver(_)));
        let Some(Action::Deliver(accepted)) = position.map(|i| self.actions.remove(i)) else { return };
        let Some(slot) = self.slot.take() else { return };
        self.muted = Muted::No;
        self.held -= bytes.min(self.held);
        count_publish(accepted.qos, self.gate);
        let fanout = self.fanout(&accepted, arrived_us);
        slot.send(Inbound::Publish(Publish {
            client_id: Arc::clone(&self.client.client_id),
            topic: accepted.topic,
            payload: accepted.payload,
            qos: accepted.qos,
            retain: accepted.retain,
            arrived_us,
            epoch: self.client.handle.epoch,
            properties: accepted.properties,
            ack: self.client.handle.window.accept(bytes, fanout),
        }));
    }

    /// What subscribers get once it is committed; nothing if there are none.
    fn fanout(&self, accepted: &Accepted, arrived_us: i64) -> Option<Box<Fanout>> {
        if !accepted.for_hub || !(accepted.retain || self.gate.hub.is_wanted()) {
            return None;
        }
        Some(Box::new(Fanout {
            topic: Arc::clone(&accepted.topic),
            payload: accepted.payload.clone(),
            qos: accepted.qos,
            retain: accepted.retain,
            arrived_us,
            epoch: self.client.handle.epoch,
            properties: accepted.properties.clone(),
        }))
    }

    /// Does what the session asks for.
    async fn perform(&mut self) -> Result<(), Reason> {
        let mut acked = 0;
        let mut actions = std::mem::take(&mut self.actions);
        for action in actions.drain(..) {
            match action {
                Action::Reply(reply) => {
                    acked += u64::from(matches!(reply, Reply::PubAck(_) | Reply::PubRec(_)));
                    self.reply(reply)?;
                }
                Action::Deliver(_) => debug_assert!(false, "delivered before"),
                Action::Subscribe { joins, replay, reply } => self.subscribe(joins, replay, reply).await?,
                Action::Unsubscribe { filters, reply } => self.unsubscribe(filters, reply).await?,
                Action::Close(reason) => {
                    self.gate.metrics.acked.inc_by(acked);
                    return Err(reason);
                }
            }
        }
        // Its memory is used again.
        self.actions = actions;
        if acked > 0 {
            self.gate.metrics.acked.inc_by(acked);
        }
        Ok(())
    }

    pub(super) fn reply(&mut self, reply: Reply) -> Result<(), Reason> {
        codec::write(self.protocol, reply, &mut self.out).map_err(|error| self.broken(&error))
    }

    fn read(&mut self, bytes: usize) {
        let now = Instant::now();
        self.gate.metrics.bytes_in.inc_by(bytes as u64);
        self.timers.heard(now);
        self.drained = self.input.read(bytes);
    }

    fn wrote(&mut self, bytes: usize) {
        self.gate.metrics.bytes_out.inc_by(bytes as u64);
        if self.out.is_empty() {
            self.timers.written();
            self.flushed();
            if self.out.capacity() > OUT_KEPT {
                self.out = BytesMut::new();
            }
        } else {
            self.timers.writing(true, Instant::now());
        }
    }

    fn stop(&mut self) {
        self.stopping = true;
        self.lacking = None;
        self.subscriber = None;
        self.timers.drain(self.gate.config.drain_timeout, Instant::now());
    }

    fn due(&mut self, now: Instant) -> Result<(), Reason> {
        match self.timers.due(now) {
            Some(Due::KeepAlive) if matches!(self.lacking, Some(Lacking::Rate(_))) => self.timers.heard(now),
            Some(Due::KeepAlive) => return Err(Reason::KeepAlive),
            Some(Due::WriteStuck) => return Err(Reason::Slow),
            Some(Due::DrainOver) => return Err(Reason::Stopping),
            Some(Due::PauseOver) => {
                self.dropping = true;
                self.lacking = None;
                self.timers.caught_up(now);
            }
            Some(Due::Recovered) => {
                self.timers.dropped(now);
                let waits = self.client.handle.is_resending.load(Ordering::Acquire);
                if !waits && self.session.is_holed() && self.session.unsettled() == 0 && self.has_capacity() {
                    self.client.handle.marked.store(true, Ordering::Release);
                    self.gate.resend.notify_one();
                }
            }
            None => {}
        }
        Ok(())
    }

    /// Whether a message could be handed over now.
    fn has_capacity(&self) -> bool {
        let bytes = input::cost(0);
        let has_bytes = self.gate.budget.try_take(bytes);
        if has_bytes {
            self.gate.budget.give(bytes);
        }
        has_bytes && self.inbound.capacity() > 0
    }

    pub(super) fn broken(&self, error: &CodecError) -> Reason {
        tracing::debug!(client_id = %self.client.client_id, %error, "client broke the protocol");
        match error {
            CodecError::TooLarge(_) => Reason::TooLarge,
            _ => Reason::Protocol,
        }
    }
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        self.give_back();
    }
}

enum Found<'a> {
    Slot(mpsc::Permit<'a, Inbound>),
    Bytes(usize),
    Time,
    Closed,
}

/// Waits for what is lacking, first come first served. The window is waited for by the bell.
async fn find<'a>(lacking: Option<Lacking>, gate: &Shared, inbound: &'a mpsc::Sender<Inbound>) -> Found<'a> {
    match lacking {
        Some(Lacking::Channel) => match inbound.reserve().await {
            Ok(slot) => Found::Slot(slot),
            Err(_) => Found::Closed,
        },
        Some(Lacking::Budget(bytes)) => {
            gate.budget.take(bytes).await;
            Found::Bytes(bytes)
        }
        Some(Lacking::Rate(until)) => {
            tokio::time::sleep_until(until).await;
            Found::Time
        }
        Some(Lacking::Window) | None => std::future::pending().await,
    }
}
