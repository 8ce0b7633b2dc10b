//! Whether memory grows while terminals come, are taken over, and go in every way there is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::Failure;
use crate::client::{Dialer, Publish, connect_frame, id, subscribe_frame};
use crate::peer::{Kind, Peer};
use crate::table::Table;

/// Terminals that come and go; fewer than workers would leave no ids to take over.
const TERMINALS: usize = 2_000;
const WORKERS: u64 = 100;
/// Between two lives of a worker, so that the machine can keep up.
const REST: Duration = Duration::from_millis(20);
/// Growth allowed from the first tenth to the end, in percent: noise of the allocator.
const GROWTH_MAX: f64 = 2.0;

pub(crate) async fn measure(minutes: f64, table: &mut Table) -> Result<(), Failure> {
    let span = Duration::from_secs_f64(minutes * 60.0);
    let Some(peer) = Peer::start(Kind::Gate, None, false).await? else {
        return Err("the gate did not start".into());
    };
    let dialer = Dialer::new(peer.address, None)?;
    let end = Instant::now() + span;
    let lives = Arc::new(AtomicU64::new(0));
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        workers.spawn(work(dialer.clone(), worker, end, Arc::clone(&lives)));
    }
    let mut samples = Vec::new();
    // The first tenth fills caches, pools and the tables of the rate limits.
    for part in 1..=10 {
        tokio::time::sleep_until(end - span + span * part / 10).await;
        samples.push(peer.resident_kb()?);
    }
    while let Some(ended) = workers.join_next().await {
        ended?;
    }
    let (begin, middle, end) = (samples[0], samples[4], samples[9]);
    let growth = (end as f64 / begin as f64 - 1.0) * 100.0;
    let lives = lives.load(Ordering::Relaxed);
    table.put(
        format!("memory after {:.1}, {:.1}, {minutes:.1} min of churn", minutes / 10.0, minutes / 2.0),
        format!("{:.1} {:.1} {:.1} MB", mb(begin), mb(middle), mb(end)),
        None,
        None,
    );
    table.put(
        format!("growth over {lives} connections"),
        format!("{growth:+.1} %"),
        None,
        Some(("none (under 2 %)", growth < GROWTH_MAX)),
    );
    Ok(())
}

fn mb(kb: u64) -> f64 {
    kb as f64 / 1_024.0
}

async fn work(dialer: Dialer, worker: u64, end: Instant, lives: Arc<AtomicU64>) {
    let mut random = SmallRng::seed_from_u64(worker);
    while Instant::now() < end {
        // A life that is cut short by a take-over ends with an error; that is what happens here.
        let _ = tokio::time::timeout(Duration::from_secs(5), life(&dialer, &mut random)).await;
        lives.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(REST).await;
    }
}

/// Connects with a will, subscribes and publishes a little, and goes with or without a goodbye.
async fn life(dialer: &Dialer, random: &mut SmallRng) -> std::io::Result<()> {
    let number = random.random_range(0..TERMINALS);
    let mut stream = dialer.socket(number).await?;
    if random.random_ratio(1, 20) {
        // Nothing, half a CONNECT, or nonsense.
        let bytes: &[u8] =
            [&b""[..], b"\x10\x20\0\x04MQ", b"GET / HTTP/1.1\r\n\r\n"][random.random_range(0..3)];
        return stream.write_all(bytes).await;
    }
    let will = format!("lift/v1/310115/{}/event", id(number));
    stream.write_all(&connect_frame(number, random.random::<bool>().then_some((&will, "gone")))).await?;
    stream.read_exact(&mut [0; 4]).await?;
    if random.random() {
        stream.write_all(&subscribe_frame(&format!("lift/v1/310115/{}/down", id(number)))).await?;
        stream.read_exact(&mut [0; 5]).await?;
    }
    let mut publish = Publish::new(number);
    for _ in 0..random.random_range(0..5) {
        let (mut out, count) = (Vec::new(), random.random_range(1..20_usize));
        for _ in 0..count {
            publish.put(&mut out);
        }
        stream.write_all(&out).await?;
        // Some do not wait for their acknowledgements.
        if random.random_ratio(9, 10) {
            stream.read_exact(&mut vec![0; 4 * count]).await?;
        }
    }
    // Long enough for another worker to take the id over now and then.
    tokio::time::sleep(Duration::from_millis(random.random_range(0..50))).await;
    match random.random_range(0..3_u8) {
        0 => stream.write_all(b"\xe0\0").await?,
        // Cut with RST.
        1 => stream.set_zero_linger()?,
        _ => {}
    }
    Ok(())
}
