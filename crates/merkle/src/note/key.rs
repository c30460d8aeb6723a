//! The names and keys that verify a note.
//!
//! Takes a key name and a public key; gives the key id and the one-line text form, and reads it
//! back. Never a private key.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::text::{base64, to_base64};

/// The longest key name accepted, in bytes. The specification sets no limit.
pub const NAME_BYTES_MAX: usize = 1024;

/// Why a key name or a verifier key is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A key name is not empty.
    #[error("a key name is not empty")]
    NameEmpty,
    /// A key name has no Unicode space, no plus and no control character.
    #[error("a key name has no space, no plus and no control character")]
    NameCharacter,
    /// A key name is longer than [`NAME_BYTES_MAX`].
    #[error("a key name has at most {NAME_BYTES_MAX} bytes")]
    NameTooLong,
    /// Not three parts joined by plus.
    #[error("a verifier key is: name, plus, key id, plus, base64")]
    Parts,
    /// The key id is not eight lower-case hex digits.
    #[error("a key id is eight lower-case hex digits")]
    IdForm,
    /// The key is not strict base64 of a type byte and a public key.
    #[error("a verifier key ends in the base64 of a type byte and a public key")]
    KeyBase64,
    /// A signature type that is neither 0x01 nor 0x04.
    #[error("signature type {0:#04x} is neither 0x01 (Ed25519) nor 0x04 (cosignature)")]
    UnknownKind(u8),
    /// The public key has not 32 bytes.
    #[error("an Ed25519 public key has 32 bytes, this one has {0}")]
    KeyLength(usize),
    /// The id is not that of this name and key.
    #[error("the key id is not that of this name and public key")]
    IdMismatch,
}

/// The name of a signing key: not empty, without Unicode spaces, plus and control characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyName(String);

impl KeyName {
    /// Checks a name.
    pub fn new(name: impl Into<String>) -> Result<Self, KeyError> {
        let name = name.into();
        if name.is_empty() {
            return Err(KeyError::NameEmpty);
        }
        if name.len() > NAME_BYTES_MAX {
            return Err(KeyError::NameTooLong);
        }
        if name.chars().any(|c| c.is_whitespace() || c == '+' || c < '\u{20}') {
            return Err(KeyError::NameCharacter);
        }
        Ok(Self(name))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The first four bytes of a hash over a key's name, type and material. An identifier, short on
/// purpose: it is not what makes a key trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 4]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", u32::from_be_bytes(self.0))
    }
}

/// What a key signs (c2sp.org/signed-note, signature types).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyKind {
    /// 0x01: Ed25519 over the note's text.
    Ed25519,
    /// 0x04: Ed25519 over a time and a checkpoint's text (c2sp.org/tlog-cosignature).
    Cosignature,
}

impl KeyKind {
    /// The signature type byte.
    pub fn byte(self) -> u8 {
        match self {
            Self::Ed25519 => 0x01,
            Self::Cosignature => 0x04,
        }
    }
}

/// A public key under a name: what a verifier is configured with ("vkey").
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VerifierKey {
    name: KeyName,
    kind: KeyKind,
    public_key: [u8; 32],
    id: KeyId,
}

impl VerifierKey {
    /// The verifier key of this name, kind and Ed25519 public key (RFC 8032 encoding).
    pub fn new(name: KeyName, kind: KeyKind, public_key: [u8; 32]) -> Self {
        // key ID = SHA-256(key name || 0x0A || signature type || public key)[:4]
        let mut hasher = Sha256::new();
        hasher.update(name.as_str());
        hasher.update([b'\n', kind.byte()]);
        hasher.update(public_key);
        let [a, b, c, d, ..] = <[u8; 32]>::from(hasher.finalize());
        Self { name, kind, public_key, id: KeyId([a, b, c, d]) }
    }

    /// Reads `<name>+<id in hex>+<base64 of type and public key>`.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        // A name has no plus, while base64 may have some.
        let (name, rest) = text.split_once('+').ok_or(KeyError::Parts)?;
        let (id, material) = rest.split_once('+').ok_or(KeyError::Parts)?;
        let name = KeyName::new(name)?;
        if id.len() != 8 || !id.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(KeyError::IdForm);
        }
        let material = base64(material).ok_or(KeyError::KeyBase64)?;
        let (&kind, public_key) = material.split_first().ok_or(KeyError::KeyBase64)?;
        let kind = match kind {
            0x01 => KeyKind::Ed25519,
            0x04 => KeyKind::Cosignature,
            other => return Err(KeyError::UnknownKind(other)),
        };
        let public_key = public_key.try_into().map_err(|_| KeyError::KeyLength(public_key.len()))?;
        let key = Self::new(name, kind, public_key);
        if key.id.to_string() != id {
            return Err(KeyError::IdMismatch);
        }
        Ok(key)
    }

    /// The key's name.
    pub fn name(&self) -> &KeyName {
        &self.name
    }

    /// What the key signs.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The Ed25519 public key.
    pub fn public_key(&self) -> &[u8; 32] {
        &self.public_key
    }

    /// The key's id, computed from the other three.
    pub fn id(&self) -> KeyId {
        self.id
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let material = [&[self.kind.byte()], self.public_key.as_slice()].concat();
        write!(f, "{}+{}+{}", self.name, self.id, to_base64(&material))
    }
}

impl std::str::FromStr for VerifierKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        Self::parse(text)
    }
}
