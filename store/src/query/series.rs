//! One elevator over time, in as many points as a chart has room for.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use domain::{ElevatorId, Timestamp};
use sqlx::postgres::types::PgInterval;
use sqlx::{AssertSqlSafe, Row as _};
use time::OffsetDateTime;

use super::downsample::{KEPT_MAX, bounded, width_us};
use super::{PgQuery, Point, Queries, QueryError, Question, invalid, unreadable};
use crate::StoreError;
use crate::rollup::{hour_of, minute_of};
use crate::rows::sent;
use crate::state::storable;

const DAY: Duration = Duration::from_hours(24);
/// Readings are looked at for spans up to this; longer ones are answered from `telemetry_1m`. An elevator that
/// streams has 11,000 readings a day, each on a page of its own.
const READINGS_DAYS_MAX: u32 = 2;
/// Minutes are looked at for spans up to this, 20,000 of them; longer ones are answered from `telemetry_1h`.
const MINUTES_DAYS_MAX: u32 = 14;
/// The longest span at all: five years, 44,000 hours.
const DAYS_MAX: u32 = 5 * 366;
/// How far before the span the value at its beginning is looked for: several heartbeats.
const BEFORE: Duration = Duration::from_mins(10);

macro_rules! series_fields {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $bit:expr, $rollup:expr;)+) => {
        /// What can be shown over time.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum SeriesField { $($(#[$doc])* $variant),+ }

        impl SeriesField {
            /// Every field.
            pub const ALL: &[SeriesField] = &[$(SeriesField::$variant),+];

            /// Its name, which is that of its column.
            pub const fn name(self) -> &'static str {
                match self { $(SeriesField::$variant => $name),+ }
            }

            const fn sent_bit(self) -> i32 {
                match self { $(SeriesField::$variant => $bit),+ }
            }

            /// Its column in the rollups, which keep the highest of each minute.
            const fn rollup(self) -> Option<&'static str> {
                match self { $(SeriesField::$variant => $rollup),+ }
            }
        }
    };
}

series_fields! {
    /// Height above the lowest stop, mm.
    PositionMm = "position_mm", sent::POSITION_MM, None;
    /// Speed, mm/s, up positive; over long spans its amount.
    VelocityMmS = "velocity_mm_s", sent::VELOCITY_MM_S, Some("velocity_mm_s_max");
    /// Load, kg.
    LoadKg = "load_kg", sent::LOAD_KG, Some("load_kg_max");
    /// Vibration, mm/s².
    VibrationMmS2 = "vibration_mm_s2", sent::VIBRATION_MM_S2, Some("vibration_mm_s2_max");
    /// Car temperature, tenths of a degree Celsius.
    TemperatureDc = "temperature_dc", sent::TEMPERATURE_DC, Some("temperature_dc_max");
    /// People counted.
    PeopleCount = "people_count", sent::PEOPLE_COUNT, None;
    /// Floor counted from the lowest stop.
    FloorOrdinal = "floor_ordinal", sent::FLOOR_ORDINAL, None;
    /// [`domain::ServiceMode`].
    ServiceMode = "service_mode", sent::SERVICE_MODE, None;
    /// [`domain::CarStatus`].
    CarStatus = "car_status", sent::CAR_STATUS, None;
    /// [`domain::Direction`].
    Direction = "direction", sent::DIRECTION, None;
    /// Car within the unlocking zone, 0 or 1.
    DoorZone = "door_zone", sent::DOOR_ZONE, None;
    /// [`domain::DoorState`]. Its numbers are names: a stretch keeps its first, last, lowest and highest.
    DoorState = "door_state", sent::DOOR_STATE, None;
    /// [`domain::Passengers`].
    Passengers = "passengers", sent::PASSENGERS, None;
}

