//! What one address and one client may take: connections, connects, wrong passwords, messages, bytes.
//!
//! Owns the tables of addresses and clients, both bounded ([`RateLimits::remembered_max`]; a newcomer to a full
//! table is admitted, and that is counted). Decides; does not wait, close or log. The time is an argument.
//!
//! **Slowing down before ending.** A client over its rate is not read until it is back in its allowance: TCP tells it
//! to wait, nothing is lost, and the gate never works faster for it than the rate. It is disconnected only when
//! that goes on for [`RateLimits::client_slowed_max`]: no backlog is that long, so it is a terminal in a loop. The
//! allowance belongs to the client id and survives a reconnect.
//!
//! **Why not `governor`.** A frame is charged when it is here, and may be larger than the whole burst: a client
//! goes into debt and waits it off. governor refuses such a frame for ever, reads its own clock, and forgets
//! keys only when told. The arithmetic is the same (GCRA) and fills one struct, [`Pace`].

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tokio::time::Instant;

use crate::ack::lock;
use crate::auth::Origin;
use crate::config::RateLimits;

/// So much at once, so much per time in the long run.
#[derive(Debug, Clone, Copy)]
struct Quota {
    /// What one unit costs.
    unit: Duration,
    /// How much may be owed when the next unit comes.
    tolerance: Duration,
}

impl Quota {
    fn new(count: u32, period: Duration, burst: u32) -> Self {
        let unit = period / count.max(1);
        Self { unit, tolerance: unit * burst.saturating_sub(1) }
    }
}

/// How far a client has used its allowance: the time at which it will have all of it again.
#[derive(Debug, Clone, Copy)]
struct Pace(Instant);

impl Pace {
    fn charge(&mut self, quota: Quota, units: u32, now: Instant) {
        self.0 = self.0.max(now) + quota.unit * units;
    }

    /// Until when it has to wait, if it has to.
    fn waits_until(self, quota: Quota, now: Instant) -> Option<Instant> {
        let used = self.0.saturating_duration_since(now);
        used.checked_sub(quota.tolerance).filter(|excess| !excess.is_zero()).map(|excess| now + excess)
    }

    fn is_rested(self, now: Instant) -> bool {
        self.0 <= now
    }
}

/// All limits, for all connections of a gate.
#[derive(Debug)]
pub(crate) struct Limiter {
    limits: RateLimits,
    addresses: Mutex<Addresses>,
    failures: Mutex<Failures>,
    clients: Mutex<HashMap<Arc<str>, Arc<Meter>>>,
    hasher: RandomState,
    /// Newcomers to a full table.
    uncounted: Counter,
}

impl Limiter {
    pub(crate) fn new(limits: RateLimits, uncounted: Counter) -> Arc<Self> {
        Arc::new(Self {
            uncounted,
            addresses: Mutex::new(Addresses::new(&limits)),
            failures: Mutex::new(Failures::new(&limits)),
            clients: Mutex::default(),
            hasher: RandomState::new(),
            limits,
        })
    }

    fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.limits.trusted.iter().any(|network| network.contains(&address))
    }

    /// Admits a connection of an address, or says why not. It counts until the seat is dropped.
    pub(crate) fn arrive(self: &Arc<Self>, peer: IpAddr, now: Instant) -> Result<AddressSeat, &'static str> {
        let mut seat = AddressSeat { limiter: Arc::clone(self), address: None };
        if !self.trusts(peer) {
            let address = network_of(peer);
            if lock(&self.addresses).arrive(address, now)? {
                seat.address = Some(address);
            } else {
                self.uncounted.inc();
            }
        }
        Ok(seat)
    }

    /// Whether credentials of this client may be looked at: not after too many wrong ones. A client
    /// certificate, which is proven already, always may.
    pub(crate) fn may_try(&self, origin: &Origin, client_id: &str, now: Instant) -> bool {
        if origin.certificate.is_some() || self.trusts(origin.peer.ip()) {
            return true;
        }
        let (address, client) = self.keys(origin, client_id);
        let failures = lock(&self.failures);
        !failures.is_refused(&address, now) && !failures.is_refused(&client, now)
    }

    /// Credentials of this client were wrong.
    pub(crate) fn failed(&self, origin: &Origin, client_id: &str, now: Instant) {
        if origin.certificate.is_some() || self.trusts(origin.peer.ip()) {
            return;
        }
        let (address, client) = self.keys(origin, client_id);
        let mut failures = lock(&self.failures);
        for (key, count_max) in
            [(address, self.limits.address_failures_max), (client, self.limits.client_failures_max)]
        {
            if !failures.note(key, count_max, now) {
                self.uncounted.inc();
            }
        }
    }

    fn keys(&self, origin: &Origin, client_id: &str) -> (FailureKey, FailureKey) {
        let address = network_of(origin.peer.ip());
        (FailureKey(address, None), FailureKey(address, Some(self.hasher.hash_one(client_id))))
    }

    /// An authenticated client begins a connection: its meter, if it has one, or refused as too often. Not asked
    /// before the client is authenticated, or a stranger could use up what it may.
    pub(crate) fn connect(
        &self,
        origin: &Origin,
        client_id: &Arc<str>,
        now: Instant,
    ) -> Result<Option<Arc<Meter>>, TooOften> {
        if self.trusts(origin.peer.ip()) {
            return Ok(None);
        }
        let mut clients = lock(&self.clients);
        if let Some(meter) = clients.get(client_id) {
            return meter.connect(now).then(|| Some(Arc::clone(meter))).ok_or(TooOften);
        }
        let meter = Arc::new(Meter::new(&self.limits, now));
        meter.connect(now);
        if clients.len() < self.limits.remembered_max {
            clients.insert(Arc::clone(client_id), Arc::clone(&meter));
        } else {
            self.uncounted.inc();
        }
        Ok(Some(meter))
    }

    /// Forgets who is at rest. To be called now and then.
    pub(crate) fn prune(&self, now: Instant) {
        lock(&self.addresses).prune(now);
        lock(&self.failures).prune(now);
        lock(&self.clients).retain(|_, meter| Arc::strong_count(meter) > 1 || !meter.is_rested(now));
    }
}

/// A client connects more often than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooOften;

/// One counted connection of an address.
#[derive(Debug)]
pub(crate) struct AddressSeat {
    limiter: Arc<Limiter>,
    address: Option<IpAddr>,
}

impl Drop for AddressSeat {
    fn drop(&mut self) {
        if let Some(address) = self.address {
            lock(&self.limiter.addresses).leave(address);
        }
    }
}

/// What counts as one address: in IPv6 a customer has a /64 at least.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[derive(Debug)]
struct Addresses {
    known: HashMap<IpAddr, Address>,
    connections_max: u32,
    connects: Quota,
    known_max: usize,
}

#[derive(Debug)]
struct Address {
    open: u32,
    connects: Pace,
}

impl Addresses {
    fn new(limits: &RateLimits) -> Self {
        let per_s = limits.address_connects_per_s;
        Self {
            known: HashMap::new(),
            connections_max: limits.address_connections_max,
            connects: Quota::new(per_s, Duration::from_secs(1), limits.address_connects_burst),
            known_max: limits.remembered_max,
        }
    }

    /// Whether the connection is counted, or why it is refused. One that is refused costs nothing of the allowance:
    /// an address that tries on gets what it may.
    fn arrive(&mut self, address: IpAddr, now: Instant) -> Result<bool, &'static str> {
        if !self.known.contains_key(&address) && self.known.len() >= self.known_max {
            return Ok(false);
        }
        let known = self.known.entry(address).or_insert(Address { open: 0, connects: Pace(now) });
        if known.open >= self.connections_max {
            return Err("address_connections");
        }
        if known.connects.waits_until(self.connects, now).is_some() {
            return Err("address_connects");
        }
        known.connects.charge(self.connects, 1, now);
        known.open += 1;
        Ok(true)
    }

    fn leave(&mut self, address: IpAddr) {
        if let Some(known) = self.known.get_mut(&address) {
            known.open = known.open.saturating_sub(1);
        }
    }

    fn prune(&mut self, now: Instant) {
        self.known.retain(|_, address| address.open > 0 || !address.connects.is_rested(now));
    }
}

/// An address, or one client id (its keyed hash) at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct FailureKey(IpAddr, Option<u64>);

#[derive(Debug)]
struct Failures {
    known: HashMap<FailureKey, Failure>,
    window: Duration,
    pause: Duration,
    known_max: usize,
}

