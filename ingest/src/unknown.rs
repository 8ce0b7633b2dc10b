//! What terminals say that their profiles do not know: counted always, told at a limited rate.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::{Code, Message, TerminalId};

use crate::decode::Decoded;
use crate::metrics::IngestMetrics;
use crate::profile::Profile;

/// Between two lines of the log. What comes meanwhile is counted and told with the next.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// Names of unknown profiles that are told, each once. Full: the metric counts them all the same.
const PROFILES_TOLD_MAX: usize = 64;

/// Counts and tells.
#[derive(Debug, Default)]
pub(crate) struct Unknowns {
    told: Option<Instant>,
    untold: u64,
    profiles: HashSet<Arc<str>>,
}

/// Codes of a message that have no meaning.
fn unknown(message: &Message) -> impl Iterator<Item = &Code> {
    let (readings, events) = match message {
        Message::Telemetry(batch) => (Some(batch), None),
        Message::Event(batch) => (None, Some(batch)),
        Message::Statistics(_) => (None, None),
    };
    let listed =
        readings.into_iter().flat_map(|batch| &batch.readings).filter_map(|one| one.codes.as_ref().known());
    let active = events.into_iter().filter_map(|batch| batch.active.as_ref());
    let told = events.into_iter().flat_map(|batch| &batch.events).map(|event| &event.code);
    // `unknown_code` sent as such is a meaning.
    listed
        .chain(active)
        .flatten()
        .chain(told)
        .filter(|code| code.fault.slug == "unknown_code" && &*code.raw != "unknown_code")
}

impl Unknowns {
    /// A terminal whose profile is not known is read with the canonical one.
    pub(crate) fn profile(&mut self, name: &Arc<str>, metrics: &IngestMetrics) {
        metrics.unknown_profile.inc();
        if self.profiles.len() < PROFILES_TOLD_MAX && !self.profiles.contains(name) {
            self.profiles.insert(name.clone());
            tracing::warn!(
                profile = %name,
                "the registry names a profile that is not known: its terminals are read with gb24476"
            );
        }
    }

    /// Counts what of a message has no meaning.
    pub(crate) fn count(
        &mut self,
        decoded: &Decoded,
        profile: &Profile,
        terminal_id: &TerminalId,
        metrics: &IngestMetrics,
    ) {
        if decoded.unmapped > 0 {
            let label = vec![("profile", profile.name().clone())];
            metrics.unmapped_values.get_or_create(&label).inc_by(u64::from(decoded.unmapped));
        }
        let mut codes = unknown(&decoded.message);
        let Some(first) = codes.next() else { return };
        let count = 1 + codes.count() as u64;
        metrics.unknown_codes.get_or_create(&vec![("profile", profile.name().clone())]).inc_by(count);
        self.untold += count;
        if self.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            tracing::warn!(
                profile = %profile.name(), terminal_id = %terminal_id, code = %first.raw, codes = self.untold,
                "codes without a meaning are kept as they are"
            );
            self.told = Some(Instant::now());
            self.untold = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ProfileView, decode};
    use prometheus_client::registry::Registry;

    #[test]
    fn codes_without_a_meaning_are_counted_by_profile() {
        let metrics = IngestMetrics::new(&mut Registry::default());
        let mut unknowns = Unknowns::default();
        let view = ProfileView::canonical();
        let mut take = |channel: &str, payload: &str| {
            let decoded =
                decode(&format!("lift/v1/350102/t1/{channel}.json"), payload.as_bytes(), view).unwrap();
            let terminal_id = decoded.topic.terminal_id.clone();
            unknowns.count(&decoded, view.profile, &terminal_id, &metrics);
        };
        take("telemetry", r#"{"time":1,"codes":["F1",5]}"#);
        take("event", r#"{"events":[{"time":1,"code":"F2","state":"open"}],"active":["F3","entrapment"]}"#);
        take("telemetry", r#"{"time":1,"codes":["unknown_code"]}"#);
        let label = vec![("profile", view.profile.name().clone())];
        assert_eq!(metrics.unknown_codes.get_or_create(&label).get(), 3);
    }
}
