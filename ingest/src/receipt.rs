//! Shares in a message's acknowledgement, and the memory of messages that did not fit the budget.

use std::sync::Arc;

use broker::Ack;
use domain::Receipt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A holder's share in a message's acknowledgement.
#[must_use = "a receipt that is dropped tells the terminal to send again"]
#[derive(Debug)]
pub struct IngestReceipt {
    ack: Option<Ack>,
    /// Of a message that did not fit the budget: its part of [`SPARE_BYTES`].
    pub(crate) spare: Option<OwnedSemaphorePermit>,
}

impl IngestReceipt {
    /// For what nobody waits for.
    pub(crate) fn none() -> Self {
        Self { ack: None, spare: None }
    }
}

impl From<Ack> for IngestReceipt {
    fn from(ack: Ack) -> Self {
        Self { ack: Some(ack), spare: None }
    }
}

impl Receipt for IngestReceipt {
    fn done(self) {
        if let Some(ack) = self.ack {
            ack.done();
        }
        drop(self.spare);
    }
}

/// Memory of messages that did not fit the budget and are shown to the rules all the same. The largest is smaller.
const SPARE_BYTES: usize = 16 << 20;
/// In which it is counted.
const SPARE_UNIT: usize = 1 << 10;

/// What is left of [`SPARE_BYTES`], for messages that did not fit the budget.
#[derive(Debug)]
pub(crate) struct Spare(Arc<Semaphore>);

impl Default for Spare {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(SPARE_BYTES / SPARE_UNIT)))
    }
}

impl Spare {
    /// A part of it, given back when it is dropped. `None`: there is not so much left.
    pub(crate) fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let units = bytes.min(SPARE_BYTES).div_ceil(SPARE_UNIT) as u32;
        Arc::clone(&self.0).try_acquire_many_owned(units).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_the_budget_is_bounded_until_it_was_looked_at() {
        let spare = Spare::default();
        let receipt = |bytes| IngestReceipt { ack: None, spare: spare.take(bytes) };
        let (one, other) = (receipt(10 << 20), receipt(6 << 20));
        assert!(one.spare.is_some() && other.spare.is_some());
        assert!(spare.take(1).is_none(), "all of it is taken");
        one.done();
        assert!(spare.take(10 << 20).is_some());
        drop(other);
        assert!(spare.take(usize::MAX).is_some(), "the largest has a place alone");
    }
}