impl fmt::Display for SeriesField {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

impl FromStr for SeriesField {
    type Err = QueryError;
    fn from_str(text: &str) -> Result<Self, QueryError> {
        let known = Self::ALL.iter().find(|field| field.name() == text).copied();
        known.ok_or_else(|| QueryError::Invalid(format!("{text} is no field of a series")))
    }
}

/// Fields of one elevator over time, each in at most `points` points chosen by [`super::m4`], so that a spike of
/// one reading survives; all of them where there are no more. A reading that leaves a field out says nothing of
/// it, one that sends it as unknown makes a point without a value, and so does the first reading of a boot or
/// after a hole in the sequence that leaves it out (DOMAIN.md 3.1). Silence makes no points: two that lie
/// further apart than [`Series::stretch`] have nothing between them.
///
/// Spans of more than two days are answered from `telemetry_1m`, those of more than 14 from `telemetry_1h`, and so are
/// spans that begin before what retention has left of readings, or of minutes: they keep the highest of each minute and
/// hour, and not every field. A minute or an hour in which the span begins counts as a whole. What is not rolled up yet
/// is missing: the last five minutes, the last hour.
///
/// Index: `retention_mark_pkey`, then `telemetry_pkey` of the chunks of the span, one range in each; or the key of the rollup. Cost: one row, and
/// cold one page, for each reading in the span; only the chosen points are sent. Bound: two days of readings, 14 of
/// minutes, five years of hours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ElevatorSeries {
    /// The elevator.
    pub elevator_id: ElevatorId,
    /// Device time from which on.
    pub from: Timestamp,
    /// Device time before which.
    pub to: Timestamp,
    /// At most so many points of each field, [`ElevatorSeries::POINTS`].
    pub points: usize,
    /// What to show, each once.
    pub fields: Vec<SeriesField>,
}

impl ElevatorSeries {
    /// How many points may be asked for.
    pub const POINTS: std::ops::RangeInclusive<usize> = 10..=2_000;

    /// The finest of which a span so long is shown.
    fn resolution(&self) -> Resolution {
        let span = self.to.since(self.from);
        if span <= DAY * READINGS_DAYS_MAX {
            Resolution::Reading
        } else if span <= DAY * MINUTES_DAYS_MAX {
            Resolution::Minute
        } else {
            Resolution::Hour
        }
    }

    /// The finest that reaches back to its beginning, and has all of its fields.
    fn resolution_kept(&self, kept: &KeptSince) -> Resolution {
        let rolled_up = self.fields.iter().all(|field| field.rollup().is_some());
        let mut resolution = self.resolution();
        if resolution == Resolution::Reading && Some(self.from) < kept.readings && rolled_up {
            resolution = Resolution::Minute;
        }
        if resolution == Resolution::Minute && Some(self.from) < kept.minutes {
            resolution = Resolution::Hour;
        }
        resolution
    }

    /// The same from the beginning of its first minute or hour on.
    fn shown_as(&self, resolution: Resolution) -> Shown {
        let from = match resolution {
            Resolution::Reading => self.from,
            Resolution::Minute => minute_of(self.from),
            Resolution::Hour => hour_of(self.from),
        };
        Shown { question: Self { from, ..self.clone() }, resolution }
    }

    /// The database keeps four points of a stretch, and a fifth where something is unknown.
    fn width_us(&self) -> u64 {
        width_us(self.from, self.to, self.points / (KEPT_MAX - 1))
    }
}

/// Readings and minutes of an elevator before these may be gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct KeptSince {
    readings: Option<Timestamp>,
    minutes: Option<Timestamp>,
}

/// What retention has left of an elevator, also while it was in another division.
struct KeptOf(ElevatorId);

impl Question for KeptOf {
    fn check(&self) -> Result<(), QueryError> {
        Ok(())
    }

    fn statement(&self, prefix: &str) -> PgQuery {
        let sql = format!(
            "{prefix}
             SELECT table_name, max(floor) AS floor
             FROM (
                 SELECT table_name, floor
                 FROM retention_mark
                 WHERE table_name IN ('telemetry', 'telemetry_1m')
                   AND area IN (-1, (SELECT area FROM elevator WHERE elevator_id = $1))
                   AND floor > '-infinity'
                 UNION ALL
                 SELECT 'telemetry', kept_since
                 FROM elevator
                 WHERE elevator_id = $1
                   AND kept_since IS NOT NULL
             ) AS mark
             GROUP BY table_name"
        );
        sqlx::query(AssertSqlSafe(sql)).bind(self.0.0)
    }
}

/// A question with the resolution of its answer.
struct Shown {
    question: ElevatorSeries,
    resolution: Resolution,
}

/// From what a series was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    /// Readings.
    Reading,
    /// The highest of each minute.
    Minute,
    /// The highest of each hour.
    Hour,
}

/// One elevator over time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Series {
    /// From what it was made.
    pub resolution: Resolution,
    /// Of each stretch of this length with readings at least one point is given.
    pub stretch: Duration,
    /// As asked for, in that order.
    pub fields: Vec<FieldSeries>,
}

/// One field over time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldSeries {
    /// Which.
    pub field: SeriesField,
    /// The last point before the span, if one lies within ten minutes: the value at its beginning.
    pub before: Option<Point>,
    /// In the order of time.
    pub points: Vec<Point>,
}

