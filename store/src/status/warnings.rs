//! What needs somebody: a pure function of what was read.

use serde::Serialize;

use super::{StoreStatus, TableStatus};
use crate::StoreConfig;

/// Something that needs somebody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// Stable name.
    pub code: &'static str,
    /// What is the matter.
    pub text: String,
    /// What to do.
    pub advice: String,
}

/// Rows of a chunk that is written to: below it planning costs more than it saves, above it its indexes leave
/// memory.
const CHUNK_ROWS: std::ops::RangeInclusive<i64> = 1_000_000..=10_000_000;
/// A week of the usual six hours.
const CHUNKS_MANY: i64 = 30;
/// The rollup by minute runs 5 minutes behind, every minute.
const LAG_S_MAX: u64 = 15 * 60;
/// Rows deleted and not vacuumed: more than a fifth of the table, and more than this.
const DEAD_ROWS_MIN: i64 = 100_000;
/// Of 2 billion transactions.
const FROZEN_AGE_MAX: i64 = 1_000_000_000;
/// A transaction so old keeps vacuum from its work.
const TRANSACTION_S_MAX: i64 = 3_600;
/// A standby so far behind.
const BEHIND_BYTES_MAX: i64 = 1 << 30;

pub(super) fn warnings(status: &StoreStatus, config: &StoreConfig) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let mut warn = |code, text: String, advice: &str| {
        warnings.push(Warning { code, text, advice: advice.to_owned() });
    };
    if !status.schema.pending.is_empty() {
        let pending: Vec<String> = status.schema.pending.iter().map(i64::to_string).collect();
        warn(
            "schema_pending",
            format!("migrations {} are not applied", pending.join(", ")),
            "run liftwatch db migrate, or start the server",
        );
    }
    if status.schema.applied > Some(status.schema.known) {
        warn(
            "schema_newer",
            format!(
                "the schema has migration {}, which this version does not know",
                status.schema.applied.unwrap_or(0)
            ),
            "use the newer liftwatch",
        );
    }
    let setting = |name: &str| status.server.settings.get(name).map(String::as_str);
    for (name, code) in [("fsync", "fsync_off"), ("full_page_writes", "full_page_writes_off")] {
        if setting(name) == Some("off") {
            warn(
                code,
                format!(
                    "{name} is off: after a power cut the database may be lost, and with it what was acknowledged"
                ),
                "set it on in postgresql.conf and restart the server",
            );
        }
    }
    if matches!(setting("synchronous_commit"), Some("off" | "local")) {
        warn(
            "synchronous_commit_off",
            "synchronous_commit is not on; Liftwatch sets it for itself, other writers of this server lose commits"
                .to_owned(),
            "set it on in postgresql.conf",
        );
    }
    if status.edition == "apache" && setting("timescaledb.license") == Some("timescale") {
        warn(
            "edition_unused",
            "the server is of the Community edition, the database was made with the Apache edition and stays so: \
             nothing goes to the columnstore"
                .to_owned(),
            "nothing, if that is meant; else begin with a new database",
        );
    }
    if setting("autovacuum") == Some("off") || setting("track_counts") == Some("off") {
        warn(
            "autovacuum_off",
            "autovacuum does not run: the server stops after 2 billion transactions, and estimates are wrong"
                .to_owned(),
            "set autovacuum and track_counts on",
        );
    }
    chunks(status, config, &mut warn);
    for table in &status.tables {
        let live = table.rows_estimate.unwrap_or_default();
        if table.dead_rows > DEAD_ROWS_MIN && table.dead_rows > live / 5 {
            warn(
                "autovacuum_behind",
                format!(
                    "{}: {} rows are deleted and not vacuumed, {live} are live",
                    table.name, table.dead_rows
                ),
                "let autovacuum work more: autovacuum_vacuum_cost_limit = 2000; look for old transactions",
            );
        }
    }
    maintenance(status, &mut warn);
    let server = &status.server;
    if server.frozen_age > FROZEN_AGE_MAX {
        warn(
            "wraparound",
            format!("{} transactions are not frozen; the server stops at 2 billion", server.frozen_age),
            "run VACUUM (FREEZE) in this database and find out what keeps autovacuum from it",
        );
    }
    if server.connections * 10 > server.connections_max * 9 {
        warn(
            "connections",
            format!("{} of {} connections are taken", server.connections, server.connections_max),
            "raise max_connections, or lower database.connections_max",
        );
    }
    if let Some(age) = server.oldest_transaction_s.filter(|age| *age > TRANSACTION_S_MAX) {
        warn(
            "old_transaction",
            format!("a transaction has been open for {} minutes and keeps vacuum from its work", age / 60),
            "find it in pg_stat_activity by xact_start and end it",
        );
    }
    for replica in &server.replicas {
        if replica.state != "streaming" || replica.behind_bytes > Some(BEHIND_BYTES_MAX) {
            warn(
                "replica_behind",
                format!(
                    "standby '{}' is {} and {} MiB behind",
                    replica.name,
                    replica.state,
                    replica.behind_bytes.unwrap_or_default() >> 20
                ),
                "look at its log and its network; while it is away, log files stay here",
            );
        }
    }
    warnings
}

