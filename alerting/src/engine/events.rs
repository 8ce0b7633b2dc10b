//! Messages: each reading and event placed in its terminal's order and handed to the rules, live or late.

use domain::{
    Arrival, BootId, Code, EventBatch, EventState, Field, Message, Reading, Seq, ServiceMode, Statistics,
};

use super::apply::{Ctx, evaluate, fire_until};
use super::merge::{Arrival2, PRESENCE_FIELDS, merge};
use super::state::{At, ElevatorState, Origin};
use super::terminal::{Order, Timing};
use super::thresholds::Rules;
use super::{Transition, clear, codes, inspection, late};

/// What is the same for every part of one message.
struct Envelope<'a> {
    index: usize,
    boot: BootId,
    arrival: Arrival,
    /// Server time at which it is handled.
    now: At,
    rules: Rules<'a>,
}

/// Handles a message of terminal `index`.
pub(super) fn take(
    state: &mut ElevatorState,
    index: usize,
    message: &Message,
    arrival: Arrival,
    rules: Rules<'_>,
    out: &mut Vec<Transition>,
) {
    let envelope = Envelope { index, boot: message.boot(), arrival, now: state.now, rules };
    match message {
        Message::Telemetry(batch) => {
            for reading in &batch.readings {
                let timing =
                    state.terminals[index].timing(batch.sent, reading.time, state.now, rules.thresholds);
                take_reading(state, &envelope, reading, timing, out);
            }
        }
        Message::Event(batch) => take_events(state, &envelope, batch, out),
        Message::Statistics(statistics) => take_statistics(state, &envelope, statistics, out),
    }
}

impl Envelope<'_> {
    fn origin(&self, state: &ElevatorState, boot: BootId, seq: Seq, device_us: i64) -> Origin {
        Origin { terminal: state.terminals[self.index].id.clone(), boot, seq, device_us }
    }

    /// The hole before this message, or the reboot, leaves what the terminal had said unknown.
    fn forget(&self, state: &mut ElevatorState, order: Order, at: At) {
        let Order::Next { hole, boot } = order else { return };
        if hole || boot {
            let owns = std::mem::take(&mut state.terminals[self.index].owns);
            state.merged.forget(owns);
            state.latch.doubt(at);
            let last = state.terminals[self.index].time;
            if at > last.plus_s(self.rules.thresholds.arrive_open_s) {
                state.motion.doubtful = true;
            }
        }
    }
}

fn take_reading(
    state: &mut ElevatorState,
    envelope: &Envelope<'_>,
    reading: &Reading,
    timing: Timing,
    out: &mut Vec<Transition>,
) {
    let Envelope { index, boot, rules, now, .. } = *envelope;
    let numbers = rules.thresholds;
    let order = state.terminals[index].place(boot, reading.seq, &timing);
    if !matches!(order, Order::Next { .. }) {
        return;
    }
    // Late readings carry the story on at their own time, but start no timers and show nothing.
    let start =
        if timing.live { timing.corrected.max(now.minus_s(numbers.timer_back_s)) } else { timing.corrected };
    if timing.live {
        fire_until(state, rules, start, out);
    } else if state.shown.is_none() && !state.is_in_backlog() {
        state.shown = Some(Box::new(state.merged));
    }
    envelope.forget(state, order, start);
    let terminal = &mut state.terminals[index];
    terminal.time = terminal.time.max(timing.corrected);
    let was_backlog = terminal.backlog.is_some();
    if timing.live {
        terminal.backlog = None;
        terminal.note_offset(&timing);
    } else {
        terminal.backlog = Some(now.plus_s(numbers.backlog_quiet_s));
        terminal.late_timing = Some(timing);
    }
    if let Field::Known(codes) = &reading.codes
        && *terminal.newest_codes() != *codes
    {
        terminal.unread_codes = Some(codes.clone());
    }
    merge(&mut state.merged, &mut state.terminals, index, reading);
    state.merged.time_us = reading.time.micros();
    state.merged.arrival = Some(Arrival2::of(envelope.arrival));
    if timing.live && !state.is_in_backlog() {
        state.shown = None;
    }
    let origin = envelope.origin(state, boot, reading.seq, reading.time.micros());
    state.origin = Some(origin.clone());
    let no = envelope.arrival.no;
    let mut ctx = Ctx { rules, now, start, began: timing.corrected, no, origin, live: timing.live, out };
    follow(state, &mut ctx);
    if timing.live {
        read_codes(state, &mut ctx, index, was_backlog);
        if let Field::Known(pressed) = reading.flag(Reading::FLAG_ALARM_BUTTON) {
            codes::button_contact(state, &mut ctx, pressed);
        }
        if reading.service_mode == Field::Known(ServiceMode::Normal) && !state.codes.is_empty() {
            codes::end_untold(state, &mut ctx, |slug| matches!(slug, "inspection_mode" | "maintenance_mode"));
        }
    }
    evaluate(state, &mut ctx);
}

/// Lets motion and latch follow the merged state; a normal run may clear.
fn follow(state: &mut ElevatorState, ctx: &mut Ctx<'_>) {
    let numbers = ctx.rules.thresholds;
    state.latch.pass(ctx.start, numbers);
    let moves = state.motion.follow(&state.merged, ctx.start, numbers);
    let infrared = state.terminals.iter().any(|it| it.traits.infrared && it.owns & PRESENCE_FIELDS != 0);
    let has_candidate = inspection::has_candidate(state);
    let (merged, motion) = (&state.merged, &state.motion);
    state.latch.follow(merged, motion, &moves, ctx.start, infrared, has_candidate, numbers);
    if let Some(started) = moves.normal_run
        && ctx.live
    {
        clear::normal_run(state, ctx, started);
    }
}

