//! The engine of a whole fleet: one totally ordered log of inputs in, transitions out.

use std::collections::{BTreeMap, BTreeSet};

use domain::{ElevatorId, Timestamp};

use super::apply::{apply, next_deadline};
use super::latest::Latest;
use super::state::ElevatorState;
use super::thresholds::ThresholdsBook;
use super::{Input, Transition};

struct Entry {
    state: ElevatorState,
    /// Its entry in the set of deadlines.
    deadline: Option<Timestamp>,
    /// Changed since the last [`Engine::take_dirty`].
    dirty: bool,
}

/// States by elevator, and their deadlines in order. Memory grows with the number of elevators alone.
pub struct Engine {
    book: ThresholdsBook,
    states: BTreeMap<ElevatorId, Box<Entry>>,
    deadlines: BTreeSet<(Timestamp, ElevatorId)>,
    /// Each elevator stands here at most once.
    dirty: Vec<ElevatorId>,
}

impl Engine {
    /// An engine that knows no elevator yet.
    pub fn new(book: ThresholdsBook) -> Self {
        Self { book, states: BTreeMap::new(), deadlines: BTreeSet::new(), dirty: Vec::new() }
    }

    /// Takes states from a checkpoint, in any order. What arrived after [`ElevatorState::covered`] is to be
    /// given as inputs next, in the order of arrivals.
    pub fn restore(&mut self, states: impl IntoIterator<Item = ElevatorState>) {
        for state in states {
            let elevator_id = state.elevator_id();
            if let Some(Entry { deadline: Some(deadline), .. }) =
                self.states.remove(&elevator_id).map(|entry| *entry)
            {
                self.deadlines.remove(&(deadline, elevator_id));
            }
            let mut entry = Box::new(Entry { state, deadline: None, dirty: false });
            Self::plan(&self.book, &mut self.deadlines, &mut entry);
            self.states.insert(elevator_id, entry);
        }
    }

    /// Applies the next input of the log. Deadlines of all elevators up to its time fire before it, in the
    /// order of time and elevator.
    pub fn input(&mut self, input: Input, out: &mut Vec<Transition>) {
        let (elevator_id, area, arrival) = match &input {
            Input::Clock(at) => return self.advance(*at, out),
            Input::Message { elevator_id, area, arrival, .. }
            | Input::Presence { elevator_id, area, arrival, .. }
            | Input::Muted { elevator_id, area, arrival, .. }
            | Input::Traits { elevator_id, area, arrival, .. } => (*elevator_id, *area, *arrival),
        };
        self.advance(arrival.at, out);
        let entry = self.states.entry(elevator_id).or_insert_with(|| {
            Box::new(Entry { state: ElevatorState::new(elevator_id, area), deadline: None, dirty: false })
        });
        apply(&mut entry.state, &input, self.book.rules(area), out);
        Self::plan(&self.book, &mut self.deadlines, entry);
        Self::mark(&mut self.dirty, entry);
    }

    fn advance(&mut self, at: Timestamp, out: &mut Vec<Transition>) {
        while let Some((deadline, elevator_id)) = self.deadlines.first().copied()
            && deadline <= at
        {
            let Some(entry) = self.states.get_mut(&elevator_id) else {
                self.deadlines.pop_first();
                continue;
            };
            let rules = self.book.rules(entry.state.area());
            apply(&mut entry.state, &Input::Clock(deadline), rules, out);
            Self::plan(&self.book, &mut self.deadlines, entry);
            Self::mark(&mut self.dirty, entry);
        }
    }

    fn plan(book: &ThresholdsBook, deadlines: &mut BTreeSet<(Timestamp, ElevatorId)>, entry: &mut Entry) {
        let deadline = next_deadline(&entry.state, book.thresholds(entry.state.area()));
        if deadline == entry.deadline {
            return;
        }
        let elevator_id = entry.state.elevator_id();
        if let Some(old) = entry.deadline {
            deadlines.remove(&(old, elevator_id));
        }
        if let Some(new) = deadline {
            deadlines.insert((new, elevator_id));
        }
        entry.deadline = deadline;
    }

    fn mark(dirty: &mut Vec<ElevatorId>, entry: &mut Entry) {
        if !entry.dirty {
            entry.dirty = true;
            dirty.push(entry.state.elevator_id());
        }
    }

    /// When the next deadline falls: the shell sends [`Input::Clock`] then.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// The state of an elevator.
    pub fn state(&self, elevator_id: ElevatorId) -> Option<&ElevatorState> {
        self.states.get(&elevator_id).map(|entry| &entry.state)
    }

    /// All states, by elevator.
    pub fn states(&self) -> impl Iterator<Item = &ElevatorState> {
        self.states.values().map(|entry| &entry.state)
    }

    /// The latest state of an elevator, for the `elevator_state` table.
    pub fn latest(&self, elevator_id: ElevatorId) -> Option<Latest> {
        self.state(elevator_id)?.latest()
    }

    /// Elevators whose state has changed since the last call, in rising order: what a checkpoint writes.
    pub fn take_dirty(&mut self) -> Vec<ElevatorId> {
        let mut dirty = std::mem::take(&mut self.dirty);
        dirty.sort_unstable();
        for elevator_id in &dirty {
            if let Some(entry) = self.states.get_mut(elevator_id) {
                entry.dirty = false;
            }
        }
        dirty
    }

    /// The thresholds in force.
    pub fn book(&self) -> &ThresholdsBook {
        &self.book
    }
}
