use super::*;

#[tokio::test]
async fn a_question_that_takes_too_long_is_ended() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let config = QueryConfig { timeout: Duration::from_secs(1), ..QueryConfig::default() };
    let metrics = Arc::new(QueryMetrics::default());
    let queries = Queries::new(&database, &config, Arc::clone(&metrics));
    let slow = Any("SELECT pg_sleep(60)");
    assert!(matches!(queries.rows(&slow).await, Err(QueryError::TooLong(limit)) if limit == config.timeout));
    assert_eq!(metrics.ended.get(), 1);
    // The next has a connection.
    assert_eq!(queries.rows(&Any("SELECT 1")).await.unwrap().len(), 1);
    queries.close().await;
}

#[tokio::test]
async fn nothing_can_be_written_by_asking() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let queries = queries(&database);
    let refused = queries.rows(&Any("INSERT INTO division (code, name) VALUES (1, 'x')")).await;
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
        async move { queries.rows(&Any("SELECT 1")).await.map(|rows| rows.len()) }
    });
    while queries.places.available_permits() > 0 {
        tokio::task::yield_now().await;
    }
    assert!(matches!(queries.rows(&Any("SELECT 1")).await, Err(QueryError::Crowded)));
    assert_eq!(metrics.refused.get(), 1);
    drop(running);
    assert_eq!(waiting.await.unwrap().unwrap(), 1);
    queries.close().await;
}

#[tokio::test]
async fn a_question_that_nobody_waits_for_is_ended() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let config = QueryConfig { timeout: Duration::from_hours(1), connections: 1, ..QueryConfig::default() };
    let queries = Queries::new(&database, &config, Arc::default());
    let asked = tokio::spawn({
        let queries = queries.clone();
        async move { queries.rows(&Any("SELECT pg_sleep(3600)")).await.map(|rows| rows.len()) }
    });
    let until = async |count: i64| {
        let running = "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND application_name = 'liftwatch queries' AND state = 'active'";
        let reached = async {
            while sqlx::query_scalar::<_, i64>(running).fetch_one(database.pool()).await.unwrap() != count {}
        };
        tokio::time::timeout(Duration::from_mins(1), reached).await.unwrap();
    };
    until(1).await;
    asked.abort();
    asked.await.unwrap_err();
    // Its place and its connection are for others at once.
    assert_eq!(queries.rows(&Any("SELECT 1")).await.unwrap().len(), 1);
    until(0).await;
    queries.close().await;
    assert!(matches!(queries.rows(&Any("SELECT 1")).await, Err(QueryError::Store(_))));
}
