//! Boots of which nothing came: known only because the boot after tells how far they counted.
//!
//! No source stands for such a boot, so what is told of it is held against the source before, if there is one. Where
//! that has come further itself, the numbers are those of another boot.

use std::collections::HashMap;

use domain::Timestamp;
use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgRow};
use time::OffsetDateTime;

use super::ranges::SeqRanges;
use crate::StoreError;

/// A boot that tells of one that is no source. Which of its terminal's sources stands before it is not certain: the one
/// first seen last before it, or the one with the next lower number.
#[derive(Debug)]
pub(crate) struct Teller {
    pub(crate) terminal: String,
    /// The one it tells of.
    pub(crate) boot: i64,
    pub(crate) seq_last: i64,
    pub(crate) noted: Timestamp,
    /// What quarantine holds of that boot.
    quarantined: SeqRanges,
    before: [Option<i32>; 2],
}

impl Teller {
    /// Numbers of a boot that is lost, given the last number of each source. A terminal whose boots do not count by one
    /// tells the last number of a source that is there; one that tells a higher one misses the end of that source.
    pub(crate) fn missing(&self, last_known: &HashMap<i32, i64>) -> SeqRanges {
        let lasts: Vec<i64> =
            self.before.iter().flatten().filter_map(|source| last_known.get(source)).copied().collect();
        let is_of_another = match self.before[0] {
            Some(source) => last_known.get(&source).is_some_and(|last| self.seq_last < *last),
            None => true,
        };
        if !is_of_another || lasts.contains(&self.seq_last) {
            return SeqRanges::default();
        }
        SeqRanges::range(1, self.seq_last).minus(&self.quarantined)
    }

    /// The sources whose last numbers decide.
    pub(crate) fn sources(&self) -> impl Iterator<Item = i32> + '_ {
        self.before.iter().flatten().copied()
    }
}

/// All of them, of these sources or of all; but for those of whom the ledger says that they tell the last number of the
/// source before, which are all where boots do not count by one.
pub(crate) async fn tellers(
    connection: &mut PgConnection,
    asked: Option<&[i32]>,
) -> Result<Vec<Teller>, StoreError> {
    let rows = sqlx::query(
        "SELECT own.terminal_id, own.boot - 1 AS boot, told.seq_last, told.noted, seen.source AS seen,
                lower.source AS lower,
                ARRAY(SELECT lower(range) FROM unnest(kept.numbers) AS range ORDER BY range) AS froms,
                ARRAY(SELECT upper(range) - 1 FROM unnest(kept.numbers) AS range ORDER BY range) AS tos
         FROM sequence_told AS told
         JOIN source AS own USING (source)
         CROSS JOIN LATERAL (
             SELECT max(before.source) AS source
             FROM source AS before
             WHERE before.terminal_id = own.terminal_id AND before.source < own.source
         ) AS seen
         LEFT JOIN LATERAL (
             SELECT before.source
             FROM source AS before
             WHERE before.terminal_id = own.terminal_id AND before.boot < own.boot
             ORDER BY before.boot DESC
             LIMIT 1
         ) AS lower ON true
         LEFT JOIN sequence_ledger AS ledger ON ledger.source = seen.source
         CROSS JOIN LATERAL (
             SELECT range_agg(numbers) AS numbers
             FROM quarantine
             WHERE quarantine.terminal_id = own.terminal_id
               AND quarantine.boot = own.boot - 1
               AND numbers IS NOT NULL
         ) AS kept
         WHERE ($1::int4[] IS NULL OR own.source = ANY ($1))
           AND own.boot > 0
           AND upper(range_merge(ledger.accounted)) - 1 IS DISTINCT FROM told.seq_last
           AND NOT EXISTS (
               SELECT FROM source AS before
               WHERE before.terminal_id = own.terminal_id AND before.boot = own.boot - 1
           )
         ORDER BY own.source",
    )
    .bind(asked)
    .fetch_all(connection)
    .await?;
    let teller = |row: &PgRow| {
        let (froms, tos): (Vec<i64>, Vec<i64>) = (row.try_get("froms")?, row.try_get("tos")?);
        Ok(Teller {
            terminal: row.try_get("terminal_id")?,
            boot: row.try_get("boot")?,
            seq_last: row.try_get("seq_last")?,
            noted: row.try_get::<OffsetDateTime, _>("noted")?.into(),
            quarantined: froms.into_iter().zip(tos).collect(),
            before: [row.try_get("seen")?, row.try_get("lower")?],
        })
    };
    rows.iter().map(teller).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_is_lost_where_what_is_told_is_of_none_that_is_there() {
        let last_known = HashMap::from([(1, 100), (2, 40)]);
        let check = |before, seq_last, expected: &[(i64, i64)]| {
            let teller = Teller {
                terminal: "t1".to_owned(),
                boot: 6,
                seq_last,
                noted: Timestamp::default(),
                quarantined: SeqRanges::range(3, 4),
                before,
            };
            assert_eq!(teller.missing(&last_known).as_slice(), expected, "{before:?} {seq_last}");
        };
        check([None, None], 50, &[(1, 2), (5, 50)]);
        check([Some(1), Some(1)], 40, &[(1, 2), (5, 40)]);
        check([Some(1), Some(1)], 100, &[]);
        // The end of the boot before, which is held against that.
        check([Some(1), Some(1)], 140, &[]);
        // A boot that came late, out of an outbox, where boots do not count by one.
        check([Some(1), Some(2)], 40, &[]);
        check([Some(1), Some(2)], 50, &[(1, 2), (5, 50)]);
        // Of a source without numbers nothing can be said.
        check([Some(3), Some(3)], 50, &[]);
    }
}
