//! Vendor profiles from outside: the commands, and a vendor's payload on its way to rows.

use std::process::Output;

use store::testing::TestDatabase;

use crate::harness::{Server, command, eventually, mosquitto_pub, now};
use crate::ingest::count;

#[test]
fn profiles_are_listed_shown_checked_and_tried() {
    let (success, out, _) = Server::run(&["profile", "list"]);
    assert!(success && out.contains("gb24476") && out.contains("bacnet_escalator"), "{out}");
    let (success, shown, _) = Server::run(&["profile", "show", "retrofit"]);
    assert!(success && shown.contains("name = \"retrofit\""), "{shown}");
    let (success, _, error) = Server::run(&["profile", "show", "retrofitt"]);
    assert!(!success && error.contains("gprs_tlv"), "the known ones are named: {error}");

    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("acme.toml");
    let path = file.to_str().expect("UTF-8");
    std::fs::write(
        &file,
        shown.replace("\"retrofit\"", "\"acme\"").replace("5 = \"ran_door_open\"", "5 = \"ran_dor_open\""),
    )
    .expect("write");
    let (success, _, error) = Server::run(&["profile", "check", path]);
    let place = shown.lines().position(|line| line.starts_with("5 = ")).expect("code 5") + 1;
    assert!(!success && error.contains(&format!("{path}:{place}:5: unknown slug 'ran_dor_open'")), "{error}");
    assert!(error.contains("did you mean 'ran_door_open'?") && error.contains("1 mistake"), "{error}");

    std::fs::write(&file, &shown).expect("write");
    let (success, _, error) = Server::run(&["profile", "check", path]);
    assert!(
        !success && error.contains("of a profile that ships"),
        "a server would not start with it: {error}"
    );

    std::fs::write(&file, shown.replace("\"retrofit\"", "\"acme\"")).expect("write");
    assert!(Server::run(&["profile", "check", path]).0);
    let payload =
        r#"{"time":"2026-11-22 08:00:00","door_zone":0,"codes":"5,99","colour":"red","load_kg":99999}"#;
    let (success, out, _) = Server::run(&["profile", "try", path, payload]);
    assert!(success, "{out}");
    for told in [
        "2026-11-22T00:00:00Z",
        "door_zone = true",
        "ran_door_open",
        "开门走车",
        "unknown_code",
        "ignored: colour",
    ] {
        assert!(out.contains(told), "'{told}' is missing:\n{out}");
    }
    let counted = r#"{"time":1763769600000,"Total_Running_Time":1.5,"run_count":7}"#;
    let (success, out, _) = Server::run(&["profile", "try", path, counted, "--stats"]);
    assert!(success && out.contains("taken: statistics, running_s 5400, run_count 7"), "{out}");
    let (success, out, _) = Server::run(&["profile", "try", "exchange", r#"{"time":"noon"}"#, "--json"]);
    let tried: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert!(!success && tried["refused"].as_str().expect("refused").contains("no time"), "{out}");
}

fn liftwatch(url: &str, arguments: &[&str]) -> Output {
    command().args(arguments).env("LIFTWATCH_DATABASE__URL", url).output().expect("liftwatch runs")
}

#[tokio::test]
async fn a_vendors_payload_is_rows_with_the_right_meaning() {
    let database = TestDatabase::new().await;
    let add = |arguments: &[&str]| liftwatch(database.url(), &[&["terminal", "add"], arguments].concat());
    let refused = add(&["g1", "--area", "350102", "--profile", "gprs"]);
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && error.contains("gprs_tlv"), "{error}");
    assert!(add(&["g1", "--area", "350102", "--profile", "gprs_tlv"]).status.success());
    assert!(
        add(&["e1", "--area", "350102", "--profile", "exchange", "--kind", "escalator"]).status.success()
    );

    let server = Server::start(database.url()).await;
    let now = time::OffsetDateTime::now_utc().unix_timestamp() * 1_000;
    for (terminal, channel, payload) in [
        ("g1", "event", format!(r#"{{"boot":1,"seq":1,"time":{now},"code":"04","state":"open"}}"#)),
        (
            "g1",
            "telemetry",
            format!(r#"{{"boot":1,"seq":2,"time":{now},"car_direction":0,"codes":["0C","77"]}}"#),
        ),
        (
            "e1",
            "telemetry",
            format!(r#"{{"boot":1,"seq":1,"time":{now},"service_mode":3,"codes":["01","62"]}}"#),
        ),
    ] {
        let topic = format!("lift/v1/350102/{terminal}/{channel}.json");
        for _ in 0..2 {
            let sent = mosquitto_pub(server.addresses.broker, terminal, &topic, payload.as_bytes()).await;
            assert!(sent.status.success(), "{sent:?}");
        }
    }
    let found = async |sql| count(database.url(), sql).await;
    assert_eq!(found("SELECT count(*) FROM fault WHERE code = '04' AND slug = 'top_overrun'").await, 1);
    assert_eq!(
        found("SELECT count(*) FROM fault WHERE code = '04:entrapment' AND slug = 'entrapment'").await,
        1
    );
    assert_eq!(found("SELECT count(*) FROM fault").await, 2, "once");
    let lift = "SELECT count(*) FROM telemetry WHERE direction = 1 AND codes = '{0C,77}'
                AND code_slugs = '{power_off,unknown_code}'";
    assert_eq!(found(lift).await, 1);
    let escalator = "SELECT count(*) FROM telemetry WHERE service_mode = 7 AND code_slugs = '{unknown_code,esc_overspeed}'";
    assert_eq!(found(escalator).await, 1, "never with the lift's tables");
    assert_eq!(found("SELECT count(*) FROM quarantine").await, 0);
}

#[tokio::test]
async fn a_profile_that_is_set_while_the_server_runs_is_used() {
    let database = TestDatabase::new().await;
    let server = Server::start(database.url()).await;
    let said = async |seq: u32| {
        let payload = format!(r#"{{"boot":1,"seq":{seq},"time":"{}","code":"0c","state":"once"}}"#, now());
        let topic = "lift/v1/350102/t1/event.json";
        let sent = mosquitto_pub(server.addresses.broker, "t1", topic, payload.as_bytes()).await;
        assert!(sent.status.success(), "{sent:?}");
        let sql = "SELECT count(*) FROM fault WHERE slug = 'power_off'";
        count(database.url(), sql).await
    };
    assert_eq!(said(1).await, 0, "not a code of GB/T 24476");
    let set = liftwatch(database.url(), &["terminal", "set", "t1", "--profile", "gprs_tlv"]);
    assert!(set.status.success(), "{set:?}");
    let mut seq = 1;
    eventually("the profile is used", async || {
        seq += 1;
        (said(seq).await > 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn documents_are_printed_and_served() {
    let (success, out, error) = Server::run(&["schema", "telemetry"]);
    assert!(success && out.contains("velocity_mm_s"), "{out}{error}");
    let (success, out, error) = Server::run(&["schema"]);
    let document: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert!(success && document["asyncapi"] == "3.0.0", "{error}");

    let database = TestDatabase::new().await;
    let server = Server::start(database.url()).await;
    let served: serde_json::Value =
        serde_json::from_str(&server.get("/api/v1/asyncapi.json").await.1).expect("JSON");
    assert_eq!(served["servers"]["tcp"]["host"], server.addresses.broker.to_string());
    assert_eq!(served["channels"], document["channels"]);
    let (_, schema) = server.get("/api/v1/schema/event.json").await;
    assert!(schema.contains("2020-12"), "{schema}");
}
