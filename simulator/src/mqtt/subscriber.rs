//! A subscriber in MQTT 5, for recording: a message is acknowledged when its receiver comes for the next.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use rumqttc::v5::mqttbytes;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    Connect, ConnectProperties, ConnectReturnCode, Filter, Login, Packet, PingReq, PubAck, Publish,
    Subscribe, SubscribeReasonCode,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep_until};

use super::link::{ConnectError, Link, LinkOptions};

/// Largest packet accepted: a payload of 1 MiB (DESIGN.md 3) and its topic.
const PACKET_BYTES_MAX: u32 = 2 * 1024 * 1024;
/// The gate may tell when it received a message.
const ARRIVED: &str = "liftwatch-arrived-us";
/// Messages on their way to us; the broker waits for acknowledgements above.
const RECEIVE_MAX: u16 = 1_000;
/// A broker keeps messages for us this long while we are away, s.
const SESSION_S: u32 = 3_600;

/// A message of the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) topic: String,
    pub(crate) payload: Bytes,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    /// When the gate received it, where it says so.
    pub(crate) arrived_us: Option<i64>,
}

pub(crate) struct Subscriber {
    link: Link,
    keep_alive: Duration,
    spoke: Instant,
    ping: Option<Instant>,
    /// What a resumed session sent before it answered the subscription; at most [`RECEIVE_MAX`].
    early: VecDeque<(Received, u16)>,
}

fn protocol(error: mqttbytes::Error) -> ConnectError {
    ConnectError::Protocol(error.to_string())
}

impl Subscriber {
    /// Connects and subscribes; continues a session of the same client id.
    pub(crate) async fn open(options: &LinkOptions, filter: &str) -> Result<Self, ConnectError> {
        match tokio::time::timeout(options.timeout, Self::handshake(options, filter)).await {
            Ok(result) => result,
            Err(_) => Err(ConnectError::Timeout(options.target)),
        }
    }

    async fn handshake(options: &LinkOptions, filter: &str) -> Result<Self, ConnectError> {
        let link = Link::dial(options).await?;
        let (keep_alive, spoke) = (options.keep_alive, Instant::now());
        let mut this = Self { link, keep_alive, spoke, ping: None, early: VecDeque::new() };
        let connect = Connect {
            keep_alive: keep_alive.as_secs().clamp(1, u64::from(u16::MAX)) as u16,
            client_id: options.client_id.clone(),
            clean_start: false,
            properties: Some(ConnectProperties {
                session_expiry_interval: Some(SESSION_S),
                receive_maximum: Some(RECEIVE_MAX),
                max_packet_size: Some(PACKET_BYTES_MAX),
                ..ConnectProperties::new()
            }),
        };
        let login = options
            .password
            .as_ref()
            .map(|password| Login { username: options.client_id.clone(), password: password.clone() });
        connect.write(&None, &login, &mut this.link.output).map_err(protocol)?;
        let io = |error| ConnectError::io(options.target, error);
        match this.packet().await.map_err(io)? {
            Packet::ConnAck(ack) if ack.code == ConnectReturnCode::Success => {}
            Packet::ConnAck(ack) => return Err(ConnectError::Refused(format!("{:?}", ack.code))),
            other => return Err(ConnectError::Protocol(format!("{other:?} instead of CONNACK"))),
        }
        let mut subscribe = Subscribe::new(Filter::new(filter, QoS::AtLeastOnce), None);
        subscribe.pkid = 1;
        subscribe.write(&mut this.link.output).map_err(protocol)?;
        loop {
            match this.packet().await.map_err(io)? {
                Packet::SubAck(ack) => {
                    let granted =
                        |code: &SubscribeReasonCode| matches!(code, SubscribeReasonCode::Success(_));
                    if ack.return_codes.iter().all(granted) {
                        return Ok(this);
                    }
                    return Err(ConnectError::Refused(format!("{filter}: {:?}", ack.return_codes)));
                }
                Packet::Publish(publish) => this.early.extend(received(publish)),
                Packet::Disconnect(_) => return Err(ConnectError::Refused(format!("subscription {filter}"))),
                _ => {}
            }
        }
    }

    /// The next packet; writes what waits first.
    async fn packet(&mut self) -> std::io::Result<Packet> {
        let invalid = |error: mqttbytes::Error| std::io::Error::new(std::io::ErrorKind::InvalidData, error);
        let Link { stream, input, output } = &mut self.link;
        loop {
            match Packet::read(input, Some(PACKET_BYTES_MAX)) {
                Ok(packet) => return Ok(packet),
                Err(mqttbytes::Error::InsufficientBytes(_)) => {}
                Err(error) => return Err(invalid(error)),
            }
            if !output.is_empty() {
                stream.write_all_buf(output).await?;
                self.spoke = Instant::now();
            }
            let quiet_until = self.ping.unwrap_or(self.spoke) + self.keep_alive.mul_f64(0.75);
            tokio::select! {
                read = stream.read_buf(input) => {
                    if read? == 0 {
                        return Err(std::io::ErrorKind::UnexpectedEof.into());
                    }
                    self.ping = None;
                }
                () = sleep_until(quiet_until) => {
                    if self.ping.is_some() {
                        return Err(std::io::ErrorKind::TimedOut.into());
                    }
                    self.ping = Some(Instant::now());
                    PingReq::write(output).map_err(invalid)?;
                }
            }
        }
    }

    /// The next message, and the id to acknowledge it with. May be cancelled without loss.
    pub(crate) async fn next(&mut self) -> std::io::Result<(Received, u16)> {
        if let Some(early) = self.early.pop_front() {
            return Ok(early);
        }
        loop {
            match self.packet().await? {
                Packet::Publish(publish) => {
                    if let Some(message) = received(publish) {
                        return Ok(message);
                    }
                }
                Packet::Disconnect(_) => return Err(std::io::ErrorKind::ConnectionAborted.into()),
                _ => {}
            }
        }
    }

    /// Acknowledges; leaves with the next write. QoS 0 (id 0) has nothing to acknowledge.
    pub(crate) fn acknowledge(&mut self, pkid: u16) {
        if pkid != 0 {
            // Writing to memory fails for a packet id of 0 only.
            let _ = PubAck::new(pkid, None).write(&mut self.link.output);
        }
    }

    /// Sends what waits, and goodbye.
    pub(crate) async fn close(mut self) {
        let Link { stream, output, .. } = &mut self.link;
        output.extend_from_slice(&[0xE0, 0x00]);
        let _ = stream.write_all_buf(output).await;
    }
}

/// A topic that is not UTF-8 breaks MQTT's own rules and is no message.
fn received(publish: Publish) -> Option<(Received, u16)> {
    let properties = publish.properties.unwrap_or_default();
    let arrived = properties.user_properties.iter().find(|(name, _)| name == ARRIVED);
    let message = Received {
        topic: String::from_utf8(publish.topic.to_vec()).ok()?,
        payload: publish.payload,
        qos: publish.qos as u8,
        retain: publish.retain,
        arrived_us: arrived.and_then(|(_, value)| value.parse().ok()),
    };
    Some((message, publish.pkid))
}