/// How many rows a new chunk comes to hold, when they go on coming as they did.
fn chunk_rows(table: &TableStatus) -> Option<i64> {
    let (rows, span_s) = (table.active_chunk_rows?, table.active_chunk_s?);
    Some((rows as f64 * table.chunk_interval_s? as f64 / span_s.max(1) as f64) as i64)
}

/// What to set `store.chunk_hours` to, for the middle of what fits; nothing if it fits, or cannot be judged.
fn chunk_hours(table: &TableStatus) -> Option<i64> {
    let (rows, interval_s, chunks) = (chunk_rows(table)?, table.chunk_interval_s?, table.chunks?);
    // Chunks that are too small cost when there are many.
    let fits = CHUNK_ROWS.contains(&rows) || (rows < *CHUNK_ROWS.start() && chunks < CHUNKS_MANY);
    if fits || rows == 0 {
        return None;
    }
    let hours = interval_s as f64 / 3_600.0 * 4_000_000.0 / rows as f64;
    let hours = (hours.round() as i64).clamp(1, 24 * 7);
    (hours * 3_600 != interval_s).then_some(hours)
}

fn chunks(status: &StoreStatus, config: &StoreConfig, warn: &mut impl FnMut(&'static str, String, &str)) {
    let telemetry = status.tables.iter().find(|table| table.name == "telemetry");
    if let Some(hours) = telemetry.and_then(chunk_hours) {
        let rows = telemetry.and_then(chunk_rows).unwrap_or_default();
        warn(
            "chunk_interval",
            format!("new chunks of telemetry come to hold {rows} rows; 1 to 10 million is best"),
            &format!("set store.chunk_hours = {hours}; new chunks take it, those that exist stay"),
        );
    }
    let retention = &config.retention;
    let table = crate::Kept::Telemetry;
    if retention.shortest(table) != retention.longest(table) && status.edition == "community" {
        warn(
            "division_rollups",
            "divisions keep readings for less: readings that come later than the shortest of them are not rolled up, \
             and rollups are kept alike for all"
                .to_owned(),
            "nothing, if that is meant; else give all divisions one span",
        );
    }
}

fn maintenance(status: &StoreStatus, warn: &mut impl FnMut(&'static str, String, &str)) {
    if let Some(lag_s) = status.rollups.lag_s.filter(|lag| *lag > LAG_S_MAX) {
        let advice = if status.edition == "community" {
            "see that timescaledb.max_background_workers is not 0 and that the refresh job does not fail"
        } else {
            "see that a server runs and what the step 'rollup' says; readings are kept until they are rolled up"
        };
        warn("rollup_behind", format!("the rollup by minute is {} minutes behind", lag_s / 60), advice);
    }
    if let Some(from) = status.deleting_from {
        warn(
            "clock_leapt",
            format!("the database's clock leapt ahead by more than a week; nothing is deleted before {from}"),
            "if it is right now, wait; if not, set it right",
        );
    }
    for step in &status.maintenance {
        if let Some(error) = &step.error {
            warn(
                "maintenance_failed",
                format!("the step '{}' of maintenance failed: {error}", step.step),
                "it is tried again within 5 minutes; if it goes on, the words tell what is missing",
            );
        }
    }
    for job in status.jobs.iter().filter(|job| job.failed_last) {
        let table = job.table.as_deref().unwrap_or("?");
        let error = job.error.as_deref().unwrap_or("it does not say why");
        let advice = if job.failed_after_work {
            "its work is done and committed: PostgreSQL 17.12 refuses only how TimescaleDB ends it, until a \
             TimescaleDB that knows it is installed (docs/storage.md, Editions)"
        } else {
            "the server tries it again; SELECT * FROM timescaledb_information.job_errors tells more"
        };
        warn("job_failed", format!("job {} ({} of {table}) failed: {error}", job.job_id, job.job), advice);
    }
    let due: i64 = status.retention.iter().filter_map(|table| table.chunks_due).sum();
    if due > 100 {
        warn(
            "retention_behind",
            format!("{due} chunks are due to go"),
            "see that a server runs and what the step 'chunks' says",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{JobStatus, ReplicaStatus, RollupStatus, SchemaStatus, ServerStatus, StepStatus};
    use domain::Timestamp;

    fn well() -> StoreStatus {
        let settings =
            [("fsync", "on"), ("full_page_writes", "on"), ("autovacuum", "on"), ("track_counts", "on")];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        StoreStatus {
            at: Timestamp::default(),
            edition: "apache",
            postgresql: "17".into(),
            timescaledb: "2.19.3".into(),
            schema: SchemaStatus { applied: Some(8), known: 8, pending: vec![] },
            tables: vec![TableStatus {
                name: "telemetry".into(),
                chunks: Some(10),
                chunk_interval_s: Some(21_600),
                active_chunk_rows: Some(3_000_000),
                active_chunk_s: Some(21_600),
                rows_estimate: Some(30_000_000),
                ..TableStatus::default()
            }],
            rollups: RollupStatus { lag_s: Some(320), ..RollupStatus::default() },
            retention: vec![],
            maintenance: vec![],
            deleting_from: None,
            jobs: vec![],
            server: ServerStatus {
                connections: 5,
                connections_max: 100,
                settings,
                ..ServerStatus::default()
            },
            warnings: vec![],
        }
    }

    fn codes(change: impl FnOnce(&mut StoreStatus)) -> Vec<&'static str> {
        let mut status = well();
        change(&mut status);
        warnings(&status, &StoreConfig::default()).iter().map(|warning| warning.code).collect()
    }

    #[test]
    fn each_trouble_has_its_warning() {
        assert_eq!(codes(|_| {}), [""; 0]);
        assert_eq!(codes(|status| status.schema.pending = vec![99]), ["schema_pending"]);
        assert_eq!(codes(|status| status.schema.applied = Some(99)), ["schema_newer"]);
        let set = |name: &'static str, value: &'static str| {
            codes(|status| drop(status.server.settings.insert(name.into(), value.into())))
        };
        assert_eq!(set("fsync", "off"), ["fsync_off"]);
        assert_eq!(set("full_page_writes", "off"), ["full_page_writes_off"]);
        assert_eq!(set("synchronous_commit", "off"), ["synchronous_commit_off"]);
        assert_eq!(set("synchronous_commit", "remote_apply"), [""; 0]);
        assert_eq!(set("timescaledb.license", "timescale"), ["edition_unused"]);
        assert_eq!(set("timescaledb.license", "apache"), [""; 0]);
        assert_eq!(set("autovacuum", "off"), ["autovacuum_off"]);
        assert_eq!(codes(|status| status.tables[0].dead_rows = 10_000_000), ["autovacuum_behind"]);
        assert_eq!(codes(|status| status.tables[0].dead_rows = 5_000_000), [""; 0]);
        assert_eq!(codes(|status| status.rollups.lag_s = Some(3_600)), ["rollup_behind"]);
        assert_eq!(codes(|status| status.deleting_from = Some(Timestamp::default())), ["clock_leapt"]);
        assert_eq!(codes(|status| status.server.connections = 95), ["connections"]);
        assert_eq!(codes(|status| status.server.frozen_age = 1_500_000_000), ["wraparound"]);
        assert_eq!(codes(|status| status.server.oldest_transaction_s = Some(7_200)), ["old_transaction"]);
        let replica = |state: &str, behind| ReplicaStatus {
            name: "b".into(),
            state: state.into(),
            sync: "async".into(),
            behind_bytes: Some(behind),
        };
        assert_eq!(codes(|status| status.server.replicas = vec![replica("streaming", 5)]), [""; 0]);
        assert_eq!(codes(|status| status.server.replicas = vec![replica("catchup", 5)]), ["replica_behind"]);
        let step = StepStatus {
            step: "rollup".into(),
            started: Timestamp::default(),
            succeeded: None,
            due: Timestamp::default(),
            runs: 1,
            failures: 1,
            done: 0,
            error: Some("no".into()),
        };
        assert_eq!(codes(|status| status.maintenance = vec![step]), ["maintenance_failed"]);
    }

    #[test]
    fn a_job_that_failed_after_its_work_is_told_from_one_that_failed_in_it() {
        let advice = |failed_after_work| {
            let job = JobStatus {
                job_id: 1_000,
                job: "policy_compression".into(),
                table: Some("telemetry".into()),
                config: None,
                every_s: 60,
                succeeded: None,
                next: None,
                failed_last: true,
                runs: 1,
                failures: 1,
                error: Some("cannot drop portal".into()),
                failed_after_work,
            };
            let told = warnings(&StoreStatus { jobs: vec![job], ..well() }, &StoreConfig::default());
            assert_eq!(told[0].code, "job_failed");
            told[0].advice.clone()
        };
        assert!(advice(true).contains("done and committed"));
        assert!(!advice(false).contains("done and committed"));
    }

    #[test]
    fn the_chunk_interval_is_advised_by_the_rows_of_a_chunk() {
        let changed = |rows: i64, hours: i64, hours_now: i64, chunks: i64, advised: Option<i64>| {
            let table = TableStatus {
                chunks: Some(chunks),
                chunk_interval_s: Some(hours_now * 3_600),
                active_chunk_rows: Some(rows),
                active_chunk_s: Some(hours * 3_600),
                ..TableStatus::default()
            };
            assert_eq!(
                chunk_hours(&table),
                advised,
                "{rows} rows in {hours} h, now {hours_now}, {chunks} chunks"
            );
        };
        let check = |rows, hours, chunks, advised| changed(rows, hours, hours, chunks, advised);
        check(1_000_000, 6, 10, None);
        check(10_000_000, 6, 10, None);
        check(40_000_000, 10, 10, Some(1));
        check(400_000, 6, 30, Some(60));
        check(400_000, 6, 29, None);
        check(0, 6, 10, None);
        check(100_000_000, 1, 10, None); // there is nothing shorter
        check(10, 6, 3, None);
        check(10, 6, 100, Some(168));
        check(10, 168, 100, None);
        // The advice was followed, and the chunks are those of before.
        changed(400_000, 6, 60, 100, None);
        changed(40_000_000, 10, 1, 100, None);
        changed(400_000, 6, 12, 100, Some(60)); // not far enough
    }
}
