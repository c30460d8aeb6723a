//! Whether a code is a member of a value set: yes, no, or "cannot be told with these packages". A value set is asked by its
//! composition, not expanded: so a set over a large system costs nothing until it is asked, and then only what the one code
//! needs. FHIR R4 valueset.html, composition rules.

use std::cell::Cell;

use super::library::Library;
use super::terminology::{Part, Set};
use crate::definitions::valueset::{Membership, grammar};
use crate::package::unversioned;
use crate::tree::Node;

/// Value sets within value sets; more go in circles.
const DEPTH_MAX: u32 = 32;
/// Value sets that are asked for one code; sets of sets can name each other in very many ways.
const SETS_MAX: u32 = 10_000;
const UCUM: &str = "http://unitsofmeasure.org";

/// How deep a question has gone, and how many sets it may still ask.
struct Depth<'q> {
    sets: u32,
    sets_left: &'q Cell<u32>,
    /// The package of the value set that is asked, by whose dependencies it names others.
    from: Option<usize>,
}

impl Depth<'_> {
    fn below(&self) -> Self {
        Self { sets: self.sets + 1, ..*self }
    }

    fn of(&self, package: usize) -> Self {
        Self { from: Some(package), ..*self }
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
        self.member(value_set, system, code, &Depth { sets: 0, sets_left: &sets_left, from: None })
    }

    /// The same of a value set that stands in a resource itself.
    pub(crate) fn member_of_node(&self, set: Node<'_>, system: Option<&str>, code: &str) -> Membership {
        let sets_left = Cell::new(SETS_MAX);
        contains(&Set::read(set), self, system, code, &Depth { sets: 0, sets_left: &sets_left, from: None })
    }

    fn member(&self, value_set: &str, system: Option<&str>, code: &str, depth: &Depth<'_>) -> Membership {
        if depth.sets > DEPTH_MAX || depth.sets_left.get() == 0 {
            return Membership::Unknown;
        }
        depth.sets_left.set(depth.sets_left.get() - 1);
        if let Some((set, package)) = self.set(value_set, depth.from) {
            return contains(&set, self, system, code, &depth.of(package));
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
        self.system(system, None)?.subsumes(broader, narrower)
    }
}

fn contains(set: &Set, library: &Library, system: Option<&str>, code: &str, depth: &Depth<'_>) -> Membership {
    if let Some(expansion) = &set.expansion {
        let has = expansion.iter().any(|(of, known)| system.is_none_or(|system| **of == *system) && **known == *code);
        return if has { Membership::In } else { Membership::Out };
    }
    if set.include.is_empty() {
        return Membership::Unknown;
    }
    let any = |parts: &[Part]| {
        let mut answer = Membership::Out;
        for part in parts {
            match part_contains(part, library, system, code, depth) {
                Membership::In => return Membership::In,
                Membership::Unknown => answer = Membership::Unknown,
                Membership::Out => {}
            }
        }
        answer
    };
    match (any(&set.include), any(&set.exclude)) {
        (Membership::Out, _) | (_, Membership::In) => Membership::Out,
        (Membership::In, Membership::Out) => Membership::In,
        _ => Membership::Unknown,
    }
}

fn part_contains(part: &Part, library: &Library, system: Option<&str>, code: &str, depth: &Depth<'_>) -> Membership {
    let mut answer = match &part.system {
        // A part that names neither a system nor a set holds nothing that can be told.
        None if part.sets.is_empty() => Membership::Unknown,
        None => Membership::In,
        Some(own) => {
            if system.is_some_and(|system| **own != *system) {
                return Membership::Out;
            }
            match (&part.codes, library.system(part.versioned(), depth.from)) {
                (Some(codes), _) if codes.contains(code) => Membership::In,
                (Some(codes), Some(known)) if !known.case_sensitive => {
                    let same = codes.iter().any(|one| one.to_lowercase() == code.to_lowercase());
                    if same { Membership::In } else { Membership::Out }
                }
                (Some(_), _) => Membership::Out,
                (None, Some(known)) => part
                    .filters
                    .iter()
                    .fold(known.contains(code), |answer, filter| both(answer, known.passes(code, filter))),
                (None, None) => of_core(library, own, code, part.filters.is_empty()),
            }
        }
    };
    for set in &part.sets {
        if answer == Membership::Out {
            break;
        }
        answer = both(answer, library.member(set, system, code, &depth.below()));
    }
    answer
}
