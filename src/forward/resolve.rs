//! What became of a unit that was not answered.
//!
//! Takes: a staged unit that may have been sent. Gives: the upstream's yes or no, found out late, or that it is still
//! open. Never: sends again what could happen twice or undo what came after it.
//!
//! `client-ids`: who creates under a random id of ours is us alone. If one of them stands, all of the unit happened, and
//! nothing is sent again: what somebody has changed since is recorded without a version. If none stands, and nothing
//! stands where the unit would write, sending again is harmless: the late one and the new one write the same under the
//! same ids. A unit that writes over what stands there (a PUT under the sender's id) is taken for done if what stands there
//! is what was sent. If it still is what stood there before, it is sent again under the condition that it stays so, once
//! nobody can be at work on the first one; that it does is told by the version that the sender demanded, or by the
//! upstream's own clock: it has not been written since the unit came. Otherwise an operator is asked.
//! `tag-probe`: every resource carries the operation's tag; if one is found, all of the unit happened.
//! `park`: an operator decides.

use std::borrow::Cow;
use std::fmt::Write as _;

use http::{HeaderMap, StatusCode, header};
use sluice_fhir::canonical;
use sluice_fhir::tree::{Limits, Node, Tree};
use time::OffsetDateTime;
use time::format_description::well_known::{Rfc2822, Rfc3339};

use super::answer::etag;
use super::client::Failed;
use super::request::{self, Ask, ENTRY, OPERATION};
use super::{Answered, Located, Server, Told};
use crate::config::Resolve;
use crate::error::Result;
use crate::ingest::unit::Shape;
use crate::normalize::Resource;
use crate::stage::{Staged, State};

/// Pages of one search that are read at most.
const PAGES_MAX: usize = 64;

/// By how much longer ago than the unit came something must have been written, to have stood there before.
const UNWRITTEN_MARGIN: time::Duration = time::Duration::seconds(10);

/// What was found out.
#[derive(Debug)]
pub enum Resolved {
    /// The upstream has it.
    Answered(Box<Answered>),
    /// It is not known yet, or an operator is asked.
    Open,
    /// The upstream has refused it, or it may not be sent any more; nothing of it is left.
    Refused,
}

