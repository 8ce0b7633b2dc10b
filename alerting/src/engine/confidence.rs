//! Evidence adds up to a score, and the score to a candidate or an alarm (DOMAIN.md 5, "Confidence", "Outcome",
//! "Duplicates").
//!
//! An elevator has at most one entrapment candidate or alarm at a time; everything found merges into it. An
//! alarm raised with a score below `score_suspected` is an operator item (人工核实): severity S2, never confirmed by
//! a clock. The engine does not see what people do with a case: the clock that confirms a suspected one, and
//! the link of a new alarm to an earlier case, belong to the case workflow.

use domain::{
    Alarm, AlarmChange, AlarmEvent, AlarmId, AlarmKind, AlarmState, EvidenceKind, EvidenceLine, FaultKind,
    RuleId, Severity, TerminalId,
};
use serde::{Deserialize, Serialize};

use super::apply::Ctx;
use super::merge::STATUS_FIELD;
use super::state::{At, ElevatorState, Origin};
use super::thresholds::Thresholds;
use super::timer::Timer;
use super::{Transition, bounds, words};

/// Something a rule has found.
pub(super) struct Finding {
    evidence: EvidenceKind,
    rule: RuleId,
    kind: &'static FaultKind,
    began: At,
    origin: Origin,
    trace: String,
    /// The presence sensor decided, and it flaps.
    flapping: bool,
    /// The state contradicts the device code.
    pub(super) contradicted: bool,
    /// Inspection takes score and confirmation.
    pub(super) restricted: bool,
    /// It arrived long after it happened.
    pub(super) late: bool,
    /// The terminal whose state the rule judged, or whose code it is.
    source: Option<TerminalId>,
}

impl Finding {
    pub(super) fn new(
        evidence: EvidenceKind,
        rule: RuleId,
        kind: &'static FaultKind,
        began: At,
        origin: Origin,
        trace: String,
    ) -> Self {
        let source = (evidence == EvidenceKind::DeviceCode).then(|| origin.terminal.clone());
        Self {
            evidence,
            rule,
            kind,
            began,
            origin,
            trace,
            flapping: false,
            contradicted: false,
            restricted: false,
            late: false,
            source,
        }
    }
}

/// The entrapment candidate or alarm of an elevator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Case {
    pub(super) alarm: Alarm,
    /// Below the score it is a candidate that nobody sees.
    pub(super) raised: bool,
    /// Since when there is a candidate.
    pub(super) since: At,
    /// The rule that began it.
    rule: RuleId,
    /// Kinds of live evidence, one bit each.
    kinds: u8,
    flapping: bool,
    contradicted: bool,
    restricted: bool,
    late: bool,
    /// State rule and device code come from these.
    state_source: Option<TerminalId>,
    code_source: Option<TerminalId>,
}

impl Case {
    fn new(state: &ElevatorState, ctx: &Ctx<'_>, finding: &Finding) -> Self {
        let origin = &finding.origin;
        let alarm = alarm(state, ctx, finding.kind, finding.began, origin);
        Self {
            alarm,
            raised: false,
            since: ctx.now,
            rule: finding.rule,
            kinds: 0,
            flapping: false,
            contradicted: false,
            restricted: false,
            late: false,
            state_source: None,
            code_source: None,
        }
    }

    fn note(&mut self, finding: &Finding) {
        if finding.late {
            self.late = true;
            return;
        }
        self.kinds |= 1 << finding.evidence as u8;
        self.restricted |= finding.restricted;
        match finding.evidence {
            EvidenceKind::StateRule => {
                self.flapping |= finding.flapping;
                // The state now agrees with the code.
                self.contradicted = false;
                self.state_source.clone_from(&finding.source);
                if self.alarm.kind.slug() == "entrapment" {
                    self.alarm.kind = AlarmKind(finding.kind);
                }
            }
            EvidenceKind::DeviceCode => {
                self.contradicted |= finding.contradicted && !self.has(EvidenceKind::StateRule);
                self.code_source.clone_from(&finding.source);
            }
            _ => {}
        }
    }

    /// What an event would tell that a line does not.
    fn standing(&self) -> (u8, u8, AlarmState, Severity, AlarmKind) {
        let Alarm { score, state, severity, kind, .. } = self.alarm;
        (self.kinds, score, state, severity, kind)
    }

    fn has(&self, kind: EvidenceKind) -> bool {
        self.kinds & (1 << kind as u8) != 0
    }

    fn score(&self, state: &ElevatorState, numbers: &Thresholds) -> i16 {
        let count = self.kinds.count_ones() as i16;
        if count == 0 {
            return if self.late { numbers.score_suspected } else { 0 };
        }
        let mut score = numbers.score_first + (count - 1) * numbers.score_further;
        let same = self.has(EvidenceKind::StateRule)
            && self.has(EvidenceKind::DeviceCode)
            && self.state_source == self.code_source
            && self.code_source.as_ref().is_some_and(|source| state.is_retrofit(source));
        if same {
            score -= numbers.score_further - numbers.score_same_retrofit;
        }
        score -= if self.contradicted { numbers.score_contradicted } else { 0 };
        score -= if self.flapping { numbers.score_flapping } else { 0 };
        score -= if self.restricted { numbers.score_inspection } else { 0 };
        score.clamp(0, 100)
    }

