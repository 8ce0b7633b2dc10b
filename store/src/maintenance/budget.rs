//! How long a step may work, and how it leaves room for others.

use std::time::{Duration, Instant};

/// Pauses between two transactions are as long as the transaction was, but no longer than this.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// The time of one step.
#[derive(Debug)]
pub(crate) struct Budget {
    until: Instant,
    #[cfg(test)]
    pub(super) pauses: std::sync::atomic::AtomicU32,
}

impl Budget {
    pub(crate) fn new(time: Duration) -> Self {
        Self {
            until: Instant::now() + time,
            #[cfg(test)]
            pauses: std::sync::atomic::AtomicU32::new(0),
        }
    }

    /// Whether it is over. To be asked between two transactions.
    pub(crate) fn spent(&self) -> bool {
        Instant::now() >= self.until
    }

    /// The beginning of a transaction.
    #[allow(clippy::unused_self)] // reads beside `pace`
    pub(crate) fn begin(&self) -> Instant {
        Instant::now()
    }

    /// Waits as long as the transaction took, so that deleting takes at most half of one core and disk.
    #[allow(clippy::unused_self)]
    pub(crate) async fn pace(&self, begun: Instant) {
        #[cfg(test)]
        self.pauses.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        tokio::time::sleep(begun.elapsed().min(PAUSE_MAX)).await;
    }
}
