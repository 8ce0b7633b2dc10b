//! From the TOML of a profile to the profile, or to every mistake in it.

mod codes;

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use domain::{DeviceKind, FaultKind};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::book::{CANONICAL, FILE_BYTES_MAX};
use super::clock::{self, Clock, Tick};
use super::read::NAME_PARTS_MAX;
use super::rule::{Rule, Several};
use super::target::{Form, TARGETS, Target, TargetInfo};
use super::{CodeForm, Codes, Mistake, Profile, Profiles, Rules};

/// Names that one profile may give to fields, at most: a bound for the counting of labels and for the checker.
const NAMES_MAX: usize = 512;

/// Every mistake of a profile, in the order of its lines; `known` are those it may extend.
pub fn check(text: &str, known: &Profiles) -> Vec<Mistake> {
    parse(text, known).err().unwrap_or_default()
}

/// Reads a profile.
pub(super) fn parse(text: &str, known: &Profiles) -> Result<Profile, Vec<Mistake>> {
    let mut parser = Parser { text, mistakes: Vec::new() };
    if text.len() as u64 > FILE_BYTES_MAX {
        parser.mistake(0..0, "a profile has at most 1 MiB");
        return Err(parser.mistakes);
    }
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        parser.mistake(error.span().unwrap_or(0..0), error.message());
    }
    if !parser.mistakes.is_empty() {
        // What follows a broken line would be told as a mistake too.
        return Err(parser.mistakes);
    }
    let profile = parser.profile(document.get_ref(), known);
    parser.mistakes.sort_by_key(|mistake| (mistake.line, mistake.column));
    if parser.mistakes.is_empty() { Ok(profile) } else { Err(parser.mistakes) }
}

/// Says nothing but what every profile says: canonical names, canonical values, no codes.
pub(super) fn blank() -> Profile {
    let mut names: HashMap<Box<str>, Vec<(Target, u8)>> = HashMap::new();
    for info in TARGETS {
        for name in std::iter::once(&info.name).chain(info.also) {
            names.entry((*name).into()).or_default().push((info.target, 0));
        }
    }
    let rules: Box<[Rule]> = TARGETS.iter().map(Rule::canonical).collect();
    let mut escalator = rules.clone();
    // A lift's enumeration; that of an escalator is another one, if the vendor has it.
    escalator[Target::ServiceMode as usize].closed = true;
    Profile {
        name: "".into(),
        title: "".into(),
        source: "".into(),
        text: "".into(),
        open_json: false,
        kinds: DeviceKind::ALL.to_vec(),
        clock: Clock::default(),
        names,
        lift: Rules(rules),
        escalator: Rules(escalator),
        codes: Codes {
            form: CodeForm::Decimal,
            width: 1,
            separator: ',',
            packed: false,
            fold_case: false,
            lift: HashMap::new(),
            escalator: HashMap::new(),
        },
        alarm_button_code: None,
    }
}

/// A profile as those that extend it begin: also with the names that are left out of the open JSON.
fn whole(base: &Profile) -> Profile {
    let mut profile = base.clone();
    if profile.open_json {
        profile.names = blank().names;
    }
    profile
}

struct Parser<'t> {
    text: &'t str,
    mistakes: Vec<Mistake>,
}

type Value<'i> = Spanned<DeValue<'i>>;

