//! The limit: raw COPY BINARY of rows into the table they are in.

use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use sqlx::postgres::PgPoolCopyExt;
use sqlx::{AssertSqlSafe, PgPool};

use super::run::CpuMark;

/// What it cost.
#[derive(Debug, Default)]
pub(crate) struct RawCopy {
    pub(crate) rows: u64,
    pub(crate) spent: Duration,
    /// Seconds of PostgreSQL's CPU.
    pub(crate) postgres: f64,
}

impl RawCopy {
    /// Wall clock of a row, us.
    pub(crate) fn us(&self) -> f64 {
        self.spent.as_secs_f64() * 1e6 / self.rows as f64
    }

    /// PostgreSQL's CPU of a row, us.
    pub(crate) fn cpu_us(&self) -> f64 {
        self.postgres * 1e6 / self.rows as f64
    }
}

/// Takes the rows of these arrivals out as COPY BINARY, deletes them, and times putting the same bytes back.
pub(crate) async fn of_arrivals(pool: &PgPool, first: i64, last: i64) -> Duration {
    put_back(pool, &format!("WHERE arrival_no BETWEEN {first} AND {last}"), "").await.spent
}

/// The same with rows of a backlog, 40 times 100 elevators with 50 seconds each: what one connection can do that has
/// its bytes ready.
pub(crate) async fn of_backlog(pool: &PgPool, database: &str) -> RawCopy {
    let (first, begin): (i64, time::OffsetDateTime) =
        sqlx::query_as("SELECT min(elevator_id), min(time) FROM telemetry")
            .fetch_one(pool)
            .await
            .expect("rows");
    let begin = begin.unix_timestamp();
    let mut raw = RawCopy::default();
    for turn in 0..40 {
        let (elevator, second) = (first + turn % 5 * 100, begin + 60 + turn / 5 * 50);
        let wanted = format!(
            "WHERE elevator_id BETWEEN {elevator} AND {} AND time > to_timestamp({second}) AND time <= to_timestamp({})",
            elevator + 99,
            second + 50,
        );
        let one = put_back(pool, &wanted, database).await;
        raw.spent += one.spent;
        raw.postgres += one.postgres;
        raw.rows += one.rows;
    }
    raw
}

async fn put_back(pool: &PgPool, wanted: &str, database: &str) -> RawCopy {
    let select = format!("SELECT * FROM telemetry {wanted} ORDER BY elevator_id, time, seq, source");
    let copied =
        pool.copy_out_raw(&format!("COPY ({select}) TO STDOUT (FORMAT binary)")).await.expect("copy out");
    let bytes: Vec<_> = copied.try_collect().await.expect("copy out");
    let bytes = bytes.concat();
    sqlx::query(AssertSqlSafe(format!("DELETE FROM telemetry {wanted}")))
        .execute(pool)
        .await
        .expect("delete");
    let (cpu, began) = (CpuMark::now(None, database), Instant::now());
    let mut copy = pool.copy_in_raw("COPY telemetry FROM STDIN (FORMAT binary)").await.expect("copy in");
    copy.send(bytes).await.expect("send");
    let rows = copy.finish().await.expect("finish");
    let spent = began.elapsed();
    RawCopy { rows, spent, postgres: CpuMark::now(None, database).since(&cpu).postgres }
}
