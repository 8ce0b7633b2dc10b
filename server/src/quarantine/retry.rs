//! Entries decoded again and stored.
//!
//! An entry leaves quarantine after its rows are committed: a crash between leaves it in both places, and the
//! next try finds its rows there already. Rows keep their time and number of arrival. The rules see nothing of
//! it. Works beside a running server: numbers of sources and keys of rows belong to the database.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use domain::limits::{Admission, admit};
use domain::{Arrival, ArrivalNo, Message, Timestamp};
use ingest::{Decoded, ProfileView, Profiles, decode, decode_open};
use store::{
    CommitReport, Database, Incoming, Item, Ledger, LedgerMetrics, QuarantineFilter, QuarantineReason,
    QuarantineRecord, QuarantineRetried, Registry, StoreMetrics, TerminalRecord, Writer, message_numbers,
};

use crate::terminal::{actor, moment};

/// What became of an entry.
enum Fate {
    /// Its rows are stored, and it is gone; so many of them went to quarantine by themselves.
    Stored { apart: u64 },
    /// It is one row, which is in quarantine for this reason now; the entry is gone.
    Moved(QuarantineReason),
    /// It stays.
    Kept(String),
}

/// Retries all that `filter` names.
pub(super) async fn run(
    database: &Database,
    profiles: &Profiles,
    filter: &QuarantineFilter,
    dry_run: bool,
) -> anyhow::Result<()> {
    let registry = Registry::load(database).await?;
    let (mut stored, mut kept) = (0_u64, BTreeMap::<String, u64>::new());
    // What goes into quarantine by itself meanwhile is not tried once more.
    let newest = database.quarantine_last().await?.unwrap_or(i64::MIN);
    let mut after = i64::MIN;
    loop {
        // The oldest first: of two rows with one key, the one that came first is stored.
        let entries = database.quarantine_page(filter, after, newest).await?;
        let Some(last) = entries.last() else { break };
        after = last.id;
        let fates = page(database, &registry, profiles, &entries, dry_run).await?;
        for (entry, fate) in entries.iter().zip(fates) {
            match fate {
                Fate::Stored { apart } => {
                    stored += 1;
                    if apart > 0 {
                        println!(
                            "{}: stored; {apart} of its rows went to quarantine by themselves",
                            entry.id
                        );
                    }
                }
                Fate::Moved(reason) => {
                    println!("{}: stays: it is now {}", entry.id, reason.slug());
                    *kept.entry(reason.slug().to_owned()).or_default() += 1;
                }
                Fate::Kept(why) => {
                    println!("{}: stays: {why}", entry.id);
                    *kept.entry(entry.reason.clone()).or_default() += 1;
                }
            }
        }
    }
    let kept: Vec<String> = kept.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    let stay = if kept.is_empty() { "none stays".to_owned() } else { format!("stay: {}", kept.join(", ")) };
    match dry_run {
        true => println!("{stored} would be stored; {stay}"),
        false => println!("{stored} stored; {stay}. The rules do not see them."),
    }
    Ok(())
}

async fn page(
    database: &Database,
    registry: &Registry,
    profiles: &Profiles,
    entries: &[QuarantineRecord],
    dry_run: bool,
) -> anyhow::Result<Vec<Fate>> {
    let mut ledger = Ledger::new(database, ArrivalNo(0), Arc::new(LedgerMetrics::default()));
    let mut writer =
        Writer::new(database, Arc::new(StoreMetrics::default())).with_ledger(ledger.notes()).of_the_past();
    let mut fates = Vec::with_capacity(entries.len());
    let mut gone = Vec::new();
    for entry in entries {
        let (incoming, refused) = match incoming(registry, profiles, entry) {
            Ok(read) => read,
            Err(why) => {
                fates.push(Fate::Kept(why));
                continue;
            }
        };
        if dry_run {
            let fate = || foreseen(database, entry, &incoming.message);
            fates.push(refused.map_or_else(fate, Fate::Kept));
            continue;
        }
        let (boot, numbers) = (incoming.message.boot(), message_numbers(&incoming.message));
        let fate = match writer.commit(&[Item::Message(incoming)]).await {
            // What can be taken of it is stored, if it was not; what cannot keeps it here.
            Ok(report) => refused.map_or_else(|| became(entry, &report), Fate::Kept),
            Err(error) if error.mendable() => return Err(error.into()),
            Err(error) => Fate::Kept(error.brief()),
        };
        if !matches!(fate, Fate::Kept(_)) {
            gone.push(QuarantineRetried { id: entry.id, boot, numbers });
        }
        fates.push(fate);
    }
    drop(writer);
    if dry_run {
        return Ok(fates);
    }
    ledger.add().await?;
    database.quarantine_retried(&gone, &actor(), moment()).await?;
    Ok(fates)
}

