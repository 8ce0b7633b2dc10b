//! New inputs out of old ones: flips, splices, tokens, and edits that keep MQTT frames whole.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// What the inputs of a target look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Frames of MQTT after `head` other bytes.
    Mqtt {
        /// Bytes before the first frame.
        head: usize,
    },
    /// A message of protobuf.
    Protobuf,
    /// JSON text.
    Json,
    /// Lines of topics and filters.
    Topics,
    /// Frames of WebSocket, or an HTTP request and frames.
    WebSocket,
}

/// Inputs grow no larger.
const BYTES_MAX: usize = 4 << 10;
/// Changes to one input.
const CHANGES_MAX: u32 = 5;

const MQTT: &[&[u8]] = &[
    b"\0\x04MQTT\x04",
    b"\0\x04MQTT\x05",
    b"\0\x1blift/v1/310115/T1/telemetry",
    b"\0\x16lift/v1/310115/T1/down",
    b"lift/v1/",
    b"/T1/",
    b"\0\x01#",
    b"\0\x01+",
    b"$share/g/",
    b"\xc0\0",
    b"\xe0\0",
    b"\xe0\x01\x04",
    b"\x30\x80\x01",
    b"\x40\x02\0\x01",
    b"\x62\x02\0\x01",
    b"\x62\x02\0\x02",
    b"\x82\x08\0\x01\0\x03a/b\x01",
    b"\xff\xff\xff\x7f",
    b"\x80\x80\x80\x01",
    b"\x80\0",
    b"\0\0",
    b"\xff\xff",
    b"\x01\x01",           // payload format
    b"\x02\0\0\0\x3c",     // message expiry
    b"\x03\0\x04text",     // content type
    b"\x08\0\x01r",        // response topic
    b"\x09\0\x02\0\xff",   // correlation data
    b"\x0b\x01",           // subscription identifier
    b"\x11\0\0\x0e\x10",   // session expiry
    b"\x21\0\x01",         // receive maximum
    b"\x22\0\x0a",         // topic alias maximum
    b"\x23\0\x01",         // topic alias
    b"\x26\0\x01k\0\x01v", // user property
    b"\x27\0\0\0\x40",     // maximum packet size
    b"\x15\0\x05SCRAM",    // authentication method
    b"\x18\0\0\0\x05",     // will delay
    "\0\x06电梯".as_bytes(),
];

const JSON: &[&[u8]] = &[
    br#"{"readings":["#,
    br#""time":"#,
    br#""2026-11-22T08:00:00.123+08:00""#,
    br#""2026-11-22 08:00:00""#,
    br#""seq":"#,
    br#""sent":"#,
    br#""boot":"#,
    br#""floor":"-1""#,
    br#""codes":["#,
    br#""active":["#,
    br#""events":["#,
    br#""state":"open""#,
    br#""dropped":{"from":1,"to":2}"#,
    br#""car_temp_c":"#,
    b"null",
    b"true",
    b"-0.0",
    b"1e308",
    b"9223372036854775807",
    b"-9223372036854775808",
    b"18446744073709551615",
    b"2147483648",
    b"\\ud800",
    b"\\u0000",
    b"[",
    b"{",
    b"}",
    b"]",
    b",",
    b"\"",
    "电梯".as_bytes(),
];

const PROTOBUF: &[&[u8]] = &[
    b"\x08\x01",
    b"\x0a\x00",
    b"\x12\x02\x08\x01",
    b"\x1a\x03abc",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"\xff\xff\xff\xff\x0f",
    b"\xff\xff\xff\xff\x07",
    b"\x80\x80\x80\x80\x08",
    b"\x80\x80\x80\x00",
    b"\x0b",
    b"\x0c",
    b"\x0d\0\0\0\0",
    b"\x09\0\0\0\0\0\0\0\0",
    b"entrapment",
    b"\xc3\x28",
    b"12",
];

const TOPICS: &[&[u8]] = &[
    b"lift/v1/",
    b"310115/",
    b"T1/",
    b"telemetry",
    b"event.json",
    b"stats",
    b"/",
    b"//",
    b"+",
    b"#",
    b"/#",
    b"+/",
    b"$share/",
    b"$SYS/",
    b"\n",
    b"\0",
    b"000000",
    "电梯".as_bytes(),
    "\u{feff}".as_bytes(),
];