/// What a look at the upstream says of a unit.
enum Finding {
    /// All of it happened.
    Done(Vec<Located>),
    /// Nothing of it stands there, and sending it can't do anything twice if these versions, by the number of the resource,
    /// are still the current ones.
    NotThere(Vec<Option<String>>),
    /// It can't be told, or could do harm: an operator is asked.
    Ask(&'static str),
    /// It can't be told now.
    Later(&'static str),
}

/// What a look at the upstream says of one resource.
enum Seen {
    /// It is what was sent.
    Ours(Located),
    /// Nothing stands there.
    Nothing,
    /// Something else stands there, in this version, and did before the unit came.
    Before(String),
    /// Something else stands there.
    Other,
}

impl Server {
    pub(super) async fn resolve(&self, mut staged: Staged, may_send: bool) -> Result<Resolved> {
        match self.look(&staged).await {
            // A crash right here leaves the leftover, and the next look finds the same.
            Finding::Done(located) => self.answered(staged, located).await,
            Finding::NotThere(matches) if may_send => self.tell_again(staged, &matches).await,
            Finding::NotThere(_) if self.is_over(&staged) => {
                self.desk.take_back(staged).await?;
                Ok(Resolved::Refused)
            }
            Finding::NotThere(_) => self.open(staged, "it would be refused today, and may still arrive").await,
            Finding::Later(why) => self.open(staged, why).await,
            Finding::Ask(why) => {
                self.park(&mut staged, why).await?;
                Ok(Resolved::Open)
            }
        }
    }

    /// Sends once more what did not arrive, or will write the same under the same ids if it still does.
    async fn tell_again(&self, staged: Staged, matches: &[Option<String>]) -> Result<Resolved> {
        let request = request::of(&staged, self.resolve, matches)?;
        // A crash from here on leaves the leftover as it was: it is looked for again.
        match self.client.tell(&request, &staged).await {
            Told::Located(located) => self.answered(staged, located).await,
            // It may be refused because the first one has arrived meanwhile.
            Told::Refused(_) if self.is_over(&staged) && matches!(self.look(&staged).await, Finding::NotThere(_)) => {
                self.desk.take_back(staged).await?;
                Ok(Resolved::Refused)
            }
            Told::Refused(_) => self.open(staged, "it was refused, and the first one may still arrive").await,
            Told::Untold(why) | Told::Silent(why) => self.open(staged, why).await,
        }
    }

    async fn open(&self, mut staged: Staged, why: &'static str) -> Result<Resolved> {
        tracing::info!(operation = %staged.operation(), why, "a unit at the upstream is still unresolved");
        self.desk.mark(&mut staged, State::Unknown, None).await?;
        Ok(Resolved::Open)
    }

    /// Whether nobody can still be at work on what was sent, as far as time tells.
    fn is_over(&self, staged: &Staged) -> bool {
        staged.age() > self.client.timeout().saturating_mul(2)
    }

    async fn look(&self, staged: &Staged) -> Finding {
        let found = match self.resolve {
            Resolve::Park => Ok(Finding::Ask("the settings ask an operator")),
            Resolve::TagProbe => self.by_tag(staged).await,
            Resolve::ClientIds => self.by_id(staged).await,
        };
        found.unwrap_or_else(Finding::Later)
    }

    /// By the operation's tag.
    async fn by_tag(&self, staged: &Staged) -> Result<Finding, &'static str> {
        let unit = staged.permitted().checked().normalized();
        if unit.shape() == Shape::Sealed {
            return Ok(Finding::Ask("what may be signed carries no tag"));
        }
        let mut types: Vec<&str> = unit.resources().iter().map(|it| &**it.resource_type()).collect();
        types.sort_unstable();
        types.dedup();
        // Type, the numbers that it is tagged with, and where it stands.
        let mut found: Vec<(&str, Vec<String>, Located)> = Vec::new();
        for resource_type in types {
            let tag = encoded(&format!("{OPERATION}|{}", staged.operation()));
            let path = format!("{resource_type}?_tag={tag}&_count={}", unit.resources().len() + 1);
            for tree in self.search(path).await? {
                for resource in matches(&tree, resource_type) {
                    let numbers =
                        resource.find(&["meta", "tag"]).filter(|it| text(*it, "system").as_deref() == Some(ENTRY));
                    let numbers = numbers.filter_map(|it| text(it, "code")).collect();
                    found.extend(stands(resource, None).map(|it| (resource_type, numbers, it)));
                }
            }
        }
        if found.is_empty() {
            // Whoever has the request may still be at work on it, or its index.
            return if self.is_over(staged) {
                Ok(Finding::Ask("nothing with the operation's tag is found"))
            } else {
                Err("nothing with the operation's tag is found yet")
            };
        }
        let mut located = Vec::with_capacity(unit.resources().len());
        for (at, resource) in unit.resources().iter().enumerate() {
            let number = at.to_string();
            let alike = found.iter().filter(|it| it.0 == &**resource.resource_type() && it.1.contains(&number));
            let here = match request::ask(staged, resource, at) {
                Ask::Put { id, .. } => match alike.map(|it| &it.2).find(|it| it.id == id) {
                    Some(here) => Some(here.clone()),
                    // It was there, and somebody has written over it since.
                    None => Some(changed_since(id)),
                },
                Ask::Post { if_none_exist } => match (only(alike.map(|it| it.2.clone())), if_none_exist) {
                    (Some(here), _) => Some(here),
                    // It has found its resource and written nothing, so nothing is tagged.
                    (None, Some(query)) => self.conditional(resource, query, unit.context().received_at).await?,
                    (None, None) => None,
                },
            };
            let Some(here) = here else {
                return Ok(Finding::Ask("not everything with the operation's tag can be told apart"));
            };
            located.push(here);
        }
        Ok(Finding::Done(located))
    }

    /// By ids of ours.
    async fn by_id(&self, staged: &Staged) -> Result<Finding, &'static str> {
        let unit = staged.permitted().checked().normalized();
        let mut seen = Vec::with_capacity(unit.resources().len());
        let mut happened = false;
        for (at, resource) in unit.resources().iter().enumerate() {
            let ask = request::ask(staged, resource, at);
            let found = match &ask {
                Ask::Put { id, if_match } => {
                    let ours = staged.client_id(at).is_some();
                    let since = unit.context().received_at;
                    let found = self.stands_at(resource, id, ours, *if_match, since).await?;
                    happened |= ours && matches!(found, Seen::Ours(_));
                    found
                }
                Ask::Post { if_none_exist: Some(query) } if finds_itself(resource, query) => self
                    .conditional(resource, query, unit.context().received_at)
                    .await?
                    .map_or(Seen::Nothing, Seen::Ours),
                Ask::Post { .. } => return Ok(Finding::Ask("a create that could happen twice")),
            };
            seen.push((ask, found));
        }
        let anchored = (0..seen.len()).any(|at| staged.client_id(at).is_some());
        let all = seen.iter().all(|(_, it)| matches!(it, Seen::Ours(_)));
        // Without an id of ours in it, what stands everywhere as it was sent is as good as done.
        if happened || (all && !anchored) {
            let located = seen.into_iter().map(|(ask, found)| match (found, ask) {
                (Seen::Ours(located), _) => Some(located),
                (Seen::Nothing | Seen::Before(_) | Seen::Other, Ask::Put { id, .. }) => Some(changed_since(id)),
                (Seen::Nothing | Seen::Before(_) | Seen::Other, Ask::Post { .. }) => None,
            });
            let located: Option<Vec<Located>> = located.collect();
            return Ok(located.map_or(Finding::Ask("not all of it can be told apart"), Finding::Done));
        }
        // A conditional create that finds its resource writes nothing, however often it is sent.
        let matches: Option<Vec<Option<String>>> = seen
            .into_iter()
            .map(|(ask, found)| match (ask, found) {
                (_, Seen::Nothing) | (Ask::Post { .. }, _) => Some(None),
                (Ask::Put { .. }, Seen::Before(version)) => Some(Some(version)),
                (Ask::Put { .. }, Seen::Ours(_) | Seen::Other) => None,
            })
            .collect();
        match matches {
            None => Ok(Finding::Ask("something stands where the unit would write")),
            Some(matches) if matches.iter().any(Option::is_some) && !self.is_over(staged) => {
                Err("it would write over something, and the first one may still arrive")
            }
            Some(matches) => Ok(Finding::NotThere(matches)),
        }
    }

