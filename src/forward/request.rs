//! What the upstream is asked.
//!
//! Takes: a staged unit. Gives: one request: a transaction Bundle to the base, or a POST or PUT of a resource. Never:
//! changes a resource but by the id that it gets, the operation's tags (`tag-probe`), and references to what came in the
//! same stream, which has an id of ours; never what may be signed.

use bytes::Bytes;
use sluice_fhir::bundle::Index;
use sluice_fhir::canonical;
use sluice_fhir::edit::Edits;
use sluice_fhir::reference;
use sluice_fhir::tree::{Kind, Node};

use crate::config::Resolve;
use crate::error::{Error, Result};
use crate::ingest::unit::{Interaction, Shape};
use crate::normalize::{Normalized, Resource};
use crate::stage::{Staged, carried};

/// The system of the tag that a unit is searched for by: the operation's id.
pub(super) const OPERATION: &str = "https://sluice.dev/fhir/operation";

/// The system of the tag that says which resource of its operation one is: its number, from 0.
pub(super) const ENTRY: &str = "https://sluice.dev/fhir/entry";

/// One HTTP request.
pub(super) struct Request {
    pub method: http::Method,
    /// Relative to the base: empty for a transaction.
    pub path: String,
    pub if_none_exist: Option<String>,
    pub if_match: Option<String>,
    pub body: Bytes,
}

/// What is asked for one resource.
pub(super) enum Ask<'a> {
    Post { if_none_exist: Option<&'a str> },
    Put { id: String, if_match: Option<u64> },
}

pub(super) fn ask<'a>(staged: &Staged, resource: &'a Resource, at: usize) -> Ask<'a> {
    if let Some(id) = staged.client_id(at) {
        return Ask::Put { id: id.to_owned(), if_match: None };
    }
    match resource.interaction() {
        Interaction::Create { if_none_exist } => Ask::Post { if_none_exist: if_none_exist.as_deref() },
        Interaction::Update { id, if_match } => Ask::Put { id: id.clone(), if_match: *if_match },
        Interaction::Keep => match carried(resource) {
            Some(id) => Ask::Put { id, if_match: None },
            None => Ask::Post { if_none_exist: None },
        },
    }
}

/// `matches` are the versions that must be the current ones where resources are written over, besides what the sender
/// demands: none of any the first time.
pub(super) fn of(staged: &Staged, resolve: Resolve, matches: &[Option<String>]) -> Result<Request> {
    let unit = staged.permitted().checked().normalized();
    let index = unit.index();
    let tag = (resolve == Resolve::TagProbe && unit.shape() != Shape::Sealed).then(|| staged.operation().to_string());
    if unit.shape() == Shape::Transaction {
        let mut body = br#"{"resourceType":"Bundle","type":"transaction","entry":["#.to_vec();
        for (at, resource) in unit.resources().iter().enumerate() {
            if at > 0 {
                body.push(b',');
            }
            let matched = matches.get(at).and_then(Option::as_deref);
            entry(&mut body, staged, (resource, at), matched, &told(staged, unit, &index, at, tag.as_deref()));
        }
        body.extend_from_slice(b"]}");
        let method = http::Method::POST;
        return Ok(Request { method, path: String::new(), if_none_exist: None, if_match: None, body: body.into() });
    }
    let resource = unit.resources().first().ok_or_else(|| Error::defect("a unit without a resource"))?;
    let body = told(staged, unit, &index, 0, tag.as_deref());
    let resource_type = resource.resource_type();
    Ok(match ask(staged, resource, 0) {
        Ask::Post { if_none_exist } => Request {
            method: http::Method::POST,
            path: resource_type.to_string(),
            if_none_exist: if_none_exist.map(str::to_owned),
            if_match: None,
            body,
        },
        Ask::Put { id, if_match } => Request {
            method: http::Method::PUT,
            path: format!("{resource_type}/{id}"),
            if_none_exist: None,
            if_match: matching(if_match, matches.first().and_then(Option::as_deref)),
            body,
        },
    })
}

