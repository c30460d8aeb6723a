//! Server-sent events, as the HTML standard has them (§9.2.6).
//!
//! Takes: the bytes of a stream, however they are cut. Gives: its events, whole. Never: gives one that has not come to its
//! end; holds more than one that is as long as an event of a feed can be.

use bytes::{Buf as _, Bytes, BytesMut};

/// Bytes of a line at most, and of the data of an event: above the longest event of a feed.
const BYTES_MAX: usize = 32 << 20;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Sent {
    /// The last id that the stream has named.
    pub(super) id: String,
    /// Its type; empty for a plain message.
    pub(super) kind: String,
    /// Its data, the lines of it joined.
    pub(super) data: String,
}

/// A line or an event is longer than any that a feed sends, or is no text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unreadable;

/// Reads a stream.
#[derive(Debug, Default)]
pub(super) struct Reader {
    pending: BytesMut,
    /// How much of it is known to hold no end of a line.
    searched: usize,
    /// Whether the line before ended with a CR, so that an LF that follows belongs to it.
    carriage: bool,
    next: Sent,
    has_data: bool,
    /// How long to wait before connecting again, in milliseconds, if the stream has said so.
    pub(super) retry_ms: Option<u64>,
}

impl Reader {
    /// For the stream that comes after this one: what had come of an event by half is dropped.
    pub(super) fn again(self) -> Self {
        Self { retry_ms: self.retry_ms, ..Self::default() }
    }

    /// Adds what has come.
    pub(super) fn push(&mut self, bytes: &Bytes) -> Result<(), Unreadable> {
        if self.pending.len() + bytes.len() > BYTES_MAX {
            return Err(Unreadable);
        }
        self.pending.extend_from_slice(bytes);
        Ok(())
    }

    /// The next event that has come whole.
    pub(super) fn next(&mut self) -> Result<Option<Sent>, Unreadable> {
        while let Some(line) = self.line() {
            let line = std::str::from_utf8(&line).map_err(|_| Unreadable)?;
            if line.is_empty() {
                let sent = Sent { id: self.next.id.clone(), ..std::mem::take(&mut self.next) };
                self.next.id.clone_from(&sent.id);
                if std::mem::take(&mut self.has_data) {
                    return Ok(Some(sent));
                }
                continue;
            }
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match name {
                "event" => value.clone_into(&mut self.next.kind),
                "data" => {
                    if self.next.data.len() + value.len() > BYTES_MAX {
                        return Err(Unreadable);
                    }
                    if self.has_data {
                        self.next.data.push('\n');
                    }
                    self.has_data = true;
                    self.next.data.push_str(value);
                }
                "id" if !value.contains('\0') => value.clone_into(&mut self.next.id),
                "retry" if value.bytes().all(|it| it.is_ascii_digit()) => self.retry_ms = value.parse().ok(),
                // A comment, which keeps the connection alive, or what later versions add.
                _ => {}
            }
        }
        Ok(None)
    }

    /// The next line that has come whole, without its end: LF, CR, or both.
    fn line(&mut self) -> Option<Bytes> {
        if self.carriage && self.pending.first() == Some(&b'\n') {
            self.pending.advance(1);
        }
        if !self.pending.is_empty() {
            self.carriage = false;
        }
        let Some(at) = memchr::memchr2(b'\n', b'\r', &self.pending[self.searched..]) else {
            self.searched = self.pending.len();
            return None;
        };
        let mut line = self.pending.split_to(self.searched + at + 1);
        self.searched = 0;
        self.carriage = line.last() == Some(&b'\r');
        line.truncate(line.len() - 1);
        Some(line.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, piece: usize) -> Vec<(String, String, String)> {
        let mut reader = Reader::default();
        let mut all = Vec::new();
        for bytes in text.as_bytes().chunks(piece) {
            reader.push(&Bytes::copy_from_slice(bytes)).unwrap();
            while let Some(Sent { id, kind, data }) = reader.next().unwrap() {
                all.push((id, kind, data));
            }
        }
        all
    }

    #[test]
    fn events_are_the_same_however_they_come() {
        let text = "retry: 1000\n\n: alive\n\nid: 1\ndata: {\"a\":1}\n\nid: 2\nevent: withdrawn\ndata: null\n\n\
                    data: one\ndata:  two\n\nid: 3\r\ndata: x\r\n\r\nid\rdata\r\rdata: never";
        let sent = |id: &str, kind: &str, data: &str| (id.to_owned(), kind.to_owned(), data.to_owned());
        let expected = [
            sent("1", "", "{\"a\":1}"),
            sent("2", "withdrawn", "null"),
            sent("2", "", "one\n two"),
            sent("3", "", "x"),
            sent("", "", ""),
        ];
        for piece in 1..=text.len() {
            assert_eq!(read(text, piece), expected, "in pieces of {piece}");
        }
    }

    #[test]
    fn what_is_too_long_or_no_text_is_refused() {
        let mut reader = Reader::default();
        let long = Bytes::from(vec![b'x'; BYTES_MAX]);
        assert_eq!(reader.push(&long), Ok(()));
        assert_eq!(reader.next(), Ok(None));
        assert_eq!(reader.push(&Bytes::from_static(b"x")), Err(Unreadable));
        let mut reader = Reader::default();
        reader.push(&Bytes::from_static(b"data: \xff\n\n")).unwrap();
        assert_eq!(reader.next(), Err(Unreadable));
    }

    #[test]
    fn the_stream_says_how_long_to_wait() {
        let mut reader = Reader::default();
        reader.push(&Bytes::from_static(b"retry: 250\nretry: soon\n\n")).unwrap();
        assert_eq!(reader.next(), Ok(None));
        assert_eq!(reader.retry_ms, Some(250));
    }
}
