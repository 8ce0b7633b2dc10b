//! Logs: text for a person at a terminal, JSON for a machine. One place decides.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// Starts logging to standard error. `level` is a filter such as `info` or `info,broker=debug`; the
/// environment variable `RUST_LOG` goes before it.
pub(crate) fn start(format: LogFormat, level: &str) -> anyhow::Result<()> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(text)?,
        // The libraries' own chatter first, so that `level` may still ask for it.
        // Pools warn of each connection that a database takes along when it goes, and of each wait for its return.
        _ => EnvFilter::try_new(format!(
            "rumqttd=warn,sqlx=warn,sqlx::pool=error,sqlx_core::pool=error,{level}"
        ))?,
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let json = match format {
        LogFormat::Auto => !std::io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    // A second start in the same process (tests) keeps the first.
    let _ = if json {
        builder.json().flatten_event(true).with_current_span(false).try_init()
    } else {
        builder.with_ansi(std::io::stderr().is_terminal()).try_init()
    };
    Ok(())
}
