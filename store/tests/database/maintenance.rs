//! Maintenance as a whole, and counts.

use store::testing::TestDatabase;

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
