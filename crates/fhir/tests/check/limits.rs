//! The rules that a case in a file would show badly: limits, and values that are long.

use bytes::Bytes;
use sluice_fhir::outcome::Issue;
use sluice_fhir::tree::{Limits, Tree};
use sluice_fhir::validate::Validator;

use super::is_error;

/// What is found, under limits of the tree's own that are no limit here.
fn found(text: String) -> Vec<Issue> {
    let limits = Limits { depth_max: 4096, ..Limits::default() };
    let tree = Tree::parse(Bytes::from(text), &limits).unwrap();
    Validator::r4().validate(tree.root())
}

fn count(issues: &[Issue], rule: &str) -> usize {
    issues.iter().filter(|it| it.rule == rule).count()
}

#[test]
fn nesting_ends_at_a_depth() {
    let nested = |levels: usize| {
        let inner = r#"{"url":"urn:x","extension":["#.repeat(levels);
        let value = r#"{"url":"urn:x","valueInteger":1}"#;
        format!(
            r#"{{"resourceType":"Basic","code":{{"text":"x"}},"extension":[{inner}{value}{}]}}"#,
            "]}".repeat(levels)
        )
    };
    assert_eq!(count(&found(nested(200)), "limit.depth"), 0);
    let issues = found(nested(300));
    assert_eq!(count(&issues, "limit.depth"), 1, "{issues:?}");
    assert!(issues.iter().any(|it| it.rule == "limit.depth" && is_error(it)), "what was not looked at is no good");
}

#[test]
fn errors_end_at_a_number_and_say_so() {
    let of = |count: usize| {
        let names = vec![r#"{"family":"x","nonsense":1}"#; count].join(",");
        found(format!(r#"{{"resourceType":"Patient","name":[{names}]}}"#))
    };
    let few = of(999);
    assert_eq!((count(&few, "structure.unknown-member"), count(&few, "limit.issues")), (999, 0));
    let many = of(1500);
    assert_eq!((count(&many, "structure.unknown-member"), count(&many, "limit.issues")), (1000, 1));
}

#[test]
fn warnings_end_at_a_number_and_errors_are_told_beside_them() {
    let of = |count: usize| {
        let given = vec![r#""a\u0001""#; count].join(",");
        found(format!(r#"{{"resourceType":"Patient","name":[{{"given":[{given}]}}],"birthDate":"yesterday"}}"#))
    };
    let few = of(999);
    assert_eq!((count(&few, "value.control-character"), count(&few, "limit.minor-issues")), (999, 0));
    let many = of(1500);
    assert_eq!((count(&many, "value.control-character"), count(&many, "limit.minor-issues")), (1000, 1));
    assert_eq!(count(&many, "value.date"), 1);
}

#[test]
fn a_link_may_lead_out_of_a_part() {
    let text = r##"{"resourceType":"Patient","text":{"status":"generated",
        "div":"<div xmlns=\"http://www.w3.org/1999/xhtml\"><a href=\"#elsewhere\">x</a></div>"}}"##;
    let tree = Tree::parse(Bytes::from(text), &Limits::default()).unwrap();
    let validator = Validator::r4();
    let has = |issues: Vec<Issue>| issues.iter().any(|issue| issue.rule == "narrative.link");
    assert!(has(validator.validate(tree.root())));
    assert!(!has(validator.validate_in(tree.root(), Some(&|_: &str| None))), "the rest may have it");
}

#[test]
fn what_is_recommended_is_asked_for_where_that_is_wanted() {
    let of = |text: &str, wanted: bool| {
        let tree = Tree::parse(Bytes::from(text.to_owned()), &Limits::default()).unwrap();
        let issues = Validator::r4().with_good_practice(wanted).validate(tree.root());
        let places = issues.into_iter().filter(|it| it.rule == "invariant.dom-6").filter_map(|it| it.expression);
        places.collect::<Vec<_>>()
    };
    let contained = r#"{"resourceType":"Organization","id":"o","name":"x"}"#;
    let without = format!(
        r##"{{"resourceType":"Patient","contained":[{contained}],"managingOrganization":{{"reference":"#o"}}}}"##
    );
    let with = r#"{"resourceType":"Patient","text":{"status":"generated",
        "div":"<div xmlns=\"http://www.w3.org/1999/xhtml\">x</div>"}}"#;
    assert_eq!(of(&without, false), [""; 0]);
    assert_eq!(of(&without, true), ["Patient"], "what is contained has its container's narrative");
    let bundle = format!(
        r#"{{"resourceType":"Bundle","type":"collection","entry":[
            {{"fullUrl":"urn:uuid:00000000-0000-4000-8000-000000000001","resource":{with}}},
            {{"fullUrl":"urn:uuid:00000000-0000-4000-8000-000000000002","resource":{without}}}]}}"#
    );
    assert_eq!(of(&bundle, true), ["Bundle.entry[1].resource"], "a Bundle has no narrative");
}

#[test]
fn a_string_and_a_number_have_a_length() {
    let text =
        |length: usize| found(format!(r#"{{"resourceType":"Patient","name":[{{"text":"{}"}}]}}"#, "x".repeat(length)));
    assert_eq!(count(&text(1 << 20), "value.too-long"), 0);
    let long = text((1 << 20) + 1);
    assert_eq!((count(&long, "value.too-long"), long[0].expression.as_deref()), (1, Some("Patient.name[0].text")));
    let number = |digits: usize| {
        found(format!(
            r#"{{"resourceType":"Observation","status":"final","code":{{"text":"x"}},"valueQuantity":{{"value":0.{}}}}}"#,
            "1".repeat(digits)
        ))
    };
    assert_eq!(count(&number(62), "value.decimal"), 0);
    let issues = number(63);
    assert_eq!(count(&issues, "value.decimal"), 1, "{issues:?}");
    assert_eq!(issues[0].expression.as_deref(), Some("Observation.valueQuantity.value"));
}
