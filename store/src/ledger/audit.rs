//! Reconciles ledger, rows and quarantine.
//!
//! Everything is read in one transaction of one snapshot, so that the ledger is compared with the rows of the
//! same moment. The rows' numbers come from the server as ranges, sorted by source, through a cursor; the books
//! of a few hundred sources are in memory at once.

use std::collections::{BTreeMap, HashMap, HashSet};

use domain::{Area, SourceId, TerminalId, Timestamp};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Connection, Row as _};
use time::OffsetDateTime;

use super::books::{Mend, mend, side_books};
use super::lost::{Teller, tellers};
use super::report::{AuditReport, AuditScope, GAPS_NAMED_MAX, UsedTwice};
use super::table::{NUMBERED, WORK_MEM};
use super::verdict::{Books, Gap, SET_BACK_MAX, Yardstick};
use crate::{Database, Kept, StoreError};

/// Sources whose books are looked at together.
const SOURCES_MAX: i64 = 500;
/// Ranges fetched at once.
const FETCH: usize = 5_000;

impl Database {
    /// Whether a terminal is registered, or has sent something once.
    pub async fn terminal_known(&self, terminal: &TerminalId) -> Result<bool, StoreError> {
        Ok(sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM terminal WHERE terminal_id = $1)
                 OR EXISTS (SELECT FROM source WHERE terminal_id = $1)",
        )
        .bind(terminal.as_str())
        .fetch_one(self.pool())
        .await?)
    }

    /// Audits. With `repair`, the ledger is then mended, and `repair` named in the audit log as the one who did it.
    pub async fn ledger_audit(
        &self,
        scope: &AuditScope,
        now: Timestamp,
        repair: Option<&str>,
    ) -> Result<AuditReport, StoreError> {
        // A connection of its own: it may take long.
        let mut connection = self.connection().await?;
        let mut auditor = Auditor::new(scope, now, repair.is_some());
        auditor.read(&mut connection).await?;
        if let Some(actor) = repair {
            auditor.report.repaired = mend(self, &mut connection, &auditor.mends, actor, now).await?;
        }
        let _ = connection.close().await;
        Ok(auditor.report)
    }
}

/// Up to when retention may have deleted rows: by the marks that it sets before or with each deletion, so what it
/// has done, not what the settings of whoever audits would do.
#[derive(Debug, Default)]
struct Floors {
    /// Of all elevators.
    all: Option<Timestamp>,
    /// Of those whose division keeps, or whose earlier division kept, less than that.
    own: HashMap<i64, Timestamp>,
}

/// Elevators with a floor of their own that is above that of all.
const FLOORS: &str = "
    WITH mark AS (
        SELECT area, max(floor) AS floor
        FROM retention_mark
        WHERE table_name IN ('telemetry', 'fault', 'statistics')
          AND floor > '-infinity'
        GROUP BY area
    )
    SELECT elevator_id, greatest(mark.floor, elevator.kept_since) AS floor
    FROM elevator
    LEFT JOIN mark USING (area)
    WHERE greatest(mark.floor, elevator.kept_since)
        > coalesce((SELECT floor FROM mark WHERE area = -1), '-infinity')";

impl Floors {
    async fn read(connection: &mut PgConnection) -> Result<Self, sqlx::Error> {
        let tables = [Kept::Telemetry, Kept::Fault, Kept::Statistics];
        let all: Option<OffsetDateTime> = sqlx::query_scalar(
            "SELECT max(floor)
             FROM retention_mark
             WHERE table_name = ANY ($1)
               AND area = -1
               AND floor > '-infinity'",
        )
        .bind(tables.map(Kept::name))
        .fetch_one(&mut *connection)
        .await?;
        let own: Vec<(i64, OffsetDateTime)> = sqlx::query_as(FLOORS).fetch_all(connection).await?;
        let own = own.into_iter().map(|(elevator, floor)| (elevator, floor.into())).collect();
        Ok(Self { all: all.map(Into::into), own })
    }

    fn newest(&self) -> Option<Timestamp> {
        self.own.values().copied().chain(self.all).max()
    }
}

