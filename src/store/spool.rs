//! The spool: bytes that are too many for memory, for as long as they are needed.
//!
//! Takes chunks in order; gives them back in order or by range. What exceeds the memory goes to a file that has no
//! name from the moment it is opened and whose key never leaves memory (AES-256-GCM, a chunk of 64 KiB each), so a
//! crash leaves bytes that nobody can read and that the file system has freed. Never holds more than its quota over all
//! spools together. Calls block on the file, mostly on the page cache alone.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use bytes::Bytes;

use crate::keys::Secret;

/// Plaintext of a chunk in the file, in bytes.
const CHUNK_BYTES: usize = 64 << 10;
const TAG_BYTES: usize = 16;

/// The bounds of all spools of a process.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Up to here a spool stays in memory, in bytes.
    pub memory_bytes_max: usize,
    /// What all spools together hold in memory, in bytes; beyond it they go to their files early.
    pub memory_total_bytes_max: u64,
    /// What all spools together hold, in bytes.
    pub total_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory_bytes_max: 1 << 20, memory_total_bytes_max: 24 << 20, total_bytes_max: 4 << 30 }
    }
}

/// Where spools are made. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Spools(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    limits: Limits,
    memory: AtomicU64,
    total: AtomicU64,
}

/// A spool that is being written. Dropping it frees what it holds.
pub struct Writer {
    total: Reserved,
    length: u64,
    held: Held,
}

/// A spool that is complete. Dropping it frees what it holds.
pub struct Spool {
    length: u64,
    held: Held,
    _total: Reserved,
}

enum Held {
    Memory { bytes: Vec<u8>, memory: Reserved },
    File(Sealed),
}

/// The encrypted file.
struct Sealed {
    file: File,
    key: LessSafeKey,
    /// Whole chunks in the file; once the spool is complete also the last, shorter one.
    chunks: u64,
    /// What does not fill a chunk yet; while a spool is written.
    tail: Vec<u8>,
}

/// Reads a spool from its beginning; one chunk is in memory at a time.
pub struct Reader<'s> {
    spool: &'s Spool,
    chunk: Vec<u8>,
    /// The place in the spool of the chunk's first byte, and of the next one to give.
    chunk_start: u64,
    position: u64,
}

/// Reads ranges of a spool that lie near each other: the chunks that were read last are kept.
pub struct Ranges {
    spool: Spool,
    /// At most [`KEPT_MAX`], by their number; the one used last comes last.
    kept: Vec<(u64, Vec<u8>)>,
}

/// Chunks that [`Ranges`] keeps.
const KEPT_MAX: usize = 4;

impl Spools {
    /// Spools with files in this directory, which must be there.
    pub fn new(dir: impl Into<PathBuf>, limits: Limits) -> Self {
        Self(Arc::new(Shared { dir: dir.into(), limits, memory: AtomicU64::new(0), total: AtomicU64::new(0) }))
    }

    /// Begins a spool.
    pub fn begin(&self) -> Writer {
        let total = Reserved { shared: Arc::clone(&self.0), of: Of::Total, bytes: 0 };
        let memory = Reserved { shared: Arc::clone(&self.0), of: Of::Memory, bytes: 0 };
        Writer { total, length: 0, held: Held::Memory { bytes: Vec::new(), memory } }
    }

    /// What all spools hold at this moment, in bytes.
    pub fn bytes(&self) -> u64 {
        self.0.total.load(Ordering::Relaxed)
    }
}

impl Writer {
    /// Adds bytes. After an error the spool is of no more use.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), SpoolError> {
        if !self.total.add(bytes.len()) {
            return Err(SpoolError::Full);
        }
        self.length += bytes.len() as u64;
        if let Held::Memory { bytes: held, memory } = &mut self.held {
            let limit = memory.shared.limits.memory_bytes_max;
            if held.len() + bytes.len() <= limit && grow(held, memory, bytes.len(), limit) {
                held.extend_from_slice(bytes);
                return Ok(());
            }
            let mut sealed = Sealed::create(&memory.shared.dir)?;
            sealed.write(held)?;
            // Frees the memory and its reservation.
            self.held = Held::File(sealed);
        }
        match &mut self.held {
            Held::File(sealed) => sealed.write(bytes),
            Held::Memory { .. } => Ok(()),
        }
    }

    /// The bytes written so far.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether nothing was written so far.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Completes the spool.
    pub fn finish(mut self) -> Result<Spool, SpoolError> {
        if let Held::File(sealed) = &mut self.held {
            sealed.finish()?;
        }
        Ok(Spool { length: self.length, held: self.held, _total: self.total })
    }
}

