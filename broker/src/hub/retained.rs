//! The last message of each topic whose publisher asked to keep it. Pure.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::Fanout;
use crate::inbound::{Properties, QoS};
use crate::topic::TopicFilter;

/// Topics looked at for one page, so that the lock is held for tens of microseconds at most.
const PAGE_SCAN_MAX: usize = 1_024;
/// Messages of one page.
const PAGE_MAX: usize = 256;
/// What an entry costs beside its topic and payload.
const ENTRY_BYTES: usize = 96;

/// A retained message.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) payload: Bytes,
    pub(crate) qos: QoS,
    pub(crate) arrived_us: i64,
    pub(crate) properties: Option<Arc<Properties>>,
}

/// Messages with their topics, and the topic after which the next page begins, if there may be one.
pub(crate) type Page = (Vec<(Arc<str>, Kept)>, Option<Arc<str>>);

#[derive(Debug)]
pub(super) struct Retained {
    by_topic: BTreeMap<Arc<str>, Kept>,
    len_max: usize,
    bytes: usize,
    bytes_max: usize,
}

impl Retained {
    pub(super) fn new(len_max: usize, bytes_max: usize) -> Self {
        Self { by_topic: BTreeMap::new(), len_max, bytes: 0, bytes_max }
    }

    pub(super) fn len(&self) -> usize {
        self.by_topic.len()
    }

    /// Keeps a message, or forgets its topic if the payload is empty. False: it was over the bound, and what was
    /// kept before is forgotten, because it is no longer true.
    pub(super) fn put(&mut self, fanout: &Fanout) -> bool {
        if let Some((topic, old)) = self.by_topic.remove_entry(&fanout.topic) {
            self.bytes -= cost(&topic, &old.payload);
        }
        if fanout.payload.is_empty() {
            return true;
        }
        let bytes = cost(&fanout.topic, &fanout.payload);
        if self.by_topic.len() >= self.len_max || self.bytes + bytes > self.bytes_max {
            return false;
        }
        self.bytes += bytes;
        let kept = Kept {
            // A copy, so that it does not pin what arrived with it.
            payload: Bytes::copy_from_slice(&fanout.payload),
            qos: fanout.qos,
            arrived_us: fanout.arrived_us,
            properties: fanout.properties.as_deref().cloned().map(Arc::new),
        };
        self.by_topic.insert(Arc::clone(&fanout.topic), kept);
        true
    }

    /// Messages of `filter` in topic order after `after`, and where to go on, if there may be more.
    pub(super) fn page(&self, filter: &TopicFilter, after: Option<&str>) -> Page {
        let prefix = filter.literal_prefix();
        let start = match after {
            Some(after) => Bound::Excluded(after),
            None => Bound::Included(prefix),
        };
        let mut page = Vec::new();
        for (scanned, (topic, kept)) in self.by_topic.range::<str, _>((start, Bound::Unbounded)).enumerate() {
            if !topic.starts_with(prefix) {
                return (page, None);
            }
            if filter.matches(topic) {
                page.push((Arc::clone(topic), kept.clone()));
            }
            if page.len() == PAGE_MAX || scanned + 1 == PAGE_SCAN_MAX {
                return (page, Some(Arc::clone(topic)));
            }
        }
        (page, None)
    }
}

fn cost(topic: &str, payload: &[u8]) -> usize {
    topic.len() + payload.len() + ENTRY_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn fanout(topic: &str, payload: &'static str) -> Fanout {
        Fanout {
            topic: topic.into(),
            payload: Bytes::from_static(payload.as_bytes()),
            qos: QoS::AtLeastOnce,
            retain: true,
            arrived_us: 0,
            epoch: 0,
            properties: None,
        }
    }

    fn all(retained: &Retained, filter: &str) -> (BTreeSet<String>, usize) {
        let filter = TopicFilter::new(filter).unwrap();
        let (mut topics, mut pages, mut after) = (BTreeSet::new(), 0, None);
        loop {
            let (page, next) = retained.page(&filter, after.as_deref());
            pages += 1;
            for (topic, _) in page {
                assert!(topics.insert(topic.to_string()), "{topic} twice");
            }
            match next {
                Some(next) => after = Some(next),
                None => return (topics, pages),
            }
        }
    }

    #[test]
    fn pages_give_every_matching_topic_once() {
        let mut retained = Retained::new(10_000, 10 << 20);
        for i in 0..3_000 {
            assert!(retained.put(&fanout(&format!("lift/v1/310115/T{i}/presence"), "{}")));
            assert!(retained.put(&fanout(&format!("lift/v1/310115/T{i}/other"), "x")));
        }
        assert_eq!(all(&retained, "lift/v1/#").0.len(), 6_000);
        assert_eq!(all(&retained, "lift/v1/+/+/presence").0.len(), 3_000);
        assert_eq!(all(&retained, "lift/v1/310115/T7/#"), all(&retained, "lift/v1/310115/T7/+"));
        assert_eq!(all(&retained, "other/#"), (BTreeSet::new(), 1));
    }

    #[test]
    fn an_empty_payload_forgets_and_bounds_hold() {
        let mut retained = Retained::new(2, 1_000);
        assert!(retained.put(&fanout("a", "1")));
        assert!(retained.put(&fanout("b", "1")));
        assert!(!retained.put(&fanout("c", "1")), "count");
        assert!(retained.put(&fanout("a", "2")), "replaced");
        assert!(retained.put(&fanout("a", "")));
        assert_eq!(all(&retained, "#").0, BTreeSet::from(["b".to_owned()]));
        let mut small = Retained::new(10, 2 * ENTRY_BYTES);
        assert!(small.put(&fanout("a", "1")));
        assert!(!small.put(&fanout("b", "1")), "bytes");
        assert!(small.put(&fanout("a", "")));
        assert_eq!(small.bytes, 0);
    }
}
