use std::cell::Cell;

use bytes::Bytes;

use super::*;
use crate::tree::{Limits, Tree};

thread_local! {
    /// How often a key was made or compared: all that building and resolving cost.
    pub(super) static COST: Cell<u64> = const { Cell::new(0) };
}

fn tree(text: String) -> Tree {
    Tree::parse(Bytes::from(text), &Limits::default()).unwrap()
}

#[test]
fn references_are_resolved_by_the_rules() {
    let tree = tree(
        r#"{"resourceType":"Bundle","type":"transaction","entry":[
        {"fullUrl":"http://a.example/fhir/Patient/1","resource":{"resourceType":"Patient","id":"1","meta":{"versionId":"3"}}},
        {"fullUrl":"http://a.example/fhir/Observation/2","resource":{"resourceType":"Observation","id":"2",
            "contained":[{"resourceType":"Patient","id":"p"},{"resourceType":"Device","id":"d"},{"resourceType":"Device","id":"d"}]}},
        {"fullUrl":"urn:uuid:0001","resource":{"resourceType":"Patient","id":"1"}},
        {"fullUrl":"http://b.example/Observation/2","resource":{"resourceType":"Observation","id":"2"}},
        {"resource":{"resourceType":"Patient","id":"9"}},
        {"fullUrl":"urn:uuid:0002","resource":{"resourceType":"Patient","id":"8"},"request":{"method":"PUT","url":"Patient/8"}},
        {"fullUrl":"urn:uuid:twice","resource":{"resourceType":"Patient"}},
        {"fullUrl":"urn:uuid:twice","resource":{"resourceType":"Patient"}},
        {"fullUrl":"http://a.example/fhir/Patient/7","resource":{"resourceType":"Patient","id":"7","meta":{"versionId":"1"}}},
        {"fullUrl":"http://a.example/fhir/Patient/7","resource":{"resourceType":"Patient","id":"7","meta":{"versionId":"2"}}},
        {"fullUrl":"https://other.example/doc?x=1","resource":{"resourceType":"Basic"}},
        {}
        ]}"#
            .to_owned(),
    );
    let index = Index::new(tree.root());
    let patient = |id| Target::Local { resource_type: "Patient", id };
    let contained = tree.root().find(&["entry", "resource", "contained"]).next().unwrap().id();
    assert_eq!((index.len(), index.base(1), index.base(2)), (12, Some("http://a.example/fhir"), None));
    for (from, text, expected) in [
        // Relative: against the base of the entry that says it, never another.
        (1, "Patient/1", Target::Entry(0)),
        (3, "Patient/1", patient("1")),
        (2, "Patient/1", patient("1")),
        (11, "Patient/1", patient("1")),
        (99, "Patient/1", patient("1")),
        // Relative, said by an entry that has no base: the server's own, so what has no fullUrl or is put there.
        (2, "Patient/9", Target::Entry(4)),
        (4, "Patient/8", Target::Entry(5)),
        (1, "Patient/9", patient("9")),
        // Versions.
        (1, "Patient/1/_history/3", Target::Entry(0)),
        (1, "Patient/1/_history/4", patient("1")),
        (1, "Patient/7/_history/2", Target::Entry(9)),
        (1, "Patient/7", Target::Unresolvable(Reason::Ambiguous)),
        (2, "http://a.example/fhir/Patient/7/_history/1", Target::Entry(8)),
        (2, "Patient/9/_history/1", patient("9")),
        // Absolute.
        (2, "http://a.example/fhir/Patient/1", Target::Entry(0)),
        (1, "https://a.example/fhir/Patient/1", Target::Absolute("https://a.example/fhir/Patient/1")),
        (1, "https://other.example/doc?x=1", Target::Entry(10)),
        (1, "https://other.example/doc", Target::Absolute("https://other.example/doc")),
        // URNs.
        (1, "urn:uuid:0001", Target::Entry(2)),
        (1, "urn:uuid:0003", Target::Unresolvable(Reason::UnknownUrn)),
        (1, "urn:uuid:twice", Target::Unresolvable(Reason::Ambiguous)),
        // Contained: in the container alone.
        (1, "#p", Target::Contained(contained)),
        (1, "#", Target::Entry(1)),
        (1, "#d", Target::Unresolvable(Reason::Ambiguous)),
        (0, "#p", Target::Unresolvable(Reason::NotContained)),
        // The rest.
        (1, "Patient?identifier=x", Target::Conditional { resource_type: "Patient", query: "identifier=x" }),
        (1, "somebody", Target::Unresolvable(Reason::Malformed)),
        (1, "", Target::Unresolvable(Reason::Malformed)),
    ] {
        assert_eq!(index.resolve(text, from), expected, "{text} from {from}");
    }
}

/// What it costs to index a Bundle of so many entries and to resolve two references of each.
fn cost(entries: usize, full_url: impl Fn(usize) -> String) -> u64 {
    COST.with(|cost| cost.set(0));
    let mut builder = Builder::new();
    for entry in 0..entries {
        builder.entry(Some(&full_url(entry)), Some("Patient"), None);
    }
    let index = builder.build();
    for entry in 0..entries {
        std::hint::black_box(index.resolve(&full_url(entries - 1 - entry), entry));
        std::hint::black_box(index.resolve("Patient/1", entry));
    }
    COST.with(Cell::get)
}

#[test]
fn cost_grows_with_the_bundle_and_no_faster() {
    let shapes: [fn(usize) -> String; 3] = [
        |entry| format!("urn:uuid:{entry:032x}"),
        |entry| format!("http://a.example/{entry}/Patient/{entry}"),
        |_| String::from("http://a.example/Patient/1"),
    ];
    for full_url in shapes {
        let (small, large) = (cost(1_000, full_url), cost(100_000, full_url));
        // How full a table is makes up to a half of difference, as chance has it; what grows faster makes a hundredfold.
        assert!(large <= small * 100 * 2, "{small} for 1,000 entries, {large} for 100,000");
    }
}
