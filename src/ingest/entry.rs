//! Reads one element of `Bundle.entry`, one line of NDJSON, or a resource sent alone.
//!
//! Takes: its text and where it stood. Gives: an [`Entry`], strictly parsed. Never: looks at what the resource says
//! beyond `resourceType` and `id`.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use sluice_fhir::outcome::{Issue, IssueType, Severity};
use sluice_fhir::reference::is_id;
use sluice_fhir::tree::{self, Kind, Node, Position, SyntaxError, Tree};

use super::unit::{Entry, Interaction, Place};
use crate::error::{Error, Refusal, Result};

/// Nodes of an element beside those of its resource, at most.
const NODES_BESIDE: usize = 4_096;

/// What is asked for with a resource, as it stands in the element.
#[derive(Default)]
struct RawRequest<'a> {
    method: Cow<'a, str>,
    url: Cow<'a, str>,
    if_none_exist: Option<Cow<'a, str>>,
    if_match: Option<Cow<'a, str>>,
    is_conditional_read: bool,
}

/// Whether the entries of a Bundle carry requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Requests {
    /// transaction, batch: each must.
    Required,
    /// collection: none does; one that stands there is not followed.
    Absent,
}

/// Reads the element `index`, whose text starts at `at`.
///
/// # Errors
/// A refusal with one issue that says where, for an element that is malformed, that has no resource, or that asks for
/// what cannot be done.
pub(super) fn read(
    text: &Bytes,
    index: usize,
    at: Position,
    requests: Requests,
    limits: &tree::Limits,
) -> Result<Entry> {
    let bounds = tree::Limits {
        bytes_max: usize::MAX,
        depth_max: limits.depth_max.saturating_add(1),
        nodes_max: limits.nodes_max.saturating_add(NODES_BESIDE),
    };
    // Read once: the resource is a part of what is read here.
    let element = Place { start: at, index: Some(index), prefix: path(index) };
    let element_tree = Tree::parse(text.clone(), &bounds).map_err(|error| syntax(&error, &element))?;
    let place = |resource: Node<'_>| Place::entry(index, element.position(resource.position()));
    entry(&element_tree, index, &element, place, requests, limits)
}

/// Takes the element `index` of a Bundle that was read whole, and whose nodes know where they stand in the body.
///
/// # Errors
/// As [`read`].
pub(super) fn part(node: Node<'_>, index: usize, requests: Requests, limits: &tree::Limits) -> Result<Entry> {
    let element = Place { prefix: path(index), index: Some(index), ..Place::body() };
    let bounds = tree::Limits::default();
    let element_tree = node.tree().part(node.id(), &bounds).map_err(|error| syntax(&error, &element))?;
    let place = |_: Node<'_>| Place::entry(index, element.start);
    entry(&element_tree, index, &element, place, requests, limits)
}

fn path(index: usize) -> String {
    format!("Bundle.entry[{index}]")
}

/// Reads the element that is a tree of its own. `place` says from where the positions of its resource count.
fn entry(
    element_tree: &Tree,
    index: usize,
    element: &Place,
    place: impl Fn(Node<'_>) -> Place,
    requests: Requests,
    limits: &tree::Limits,
) -> Result<Entry> {
    let path = || path(index);
    let at = element.position(element_tree.root().position());
    let no = |node: Node<'_>| {
        let text = "an entry as FHIR R4 defines Bundle.entry";
        Err(malformed("bundle.entry", text, path(), element.position(node.position())))
    };
    let (mut resource, mut request, mut full_url) = (None, None, None);
    for member in element_tree.root().members() {
        match (member.name(), member.kind()) {
            (Some("resource"), _) => resource = Some(member),
            (Some("fullUrl"), Kind::String) => full_url = member.as_str(),
            (Some("request"), Kind::Object) => match raw_request(member) {
                Some(read) => request = Some(read),
                None => return no(member),
            },
            (Some("fullUrl" | "request"), Kind::Null) => {}
            (Some("id" | "extension" | "link" | "search" | "response"), _) => {}
            _ => return no(member),
        }
    }
    let Some(resource) = resource.filter(|it| it.kind() != Kind::Null) else {
        return Err(malformed("bundle.entry.resource", "an entry with a resource", path(), at));
    };
    let place = place(resource);
    let tree = element_tree.part(resource.id(), limits).map_err(|error| syntax(&error, &place))?;
    let resource_type = resource_type(&tree, &place)?;
    let interaction = match (requests, &request) {
        (Requests::Required, Some(request)) => interaction(request, &resource_type, &path, at)?,
        (Requests::Required, None) => {
            return Err(malformed("bundle.entry.request", "an entry with a request", path(), at));
        }
        (Requests::Absent, _) => Interaction::Keep,
    };
    Ok(Entry { tree, resource_type, interaction, full_url: full_url.map(|url| Arc::from(&*url)), place })
}

