//! Who may connect: secrets, accounts, and changes while the server runs.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use store::testing::{TestCluster, TestDatabase};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Server, command, eventually, now, within};
use crate::ingest::count;

const AREA: &str = "350102";

/// An administrator's command: standard output without its last line break.
fn admin(database_url: &str, arguments: &[&str]) -> String {
    let output = run_admin(database_url, arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("UTF-8").trim_end().to_owned()
}

pub(crate) fn run_admin(database_url: &str, arguments: &[&str]) -> Output {
    let mut admin = command();
    admin.args(arguments).env("LIFTWATCH_DATABASE__URL", database_url).stdin(Stdio::null());
    admin.output().expect("liftwatch runs")
}

fn reading(seq: u32) -> String {
    format!(r#"{{"boot":7,"seq":{seq},"time":"{}","floor":"3"}}"#, now())
}

/// `mosquitto_pub` or `mosquitto_sub` with arguments, to its end.
async fn mosquitto(program: &str, broker: SocketAddr, arguments: &[&str]) -> Output {
    let port = broker.port().to_string();
    let mut command = tokio::process::Command::new(program);
    command.args(["-h", "127.0.0.1", "-p", &port]).args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    within(program, command.output()).await.expect("apt install mosquitto-clients")
}

/// A publish of terminal `id` under the topics of `topic_id`; was it acknowledged?
async fn publishes(broker: SocketAddr, id: &str, secret: &str, topic_id: &str, payload: &str) -> bool {
    let topic = format!("lift/v1/{AREA}/{topic_id}/telemetry.json");
    let arguments = ["-i", id, "-u", id, "-P", secret, "-q", "1", "-t", &topic, "-m", payload];
    mosquitto("mosquitto_pub", broker, &arguments).await.status.success()
}

/// A connection that stays open, in MQTT 3.1.1 by hand.
struct Session(TcpStream);

impl Session {
    /// Connects; an error is the return code of the CONNACK.
    async fn open(broker: SocketAddr, id: &str, username: &str, password: &str) -> Result<Self, u8> {
        let mut body = b"\x00\x04MQTT\x04\xc2\x00\x3c".to_vec();
        for text in [id, username, password] {
            body.extend(u16::try_from(text.len()).expect("short").to_be_bytes());
            body.extend(text.as_bytes());
        }
        let mut socket = TcpStream::connect(broker).await.expect("connect");
        let mut packet = vec![0x10, u8::try_from(body.len()).expect("short")];
        packet.extend(body);
        socket.write_all(&packet).await.expect("write");
        let mut answer = [0; 4];
        within("a CONNACK", socket.read_exact(&mut answer)).await.expect("read");
        if answer[3] == 0 { Ok(Self(socket)) } else { Err(answer[3]) }
    }

    /// Subscribes; whether it may.
    async fn subscribes(&mut self, filter: &str) -> bool {
        let mut packet = vec![0x82, u8::try_from(filter.len() + 5).expect("short"), 0, 1, 0];
        packet.push(u8::try_from(filter.len()).expect("short"));
        packet.extend(filter.as_bytes());
        packet.push(1);
        self.0.write_all(&packet).await.expect("write");
        let mut answer = [0; 5];
        within("a SUBACK", self.0.read_exact(&mut answer)).await.expect("read");
        answer[4] != 0x80
    }

    /// Whether a PINGREQ is answered.
    async fn lives(&mut self) -> bool {
        let mut answer = [0; 2];
        let asked = self.0.write_all(&[0xc0, 0]).await;
        asked.is_ok() && within("a PINGRESP", self.0.read_exact(&mut answer)).await.is_ok()
    }

    /// Waits until the server closes it.
    async fn ended(mut self) {
        let mut rest = Vec::new();
        // A reset is an end as well.
        let _ = within("the server ends the connection", self.0.read_to_end(&mut rest)).await;
    }
}

#[tokio::test]
async fn a_terminal_needs_its_secret_and_speaks_for_itself_alone() {
    let database = TestDatabase::new().await;
    let url = database.url();
    let secret = admin(url, &["terminal", "add", "t1", "--area", AREA]);
    let other = admin(url, &["terminal", "add", "t2", "--area", AREA]);
    assert_eq!((secret.len(), secret.lines().count()), (43, 1), "a script can take it");
    let server = Server::guarded(url, &[]).await;
    let broker = server.addresses.broker;

    assert!(publishes(broker, "t1", &secret, "t1", &reading(1)).await);
    assert_eq!(count(url, "SELECT count(*) FROM telemetry WHERE floor = '3'").await, 1);
    assert!(!publishes(broker, "t1", &other, "t1", &reading(2)).await, "another's secret");
    assert!(!publishes(broker, "t2", &secret, "t2", &reading(2)).await, "another's client id");
    assert!(!publishes(broker, "t1", &secret, "t2", &reading(2)).await, "another's topic");
    assert!(!publishes(broker, "t3", &secret, "t3", &reading(2)).await, "not registered");
    assert_eq!(count(url, "SELECT count(*) FROM telemetry").await, 1);

    for (id, password) in [("t1", "wrong"), ("t3", &*secret), ("t1", "")] {
        assert_eq!(Session::open(broker, id, id, password).await.err(), Some(4), "told the same: {id}");
    }
    let mut session =
        Session::open(broker, "t1", "t1", &secret).await.unwrap_or_else(|code| panic!("{code}"));
    assert!(session.subscribes("lift/v1/350102/t1/down").await);
    for foreign in ["lift/v1/350102/t2/down", "lift/v1/350102/t2/telemetry", "lift/v1/350102/t1/#", "#"] {
        assert!(!session.subscribes(foreign).await, "{foreign}");
    }
    let (_, metrics) = server.get("/metrics").await;
    assert!(metrics.contains("liftwatch_auth_refused_total{reason=\"credentials\"}"), "{metrics}");
    assert!(!server.log().contains(&secret), "no secret in the log");
}

#[tokio::test]
async fn changes_take_effect_while_the_server_runs() {
    let database = TestDatabase::new().await;
    let url = database.url();
    let server = Server::guarded(url, &[]).await;
    let broker = server.addresses.broker;
    let open = |id: &'static str, secret: String| async move {
        eventually("the terminal may connect", async || Session::open(broker, id, id, &secret).await.ok())
            .await
    };

    let secret = admin(url, &["terminal", "add", "t1", "--area", AREA]);
    let bystander = admin(url, &["terminal", "add", "t2", "--area", AREA]);
    let session = open("t1", secret.clone()).await;
    let mut other = open("t2", bystander).await;
    admin(url, &["terminal", "disable", "t1"]);
    session.ended().await;
    assert_eq!(Session::open(broker, "t1", "t1", &secret).await.err(), Some(5), "proven, but switched off");
    admin(url, &["terminal", "enable", "t1"]);
    let mut session = open("t1", secret.clone()).await;

    // The old secret is good until the new one was used.
    let second = admin(url, &["terminal", "rotate", "t1"]);
    let mut fresh = open("t1", second.clone()).await;
    assert_eq!(Session::open(broker, "t1", "t1", &secret).await.err(), Some(4), "the old one is used up");
    let settled = "SELECT count(*) FROM credential WHERE terminal_id = 't1' AND previous_hash IS NULL";
    eventually("the old secret is dropped", async || (count(url, settled).await == 1).then_some(())).await;
    assert!(fresh.lives().await, "a refused client pushes nobody out");
    assert!(!session.lives().await, "the newer connection took its place");

    let third = admin(url, &["terminal", "rotate", "t1", "--now"]);
    fresh.ended().await;
    drop(open("t1", third).await);
    assert!(other.lives().await, "nobody else was disturbed");
    let audit = "SELECT count(*) FROM audit WHERE action LIKE 'terminal.%' AND subject = 't1'";
    assert_eq!(count(url, audit).await, 5);
}

#[tokio::test]
async fn an_account_sees_its_divisions_only() {
    let database = TestDatabase::new().await;
    let url = database.url();
    let near = admin(url, &["terminal", "add", "near", "--area", AREA]);
    let far = admin(url, &["terminal", "add", "far", "--area", "360102"]);
    let password = admin(url, &["account", "add", "board", "--areas", "3501"]);
    let server = Server::guarded(url, &[]).await;
    let broker = server.addresses.broker;
    let account = ["-u", "board", "-P", &password];

    for foreign in ["lift/v1/360102/#", "lift/v1/#", "lift/v1/+/near/telemetry.json", "#"] {
        let arguments = [&account[..], &["-i", "board-x", "-t", foreign, "-W", "20"]].concat();
        let refused = mosquitto("mosquitto_sub", broker, &arguments).await;
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(told.contains("denied"), "{foreign}: {refused:?}");
    }
    let arguments =
        [&account[..], &["-i", "board", "-t", "lift/v1/350102/near/telemetry.json", "-m", "{}"]].concat();
    mosquitto("mosquitto_pub", broker, &[&arguments[..], &["-q", "1"]].concat()).await;
    assert_eq!(count(url, "SELECT count(*) FROM quarantine").await, 0, "an account publishes nothing");
    for id in ["near", "boardroom", "other"] {
        assert_eq!(Session::open(broker, id, "board", &password).await.err(), Some(5), "{id} is not its own");
    }

    let arguments = [
        &account[..],
        &["-i", "board-1", "-q", "1", "-t", "lift/v1/350102/+/telemetry.json", "-v", "-C", "1"],
    ]
    .concat();
    let seen = mosquitto("mosquitto_sub", broker, &arguments);
    let sent = async {
        eventually("the subscription stands", async || {
            let (_, metrics) = server.get("/metrics").await;
            metrics.contains("liftwatch_broker_hub_subscribers 1").then_some(())
        })
        .await;
        let topic = "lift/v1/360102/far/telemetry.json";
        let arguments = ["-i", "far", "-u", "far", "-P", &far, "-q", "1", "-t", topic, "-m", &reading(1)];
        assert!(mosquitto("mosquitto_pub", broker, &arguments).await.status.success());
        assert!(publishes(broker, "near", &near, "near", &reading(1)).await);
    };
    let (seen, ()) = tokio::join!(seen, sent);
    let text = String::from_utf8_lossy(&seen.stdout).into_owned();
    assert!(text.starts_with("lift/v1/350102/near/telemetry.json "), "{text}");

    let session =
        Session::open(broker, "board-2", "board", &password).await.unwrap_or_else(|code| panic!("{code}"));
    admin(url, &["account", "remove", "board"]);
    session.ended().await;
    assert_eq!(Session::open(broker, "board-2", "board", &password).await.err(), Some(4));
}

#[tokio::test]
async fn thousands_are_imported_at_once_or_not_at_all() {
    let database = TestDatabase::new().await;
    let url = database.url();
    let folder = tempfile::tempdir().expect("a folder");
    let (file, out) = (folder.path().join("fleet.csv"), folder.path().join("secrets.csv"));
    let (file, out) = (file.to_str().expect("UTF-8"), out.to_str().expect("UTF-8"));
    let secret = |number| if number == 7 { "a secret of its own" } else { "" };
    let mut rows = vec!["terminal_id,area,secret".to_owned()];
    rows.extend((0..5_000).map(|number| format!("t{number},350102,{}", secret(number))));
    let text = format!("{}\n", rows.join("\n"));
    std::fs::write(file, format!("{text}t9,350102,\nt/1,350102,\n")).expect("write");
    let refused = run_admin(url, &["terminal", "import", file, "--out", out]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success());
    assert!(told.contains("line 5002: t9 stands in line 11 already"), "{told}");
    assert!(told.contains("line 5003: terminal_id"), "{told}");
    assert_eq!(count(url, "SELECT count(*) FROM terminal").await, 0);

    std::fs::write(file, text).expect("write");
    let refused = run_admin(url, &["terminal", "import", file]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--out"), "{refused:?}");
    admin(url, &["terminal", "import", file, "--out", out]);
    assert_eq!(count(url, "SELECT count(*) FROM credential").await, 5_000);
    assert_eq!(admin(url, &["terminal", "list", "--json", "--area", "35"]).lines().count(), 5_000);
    let secrets = std::fs::read_to_string(out).expect("the secrets");
    assert_eq!(secrets.lines().count(), 5_000, "a head and those that were made up");
    let again = run_admin(url, &["terminal", "import", file, "--out", out]);
    assert!(!again.status.success(), "written secrets are not overwritten");
    assert_eq!(std::fs::read_to_string(out).expect("still there"), secrets);

    let server = Server::guarded(url, &[]).await;
    let broker = server.addresses.broker;
    let (id, secret) = secrets.lines().last().and_then(|line| line.split_once(',')).expect("a secret");
    assert!(publishes(broker, id, secret, id, &reading(1)).await);
    assert!(publishes(broker, "t7", "a secret of its own", "t7", &reading(1)).await);
}

#[tokio::test]
async fn a_simulated_fleet_connects_with_imported_secrets() {
    let database = TestDatabase::new().await;
    let url = database.url();
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let (fleet, out, password, recording) =
        (path("fleet.csv"), path("secrets.csv"), path("password"), path("traffic.lwr"));
    let rows: Vec<String> = (1..=20).map(|number| format!("sim-{number:06},350102")).collect();
    std::fs::write(&fleet, format!("terminal_id,area\n{}\n", rows.join("\n"))).expect("write");
    admin(url, &["terminal", "import", &fleet, "--out", &out]);
    std::fs::write(&password, admin(url, &["account", "add", "recorder", "--areas", "all"])).expect("write");
    let server = Server::guarded(url, &[]).await;
    let broker = server.addresses.broker.to_string();
    let record =
        ["record", &recording, "--broker", &broker, "--account", "recorder", "--password-file", &password];
    let mut recorder = command().args(record).spawn().expect("liftwatch runs");
    eventually("the recorder has subscribed", async || {
        let (_, metrics) = server.get("/metrics").await;
        metrics.contains("liftwatch_broker_hub_subscribers 1\n").then_some(())
    })
    .await;
    let simulate =
        ["simulate", "--broker", &broker, "--terminals", "20", "--rate", "200", "--duration", "2s"];
    let areas = ["--areas", "350102", "--secrets", &out, "--json"];
    let report = within("the fleet", async {
        tokio::process::Command::from(command())
            .args(simulate)
            .args(areas)
            .output()
            .await
            .expect("liftwatch runs")
    })
    .await;
    assert!(report.status.success(), "{report:?}");
    let stored = count(url, "SELECT count(*) FROM telemetry").await;
    assert!(stored > 0, "{report:?}");
    assert_eq!(count(url, "SELECT count(DISTINCT elevator_id) FROM telemetry").await, 20);
    let interrupted = Command::new("kill").args(["-INT", &recorder.id().to_string()]).status();
    assert!(interrupted.expect("kill runs").success());
    let ended = eventually("the recorder ends", async || recorder.try_wait().expect("wait")).await;
    assert!(ended.success());
    let replay = ["replay", &recording, "--broker", &broker, "--secrets", &out, "--speed", "0"];
    admin(url, &replay);
    assert_eq!(count(url, "SELECT count(*) FROM telemetry").await, stored, "a replay adds nothing");
}

/// Folder, certificate and key of a terminal as arguments of mosquitto's programs.
fn certificate(pki: &Path, authority: &Path, id: &str) -> Vec<String> {
    let file = |folder: &Path, name: &str| folder.join(name).to_str().expect("UTF-8").to_owned();
    let mut arguments = vec!["--cafile".to_owned(), file(authority, "ca.pem")];
    for (option, ending) in [("--cert", "pem"), ("--key", "key")] {
        arguments.extend([option.to_owned(), file(pki, &format!("terminals/{id}.{ending}"))]);
    }
    arguments
}

#[tokio::test]
async fn certificates_of_our_own_authority_are_proof_until_revoked() {
    let database = TestDatabase::new().await;
    let url = database.url();
    let folder = tempfile::tempdir().expect("a folder");
    let (pki, other) = (folder.path().join("pki"), folder.path().join("other"));
    let (dir, other_dir) = (pki.to_str().expect("UTF-8"), other.to_str().expect("UTF-8"));
    let printed = admin(url, &["pki", "init", "--dir", dir]);
    admin(url, &["pki", "issue", "t1", "t2", "--dir", dir]);
    let again = run_admin(url, &["pki", "issue", "t1", "--dir", dir]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("--renew"), "{again:?}");
    admin(url, &["pki", "init", "--dir", other_dir]);
    admin(url, &["pki", "issue", "t1", "--dir", other_dir]);
    for id in ["t1", "t2"] {
        admin(url, &["terminal", "add", id, "--area", AREA, "--no-secret"]);
    }
    let secret = admin(url, &["terminal", "add", "t3", "--area", AREA]);
    // What init prints is a configuration.
    let file = folder.path().join("liftwatch.toml");
    std::fs::write(&file, printed).expect("write");
    admin(url, &["check-config", "--config", file.to_str().expect("UTF-8")]);

    let path = |name: &str| pki.join(name).to_str().expect("UTF-8").to_owned();
    let settings = [
        ("LIFTWATCH_BROKER__TLS_LISTEN", "127.0.0.1:0"),
        ("LIFTWATCH_BROKER__TLS__CERTIFICATE", &path("server.pem")),
        ("LIFTWATCH_BROKER__TLS__KEY", &path("server.key")),
        ("LIFTWATCH_BROKER__TLS__CLIENT_CA", &path("ca.pem")),
        ("LIFTWATCH_BROKER__TLS__CRL", &path("crl.pem")),
    ];
    let server = Server::guarded(url, &settings).await;
    let broker = server.addresses.broker_tls.expect("a TLS listener");
    let publish = async |proof: &[String], id: &str, topic_id: &str, seq: u32| {
        let (topic, payload) = (format!("lift/v1/{AREA}/{topic_id}/telemetry.json"), reading(seq));
        let proof: Vec<&str> = proof.iter().map(String::as_str).collect();
        let message = ["-i", id, "-q", "1", "-t", &topic, "-m", &payload];
        mosquitto("mosquitto_pub", broker, &[&proof[..], &message].concat()).await.status.success()
    };
    let (first, second) = (certificate(&pki, &pki, "t1"), certificate(&pki, &pki, "t2"));

    assert!(publish(&first, "t1", "t1", 1).await);
    assert_eq!(count(url, "SELECT count(*) FROM telemetry WHERE floor = '3'").await, 1);
    assert!(!publish(&first, "t2", "t2", 2).await, "another's client id");
    assert!(!publish(&first, "t1", "t2", 2).await, "another's topic");
    assert!(!publish(&certificate(&other, &pki, "t1"), "t1", "t1", 2).await, "another authority's");
    assert!(!publish(&certificate(&pki, &other, "t1"), "t1", "t1", 2).await, "the client refuses the server");
    let alone = ["--cafile".to_owned(), path("ca.pem")];
    assert!(!publish(&alone, "t1", "t1", 2).await, "no proof");
    let by_secret = [&alone[..], &["-u", "t3", "-P", &secret].map(ToOwned::to_owned)].concat();
    assert!(publish(&by_secret, "t3", "t3", 1).await, "a secret will do");
    assert_eq!(count(url, "SELECT count(*) FROM telemetry").await, 2);

    let mut live = tokio::process::Command::new("mosquitto_sub")
        .args(["-h", "127.0.0.1", "-p", &broker.port().to_string(), "-i", "t1"])
        .args(["-t", "lift/v1/350102/t1/down"])
        .args(&first)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("mosquitto_sub runs");
    let connected = async |count: u32| {
        let (_, metrics) = server.get("/metrics").await;
        metrics.contains(&format!("liftwatch_broker_connected {count}\n")).then_some(())
    };
    eventually("the terminal is connected", async || connected(1).await).await;
    admin(url, &["pki", "revoke", "t1", "--dir", dir]);
    eventually("its connection ends and no other comes", async || connected(0).await).await;
    let _ = live.kill().await;
    assert!(!publish(&first, "t1", "t1", 3).await, "revoked");
    assert!(publish(&second, "t2", "t2", 1).await, "the other one is not");
    admin(url, &["pki", "issue", "t1", "--dir", dir]);
    assert!(publish(&certificate(&pki, &pki, "t1"), "t1", "t1", 3).await, "a new one is good");
}

#[tokio::test]
async fn terminals_connect_while_the_database_is_away() {
    let cluster = TestCluster::new().await;
    let url = cluster.url();
    let secret = admin(url, &["terminal", "add", "t1", "--area", AREA]);
    let server = Server::guarded(url, &[]).await;
    cluster.stop().await;
    let session = Session::open(server.addresses.broker, "t1", "t1", &secret).await;
    let mut session = session.unwrap_or_else(|code| panic!("refused: {code}"));
    cluster.start().await;
    eventually("a change is heard again", async || {
        run_admin(url, &["terminal", "disable", "t1"]).status.success().then_some(())
    })
    .await;
    eventually("the connection ends", async || (!session.lives().await).then_some(())).await;
}
