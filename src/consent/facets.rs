//! What a decision needs to know of a resource, drawn from its tree once.
//!
//! Takes one resource (a Bundle goes entry by entry, see [`Surroundings`]), gives keys and spans: no text of the record
//! stays but the references of its patients. What is absent or can't be read is marked so, since a denial can't be ruled
//! out by what is not known and a permit can't be claimed by it.

mod subjects;
mod table;

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::HashMap;

use bytes::Bytes;
use sluice_fhir::datetime::{DateTime, Point, Span};
use sluice_fhir::tree::{Limits, Node, Tree};

use super::codes::{ACT_CODE, CONFIDENTIALITY, Key, RESOURCE_TYPES, confidentiality_level, unversioned};
pub use subjects::{Subject, Subjects};

/// A path of member names from the root of a resource, arrays flattened.
type Path = &'static [&'static str];

/// Whether a type is about patients.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// In the Patient compartment.
    Compartment,
    /// Not in the compartment, but it may hold or tell of anything, and so it must name a patient as well.
    Indirect,
    /// Not about patients, unless it refers to one.
    Apart,
}

/// What a type says by which element.
struct Type {
    name: &'static str,
    kind: Kind,
    /// Elements of the compartment whose reference says whose the record is.
    subjects: &'static [Path],
    /// Elements of the compartment that may name a patient in another part.
    participants: &'static [Path],
    codes: &'static [Path],
    dates: &'static [Path],
    /// Where none of `dates` is there.
    dates_else: &'static [Path],
    authors: &'static [Path],
}

/// Keys, and whether there may be more than could be read.
#[derive(Clone, Debug, Default)]
pub(super) struct Keys {
    pub(super) keys: Vec<Key>,
    pub(super) incomplete: bool,
}

/// The security labels of a resource.
#[derive(Clone, Debug, Default)]
pub(super) struct Labels {
    /// All but the levels of confidentiality.
    pub(super) codes: Vec<Key>,
    /// The highest level: the high-water mark.
    pub(super) level: Option<u8>,
    /// Somebody looked at the record: it has a level or a sensitivity.
    pub(super) labelled: bool,
    /// A label that can't be read may be any.
    pub(super) unreadable: bool,
}

/// When a record happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// From the first clinical time given to the last.
    At(Span),
    /// No clinical time is given, or one that can't be placed on the time line.
    Unknown,
}

/// What a decision needs to know of a resource.
#[derive(Clone)]
pub struct Facets {
    pub(super) class: Key,
    /// Names of the record itself; none if it has no id.
    pub(super) instance: Vec<Key>,
    /// The record is new: no rule can have named it.
    pub(super) is_new: bool,
    pub(super) subjects: Subjects,
    pub(super) labels: Labels,
    /// Labels of the Bundle around it.
    pub(super) around: Labels,
    pub(super) codes: Keys,
    pub(super) when: When,
    pub(super) authors: Keys,
    pub(super) encounters: Keys,
    pub(super) references: Vec<Key>,
}

impl Facets {
    /// Draws the facets of one resource that is not a Bundle.
    pub fn of(resource: Node<'_>, surroundings: &Surroundings<'_>) -> Self {
        Self::within(resource, None, surroundings)
    }

    /// The same of a Bundle's entry, whose `fullUrl` may be another name of the record.
    pub fn within(resource: Node<'_>, full_url: Option<&str>, surroundings: &Surroundings<'_>) -> Self {
        let name = resource.resource_type().unwrap_or_default();
        let shape = table::of(name);
        let mut instance: Vec<Key> =
            full_url.filter(|url| url.starts_with("urn:")).map(Key::reference).into_iter().collect();
        instance.extend(identity(resource).map(|identity| Key::reference(&identity)));
        let reader = Reader { resource, surroundings };
        let mut labels = Labels::default();
        labels.read(resource);
        for contained in resource.find(&["contained"]) {
            labels.read(contained);
        }
        Self {
            class: Key::code(RESOURCE_TYPES, name),
            subjects: subjects::of(resource, full_url, shape, &reader),
            instance,
            is_new: false,
            labels,
            around: surroundings.labels.clone(),
            codes: shape.map_or_else(Keys::unknown, |shape| reader.codes(shape)),
            when: shape.map_or(When::Unknown, |shape| reader.when(shape)),
            authors: shape.map_or_else(Keys::unknown, |shape| reader.authors(shape)),
            encounters: reader.encounters(name),
            references: reader.references(),
        }
    }

    /// Says that the record does not exist yet, so that no rule can have named it by its id.
    #[must_use]
    pub fn as_new(mut self) -> Self {
        self.is_new = true;
        self
    }

    /// Whose record it is.
    pub fn subjects(&self) -> &Subjects {
        &self.subjects
    }

    /// Adds a label that a labeling step found.
    pub fn add_label(&mut self, system: &str, code: &str) {
        self.labels.add(system, code);
    }

    /// Whether a level of confidentiality is among the labels.
    pub fn has_confidentiality(&self) -> bool {
        self.labels.level.is_some()
    }
}

