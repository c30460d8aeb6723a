//! The gateway's keyring as a signer.
//!
//! Takes: the keyring and which of its keys. Gives: signatures. Never: the key.

use std::sync::Arc;

use super::signature::{PublicKey, SignFailed, Signer};
use crate::keys::{Keys, SigningKey};

/// One key of a keyring.
pub struct Keyring {
    keys: Arc<Keys>,
    key: SigningKey,
}

impl Keyring {
    /// That key of that keyring.
    pub fn new(keys: Arc<Keys>, key: SigningKey) -> Self {
        Self { keys, key }
    }
}

impl Signer for Keyring {
    fn public_key(&self) -> PublicKey {
        PublicKey::Ed25519(self.keys.public_key(self.key))
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], SignFailed> {
        Ok(self.keys.sign(self.key, message))
    }
}
