//! Sends a recording again: each terminal over its own connection, in its own order, at any speed.
//!
//! Payloads are unchanged; only arrival times are new. What no terminal may publish (presence, downlinks) is
//! left out and counted. A terminal has at most [`LANE`] messages waiting; when they are full the whole
//! replay waits, so that terminals keep their order among each other within that.

mod publisher;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use domain::{TerminalId, Timestamp};
use serde::Serialize;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::fleet::counters::{Counters, Latencies, add};
use crate::fleet::{Counts, Percentiles};
use crate::mqtt::{ConnectError, LinkOptions, drive, resolve};
use crate::recording::{Entry, Recording, RecordingError};
use publisher::{Frame, Publisher};

/// Messages that wait for one terminal.
const LANE: usize = 64;
/// Entries read ahead of their time.
const AHEAD: usize = 1_024;

/// What to replay, where to, and how fast.
#[derive(Debug, Clone)]
pub struct ReplayOptions {
    /// The recording.
    pub file: PathBuf,
    /// The broker, `host:port`.
    pub target: String,
    /// 1 is as it was, 10 ten times as fast, 0 as fast as acknowledgements allow.
    pub speed: f64,
    /// Unacknowledged messages per terminal.
    pub window: usize,
    /// Passwords by terminal id.
    pub secrets: Arc<HashMap<String, String>>,
    /// How long to wait for acknowledgements at the end.
    pub drain: Duration,
}

impl ReplayOptions {
    /// At the recorded speed.
    pub fn new(file: impl Into<PathBuf>, target: impl Into<String>) -> Self {
        let drain = Duration::from_secs(30);
        let secrets = Arc::default();
        Self { file: file.into(), target: target.into(), speed: 1.0, window: 20, secrets, drain }
    }
}

/// How far a replay is, or was at its end.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ReplayReport {
    /// Messages read from the file.
    pub read: u64,
    /// Of these, not a terminal's to publish.
    pub skipped: u64,
    /// Terminals seen.
    pub terminals: usize,
    /// Counts of the connections.
    #[serde(flatten)]
    pub counts: Counts,
    /// Messages nobody acknowledged.
    pub unacked: u64,
    /// Length of the replay, s.
    pub elapsed_s: f64,
    /// The file ended in the middle of something.
    pub truncated: bool,
    /// From transmission to acknowledgement.
    pub acknowledge: Percentiles,
    /// Why the last connect failed, if one did.
    pub last_refusal: Option<String>,
}

impl std::fmt::Display for ReplayReport {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Counts { sent, acked, resent, reconnects, refused, .. } = self.counts;
        let (terminals, seconds) = (self.terminals, self.elapsed_s);
        writeln!(out, "replayed     {} messages of {terminals} terminals in {seconds:.1} s", self.read)?;
        writeln!(out, "skipped      {} that no terminal publishes", self.skipped)?;
        writeln!(
            out,
            "messages     {sent} sent, {acked} acknowledged, {resent} repetitions, {} unacknowledged",
            self.unacked
        )?;
        writeln!(out, "connections  {reconnects} reconnects, {refused} attempts failed")?;
        if let Some(refusal) = &self.last_refusal {
            writeln!(out, "             last failure: {refusal}")?;
        }
        write!(out, "acknowledge  {}", self.acknowledge)?;
        if self.truncated { write!(out, "\nthe recording is cut off at its end") } else { Ok(()) }
    }
}

#[derive(Debug)]
struct Shared {
    counters: Counters,
    latencies: Latencies,
    last_refusal: Mutex<Option<String>>,
    unacknowledged: AtomicU64,
}

impl Shared {
    fn note_refusal(&self, error: &ConnectError) {
        if let Ok(mut last) = self.last_refusal.lock() {
            *last = Some(error.to_string());
        }
    }
}

struct Lane {
    frames: mpsc::Sender<Frame>,
    wake: Arc<Notify>,
}

/// The terminal that published to this topic, if a terminal publishes there at all.
fn publisher_of(topic: &str) -> Option<TerminalId> {
    let mut levels = topic.split('/');
    let (root, version, _area) = (levels.next()?, levels.next()?, levels.next()?);
    let (terminal, kind) = (levels.next()?, levels.next()?);
    let kind = kind.strip_suffix(".json").unwrap_or(kind);
    let publishes = matches!(kind, "telemetry" | "event" | "stats") && levels.next().is_none();
    (root == "lift" && version == "v1" && publishes).then(|| TerminalId::new(terminal).ok())?
}

struct Replay<'a> {
    options: &'a ReplayOptions,
    target: SocketAddr,
    clock: Clock,
    shared: Arc<Shared>,
    lanes: HashMap<TerminalId, Lane>,
    tracker: TaskTracker,
    cancel: CancellationToken,
}

