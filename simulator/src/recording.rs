//! The file of a recording: what a broker received and when, compressed.
//!
//! Owns the format. Eight bytes in the clear (`LIFTREC` and the version), then zstd frames with checksums. The
//! first frame is the JSON of [`Meta`], each further one holds complete entries, an empty one ends the file; so
//! `tail -c +9 FILE | zstd -d` reads it too. An entry is the zigzag varint of its arrival time less the one before
//! it in the frame, in us; the topic with its length; the QoS; the payload with its length.
//!
//! Promises: a file cut anywhere gives the entries of all its complete frames; any bytes at all give entries or an
//! error, never a panic, nor an allocation beyond a frame. Does not look into topics or payloads.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    path::Path,
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use zstd::{bulk::Compressor, stream::read::Decoder};

/// Bytes of a topic, the bound of MQTT.
pub const TOPIC_BYTES_MAX: usize = 65_535;
/// Bytes of a payload; the server decodes a quarter of it.
pub const PAYLOAD_BYTES_MAX: usize = 1024 * 1024;

const MAGIC: [u8; 8] = *b"LIFTREC\x01";
/// A frame is finished once it is this long: what a cut can cost.
const FRAME_BYTES: usize = 1024 * 1024;
/// Or once its entries span this long.
const FRAME_SPAN_US: u64 = 1_000_000;
/// The longest frame that can be: one byte less than full, then the largest entry.
const FRAME_BYTES_MAX: usize = FRAME_BYTES + TOPIC_BYTES_MAX + PAYLOAD_BYTES_MAX + 32;
/// The window a reader sets memory aside for, as a power of two; ours needs 2 MiB.
const WINDOW_LOG_MAX: u32 = 23;
const LEVEL: i32 = 3;

/// Why a recording cannot be written or read on.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// The file itself.
    #[error("recording file")]
    Io(#[from] io::Error),
    /// Not a recording, or of a later version.
    #[error("not a recording of a known version")]
    Format,
    /// The bytes are not what was written.
    #[error("recording is damaged: {0}")]
    Damaged(&'static str),
    /// An entry that does not fit the format.
    #[error("entry is too long: {0}")]
    TooLong(&'static str),
}

/// What is known of a recording as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// When it was begun, as RFC 3339.
    pub created: String,
    /// The topic filter.
    pub filter: String,
    /// Where the messages came from.
    pub source: String,
}

/// One message that a broker received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When it arrived, in us since 1970.
    pub arrived_us: i64,
    /// Its topic.
    pub topic: String,
    /// The QoS it was delivered with, 0 to 2.
    pub qos: u8,
    /// Its payload, unchanged.
    pub payload: Bytes,
}

/// Writes a recording.
pub struct RecordingWriter {
    file: File,
    compressor: Compressor<'static>,
    frame: Vec<u8>,
    frame_began_us: i64,
    before_us: i64,
    entries: u64,
    bytes: u64,
}

impl RecordingWriter {
    /// Creates the file at `path`, replacing one that is there.
    pub fn create(path: &Path, meta: &Meta) -> Result<Self, RecordingError> {
        let mut file = File::create(path)?;
        file.write_all(&MAGIC)?;
        let mut compressor = Compressor::new(LEVEL)?;
        compressor.include_checksum(true)?;
        let frame = serde_json::to_vec(meta).map_err(io::Error::from)?;
        let (frame_began_us, before_us, bytes) = (0, 0, MAGIC.len() as u64);
        let mut writer = Self { file, compressor, frame, frame_began_us, before_us, entries: 0, bytes };
        writer.flush()?;
        Ok(writer)
    }

    /// Adds an entry; the file has it after the next finished frame.
    pub fn push(&mut self, entry: &Entry) -> Result<(), RecordingError> {
        if entry.topic.len() > TOPIC_BYTES_MAX {
            return Err(RecordingError::TooLong("topic"));
        }
        if entry.payload.len() > PAYLOAD_BYTES_MAX {
            return Err(RecordingError::TooLong("payload"));
        }
        let full = self.frame.len() >= FRAME_BYTES;
        if full || entry.arrived_us.abs_diff(self.frame_began_us) >= FRAME_SPAN_US {
            self.flush()?;
        }
        if self.frame.is_empty() {
            (self.frame_began_us, self.before_us) = (entry.arrived_us, 0);
        }
        put_varint(&mut self.frame, zigzag(entry.arrived_us.wrapping_sub(self.before_us)));
        put_varint(&mut self.frame, entry.topic.len() as u64);
        self.frame.extend_from_slice(entry.topic.as_bytes());
        self.frame.push(entry.qos.min(2));
        put_varint(&mut self.frame, entry.payload.len() as u64);
        self.frame.extend_from_slice(&entry.payload);
        self.before_us = entry.arrived_us;
        self.entries += 1;
        Ok(())
    }

