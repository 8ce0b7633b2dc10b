//! Where goes what cannot be decoded or stored: kept with its reason, so that its neighbours are stored and
//! its terminal is answered (promise 4).

mod desk;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::{ArrivalNo, BootId, TerminalId, Timestamp, limits};
use sha2::{Digest, Sha256};
use sqlx::postgres::PgConnection;

use crate::{Database, SeqRanges, StoreError};
pub use desk::{QuarantineFilter, QuarantineRecord, QuarantineRetried};

/// Why something is in quarantine. Stable: add, never rename.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum QuarantineReason {
    /// The payload is not what its topic says.
    Undecodable,
    /// The payload is larger than what is decoded.
    TooLarge,
    /// The topic is none of ours.
    UnknownTopic,
    /// The terminal is not registered, or switched off.
    UnknownTerminal,
    /// Device time lies before what is kept.
    TooOld,
    /// Device time is ahead of the server.
    Future,
    /// A row with the same key and other content is stored.
    KeyConflict,
    /// The database refuses the row: our decoding let something through.
    Refused,
    /// Its terminal has begun more boots within a day than are kept.
    TooManyBoots,
}

impl QuarantineReason {
    /// Every value.
    pub const ALL: &[Self] = &[
        Self::Undecodable,
        Self::TooLarge,
        Self::UnknownTopic,
        Self::UnknownTerminal,
        Self::TooOld,
        Self::Future,
        Self::KeyConflict,
        Self::Refused,
        Self::TooManyBoots,
    ];

    /// Its name everywhere: SQL, metrics, pages.
    pub const fn slug(self) -> &'static str {
        match self {
            Self::Undecodable => "undecodable",
            Self::TooLarge => "too_large",
            Self::UnknownTopic => "unknown_topic",
            Self::UnknownTerminal => "unknown_terminal",
            Self::TooOld => "too_old",
            Self::Future => "future",
            Self::KeyConflict => "key_conflict",
            Self::Refused => "refused",
            Self::TooManyBoots => "too_many_boots",
        }
    }
}

/// The sequence numbers of what is kept, so that they are accounted for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbered {
    /// Whose.
    pub terminal_id: TerminalId,
    /// Of which boot.
    pub boot: BootId,
    /// Which.
    pub numbers: SeqRanges,
}

/// One thing to be kept. Quarantined twice, it is one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantineEntry {
    /// Server clock at arrival.
    pub arrived: Timestamp,
    /// The message it was, or was part of.
    pub arrival_no: Option<ArrivalNo>,
    /// Its sequence numbers, where they are known.
    pub numbered: Option<Numbered>,
    /// Who sent it; empty where nobody can be named.
    pub terminal_id: String,
    /// Where to.
    pub topic: String,
    /// Why it is here.
    pub reason: QuarantineReason,
    /// More about why.
    pub detail: String,
    /// All of it, or the first [`limits::QUARANTINE_HEAD_BYTES`] of what is larger than is decoded. Shared, as the
    /// writer takes a copy of each entry.
    pub payload: Arc<[u8]>,
    /// SHA-256 of all of it.
    pub payload_sha256: [u8; 32],
    /// Bytes of all of it.
    pub payload_len: u64,
}

impl QuarantineEntry {
    const TEXT_BYTES_MAX: usize = 1024;

    /// Keeps no more of it than anything in quarantine may take.
    fn cut(&mut self) {
        self.payload = self.payload[..limits::QUARANTINE_HEAD_BYTES].into();
    }

    /// Keeps a payload that is wholly at hand.
    pub fn new(
        arrived: Timestamp,
        terminal_id: &str,
        topic: &str,
        reason: QuarantineReason,
        detail: impl Into<String>,
        payload: &[u8],
    ) -> Self {
        Self {
            arrived,
            arrival_no: None,
            numbered: None,
            terminal_id: terminal_id.to_owned(),
            topic: topic.to_owned(),
            reason,
            detail: detail.into(),
            payload: match payload.len() > limits::PAYLOAD_BYTES_MAX {
                true => payload[..limits::QUARANTINE_HEAD_BYTES].into(),
                false => payload.into(),
            },
            payload_sha256: Sha256::digest(payload).into(),
            payload_len: payload.len() as u64,
        }
    }

