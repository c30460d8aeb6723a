//! What an event says: by payload and granularity, against CloudEvents, its own schema and FHIR.

use std::path::Path;

use jsonschema::Validator as Schema;
use serde_json::{Value, json as value};
use sluice::route::event;
use sluice_fhir::outcome::Severity;
use sluice_fhir::tree::{Limits, Tree};
use sluice_fhir::validate::Validator;

use super::order::{OPEN, joint};
use super::*;
use crate::story;

fn data(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/cloudevents").join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The published schema of events, or of their envelope alone.
fn schema(part: Option<&str>) -> Schema {
    let mut schema: Value = serde_json::from_str(event::SCHEMA).unwrap();
    if let Some(part) = part {
        let defs = schema["$defs"].take();
        schema = value!({"$schema": schema["$schema"], "$ref": format!("#/$defs/{part}"), "$defs": defs});
    }
    jsonschema::validator_for(&schema).unwrap()
}

fn fits(schema: &Schema, event: &Value) {
    let errors: Vec<String> =
        schema.iter_errors(event).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:#?}");
}

#[test]
fn the_envelope_agrees_with_the_vectors_of_cloudevents() {
    let schema = schema(Some("envelope"));
    let vectors = data("json-format-events.json");
    for (part, valid) in [("valid", true), ("invalid", false)] {
        let vectors = vectors[part].as_array().unwrap();
        assert!(vectors.len() >= 10);
        for vector in vectors {
            assert_eq!(schema.is_valid(&vector["event"]), valid, "{}", vector["id"]);
        }
    }
}

/// Sends two Observations and a third about another patient, as one transaction.
async fn sent(payload: Payload, granularity: Granularity) -> (Flow, Vec<Message>) {
    let flow = Flow::open(Subscriber { payload, granularity, ..subscriber(Wait::Log) }, OPEN).await;
    let patients = ["p", "q"].map(|id| entry(&story::patient(id)));
    let canary = |id: &str, patient: &str| observation(id, patient);
    flow.post(&[&patients[..], &[canary("1", "p"), canary("2", "q"), canary("3", "p")]].concat()).await;
    flow.route().await;
    flow.publish().await;
    let taken = flow.broker.taken();
    (flow, taken)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_payload_and_granularity_verifies_and_fits_its_schemas() {
    let cloudevents = jsonschema::validator_for(&data("cloudevents.schema.json")).unwrap();
    let (own, envelope, fhir) = (schema(None), schema(Some("envelope")), Validator::r4());
    for payload in [Payload::IdOnly, Payload::None, Payload::Full] {
        for (granularity, events) in [(Granularity::Resource, 3), (Granularity::Unit, 2)] {
            let (flow, taken) = sent(payload, granularity).await;
            assert_eq!(taken.len(), events, "{payload:?} {granularity:?}");
            for message in &taken {
                let verdict = verify(&message.body, &flow.trust());
                assert!(verdict.verified, "{payload:?} {granularity:?} {:?}", verdict.broken_link);
                let event = json(message);
                fits(&cloudevents, &event);
                fits(&envelope, &event);
                fits(&own, &event);
                let kind = event["type"].as_str().unwrap();
                let of_kind = serde_json::from_slice(&event::schema(kind).unwrap().unwrap()).unwrap();
                fits(&jsonschema::validator_for(&of_kind).unwrap(), &event);
                let text = event["data"].to_string();
                let tree = Tree::parse(text.clone().into(), &Limits::default()).unwrap();
                let errors: Vec<_> = fhir
                    .validate(tree.root())
                    .into_iter()
                    .filter(|issue| matches!(issue.severity, Severity::Error | Severity::Fatal))
                    .map(|issue| format!("{} {:?}", issue.rule, issue.expression))
                    .collect();
                assert!(errors.is_empty(), "{errors:?}\n{text}");
                let shown = event["data"]["entry"].as_array().unwrap();
                let focus = shown[0]["resource"]["parameter"][3]["part"].as_array().unwrap();
                assert_eq!(focus[0], value!({"name": "event-number", "valueString": "1"}));
                assert_eq!(text.contains("CANARY"), payload == Payload::Full);
                assert_eq!(text.contains("Observation/"), payload != Payload::None);
                assert_eq!(
                    shown[1..].iter().all(|it| it["resource"].is_object()),
                    payload == Payload::Full || shown.len() == 1
                );
                if payload == Payload::None {
                    assert_eq!((shown.len(), focus.len()), (1, 2));
                }
                // Headers say again what the attributes say.
                for (name, header) in &message.headers {
                    assert_eq!(event[name.strip_prefix("cloudEvents:").unwrap()], value!(header), "{name}");
                }
                assert!(message.headers.iter().any(|(name, _)| name == "cloudEvents:subject"));
            }
            if granularity == Granularity::Unit && payload != Payload::None {
                let entries = |it: &Message| json(it)["data"]["entry"].as_array().unwrap().len();
                let mut counts: Vec<_> = taken.iter().map(entries).collect();
                counts.sort_unstable();
                assert_eq!(counts, [2, 3], "one event for each patient, whatever lies between");
            }
        }
    }
    assert!(!own.is_valid(&value!({"specversion": "1.0", "id": "1", "source": "a", "type": "b"})));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_unit_is_one_event_and_what_is_about_two_stays_in_order() {
    let granularity = Granularity::Unit;
    let flow = Flow::open(Subscriber { granularity, ..subscriber(Wait::Log) }, OPEN).await;
    flow.post(&["p", "q"].map(|id| entry(&story::patient(id)))).await;
    let many: Vec<String> = (0..150).map(|number| observation(&format!("m{number}"), "p")).collect();
    flow.post(&many).await;
    // The second about p must not join the first, since what is about both stands between them.
    flow.post(&[observation("1", "p"), joint("2", &["p", "q"]), observation("3", "p"), observation("4", "p")]).await;
    assert_eq!(flow.route().await.events, 4);
    assert_eq!(flow.publish().await.sent, 4);
    let taken = flow.broker.taken();
    assert_eq!(json(&taken[0])["data"]["entry"].as_array().unwrap().len(), 151);
    assert_eq!(about(&taken)[1..], ["1", "2", "3"]);
    assert!(taken.iter().all(|it| verify(&it.body, &flow.trust()).verified));
}

#[test]
fn a_schema_is_published_for_types_of_events_alone() {
    for kind in ["", "event", "dev.sluice..create.v1", "dev.sluice.care.delete.v1", "dev.sluice.CARE.create.v1"] {
        assert!(event::schema(kind).unwrap().is_none(), "{kind}");
    }
}
