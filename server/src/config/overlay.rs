//! Settings from the environment: `LIFTWATCH_<SECTION>__<KEY>`.

use std::collections::BTreeMap;
use std::ffi::OsString;

use figment::value::{Dict, Value};

use super::ConfigError;

const PREFIX: &str = "LIFTWATCH_";
/// Variables of ours that are no settings: the command line's own, the tests'.
const NOT_SETTINGS: [&str; 2] = ["LIFTWATCH_CONFIG", "LIFTWATCH_BLESS"];
const NOT_SETTINGS_PREFIX: &str = "LIFTWATCH_TEST_";

/// The settings found in an environment.
pub(super) struct Overlay {
    dict: Dict,
    /// Variable by key (`broker.listen`), and by each table that holds it (`broker`).
    places: BTreeMap<String, String>,
}

impl Overlay {
    /// Picks ours out of `env`. An empty value counts as not set, as compose files pass them on.
    pub(super) fn collect(env: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Self, ConfigError> {
        let mut overlay = Self { dict: Dict::new(), places: BTreeMap::new() };
        // Sorted, so that the first of several errors is always the same one.
        let sorted: BTreeMap<OsString, OsString> = env.into_iter().collect();
        for (name, value) in sorted {
            let name = name.to_string_lossy().into_owned();
            let ours = name.starts_with(PREFIX)
                && !name.starts_with(NOT_SETTINGS_PREFIX)
                && !NOT_SETTINGS.contains(&name.as_str());
            if ours && !value.is_empty() {
                overlay.take(name, value)?;
            }
        }
        Ok(overlay)
    }

    fn take(&mut self, name: String, value: OsString) -> Result<(), ConfigError> {
        let key = name[PREFIX.len()..].to_ascii_lowercase().replace("__", ".");
        if !key.contains('.') || key.split('.').any(str::is_empty) {
            return Err(ConfigError::Variable {
                name,
                reason: "is no setting; settings are named LIFTWATCH_<SECTION>__<KEY>, such as LIFTWATCH_WEB__LISTEN",
            });
        }
        let Ok(text) = value.into_string() else {
            return Err(ConfigError::Variable { name, reason: "is not UTF-8" });
        };
        let mut table = key.as_str();
        self.places.insert(table.to_owned(), name.clone());
        while let Some((outer, _)) = table.rsplit_once('.') {
            self.places.entry(outer.to_owned()).or_insert_with(|| name.clone());
            table = outer;
        }
        insert(&mut self.dict, &key, scalar(text));
        Ok(())
    }

    /// The settings as nested tables.
    pub(super) fn dict(&self) -> &Dict {
        &self.dict
    }

    /// The variable that sets `key`.
    pub(super) fn place(&self, key: &str) -> Option<String> {
        self.places.get(key).cloned()
    }
}

/// A number or a truth value where the text is exactly one, otherwise the text. Not figment's own parser,
/// which takes `[::1]:80` for the beginning of a list.
fn scalar(text: String) -> Value {
    if let Ok(flag) = text.parse::<bool>() {
        return flag.into();
    }
    if let Ok(number) = text.parse::<i64>() {
        return number.into();
    }
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => number.into(),
        _ => text.into(),
    }
}

/// Puts `value` under the dotted `key`. A scalar that stands where a table must be is replaced.
fn insert(dict: &mut Dict, key: &str, value: Value) {
    let Some((outer, rest)) = key.split_once('.') else {
        dict.insert(key.to_owned(), value);
        return;
    };
    let slot = dict.entry(outer.to_owned()).or_insert_with(|| Dict::new().into());
    if !matches!(slot, Value::Dict(..)) {
        *slot = Dict::new().into();
    }
    if let Value::Dict(_, inner) = slot {
        insert(inner, rest, value);
    }
}
