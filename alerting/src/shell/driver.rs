//! The task that owns the engine: feeds it inputs and time, hands on what it decides, saves its states.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use domain::{Area, ArrivalNo, ElevatorId, Receipt, TerminalId, Timestamp};
use store::{Database, StoreError, recovery};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{info, warn};

use super::StartError;
use super::committer::{Decisions, Job, Progress};
use super::dirty::{Change, Dirty};
use crate::config::INPUT_BATCH;
use crate::engine::{self, Engine, Input, Transition};
use crate::{Clock, Config, Metrics};

/// States turned into JSON between two looks at the inputs: below a millisecond.
const STATES_STEP: usize = 64;
/// The longest sleep: the machine's clock may be set.
const SLEEP_MAX: Duration = Duration::from_secs(1);

pub(super) struct Driver<R> {
    engine: Engine,
    clock: Clock,
    inputs: mpsc::Receiver<(Input, R)>,
    jobs: mpsc::Sender<Job<R>>,
    progress: Arc<Progress>,
    metrics: Metrics,
    checkpoint_every: Duration,
    checkpoint_states_max: usize,
    dirty: Dirty,
    /// Who spoke last for each elevator.
    speakers: HashMap<ElevatorId, TerminalId>,
    /// The checkpoint that is being put together.
    saving: Option<Vec<store::ElevatorState>>,
    checkpoint_at: Instant,
    /// Elevators with decisions that may not be on disk yet, and the number of the last of them. A repeated
    /// message of theirs decides nothing, but must not be acknowledged before what the first one decided.
    undecided: HashMap<ElevatorId, u64>,
    decisions: u64,
    /// Receipts that wait their turn until the committer takes something in again. Full, at as many as there
    /// may be decisions: the engine waits.
    turns: Vec<R>,
    turns_max: usize,
    out: Vec<Transition>,
}

/// The committer is gone.
#[derive(Debug)]
struct Gone;

impl<R: Receipt> Driver<R> {
    pub(super) fn new(
        config: Config,
        clock: Clock,
        inputs: mpsc::Receiver<(Input, R)>,
        jobs: mpsc::Sender<Job<R>>,
        progress: Arc<Progress>,
        metrics: Metrics,
    ) -> Self {
        Self {
            engine: Engine::new(config.thresholds),
            clock,
            inputs,
            jobs,
            progress,
            metrics,
            checkpoint_every: config.checkpoint_every,
            checkpoint_states_max: config.checkpoint_states_max,
            dirty: Dirty::default(),
            speakers: HashMap::new(),
            saving: None,
            checkpoint_at: Instant::now() + config.checkpoint_every,
            undecided: HashMap::new(),
            decisions: 0,
            turns: Vec::new(),
            turns_max: config.commit_queue_len,
            out: Vec::new(),
        }
    }

    /// Loads the states, replays the messages that each does not cover, and brings the clock to now.
    pub(super) async fn recover(&mut self, database: &Database) -> Result<(), StartError> {
        let position = database.engine_position_get().await?;
        self.dirty = Dirty::new(position);
        let loaded = self.load(database).await?;
        // Before the rows are opened: a small pool has no connection to spare while they are.
        let areas: HashMap<ElevatorId, Area> = database.elevator_areas().await?;
        let (mut replayed, mut skipped) = (0_u64, 0_u64);
        let mut rows = recovery::rows_after(database, position);
        while let Some(row) = rows.next().await? {
            let known = self.engine.state(row.elevator_id).map(|state| (state.covered(), state.area()));
            if known.is_some_and(|(covered, _)| covered >= row.arrival.no) {
                skipped += 1;
                continue;
            }
            let area = known.map(|(_, area)| area).or_else(|| areas.get(&row.elevator_id).copied());
            let Some(area) = area else {
                warn!(elevator_id = row.elevator_id.0, "readings of an elevator that is not registered");
                continue;
            };
            let (elevator_id, terminal_id) = (row.elevator_id, row.terminal_id);
            let (arrival, message) = (row.arrival, row.message);
            let input = Input::Message { elevator_id, terminal_id, area, arrival, message };
            self.take(input, None).await.map_err(|Gone| StartError::CutOff)?;
            replayed += 1;
        }
        self.tick(self.clock.now()).await.map_err(|Gone| StartError::CutOff)?;
        info!(elevators = loaded, replayed, skipped, position = position.0, "the rules have caught up");
        Ok(())
    }

    async fn load(&mut self, database: &Database) -> Result<usize, StoreError> {
        let mut states = vec![];
        let (speakers, mut unread) = (&mut self.speakers, 0_u64);
        database
            .state_load_all(|row| match engine::ElevatorState::from_json(&row.engine) {
                Ok(state) => {
                    speakers.insert(row.elevator_id, row.terminal_id);
                    states.push(state);
                }
                Err(_) => unread += 1,
            })
            .await?;
        if unread > 0 {
            warn!(unread, "states of another version: these elevators begin anew");
        }
        let loaded = states.len();
        self.engine.restore(states);
        Ok(loaded)
    }