const WEBSOCKET: &[&[u8]] = &[
    b"\x82\x82\0\0\0\0\xc0\0",
    b"\x02\x81\0\0\0\0\xc0",
    b"\x80\x81\0\0\0\0\0",
    b"\x81\x80\0\0\0\0",
    b"\x88\x82\0\0\0\0\x03\xe8",
    b"\x89\x80\0\0\0\0",
    b"\x8a\x80\0\0\0\0",
    b"\x82\xfe",
    b"\x82\xff\0\0\0\0\0\0",
    b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff",
    b"\xc2",
    b"\r\n",
    b"\r\n\r\n",
    b"GET /mqtt HTTP/1.1\r\n",
    b"Connection: Upgrade\r\n",
    b"Upgrade: websocket\r\n",
    b"Sec-WebSocket-Protocol: mqtt\r\n",
    b"Sec-WebSocket-Version: 13\r\n",
    b"Origin: https://a.example\r\n",
    b"HTTP/1.0",
    b": ",
];

impl Shape {
    fn tokens(self) -> &'static [&'static [u8]] {
        match self {
            Self::Mqtt { .. } => MQTT,
            Self::Protobuf => PROTOBUF,
            Self::Json => JSON,
            Self::Topics => TOPICS,
            Self::WebSocket => WEBSOCKET,
        }
    }
}

/// Makes inputs, the same ones for the same seed and corpus.
#[derive(Debug)]
pub struct Mutator<'a> {
    random: SmallRng,
    corpus: &'a [Vec<u8>],
    shape: Shape,
}

impl<'a> Mutator<'a> {
    /// `corpus` must not be empty.
    pub fn new(shape: Shape, corpus: &'a [Vec<u8>], seed: u64) -> Self {
        assert!(!corpus.is_empty(), "there is something to begin with");
        Self { random: SmallRng::seed_from_u64(seed), corpus, shape }
    }

    /// Replaces `out` by the next input.
    pub fn next(&mut self, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(self.pick());
        // Mostly one or two changes, now and then a handful.
        let changes = 1 + (self.random.random::<u32>() | 1 << CHANGES_MAX).trailing_zeros();
        for _ in 0..changes {
            self.change(out);
        }
        out.truncate(BYTES_MAX);
    }

    fn pick(&mut self) -> &'a [u8] {
        &self.corpus[self.random.random_range(0..self.corpus.len())]
    }

    fn at(&mut self, len: usize) -> usize {
        self.random.random_range(0..len.max(1))
    }

    fn change(&mut self, out: &mut Vec<u8>) {
        if let Shape::Mqtt { head } = self.shape
            && out.len() > head
            && self.random.random_ratio(3, 8)
        {
            return self.change_frame(head, out);
        }
        let len = out.len();
        match self.random.random_range(0..11_u8) {
            0 if len > 0 => {
                let at = self.at(len);
                out[at] ^= 1 << self.random.random_range(0..8_u8);
            }
            1 if len > 0 => {
                let at = self.at(len);
                out[at] = self.byte();
            }
            2 if len > 0 => {
                let at = self.at(len);
                out[at] = out[at].wrapping_add_signed(self.random.random_range(-4..=4));
            }
            // Lengths are two bytes in MQTT.
            3 if len > 1 => {
                let at = self.at(len - 1);
                let near = u16::from_be_bytes([out[at], out[at + 1]]);
                let value = match self.random.random_range(0..4_u8) {
                    0 => (len - at) as u16,
                    1 => [0, 1, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0xFFFF][self.at(8)],
                    _ => near.wrapping_add_signed(self.random.random_range(-3..=3)),
                };
                out[at..at + 2].copy_from_slice(&value.to_be_bytes());
            }
            4 if len > 0 => {
                let (at, end) = self.range(len);
                out.drain(at..end);
            }
            5 if len > 0 => {
                let (at, end) = self.range(len);
                let copy = out[at..end].to_vec();
                let to = self.at(len + 1);
                out.splice(to..to, copy);
            }
            6 => {
                let token = self.token();
                let at = self.at(len + 1);
                out.splice(at..at, token.iter().copied());
            }
            7 => {
                let token = self.token();
                let at = self.at(len + 1);
                let end = (at + token.len()).min(len);
                out.splice(at..end, token.iter().copied());
            }
            8 => {
                let other = self.pick();
                let (mine, theirs) = (self.at(len + 1), self.at(other.len() + 1));
                out.truncate(mine);
                out.extend_from_slice(&other[theirs.min(other.len())..]);
            }
            9 => {
                let other = self.pick();
                let (from, end) = self.range(other.len());
                let at = self.at(len + 1);
                out.splice(at..at, other[from..end].iter().copied());
            }
            _ => out.truncate(self.at(len + 1)),
        }
    }

    fn byte(&mut self) -> u8 {
        match self.random.random_range(0..12_usize) {
            n @ 0..8 => [0, 1, 2, 4, 0x7F, 0x80, 0xFE, 0xFF][n],
            _ => self.random.random(),
        }
    }

    fn token(&mut self) -> &'static [u8] {
        let tokens = self.shape.tokens();
        tokens[self.at(tokens.len())]
    }

    /// A short range within `len`, empty only if `len` is 0.
    fn range(&mut self, len: usize) -> (usize, usize) {
        let at = self.at(len);
        let longest = (len - at).min(64).max(usize::from(len > 0));
        (at, at + if longest == 0 { 0 } else { 1 + self.at(longest) })
    }

    /// Changes the order of frames, or one of them with its length kept right.
    fn change_frame(&mut self, head: usize, out: &mut Vec<u8>) {
        let mine = self.frame_of(head, out);
        let frame = out[mine.clone()].to_vec();
        match self.random.random_range(0..5_u8) {
            // Sent again, here or later.
            0 => {
                let to = if self.random.random() { mine.start } else { out.len() };
                out.splice(to..to, frame);
            }
            1 => drop(out.drain(mine)),
            2 => {
                out.drain(mine);
                out.extend(frame);
            }
            3 => {
                let other = self.pick();
                if other.len() > head {
                    let theirs = self.frame_of(head, other);
                    out.splice(mine.start..mine.start, other[theirs].iter().copied());
                }
            }
            _ => {
                let Some(begin) = body_of(&frame) else { return };
                let mut body = frame[begin..].to_vec();
                let at = self.at(body.len() + 1);
                match self.random.random_range(0..3_u8) {
                    0 => drop(body.splice(at..at, self.token().iter().copied())),
                    1 => {
                        let end = (at + 1 + self.at(4)).min(body.len());
                        body.drain(at..end);
                    }
                    _ if at < body.len() => body[at] = self.byte(),
                    _ => body.push(self.byte()),
                }
                let mut whole = vec![frame[0]];
                put_length(body.len(), &mut whole);
                whole.extend(body);
                out.splice(mine, whole);
            }
        }
    }

    /// Where some frame lies in `bytes`; the rest, if lengths lead nowhere.
    fn frame_of(&mut self, head: usize, bytes: &[u8]) -> std::ops::Range<usize> {
        let mut at = head;
        // One of the first eight, the later ones a little more rarely.
        for _ in 0..self.at(8) {
            let Some(len) = frame_len(&bytes[at..]) else { break };
            if at + len >= bytes.len() {
                break;
            }
            at += len;
        }
        let len = frame_len(&bytes[at..]).unwrap_or(usize::MAX).min(bytes.len() - at);
        at..at + len
    }
}

