//! The S1 faults of the taxonomy, and the S2 ones that become S1 with people inside (DOMAIN.md 4; DOMAIN.md 5,
//! "Fault debounce", "Intercept").
//!
//! One alarm per slug is open at a time. It is cleared when no terminal reports the fault any more.

use domain::{Alarm, AlarmChange, AlarmState, EvidenceKind, FaultKind, RuleId, Severity};
use serde::{Deserialize, Serialize};

use super::apply::Ctx;
use super::codes::ActiveCode;
use super::state::{At, ElevatorState, Origin};
use super::{confidence, words};

/// An open fault alarm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct FaultAlarm(Alarm);

/// Whether an alarm of this slug is open.
pub(super) fn has_alarm(state: &ElevatorState, fault: &FaultKind) -> bool {
    state.fault_alarms.iter().any(|it| it.0.kind.0 == fault)
}

/// The fault has outlasted its hold.
pub(super) fn decide(state: &mut ElevatorState, ctx: &mut Ctx<'_>, active: &ActiveCode) {
    if active.code.fault.is_life_safety_fault() {
        let retrofit = state.is_retrofit(&active.terminal);
        let hold_s = if retrofit { ctx.rules.thresholds.fault_hold_s } else { 0 };
        let trace = format!(
            "fault {} ({}) active {} (hold {hold_s} s) from a {} terminal, {}",
            active.code.raw,
            active.code.fault.slug,
            words::span(active.since, ctx.now),
            if retrofit { "retrofit" } else { "controller" },
            words::floor(state),
        );
        raise(state, ctx, active, retrofit, trace);
    } else {
        check_people(state, ctx);
    }
}

/// S2 faults that are S1 with people inside.
pub(super) fn check_people(state: &mut ElevatorState, ctx: &mut Ctx<'_>) {
    if state.codes.is_empty() || state.latch.people() != Some(true) {
        return;
    }
    let found = state.codes.iter().find(|active| {
        let fault = active.code.fault;
        active.spent && active.ended.is_none() && fault.safety_if_people && !has_alarm(state, fault)
    });
    if let Some(active) = found.cloned() {
        let trace = format!(
            "fault {} ({}) with people inside: {}, {}",
            active.code.raw,
            active.code.fault.slug,
            words::latch(state),
            words::floor(state)
        );
        let retrofit = state.is_retrofit(&active.terminal);
        raise(state, ctx, &active, retrofit, trace);
    }
}

fn raise(state: &mut ElevatorState, ctx: &mut Ctx<'_>, active: &ActiveCode, waits: bool, trace: String) {
    let fault = active.code.fault;
    // Overruns seen by sensors that are not the controller's are no ground for a rescue (低信任).
    let is_low_trust = waits && matches!(fault.slug, "top_overrun" | "pit_overrun");
    let severity = if is_low_trust { Severity::S2 } else { Severity::S1 };
    open(state, ctx, fault, severity, waits, active.began, &active.origin, trace);
}

#[allow(clippy::too_many_arguments)] // an alarm's fields
fn open(
    state: &mut ElevatorState,
    ctx: &mut Ctx<'_>,
    fault: &'static FaultKind,
    severity: Severity,
    waits: bool,
    began: At,
    origin: &Origin,
    trace: String,
) {
    if let Some(open) = state.fault_alarms.iter_mut().find(|it| it.0.kind.0 == fault) {
        confidence::add_line(&mut open.0, ctx, EvidenceKind::DeviceCode, RuleId::Fault, trace.clone());
        open.0.severity = open.0.severity.min(severity);
        let alarm = open.0.clone();
        confidence::emit(ctx, AlarmChange::Updated, &alarm);
        let trace = format!("merged into alarm {}: {trace}", alarm.id);
        return ctx.suppress(state, RuleId::Fault, fault, &origin.terminal, began, "merged", trace);
    }
    let mut alarm = confidence::alarm(state, ctx, fault, began, origin);
    alarm.severity = severity;
    alarm.state = if waits { AlarmState::Suspected } else { AlarmState::Confirmed };
    confidence::add_line(&mut alarm, ctx, EvidenceKind::DeviceCode, RuleId::Fault, trace);
    confidence::emit(ctx, AlarmChange::Raised, &alarm);
    // At most one per slug of the taxonomy, so the list is bounded by that table.
    state.fault_alarms.push(FaultAlarm(alarm));
}

/// A fault of long ago that has no end: to the operator's queue.
pub(super) fn raise_late(
    state: &mut ElevatorState,
    ctx: &mut Ctx<'_>,
    fault: &'static FaultKind,
    began: At,
    origin: &Origin,
    trace: String,
) {
    open(state, ctx, fault, Severity::S1, true, began, origin, trace);
}

/// A code ended; its alarm ends with the last of its slug.
pub(super) fn ended(state: &mut ElevatorState, ctx: &mut Ctx<'_>, fault: &'static FaultKind) {
    if state.fault_alarms.is_empty() || state.codes.iter().any(|active| active.code.fault == fault) {
        return;
    }
    let Some(index) = state.fault_alarms.iter().position(|it| it.0.kind.0 == fault) else { return };
    let FaultAlarm(mut alarm) = state.fault_alarms.remove(index);
    alarm.evidence.truncate(super::bounds::EVIDENCE_MAX - 1);
    confidence::add_line(&mut alarm, ctx, EvidenceKind::Note, RuleId::Fault, "fault ended".to_owned());
    alarm.cleared = Some(ctx.now.time());
    if alarm.state == AlarmState::Suspected {
        alarm.state = AlarmState::Cancelled;
    }
    confidence::emit(ctx, AlarmChange::Cleared, &alarm);
}

/// Tells of something that is over as soon as it is told: raised and cleared.
pub(super) fn tell(
    state: &ElevatorState,
    ctx: &mut Ctx<'_>,
    kind: &'static FaultKind,
    rule: RuleId,
    began: At,
    origin: &Origin,
    trace: String,
) {
    let mut alarm = confidence::alarm(state, ctx, kind, began, origin);
    confidence::add_line(&mut alarm, ctx, EvidenceKind::Note, rule, trace);
    confidence::emit(ctx, AlarmChange::Raised, &alarm);
    alarm.cleared = Some(ctx.now.time());
    alarm.state = AlarmState::Cancelled;
    confidence::emit(ctx, AlarmChange::Cleared, &alarm);
}
