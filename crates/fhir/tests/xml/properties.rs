//! What must hold for any resource: written and read again it is the same; and for any bytes: they are read or refused, and
//! what is read can be checked, and comes back if it can be written.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};
use sluice_fhir::canonical;
use sluice_fhir::definitions::Definitions;
use sluice_fhir::tree::{Limits, Tree};
use sluice_fhir::validate::Validator;
use sluice_fhir::xml::{self, WriteErrorKind};

use super::read;

/// Any text that XML can carry.
fn any_text() -> impl Strategy<Value = String> {
    let fits =
        |c: &char| !matches!(c, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}');
    prop_oneof![
        "[a-z]{0,4}",
        proptest::collection::vec(any::<char>().prop_filter("not in XML", fits), 0..6).prop_map(String::from_iter),
        Just(String::from(" \t\r\n<>&'\"]]>&amp;&#10;\u{85}\u{2028}😀 ")),
    ]
}

fn any_number() -> impl Strategy<Value = Value> {
    "-?(0|[1-9][0-9]{0,5})(\\.[0-9]{1,3})?".prop_map(|text| serde_json::from_str(&text).unwrap())
}

/// A narrative of what FHIR allows and of what it does not, but well-formed.
fn any_narrative() -> impl Strategy<Value = String> {
    let piece = any_text().prop_map(|text| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;"));
    let inside = piece.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3)
                .prop_map(|pieces| format!("<p  class='a'>{}</p >", pieces.concat())),
            inner.prop_map(|text| format!("<br/>{text}<!-- why --><x y=\"&#160;\"></x>")),
        ]
    });
    inside.prop_map(|inside| format!("<div xmlns=\"http://www.w3.org/1999/xhtml\">{inside}</div>"))
}

fn any_extension() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        (any_text(), any_text()).prop_map(|(url, text)| json!({"url": url, "valueString": text})),
        (any_text(), any::<bool>()).prop_map(|(url, is)| json!({"id": "i", "url": url, "valueBoolean": is})),
        (any_text(), any_number()).prop_map(|(url, number)| json!({"url": url, "valueDecimal": number})),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        (any_text(), proptest::collection::vec(inner, 1..3))
            .prop_map(|(url, within)| json!({"url": url, "extension": within}))
    })
}

/// What stands beside a primitive.
fn any_companion() -> impl Strategy<Value = Value> {
    prop_oneof![
        any_text().prop_map(|id| json!({"id": id})),
        proptest::collection::vec(any_extension(), 1..3).prop_map(|list| json!({"extension": list})),
    ]
}

fn any_name() -> impl Strategy<Value = Value> {
    let given = (proptest::option::of(any_text()), proptest::option::of(any_companion()));
    (proptest::option::of(any_text()), proptest::collection::vec(given, 0..4)).prop_map(|(family, given)| {
        let mut name = json!({"use": "official"});
        name["family"] = family.map_or(Value::Null, Value::from);
        if !given.is_empty() {
            let (values, beside): (Vec<_>, Vec<_>) = given.into_iter().unzip();
            // The form that reading gives: no array of nothing but places of extensions.
            let empty = values.iter().zip(&beside).any(|(value, beside)| value.is_some() || beside.is_none());
            if empty {
                name["given"] = json!(values);
            }
            if beside.iter().any(Option::is_some) {
                name["_given"] = json!(beside);
            }
        }
        name
    })
}

