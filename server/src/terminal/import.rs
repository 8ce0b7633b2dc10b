//! `liftwatch terminal import`: a file of terminals, registered all or none.

use std::collections::HashMap;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use domain::{Area, DeviceKind, ElevatorId, TerminalId};
use indicatif::ProgressBar;
use ingest::Profiles;
use serde::Deserialize;
use store::{AccessError, NewTerminal};

use super::{actor, check, ensure_free, explained, open};
use crate::auth::secret::{self, Strength};
use crate::cli::ConfigArgs;
use crate::profile;

/// Faults of a file that are told at once.
const FAULTS_MAX: usize = 20;
/// Hashed by a thread before it looks for more.
const CHUNK: usize = 64;

/// What to do with secrets.
pub(super) struct Plan {
    pub(super) out: Option<PathBuf>,
    pub(super) no_secret: bool,
    /// Of the secrets in the file.
    pub(super) given: Strength,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    terminal_id: String,
    area: String,
    elevator: Option<String>,
    secret: Option<String>,
    profile: Option<String>,
    kind: Option<String>,
}

/// A row that may be registered as far as the file tells.
#[derive(Debug, PartialEq)]
struct Row {
    line: u64,
    id: TerminalId,
    area: Area,
    elevator: Option<ElevatorId>,
    secret: Option<String>,
    profile: Option<String>,
    kind: Option<DeviceKind>,
}

pub(super) async fn run(
    path: &Path,
    plan: Plan,
    profiles: &Profiles,
    config: &ConfigArgs,
) -> anyhow::Result<()> {
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let rows = read(&text, profiles)
        .map_err(|faults| anyhow::anyhow!("{}: nothing is imported\n{faults}", path.display()))?;
    ensure!(!rows.is_empty(), "{} names no terminal", path.display());
    let without = rows.iter().filter(|row| row.secret.is_none()).count();
    if without > 0 && !plan.no_secret && plan.out.is_none() {
        bail!(
            "{without} terminals have no secret in the file: name a file for those that are made up (--out FILE), \
             or let them connect by certificate (--no-secret)"
        );
    }
    let lines: HashMap<String, u64> = rows.iter().map(|row| (row.id.as_str().to_owned(), row.line)).collect();
    let database = open(config).await?;
    let count = rows.len();
    let (new, made_up) = tokio::task::spawn_blocking({
        let (given, make_up) = (plan.given, !plan.no_secret);
        move || hash(rows, given, make_up)
    })
    .await??;
    // Before the commit: a secret that is in force and nowhere written down helps nobody.
    let out = plan.out.as_deref().filter(|_| !made_up.is_empty());
    if let Some(out) = out {
        write(out, &made_up).with_context(|| format!("cannot write {}", out.display()))?;
    }
    if let Err(error) = database.terminal_add(&new, &actor()).await {
        if let Some(out) = out {
            let _ = std::fs::remove_file(out);
        }
        return Err(with_lines(error, &lines).context("nothing is imported"));
    }
    eprintln!("{count} terminals are registered");
    if let Some(out) = out {
        eprintln!("{} secrets were made up: {}", made_up.len(), out.display());
    }
    Ok(())
}

/// The rows, or what is wrong with them line by line.
fn read(text: &[u8], profiles: &Profiles) -> Result<Vec<Row>, String> {
    let mut lines = Lines { text, at: 0, line: 1 };
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text);
    let columns = reader.headers().map_err(|error| format!("line 1: {error}"))?.clone();
    let known = ["terminal_id", "area", "elevator", "secret", "profile", "kind"];
    if let Some(column) = columns.iter().find(|column| !known.contains(column)) {
        return Err(format!("line 1: unknown column '{column}': those known are {}", known.join(", ")));
    }
    if let Some(column) = known[..2].iter().find(|column| !columns.iter().any(|found| found == **column)) {
        return Err(format!("line 1: there is no column '{column}': the first line names the columns"));
    }
    let (mut rows, mut faults) = (Vec::new(), Vec::new());
    let mut seen: HashMap<TerminalId, u64> = HashMap::new();
    for record in reader.records() {
        let row =
            record.map_err(|error| (lines.at(error.position()), error.to_string())).and_then(|record| {
                let line = lines.at(record.position());
                let named = record.deserialize::<Record>(Some(&columns));
                named
                    .map_err(|error| error.to_string())
                    .and_then(|named| parse(named, line, profiles))
                    .map_err(|why| (line, why))
            });
        match row {
            Ok(row) => match seen.insert(row.id.clone(), row.line) {
                Some(first) => faults.push((row.line, format!("{} stands in line {first} already", row.id))),
                None => rows.push(row),
            },
            Err(fault) => faults.push(fault),
        }
    }
    if faults.is_empty() {
        return Ok(rows);
    }
    let mut told: Vec<String> =
        faults.iter().take(FAULTS_MAX).map(|(line, why)| format!("line {line}: {why}")).collect();
    if faults.len() > FAULTS_MAX {
        told.push(format!("and {} lines more", faults.len() - FAULTS_MAX));
    }
    Err(told.join("\n"))
}

