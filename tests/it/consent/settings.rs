//! What a door may set: how several Consents go together, and what holds where none speaks.

use bytes::Bytes;
use serde_json::{Value, json};
use sluice::consent::decide::{Ask, Combine, Implicit, Outcome, PolicySet, Request, Settings};
use sluice::consent::exchange::decide_resource;
use sluice::consent::policy::Policy;
use sluice_fhir::tree::{Limits, Tree};

fn tree(value: &Value) -> Tree {
    Tree::parse(Bytes::from(value.to_string()), &Limits::default()).unwrap()
}

fn consent(id: &str, kind: &str, date: Option<&str>) -> Value {
    let mut consent = json!({"resourceType": "Consent", "id": id, "status": "active", "patient": {"reference": "Patient/a"},
        "scope": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/consentscope", "code": "patient-privacy"}]},
        "provision": {"type": kind}});
    if let Some(date) = date {
        consent["dateTime"] = date.into();
    }
    consent
}

fn decide(settings: Settings, consents: &[Value], purpose: Option<&str>, level: Option<&str>) -> Outcome {
    let mut resource = json!({"resourceType": "Observation", "subject": {"reference": "Patient/a"}});
    if let Some(level) = level {
        let system = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality";
        resource["meta"] = json!({"security": [{"system": system, "code": level}]});
    }
    let policies = PolicySet::new(consents.iter().map(|consent| Policy::compile(tree(consent).root())));
    let request = Request::new(&Ask { purpose, ..Ask::default() });
    decide_resource(settings, &policies, &request, tree(&resource).root()).outcome
}

#[test]
fn the_most_recent_that_speaks_decides() {
    let recent = Settings { combine: Combine::MostRecent, ..Settings::default() };
    let (permit, deny) = (consent("1", "permit", Some("2022-05-01")), consent("2", "deny", Some("2021")));
    let unreadable = consent("3", "maybe", Some("2001"));
    let same_day = consent("4", "deny", Some("2022-05-01T12:00:00Z"));
    let undated = consent("5", "deny", None);
    for (why, consents, expected) in [
        ("the later permits", vec![&permit, &deny], Outcome::Permit),
        ("dates that touch tell nothing: deny goes first", vec![&permit, &same_day], Outcome::Deny),
        ("a denial without a date can't be set aside", vec![&permit, &undated], Outcome::Deny),
        ("nothing lifts what can't be read", vec![&permit, &unreadable], Outcome::Undecidable),
    ] {
        let forth: Vec<Value> = consents.iter().map(|consent| (*consent).clone()).collect();
        let back: Vec<Value> = forth.iter().rev().cloned().collect();
        assert_eq!(decide(recent, &forth, None, None), expected, "{why}");
        assert_eq!(decide(recent, &back, None, None), expected, "{why}, turned around");
    }
    assert_eq!(decide(Settings::default(), &[permit, deny], None, None), Outcome::Deny, "deny overrides by default");
}

#[test]
fn the_implicit_policy_speaks_where_no_consent_does() {
    use Implicit::{AllNormal, BasicNormal, BreakGlassOnly, Deny, Permit};
    for (implicit, purpose, level, permits) in [
        (Permit, None, None, true),
        (Deny, Some("TREAT"), Some("N"), false),
        (BasicNormal, Some("TREAT"), Some("N"), true),
        (BasicNormal, Some("ETREAT"), Some("L"), true),
        (BasicNormal, Some("TREAT"), Some("R"), false),
        (BasicNormal, Some("TREAT"), None, false),
        (BasicNormal, Some("HPAYMT"), Some("N"), false),
        (AllNormal, Some("HPAYMT"), Some("N"), true),
        (AllNormal, None, Some("N"), false),
        (AllNormal, Some("HPAYMT"), Some("V"), false),
        (BreakGlassOnly, Some("BTG"), Some("V"), true),
        (BreakGlassOnly, Some("ETREAT"), None, true),
        (BreakGlassOnly, Some("TREAT"), Some("N"), false),
    ] {
        let settings = Settings { implicit, ..Settings::default() };
        let expected = if permits { Outcome::Permit } else { Outcome::Deny };
        assert_eq!(decide(settings, &[], purpose, level), expected, "{implicit:?} {purpose:?} {level:?}");
        let denied = decide(settings, &[consent("1", "deny", None)], purpose, level);
        assert_eq!(denied, Outcome::Deny, "a recorded Consent goes before {implicit:?}");
    }
}