/// The Bundle around a resource: what its `urn:uuid:` references mean, and its own labels.
#[derive(Default)]
pub struct Surroundings<'t> {
    entries: HashMap<Cow<'t, str>, Node<'t>>,
    labels: Labels,
}

impl<'t> Surroundings<'t> {
    /// A resource on its own.
    pub fn none() -> Self {
        Self::default()
    }

    /// The entries of a Bundle, by fullUrl and by `Type/id`.
    pub fn of_bundle(bundle: Node<'t>) -> Self {
        let mut surroundings = Self::none();
        surroundings.labels.read(bundle);
        for entry in bundle.find(&["entry"]) {
            let Some(resource) = entry.member("resource") else { continue };
            surroundings.add(entry.member("fullUrl").and_then(Node::as_str), resource);
        }
        surroundings
    }

    /// The same of resources that were cut out of their Bundle, each with its fullUrl.
    pub fn of_entries(entries: impl IntoIterator<Item = (Option<&'t str>, Node<'t>)>) -> Self {
        let mut surroundings = Self::none();
        for (full_url, resource) in entries {
            surroundings.add(full_url.map(Cow::Borrowed), resource);
        }
        surroundings
    }

    /// With the labels of a Bundle that the resources were cut out of: the JSON of its `meta.security`. What can't be read
    /// may be any label.
    #[must_use]
    pub fn labelled(mut self, security: Option<&str>) -> Self {
        if let Some(security) = security {
            let bundle = Bytes::from(format!("{{\"meta\":{{\"security\":{security}}}}}"));
            match Tree::parse(bundle, &Limits::default()) {
                Ok(tree) => self.labels.read(tree.root()),
                Err(_) => self.labels.unreadable = true,
            }
        }
        self
    }

    fn add(&mut self, full_url: Option<Cow<'t, str>>, resource: Node<'t>) {
        if let Some(url) = full_url {
            self.entries.insert(url, resource);
        }
        if let Some(identity) = identity(resource) {
            self.entries.entry(Cow::Owned(identity)).or_insert(resource);
        }
    }

    fn entry(&self, reference: &str) -> Option<Node<'t>> {
        self.entries.get(unversioned(reference)).copied()
    }
}

impl Keys {
    fn unknown() -> Self {
        Self { keys: Vec::new(), incomplete: true }
    }
}

impl Labels {
    fn read(&mut self, resource: Node<'_>) {
        let Some(security) = resource.member("meta").and_then(|meta| meta.member("security")) else { return };
        self.unreadable |= !security.is_array();
        for label in security.items() {
            match coding(label) {
                Some((system, code)) => self.add(&system, &code),
                None => self.unreadable = true,
            }
        }
    }

    fn add(&mut self, system: &str, code: &str) {
        let level = confidentiality_level(code).filter(|_| system == CONFIDENTIALITY);
        if level.is_some() {
            self.level = self.level.max(level);
        } else {
            self.codes.push(Key::code(system, code));
        }
        self.labelled |= system == CONFIDENTIALITY || system == ACT_CODE;
    }
}

/// `Type/id` of a resource.
fn identity(resource: Node<'_>) -> Option<String> {
    let id = resource.member("id").and_then(Node::as_str).filter(|id| !id.is_empty())?;
    Some(format!("{}/{id}", resource.resource_type()?))
}

/// A coding that has both its system and its code.
fn coding(node: Node<'_>) -> Option<(Cow<'_, str>, Cow<'_, str>)> {
    let text = |name| node.member(name).and_then(Node::as_str).filter(|text| !text.is_empty());
    Some((text("system")?, text("code")?))
}

/// Reads the elements of one resource.
struct Reader<'r, 't> {
    resource: Node<'r>,
    surroundings: &'r Surroundings<'t>,
}

impl Reader<'_, '_> {
    fn codes(&self, shape: &Type) -> Keys {
        let mut codes = Keys::default();
        let concepts = shape.codes.iter().flat_map(|path| self.resource.find(path));
        concepts.for_each(|concept| codes.add_concept(concept));
        // What a medication, a device or a supply is may stand in a resource of its own.
        for name in ["medicationReference", "codeReference", "itemReference"] {
            if let Some(reference) = self.resource.member(name) {
                let before = codes.keys.len();
                self.target(reference, |target| {
                    target.find(&["code"]).chain(target.find(&["type"])).for_each(|concept| codes.add_concept(concept));
                });
                codes.incomplete |= codes.keys.len() == before;
            }
        }
        codes.incomplete |= codes.keys.is_empty() && !shape.codes.is_empty();
        codes
    }

