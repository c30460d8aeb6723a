//! What a caller gives to a check and gets back: bounds of work, and codes to decide.

use std::cell::Cell;

use sluice_fhir::definitions::Strength;
use sluice_fhir::outcome::Severity;
use sluice_fhir::tree::{Limits, Tree};
use sluice_fhir::validate::{Around, Report, Validator};

use crate::path;

fn check(text: &str, around: Around<'_>) -> Report {
    let tree = Tree::parse(text.to_owned().into(), &Limits::default()).unwrap();
    let validator = Validator::r4();
    let Around { steps_max, is_over, collects, .. } = around;
    validator.check(tree.root(), Around { resolve: None, steps_max, is_over, collects })
}

fn ids(report: &Report) -> Vec<String> {
    report.issues.iter().map(|issue| format!("{} {:?}", issue.rule, issue.expression)).collect()
}

/// Whatever the bound, a check that ends at it says so with an error, and one that does not finds what an unbounded one does.
#[test]
fn a_check_that_ends_early_says_so() {
    let text = std::fs::read_to_string(path("tests/cases/check/invariants/in.json")).unwrap();
    let whole = ids(&check(&text, Around::default()));
    let mut ended = [0, 0];
    for steps_max in (0..2_000).step_by(7).chain([u64::MAX]) {
        let report = check(&text, Around { steps_max, ..Around::default() });
        let budget = report.issues.iter().filter(|issue| issue.rule == "limit.budget").count();
        ended[usize::from(budget > 0)] += 1;
        if budget == 0 {
            assert_eq!(ids(&report), whole, "{steps_max}");
        } else {
            let last = report.issues.last().unwrap();
            assert_eq!((budget, &*last.rule, last.severity), (1, "limit.budget", Severity::Error), "{steps_max}");
        }
    }
    assert!(ended[0] > 1 && ended[1] > 1, "{ended:?}");
}

#[test]
fn a_callers_patience_is_asked_for_and_ends_it() {
    let patient = format!(r#"{{"resourceType":"Patient","name":[{}]}}"#, vec![r#"{"family":"x"}"#; 2_000].join(","));
    let asked = Cell::new(0);
    let ends_after = |most: u32| {
        asked.set(0);
        let is_over = || {
            asked.set(asked.get() + 1);
            asked.get() > most
        };
        check(&patient, Around { is_over: Some(&is_over), ..Around::default() })
    };
    assert_eq!(ids(&ends_after(u32::MAX)), [""; 0]);
    assert!(asked.get() > 10, "{}", asked.get());
    assert_eq!(ends_after(5).issues.last().unwrap().rule, "limit.budget");
    assert_eq!(asked.get(), 6, "once it has ended it is not asked again");
}

#[test]
fn codes_that_cannot_be_told_are_collected_with_what_they_become() {
    let text = r#"{"resourceType":"Patient","photo":[{"contentType":"image/png"},{"contentType":"text/plain"}]}"#;
    let alone = check(text, Around::default());
    assert_eq!(alone.issues.len(), 1, "of a value set it is said once");
    assert_eq!((&*alone.issues[0].rule, alone.undecided.len()), ("binding.required-not-checked", 0));
    let report = check(text, Around { collects: true, ..Around::default() });
    assert_eq!((report.issues.len(), report.undecided.len()), (0, 2));
    let one = &report.undecided[1];
    assert_eq!(one.strength, Strength::Required);
    assert!(one.value_set.starts_with("http://hl7.org/fhir/ValueSet/mimetypes"));
    let [coding] = &one.codings[..] else { panic!("one code") };
    assert_eq!((&coding.system, &*coding.code), (&None, "text/plain"));
    for (issue, rule, severity) in [
        (&one.broken, "binding.required", Severity::Error),
        (&one.not_checked, "binding.required-not-checked", Severity::Warning),
    ] {
        assert_eq!((&*issue.rule, issue.severity), (rule, severity));
        assert_eq!(issue.expression.as_deref(), Some("Patient.photo[1].contentType"));
        assert_eq!(issue.about.as_deref(), Some("http://hl7.org/fhir/ValueSet/mimetypes"));
        assert!(!issue.text.contains("text/plain") && issue.position.is_some());
    }
    // What is wrong by its form is nobody's to decide.
    let bad = r#"{"resourceType":"Patient","photo":[{"contentType":"plain text"}]}"#;
    let report = check(bad, Around { collects: true, ..Around::default() });
    assert_eq!((ids(&report).len(), report.undecided.len()), (1, 0));
}