    /// Takes the score. No drop after confirmation.
    fn rescore(&mut self, state: &ElevatorState, numbers: &Thresholds) {
        let score = self.score(state, numbers);
        let is_confirmed = self.alarm.state == AlarmState::Confirmed;
        if is_confirmed && score < i16::from(self.alarm.score) {
            return;
        }
        self.alarm.score = score as u8;
        if score >= numbers.score_confirmed && self.kinds != 0 {
            self.alarm.state = AlarmState::Confirmed;
        }
        let is_item = score < numbers.score_suspected;
        self.alarm.severity = if is_item { Severity::S2 } else { Severity::S1 };
    }
}

/// An alarm at its begin.
pub(super) fn alarm(
    state: &ElevatorState,
    ctx: &Ctx<'_>,
    kind: &'static FaultKind,
    began: At,
    origin: &Origin,
) -> Alarm {
    let Origin { terminal, boot, seq, device_us } = origin;
    Alarm {
        id: AlarmId::derive(state.elevator_id, kind.slug, terminal, *boot, *seq, *device_us),
        elevator_id: state.elevator_id,
        terminal_id: terminal.clone(),
        area: state.area,
        kind: AlarmKind(kind),
        severity: kind.severity,
        state: AlarmState::Suspected,
        score: 100,
        began: began.time(),
        raised: ctx.now.time(),
        cleared: None,
        acknowledged_by: None,
        acknowledged: None,
        boot: *boot,
        seq: *seq,
        floor: state.merged.floor.map(|floor| floor.as_str().to_owned()),
        evidence: Vec::new(),
    }
}

/// Adds a line to an alarm, as long as there is room. Tells whether there was.
pub(super) fn add_line(
    alarm: &mut Alarm,
    ctx: &Ctx<'_>,
    evidence: EvidenceKind,
    rule: RuleId,
    trace: String,
) -> bool {
    let fits = alarm.evidence.len() < bounds::EVIDENCE_MAX;
    if fits {
        let (rule_version, at, arrival_no) = (ctx.rules.version, ctx.now.time(), ctx.no);
        alarm.evidence.push(EvidenceLine { evidence, rule, rule_version, at, arrival_no, trace });
    }
    fits
}

/// Tells of an alarm as it stands.
pub(super) fn emit(ctx: &mut Ctx<'_>, change: AlarmChange, alarm: &Alarm) {
    let event = AlarmEvent { no: None, at: ctx.now.time(), change, alarm: alarm.clone() };
    ctx.out.push(Transition::Event(event));
}

/// Marks a timer as having spoken and gives a copy of it.
pub(super) fn spend(slot: &mut Option<Timer>) -> Option<Timer> {
    let timer = slot.as_mut().filter(|timer| !timer.spent)?;
    timer.spent = true;
    Some(timer.clone())
}

/// What a state rule has found, unless inspection takes its guard.
pub(super) fn add_state_rule(
    state: &mut ElevatorState,
    ctx: &mut Ctx<'_>,
    mut finding: Finding,
    blocked: bool,
) {
    if blocked {
        let since = state.inspection.since().unwrap_or(ctx.now).time();
        let trace =
            format!("{}; in inspection since {since}, which nobody inside had seen begin", finding.trace);
        let (rule, kind, terminal) = (finding.rule, finding.kind, &finding.origin.terminal);
        return ctx.suppress(state, rule, kind, terminal, finding.began, "inspection", trace);
    }
    finding.flapping = state.latch.flapping && state.latch.is_sensed();
    finding.source =
        state.terminals.iter().find(|it| it.owns & STATUS_FIELD != 0).map(|terminal| terminal.id.clone());
    add(state, ctx, finding);
}

/// A timer broke before it ran out. Short ones are daily stops and leave nothing.
pub(super) fn give_up(state: &ElevatorState, ctx: &mut Ctx<'_>, rule: RuleId, broken: &Timer, limit_s: u32) {
    let ran_us = ctx.start.since(broken.since);
    let note_us = i64::from(limit_s) * i64::from(ctx.rules.thresholds.candidate_note_pct) * 10_000;
    if ran_us < note_us {
        return;
    }
    let reason = if state.motion.opened || state.merged.door_open_in_zone() {
        "door_opened"
    } else if state.latch.people() == Some(false) {
        "reliable_no"
    } else if state.latch.people().is_none() {
        "presence_unknown"
    } else if state.inspection.blocks() {
        "inspection"
    } else {
        "condition_ended"
    };
    let trace = format!(
        "held {} of {limit_s} s, then: {}, {}, {}, {}",
        words::seconds(ran_us),
        words::zone(state),
        words::door(state),
        words::latch(state),
        words::mode(state),
    );
    let kind = words::kind_by_place(state);
    ctx.suppress(state, rule, kind, &broken.origin.terminal, broken.began, reason, trace);
}

