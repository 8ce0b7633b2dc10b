//! `liftwatch terminal send`: gives an order, and waits for its delivery if asked to.

use std::time::Duration;

use anyhow::bail;
use domain::{Downlink, TerminalId};
use store::{Database, DownlinkFate};

use crate::cli::Order;
use crate::terminal::{actor, moment};

/// Between two looks at what became of an order.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Makes an order of what was asked for.
pub(crate) fn order(order: Order, interval_ms: Option<u32>, for_s: u32) -> anyhow::Result<Downlink> {
    Ok(match (order, interval_ms) {
        (Order::Clock, None) => Downlink::ClockSet,
        (Order::Live, None) => Downlink::LiveView,
        (Order::ReportRate, Some(interval_ms)) => Downlink::report_rate(interval_ms, for_s)?,
        (Order::ReportRate, None) => bail!("a report rate needs --interval MS"),
        (_, Some(_)) => bail!("--interval belongs to report-rate"),
    })
}

/// Gives the order; with `wait`, returns when it is delivered, and fails when it never will be.
pub(crate) async fn send(
    database: &Database,
    id: &TerminalId,
    order: Downlink,
    wait: bool,
) -> anyhow::Result<()> {
    let given = database.downlink_queue(id, order, &actor(), moment()).await?;
    eprintln!("{} {given} waits for {id}", order.kind().slug());
    if !wait {
        return Ok(());
    }
    loop {
        match database.downlink_fate(given, moment()).await? {
            DownlinkFate::Waiting => tokio::time::sleep(LOOK_EVERY).await,
            DownlinkFate::Delivered(at) => {
                eprintln!("acknowledged at {at}");
                return Ok(());
            }
            DownlinkFate::Expired => bail!("the terminal did not come for it in time"),
            DownlinkFate::Gone => bail!("a newer order of its kind took its place"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_belongs_to_a_report_rate_alone() {
        assert_eq!(order(Order::Live, None, 60).unwrap(), Downlink::LiveView);
        assert!(order(Order::Clock, Some(500), 60).is_err());
        assert!(order(Order::ReportRate, None, 60).is_err());
        assert!(order(Order::ReportRate, Some(1), 60).is_err(), "out of range");
    }
}
