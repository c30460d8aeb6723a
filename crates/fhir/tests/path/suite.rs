//! HL7's tests of FHIRPath for R4, all of them, strictly: an expected error must be an error, types and order of the items
//! must be as given, texts to the letter. What differs stands in `known.tsv`, each with its reason; that list only shrinks.

use std::collections::{BTreeMap, BTreeSet};

use quick_xml::events::Event;
use sluice_fhir::definitions::Definitions;
use sluice_fhir::path::{Document, Environment, Expression, Mode, Offline};
use sluice_fhir::tree::Tree;

/// One test of the suite.
#[derive(Default)]
struct Test {
    name: String,
    input: String,
    is_predicate: bool,
    is_invalid: bool,
    expression: String,
    outputs: Vec<(Option<String>, String)>,
}

fn read(xml: &str) -> Vec<Test> {
    let mut reader = quick_xml::Reader::from_str(xml);
    let (mut tests, mut group, mut test, mut text) = (Vec::new(), String::new(), Test::default(), String::new());
    loop {
        let event = reader.read_event().unwrap();
        let attribute = |tag: &quick_xml::events::BytesStart<'_>, name: &str| {
            tag.try_get_attribute(name)
                .unwrap()
                .map(|found| found.normalized_value(quick_xml::XmlVersion::Implicit1_0).unwrap().into_owned())
        };
        match &event {
            Event::Eof => return tests,
            Event::Start(tag) | Event::Empty(tag) => {
                text.clear();
                match tag.name().as_ref() {
                    b"group" => group = attribute(tag, "name").unwrap(),
                    b"test" => {
                        test = Test {
                            name: format!("{group}/{}", attribute(tag, "name").unwrap()),
                            input: attribute(tag, "inputfile").unwrap_or_default().replace(".xml", ".json"),
                            is_predicate: attribute(tag, "predicate").as_deref() == Some("true"),
                            ..Test::default()
                        };
                    }
                    b"expression" => test.is_invalid = attribute(tag, "invalid").is_some(),
                    b"output" => test.outputs.push((attribute(tag, "type"), String::new())),
                    _ => {}
                }
            }
            Event::Text(piece) => text.push_str(&piece.decode().unwrap()),
            Event::CData(piece) => text.push_str(&piece.decode().unwrap()),
            Event::GeneralRef(entity) => {
                let name = entity.decode().unwrap();
                match entity.resolve_char_ref().unwrap() {
                    Some(char) => text.push(char),
                    None => text.push_str(quick_xml::escape::resolve_predefined_entity(&name).unwrap()),
                }
            }
            Event::End(tag) => match tag.name().as_ref() {
                b"expression" => test.expression = std::mem::take(&mut text),
                b"output" => test.outputs.last_mut().unwrap().1 = std::mem::take(&mut text),
                b"test" => tests.push(std::mem::take(&mut test)),
                _ => {}
            },
            _ => {}
        }
    }
}

/// What differs, in words; None if all is as it should be.
fn difference(test: &Test, tree: &Tree) -> Option<String> {
    let definitions = Definitions::r4();
    let host = Offline::new(&definitions);
    let environment = Environment { now: Some("2026-03-04T05:06:07.089+00:00"), ..Environment::new(&host) };
    let expression = match Expression::compile(&test.expression, &definitions, tree.resource_type(), Mode::Strict) {
        Ok(expression) => expression,
        // Without an output, an error is as good as nothing.
        Err(error) => return (!test.is_invalid && !test.outputs.is_empty()).then(|| error.to_string()),
    };
    let document = Document::new(tree);
    let answer = match expression.evaluate(&document, tree.root(), &environment) {
        Ok(answer) => answer,
        Err(error) => return (!test.is_invalid && !test.outputs.is_empty()).then(|| error.to_string()),
    };
    let is = if test.is_predicate {
        vec![("boolean".to_owned(), answer.truth().unwrap_or(!answer.values.is_empty()).to_string())]
    } else {
        let text = |value: &sluice_fhir::path::Value<'_>| {
            (value.type_name().to_owned(), value.text().unwrap_or_default().into_owned())
        };
        answer.values.iter().map(text).collect()
    };
    if test.is_invalid {
        return Some(format!("no error but {is:?}"));
    }
    let plain = |text: &str| text.strip_prefix("@T").or(text.strip_prefix('@')).unwrap_or(text).to_owned();
    let fits = is.len() == test.outputs.len()
        && is.iter().zip(&test.outputs).all(|((ty, text), (expected_ty, expected))| {
            expected_ty.as_ref().is_none_or(|expected| expected == ty) && *text == plain(expected)
        });
    (!fits).then(|| format!("{is:?}"))
}

#[test]
fn the_suite_passes_but_for_what_is_listed() {
    let files = crate::files::archive(super::SUITE);
    let trees: BTreeMap<&str, Tree> =
        files.iter().filter_map(|(name, content)| Some((name.strip_prefix("input/")?, super::tree(content)))).collect();
    let tests = read(std::str::from_utf8(&files["tests-fhir-r4.xml"]).unwrap());
    assert_eq!(tests.len(), 935);
    assert_eq!(tests.iter().filter(|test| test.is_invalid).count(), 35);

    let known: BTreeMap<&str, &str> = include_str!("known.tsv")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_once('\t').expect("a name and a reason"))
        .collect();
    let mut different = BTreeSet::new();
    let mut surprises = Vec::new();
    for test in &tests {
        let input = if test.input.is_empty() { "patient-example.json" } else { &test.input };
        if let Some(difference) = difference(test, &trees[input]) {
            different.insert(test.name.as_str());
            if !known.contains_key(test.name.as_str()) {
                surprises.push(format!("{}: {} gave {difference}, not {:?}", test.name, test.expression, test.outputs));
            }
        }
    }
    for name in known.keys().filter(|name| !different.contains(**name)) {
        surprises.push(format!("{name} passes now: take it from the list"));
    }
    assert!(surprises.is_empty(), "{} of {} differ:\n{}", different.len(), tests.len(), surprises.join("\n"));
}
