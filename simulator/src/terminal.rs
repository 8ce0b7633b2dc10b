//! A monitoring terminal: looks at its lift, decides what to say, keeps it until it is acknowledged.
//!
//! Pure: time is an argument, bytes are the result. Every reading is complete. After a (re)connect it says
//! the present state and the active codes first, then the backlog, oldest first (docs/wire.md).

use std::time::Duration;

use bytes::Bytes;
use domain::{
    Area, BootId, CarStatus, Code, EventBatch, FaultEvent, Field, Floor, Passengers, Reading, Seq,
    ServiceMode, TelemetryBatch, TerminalId, Timestamp,
};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::fault::Fault;
use crate::lift::{Happening, Lift, Observation};
use crate::outbox::{Item, Outbox};

/// Items an outbox keeps if not told otherwise: 2.8 hours at 1 Hz.
pub const OUTBOX_ITEMS_MAX: usize = 10_000;
const RUNNING_EVERY: Duration = Duration::from_secs(1);
const HEARTBEAT_EVERY: Duration = Duration::from_mins(1);
/// How often sensors are read while the car moves; sooner than a zone of 30 cm is passed at full speed.
const SENSE_EVERY: Duration = Duration::from_millis(150);

/// When a reading is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// At every change, each second while running, each minute at rest.
    OnChange,
    /// One each so often, and nothing else but events.
    Every(Duration),
    /// Only when asked by [`Terminal::read`].
    OnDemand,
}

/// What a message carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Readings.
    Telemetry,
    /// Events, or the list of active codes.
    Event,
}

impl Kind {
    /// `telemetry` or `event`: the last level of the topic.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Telemetry => "telemetry",
            Kind::Event => "event",
        }
    }
}

/// One message to publish now.
#[derive(Debug, Clone, PartialEq)]
pub struct Outgoing {
    /// Names it when its PUBACK comes; `None` for the list of active codes, which is not kept.
    pub id: Option<u64>,
    /// What it carries.
    pub kind: Kind,
    /// First sequence number; 0 without items.
    pub first_seq: i64,
    /// Last sequence number.
    pub last_seq: i64,
    /// Whether some of it was sent before.
    pub resent: bool,
    /// Readings in it that were not sent before.
    pub fresh_readings: usize,
    /// The payload.
    pub payload: Bytes,
}

/// A note of the truth about a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Note {
    /// It began, with or without people in the car.
    Began(Timestamp, Fault, bool),
    /// It ended.
    Ended(Timestamp, Fault),
}

/// One terminal and its lift.
#[derive(Debug)]
pub struct Terminal {
    id: TerminalId,
    area: Area,
    boot: BootId,
    json: bool,
    policy: Policy,
    lift: Lift,
    outbox: Outbox,
    next_seq: i64,
    last: Option<Observation>,
    next_reading: Timestamp,
    now: Timestamp,
    /// After a connect: the reading to say first, and whether the active list is still to be said.
    state_first: Option<i64>,
    active_next: bool,
}

impl Terminal {
    /// A terminal that has just booted.
    pub fn new(id: TerminalId, area: Area, boot: BootId, lift: Lift, policy: Policy, at: Timestamp) -> Self {
        Self {
            id,
            area,
            boot,
            json: false,
            policy,
            lift,
            outbox: Outbox::new(OUTBOX_ITEMS_MAX),
            next_seq: 1,
            last: None,
            next_reading: at,
            now: at,
            state_first: None,
            active_next: false,
        }
    }

    /// Says everything in the open JSON instead of protobuf.
    #[must_use]
    pub fn with_json(mut self, json: bool) -> Self {
        self.json = json;
        self
    }

    /// Delays the first reading, so that a fleet does not speak in chorus.
    #[must_use]
    pub fn with_first_reading(mut self, at: Timestamp) -> Self {
        self.next_reading = at;
        self
    }

    /// Its id.
    pub fn id(&self) -> &TerminalId {
        &self.id
    }

    /// Its boot.
    pub fn boot(&self) -> BootId {
        self.boot
    }

    /// What is not acknowledged yet.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// The topic for messages of this kind.
    pub fn topic(&self, kind: Kind) -> String {
        let form = if self.json { ".json" } else { "" };
        format!("lift/v1/{}/{}/{}{form}", self.area, self.id, kind.name())
    }

    /// When to call [`Terminal::tick`] next.
    pub fn next_due(&self) -> Timestamp {
        let change = self.lift.next_change().unwrap_or(self.next_reading);
        match self.policy {
            Policy::OnChange if self.lift.is_running() => {
                change.min(self.next_reading).min(self.now.plus(SENSE_EVERY))
            }
            Policy::OnChange | Policy::Every(_) => change.min(self.next_reading),
            Policy::OnDemand => change,
        }
    }