/// Takes over the newest list of codes, if it changed.
fn read_codes(state: &mut ElevatorState, ctx: &mut Ctx<'_>, index: usize, was_backlog: bool) {
    let terminal = &mut state.terminals[index];
    if let Some(list) = terminal.unread_codes.take() {
        terminal.codes.clone_from(&list);
        codes::reconcile(state, ctx, &list, false);
    } else if was_backlog && !terminal.codes.is_empty() {
        let list = terminal.codes.clone();
        codes::reconcile(state, ctx, &list, false);
    }
}

/// A backlog has been quiet: its last reading is the connected terminal's newest, and so it is live.
pub(super) fn end_backlog(state: &mut ElevatorState, ctx: &mut Ctx<'_>, index: usize) {
    let numbers = ctx.rules.thresholds;
    let terminal = &mut state.terminals[index];
    let Some(due) = terminal.backlog.take() else { return };
    if let Some(timing) = terminal.late_timing.take() {
        terminal.note_offset(&timing);
    }
    let arrived = due.minus_s(numbers.backlog_quiet_s);
    let (start, began) = (terminal.time.max(arrived.minus_s(numbers.timer_back_s)), terminal.time);
    let (boot, seq) = terminal.newest();
    let origin = match state.origin.take().filter(|origin| origin.terminal == terminal.id) {
        Some(origin) => origin,
        None => Origin { terminal: terminal.id.clone(), boot, seq, device_us: state.merged.time_us },
    };
    if !state.is_in_backlog() {
        state.shown = None;
    }
    state.origin = Some(origin.clone());
    let saved = (ctx.start, ctx.began);
    (ctx.start, ctx.began, ctx.origin) = (start, began, origin);
    read_codes(state, ctx, index, true);
    let pressed = state.merged.flag(Reading::FLAG_ALARM_BUTTON);
    codes::button_contact(state, ctx, pressed);
    evaluate(state, ctx);
    (ctx.start, ctx.began) = saved;
}

fn take_events(
    state: &mut ElevatorState,
    envelope: &Envelope<'_>,
    batch: &EventBatch,
    out: &mut Vec<Transition>,
) {
    let Envelope { index, boot, rules, now, arrival } = *envelope;
    let numbers = rules.thresholds;
    let mut is_news = batch.events.is_empty();
    for event in &batch.events {
        let timing = state.terminals[index].timing(batch.sent, event.time, now, numbers);
        let order = state.terminals[index].place(boot, event.seq, &timing);
        if order == Order::Seen {
            continue;
        }
        is_news = true;
        let start = timing.corrected.max(now.minus_s(numbers.timer_back_s));
        if timing.live {
            fire_until(state, rules, start, out);
        }
        envelope.forget(state, order, start);
        let origin = envelope.origin(state, boot, event.seq, event.time.micros());
        state.origin = Some(origin.clone());
        let (began, no, live) = (timing.corrected, arrival.no, timing.live);
        let mut ctx = Ctx { rules, now, start, began, no, origin, live, out };
        if !live {
            late::prolong(state, &ctx);
        }
        tell(state, &mut ctx, &event.code, event.state, (boot, event.seq));
        evaluate(state, &mut ctx);
    }
    let Some(list) = &batch.active else { return };
    // A list that comes again with events already seen is as old as they are.
    if is_news {
        let (newest_boot, seq) = state.terminals[index].newest();
        let device_us = batch.sent.map_or(now.micros(), domain::Timestamp::micros);
        let origin = envelope.origin(state, newest_boot, seq, device_us);
        let mut ctx = Ctx { rules, now, start: now, began: now, no: arrival.no, origin, live: true, out };
        codes::reconcile(state, &mut ctx, list, true);
        evaluate(state, &mut ctx);
    }
}

/// Counters say nothing to the rules, but they take numbers: without them here, the next reading would seem to
/// come after a hole.
fn take_statistics(
    state: &mut ElevatorState,
    envelope: &Envelope<'_>,
    statistics: &Statistics,
    out: &mut Vec<Transition>,
) {
    let Envelope { index, boot, rules, now, arrival } = *envelope;
    let numbers = rules.thresholds;
    let timing = state.terminals[index].timing(statistics.sent, statistics.time, now, numbers);
    let order = state.terminals[index].place(boot, statistics.seq, &timing);
    // What is forgotten is forgotten with the boot or at the hole, not earlier.
    if !matches!(order, Order::Next { hole, boot } if hole || boot) {
        return;
    }
    let start = timing.corrected.max(now.minus_s(numbers.timer_back_s));
    if timing.live {
        fire_until(state, rules, start, out);
    }
    envelope.forget(state, order, start);
    let origin = envelope.origin(state, boot, statistics.seq, statistics.time.micros());
    let (began, no, live) = (timing.corrected, arrival.no, timing.live);
    evaluate(state, &mut Ctx { rules, now, start, began, no, origin, live, out });
}

fn tell(state: &mut ElevatorState, ctx: &mut Ctx<'_>, code: &Code, change: EventState, told: (BootId, Seq)) {
    match change {
        _ if code.fault.slug == "no_fault" => {
            if ctx.live {
                codes::reconcile(state, ctx, &[], true);
            }
        }
        EventState::Open | EventState::Once if ctx.live => {
            codes::open(state, ctx, code, change == EventState::Once, false);
        }
        EventState::Open | EventState::Once => late::open(state, ctx, code),
        EventState::Close => {
            late::close(state, ctx, &code.raw, told);
            codes::close(state, ctx, &code.raw, Some(told));
        }
    }
}
