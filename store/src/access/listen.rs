//! Hears that somebody has changed who may connect.

use sqlx::postgres::PgListener;

use crate::{Database, StoreError};

const CHANNEL: &str = "liftwatch_access";

/// Hears of changes, over a connection of its own. One that was lost is made again.
#[derive(Debug)]
pub struct AccessListener(PgListener);

impl Database {
    /// Begins to listen. What changes from now on is heard; what changed before must be read.
    pub async fn access_listen(&self) -> Result<AccessListener, StoreError> {
        Ok(AccessListener(self.listen(CHANNEL).await?))
    }
}

impl AccessListener {
    /// Returns when something may have changed since the last call: it did, or the connection was lost and is
    /// there again, so that words may have been missed. An error: the listener is of no more use.
    pub async fn changed(&mut self) -> Result<(), StoreError> {
        self.0.try_recv().await?;
        Ok(())
    }
}
