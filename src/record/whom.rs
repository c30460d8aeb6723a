//! Whom a unit is about, where it comes to stand.
//!
//! Takes: a unit's subjects as they were permitted, and who bears the names of its Patients by now. Gives: the subjects it
//! is recorded with, and the rows of those names. Never: forgets a bearer; records without an upstream what one of the
//! subjects was not asked about.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::Recorder;
use super::commit::Draft;
use super::plan::Planned;
use crate::consent::names::{self, Bearers, Name};
use crate::consent::pseudonym::{Pseudonym, each_once};
use crate::consent::subjects::Subjects;
use crate::error::{Error, Peer, Result};
use crate::forward::Answered;
use crate::store::{Batch, Table};

impl Recorder {
    /// Whom each resource is about, as it was permitted; and beside them those about whom the Patients are that stand where
    /// the unit's are to stand, who were not known when it was permitted: at the upstream that is known only now.
    pub(super) async fn whom<'a>(&self, answered: &'a Answered, planned: &[Planned]) -> Result<Cow<'a, [Subjects]>> {
        let permitted = answered.staged().permitted();
        let resources = permitted.checked().normalized().resources();
        let places: Vec<_> = resources
            .iter()
            .zip(planned)
            .zip(permitted.subjects())
            .filter(|((resource, plan), _)| &**resource.resource_type() == "Patient" && !plan.fresh)
            .map(|((_, plan), subjects)| (Name::Here(&plan.id).key(&self.keys), subjects))
            .collect();
        let rows = self.store.read_many(places.iter().map(|(key, _)| (Table::LocalId, key.clone())).collect()).await?;
        // For the subjects of each such Patient, who else it is; none where nobody can say any more.
        let mut joined: Vec<(&Subjects, Option<Vec<Pseudonym>>)> = Vec::new();
        for ((_, subjects), row) in places.iter().zip(rows) {
            match Bearers::of(row.as_deref()) {
                Bearers::Nobody => {}
                Bearers::These(mut standing) => {
                    standing.retain(|it| !subjects.pseudonyms().contains(it));
                    if !standing.is_empty() {
                        joined.push((subjects, Some(standing)));
                    }
                }
                Bearers::TooMany => joined.push((subjects, None)),
            }
        }
        if joined.is_empty() {
            return Ok(Cow::Borrowed(permitted.subjects()));
        }
        if answered.upstream().is_none() {
            // Somebody else's PUT was faster: who is asked must be asked again.
            return Err(Error::outage(Peer::Store, Duration::from_secs(1), "who the Patient is has just changed"));
        }
        // Whatever is about one of them is about the others from now on. They were not asked whether it may be collected:
        // the upstream has it. They are asked before anybody hears of it; where not all of them are known, nobody does.
        let widened = permitted.subjects().iter().map(|subjects| {
            let mut all = subjects.pseudonyms().to_vec();
            let mut left: Vec<_> = joined.iter().collect();
            // Whoever joins may bring others along, in whatever order they come.
            while let Some(at) = left.iter().position(|(with, _)| with.pseudonyms().iter().any(|it| all.contains(it))) {
                let (_, Some(more)) = left.swap_remove(at) else { return Subjects::Unattributed };
                all.extend_from_slice(more);
            }
            if all.is_empty() { subjects.clone() } else { Subjects::Of(each_once(all)) }
        });
        Ok(Cow::Owned(widened.collect()))
    }

    /// The rows of the names by which Patients are known from now on.
    pub(super) async fn bearers(&self, drafts: &[Draft<'_>], caller: &str) -> Result<Batch> {
        let mut bearers: BTreeMap<Bytes, Bearers> = BTreeMap::new();
        for draft in drafts.iter().filter(|draft| &**draft.resource.resource_type() == "Patient") {
            let patient = draft.resource.tree().root();
            let full_url = draft.resource.full_url().map(|url| &**url);
            // Of whom nobody can say who it is, no name means anybody any more.
            let borne = match draft.subjects {
                Subjects::Of(pseudonyms) => Bearers::These(pseudonyms.clone()),
                Subjects::Nobody | Subjects::Unattributed => Bearers::TooMany,
            };
            for key in names::all(&self.keys, caller, &draft.plan.id, patient, full_url) {
                let known = bearers.remove(&key).unwrap_or(Bearers::Nobody);
                bearers.insert(key, known.and(borne.clone()));
            }
        }
        let rows = self.store.read_many(bearers.keys().map(|key| (Table::LocalId, key.clone())).collect()).await?;
        let mut batch = Batch::new();
        for ((key, bearers), row) in bearers.into_iter().zip(rows) {
            let value = Bearers::of(row.as_deref()).and(bearers).row_with(&[]);
            if row.as_deref() != Some(&value[..]) {
                batch.add_put(Table::LocalId, key.clone(), value);
            }
            batch.add_expect_read(Table::LocalId, key, row);
        }
        Ok(batch)
    }
}
