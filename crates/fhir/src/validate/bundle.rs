//! Bundles, by what FHIR R4 bundle.html says of each type: full URLs, links, what a search gives, and what a document or a message
//! holds together. Linear in the Bundle; what only documents and messages need is built for them alone.

use std::collections::HashSet;

use super::rules;
use super::walk::Walk;
use crate::bundle::{Index, Reason, Target};
use crate::reference::{self, Reference};
use crate::resource_type::is_type;
use crate::tree::Node;

/// Members whose URLs name no resource.
const NO_LINKS: [&str; 6] = ["system", "fullUrl", "profile", "url", "endpoint", "address"];

impl<'t> Walk<'_, 't> {
    pub(super) fn bundle(&mut self, bundle: Node<'t>) {
        let kind = bundle.member("type").and_then(Node::as_str).unwrap_or_default();
        self.bundle_links(bundle, &kind);
        let is_exchange = matches!(&*kind, "transaction" | "transaction-response" | "batch" | "batch-response");
        for entry in items(bundle, "entry") {
            if self.is_full() {
                return;
            }
            self.full_url(entry, is_exchange);
        }
        match &*kind {
            "searchset" => self.search_set(bundle),
            "document" | "message" => self.held_together(bundle, &kind == "document"),
            _ => {}
        }
    }

    /// What looks like the URL of a resource on a server ends with the type and the id of its resource.
    fn full_url(&mut self, entry: Node<'t>, is_exchange: bool) {
        let Some(url) = entry.member("fullUrl").and_then(Node::as_str) else {
            let is_outcome = entry.find(&["search", "mode"]).any(|mode| mode.is_str("outcome"));
            if !is_exchange && !is_outcome && entry.member("_fullUrl").is_none() {
                self.issue(&rules::FULL_URL, entry, "Expected a fullUrl; only a transaction or batch may go without");
            }
            return;
        };
        let resource = entry.member("resource");
        match reference::parse(&url) {
            Reference::Absolute { resource_type, id, .. } => {
                let Some(resource) = resource else { return };
                let own = resource.member("id").and_then(Node::as_str);
                // The server gives the id of what it is to create.
                let is_new = is_exchange && entry.find(&["request", "method"]).any(|method| method.is_str("POST"));
                if own.is_none() && !is_new {
                    let text = "Expected a resource with an id, since the fullUrl is that of a resource on a server";
                    self.issue(&rules::FULL_URL, entry, text);
                } else if own.is_some_and(|own| own != id) || resource.resource_type() != Some(resource_type) {
                    let text = "Expected a fullUrl that ends with the type and the id of the resource";
                    self.issue(&rules::FULL_URL, entry, text);
                }
            }
            Reference::Urn(_) => {}
            _ if !is_absolute(&url) => self.issue(&rules::FULL_URL, entry, "Expected an absolute URL as fullUrl"),
            _ => {
                // The canonical of a definition is not where it is on a server.
                let canonical = resource.and_then(|resource| resource.member("url")).and_then(Node::as_str);
                if canonical.is_some_and(|canonical| canonical == url && !is_old(&canonical)) {
                    let text = "Expected a fullUrl that ends with the type and the id of the resource";
                    self.issue(&rules::FULL_URL, entry, text);
                }
            }
        }
    }

    /// Each relation occurs once, and those of pages stand in searches and histories only.
    fn bundle_links(&mut self, bundle: Node<'t>, kind: &str) {
        let is_paged = matches!(kind, "searchset" | "history");
        let mut seen: Vec<&str> = Vec::new();
        for link in items(bundle, "link") {
            let Some((at, relation)) = link.member("relation").and_then(|at| Some((at, at.as_str()?))) else {
                continue;
            };
            let Some(known) =
                ["self", "first", "previous", "next", "last"].into_iter().find(|known| *known == relation)
            else {
                continue;
            };
            if !is_paged && known != "self" {
                self.issue(
                    &rules::BUNDLE_LINK,
                    at,
                    "Expected no links to pages: only searches and histories have them",
                );
            } else if seen.contains(&known) {
                let text = "Expected each relation once";
                self.issue(&rules::BUNDLE_LINK, if is_paged { link } else { at }, text);
            } else {
                seen.push(known);
            }
            if self.is_full() {
                return;
            }
        }
    }

    /// Each entry of a search is what its mode says.
    fn search_set(&mut self, bundle: Node<'t>) {
        let own = items(bundle, "link").find(|link| link.member("relation").is_some_and(|at| at.is_str("self")));
        let url = own.and_then(|link| link.member("url")).and_then(Node::as_str).unwrap_or_default();
        let asked = asked_types(&url);
        for entry in items(bundle, "entry") {
            if self.is_full() {
                return;
            }
            let Some(resource) = entry.member("resource") else {
                self.issue(&rules::SEARCH_ENTRY, entry, "Expected a resource in each entry of a search");
                continue;
            };
            let mode = entry.member("search").and_then(|search| search.member("mode")).and_then(Node::as_str);
            let name = resource.resource_type().unwrap_or_default();
            match mode.as_deref() {
                Some(mode @ ("match" | "include")) => {
                    if resource.member("id").is_none() {
                        self.issue(&rules::SEARCH_ENTRY, resource, "Expected resources with ids: they are on a server");
                    }
                    if mode == "match" && !asked.is_empty() && !asked.contains(name) {
                        let text = "Expected a resource of a type that was searched for";
                        self.issue(&rules::SEARCH_ENTRY, resource, text);
                    }
                }
                Some("outcome") if name != "OperationOutcome" => {
                    self.issue(&rules::SEARCH_ENTRY, resource, "Expected an OperationOutcome as outcome of a search");
                }
                _ => {}
            }
        }
    }

    /// What a document or a message begins with refers to what is in it, and all that is in it is reached from there.
    fn held_together(&mut self, bundle: Node<'t>, is_document: bool) {
        let entries: Vec<Node<'t>> = items(bundle, "entry").collect();
        let Some(first) = entries.first().and_then(|entry| entry.member("resource")) else { return };
        let index = Index::new(bundle);
        let known: HashSet<String> = entries.iter().filter_map(|entry| own_name(entry.member("resource")?)).collect();
        let begins = if is_document { "Composition" } else { "MessageHeader" };
        if first.resource_type() == Some(begins) {
            self.must_resolve(&index, &known, first, is_document);
        }
        let mut targets: Vec<Vec<usize>> = Vec::with_capacity(entries.len());
        for (number, entry) in entries.iter().enumerate() {
            let Some(resource) = entry.member("resource") else {
                targets.push(Vec::new());
                continue;
            };
            targets.push(targets_of(&index, resource, number));
            for node in reference::all(resource) {
                // What the Bundle has, but not by the name that this reference means.
                if let (Some(text), Some(at)) = (node.as_str(), node.parent())
                    && matches!(index.resolve(&text, number), Target::Local { .. })
                    && known.contains(text.split_once("/_history/").map_or(&*text, |(current, _)| current))
                {
                    let text =
                        "Expected a reference that goes with the fullUrls: the resource is in the Bundle under another";
                    self.issue(&rules::BUNDLE_REFERENCE, at, text);
                }
            }
        }
        let mut reached = vec![false; entries.len()];
        let mut open = vec![0];
        let mut back: Vec<Vec<usize>> = vec![Vec::new(); entries.len()];
        for (from, to) in targets.iter().enumerate() {
            for &to in to {
                if let Some(back) = back.get_mut(to) {
                    back.push(from);
                }
            }
        }
        // Forward from the first entry, and to whatever points to what was reached.
        while let Some(at) = open.pop() {
            if reached.get(at).is_none_or(|reached| *reached) {
                continue;
            }
            reached[at] = true;
            open.extend(targets[at].iter().chain(&back[at]));
        }
        let sheets: HashSet<_> = items(bundle, "link")
            .filter(|link| link.member("relation").is_some_and(|at| at.is_str("stylesheet")))
            .filter_map(|link| link.member("url")?.as_str())
            .collect();
        for (entry, _) in entries.iter().zip(reached).filter(|(_, reached)| !reached) {
            let Some(resource) = entry.member("resource") else { continue };
            let own = own_name(resource).unwrap_or_default();
            if sheets.contains(&*own) {
                continue;
            }
            if self.is_full() {
                return;
            }
            if is_document {
                let text = "Expected an entry that is reached by references from the Composition, or refers to such";
                self.issue(&rules::DOCUMENT_UNREACHED, *entry, text);
            } else {
                let text = "Expected an entry that is reached by references from the MessageHeader, or refers to such";
                self.issue(&rules::MESSAGE_UNREACHED, *entry, text);
            }
        }
    }

    /// References of the Composition, or of the MessageHeader, that the Bundle must hold the targets of.
    fn must_resolve(&mut self, index: &Index, known: &HashSet<String>, first: Node<'t>, is_document: bool) {
        let mut open: Vec<Node<'t>> = Vec::new();
        if is_document {
            for name in ["subject", "author", "encounter", "custodian"] {
                open.extend(first.find(&[name]));
            }
            open.extend(first.find(&["attester", "party"]));
            open.extend(first.find(&["event", "detail"]));
            let mut sections: Vec<Node<'t>> = items(first, "section").collect();
            while let Some(section) = sections.pop() {
                for name in ["author", "focus", "entry"] {
                    open.extend(section.find(&[name]));
                }
                sections.extend(items(section, "section"));
            }
            open.sort_by_key(|node| node.id());
        } else {
            open.extend(first.find(&["focus"]));
        }
        for node in open {
            let Some(text) = node.member("reference").and_then(Node::as_str).filter(|text| !text.starts_with('#'))
            else {
                continue;
            };
            match index.resolve(&text, 0) {
                Target::Entry(_) | Target::Contained(_) | Target::Logical => {}
                Target::Unresolvable(Reason::Ambiguous) => {
                    self.issue(&rules::BUNDLE_REFERENCE, node, "Expected a reference to one entry only");
                }
                Target::Local { .. } if known.contains(&*text) => {}
                _ => self.issue(&rules::BUNDLE_REFERENCE, node, "Expected a reference to an entry of the Bundle"),
            }
        }
    }
}

