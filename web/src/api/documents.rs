//! What terminals publish, as documents: AsyncAPI and JSON Schema. They come ready from the process.

use axum::extract::{Path, State as FromState};
use axum::http::header;
use axum::response::{IntoResponse, Response};

use crate::problem::Problem;
use crate::state::State;

/// Documents about what is spoken over MQTT.
#[derive(Debug, Clone, Default)]
pub struct Documents {
    /// AsyncAPI 3.0, as JSON.
    pub asyncapi: String,
    /// JSON Schemas by name.
    pub schemas: Vec<(&'static str, String)>,
}

fn answer(content_type: &'static str, text: String) -> Response {
    // Documents of a version: pages of others may read them.
    let headers = [(header::CONTENT_TYPE, content_type), (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*")];
    (headers, text).into_response()
}

/// Topics, payloads and servers of the MQTT side
#[utoipa::path(
    get,
    path = "/api/v1/asyncapi.json",
    operation_id = "asyncapi_get",
    tag = "documents",
    responses((status = 200, content_type = "application/json", description = "AsyncAPI 3.0"))
)]
pub(crate) async fn asyncapi(FromState(state): FromState<State>) -> Response {
    answer("application/json", state.parts.documents.asyncapi.clone())
}

/// The JSON Schema of a payload
#[utoipa::path(
    get,
    path = "/api/v1/schema/{name}",
    operation_id = "schema_get",
    tag = "documents",
    params(("name" = String, Path, description = "telemetry.json, event.json, stats.json, presence.json or down.json")),
    responses(
        (status = 200, content_type = "application/schema+json", description = "JSON Schema, draft 2020-12"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such schema"))
)]
pub(crate) async fn schema(
    FromState(state): FromState<State>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let schemas = &state.parts.documents.schemas;
    let wanted = name.strip_suffix(".json").unwrap_or(&name);
    if let Some((_, text)) = schemas.iter().find(|(known, _)| *known == wanted) {
        return Ok(answer("application/schema+json", text.clone()));
    }
    let known: Vec<String> = schemas.iter().map(|(name, _)| format!("{name}.json")).collect();
    Err(Problem::not_found(format!("there is no schema '{name}': those known are {}", known.join(", "))))
}
