//! Entry bundles: the log's entries, each after its length (c2sp.org/tlog-tiles, log entries).
//!
//! Takes entries, or a bundle and how many entries it should hold; gives the other. Never hands
//! out a part of a bundle that is wrong elsewhere.

/// The longest entry, in bytes: its length is a big-endian 16-bit number.
pub const ENTRY_BYTES_MAX: usize = u16::MAX as usize;

/// Why an entry bundle could not be written or read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntriesError {
    /// An entry is longer than 65,535 bytes.
    #[error("entry {index} is longer than {ENTRY_BYTES_MAX} bytes")]
    TooLong {
        /// Which entry of the bundle, from 0.
        index: usize,
    },
    /// The bundle ends within an entry.
    #[error("the bundle ends within entry {index}")]
    Truncated {
        /// Which entry of the bundle, from 0.
        index: usize,
    },
    /// Bytes follow the last entry.
    #[error("bytes follow the last entry")]
    TrailingBytes,
}

/// Writes entries as a bundle.
pub fn encode_entries<T: AsRef<[u8]>>(entries: impl IntoIterator<Item = T>) -> Result<Vec<u8>, EntriesError> {
    let mut bundle = Vec::new();
    for (index, entry) in entries.into_iter().enumerate() {
        let entry = entry.as_ref();
        let len = u16::try_from(entry.len()).map_err(|_| EntriesError::TooLong { index })?;
        bundle.extend(len.to_be_bytes());
        bundle.extend(entry);
    }
    Ok(bundle)
}

/// Reads a bundle that holds exactly `width` entries, as the path it came from says.
pub fn decode_entries(bundle: &[u8], width: u16) -> Result<Vec<&[u8]>, EntriesError> {
    let mut rest = bundle;
    let mut entries = Vec::new();
    for index in 0..usize::from(width) {
        let (len, after) = rest.split_first_chunk::<2>().ok_or(EntriesError::Truncated { index })?;
        let len = usize::from(u16::from_be_bytes(*len));
        let (entry, after) = after.split_at_checked(len).ok_or(EntriesError::Truncated { index })?;
        entries.push(entry);
        rest = after;
    }
    if rest.is_empty() { Ok(entries) } else { Err(EntriesError::TrailingBytes) }
}
