//! This program as the gate, with a consumer that commits at once.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use broker::{
    AuthFuture, Authenticate, ClientCertificates, ConnectInfo, Gate, GateConfig, Hub, HubConfig, Inbound,
    Metrics, Principal, PrincipalKind, RateLimits, Refusal, TlsConfig, TopicFilter,
};
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;

use crate::Failure;

/// What the parent tells its child. Holds the folder of the certificates, or nothing.
pub(crate) const SERVE: &str = "LIFTWATCH_BENCH_SERVE";
/// Loopback is trusted by default; with this it is not.
pub(crate) const LIMITS: &str = "LIFTWATCH_BENCH_LIMITS";

pub(crate) struct Settings {
    certificates: Option<PathBuf>,
    with_limits: bool,
}

impl Settings {
    pub(crate) fn from_environment() -> Option<Self> {
        let folder = std::env::var(SERVE).ok()?;
        let certificates = (!folder.is_empty()).then(|| folder.into());
        Some(Self { certificates, with_limits: std::env::var(LIMITS).is_ok() })
    }
}

struct Everyone;

impl Authenticate for Everyone {
    fn authenticate<'a>(&'a self, info: &'a ConnectInfo) -> AuthFuture<'a> {
        Box::pin(async move {
            let own = TopicFilter::new(&format!("lift/v1/+/{}/#", info.client_id));
            let own = own.map_err(|_| Refusal::BadClientId)?;
            let kind = PrincipalKind::Terminal;
            Ok(Principal { kind, publish: vec![own.clone()], subscribe: vec![own] })
        })
    }
}

/// Serves until the parent closes the standard input.
pub(crate) async fn run(settings: Settings) -> Result<(), Failure> {
    let metrics = Arc::new(Metrics::default());
    let hub = Hub::start(HubConfig::default(), Arc::clone(&metrics));
    let (sender, mut inbound) = tokio::sync::mpsc::channel(8_192);
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let tls = settings.certificates.map(|folder| TlsConfig {
        listen: Some(listen),
        certificate: folder.join("server.pem"),
        key: folder.join("server.key"),
        client_ca: Some(folder.join("ca.pem")),
        crl: None,
        client_certificates: ClientCertificates::Required,
    });
    let mut limits = RateLimits::default();
    if settings.with_limits {
        limits.trusted.clear();
    }
    let config = GateConfig { listen: Some(listen), tls, limits, ..GateConfig::default() };
    let gate = Gate::bind(config, Arc::new(Everyone), sender, hub, metrics).await?;
    let addresses = gate.addresses();
    let address = addresses.tls.or(addresses.tcp).ok_or("it listens nowhere")?;
    println!("{address}");
    let stop = CancellationToken::new();
    let running = tokio::spawn(gate.run(stop.clone()));
    let consumer = tokio::spawn(async move {
        let mut batch = Vec::new();
        while inbound.recv_many(&mut batch, 1_024).await > 0 {
            for item in batch.drain(..) {
                if let Inbound::Publish(publish) = item {
                    publish.ack.done();
                }
            }
        }
    });
    // The parent writes nothing; this ends when it does.
    let _ = tokio::io::stdin().read(&mut [0]).await;
    stop.cancel();
    running.await?;
    consumer.await?;
    Ok(())
}
