//! The consent root: what a subject record commits to, without telling what it is.
//!
//! Takes: policies under slots. Gives: a root, the openings of single slots, and the proof that none was left out.
//! Never: reads a policy; its canonical bytes are opaque here.
//!
//! A slot is HMAC-SHA-256 under a key of the subject's own over (grantee or `*`, purpose or `*`). In the slot stands
//! HMAC-SHA-256(r, policy) with a random r of 32 bytes, so neither the ledger nor another institution can tell who was
//! granted, what for, or test a guess. The slots are the keys of a prefix map, whose root is the consent root.
//!
//! A reader asks for slots by name, and gets for each an opening or a proof that it is empty. Leaving a slot out takes
//! a proof of absence that cannot be made.

use std::collections::BTreeMap;

use aws_lc_rs::{hmac, rand};
use sluice_merkle::Hash;
use sluice_merkle::map::{self, Map, MapProof};

use super::codec::Malformed;

/// Stands for any grantee, or any purpose.
pub const ANY: &str = "*";
/// Most slots of one subject.
pub const SLOTS_MAX: usize = 1024;
/// Longest policy, in bytes.
pub const POLICY_BYTES_MAX: usize = 64 * 1024;
/// Longest grantee or purpose, in bytes.
pub const NAME_BYTES_MAX: usize = 1024;

/// What every slot's HMAC begins with.
const SLOT_LABEL: &[u8] = b"sluice-consent-slot-1\n";
/// What every commitment's HMAC begins with.
const POLICY_LABEL: &[u8] = b"sluice-consent-policy-1\n";

/// A place in a subject's map, by grantee and purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub [u8; 32]);

/// The key under which a subject's slots are named. Whoever holds it can ask for any slot by name; it opens none.
pub struct SlotKey(hmac::Key);

/// What a slot holds, opened.
#[derive(Clone, PartialEq, Eq)]
pub struct Opening {
    /// Where.
    pub slot: Slot,
    /// The commitment's random key. Destroying every copy makes the commitment mute for ever.
    pub r: [u8; 32],
    /// The policy's canonical bytes.
    pub policy: Vec<u8>,
}

/// Slots asked for, and what stands in each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disclosure(pub Vec<Disclosed>);

/// One slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disclosed {
    /// Which.
    pub slot: Slot,
    /// What it holds; `None` if nothing.
    pub opening: Option<Opening>,
    /// The proof of either under the consent root.
    pub proof: MapProof,
}

/// Why a disclosure is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RootError {
    /// A slot that was asked for is not there, or one that was not is.
    #[error("the slots disclosed are not the slots asked for")]
    Slots,
    /// An opening, or the absence of one, is not what the root commits to.
    #[error("a slot's opening does not prove under the consent root")]
    Proof,
    /// More than the bounds allow.
    #[error("more than a subject may have")]
    TooLong,
    /// Two openings of one slot.
    #[error("two openings of one slot")]
    Duplicate,
}

/// A subject's policies, all of them: what the custodian holds.
#[derive(Debug, Clone, Default)]
pub struct ConsentTree {
    openings: BTreeMap<Slot, Opening>,
    map: Map<Hash>,
}

impl SlotKey {
    /// From the subject's own 32 secret bytes.
    pub fn new(key: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// The slot of a grantee and a purpose, each of which may be [`ANY`].
    pub fn slot(&self, grantee: &str, purpose: &str) -> Slot {
        let mut mac = hmac::Context::with_key(&self.0);
        mac.update(SLOT_LABEL);
        // The length keeps ("ab", "c") and ("a", "bc") apart.
        mac.update(&(grantee.len() as u64).to_be_bytes());
        mac.update(grantee.as_bytes());
        mac.update(purpose.as_bytes());
        Slot(tag(&mac.sign()))
    }
}

impl Opening {
    /// Puts a policy under a slot with a fresh r.
    pub fn new(slot: Slot, policy: Vec<u8>) -> Result<Self, RootError> {
        let mut r = [0; 32];
        // The generator fails only where the system has no randomness at all; then nothing may be committed to.
        rand::fill(&mut r).map_err(|_| RootError::Proof)?;
        if policy.len() > POLICY_BYTES_MAX { Err(RootError::TooLong) } else { Ok(Self { slot, r, policy }) }
    }

