//! `liftwatch terminal`: registers terminals, and gives and takes their secrets.
//!
//! Secrets go to standard output alone, so that a script can take them; what a person should know goes to standard
//! error. Running servers hear of every change by the store.

mod import;

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use domain::{ElevatorId, TerminalId, Timestamp};
use store::{AccessError, Database, FaultPeriodRecord, NewTerminal, Rotation, TerminalDetail};

use crate::auth::secret::{self, SECRET_BYTES_MAX, Strength};
use crate::cli::{ConfigArgs, SecretArgs, TerminalCommand};
use crate::config::Config;
use crate::{database, downlink, profile};

/// An old secret is good for this long after a rotation, unless the new one is used before.
const PREVIOUS_FOR: Duration = Duration::from_hours(7 * 24);
/// The shortest secret that is taken from a person.
pub(crate) const CHOSEN_BYTES_MIN: usize = 8;
/// Client ids that begin so are made up by the gate.
const RESERVED: &str = "anonymous-";

/// Runs one of the commands.
pub(crate) async fn run(command: TerminalCommand) -> anyhow::Result<()> {
    match command {
        TerminalCommand::Add { id, area, elevator, profile, kind, secret, no_secret, config } => {
            ensure_free(&id)?;
            let kind = profile::fitting(&profiles(&config)?, profile.as_deref(), kind.map(Into::into))?;
            let made = (!no_secret).then(|| Made::new(&secret)).transpose()?;
            let database = open(&config).await?;
            let hash = made.as_ref().map(|made| made.hash.clone());
            let elevator = elevator.map(ElevatorId);
            let new = NewTerminal { id: id.clone(), area, elevator, hash, profile, kind };
            database.terminal_add(&[new], &actor()).await.map_err(|error| explained(error, "terminal"))?;
            eprintln!("{id} is registered in {area}");
            match made {
                Some(made) => made.tell(&format!("client id {id}, user name {id}")),
                None => eprintln!("it connects by certificate: liftwatch pki issue {id}"),
            }
        }
        TerminalCommand::List { area, json, config } => {
            let terminals = look(&config).await?.terminal_list(area).await?;
            if !json {
                println!(
                    "{:<24} {:<7} {:>9}  {:<8} {:<9} registered",
                    "terminal", "area", "elevator", "state", "secret"
                );
            }
            for terminal in &terminals {
                match json {
                    true => println!("{}", as_json(terminal)),
                    false => println!("{}", as_line(terminal)),
                }
            }
        }
        TerminalCommand::Show { id, config } => {
            let database = look(&config).await?;
            let found = database.terminal_show(&id).await.map_err(|error| explained(error, "terminal"))?;
            let mut shown = as_json(&found);
            let open = database.faults_open(found.elevator_id).await?;
            shown["faults"] =
                open.iter().filter(|one| one.terminal_id == found.id).map(fault_as_json).collect();
            println!("{shown:#}");
        }
        TerminalCommand::Disable { ids, config } => {
            enable(&ids, false, &config).await?;
            eprintln!("switched off; open connections end now");
        }
        TerminalCommand::Enable { ids, config } => {
            enable(&ids, true, &config).await?;
            eprintln!("switched on");
        }
        TerminalCommand::Set { ids, profile, kind, config } => {
            let kind = kind.map(Into::into);
            profile::fitting(&profiles(&config)?, profile.as_deref(), kind)?;
            let database = open(&config).await?;
            let done = database.terminal_describe(&ids, profile.as_deref(), kind, &actor()).await;
            done.map_err(|error| explained(error, "terminal"))?;
            eprintln!("set; running servers follow within seconds");
        }
        TerminalCommand::Send { id, order, interval, for_s, wait, config } => {
            let order = downlink::order(order, interval, for_s)?;
            downlink::send(&open(&config).await?, &id, order, wait).await?;
        }
        TerminalCommand::Rotate { id, secret, now, config } => {
            let made = Made::new(&secret)?;
            let database = open(&config).await?;
            let previous_until = (!now).then(|| moment().plus(PREVIOUS_FOR));
            let rotation = Rotation { id: id.clone(), hash: made.hash.clone(), previous_until };
            let done = database.terminal_rotate(&[rotation], &actor()).await;
            done.map_err(|error| explained(error, "terminal"))?;
            match now {
                true => eprintln!("the old secret of {id} is worth nothing from now on"),
                false => {
                    eprintln!("the old secret of {id} is good until the new one is used, for 7 days at most");
                }
            }
            made.tell(&format!("client id {id}, user name {id}"));
        }
        TerminalCommand::Import { file, out, no_secret, random_secrets, config } => {
            let given = if random_secrets { Strength::Generated } else { Strength::Chosen };
            let plan = import::Plan { out, no_secret, given };
            import::run(&file, plan, &profiles(&config)?, &config).await?;
        }
    }
    Ok(())
}

async fn enable(ids: &[TerminalId], enabled: bool, config: &ConfigArgs) -> anyhow::Result<()> {
    let done = open(config).await?.terminal_enable(ids, enabled, &actor()).await;
    done.map_err(|error| explained(error, "terminal"))
}

/// The profiles that a server of this configuration knows.
pub(crate) fn profiles(arguments: &ConfigArgs) -> anyhow::Result<ingest::Profiles> {
    profile::load(&Config::load(arguments.config.as_deref(), std::env::vars_os())?)
}

