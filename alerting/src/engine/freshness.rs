//! Whether data is fresh (DOMAIN.md 6, "Heartbeat"); stale data pauses the timers.
//!
//! A connected terminal counts as heard: the broker's keep-alive sees its pings, which the engine does not. One whose
//! messages we drop does not: that nothing changes is then no news of it.

use super::merge::RULE_FIELDS;
use super::state::{At, ElevatorState};
use super::terminal::Terminal;
use super::thresholds::Thresholds;

/// The far end of time.
const NEVER: i64 = i64::MAX;

fn terminal_stale_at(terminal: &Terminal, numbers: &Thresholds) -> At {
    if let Some(muted) = terminal.muted {
        return muted;
    }
    if terminal.online == Some(true) {
        return At::of_micros(NEVER);
    }
    let period_s = terminal.traits.heartbeat_s.unwrap_or(numbers.heartbeat_s);
    let fresh_us = i64::from(period_s) * i64::from(numbers.fresh_periods_tenths) * 100_000;
    terminal.heard.plus_micros(fresh_us)
}

/// Until when the data that the rules judge by is fresh, if nothing more comes.
pub(super) fn stale_at(state: &ElevatorState, numbers: &Thresholds) -> At {
    let speaking = state.terminals.iter().filter(|terminal| terminal.owns & RULE_FIELDS != 0);
    speaking.map(|terminal| terminal_stale_at(terminal, numbers)).min().unwrap_or(At::of_micros(NEVER))
}

/// Terminal `index` was heard at `now`: by a publish, or because it came or went. Timers that stood still
/// since the data went stale go on.
pub(super) fn hear(
    state: &mut ElevatorState,
    index: usize,
    online: Option<bool>,
    now: At,
    numbers: &Thresholds,
) {
    let before = stale_at(state, numbers);
    if before < now {
        state.stale.get_or_insert(before);
    }
    let terminal = &mut state.terminals[index];
    // The end of a connection may come long after the last word on it.
    let heard = if online == Some(false) { now.minus_s(numbers.keepalive_drop_s) } else { now };
    terminal.heard = terminal.heard.max(heard);
    terminal.online = online.or(terminal.online);
    if online != Some(false) {
        terminal.muted = None;
    }
    let Some(stale) = state.stale else { return };
    if stale_at(state, numbers) < now {
        return;
    }
    state.stale = None;
    for timer in [&mut state.e1, &mut state.e2, &mut state.e5].into_iter().flatten() {
        timer.since = timer.since.plus_micros(now.since(stale.max(timer.since)));
    }
}

/// From now on nothing that terminal `index` says comes through.
pub(super) fn mute(state: &mut ElevatorState, index: usize) {
    let now = state.now;
    state.terminals[index].muted.get_or_insert(now);
}