    async fn stands_at(
        &self,
        resource: &Resource,
        id: &str,
        ours: bool,
        if_match: Option<u64>,
        since: OffsetDateTime,
    ) -> Result<Seen, &'static str> {
        let (status, headers, tree) = self.read(format!("{}/{id}", resource.resource_type())).await?;
        match status {
            StatusCode::NOT_FOUND => Ok(Seen::Nothing),
            StatusCode::OK => {
                let tree = tree.ok_or("what stands there is not JSON")?;
                let version = headers.get(header::ETAG).and_then(|it| it.to_str().ok()).and_then(etag);
                let Some(located) = stands(tree.root(), version) else { return Ok(Seen::Other) };
                // Under a random id of ours nobody else creates; under the sender's own id the content tells.
                let same = ours || canonical::evidence_digest(tree.root()) == resource.digest();
                if same && located.id == id {
                    return Ok(Seen::Ours(located));
                }
                let before = match if_match {
                    // Had it arrived, another version would be the current one.
                    Some(wanted) => located.version.as_deref() == Some(&*wanted.to_string()),
                    None => is_unwritten(&headers, &located, OffsetDateTime::now_utc() - since),
                };
                Ok(located.version.filter(|_| before).map_or(Seen::Other, Seen::Before))
            }
            // It was there, and somebody has deleted it.
            StatusCode::GONE if ours => Ok(Seen::Ours(changed_since(id.to_owned()))),
            StatusCode::GONE => Ok(Seen::Other),
            _ => Err("the look at the upstream was not answered"),
        }
    }

    /// The one resource that a conditional create finds; none if there is none, or several.
    async fn conditional(
        &self,
        resource: &Resource,
        query: &str,
        received_at: OffsetDateTime,
    ) -> Result<Option<Located>, &'static str> {
        let resource_type = &**resource.resource_type();
        let pages = self.search(format!("{resource_type}?{}", encoded(query))).await?;
        let found = pages.iter().flat_map(|tree| matches(tree, resource_type)).filter_map(|it| {
            let located = stands(it, None)?;
            // What stands there in its first version was created by this unit, or found by it: the content tells, or the
            // time, where the upstream has rewritten references.
            let ours = located.status == 201
                && (canonical::evidence_digest(it) == resource.digest() || is_since(&located, received_at));
            Some(Located { status: if ours { 201 } else { 200 }, ..located })
        });
        Ok(only(found))
    }

    /// All pages of a search.
    async fn search(&self, path: String) -> Result<Vec<Tree>, &'static str> {
        let mut next = Some(path);
        let mut pages = Vec::new();
        while let Some(path) = next {
            let (StatusCode::OK, _, Some(tree)) = self.read(path).await? else {
                return Err("a search was not answered");
            };
            let link = tree.root().find(&["link"]).find(|it| text(*it, "relation").as_deref() == Some("next"));
            next = match link.and_then(|it| text(it, "url")) {
                Some(url) => Some(self.client.below_base(&url).ok_or("a search goes on somewhere else")?.to_owned()),
                None => None,
            };
            pages.push(tree);
            if pages.len() == PAGES_MAX {
                return Err("a search has no end");
            }
        }
        Ok(pages)
    }

    async fn read(&self, path: String) -> Result<(StatusCode, HeaderMap, Option<Tree>), &'static str> {
        match self.client.read(path).await {
            Ok((status, headers, body)) => Ok((status, headers, Tree::parse(body, &Limits::default()).ok())),
            Err(Failed::Unsent(why) | Failed::Silent(why)) => Err(why),
        }
    }
}

