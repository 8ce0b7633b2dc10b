//! Which elevators have changed since their state was saved, the one waiting longest first.

use std::collections::{BTreeSet, HashMap};

use domain::{Arrival, ArrivalNo, ElevatorId, Timestamp};

/// What is known of a changed elevator beside its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    /// Its first change that is not saved, in the order of arrivals: the position is before it until it is.
    pub(super) no: ArrivalNo,
    /// Server clock of the latest change.
    pub(super) at: Timestamp,
}

/// The changed elevators. At most one entry for each.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    changes: HashMap<ElevatorId, Change>,
    /// By the first arrival that is not saved.
    order: BTreeSet<(ArrivalNo, ElevatorId)>,
    seen: ArrivalNo,
}

impl Dirty {
    /// Everything up to `position` is saved.
    pub(super) fn new(position: ArrivalNo) -> Self {
        Self { seen: position, ..Self::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.changes.len()
    }

    /// A message changed it.
    pub(super) fn touch(&mut self, elevator_id: ElevatorId, arrival: Arrival) {
        self.seen = self.seen.max(arrival.no);
        self.note(elevator_id, arrival.no, arrival.at);
    }

    /// A deadline changed it: after all that was seen, before all that comes.
    pub(super) fn touch_by_clock(&mut self, elevator_id: ElevatorId, at: Timestamp) {
        self.note(elevator_id, self.seen.next(), at);
    }

    fn note(&mut self, elevator_id: ElevatorId, no: ArrivalNo, at: Timestamp) {
        if let Some(change) = self.changes.get_mut(&elevator_id) {
            change.at = change.at.max(at);
            return;
        }
        self.changes.insert(elevator_id, Change { no, at });
        self.order.insert((no, elevator_id));
    }

    /// The one that waits longest; it is clean from now on.
    pub(super) fn pop(&mut self) -> Option<(ElevatorId, Change)> {
        let (_, elevator_id) = self.order.pop_first()?;
        let change = self.changes.remove(&elevator_id)?;
        Some((elevator_id, change))
    }

    /// All elevators are covered up to this arrival, once what was popped is saved.
    pub(super) fn position(&self) -> ArrivalNo {
        self.order.first().map_or(self.seen, |(first, _)| ArrivalNo(first.0 - 1))
    }

    /// Messages between the position and the latest one; across a restart only "many".
    pub(super) fn lag(&self) -> i64 {
        self.seen.0.saturating_sub(self.position().0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn arrival(no: i64) -> Arrival {
        Arrival { no: ArrivalNo(no), at: Timestamp::from_micros(no) }
    }

    #[test]
    fn the_position_stays_before_what_is_not_saved() {
        let mut dirty = Dirty::new(ArrivalNo(9));
        assert_eq!(dirty.position(), ArrivalNo(9));
        dirty.touch(ElevatorId(1), arrival(10));
        dirty.touch(ElevatorId(2), arrival(11));
        dirty.touch(ElevatorId(1), arrival(12));
        assert_eq!((dirty.position(), dirty.lag()), (ArrivalNo(9), 3));
        let (first, change) = dirty.pop().unwrap();
        assert_eq!((first, change.at), (ElevatorId(1), Timestamp::from_micros(12)));
        assert_eq!(dirty.position(), ArrivalNo(10));
        dirty.touch_by_clock(ElevatorId(1), Timestamp::from_micros(13));
        assert_eq!(dirty.pop().unwrap().0, ElevatorId(2));
        assert_eq!(dirty.position(), ArrivalNo(12), "a deadline has no arrival of its own");
        let (first, change) = dirty.pop().unwrap();
        assert_eq!((first, change.no), (ElevatorId(1), ArrivalNo(13)), "after every position that was saved");
        assert_eq!((dirty.pop(), dirty.position(), dirty.len()), (None, ArrivalNo(12), 0));
    }

    proptest! {
        /// Whatever is saved when, a replay from the position covers every change that is not saved.
        #[test]
        fn a_replay_from_the_position_misses_nothing(
            steps in prop::collection::vec((0_i64..6, any::<bool>()), 0..80),
        ) {
                let mut dirty = Dirty::new(ArrivalNo(0));
            let mut saved: HashMap<ElevatorId, i64> = HashMap::new();
            let mut latest: HashMap<ElevatorId, i64> = HashMap::new();
            for (no, (elevator, save)) in (1..).zip(steps) {
                dirty.touch(ElevatorId(elevator), arrival(no));
                latest.insert(ElevatorId(elevator), no);
                if save && let Some((elevator, _)) = dirty.pop() {
                    saved.insert(elevator, latest[&elevator]);
                }
                for (elevator, no) in &latest {
                    let covered = saved.get(elevator).copied().unwrap_or(0);
                    prop_assert!(covered == *no || dirty.position().0 < *no);
                }
            }
        }
    }
}
