//! The right edge of a growing log, as tiles.
//!
//! Takes leaf hashes; gives the tiles to be stored for each published size, and the root. Never
//! holds more than one partial tile a level: at most 64 KiB.

use super::{BYTES_MAX, HEIGHT, PathError, Resource, TileError, TilePath, Tiles, TilesError, WIDTH};
use crate::Hash;
use crate::tree::{Frontier, FrontierError, RestoreError};

/// A tile to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tile {
    /// Where.
    pub path: TilePath,
    /// What: its hashes, one after the other.
    pub bytes: Vec<u8>,
}

/// Why an edge could not be extended or restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EdgeError<E> {
    /// The tree is full, or what was read is no frontier.
    #[error(transparent)]
    Frontier(FrontierError),
    /// A tile has no path. Cannot be within [`crate::tree::SIZE_MAX`] leaves.
    #[error(transparent)]
    Path(PathError),
    /// A tile could not be read, or is not one.
    #[error(transparent)]
    Tiles(TilesError<E>),
}

/// What is needed of a log's tree to append to it, to sign its root and to store its tiles.
#[derive(Clone, Debug, Default)]
pub struct Edge {
    frontier: Frontier,
    /// The hashes of the partial tile at each level, and how many of them were taken.
    levels: Vec<Level>,
    /// Tiles that became full since [`Edge::take`].
    full: Vec<Tile>,
}

#[derive(Clone, Debug, Default)]
struct Level {
    bytes: Vec<u8>,
    taken: usize,
}

impl Edge {
    /// The edge of the log without leaves.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the edge of a log of `size` leaves back from its tiles.
    pub fn restore<E>(size: u64, read: impl Fn(&[TilePath]) -> Result<Vec<Vec<u8>>, E>) -> Result<Self, EdgeError<E>> {
        let paths: Vec<_> = TilePath::partial(size).collect();
        let tiles = read(&paths).map_err(|error| EdgeError::Tiles(TilesError::Read(error)))?;
        if tiles.len() != paths.len() {
            return Err(EdgeError::Tiles(TilesError::Count { expected: paths.len(), got: tiles.len() }));
        }
        let mut levels = Vec::new();
        for (path, bytes) in paths.iter().zip(tiles) {
            TileError::check(path, &bytes).map_err(|error| EdgeError::Tiles(TilesError::Tile(error)))?;
            if let Resource::Hashes { level } = path.resource() {
                levels.resize(usize::from(level) + 1, Level::default());
                levels[usize::from(level)] = Level { taken: bytes.len(), bytes };
            }
        }
        let frontier = Frontier::restore(size, &Tiles::new(size, read)).map_err(|error| match error {
            RestoreError::Source(error) => EdgeError::Tiles(error),
            RestoreError::Frontier(error) => EdgeError::Frontier(error),
        })?;
        Ok(Self { frontier, levels, full: Vec::new() })
    }

    /// How many leaves the log has.
    pub fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// The root over them.
    pub fn root(&self) -> Hash {
        self.frontier.root()
    }

    /// Appends a leaf by its hash.
    pub fn append(&mut self, leaf_hash: Hash) -> Result<(), FrontierError> {
        let (levels, full) = (&mut self.levels, &mut self.full);
        self.frontier.append_with(leaf_hash, |at, hash| {
            if at.level % HEIGHT != 0 {
                return;
            }
            let level = at.level / HEIGHT;
            if levels.len() <= usize::from(level) {
                levels.resize(usize::from(level) + 1, Level::default());
            }
            let edge = &mut levels[usize::from(level)];
            edge.bytes.extend(hash);
            if edge.bytes.len() == BYTES_MAX {
                let index = at.index / u64::from(WIDTH);
                let bytes = std::mem::take(edge).bytes;
                full.extend(TilePath::new(Resource::Hashes { level }, index, WIDTH).map(|path| Tile { path, bytes }));
            }
        })
    }

    /// The tiles that have to be stored before a checkpoint of this size is published: those that
    /// became full, and the partial ones that grew, since the last call. Logs must serve the
    /// partial tiles of published sizes (c2sp.org/tlog-tiles, partial tiles).
    pub fn take(&mut self) -> Vec<Tile> {
        let mut tiles = std::mem::take(&mut self.full);
        for path in TilePath::partial(self.size()) {
            let Resource::Hashes { level } = path.resource() else { continue };
            let Some(edge) = self.levels.get_mut(usize::from(level)) else { continue };
            if edge.bytes.len() > edge.taken {
                edge.taken = edge.bytes.len();
                tiles.push(Tile { path, bytes: edge.bytes.clone() });
            }
        }
        tiles
    }
}
