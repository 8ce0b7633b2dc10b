//! Keeps one client connected: reads, writes, pings, and comes back with growing patience.

use std::time::Duration;

use bytes::{Buf, BytesMut};
use domain::Timestamp;
use rand::Rng;
use rumqttc::mqttbytes;
use rumqttc::mqttbytes::v4::{Packet, PingReq, PubRel};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::link::{ConnectError, Link, LinkOptions, PACKET_BYTES_MAX};
use crate::clock::Clock;

/// Bytes written at a time; a client with more to say waits for the socket.
const OUTPUT_BYTES_MAX: usize = 64 * 1024;
/// An emptied buffer larger than this is given back.
const BUFFER_BYTES_KEPT: usize = 4 * 1024;
/// A client with nothing due by itself is looked at this often.
const IDLE: Duration = Duration::from_secs(30);

/// What speaks over a connection. Keeps what is unacknowledged, so that a connection may go at any time.
pub(crate) trait Client: Send {
    /// When [`Client::tick`] has something to do by itself.
    fn next_due(&self) -> Option<Timestamp>;
    /// Lets time pass; also looks into its mailbox.
    fn tick(&mut self, now: Timestamp);
    fn connected(&mut self, now: Timestamp);
    fn disconnected(&mut self, now: Timestamp);
    /// No connection came about.
    fn refused(&mut self, error: &ConnectError);
    /// Writes the next PUBLISH, if there is one and its window has room.
    fn next_frame(&mut self, now: Timestamp, output: &mut BytesMut) -> bool;
    /// PUBACK or PUBREC.
    fn acknowledged(&mut self, pkid: u16, now: Timestamp);
    /// Nothing is left to do.
    fn finished(&self) -> bool;
}

enum End {
    Finished,
    Cut,
    Cancelled,
}

/// Runs `client` until it is finished or `cancel` is called. `wake` rouses it for its mailbox.
pub(crate) async fn drive<C: Client>(
    client: &mut C,
    options: &LinkOptions,
    clock: Clock,
    wake: &Notify,
    cancel: &CancellationToken,
) {
    let mut failures = 0;
    loop {
        let opened = tokio::select! {
            opened = Link::open(options) => opened,
            () = cancel.cancelled() => return,
        };
        match opened {
            Ok(mut link) => {
                client.connected(clock.now());
                let begin = Instant::now();
                let end = converse(client, &mut link, options.keep_alive, clock, wake, cancel).await;
                client.disconnected(clock.now());
                match end {
                    End::Cut => {}
                    End::Finished | End::Cancelled => return,
                }
                // A server that accepts and closes at once is as good as away.
                failures = if begin.elapsed() > options.backoff_max { 0 } else { failures + 1 };
            }
            Err(error) => {
                client.refused(&error);
                failures += 1;
            }
        }
        if !wait(client, backoff(options, failures), clock, wake, cancel).await {
            return;
        }
    }
}

/// Doubles from the first wait to the longest; half of it is chance, so that a fleet does not come back as one.
fn backoff(options: &LinkOptions, failures: u32) -> Duration {
    let factor = 1_u32 << failures.saturating_sub(1).min(16);
    let full = options.backoff_min.saturating_mul(factor).min(options.backoff_max);
    full.mul_f64(rand::rng().random_range(0.5..=1.0))
}

/// Waits while the client lives on. False: give up.
async fn wait<C: Client>(
    client: &mut C,
    span: Duration,
    clock: Clock,
    wake: &Notify,
    cancel: &CancellationToken,
) -> bool {
    let end = Instant::now() + span;
    loop {
        tokio::select! {
            () = sleep_until(end) => return !client.finished(),
            () = wake.notified() => {
                client.tick(clock.now());
                if client.finished() {
                    return false;
                }
            }
            () = cancel.cancelled() => return false,
        }
    }
}

async fn converse<C: Client>(
    client: &mut C,
    link: &mut Link,
    keep_alive: Duration,
    clock: Clock,
    wake: &Notify,
    cancel: &CancellationToken,
) -> End {
    let Link { stream, input, output } = link;
    let (mut reader, mut writer) = stream.split();
    let patience = keep_alive.mul_f64(0.75);
    let (mut read_at, mut written_at, mut ping_at) = (Instant::now(), Instant::now(), None::<Instant>);
    let timer = sleep_until(Instant::now());
    tokio::pin!(timer);
    loop {
        let now = clock.now();
        client.tick(now);
        while output.len() < OUTPUT_BYTES_MAX && client.next_frame(now, output) {}
        if client.finished() {
            // DISCONNECT, so that no will is published. Nobody answers it.
            output.extend_from_slice(&[0xE0, 0x00]);
            let _ = writer.write_all_buf(output).await;
            return End::Finished;
        }
        let quiet_until = match ping_at {
            Some(at) => at + keep_alive,
            None => read_at.min(written_at) + patience,
        };
        let due = client.next_due().map_or(Instant::now() + IDLE, |at| clock.instant(at)).min(quiet_until);
        if timer.deadline() != due {
            timer.as_mut().reset(due);
        }
        tokio::select! {
            read = reader.read_buf(input) => match read {
                Ok(0) | Err(_) => return End::Cut,
                Ok(_) => {
                    (read_at, ping_at) = (Instant::now(), None);
                    if !take_in(client, input, output, clock.now()) {
                        return End::Cut;
                    }
                    give_back(input);
                }
            },
            written = writer.write_buf(output), if !output.is_empty() => match written {
                Ok(_) => {
                    written_at = Instant::now();
                    give_back(output);
                }
                Err(_) => return End::Cut,
            },
            () = &mut timer => {
                if Instant::now() >= quiet_until {
                    if ping_at.is_some() {
                        return End::Cut;
                    }
                    ping_at = Some(Instant::now());
                    if PingReq.write(output).is_err() {
                        return End::Cut;
                    }
                }
            }
            () = wake.notified() => {}
            () = cancel.cancelled() => return End::Cancelled,
        }
    }
}

/// Thousands of connections must not each keep the largest buffer they ever needed.
fn give_back(buffer: &mut BytesMut) {
    if buffer.is_empty() && buffer.capacity() > BUFFER_BYTES_KEPT {
        *buffer = BytesMut::new();
    }
}

/// Handles every complete packet. False: the server does not speak MQTT, or says goodbye.
fn take_in<C: Client>(client: &mut C, input: &mut BytesMut, output: &mut BytesMut, now: Timestamp) -> bool {
    loop {
        // Nearly everything a terminal hears is PUBACK; it is read in place.
        if let [0x40, 2, high, low, ..] = input[..] {
            input.advance(4);
            client.acknowledged(u16::from_be_bytes([high, low]), now);
            continue;
        }
        match Packet::read(input, PACKET_BYTES_MAX) {
            Ok(Packet::PubAck(ack)) => client.acknowledged(ack.pkid, now),
            Ok(Packet::PubRec(received)) => {
                client.acknowledged(received.pkid, now);
                if PubRel::new(received.pkid).write(output).is_err() {
                    return false;
                }
            }
            Ok(Packet::Disconnect) => return false,
            Ok(_) => {}
            Err(mqttbytes::Error::InsufficientBytes(_)) => return true,
            Err(_) => return false,
        }
    }
}
