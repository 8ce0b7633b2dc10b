//! Terminals of a few bytes: they write prepared frames and count acknowledgements.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

use crate::Failure;
use crate::peer::Certificates;

/// Of each message, beside its topic.
pub(crate) const PAYLOAD: usize = 100;
/// An attempt to connect that takes longer is given up and made again.
const ATTEMPT_MAX: Duration = Duration::from_secs(30);
const AGAIN: Duration = Duration::from_millis(100);
/// Loopback addresses the terminals come from: one has 28,000 ports, and closed ones rest for a minute.
const SOURCES: usize = 16;

/// A connection, encrypted or not.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Where to connect, and how.
#[derive(Clone)]
pub(crate) struct Dialer {
    address: SocketAddr,
    tls: Option<TlsConnector>,
}

impl Dialer {
    pub(crate) fn new(address: SocketAddr, certificates: Option<&Certificates>) -> Result<Self, Failure> {
        let tls = certificates.map(tls).transpose()?;
        Ok(Self { address, tls })
    }

    /// A plain socket, from one of several addresses.
    pub(crate) async fn socket(&self, number: usize) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        let source = Ipv4Addr::new(127, 0, 0, 2 + (number % SOURCES) as u8);
        socket.bind((source, 0).into())?;
        let stream = socket.connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Up to CONNACK.
    pub(crate) async fn connect(&self, number: usize) -> io::Result<Box<dyn Stream>> {
        let socket = self.socket(number).await?;
        let mut stream: Box<dyn Stream> = match &self.tls {
            Some(tls) => {
                let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
                // Buffers of a size for small messages.
                Box::new(tls.connect(name, socket).await?)
            }
            None => Box::new(socket),
        };
        stream.write_all(&connect_frame(number, None)).await?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await?;
        if answer != [0x20, 2, 0, 0] {
            return Err(io::Error::other(format!("refused: {answer:?}")));
        }
        Ok(stream)
    }

    /// Until it is connected.
    pub(crate) async fn connect_at_last(&self, number: usize) -> Box<dyn Stream> {
        loop {
            if let Ok(Ok(stream)) = tokio::time::timeout(ATTEMPT_MAX, self.connect(number)).await {
                return stream;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

fn tls(certificates: &Certificates) -> Result<TlsConnector, Failure> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(certificates.ca_pem.as_bytes())?)?;
    let chain = vec![CertificateDer::from_pem_slice(certificates.client_pem.as_bytes())?];
    let key = PrivateKeyDer::from_pem_slice(certificates.client_key_pem.as_bytes())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    // Terminals of different elevators share nothing: every handshake is a full one.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(TlsConnector::from(Arc::new(config)))
}

pub(crate) fn id(number: usize) -> String {
    format!("T{number:06}")
}

/// CONNECT of MQTT 3.1.1, without keep-alive. `will`: topic and payload of a last will of QoS 1.
pub(crate) fn connect_frame(number: usize, will: Option<(&str, &str)>) -> Vec<u8> {
    let mut body = b"\0\x04MQTT\x04".to_vec();
    body.push(if will.is_some() { 0b0000_1110 } else { 0b10 });
    body.extend([0, 0]);
    put_text(&id(number), &mut body);
    if let Some((topic, payload)) = will {
        put_text(topic, &mut body);
        put_text(payload, &mut body);
    }
    frame(0x10, &body)
}

pub(crate) fn subscribe_frame(topic: &str) -> Vec<u8> {
    let mut body = vec![0, 1];
    put_text(topic, &mut body);
    body.push(1);
    frame(0x82, &body)
}

/// A QoS 1 message of terminal `number`; the packet id is at [`Publish::PKID_AT`] from the end of the topic.
pub(crate) struct Publish {
    bytes: Vec<u8>,
    pkid_at: usize,
    pkid: u16,
}

impl Publish {
    pub(crate) fn new(number: usize) -> Self {
        let mut body = Vec::new();
        put_text(&format!("lift/v1/310115/{}/telemetry", id(number)), &mut body);
        let after = body.len();
        body.extend([0, 0]);
        body.extend([b'x'; PAYLOAD]);
        let bytes = frame(0x32, &body);
        let pkid_at = bytes.len() - body.len() + after;
        Self { bytes, pkid_at, pkid: 0 }
    }

    /// Appends the next message.
    pub(crate) fn put(&mut self, out: &mut Vec<u8>) {
        self.pkid = self.pkid.checked_add(1).unwrap_or(1);
        self.bytes[self.pkid_at..self.pkid_at + 2].copy_from_slice(&self.pkid.to_be_bytes());
        out.extend_from_slice(&self.bytes);
    }
}

/// PUBACKs as they come: four bytes each, perhaps cut.
#[derive(Debug, Default)]
pub(crate) struct Acks {
    bytes: usize,
}

impl Acks {
    /// How many are complete after `bytes` more.
    pub(crate) fn read(&mut self, bytes: usize) -> usize {
        self.bytes += bytes;
        let acks = self.bytes / 4;
        self.bytes %= 4;
        acks
    }
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    out.extend((text.len() as u16).to_be_bytes());
    out.extend(text.as_bytes());
}

fn frame(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match body.len() {
        len @ 0..128 => out.push(len as u8),
        len => out.extend([(len % 128) as u8 | 0x80, (len / 128) as u8]),
    }
    out.extend(body);
    out
}
