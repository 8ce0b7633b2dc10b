//! Accepts connections and speaks HTTP/1.1 on them.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::limits;
use crate::router::router;
use crate::state::State;

/// Serves until `stop`, then finishes the requests under way, for at most [`limits::DRAIN_TIME_MAX`].
///
/// At [`limits::CONNECTIONS_MAX`] connections it stops accepting until one ends; those that come meanwhile wait
/// in the kernel's queue.
pub async fn serve(listener: TcpListener, state: State, stop: CancellationToken) {
    let router = router(state.clone());
    let places = Arc::new(Semaphore::new(limits::CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let next = async {
            let Ok(place) = places.clone().acquire_owned().await else {
                return std::future::pending().await; // never closed
            };
            (accept(&listener).await, place)
        };
        let (stream, place) = tokio::select! {
            () = stop.cancelled() => break,
            _ = tick.tick() => {
                state.sample(Instant::now());
                continue;
            }
            accepted = next => accepted,
        };
        reap(&mut connections);
        let (router, stop, metrics) = (router.clone(), stop.clone(), state.parts.metrics.clone());
        metrics.connections_opened.inc();
        connections.spawn(async move {
            connection(stream, router, stop).await;
            metrics.connections_closed.inc();
            drop(place);
        });
    }
    drop(listener);
    while let Some(ended) = connections.join_next().await {
        note_panic(ended);
    }
}

/// The next connection. Most failures are one client's; where it is ours (no file descriptors left), waiting
/// a little gives others time to end.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                tracing::warn!(%error, "http connection not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Forgets the connections that have ended.
fn reap(connections: &mut JoinSet<()>) {
    while let Some(ended) = connections.try_join_next() {
        note_panic(ended);
    }
}

fn note_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "an http connection failed in our own code");
    }
}

async fn connection(stream: TcpStream, router: Router, stop: CancellationToken) {
    let _ = stream.set_nodelay(true); // only slower without
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits::HEAD_TIME_MAX)
        .max_buf_size(limits::BUFFER_BYTES_MAX);
    let mut served = pin!(http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)));
    // How a connection ends (reset, silence, a broken request) is the client's affair.
    tokio::select! {
        _ = served.as_mut() => return,
        () = stop.cancelled() => {}
        () = tokio::time::sleep(limits::CONNECTION_LIFE_MAX) => {}
    }
    served.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(limits::DRAIN_TIME_MAX, served).await;
}
