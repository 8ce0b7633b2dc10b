//! Bytes from the client, cut into frames: a read buffer that is small for the idle and large for the busy.

use bytes::{Buf, Bytes, BytesMut};

use crate::codec::{self, CodecError};

/// Of an idle connection: two typical messages.
const READ_BYTES_MIN: usize = 512;
/// Of a busy one: a hundred messages per system call.
const READ_BYTES_MAX: usize = 16 << 10;
/// Small reads in a row after which a large buffer is given back.
const SMALL_READS: u32 = 16;
/// What a message costs beside its frame: its acknowledgement and its place in queues.
const MESSAGE_BYTES: usize = 256;

/// Bytes of the budget for a frame of `frame_bytes`.
pub(super) fn cost(frame_bytes: usize) -> usize {
    frame_bytes + MESSAGE_BYTES
}

/// What the input holds next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// A complete frame.
    Frame { bytes: usize, is_publish: bool },
    /// The beginning of a publish that does not fit the buffer: it needs room in the budget first.
    Large { bytes: usize, promised: bool },
    /// Not enough to tell.
    Nothing,
}

#[derive(Debug)]
pub(super) struct Input {
    buffer: BytesMut,
    /// Size of its allocation, of which `capacity` shows only what is not consumed.
    allocated: usize,
    /// Complete frames, in an allocation of exactly their size.
    frames: Bytes,
    frame_bytes_max: usize,
    /// Bytes still to come of a frame that is dropped unread.
    skip: usize,
    /// Room to make for a large frame.
    large: usize,
    small_reads: u32,
}

impl Input {
    /// `rest` is what came after CONNECT.
    pub(super) fn new(rest: BytesMut, frame_bytes_max: usize) -> Self {
        Self {
            allocated: rest.capacity(),
            buffer: rest,
            frames: Bytes::new(),
            frame_bytes_max,
            skip: 0,
            large: 0,
            small_reads: 0,
        }
    }

    /// The buffer to read into, with room.
    pub(super) fn room(&mut self) -> &mut BytesMut {
        if self.large > self.buffer.len() {
            self.buffer.reserve(self.large - self.buffer.len());
        } else if self.buffer.capacity() - self.buffer.len() < READ_BYTES_MIN / 2 {
            self.buffer.reserve(READ_BYTES_MIN);
        }
        self.allocated = self.allocated.max(self.buffer.capacity());
        &mut self.buffer
    }

    /// So many bytes were read into [`Self::room`]. Returns whether the socket is likely empty now.
    pub(super) fn read(&mut self, bytes: usize) -> bool {
        let skipped = self.skip.min(self.buffer.len());
        self.buffer.advance(skipped);
        self.skip -= skipped;
        let was_full = self.buffer.len() == self.buffer.capacity();
        if was_full && self.buffer.capacity() < READ_BYTES_MAX {
            self.buffer.reserve(READ_BYTES_MAX - self.buffer.len());
        }
        let is_small = bytes < READ_BYTES_MAX / 16;
        self.small_reads = if is_small { self.small_reads.saturating_add(1) } else { 0 };
        !was_full
    }

    /// Looks at what comes next. An error ends the connection.
    pub(super) fn peek(&mut self) -> Result<Next, CodecError> {
        if self.skip > 0 {
            return Ok(Next::Nothing);
        }
        if self.frames.is_empty() {
            let (end, next) = codec::complete(&self.buffer, self.frame_bytes_max)?;
            if end == 0 {
                return self.beginning(next);
            }
            self.frames = Bytes::copy_from_slice(&self.buffer[..end]);
            self.buffer.advance(end);
            self.large = 0;
            self.give_back();
        }
        let Some(bytes) = codec::frame_len(&self.frames, self.frame_bytes_max)? else {
            return Ok(Next::Nothing);
        };
        Ok(Next::Frame { bytes, is_publish: codec::is_publish(&self.frames) })
    }

    fn beginning(&self, next: Option<usize>) -> Result<Next, CodecError> {
        match next {
            Some(bytes) if bytes > READ_BYTES_MAX && bytes > self.large => {
                if !codec::is_publish(&self.buffer) {
                    return Err(CodecError::TooLarge(bytes));
                }
                Ok(Next::Large { bytes, promised: self.buffer[0] & 0b110 != 0 })
            }
            _ => Ok(Next::Nothing),
        }
    }

    /// The frame that [`Self::peek`] saw.
    pub(super) fn take(&mut self, bytes: usize) -> Bytes {
        self.frames.split_to(bytes.min(self.frames.len()))
    }

    /// Room for the large frame was found: read it.
    pub(super) fn expect_large(&mut self, bytes: usize) {
        self.large = bytes;
    }

    /// No room was found: drop it as it comes.
    pub(super) fn skip_large(&mut self, bytes: usize) {
        let here = bytes.min(self.buffer.len());
        self.buffer.advance(here);
        self.skip = bytes - here;
    }

