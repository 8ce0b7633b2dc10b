//! PostgreSQL's COPY BINARY format, written by hand into one buffer that is used again and again.
//!
//! Every field is its length (-1 for NULL) and its bytes in network order, as the type's `recv` function reads
//! them. Nothing here can fail: what does not fit a column is refused by the server.

use domain::Timestamp;

/// Object id of the type `text`, the element type of a `text[]`.
const TEXT_OID: i32 = 25;
/// 2000-01-01 in microseconds since 1970: the epoch of `timestamptz`.
const EPOCH_2000_US: i64 = 946_684_800_000_000;

/// Rows on their way to a COPY. A field is one write of length and value together: there are 27 in a reading.
#[derive(Debug, Default)]
pub(crate) struct CopyBuffer(Vec<u8>);

impl CopyBuffer {
    /// Forgets what it holds and writes the header: signature, no flags, no extension.
    pub(crate) fn begin(&mut self) {
        self.0.clear();
        self.put(*b"PGCOPY\n\xff\r\n\0");
        self.put([0; 8]);
    }

    fn put<const N: usize>(&mut self, bytes: [u8; N]) {
        self.0.extend_from_slice(&bytes);
    }

    /// Begins a row of so many fields.
    pub(crate) fn row(&mut self, fields: i16) {
        self.put(fields.to_be_bytes());
    }

    /// Writes the end marker; gives all of it.
    pub(crate) fn end(&mut self) -> &[u8] {
        self.put((-1_i16).to_be_bytes());
        &self.0
    }

    pub(crate) fn null(&mut self) {
        self.put((-1_i32).to_be_bytes());
    }

    pub(crate) fn int8(&mut self, value: i64) {
        let mut field = [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0];
        field[4..].copy_from_slice(&value.to_be_bytes());
        self.put(field);
    }

    pub(crate) fn int4(&mut self, value: i32) {
        let [a, b, c, d] = value.to_be_bytes();
        self.put([0, 0, 0, 4, a, b, c, d]);
    }

    pub(crate) fn int2(&mut self, value: i16) {
        let [a, b] = value.to_be_bytes();
        self.put([0, 0, 0, 2, a, b]);
    }

    pub(crate) fn timestamptz(&mut self, at: Timestamp) {
        self.int8(at.micros().saturating_sub(EPOCH_2000_US));
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.put((text.len() as i32).to_be_bytes());
        self.0.extend_from_slice(text.as_bytes());
    }

    /// One dimension, lower bound 1, no element NULL.
    pub(crate) fn text_array<'a>(&mut self, texts: impl ExactSizeIterator<Item = &'a str>) {
        let start = self.0.len();
        self.put([0; 4]); // the length, known at the end
        let count = texts.len() as i32;
        self.put(i32::from(count > 0).to_be_bytes()); // dimensions
        self.put([0; 4]); // no NULLs
        self.put(TEXT_OID.to_be_bytes());
        if count > 0 {
            self.put(count.to_be_bytes());
            self.put(1_i32.to_be_bytes());
        }
        for text in texts {
            self.text(text);
        }
        let len = (self.0.len() - start - 4) as i32;
        self.0[start..start + 4].copy_from_slice(&len.to_be_bytes());
    }

    pub(crate) fn int8_or_null(&mut self, value: Option<i64>) {
        match value {
            Some(value) => self.int8(value),
            None => self.null(),
        }
    }

    pub(crate) fn int4_or_null(&mut self, value: Option<i32>) {
        match value {
            Some(value) => self.int4(value),
            None => self.null(),
        }
    }

    pub(crate) fn int2_or_null(&mut self, value: Option<i16>) {
        match value {
            Some(value) => self.int2(value),
            None => self.null(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_what_the_manual_says() {
        let mut buffer = CopyBuffer::default();
        buffer.begin();
        buffer.row(3);
        buffer.timestamptz(Timestamp::from_micros(EPOCH_2000_US + 1));
        buffer.text_array(["ab"].into_iter());
        buffer.null();
        let expected = [
            b"PGCOPY\n\xff\r\n\0".as_slice(),
            &[0; 8],
            &[0, 3],
            &[0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1],
            &[0, 0, 0, 26, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 25, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2],
            b"ab",
            &[0xff; 4],
            &[0xff; 2],
        ]
        .concat();
        assert_eq!(buffer.end(), expected);
        buffer.begin();
        assert_eq!(buffer.end().len(), 21, "a buffer begun again holds nothing old");
    }
}