    /// Runs until all handles are gone; then saves all states.
    pub(super) async fn run(mut self) {
        let ended = self.drive().await;
        if ended.is_ok() && self.save_all().await.is_ok() {
            return;
        }
        // A committer that has given up on the database, or died: that task's owner knows which.
        warn!("the engine stopped before its states were saved");
    }

    async fn drive(&mut self) -> Result<(), Gone> {
        let mut batch = Vec::with_capacity(INPUT_BATCH);
        loop {
            let now = self.clock.now();
            let deadline = self.engine.next_deadline();
            if deadline.is_some_and(|deadline| deadline <= now) {
                self.tick(now).await?;
            }
            if self.checkpoint_at <= Instant::now() {
                self.begin_checkpoint();
            }
            if self.saving.is_some() {
                self.step_checkpoint().await?;
            }
            let pause = deadline.map_or(SLEEP_MAX, |deadline| deadline.since(now)).min(SLEEP_MAX);
            let wake = (Instant::now() + pause).min(self.checkpoint_at);
            let count = tokio::select! {
                biased;
                place = self.jobs.reserve(), if !self.turns.is_empty() => {
                    let place = place.map_err(|_| Gone)?;
                    place.send(Job::turns(std::mem::take(&mut self.turns)));
                    continue;
                }
                count = self.inputs.recv_many(&mut batch, INPUT_BATCH) => count,
                () = std::future::ready(()), if self.saving.is_some() => continue,
                () = tokio::time::sleep_until(wake) => continue,
            };
            if count == 0 {
                return Ok(());
            }
            self.metrics.inputs.inc_by(count as u64);
            for (input, receipt) in batch.drain(..) {
                self.take(input, Some(receipt)).await?;
            }
            self.metrics.input_queue.set(self.inputs.len() as i64);
        }
    }

    /// One input.
    async fn take(&mut self, input: Input, receipt: Option<R>) -> Result<(), Gone> {
        let speaker = match &input {
            Input::Message { elevator_id, terminal_id, arrival, .. }
            | Input::Presence { elevator_id, terminal_id, arrival, .. }
            | Input::Muted { elevator_id, terminal_id, arrival, .. }
            | Input::Traits { elevator_id, terminal_id, arrival, .. } => {
                self.dirty.touch(*elevator_id, *arrival);
                match self.speakers.get_mut(elevator_id) {
                    Some(known) if known == terminal_id => {}
                    Some(known) => *known = terminal_id.clone(),
                    None => {
                        self.speakers.insert(*elevator_id, terminal_id.clone());
                    }
                }
                Some(*elevator_id)
            }
            Input::Clock(_) => None,
        };
        self.engine.input(input, &mut self.out);
        if self.out.is_empty() {
            return match receipt {
                Some(receipt) => self.release(speaker, receipt).await,
                None => Ok(()),
            };
        }
        self.hand_on(receipt).await
    }

    /// Time has come this far.
    async fn tick(&mut self, now: Timestamp) -> Result<(), Gone> {
        self.engine.input(Input::Clock(now), &mut self.out);
        if self.out.is_empty() {
            return Ok(());
        }
        self.hand_on(None).await
    }

    /// An input that decided nothing.
    async fn release(&mut self, speaker: Option<ElevatorId>, receipt: R) -> Result<(), Gone> {
        let number = speaker.and_then(|elevator_id| self.undecided.get(&elevator_id).copied());
        let committed = self.progress.committed.load(Ordering::Acquire);
        if number.is_none_or(|number| number <= committed) {
            receipt.done();
            return Ok(());
        }
        self.turns.push(receipt);
        if self.turns.len() >= self.turns_max {
            return self.send_turns().await;
        }
        match self.jobs.try_reserve() {
            Ok(place) => place.send(Job::turns(std::mem::take(&mut self.turns))),
            Err(mpsc::error::TrySendError::Full(())) => {}
            Err(mpsc::error::TrySendError::Closed(())) => return Err(Gone),
        }
        Ok(())
    }

    async fn send_turns(&mut self) -> Result<(), Gone> {
        if self.turns.is_empty() {
            return Ok(());
        }
        let turns = Job::turns(std::mem::take(&mut self.turns));
        self.jobs.send(turns).await.map_err(|_| Gone)
    }

    async fn hand_on(&mut self, receipt: Option<R>) -> Result<(), Gone> {
        self.decisions += 1;
        let number = self.decisions;
        let (mut events, mut suppressions) = (vec![], vec![]);
        for transition in self.out.drain(..) {
            match transition {
                Transition::Event(event) => {
                    self.undecided.insert(event.alarm.elevator_id, number);
                    events.push(event);
                }
                Transition::Suppressed(candidate) => suppressions.push(candidate),
            }
        }
        self.metrics.suppressed.inc_by(suppressions.len() as u64);
        let receipts = receipt.into_iter().collect();
        let job = Job::Decisions(Decisions { number, events, suppressions, receipts });
        self.jobs.send(job).await.map_err(|_| Gone)
    }

