//! Codes that are active now, from every terminal, and the filters they must outlast (DOMAIN.md 5, "Fault
//! debounce"; DOMAIN.md 6, "Reconnect").
//!
//! A code told by an event ends with an event, with the list of active faults after a reconnect, or with
//! `no_fault`. A code that was in a reading's list ends when the list no longer has it. An empty list in a
//! reading says nothing of codes told by events: many terminals always send one.

use domain::{BootId, Code, RuleId, Seq, TerminalId};
use serde::{Deserialize, Serialize};

use super::apply::Ctx;
use super::e4::Press;
use super::state::{At, ElevatorState, Origin};
use super::thresholds::Thresholds;
use super::{bounds, e3, e4, faults, words};

/// The alarm contact of a reading's flags, as a code.
const BUTTON_FLAG: &str = "flags:alarm_button";

/// A code that began and has not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ActiveCode {
    #[serde(with = "one", rename = "c")]
    pub(super) code: Code,
    #[serde(rename = "t")]
    pub(super) terminal: TerminalId,
    #[serde(rename = "s")]
    pub(super) since: At,
    #[serde(rename = "b")]
    pub(super) began: At,
    #[serde(rename = "o")]
    pub(super) origin: Origin,
    /// Its end will not be told.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) once: bool,
    /// It was in a list of active codes of a reading.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    listed: bool,
    /// Its filter has passed and it was decided on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) spent: bool,
    /// It ended, but not soon enough to be rejected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ended: Option<At>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) press: Option<Press>,
}

impl ActiveCode {
    /// It tells of people by itself.
    pub(super) fn is_people(&self) -> bool {
        self.code.fault.is_entrapment() || is_button(&self.code)
    }

    /// Its filter has something to decide, and has not yet.
    fn waits(&self) -> bool {
        let fault = self.code.fault;
        !self.spent && (self.is_people() || fault.is_life_safety_fault() || fault.safety_if_people)
    }

    fn due(&self, state: &ElevatorState, numbers: &Thresholds) -> Option<At> {
        if !self.waits() {
            return None;
        }
        let fault = self.code.fault;
        if fault.is_entrapment() {
            Some(self.since.plus_s(numbers.e3_filter_s))
        } else if is_button(&self.code) {
            Some(self.since.plus_s(numbers.e4_filter_s))
        } else if fault.is_life_safety_fault() && !state.is_retrofit(&self.terminal) {
            Some(self.since)
        } else {
            Some(self.since.plus_s(numbers.fault_hold_s))
        }
    }

    fn rule(&self) -> RuleId {
        if self.code.fault.is_entrapment() {
            RuleId::E3
        } else if is_button(&self.code) {
            RuleId::E4
        } else {
            RuleId::Fault
        }
    }
}

pub(super) fn is_button(code: &Code) -> bool {
    code.fault.slug == "alarm_button"
}

/// Codes that some rule looks at; the store keeps the others.
fn is_relevant(code: &Code) -> bool {
    let fault = code.fault;
    fault.is_life_safety_fault()
        || fault.is_entrapment()
        || fault.safety_if_people
        || matches!(
            fault.slug,
            "alarm_button"
                | "power_off"
                | "safety_circuit_open"
                | "door_open_fault"
                | "stop_outside_zone"
                | "inspection_mode"
                | "maintenance_mode"
        )
}

/// A code begins, or is told again.
pub(super) fn open(state: &mut ElevatorState, ctx: &mut Ctx<'_>, code: &Code, once: bool, listed: bool) {
    if code.fault.slug == "auto_mode" {
        return end_untold(state, ctx, |slug| {
            matches!(slug, "inspection_mode" | "maintenance_mode" | "power_off")
        });
    }
    if !is_relevant(code) {
        return;
    }
    let same = |active: &&mut ActiveCode| {
        active.terminal == ctx.origin.terminal && active.code.raw == code.raw && active.ended.is_none()
    };
    if let Some(active) = state.codes.iter_mut().find(same) {
        active.listed |= listed;
        active.once &= once;
        return;
    }
    make_room(state);
    let press = is_button(code).then(|| Press::of(state));
    state.codes.push(ActiveCode {
        code: code.clone(),
        terminal: ctx.origin.terminal.clone(),
        since: ctx.start,
        began: ctx.began,
        origin: ctx.origin.clone(),
        once,
        listed,
        spent: false,
        ended: None,
        press,
    });
}