impl Question for ElevatorSeries {
    fn check(&self) -> Result<(), QueryError> {
        let (Some(_), Some(_)) = (storable(self.from), storable(self.to)) else {
            return invalid("the span lies outside of the calendar");
        };
        if self.from >= self.to {
            return invalid("the span ends before it begins");
        }
        if self.to.since(self.from) > DAY * DAYS_MAX {
            return invalid(format!("a span has at most {DAYS_MAX} days"));
        }
        if !Self::POINTS.contains(&self.points) {
            return invalid(format!(
                "{} to {} points can be asked for",
                Self::POINTS.start(),
                Self::POINTS.end()
            ));
        }
        let mut fields = self.fields.clone();
        fields.sort_unstable();
        fields.dedup();
        if fields.is_empty() || fields.len() < self.fields.len() {
            return invalid("at least one field, and each once");
        }
        let without = |field: &&SeriesField| field.rollup().is_none();
        match self.fields.iter().find(without) {
            Some(field) if self.resolution() != Resolution::Reading => {
                let days = READINGS_DAYS_MAX;
                invalid(format!("{field} is not kept by the minute: ask for at most {days} days of it"))
            }
            _ => Ok(()),
        }
    }

    fn statement(&self, prefix: &str) -> PgQuery {
        self.shown_as(self.resolution()).statement(prefix)
    }
}

impl Question for Shown {
    fn check(&self) -> Result<(), QueryError> {
        self.question.check()
    }

    fn statement(&self, prefix: &str) -> PgQuery {
        let question = &self.question;
        let (readings, from) = match self.resolution {
            Resolution::Reading => (question.readings(), question.from.minus(BEFORE)),
            Resolution::Minute => (question.buckets("telemetry_1m"), question.from),
            Resolution::Hour => (question.buckets("telemetry_1h"), question.from),
        };
        let cells: Vec<_> = (0_i32..).zip(&question.fields).map(|(at, field)| cell(at, *field)).collect();
        let cells = cells.join("\n UNION ALL\n ");
        // A value and the number of its reading in one int8: the order of the one, then of the other.
        let sql = format!(
            "{prefix}
             WITH {readings},
             cell AS MATERIALIZED (
                 {cells}
             ), kept AS (
                 SELECT cell.field, unnest(ARRAY[
                     min(cell.no),
                     max(cell.no),
                     min(cell.value << 32 | cell.no) & 4294967295,
                     max(cell.value << 32 | cell.no) & 4294967295,
                     min(cell.no) FILTER (WHERE cell.value IS NULL)
                 ]) AS no
                 FROM cell
                 JOIN (
                     SELECT field, count(*) AS cells
                     FROM cell
                     WHERE time >= $2
                     GROUP BY field
                 ) AS counted ON counted.field = cell.field
                 WHERE cell.time >= $2
                 GROUP BY cell.field,
                     CASE WHEN cells <= $5 THEN cell.no END,
                     CASE WHEN cells > $5 THEN date_bin($6, cell.time, $2) END
                 UNION ALL
                 SELECT field, max(no)
                 FROM cell
                 WHERE time < $2
                 GROUP BY field
             )
             SELECT field, time, value::int4 AS value, time < $2 AS before
             FROM cell
             WHERE (field, no) IN (SELECT field, no FROM kept)
             ORDER BY field, no"
        );
        let width = PgInterval { months: 0, days: 0, microseconds: question.width_us().cast_signed() };
        sqlx::query(AssertSqlSafe(sql))
            .bind(question.elevator_id.0)
            .bind(storable(question.from))
            .bind(storable(question.to))
            .bind(storable(from))
            .bind(question.points as i64)
            .bind(width)
    }
}

/// The values of one field, with the numbers of their readings.
fn cell(at: i32, field: SeriesField) -> String {
    let (name, bit) = (field.name(), field.sent_bit());
    format!(
        "SELECT {at} AS field, no, time, {name}::int8 AS value
         FROM reading
         WHERE sent_mask & {bit} <> 0
            OR afresh"
    )
}

impl ElevatorSeries {
    fn columns(&self, of: impl Fn(SeriesField) -> String) -> String {
        self.fields.iter().map(|field| of(*field)).collect::<Vec<_>>().join(", ")
    }