    /// What the map holds under the slot.
    pub fn commitment(&self) -> Hash {
        let mut mac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &self.r));
        mac.update(POLICY_LABEL);
        mac.update(&self.policy);
        tag(&mac.sign())
    }
}

/// Shows neither r nor the policy.
impl std::fmt::Debug for Opening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opening").field("slot", &self.slot).finish_non_exhaustive()
    }
}

impl ConsentTree {
    /// From every opening of a subject.
    pub fn new(openings: impl IntoIterator<Item = Opening>) -> Result<Self, RootError> {
        let mut tree = Self::default();
        for opening in openings {
            if opening.policy.len() > POLICY_BYTES_MAX || tree.openings.len() == SLOTS_MAX {
                return Err(RootError::TooLong);
            }
            if tree.openings.insert(opening.slot, opening).is_some() {
                return Err(RootError::Duplicate);
            }
        }
        tree.map.update(tree.openings.values().map(|opening| (opening.slot.0, opening.commitment())));
        Ok(tree)
    }

    /// The consent root. If it is the record's, the openings are all that there are.
    pub fn root(&self) -> Hash {
        self.map.root()
    }

    /// Every opening, by slot.
    pub fn openings(&self) -> impl Iterator<Item = &Opening> {
        self.openings.values()
    }

    /// What stands in those slots, with proofs.
    pub fn disclose(&self, slots: &[Slot]) -> Disclosure {
        let disclosed = |slot: &Slot| Disclosed {
            slot: *slot,
            opening: self.openings.get(slot).cloned(),
            proof: self.map.prove(&slot.0),
        };
        Disclosure(slots.iter().map(disclosed).collect())
    }
}

impl Disclosure {
    /// The openings of exactly the slots that were `asked` for, under the root on the ledger. Anything left out,
    /// added, changed or moved is an error.
    pub fn verify(&self, consent_root: &Hash, asked: &[Slot]) -> Result<Vec<&Opening>, RootError> {
        if asked.len() > SLOTS_MAX {
            return Err(RootError::TooLong);
        }
        if !self.0.iter().map(|disclosed| &disclosed.slot).eq(asked) {
            return Err(RootError::Slots);
        }
        let mut openings = Vec::new();
        for Disclosed { slot, opening, proof } in &self.0 {
            let commitment = opening.as_ref().map(Opening::commitment);
            map::verify(consent_root, &slot.0, commitment.as_ref(), proof).map_err(|_| RootError::Proof)?;
            if let Some(opening) = opening {
                if opening.slot != *slot {
                    return Err(RootError::Slots);
                }
                openings.push(opening);
            }
        }
        Ok(openings)
    }
}

impl Slot {
    /// From 32 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        bytes.try_into().map(Self).map_err(|_| Malformed::Short)
    }
}

