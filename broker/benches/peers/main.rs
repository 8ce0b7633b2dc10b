//! The gate beside mosquitto, in the same run on the same machine: memory of idle terminals, a herd that
//! reconnects, CPU per message, latency of acknowledgements, churn, a noisy neighbour.
//!
//! `cargo bench -p broker --bench peers [-- --only idle,cpu --connections 10000 --seconds 5 --minutes 10]`
//!
//! Gate and mosquitto are processes of their own, so that memory and CPU are those of the server alone; this
//! program is the gate when told so by an environment variable, with a consumer that commits at once. The terminals
//! live in this process, on the same cores. Prints aims and whether they were met; a miss is no failure.

#![allow(missing_docs)]

mod churn;
mod client;
mod idle;
mod paced;
mod peer;
mod serve;
mod table;
mod throughput;

use clap::Parser;

use peer::Kind;
use table::Table;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, Parser)]
struct Arguments {
    /// Terminals held at once.
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// Length of each measurement of CPU and latency.
    #[arg(long, default_value_t = 8)]
    seconds: u64,
    /// Length of the churn.
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// Messages per second whose acknowledgements are timed.
    #[arg(long, default_value_t = 20_000)]
    rate: u32,
    /// Some of idle, idle-tls, cpu, latency, churn, neighbour.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Cargo says so.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Arguments {
    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    if let Some(settings) = serve::Settings::from_environment() {
        return serve::run(settings).await;
    }
    let arguments = Arguments::parse();
    let connections = arguments.connections.min(peer::connections_possible());
    if connections < arguments.connections {
        println!("{connections} connections only: the limit of open files allows no more");
    }
    if Kind::Mosquitto.program().is_none() {
        println!("mosquitto is not installed: SKIPPED");
    }
    let mut table = Table::default();
    if arguments.wants("idle") {
        idle::measure(connections, None, &mut table).await?;
    }
    if arguments.wants("idle-tls") {
        let certificates = peer::Certificates::make()?;
        idle::measure(connections, Some(&certificates), &mut table).await?;
    }
    if arguments.wants("cpu") {
        throughput::measure(20, arguments.seconds, &mut table).await?;
        throughput::measure(1, arguments.seconds, &mut table).await?;
    }
    if arguments.wants("latency") {
        paced::latency(arguments.rate, arguments.seconds, &mut table).await?;
    }
    if arguments.wants("neighbour") {
        paced::neighbour(arguments.seconds, &mut table).await?;
    }
    if arguments.wants("churn") {
        churn::measure(arguments.minutes, &mut table).await?;
    }
    print!("\n{table}");
    Ok(())
}
