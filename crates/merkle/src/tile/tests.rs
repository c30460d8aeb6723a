use std::collections::HashMap;
use std::convert::Infallible;

use proptest::prelude::*;

use super::*;
use crate::Hash;
use crate::tree::{
    Frontier, HashSource, consistency_proof, inclusion_proof, leaf_hash, verify_consistency, verify_inclusion,
};

fn hashes(level: u8) -> Resource {
    Resource::Hashes { level }
}

/// A log that stores its tiles at each of the sizes given.
struct Stored {
    edge: Edge,
    tiles: HashMap<TilePath, Vec<u8>>,
    roots: Vec<(u64, Hash)>,
}

impl Stored {
    fn grown(sizes: &[u64]) -> Self {
        let mut log = Self { edge: Edge::new(), tiles: HashMap::new(), roots: Vec::new() };
        for &size in sizes {
            while log.edge.size() < size {
                log.edge.append(leaf(log.edge.size())).unwrap();
            }
            for tile in log.edge.take() {
                assert_eq!(log.tiles.insert(tile.path, tile.bytes), None, "a tile is written once");
            }
            log.roots.push((size, log.edge.root()));
        }
        log
    }

    fn read(&self, paths: &[TilePath]) -> Result<Vec<Vec<u8>>, TilePath> {
        paths.iter().map(|path| self.tiles.get(path).cloned().ok_or(*path)).collect()
    }

    fn at(&self, size: u64) -> impl HashSource<Error = TilesError<TilePath>> {
        Tiles::new(size, |paths: &[TilePath]| self.read(paths))
    }
}

fn leaf(index: u64) -> Hash {
    leaf_hash(&index.to_be_bytes())
}

#[test]
fn paths_of_the_specification() {
    for (resource, index, width, path) in [
        (hashes(0), 1_234_067, 256, "tile/0/x001/x234/067"),
        (hashes(0), 1_234_067, 12, "tile/0/x001/x234/067.p/12"),
        (hashes(0), 273, 112, "tile/0/273.p/112"),
        (hashes(1), 1, 17, "tile/1/001.p/17"),
        (hashes(63), 0, 1, "tile/63/000.p/1"),
        (Resource::Entries, 999, 256, "tile/entries/999"),
        (Resource::Entries, 1000, 255, "tile/entries/x001/000.p/255"),
        (hashes(0), SIZE_MAX / 256, 256, "tile/0/x036/x028/x797/x018/x963/967"),
    ] {
        let tile = TilePath::new(resource, index, width).unwrap();
        assert_eq!(tile.to_string(), path);
        assert_eq!(TilePath::parse(path), Ok(tile));
    }
}

#[test]
fn a_path_is_refused_for_its_exact_cause() {
    use PathError as E;
    for (path, cause) in [
        ("", E::Form),
        ("tile/0", E::Form),
        ("/tile/0/000", E::Form),
        ("tile/-1/000", E::Level),
        ("tile/00/000", E::Level),
        ("tile/64/000", E::Level),
        ("tile/data/000", E::Level),
        ("tile/0/", E::Index),
        ("tile/0/0", E::Index),
        ("tile/0/0000", E::Index),
        ("tile/0/x001", E::Index),
        ("tile/0/001/002", E::Index),
        ("tile/0/x000/001", E::Index),
        ("tile/0/x001/x000", E::Index),
        ("tile/0/+01", E::Index),
        ("tile/0/../000", E::Index),
        ("tile/0/x036/x028/x797/x018/x963/968", E::IndexTooLarge),
        ("tile/0/x100/x000/x000/x000/x000/x000/000", E::IndexTooLarge),
        ("tile/0/000.p/0", E::Width),
        ("tile/0/000.p/256", E::Width),
        ("tile/0/000.p/01", E::Width),
        ("tile/0/000.p/", E::Width),
        ("tile/0/000.p/1/", E::Width),
    ] {
        assert_eq!(TilePath::parse(path), Err(cause), "{path:?}");
    }
}

#[test]
fn the_example_tree_of_the_specification_has_these_tiles() {
    let log = Stored::grown(&[70_000]);
    let count = |level, partial| {
        log.tiles.keys().filter(|it| it.resource() == hashes(level) && it.is_partial() == partial).count()
    };
    assert_eq!((count(0, false), count(1, false), count(2, false)), (273, 1, 0));
    let partial: Vec<_> = TilePath::partial(70_000).map(|it| it.to_string()).collect();
    assert_eq!(partial, ["tile/0/273.p/112", "tile/1/001.p/17", "tile/2/000.p/1"]);
    assert_eq!((count(0, true), count(1, true), count(2, true)), (1, 1, 1));

    let partial: Vec<_> = TilePath::partial(256).map(|it| it.to_string()).collect();
    assert_eq!(partial, ["tile/1/000.p/1"]);
    assert_eq!(TilePath::partial(0).count(), 0);
}

