//! What a test may do to a cluster of its own: freeze it, fill its disk, give it a standby.

use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::process::{Command, Output};

use sqlx::AssertSqlSafe;
use sqlx::Connection;
use sqlx::postgres::PgConnection;

use super::TestCluster;
use super::home::Home;
use crate::local::LocalDatabase;

impl TestCluster {
    /// One whose data lies on a disk of so many megabytes, write-ahead log included. `None` where this account may
    /// not mount one.
    pub async fn on_disk(megabytes: u32) -> Option<Self> {
        let home = Home::on_disk(megabytes)?;
        Some(Self::at(home, "min_wal_size = 32MB\nmax_wal_size = 48MB").await)
    }

    /// Takes all that is left of its disk.
    pub fn disk_fill(&self) {
        let ballast = std::fs::File::create(self.ballast()).expect("a file");
        let chunk = vec![0_u8; 64 << 10];
        while std::io::Write::write_all(&mut &ballast, &chunk).is_ok() {}
    }

    /// Gives it back.
    pub fn disk_free(&self) {
        std::fs::remove_file(self.ballast()).expect("the ballast is there");
    }

    fn ballast(&self) -> std::path::PathBuf {
        self.home().join("ballast")
    }

    /// Stops all its processes where they are, as an overloaded or suspended machine would. Connections stay open
    /// and nobody answers.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Lets them go on.
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    /// The postmaster first, so that it makes no more of them meanwhile.
    fn signal(&self, signal: &str) {
        let file = std::fs::read_to_string(self.home().join("data/postmaster.pid")).expect("it runs");
        let postmaster = file.lines().next().expect("a process id").to_owned();
        run(Command::new("kill").args([signal, &postmaster]));
        let children = Command::new("pgrep").args(["-P", &postmaster]).output().expect("pgrep runs");
        for child in String::from_utf8_lossy(&children.stdout).lines() {
            // One may have ended by itself.
            let _ = Command::new("kill").args([signal, child]).status();
        }
    }

    /// A standby that streams from this one, which waits for it with every commit from now on.
    pub async fn standby(&self) -> Self {
        let home = Home::new();
        let owner = std::fs::metadata(self.home().join("data")).expect("the data");
        let socket = home.path().join("run");
        std::fs::create_dir(&socket).expect("a directory");
        for path in [home.path(), &socket] {
            chown(path, Some(owner.uid()), Some(owner.gid())).expect("it can be given away");
        }
        let local = LocalDatabase::new().at(home.path()).with_binaries(&self.bin);
        let url = local.url().await.expect("a url");
        let standby = Self { local, url, home, bin: self.bin.clone() };
        let (from, to) = (self.home().join("run"), standby.home().join("data"));
        let from = from.to_str().expect("UTF-8");
        standby.server_tool(
            "pg_basebackup",
            &["-h", from, "-U", "liftwatch", "-R", "-X", "stream", "-c", "fast"],
            &to,
        );
        let socket = format!("-k '{}'", socket.display());
        let log = standby.home().join("data/server.log");
        let log = log.to_str().expect("UTF-8").to_owned();
        standby.server_tool("pg_ctl", &["-w", "-s", "-l", &log, "-o", &socket, "start"], &to);
        let mut primary = PgConnection::connect(self.url()).await.expect("the primary answers");
        for sql in ["ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()"] {
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut primary).await.expect(sql);
        }
        standby
    }

    /// Makes a standby the primary; it waits for no other.
    pub async fn promote(&self) {
        self.server_tool("pg_ctl", &["-w", "-s", "promote"], &self.home().join("data"));
        let mut primary = PgConnection::connect(self.url()).await.expect("it answers");
        for sql in ["ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()"] {
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut primary).await.expect(sql);
        }
    }

    /// A tool of PostgreSQL on a data directory, as the account that owns the cluster.
    fn server_tool(&self, tool: &str, arguments: &[&str], data: &Path) {
        let owner = std::fs::metadata(self.home().join("run")).expect("the socket directory");
        let mut command = Command::new("setpriv");
        command.args([
            "--reuid",
            &owner.uid().to_string(),
            "--regid",
            &owner.gid().to_string(),
            "--clear-groups",
        ]);
        if !is_root() {
            command = Command::new("env");
        }
        command.arg(self.bin.join(tool)).arg("-D").arg(data).args(arguments).current_dir("/");
        // A server that is started must not hold our pipes open.
        let status = command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null()).status();
        assert!(status.is_ok_and(|status| status.success()), "{tool} {arguments:?}");
    }
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

fn run(command: &mut Command) -> Output {
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{command:?}: {output:?}");
    output
}
