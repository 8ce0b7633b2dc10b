//! The file format of recordings: what a broker received, when, byte for byte.
//!
//! A file is a row of zstd frames with checksums. Decompressed: `LIFTWATCH-RECORDING`, a version byte, a
//! line of JSON metadata, then entries. An entry is its length (LEB128), then: arrival in microseconds as
//! the difference to the entry before (zigzag LEB128), one byte of QoS (bits 0, 1) and retain (bit 2), topic
//! length (LEB128), topic, payload. A reader skips what later versions append to the header line.
//! Promises: a file cut anywhere gives all entries of its complete frames; damage inside is an error, never
//! a wrong entry.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;

use bytes::Bytes;
use domain::Timestamp;
use serde::{Deserialize, Serialize};

const MAGIC: &[u8; 20] = b"LIFTWATCH-RECORDING\x01";
/// Zstd's own default; 3 to 5 times smaller than the payloads, hundreds of MB a second.
const LEVEL: i32 = 3;
/// A frame is closed when this much waits, or when the caller says so (once a second).
const FRAME_BYTES: usize = 1024 * 1024;
/// An entry is a topic of at most 64 KB and a payload of at most 1 MiB (DESIGN.md 3); a larger length is damage.
const ENTRY_BYTES_MAX: u64 = 2 * 1024 * 1024;
const METADATA_BYTES_MAX: u64 = 64 * 1024;

/// What is known about a recording as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// When it was begun.
    pub started: Timestamp,
    /// The broker it was taken from.
    #[serde(default)]
    pub source: String,
    /// The subscription.
    #[serde(default)]
    pub filter: String,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When the broker received it.
    pub arrived: Timestamp,
    /// Topic.
    pub topic: String,
    /// 0 to 2.
    pub qos: u8,
    /// Retained.
    pub retain: bool,
    /// Payload, unchanged.
    pub payload: Bytes,
}

/// Why a recording cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// The file system, or damage that the checksum has found.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Another kind of file.
    #[error("not a recording of Liftwatch, or of a later version")]
    Foreign,
    /// The metadata line is not JSON of this shape.
    #[error("the heading of the recording is damaged: {0}")]
    Metadata(#[from] serde_json::Error),
    /// An entry contradicts itself.
    #[error("entry {0} of the recording is damaged")]
    Damaged(u64),
    /// An entry is larger than the format allows.
    #[error("a message of {0} bytes does not fit into a recording")]
    TooLarge(usize),
}

/// Writes a recording.
pub struct Recorder<W: Write> {
    output: W,
    compressor: zstd::bulk::Compressor<'static>,
    waiting: Vec<u8>,
    last: i64,
    entries: u64,
    bytes: u64,
}

impl Recorder<File> {
    /// Creates a file; refuses to overwrite one.
    pub fn create(path: &Path, metadata: &Metadata) -> Result<Self, RecordingError> {
        Self::new(File::options().write(true).create_new(true).open(path)?, metadata)
    }
}

impl<W: Write> Recorder<W> {
    /// Writes the header.
    pub fn new(output: W, metadata: &Metadata) -> Result<Self, RecordingError> {
        let mut compressor = zstd::bulk::Compressor::new(LEVEL)?;
        compressor.include_checksum(true)?;
        let mut waiting = MAGIC.to_vec();
        serde_json::to_writer(&mut waiting, metadata)?;
        waiting.push(b'\n');
        let last = metadata.started.micros();
        let mut recorder = Self { output, compressor, waiting, last, entries: 0, bytes: 0 };
        recorder.seal()?;
        Ok(recorder)
    }

    /// Adds an entry. It is in the file after the next [`Recorder::seal`].
    pub fn append(&mut self, entry: &Entry) -> Result<(), RecordingError> {
        let size = entry.topic.len() + entry.payload.len();
        if size as u64 + 32 > ENTRY_BYTES_MAX {
            return Err(RecordingError::TooLarge(size));
        }
        let mut head = Vec::with_capacity(32);
        let delta = entry.arrived.micros().wrapping_sub(self.last);
        put_varint(&mut head, ((delta << 1) ^ (delta >> 63)).cast_unsigned());
        head.push((entry.qos & 3) | (u8::from(entry.retain) << 2));
        put_varint(&mut head, entry.topic.len() as u64);
        put_varint(&mut self.waiting, (head.len() + size) as u64);
        self.waiting.extend_from_slice(&head);
        self.waiting.extend_from_slice(entry.topic.as_bytes());
        self.waiting.extend_from_slice(&entry.payload);
        self.last = entry.arrived.micros();
        self.entries += 1;
        if self.waiting.len() >= FRAME_BYTES { self.seal() } else { Ok(()) }
    }

