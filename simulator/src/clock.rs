//! The shell's clock: wall time that never runs backwards. Pure parts take the time as an argument.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use domain::Timestamp;

/// Wall time read once, monotonic from there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    epoch: Timestamp,
    origin: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { epoch: Timestamp::default().plus(since), origin: Instant::now() }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.epoch.plus(self.origin.elapsed())
    }

    /// When the monotonic clock shows `at`.
    pub(crate) fn instant(&self, at: Timestamp) -> tokio::time::Instant {
        (self.origin + at.since(self.epoch)).into()
    }
}
