//! The keyring: signing, keyed hashing and wrapping with the gateway's own keys.
//!
//! Takes one file per key, each readable by its owner alone; gives signatures, keyed hashes and wrapped keys. Key
//! material never leaves it, but for [`Keys::derive`], whose outcome is a [`Secret`] of one named use: no `Debug`, no
//! error and no log line holds any. Every use has a domain string of its own, so that no signature, hash or
//! wrapped key of one use means anything in another.

use std::fmt;
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use aws_lc_rs::{hkdf, hmac, rand};
use zeroize::Zeroizing;

use crate::config;

mod file;

/// Length of a symmetric key, in bytes.
pub const SECRET_BYTES: usize = 32;

/// Length of a wrapped key, in bytes: nonce, ciphertext, tag.
pub const WRAPPED_BYTES: usize = NONCE_LEN + SECRET_BYTES + 16;

/// Which key signs (Ed25519, RFC 8032).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SigningKey {
    /// Checkpoints of the gateway's own log.
    Log,
    /// The delivery of events: event id and sequence number.
    Event,
    /// The institution's operations on the ledger.
    Institution,
}

/// Which key hashes (HMAC-SHA-256, RFC 2104).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HmacKey {
    /// Shared by the consortium: pseudonyms of subjects, so that all institutions give a patient the same.
    Domain,
    /// The tenant's: index entries and keys of rows.
    Index,
    /// The tenant's: event ids.
    EventId,
}

/// What is wrapped under the master key (AES-256-GCM, NIST SP 800-38D).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WrapKey {
    /// Subjects' keys in the keystore.
    Keystore,
    /// Data keys of anything else.
    Data,
}

/// The files of a keyring. A master key may lie elsewhere than the rest, with its own backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// Ed25519, PKCS#8 in PEM.
    pub log: PathBuf,
    /// Ed25519, PKCS#8 in PEM.
    pub event: PathBuf,
    /// Ed25519, PKCS#8 in PEM.
    pub institution: PathBuf,
    /// 32 bytes in base64.
    pub domain: PathBuf,
    /// 32 bytes in base64.
    pub index: PathBuf,
    /// 32 bytes in base64.
    pub event_id: PathBuf,
    /// 32 bytes in base64.
    pub master: PathBuf,
    /// Whether the files' group may read them, as where a volume of Kubernetes belongs to a group. Others never may.
    pub group_readable: bool,
}

impl Files {
    /// The files of one directory, under the names that [`Keys::create`] gives them.
    pub fn in_dir(dir: &Path) -> Self {
        Self {
            log: dir.join("log.pem"),
            event: dir.join("event.pem"),
            institution: dir.join("institution.pem"),
            domain: dir.join("domain.key"),
            index: dir.join("index.key"),
            event_id: dir.join("event-id.key"),
            master: dir.join("master.key"),
            group_readable: false,
        }
    }
}

impl From<&config::Keys> for Files {
    fn from(keys: &config::Keys) -> Self {
        let path = |file: &config::SecretFile| file.path().to_path_buf();
        Self {
            log: path(&keys.log_file),
            event: path(&keys.event_file),
            institution: path(&keys.institution_file),
            domain: path(&keys.domain_file),
            index: path(&keys.index_file),
            event_id: path(&keys.event_id_file),
            master: path(&keys.master_file),
            group_readable: keys.group_readable,
        }
    }
}

/// Key material of 32 bytes: zeroed when dropped, never shown.
#[derive(Clone)]
pub struct Secret(Zeroizing<[u8; SECRET_BYTES]>);

impl Secret {
    /// Fresh key material from the system's generator.
    pub fn random() -> Result<Self, KeysError> {
        let mut secret = Zeroizing::new([0; SECRET_BYTES]);
        rand::fill(&mut *secret).map_err(|_| KeysError::NoRandom)?;
        Ok(Self(secret))
    }

    /// The bytes, for the one who uses them as a key.
    pub fn expose(&self) -> &[u8; SECRET_BYTES] {
        &self.0
    }
}

/// An open keyring.
pub struct Keys {
    log: Ed25519KeyPair,
    event: Ed25519KeyPair,
    institution: Ed25519KeyPair,
    domain: hmac::Key,
    index: hmac::Key,
    event_id: hmac::Key,
    master: hkdf::Prk,
    wrap_keystore: LessSafeKey,
    wrap_data: LessSafeKey,
}

impl Keys {
    /// Makes a new keyring in a directory: every file fresh, readable by its owner alone. Refuses, and changes
    /// nothing, if any of the files is there already.
    pub fn create(dir: &Path) -> Result<Files, KeysError> {
        let files = Files::in_dir(dir);
        file::create_all(dir, &files)?;
        Ok(files)
    }

