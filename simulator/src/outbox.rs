//! What a terminal has to say and has not been thanked for.
//!
//! Owns readings and events from their making to their PUBACK. Promises: an item leaves by its
//! acknowledgement only, or, the box being full, as the oldest one not under way; then the range discarded
//! is told with the next readings. Pure: knows neither time nor network.

use std::collections::{BTreeMap, HashMap};

use domain::{FaultEvent, Reading};

/// Items in one message at most.
pub const BATCH_MAX: usize = 50;

/// One thing to say.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// A reading.
    Reading(Box<Reading>),
    /// An event.
    Event(FaultEvent),
}

impl Item {
    fn seq(&self) -> i64 {
        match self {
            Item::Reading(reading) => reading.seq.0,
            Item::Event(event) => event.seq.0,
        }
    }
}

/// Items that go out as one message: all of one kind, their `seq` consecutive, so that the first and the
/// last number say exactly what is in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Names it when its acknowledgement comes.
    pub id: u64,
    /// At least one.
    pub items: Vec<Item>,
    /// Numbers discarded before, first and last; with readings only.
    pub dropped: Option<(i64, i64)>,
    /// Whether some of it has been sent before.
    pub resent: bool,
    /// Readings among it that have not been sent before.
    pub fresh_readings: usize,
}

#[derive(Debug)]
struct Kept {
    item: Item,
    sent: bool,
}

#[derive(Debug)]
struct UnderWay {
    items: Vec<Item>,
    dropped: Option<(i64, i64)>,
}

/// A bounded outbox.
#[derive(Debug)]
pub struct Outbox {
    items_max: usize,
    waiting: BTreeMap<i64, Kept>,
    under_way: HashMap<u64, UnderWay>,
    items_under_way: usize,
    dropped: Option<(i64, i64)>,
    dropped_count: u64,
    next_id: u64,
}

impl Outbox {
    /// An empty one for at most `items_max` items, at least 1.
    pub fn new(items_max: usize) -> Self {
        Self {
            items_max: items_max.max(1),
            waiting: BTreeMap::new(),
            under_way: HashMap::new(),
            items_under_way: 0,
            dropped: None,
            dropped_count: 0,
            next_id: 1,
        }
    }

    /// Takes an item. If the box is full, the oldest one not under way goes.
    pub fn push(&mut self, item: Item) {
        self.waiting.insert(item.seq(), Kept { item, sent: false });
        while self.len() > self.items_max {
            let Some((seq, _)) = self.waiting.pop_first() else { return };
            self.dropped = merged(self.dropped, Some((seq, seq)));
            self.dropped_count += 1;
        }
    }

    /// The oldest items waiting that make one message.
    pub fn take(&mut self) -> Option<Batch> {
        let first = *self.waiting.first_key_value()?.0;
        self.take_from(first)
    }

    /// The item `seq` as a message of its own, ahead of all others.
    pub fn take_one(&mut self, seq: i64) -> Option<Batch> {
        let kept = self.waiting.remove(&seq)?;
        Some(self.send(vec![kept]))
    }

    fn take_from(&mut self, first: i64) -> Option<Batch> {
        let kind = |item: &Item| matches!(item, Item::Reading(_));
        let mut kept = vec![self.waiting.remove(&first)?];
        while kept.len() < BATCH_MAX
            && let Some(next) = self.waiting.first_entry()
            && *next.key() == first + kept.len() as i64
            && kind(&next.get().item) == kind(&kept[0].item)
        {
            kept.push(next.remove());
        }
        Some(self.send(kept))
    }

    fn send(&mut self, kept: Vec<Kept>) -> Batch {
        let id = self.next_id;
        self.next_id += 1;
        let resent = kept.iter().any(|one| one.sent);
        let fresh = kept.iter().filter(|one| !one.sent).count();
        let items: Vec<Item> = kept.into_iter().map(|one| one.item).collect();
        let tells = items.iter().any(|item| matches!(item, Item::Reading(_)));
        let fresh_readings = if tells { fresh } else { 0 };
        let dropped = if tells { self.dropped.take() } else { None };
        self.items_under_way += items.len();
        self.under_way.insert(id, UnderWay { items: items.clone(), dropped });
        Batch { id, items, dropped, resent, fresh_readings }
    }

    /// The message `id` is acknowledged; says of how many items. Zero if it is not under way.
    pub fn acknowledge(&mut self, id: u64) -> usize {
        let count = self.under_way.remove(&id).map_or(0, |sent| sent.items.len());
        self.items_under_way -= count;
        count
    }

