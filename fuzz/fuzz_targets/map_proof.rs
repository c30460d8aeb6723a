//! A map proof has one encoding, and no bytes prove the absence of what is there or another value for it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice_merkle::Hash;
use sluice_merkle::map::{Map, MapProof, verify};
use sluice_merkle::tree::leaf_hash;

fuzz_target!(|bytes: &[u8]| {
    let Ok(proof) = MapProof::decode(bytes) else { return };
    assert_eq!(proof.encode(), bytes);
    let map: Map<Hash> = (0..40u8).map(|n| (leaf_hash(&[n]), [n; 32])).collect();
    let present = leaf_hash(&[7]);
    assert!(verify(&map.root(), &present, None, &proof).is_err());
    assert!(verify(&map.root(), &present, Some(&[8; 32]), &proof).is_err());
    let absent = leaf_hash(&[77]);
    assert!(verify(&map.root(), &absent, Some(&[77; 32]), &proof).is_err());
});
