//! The first answer, again.
//!
//! Takes: a unit, and the key that its sender gave it. Gives: the answer to the same unit sent before. Never: takes a
//! PUT for a repetition by its content alone: PUT A, PUT B, PUT A ends at A.
//!
//! With a key, the key decides, and a different unit under the same key is refused. Without one the digest counts,
//! only for units that hold nothing but unconditional POST. An entry of a batch that means its neighbours, or can be meant
//! by them, is the same only within the same batch: its words alone do not say whom it is about. Both hold for a window,
//! after which the rows go ([`Recorder::forget_answers`]).
//!
//! Rows of [`Table::Idempotency`]: the answer under a keyed hash, and an empty one under [`AGED`], the time and that hash:
//! by these the oldest are found.

use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use sluice_fhir::reference;
use sluice_fhir::tree::Node;
use time::OffsetDateTime;

use super::{Answer, Recorder, ids};
use crate::consent::pseudonym::Pseudonym;
use crate::error::{Error, Refusal, Result};
use crate::ingest::neighbours::Neighbours;
use crate::ingest::unit::Interaction;
use crate::keys::HmacKey;
use crate::normalize::Normalized;
use crate::stage::Twin;
use crate::store::vault::{Sealers, VaultError, place};
use crate::store::{Batch, Direction, KeyRange, Table};

/// Answers that one pass takes away at most.
pub const FORGOTTEN_MAX: usize = 256;

/// What the keys of rows by time begin with; no keyed hash does.
const AGED: [u8; 8] = [0xff; 8];

/// Bytes of a row before the sealed answer: when (u64, microseconds) and a keyed hash of the unit.
const HEAD: usize = 8 + 32;

/// Whether the same unit came before.
#[derive(Debug)]
pub enum Known {
    /// It did, and got this answer.
    Answered(Answer),
    /// It has no answer yet; none where a repetition can't be told from a new request.
    New(Option<Twin>),
}

/// What stands under a unit's idempotency key.
#[derive(Default)]
pub(super) struct LookUp {
    /// The answer that it got before.
    pub first: Option<Answer>,
    /// The key of the row, and the row as it was read; none where a repetition can't be told from a new request.
    row: Option<(Bytes, Option<Bytes>)>,
}

impl Recorder {
    /// Whether the same unit got an answer before. Those of its batch that come after it hear where it stands then.
    ///
    /// # Errors
    /// 422 if another unit came under the same idempotency key; an outage of the store.
    pub async fn known(&self, unit: &Normalized) -> Result<Known> {
        let LookUp { first, row } = self.look_up(unit).await?;
        let Some(answer) = first else { return Ok(Known::New(row.map(|(key, answer)| Twin { key, answer }))) };
        if let Some(neighbours) = unit.neighbours() {
            for (resource, told) in unit.resources().iter().zip(&answer.entries) {
                if let (Some(name), Ok(id)) = (resource.full_url(), told.id.parse()) {
                    neighbours.stands(name, id);
                }
            }
        }
        Ok(Known::Answered(answer))
    }

    /// The row, and the answer in it.
    pub(super) async fn look_up(&self, unit: &Normalized) -> Result<LookUp> {
        let Some(key) = self.key(unit) else { return Ok(LookUp::default()) };
        let row = self.store.read(Table::Idempotency, &key).await?;
        let first = self.answer_in(unit, &key, row.as_ref())?;
        Ok(LookUp { first, row: Some((key, row)) })
    }

    fn answer_in(&self, unit: &Normalized, key: &Bytes, row: Option<&Bytes>) -> Result<Option<Answer>> {
        let Some(row) = row.filter(|row| self.is_fresh(row)) else { return Ok(None) };
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
        let at = micros(OffsetDateTime::now_utc()).to_be_bytes();
        let mut value = at.to_vec();
        value.extend_from_slice(&self.fingerprint(unit));
        let sealer = sealers.of(&ids(subjects))?;
        value.extend(sealer.seal(&place(Table::Idempotency, &key), &plain)?);
        let aged = [&AGED[..], &at, &key].concat();
        let batch = Batch::new().expect_read(Table::Idempotency, key.clone(), row).put(Table::Idempotency, key, value);
        Ok(batch.put(Table::Idempotency, aged, Bytes::new()))
    }

    /// Takes away answers that are given no more, the oldest first and at most [`FORGOTTEN_MAX`]; says how many rows by
    /// time went. A crash before its commit leaves them for the next pass.
    ///
    /// # Errors
    /// An outage of the store.
    pub async fn forget_answers(&self) -> Result<usize> {
        let window = u64::try_from(self.idempotency_window.as_micros()).unwrap_or(u64::MAX);
        let end = micros(OffsetDateTime::now_utc()).saturating_sub(window).to_be_bytes();
        let range = KeyRange::prefix(AGED.to_vec()).before([AGED, end].concat());
        let rows = self.store.scan(Table::Idempotency, range, FORGOTTEN_MAX, Direction::Up).await?;
        let broken = || Error::defect("an answer's row by time is not what was written");
        let mut old = Vec::with_capacity(rows.len());
        for row in rows {
            let rest = row.key.get(AGED.len()..).and_then(|rest| rest.split_first_chunk::<8>());
            let (at, key) = rest.map(|(at, key)| (*at, Bytes::copy_from_slice(key))).ok_or_else(broken)?;
            old.push((row.key, at, key));
        }
        let answers = old.iter().map(|(_, _, key)| (Table::Idempotency, key.clone())).collect();
        let answers = self.store.read_many(answers).await?;
        let count = old.len();
        let mut batch = Batch::new();
        for ((aged, at, key), answer) in old.into_iter().zip(answers) {
            batch = batch.delete(Table::Idempotency, aged);
            // The key may have been used again since: then the answer is younger, and has a row by time of its own.
            if let Some(answer) = answer.filter(|answer| answer.starts_with(&at)) {
                batch = batch.expect_value(Table::Idempotency, key.clone(), answer).delete(Table::Idempotency, key);
            }
        }
        if count > 0 {
            self.store.commit(batch).await.map_err(|error| super::uncommitted(&error))?;
        }
        Ok(count)
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

    fn is_fresh(&self, row: &[u8]) -> bool {
        let at = row.first_chunk::<8>().map_or(0, |at| u64::from_be_bytes(*at));
        let age = Duration::from_micros(micros(OffsetDateTime::now_utc()).saturating_sub(at));
        age < self.idempotency_window
    }
}

/// Whether a unit means another entry of its batch, or has a name by which another may mean it.
fn is_among(unit: &Normalized) -> bool {
    let Some(neighbours) = unit.neighbours() else { return false };
    let index = unit.index();
    unit.resources().iter().enumerate().any(|(at, resource)| {
        resource.full_url().is_some_and(|name| neighbours.find(name).is_some())
            || reference::all(resource.tree().root())
                .filter_map(Node::as_str)
                .any(|text| neighbours.meant(&text, index.resolve(&text, at)).is_some())
    })
}

/// A digest over what is asked for with each resource, and each resource's own digest; ids count, since they are asked
/// for, and so do the labels of the Bundle around, and all of a batch for an entry that means another of it or may be meant.
fn digest(unit: &Normalized) -> [u8; 32] {
    let mut hasher = Sha256::new_with_prefix(b"sluice-unit-1\0");
    if let Some(labels) = &unit.context().labels {
        hasher.update((labels.len() as u64).to_be_bytes());
        hasher.update(labels.as_bytes());
    }
    if is_among(unit) {
        hasher.update(unit.neighbours().and_then(Neighbours::digest).unwrap_or(&[0; 32]));
    }
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