impl Spool {
    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// All of it, where it never left memory.
    pub fn in_memory(&self) -> Option<&[u8]> {
        match &self.held {
            Held::Memory { bytes, .. } => Some(bytes),
            Held::File(_) => None,
        }
    }

    /// The bytes of a range; refuses one that reaches beyond the end. The caller bounds its length.
    pub fn range(&self, range: Range<u64>) -> Result<Bytes, SpoolError> {
        if range.start > range.end || range.end > self.length {
            return Err(SpoolError::OutOfRange);
        }
        let index = |position: u64| usize::try_from(position).map_err(|_| SpoolError::OutOfRange);
        let sealed = match &self.held {
            Held::Memory { bytes, .. } => {
                return Ok(Bytes::copy_from_slice(&bytes[index(range.start)?..index(range.end)?]));
            }
            Held::File(sealed) => sealed,
        };
        let mut out = Vec::with_capacity(index(range.end - range.start)?);
        let mut chunk = Vec::new();
        for (number, within) in chunks(&range) {
            sealed.read(number, self.length, &mut chunk)?;
            out.extend_from_slice(chunk.get(within).ok_or(SpoolError::OutOfRange)?);
        }
        Ok(out.into())
    }

    /// To read many small ranges of it, near each other.
    pub fn into_ranges(self) -> Ranges {
        Ranges { spool: self, kept: Vec::with_capacity(KEPT_MAX) }
    }

    /// All of it in one piece, without a copy where it never left memory. What it holds no longer counts to the
    /// quota.
    pub fn into_bytes(self) -> Result<Bytes, SpoolError> {
        match self.held {
            Held::Memory { bytes, .. } => Ok(bytes.into()),
            Held::File(_) => self.range(0..self.length),
        }
    }

    /// Reads it from the beginning.
    pub fn reader(&self) -> Reader<'_> {
        Reader { spool: self, chunk: Vec::new(), chunk_start: 0, position: 0 }
    }
}

impl Ranges {
    /// Appends the bytes of a range to `out`; refuses one that reaches beyond the end.
    pub fn read(&mut self, range: Range<u64>, out: &mut Vec<u8>) -> Result<(), SpoolError> {
        if range.start > range.end || range.end > self.spool.length {
            return Err(SpoolError::OutOfRange);
        }
        let sealed = match &self.spool.held {
            Held::Memory { bytes, .. } => {
                let index = |position: u64| usize::try_from(position).map_err(|_| SpoolError::OutOfRange);
                out.extend_from_slice(&bytes[index(range.start)?..index(range.end)?]);
                return Ok(());
            }
            Held::File(sealed) => sealed,
        };
        for (number, within) in chunks(&range) {
            let known = self.kept.iter().position(|(kept, _)| *kept == number);
            let mut chunk = match known {
                Some(place) => self.kept.remove(place).1,
                None if self.kept.len() == KEPT_MAX => self.kept.remove(0).1,
                None => Vec::new(),
            };
            if known.is_none() {
                sealed.read(number, self.spool.length, &mut chunk)?;
            }
            out.extend_from_slice(chunk.get(within).ok_or(SpoolError::OutOfRange)?);
            self.kept.push((number, chunk));
        }
        Ok(())
    }
}

/// The chunks that a range lies in, by their number, and which of its bytes are in each.
fn chunks(range: &Range<u64>) -> impl Iterator<Item = (u64, Range<usize>)> + use<> {
    const CHUNK: u64 = CHUNK_BYTES as u64;
    let (mut position, end) = (range.start, range.end);
    std::iter::from_fn(move || {
        if position >= end {
            return None;
        }
        let (number, start) = (position / CHUNK, position % CHUNK);
        let length = (CHUNK - start).min(end - position);
        position += length;
        // Both are at most a chunk's length.
        let start = usize::try_from(start).ok()?;
        Some((number, start..start + usize::try_from(length).ok()?))
    })
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (bytes, start) = match &self.spool.held {
            Held::Memory { bytes, .. } => (&bytes[..], 0),
            Held::File(sealed) => {
                let end = self.chunk_start + self.chunk.len() as u64;
                if self.position == end && end < self.spool.length {
                    sealed.read(self.position / CHUNK_BYTES as u64, self.spool.length, &mut self.chunk)?;
                    self.chunk_start = self.position;
                }
                (&self.chunk[..], self.chunk_start)
            }
        };
        let at = usize::try_from(self.position - start).map_err(|_| ErrorKind::InvalidInput)?;
        let rest = &bytes[at..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.position += count as u64;
        Ok(count)
    }
}

