//! The vault: seals what the store holds, so that destroying a subject's key destroys what is about the subject.
//!
//! Takes plaintext, its subjects and the place where it will lie; gives a sealed value that opens in that place alone,
//! and only while **all** its subjects have their keys. What has no subject is sealed under the tenant's key. Never
//! names a subject in what it gives: subjects stand there as slots of the keystore.
//!
//! Form, version 1, big-endian: version u8, number of subjects u16, a slot (u32, u32) for each, salt 16 bytes, data
//! key wrapped 48 bytes, ciphertext, tag 16 bytes. The wrapping key is HKDF-SHA-256 (RFC 5869) of all subjects' keys in the
//! order of their slots, expanded with the salt; it and the data key each seal one message, so their nonces are zero
//! (AES-256-GCM, NIST SP 800-38D). Everything before the ciphertext, and the place, is authenticated.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{hkdf, rand};
use zeroize::Zeroizing;

use super::Table;
use super::keystore::{Keystore, KeystoreError, SlotId, SubjectKey};
use crate::error::{Error, Peer};
use crate::keys::{Keys, KeysError, SECRET_BYTES, Secret};

/// The most subjects that one value may have. Each must be read to open it.
pub const SUBJECTS_MAX: usize = 1024;

const VERSION: u8 = 1;
const SLOT_BYTES: usize = 8;
const SALT_BYTES: usize = 16;
const TAG_BYTES: usize = 16;
const WRAPPED_BYTES: usize = SECRET_BYTES + TAG_BYTES;
/// Version and number of subjects.
const LEAD_BYTES: usize = 3;

/// Seals and opens values. Cheap to share.
pub struct Vault {
    keystore: Arc<Keystore>,
    tenant: hkdf::Prk,
}

/// Seals values of the same subjects, with their keys read once. Not for keeping: a key that is destroyed meanwhile
/// lives on in it, and what it seals then never opens.
pub struct Sealer {
    /// Version, number and slots.
    lead: Vec<u8>,
    wrapping: hkdf::Prk,
}

/// The sealers of one unit, each made once. Not for keeping, as [`Sealer`] is not.
pub struct Sealers<'a> {
    vault: &'a Vault,
    known: HashMap<Vec<SubjectKey>, Sealer>,
}

impl<'a> Sealers<'a> {
    /// None yet.
    pub fn new(vault: &'a Vault) -> Self {
        Self { vault, known: HashMap::new() }
    }

    /// The sealer for these subjects, each of which must have a key.
    pub fn of(&mut self, subjects: &[SubjectKey]) -> Result<&Sealer, VaultError> {
        match self.known.entry(subjects.to_vec()) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(new) => Ok(new.insert(self.vault.sealer(subjects)?)),
        }
    }
}

/// The place of a row, for `aad`: table and key.
pub fn place(table: Table, key: &[u8]) -> Vec<u8> {
    let mut place = Vec::with_capacity(1 + key.len());
    place.push(table.tag());
    place.extend_from_slice(key);
    place
}

impl Vault {
    /// A vault over a keystore, with the tenant's key derived from the keyring's master key.
    pub fn new(keys: &Keys, keystore: Arc<Keystore>) -> Result<Self, VaultError> {
        let tenant = keys.derive("vault/tenant").map_err(VaultError::Keys)?;
        Ok(Self { keystore, tenant: extract(tenant.expose()) })
    }

    /// The keystore beneath.
    pub fn keystore(&self) -> &Arc<Keystore> {
        &self.keystore
    }

    /// Gives each subject that has none a key; durable when it returns. To be done once for a unit, before anything
    /// is sealed. May wait for the disk, so it runs on a thread that may block.
    pub async fn prepare(&self, subjects: Vec<SubjectKey>) -> Result<(), VaultError> {
        // Most subjects have one: that is a look at a page or two that are in memory.
        if self.keystore.has_all(&subjects)? {
            return Ok(());
        }
        let keystore = Arc::clone(&self.keystore);
        let ensured = tokio::task::spawn_blocking(move || keystore.ensure(&subjects)).await;
        ensured.map_err(|_| VaultError::Closed)?.map_err(VaultError::from)
    }

    /// Destroys a subject's key, and so all that was ever sealed with the subject among its subjects. Blocks on the disk.
    pub fn destroy(&self, subject: &SubjectKey) -> Result<bool, VaultError> {
        self.keystore.destroy(subject).map_err(VaultError::from)
    }

