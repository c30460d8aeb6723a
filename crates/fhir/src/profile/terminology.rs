//! Code systems and value sets of packages. Takes a code, says whether it is a member: yes, no, or "cannot be told with these
//! packages". A value set is asked by its composition, not expanded: so a set over a large system costs nothing until it is
//! asked, and then only what the one code needs. FHIR R4 valueset.html, composition rules.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::sync::OnceLock;

use regex::Regex;

use super::library::Library;
use crate::definitions::valueset::{Membership, grammar};
use crate::package::{items, text, unversioned};
use crate::tree::Node;

/// Value sets within value sets; more go in circles.
const DEPTH_MAX: u32 = 32;
/// Value sets that are asked for one code; sets of sets can name each other in very many ways.
const SETS_MAX: u32 = 10_000;
const UCUM: &str = "http://unitsofmeasure.org";

/// The concepts of a code system.
#[derive(Debug)]
pub(crate) struct Concepts {
    case_sensitive: bool,
    /// Absence from it means something.
    is_complete: bool,
    by_code: HashMap<Box<str>, Concept>,
}

#[derive(Debug, Default)]
struct Concept {
    parents: Vec<Box<str>>,
    properties: Vec<(Box<str>, Box<str>)>,
    has_children: bool,
}

impl Concepts {
    /// Reads a CodeSystem; None of those that add to another or bring nothing.
    pub(super) fn read(node: Node<'_>) -> Option<Self> {
        let content = text(node, "content")?;
        if matches!(&*content, "supplement" | "not-present") {
            return None;
        }
        let case_sensitive = node.member("caseSensitive").and_then(Node::as_bool).unwrap_or(false);
        let mut concepts: HashMap<Box<str>, Concept> = HashMap::new();
        let key = |code: &str| -> Box<str> { if case_sensitive { code.into() } else { code.to_lowercase().into() } };
        let mut open: Vec<(Option<Box<str>>, Node<'_>)> = items(node, "concept").map(|c| (None, c)).collect();
        let mut links: Vec<(Box<str>, Box<str>)> = Vec::new();
        while let Some((parent, at)) = open.pop() {
            let Some(code) = text(at, "code").map(|code| key(&code)) else { continue };
            links.extend(parent.map(|parent| (code.clone(), parent)));
            let concept = concepts.entry(code.clone()).or_default();
            for property in items(at, "property") {
                let Some(name) = text(property, "code") else { continue };
                let value =
                    property.members().find(|member| member.name().is_some_and(|name| name.starts_with("value")));
                let Some(value) = value else { continue };
                let value = match value.as_str() {
                    Some(text) => text.into_owned(),
                    None if value.is_object() => text(value, "code").unwrap_or_default(),
                    None => String::from_utf8_lossy(value.raw()).into_owned(),
                };
                match &*name {
                    "parent" | "subsumedBy" => links.push((code.clone(), key(&value))),
                    "child" => links.push((key(&value), code.clone())),
                    _ => {}
                }
                concept.properties.push((name.into(), value.into()));
            }
            open.extend(items(at, "concept").map(|inner| (Some(code.clone()), inner)));
        }
        for (child, parent) in links {
            if let Some(above) = concepts.get_mut(&parent) {
                above.has_children = true;
            }
            concepts.entry(child).or_default().parents.push(parent);
        }
        Some(Self { case_sensitive, is_complete: content == "complete", by_code: concepts })
    }

    fn key(&self, code: &str) -> Box<str> {
        if self.case_sensitive { code.into() } else { code.to_lowercase().into() }
    }

    fn contains(&self, code: &str) -> Membership {
        if self.by_code.contains_key(&self.key(code)) {
            Membership::In
        } else if self.is_complete {
            Membership::Out
        } else {
            Membership::Unknown
        }
    }

    /// Whether `broader` covers `narrower`; None where one of them is not known.
    pub(super) fn subsumes(&self, broader: &str, narrower: &str) -> Option<bool> {
        let (broader, narrower) = (self.key(broader), self.key(narrower));
        if !self.by_code.contains_key(&broader) || !self.by_code.contains_key(&narrower) {
            return None;
        }
        let mut seen = HashSet::new();
        let mut open = vec![&narrower];
        while let Some(code) = open.pop() {
            if *code == broader {
                return Some(true);
            }
            if seen.insert(code) {
                open.extend(self.by_code.get(code).into_iter().flat_map(|concept| &concept.parents));
            }
        }
        Some(false)
    }

    /// Whether a filter lets a code through (valueset.html#filters).
    fn passes(&self, code: &str, filter: &Filter) -> Membership {
        let known = |passes: Option<bool>| match passes {
            Some(true) => Membership::In,
            Some(false) => Membership::Out,
            None => Membership::Unknown,
        };
        let is_same = || *self.key(code) == *self.key(&filter.value);
        let Some(concept) = self.by_code.get(&self.key(code)) else { return self.contains(code) };
        let values =
            || concept.properties.iter().filter(|(name, _)| *name == filter.property).map(|(_, value)| &**value);
        match (&*filter.property, &*filter.op) {
            ("concept" | "code", "is-a") => known(self.subsumes(&filter.value, code)),
            ("concept" | "code", "descendent-of") => {
                known(self.subsumes(&filter.value, code).map(|is| is && !is_same()))
            }
            ("concept" | "code", "is-not-a") => known(self.subsumes(&filter.value, code).map(|is| !is)),
            ("concept" | "code", "generalizes") => known(self.subsumes(code, &filter.value)),
            ("concept" | "code", "=") => known(Some(is_same())),
            ("concept" | "code", "in") => {
                known(Some(filter.value.split(',').any(|one| *self.key(one.trim()) == *self.key(code))))
            }
            ("concept" | "code", "regex") => known(filter.regex().map(|regex| regex.is_match(code))),
            ("parent", "=") => known(Some(concept.parents.iter().any(|parent| **parent == *self.key(&filter.value)))),
            (_, "=") => known(Some(values().any(|value| value == &*filter.value))),
            (_, "in") => known(Some(values().any(|value| filter.value.split(',').any(|one| one.trim() == value)))),
            (_, "not-in") => known(Some(!values().any(|value| filter.value.split(',').any(|one| one.trim() == value)))),
            (_, "exists") => known(Some((values().next().is_some()) == (&*filter.value == "true"))),
            (_, "regex") => known(filter.regex().map(|regex| values().any(|value| regex.is_match(value)))),
            _ => Membership::Unknown,
        }
    }
}

/// A value set, as it is composed.
#[derive(Debug)]
pub(crate) struct Set {
    include: Vec<Part>,
    exclude: Vec<Part>,
    /// The codes of an expansion, of a set that says nothing else.
    expansion: Option<HashSet<(Box<str>, Box<str>)>>,
}

/// Codes of one system, or of other sets, or what both have in common.
#[derive(Debug)]
struct Part {
    system: Option<Box<str>>,
    codes: Option<HashSet<Box<str>>>,
    filters: Vec<Filter>,
    sets: Vec<Box<str>>,
}

#[derive(Debug)]
struct Filter {
    property: Box<str>,
    op: Box<str>,
    value: Box<str>,
    /// The value as an expression that the whole code or property must match; compiled at its first use.
    regex: OnceLock<Option<Regex>>,
}

impl Filter {
    fn regex(&self) -> Option<&Regex> {
        self.regex.get_or_init(|| Regex::new(&format!("^(?:{})$", self.value)).ok()).as_ref()
    }
}

impl Set {
    pub(super) fn read(node: Node<'_>) -> Self {
        let compose = node.member("compose");
        let parts =
            |name| compose.into_iter().flat_map(|compose| items(compose, name)).map(Part::read).collect::<Vec<_>>();
        let include = parts("include");
        let expansion = node.member("expansion").filter(|_| include.is_empty()).map(|expansion| {
            let mut codes = HashSet::new();
            let mut open: Vec<Node<'_>> = items(expansion, "contains").collect();
            while let Some(at) = open.pop() {
                if let (Some(system), Some(code)) = (text(at, "system"), text(at, "code")) {
                    codes.insert((system.into(), code.into()));
                }
                open.extend(items(at, "contains"));
            }
            codes
        });
        Self { include, exclude: parts("exclude"), expansion }
    }

