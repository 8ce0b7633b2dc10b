//! Another database becomes the primary.

use store::testing::TestCluster;

use super::{acked_more, fleet, until_not_ready};
use crate::harness::{Server, eventually};
use crate::reconcile::reconcile;

/// One URL for both, the standby first: it is passed over while it is one.
fn both(primary: &TestCluster, standby: &TestCluster) -> String {
    let socket = |cluster: &TestCluster| {
        let (_, host) = cluster.url().split_once("?host=").expect("a socket");
        host.to_owned()
    };
    format!("postgres://liftwatch@localhost/liftwatch?host={},{}", socket(standby), socket(primary))
}

#[tokio::test]
async fn a_failover_to_a_synchronous_standby_loses_nothing() {
    let primary = TestCluster::new().await;
    let standby = primary.standby().await;
    let server = Server::start(&both(&primary, &standby)).await;
    let ledger = tempfile::NamedTempFile::new().expect("a file");
    let fleet = fleet(&server, ledger.path()).await;
    acked_more(&fleet, 2_000).await;
    primary.kill().await;
    let why = until_not_ready(&server).await;
    assert!(why.contains("standby") || why.contains("reached") || why.contains("serve now"), "{why}");
    standby.promote().await;
    acked_more(&fleet, 3_000).await;
    assert!(server.log().contains("another host is the primary now"), "{}", server.log());
    eventually("the pool has moved too", async || {
        (server.get("/api/v1/elevators").await.0 == 200).then_some(())
    })
    .await;
    let report = fleet.stop().await;
    reconcile(standby.url(), &report, ledger.path()).await;
}
