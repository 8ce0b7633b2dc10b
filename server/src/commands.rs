//! Runs one command of the command line and turns its outcome into an exit code.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::CommandFactory;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::cli::{Cli, Command, DbCommand, DispatchCommand, ServeArgs};
use crate::config::{Config, LogFormat};
use crate::{
    account, app, audit, database, db_status, demo, dispatch, logging, pki, profile, quarantine, schema,
    terminal, traffic,
};

/// Runs it. 0: done; 1: it failed, and standard error says why; 2: the command line or the configuration is
/// wrong.
pub(crate) fn run(cli: Cli) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&anyhow::Error::new(error).context("the runtime does not start")),
    };
    let outcome = runtime.block_on(command(cli.command));
    // A task that does not listen must not keep the process alive.
    runtime.shutdown_background();
    match outcome {
        Ok(code) => code,
        Err(error) => failed(&error),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("liftwatch: {error:#}");
    let wrong_input = error.downcast_ref::<crate::config::ConfigError>().is_some();
    if wrong_input { ExitCode::from(2) } else { ExitCode::FAILURE }
}

async fn command(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(arguments) => serve(arguments).await?,
        Command::Demo(arguments) => return demo::run(&arguments, stop_on_signal()?).await,
        Command::Simulate(arguments) => {
            quiet_log()?;
            traffic::simulate(*arguments, stop_on_signal()?).await?;
        }
        Command::Record(arguments) => {
            quiet_log()?;
            traffic::record(arguments, stop_on_signal()?).await?;
        }
        Command::Replay(arguments) => {
            quiet_log()?;
            traffic::replay(arguments, stop_on_signal()?).await?;
        }
        Command::Dispatch(command) => dispatch_command(command).await?,
        Command::Pki(command) => pki::run(command)?,
        Command::Terminal(command) => {
            quiet_log()?;
            terminal::run(command).await?;
        }
        Command::Schema(arguments) => schema::run(&arguments)?,
        Command::Profile(command) => return profile::run(command),
        Command::Account(command) => {
            quiet_log()?;
            account::run(command).await?;
        }
        Command::Audit(arguments) => {
            quiet_log()?;
            return Ok(audit::run(arguments).await);
        }
        Command::Quarantine(command) => {
            quiet_log()?;
            quarantine::run(command).await?;
        }
        Command::Db(command) => db(command).await?,
        Command::CheckConfig(arguments) => {
            profile::load(&load(arguments.config.as_deref())?)?;
            println!("the configuration is sound");
        }
        Command::PrintConfig(arguments) => print!("{}", load(arguments.config.as_deref())?.to_toml()),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "liftwatch", &mut std::io::stdout());
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn load(path: Option<&Path>) -> anyhow::Result<Config> {
    Ok(Config::load(path, std::env::vars_os())?)
}

/// For commands whose output is for people: warnings only.
fn quiet_log() -> anyhow::Result<()> {
    logging::start(LogFormat::Text, "warn")
}

/// Signals this close together are one wish: some senders signal a process and its group.
const SIGNALS_APART: Duration = Duration::from_millis(500);

/// Cancelled by SIGTERM or Ctrl-C. A second one ends the process at once.
pub(crate) fn stop_on_signal() -> anyhow::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate()).context("no handler for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("no handler for SIGINT")?;
    let cancel = CancellationToken::new();
    let told = cancel.clone();
    tokio::spawn(async move {
        let mut first = None;
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if first.get_or_insert_with(Instant::now).elapsed() > SIGNALS_APART {
                eprintln!("liftwatch: stopped at once by a second signal");
                #[allow(clippy::disallowed_methods)] // the server crate is the one that may exit
                std::process::exit(130);
            }
            told.cancel();
        }
    });
    Ok(cancel)
}

/// Tells where the server listens, from when all is ready until it stops. One that a killed run has left is taken
/// away: its ports may be nobody's, or somebody else's.
struct ReadyFile(Option<PathBuf>);

