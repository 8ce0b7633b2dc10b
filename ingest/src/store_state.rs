//! Whether the store takes rows, as all writers together see it.
//!
//! Promises: up only while every writer is. One whose connection is half open is not hidden by the others.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

/// Whether the store takes rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreState {
    /// It does.
    Up,
    /// It does not, for one writer at least, and why in one line.
    Away(String),
}

/// What one writer sees of the store.
#[derive(Debug)]
pub(crate) struct StoreView {
    index: usize,
    /// As it is in `all`, so that a commit as usual takes no lock.
    seen: StoreState,
    all: Arc<All>,
}

#[derive(Debug)]
struct All {
    views: Mutex<Vec<StoreState>>,
    told: watch::Sender<StoreState>,
}

impl StoreView {
    /// For so many writers, all of which begin with a store that is up. What they see together goes to `told`.
    pub(crate) fn of(told: watch::Sender<StoreState>, writers: usize) -> Vec<Self> {
        let all = Arc::new(All { views: Mutex::new(vec![StoreState::Up; writers]), told });
        (0..writers).map(|index| Self { index, seen: StoreState::Up, all: Arc::clone(&all) }).collect()
    }

    pub(crate) fn up(&mut self) {
        self.see(StoreState::Up);
    }

    pub(crate) fn away(&mut self, why: String) {
        self.see(StoreState::Away(why));
    }

    fn see(&mut self, seen: StoreState) {
        if self.seen == seen {
            return;
        }
        self.seen = seen.clone();
        // Held until it is told, so that what is told last is what is so.
        let mut views = self.all.views.lock().unwrap_or_else(PoisonError::into_inner);
        views[self.index] = seen;
        let now = views.iter().find(|view| **view != StoreState::Up).cloned().unwrap_or(StoreState::Up);
        self.all.told.send_if_modified(|before| {
            match (&*before, &now) {
                (StoreState::Up, StoreState::Away(why)) => {
                    tracing::warn!(why, "the store is away; acknowledgements wait");
                }
                (StoreState::Away(_), StoreState::Up) => tracing::info!("the store takes rows again"),
                _ => {}
            }
            let changed = *before != now;
            *before = now;
            changed
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writer_whose_connection_is_dead_is_not_hidden_by_the_others() {
        let (told, state) = watch::channel(StoreState::Up);
        let mut writers = StoreView::of(told, 2);
        writers[0].away("silent".to_owned());
        for _ in 0..3 {
            writers[1].up();
            assert_eq!(*state.borrow(), StoreState::Away("silent".to_owned()));
        }
        writers[1].away("gone".to_owned());
        writers[0].up();
        assert_eq!(*state.borrow(), StoreState::Away("gone".to_owned()));
        writers[1].up();
        assert_eq!(*state.borrow(), StoreState::Up);
    }
}
