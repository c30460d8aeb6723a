//! How a log is cut into files, c2sp.org/tlog-tiles.
//!
//! Takes leaf hashes, entries or stored tiles; gives the tiles to store, the proofs they hold, and
//! their paths. Never reads or writes: the caller hands in how a tile is read.

mod edge;
mod entries;
mod source;

use std::fmt;

pub use edge::{Edge, EdgeError, Tile};
pub use entries::{ENTRY_BYTES_MAX, EntriesError, decode_entries, encode_entries};
pub use source::{TileError, Tiles, TilesError};

use crate::text::decimal;
use crate::tree::SIZE_MAX;

/// Hashes in a full tile, and entries in a full bundle.
pub const WIDTH: u16 = 256;

/// Tree levels that one tile spans.
const HEIGHT: u8 = 8;

/// Bytes of a full hash tile.
pub const BYTES_MAX: usize = 256 * 32;

/// What a tile holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// Hashes of the tree at this level: leaf hashes at 0, and above it roots of full tiles.
    Hashes {
        /// The tile level: 256^level leaves under each hash.
        level: u8,
    },
    /// The entries themselves: an "entry bundle".
    Entries,
}

/// Which tile: `tile/<L>/<N>[.p/<W>]` or `tile/entries/<N>[.p/<W>]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TilePath {
    resource: Resource,
    index: u64,
    width: u16,
}

/// Why a path is not that of a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Not `tile/…/…`.
    #[error("a tile's path is tile/<level>/<index> or tile/entries/<index>")]
    Form,
    /// A level that is no decimal from 0 to 63.
    #[error("a tile's level is a decimal from 0 to 63")]
    Level,
    /// An index that is not groups of three digits, all but the last after an `x`.
    #[error("a tile's index is groups of three digits, all but the last after an x, without leading groups of zeros")]
    Index,
    /// An index beyond the largest tree.
    #[error("a tree has no tile of so high an index")]
    IndexTooLarge,
    /// A width that is no decimal from 1 to 255 (in a path), or to 256.
    #[error("a partial tile's width is a decimal from 1 to 255")]
    Width,
}

impl TilePath {
    /// The tile with this index, `width` hashes or entries wide (1 to 256, 256 being full).
    pub fn new(resource: Resource, index: u64, width: u16) -> Result<Self, PathError> {
        if matches!(resource, Resource::Hashes { level } if level > 63) {
            return Err(PathError::Level);
        }
        if index > SIZE_MAX / u64::from(WIDTH) {
            return Err(PathError::IndexTooLarge);
        }
        if width == 0 || width > WIDTH {
            return Err(PathError::Width);
        }
        Ok(Self { resource, index, width })
    }

    /// The tile with this index as it stands in the tree of `size` leaves: full, partial, or none.
    pub fn within(resource: Resource, index: u64, size: u64) -> Option<Self> {
        let level = match resource {
            Resource::Hashes { level } => level,
            Resource::Entries => 0,
        };
        let hashes = size.checked_shr(u32::from(level) * u32::from(HEIGHT)).unwrap_or(0);
        let before = index.checked_mul(u64::from(WIDTH))?;
        let width = u16::try_from(hashes.checked_sub(before)?).unwrap_or(WIDTH).min(WIDTH);
        Self::new(resource, index, width).ok()
    }

    /// The partial hash tiles of the tree of `size` leaves, lowest level first. There is none at a
    /// level whose hashes fill their tiles (c2sp.org/tlog-tiles, partial tiles).
    pub fn partial(size: u64) -> impl Iterator<Item = Self> {
        (0..HEIGHT).filter_map(move |level| {
            let hashes = size >> (level * HEIGHT);
            let path = Self::within(Resource::Hashes { level }, hashes / u64::from(WIDTH), size)?;
            path.is_partial().then_some(path)
        })
    }

    /// Reads a path. Whatever is accepted is given back byte for byte by `Display`.
    pub fn parse(path: &str) -> Result<Self, PathError> {
        let (resource, rest) =
            path.strip_prefix("tile/").and_then(|rest| rest.split_once('/')).ok_or(PathError::Form)?;
        let resource = if resource == "entries" {
            Resource::Entries
        } else {
            let level = decimal(resource).and_then(|level| u8::try_from(level).ok());
            Resource::Hashes { level: level.filter(|level| *level <= 63).ok_or(PathError::Level)? }
        };
        let (index, width) = match rest.split_once(".p/") {
            None => (rest, WIDTH),
            Some((index, width)) => {
                let width = decimal(width).and_then(|width| u16::try_from(width).ok());
                (index, width.filter(|width| (1..WIDTH).contains(width)).ok_or(PathError::Width)?)
            }
        };
        Self::new(resource, parse_index(index)?, width)
    }

    /// What the tile holds.
    pub fn resource(&self) -> Resource {
        self.resource
    }

    /// The tile's index within its level.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// How many hashes or entries it holds.
    pub fn width(&self) -> u16 {
        self.width
    }

    /// Whether it may still grow.
    pub fn is_partial(&self) -> bool {
        self.width < WIDTH
    }
}

impl fmt::Display for TilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.resource {
            Resource::Hashes { level } => write!(f, "tile/{level}/")?,
            Resource::Entries => f.write_str("tile/entries/")?,
        }
        let digits = self.index.to_string();
        let groups = digits.len().div_ceil(3);
        let padded = format!("{digits:0>width$}", width = groups * 3);
        for group in 1..groups {
            write!(f, "x{}/", &padded[(group - 1) * 3..group * 3])?;
        }
        f.write_str(&padded[(groups - 1) * 3..])?;
        if self.is_partial() { write!(f, ".p/{}", self.width) } else { Ok(()) }
    }
}

impl std::str::FromStr for TilePath {
    type Err = PathError;

    fn from_str(path: &str) -> Result<Self, PathError> {
        Self::parse(path)
    }
}

fn parse_index(groups: &str) -> Result<u64, PathError> {
    let mut index = 0u64;
    let mut rest = groups;
    let mut first = true;
    loop {
        let (group, after) = match rest.strip_prefix('x') {
            Some(inner) => {
                let (group, after) = inner.split_once('/').ok_or(PathError::Index)?;
                (group, Some(after))
            }
            None => (rest, None),
        };
        // A leading group of zeros would be a second spelling of the same index.
        let superfluous = first && after.is_some() && group == "000";
        if group.len() != 3 || !group.bytes().all(|it| it.is_ascii_digit()) || superfluous {
            return Err(PathError::Index);
        }
        let value = group.parse::<u64>().map_err(|_| PathError::Index)?;
        index = index.checked_mul(1000).and_then(|index| index.checked_add(value)).ok_or(PathError::IndexTooLarge)?;
        match after {
            Some(after) => rest = after,
            None => return Ok(index),
        }
        first = false;
    }
}

#[cfg(test)]
mod tests;
