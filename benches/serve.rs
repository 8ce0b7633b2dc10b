//! A real `liftwatch serve` process for a benchmark.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use procfs::process::Process;

/// A running server; ended with the value.
pub(crate) struct Served {
    child: Child,
    /// Where its broker listens.
    pub(crate) broker: String,
    _folder: tempfile::TempDir,
}

impl Served {
    /// Starts it on this database and waits until it is ready.
    pub(crate) async fn start(database_url: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let ready = folder.path().join("ready.json");
        let mut child = Command::new(env!("CARGO_BIN_EXE_liftwatch"))
            .args(["serve", "--dev", "--ready-file"])
            .arg(&ready)
            .env("LIFTWATCH_DATABASE__URL", database_url)
            .envs(
                ["BROKER", "DISPATCH", "WEB"]
                    .map(|name| (format!("LIFTWATCH_{name}__LISTEN"), "127.0.0.1:0")),
            )
            .stdout(Stdio::null())
            .spawn()
            .expect("liftwatch starts");
        let deadline = Instant::now() + Duration::from_mins(1);
        loop {
            let found = std::fs::read(&ready).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
            let found: Option<serde_json::Value> = found;
            if let Some(broker) = found.as_ref().and_then(|all| all["broker"].as_str()) {
                return Self { child, broker: broker.to_owned(), _folder: folder };
            }
            assert!(child.try_wait().is_ok_and(|ended| ended.is_none()), "the server ended");
            assert!(Instant::now() < deadline, "the server is not ready");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Its process.
    pub(crate) fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Its resident memory.
    pub(crate) fn resident_mb(&self) -> f64 {
        let status = Process::new(self.pid()).and_then(|process| process.status());
        status.ok().and_then(|status| status.vmrss).unwrap_or(0) as f64 / 1024.0
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}
