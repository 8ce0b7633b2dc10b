//! `[retention]`: how many days each table is kept, for everyone and for single divisions.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::Area;
use serde::{Deserialize, Serialize};
use store::Kept;

use super::checks::{Fault, within};

/// `[retention]`, in days.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Retention {
    telemetry: u32,
    fault: u32,
    statistics: u32,
    fault_period: u32,
    telemetry_1m: u32,
    telemetry_1h: u32,
    quarantine: u32,
    suppression: u32,
    alarm_event: u32,
    alarm_evidence: u32,
    downlink: u32,
    /// What differs in a division, by its code.
    division: BTreeMap<Area, Division>,
}

/// `[retention.division.<code>]`, in days.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Division {
    #[serde(skip_serializing_if = "Option::is_none")]
    telemetry: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    statistics: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    telemetry_1m: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    telemetry_1h: Option<u32>,
}

fn days(table: Kept) -> u32 {
    (table.default_span().as_secs() / 86_400) as u32
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            telemetry: days(Kept::Telemetry),
            fault: days(Kept::Fault),
            statistics: days(Kept::Statistics),
            fault_period: days(Kept::FaultPeriod),
            telemetry_1m: days(Kept::Telemetry1m),
            telemetry_1h: days(Kept::Telemetry1h),
            quarantine: days(Kept::Quarantine),
            suppression: days(Kept::Suppression),
            alarm_event: days(Kept::AlarmEvent),
            alarm_evidence: days(Kept::AlarmEvidence),
            downlink: days(Kept::Downlink),
            division: BTreeMap::new(),
        }
    }
}

/// A hundred years, which is for ever.
const DAYS_MAX: u32 = 36_500;

impl Retention {
    fn tables(&self) -> [(&'static str, Kept, u32); 11] {
        [
            ("retention.telemetry", Kept::Telemetry, self.telemetry),
            ("retention.fault", Kept::Fault, self.fault),
            ("retention.statistics", Kept::Statistics, self.statistics),
            ("retention.fault_period", Kept::FaultPeriod, self.fault_period),
            ("retention.telemetry_1m", Kept::Telemetry1m, self.telemetry_1m),
            ("retention.telemetry_1h", Kept::Telemetry1h, self.telemetry_1h),
            ("retention.quarantine", Kept::Quarantine, self.quarantine),
            ("retention.suppression", Kept::Suppression, self.suppression),
            ("retention.alarm_event", Kept::AlarmEvent, self.alarm_event),
            ("retention.alarm_evidence", Kept::AlarmEvidence, self.alarm_evidence),
            ("retention.downlink", Kept::Downlink, self.downlink),
        ]
    }

    /// Every span lies between a day and a hundred years.
    pub(super) fn check(&self) -> Result<(), Fault> {
        for (key, _, days) in self.tables() {
            within(key, days, 1, DAYS_MAX)?;
        }
        for (area, division) in &self.division {
            for (table, days) in division.tables() {
                if days == 0 || days > DAYS_MAX {
                    let reason = format!(
                        "says {} = {days} for {area}, but days must lie between 1 and {DAYS_MAX}",
                        table.name()
                    );
                    return Err(Fault { key: "retention.division", reason });
                }
            }
        }
        Ok(())
    }

    /// As the store wants it.
    pub(crate) fn of_store(&self) -> store::Retention {
        let span = |days: u32| Duration::from_hours(24 * u64::from(days));
        let all =
            self.tables().into_iter().fold(store::Retention::default(), |retention, (_, table, days)| {
                retention.with(table, span(days))
            });
        self.division.iter().fold(all, |retention, (area, division)| {
            division
                .tables()
                .fold(retention, |retention, (table, days)| retention.with_division(*area, table, span(days)))
        })
    }
}

impl Division {
    fn tables(&self) -> impl Iterator<Item = (Kept, u32)> {
        [
            (Kept::Telemetry, self.telemetry),
            (Kept::Fault, self.fault),
            (Kept::Statistics, self.statistics),
            (Kept::Telemetry1m, self.telemetry_1m),
            (Kept::Telemetry1h, self.telemetry_1h),
        ]
        .into_iter()
        .filter_map(|(table, days)| Some((table, days?)))
    }
}