struct Auditor<'a> {
    scope: &'a AuditScope,
    by: Yardstick,
    floors: Floors,
    report: AuditReport,
    /// Sources asked for; `None` for all.
    asked: Option<Vec<i32>>,
    /// Elevators under which their rows are.
    elevators: Vec<i64>,
    /// Ranges that were fetched and belong to sources after those in hand.
    ahead: Vec<Island>,
    ended: bool,
    repair: bool,
    mends: Vec<Mend>,
    tellers: Vec<Teller>,
    /// Of each source that decides what a teller means.
    last_known: HashMap<i32, i64>,
    deciding: HashSet<i32>,
    /// Sources of rows that are no sources.
    orphans: HashSet<i32>,
    terminal_last: Option<String>,
    terminals: HashSet<String>,
}

/// Rows of one source whose numbers follow each other.
#[derive(Debug)]
struct Island {
    source: i32,
    from: i64,
    to: i64,
    rows: i64,
    rows_in_period: i64,
    arrived: Timestamp,
    /// The lowest number of a row that is too young for retention.
    young: Option<i64>,
}

/// A source by name.
struct Named {
    source: i32,
    terminal: String,
    boot: i64,
    first_seen: Timestamp,
}

impl<'a> Auditor<'a> {
    fn new(scope: &'a AuditScope, now: Timestamp, repair: bool) -> Self {
        let by = Yardstick {
            now,
            grace: scope.grace,
            from: scope.from,
            to: scope.to,
            from_one: scope.from_one,
            kept_since: None,
        };
        let report = AuditReport {
            verdict: "ok",
            at: now,
            from: scope.from,
            to: scope.to,
            grace_s: scope.grace.as_secs(),
            ..AuditReport::default()
        };
        Self {
            scope,
            by,
            floors: Floors::default(),
            report,
            asked: None,
            elevators: Vec::new(),
            ahead: Vec::new(),
            ended: false,
            repair,
            mends: Vec::new(),
            tellers: Vec::new(),
            last_known: HashMap::new(),
            deciding: HashSet::new(),
            orphans: HashSet::new(),
            terminal_last: None,
            terminals: HashSet::new(),
        }
    }

    async fn read(&mut self, connection: &mut PgConnection) -> Result<(), StoreError> {
        let mut transaction = connection.begin().await?;
        sqlx::raw_sql(AssertSqlSafe(format!(
            "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY;
             SET LOCAL work_mem = '{WORK_MEM}';
             SET LOCAL statement_timeout = 0"
        )))
        .execute(&mut *transaction)
        .await?;
        self.floors = Floors::read(&mut transaction).await?;
        self.by.kept_since = self.floors.all;
        self.report.kept_since = self.floors.newest();
        self.resolve(&mut transaction).await?;
        self.count(&mut transaction).await?;
        self.tellers = tellers(&mut transaction, self.asked.as_deref()).await?;
        self.deciding = self.tellers.iter().flat_map(Teller::sources).collect();
        let islands = format!("DECLARE islands NO SCROLL CURSOR FOR {}", self.islands());
        sqlx::raw_sql(AssertSqlSafe(islands)).execute(&mut *transaction).await?;
        let mut after = i32::MIN;
        loop {
            let sources = self.sources(&mut transaction, after).await?;
            let Some(last) = sources.last() else { break };
            after = last.source;
            self.judge(&mut transaction, &sources).await?;
        }
        self.enter_lost();
        self.enter_orphans(&mut transaction).await?;
        transaction.commit().await?;
        self.report.terminals = self.terminals.len() as u64;
        self.report.verdict = match (self.report.unaccounted, self.report.ledger_ahead) {
            (0, 0) => "ok",
            (0, _) => "ledger_ahead",
            _ => "unaccounted",
        };
        Ok(())
    }

    /// Which sources are meant, and under which elevators their rows are.
    async fn resolve(&mut self, connection: &mut PgConnection) -> Result<(), StoreError> {
        if self.scope.terminals.is_empty() && self.scope.region.is_none() {
            return Ok(());
        }
        let covered = self.scope.region.map(Area::covered);
        let terminals: Vec<&str> = self.scope.terminals.iter().map(TerminalId::as_str).collect();
        let rows = sqlx::query(
            "SELECT source.source, array_remove(ledger.elevators || terminal.elevator_id, NULL) AS elevators
             FROM source
             LEFT JOIN terminal USING (terminal_id)
             LEFT JOIN sequence_ledger AS ledger USING (source)
             WHERE (cardinality($1::text[]) = 0 OR source.terminal_id = ANY ($1))
               AND ($2::int4 IS NULL OR terminal.area BETWEEN $2 AND $3)
             ORDER BY source.source",
        )
        .bind(terminals)
        .bind(covered.as_ref().map(|range| range.start().cast_signed()))
        .bind(covered.as_ref().map(|range| range.end().cast_signed()))
        .fetch_all(connection)
        .await?;
        let mut asked = Vec::with_capacity(rows.len());
        for row in &rows {
            asked.push(row.try_get("source")?);
            let elevators: Option<Vec<i64>> = row.try_get("elevators")?;
            self.elevators.extend(elevators.unwrap_or_default());
        }
        self.elevators.sort_unstable();
        self.elevators.dedup();
        self.asked = Some(asked);
        Ok(())
    }

