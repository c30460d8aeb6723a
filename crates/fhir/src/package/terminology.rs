//! Expands value sets with the CodeSystems of the same package. Membership has three values: a part that cannot be
//! expanded (another system, an unknown filter) stays "unknown" instead of making the rest useless or turning into a false error.
//! FHIR R4 valueset.html, composition rules: includes are united; the parts of one include are intersected; excludes are taken away.

use std::collections::{BTreeMap, BTreeSet};

use crate::definitions::schema::{CodeSystem, Region, Rest, ValueSet};
use crate::tree::Node;

use super::{items, text, unversioned};

/// A CodeSystem with the relations that filters ask for.
pub(super) struct Source {
    pub(super) system: CodeSystem,
    /// Code to its direct children.
    children: BTreeMap<String, Vec<String>>,
}

/// Reads a CodeSystem; nothing unless it is complete and has concepts, since only then absence from it means something.
pub(super) fn read_code_system(node: Node<'_>) -> Option<(String, Source)> {
    let url = text(node, "url")?;
    if text(node, "content")? != "complete" {
        return None;
    }
    let mut source = Source {
        system: CodeSystem {
            case_sensitive: node.member("caseSensitive").and_then(Node::as_bool).unwrap_or(false),
            codes: BTreeSet::new(),
        },
        children: BTreeMap::new(),
    };
    let mut open: Vec<(Option<String>, Node<'_>)> = items(node, "concept").map(|c| (None, c)).collect();
    while let Some((parent, concept)) = open.pop() {
        let Some(code) = text(concept, "code") else { continue };
        if let Some(parent) = parent {
            source.children.entry(parent).or_default().push(code.clone());
        }
        for property in items(concept, "property") {
            let (name, value) = (text(property, "code"), text(property, "valueCode"));
            match (name.as_deref(), value) {
                (Some("child"), Some(child)) => source.children.entry(code.clone()).or_default().push(child),
                (Some("parent" | "subsumedBy"), Some(parent)) => {
                    source.children.entry(parent).or_default().push(code.clone());
                }
                _ => {}
            }
        }
        open.extend(items(concept, "concept").map(|c| (Some(code.clone()), c)));
        source.system.codes.insert(code);
    }
    if source.system.codes.is_empty() { None } else { Some((url, source)) }
}

/// The parts of a ValueSet's composition, read out of its document.
pub(super) struct Composition {
    include: Vec<Part>,
    exclude: Vec<Part>,
}

struct Part {
    system: Option<String>,
    concepts: Option<Vec<String>>,
    filters: Vec<(String, String, String)>,
    value_sets: Vec<String>,
}

pub(super) fn read_value_set(node: Node<'_>) -> Option<(String, Composition)> {
    let url = text(node, "url")?;
    let parts = |name| {
        node.member("compose")
            .into_iter()
            .flat_map(|compose| items(compose, name).map(read_part).collect::<Vec<_>>())
            .collect()
    };
    Some((url, Composition { include: parts("include"), exclude: parts("exclude") }))
}

fn read_part(node: Node<'_>) -> Part {
    let concepts: Vec<_> = items(node, "concept").filter_map(|c| text(c, "code")).collect();
    Part {
        system: text(node, "system"),
        concepts: (!concepts.is_empty()).then_some(concepts),
        filters: items(node, "filter")
            .map(|f| {
                let of = |name| text(f, name).unwrap_or_default();
                (of("property"), of("op"), of("value"))
            })
            .collect(),
        value_sets: items(node, "valueSet").filter_map(|v| v.as_str().map(|v| unversioned(&v).to_owned())).collect(),
    }
}

/// Expands every value set.
pub(super) fn expand(
    systems: &BTreeMap<String, Source>,
    sets: &BTreeMap<String, Composition>,
) -> BTreeMap<String, ValueSet> {
    let mut done = BTreeMap::new();
    for url in sets.keys() {
        expand_one(url, systems, sets, &mut done, &mut Vec::new());
    }
    for set in done.values_mut() {
        fold(set, systems);
    }
    done
}

fn unknown() -> ValueSet {
    ValueSet { regions: BTreeMap::new(), elsewhere: Rest::Unknown }
}

fn nothing() -> ValueSet {
    ValueSet { regions: BTreeMap::new(), elsewhere: Rest::Out }
}

fn expand_one<'a>(
    url: &'a str,
    systems: &BTreeMap<String, Source>,
    sets: &'a BTreeMap<String, Composition>,
    done: &mut BTreeMap<String, ValueSet>,
    open: &mut Vec<&'a str>,
) -> ValueSet {
    if let Some(set) = done.get(url) {
        return set.clone();
    }
    // A set that imports itself, and one that is not in the package, cannot be told.
    let Some(composition) = sets.get(url).filter(|c| !c.include.is_empty() && !open.contains(&url)) else {
        return unknown();
    };
    open.push(url);
    let mut set = nothing();
    for part in &composition.include {
        set = unite(set, &expand_part(part, systems, sets, done, open));
    }
    for part in &composition.exclude {
        set = subtract(set, &expand_part(part, systems, sets, done, open));
    }
    open.pop();
    done.insert(url.to_owned(), set.clone());
    set
}

