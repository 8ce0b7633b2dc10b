//! `simulate`, `record`, `replay`: traffic made, kept and sent again.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use indicatif::ProgressBar;
use simulator::{FleetConfig, Format, RecordOptions, ReplayOptions, SimulateOptions, parse_plan};
use tokio_util::sync::CancellationToken;

use crate::cli::{FormatArg, RecordArgs, ReplayArgs, SimulateArgs};

/// Over which faults without a time of their own are spread, where the run has no end.
const SPREAD: Duration = Duration::from_mins(1);

pub(crate) async fn simulate(arguments: SimulateArgs, cancel: CancellationToken) -> anyhow::Result<()> {
    let spread = arguments.duration.unwrap_or(SPREAD);
    let fleet = FleetConfig {
        target: arguments.broker,
        terminals: arguments.terminals,
        rate: arguments.rate,
        duration: arguments.duration,
        seed: arguments.seed,
        faults: parse_plan(&arguments.faults, arguments.terminals, spread)?,
        areas: arguments.areas,
        window: arguments.window,
        format: match arguments.format {
            FormatArg::Protobuf => Format::Protobuf,
            FormatArg::Json => Format::Json,
        },
        prefix: arguments.prefix,
        acked_file: arguments.acked,
        statistics: arguments.statistics,
        secrets: secrets(arguments.secrets.as_deref())?,
        ..FleetConfig::default()
    };
    let options = SimulateOptions { fleet, truth_file: arguments.truth, quiet: arguments.json };
    let report = simulator::run(options, cancel).await?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{report}");
    }
    Ok(())
}

/// Secrets of terminals, from a file as `liftwatch terminal import --out` writes it.
fn secrets(path: Option<&Path>) -> anyhow::Result<Arc<HashMap<String, String>>> {
    let Some(path) = path else { return Ok(Arc::default()) };
    let unreadable =
        || format!("cannot read secrets from {}: columns are terminal_id,secret", path.display());
    let mut reader = csv::Reader::from_path(path).with_context(unreadable)?;
    let rows: Result<HashMap<String, String>, _> = reader.deserialize::<(String, String)>().collect();
    Ok(Arc::new(rows.with_context(unreadable)?))
}

/// A line on standard error that moves; nothing where that is no terminal.
fn line() -> ProgressBar {
    let line = ProgressBar::new_spinner();
    line.enable_steady_tick(Duration::from_millis(500));
    line
}

pub(crate) async fn record(arguments: RecordArgs, cancel: CancellationToken) -> anyhow::Result<()> {
    let mut options = RecordOptions::new(arguments.broker, arguments.file);
    options.filter = arguments.filter;
    match arguments.account {
        // By its name alone, which is its user name too.
        Some(account) => options.client_id = account,
        // An id by which `--dev` knows an integration.
        None => options.client_id = format!("integration-recorder-{}", std::process::id()),
    }
    if let Some(path) = &arguments.password_file {
        let text = std::fs::read_to_string(path);
        let text = text.with_context(|| format!("cannot read the password from {}", path.display()))?;
        options.password = Some(text.trim_end().to_owned());
    }
    let stop = cancel.child_token();
    if let Some(duration) = arguments.duration {
        let ended = stop.clone();
        tokio::spawn(async move {
            tokio::time::sleep(duration).await;
            ended.cancel();
        });
    }
    let line = line();
    let report = simulator::record(&options, |now| line.set_message(now.to_string()), &stop).await?;
    line.finish_and_clear();
    println!("{}: {report}", options.file.display());
    Ok(())
}

pub(crate) async fn replay(arguments: ReplayArgs, cancel: CancellationToken) -> anyhow::Result<()> {
    let mut options = ReplayOptions::new(arguments.file, arguments.broker);
    options.speed = arguments.speed;
    options.secrets = secrets(arguments.secrets.as_deref())?;
    let line = line();
    let report = simulator::replay(&options, |now| line.set_message(now.to_string()), &cancel).await?;
    line.finish_and_clear();
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{report}");
    }
    anyhow::ensure!(
        report.unacked == 0 || cancel.is_cancelled(),
        "{} messages were not acknowledged",
        report.unacked
    );
    Ok(())
}
