//! Code systems and value sets, expanded and indexed. Takes the packed codes, answers whether a code is a member: yes, no, or
//! "cannot be told with these packages", which callers must report and never take for either. No network, no clock.

use crate::definitions::Definitions;
use crate::definitions::names::Names;
use crate::definitions::pack::{PackError, Reader, Strings};
use crate::definitions::schema::Rest;

/// Whether a code belongs to a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Membership {
    /// It is a member.
    In,
    /// It is not.
    Out,
    /// The set, or its part for this system, cannot be expanded here.
    Unknown,
}

/// A CodeSystem that is known whole.
#[derive(Debug)]
pub struct CodeSystem {
    codes: Codes,
}

impl CodeSystem {
    pub(crate) fn new(strings: &Strings, codes: Box<[u32]>, case_sensitive: bool) -> Self {
        Self { codes: Codes::new(strings, codes, case_sensitive) }
    }

    /// Whether the system defines this code.
    pub fn contains(&self, definitions: &Definitions, code: &str) -> bool {
        self.codes.contains(definitions.strings(), code)
    }
}

/// A value set, as far as it can be expanded.
#[derive(Debug)]
pub struct ValueSet {
    regions: Box<[Region]>,
    elsewhere: Rest,
}

#[derive(Debug)]
struct Region {
    system: u32,
    codes: Codes,
    rest: Rest,
}

/// Codes, indexed by text; for a system that ignores case, by their lower case.
#[derive(Debug)]
struct Codes {
    places: Box<[u32]>,
    names: Names,
    lower: Option<Box<[Box<str>]>>,
}

impl Codes {
    fn new(strings: &Strings, places: Box<[u32]>, case_sensitive: bool) -> Self {
        if case_sensitive {
            let names = Names::new(places.iter().map(|&place| strings.at(place)));
            return Self { places, names, lower: None };
        }
        let lower: Box<[Box<str>]> = places.iter().map(|&place| strings.at(place).to_lowercase().into()).collect();
        let names = Names::new(lower.iter().map(|code| &**code));
        Self { places, names, lower: Some(lower) }
    }

    fn contains(&self, strings: &Strings, code: &str) -> bool {
        match &self.lower {
            None => self.names.find(code, |place| strings.at(self.places[place])).is_some(),
            Some(lower) => self.names.find(&code.to_lowercase(), |place| &lower[place]).is_some(),
        }
    }
}

impl ValueSet {
    /// Decodes without building.
    pub(crate) fn check(mut reader: Reader<'_>) -> Result<(), PackError> {
        decode(&mut reader, |_, _, _| {}).map(drop)
    }

    pub(crate) fn read(definitions: &Definitions, mut reader: Reader<'_>) -> Self {
        let strings = definitions.strings();
        let mut regions = Vec::new();
        let elsewhere = decode(&mut reader, |system, rest, codes| {
            // Codes of a system that ignores case are compared so; of an unknown system, exactly.
            let case_sensitive = definitions.code_system(strings.at(system)).is_none_or(|s| s.codes.lower.is_none());
            regions.push(Region { system, codes: Codes::new(strings, codes, case_sensitive), rest });
        });
        // Verified when the pack was read; a set that fails all the same can tell nothing.
        Self { regions: regions.into(), elsewhere: elsewhere.unwrap_or(Rest::Unknown) }
    }

    /// Whether `code` of `system` is a member.
    pub fn contains(&self, definitions: &Definitions, system: &str, code: &str) -> Membership {
        let strings = definitions.strings();
        self.regions
            .iter()
            .find(|region| strings.at(region.system) == system)
            .map_or(if self.elsewhere == Rest::Out { Membership::Out } else { Membership::Unknown }, |region| {
                region.contains(definitions, code)
            })
    }

    /// Whether `code` is a member by any of the systems: for a `code`, whose system is implied by the set.
    pub fn contains_code(&self, definitions: &Definitions, code: &str) -> Membership {
        let mut answer = if self.elsewhere == Rest::Out { Membership::Out } else { Membership::Unknown };
        for region in &self.regions {
            match region.contains(definitions, code) {
                Membership::In => return Membership::In,
                Membership::Unknown => answer = Membership::Unknown,
                Membership::Out => {}
            }
        }
        answer
    }
}

impl Region {
    fn contains(&self, definitions: &Definitions, code: &str) -> Membership {
        let strings = definitions.strings();
        if self.codes.contains(strings, code) {
            return Membership::In;
        }
        let system = strings.at(self.system);
        match self.rest {
            Rest::Out => Membership::Out,
            Rest::Unknown if grammar(system, code) => Membership::Unknown,
            Rest::Unknown => Membership::Out,
            Rest::Whole => match definitions.code_system(system) {
                Some(whole) if whole.contains(definitions, code) => Membership::In,
                Some(_) => Membership::Out,
                None => Membership::Unknown,
            },
        }
    }
}

