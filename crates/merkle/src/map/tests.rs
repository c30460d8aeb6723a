use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// The definition, word for word.
fn reference(records: &[(Hash, Hash)], at: usize) -> Hash {
    match records {
        [] => EMPTY,
        [(key, value)] => leaf_hash(key, value),
        _ => {
            let side =
                |right: bool| -> Vec<_> { records.iter().filter(|it| bit(&it.0, at) == right).copied().collect() };
            node_hash(&reference(&side(false), at + 1), &reference(&side(true), at + 1))
        }
    }
}

fn check_all(map: &Map<Hash>, records: &BTreeMap<Hash, Hash>, absent: &[Hash]) {
    let root = map.root();
    let sorted: Vec<_> = records.iter().map(|(key, value)| (*key, *value)).collect();
    assert_eq!(root, reference(&sorted, 0));
    assert_eq!(map.len(), sorted.len());
    assert_eq!(map.iter().map(|(key, value)| (*key, *value)).collect::<Vec<_>>(), sorted);
    for (key, value) in records {
        assert_eq!(map.get(key), Some(value));
        let proof = map.prove(key);
        assert_eq!(verify(&root, key, Some(value), &proof), Ok(()));
        assert!(verify(&root, key, None, &proof).is_err());
        assert_eq!(verify(&root, key, Some(&[0xff; 32]), &proof), Err(MapProofError::RootMismatch));
        assert_eq!(MapProof::decode(&proof.encode()), Ok(proof));
    }
    for key in absent.iter().filter(|key| !records.contains_key(*key)) {
        assert_eq!(map.get(key), None);
        let proof = map.prove(key);
        assert_eq!(verify(&root, key, None, &proof), Ok(()));
        assert!(verify(&root, key, Some(&[0; 32]), &proof).is_err());
        assert_eq!(MapProof::decode(&proof.encode()), Ok(proof));
    }
}

fn hashed(n: u64) -> Hash {
    Sha256::digest(n.to_be_bytes()).into()
}

