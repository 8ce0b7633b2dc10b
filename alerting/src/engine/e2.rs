//! E2: the door stays shut at a landing with people inside (DOMAIN.md 5). Order matters: people in, door closed,
//! run, level, time.

use domain::{EvidenceKind, RuleId, ServiceMode};

use super::apply::Ctx;
use super::confidence::{self, Finding};
use super::e1::BLOCKED;
use super::motion::Moving;
use super::state::{At, ElevatorState};
use super::thresholds::Thresholds;
use super::timer::{self, Timer};
use super::{freshness, words};

/// A run ended here.
const ARRIVED: u8 = 0;
/// The variant: the door closed on people and no run follows.
const RECLOSED: u8 = 1;

/// The door and latch conditions: door not open, no opening since the stop, people inside since before the run
/// that ended here.
pub(super) fn is_shut_in(state: &ElevatorState) -> bool {
    if state.merged.door_is_open() || state.motion.opened {
        return false;
    }
    // Where no door signal told of people leaving, a sensor that sees nobody now must be believed; where
    // readings were missed, one that sees somebody is needed.
    if state.latch.is_sensed() {
        let is_unseen = state.latch.has_no_door() && state.latch.raw == Some(false);
        let is_doubtful = state.motion.doubtful && state.latch.raw != Some(true);
        if is_unseen || is_doubtful {
            return false;
        }
    }
    match state.latch.people() {
        Some(true) => {
            let started = state.motion.run.filter(|run| run.ended.is_some()).map(|run| run.started);
            state.latch.is_before_run(started)
        }
        Some(false) => false,
        None => state.is_active("door_open_fault"),
    }
}

fn form(state: &ElevatorState, numbers: &Thresholds) -> Option<u8> {
    if state.motion.state != Moving::Stopped || state.merged.door_zone != Some(true) {
        return None;
    }
    if matches!(state.merged.service_mode, Some(ServiceMode::FireRecall | ServiceMode::Firefighter)) {
        return None;
    }
    let reclosed =
        numbers.e2_reclose && state.merged.door_closed() == Some(true) && state.latch.people() == Some(true);
    let form = if is_shut_in(state) {
        ARRIVED
    } else if reclosed {
        RECLOSED
    } else {
        return None;
    };
    Some(if state.inspection.blocks() { form | BLOCKED } else { form })
}

/// Starts, keeps or breaks the timer.
pub(super) fn evaluate(state: &mut ElevatorState, ctx: &mut Ctx<'_>) {
    let form = form(state, ctx.rules.thresholds);
    if let Some(broken) = timer::step(&mut state.e2, form, ctx) {
        let limit_s = ctx.rules.thresholds.e2_s;
        confidence::give_up(state, ctx, RuleId::E2, &broken, limit_s);
    }
}

/// When the timer runs out.
pub(super) fn due(state: &ElevatorState, numbers: &Thresholds) -> Option<At> {
    state.e2.as_ref()?.due(numbers.e2_s, freshness::stale_at(state, numbers))
}

/// The timer has run out.
pub(super) fn fire(state: &mut ElevatorState, ctx: &mut Ctx<'_>) {
    let Some(Timer { since, began, origin, form, .. }) = confidence::spend(&mut state.e2) else { return };
    let since_text = words::span(since, ctx.now);
    let what =
        if form & RECLOSED == 0 { "no opening since the stop" } else { "door closed on people, no run" };
    let unknown = if state.latch.people().is_none() { ", door_open_fault active" } else { "" };
    let trace = format!(
        "at a landing {since_text} (limit {} s), {what}, {}, {}{unknown}, {}, {}",
        ctx.rules.thresholds.e2_s,
        words::door(state),
        words::latch(state),
        words::mode(state),
        words::floor(state),
    );
    let kind = words::kind("entrapment_at_level");
    let finding = Finding::new(EvidenceKind::StateRule, RuleId::E2, kind, began, origin, trace);
    confidence::add_state_rule(state, ctx, finding, form & BLOCKED != 0);
}
