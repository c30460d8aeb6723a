//! The byte forms: one for each value, and nothing else is read.

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

use super::entry::{Entry, Genesis, MapHead};
use super::records::{
    Anchor, Approval, Device, DeviceKind, FiledBy, Institution, Name, Operation, Origin, Pseudonym, Role, SignedOp,
    Standing, SubjectRecord, SubjectState, Timestamp,
};
use super::signature::{PublicKey, Signature};

fn key() -> impl Strategy<Value = PublicKey> {
    prop_oneof![
        any::<[u8; 32]>().prop_map(PublicKey::Ed25519),
        (2..=3_u8, any::<[u8; 32]>()).prop_map(|(sign, x)| {
            let mut point = [sign; 33];
            point[1..].copy_from_slice(&x);
            PublicKey::P256(point)
        }),
    ]
}

fn name() -> impl Strategy<Value = Name> {
    "[a-z0-9._-]{1,63}".prop_map(|text| Name::parse(&text).expect("a name"))
}

fn origin() -> impl Strategy<Value = Origin> {
    "[a-z0-9.-]{1,63}(/[!-*,-~]{1,100})?".prop_map(|text| Origin::parse(&text).expect("an origin"))
}

fn operation() -> impl Strategy<Value = Operation> {
    let version = 1..=u64::from(u32::MAX);
    let roles = btree_set(0..Role::ALL.len(), 1..=6);
    let institution = (name(), version.clone(), any::<bool>(), roles, any::<bool>(), key()).prop_map(
        |(id, version, admitted, roles, attests, master)| {
            let standing = if admitted { Standing::Admitted } else { Standing::Suspended };
            let roles = roles.into_iter().map(|role| Role::ALL[role]).collect();
            Operation::Institution(Institution { id, version, standing, roles, attests, master })
        },
    );
    let device = (key(), name(), version.clone(), any::<[bool; 2]>(), 0..u64::MAX).prop_map(
        |(key, institution, version, [gateway, approved], from)| {
            Operation::Device(Device {
                key,
                institution,
                version,
                kind: if gateway { DeviceKind::Gateway } else { DeviceKind::Practitioner },
                approval: if approved { Approval::Approved } else { Approval::Withdrawn },
                valid_from: Timestamp(from),
                valid_until: Timestamp(from + 1),
            })
        },
    );
    let state = prop_oneof![Just(SubjectState::Active), Just(SubjectState::Revoked), Just(SubjectState::Erased)];
    let keys = btree_set(key(), 0..=SubjectRecord::KEYS_MAX);
    let subject = (any::<[u8; 32]>(), version, state, any::<[u8; 32]>(), keys, proptest::option::of(name())).prop_map(
        |(pseudonym, version, state, consent_root, keys, house)| {
            let house = house.or_else(|| keys.is_empty().then(|| Name::parse("house").expect("a name")));
            Operation::Subject(SubjectRecord {
                pseudonym: Pseudonym(pseudonym),
                version,
                state,
                consent_root,
                keys: keys.into_iter().collect(),
                filed_by: house.map_or(FiledBy::Patient, FiledBy::Attested),
            })
        },
    );
    let anchor = (origin(), any::<[u64; 2]>(), any::<[[u8; 32]; 2]>()).prop_map(
        |(origin, [beat, size], [root, checkpoint_hash])| {
            Operation::Anchor(Anchor { origin, beat, size, root, checkpoint_hash })
        },
    );
    prop_oneof![institution, device, subject, anchor]
}

fn signed() -> impl Strategy<Value = SignedOp> {
    (operation(), btree_set(key(), 1..=SignedOp::SIGNATURES_MAX), any::<[u8; 32]>()).prop_map(
        |(operation, keys, half)| {
            let mut bytes = [0; 64];
            bytes[..32].copy_from_slice(&half);
            let signatures = keys.into_iter().map(|key| Signature { key, bytes }).collect();
            SignedOp { operation, signatures }
        },
    )
}