/// The resources of a type that a page of a search holds.
fn matches<'a>(page: &'a Tree, resource_type: &str) -> impl Iterator<Item = Node<'a>> {
    page.root()
        .find(&["entry", "resource"])
        .filter(move |it| text(*it, "resourceType").as_deref() == Some(resource_type))
}

/// Where a resource that was read stands; by version 1 it was created.
fn stands(resource: Node<'_>, version: Option<String>) -> Option<Located> {
    let meta = |name| resource.member("meta").and_then(|it| text(it, name));
    let version = version.or_else(|| meta("versionId"));
    let status = if version.as_deref() == Some("1") { 201 } else { 200 };
    Some(Located { status, id: text(resource, "id")?, version, last_modified: meta("lastUpdated") })
}

/// Whether it was written since then, by the upstream's clock.
fn is_since(located: &Located, then: OffsetDateTime) -> bool {
    let written = located.last_modified.as_deref().and_then(|it| OffsetDateTime::parse(it, &Rfc3339).ok());
    written.is_some_and(|written| written >= then)
}

/// Whether it was written longer ago than this, both times by the upstream's clock: what it says of itself, and the `Date`
/// of its answer (RFC 9110 §6.6.1), whose seconds are the margin.
fn is_unwritten(headers: &HeaderMap, located: &Located, elapsed: time::Duration) -> bool {
    let now = headers.get(header::DATE).and_then(|it| it.to_str().ok());
    let now = now.and_then(|it| OffsetDateTime::parse(it, &Rfc2822).ok());
    let written = located.last_modified.as_deref().and_then(|it| OffsetDateTime::parse(it, &Rfc3339).ok());
    now.zip(written).is_some_and(|(now, written)| elapsed.is_positive() && now - written > elapsed + UNWRITTEN_MARGIN)
}

/// Where a resource stood that somebody has changed since: in which version is not known any more.
fn changed_since(id: String) -> Located {
    Located { status: 200, id, version: None, last_modified: None }
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

/// A query as it may stand in a URL (RFC 3986 §3.4); what is encoded already stays.
fn encoded(query: &str) -> String {
    let mut url = String::with_capacity(query.len());
    for byte in query.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~!$&'()*,;=:@/?%".contains(&byte) {
            url.push(char::from(byte));
        } else {
            // Writing to a String does not fail.
            let _ = write!(url, "%{byte:02X}");
        }
    }
    url
}

fn only<T>(mut found: impl Iterator<Item = T>) -> Option<T> {
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

fn text(node: Node<'_>, name: &str) -> Option<String> {
    node.member(name).and_then(Node::as_str).map(Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_fit_for_a_url() {
        assert_eq!(encoded("identifier=urn:a|7 8"), "identifier=urn:a%7C7%208");
        assert_eq!(encoded("identifier=http://a%7Cé"), "identifier=http://a%7C%C3%A9");
    }

    #[test]
    fn of_several_none_is_the_only_one() {
        assert_eq!(only([1].into_iter()), Some(1));
        assert_eq!(only([1, 2].into_iter()), None);
        assert_eq!(only(std::iter::empty::<u8>()), None);
    }

    #[test]
    fn what_stood_there_before_is_known_by_the_upstreams_clock_alone() {
        let unwritten = |date: Option<&str>, written: Option<&str>, elapsed: i64| {
            let mut headers = HeaderMap::new();
            if let Some(date) = date {
                headers.insert(header::DATE, date.parse().unwrap());
            }
            let last_modified = written.map(str::to_owned);
            let located = Located { status: 200, id: "a".to_owned(), version: None, last_modified };
            is_unwritten(&headers, &located, time::Duration::seconds(elapsed))
        };
        // Its clock is years behind: only what lies between two of its times counts.
        let date = Some("Wed, 21 Oct 2015 07:28:00 GMT");
        assert!(unwritten(date, Some("2015-10-21T07:00:00Z"), 60));
        assert!(unwritten(date, Some("2015-10-21T09:27:00.5+02:00"), 49));
        assert!(!unwritten(date, Some("2015-10-21T07:27:00Z"), 50), "within the margin");
        assert!(!unwritten(date, Some("2015-10-21T07:27:59Z"), 60), "since the unit came");
        assert!(!unwritten(date, Some("2015-10-21T07:29:00Z"), 60), "in its future");
        assert!(!unwritten(date, Some("2015-10-21"), 60) && !unwritten(date, None, 60));
        assert!(
            !unwritten(None, Some("2015-10-21T07:00:00Z"), 60)
                && !unwritten(Some("x"), Some("2015-10-21T07:00:00Z"), 60)
        );
        assert!(!unwritten(date, Some("2015-10-21T07:00:00Z"), -60), "our clock was set back");
    }
}
