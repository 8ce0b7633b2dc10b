//! What an auditor sees: every number has its word, also after a crash; what was in quarantine comes back.

use std::time::Duration;

use serde_json::Value;
use simulator::{Fleet, FleetConfig, Rate};
use store::testing::TestDatabase;
use store::{Item, QuarantineEntry, QuarantineReason, StoreMetrics, Writer};

use crate::harness::{PATIENCE, Server, command, eventually, mosquitto_pub, now};
use crate::ingest::count;

/// A command on the database of a test: exit code, standard output, standard error.
fn liftwatch(url: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output =
        command().args(arguments).env("LIFTWATCH_DATABASE__URL", url).output().expect("liftwatch runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn audit(url: &str, more: &[&str]) -> (Option<i32>, Value) {
    let (code, out, error) = liftwatch(url, &[&["audit", "--json"], more].concat());
    (code, serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{error}")))
}

async fn publish(server: &Server, terminal: &str, payload: &str) {
    let topic = format!("lift/v1/350102/{terminal}/telemetry.json");
    let published = mosquitto_pub(server.addresses.broker, terminal, &topic, payload.as_bytes()).await;
    assert!(published.status.success(), "{published:?}");
}

/// Readings with these numbers, and what else the batch says.
fn batch(boot: u32, seqs: &[u32], more: &str) -> String {
    let time = now();
    let readings: Vec<String> =
        seqs.iter().map(|seq| format!(r#"{{"seq":{seq},"time":"{time}","floor":"{seq}"}}"#)).collect();
    format!(r#"{{"boot":{boot},{more}"readings":[{}]}}"#, readings.join(","))
}

#[tokio::test]
async fn gaps_are_unaccounted_until_they_are_filled_or_declared() {
    let database = TestDatabase::new().await;
    let url = database.url();
    let server = Server::start(url).await;
    publish(&server, "t1", &batch(7, &[1, 2, 6], "")).await;
    let (code, report) = audit(url, &[]);
    assert_eq!(
        (code, &report["verdict"], &report["unaccounted"]),
        (Some(1), &"unaccounted".into(), &3.into())
    );
    assert_eq!(report["gaps"][0]["terminal"], "t1");
    assert_eq!((&report["gaps"][0]["from"], &report["gaps"][0]["to"]), (&3.into(), &5.into()));
    assert_eq!(audit(url, &["--grace", "1h"]).0, Some(0), "its terminal may still send it");

    // The ledger has noted it, so that what comes now is known to be late.
    let noted = "SELECT count(*) FROM sequence_gap WHERE outcome = 'open'";
    eventually("the gap is in the ledger", async || (count(url, noted).await == 1).then_some(())).await;
    publish(&server, "t1", &batch(7, &[3], "")).await;
    publish(&server, "t1", &batch(7, &[7], r#""dropped":{"from":4,"to":5},"#)).await;
    let (code, report) = eventually("the ledger has it", async || {
        Some(audit(url, &[])).filter(|(_, report)| report["filled_late"] == 1)
    })
    .await;
    assert_eq!((code, &report["verdict"], &report["declared_dropped"]), (Some(0), &"ok".into(), &2.into()));

    // The next boot tells of an end that never came.
    publish(&server, "t1", &batch(8, &[1], r#""prev_boot_last_seq":9,"#)).await;
    let (code, report) = audit(url, &["--terminal", "t1"]);
    assert_eq!((code, &report["unaccounted"]), (Some(1), &2.into()));
    assert_eq!((&report["gaps"][1]["from"], &report["gaps"][1]["tail"]), (&8.into(), &true.into()));
    let (code, text, _) = liftwatch(url, &["audit"]);
    assert_eq!(code, Some(1));
    assert!(text.contains("unaccounted  t1 boot 7: 8 to 9 (2 numbers, missed since"), "{text}");
    assert!(text.contains("verdict      unaccounted: 2 numbers are missing"), "{text}");

    assert_eq!(audit(url, &["--to", "2000-01-01T00:00:00Z"]).0, Some(0), "nothing was known then");
    assert_eq!(liftwatch(url, &["audit", "--terminal", "nobody"]).0, Some(2));
    assert_eq!(liftwatch("postgres://nobody@127.0.0.1:1/none", &["audit"]).0, Some(2));
}

#[tokio::test]
async fn the_ledger_is_true_after_a_kill_under_load() {
    let database = TestDatabase::new().await;
    let url = database.url();
    let mut server = Server::start(url).await;
    let config = FleetConfig {
        target: server.addresses.broker.to_string(),
        terminals: 20,
        rate: Rate::PerSecond(400.0),
        drain: PATIENCE,
        ..FleetConfig::default()
    };
    let fleet = Fleet::start(config).await.expect("the fleet starts");
    for _ in 0..2 {
        let begin = fleet.counters().items_acked;
        eventually("readings are acknowledged", async || {
            (fleet.counters().items_acked >= begin + 400).then_some(())
        })
        .await;
        server.kill();
        // Whatever was acknowledged is a row, and the ledger claims no more than the rows.
        let (_, report) = audit(url, &[]);
        assert_eq!(report["ledger_ahead"], 0, "{report}");
        server.restart().await;
    }
    let fleet = fleet.stop().await;
    assert_eq!(fleet.unacked, 0, "{fleet}");
    let (code, report) = eventually("the ledger has caught up", async || {
        Some(audit(url, &[])).filter(|(_, report)| report["ledger_behind"] == 0)
    })
    .await;
    assert_eq!((code, &report["verdict"]), (Some(0), &"ok".into()), "{report}");
    assert_eq!((&report["terminals"], &report["used_twice"]), (&20.into(), &0.into()));
    assert!(report["rows"].as_u64() >= Some(fleet.counts.items_acked), "{report}");
}

/// Puts something into quarantine as a server does.
async fn quarantine(database: &TestDatabase, topic: &str, reason: QuarantineReason, payload: &str) {
    let database = database.open().await;
    let at = time::OffsetDateTime::now_utc().into();
    let entry = QuarantineEntry::new(at, "t9", topic, reason, "for a test", payload.as_bytes());
    let mut writer = Writer::new(&database, StoreMetrics::default().into());
    writer.commit(&[Item::Quarantine(Box::new(entry))]).await.expect("committed");
}

#[tokio::test]
async fn what_is_in_quarantine_comes_back_or_is_dropped() {
    let database = TestDatabase::new().await;
    let url = database.url();
    let topic = "lift/v1/350102/t9/telemetry.json";
    // Of the size of 50 readings.
    let large = batch(7, &[1, 2], &" ".repeat(12_000));
    quarantine(&database, topic, QuarantineReason::UnknownTerminal, &large).await;
    quarantine(&database, topic, QuarantineReason::Undecodable, "not JSON at all").await;
    // As the store writes a row.
    let future = r#"{"boot":7,"readings":[{"floor":"3","seq":3,"time":"2099-01-01T00:00:00Z"}]}"#;
    quarantine(&database, "telemetry", QuarantineReason::Future, future).await;

    let (code, out, _) = liftwatch(url, &["quarantine", "retry", "--reason", "unknown_terminal"]);
    assert!(code == Some(0) && out.contains("stays: its terminal is not in the registry"), "{out}");
    let (code, _, error) = liftwatch(url, &["terminal", "add", "t9", "--area", "350102"]);
    assert_eq!(code, Some(0), "{error}");
    let (_, out, _) = liftwatch(url, &["quarantine", "retry", "--all", "--dry-run"]);
    assert!(out.contains("1 would be stored; stay: future 1, undecodable 1"), "{out}");
    assert_eq!(count(url, "SELECT count(*) FROM telemetry").await, 0, "a dry run stores nothing");
    let (code, out, error) = liftwatch(url, &["quarantine", "retry", "--all"]);
    assert!(code == Some(0) && out.contains("1 stored; stay: future 1, undecodable 1"), "{out}{error}");
    assert_eq!(count(url, "SELECT count(*) FROM telemetry WHERE seq IN (1, 2)").await, 2);
    assert_eq!(count(url, "SELECT count(*) FROM quarantine WHERE reason = 'unknown_terminal'").await, 0);
    assert_eq!(count(url, "SELECT count(*) FROM audit WHERE action = 'quarantine.retry'").await, 1);
    let (code, report) = audit(url, &["--terminal", "t9"]);
    assert_eq!(
        (code, &report["rows"], &report["ledger_behind"]),
        (Some(0), &2.into(), &0.into()),
        "{report}"
    );

    let (_, out, _) = liftwatch(url, &["quarantine", "list", "--json"]);
    let entry: Value = out.lines().map(|line| serde_json::from_str(line).expect("JSON")).next().expect("one");
    assert_eq!((&entry["reason"], &entry["terminal"]), (&"future".into(), &"t9".into()));
    let (_, out, _) = liftwatch(url, &["quarantine", "show", &entry["id"].to_string()]);
    assert!(out.contains("\"floor\": \"3\"") && out.contains("what can be done"), "{out}");

    let drop = ["quarantine", "drop", "--reason", "undecodable"];
    let (code, _, error) = liftwatch(url, &drop);
    assert!(code == Some(1) && error.contains("1 entries would be dropped for good"), "{error}");
    assert_eq!(liftwatch(url, &[&drop[..], &["--yes"]].concat()).0, Some(0));
    assert_eq!(count(url, "SELECT count(*) FROM quarantine").await, 1);
    assert_eq!(count(url, "SELECT count(*) FROM audit WHERE action = 'quarantine.drop'").await, 1);
}

#[tokio::test]
async fn neighbours_of_a_bad_reading_are_stored_and_shown_to_the_rules() {
    let database = TestDatabase::new().await;
    let url = database.url();
    let server = Server::start(url).await;
    let time = now();
    let readings = |bad: &str| {
        format!(
            r#"{{"boot":7,"readings":[{{"seq":1,"time":"{time}"}},{{"seq":2,"time":"{time}",{bad}}},
                {{"seq":3,"time":"{time}","codes":["entrapment"]}},{{"seq":4,"time":"{time}",{bad}}}]}}"#
        )
    };
    publish(&server, "t1", &readings(r#""load_kg":99999"#)).await;
    let seqs = "SELECT count(*) FROM telemetry WHERE seq IN (1, 3)";
    assert_eq!(count(url, seqs).await, 2);
    let raised = "SELECT count(*) FROM alarm WHERE severity = 1";
    eventually("the rules see the third", async || (count(url, raised).await == 1).then_some(())).await;
    let kept = "SELECT count(*) FROM quarantine WHERE reason = 'undecodable' AND boot = 7
                  AND numbers = '{[2,3),[4,5)}'
                  AND detail LIKE '2 of its readings refused, 2 taken; readings[1]: load_kg 99999%'";
    assert_eq!(count(url, kept).await, 1);
    let (code, report) = audit(url, &[]);
    assert_eq!((code, &report["rows"], &report["used_twice"]), (Some(0), &2.into(), &0.into()), "{report}");

    // A value of another type, in a message that is whole in quarantine.
    let topic = "lift/v1/350102/t9/telemetry.json";
    let other = readings(r#""floor":5"#);
    quarantine(&database, topic, QuarantineReason::UnknownTerminal, &other).await;
    assert_eq!(liftwatch(url, &["terminal", "add", "t9", "--area", "350102"]).0, Some(0));
    let retry = ["quarantine", "retry", "--reason", "unknown_terminal"];
    for arguments in [&[&retry[..], &["--dry-run"]].concat()[..], &retry, &retry] {
        let (code, out, error) = liftwatch(url, arguments);
        assert!(code == Some(0) && out.contains("stays: 2 of its readings refused, 2 taken"), "{out}{error}");
        assert!(out.contains("readings[1]: invalid type: integer `5`, expected a string"), "{out}");
    }
    assert_eq!(count(url, seqs).await, 4, "what can be read of it is stored, once");
    assert_eq!(count(url, "SELECT count(*) FROM quarantine").await, 2);

    let (_, out, error) = liftwatch(url, &["quarantine", "drop", "--reason", "undecodable", "--yes"]);
    assert_eq!(count(url, "SELECT count(*) FROM quarantine").await, 1, "{out}{error}");
    let (code, report) = audit(url, &["--terminal", "t1"]);
    assert_eq!((code, &report["verdict"]), (Some(0), &"ok".into()), "{report}");
}

#[tokio::test]
async fn retry_goes_the_oldest_first_and_says_what_became_of_each() {
    let database = TestDatabase::new().await;
    let url = database.url();
    assert_eq!(liftwatch(url, &["terminal", "add", "t9", "--area", "350102"]).0, Some(0));
    let time = now();
    let row =
        |floor: &str| format!(r#"{{"boot":7,"readings":[{{"floor":"{floor}","seq":3,"time":"{time}"}}]}}"#);
    quarantine(&database, "telemetry", QuarantineReason::TooOld, &row("4")).await;
    quarantine(&database, "telemetry", QuarantineReason::TooOld, &row("5")).await;
    // As earlier versions wrote statistics without a number.
    let statistics = format!(r#"{{"boot":7,"seq":-5,"time":"{time}","door_open_count":1}}"#);
    quarantine(&database, "stats", QuarantineReason::TooOld, &statistics).await;
    let (code, out, error) = liftwatch(url, &["quarantine", "retry", "--all"]);
    assert!(out.contains(": stays: it is now key_conflict"), "{out}{error}");
    assert!(code == Some(0) && out.contains("2 stored; stay: key_conflict 1."), "{out}{error}");
    assert_eq!(
        count(url, "SELECT count(*) FROM telemetry WHERE floor = '4'").await,
        1,
        "the one that came first"
    );
    assert_eq!(count(url, "SELECT count(*) FROM statistics WHERE seq < 0").await, 1);
    assert_eq!(count(url, "SELECT count(*) FROM quarantine").await, 1, "under its new reason alone");
    let (_, out, _) = liftwatch(url, &["quarantine", "retry", "--all", "--dry-run"]);
    assert!(out.contains("0 would be stored; stay: key_conflict 1"), "{out}");

    for nothing in [&["retry", "999999"][..], &["drop", "999999", "--yes"]] {
        let (code, _, error) = liftwatch(url, &[&["quarantine"], nothing].concat());
        assert!(code == Some(1) && error.contains("there is no entry 999999 in quarantine"), "{error}");
    }
}

#[tokio::test]
async fn a_message_in_another_language_comes_back_when_its_terminal_has_the_right_profile() {
    let database = TestDatabase::new().await;
    let url = database.url();
    assert_eq!(liftwatch(url, &["terminal", "add", "t9", "--area", "350102"]).0, Some(0));
    let topic = "lift/v1/350102/t9/telemetry.json";
    let local =
        domain::Timestamp::from(time::OffsetDateTime::now_utc()).plus(Duration::from_hours(8)).to_string();
    let payload = format!(
        r#"{{"Time_Stamps":"{} {}","Service_Mode":1,"Car_Status":1,"Car_Position":"12"}}"#,
        &local[..10],
        &local[11..19]
    );
    quarantine(&database, topic, QuarantineReason::Undecodable, &payload).await;
    let retry = ["quarantine", "retry", "--reason", "undecodable"];
    let (_, out, _) = liftwatch(url, &retry);
    assert!(out.contains("stays: ") && out.contains("undecodable 1"), "{out}");
    let (code, _, error) = liftwatch(url, &["terminal", "set", "t9", "--profile", "exchange"]);
    assert_eq!(code, Some(0), "{error}");
    let (_, out, _) = liftwatch(url, &retry);
    assert!(out.contains("1 stored; none stays"), "{out}");
    assert_eq!(count(url, "SELECT count(*) FROM telemetry WHERE floor = '12'").await, 1);
}

#[tokio::test]
async fn a_message_the_database_refuses_as_a_whole_comes_back_when_it_is_mended() {
    let database = TestDatabase::new().await;
    let url = database.url();
    let server = Server::start(url).await;
    let mend = async |sql: &'static str| {
        sqlx::raw_sql(sql).execute(database.open().await.pool()).await.expect(sql);
    };
    mend("ALTER TABLE fault_period ADD CONSTRAINT never CHECK (code <> 'X9')").await;
    let time = now();
    let event = format!(r#"{{"boot":7,"seq":1,"time":"{time}","code":"X9","state":"open"}}"#);
    let topic = "lift/v1/350102/t1/event.json";
    let published = mosquitto_pub(server.addresses.broker, "t1", topic, event.as_bytes()).await;
    assert!(published.status.success(), "acknowledged, as it is in quarantine: {published:?}");
    publish(&server, "t1", &batch(7, &[2], "")).await;
    let refused = "SELECT count(*) FROM quarantine WHERE reason = 'refused' AND topic = 'event'";
    assert_eq!(count(url, refused).await, 1);
    assert_eq!(count(url, "SELECT count(*) FROM telemetry").await, 1, "its neighbours are stored");
    assert_eq!(audit(url, &[]).0, Some(0));

    let retry = ["quarantine", "retry", "--all"];
    let (code, out, error) = liftwatch(url, &retry);
    assert!(code == Some(0) && out.contains("stay: refused 1"), "{out}{error}");
    mend("ALTER TABLE fault_period DROP CONSTRAINT never").await;
    let (_, out, error) = liftwatch(url, &retry);
    assert!(out.contains("1 stored; none stays"), "{out}{error}");
    assert_eq!(count(url, "SELECT count(*) FROM fault_period WHERE code = 'X9' AND closed IS NULL").await, 1);
    assert_eq!(audit(url, &[]).0, Some(0));
}