/// Counts lines up to a place; places only grow. The reader's own count stops before empty lines.
struct Lines<'a> {
    text: &'a [u8],
    at: usize,
    line: u64,
}

impl Lines<'_> {
    fn at(&mut self, position: Option<&csv::Position>) -> u64 {
        let place = position.map_or(self.at, |position| position.byte() as usize).min(self.text.len());
        let empty = self.text[place..].iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let place = (place + empty).max(self.at);
        self.line += self.text[self.at..place].split(|byte| *byte == b'\n').skip(1).count() as u64;
        self.at = place;
        self.line
    }
}

fn parse(record: Record, line: u64, profiles: &Profiles) -> Result<Row, String> {
    let id = TerminalId::new(&record.terminal_id).map_err(|error| format!("terminal_id: {error}"))?;
    ensure_free(&id).map_err(|error| error.to_string())?;
    let area = record.area.parse().map_err(|error| format!("area '{}': {error}", record.area))?;
    let elevator = match record.elevator.as_deref() {
        None | Some("") => None,
        Some(number) => {
            Some(ElevatorId(number.parse().map_err(|_| format!("elevator '{number}' is no number"))?))
        }
    };
    let secret = record.secret.filter(|secret| !secret.is_empty());
    if let Some(secret) = &secret {
        check(secret.as_bytes()).map_err(|error| error.to_string())?;
    }
    let profile = record.profile.filter(|name| !name.is_empty());
    let kind = match record.kind.as_deref() {
        None | Some("") => None,
        Some(_) if elevator.is_some() => return Err("kind: the elevator has its kind already".to_owned()),
        Some(kind) => Some(kind.parse().map_err(|_| format!("kind '{kind}' is none of those known"))?),
    };
    let kind = profile::fitting(profiles, profile.as_deref(), kind).map_err(|error| error.to_string())?;
    Ok(Row { line, id, area, elevator, secret, profile, kind })
}

/// Terminals to register, and the secrets that were made up, by id.
type Hashed = (Vec<NewTerminal>, Vec<(String, String)>);

/// Hashes every secret, making up those that are missing; answers what was made up. Blocks, on all cores.
fn hash(rows: Vec<Row>, given: Strength, make_up: bool) -> anyhow::Result<Hashed> {
    let progress = ProgressBar::new(rows.len() as u64);
    let one = |row: &Row| -> anyhow::Result<(NewTerminal, Option<String>)> {
        let made_up = (row.secret.is_none() && make_up).then(secret::generate);
        let hash = match (&row.secret, &made_up) {
            (Some(secret), _) => Some(secret::hash(secret.as_bytes(), given)?),
            (None, Some(secret)) => Some(secret::hash(secret.as_bytes(), Strength::Generated)?),
            (None, None) => None,
        };
        progress.inc(1);
        let (area, elevator, kind) = (row.area, row.elevator, row.kind);
        let (id, profile) = (row.id.clone(), row.profile.clone());
        Ok((NewTerminal { id, area, elevator, hash, profile, kind }, made_up))
    };
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let share = rows.len().div_ceil(cores).max(CHUNK);
    let parts = std::thread::scope(|scope| {
        let threads: Vec<_> = rows
            .chunks(share)
            .map(|part| scope.spawn(|| part.iter().map(one).collect::<anyhow::Result<Vec<_>>>()))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow::anyhow!("hashing failed"))?)
            .collect::<anyhow::Result<Vec<_>>>()
    })?;
    progress.finish_and_clear();
    let (mut new, mut secrets) = (Vec::with_capacity(rows.len()), Vec::new());
    for (terminal, made_up) in parts.into_iter().flatten() {
        secrets.extend(made_up.map(|secret| (terminal.id.as_str().to_owned(), secret)));
        new.push(terminal);
    }
    Ok((new, secrets))
}

/// Secrets into a new file that only its owner reads, on disk before this returns.
fn write(path: &Path, secrets: &[(String, String)]) -> anyhow::Result<()> {
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let mut out = csv::Writer::from_writer(file);
    out.write_record(["terminal_id", "secret"])?;
    for (id, secret) in secrets {
        out.write_record([id, secret])?;
    }
    let mut file = out.into_inner().map_err(|error| anyhow::anyhow!("{error}"))?;
    file.flush()?;
    Ok(file.sync_all()?)
}

