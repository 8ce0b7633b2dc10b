//! E1: stopped outside the zone with people inside (DOMAIN.md 5).

use domain::{EvidenceKind, RuleId};

use super::apply::Ctx;
use super::confidence::{self, Finding};
use super::motion::Moving;
use super::state::{At, ElevatorState};
use super::thresholds::Thresholds;
use super::timer::{self, Timer};
use super::{e2, freshness, words};

/// Outside the zone.
const OUTSIDE: u8 = 0;
/// The zone is unknown: the door and latch conditions of E2.
const ZONE_UNKNOWN: u8 = 1;
/// Added where inspection takes the guard: the timer runs only to say what was suppressed.
pub(super) const BLOCKED: u8 = 8;

fn form(state: &ElevatorState) -> Option<u8> {
    if state.motion.state != Moving::Stopped {
        return None;
    }
    let outside = match state.merged.door_zone {
        Some(in_zone) => !in_zone,
        None => state.is_active("stop_outside_zone"),
    };
    let form = if outside {
        (state.latch.people() == Some(true)).then_some(OUTSIDE)?
    } else if state.merged.door_zone.is_none() {
        e2::is_shut_in(state).then_some(ZONE_UNKNOWN)?
    } else {
        return None;
    };
    Some(if state.inspection.blocks() { form | BLOCKED } else { form })
}

fn limit_s(form: u8, numbers: &Thresholds) -> u32 {
    if form & ZONE_UNKNOWN == 0 { numbers.e1_s } else { numbers.e1_zone_unknown_s }
}

/// Starts, keeps or breaks the timer.
pub(super) fn evaluate(state: &mut ElevatorState, ctx: &mut Ctx<'_>) {
    let form = form(state);
    if let Some(broken) = timer::step(&mut state.e1, form, ctx) {
        let limit_s = limit_s(broken.form, ctx.rules.thresholds);
        confidence::give_up(state, ctx, RuleId::E1, &broken, limit_s);
    }
}

/// When the timer runs out.
pub(super) fn due(state: &ElevatorState, numbers: &Thresholds) -> Option<At> {
    let timer = state.e1.as_ref()?;
    timer.due(limit_s(timer.form, numbers), freshness::stale_at(state, numbers))
}

/// The timer has run out.
pub(super) fn fire(state: &mut ElevatorState, ctx: &mut Ctx<'_>) {
    let Some(Timer { since, began, origin, form, .. }) = confidence::spend(&mut state.e1) else { return };
    let limit_s = limit_s(form, ctx.rules.thresholds);
    let place = if form & ZONE_UNKNOWN == 0 { "outside the zone" } else { "with the zone unknown" };
    let trace = format!(
        "stopped {} {place} (limit {limit_s} s), {}, {}, {}, {}",
        words::span(since, ctx.now),
        words::door(state),
        words::latch(state),
        words::mode(state),
        words::floor(state),
    );
    let kind = if form & ZONE_UNKNOWN == 0 { "entrapment_between_floors" } else { "entrapment" };
    let finding = Finding::new(EvidenceKind::StateRule, RuleId::E1, words::kind(kind), began, origin, trace);
    confidence::add_state_rule(state, ctx, finding, form & BLOCKED != 0);
}
