//! Code systems and value sets of packages, as they are written. Takes definitions, gives concepts with what filters ask of them, and
//! the parts of value sets.

use std::collections::{HashMap, HashSet};
use std::sync::OnceLock;

use regex::Regex;

use crate::definitions::valueset::Membership;
use crate::package::{items, text};
use crate::tree::Node;

/// The concepts of a code system.
#[derive(Debug)]
pub(crate) struct Concepts {
    pub(super) case_sensitive: bool,
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

    pub(super) fn contains(&self, code: &str) -> Membership {
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
    pub(super) fn passes(&self, code: &str, filter: &Filter) -> Membership {
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
    pub(super) include: Vec<Part>,
    pub(super) exclude: Vec<Part>,
    /// The codes of an expansion, of a set that says nothing else.
    pub(super) expansion: Option<HashSet<(Box<str>, Box<str>)>>,
}

/// Codes of one system, or of other sets, or what both have in common.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) system: Option<Box<str>>,
    /// `system|version`, where it names one.
    versioned: Option<Box<str>>,
    pub(super) codes: Option<HashSet<Box<str>>>,
    pub(super) filters: Vec<Filter>,
    pub(super) sets: Vec<Box<str>>,
}

#[derive(Debug)]
pub(super) struct Filter {
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
}

impl Part {
    /// The system with the version that it names.
    pub(super) fn versioned(&self) -> &str {
        self.versioned.as_deref().or(self.system.as_deref()).unwrap_or_default()
    }

    fn read(node: Node<'_>) -> Self {
        let codes: HashSet<Box<str>> = items(node, "concept").filter_map(|c| Some(text(c, "code")?.into())).collect();
        let of = |filter, name| text(filter, name).unwrap_or_default().into();
        Self {
            system: text(node, "system").map(Into::into),
            versioned: text(node, "system")
                .zip(text(node, "version"))
                .map(|(system, version)| format!("{system}|{version}").into()),
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
}
