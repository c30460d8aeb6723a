//! Tile paths and entry bundles have one spelling, and arbitrary tiles never panic a prover.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice_merkle::tile::{TilePath, Tiles, decode_entries, encode_entries};
use sluice_merkle::tree::{consistency_proof, inclusion_proof, verify_consistency, verify_inclusion};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(path) = TilePath::parse(text)
    {
        assert_eq!(path.to_string(), text);
    }
    let Some((&[a, b, c, d, e, f, g, h], rest)) = bytes.split_first_chunk::<8>() else { return };
    let width = u16::from(a) + 1;
    if let Ok(entries) = decode_entries(rest, width) {
        assert_eq!(encode_entries(entries).as_deref(), Ok(rest));
    }
    let size = u64::from_le_bytes([a, b, c, d, e, f, g, h]) >> (h % 64);
    let index = u64::from_le_bytes([h, g, f, e, d, c, b, a]) >> (a % 64);
    let tiles = Tiles::new(size, |paths: &[TilePath]| {
        Ok::<_, ()>(paths.iter().map(|path| vec![b; usize::from(path.width()) * 32]).collect())
    });
    if let Ok(proof) = inclusion_proof(index, size, &tiles) {
        let _ = verify_inclusion(&[b; 32], index, size, &proof, &[c; 32]);
    }
    if let Ok(proof) = consistency_proof(index, size, &tiles) {
        let _ = verify_consistency(index, size, &[b; 32], &[c; 32], &proof);
    }
    let (hashes, _) = rest.as_chunks::<32>();
    let _ = verify_inclusion(&[b; 32], index, size, hashes, &[c; 32]);
    let _ = verify_consistency(index, size, &[b; 32], &[c; 32], hashes);
});
