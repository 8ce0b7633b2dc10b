//! Kills at random, then the books: what was acknowledged is there, once.
//!
//! Terminals that store and forward send all the time, with clocks that are wrong by up to a minute, counters among
//! it; between them come payloads that cannot be decoded, readings from the future, and faults that raise alarms.
//! Meanwhile server, database and connections are killed, stopped, cut and frozen, as a seed says. Each round ends
//! with a reconciliation: acknowledged = rows + quarantine, no row twice, alarm numbers without a gap, a ledger
//! without an unaccounted number.
//!
//! `LIFTWATCH_CHAOS_SEED` repeats a run's decisions, `LIFTWATCH_CHAOS_MINUTES` makes it long, and them new:
//! `LIFTWATCH_CHAOS_MINUTES=60 cargo test -p server --test system chaos -- --nocapture`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use simulator::{Fleet, FleetConfig, FleetHandle, Rate};
use sqlx::Connection;
use store::testing::TestCluster;
use tokio_util::sync::CancellationToken;

use crate::harness::{Server, eventually, mosquitto_pub, now};
use crate::proxy::{Proxy, Upstream};
use crate::reconcile::{audit, reconcile_prefix};

/// A round with nothing said.
const ROUND: Duration = Duration::from_secs(20);
/// A round of a long run.
const ROUND_LONG: Duration = Duration::from_secs(90);
/// How long a recovery may take before the run counts as failed.
const RECOVERY: Duration = Duration::from_mins(3);

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// SplitMix64: small, and the same everywhere.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.next() % (to - from))
    }
}

#[derive(Debug, Clone, Copy)]
enum Blow {
    KillServer,
    KillDatabase,
    KillBoth,
    /// The server while the database is away.
    KillServerWithoutDatabase,
    StopServer,
    StopDatabase,
    CutConnections,
    FreezeDatabase,
}

const BLOWS: [Blow; 8] = [
    Blow::KillServer,
    Blow::KillDatabase,
    Blow::KillBoth,
    Blow::KillServerWithoutDatabase,
    Blow::StopServer,
    Blow::StopDatabase,
    Blow::CutConnections,
    Blow::FreezeDatabase,
];

/// What the single messages between the fleet's have come to.
#[derive(Debug, Default)]
struct Posted {
    undecodable: AtomicU64,
    /// Batches of three readings of which the second is refused.
    partly: AtomicU64,
    future: AtomicU64,
    alarms: AtomicU64,
}

