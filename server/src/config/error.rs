//! What can be wrong with a configuration, each with its way out.

use std::path::PathBuf;

use figment::error::{Actual, Kind};

use super::Config;

/// A configuration was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{place}: {message}")]
    Syntax {
        /// File and line.
        place: String,
        /// The parser's words.
        message: String,
    },
    /// A variable with our prefix that cannot be a setting.
    #[error("environment variable {name} {reason}")]
    Variable {
        /// Its name.
        name: String,
        /// Why not.
        reason: &'static str,
    },
    /// No setting has this name.
    #[error("{place}: unknown setting '{key}'{}", hint(nearest.as_deref()))]
    UnknownKey {
        /// File and line, or variable.
        place: String,
        /// As written.
        key: String,
        /// The setting that was perhaps meant.
        nearest: Option<String>,
    },
    /// Not a value of this setting.
    #[error("{place}: '{key}' {problem}")]
    BadValue {
        /// File and line, or variable.
        place: String,
        /// The setting.
        key: String,
        /// What was found and what is expected.
        problem: String,
    },
    /// A value that is understood, and not allowed.
    #[error("{}'{key}' {reason}", place.as_ref().map(|place| format!("{place}: ")).unwrap_or_default())]
    Refused {
        /// File and line, or variable; none for a default.
        place: Option<String>,
        /// The setting.
        key: String,
        /// Why, and what is allowed.
        reason: String,
    },
}

fn hint(nearest: Option<&str>) -> String {
    nearest.map(|key| format!("; did you mean '{key}'?")).unwrap_or_default()
}

/// Puts an error of figment into our words. `place` knows where a key was written.
pub(super) fn explain(error: figment::Error, place: impl Fn(&str) -> Option<String>) -> ConfigError {
    let key = error.path.join(".");
    // Inside a list or an overridden table the key itself has no line; its table has.
    let mut written = key.as_str();
    let place = loop {
        match (place(written), written.rsplit_once('.')) {
            (Some(place), _) => break place,
            (None, Some((outer, _))) => written = outer,
            (None, None) => break "configuration".to_owned(),
        }
    };
    match error.kind {
        Kind::UnknownField(_, siblings) => {
            let nearest = nearest(&key, siblings);
            ConfigError::UnknownKey { place, key, nearest }
        }
        Kind::InvalidType(found, expected) => ConfigError::BadValue {
            place,
            key,
            problem: format!("is {}, but must be {}", words(&found), article(&expected)),
        },
        Kind::InvalidValue(found, expected) => ConfigError::BadValue {
            place,
            key,
            problem: format!("is {}, but must be {expected}", words(&found)),
        },
        Kind::UnknownVariant(found, allowed) => {
            let problem = format!("is '{found}', but must be one of {}", allowed.join(", "));
            ConfigError::BadValue { place, key, problem }
        }
        other => ConfigError::BadValue { place, key, problem: format!("is wrong: {other}") },
    }
}

/// What was written, in a reader's words.
fn words(found: &Actual) -> String {
    match found {
        Actual::Bool(flag) => flag.to_string(),
        Actual::Unsigned(number) => number.to_string(),
        Actual::Signed(number) => number.to_string(),
        Actual::Float(number) => number.to_string(),
        Actual::Str(text) => format!("\"{text}\""),
        Actual::Map => "a table".to_owned(),
        Actual::Seq => "a list".to_owned(),
        other => other.to_string(),
    }
}

/// serde names what it expects by Rust's words; these are a reader's.
fn article(expected: &str) -> String {
    match expected {
        "a boolean" => "true or false".to_owned(),
        "a string" | "path string" => "a text in quotes".to_owned(),
        "u16" | "u32" | "u64" | "usize" => "a whole number, not negative".to_owned(),
        "i16" | "i32" | "i64" | "isize" => "a whole number".to_owned(),
        "a map" => "a table".to_owned(),
        other if other.starts_with("struct ") => "a table ([section])".to_owned(),
        other => other.to_owned(),
    }
}

/// The setting that `key` perhaps was meant to be: one of its siblings spelled nearly so, or one of the same
/// name in another section.
fn nearest(key: &str, siblings: &[&str]) -> Option<String> {
    let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
    let close = siblings
        .iter()
        .map(|sibling| (strsim::jaro_winkler(name, sibling), *sibling))
        .filter(|(likeness, sibling)| *likeness > 0.8 || strsim::damerau_levenshtein(name, sibling) == 1)
        .max_by(|left, right| left.0.total_cmp(&right.0));
    if let Some((_, sibling)) = close {
        return Some(if section.is_empty() { sibling.to_owned() } else { format!("{section}.{sibling}") });
    }
    known_keys().into_iter().find(|known| known.rsplit('.').next() == Some(name))
}

/// Every setting, as `section.key`.
pub(super) fn known_keys() -> Vec<String> {
    // Settings without a default are not serialized, so they are given some value here.
    let mut config = Config::default();
    config.database.url = Some(String::new());
    config.database.home = Some(PathBuf::new());
    config.ingest.profiles = Some(PathBuf::new());
    config.broker.tls_listen = Some(config.web.listen);
    config.broker.websocket.listen = Some(config.web.listen);
    let tls = &mut config.broker.tls;
    for path in [&mut tls.certificate, &mut tls.key, &mut tls.client_ca, &mut tls.crl] {
        *path = Some(PathBuf::new());
    }
    let table = toml::Table::try_from(config).unwrap_or_default();
    let mut keys = Vec::new();
    flatten("", &table, &mut keys);
    keys
}

fn flatten(prefix: &str, table: &toml::Table, keys: &mut Vec<String>) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value {
            // A table that is empty by default is a setting itself.
            toml::Value::Table(inner) if !inner.is_empty() => flatten(&key, inner, keys),
            _ => keys.push(key),
        }
    }
}
