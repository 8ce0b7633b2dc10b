//! From an open socket to an accepted client: CONNECT read, checked, authenticated.
//!
//! Holds nothing for longer than the deadline the caller sets, and at most [`CONNECT_BYTES_MAX`] bytes.

use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

use crate::auth::{ClientCertificate, ConnectInfo, Origin, Principal, PrincipalKind, Protocol, Refusal};
use crate::codec::{self, CodecError};
use crate::gate::Shared;
use crate::limits::Meter;
use crate::packet::{ConnAck, Connect, ConnectCode};
use crate::topic;

/// A CONNECT with a last will of some size; larger wills have no use here.
const CONNECT_BYTES_MAX: usize = 16 << 10;
/// Most CONNECTs fit.
const CONNECT_BYTES: usize = 256;
/// Client ids beyond that are nobody's.
const CLIENT_ID_BYTES_MAX: usize = 128;

/// A client that may come in; its CONNACK is not sent yet.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) connect: Connect,
    pub(crate) client_id: Arc<str>,
    pub(crate) generated_id: bool,
    pub(crate) principal: Principal,
    pub(crate) certificate: Option<Arc<ClientCertificate>>,
    /// What it has sent of late; none if it is not limited.
    pub(crate) meter: Option<Arc<Meter>>,
    pub(crate) epoch: u64,
    /// What came after CONNECT.
    pub(crate) rest: BytesMut,
}

/// Reads and decides on CONNECT. `None`: the client was refused, or was none.
pub(crate) async fn open<S>(stream: &mut S, origin: &Origin, gate: &Shared) -> Option<Opened>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let peer = origin.peer;
    let mut buffer = BytesMut::with_capacity(CONNECT_BYTES);
    let connect = match read_connect(stream, &mut buffer).await {
        Ok(connect) => connect?,
        Err(error) => {
            tracing::debug!(%peer, %error, "not a client");
            gate.refused("malformed", peer, None);
            if let CodecError::Level(level) = error {
                let protocol = if level > 5 { Protocol::V5 } else { Protocol::V311 };
                refuse(stream, protocol, ConnectCode::BadProtocolVersion).await;
            }
            return None;
        }
    };
    let protocol = connect.protocol;
    let epoch = gate.next_epoch();
    let client_id = connect.client_id.clone();
    match decide(connect, origin, epoch, gate).await {
        Ok(mut opened) => {
            opened.rest = buffer;
            Some(opened)
        }
        Err(code) => {
            gate.refused(label(code), peer, Some(&client_id));
            refuse(stream, protocol, code).await;
            None
        }
    }
}

async fn read_connect<S>(stream: &mut S, buffer: &mut BytesMut) -> Result<Option<Connect>, CodecError>
where
    S: AsyncRead + Unpin,
{
    loop {
        if buffer.first().is_some_and(|byte| *byte != 0x10) {
            return Err(CodecError::NotConnect);
        }
        if let Some(len) = codec::frame_len(buffer, CONNECT_BYTES_MAX)? {
            if buffer.len() >= len {
                return codec::read_connect(buffer.split_to(len).freeze()).map(Some);
            }
            buffer.reserve(len - buffer.len());
        }
        // Gone before it said anything: port scans and health checks do that.
        if !matches!(stream.read_buf(buffer).await, Ok(n) if n > 0) {
            return Ok(None);
        }
    }
}