    /// Opens a keyring. Refuses files that others than their owner may read, and files of another form, by name.
    pub fn open(files: &Files) -> Result<Self, KeysError> {
        let pair = |path| file::read_ed25519(path, files.group_readable);
        let secret = |path| file::read_secret(path, files.group_readable);
        let hmac_key = |path| secret(path).map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret.expose()));
        let master = secret(&files.master)?;
        let master = hkdf::Salt::new(hkdf::HKDF_SHA256, b"sluice/1/master").extract(master.expose());
        Ok(Self {
            log: pair(&files.log)?,
            event: pair(&files.event)?,
            institution: pair(&files.institution)?,
            domain: hmac_key(&files.domain)?,
            index: hmac_key(&files.index)?,
            event_id: hmac_key(&files.event_id)?,
            wrap_keystore: wrapping_key(&master, "sluice/1/wrap/keystore")?,
            wrap_data: wrapping_key(&master, "sluice/1/wrap/data")?,
            master,
        })
    }

    /// Signs a message as it stands; the message's own format says what it is (a signed note, an operation).
    pub fn sign(&self, key: SigningKey, message: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.pair(key).sign(message).as_ref());
        signature
    }

    /// The public half of a signing key, in the 32 bytes of RFC 8032.
    pub fn public_key(&self, key: SigningKey) -> [u8; 32] {
        let mut public = [0; 32];
        public.copy_from_slice(self.pair(key).public_key().as_ref());
        public
    }

    /// HMAC-SHA-256 over the key's domain string and the parts, each led by its length in 8 bytes, so that no two
    /// lists of parts hash alike. The first part is the use: a constant of the caller's.
    pub fn hmac(&self, key: HmacKey, parts: &[&[u8]]) -> [u8; 32] {
        let (key, domain) = match key {
            HmacKey::Domain => (&self.domain, "sluice/1/hmac/domain"),
            HmacKey::Index => (&self.index, "sluice/1/hmac/index"),
            HmacKey::EventId => (&self.event_id, "sluice/1/hmac/event-id"),
        };
        let mut context = hmac::Context::with_key(key);
        for part in std::iter::once(&domain.as_bytes()).chain(parts) {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut hash = [0; 32];
        hash.copy_from_slice(context.sign().as_ref());
        hash
    }

    /// Wraps a key under the master key. `aad` names the place where it lies; it unwraps nowhere else.
    pub fn wrap(&self, key: WrapKey, aad: &[u8], secret: &Secret) -> Result<[u8; WRAPPED_BYTES], KeysError> {
        let mut wrapped = [0; WRAPPED_BYTES];
        let (nonce, rest) = wrapped.split_at_mut(NONCE_LEN);
        // A random nonce: good for 2^32 keys under one master key (NIST SP 800-38D, 8.3).
        rand::fill(nonce).map_err(|_| KeysError::NoRandom)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| KeysError::Unwrap)?;
        let (text, tag) = rest.split_at_mut(SECRET_BYTES);
        text.copy_from_slice(secret.expose());
        let sealed = self.wrapping(key).seal_in_place_separate_tag(nonce, Aad::from(aad), text);
        tag.copy_from_slice(sealed.map_err(|_| KeysError::Unwrap)?.as_ref());
        Ok(wrapped)
    }

    /// Unwraps a key; refuses one that was wrapped under another master key, for another place, or was changed.
    pub fn unwrap(&self, key: WrapKey, aad: &[u8], wrapped: &[u8; WRAPPED_BYTES]) -> Result<Secret, KeysError> {
        let (nonce, sealed) = wrapped.split_at(NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| KeysError::Unwrap)?;
        let mut sealed = Zeroizing::new(sealed.to_vec());
        let text = self.wrapping(key).open_in_place(nonce, Aad::from(aad), &mut sealed);
        let text = text.map_err(|_| KeysError::Unwrap)?;
        let mut secret = Zeroizing::new([0; SECRET_BYTES]);
        secret.copy_from_slice(text);
        Ok(Secret(secret))
    }

    /// A key for one use, derived from the master key by HKDF-SHA-256 (RFC 5869). `label` names the use; the same
    /// label gives the same key for ever.
    pub fn derive(&self, label: &str) -> Result<Secret, KeysError> {
        let mut secret = Zeroizing::new([0; SECRET_BYTES]);
        expand(&self.master, &["sluice/1/derive/", label], &mut secret)?;
        Ok(Secret(secret))
    }

    fn pair(&self, key: SigningKey) -> &Ed25519KeyPair {
        match key {
            SigningKey::Log => &self.log,
            SigningKey::Event => &self.event,
            SigningKey::Institution => &self.institution,
        }
    }

    fn wrapping(&self, key: WrapKey) -> &LessSafeKey {
        match key {
            WrapKey::Keystore => &self.wrap_keystore,
            WrapKey::Data => &self.wrap_data,
        }
    }
}

/// Why a keyring was not made, opened, or did not serve. Names files, never what is in them.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The file is there, and a key is never overwritten.
    #[error("{}: exists already, and a key is never overwritten", .0.display())]
    Exists(PathBuf),
    /// The operating system refused.
    #[error("{}: {source}", .file.display())]
    Io {
        /// The file or directory.
        file: PathBuf,
        /// Its reason.
        source: std::io::Error,
    },
    /// Others may read or change the file.
    #[error("{}: its mode is {mode:03o}; a key file must be closed to {closed_to} (chmod 600)", .file.display())]
    TooOpen {
        /// The file.
        file: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// To whom it must be closed.
        closed_to: &'static str,
    },
    /// The file holds something else than a key of its kind.
    #[error("{}: expected {expected}", .file.display())]
    Form {
        /// The file.
        file: PathBuf,
        /// What it should hold.
        expected: &'static str,
    },
    /// The wrapped key was changed, or belongs to another place or master key.
    #[error("a wrapped key does not open under this master key at this place")]
    Unwrap,
    /// The system's random generator failed.
    #[error("the system gives no random bytes")]
    NoRandom,
}

fn wrapping_key(master: &hkdf::Prk, label: &str) -> Result<LessSafeKey, KeysError> {
    let mut key = Zeroizing::new([0; SECRET_BYTES]);
    expand(master, &[label], &mut key)?;
    Ok(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &*key).map_err(|_| KeysError::Unwrap)?))
}

fn expand(master: &hkdf::Prk, label: &[&str], out: &mut [u8; SECRET_BYTES]) -> Result<(), KeysError> {
    let info: Vec<&[u8]> = label.iter().map(|part| part.as_bytes()).collect();
    // Fails only for lengths that HKDF does not have.
    master.expand(&info, hkdf::HKDF_SHA256).and_then(|okm| okm.fill(out)).map_err(|_| KeysError::Unwrap)
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(..)")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests;
