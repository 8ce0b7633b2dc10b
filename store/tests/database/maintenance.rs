//! Maintenance as a whole, and counts.

use std::time::Duration;

use store::testing::TestDatabase;
use store::{Database, StoreConfig, StoreError};

use crate::common::*;

#[tokio::test]
async fn one_process_at_a_time() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut other = database.connection().await.unwrap();
    sqlx::query("SELECT pg_advisory_lock(hashtext('liftwatch maintenance'))")
        .execute(&mut other)
        .await
        .unwrap();
    assert!(database.maintenance_run(noon()).await.unwrap().elsewhere);
    drop(other);
}

#[tokio::test]
async fn counts_tell_what_there_is() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    writer(&database).commit(&[telemetry(1, 1, vec![reading(1)])]).await.unwrap();
    let registry = store::Registry::load(&database).await.unwrap();
    registry.register(&[(terminal("a"), "350102".parse().unwrap())]).await.unwrap();
    let counts = database.counts().await.unwrap();
    assert_eq!((counts.elevators, counts.terminals, counts.quarantined), (1, 1, 0));
    assert_eq!(database.reading_count().await.unwrap(), 1);
    assert_eq!(database.fault_count().await.unwrap(), 0);
}

#[tokio::test]
async fn maintenance_that_gets_no_answer_is_given_up() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let config = StoreConfig { commit_timeout: Duration::from_millis(200), ..StoreConfig::default() };
    let hasty = Database::connect_with(test.url(), config).await.unwrap();
    hasty.ensure().await.unwrap();
    let mut other = database.pool().begin().await.unwrap();
    sqlx::query("LOCK TABLE maintenance_step").execute(&mut *other).await.unwrap();
    let error = hasty.maintenance_run(noon()).await.unwrap_err();
    assert!(matches!(error, StoreError::Timeout(_)), "{error:?}");
    other.rollback().await.unwrap();
    // Its connection and with it its lock are gone; the server may take a moment to notice.
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while database.maintenance_run(noon()).await.unwrap().elsewhere {
        assert!(std::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
