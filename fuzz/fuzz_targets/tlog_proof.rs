//! A proof that is accepted has one spelling, and judging it never panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice_merkle::note::{KeyKind, KeyName, VerifierKey};
use sluice_merkle::policy::Policy;
use sluice_merkle::proof::TlogProof;
use sluice_merkle::receipt;

fuzz_target!(|bytes: &[u8]| {
    let Ok(proof) = TlogProof::parse(bytes) else { return };
    assert_eq!(proof.to_string().as_bytes(), bytes);
    let Ok(name) = KeyName::new(proof.checkpoint().checkpoint().origin()) else { return };
    let Ok(policy) = Policy::new(vec![VerifierKey::new(name, KeyKind::Ed25519, [7; 32])], vec![], 0) else { return };
    let _ = receipt::verify_proof(&policy, &[7; 32], &proof, &|_: &[u8; 32], _: &[u8], _: &[u8; 64]| true);
});
