//! A timer of a rule that waits for its conditions to last (DOMAIN.md 5, "Timers").

use serde::{Deserialize, Serialize};

use super::apply::Ctx;
use super::state::{At, Origin};

/// Runs while the conditions hold. Its start is stored, so that it survives a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Timer {
    /// Start that counts; shifted by the time without fresh data.
    #[serde(rename = "s")]
    pub(super) since: At,
    /// When the condition began: the alarm time.
    #[serde(rename = "b")]
    pub(super) began: At,
    #[serde(rename = "o")]
    pub(super) origin: Origin,
    /// Which form of the condition holds; another form starts anew.
    #[serde(rename = "f")]
    pub(super) form: u8,
    /// It has run out and spoken; the rule re-arms when its condition breaks.
    #[serde(rename = "x", default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) spent: bool,
}

/// Starts, keeps or breaks a timer by the form of the condition that holds now. Returns the one that broke
/// before it had run out. Late readings break timers but never start them (DOMAIN.md 6, "Late").
pub(super) fn step(slot: &mut Option<Timer>, form: Option<u8>, ctx: &Ctx<'_>) -> Option<Timer> {
    if slot.as_ref().map(|timer| timer.form) == form {
        return None;
    }
    let broken = slot.take();
    if let Some(form) = form
        && ctx.live
    {
        let origin = ctx.origin.clone();
        *slot = Some(Timer { since: ctx.start, began: ctx.began, origin, form, spent: false });
    }
    broken.filter(|timer| !timer.spent)
}

impl Timer {
    /// When it runs out, if data stays fresh until then.
    pub(super) fn due(&self, limit_s: u32, stale_at: At) -> Option<At> {
        let due = self.since.plus_s(limit_s);
        (!self.spent && due <= stale_at).then_some(due)
    }
}
