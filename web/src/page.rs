//! The status page: how the process fares and which alarms are open, on one screen, refreshed by itself.
//!
//! Rendered here, in Chinese and English side by side. Its script asks for [`fragment`] again and again and says
//! plainly when the answer fails, so that a wall never shows an old screen as a new one. Without scripts the
//! page reloads itself.

mod view;

use std::sync::Arc;
use std::time::Instant;

use axum::extract::State as FromState;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use domain::Alarm;
use maud::{DOCTYPE, Markup, html};
use store::AlarmFilter;

use crate::api::ask;
use crate::health::Readiness;
use crate::limits;
use crate::state::{State, now};
use view::View;

/// What was open at the last reading, shared by all viewers for a moment.
#[derive(Default)]
pub(crate) struct OpenAlarms {
    read: Option<Instant>,
    /// `None`: could not be read.
    alarms: Option<Arc<[Alarm]>>,
}

impl OpenAlarms {
    async fn now(state: &State) -> Option<Arc<[Alarm]>> {
        let mut open = state.open_alarms.lock().await;
        if open.read.is_none_or(|read| read.elapsed() > limits::PAGE_AGE_MAX) {
            let filter = AlarmFilter { open_only: true, ..AlarmFilter::default() };
            let query = ask(state, state.parts.database.alarm_open_snapshot(&filter));
            let found = tokio::time::timeout(limits::PAGE_QUERY_TIME_MAX, query).await;
            open.alarms = found.ok().and_then(Result::ok).map(|(_, alarms)| alarms.into());
            open.read = Some(Instant::now());
        }
        open.alarms.clone()
    }
}

async fn live(state: &State) -> Markup {
    let open = OpenAlarms::now(state).await;
    let readiness = Readiness::of(state);
    view::live(&View {
        now: now(),
        figures: state.parts.figures.figures(),
        readings_per_second: state.readings_per_second(),
        readiness: &readiness,
        open: open.as_deref(),
    })
}

/// The whole page.
pub(crate) async fn index(FromState(state): FromState<State>) -> Markup {
    html! {
        (DOCTYPE)
        html lang="zh-CN" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "Liftwatch 电梯监测" }
                link rel="stylesheet" href="/assets/status.css";
                link rel="icon" href="/assets/icon.svg" type="image/svg+xml";
                noscript { meta http-equiv="refresh" content="5"; }
                script src="/assets/status.js" defer {}
            }
            body {
                header {
                    h1 { "Liftwatch " span lang="zh-CN" { "电梯物联网监测" } }
                    p id="stale" role="alert" hidden { "连接中断，数据已过时 · no connection, figures are old" }
                }
                main id="live" { (live(&state).await) }
                footer {
                    a href="/api/v1/openapi.json" { "OpenAPI" } " · "
                    a href="/api/v1/asyncapi.json" { "AsyncAPI" } " · "
                    a href="/api/v1/elevators" { "电梯 elevators" } " · "
                    a href="/api/v1/alarms" { "警情 alarms" } " · "
                    a href="/metrics" { "metrics" } " · "
                    a href="/readyz" { "readyz" }
                }
            }
        }
    }
}

/// The part of the page that changes.
pub(crate) async fn fragment(FromState(state): FromState<State>) -> Markup {
    live(&state).await
}

fn asset(content_type: &'static str, text: &'static str) -> Response {
    // Asked for again after an hour, so that a wall takes part in an upgrade.
    ([(header::CONTENT_TYPE, content_type), (header::CACHE_CONTROL, "max-age=3600")], text).into_response()
}

/// The page's looks.
pub(crate) async fn stylesheet() -> Response {
    asset("text/css; charset=utf-8", include_str!("../assets/status.css"))
}

/// The page's refreshing.
pub(crate) async fn script() -> Response {
    asset("text/javascript; charset=utf-8", include_str!("../assets/status.js"))
}

/// The page's icon.
pub(crate) async fn icon() -> Response {
    asset("image/svg+xml", include_str!("../assets/icon.svg"))
}
