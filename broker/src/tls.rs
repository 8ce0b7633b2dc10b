//! TLS: certificates read and read again, handshakes, and who a client certificate says its holder is.
//!
//! Owns the key material in memory. Promises: TLS 1.2 and 1.3 by rustls with ring; a client certificate that is
//! handed on was issued by the device CA, is in its time and in no revocation list, also when the handshake was
//! abbreviated; files that cannot be used leave those before them in force, told once. Does not look at
//! what a certificate's name is allowed to do.
//!
//! **Resumption.** Terminals on mobile links reconnect often, so tickets are given: stateless ones, one per
//! connection. They die whenever a file changes, so that a withdrawn certificate cannot come back by one. Early
//! data stays off: it could be replayed.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::SystemTime;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::{
    ServerSessionMemoryCache, VerifierBuilderError, WebPkiClientVerifier, danger::ClientCertVerifier,
};
use rustls::{CertificateError, HandshakeKind, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_parser::prelude::{ASN1Time, CertificateRevocationList, FromDer, X509Certificate};

use crate::ack::lock;
use crate::auth::ClientCertificate;
use crate::config::{ClientCertificates, TlsConfig};

/// TLS 1.2 sessions of clients that know no tickets; the others need no memory here.
const SESSIONS_MAX: usize = 1_024;
/// Encrypted bytes that wait for one socket.
const BUFFER_BYTES: usize = 16 << 10;

/// The files for TLS cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A file does not hold what it should, as PEM.
    #[error("{} holds no {expected}", path.display())]
    Pem {
        /// Which one.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
    },
    /// Certificate and key do not fit each other, or are of a kind that is not known.
    #[error("certificate and key do not make a pair")]
    Pair(#[source] rustls::Error),
    /// A certificate of the device CA cannot be used.
    #[error("the device CA cannot be used")]
    ClientCa(#[source] rustls::Error),
    /// A revocation list cannot be used.
    #[error("the revocation list cannot be used")]
    Crl(#[source] VerifierBuilderError),
    /// Client certificates are to be checked against nothing.
    #[error("a revocation list is given, but no device CA")]
    CrlWithoutCa,
    /// Certificate or key are missing.
    #[error("the WebSocket listener is to use TLS, but no certificate is given")]
    NoCertificate,
}

/// TLS as the files say now.
pub(crate) struct Tls {
    config: TlsConfig,
    current: RwLock<Arc<Loaded>>,
    /// Of the files as they were tried last.
    digest: Mutex<u64>,
    /// Asks for a look at the files at once.
    pub(crate) look: Notify,
}

struct Loaded {
    acceptor: TlsAcceptor,
    /// Asks for no client certificate.
    acceptor_web: TlsAcceptor,
    revoked: HashSet<String>,
}

/// What a look at the files found.
#[derive(Debug)]
pub(crate) enum Look {
    Unchanged,
    Replaced,
    Unusable(TlsError),
}

/// A finished handshake.
pub(crate) struct Accepted {
    pub(crate) stream: Secured,
    pub(crate) certificate: Option<Arc<ClientCertificate>>,
    pub(crate) resumed: bool,
}

/// A handshake that failed.
#[derive(Debug)]
pub(crate) struct HandshakeRefusal {
    /// None if the client went without a word, as port scans and health checks do.
    pub(crate) reason: Option<&'static str>,
    pub(crate) error: io::Error,
    /// Of the certificate, if it is known.
    pub(crate) common_name: Option<String>,
}

impl Tls {
    pub(crate) fn load(config: TlsConfig) -> Result<Self, TlsError> {
        let files = Files::read(&config);
        let digest = Mutex::new(files.digest());
        let loaded = Loaded::new(&config, files)?;
        Ok(Self { config, current: RwLock::new(Arc::new(loaded)), digest, look: Notify::new() })
    }

    /// Reads the files and uses them if they have changed. Blocks.
    pub(crate) fn refresh(&self) -> Look {
        let files = Files::read(&self.config);
        let digest = files.digest();
        if std::mem::replace(&mut *lock(&self.digest), digest) == digest {
            return Look::Unchanged;
        }
        match Loaded::new(&self.config, files) {
            Ok(loaded) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(loaded);
                Look::Replaced
            }
            Err(error) => Look::Unusable(error),
        }
    }

    fn current(&self) -> Arc<Loaded> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn is_revoked(&self, certificate: &ClientCertificate) -> bool {
        self.current().revoked.contains(&certificate.serial)
    }

    /// The handshake of a terminal.
    pub(crate) async fn accept(&self, stream: TcpStream) -> Result<Accepted, HandshakeRefusal> {
        let loaded = self.current();
        let stream = Secured::accept(&loaded.acceptor, stream).await?;
        let session = stream.0.get_ref().1;
        let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
        let certificate = match session.peer_certificates().and_then(<[_]>::first) {
            Some(shown) => Some(Arc::new(loaded.check(shown, SystemTime::now())?)),
            None => None,
        };
        Ok(Accepted { stream, certificate, resumed })
    }

    /// The handshake of a browser.
    pub(crate) async fn accept_web(&self, stream: TcpStream) -> Result<Accepted, HandshakeRefusal> {
        let loaded = self.current();
        let stream = Secured::accept(&loaded.acceptor_web, stream).await?;
        let resumed = stream.0.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
        Ok(Accepted { stream, certificate: None, resumed })
    }
}

/// The files' contents, or why they cannot be read.
struct Files {
    certificate: Result<Vec<u8>, TlsError>,
    key: Result<Vec<u8>, TlsError>,
    client_ca: Option<Result<Vec<u8>, TlsError>>,
    crl: Option<Result<Vec<u8>, TlsError>>,
}

impl Files {
    fn read(config: &TlsConfig) -> Self {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
        };
        Self {
            certificate: read(&config.certificate),
            key: read(&config.key),
            client_ca: config.client_ca.as_deref().map(read),
            crl: config.crl.as_deref().map(read),
        }
    }

    fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for file in [Some(&self.certificate), Some(&self.key), self.client_ca.as_ref(), self.crl.as_ref()] {
            file.map(|file| file.as_ref().ok()).hash(&mut hasher);
        }
        hasher.finish()
    }
}

