//! From a connection to the session that outlives it, and back.

use std::sync::Arc;

use super::Client;
use super::exchange::Exchange;
use super::fan_in::Replaying;
use super::input;
use crate::ack::{Window, lock};
use crate::auth::{Principal, PrincipalKind};
use crate::gate::Shared;
use crate::hub::{Fanout, Subscriber, now_us};
use crate::inbound::{Inbound, Publish, Reason};
use crate::metrics::ReasonLabel;
use crate::session::Kept;
use crate::sessions::{DueWill, Stored, publish_all};
use crate::topic;

/// What a connection leaves behind, if its session outlives it.
#[derive(Debug)]
pub(super) struct Suspended {
    kept: Kept,
    subscriber: Option<Subscriber>,
    replays: Vec<Replaying>,
    windows: Vec<(u64, Arc<Window>)>,
    expiry_s: u32,
}

impl Exchange<'_> {
    /// Takes out what outlives the connection.
    pub(super) fn suspend(&mut self, reason: Reason) -> Option<Box<Suspended>> {
        let expiry_s = self.session.expiry_s();
        // What the hub has lost cannot be resumed, who was shut out shall not, and a stop ends everything.
        let over = matches!(reason, Reason::HubLost | Reason::Revoked | Reason::Stopping);
        if expiry_s == 0 || over || self.stopping {
            return None;
        }
        let handle = &self.client.handle;
        let mut kept = self.session.suspend(handle.epoch, reason == Reason::AckFailed);
        let subscriber = self.subscriber.take().filter(|_| kept.needs_hub());
        if kept.needs_hub() && subscriber.as_ref().is_none_or(Subscriber::is_lost) {
            return None;
        }
        if let Some(subscriber) = &subscriber {
            subscriber.sleep(true);
        }
        let mut windows = std::mem::take(&mut self.earlier);
        windows.push((handle.epoch, Arc::clone(&handle.window)));
        windows.retain(|(epoch, _)| kept.awaits(*epoch));
        let replays = std::mem::take(&mut self.replays);
        kept.shrink();
        Some(Box::new(Suspended { kept, subscriber, replays, windows, expiry_s }))
    }

    /// Sends again what was in flight when the last connection ended, as far as the client can take it.
    pub(super) fn resends(&mut self) -> Result<(), Reason> {
        while !self.stopping
            && self.has_room_to_send()
            && let Some((pkid, held)) = self.session.resend()
        {
            if self.write_message(&held.message, pkid, true)? {
                self.session.hold(pkid, held);
            }
        }
        Ok(())
    }

    /// Hears of commits that earlier connections of this session wait for.
    pub(super) fn settle_earlier(&mut self) {
        for (epoch, window) in &self.earlier {
            let settled = window.take();
            if settled.committed > 0 || settled.failed {
                self.session.settled_earlier(*epoch, settled, &mut self.actions);
            }
        }
        self.earlier.retain(|(epoch, _)| self.session.awaits(*epoch));
    }
}

/// The session a newcomer goes on with. What it does not want, or may not have any more, ends here.
pub(super) async fn resumable(
    client: &Client,
    clean: bool,
    principal: &Principal,
    gate: &Arc<Shared>,
) -> Option<Box<Stored>> {
    let mut stored = lock(&gate.sessions).take(&client.client_id)?;
    let reason = if clean {
        "clean_start"
    } else if stored.expires_us <= now_us() {
        "expired"
    } else if !stored.kept.is_within(principal) {
        "rights"
    } else if stored.subscriber.as_ref().is_some_and(Subscriber::is_lost) {
        "hub_lost"
    } else {
        gate.metrics.sessions_resumed.inc();
        if let Some(subscriber) = &stored.subscriber {
            subscriber.sleep(false);
        }
        for (_, window) in &stored.windows {
            window.bequeath(&client.handle.window);
        }
        // It came back before its will was due, which is not published any more.
        stored.will = None;
        return Some(stored);
    };
    gate.metrics.sessions_discarded.get_or_create(&ReasonLabel { reason }).inc();
    if let Some((will, _)) = stored.will.take() {
        publish_will(will, gate).await;
    }
    None
}

/// Puts what a connection leaves behind where the next one finds it; with it the will, if that is not due yet.
/// Answers with the will if it is.
pub(super) async fn store(
    client: &Client,
    suspended: Option<Box<Suspended>>,
    will: Option<DueWill>,
    gate: &Arc<Shared>,
) -> Option<DueWill> {
    let Some(suspended) = suspended else { return will };
    let now_us = now_us();
    let after = |seconds: u32| now_us.saturating_add(i64::from(seconds) * 1_000_000);
    let (later, now) = match will {
        Some(due) if due.will.delay_s > 0 => (Some(due), None),
        will => (None, will),
    };
    let Suspended { kept, subscriber, replays, windows, expiry_s } = *suspended;
    let stored = Stored {
        kept,
        subscriber,
        replays,
        windows,
        epoch: client.handle.epoch,
        expires_us: after(expiry_s),
        will: later.map(|will| {
            let due_us = after(will.will.delay_s);
            (will, due_us)
        }),
    };
    let evicted = {
        let mut sessions = lock(&gate.sessions);
        // A newcomer that would not wait longer has begun without it.
        if client.handle.is_superseded() {
            return now.or_else(|| stored.will.map(|(will, _)| will));
        }
        sessions.put(&client.client_id, stored)
    };
    publish_all(evicted, gate).await;
    now
}

/// As the client's own publish, except that nobody waits for its acknowledgement. Dropped if the budget is full.
pub(crate) async fn publish_will(due: DueWill, gate: &Arc<Shared>) {
    let DueWill { client_id, epoch, window, will } = due;
    let bytes = input::cost(will.topic.len() + will.payload.len());
    if !gate.budget.try_take(bytes) {
        gate.metrics.dropped_unacked.inc();
        return;
    }
    let arrived_us = now_us();
    let fanout = topic::is_topic_for_hub(&will.topic).then(|| {
        Box::new(Fanout {
            topic: Arc::clone(&will.topic),
            payload: will.payload.clone(),
            qos: will.qos,
            retain: will.retain,
            arrived_us,
            epoch,
            properties: will.properties.clone(),
        })
    });
    super::count_publish(will.qos, gate);
    let publish = Publish {
        client_id,
        topic: will.topic,
        payload: will.payload,
        qos: will.qos,
        retain: will.retain,
        arrived_us,
        epoch,
        properties: will.properties,
        ack: window.accept(bytes, fanout),
    };
    // Fails only when the consumer is gone; then the process is ending.
    let _ = gate.inbound.send(Inbound::Publish(publish)).await;
}

impl Exchange<'_> {
    /// A resumed terminal listens without subscribing again.
    pub(super) fn listen_again(&mut self) {
        if self.session.kind() == PrincipalKind::Terminal && self.session.has_subscriptions() {
            self.listen();
            self.announce();
        }
    }
}
