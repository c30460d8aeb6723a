//! Keys and signatures on operations: Ed25519 (RFC 8032) and ECDSA P-256 with SHA-256, both by aws-lc-rs.
//!
//! Takes: a message and a signer. Gives: a signature with the key that it claims. Never: holds a private key.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ED25519, UnparsedPublicKey};

use super::codec::{Malformed, Reader, Writer};
use super::error::Rejection;

/// A public key in its one form. P-256 is what phones and smart cards hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PublicKey {
    /// RFC 8032, 32 bytes.
    Ed25519([u8; 32]),
    /// SEC 1 compressed point, 33 bytes. The uncompressed form is refused, so that a key has one name.
    P256([u8; 33]),
}

/// A signature: for P-256 the fixed form r || s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signature {
    /// Whose it claims to be.
    pub key: PublicKey,
    /// 64 bytes in both algorithms.
    pub bytes: [u8; 64],
}

/// Signs without showing its key. The keyring, a phone and a test each have one.
pub trait Signer: Send + Sync {
    /// The key that verifies.
    fn public_key(&self) -> PublicKey;
    /// The signature over `message`, as [`Signature::bytes`] has it.
    fn sign(&self, message: &[u8]) -> Result<[u8; 64], SignFailed>;
}

/// The signer's device or service did not sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the key did not sign")]
pub struct SignFailed;

impl PublicKey {
    const TAG_ED25519: u8 = 1;
    const TAG_P256: u8 = 2;

    pub(crate) fn write(&self, out: &mut Writer) {
        match self {
            Self::Ed25519(key) => out.u8(Self::TAG_ED25519).fixed(key),
            Self::P256(key) => out.u8(Self::TAG_P256).fixed(key),
        };
    }

    pub(crate) fn read(input: &mut Reader<'_>) -> Result<Self, Malformed> {
        match input.u8()? {
            Self::TAG_ED25519 => Ok(Self::Ed25519(input.array()?)),
            Self::TAG_P256 => {
                let point: [u8; 33] = input.array()?;
                if matches!(point[0], 2 | 3) { Ok(Self::P256(point)) } else { Err(Malformed::Key) }
            }
            _ => Err(Malformed::Tag),
        }
    }

    /// Whether `signature` is this key's over `message`.
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        match self {
            Self::Ed25519(key) => UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok(),
            Self::P256(key) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key).verify(message, signature).is_ok(),
        }
    }

    /// The tag and the key, as they stand in operations.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::new();
        self.write(&mut out);
        out.finish()
    }

    /// Reads what [`Self::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut input = Reader::new(bytes);
        let key = Self::read(&mut input)?;
        input.finish()?;
        Ok(key)
    }
}

impl Signature {
    /// Has `signer` sign `message`.
    pub fn by(signer: &dyn Signer, message: &[u8]) -> Result<Self, SignFailed> {
        Ok(Self { key: signer.public_key(), bytes: signer.sign(message)? })
    }

    /// Checks the bytes against the claimed key; whether that key may sign this is another question.
    pub fn verify(&self, message: &[u8]) -> Result<(), Rejection> {
        if self.key.verify(message, &self.bytes) { Ok(()) } else { Err(Rejection::BadSignature) }
    }

    pub(crate) fn write(&self, out: &mut Writer) {
        self.key.write(out);
        out.fixed(&self.bytes);
    }

    pub(crate) fn read(input: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { key: PublicKey::read(input)?, bytes: input.array()? })
    }
}
