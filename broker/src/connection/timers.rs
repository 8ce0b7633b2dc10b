//! Deadlines of one connection. Pure: the time is an argument.

use std::time::Duration;

use tokio::time::Instant;

/// Wakes at least so often without any deadline.
const IDLE: Duration = Duration::from_hours(1);

/// A connection that has dropped nothing for so long may have recovered.
const RECOVERED_AFTER: Duration = Duration::from_secs(5);

/// What a deadline says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing came for 1.5 times the keep-alive.
    KeepAlive,
    /// The peer takes nothing.
    WriteStuck,
    /// Reading paused for as long as it may.
    PauseOver,
    /// Stopping took as long as it may.
    DrainOver,
    /// Nothing was dropped for a while.
    Recovered,
}

#[derive(Debug)]
pub(super) struct Timers {
    keep_alive: Option<Duration>,
    pause_max: Duration,
    write_timeout: Duration,
    heard: Instant,
    pause_ends: Option<Instant>,
    write_ends: Option<Instant>,
    drain_ends: Option<Instant>,
    recovery_ends: Option<Instant>,
}

impl Timers {
    pub(super) fn new(keep_alive_s: u16, pause_max: Duration, write_timeout: Duration, now: Instant) -> Self {
        let keep_alive = Duration::from_secs(keep_alive_s.into());
        let enforced = !keep_alive.is_zero();
        Self {
            keep_alive: enforced.then_some(keep_alive * 3 / 2),
            // PINGREQs wait in the socket during a pause.
            pause_max: if enforced { pause_max.min(keep_alive / 2) } else { pause_max },
            write_timeout,
            heard: now,
            pause_ends: None,
            write_ends: None,
            drain_ends: None,
            recovery_ends: None,
        }
    }

    /// Bytes came from the client.
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// How long nothing has come from the client.
    pub(super) fn silence(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.heard)
    }

    /// Reading pauses; true if it did not before. A pause that is resumed before the client was caught up with
    /// keeps its end.
    pub(super) fn pause(&mut self, now: Instant) -> bool {
        let begins = self.pause_ends.is_none();
        self.pause_ends.get_or_insert(now + self.pause_max);
        begins
    }

    pub(super) fn is_paused(&self) -> bool {
        self.pause_ends.is_some()
    }

    /// Everything the client has sent is served.
    pub(super) fn caught_up(&mut self, now: Instant) {
        if self.pause_ends.take().is_some() {
            // It was us who did not listen.
            self.heard = now;
        }
    }

    /// Bytes wait to be written and none, or not all, were taken; `progress` tells whether some were.
    pub(super) fn writing(&mut self, progress: bool, now: Instant) {
        if progress {
            self.write_ends = None;
        }
        self.write_ends.get_or_insert(now + self.write_timeout);
    }

    /// Nothing waits to be written.
    pub(super) fn written(&mut self) {
        self.write_ends = None;
    }

    pub(super) fn drain(&mut self, timeout: Duration, now: Instant) {
        self.drain_ends.get_or_insert(now + timeout);
    }

    /// A message was dropped, or a recovery was noticed: look again later.
    pub(super) fn dropped(&mut self, now: Instant) {
        self.recovery_ends = Some(now + RECOVERED_AFTER);
    }

    pub(super) fn due(&self, now: Instant) -> Option<Due> {
        let passed = |end: Option<Instant>| end.is_some_and(|end| end <= now);
        if passed(self.drain_ends) {
            Some(Due::DrainOver)
        } else if passed(self.write_ends) {
            Some(Due::WriteStuck)
        } else if passed(self.pause_ends) {
            Some(Due::PauseOver)
        } else if passed(self.keep_alive_ends()) {
            Some(Due::KeepAlive)
        } else if passed(self.recovery_ends) {
            Some(Due::Recovered)
        } else {
            None
        }
    }

    /// When to look again at the latest.
    pub(super) fn next(&self, now: Instant) -> Instant {
        let ends =
            [self.drain_ends, self.write_ends, self.pause_ends, self.keep_alive_ends(), self.recovery_ends];
        ends.into_iter().flatten().min().unwrap_or(now + IDLE)
    }

    /// Not enforced while we do not listen.
    fn keep_alive_ends(&self) -> Option<Instant> {
        if self.pause_ends.is_some() || self.drain_ends.is_some() {
            return None;
        }
        self.keep_alive.map(|keep_alive| self.heard + keep_alive)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn silence_is_noticed_after_one_and_a_half_keep_alives() {
        let start = Instant::now();
        let mut timers = Timers::new(10, 30 * S, 20 * S, start);
        assert_eq!((timers.next(start), timers.due(start + 14 * S)), (start + 15 * S, None));
        timers.heard(start + 14 * S);
        assert_eq!(timers.due(start + 28 * S), None);
        assert_eq!(timers.due(start + 29 * S), Some(Due::KeepAlive));
        assert_eq!(Timers::new(0, 30 * S, 20 * S, start).due(start + 1_000_000 * S), None, "switched off");
    }

    #[test]
    fn a_pause_lasts_half_the_keep_alive_and_suspends_it() {
        let start = Instant::now();
        let mut timers = Timers::new(10, 30 * S, 20 * S, start);
        assert!(timers.pause(start + 13 * S));
        assert!(!timers.pause(start + 15 * S), "resumed, not begun");
        assert_eq!(timers.due(start + 17 * S), None);
        assert_eq!(timers.due(start + 18 * S), Some(Due::PauseOver));
        timers.caught_up(start + 18 * S);
        assert_eq!(timers.due(start + 32 * S), None);
        assert_eq!(timers.due(start + 33 * S), Some(Due::KeepAlive));
    }

    #[test]
    fn a_stuck_writer_is_noticed_progress_is_not_stuck() {
        let start = Instant::now();
        let mut timers = Timers::new(0, 30 * S, 20 * S, start);
        timers.writing(false, start);
        timers.writing(false, start + 10 * S);
        assert_eq!(timers.due(start + 20 * S), Some(Due::WriteStuck));
        timers.writing(true, start + 10 * S);
        assert_eq!(timers.due(start + 20 * S), None);
        timers.written();
        assert_eq!(timers.due(start + 60 * S), None);
    }

    #[test]
    fn recovery_is_looked_for_after_the_last_drop() {
        let start = Instant::now();
        let mut timers = Timers::new(0, 30 * S, 20 * S, start);
        timers.dropped(start);
        timers.dropped(start + 3 * S);
        assert_eq!((timers.due(start + 7 * S), timers.next(start)), (None, start + 8 * S));
        assert_eq!(timers.due(start + 8 * S), Some(Due::Recovered));
    }

    #[test]
    fn draining_ends() {
        let start = Instant::now();
        let mut timers = Timers::new(1, 30 * S, 20 * S, start);
        timers.drain(10 * S, start);
        assert_eq!(timers.due(start + 9 * S), None, "the keep-alive counts no more");
        assert_eq!(timers.due(start + 10 * S), Some(Due::DrainOver));
    }
}
