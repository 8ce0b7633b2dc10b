//! Faults by code, maintainer and month.

use domain::{Area, Timestamp};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Row as _};

use super::month::{Month, ZONE_HOURS};
use super::region::ranges;
use super::{PgQuery, Queries, QueryError, Question, invalid, unreadable};
use crate::state::storable;

/// How many faults there were, by code, maintainer and month in which they began; and how long they lasted.
///
/// A fault is one row of `fault_period`, and is counted once: in the month of its beginning, with the company whose
/// maintenance contract held on that day. Where contracts overlap, the one that began last holds (the one noted
/// last of those that began together); a contract holds on its last day too. Without any, the maintainer is
/// `None`. What is still open lasts until `now`.
///
/// Index: `fault_period_opened`, the range of the months; contracts are read once, from end to end or for a region
/// by `contract_elevator`. Cost: 1.3 us for each contract that holds in the months, 1.1 us for each fault. Bound:
/// [`FaultsBy::MONTHS_MAX`] months and [`FaultsBy::LINES_MAX`] lines; more are refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultsBy {
    /// The first month.
    pub from: Month,
    /// The last month; may be the same.
    pub last: Month,
    /// Only elevators in one of these regions; empty: all.
    pub regions: Vec<Area>,
    /// Only this code.
    pub slug: Option<String>,
    /// Only elevators that this company maintained then.
    pub company_id: Option<i64>,
    /// Up to when open faults last.
    pub now: Timestamp,
}

impl FaultsBy {
    /// Three years.
    pub const MONTHS_MAX: i32 = 36;
    /// A month of a province: 200 maintainers, a hundred codes.
    pub const LINES_MAX: usize = 50_000;
}

/// Faults of one code, maintainer and month.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultCount {
    /// In which they began.
    pub month: Month,
    /// Their code.
    pub slug: String,
    /// Who had the contract when they began.
    pub maintainer: Option<Maintainer>,
    /// How many.
    pub faults: i64,
    /// How many of them are open.
    pub open: i64,
    /// Seconds they lasted, together.
    pub open_s: i64,
}

/// A company with a maintenance contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maintainer {
    /// Its id in the registry.
    pub company_id: i64,
    /// Its unified social credit code (统一社会信用代码).
    pub credit_code: Option<String>,
    /// Its name.
    pub name: String,
}

impl Question for FaultsBy {
    fn check(&self) -> Result<(), QueryError> {
        if !(1..=Self::MONTHS_MAX).contains(&self.from.count_to(self.last)) {
            return invalid(format!("1 to {} months can be asked for", Self::MONTHS_MAX));
        }
        if storable(self.now).is_none() {
            return invalid("now lies outside of the calendar");
        }
        Ok(())
    }

    fn statement(&self, prefix: &str) -> PgQuery {
        let regions = if self.regions.is_empty() {
            ""
        } else {
            "AND elevator_id IN (
                 SELECT elevator.elevator_id
                 FROM elevator
                 JOIN unnest($9::int4[], $10::int4[]) AS region (first, last)
                   ON elevator.area BETWEEN region.first AND region.last
             )"
        };
        // The days of a contract less those of the ones that go before it: so a day has one contract at most, and a
        // fault is counted once, however many overlap. An interval, not a zone's name: '+08' would mean the other
        // direction.
        let sql = format!(
            "{prefix}
             WITH agreed AS (
                 SELECT elevator_id, company_id, valid_from, contract_id,
                     daterange(greatest(valid_from, $7), least(valid_to, $8), '[]') AS days
                 FROM contract
                 WHERE role = 'maintenance'
                   AND valid_from <= $8
                   AND (valid_to IS NULL OR valid_to >= greatest(valid_from, $7))
                   {regions}
             ), held AS (
                 SELECT elevator_id, company_id,
                     datemultirange(days) - coalesce(range_agg(days) OVER later, '{{}}') AS days
                 FROM agreed
                 WINDOW later AS (
                     PARTITION BY elevator_id
                     ORDER BY valid_from DESC, contract_id DESC
                     ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
                 )
             ), counted AS (
                 SELECT date_trunc('month', fault.opened_local) AS month, fault.slug, held.company_id,
                     count(*) AS faults,
                     count(*) FILTER (WHERE fault.closed IS NULL) AS open,
                     sum(greatest(date_part('epoch', coalesce(fault.closed, $3) - fault.opened), 0))::int8 AS open_s
                 FROM (
                     SELECT elevator_id, slug, opened, closed,
                         opened AT TIME ZONE INTERVAL '{ZONE_HOURS} hours' AS opened_local
                     FROM fault_period
                     WHERE opened >= $1
                       AND opened < $2
                       AND ($4::text IS NULL OR slug = $4)
                       {regions}
                 ) AS fault
                 LEFT JOIN held
                   ON held.elevator_id = fault.elevator_id
                  AND held.days @> fault.opened_local::date
                 WHERE $5::int8 IS NULL OR held.company_id = $5
                 GROUP BY 1, 2, 3
                 LIMIT $6
             )
             SELECT counted.month::date AS month, counted.slug, company.company_id, company.credit_code,
                 company.name, counted.faults, counted.open, counted.open_s
             FROM counted
             LEFT JOIN company ON company.company_id = counted.company_id
             ORDER BY counted.month, counted.slug, company.company_id NULLS LAST"
        );
        let query = sqlx::query(AssertSqlSafe(sql))
            .bind(storable(self.from.begin()))
            .bind(storable(self.last.end()))
            .bind(storable(self.now))
            .bind(self.slug.clone())
            .bind(self.company_id)
            .bind(Self::LINES_MAX as i64 + 1)
            .bind(self.from.first_day())
            .bind(self.last.last_day());
        if self.regions.is_empty() {
            return query;
        }
        let (firsts, lasts) = ranges(&self.regions);
        query.bind(firsts).bind(lasts)
    }
}

impl Queries {
    /// Faults by code, maintainer and month, in this order: month, code, company.
    pub async fn faults_by(&self, question: &FaultsBy) -> Result<Vec<FaultCount>, QueryError> {
        question.check()?;
        let rows = self.rows(question).await?;
        if rows.len() > FaultsBy::LINES_MAX {
            return invalid(format!("more than {} lines: ask for less", FaultsBy::LINES_MAX));
        }
        rows.iter().map(|row| count(row).map_err(unreadable)).collect()
    }
}

fn count(row: &PgRow) -> Result<FaultCount, sqlx::Error> {
    let company_id: Option<i64> = row.try_get("company_id")?;
    let maintainer = match company_id {
        Some(company_id) => Some(Maintainer {
            company_id,
            credit_code: row.try_get("credit_code")?,
            name: row.try_get("name")?,
        }),
        None => None,
    };
    Ok(FaultCount {
        month: Month::of(row.try_get("month")?),
        slug: row.try_get("slug")?,
        maintainer,
        faults: row.try_get("faults")?,
        open: row.try_get("open")?,
        open_s: row.try_get("open_s")?,
    })
}
