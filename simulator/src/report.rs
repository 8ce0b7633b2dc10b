//! What a fleet counts, and its report.

use std::fmt;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::TerminalId;
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::fault::Truth;
use crate::terminal::Kind;

/// A snapshot of what a fleet has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Counters {
    /// Connections up now.
    pub connected: u64,
    /// Readings sent, each counted at its first transmission.
    pub readings_sent: u64,
    /// Messages sent, repetitions included.
    pub messages_sent: u64,
    /// Messages acknowledged.
    pub messages_acked: u64,
    /// Distinct readings and events acknowledged.
    pub readings_acked: u64,
    /// Messages that carried something sent before.
    pub resent: u64,
    /// Connections made after the first one of a terminal.
    pub reconnects: u64,
    /// Readings and events in outboxes now.
    pub unacked: u64,
    /// Readings and events discarded because an outbox was full.
    pub dropped: u64,
}

/// The atomics behind [`Counters`].
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) connected: AtomicI64,
    pub(crate) readings_sent: AtomicU64,
    pub(crate) messages_sent: AtomicU64,
    pub(crate) messages_acked: AtomicU64,
    pub(crate) readings_acked: AtomicU64,
    pub(crate) resent: AtomicU64,
    pub(crate) reconnects: AtomicU64,
    pub(crate) unacked: AtomicI64,
    pub(crate) dropped: AtomicU64,
}

impl Tally {
    pub(crate) fn snapshot(&self) -> Counters {
        let count = |value: &AtomicU64| value.load(Ordering::Relaxed);
        let gauge = |value: &AtomicI64| value.load(Ordering::Relaxed).max(0).cast_unsigned();
        Counters {
            connected: gauge(&self.connected),
            readings_sent: count(&self.readings_sent),
            messages_sent: count(&self.messages_sent),
            messages_acked: count(&self.messages_acked),
            readings_acked: count(&self.readings_acked),
            resent: count(&self.resent),
            reconnects: count(&self.reconnects),
            unacked: gauge(&self.unacked),
            dropped: count(&self.dropped),
        }
    }
}

/// One acknowledged message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Acked {
    /// Who sent it.
    pub terminal_id: TerminalId,
    /// Its boot.
    pub boot: u32,
    /// First sequence number.
    pub first_seq: i64,
    /// Last sequence number.
    pub last_seq: i64,
    /// Readings or events.
    pub kind: Kind,
}

/// Where acknowledged messages are written down. A terminal that acknowledges waits for the lock, so that
/// the memory needed is that of one write buffer.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) file: Option<BufWriter<File>>,
    pub(crate) kept: Option<Vec<Acked>>,
    pub(crate) failed: Option<std::io::Error>,
}

impl Ledger {
    pub(crate) fn note(&mut self, acked: Acked) {
        if let Some(file) = &mut self.file {
            let Acked { terminal_id, boot, first_seq, last_seq, kind } = &acked;
            let wrote = writeln!(file, "{terminal_id},{boot},{first_seq},{last_seq},{}", kind.name());
            if let Err(error) = wrote {
                self.failed.get_or_insert(error);
            }
        }
        if let Some(kept) = &mut self.kept {
            kept.push(acked);
        }
    }

    pub(crate) fn flush(&mut self) -> std::io::Result<()> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        self.file.as_mut().map_or(Ok(()), Write::flush)
    }
}

/// A lock whose holders never leave half-done work behind.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From write to PUBACK, ms.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Latency {
    /// Median.
    pub p50: f64,
    /// 90 of 100 are faster.
    pub p90: f64,
    /// 99 of 100 are faster.
    pub p99: f64,
    /// 999 of 1,000 are faster.
    pub p99_9: f64,
    /// The slowest.
    pub max: f64,
}

impl Latency {
    pub(crate) fn of(micros: &Histogram<u64>) -> Self {
        let at = |quantile| micros.value_at_quantile(quantile) as f64 / 1000.0;
        Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            max: micros.max() as f64 / 1000.0,
        }
    }
}

/// What a fleet did from start to stop.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FleetReport {
    /// Terminals in the fleet.
    pub terminals: u32,
    /// All counts, at the end.
    #[serde(flatten)]
    pub counters: Counters,
    /// From start to the begin of stop.
    pub seconds: f64,
    /// Readings and events acknowledged per second, drain included.
    pub acked_per_second: f64,
    /// PUBACK latency.
    pub puback_ms: Latency,
    /// Faults injected that began.
    pub truth: Vec<Truth>,
    /// Every acknowledged message, if the configuration asked to keep them.
    #[serde(skip)]
    pub acked: Vec<Acked>,
}

impl FleetReport {
    pub(crate) fn rate(acked: u64, lasted: Duration) -> f64 {
        if lasted.is_zero() { 0.0 } else { acked as f64 / lasted.as_secs_f64() }
    }
}

impl fmt::Display for FleetReport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { terminals, counters, seconds, acked_per_second, puback_ms, truth, .. } = self;
        writeln!(out, "terminals      {terminals}, {seconds:.1} s")?;
        writeln!(
            out,
            "sent           {} readings, {} messages ({} with a repetition)",
            counters.readings_sent, counters.messages_sent, counters.resent
        )?;
        writeln!(
            out,
            "acknowledged   {} readings and events in {} messages, {acked_per_second:.0}/s",
            counters.readings_acked, counters.messages_acked
        )?;
        writeln!(
            out,
            "not            {} unacknowledged, {} discarded; {} reconnects",
            counters.unacked, counters.dropped, counters.reconnects
        )?;
        let Latency { p50, p90, p99, p99_9, max } = puback_ms;
        write!(
            out,
            "PUBACK, ms     p50 {p50:.1}, p90 {p90:.1}, p99 {p99:.1}, p99.9 {p99_9:.1}, max {max:.1}"
        )?;
        for Truth { terminal_id, fault, began, ended, people, expected } in truth {
            let ended = ended.map_or_else(|| "now".to_owned(), |at| at.to_string());
            let people = if *people { "people in the car" } else { "nobody in the car" };
            write!(out, "\nfault          {terminal_id} {fault}: {began} to {ended}, {people}: {expected}")?;
        }
        Ok(())
    }
}