    /// Readings, numbered in the order of time. `afresh`: what it leaves out is unknown. Events and statistics take
    /// numbers of the same sequence, so they stand among the readings when holes are looked for; a hole before one of them, or a boot that begins
    /// with one, is that of the next reading.
    fn readings(&self) -> String {
        let columns = self.columns(|field| field.name().to_owned());
        let nulls = self.columns(|_| "NULL".to_owned());
        let others = ["fault", "statistics"].map(|table| {
            format!(
                "UNION ALL
                 SELECT time, seq, source, NULL, {nulls}
                 FROM {table}
                 WHERE elevator_id = $1
                   AND time >= $4
                   AND time < $3"
            )
        });
        let others = others.join("\n");
        format!(
            "heard AS (
                 SELECT time, seq, source, sent_mask, {columns}
                 FROM telemetry
                 WHERE elevator_id = $1
                   AND time >= $4
                   AND time < $3
                 {others}
             ), numbered AS (
                 SELECT *,
                     row_number() OVER (ORDER BY time, seq, source) AS no,
                     seq >= 0 AND seq - lag(seq) OVER (PARTITION BY source, seq >= 0 ORDER BY seq) > 1 AS hole
                 FROM heard
             ), placed AS (
                 SELECT *,
                     count(*) FILTER (WHERE hole) OVER (PARTITION BY source, seq >= 0 ORDER BY seq) AS holes,
                     min(no) OVER (PARTITION BY source) > 1 AS booted
                 FROM numbered
             ), reading AS MATERIALIZED (
                 SELECT *,
                     holes > lag(holes, 1, 0::int8) OVER (PARTITION BY source, seq >= 0 ORDER BY seq)
                     OR (booted AND no = min(no) OVER (PARTITION BY source)) AS afresh
                 FROM placed
                 WHERE sent_mask IS NOT NULL
             )"
        )
    }

    /// Minutes or hours in the shape of readings: a field that none of its readings had is left out.
    fn buckets(&self, rollup: &str) -> String {
        let columns = self.columns(|field| {
            let name = field.name();
            field.rollup().map_or_else(|| format!("NULL AS {name}"), |rollup| format!("{rollup} AS {name}"))
        });
        let bits: Vec<_> = self
            .fields
            .iter()
            .filter_map(|field| {
                let bit = field.sent_bit();
                field.rollup().map(|rollup| format!("CASE WHEN {rollup} IS NULL THEN 0 ELSE {bit} END"))
            })
            .collect();
        let mask = bits.join(" | ");
        format!(
            "reading AS MATERIALIZED (
                 SELECT bucket AS time, row_number() OVER (ORDER BY bucket) AS no, false AS afresh,
                     {mask} AS sent_mask, {columns}
                 FROM {rollup}
                 WHERE elevator_id = $1
                   AND bucket >= $4
                   AND bucket < $3
             )"
        )
    }
}

impl Queries {
    /// One elevator over time.
    pub async fn elevator_series(&self, question: &ElevatorSeries) -> Result<Series, QueryError> {
        question.check()?;
        let mut kept = KeptSince::default();
        for row in self.rows(&KeptOf(question.elevator_id)).await? {
            let floor: OffsetDateTime = row.try_get("floor").map_err(unreadable)?;
            let minutes = row.try_get::<&str, _>("table_name").map_err(unreadable)? == "telemetry_1m";
            *if minutes { &mut kept.minutes } else { &mut kept.readings } = Some(floor.into());
        }
        let shown = question.shown_as(question.resolution_kept(&kept));
        let rows = self.rows(&shown).await?;
        let Shown { question, resolution } = shown;
        let empty = |field: &SeriesField| FieldSeries { field: *field, before: None, points: Vec::new() };
        let mut fields: Vec<_> = question.fields.iter().map(empty).collect();
        for row in &rows {
            let at: i32 = row.try_get("field").map_err(unreadable)?;
            let time: OffsetDateTime = row.try_get("time").map_err(unreadable)?;
            let point = Point { time: time.into(), value: row.try_get("value").map_err(unreadable)? };
            let series = usize::try_from(at).ok().and_then(|at| fields.get_mut(at));
            let series = series.ok_or_else(|| StoreError::Corrupt("a field nobody asked for".to_owned()))?;
            if row.try_get("before").map_err(unreadable)? {
                series.before = Some(point);
            } else {
                series.points.push(point);
            }
        }
        for series in &mut fields {
            let points = std::mem::take(&mut series.points);
            series.points = bounded(points, question.from, question.to, question.points);
        }
        let stretch = Duration::from_micros(question.width_us());
        Ok(Series { resolution, stretch, fields })
    }
}
