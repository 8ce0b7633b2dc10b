//! Dense numbers of (terminal, boot), so that a row's key needs four bytes for both.
//!
//! Bound: [`BOOTS_PER_DAY_MAX`] new ones of a terminal within 24 hours by the database's clock. Full: the boot is refused
//! until the day has passed, and its messages go to quarantine; the terminal's other boots and its neighbours are
//! stored. Two writers that make the last ones at the same moment may make a few more.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use domain::limits::BOOTS_PER_DAY_MAX;
use domain::{BootId, SourceId, TerminalId};
use sqlx::postgres::PgConnection;

/// Numbers known so far. The table is the truth: to forget one costs a look-up, nothing else.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    /// By terminal, then boot, so that the usual look-up neither clones nor hashes a pair.
    known: HashMap<TerminalId, BTreeMap<BootId, SourceId>>,
    len: usize,
    /// Boots too many, of what was asked for last.
    refused: BTreeSet<(TerminalId, BootId)>,
}

impl Sources {
    /// About 100 bytes each. Past it, all are forgotten before the next batch and
    /// looked up again as they come.
    const LEN_MAX: usize = 500_000;
    /// A statement that lost a race sees the winner's row when it is run again; twice is rare, ten is a fault.
    const ATTEMPTS_MAX: usize = 10;

    pub(crate) fn get(&self, terminal: &TerminalId, boot: BootId) -> Option<SourceId> {
        self.known.get(terminal.as_str())?.get(&boot).copied()
    }

    /// Whether the boot is one too many of its terminal's today.
    pub(crate) fn is_refused(&self, terminal: &TerminalId, boot: BootId) -> bool {
        // Nearly always empty: nothing is cloned to look.
        !self.refused.is_empty() && self.refused.contains(&(terminal.clone(), boot))
    }

    /// Makes all of `wanted` known or refused, in one round trip for those that are not known.
    pub(crate) async fn resolve<'a>(
        &mut self,
        connection: &mut PgConnection,
        wanted: impl Iterator<Item = (&'a TerminalId, BootId)>,
    ) -> Result<(), sqlx::Error> {
        if self.len > Self::LEN_MAX {
            *self = Self::default();
        }
        self.refused.clear();
        // Messages of a terminal come in runs.
        let mut last = None;
        let mut wanted: Vec<(TerminalId, BootId)> = wanted
            .filter(|one| last.replace(*one) != Some(*one) && self.get(one.0, one.1).is_none())
            .map(|(terminal, boot)| (terminal.clone(), boot))
            .collect();
        wanted.sort_unstable();
        wanted.dedup();
        for _ in 0..Self::ATTEMPTS_MAX {
            if wanted.is_empty() {
                return Ok(());
            }
            for (source, terminal, boot) in source_insert(connection, &wanted).await? {
                let (Ok(terminal), Ok(boot)) = (TerminalId::new(&terminal), u32::try_from(boot)) else {
                    continue;
                };
                let Some(source) = source else {
                    self.refused.insert((terminal, BootId(boot)));
                    continue;
                };
                let boots = self.known.entry(terminal).or_default();
                self.len += usize::from(boots.insert(BootId(boot), SourceId(source)).is_none());
            }
            wanted.retain(|(terminal, boot)| {
                self.get(terminal, *boot).is_none() && !self.is_refused(terminal, *boot)
            });
        }
        Err(sqlx::Error::RowNotFound)
    }
}

/// Numbers of these, new ones given where there is none, and none to a boot that is one too many. What another writer
/// inserts at the same moment is missing from the answer.
async fn source_insert(
    connection: &mut PgConnection,
    wanted: &[(TerminalId, BootId)],
) -> Result<Vec<(Option<i32>, String, i64)>, sqlx::Error> {
    let terminals: Vec<&str> = wanted.iter().map(|(terminal, _)| terminal.as_str()).collect();
    let boots: Vec<i64> = wanted.iter().map(|(_, boot)| i64::from(boot.0)).collect();
    // Only the newest boots are counted, so that a terminal with very many costs no more.
    sqlx::query_as(
        "WITH asked AS MATERIALIZED (
             SELECT terminal_id, boot
             FROM unnest($1::text[], $2::int8[]) AS asked (terminal_id, boot)
         ), known AS MATERIALIZED (
             SELECT source.source, source.terminal_id, source.boot
             FROM asked
             JOIN source USING (terminal_id, boot)
         ), new AS MATERIALIZED (
             SELECT terminal_id, boot, row_number() OVER (PARTITION BY terminal_id ORDER BY boot) AS place
             FROM asked
             WHERE NOT EXISTS (
                 SELECT
                 FROM known
                 WHERE known.terminal_id = asked.terminal_id
                   AND known.boot = asked.boot
             )
         ), judged AS MATERIALIZED (
             SELECT new.terminal_id, new.boot, place + today.boots <= $3 AS admitted
             FROM new
             JOIN (
                 SELECT terminal_id, (
                     SELECT count(*)
                     FROM (
                         SELECT first_seen
                         FROM source
                         WHERE source.terminal_id = first.terminal_id
                         ORDER BY source.source DESC
                         LIMIT $3
                     ) AS newest
                     WHERE first_seen > now() - INTERVAL '1 day'
                 ) AS boots
                 FROM new AS first
                 WHERE place = 1
             ) AS today USING (terminal_id)
         ), fresh AS (
             INSERT INTO source (terminal_id, boot)
             SELECT terminal_id, boot
             FROM judged
             WHERE admitted
             ORDER BY terminal_id, boot
             ON CONFLICT DO NOTHING
             RETURNING source, terminal_id, boot
         )
         SELECT source, terminal_id, boot FROM known
         UNION ALL
         SELECT source, terminal_id, boot FROM fresh
         UNION ALL
         SELECT NULL, terminal_id, boot FROM judged WHERE NOT admitted",
    )
    .bind(terminals)
    .bind(boots)
    .bind(i64::from(BOOTS_PER_DAY_MAX))
    .fetch_all(connection)
    .await
}
