//! What a site's policy forbids, and what it lets pass.

use sluice_fhir::tree::{Limits, Tree};
use sluice_fhir::validate::{Policy, Validator};

/// The rules that a resource breaks under a policy, with their places.
fn broken(policy: Policy, resource: &str) -> Vec<(String, String)> {
    let tree = Tree::parse(resource.to_owned().into(), &Limits::default()).unwrap();
    let issues = Validator::r4().with_policy(policy).validate(tree.root());
    issues.into_iter().map(|issue| (issue.rule.into_owned(), issue.expression.unwrap_or_default())).collect()
}

#[track_caller]
fn check(strict: Policy, resource: &str, rule: &str, places: &[&str]) {
    assert_eq!(broken(Policy::default(), resource), []);
    let expected: Vec<_> = places.iter().map(|place| (rule.to_owned(), (*place).to_owned())).collect();
    assert_eq!(broken(strict, resource), expected);
}

#[test]
fn html_in_strings_and_in_markdown() {
    let resource = r#"{"resourceType":"Communication","status":"completed","note":[
        {"text":"a <b>bold</b> word"},{"text":"a \\<b> and 1 < 2"},{"authorString":"<script src='x'>","text":"x"}]}"#;
    let strings = Policy { html_in_strings: false, ..Policy::default() };
    let places = ["Communication.note[0].text", "Communication.note[1].text", "Communication.note[2].authorString"];
    check(strings, resource, "policy.html", &places);
    let markdown = Policy { html_in_markdown: false, ..Policy::default() };
    check(markdown, resource, "policy.html", &places[..1]);
}

#[test]
fn urls_of_examples() {
    let resource = r#"{"resourceType":"Patient","identifier":[{"system":"http://example.org/ids","value":"1"}],
        "photo":[{"url":"http://example.org/photo"},{"url":"http://hospital.test/photo"}]}"#;
    let policy = Policy { example_urls: false, ..Policy::default() };
    check(policy, resource, "policy.example-url", &["Patient.photo[0].url"]);
}

#[test]
fn references_within_parameters() {
    let resource = r#"{"resourceType":"Parameters","parameter":[
        {"name":"patient","resource":{"resourceType":"Patient","id":"1","active":true}},
        {"name":"a","resource":{"resourceType":"Basic","code":{"text":"x"},"subject":{"reference":"Patient/1"}}},
        {"name":"b","resource":{"resourceType":"Basic","code":{"text":"x"},"subject":{"reference":"Patient/2"}}},
        {"name":"c","resource":{"resourceType":"Basic","code":{"text":"x"},"subject":{"reference":"https://a.test/Patient/2"}}}]}"#;
    let policy = Policy { references_elsewhere: false, ..Policy::default() };
    check(policy, resource, "reference.elsewhere", &["Parameters.parameter[2].resource.subject"]);
}

#[test]
fn what_is_contained_may_be_left_alone() {
    let resource = r#"{"resourceType":"Patient","contained":[{"resourceType":"Organization","id":"o","nonsense":1}]}"#;
    assert_eq!(broken(Policy::default(), resource).len(), 3);
    assert_eq!(broken(Policy { contained: false, ..Policy::default() }, resource), []);
}