/// Where the part after the length begins.
fn body_of(frame: &[u8]) -> Option<usize> {
    let more = frame.iter().skip(1).take(4).take_while(|byte| **byte & 0x80 != 0).count();
    (more < 4 && frame.len() >= 2 + more).then_some(2 + more)
}

fn frame_len(bytes: &[u8]) -> Option<usize> {
    let begin = body_of(bytes)?;
    let remaining = bytes[1..begin].iter().rev().fold(0, |sum, byte| sum << 7 | usize::from(byte & 0x7F));
    Some(begin + remaining)
}

fn put_length(mut len: usize, out: &mut Vec<u8>) {
    loop {
        let byte = (len & 0x7F) as u8;
        len >>= 7;
        if len == 0 {
            return out.push(byte);
        }
        out.push(byte | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_as_they_are_written() {
        for len in [0, 1, 127, 128, 300, 16_383, 16_384] {
            let mut frame = vec![0x30];
            put_length(len, &mut frame);
            let begin = frame.len();
            frame.resize(begin + len, 0);
            assert_eq!((body_of(&frame), frame_len(&frame)), (Some(begin), Some(begin + len)));
        }
        assert_eq!(frame_len(&[0x30, 0x80, 0x80, 0x80, 0x80, 0x01]), None);
    }

    #[test]
    fn a_seed_gives_the_same_inputs_and_they_differ_and_stay_small() {
        let corpus = vec![vec![0xC0, 0], b"\x30\x05\0\x01axy".repeat(20), vec![0; 5_000]];
        let inputs = |seed| {
            let mut mutator = Mutator::new(Shape::Mqtt { head: 0 }, &corpus, seed);
            let mut out = Vec::new();
            let one = |_| {
                mutator.next(&mut out);
                assert!(out.len() <= BYTES_MAX);
                out.clone()
            };
            (0..2_000).map(one).collect::<Vec<_>>()
        };
        assert_eq!(inputs(1), inputs(1));
        let distinct: std::collections::HashSet<_> = inputs(1).into_iter().collect();
        assert!(distinct.len() > 1_000, "{}", distinct.len());
    }
}
