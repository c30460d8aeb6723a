//! References made whole.
//!
//! Takes: the texts of references. Gives: absolute URLs of the tenant's own as relative ones, `urn:uuid` in lower case,
//! no white space around. Never: touches a reference to what came in the same unit or stream under that very name, nor
//! changes what a reference means: next to an entry of another server, a relative reference would be that server's.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::HashSet;
use std::sync::Arc;

use serde::Deserialize;
use sluice_fhir::reference::{self, Reference};
use sluice_fhir::tree::Node;

use super::identifiers::Identifiers;
use super::overlay::Overlay;
use super::table::Wrong;
use crate::ingest::neighbours::Neighbours;

/// A pack, as written; mappings/schema/references.json describes it.
#[derive(Deserialize)]
pub(super) struct Written {
    #[serde(default)]
    bases: Vec<String>,
}

/// Whose URLs are our own.
#[derive(Debug, Default)]
pub(super) struct References {
    /// Without a slash at the end; the tenant's own first.
    bases: Vec<String>,
    pack: Option<usize>,
}

/// What else came in the unit and its stream.
pub(super) struct Company<'a> {
    pub full_urls: &'a [Option<Arc<str>>],
    pub neighbours: Option<&'a Neighbours>,
    set: OnceCell<HashSet<&'a str>>,
}

impl<'a> Company<'a> {
    pub(super) fn new(full_urls: &'a [Option<Arc<str>>], neighbours: Option<&'a Neighbours>) -> Self {
        Self { full_urls, neighbours, set: OnceCell::new() }
    }

    /// Whether something came under this name.
    fn has(&self, url: &str) -> bool {
        let full_urls = || self.full_urls.iter().flatten().map(|it| &**it).collect();
        let url = url.split_once("/_history/").map_or(url, |(url, _)| url);
        self.set.get_or_init(full_urls).contains(url) || self.neighbours.is_some_and(|it| it.find(url).is_some())
    }
}

impl References {
    pub(super) fn of(base: &str) -> Self {
        Self { bases: vec![base.trim_end_matches('/').to_owned()], pack: None }
    }

    pub(super) fn add(&mut self, pack: usize, written: &Written) -> Result<(), Wrong> {
        if self.pack.replace(pack).is_some() {
            return Err(("/kind".to_owned(), "one pack of the kind `references`".to_owned()));
        }
        self.bases.extend(written.bases.iter().map(|it| it.trim_end_matches('/').to_owned()));
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pack.is_none()
    }

    /// Every reference of a resource: its text, and the search that it may be.
    pub(super) fn apply(
        &self,
        root: Node<'_>,
        full_url: Option<&str>,
        company: &Company<'_>,
        identifiers: &Identifiers,
        overlay: &mut Overlay,
    ) {
        for node in reference::all(root) {
            let Some(text) = node.as_str() else { continue };
            let whole = self.whole(&text, full_url, company);
            let mut becomes = whole.map(|(text, pack)| (text.into_owned(), pack));
            let now = becomes.as_ref().map_or(&*text, |(text, _)| text);
            if let Reference::Conditional { resource_type, query } = reference::parse(now)
                && let Some((query, pack)) = identifiers.query(query)
            {
                if let Some((_, pack)) = becomes {
                    overlay.packs.insert(pack);
                }
                becomes = Some((format!("{resource_type}?{query}"), pack));
            }
            if let Some((becomes, pack)) = becomes {
                overlay.set(node, &becomes, pack);
            }
        }
    }

    /// The text of a reference made whole; none if it is.
    fn whole<'t>(&self, text: &'t str, full_url: Option<&str>, company: &Company<'_>) -> Option<(Cow<'t, str>, usize)> {
        let pack = self.pack?;
        let trimmed = text.trim();
        if trimmed.is_empty() || company.has(text) {
            return None;
        }
        if let Some(lower) = lower_urn(trimmed) {
            return Some((lower.into(), pack));
        }
        if let Reference::Absolute { base, .. } = reference::parse(trimmed)
            && self.is_own(base)
            && !company.has(trimmed)
            && self.may_be_relative(full_url)
        {
            return Some((trimmed[base.len() + 1..].into(), pack));
        }
        (trimmed.len() < text.len()).then_some((trimmed.into(), pack))
    }

    fn is_own(&self, base: &str) -> bool {
        self.bases.iter().any(|own| own == base)
    }

    /// Whether a relative reference of this entry is relative to us (FHIR R4 bundle.html#references).
    fn may_be_relative(&self, full_url: Option<&str>) -> bool {
        match full_url.map(reference::parse) {
            Some(Reference::Absolute { base, .. }) => self.is_own(base),
            _ => true,
        }
    }

    /// The `fullUrl` of an entry in the form that references to it get; none if it has it. Names that a first pass over
    /// a stream has noted stay.
    pub(super) fn full_url(&self, full_url: &str, neighbours: Option<&Neighbours>) -> Option<Arc<str>> {
        self.pack?;
        if neighbours.is_some_and(|it| it.find(full_url).is_some()) {
            return None;
        }
        lower_urn(full_url.trim()).map(Arc::from)
    }
}

/// RFC 4122 §3: output in lower case. None if it is no `urn:uuid`, or is in lower case.
fn lower_urn(text: &str) -> Option<String> {
    let is_uuid = text.get(..9).is_some_and(|it| it.eq_ignore_ascii_case("urn:uuid:"));
    (is_uuid && text.bytes().any(|it| it.is_ascii_uppercase())).then(|| text.to_ascii_lowercase())
}
