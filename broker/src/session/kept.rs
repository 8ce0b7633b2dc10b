//! What outlives a connection, and how the next one goes on with it.
//!
//! Kept: subscriptions, QoS 1 messages in flight to the client, packet ids of QoS 2 publishes up to their PUBREL, each
//! with a hash of what was published under it.
//! QoS 2 publishes that were handed over and not committed when the connection ended are waited for by the epoch
//! of their connection: once committed they are known as received, so that the client's repetition is answered
//! and not handed over twice. Not kept: owed PUBACKs (the client sends again, and two answers to one packet id
//! would be one too many), topic aliases.

use std::collections::{BTreeMap, VecDeque};

use super::{Action, Exact, Inflight, Owed, Session, Subscription};
use crate::ack::Settled;
use crate::auth::{Principal, PrincipalKind};
use crate::inbound::Reason;
use crate::packet::Reply;

/// Ended connections of which a session still waits for commits; beyond that the oldest is forgotten, and what
/// the client repeats of it is handed over again.
const EARLIER_MAX: usize = 8;

/// Publishes of an ended connection that are not settled yet.
#[derive(Debug)]
pub(super) struct Earlier {
    epoch: u64,
    owed: VecDeque<Owed>,
}

/// State of a session without connection.
#[derive(Debug)]
pub(crate) struct Kept {
    kind: PrincipalKind,
    subscriptions: Vec<Subscription>,
    subscription_id_last: usize,
    recorded: BTreeMap<u16, u64>,
    earlier: Vec<Earlier>,
    inflight: VecDeque<Inflight>,
    inflight_id_last: u16,
}

impl Kept {
    /// Whether the client may still have all it subscribed to. If not, it is to begin anew, so that it learns.
    pub(crate) fn is_within(&self, principal: &Principal) -> bool {
        self.kind == principal.kind && self.subscriptions.iter().all(|s| principal.may_subscribe(&s.filter))
    }

    /// Whether the hub must go on collecting for it.
    pub(crate) fn needs_hub(&self) -> bool {
        self.kind == PrincipalKind::Integration && !self.subscriptions.is_empty()
    }

    /// Whether it waits for commits of the connection `epoch`.
    pub(crate) fn awaits(&self, epoch: u64) -> bool {
        self.earlier.iter().any(|earlier| earlier.epoch == epoch)
    }

    /// Gives back memory that a sleeping session does not need.
    pub(crate) fn shrink(&mut self) {
        self.subscriptions.shrink_to_fit();
        self.inflight.shrink_to_fit();
    }
}

impl Session {
    /// The session goes on after its connection, which was `epoch`. With `failed`, nothing more is known of what
    /// that connection handed over.
    pub(crate) fn suspend(&mut self, epoch: u64, failed: bool) -> Kept {
        let mut earlier = std::mem::take(&mut self.earlier);
        let owed: VecDeque<Owed> = self.owed.drain(..).map(Owed::silent).collect();
        if !failed && owed.iter().any(|owed| *owed != Owed::Nothing) {
            earlier.push(Earlier { epoch, owed });
        }
        for earlier in &mut earlier {
            for owed in &mut earlier.owed {
                *owed = owed.silent();
            }
        }
        earlier.retain(|earlier| earlier.owed.iter().any(|owed| *owed != Owed::Nothing));
        let surplus = earlier.len().saturating_sub(EARLIER_MAX);
        earlier.drain(..surplus);
        Kept {
            kind: self.principal.kind,
            subscriptions: std::mem::take(&mut self.subscriptions),
            subscription_id_last: self.subscription_id_last,
            recorded: std::mem::take(&mut self.recorded),
            earlier,
            inflight: self.inflight.drain(..).filter(|inflight| inflight.held.is_some()).collect(),
            inflight_id_last: self.inflight_id_last,
        }
    }

    /// A new session goes on with an old one; what was in flight is to be sent again.
    pub(crate) fn resume(&mut self, kept: Kept) {
        self.resumed = true;
        self.subscriptions = kept.subscriptions;
        self.subscription_id_last = kept.subscription_id_last;
        self.recorded = kept.recorded;
        self.earlier = kept.earlier;
        self.unsent = kept.inflight.len();
        self.inflight = kept.inflight;
        self.inflight_id_last = kept.inflight_id_last;
    }

    /// Whether it waits for commits of the connection `epoch`.
    pub(crate) fn awaits(&self, epoch: u64) -> bool {
        self.earlier.iter().any(|earlier| earlier.epoch == epoch)
    }

    /// Like [`Self::settled`], of an earlier connection.
    pub(crate) fn settled_earlier(&mut self, epoch: u64, settled: Settled, actions: &mut Vec<Action>) {
        let Some(position) = self.earlier.iter().position(|earlier| earlier.epoch == epoch) else { return };
        let owed = &mut self.earlier[position].owed;
        for owed in owed.drain(..settled.committed.min(owed.len())) {
            match owed {
                Owed::PubRec(Exact { pkid, content }) => {
                    self.recorded.insert(pkid, content);
                    self.promised -= 1;
                    actions.push(Action::Reply(Reply::PubRec(pkid)));
                }
                Owed::Silent(Exact { pkid, content }) => {
                    self.recorded.insert(pkid, content);
                }
                Owed::Nothing | Owed::PubAck(_) => {}
            }
        }
        let asked = owed.iter().any(|owed| matches!(owed, Owed::PubRec(_)));
        if settled.failed || owed.iter().all(|owed| *owed == Owed::Nothing) {
            self.earlier.remove(position);
        }
        if settled.failed && asked {
            actions.push(Action::Close(Reason::AckFailed));
        }
    }

    /// The client repeats a QoS 2 publish that an earlier connection has handed over: it is answered when that
    /// is committed. False: it is not waited for.
    pub(super) fn repeats_earlier(&mut self, exact: Exact) -> bool {
        let mut owed = self.earlier.iter_mut().flat_map(|earlier| &mut earlier.owed);
        let Some(owed) =
            owed.find(|owed| matches!(owed, Owed::Silent(known) | Owed::PubRec(known) if *known == exact))
        else {
            return false;
        };
        if matches!(owed, Owed::Silent(_)) {
            *owed = Owed::PubRec(exact);
            self.promised += 1;
        }
        true
    }

    /// A packet id is used for another QoS 2 publish than before.
    pub(super) fn forget(&mut self, pkid: u16) {
        for owed in self.earlier.iter_mut().flat_map(|earlier| &mut earlier.owed) {
            match owed {
                Owed::Silent(known) | Owed::PubRec(known) if known.pkid == pkid => {
                    self.promised -= usize::from(matches!(owed, Owed::PubRec(_)));
                    *owed = Owed::Nothing;
                }
                _ => {}
            }
        }
        self.recorded.remove(&pkid);
        // Left by a client that lost its ids and will never release them: refused, it could not send for a day. One
        // that is repeated after all is handed over again, and the store knows it.
        if self.recorded.len() >= self.limits.unacked_max {
            self.recorded.pop_first();
        }
    }
}
