//! Our own cases: `tests/cases/xml/<name>/in.xml`, and what becomes of it in `out.txt`: the JSON and what checking finds in
//! it, each with its line and column in the XML; or why it is refused. What is read without a fault is written again.

use std::fmt::Write as _;

use sluice_fhir::canonical;
use sluice_fhir::definitions::Definitions;
use sluice_fhir::tree::Limits;
use sluice_fhir::validate::Validator;
use sluice_fhir::xml::{self, XmlErrorKind};

use super::{bless, path, read};

fn outcome(document: &[u8]) -> String {
    let tree = match read(document) {
        Ok(tree) => tree,
        Err(error) => return format!("refused: {error}\n"),
    };
    let mut out = String::from_utf8(tree.bytes().to_vec()).unwrap() + "\n";
    for issue in Validator::r4().validate(tree.root()) {
        let (position, path) = (issue.position.unwrap(), issue.expression.unwrap());
        writeln!(out, "{} {} at {path}, {position}", issue.severity.code(), issue.rule).unwrap();
    }
    match xml::write(tree.root(), &Definitions::r4()) {
        Ok(written) => {
            let again = read(&written).unwrap();
            assert_eq!(canonical::to_vec(again.root()), canonical::to_vec(tree.root()));
        }
        Err(error) => writeln!(out, "not written: {error}").unwrap(),
    }
    out
}

#[test]
fn each_case_has_its_outcome() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for entry in std::fs::read_dir(path("tests/cases/xml")).unwrap() {
        let case = entry.unwrap().path();
        let Ok(document) = std::fs::read(case.join("in.xml")) else { continue };
        count += 1;
        let is = outcome(&document);
        if bless() {
            std::fs::write(case.join("out.txt"), &is).unwrap();
        }
        let expected = std::fs::read_to_string(case.join("out.txt")).unwrap_or_default();
        if is != expected {
            wrong.push(format!("{}:\n{is}", case.display()));
        }
        // A line end is a line end, and a byte order mark says nothing.
        let mut marked = b"\xef\xbb\xbf".to_vec();
        marked.extend_from_slice(&document);
        assert_eq!(outcome(&marked), is, "{}", case.display());
        if !is.starts_with("refused") {
            let text = String::from_utf8(document).unwrap().replace('\n', "\r\n");
            assert_eq!(
                read(text.as_bytes()).unwrap().bytes(),
                is.lines().next().unwrap().as_bytes(),
                "{}",
                case.display()
            );
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count >= 40, "{count}");
}

/// Each limit holds, and says where it was reached.
#[test]
fn every_limit_is_told_by_name_and_place() {
    let definitions = Definitions::r4();
    let refused = |limits: &Limits, inside: &str| {
        let document = format!("<Patient xmlns=\"http://hl7.org/fhir\">\n{inside}\n</Patient>");
        let error = xml::read(document.as_bytes(), limits, &definitions).unwrap_err();
        assert!(error.kind.is_limit(), "{error}");
        (error.kind, error.position.line, error.path)
    };
    let limits = Limits::default();
    let few = Limits { nodes_max: 4, ..limits };
    let name = "<name>\n<family value=\"a\"/>\n<given value=\"b\"/>\n<given value=\"c\"/></name>";
    assert_eq!(refused(&few, name), (XmlErrorKind::TooManyElements, 5, "Patient.name[0]".into()));
    // Five elements are eight values of JSON.
    let few = Limits { nodes_max: 7, ..limits };
    assert_eq!(refused(&few, name), (XmlErrorKind::TooManyElements, 5, "Patient.name[0].given[1]".into()));
    let short = Limits { bytes_max: 50, ..limits };
    assert_eq!(refused(&short, name), (XmlErrorKind::TooLong, 1, "$this".into()));
    let flat = Limits { depth_max: 4, ..limits };
    let deep = "<extension url=\"u\">".repeat(20) + &"</extension>".repeat(20);
    assert_eq!(refused(&flat, &deep).0, XmlErrorKind::TooDeep);
    assert_eq!(refused(&flat, "<extension url=\"u\"><extension url=\"v\"/></extension>").0, XmlErrorKind::TooDeep);
    assert_eq!(
        refused(&limits, &"<a>".repeat(100_000)),
        (XmlErrorKind::TooDeep, 2, "Patient".to_owned() + &".a".repeat(127))
    );
    let unlimited = Limits { depth_max: usize::MAX, ..limits };
    assert_eq!(refused(&unlimited, &"<a>".repeat(100_000)).0, XmlErrorKind::TooDeep);
    let div = |inside: &str| {
        format!("<text><status value=\"generated\"/><div xmlns=\"http://www.w3.org/1999/xhtml\">{inside}")
    };
    assert_eq!(refused(&limits, &div(&"<b>".repeat(100_000))), (XmlErrorKind::TooDeep, 2, "Patient.text.div".into()));
    let attributes: Vec<_> = (0..100).map(|n| format!("a{n}=\"\"")).collect();
    let attributes = attributes.join(" ");
    let many = XmlErrorKind::TooManyAttributes;
    assert_eq!(refused(&limits, &format!("<name {attributes}/>")), (many, 2, "Patient".into()));
    assert_eq!(refused(&limits, &div(&format!("<b {attributes}/>"))), (many, 2, "Patient.text.div".into()));
}

/// Names that nobody knows cost no more than any, in whatever order they come.
#[test]
fn many_unknown_names_in_turn_take_linear_time() {
    let inside: Vec<_> = (0..100_000).map(|n| format!("<a{}/>", n % 50_000)).collect();
    let document = format!("<Patient xmlns=\"http://hl7.org/fhir\">{}</Patient>", inside.concat());
    let tree = read(document.as_bytes()).unwrap();
    assert_eq!(tree.root().members().count(), 50_001);
}

/// Every cause of refusal is shown by a case or by the test of the limits.
#[test]
fn every_refusal_has_a_case() {
    let mut shown = String::new();
    for entry in std::fs::read_dir(path("tests/cases/xml")).unwrap() {
        shown += &std::fs::read_to_string(entry.unwrap().path().join("out.txt")).unwrap_or_default();
    }
    let kinds = [
        XmlErrorKind::NotUtf8,
        XmlErrorKind::InvalidDeclaration,
        XmlErrorKind::InvalidCharacter,
        XmlErrorKind::UnexpectedEnd,
        XmlErrorKind::InvalidMarkup,
        XmlErrorKind::MismatchedEnd,
        XmlErrorKind::InvalidName,
        XmlErrorKind::InvalidAttribute,
        XmlErrorKind::DuplicateAttribute,
        XmlErrorKind::DocumentType,
        XmlErrorKind::ProcessingInstruction,
        XmlErrorKind::Entity,
        XmlErrorKind::InvalidReference,
        XmlErrorKind::UnknownPrefix,
        XmlErrorKind::WrongNamespace,
        XmlErrorKind::UnexpectedText,
        XmlErrorKind::UnexpectedAttribute,
        XmlErrorKind::AttributeExpected,
        XmlErrorKind::OutOfOrder,
        XmlErrorKind::OneResource,
        XmlErrorKind::ReservedName,
        XmlErrorKind::TrailingData,
    ];
    let missing: Vec<_> = kinds.iter().filter(|kind| !shown.contains(kind.text())).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
