//! One minute of the whole fleet, as a replay on the wallboard wants it.

use domain::{Area, ElevatorId, Field, Reading, Timestamp};
use futures_util::TryStreamExt;
use sqlx::{AssertSqlSafe, Row as _};

use super::region::ranges;
use super::{PgQuery, Queries, QueryError, Question, invalid, unreadable};
use crate::recovery::reading;
use crate::state::storable;

const MINUTE_US: i64 = 60_000_000;

/// One minute of the fleet: of every elevator that was heard in it one reading, which holds of each field what
/// was sent last. A replay that steps from minute to minute applies them one after the other, as it would the
/// readings themselves: what a field of the fold leaves [`domain::Field::Absent`] stays as it was. All readings of a
/// minute would be ten times the rows, and no wall shows them.
///
/// The order of readings is that of their times, then of their numbers, then of their boots.
///
/// Index: the minute lies in one chunk, others are not looked at; in it `telemetry_brin`, which leads to the pages
/// that were written about then, and to all of them where a chunk is small. Cost: the readings of the minute are
/// looked at twice, together about 1.4 us each; of those of an elevator that sent the same fields one is handed
/// over, so usually one in all. Bound: rows are handed out as they come from the server; the server groups and sorts.
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
        // A fleet is many: planners take the groups for a few and look up each by `telemetry_pkey`, ten times the time
        // where its pages are not in memory. A subquery with OFFSET cannot be looked into, so it is read once, through.
        let through = if self.regions.is_empty() { "OFFSET 0" } else { "" };
        // What was sent last of a field is in the last reading of those that sent the same fields as it. Readings of one
        // second are common, GB/T 24476 has no finer time: they come all, and the last of them is told by its number.
        let sql = format!(
            "{prefix}
             SELECT reading.elevator_id, newest.readings, reading.time, reading.seq, reading.sent_mask,
                 service_mode, car_status, direction, door_zone, door_state, passengers, floor, floor_ordinal,
                 position_mm, velocity_mm_s, load_kg, people_count, flags, temperature_dc, vibration_mm_s2,
                 codes, code_slugs
             FROM (
                 SELECT elevator_id, sent_mask, max(time) AS time, count(*) AS readings
                 FROM telemetry
                 WHERE time >= $1
                   AND time < $2
                   {regions}
                 GROUP BY elevator_id, sent_mask
             ) AS newest
             JOIN (
                 SELECT *
                 FROM telemetry
                 WHERE time >= $1
                   AND time < $2
                 {through}
             ) AS reading
               ON reading.elevator_id = newest.elevator_id
              AND reading.sent_mask = newest.sent_mask
              AND reading.time = newest.time
             ORDER BY reading.elevator_id, reading.time, reading.seq, reading.source"
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
    /// One minute of the fleet, in the order of ids; each elevator is handed out as it comes.
    pub async fn fleet_minute(
        &self,
        question: &FleetMinute,
        mut each: impl FnMut(MinuteReading),
    ) -> Result<(), QueryError> {
        question.check()?;
        let mut turn = self.turn().await?;
        let mut rows = question.statement("").fetch(turn.connection());
        let mut fold = Fold::default();
        while let Some(row) = self.answer(rows.try_next()).await? {
            let sent_mask = row.try_get("sent_mask").map_err(unreadable)?;
            let one = MinuteReading {
                elevator_id: ElevatorId(row.try_get("elevator_id").map_err(unreadable)?),
                readings: row.try_get("readings").map_err(unreadable)?,
                reading: reading(&row)?,
            };
            fold.add(sent_mask, one).into_iter().for_each(&mut each);
        }
        fold.elevator.into_iter().for_each(&mut each);
        drop(rows);
        turn.done();
        Ok(())
    }
}

/// Makes one reading of those of an elevator, which come one after the other.
#[derive(Default)]
struct Fold {
    elevator: Option<MinuteReading>,
    /// Masks whose readings are counted.
    masks: Vec<i32>,
}

impl Fold {
    /// Adds the last reading of those with its mask, or one of several of that time. Gives the elevator before,
    /// once there is another.
    fn add(&mut self, sent_mask: i32, next: MinuteReading) -> Option<MinuteReading> {
        match &mut self.elevator {
            Some(held) if held.elevator_id == next.elevator_id => {
                if !self.masks.contains(&sent_mask) {
                    self.masks.push(sent_mask);
                    held.readings += next.readings;
                }
                lay_over(&mut held.reading, next.reading);
                None
            }
            before => {
                self.masks.clear();
                self.masks.push(sent_mask);
                before.replace(next)
            }
        }
    }
}

/// What the later reading leaves out stays as it was.
fn lay_over(held: &mut Reading, later: Reading) {
    fn lay<T>(held: &mut Field<T>, later: Field<T>) {
        if later.is_sent() {
            *held = later;
        }
    }
    let Reading {
        seq,
        time,
        service_mode,
        car_status,
        direction,
        door_zone,
        door_state,
        passengers,
        floor,
        floor_ordinal,
        position_mm,
        velocity_mm_s,
        load_kg,
        people_count,
        flags,
        flags_told,
        temperature_dc,
        vibration_mm_s2,
        codes,
    } = later;
    (held.seq, held.time) = (seq, time);
    lay(&mut held.service_mode, service_mode);
    lay(&mut held.car_status, car_status);
    lay(&mut held.direction, direction);
    lay(&mut held.door_zone, door_zone);
    lay(&mut held.door_state, door_state);
    lay(&mut held.passengers, passengers);
    lay(&mut held.floor, floor);
    lay(&mut held.floor_ordinal, floor_ordinal);
    lay(&mut held.position_mm, position_mm);
    lay(&mut held.velocity_mm_s, velocity_mm_s);
    lay(&mut held.load_kg, load_kg);
    lay(&mut held.people_count, people_count);
    if let (Field::Known(later), Field::Known(before)) = (flags, held.flags) {
        held.flags = Field::Known((before & !flags_told) | later);
        held.flags_told |= flags_told;
    } else if flags.is_sent() {
        (held.flags, held.flags_told) = (flags, flags_told);
    }
    lay(&mut held.temperature_dc, temperature_dc);
    lay(&mut held.vibration_mm_s2, vibration_mm_s2);
    lay(&mut held.codes, codes);
}
