//! Normalizing: cases as data, and what must always hold.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use sluice_fhir::outcome;
use sluice_fhir::tree::{Limits, Position};

use super::*;
use crate::config::Right;
use crate::ingest::unit::{Caller, Prefer};

const CASES: &str = "tests/cases/normalize";
const SHIPPED: [&str; 5] = [
    "mappings/identifiers/us.json",
    "mappings/identifiers/synthea.json",
    "mappings/codes/administrative-gender-v2.json",
    "mappings/units/common.json",
    "mappings/references.json",
];
const BASE: &str = "https://a.example/fhir";

/// Writes what the cases expect, instead of comparing with it.
#[expect(clippy::disallowed_methods, reason = "a test's switch, not a setting")]
fn bless() -> bool {
    std::env::var_os("SLUICE_BLESS").is_some()
}

fn context() -> Context {
    Context {
        caller: Caller {
            institution: "a".into(),
            device: None,
            may: Arc::new([Right::Write]),
            roles: Arc::new([]),
            purpose: None,
        },
        received_at: time::OffsetDateTime::UNIX_EPOCH,
        idempotency_key: None,
        prefer: Prefer::Minimal,
        traceparent: None,
        tracestate: None,
        labels: None,
    }
}

/// What comes in; only `ingest` makes a `Received`, after limits that are not the matter here.
type Sent = (Shape, Vec<Entry>);

fn unit(sent: Sent, mappings: &Mappings) -> Result<Normalized> {
    of_parts(context(), sent.0, sent.1, None, mappings)
}

/// A unit of what stands in a file: one resource, or the entries of a transaction.
fn received(text: &str) -> Sent {
    let parse = |text: &[u8]| Tree::parse(Bytes::copy_from_slice(text), &Limits::default()).unwrap();
    let tree = parse(text.as_bytes());
    let entry = |tree: Tree, place, full_url, if_none_exist| Entry {
        resource_type: tree.root().member("resourceType").and_then(Node::as_str).unwrap().as_ref().into(),
        tree,
        interaction: Interaction::Create { if_none_exist },
        full_url,
        place,
    };
    let kind = tree.root().member("type").and_then(Node::as_str).map(std::borrow::Cow::into_owned);
    if tree.resource_type() != Some("Bundle") {
        return (Shape::Single, vec![entry(tree, Place::body(), None, None)]);
    }
    if matches!(kind.as_deref(), Some("document" | "message")) {
        return (Shape::Sealed, vec![entry(tree, Place::body(), None, None)]);
    }
    let entries = tree.root().find(&["entry"]).enumerate().filter_map(|(at, it)| {
        let resource = it.member("resource")?;
        let full_url = it.member("fullUrl").and_then(Node::as_str).map(|it| Arc::from(&*it));
        let query = it.member("request").and_then(|it| it.member("ifNoneExist")).and_then(Node::as_str);
        let place = Place::entry(at, resource.position());
        Some(entry(parse(resource.raw()), place, full_url, query.map(std::borrow::Cow::into_owned)))
    });
    (Shape::Transaction, entries.collect())
}

fn shipped() -> Mappings {
    let files: Vec<_> = SHIPPED.iter().map(|it| (Path::new(it), std::fs::read(it).unwrap())).collect();
    Mappings::read(&files, BASE).unwrap()
}

fn mappings_of(folder: &Path) -> Mappings {
    let Ok(text) = std::fs::read(folder.join("mappings.json")) else { return shipped() };
    let packs: Vec<serde_json::Value> = serde_json::from_slice(&text).unwrap();
    let files: Vec<_> = packs.iter().map(|it| (Path::new("mappings.json"), it.to_string().into_bytes())).collect();
    Mappings::read(&files, BASE).unwrap()
}

fn compare(file: &Path, found: &str) {
    if bless() {
        std::fs::write(file, found).unwrap();
    }
    let expected = std::fs::read_to_string(file).unwrap_or_default();
    assert_eq!(expected, found, "{}: run with SLUICE_BLESS=1 to write it anew, and read it", file.display());
}

/// What came out: each resource on a line of its own, behind what its entry is named and asked for.
fn out(unit: &Normalized) -> String {
    let mut text = String::new();
    for resource in unit.resources() {
        if let Some(full_url) = resource.full_url() {
            let _ = writeln!(text, "# {full_url}");
        }
        if let Interaction::Create { if_none_exist: Some(query) } = resource.interaction() {
            let _ = writeln!(text, "# ?{query}");
        }
        let _ = writeln!(text, "{}", String::from_utf8_lossy(resource.tree().bytes()).trim_end());
    }
    text
}

