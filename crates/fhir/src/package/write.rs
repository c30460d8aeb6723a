//! Packs a package: reads every definition, expands the value sets, and writes the one file that
//! [`crate::definitions`] reads. Equal packages give equal bytes.

use std::collections::{BTreeMap, BTreeSet};

use crate::definitions::pack::{Strings, Writer, put, put_ascending};
use crate::definitions::schema::{Rest, Type, ValueSet};

use super::terminology::{self, Source};
use super::{Package, PackageError, parse, profiles, structures, text};

/// Packs the types, code systems, value sets, profiles and extensions of a package.
///
/// Definitions that Sluice does not use (search parameters, examples) are left out, not refused.
pub fn pack(package: &Package) -> Result<Vec<u8>, PackageError> {
    let mut types: BTreeMap<String, Type> = BTreeMap::new();
    let mut systems = BTreeMap::new();
    let mut sets = BTreeMap::new();
    let mut profiles = Vec::new();
    for (file, content) in package.files() {
        let tree = parse(file, content.clone())?;
        let root = tree.root();
        match text(root, "resourceType").as_deref() {
            Some("StructureDefinition") => {
                if let Some(defined) = structures::read(root) {
                    types.insert(defined.name.clone(), defined);
                }
                profiles.extend(profiles::reduced(root));
            }
            Some("CodeSystem") => systems.extend(terminology::read_code_system(root)),
            Some("ValueSet") => sets.extend(terminology::read_value_set(root)),
            _ => {}
        }
    }
    let sets = terminology::expand(&systems, &sets);
    let id = package.id();
    let strings = Places::new(&id, &types, &systems, &sets);
    let mut writer = Writer::new();
    let mut name = Vec::new();
    strings.put(&mut name, &id);
    writer.section(*b"NAME", &name);
    writer.section(*b"STRS", &Strings::write(&strings.sorted));
    writer.section(*b"TYPE", &types_section(&types, &strings));
    writer.section(*b"CNST", &constraints_section(&types, &strings));
    writer.section(*b"CSYS", &systems_section(&systems, &strings));
    writer.section(*b"VSET", &sets_section(&sets, &strings));
    writer.section(*b"PROF", &profiles_section(&profiles));
    Ok(writer.finish()?)
}

/// Every string of the pack and its place.
struct Places<'a> {
    sorted: Vec<&'a str>,
}

impl<'a> Places<'a> {
    fn new(
        id: &'a str,
        types: &'a BTreeMap<String, Type>,
        systems: &'a BTreeMap<String, Source>,
        sets: &'a BTreeMap<String, ValueSet>,
    ) -> Self {
        let mut all: BTreeSet<&str> = BTreeSet::from([id]);
        for defined in types.values() {
            all.insert(&defined.name);
            for element in &defined.elements {
                all.insert(&element.name);
                all.extend(element.types.iter().flat_map(|t| t.targets.iter().chain([&t.code])).map(String::as_str));
                all.extend(element.bindings.iter().map(|b| b.value_set.as_str()));
                all.extend(element.constraints.iter().flat_map(|c| [&*c.key, &*c.expression, &*c.human]));
            }
        }
        for (url, source) in systems {
            all.insert(url);
            all.extend(source.system.codes.iter().map(String::as_str));
        }
        for (url, set) in sets {
            all.insert(url);
            for (system, region) in &set.regions {
                all.insert(system);
                all.extend(region.codes.iter().map(String::as_str));
            }
        }
        Self { sorted: all.into_iter().collect() }
    }

    fn of(&self, text: &str) -> u32 {
        let place = self.sorted.binary_search(&text).unwrap_or(self.sorted.len());
        u32::try_from(place).unwrap_or(u32::MAX)
    }

    fn put(&self, out: &mut Vec<u8>, text: &str) {
        put(out, u64::from(self.of(text)));
    }

    fn put_codes(&self, out: &mut Vec<u8>, codes: &BTreeSet<String>) {
        let places: Vec<u32> = codes.iter().map(|code| self.of(code)).collect();
        put_ascending(out, &places);
    }
}