    /// A sealer for these subjects, each of which must have a key. Their order and repetition do not matter.
    pub fn sealer(&self, subjects: &[SubjectKey]) -> Result<Sealer, VaultError> {
        let mut keys = Vec::with_capacity(subjects.len());
        for subject in subjects {
            keys.push(self.keystore.key_of(subject)?.ok_or(VaultError::NoKey)?);
        }
        keys.sort_by_key(|(slot, _)| *slot);
        keys.dedup_by_key(|(slot, _)| *slot);
        if keys.len() > SUBJECTS_MAX {
            return Err(VaultError::TooManySubjects);
        }
        let mut lead = Vec::with_capacity(LEAD_BYTES + SLOT_BYTES * keys.len());
        lead.push(VERSION);
        let [.., high, low] = keys.len().to_be_bytes();
        lead.extend([high, low]);
        for (slot, _) in &keys {
            lead.extend(slot.index.to_be_bytes());
            lead.extend(slot.generation.to_be_bytes());
        }
        Ok(Sealer { lead, wrapping: self.wrapping(&keys) })
    }

    /// Seals one value. `aad` names its place ([`place`]).
    pub fn seal(&self, subjects: &[SubjectKey], aad: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, VaultError> {
        self.sealer(subjects)?.seal(aad, plaintext)
    }

    /// Opens a value. Refuses what was changed in any bit or lay elsewhere ([`VaultError::Corrupt`]), and what had a
    /// subject whose key is destroyed ([`VaultError::Erased`]).
    pub fn open(&self, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, VaultError> {
        let [VERSION, high, low, ..] = *sealed else { return Err(VaultError::Corrupt) };
        let subjects = usize::from(u16::from_be_bytes([high, low]));
        let salt = LEAD_BYTES + SLOT_BYTES * subjects;
        let (head, body) = sealed.split_at_checked(salt + SALT_BYTES + WRAPPED_BYTES).ok_or(VaultError::Corrupt)?;
        if subjects > SUBJECTS_MAX || body.len() < TAG_BYTES {
            return Err(VaultError::Corrupt);
        }
        let (bound, wrapped) = head.split_at(salt + SALT_BYTES);
        let mut keys: Vec<(SlotId, Secret)> = Vec::with_capacity(subjects);
        for bytes in bound[LEAD_BYTES..salt].as_chunks::<SLOT_BYTES>().0 {
            let number = u64::from_be_bytes(*bytes);
            let [index, generation] = [number >> 32, number & u64::from(u32::MAX)].map(u32::try_from);
            let (Ok(index), Ok(generation)) = (index, generation) else { return Err(VaultError::Corrupt) };
            let slot = SlotId { index, generation };
            // As `sealer` orders them: one value, one form.
            if keys.last().is_some_and(|(last, _)| *last >= slot) {
                return Err(VaultError::Corrupt);
            }
            keys.push((slot, self.keystore.key(slot)?));
        }
        let wrapping = wrapping_key(&self.wrapping(&keys), &bound[salt..])?;
        let mut data_key = Zeroizing::new(wrapped.to_vec());
        let opened = wrapping.open_in_place(zero_nonce(), Aad::from(bound), &mut data_key);
        let data_key = cipher(opened.map_err(|_| VaultError::Corrupt)?)?;
        let mut text = body.to_vec();
        let opened = data_key.open_in_place(zero_nonce(), Aad::from(authenticated(head, aad)), &mut text);
        let length = opened.map_err(|_| VaultError::Corrupt)?.len();
        text.truncate(length);
        Ok(text)
    }

    /// What the wrapping keys of a set of subjects are expanded from; `keys` in the order of their slots.
    fn wrapping(&self, keys: &[(SlotId, Secret)]) -> hkdf::Prk {
        if keys.is_empty() {
            return self.tenant.clone();
        }
        let mut all = Zeroizing::new(Vec::with_capacity(SECRET_BYTES * keys.len()));
        for (_, key) in keys {
            all.extend_from_slice(key.expose());
        }
        extract(&all)
    }
}

impl Sealer {
    /// Seals one value under a fresh data key. `aad` names its place ([`place`]).
    pub fn seal(&self, aad: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, VaultError> {
        let mut fresh = Zeroizing::new([0; SALT_BYTES + SECRET_BYTES]);
        rand::fill(&mut *fresh).map_err(|_| VaultError::Keys(KeysError::NoRandom))?;
        let (salt, data_key) = fresh.split_at_mut(SALT_BYTES);
        let data_cipher = cipher(data_key)?;

        let head = self.lead.len() + SALT_BYTES + WRAPPED_BYTES;
        let mut sealed = Vec::with_capacity(head + plaintext.len() + TAG_BYTES);
        sealed.extend_from_slice(&self.lead);
        sealed.extend_from_slice(salt);
        let tag = wrapping_key(&self.wrapping, salt)?
            .seal_in_place_separate_tag(zero_nonce(), Aad::from(&sealed[..]), data_key)
            .map_err(|_| VaultError::Corrupt)?;
        sealed.extend_from_slice(data_key);
        sealed.extend_from_slice(tag.as_ref());

        let authenticated = authenticated(&sealed, aad);
        sealed.extend_from_slice(plaintext);
        let tag = data_cipher
            .seal_in_place_separate_tag(zero_nonce(), Aad::from(authenticated), &mut sealed[head..])
            .map_err(|_| VaultError::Corrupt)?;
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }
}

/// Why a value was not sealed or opened. Names no subject.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// A subject's key was destroyed: the value never opens again.
    #[error("the value was erased with a key of its subjects")]
    Erased,
    /// The value was changed, lay elsewhere, or is of another vault.
    #[error("the sealed value is damaged or not in its place")]
    Corrupt,
    /// A subject has no key yet: [`Vault::prepare`] comes first.
    #[error("a subject has no key")]
    NoKey,
    /// More than [`SUBJECTS_MAX`] subjects.
    #[error("the value has more than {SUBJECTS_MAX} subjects")]
    TooManySubjects,
    /// The keystore failed.
    #[error(transparent)]
    Keystore(KeystoreError),
    /// The keyring failed.
    #[error(transparent)]
    Keys(KeysError),
    /// The process is ending.
    #[error("the vault is closed")]
    Closed,
}

impl From<VaultError> for Error {
    fn from(error: VaultError) -> Self {
        Self::outage(Peer::Store, std::time::Duration::from_secs(5), format!("vault: {error}"))
    }
}

impl From<KeystoreError> for VaultError {
    fn from(error: KeystoreError) -> Self {
        match error {
            KeystoreError::Erased => Self::Erased,
            KeystoreError::Damaged => Self::Corrupt,
            other => Self::Keystore(other),
        }
    }
}

fn extract(keys: &[u8]) -> hkdf::Prk {
    hkdf::Salt::new(hkdf::HKDF_SHA256, b"sluice/1/vault").extract(keys)
}

fn wrapping_key(wrapping: &hkdf::Prk, salt: &[u8]) -> Result<LessSafeKey, VaultError> {
    let mut key = Zeroizing::new([0; SECRET_BYTES]);
    let info = [&b"sluice/1/vault/wrap"[..], salt];
    // Fails only for lengths that HKDF does not have.
    wrapping.expand(&info, hkdf::HKDF_SHA256).and_then(|okm| okm.fill(&mut *key)).map_err(|_| VaultError::Corrupt)?;
    cipher(&*key)
}

fn cipher(key: &[u8]) -> Result<LessSafeKey, VaultError> {
    Ok(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).map_err(|_| VaultError::Corrupt)?))
}

