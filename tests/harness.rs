//! Starts and stops real servers, and waits for conditions with a deadline.

use std::fs;
use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde::Deserialize;

/// How long anything may take on a slow machine.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Where a server listens, as its ready file says.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Addresses {
    pub(crate) broker: SocketAddr,
    pub(crate) broker_tls: Option<SocketAddr>,
    pub(crate) dispatch: SocketAddr,
    pub(crate) web: SocketAddr,
}

/// A running `liftwatch serve`, with `--dev` unless it was guarded. Killed when dropped.
pub(crate) struct Server {
    child: Child,
    folder: tempfile::TempDir,
    database_url: String,
    how: How,
    pub(crate) addresses: Addresses,
}

impl Server {
    /// Starts one on free ports and waits until it is ready.
    pub(crate) async fn start(database_url: &str) -> Self {
        let how = How { arguments: vec!["--dev"], variables: Vec::new() };
        Self::start_as(database_url, how).await
    }

    /// Starts one without `--dev`, with further settings.
    pub(crate) async fn guarded(database_url: &str, settings: &[(&'static str, &str)]) -> Self {
        let variables = settings.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Self::start_as(database_url, How { arguments: Vec::new(), variables }).await
    }

    /// Starts one with `--dev` and further settings.
    pub(crate) async fn start_with(database_url: &str, settings: &[(&'static str, &str)]) -> Self {
        let variables = settings.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Self::start_as(database_url, How { arguments: vec!["--dev"], variables }).await
    }

    async fn start_as(database_url: &str, how: How) -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let free = Addresses {
            broker: free_address(),
            broker_tls: None,
            dispatch: free_address(),
            web: free_address(),
        };
        let (child, addresses) = spawn(&folder, database_url, &how, &free).await;
        Self { child, folder, database_url: database_url.to_owned(), how, addresses }
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
    }

    /// Starts it again after its end, on the same ports.
    pub(crate) async fn restart(&mut self) {
        let (child, addresses) = spawn(&self.folder, &self.database_url, &self.how, &self.addresses).await;
        self.child = child;
        self.addresses = addresses;
    }

    /// SIGTERM, and how it ended.
    pub(crate) async fn terminate(&mut self) -> ExitStatus {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs").success());
        eventually("the server ends", async || self.child.try_wait().expect("wait")).await
    }

    /// What it wrote to its log so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// The `liftwatch` command with arguments, run to its end: (success, standard output, standard error).
    pub(crate) fn run(arguments: &[&str]) -> (bool, String, String) {
        let output = command().args(arguments).output().expect("liftwatch runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        (output.status.success(), text(output.stdout), text(output.stderr))
    }

    /// GET of a page: status and body.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        get(self.addresses.web, path).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of the server\n{}", self.log());
        }
    }
}

/// The binary under test.
pub(crate) fn binary() -> PathBuf {
    env!("CARGO_BIN_EXE_liftwatch").into()
}

/// The `liftwatch` command, without the variables that are for the tests themselves.
pub(crate) fn command() -> Command {
    let mut command = Command::new(binary());
    command.env_remove("LIFTWATCH_CHAOS_MINUTES").env_remove("LIFTWATCH_CHAOS_SEED");
    command
}

/// At a port that this process has not given out before, and at which nobody listens. Below the ports that the
/// kernel gives to outgoing connections (from 32768), of which a fleet makes many: a server that is killed finds
/// its ports free again.
fn free_address() -> SocketAddr {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    loop {
        // Another process begins at another port, and does not meet us at each step.
        let step = GIVEN.fetch_add(7, Ordering::Relaxed);
        let port = 20_000 + std::process::id().wrapping_add(step) % 12_000;
        let address = SocketAddr::from(([127, 0, 0, 1], port as u16));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// Arguments and settings of a server.
struct How {
    arguments: Vec<&'static str>,
    variables: Vec<(&'static str, String)>,
}

async fn spawn(
    folder: &tempfile::TempDir,
    database_url: &str,
    how: &How,
    listen: &Addresses,
) -> (Child, Addresses) {
    let ready = folder.path().join("ready.json");
    let _ = fs::remove_file(&ready);
    let log =
        fs::OpenOptions::new().create(true).append(true).open(folder.path().join("log")).expect("a log file");
    let mut child = command()
        .arg("serve")
        .args(&how.arguments)
        .arg("--ready-file")
        .arg(&ready)
        .envs(how.variables.iter().map(|(name, value)| (name, value)))
        .env("LIFTWATCH_DATABASE__URL", database_url)
        .env("LIFTWATCH_BROKER__LISTEN", listen.broker.to_string())
        .env("LIFTWATCH_DISPATCH__LISTEN", listen.dispatch.to_string())
        .env("LIFTWATCH_WEB__LISTEN", listen.web.to_string())
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a second handle"))
        .stderr(log)
        .spawn()
        .expect("liftwatch starts");
    let addresses = eventually("the server is ready", async || {
        if let Some(status) = child.try_wait().expect("wait") {
            let log = fs::read_to_string(folder.path().join("log")).unwrap_or_default();
            panic!("the server ended at once ({status}):\n{log}");
        }
        fs::read(&ready).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok())
    })
    .await;
    (child, addresses)
}

/// Asks again until there is an answer; panics after [`PATIENCE`].
pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Fails instead of waiting for ever.
pub(crate) async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    let Ok(done) = tokio::time::timeout(PATIENCE, work).await else {
        panic!("waited {PATIENCE:?} for: {what}")
    };
    done
}

/// GET over HTTP/1.1: status and body.
pub(crate) async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut socket = tokio::net::TcpStream::connect(address).await.expect("connect");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.expect("write");
    let mut answer = Vec::new();
    within("an answer over HTTP", socket.read_to_end(&mut answer)).await.expect("read");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    (status, body.to_owned())
}

/// `mosquitto_pub`: publishes one message with QoS 1 and waits for its acknowledgement.
pub(crate) async fn mosquitto_pub(
    broker: SocketAddr,
    terminal: &str,
    topic: &str,
    payload: &[u8],
) -> std::process::Output {
    use tokio::io::AsyncWriteExt;
    let mut child = tokio::process::Command::new("mosquitto_pub")
        .args([
            "-h",
            "127.0.0.1",
            "-p",
            &broker.port().to_string(),
            "-i",
            terminal,
            "-q",
            "1",
            "-t",
            topic,
            "-s",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("mosquitto_pub is installed: apt install mosquitto-clients");
    let mut input = child.stdin.take().expect("piped");
    input.write_all(payload).await.expect("write");
    drop(input);
    within("mosquitto_pub ends", child.wait_with_output()).await.expect("mosquitto_pub runs")
}

/// A time as terminals write it.
pub(crate) fn now() -> String {
    domain::Timestamp::from(time::OffsetDateTime::now_utc()).to_string()
}
