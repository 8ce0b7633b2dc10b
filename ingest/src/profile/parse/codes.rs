//! The section `[codes]` of a profile.

use std::collections::HashSet;

use domain::{FAULTS, FaultKind, Meaning, fault_by_slug};
use toml::de::{DeTable, DeValue};

use super::{Parser, Value};
use crate::profile::{CodeForm, Codes, Entry, Profile, RAW_BYTES_MAX};

impl Parser<'_> {
    pub(super) fn codes(&mut self, value: &Value<'_>, profile: &mut Profile) {
        const KEYS: [&str; 8] =
            ["form", "width", "separator", "packed", "fold_case", "lift", "escalator", "any"];
        let Some(table) = self.table(value, "a table of form, lift, escalator, any") else { return };
        let codes = &mut profile.codes;
        for (key, value) in table {
            match &**key.get_ref() {
                "form" => match self.string(value, "a word") {
                    Some("decimal") => codes.form = CodeForm::Decimal,
                    Some("hex") => codes.form = CodeForm::Hex,
                    Some("text") => codes.form = CodeForm::Text,
                    _ => self.mistake(value.span(), "form is \"decimal\", \"hex\" or \"text\""),
                },
                "width" => {
                    let width = value.get_ref().as_integer().and_then(|number| number.as_str().parse().ok());
                    match width.filter(|width| (1..=8).contains(width)) {
                        Some(width) => codes.width = width,
                        None => self.mistake(value.span(), "width is 1 to 8 digits"),
                    }
                }
                "separator" => {
                    let mut letters = self.string(value, "one character").unwrap_or_default().chars();
                    match (letters.next(), letters.next()) {
                        (Some(letter), None) if !letter.is_alphanumeric() => codes.separator = letter,
                        _ => {
                            self.mistake(value.span(), "a separator is one character, not a letter or digit");
                        }
                    }
                }
                "packed" => codes.packed = self.bool(value),
                "fold_case" => codes.fold_case = self.bool(value),
                "lift" | "escalator" | "any" => {}
                other => self.unknown(key.span(), "key", other, KEYS),
            }
        }
        let mut seen = HashSet::new();
        for (key, value) in table {
            let section = &**key.get_ref();
            if matches!(section, "lift" | "escalator" | "any")
                && let Some(table) = self.table(value, "a table of codes")
            {
                self.code_table(table, section, codes, &mut seen);
            }
        }
    }

    fn code_table(
        &mut self,
        table: &DeTable<'_>,
        section: &str,
        codes: &mut Codes,
        seen: &mut HashSet<(bool, String)>,
    ) {
        // In the order of the lines: of two that are the same, the second is the mistake.
        let mut rows: Vec<_> = table.iter().collect();
        rows.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in rows {
            let raw = &**key.get_ref();
            let Some(normal) = codes.key(raw).filter(|normal| !normal.is_empty()) else {
                let message = format!("'{raw}' is no code of this form (1 to {RAW_BYTES_MAX} characters)");
                self.mistake(key.span(), message);
                continue;
            };
            let Some(entry) = self.entry(value, section) else { continue };
            for escalator in [false, true] {
                let meant = match section {
                    "lift" => !escalator,
                    "escalator" => escalator,
                    _ => true,
                };
                if !meant {
                    continue;
                }
                if !seen.insert((escalator, normal.clone())) {
                    self.mistake(key.span(), format!("code '{raw}' stands here twice"));
                    break;
                }
                let table = if escalator { &mut codes.escalator } else { &mut codes.lift };
                table.insert(normal.as_str().into(), entry.clone());
            }
        }
    }

    /// `"slug"`, `["slug", "slug"]` or `{ slug = "...", detail = "..." }`.
    fn entry(&mut self, value: &Value<'_>, section: &str) -> Option<Entry> {
        let (slugs, detail) = match value.get_ref() {
            DeValue::Table(table) => {
                let (mut slugs, mut detail) = (None, None);
                for (key, value) in table {
                    match &**key.get_ref() {
                        "slug" => slugs = Some(value),
                        "detail" => detail = self.string(value, "a string"),
                        other => self.unknown(key.span(), "key", other, ["slug", "detail"]),
                    }
                }
                if slugs.is_none() {
                    self.mistake(value.span(), "'slug' is missing");
                }
                (slugs?, detail)
            }
            _ => (value, None),
        };
        let faults: Vec<&'static FaultKind> = match slugs.get_ref() {
            DeValue::Array(list) => list.iter().map(|one| self.slug(one)).collect::<Option<_>>()?,
            _ => vec![self.slug(slugs)?],
        };
        let (first, second) = match faults[..] {
            [first] => (first, None),
            [first, second] if first != second => (first, Some(second)),
            _ => {
                self.mistake(slugs.span(), "a code means one slug, or two different ones");
                return None;
            }
        };
        for fault in faults {
            let stranger = match section {
                "lift" => !fault.lift,
                "escalator" => !fault.escalator,
                _ => false,
            };
            if stranger {
                self.mistake(
                    slugs.span(),
                    format!("'{}' is no fault of a device of [codes.{section}]", fault.slug),
                );
            }
        }
        Some(Entry { meaning: Meaning { first, second }, detail: detail.map(Into::into) })
    }

    pub(super) fn slug(&mut self, value: &Value<'_>) -> Option<&'static FaultKind> {
        let slug = self.string(value, "a slug of the taxonomy")?;
        let found = fault_by_slug(slug);
        if found.is_none() {
            self.unknown(value.span(), "slug", slug, FAULTS.iter().map(|fault| fault.slug));
        }
        found
    }
}
