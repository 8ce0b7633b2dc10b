//! Records what a broker receives, as an integration client that subscribes to everything.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use domain::Timestamp;
use serde::Serialize;
use tokio::time::{Instant, interval_at};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::mqtt::subscriber::{Received, Subscriber};
use crate::mqtt::{LinkOptions, resolve};
use crate::recording::{Entry, Metadata, Recorder};

/// What is lost at most when the recorder itself is killed; also what each zstd frame spans.
const SEAL_EVERY: Duration = Duration::from_secs(1);
const RECONNECT_AFTER: Duration = Duration::from_secs(1);

/// What to record, and where to.
#[derive(Debug, Clone)]
pub struct RecordOptions {
    /// The broker, `host:port`.
    pub target: String,
    /// Subscription, `lift/v1/#` by default.
    pub filter: String,
    /// The file; must not exist.
    pub file: PathBuf,
    /// Client id, and user name where there is a password.
    pub client_id: String,
    /// Password.
    pub password: Option<String>,
}

impl RecordOptions {
    /// Everything from `target` into `file`.
    pub fn new(target: impl Into<String>, file: impl Into<PathBuf>) -> Self {
        Self {
            target: target.into(),
            filter: "lift/v1/#".into(),
            file: file.into(),
            client_id: format!("liftwatch-record-{}", std::process::id()),
            password: None,
        }
    }
}

/// How far a recording is, or was at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct RecordReport {
    /// Messages.
    pub messages: u64,
    /// Bytes of payload.
    pub payload_bytes: u64,
    /// Bytes in the file.
    pub file_bytes: u64,
    /// Times the connection was lost and found again.
    pub reconnects: u64,
}

impl std::fmt::Display for RecordReport {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { messages, payload_bytes, file_bytes, reconnects } = self;
        write!(out, "{messages} messages, {payload_bytes} bytes of payload in {file_bytes} bytes of file")?;
        if *reconnects > 0 { write!(out, ", {reconnects} reconnects") } else { Ok(()) }
    }
}

/// Records until `cancel`. `progress` is told once a second. A first connect that fails is an error; later
/// the broker is tried again for ever, and keeps what we miss in our session for an hour.
pub async fn record(
    options: &RecordOptions,
    mut progress: impl FnMut(&RecordReport),
    cancel: &CancellationToken,
) -> anyhow::Result<RecordReport> {
    let target = resolve(&options.target).await?;
    let link =
        LinkOptions { password: options.password.clone(), ..LinkOptions::new(target, &*options.client_id) };
    let clock = Clock::start();
    let mut subscriber = Subscriber::open(&link, &options.filter).await?;
    let metadata =
        Metadata { started: clock.now(), source: options.target.clone(), filter: options.filter.clone() };
    let file = || format!("cannot write {}", options.file.display());
    let mut recorder = Recorder::create(&options.file, &metadata).with_context(file)?;
    let mut report = RecordReport::default();
    let mut seal = interval_at(Instant::now() + SEAL_EVERY, SEAL_EVERY);
    loop {
        tokio::select! {
            received = subscriber.next() => match received {
                Ok((received, pkid)) => {
                    report.messages += 1;
                    report.payload_bytes += received.payload.len() as u64;
                    recorder.append(&entry(received, clock.now())).with_context(file)?;
                    subscriber.acknowledge(pkid);
                }
                Err(error) => {
                    tracing::warn!(%error, "the broker is gone, connecting again");
                    recorder.seal().with_context(file)?;
                    let Some(found) = reconnect(&link, &options.filter, cancel).await else { break };
                    (subscriber, report.reconnects) = (found, report.reconnects + 1);
                }
            },
            _ = seal.tick() => {
                recorder.seal().with_context(file)?;
                report.file_bytes = recorder.bytes();
                progress(&report);
            }
            () = cancel.cancelled() => {
                subscriber.close().await;
                break;
            }
        }
    }
    recorder.seal().with_context(file)?;
    report.file_bytes = recorder.bytes();
    recorder.finish().with_context(file)?.sync_all().with_context(file)?;
    Ok(report)
}

fn entry(received: Received, now: Timestamp) -> Entry {
    Entry {
        arrived: received.arrived_us.map_or(now, Timestamp::from_micros),
        topic: received.topic,
        qos: received.qos,
        retain: received.retain,
        payload: received.payload,
    }
}

/// `None` when cancelled.
async fn reconnect(link: &LinkOptions, filter: &str, cancel: &CancellationToken) -> Option<Subscriber> {
    loop {
        tokio::select! {
            () = tokio::time::sleep(RECONNECT_AFTER) => {}
            () = cancel.cancelled() => return None,
        }
        if let Ok(subscriber) = Subscriber::open(link, filter).await {
            return Some(subscriber);
        }
    }
}
