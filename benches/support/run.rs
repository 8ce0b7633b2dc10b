//! A real `liftwatch serve` process, and who used how much of the machine.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use procfs::process::{Process, all_processes};

/// Says how busy the machine is with other things.
pub(crate) fn print_load() {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("load average {}", load.split(' ').take(3).collect::<Vec<_>>().join(" "));
}

/// A server in development mode.
#[derive(Debug)]
pub(crate) struct Server {
    process: Child,
    broker: String,
    _folder: tempfile::TempDir,
}

impl Server {
    /// Waits until it is ready.
    pub(crate) async fn start(program: &Path, database_url: &str) -> Self {
        Self::start_at(program, database_url, "127.0.0.1:0").await
    }

    /// The same with its broker at an address.
    pub(crate) async fn start_at(program: &Path, database_url: &str, broker: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let ready = folder.path().join("ready.json");
        let mut process = Command::new(program)
            .args(["serve", "--dev", "--ready-file"])
            .arg(&ready)
            .env("LIFTWATCH_DATABASE__URL", database_url)
            .env("LIFTWATCH_BROKER__LISTEN", broker)
            .envs(["DISPATCH", "WEB"].map(|name| (format!("LIFTWATCH_{name}__LISTEN"), "127.0.0.1:0")))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("liftwatch starts");
        let broker = address(&ready, &mut process).await;
        Self { process, broker, _folder: folder }
    }

    /// Where its broker listens.
    pub(crate) fn broker(&self) -> &str {
        &self.broker
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Ends it in an orderly way.
    pub(crate) fn stop(mut self) {
        let _ = Command::new("kill").args(["-TERM", &self.process.id().to_string()]).status();
        let _ = self.process.wait();
    }

    /// Ends it as a failure would.
    pub(crate) fn kill(mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn address(ready: &Path, server: &mut Child) -> String {
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        let found = std::fs::read(ready).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let found: Option<serde_json::Value> = found;
        if let Some(address) = found.as_ref().and_then(|all| all["broker"].as_str()) {
            return address.to_owned();
        }
        assert!(server.try_wait().is_ok_and(|ended| ended.is_none()), "the server ended");
        assert!(Instant::now() < deadline, "the server is not ready");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The name of the database in a URL.
pub(crate) fn database_name(url: &str) -> &str {
    url.split('?').next().and_then(|url| url.rsplit('/').next()).unwrap_or_default()
}

/// Resident memory of a process.
pub(crate) fn memory_mb(pid: u32) -> f64 {
    let status = Process::new(pid.cast_signed()).and_then(|process| process.status());
    status.ok().and_then(|status| status.vmrss).unwrap_or(0) as f64 / 1024.0
}

/// Seconds of CPU.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Cpu {
    pub(crate) server: f64,
    pub(crate) postgres: f64,
    pub(crate) own: f64,
}

impl Cpu {
    pub(crate) fn plus(&self, other: &Self) -> Self {
        Self {
            server: self.server + other.server,
            postgres: self.postgres + other.postgres,
            own: self.own + other.own,
        }
    }
}

/// The counters at a moment.
#[derive(Debug)]
pub(crate) struct CpuMark {
    server: f64,
    own: f64,
    /// By process: what ends meanwhile takes its counter along, what begins has one from nothing.
    postgres: BTreeMap<i32, f64>,
}

impl CpuMark {
    /// Of a server, of this process, and of PostgreSQL for this database: its sessions, and what serves all databases
    /// of its cluster.
    pub(crate) fn now(server: Option<u32>, database: &str) -> Self {
        Self {
            server: server.map_or(0.0, cpu_of),
            own: Process::myself().map_or(0.0, |process| seconds(&process)),
            postgres: postgres(database),
        }
    }

    /// What was used since.
    pub(crate) fn since(&self, before: &Self) -> Cpu {
        let used = |(pid, now): (&i32, &f64)| now - before.postgres.get(pid).copied().unwrap_or(0.0);
        Cpu {
            server: self.server - before.server,
            postgres: self.postgres.iter().map(used).sum(),
            own: self.own - before.own,
        }
    }
}

fn postgres(database: &str) -> BTreeMap<i32, f64> {
    let processes: Vec<(Process, i32, String)> = all_processes()
        .into_iter()
        .flatten()
        .filter_map(|process| {
            let process = process.ok()?;
            let (parent, line) = (process.stat().ok()?.ppid, process.cmdline().ok()?.join(" "));
            line.contains("postgres").then_some((process, parent, line))
        })
        .collect();
    let cluster = processes.iter().find(|(_, _, line)| line.contains(database)).map(|(_, parent, _)| *parent);
    let is_ours = |parent: i32, line: &str| {
        Some(parent) == cluster && (line.contains(database) || !line.contains("liftwatch_test_"))
    };
    processes
        .iter()
        .filter(|(_, parent, line)| is_ours(*parent, line))
        .map(|(process, ..)| (process.pid, seconds(process)))
        .collect()
}

/// Seconds of CPU a process has used.
pub(crate) fn cpu_of(pid: u32) -> f64 {
    Process::new(pid.cast_signed()).map_or(0.0, |process| seconds(&process))
}

fn seconds(process: &Process) -> f64 {
    let ticks = process.stat().map_or(0, |stat| stat.utime + stat.stime);
    ticks as f64 / procfs::ticks_per_second() as f64
}
