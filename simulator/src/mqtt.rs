//! The little of MQTT 3.1.1 that a terminal needs: connect, publish at QoS 1, hear acknowledgements.
//!
//! Writes are gathered in a buffer and leave with [`Connection::drive`], together. Written for thousands of
//! connections in one process: one socket and two buffers each, no task of its own.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{Connect, ConnectReturnCode, Disconnect, Packet, PingReq, Publish};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// Largest packet taken from a broker; it sends us acknowledgements only.
const PACKET_BYTES_MAX: usize = 64 * 1024;
/// Time for TCP connect and CONNACK together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a connection could not be made or did not last.
#[derive(Debug, thiserror::Error)]
pub enum MqttError {
    /// The network failed or the broker closed the connection.
    #[error("the connection is gone")]
    Io(#[from] io::Error),
    /// The broker did not answer in time.
    #[error("no CONNACK within 10 s")]
    Timeout,
    /// The broker does not want us.
    #[error("the broker refused the connection: {0:?}")]
    Refused(ConnectReturnCode),
    /// What came was not MQTT, or cannot be sent as MQTT.
    #[error("protocol error")]
    Protocol(#[from] rumqttc::mqttbytes::Error),
    /// Something else than a CONNACK came first.
    #[error("the broker did not answer CONNECT with CONNACK")]
    NoConnAck,
}

/// A connection after its CONNACK.
#[derive(Debug)]
pub struct Connection {
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    incoming: BytesMut,
    outgoing: BytesMut,
}

impl Connection {
    /// Connects with a clean session.
    pub async fn open(broker: SocketAddr, client_id: &str, keep_alive_s: u16) -> Result<Self, MqttError> {
        let opening = async {
            let stream = TcpStream::connect(broker).await?;
            stream.set_nodelay(true)?;
            let (reader, writer) = stream.into_split();
            let (incoming, outgoing) = (BytesMut::new(), BytesMut::new());
            let mut connection = Self { reader, writer, incoming, outgoing };
            let mut connect = Connect::new(client_id);
            connect.keep_alive = keep_alive_s;
            connect.write(&mut connection.outgoing)?;
            match connection.drive().await? {
                Packet::ConnAck(ack) if ack.code == ConnectReturnCode::Success => Ok(connection),
                Packet::ConnAck(ack) => Err(MqttError::Refused(ack.code)),
                _ => Err(MqttError::NoConnAck),
            }
        };
        tokio::time::timeout(CONNECT_TIMEOUT, opening).await.unwrap_or(Err(MqttError::Timeout))
    }

    /// Puts a publish at QoS 1 into the buffer. `pkid` is not 0.
    pub fn publish(&mut self, pkid: u16, topic: &str, payload: Bytes) -> Result<(), MqttError> {
        let mut publish = Publish::from_bytes(topic, QoS::AtLeastOnce, payload);
        publish.pkid = pkid;
        publish.write(&mut self.outgoing)?;
        Ok(())
    }

    /// Puts a ping into the buffer.
    pub fn ping(&mut self) -> Result<(), MqttError> {
        PingReq.write(&mut self.outgoing)?;
        Ok(())
    }

    /// Writes what is in the buffer and returns the next packet that comes. May be dropped at any await and
    /// called again: nothing is lost.
    pub async fn drive(&mut self) -> Result<Packet, MqttError> {
        use rumqttc::mqttbytes::Error::InsufficientBytes;
        loop {
            match Packet::read(&mut self.incoming, PACKET_BYTES_MAX) {
                Ok(packet) => return Ok(packet),
                Err(InsufficientBytes(_)) => {}
                Err(error) => return Err(error.into()),
            }
            let Self { reader, writer, incoming, outgoing } = self;
            tokio::select! {
                read = reader.read_buf(incoming) => {
                    if read? == 0 {
                        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                    }
                }
                wrote = writer.write_buf(outgoing), if !outgoing.is_empty() => {
                    if wrote? == 0 {
                        return Err(io::Error::from(io::ErrorKind::WriteZero).into());
                    }
                }
            }
        }
    }

    /// Says goodbye, within 1 s.
    pub async fn close(mut self) -> Result<(), MqttError> {
        Disconnect.write(&mut self.outgoing)?;
        let leaving = async {
            self.writer.write_all_buf(&mut self.outgoing).await?;
            self.writer.shutdown().await
        };
        tokio::time::timeout(Duration::from_secs(1), leaving).await.map_err(|_| MqttError::Timeout)??;
        Ok(())
    }
}