    /// Lives on until `now`: the lift moves, events and readings are made.
    pub fn tick(&mut self, now: Timestamp) -> Vec<Note> {
        let happened = self.lift.advance(now);
        let notes = self.hear(happened);
        self.now = self.now.max(now);
        match self.policy {
            Policy::OnChange => {
                let seen = self.lift.observe();
                let changed = self.last.as_ref().is_none_or(|last| differ(last, &seen));
                if changed || now >= self.next_reading {
                    let running = seen.car_status == CarStatus::Running;
                    self.next_reading = now.plus(if running { RUNNING_EVERY } else { HEARTBEAT_EVERY });
                    self.say(seen);
                }
            }
            Policy::Every(interval) => {
                if now >= self.next_reading {
                    // What was missed while nobody ticked is not made up for.
                    let next = self.next_reading.plus(interval);
                    self.next_reading = if next > now { next } else { now.plus(interval) };
                    self.read(now);
                }
            }
            Policy::OnDemand => {}
        }
        notes
    }

    /// Makes one reading of the present state.
    pub fn read(&mut self, now: Timestamp) -> i64 {
        self.now = self.now.max(now);
        let seen = self.lift.observe();
        self.say(seen)
    }

    /// Makes something go wrong. `false`: an earlier fault lasts.
    pub fn inject(&mut self, fault: Fault, now: Timestamp) -> (bool, Vec<Note>) {
        let mut notes = self.tick(now);
        let (done, happened) = self.lift.inject(fault, now);
        notes.extend(self.hear(happened));
        notes.extend(self.tick(now));
        (done, notes)
    }

    /// Ends the fault that lasts.
    pub fn release(&mut self, now: Timestamp) -> Vec<Note> {
        let mut notes = self.tick(now);
        let happened = self.lift.release(now);
        notes.extend(self.hear(happened));
        notes.extend(self.tick(now));
        notes
    }

    /// A connection is up: the present state is the first thing to say.
    pub fn connected(&mut self, now: Timestamp) {
        self.outbox.requeue();
        self.state_first = Some(self.read(now));
        self.active_next = true;
    }

    /// The connection is gone: what was under way waits again.
    pub fn disconnected(&mut self) {
        self.outbox.requeue();
        self.state_first = None;
        self.active_next = false;
    }

    /// The next message to publish, if there is something to say.
    pub fn next_message(&mut self, now: Timestamp) -> Option<Outgoing> {
        let batch = match self.state_first.take().and_then(|seq| self.outbox.take_one(seq)) {
            Some(batch) => batch,
            None if self.active_next => {
                self.active_next = false;
                return Some(self.active(now));
            }
            None => self.outbox.take()?,
        };
        let seqs = |item: &Item| match item {
            Item::Reading(reading) => reading.seq.0,
            Item::Event(event) => event.seq.0,
        };
        let first_seq = batch.items.first().map_or(0, seqs);
        let last_seq = batch.items.last().map_or(0, seqs);
        let (mut readings, mut events) = (Vec::new(), Vec::new());
        for item in batch.items {
            match item {
                Item::Reading(reading) => readings.push(*reading),
                Item::Event(event) => events.push(event),
            }
        }
        let sent = Some(now);
        let (kind, payload) = if events.is_empty() {
            let (boot, dropped) = (self.boot, batch.dropped);
            let batch = TelemetryBatch { boot, sent, prev_boot_last_seq: None, dropped, readings };
            (
                Kind::Telemetry,
                if self.json { telemetry_json(&batch) } else { proto::encode::telemetry(&batch) },
            )
        } else {
            (Kind::Event, self.encode_events(&EventBatch { boot: self.boot, sent, events, active: None }))
        };
        let payload = payload.into();
        let (id, resent, fresh_readings) = (Some(batch.id), batch.resent, batch.fresh_readings);
        Some(Outgoing { id, kind, first_seq, last_seq, resent, fresh_readings, payload })
    }

    /// A PUBACK came for the message `id`; says of how many items.
    pub fn acknowledged(&mut self, id: u64) -> usize {
        self.outbox.acknowledge(id)
    }

    fn active(&self, now: Timestamp) -> Outgoing {
        let active = self.lift.observe().codes.into_iter().filter_map(Code::canonical).collect();
        let batch = EventBatch { boot: self.boot, sent: Some(now), events: Vec::new(), active: Some(active) };
        let payload = self.encode_events(&batch).into();
        let (kind, resent, fresh_readings) = (Kind::Event, false, 0);
        Outgoing { id: None, kind, first_seq: 0, last_seq: 0, resent, fresh_readings, payload }
    }

    fn encode_events(&self, batch: &EventBatch) -> Vec<u8> {
        if self.json { events_json(batch) } else { proto::encode::events(batch) }
    }

