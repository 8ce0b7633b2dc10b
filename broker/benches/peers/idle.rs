//! Memory of terminals that are connected and silent, and a herd that comes back at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::Failure;
use crate::client::{Dialer, Stream};
use crate::peer::{Certificates, Kind, Peer};
use crate::table::Table;

/// Handshakes at once when the terminals come one by one.
const AT_ONCE: usize = 200;
/// Come and go before memory is read for the first time.
const FIRST: usize = 100;
/// For the server to settle.
const SETTLE: Duration = Duration::from_secs(2);

struct Figures {
    kb_each: f64,
    reconnect_s: f64,
}

pub(crate) async fn measure(
    connections: usize,
    certificates: Option<&Certificates>,
    table: &mut Table,
) -> Result<(), Failure> {
    let mut figures = Vec::new();
    for kind in Kind::BOTH {
        figures.push(one(kind, connections, certificates).await?);
    }
    let [Some(ours), mosquitto] = &figures[..] else { return Err("the gate did not start".into()) };
    let over = |pick: fn(&Figures) -> f64, unit: &str| {
        (format!("{:.1} {unit}", pick(ours)), mosquitto.as_ref().map(|m| format!("{:.1} {unit}", pick(m))))
    };
    let (how, kb_max) = if certificates.is_some() { ("mTLS", 25.0) } else { ("TCP", 8.0) };
    let (mine, theirs) = over(|figures| figures.kb_each, "KB");
    let aim = format!("at most {kb_max} KB");
    table.put(
        format!("memory of an idle {how} terminal, {connections} held"),
        mine,
        theirs,
        Some((&aim, ours.kb_each <= kb_max)),
    );
    let (mine, theirs) = over(|figures| figures.reconnect_s, "s");
    // Of full handshakes the issue asks nothing: both sides compute signatures on the same cores.
    let aim = certificates.is_none().then_some(("under 5 s", ours.reconnect_s < 5.0));
    table.put(format!("{connections} {how} terminals reconnect at once"), mine, theirs, aim);
    Ok(())
}

async fn one(
    kind: Kind,
    connections: usize,
    certificates: Option<&Certificates>,
) -> Result<Option<Figures>, Failure> {
    let Some(peer) = Peer::start(kind, certificates, false).await? else { return Ok(None) };
    let dialer = Dialer::new(peer.address, certificates)?;
    drop(connect(&dialer, FIRST.min(connections), AT_ONCE).await?);
    tokio::time::sleep(SETTLE).await;
    let before = peer.resident_kb()?;
    let held = connect(&dialer, connections, AT_ONCE).await?;
    tokio::time::sleep(SETTLE).await;
    let kb_each = peer.resident_kb()?.saturating_sub(before) as f64 / connections as f64;
    // The link is cut for all of them at the same time, and back at once.
    drop(held);
    let began = Instant::now();
    let held = connect(&dialer, connections, connections).await?;
    let reconnect_s = began.elapsed().as_secs_f64();
    drop(held);
    Ok(Some(Figures { kb_each, reconnect_s }))
}

async fn connect(
    dialer: &Dialer,
    connections: usize,
    at_once: usize,
) -> Result<Vec<Box<dyn Stream>>, Failure> {
    let turns = Arc::new(Semaphore::new(at_once));
    let mut tasks = JoinSet::new();
    for number in 0..connections {
        let (dialer, turns) = (dialer.clone(), Arc::clone(&turns));
        tasks.spawn(async move {
            let _turn = turns.acquire().await;
            dialer.connect_at_last(number).await
        });
    }
    let mut held = Vec::with_capacity(connections);
    while let Some(stream) = tasks.join_next().await {
        held.push(stream?);
    }
    Ok(held)
}
