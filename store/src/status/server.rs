//! Reads what `status` tells of the server.

use std::collections::BTreeMap;

use sqlx::FromRow;
use sqlx::postgres::PgConnection;
use time::OffsetDateTime;

use super::{ReplicaStatus, ServerStatus};

/// Settings that promises rest upon, or that size what may be stored.
const SETTINGS: [&str; 11] = [
    "synchronous_commit",
    "fsync",
    "full_page_writes",
    "autovacuum",
    "max_worker_processes",
    "timescaledb.license",
    "timescaledb.max_background_workers",
    "shared_buffers",
    "max_wal_size",
    "synchronous_standby_names",
    "track_counts",
];

#[derive(FromRow)]
struct Row {
    started: Option<OffsetDateTime>,
    standby: bool,
    connections: i64,
    connections_here: i64,
    connections_max: i64,
    database_bytes: i64,
    frozen_age: i64,
    oldest_transaction_s: Option<i64>,
}

pub(super) async fn server(connection: &mut PgConnection) -> Result<ServerStatus, sqlx::Error> {
    let row: Row = sqlx::query_as(
        "SELECT pg_postmaster_start_time() AS started,
                pg_is_in_recovery() AS standby,
                (SELECT sum(numbackends)::int8 FROM pg_stat_database) AS connections,
                (SELECT numbackends::int8 FROM pg_stat_database WHERE datname = current_database())
                    AS connections_here,
                current_setting('max_connections')::int8 AS connections_max,
                pg_database_size(current_database()) AS database_bytes,
                (SELECT age(datfrozenxid)::int8 FROM pg_database WHERE datname = current_database()) AS frozen_age,
                (SELECT extract(epoch FROM max(now() - xact_start))::int8
                 FROM pg_stat_activity
                 WHERE pid <> pg_backend_pid() AND backend_type = 'client backend') AS oldest_transaction_s",
    )
    .fetch_one(&mut *connection)
    .await?;
    let (wal_written_bytes, wal_since): (Option<i64>, Option<OffsetDateTime>) =
        sqlx::query_as("SELECT wal_bytes::int8, stats_reset FROM pg_stat_wal")
            .fetch_one(&mut *connection)
            .await?;
    let may_look: bool = sqlx::query_scalar("SELECT has_function_privilege('pg_ls_waldir()', 'EXECUTE')")
        .fetch_one(&mut *connection)
        .await?;
    let wal_disk_bytes: Option<i64> = if may_look {
        sqlx::query_scalar("SELECT sum(size)::int8 FROM pg_ls_waldir()").fetch_one(&mut *connection).await?
    } else {
        None
    };
    Ok(ServerStatus {
        started: row.started.map(Into::into),
        standby: row.standby,
        connections: row.connections,
        connections_here: row.connections_here,
        connections_max: row.connections_max,
        database_bytes: row.database_bytes,
        wal_written_bytes,
        wal_since: wal_since.map(Into::into),
        wal_disk_bytes,
        frozen_age: row.frozen_age,
        oldest_transaction_s: row.oldest_transaction_s,
        settings: BTreeMap::new(),
        replicas: replicas(connection, row.standby).await?,
    })
}

/// As this session has them: one that sets none for itself tells those of the server.
pub(super) async fn settings(connection: &mut PgConnection) -> Result<BTreeMap<String, String>, sqlx::Error> {
    let rows: Vec<(String, String)> = sqlx::query_as(
        "SELECT name, current_setting(name, true)
         FROM unnest($1::text[]) AS name
         WHERE current_setting(name, true) IS NOT NULL",
    )
    .bind(SETTINGS.map(str::to_owned).to_vec())
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().collect())
}

/// Name, state, way of waiting, bytes behind.
type Replica = (String, Option<String>, Option<String>, Option<i64>);

async fn replicas(connection: &mut PgConnection, standby: bool) -> Result<Vec<ReplicaStatus>, sqlx::Error> {
    if standby {
        return Ok(Vec::new());
    }
    // Without the right to look, names are there and the rest is NULL.
    let rows: Vec<Replica> = sqlx::query_as(
        "SELECT coalesce(application_name, ''), state, sync_state,
                pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)::int8
         FROM pg_stat_replication
         ORDER BY application_name",
    )
    .fetch_all(connection)
    .await?;
    let replica = |(name, state, sync, behind_bytes): Replica| {
        let known = |text: Option<String>| text.unwrap_or_else(|| "unknown".to_owned());
        ReplicaStatus { name, state: known(state), sync: known(sync), behind_bytes }
    };
    Ok(rows.into_iter().map(replica).collect())
}
