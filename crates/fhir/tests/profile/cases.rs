//! Our own cases: `tests/cases/profile/<name>/in.json` against `definitions.json`, and the outcome that it must have.

use std::sync::Arc;

use sluice_fhir::definitions::Definitions;
use sluice_fhir::outcome;
use sluice_fhir::package::Package;
use sluice_fhir::profile::{Library, LibraryError};
use sluice_fhir::validate::Validator;

use super::{bless, issues, path};

/// The definitions of a case, each as a file of its own.
fn definitions(text: &[u8]) -> Package {
    let list: Vec<serde_json::Value> = serde_json::from_slice(text).unwrap();
    let files = list.iter().enumerate().map(|(n, one)| (format!("{n:03}.json"), one.to_string().into()));
    Package::of_definitions("case", files)
}

#[test]
fn each_case_has_its_outcome() {
    let mut names: Vec<_> = std::fs::read_dir(path("tests/cases/profile"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("in.json").is_file())
        .collect();
    names.sort();
    assert!(names.len() >= 20, "{}", names.len());
    let mut wrong = Vec::new();
    for case in names {
        let package = definitions(&std::fs::read(case.join("definitions.json")).unwrap());
        let library = Library::new(Definitions::r4(), &[package]).unwrap();
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        let validator = Validator::r4().with_library(Arc::new(library)).with_expectations(name == "expectations");
        let issues = issues(&validator, &std::fs::read(case.join("in.json")).unwrap().into());
        let value: serde_json::Value = serde_json::from_slice(&outcome::to_json(&issues)).unwrap();
        let text = serde_json::to_string_pretty(&value).unwrap() + "\n";
        if bless() {
            std::fs::write(case.join("outcome.json"), &text).unwrap();
            for issue in &issues {
                let place = issue.expression.clone().unwrap_or_default();
                eprintln!("{name}: {} {} {place} {}", issue.rule, issue.severity.code(), issue.text);
            }
        }
        if std::fs::read_to_string(case.join("outcome.json")).unwrap_or_default() != text {
            wrong.push(name);
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn a_broken_package_is_refused_by_name() {
    let files = [("a.json".to_owned(), "{".into())];
    let error = Library::new(Definitions::r4(), &[Package::of_definitions("mine", files)]).unwrap_err();
    assert!(matches!(&error, LibraryError::File { package, .. } if package == "mine"));
    assert!(error.to_string().contains("a.json"), "{error}");
    let broken = definitions(&std::fs::read(path("tests/cases/profile/derived/definitions.json")).unwrap());
    let error = Library::new(Definitions::r4(), &[broken]).unwrap().compile_all().unwrap_err();
    let text = "http://example.org/StructureDefinition/broken: `Patient.nonsense` is no element of Patient";
    assert_eq!(error.to_string(), text);
}

#[test]
fn versions_dependencies_and_what_is_missing() {
    let manifest = |name: &str, version: &str, dependency: &str| {
        let text = format!(r#"{{"name":"{name}","version":"{version}","dependencies":{{{dependency}}}}}"#);
        ("package.json".to_owned(), text.into())
    };
    let profile = |name: &str, version: &str, base: &str, least: u32| {
        let text = format!(
            r#"{{"resourceType":"StructureDefinition","url":"http://x.example/{name}","version":"{version}","type":"Patient",
            "derivation":"constraint","baseDefinition":"{base}","differential":{{"element":[{{"path":"Patient"}},
            {{"path":"Patient.name","min":{least}}}]}}}}"#
        );
        (format!("{name}.json"), text.into())
    };
    let core = "http://hl7.org/fhir/StructureDefinition/Patient";
    let package = |files: Vec<(String, bytes::Bytes)>| Package::from_files(files).unwrap();
    let packages = [
        package(vec![manifest("base", "1.0.0", ""), profile("base", "1.0.0", core, 1)]),
        package(vec![manifest("base", "1.1.0", ""), profile("base", "1.1.0", core, 2)]),
        package(vec![
            manifest("mine", "1", r#""base":"1.0.x","hl7.fhir.r4.core":"4.0.1","gone":"3""#),
            profile("mine", "1", "http://x.example/base", 0),
        ]),
    ];
    let library = Library::new(Definitions::r4(), &packages).unwrap();
    assert_eq!(library.missing().collect::<Vec<_>>(), ["gone#3"]);
    assert_eq!(library.packages().skip(1).collect::<Vec<_>>(), ["base#1.0.0", "base#1.1.0", "mine#1"]);
    let validator = Validator::r4().with_library(Arc::new(library));
    let errors = |profile: &str, names: usize| {
        let names = vec![r#"{"text":"x"}"#; names].join(",");
        let text = format!(r#"{{"resourceType":"Patient","meta":{{"profile":["{profile}"]}},"name":[{names}]}}"#);
        issues(&validator, &text.into()).len()
    };
    // By itself the newest, by its version that one, and from a package the one that it depends on.
    assert_eq!((errors("http://x.example/base", 1), errors("http://x.example/base|1.0.0", 1)), (1, 0));
    assert_eq!(errors("http://x.example/mine", 1), 0);
}

/// What a definition names without a version is of the package that its own depends on, however new another one is.
#[test]
fn profiles_and_value_sets_are_those_of_the_package_that_names_them() {
    let package = |name: &str, version: &str, dependency: &str, definitions: &[serde_json::Value]| {
        let manifest = format!(r#"{{"name":"{name}","version":"{version}","dependencies":{{{dependency}}}}}"#);
        let files = definitions.iter().enumerate().map(|(n, one)| (format!("{n}.json"), one.to_string().into()));
        Package::from_files(files.chain([("package.json".to_owned(), manifest.into())])).unwrap()
    };
    let base = |version: &str, code: &str, least: u32| {
        let set = serde_json::json!({"resourceType": "ValueSet", "url": "http://x.example/set", "version": version,
            "compose": {"include": [{"system": "urn:a", "concept": [{"code": code}]}]}});
        let around = serde_json::json!({"resourceType": "ValueSet", "url": "http://x.example/around", "version": version,
            "compose": {"include": [{"valueSet": ["http://x.example/set"]}]}});
        let name = serde_json::json!({"resourceType": "StructureDefinition", "url": "http://x.example/name", "version": version,
            "type": "HumanName", "derivation": "constraint",
            "baseDefinition": "http://hl7.org/fhir/StructureDefinition/HumanName",
            "differential": {"element": [{"path": "HumanName"}, {"path": "HumanName.given", "min": least}]}});
        package("base", version, "", &[set, around, name])
    };
    let patient = |url: &str| {
        serde_json::json!({"resourceType": "StructureDefinition", "url": url, "version": "1", "type": "Patient",
            "derivation": "constraint", "baseDefinition": "http://hl7.org/fhir/StructureDefinition/Patient",
            "differential": {"element": [{"path": "Patient"},
                {"path": "Patient.name", "type": [{"code": "HumanName", "profile": ["http://x.example/name"]}]},
                {"path": "Patient.maritalStatus", "binding": {"strength": "required", "valueSet": "http://x.example/around"}}]}})
    };
    let packages = [
        base("1.0.0", "old", 1),
        base("2.0.0", "new", 2),
        package("of-old", "1", r#""base":"1.0.0""#, &[patient("http://x.example/of-old")]),
        package("of-new", "1", r#""base":"2.0.0""#, &[patient("http://x.example/of-new")]),
    ];
    let validator = Validator::r4().with_library(Arc::new(Library::new(Definitions::r4(), &packages).unwrap()));
    let rules = |profile: &str, code: &str, given: &str| {
        let text = format!(
            r#"{{"resourceType":"Patient","meta":{{"profile":["{profile}"]}},"name":[{{"given":[{given}]}}],
            "maritalStatus":{{"coding":[{{"system":"urn:a","code":"{code}"}}]}}}}"#
        );
        let found = issues(&validator, &text.into());
        found.into_iter().filter(super::is_error).map(|issue| issue.rule.into_owned()).collect::<Vec<_>>()
    };
    assert_eq!(rules("http://x.example/of-old", "old", r#""a""#), [""; 0]);
    assert_eq!(rules("http://x.example/of-new", "new", r#""a","b""#), [""; 0]);
    assert_eq!(rules("http://x.example/of-old", "new", r#""a""#), ["binding.required"]);
    assert_eq!(rules("http://x.example/of-new", "old", r#""a""#), ["cardinality.min", "binding.required"]);
}
