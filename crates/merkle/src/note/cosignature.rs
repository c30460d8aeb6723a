//! Timestamped Ed25519 cosignatures, type 0x04 (c2sp.org/tlog-cosignature).
//!
//! Takes a checkpoint's text and a time; gives the message that a witness signs, and the
//! signature line. Never looks at a clock: the time is the caller's.

use super::{KeyKind, SignError, Signature, VerifierKey, check_text};

/// The largest time, in seconds since the epoch: the specification ends at 2^63 - 1.
pub(super) const TIME_MAX: u64 = i64::MAX.unsigned_abs();

/// The message under a cosignature: a header line, the time in seconds since the epoch, and the
/// whole text of the checkpoint (c2sp.org/tlog-cosignature, Ed25519 signed message).
pub fn cosignature_message(time_s: u64, checkpoint_text: &str) -> Vec<u8> {
    format!("cosignature/v1\ntime {time_s}\n{checkpoint_text}").into_bytes()
}

/// Makes the signature line of a cosignature. `with` gives the Ed25519 signature of a message
/// under the private key of `key`.
pub fn cosign(
    checkpoint_text: &str,
    time_s: u64,
    key: &VerifierKey,
    with: impl FnOnce(&[u8]) -> [u8; 64],
) -> Result<Signature, SignError> {
    if key.kind() != KeyKind::Cosignature {
        return Err(SignError::WrongKind);
    }
    // c2sp.org/tlog-witness: the time of a checkpoint's cosignature is never zero.
    if time_s == 0 || time_s > TIME_MAX {
        return Err(SignError::Time);
    }
    check_text(checkpoint_text)?;
    let signature = with(&cosignature_message(time_s, checkpoint_text));
    Ok(Signature {
        name: key.name().clone(),
        id: key.id(),
        bytes: [time_s.to_be_bytes().as_slice(), &signature].concat(),
    })
}

/// The time and the Ed25519 signature in a `timestamped_signature`.
pub(super) fn split(bytes: &[u8]) -> Option<(u64, &[u8; 64])> {
    let (time, signature) = bytes.split_first_chunk::<8>()?;
    let time_s = u64::from_be_bytes(*time);
    if time_s > TIME_MAX {
        return None;
    }
    Some((time_s, signature.try_into().ok()?))
}
