//! Calendar months of the place: China has one zone, UTC+8, without daylight saving (DOMAIN.md 6, 7).

use domain::Timestamp;
use time::{Date, UtcOffset};

use super::QueryError;

/// Hours that local time is ahead of UTC.
pub(super) const ZONE_HOURS: i8 = 8;

/// A local calendar month.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month {
    year: i32,
    month: u8,
}

impl Month {
    /// `month` is 1 to 12; years as far as they make sense.
    pub fn new(year: i32, month: u8) -> Result<Self, QueryError> {
        if (1970..=9990).contains(&year) && (1..=12).contains(&month) {
            Ok(Self { year, month })
        } else {
            Err(QueryError::Invalid(format!("{year}-{month:02} is no month")))
        }
    }

    /// The month in which this day lies.
    pub(super) fn of(day: Date) -> Self {
        Self { year: day.year(), month: day.month().into() }
    }

    /// The month after it.
    #[must_use]
    pub fn next(self) -> Self {
        match self.month {
            12 => Self { year: self.year + 1, month: 1 },
            _ => Self { month: self.month + 1, ..self },
        }
    }

    /// Months from `self` to `last`, both counted; none where `last` is before.
    pub(super) fn count_to(self, last: Self) -> i32 {
        (last.year - self.year) * 12 + i32::from(last.month) - i32::from(self.month) + 1
    }

    /// Its first day.
    pub(super) fn first_day(self) -> Date {
        let month = time::Month::try_from(self.month).unwrap_or(time::Month::January);
        Date::from_calendar_date(self.year, month, 1).unwrap_or(Date::MIN)
    }

    /// Its last day.
    pub(super) fn last_day(self) -> Date {
        self.next().first_day().previous_day().unwrap_or(Date::MAX)
    }

    /// Its first moment.
    pub fn begin(self) -> Timestamp {
        let zone = UtcOffset::from_hms(ZONE_HOURS, 0, 0).unwrap_or(UtcOffset::UTC);
        self.first_day().midnight().assume_offset(zone).into()
    }

    /// The first moment of the next.
    pub fn end(self) -> Timestamp {
        self.next().begin()
    }
}

impl std::fmt::Display for Month {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{:04}-{:02}", self.year, self.month)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_begins_at_local_midnight() {
        let month = Month::new(2026, 12).unwrap();
        assert_eq!(month.begin().to_string(), "2026-11-30T16:00:00Z");
        assert_eq!(month.end().to_string(), "2026-12-31T16:00:00Z");
        assert_eq!(month.next().to_string(), "2027-01");
        assert_eq!(month.last_day().to_string(), "2026-12-31");
        assert_eq!(month.count_to(month), 1);
        assert_eq!(Month::new(2025, 12).unwrap().count_to(month), 13);
        assert!(month.next().count_to(month) < 1);
        for (year, month) in [(2026, 0), (2026, 13), (1, 1), (i32::MAX, 1)] {
            assert!(Month::new(year, month).is_err());
        }
    }
}
