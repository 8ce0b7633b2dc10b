//! What elevators have counted: totals over stretches of time, right after resets and replaced terminals.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::order::{Place, corrected};
use domain::segment::{Sample, segments, total};
use domain::{Counter, Counters, ElevatorId, Segment, Seq, SourceId, TerminalId, Timestamp};
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use time::OffsetDateTime;

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

/// The last sample before a stretch is where its growth begins; one older than this is not looked for.
const BASE_AGE_MAX: Duration = Duration::from_hours(31 * 24);

impl Database {
    /// What an elevator counted from device time `from` until before `to`. Each terminal's growth begins at its
    /// last sample before `from`, so that stretches that follow one another add up.
    pub async fn statistics_totals(
        &self,
        elevator: ElevatorId,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<StatisticsTotals, StoreError> {
        let rows = sqlx::query(
            "WITH base AS (
                 SELECT DISTINCT ON (source.terminal_id) statistics.*, source.terminal_id
                 FROM statistics
                 JOIN source USING (source)
                 WHERE statistics.elevator_id = $1
                   AND statistics.time >= $4
                   AND statistics.time < $2
                 ORDER BY source.terminal_id, statistics.time DESC, statistics.seq DESC
             )
             SELECT * FROM base
             UNION ALL
             SELECT statistics.*, source.terminal_id
             FROM statistics
             JOIN source USING (source)
             WHERE statistics.elevator_id = $1
               AND statistics.time >= $2
               AND statistics.time < $3",
        )
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
            found.extend(segments(samples).into_iter().map(named));
        }
        let totals = total(found.iter().map(|one| &one.segment));
        Ok(StatisticsTotals { totals, segments: found })
    }
}

fn sample(row: &PgRow) -> Result<Sample, StoreError> {
    let time = Timestamp::from(row.try_get::<OffsetDateTime, _>("time")?);
    let arrived = Timestamp::from(row.try_get::<OffsetDateTime, _>("arrived")?);
    let at = corrected(arrived, time, row.try_get("age_ms")?);
    let place = Place { source: SourceId(row.try_get("source")?), seq: Seq(row.try_get("seq")?), at };
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