impl Loaded {
    fn new(config: &TlsConfig, files: Files) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let chain = certificates(&config.certificate, &files.certificate?)?;
        let key = PrivateKeyDer::from_pem_slice(&files.key?)
            .map_err(|_| TlsError::Pem { path: config.key.clone(), expected: "private key" })?;
        let mut revoked = HashSet::new();
        let verifier = match (&config.client_ca, files.client_ca) {
            (Some(path), Some(ca)) => {
                let lists = match (&config.crl, files.crl) {
                    (Some(path), Some(crl)) => revocation_lists(path, &crl?)?,
                    _ => Vec::new(),
                };
                revoked = lists.iter().flat_map(|list| revoked_serials(list)).collect();
                let roots = certificates(path, &ca?)?;
                client_verifier(config, roots, lists, &provider)?
            }
            _ if config.crl.is_some() => return Err(TlsError::CrlWithoutCa),
            _ => WebPkiClientVerifier::no_client_auth(),
        };
        let make = |verifier, chain, key| -> Result<TlsAcceptor, TlsError> {
            let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
                .with_safe_default_protocol_versions()
                .map_err(TlsError::Pair)?;
            let mut server = builder
                .with_client_cert_verifier(verifier)
                .with_single_cert(chain, key)
                .map_err(TlsError::Pair)?;
            server.ticketer = ring::Ticketer::new().map_err(TlsError::Pair)?;
            server.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
            server.send_tls13_tickets = 1;
            Ok(TlsAcceptor::from(Arc::new(server)))
        };
        let acceptor_web = make(WebPkiClientVerifier::no_client_auth(), chain.clone(), key.clone_key())?;
        Ok(Self { acceptor: make(verifier, chain, key)?, acceptor_web, revoked })
    }

    /// Reads a certificate whose chain is verified, now or when the session began that is resumed.
    fn check(
        &self,
        shown: &CertificateDer<'_>,
        now: SystemTime,
    ) -> Result<ClientCertificate, HandshakeRefusal> {
        let refusal = |reason, common_name| {
            let error = io::Error::new(io::ErrorKind::InvalidData, reason);
            HandshakeRefusal { reason: Some(reason), error, common_name }
        };
        let Ok((_, parsed)) = X509Certificate::from_der(shown) else {
            return Err(refusal("certificate_malformed", None));
        };
        let mut names =
            parsed.subject().iter_common_name().map(x509_parser::prelude::AttributeTypeAndValue::as_str);
        let (Some(Ok(name)), None) = (names.next(), names.next()) else {
            return Err(refusal("certificate_name", None));
        };
        let common_name = name.to_owned();
        let since_1970 = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let in_time =
            ASN1Time::from_timestamp(since_1970 as i64).is_ok_and(|now| parsed.validity().is_valid_at(now));
        if !in_time {
            return Err(refusal("certificate_expired", Some(common_name)));
        }
        let serial = hexadecimal(parsed.raw_serial());
        if self.revoked.contains(&serial) {
            return Err(refusal("certificate_revoked", Some(common_name)));
        }
        Ok(ClientCertificate { common_name, serial })
    }
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    found
        .ok()
        .filter(|found| !found.is_empty())
        .ok_or_else(|| TlsError::Pem { path: path.to_owned(), expected: "certificate" })
}