    fn hear(&mut self, happened: Vec<Happening>) -> Vec<Note> {
        let mut notes = Vec::new();
        for one in happened {
            match one {
                Happening::Code(time, slug, state) => {
                    let Some(code) = Code::canonical(slug) else { continue };
                    let seq = self.take_seq();
                    self.outbox.push(Item::Event(FaultEvent { seq: Seq(seq), time, code, state }));
                }
                Happening::Began(at, fault, people) => notes.push(Note::Began(at, fault, people)),
                Happening::Ended(at, fault) => notes.push(Note::Ended(at, fault)),
            }
        }
        notes
    }

    fn take_seq(&mut self) -> i64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        seq
    }

    fn say(&mut self, seen: Observation) -> i64 {
        let seq = self.take_seq();
        self.outbox.push(Item::Reading(Box::new(reading(Seq(seq), self.now, &seen))));
        self.last = Some(seen);
        seq
    }
}

/// Whether something changed that is worth a reading of its own.
fn differ(last: &Observation, seen: &Observation) -> bool {
    last.car_status != seen.car_status
        || last.direction != seen.direction
        || last.door_zone != seen.door_zone
        || last.door_state != seen.door_state
        || last.passengers != seen.passengers
        || last.floor_ordinal != seen.floor_ordinal
        || last.flags != seen.flags
        || last.codes != seen.codes
}

fn reading(seq: Seq, time: Timestamp, seen: &Observation) -> Reading {
    let mut reading = Reading::new(seq, time);
    reading.service_mode = Field::Known(ServiceMode::Normal);
    reading.car_status = Field::Known(seen.car_status);
    reading.direction = Field::Known(seen.direction);
    reading.door_zone = Field::Known(seen.door_zone);
    reading.door_state = Field::Known(seen.door_state);
    reading.passengers = Field::Known(if seen.passengers { Passengers::Yes } else { Passengers::No });
    reading.floor = Floor::new(&seen.floor).map_or(Field::Absent, Field::Known);
    reading.floor_ordinal = Field::Known(seen.floor_ordinal);
    reading.position_mm = Field::Known(seen.position_mm);
    reading.velocity_mm_s = Field::Known(seen.velocity_mm_s);
    reading.load_kg = Field::Known(seen.load_kg);
    reading.flags = Field::Known(seen.flags);
    reading.codes = Field::Known(seen.codes.iter().filter_map(|slug| Code::canonical(slug)).collect());
    reading
}

fn put<T: Serialize>(object: &mut Map<String, Value>, name: &str, field: Field<T>) {
    match field {
        Field::Absent => {}
        Field::Unknown => drop(object.insert(name.to_owned(), Value::Null)),
        Field::Known(value) => drop(object.insert(name.to_owned(), json!(value))),
    }
}

fn raw(codes: &[Code]) -> Vec<&str> {
    codes.iter().map(|code| &*code.raw).collect()
}

fn reading_json(reading: &Reading) -> Value {
    let mut object = Map::new();
    object.insert("seq".to_owned(), json!(reading.seq));
    object.insert("time".to_owned(), json!(reading.time.millis()));
    put(&mut object, "service_mode", reading.service_mode);
    put(&mut object, "car_status", reading.car_status);
    put(&mut object, "car_direction", reading.direction);
    put(&mut object, "door_zone", reading.door_zone);
    put(&mut object, "door_state", reading.door_state);
    put(&mut object, "passengers", reading.passengers.map(|seen| seen == Passengers::Yes));
    put(&mut object, "floor", reading.floor);
    put(&mut object, "floor_ordinal", reading.floor_ordinal);
    put(&mut object, "position_mm", reading.position_mm);
    put(&mut object, "velocity_mm_s", reading.velocity_mm_s);
    put(&mut object, "load_kg", reading.load_kg);
    put(&mut object, "flags", reading.flags);
    put(&mut object, "codes", reading.codes.as_ref().map(|codes| raw(codes)));
    Value::Object(object)
}

fn telemetry_json(batch: &TelemetryBatch) -> Vec<u8> {
    let readings: Vec<Value> = batch.readings.iter().map(reading_json).collect();
    let mut object = json!({ "boot": batch.boot, "readings": readings });
    if let Some(sent) = batch.sent {
        object["sent"] = json!(sent.millis());
    }
    if let Some((from, to)) = batch.dropped {
        object["dropped"] = json!({ "from": from, "to": to });
    }
    object.to_string().into_bytes()
}

fn events_json(batch: &EventBatch) -> Vec<u8> {
    let event = |event: &FaultEvent| json!({ "seq": event.seq, "time": event.time.millis(), "code": event.code.raw, "state": event.state });
    let mut object = json!({ "boot": batch.boot });
    if let Some(sent) = batch.sent {
        object["sent"] = json!(sent.millis());
    }
    if !batch.events.is_empty() {
        object["events"] = batch.events.iter().map(event).collect();
    }
    if let Some(active) = &batch.active {
        object["active"] = json!(raw(active));
    }
    object.to_string().into_bytes()
}

#[cfg(test)]
mod tests;
