//! Shapes that the decoder does not have as one type, for their schemas alone.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::json::{JsonTelemetry, ReadingSchema};

/// A batch of readings, or one reading with what a batch says around it.
pub(super) struct Telemetry;

impl JsonSchema for Telemetry {
    fn schema_name() -> Cow<'static, str> {
        "Telemetry".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let batch = generator.subschema_for::<JsonTelemetry<()>>();
        let reading = generator.subschema_for::<ReadingSchema>();
        json_schema!({
            "description": "Payload of lift/v1/{area}/{terminal}/telemetry.json: a batch with \"readings\", or one \
                            reading alone. Names that are not listed are ignored.",
            "type": "object",
            // `null` is as good as none.
            "if": { "required": ["readings"], "properties": { "readings": { "not": { "type": "null" } } } },
            "then": batch,
            "else": { "allOf": [batch, reading] },
        })
    }
}

/// Payload of lift/v1/{area}/{terminal}/presence, retained: whether a terminal is there, as the server sees it.
#[derive(JsonSchema)]
#[schemars(rename = "Presence")]
#[allow(dead_code)] // only its schema is used
pub(super) struct Presence {
    state: PresenceState,
    /// Since when the state holds: RFC 3339.
    time: String,
    /// Why: connected, keep_alive, disconnected, revoked, server_restart and others.
    reason: String,
    /// The last sign of life, where it is not online: RFC 3339.
    last_seen: Option<String>,
}

/// online: connected; away: its connection ended a short while ago; offline: longer.
#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(dead_code)] // only its schema is used
enum PresenceState {
    Online,
    Away,
    Offline,
}

/// Payload of lift/v1/{area}/{terminal}/down.json: an order to the terminal, never to the elevator. It may come more
/// than once with the same id.
#[derive(JsonSchema)]
#[schemars(rename = "Down")]
#[allow(dead_code)] // only its schema is used
pub(super) struct Down {
    /// Grows with every order.
    #[schemars(range(min = 1))]
    id: i64,
    /// The server's clock at this transmission: RFC 3339.
    sent: String,
    clock_set: Option<ClockSet>,
    report_rate: Option<ReportRate>,
    live_view: Option<LiveView>,
}

/// Set the clock.
#[derive(JsonSchema)]
#[allow(dead_code)] // only its schema is used
struct ClockSet {
    /// RFC 3339.
    time: String,
}

/// Send a reading this often; after `for_s` seconds, or with the next boot, as before.
#[derive(JsonSchema)]
#[allow(dead_code)] // only its schema is used
struct ReportRate {
    /// Between two readings, ms.
    #[schemars(range(min = 200, max = 3_600_000))]
    interval_ms: u32,
    /// How long, s.
    #[schemars(range(min = 1, max = 604_800))]
    for_s: u32,
}

/// Somebody is looking: send a reading a second until the lease ends.
#[derive(JsonSchema)]
#[allow(dead_code)] // only its schema is used
struct LiveView {
    /// s.
    lease_s: u32,
}
