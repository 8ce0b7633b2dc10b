//! `liftwatch profile`: lists, shows, checks and tries vendor profiles.

use std::io::Read;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use domain::{DeviceKind, Message};
use ingest::{Channel, Profile, ProfileView, Profiles, Tried, try_read};
use serde_json::json;

use crate::cli::{ConfigArgs, ProfileCommand};
use crate::config::Config;

/// The profiles that ship, and those of the configured directory.
pub(crate) fn load(config: &Config) -> anyhow::Result<Profiles> {
    match &config.ingest.profiles {
        Some(directory) => Profiles::with_directory(directory).context("own profiles (ingest.profiles)"),
        None => Ok(Profiles::shipped().clone()),
    }
}

/// The kind of a new elevator whose terminal speaks `name`. Refuses a profile that is not known, and one that does
/// not speak for the kind.
pub(crate) fn fitting(
    profiles: &Profiles,
    name: Option<&str>,
    kind: Option<DeviceKind>,
) -> anyhow::Result<Option<DeviceKind>> {
    let Some(name) = name else { return Ok(kind) };
    let profile = known(profiles, name)?;
    let speaks = profile.kinds();
    match kind {
        Some(kind) if !speaks.contains(&kind) => bail!(
            "profile {name} does not speak for the kind '{kind}': it speaks for {}",
            speaks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        ),
        None if !speaks.contains(&DeviceKind::Lift) => Ok(speaks.first().copied()),
        kind => Ok(kind),
    }
}

fn known<'p>(profiles: &'p Profiles, name: &str) -> anyhow::Result<&'p Arc<Profile>> {
    profiles.get(name).ok_or_else(|| {
        let names: Vec<&str> = profiles.names().collect();
        anyhow!("there is no profile '{name}': those known are {}", names.join(", "))
    })
}

fn configured(arguments: &ConfigArgs) -> anyhow::Result<Profiles> {
    load(&Config::load(arguments.config.as_deref(), std::env::vars_os())?)
}