fn told(provenance: &Provenance) -> String {
    let mut text = String::new();
    for (id, version) in &provenance.mappings {
        let _ = writeln!(text, "{id}|{version}");
    }
    for (at, paths) in &provenance.changes {
        for path in paths {
            let _ = writeln!(text, "{at} {path}");
        }
    }
    text
}

/// Each folder: `in.json`, perhaps `mappings.json` (else those that ship); `out.txt` and `provenance.txt` if something is
/// changed, `issues.json` if something is found.
#[test]
fn cases() {
    let mut folders: Vec<PathBuf> =
        std::fs::read_dir(CASES).unwrap().map(|it| it.unwrap().path()).filter(|it| it.is_dir()).collect();
    folders.sort();
    assert!(folders.len() >= 10);
    for folder in folders {
        let text = std::fs::read_to_string(folder.join("in.json")).unwrap();
        let normalized = unit(received(&text), &mappings_of(&folder));
        let issues = match &normalized {
            Ok(unit) => unit.issues().to_vec(),
            Err(error) => {
                assert_eq!(error.kind().face().status, 400);
                error.issues().to_vec()
            }
        };
        if issues.is_empty() {
            assert!(!folder.join("issues.json").exists(), "{}", folder.display());
        } else {
            let value: serde_json::Value = serde_json::from_slice(&outcome::to_json(&issues)).unwrap();
            compare(&folder.join("issues.json"), &(serde_json::to_string_pretty(&value).unwrap() + "\n"));
        }
        match normalized.as_ref().ok().and_then(Normalized::provenance) {
            None => assert!(!folder.join("out.txt").exists(), "{}", folder.display()),
            Some(provenance) => {
                compare(&folder.join("out.txt"), &out(normalized.as_ref().unwrap()));
                compare(&folder.join("provenance.txt"), &told(provenance));
            }
        }
    }
}

#[test]
fn what_no_pack_speaks_of_is_the_same_memory() {
    let text = r#"{"resourceType":"Observation","status":"final","code":{"coding":[{"system":"urn:x","code":"y"}]}, "valueQuantity":{"value":1.00,"unit":"mg/dL","system":"http://unitsofmeasure.org","code":"mg/dL"},"subject":{"reference":"Patient/1"}}"#;
    let received = received(text);
    let before = received.1[0].tree.bytes().clone();
    let unit = unit(received, &shipped()).unwrap();
    assert_eq!(unit.resources()[0].tree().bytes().as_ptr(), before.as_ptr());
    assert!(unit.provenance().is_none() && unit.issues().is_empty());
    let tree = Tree::parse(before, &Limits::default()).unwrap();
    assert_eq!(unit.resources()[0].digest(), canonical::evidence_digest(tree.root()));
}

#[test]
fn the_shared_systems_come_by_rank() {
    assert_eq!(shipped().shared_systems(), ["http://hl7.org/fhir/sid/us-ssn"]);
    let pack = r#"{"id":"a","version":"1","description":"d","kind":"identifiers","systems":[
        {"system":"urn:c","shared":{"rank":9}},{"system":"urn:b"},{"system":"urn:a","shared":{"rank":2}}]}"#;
    let mappings = Mappings::read(&[(Path::new("a"), pack.into())], BASE).unwrap();
    assert_eq!(mappings.shared_systems(), ["urn:a", "urn:c"]);
}

