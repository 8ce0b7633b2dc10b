//! Whether the process lives, whether it is ready, and its metrics.

use axum::Json;
use axum::extract::State as FromState;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::text;
use serde::Serialize;
use utoipa::ToSchema;

use crate::problem::Problem;
use crate::state::State;

/// Whether the process is ready, and if not, why.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Readiness {
    /// All checks hold.
    ready: bool,
    /// Each condition.
    checks: Vec<CheckResult>,
}

/// One condition of being ready.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CheckResult {
    /// Its name.
    #[schema(example = "database")]
    name: &'static str,
    /// Whether it holds.
    ok: bool,
    /// What is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl Readiness {
    pub(crate) fn of(state: &State) -> Self {
        let checks: Vec<CheckResult> = state
            .parts
            .checks
            .iter()
            .map(|check| {
                let reason = check.run().err();
                CheckResult { name: check.name(), ok: reason.is_none(), reason }
            })
            .collect();
        Self { ready: checks.iter().all(|check| check.ok), checks }
    }

    /// What is missing, by name.
    pub(crate) fn reasons(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.checks.iter().filter_map(|check| Some((check.name, check.reason.as_deref()?)))
    }
}

/// The process lives and answers.
#[utoipa::path(get, path = "/livez", tag = "health", responses((status = 200, body = String, description = "`ok`")))]
pub(crate) async fn livez() -> &'static str {
    "ok\n"
}

/// Whether the process does its work, and if not, why.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "health",
    responses((status = 200, body = Readiness, description = "All checks hold"),
        (status = 503, body = Readiness, description = "Some check does not hold; its reason tells why"))
)]
pub(crate) async fn readyz(FromState(state): FromState<State>) -> Response {
    let readiness = Readiness::of(&state);
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}

/// All metrics of the process in the OpenMetrics text format.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "health",
    responses((status = 200, body = String, content_type = "application/openmetrics-text", description = "Metrics"))
)]
pub(crate) async fn metrics(FromState(state): FromState<State>) -> Response {
    let mut body = String::new();
    match text::encode(&mut body, &state.parts.registry) {
        Ok(()) => {
            let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, content_type)], body).into_response()
        }
        Err(_) => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "a metric could not be written out")
            .into_response(),
    }
}
