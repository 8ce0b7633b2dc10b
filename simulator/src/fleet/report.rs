//! What came of a fleet's run.

use std::fmt;

use serde::Serialize;

use super::counters::{Counts, Percentiles};
use crate::fault::Truth;

/// The closing report of a fleet.
#[derive(Debug, Clone, Serialize)]
pub struct FleetReport {
    /// Terminals of the fleet.
    pub terminals: usize,
    /// Length of the run, s.
    pub elapsed_s: f64,
    /// Counts.
    #[serde(flatten)]
    pub counts: Counts,
    /// Readings and events that nobody acknowledged.
    pub unacked: u64,
    /// Acknowledged readings and events per second.
    pub items_acked_per_s: f64,
    /// From transmission to acknowledgement.
    pub acknowledge: Percentiles,
    /// From the making of a reading to its acknowledgement, outages included.
    pub delivery: Percentiles,
    /// The ledger of acknowledgements has every line; also true where none was asked for.
    pub ledger_complete: bool,
    /// Why the last connect failed, if one did.
    pub last_refusal: Option<String>,
    /// What really happened, oldest first.
    pub truth: Vec<Truth>,
}

impl FleetReport {
    /// The ground truth as JSON lines.
    pub fn truth_lines(&self) -> String {
        let line = |truth| serde_json::to_string(truth).unwrap_or_default() + "\n";
        self.truth.iter().map(line).collect()
    }
}

impl fmt::Display for FleetReport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { sent, resent, acked, items_sent, items_acked, reconnects, refused, dropped, .. } =
            self.counts;
        writeln!(out, "terminals    {}, {:.1} s", self.terminals, self.elapsed_s)?;
        writeln!(out, "messages     {sent} sent, {acked} acknowledged, {resent} of them repetitions")?;
        writeln!(
            out,
            "readings     {items_sent} sent, {items_acked} acknowledged ({:.0}/s), {} unacknowledged, \
             {dropped} dropped",
            self.items_acked_per_s, self.unacked
        )?;
        writeln!(out, "connections  {reconnects} reconnects, {refused} attempts failed")?;
        if let Some(refusal) = &self.last_refusal {
            writeln!(out, "             last failure: {refusal}")?;
        }
        writeln!(out, "acknowledge  {}", self.acknowledge)?;
        write!(out, "delivery     {}", self.delivery)?;
        for truth in &self.truth {
            write!(out, "\ntruth        {} {} began {}", truth.terminal, truth.fault, truth.begin)?;
            if let Some(end) = truth.end {
                write!(out, ", ended {end}")?;
            }
            write!(out, ", {} people, expect {}", truth.people, truth.expected.unwrap_or("nothing"))?;
        }
        if !self.ledger_complete {
            write!(out, "\nledger       INCOMPLETE: it could not be written")?;
        }
        Ok(())
    }
}
