//! Bounded work for hashing: so many at once, so many waiting, the rest is refused.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::secret;

/// A lane of its own for slow and for fast hashes, so that guessing at people's passwords does not hold up a fleet.
#[derive(Debug)]
pub(super) struct Lane {
    /// Places for those at work and those that wait. Full: refused as busy.
    places: Semaphore,
    /// At work at once.
    workers: Semaphore,
}

/// No place is free.
#[derive(Debug)]
pub(super) struct Busy;

impl Lane {
    /// `workers` at once, `places` of them and of those that wait.
    pub(super) fn new(workers: usize, places: usize) -> Self {
        Self { places: Semaphore::new(places), workers: Semaphore::new(workers) }
    }

    /// Which of `hashes` is one of `secret`. All are tried, so that the time does not tell which.
    pub(super) async fn verify(
        &self,
        hashes: Vec<Arc<str>>,
        secret: bytes::Bytes,
    ) -> Result<Option<Arc<str>>, Busy> {
        let _place = self.places.try_acquire().map_err(|_| Busy)?;
        let _worker = self.workers.acquire().await.map_err(|_| Busy)?;
        let tried = tokio::task::spawn_blocking(move || {
            hashes.into_iter().fold(None, |found, hash| {
                let fits = secret::verify(&hash, &secret);
                found.or_else(|| fits.then_some(hash))
            })
        });
        tried.await.map_err(|_| Busy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::secret::{Strength, hash};

    fn stored(secret: &[u8]) -> Arc<str> {
        hash(secret, Strength::Generated).unwrap().into()
    }

    #[tokio::test]
    async fn finds_the_hash_that_fits() {
        let lane = Lane::new(1, 1);
        let (one, two) = (stored(b"one"), stored(b"two"));
        let found = lane.verify(vec![one.clone(), two.clone()], "two".into()).await.unwrap();
        assert_eq!(found, Some(two));
        assert_eq!(lane.verify(vec![one], "three".into()).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_full_lane_refuses() {
        let lane = Lane::new(1, 0);
        assert!(lane.verify(vec![], "x".into()).await.is_err());
    }
}
