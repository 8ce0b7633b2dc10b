//! What a user sees who gets something wrong, and the commands that need no server.

use std::net::TcpListener;

use store::testing::TestDatabase;

use crate::harness::{Server, command};

#[test]
fn help_teaches() {
    let (success, out, _) = Server::run(&["--help"]);
    assert!(success);
    for word in ["liftwatch demo", "liftwatch serve --dev", "mosquitto_pub", "dispatch watch"] {
        assert!(out.contains(word), "{word} is missing:\n{out}");
    }
    for command in [
        "serve",
        "demo",
        "simulate",
        "record",
        "replay",
        "dispatch",
        "db",
        "check-config",
        "pki",
        "terminal",
        "profile",
        "account",
        "audit",
        "quarantine",
    ] {
        assert!(Server::run(&[command, "--help"]).0, "{command} --help");
    }
}

#[test]
fn a_wrong_key_is_named_with_its_line_and_the_nearest_right_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("wrong.toml");
    std::fs::write(&file, "[broker]\nlisten = \"127.0.0.1:0\"\nunackd_max = 5\n").expect("write");
    let (success, _, error) = Server::run(&["check-config", "--config", file.to_str().expect("UTF-8")]);
    assert!(!success);
    assert!(error.contains("unackd_max") && error.contains('3') && error.contains("unacked_max"), "{error}");
}

#[test]
fn the_printed_configuration_can_be_read_again() {
    let (success, out, _) = Server::run(&["print-config"]);
    assert!(success);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("printed.toml");
    std::fs::write(&file, out).expect("write");
    let (success, _, error) = Server::run(&["check-config", "--config", file.to_str().expect("UTF-8")]);
    assert!(success, "{error}");
}

#[test]
fn completions_are_printed() {
    assert!(Server::run(&["completions", "bash"]).1.contains("_liftwatch"));
}

/// Whatever ports are free.
const ANYWHERE: [(&str, &str); 3] = [
    ("LIFTWATCH_BROKER__LISTEN", "127.0.0.1:0"),
    ("LIFTWATCH_DISPATCH__LISTEN", "127.0.0.1:0"),
    ("LIFTWATCH_WEB__LISTEN", "127.0.0.1:0"),
];

fn serve(variables: &[(&str, &str)], arguments: &[&str]) -> String {
    let output = command()
        .arg("serve")
        .args(arguments)
        .envs(variables.iter().copied())
        .output()
        .expect("liftwatch runs");
    assert!(!output.status.success());
    String::from_utf8(output.stderr).expect("UTF-8")
}

#[test]
fn dev_refuses_a_public_address() {
    let error = serve(&[("LIFTWATCH_BROKER__LISTEN", "0.0.0.0:1883")], &["--dev"]);
    assert!(error.contains("broker.listen") && error.contains("loopback"), "{error}");
}

#[test]
fn a_missing_database_says_how_to_give_one() {
    let mut variables = vec![("LIFTWATCH_DATABASE__URL", "postgres://nobody@127.0.0.1:1/none")];
    variables.extend(ANYWHERE);
    let error = serve(&variables, &["--dev"]);
    assert!(error.contains("LIFTWATCH_DATABASE__URL"), "{error}");
}

#[tokio::test]
async fn a_port_in_use_says_which_listener() {
    let database = TestDatabase::new().await;
    let taken = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = taken.local_addr().expect("bound").to_string();
    for listener in ["BROKER", "DISPATCH", "WEB"] {
        let key = format!("LIFTWATCH_{listener}__LISTEN");
        let mut variables = vec![("LIFTWATCH_DATABASE__URL", database.url())];
        variables.extend(ANYWHERE.into_iter().filter(|(name, _)| *name != key));
        variables.push((&key, &address));
        let error = serve(&variables, &["--dev"]);
        let name = format!("{}.listen", listener.to_lowercase());
        assert!(error.contains(&name) && error.contains(&address), "{error}");
    }
}

#[tokio::test]
async fn db_status_is_for_people_and_for_programs() {
    let database = TestDatabase::new().await;
    let status = |arguments: &[&str]| {
        let output = command()
            .args(["db", "status"])
            .args(arguments)
            .env("LIFTWATCH_DATABASE__URL", database.url())
            .output()
            .expect("liftwatch runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let text = status(&[]);
    for word in ["PostgreSQL", "edition", "telemetry_1h", "rolled up", "KEPT", "MAINTENANCE"] {
        assert!(text.contains(word), "{word} is missing:\n{text}");
    }
    let json: serde_json::Value = serde_json::from_str(&status(&["--json"])).expect("JSON");
    assert_eq!(json["schema"]["pending"], serde_json::json!([]));
    assert_eq!(json["retention"][0]["table"], "telemetry");
}
