//! The first answer, again.
//!
//! Takes: a unit, and the key that its sender gave it. Gives: the answer to the same unit sent before. Never: takes a
//! PUT for a repetition by its content alone: PUT A, PUT B, PUT A ends at A.
//!
//! With a key, the key decides, and a different unit under the same key is refused. Without one the digest counts,
//! only for units that hold nothing but unconditional POST, and only within a window.

use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use super::{Answer, Recorder, ids};
use crate::consent::pseudonym::Pseudonym;
use crate::error::{Error, Refusal, Result};
use crate::ingest::unit::Interaction;
use crate::keys::HmacKey;
use crate::normalize::Normalized;
use crate::store::vault::{Sealers, VaultError, place};
use crate::store::{Batch, Table};

/// Bytes of a row before the sealed answer: when (u64, microseconds) and a keyed hash of the unit.
const HEAD: usize = 8 + 32;

/// What stands under a unit's idempotency key.
#[derive(Default)]
pub(super) struct LookUp {
    /// The answer that it got before.
    pub first: Option<Answer>,
    /// The key of the row, and the row as it was read; none where a repetition can't be told from a new request.
    row: Option<(Bytes, Option<Bytes>)>,
}

impl Recorder {
    /// The answer that the same unit got before; none if it is new.
    ///
    /// # Errors
    /// 422 if another unit came under the same idempotency key; an outage of the store.
    pub async fn first_answer(&self, unit: &Normalized) -> Result<Option<Answer>> {
        Ok(self.look_up(unit).await?.first)
    }

    /// The row, and the answer in it.
    pub(super) async fn look_up(&self, unit: &Normalized) -> Result<LookUp> {
        let Some(key) = self.key(unit) else { return Ok(LookUp::default()) };
        let row = self.store.read(Table::Idempotency, &key).await?;
        let first = self.answer_in(unit, &key, row.as_ref())?;
        Ok(LookUp { first, row: Some((key, row)) })
    }

    fn answer_in(&self, unit: &Normalized, key: &Bytes, row: Option<&Bytes>) -> Result<Option<Answer>> {
        let Some(row) = row.filter(|row| self.is_fresh(unit, row)) else { return Ok(None) };
        let broken = || Error::defect("an answer's row is not what was written");
        let head = row.get(..HEAD).ok_or_else(broken)?;
        if head[8..] != self.fingerprint(unit) {
            let text = "an idempotency key that no other request has used";
            return Err(Error::refusal(Refusal::Invalid, "http.idempotency-key", text));
        }
        match self.vault.open(&place(Table::Idempotency, key), &row[HEAD..]) {
            Ok(plain) => serde_json::from_slice(&plain).map(Some).map_err(|_| broken()),
            // Its subjects were erased, and the answer with them: the unit counts as new.
            Err(VaultError::Erased) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The rows that make the answer repeatable, under the condition that nobody was faster with the same unit.
    pub(super) fn remember(
        &self,
        unit: &Normalized,
        looked_up: LookUp,
        answer: &Answer,
        subjects: &[Pseudonym],
        sealers: &mut Sealers<'_>,
    ) -> Result<Batch> {
        let Some((key, row)) = looked_up.row else { return Ok(Batch::new()) };
        let plain = serde_json::to_vec(answer).map_err(|_| Error::defect("an answer can't be written"))?;
        let mut value = micros(OffsetDateTime::now_utc()).to_be_bytes().to_vec();
        value.extend_from_slice(&self.fingerprint(unit));
        let sealer = sealers.of(&ids(subjects))?;
        value.extend(sealer.seal(&place(Table::Idempotency, &key), &plain)?);
        Ok(Batch::new().expect_read(Table::Idempotency, key.clone(), row).put(Table::Idempotency, key, value))
    }

    /// What the same unit, sent again, is known by; none where a repetition can't be told from a new request.
    pub fn twin(&self, unit: &Normalized) -> Option<Bytes> {
        self.key(unit)
    }

    /// The key of the row; none where a repetition can't be told from a new request.
    fn key(&self, unit: &Normalized) -> Option<Bytes> {
        let context = unit.context();
        let caller = context.caller.institution.as_bytes();
        let device = context.caller.device.as_deref().unwrap_or("").as_bytes();
        let hash = if let Some(key) = &context.idempotency_key {
            self.keys.hmac(HmacKey::Index, &[b"idempotency-key", caller, device, key.as_bytes()])
        } else {
            let only_post = unit
                .resources()
                .iter()
                .all(|it| matches!(it.interaction(), Interaction::Create { if_none_exist: None }));
            if !only_post {
                return None;
            }
            self.keys.hmac(HmacKey::Index, &[b"idempotency-digest", caller, device, &digest(unit)])
        };
        Some(Bytes::copy_from_slice(&hash))
    }

    fn fingerprint(&self, unit: &Normalized) -> [u8; 32] {
        self.keys.hmac(HmacKey::Index, &[b"idempotency-unit", &digest(unit)])
    }

    fn is_fresh(&self, unit: &Normalized, row: &[u8]) -> bool {
        if unit.context().idempotency_key.is_some() {
            return true;
        }
        let at = row.first_chunk::<8>().map_or(0, |at| u64::from_be_bytes(*at));
        let age = Duration::from_micros(micros(OffsetDateTime::now_utc()).saturating_sub(at));
        age < self.idempotency_window
    }
}

/// A digest over what is asked for with each resource, and each resource's own digest; ids count, since they are asked
/// for.
fn digest(unit: &Normalized) -> [u8; 32] {
    let mut hasher = Sha256::new_with_prefix(b"sluice-unit-1\0");
    for resource in unit.resources() {
        let asked = format!("{:?} {:?} {}\0", resource.interaction(), resource.full_url(), resource.resource_type());
        hasher.update((asked.len() as u64).to_be_bytes());
        hasher.update(asked);
        hasher.update(resource.digest().0);
    }
    hasher.finalize().into()
}

fn micros(at: OffsetDateTime) -> u64 {
    u64::try_from(at.unix_timestamp_nanos() / 1000).unwrap_or(0)
}
