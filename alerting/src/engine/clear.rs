//! Clear (解除): the signals say that people can leave (DOMAIN.md 5, "Clear").
//!
//! (a) the door stands open in the zone for 2 s, or (b) a normal run with a door cycle at its end. Only what
//! was not dispatched is closed by it: a suspected alarm becomes cancelled. A confirmed one goes to dispatch at
//! once, so it keeps its state, and the clear is a line of evidence and the `cleared` time.

use domain::{AlarmChange, AlarmState, EvidenceKind};

use super::apply::Ctx;
use super::state::{At, ElevatorState};
use super::thresholds::Thresholds;
use super::{codes, confidence, freshness, words};

/// When (a) is fulfilled.
pub(super) fn due(state: &ElevatorState, numbers: &Thresholds) -> Option<At> {
    let case = state.case.as_deref()?;
    if state.is_in_backlog() {
        return None;
    }
    let open = state.motion.open_zone?.max(case.since);
    let due = open.plus_s(numbers.clear_open_s);
    (due <= freshness::stale_at(state, numbers)).then_some(due)
}

/// (a) is fulfilled.
pub(super) fn fire(state: &mut ElevatorState, ctx: &mut Ctx<'_>) {
    let open = state.motion.open_zone.unwrap_or(ctx.now);
    let trace = format!(
        "signal_cleared: door open in the zone for {} (needs {} s), {}",
        words::span(open, ctx.now),
        ctx.rules.thresholds.clear_open_s,
        words::floor(state)
    );
    clear(state, ctx, trace);
}

/// (b): a normal run that began at `started` has ended with a door cycle.
pub(super) fn normal_run(state: &mut ElevatorState, ctx: &mut Ctx<'_>, started: At) {
    codes::end_once(state, ctx);
    let is_after = state.case.as_ref().is_some_and(|case| started >= At::of(case.alarm.began));
    if is_after {
        let trace = format!(
            "signal_cleared: normal run from {} with a door cycle at its end, {}",
            started.time(),
            words::floor(state)
        );
        clear(state, ctx, trace);
    }
}

fn clear(state: &mut ElevatorState, ctx: &mut Ctx<'_>, trace: String) {
    let Some(mut case) = state.case.take() else { return };
    if !case.raised {
        return confidence::give_up_case(state, ctx, &case, "signal_cleared", trace);
    }
    // The clear must be told even where the evidence is full.
    case.alarm.evidence.truncate(super::bounds::EVIDENCE_MAX - 1);
    let rule = case.rule();
    confidence::add_line(&mut case.alarm, ctx, EvidenceKind::Note, rule, trace);
    case.alarm.cleared = Some(ctx.now.time());
    if case.alarm.state == AlarmState::Suspected {
        case.alarm.state = AlarmState::Cancelled;
    }
    confidence::emit(ctx, AlarmChange::Cleared, &case.alarm);
}
