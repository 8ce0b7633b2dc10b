//! The disk of the database is full.

use store::testing::TestCluster;

use super::{acked_more, all_connected, fleet, until_not_ready};
use crate::harness::{Server, eventually};
use crate::reconcile::reconcile;

#[tokio::test]
async fn a_full_disk_makes_acknowledgements_wait_until_there_is_room() {
    let Some(cluster) = TestCluster::on_disk(320).await else {
        println!("SKIPPED: this account may not mount a disk");
        return;
    };
    let server = Server::start(cluster.url()).await;
    let ledger = tempfile::NamedTempFile::new().expect("a file");
    let fleet = fleet(&server, ledger.path()).await;
    acked_more(&fleet, 1_000).await;
    all_connected(&fleet).await;
    cluster.disk_fill();
    // What is preallocated takes rows for a while. Then a table cannot grow (53100), or the write-ahead log cannot:
    // that stops PostgreSQL as a crash would.
    let why = until_not_ready(&server).await;
    let words = ["disk of the database is full", "cannot be reached", "cannot serve now", "does not answer"];
    assert!(words.iter().any(|word| why.contains(word)), "{why}");
    assert_eq!(server.get("/livez").await.0, 200);
    assert_eq!(fleet.counters().connected, 50, "connections are kept");
    cluster.disk_free();
    // As its operator would, where it has ended.
    cluster.start().await;
    acked_more(&fleet, 2_000).await;
    eventually("ready again", async || (server.get("/readyz").await.0 == 200).then_some(())).await;
    let report = fleet.stop().await;
    reconcile(cluster.url(), &report, ledger.path()).await;
}
