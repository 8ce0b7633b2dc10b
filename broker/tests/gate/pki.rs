//! A device CA, made for one test: certificates, revocation lists, and clients that use them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use broker::{ClientCertificates, TlsConfig};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
    date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub(crate) struct Pki {
    folder: TempDir,
    ca: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key.
pub(crate) struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

impl Pki {
    pub(crate) fn new() -> Self {
        let mut params = named("device CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let pki = Self { folder: TempDir::new().unwrap(), ca };
        std::fs::write(pki.file("ca.pem"), pki.ca.pem()).unwrap();
        pki.renew_server();
        pki.revoke(&[]);
        pki
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a new certificate of the server.
    pub(crate) fn renew_server(&self) {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.ca).unwrap();
        std::fs::write(self.file("server.key"), key.serialize_pem()).unwrap();
        std::fs::write(self.file("server.pem"), certificate.pem()).unwrap();
    }

    pub(crate) fn issue(&self, name: &str, serial: u8) -> Identity {
        self.issue_until(name, serial, 2_100)
    }

    /// The certificate ends with the first day of `year`.
    pub(crate) fn issue_until(&self, name: &str, serial: u8, year: i32) -> Identity {
        let mut params = named(name);
        params.serial_number = Some(SerialNumber::from_slice(&[serial]));
        params.not_after = date_time_ymd(year, 1, 1);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.ca).unwrap().der().clone();
        Identity { certificate, key: PrivateKeyDer::try_from(key.serialize_der()).unwrap() }
    }

    /// Writes a list of exactly these serial numbers.
    pub(crate) fn revoke(&self, serials: &[u8]) {
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from_slice(&[*serial]),
            revocation_time: date_time_ymd(2_020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2_020, 1, 1),
            next_update: date_time_ymd(2_021, 1, 1),
            crl_number: SerialNumber::from_slice(&[1]),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        std::fs::write(self.file("crl.pem"), list.signed_by(&self.ca).unwrap().pem().unwrap()).unwrap();
    }

    pub(crate) fn config(&self, client_certificates: ClientCertificates) -> TlsConfig {
        TlsConfig {
            listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            certificate: self.file("server.pem"),
            key: self.file("server.key"),
            client_ca: Some(self.file("ca.pem")),
            crl: Some(self.file("crl.pem")),
            client_certificates,
        }
    }

    /// How a client speaks TLS that believes our CA.
    pub(crate) fn client(
        &self,
        identity: Option<Identity>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        Arc::new(match identity {
            Some(identity) => {
                builder.with_client_auth_cert(vec![identity.certificate], identity.key).unwrap()
            }
            None => builder.with_no_client_auth(),
        })
    }
}

/// A handshake to its end as the client sees it.
pub(crate) async fn connect(
    address: SocketAddr,
    client: &Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::clone(client)).connect(name, stream).await
}
