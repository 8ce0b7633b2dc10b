//! `telemetry_1m` and `telemetry_1h`: what an elevator did in each minute and in each hour, with the same
//! columns on both editions.
//!
//! On the Community edition they are continuous aggregates that the server keeps by itself
//! ([`aggregate`]). On the Apache edition they are tables of ours ([`own`]): minutes are rolled up once they
//! are over for [`LAG`], hours when all their minutes are, and a writer that stores a reading of an earlier
//! minute notes elevator and hour, which are then rolled up again. Minutes and hours so become right again
//! whatever comes late. What retention has deleted stays rolled up as it was: nothing is made again from what
//! is left of its readings.

pub(crate) mod aggregate;
pub(crate) mod own;

use std::collections::BTreeSet;
use std::time::Duration;

use domain::Timestamp;
use sqlx::postgres::PgConnection;
use time::OffsetDateTime;

use crate::{Edition, Kept};

/// A minute is rolled up when it has been over for so long. Longer than [`LATE`] and the longest commit
/// together, so that no reading falls between the two.
pub(crate) const LAG: Duration = Duration::from_mins(5);
/// A reading older than this when it is stored is noted as late.
pub(crate) const LATE: Duration = Duration::from_mins(1);

/// How the columns of `telemetry_1m` come about.
pub(crate) const MINUTE_SELECT: &str = "
    SELECT time_bucket(INTERVAL '1 minute', time) AS bucket,
           elevator_id,
           count(*) AS readings,
           count(*) FILTER (WHERE car_status = 1) AS running,
           count(*) FILTER (WHERE door_state = 4) AS door_open,
           max(abs(velocity_mm_s)) AS velocity_mm_s_max,
           max(vibration_mm_s2) AS vibration_mm_s2_max,
           max(load_kg) AS load_kg_max,
           max(temperature_dc) AS temperature_dc_max
    FROM telemetry";

/// How those of `telemetry_1h` come about.
pub(crate) const HOUR_SELECT: &str = "
    SELECT time_bucket(INTERVAL '1 hour', bucket) AS bucket,
           elevator_id,
           sum(readings)::int8 AS readings,
           sum(running)::int8 AS running,
           sum(door_open)::int8 AS door_open,
           max(velocity_mm_s_max) AS velocity_mm_s_max,
           max(vibration_mm_s2_max) AS vibration_mm_s2_max,
           max(load_kg_max) AS load_kg_max,
           max(temperature_dc_max) AS temperature_dc_max
    FROM telemetry_1m";

/// The hour a moment lies in.
pub(crate) fn hour_of(time: Timestamp) -> Timestamp {
    const HOUR_US: i64 = 3_600_000_000;
    Timestamp::from_micros(time.micros().div_euclid(HOUR_US) * HOUR_US)
}

/// The minute a moment lies in.
pub(crate) fn minute_of(time: Timestamp) -> Timestamp {
    const MINUTE_US: i64 = 60_000_000;
    Timestamp::from_micros(time.micros().div_euclid(MINUTE_US) * MINUTE_US)
}

/// Notes elevators and hours whose minutes may have been rolled up before these readings were stored.
pub(crate) async fn late_insert(
    connection: &mut PgConnection,
    late: BTreeSet<(i64, Timestamp)>,
) -> Result<(), sqlx::Error> {
    if late.is_empty() {
        return Ok(());
    }
    let (elevators, hours): (Vec<i64>, Vec<Option<OffsetDateTime>>) =
        late.iter().map(|(elevator, hour)| (*elevator, hour.to_utc())).unzip();
    sqlx::query(
        "INSERT INTO rollup_late (elevator_id, hour)
         SELECT elevator_id, hour
         FROM unnest($1::int8[], $2::timestamptz[]) AS late (elevator_id, hour)
         ON CONFLICT DO NOTHING",
    )
    .bind(elevators)
    .bind(hours)
    .execute(connection)
    .await
    .map(drop)
}

/// How far the rollups go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Reach {
    /// Minutes before it are rolled up; nothing if none is.
    pub(crate) minutes_to: Option<Timestamp>,
    /// Hours before it are.
    pub(crate) hours_to: Option<Timestamp>,
    /// (Elevator, hour) pairs that wait to be rolled up again. The Community edition keeps them to itself.
    pub(crate) late_waiting: i64,
    /// The oldest hour among them.
    pub(crate) late_oldest: Option<Timestamp>,
}

impl Reach {
    /// Rows of a table before it may be let go: those older than `cutoff`, as far as they are in the next rollup.
    pub(crate) fn may_go(&self, table: Kept, cutoff: Timestamp) -> Option<Timestamp> {
        match table {
            Kept::Telemetry => Some(cutoff.min(self.minutes_to?).min(self.late_oldest.unwrap_or(cutoff))),
            Kept::Telemetry1m => Some(cutoff.min(self.hours_to?)),
            _ => Some(cutoff),
        }
    }
}

/// How far the rollups go.
pub(crate) async fn reach(connection: &mut PgConnection, edition: Edition) -> Result<Reach, sqlx::Error> {
    match edition {
        Edition::Apache => own::reach(connection).await,
        Edition::Community => aggregate::reach(connection).await,
    }
}
