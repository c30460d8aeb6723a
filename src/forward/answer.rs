//! What the upstream answers.
//!
//! Takes: status, headers and body of its answer. Gives: where each resource stands, or the refusal. Never: takes for a
//! yes what does not say where every resource is; hands on more of its words than a bounded text for the sender.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use sluice_fhir::outcome::{Issue, Severity};
use sluice_fhir::tree::{Limits, Node, Tree};

use super::{Located, Told};
use crate::error::{Error, Kind, Refusal};
use crate::ingest::unit::Shape;
use crate::normalize::Normalized;
use sluice_fhir::reference::is_id;

/// Issues handed on at most, and characters of each.
const ISSUES_MAX: usize = 20;
const TEXT_CHARS_MAX: usize = 500;

/// Reads an answer to a unit.
pub(super) fn read(unit: &Normalized, put: Option<&str>, status: StatusCode, headers: &HeaderMap, body: Bytes) -> Told {
    match status.as_u16() {
        200 | 201 => {
            let located = if unit.shape() == Shape::Transaction {
                transaction(unit, body)
            } else {
                single(unit, put, status.as_u16(), headers, body).map(|it| vec![it])
            };
            // It said yes to something: what, must be found out.
            located.map_or(Told::Silent("the upstream's yes does not say where the resources are"), Told::Located)
        }
        // Redirects are not followed, and it has not done what it redirects.
        300..=399 => Told::Untold("the upstream redirects, which is not followed"),
        401 | 407 => Told::Untold("the upstream does not accept the gateway's credentials"),
        429 => Told::Untold("the upstream is over its limit"),
        // It may have done it before it gave up waiting.
        408 => Told::Silent("the upstream gave up on the request"),
        400..=499 => Told::Refused(refusal(status, body)),
        501 => Told::Untold("the upstream does not know the request"),
        _ => Told::Silent("the upstream failed"),
    }
}

/// One resource: id and version stand in `Location` and `ETag` (FHIR R4 http.html#create, #update).
fn single(unit: &Normalized, put: Option<&str>, status: u16, headers: &HeaderMap, body: Bytes) -> Option<Located> {
    let resource_type = unit.resources().first()?.resource_type();
    let header = |name| headers.get(name).and_then(|it| it.to_str().ok());
    let place = header(header::LOCATION).or_else(|| header(header::CONTENT_LOCATION));
    let (mut id, mut version) = place.map_or((None, None), |it| location(resource_type, it));
    version = header(header::ETAG).and_then(etag).or(version);
    let tree = Tree::parse(body, &Limits::default()).ok();
    let root = tree
        .as_ref()
        .map(Tree::root)
        .filter(|it| it.member("resourceType").and_then(Node::as_str).as_deref() == Some(resource_type));
    let text = |name: &str| root.and_then(|it| it.member(name)).and_then(Node::as_str).map(Cow::into_owned);
    id = put.map(str::to_owned).or(id).or_else(|| text("id"));
    let meta = |name: &str| root.and_then(|it| it.member("meta")).and_then(|it| it.member(name)).and_then(Node::as_str);
    Some(Located {
        status,
        id: id.filter(|it| is_id(it))?,
        version: version.or_else(|| meta("versionId").map(Cow::into_owned)),
        last_modified: meta("lastUpdated").map(Cow::into_owned),
    })
}

/// A `transaction-response`: an entry for each entry, in order.
fn transaction(unit: &Normalized, body: Bytes) -> Option<Vec<Located>> {
    let tree = Tree::parse(body, &Limits::default()).ok()?;
    let root = tree.root();
    if root.member("type")?.as_str()? != "transaction-response" {
        return None;
    }
    let entries: Vec<Node<'_>> = root.member("entry")?.items().collect();
    if entries.len() != unit.resources().len() {
        return None;
    }
    let located = entries.iter().zip(unit.resources()).map(|(entry, resource)| {
        let response = entry.member("response")?;
        let text = |name: &str| response.member(name).and_then(Node::as_str).map(Cow::into_owned);
        let status: u16 = text("status")?.get(..3)?.parse().ok()?;
        let (id, version) = location(resource.resource_type(), &text("location")?);
        if !matches!(status, 200 | 201) {
            return None;
        }
        Some(Located {
            status,
            id: id.filter(|it| is_id(it))?,
            version: text("etag").as_deref().and_then(etag).or(version),
            last_modified: text("lastModified"),
        })
    });
    located.collect()
}

/// Id and version in `[base/]Type/id[/_history/version]`.
fn location(resource_type: &str, text: &str) -> (Option<String>, Option<String>) {
    let mut parts = text.split('/').skip_while(|part| *part != resource_type).skip(1);
    let id = parts.next().map(str::to_owned);
    let version = parts.next().filter(|it| *it == "_history").and_then(|_| parts.next()).map(str::to_owned);
    (id, version)
}

/// `W/"3"` is version 3 (FHIR R4 http.html#versioning).
pub(super) fn etag(text: &str) -> Option<String> {
    let text = text.strip_prefix("W/").unwrap_or(text);
    let version = text.strip_prefix('"')?.strip_suffix('"')?;
    is_id(version).then(|| version.to_owned())
}

/// The refusal with the upstream's own words, for the sender alone: they may repeat what was sent.
fn refusal(status: StatusCode, body: Bytes) -> Error {
    let refusal = match status.as_u16() {
        403 => Refusal::Forbidden,
        404 => Refusal::NotFound,
        405 => Refusal::Method,
        406 => Refusal::NotAcceptable,
        409 => Refusal::Conflict,
        410 => Refusal::Gone,
        412 => Refusal::Precondition,
        413 => Refusal::TooLarge,
        415 => Refusal::UnsupportedMedia,
        422 => Refusal::Invalid,
        _ => Refusal::Malformed,
    };
    let code = Kind::Refusal(refusal).face().issue;
    let issue = |severity, text: String, expression: Option<String>| Issue {
        severity,
        code,
        rule: Cow::Borrowed("upstream"),
        expression,
        position: None,
        text,
        about: None,
    };
    let tree = Tree::parse(body, &Limits::default()).ok();
    let mut issues = Vec::new();
    if let Some(tree) = tree.as_ref().filter(|it| it.resource_type() == Some("OperationOutcome")) {
        for node in tree.root().find(&["issue"]).take(ISSUES_MAX) {
            let severity = match node.member("severity").and_then(Node::as_str).as_deref() {
                Some("fatal") => Severity::Fatal,
                Some("warning") => Severity::Warning,
                Some("information") => Severity::Information,
                _ => Severity::Error,
            };
            let said = node.member("diagnostics").or_else(|| node.find(&["details", "text"]).next());
            let said = said.and_then(Node::as_str).unwrap_or(Cow::Borrowed("refused by the FHIR server"));
            let place = node.find(&["expression"]).next().and_then(Node::as_str);
            issues.push(issue(severity, bounded(&said), place.map(|it| bounded(&it))));
        }
    }
    if issues.is_empty() {
        issues.push(issue(Severity::Error, "what the FHIR server behind the gateway accepts".to_owned(), None));
    }
    Error::refused(refusal, issues)
}

fn bounded(text: &str) -> String {
    text.chars().filter(|it| !it.is_control()).take(TEXT_CHARS_MAX).collect()
}
