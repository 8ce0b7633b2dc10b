//! A configuration written out with the comments of the example.

use super::Config;

/// The example is the one place where settings are described to people; `print-config` fills it in.
pub(super) const EXAMPLE: &str = include_str!("../../../deploy/liftwatch.toml");

/// The example with the values of `config`: a setting that has a value replaces its line, also a commented
/// one (`#url = ...`); one without a value stays commented.
pub(super) fn fill(config: &Config) -> String {
    let mut table = toml::Table::try_from(config).unwrap_or_default();
    let thresholds = take(&mut table, "alerting", "thresholds");
    let divisions = take(&mut table, "retention", "division");
    let mut section = String::new();
    let mut text = String::with_capacity(EXAMPLE.len());
    for line in EXAMPLE.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            name.clone_into(&mut section);
        }
        let value = setting_name(line).and_then(|name| Some((name, within(&table, &section)?.get(name)?)));
        match value {
            Some((name, value)) => text.extend([name, " = ", &value.to_string(), "\n"]),
            None => text.extend([line, "\n"]),
        }
    }
    for (section, name, inner) in
        [("alerting", "thresholds", thresholds), ("retention", "division", divisions)]
    {
        if inner.is_empty() {
            continue;
        }
        let outer = toml::Table::from_iter([(name.to_owned(), toml::Value::Table(inner))]);
        let outer = toml::Table::from_iter([(section.to_owned(), toml::Value::Table(outer))]);
        text.push('\n');
        text.push_str(&toml::to_string(&outer).unwrap_or_default());
    }
    text
}

/// The table of a section such as `broker.tls`.
fn within<'a>(table: &'a toml::Table, section: &str) -> Option<&'a toml::Table> {
    section.split('.').try_fold(table, |table, name| table.get(name)?.as_table())
}

/// Tables by division go to the end, out of their section.
fn take(table: &mut toml::Table, section: &str, name: &str) -> toml::Table {
    let section = table.get_mut(section).and_then(toml::Value::as_table_mut);
    match section.and_then(|section| section.remove(name)) {
        Some(toml::Value::Table(thresholds)) => thresholds,
        _ => toml::Table::new(),
    }
}

/// The name in `name = value` or `#name = value`; prose comments have a space after the `#`.
fn setting_name(line: &str) -> Option<&str> {
    let (name, _) = line.strip_prefix('#').unwrap_or(line).split_once(" = ")?;
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let plain = !name.is_empty() && name.bytes().all(letter);
    plain.then_some(name)
}
