//! Whether another server takes messages into this database. Two of them are told of, not kept apart: rows and alarms
//! stay right, but each believes the other's terminals gone when it starts, and what the ledger had not written yet of
//! the one that is killed is only made up by `liftwatch audit --repair`.

use sqlx::postgres::PgConnection;

use crate::{Database, StoreError};

/// Held by a server as long as it runs.
#[derive(Debug)]
pub struct Serving {
    /// The lock ends with it.
    _connection: PgConnection,
}

impl Database {
    /// Takes the place of the server of this database. `None`: another has it.
    pub async fn serving(&self) -> Result<Option<Serving>, StoreError> {
        let mut connection = self.connection().await?;
        let mine: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock(hashtext('liftwatch serving'))")
            .fetch_one(&mut connection)
            .await?;
        Ok(mine.then_some(Serving { _connection: connection }))
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::TestDatabase;

    #[tokio::test]
    async fn the_second_learns_of_the_first() {
        let test = TestDatabase::new().await;
        let database = test.open().await;
        let first = database.serving().await.unwrap();
        assert!(first.is_some());
        assert!(database.serving().await.unwrap().is_none());
        drop(first);
        // The server notices the end of a connection in its own time.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while database.serving().await.unwrap().is_none() {
            assert!(std::time::Instant::now() < deadline);
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}
