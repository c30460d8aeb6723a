//! What must hold for any document: the digest is of what the document says, not of how it is written.

use proptest::prelude::*;
use sluice_fhir::canonical::{digest, evidence_digest, to_vec};

use crate::parse;

/// A value, apart from how it is written.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    Word(&'static str),
    Number(String),
    String(String),
    Array(Vec<Value>),
    Object(Vec<(String, Value)>),
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]{0,4}",
        proptest::collection::vec(any::<char>(), 0..6).prop_map(String::from_iter),
        Just(String::from("\u{0}\u{8}\t\n\u{c}\r\u{1f}\"\\/\u{7f}\u{2028}😀")),
    ]
}

fn any_name() -> impl Strategy<Value = String> {
    prop_oneof![
        proptest::sample::select(vec!["id", "name", "_birthDate", "resourceType", "value", "a"])
            .prop_map(str::to_owned),
        any_text(),
    ]
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        proptest::sample::select(vec!["null", "true", "false"]).prop_map(Value::Word),
        "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,5})?([eE][+-]?[0-9]{1,3})?".prop_map(Value::Number),
        any_text().prop_map(Value::String),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            proptest::collection::vec((any_name(), inner), 0..6).prop_map(|mut members| {
                members.sort_by(|a, b| a.0.cmp(&b.0));
                members.dedup_by(|a, b| a.0 == b.0);
                Value::Object(members)
            }),
        ]
    })
}

/// A resource with some of the members that a server assigns, and others.
fn any_resource() -> impl Strategy<Value = Value> {
    let members = |names: &[&'static str]| {
        let name = proptest::sample::select(names.to_vec()).prop_map(str::to_owned);
        proptest::collection::vec((name, any_value()), 0..5).prop_map(|mut members| {
            members.sort_by(|a, b| a.0.cmp(&b.0));
            members.dedup_by(|a, b| a.0 == b.0);
            members
        })
    };
    let meta = prop_oneof![
        members(&["versionId", "lastUpdated", "tag", "meta"]).prop_map(|members| Some(Value::Object(members))),
        any_value().prop_map(Some),
        Just(None),
    ];
    (members(&["id", "resourceType", "versionId", "contained"]), meta).prop_map(|(mut members, meta)| {
        members.extend(meta.map(|meta| (String::from("meta"), meta)));
        Value::Object(members)
    })
}

/// What is left of a resource without what a server assigns.
fn evidence(resource: &Value) -> Value {
    let Value::Object(members) = resource else { return resource.clone() };
    let is_assigned = |name: &str| matches!(name, "versionId" | "lastUpdated");
    let kept = members.iter().filter(|(name, _)| name != "id").filter_map(|(name, value)| match value {
        Value::Object(meta) if name == "meta" => {
            let meta: Vec<_> = meta.iter().filter(|(name, _)| !is_assigned(name)).cloned().collect();
            (!meta.is_empty()).then(|| (name.clone(), Value::Object(meta)))
        }
        _ => Some((name.clone(), value.clone())),
    });
    Value::Object(kept.collect())
}

/// Ways to write, drawn as they are needed.
struct Style {
    state: u64,
}

impl Style {
    fn pick(&mut self, below: u64) -> u64 {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 33) % below
    }

    fn space(&mut self) -> &'static str {
        ["", "", " ", "\n        ", "\t\r\n"][usize::try_from(self.pick(5)).unwrap()]
    }

    fn string(&mut self, text: &str) -> String {
        let mut out = String::from("\"");
        for character in text.chars() {
            let short = match character {
                '"' => Some("\\\""),
                '\\' => Some("\\\\"),
                '/' => Some("\\/"),
                '\u{8}' => Some("\\b"),
                '\t' => Some("\\t"),
                '\n' => Some("\\n"),
                '\u{c}' => Some("\\f"),
                '\r' => Some("\\r"),
                _ => None,
            };
            let must = character < ' ' || matches!(character, '"' | '\\');
            match (self.pick(3), short) {
                (0, _) if !must => out.push(character),
                (1, Some(short)) => out.push_str(short),
                (2, _) | (_, None) if must || self.pick(2) == 0 => {
                    for unit in character.encode_utf16(&mut [0; 2]) {
                        let upper = self.pick(2) == 0;
                        let escape = if upper { format!("\\u{unit:04X}") } else { format!("\\u{unit:04x}") };
                        out.push_str(&escape);
                    }
                }
                (_, Some(short)) => out.push_str(short),
                (_, None) => out.push(character),
            }
        }
        out.push('"');
        out
    }

    fn value(&mut self, value: &Value) -> String {
        let parts: Vec<String> = match value {
            Value::Word(word) => return (*word).to_owned(),
            Value::Number(text) => return text.clone(),
            Value::String(text) => return self.string(text),
            Value::Array(items) => items.iter().map(|item| self.spaced(item)).collect(),
            Value::Object(members) => {
                let mut members: Vec<_> = members.iter().collect();
                for last in (1..members.len()).rev() {
                    let other = usize::try_from(self.pick(u64::try_from(last + 1).unwrap())).unwrap();
                    members.swap(last, other);
                }
                members
                    .into_iter()
                    .map(|(name, value)| {
                        let (before, after) = (self.space(), self.space());
                        format!("{before}{}{after}:{}", self.string(name), self.spaced(value))
                    })
                    .collect()
            }
        };
        let (open, close) = if matches!(value, Value::Array(_)) { ("[", "]") } else { ("{", "}") };
        let space = self.space();
        format!("{open}{space}{}{close}", parts.join(","))
    }

    fn spaced(&mut self, value: &Value) -> String {
        let (before, after) = (self.space(), self.space());
        format!("{before}{}{after}", self.value(value))
    }
}

