//! What was acknowledged, noted beside the engine.
//!
//! The engine cuts its journal at the first entry that it cannot read, wherever that is: right for the torn tail of a
//! crash, wrong for rows that were acknowledged and are damaged now. So each group carries its number, and the number
//! of the last group that was acknowledged is noted in a file of its own, after the group's fdatasync and without one
//! of its own. The note may lag behind the rows, never run ahead: a store that has fewer groups than its note has lost
//! some, and is not opened.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::{Rows, open_error};
use crate::store::OpenError;

/// The row of the group's number; no table has this tag.
pub(super) const GROUP_KEY: &[u8] = &[0];

const FILE: &str = "acknowledged";
const NOTE_BYTES: usize = 12;

/// The open note.
pub(super) struct Acknowledged {
    file: File,
    /// The last group that the store holds.
    pub(super) group: u64,
}

impl Acknowledged {
    /// Compares the note with the rows.
    pub(super) fn check(dir: &Path, rows: &Rows) -> Result<Self, OpenError> {
        let held = rows.keyspace.get(GROUP_KEY).map_err(|error| open_error(dir, error))?;
        let group = held.and_then(|held| Some(u64::from_be_bytes(held[..].try_into().ok()?))).unwrap_or(0);
        let path = dir.join(FILE);
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = opened.map_err(|source| OpenError::Io { dir: dir.display().to_string(), source })?;
        let mut note = [0; NOTE_BYTES];
        // A note that is missing, cut short or damaged says nothing.
        let noted = file.read_exact_at(&mut note, 0).ok().and_then(|()| decode(&note)).unwrap_or(0);
        if noted > group {
            return Err(OpenError::Lost { dir: dir.display().to_string(), groups: noted - group });
        }
        Ok(Self { file, group })
    }

    /// Notes a group that is durable. A failure leaves an older note, which only notices less.
    pub(super) fn note(&self, group: u64) {
        let _ = self.file.write_all_at(&encode(group), 0);
    }
}

fn encode(group: u64) -> [u8; NOTE_BYTES] {
    let mut note = [0; NOTE_BYTES];
    let (number, mark) = note.split_at_mut(8);
    number.copy_from_slice(&group.to_be_bytes());
    mark.copy_from_slice(&crc(number));
    note
}

fn decode(note: &[u8; NOTE_BYTES]) -> Option<u64> {
    let group = u64::from_be_bytes(note[..8].try_into().ok()?);
    (*note == encode(group)).then_some(group)
}

/// CRC-32 (ISO 3309).
fn crc(bytes: &[u8]) -> [u8; 4] {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum().to_be_bytes()
}
