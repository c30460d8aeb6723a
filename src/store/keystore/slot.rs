//! The keystore's file: a header of 512 bytes, then slots of 128.
//!
//! A slot never crosses a sector, so a disk writes it whole or not; the CRC tells what came out otherwise. All of it is
//! big-endian.

use crate::keys::{Keys, KeysError, Secret, WRAPPED_BYTES, WrapKey};

pub(super) const HEADER_BYTES: usize = 512;
pub(super) const SLOT_BYTES: usize = 128;

const MAGIC: [u8; 16] = *b"sluice-keystore\x01";
const ID: usize = 16;
const CHECK: usize = ID + 16;
const HEADER_CRC: usize = CHECK + WRAPPED_BYTES;

const GENERATION: usize = 1;
const SUBJECT: usize = GENERATION + 4;
const WRAPPED: usize = SUBJECT + 32;
const CRC: usize = WRAPPED + WRAPPED_BYTES;

/// Where a slot begins.
pub(super) fn offset(place: u32) -> u64 {
    HEADER_BYTES as u64 + u64::from(place) * SLOT_BYTES as u64
}

/// What the file begins with: magic and version, the keystore's own id, and a key wrapped under the master key, by
/// which another master key is noticed.
#[derive(Clone, Copy)]
pub(super) struct Header {
    pub(super) id: [u8; 16],
    check: [u8; WRAPPED_BYTES],
}

impl Header {
    pub(super) fn new(keys: &Keys) -> Result<Self, KeysError> {
        let mut id = [0; 16];
        id.copy_from_slice(&Secret::random()?.expose()[..16]);
        let check = keys.wrap(WrapKey::Keystore, &id, &Secret::random()?)?;
        Ok(Self { id, check })
    }

    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..ID].copy_from_slice(&MAGIC);
        bytes[ID..CHECK].copy_from_slice(&self.id);
        bytes[CHECK..HEADER_CRC].copy_from_slice(&self.check);
        let crc = crc(&[&bytes[..HEADER_CRC]]);
        bytes[HEADER_CRC..HEADER_CRC + 4].copy_from_slice(&crc);
        bytes
    }

    pub(super) fn decode(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let sound = bytes[..ID] == MAGIC && bytes[HEADER_CRC..HEADER_CRC + 4] == crc(&[&bytes[..HEADER_CRC]]);
        let header = Self { id: bytes[ID..CHECK].try_into().ok()?, check: bytes[CHECK..HEADER_CRC].try_into().ok()? };
        sound.then_some(header)
    }

    pub(super) fn check(&self, keys: &Keys) -> Result<(), KeysError> {
        keys.unwrap(WrapKey::Keystore, &self.id, &self.check).map(drop)
    }

    /// What a wrapped key is bound to: this keystore, the slot, its generation and the subject.
    pub(super) fn place(&self, place: u32, generation: u32, subject: &[u8; 32]) -> [u8; 56] {
        let mut aad = [0; 56];
        aad[..16].copy_from_slice(&self.id);
        aad[16..20].copy_from_slice(&place.to_be_bytes());
        aad[20..24].copy_from_slice(&generation.to_be_bytes());
        aad[24..].copy_from_slice(subject);
        aad
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Never used: all zeros.
    Free,
    Live,
    Destroyed,
}

#[derive(Clone, Copy)]
pub(super) struct Slot {
    pub(super) state: State,
    pub(super) generation: u32,
    pub(super) subject: [u8; 32],
    pub(super) wrapped: [u8; WRAPPED_BYTES],
}

impl Slot {
    /// What is left of a key: how many the slot has held.
    pub(super) fn destroyed(generation: u32) -> Self {
        Self { state: State::Destroyed, generation, subject: [0; 32], wrapped: [0; WRAPPED_BYTES] }
    }

    pub(super) fn encode(&self, place: u32) -> [u8; SLOT_BYTES] {
        let mut bytes = [0; SLOT_BYTES];
        bytes[0] = match self.state {
            State::Free => return bytes,
            State::Live => 1,
            State::Destroyed => 2,
        };
        bytes[GENERATION..SUBJECT].copy_from_slice(&self.generation.to_be_bytes());
        bytes[SUBJECT..WRAPPED].copy_from_slice(&self.subject);
        bytes[WRAPPED..CRC].copy_from_slice(&self.wrapped);
        let crc = crc(&[&bytes[..CRC], &place.to_be_bytes()]);
        bytes[CRC..CRC + 4].copy_from_slice(&crc);
        bytes
    }

    /// `None` for anything that `encode` does not give for this place.
    pub(super) fn decode(place: u32, bytes: &[u8; SLOT_BYTES]) -> Option<Self> {
        let state = match bytes[0] {
            0 => State::Free,
            1 => State::Live,
            2 => State::Destroyed,
            _ => return None,
        };
        let slot = Self {
            state,
            generation: u32::from_be_bytes(bytes[GENERATION..SUBJECT].try_into().ok()?),
            subject: bytes[SUBJECT..WRAPPED].try_into().ok()?,
            wrapped: bytes[WRAPPED..CRC].try_into().ok()?,
        };
        (slot.encode(place) == *bytes).then_some(slot)
    }

    /// The subject that a damaged slot seems to be of.
    pub(super) fn damaged_subject(bytes: &[u8; SLOT_BYTES]) -> [u8; 32] {
        let mut subject = [0; 32];
        subject.copy_from_slice(&bytes[SUBJECT..WRAPPED]);
        subject
    }
}

/// CRC-32 (ISO 3309).
fn crc(parts: &[&[u8]]) -> [u8; 4] {
    let mut crc = flate2::Crc::new();
    for part in parts {
        crc.update(part);
    }
    crc.sum().to_be_bytes()
}