/// Keys that are uniform, that differ late, and that differ anywhere.
fn key() -> impl Strategy<Value = Hash> {
    prop_oneof![
        (0..2000u64).prop_map(hashed),
        (0..=255u8).prop_map(|last| {
            let mut key = [0x5a; 32];
            key[31] = last;
            key
        }),
        (0..256usize).prop_map(|at| {
            let mut key = [0; 32];
            key[at / 8] = 0x80 >> (at % 8);
            key
        }),
        any::<Hash>(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_root_is_that_of_the_definition_and_every_claim_can_be_proven(
        batches in prop::collection::vec(prop::collection::vec((key(), any::<Hash>()), 0..160), 1..5),
        absent in prop::collection::vec(key(), 0..40),
    ) {
        let mut map = Map::new();
        let mut records = BTreeMap::new();
        for batch in batches {
            records.extend(batch.iter().copied());
            prop_assert_eq!(map.update(batch), map.root());
            check_all(&map, &records, &absent);
        }
    }

    #[test]
    fn the_root_does_not_depend_on_the_order(mut records in prop::collection::vec((key(), any::<Hash>()), 0..300), seed in any::<u64>()) {
        records.sort_unstable();
        records.dedup_by_key(|it| it.0);
        let at_once: Map<Hash> = records.iter().copied().collect();
        records.sort_by_key(|(key, _)| Sha256::digest([&key[..], &seed.to_be_bytes()].concat()));
        let mut singly = Map::new();
        for (key, value) in records {
            prop_assert_eq!(singly.insert(key, [0; 32]), None);
            prop_assert_eq!(singly.insert(key, value), Some([0; 32]));
        }
        prop_assert_eq!(singly.root(), at_once.root());
    }

    #[test]
    fn a_flipped_bit_never_proves(count in 1..200u64, ask in 0..400u64, flip in any::<prop::sample::Index>()) {
        let map: Map<Hash> = (0..count).map(|n| (hashed(n), hashed(n + 10_000))).collect();
        let key = hashed(ask);
        let value = map.get(&key).copied();
        let proof = map.prove(&key).encode();
        let at = flip.index(proof.len() * 8);
        let mut changed = proof.clone();
        changed[at / 8] ^= 1 << (at % 8);
        if let Ok(changed) = MapProof::decode(&changed) {
            prop_assert!(verify(&map.root(), &key, value.as_ref(), &changed).is_err());
        }
        let mut other_root = map.root();
        other_root[at % 32] ^= 1;
        let proof = MapProof::decode(&proof).unwrap();
        prop_assert_eq!(verify(&other_root, &key, value.as_ref(), &proof), Err(MapProofError::RootMismatch));
    }

    #[test]
    fn what_decodes_encodes_to_the_same_bytes(bytes in prop::collection::vec(prop_oneof![Just(0u8), Just(1), any::<u8>()], 0..200)) {
        if let Ok(proof) = MapProof::decode(&bytes) {
            prop_assert_eq!(proof.encode(), bytes);
        }
    }
}

#[test]
fn the_empty_constant_is_what_it_says() {
    assert_eq!(EMPTY, <Hash>::from(Sha256::digest([0x04])));
    let map = Map::<Hash>::new();
    assert_eq!(map.root(), EMPTY);
    assert_eq!(verify(&EMPTY, &[1; 32], None, &map.prove(&[1; 32])), Ok(()));
}

#[test]
fn many_keys_under_one_long_prefix_nest_and_unnest() {
    // 3,000 chosen keys that agree in 200 bits, then enough uniform ones to split the place above.
    let mut map = Map::new();
    let mut records = BTreeMap::new();
    for n in 0..3000u64 {
        let mut key = [0x77; 32];
        key[25..].copy_from_slice(&hashed(n)[..7]);
        records.insert(key, hashed(n));
    }
    map.update(records.clone());
    let mut key = [0x77; 32];
    key[31] = 1;
    check_all(&map, &records, &[key, [0x77; 32], [0x76; 32]]);
    for step in 0..40u64 {
        let batch: Vec<_> = (0..150).map(|n| (hashed(step * 1000 + n), hashed(n))).collect();
        records.extend(batch.iter().copied());
        map.update(batch);
    }
    check_all(&map, &records, &[key, [0x77; 32], [0x76; 32]]);
}

#[test]
fn a_proof_is_refused_for_its_exact_cause() {
    let map: Map<Hash> = (0..50).map(|n| (hashed(n), hashed(n))).collect();
    let (root, key) = (map.root(), hashed(7));
    let value = hashed(7);
    let proof = map.prove(&key);
    let with = |other| MapProof::new(proof.siblings().to_vec(), other);
    assert_eq!(verify(&root, &key, Some(&value), &with(Some((key, value)))), Err(MapProofError::OtherInPresence));
    assert_eq!(verify(&root, &key, None, &with(Some((key, value)))), Err(MapProofError::OtherIsKey));
    let mut off = key;
    off[0] ^= 0x80;
    assert_eq!(verify(&root, &key, None, &with(Some((off, value)))), Err(MapProofError::OtherOffPath));
    let longer = MapProof::new([&[EMPTY], proof.siblings()].concat(), None);
    assert_eq!(verify(&root, &key, Some(&value), &longer), Err(MapProofError::Uncollapsed));
    let endless = MapProof::new(vec![value; 257], None);
    assert_eq!(verify(&root, &key, None, &endless), Err(MapProofError::TooDeep));
    assert_eq!(verify(&root, &key, None, &proof), Err(MapProofError::RootMismatch));

    let bytes = proof.encode();
    assert_eq!(MapProof::decode(&bytes[..2]), Err(MapProofError::Truncated));
    assert_eq!(MapProof::decode(&bytes[..bytes.len() - 1]), Err(MapProofError::Truncated));
    assert_eq!(MapProof::decode(&[&bytes[..], &[0]].concat()), Err(MapProofError::TrailingBytes));
    assert_eq!(MapProof::decode(&[2, 0, 0]), Err(MapProofError::Form));
    assert_eq!(MapProof::decode(&[0, 1, 1]), Err(MapProofError::TooDeep));
    assert_eq!(MapProof::decode(&[0, 0, 1, 0x40]), Err(MapProofError::NotCanonical));
    assert_eq!(MapProof::decode(&[&[0, 0, 1, 0x80], &EMPTY[..]].concat()), Err(MapProofError::NotCanonical));
}
