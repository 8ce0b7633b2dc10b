//! The last step of a message: batched, committed, acknowledged.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use domain::{Message, Receipt};
use store::{Item, StoreError, Writer};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::store_state::StoreView;
use crate::{IngestMetrics, IngestReceipt};

/// One thing to write, and the share of its acknowledgement.
pub(crate) struct Work {
    pub(crate) item: Item,
    pub(crate) receipt: IngestReceipt,
}

/// A commit without an answer for so long makes the store count as away.
const SLOW: Duration = Duration::from_secs(5);

/// A batch that had no answer in time so often is stored in halves: it may be too much, and not the database away.
const TIMEOUTS_MAX: u32 = 2;

/// Rows from which on a commit costs little more than they do: the next one begins at once.
const ROWS_ENOUGH: usize = 200;

/// The way to a writer.
pub(crate) struct Queue {
    work: mpsc::Sender<Work>,
    hurry: Arc<Notify>,
}

impl Queue {
    /// For at most `len` messages, and its other end.
    pub(crate) fn new(len: usize) -> (Self, Queued) {
        let (sender, work) = mpsc::channel(len);
        let hurry = Arc::<Notify>::default();
        (Self { work: sender, hurry: Arc::clone(&hurry) }, Queued { work, hurry })
    }

    /// Never waits. False: it is full, and the work is dropped unacknowledged.
    pub(crate) fn put(&self, work: Work) -> bool {
        let hurries = hurries(&work.item);
        let fits = self.work.try_send(work).is_ok();
        if hurries {
            self.hurry.notify_one();
        }
        fits
    }
}

/// What waits for a writer.
pub(crate) struct Queued {
    work: mpsc::Receiver<Work>,
    /// Something waits that must not linger.
    hurry: Arc<Notify>,
}

impl Queued {
    /// Lingers until then, unless enough waits, or something that must not.
    async fn rest(&self, until: Instant) {
        if self.work.len() >= ROWS_ENOUGH || Instant::now() >= until {
            return;
        }
        tokio::select! {
            () = self.hurry.notified() => {}
            () = tokio::time::sleep_until(until) => {}
        }
    }
}

/// Whether it is committed as soon as the writer is free: all but readings are rare, and somebody may be waiting
/// for them.
fn hurries(item: &Item) -> bool {
    match item {
        Item::Message(incoming) => !matches!(*incoming.message, Message::Telemetry(_)),
        Item::Quarantine(_) => true,
    }
}

/// One writer: takes what is waiting, commits it, acknowledges. A batch is what came while the one before was being
/// committed; after a small one it lingers, so that a few messages a commit do not cost a commit each. A message
/// that comes alone finds it rested and is committed at once.
pub(crate) struct Shard {
    pub(crate) writer: Writer,
    pub(crate) rows_max: usize,
    /// From the beginning of a small commit to that of the next, at least, while only readings wait.
    pub(crate) linger: Duration,
    pub(crate) store: StoreView,
    pub(crate) metrics: Arc<IngestMetrics>,
    pub(crate) abandon: CancellationToken,
    /// Nothing was taken since something was refused even by quarantine.
    pub(crate) is_refused: bool,
}

/// How a batch ended.
enum Outcome {
    Stored,
    /// The store refuses something in it, and will again; or it takes too long as a whole.
    Refused(StoreError),
    /// Given up by a stop.
    Abandoned,
}

impl Shard {
    /// Until the queue is closed and drained, or abandoned.
    pub(crate) async fn run(mut self, mut queue: Queued) {
        let mut waiting = VecDeque::new();
        let mut buffer = Vec::new();
        // Used again and again: batches of 5,000 would go to the system and back.
        let (mut items, mut receipts) = (Vec::new(), Vec::new());
        loop {
            if waiting.is_empty() && queue.work.recv_many(&mut buffer, self.rows_max).await == 0 {
                return;
            }
            waiting.extend(buffer.drain(..));
            let count = batch_len(&waiting, self.rows_max);
            for work in waiting.drain(..count) {
                items.push(work.item);
                receipts.push(work.receipt);
            }
            self.metrics.batch_messages.observe(items.len() as f64);
            let rested = Instant::now() + self.linger;
            let is_small = is_small(&items);
            match self.commit(&items).await {
                Outcome::Stored => {
                    receipts.drain(..).for_each(Receipt::done);
                    items.clear();
                    if is_small && waiting.is_empty() {
                        queue.rest(rested).await;
                    }
                }
                Outcome::Abandoned => return,
                Outcome::Refused(error) => {
                    let work = items.drain(..).zip(receipts.drain(..));
                    let work = work.map(|(item, receipt)| Work { item, receipt }).collect();
                    // What is refused goes once more as a whole: too rare to be worth another way.
                    let is_slow = matches!(error, StoreError::Timeout(_));
                    let parts = if is_slow { halves(work).into() } else { vec![work] };
                    if !self.store(parts).await {
                        return;
                    }
                }
            }
        }
    }