/// Parses a resource strictly.
///
/// # Errors
/// A refusal that says where, for what is not JSON within the limits or has no `resourceType`.
pub(super) fn parse(text: Bytes, place: &Place, limits: &tree::Limits) -> Result<(Tree, Arc<str>)> {
    let tree = Tree::parse(text, limits).map_err(|error| syntax(&error, place))?;
    let resource_type = resource_type(&tree, place)?;
    Ok((tree, resource_type))
}

pub(super) fn resource_type(tree: &Tree, place: &Place) -> Result<Arc<str>> {
    let Some(resource_type) = tree.resource_type() else {
        let text = "a FHIR resource: a JSON object with a resourceType";
        let path = if place.prefix.is_empty() { "Resource".to_owned() } else { place.prefix.clone() };
        return Err(malformed("structure.resource-type", text, path, place.start));
    };
    Ok(Arc::from(resource_type))
}

/// A request with the members that FHIR R4 gives it and no others; none otherwise.
fn raw_request(request: Node<'_>) -> Option<RawRequest<'_>> {
    let mut raw = RawRequest::default();
    let (mut method, mut url) = (None, None);
    for member in request.members() {
        let text = member.as_str();
        match (member.name()?, member.kind()) {
            ("method", Kind::String) => method = text,
            ("url", Kind::String) => url = text,
            ("ifNoneExist", Kind::String) => raw.if_none_exist = text,
            ("ifMatch", Kind::String) => raw.if_match = text,
            ("ifNoneExist" | "ifMatch" | "ifNoneMatch" | "ifModifiedSince", Kind::Null) => {}
            ("ifNoneMatch" | "ifModifiedSince", _) => raw.is_conditional_read = true,
            _ => return None,
        }
    }
    (raw.method, raw.url) = (method?, url?);
    Some(raw)
}

/// What a syntax error of a resource is in the body.
pub(super) fn syntax(error: &SyntaxError, place: &Place) -> Error {
    let issue = Issue {
        severity: Severity::Fatal,
        code: IssueType::Structure,
        rule: Cow::Borrowed("json"),
        expression: (!error.path.is_empty()).then(|| error.path.clone()),
        position: Some(error.position),
        // Without the error's own position, which counts from the resource and not from the body.
        text: error.kind.text().to_owned(),
        about: None,
    };
    Error::refused(Refusal::Malformed, vec![place.relocate(issue)])
}

/// A refusal (400) with one issue.
pub(super) fn malformed(rule: &'static str, text: &'static str, path: String, at: Position) -> Error {
    refusal(Refusal::Malformed, rule, text, path, at)
}

/// A refusal with one issue.
pub(super) fn refusal(
    refusal: Refusal,
    rule: &'static str,
    text: impl Into<String>,
    path: String,
    at: Position,
) -> Error {
    let face = crate::error::Kind::Refusal(refusal).face();
    let issue = Issue {
        severity: face.severity,
        code: face.issue,
        rule: Cow::Borrowed(rule),
        expression: Some(path),
        position: Some(at),
        text: text.into(),
        about: None,
    };
    Error::refused(refusal, vec![issue])
}

/// FHIR R4 http.html#transaction: which methods an entry may name, and what its `url` must be.
fn interaction(
    request: &RawRequest<'_>,
    resource_type: &str,
    path: &impl Fn() -> String,
    at: Position,
) -> Result<Interaction> {
    let no = |rule, text| Err(malformed(rule, text, format!("{}.request", path()), at));
    if request.is_conditional_read {
        return no("bundle.entry.request", "no ifNoneMatch or ifModifiedSince on a write");
    }
    let url = request.url.strip_prefix('/').unwrap_or(&request.url);
    match &*request.method {
        "POST" if url == resource_type => {
            Ok(Interaction::Create { if_none_exist: request.if_none_exist.as_deref().map(str::to_owned) })
        }
        "POST" => no("bundle.entry.request.url", "for POST, the type of the resource"),
        "PUT" => {
            let id = url.strip_prefix(resource_type).and_then(|rest| rest.strip_prefix('/'));
            let Some(id) = id.filter(|id| is_id(id)) else {
                return no("bundle.entry.request.url", "for PUT, [type]/[id] with the type of the resource");
            };
            let if_match = match request.if_match.as_deref().map(etag) {
                None => None,
                Some(Some(version)) => Some(version),
                Some(None) => return no("bundle.entry.request.ifMatch", "a weak ETag: W/\"[version]\""),
            };
            Ok(Interaction::Update { id: id.to_owned(), if_match })
        }
        _ => no("bundle.entry.request.method", "POST or PUT"),
    }
}

/// The version of a weak ETag `W/"3"` (FHIR R4 http.html#concurrency); a strong one with the same text is taken too.
pub fn etag(text: &str) -> Option<u64> {
    let text = text.strip_prefix("W/").unwrap_or(text);
    text.strip_prefix('"')?.strip_suffix('"')?.parse().ok()
}
