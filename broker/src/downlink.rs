//! Messages of the server for one connected terminal: what is promised of them, and the box they wait in.
//!
//! A terminal subscribes to plain topics of its own and takes no place at the hub: what it gets comes through
//! [`GateControl::deliver`](crate::GateControl::deliver) and ends with its PUBACK. [`Mailbox`] is where deliveries
//! wait for their connection. Bounded: a full box refuses. It ends with the connection; whoever offered a
//! delivery learns from its receipt and may offer it again.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::ack::lock;
use crate::topic::TopicFilter;

/// A message for one connected terminal, to be sent with QoS 1.
#[derive(Debug)]
pub struct Delivery {
    /// Topic, which the terminal must have subscribed to.
    pub topic: String,
    /// What it is told.
    pub payload: Bytes,
    /// When it becomes worthless, in microseconds since 1970; it is not sent after that.
    pub expires_us: Option<i64>,
    /// Who wants to know.
    pub receipt: DeliveryReceipt,
}

/// Told `done` when the terminal has acknowledged the message (or, subscribed with QoS 0, when it is written).
/// Dropped before that, the message may not have arrived and may be offered again.
#[derive(Debug)]
#[must_use = "dropping a receipt says that the message was not delivered"]
pub struct DeliveryReceipt(oneshot::Sender<()>);

impl DeliveryReceipt {
    /// A receipt, and the channel that says `Ok` once it is done, or an error when it was dropped undone.
    pub fn watched() -> (Self, oneshot::Receiver<()>) {
        let (sender, receiver) = oneshot::channel();
        (Self(sender), receiver)
    }

    /// The message has arrived.
    pub fn done(self) {
        // Nobody watching is not an error.
        let _ = self.0.send(());
    }
}

/// Why a delivery is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum DeliverError {
    /// No connection has this client id.
    #[error("the terminal is not connected")]
    NotConnected,
    /// It is connected, but does not listen on this topic.
    #[error("the terminal has not subscribed to the topic")]
    NotSubscribed,
    /// Too many deliveries wait for it already.
    #[error("too many deliveries wait for the terminal")]
    Full,
}

/// Deliveries waiting for one connection. Costs nothing until the connection subscribes.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    state: Mutex<State>,
    /// Whether something waits, so that the connection need not lock to see that nothing does.
    waiting: AtomicBool,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Silent,
    Listening(Box<Listening>),
    Closed,
}

#[derive(Debug, Default)]
struct Listening {
    topics: Vec<TopicFilter>,
    queue: VecDeque<Delivery>,
}

impl Mailbox {
    /// The connection listens on these topics from now on, and on no others.
    pub(crate) fn listen(&self, topics: Vec<TopicFilter>) {
        let mut state = lock(&self.state);
        match &mut *state {
            State::Closed => {}
            // What waits for a topic that was left is not sent: the session has no subscription for it.
            State::Listening(listening) => listening.topics = topics,
            State::Silent => {
                *state = State::Listening(Box::new(Listening { topics, queue: VecDeque::new() }));
            }
        }
    }

    /// Puts a delivery in. Full: refused.
    pub(crate) fn put(&self, delivery: Delivery, len_max: usize) -> Result<(), DeliverError> {
        match &mut *lock(&self.state) {
            State::Closed => Err(DeliverError::NotConnected),
            State::Silent => Err(DeliverError::NotSubscribed),
            State::Listening(listening) => {
                if !listening.topics.iter().any(|topic| topic.as_str() == delivery.topic) {
                    return Err(DeliverError::NotSubscribed);
                }
                if listening.queue.len() >= len_max {
                    return Err(DeliverError::Full);
                }
                listening.queue.push_back(delivery);
                self.waiting.store(true, Ordering::Release);
                Ok(())
            }
        }
    }

    /// The oldest delivery.
    pub(crate) fn take(&self) -> Option<Delivery> {
        if !self.waiting.load(Ordering::Acquire) {
            return None;
        }
        let mut state = lock(&self.state);
        let State::Listening(listening) = &mut *state else { return None };
        let delivery = listening.queue.pop_front();
        self.waiting.store(!listening.queue.is_empty(), Ordering::Release);
        delivery
    }

    /// The connection ended: what waits is dropped, nothing comes in any more.
    pub(crate) fn close(&self) {
        let state = std::mem::replace(&mut *lock(&self.state), State::Closed);
        drop(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(topic: &str) -> (Delivery, oneshot::Receiver<()>) {
        let (receipt, told) = DeliveryReceipt::watched();
        (Delivery { topic: topic.into(), payload: Bytes::new(), expires_us: None, receipt }, told)
    }

    #[test]
    fn deliveries_wait_in_order_up_to_the_bound() {
        let mailbox = Mailbox::default();
        let put = |topic| mailbox.put(delivery(topic).0, 2);
        assert_eq!(put("a"), Err(DeliverError::NotSubscribed), "silent");
        mailbox.listen(vec![TopicFilter::new("a").unwrap(), TopicFilter::new("b").unwrap()]);
        assert_eq!((put("a"), put("b"), put("a")), (Ok(()), Ok(()), Err(DeliverError::Full)));
        assert_eq!(put("c"), Err(DeliverError::NotSubscribed));
        assert_eq!(mailbox.take().map(|d| d.topic).as_deref(), Some("a"));
        assert_eq!(mailbox.take().map(|d| d.topic).as_deref(), Some("b"));
        assert!(mailbox.take().is_none());
    }

    #[test]
    fn a_closed_box_drops_what_waits_and_takes_nothing() {
        let mailbox = Mailbox::default();
        mailbox.listen(vec![TopicFilter::new("a").unwrap()]);
        let (waiting, mut told) = delivery("a");
        assert_eq!(mailbox.put(waiting, 9), Ok(()));
        mailbox.close();
        assert_eq!(told.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        assert_eq!(mailbox.put(delivery("a").0, 9), Err(DeliverError::NotConnected));
    }
}