/// Publishes until it is acknowledged, however often that takes.
async fn post(proxy: std::net::SocketAddr, terminal: &str, channel: &str, payload: &str) {
    let topic = format!("lift/v1/350102/{terminal}/{channel}");
    let deadline = Instant::now() + RECOVERY;
    while !mosquitto_pub(proxy, terminal, &topic, payload.as_bytes()).await.status.success() {
        assert!(Instant::now() < deadline, "not acknowledged in {RECOVERY:?}: {payload}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// One after the other, until `stop`: each is acknowledged before the next is sent.
async fn post_all(proxy: std::net::SocketAddr, round: u64, posted: Arc<Posted>, stop: CancellationToken) {
    let mut number = 0;
    while !stop.is_cancelled() {
        number += 1;
        let time = now();
        match number % 4 {
            0 => {
                post(proxy, "poison", "telemetry.json", &format!("round {round}, poison {number}")).await;
                posted.undecodable.fetch_add(1, Ordering::Relaxed);
            }
            1 => {
                let seq = posted.partly.load(Ordering::Relaxed) * 3;
                let reading = |place: u64, load: u64| {
                    format!(r#"{{"seq":{},"time":"{time}","load_kg":{load}}}"#, seq + place)
                };
                let readings = [reading(1, 75), reading(2, 99_999), reading(3, 80)].join(",");
                let payload = format!(r#"{{"boot":1,"readings":[{readings}]}}"#);
                post(proxy, "partly", "telemetry.json", &payload).await;
                posted.partly.fetch_add(1, Ordering::Relaxed);
            }
            2 => {
                let seq = posted.future.load(Ordering::Relaxed) + 1;
                let payload =
                    format!(r#"{{"boot":1,"seq":{seq},"time":"2099-01-01T00:00:00Z","floor":"1"}}"#);
                post(proxy, "future", "telemetry.json", &payload).await;
                posted.future.fetch_add(1, Ordering::Relaxed);
            }
            _ => {
                let terminal = format!("alarm-{round}-{number}");
                let payload = format!(
                    r#"{{"boot":1,"seq":1,"time":"{time}","code":"unintended_movement","state":"open"}}"#
                );
                post(proxy, &terminal, "event.json", &payload).await;
                posted.alarms.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

async fn strike(blow: Blow, chance: &mut Chance, server: &mut Server, cluster: &TestCluster, proxy: &Proxy) {
    let pause = chance.millis(50, 2_500);
    match blow {
        Blow::KillServer => {
            server.kill();
            server.restart().await;
        }
        Blow::KillDatabase => {
            cluster.kill().await;
            tokio::time::sleep(pause).await;
            cluster.start().await;
        }
        Blow::KillBoth => {
            cluster.kill().await;
            server.kill();
            cluster.start().await;
            server.restart().await;
        }
        Blow::KillServerWithoutDatabase => {
            cluster.kill().await;
            tokio::time::sleep(pause).await;
            server.kill();
            cluster.start().await;
            server.restart().await;
        }
        Blow::StopServer => {
            let status = server.terminate().await;
            assert!(status.success(), "a stop is not a failure: {status}");
            server.restart().await;
        }
        Blow::StopDatabase => {
            cluster.stop().await;
            tokio::time::sleep(pause).await;
            cluster.start().await;
        }
        Blow::CutConnections => proxy.cut(),
        Blow::FreezeDatabase => {
            cluster.freeze();
            tokio::time::sleep(pause).await;
            cluster.thaw();
        }
    }
}

async fn acked_more(fleet: &FleetHandle, count: u64) {
    let (begin, deadline) = (fleet.counters().items_acked, Instant::now() + RECOVERY);
    while fleet.counters().items_acked < begin + count {
        assert!(
            Instant::now() < deadline,
            "no acknowledgements for {RECOVERY:?}: {:?}",
            fleet.last_refusal()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chaos_loses_nothing_and_doubles_nothing() {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let minutes = variable("LIFTWATCH_CHAOS_MINUTES");
    // A short run is the same each time; a long one looks for what nobody has seen.
    let seed = variable("LIFTWATCH_CHAOS_SEED").unwrap_or(if minutes.is_some() { clock } else { 1 });
    let round_len = if minutes.is_some() { ROUND_LONG } else { ROUND };
    let end = Instant::now() + minutes.map_or(Duration::ZERO, Duration::from_mins);
    println!("chaos: LIFTWATCH_CHAOS_SEED={seed}");
    let mut chance = Chance(seed);
    let cluster = TestCluster::new().await;
    // A small budget, so that shedding is part of it.
    let settings = [("LIFTWATCH_BROKER__BUDGET_BYTES", "1 MiB")];
    let mut server = Server::start_with(cluster.url(), &settings).await;
    let proxy = Proxy::start(Upstream::Tcp(server.addresses.broker)).await;
    let posted = Arc::new(Posted::default());
    let (mut round, mut blows, mut readings) = (0, 0, 0);
    while round == 0 || Instant::now() < end {
        round += 1;
        let begun = Instant::now();
        let (ledger, prefix) = (tempfile::NamedTempFile::new().expect("a file"), format!("c{round}-"));
        let config = FleetConfig {
            target: proxy.address().to_string(),
            terminals: 40,
            rate: Rate::PerSecond(400.0),
            prefix: prefix.clone(),
            seed: chance.next(),
            skew_max: Duration::from_mins(1),
            statistics: Some(Duration::from_secs(5)),
            acked_file: Some(ledger.path().to_owned()),
            outbox_max: 100_000,
            keep_alive: Duration::from_secs(5),
            backoff_max: Duration::from_secs(1),
            drain: RECOVERY,
            ..FleetConfig::default()
        };
        let fleet = Fleet::start(config).await.expect("the fleet starts");
        let stop = CancellationToken::new();
        let posting = tokio::spawn(post_all(proxy.address(), round, posted.clone(), stop.clone()));
        acked_more(&fleet, 100).await;
        let mut struck = Vec::new();
        while begun.elapsed() < round_len {
            let pick = usize::try_from(chance.next() % BLOWS.len() as u64).expect("small");
            tokio::time::sleep(chance.millis(100, 1_500)).await;
            strike(BLOWS[pick], &mut chance, &mut server, &cluster, &proxy).await;
            struck.push(BLOWS[pick]);
            // Not always: the next blow may fall into the recovery.
            if chance.next().is_multiple_of(2) {
                acked_more(&fleet, 50).await;
            }
        }
        stop.cancel();
        posting.await.expect("every single message was acknowledged");
        let report = fleet.stop().await;
        blows += struck.len();
        let rows = reconcile_prefix(cluster.url(), &report, ledger.path(), &prefix).await;
        readings += rows;
        books(cluster.url(), &posted).await;
        println!(
            "chaos: round {round}: {} blows, {rows} readings acknowledged and stored, {} sent again, {} reconnects; \
             in all {blows} blows, {readings} readings, {posted:?}; {struck:?}",
            struck.len(),
            report.counts.resent,
            report.counts.reconnects,
        );
    }
    assert!(server.terminate().await.success());
}

/// Quarantine, alarms and the ledger, over all rounds.
async fn books(url: &str, posted: &Posted) {
    let mut connection = sqlx::PgConnection::connect(url).await.expect("connect");
    let mut count = async |sql: &'static str| -> u64 {
        let found: i64 = sqlx::query_scalar(sql).fetch_one(&mut connection).await.expect(sql);
        u64::try_from(found).expect("a count")
    };
    let total = count("SELECT count(*) FROM quarantine").await;
    let undecodable = count("SELECT count(*) FROM quarantine WHERE reason = 'undecodable'").await;
    let future = count("SELECT count(*) FROM quarantine WHERE reason = 'future'").await;
    let partly = posted.partly.load(Ordering::Relaxed);
    assert_eq!(undecodable, posted.undecodable.load(Ordering::Relaxed) + partly, "each once");
    let beside = "SELECT count(*) FROM telemetry JOIN source USING (source) WHERE terminal_id = 'partly'";
    assert_eq!(count(beside).await, 2 * partly, "the neighbours of what is refused");
    assert_eq!(future, posted.future.load(Ordering::Relaxed), "each once");
    assert_eq!(total, undecodable + future, "and nothing else");
    assert!(count("SELECT count(*) FROM statistics").await > 0, "counters were among it");
    let events = count("SELECT count(*) FROM alarm_event").await;
    assert_eq!(events, count("SELECT coalesce(max(no), 0) FROM alarm_event").await, "numbers without a gap");
    let raised = "SELECT count(*) FROM alarm WHERE starts_with(terminal_id, 'alarm-')";
    assert_eq!(count(raised).await, posted.alarms.load(Ordering::Relaxed), "an alarm each, once");
    let (code, said) = eventually("the ledger has caught up", async || {
        let (code, said) = audit(url);
        (said["ledger_behind"] == 0 || code != Some(0)).then_some((code, said))
    })
    .await;
    assert_eq!((code, said["verdict"].as_str()), (Some(0), Some("ok")), "{said}");
    assert_eq!(said["unaccounted"], 0, "{said}");
}
