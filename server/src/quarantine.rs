//! `liftwatch quarantine`: look at what could not be stored, and bring it back or drop it.

mod retry;

use anyhow::{bail, ensure};
use store::{Database, QuarantineFilter, QuarantineReason, QuarantineRecord};

use crate::cli::{QuarantineCommand, Which};
use crate::terminal::{actor, look, open, profiles};

/// Runs one of the commands.
pub(crate) async fn run(command: QuarantineCommand) -> anyhow::Result<()> {
    match command {
        QuarantineCommand::List { reason, terminal, since, limit, json, config } => {
            check_reason(reason.as_deref())?;
            let filter = QuarantineFilter { reason, terminal, since, ..QuarantineFilter::default() };
            let database = look(&config).await?;
            let entries = database.quarantine_list(&filter, i64::from(limit)).await?;
            for entry in &entries {
                match json {
                    true => println!("{}", serde_json::to_string(entry)?),
                    false => println!("{}", line(entry)),
                }
            }
            let more = database.quarantine_count(&filter).await? - entries.len() as i64;
            if more > 0 {
                eprintln!("and {more} older ones: see --limit");
            }
        }
        QuarantineCommand::Show { id, config } => {
            let filter = QuarantineFilter { ids: vec![id], ..QuarantineFilter::default() };
            let entries = look(&config).await?.quarantine_page(&filter, i64::MIN, id).await?;
            let Some(entry) = entries.first() else { bail!("there is no entry {id} in quarantine") };
            print!("{}", whole(entry));
        }
        QuarantineCommand::Retry { which, all, dry_run, config } => {
            ensure!(all || named(&which), "name entries, a --reason, or --all");
            check_reason(which.reason.as_deref())?;
            let profiles = profiles(&config)?;
            let database = if dry_run { look(&config).await? } else { open(&config).await? };
            check_ids(&database, &which.ids).await?;
            retry::run(&database, &profiles, &filter(which), dry_run).await?;
        }
        QuarantineCommand::Drop { which, older_than, yes, config } => {
            ensure!(named(&which), "name entries or a --reason");
            check_reason(which.reason.as_deref())?;
            let database = if yes { open(&config).await? } else { look(&config).await? };
            check_ids(&database, &which.ids).await?;
            let filter = QuarantineFilter { before: older_than, ..filter(which) };
            if !yes {
                let count = database.quarantine_count(&filter).await?;
                bail!("{count} entries would be dropped for good: add --yes");
            }
            let dropped = database.quarantine_drop(&filter, &actor()).await?;
            println!("dropped {dropped} entries; the audit log keeps their numbers");
        }
    }
    Ok(())
}

fn named(which: &Which) -> bool {
    !which.ids.is_empty() || which.reason.is_some()
}

fn filter(which: Which) -> QuarantineFilter {
    QuarantineFilter { ids: which.ids, reason: which.reason, ..QuarantineFilter::default() }
}

/// Nothing is done where one is named that is not there: it may be a slip.
async fn check_ids(database: &Database, ids: &[i64]) -> anyhow::Result<()> {
    let known = database.quarantine_known(ids).await?;
    let missing: Vec<String> = ids.iter().filter(|id| !known.contains(id)).map(i64::to_string).collect();
    ensure!(missing.is_empty(), "there is no entry {} in quarantine; nothing was done", missing.join(", "));
    Ok(())
}

fn check_reason(reason: Option<&str>) -> anyhow::Result<()> {
    let known = || QuarantineReason::ALL.iter().map(|reason| reason.slug());
    match reason {
        Some(reason) if !known().any(|slug| slug == reason) => {
            bail!("there is no reason {reason}: it is one of {}", known().collect::<Vec<_>>().join(", "))
        }
        _ => Ok(()),
    }
}

fn line(entry: &QuarantineRecord) -> String {
    let numbers = match (&entry.boot, &entry.numbers) {
        (Some(boot), Some(numbers)) => format!(" boot {boot} {numbers}"),
        _ => String::new(),
    };
    format!(
        "{:>8}  {}  {:<16} {:<24} {} ({} bytes{numbers}): {}",
        entry.id,
        entry.arrived,
        entry.reason,
        entry.terminal.escape_debug().to_string(),
        entry.topic.escape_debug(),
        entry.payload_len,
        entry.detail.escape_debug()
    )
}

fn whole(entry: &QuarantineRecord) -> String {
    let kept = if entry.is_whole() { "" } else { " (its first 4 KB are kept)" };
    format!(
        "{}\n\npayload, {} bytes{kept}:\n{}\n\nwhat can be done: {}\n",
        line(entry),
        entry.payload_len,
        payload(&entry.payload),
        way_out(entry)
    )
}

/// JSON as it is read best, other text as it is, bytes as a dump.
fn payload(bytes: &[u8]) -> String {
    if let Ok(value) = serde_json::from_slice::<serde_json::Value>(bytes) {
        return serde_json::to_string_pretty(&value).unwrap_or_default();
    }
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(|letter| letter.is_control() && letter != '\n') => text.to_owned(),
        _ => dump(bytes),
    }
}

fn dump(bytes: &[u8]) -> String {
    let row = |(index, row): (usize, &[u8])| {
        let hex: Vec<String> = row.iter().map(|byte| format!("{byte:02x}")).collect();
        let text: String =
            row.iter().map(|byte| if (32..127).contains(byte) { char::from(*byte) } else { '.' }).collect();
        format!("{:08x}  {:<47}  {text}", index * 16, hex.join(" "))
    };
    bytes.chunks(16).enumerate().map(row).collect::<Vec<_>>().join("\n")
}

/// Advice by reason.
fn way_out(entry: &QuarantineRecord) -> String {
    let id = entry.id;
    let retry = format!("liftwatch quarantine retry {id}");
    if !entry.is_whole() {
        return format!(
            "not all of it is kept, so it cannot be decoded again: liftwatch quarantine drop {id} --yes"
        );
    }
    match entry.reason.as_str() {
        "undecodable" => format!("correct the terminal's profile, then: {retry}"),
        "unknown_terminal" => {
            format!("register it (liftwatch terminal add {} --area AREA), then: {retry}", entry.terminal)
        }
        "unknown_topic" => format!("a version of Liftwatch that knows the topic can: {retry}"),
        "too_old" => format!("set retention.telemetry so that it reaches back so far, then: {retry}"),
        "future" => format!(
            "its device time lay ahead of its arrival and always will: set the terminal's clock, and \
             liftwatch quarantine drop {id} --yes"
        ),
        "key_conflict" => format!(
            "another row with its number and time is stored: compare them, and liftwatch quarantine drop {id} --yes"
        ),
        "too_many_boots" => format!(
            "its terminal restarts too often, or names a new boot with each message: mend it, and a day later: {retry}"
        ),
        "refused" if entry.topic.is_empty() => {
            "it is kept as text only: read it, mend the database, and enter it by hand".to_owned()
        }
        _ => format!("mend what the database refused, then: {retry}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_shown_as_they_are_read_best() {
        assert_eq!(payload(br#"{"a":1}"#), "{\n  \"a\": 1\n}");
        assert_eq!(payload(b"not JSON at all"), "not JSON at all");
        let text = payload(b"\x00\x01AB");
        assert!(text.starts_with("00000000  00 01 41 42 ") && text.ends_with("  ..AB"), "{text}");
    }

    #[test]
    fn reasons_are_checked() {
        assert!(check_reason(Some("too_old")).is_ok());
        assert!(check_reason(Some("to_old")).unwrap_err().to_string().contains("key_conflict"));
    }
}
