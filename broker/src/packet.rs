//! Packets of either version of MQTT as the session sees them.
//!
//! Only what the session decides on; everything else stays in the codec.

use std::sync::Arc;

use bytes::Bytes;

use crate::auth::Protocol;
use crate::inbound::{Properties, QoS, Reason};

/// The first packet of a connection.
#[derive(Debug)]
pub(crate) struct Connect {
    pub(crate) protocol: Protocol,
    pub(crate) client_id: String,
    /// Nothing of an earlier session is wanted.
    pub(crate) clean: bool,
    /// How long the session is to live without connection, in seconds.
    pub(crate) expiry_s: u32,
    pub(crate) keep_alive_s: u16,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<Bytes>,
    pub(crate) will: Option<Box<Will>>,
    /// QoS 1 messages the client takes at once.
    pub(crate) receive_max: u16,
    /// Bytes of one packet the client takes.
    pub(crate) packet_bytes_max: u32,
    /// Asks for an authentication exchange (MQTT 5 AUTH), which is not offered.
    pub(crate) enhanced_auth: bool,
}

/// What is published for a client that ends without saying goodbye.
#[derive(Debug, Clone)]
pub(crate) struct Will {
    pub(crate) topic: Arc<str>,
    pub(crate) payload: Bytes,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) properties: Option<Box<Properties>>,
    /// From the end of the connection to its publication, in seconds.
    pub(crate) delay_s: u32,
}

/// A packet after CONNECT.
#[derive(Debug, Clone)]
pub(crate) enum Packet {
    Publish(PublishPacket),
    PubAck(u16),
    PubRel(u16),
    Subscribe {
        pkid: u16,
        filters: Vec<Wanted>,
        /// Subscription identifier; 0 for none.
        identifier: u32,
    },
    Unsubscribe {
        pkid: u16,
        filters: Vec<String>,
    },
    PingReq,
    Disconnect {
        with_will: bool,
        /// A new life of the session, in seconds.
        expiry_s: Option<u32>,
    },
    /// One that a client never sends here: a second CONNECT, a server's packet, PUBREC and PUBCOMP (nothing is
    /// sent to it with QoS 2).
    Unexpected,
}

#[derive(Debug, Clone)]
pub(crate) struct PublishPacket {
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) topic: Bytes,
    pub(crate) pkid: u16,
    pub(crate) payload: Bytes,
    pub(crate) properties: Option<Box<Properties>>,
    /// Topic alias (MQTT 5).
    pub(crate) alias: Option<u16>,
}

/// One line of a SUBSCRIBE.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) filter: String,
    pub(crate) qos: QoS,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    pub(crate) retained: RetainedWish,
}

/// Whether a subscriber wants what is retained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RetainedWish {
    Always,
    IfNew,
    Never,
}

/// A packet from us, except PUBLISH and CONNACK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    PubAck(u16),
    PubRec(u16),
    PubComp {
        pkid: u16,
        known: bool,
    },
    SubAck {
        pkid: u16,
        codes: Vec<SubCode>,
    },
    UnsubAck {
        pkid: u16,
        existed: Vec<bool>,
    },
    PingResp,
    /// MQTT 5 only; 3.1.1 has no such packet from a server.
    Disconnect(Reason),
}

/// Answer to one line of a SUBSCRIBE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SubCode {
    Granted(QoS),
    NotAuthorized,
    FilterInvalid,
    SharedNotOffered,
    QuotaExceeded,
}

/// Answer to a CONNECT.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConnectCode {
    #[default]
    Accepted,
    BadProtocolVersion,
    BadClientId,
    BadCredentials,
    NotAuthorized,
    Unavailable,
    TooOften,
    BadAuthMethod,
}

/// CONNACK with what the client must know.
#[derive(Debug, Default)]
pub(crate) struct ConnAck {
    pub(crate) code: ConnectCode,
    pub(crate) receive_max: u16,
    pub(crate) packet_bytes_max: u32,
    pub(crate) topic_alias_max: u16,
    pub(crate) assigned_id: Option<String>,
    pub(crate) session_present: bool,
    /// The life of the session, if it is not what the client asked for.
    pub(crate) expiry_s: Option<u32>,
    /// The keep-alive, if it is not what the client asked for.
    pub(crate) keep_alive_s: Option<u16>,
    pub(crate) wildcards: bool,
}

/// A message for a client.
#[derive(Debug)]
pub(crate) struct Message {
    /// Well-formed UTF-8.
    pub(crate) topic: Bytes,
    pub(crate) payload: Bytes,
    pub(crate) retain: bool,
    /// Subscription identifier (MQTT 5); 0 for none.
    pub(crate) identifier: u32,
    pub(crate) properties: Option<Arc<Properties>>,
    /// When the server received it; nothing for its own.
    pub(crate) arrived_us: Option<i64>,
    pub(crate) expires_us: Option<i64>,
}

/// A PUBLISH to a client.
#[derive(Debug)]
pub(crate) struct Outgoing<'a> {
    pub(crate) message: &'a Message,
    /// 0 for QoS 0, otherwise QoS 1.
    pub(crate) pkid: u16,
    pub(crate) dup: bool,
    /// What is left of its life.
    pub(crate) expiry_s: Option<u32>,
}
