//! Versions, read back.
//!
//! Takes: a resource's key and a version's number. Gives: the version, opened. Never: gives a version whose subjects'
//! keys were destroyed; takes another resource for the one that was asked for.

use bytes::Bytes;

use super::Recorder;
use super::body;
use super::location::{Head, Location, location_of};
use super::version::{ResourceKey, Version};
use crate::error::{Error, Result};
use crate::store::Table;
use crate::store::vault::{VaultError, place};

/// Reads versions one after another: neighbours of one unit lie in one row, which is opened once. Not for keeping: it
/// holds the last row in the clear.
pub struct Reading<'a> {
    recorder: &'a Recorder,
    /// The key of the last row, and what it holds; none if its subjects' keys were destroyed.
    row: Option<(Bytes, Option<Bytes>)>,
}

impl<'a> Reading<'a> {
    /// Of what this recorder has recorded.
    pub fn new(recorder: &'a Recorder) -> Self {
        Self { recorder, row: None }
    }

    /// Opens a version; none if there is none, or if its subjects' keys were destroyed.
    ///
    /// # Errors
    /// An outage of the store; a defect if a row can't be opened though its keys are there.
    pub async fn version(&mut self, key: &ResourceKey, number: u64) -> Result<Option<Version>> {
        let Some(head) = self.head(key).await? else { return Ok(None) };
        if head.version == number {
            return self.at(key, number, head.location).await;
        }
        // Whoever moved the head has written this row in the same commit.
        let row = self.recorder.store.read(Table::Version, &key.version(number)).await;
        let Some(row) = row? else { return Ok(None) };
        self.at(key, number, location_of(&row)?).await
    }

    /// Opens the current version; none if there is none.
    ///
    /// # Errors
    /// As [`Reading::version`].
    pub async fn current(&mut self, key: &ResourceKey) -> Result<Option<Version>> {
        let Some(head) = self.head(key).await? else { return Ok(None) };
        self.at(key, head.version, head.location).await
    }

    async fn head(&self, key: &ResourceKey) -> Result<Option<Head>> {
        let head = self.recorder.store.read(Table::Resource, &key.head()).await?;
        head.as_deref().map(Head::decode).transpose()
    }

    async fn at(&mut self, key: &ResourceKey, number: u64, location: Location) -> Result<Option<Version>> {
        let Some(plain) = self.row(location.key()).await? else { return Ok(None) };
        let version = body::version(&plain, location.at())?;
        // What says where a version lies is not sealed: whoever can write rows must not be able to swap resources.
        let found = ResourceKey::of(&self.recorder.keys, &version.about.resource_type, &version.about.id);
        if found != *key || version.about.version != number {
            return Err(Error::defect("another version lies where one was looked for"));
        }
        Ok(Some(version))
    }

    async fn row(&mut self, key: Bytes) -> Result<Option<Bytes>> {
        if let Some((known, plain)) = &self.row
            && *known == key
        {
            return Ok(plain.clone());
        }
        let row = self.recorder.store.read(Table::Body, &key).await?;
        let row = row.ok_or_else(|| Error::defect("a version's body is not where it lies"))?;
        let plain = match self.recorder.vault.open(&place(Table::Body, &key), &row) {
            Ok(plain) => Some(Bytes::from(plain)),
            Err(VaultError::Erased) => None,
            Err(error) => return Err(error.into()),
        };
        self.row = Some((key, plain.clone()));
        Ok(plain)
    }
}