async fn decide(
    mut connect: Connect,
    origin: &Origin,
    epoch: u64,
    gate: &Shared,
) -> Result<Opened, ConnectCode> {
    if connect.enhanced_auth {
        return Err(ConnectCode::BadAuthMethod);
    }
    let generated_id = connect.client_id.is_empty();
    if generated_id {
        // 3.1.3.1 of MQTT 3.1.1: only with a clean session.
        if connect.protocol == Protocol::V311 && !connect.clean {
            return Err(ConnectCode::BadClientId);
        }
        connect.client_id = format!("anonymous-{epoch}");
    }
    if connect.client_id.len() > CLIENT_ID_BYTES_MAX || connect.client_id.contains('\0') {
        return Err(ConnectCode::BadClientId);
    }
    let info = ConnectInfo {
        client_id: connect.client_id.clone(),
        generated_id,
        username: connect.username.take(),
        password: connect.password.take(),
        origin: origin.clone(),
        protocol: connect.protocol,
    };
    // Before anything is computed from the password.
    if !gate.limits.may_try(origin, &info.client_id, Instant::now()) {
        return Err(ConnectCode::TooOften);
    }
    let principal = gate.auth.authenticate(&info).await.map_err(|refusal| {
        tracing::debug!(client_id = info.client_id, peer = %origin.peer, %refusal, "client refused");
        match refusal {
            Refusal::BadCredentials => {
                gate.limits.failed(origin, &info.client_id, Instant::now());
                ConnectCode::BadCredentials
            }
            Refusal::NotAuthorized => ConnectCode::NotAuthorized,
            Refusal::BadClientId => ConnectCode::BadClientId,
            Refusal::Unavailable => ConnectCode::Unavailable,
        }
    })?;
    if generated_id && principal.kind == PrincipalKind::Terminal {
        return Err(ConnectCode::BadClientId);
    }
    if let Some(will) = &connect.will
        && !(topic::is_topic_name(&will.topic) && principal.may_publish(&will.topic))
    {
        return Err(ConnectCode::NotAuthorized);
    }
    let client_id = info.client_id.into();
    let meter = gate.limits.connect(origin, &client_id, Instant::now());
    let meter = meter.map_err(|_| ConnectCode::TooOften)?;
    let certificate = info.origin.certificate;
    let rest = BytesMut::new();
    Ok(Opened { connect, client_id, generated_id, principal, certificate, meter, epoch, rest })
}

/// The answer to a CONNECT that is accepted.
pub(crate) fn accepted(
    opened: &Opened,
    session_present: bool,
    gate: &Shared,
    out: &mut BytesMut,
) -> Result<(), CodecError> {
    let connect = &opened.connect;
    let (expiry_s, keep_alive_s) =
        (connect.expiry_s.min(expiry_s_max(opened, gate)), keep_alive_s(opened, gate));
    let ack = ConnAck {
        code: ConnectCode::Accepted,
        receive_max: gate.config.unacked_max.max(1),
        packet_bytes_max: frame_bytes_max(gate) as u32,
        topic_alias_max: gate.config.topic_alias_max,
        assigned_id: opened.generated_id.then(|| opened.client_id.to_string()),
        session_present,
        expiry_s: (expiry_s != connect.expiry_s).then_some(expiry_s),
        keep_alive_s: (keep_alive_s != connect.keep_alive_s).then_some(keep_alive_s),
        wildcards: opened.principal.kind == PrincipalKind::Integration,
    };
    codec::write_connack(connect.protocol, ack, out)
}

/// Longest life of the client's session without connection. An id that the gate made up is not one to come back
/// under.
pub(crate) fn expiry_s_max(opened: &Opened, gate: &Shared) -> u32 {
    if opened.generated_id {
        return 0;
    }
    u32::try_from(gate.config.session_expiry_max.as_secs()).unwrap_or(u32::MAX)
}

/// The keep-alive the client is held to, see [`GateConfig::keep_alive_max`](crate::GateConfig).
pub(crate) fn keep_alive_s(opened: &Opened, gate: &Shared) -> u16 {
    let asked_s = opened.connect.keep_alive_s;
    let max_s = u16::try_from(gate.config.keep_alive_max.as_secs()).unwrap_or(u16::MAX).max(1);
    let is_held = opened.connect.protocol == Protocol::V5 || opened.principal.kind == PrincipalKind::Terminal;
    if is_held && (asked_s == 0 || asked_s > max_s) { max_s } else { asked_s }
}

/// A payload of the largest size with the longest topic, and some properties.
pub(crate) fn frame_bytes_max(gate: &Shared) -> usize {
    gate.config.payload_bytes_max.min(200 << 20) + (128 << 10)
}

async fn refuse<S: AsyncWrite + Unpin>(stream: &mut S, protocol: Protocol, code: ConnectCode) {
    let mut out = BytesMut::new();
    let ack = ConnAck { code, ..ConnAck::default() };
    if codec::write_connack(protocol, ack, &mut out).is_ok() && stream.write_all(&out).await.is_ok() {
        // The client may have gone already.
        let _ = stream.shutdown().await;
    }
}

fn label(code: ConnectCode) -> &'static str {
    match code {
        ConnectCode::Accepted => "accepted",
        ConnectCode::BadProtocolVersion => "protocol_version",
        ConnectCode::BadClientId => "client_id",
        ConnectCode::BadCredentials => "credentials",
        ConnectCode::NotAuthorized => "not_authorized",
        ConnectCode::Unavailable => "unavailable",
        ConnectCode::TooOften => "too_often",
        ConnectCode::BadAuthMethod => "auth_method",
    }
}
