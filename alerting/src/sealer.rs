//! The task that seals the evidence of alarms.
//!
//! A reconciler: woken by a timer, it asks the store which alarms wait, seals them, and forgets everything. The
//! moment is due a minute after the alarm, so a hint would only wake it early.

use domain::Timestamp;
use store::{Database, StoreError};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{Clock, Config, Metrics};

/// Alarms looked up at a time: a storm of thousands is worked off in minutes.
const BATCH: u32 = 32;

pub(crate) struct Sealer {
    pub(crate) database: Database,
    pub(crate) clock: Clock,
    pub(crate) config: Config,
    pub(crate) metrics: Metrics,
}

impl Sealer {
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(self.config.seal_every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failing = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            // Cut short at a stop: what was not sealed is found again by the next run.
            let Some(sealed) = stop.run_until_cancelled(self.database.in_time(self.seal())).await else {
                return;
            };
            match sealed {
                Ok(()) if failing => {
                    failing = false;
                    info!("evidence is sealed again");
                }
                Err(failure) if !failing => {
                    failing = true;
                    warn!(
                        error = &failure as &dyn std::error::Error,
                        "evidence cannot be sealed: tried again"
                    );
                }
                _ => {}
            }
        }
    }

    /// Seals what is due. What fails is found again the next time.
    async fn seal(&self) -> Result<(), StoreError> {
        loop {
            let now: Timestamp = self.clock.now();
            let due = self.database.alarm_unsealed(now.minus(self.config.seal_after), BATCH).await?;
            let full = due.len() == BATCH as usize;
            for alarm in due {
                if self.database.alarm_evidence_seal(alarm.id, now).await? {
                    self.metrics.sealed.inc();
                }
            }
            if !full {
                return Ok(());
            }
        }
    }
}
