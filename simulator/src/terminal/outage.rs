//! What a terminal wrote down while its server was away, before the run began.
//!
//! Made only when there is room to send it: hours of readings of a thousand lifts would not fit this process.
//! On the wire it is what a full outbox is: old device times, numbers below those of the present. Pure.

use std::time::Duration;

use domain::Timestamp;

use super::outbox::{Entry, Item};
use crate::lift::Lift;

/// Between two readings of an outage.
const STEP: Duration = Duration::from_secs(1);

/// Readings of an outage that are not made yet.
#[derive(Debug)]
pub(super) struct Outage {
    lift: Box<Lift>,
    at: Timestamp,
    seq: i64,
    left: u64,
}

impl Outage {
    /// One reading a second for `length`, from where `lift` stands in time.
    pub(super) fn new(lift: Lift, length: Duration) -> Self {
        Self { at: lift.now(), lift: Box::new(lift), seq: 0, left: length.as_secs() }
    }

    /// How many numbers it needs.
    pub(super) fn count(&self) -> i64 {
        i64::try_from(self.left).unwrap_or(i64::MAX)
    }

    /// The next reading; `None` when all are told.
    pub(super) fn next(&mut self, boot: u32) -> Option<Entry> {
        self.left = self.left.checked_sub(1)?;
        self.at = self.at.plus(STEP);
        self.seq += 1;
        self.lift.advance(self.at);
        let item = Item::State { seen: self.lift.observe(), before: None };
        Some(Entry { boot, seq: self.seq, at: self.at, item, sent_before: false })
    }
}
