use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, Row as _};

use super::*;
use crate::hosts::is_read_only;
use crate::testing::TestCluster;

fn socket(cluster: &TestCluster) -> &str {
    cluster.url().split_once("?host=").unwrap().1
}

/// Who answers, by the directory of its socket.
async fn who(queries: &Queries) -> Result<String, QueryError> {
    let rows = queries.rows(&Any("SELECT current_setting('unix_socket_directories')")).await?;
    Ok(rows[0].get::<String, _>(0).replace('/', "%2F"))
}

/// Whether it takes writes from whoever connects from now on.
async fn writable(cluster: &TestCluster, writable: bool) {
    let mut connection = PgConnection::connect(cluster.url()).await.unwrap();
    let setting = if writable { "off" } else { "on" };
    for sql in
        [&format!("ALTER SYSTEM SET default_transaction_read_only = {setting}"), "SELECT pg_reload_conf()"]
    {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
    }
    loop {
        let mut connection = PgConnection::connect(cluster.url()).await.unwrap();
        if is_read_only(&mut connection).await.unwrap() != writable {
            return;
        }
    }
}

#[tokio::test]
async fn questions_are_asked_of_the_primary_of_the_moment() {
    let first = TestCluster::new().await;
    let second = first.standby().await;
    // The standby stands first in the URL; it would answer.
    let hosts = format!("{},{}", socket(&second), socket(&first));
    let database =
        Database::connect(&format!("postgres://liftwatch@localhost/liftwatch?host={hosts}")).await.unwrap();
    let queries = queries(&database);
    assert_eq!(who(&queries).await.unwrap(), socket(&first));

    // The first takes no writes any more, but answers. A writer finds the second; so do questions.
    writable(&first, false).await;
    second.promote().await;
    drop(database.connection().await.unwrap());
    assert_eq!(who(&queries).await.unwrap(), socket(&second));

    // The second is gone, and nobody takes its place.
    second.kill().await;
    let nobody = who(&queries).await;
    assert!(matches!(&nobody, Err(QueryError::Store(error)) if error.retryable()), "{nobody:?}");
    writable(&first, true).await;
    assert_eq!(who(&queries).await.unwrap(), socket(&first));
    queries.close().await;
}
