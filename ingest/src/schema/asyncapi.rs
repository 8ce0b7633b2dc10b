//! The AsyncAPI 3.0 document: topics, payloads, servers, who may connect.

use serde_json::{Map, Value, json};

use super::Schema;

/// A listener, as clients reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its name in the document.
    pub name: &'static str,
    /// Host and port.
    pub host: String,
    /// `mqtt`, `mqtts`, `ws` or `wss`.
    pub protocol: &'static str,
    /// Path of a WebSocket.
    pub pathname: Option<String>,
    /// Clients may show a certificate.
    pub certificates: bool,
}

/// A topic in one format.
struct Topic {
    channel: &'static str,
    /// What follows `lift/v1/{area}/{terminal}/`.
    level: &'static str,
    format: Format,
    /// The server receives it from terminals; otherwise it sends it.
    up: bool,
    title: &'static str,
    summary: &'static str,
}

enum Format {
    /// The message of the `.proto` file.
    Protobuf(&'static str),
    Json(Schema),
}

const TOPICS: [Topic; 9] = [
    Topic {
        channel: "telemetry",
        level: "telemetry",
        format: Format::Protobuf("TelemetryBatch"),
        up: true,
        title: "Readings",
        summary: "One or more readings of one boot; acknowledged when they are on disk",
    },
    Topic {
        channel: "telemetryJson",
        level: "telemetry.json",
        format: Format::Json(Schema::Telemetry),
        up: true,
        title: "Readings as JSON",
        summary: "The same as open JSON, or in the words of the terminal's vendor profile",
    },
    Topic {
        channel: "event",
        level: "event",
        format: Format::Protobuf("EventBatch"),
        up: true,
        title: "Events",
        summary: "A fault opened or closed, an event, the alarm button; after a reconnect all active faults",
    },
    Topic {
        channel: "eventJson",
        level: "event.json",
        format: Format::Json(Schema::Event),
        up: true,
        title: "Events as JSON",
        summary: "The same as open JSON, or in the words of the terminal's vendor profile",
    },
    Topic {
        channel: "stats",
        level: "stats",
        format: Format::Protobuf("Statistics"),
        up: true,
        title: "Statistics",
        summary: "What the terminal has counted",
    },
    Topic {
        channel: "statsJson",
        level: "stats.json",
        format: Format::Json(Schema::Stats),
        up: true,
        title: "Statistics as JSON",
        summary: "The same as open JSON",
    },
    Topic {
        channel: "presence",
        level: "presence",
        format: Format::Json(Schema::Presence),
        up: false,
        title: "Presence",
        summary: "Retained: online, away or offline, and why",
    },
    Topic {
        channel: "down",
        level: "down",
        format: Format::Protobuf("Downlink"),
        up: false,
        title: "Orders",
        summary: "Orders to the terminal, never to the elevator: its clock, its report rate, a live view",
    },
    Topic {
        channel: "downJson",
        level: "down.json",
        format: Format::Json(Schema::Down),
        up: false,
        title: "Orders as JSON",
        summary: "The same as JSON",
    },
];

const PROTOBUF: &str = "application/vnd.google.protobuf;version=3";
const JSON_SCHEMA: &str = "application/schema+json;version=draft-07";

/// The document for a server that listens there.
pub fn asyncapi(version: &str, endpoints: &[Endpoint]) -> Value {
    json!({
        "asyncapi": "3.0.0",
        "id": "urn:liftwatch:v1",
        "info": {
            "title": "Liftwatch terminals",
            "version": version,
            "description": "What monitoring terminals of elevators publish over MQTT 3.1.1 or 5, and what they are \
                told. A PUBACK means that everything a message causes is on disk. Generated from the types of the \
                decoder; docs/wire.md explains it for makers of terminals.",
            "license": { "name": "Apache-2.0" },
        },
        "defaultContentType": "application/json",
        "servers": servers(endpoints),
        "channels": TOPICS.iter().map(|topic| (topic.channel.to_owned(), channel(topic))).collect::<Map<_, _>>(),
        "operations": TOPICS.iter().map(operation).collect::<Map<_, _>>(),
        "components": {
            "messages": TOPICS.iter().map(|topic| (topic.channel.to_owned(), message(topic))).collect::<Map<_, _>>(),
            "parameters": {
                "area": {
                    "description": "Division of the elevator, GB/T 2260, six digits; the registry has the last word",
                    "examples": ["350102"],
                },
                "terminal": {
                    "description": "Id of the terminal, which is also its MQTT client id: 1 to 64 of A-Z a-z 0-9 _ -",
                    "examples": ["t1"],
                },
            },
            "securitySchemes": {
                "secret": {
                    "type": "userPassword",
                    "description": "User name = terminal id, password = the secret 'liftwatch terminal add' printed",
                },
                "certificate": {
                    "type": "X509",
                    "description": "Client certificate of the operator's device CA; its common name is the terminal id",
                },
            },
        },
    })
}

fn servers(endpoints: &[Endpoint]) -> Map<String, Value> {
    let server = |endpoint: &Endpoint| {
        let mut security = vec![json!({ "$ref": "#/components/securitySchemes/secret" })];
        if endpoint.certificates {
            security.push(json!({ "$ref": "#/components/securitySchemes/certificate" }));
        }
        let mut server = json!({
            "host": endpoint.host,
            "protocol": endpoint.protocol,
            "protocolVersion": "3.1.1, 5.0",
            "security": security,
        });
        if let Some(path) = &endpoint.pathname {
            server["pathname"] = path.as_str().into();
        }
        (endpoint.name.to_owned(), server)
    };
    endpoints.iter().map(server).collect()
}

fn channel(topic: &Topic) -> Value {
    json!({
        "address": format!("lift/v1/{{area}}/{{terminal}}/{}", topic.level),
        "title": topic.title,
        "summary": topic.summary,
        "parameters": {
            "area": { "$ref": "#/components/parameters/area" },
            "terminal": { "$ref": "#/components/parameters/terminal" },
        },
        "messages": {
            topic.channel: { "$ref": format!("#/components/messages/{}", topic.channel) },
        },
    })
}

fn operation(topic: &Topic) -> (String, Value) {
    let mut name = topic.channel.to_owned();
    name[..1].make_ascii_uppercase();
    let action = if topic.up { "receive" } else { "send" };
    let retain = matches!(topic.format, Format::Json(Schema::Presence));
    let operation = json!({
        "action": action,
        "channel": { "$ref": format!("#/channels/{}", topic.channel) },
        "summary": topic.summary,
        "messages": [{ "$ref": format!("#/channels/{0}/messages/{0}", topic.channel) }],
        "bindings": { "mqtt": { "qos": 1, "retain": retain, "bindingVersion": "0.2.0" } },
    });
    (format!("{action}{name}"), operation)
}

/// The whole `.proto` file, with the mark by which AsyncAPI's parser knows which of its messages is meant.
fn rooted(message: &str) -> String {
    let head = format!("message {message} {{");
    proto::TELEMETRY_PROTO.replacen(&head, &format!("// @RootNode\n{head}"), 1)
}

fn message(topic: &Topic) -> Value {
    let (content_type, payload) = match &topic.format {
        Format::Protobuf(name) => (PROTOBUF, json!({ "schemaFormat": PROTOBUF, "schema": rooted(name) })),
        Format::Json(schema) => {
            ("application/json", json!({ "schemaFormat": JSON_SCHEMA, "schema": schema.embedded() }))
        }
    };
    let mut message = json!({
        "name": topic.channel,
        "title": topic.title,
        "summary": topic.summary,
        "contentType": content_type,
        "payload": payload,
    });
    if let Format::Protobuf(name) = topic.format {
        message["name"] = format!("liftwatch.telemetry.v1.{name}").into();
    }
    message
}
