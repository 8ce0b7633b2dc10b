//! Fan-out to subscribers: rumqttd's router, fed only with committed messages.
//!
//! Owns the router, the retained messages and one link per subscribing connection. Never on the way of an
//! acknowledgement: [`Hub::forward`] and [`Hub::publish`] do not wait. Bounds: the feed drops and counts when it
//! is full, a subscriber whose queue is full (or of whom the router dropped something) is disconnected and
//! counted, the retained map refuses and counts.
//!
//! rumqttd keeps every topic, filter and past link for ever, and nothing stops its thread. So the router is
//! replaced when it has seen a set number of them, and when it died; its subscribers are disconnected then and come
//! back. Retained messages are not given to the router (it forwards at most some hundred of them): they are kept
//! here and sent by the connection.

mod link;
mod retained;
mod router;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use crate::ack::lock;
use crate::config::HubConfig;
use crate::inbound::{Properties, QoS};
use crate::metrics::Metrics;
use crate::topic::{self, TopicFilter};

pub(crate) use link::{Forwarded, Subscriber};
use retained::{Page, Retained};
use router::Router;

/// Microseconds since 1970.
pub(crate) fn now_us() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |age| i64::try_from(age.as_micros()).unwrap_or(i64::MAX))
}

/// A message for all who subscribed to its topic.
#[derive(Debug)]
pub(crate) struct Fanout {
    pub(crate) topic: Arc<str>,
    pub(crate) payload: Bytes,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) arrived_us: i64,
    /// Connection it came on; 0 for messages of the server.
    pub(crate) epoch: u64,
    pub(crate) properties: Option<Box<Properties>>,
}

/// The hub; clones are the same hub.
#[derive(Clone, Debug)]
pub struct Hub(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    config: HubConfig,
    metrics: Arc<Metrics>,
    feed: mpsc::Sender<Fanout>,
    subscribers: AtomicUsize,
    retained: Mutex<Retained>,
    router: watch::Sender<Option<Arc<Router>>>,
}

/// Why a connection cannot subscribe now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SubscribeError {
    #[error("too many subscribers")]
    TooMany,
    #[error("the hub's router does not answer")]
    Lost,
}

impl Hub {
    /// Starts the router's thread and the task that feeds it. Must be called within a tokio runtime. Both run
    /// until the process ends.
    pub fn start(config: HubConfig, metrics: Arc<Metrics>) -> Self {
        let (hub, queue) = Self::new(config, metrics);
        tokio::spawn(router::feed(hub.clone(), queue));
        hub
    }

    /// A hub without router, to which nobody can subscribe.
    #[cfg(test)]
    pub(crate) fn idle(config: HubConfig, metrics: Arc<Metrics>) -> Self {
        Self::new(config, metrics).0
    }

    fn new(config: HubConfig, metrics: Arc<Metrics>) -> (Self, mpsc::Receiver<Fanout>) {
        // Full: the message is not fanned out, counted in `hub_dropped`.
        let (feed, queue) = mpsc::channel(config.feed_len.max(1));
        let retained = Mutex::new(Retained::new(config.retained_max, config.retained_bytes));
        let hub = Self(Arc::new(Shared {
            config,
            metrics,
            feed,
            subscribers: AtomicUsize::new(0),
            retained,
            router: watch::Sender::new(None),
        }));
        (hub, queue)
    }

    /// Publishes a message of the server itself, QoS 1; with `retain` it is also kept for later subscribers (an
    /// empty payload forgets). A topic with wildcards, non-ASCII characters or a leading `$` is ignored.
    pub fn publish(&self, topic: &str, payload: Bytes, retain: bool) {
        if !topic::is_topic_for_hub(topic) {
            return tracing::warn!(topic, "not a topic for the hub");
        }
        let (topic, qos) = (Arc::from(topic), QoS::AtLeastOnce);
        self.forward(Fanout {
            topic,
            payload,
            qos,
            retain,
            arrived_us: now_us(),
            epoch: 0,
            properties: None,
        });
    }

    /// Whether a message would reach anyone now.
    pub(crate) fn is_wanted(&self) -> bool {
        self.0.subscribers.load(Ordering::Relaxed) > 0
    }

    /// Passes on a committed message whose topic is fit for the hub. Does not wait.
    pub(crate) fn forward(&self, fanout: Fanout) {
        let shared = &*self.0;
        if fanout.retain {
            // Before it is fed, so that no subscriber sees an older retained message after a newer live one.
            let mut retained = lock(&shared.retained);
            if !retained.put(&fanout) {
                shared.metrics.retained_refused.inc();
            }
            shared.metrics.retained.set(retained.len() as i64);
        }
        if !self.is_wanted() {
            return;
        }
        shared.metrics.hub_in.inc();
        if shared.feed.try_send(fanout).is_err() {
            shared.metrics.hub_dropped.inc();
        }
    }

    /// Up to a page of retained messages of `filter` on topics after `after`, and where the next page begins.
    pub(crate) fn retained(&self, filter: &TopicFilter, after: Option<&str>) -> Page {
        lock(&self.0.retained).page(filter, after)
    }

    /// A link of its own for a connection that subscribes.
    pub(crate) async fn subscriber(&self) -> Result<Subscriber, SubscribeError> {
        let seat = Seat::take(self).ok_or(SubscribeError::TooMany)?;
        let mut router = self.0.router.subscribe();
        let router = match router.wait_for(Option::is_some).await {
            Ok(router) => router.clone().ok_or(SubscribeError::Lost)?,
            Err(_) => return Err(SubscribeError::Lost),
        };
        if let Some((tx, rx)) = router.link().await {
            return Ok(link::start(seat, router, tx, rx));
        }
        router.broken.notify_one();
        Err(SubscribeError::Lost)
    }
}

/// One of the places for subscribers; given back when dropped.
#[derive(Debug)]
struct Seat(Hub);

impl Seat {
    fn take(hub: &Hub) -> Option<Self> {
        let subscribers_max = hub.0.config.subscribers_max;
        let taken = hub
            .0
            .subscribers
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n < subscribers_max).then_some(n + 1));
        taken.ok()?;
        hub.0.metrics.hub_subscribers.inc();
        Some(Self(hub.clone()))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.0.subscribers.fetch_sub(1, Ordering::AcqRel);
        self.0.0.metrics.hub_subscribers.dec();
    }
}
