//! What must hold of every decision, over Consents, requests and records that are made at random from a small world, so
//! that they meet often.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::cases::{all, answers};

const SYSTEMS: [(&str, &[&str]); 3] = [
    ("http://terminology.hl7.org/CodeSystem/v3-ActReason", &["TREAT", "ETREAT", "HRESCH"]),
    ("http://terminology.hl7.org/CodeSystem/v3-Confidentiality", &["N", "R", "V"]),
    ("http://hl7.org/fhir/resource-types", &["Observation", "Condition"]),
];

fn coding(of: usize) -> impl Strategy<Value = Value> {
    let (system, codes) = SYSTEMS[of];
    prop::sample::select(codes).prop_map(move |code| json!({"system": system, "code": code}))
}

fn some<T: std::fmt::Debug + Clone>(strategy: impl Strategy<Value = T>) -> impl Strategy<Value = Option<T>> {
    prop::option::weighted(0.4, strategy)
}

fn provision() -> BoxedStrategy<Value> {
    let kind = prop::sample::select(vec!["permit", "permit", "deny"]);
    let actor = prop::sample::select(vec!["Practitioner/p", "Organization/h", "Practitioner/x"]).prop_map(|actor| {
        json!({"role": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ParticipationType", "code": "IRCP"}]},
               "reference": {"reference": actor}})
    });
    let period = prop::sample::select(vec!["2021", "2022", "2023"]);
    let leaf = (
        kind,
        some(prop::collection::vec(coding(0), 1..3)),
        some(prop::collection::vec(coding(1), 1..3)),
        some(prop::collection::vec(coding(2), 1..3)),
        some(prop::collection::vec(actor, 1..3)),
        some(period.clone()),
        some(period),
    )
        .prop_map(|(kind, purposes, labels, classes, actors, data_period, period)| {
            let mut provision = json!({"type": kind});
            let mut put = |name: &str, value: Option<Value>| {
                if let Some(value) = value {
                    provision[name] = value;
                }
            };
            put("purpose", purposes.map(Value::from));
            put("securityLabel", labels.map(Value::from));
            put("class", classes.map(Value::from));
            put("actor", actors.map(Value::from));
            put("dataPeriod", data_period.map(|year| json!({"start": year, "end": year})));
            put("period", period.map(|year| json!({"end": year})));
            provision
        })
        .boxed();
    let nested = (leaf.clone(), prop::collection::vec(leaf.clone(), 0..3)).prop_map(with_nested);
    (leaf, prop::collection::vec(nested, 0..3)).prop_map(with_nested).boxed()
}

fn with_nested((mut provision, nested): (Value, Vec<Value>)) -> Value {
    if !nested.is_empty() {
        provision["provision"] = nested.into();
    }
    provision
}

fn consent() -> impl Strategy<Value = Value> {
    (provision(), prop::sample::select(vec!["a", "a", "b"]), "[a-z]{12}").prop_map(|(provision, patient, id)| {
        json!({"resourceType": "Consent", "id": id, "status": "active",
            "scope": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/consentscope", "code": "patient-privacy"}]},
            "patient": {"reference": format!("Patient/{patient}")}, "provision": provision})
    })
}

fn resource() -> impl Strategy<Value = Value> {
    let labels = prop::collection::vec(coding(1), 0..3);
    let kind = prop::sample::select(vec!["Observation", "Condition"]);
    let date = some(prop::sample::select(vec!["2021-05-01", "2022-05-01", "2022"]));
    (kind, labels, date, prop::sample::select(vec!["a", "a", "b"])).prop_map(|(kind, labels, date, patient)| {
        let mut resource =
            json!({"resourceType": kind, "id": "r", "subject": {"reference": format!("Patient/{patient}")}});
        if !labels.is_empty() {
            resource["meta"] = json!({"security": labels});
        }
        if let Some(date) = date {
            resource[if kind == "Observation" { "effectiveDateTime" } else { "onsetDateTime" }] = date.into();
        }
        resource
    })
}

fn request() -> impl Strategy<Value = Value> {
    let purpose = some(prop::sample::select(SYSTEMS[0].1));
    (purpose, any::<bool>(), any::<bool>()).prop_map(|(purpose, has_actor, has_time)| {
        json!({"purpose": purpose, "actor": has_actor.then_some("Practitioner/p"), "memberOf": ["Organization/h"],
               "time": has_time.then_some("2022-05-05T12:00:00Z")})
    })
}

fn line(consents: &[Value], request: &Value, resource: &Value) -> Value {
    json!({"id": 1, "consents": consents, "request": request, "resource": resource})
}

fn decide(consents: &[Value], request: &Value, resource: &Value) -> String {
    answers(&[line(consents, request, resource)])[0]["decision"].as_str().unwrap().to_owned()
}