fn make_room(state: &mut ElevatorState) {
    if state.codes.len() < bounds::CODES_MAX {
        return;
    }
    let is_free = |active: &ActiveCode| !active.waits() && !faults::has_alarm(state, active.code.fault);
    let free = state.codes.iter().position(is_free);
    state.codes.remove(free.unwrap_or(0));
}

/// A code ends. `told` is the number of the event that says so: it does not end a code that began after it.
pub(super) fn close(state: &mut ElevatorState, ctx: &mut Ctx<'_>, raw: &str, told: Option<(BootId, Seq)>) {
    let position = state.codes.iter().position(|active| {
        active.terminal == ctx.origin.terminal && *active.code.raw == *raw && active.ended.is_none()
    });
    let Some(index) = position else { return };
    let origin = &state.codes[index].origin;
    let is_older = told.is_some_and(|(boot, seq)| {
        boot == origin.boot && seq.is_from_terminal() && origin.seq.is_from_terminal() && seq < origin.seq
    });
    if !is_older {
        end(state, ctx, index);
    }
}

fn end(state: &mut ElevatorState, ctx: &mut Ctx<'_>, index: usize) {
    let numbers = ctx.rules.thresholds;
    let active = &state.codes[index];
    let waits = active.waits();
    let pressed_us = ctx.start.since(active.since);
    if waits && is_button(&active.code) && pressed_us > i64::from(numbers.e4_press_s) * 1_000_000 {
        // Long enough to be valid; the filter decides.
        state.codes[index].ended = Some(ctx.start);
        return;
    }
    let active = state.codes.remove(index);
    if waits {
        let (what, limit_s) = match active.rule() {
            RuleId::E3 => ("device code", numbers.e3_filter_s),
            RuleId::E4 => ("button press", numbers.e4_press_s),
            _ => ("fault", numbers.fault_hold_s),
        };
        let trace = format!(
            "{what} {} ended after {} (filter {limit_s} s)",
            active.code.raw,
            words::seconds(pressed_us)
        );
        let (rule, kind, terminal) = (active.rule(), active.code.fault, &active.terminal);
        ctx.suppress(state, rule, kind, terminal, active.began, "ended_in_filter", trace);
    }
    faults::ended(state, ctx, active.code.fault);
}

/// A terminal lists what is active. `whole`: it lists everything, also what it told by events.
pub(super) fn reconcile(state: &mut ElevatorState, ctx: &mut Ctx<'_>, list: &[Code], whole: bool) {
    let whole = whole || list.iter().any(|code| code.fault.slug == "no_fault");
    let mut index = 0;
    while index < state.codes.len() {
        let active = &state.codes[index];
        let vanished = active.terminal == ctx.origin.terminal
            && (whole || active.listed)
            && active.ended.is_none()
            && *active.code.raw != *BUTTON_FLAG
            && !list.iter().any(|code| code.raw == active.code.raw);
        let count = state.codes.len();
        if vanished {
            end(state, ctx, index);
        }
        index += usize::from(state.codes.len() == count);
    }
    for code in list {
        open(state, ctx, code, false, true);
    }
}

/// The alarm contact of a reading.
pub(super) fn button_contact(state: &mut ElevatorState, ctx: &mut Ctx<'_>, pressed: bool) {
    let is_known = state.codes.iter().any(|active| {
        active.terminal == ctx.origin.terminal && *active.code.raw == *BUTTON_FLAG && active.ended.is_none()
    });
    if pressed && !is_known {
        let code = Code { raw: BUTTON_FLAG.into(), fault: words::kind("alarm_button") };
        open(state, ctx, &code, false, false);
    } else if !pressed && is_known {
        close(state, ctx, BUTTON_FLAG, None);
    }
}