    /// As this message, or as part of it.
    #[must_use]
    pub fn arrived_as(self, arrival_no: ArrivalNo) -> Self {
        Self { arrival_no: Some(arrival_no), ..self }
    }

    /// With the sequence numbers it holds, if any is its terminal's own.
    #[must_use]
    pub fn numbered(self, terminal_id: &TerminalId, boot: BootId, numbers: SeqRanges) -> Self {
        let numbered = Numbered { terminal_id: terminal_id.clone(), boot, numbers };
        Self { numbered: Some(numbered).filter(|numbered| !numbered.numbers.is_empty()), ..self }
    }
}

/// Text that PostgreSQL takes: without NUL, and no longer than anyone would read.
fn storable(text: &str) -> String {
    let end = text.floor_char_boundary(QuarantineEntry::TEXT_BYTES_MAX);
    text[..end].replace('\0', "\u{fffd}")
}

/// As PostgreSQL writes an `int8multirange`.
fn multirange(numbers: &SeqRanges) -> String {
    let ranges: Vec<String> = numbers.as_slice().iter().map(|(from, to)| format!("[{from},{to}]")).collect();
    format!("{{{}}}", ranges.join(","))
}

/// Bytes of payloads in one statement.
const INSERT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// See [`limits::QUARANTINE_BYTES_PER_DAY_MAX`].
const DAY: Duration = Duration::from_hours(24);

/// How long a terminal that has too much is not asked about again.
const FULL_FOR: Duration = Duration::from_mins(1);
/// Terminals remembered as having too much; above, all are asked about again.
const FULL_MAX: usize = 10_000;

/// What of payloads is kept whole. Remembers who has too much, so that such a terminal costs the commits of its
/// neighbours nothing more.
#[derive(Debug, Default)]
pub(crate) struct Room {
    full: HashMap<String, Instant>,
}

impl Room {
    /// Cuts what is more than quarantine keeps whole of a terminal within a day. Asks the database only where something
    /// is large. Gives how many were cut.
    pub(crate) async fn cut(
        &mut self,
        connection: &mut PgConnection,
        entries: &mut [QuarantineEntry],
        now: Instant,
    ) -> Result<u64, sqlx::Error> {
        let newest = entries.iter().map(|entry| entry.arrived).max().unwrap_or_default();
        let mut large: Vec<(String, &mut QuarantineEntry)> = entries
            .iter_mut()
            .filter(|entry| entry.payload.len() > limits::QUARANTINE_HEAD_BYTES)
            .map(|entry| (storable(&entry.terminal_id), entry))
            .collect();
        self.full.retain(|_, until| now < *until);
        let asked: BTreeSet<&str> = large
            .iter()
            .map(|(terminal, _)| terminal.as_str())
            .filter(|terminal| !self.full.contains_key(*terminal))
            .collect();
        let mut kept = match asked.is_empty() {
            true => HashMap::new(),
            false => kept_whole(connection, &asked, newest.minus(DAY)).await?,
        };
        let mut cut = 0;
        for (terminal, entry) in &mut large {
            let sum = kept.entry(terminal.clone()).or_default();
            *sum += entry.payload.len() as u64;
            if *sum > limits::QUARANTINE_BYTES_PER_DAY_MAX || self.full.contains_key(terminal) {
                entry.cut();
                cut += 1;
                // Not prolonged by what comes meanwhile: asked again once a minute.
                self.full.entry(terminal.clone()).or_insert(now + FULL_FOR);
            }
        }
        if self.full.len() > FULL_MAX {
            self.full.clear();
        }
        Ok(cut)
    }
}

/// Bytes of payloads over 4 KB that are kept whole of these terminals and arrived since then. Some milliseconds for
/// one that has as many as are kept.
async fn kept_whole(
    connection: &mut PgConnection,
    terminals: &BTreeSet<&str>,
    since: Timestamp,
) -> Result<HashMap<String, u64>, sqlx::Error> {
    // What is longer than a cut payload is whole. The condition is that of the index `quarantine_whole`.
    let kept: Vec<(String, i64)> = sqlx::query_as(
        "SELECT terminal_id, sum(payload_len)::int8
         FROM quarantine
         WHERE terminal_id = ANY ($1)
           AND length(payload) > 4096
           AND arrived > $2
         GROUP BY terminal_id",
    )
    .bind(terminals.iter().copied().collect::<Vec<_>>())
    .bind(since.to_utc())
    .fetch_all(connection)
    .await?;
    Ok(kept.into_iter().map(|(terminal, bytes)| (terminal, bytes.unsigned_abs())).collect())
}

