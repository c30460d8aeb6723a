//! The one question that route and recheck ask of consent.
//!
//! Takes: a version and a subscriber. Gives: what the door says now. Never: decides anything itself.

use sluice_fhir::tree::{Limits, Tree};

use crate::config::Subscriber;
use crate::consent::door::{Asker, Door, Judgement};
use crate::error::{Error, Result};
use crate::observe;
use crate::record::version::Version;

/// Whether each of these subscribers may be told of this version.
///
/// # Errors
/// A defect if what is stored is not JSON.
pub async fn judge(
    door: &Door,
    at: observe::Door,
    subscribers: &[&Subscriber],
    version: &Version,
) -> Result<Vec<Judgement>> {
    let facets = {
        let tree = Tree::parse(version.body.clone(), &Limits::default());
        let tree = tree.map_err(|_| Error::defect("a stored resource is not JSON"))?;
        door.facets_labelled(tree.root(), version.about.labels.as_deref())
    };
    let subjects = version.about.whom();
    let mut judgements = Vec::with_capacity(subscribers.len());
    for subscriber in subscribers {
        judgements.push(door.disclose(at, &Asker::from(*subscriber), &subjects, &facets).await);
    }
    Ok(judgements)
}