/// A refusal of the store, with the lines it is about.
fn with_lines(error: AccessError, lines: &HashMap<String, u64>) -> anyhow::Error {
    let AccessError::TerminalExists(ids) = &error else { return explained(error, "registry") };
    let mut told: Vec<String> = ids
        .iter()
        .take(FAULTS_MAX)
        .map(|id| format!("line {}: {id} is registered already", lines.get(id).copied().unwrap_or_default()))
        .collect();
    if ids.len() > FAULTS_MAX {
        told.push(format!("and {} lines more", ids.len() - FAULTS_MAX));
    }
    anyhow::anyhow!("{}", told.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> String {
        table(text).unwrap_err()
    }

    fn table(text: &str) -> Result<Vec<Row>, String> {
        read(text.as_bytes(), Profiles::shipped())
    }

    #[test]
    fn profiles_and_kinds_are_known_ones_that_fit() {
        let rows =
            table("terminal_id,area,profile,kind\nt1,350102,exchange,walk\nt2,350102,bacnet_escalator,\n");
        let rows = rows.unwrap();
        assert_eq!((rows[0].profile.as_deref(), rows[0].kind), (Some("exchange"), Some(DeviceKind::Walk)));
        assert_eq!(rows[1].kind, Some(DeviceKind::Escalator), "the kind its profile speaks for");
        let told = faults("terminal_id,area,profile\nt1,350102,exchagne\n");
        assert!(
            told.starts_with("line 2: there is no profile 'exchagne'") && told.contains("exchange"),
            "{told}"
        );
        let told = faults("terminal_id,area,profile,kind\nt1,350102,bacnet_lift,escalator\n");
        assert!(told.contains("does not speak for"), "{told}");
    }

    #[test]
    fn columns_stand_in_any_order() {
        let rows = table("area,secret,terminal_id\n350102,\"a, long one\",t1\n\n350102,,t2\n").unwrap();
        assert_eq!((rows[0].id.as_str(), rows[0].secret.as_deref()), ("t1", Some("a, long one")));
        assert_eq!((rows[1].line, rows[1].secret.as_deref()), (4, None));
        let rows = table("terminal_id,area,elevator\nt1,350102,7\nt2,350102,\n").unwrap();
        assert_eq!((rows[0].elevator, rows[1].elevator), (Some(ElevatorId(7)), None));
    }

    #[test]
    fn faults_have_lines() {
        let told =
            faults("terminal_id,area\nt1,350102\nt/2,350102\nt3,35\nt1,350102\nanonymous-1,350102\nt4\n");
        let lines: Vec<&str> = told.lines().collect();
        assert!(lines[0].starts_with("line 3: terminal_id: "), "{told}");
        assert!(lines[1].starts_with("line 4: area '35': "), "{told}");
        assert_eq!(lines[2], "line 5: t1 stands in line 2 already");
        assert!(lines[3].starts_with("line 6: ids that begin with 'anonymous-'"), "{told}");
        assert!(lines[4].starts_with("line 7: ") || lines[4].contains("line: 7"), "{told}");
        assert!(faults("terminal_id,area,secret\nt1,350102,short\n").contains("8 to 1024 bytes"));
    }

    #[test]
    fn columns_are_named() {
        assert!(faults("terminal_id,aera\n").contains("unknown column 'aera'"));
        assert!(faults("terminal_id\n").contains("no column 'area'"));
        let many = format!("terminal_id,area\n{}", "x/y,1\n".repeat(30));
        assert!(faults(&many).ends_with("and 10 lines more"));
    }

    #[test]
    fn every_terminal_gets_the_secret_it_needs() {
        let rows = || table("terminal_id,area,secret\nt1,350102,\nt2,350102,long enough\n").unwrap();
        let (new, made_up) = hash(rows(), Strength::Generated, true).unwrap();
        let ((id, made), ids) = (&made_up[0], new.iter().map(|one| one.id.as_str()).collect::<Vec<_>>());
        assert_eq!((id.as_str(), ids), ("t1", vec!["t1", "t2"]));
        assert!(secret::verify(new[0].hash.as_deref().unwrap(), made.as_bytes()));
        assert!(secret::verify(new[1].hash.as_deref().unwrap(), b"long enough"));
        let (new, made_up) = hash(rows(), Strength::Generated, false).unwrap();
        assert_eq!((new[0].hash.as_deref(), made_up.len()), (None, 0));
    }
}
