use super::*;

#[tokio::test]
async fn a_question_that_takes_too_long_is_ended() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let config = QueryConfig { timeout: Duration::from_millis(50), ..QueryConfig::default() };
    let metrics = Arc::new(QueryMetrics::default());
    let queries = Queries::new(&database, &config, Arc::clone(&metrics));
    let slow = Slow("SELECT pg_sleep(60)");
    assert!(matches!(queries.rows(&slow).await, Err(QueryError::TooLong(limit)) if limit == config.timeout));
    assert_eq!(metrics.ended.get(), 1);
    // The connection is of use again.
    assert_eq!(queries.rows(&Slow("SELECT 1")).await.unwrap().len(), 1);
    queries.close().await;
}

#[tokio::test]
async fn nothing_can_be_written_by_asking() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let queries = queries(&database);
    let refused = queries.rows(&Slow("INSERT INTO division (code, name) VALUES (1, 'x')")).await;
    assert!(matches!(refused, Err(QueryError::Store(_))), "{refused:?}");
    queries.close().await;
}

#[tokio::test]
async fn who_comes_when_all_places_are_taken_is_told_at_once() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let config = QueryConfig { connections: 1, waiting_max: 1, ..QueryConfig::default() };
    let metrics = Arc::new(QueryMetrics::default());
    let queries = Queries::new(&database, &config, Arc::clone(&metrics));
    let running = queries.turn().await.unwrap();
    let waiting = tokio::spawn({
        let queries = queries.clone();
        async move { queries.rows(&Slow("SELECT 1")).await.map(|rows| rows.len()) }
    });
    while queries.places.available_permits() > 0 {
        tokio::task::yield_now().await;
    }
    assert!(matches!(queries.rows(&Slow("SELECT 1")).await, Err(QueryError::Crowded)));
    assert_eq!(metrics.refused.get(), 1);
    drop(running);
    assert_eq!(waiting.await.unwrap().unwrap(), 1);
    queries.close().await;
}

/// Any statement.
struct Slow(&'static str);

impl Question for Slow {
    fn check(&self) -> Result<(), QueryError> {
        Ok(())
    }

    fn statement(&self, prefix: &str) -> PgQuery {
        sqlx::query(sqlx::AssertSqlSafe(format!("{prefix}{}", self.0)))
    }
}
