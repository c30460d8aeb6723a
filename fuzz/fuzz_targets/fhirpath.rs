//! An expression, and behind a zero byte a document: it is refused or it answers, within its budget.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use sluice_fhir::definitions::Definitions;
use sluice_fhir::path::{Budget, Document, Environment, Expression, Mode, Offline};
use sluice_fhir::tree::{Limits, Tree};

const PATIENT: &[u8] = br##"{"resourceType":"Patient","id":"p","active":true,"name":[{"family":"A","given":["B",null],
    "_given":[null,{"extension":[{"url":"u","valueQuantity":{"value":1.50,"system":"http://unitsofmeasure.org","code":"mg"}}]}]}],
    "birthDate":"1974-12","contained":[{"resourceType":"Observation","id":"o","effectiveDateTime":"2020-01-01T10:00:00+02:00"}],
    "generalPractitioner":[{"reference":"#o"},{"reference":"Practitioner/1"}]}"##;

fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.splitn(2, |byte| *byte == 0);
    let Some(Ok(text)) = parts.next().map(std::str::from_utf8) else { return };
    let document = parts.next().unwrap_or(PATIENT);
    let Ok(tree) = Tree::parse(Bytes::copy_from_slice(document), &Limits::default()) else { return };
    let definitions = Definitions::r4();
    let host = Offline::new(&definitions);
    let budget = Budget { steps_max: 50_000, text_bytes_max: 1 << 16 };
    let environment = Environment { now: Some("2026-03-04T05:06:07Z"), budget, ..Environment::new(&host) };
    for mode in [Mode::Strict, Mode::Lenient] {
        let Ok(expression) = Expression::compile(text, &definitions, tree.resource_type(), mode) else { continue };
        let document = Document::new(&tree);
        if let Ok(answer) = expression.evaluate(&document, tree.root(), &environment) {
            for value in answer.values {
                let mut json = Vec::new();
                value.write_json(&mut json);
                assert!(serde_json::from_slice::<serde_json::Value>(&json).is_ok());
            }
        }
    }
});
