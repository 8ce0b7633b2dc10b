//! Late S1 events (补传): those that have no end go to the operator's queue, marked late (DOMAIN.md 6, "Late").
//!
//! The end may come later in the same backlog, so an event waits until the backlog has been quiet for
//! `backlog_quiet_s`.

use domain::{AlarmId, BootId, Code, EvidenceKind, RuleId, Seq};
use serde::{Deserialize, Serialize};

use super::apply::Ctx;
use super::confidence::{self, Finding};
use super::state::{At, ElevatorState, Origin};
use super::{bounds, codes, faults, words};

/// A late begin that waits for its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LateOpen {
    #[serde(with = "codes::one", rename = "c")]
    code: Code,
    #[serde(rename = "b")]
    began: At,
    #[serde(rename = "o")]
    origin: Origin,
    due: At,
}

fn rule(code: &Code) -> RuleId {
    if code.fault.is_entrapment() {
        RuleId::E3
    } else if codes::is_button(code) {
        RuleId::E4
    } else {
        RuleId::Fault
    }
}

/// A late begin.
pub(super) fn open(state: &mut ElevatorState, ctx: &mut Ctx<'_>, code: &Code) {
    let is_grave = code.fault.is_entrapment() || code.fault.is_life_safety_fault() || codes::is_button(code);
    if !is_grave {
        return;
    }
    if state.late.len() >= bounds::LATE_MAX {
        decide(state, ctx, 0);
    }
    let due = ctx.now.plus_s(ctx.rules.thresholds.backlog_quiet_s);
    state.late.push(LateOpen { code: code.clone(), began: ctx.began, origin: ctx.origin.clone(), due });
}

/// An end, late or not: takes away the begin it belongs to.
pub(super) fn close(state: &mut ElevatorState, ctx: &mut Ctx<'_>, raw: &str, told: (BootId, Seq)) {
    let position = state.late.iter().position(|late| {
        let origin = &late.origin;
        let is_after = told.0 != origin.boot || told.1 > origin.seq || !told.1.is_from_terminal();
        origin.terminal == ctx.origin.terminal && *late.code.raw == *raw && is_after
    });
    let Some(index) = position else { return };
    let late = state.late.remove(index);
    let trace = format!("late: {} began {} and has ended since", late.code.raw, late.began.time());
    ctx.suppress(state, rule(&late.code), late.code.fault, &late.origin.terminal, late.began, "late", trace);
}

/// More of a terminal's backlog has come: its end is not yet known.
pub(super) fn prolong(state: &mut ElevatorState, ctx: &Ctx<'_>) {
    let due = ctx.now.plus_s(ctx.rules.thresholds.backlog_quiet_s);
    for late in state.late.iter_mut().filter(|late| late.origin.terminal == ctx.origin.terminal) {
        late.due = due;
    }
}

/// When the next one is decided.
pub(super) fn due(state: &ElevatorState) -> Option<At> {
    state.late.iter().map(|late| late.due).min()
}

/// Decides on those whose backlog has been quiet.
pub(super) fn fire(state: &mut ElevatorState, ctx: &mut Ctx<'_>, at: At) {
    while let Some(index) = state.late.iter().position(|late| late.due <= at) {
        decide(state, ctx, index);
    }
}

fn decide(state: &mut ElevatorState, ctx: &mut Ctx<'_>, index: usize) {
    let LateOpen { code, began, origin, .. } = state.late.remove(index);
    let is_told =
        state.codes.iter().any(|active| active.terminal == origin.terminal && active.code.raw == code.raw);
    let kind = if codes::is_button(&code) { words::kind("entrapment") } else { code.fault };
    if is_told {
        let trace = format!("late: {} began {}, and is active now", code.raw, began.time());
        return ctx.suppress(state, rule(&code), kind, &origin.terminal, began, "merged", trace);
    }
    let Origin { terminal, boot, seq, device_us } = &origin;
    let id = AlarmId::derive(state.elevator_id, kind.slug, terminal, *boot, *seq, *device_us);
    if state.late_raised.contains(&id) {
        return;
    }
    if state.late_raised.len() >= bounds::LATE_RAISED_MAX {
        state.late_raised.remove(0);
    }
    state.late_raised.push(id);
    let trace = format!(
        "late: {} ({}) of {}, {} old on arrival (late from {} s), no end told",
        code.raw,
        code.fault.slug,
        began.time(),
        words::span(began, ctx.now),
        ctx.rules.thresholds.late_age_s,
    );
    if rule(&code) == RuleId::Fault {
        return faults::raise_late(state, ctx, kind, began, &origin, trace);
    }
    let evidence = if codes::is_button(&code) { EvidenceKind::Button } else { EvidenceKind::DeviceCode };
    let mut finding = Finding::new(evidence, rule(&code), kind, began, origin, trace);
    finding.late = true;
    confidence::add(state, ctx, finding);
}