#[test]
fn a_tile_of_the_wrong_length_is_told() {
    let short = Tiles::new(300, |paths: &[TilePath]| Ok::<_, Infallible>(vec![vec![0; 31]; paths.len()]));
    let length = TilesError::Tile(TileError::Length { expected: 44 * 32, got: 31 });
    assert_eq!(inclusion_proof(299, 300, &short).unwrap_err(), crate::tree::ProveError::Source(length));
    let none = Tiles::new(300, |_: &[TilePath]| Ok::<_, Infallible>(vec![]));
    let count = TilesError::Count { expected: 2, got: 0 };
    assert_eq!(inclusion_proof(299, 300, &none).unwrap_err(), crate::tree::ProveError::Source(count));
    assert_eq!(
        Edge::restore(300, |_: &[TilePath]| Ok::<_, Infallible>(vec![])).unwrap_err(),
        EdgeError::Tiles(TilesError::Count { expected: 2, got: 0 })
    );
    // A proof in a larger tree than the tiles are of.
    let log = Stored::grown(&[300]);
    assert_eq!(
        inclusion_proof(0, 301, &log.at(300)).unwrap_err(),
        crate::tree::ProveError::Source(TilesError::Beyond { level: 0, index: 300 })
    );
}

#[test]
fn bundles_are_read_whole_or_not_at_all() {
    let longest = vec![7; 65_535];
    let entries: [&[u8]; 3] = [b"a", b"", &longest];
    let bundle = encode_entries(entries).unwrap();
    assert_eq!(&bundle[..5], [0, 1, b'a', 0, 0]);
    assert_eq!(decode_entries(&bundle, 3), Ok(entries.to_vec()));
    assert_eq!(decode_entries(&bundle, 2), Err(EntriesError::TrailingBytes));
    assert_eq!(decode_entries(&bundle, 4), Err(EntriesError::Truncated { index: 3 }));
    assert_eq!(decode_entries(&bundle[..bundle.len() - 1], 3), Err(EntriesError::Truncated { index: 2 }));
    assert_eq!(decode_entries(&bundle[..4], 2), Err(EntriesError::Truncated { index: 1 }));
    assert_eq!(encode_entries([vec![0; 65_536]]), Err(EntriesError::TooLong { index: 0 }));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn proofs_from_the_tiles_of_a_growing_log_verify(
        mut sizes in prop::collection::vec(prop_oneof![1..2000u64, 65_000..67_000u64], 1..6),
        ask in any::<prop::sample::Index>(),
    ) {
        sizes.sort_unstable();
        sizes.dedup();
        let log = Stored::grown(&sizes);
        for (old, old_root) in &log.roots {
            let tiles = log.at(*old);
            prop_assert_eq!(Frontier::restore(*old, &tiles).unwrap().root(), *old_root);
            let index = ask.index(usize::try_from(*old).unwrap()) as u64;
            let proof = inclusion_proof(index, *old, &tiles).unwrap();
            prop_assert_eq!(verify_inclusion(&leaf(index), index, *old, &proof, old_root), Ok(()));
            for (new, new_root) in log.roots.iter().filter(|(new, _)| new >= old) {
                let proof = consistency_proof(*old, *new, &log.at(*new)).unwrap();
                prop_assert_eq!(verify_consistency(*old, *new, old_root, new_root, &proof), Ok(()));
            }
        }
        // An edge that was read back goes on as the one that was never left.
        let (size, root) = log.roots[0];
        let mut restored = Edge::restore(size, |paths: &[TilePath]| log.read(paths)).unwrap();
        prop_assert_eq!((restored.size(), restored.root()), (size, root));
        prop_assert_eq!(restored.take(), vec![]);
        let mut tiles = Vec::new();
        while restored.size() < log.edge.size() {
            restored.append(leaf(restored.size())).unwrap();
            if sizes.contains(&restored.size()) {
                tiles.extend(restored.take());
            }
        }
        prop_assert_eq!(restored.root(), log.edge.root());
        for tile in tiles {
            prop_assert_eq!(log.tiles.get(&tile.path), Some(&tile.bytes));
        }
    }

    #[test]
    fn a_path_has_one_spelling(path in "tile/([0-9]{1,2}|entries)/(x[0-9]{3}/){0,3}[0-9]{3}(\\.p/[0-9]{1,3})?") {
        if let Ok(tile) = TilePath::parse(&path) {
            prop_assert_eq!(tile.to_string(), path);
        }
    }
}
