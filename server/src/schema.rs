//! `liftwatch schema`, and the documents that the web side serves: what terminals publish, for machines to read.

use clap::{Args, ValueEnum};
use ingest::{Endpoint, Schema};

use crate::app::Addresses;
use crate::cli::ConfigArgs;
use crate::config::Config;

/// A document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Document {
    /// JSON Schema of telemetry.json
    Telemetry,
    /// JSON Schema of event.json
    Event,
    /// JSON Schema of stats.json
    Stats,
    /// JSON Schema of presence
    Presence,
    /// JSON Schema of down.json
    Down,
    /// All topics with their payloads
    Asyncapi,
}

#[derive(Debug, Args)]
pub(crate) struct SchemaArgs {
    /// Which
    #[arg(value_enum, default_value = "asyncapi")]
    document: Document,
    #[command(flatten)]
    config: ConfigArgs,
}

/// Prints a document.
pub(crate) fn run(arguments: &SchemaArgs) -> anyhow::Result<()> {
    let schema = match arguments.document {
        Document::Telemetry => Schema::Telemetry,
        Document::Event => Schema::Event,
        Document::Stats => Schema::Stats,
        Document::Presence => Schema::Presence,
        Document::Down => Schema::Down,
        Document::Asyncapi => {
            let config = Config::load(arguments.config.config.as_deref(), std::env::vars_os())?;
            println!("{:#}", asyncapi(&config, &configured(&config)));
            return Ok(());
        }
    };
    println!("{:#}", schema.document());
    Ok(())
}

/// Where a server of this configuration will listen for terminals.
fn configured(config: &Config) -> Addresses {
    Addresses {
        broker: config.broker.listen,
        broker_tls: config.broker.tls_listen,
        broker_websocket: config.broker.websocket.listen,
        dispatch: None,
        web: None,
    }
}

fn asyncapi(config: &Config, addresses: &Addresses) -> serde_json::Value {
    let certificates = config.broker.tls.client_ca.is_some();
    let socket = if config.broker.websocket.tls { "wss" } else { "ws" };
    let path = Some(config.broker.websocket.path.clone());
    let listeners = [
        ("tls", addresses.broker_tls, "mqtts", None, certificates),
        ("tcp", addresses.broker, "mqtt", None, false),
        ("websocket", addresses.broker_websocket, socket, path, false),
    ];
    let endpoints: Vec<Endpoint> = listeners
        .into_iter()
        .filter_map(|(name, at, protocol, pathname, certificates)| {
            Some(Endpoint { name, host: at?.to_string(), protocol, pathname, certificates })
        })
        .collect();
    ingest::asyncapi(env!("CARGO_PKG_VERSION"), &endpoints)
}

/// What the web side serves of them.
pub(crate) fn documents(config: &Config, addresses: &Addresses) -> web::Documents {
    web::Documents {
        asyncapi: format!("{:#}", asyncapi(config, addresses)),
        schemas: Schema::ALL.map(|schema| (schema.name(), format!("{:#}", schema.document()))).to_vec(),
    }
}