/// Every list in a value, turned around.
fn reversed(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().rev().map(reversed).collect(),
        Value::Object(members) => members.iter().rev().map(|(name, member)| (name.clone(), reversed(member))).collect(),
        other => other.clone(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn another_consent_never_turns_a_refusal_into_a_permit_by_denying(
        consents in prop::collection::vec(consent(), 0..3), extra in consent(), request in request(), resource in resource(),
    ) {
        let before = decide(&consents, &request, &resource);
        let mut denying = extra;
        denying["provision"] = deny_all(&denying["provision"]);
        let after = decide(&[&consents[..], &[denying]].concat(), &request, &resource);
        prop_assert!(after != "permit" || before == "permit");
    }

    #[test]
    fn no_permit_of_one_patient_releases_the_record_of_another(
        consents in prop::collection::vec(consent(), 0..4), request in request(), resource in resource(),
    ) {
        let whose = &resource["subject"];
        let theirs: Vec<Value> = consents.iter().filter(|consent| consent["patient"] == *whose).cloned().collect();
        prop_assert_eq!(decide(&consents, &request, &resource), decide(&theirs, &request, &resource));
    }

    #[test]
    fn order_never_matters(
        consents in prop::collection::vec(consent(), 0..4), request in request(), resources in prop::collection::vec(resource(), 1..4),
    ) {
        let entries: Vec<_> = resources.iter().map(|resource| json!({"resource": resource})).collect();
        let bundle = json!({"resourceType": "Bundle", "type": "collection", "entry": entries});
        let consents_back = reversed(&Value::from(consents.clone()));
        let back = decide(consents_back.as_array().unwrap(), &reversed(&request), &reversed(&bundle));
        prop_assert_eq!(decide(&consents, &request, &bundle), back);
    }

    #[test]
    fn a_bundle_is_permitted_only_if_each_entry_is(
        consents in prop::collection::vec(consent(), 0..4), request in request(), resources in prop::collection::vec(resource(), 1..4),
    ) {
        let entries: Vec<_> = resources.iter().map(|resource| json!({"resource": resource})).collect();
        let bundle = json!({"resourceType": "Bundle", "type": "collection", "entry": entries});
        let each: Vec<String> = resources.iter().map(|resource| decide(&consents, &request, resource)).collect();
        let all = ["deny", "undecidable", "permit"].into_iter().find(|word| each.iter().any(|each| each == word));
        let whole = decide(&consents, &request, &bundle);
        prop_assert_eq!(Some(whole.as_str()), all);
    }

    #[test]
    fn knowing_less_never_permits_more(
        consents in prop::collection::vec(consent(), 1..3), request in request(), resource in resource(),
        member in prop::sample::select(vec!["purpose", "actor", "time"]),
    ) {
        let mut less = request.clone();
        less[member] = Value::Null;
        let (more, less) = (decide(&consents, &request, &resource), decide(&consents, &less, &resource));
        prop_assert!(less != "permit" || more == "permit", "{} without {}, {} with it", less, member, more);
    }
}

/// A provision tree with each type turned to deny.
fn deny_all(provision: &Value) -> Value {
    let mut provision = provision.clone();
    provision["type"] = "deny".into();
    if let Some(nested) = provision.get_mut("provision").and_then(Value::as_array_mut) {
        for nested in nested {
            *nested = deny_all(nested);
        }
    }
    provision
}

/// Puts what can't be read into each object of a value, one at a time.
fn with_unreadable(value: &Value, member: (&str, &Value), make: &mut dyn FnMut(Value)) {
    match value {
        Value::Object(members) => {
            let mut changed = value.clone();
            changed[member.0] = member.1.clone();
            make(changed);
            for (name, inner) in members {
                with_unreadable(inner, member, &mut |inner| {
                    let mut changed = value.clone();
                    changed[name] = inner;
                    make(changed);
                });
            }
        }
        Value::Array(items) => {
            for (index, inner) in items.iter().enumerate() {
                with_unreadable(inner, member, &mut |inner| {
                    let mut changed = value.clone();
                    changed[index] = inner;
                    make(changed);
                });
            }
        }
        _ => {}
    }
}

/// A restriction that can't be read, wherever it stands in the provisions, never leaves a permit that relied on them.
#[test]
fn what_cannot_be_read_never_widens() {
    let mut lines = Vec::new();
    for case in all() {
        let consents = case["consents"].as_array().unwrap();
        for (index, consent) in consents.iter().enumerate() {
            let Some(provision) = consent.get("provision") else { continue };
            for (name, value) in
                [("modifierExtension", json!([{"url": "http://example.org"}])), ("except", json!([{}]))]
            {
                with_unreadable(provision, (name, &value), &mut |provision| {
                    let mut consents = consents.clone();
                    consents[index]["provision"] = provision;
                    lines.push((
                        line(&consents, &case["request"], &case["resource"]),
                        case["expected"]["decision"].clone(),
                    ));
                });
            }
        }
    }
    assert!(lines.len() > 3000, "{}", lines.len());
    let (lines, before): (Vec<_>, Vec<_>) = lines.into_iter().unzip();
    for ((line, before), answer) in lines.iter().zip(before).zip(answers(&lines)) {
        assert!(answer["decision"] != "permit" || before == "permit", "{line}");
    }
}
