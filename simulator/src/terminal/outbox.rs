//! Store and forward: what a terminal has said and nobody has acknowledged yet.
//!
//! Owns every reading and event from the moment it is numbered until its PUBACK. Promises: nothing that was
//! acknowledged is sent again, nothing that was not is lost, unless the outbox overflows; then the oldest
//! waiting entry goes and its number is kept to be told (`dropped`). Pure.

use std::collections::VecDeque;

use domain::{Counters, EventState, Timestamp};

use crate::lift::Observation;

/// Gaps told apart; a further one is joined with the last, so that the list cannot grow.
const GAPS_MAX: usize = 64;

/// Entries of one kind share a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Readings.
    Telemetry,
    /// Events.
    Event,
    /// Counters.
    Statistics,
}

impl Kind {
    /// Its topic; also its word in the ledger of acknowledgements.
    pub fn channel(self) -> &'static str {
        match self {
            Kind::Telemetry => "telemetry",
            Kind::Event => "event",
            Kind::Statistics => "stats",
        }
    }
}

/// What an entry says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Item {
    /// A reading: complete, or what changed since `before`.
    State { seen: Observation, before: Option<Box<Observation>> },
    /// A fault began or ended.
    Event { code: &'static str, state: EventState },
    /// What was counted; goes alone.
    Counted(Counters),
}

impl Item {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Item::State { .. } => Kind::Telemetry,
            Item::Event { .. } => Kind::Event,
            Item::Counted(_) => Kind::Statistics,
        }
    }
}

/// A numbered thing to say.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) boot: u32,
    pub(crate) seq: i64,
    /// When it was made, true time; the terminal adds its own skew when it speaks.
    pub(crate) at: Timestamp,
    pub(crate) item: Item,
    /// It was on its way once and not acknowledged.
    pub(crate) sent_before: bool,
}

/// Numbers of a boot that were discarded, first and last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gap {
    pub(crate) boot: u32,
    pub(crate) from: i64,
    pub(crate) to: i64,
}

/// A message on its way: entries of one boot and one kind, in order. None at all in a list of
/// active faults, which is made anew at each connect.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sent {
    pub(crate) pkid: u16,
    pub(crate) at: Timestamp,
    pub(crate) entries: Vec<Entry>,
    pub(crate) gap: Option<Gap>,
}

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    capacity: usize,
    /// Made before this connection, oldest first.
    backlog: VecDeque<Entry>,
    /// Made since; sent before the backlog.
    live: VecDeque<Entry>,
    inflight: VecDeque<Sent>,
    inflight_entries: usize,
    gaps: VecDeque<Gap>,
    last_pkid: u16,
}

impl Outbox {
    /// Holds at most `capacity` entries, waiting or on their way.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity: capacity.max(4), ..Self::default() }
    }

    /// Entries not acknowledged yet.
    pub(crate) fn len(&self) -> usize {
        self.backlog.len() + self.live.len() + self.inflight_entries
    }

    /// Entries that wait to be sent.
    pub(crate) fn waiting(&self) -> usize {
        self.backlog.len() + self.live.len()
    }

    /// Messages on their way.
    pub(crate) fn inflight(&self) -> usize {
        self.inflight.len()
    }

    /// Adds the newest entry. Returns whether an older one had to go.
    pub(crate) fn push(&mut self, entry: Entry, connected: bool) -> bool {
        let full = self.len() >= self.capacity;
        if full {
            // At most half is on its way (see `take`), so one that waits is always found.
            if let Some(lost) = self.backlog.pop_front().or_else(|| self.live.pop_front()) {
                self.note_gap(lost.boot, lost.seq);
            }
        }
        let queue = if connected { &mut self.live } else { &mut self.backlog };
        queue.push_back(entry);
        full
    }

    fn note_gap(&mut self, boot: u32, seq: i64) {
        let full = self.gaps.len() >= GAPS_MAX;
        match self.gaps.back_mut() {
            Some(gap) if gap.boot == boot && (gap.to + 1 == seq || full) => gap.to = gap.to.max(seq),
            _ => {
                // Only another boot gets here with a full list: the oldest gap then stays untold.
                if full {
                    self.gaps.pop_front();
                }
                self.gaps.push_back(Gap { boot, from: seq, to: seq });
            }
        }
    }

    /// Takes the next message, of at most `live_max` fresh or `backlog_max` old entries. It is on its way
    /// until [`Outbox::acknowledge`] or [`Outbox::disconnected`].
    pub(crate) fn take(&mut self, live_max: usize, backlog_max: usize, now: Timestamp) -> Option<&Sent> {
        let room = (self.capacity / 2).saturating_sub(self.inflight_entries);
        let (queue, most) =
            if self.live.is_empty() { (&mut self.backlog, backlog_max) } else { (&mut self.live, live_max) };
        let first = queue.front()?;
        let (boot, kind) = (first.boot, first.item.kind());
        let alike = |entry: &&Entry| entry.boot == boot && entry.item.kind() == kind;
        let most = if kind == Kind::Statistics { 1 } else { most };
        let count = queue.iter().take(most.max(1).min(room)).take_while(alike).count();
        if count == 0 {
            return None;
        }
        let entries: Vec<Entry> = queue.drain(..count).collect();
        // Only telemetry has a place for it.
        let told =
            (kind == Kind::Telemetry).then(|| self.gaps.iter().position(|gap| gap.boot == boot)).flatten();
        let gap = told.and_then(|index| self.gaps.remove(index));
        self.inflight_entries += count;
        Some(self.depart(entries, gap, now))
    }

    /// Puts a message without entries on its way.
    pub(crate) fn announce(&mut self, now: Timestamp) -> u16 {
        self.depart(Vec::new(), None, now).pkid
    }

    fn depart(&mut self, entries: Vec<Entry>, gap: Option<Gap>, at: Timestamp) -> &Sent {
        // Zero is no packet id; 65,535 numbers pass before one comes again.
        self.last_pkid = self.last_pkid.checked_add(1).unwrap_or(1);
        let index = self.inflight.len();
        self.inflight.push_back(Sent { pkid: self.last_pkid, at, entries, gap });
        &self.inflight[index]
    }

    /// The server has taken over responsibility for this message.
    pub(crate) fn acknowledge(&mut self, pkid: u16) -> Option<Sent> {
        let index = self.inflight.iter().position(|sent| sent.pkid == pkid)?;
        let sent = self.inflight.remove(index)?;
        self.inflight_entries -= sent.entries.len();
        Some(sent)
    }

    /// Whatever was on its way may be lost: it waits again, in order.
    pub(crate) fn disconnected(&mut self) {
        let mut back: Vec<Entry> = Vec::with_capacity(self.inflight_entries);
        for mut sent in self.inflight.drain(..) {
            sent.entries.iter_mut().for_each(|entry| entry.sent_before = true);
            back.append(&mut sent.entries);
            self.gaps.extend(sent.gap);
        }
        self.inflight_entries = 0;
        back.extend(self.backlog.drain(..));
        back.extend(self.live.drain(..));
        back.sort_by_key(|entry| (entry.boot, entry.seq));
        self.backlog = back.into();
        let gaps = self.gaps.make_contiguous();
        gaps.sort_by_key(|gap| (gap.boot, gap.from));
    }
}

#[cfg(test)]
mod tests;
