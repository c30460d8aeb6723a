//! A body that has been read, as chunks.
//!
//! Takes: a spool. Gives: its bytes in chunks, as often as asked for. Never: holds more than a chunk of what is not in
//! memory anyway.

use std::io::Read as _;

use bytes::Bytes;
use sluice_fhir::tree::Tree;

use super::limits::{too_large, unreadable};
use crate::error::{Error, Result};
use crate::store::spool::{Reader, Spool};

/// Bytes of a chunk of what is on disk.
const CHUNK: usize = 256 * 1024;

/// A body.
pub(super) enum Source {
    /// All of it in one piece, so that entries are slices of it.
    Memory(Bytes),
    /// In an encrypted file.
    Spooled(Spool),
    /// Read whole already: its nodes know where they stand in the body.
    Tree(Box<Tree>),
}

impl Source {
    pub(super) fn new(spool: Spool) -> Result<Self> {
        if spool.in_memory().is_none() {
            return Ok(Self::Spooled(spool));
        }
        Ok(Self::Memory(spool.into_bytes().map_err(|error| unreadable(&error))?))
    }

    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::Spooled(spool) => spool.len(),
            Self::Tree(tree) => tree.bytes().len() as u64,
        }
    }

    pub(super) fn is_in_memory(&self) -> bool {
        matches!(self, Self::Memory(_))
    }

    /// All of it in one piece.
    pub(super) fn whole(&self, bytes_max: usize) -> Result<Bytes> {
        if self.len() > bytes_max as u64 {
            return Err(too_large(bytes_max));
        }
        match self {
            Self::Memory(bytes) => Ok(bytes.clone()),
            Self::Spooled(spool) => spool.range(0..spool.len()).map_err(|error| unreadable(&error)),
            Self::Tree(tree) => Ok(tree.bytes().clone()),
        }
    }

    /// From its beginning.
    pub(super) fn chunks(&self) -> Chunks<'_> {
        match self {
            Self::Memory(bytes) => Chunks::Memory(Some(bytes.clone())),
            Self::Spooled(spool) => Chunks::Spooled(spool.reader()),
            Self::Tree(tree) => Chunks::Memory(Some(tree.bytes().clone())),
        }
    }
}

/// The chunks of a body.
pub(super) enum Chunks<'a> {
    Memory(Option<Bytes>),
    Spooled(Reader<'a>),
}

impl Iterator for Chunks<'_> {
    type Item = Result<Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Memory(bytes) => bytes.take().map(Ok),
            Self::Spooled(reader) => {
                let mut chunk = Vec::with_capacity(CHUNK);
                match reader.take(CHUNK as u64).read_to_end(&mut chunk) {
                    Ok(0) => None,
                    Ok(_) => Some(Ok(chunk.into())),
                    Err(error) => Some(Err(unread(&error))),
                }
            }
        }
    }
}

fn unread(error: &std::io::Error) -> Error {
    let wait = std::time::Duration::from_secs(5);
    Error::outage(crate::error::Peer::Capacity, wait, format!("spool: {:?}", error.kind()))
}