fn items<'t>(node: Node<'t>, name: &str) -> impl Iterator<Item = Node<'t>> {
    node.member(name).into_iter().flat_map(Node::items)
}

fn is_absolute(url: &str) -> bool {
    url.split_once(':').is_some_and(|(scheme, rest)| {
        !rest.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    })
}

/// Code systems and value sets of before HL7's terminology had a server of its own.
fn is_old(canonical: &str) -> bool {
    canonical.starts_with("http://hl7.org/fhir/v3/") || canonical.starts_with("http://hl7.org/fhir/v2/")
}

/// The resource types that a search asks for; none if that can't be told.
fn asked_types(url: &str) -> HashSet<&str> {
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let last = path.rsplit('/').next().unwrap_or_default();
    if is_type(last) {
        return HashSet::from([last]);
    }
    let types = query.split('&').filter_map(|parameter| parameter.strip_prefix("_type="));
    // A comma may be written as %2C.
    let types: HashSet<&str> = types
        .flat_map(|types| types.split(','))
        .flat_map(|types| types.split("%2C"))
        .flat_map(|types| types.split("%2c"))
        .collect();
    if types.iter().all(|name| is_type(name)) { types } else { HashSet::new() }
}

/// The type and id of a resource, as a relative reference has them.
fn own_name(resource: Node<'_>) -> Option<String> {
    Some(format!("{}/{}", resource.resource_type()?, resource.member("id")?.as_str()?))
}

/// The other entries that a resource refers to, by references and by URLs.
fn targets_of(index: &Index, resource: Node<'_>, number: usize) -> Vec<usize> {
    let references = reference::all(resource);
    let links = resource.descendants().filter(|node| {
        let is_url = [&b"\"urn:"[..], b"\"http"].iter().any(|begin| node.raw().starts_with(begin));
        is_url && node.name().is_none_or(|name| !NO_LINKS.contains(&name))
    });
    let mut targets: Vec<usize> = references
        .chain(links)
        .filter_map(|node| {
            let text = node.as_str()?;
            let text =
                text.split_once('#').filter(|(before, _)| !before.is_empty()).map_or(&*text, |(before, _)| before);
            match index.resolve(text, number) {
                Target::Entry(entry) if entry != number => Some(entry),
                _ => None,
            }
        })
        .collect();
    targets.sort_unstable();
    targets.dedup();
    targets
}