/// Ends codes whose end would not be told otherwise: the state says that they are over.
pub(super) fn end_untold(state: &mut ElevatorState, ctx: &mut Ctx<'_>, over: impl Fn(&str) -> bool) {
    let mut index = 0;
    while index < state.codes.len() {
        let active = &state.codes[index];
        let count = state.codes.len();
        if active.ended.is_none() && !active.listed && over(active.code.fault.slug) {
            end(state, ctx, index);
        }
        index += usize::from(state.codes.len() == count);
    }
}

/// Ends what happened once, after a normal run showed that the elevator works.
pub(super) fn end_once(state: &mut ElevatorState, ctx: &mut Ctx<'_>) {
    let mut index = 0;
    while index < state.codes.len() {
        let active = &state.codes[index];
        let count = state.codes.len();
        if active.once && active.spent {
            end(state, ctx, index);
        }
        index += usize::from(state.codes.len() == count);
    }
}

/// When the next filter has passed.
pub(super) fn due(state: &ElevatorState, numbers: &Thresholds) -> Option<At> {
    state.codes.iter().filter_map(|active| active.due(state, numbers)).min()
}

/// Decides on every code whose filter has passed by `at`.
pub(super) fn fire(state: &mut ElevatorState, ctx: &mut Ctx<'_>, at: At) {
    let numbers = ctx.rules.thresholds;
    while let Some(index) =
        state.codes.iter().position(|active| active.due(state, numbers).is_some_and(|due| due <= at))
    {
        state.codes[index].spent = true;
        let active = state.codes[index].clone();
        let is_over = active.ended.is_some() || (active.once && active.is_people());
        if is_over {
            state.codes.remove(index);
        }
        match active.rule() {
            RuleId::E3 => e3::decide(state, ctx, &active),
            RuleId::E4 => e4::decide(state, ctx, &active),
            _ => faults::decide(state, ctx, &active),
        }
    }
}

impl ElevatorState {
    /// Whether the terminal's sensors are its own.
    pub(super) fn is_retrofit(&self, id: &TerminalId) -> bool {
        self.terminals.iter().any(|terminal| terminal.id == *id && terminal.traits.retrofit)
    }
}

/// A code as `[raw, slug]`.
pub(super) mod one {
    use std::sync::Arc;

    use domain::{Code, fault_by_slug};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(in super::super) fn serialize<S: Serializer>(code: &Code, serializer: S) -> Result<S::Ok, S::Error> {
        (&*code.raw, code.fault.slug).serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Code, D::Error> {
        let (raw, slug) = <(Arc<str>, String)>::deserialize(deserializer)?;
        let fault = fault_by_slug(&slug).ok_or_else(|| serde::de::Error::custom("unknown slug"))?;
        Ok(Code { raw, fault })
    }
}

/// Codes as a list of `[raw, slug]`.
pub(super) mod list {
    use domain::Code;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct One(#[serde(with = "super::one")] Code);

    pub(in super::super) fn serialize<S: Serializer>(
        codes: &[Code],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(codes.iter().map(|code| One(code.clone())))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<Code>, D::Error> {
        Ok(Vec::<One>::deserialize(deserializer)?.into_iter().map(|one| one.0).collect())
    }
}

/// A list that may be missing.
pub(super) mod maybe_list {
    use domain::Code;
    use serde::{Deserializer, Serializer};

    #[allow(clippy::ref_option)] // serde hands it over so
    pub(in super::super) fn serialize<S: Serializer>(
        codes: &Option<Vec<Code>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        super::list::serialize(codes.as_deref().unwrap_or_default(), serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Vec<Code>>, D::Error> {
        super::list::deserialize(deserializer).map(Some)
    }
}
