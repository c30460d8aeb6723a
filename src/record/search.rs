//! The keyed index over identifiers: what conditional creates and conditional references ask.
//!
//! Takes: `identifier=[system]|[value]`. Gives: the ids of the resources that carry it. Never: holds an identifier; a
//! row's key is a keyed hash and its value is sealed under the tenant's key.

use std::borrow::Cow;

use bytes::Bytes;
use sluice_fhir::tree::Node;

use super::Recorder;
use crate::consent::names::searched;
use crate::error::{Error, Result};
use crate::keys::{HmacKey, Keys};
use crate::store::Table;
use crate::store::vault::place;

/// A search that is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Criteria {
    system: String,
    value: String,
}

/// What a search has found.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// The ids that carry the identifier.
    pub ids: Vec<String>,
    /// The row that says so.
    pub key: Bytes,
    /// Its value as it was read.
    pub row: Option<Bytes>,
}

impl Criteria {
    /// Reads a search, if it can be answered whole.
    pub(super) fn parse(query: &str) -> Option<Self> {
        searched(query).map(|(system, value)| Self { system, value })
    }

    fn key(&self, keys: &Keys, resource_type: &str) -> Bytes {
        index_key(keys, resource_type, &self.system, &self.value)
    }
}

impl Recorder {
    /// Which resources of a type carry the identifier.
    pub(super) async fn search(&self, resource_type: &str, criteria: &Criteria) -> Result<Found> {
        self.index_row(criteria.key(&self.keys, resource_type)).await
    }

    /// Reads a row of the index.
    pub(super) async fn index_row(&self, key: Bytes) -> Result<Found> {
        let row = self.store.read(Table::Index, &key).await?;
        let ids = match &row {
            None => Vec::new(),
            Some(row) => {
                let plain = self.vault.open(&place(Table::Index, &key), row)?;
                serde_json::from_slice(&plain).map_err(|_| Error::defect("an index row is not what was written"))?
            }
        };
        Ok(Found { ids, key, row })
    }

    /// The value of a row of the index.
    pub(super) fn index_value(&self, key: &Bytes, ids: &[String]) -> Result<Bytes> {
        let plain = serde_json::to_vec(ids).map_err(|_| Error::defect("an index row can't be written"))?;
        let sealed = self.vault.seal(&[], &place(Table::Index, key), &plain)?;
        Ok(sealed.into())
    }
}

/// The keys of the rows of the index in which a resource stands: one for each identifier with a value.
pub(super) fn index_keys(keys: &Keys, resource_type: &str, root: Node<'_>) -> Vec<Bytes> {
    let mut found: Vec<Bytes> = root
        .find(&["identifier"])
        .filter_map(|identifier| {
            let system = identifier.member("system").and_then(Node::as_str).unwrap_or(Cow::Borrowed(""));
            let value = identifier.member("value").and_then(Node::as_str)?;
            Some(index_key(keys, resource_type, &system, &value))
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

fn index_key(keys: &Keys, resource_type: &str, system: &str, value: &str) -> Bytes {
    let parts: [&[u8]; 4] = [b"identifier", resource_type.as_bytes(), system.as_bytes(), value.as_bytes()];
    Bytes::copy_from_slice(&keys.hmac(HmacKey::Index, &parts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_answered_whole_is_answered() {
        let criteria = |query| Criteria::parse(query).map(|it| (it.system, it.value));
        let want = Some(("http://a".to_owned(), "1 2".to_owned()));
        assert_eq!(criteria("identifier=http://a|1%202"), want);
        assert_eq!(criteria("?identifier=http%3A%2F%2Fa%7C1+2"), want);
        for query in [
            "identifier=1",
            "identifier=a|",
            "identifier=a|1&name=b",
            "name=b",
            "identifier=a|1,a|2",
            "identifier=a|%zz",
        ] {
            assert_eq!(criteria(query), None, "{query}");
        }
    }
}
