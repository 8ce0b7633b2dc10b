//! Every bound and pace of the shell and the service, each with its reason.

use std::time::Duration;

use crate::engine::ThresholdsBook;

/// Settings of the shell around the engine. The defaults are what a city runs with.
#[derive(Debug, Clone)]
pub struct Config {
    /// What the rules decide by.
    pub thresholds: ThresholdsBook,
    /// The alarm stream.
    pub stream: StreamConfig,
    /// Inputs waiting for the engine. Full: whoever submits waits, and with it the reading of sockets.
    pub input_queue_len: usize,
    /// Decisions waiting for their commit, 1 to 2 KB each: hours of a database that is away at a city's
    /// usual pace. Full: the engine waits.
    pub commit_queue_len: usize,
    /// An event that is not committed after this long is streamed provisionally (promise 5): well above a
    /// commit under load, well below what a dispatcher notices.
    pub provisional_after: Duration,
    /// How often the states of changed elevators are saved.
    pub checkpoint_every: Duration,
    /// States in one checkpoint: 60,000 elevators that all move are saved every 12 s.
    pub checkpoint_states_max: usize,
    /// How long after an alarm its evidence is gathered: the readings of the 60 s after it, and what is on
    /// its way.
    pub seal_after: Duration,
    /// How often the sealer looks without a hint.
    pub seal_every: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            thresholds: ThresholdsBook::default(),
            stream: StreamConfig::default(),
            input_queue_len: 8_192,
            commit_queue_len: 32_768,
            provisional_after: Duration::from_millis(250),
            checkpoint_every: Duration::from_secs(1),
            checkpoint_states_max: 5_000,
            seal_after: Duration::from_secs(65),
            seal_every: Duration::from_secs(5),
        }
    }
}

/// Settings of the alarm stream and the gRPC service.
#[derive(Debug, Clone)]
pub struct StreamConfig {
    /// A sign of life on every stream, and the pace at which an unacknowledged S1 is sent again
    /// (DOMAIN.md 7).
    pub heartbeat_every: Duration,
    /// How often the store is asked for events that another process wrote.
    pub poll_every: Duration,
    /// Streams open at once. Full: RESOURCE_EXHAUSTED.
    pub watchers_max: usize,
    /// HTTP/2 pings: a dead client is noticed after two of these.
    pub keepalive_every: Duration,
    /// How long a stop waits for clients to take leave.
    pub stop_within: Duration,
}

impl Default for StreamConfig {
    fn default() -> Self {
        Self {
            heartbeat_every: Duration::from_secs(10),
            poll_every: Duration::from_secs(1),
            watchers_max: 1_000,
            keepalive_every: Duration::from_secs(20),
            stop_within: Duration::from_secs(5),
        }
    }
}

/// Numbered events kept in memory for all streams; a stream that is further behind reads the store. 2 MB.
pub(crate) const TAIL_EVENTS: usize = 1_024;
/// Events in one page of the store.
pub(crate) const PAGE_EVENTS: u32 = 256;
/// Provisional events on their way to one stream. Full: that stream misses them and counts it; their
/// numbered ones follow.
pub(crate) const PROVISIONAL_QUEUE: usize = 1_024;
/// Provisional events that a new stream is shown, and that are sent again. More: the oldest are not.
pub(crate) const PENDING_MAX: usize = 4_096;
/// Unacknowledged S1 that are sent again. More: the oldest are not; that many need other help.
pub(crate) const UNACKNOWLEDGED_MAX: usize = 4_096;
/// Groups of fresh events on their way to the follower. Full: it reads them from the store instead.
pub(crate) const FRESH_QUEUE: usize = 64;
/// Alarms in one part of a snapshot: below 1 MB, a client's usual limit is 4.
pub(crate) const SNAPSHOT_PART: usize = 256;
/// Snapshots being read at once: each holds all open alarms in memory.
pub(crate) const SNAPSHOTS_AT_ONCE: usize = 4;
/// Pause of a stream before it asks a database again that was away.
pub(crate) const RETRY: Duration = Duration::from_secs(1);
/// The longest a stream or call waits for the database.
pub(crate) const STORE_TIMEOUT: Duration = Duration::from_secs(10);
/// Inputs that the engine takes at once.
pub(crate) const INPUT_BATCH: usize = 256;