#[derive(Debug)]
struct Failure {
    since: Instant,
    count: u32,
    refused_until: Option<Instant>,
}

impl Failures {
    fn new(limits: &RateLimits) -> Self {
        let (window, pause) = (limits.failures_window, limits.failures_pause);
        Self { known: HashMap::new(), window, pause, known_max: limits.remembered_max }
    }

    /// Whether there was room to count it.
    fn note(&mut self, key: FailureKey, count_max: u32, now: Instant) -> bool {
        if !self.known.contains_key(&key) && self.known.len() >= self.known_max {
            return false;
        }
        let failure = self.known.entry(key).or_insert(Failure { since: now, count: 0, refused_until: None });
        if now.saturating_duration_since(failure.since) >= self.window {
            (failure.since, failure.count) = (now, 0);
        }
        failure.count += 1;
        if failure.count >= count_max.max(1) {
            failure.refused_until = Some(now + self.pause);
        }
        true
    }

    fn is_refused(&self, key: &FailureKey, now: Instant) -> bool {
        self.known.get(key).and_then(|failure| failure.refused_until).is_some_and(|until| now < until)
    }

    fn prune(&mut self, now: Instant) {
        let window = self.window;
        self.known.retain(|_, failure| {
            failure.refused_until.is_some_and(|until| now < until)
                || now.saturating_duration_since(failure.since) < window
        });
    }
}

/// How much one client has sent of late, over all its connections.
#[derive(Debug)]
pub(crate) struct Meter {
    connects: Quota,
    messages: Quota,
    bytes: Quota,
    slowed_max: Duration,
    used: Mutex<Used>,
}

#[derive(Debug)]
struct Used {
    connects: Pace,
    messages: Pace,
    bytes: Pace,
    /// Since when it has not caught up.
    slowed: Option<Instant>,
}

/// Whether the next packet of a client is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    Now,
    At(Instant),
    /// It was slowed for too long.
    Never,
}

impl Meter {
    fn new(limits: &RateLimits, now: Instant) -> Self {
        let (second, minute) = (Duration::from_secs(1), Duration::from_mins(1));
        let rested = Pace(now);
        Self {
            connects: Quota::new(limits.client_connects_per_min, minute, limits.client_connects_burst),
            messages: Quota::new(limits.client_messages_per_s, second, limits.client_messages_burst),
            bytes: Quota::new(limits.client_bytes_per_s, second, limits.client_bytes_burst),
            slowed_max: limits.client_slowed_max,
            used: Mutex::new(Used { connects: rested, messages: rested, bytes: rested, slowed: None }),
        }
    }

    fn connect(&self, now: Instant) -> bool {
        let mut used = lock(&self.used);
        let admitted = used.connects.waits_until(self.connects, now).is_none();
        if admitted {
            used.connects.charge(self.connects, 1, now);
        }
        admitted
    }

    /// Whether a packet may be served.
    pub(crate) fn turn(&self, now: Instant) -> Turn {
        let mut used = lock(&self.used);
        let waits = used.messages.waits_until(self.messages, now);
        let Some(until) = waits.max(used.bytes.waits_until(self.bytes, now)) else { return Turn::Now };
        let slowed = *used.slowed.get_or_insert(now);
        if now.saturating_duration_since(slowed) >= self.slowed_max {
            used.slowed = None;
            return Turn::Never;
        }
        Turn::At(until)
    }

    /// A packet of so many bytes is served.
    pub(crate) fn charge(&self, is_publish: bool, bytes: usize, now: Instant) {
        let mut used = lock(&self.used);
        if is_publish {
            used.messages.charge(self.messages, 1, now);
        }
        used.bytes.charge(self.bytes, bytes as u32, now);
        // Caught up: half of what it may send at once is free again.
        let is_half = |pace: Pace, quota: Quota| pace.0.saturating_duration_since(now) <= quota.tolerance / 2;
        if is_half(used.messages, self.messages) && is_half(used.bytes, self.bytes) {
            used.slowed = None;
        }
    }

    fn is_rested(&self, now: Instant) -> bool {
        let used = lock(&self.used);
        [used.connects, used.messages, used.bytes].iter().all(|pace| pace.is_rested(now))
    }
}

#[cfg(test)]
mod tests;