/// Merges a finding into the elevator's candidate or alarm and tells what became of it.
pub(super) fn add(state: &mut ElevatorState, ctx: &mut Ctx<'_>, finding: Finding) {
    let mut case = state.case.take().unwrap_or_else(|| Box::new(Case::new(state, ctx, &finding)));
    let before = case.standing();
    case.note(&finding);
    let evidence = if finding.late { EvidenceKind::Note } else { finding.evidence };
    let fits = add_line(&mut case.alarm, ctx, evidence, finding.rule, finding.trace.clone());
    if finding.evidence != EvidenceKind::Button
        && !finding.late
        && let Some(press) = state.e4.take()
    {
        // A press that waits for the end of its run supports other rules at once.
        case.kinds |= 1 << EvidenceKind::Button as u8;
        let trace = format!("alarm button pressed while running at {}", press.began.time());
        add_line(&mut case.alarm, ctx, EvidenceKind::Button, RuleId::E4, trace);
    }
    case.rescore(state, ctx.rules.thresholds);
    // A terminal that repeats itself for hours adds nothing to a full alarm, and nobody hears of it again.
    if fits || case.standing() != before {
        tell(state, ctx, &mut case, &finding);
    }
    state.case = Some(case);
}

fn tell(state: &ElevatorState, ctx: &mut Ctx<'_>, case: &mut Case, finding: &Finding) {
    let (rule, kind, began) = (finding.rule, finding.kind, finding.began);
    let terminal = &finding.origin.terminal;
    if case.raised {
        emit(ctx, AlarmChange::Updated, &case.alarm);
        let trace = format!("merged into alarm {}: {}", case.alarm.id, finding.trace);
        return ctx.suppress(state, rule, kind, terminal, began, "merged", trace);
    }
    let is_suspected = i16::from(case.alarm.score) >= ctx.rules.thresholds.score_suspected;
    let is_item =
        case.restricted && matches!(finding.evidence, EvidenceKind::Button | EvidenceKind::DeviceCode);
    if is_suspected || is_item {
        return raise(ctx, case);
    }
    let reason = if case.restricted {
        "inspection"
    } else if case.flapping {
        "sensor_flapping"
    } else if case.contradicted {
        "contradicted"
    } else {
        "low_score"
    };
    let needed = ctx.rules.thresholds.score_suspected;
    let trace = format!("score {} (needs {needed}): {}", case.alarm.score, finding.trace);
    ctx.suppress(state, rule, kind, terminal, began, reason, trace);
}

fn raise(ctx: &mut Ctx<'_>, case: &mut Case) {
    case.raised = true;
    case.alarm.raised = ctx.now.time();
    emit(ctx, AlarmChange::Raised, &case.alarm);
}

/// When a candidate becomes an operator item or is closed.
pub(super) fn due(state: &ElevatorState, numbers: &Thresholds) -> Option<At> {
    let case = state.case.as_deref().filter(|case| !case.raised)?;
    let item = is_held_by_flapping(case, numbers).then(|| case.since.plus_s(numbers.flap_item_s));
    let end = case.since.plus_s(numbers.candidate_max_s);
    Some(item.unwrap_or(end).min(end))
}

fn is_held_by_flapping(case: &Case, numbers: &Thresholds) -> bool {
    let without = i16::from(case.alarm.score) + numbers.score_flapping;
    case.flapping && case.has(EvidenceKind::StateRule) && without >= numbers.score_suspected
}

/// The candidate's time is up.
pub(super) fn fire(state: &mut ElevatorState, ctx: &mut Ctx<'_>) {
    let Some(mut case) = state.case.take() else { return };
    let numbers = ctx.rules.thresholds;
    if !ctx.now.is_past(case.since, numbers.candidate_max_s) {
        let trace = format!(
            "below {} only because the presence sensor flaps, and unreleased for {}",
            numbers.score_suspected,
            words::span(case.since, ctx.now)
        );
        add_line(&mut case.alarm, ctx, EvidenceKind::Note, case.rule, trace);
        raise(ctx, &mut case);
        state.case = Some(case);
        return;
    }
    let trace = format!("score {} for {}", case.alarm.score, words::span(case.since, ctx.now));
    give_up_case(state, ctx, &case, "expired", trace);
}

/// Notes the end of a candidate that was never raised.
pub(super) fn give_up_case(
    state: &ElevatorState,
    ctx: &mut Ctx<'_>,
    case: &Case,
    reason: &str,
    trace: String,
) {
    let (rule, kind, terminal) = (case.rule, case.alarm.kind.0, &case.alarm.terminal_id);
    ctx.suppress(state, rule, kind, terminal, At::of(case.alarm.began), reason, trace);
}

impl Case {
    /// The rule that began it.
    pub(super) fn rule(&self) -> RuleId {
        self.rule
    }
}