fn decode(reader: &mut Reader<'_>, mut region: impl FnMut(u32, Rest, Box<[u32]>)) -> Result<Rest, PackError> {
    let rest = |reader: &mut Reader<'_>| match reader.number()? {
        0 => Ok(Rest::Out),
        1 => Ok(Rest::Unknown),
        2 => Ok(Rest::Whole),
        _ => Err(reader.damaged()),
    };
    let elsewhere = rest(reader)?;
    for _ in 0..reader.count()? {
        let system = reader.number()?;
        let rest = rest(reader)?;
        let codes = if rest == Rest::Whole { Box::default() } else { reader.ascending()? };
        region(system, rest, codes);
    }
    Ok(elsewhere)
}

/// Whether a code can belong to a system that is a grammar rather than a list. True where we know no grammar.
pub(crate) fn grammar(system: &str, code: &str) -> bool {
    match system {
        // The short names that FHIR has for its own formats (http.html#mime-type).
        "urn:ietf:bcp:13" if matches!(code, "xml" | "json" | "ttl") => true,
        // RFC 6838 4.2, parameters after a semicolon are free.
        "urn:ietf:bcp:13" => {
            let media = code.split(';').next().unwrap_or_default().trim_end();
            let token = |t: &str| {
                !t.is_empty()
                    && t.len() <= 127
                    && t.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+*".contains(&b))
            };
            media.split_once('/').is_some_and(|(main, sub)| token(main) && token(sub))
        }
        // RFC 5646 2.1: subtags of one to eight letters and digits, the first of letters alone.
        "urn:ietf:bcp:47" => code.split('-').enumerate().all(|(place, tag)| {
            (1..=8).contains(&tag.len())
                && tag.bytes().all(|b| if place == 0 { b.is_ascii_alphabetic() } else { b.is_ascii_alphanumeric() })
        }),
        // ISO 4217: three capitals.
        "urn:iso:std:iso:4217" => code.len() == 3 && code.bytes().all(|b| b.is_ascii_uppercase()),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn member(set: &str, system: &str, code: &str) -> Membership {
        let r4 = Definitions::r4();
        r4.value_set(set).unwrap().contains(&r4, system, code)
    }

    #[test]
    fn whole_systems_lists_filters_and_imports() {
        let gender = "http://hl7.org/fhir/ValueSet/administrative-gender";
        assert_eq!(member(gender, "http://hl7.org/fhir/administrative-gender", "female"), Membership::In);
        assert_eq!(member(gender, "http://hl7.org/fhir/administrative-gender", "FEMALE"), Membership::Out);
        assert_eq!(member(gender, "http://example.org", "female"), Membership::Out);
        // is-a filter over a hierarchy.
        let codes = "http://terminology.hl7.org/CodeSystem/v3-ActCode";
        let encounter = "http://terminology.hl7.org/ValueSet/v3-ActEncounterCode";
        assert_eq!(member(encounter, codes, "AMB"), Membership::In);
        assert_eq!(member(encounter, codes, "ACCTRECEIVABLE"), Membership::Out);
        // A set of sets.
        let types = "http://hl7.org/fhir/ValueSet/all-types";
        assert_eq!(member(types, "http://hl7.org/fhir/resource-types", "Patient"), Membership::In);
        assert_eq!(member(types, "http://hl7.org/fhir/data-types", "HumanName"), Membership::In);
    }

    #[test]
    fn what_cannot_be_expanded_is_unknown_and_never_a_guess() {
        let units = "http://hl7.org/fhir/ValueSet/ucum-units";
        assert_eq!(member(units, "http://unitsofmeasure.org", "mg"), Membership::Unknown);
        assert_eq!(member(units, "http://example.org", "mg"), Membership::Out);
        let r4 = Definitions::r4();
        let code = |set: &str, code| r4.value_set(set).unwrap().contains_code(&r4, code);
        assert_eq!(code("http://hl7.org/fhir/ValueSet/mimetypes", "text/plain; charset=utf-8"), Membership::Unknown);
        assert_eq!(code("http://hl7.org/fhir/ValueSet/mimetypes", "plain text"), Membership::Out);
        assert_eq!(code("http://hl7.org/fhir/ValueSet/all-languages", "pt-BR"), Membership::Unknown);
        assert_eq!(code("http://hl7.org/fhir/ValueSet/all-languages", "_"), Membership::Out);
        assert_eq!(code("http://hl7.org/fhir/ValueSet/currencies", "dollar"), Membership::Out);
    }

    #[test]
    fn systems_that_ignore_case_are_compared_so() {
        let r4 = Definitions::r4();
        let system = r4.code_system("http://terminology.hl7.org/CodeSystem/observation-category").unwrap();
        assert!(system.contains(&r4, "vital-signs") && !system.contains(&r4, "vital-sign"));
        assert!(r4.code_system("http://snomed.info/sct").is_none());
    }
}
