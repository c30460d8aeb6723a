//! Reads one element of `Bundle.entry`, one line of NDJSON, or a resource sent alone.
//!
//! Takes: its text and where it stood. Gives: an [`Entry`], strictly parsed. Never: looks at what the resource says
//! beyond `resourceType` and `id`.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use sluice_fhir::outcome::{Issue, IssueType, Severity};
use sluice_fhir::reference::is_id;
use sluice_fhir::tree::{self, Position, SyntaxError, Tree};

use super::unit::{Entry, Interaction, Place};
use crate::error::{Error, Refusal, Result};

/// The element as it stands. FHIR R4 gives it these members and no others.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the members that a request does not use are named so that unknown ones are refused")]
struct RawEntry<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    extension: Option<&'a RawValue>,
    #[serde(borrow)]
    link: Option<&'a RawValue>,
    #[serde(borrow, rename = "fullUrl")]
    full_url: Option<Cow<'a, str>>,
    #[serde(borrow)]
    resource: Option<&'a RawValue>,
    #[serde(borrow)]
    search: Option<&'a RawValue>,
    #[serde(borrow)]
    request: Option<RawRequest<'a>>,
    #[serde(borrow)]
    response: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRequest<'a> {
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow)]
    url: Cow<'a, str>,
    #[serde(borrow, rename = "ifNoneExist")]
    if_none_exist: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "ifMatch")]
    if_match: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "ifNoneMatch")]
    if_none_match: Option<&'a RawValue>,
    #[serde(borrow, rename = "ifModifiedSince")]
    if_modified_since: Option<&'a RawValue>,
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
    let path = || format!("Bundle.entry[{index}]");
    let raw: RawEntry<'_> = serde_json::from_slice(text).map_err(|error| {
        let line = u32::try_from(error.line()).unwrap_or(1);
        let column = u32::try_from(error.column()).unwrap_or(1);
        let place = Place { start: at, index: None, prefix: String::new() };
        let position = place.position(Position { line: line.max(1), column: column.max(1) });
        malformed("bundle.entry", "an entry as FHIR R4 defines Bundle.entry", path(), position)
    })?;
    let Some(resource) = raw.resource else {
        return Err(malformed("bundle.entry.resource", "an entry with a resource", path(), at));
    };
    let resource = text.slice_ref(resource.get().as_bytes());
    let offset = resource.as_ptr() as usize - text.as_ptr() as usize;
    let place = Place::entry(index, advance(at, &text[..offset]));
    let (tree, resource_type) = parse(resource, &place, limits)?;
    let interaction = match (requests, &raw.request) {
        (Requests::Required, Some(request)) => interaction(request, &resource_type, &path, at)?,
        (Requests::Required, None) => {
            return Err(malformed("bundle.entry.request", "an entry with a request", path(), at));
        }
        (Requests::Absent, _) => Interaction::Keep,
    };
    Ok(Entry { tree, resource_type, interaction, full_url: raw.full_url.map(|url| Arc::from(&*url)), place })
}

/// Parses a resource strictly.
///
/// # Errors
/// A refusal that says where, for what is not JSON within the limits or has no `resourceType`.
pub(super) fn parse(text: Bytes, place: &Place, limits: &tree::Limits) -> Result<(Tree, Arc<str>)> {
    let tree = Tree::parse(text, limits).map_err(|error| syntax(&error, place))?;
    let resource_type = tree.resource_type().map(Arc::from);
    let Some(resource_type) = resource_type else {
        let text = "a FHIR resource: a JSON object with a resourceType";
        let path = if place.prefix.is_empty() { "Resource".to_owned() } else { place.prefix.clone() };
        return Err(malformed("structure.resource-type", text, path, place.start));
    };
    Ok((tree, resource_type))
}

/// What a syntax error of a resource is in the body.
pub(super) fn syntax(error: &SyntaxError, place: &Place) -> Error {
    let issue = Issue {
        severity: Severity::Fatal,
        code: IssueType::Structure,
        rule: Cow::Borrowed("json"),
        expression: (!error.path.is_empty()).then(|| error.path.clone()),
        position: Some(error.position),
        text: error.to_string(),
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
    if request.if_none_match.is_some() || request.if_modified_since.is_some() {
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

/// The position after `text` that starts at `at`.
fn advance(at: Position, text: &[u8]) -> Position {
    let mut position = at;
    for byte in text {
        if *byte == b'\n' {
            position = Position { line: position.line + 1, column: 1 };
        } else if byte & 0xC0 != 0x80 {
            position.column += 1;
        }
    }
    position
}
