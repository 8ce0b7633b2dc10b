//! A monitoring terminal: watches one lift, numbers what it sees, keeps it until it is acknowledged.
//!
//! A pure state machine: time, connects, disconnects and acknowledgements go in, messages come out. Readings
//! come on change, at 1 Hz while the car runs, and as a heartbeat; or evenly, for load. Readings and events
//! share one counter. At a connect the present state goes first, complete, then the list of active faults,
//! then what is new, then the backlog in batches (DESIGN.md 4).

mod json;
mod outage;
mod outbox;

use std::sync::Arc;
use std::time::Duration;

use domain::{
    Area, BootId, Code, Counter, Counters, EventBatch, FaultEvent, Seq, Statistics, TelemetryBatch,
    TerminalId, Timestamp,
};

use crate::fault::{Fault, Truth};
use crate::lift::{Codes, Lift, Observation};
use outage::Outage;
use outbox::{Entry, Item, Outbox, Sent};

pub use outbox::Kind;
pub use settings::{Format, Pace, Qos, Settings};

mod settings;

/// A PUBLISH to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Topic.
    pub topic: Arc<str>,
    /// Packet id; not used at QoS 0.
    pub pkid: u16,
    /// Payload.
    pub payload: Vec<u8>,
    /// Readings and events inside.
    pub items: usize,
    /// Some of it was sent before and not acknowledged.
    pub resent: bool,
}

/// What an acknowledgement was for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// When the message was sent.
    pub sent: Timestamp,
    /// When its oldest entry was made; `None` for a list of active faults.
    pub made: Option<Timestamp>,
    /// Boot of its entries.
    pub boot: u32,
    /// Which kind.
    pub kind: Kind,
    /// Their sequence numbers.
    pub seqs: Vec<i64>,
}

/// What is left to say right after a connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Greeting {
    State,
    Active,
    Done,
}

/// A terminal.
#[derive(Debug)]
pub struct Terminal {
    settings: Arc<Settings>,
    id: TerminalId,
    topics: [Arc<str>; 3],
    lift: Lift,
    boot: u32,
    seq: i64,
    prev_boot_last_seq: Option<i64>,
    skew: Duration,
    outbox: Outbox,
    outage: Option<Outage>,
    /// What the last reading said.
    said: Observation,
    /// The next reading that is due by the clock.
    next_reading: Timestamp,
    next_statistics: Option<Timestamp>,
    /// What its lift had counted when this terminal began to count.
    counted_before: Counters,
    connected: bool,
    greeting: Greeting,
    dropped: u64,
    resting: bool,
}

impl Terminal {
    /// A terminal in boot `boot` whose first reading by the clock is due at `first`.
    pub fn new(
        settings: Arc<Settings>,
        id: TerminalId,
        area: Area,
        lift: Lift,
        boot: u32,
        first: Timestamp,
    ) -> Self {
        let suffix = if settings.format == Format::Json { ".json" } else { "" };
        let topic = |kind| Arc::from(format!("lift/v1/{area}/{id}/{kind}{suffix}"));
        Self {
            topics: [Kind::Telemetry, Kind::Event, Kind::Statistics].map(|kind| topic(kind.channel())),
            outbox: Outbox::new(settings.outbox_max.max(2 * settings.window)),
            outage: None,
            said: lift.observe(),
            next_statistics: settings.statistics.map(|period| first.plus(period)),
            counted_before: counters(&lift),
            settings,
            id,
            lift,
            boot,
            seq: 0,
            prev_boot_last_seq: None,
            skew: Duration::ZERO,
            next_reading: first,
            connected: false,
            greeting: Greeting::Done,
            dropped: 0,
            resting: false,
        }
    }

    /// Lets its clock run `skew` ahead of the truth.
    #[must_use]
    pub fn with_skew(self, skew: Duration) -> Self {
        Self { skew, ..self }
    }

    /// Lets it have a backlog: a reading for each second of `length`, as `lift` was from its own time on. Its
    /// present numbers come after those.
    #[must_use]
    pub fn with_outage(self, lift: Lift, length: Duration) -> Self {
        let outage = Outage::new(lift, length);
        Self { seq: outage.count(), outage: Some(outage), ..self }
    }

