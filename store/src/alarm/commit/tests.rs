use proptest::prelude::*;

use super::super::tests::{alarm, at, cleared, raised, updated};
use super::*;

/// The lives of some alarms, interleaved: raised, updated a few times, and mostly cleared.
fn log() -> impl Strategy<Value = Vec<AlarmEvent>> {
    prop::collection::vec((0_i64..5, any::<bool>()), 0..40).prop_map(|steps| {
        let mut latest: HashMap<i64, (i64, AlarmEvent)> = HashMap::new();
        let mut log = vec![];
        for (second, (elevator, ends)) in (100..).zip(steps) {
            // After its end the next one of this elevator begins.
            let next = match latest.get(&elevator) {
                Some((life, before)) if before.change == AlarmChange::Cleared => {
                    (life + 1, raised(&alarm(elevator, life + 1)))
                }
                Some((life, before)) if ends => (*life, cleared(before, second)),
                Some((life, before)) => (*life, updated(&before.alarm, second)),
                None => (0, raised(&alarm(elevator, 0))),
            };
            log.push(next.1.clone());
            latest.insert(elevator, next);
        }
        log
    })
}

fn told(plan: Plan) -> Vec<AlarmEvent> {
    let event =
        |event: NewEvent| AlarmEvent { no: None, at: event.at, change: event.change, alarm: event.alarm };
    plan.events.into_iter().map(event).collect()
}

proptest! {
    /// A replay begins somewhere in what is known and goes on beyond it, any number of times: each event is
    /// told once, in order.
    #[test]
    fn replays_tell_each_event_once(log in log(), cuts in prop::collection::vec((0_usize..40, 0_usize..40), 0..8)) {
        let mut known = HashMap::new();
        let (mut end, mut all) = (0, vec![]);
        for (from, more) in cuts {
            let from = from.min(end);
            end = log.len().min(end + more);
            all.extend(told(plan(&mut known, &log[from..end])));
        }
        all.extend(told(plan(&mut known, &log)));
        prop_assert_eq!(all, log);
    }

    /// Whatever comes, an acknowledgement stays and what has ended does not begin again.
    #[test]
    fn what_people_did_stays(log in log()) {
        let mut known = HashMap::new();
        for event in &log {
            plan(&mut known, std::slice::from_ref(event));
            let known: &mut Known = known.get_mut(&event.alarm.id).expect("planned");
            known.alarm.acknowledged = Some(at(1));
            known.alarm.acknowledged_by = Some("seat 4".into());
        }
        let ended: Vec<AlarmId> =
            known.values().filter(|known| known.alarm.cleared.is_some()).map(|known| known.alarm.id).collect();
        plan(&mut known, &log);
        for known in known.values() {
            prop_assert_eq!(known.alarm.acknowledged_by.as_deref(), Some("seat 4"));
            prop_assert!(known.alarm.cleared.is_some() || !ended.contains(&known.alarm.id));
        }
    }
}
