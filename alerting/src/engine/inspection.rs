//! Inspection (检修) and the guard it takes away or leaves (DOMAIN.md 5, "Inspection" and "Guard G").

use domain::ServiceMode;
use serde::{Deserialize, Serialize};

use super::apply::Ctx;
use super::state::{At, ElevatorState};
use super::{e5, thresholds::Thresholds};

/// Whether the elevator is in inspection, and what that does to the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Inspection {
    since: Option<At>,
    /// People were inside, or a candidate was running, when it began: the guard stays true.
    kept: bool,
    /// While power is cut: whether it blocked before the cut (E5).
    before_cut: Option<bool>,
}

impl Inspection {
    /// The guard is false.
    pub(super) fn blocks(&self) -> bool {
        self.since.is_some() && !self.kept
    }

    /// The guard of E5, which goes by the mode before the cut.
    pub(super) fn blocks_e5(&self) -> bool {
        self.before_cut.unwrap_or(self.blocks())
    }

    /// Button and codes lose score and confirm nothing by themselves.
    pub(super) fn restricts(&self, now: At, numbers: &Thresholds) -> bool {
        self.blocks() && self.since.is_some_and(|since| !now.is_past(since, numbers.inspection_max_s))
    }

    /// Since when.
    pub(super) fn since(&self) -> Option<At> {
        self.since
    }
}

/// Notes begin and end.
pub(super) fn update(state: &mut ElevatorState, ctx: &Ctx<'_>) {
    let active = state.merged.service_mode == Some(ServiceMode::Inspection)
        || state.is_active("inspection_mode")
        || state.is_active("maintenance_mode");
    let cut = e5::cut(state).is_some();
    let blocked = state.inspection.blocks();
    match (state.inspection.since, active) {
        (None, true) => {
            let kept = state.latch.people() == Some(true) || has_candidate(state);
            state.inspection.since = Some(ctx.start);
            state.inspection.kept = kept;
        }
        (Some(_), false) => {
            state.inspection.since = None;
            state.inspection.kept = false;
        }
        _ => {}
    }
    state.inspection.before_cut = if cut { state.inspection.before_cut.or(Some(blocked)) } else { None };
}

/// A rule has something in hand.
pub(super) fn has_candidate(state: &ElevatorState) -> bool {
    state.case.is_some()
        || state.e1.is_some()
        || state.e2.is_some()
        || state.e5.is_some()
        || state.e4.is_some()
        || state.codes.iter().any(|active| !active.spent && active.is_people())
}
