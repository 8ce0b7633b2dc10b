//! Refusals: counted all, logged as many as somebody can read.
//!
//! Owns how much was logged of late. A client learns only the reason code of the protocol; the log has the
//! reason's word, the peer and the client id.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::ack::lock;
use crate::metrics::{Metrics, ReasonLabel};

/// Lines of one reason in one window.
const LINES_MAX: u32 = 10;
/// Length of a window.
const WINDOW: Duration = Duration::from_secs(10);
/// What a client calls itself is logged up to here.
const CLIENT_ID_CHARS: usize = 64;

/// Shared by all connections.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Mutex<Lines>);

impl Refusals {
    /// Counts, and logs if there is room for a line.
    pub(crate) fn note(
        &self,
        reason: &'static str,
        peer: SocketAddr,
        client_id: Option<&str>,
        metrics: &Metrics,
    ) {
        metrics.refused.get_or_create(&ReasonLabel { reason }).inc();
        if lock(&self.0).admit(reason, Instant::now()) {
            let client_id: String = client_id.unwrap_or_default().chars().take(CLIENT_ID_CHARS).collect();
            tracing::info!(reason, %peer, ?client_id, "refused");
        }
    }

    /// Tells what the windows that are over have left out.
    pub(crate) fn tick(&self) {
        let over = lock(&self.0).over(Instant::now());
        for (reason, more) in over {
            tracing::info!(reason, more, "refused more");
        }
    }
}

/// How many lines the reasons, of which there is a fixed set, have had.
#[derive(Debug, Default)]
struct Lines(HashMap<&'static str, Window>);

#[derive(Debug)]
struct Window {
    since: Instant,
    lines: u32,
    left_out: u64,
}

impl Lines {
    fn admit(&mut self, reason: &'static str, now: Instant) -> bool {
        let window = self.0.entry(reason).or_insert(Window { since: now, lines: 0, left_out: 0 });
        let admitted = window.lines < LINES_MAX;
        if admitted {
            window.lines += 1;
        } else {
            window.left_out += 1;
        }
        admitted
    }

    /// Ends the windows that are over; answers what each has left out, if anything.
    fn over(&mut self, now: Instant) -> Vec<(&'static str, u64)> {
        let mut left_out = Vec::new();
        self.0.retain(|reason, window| {
            let goes_on = now.saturating_duration_since(window.since) < WINDOW;
            if !goes_on && window.left_out > 0 {
                left_out.push((*reason, window.left_out));
            }
            goes_on
        });
        left_out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_one_reason_is_summed_up_and_hides_no_other() {
        let start = Instant::now();
        let mut lines = Lines::default();
        let admitted = (0..1_000).filter(|_| lines.admit("credentials", start)).count();
        assert_eq!(admitted, LINES_MAX as usize);
        assert!(lines.admit("malformed", start + WINDOW / 2));
        assert_eq!(lines.over(start + WINDOW / 2), []);
        assert_eq!(lines.over(start + WINDOW), [("credentials", 990)]);
        assert!(lines.admit("credentials", start + WINDOW), "a new window");
        assert_eq!(lines.over(start + 2 * WINDOW), []);
    }
}
