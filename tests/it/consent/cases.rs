//! Decisions as data: each file of `tests/cases/consent/decide` holds cases {id, why, consents, request, resource,
//! expected}; a Consent or resource may be the name of a file under `tests/data/consent`.

use std::io::BufReader;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// All cases, by file, with their named files put in.
pub(super) fn all() -> Vec<Value> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(root.join("tests/cases/consent/decide")).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let mut all = Vec::new();
    for file in files {
        let cases: Vec<Value> = serde_json::from_slice(&std::fs::read(&file).unwrap())
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        for mut case in cases {
            for consent in case["consents"].as_array_mut().unwrap() {
                resolve(root, consent);
            }
            resolve(root, &mut case["resource"]);
            all.push(case);
        }
    }
    all
}

fn resolve(root: &Path, value: &mut Value) {
    if let Some(name) = value.as_str() {
        *value = serde_json::from_slice(&std::fs::read(root.join("tests/data/consent").join(name)).unwrap()).unwrap();
    }
}

/// The answers to lines, in their order.
pub(super) fn answers(lines: &[Value]) -> Vec<Value> {
    let input: Vec<u8> =
        lines.iter().flat_map(|line| [line.to_string().into_bytes(), b"\n".to_vec()].concat()).collect();
    let mut output = Vec::new();
    sluice::cli::consent::decide(BufReader::new(&input[..]), &mut output).unwrap();
    let output = String::from_utf8(output).unwrap();
    output.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn every_case_is_decided_as_written() {
    let cases = all();
    assert!(cases.len() > 120, "{} cases", cases.len());
    let mut ids: Vec<_> = cases.iter().map(|case| case["id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    ids.windows(2).for_each(|pair| assert_ne!(pair[0], pair[1], "an id stands twice"));
    let answers = answers(&cases);
    assert_eq!(answers.len(), cases.len());
    let mut wrong = Vec::new();
    for (case, answer) in cases.iter().zip(&answers) {
        assert!(case["why"].as_str().is_some_and(|why| why.len() >= 10), "{} says no why", case["id"]);
        assert_eq!(answer["id"], case["id"]);
        assert_eq!(answer["obligations"], json!([]));
        let expected = &case["expected"];
        let holds = answer["decision"] == expected["decision"]
            && expected.get("reason").is_none_or(|reason| {
                reason.as_object().unwrap().iter().all(|(name, value)| answer["reason"][name] == *value)
            });
        if !holds {
            wrong.push(format!("{}: {} - expected {expected}, got {answer}", case["id"], case["why"]));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn whatever_a_line_holds_there_is_an_answer_and_no_permit() {
    let lines = [
        "{",
        "[]",
        "null",
        "1",
        "\"a\"",
        "{}",
        "{\"id\":1}",
        r#"{"id":"a","id":"b"}"#,
        r#"{"id":"a","request":{}}"#,
        r#"{"id":"a","request":{},"consents":[],"resource":[]}"#,
        r#"{"id":"a","request":{},"consents":{},"resource":{"resourceType":"Observation"}}"#,
        r#"{"id":"a","request":[],"consents":[],"resource":{"resourceType":"Organization"}}"#,
        r#"{"id":"a","request":{"purpose":7},"consents":[],"resource":{"resourceType":"Organization"}}"#,
        r#"{"id":"a","request":{"time":"yesterday"},"consents":[],"resource":{"resourceType":"Organization"}}"#,
        r#"{"id":"a","request":{"memberOf":"Group/1"},"consents":[],"resource":{"resourceType":"Organization"}}"#,
        "\u{feff}{}",
    ];
    for line in lines {
        let mut output = Vec::new();
        sluice::cli::consent::decide(format!("\n{line}\n").as_bytes(), &mut output).unwrap();
        let answer: Value = serde_json::from_slice(&output).unwrap();
        assert!(answer["decision"] == "deny" || answer["decision"] == "undecidable", "{line}: {answer}");
    }
}

#[test]
fn every_consent_prints_back_as_an_equal_one() {
    use sluice::consent::policy::Policy;
    use sluice_fhir::tree::{Limits, Tree};
    let compile = |json: &[u8]| {
        let tree = Tree::parse(bytes::Bytes::copy_from_slice(json), &Limits::default()).unwrap();
        (Policy::compile(tree.root()), sluice_fhir::canonical::to_vec(tree.root()))
    };
    for case in all() {
        for consent in case["consents"].as_array().unwrap() {
            let (policy, _) = compile(consent.to_string().as_bytes());
            let printed = policy.to_json();
            let (again, canonical) = compile(&printed);
            assert_eq!(again, policy, "{}", case["id"]);
            assert_eq!(printed, canonical, "{}: printed in canonical form", case["id"]);
            assert_eq!(again.to_json(), printed);
        }
    }
}

#[test]
fn a_line_that_is_too_long_is_never_answered_by_its_beginning() {
    let permit = r#"{"id":1,"request":{},"consents":[],"resource":{"resourceType":"Organization"}}"#;
    let input = format!("{permit}{}{{\n{permit}\n", " ".repeat(64 << 20));
    let mut output = Vec::new();
    sluice::cli::consent::decide(input.as_bytes(), &mut output).unwrap();
    let output = String::from_utf8(output).unwrap();
    let decisions: Vec<Value> = output.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(decisions.len(), 2);
    assert_eq!(decisions[0]["decision"], "undecidable");
    assert_eq!(decisions[1]["decision"], "permit", "and the next line is read as usual");
}