fn any_resource() -> impl Strategy<Value = Value> {
    let patient = (
        proptest::option::of(any_text()),
        proptest::option::of(any_narrative()),
        proptest::collection::vec(any_name(), 0..3),
        proptest::option::of(any_companion()),
        proptest::option::of(any::<bool>()),
        proptest::collection::vec(any_extension(), 0..3),
    )
        .prop_map(|(id, narrative, names, birth_date, active, extensions)| {
            let mut patient = json!({"resourceType": "Patient"});
            let mut set = |name: &str, value: Option<Value>| {
                if let Some(value) = value {
                    patient[name] = value;
                }
            };
            set("id", id.map(Value::from));
            set("text", narrative.map(|div| json!({"status": "generated", "div": div})));
            set("name", (!names.is_empty()).then(|| json!(names)));
            set("_birthDate", birth_date);
            set("active", active.map(Value::from));
            set("extension", (!extensions.is_empty()).then(|| json!(extensions)));
            patient
        });
    let observation = (any_number(), any_text()).prop_map(|(value, text)| {
        json!({"resourceType": "Observation", "valueQuantity": {"value": value, "unit": text}, "_status": {"id": "s"}})
    });
    prop_oneof![patient, observation].prop_recursive(2, 6, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 1..3).prop_map(|resources| {
                let entries: Vec<_> = resources.into_iter().map(|resource| json!({"resource": resource})).collect();
                json!({"resourceType": "Bundle", "type": "collection", "entry": entries})
            }),
            proptest::collection::vec(inner, 1..3)
                .prop_map(|contained| json!({"resourceType": "Basic", "contained": contained, "code": {"text": "x"}})),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_as_it_was(resource in any_resource()) {
        let tree = Tree::parse(Bytes::from(resource.to_string()), &Limits::default()).unwrap();
        let written = xml::write(tree.root(), &Definitions::r4()).unwrap();
        let again = read(&written).unwrap();
        prop_assert_eq!(
            String::from_utf8(canonical::to_vec(again.root())).unwrap(),
            String::from_utf8(canonical::to_vec(tree.root())).unwrap()
        );
        prop_assert_eq!(xml::write(again.root(), &Definitions::r4()).unwrap(), written);
    }

    /// A piece of a document moved, doubled or lost: no panic, and nothing is read that changes when it is written.
    #[test]
    fn any_bytes_are_read_or_refused(
        resource in any_resource(),
        (from, length, to) in (any::<prop::sample::Index>(), 0..40_usize, any::<prop::sample::Index>()),
        noise in prop_oneof![Just(""), Just("<"), Just("&"), Just("\""), Just("<a>"), Just("<![CDATA["), Just("\u{1}"), Just(" id=\"x\"")],
    ) {
        let tree = Tree::parse(Bytes::from(resource.to_string()), &Limits::default()).unwrap();
        let mut document = xml::write(tree.root(), &Definitions::r4()).unwrap();
        let from = from.index(document.len());
        let piece: Vec<u8> = document.drain(from..(from + length).min(document.len())).collect();
        let to = to.index(document.len() + 1);
        document.splice(to..to, piece.iter().copied().chain(noise.bytes()));
        match read(&document) {
            Err(error) => prop_assert!(error.position.line >= 1 && !error.path.is_empty()),
            Ok(tree) => {
                Validator::r4().validate(tree.root());
                if let Ok(written) = xml::write(tree.root(), &Definitions::r4()) {
                    let again = read(&written).unwrap();
                    prop_assert_eq!(canonical::to_vec(again.root()), canonical::to_vec(tree.root()));
                }
            }
        }
    }
}

/// What XML cannot give back is refused, by name and place.
#[test]
fn what_xml_cannot_carry_is_not_written() {
    for (resource, kind, path) in [
        (json!({"resourceType": "Unheard"}), WriteErrorKind::UnknownResource, "Unheard"),
        (json!({"resourceType": "Patient", "colour": "x"}), WriteErrorKind::UnknownMember, "Patient.colour"),
        (json!({"resourceType": "Patient", "_name": [{"id": "x"}]}), WriteErrorKind::UnknownMember, "Patient._name"),
        (json!({"resourceType": "Patient", "active": "true"}), WriteErrorKind::ValueKind, "Patient.active"),
        (json!({"resourceType": "Patient", "birthDate": 1970}), WriteErrorKind::ValueKind, "Patient.birthDate"),
        (json!({"resourceType": "Patient", "name": ["x"]}), WriteErrorKind::ValueKind, "Patient.name[0]"),
        (json!({"resourceType": "Patient", "name": {"family": "x"}}), WriteErrorKind::Array, "Patient.name"),
        (json!({"resourceType": "Patient", "birthDate": ["1970"]}), WriteErrorKind::Array, "Patient.birthDate"),
        (json!({"resourceType": "Patient", "name": []}), WriteErrorKind::Array, "Patient.name"),
        (json!({"resourceType": "Patient", "_birthDate": {}}), WriteErrorKind::Companion, "Patient._birthDate"),
        (
            json!({"resourceType": "Patient", "name": [{"_id": {"id": "x"}}]}),
            WriteErrorKind::Companion,
            "Patient.name[0]._id",
        ),
        (json!({"resourceType": "Patient", "id": "\u{1}"}), WriteErrorKind::Character, "Patient.id"),
        (
            json!({"resourceType": "Patient", "text": {"div": "<div>&nbsp;</div>"}}),
            WriteErrorKind::Narrative,
            "Patient.text.div",
        ),
        (
            json!({"resourceType": "Patient", "text": {"div": "<div/><div/>"}}),
            WriteErrorKind::Narrative,
            "Patient.text.div",
        ),
        (json!({"resourceType": "Patient", "text": {"div": "<div>"}}), WriteErrorKind::Narrative, "Patient.text.div"),
        (json!({"resourceType": "Patient", "text": {"div": "x"}}), WriteErrorKind::Narrative, "Patient.text.div"),
        (
            json!({"resourceType": "Patient", "text": {"div": "<div/>", "_div": {"id": "x"}}}),
            WriteErrorKind::Companion,
            "Patient.text._div",
        ),
    ] {
        let tree = Tree::parse(Bytes::from(resource.to_string()), &Limits::default()).unwrap();
        let error = xml::write(tree.root(), &Definitions::r4()).unwrap_err();
        assert_eq!((error.kind, &*error.path), (kind, path), "{resource}");
    }
}
