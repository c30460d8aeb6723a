//! The rows of the log: their keys, and tiles out of them.
//!
//! Takes: places in the tree. Gives: keys, and tiles as they were stored. Never: believes a tile; what is made of
//! wrong ones does not lead to a root that was signed.

use std::cell::RefCell;
use std::collections::HashMap;

use bytes::{BufMut, Bytes, BytesMut};
use sluice_merkle::tile::{Resource, TilePath};

use crate::store::{Store, StoreError, Table};

/// Hashes of a full tile.
pub(super) const WIDTH: u16 = sluice_merkle::tile::WIDTH;

/// The key of a leaf.
pub(super) fn leaf(index: u64) -> Bytes {
    number(index)
}

/// A number as a key.
pub(super) fn number(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

/// Reads a number that was written so.
pub(super) fn read_number(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_be_bytes)
}

/// The key of a tile of hashes, whatever its width.
pub(super) fn tile(level: u8, index: u64) -> Bytes {
    let mut key = BytesMut::with_capacity(9);
    key.put_u8(level);
    key.put_u64(index);
    key.freeze()
}

/// A tile that is asked for is not stored, or not as wide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Missing;

/// How arithmetic over the tree reads tiles.
pub(super) type Read<'a> = &'a dyn Fn(&[TilePath]) -> Result<Vec<Vec<u8>>, Missing>;

/// Runs arithmetic that reads tiles, which knows no store and does not wait. Which tiles it reads follows from sizes and
/// indexes alone, so it runs twice: over zeros, to learn which, then over the tiles, which are read at once.
pub(super) async fn with_tiles<T>(store: &dyn Store, arithmetic: impl Fn(Read<'_>) -> T) -> Result<T, StoreError> {
    let asked = {
        let asked = RefCell::new(Vec::new());
        let _ = arithmetic(&|paths| {
            asked.borrow_mut().extend_from_slice(paths);
            Ok(paths.iter().map(|path| vec![0; bytes_of(path)]).collect())
        });
        asked.into_inner()
    };
    let keys: Vec<_> = asked.iter().filter_map(|path| key_of(path).map(|key| (Table::Tile, key))).collect();
    let rows = store.read_many(keys.clone()).await?;
    let tiles: HashMap<Bytes, Option<Bytes>> = keys.into_iter().map(|(_, key)| key).zip(rows).collect();
    Ok(arithmetic(&|paths| {
        let tile = |path| {
            let row = tiles.get(&key_of(path)?)?.as_ref()?;
            row.get(..bytes_of(path)).map(<[u8]>::to_vec)
        };
        paths.iter().map(|path| tile(path).ok_or(Missing)).collect()
    }))
}

/// The stored tile at a path; none if it is not there, or not as wide.
pub(super) async fn read_tile(store: &dyn Store, path: &TilePath) -> Result<Option<Bytes>, StoreError> {
    let Some(key) = key_of(path) else { return Ok(None) };
    let row = store.read(Table::Tile, &key).await?;
    Ok(row.filter(|row| row.len() >= bytes_of(path)).map(|row| row.slice(..bytes_of(path))))
}

/// The key of a tile of hashes.
pub(super) fn key_of(path: &TilePath) -> Option<Bytes> {
    match path.resource() {
        Resource::Hashes { level } => Some(tile(level, path.index())),
        Resource::Entries => None,
    }
}

fn bytes_of(path: &TilePath) -> usize {
    usize::from(path.width()) * 32
}
