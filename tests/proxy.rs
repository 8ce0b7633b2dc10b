//! A wire between two parties that a test can cut, freeze or slow down.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{broadcast, watch};

/// What becomes of bytes on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wire {
    Through,
    /// Both ends stay open, and hear nothing.
    Frozen,
    /// Each piece comes this much later.
    Slow(Duration),
}

/// Where a proxy leads.
#[derive(Debug, Clone)]
pub(crate) enum Upstream {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// A TCP proxy. Ends with the value.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    wire: watch::Sender<Wire>,
    cut: broadcast::Sender<()>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn start(upstream: Upstream) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (wire, state) = watch::channel(Wire::Through);
        let (cut, _) = broadcast::channel(1);
        let cuts = cut.clone();
        let upstream = Arc::new(upstream);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (upstream, state, mut cut) = (upstream.clone(), state.clone(), cuts.subscribe());
                tokio::spawn(async move {
                    tokio::select! {
                        () = join(client, &upstream, state) => {}
                        _ = cut.recv() => {}
                    }
                });
            }
        });
        Self { address, wire, cut, accepting }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends every connection; new ones are made.
    pub(crate) fn cut(&self) {
        // Nobody connected is nothing to cut.
        let _ = self.cut.send(());
    }

    /// From now on nothing comes through, and no connection ends: new ones are taken and hear nothing.
    pub(crate) fn freeze(&self) {
        self.wire.send_replace(Wire::Frozen);
    }

    /// All comes, but late.
    pub(crate) fn slow(&self, by: Duration) {
        self.wire.send_replace(Wire::Slow(by));
    }

    /// All comes at once again. What was frozen is cut: nobody's wire comes back as it was.
    pub(crate) fn mend(&self) {
        if self.wire.send_replace(Wire::Through) == Wire::Frozen {
            self.cut();
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn join(client: TcpStream, upstream: &Upstream, state: watch::Receiver<Wire>) {
    let (read, write) = client.into_split();
    match upstream {
        Upstream::Tcp(address) => {
            let Ok(server) = TcpStream::connect(address).await else { return };
            let (from, to) = server.into_split();
            either(read, to, from, write, state).await;
        }
        Upstream::Unix(path) => {
            let Ok(server) = UnixStream::connect(path).await else { return };
            let (from, to) = server.into_split();
            either(read, to, from, write, state).await;
        }
    }
}

async fn either(
    read: impl AsyncRead + Unpin,
    to: impl AsyncWrite + Unpin,
    from: impl AsyncRead + Unpin,
    write: impl AsyncWrite + Unpin,
    state: watch::Receiver<Wire>,
) {
    tokio::select! {
        () = pump(read, to, state.clone()) => {}
        () = pump(from, write, state) => {}
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut state: watch::Receiver<Wire>,
) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let Ok(count @ 1..) = from.read(&mut buffer).await else { return };
        if state.wait_for(|wire| *wire != Wire::Frozen).await.is_err() {
            return;
        }
        let wire = *state.borrow();
        if let Wire::Slow(by) = wire {
            tokio::time::sleep(by).await;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