/// Runs one of the commands. 1: a profile has mistakes, or a payload is refused.
pub(crate) fn run(command: ProfileCommand) -> anyhow::Result<ExitCode> {
    match command {
        ProfileCommand::List { json, config } => {
            for profile in configured(&config)?.all() {
                match json {
                    true => println!("{}", as_json(profile)),
                    false => println!("{:<18} {}", profile.name(), profile.title()),
                }
            }
        }
        ProfileCommand::Show { name, config } => print!("{}", known(&configured(&config)?, &name)?.text()),
        ProfileCommand::Check { file, config } => return check(&file, &configured(&config)?),
        ProfileCommand::Try { profile, payload, kind, event, stats, json, config } => {
            let profile = find(&profile, &configured(&config)?)?;
            let kind = kind.map_or_else(|| profile.kinds().first().copied().unwrap_or_default(), Into::into);
            let channel = match (event, stats) {
                (true, _) => Channel::Event,
                (_, true) => Channel::Stats,
                _ => Channel::Telemetry,
            };
            let tried = try_read(channel, &bytes(&payload)?, ProfileView { profile: &profile, kind });
            match json {
                true => println!("{:#}", tried_json(&profile, kind, &tried)),
                false => print!("{}", told(&profile, kind, &tried)),
            }
            if tried.refused.is_some() {
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn as_json(profile: &Profile) -> serde_json::Value {
    json!({
        "name": profile.name(),
        "title": profile.title(),
        "source": profile.source(),
        "kinds": profile.kinds(),
        "open_json": profile.is_open_json(),
        "codes": profile.kinds().iter().map(|kind| profile.codes_len(*kind)).max(),
    })
}

fn check(file: &Path, profiles: &Profiles) -> anyhow::Result<ExitCode> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let profile = match profiles.read(&text) {
        Ok(profile) => profile,
        Err(mistakes) => {
            for mistake in &mistakes {
                eprintln!("{}:{mistake}", file.display());
                let line = text.lines().nth(mistake.line - 1).unwrap_or_default();
                eprintln!("    {line}\n    {}^", " ".repeat(mistake.column - 1));
            }
            let count = mistakes.len();
            eprintln!("{count} {}", if count == 1 { "mistake" } else { "mistakes" });
            return Ok(ExitCode::FAILURE);
        }
    };
    if Profiles::shipped().get(profile.name()).is_some() {
        eprintln!(
            "{}: the name '{}' is that of a profile that ships: take another",
            file.display(),
            profile.name()
        );
        return Ok(ExitCode::FAILURE);
    }
    println!("{}: sound; profile '{}' for {:?}", file.display(), profile.name(), slugs(profile.kinds()));
    Ok(ExitCode::SUCCESS)
}

fn slugs(kinds: &[DeviceKind]) -> Vec<&'static str> {
    kinds.iter().map(|kind| kind.slug()).collect()
}

/// A known name, or a file.
fn find(name: &str, profiles: &Profiles) -> anyhow::Result<Arc<Profile>> {
    if let Some(profile) = profiles.get(name) {
        return Ok(profile.clone());
    }
    let path = Path::new(name);
    if !path.exists() {
        return known(profiles, name).cloned().context("neither a file nor a profile");
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
    let profile = profiles.read(&text).map_err(|mistakes| {
        anyhow!("{name} has {} mistakes: 'liftwatch profile check {name}' explains them", mistakes.len())
    })?;
    Ok(Arc::new(profile))
}

fn bytes(payload: &str) -> anyhow::Result<Vec<u8>> {
    let mut read = Vec::new();
    let limit = domain::limits::PAYLOAD_BYTES_MAX as u64 + 1;
    if payload == "-" {
        std::io::stdin()
            .lock()
            .take(limit)
            .read_to_end(&mut read)
            .context("standard input cannot be read")?;
    } else if let Some(path) = payload.strip_prefix('@') {
        let file = std::fs::File::open(path).with_context(|| format!("cannot read {path}"))?;
        file.take(limit).read_to_end(&mut read).with_context(|| format!("cannot read {path}"))?;
    } else {
        read.extend_from_slice(payload.as_bytes());
    }
    Ok(read)
}

fn tried_json(profile: &Profile, kind: DeviceKind, tried: &Tried) -> serde_json::Value {
    json!({
        "profile": profile.name(),
        "kind": kind,
        "refused": tried.refused,
        "unmapped": tried.unmapped,
        "fields": tried.trace.fields,
        "codes": tried.trace.codes,
        "ignored": tried.trace.ignored,
    })
}

/// For people.
fn told(profile: &Profile, kind: DeviceKind, tried: &Tried) -> String {
    use std::fmt::Write;
    let mut out = String::new();
    let _ = writeln!(out, "profile {} ({}), from a {kind}", profile.name(), profile.title());
    for field in &tried.trace.fields {
        let raw = field.raw.to_string();
        let warning = if field.unmapped { "   <- not in the profile" } else { "" };
        let _ = writeln!(out, "  {:<22} {:<26} {} = {}{warning}", field.name, raw, field.field, field.value);
    }
    for code in &tried.trace.codes {
        let detail = code.detail.as_ref().map(|detail| format!(" ({detail})")).unwrap_or_default();
        let _ = writeln!(
            out,
            "  code {:<17} {} {}: {}{detail} {}",
            code.raw, code.slug, code.severity, code.english, code.chinese
        );
    }
    if !tried.trace.ignored.is_empty() {
        let _ = writeln!(out, "  ignored: {}", tried.trace.ignored.join(", "));
    }
    let _ = match &tried.message {
        Ok(Message::Telemetry(batch)) => writeln!(out, "taken: {} readings", batch.readings.len()),
        Ok(Message::Event(batch)) => writeln!(
            out,
            "taken: {} events{}",
            batch.events.len(),
            batch.active.as_ref().map(|list| format!(", {} codes active", list.len())).unwrap_or_default()
        ),
        Ok(Message::Statistics(counted)) => {
            let told = counted.counters.iter().map(|(counter, value)| format!("{} {value}", counter.slug()));
            writeln!(out, "taken: statistics, {}", told.collect::<Vec<_>>().join(", "))
        }
        Err(_) => Ok(()),
    };
    if let Some(why) = &tried.refused {
        let _ = writeln!(out, "refused: {why}");
    }
    out
}
