//! The router's thread: started, fed, replaced.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use rumqttd::local::{LinkBuilder, LinkError, LinkRx, LinkTx};
use rumqttd::protocol::{self, Packet};
use rumqttd::{Router as Rumqttd, RouterConfig};
use tokio::sync::{Notify, mpsc};

use super::{Fanout, Hub, HubConfig};
use crate::ack::lock;
use crate::inbound::QoS;
use crate::topic::TopicFilter;

/// Messages given to the router in one go.
const BATCH_MAX: usize = 256;
/// Messages the feed may be ahead of the router.
const AHEAD_MAX: usize = 4_096;
/// How often the feed looks whether the router has caught up.
const AHEAD_POLL: Duration = Duration::from_millis(1);
/// A router that takes nothing for so long is given up.
const STUCK_AFTER: Duration = Duration::from_secs(10);
/// Between attempts to start a router.
const RESTART_PAUSE: Duration = Duration::from_secs(1);
/// Links beside those of subscribers: the feed's, and those that are just leaving.
const SPARE_LINKS: usize = 256;

/// Bytes in front of a message's own correlation data, see [`envelope`].
pub(super) const ENVELOPE_BYTES: usize = 21;
/// Stands for a message that does not expire.
pub(super) const NO_EXPIRY: u32 = u32::MAX;
/// Properties larger than that are not passed on: the router's logs are bounded by topics and payloads alone.
const PROPERTIES_BYTES_MAX: usize = 1 << 10;

type MakeLink = dyn Fn(&str) -> Result<(LinkTx, LinkRx), Box<LinkError>> + Send + Sync;

/// A running router.
pub(super) struct Router {
    make_link: Arc<MakeLink>,
    links: AtomicU64,
    /// Hashes of the filters it has a log for.
    filters: Mutex<HashSet<u64>>,
    hasher: RandomState,
    /// Rung by whoever finds it dead.
    pub(super) broken: Notify,
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Router").field("links", &self.links).finish_non_exhaustive()
    }
}

impl Router {
    fn start(config: &HubConfig) -> Self {
        let router = Rumqttd::new(
            0,
            RouterConfig {
                max_connections: config.subscribers_max + SPARE_LINKS,
                max_outgoing_packet_count: 200,
                // Below 1 KB it panics.
                max_segment_size: config.segment_bytes.max(1_024),
                max_segment_count: config.segments.max(2),
                ..RouterConfig::default()
            },
        );
        let router = router.spawn();
        let make_link = move |id: &str| {
            let (tx, rx, _) = LinkBuilder::new(id, router.clone()).build().map_err(Box::new)?;
            Ok((tx, rx))
        };
        Self {
            make_link: Arc::new(make_link),
            links: AtomicU64::new(0),
            filters: Mutex::default(),
            hasher: RandomState::new(),
            broken: Notify::new(),
        }
    }

    /// A filter was subscribed to: the router keeps a log for it from now on.
    pub(super) fn note_filter(&self, filter: &TopicFilter) {
        lock(&self.filters).insert(self.hasher.hash_one(filter));
    }

    /// Whether it has grown beyond what it may.
    fn is_full(&self, topics: usize, config: &HubConfig) -> bool {
        topics >= config.topics_max
            || self.links.load(Ordering::Relaxed) >= config.links_max
            || lock(&self.filters).len() >= config.filters_max
    }

    /// A link under an id never used before: the router would end an older one of the same id.
    pub(super) async fn link(&self) -> Option<(LinkTx, LinkRx)> {
        let id = format!("link-{}", self.links.fetch_add(1, Ordering::Relaxed));
        let make_link = Arc::clone(&self.make_link);
        // The router answers through a blocking channel.
        match tokio::task::spawn_blocking(move || make_link(&id)).await {
            Ok(Ok(link)) => Some(link),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the hub's router refused a link");
                None
            }
            Err(_) => None,
        }
    }
}

