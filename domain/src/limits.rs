//! Every bound of the system that is not a setting, in one place, each with its reason.

use std::time::Duration;

/// Readings in one batch: an outage of 17 minutes at 1 Hz; a terminal splits longer backlogs.
pub const BATCH_READINGS_MAX: usize = 1_000;
/// The last sequence number: one after it must be a number too, or ranges of them cannot be told.
pub const SEQ_MAX: i64 = i64::MAX - 1;
/// Events in one batch.
pub const BATCH_EVENTS_MAX: usize = 256;
/// Active codes in one reading or one active list; real controllers report a handful.
pub const CODES_MAX: usize = 32;
/// Bytes of one raw fault code (`F9999`, `entrapment_between_floors`).
pub const CODE_BYTES_MAX: usize = 64;
/// Bytes of a floor label; GB/T 24476 allows 4 characters, a character is at most 4 bytes.
pub const FLOOR_BYTES_MAX: usize = 16;
/// Bytes of a payload that are decoded, and that quarantine keeps whole; larger ones are quarantined by their hash and
/// first 4 KB.
pub const PAYLOAD_BYTES_MAX: usize = 256 * 1024;
/// Bytes kept of a payload that is not kept whole. Also stands in the index `quarantine_whole`.
pub const QUARANTINE_HEAD_BYTES: usize = 4 * 1024;
/// Bytes of payloads over [`QUARANTINE_HEAD_BYTES`] that quarantine keeps whole of one terminal within 24 hours; of
/// further ones it keeps the first 4 KB. A terminal that nobody understands and that sends a reading a second in batches
/// of 50 stays below.
pub const QUARANTINE_BYTES_PER_DAY_MAX: u64 = 64 * 1024 * 1024;
/// Readings older than this by age are stored, but start no timers (补传, DOMAIN.md 6).
pub const LATE_AGE: Duration = Duration::from_mins(1);
/// A device time further ahead than this goes to quarantine as `future` (DOMAIN.md 6).
pub const FUTURE_MAX: Duration = Duration::from_mins(5);
/// Readings and events are kept this long by default; older device times are quarantined as `too_old`.
pub const RETENTION: Duration = Duration::from_hours(180 * 24);
/// Position of a car, in mm: 2 km covers the deepest mine.
pub const POSITION_MM_ABS_MAX: i32 = 2_000_000;
/// Speed of a car, in mm/s: the fastest lift built runs 21 m/s.
pub const VELOCITY_MM_S_ABS_MAX: i32 = 30_000;
/// Load in the car, in kg.
pub const LOAD_KG_MAX: i32 = 30_000;
/// Temperature in tenths of a degree Celsius, absolute.
pub const TEMPERATURE_DC_ABS_MAX: i32 = 2_000;
/// Vibration in mm/s².
pub const VIBRATION_MM_S2_MAX: i32 = 1_000_000;
/// A counter of the statistics: a lift that runs a hundred years stays a thousand times below, and a total of
/// any number of segments fits 64 bits.
pub const COUNTER_MAX: i64 = 1_000_000_000_000;
/// Age and skew kept, in ms: larger ones are stored as this bound (24 days).
pub const SKEW_MS_ABS_MAX: i64 = 2_000_000_000;

/// New boots of one terminal within 24 hours; what comes under more goes to quarantine as `too_many_boots`. Each is kept
/// for ever, as part of the keys of its rows. A terminal that restarts every minute makes 1,440.
pub const BOOTS_PER_DAY_MAX: u32 = 1_500;

/// Shown as offline after so long without a sign of life (DOMAIN.md 6).
pub const OFFLINE_AFTER: Duration = Duration::from_mins(3);
/// A viewer renews it; without that the terminal falls back to its own rate, to save traffic (DOMAIN.md 6).
pub const LIVE_VIEW_LEASE: Duration = Duration::from_mins(1);
/// Other orders wait this long for a sleeping terminal.
pub const DOWNLINK_KEEPS: Duration = Duration::from_hours(24);
/// Orders that wait for one terminal; the next is refused. There are three kinds, and a newer one replaces a
/// waiting one of its kind, so this is reached only when kinds are added.
pub const DOWNLINKS_WAITING_MAX: usize = 32;
/// Between two readings, least and most: five a second is what a rule can use, an hour is a dead terminal.
pub const REPORT_INTERVAL_MS: (u32, u32) = (200, 3_600_000);
/// How long a report rate may be asked for: a week is a study, more is a setting of the terminal.
pub const REPORT_RATE_FOR_S: (u32, u32) = (1, 7 * 86_400);

/// What becomes of a row with this device time (DESIGN.md 4, "Late and skewed").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Stored.
    Stored,
    /// Quarantined: older than what is kept.
    TooOld,
    /// Quarantined: more than [`FUTURE_MAX`] ahead of the server.
    Future,
}

/// Decides on the device time `time` of a reading or event that arrived at `arrived`.
pub fn admit(time: crate::Timestamp, arrived: crate::Timestamp, retention: Duration) -> Admission {
    if time > arrived.plus(FUTURE_MAX) {
        Admission::Future
    } else if time < arrived.minus(retention) {
        Admission::TooOld
    } else {
        Admission::Stored
    }
}
