//! A schema that this version does not know.

use store::testing::TestDatabase;

use crate::harness::command;

#[tokio::test]
async fn a_newer_schema_is_refused_with_the_way_out_and_left_as_it_is() {
    use sqlx::Connection;
    let database = TestDatabase::new().await;
    let mut connection = sqlx::PgConnection::connect(database.url()).await.expect("connect");
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                 VALUES (9999, 'of tomorrow', true, '', 0)";
    sqlx::query(newer).execute(&mut connection).await.expect("insert");
    for arguments in [vec!["serve", "--dev"], vec!["db", "migrate"]] {
        let output = command()
            .args(&arguments)
            .env("LIFTWATCH_DATABASE__URL", database.url())
            .env("LIFTWATCH_BROKER__LISTEN", "127.0.0.1:0")
            .env("LIFTWATCH_DISPATCH__LISTEN", "127.0.0.1:0")
            .env("LIFTWATCH_WEB__LISTEN", "127.0.0.1:0")
            .output()
            .expect("liftwatch runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        let way_out = "migration 9999, which this version does not know: install the newer liftwatch again";
        assert!(said.contains(way_out), "{arguments:?}: {said}");
    }
    let version: i64 = sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations")
        .fetch_one(&mut connection)
        .await
        .expect("a version");
    assert_eq!(version, 9999);
}
