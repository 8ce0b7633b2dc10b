//! What commands leave alone: those that look change nothing, those that change rows change no settings; and a
//! schema of another version is refused with the way out.

use std::process::{Output, Stdio};
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use store::StoreConfig;
use store::testing::TestDatabase;

use crate::harness::{Server, command};
use crate::ingest::count;

/// Commands that look, with their exit code where they cannot.
const LOOKING: [(&[&str], i32); 8] = [
    (&["audit"], 2),
    (&["audit", "--json", "--terminal", "t1"], 2),
    (&["terminal", "list"], 1),
    (&["terminal", "show", "t1"], 1),
    (&["account", "list", "--json"], 1),
    (&["quarantine", "list"], 1),
    (&["quarantine", "retry", "--all", "--dry-run"], 1),
    (&["db", "status"], 1),
];

/// Commands that change rows.
const CHANGING: [&[&str]; 8] = [
    &["terminal", "add", "t2", "--area", "350102"],
    &["terminal", "set", "t1", "--profile", "exchange"],
    &["terminal", "send", "t1", "clock"],
    &["terminal", "disable", "t1"],
    &["account", "add", "wallboard", "--areas", "3501"],
    &["quarantine", "retry", "--all"],
    &["quarantine", "drop", "--reason", "future", "--yes"],
    &["audit", "--repair"],
];

/// Runs a command whose settings are others than the server's.
fn run(url: &str, arguments: &[&str]) -> Output {
    command()
        .args(arguments)
        .env("LIFTWATCH_DATABASE__URL", url)
        .env("LIFTWATCH_STORE__CHUNK_HOURS", "24")
        .env("LIFTWATCH_STORE__COLUMNSTORE_AFTER_DAYS", "30")
        .env("LIFTWATCH_RETENTION__TELEMETRY", "31")
        .stdin(Stdio::null())
        .output()
        .expect("liftwatch runs")
}

