//! Migrations, the ensure step and the registry against the real database.

use std::sync::Arc;
use std::time::Duration;

use domain::{Area, TerminalId};
use sqlx::Row;
use store::testing::TestDatabase;
use store::{Database, Registry, StoreConfig, StoreError};

fn terminal(name: &str) -> TerminalId {
    TerminalId::new(name).unwrap()
}

fn area(text: &str) -> Area {
    text.parse().unwrap()
}

#[tokio::test]
async fn migrating_and_ensuring_again_changes_nothing() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let (one, two) = tokio::join!(database.migrate(), database.migrate());
    one.unwrap();
    two.unwrap();
    let edition = database.ensure().await.unwrap();
    assert_eq!(database.ensure().await.unwrap(), edition);
}

#[tokio::test]
async fn who_begins_at_once_with_an_empty_database_waits_for_the_other() {
    let test = TestDatabase::blank().await;
    let one = async || Database::connect(test.url()).await.unwrap().migrate().await;
    let all = tokio::join!(one(), one(), one(), one());
    for outcome in [all.0, all.1, all.2, all.3] {
        outcome.unwrap();
    }
}

#[tokio::test]
async fn a_schema_of_a_newer_version_is_refused() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'from the future', true, '', 0)",
    )
    .execute(database.pool())
    .await
    .unwrap();
    let refused = database.migrate().await.unwrap_err();
    assert!(matches!(refused, StoreError::SchemaNewer(9999)), "{refused}");
    assert!(!refused.retryable());
}

#[tokio::test]
async fn a_bound_that_the_database_sets_does_not_end_what_takes_long() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let set = "DO $$ BEGIN
        EXECUTE format('ALTER DATABASE %I SET statement_timeout = 20', current_database());
    END $$";
    sqlx::query(set).execute(database.pool()).await.unwrap();
    let mut connection = database.connection().await.unwrap();
    sqlx::query("SELECT pg_sleep(0.1)").execute(&mut connection).await.unwrap();
}

#[tokio::test]
async fn who_looks_can_change_nothing() {
    let test = TestDatabase::new().await;
    test.open().await;
    let database = Database::look(test.url(), StoreConfig::default()).await.unwrap();
    database.schema_check().await.unwrap();
    let write = "INSERT INTO server_run (version) VALUES ('1')";
    let error = sqlx::query(write).execute(database.pool()).await.unwrap_err();
    assert!(error.to_string().contains("read-only"), "{error}");
    let mut own = database.connection().await.unwrap();
    let error = sqlx::query(write).execute(&mut own).await.unwrap_err();
    assert!(error.to_string().contains("read-only"), "{error}");
    let wider = StoreConfig { chunk_interval: Duration::from_hours(24), ..StoreConfig::default() };
    let wider = Database::look(test.url(), wider).await.unwrap();
    assert!(wider.ensure().await.is_err());
}

#[tokio::test]
async fn every_session_commits_to_disk() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let setting: String =
        sqlx::query_scalar("SHOW synchronous_commit").fetch_one(database.pool()).await.unwrap();
    assert_eq!(setting, "on");
}

#[tokio::test]
async fn a_wrong_url_names_the_way_out() {
    let error = Database::connect("mysql://x").await.unwrap_err();
    assert!(error.to_string().contains("postgres://"), "{error}");
    let test = TestDatabase::new().await;
    let missing = test.url().replace("liftwatch_test_", "liftwatch_nowhere_");
    let error = Database::connect(&missing).await.unwrap_err();
    assert!(matches!(error, StoreError::Login(_)), "{error:?}");
    assert!(!error.retryable());
}

#[tokio::test]
async fn runs_are_numbered_upwards() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let first = database.run_begin("1").await.unwrap();
    let second = database.run_begin("1").await.unwrap();
    assert!(second > first.next());
}

#[tokio::test]
async fn the_audit_log_only_grows() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    sqlx::query("INSERT INTO audit (actor, organisation, action, subject) VALUES ('a', 'b', 'c', 'd')")
        .execute(database.pool())
        .await
        .unwrap();
    for forbidden in ["UPDATE audit SET actor = 'x'", "DELETE FROM audit", "TRUNCATE audit"] {
        let error = sqlx::query(forbidden).execute(database.pool()).await.unwrap_err();
        assert!(error.to_string().contains("append-only"), "{error}");
    }
}

#[tokio::test]
async fn registering_twice_and_at_once_makes_one_elevator_each() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let registry = Arc::new(Registry::load(&database).await.unwrap());
    assert!(registry.is_empty());
    let wanted: Arc<Vec<_>> =
        Arc::new((0..200).map(|n| (terminal(&format!("t{n}")), area("350102"))).collect());
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let (registry, wanted) = (registry.clone(), wanted.clone());
            tokio::spawn(async move { registry.register(&wanted).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let row =
        sqlx::query("SELECT (SELECT count(*) FROM elevator) AS e, (SELECT count(*) FROM terminal) AS t")
            .fetch_one(database.pool())
            .await
            .unwrap();
    assert_eq!((row.get::<i64, _>("e"), row.get::<i64, _>("t")), (200, 200));

    // Another area does not move what is registered; the same id twice in one call is one terminal.
    registry
        .register(&[
            (terminal("t1"), area("360000")),
            (terminal("new"), area("1".repeat(6).as_str())),
            (terminal("new"), area("111111")),
        ])
        .await
        .unwrap();
    assert_eq!(registry.lookup("t1").unwrap().area, area("350102"));
    assert_eq!(registry.len(), 201);
    let again = Registry::load(&database).await.unwrap();
    assert_eq!(again.lookup("new"), registry.lookup("new"));
    assert_eq!(again.lookup("nobody"), None);
    assert_eq!(&*again.lookup("new").unwrap().profile, "gb24476");
}
