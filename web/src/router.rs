//! Which request goes where, and what holds for every answer.

use axum::Router;
use axum::extract::{Request, State as FromState};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::problem::Problem;
use crate::state::State;
use crate::{api, health, limits, page};

/// Nothing from outside, nothing inline, nothing around us.
const CONTENT_SECURITY_POLICY: &str =
    "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'";

/// All routes.
pub(crate) fn router(state: State) -> Router {
    Router::new()
        .route("/", get(page::index))
        .route("/status", get(page::fragment))
        .route("/assets/status.css", get(page::stylesheet))
        .route("/assets/status.js", get(page::script))
        .route("/assets/icon.svg", get(page::icon))
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .route("/api/v1/openapi.json", get(api::openapi))
        .route("/api/v1/asyncapi.json", get(api::documents::asyncapi))
        .route("/api/v1/schema/{name}", get(api::documents::schema))
        .route("/api/v1/elevators", get(api::elevators::list))
        .route("/api/v1/elevators/{elevator_id}", get(api::elevators::one))
        .route("/api/v1/alarms", get(api::alarms::list))
        .route("/api/v1/alarms/{alarm_id}", get(api::alarms::one))
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .layer(middleware::from_fn_with_state(state.clone(), around))
        .with_state(state)
}

/// Bounds the request, counts it, and puts the headers on its answer.
async fn around(FromState(state): FromState<State>, request: Request, next: Next) -> Response {
    let mut response = bounded(request, next).await;
    state.parts.metrics.answered(response.status().as_u16());
    let headers = response.headers_mut();
    let fixed: [(HeaderName, &str); 4] = [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // Everything here is of the moment.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

async fn bounded(request: Request, next: Next) -> Response {
    let url_bytes = request.uri().path_and_query().map_or(0, |url| url.as_str().len());
    if url_bytes > limits::URL_BYTES_MAX {
        let detail = format!("path and query have {url_bytes} bytes; {} are allowed", limits::URL_BYTES_MAX);
        return Problem::new(StatusCode::URI_TOO_LONG, detail).into_response();
    }
    match tokio::time::timeout(limits::REQUEST_TIME_MAX, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::unavailable(format!(
            "no answer within {} s; try again, or ask for less with a smaller limit",
            limits::REQUEST_TIME_MAX.as_secs()
        ))
        .into_response(),
    }
}

async fn unknown_path(request: Request) -> Problem {
    Problem::not_found(format!("nothing is at {}; /api/v1/openapi.json lists what is", request.uri().path()))
}

async fn unknown_method(request: Request) -> Problem {
    let detail = format!("{} is not possible here: everything is read with GET", request.method());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)
}