#[test]
fn a_file_that_is_no_pack_says_where_and_what_was_expected() {
    let head = |kind: &str| format!(r#"{{"id":"a","version":"1","description":"d","kind":"{kind}""#);
    let identifiers = |systems: &str| format!(r#"{},"systems":[{systems}]}}"#, head("identifiers"));
    let units = |units: &str| format!(r#"{},"units":{{{units}}}}}"#, head("units"));
    let codes = |group: &str| {
        let head = head("codes");
        format!(r#"{head},"equivalence":["equal"],"conceptMap":{{"resourceType":"ConceptMap","group":[{group}]}}}}"#)
    };
    for (text, pointer, expected) in [
        ("{".to_owned(), "", "JSON"),
        (r#"{"kind":"x"}"#.to_owned(), "/kind", "`identifiers`"),
        (head("references") + r#","x":1}"#, "", "'x'"),
        (head("references").replacen("\"1\"", "1", 1) + "}", "/version", "string"),
        (identifiers(r#"{"system":"urn:a"},{"system":"URN:A"}"#), "/systems/1/system", "once"),
        (
            identifiers(r#"{"system":"http://a/","aliases":["b"]},{"system":"c","aliases":["b"]}"#),
            "/systems/1/aliases/0",
            "once",
        ),
        (
            identifiers(r#"{"system":"a","shared":{"rank":1}},{"system":"b","shared":{"rank":1}}"#),
            "/systems/1/shared/rank",
            "`a`",
        ),
        (identifiers(r#"{"system":"a","case":"middle"}"#), "/systems/0/case", "middle"),
        (units(r#""a/b":"mmHg""#), "/units/a~1b", "UCUM"),
        (
            codes(
                r#"{"source":"a","target":"b","element":[{"code":"1","target":[{"code":"2","equivalence":"equal","dependsOn":[]}]}]}"#,
            ),
            "/conceptMap/group/0/element/0/target/0/dependsOn",
            "",
        ),
        (
            codes(
                r#"{"source":"a","target":"a","element":[{"code":"1","target":[{"code":"2","equivalence":"equal"}]},{"code":"2","target":[{"code":"3","equivalence":"equal"}]}]}"#,
            ),
            "/conceptMap/group",
            "a|2",
        ),
    ] {
        let error = Mappings::read(&[(Path::new("pack.json"), text.clone().into_bytes())], BASE).unwrap_err();
        let MappingError::Pack { file, pointer: at, expected: told } = &error else { panic!("{error}") };
        assert_eq!((file.as_path(), &**at), (Path::new("pack.json"), pointer), "{error}");
        assert!(told.contains(expected), "{error}");
    }
    let twice: Vec<_> = [1, 2].map(|_| (Path::new("p"), (head("references") + "}").into_bytes())).into();
    assert!(Mappings::read(&twice, BASE).unwrap_err().to_string().contains("`/id`"));
}

#[test]
fn no_issue_holds_a_value() {
    let secret = "Canary-7";
    let text = format!(
        r#"{{"resourceType":"Patient","identifier":[{{"system":"http://hl7.org/fhir/sid/us-ssn","value":"{secret}"}}],"extension":[{{"url":"urn:x","valueQuantity":{{"value":1,"unit":"{secret}"}}}}]}}"#
    );
    let found = unit(received(&text), &shipped()).unwrap();
    assert_eq!(found.issues().len(), 2);
    assert!(!format!("{:?}", found.issues()).contains(secret));
    let strange = text.replace("Patient", "Canary 7");
    let error = unit(received(&strange), &shipped()).unwrap_err();
    assert!(!format!("{:?}", error.issues()).contains("Canary"));
}

/// Bundles of older releases are told by their name, with and without mappings.
#[test]
fn other_releases_are_refused_by_name() {
    let file = std::fs::File::open("tests/data/synthea/stu3-and-dstu2.tar.gz").unwrap();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
    let mut counts = std::collections::BTreeMap::new();
    for file in archive.entries().unwrap() {
        let mut file = file.unwrap();
        let path = file.path().unwrap().display().to_string();
        if !path.ends_with("json") {
            continue;
        }
        let mut text = String::new();
        std::io::Read::read_to_string(&mut file, &mut text).unwrap();
        let named = match unit(received(&text), &Mappings::default()) {
            Ok(_) => "R4".to_owned(),
            Err(error) => {
                assert_eq!(error.kind(), crate::error::Kind::Refusal(Refusal::Malformed));
                assert_eq!(error.rule(), "normalize.release", "{path}");
                let text = &error.issues()[0].text;
                text.rsplit_once(" is ").unwrap().1.to_owned()
            }
        };
        let folder = path.trim_start_matches("./").split('/').next().unwrap().to_owned();
        *counts.entry((folder, named)).or_insert(0) += 1;
    }
    let counts: Vec<String> =
        counts.iter().map(|((folder, named), count)| format!("{folder}: {named} {count}")).collect();
    // The folders are named by who made them; what they hold is told by its shape.
    let expected = [
        "dstu2-must-be-rejected-or-routed: DSTU2 (1.0.2) 3",
        "genomics: DSTU2 (1.0.2) 3",
        "pro: STU3 (3.0.2) 24",
        "smart: STU3 (3.0.2) 6",
        "synthea: STU3 (3.0.2) 12",
    ];
    assert_eq!(counts, expected);
}

/// No example of R4 is taken for another release, though each stands alone here.
#[test]
fn r4_is_not_refused() {
    let mut refused = Vec::new();
    for corpus in ["tests/data/hl7-examples/r4-4.0.1.tar.gz", "tests/data/synthea/r4-30-patients.tar.gz"] {
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(std::fs::File::open(corpus).unwrap()));
        for file in archive.entries().unwrap() {
            let mut file = file.unwrap();
            let path = file.path().unwrap().display().to_string();
            let mut text = String::new();
            if path.ends_with("json") && std::io::Read::read_to_string(&mut file, &mut text).is_ok() {
                let (shape, entries) = received(&text);
                for entry in entries {
                    if let Err(error) = unit((shape, vec![entry]), &Mappings::default()) {
                        refused.push(format!("{path}: {}", error.issues()[0].text));
                    }
                }
            }
        }
    }
    refused.sort();
    refused.dedup();
    assert_eq!(refused, Vec::<String>::new());
}

#[test]
fn a_type_that_r4_does_not_have_is_refused_at_its_place() {
    let text = "{\"resourceType\":\"Bundle\",\"type\":\"transaction\",\"entry\":[\n{\"resource\":{\"resourceType\":\"Patient\"}},\n{\"resource\":{\"resourceType\":\"Patience\"}}]}";
    let error = unit(received(text), &Mappings::default()).unwrap_err();
    let issue = &error.issues()[0];
    assert_eq!(issue.rule, "normalize.resource-type");
    assert_eq!(issue.expression.as_deref(), Some("Bundle.entry[1].resource.resourceType"));
    assert_eq!(issue.position, Some(Position { line: 3, column: 29 }));
    assert!(!issue.text.contains("Patience"), "the sender sees the place; what it wrote is not repeated");
}

fn identifier() -> impl Strategy<Value = String> {
    let system = prop_oneof![
        Just("http://hl7.org/fhir/sid/us-ssn"),
        Just("urn:oid:2.16.840.1.113883.4.1"),
        Just(" URN:OID:2.16.840.1.113883.4.3.25"),
        Just("http://hl7.org/fhir/sid/us-ssn/ "),
        Just("urn:other "),
    ];
    (system, "[ 0-9a-zA-Z-]{0,12}").prop_map(|(system, value)| format!(r#"{{"system":"{system}","value":"{value}"}}"#))
}

fn quantity() -> impl Strategy<Value = String> {
    let text = prop_oneof![Just("mmHg"), Just("mm[Hg]"), Just("(score)"), Just("in"), Just("zz"), Just(" bpm ")];
    (text.clone(), proptest::option::of(text), any::<bool>()).prop_map(|(unit, code, ucum)| {
        let code = code.map_or(String::new(), |it| format!(r#","code":"{it}""#));
        let system = if ucum { r#","system":"http://unitsofmeasure.org""# } else { "" };
        format!(r#"{{"value":1.00,"unit":"{unit}"{system}{code}}}"#)
    })
}

fn reference() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(" Patient/1".to_owned()),
        Just("https://a.example/fhir/Patient/2".to_owned()),
        Just("https://b.example/fhir/Patient/2".to_owned()),
        Just("urn:uuid:ABCDEF00-0000-4000-8000-000000000001".to_owned()),
        Just("Patient?identifier=urn:oid:2.16.840.1.113883.4.1|999-12-3456".to_owned()),
    ]
}

fn coding() -> impl Strategy<Value = String> {
    prop_oneof![Just("male"), Just("female"), Just("other"), Just("none")]
        .prop_map(|code| format!(r#"{{"system":"http://hl7.org/fhir/administrative-gender","code":"{code}"}}"#))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn twice_is_once(
        identifiers in proptest::collection::vec(identifier(), 0..4),
        quantity in quantity(),
        references in proptest::collection::vec(reference(), 0..3),
        codings in proptest::collection::vec(coding(), 0..3),
    ) {
        let references: Vec<String> = references.iter().map(|it| format!(r#"{{"reference":"{it}"}}"#)).collect();
        let text = format!(
            r#"{{"resourceType":"Observation","identifier":[{}],"code":{{"coding":[{}]}},"valueQuantity":{quantity},"performer":[{}]}}"#,
            identifiers.join(","), codings.join(","), references.join(",")
        );
        let mappings = shipped();
        let once = unit(received(&text), &mappings).unwrap();
        let mapped = String::from_utf8(once.resources()[0].tree().bytes().to_vec()).unwrap();
        prop_assert_eq!(once.provenance().is_some(), mapped != text);
        let twice = unit(received(&mapped), &mappings).unwrap();
        prop_assert!(twice.provenance().is_none(), "{mapped}");
        prop_assert_eq!(twice.resources()[0].digest(), once.resources()[0].digest());
    }
}
