//! E4: the alarm button (DOMAIN.md 5).

use domain::{EvidenceKind, RuleId};
use serde::{Deserialize, Serialize};

use super::apply::Ctx;
use super::codes::ActiveCode;
use super::confidence::{self, Finding};
use super::latch::By;
use super::motion::Moving;
use super::state::{At, ElevatorState, Origin};
use super::{faults, thresholds::Thresholds, words};

/// How the elevator stood at the press.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Press {
    running: bool,
    open_in_zone: bool,
}

impl Press {
    pub(super) fn of(state: &ElevatorState) -> Self {
        Self {
            running: state.motion.state == Moving::Running,
            open_in_zone: state.merged.door_open_in_zone(),
        }
    }
}

/// A press while running: decided by what follows the stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Waiting {
    pub(super) began: At,
    pub(super) origin: Origin,
    /// The stop, once it has come.
    stop: Option<At>,
}

/// The press has outlasted the filter.
pub(super) fn decide(state: &mut ElevatorState, ctx: &mut Ctx<'_>, active: &ActiveCode) {
    let press = active.press.unwrap_or(Press { running: false, open_in_zone: false });
    state.latch.force(By::Button, ctx.now);
    if press.open_in_zone {
        let trace = "button pressed with the door open in the zone".to_owned();
        return nuisance(state, ctx, active.began, &active.origin, trace);
    }
    if press.running && !is_open_case(state) {
        if state.e4.is_none() {
            state.e4 = Some(Waiting { began: active.began, origin: active.origin.clone(), stop: None });
        }
        return evaluate(state, ctx);
    }
    let when = if press.running { "while running" } else { "at a stop" };
    let trace = format!(
        "alarm button pressed {when}, valid {} after the press (filter {} s), {}, {}, {}",
        words::span(active.since, ctx.now),
        ctx.rules.thresholds.e4_filter_s,
        words::door(state),
        words::zone(state),
        words::floor(state),
    );
    add_button(state, ctx, active.began, active.origin.clone(), trace);
}

fn is_open_case(state: &ElevatorState) -> bool {
    state.case.as_ref().is_some_and(|case| case.raised)
}

fn add_button(state: &mut ElevatorState, ctx: &mut Ctx<'_>, began: At, origin: Origin, trace: String) {
    let kind = words::kind_by_place(state);
    let mut finding = Finding::new(EvidenceKind::Button, RuleId::E4, kind, began, origin, trace);
    finding.restricted = state.inspection.restricts(ctx.now, ctx.rules.thresholds);
    confidence::add(state, ctx, finding);
}

/// Follows the run of a waiting press.
pub(super) fn evaluate(state: &mut ElevatorState, ctx: &mut Ctx<'_>) {
    let Some(waiting) = &mut state.e4 else { return };
    if state.motion.state == Moving::Running {
        waiting.stop = None;
        return;
    }
    let stop = *waiting.stop.get_or_insert(state.motion.since);
    if !state.motion.opened {
        return;
    }
    let Some(Waiting { began, origin, .. }) = state.e4.take() else { return };
    if state.motion.ended_normally(ctx.rules.thresholds) {
        let trace = format!(
            "button pressed in a run that ended normally: an opening within {} s of the stop at {}",
            ctx.rules.thresholds.run_end_s,
            stop.time()
        );
        nuisance(state, ctx, began, &origin, trace);
    } else {
        let trace = format!(
            "button pressed while running, and the run did not end normally: {}, {}, {}",
            words::mode(state),
            words::door(state),
            words::floor(state)
        );
        add_button(state, ctx, began, origin, trace);
    }
}

/// When a waiting press is decided.
pub(super) fn due(state: &ElevatorState, numbers: &Thresholds) -> Option<At> {
    Some(state.e4.as_ref()?.stop?.plus_s(numbers.e4_run_s))
}

/// No opening followed the stop.
pub(super) fn fire(state: &mut ElevatorState, ctx: &mut Ctx<'_>) {
    let Some(Waiting { began, origin, stop }) = state.e4.take() else { return };
    let trace = format!(
        "button pressed while running, no opening {} after the stop (limit {} s), {}, {}, {}",
        words::span(stop.unwrap_or(ctx.now), ctx.now),
        ctx.rules.thresholds.e4_run_s,
        words::door(state),
        words::zone(state),
        words::floor(state),
    );
    add_button(state, ctx, began, origin, trace);
}

/// A call that means nothing: logged and shown, then over at once.
fn nuisance(state: &mut ElevatorState, ctx: &mut Ctx<'_>, began: At, origin: &Origin, trace: String) {
    faults::tell(state, ctx, words::kind("nuisance_call"), RuleId::E4, began, origin, trace);
}