fn runs(url: &str, arguments: &[&str]) -> String {
    let output = run(url, arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Runs a command that must fail; its exit code and what it says.
fn refused(url: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let output = run(url, arguments);
    assert!(!output.status.success(), "{arguments:?}: {output:?}");
    (output.status.code(), String::from_utf8(output.stderr).expect("UTF-8"))
}

async fn all(url: &str, sql: &str) -> Vec<String> {
    let mut connection = PgConnection::connect(url).await.expect("the database answers");
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&mut connection).await.expect(sql)
}

async fn execute(url: &str, sql: &'static str) {
    let mut connection = PgConnection::connect(url).await.expect("the database answers");
    sqlx::raw_sql(sql).execute(&mut connection).await.expect(sql);
}

/// Spans of chunks, policies, migrations, marks, and which relations there are.
async fn settings(url: &str) -> Vec<String> {
    let mut found = Vec::new();
    for sql in [
        "SELECT dimension::text FROM timescaledb_information.dimensions AS dimension ORDER BY 1",
        "SELECT concat_ws(' ', job_id, proc_name, hypertable_name, schedule_interval, scheduled, config)
         FROM timescaledb_information.jobs ORDER BY 1",
        "SELECT migration::text FROM _sqlx_migrations AS migration ORDER BY 1",
        "SELECT mark::text FROM retention_mark AS mark ORDER BY 1",
        "SELECT oid || ' ' || relname || ' ' || coalesce(reloptions::text, '') FROM pg_class
         WHERE relnamespace IN ('public'::regnamespace, '_timescaledb_internal'::regnamespace) ORDER BY 1",
    ] {
        found.extend(all(url, sql).await);
    }
    found
}

/// Rows of the tables that people fill.
async fn rows(url: &str) -> Vec<String> {
    let mut found = Vec::new();
    for table in ["terminal", "elevator", "account", "quarantine", "downlink", "audit", "sequence_ledger"] {
        found.extend(all(url, &format!("SELECT entry::text FROM {table} AS entry ORDER BY 1")).await);
    }
    found
}

/// As a server has set it up, with chunks of 2 h, and with a terminal.
async fn set_up(database: &TestDatabase) {
    let config = StoreConfig { chunk_interval: Duration::from_hours(2), ..StoreConfig::default() };
    database.open_with(config).await.close().await;
    runs(database.url(), &["terminal", "add", "t1", "--area", "350102"]);
    // Would be made again by whoever prepares the database.
    execute(database.url(), "DROP INDEX IF EXISTS rollup_late_hour").await;
}

async fn settings_stay(database: &TestDatabase) {
    let url = database.url();
    set_up(database).await;
    let before = (settings(url).await, rows(url).await);
    let telemetry = before.0.iter().find(|line| line.contains(",telemetry,") && line.contains("02:00:00"));
    assert!(telemetry.is_some(), "{:?}", before.0);
    for (arguments, _) in LOOKING {
        runs(url, arguments);
        assert_eq!((settings(url).await, rows(url).await), before, "{arguments:?}");
    }
    for arguments in CHANGING {
        runs(url, arguments);
        assert_eq!(settings(url).await, before.0, "{arguments:?}");
    }
    assert_ne!(rows(url).await, before.1);
}

#[tokio::test]
async fn commands_with_other_settings_leave_those_of_the_server() {
    settings_stay(&TestDatabase::new().await).await;
}

#[tokio::test]
async fn commands_with_other_settings_leave_the_policies_of_the_server() {
    let Some(database) = TestDatabase::community("commands_with_other_settings_leave_the_policies").await
    else {
        return;
    };
    settings_stay(&database).await;
    let policies = "SELECT count(*) FROM timescaledb_information.jobs WHERE proc_name LIKE 'policy_%'
                    AND hypertable_name IS NOT NULL";
    assert!(count(database.url(), policies).await >= 5, "there was something to change");
}

#[tokio::test]
async fn a_schema_of_another_version_is_left_alone_and_the_way_out_told() {
    let database = TestDatabase::new().await;
    let url = database.url();
    set_up(&database).await;
    for (change, words, back) in [
        (
            "DELETE FROM _sqlx_migrations WHERE version = (SELECT max(version) FROM _sqlx_migrations)",
            ["migrations not applied: ", "start its server", "liftwatch db migrate"],
            "",
        ),
        (
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
             VALUES (9999, 'from the future', true, '', 0)",
            ["migration 9999", "does not know", "newer liftwatch"],
            "DELETE FROM _sqlx_migrations WHERE version = 9999",
        ),
    ] {
        execute(url, "CREATE TABLE IF NOT EXISTS applied AS TABLE _sqlx_migrations").await;
        execute(url, change).await;
        let before = (settings(url).await, rows(url).await);
        // The status is told of any schema.
        let looking = LOOKING.iter().filter(|(arguments, _)| arguments[0] != "db");
        let looking = looking.map(|(arguments, code)| (*arguments, *code));
        let changing = CHANGING.map(|arguments| (arguments, if arguments[0] == "audit" { 2 } else { 1 }));
        for (arguments, code) in looking.chain(changing) {
            let (found, error) = refused(url, arguments);
            assert_eq!(found, Some(code), "{arguments:?}: {error}");
            assert!(words.iter().all(|word| error.contains(word)), "{arguments:?}: {error}");
        }
        assert_eq!((settings(url).await, rows(url).await), before);
        runs(url, &["db", "status"]);
        execute(url, back).await;
        execute(url, "INSERT INTO _sqlx_migrations TABLE applied ON CONFLICT DO NOTHING").await;
    }
    runs(url, &["terminal", "list"]);
}

#[tokio::test]
async fn an_empty_database_is_made_ready_by_who_registers_and_set_up_by_the_server() {
    let database = TestDatabase::blank().await;
    let url = database.url();
    for (arguments, code) in LOOKING.iter().filter(|(arguments, _)| arguments[0] != "db") {
        let (found, error) = refused(url, arguments);
        assert_eq!(found, Some(*code), "{arguments:?}: {error}");
        assert!(error.contains("no schema of Liftwatch in this database yet: start the server"), "{error}");
    }
    let relations = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace";
    assert_eq!(count(url, relations).await, 0, "nothing is made by looking");

    let secret = runs(url, &["terminal", "add", "t1", "--area", "350102"]);
    assert_eq!(secret.trim_end().len(), 43);
    assert!(runs(url, &["terminal", "list"]).contains("t1"));
    runs(url, &["audit"]);
    let span = "SELECT extract(epoch FROM time_interval)::int8 FROM timescaledb_information.dimensions
                WHERE hypertable_name = 'telemetry'";
    assert_ne!(count(url, span).await, 24 * 3_600, "its own setting is nobody's");
    let _server = Server::guarded(url, &[("LIFTWATCH_STORE__CHUNK_HOURS", "3")]).await;
    assert_eq!(count(url, span).await, 3 * 3_600, "the server's is");
    runs(url, &["terminal", "disable", "t1"]);
    assert_eq!(count(url, span).await, 3 * 3_600);
}

#[tokio::test]
async fn db_migrate_makes_the_schema_and_leaves_the_settings() {
    let database = TestDatabase::new().await;
    let url = database.url();
    set_up(&database).await;
    let before = settings(url).await;
    runs(url, &["db", "migrate"]);
    assert_eq!(settings(url).await, before);

    let blank = TestDatabase::blank().await;
    runs(blank.url(), &["db", "migrate"]);
    runs(blank.url(), &["quarantine", "list"]);
}

#[test]
fn looking_starts_no_private_database() {
    let home = tempfile::tempdir().expect("a folder");
    for arguments in [&["terminal", "list"][..], &["audit"], &["db", "status"]] {
        let output = command()
            .args(arguments)
            .env_remove("LIFTWATCH_DATABASE__URL")
            .env("LIFTWATCH_DATABASE__HOME", home.path())
            .stdin(Stdio::null())
            .output()
            .expect("liftwatch runs");
        let error = String::from_utf8(output.stderr).expect("UTF-8");
        assert!(!output.status.success() && error.contains("liftwatch db up"), "{arguments:?}: {error}");
        assert_eq!(std::fs::read_dir(home.path()).expect("it is there").count(), 0, "{arguments:?}");
    }
}