    fn begin_checkpoint(&mut self) {
        self.checkpoint_at = Instant::now() + self.checkpoint_every;
        self.note_changes();
        self.metrics.checkpoint_dirty.set(self.dirty.len() as i64);
        self.metrics.checkpoint_lag.set(self.dirty.lag());
        let committed = self.progress.committed.load(Ordering::Acquire);
        self.undecided.retain(|_, number| *number > committed);
        // One at a time: while the database is away, changes stay where they are.
        if self.dirty.len() > 0 && !self.progress.checkpointing.swap(true, Ordering::AcqRel) {
            self.saving = Some(Vec::new());
        }
    }

    /// Elevators that a deadline changed have no input of their own.
    fn note_changes(&mut self) {
        let now = self.clock.now();
        for elevator_id in self.engine.take_dirty() {
            self.dirty.touch_by_clock(elevator_id, now);
        }
    }

    /// Puts a few more states into the checkpoint, and sends it when it is full or nothing is left.
    async fn step_checkpoint(&mut self) -> Result<(), Gone> {
        let Some(mut states) = self.saving.take() else { return Ok(()) };
        for _ in 0..STATES_STEP {
            if states.len() == self.checkpoint_states_max {
                break;
            }
            let Some((elevator_id, change)) = self.dirty.pop() else { break };
            states.extend(self.state(elevator_id, &change));
        }
        if states.len() < self.checkpoint_states_max && self.dirty.len() > 0 {
            self.saving = Some(states);
            return Ok(());
        }
        self.send_checkpoint(states).await
    }

    async fn send_checkpoint(&mut self, states: Vec<store::ElevatorState>) -> Result<(), Gone> {
        let position: ArrivalNo = self.dirty.position();
        self.jobs.send(Job::Checkpoint { states, position }).await.map_err(|_| Gone)
    }

    /// The last checkpoints: everything, in the order of the data.
    async fn save_all(&mut self) -> Result<(), Gone> {
        self.send_turns().await?;
        self.note_changes();
        let mut states = self.saving.take().unwrap_or_default();
        while let Some((elevator_id, change)) = self.dirty.pop() {
            states.extend(self.state(elevator_id, &change));
            if states.len() >= self.checkpoint_states_max {
                let full = std::mem::take(&mut states);
                self.send_checkpoint(full).await?;
            }
        }
        self.send_checkpoint(states).await
    }

    /// What the table shows of an elevator, with the engine's memory.
    fn state(&self, elevator_id: ElevatorId, change: &Change) -> Option<store::ElevatorState> {
        let state = self.engine.state(elevator_id)?;
        let latest = state.latest();
        let shown = latest.as_ref();
        Some(store::ElevatorState {
            elevator_id,
            terminal_id: self.speakers.get(&elevator_id)?.clone(),
            area: state.area(),
            online: shown.and_then(|shown| shown.online),
            last_seen: shown.map(|shown| shown.last_seen),
            time: shown.map(|shown| shown.time),
            service_mode: shown.and_then(|shown| shown.service_mode),
            car_status: shown.and_then(|shown| shown.car_status),
            direction: shown.and_then(|shown| shown.direction),
            door_zone: shown.and_then(|shown| shown.door_zone),
            door_state: shown.and_then(|shown| shown.door_state),
            passengers: shown.and_then(|shown| shown.passengers),
            people: shown.and_then(|shown| shown.people),
            floor: shown.and_then(|shown| shown.floor).map(|floor| floor.as_str().to_owned()),
            floor_ordinal: shown.and_then(|shown| shown.floor_ordinal),
            position_mm: shown.and_then(|shown| shown.position_mm),
            velocity_mm_s: shown.and_then(|shown| shown.velocity_mm_s),
            load_kg: shown.and_then(|shown| shown.load_kg),
            people_count: shown.and_then(|shown| shown.people_count),
            flags: shown.and_then(|shown| shown.flags),
            temperature_dc: shown.and_then(|shown| shown.temperature_dc),
            vibration_mm_s2: shown.and_then(|shown| shown.vibration_mm_s2),
            codes: shown
                .map_or(vec![], |shown| shown.codes.iter().map(|code| code.raw.to_string()).collect()),
            code_slugs: shown
                .map_or(vec![], |shown| shown.codes.iter().map(|code| code.fault.slug.to_owned()).collect()),
            arrival: domain::Arrival { no: state.covered(), at: change.at },
            changed: state.covered().max(change.no),
            engine_version: i32::try_from(engine::ElevatorState::VERSION).unwrap_or(i32::MAX),
            engine: state.to_json(),
        })
    }
}
