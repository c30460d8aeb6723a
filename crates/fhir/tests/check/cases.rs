//! Our own cases: `tests/cases/check/<name>/in.json`, and the outcome that it must have in `outcome.json`.

use sluice_fhir::outcome;

use super::{bless, issues, path};

#[test]
fn each_case_has_its_outcome() {
    let mut names: Vec<_> = std::fs::read_dir(path("tests/cases/check"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("in.json").is_file())
        .collect();
    names.sort();
    assert!(names.len() >= 20, "{}", names.len());
    let mut wrong = Vec::new();
    for case in names {
        let input = std::fs::read(case.join("in.json")).unwrap();
        let issues = issues(&input.into()).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&outcome::to_json(&issues)).unwrap();
        let text = serde_json::to_string_pretty(&value).unwrap() + "\n";
        let file = case.join("outcome.json");
        if bless() {
            std::fs::write(&file, &text).unwrap();
        }
        if std::fs::read_to_string(&file).unwrap_or_default() != text {
            wrong.push(case.file_name().unwrap().to_string_lossy().into_owned());
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// Every rule is shown by a case, or is named here: in `limits`, in `policy`, or beside its code.
#[test]
fn every_rule_has_a_case() {
    let elsewhere = [
        "limit.budget",
        "limit.depth",
        "limit.issues",
        "limit.minor-issues",
        "value.too-long",
        "value.decimal",
        "invariant.key",
        "policy.example-url",
        "policy.html",
        "reference.elsewhere",
        "invariant.dom-6",
    ];
    let mut shown = String::new();
    for folder in ["tests/cases/check", "tests/cases/profile"] {
        for entry in std::fs::read_dir(path(folder)).unwrap() {
            shown += &std::fs::read_to_string(entry.unwrap().path().join("outcome.json")).unwrap_or_default();
        }
    }
    let missing: Vec<_> = sluice_fhir::validate::rules::ALL
        .iter()
        .map(|rule| rule.id)
        .filter(|id| !elsewhere.contains(id) && !shown.contains(&format!("\"{id}\"")))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// The page is the table.
#[test]
fn the_documentation_is_the_table() {
    let file = path("docs/rules.md");
    let text = std::fs::read_to_string(&file).unwrap();
    let table = sluice_fhir::validate::rules::markdown();
    let (head, rest) = text.split_once("<!-- rules -->\n").unwrap();
    let (_, tail) = rest.split_once("<!-- /rules -->").unwrap();
    let whole = format!("{head}<!-- rules -->\n{table}<!-- /rules -->{tail}");
    if bless() {
        std::fs::write(&file, &whole).unwrap();
    }
    assert!(whole == text || bless(), "rebuild with SLUICE_BLESS=1");
}
