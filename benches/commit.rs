//! From decoded readings to committed rows, against the limit: raw COPY BINARY of the same rows into the same
//! table, by the same kind of connection, in the same run. `cargo bench --bench commit`

mod support;

use std::time::{Duration, Instant};

use domain::Timestamp;
use prometheus_client::registry::Registry;
use store::testing::TestDatabase;
use store::{Item, StoreMetrics, Writer};

const ROUNDS: i64 = 40;
const LIFTS: i64 = 5_000;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    println!("{:>10} {:>14} {:>14} {:>8}", "rows", "writer us/row", "raw us/row", "ratio");
    for batch in [100, 1_000, 5_000] {
        let test = TestDatabase::new().await;
        let database = test.open().await;
        let mut writer = Writer::new(&database, StoreMetrics::register(&mut Registry::default()).into());
        let now: Timestamp = time::OffsetDateTime::now_utc().into();
        let begin = now.minus(Duration::from_mins(10));
        let mut next = 0;
        let mut items = || {
            let items: Vec<_> =
                (next..next + batch).map(|n| Item::Message(support::incoming(n, LIFTS, begin))).collect();
            next += batch;
            items
        };
        // Connection, sources and the first chunk.
        for _ in 0..=(LIFTS / batch) {
            writer.commit(&items()).await.expect("commit");
        }
        let (mut written, mut raw, mut rows) = (Duration::ZERO, Duration::ZERO, 0_u64);
        for _ in 0..ROUNDS {
            let items = items();
            let began = Instant::now();
            let report = writer.commit(&items).await.expect("commit");
            written += began.elapsed();
            rows += report.rows_stored;
            let (first, last) = (arrival(items.first()), arrival(items.last()));
            raw += support::raw_copy::of_arrivals(database.pool(), first, last).await;
        }
        assert_eq!(rows, (ROUNDS * batch).cast_unsigned(), "every row was new");
        let per_row = |spent: Duration| spent.as_secs_f64() * 1e6 / rows as f64;
        let (writer_us, raw_us) = (per_row(written), per_row(raw));
        println!("{batch:>10} {writer_us:>14.2} {raw_us:>14.2} {:>8.2}", writer_us / raw_us);
    }
}

fn arrival(item: Option<&Item>) -> i64 {
    match item {
        Some(Item::Message(incoming)) => incoming.arrival.no.0,
        _ => 0,
    }
}