/// Stores them, a few megabytes in a statement; those that are there already add nothing but numbers that were not
/// known. Returns how many were new, or told more.
pub(crate) async fn quarantine_insert(
    connection: &mut PgConnection,
    entries: &[QuarantineEntry],
) -> Result<u64, sqlx::Error> {
    let (mut rest, mut stored) = (entries, 0);
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = |entry: &&QuarantineEntry| {
            bytes += entry.payload.len();
            bytes <= INSERT_BYTES_MAX
        };
        let (part, later) = rest.split_at(rest.iter().take_while(fits).count().max(1));
        stored += insert_part(&mut *connection, part).await?;
        rest = later;
    }
    Ok(stored)
}

async fn insert_part(connection: &mut PgConnection, entries: &[QuarantineEntry]) -> Result<u64, sqlx::Error> {
    let text = |of: fn(&QuarantineEntry) -> &str| -> Vec<String> {
        entries.iter().map(|entry| storable(of(entry))).collect()
    };
    let arrived: Vec<i64> = entries.iter().map(|entry| entry.arrived.micros()).collect();
    let len: Vec<i64> =
        entries.iter().map(|entry| i64::try_from(entry.payload_len).unwrap_or(i64::MAX)).collect();
    let sha256: Vec<&[u8]> = entries.iter().map(|entry| entry.payload_sha256.as_slice()).collect();
    let payload: Vec<&[u8]> = entries.iter().map(|entry| &*entry.payload).collect();
    let arrival_no: Vec<Option<i64>> =
        entries.iter().map(|entry| entry.arrival_no.map(|number| number.0)).collect();
    let boot: Vec<Option<i64>> = entries
        .iter()
        .map(|entry| entry.numbered.as_ref().map(|numbered| i64::from(numbered.boot.0)))
        .collect();
    let numbers: Vec<Option<String>> = entries
        .iter()
        .map(|entry| entry.numbered.as_ref().map(|numbered| multirange(&numbered.numbers)))
        .collect();
    let done = sqlx::query(
        "INSERT INTO quarantine
             (arrived, payload_len, terminal_id, topic, reason, detail, payload_sha256, payload, arrival_no, boot,
              numbers)
         SELECT DISTINCT ON (sha256, reason, terminal_id, topic)
                timestamptz 'epoch' + arrived * interval '1 microsecond', len, terminal_id, topic, reason, detail,
                sha256, payload, arrival_no, boot, numbers::int8multirange
         FROM unnest($1::int8[], $2::int8[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bytea[], $8::bytea[],
                     $9::int8[], $10::int8[], $11::text[])
              AS entry (arrived, len, terminal_id, topic, reason, detail, sha256, payload, arrival_no, boot, numbers)
         ORDER BY sha256, reason, terminal_id, topic, arrived
         ON CONFLICT (payload_sha256, reason, terminal_id, topic) DO UPDATE
         SET arrival_no = excluded.arrival_no, boot = excluded.boot, numbers = excluded.numbers
         WHERE quarantine.numbers IS NULL
           AND excluded.numbers IS NOT NULL",
    )
    .bind(arrived)
    .bind(len)
    .bind(text(|entry| &entry.terminal_id))
    .bind(text(|entry| &entry.topic))
    .bind(text(|entry| entry.reason.slug()))
    .bind(text(|entry| &entry.detail))
    .bind(sha256)
    .bind(payload)
    .bind(arrival_no)
    .bind(boot)
    .bind(numbers)
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

impl Database {
    /// Quarantined entries by reason, the most frequent first.
    pub async fn quarantine_counts(&self) -> Result<Vec<(String, i64)>, StoreError> {
        Ok(sqlx::query_as(
            "SELECT reason, count(*)
             FROM quarantine
             GROUP BY reason
             ORDER BY count(*) DESC, reason",
        )
        .fetch_all(self.pool())
        .await?)
    }
}