    /// Shows the resource that a reference means, contained or in the same Bundle.
    fn target(&self, reference: Node<'_>, mut show: impl FnMut(Node<'_>)) {
        let Some(text) = reference.member("reference").and_then(Node::as_str) else { return };
        if let Some(id) = text.strip_prefix('#') {
            let is_it = |contained: &Node<'_>| contained.member("id").is_some_and(|own| own.is_str(id));
            if let Some(contained) = self.resource.find(&["contained"]).find(is_it) {
                show(contained);
            }
        } else if let Some(entry) = self.surroundings.entry(&text) {
            show(entry);
        }
    }

    fn when(&self, shape: &Type) -> When {
        let mut hull: Option<Span> = None;
        for paths in [shape.dates, shape.dates_else] {
            for path in paths {
                for element in self.resource.find(path) {
                    let Some(span) = span(element) else { return When::Unknown };
                    let Some(wider) = hull.map_or(Some(span), |hull| join(hull, span)) else { return When::Unknown };
                    hull = Some(wider);
                }
            }
            if hull.is_some() {
                break;
            }
        }
        hull.map_or(When::Unknown, When::At)
    }

    fn authors(&self, shape: &Type) -> Keys {
        let mut authors = Keys::default();
        for author in shape.authors.iter().flat_map(|path| self.resource.find(path)) {
            self.add_reference(&mut authors, author);
        }
        authors.incomplete |= authors.keys.is_empty() && !shape.authors.is_empty();
        authors
    }

    fn encounters(&self, name: &str) -> Keys {
        const PATHS: [&[&str]; 5] =
            [&["encounter"], &["context"], &["context", "encounter"], &["item", "encounter"], &["partOf"]];
        let mut encounters = Keys::default();
        // Only an Encounter belongs to the encounter that it is part of; a Procedure is part of another Procedure.
        let paths = if name == "Encounter" { &PATHS[..] } else { &PATHS[..4] };
        for element in paths.iter().flat_map(|path| self.resource.find(path)) {
            // `context` is a Reference in some types and a group of elements in others.
            let is_reference = ["reference", "identifier", "display"].iter().any(|name| element.member(name).is_some());
            if is_reference {
                self.add_reference(&mut encounters, element);
            }
        }
        encounters
    }

    fn references(&self) -> Vec<Key> {
        let mut keys = Keys::default();
        for node in self.resource.descendants().filter(|node| node.name() == Some("reference")) {
            if let Some(text) = node.as_str() {
                self.add_names(&mut keys, &text);
            }
        }
        keys.keys.sort_unstable();
        keys.keys.dedup();
        keys.keys
    }

    fn add_reference(&self, to: &mut Keys, element: Node<'_>) {
        match element.member("reference").and_then(Node::as_str) {
            Some(text) => self.add_names(to, &text),
            None => to.incomplete = true,
        }
    }

    /// The names of what a reference means. What is named only inside this document might be known by another name.
    fn add_names(&self, to: &mut Keys, reference: &str) {
        to.keys.push(Key::reference(reference));
        if reference.starts_with("urn:") || reference.starts_with('#') || reference.contains('?') {
            match self.surroundings.entry(reference).and_then(identity) {
                Some(identity) => to.keys.push(Key::reference(&identity)),
                None => to.incomplete = true,
            }
        }
    }
}

impl Keys {
    /// Adds the codings of a CodeableConcept, or a Coding itself.
    fn add_concept(&mut self, concept: Node<'_>) {
        let codings = concept.find(&["coding"]).chain(std::iter::once(concept));
        self.keys.extend(codings.filter_map(coding).map(|(system, code)| Key::code(&system, &code)));
    }
}

/// The span of a date, Period or Timing. `None` for an age, a range, a text, or what is no date.
fn span(element: Node<'_>) -> Option<Span> {
    if element.name().is_some_and(|name| name.ends_with("String")) {
        return None;
    }
    if let Some(text) = element.as_str() {
        return DateTime::parse(&text).ok().map(|read| read.span());
    }
    if let Some(bounds) = element.member("repeat").and_then(|repeat| repeat.member("boundsPeriod")) {
        return span(bounds);
    }
    if element.member("event").is_some() && element.member("repeat").is_none() {
        let spans = element.find(&["event"]).map(span);
        return spans.reduce(|hull, next| join(hull?, next?)).flatten();
    }
    let bound = |name| element.member(name).map(|bound| span(bound).ok_or(())).transpose();
    let (start, end) = (bound("start").ok()?, bound("end").ok()?);
    if start.is_none() && end.is_none() {
        return None;
    }
    let period = Span { start: start.and_then(|start| start.start), end: end.and_then(|end| end.end) };
    // Open by an extension in place of a value is not open.
    (element.member("_start").is_none() && element.member("_end").is_none() && !period.is_empty()).then_some(period)
}

/// The span from the earlier start to the later end; `None` if that hangs on a zone that was not given.
fn join(left: Span, right: Span) -> Option<Span> {
    let pick = |left: Option<Point>, right: Option<Point>, wanted: Ordering| match (left, right) {
        (Some(left), Some(right)) => left.compare(right).map(|order| Some(if order == wanted { left } else { right })),
        _ => Some(None),
    };
    Some(Span {
        start: pick(left.start, right.start, Ordering::Less)?,
        end: pick(left.end, right.end, Ordering::Greater)?,
    })
}
