//! One minute of the whole fleet, as a replay on the wallboard wants it.

use domain::{Area, ElevatorId, Reading, Timestamp};
use futures_util::TryStreamExt;
use sqlx::{AssertSqlSafe, Row as _};

use super::region::ranges;
use super::{PgQuery, Queries, QueryError, Question, invalid, unreadable};
use crate::recovery::reading;
use crate::rows::sent;
use crate::state::storable;

const MINUTE_US: i64 = 60_000_000;

/// One minute of the fleet: of every elevator that was heard in it one reading, which holds of each field what
/// was sent last. A replay that steps from minute to minute applies them one after the other, as it would the
/// readings themselves: what a field of the fold leaves [`domain::Field::Absent`] stays as it was. All readings of a
/// minute would be ten times the rows, and no wall shows them.
///
/// Index: the minute lies in one chunk, others are not looked at; in it `telemetry_brin`, which leads to the pages
/// that were written about then, and to all of them where a chunk is small. Cost: the readings of the minute,
/// about a microsecond each. Bound: rows are handed out as they come from the server; the server groups by
/// elevator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetMinute {
    /// Any moment of the minute, device time.
    pub minute: Timestamp,
    /// Only elevators in one of these regions; empty: all.
    pub regions: Vec<Area>,
}

/// An elevator in a minute.
#[derive(Debug, Clone, PartialEq)]
pub struct MinuteReading {
    /// The elevator.
    pub elevator_id: ElevatorId,
    /// How many readings it sent.
    pub readings: i64,
    /// Time and number of the last of them, and of each field what was sent last.
    pub reading: Reading,
}

/// Columns of a reading with the bits that tell whether they were sent.
const COLUMNS: [(&str, i32); 17] = [
    ("service_mode", sent::SERVICE_MODE),
    ("car_status", sent::CAR_STATUS),
    ("direction", sent::DIRECTION),
    ("door_zone", sent::DOOR_ZONE),
    ("door_state", sent::DOOR_STATE),
    ("passengers", sent::PASSENGERS),
    ("floor", sent::FLOOR),
    ("floor_ordinal", sent::FLOOR_ORDINAL),
    ("position_mm", sent::POSITION_MM),
    ("velocity_mm_s", sent::VELOCITY_MM_S),
    ("load_kg", sent::LOAD_KG),
    ("people_count", sent::PEOPLE_COUNT),
    ("flags", sent::FLAGS),
    ("temperature_dc", sent::TEMPERATURE_DC),
    ("vibration_mm_s2", sent::VIBRATION_MM_S2),
    ("codes", sent::CODES),
    ("code_slugs", sent::CODES),
];

impl FleetMinute {
    fn begin(&self) -> Timestamp {
        Timestamp::from_micros(self.minute.micros().div_euclid(MINUTE_US) * MINUTE_US)
    }

    fn end(&self) -> Timestamp {
        Timestamp::from_micros(self.begin().micros().saturating_add(MINUTE_US))
    }
}

impl Question for FleetMinute {
    fn check(&self) -> Result<(), QueryError> {
        match (storable(self.begin()), storable(self.end())) {
            (Some(_), Some(_)) => Ok(()),
            _ => invalid("the minute lies outside of the calendar"),
        }
    }

    fn statement(&self, prefix: &str) -> PgQuery {
        let names = COLUMNS.map(|(name, _)| name).join(", ");
        let last = COLUMNS
            .map(|(name, bit)| format!("last({name}, at) FILTER (WHERE sent_mask & {bit} <> 0) AS {name}"));
        let last = last.join(",\n ");
        let regions = if self.regions.is_empty() {
            ""
        } else {
            "AND elevator_id IN (
                 SELECT elevator.elevator_id
                 FROM elevator
                 JOIN unnest($3::int4[], $4::int4[]) AS region (first, last)
                   ON elevator.area BETWEEN region.first AND region.last
             )"
        };
        // `at` is the order in the minute: microseconds in 26 bits, then the number. Two readings of one second are
        // common, GB/T 24476 has no finer time. OFFSET 0: it is reckoned once for a row, not once for a column.
        let sql = format!(
            "{prefix}
             SELECT elevator_id, count(*) AS readings, max(time) AS time, last(seq, at) AS seq,
                 bit_or(sent_mask) AS sent_mask,
                 {last}
             FROM (
                 SELECT elevator_id, time, seq, sent_mask, {names},
                     (date_part('epoch', time - $1) * 1000000)::int8 << 37 | (seq & 137438953471) AS at
                 FROM telemetry
                 WHERE time >= $1
                   AND time < $2
                   {regions}
                 OFFSET 0
             ) AS reading
             GROUP BY elevator_id"
        );
        let query = sqlx::query(AssertSqlSafe(sql)).bind(storable(self.begin())).bind(storable(self.end()));
        if self.regions.is_empty() {
            return query;
        }
        let (firsts, lasts) = ranges(&self.regions);
        query.bind(firsts).bind(lasts)
    }
}

impl Queries {
    /// One minute of the fleet, in no order; each elevator is handed out as it comes.
    pub async fn fleet_minute(
        &self,
        question: &FleetMinute,
        mut each: impl FnMut(MinuteReading),
    ) -> Result<(), QueryError> {
        question.check()?;
        let mut turn = self.turn().await?;
        let mut rows = question.statement("").fetch(&mut *turn.connection);
        loop {
            let row = match rows.try_next().await {
                Ok(Some(row)) => row,
                Ok(None) => break,
                Err(error) => {
                    drop(rows);
                    return turn.judge(Err(error));
                }
            };
            each(MinuteReading {
                elevator_id: ElevatorId(row.try_get("elevator_id").map_err(unreadable)?),
                readings: row.try_get("readings").map_err(unreadable)?,
                reading: reading(&row)?,
            });
        }
        drop(rows);
        turn.done();
        Ok(())
    }
}