    /// The connection is gone: all that is under way waits again.
    pub fn requeue(&mut self) {
        for sent in std::mem::take(&mut self.under_way).into_values() {
            self.dropped = merged(self.dropped, sent.dropped);
            for item in sent.items {
                self.waiting.insert(item.seq(), Kept { item, sent: true });
            }
        }
        self.items_under_way = 0;
    }

    /// Items kept, waiting and under way.
    pub fn len(&self) -> usize {
        self.waiting.len() + self.items_under_way
    }

    /// Whether everything has been acknowledged.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Items not under way.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Items discarded since the begin because the box was full.
    pub fn dropped_count(&self) -> u64 {
        self.dropped_count
    }
}

fn merged(one: Option<(i64, i64)>, other: Option<(i64, i64)>) -> Option<(i64, i64)> {
    match (one, other) {
        (Some((from, to)), Some((low, high))) => Some((from.min(low), to.max(high))),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{Code, EventState, Seq, Timestamp};
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn item(seq: i64) -> Item {
        let time = Timestamp::from_millis(seq);
        if seq % 7 == 0 {
            let code = Code::canonical("alarm_button").unwrap();
            Item::Event(FaultEvent { seq: Seq(seq), time, code, state: EventState::Open })
        } else {
            Item::Reading(Box::new(Reading::new(Seq(seq), time)))
        }
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Push,
        Send,
        SendNewest,
        /// Of those under way, the one at this place.
        Ack(usize),
        Disconnect,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => Just(Step::Push),
            3 => Just(Step::Send),
            1 => Just(Step::SendNewest),
            3 => (0..8_usize).prop_map(Step::Ack),
            1 => Just(Step::Disconnect),
        ];
        proptest::collection::vec(step, 0..300)
    }

    proptest! {
        #[test]
        fn everything_is_acknowledged_once_or_told_as_dropped(steps in steps(), room in 1..60_usize) {
            let mut outbox = Outbox::new(room);
            let (mut made, mut acked) = (0, BTreeSet::new());
            let mut wire: Vec<Batch> = Vec::new();
            let mut told: Vec<(i64, i64)> = Vec::new();
            let mut dropped = 0;
            let mut send = |batch: Batch, acked: &BTreeSet<i64>, wire: &mut Vec<Batch>| {
                let seqs: Vec<i64> = batch.items.iter().map(Item::seq).collect();
                prop_assert!(seqs.len() <= BATCH_MAX);
                prop_assert!(seqs.windows(2).all(|pair| pair[1] == pair[0] + 1), "a hole in {seqs:?}");
                prop_assert!(seqs.iter().all(|seq| !acked.contains(seq)), "sent again after its ack");
                told.extend(batch.dropped);
                wire.push(batch);
                Ok(())
            };
            for step in steps {
                match step {
                    Step::Push => {
                        made += 1;
                        outbox.push(item(made));
                        dropped = outbox.dropped_count();
                    }
                    Step::Send => if let Some(batch) = outbox.take() { send(batch, &acked, &mut wire)? },
                    Step::SendNewest => {
                        if let Some(batch) = outbox.take_one(made) { send(batch, &acked, &mut wire)? }
                    }
                    Step::Ack(place) => if place < wire.len() {
                        let batch = wire.remove(place);
                        prop_assert_eq!(outbox.acknowledge(batch.id), batch.items.len());
                        acked.extend(batch.items.iter().map(Item::seq));
                    },
                    Step::Disconnect => {
                        outbox.requeue();
                        for batch in wire.drain(..) {
                            prop_assert_eq!(outbox.acknowledge(batch.id), 0, "an ack too late is none");
                        }
                    }
                }
                // Nothing vanishes: made = acknowledged + kept + discarded.
                prop_assert_eq!(made as u64, acked.len() as u64 + outbox.len() as u64 + dropped);
                prop_assert!(outbox.len() <= room.max(BATCH_MAX * wire.len() + room));
            }
            outbox.requeue();
            while let Some(batch) = outbox.take() {
                send(batch.clone(), &acked, &mut wire)?;
                outbox.acknowledge(batch.id);
                acked.extend(batch.items.iter().map(Item::seq));
            }
            prop_assert!(outbox.is_empty());
            // What never was acknowledged was discarded, and that was told if a reading went out after.
            let lost: Vec<i64> = (1..=made).filter(|seq| !acked.contains(seq)).collect();
            prop_assert_eq!(lost.len() as u64, dropped);
            if outbox.dropped.is_none() {
                for seq in lost {
                    prop_assert!(told.iter().any(|(from, to)| (*from..=*to).contains(&seq)), "{seq} not told");
                }
            }
        }
    }
}
