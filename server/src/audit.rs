//! `liftwatch audit`: what became of every number, for people and for scripts.

use std::process::ExitCode;

use anyhow::Context;
use store::{AuditGap, AuditReport, AuditScope, GapOutcome};

use crate::cli::AuditArgs;
use crate::terminal::{actor, look, moment, open};

/// Something is unaccounted for, or the ledger claims more than the rows.
const NOT_OK: u8 = 1;
/// It could not be audited.
const FAILED: u8 = 2;

/// Runs it. 0: everything is accounted for; 1: it is not; 2: it could not be audited.
pub(crate) async fn run(arguments: AuditArgs) -> ExitCode {
    match audit(arguments).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(NOT_OK),
        Err(error) => {
            eprintln!("liftwatch: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

async fn audit(arguments: AuditArgs) -> anyhow::Result<bool> {
    let database = match arguments.repair {
        true => open(&arguments.config).await?,
        false => look(&arguments.config).await?,
    };
    for terminal in &arguments.terminal {
        let known = database.terminal_known(terminal).await?;
        anyhow::ensure!(known, "no terminal {terminal} is registered, and none has sent anything");
    }
    let scope = AuditScope {
        terminals: arguments.terminal,
        region: arguments.area,
        from: arguments.from,
        to: arguments.to,
        grace: arguments.grace,
        from_one: arguments.from_one,
    };
    let repair = arguments.repair.then(actor);
    let report = database
        .ledger_audit(&scope, moment(), repair.as_deref())
        .await
        .context("the audit could not be finished")?;
    match arguments.json {
        true => println!("{}", serde_json::to_string(&report)?),
        false => print!("{}", as_text(&report)),
    }
    Ok(report.is_ok())
}

fn as_text(report: &AuditReport) -> String {
    let mut text = String::new();
    let mut line = |words: String| {
        text.push_str(&words);
        text.push('\n');
    };
    let bound = |at: Option<domain::Timestamp>, open: &str| at.map_or(open.to_owned(), |at| at.to_string());
    line(format!(
        "period       {} to {}, by arrival; audited {}",
        bound(report.from, "the beginning"),
        bound(report.to, "now"),
        report.at
    ));
    line(format!("terminals    {} with {} boots", report.terminals, report.sources));
    let tables: Vec<String> =
        report.rows_by_table.iter().map(|(table, rows)| format!("{table} {rows}")).collect();
    line(format!(
        "rows         {} ({}), {} of them without a number of their terminal",
        report.rows,
        tables.join(", "),
        report.rows_unnumbered
    ));
    let reasons: Vec<String> =
        report.quarantined_by_reason.iter().map(|(reason, entries)| format!("{reason} {entries}")).collect();
    line(format!(
        "quarantine   {} entries{}{}, {} of them without known numbers",
        report.quarantined,
        if reasons.is_empty() { "" } else { ": " },
        reasons.join(", "),
        report.quarantined_unnumbered
    ));
    line(String::new());
    line(format!("{:>12}  numbers are rows", report.numbers_stored));
    line(format!("{:>12}  are in quarantine", report.numbers_quarantined));
    line(format!("{:>12}  came late and filled a gap", report.filled_late));
    line(format!("{:>12}  were declared dropped by their terminals", report.declared_dropped));
    line(format!("{:>12}  were discarded from quarantine by an operator", report.discarded));
    line(format!("{:>12}  are missing for less than {} s (the grace)", report.open, report.grace_s));
    line(format!("{:>12}  are unaccounted for", report.unaccounted));
    line(String::new());
    for gap in &report.gaps {
        line(gap_text(gap));
    }
    if report.gaps_more > 0 {
        line(format!("and {} more gaps: narrow the audit with --terminal, --area, --from", report.gaps_more));
    }
    for twice in &report.used_twice_at {
        line(format!(
            "used twice   {} boot {}: {} rows too many between {} and {}",
            twice.terminal, twice.boot, twice.rows, twice.from, twice.to
        ));
    }
    if report.deleted_by_retention > 0 {
        let rows =
            report.kept_since.map(|at| format!(" (rows: device time before {at})")).unwrap_or_default();
        line(format!(
            "retention    {} numbers were rows or in quarantine and are deleted{rows}; the ledger remembers them",
            report.deleted_by_retention
        ));
    }
    line(format!("ledger       {}", ledger_text(report)));
    line(format!("verdict      {}", verdict_text(report)));
    text
}

fn gap_text(gap: &AuditGap) -> String {
    let word = match gap.outcome {
        GapOutcome::Open => "open",
        GapOutcome::Dropped => "dropped",
        GapOutcome::Discarded => "discarded",
        GapOutcome::Unaccounted => "unaccounted",
    };
    let noted = gap.noted.map_or(String::new(), |at| format!(", missed since {at}"));
    let tail = if gap.tail { ", the end of that boot never came" } else { "" };
    let range = if gap.from == gap.to { gap.from.to_string() } else { format!("{} to {}", gap.from, gap.to) };
    format!("{word:<12} {} boot {}: {range} ({} numbers{noted}{tail})", gap.terminal, gap.boot, gap.numbers)
}

fn ledger_text(report: &AuditReport) -> String {
    let mut words = Vec::new();
    if report.ledger_ahead > 0 {
        words.push(format!("wrong: it claims {} numbers that are not there", report.ledger_ahead));
    }
    if report.ledger_behind > 0 {
        words.push(format!(
            "behind by {} numbers (a running server writes it about once a second)",
            report.ledger_behind
        ));
    }
    if report.ledger_coarse > 0 {
        words.push(format!("{} boots have more gaps than it keeps apart", report.ledger_coarse));
    }
    if words.is_empty() {
        words.push("true".to_owned());
    }
    if report.repaired > 0 {
        words.push(format!("mended for {} boots", report.repaired));
    }
    words.join("; ")
}

fn verdict_text(report: &AuditReport) -> String {
    match report.verdict {
        "ok" => "ok: every number is accounted for".to_owned(),
        "ledger_ahead" => "ledger_ahead: rows that were there once are gone".to_owned(),
        _ => format!("unaccounted: {} numbers are missing and nobody explains them", report.unaccounted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_names_each_gap_and_ends_with_the_verdict() {
        let gap = AuditGap {
            terminal: "t1".to_owned(),
            boot: 7,
            from: 3,
            to: 5,
            numbers: 3,
            noted: None,
            tail: true,
            outcome: GapOutcome::Unaccounted,
        };
        let mut report =
            AuditReport { verdict: "unaccounted", unaccounted: 3, gaps: vec![gap], ..AuditReport::default() };
        let text = as_text(&report);
        assert!(text.contains("unaccounted  t1 boot 7: 3 to 5 (3 numbers, the end of that boot"), "{text}");
        assert!(text.ends_with("verdict      unaccounted: 3 numbers are missing and nobody explains them\n"));
        assert!(text.contains("ledger       true\n"));
        report.ledger_behind = 4;
        assert!(as_text(&report).contains("behind by 4"));
    }
}
