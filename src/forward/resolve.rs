//! What became of a unit that was not answered.
//!
//! Takes: a staged unit that may have been sent. Gives: the upstream's yes or no, found out late, or that it is still
//! open. Never: sends again what could happen twice or undo what came after it.
//!
//! `client-ids`: who creates under a random id of ours is us alone. If one of them stands, all of the unit happened;
//! if none stands, sending again is harmless, since the late one and the new one write the same under the same ids. A
//! unit with nothing of that kind is sent again only if the search of a conditional create finds what it makes; a PUT
//! under the sender's id is not, unless what stands there is what was sent (done) or nothing stands there.
//! `tag-probe`: every resource carries the operation's tag; all found is a yes. `park`: an operator decides.

use std::borrow::Cow;

use bytes::Bytes;
use http::StatusCode;
use sluice_fhir::canonical;
use sluice_fhir::tree::{Limits, Node, Tree};

use super::answer::etag;
use super::client::Failed;
use super::request::{self, Ask, TAG_SYSTEM};
use super::{Answered, Located, Server, Told};
use crate::config::Resolve;
use crate::error::Result;
use crate::ingest::unit::Shape;
use crate::normalize::Resource;
use crate::stage::{Staged, State};

/// What was found out.
#[derive(Debug)]
pub enum Resolved {
    /// The upstream has it.
    Answered(Box<Answered>),
    /// It is not known yet, or an operator is asked.
    Open,
    /// The upstream has refused it; nothing of it is left.
    Refused,
}

/// What a look at the upstream says of one resource.
enum Seen {
    /// It is what was sent.
    Ours(Located),
    /// Nothing stands there.
    Nothing,
    /// Something else stands there, or it can't be told.
    Other,
}

impl Server {
    pub(super) async fn resolve(&self, mut staged: Staged) -> Result<Resolved> {
        let found = match self.resolve {
            Resolve::Park => Told::Untold("the settings ask an operator"),
            Resolve::TagProbe => self.tagged(&staged).await,
            Resolve::ClientIds => self.ours(&staged).await,
        };
        match found {
            Told::Located(located) => Ok(Resolved::Answered(Box::new(Answered { staged, upstream: Some(located) }))),
            Told::Refused(status, _) => {
                self.desk.take_back(staged, Some(status)).await?;
                Ok(Resolved::Refused)
            }
            Told::Silent(why) => {
                tracing::info!(operation = %staged.operation(), why, "a unit at the upstream is still unresolved");
                self.desk.mark(&mut staged, State::Unknown).await?;
                Ok(Resolved::Open)
            }
            Told::Untold(why) => {
                tracing::warn!(operation = %staged.operation(), why, "a unit is parked: an operator decides");
                self.desk.mark(&mut staged, State::Parked).await?;
                Ok(Resolved::Open)
            }
        }
    }

    /// By the operation's tag. [`Told::Untold`] asks an operator.
    async fn tagged(&self, staged: &Staged) -> Told {
        let unit = staged.permitted().checked().normalized();
        if unit.shape() == Shape::Sealed {
            return Told::Untold("what may be signed carries no tag");
        }
        let mut types: Vec<&str> = unit.resources().iter().map(|it| &**it.resource_type()).collect();
        types.sort_unstable();
        types.dedup();
        let mut found: Vec<(String, String, Located, [u8; 32])> = Vec::new();
        for resource_type in types {
            let path = format!(
                "{resource_type}?_tag={}%7C{}&_count={}",
                TAG_SYSTEM.replace(':', "%3A").replace('/', "%2F"),
                staged.operation(),
                unit.resources().len() + 1
            );
            let bundle = match self.client.read(path).await {
                Ok((StatusCode::OK, _, body)) => Tree::parse(body, &Limits::default()).ok(),
                Ok(_) | Err(Failed::Unsent(_) | Failed::Silent(_)) => None,
            };
            let Some(bundle) = bundle else { return Told::Silent("the search by tag was not answered") };
            for resource in bundle.root().find(&["entry", "resource"]) {
                let Some(located) = stands(resource, None) else { continue };
                if text(resource, "resourceType").as_deref() != Some(resource_type) {
                    continue;
                }
                found.push((resource_type.to_owned(), located.id.clone(), located, evidence(resource, staged)));
            }
        }
        if found.is_empty() {
            // Whoever has the request may still be at work on it.
            return if staged.age() > self.client.timeout().saturating_mul(2) {
                Told::Untold("nothing with the operation's tag is found")
            } else {
                Told::Silent("nothing with the operation's tag is found yet")
            };
        }
        // Which is which: by id where the sender gave one, else by content, else in the order found, by type.
        let mut located = Vec::with_capacity(unit.resources().len());
        for (at, resource) in unit.resources().iter().enumerate() {
            let asked = match request::ask(staged, resource, at) {
                Ask::Put { id, .. } => Some(id),
                Ask::Post { .. } => None,
            };
            let same_type = |it: &(String, String, Located, [u8; 32])| *it.0 == **resource.resource_type();
            let place = match &asked {
                Some(id) => found.iter().position(|it| same_type(it) && it.1 == *id),
                None => found
                    .iter()
                    .position(|it| same_type(it) && it.3 == resource.digest().0)
                    .or_else(|| only(found.iter().enumerate().filter(|(_, it)| same_type(it)).map(|(place, _)| place))),
            };
            let Some(place) = place else {
                return Told::Untold("not everything with the operation's tag can be told apart");
            };
            located.push(found.swap_remove(place).2);
        }
        Told::Located(located)
    }

