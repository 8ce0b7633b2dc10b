//! `simulate`, `record`, `replay`: traffic made, kept and sent again.

use std::time::Duration;

use anyhow::Context;
use simulator::{Fault, FleetConfig};
use tokio_util::sync::CancellationToken;

use crate::cli::{FormatArg, SimulateArgs};

/// When the first fault without a time of its own begins.
const FIRST_FAULT: Duration = Duration::from_secs(5);

/// `KIND` or `KIND@SECONDS`.
fn fault(text: &str) -> anyhow::Result<(Fault, Duration)> {
    let (kind, after) = match text.split_once('@') {
        Some((kind, seconds)) => {
            let seconds = seconds.trim_end_matches('s').parse::<f64>();
            let after = seconds.ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
            (kind, after.with_context(|| format!("'{text}': write KIND@SECONDS, as in entrapment@5"))?)
        }
        None => (text, FIRST_FAULT),
    };
    Ok((kind.parse()?, after))
}

pub(crate) async fn simulate(arguments: SimulateArgs, cancel: CancellationToken) -> anyhow::Result<()> {
    let faults = arguments.faults.iter().map(|text| fault(text)).collect::<anyhow::Result<Vec<_>>>()?;
    let config = FleetConfig {
        broker: arguments.broker,
        terminals: arguments.terminals,
        rate: arguments.rate,
        duration: arguments.duration,
        seed: arguments.seed,
        areas: arguments.areas,
        window: arguments.window,
        json: matches!(arguments.format, FormatArg::Json),
        prefix: arguments.prefix,
        acked_file: arguments.acked,
        truth_file: arguments.truth,
        ..FleetConfig::default()
    };
    let report = simulator::run(config, faults, true, cancel).await?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{report}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_have_a_kind_and_a_time() {
        assert_eq!(fault("button@1.5").unwrap(), (Fault::AlarmButton, Duration::from_millis(1500)));
        assert_eq!(fault("entrapment").unwrap().1, FIRST_FAULT);
        assert!(fault("entrapment@soon").unwrap_err().to_string().contains("SECONDS"));
        assert!(fault("gremlin").is_err());
    }
}
