//! An order as it goes over the wire: the topic a terminal has subscribed to chooses the format.

use domain::{Area, Downlink, SentDownlink, TerminalId, limits};
use serde_json::json;

/// How the payload is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// `liftwatch.telemetry.v1.Downlink`
    Protobuf,
    /// Open JSON.
    Json,
}

pub(super) fn topic(area: Area, terminal_id: &TerminalId, format: Format) -> String {
    let suffix = match format {
        Format::Protobuf => "",
        Format::Json => ".json",
    };
    format!("lift/v1/{area}/{terminal_id}/down{suffix}")
}

pub(super) fn payload(sent: &SentDownlink, format: Format) -> Vec<u8> {
    match format {
        Format::Protobuf => proto::encode::downlink(sent),
        Format::Json => json(sent).to_string().into_bytes(),
    }
}

fn json(sent: &SentDownlink) -> serde_json::Value {
    // Milliseconds, as terminals write them.
    let time = domain::Timestamp::from_millis(sent.sent.millis());
    let mut object = json!({ "id": sent.id.0, "sent": time });
    object[sent.order.kind().slug()] = match sent.order {
        Downlink::ClockSet => json!({ "time": time }),
        Downlink::ReportRate { interval_ms, for_s } => json!({ "interval_ms": interval_ms, "for_s": for_s }),
        Downlink::LiveView => json!({ "lease_s": limits::LIVE_VIEW_LEASE.as_secs() }),
    };
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::DownlinkId;

    #[test]
    fn orders_in_json() {
        let text = |order| {
            let sent = "2026-11-23T03:00:00.123456Z".parse().unwrap();
            let sent = SentDownlink { id: DownlinkId(7), sent, order };
            String::from_utf8(payload(&sent, Format::Json)).unwrap()
        };
        let time = "2026-11-23T03:00:00.123Z";
        assert_eq!(
            text(Downlink::ClockSet),
            format!(r#"{{"clock_set":{{"time":"{time}"}},"id":7,"sent":"{time}"}}"#)
        );
        assert_eq!(
            text(Downlink::ReportRate { interval_ms: 500, for_s: 60 }),
            format!(r#"{{"id":7,"report_rate":{{"for_s":60,"interval_ms":500}},"sent":"{time}"}}"#)
        );
        assert_eq!(
            text(Downlink::LiveView),
            format!(r#"{{"id":7,"live_view":{{"lease_s":60}},"sent":"{time}"}}"#)
        );
        let topic = topic("350102".parse().unwrap(), &TerminalId::new("t1").unwrap(), Format::Json);
        assert_eq!(topic, "lift/v1/350102/t1/down.json");
    }
}
