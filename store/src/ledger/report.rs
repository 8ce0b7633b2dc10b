//! What an audit is asked and what it answers.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::{Area, TerminalId, Timestamp};
use serde::Serialize;

use super::verdict::{Gap, GapOutcome};

/// Gaps named, at most; the counts hold all of them.
pub const GAPS_NAMED_MAX: usize = 1_000;
/// What to audit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuditScope {
    /// These alone; all where empty.
    pub terminals: Vec<TerminalId>,
    /// Those registered in this region alone.
    pub region: Option<Area>,
    /// By the server's clock: rows that arrived and gaps that were noticed since then.
    pub from: Option<Timestamp>,
    /// And before this.
    pub to: Option<Timestamp>,
    /// A gap younger than this is open, not unaccounted for.
    pub grace: Duration,
    /// Terminals begin each boot with number 1: what is missing before the first number is a gap too.
    pub from_one: bool,
}

/// A gap that is named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditGap {
    /// Whose.
    pub terminal: String,
    /// Of which boot.
    pub boot: i64,
    /// First number.
    pub from: i64,
    /// Last number.
    pub to: i64,
    /// How many.
    pub numbers: u64,
    /// When it was noticed.
    pub noted: Option<Timestamp>,
    /// The end of a boot that never came, known from the boot after it.
    pub tail: bool,
    /// What became of it.
    pub outcome: GapOutcome,
}

/// A number that stands in more than one row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UsedTwice {
    /// Whose.
    pub terminal: String,
    /// Of which boot.
    pub boot: i64,
    /// Within these numbers.
    pub from: i64,
    /// To here.
    pub to: i64,
    /// Rows too many.
    pub rows: u64,
}

/// What the audit has found. Field names are an interface: scripts read them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct AuditReport {
    /// `ok`, `unaccounted`, or `ledger_ahead`: the ledger claims more than the rows.
    pub verdict: &'static str,
    /// When, by the server's clock.
    pub at: Timestamp,
    /// Begin of the period, if one was asked for.
    pub from: Option<Timestamp>,
    /// End of the period, if one was asked for.
    pub to: Option<Timestamp>,
    /// In seconds.
    pub grace_s: u64,
    /// Terminals with rows or gaps.
    pub terminals: u64,
    /// Boots of terminals with rows or gaps.
    pub sources: u64,
    /// Rows that arrived in the period: readings, events and statistics, with and without numbers.
    pub rows: u64,
    /// Of these, rows by table.
    pub rows_by_table: BTreeMap<&'static str, u64>,
    /// Of these, rows without a number of their terminal: lists of active faults, readings with derived numbers.
    pub rows_unnumbered: u64,
    /// Numbers that are rows, of any time.
    pub numbers_stored: u64,
    /// Entries in quarantine that arrived in the period.
    pub quarantined: u64,
    /// The same by reason.
    pub quarantined_by_reason: BTreeMap<String, u64>,
    /// Of these, entries whose numbers are not known.
    pub quarantined_unnumbered: u64,
    /// Numbers that are in quarantine and no row.
    pub numbers_quarantined: u64,
    /// Numbers that came after they had been missed.
    pub filled_late: u64,
    /// Numbers that terminals declared dropped and that did not come.
    pub declared_dropped: u64,
    /// Numbers that operators discarded from quarantine.
    pub discarded: u64,
    /// Numbers missing for less than the grace.
    pub open: u64,
    /// Numbers missing that nobody explains.
    pub unaccounted: u64,
    /// Numbers whose rows or entries of quarantine retention has deleted, as far as the ledger knows.
    pub deleted_by_retention: u64,
    /// Rows with a device time before this may have been deleted, in the division that keeps the least; none where
    /// retention has deleted no rows yet.
    pub kept_since: Option<Timestamp>,
    /// Rows that use a number a second time.
    pub used_twice: u64,
    /// Where, at most [`GAPS_NAMED_MAX`].
    pub used_twice_at: Vec<UsedTwice>,
    /// Numbers that are accounted for and that the ledger does not know yet.
    pub ledger_behind: u64,
    /// Sources with more gaps than the ledger keeps apart.
    pub ledger_coarse: u64,
    /// Numbers the ledger claims without a row or an entry in quarantine.
    pub ledger_ahead: u64,
    /// Gaps, at most [`GAPS_NAMED_MAX`].
    pub gaps: Vec<AuditGap>,
    /// Gaps that are not named.
    pub gaps_more: u64,
    /// Sources whose ledger was mended.
    pub repaired: u64,
}

impl AuditReport {
    /// Whether everything is accounted for and the ledger claims no more than that.
    pub fn is_ok(&self) -> bool {
        self.verdict == "ok"
    }

    /// Counts a gap, and names it while there is room.
    pub(crate) fn enter_gap(&mut self, terminal: &str, boot: i64, gap: &Gap) {
        let sum = match gap.outcome {
            GapOutcome::Open => &mut self.open,
            GapOutcome::Dropped => &mut self.declared_dropped,
            GapOutcome::Discarded => &mut self.discarded,
            GapOutcome::Unaccounted => &mut self.unaccounted,
        };
        *sum = sum.saturating_add(gap.count());
        if self.gaps.len() >= GAPS_NAMED_MAX {
            self.gaps_more += 1;
            return;
        }
        self.gaps.push(AuditGap {
            terminal: terminal.to_owned(),
            boot,
            from: gap.from,
            to: gap.to,
            numbers: gap.count(),
            noted: gap.noted,
            tail: gap.tail,
            outcome: gap.outcome,
        });
    }
}