/// The configured database, to look at.
pub(crate) async fn look(arguments: &ConfigArgs) -> anyhow::Result<Database> {
    database::look(&Config::load(arguments.config.as_deref(), std::env::vars_os())?).await
}

/// The configured database, to change rows of.
pub(crate) async fn open(arguments: &ConfigArgs) -> anyhow::Result<Database> {
    database::open(&Config::load(arguments.config.as_deref(), std::env::vars_os())?).await
}

/// Who stands in the audit log.
pub(crate) fn actor() -> String {
    let name = ["SUDO_USER", "USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok());
    format!("{} at the command line", name.unwrap_or_else(|| "somebody".to_owned()))
}

pub(crate) fn moment() -> Timestamp {
    time::OffsetDateTime::now_utc().into()
}

fn ensure_free(id: &TerminalId) -> anyhow::Result<()> {
    ensure!(!id.as_str().starts_with(RESERVED), "ids that begin with '{RESERVED}' are the server's own");
    Ok(())
}

/// A secret that was given or made up, with its hash.
pub(crate) struct Made {
    pub(crate) hash: String,
    /// Made up: to be told.
    generated: Option<String>,
}

impl Made {
    /// For a terminal: what is made up needs no slow hash.
    pub(crate) fn new(arguments: &SecretArgs) -> anyhow::Result<Self> {
        Self::with(arguments, Strength::Generated)
    }

    /// `strength` is for what is made up; what is given is hashed slowly.
    pub(crate) fn with(arguments: &SecretArgs, strength: Strength) -> anyhow::Result<Self> {
        if let Some(path) = &arguments.secret {
            let given = read(path)?;
            return Ok(Self { hash: secret::hash(&given, Strength::Chosen)?, generated: None });
        }
        let made_up = secret::generate();
        Ok(Self { hash: secret::hash(made_up.as_bytes(), strength)?, generated: Some(made_up) })
    }

    /// The secret to standard output, once.
    pub(crate) fn tell(&self, with: &str) {
        match &self.generated {
            Some(secret) => {
                eprintln!("connect with {with}, and this as password (it is not shown again):");
                println!("{secret}");
            }
            None => eprintln!("connect with {with}, and the secret you gave as password"),
        }
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut secret = Vec::new();
    let limit = SECRET_BYTES_MAX as u64 + 2;
    match path.as_os_str() == "-" {
        true => std::io::stdin().lock().take(limit).read_to_end(&mut secret),
        false => std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut secret)),
    }
    .with_context(|| format!("the secret cannot be read from {}", path.display()))?;
    let secret = secret.trim_ascii_end().to_vec();
    check(&secret)?;
    Ok(secret)
}

/// Whether a given secret may be used.
pub(crate) fn check(secret: &[u8]) -> anyhow::Result<()> {
    ensure!(
        (CHOSEN_BYTES_MIN..=SECRET_BYTES_MAX).contains(&secret.len()),
        "a secret has {CHOSEN_BYTES_MIN} to {SECRET_BYTES_MAX} bytes, this one {}",
        secret.len()
    );
    Ok(())
}

/// With the way out.
pub(crate) fn explained(error: AccessError, what: &str) -> anyhow::Error {
    let way_out = match &error {
        AccessError::TerminalExists(_) => "for a new secret use 'liftwatch terminal rotate ID'",
        AccessError::TerminalUnknown(_) => "'liftwatch terminal list' shows those that are",
        AccessError::ElevatorUnknown(_) => "leave --elevator out and a new one is made",
        AccessError::AccountExists(_) => "for a new password use 'liftwatch account rotate NAME'",
        AccessError::AccountUnknown(_) => "'liftwatch account list' shows those that are",
        AccessError::Store(_) => {
            return anyhow::Error::new(error).context(format!("the {what} is not changed"));
        }
    };
    anyhow::anyhow!("{error}: {way_out}")
}

fn secret_state(terminal: &TerminalDetail) -> &'static str {
    match &terminal.credential {
        None => "none",
        Some(credential) if credential.previous.is_some() => "rotating",
        Some(_) => "set",
    }
}

/// A fault that lasts; `clock_skew` is the server's own finding.
fn fault_as_json(record: &FaultPeriodRecord) -> serde_json::Value {
    let period = &record.period;
    serde_json::json!({
        "code": &*period.code.raw,
        "slug": period.code.fault.slug,
        "opened": period.opened,
        "opened_by": period.opened_by.slug(),
    })
}

fn as_line(terminal: &TerminalDetail) -> String {
    format!(
        "{:<24} {:<7} {:>9}  {:<8} {:<9} {}",
        terminal.id,
        terminal.area,
        terminal.elevator_id,
        if terminal.enabled { "on" } else { "off" },
        secret_state(terminal),
        terminal.created
    )
}

fn as_json(terminal: &TerminalDetail) -> serde_json::Value {
    let previous = terminal.credential.as_ref().and_then(|credential| credential.previous.as_ref());
    serde_json::json!({
        "terminal_id": terminal.id,
        "area": terminal.area,
        "elevator_id": terminal.elevator_id,
        "enabled": terminal.enabled,
        "profile": terminal.profile,
        "registered": terminal.created,
        "secret": secret_state(terminal),
        "secret_changed": terminal.credential_changed,
        "previous_secret_until": previous.map(|(_, until)| until),
    })
}