proptest! {
    #[test]
    fn an_operation_has_one_form(signed in signed(), time in any::<u64>()) {
        let bytes = signed.operation.to_bytes();
        prop_assert!(bytes.len() <= Operation::BYTES_MAX);
        prop_assert_eq!(&Operation::from_bytes(&bytes).expect("read"), &signed.operation);
        let bytes = signed.to_bytes();
        prop_assert!(bytes.len() <= SignedOp::BYTES_MAX);
        prop_assert_eq!(&SignedOp::from_bytes(&bytes).expect("read"), &signed);
        let entry = Entry::Op { time: Timestamp(time), op: signed };
        let bytes = entry.to_bytes();
        prop_assert!(bytes.len() <= Entry::BYTES_MAX);
        prop_assert_eq!(Entry::from_bytes(&bytes).expect("read"), entry);
    }

    /// Whatever is read is written the same way, so no two texts are one operation; and nothing panics.
    #[test]
    fn what_is_read_is_the_only_form(signed in signed(), at in any::<prop::sample::Index>(), bit in 0..8_u8, cut in any::<prop::sample::Index>()) {
        let mut bytes = signed.to_bytes();
        prop_assert!(SignedOp::from_bytes(&bytes[..cut.index(bytes.len())]).is_err());
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(other) = SignedOp::from_bytes(&bytes) {
            prop_assert_ne!(&other, &signed);
            prop_assert_eq!(other.to_bytes(), &bytes[..]);
        }
        bytes[at] ^= 1 << bit;
        bytes.push(0);
        prop_assert!(SignedOp::from_bytes(&bytes).is_err());
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in vec(any::<u8>(), 0..300)) {
        for form in [&bytes[..], &[&[1, 2][..], &bytes].concat(), &[&[1, 3][..], &bytes].concat()] {
            if let Ok(operation) = Operation::from_bytes(form) {
                prop_assert_eq!(operation.to_bytes(), form);
            }
            if let Ok(entry) = Entry::from_bytes(form) {
                prop_assert_eq!(entry.to_bytes(), form);
            }
        }
    }
}

#[test]
fn the_other_leaves_have_one_form() {
    let entries = [
        Entry::Genesis(Genesis {
            ledger: Origin::parse("consortium.example/ledger").expect("an origin"),
            administrator: PublicKey::Ed25519([1; 32]),
            checkpoint_key: [2; 32],
            time: Timestamp(3),
        }),
        Entry::MapHead(MapHead { time: Timestamp(4), covers: 5, root: [6; 32] }),
    ];
    for entry in entries {
        let bytes = entry.to_bytes();
        assert_eq!(Entry::from_bytes(&bytes).as_ref(), Ok(&entry));
        assert!((0..bytes.len()).all(|length| Entry::from_bytes(&bytes[..length]).is_err()));
    }
}

/// The id is a promise to every other implementation: these bytes, this hash.
#[test]
fn the_form_of_a_subject_record_stands() {
    let record = SubjectRecord {
        pseudonym: Pseudonym([0xaa; 32]),
        version: 2,
        state: SubjectState::Revoked,
        consent_root: [0xbb; 32],
        keys: Vec::new(),
        filed_by: FiledBy::Attested(Name::parse("a.example").expect("a name")),
    };
    let expected =
        [&[1, 3][..], &[0xaa; 32], &[0, 0, 0, 0, 0, 0, 0, 2, 2], &[0xbb; 32], &[0, 2, 9], b"a.example"].concat();
    assert_eq!(Operation::Subject(record).to_bytes(), expected);
}

#[test]
fn names_are_bounded() {
    for bad in ["", "A", "a b", "ä", "a/b", &"a".repeat(64)] {
        assert!(Name::parse(bad).is_err(), "{bad:?}");
    }
    for bad in ["", "/log", "A/log", "a/lo g", "a/lo+g", "a/lög", &format!("a/{}", "x".repeat(200))] {
        assert!(Origin::parse(bad).is_err(), "{bad:?}");
    }
    let origin = Origin::parse("a.example/log").expect("an origin");
    assert!(origin.belongs_to(&Name::parse("a.example").expect("a name")));
    assert!(!origin.belongs_to(&Name::parse("a").expect("a name")));
}
