use super::SyntaxErrorKind::*;
use super::*;

fn tree(text: &str) -> Tree {
    Tree::parse(Bytes::copy_from_slice(text.as_bytes()), &Limits::default()).unwrap()
}

fn refused(text: &[u8], limits: &Limits) -> SyntaxError {
    Tree::parse(Bytes::copy_from_slice(text), limits).expect_err(&String::from_utf8_lossy(text))
}

const PATIENT: &str = r#"{
  "resourceType": "Patient",
  "name": [{"family": "Mustermann", "given": ["Max", "Jörg\u00e9"]}, {"given": []}],
  "_birthDate": {"extension": [null]},
  "multipleBirthInteger": 2.00, "active": true, "x-y": 1
}"#;

#[test]
fn a_node_knows_what_and_where_it_is() {
    let tree = tree(PATIENT);
    let root = tree.root();
    assert_eq!(tree.resource_type(), Some("Patient"));
    assert_eq!((root.kind(), root.len(), root.name(), root.index()), (Kind::Object, 6, None, None));
    let given = root.find(&["name", "given"]).nth(1).unwrap();
    assert_eq!(given.as_str().as_deref(), Some("Jörgé"));
    assert_eq!(given.raw(), r#""Jörg\u00e9""#.as_bytes());
    assert_eq!(given.path(), "Patient.name[0].given[1]");
    assert_eq!((given.index(), given.name()), (Some(1), None));
    assert_eq!(given.position(), Position { line: 3, column: 54 });
    assert_eq!(given.parent().and_then(Node::parent).map(Node::path).as_deref(), Some("Patient.name[0]"));
    assert_eq!(tree.node(given.id()), given);
    assert_eq!(given.resource(), Some(root));
    assert!(given.is_str("Jörgé") && !given.is_str("x"));
    let number = root.member("multipleBirthInteger").unwrap();
    assert_eq!((number.number(), number.as_str(), number.as_bool()), (Some("2.00"), None, None));
    assert_eq!(root.member("active").and_then(Node::as_bool), Some(true));
    let extra = root.member("x-y").unwrap();
    assert_eq!((extra.name(), extra.path().as_str()), (Some("x-y"), "Patient.`?`"));
    assert_eq!(&PATIENT[extra.member_span()], r#""x-y": 1"#);
    let null = root.member("_birthDate").and_then(|node| node.find(&["extension"]).next());
    assert_eq!(null.map(Node::kind), Some(Kind::Null));
    assert!(root.member("absent").is_none() && root.member("family").is_none());
    assert!(root.items().next().is_none() && number.members().next().is_none());
    assert_eq!(root.descendants().count(), tree.len() - 1);
    assert_eq!(
        root.members().filter_map(Node::name).collect::<Vec<_>>(),
        ["resourceType", "name", "_birthDate", "multipleBirthInteger", "active", "x-y"]
    );
    assert!(root.find(&["name"]).last().unwrap().member("given").unwrap().is_empty());
}

#[test]
fn names_are_the_same_however_spelled() {
    let tree = tree(r#"{"\u0069d": 1, "a\"b": {"a\u0022b": 2}, "n\u00f6": 3}"#);
    let root = tree.root();
    assert_eq!(root.member("id").and_then(Node::number), Some("1"));
    let inner = root.member("a\"b").unwrap();
    assert_eq!(inner.name(), Some("a\"b"));
    assert_eq!(inner.member("a\"b").and_then(Node::number), Some("2"));
    assert_eq!(inner.member_span().start, 15);
    assert_eq!(root.member("nö").and_then(Node::number), Some("3"));
}

#[test]
fn every_refusal_names_its_cause_and_place() {
    let limits = Limits { bytes_max: 200, depth_max: 3, nodes_max: 20 };
    for (text, kind, line, column, path) in [
        ("", UnexpectedEnd, 1, 1, "$this"),
        (" \n ", UnexpectedEnd, 2, 2, "$this"),
        ("{", UnexpectedEnd, 1, 2, "$this"),
        ("{}x", TrailingData, 1, 3, "$this"),
        ("[1,]", ExpectedValue, 1, 4, "$this[1]"),
        ("[1 2]", ExpectedCommaOrArrayEnd, 1, 4, "$this"),
        (r#"{"a":1,}"#, ExpectedName, 1, 8, "$this"),
        ("{a:1}", ExpectedNameOrEnd, 1, 2, "$this"),
        (r#"{"a" 1}"#, ExpectedColon, 1, 6, "$this.a"),
        (r#"{"a":1 "b"}"#, ExpectedCommaOrObjectEnd, 1, 8, "$this"),
        (r#"{"resourceType":"Patient","name":["é", {"given": 01}]}"#, InvalidNumber, 1, 51, "Patient.name[1].given"),
        ("[1.]", InvalidNumber, 1, 4, "$this[0]"),
        ("-", UnexpectedEnd, 1, 2, "$this"),
        ("[trux]", InvalidLiteral, 1, 5, "$this[0]"),
        ("tru", UnexpectedEnd, 1, 4, "$this"),
        ("[\"a\nb\"]", ControlCharacter, 1, 4, "$this[0]"),
        (r#"["ä\x"]"#, InvalidEscape, 1, 4, "$this[0]"),
        (r#"["\u12G4"]"#, InvalidEscape, 1, 3, "$this[0]"),
        (r#"["\ud800"]"#, LoneSurrogate, 1, 3, "$this[0]"),
        (r#"["\ud800\ud800"]"#, LoneSurrogate, 1, 3, "$this[0]"),
        (r#"["\udc00x"]"#, LoneSurrogate, 1, 3, "$this[0]"),
        (r#"{"\ud800":1}"#, LoneSurrogate, 1, 3, "$this"),
        (r#"{"resourceType":"Patient","id":"1","id":"2"}"#, DuplicateMember, 1, 36, "Patient.id"),
        (r#"{"a":{},"\u0061":{}}"#, DuplicateMember, 1, 9, "$this.a"),
        (r#"{"k\"":{},"b":[{"k\"":1,"k\"":1}]}"#, DuplicateMember, 1, 25, "$this.b[0].`?`"),
        ("[[[[]]]]", TooDeep, 1, 4, "$this[0][0][0]"),
        ("[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]", TooManyNodes, 1, 40, "$this[19]"),
        ("\u{feff}{}", ByteOrderMark, 1, 1, "$this"),
    ] {
        let error = refused(text.as_bytes(), &limits);
        assert_eq!(
            (error.kind, error.position, error.path.as_str()),
            (kind, Position { line, column }, path),
            "{text}: {error}"
        );
    }
    let error = refused(b"[\"\xc3\xa9\xff\"]", &limits);
    assert_eq!((error.kind, error.offset, error.position.column), (NotUtf8, 4, 4));
    assert_eq!(refused(&[b' '; 201], &limits).kind, TooLong);
}

#[test]
fn an_error_repeats_no_word_of_the_document() {
    let text = br#"{"resourceType":"Canary-1","Canary 2":[{"x":"Canary-3" "Canary-4"}]}"#;
    let error = refused(text, &Limits::default());
    assert!(!format!("{error} {error:?}").contains("Canary"), "{error}");
}

#[test]
fn duplicates_are_found_among_many_members() {
    for count in [3, 16, 17, 64, 5000] {
        let members: Vec<String> = (0..count).map(|index| format!("\"m{index}\":{{\"m0\":{index}}}")).collect();
        assert_eq!(tree(&format!("{{{}}}", members.join(","))).root().len(), count);
        for again in [0, count / 2, count - 1] {
            let error = refused(format!("{{{},\"m{again}\":0}}", members.join(",")).as_bytes(), &Limits::default());
            assert_eq!((error.kind, error.path), (DuplicateMember, format!("$this.m{again}")));
        }
    }
}

#[test]
fn nesting_bombs_cost_nothing() {
    for bomb in ["[", "{\"a\":", "[{\"a\":"] {
        let error = refused(bomb.repeat(1_000_000).as_bytes(), &Limits::default());
        assert_eq!(error.kind, TooDeep);
        assert!(error.offset < 1000);
    }
    // What the limits allow is read and written without a stack frame per level.
    let limits = Limits { depth_max: usize::MAX, ..Limits::default() };
    let text = format!("{}{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
    let deep = Tree::parse(Bytes::from(text.clone()), &limits).unwrap();
    assert_eq!(crate::canonical::to_vec(deep.root()), text.as_bytes());
    let spaced = Tree::parse(Bytes::from(text.replace('[', "[ ")), &limits).unwrap();
    assert_eq!(crate::canonical::to_vec(spaced.root()), text.as_bytes());
}

#[test]
fn the_arena_is_bounded_by_the_limit_on_nodes() {
    let limits = Limits { nodes_max: 1000, ..Limits::default() };
    let wide = format!("[{}]", vec!["0"; 999].join(","));
    assert_eq!(Tree::parse(Bytes::from(wide), &limits).unwrap().len(), 1000);
    let mut parsed = parse::Parsed::default();
    let wide = format!("[{}]", vec!["0"; 100_000].join(","));
    assert!(parse::parse(wide.as_bytes(), &limits, &mut parsed).is_err());
    assert!(parsed.nodes.capacity() <= 1100);
    assert_eq!(size_of::<Raw>(), 20);
}

#[test]
fn trees_can_be_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Tree>();
    shared::<Node<'_>>();
}

#[test]
fn a_part_is_what_its_text_parses_to() {
    let texts = [
        r#"{"fullUrl":"urn:uuid:1","resource":{"resourceType":"Patient","name":[{"given":["a","b\u00e9"]}],"id":"x"},"n":[1.0,null]}"#,
        r#" { "b" : [ { "a" : { } } , [ ] , "\n" ] , "a" : true } "#,
        r#"{"resource":{"notOfFhir":{"nor this":1},"id":"2"}}"#,
    ];
    for text in texts {
        let whole = tree(text);
        for node in whole.root().descendants() {
            let part = whole.part(node.id(), &Limits::default()).unwrap();
            let parsed = Tree::parse(Bytes::copy_from_slice(node.raw()), &Limits::default()).unwrap();
            assert_eq!(part.bytes(), parsed.bytes());
            assert_eq!(part.len(), parsed.len());
            assert_eq!(crate::canonical::to_vec(part.root()), crate::canonical::to_vec(parsed.root()));
            for (a, b) in part.root().descendants().zip(parsed.root().descendants()) {
                assert_eq!((a.path(), a.span(), a.position(), a.name()), (b.path(), b.span(), b.position(), b.name()));
            }
            assert_eq!(part.root().path(), parsed.root().path());
        }
    }
    let few = Limits { nodes_max: 2, ..Limits::default() };
    let whole = tree(texts[0]);
    let resource = whole.root().member("resource").unwrap();
    assert_eq!(whole.part(resource.id(), &few).unwrap_err().kind, TooManyNodes);
}
