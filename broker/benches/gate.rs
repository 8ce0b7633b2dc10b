//! What the gate costs: messages per second, CPU per message and memory per idle connection.
//!
//! `cargo bench -p broker`. The gate and a consumer that commits at once run in this process; the clients run in a
//! child, so that their CPU is not counted. Each client keeps `window` QoS 1 messages of 100 bytes unacknowledged.

#![allow(missing_docs)]

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use broker::{
    AuthFuture, Authenticate, ConnectInfo, Gate, GateConfig, Hub, HubConfig, Inbound, Metrics, Principal,
    PrincipalKind, TopicFilter,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

const ADDRESS: &str = "LIFTWATCH_BENCH_ADDRESS";
const WARM_UP: Duration = Duration::from_secs(1);
const MEASURE: Duration = Duration::from_secs(4);
const PAYLOAD: usize = 100;

type Failure = Box<dyn std::error::Error>;

struct Everyone;

impl Authenticate for Everyone {
    fn authenticate<'a>(&'a self, info: &'a ConnectInfo) -> AuthFuture<'a> {
        Box::pin(async move {
            let own = TopicFilter::new(&format!("lift/v1/+/{}/#", info.client_id));
            let own = own.map_err(|_| broker::Refusal::BadClientId)?;
            Ok(Principal {
                kind: PrincipalKind::Integration,
                publish: vec![own.clone()],
                subscribe: vec![own],
            })
        })
    }
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    if let Ok(address) = std::env::var(ADDRESS) {
        let numbers: Vec<usize> = std::env::args().skip(1).filter_map(|word| word.parse().ok()).collect();
        let [connections, window] = numbers[..] else { return Err("connections and window expected".into()) };
        return load(address.parse()?, connections, window).await;
    }
    let metrics = Arc::new(Metrics::default());
    let hub = Hub::start(HubConfig::default(), Arc::clone(&metrics));
    let (sender, mut inbound) = tokio::sync::mpsc::channel(8_192);
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let config = GateConfig { listen: Some(listen), ..GateConfig::default() };
    let gate = Gate::bind(config, Arc::new(Everyone), sender, hub, Arc::clone(&metrics)).await?;
    let address = gate.local_addr().expect("it listens");
    let stop = CancellationToken::new();
    let running = tokio::spawn(gate.run(stop.clone()));
    tokio::spawn(async move {
        let mut batch = Vec::new();
        while inbound.recv_many(&mut batch, 1_024).await > 0 {
            for item in batch.drain(..) {
                if let Inbound::Publish(publish) = item {
                    publish.ack.done();
                }
            }
        }
    });
    // First, while the allocator has nothing to reuse.
    idle(address, &metrics).await?;
    println!("connections  window   messages/s  us CPU/message");
    for (connections, window) in [(50, 20), (50, 1), (500, 20), (5, 500)] {
        let _child = child(address, connections, window)?;
        tokio::time::sleep(WARM_UP).await;
        let (began, acked, cpu) = (Instant::now(), metrics.acked.get(), cpu_us()?);
        tokio::time::sleep(MEASURE).await;
        let (took, acked, cpu) = (began.elapsed(), metrics.acked.get() - acked, cpu_us()? - cpu);
        let per_s = acked as f64 / took.as_secs_f64();
        println!("{connections:>11}  {window:>6}  {per_s:>11.0}  {:>14.2}", cpu / acked.max(1) as f64);
    }
    stop.cancel();
    running.await?;
    Ok(())
}

async fn idle(address: SocketAddr, metrics: &Metrics) -> Result<(), Failure> {
    let (before, began) = (resident_kb()?, Instant::now());
    let connections = 5_000;
    let mut child = child(address, connections, 0)?;
    while metrics.connected.get() < connections as i64 {
        if child.try_wait()?.is_some() {
            return Err("the clients ended; is the limit of open files below 5,100?".into());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (took, kb) = (began.elapsed(), resident_kb()?.saturating_sub(before) as f64 / connections as f64);
    child.kill().await?;
    while metrics.connected.get() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("{connections} connections in {:.2} s, {kb:.1} KB each", took.as_secs_f64());
    Ok(())
}

fn child(address: SocketAddr, connections: usize, window: usize) -> Result<Child, Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env(ADDRESS, address.to_string()).arg(connections.to_string()).arg(window.to_string());
    Ok(command.stdin(Stdio::null()).kill_on_drop(true).spawn()?)
}

fn cpu_us() -> Result<f64, Failure> {
    let stat = procfs::process::Process::myself()?.stat()?;
    Ok((stat.utime + stat.stime) as f64 * 1e6 / procfs::ticks_per_second() as f64)
}

fn resident_kb() -> Result<u64, Failure> {
    Ok(procfs::process::Process::myself()?.status()?.vmrss.unwrap_or(0))
}

async fn load(address: SocketAddr, connections: usize, window: usize) -> Result<(), Failure> {
    let mut clients = tokio::task::JoinSet::new();
    for i in 0..connections {
        clients.spawn(async move {
            // The gate ends first when it is done.
            let _ = client(address, i, window).await;
        });
    }
    while clients.join_next().await.is_some() {}
    Ok(())
}

async fn client(address: SocketAddr, i: usize, window: usize) -> std::io::Result<()> {
    let id = format!("T{i:06}");
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut connect =
        vec![0x10, 12 + id.len() as u8, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0, id.len() as u8];
    connect.extend(id.as_bytes());
    stream.write_all(&connect).await?;
    stream.read_exact(&mut [0; 4]).await?;
    let topic = format!("lift/v1/310115/{id}/telemetry");
    let remaining = 2 + topic.len() + 2 + PAYLOAD;
    let mut frame = vec![0x32, (remaining % 128) as u8 | 0x80, (remaining / 128) as u8, 0, topic.len() as u8];
    frame.extend(topic.as_bytes());
    frame.extend([0, 1]);
    frame.extend([b'x'; PAYLOAD]);
    let mut acks = vec![0; 4 * window.max(1)];
    let mut due = window;
    loop {
        stream.write_all(&frame.repeat(due)).await?;
        let n = stream.read(&mut acks).await?;
        if n == 0 {
            return Ok(());
        }
        // Acks are four bytes; a partial one is waited for.
        let partial = (4 - n % 4) % 4;
        stream.read_exact(&mut acks[..partial]).await?;
        due = n.div_ceil(4);
    }
}