    /// Stores parts of a batch, the last first; what the store refuses is searched by halves and quarantined, so
    /// that its neighbours are stored. False: abandoned.
    async fn store(&mut self, mut parts: Vec<Vec<Work>>) -> bool {
        let mut told = false;
        while let Some(mut part) = parts.pop() {
            let (items, receipts): (Vec<_>, Vec<_>) =
                part.drain(..).map(|work| (work.item, work.receipt)).unzip();
            self.metrics.batch_messages.observe(items.len() as f64);
            match self.commit(&items).await {
                Outcome::Stored => receipts.into_iter().for_each(Receipt::done),
                Outcome::Abandoned => return false,
                Outcome::Refused(_) if items.len() > 1 => {
                    let work = items.into_iter().zip(receipts);
                    parts.extend(halves(work.map(|(item, receipt)| Work { item, receipt }).collect()));
                }
                Outcome::Refused(error) => {
                    // Once for what may be thousands; quarantine has each with its reason.
                    if !std::mem::replace(&mut told, true) {
                        tracing::error!(error = error.brief(), "messages are refused and go to quarantine");
                    }
                    let rows = items.first().map(|item| refused(item, &error)).unwrap_or_default();
                    let kept = match rows.as_slice() {
                        [] => Outcome::Refused(error),
                        rows => self.commit_within(rows, u32::MAX).await,
                    };
                    match kept {
                        Outcome::Stored => receipts.into_iter().for_each(Receipt::done),
                        Outcome::Abandoned => return false,
                        // Not even quarantine takes it. Not acknowledged; the pause keeps the terminal that sends
                        // it again from doing so without end.
                        Outcome::Refused(error) => {
                            self.metrics.commit_failures.inc();
                            // Once may be the message; twice in a row it is the store that takes nothing.
                            if std::mem::replace(&mut self.is_refused, true) {
                                self.store.away(error.brief());
                            }
                            tracing::error!(error = %error, "a message can be neither stored nor quarantined");
                            tokio::time::sleep(REFUSED_PAUSE).await;
                        }
                    }
                }
            }
        }
        true
    }

    /// Tries until the store has decided, or until a batch that could be smaller has taken too long too often.
    async fn commit(&mut self, items: &[Item]) -> Outcome {
        self.commit_within(items, if items.len() > 1 { TIMEOUTS_MAX } else { u32::MAX }).await
    }

    async fn commit_within(&mut self, items: &[Item], timeouts_max: u32) -> Outcome {
        let mut timeouts = 0;
        let mut pauses = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(50))
            .with_max_delay(Duration::from_secs(2))
            .with_jitter()
            .without_max_times()
            .build();
        loop {
            let slow = || self.store.away("the database does not answer".to_owned());
            let commit = said_when_slow(self.writer.commit(items), SLOW, slow);
            let Some(committed) = self.abandon.run_until_cancelled(commit).await else {
                return Outcome::Abandoned;
            };
            match committed {
                Ok(_) => {
                    self.store.up();
                    self.is_refused = false;
                    return Outcome::Stored;
                }
                // A refused login, or a right that is missing, is mended by a person, without our restart.
                Err(error) if error.mendable() => {
                    self.metrics.commit_retries.inc();
                    self.store.away(error.brief());
                    timeouts += u32::from(matches!(error, StoreError::Timeout(_)));
                    if timeouts >= timeouts_max {
                        tracing::warn!(messages = items.len(), "a batch takes too long; it is halved");
                        return Outcome::Refused(error);
                    }
                    let pause = tokio::time::sleep(pauses.next().unwrap_or(Duration::from_secs(2)));
                    if self.abandon.run_until_cancelled(pause).await.is_none() {
                        return Outcome::Abandoned;
                    }
                }
                Err(error) => return Outcome::Refused(error),
            }
        }
    }
}

/// The second half, and the first, which is to be stored before it.
fn halves(mut work: Vec<Work>) -> [Vec<Work>; 2] {
    let second = work.split_off(work.len() / 2);
    [second, work]
}

/// The outcome of `work`; `slow` is called once if that takes long.
async fn said_when_slow<T>(work: impl Future<Output = T>, after: Duration, slow: impl FnOnce()) -> T {
    let mut work = Box::pin(work);
    if let Ok(outcome) = tokio::time::timeout(after, &mut work).await {
        return outcome;
    }
    slow();
    work.await
}

/// Pause after a message that nothing takes.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

/// How many of the first messages make a batch: as many as fit, one at least.
fn batch_len(waiting: &VecDeque<Work>, rows_max: usize) -> usize {
    let mut rows = 0;
    let fits = waiting.iter().take_while(|work| {
        rows += rows_of(&work.item);
        rows <= rows_max
    });
    fits.count().max(1)
}

/// Whether a batch is of so few rows that its commit costs more than they do.
fn is_small(items: &[Item]) -> bool {
    items.len() < ROWS_ENOUGH && items.iter().map(rows_of).sum::<usize>() < ROWS_ENOUGH
}

fn rows_of(item: &Item) -> usize {
    match item {
        Item::Message(incoming) => match &*incoming.message {
            Message::Telemetry(batch) => batch.readings.len(),
            Message::Event(batch) => batch.events.len() + 1,
            Message::Statistics(_) => 1,
        },
        Item::Quarantine(_) => 1,
    }
}

