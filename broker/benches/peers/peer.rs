//! The servers that are compared, as processes whose memory and CPU can be read.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use procfs::process::Process;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::Failure;
use crate::serve::{LIMITS, SERVE};

/// Open files that are not connections.
const FILES_SPARE: usize = 300;
const START_MAX: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Gate,
    Mosquitto,
}

impl Kind {
    pub(crate) const BOTH: [Self; 2] = [Self::Gate, Self::Mosquitto];

    /// Where its program is, if it is installed.
    pub(crate) fn program(self) -> Option<PathBuf> {
        if self == Self::Gate {
            return std::env::current_exe().ok();
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
        folders.map(|folder| folder.join("mosquitto")).find(|path| path.is_file())
    }
}

/// Raises the limit of open files, which the servers inherit, and says how many connections it allows.
pub(crate) fn connections_possible() -> usize {
    let limit = getrlimit(Resource::Nofile);
    // Refused: what is allowed now stays.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let files = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |files| files as usize);
    files.saturating_sub(FILES_SPARE)
}

/// A CA, a server and a terminal.
pub(crate) struct Certificates {
    folder: TempDir,
    pub(crate) ca_pem: String,
    pub(crate) client_pem: String,
    pub(crate) client_key_pem: String,
}

impl Certificates {
    pub(crate) fn make() -> Result<Self, Failure> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "bench CA");
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let leaf = |names: Vec<String>, name: &str| -> Result<_, Failure> {
            let mut params = CertificateParams::new(names)?;
            params.distinguished_name.push(DnType::CommonName, name);
            let key = KeyPair::generate()?;
            Ok((params.signed_by(&key, &ca)?.pem(), key.serialize_pem()))
        };
        let (server, server_key) = leaf(vec!["localhost".into(), "127.0.0.1".into()], "localhost")?;
        let (client_pem, client_key_pem) = leaf(Vec::new(), "T000000")?;
        let folder = tempfile::tempdir()?;
        let ca_pem = ca.pem();
        for (name, text) in [("ca.pem", &ca_pem), ("server.pem", &server), ("server.key", &server_key)] {
            std::fs::write(folder.path().join(name), text)?;
        }
        Ok(Self { folder, ca_pem, client_pem, client_key_pem })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// A running server. Dropped, it is killed.
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    process: Process,
    // Closes its standard input when dropped.
    _child: Child,
    _folder: Option<TempDir>,
}

impl Peer {
    /// `None`: it is not installed. `with_limits` concerns the gate alone.
    pub(crate) async fn start(
        kind: Kind,
        certificates: Option<&Certificates>,
        with_limits: bool,
    ) -> Result<Option<Self>, Failure> {
        let Some(program) = kind.program() else { return Ok(None) };
        let mut command = Command::new(program);
        command.kill_on_drop(true);
        match kind {
            Kind::Gate => Self::gate(command, certificates, with_limits).await.map(Some),
            Kind::Mosquitto => Self::mosquitto(command, certificates).await.map(Some),
        }
    }

    async fn gate(
        mut command: Command,
        certificates: Option<&Certificates>,
        with_limits: bool,
    ) -> Result<Self, Failure> {
        command.env(SERVE, certificates.map_or(Path::new(""), Certificates::path));
        if with_limits {
            command.env(LIMITS, "1");
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().ok_or("no standard output")?;
        let line = tokio::time::timeout(START_MAX, BufReader::new(stdout).lines().next_line()).await??;
        let address = line.ok_or("the gate ended")?.parse()?;
        Self::new(child, address, None)
    }

    async fn mosquitto(mut command: Command, certificates: Option<&Certificates>) -> Result<Self, Failure> {
        let folder = tempfile::tempdir()?;
        // A port that was free a moment ago.
        let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let tls = certificates.map_or_else(String::new, |certificates| {
            let path = certificates.path().display();
            format!(
                "cafile {path}/ca.pem\ncertfile {path}/server.pem\nkeyfile {path}/server.key\n\
                 require_certificate true\n"
            )
        });
        let text = format!(
            "user root\nlog_dest none\npersistence false\nset_tcp_nodelay true\nmax_connections -1\n\
             max_queued_messages 0\nallow_anonymous true\nlistener {} 127.0.0.1\n{tls}",
            address.port()
        );
        let file = folder.path().join("mosquitto.conf");
        std::fs::write(&file, text)?;
        let mut child = command
            .arg("-c")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let deadline = Instant::now() + START_MAX;
        while TcpStream::connect(address).await.is_err() {
            if child.try_wait()?.is_some() || Instant::now() > deadline {
                return Err("mosquitto does not start".into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Self::new(child, address, Some(folder))
    }

    fn new(child: Child, address: SocketAddr, folder: Option<TempDir>) -> Result<Self, Failure> {
        let id = child.id().ok_or("the server ended")?;
        Ok(Self { address, process: Process::new(id.cast_signed())?, _child: child, _folder: folder })
    }

    /// Resident memory.
    pub(crate) fn resident_kb(&self) -> Result<u64, Failure> {
        Ok(self.process.status()?.vmrss.ok_or("the server ended")?)
    }

    /// CPU used so far.
    pub(crate) fn cpu_us(&self) -> Result<f64, Failure> {
        let stat = self.process.stat()?;
        Ok((stat.utime + stat.stime) as f64 * 1e6 / procfs::ticks_per_second() as f64)
    }
}
