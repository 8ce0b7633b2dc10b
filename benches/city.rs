//! A city's table, made quickly: readings as a fleet sends them, in the order in which they arrive.
//!
//! Some elevators report all the time, every 15 s, as one that is used does on change (5,760 readings a day); the
//! others once an hour, as they would if almost all of them stood still. In the last hour all report every 15 s.
//! So one day of one elevator, and one minute of the fleet, are as large as in a city, and lie among as many
//! strangers, while the table is a hundredth of one.

use std::time::{Duration, Instant};

use domain::{
    Arrival, ArrivalNo, CarStatus, Direction, DoorState, ElevatorId, Field, Floor, Passengers, Reading, Seq,
    ServiceMode, SourceId, Timestamp,
};
use store::Database;
use store::testing::Bulk;

/// Seconds between two readings of an elevator that reports all the time.
pub(crate) const PERIOD_S: i64 = 15;
const HOUR_S: i64 = 3_600;
/// Seconds of readings in one COPY.
const COPY_S: i64 = 60;

/// Who reports when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct City {
    /// How many elevators there are.
    pub(crate) elevators: i64,
    /// How many of them, from the first on, report all the time.
    pub(crate) busy: i64,
    /// All report in the last hour.
    pub(crate) rush: bool,
    /// The end of it all, a full hour.
    pub(crate) end: Timestamp,
}

impl City {
    /// Readings of one second, this long before the end; in the order of elevators.
    fn second(&self, before_s: i64) -> impl Iterator<Item = (ElevatorId, Reading, Arrival)> + use<> {
        let Self { elevators, busy, rush, end } = *self;
        let at = end.minus(Duration::from_secs(before_s.cast_unsigned()));
        let second = at.micros() / 1_000_000;
        let all = rush && before_s <= HOUR_S;
        let often = if all { elevators } else { busy };
        // Whose turn it is: each elevator at a second of its own.
        let first = |period: i64, from: i64| from + (second - from).rem_euclid(period);
        let busy_ones = (first(PERIOD_S, 0)..often).step_by(PERIOD_S as usize);
        let quiet_ones = (first(HOUR_S, often)..elevators).step_by(HOUR_S as usize);
        busy_ones.chain(quiet_ones).map(move |elevator| {
            let at = at.plus(Duration::from_millis((elevator % 1_000).cast_unsigned()));
            let no = ArrivalNo(second * 1_000_000 + elevator);
            let arrival = Arrival { no, at: at.plus(Duration::from_millis(40)) };
            (ElevatorId(elevator + 1), reading(elevator, second, at), arrival)
        })
    }

    /// Fills the table with all that was sent from `from_s` to `to_s` before the end, over two connections.
    pub(crate) async fn fill(&self, database: &Database, from_s: i64, to_s: i64) -> u64 {
        let began = Instant::now();
        // Each takes every other COPY.
        let half = |odd: i64| {
            let (city, database) = (*self, database.clone());
            tokio::spawn(async move {
                let (mut bulk, mut rows, mut said) = (Bulk::open(&database).await, 0, 0);
                let mut before_s = from_s;
                while before_s > to_s {
                    let next = (before_s - COPY_S).max(to_s);
                    if before_s / COPY_S % 2 == odd {
                        rows += city.copy(&mut bulk, before_s, next).await;
                        if odd == 0 && rows >= said + 2_000_000 {
                            said = rows;
                            eprintln!(
                                "  {} M rows, {:.0} s",
                                2 * rows / 1_000_000,
                                began.elapsed().as_secs_f64()
                            );
                        }
                    }
                    before_s = next;
                }
                rows
            })
        };
        let (even, odd) = tokio::join!(half(0), half(1));
        even.expect("filled") + odd.expect("filled")
    }

    async fn copy(&self, bulk: &mut Bulk, from_s: i64, to_s: i64) -> u64 {
        let rows: Vec<_> = (to_s..from_s).rev().flat_map(|before_s| self.second(before_s + 1)).collect();
        let sources = rows
            .iter()
            .map(|(elevator, reading, arrival)| (*elevator, SourceId(elevator.0 as i32), *arrival, reading));
        bulk.readings(sources).await
    }
}