impl Sealed {
    fn create(dir: &PathBuf) -> Result<Self, SpoolError> {
        // Without a name from the first moment where the file system can do that, else from the second. A crash
        // between the two leaves an empty file.
        let file = tempfile::tempfile_in(dir)?;
        let secret = Secret::random().map_err(|_| SpoolError::NoRandom)?;
        let key = UnboundKey::new(&AES_256_GCM, secret.expose()).map_err(|_| SpoolError::NoRandom)?;
        Ok(Self { file, key: LessSafeKey::new(key), chunks: 0, tail: Vec::with_capacity(CHUNK_BYTES + TAG_BYTES) })
    }

    fn write(&mut self, mut bytes: &[u8]) -> Result<(), SpoolError> {
        while self.tail.len() + bytes.len() >= CHUNK_BYTES {
            let (fill, rest) = bytes.split_at(CHUNK_BYTES - self.tail.len());
            self.tail.extend_from_slice(fill);
            self.seal_tail()?;
            bytes = rest;
        }
        self.tail.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(&mut self) -> Result<(), SpoolError> {
        if !self.tail.is_empty() {
            self.seal_tail()?;
        }
        self.tail = Vec::new();
        Ok(())
    }

    /// Each chunk is sealed once, so its number is a nonce.
    fn seal_tail(&mut self) -> Result<(), SpoolError> {
        let tag = self.key.seal_in_place_separate_tag(nonce(self.chunks), Aad::empty(), &mut self.tail);
        self.tail.extend_from_slice(tag.map_err(|_| SpoolError::Corrupt)?.as_ref());
        self.file.write_all_at(&self.tail, offset(self.chunks))?;
        self.tail.clear();
        self.chunks += 1;
        Ok(())
    }

    /// Reads a chunk of a complete spool of this length.
    fn read(&self, number: u64, length: u64, chunk: &mut Vec<u8>) -> Result<(), SpoolError> {
        let left = length.saturating_sub(number * CHUNK_BYTES as u64);
        let bytes = usize::try_from(left).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        chunk.resize(bytes + TAG_BYTES, 0);
        let read = self.file.read_exact_at(chunk, offset(number)).map_err(SpoolError::from).and_then(|()| {
            let opened = self.key.open_in_place(nonce(number), Aad::empty(), chunk);
            opened.map(|_| ()).map_err(|_| SpoolError::Corrupt)
        });
        chunk.truncate(if read.is_ok() { bytes } else { 0 });
        read
    }
}

fn nonce(chunk: u64) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[4..].copy_from_slice(&chunk.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

fn offset(chunk: u64) -> u64 {
    chunk * (CHUNK_BYTES + TAG_BYTES) as u64
}

/// Makes room for more bytes, doubling up to the limit, and reserves the memory for it.
fn grow(held: &mut Vec<u8>, memory: &mut Reserved, more: usize, limit: usize) -> bool {
    let wanted = held.len() + more;
    if wanted <= held.capacity() {
        return true;
    }
    let capacity = wanted.max(held.capacity() * 2).min(limit);
    if !memory.add(capacity - held.capacity()) {
        return false;
    }
    held.reserve_exact(capacity - held.len());
    true
}

/// Bytes of a bound that a spool holds; freed when dropped.
struct Reserved {
    shared: Arc<Shared>,
    of: Of,
    bytes: u64,
}

#[derive(Clone, Copy)]
enum Of {
    Memory,
    Total,
}

impl Reserved {
    fn add(&mut self, bytes: usize) -> bool {
        let (used, max) = self.bound();
        let bytes = bytes as u64;
        let reserved = used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(bytes).filter(|used| *used <= max)
        });
        if reserved.is_ok() {
            self.bytes += bytes;
        }
        reserved.is_ok()
    }