/// Feeds the router with what the gate committed; replaces it when it must be.
pub(super) async fn feed(hub: Hub, mut queue: mpsc::Receiver<Fanout>) {
    loop {
        let config = hub.0.config.clone();
        let Ok(router) = tokio::task::spawn_blocking(move || Router::start(&config)).await else {
            tracing::error!("the hub's router did not start");
            tokio::time::sleep(RESTART_PAUSE).await;
            continue;
        };
        let router = Arc::new(router);
        let Some((mut tx, rx)) = router.link().await else {
            tokio::time::sleep(RESTART_PAUSE).await;
            continue;
        };
        hub.0.router.send_replace(Some(Arc::clone(&router)));
        let ended = feed_one(&hub, &router, &mut tx, &mut queue).await;
        hub.0.router.send_replace(None);
        hub.0.metrics.hub_rebuilt.inc();
        match ended {
            Ended::Broken => tracing::error!("the hub's router died and is replaced"),
            Ended::Full => {
                tracing::info!("the hub's router is replaced; the panic of its thread that follows ends it");
                end(tx, &rx).await;
            }
        }
    }
}

enum Ended {
    Broken,
    Full,
}

async fn feed_one(hub: &Hub, router: &Router, tx: &mut LinkTx, queue: &mut mpsc::Receiver<Fanout>) -> Ended {
    let config = &hub.0.config;
    let mut batch = Vec::with_capacity(BATCH_MAX);
    let mut topics = HashSet::new();
    loop {
        tokio::select! {
            _ = queue.recv_many(&mut batch, BATCH_MAX) => {}
            () = router.broken.notified() => return Ended::Broken,
        }
        topics.extend(batch.iter().map(|fanout| router.hasher.hash_one(&*fanout.topic)));
        if tokio::time::timeout(STUCK_AFTER, caught_up(tx)).await.is_err() {
            return Ended::Broken;
        }
        let last = batch.pop();
        tx.buffer().extend(batch.drain(..).map(packet));
        if let Some(last) = last
            && tx.send(packet(last)).await.is_err()
        {
            return Ended::Broken;
        }
        if router.is_full(topics.len(), config) {
            return Ended::Full;
        }
    }
}

async fn caught_up(tx: &LinkTx) {
    loop {
        let ahead = tx.buffer().len();
        if ahead < AHEAD_MAX {
            return;
        }
        tokio::time::sleep(AHEAD_POLL).await;
    }
}

/// Ends the router's thread: it has no way to stop, but does not survive news of a link that has left. Its
/// memory goes with it.
async fn end(mut tx: LinkTx, rx: &LinkRx) {
    let goodbye = protocol::Disconnect { reason_code: protocol::DisconnectReasonCode::NormalDisconnection };
    // Failing means that it has ended already.
    let _ = tx.send(Packet::Disconnect(goodbye, None)).await;
    let _ = rx.ready();
}

/// Makes the router's packet. What the router does not carry (QoS, time of arrival, the connection it came on)
/// travels in front of the correlation data, which it passes on untouched; so does the expiry, because what the
/// router leaves out as expired could not be told from what it has lost.
fn packet(mut fanout: Fanout) -> Packet {
    if fanout.properties.as_ref().is_some_and(|properties| properties.bytes() > PROPERTIES_BYTES_MAX) {
        fanout.properties = None;
    }
    let topic = Bytes::copy_from_slice(fanout.topic.as_bytes());
    let properties = fanout.properties.as_deref();
    let correlation = properties.and_then(|p| p.correlation.as_deref()).unwrap_or_default();
    let mut properties = protocol::PublishProperties {
        correlation_data: Some(envelope(&fanout, correlation)),
        ..protocol::PublishProperties::default()
    };
    if let Some(ours) = fanout.properties {
        properties.payload_format_indicator = ours.payload_format;
        properties.content_type = ours.content_type;
        properties.response_topic = ours.response_topic;
        properties.user_properties = ours.user;
    }
    // Never retained by the router, see the module's documentation.
    let publish = protocol::Publish::new(topic, fanout.payload, false);
    Packet::Publish(publish, Some(properties))
}

fn envelope(fanout: &Fanout, correlation: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(ENVELOPE_BYTES + correlation.len());
    let qos = match fanout.qos {
        QoS::AtMostOnce => 0,
        QoS::AtLeastOnce => 1,
        QoS::ExactlyOnce => 2,
    };
    bytes.put_u8(qos | u8::from(fanout.retain) << 2);
    bytes.put_i64(fanout.arrived_us);
    bytes.put_u64(fanout.epoch);
    bytes.put_u32(fanout.properties.as_ref().and_then(|p| p.expiry_s).unwrap_or(NO_EXPIRY));
    bytes.put_slice(correlation);
    bytes.freeze()
}
