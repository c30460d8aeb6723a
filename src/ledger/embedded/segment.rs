//! The segment file: frames one after another, appended and never changed.
//!
//! Takes: leaves and signed checkpoints. Gives: their bytes in frames of marker, length, check and payload, and finds
//! them again. Never: trusts a length or a payload whose check does not hold.
//!
//! The check is the first eight bytes of the RFC 6962 leaf hash, which the tree needs anyway: stronger than a CRC, and
//! free. It covers the payload; the marker and the length cannot change without the check failing.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;

use sluice_merkle::Hash;
use sluice_merkle::tree::leaf_hash;

/// Bytes before a payload: marker, length (big-endian), check.
pub(crate) const HEADER_BYTES: usize = 4 + 4 + CHECK_BYTES;
/// Largest payload: an entry is below 64 KiB, and so is a checkpoint with its cosignatures.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 64 * 1024;
const CHECK_BYTES: usize = 8;
/// Read at once where the whole file is wanted.
pub(crate) const BULK_BYTES: usize = 1024 * 1024;
/// Read at once where a few leaves are wanted.
pub(crate) const POINT_BYTES: usize = 8 * 1024;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A leaf of the log.
    Entry,
    /// A signed note over all leaves before it.
    Checkpoint,
}

impl Kind {
    const fn marker(self) -> [u8; 4] {
        match self {
            Self::Entry => *b"SLe1",
            Self::Checkpoint => *b"SLc1",
        }
    }

    fn from_marker(marker: &[u8]) -> Option<Self> {
        [Self::Entry, Self::Checkpoint].into_iter().find(|kind| kind.marker() == marker)
    }
}

/// A frame whose check holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame<'b> {
    pub(crate) kind: Kind,
    pub(crate) payload: &'b [u8],
    /// The leaf hash of the payload.
    pub(crate) hash: Hash,
}

impl<'b> Frame<'b> {
    /// The frame at the front of `bytes`, if it is whole and its check holds.
    pub(crate) fn parse(bytes: &'b [u8]) -> Option<Self> {
        let (header, rest) = bytes.split_at_checked(HEADER_BYTES)?;
        let kind = Kind::from_marker(&header[..4])?;
        let payload = rest.get(..Self::length(bytes)?)?;
        let hash = leaf_hash(payload);
        (hash[..CHECK_BYTES] == header[8..]).then_some(Self { kind, payload, hash })
    }

    /// The length that the frame at the front of `bytes` claims for its payload, if it is within bounds.
    fn length(bytes: &[u8]) -> Option<usize> {
        let length = u32::from_be_bytes(bytes.get(4..8)?.try_into().ok()?) as usize;
        (length <= PAYLOAD_BYTES_MAX).then_some(length)
    }

    /// Bytes of the whole frame.
    pub(crate) fn bytes(&self) -> usize {
        HEADER_BYTES + self.payload.len()
    }
}

/// Appends a frame to `out` and gives the payload's leaf hash.
pub(crate) fn write_frame(kind: Kind, payload: &[u8], out: &mut Vec<u8>) -> Hash {
    let hash = leaf_hash(payload);
    out.extend_from_slice(&kind.marker());
    // Entries and checkpoints are bounded far below 4 GiB by their own formats.
    out.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(&hash[..CHECK_BYTES]);
    out.extend_from_slice(payload);
    hash
}

/// What the writer does to the disk: the two side effects of a commit. Tests put faults between.
pub(crate) trait Disk: Send {
    /// Puts bytes behind what is there. After an error, any part of them may be there.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes everything appended durable. After an error nothing is known, and no second try tells.
    fn sync(&mut self) -> io::Result<()>;
}

impl Disk for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

/// Reads frames in order through a buffer.
pub(crate) struct Scanner<'f> {
    file: &'f File,
    /// Where the file ends for this reader.
    end: u64,
    /// Offset of `buffer[at]`.
    offset: u64,
    buffer: Vec<u8>,
    at: usize,
    /// Bytes read at once.
    chunk: usize,
}

impl<'f> Scanner<'f> {
    /// From `offset` up to `end`, by `chunk` bytes.
    pub(crate) fn new(file: &'f File, offset: u64, end: u64, chunk: usize) -> Self {
        Self { file, end, offset, buffer: Vec::new(), at: 0, chunk }
    }

    /// Another scanner at the same place.
    pub(crate) fn fork(&self) -> Self {
        Self::new(self.file, self.offset, self.end, self.chunk)
    }

    /// The file, and where it ends for this reader.
    pub(crate) fn source(&self) -> (&'f File, u64) {
        (self.file, self.end)
    }

    /// Where the next frame begins.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether nothing is left.
    pub(crate) fn at_end(&self) -> bool {
        self.offset >= self.end
    }

    /// The next frame; `None` at the end, or where no whole frame with a good check stands (then not [`Self::at_end`]).
    pub(crate) fn next(&mut self) -> io::Result<Option<Frame<'_>>> {
        self.fill(HEADER_BYTES)?;
        if let Some(length) = Frame::length(&self.buffer[self.at..]) {
            self.fill(HEADER_BYTES + length)?;
        }
        let frame = Frame::parse(&self.buffer[self.at..]);
        if let Some(frame) = &frame {
            self.at += frame.bytes();
            self.offset += frame.bytes() as u64;
        }
        Ok(frame)
    }

    /// The kind of the next frame by its marker, unchecked.
    pub(crate) fn peek(&mut self) -> io::Result<Option<Kind>> {
        self.fill(HEADER_BYTES)?;
        Ok(self.buffer.get(self.at..self.at + 4).and_then(Kind::from_marker))
    }

    /// Goes on by one byte: to look for a frame behind damage.
    pub(crate) fn skip_byte(&mut self) -> io::Result<()> {
        self.fill(1)?;
        self.at += 1;
        self.offset += 1;
        Ok(())
    }

    /// Has at least `wanted` bytes in the buffer, or all that the file has.
    fn fill(&mut self, wanted: usize) -> io::Result<()> {
        let have = self.buffer.len() - self.at;
        let left = usize::try_from(self.end.saturating_sub(self.offset)).unwrap_or(usize::MAX);
        if have >= wanted.min(left) {
            return Ok(());
        }
        self.buffer.drain(..self.at);
        self.at = 0;
        let target = left.min(wanted.max(self.chunk));
        let from = self.offset + have as u64;
        self.buffer.resize(target, 0);
        self.file.read_exact_at(&mut self.buffer[have..], from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_comes_back_and_every_flipped_bit_is_noticed() {
        let mut bytes = Vec::new();
        let hash = write_frame(Kind::Checkpoint, b"payload", &mut bytes);
        let frame = Frame::parse(&bytes).expect("whole");
        assert_eq!((frame.kind, frame.payload, frame.hash), (Kind::Checkpoint, &b"payload"[..], hash));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Frame::parse(&flipped), None, "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert_eq!(Frame::parse(&bytes[..length]), None, "cut at {length}");
        }
    }

    #[test]
    fn a_scanner_reads_across_its_buffer_and_stops_at_damage() {
        let mut bytes = Vec::new();
        let payload = vec![7_u8; 50_000];
        for _ in 0..60 {
            write_frame(Kind::Entry, &payload, &mut bytes);
        }
        bytes.extend_from_slice(b"torn");
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&bytes).expect("written");
        let mut scanner = Scanner::new(&file, 0, bytes.len() as u64, BULK_BYTES);
        let mut count = 0;
        while scanner.next().expect("read").is_some() {
            count += 1;
        }
        assert_eq!((count, scanner.at_end(), scanner.offset()), (60, false, bytes.len() as u64 - 4));
    }
}