fn became(entry: &QuarantineRecord, report: &CommitReport) -> Fate {
    match report.quarantined_as.filter(|_| is_row(entry)) {
        None => Fate::Stored { apart: report.quarantined },
        // One row by itself that is refused as before is the same entry again.
        Some(reason) if reason.slug() == entry.reason => Fate::Kept(format!("it is still {}", entry.reason)),
        Some(reason) => Fate::Moved(reason),
    }
}

/// What would become of an entry, as far as that can be told without trying.
fn foreseen(database: &Database, entry: &QuarantineRecord, message: &Message) -> Fate {
    if entry.reason == QuarantineReason::KeyConflict.slug() {
        return Fate::Kept("a row with its key and other content is stored".to_owned());
    }
    if entry.reason == QuarantineReason::TooManyBoots.slug() {
        return Fate::Kept(
            "whether its terminal may begin a boot today cannot be told without trying".to_owned(),
        );
    }
    let retention = database.config().retention.admitted();
    let apart = times(message)
        .filter(|time| admit(*time, entry.arrived, retention) != Admission::Stored)
        .count() as u64;
    match is_row(entry) && apart > 0 {
        true => Fate::Kept(format!("it is still {}", entry.reason)),
        false => Fate::Stored { apart },
    }
}

fn times(message: &Message) -> Box<dyn Iterator<Item = Timestamp> + '_> {
    match message {
        Message::Telemetry(batch) => Box::new(batch.readings.iter().map(|reading| reading.time)),
        Message::Event(batch) => Box::new(batch.events.iter().map(|event| event.time)),
        Message::Statistics(statistics) => Box::new(std::iter::once(statistics.time)),
    }
}

/// Earlier versions wrote down the number of statistics that had none: it is derived again.
fn without_derived(payload: &[u8]) -> Cow<'_, [u8]> {
    match serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(payload) {
        Ok(mut fields)
            if fields.get("seq").and_then(serde_json::Value::as_i64).is_some_and(|seq| seq < 0) =>
        {
            fields.remove("seq");
            serde_json::to_vec(&fields).map_or(payload.into(), Cow::Owned)
        }
        _ => payload.into(),
    }
}

/// A row of a message that is stored otherwise, written in the open JSON by the store.
fn is_row(entry: &QuarantineRecord) -> bool {
    row_channel(entry).is_some()
}

fn row_channel(entry: &QuarantineRecord) -> Option<&'static str> {
    match entry.topic.as_str() {
        "telemetry" => Some("telemetry"),
        "event" => Some("event"),
        "stats" => Some("stats"),
        _ => None,
    }
}

/// The message it is, with its arrival, and what of it is refused; or why it cannot be read.
fn incoming(
    registry: &Registry,
    profiles: &Profiles,
    entry: &QuarantineRecord,
) -> Result<(Incoming, Option<String>), String> {
    if !entry.is_whole() {
        return Err(format!("only {} of its {} bytes are kept", entry.payload_kept, entry.payload_len));
    }
    if entry.topic.is_empty() {
        return Err("it is kept as text only".to_owned());
    }
    let terminal_id = domain::TerminalId::new(&entry.terminal).map_err(|error| error.to_string())?;
    let terminal = registry.lookup(&entry.terminal).ok_or("its terminal is not in the registry")?;
    if !terminal.enabled {
        return Err("its terminal is switched off".to_owned());
    }
    let decoded = decoded(entry, &terminal, profiles)?;
    let refused = decoded.refusal().map(|refusal| refusal.detail);
    // An entry from before arrivals were kept gets a number of its own below all runs.
    let no = entry.arrival_no.unwrap_or(ArrivalNo(entry.id));
    let arrival = Arrival { no, at: entry.arrived };
    let message = Arc::new(decoded.message);
    Ok((Incoming { elevator_id: terminal.elevator_id, terminal_id, arrival, message }, refused))
}

fn decoded(
    entry: &QuarantineRecord,
    terminal: &TerminalRecord,
    profiles: &Profiles,
) -> Result<Decoded, String> {
    let profile = profiles.get(&terminal.profile).unwrap_or_else(|| profiles.canonical());
    let view = ProfileView { profile, kind: terminal.device_kind };
    let decoded = match row_channel(entry) {
        Some(channel) => {
            let topic = format!("lift/v1/{}/{}/{channel}.json", terminal.area, entry.terminal);
            decode_open(&topic, &without_derived(&entry.payload), view)
        }
        None => decode(&entry.topic, &entry.payload, view),
    };
    let decoded = decoded.map_err(|error| error.detail)?;
    if decoded.topic.terminal_id.as_str() != entry.terminal {
        return Err("its topic is that of another terminal".to_owned());
    }
    Ok(decoded)
}
