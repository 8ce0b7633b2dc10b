//! What the gate hands over: messages and presence, in one bounded channel, in order per client.

use std::sync::Arc;

use bytes::Bytes;

use crate::ack::Ack;

/// One item of the channel from the gate to its consumer.
#[derive(Debug)]
pub enum Inbound {
    /// A client published, or its last will was due.
    Publish(Publish),
    /// A terminal came or went.
    Presence(PresenceChange),
    /// A terminal has a subscription on which deliveries reach it: its SUBACK, or the CONNACK of a session it
    /// resumed, is on its way.
    Listening {
        /// Which terminal.
        client_id: Arc<str>,
    },
    /// What a terminal says is dropped from here on, since there is no room for it: nothing is known of it until its
    /// next message or its next connection. Sent for principals of kind terminal, once until then.
    Muted {
        /// Which terminal.
        client_id: Arc<str>,
        /// Since when, in microseconds since 1970.
        at_us: i64,
    },
}

/// A published message that its client was allowed to publish.
#[derive(Debug)]
pub struct Publish {
    /// Who published it.
    pub client_id: Arc<str>,
    /// Where to: well-formed UTF-8 without wildcards, within the client's publish filters.
    pub topic: Arc<str>,
    /// At most 1 MiB ([`GateConfig::payload_bytes_max`](crate::GateConfig)).
    pub payload: Bytes,
    /// Of the publish packet.
    pub qos: QoS,
    /// Whether the client asked for it to be retained.
    pub retain: bool,
    /// When it was read from the socket, in microseconds since 1970.
    pub arrived_us: i64,
    /// The connection it came on, see [`PresenceChange::epoch`].
    pub epoch: u64,
    /// What an MQTT 5 client sent along, if anything.
    pub properties: Option<Box<Properties>>,
    /// To be told when everything it causes is committed.
    pub ack: Ack,
}

/// Properties of an MQTT 5 publish that travel on to subscribers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Properties {
    /// 1 if the payload is UTF-8.
    pub payload_format: Option<u8>,
    /// Seconds after which the message is worthless.
    pub expiry_s: Option<u32>,
    /// MIME type by convention.
    pub content_type: Option<String>,
    /// Where an answer is expected.
    pub response_topic: Option<String>,
    /// What an answer should carry.
    pub correlation: Option<Bytes>,
    /// Free pairs of name and value.
    pub user: Vec<(String, String)>,
}

impl Properties {
    /// About what they cost in a packet.
    pub(crate) fn bytes(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, |text| text.len() + 3);
        let user: usize = self.user.iter().map(|(name, value)| name.len() + value.len() + 5).sum();
        let correlation = self.correlation.as_ref().map_or(0, |bytes| bytes.len() + 3);
        16 + text(&self.content_type) + text(&self.response_topic) + correlation + user
    }
}

/// A terminal came or went. Sent for principals of kind terminal, before its first and after its last message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresenceChange {
    /// Which terminal.
    pub client_id: Arc<str>,
    /// Whether it is connected now.
    pub online: bool,
    /// Why.
    pub reason: Reason,
    /// When, in microseconds since 1970.
    pub at_us: i64,
    /// When bytes came from it last, in microseconds since 1970: before `at_us` if it fell silent.
    pub heard_us: i64,
    /// Number of the connection, growing over all connections of a gate: an offline of an older epoch than
    /// the last online says nothing about the present.
    pub epoch: u64,
}

/// Delivery promised for a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QoS {
    /// 0: no acknowledgement.
    AtMostOnce,
    /// 1: PUBACK.
    AtLeastOnce,
    /// 2: PUBREC, PUBREL, PUBCOMP.
    ExactlyOnce,
}

/// Why a connection began or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// It began.
    Connected,
    /// The client said goodbye.
    Disconnected,
    /// The client said goodbye and asked for its last will (MQTT 5).
    DisconnectedWithWill,
    /// The connection broke without a goodbye.
    Gone,
    /// Nothing came for 1.5 times the keep-alive.
    KeepAlive,
    /// Another connection took the client id.
    TakenOver,
    /// It broke the protocol.
    Protocol,
    /// It used a topic alias it may not use.
    TopicAlias,
    /// It published where it may not.
    NotAuthorized,
    /// It sent more than a packet may hold.
    TooLarge,
    /// It sent more unacknowledged messages than it may.
    ReceiveMaximum,
    /// A message of it could not be committed: it is to send again.
    AckFailed,
    /// The store is back and messages of it had been dropped unacknowledged: it is to send again.
    Resend,
    /// It did not read what was sent to it.
    Slow,
    /// The hub lost its subscriptions.
    HubLost,
    /// It may not be connected any more: switched off, its secret or certificate withdrawn.
    Revoked,
    /// It sent more than its rate allows for so long that slowing it down did not help.
    RateLimit,
    /// The gate is stopping.
    Stopping,
}

impl Reason {
    /// One word for logs, metrics and presence messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Disconnected => "disconnected",
            Self::DisconnectedWithWill => "disconnected_with_will",
            Self::Gone => "gone",
            Self::KeepAlive => "keep_alive",
            Self::TakenOver => "taken_over",
            Self::Protocol => "protocol",
            Self::TopicAlias => "topic_alias",
            Self::NotAuthorized => "not_authorized",
            Self::TooLarge => "too_large",
            Self::ReceiveMaximum => "receive_maximum",
            Self::AckFailed => "ack_failed",
            Self::Resend => "resend",
            Self::Slow => "slow",
            Self::HubLost => "hub_lost",
            Self::Revoked => "revoked",
            Self::RateLimit => "rate_limit",
            Self::Stopping => "stopping",
        }
    }

    /// Whether the last will is published after such an end. The ends that the server caused without the
    /// client's doing leave it out: the client is alive and comes back at once.
    pub(crate) fn publishes_will(self) -> bool {
        !matches!(self, Self::Disconnected | Self::AckFailed | Self::Resend | Self::HubLost | Self::Stopping)
    }
}