    /// Finishes the frame, so that the file has all entries so far.
    pub fn flush(&mut self) -> Result<(), RecordingError> {
        if !self.frame.is_empty() {
            self.write_frame()?;
        }
        Ok(())
    }

    /// Entries added.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Ends the recording and brings it to the disk. Returns the length of the file.
    pub fn finish(mut self) -> Result<u64, RecordingError> {
        self.flush()?;
        self.write_frame()?;
        self.file.sync_all()?;
        Ok(self.bytes)
    }

    fn write_frame(&mut self) -> Result<(), RecordingError> {
        let frame = self.compressor.compress(&self.frame)?;
        self.file.write_all(&frame)?;
        self.bytes += frame.len() as u64;
        self.frame.clear();
        Ok(())
    }
}

/// Reads a recording, a frame at a time. Ends after the first error.
pub struct Recording {
    file: BufReader<File>,
    meta: Meta,
    frame: Vec<u8>,
    at: usize,
    before_us: i64,
    ended: bool,
    truncated: bool,
}

impl Recording {
    /// Opens the file at `path` and reads its metadata.
    pub fn open(path: &Path) -> Result<Self, RecordingError> {
        let mut file = BufReader::new(File::open(path)?);
        let mut magic = [0; MAGIC.len()];
        file.read_exact(&mut magic).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => RecordingError::Format,
            _ => RecordingError::Io(error),
        })?;
        if magic != MAGIC {
            return Err(RecordingError::Format);
        }
        let meta = match read_frame(&mut file)? {
            Some(json) => serde_json::from_slice(&json).map_err(|_| RecordingError::Damaged("metadata"))?,
            None => return Err(RecordingError::Damaged("cut within the metadata")),
        };
        Ok(Self { file, meta, frame: Vec::new(), at: 0, before_us: 0, ended: false, truncated: false })
    }

    /// What is known of the recording as a whole.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// True once the iteration ended without the end of the recording: entries of its last moment may be missing.
    pub fn truncated(&self) -> bool {
        self.truncated
    }

    fn read(&mut self) -> Result<Option<Entry>, RecordingError> {
        if self.at == self.frame.len() {
            let Some(frame) = read_frame(&mut self.file)? else {
                self.truncated = true;
                return Ok(None);
            };
            if frame.is_empty() {
                let more = !self.file.fill_buf()?.is_empty();
                return if more { Err(RecordingError::Damaged("bytes after the end")) } else { Ok(None) };
            }
            (self.frame, self.at, self.before_us) = (frame, 0, 0);
        }
        let mut rest = &self.frame[self.at..];
        let entry = take_entry(&mut rest, self.before_us).ok_or(RecordingError::Damaged("entry"))?;
        self.at = self.frame.len() - rest.len();
        self.before_us = entry.arrived_us;
        Ok(Some(entry))
    }
}

impl Iterator for Recording {
    type Item = Result<Entry, RecordingError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.read().transpose();
        self.ended = !matches!(next, Some(Ok(_)));
        next
    }
}

/// The next complete frame, or nothing where the file ends before it does.
fn read_frame(file: &mut BufReader<File>) -> Result<Option<Vec<u8>>, RecordingError> {
    if file.fill_buf()?.is_empty() {
        return Ok(None);
    }
    let mut decoder = Decoder::with_buffer(file)?.single_frame();
    decoder.window_log_max(WINDOW_LOG_MAX)?;
    let mut frame = Vec::new();
    match decoder.take(FRAME_BYTES_MAX as u64 + 1).read_to_end(&mut frame) {
        Ok(_) if frame.len() > FRAME_BYTES_MAX => Err(RecordingError::Damaged("frame is too long")),
        Ok(_) => Ok(Some(frame)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) if error.raw_os_error().is_some() => Err(RecordingError::Io(error)),
        Err(_) => Err(RecordingError::Damaged("frame")),
    }
}

fn take_entry(rest: &mut &[u8], before_us: i64) -> Option<Entry> {
    let arrived_us = before_us.wrapping_add(unzigzag(take_varint(rest)?));
    let topic = take_bytes(rest, TOPIC_BYTES_MAX)?;
    let topic = std::str::from_utf8(topic).ok()?.to_owned();
    let qos = *rest.split_off_first()?;
    // A copy: a slice would keep its whole frame in memory.
    let payload = Bytes::copy_from_slice(take_bytes(rest, PAYLOAD_BYTES_MAX)?);
    (qos <= 2).then_some(Entry { arrived_us, topic, qos, payload })
}

fn take_bytes<'a>(rest: &mut &'a [u8], max: usize) -> Option<&'a [u8]> {
    let len = usize::try_from(take_varint(rest)?).ok()?;
    if len > max {
        return None;
    }
    rest.split_off(..len)
}

fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = *rest.split_off_first()?;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return None;
        }
        value |= bits << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}