    /// Whether a large frame is on its way, so that what it took of the budget must be kept.
    pub(super) fn expects_large(&self) -> bool {
        self.large > 0
    }

    /// Replaces a buffer that is larger than it needs to be.
    fn give_back(&mut self) {
        let outgrown = self.allocated > READ_BYTES_MAX * 2
            || (self.allocated > READ_BYTES_MIN * 4 && self.small_reads > SMALL_READS);
        if self.buffer.is_empty() && outgrown {
            self.buffer = BytesMut::with_capacity(READ_BYTES_MIN);
            self.allocated = self.buffer.capacity();
            self.small_reads = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FRAME_MAX: usize = 1 << 20;

    fn input() -> Input {
        Input::new(BytesMut::new(), FRAME_MAX)
    }

    /// Copies from `bytes` what fits, as a socket would.
    fn fill(input: &mut Input, bytes: &mut &[u8], at_most: usize) {
        let room = input.room();
        let spare = room.capacity() - room.len();
        let n = spare.min(bytes.len()).min(at_most);
        room.extend_from_slice(&bytes[..n]);
        *bytes = &bytes[n..];
        input.read(n);
    }

    fn publish(len: usize) -> Vec<u8> {
        let mut out = BytesMut::new();
        let topic = "lift/x";
        let packet =
            rumqttc::mqttbytes::v4::Publish::new(topic, rumqttc::mqttbytes::QoS::AtMostOnce, vec![7_u8; len]);
        packet.write(&mut out).unwrap();
        out.to_vec()
    }

    #[test]
    fn a_busy_buffer_grows_and_an_idle_one_shrinks() {
        let small = publish(100);
        let busy = small.repeat(500);
        let mut bytes = &busy[..];
        let mut input = input();
        let mut frames = 0;
        while frames < 500 {
            fill(&mut input, &mut bytes, usize::MAX);
            while let Next::Frame { bytes, .. } = input.peek().unwrap() {
                input.take(bytes);
                frames += 1;
            }
        }
        assert!(input.allocated >= READ_BYTES_MAX, "{}", input.allocated);
        for _ in 0..=SMALL_READS + 1 {
            fill(&mut input, &mut &small[..], usize::MAX);
            assert_eq!(input.peek().unwrap(), Next::Frame { bytes: small.len(), is_publish: true });
            input.take(small.len());
        }
        assert_eq!(input.allocated, READ_BYTES_MIN);
    }

    #[test]
    fn a_large_frame_asks_first_then_is_read_or_skipped() {
        let large = publish(100_000);
        let mut bytes = &large[..];
        let mut input = input();
        fill(&mut input, &mut bytes, usize::MAX);
        assert_eq!(input.peek().unwrap(), Next::Large { bytes: large.len(), promised: false });
        input.expect_large(large.len());
        while !bytes.is_empty() {
            fill(&mut input, &mut bytes, usize::MAX);
        }
        assert_eq!(input.peek().unwrap(), Next::Frame { bytes: large.len(), is_publish: true });
        assert_eq!(input.take(large.len()), large);
        assert_eq!(input.allocated, READ_BYTES_MIN, "given back");

        let both = [large.clone(), vec![0xC0, 0]].concat();
        let mut bytes = &both[..];
        fill(&mut input, &mut bytes, usize::MAX);
        assert_eq!(input.peek().unwrap(), Next::Large { bytes: large.len(), promised: false });
        input.skip_large(large.len());
        while !bytes.is_empty() {
            assert_eq!(input.peek().unwrap(), Next::Nothing);
            fill(&mut input, &mut bytes, usize::MAX);
        }
        assert_eq!(input.peek().unwrap(), Next::Frame { bytes: 2, is_publish: false });
    }

    #[test]
    fn only_a_publish_may_be_large() {
        let mut input = input();
        let mut bytes: &[u8] = &[0x82, 0xFF, 0xFF, 0x03, 0, 0];
        fill(&mut input, &mut bytes, usize::MAX);
        assert!(matches!(input.peek(), Err(CodecError::TooLarge(_))));
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in(
            lens in prop::collection::vec(0..3_000_usize, 1..30), chunks in prop::collection::vec(1..5_000_usize, 1..20),
        ) {
            let sent: Vec<Vec<u8>> = lens.into_iter().map(publish).collect();
            let stream = sent.concat();
            let mut bytes = &stream[..];
            let mut input = input();
            let mut got: Vec<Vec<u8>> = Vec::new();
            let mut chunks = chunks.into_iter().cycle();
            while got.len() < sent.len() {
                fill(&mut input, &mut bytes, chunks.next().unwrap());
                while let Next::Frame { bytes, is_publish } = input.peek().unwrap() {
                    prop_assert!(is_publish);
                    got.push(input.take(bytes).to_vec());
                }
            }
            prop_assert_eq!(got, sent);
        }
    }
}
