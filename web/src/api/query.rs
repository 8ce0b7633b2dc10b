//! Asking the database, within bounds.

use store::StoreError;

use crate::problem::Problem;
use crate::state::Shared;

/// Runs a query when one of the few places for queries is free. The request's own time limit ends the wait.
pub(crate) async fn ask<T>(
    state: &Shared,
    query: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, Problem> {
    let place = state.queries.acquire().await.map_err(|_| Problem::unavailable("the server is stopping"))?;
    let answer = query.await;
    drop(place);
    answer.map_err(|error| {
        let error: &dyn std::error::Error = &error;
        tracing::warn!(error, "a request could not be answered from the database");
        Problem::unavailable(
            "the database does not answer now; /readyz tells more; try again in some seconds",
        )
    })
}
