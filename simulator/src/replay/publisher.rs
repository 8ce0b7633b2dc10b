//! One terminal of a replay: sends what it is handed, in order, and keeps it until it is acknowledged.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use domain::Timestamp;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::Publish;
use tokio::sync::mpsc;

use super::Shared;
use crate::fleet::counters::add;
use crate::mqtt::{Client, ConnectError};

/// A recorded message on its way back.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    pub(super) topic: String,
    pub(super) payload: Bytes,
    pub(super) qos: u8,
    pub(super) sent_before: bool,
}

pub(super) struct Publisher {
    index: usize,
    frames: mpsc::Receiver<Frame>,
    window: usize,
    inflight: VecDeque<(u16, Timestamp, Frame)>,
    again: VecDeque<Frame>,
    last_pkid: u16,
    connects: u64,
    over: bool,
    shared: Arc<Shared>,
}

impl Publisher {
    pub(super) fn new(
        index: usize,
        frames: mpsc::Receiver<Frame>,
        window: usize,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            index,
            frames,
            window,
            inflight: VecDeque::new(),
            again: VecDeque::new(),
            last_pkid: 0,
            connects: 0,
            over: false,
            shared,
        }
    }

    /// Messages taken and not acknowledged.
    pub(super) fn unacknowledged(&self) -> u64 {
        (self.inflight.len() + self.again.len() + self.frames.len()) as u64
    }

    fn next(&mut self) -> Option<Frame> {
        if let Some(frame) = self.again.pop_front() {
            return Some(frame);
        }
        match self.frames.try_recv() {
            Ok(frame) => Some(frame),
            Err(mpsc::error::TryRecvError::Empty) => None,
            Err(mpsc::error::TryRecvError::Disconnected) => {
                self.over = true;
                None
            }
        }
    }
}

impl Client for Publisher {
    fn next_due(&self) -> Option<Timestamp> {
        None
    }

    fn tick(&mut self, _now: Timestamp) {}

    fn connected(&mut self, _now: Timestamp) {
        add(&self.shared.counters.connected, 1);
        add(&self.shared.counters.reconnects, u64::from(self.connects > 0));
        self.connects += 1;
    }

    fn disconnected(&mut self, _now: Timestamp) {
        self.shared.counters.connected.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
        for (_, _, frame) in self.inflight.drain(..).rev() {
            self.again.push_front(Frame { sent_before: true, ..frame });
        }
    }

    fn refused(&mut self, error: &ConnectError) {
        add(&self.shared.counters.refused, 1);
        self.shared.note_refusal(error);
    }

    fn next_frame(&mut self, now: Timestamp, output: &mut BytesMut) -> bool {
        if self.inflight.len() >= self.window {
            return false;
        }
        let Some(frame) = self.next() else { return false };
        let qos = match frame.qos {
            0 => QoS::AtMostOnce,
            1 => QoS::AtLeastOnce,
            _ => QoS::ExactlyOnce,
        };
        self.last_pkid = self.last_pkid.checked_add(1).unwrap_or(1);
        let pkid = if frame.qos == 0 { 0 } else { self.last_pkid };
        let publish = Publish {
            dup: false,
            qos,
            retain: false,
            topic: frame.topic.clone(),
            pkid,
            payload: frame.payload.clone(),
        };
        publish.write(output).expect("a packet id, and far below 256 MB");
        let counters = &self.shared.counters;
        add(&counters.sent, 1);
        add(&counters.payload_bytes, frame.payload.len() as u64);
        add(&counters.resent, u64::from(frame.sent_before));
        if frame.qos > 0 {
            self.inflight.push_back((pkid, now, frame));
        }
        true
    }

    fn acknowledged(&mut self, pkid: u16, now: Timestamp) {
        let Some(index) = self.inflight.iter().position(|(id, ..)| *id == pkid) else { return };
        if let Some((_, sent, _)) = self.inflight.remove(index) {
            add(&self.shared.counters.acked, 1);
            self.shared.latencies.record(self.index, now.since(sent), None);
        }
    }

    fn finished(&self) -> bool {
        self.over && self.inflight.is_empty() && self.again.is_empty()
    }
}
