//! One input applied to one elevator, and the deadlines that come before it.

use domain::{ArrivalNo, BootId, FaultKind, RuleId, Seq, Suppression, TerminalId, Timestamp};

use super::state::{At, ElevatorState, Origin};
use super::thresholds::{Rules, Thresholds};
use super::{
    Input, Transition, bounds, clear, codes, confidence, e1, e2, e4, e5, events, faults, freshness,
    inspection, late,
};

/// What a rule needs to know beside the state: the numbers, the time, the message, and where to tell.
pub(super) struct Ctx<'a> {
    pub(super) rules: Rules<'a>,
    /// Server time of the decision.
    pub(super) now: At,
    /// From when timers count: the later of corrected device time and arrival less 60 s.
    pub(super) start: At,
    /// When it happened: corrected device time.
    pub(super) began: At,
    pub(super) no: ArrivalNo,
    pub(super) origin: Origin,
    /// Not a late one.
    pub(super) live: bool,
    pub(super) out: &'a mut Vec<Transition>,
}

impl Ctx<'_> {
    /// Tells of a candidate that was given up.
    #[allow(clippy::too_many_arguments)] // a record's fields
    pub(super) fn suppress(
        &mut self,
        state: &ElevatorState,
        rule: RuleId,
        kind: &'static FaultKind,
        terminal: &TerminalId,
        began: At,
        reason: &str,
        trace: String,
    ) {
        self.out.push(Transition::Suppressed(Suppression {
            elevator_id: state.elevator_id,
            terminal_id: terminal.clone(),
            kind: domain::AlarmKind(kind),
            rule,
            rule_version: self.rules.version,
            began: began.time(),
            at: self.now.time(),
            reason: reason.to_owned(),
            trace,
        }));
    }
}

/// Applies one input to the state of the elevator it is for. Deadlines up to the input's time fire first, and
/// those it makes due fire last, so nothing that is due is left behind.
pub fn apply(state: &mut ElevatorState, input: &Input, rules: Rules<'_>, out: &mut Vec<Transition>) {
    match input {
        Input::Clock(at) => fire_until(state, rules, At::of(*at), out),
        Input::Message { terminal_id, area, arrival, message, .. } => {
            let index = begin(state, terminal_id, *area, *arrival, rules, out);
            freshness::hear(state, index, None, state.now, rules.thresholds);
            events::take(state, index, message, *arrival, rules, out);
            fire_until(state, rules, state.now, out);
        }
        Input::Presence { terminal_id, area, arrival, online, .. } => {
            let index = begin(state, terminal_id, *area, *arrival, rules, out);
            freshness::hear(state, index, Some(*online), state.now, rules.thresholds);
            fire_until(state, rules, state.now, out);
        }
        Input::Muted { terminal_id, area, arrival, .. } => {
            let index = begin(state, terminal_id, *area, *arrival, rules, out);
            freshness::mute(state, index);
            fire_until(state, rules, state.now, out);
        }
        Input::Traits { terminal_id, area, arrival, traits, .. } => {
            let index = begin(state, terminal_id, *area, *arrival, rules, out);
            state.terminals[index].traits = *traits;
            fire_until(state, rules, state.now, out);
        }
    }
}

fn begin(
    state: &mut ElevatorState,
    terminal: &TerminalId,
    area: domain::Area,
    arrival: domain::Arrival,
    rules: Rules<'_>,
    out: &mut Vec<Transition>,
) -> usize {
    fire_until(state, rules, At::of(arrival.at), out);
    state.area = area;
    state.now = state.now.max(At::of(arrival.at));
    state.arrival_no = state.arrival_no.max(arrival.no);
    state.terminal_index(terminal)
}

/// The rules look at the state.
pub(super) fn evaluate(state: &mut ElevatorState, ctx: &mut Ctx<'_>) {
    inspection::update(state, ctx);
    e1::evaluate(state, ctx);
    e2::evaluate(state, ctx);
    e5::evaluate(state, ctx);
    if ctx.live {
        e4::evaluate(state, ctx);
        faults::check_people(state, ctx);
    }
}

/// The next moment at which something happens to this elevator without an input.
pub fn next_deadline(state: &ElevatorState, thresholds: &Thresholds) -> Option<Timestamp> {
    next(state, thresholds).map(At::time)
}

fn next(state: &ElevatorState, numbers: &Thresholds) -> Option<At> {
    let backlog = state.terminals.iter().filter_map(|terminal| terminal.backlog).min();
    let all = [
        latch_due(state, numbers),
        backlog,
        codes::due(state, numbers),
        late::due(state),
        e4::due(state, numbers),
        e1::due(state, numbers),
        e2::due(state, numbers),
        e5::due(state, numbers),
        clear::due(state, numbers),
        confidence::due(state, numbers),
    ];
    all.into_iter().flatten().min()
}

/// In a backlog the latch follows the readings' own time.
fn latch_due(state: &ElevatorState, numbers: &Thresholds) -> Option<At> {
    if state.is_in_backlog() { None } else { state.latch.due(numbers) }
}

/// Fires every deadline up to `at`, in order.
pub(super) fn fire_until(state: &mut ElevatorState, rules: Rules<'_>, at: At, out: &mut Vec<Transition>) {
    for _ in 0..bounds::FIRES_MAX {
        match next(state, rules.thresholds) {
            Some(due) if due <= at => fire(state, rules, due, out),
            _ => return,
        }
    }
}

/// Fires what is due at `due`, always in the same order.
fn fire(state: &mut ElevatorState, rules: Rules<'_>, due: At, out: &mut Vec<Transition>) {
    let numbers = rules.thresholds;
    // A deadline may lie before what was handled last: it was only found now.
    let now = state.now.max(due);
    state.now = now;
    let origin = state.origin.clone().unwrap_or_else(|| nobody(state));
    let mut ctx = Ctx { rules, now, start: now, began: now, no: state.arrival_no, origin, live: true, out };
    let ctx = &mut ctx;
    let is_due = |moment: Option<At>| moment.is_some_and(|moment| moment <= due);

    if is_due(latch_due(state, numbers)) {
        state.latch.pass(due, numbers);
    }
    for index in 0..state.terminals.len() {
        if is_due(state.terminals[index].backlog) {
            events::end_backlog(state, ctx, index);
        }
    }
    ctx.live = !state.is_in_backlog();
    evaluate(state, ctx);
    codes::fire(state, ctx, due);
    late::fire(state, ctx, due);
    if is_due(e4::due(state, numbers)) {
        e4::fire(state, ctx);
    }
    if is_due(e1::due(state, numbers)) {
        e1::fire(state, ctx);
    }
    if is_due(e2::due(state, numbers)) {
        e2::fire(state, ctx);
    }
    if is_due(e5::due(state, numbers)) {
        e5::fire(state, ctx);
    }
    if is_due(clear::due(state, numbers)) {
        clear::fire(state, ctx);
    }
    if is_due(confidence::due(state, numbers)) {
        confidence::fire(state, ctx);
    }
    evaluate(state, ctx);
}

/// A deadline needs a message before it, so there is always someone; a state from elsewhere may lack it.
fn nobody(state: &ElevatorState) -> Origin {
    let terminal = state.terminals.first().map(|terminal| terminal.id.clone());
    let terminal = terminal.unwrap_or_else(|| TerminalId::new("unknown").expect("a good terminal id"));
    Origin { terminal, boot: BootId(0), seq: Seq(-1), device_us: 0 }
}