    fn contains(&self, library: &Library, system: Option<&str>, code: &str, depth: &Depth<'_>) -> Membership {
        if let Some(expansion) = &self.expansion {
            let has =
                expansion.iter().any(|(of, known)| system.is_none_or(|system| **of == *system) && **known == *code);
            return if has { Membership::In } else { Membership::Out };
        }
        if self.include.is_empty() {
            return Membership::Unknown;
        }
        let any = |parts: &[Part]| {
            let mut answer = Membership::Out;
            for part in parts {
                match part.contains(library, system, code, depth) {
                    Membership::In => return Membership::In,
                    Membership::Unknown => answer = Membership::Unknown,
                    Membership::Out => {}
                }
            }
            answer
        };
        match (any(&self.include), any(&self.exclude)) {
            (Membership::Out, _) | (_, Membership::In) => Membership::Out,
            (Membership::In, Membership::Out) => Membership::In,
            _ => Membership::Unknown,
        }
    }
}

impl Part {
    fn read(node: Node<'_>) -> Self {
        let codes: HashSet<Box<str>> = items(node, "concept").filter_map(|c| Some(text(c, "code")?.into())).collect();
        let of = |filter, name| text(filter, name).unwrap_or_default().into();
        Self {
            system: text(node, "system").map(Into::into),
            codes: (!codes.is_empty()).then_some(codes),
            filters: items(node, "filter")
                .map(|filter| Filter {
                    property: of(filter, "property"),
                    op: of(filter, "op"),
                    value: of(filter, "value"),
                    regex: OnceLock::new(),
                })
                .collect(),
            sets: items(node, "valueSet").filter_map(|set| Some((*set.as_str()?).into())).collect(),
        }
    }

