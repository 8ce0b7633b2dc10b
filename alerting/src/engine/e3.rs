//! E3: the terminal itself reports an entrapment (DOMAIN.md 5).

use domain::{EvidenceKind, RuleId};

use super::apply::Ctx;
use super::codes::ActiveCode;
use super::confidence::{self, Finding};
use super::latch::By;
use super::motion::Moving;
use super::state::ElevatorState;
use super::words;

/// The code has outlasted the filter.
pub(super) fn decide(state: &mut ElevatorState, ctx: &mut Ctx<'_>, active: &ActiveCode) {
    let retrofit = state.is_retrofit(&active.terminal);
    let against = if state.motion.state == Moving::Running {
        Some("running")
    } else if state.merged.door_open_in_zone() {
        Some("door open in the zone")
    } else if state.latch.is_reliable_no() {
        Some("a reliable no before the code")
    } else {
        None
    };
    let against = against.filter(|_| retrofit);
    let contradiction =
        against.map(|what| format!(", contradicted by the state: {what}")).unwrap_or_default();
    let trace = format!(
        "device code {} ({}) active {} (filter {} s) from a {} terminal{contradiction}, {}, {}",
        active.code.raw,
        active.code.fault.slug,
        words::span(active.since, ctx.now),
        ctx.rules.thresholds.e3_filter_s,
        if retrofit { "retrofit" } else { "controller" },
        words::zone(state),
        words::floor(state),
    );
    state.latch.force(By::Code, ctx.now);
    let mut finding = Finding::new(
        EvidenceKind::DeviceCode,
        RuleId::E3,
        active.code.fault,
        active.began,
        active.origin.clone(),
        trace,
    );
    finding.contradicted = against.is_some();
    finding.restricted = state.inspection.restricts(ctx.now, ctx.rules.thresholds);
    confidence::add(state, ctx, finding);
}