    fn bound(&self) -> (&AtomicU64, u64) {
        match self.of {
            Of::Memory => (&self.shared.memory, self.shared.limits.memory_total_bytes_max),
            Of::Total => (&self.shared.total, self.shared.limits.total_bytes_max),
        }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.bound().0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Why a spool failed.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// All spools together hold as much as they may; try again later.
    #[error("the spools are full")]
    Full,
    /// The file refused; a full disk is among the reasons.
    #[error("the spool's file failed: {0}")]
    Io(#[from] io::Error),
    /// The file does not hold what was written to it.
    #[error("the spool's file is damaged")]
    Corrupt,
    /// The range reaches beyond the end.
    #[error("the range reaches beyond the spool's end")]
    OutOfRange,
    /// The system's random generator failed.
    #[error("the system gives no random bytes")]
    NoRandom,
}

impl From<SpoolError> for io::Error {
    fn from(error: SpoolError) -> Self {
        match error {
            SpoolError::Io(error) => error,
            other => io::Error::other(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CANARY: &[u8] = b"CANARY of a patient";

    fn spools(memory: usize, total: u64) -> (tempfile::TempDir, Spools) {
        let dir = tempfile::tempdir().unwrap();
        let limits =
            Limits { memory_bytes_max: memory, memory_total_bytes_max: 3 * memory as u64, total_bytes_max: total };
        let spools = Spools::new(dir.path(), limits);
        (dir, spools)
    }

    fn spool(spools: &Spools, bytes: &[u8], step: usize) -> Spool {
        let mut writer = spools.begin();
        for some in bytes.chunks(step) {
            writer.write(some).unwrap();
        }
        assert_eq!(writer.len(), bytes.len() as u64);
        writer.finish().unwrap()
    }

    #[test]
    fn plaintext_never_reaches_the_file() {
        let (dir, spools) = spools(1000, 1 << 30);
        let bytes = CANARY.repeat(20_000);
        let spool = spool(&spools, &bytes, 4099);
        let Held::File(sealed) = &spool.held else { panic!("not spilled") };
        let mut file = vec![0; usize::try_from(sealed.file.metadata().unwrap().len()).unwrap()];
        sealed.file.read_exact_at(&mut file, 0).unwrap();
        assert!(file.len() > bytes.len());
        assert!(!file.windows(6).any(|window| window == &CANARY[..6]));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "the file has a name");
        assert_eq!(spool.into_bytes().unwrap(), bytes);
        assert_eq!(spools.bytes(), 0);
    }

    #[test]
    fn small_ones_stay_in_memory() {
        let (dir, spools) = spools(1000, 1 << 20);
        // A directory that is gone would fail any file.
        drop(dir);
        let small = spool(&spools, &[7; 1000], 10);
        assert_eq!(small.in_memory(), Some(&[7; 1000][..]));
        assert_eq!(spools.0.memory.load(Ordering::Relaxed), 1000, "never more memory than the bound");
        let mut writer = spools.begin();
        assert!(matches!(writer.write(&[7; 1001]), Err(SpoolError::Io(_))));
        drop((small, writer));
        assert_eq!(spools.0.memory.load(Ordering::Relaxed), 0);
        assert_eq!(spools.bytes(), 0);
    }

    #[test]
    fn memory_of_all_is_bounded() {
        let (_dir, spools) = spools(1000, 1 << 20);
        let held: Vec<_> = (0..5).map(|_| spool(&spools, &[7; 900], 900)).collect();
        assert_eq!(held.iter().filter(|spool| spool.in_memory().is_some()).count(), 3);
        assert!(held.iter().all(|spool| spool.range(0..900).unwrap() == [7; 900][..]));
    }

    #[test]
    fn the_quota_holds_over_all() {
        let (_dir, spools) = spools(1000, 100_000);
        let one = spool(&spools, &vec![1; 60_000], 1000);
        let mut two = spools.begin();
        two.write(&vec![2; 40_000]).unwrap();
        assert!(matches!(two.write(&[2]), Err(SpoolError::Full)));
        assert_eq!(spools.bytes(), 100_000);
        drop(one);
        two.write(&vec![2; 60_000]).unwrap();
        drop(two);
        assert_eq!(spools.bytes(), 0);
    }

    #[test]
    fn a_changed_file_is_noticed() {
        let (_dir, spools) = spools(10, 1 << 30);
        let bytes = vec![5; 3 * CHUNK_BYTES];
        let spool = spool(&spools, &bytes, 1 << 20);
        let Held::File(sealed) = &spool.held else { panic!("not spilled") };
        let mut first = vec![0; CHUNK_BYTES + TAG_BYTES];
        sealed.file.read_exact_at(&mut first, offset(0)).unwrap();
        // Chunk 0 in the place of chunk 1; one bit of chunk 2; then the end is cut off.
        sealed.file.write_all_at(&first, offset(1)).unwrap();
        sealed.file.write_all_at(&[0], offset(2) + 7).unwrap();
        sealed.file.write_all_at(&[1], offset(2) + 8).unwrap();
        assert_eq!(spool.range(0..10).unwrap(), &bytes[..10]);
        let (one, two) = (CHUNK_BYTES as u64, 2 * CHUNK_BYTES as u64);
        assert!(matches!(spool.range(one..one + 1), Err(SpoolError::Corrupt)));
        assert!(matches!(spool.range(two..two + 1), Err(SpoolError::Corrupt)));
        sealed.file.set_len(offset(1) - 1).unwrap();
        assert!(matches!(spool.range(0..1), Err(SpoolError::Io(_))));
        let mut out = Vec::new();
        assert!(spool.reader().read_to_end(&mut out).is_err());
        assert!(out.is_empty(), "nothing unauthenticated is given");
    }

    #[test]
    fn ranges_end_with_the_spool() {
        let (_dir, spools) = spools(10, 1 << 30);
        for length in [0, 5, 100] {
            let spool = spool(&spools, &vec![1; length], 7);
            let end = length as u64;
            assert_eq!(spool.range(end..end).unwrap().len(), 0);
            assert!(matches!(spool.range(0..end + 1), Err(SpoolError::OutOfRange)));
            #[expect(clippy::reversed_empty_ranges, reason = "what is refused")]
            let upside_down = spool.range(1..0);
            assert!(matches!(upside_down, Err(SpoolError::OutOfRange)));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn gives_back_what_was_written(
            length in prop_oneof![0..5000_usize, (CHUNK_BYTES - 2)..(CHUNK_BYTES + 2), 0..(7 * CHUNK_BYTES)],
            memory in prop_oneof![Just(0), Just(1000), Just(CHUNK_BYTES), Just(1 << 20)],
            step in 1..(2 * CHUNK_BYTES),
            ranges in proptest::collection::vec((0.0..1.0_f64, 0.0..1.0_f64), 8),
            buffer in 1..100_000_usize,
        ) {
            let (_dir, spools) = spools(memory, 1 << 30);
            let bytes: Vec<u8> = (0..length).map(|n| u8::try_from(n % 251).unwrap()).collect();
            let spool = spool(&spools, &bytes, step);
            prop_assert_eq!(spool.in_memory().is_some(), length <= memory);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a place in the bytes")]
            let place = |share: f64| (share * length as f64) as usize;
            for (a, b) in &ranges {
                let (from, to) = (place(a.min(*b)), place(a.max(*b)));
                prop_assert_eq!(&spool.range(from as u64..to as u64).unwrap()[..], &bytes[from..to]);
            }
            let mut reader = spool.reader();
            let mut read = Vec::new();
            let mut some = vec![0; buffer];
            loop {
                let count = reader.read(&mut some).unwrap();
                if count == 0 {
                    break;
                }
                read.extend_from_slice(&some[..count]);
            }
            prop_assert_eq!(&read, &bytes);
            let mut near = spool.into_ranges();
            for (a, b) in ranges {
                let (from, to) = (place(a.min(b)), place(a.max(b)));
                let mut out = b"before".to_vec();
                near.read(from as u64..to as u64, &mut out).unwrap();
                prop_assert_eq!(&out, &[b"before", &bytes[from..to]].concat());
            }
            prop_assert!(matches!(near.read(0..length as u64 + 1, &mut Vec::new()), Err(SpoolError::OutOfRange)));
            prop_assert_eq!(near.spool.into_bytes().unwrap(), bytes);
        }
    }
}
