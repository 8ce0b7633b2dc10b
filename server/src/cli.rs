//! The command line: what can be asked, and who answers.

mod access;
mod audit;
mod pki;
mod profile;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use simulator::Rate;

use crate::schema::SchemaArgs;

pub(crate) use access::{AccountCommand, Order, Region, SecretArgs, TerminalCommand};
pub(crate) use audit::{AuditArgs, QuarantineCommand, Which};
pub(crate) use pki::PkiCommand;
pub(crate) use profile::{KindArg, ProfileCommand};

/// Watches elevators and gets trapped people out fast.
///
/// Terminals publish readings and faults over MQTT; Liftwatch acknowledges what is on disk, recognises
/// entrapments, and streams numbered alarms to dispatch centres over gRPC.
///
/// First look:            liftwatch demo
/// A server to try:       liftwatch serve --dev
/// A server for real:     liftwatch terminal add t1 --area 350102, then liftwatch serve
/// Publish by hand:       mosquitto_pub -i t1 -q 1 -t lift/v1/350102/t1/telemetry.json -m '{...}'
/// Watch the alarms:      liftwatch dispatch watch
#[derive(Debug, Parser)]
#[command(name = "liftwatch", version, verbatim_doc_comment, propagate_version = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the services: broker, ingest, alerting, web
    Serve(ServeArgs),
    /// Show the whole system at work with a simulated fleet and a real entrapment
    Demo(DemoArgs),
    /// Send the traffic of a simulated fleet to a broker
    Simulate(Box<SimulateArgs>),
    /// Write a broker's traffic to a file
    Record(RecordArgs),
    /// Send a recording again
    Replay(ReplayArgs),
    /// Watch and acknowledge alarms, as a dispatch centre does
    #[command(subcommand)]
    Dispatch(DispatchCommand),
    /// A certificate authority: TLS for the server, certificates for terminals
    #[command(subcommand)]
    Pki(PkiCommand),
    /// Register terminals, and give and take their secrets
    #[command(subcommand)]
    Terminal(TerminalCommand),
    /// Vendor profiles: the languages of terminals
    #[command(subcommand)]
    Profile(ProfileCommand),
    /// Print what terminals publish as JSON Schema, or all of it as AsyncAPI
    Schema(SchemaArgs),
    /// Accounts of other systems and dashboards, which may read
    #[command(subcommand)]
    Account(AccountCommand),
    /// Show that nothing is lost: reconcile ledger, rows and quarantine
    #[command(verbatim_doc_comment)]
    ///
    /// Exit code 0: every number is accounted for; 1: it is not; 2: it could not be audited. docs/audit.md says
    /// what the words mean.
    ///
    ///   liftwatch audit --from 2026-11-01T00:00:00+08:00 --area 3501 --grace 7d
    Audit(AuditArgs),
    /// What could not be stored: look at it, bring it back, drop it
    #[command(subcommand)]
    Quarantine(QuarantineCommand),
    /// The private TimescaleDB that Liftwatch keeps where no URL is configured
    #[command(subcommand)]
    Db(DbCommand),
    /// Check a configuration file and say what is wrong with it
    CheckConfig(ConfigArgs),
    /// Print the configuration in force: defaults, file and environment together
    PrintConfig(ConfigArgs),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    /// Configuration file (TOML); without one, defaults and the environment hold
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// For trying out: loopback listeners only, unknown terminals register themselves, no passwords
    #[arg(long)]
    pub(crate) dev: bool,
    /// There from when all services are ready until they stop: the bound addresses as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) ready_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Simulated elevators
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(2..=20_000))]
    pub(crate) terminals: u32,
    /// Stop after the entrapment, check that nothing was lost or doubled, print the verdict, exit 0 or 1
    #[arg(long)]
    pub(crate) check: bool,
}