fn written(value: &Value, style: u64) -> String {
    Style { state: style }.spaced(value)
}

/// The canonical form, written by the book: an oracle.
fn form(value: &Value) -> String {
    match value {
        Value::Word(word) => (*word).to_owned(),
        Value::Number(text) => text.clone(),
        Value::String(text) => serde_json::to_string(text).unwrap(),
        Value::Array(items) => format!("[{}]", items.iter().map(form).collect::<Vec<_>>().join(",")),
        Value::Object(members) => {
            // Rust orders strings by their bytes.
            let members: std::collections::BTreeMap<_, _> = members.iter().cloned().collect();
            let members =
                members.iter().map(|(name, value)| format!("{}:{}", serde_json::to_string(name).unwrap(), form(value)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        }
    }
}

/// One leaf, name or length changed.
fn changed(value: &Value, style: &mut Style) -> Value {
    match value {
        Value::Word(word) => Value::Word(if *word == "null" { "true" } else { "null" }),
        Value::Number(text) if text.contains(['.', 'e', 'E']) => Value::Number(format!("{text}0")),
        Value::Number(text) => Value::Number(format!("{text}.0")),
        Value::String(text) => Value::String(format!("{text}\u{301}")),
        Value::Array(items) => {
            let mut items = items.clone();
            let at = usize::try_from(style.pick(u64::try_from(items.len() + 1).unwrap())).unwrap();
            match items.get_mut(at) {
                Some(item) => *item = changed(item, style),
                None => items.push(Value::Word("null")),
            }
            Value::Array(items)
        }
        Value::Object(members) => {
            let mut members = members.clone();
            let at = usize::try_from(style.pick(u64::try_from(members.len() + 1).unwrap())).unwrap();
            match members.get_mut(at) {
                Some((_, value)) => *value = changed(value, style),
                None => members.push((String::from("added by the test"), Value::Word("null"))),
            }
            Value::Object(members)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn how_it_is_written_does_not_matter(value in any_value(), one in any::<u64>(), other in any::<u64>()) {
        let (one, other) = (written(&value, one), written(&value, other));
        let (one, other) = (parse(one.as_bytes()).unwrap(), parse(other.as_bytes()).unwrap());
        prop_assert_eq!(String::from_utf8(to_vec(one.root())).unwrap(), form(&value));
        prop_assert_eq!(digest(one.root()), digest(other.root()));
        prop_assert_eq!(evidence_digest(one.root()), evidence_digest(other.root()));
    }

    #[test]
    fn what_it_says_does(value in any_value(), style in any::<u64>()) {
        let other = changed(&value, &mut Style { state: style });
        prop_assert_ne!(&value, &other);
        let (one, other) = (written(&value, style), written(&other, style));
        prop_assert_ne!(digest(parse(one.as_bytes()).unwrap().root()), digest(parse(other.as_bytes()).unwrap().root()));
    }

    #[test]
    fn only_what_a_server_assigns_is_no_evidence(value in any_resource(), style in any::<u64>()) {
        let other = changed(&value, &mut Style { state: style });
        let same = form(&evidence(&value)) == form(&evidence(&other));
        let (one, two) = (written(&value, style), written(&other, style));
        let (one, two) = (parse(one.as_bytes()).unwrap(), parse(two.as_bytes()).unwrap());
        prop_assert_eq!(evidence_digest(one.root()) == evidence_digest(two.root()), same);
        let bare = form(&evidence(&value));
        prop_assert_eq!(evidence_digest(one.root()), digest(parse(bare.as_bytes()).unwrap().root()));
    }

    #[test]
    fn a_name_twice_is_refused_however_spelled(value in any_value(), name in any_name(), style in any::<u64>()) {
        let mut style = Style { state: style };
        let (value, first, second) = (style.value(&value), style.string(&name), style.string(&name));
        let text = format!("{{{first}:{value},{second}:{value}}}");
        let error = parse(text.as_bytes()).unwrap_err();
        prop_assert_eq!(error.kind, sluice_fhir::tree::SyntaxErrorKind::DuplicateMember);
        prop_assert_eq!(error.offset, first.len() + value.len() + 3);
    }

    #[test]
    fn any_bytes_are_taken_or_refused_as_serde_json_does(bytes in proptest::collection::vec(
        prop_oneof![proptest::sample::select(b"{}[]\":,\\u01eE+-. \ntrufalsn".to_vec()), any::<u8>()], 0..24)) {
        let ours = parse(&bytes);
        let theirs = serde_json::from_slice::<serde_json::Value>(&bytes);
        let stricter = ours.as_ref().err().is_some_and(|error| error.kind == sluice_fhir::tree::SyntaxErrorKind::DuplicateMember);
        // serde_json cannot hold numbers beyond the range of f64.
        let larger = theirs.as_ref().err().is_some_and(|error| error.to_string().contains("number out of range"));
        prop_assert!(ours.is_ok() == theirs.is_ok() || stricter || larger, "{:?} {:?}", ours.err(), theirs.err());
    }
}
