//! Every invariant of R4, asked of every element that it is about.

use std::collections::{BTreeMap, BTreeSet};

use crate::Comparison;
use crate::corpus;
use crate::engines::Document;
use crate::made::Maker;

/// Questions about one element of the definitions by one invariant. What is the same for all elements is asked less.
const ASKED_MAX: usize = 150;
const ASKED_OF_ALL_MAX: usize = 5;
/// Resources that are made of each type.
const MADE: usize = 60;

#[test]
fn invariants_of_r4() {
    let core = corpus::core();
    let elements = corpus::elements(&core);
    let all: BTreeSet<&str> =
        elements.values().flat_map(|element| &element.constraints).map(|(key, _)| key.as_str()).collect();
    let mut comparison = Comparison::new("invariant");
    let mut asked: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut ask_all = |document: &Document| {
        corpus::places(&elements, document, &mut |place, paths| {
            for path in paths {
                for (key, expression) in elements.get(*path).into_iter().flat_map(|element| &element.constraints) {
                    let count = asked.entry(((*path).to_owned(), key.clone())).or_default();
                    *count += 1;
                    let is_of_all = matches!(key.as_str(), "ele-1" | "ext-1");
                    if *count <= if is_of_all { ASKED_OF_ALL_MAX } else { ASKED_MAX } {
                        comparison.ask(key, expression, document, place);
                    }
                }
            }
        });
    };
    corpus::documents(&core, 60).iter().for_each(&mut ask_all);
    // What real resources have none of, and what they never break.
    let mut maker = Maker::new(&elements);
    for resource_type in elements.iter().filter(|(path, _)| !path.contains('.')).map(|(path, _)| path) {
        let is_abstract = matches!(resource_type.as_str(), "Resource" | "DomainResource");
        let is_resource = !is_abstract && elements.contains_key(&format!("{resource_type}.implicitRules"));
        for number in 0..if is_resource { MADE } else { 0 } {
            let made = maker.resource(resource_type);
            ask_all(&Document::new(&format!("made {resource_type} {number}"), &made.to_string()));
        }
    }
    let keys: BTreeSet<&str> = asked.keys().map(|(_, key)| key.as_str()).collect();
    let never: Vec<_> = all.difference(&keys).collect();
    println!("{} of {} invariants have an element here; not {never:?}", keys.len(), all.len());
    comparison.end();
    assert!(never.is_empty(), "{never:?}");
}
