//! The open read API, version 1.

pub(crate) mod alarms;
pub(crate) mod documents;
pub(crate) mod elevators;
mod extract;
pub(crate) mod moment;
mod query;

use axum::extract::State as FromState;
use axum::http::header;
use axum::response::{IntoResponse, Response};
pub(crate) use query::ask;
use utoipa::OpenApi;

use crate::health;
use crate::problem::Problem;
use crate::state::State;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Liftwatch open read API",
        description = "State and alarms of elevators. Times are RFC 3339 in UTC with milliseconds; units are \
                       part of the names; codes are those of GB/T 24476-2017. Lists are read page by page: \
                       pass `next` of one page as `cursor` of the following one."
    ),
    paths(
        elevators::list,
        elevators::one,
        alarms::list,
        alarms::one,
        documents::asyncapi,
        documents::schema,
        health::livez,
        health::readyz,
        health::metrics
    ),
    components(schemas(Problem)),
    tags(
        (name = "elevators", description = "Elevators and their latest state"),
        (name = "alarms", description = "Alarms, open and past"),
        (name = "documents", description = "What terminals publish over MQTT, for machines to read"),
        (name = "health", description = "For monitoring")
    )
)]
struct Document;

/// The OpenAPI document as JSON.
pub(crate) fn document() -> String {
    Document::openapi().to_pretty_json().unwrap_or_default()
}

/// Answers the document.
pub(crate) async fn openapi(FromState(state): FromState<State>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], state.openapi.clone()).into_response()
}
