//! Who is there: what the gate saw, when away becomes offline, and what is still to be stored.
//!
//! Pure: time and changes come in as arguments. One entry for each terminal that has connected once, so no more
//! than the registry has; what is to be stored are names of entries, so that however often a terminal comes and
//! goes between two writes, its latest is written once.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use domain::{Area, ArrivalNo, PresenceState, TerminalId, Timestamp};
use store::{Database, PresenceRecord};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::IngestMetrics;

/// Terminals that become offline at once; the others of a great outage follow at the next tick.
const EXPIRED_MAX: usize = 10_000;
/// Rows of one statement.
const STORED_MAX: usize = 20_000;
/// Between two tries to store.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// A terminal came or went.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Change {
    pub(crate) online: bool,
    pub(crate) reason: &'static str,
    /// The server is stopping: the terminal was there to the last.
    pub(crate) stopping: bool,
    pub(crate) epoch: u64,
    pub(crate) at: Timestamp,
    pub(crate) heard: Timestamp,
}

/// A terminal became offline by the clock.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Expired {
    pub(crate) terminal_id: TerminalId,
    /// The rules take it for connected, because it was before the server started.
    pub(crate) untold: bool,
}

#[derive(Debug)]
struct Entry {
    record: PresenceRecord,
    /// The connection by which it came last; 0 where that was before the start.
    epoch: u64,
}

/// The presence of all terminals.
#[derive(Debug)]
pub(crate) struct Presences {
    offline_after: Duration,
    entries: HashMap<TerminalId, Entry>,
    /// Away, by the moment they become offline.
    away: BTreeSet<(Timestamp, TerminalId)>,
    unsaved: HashSet<TerminalId>,
}

impl Presences {
    /// Begins with what the store knows; nobody is connected yet.
    pub(crate) fn new(offline_after: Duration, known: Vec<PresenceRecord>) -> Self {
        let away = known.iter().filter(|record| !record.online);
        let away =
            away.map(|record| (record.since.plus(offline_after), record.terminal_id.clone())).collect();
        let entries =
            known.into_iter().map(|record| (record.terminal_id.clone(), Entry { record, epoch: 0 }));
        Self { offline_after, entries: entries.collect(), away, unsaved: HashSet::new() }
    }

    /// Takes a change. False: it says nothing about the present, because a newer connection has come since.
    pub(crate) fn change(&mut self, terminal_id: &TerminalId, change: Change, no: ArrivalNo) -> bool {
        let known = self.entries.get(terminal_id);
        let late = known.is_some_and(|entry| entry.epoch > change.epoch);
        if !change.online && late {
            return false;
        }
        if let Some(entry) = known {
            self.away.remove(&(entry.record.since.plus(self.offline_after), terminal_id.clone()));
        }
        let online = change.online || change.stopping;
        // A connection under way at a stop goes on being the one it was.
        let stays =
            known.filter(|_| change.stopping).map(|entry| (entry.record.since, entry.record.reason.clone()));
        let since = if change.online { change.at } else { change.heard };
        let (since, reason) = stays.unwrap_or((since, Cow::Borrowed(change.reason)));
        if !online {
            self.away.insert((since.plus(self.offline_after), terminal_id.clone()));
        }
        let record = PresenceRecord {
            terminal_id: terminal_id.clone(),
            online,
            reason,
            since,
            last_seen: change.heard,
            arrival_no: no,
        };
        self.entries.insert(terminal_id.clone(), Entry { record, epoch: change.epoch });
        self.unsaved.insert(terminal_id.clone());
        true
    }

    /// What is known of a terminal.
    pub(crate) fn get(&self, terminal_id: &TerminalId) -> Option<&PresenceRecord> {
        self.entries.get(terminal_id).map(|entry| &entry.record)
    }

    /// All of them, in no order.
    pub(crate) fn all(&self) -> impl Iterator<Item = &PresenceRecord> {
        self.entries.values().map(|entry| &entry.record)
    }

