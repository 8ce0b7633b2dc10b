use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn event(seq: i64) -> Entry {
    let item = Item::Event { code: "power_off", state: EventState::Open };
    Entry { boot: 1, seq, at: Timestamp::from_millis(seq), item, sent_before: false }
}

#[derive(Debug, Clone)]
enum Step {
    Push,
    Take,
    /// The nth message on its way is acknowledged.
    Acknowledge(prop::sample::Index),
    Cut,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => Just(Step::Push),
        4 => Just(Step::Take),
        3 => any::<prop::sample::Index>().prop_map(Step::Acknowledge),
        1 => Just(Step::Cut),
    ];
    prop::collection::vec(step, 0..400)
}

proptest! {
    #[test]
    fn acknowledged_is_never_sent_again_and_nothing_else_is_lost(
        steps in steps(), capacity in 4_usize..60, batch in 1_usize..8,
    ) {
        let mut outbox = Outbox::new(capacity);
        let now = Timestamp::default();
        let (mut pushed, mut connected, mut lost) = (0, false, 0);
        let mut acknowledged = BTreeSet::new();
        let mut on_the_way: BTreeMap<u16, Vec<i64>> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Push => {
                    pushed += 1;
                    lost += usize::from(outbox.push(event(pushed), connected));
                }
                Step::Take => {
                    connected = true;
                    if let Some(sent) = outbox.take(1, batch, now) {
                        let seqs: Vec<i64> = sent.entries.iter().map(|entry| entry.seq).collect();
                        prop_assert!(seqs.is_sorted() && !seqs.is_empty() && seqs.len() <= batch);
                        for seq in &seqs {
                            prop_assert!(!acknowledged.contains(seq), "{seq} sent after its acknowledgement");
                            prop_assert!(!on_the_way.values().flatten().any(|other| other == seq), "{seq} twice");
                        }
                        on_the_way.insert(sent.pkid, seqs);
                    }
                }
                Step::Acknowledge(index) => {
                    let ids: Vec<u16> = on_the_way.keys().copied().collect();
                    if !ids.is_empty() {
                        let pkid = *index.get(&ids);
                        let sent = outbox.acknowledge(pkid).unwrap();
                        acknowledged.extend(sent.entries.iter().map(|entry| entry.seq));
                        on_the_way.remove(&pkid);
                        prop_assert_eq!(outbox.acknowledge(pkid), None, "once");
                    }
                }
                Step::Cut => {
                    connected = false;
                    on_the_way.clear();
                    outbox.disconnected();
                }
            }
            prop_assert!(outbox.len() <= capacity);
        }
        outbox.disconnected();
        let mut left = BTreeSet::new();
        while let Some(sent) = outbox.take(1, batch, now) {
            let pkid = sent.pkid;
            left.extend(sent.entries.iter().map(|entry| entry.seq));
            outbox.acknowledge(pkid);
        }
        let told: BTreeSet<i64> = outbox.gaps.iter().flat_map(|gap| gap.from..=gap.to).collect();
        prop_assert_eq!(told.len(), lost, "every lost number is told, and only those");
        prop_assert!(left.is_disjoint(&acknowledged) && left.is_disjoint(&told));
        prop_assert_eq!((left.len() + acknowledged.len() + lost) as i64, pushed);
    }
}

#[test]
fn what_is_new_goes_before_the_backlog() {
    let mut outbox = Outbox::new(100);
    for seq in 1..=5 {
        outbox.push(event(seq), false);
    }
    outbox.push(event(6), true);
    let seqs = |sent: Option<&Sent>| sent.unwrap().entries.iter().map(|one| one.seq).collect::<Vec<_>>();
    assert_eq!(seqs(outbox.take(1, 3, Timestamp::default())), [6]);
    assert_eq!(seqs(outbox.take(1, 3, Timestamp::default())), [1, 2, 3]);
    outbox.disconnected();
    assert_eq!(seqs(outbox.take(1, 10, Timestamp::default())), [1, 2, 3, 4, 5, 6], "in order again");
}