    /// Its id.
    pub fn id(&self) -> &TerminalId {
        &self.id
    }

    /// Readings and events not acknowledged yet.
    pub fn unacknowledged(&self) -> usize {
        self.outbox.len()
    }

    /// Readings and events lost to a full outbox so far.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Stages a fault at its lift. False when too many wait already.
    pub fn inject(&mut self, fault: Fault, now: Timestamp) -> bool {
        self.tick(now);
        self.lift.inject(fault)
    }

    /// Ends the fault that is on.
    pub fn release(&mut self, now: Timestamp) {
        self.tick(now);
        self.lift.release();
    }

    /// What has really happened at its lift; finished faults are told once.
    pub fn take_truths(&mut self) -> Vec<Truth> {
        if !self.lift.has_episodes() {
            return Vec::new();
        }
        let truth = |episode: crate::lift::Episode| Truth {
            terminal: self.id.clone(),
            fault: episode.kind,
            begin: episode.begin,
            end: episode.end,
            people: episode.people,
            expected: episode.expected,
        };
        self.lift.take_episodes().into_iter().map(truth).collect()
    }

    /// Makes no more readings; what it has is still sent.
    pub fn rest(&mut self) {
        self.resting = true;
    }

    /// Restarts its software: another boot, numbers from 1. The outbox is on flash and survives.
    pub fn reboot(&mut self, boot: u32) {
        self.prev_boot_last_seq = Some(self.seq);
        (self.boot, self.seq) = (boot, 0);
    }

    /// Its counters begin at nothing, as those of a new or a reset terminal do.
    pub fn reset_counters(&mut self) {
        self.counted_before = counters(&self.lift);
    }

    /// When [`Terminal::tick`] has something to do by itself; `None` while resting.
    pub fn next_due(&self) -> Option<Timestamp> {
        let clock = self.next_statistics.map_or(self.next_reading, |due| due.min(self.next_reading));
        (!self.resting).then(|| self.lift.next_change().min(clock))
    }

    /// Brings lift and terminal to `now`; readings and events on the way go to the outbox.
    pub fn tick(&mut self, now: Timestamp) {
        if let Pace::Every(interval) = self.settings.pace {
            // After a long pause only what the outbox can hold is made up for.
            let most = interval.saturating_mul(u32::try_from(self.settings.outbox_max).unwrap_or(u32::MAX));
            self.next_reading = self.next_reading.max(now.minus(most));
        }
        while let Some(due) = self.next_due().filter(|due| *due <= now) {
            self.lift.advance(due);
            self.look(due);
            self.count(due);
        }
        if !self.resting {
            self.lift.advance(now);
        }
    }

    fn count(&mut self, now: Timestamp) {
        let Some(period) = self.settings.statistics else { return };
        if self.next_statistics.is_none_or(|due| due > now) {
            return;
        }
        self.next_statistics = Some(now.plus(period));
        let before = self.counted_before;
        let since = |(counter, value): (Counter, i64)| (counter, value - before.get(counter).unwrap_or(0));
        self.push(Item::Counted(counters(&self.lift).iter().map(since).collect()), now);
    }

    fn look(&mut self, now: Timestamp) {
        let seen = self.lift.observe();
        let due = self.next_reading <= now;
        match self.settings.pace {
            Pace::OnChange if due || seen != self.said => {
                let calm = !self.lift.is_running();
                let wait = if calm { self.settings.heartbeat } else { self.settings.running };
                self.next_reading = now.plus(wait);
                self.say(seen, now, self.settings.complete);
            }
            Pace::Every(interval) if due => {
                self.next_reading = self.next_reading.plus(interval);
                self.say(seen, now, self.settings.complete);
            }
            Pace::Unlimited if due => {
                // Readings are made when there is room for them; only events come by the clock.
                self.next_reading = now.plus(self.settings.heartbeat);
            }
            _ if seen.codes != self.said.codes => self.say(seen, now, self.settings.complete),
            _ => {}
        }
    }