    /// Conditions on rows of a table with numbers.
    fn within_scope(&self) -> String {
        let list = |numbers: &mut dyn Iterator<Item = String>| numbers.collect::<Vec<_>>().join(",");
        match &self.asked {
            None => "true".to_owned(),
            Some(sources) => format!(
                "elevator_id = ANY ('{{{}}}'::int8[]) AND source = ANY ('{{{}}}'::int4[])",
                list(&mut self.elevators.iter().map(i64::to_string)),
                list(&mut sources.iter().map(i32::to_string)),
            ),
        }
    }

    /// Condition on the time of arrival.
    fn within_period(&self) -> String {
        let bound = |sign: &str, at: Option<Timestamp>| at.map(|at| format!("arrived {sign} {}", moment(at)));
        let bounds: Vec<String> =
            [bound(">=", self.scope.from), bound("<", self.scope.to)].into_iter().flatten().collect();
        if bounds.is_empty() { "true".to_owned() } else { bounds.join(" AND ") }
    }

    /// Rows and entries in quarantine that arrived in the period.
    async fn count(&mut self, connection: &mut PgConnection) -> Result<(), StoreError> {
        let (scope, period) = (self.within_scope(), self.within_period());
        for table in NUMBERED {
            let sql = format!(
                "SELECT count(*), count(*) FILTER (WHERE seq <= 0)
                 FROM {table}
                 WHERE {scope} AND {period}"
            );
            let (rows, unnumbered): (i64, i64) =
                sqlx::query_as(AssertSqlSafe(sql)).fetch_one(&mut *connection).await?;
            self.report.rows += rows.unsigned_abs();
            self.report.rows_unnumbered += unnumbered.unsigned_abs();
            self.report.rows_by_table.insert(table, rows.unsigned_abs());
        }
        let covered = self.scope.region.map(Area::covered);
        let terminals: Vec<&str> = self.scope.terminals.iter().map(TerminalId::as_str).collect();
        let sql = format!(
            "SELECT reason, count(*), count(*) FILTER (WHERE numbers IS NULL)
             FROM quarantine
             LEFT JOIN terminal USING (terminal_id)
             WHERE (cardinality($1::text[]) = 0 OR quarantine.terminal_id = ANY ($1))
               AND ($2::int4 IS NULL OR terminal.area BETWEEN $2 AND $3)
               AND {period}
             GROUP BY reason"
        );
        let reasons: Vec<(String, i64, i64)> = sqlx::query_as(AssertSqlSafe(sql))
            .bind(terminals)
            .bind(covered.as_ref().map(|range| range.start().cast_signed()))
            .bind(covered.as_ref().map(|range| range.end().cast_signed()))
            .fetch_all(connection)
            .await?;
        for (reason, entries, unnumbered) in reasons {
            self.report.quarantined += entries.unsigned_abs();
            self.report.quarantined_unnumbered += unnumbered.unsigned_abs();
            self.report.quarantined_by_reason.insert(reason, entries.unsigned_abs());
        }
        Ok(())
    }

    /// Numbers that follow each other, by source.
    fn islands(&self) -> String {
        let scope = self.within_scope();
        let young = |floor| format!("time >= {}", moment(Yardstick::young_since(floor)));
        let all = self.floors.all.map_or("true".to_owned(), young);
        let (young, floors) = match self.floors.own.is_empty() {
            true => (all, String::new()),
            false => (
                format!("coalesce(time >= own.floor + INTERVAL '{} s', {all})", SET_BACK_MAX.as_secs()),
                format!("LEFT JOIN ({FLOORS}) AS own USING (elevator_id)"),
            ),
        };
        let numbers: Vec<String> = NUMBERED
            .iter()
            .map(|table| {
                format!(
                    "SELECT source, seq, arrived, {young} AS young
                     FROM {table}
                     {floors}
                     WHERE {scope} AND seq > 0 AND seq < {}",
                    i64::MAX
                )
            })
            .collect();
        format!(
            "SELECT source, min(seq) AS seq_from, max(seq) AS seq_to, count(*) AS rows,
                    count(*) FILTER (WHERE {}) AS rows_in_period, min(arrived) AS arrived,
                    min(seq) FILTER (WHERE young) AS young
             FROM (
                 SELECT source, seq, arrived, young,
                        seq - dense_rank() OVER (PARTITION BY source ORDER BY seq) AS island
                 FROM ({}) AS numbers
             ) AS marked
             GROUP BY source, island
             ORDER BY source, min(seq)",
            self.within_period(),
            numbers.join(" UNION ALL ")
        )
    }