    /// By ids of ours. [`Told::Untold`] asks an operator.
    async fn ours(&self, staged: &Staged) -> Told {
        let unit = staged.permitted().checked().normalized();
        let mut seen = Vec::with_capacity(unit.resources().len());
        let mut anchored = false;
        for (at, resource) in unit.resources().iter().enumerate() {
            match request::ask(staged, resource, at) {
                Ask::Put { id, .. } => {
                    let mine = staged.client_id(at).is_some();
                    match self.look(resource, &id, mine).await {
                        Err(why) => return Told::Silent(why),
                        Ok(found) => {
                            anchored |= mine && matches!(found, Seen::Ours(_));
                            seen.push(Some(found));
                        }
                    }
                }
                Ask::Post { if_none_exist: Some(query) } if finds_itself(resource, query) => seen.push(None),
                Ask::Post { .. } => return Told::Untold("a create that could happen twice"),
            }
        }
        let all = seen.iter().all(|it| matches!(it, Some(Seen::Ours(_))));
        let none = seen.iter().all(|it| matches!(it, Some(Seen::Nothing) | None));
        if all {
            let located =
                seen.into_iter().flatten().filter_map(|it| if let Seen::Ours(it) = it { Some(it) } else { None });
            return Told::Located(located.collect());
        }
        // Nothing of it stands there, or what does is written again as it is: once more, under the same ids.
        let harmless = none || (anchored && !seen.iter().any(|it| matches!(it, Some(Seen::Other))));
        if !harmless {
            return Told::Untold("another version stands where the unit would write");
        }
        let Ok(request) = request::of(staged, self.resolve) else { return Told::Untold("it can't be written") };
        match self.client.tell(&request, staged).await {
            Told::Untold(why) => Told::Silent(why),
            told => told,
        }
    }

    async fn look(&self, resource: &Resource, id: &str, mine: bool) -> Result<Seen, &'static str> {
        match self.client.read(format!("{}/{id}", resource.resource_type())).await {
            Ok((StatusCode::NOT_FOUND, ..)) => Ok(Seen::Nothing),
            Ok((StatusCode::OK, headers, body)) => {
                let tree = Tree::parse(body, &Limits::default()).map_err(|_| "what stands there is not JSON")?;
                let version = headers.get(http::header::ETAG).and_then(|it| it.to_str().ok()).and_then(etag);
                let Some(located) = stands(tree.root(), version) else { return Ok(Seen::Other) };
                // Under a random id of ours nobody else creates; under the sender's own id the content tells.
                let same = mine || canonical::evidence_digest(tree.root()) == resource.digest();
                Ok(if same && located.id == id { Seen::Ours(located) } else { Seen::Other })
            }
            Ok((StatusCode::GONE, ..)) => Ok(Seen::Other),
            Ok(_) => Err("the look at the upstream was not answered"),
            Err(Failed::Unsent(why) | Failed::Silent(why)) => Err(why),
        }
    }
}

/// Where a resource that was read stands; by version 1 it was created.
fn stands(resource: Node<'_>, version: Option<String>) -> Option<Located> {
    let meta = |name| resource.member("meta").and_then(|it| text(it, name));
    let version = version.or_else(|| meta("versionId"));
    let status = if version.as_deref() == Some("1") { 201 } else { 200 };
    Some(Located { status, id: text(resource, "id")?, version, last_modified: meta("lastUpdated") })
}

/// The evidence digest of what the upstream has, without the operation's tag.
fn evidence(resource: Node<'_>, staged: &Staged) -> [u8; 32] {
    let untagged = || -> Option<[u8; 32]> {
        let tree = Tree::parse(Bytes::copy_from_slice(resource.raw()), &Limits::default()).ok()?;
        let mut edits = sluice_fhir::edit::Edits::new(&tree);
        let operation = staged.operation().to_string();
        let tags: Vec<Node<'_>> = tree.root().find(&["meta", "tag"]).collect();
        let ours = tags.iter().find(|it| text(**it, "code").as_deref() == Some(&operation))?;
        let alone = tags.len() == 1;
        edits.remove(if alone { ours.parent().filter(|it| it.parent().is_some()).unwrap_or(*ours) } else { *ours });
        let tree = Tree::parse(edits.apply(&tree), &Limits::default()).ok()?;
        Some(canonical::evidence_digest(tree.root()).0)
    };
    untagged().unwrap_or_default()
}

/// Whether the resource carries the identifier that its conditional create searches for, so that a second one finds the
/// first.
fn finds_itself(resource: &Resource, query: &str) -> bool {
    let Some((system, value)) = query.strip_prefix("identifier=").and_then(|it| it.split_once('|')) else {
        return false;
    };
    resource
        .tree()
        .root()
        .find(&["identifier"])
        .any(|it| text(it, "system").as_deref() == Some(system) && text(it, "value").as_deref() == Some(value))
}

fn only(mut places: impl Iterator<Item = usize>) -> Option<usize> {
    let first = places.next()?;
    places.next().is_none().then_some(first)
}

fn text(node: Node<'_>, name: &str) -> Option<String> {
    node.member(name).and_then(Node::as_str).map(Cow::into_owned)
}
