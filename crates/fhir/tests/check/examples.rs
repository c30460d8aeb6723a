//! The examples that HL7 published with R4. Not all of them are valid; every error stands in a list with its reason.

use std::collections::{BTreeMap, BTreeSet};

use super::{archive, bless, is_error, issues, table};

const KNOWN: &str = "tests/cases/check/hl7-examples.tsv";

#[test]
fn every_error_in_the_examples_has_a_reason() {
    let known: BTreeMap<(String, String), String> =
        table(KNOWN).into_iter().map(|row| ((row[0].clone(), row[1].clone()), row[2].clone())).collect();
    let mut found = BTreeSet::new();
    let mut count = 0;
    for (name, content) in archive("tests/data/hl7-examples/r4-4.0.1.tar.gz") {
        if !name.ends_with(".json") {
            continue;
        }
        count += 1;
        for issue in issues(&content).unwrap().into_iter().filter(is_error) {
            let key = (name.clone(), issue.rule.into_owned());
            if bless() && !known.contains_key(&key) {
                eprintln!("{}\t{}\t{} {}", key.0, key.1, issue.expression.unwrap_or_default(), issue.text);
            }
            found.insert(key);
        }
    }
    assert_eq!(count, 703);
    let unlisted: Vec<_> = found.iter().filter(|key| !known.contains_key(*key)).collect();
    let gone: Vec<_> = known.keys().filter(|key| !found.contains(*key)).collect();
    assert!(unlisted.is_empty(), "not listed: {unlisted:?}");
    assert!(gone.is_empty(), "listed, but no error any more: {gone:?}");
    assert!(known.values().all(|reason| reason.len() > 5), "every error has a reason");
}