/// The version that must be the current one.
fn matching(asked: Option<u64>, matched: Option<&str>) -> Option<String> {
    asked.map(|it| it.to_string()).or_else(|| matched.map(str::to_owned))
}

/// One entry of a transaction (FHIR R4 http.html#transaction).
fn entry(body: &mut Vec<u8>, staged: &Staged, (resource, at): (&Resource, usize), matched: Option<&str>, told: &[u8]) {
    let resource_type = resource.resource_type();
    body.push(b'{');
    if let Some(full_url) = resource.full_url() {
        body.extend_from_slice(b"\"fullUrl\":");
        body.extend_from_slice(canonical::string(full_url).as_bytes());
        body.push(b',');
    }
    body.extend_from_slice(b"\"resource\":");
    body.extend_from_slice(told);
    body.extend_from_slice(b",\"request\":{\"method\":");
    match ask(staged, resource, at) {
        Ask::Post { if_none_exist } => {
            body.extend_from_slice(b"\"POST\",\"url\":");
            body.extend_from_slice(canonical::string(resource_type).as_bytes());
            if let Some(query) = if_none_exist {
                body.extend_from_slice(b",\"ifNoneExist\":");
                body.extend_from_slice(canonical::string(query).as_bytes());
            }
        }
        Ask::Put { id, if_match } => {
            body.extend_from_slice(b"\"PUT\",\"url\":");
            body.extend_from_slice(canonical::string(&format!("{resource_type}/{id}")).as_bytes());
            if let Some(version) = matching(if_match, matched) {
                body.extend_from_slice(b",\"ifMatch\":");
                body.extend_from_slice(canonical::string(&format!("W/\"{version}\"")).as_bytes());
            }
        }
    }
    body.extend_from_slice(b"}}");
}

/// The bytes of a resource as the upstream gets them.
fn told(staged: &Staged, unit: &Normalized, index: &Index, at: usize, tag: Option<&str>) -> Bytes {
    let Some(resource) = unit.resources().get(at) else { return Bytes::new() };
    let tree = resource.tree();
    if unit.shape() == Shape::Sealed {
        return tree.bytes().clone();
    }
    let root = tree.root();
    let mut edits = Edits::new(tree);
    if let Some(id) = staged.client_id(at) {
        match root.member("id") {
            Some(node) => edits.set_str(node, id),
            None => edits.insert_member(root, "id", format!("\"{id}\"").into_bytes()),
        }
    }
    if let Some(operation) = tag {
        tagged(root, operation, at, &mut edits);
    }
    if let Some(neighbours) = unit.neighbours() {
        for node in reference::all(root) {
            let Some(text) = node.as_str() else { continue };
            if let Some(neighbour) = neighbours.meant(&text, index.resolve(&text, at)) {
                edits.set_str(node, &format!("{}/{}", neighbour.resource_type, neighbour.id));
            }
        }
    }
    edits.apply(tree)
}

fn tagged(root: Node<'_>, operation: &str, at: usize, edits: &mut Edits) {
    let tags = [
        format!(r#"{{"system":"{OPERATION}","code":"{operation}"}}"#),
        format!(r#"{{"system":"{ENTRY}","code":"{at}"}}"#),
    ];
    let meta = root.member("meta").filter(|it| it.kind() == Kind::Object);
    match (meta, meta.and_then(|it| it.member("tag")).filter(|it| it.kind() == Kind::Array)) {
        (_, Some(array)) => tags.into_iter().for_each(|tag| edits.append_item(array, tag.into_bytes())),
        (Some(meta), None) => edits.insert_member(meta, "tag", format!("[{}]", tags.join(","))),
        (None, None) => edits.insert_member(root, "meta", format!(r#"{{"tag":[{}]}}"#, tags.join(","))),
    }
}
