//! Opening a connection: TCP, CONNECT, CONNACK, under one deadline.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::BytesMut;
use rumqttc::mqttbytes::v4::{Connect, ConnectReturnCode, Login, Packet};
use rumqttc::mqttbytes::{self};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// Largest packet read; a server sends a terminal little more than acknowledgements.
pub(crate) const PACKET_BYTES_MAX: usize = 256 * 1024;
/// A connection begins with buffers of this size.
const BUFFER_BYTES: usize = 256;

/// How to reach the broker.
#[derive(Debug, Clone)]
pub(crate) struct LinkOptions {
    pub(crate) target: SocketAddr,
    /// Local address to speak from. One address has about 28,000 ports; larger fleets on one machine use
    /// several of the loopback network's.
    pub(crate) source: Option<Ipv4Addr>,
    pub(crate) client_id: String,
    pub(crate) password: Option<String>,
    pub(crate) keep_alive: Duration,
    pub(crate) timeout: Duration,
    /// First wait before a reconnect, doubled at each failure.
    pub(crate) backoff_min: Duration,
    /// Longest wait.
    pub(crate) backoff_max: Duration,
}

impl LinkOptions {
    pub(crate) fn new(target: SocketAddr, client_id: impl Into<String>) -> Self {
        Self {
            target,
            source: None,
            client_id: client_id.into(),
            password: None,
            keep_alive: Duration::from_mins(1),
            timeout: Duration::from_secs(10),
            backoff_min: Duration::from_millis(200),
            backoff_max: Duration::from_secs(5),
        }
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No such host, refused, out of ports or file descriptors.
    #[error("cannot connect to {target}: {source}")]
    Io {
        /// Where to.
        target: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// The server did not answer in time.
    #[error("{0} did not answer the connect in time")]
    Timeout(SocketAddr),
    /// The server does not want this client.
    #[error("the broker refused the connection: {0}")]
    Refused(String),
    /// The server does not speak MQTT.
    #[error("the answer is not MQTT: {0}")]
    Protocol(String),
}

impl ConnectError {
    pub(crate) fn io(target: impl ToString, source: std::io::Error) -> Self {
        Self::Io { target: target.to_string(), source }
    }
}

/// Looks up `host:port`, once for a whole fleet.
pub(crate) async fn resolve(target: &str) -> Result<SocketAddr, ConnectError> {
    let mut found = tokio::net::lookup_host(target).await.map_err(|error| ConnectError::io(target, error))?;
    let nothing = || std::io::Error::new(std::io::ErrorKind::NotFound, "no address");
    found.next().ok_or_else(|| ConnectError::io(target, nothing()))
}

/// An open connection with what was read past the CONNACK.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) stream: TcpStream,
    pub(crate) input: BytesMut,
    pub(crate) output: BytesMut,
}

impl Link {
    pub(crate) async fn open(options: &LinkOptions) -> Result<Self, ConnectError> {
        match tokio::time::timeout(options.timeout, Self::handshake(options)).await {
            Ok(result) => result,
            Err(_) => Err(ConnectError::Timeout(options.target)),
        }
    }

    /// TCP only, from the address the options name.
    pub(crate) async fn dial(options: &LinkOptions) -> Result<Self, ConnectError> {
        let io = |error| ConnectError::io(options.target, error);
        let stream = match options.source {
            Some(source) => {
                let socket = TcpSocket::new_v4().map_err(io)?;
                socket.bind((source, 0).into()).map_err(io)?;
                socket.connect(options.target).await.map_err(io)?
            }
            None => TcpStream::connect(options.target).await.map_err(io)?,
        };
        stream.set_nodelay(true).map_err(io)?;
        let (input, output) = (BytesMut::with_capacity(BUFFER_BYTES), BytesMut::with_capacity(BUFFER_BYTES));
        Ok(Self { stream, input, output })
    }

    async fn handshake(options: &LinkOptions) -> Result<Self, ConnectError> {
        let mut link = Self::dial(options).await?;
        let mut connect = Connect::new(options.client_id.as_str());
        connect.keep_alive = options.keep_alive.as_secs().clamp(1, u64::from(u16::MAX)) as u16;
        // No session: the outbox sends again by itself, and a server needs to remember nothing.
        connect.clean_session = true;
        if let Some(password) = &options.password {
            connect.login = Some(Login { username: options.client_id.clone(), password: password.clone() });
        }
        let protocol = |error: mqttbytes::Error| ConnectError::Protocol(error.to_string());
        connect.write(&mut link.output).map_err(protocol)?;
        let io = |error| ConnectError::io(options.target, error);
        link.stream.write_all_buf(&mut link.output).await.map_err(io)?;
        loop {
            match Packet::read(&mut link.input, PACKET_BYTES_MAX) {
                Ok(Packet::ConnAck(ack)) if ack.code == ConnectReturnCode::Success => return Ok(link),
                Ok(Packet::ConnAck(ack)) => return Err(ConnectError::Refused(format!("{:?}", ack.code))),
                Ok(other) => return Err(ConnectError::Protocol(format!("{other:?} instead of CONNACK"))),
                Err(mqttbytes::Error::InsufficientBytes(_)) => {}
                Err(error) => return Err(protocol(error)),
            }
            if link.stream.read_buf(&mut link.input).await.map_err(io)? == 0 {
                return Err(ConnectError::Refused("closed without an answer".into()));
            }
        }
    }
}
