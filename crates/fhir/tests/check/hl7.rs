//! HL7's validator suite, its R4 cases in JSON and XML that need no terminology server and no further package. The verdict must be that of HL7's
//! validator, but for the list of known differences; the list gives a reason for each and may only shrink.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use bytes::Bytes;
use sluice_fhir::definitions::Definitions;
use sluice_fhir::outcome::Issue;
use sluice_fhir::package::Package;
use sluice_fhir::profile::Library;
use sluice_fhir::tree::{Limits, Tree};
use sluice_fhir::validate::Validator;
use sluice_fhir::xml;

use super::{archive, bless, is_error, issues, path, table};

const KNOWN: &str = "tests/cases/check/hl7-suite.tsv";

#[test]
fn verdicts_agree_but_for_the_known_differences() {
    let files = documents();
    let cases: Value = serde_json::from_slice(&files["cases.json"]).unwrap();
    let known: BTreeMap<String, String> =
        table(KNOWN).into_iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    let (mut run, mut profile_run, mut differ) = (0, 0, BTreeSet::new());
    let (mut locations, mut expected_locations) = (0, 0);
    for case in cases.as_array().unwrap() {
        let (name, file) = (case["name"].as_str().unwrap(), case["file"].as_str().unwrap());
        let apart = ["cda", "cdshooks", "shc", "logical", "json5"].contains(&case["module"].as_str().unwrap());
        let expected = &case["expected"];
        if apart
            || !(file.ends_with(".json") || file.ends_with(".xml"))
            || case.get("packages").is_some()
            || expected["usesTerminologyServer"] == true
        {
            continue;
        }
        let Some(validator) = validator(case, &files) else { continue };
        run += 1;
        let (valid, found) = verdict(&validator, &files[file]);
        for issue in expected["issues"].as_array().into_iter().flatten().filter(|i| i["severity"] == "error") {
            expected_locations += 1;
            locations += usize::from(issue["expression"][0].as_str().is_some_and(|e| found.contains(&plain(e))));
        }
        if valid != expected["valid"].as_bool().unwrap() {
            differ.insert(name.to_owned());
            if bless() && !known.contains_key(name) {
                eprintln!("{name}\t{file}: ours {valid}, {:?}\n    theirs {}", found, expected["issues"]);
            }
        }
        // The second pass: against a profile that the case names.
        let expected = &case["profile"]["expected"];
        let source = case["profile"]["source"].as_str().filter(|_| expected["usesTerminologyServer"] == false);
        let Some(url) = source.and_then(|source| url_of(files.get(source)?)) else { continue };
        profile_run += 1;
        let (valid, found) = verdict(&validator.with_profiles([url]), &files[file]);
        if valid != expected["valid"].as_bool().unwrap() {
            differ.insert(format!("{name} profile"));
            if bless() && !known.contains_key(&format!("{name} profile")) {
                eprintln!("{name} profile\t{file}: ours {valid}, {:?}\n    theirs {}", found, expected["issues"]);
            }
        }
    }
    let unlisted: Vec<_> = differ.iter().filter(|name| !known.contains_key(*name)).collect();
    let agreeing: Vec<_> = known.keys().filter(|name| !differ.contains(*name)).collect();
    eprintln!(
        "{run} cases and {profile_run} against a profile, {} differ; of {expected_locations} expected errors {locations} at the same place",
        differ.len()
    );
    assert!(unlisted.is_empty(), "differ and are not listed in {}: {unlisted:?}", path(KNOWN).display());
    assert!(agreeing.is_empty(), "listed, but agree by now: {agreeing:?}");
    assert!(known.values().all(|reason| reason.len() > 5), "every difference has a reason");
    assert!(run > 200 && profile_run > 40, "{run} {profile_run}");
}

/// The files of the suite; what is XML as the JSON that it means, or as it stands where it means none.
fn documents() -> BTreeMap<String, Bytes> {
    let mut files = archive("tests/data/validator/r4-cases.tar.gz");
    for (name, content) in &mut files {
        if name.ends_with(".xml")
            && let Ok(tree) = xml::read(content, &Limits::default(), &Definitions::r4())
        {
            *content = tree.bytes().clone();
        }
    }
    files
}

/// With the definitions that a case brings along; None if one of them can't be read.
fn validator(case: &Value, files: &BTreeMap<String, Bytes>) -> Option<Validator> {
    let profile = &case["profile"];
    let lists = [&case["supporting"], &case["profiles"], &profile["supporting"], &profile["profiles"]];
    let names = lists.iter().flat_map(|list| list.as_array().into_iter().flatten()).chain([&profile["source"]]);
    let names: BTreeSet<&str> = names.filter_map(Value::as_str).collect();
    let brought: Option<Vec<_>> =
        names.into_iter().map(|name| Some((format!("{name}.json"), files.get(name)?.clone()))).collect();
    let package = Package::of_definitions("case", brought?);
    let library = Library::new(Definitions::r4(), &[package]).ok()?;
    Some(Validator::r4().with_library(Arc::new(library)))
}

/// Valid or not, and where the errors are. HL7's validator takes an extension that nobody defines for an error.
fn verdict(validator: &Validator, content: &Bytes) -> (bool, BTreeSet<String>) {
    let Ok(tree) = Tree::parse(content.clone(), &Limits::default()) else { return (false, BTreeSet::new()) };
    let is_wrong = |issue: &Issue| is_error(issue) || &*issue.rule == "extension.unknown";
    let issues = validator.validate(tree.root());
    let errors: BTreeSet<_> = issues.into_iter().filter(is_wrong).filter_map(|issue| issue.expression).collect();
    (errors.is_empty(), errors)
}

fn url_of(definition: &Bytes) -> Option<String> {
    let tree = Tree::parse(definition.clone(), &Limits::default()).ok()?;
    Some(tree.root().member("url")?.as_str()?.into_owned())
}

/// HL7's locations write the type of a resource in a Bundle as a comment, and that of a choice as a call:
/// `Bundle.entry[0].resource/*Patient/1*/.deceased.ofType(boolean)`.
fn plain(expression: &str) -> String {
    let mut out = String::new();
    let mut rest = expression;
    while let Some((before, after)) = rest.split_once("/*") {
        out += before;
        rest = after.split_once("*/").map_or("", |(_, rest)| rest);
    }
    out += rest;
    while let Some((before, after)) = out.split_once(".ofType(") {
        let (name, rest) = after.split_once(')').unwrap_or((after, ""));
        out = format!("{before}{}{}{rest}", name[..1].to_ascii_uppercase(), &name[1..]);
    }
    out
}

/// Whatever else a file of the suite is, it does not bring the validator down.
#[test]
fn no_file_of_the_suite_is_a_crash() {
    for (name, content) in archive("tests/data/validator/r4-cases.tar.gz") {
        if name.ends_with(".json") {
            let _ = issues(&content);
        }
    }
}
