//! The same expressions on the same documents to sluice-fhir's FHIRPath and to rh-fhirpath. Where the answers differ, the
//! list in `known.tsv` says why; a line that explains nothing any more must go.

mod corpus;
mod engines;
mod generated;
mod invariants;
mod made;
mod suite;

use std::collections::{BTreeMap, BTreeSet};

use engines::{Answer, Document};

/// What was asked of both, and where they differ.
struct Comparison {
    test: &'static str,
    asked: usize,
    /// One is in error where the other gives nothing: each may be strict where FHIRPath lets it.
    strict: usize,
    /// By what identifies the expression: the first difference, and how many there are.
    different: BTreeMap<String, (String, usize)>,
}

impl Comparison {
    fn new(test: &'static str) -> Self {
        Self { test, asked: 0, strict: 0, different: BTreeMap::new() }
    }

    /// Asks both; `id` is what the list of differences has.
    fn ask(&mut self, id: &str, expression: &str, document: &Document, at: &corpus::Place) {
        let (ours, theirs) = (document.ours(expression, at), document.theirs(expression, at));
        self.asked += 1;
        if ours == theirs {
            return;
        }
        if matches!((&ours, &theirs), (Answer::Error, Answer::Items(items)) | (Answer::Items(items), Answer::Error) if items.is_empty())
        {
            self.strict += 1;
            return;
        }
        let first =
            || (format!("{expression} in {} at {:?}: ours {ours:?}, theirs {theirs:?}", document.name, at.path), 0);
        self.different.entry(id.to_owned()).or_insert_with(first).1 += 1;
    }

    /// Each difference has a reason, and each reason a difference.
    fn end(self) {
        let known: BTreeSet<&str> = include_str!("../../known.tsv")
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| {
                let [test, id, reason] = line.split('\t').collect::<Vec<_>>()[..] else {
                    panic!("three columns: {line}")
                };
                assert!(reason.len() > 10, "a reason: {line}");
                (test == self.test).then_some(id)
            })
            .collect();
        println!(
            "{}: {} asked, {} times one is in error where the other gives nothing, {} expressions differ",
            self.test,
            self.asked,
            self.strict,
            self.different.len()
        );
        let surprises: Vec<_> = self.different.iter().filter(|(id, _)| !known.contains(id.as_str())).collect();
        for (id, (first, count)) in &self.different {
            println!("{}\t{id}\t{count} times, first {first}", self.test);
        }
        let unused: Vec<_> = known.iter().filter(|id| !self.different.contains_key(**id)).collect();
        assert!(surprises.is_empty(), "{} differ without a reason: {surprises:#?}", surprises.len());
        assert!(unused.is_empty(), "listed, but no difference any more: {unused:#?}");
        assert!(self.asked > 1000, "{}", self.asked);
    }
}