    /// Those that have become offline by now, each once; many at a time, not all.
    pub(crate) fn expire(&mut self, now: Timestamp) -> Vec<Expired> {
        let mut expired = Vec::new();
        while expired.len() < EXPIRED_MAX
            && let Some((at, _)) = self.away.first()
            && *at <= now
            && let Some((_, terminal_id)) = self.away.pop_first()
        {
            let untold = self.entries.get(&terminal_id).is_some_and(|entry| entry.epoch == 0);
            expired.push(Expired { terminal_id, untold });
        }
        expired
    }

    /// The latest of those that changed since they were last taken; many at a time, not all.
    pub(crate) fn take_unsaved(&mut self) -> Vec<PresenceRecord> {
        let taken: Vec<TerminalId> = if self.unsaved.len() <= STORED_MAX {
            self.unsaved.drain().collect()
        } else {
            self.unsaved.iter().take(STORED_MAX).cloned().collect()
        };
        for terminal_id in &taken {
            self.unsaved.remove(terminal_id);
        }
        taken.iter().filter_map(|terminal_id| self.get(terminal_id).cloned()).collect()
    }

    /// Whether something is to be stored.
    pub(crate) fn is_saved(&self) -> bool {
        self.unsaved.is_empty()
    }

    /// The topic and payload of a terminal's presence.
    pub(crate) fn message(&self, record: &PresenceRecord, area: Area, now: Timestamp) -> (String, String) {
        let state = record.state(now, self.offline_after);
        let time = if state == PresenceState::Offline {
            record.since.plus(self.offline_after)
        } else {
            record.since
        };
        let mut payload =
            serde_json::json!({ "state": state.as_str(), "time": time, "reason": record.reason });
        if let (false, Some(fields)) = (record.online, payload.as_object_mut()) {
            fields.insert("last_seen".to_owned(), record.last_seen.to_string().into());
        }
        (crate::presence_topic(area, &record.terminal_id), payload.to_string())
    }
}

