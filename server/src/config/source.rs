//! The text of a configuration file, and on which line each key stands.

use std::collections::BTreeMap;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::ConfigError;

/// A parsed file.
pub(super) struct Source {
    table: toml::Table,
    /// File and line by key (`broker.listen`).
    places: BTreeMap<String, String>,
}

impl Source {
    /// No file: says nothing.
    pub(super) fn empty() -> Self {
        Self { table: toml::Table::new(), places: BTreeMap::new() }
    }

    /// Reads TOML.
    pub(super) fn parse(path: &Path, text: String) -> Result<Self, ConfigError> {
        let place = |offset: usize| format!("{}:{}", path.display(), line_of(&text, offset));
        let syntax = |error: toml::de::Error| ConfigError::Syntax {
            place: place(error.span().map_or(0, |span| span.start)),
            message: error.message().to_owned(),
        };
        let spanned = DeTable::parse(&text).map_err(syntax)?;
        let mut places = BTreeMap::new();
        note_places(spanned.get_ref(), "", &place, &mut places);
        let table = toml::from_str(&text).map_err(syntax)?;
        Ok(Self { table, places })
    }

    /// What the file says.
    pub(super) fn table(&self) -> &toml::Table {
        &self.table
    }

    /// Where `key` stands, as `liftwatch.toml:7`.
    pub(super) fn place(&self, key: &str) -> Option<String> {
        self.places.get(key).cloned()
    }
}

fn note_places(
    table: &DeTable<'_>,
    prefix: &str,
    place: &impl Fn(usize) -> String,
    places: &mut BTreeMap<String, String>,
) {
    for (name, value) in table {
        let key = if prefix.is_empty() {
            name.get_ref().to_string()
        } else {
            format!("{prefix}.{}", name.get_ref())
        };
        if let DeValue::Table(inner) = value.get_ref() {
            note_places(inner, &key, place, places);
        }
        places.insert(key, place(name.span().start));
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

const LISTEN_EXPECTED: &str = "an address and a port such as \"127.0.0.1:1883\" or \"[::1]:1883\"";

/// An address to listen on; `localhost` means 127.0.0.1.
fn parse_listen<E: serde::de::Error>(text: &str) -> Result<std::net::SocketAddr, E> {
    let loopback = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    let wrong = |_| E::invalid_value(serde::de::Unexpected::Str(text), &LISTEN_EXPECTED);
    loopback.as_deref().unwrap_or(text).parse().map_err(wrong)
}

/// Reads and writes a listener's address.
pub(super) mod listen {
    use std::net::SocketAddr;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(in crate::config) fn serialize<S: Serializer>(at: &SocketAddr, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(at)
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SocketAddr, D::Error> {
        super::parse_listen(&String::deserialize(from)?)
    }
}

/// The same for a listener that can be switched off.
pub(super) mod listen_or_off {
    use std::net::SocketAddr;

    use serde::{Deserialize, Deserializer, Serializer};

    const OFF: &str = "off";

    #[allow(clippy::ref_option)] // the signature is serde's
    pub(in crate::config) fn serialize<S: Serializer>(
        at: &Option<SocketAddr>,
        out: S,
    ) -> Result<S::Ok, S::Error> {
        match at {
            Some(at) => out.collect_str(at),
            None => out.serialize_str(OFF),
        }
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<SocketAddr>, D::Error> {
        let text = String::deserialize(from)?;
        if text == OFF { Ok(None) } else { super::parse_listen(&text).map(Some) }
    }
}

/// A list of texts; in a variable, where there are no lists, with commas between them.
pub(super) fn words<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    struct Words;
    impl<'de> serde::de::Visitor<'de> for Words {
        type Value = Vec<String>;
        fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            out.write_str("a list of texts such as [\"a\", \"b\"]")
        }
        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Vec<String>, E> {
            Ok(text
                .split(',')
                .map(str::trim)
                .filter(|word| !word.is_empty())
                .map(ToOwned::to_owned)
                .collect())
        }
        fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<Vec<String>, A::Error> {
            let mut words = Vec::new();
            while let Some(word) = list.next_element()? {
                words.push(word);
            }
            Ok(words)
        }
    }
    from.deserialize_any(Words)
}

/// The same for a listener that may be left out.
pub(super) mod listen_option {
    use std::net::SocketAddr;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[allow(clippy::ref_option)] // the signature is serde's
    pub(in crate::config) fn serialize<S: Serializer>(
        at: &Option<SocketAddr>,
        out: S,
    ) -> Result<S::Ok, S::Error> {
        at.map(|at| at.to_string()).serialize(out)
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<SocketAddr>, D::Error> {
        Option::<String>::deserialize(from)?.map(|text| super::parse_listen(&text)).transpose()
    }
}