    /// Closes the present frame: all entries so far can be read, whatever happens to the file's end.
    pub fn seal(&mut self) -> Result<(), RecordingError> {
        if !self.waiting.is_empty() {
            let frame = self.compressor.compress(&self.waiting)?;
            self.output.write_all(&frame)?;
            self.waiting.clear();
            self.bytes += frame.len() as u64;
        }
        Ok(self.output.flush()?)
    }

    /// Entries so far.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Bytes in the file so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Seals and gives the output back.
    pub fn finish(mut self) -> Result<W, RecordingError> {
        self.seal()?;
        Ok(self.output)
    }
}

/// Reads a recording, entry by entry.
pub struct Recording<R: BufRead> {
    input: BufReader<zstd::Decoder<'static, R>>,
    metadata: Metadata,
    last: i64,
    read: u64,
    truncated: bool,
    over: bool,
}

impl Recording<BufReader<File>> {
    /// Opens a file.
    pub fn open(path: &Path) -> Result<Self, RecordingError> {
        Self::new(BufReader::new(File::open(path)?))
    }
}

impl<R: BufRead> Recording<R> {
    /// Reads the header.
    pub fn new(input: R) -> Result<Self, RecordingError> {
        let mut input = BufReader::new(zstd::Decoder::with_buffer(input)?);
        let mut magic = [0; MAGIC.len()];
        input.read_exact(&mut magic).map_err(|_| RecordingError::Foreign)?;
        if magic != *MAGIC {
            return Err(RecordingError::Foreign);
        }
        let mut line = Vec::new();
        input.by_ref().take(METADATA_BYTES_MAX).read_until(b'\n', &mut line)?;
        let metadata: Metadata = serde_json::from_slice(&line)?;
        let last = metadata.started.micros();
        Ok(Self { input, metadata, last, read: 0, truncated: false, over: false })
    }

    /// What is known about it as a whole.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Whether the file ended in the middle of something. Known at its end.
    pub fn truncated(&self) -> bool {
        self.truncated
    }

    fn entry(&mut self) -> Result<Option<Entry>, RecordingError> {
        let Some(length) = self.length()? else { return Ok(None) };
        let damaged = RecordingError::Damaged(self.read + 1);
        if length > ENTRY_BYTES_MAX {
            return Err(damaged);
        }
        let mut bytes = vec![0; length as usize];
        self.input.read_exact(&mut bytes)?;
        let Some(entry) = parse(&bytes, self.last) else { return Err(damaged) };
        self.last = entry.arrived.micros();
        self.read += 1;
        Ok(Some(entry))
    }

    /// The length of the next entry; `None` at the end of the file.
    fn length(&mut self) -> Result<Option<u64>, RecordingError> {
        if self.input.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let (mut value, mut shift) = (0, 0);
        loop {
            let mut byte = [0];
            self.input.read_exact(&mut byte)?;
            value |= u64::from(byte[0] & 0x7F) << shift;
            if byte[0] & 0x80 == 0 {
                return Ok(Some(value));
            }
            shift += 7;
            if shift > 28 {
                return Err(RecordingError::Damaged(self.read + 1));
            }
        }
    }
}

impl<R: BufRead> Iterator for Recording<R> {
    type Item = Result<Entry, RecordingError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        match self.entry() {
            Ok(Some(entry)) => Some(Ok(entry)),
            Ok(None) => {
                self.over = true;
                None
            }
            Err(RecordingError::Io(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                (self.over, self.truncated) = (true, true);
                None
            }
            Err(error) => {
                self.over = true;
                Some(Err(error))
            }
        }
    }
}

fn put_varint(output: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        output.push((value & 0x7F) as u8 | 0x80);
        value >>= 7;
    }
    output.push(value as u8);
}

fn take_varint(input: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = input.split_first()?;
        *input = rest;
        value |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn parse(mut bytes: &[u8], last: i64) -> Option<Entry> {
    let zigzag = take_varint(&mut bytes)?;
    let delta = (zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed();
    let (flags, rest) = bytes.split_first()?;
    bytes = rest;
    let topic_len = usize::try_from(take_varint(&mut bytes)?).ok()?;
    let (topic, payload) = bytes.split_at_checked(topic_len)?;
    Some(Entry {
        arrived: Timestamp::from_micros(last.wrapping_add(delta)),
        topic: String::from_utf8(topic.to_vec()).ok()?,
        qos: flags & 3,
        retain: flags & 4 != 0,
        payload: Bytes::copy_from_slice(payload),
    })
}

#[cfg(test)]
mod tests;