/// {count, {name, kind, abstract, length, elements}}.
fn types_section(types: &BTreeMap<String, Type>, strings: &Places<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, types.len() as u64);
    for defined in types.values() {
        strings.put(&mut out, &defined.name);
        put(&mut out, defined.kind as u64);
        put(&mut out, u64::from(defined.is_abstract));
        let mut block = Vec::new();
        put(&mut block, defined.elements.len() as u64);
        for element in &defined.elements {
            put(&mut block, element.parent as u64);
            strings.put(&mut block, &element.name);
            put(&mut block, u64::from(element.min));
            put(&mut block, element.max.map_or(0, |max| u64::from(max) + 1));
            let flags = [element.repeats, element.is_modifier, element.is_summary];
            put(&mut block, flags.iter().enumerate().map(|(bit, &set)| u64::from(set) << bit).sum());
            put(&mut block, element.content.map_or(0, |place| place as u64 + 1));
            put(&mut block, element.types.len() as u64);
            for t in &element.types {
                strings.put(&mut block, &t.code);
                put(&mut block, t.targets.len() as u64);
                t.targets.iter().for_each(|target| strings.put(&mut block, target));
            }
            put(&mut block, element.bindings.len() as u64);
            for binding in &element.bindings {
                put(&mut block, binding.strength as u64);
                strings.put(&mut block, &binding.value_set);
            }
        }
        put(&mut out, block.len() as u64);
        out.extend(block);
    }
    out
}

/// {count, {place of the type, length, {count, {place of the element, error, key, expression, words}}}}, for types that have
/// constraints.
fn constraints_section(types: &BTreeMap<String, Type>, strings: &Places<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    let constrained = |defined: &Type| defined.elements.iter().any(|element| !element.constraints.is_empty());
    put(&mut out, types.values().filter(|defined| constrained(defined)).count() as u64);
    for (place, defined) in types.values().enumerate().filter(|(_, defined)| constrained(defined)) {
        put(&mut out, place as u64);
        let mut block = Vec::new();
        put(&mut block, defined.elements.iter().map(|element| element.constraints.len() as u64).sum());
        for (place, element) in defined.elements.iter().enumerate() {
            for constraint in &element.constraints {
                put(&mut block, place as u64);
                put(&mut block, u64::from(constraint.is_error));
                for text in [&constraint.key, &constraint.expression, &constraint.human] {
                    strings.put(&mut block, text);
                }
            }
        }
        put(&mut out, block.len() as u64);
        out.extend(block);
    }
    out
}

/// {count, {length, definition}}, in the order of their files.
fn profiles_section(profiles: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, profiles.len() as u64);
    for profile in profiles {
        put(&mut out, profile.len() as u64);
        out.extend_from_slice(profile);
    }
    out
}

/// {count, {url, case sensitive, length, codes}}.
fn systems_section(systems: &BTreeMap<String, Source>, strings: &Places<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, systems.len() as u64);
    for (url, source) in systems {
        strings.put(&mut out, url);
        put(&mut out, u64::from(source.system.case_sensitive));
        let mut block = Vec::new();
        strings.put_codes(&mut block, &source.system.codes);
        put(&mut out, block.len() as u64);
        out.extend(block);
    }
    out
}

/// {count, {url, length, elsewhere, regions {system, rest, codes}}}.
fn sets_section(sets: &BTreeMap<String, ValueSet>, strings: &Places<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, sets.len() as u64);
    for (url, set) in sets {
        strings.put(&mut out, url);
        let mut block = Vec::new();
        put(&mut block, set.elsewhere as u64);
        put(&mut block, set.regions.len() as u64);
        for (system, region) in &set.regions {
            strings.put(&mut block, system);
            put(&mut block, region.rest as u64);
            if region.rest != Rest::Whole {
                strings.put_codes(&mut block, &region.codes);
            }
        }
        put(&mut out, block.len() as u64);
        out.extend(block);
    }
    out
}
