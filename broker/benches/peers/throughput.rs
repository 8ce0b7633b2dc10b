//! CPU per QoS 1 message at full speed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::Failure;
use crate::client::{Acks, Dialer, PAYLOAD, Publish};
use crate::peer::{Kind, Peer};
use crate::table::Table;

const CONNECTIONS: usize = 50;
const WARM_UP: Duration = Duration::from_secs(1);
/// The aim at window 20.
const RATIO_MIN: f64 = 5.0;

struct Figures {
    per_s: f64,
    us: f64,
}

pub(crate) async fn measure(window: usize, seconds: u64, table: &mut Table) -> Result<(), Failure> {
    let mut figures = Vec::new();
    for kind in Kind::BOTH {
        figures.push(one(kind, window, seconds).await?);
    }
    let [Some(ours), mosquitto] = &figures[..] else { return Err("the gate did not start".into()) };
    table.put(
        format!("messages/s, window {window}, {CONNECTIONS} clients, {PAYLOAD} bytes"),
        format!("{:.0}", ours.per_s),
        mosquitto.as_ref().map(|mosquitto| format!("{:.0}", mosquitto.per_s)),
        None,
    );
    table.put(
        format!("CPU per message, window {window}"),
        format!("{:.2} us", ours.us),
        mosquitto.as_ref().map(|mosquitto| format!("{:.2} us", mosquitto.us)),
        None,
    );
    if let Some(mosquitto) = mosquitto {
        let ratio = mosquitto.us / ours.us;
        let aim = (window == 20).then_some(("at least 5 times below", ratio >= RATIO_MIN));
        table.put(format!("CPU of mosquitto / gate, window {window}"), format!("{ratio:.1}"), None, aim);
    }
    Ok(())
}

async fn one(kind: Kind, window: usize, seconds: u64) -> Result<Option<Figures>, Failure> {
    let Some(peer) = Peer::start(kind, None, false).await? else { return Ok(None) };
    let dialer = Dialer::new(peer.address, None)?;
    let acked = Arc::new(AtomicU64::new(0));
    let mut clients = JoinSet::new();
    for number in 0..CONNECTIONS {
        clients.spawn(flood(dialer.clone(), number, window, Arc::clone(&acked)));
    }
    tokio::time::sleep(WARM_UP).await;
    let (began, before, cpu) = (Instant::now(), acked.load(Ordering::Relaxed), peer.cpu_us()?);
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let (took, messages) = (began.elapsed(), acked.load(Ordering::Relaxed) - before);
    let cpu = peer.cpu_us()? - cpu;
    if let Some(ended) = clients.try_join_next() {
        return Err(format!("a client ended: {ended:?}").into());
    }
    Ok(Some(Figures { per_s: messages as f64 / took.as_secs_f64(), us: cpu / messages.max(1) as f64 }))
}

/// Keeps `window` messages unacknowledged for ever.
pub(crate) async fn flood(
    dialer: Dialer,
    number: usize,
    window: usize,
    acked: Arc<AtomicU64>,
) -> std::io::Result<()> {
    let mut stream = dialer.connect(number).await?;
    let mut publish = Publish::new(number);
    let (mut acks, mut due) = (Acks::default(), window);
    let (mut out, mut buffer) = (Vec::new(), vec![0; 4 * window]);
    loop {
        out.clear();
        for _ in 0..due {
            publish.put(&mut out);
        }
        stream.write_all(&out).await?;
        due = 0;
        while due == 0 {
            let bytes = stream.read(&mut buffer).await?;
            if bytes == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            due = acks.read(bytes);
        }
        acked.fetch_add(due as u64, Ordering::Relaxed);
    }
}