/// For a key that seals one message ever.
fn zero_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

/// The head says how long it is, so head and place need no mark between them.
fn authenticated(head: &[u8], aad: &[u8]) -> Vec<u8> {
    [head, aad].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Bed {
        _dir: tempfile::TempDir,
        vault: Vault,
    }

    fn bed() -> Bed {
        let dir = tempfile::tempdir().unwrap();
        let keys = Arc::new(Keys::open(&Keys::create(&dir.path().join("keys")).unwrap()).unwrap());
        let keystore = Keystore::create(&dir.path().join("keystore"), Arc::clone(&keys)).unwrap();
        let vault = Vault::new(&keys, Arc::new(keystore)).unwrap();
        Bed { _dir: dir, vault }
    }

    fn subject(n: u8) -> SubjectKey {
        [n; 32]
    }

    #[test]
    fn opens_in_its_place_alone() {
        let Bed { vault, _dir } = bed();
        vault.keystore.ensure(&[subject(1), subject(2)]).unwrap();
        for subjects in [&[][..], &[subject(1)], &[subject(2), subject(1), subject(2)]] {
            let here = place(Table::Version, b"key");
            let sealed = vault.seal(subjects, &here, b"text").unwrap();
            assert_eq!(vault.open(&here, &sealed).unwrap(), b"text");
            for elsewhere in [place(Table::Resource, b"key"), place(Table::Version, b"kez"), Vec::new()] {
                assert!(matches!(vault.open(&elsewhere, &sealed), Err(VaultError::Corrupt)));
            }
            assert_ne!(vault.seal(subjects, &here, b"text").unwrap(), sealed, "a fresh key each time");
        }
    }

    #[test]
    fn a_subject_without_a_key_is_refused() {
        let Bed { vault, _dir } = bed();
        assert!(matches!(vault.seal(&[subject(1)], b"", b"text"), Err(VaultError::NoKey)));
    }

    #[test]
    fn another_vault_opens_nothing() {
        let (one, other) = (bed(), bed());
        for vault in [&one.vault, &other.vault] {
            vault.keystore.ensure(&[subject(1)]).unwrap();
        }
        for subjects in [&[][..], &[subject(1)]] {
            let sealed = one.vault.seal(subjects, b"", b"text").unwrap();
            assert!(matches!(other.vault.open(b"", &sealed), Err(VaultError::Corrupt)));
        }
    }

    #[test]
    fn erased_in_one_subject_is_erased_in_all() {
        let Bed { vault, _dir } = bed();
        let all = [subject(1), subject(2), subject(3)];
        vault.keystore.ensure(&all).unwrap();
        let sealed = vault.seal(&all, b"", b"text").unwrap();
        let other = vault.seal(&[subject(1), subject(3)], b"", b"text").unwrap();
        assert!(vault.destroy(&subject(2)).unwrap());
        assert!(matches!(vault.open(b"", &sealed), Err(VaultError::Erased)));
        vault.keystore.ensure(&all).unwrap();
        assert!(matches!(vault.open(b"", &sealed), Err(VaultError::Erased)), "for ever");
        assert_eq!(vault.open(b"", &other).unwrap(), b"text");
    }

    #[test]
    fn too_many_subjects_are_refused() {
        let Bed { vault, _dir } = bed();
        let subjects: Vec<SubjectKey> = (0..=1024_u32)
            .map(|n| {
                let mut subject = [0; 32];
                subject[..4].copy_from_slice(&n.to_le_bytes());
                subject
            })
            .collect();
        vault.keystore.ensure(&subjects).unwrap();
        assert!(matches!(vault.seal(&subjects, b"", b""), Err(VaultError::TooManySubjects)));
        let sealed = vault.seal(&subjects[1..], b"", b"text").unwrap();
        assert_eq!(vault.open(b"", &sealed).unwrap(), b"text");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_flipped_bit_fails(text in proptest::collection::vec(any::<u8>(), 0..80), subjects in 0..3_u8, aad: [u8; 5]) {
            let Bed { vault, _dir } = bed();
            let subjects: Vec<_> = (0..subjects).map(subject).collect();
            vault.keystore.ensure(&subjects).unwrap();
            let sealed = vault.seal(&subjects, &aad, &text).unwrap();
            prop_assert_eq!(&vault.open(&aad, &sealed).unwrap(), &text);
            prop_assert!(text.len() < 8 || !sealed.windows(text.len()).any(|window| window == text));
            for bit in 0..sealed.len() * 8 {
                let mut changed = sealed.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                prop_assert!(vault.open(&aad, &changed).is_err(), "bit {}", bit);
            }
            for length in 0..sealed.len() {
                prop_assert!(vault.open(&aad, &sealed[..length]).is_err());
            }
            let longer = [&sealed[..], &[0]].concat();
            prop_assert!(vault.open(&aad, &longer).is_err());
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let Bed { vault, _dir } = bed();
            prop_assert!(vault.open(b"", &bytes).is_err());
            let led = [&[1, 0, 1][..], &bytes].concat();
            prop_assert!(vault.open(b"", &led).is_err());
        }
    }
}
