//! Times as the API writes them.

use domain::Timestamp;
use serde::{Serialize, Serializer};
use time::macros::format_description;
use utoipa::PartialSchema;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, SchemaType, Type};
use utoipa::openapi::{RefOr, Schema};

/// A moment: RFC 3339, UTC, always with milliseconds, so that texts sort as times do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment(pub(crate) Timestamp);

impl std::fmt::Display for Moment {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let format =
            format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
        match self.0.to_utc().and_then(|at| at.format(format).ok()) {
            Some(text) => out.write_str(&text),
            None => write!(out, "{}", self.0),
        }
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl PartialSchema for Moment {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(SchemaType::new(Type::String))
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .description(Some("RFC 3339, UTC, with milliseconds"))
            .examples([serde_json::json!("2026-11-22T00:00:00.123Z")])
            .into()
    }
}

impl utoipa::ToSchema for Moment {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_are_always_there() {
        assert_eq!(Moment(Timestamp::from_millis(0)).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Moment(Timestamp::from_micros(1_500_123_999)).to_string(), "1970-01-01T00:25:00.123Z");
    }
}
