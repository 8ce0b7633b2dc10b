//! Latency of acknowledgements at a steady rate, alone and beside a noisy neighbour.
//!
//! Measured from the moment a message was due, not from when it could be written: a server that stands still
//! delays all messages that are due meanwhile, and all of them count.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use crate::Failure;
use crate::client::{Acks, Dialer, Publish};
use crate::peer::{Kind, Peer};
use crate::table::Table;
use crate::throughput::flood;

/// Connections of the steady rate.
const CONNECTIONS: u32 = 200;
/// Not counted.
const WARM_UP: Duration = Duration::from_secs(2);
/// For the last acknowledgements.
const LAST: Duration = Duration::from_secs(5);
const MICROS_MAX: u64 = 60_000_000;
/// Calm terminals, and messages of each per second.
const CALM: u32 = 100;
const CALM_PER_S: u32 = 10;
/// Number of the noisy one, and how much it keeps unacknowledged.
const NOISY: usize = 99_999;
const NOISY_WINDOW: usize = 1_000;

/// PUBACK latency at `rate`.
pub(crate) async fn latency(rate: u32, seconds: u64, table: &mut Table) -> Result<(), Failure> {
    let mut found = Vec::new();
    for kind in Kind::BOTH {
        let Some(peer) = Peer::start(kind, None, false).await? else {
            found.push(None);
            continue;
        };
        let dialer = Dialer::new(peer.address, None)?;
        let cpu = peer.cpu_us()?;
        let histogram = paced(&dialer, CONNECTIONS, rate / CONNECTIONS, seconds).await?;
        let busy = (peer.cpu_us()? - cpu) / (Duration::from_secs(seconds) + WARM_UP).as_micros() as f64;
        found.push(Some((histogram, busy)));
    }
    let [Some((ours, busy)), mosquitto] = &found[..] else { return Err("the gate did not start".into()) };
    for (name, quantile) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
        let aim = (name == "p99").then_some(("under 25 ms", ms(ours, quantile) < 25.0));
        let mosquitto = mosquitto.as_ref().map(|(histogram, _)| text(histogram, quantile));
        table.put(format!("PUBACK {name} at {rate}/s"), text(ours, quantile), mosquitto, aim);
    }
    let cores = |busy: f64| format!("{:.0} %", busy * 100.0);
    let mosquitto = mosquitto.as_ref().map(|(_, busy)| cores(*busy));
    table.put(format!("CPU at {rate}/s, of one core"), cores(*busy), mosquitto, None);
    Ok(())
}

/// What one terminal at full speed does to a hundred calm ones.
pub(crate) async fn neighbour(seconds: u64, table: &mut Table) -> Result<(), Failure> {
    let mut found = Vec::new();
    for kind in Kind::BOTH {
        let Some(peer) = Peer::start(kind, None, true).await? else {
            found.push(None);
            continue;
        };
        let dialer = Dialer::new(peer.address, None)?;
        let alone = paced(&dialer, CALM, CALM_PER_S, seconds).await?;
        let noise = Arc::new(AtomicU64::new(0));
        let noisy = tokio::spawn(flood(dialer.clone(), NOISY, NOISY_WINDOW, Arc::clone(&noise)));
        let beside = paced(&dialer, CALM, CALM_PER_S, seconds).await?;
        noisy.abort();
        let per_s = noise.load(Ordering::Relaxed) as f64 / (seconds as f64 + WARM_UP.as_secs_f64());
        found.push(Some((alone, beside, per_s)));
    }
    let [Some(ours), mosquitto] = &found[..] else { return Err("the gate did not start".into()) };
    let mosquitto = mosquitto.as_ref();
    table.put(
        format!("PUBACK p99 of {CALM} calm terminals"),
        text(&ours.0, 0.99),
        mosquitto.map(|m| text(&m.0, 0.99)),
        None,
    );
    let rise = ms(&ours.1, 0.99) - ms(&ours.0, 0.99);
    table.put(
        "... beside one at full speed",
        text(&ours.1, 0.99),
        mosquitto.map(|m| text(&m.1, 0.99)),
        Some(("up by under 1 ms", rise < 1.0)),
    );
    let rate = |per_s: f64| format!("{per_s:.0}/s");
    table.put("... which gets through", rate(ours.2), mosquitto.map(|m| rate(m.2)), None);
    Ok(())
}

fn ms(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1_000.0
}

fn text(histogram: &Histogram<u64>, quantile: f64) -> String {
    format!("{:.2} ms", ms(histogram, quantile))
}

/// Latencies in microseconds of `connections` terminals with `per_s` messages a second each.
async fn paced(
    dialer: &Dialer,
    connections: u32,
    per_s: u32,
    seconds: u64,
) -> Result<Histogram<u64>, Failure> {
    let period = Duration::from_secs(1) / per_s.max(1);
    // Connected before the clock starts.
    let begin = Instant::now() + WARM_UP / 2;
    let count_from = begin + WARM_UP / 2;
    let end = count_from + Duration::from_secs(seconds);
    let mut tasks = JoinSet::new();
    for number in 0..connections {
        let first = begin + period * number / connections;
        let times = Times { first, count_from, end, period };
        tasks.spawn(terminal(dialer.clone(), number as usize, times));
    }
    let mut all = Histogram::new_with_bounds(1, MICROS_MAX, 3)?;
    while let Some(one) = tasks.join_next().await {
        all.add(one??)?;
    }
    if all.is_empty() {
        return Err("nothing was acknowledged".into());
    }
    Ok(all)
}

struct Times {
    first: Instant,
    count_from: Instant,
    end: Instant,
    period: Duration,
}

async fn terminal(dialer: Dialer, number: usize, times: Times) -> Result<Histogram<u64>, Failure> {
    let mut found = Histogram::new_with_bounds(1, MICROS_MAX, 3)?;
    let mut stream = dialer.connect(number).await?;
    let (mut publish, mut acks) = (Publish::new(number), Acks::default());
    let (mut out, mut buffer) = (Vec::new(), [0; 64]);
    let mut due: VecDeque<Instant> = VecDeque::new();
    let mut clock = tokio::time::interval_at(times.first, times.period);
    clock.set_missed_tick_behavior(MissedTickBehavior::Burst);
    loop {
        let sending = Instant::now() < times.end;
        if !sending && (due.is_empty() || Instant::now() > times.end + LAST) {
            // What never came is as late as can be.
            found.saturating_record_n(MICROS_MAX, due.len() as u64);
            return Ok(found);
        }
        tokio::select! {
            biased;
            bytes = stream.read(&mut buffer) => {
                let bytes = bytes?;
                if bytes == 0 {
                    return Err(format!("terminal {number} was cut off").into());
                }
                for at in due.drain(..acks.read(bytes).min(due.len())) {
                    if at >= times.count_from {
                        found.saturating_record(at.elapsed().as_micros() as u64);
                    }
                }
            }
            at = clock.tick() => if sending {
                out.clear();
                publish.put(&mut out);
                stream.write_all(&out).await?;
                due.push_back(at);
            }
        }
    }
}
