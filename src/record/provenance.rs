//! What the mappings changed, told in a Provenance of the same commit.
//!
//! Takes: what normalizing changed, and where everything of the unit will stand. Gives: the resources that are recorded
//! along with it, each with an id of its own. Never: tells of what is not written, or of anything if nothing was changed.
//!
//! One Provenance for a unit. Only where some of what was changed is about nobody who can be known, that gets another:
//! what is said of known patients must stay under their keys.

use bytes::Bytes;

use super::plan::Planned;
use super::version::ResourceKey;
use super::{Recorder, rewrite};
use crate::consent::pseudonym::each_once;
use crate::consent::subjects::Subjects;
use crate::error::{Error, Result};
use crate::forward::Answered;
use crate::normalize::{self, Resource};

/// The canonical URL of a mapping pack, before its id.
const MAPPING: &str = "https://sluice.dev/fhir/mapping/";
/// The canonical URL of the rules, whose version is the set.
const RULES: &str = "https://sluice.dev/fhir/rules";

/// A Provenance, ready to be recorded.
pub(super) struct Authored {
    pub resource: Resource,
    pub plan: Planned,
    pub subjects: Subjects,
    pub body: Bytes,
}

/// What is to be told of a unit's changes.
///
/// # Errors
/// A defect if it cannot be authored.
pub(super) fn of(
    answered: &Answered,
    planned: &[Planned],
    whom: &[Subjects],
    recorded_at: &str,
    recorder: &Recorder,
) -> Result<Vec<Authored>> {
    let normalized = answered.staged().permitted().checked().normalized();
    let Some(changed) = normalized.provenance() else { return Ok(Vec::new()) };
    let rules = answered.staged().permitted().checked().rules();
    let mappings = changed.mappings.iter().map(|(id, version)| format!("{MAPPING}{id}|{version}"));
    let policies: Vec<String> = mappings.chain(rules.map(|set| format!("{RULES}|{set}"))).collect();
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    let mut everyone = Vec::new();
    for (at, _) in &changed.changes {
        let Some(((plan, resource), subjects)) =
            planned.get(*at).zip(normalized.resources().get(*at)).zip(whom.get(*at))
        else {
            continue;
        };
        if !plan.write {
            continue;
        }
        // With an upstream its version is the one that can be read.
        let located = answered.upstream().and_then(|it| it.get(*at)).and_then(|it| it.version.clone());
        let version = located.unwrap_or_else(|| plan.version.to_string());
        let target = format!("{}/{}/_history/{version}", resource.resource_type(), plan.id);
        match subjects {
            Subjects::Unattributed => unknown.push(target),
            Subjects::Nobody => known.push(target),
            Subjects::Of(pseudonyms) => {
                known.push(target);
                everyone.extend_from_slice(pseudonyms);
            }
        }
    }
    let subjects = if everyone.is_empty() { Subjects::Nobody } else { Subjects::Of(each_once(everyone)) };
    let mut authored = Vec::new();
    for (targets, subjects) in [(known, subjects), (unknown, Subjects::Unattributed)] {
        if !targets.is_empty() {
            authored.push(one(&targets, subjects, &policies, recorded_at, recorder)?);
        }
    }
    Ok(authored)
}

fn one(
    targets: &[String],
    subjects: Subjects,
    policies: &[String],
    recorded_at: &str,
    recorder: &Recorder,
) -> Result<Authored> {
    let about = sluice_typed::Provenance { targets, recorded: recorded_at, institution: &recorder.tenant, policies };
    let json = sluice_typed::provenance(&about).map_err(|error| Error::defect(format!("a Provenance {error}")))?;
    let resource = normalize::authored(json)?;
    let id = uuid::Uuid::new_v4().to_string();
    let key = ResourceKey::of(&recorder.keys, resource.resource_type(), &id);
    let plan = Planned { id, key, head: None, fresh: true, version: 1, write: true, relied_on: None };
    let body = rewrite::identified(&resource, &plan, recorded_at);
    Ok(Authored { resource, plan, subjects, body })
}