    /// Writes a reading, and an event for each code that came or went.
    fn say(&mut self, seen: Observation, now: Timestamp, complete: bool) {
        let before = (!complete).then(|| Box::new(self.said));
        let (old, new) = (self.said.codes, seen.codes);
        self.said = seen;
        self.push(Item::State { seen, before }, now);
        let ended = old.without(new).slugs().map(|code| (code, domain::EventState::Close));
        let begun = new.without(old).slugs().map(|code| (code, domain::EventState::Open));
        for (code, state) in ended.chain(begun) {
            self.push(Item::Event { code, state }, now);
        }
    }

    fn push(&mut self, item: Item, at: Timestamp) {
        self.seq += 1;
        let entry = Entry { boot: self.boot, seq: self.seq, at, item, sent_before: false };
        self.dropped += u64::from(self.outbox.push(entry, self.connected));
    }

    /// The server has accepted the connection.
    pub fn connected(&mut self, now: Timestamp) {
        self.tick(now);
        self.connected = true;
        self.greeting = Greeting::State;
        self.say(self.lift.observe(), now, true);
    }

    /// The connection is gone; what was on its way is sent again.
    pub fn disconnected(&mut self) {
        self.connected = false;
        self.outbox.disconnected();
    }

    /// The next message, while the window has room.
    pub fn next_message(&mut self, now: Timestamp) -> Option<Outgoing> {
        if !self.connected || self.outbox.inflight() >= self.settings.window {
            return None;
        }
        if self.greeting == Greeting::Active {
            self.greeting = Greeting::Done;
            return Some(self.active_list(now));
        }
        if self.outbox.waiting() == 0 && !self.resting {
            self.remember();
        }
        if self.settings.pace == Pace::Unlimited && self.outbox.waiting() == 0 && !self.resting {
            self.say(self.lift.observe(), now, self.settings.complete);
        }
        // The first message after a connect is the state alone: it must not wait for a batch to fill.
        let live_max = if self.greeting == Greeting::State { 1 } else { self.settings.live_batch };
        let sent = self.outbox.take(live_max, self.settings.backlog_batch, now)?;
        if self.greeting == Greeting::State {
            self.greeting = Greeting::Active;
        }
        let pkid = sent.pkid;
        let kind = sent.entries.first().map_or(Kind::Telemetry, |entry| entry.item.kind());
        // Device times are this clock's, also of what it wrote down long ago.
        let voice = Voice { format: self.settings.format, skew: self.skew, now };
        let prev = self.prev_boot_last_seq.filter(|_| sent.entries.iter().all(|one| one.boot == self.boot));
        let outgoing = Outgoing {
            topic: self.topics[kind as usize].clone(),
            pkid,
            payload: match kind {
                Kind::Telemetry => voice.telemetry(sent, prev),
                Kind::Event => voice.events(sent),
                Kind::Statistics => voice.statistics(sent),
            },
            items: sent.entries.len(),
            resent: sent.entries.iter().any(|entry| entry.sent_before),
        };
        if self.settings.qos == Qos::AtMostOnce {
            self.outbox.acknowledge(pkid);
        }
        Some(outgoing)
    }

    /// One more message of the backlog.
    fn remember(&mut self) {
        for _ in 0..self.settings.backlog_batch {
            let Some(entry) = self.outage.as_mut().and_then(|outage| outage.next(self.boot)) else {
                self.outage = None;
                return;
            };
            self.outbox.push(entry, false);
        }
    }

    fn active_list(&mut self, now: Timestamp) -> Outgoing {
        let voice = Voice { format: self.settings.format, skew: self.skew, now };
        let pkid = self.outbox.announce(now);
        if self.settings.qos == Qos::AtMostOnce {
            self.outbox.acknowledge(pkid);
        }
        let payload = voice.active(self.boot, self.said.codes);
        Outgoing { topic: self.topics[1].clone(), pkid, payload, items: 0, resent: false }
    }

