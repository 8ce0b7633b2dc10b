//! Between bytes and packets: rumqttc's codecs for MQTT 3.1.1 and 5 behind one type.
//!
//! Framing is done on the read buffer; the complete frames of one read are copied into one exact allocation, of
//! which payloads are slices. So a held payload never pins more than what arrived with it, and the read buffer is
//! reused for ever.

use bytes::{Buf, Bytes, BytesMut};
use rumqttc::mqttbytes::{self, v4};
use rumqttc::v5::mqttbytes::{self as mqttbytes5, v5};

use crate::auth::Protocol;
use crate::inbound::{Properties, QoS, Reason};
use crate::packet::{
    ConnAck, Connect, ConnectCode, Outgoing, Packet, PublishPacket, Reply, RetainedWish, SubCode, Wanted,
    Will,
};

/// Name of the user property that tells an MQTT 5 subscriber when the server received a message.
const ARRIVED_PROPERTY: &str = "liftwatch-arrived-us";

/// Why bytes are not a packet, for the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CodecError {
    #[error("packet of {0} bytes is too large")]
    TooLarge(usize),
    #[error("remaining length is malformed")]
    Length,
    #[error("malformed packet: {0}")]
    Malformed(String),
    #[error("not an MQTT CONNECT")]
    NotConnect,
    #[error("protocol level {0} is not supported")]
    Level(u8),
}

impl From<mqttbytes::Error> for CodecError {
    fn from(error: mqttbytes::Error) -> Self {
        Self::Malformed(error.to_string())
    }
}

