//! The log's tree against vectors, and against its definition over random sizes.

#![expect(clippy::cast_possible_truncation, clippy::unwrap_used, reason = "tests over small trees")]

use std::convert::Infallible;

use proptest::prelude::*;
use serde_json::Value;
use sluice_merkle::Hash;
use sluice_merkle::tree::{
    ConsistencyError, Coordinate, EMPTY_ROOT, Frontier, HashSource, InclusionError, ProveError, consistency_proof,
    inclusion_proof, leaf_hash, node_hash, verify_consistency, verify_inclusion,
};

/// All leaves, and the roots of perfect subtrees computed by the definition.
struct Leaves(Vec<Hash>);

impl HashSource for Leaves {
    type Error = Infallible;

    fn hashes(&self, at: &[Coordinate]) -> Result<Vec<Hash>, Infallible> {
        let perfect = |it: &Coordinate| {
            let (start, len) = ((it.index << it.level) as usize, 1 << it.level);
            mth(&self.0[start..start + len])
        };
        Ok(at.iter().map(perfect).collect())
    }
}

/// RFC 6962 §2.1, word for word.
fn mth(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => EMPTY_ROOT,
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            node_hash(&mth(left), &mth(right))
        }
    }
}

fn leaves(count: usize) -> Leaves {
    Leaves((0..count).map(|n| leaf_hash(format!("leaf-{n}").as_bytes())).collect())
}

fn root(leaves: &[Hash]) -> Hash {
    let mut frontier = Frontier::new();
    for leaf in leaves {
        frontier.append(*leaf).unwrap();
    }
    assert_eq!(frontier.size(), leaves.len() as u64);
    frontier.root()
}

fn vectors() -> Value {
    serde_json::from_str(include_str!("data/rfc6962-vectors.json")).unwrap()
}