/// Stores what it is given, trying until the store takes it; what changes meanwhile waits in [`Presences`].
pub(crate) async fn save(
    database: Database,
    mut batches: mpsc::Receiver<Vec<PresenceRecord>>,
    metrics: std::sync::Arc<IngestMetrics>,
    abandon: CancellationToken,
) {
    while let Some(batch) = batches.recv().await {
        loop {
            let Some(stored) =
                abandon.run_until_cancelled(database.in_time(database.presence_store(&batch))).await
            else {
                return;
            };
            match stored {
                Ok(()) => {
                    metrics.presence_stored.inc_by(batch.len() as u64);
                    break;
                }
                Err(error) if error.mendable() => {
                    tracing::debug!(error = %error, "presence is not stored yet");
                    if abandon.run_until_cancelled(tokio::time::sleep(STORE_PAUSE)).await.is_none() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::error!(error = %error, terminals = batch.len(), "presence cannot be stored");
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_millis(second * 1_000)
    }

    fn id(name: &str) -> TerminalId {
        TerminalId::new(name).unwrap()
    }

    fn change(online: bool, epoch: u64, second: i64) -> Change {
        let reason = if online { "connected" } else { "gone" };
        Change { online, reason, stopping: false, epoch, at: at(second), heard: at(second) }
    }

    fn presences(known: Vec<PresenceRecord>) -> Presences {
        Presences::new(Duration::from_mins(3), known)
    }

    fn message(presences: &Presences, second: i64) -> serde_json::Value {
        let (topic, payload) =
            presences.message(presences.get(&id("t1")).unwrap(), "350102".parse().unwrap(), at(second));
        assert_eq!(topic, "lift/v1/350102/t1/presence");
        serde_json::from_str(&payload).unwrap()
    }

    #[test]
    fn a_short_absence_is_never_offline() {
        let mut them = presences(vec![]);
        assert!(them.change(&id("t1"), change(true, 1, 100), ArrivalNo(1)));
        assert_eq!(message(&them, 500)["state"], "online");
        assert!(them.change(&id("t1"), change(false, 1, 500), ArrivalNo(2)));
        assert_eq!(message(&them, 679)["state"], "away");
        assert!(them.expire(at(679)).is_empty());
        assert!(them.change(&id("t1"), change(true, 2, 679), ArrivalNo(3)));
        assert!(them.expire(at(10_000)).is_empty(), "it is back");
    }

    #[test]
    fn offline_is_shown_180_s_after_the_last_sign_of_life() {
        let mut them = presences(vec![]);
        them.change(&id("t1"), change(true, 1, 100), ArrivalNo(1));
        // Keep-alive: the end of the connection comes 90 s after the last byte.
        let gone = Change { reason: "keep_alive", heard: at(410), ..change(false, 1, 500) };
        them.change(&id("t1"), gone, ArrivalNo(2));
        assert!(them.expire(at(589)).is_empty());
        let expired = Expired { terminal_id: id("t1"), untold: false };
        assert_eq!(them.expire(at(590)), [expired]);
        assert!(them.expire(at(10_000)).is_empty(), "told once");
        let shown = message(&them, 590);
        assert_eq!((&shown["state"], &shown["reason"]), (&"offline".into(), &"keep_alive".into()));
        assert_eq!(
            (&shown["time"], &shown["last_seen"]),
            (&at(590).to_string().into(), &at(410).to_string().into())
        );
    }

    #[test]
    fn the_end_of_an_old_connection_says_nothing() {
        let mut them = presences(vec![]);
        them.change(&id("t1"), change(true, 2, 100), ArrivalNo(1));
        assert!(!them.change(&id("t1"), change(false, 1, 101), ArrivalNo(2)));
        assert_eq!(message(&them, 900)["state"], "online");
    }

    #[test]
    fn a_stop_of_the_server_leaves_the_fleet_as_it_is() {
        let mut them = presences(vec![]);
        them.change(&id("t1"), change(true, 1, 100), ArrivalNo(1));
        them.change(
            &id("t1"),
            Change { stopping: true, reason: "stopping", ..change(false, 1, 700) },
            ArrivalNo(2),
        );
        let [saved] = them.take_unsaved().try_into().unwrap();
        assert_eq!(
            (saved.online, &*saved.reason, saved.since, saved.last_seen),
            (true, "connected", at(100), at(700))
        );
        assert!(them.is_saved() && them.expire(at(10_000)).is_empty());
    }

    #[test]
    fn who_does_not_come_back_after_a_start_becomes_offline_and_the_rules_are_told() {
        let known = |name: &str| PresenceRecord {
            terminal_id: id(name),
            online: false,
            reason: "server_restart".into(),
            since: at(1_000),
            last_seen: at(400),
            arrival_no: ArrivalNo(9),
        };
        let mut them = presences(vec![known("t1"), known("t2")]);
        assert_eq!((message(&them, 1_000)["state"].clone(), them.all().count()), ("away".into(), 2));
        them.change(&id("t2"), change(true, 1, 1_010), ArrivalNo(10));
        assert_eq!(them.expire(at(1_180)), [Expired { terminal_id: id("t1"), untold: true }]);
        assert_eq!(message(&them, 1_180)["reason"], "server_restart");
    }

    #[test]
    fn ten_thousand_reconnects_are_one_row_each() {
        let mut them = presences(vec![]);
        for epoch in 1..=3 {
            for terminal in 0..10_000 {
                let terminal_id = id(&format!("t{terminal}"));
                them.change(&terminal_id, change(false, epoch - 1, 1), ArrivalNo(1));
                them.change(&terminal_id, change(true, epoch, 1), ArrivalNo(2));
            }
        }
        let saved = them.take_unsaved();
        assert!(saved.len() == 10_000 && saved.iter().all(|record| record.online) && them.is_saved());
        assert!(them.away.is_empty());
    }
}