    /// The next sources by name.
    async fn sources(&self, connection: &mut PgConnection, after: i32) -> Result<Vec<Named>, StoreError> {
        let rows = sqlx::query(
            "SELECT source, terminal_id, boot, first_seen
             FROM source
             WHERE source > $1
               AND ($2::int4[] IS NULL OR source = ANY ($2))
             ORDER BY source
             LIMIT $3",
        )
        .bind(after)
        .bind(self.asked.as_deref())
        .bind(SOURCES_MAX)
        .fetch_all(connection)
        .await?;
        let named = |row: &PgRow| {
            Ok(Named {
                source: row.try_get("source")?,
                terminal: row.try_get("terminal_id")?,
                boot: row.try_get("boot")?,
                first_seen: row.try_get::<OffsetDateTime, _>("first_seen")?.into(),
            })
        };
        rows.iter().map(named).collect()
    }

    /// Takes the ranges of sources up to `last` from the cursor.
    async fn take_islands(
        &mut self,
        connection: &mut PgConnection,
        last: i32,
    ) -> Result<Vec<Island>, StoreError> {
        let mut taken = Vec::new();
        loop {
            let end = self.ahead.partition_point(|island| island.source <= last);
            taken.extend(self.ahead.drain(..end));
            if self.ended || !self.ahead.is_empty() {
                return Ok(taken);
            }
            let sql = format!("FETCH {FETCH} FROM islands");
            let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut *connection).await?;
            self.ended = rows.is_empty();
            for row in &rows {
                self.ahead.push(Island {
                    source: row.try_get("source")?,
                    from: row.try_get("seq_from")?,
                    to: row.try_get("seq_to")?,
                    rows: row.try_get("rows")?,
                    rows_in_period: row.try_get("rows_in_period")?,
                    arrived: row.try_get::<OffsetDateTime, _>("arrived")?.into(),
                    young: row.try_get("young")?,
                });
            }
        }
    }

    async fn judge(&mut self, connection: &mut PgConnection, sources: &[Named]) -> Result<(), StoreError> {
        let last = sources.last().map_or(i32::MAX, |named| named.source);
        let islands = self.take_islands(connection, last).await?;
        let ids: Vec<i32> = sources.iter().map(|named| named.source).collect();
        let mut books: BTreeMap<i32, Books> = ids.iter().map(|source| (*source, Books::default())).collect();
        let mut in_period: BTreeMap<i32, i64> = BTreeMap::new();
        let mut twice: BTreeMap<i32, (i64, i64, u64)> = BTreeMap::new();
        for island in islands {
            let Some(book) = books.get_mut(&island.source) else {
                self.enter_orphan(&island);
                continue;
            };
            book.stored.insert(island.from, island.to);
            book.arrived.push(island.arrived);
            // They come in the order of their numbers.
            book.young = book.young.or(island.young);
            *in_period.entry(island.source).or_default() += island.rows_in_period;
            let surplus = (island.rows - (island.to - island.from + 1)).max(0).unsigned_abs();
            if surplus > 0 {
                let seen = twice.entry(island.source).or_insert((island.from, island.to, 0));
                *seen = (seen.0, island.to, seen.2 + surplus);
            }
        }
        let filled = side_books(connection, &ids, &mut books, &self.by, &self.floors.own).await?;
        for named in sources {
            let Some(book) = books.get_mut(&named.source) else { continue };
            // What was in quarantine alone has no device time in the ledger.
            book.time_first = Some(book.time_first.map_or(named.first_seen, |at| at.min(named.first_seen)));
            let arrived = in_period.get(&named.source).copied().unwrap_or_default();
            self.report.filled_late += filled.get(&named.source).copied().unwrap_or_default();
            if self.deciding.contains(&named.source)
                && let Some(last) = book.last_known()
            {
                self.last_known.insert(named.source, last);
            }
            self.enter(named, book, arrived);
            if let Some((from, to, rows)) = twice.get(&named.source) {
                self.report.used_twice += rows;
                if self.report.used_twice_at.len() < GAPS_NAMED_MAX {
                    let (terminal, boot) = (named.terminal.clone(), named.boot);
                    self.report.used_twice_at.push(UsedTwice {
                        terminal,
                        boot,
                        from: *from,
                        to: *to,
                        rows: *rows,
                    });
                }
            }
        }
        Ok(())
    }

    /// Boots of which nothing came.
    fn enter_lost(&mut self) {
        for teller in std::mem::take(&mut self.tellers) {
            let missing = teller.missing(&self.last_known);
            if missing.is_empty() || !self.by.covers(teller.noted) {
                continue;
            }
            self.enter_source(&teller.terminal);
            let (noted, outcome) = (Some(teller.noted), self.by.outcome(Some(teller.noted)));
            for (from, to) in missing.as_slice() {
                let gap = Gap { from: *from, to: *to, tail: true, noted, outcome };
                self.report.enter_gap(&teller.terminal, teller.boot, &gap);
            }
        }
    }

    fn enter_orphan(&mut self, island: &Island) {
        self.orphans.insert(island.source);
        let numbers = (island.to - island.from).unsigned_abs() + 1;
        self.report.ledger_ahead = self.report.ledger_ahead.saturating_add(numbers);
    }

    /// Rows and books of sources that are gone: nobody can say whose they are.
    async fn enter_orphans(&mut self, connection: &mut PgConnection) -> Result<(), StoreError> {
        for island in self.take_islands(connection, i32::MAX).await? {
            self.enter_orphan(&island);
        }
        if self.asked.is_some() {
            return Ok(());
        }
        let claimed: i64 = sqlx::query_scalar(
            "SELECT least(coalesce(sum(upper(range)::numeric - lower(range)), 0), 9e18)::int8
             FROM sequence_ledger AS ledger
             CROSS JOIN LATERAL unnest(accounted) AS range
             WHERE NOT EXISTS (SELECT FROM source WHERE source.source = ledger.source)
               AND source <> ALL ($1)",
        )
        .bind(self.orphans.iter().copied().collect::<Vec<_>>())
        .fetch_one(connection)
        .await?;
        self.report.ledger_ahead = self.report.ledger_ahead.saturating_add(claimed.unsigned_abs());
        Ok(())
    }

    fn enter_source(&mut self, terminal: &String) {
        self.report.sources += 1;
        // Sources of a terminal often follow each other.
        if self.terminal_last.as_ref() != Some(terminal) {
            self.terminals.insert(terminal.clone());
            self.terminal_last = Some(terminal.clone());
        }
    }

    /// Enters one source into the report.
    fn enter(&mut self, named: &Named, book: &Books, rows_in_period: i64) {
        let verdict = book.judge(&self.by);
        let report = &mut self.report;
        report.numbers_stored = report.numbers_stored.saturating_add(book.stored.count());
        let quarantined = book.quarantined.minus(&book.stored).count();
        report.numbers_quarantined = report.numbers_quarantined.saturating_add(quarantined);
        report.deleted_by_retention = report.deleted_by_retention.saturating_add(verdict.deleted.count());
        report.ledger_ahead = report.ledger_ahead.saturating_add(verdict.ahead.count());
        report.ledger_coarse += u64::from(verdict.coarse);
        if !verdict.coarse {
            report.ledger_behind = report.ledger_behind.saturating_add(verdict.behind.count());
        }
        let always = self.scope.from.is_none() && self.scope.to.is_none();
        if rows_in_period > 0 || !verdict.gaps.is_empty() || (always && quarantined > 0) {
            self.enter_source(&named.terminal);
        }
        for gap in &verdict.gaps {
            self.report.enter_gap(&named.terminal, named.boot, gap);
        }
        if self.repair && !(verdict.behind.is_empty() && verdict.ahead.is_empty()) {
            let source = SourceId(named.source);
            self.mends.push(Mend { source, add: verdict.behind, remove: verdict.ahead });
        }
    }
}

/// In words of SQL.
fn moment(at: Timestamp) -> String {
    format!("timestamptz 'epoch' + {} * interval '1 microsecond'", at.micros())
}
