//! The task that keeps the tail at the head of the store's stream.

use std::sync::Arc;

use domain::AlarmEvent;
use store::StoreError;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Head, Streams, lock};
use crate::config::{PAGE_EVENTS, UNACKNOWLEDGED_MAX};

/// Reads what is new, woken by the committer and by a timer. Takes nothing on faith: a fresh event that does
/// not continue the run makes it read the store.
#[derive(Debug)]
pub(crate) struct Follower {
    streams: Streams,
    fresh: mpsc::Receiver<Vec<AlarmEvent>>,
    away: bool,
}

impl Follower {
    pub(super) fn new(streams: Streams, fresh: mpsc::Receiver<Vec<AlarmEvent>>) -> Self {
        Self { streams, fresh, away: false }
    }

    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let database = self.streams.shared.database.clone();
        let mut poll = tokio::time::interval(self.streams.config().poll_every);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let complete = tokio::select! {
                () = stop.cancelled() => return,
                _ = poll.tick() => false,
                fresh = self.fresh.recv() => match fresh {
                    Some(events) if !events.is_empty() => self.take(events),
                    Some(_) => false,
                    None => return,
                },
            };
            if complete {
                continue;
            }
            let read = tokio::select! {
                () = stop.cancelled() => return,
                read = database.in_time(self.read()) => read,
            };
            self.note(read);
        }
    }

    fn note(&mut self, read: Result<(), StoreError>) {
        match read {
            Ok(()) if self.away => {
                self.away = false;
                info!("the alarm stream follows the database again");
            }
            Err(error) if !self.away => {
                self.away = true;
                warn!(error = &error as &dyn std::error::Error, "the alarm stream cannot read the database");
            }
            _ => {}
        }
    }

    /// Answers whether the tail is complete up to the last of them.
    fn take(&self, events: Vec<AlarmEvent>) -> bool {
        if self.streams.shared.head.borrow().is_none() {
            return false;
        }
        self.push(events)
    }

    fn push(&self, events: Vec<AlarmEvent>) -> bool {
        let shared = &self.streams.shared;
        let mut tail = lock(&shared.tail);
        let known = tail.head().no;
        let events: Vec<Arc<AlarmEvent>> = events.into_iter().map(Arc::new).collect();
        let complete = tail.push(events.iter().cloned());
        let head = tail.head();
        drop(tail);
        let new = |event: &&Arc<AlarmEvent>| event.no.is_some_and(|no| no > known && no <= head.no);
        let mut unacknowledged = lock(&shared.unacknowledged);
        for event in events.iter().filter(new) {
            unacknowledged.see(event, Instant::now());
        }
        drop(unacknowledged);
        self.tell(head);
        complete
    }

    fn tell(&self, head: Head) {
        self.streams.shared.head.send_if_modified(|told| {
            let new = *told != Some(head);
            *told = Some(head);
            new
        });
    }

    /// Brings the tail to the head of the store.
    async fn read(&mut self) -> Result<(), StoreError> {
        let shared = Arc::clone(&self.streams.shared);
        let position = shared.database.alarm_stream_position().await?;
        let known = *shared.head.borrow();
        let begin_anew = match known {
            None => Some(0),
            Some(head) if position.head < head.no => {
                warn!(position.head, head.no, "the alarm stream went back: was a backup restored?");
                Some(head.epoch + 1)
            }
            Some(_) => None,
        };
        if let Some(epoch) = begin_anew {
            // Read after the position: what it misses or repeats, the events after the position mend.
            let waiting = shared.database.alarm_unacknowledged(UNACKNOWLEDGED_MAX as u32).await?;
            lock(&shared.unacknowledged).reset(waiting, Instant::now());
            let head = Head { no: position.head, retired: position.retired, epoch };
            lock(&shared.tail).reset(head);
            self.tell(head);
        }
        lock(&shared.tail).retire(position.retired);
        loop {
            let head = lock(&shared.tail).head();
            self.tell(head);
            if head.no >= position.head {
                return Ok(());
            }
            let page = shared.database.alarm_events_after(head.no, PAGE_EVENTS).await?;
            let continues = page.first().and_then(|event| event.no) == Some(head.no + 1);
            if !continues {
                // Retired under us: what is gone cannot be followed.
                let behind = page.first().and_then(|event| event.no).map_or(position.head, |no| no - 1);
                lock(&shared.tail).reset(Head { no: behind, ..head });
            }
            self.push(page);
        }
    }
}