fn revocation_lists(path: &Path, pem: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(pem).collect();
    found
        .ok()
        .filter(|found| !found.is_empty())
        .ok_or_else(|| TlsError::Pem { path: path.to_owned(), expected: "revocation list" })
}

fn revoked_serials(list: &CertificateRevocationListDer<'_>) -> Vec<String> {
    match CertificateRevocationList::from_der(list) {
        Ok((_, list)) => {
            list.iter_revoked_certificates().map(|entry| hexadecimal(entry.raw_serial())).collect()
        }
        // The verifier, which reads the list too, says why.
        Err(_) => Vec::new(),
    }
}

fn client_verifier(
    config: &TlsConfig,
    roots: Vec<CertificateDer<'static>>,
    lists: Vec<CertificateRevocationListDer<'static>>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root).map_err(TlsError::ClientCa)?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(store), Arc::clone(provider))
        .with_crls(lists)
        .only_check_end_entity_revocation()
        .allow_unknown_revocation_status();
    let builder = match config.client_certificates {
        ClientCertificates::Required => builder,
        ClientCertificates::Optional => builder.allow_unauthenticated(),
    };
    builder.build().map_err(TlsError::Crl)
}

fn hexadecimal(serial: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(serial.len() * 2);
    for byte in serial {
        // A String takes everything.
        let _ = write!(text, "{byte:02x}");
    }
    let significant = text.trim_start_matches('0');
    if significant.is_empty() { "0".to_owned() } else { significant.to_owned() }
}

/// A TLS stream that needs no flush: what a full socket did not take goes out when it has room again, as long as
/// somebody reads or writes. Boxed, because it is moved often and is large.
#[derive(Debug)]
pub(crate) struct Secured(Box<TlsStream<TcpStream>>);

impl Secured {
    async fn accept(acceptor: &TlsAcceptor, stream: TcpStream) -> Result<Self, HandshakeRefusal> {
        let result =
            acceptor.accept_with(stream, |session| session.set_buffer_limit(Some(BUFFER_BYTES))).await;
        result.map(|stream| Self(Box::new(stream))).map_err(|error| HandshakeRefusal {
            reason: why(&error),
            error,
            common_name: None,
        })
    }
}

fn why(error: &io::Error) -> Option<&'static str> {
    use rustls::Error;
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    Some(match error {
        Error::NoCertificatesPresented => "certificate_missing",
        Error::InvalidCertificate(error) => match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => "certificate_expired",
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "certificate_not_valid_yet"
            }
            CertificateError::Revoked => "certificate_revoked",
            CertificateError::UnknownIssuer | CertificateError::BadSignature => "certificate_issuer",
            _ => "certificate_malformed",
        },
        Error::AlertReceived(_) => "tls_alert",
        Error::PeerIncompatible(_) => "tls_version",
        _ => "tls_malformed",
    })
}

impl AsyncRead for Secured {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.0.get_ref().1.wants_write()
            && let Poll::Ready(Err(error)) = Pin::new(&mut *self.0).poll_flush(cx)
        {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut *self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Secured {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_are_written_without_leading_zeros() {
        assert_eq!(hexadecimal(&[0, 0x0a, 0xff]), "aff");
        assert_eq!(hexadecimal(&[0]), "0");
    }
}
