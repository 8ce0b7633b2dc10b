//! One alarm stream to one client.
//!
//! Pulled by the client: the next page is looked for when the one before is sent, so that a slow client holds
//! one page (or one snapshot) and no more. A database that is away stops numbered events only: heartbeats and
//! provisional events go on, and the stream continues where it was.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;

use domain::{Alarm, AlarmEvent};
use futures_util::{Stream, stream};
use proto::dispatch::v1;
use proto::dispatch::v1::watch_response::Message;
use store::{AlarmFilter, StoreError, StreamPosition};
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::error;

use super::{heartbeat, in_time, repeat_age};
use crate::Clock;
use crate::config::{PAGE_EVENTS, RETRY, SNAPSHOT_PART};
use crate::stream::{Head, Provisional, Streams, TailRead};

/// The stream of one client, or `None` if there are too many.
pub(super) fn watch(
    streams: Streams,
    clock: Clock,
    resume_after: Option<i64>,
    filter: AlarmFilter,
    stop: CancellationToken,
) -> Option<impl Stream<Item = Result<v1::WatchResponse, Status>>> {
    let counted = Counted::new(&streams)?;
    let watcher = Watcher::new(streams, clock, resume_after, filter, stop, counted);
    Some(stream::unfold(watcher, |mut watcher| async move {
        let next = watcher.next().await?;
        Some((next, watcher))
    }))
}

/// One of the open streams, for as long as it lives.
struct Counted(crate::Metrics);

impl Counted {
    fn new(streams: &Streams) -> Option<Self> {
        let metrics = streams.metrics().clone();
        let before = metrics.watchers.inc();
        let counted = Self(metrics);
        let most = i64::try_from(streams.config().watchers_max).unwrap_or(i64::MAX);
        (before < most).then_some(counted)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.watchers.dec();
    }
}

/// How far the stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// A snapshot comes first.
    Nowhere,
    /// The client named a number that is not checked yet.
    Claimed(i64),
    /// All numbers up to `no` were looked at.
    At { no: i64, epoch: u64 },
}

/// What the store is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    Snapshot,
    Position,
    PageAfter(i64),
}

enum Answer {
    Snapshot(i64, Vec<Alarm>),
    Position(StreamPosition),
    Page(Vec<AlarmEvent>),
}

type Fetch = Pin<Box<dyn Future<Output = Result<Answer, StoreError>> + Send>>;

struct Watcher {
    streams: Streams,
    clock: Clock,
    filter: AlarmFilter,
    stop: CancellationToken,
    place: Place,
    /// The number sent before.
    prev: i64,
    heads: watch::Receiver<Option<Head>>,
    provisional: broadcast::Receiver<Arc<Provisional>>,
    /// Provisional events below this key were shown when the stream began.
    provisional_from: u64,
    beat: Interval,
    fetch: Option<Fetch>,
    /// The database is asked again then.
    retry: Option<Instant>,
    out: VecDeque<v1::WatchResponse>,
    end: Option<Status>,
    ended: bool,
    _counted: Counted,
}

/// Why the watcher went on.
enum Woken {
    Stopped,
    Provisional(Result<Arc<Provisional>, RecvError>),
    Answer(Result<Answer, StoreError>),
    Beat,
    Head,
    Retry,
}

impl Watcher {
    fn new(
        streams: Streams,
        clock: Clock,
        resume_after: Option<i64>,
        filter: AlarmFilter,
        stop: CancellationToken,
        counted: Counted,
    ) -> Self {
        let pace = streams.config().heartbeat_every;
        let mut beat = tokio::time::interval_at(Instant::now() + pace, pace);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Subscribed before the pending ones are listed, so that none falls between.
        let (heads, provisional) = (streams.heads(), streams.provisional());
        let pending = streams.pending(&filter);
        let mut watcher = Self {
            heads,
            provisional,
            provisional_from: pending.last().map_or(0, |last| last.key() + 1),
            streams,
            clock,
            filter,
            stop,
            place: resume_after.map_or(Place::Nowhere, Place::Claimed),
            prev: 0,
            beat,
            fetch: None,
            retry: None,
            out: VecDeque::new(),
            end: None,
            ended: false,
            _counted: counted,
        };
        for one in pending {
            watcher.send_event(&one.event, false);
        }
        watcher
    }

