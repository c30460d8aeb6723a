//! Synthea's transaction Bundles of 30 patients: what remains are Synthea's own faults; and each kind of fault that we put in is found.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{archive, is_error, issues};

const BUNDLES: &str = "tests/data/synthea/r4-30-patients.tar.gz";

#[test]
fn only_known_faults_of_synthea_remain() {
    let mut count: BTreeMap<(String, String), usize> = BTreeMap::new();
    for (name, content) in archive(BUNDLES) {
        if name.ends_with(".json") {
            for issue in issues(&content).unwrap().into_iter().filter(is_error) {
                let place = issue.expression.unwrap_or_default();
                let member = place.rsplit_once("resource.").map_or(&*place, |(_, member)| member).to_owned();
                *count.entry((issue.rule.into_owned(), member)).or_default() += 1;
            }
        }
    }
    // `vital-sign` is no code of observation-category: R4 has `vital-signs`. One patient's language is coded in ISO 639-1 of
    // the Library of Congress, outside of the value set's BCP 47, which is the outer bound there. `(score)` is no unit of
    // UCUM: an annotation is written in braces.
    let remaining: Vec<_> = count.keys().map(|(rule, member)| (rule.as_str(), member.as_str())).collect();
    let language = ("binding.required", "communication[0].language");
    let codes = ["category[0].coding[0].code", "valueQuantity"].map(|place| ("code.unknown", place));
    assert_eq!(remaining, [language, codes[0], codes[1]], "{count:?}");
}

#[test]
fn faults_that_we_put_in_are_found() {
    let bundles = archive(BUNDLES);
    let small = bundles.iter().filter(|(name, _)| name.ends_with(".json")).filter_map(|(_, content)| {
        let bundle: Value = serde_json::from_slice(content).ok()?;
        (bundle["entry"][0]["resource"]["resourceType"] == "Patient").then_some((content.len(), bundle))
    });
    let (_, good) = small.min_by_key(|(size, _)| *size).unwrap();
    let before = issues(&good.to_string().into()).unwrap().into_iter().filter(is_error).count();
    for (member, value, rule) in [
        ("nonsense", json!(1), "structure.unknown-member"),
        ("active", json!("true"), "type.json"),
        ("id", json!("a b"), "value.id"),
        ("gender", json!("xmale"), "binding.required"),
        ("birthDate", json!("1970-02-30"), "value.date"),
        ("name", json!({"family": "x"}), "structure.array-expected"),
        ("managingOrganization", json!({"reference": "Patient/1"}), "reference.target-type"),
    ] {
        let mut bad = good.clone();
        bad["entry"][0]["resource"][member] = value;
        let errors: Vec<_> = issues(&bad.to_string().into()).unwrap().into_iter().filter(is_error).collect();
        assert_eq!(errors.len(), before + 1, "{rule}: {errors:?}");
        // What the definitions do not know is found at the element that has it.
        let member = if rule == "structure.unknown-member" { String::new() } else { format!(".{member}") };
        let place = format!("Bundle.entry[0].resource{member}");
        assert!(
            errors.iter().any(|issue| issue.rule == rule
                && issue.position.is_some()
                && issue.expression.as_deref().is_some_and(|e| e.starts_with(&place))),
            "{rule}: {errors:?}"
        );
    }
}
