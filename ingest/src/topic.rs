//! Topics of the wire format: `lift/v1/{area}/{terminal}/{channel}`, with `.json` for the open format.

use domain::{Area, IdError, TerminalId};

/// What a topic carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Channel {
    /// Readings.
    Telemetry,
    /// Faults, events, the alarm button.
    Event,
    /// Counters.
    Stats,
}

/// How the payload is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// `liftwatch.telemetry.v1`.
    Protobuf,
    /// Open JSON.
    Json,
}

/// A topic that a terminal publishes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Division, as the terminal says; the registry has the last word.
    pub area: Area,
    /// The terminal.
    pub terminal_id: TerminalId,
    /// What it carries.
    pub channel: Channel,
    /// How.
    pub format: Format,
}

/// Why a text is no topic of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// Not of the form `lift/v1/{area}/{terminal}/{channel}`.
    #[error("a topic is lift/v1/{{area}}/{{terminal}}/{{channel}}")]
    Shape,
    /// Area or terminal are not valid.
    #[error(transparent)]
    Id(#[from] IdError),
    /// No such channel.
    #[error("the channel is telemetry, event or stats, alone or with .json")]
    Channel,
}

impl std::str::FromStr for Topic {
    type Err = TopicError;
    fn from_str(text: &str) -> Result<Self, TopicError> {
        let rest = text.strip_prefix("lift/v1/").ok_or(TopicError::Shape)?;
        let mut levels = rest.split('/');
        let (Some(area), Some(terminal), Some(channel), None) =
            (levels.next(), levels.next(), levels.next(), levels.next())
        else {
            return Err(TopicError::Shape);
        };
        let (channel, format) = match channel {
            "telemetry" => (Channel::Telemetry, Format::Protobuf),
            "telemetry.json" => (Channel::Telemetry, Format::Json),
            "event" => (Channel::Event, Format::Protobuf),
            "event.json" => (Channel::Event, Format::Json),
            "stats" => (Channel::Stats, Format::Protobuf),
            "stats.json" => (Channel::Stats, Format::Json),
            _ => return Err(TopicError::Channel),
        };
        Ok(Self { area: area.parse()?, terminal_id: TerminalId::new(terminal)?, channel, format })
    }
}

/// Where the presence of a terminal is published, retained.
pub fn presence_topic(area: Area, terminal_id: &TerminalId) -> String {
    format!("lift/v1/{area}/{terminal_id}/presence")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_the_topics_of_a_terminal() {
        let topic: Topic = "lift/v1/350102/T-1/telemetry".parse().unwrap();
        assert_eq!((topic.channel, topic.format), (Channel::Telemetry, Format::Protobuf));
        assert_eq!(topic.terminal_id.as_str(), "T-1");
        let topic: Topic = "lift/v1/350102/T-1/event.json".parse().unwrap();
        assert_eq!((topic.channel, topic.format), (Channel::Event, Format::Json));
        let topic: Topic = "lift/v1/350102/T-1/stats".parse().unwrap();
        assert_eq!((topic.channel, topic.format), (Channel::Stats, Format::Protobuf));
        let topic: Topic = "lift/v1/350102/T-1/stats.json".parse().unwrap();
        assert_eq!((topic.channel, topic.format), (Channel::Stats, Format::Json));
    }

    #[test]
    fn refuses_all_others_with_the_reason() {
        let error = |text: &str| text.parse::<Topic>().unwrap_err();
        assert_eq!(error("lift/v2/350102/T/telemetry"), TopicError::Shape);
        assert_eq!(error("lift/v1/350102/T/telemetry/x"), TopicError::Shape);
        assert_eq!(error("lift/v1/350102/T"), TopicError::Shape);
        assert_eq!(error("lift/v1/fuzhou/T/telemetry"), TopicError::Id(IdError::Area));
        assert_eq!(error("lift/v1/350102/T+/telemetry"), TopicError::Id(IdError::Terminal));
        assert_eq!(error("lift/v1/350102/T/stats.xml"), TopicError::Channel);
    }

    proptest! {
        #[test]
        fn any_text_is_a_topic_or_an_error(text in "\\PC{0,80}") {
            let _ = text.parse::<Topic>();
        }
    }
}
