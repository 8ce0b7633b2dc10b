//! The commands that show that nothing is lost: `audit` and `quarantine`.

use std::time::Duration;

use clap::{Args, Subcommand};
use domain::{Area, TerminalId, Timestamp};

use super::ConfigArgs;
use super::access::region;

/// `liftwatch audit`.
#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    /// Only these terminals; may be repeated
    #[arg(long, value_name = "ID")]
    pub(crate) terminal: Vec<TerminalId>,
    /// Only terminals of this region: 35, 3501 or 350102
    #[arg(long, value_parser = region, value_name = "REGION")]
    pub(crate) area: Option<Area>,
    /// Rows that arrived and gaps that were noticed since then, as in 2026-11-22T08:00:00+08:00
    #[arg(long, value_name = "TIME")]
    pub(crate) from: Option<Timestamp>,
    /// And before this
    #[arg(long, value_name = "TIME")]
    pub(crate) to: Option<Timestamp>,
    /// Excuse gaps that were noticed less than this ago: their terminals may still send the numbers. 7d is as long
    /// as terminals store and forward
    #[arg(long, value_parser = super::duration, default_value = "0", value_name = "TIME")]
    pub(crate) grace: Duration,
    /// Terminals begin each boot with number 1: what is missing before the first number counts too
    #[arg(long)]
    pub(crate) from_one: bool,
    /// One JSON object; docs/audit.md explains its fields
    #[arg(long)]
    pub(crate) json: bool,
    /// Mend the ledger from the rows afterwards; noted in the audit log
    #[arg(long)]
    pub(crate) repair: bool,
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
}

/// `liftwatch quarantine`.
#[derive(Debug, Subcommand)]
pub(crate) enum QuarantineCommand {
    /// List entries, the newest first
    List {
        /// Only for this reason: undecodable, too_large, unknown_topic, unknown_terminal, too_old, future,
        /// key_conflict, refused, too_many_boots
        #[arg(long)]
        reason: Option<String>,
        /// Only of this terminal
        #[arg(long, value_name = "ID")]
        terminal: Option<String>,
        /// Only what arrived then or later, as in 2026-11-22T08:00:00+08:00
        #[arg(long, value_name = "TIME")]
        since: Option<Timestamp>,
        /// At most so many
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        limit: u32,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Show one entry: its payload, why it is here, and what can be done
    Show {
        /// Its number
        id: i64,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Decode entries again, with the registry and the profiles as they are now, and store them
    ///
    /// What becomes a row keeps its time of arrival and leaves quarantine. The rules do not see it: no alarm comes
    /// of it. It can be run while the server runs.
    Retry {
        #[command(flatten)]
        which: Which,
        /// Everything
        #[arg(long, conflicts_with_all = ["ids", "reason"])]
        all: bool,
        /// Only say what would become of them
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Drop entries for good; noted in the audit log, and their numbers are discarded, not unaccounted for
    Drop {
        #[command(flatten)]
        which: Which,
        /// Only what arrived before this, as in 2026-11-22T08:00:00+08:00
        #[arg(long, value_name = "TIME")]
        older_than: Option<Timestamp>,
        /// Do it; without, it only says how many there are
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        config: ConfigArgs,
    },
}

/// Which entries.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// Their numbers
    #[arg(value_name = "ID")]
    pub(crate) ids: Vec<i64>,
    /// All that are there for this reason
    #[arg(long, conflicts_with = "ids")]
    pub(crate) reason: Option<String>,
}