impl From<mqttbytes5::Error> for CodecError {
    fn from(error: mqttbytes5::Error) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// Length of the frame at the beginning of `bytes`, or `None` if more bytes are needed to tell.
pub(crate) fn frame_len(bytes: &[u8], frame_bytes_max: usize) -> Result<Option<usize>, CodecError> {
    let mut remaining = 0;
    for (i, byte) in bytes.iter().skip(1).take(4).enumerate() {
        remaining |= usize::from(byte & 0x7F) << (7 * i);
        if byte & 0x80 == 0 {
            let len = 2 + i + remaining;
            return if len > frame_bytes_max { Err(CodecError::TooLarge(len)) } else { Ok(Some(len)) };
        }
    }
    if bytes.len() > 4 { Err(CodecError::Length) } else { Ok(None) }
}

/// Bytes of the complete frames at the beginning of `bytes`, and the length of the one after them if it is
/// known.
pub(crate) fn complete(bytes: &[u8], frame_bytes_max: usize) -> Result<(usize, Option<usize>), CodecError> {
    let mut end = 0;
    loop {
        match frame_len(&bytes[end..], frame_bytes_max) {
            Ok(Some(len)) if end + len <= bytes.len() => end += len,
            Ok(next) => return Ok((end, next)),
            // What came before the bad frame is still served.
            Err(_) if end > 0 => return Ok((end, None)),
            Err(error) => return Err(error),
        }
    }
}

/// Whether a frame is a PUBLISH.
pub(crate) fn is_publish(frame: &[u8]) -> bool {
    frame.first().is_some_and(|byte| byte >> 4 == 3)
}

/// Reads a CONNECT frame of either version.
pub(crate) fn read_connect(frame: Bytes) -> Result<Connect, CodecError> {
    let mut head = frame.clone();
    let prefix = 1 + head.iter().skip(1).take_while(|byte| **byte & 0x80 != 0).count() + 1;
    if head.first() != Some(&0x10) || head.len() < prefix + 7 {
        return Err(CodecError::NotConnect);
    }
    head.advance(prefix);
    if &head[..6] != b"\0\x04MQTT" {
        return Err(CodecError::NotConnect);
    }
    let flags = head.get(7).copied().unwrap_or(0);
    // 3.1.2-3 of either version.
    if flags & 1 != 0 {
        return Err(CodecError::Malformed("reserved flag of CONNECT".into()));
    }
    match head[6] {
        // 3.1.2-22 of MQTT 3.1.1.
        4 if flags & 0xC0 == 0x40 => Err(CodecError::Malformed("password without user name".into())),
        4 => {
            let header = mqttbytes::check(frame.iter(), frame.len())?;
            Ok(connect_v4(v4::Connect::read(header, frame)?))
        }
        5 => {
            let header = v5::check(frame.iter(), None)?;
            let (connect, will, login) = v5::Connect::read(header, frame)?;
            connect_v5(connect, will, login)
        }
        level => Err(CodecError::Level(level)),
    }
}

fn connect_v4(connect: v4::Connect) -> Connect {
    let (username, password) = credentials(connect.login.map(|login| (login.username, login.password)));
    Connect {
        protocol: Protocol::V311,
        client_id: connect.client_id,
        clean: connect.clean_session,
        // 3.1.2.4 of MQTT 3.1.1 knows no end.
        expiry_s: if connect.clean_session { 0 } else { u32::MAX },
        keep_alive_s: connect.keep_alive,
        username,
        password,
        will: connect.last_will.map(|will| {
            Box::new(Will {
                topic: will.topic.into(),
                payload: will.message,
                qos: qos_v4(will.qos),
                retain: will.retain,
                properties: None,
                delay_s: 0,
            })
        }),
        receive_max: u16::MAX,
        packet_bytes_max: u32::MAX,
        enhanced_auth: false,
    }
}

fn connect_v5(
    connect: v5::Connect,
    will: Option<v5::LastWill>,
    login: Option<v5::Login>,
) -> Result<Connect, CodecError> {
    let (username, password) = credentials(login.map(|login| (login.username, login.password)));
    let properties = connect.properties.unwrap_or_default();
    let will = will.map(will_v5).transpose()?;
    // 3.1.2.11: zero is a protocol error in both.
    if properties.receive_maximum == Some(0) || properties.max_packet_size == Some(0) {
        return Err(CodecError::Malformed("receive maximum or maximum packet size 0".into()));
    }
    Ok(Connect {
        protocol: Protocol::V5,
        client_id: connect.client_id,
        clean: connect.clean_start,
        expiry_s: properties.session_expiry_interval.unwrap_or(0),
        keep_alive_s: connect.keep_alive,
        username,
        password,
        will: will.map(Box::new),
        receive_max: properties.receive_maximum.unwrap_or(u16::MAX),
        packet_bytes_max: properties.max_packet_size.unwrap_or(u32::MAX),
        enhanced_auth: properties.authentication_method.is_some(),
    })
}

fn will_v5(will: v5::LastWill) -> Result<Will, CodecError> {
    let topic = std::str::from_utf8(&will.topic).map_err(|e| CodecError::Malformed(e.to_string()))?;
    Ok(Will {
        topic: topic.into(),
        payload: will.message,
        qos: qos_v5(will.qos),
        retain: will.retain,
        delay_s: will.properties.as_ref().and_then(|p| p.delay_interval).unwrap_or(0),
        properties: will.properties.map(|p| {
            Box::new(Properties {
                payload_format: p.payload_format_indicator,
                expiry_s: p.message_expiry_interval,
                content_type: p.content_type,
                response_topic: p.response_topic,
                correlation: p.correlation_data,
                user: p.user_properties,
            })
        }),
    })
}

fn credentials(login: Option<(String, String)>) -> (Option<String>, Option<Bytes>) {
    let Some((username, password)) = login else { return (None, None) };
    let password = (!password.is_empty()).then(|| Bytes::from(password));
    ((!username.is_empty()).then_some(username), password)
}

/// Reads one complete frame after CONNECT.
pub(crate) fn read(protocol: Protocol, frame: Bytes) -> Result<Packet, CodecError> {
    // 2.1.3: the flags of every packet but PUBLISH are fixed.
    let flags_wanted = match frame[0] >> 4 {
        3 => frame[0] & 0x0F,
        6 | 8 | 10 => 2,
        _ => 0,
    };
    if frame[0] & 0x0F != flags_wanted {
        return Err(CodecError::Malformed("reserved flags".into()));
    }
    match protocol {
        Protocol::V311 => read_v4(frame),
        Protocol::V5 => read_v5(frame),
    }
}

fn read_v4(frame: Bytes) -> Result<Packet, CodecError> {
    let header = mqttbytes::check(frame.iter(), frame.len())?;
    let empty = frame.len() == 2;
    Ok(match frame[0] >> 4 {
        3 => publish_v4(frame)?,
        4 => Packet::PubAck(v4::PubAck::read(header, frame)?.pkid),
        6 => Packet::PubRel(v4::PubRel::read(header, frame)?.pkid),
        8 => {
            let subscribe = v4::Subscribe::read(header, frame)?;
            let filters = subscribe.filters.into_iter().map(|wanted| Wanted {
                filter: wanted.path,
                qos: qos_v4(wanted.qos),
                no_local: false,
                retain_as_published: false,
                retained: RetainedWish::Always,
            });
            Packet::Subscribe { pkid: subscribe.pkid, filters: filters.collect(), identifier: 0 }
        }
        // The codec computes with the length before it looks at it.
        10 if frame.len() < 6 => return Err(CodecError::Malformed("empty UNSUBSCRIBE".into())),
        10 => {
            let unsubscribe = v4::Unsubscribe::read(header, frame)?;
            Packet::Unsubscribe { pkid: unsubscribe.pkid, filters: unsubscribe.topics }
        }
        12 if empty => Packet::PingReq,
        14 if empty => Packet::Disconnect { with_will: false, expiry_s: None },
        _ => Packet::Unexpected,
    })
}

/// As `v4::Publish::read`, which would copy every topic into a string. Whether the topic is UTF-8 is seen when a
/// connection uses it first.
fn publish_v4(mut frame: Bytes) -> Result<Packet, CodecError> {
    let flags = frame[0];
    let qos = qos_v4(mqttbytes::qos((flags & 0b110) >> 1)?);
    // The length was found to be well-formed.
    let length_len = frame.iter().skip(1).take_while(|byte| **byte & 0x80 != 0).count() + 1;
    frame.advance(1 + length_len);
    let topic_len = usize::from(frame.try_get_u16().map_err(|_| short())?);
    if frame.len() < topic_len {
        return Err(short());
    }
    let topic = frame.split_to(topic_len);
    let pkid = if qos == QoS::AtMostOnce { 0 } else { frame.try_get_u16().map_err(|_| short())? };
    if qos != QoS::AtMostOnce && pkid == 0 {
        return Err(mqttbytes::Error::PacketIdZero.into());
    }
    let retain = flags & 1 != 0;
    let publish = PublishPacket { qos, retain, topic, pkid, payload: frame, properties: None, alias: None };
    Ok(Packet::Publish(publish))
}

fn short() -> CodecError {
    CodecError::Malformed("PUBLISH ends early".into())
}

fn read_v5(frame: Bytes) -> Result<Packet, CodecError> {
    let header = v5::check(frame.iter(), None)?;
    let empty = frame.len() == 2;
    Ok(match frame[0] >> 4 {
        3 => publish_v5(v5::Publish::read(header, frame)?)?,
        4 => Packet::PubAck(v5::PubAck::read(header, frame)?.pkid),
        6 => Packet::PubRel(v5::PubRel::read(header, frame)?.pkid),
        8 => {
            let subscribe = v5::Subscribe::read(header, frame)?;
            let identifier = match subscribe.properties.and_then(|properties| properties.id) {
                // 3.8.2.1.2: zero is a protocol error.
                Some(0) => return Err(CodecError::Malformed("subscription identifier 0".into())),
                identifier => identifier.map_or(0, |id| u32::try_from(id).unwrap_or(u32::MAX)),
            };
            let filters = subscribe.filters.into_iter().map(|wanted| Wanted {
                filter: wanted.path,
                qos: qos_v5(wanted.qos),
                no_local: wanted.nolocal,
                retain_as_published: wanted.preserve_retain,
                retained: match wanted.retain_forward_rule {
                    v5::RetainForwardRule::OnEverySubscribe => RetainedWish::Always,
                    v5::RetainForwardRule::OnNewSubscribe => RetainedWish::IfNew,
                    v5::RetainForwardRule::Never => RetainedWish::Never,
                },
            });
            Packet::Subscribe { pkid: subscribe.pkid, filters: filters.collect(), identifier }
        }
        10 => {
            let unsubscribe = v5::Unsubscribe::read(header, frame)?;
            Packet::Unsubscribe { pkid: unsubscribe.pkid, filters: unsubscribe.filters }
        }
        12 if empty => Packet::PingReq,
        // The reason alone, or not even that: shorter than what the codec reads.
        14 if frame.len() <= 3 => Packet::Disconnect { with_will: frame.get(2) == Some(&4), expiry_s: None },
        14 => {
            let disconnect = v5::Disconnect::read(header, frame)?;
            let with_will = disconnect.reason_code == v5::DisconnectReasonCode::DisconnectWithWillMessage;
            let expiry_s = disconnect.properties.and_then(|p| p.session_expiry_interval);
            Packet::Disconnect { with_will, expiry_s }
        }
        _ => Packet::Unexpected,
    })
}

fn publish_v5(publish: v5::Publish) -> Result<Packet, CodecError> {
    let alias = publish.properties.as_ref().and_then(|p| p.topic_alias);
    if let Some(properties) = &publish.properties {
        // 3.3.4: only a server sends them.
        if !properties.subscription_identifiers.is_empty() {
            return Err(CodecError::Malformed("subscription identifier in a client's PUBLISH".into()));
        }
        // 3.3.2.3.5.
        if properties.response_topic.as_ref().is_some_and(|topic| topic.contains(['+', '#'])) {
            return Err(CodecError::Malformed("wildcard in a response topic".into()));
        }
    }
    Ok(Packet::Publish(PublishPacket {
        qos: qos_v5(publish.qos),
        retain: publish.retain,
        topic: publish.topic,
        pkid: publish.pkid,
        payload: publish.payload,
        properties: publish.properties.map(|p| {
            Box::new(Properties {
                payload_format: p.payload_format_indicator,
                expiry_s: p.message_expiry_interval,
                content_type: p.content_type,
                response_topic: p.response_topic,
                correlation: p.correlation_data,
                user: p.user_properties,
            })
        }),
        alias,
    }))
}

fn qos_v4(qos: mqttbytes::QoS) -> QoS {
    match qos {
        mqttbytes::QoS::AtMostOnce => QoS::AtMostOnce,
        mqttbytes::QoS::AtLeastOnce => QoS::AtLeastOnce,
        mqttbytes::QoS::ExactlyOnce => QoS::ExactlyOnce,
    }
}

fn qos_v5(qos: mqttbytes5::QoS) -> QoS {
    match qos {
        mqttbytes5::QoS::AtMostOnce => QoS::AtMostOnce,
        mqttbytes5::QoS::AtLeastOnce => QoS::AtLeastOnce,
        mqttbytes5::QoS::ExactlyOnce => QoS::ExactlyOnce,
    }
}

/// Writes a CONNACK.
pub(crate) fn write_connack(protocol: Protocol, ack: ConnAck, out: &mut BytesMut) -> Result<(), CodecError> {
    match protocol {
        Protocol::V311 => {
            v4::ConnAck { session_present: ack.session_present, code: connect_code_v4(ack.code) }
                .write(out)?;
        }
        Protocol::V5 => {
            let accepted = ack.code == ConnectCode::Accepted;
            let properties = accepted.then(|| v5::ConnAckProperties {
                session_expiry_interval: ack.expiry_s,
                receive_max: Some(ack.receive_max),
                max_qos: None,
                retain_available: None,
                max_packet_size: Some(ack.packet_bytes_max),
                assigned_client_identifier: ack.assigned_id,
                topic_alias_max: (ack.topic_alias_max > 0).then_some(ack.topic_alias_max),
                reason_string: None,
                user_properties: Vec::new(),
                wildcard_subscription_available: (!ack.wildcards).then_some(0),
                subscription_identifiers_available: None,
                shared_subscription_available: Some(0),
                server_keep_alive: ack.keep_alive_s,
                response_information: None,
                server_reference: None,
                authentication_method: None,
                authentication_data: None,
            });
            let code = connect_code_v5(ack.code);
            v5::ConnAck { session_present: ack.session_present, code, properties }.write(out)?;
        }
    }
    Ok(())
}

fn connect_code_v4(code: ConnectCode) -> v4::ConnectReturnCode {
    match code {
        ConnectCode::Accepted => v4::ConnectReturnCode::Success,
        ConnectCode::BadProtocolVersion => v4::ConnectReturnCode::RefusedProtocolVersion,
        ConnectCode::BadClientId => v4::ConnectReturnCode::BadClientId,
        ConnectCode::BadCredentials => v4::ConnectReturnCode::BadUserNamePassword,
        ConnectCode::NotAuthorized | ConnectCode::BadAuthMethod => v4::ConnectReturnCode::NotAuthorized,
        ConnectCode::Unavailable | ConnectCode::TooOften => v4::ConnectReturnCode::ServiceUnavailable,
    }
}

fn connect_code_v5(code: ConnectCode) -> v5::ConnectReturnCode {
    match code {
        ConnectCode::Accepted => v5::ConnectReturnCode::Success,
        ConnectCode::BadProtocolVersion => v5::ConnectReturnCode::UnsupportedProtocolVersion,
        ConnectCode::BadClientId => v5::ConnectReturnCode::ClientIdentifierNotValid,
        ConnectCode::BadCredentials => v5::ConnectReturnCode::BadUserNamePassword,
        ConnectCode::NotAuthorized => v5::ConnectReturnCode::NotAuthorized,
        ConnectCode::Unavailable => v5::ConnectReturnCode::ServerUnavailable,
        ConnectCode::TooOften => v5::ConnectReturnCode::ConnectionRateExceeded,
        ConnectCode::BadAuthMethod => v5::ConnectReturnCode::BadAuthenticationMethod,
    }
}

/// Writes a reply.
pub(crate) fn write(protocol: Protocol, reply: Reply, out: &mut BytesMut) -> Result<(), CodecError> {
    match protocol {
        Protocol::V311 => write_v4(reply, out),
        Protocol::V5 => write_v5(reply, out),
    }
}

fn write_v4(reply: Reply, out: &mut BytesMut) -> Result<(), CodecError> {
    match reply {
        Reply::PubAck(pkid) => v4::PubAck { pkid }.write(out)?,
        Reply::PubRec(pkid) => v4::PubRec { pkid }.write(out)?,
        Reply::PubComp { pkid, .. } => v4::PubComp { pkid }.write(out)?,
        Reply::SubAck { pkid, codes } => {
            let return_codes = codes.into_iter().map(|code| match code {
                SubCode::Granted(QoS::AtMostOnce) => {
                    v4::SubscribeReasonCode::Success(mqttbytes::QoS::AtMostOnce)
                }
                SubCode::Granted(_) => v4::SubscribeReasonCode::Success(mqttbytes::QoS::AtLeastOnce),
                _ => v4::SubscribeReasonCode::Failure,
            });
            v4::SubAck { pkid, return_codes: return_codes.collect() }.write(out)?
        }
        Reply::UnsubAck { pkid, .. } => v4::UnsubAck { pkid }.write(out)?,
        Reply::PingResp => v4::PingResp.write(out)?,
        Reply::Disconnect(_) => 0,
    };
    Ok(())
}

fn write_v5(reply: Reply, out: &mut BytesMut) -> Result<(), CodecError> {
    match reply {
        Reply::PubAck(pkid) => v5::PubAck::new(pkid, None).write(out)?,
        Reply::PubRec(pkid) => v5::PubRec::new(pkid, None).write(out)?,
        Reply::PubComp { pkid, known } => {
            let mut comp = v5::PubComp::new(pkid, None);
            if !known {
                comp.reason = v5::PubCompReason::PacketIdentifierNotFound;
            }
            comp.write(out)?
        }
        Reply::SubAck { pkid, codes } => {
            let return_codes = codes.into_iter().map(|code| match code {
                SubCode::Granted(QoS::AtMostOnce) => {
                    v5::SubscribeReasonCode::Success(mqttbytes5::QoS::AtMostOnce)
                }
                SubCode::Granted(_) => v5::SubscribeReasonCode::Success(mqttbytes5::QoS::AtLeastOnce),
                SubCode::NotAuthorized => v5::SubscribeReasonCode::NotAuthorized,
                SubCode::FilterInvalid => v5::SubscribeReasonCode::TopicFilterInvalid,
                SubCode::SharedNotOffered => v5::SubscribeReasonCode::SharedSubscriptionsNotSupported,
                SubCode::QuotaExceeded => v5::SubscribeReasonCode::QuotaExceeded,
            });
            v5::SubAck { pkid, return_codes: return_codes.collect(), properties: None }.write(out)?
        }
        Reply::UnsubAck { pkid, existed } => {
            let reasons = existed.into_iter().map(|existed| {
                if existed { v5::UnsubAckReason::Success } else { v5::UnsubAckReason::NoSubscriptionExisted }
            });
            v5::UnsubAck { pkid, reasons: reasons.collect(), properties: None }.write(out)?
        }
        Reply::PingResp => v5::PingResp::write(out)?,
        Reply::Disconnect(reason) => match disconnect_code(reason) {
            // The codec ends a DISCONNECT without properties with a byte that its length does not count.
            Some(code) => {
                out.extend_from_slice(&[0xE0, 1, code as u8]);
                3
            }
            None => 0,
        },
    };
    Ok(())
}

/// What an MQTT 5 client is told at the end; nothing if it ended the connection itself.
fn disconnect_code(reason: Reason) -> Option<v5::DisconnectReasonCode> {
    use v5::DisconnectReasonCode as Code;
    match reason {
        Reason::Connected | Reason::Disconnected | Reason::DisconnectedWithWill | Reason::Gone => None,
        Reason::KeepAlive => Some(Code::KeepAliveTimeout),
        Reason::TakenOver => Some(Code::SessionTakenOver),
        Reason::Protocol => Some(Code::ProtocolError),
        Reason::TopicAlias => Some(Code::TopicAliasInvalid),
        Reason::NotAuthorized | Reason::Revoked => Some(Code::NotAuthorized),
        Reason::RateLimit => Some(Code::MessageRateTooHigh),
        Reason::TooLarge => Some(Code::PacketTooLarge),
        Reason::ReceiveMaximum => Some(Code::ReceiveMaximumExceeded),
        Reason::AckFailed => Some(Code::UnspecifiedError),
        Reason::Resend | Reason::HubLost => Some(Code::ServerBusy),
        Reason::Slow => Some(Code::QuotaExceeded),
        Reason::Stopping => Some(Code::ServerShuttingDown),
    }
}

/// Writes a PUBLISH to a client.
pub(crate) fn write_publish(
    protocol: Protocol,
    publish: &Outgoing<'_>,
    out: &mut BytesMut,
) -> Result<(), CodecError> {
    let Outgoing { message, pkid, dup, expiry_s } = *publish;
    match protocol {
        Protocol::V311 => {
            let qos = if pkid == 0 { mqttbytes::QoS::AtMostOnce } else { mqttbytes::QoS::AtLeastOnce };
            let topic = String::from_utf8_lossy(&message.topic);
            let mut packet = v4::Publish::from_bytes(topic, qos, message.payload.clone());
            packet.pkid = pkid;
            packet.dup = dup;
            packet.retain = message.retain;
            packet.write(out)?;
        }
        Protocol::V5 => {
            let qos = if pkid == 0 { mqttbytes5::QoS::AtMostOnce } else { mqttbytes5::QoS::AtLeastOnce };
            let mut properties = message.properties.as_deref().map(properties_v5).unwrap_or_default();
            properties.message_expiry_interval = expiry_s;
            if message.identifier > 0 {
                properties.subscription_identifiers.push(message.identifier as usize);
            }
            if let Some(arrived_us) = message.arrived_us {
                properties.user_properties.push((ARRIVED_PROPERTY.to_owned(), arrived_us.to_string()));
            }
            v5::Publish {
                dup,
                qos,
                retain: message.retain,
                topic: message.topic.clone(),
                pkid,
                payload: message.payload.clone(),
                properties: Some(properties),
            }
            .write(out)?;
        }
    }
    Ok(())
}

fn properties_v5(properties: &Properties) -> v5::PublishProperties {
    v5::PublishProperties {
        payload_format_indicator: properties.payload_format,
        message_expiry_interval: None,
        topic_alias: None,
        response_topic: properties.response_topic.clone(),
        correlation_data: properties.correlation.clone(),
        user_properties: properties.user.clone(),
        subscription_identifiers: Vec::new(),
        content_type: properties.content_type.clone(),
    }
}

#[cfg(test)]
mod tests;