/// Which payload a simulated terminal writes.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum FormatArg {
    /// liftwatch.telemetry.v1
    Protobuf,
    /// The open JSON
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct SimulateArgs {
    /// The broker
    #[arg(long, default_value = "127.0.0.1:1883", value_name = "HOST:PORT")]
    pub(crate) broker: String,
    /// Simulated elevators, a terminal each
    #[arg(long, default_value_t = 100)]
    pub(crate) terminals: usize,
    /// Messages per second over the whole fleet; or on-change, as from real lifts; or unlimited
    #[arg(long, default_value = "on-change")]
    pub(crate) rate: Rate,
    /// How long; without it, until Ctrl-C
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub(crate) duration: Option<Duration>,
    /// Faults to stage, such as entrapment_between_floors@10,power_cut*5: kinds with an optional count and an
    /// optional second of the run. Kinds: entrapment_between_floors, entrapment_at_level, button_press,
    /// nuisance_press, power_cut, safety_circuit_open, unintended_movement, door_reclose
    #[arg(long, default_value = "", value_name = "PLAN")]
    pub(crate) faults: String,
    /// Same seed, same fleet
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Divisions (GB/T 2260) the fleet is spread over
    #[arg(long, value_delimiter = ',', default_value = "350102,350103,360102")]
    pub(crate) areas: Vec<domain::Area>,
    /// Unacknowledged messages per terminal
    #[arg(long, default_value_t = 20)]
    pub(crate) window: usize,
    /// Payload format
    #[arg(long, value_enum, default_value = "protobuf")]
    pub(crate) format: FormatArg,
    /// Terminal ids begin with this
    #[arg(long, default_value = "sim-")]
    pub(crate) prefix: String,
    /// Secrets of the terminals (CSV: terminal_id,secret), as 'liftwatch terminal import --out' writes them
    #[arg(long, value_name = "FILE")]
    pub(crate) secrets: Option<PathBuf>,
    /// Time between two messages of counters of each terminal, such as 15m; none if absent
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub(crate) statistics: Option<Duration>,
    /// Write every acknowledged (terminal, boot, seq) here
    #[arg(long, value_name = "FILE")]
    pub(crate) acked: Option<PathBuf>,
    /// Write the truth about the injected faults here, as JSON lines
    #[arg(long, value_name = "FILE")]
    pub(crate) truth: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RecordArgs {
    /// The recording to write
    pub(crate) file: PathBuf,
    /// The broker
    #[arg(long, default_value = "127.0.0.1:1883", value_name = "HOST:PORT")]
    pub(crate) broker: String,
    /// Account to record as; without one, an id that only 'serve --dev' lets in
    #[arg(long, value_name = "NAME", requires = "password_file")]
    pub(crate) account: Option<String>,
    /// File that holds the account's password
    #[arg(long, value_name = "FILE", requires = "account")]
    pub(crate) password_file: Option<PathBuf>,
    /// What to record
    #[arg(long, default_value = "lift/v1/#")]
    pub(crate) filter: String,
    /// How long; without it, until Ctrl-C
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub(crate) duration: Option<Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// The recording
    pub(crate) file: PathBuf,
    /// The broker
    #[arg(long, default_value = "127.0.0.1:1883", value_name = "HOST:PORT")]
    pub(crate) broker: String,
    /// Secrets of the terminals (CSV: terminal_id,secret), as 'liftwatch terminal import --out' writes them
    #[arg(long, value_name = "FILE")]
    pub(crate) secrets: Option<PathBuf>,
    /// Times the recorded speed; 0 means as fast as it is acknowledged
    #[arg(long, default_value_t = 1.0)]
    pub(crate) speed: f64,
    /// Print the report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DispatchServer {
    /// The dispatch API
    #[arg(long, default_value = "127.0.0.1:50051", value_name = "HOST:PORT")]
    pub(crate) server: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DispatchCommand {
    /// Print the alarm stream; reconnects and resumes by itself
    Watch {
        #[command(flatten)]
        server: DispatchServer,
        /// The last event number you have handled; without it, a snapshot of the open alarms first
        #[arg(long, value_name = "NUMBER")]
        resume_after: Option<i64>,
        /// Divisions to see; a region covers its own
        #[arg(long, value_delimiter = ',')]
        areas: Vec<domain::Area>,
        /// The least grave severity to see: S1 to S4
        #[arg(long)]
        severity_min: Option<domain::Severity>,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        /// Stop after this many events
        #[arg(long)]
        count: Option<u64>,
    },
    /// Acknowledge an alarm
    Ack {
        #[command(flatten)]
        server: DispatchServer,
        /// Its id
        alarm_id: String,
        /// Who acknowledges
        #[arg(long)]
        actor: String,
        /// The same key again gives the first result; a new one is made if you name none
        #[arg(long)]
        key: Option<String>,
        /// A remark for the record
        #[arg(long, default_value = "")]
        note: String,
    },
    /// List alarms, newest first
    List {
        #[command(flatten)]
        server: DispatchServer,
        /// Only those that are not cleared
        #[arg(long)]
        open: bool,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Show one alarm with its events and its evidence
    Show {
        #[command(flatten)]
        server: DispatchServer,
        /// Its id
        alarm_id: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum DbCommand {
    /// Install (if needed), create and start it; print its URL
    Up,
    /// Stop it; its data stays
    Down,
    /// Print its URL
    Url,
    /// Bring the configured database to this version's schema
    Migrate(ConfigArgs),
    /// Show tables, sizes, rollups, retention and what needs somebody; changes nothing
    Status {
        #[command(flatten)]
        config: ConfigArgs,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
}

/// A length of time: `90s`, `5m`, `1h`, `250ms`; a bare number is seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|letter: char| letter.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err(format!("'{unit}' is no unit of time: use ms, s, m, h or d, as in 90s")),
    };
    let seconds = number.parse::<f64>().map_err(|_| "write a time as 90s, 5m or 1h".to_owned())? * factor;
    Duration::try_from_secs_f64(seconds).map_err(|_| "a time must be positive and not endless".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn times_have_units() {
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("7d"), Ok(Duration::from_hours(168)));
        assert!(duration("5 days").unwrap_err().contains("unit"));
        assert!(duration("-1s").is_err());
    }
}
