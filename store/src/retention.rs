//! How long each table is kept, for everyone and for single divisions.
//!
//! Pure: owns the table of what is kept and the way a division finds its own span (DOMAIN.md 2: county, then
//! city, then province, then everyone's). Deleting is done by `maintenance`.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::{Area, limits};

/// A table that does not keep its rows for ever. What is not named here (the registry, alarms, the audit log)
/// is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kept {
    /// Readings.
    Telemetry,
    /// Fault events and lists of active faults.
    Fault,
    /// Counters of terminals.
    Statistics,
    /// Occurrences of faults, from opened to closed; open ones are kept.
    FaultPeriod,
    /// Rollup by minute.
    Telemetry1m,
    /// Rollup by hour.
    Telemetry1h,
    /// What could not be decoded or stored.
    Quarantine,
    /// Candidates of alarms that were not raised.
    Suppression,
    /// The stream of alarms; events of open alarms, and what follows them, are kept.
    AlarmEvent,
    /// Evidence of alarms; that of open ones is kept.
    AlarmEvidence,
    /// Orders to terminals; that they were given stays in the audit log.
    Downlink,
}

const DAY: Duration = Duration::from_hours(24);

impl Kept {
    /// Every table.
    pub const ALL: [Self; 11] = [
        Self::Telemetry,
        Self::Fault,
        Self::Statistics,
        Self::FaultPeriod,
        Self::Telemetry1m,
        Self::Telemetry1h,
        Self::Quarantine,
        Self::Suppression,
        Self::AlarmEvent,
        Self::AlarmEvidence,
        Self::Downlink,
    ];

    /// Its name in the database, and in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Telemetry => "telemetry",
            Self::Fault => "fault",
            Self::Statistics => "statistics",
            Self::FaultPeriod => "fault_period",
            Self::Telemetry1m => "telemetry_1m",
            Self::Telemetry1h => "telemetry_1h",
            Self::Quarantine => "quarantine",
            Self::Suppression => "suppression",
            Self::AlarmEvent => "alarm_event",
            Self::AlarmEvidence => "alarm_evidence",
            Self::Downlink => "downlink",
        }
    }

    /// The column by which a row is old.
    pub(crate) fn time_column(self) -> &'static str {
        match self {
            Self::Telemetry | Self::Fault | Self::Statistics => "time",
            Self::FaultPeriod => "closed",
            Self::Telemetry1m | Self::Telemetry1h => "bucket",
            Self::Quarantine => "arrived",
            Self::Suppression | Self::AlarmEvent => "at",
            Self::AlarmEvidence => "sealed",
            Self::Downlink => "created",
        }
    }

    /// Whether it lies in chunks.
    pub(crate) fn in_chunks(self) -> bool {
        self.by_division()
    }

    /// Whether a division may keep it for another span.
    pub fn by_division(self) -> bool {
        matches!(
            self,
            Self::Telemetry | Self::Fault | Self::Statistics | Self::Telemetry1m | Self::Telemetry1h
        )
    }

    /// How long it is kept by default.
    pub fn default_span(self) -> Duration {
        match self {
            Self::Telemetry => limits::RETENTION,
            Self::Quarantine | Self::Suppression => 180 * DAY,
            Self::Fault | Self::Statistics | Self::Telemetry1m => 730 * DAY,
            Self::FaultPeriod | Self::Telemetry1h | Self::AlarmEvent | Self::AlarmEvidence => 3_650 * DAY,
            Self::Downlink => 30 * DAY,
        }
    }
}

/// How long things are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    spans: BTreeMap<Kept, Duration>,
    divisions: BTreeMap<(Kept, Area), Duration>,
}

impl Default for Retention {
    fn default() -> Self {
        let spans = Kept::ALL.into_iter().map(|table| (table, table.default_span())).collect();
        Self { spans, divisions: BTreeMap::new() }
    }
}

impl Retention {
    /// With another span for a table.
    #[must_use]
    pub fn with(mut self, table: Kept, span: Duration) -> Self {
        self.spans.insert(table, span);
        self
    }

    /// With another span for the elevators of a division. Ignored where [`Kept::by_division`] says no.
    #[must_use]
    pub fn with_division(mut self, area: Area, table: Kept, span: Duration) -> Self {
        if table.by_division() {
            self.divisions.insert((table, area), span);
        }
        self
    }

    /// How long a table is kept where its division says nothing.
    pub fn span(&self, table: Kept) -> Duration {
        self.spans.get(&table).copied().unwrap_or_else(|| table.default_span())
    }

    /// How long rows of elevators of this division are kept: the most specific entry that covers it.
    pub fn span_of(&self, table: Kept, area: Area) -> Duration {
        let number = area.number();
        [number, number / 100 * 100, number / 10_000 * 10_000, 0]
            .into_iter()
            .filter_map(|number| Area::from_number(number).ok())
            .find_map(|area| self.divisions.get(&(table, area)).copied())
            .unwrap_or_else(|| self.span(table))
    }

    /// The longest span of any division: older chunks go as a whole.
    pub fn longest(&self, table: Kept) -> Duration {
        self.spans_of(table).max().unwrap_or_default()
    }

    /// The shortest span of any division.
    pub fn shortest(&self, table: Kept) -> Duration {
        self.spans_of(table).min().unwrap_or_default()
    }

    /// Device times older than this are not admitted: nobody would keep them.
    pub fn admitted(&self) -> Duration {
        self.longest(Kept::Telemetry)
    }

    fn spans_of(&self, table: Kept) -> impl Iterator<Item = Duration> {
        let divisions = self.divisions.iter().filter(move |((kept, _), _)| *kept == table);
        divisions.map(|(_, span)| *span).chain([self.span(table)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn area(text: &str) -> Area {
        text.parse().unwrap()
    }

    #[test]
    fn a_county_goes_before_its_city_and_that_before_its_province() {
        let retention = Retention::default()
            .with_division(area("350000"), Kept::Telemetry, 300 * DAY)
            .with_division(area("350100"), Kept::Telemetry, 100 * DAY)
            .with_division(area("350102"), Kept::Telemetry, 30 * DAY)
            .with_division(area("350102"), Kept::Downlink, DAY);
        let days = |area_code: &str| retention.span_of(Kept::Telemetry, area(area_code)).as_secs() / 86_400;
        assert_eq!(days("350102"), 30);
        assert_eq!(days("350103"), 100);
        assert_eq!(days("350200"), 300);
        assert_eq!(days("350000"), 300);
        assert_eq!(days("360102"), 180);
        assert_eq!(retention.longest(Kept::Telemetry), 300 * DAY);
        assert_eq!(retention.shortest(Kept::Telemetry), 30 * DAY);
        assert_eq!(retention.admitted(), 300 * DAY);
        assert_eq!(retention.span_of(Kept::Fault, area("350102")), Kept::Fault.default_span());
        assert_eq!(retention.span_of(Kept::Downlink, area("350102")), 30 * DAY, "not by division");
    }

    #[test]
    fn names_are_unique() {
        let names: std::collections::BTreeSet<_> = Kept::ALL.map(Kept::name).into();
        assert_eq!(names.len(), Kept::ALL.len());
    }
}