impl ReadyFile {
    fn new(path: Option<PathBuf>) -> anyhow::Result<Self> {
        if let Some(path) = &path
            && let Err(error) = std::fs::remove_file(path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            let what = format!("the ready file {} cannot be taken away", path.display());
            return Err(error).context(what);
        }
        Ok(Self(path))
    }

    /// Complete or absent: a reader must never see half of it.
    fn write(&self, addresses: &app::Addresses) -> anyhow::Result<()> {
        let Some(path) = &self.0 else { return Ok(()) };
        let new = path.with_extension("new");
        std::fs::write(&new, serde_json::to_vec_pretty(addresses)?)
            .and_then(|()| std::fs::rename(&new, path))
            .with_context(|| format!("the ready file {} cannot be written", path.display()))
    }
}

impl Drop for ReadyFile {
    fn drop(&mut self) {
        // Gone already, or nothing can be done about it any more.
        let _ = self.0.as_ref().map(std::fs::remove_file);
    }
}

async fn serve(arguments: ServeArgs) -> anyhow::Result<()> {
    let config = load(arguments.config.config.as_deref())?;
    config.check_serve(arguments.dev)?;
    logging::start(config.log.format, &config.log.level)?;
    let cancel = stop_on_signal()?;
    let ready = ReadyFile::new(arguments.ready_file)?;
    // A private database may have to be fetched; migrations and the replay of the rules may take long.
    let start = async {
        let url = database::url(&config).await?;
        app::App::start(&config, &url, arguments.dev).await
    };
    let Some(running) = cancel.run_until_cancelled(start).await.transpose()? else {
        tracing::info!("stopped before it was ready");
        return Ok(());
    };
    let addresses = running.addresses();
    ready.write(addresses)?;
    tracing::info!(
        broker = addresses.broker.map(tracing::field::display),
        broker_tls = addresses.broker_tls.map(tracing::field::display),
        broker_websocket = addresses.broker_websocket.map(tracing::field::display),
        dispatch = addresses.dispatch.map(tracing::field::display),
        web = addresses.web.map(tracing::field::display),
        "ready"
    );
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    running.run(cancel).await
}

async fn dispatch_command(command: DispatchCommand) -> anyhow::Result<()> {
    match command {
        DispatchCommand::Watch { server, resume_after, areas, severity_min, json, count } => {
            let options = dispatch::WatchOptions { resume_after, areas, severity_min, json, count };
            dispatch::watch(&server.server, options, stop_on_signal()?).await
        }
        DispatchCommand::Ack { server, alarm_id, actor, key, note } => {
            let mut client = dispatch::connect(&server.server).await?;
            let (no, alarm) = dispatch::acknowledge(&mut client, &alarm_id, &actor, key, &note).await?;
            println!("acknowledged as #{no}");
            dispatch::show_alarm(&alarm, false)
        }
        DispatchCommand::List { server, open, json } => {
            dispatch::list(&mut dispatch::connect(&server.server).await?, open, json).await
        }
        DispatchCommand::Show { server, alarm_id } => {
            dispatch::show(&mut dispatch::connect(&server.server).await?, &alarm_id).await
        }
    }
}

async fn db(command: DbCommand) -> anyhow::Result<()> {
    match command {
        DbCommand::Up => println!("{}", database::up(&load(None)?).await?),
        DbCommand::Down => database::down(&load(None)?).await?,
        DbCommand::Url => println!("{}", database::local_url(&load(None)?).await?),
        DbCommand::Migrate(arguments) => {
            let config = load(arguments.config.as_deref())?;
            logging::start(LogFormat::Text, "info")?;
            database::upgrade(&config).await?;
            println!("the schema is that of this version");
        }
        DbCommand::Status { config, json } => {
            quiet_log()?;
            db_status::run(&load(config.config.as_deref())?, json).await?;
        }
    }
    Ok(())
}
