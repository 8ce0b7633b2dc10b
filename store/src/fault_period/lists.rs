//! Whether a list of active faults that is told again still changes something.

use std::collections::{BTreeMap, BTreeSet};

use domain::FaultPeriod;
use domain::fault_period::{self, Shown};
use sqlx::postgres::PgConnection;

use super::follow::open_of;
use super::{Of, mark, shows};
use crate::StoreError;
use crate::rows::{FaultRow, ReadingRow};

/// Whether a list says what the one before it of its source said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    Not,
    /// And that one is stored.
    Stored,
    /// And that one is of the same batch.
    InBatch,
}

/// Which of these rows are lists that would all the same open or close something: where their terminal stands, or
/// because readings of the batch do, which is looked at without their order.
pub(crate) async fn lists_news(
    connection: &mut PgConnection,
    rows: &[FaultRow<'_>],
    again: &[Again],
    readings: &[ReadingRow<'_>],
) -> Result<Vec<bool>, StoreError> {
    let of = |row: &FaultRow<'_>| (row.origin.elevator_id, row.origin.terminal_id.clone());
    let asked = rows.iter().zip(again).filter(|(_, again)| **again != Again::Not);
    let asked: BTreeSet<Of> = asked.map(|(row, _)| of(row)).collect();
    let open = if asked.is_empty() { BTreeMap::new() } else { open_of(connection, asked.iter()).await? };
    // By terminal: a batch may hold many lists of one, and thousands of readings of others.
    let mut shown: BTreeMap<Of, Vec<_>> = asked.iter().map(|of| (of.clone(), Vec::new())).collect();
    let readings = if asked.is_empty() { &[] } else { readings };
    for it in readings {
        if let Some(shown) = shown.get_mut(&(it.origin.elevator_id, it.origin.terminal_id.clone())) {
            shown.extend(shows(it.reading));
        }
    }
    for shown in shown.values_mut() {
        shown.dedup();
    }
    let readings_are_news = |row: &FaultRow<'_>, open: &[FaultPeriod]| {
        let shown = shown.get(&of(row)).map(Vec::as_slice).unwrap_or_default();
        shown.iter().any(|(codes, normal)| Shown::is_news(open, *codes, *normal))
    };
    let is_news = |(row, again): (&FaultRow<'_>, &Again)| {
        let open = || open.get(&of(row)).map(Vec::as_slice).unwrap_or_default();
        match again {
            Again::Not => true,
            Again::Stored => {
                fault_period::is_list_news(open(), row.codes.unwrap_or_default())
                    || readings_are_news(row, open())
            }
            Again::InBatch => {
                let marks: Vec<_> = mark(row).into_iter().collect();
                let mut after = fault_period::follow(open().to_vec(), &marks).periods;
                after.retain(FaultPeriod::is_open);
                readings_are_news(row, &after)
            }
        }
    };
    Ok(rows.iter().zip(again).map(is_news).collect())
}