fn expand_part<'a>(
    part: &'a Part,
    systems: &BTreeMap<String, Source>,
    sets: &'a BTreeMap<String, Composition>,
    done: &mut BTreeMap<String, ValueSet>,
    open: &mut Vec<&'a str>,
) -> ValueSet {
    let mut set: Option<ValueSet> = part.system.as_ref().map(|system| {
        let region = match (&part.concepts, systems.get(system)) {
            (Some(concepts), _) => Region { codes: concepts.iter().cloned().collect(), rest: Rest::Out },
            (None, Some(source)) => filter(source, &part.filters),
            (None, None) => Region { codes: BTreeSet::new(), rest: Rest::Unknown },
        };
        ValueSet { regions: BTreeMap::from([(system.clone(), region)]), elsewhere: Rest::Out }
    });
    for import in &part.value_sets {
        let imported = expand_one(import, systems, sets, done, open);
        set = Some(match set {
            None => imported,
            Some(set) => intersect(&set, &imported),
        });
    }
    set.unwrap_or_else(unknown)
}

/// The codes of a system that every filter lets through.
fn filter(source: &Source, filters: &[(String, String, String)]) -> Region {
    let mut codes = source.system.codes.clone();
    for (property, op, value) in filters {
        let keep = match (property.as_str(), op.as_str()) {
            ("concept" | "code", "is-a") => descendants(source, value, true),
            ("concept" | "code", "descendent-of") => descendants(source, value, false),
            ("concept" | "code", "is-not-a") => {
                let below = descendants(source, value, true);
                codes.retain(|code| !below.contains(code));
                continue;
            }
            _ => return Region { codes: BTreeSet::new(), rest: Rest::Unknown },
        };
        codes.retain(|code| keep.contains(code));
    }
    Region { codes, rest: Rest::Out }
}

fn descendants(source: &Source, root: &str, with_root: bool) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![root];
    while let Some(code) = open.pop() {
        for child in source.children.get(code).into_iter().flatten() {
            if found.insert(child.clone()) {
                open.push(child);
            }
        }
    }
    if with_root {
        found.insert(root.to_owned());
    } else {
        found.remove(root);
    }
    found
}

impl ValueSet {
    fn region(&self, system: &str) -> Region {
        let elsewhere = Region { codes: BTreeSet::new(), rest: self.elsewhere };
        self.regions.get(system).cloned().unwrap_or(elsewhere)
    }
}

fn unite(mut a: ValueSet, b: &ValueSet) -> ValueSet {
    let systems: BTreeSet<_> = a.regions.keys().chain(b.regions.keys()).cloned().collect();
    for system in systems {
        let (mut left, right) = (a.region(&system), b.region(&system));
        left.codes.extend(right.codes);
        left.rest = left.rest.max(right.rest);
        a.regions.insert(system, left);
    }
    a.elsewhere = a.elsewhere.max(b.elsewhere);
    a
}

fn intersect(a: &ValueSet, b: &ValueSet) -> ValueSet {
    let mut regions = BTreeMap::new();
    for system in a.regions.keys().chain(b.regions.keys()) {
        let (left, right) = (a.region(system), b.region(system));
        let codes: BTreeSet<_> = left.codes.intersection(&right.codes).cloned().collect();
        // A code of one side may be a member if the other side cannot tell.
        let open = (left.rest == Rest::Unknown && (right.rest == Rest::Unknown || !right.codes.is_empty()))
            || (right.rest == Rest::Unknown && !left.codes.is_empty());
        regions.insert(system.clone(), Region { codes, rest: if open { Rest::Unknown } else { Rest::Out } });
    }
    ValueSet { regions, elsewhere: a.elsewhere.min(b.elsewhere) }
}

fn subtract(mut a: ValueSet, b: &ValueSet) -> ValueSet {
    for (system, left) in &mut a.regions {
        let right = b.region(system);
        left.codes.retain(|code| !right.codes.contains(code));
        if right.rest == Rest::Unknown && !left.codes.is_empty() {
            *left = Region { codes: BTreeSet::new(), rest: Rest::Unknown };
        }
    }
    a
}

/// Says "the whole system" where all its codes are listed, which takes one byte instead of thousands.
fn fold(set: &mut ValueSet, systems: &BTreeMap<String, Source>) {
    for (system, region) in &mut set.regions {
        if region.rest == Rest::Out && systems.get(system).is_some_and(|s| s.system.codes == region.codes) {
            *region = Region { codes: BTreeSet::new(), rest: Rest::Whole };
        }
    }
}
