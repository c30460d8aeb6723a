use std::convert::Infallible;

use proptest::prelude::*;

use super::*;
use crate::checkpoint::Checkpoint;
use crate::note::KeyKind;
use crate::note::tests::{Pair, ed25519};
use crate::tile::{Edge, TilePath, Tiles, TilesError};
use crate::tree::{HashSource, consistency_proof, inclusion_proof, leaf_hash};

fn log() -> Pair {
    Pair::new("log.example", KeyKind::Ed25519, 1)
}

fn witness(n: u8) -> Pair {
    Pair::new(&format!("witness.example/{n}"), KeyKind::Cosignature, n)
}

fn policy(threshold: usize) -> Policy {
    Policy::new(vec![log().key], vec![witness(2).key, witness(3).key], threshold).unwrap()
}

fn leaf(index: u64) -> Hash {
    leaf_hash(format!("leaf-{index}").as_bytes())
}

fn head(size: u64, root: Hash, cosigners: &[u8]) -> SignedCheckpoint {
    let checkpoint = Checkpoint::new("log.example", size, root).unwrap();
    let text = checkpoint.to_string();
    let mut signatures = vec![log().sign(&text)];
    signatures.extend(cosigners.iter().map(|n| witness(*n).cosign(&text, 1_000 + u64::from(*n))));
    SignedCheckpoint::new(checkpoint, signatures).unwrap()
}

struct Log {
    edge: Edge,
    tiles: Vec<crate::tile::Tile>,
}

impl Log {
    fn of(size: u64) -> Self {
        let mut edge = Edge::new();
        (0..size).for_each(|index| edge.append(leaf(index)).unwrap());
        Self { tiles: edge.take(), edge }
    }

    fn source(&self) -> impl HashSource<Error = TilesError<Infallible>> {
        Tiles::new(self.edge.size(), |paths: &[TilePath]| {
            let read = |path: &TilePath| self.tiles.iter().find(|tile| tile.path == *path).unwrap().bytes.clone();
            Ok(paths.iter().map(read).collect())
        })
    }

    fn receipt(&self, index: u64, cosigners: &[u8]) -> TlogProof {
        let hashes = inclusion_proof(index, self.edge.size(), &self.source()).unwrap();
        TlogProof::new(index, hashes, head(self.edge.size(), self.edge.root(), cosigners)).unwrap()
    }
}

#[test]
fn a_receipt_says_how_sure_one_may_be() {
    let log = Log::of(300);
    for (cosigners, assurance, existed_by_s) in [
        (&[][..], "self", None),
        (&[3], "witnessed 1/2", Some(1003)),
        (&[3, 2], "witnessed 2/2", Some(1002)),
        (&[9], "self", None),
    ] {
        let receipt = log.receipt(77, cosigners).to_string();
        let verified = verify(&policy(0), &leaf(77), receipt.as_bytes(), &ed25519).unwrap();
        assert_eq!(verified.assurance.to_string(), assurance);
        assert_eq!(verified.existed_by_s, existed_by_s);
        assert_eq!((verified.origin.as_str(), verified.index, verified.size), ("log.example", 77, 300));
    }
}

#[test]
fn the_broken_link_is_named() {
    let log = Log::of(300);
    let good = log.receipt(77, &[2]);
    let link = |policy: &Policy, leaf: &Hash, receipt: &TlogProof| {
        verify_proof(policy, leaf, receipt, &ed25519).map_err(|error| error.link())
    };
    assert!(link(&policy(1), &leaf(77), &good).is_ok());
    assert_eq!(link(&policy(1), &leaf(78), &good), Err(Link::Inclusion));
    assert_eq!(link(&policy(2), &leaf(77), &good), Err(Link::Witness));
    let strange = Policy::new(vec![Pair::new("log.example", KeyKind::Ed25519, 9).key], vec![], 0).unwrap();
    assert_eq!(link(&strange, &leaf(77), &good), Err(Link::Checkpoint));
    let moved = TlogProof::new(76, good.hashes().to_vec(), good.checkpoint().clone()).unwrap();
    assert_eq!(link(&policy(1), &leaf(77), &moved), Err(Link::Inclusion));
    let cut = verify(&policy(1), &leaf(77), &good.to_string().as_bytes()[1..], &ed25519);
    assert_eq!(cut.unwrap_err().link().name(), "form");
}

#[test]
fn a_log_that_was_rewritten_is_found() {
    let (earlier, later) = (Log::of(200), Log::of(300));
    let proof = consistency_proof(200, 300, &later.source()).unwrap();
    let old = head(200, earlier.edge.root(), &[]);
    let new = head(300, later.edge.root(), &[2]);
    let grown = |old: &SignedCheckpoint, new: &SignedCheckpoint, proof: &[Hash]| {
        verify_growth(&policy(0), old, new, proof, &ed25519).map_err(|error| error.link())
    };
    assert_eq!(grown(&old, &new, &proof), Ok(Assurance::Witnessed { cosigned: 1, witnesses: 2 }));
    assert_eq!(grown(&head(200, [5; 32], &[]), &new, &proof), Err(Link::Consistency));
    assert_eq!(grown(&old, &head(300, [5; 32], &[]), &proof), Err(Link::Consistency));
    assert_eq!(grown(&new, &old, &proof), Err(Link::Consistency));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn every_flipped_bit_breaks_a_receipt(size in 1..400u64, index in any::<prop::sample::Index>(), flip in any::<prop::sample::Index>()) {
        let index = index.index(usize::try_from(size).unwrap()) as u64;
        let mut receipt = Log::of(size).receipt(index, &[2, 3]).to_string().into_bytes();
        prop_assert!(verify(&policy(2), &leaf(index), &receipt, &ed25519).is_ok());
        let at = flip.index(receipt.len() * 8);
        receipt[at / 8] ^= 1 << (at % 8);
        prop_assert!(verify(&policy(2), &leaf(index), &receipt, &ed25519).is_err());
    }
}
