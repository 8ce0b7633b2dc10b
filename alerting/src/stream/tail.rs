//! A gapless run of the latest numbered events.

use std::collections::VecDeque;
use std::sync::Arc;

use domain::AlarmEvent;

use crate::config::{PAGE_EVENTS, TAIL_EVENTS};

/// How far the stream has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Head {
    /// The last number.
    pub(crate) no: i64,
    /// Events up to this number are no longer kept.
    pub(crate) retired: i64,
    /// Counts the times the stream went back, which happens when a backup is restored under it. A watcher
    /// of an earlier one holds numbers that mean other events now.
    pub(crate) epoch: u64,
}

/// The latest events; `events` are the numbers that end with the head's.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    head: Head,
    events: VecDeque<Arc<AlarmEvent>>,
}

/// What follows a number.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum TailRead {
    /// Nothing yet.
    Current,
    /// At most a page of events, beginning with the next number.
    Events(Vec<Arc<AlarmEvent>>),
    /// More than is kept in memory: read the store.
    Behind,
}

impl Tail {
    pub(crate) fn head(&self) -> Head {
        self.head
    }

    /// Begins anew at a position of the store.
    pub(crate) fn reset(&mut self, head: Head) {
        self.head = head;
        self.events.clear();
    }

    pub(crate) fn retire(&mut self, retired: i64) {
        self.head.retired = self.head.retired.max(retired);
    }

    /// Takes the events that continue the run; answers whether nothing is missing before the last of them.
    /// Events the tail has already are skipped.
    pub(crate) fn push(&mut self, events: impl IntoIterator<Item = Arc<AlarmEvent>>) -> bool {
        for event in events {
            let Some(no) = event.no else { continue };
            if no > self.head.no + 1 {
                return false;
            }
            if no == self.head.no + 1 {
                self.head.no = no;
                self.events.push_back(event);
            }
        }
        let surplus = self.events.len().saturating_sub(TAIL_EVENTS);
        self.events.drain(..surplus);
        true
    }

    pub(crate) fn after(&self, no: i64) -> TailRead {
        if no >= self.head.no {
            return TailRead::Current;
        }
        let before_first = self.head.no - self.events.len() as i64;
        let Ok(skip) = usize::try_from(no - before_first) else { return TailRead::Behind };
        TailRead::Events(self.events.iter().skip(skip).take(PAGE_EVENTS as usize).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::event;
    use proptest::prelude::*;

    fn numbers(read: TailRead) -> Vec<i64> {
        match read {
            TailRead::Events(events) => events.iter().filter_map(|event| event.no).collect(),
            TailRead::Current => vec![],
            TailRead::Behind => vec![-1],
        }
    }

    #[test]
    fn a_gap_is_noticed_and_a_repetition_is_not() {
        let mut tail = Tail::default();
        tail.reset(Head { no: 10, ..Head::default() });
        let push = |tail: &mut Tail, from: i64, to: i64| tail.push((from..=to).map(|no| Arc::new(event(no))));
        assert!(push(&mut tail, 9, 11));
        assert!(!push(&mut tail, 13, 14), "12 is missing");
        assert_eq!(tail.head().no, 11);
        assert!(push(&mut tail, 11, 14));
        assert_eq!(numbers(tail.after(10)), [11, 12, 13, 14]);
        assert_eq!(numbers(tail.after(13)), [14]);
        assert_eq!(tail.after(14), TailRead::Current);
        assert_eq!(tail.after(15), TailRead::Current);
        assert_eq!(tail.after(9), TailRead::Behind);
    }

    proptest! {
        #[test]
        fn reading_by_pages_misses_nothing(count in 0_i64..3_000, from in 0_i64..3_000) {
            let mut tail = Tail::default();
            prop_assert!(tail.push((1..=count).map(|no| Arc::new(event(no)))));
            let kept = count.min(TAIL_EVENTS as i64);
            let mut cursor = from;
            let mut seen = vec![];
            loop {
                match tail.after(cursor) {
                    TailRead::Current => break,
                    TailRead::Behind => {
                        prop_assert!(cursor < count - kept);
                        cursor = count - kept;
                    }
                    read @ TailRead::Events(_) => {
                        seen.extend(numbers(read));
                        cursor = *seen.last().expect("a page is never empty");
                    }
                }
            }
            let first = from.max(count - kept) + 1;
            prop_assert_eq!(seen, (first..=count).collect::<Vec<_>>());
        }
    }
}
