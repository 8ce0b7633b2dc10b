//! E5: power or safety circuit gone with people inside (DOMAIN.md 5).

use domain::{EvidenceKind, Reading, RuleId, ServiceMode};

use super::apply::Ctx;
use super::confidence::{self, Finding};
use super::e1::BLOCKED;
use super::state::{At, ElevatorState};
use super::thresholds::Thresholds;
use super::timer::{self, Timer};
use super::{freshness, words};

/// What says that the power is off.
pub(super) fn cut(state: &ElevatorState) -> Option<&'static str> {
    if state.merged.service_mode == Some(ServiceMode::EmergencyPower) {
        Some("mode 5 (emergency power)")
    } else if state.merged.flag(Reading::FLAG_BATTERY_POWER) {
        Some("power source battery")
    } else if state.is_active("power_off") {
        Some("power_off")
    } else {
        None
    }
}

fn cause(state: &ElevatorState) -> Option<&'static str> {
    let circuit =
        state.merged.flag(Reading::FLAG_SAFETY_CIRCUIT_OPEN) || state.is_active("safety_circuit_open");
    cut(state).or(circuit.then_some("safety_circuit_open"))
}

fn form(state: &ElevatorState) -> Option<u8> {
    if state.latch.people() != Some(true) || state.merged.door_open_in_zone() || cause(state).is_none() {
        return None;
    }
    Some(if state.inspection.blocks_e5() { BLOCKED } else { 0 })
}

/// Starts, keeps or breaks the timer.
pub(super) fn evaluate(state: &mut ElevatorState, ctx: &mut Ctx<'_>) {
    let form = form(state);
    if let Some(broken) = timer::step(&mut state.e5, form, ctx) {
        let limit_s = ctx.rules.thresholds.e5_s;
        confidence::give_up(state, ctx, RuleId::E5, &broken, limit_s);
    }
}

/// When the timer runs out.
pub(super) fn due(state: &ElevatorState, numbers: &Thresholds) -> Option<At> {
    state.e5.as_ref()?.due(numbers.e5_s, freshness::stale_at(state, numbers))
}

/// The timer has run out.
pub(super) fn fire(state: &mut ElevatorState, ctx: &mut Ctx<'_>) {
    let Some(Timer { since, began, origin, form, .. }) = confidence::spend(&mut state.e5) else { return };
    let numbers = ctx.rules.thresholds;
    let is_mode5 = state.merged.service_mode == Some(ServiceMode::EmergencyPower);
    let confirm_s = if is_mode5 { numbers.auto_confirm_mode5_s } else { numbers.auto_confirm_s };
    let trace = format!(
        "{} for {} (limit {} s), {}, {}, {}, {}; auto-confirm after {confirm_s} s",
        cause(state).unwrap_or("power or safety circuit gone"),
        words::span(since, ctx.now),
        numbers.e5_s,
        words::zone(state),
        words::door(state),
        words::latch(state),
        words::floor(state),
    );
    let kind = words::kind_by_place(state);
    let finding = Finding::new(EvidenceKind::StateRule, RuleId::E5, kind, began, origin, trace);
    confidence::add_state_rule(state, ctx, finding, form & BLOCKED != 0);
}
