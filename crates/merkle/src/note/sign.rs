//! Signing notes and checking who signed them.
//!
//! Takes a text or a note, keys, and the caller's Ed25519; gives signature lines, or the keys
//! that did sign. Never believes a key that came with a note.

use super::{KeyKind, KeyName, Note, SignError, Signature, VerifierKey, check_text, cosignature};

/// How the caller checks an Ed25519 signature (RFC 8032). Closures of this shape implement it.
pub trait Verifier {
    /// Whether `signature` is that of `message` under `public_key`.
    fn ed25519(&self, public_key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool;
}

impl<F: Fn(&[u8; 32], &[u8], &[u8; 64]) -> bool> Verifier for F {
    fn ed25519(&self, public_key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
        self(public_key, message, signature)
    }
}

/// Why a note is not to be believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// No signature is by a key that the caller trusts.
    #[error("no trusted key signed the note")]
    NoTrustedSignature,
    /// A line bears the name and id of a trusted key, but its signature does not verify.
    #[error("the signature under the name {name} does not verify")]
    BadSignature {
        /// The key's name.
        name: KeyName,
    },
}

/// A signature that was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signed<'k> {
    /// The key that signed: one of those that the caller trusts.
    pub by: &'k VerifierKey,
    /// For a cosignature, when: seconds since the epoch.
    pub time_s: Option<u64>,
}

/// Makes the signature line of an Ed25519 note signature, type 0x01. `with` gives the Ed25519
/// signature of a message under the private key of `key`.
pub fn sign(text: &str, key: &VerifierKey, with: impl FnOnce(&[u8]) -> [u8; 64]) -> Result<Signature, SignError> {
    if key.kind() != KeyKind::Ed25519 {
        return Err(SignError::WrongKind);
    }
    check_text(text)?;
    let bytes = with(text.as_bytes()).to_vec();
    Ok(Signature { name: key.name().clone(), id: key.id(), bytes })
}

impl Note {
    /// Checks the signatures by these keys (c2sp.org/signed-note, signatures).
    ///
    /// Lines of other keys are ignored. Every line of a trusted key must verify, or the note is
    /// refused whole. The answer has each key that signed once, in the order of `keys`; if a
    /// cosigner signed several times, its latest time counts.
    pub fn verify<'k>(
        &self,
        keys: impl IntoIterator<Item = &'k VerifierKey>,
        verifier: &impl Verifier,
    ) -> Result<Vec<Signed<'k>>, VerifyError> {
        let mut signed: Vec<Signed<'k>> = Vec::new();
        for key in keys {
            if signed.iter().any(|it| it.by == key) {
                continue;
            }
            let mut latest: Option<Signed<'k>> = None;
            for line in self.signatures().iter().filter(|it| it.id == key.id() && it.name == *key.name()) {
                let found = check_line(self.text(), line, key, verifier)
                    .ok_or_else(|| VerifyError::BadSignature { name: key.name().clone() })?;
                if latest.is_none_or(|it| it.time_s < found.time_s) {
                    latest = Some(found);
                }
            }
            signed.extend(latest);
        }
        if signed.is_empty() { Err(VerifyError::NoTrustedSignature) } else { Ok(signed) }
    }
}

/// What a line of this key says, if it verifies.
fn check_line<'k>(text: &str, line: &Signature, key: &'k VerifierKey, verifier: &impl Verifier) -> Option<Signed<'k>> {
    let (time_s, message, signature) = match key.kind() {
        KeyKind::Ed25519 => (None, text.as_bytes().to_vec(), line.bytes().try_into().ok()?),
        KeyKind::Cosignature => {
            let (time_s, signature) = cosignature::split(line.bytes())?;
            (Some(time_s), cosignature::cosignature_message(time_s, text), signature)
        }
    };
    verifier.ed25519(key.public_key(), &message, signature).then_some(Signed { by: key, time_s })
}
