//! The S1 alarms that nobody has acknowledged: sent again until somebody does (DOMAIN.md 7, EN 81-28).

use std::collections::HashMap;
use std::time::Duration;

use domain::{AlarmEvent, AlarmId, AlarmState};
use store::AlarmFilter;
use tokio::time::Instant;

use crate::config::UNACKNOWLEDGED_MAX;

#[derive(Debug, Default)]
pub(crate) struct Unacknowledged {
    alarms: HashMap<AlarmId, Told>,
}

#[derive(Debug)]
struct Told {
    event: AlarmEvent,
    /// When this process saw it.
    since: Instant,
}

/// Waits for somebody: life safety, open, nobody's yet.
fn waits(event: &AlarmEvent) -> bool {
    let alarm = &event.alarm;
    let ended = matches!(
        alarm.state,
        AlarmState::Archived
            | AlarmState::FalseAlarm
            | AlarmState::SelfReleased
            | AlarmState::Duplicate
            | AlarmState::Cancelled
            | AlarmState::Accident
    );
    alarm.severity.is_life_safety() && alarm.acknowledged.is_none() && alarm.cleared.is_none() && !ended
}

impl Unacknowledged {
    /// Begins anew with what the store says.
    pub(crate) fn reset(&mut self, events: Vec<AlarmEvent>, now: Instant) {
        self.alarms.clear();
        for event in events {
            self.see(&event, now);
        }
    }

    /// Takes note of the next event.
    pub(crate) fn see(&mut self, event: &AlarmEvent, now: Instant) {
        let id = event.alarm.id;
        if !waits(event) {
            self.alarms.remove(&id);
            return;
        }
        self.alarms.insert(id, Told { event: event.clone(), since: now });
        if self.alarms.len() > UNACKNOWLEDGED_MAX {
            let oldest = self.alarms.iter().min_by_key(|(_, told)| told.event.no).map(|(id, _)| *id);
            oldest.map(|id| self.alarms.remove(&id));
        }
    }

    /// Those that fit, in the order of their numbers.
    pub(crate) fn to_repeat(
        &self,
        filter: &AlarmFilter,
        no: i64,
        now: Instant,
        age: Duration,
    ) -> Vec<AlarmEvent> {
        let due = |told: &&Told| {
            told.event.no.is_some_and(|told| told <= no)
                && filter.covers(told.event.alarm.area, told.event.alarm.severity)
                && now.saturating_duration_since(told.since) >= age
        };
        let mut events: Vec<AlarmEvent> =
            self.alarms.values().filter(due).map(|told| told.event.clone()).collect();
        events.sort_unstable_by_key(|event| event.no);
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::event;
    use domain::{Severity, Timestamp};

    fn check(change: impl Fn(&mut AlarmEvent), expected: usize) {
        let (mut set, now) = (Unacknowledged::default(), Instant::now());
        set.see(&event(1), now);
        let mut next = event(1);
        next.no = Some(2);
        change(&mut next);
        set.see(&next, now);
        let repeated = set.to_repeat(&AlarmFilter::default(), 2, now, Duration::ZERO);
        assert_eq!(repeated.len(), expected, "{next:?}");
    }

    #[test]
    fn an_s1_waits_until_somebody_takes_it_or_it_ends() {
        check(|_| {}, 1);
        check(|event| event.alarm.acknowledged = Some(Timestamp::from_micros(1)), 0);
        check(|event| event.alarm.cleared = Some(Timestamp::from_micros(1)), 0);
        check(|event| event.alarm.state = AlarmState::FalseAlarm, 0);
        check(|event| event.alarm.severity = Severity::S2, 0);
    }

    #[test]
    fn only_what_a_stream_has_seen_and_only_after_a_while() {
        let (mut set, now) = (Unacknowledged::default(), Instant::now());
        for no in [3, 1, 2] {
            set.see(&event(no), now);
        }
        let all = AlarmFilter::default();
        let numbers = |no, age| -> Vec<i64> {
            set.to_repeat(&all, no, now, age).iter().filter_map(|event| event.no).collect()
        };
        assert_eq!(numbers(2, Duration::ZERO), [1, 2]);
        assert_eq!(numbers(3, Duration::from_secs(1)), [0_i64; 0]);
    }
}
