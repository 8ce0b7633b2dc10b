//! The open JSON as JSON Schema, and the whole wire as AsyncAPI: documents generated from the types that decode.
//!
//! Owns the documents. Promises that what the decoder takes is valid and that what has another shape is not; what
//! no schema can say (a time too old, the meaning of a code) stays with the decoder. Serves nothing.

mod asyncapi;
mod wire;

use schemars::generate::SchemaSettings;
use serde_json::Value;

pub use asyncapi::{Endpoint, asyncapi};

/// A payload that has a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schema {
    /// `telemetry.json`
    Telemetry,
    /// `event.json`
    Event,
    /// `stats.json`
    Stats,
    /// `presence`
    Presence,
    /// `down.json`
    Down,
}

impl Schema {
    /// Every one.
    pub const ALL: [Self; 5] = [Self::Telemetry, Self::Event, Self::Stats, Self::Presence, Self::Down];

    /// Its name, as in the topics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Telemetry => "telemetry",
            Self::Event => "event",
            Self::Stats => "stats",
            Self::Presence => "presence",
            Self::Down => "down",
        }
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|schema| schema.name() == name)
    }

    /// JSON Schema, draft 2020-12.
    pub fn document(self) -> Value {
        let mut document = self.generate(SchemaSettings::draft2020_12());
        if let Some(object) = document.as_object_mut() {
            object.insert("$id".to_owned(), format!("urn:liftwatch:v1:{}", self.name()).into());
        }
        document
    }

    /// JSON Schema, draft 7, without references: to stand inside another document.
    fn embedded(self) -> Value {
        let mut settings = SchemaSettings::draft07();
        settings.inline_subschemas = true;
        settings.meta_schema = None;
        self.generate(settings)
    }

    fn generate(self, settings: SchemaSettings) -> Value {
        let generator = settings.into_generator();
        let schema = match self {
            Self::Telemetry => generator.into_root_schema_for::<wire::Telemetry>(),
            Self::Event => generator.into_root_schema_for::<crate::json::JsonEvents<()>>(),
            Self::Stats => generator.into_root_schema_for::<crate::json_statistics::JsonStatistics>(),
            Self::Presence => generator.into_root_schema_for::<wire::Presence>(),
            Self::Down => generator.into_root_schema_for::<wire::Down>(),
        };
        schema.to_value()
    }
}

#[cfg(test)]
mod tests;