    /// PUBACK or PUBREC: the server has taken over. `None` for an id that is not on its way.
    pub fn acknowledged(&mut self, pkid: u16) -> Option<Delivered> {
        let sent = self.outbox.acknowledge(pkid)?;
        let first = sent.entries.first();
        let kind = first.map_or(Kind::Event, |entry| entry.item.kind());
        let boot = first.map_or(self.boot, |entry| entry.boot);
        if first.is_some() && kind == Kind::Telemetry && boot == self.boot {
            self.prev_boot_last_seq = None;
        }
        Some(Delivered {
            sent: sent.at,
            made: first.map(|entry| entry.at),
            boot,
            kind,
            seqs: sent.entries.iter().map(|entry| entry.seq).collect(),
        })
    }
}

/// What a lift has counted, in the units of the wire. Energy is a rough figure: 1.5 Wh a metre.
fn counters(lift: &Lift) -> Counters {
    let tally = lift.tally();
    let whole = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    [
        (Counter::DoorOpenCount, whole(tally.door_openings)),
        (Counter::EnergyWh, (tally.travelled_m * 1.5) as i64),
        (Counter::RunningS, whole(tally.running.as_secs())),
        (Counter::RunCount, whole(tally.runs)),
        (Counter::MileageM, tally.travelled_m as i64),
        (Counter::PassengerCount, whole(tally.passengers)),
    ]
    .into_iter()
    .collect()
}

/// How a terminal writes: its format, its clock, the moment of transmission.
struct Voice {
    format: Format,
    skew: Duration,
    now: Timestamp,
}

impl Voice {
    fn telemetry(&self, sent: &Sent, prev_boot_last_seq: Option<i64>) -> Vec<u8> {
        let reading = |entry: &Entry| {
            let (seq, at) = (Seq(entry.seq), entry.at.plus(self.skew));
            match &entry.item {
                Item::State { seen, before: None } => Some(seen.reading(seq, at)),
                Item::State { seen, before: Some(before) } => Some(seen.changes(before, seq, at)),
                Item::Event { .. } | Item::Counted(_) => None,
            }
        };
        let batch = TelemetryBatch {
            boot: BootId(sent.entries.first().map_or(0, |entry| entry.boot)),
            sent: Some(self.now.plus(self.skew)),
            prev_boot_last_seq,
            dropped: sent.gap.map(|gap| (gap.from, gap.to)),
            readings: sent.entries.iter().filter_map(reading).collect(),
        };
        match self.format {
            Format::Protobuf => proto::encode::telemetry(&batch),
            Format::Json => json::telemetry(&batch),
        }
    }

    fn events(&self, sent: &Sent) -> Vec<u8> {
        let event = |entry: &Entry| {
            let Item::Event { code, state } = entry.item else { return None };
            let (seq, time) = (Seq(entry.seq), entry.at.plus(self.skew));
            Code::canonical(code).map(|code| FaultEvent { seq, time, code, state })
        };
        self.event_batch(EventBatch {
            boot: BootId(sent.entries.first().map_or(0, |entry| entry.boot)),
            sent: Some(self.now.plus(self.skew)),
            events: sent.entries.iter().filter_map(event).collect(),
            active: None,
        })
    }

    fn statistics(&self, sent: &Sent) -> Vec<u8> {
        let first = sent.entries.first();
        let counters = match first.map(|entry| &entry.item) {
            Some(Item::Counted(counters)) => *counters,
            _ => Counters::default(),
        };
        let statistics = Statistics {
            boot: BootId(first.map_or(0, |entry| entry.boot)),
            sent: Some(self.now.plus(self.skew)),
            seq: Seq(first.map_or(0, |entry| entry.seq)),
            time: first.map_or(self.now, |entry| entry.at).plus(self.skew),
            counters,
        };
        match self.format {
            Format::Protobuf => proto::encode::statistics(&statistics),
            Format::Json => json::statistics(&statistics),
        }
    }

    fn active(&self, boot: u32, codes: Codes) -> Vec<u8> {
        self.event_batch(EventBatch {
            boot: BootId(boot),
            sent: Some(self.now.plus(self.skew)),
            events: Vec::new(),
            active: Some(codes.slugs().filter_map(Code::canonical).collect()),
        })
    }

    fn event_batch(&self, batch: EventBatch) -> Vec<u8> {
        match self.format {
            Format::Protobuf => proto::encode::events(&batch),
            Format::Json => json::events(&batch),
        }
    }
}

#[cfg(test)]
mod tests;
