//! A note, a verifier key or a policy never panics; what is accepted of the first two has one spelling.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice_merkle::note::{Note, Signature, VerifierKey};
use sluice_merkle::policy::Policy;

fuzz_target!(|bytes: &[u8]| {
    let verifier = |public_key: &[u8; 32], _: &[u8], signature: &[u8; 64]| public_key[0] == signature[0];
    if let Ok(note) = Note::parse(bytes) {
        assert_eq!(note.to_string().as_bytes(), bytes);
        if let Ok(key) = VerifierKey::parse(note.text().trim_end()) {
            let _ = note.verify([&key], &verifier);
        }
    }
    let _ = Policy::parse(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        if let Ok(key) = VerifierKey::parse(text) {
            assert_eq!(key.to_string(), text);
        }
        if let Ok(lines) = Signature::parse_lines(text) {
            assert_eq!(lines.iter().map(ToString::to_string).collect::<String>(), text);
        }
    }
});