impl Parser<'_> {
    fn mistake(&mut self, span: Range<usize>, message: impl Into<String>) {
        self.mistakes.push(Mistake::at(self.text, span, message));
    }

    fn unknown<'a>(
        &mut self,
        span: Range<usize>,
        what: &str,
        name: &str,
        known: impl IntoIterator<Item = &'a str>,
    ) {
        let mistake = Mistake::at(self.text, span, format!("unknown {what} '{name}'"));
        self.mistakes.push(mistake.near(name, known));
    }

    fn wrong(&mut self, value: &Value<'_>, expected: &str) {
        self.mistake(value.span(), format!("expected {expected}, found {}", value.get_ref().type_str()));
    }

    fn string<'v>(&mut self, value: &'v Value<'_>, expected: &str) -> Option<&'v str> {
        let text = value.get_ref().as_str();
        if text.is_none() {
            self.wrong(value, expected);
        }
        text
    }

    fn table<'v, 'i>(&mut self, value: &'v Value<'i>, expected: &str) -> Option<&'v DeTable<'i>> {
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.wrong(value, expected);
        }
        table
    }

    fn bool(&mut self, value: &Value<'_>) -> bool {
        if value.get_ref().as_bool().is_none() {
            self.wrong(value, "true or false");
        }
        value.get_ref().as_bool().unwrap_or(false)
    }

    /// One string, or several.
    fn strings<'v>(&mut self, value: &'v Value<'_>, expected: &str) -> Vec<(&'v str, Range<usize>)> {
        match value.get_ref() {
            DeValue::Array(list) => {
                list.iter().filter_map(|one| Some((self.string(one, "a string")?, one.span()))).collect()
            }
            _ => self.string(value, expected).map(|text| (text, value.span())).into_iter().collect(),
        }
    }

    fn profile(&mut self, document: &DeTable<'_>, known: &Profiles) -> Profile {
        const KEYS: [&str; 11] = [
            "name",
            "title",
            "source",
            "extends",
            "kinds",
            "open_json",
            "clock",
            "booleans",
            "fields",
            "escalator",
            "codes",
        ];
        let get = |name: &str| document.iter().find(|(key, _)| key.get_ref() == name).map(|(_, value)| value);
        let mut profile = match get("extends") {
            Some(value) => self.base(value, known),
            None => blank(),
        };
        let is_open = get("open_json").and_then(|value| value.get_ref().as_bool()) == Some(true);
        if is_open && !profile.open_json {
            // The fields of the open JSON mean the same for everybody: of its base it has the codes.
            let Profile { kinds, codes, .. } = profile;
            profile = Profile { kinds, codes, ..whole(known.canonical()) };
        }
        for key in ["name", "title"].into_iter().filter(|key| get(key).is_none()) {
            self.mistake(
                0..0,
                format!("'{key}' is missing: a profile begins with name = \"...\" and title = \"...\""),
            );
        }
        profile.text = self.text.into();
        profile.source = "".into();
        profile.open_json = false;
        for (key, value) in document {
            match &**key.get_ref() {
                "name" => profile.name = self.name(value),
                "title" => profile.title = self.string(value, "a string").unwrap_or_default().into(),
                "source" => profile.source = self.string(value, "a string").unwrap_or_default().into(),
                "open_json" => profile.open_json = self.bool(value),
                "kinds" => profile.kinds = self.kinds(value),
                "extends" | "clock" | "booleans" | "fields" | "escalator" | "codes" => {}
                other => self.unknown(key.span(), "key", other, KEYS),
            }
        }
        // In the order in which each builds on the one before, whatever the order of the file.
        if let Some(value) = get("clock") {
            self.clock(value, &mut profile.clock);
        }
        if let Some(value) = get("booleans") {
            self.booleans(value, &mut profile);
        }
        let mut declared = HashSet::new();
        for (section, escalator) in [("fields", false), ("escalator", true)] {
            if let Some(value) = get(section) {
                self.fields(value, &mut profile, escalator, &mut declared);
            }
        }
        if let Some(value) = get("codes") {
            self.codes(value, &mut profile);
        }
        if profile.open_json {
            // What the strict decoder takes, and nothing more.
            profile.names.retain(|name, targets| {
                !name.contains(|letter: char| letter.is_ascii_uppercase())
                    && !targets.iter().any(|(target, _)| target.is_contact())
            });
            for section in ["clock", "booleans", "fields", "escalator"] {
                // What the canonical profile says of escalators is for those that extend it.
                let is_idle = section != "escalator" || &*profile.name != CANONICAL;
                if let Some(value) = get(section).filter(|_| is_idle) {
                    let message =
                        format!("open_json = true reads the open JSON as it is: '{section}' has no effect");
                    self.mistake(value.span(), message);
                }
            }
        }
        profile
    }

    fn base(&mut self, value: &Value<'_>, known: &Profiles) -> Profile {
        let Some(name) = self.string(value, "the name of a profile") else { return blank() };
        if let Some(base) = known.get(name) {
            return whole(base);
        }
        self.unknown(value.span(), "profile", name, known.names());
        blank()
    }

    fn name(&mut self, value: &Value<'_>) -> Arc<str> {
        let Some(name) = self.string(value, "a string") else { return "".into() };
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if name.is_empty() || name.len() > 32 || !name.bytes().all(plain) {
            self.mistake(value.span(), "a name has 1 to 32 characters of a-z 0-9 _");
        }
        name.into()
    }

    fn kinds(&mut self, value: &Value<'_>) -> Vec<DeviceKind> {
        let mut kinds = Vec::new();
        for (text, span) in self.strings(value, "a list of lift, escalator, walk, dumbwaiter") {
            match text.parse() {
                Ok(kind) => kinds.push(kind),
                Err(_) => self.unknown(span, "device kind", text, DeviceKind::ALL.map(DeviceKind::slug)),
            }
        }
        if kinds.is_empty() {
            self.mistake(value.span(), "a profile speaks for one kind of device at least");
        }
        kinds
    }

    fn clock(&mut self, value: &Value<'_>, clock: &mut Clock) {
        let Some(table) = self.table(value, "a table of zone, number, text") else { return };
        for (key, value) in table {
            match &**key.get_ref() {
                "zone" => match self.string(value, "an offset such as \"+08:00\"").map(clock::zone) {
                    Some(Some(zone)) => clock.zone = zone,
                    Some(None) => {
                        self.mistake(value.span(), "a zone is an offset such as \"+08:00\" or \"Z\"");
                    }
                    None => {}
                },
                "number" => match self.string(value, "\"s\" or \"ms\"") {
                    Some("s") => clock.tick = Tick::Seconds,
                    Some("ms") => clock.tick = Tick::Millis,
                    Some(_) => self.mistake(value.span(), "a number is in \"s\" or \"ms\" since 1970"),
                    None => {}
                },
                "text" => {
                    clock.layouts.clear();
                    for (text, span) in self.strings(value, "a layout such as \"[year]-[month]-[day]\"") {
                        match clock::layout(text) {
                            Ok(layout) if clock::is_whole(&layout) => clock.layouts.push(layout),
                            Ok(_) => {
                                self.mistake(span, "a layout of a moment has a whole date and a time of day");
                            }
                            Err(error) => self.mistake(span, format!("no layout of a moment: {error}")),
                        }
                    }
                }
                other => self.unknown(key.span(), "key", other, ["zone", "number", "text"]),
            }
        }
    }

    fn booleans(&mut self, value: &Value<'_>, profile: &mut Profile) {
        let values = self.values(value, Target::DoorZone.info());
        for rules in [&mut profile.lift, &mut profile.escalator] {
            for rule in rules.0.iter_mut().filter(|rule| rule.info.form == Form::Bool && !rule.is_own) {
                rule.values = Some(values.clone());
            }
        }
    }

    /// `{ 0 = "normal", 1 = "inspection" }`
    fn values(&mut self, value: &Value<'_>, info: &'static TargetInfo) -> HashMap<Box<str>, i16> {
        let mut values = HashMap::new();
        let Some(table) = self.table(value, "a table of the vendor's values") else { return values };
        for (key, value) in table {
            if let Some(number) = self.word(value, info) {
                values.insert((&**key.get_ref()).into(), number);
            }
        }
        values
    }

    /// A canonical word, number or boolean.
    fn word(&mut self, value: &Value<'_>, info: &'static TargetInfo) -> Option<i16> {
        let word = match value.get_ref() {
            DeValue::String(text) => text.to_string(),
            DeValue::Boolean(yes) => yes.to_string(),
            DeValue::Integer(number) => number.as_str().to_owned(),
            _ => {
                self.wrong(value, "a word");
                return None;
            }
        };
        let number = info.number_of(&word);
        if number.is_none() {
            let words = info.words();
            let message = format!("'{word}' is no value of {}: those are {}", info.name, words.join(", "));
            self.mistakes.push(Mistake::at(self.text, value.span(), message).near(&word, words));
        }
        number
    }

    fn fields(
        &mut self,
        value: &Value<'_>,
        profile: &mut Profile,
        escalator: bool,
        declared: &mut HashSet<Box<str>>,
    ) {
        let Some(table) = self.table(value, "a table of canonical fields") else { return };
        for (key, value) in table {
            let name = &**key.get_ref();
            let Some(info) = Target::named(name) else {
                self.unknown(key.span(), "field", name, TARGETS.iter().map(|info| info.name));
                continue;
            };
            let Some(table) = self.table(value, "a table of names, values, unit") else { continue };
            self.names(table, info, profile, declared);
            let rules = if escalator { &mut profile.escalator } else { &mut profile.lift };
            let mut rule = rules.0[info.target as usize].clone();
            rule.closed = false;
            let factor = rule.factor;
            self.rule(table, info, &mut rule, &mut profile.alarm_button_code);
            if !escalator && rule.factor.to_bits() != factor.to_bits() {
                self.drop_inherited(table, info, profile, declared);
            }
            // What is said of a field holds for every kind, but for the mode, which is never shared.
            if !escalator && info.target != Target::ServiceMode {
                profile.escalator.0[info.target as usize] = rule.clone();
            }
            let rules = if escalator { &mut profile.escalator } else { &mut profile.lift };
            rules.0[info.target as usize] = rule;
        }
    }

    fn names(
        &mut self,
        table: &DeTable<'_>,
        info: &'static TargetInfo,
        profile: &mut Profile,
        declared: &mut HashSet<Box<str>>,
    ) {
        let Some((_, value)) = table.iter().find(|(key, _)| key.get_ref() == "names") else { return };
        for (rank, (name, span)) in
            self.strings(value, "a list of the vendor's names").into_iter().enumerate()
        {
            if name.is_empty() || name.len() > 128 || profile.names.len() >= NAMES_MAX {
                self.mistake(
                    span,
                    format!("a name has 1 to 128 bytes, and a profile {NAMES_MAX} names at most"),
                );
                continue;
            }
            if name.split('.').count() > NAME_PARTS_MAX {
                self.mistake(
                    span,
                    format!("a name has at most {NAME_PARTS_MAX} parts: what lies deeper is not read"),
                );
                continue;
            }
            // The first word of this file on a name takes it from whoever had it; a further one shares it.
            if declared.insert(name.into()) {
                profile.names.remove(name);
            }
            let targets = profile.names.entry(name.into()).or_default();
            targets.retain(|(target, _)| *target != info.target);
            targets.push((info.target, rank.min(200) as u8 + 1));
        }
    }

    /// Names of the profile that is extended are in the unit they have there: they do not live on under another.
    fn drop_inherited(
        &mut self,
        table: &DeTable<'_>,
        info: &'static TargetInfo,
        profile: &mut Profile,
        declared: &HashSet<Box<str>>,
    ) {
        let (mut dropped, mut has_own) = (false, false);
        for (name, targets) in &mut profile.names {
            let of_vendor = |(target, rank): &(Target, u8)| *target == info.target && *rank > 0;
            if declared.contains(name) {
                has_own |= targets.iter().any(of_vendor);
            } else {
                dropped |= targets.iter().any(of_vendor);
                targets.retain(|target| !of_vendor(target));
            }
        }
        profile.names.retain(|_, targets| !targets.is_empty());
        let unit = table.iter().find(|(key, _)| matches!(&**key.get_ref(), "unit" | "scale"));
        if let (true, false, Some((key, _))) = (dropped, has_own, unit) {
            let message =
                format!("another unit of {} needs names of its own: those inherited keep theirs", info.name);
            self.mistake(key.span(), message);
        }
    }

    fn rule(
        &mut self,
        table: &DeTable<'_>,
        info: &'static TargetInfo,
        rule: &mut Rule,
        button: &mut Option<(Box<str>, &'static FaultKind)>,
    ) {
        const KEYS: [&str; 8] =
            ["names", "values", "otherwise", "unit", "scale", "several", "ignored", "code"];
        let worded = matches!(info.form, Form::Words(_) | Form::Bool);
        for (key, value) in table {
            let name = &**key.get_ref();
            let fits = match name {
                "values" | "otherwise" | "several" | "ignored" => worded,
                "unit" | "scale" => matches!(info.form, Form::Number { .. }),
                "code" => info.target == Target::AlarmButton,
                _ => true,
            };
            if !fits {
                self.mistake(key.span(), format!("'{name}' does not fit {}", info.name));
                continue;
            }
            match name {
                "names" => {}
                "values" => (rule.values, rule.is_own) = (Some(self.values(value, info)), true),
                "otherwise" => rule.otherwise = self.word(value, info),
                "unit" => rule.factor = self.unit(value, info).unwrap_or(1.0),
                "scale" => rule.factor = self.scale(value).unwrap_or(1.0),
                "several" => rule.several = self.several(value, info),
                "ignored" => {
                    let list = match value.get_ref() {
                        DeValue::Array(list) => list.iter().map(|one| scalar(one.get_ref())).collect(),
                        one => vec![scalar(one)],
                    };
                    rule.ignored = list.into_iter().flatten().map(Into::into).collect();
                }
                "code" => {
                    let fault = self.slug(value);
                    let name = table
                        .iter()
                        .find(|(key, _)| key.get_ref() == "names")
                        .and_then(|(_, names)| self.strings(names, "names").first().map(|first| first.0));
                    *button = fault.map(|fault| (name.unwrap_or(info.name).into(), fault));
                }
                other => self.unknown(key.span(), "key", other, KEYS),
            }
        }
    }

    /// `m/s`, or `0.1 m/s` for steps.
    fn unit(&mut self, value: &Value<'_>, info: &'static TargetInfo) -> Option<f64> {
        let Form::Number { units, .. } = info.form else { return None };
        let text = self.string(value, "a unit")?.trim();
        let split = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
        let (step, unit) = (&text[..split], text[split..].trim());
        let step = if step.is_empty() { Some(1.0) } else { step.parse::<f64>().ok() };
        let factor = units.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
        if let (Some(step), Some(factor)) = (step, factor) {
            return Some(step * factor);
        }
        let known: Vec<&str> = units.iter().map(|(name, _)| *name).collect();
        let message = match known.is_empty() {
            true => format!("{} has no unit: use scale", info.name),
            false => format!("'{text}' is no unit of {}: those are {}", info.name, known.join(", ")),
        };
        self.mistakes.push(Mistake::at(self.text, value.span(), message).near(unit, known));
        None
    }

    fn scale(&mut self, value: &Value<'_>) -> Option<f64> {
        let number = match value.get_ref() {
            DeValue::Integer(number) => number.as_str().parse().ok(),
            DeValue::Float(number) => number.as_str().parse::<f64>().ok(),
            _ => None,
        };
        let usable = number.filter(|factor| factor.is_finite() && *factor != 0.0);
        if usable.is_none() {
            self.mistake(value.span(), "scale is a number other than 0");
        }
        usable
    }

    fn several(&mut self, value: &Value<'_>, info: &'static TargetInfo) -> Several {
        let fits: &[(&str, Several)] = match info.form {
            Form::Bool => &[("any", Several::Any), ("all", Several::All)],
            _ if info.target == Target::DoorState => &[("most_open", Several::MostOpen)],
            _ => &[],
        };
        let text = self.string(value, "a word").unwrap_or_default();
        let found = fits.iter().find(|(name, _)| *name == text);
        if found.is_none() {
            let names: Vec<&str> = fits.iter().map(|(name, _)| *name).collect();
            self.mistake(value.span(), format!("several of {} is one of: {}", info.name, names.join(", ")));
        }
        found.map_or(Several::None, |(_, several)| *several)
    }
}

fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Boolean(yes) => Some(yes.to_string()),
        DeValue::Integer(number) => Some(number.as_str().to_owned()),
        _ => None,
    }
}
