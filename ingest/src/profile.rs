//! Vendor profiles: the language of a terminal, as data.
//!
//! Owns the tables that turn a vendor's field names, polarities, units, clock and codes into the canonical
//! model (DOMAIN.md 3 and 4): those that ship (`ingest/profiles/*.toml`), and an operator's own. Promises that
//! a loaded profile has no mistake, that reading with one is total over all bytes, that a value without a
//! meaning becomes "unknown" and is counted, and that a code without one is kept as it was sent. A raw value
//! is never read with the table of another profile or of another kind of device. Judges nothing.

mod book;
mod clock;
mod mistake;
mod parse;
mod read;
mod rule;
mod target;
#[cfg(test)]
mod tests;
mod trace;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use domain::{DeviceKind, FaultKind, Meaning, fault_by_slug};

pub use book::{CANONICAL, Profiles, ProfilesError, Resolver};
pub use mistake::Mistake;
pub use parse::check;
pub(crate) use read::Vendor;
pub use trace::{CodeLine, FieldLine, Trace, Tried, try_read};

use clock::Clock;
use rule::Rule;
use target::Target;

/// How a code is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CodeForm {
    /// A decimal number; leading zeros say nothing.
    Decimal,
    /// Digits 0 to f; case, `0x` and leading zeros say nothing. A JSON number is the value.
    Hex,
    /// As it stands: leading zeros count. A JSON number is written with [`Codes::width`] digits.
    Text,
}

/// The codes of a profile, and how lists of them are written.
#[derive(Debug, Clone)]
struct Codes {
    form: CodeForm,
    /// Digits of a number, at least.
    width: usize,
    /// Between the codes of a text.
    separator: char,
    /// A text longer than `width` is a list without separators.
    packed: bool,
    /// Upper and lower case are the same.
    fold_case: bool,
    lift: HashMap<Box<str>, Entry>,
    escalator: HashMap<Box<str>, Entry>,
}

/// A code's row.
#[derive(Debug, Clone, PartialEq)]
struct Entry {
    meaning: Meaning,
    /// What the slug does not say: `1.2×`, `left`.
    detail: Option<Box<str>>,
}

/// A code longer than this is none of a profile's own: what is made of it must fit
/// [`domain::limits::CODE_BYTES_MAX`].
const RAW_BYTES_MAX: usize = 16;

impl Codes {
    /// A raw code as the tables spell it.
    fn key(&self, raw: &str) -> Option<String> {
        if raw.len() > RAW_BYTES_MAX {
            return None;
        }
        match self.form {
            CodeForm::Decimal => raw.parse::<u32>().ok().map(|number| number.to_string()),
            CodeForm::Hex => {
                let digits = raw.strip_prefix("0x").or_else(|| raw.strip_prefix("0X")).unwrap_or(raw);
                let number = u32::from_str_radix(digits, 16).ok()?;
                Some(format!("{number:0width$x}", width = self.width))
            }
            CodeForm::Text if self.fold_case => Some(raw.to_ascii_uppercase()),
            CodeForm::Text => Some(raw.to_owned()),
        }
    }

    /// The text of a code that came as a number.
    fn text_of(&self, number: u64) -> String {
        match self.form {
            CodeForm::Decimal => number.to_string(),
            CodeForm::Hex => format!("{number:0width$x}", width = self.width),
            CodeForm::Text => format!("{number:0width$}", width = self.width),
        }
    }

    fn table(&self, kind: DeviceKind) -> &HashMap<Box<str>, Entry> {
        if kind.is_escalator() { &self.escalator } else { &self.lift }
    }
}

/// The language of a kind of terminal.
#[derive(Debug, Clone)]
pub struct Profile {
    name: Arc<str>,
    title: Box<str>,
    source: Box<str>,
    text: Box<str>,
    /// JSON payloads are the open JSON itself.
    open_json: bool,
    kinds: Vec<DeviceKind>,
    clock: Clock,
    /// By the vendor's name, nested ones with dots: what it becomes, and how it ranks among those that become
    /// the same.
    names: HashMap<Box<str>, Vec<(Target, u8)>>,
    lift: Rules,
    escalator: Rules,
    codes: Codes,
    /// `Passenger_Alarm` true stands for this code in a list of active ones.
    alarm_button_code: Option<(Box<str>, &'static FaultKind)>,
}

/// A rule for each target.
#[derive(Debug, Clone)]
struct Rules(Box<[Rule]>);

impl Rules {
    fn of(&self, target: Target) -> &Rule {
        &self.0[target as usize]
    }
}

impl Profile {
    /// What it is called in the registry.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What it is, for people.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// Where its facts come from.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Its TOML, as it was read.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The kinds of device it speaks for.
    pub fn kinds(&self) -> &[DeviceKind] {
        &self.kinds
    }

    /// Whether its JSON payloads are the open JSON of docs/wire.md.
    pub fn is_open_json(&self) -> bool {
        self.open_json
    }

    /// How many codes it knows of a kind of device.
    pub fn codes_len(&self, kind: DeviceKind) -> usize {
        if self.kinds.contains(&kind) { self.codes.table(kind).len() } else { 0 }
    }

    fn rules(&self, kind: DeviceKind) -> &Rules {
        if kind.is_escalator() { &self.escalator } else { &self.lift }
    }
}

/// A profile, and the kind of device that speaks it: together they say what a raw value means.
#[derive(Debug, Clone, Copy)]
pub struct ProfileView<'a> {
    /// The profile.
    pub profile: &'a Profile,
    /// The device of the terminal's elevator.
    pub kind: DeviceKind,
}

static UNKNOWN: LazyLock<&'static FaultKind> =
    LazyLock::new(|| fault_by_slug("unknown_code").expect("the taxonomy has a row for unknown codes"));

impl ProfileView<'static> {
    /// GB/T 24476-2017 for a lift: what a terminal speaks unless the registry says otherwise.
    pub fn canonical() -> Self {
        static PROFILE: LazyLock<Arc<Profile>> = LazyLock::new(|| Profiles::shipped().canonical().clone());
        Self { profile: &PROFILE, kind: DeviceKind::Lift }
    }
}

impl ProfileView<'_> {
    /// The meaning of a code: a slug of the taxonomy, which every profile may send, or a code of the profile's
    /// own for this kind of device. Anything else is `unknown_code`.
    pub fn meaning(&self, raw: &str) -> Meaning {
        if let Some(fault) = fault_by_slug(raw) {
            return fault.into();
        }
        if let Some(entry) = self.entry(raw) {
            return entry.meaning;
        }
        // The second meaning of a code, as `Code::of` writes it: a row of quarantine may come back so.
        let second = raw.rsplit_once(':').and_then(|(raw, slug)| {
            let second = self.entry(raw)?.meaning.second?;
            (second.slug == slug).then_some(second)
        });
        second.unwrap_or(*UNKNOWN).into()
    }

    fn entry(&self, raw: &str) -> Option<&Entry> {
        if !self.profile.kinds.contains(&self.kind) {
            return None;
        }
        self.profile.codes.table(self.kind).get(self.profile.codes.key(raw)?.as_str())
    }

    /// What the profile says of a code besides its slug.
    pub fn detail(&self, raw: &str) -> Option<&str> {
        self.entry(raw)?.detail.as_deref()
    }
}