/// What is kept of a message that the store refuses: its rows, in quarantine. Nothing of what is for quarantine
/// itself.
fn refused(item: &Item, error: &StoreError) -> Vec<Item> {
    let Item::Message(incoming) = item else { return Vec::new() };
    let entries = incoming.refused(&error.brief());
    entries.into_iter().map(|entry| Item::Quarantine(Box::new(entry))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StoreState;
    use domain::{Arrival, BootId, ElevatorId, EventBatch, Seq, TerminalId, Timestamp};
    use store::{Incoming, QuarantineReason};
    use tokio::sync::watch;

    fn work(readings: usize) -> Work {
        let reading = domain::Reading::new(Seq(1), Timestamp::default());
        let message = Message::Telemetry(domain::TelemetryBatch {
            boot: BootId(1),
            sent: None,
            prev_boot_last_seq: None,
            dropped: None,
            readings: vec![reading; readings],
        });
        let terminal_id = TerminalId::new("t1").unwrap();
        let (elevator_id, arrival) = (ElevatorId(1), Arrival::default());
        let incoming = Incoming { elevator_id, terminal_id, arrival, message: Arc::new(message) };
        Work { item: Item::Message(incoming), receipt: IngestReceipt::none() }
    }

    #[tokio::test]
    async fn a_store_that_does_not_answer_counts_as_away_until_it_does() {
        let (sender, state) = watch::channel(StoreState::Up);
        let mut view = StoreView::of(sender, 1).remove(0);
        let late = tokio::time::sleep(Duration::from_millis(50));
        said_when_slow(late, Duration::from_millis(1), || view.away("silent".to_owned())).await;
        assert_eq!(*state.borrow(), StoreState::Away("silent".to_owned()));
        view.up();
        said_when_slow(std::future::ready(()), SLOW, || view.away("silent".to_owned())).await;
        assert_eq!(*state.borrow(), StoreState::Up);
    }

    #[test]
    fn a_batch_is_bounded_by_its_rows_not_its_messages() {
        let waiting: VecDeque<_> = [3, 3, 3, 1].into_iter().map(work).collect();
        assert_eq!(batch_len(&waiting, 6), 2);
        assert_eq!(batch_len(&waiting, 7), 2);
        assert_eq!(batch_len(&waiting, 2), 1, "one larger than the bound goes alone");
        assert_eq!(batch_len(&waiting, 100), 4);
    }

    /// Whether a writer would go on at once, had it just made a small commit.
    async fn goes_on(queue: &Queued) -> bool {
        tokio::select! {
            biased;
            () = queue.rest(Instant::now() + Duration::from_hours(1)) => true,
            () = std::future::ready(()) => false,
        }
    }

    fn event() -> Work {
        let list = EventBatch { boot: BootId(1), sent: None, events: vec![], active: Some(vec![]) };
        let mut one = work(1);
        if let Item::Message(incoming) = &mut one.item {
            incoming.message = Arc::new(Message::Event(list));
        }
        one
    }

    #[tokio::test]
    async fn readings_wait_for_more_events_do_not() {
        let (queue, mut queued) = Queue::new(1_000);
        assert!(!goes_on(&queued).await);
        assert!(queue.put(work(1)));
        assert!(!goes_on(&queued).await, "a reading lingers");
        assert!(queue.put(event()));
        assert!(goes_on(&queued).await, "an event does not");
        assert!(!goes_on(&queued).await, "once");
        let error = StoreError::Corrupt("x".into());
        let item = refused(&work(1).item, &error).remove(0);
        assert!(queue.put(Work { item, receipt: IngestReceipt::none() }));
        assert!(goes_on(&queued).await);
        while queue.put(work(1)) {}
        assert!(goes_on(&queued).await, "many readings do not");
        queued.work.recv_many(&mut Vec::new(), 1_000).await;
        queued.rest(Instant::now()).await;
    }

    #[test]
    fn small_is_counted_in_rows() {
        let items = |count, readings| (0..count).map(|_| work(readings).item).collect::<Vec<_>>();
        assert!(is_small(&items(ROWS_ENOUGH - 1, 1)) && !is_small(&items(ROWS_ENOUGH, 1)));
        assert!(is_small(&items(3, 50)) && !is_small(&items(4, 50)));
    }

    #[test]
    fn a_refused_message_leaves_its_rows_and_the_reason() {
        let error = StoreError::Corrupt("x".into());
        let rows = refused(&work(3).item, &error);
        assert_eq!(rows.len(), 3);
        for row in &rows {
            let Item::Quarantine(entry) = row else { panic!("{row:?}") };
            assert_eq!((entry.reason, entry.terminal_id.as_str()), (QuarantineReason::Refused, "t1"));
            assert_eq!(entry.topic, "telemetry", "so that it can be decoded again");
            assert!(refused(row, &error).is_empty());
        }
        assert_eq!(refused(&event().item, &error).len(), 1, "an active list is a row");
        assert_eq!(rows_of(&event().item), 1);
    }
}