fn tag(tag: &hmac::Tag) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(tag.as_ref());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> SlotKey {
        SlotKey::new(&[7; 32])
    }

    fn tree(names: &[(&str, &str)]) -> ConsentTree {
        let opening = |(grantee, purpose): &(&str, &str)| {
            Opening::new(key().slot(grantee, purpose), format!("{grantee} {purpose}").into_bytes()).expect("short")
        };
        ConsentTree::new(names.iter().map(opening)).expect("distinct")
    }

    #[test]
    fn slots_of_different_names_differ() {
        assert_ne!(key().slot("ab", "c"), key().slot("a", "bc"));
        assert_ne!(key().slot("a", ANY), key().slot(ANY, "a"));
        assert_ne!(key().slot("a", "b"), SlotKey::new(&[8; 32]).slot("a", "b"));
    }

    #[test]
    fn one_policy_commits_differently_each_time() {
        let slot = key().slot("a", "b");
        let [one, other] = [0; 2].map(|_| Opening::new(slot, b"policy".to_vec()).expect("short"));
        assert_ne!(one.commitment(), other.commitment());
    }

    #[test]
    fn a_disclosure_has_every_slot_asked_for() {
        let tree = tree(&[("insurer", "HPAYMT"), ("*", "TREAT"), ("pharma", "*")]);
        let asked = [key().slot("insurer", "HPAYMT"), key().slot("*", "*"), key().slot("*", "TREAT")];
        let disclosure = tree.disclose(&asked);
        let openings = disclosure.verify(&tree.root(), &asked).expect("complete");
        let policies: Vec<_> = openings.iter().map(|opening| opening.policy.as_slice()).collect();
        assert_eq!(policies, [&b"insurer HPAYMT"[..], b"* TREAT"]);
    }

    #[test]
    fn an_omitted_slot_is_noticed() {
        let tree = tree(&[("insurer", "HPAYMT"), ("*", "TREAT")]);
        let asked = [key().slot("insurer", "HPAYMT"), key().slot("*", "TREAT")];
        let honest = tree.disclose(&asked);
        let mut silent = honest.clone();
        silent.0.pop();
        assert_eq!(silent.verify(&tree.root(), &asked), Err(RootError::Slots));
        let mut denied = honest.clone();
        denied.0[1].opening = None;
        assert_eq!(denied.verify(&tree.root(), &asked), Err(RootError::Proof));
        // Nor does an honest proof of absence from a smaller map help.
        let smaller = ConsentTree::new(tree.openings().take(1).cloned()).expect("one");
        let missing = tree.openings().nth(1).expect("two").slot;
        assert_eq!(smaller.disclose(&[missing]).verify(&tree.root(), &[missing]), Err(RootError::Proof));
        assert_ne!(smaller.root(), tree.root());
    }

    #[test]
    fn a_changed_opening_is_noticed() {
        let tree = tree(&[("insurer", "HPAYMT"), ("*", "TREAT")]);
        let asked = [key().slot("insurer", "HPAYMT")];
        let mut changed = tree.disclose(&asked);
        changed.0[0].opening.as_mut().expect("there").policy[0] ^= 1;
        assert_eq!(changed.verify(&tree.root(), &asked), Err(RootError::Proof));
        let mut other_r = tree.disclose(&asked);
        other_r.0[0].opening.as_mut().expect("there").r[31] ^= 1;
        assert_eq!(other_r.verify(&tree.root(), &asked), Err(RootError::Proof));
    }

    #[test]
    fn two_openings_of_one_slot_are_refused() {
        let opening = Opening::new(key().slot("a", "b"), Vec::new()).expect("short");
        assert_eq!(ConsentTree::new([opening.clone(), opening]).err(), Some(RootError::Duplicate));
    }

    proptest! {
        #[test]
        fn the_root_does_not_depend_on_order_and_every_slot_proves(seeds in proptest::collection::btree_set(any::<u16>(), 0..40)) {
            let openings: Vec<_> = seeds
                .iter()
                .map(|seed| Opening::new(key().slot(&seed.to_string(), ANY), seed.to_be_bytes().to_vec()).expect("short"))
                .collect();
            let tree = ConsentTree::new(openings.iter().cloned()).expect("distinct");
            let turned = ConsentTree::new(openings.iter().rev().cloned()).expect("distinct");
            prop_assert_eq!(tree.root(), turned.root());
            let mut asked: Vec<_> = openings.iter().map(|opening| opening.slot).collect();
            asked.push(key().slot("nobody", ANY));
            let disclosure = tree.disclose(&asked);
            prop_assert_eq!(disclosure.verify(&tree.root(), &asked).expect("complete").len(), openings.len());
        }
    }
}