/// A number that looks like chance, the same in every run.
fn chance(elevator: i64, about: i64) -> i64 {
    let mixed = (elevator.cast_unsigned() << 32 ^ about.cast_unsigned()).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    ((mixed ^ mixed >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 33).cast_signed()
}

/// A lift of 30 floors that runs somewhere else every two minutes and stands in between.
fn reading(elevator: i64, second: i64, at: Timestamp) -> Reading {
    let (trip, within) = ((second + elevator) / 120, (second + elevator) % 120);
    let (from, to) = (chance(elevator, trip) % 30, chance(elevator, trip + 1) % 30);
    let runs_s = (to - from).abs() * 2;
    let moving = within < runs_s;
    let height = if moving { from * 3_000 + (to - from).signum() * within * 1_500 } else { to * 3_000 };
    let up = to > from;
    let speed = match (moving, up) {
        (false, _) => 0,
        (true, true) => 1_500,
        (true, false) => -1_500,
    };
    let mut reading = Reading::new(Seq(second / PERIOD_S), at);
    reading.service_mode = Field::Known(ServiceMode::Normal);
    reading.car_status = Field::Known(if moving { CarStatus::Running } else { CarStatus::Stopped });
    reading.direction = Field::Known(match (moving, up) {
        (false, _) => Direction::None,
        (true, true) => Direction::Up,
        (true, false) => Direction::Down,
    });
    reading.door_zone = Field::Known(!moving);
    reading.door_state =
        Field::Known(if moving || within > runs_s + 10 { DoorState::Closed } else { DoorState::Open });
    reading.passengers = Field::Known(if moving { Passengers::Yes } else { Passengers::No });
    reading.floor = Floor::new(&(height / 3_000 + 1).to_string()).map_or(Field::Absent, Field::Known);
    reading.floor_ordinal = Field::Known((height / 3_000) as i16);
    reading.position_mm = Field::Known(height as i32);
    reading.velocity_mm_s = Field::Known(speed);
    reading.load_kg = Field::Known(if moving { 75 + (chance(elevator, trip) % 600) as i16 } else { 0 });
    reading.codes = Field::Known(Vec::new());
    reading
}

/// The registry: elevators 1 to `count` in ten cities of ten counties each, a terminal and a source for each, and a
/// maintainer for each, one of 200; a tenth have changed theirs since, half of these before the contract was over.
pub(crate) async fn register(database: &Database, count: i64) {
    for statement in [
        "INSERT INTO elevator (elevator_id, area)
         SELECT id, 350000 + id % 10 * 100 + 100 + id / 10 % 10 + 1
         FROM generate_series(1, $1::int8) AS id",
        "INSERT INTO terminal (terminal_id, elevator_id, area)
         SELECT 'bench-' || lpad(elevator_id::text, 6, '0'), elevator_id, area
         FROM elevator
         WHERE elevator_id <= $1",
        "INSERT INTO source (source, terminal_id, boot) OVERRIDING SYSTEM VALUE
         SELECT id, 'bench-' || lpad(id::text, 6, '0'), 1
         FROM generate_series(1, $1::int8) AS id",
        "INSERT INTO company (credit_code, name)
         SELECT '91350000' || lpad(id::text, 10, '0'), 'maintainer ' || id
         FROM generate_series(1, least($1::int8, 200)) AS id",
        "INSERT INTO contract (elevator_id, company_id, valid_from, changed, role)
         SELECT elevator_id, 1 + elevator_id % 200, '2020-01-01', '2020-01-01', 'maintenance'
         FROM elevator
         WHERE elevator_id <= $1",
        "INSERT INTO contract (elevator_id, company_id, valid_from, valid_to, changed, role)
         SELECT elevator_id, 1 + elevator_id % 199, current_date - 100, current_date + 265, current_date - 100, 'maintenance'
         FROM elevator
         WHERE elevator_id % 10 = 0
           AND elevator_id <= $1",
        "UPDATE contract
         SET valid_to = current_date - 101
         WHERE elevator_id % 20 = 0
           AND valid_from = '2020-01-01'
           AND $1 > 0",
        "SELECT setval(pg_get_serial_sequence('source', 'source'), $1::int8)",
    ] {
        sqlx::query(statement).bind(count).execute(database.pool()).await.expect("the registry is made");
    }
}
