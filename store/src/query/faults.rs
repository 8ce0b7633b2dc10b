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
/// Index: `fault_period_opened`, the range of the months; for each fault in it `contract_elevator`. Cost: one
/// look-up of contracts for each fault, about 15 us. Bound: [`FaultsBy::MONTHS_MAX`] months and [`FaultsBy::LINES_MAX`] lines; more are refused.
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
            "AND fault.elevator_id IN (
                 SELECT elevator.elevator_id
                 FROM elevator
                 JOIN unnest($7::int4[], $8::int4[]) AS region (first, last)
                   ON elevator.area BETWEEN region.first AND region.last
             )"
        };
        // One contract at most for each fault: a join with all of them would count a fault as often as they
        // overlap. An interval, not a zone's name: '+08' would mean the other direction.
        let sql = format!(
            "{prefix}
             SELECT counted.month, counted.slug, company.company_id, company.credit_code, company.name,
                 counted.faults, counted.open, counted.open_s
             FROM (
                 SELECT date_trunc('month', fault.day)::date AS month, fault.slug, held.company_id,
                     count(*) AS faults,
                     count(*) FILTER (WHERE fault.closed IS NULL) AS open,
                     sum(greatest(date_part('epoch', coalesce(fault.closed, $3) - fault.opened), 0))::int8 AS open_s
                 FROM (
                     SELECT elevator_id, slug, opened, closed,
                         (opened AT TIME ZONE INTERVAL '{ZONE_HOURS} hours')::date AS day
                     FROM fault_period
                     WHERE opened >= $1
                       AND opened < $2
                 ) AS fault
                 LEFT JOIN LATERAL (
                     SELECT contract.company_id
                     FROM contract
                     WHERE contract.elevator_id = fault.elevator_id
                       AND contract.role = 'maintenance'
                       AND contract.valid_from <= fault.day
                       AND (contract.valid_to IS NULL OR contract.valid_to >= fault.day)
                     ORDER BY contract.valid_from DESC, contract.contract_id DESC
                     LIMIT 1
                 ) AS held ON true
                 WHERE ($4::text IS NULL OR fault.slug = $4)
                   AND ($5::int8 IS NULL OR held.company_id = $5)
                   {regions}
                 GROUP BY 1, 2, 3
                 LIMIT $6
             ) AS counted
             LEFT JOIN company ON company.company_id = counted.company_id
             ORDER BY counted.month, counted.slug, company.company_id NULLS LAST"
        );
        let query = sqlx::query(AssertSqlSafe(sql))
            .bind(storable(self.from.begin()))
            .bind(storable(self.last.end()))
            .bind(storable(self.now))
            .bind(self.slug.clone())
            .bind(self.company_id)
            .bind(Self::LINES_MAX as i64 + 1);
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
