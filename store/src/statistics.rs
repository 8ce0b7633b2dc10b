//! What elevators have counted: totals over stretches of time, right after resets and replaced terminals.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::order::{Place, corrected};
use domain::segment::{Sample, segments_since, total};
use domain::{Counter, Counters, ElevatorId, Segment, Seq, SourceId, TerminalId, Timestamp};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Row as _};
use time::OffsetDateTime;

use crate::fault_period::boot;
use crate::{Database, StoreError};

/// A stretch in which one terminal counted without a reset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TerminalSegment {
    /// Who counted.
    pub terminal_id: TerminalId,
    /// What.
    pub segment: Segment,
}

/// What an elevator counted in a stretch of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatisticsTotals {
    /// Growth over all segments. Two terminals that count the same at one time both count.
    pub totals: Counters,
    /// The segments, of each terminal in their order.
    pub segments: Vec<TerminalSegment>,
}

/// The last sample of a counter before a stretch is where its growth begins; one older than this is not looked for.
const BASE_AGE_MAX: Duration = Duration::from_hours(31 * 24);

impl Database {
    /// What an elevator counted from device time `from` until before `to`. The growth of each counter of each
    /// terminal begins at the last sample before `from` that has it, so that stretches that follow one another
    /// add up, also where counters come in messages of their own. What arrives late counts in the stretch of its
    /// device time, from then on.
    ///
    /// Index: `statistics_pkey` of the chunks of the stretch and of the 31 days before it. Cost: one row for each
    /// sample in them; those back to the last one of each counter are read, so that a reset in between is seen.
    pub async fn statistics_totals(
        &self,
        elevator: ElevatorId,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<StatisticsTotals, StoreError> {
        let newest = Counter::ALL.map(|counter| {
            let counter = counter.slug();
            format!("max(time) FILTER (WHERE {counter} IS NOT NULL)")
        });
        let rows = sqlx::query(AssertSqlSafe(format!(
            "WITH before AS MATERIALIZED (
                 SELECT statistics.*, source.terminal_id, source.boot
                 FROM statistics
                 JOIN source USING (source)
                 WHERE statistics.elevator_id = $1
                   AND statistics.time >= $4
                   AND statistics.time < $2
             ), base AS (
                 SELECT terminal_id, least({}) AS since
                 FROM before
                 GROUP BY terminal_id
             )
             SELECT before.*
             FROM before
             JOIN base USING (terminal_id)
             WHERE before.time >= base.since
             UNION ALL
             SELECT statistics.*, source.terminal_id, source.boot
             FROM statistics
             JOIN source USING (source)
             WHERE statistics.elevator_id = $1
               AND statistics.time >= $2
               AND statistics.time < $3",
            newest.join(", ")
        )))
        .bind(elevator.0)
        .bind(from.to_utc())
        .bind(to.to_utc())
        .bind(from.minus(BASE_AGE_MAX).to_utc())
        .fetch_all(self.pool())
        .await?;
        let mut samples: BTreeMap<String, Vec<Sample>> = BTreeMap::new();
        for row in &rows {
            samples.entry(row.try_get("terminal_id")?).or_default().push(sample(row)?);
        }
        let mut found = Vec::new();
        for (terminal, samples) in samples {
            let terminal_id =
                TerminalId::new(&terminal).map_err(|error| StoreError::Corrupt(error.to_string()))?;
            let named = |segment| TerminalSegment { terminal_id: terminal_id.clone(), segment };
            found.extend(segments_since(samples, from).into_iter().map(named));
        }
        let totals = total(found.iter().map(|one| &one.segment));
        Ok(StatisticsTotals { totals, segments: found })
    }
}

fn sample(row: &PgRow) -> Result<Sample, StoreError> {
    let time = Timestamp::from(row.try_get::<OffsetDateTime, _>("time")?);
    let arrived = Timestamp::from(row.try_get::<OffsetDateTime, _>("arrived")?);
    let at = corrected(arrived, time, row.try_get("age_ms")?);
    let (source, seq) = (SourceId(row.try_get("source")?), Seq(row.try_get("seq")?));
    let place = Place::new(source, boot(row)?, seq, at);
    Ok(Sample { place, time, counters: counters(row)? })
}

/// The columns of the counters.
pub(crate) fn counters(row: &PgRow) -> Result<Counters, StoreError> {
    let mut counters = Counters::default();
    for counter in Counter::ALL {
        counters.set(counter, row.try_get(counter.slug())?);
    }
    Ok(counters)
}