    fn contains(&self, library: &Library, system: Option<&str>, code: &str, depth: &Depth<'_>) -> Membership {
        let mut answer = match &self.system {
            // A part that names neither a system nor a set holds nothing that can be told.
            None if self.sets.is_empty() => Membership::Unknown,
            None => Membership::In,
            Some(own) => {
                if system.is_some_and(|system| **own != *system) {
                    return Membership::Out;
                }
                match (&self.codes, library.system(own)) {
                    (Some(codes), _) if codes.contains(code) => Membership::In,
                    (Some(codes), Some(known)) if !known.case_sensitive => {
                        let same = codes.iter().any(|one| one.to_lowercase() == code.to_lowercase());
                        if same { Membership::In } else { Membership::Out }
                    }
                    (Some(_), _) => Membership::Out,
                    (None, Some(known)) => self
                        .filters
                        .iter()
                        .fold(known.contains(code), |answer, filter| both(answer, known.passes(code, filter))),
                    (None, None) => of_core(library, own, code, self.filters.is_empty()),
                }
            }
        };
        for set in &self.sets {
            if answer == Membership::Out {
                break;
            }
            answer = both(answer, library.member(set, system, code, &depth.below()));
        }
        answer
    }
}

/// How deep a question has gone, and how many sets it may still ask.
struct Depth<'q> {
    depth: u32,
    sets_left: &'q Cell<u32>,
}

impl Depth<'_> {
    fn below(&self) -> Self {
        Self { depth: self.depth + 1, sets_left: self.sets_left }
    }
}

/// Both must have it.
fn both(a: Membership, b: Membership) -> Membership {
    match (a, b) {
        (Membership::Out, _) | (_, Membership::Out) => Membership::Out,
        (Membership::In, Membership::In) => Membership::In,
        _ => Membership::Unknown,
    }
}

/// A code of a system that no package has.
fn of_core(library: &Library, system: &str, code: &str, is_whole: bool) -> Membership {
    if system == UCUM {
        return match (octofhir_ucum::validate(code), is_whole) {
            (Err(_), _) => Membership::Out,
            (Ok(()), true) => Membership::In,
            (Ok(()), false) => Membership::Unknown,
        };
    }
    match library.core().code_system(system) {
        Some(known) if !known.contains(library.core(), code) => Membership::Out,
        Some(_) if is_whole => Membership::In,
        _ if !grammar(system, code) => Membership::Out,
        _ => Membership::Unknown,
    }
}

impl Library {
    /// Whether a code is a member of the value set with that canonical; without a system, by that of any member.
    pub(crate) fn member_of(&self, value_set: &str, system: Option<&str>, code: &str) -> Membership {
        let sets_left = Cell::new(SETS_MAX);
        self.member(value_set, system, code, &Depth { depth: 0, sets_left: &sets_left })
    }

    fn member(&self, value_set: &str, system: Option<&str>, code: &str, depth: &Depth<'_>) -> Membership {
        if depth.depth > DEPTH_MAX || depth.sets_left.get() == 0 {
            return Membership::Unknown;
        }
        depth.sets_left.set(depth.sets_left.get() - 1);
        if let Some(set) = self.set(value_set) {
            return set.contains(self, system, code, depth);
        }
        let core = self.core();
        let Some(set) = core.value_set(unversioned(value_set)) else { return Membership::Unknown };
        match system {
            Some(system) => set.contains(core, system, code),
            None => set.contains_code(core, code),
        }
    }

    /// Whether the first code of a system covers the second.
    pub(crate) fn subsumes(&self, system: &str, broader: &str, narrower: &str) -> Option<bool> {
        self.system(system)?.subsumes(broader, narrower)
    }
}