impl Replay<'_> {
    /// The terminal's lane; its connection is opened with its first message.
    fn lane(&mut self, terminal: &TerminalId) -> &Lane {
        let index = self.lanes.len();
        self.lanes.entry(terminal.clone()).or_insert_with(|| {
            let (sender, receiver) = mpsc::channel(LANE);
            let wake = Arc::new(Notify::new());
            let window = self.options.window.clamp(1, 32_000);
            let mut publisher = Publisher::new(index, receiver, window, Arc::clone(&self.shared));
            let options = LinkOptions {
                password: self.options.secrets.get(terminal.as_str()).cloned(),
                ..LinkOptions::new(self.target, terminal.as_str())
            };
            let (clock, woken, cancel) = (self.clock, Arc::clone(&wake), self.cancel.clone());
            let shared = Arc::clone(&self.shared);
            self.tracker.spawn(async move {
                drive(&mut publisher, &options, clock, &woken, &cancel).await;
                add(&shared.unacknowledged, publisher.unacknowledged());
            });
            Lane { frames: sender, wake }
        })
    }

    fn report(&self, read: u64, skipped: u64, begun: Instant) -> ReplayReport {
        ReplayReport {
            read,
            skipped,
            terminals: self.lanes.len(),
            counts: self.shared.counters.snapshot(),
            elapsed_s: begun.elapsed().as_secs_f64(),
            ..ReplayReport::default()
        }
    }
}

/// Reads the file on a thread of its own, at most [`AHEAD`] entries ahead.
fn read_ahead(
    mut recording: Recording<std::io::BufReader<std::fs::File>>,
) -> (mpsc::Receiver<Entry>, tokio::task::JoinHandle<Result<bool, RecordingError>>) {
    let (sender, receiver) = mpsc::channel(AHEAD);
    let reader = tokio::task::spawn_blocking(move || {
        for entry in recording.by_ref() {
            if sender.blocking_send(entry?).is_err() {
                break;
            }
        }
        Ok(recording.truncated())
    });
    (receiver, reader)
}

/// Replays a file until its end or `cancel`. `progress` is told about once a second.
pub async fn replay(
    options: &ReplayOptions,
    mut progress: impl FnMut(&ReplayReport),
    cancel: &CancellationToken,
) -> anyhow::Result<ReplayReport> {
    let file = || format!("cannot replay {}", options.file.display());
    anyhow::ensure!(options.speed.is_finite() && options.speed >= 0.0, "the speed must not be negative");
    let recording = Recording::open(&options.file).with_context(file)?;
    let mut replay = Replay {
        options,
        target: resolve(&options.target).await?,
        clock: Clock::start(),
        shared: Arc::new(Shared {
            counters: Counters::default(),
            latencies: Latencies::new(),
            last_refusal: Mutex::default(),
            unacknowledged: AtomicU64::new(0),
        }),
        lanes: HashMap::new(),
        tracker: TaskTracker::new(),
        cancel: CancellationToken::new(),
    };
    let (mut entries, reader) = read_ahead(recording);
    let (begun, mut told, mut first) = (Instant::now(), Instant::now(), None::<Timestamp>);
    let (mut read, mut skipped) = (0, 0);
    while let Some(entry) = tokio::select! {
        entry = entries.recv() => entry,
        () = cancel.cancelled() => None,
    } {
        read += 1;
        if told.elapsed() > Duration::from_secs(1) {
            progress(&replay.report(read, skipped, begun));
            told = Instant::now();
        }
        let Some(terminal) = publisher_of(&entry.topic) else {
            skipped += 1;
            continue;
        };
        let first = *first.get_or_insert(entry.arrived);
        if options.speed > 0.0 {
            let due = begun + entry.arrived.since(first).div_f64(options.speed);
            tokio::select! {
                () = tokio::time::sleep_until(due) => {}
                () = cancel.cancelled() => break,
            }
        }
        let Entry { topic, payload, qos, .. } = entry;
        let lane = replay.lane(&terminal);
        tokio::select! {
            // A lane ends only with the replay itself.
            _ = lane.frames.send(Frame { topic, payload, qos, sent_before: false }) => {}
            () = cancel.cancelled() => break,
        }
        lane.wake.notify_one();
    }
    drop(entries);
    let report = replay.report(read, skipped, begun);
    for (_, Lane { frames, wake }) in replay.lanes.drain() {
        drop(frames);
        wake.notify_one();
    }
    replay.tracker.close();
    if tokio::time::timeout(options.drain, replay.tracker.wait()).await.is_err() {
        replay.cancel.cancel();
        replay.tracker.wait().await;
    }
    let truncated = reader.await.context("the reader of the recording has failed")?.with_context(file)?;
    let (acknowledge, _) = replay.shared.latencies.summarize();
    Ok(ReplayReport {
        counts: replay.shared.counters.snapshot(),
        unacked: replay.shared.unacknowledged.load(Relaxed),
        elapsed_s: begun.elapsed().as_secs_f64(),
        truncated,
        acknowledge,
        last_refusal: replay.shared.last_refusal.lock().ok().and_then(|last| last.clone()),
        ..report
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_terminals_publish_is_replayed() {
        for topic in ["lift/v1/350102/t1/telemetry", "lift/v1/350102/t1/event.json"] {
            assert_eq!(publisher_of(topic).unwrap().as_str(), "t1", "{topic}");
        }
        for topic in [
            "lift/v1/350102/t1/presence",
            "lift/v1/350102/t1/down",
            "lift/v1/350102/t1/telemetry/x",
            "lift/v1/350102/t 1/telemetry",
            "lift/v2/350102/t1/telemetry",
            "other",
        ] {
            assert_eq!(publisher_of(topic), None, "{topic}");
        }
    }
}