fn bytes(hex: &Value) -> Vec<u8> {
    let hex = hex.as_str().unwrap();
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn hash(hex: &Value) -> Hash {
    bytes(hex).try_into().unwrap()
}

fn hashes(list: &Value) -> Vec<Hash> {
    list.as_array().unwrap().iter().map(hash).collect()
}

#[test]
fn every_root_of_the_vectors() {
    let vectors = vectors();
    let reference: Vec<Hash> =
        vectors["reference8"]["leaves"].as_array().unwrap().iter().map(|leaf| leaf_hash(&bytes(leaf))).collect();
    let roots = hashes(&vectors["reference8"]["roots"]);
    assert_eq!(roots.len(), 9);
    for (size, expected) in roots.iter().enumerate() {
        assert_eq!(root(&reference[..size]), *expected, "reference tree of {size}");
    }
    let roots = vectors["seq"]["roots"].as_object().unwrap();
    assert_eq!(roots.len(), 44);
    for (size, expected) in roots {
        assert_eq!(root(&leaves(size.parse().unwrap()).0), hash(expected), "tree of {size}");
    }
}

#[test]
fn every_inclusion_proof_of_the_vectors() {
    let vectors = vectors();
    let cases = vectors["inclusion"].as_array().unwrap();
    assert_eq!(cases.len(), 76);
    for case in cases {
        let (size, index) = (case["size"].as_u64().unwrap(), case["index"].as_u64().unwrap());
        let leaves = leaves(size as usize);
        let proof = hashes(&case["proof"]);
        assert_eq!(inclusion_proof(index, size, &leaves), Ok(proof.clone()), "{index} of {size}");
        assert_eq!(verify_inclusion(&hash(&case["leafHash"]), index, size, &proof, &root(&leaves.0)), Ok(()));
    }
}

#[test]
fn every_inclusion_proof_to_refuse() {
    let vectors = vectors();
    let cases = vectors["inclusionNegative"].as_array().unwrap();
    assert_eq!(cases.len(), 80);
    for case in cases {
        let (size, index) = (case["size"].as_u64().unwrap(), case["index"].as_u64().unwrap());
        let proof = hashes(&case["proof"]);
        let refused = verify_inclusion(&hash(&case["leafHash"]), index, size, &proof, &root(&leaves(size as usize).0))
            .unwrap_err();
        match case["why"].as_str().unwrap() {
            "one nibble changed" => assert_eq!(refused, InclusionError::RootMismatch),
            "proof too long" => {
                assert_eq!(refused, InclusionError::ProofLength { expected: proof.len() - 1, got: proof.len() });
            }
            "proof too short" => {
                assert_eq!(refused, InclusionError::ProofLength { expected: proof.len() + 1, got: proof.len() });
            }
            "index not below size" => assert_eq!(refused, InclusionError::IndexBeyondSize { index, size }),
            why => panic!("unknown kind of vector: {why}"),
        }
    }
}

#[test]
fn every_consistency_proof_of_the_vectors() {
    let vectors = vectors();
    let cases = vectors["consistency"].as_array().unwrap();
    assert_eq!(cases.len(), 75);
    for case in cases {
        let (old, new) = (case["size1"].as_u64().unwrap(), case["size2"].as_u64().unwrap());
        let proof = hashes(&case["proof"]);
        let (old_root, new_root) = (hash(&case["root1"]), hash(&case["root2"]));
        assert_eq!(consistency_proof(old, new, &leaves(new as usize)), Ok(proof.clone()), "{old} to {new}");
        assert_eq!(verify_consistency(old, new, &old_root, &new_root, &proof), Ok(()));
    }
}

#[test]
fn every_pair_of_small_trees() {
    let all = leaves(70);
    let roots: Vec<Hash> = (0..=70).map(|size| mth(&all.0[..size])).collect();
    for new in 0..=70u64 {
        for old in 0..=new {
            let proof = consistency_proof(old, new, &all).unwrap();
            let (old_root, new_root) = (&roots[old as usize], &roots[new as usize]);
            assert_eq!(verify_consistency(old, new, old_root, new_root, &proof), Ok(()), "{old} to {new}");
            let longer = [&proof[..], &[[0; 32]]].concat();
            let got = longer.len();
            assert_eq!(
                verify_consistency(old, new, old_root, new_root, &longer),
                Err(ConsistencyError::ProofLength { expected: got - 1, got })
            );
        }
        for index in 0..new {
            let proof = inclusion_proof(index, new, &all).unwrap();
            let (leaf, root) = (&all.0[index as usize], &roots[new as usize]);
            assert_eq!(verify_inclusion(leaf, index, new, &proof, root), Ok(()), "{index} of {new}");
            // Nowhere else in the tree does the same proof hold.
            for other in (0..new).filter(|other| *other != index) {
                assert!(verify_inclusion(leaf, other, new, &proof, root).is_err());
            }
        }
    }
}

#[test]
fn impossible_requests_are_refused() {
    let none = leaves(0);
    assert_eq!(inclusion_proof(0, 0, &none), Err(ProveError::IndexBeyondSize { index: 0, size: 0 }));
    assert_eq!(consistency_proof(2, 1, &none), Err(ProveError::SizesReversed { old: 2, new: 1 }));
    let root = [1; 32];
    assert_eq!(verify_consistency(2, 1, &root, &root, &[]), Err(ConsistencyError::SizesReversed { old: 2, new: 1 }));
    assert_eq!(verify_consistency(0, 5, &root, &root, &[]), Err(ConsistencyError::OldRootMismatch));
    assert_eq!(verify_consistency(0, 0, &EMPTY_ROOT, &root, &[]), Err(ConsistencyError::NewRootMismatch));
    assert_eq!(verify_consistency(5, 5, &root, &[2; 32], &[]), Err(ConsistencyError::NewRootMismatch));
    assert_eq!(verify_consistency(0, 5, &EMPTY_ROOT, &root, &[]), Ok(()));
    // The largest sizes overflow nothing.
    for (index, size) in [(0, u64::MAX), (u64::MAX - 1, u64::MAX), (1 << 63, u64::MAX), (0, 1 << 63)] {
        assert!(verify_inclusion(&root, index, size, &[[0; 32]; 64], &root).is_err());
        assert!(verify_consistency(index.max(1), size, &root, &[2; 32], &[[0; 32]; 64]).is_err());
    }
}

/// A source that gives too few hashes.
struct Short;

impl HashSource for Short {
    type Error = Infallible;

    fn hashes(&self, at: &[Coordinate]) -> Result<Vec<Hash>, Infallible> {
        Ok(vec![[0; 32]; at.len() - 1])
    }
}

#[test]
fn a_source_that_gives_too_few_hashes_is_told() {
    assert_eq!(inclusion_proof(0, 2, &Short), Err(ProveError::SourceCount { expected: 1, got: 0 }));
    assert_eq!(consistency_proof(1, 2, &Short), Err(ProveError::SourceCount { expected: 1, got: 0 }));
}

proptest! {
    #[test]
    fn every_proof_verifies_and_every_flipped_bit_fails(
        new in 1..1500usize, old in any::<prop::sample::Index>(), index in any::<prop::sample::Index>(), flip in any::<prop::sample::Index>(),
    ) {
        let all = leaves(new);
        let (old, index) = (old.index(new) + 1, index.index(new));
        let (old_root, new_root) = (mth(&all.0[..old]), mth(&all.0));
        prop_assert_eq!(root(&all.0), new_root);
        let (old, new, leaf) = (old as u64, new as u64, all.0[index]);
        let index = index as u64;

        let mut proof = inclusion_proof(index, new, &all).unwrap();
        prop_assert_eq!(verify_inclusion(&leaf, index, new, &proof, &new_root), Ok(()));
        if !proof.is_empty() {
            let at = flip.index(proof.len() * 256);
            proof[at / 256][at % 256 / 8] ^= 1 << (at % 8);
            prop_assert_eq!(verify_inclusion(&leaf, index, new, &proof, &new_root), Err(InclusionError::RootMismatch));
        }

        let mut proof = consistency_proof(old, new, &all).unwrap();
        prop_assert_eq!(verify_consistency(old, new, &old_root, &new_root, &proof), Ok(()));
        if !proof.is_empty() {
            let at = flip.index(proof.len() * 256);
            proof[at / 256][at % 256 / 8] ^= 1 << (at % 8);
            prop_assert!(verify_consistency(old, new, &old_root, &new_root, &proof).is_err());
        }
    }

    #[test]
    fn a_frontier_goes_on_where_it_was_left(before in 0..600usize, after in 0..600usize) {
        let all = leaves(before + after);
        let mut frontier = Frontier::restore(before as u64, &all).unwrap();
        prop_assert_eq!(frontier.root(), mth(&all.0[..before]));
        let again = Frontier::from_parts(frontier.size(), frontier.hashes().to_vec());
        prop_assert_eq!(again, Ok(frontier.clone()));
        for leaf in &all.0[before..] {
            frontier.append(*leaf).unwrap();
        }
        prop_assert_eq!(frontier.root(), mth(&all.0));
    }
}