    /// The next message; after a status, nothing.
    async fn next(&mut self) -> Option<Result<v1::WatchResponse, Status>> {
        loop {
            if let Some(message) = self.out.pop_front() {
                return Some(Ok(message));
            }
            if self.ended {
                return None;
            }
            if let Some(status) = self.end.take() {
                self.ended = true;
                return Some(Err(status));
            }
            self.drain_provisional();
            self.advance();
            if self.out.is_empty() && self.end.is_none() {
                let woken = self.wait().await;
                self.wake(woken);
            }
        }
    }

    async fn wait(&mut self) -> Woken {
        let retry = self.retry;
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Woken::Stopped,
            received = self.provisional.recv() => Woken::Provisional(received),
            answer = async { self.fetch.as_mut().expect("guarded").await }, if self.fetch.is_some() => {
                Woken::Answer(answer)
            }
            _ = self.beat.tick() => Woken::Beat,
            Ok(()) = self.heads.changed() => Woken::Head,
            () = tokio::time::sleep_until(retry.unwrap_or_else(Instant::now)), if retry.is_some() => Woken::Retry,
        }
    }

    fn wake(&mut self, woken: Woken) {
        match woken {
            Woken::Stopped => {
                self.end = Some(Status::unavailable("the server is stopping: connect again and resume"));
            }
            Woken::Provisional(Ok(one)) => self.send_provisional(&one),
            Woken::Provisional(Err(RecvError::Lagged(missed))) => self.missed(missed),
            Woken::Provisional(Err(RecvError::Closed)) => {
                self.end = Some(Status::unavailable("the alarm stream ended: connect again and resume"));
            }
            Woken::Answer(answer) => {
                self.fetch = None;
                match answer {
                    Ok(answer) => self.take(answer),
                    Err(failure) if failure.mendable() => self.retry = Some(Instant::now() + RETRY),
                    Err(failure) => {
                        error!(error = &failure as &dyn std::error::Error, "an alarm stream ended");
                        self.end = Some(Status::internal("the store refused; the server's log says why"));
                    }
                }
            }
            Woken::Beat => self.beat(),
            Woken::Head => {}
            Woken::Retry => self.retry = None,
        }
    }

    /// Goes on as far as memory allows, and asks the store for what it lacks.
    fn advance(&mut self) {
        let head = *self.heads.borrow_and_update();
        match self.place {
            Place::Nowhere => self.ask(Question::Snapshot),
            Place::Claimed(no) => match head {
                Some(head) if no <= head.no => self.claim(no, head.retired, head.no),
                _ => self.ask(Question::Position),
            },
            Place::At { no, epoch } => {
                if head.is_some_and(|head| head.epoch != epoch) {
                    self.end = Some(out_of_range(no, "the database was set back to an earlier time"));
                    return;
                }
                match self.streams.tail_after(no) {
                    TailRead::Current => {}
                    TailRead::Events(events) => {
                        for event in events {
                            self.pass(&event);
                        }
                    }
                    TailRead::Behind => self.ask(Question::PageAfter(no)),
                }
            }
        }
    }

    fn ask(&mut self, question: Question) {
        if self.fetch.is_some() || self.retry.is_some() {
            return;
        }
        let (streams, filter) = (self.streams.clone(), self.filter.clone());
        self.fetch = Some(Box::pin(in_time(async move {
            let database = streams.database();
            Ok(match question {
                Question::Snapshot => {
                    let _permit = streams.snapshots().acquire().await.ok();
                    let (no, alarms) = database.alarm_open_snapshot(&filter).await?;
                    Answer::Snapshot(no, alarms)
                }
                Question::Position => Answer::Position(database.alarm_stream_position().await?),
                Question::PageAfter(no) => Answer::Page(database.alarm_events_after(no, PAGE_EVENTS).await?),
            })
        })));
    }

    fn take(&mut self, answer: Answer) {
        match (answer, self.place) {
            (Answer::Snapshot(no, alarms), _) => {
                self.send_snapshot(no, &alarms);
                self.place = Place::At { no, epoch: self.epoch() };
            }
            (Answer::Position(position), Place::Claimed(no)) => {
                self.claim(no, position.retired, position.head);
            }
            (Answer::Page(events), Place::At { no, .. }) => {
                let first = events.first().and_then(|event| event.no);
                if first.is_some_and(|first| first != no + 1) {
                    self.end = Some(out_of_range(no, "the events after it are no longer kept"));
                    return;
                }
                for event in &events {
                    self.pass(event);
                }
            }
            // An answer belongs to the place it was asked from, and that changes by answers only.
            _ => {}
        }
    }

    fn epoch(&self) -> u64 {
        self.heads.borrow().map_or(0, |head| head.epoch)
    }

    fn claim(&mut self, no: i64, retired: i64, head: i64) {
        if no < retired {
            self.end = Some(out_of_range(no, &format!("events up to {retired} are no longer kept")));
        } else if no > head {
            self.end = Some(out_of_range(no, &format!("the last number given is {head}")));
        } else {
            self.place = Place::At { no, epoch: self.epoch() };
        }
    }

    /// Looks at the next numbered event, and sends it if it fits.
    fn pass(&mut self, event: &AlarmEvent) {
        let (Some(next), Place::At { no, epoch }) = (event.no, self.place) else { return };
        debug_assert_eq!(next, no + 1, "numbers are gapless");
        self.place = Place::At { no: next, epoch };
        if self.filter.covers(event.alarm.area, event.alarm.severity) {
            self.send_event(event, false);
            self.prev = next;
        }
    }

    fn drain_provisional(&mut self) {
        loop {
            match self.provisional.try_recv() {
                Ok(one) => self.send_provisional(&one),
                Err(TryRecvError::Lagged(missed)) => self.missed(missed),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }

    /// Sends a provisional event, unless its numbered one is on disk by now: that follows anyway.
    fn send_provisional(&mut self, one: &Provisional) {
        let fits = self.filter.covers(one.event.alarm.area, one.event.alarm.severity);
        if fits && one.key() >= self.provisional_from && self.streams.is_pending(one) {
            self.send_event(&one.event, false);
        }
    }

    fn missed(&self, count: u64) {
        self.streams.metrics().provisional_missed.inc_by(count);
    }

    /// Every 10 s: what nobody has acknowledged, then the sign of life.
    fn beat(&mut self) {
        let no = match self.place {
            Place::At { no, .. } | Place::Claimed(no) => no,
            Place::Nowhere => 0,
        };
        let age = repeat_age(self.streams.config().heartbeat_every);
        for event in self.streams.to_repeat(&self.filter, no, age) {
            self.send_event(&event, true);
        }
        self.out.push_back(heartbeat(no, self.clock.now()));
    }

    fn send_event(&mut self, event: &AlarmEvent, repeated: bool) {
        let prev = if repeated || event.no.is_none() { 0 } else { self.prev };
        let event = v1::AlarmEvent { repeated, ..proto::alarm::event(event, prev) };
        self.streams.metrics().events_sent.inc();
        self.out.push_back(v1::WatchResponse { message: Some(Message::Event(event)) });
    }

    fn send_snapshot(&mut self, no: i64, alarms: &[Alarm]) {
        let mut parts: Vec<&[Alarm]> = alarms.chunks(SNAPSHOT_PART).collect();
        if parts.is_empty() {
            parts.push(&[]);
        }
        let last = parts.len() - 1;
        for (place, part) in parts.into_iter().enumerate() {
            let alarms = part.iter().map(v1::Alarm::from).collect();
            let snapshot = v1::Snapshot { no, alarms, more: place < last };
            self.out.push_back(v1::WatchResponse { message: Some(Message::Snapshot(snapshot)) });
        }
    }
}

fn out_of_range(no: i64, why: &str) -> Status {
    Status::out_of_range(format!(
        "cannot resume after {no}: {why}. Watch again without resume_after: it begins with a snapshot"
    ))
}
