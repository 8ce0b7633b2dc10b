//! The private database: what Liftwatch uses where no URL is configured.
//!
//! Owns a PostgreSQL with TimescaleDB of its own, made and driven by `deploy/timescaledb.sh`, which is embedded
//! so that an installed binary needs no checkout. It listens on a unix socket only, in a directory that nobody
//! else can enter, with fsync on. Nothing else on the system is changed.

use std::path::PathBuf;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;

use crate::StoreError;

const SCRIPT: &str = include_str!("../../deploy/timescaledb.sh");

/// A private database. Making this value starts nothing.
#[derive(Debug, Clone, Default)]
pub struct LocalDatabase {
    home: Option<PathBuf>,
    binaries: Option<PathBuf>,
    settings: Option<String>,
}

impl LocalDatabase {
    /// The one of this user: below `/var/lib/liftwatch` for root and `~/.local/share/liftwatch` for others.
    pub fn new() -> Self {
        Self::default()
    }

    /// One whose data lies in `home`; binaries stay shared.
    #[must_use]
    pub fn at(mut self, home: impl Into<PathBuf>) -> Self {
        self.home = Some(home.into());
        self
    }

    /// With these lines added to `postgresql.conf` when it is first made.
    #[must_use]
    pub fn with_settings(mut self, lines: impl Into<String>) -> Self {
        self.settings = Some(lines.into());
        self
    }

    /// With the PostgreSQL of this `bin` directory, which must have TimescaleDB.
    #[must_use]
    pub fn with_binaries(mut self, bin: impl Into<PathBuf>) -> Self {
        self.binaries = Some(bin.into());
        self
    }

    /// Downloads, creates and starts what is missing, and gives the URL. Takes 10 to 30 s the first time, an
    /// instant if it runs already. `progress` hears of each step.
    pub async fn up(&self, progress: impl FnMut(&str)) -> Result<String, StoreError> {
        self.run("start", &["up"], progress).await
    }

    /// Stops it, committing what is under way and refusing what is new.
    pub async fn down(&self) -> Result<(), StoreError> {
        self.run("stop", &["down"], |_| {}).await.map(drop)
    }

    /// Stops it without warning, as the kernel or a power cut would. For tests.
    #[doc(hidden)]
    pub async fn kill(&self) -> Result<(), StoreError> {
        self.run("kill", &["kill"], |_| {}).await.map(drop)
    }

    /// Its URL, whether it runs or not.
    pub async fn url(&self) -> Result<String, StoreError> {
        self.run("url", &["url"], |_| {}).await
    }

    /// The `bin` directory of its PostgreSQL, unpacked first where needed.
    pub async fn install(&self, progress: impl FnMut(&str)) -> Result<PathBuf, StoreError> {
        self.run("install", &["install"], progress).await.map(PathBuf::from)
    }

    /// A command that runs `psql` on it with these arguments, on this terminal.
    pub fn psql(&self, args: &[String]) -> Command {
        let mut command = self.command(&["psql"]);
        command.args(args);
        command
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("bash");
        command.arg("-c").arg(SCRIPT).arg("timescaledb.sh").args(args);
        let variables = [("TSDB_HOME", &self.home), ("TSDB_BIN", &self.binaries)];
        for (name, value) in variables {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        if let Some(settings) = &self.settings {
            command.env("TSDB_SETTINGS", settings);
        }
        command
    }

    async fn run(
        &self,
        what: &'static str,
        args: &[&str],
        mut progress: impl FnMut(&str),
    ) -> Result<String, StoreError> {
        let failed = |detail: String| StoreError::Local { what, detail };
        let mut child = self
            .command(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Whoever no longer waits for it lets go of its lock too.
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(format!("bash cannot be run: {error}")))?;
        let (Some(mut stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(failed("no pipes to bash".to_owned()));
        };
        // A started server may inherit neither pipe: both end with the script.
        let mut said = Tail::default();
        let mut lines = BufReader::new(stderr).lines();
        let listen = async {
            while let Ok(Some(line)) = lines.next_line().await {
                let line = line.strip_prefix("database: ").unwrap_or(&line);
                tracing::debug!(line, "private database");
                progress(line);
                said.push(line);
            }
        };
        let mut output = String::new();
        let (read, ()) = tokio::join!(stdout.read_to_string(&mut output), listen);
        read.map_err(|error| failed(error.to_string()))?;
        let status = child.wait().await.map_err(|error| failed(error.to_string()))?;
        if status.success() { Ok(output.trim().to_owned()) } else { Err(failed(said.into_text(status))) }
    }
}

/// The last lines of what the script said.
#[derive(Default)]
struct Tail(std::collections::VecDeque<String>);

impl Tail {
    const LINES_MAX: usize = 20;

    fn push(&mut self, line: &str) {
        if self.0.len() == Self::LINES_MAX {
            self.0.pop_front();
        }
        self.0.push_back(line.to_owned());
    }

    fn into_text(self, status: std::process::ExitStatus) -> String {
        if self.0.is_empty() { status.to_string() } else { Vec::from(self.0).join("; ") }
    }
}
