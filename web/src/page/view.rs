//! From figures and alarms to HTML: pure.

use std::time::Duration;

use domain::{Alarm, AlarmState, Severity, Timestamp};
use maud::{Markup, html};

use crate::api::moment::Moment;
use crate::health::Readiness;
use crate::limits;
use crate::state::Figures;

/// What the page shows.
pub(super) struct View<'a> {
    pub(super) now: Timestamp,
    pub(super) figures: Figures,
    pub(super) readings_per_second: f64,
    pub(super) readiness: &'a Readiness,
    /// Gravest and oldest first; `None` when the database does not answer.
    pub(super) open: Option<&'a [Alarm]>,
}

/// The changing part of the page.
pub(super) fn live(view: &View<'_>) -> Markup {
    html! {
        (readiness(view.readiness))
        (tiles(view))
        (alarms(view))
        p.asof { "截至 as of " time { (Moment(view.now)) } }
    }
}

fn readiness(readiness: &Readiness) -> Markup {
    let mut missing = readiness.reasons().peekable();
    html! {
        @if missing.peek().is_some() {
            section.notready role="alert" {
                strong { "未就绪 not ready" }
                ul { @for (name, reason) in missing { li { (name) ": " (reason) } } }
            }
        }
    }
}

fn tiles(view: &View<'_>) -> Markup {
    html! {
        dl.tiles {
            (tile("在线终端", "terminals connected", &grouped(view.figures.terminals_connected)))
            (tile("每秒读数", "readings per second", &grouped(view.readings_per_second.round() as u64)))
            (tile("已入库", "rows committed", &grouped(view.figures.rows_committed)))
            div.tile.alarming[view.open.is_some_and(|open| count(open, Severity::S1) > 0)] {
                dt { span lang="zh-CN" { "未结警情" } " open alarms" }
                @match view.open {
                    Some(open) => dd {
                        (grouped(open.len() as u64))
                        span.parts {
                            @for severity in [Severity::S1, Severity::S2, Severity::S3, Severity::S4] {
                                @let of = count(open, severity);
                                @if of > 0 { (badge(severity)) " " (grouped(of as u64)) " " }
                            }
                        }
                    },
                    None => dd { "–" },
                }
            }
        }
    }
}

fn tile(chinese: &str, english: &str, value: &str) -> Markup {
    html! {
        div.tile { dt { span lang="zh-CN" { (chinese) } " " (english) } dd { (value) } }
    }
}

fn alarms(view: &View<'_>) -> Markup {
    let Some(open) = view.open else {
        return html! {
            p.empty role="alert" { "数据库无应答，警情未知 · the database does not answer: open alarms are not known" }
        };
    };
    if open.is_empty() {
        return html! { p.empty { "无未结警情 · no open alarms" } };
    }
    let hidden = open.len().saturating_sub(limits::PAGE_ALARMS_MAX);
    html! {
        table {
            thead {
                tr {
                    th { "级别 " span { "severity" } }
                    th { "警情 " span { "kind" } }
                    th { "电梯 " span { "elevator" } }
                    th { "区划 " span { "area" } }
                    th { "楼层 " span { "floor" } }
                    th { "状态 " span { "state" } }
                    th { "时长 " span { "age" } }
                }
            }
            tbody { @for alarm in open.iter().take(limits::PAGE_ALARMS_MAX) { (row(alarm, view.now)) } }
        }
        @if hidden > 0 {
            p.empty { "另有 " (hidden) " 条 · and " (hidden) " more: " a href="/api/v1/alarms?open_only=true" { "API" } }
        }
    }
}

fn row(alarm: &Alarm, now: Timestamp) -> Markup {
    let fault = alarm.kind.0;
    html! {
        tr data-severity=(alarm.severity) {
            td.severity { (badge(alarm.severity)) }
            td.kind {
                a href={ "/api/v1/alarms/" (alarm.id) } {
                    span lang="zh-CN" { (fault.chinese) } " " span.english lang="en" { (fault.english) }
                }
            }
            td.elevator { a href={ "/api/v1/elevators/" (alarm.elevator_id) } { (alarm.elevator_id) } }
            td.area { (alarm.area) }
            td.floor { (alarm.floor.as_deref().unwrap_or("–")) }
            td.state {
                span lang="zh-CN" { (state_in_chinese(alarm.state)) } " "
                span.english lang="en" { (alarm.state.slug().replace('_', " ")) }
                @if alarm.acknowledged.is_some() { " " span.ack { "已知悉 acknowledged" } }
            }
            td.age { time datetime=(Moment(alarm.began)) { (age(now.since(alarm.began))) } }
        }
    }
}

fn badge(severity: Severity) -> Markup {
    html! { span.badge data-severity=(severity) { (severity) } }
}

fn count(open: &[Alarm], severity: Severity) -> usize {
    open.iter().filter(|alarm| alarm.severity == severity).count()
}

fn state_in_chinese(state: AlarmState) -> &'static str {
    match state {
        AlarmState::Suspected => "疑似",
        AlarmState::Confirmed => "确认",
        AlarmState::Dispatched => "派单",
        AlarmState::Accepted => "接单",
        AlarmState::OnSite => "到场",
        AlarmState::Released => "解救",
        AlarmState::Verified => "回访",
        AlarmState::CauseFiled => "反馈",
        AlarmState::Archived => "归档",
        AlarmState::FalseAlarm => "误报",
        AlarmState::SelfReleased => "自行脱困",
        AlarmState::Duplicate => "重复",
        AlarmState::Cancelled => "取消",
        AlarmState::Accident => "事故",
    }
}

/// Digits in groups of three.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The two largest units: `4 min 10 s`.
fn age(span: Duration) -> String {
    let seconds = span.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        let check = |number, expected: &str| assert_eq!(grouped(number), expected);
        check(0, "0");
        check(999, "999");
        check(1_000, "1,000");
        check(1_234_567, "1,234,567");
    }

    #[test]
    fn ages_have_two_units() {
        let check = |seconds, expected: &str| assert_eq!(age(Duration::from_secs(seconds)), expected);
        check(0, "0 s");
        check(59, "59 s");
        check(250, "4 min 10 s");
        check(3_600, "1 h 0 min");
        check(90_061, "1 d 1 h");
    }
}
