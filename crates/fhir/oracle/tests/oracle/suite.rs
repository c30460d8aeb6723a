//! The expressions of HL7's FHIRPath suite, on many more resources than the suite has.

use crate::Comparison;
use crate::corpus::{self, Place};
use crate::engines::Document;

#[test]
fn expressions_of_the_suite() {
    let files = corpus::archive("crates/fhir/tests/data/fhirpath-r4.tgz");
    let xml = String::from_utf8(files["tests-fhir-r4.xml"].clone()).unwrap();
    let expressions = expressions(&xml);
    assert!(expressions.len() > 700, "{}", expressions.len());
    let inputs = files.iter().filter(|(name, _)| name.ends_with(".json"));
    let mut documents: Vec<_> =
        inputs.map(|(name, content)| Document::new(name, std::str::from_utf8(content).unwrap())).collect();
    documents.extend(corpus::documents(&corpus::core(), 2).into_iter().step_by(7));
    let mut comparison = Comparison::new("suite");
    for document in &documents {
        let place = Place { path: Vec::new(), of: document.value["resourceType"].as_str().map(str::to_owned) };
        for expression in &expressions {
            comparison.ask(expression, expression, document, &place);
        }
    }
    comparison.end();
}

/// What stands in `<expression>`, each once and in one line; not what asks for the time, which is another for each.
fn expressions(xml: &str) -> Vec<String> {
    let mut expressions: Vec<String> = Vec::new();
    for piece in xml.split("<expression").skip(1) {
        let text = piece.split_once('>').and_then(|(_, rest)| rest.split_once("</expression>"));
        let Some((text, _)) = text else { continue };
        let text = ["&lt;<", "&gt;>", "&quot;\"", "&apos;'", "&#39;'", "&amp;&"]
            .iter()
            .fold(text.to_owned(), |text, pair| text.replace(&pair[..pair.len() - 1], &pair[pair.len() - 1..]));
        let tells_time = ["now()", "today()", "timeOfDay()"].iter().any(|name| text.contains(name));
        if !tells_time && !text.contains(['\n', '\t']) && !expressions.contains(&text) {
            expressions.push(text);
        }
    }
    expressions
}
