//! Against small documents: what lies outside of HL7's suite.

use bytes::Bytes;

use super::*;
use crate::definitions::valueset::Membership;
use crate::tree::Limits;

fn tree_of(json: &str) -> Tree {
    Tree::parse(Bytes::copy_from_slice(json.as_bytes()), &Limits::default()).unwrap()
}

/// The items as text, `?` for unknown answers, or the kind of the error.
fn eval_with(expression: &str, tree: &Tree, node: Node<'_>, mode: Mode, budget: Budget) -> Result<String, ErrorKind> {
    let r4 = Definitions::r4();
    let host = Offline::new(&r4);
    let environment = Environment { budget, ..Environment::new(&host) };
    let context = locate(&r4, node).ty;
    let context = if context == Type::Unknown { None } else { Some(context.name(&r4)) };
    let expression = Expression::compile(expression, &r4, context, mode).map_err(|error| error.kind)?;
    let document = Document::new(tree);
    let node = tree.node(node.id());
    let answer = expression.evaluate(&document, node, &environment).map_err(|error| error.kind)?;
    let mut text: Vec<String> = answer
        .values
        .iter()
        .map(|value| value.text().map_or_else(|| value.type_name().to_owned(), std::borrow::Cow::into_owned))
        .collect();
    if !answer.is_known {
        text.push(String::from("?"));
    }
    Ok(text.join(","))
}

fn eval(expression: &str, json: &str) -> Result<String, ErrorKind> {
    let tree = tree_of(json);
    eval_with(expression, &tree, tree.root(), Mode::Strict, Budget::default())
}

#[track_caller]
fn check(json: &str, cases: &[(&str, &str)]) {
    for (expression, expected) in cases {
        assert_eq!(eval(expression, json).as_deref(), Ok(*expected), "{expression}");
    }
}

const PATIENT: &str = r##"{"resourceType":"Patient","id":"p","active":true,
    "name":[{"family":"Ó","given":["A",null,"B"],"_given":[null,{"extension":[{"url":"u","valueCode":"x"}]},{"id":"i"}]},
            {"use":"old","_family":{"extension":[{"url":"u","valueDecimal":1.50}]}}],
    "_birthDate":{"extension":[{"url":"http://x","valueDateTime":"2020-01"}]},
    "deceasedBoolean":false,
    "multipleBirthInteger":2,
    "generalPractitioner":[{"reference":"#g"},{"reference":"Practitioner/7"},{"reference":"urn:uuid:0"},{"display":"d"}],
    "contained":[{"resourceType":"Practitioner","id":"g","active":true,"name":[{"text":"T"}]}],
    "maritalStatus":{"coding":[{"system":"http://terminology.hl7.org/CodeSystem/v3-MaritalStatus","code":"M"}]},
    "gender":"male"}"##;

#[test]
fn primitives_have_values_or_extensions_or_both() {
    check(
        PATIENT,
        &[
            ("name.given.count()", "3"),
            ("name.given", "A,string,B"),
            ("name.given.hasValue()", "false"),
            ("name.given.where(hasValue()).count()", "2"),
            ("name.given.extension.value", "x"),
            ("name.given[2].id", "i"),
            ("name.family.extension('u').value", "1.50"),
            ("name[1].family.exists()", "true"),
            ("name[1].family = 'x'", "false"),
            ("name[1].family.upper()", ""),
            ("birthDate.extension(%`ext-x`).exists()", "false"),
            ("birthDate.extension('http://x').value", "2020-01"),
            ("deceased", "false"),
            ("deceased is boolean", "true"),
            ("multipleBirth + 1", "3"),
            ("children().count() > 8", "true"),
            ("active.not() or deceased.not()", "true"),
        ],
    );
}

#[test]
fn references_are_resolved_within_the_document_or_by_their_type() {
    check(
        PATIENT,
        &[
            ("generalPractitioner[0].resolve().name.text", "T"),
            ("generalPractitioner[1].resolve() is Practitioner", "true"),
            ("generalPractitioner[1].resolve() is Patient", "false"),
            ("generalPractitioner.resolve().count()", "2"),
            // What a resource elsewhere holds is not known, and that is told.
            ("generalPractitioner[1].resolve().active", "?"),
            ("contained[0].name.text", "T"),
            ("contained.where($this is Practitioner).active", "true"),
        ],
    );
    let bundle = r#"{"resourceType":"Bundle","type":"collection","entry":[
        {"fullUrl":"http://a/Patient/1","resource":{"resourceType":"Patient","id":"1","active":true}},
        {"fullUrl":"http://a/Observation/2","resource":{"resourceType":"Observation","id":"2","subject":{"reference":"Patient/1"}}},
        {"fullUrl":"urn:uuid:3","resource":{"resourceType":"Observation","subject":{"reference":"http://a/Patient/1"}}}]}"#;
    check(
        bundle,
        &[
            ("entry.resource.subject.resolve().active", "true,true"),
            ("entry.resource.ofType(Observation).subject.resolve().id.distinct()", "1"),
            ("entry[0].resource.resolve().empty()", "true"),
        ],
    );
}

#[test]
fn the_resource_is_the_contained_one_and_the_root_its_container() {
    let tree = tree_of(PATIENT);
    let contained = tree.root().member("contained").unwrap().items().next().unwrap();
    let eval = |expression: &str| eval_with(expression, &tree, contained, Mode::Strict, Budget::default());
    assert_eq!(eval("%resource.id").as_deref(), Ok("g"));
    assert_eq!(eval("%rootResource.id").as_deref(), Ok("p"));
    assert_eq!(eval("%context.id").as_deref(), Ok("g"));
    let name = contained.member("name").unwrap().items().next().unwrap();
    let eval = |expression: &str| eval_with(expression, &tree, name, Mode::Strict, Budget::default());
    assert_eq!(eval("text").as_deref(), Ok("T"));
    assert_eq!(eval("HumanName.text").as_deref(), Ok("T"));
    assert_eq!(eval("%resource.id").as_deref(), Ok("g"));
    assert_eq!(eval("given2"), Err(ErrorKind::Semantic));
}

#[test]
fn membership_has_three_values() {
    check(
        PATIENT,
        &[
            ("gender.memberOf(%`vs-administrative-gender`)", "true"),
            ("gender.memberOf('http://hl7.org/fhir/ValueSet/marital-status')", "false"),
            ("gender.memberOf('http://hl7.org/fhir/ValueSet/administrative-gender|4.0.1')", "true"),
            ("gender.memberOf('http://no/such')", "?"),
            ("maritalStatus.memberOf('http://hl7.org/fhir/ValueSet/marital-status')", "true"),
            ("maritalStatus.subsumes(maritalStatus)", "true"),
            ("maritalStatus.coding.subsumedBy(%context.maritalStatus.coding)", "true"),
        ],
    );
}

#[test]
fn a_host_is_asked() {
    struct All;
    impl Host for All {
        fn member_of(&self, _: &str, _: Option<&str>, code: &str) -> Membership {
            if code == "male" { Membership::In } else { Membership::Out }
        }
        fn subsumes(&self, _: &str, broader: &str, _: &str) -> Option<bool> {
            Some(broader == "M")
        }
        fn conforms_to(&self, node: Node<'_>, type_name: &str, _: &str) -> Conformance {
            if node.is_object() && type_name == "Patient" { Conformance::Conforms } else { Conformance::Unknown }
        }
    }
    let (r4, tree) = (Definitions::r4(), tree_of(PATIENT));
    let (environment, document) = (Environment::new(&All), Document::new(&tree));
    for (text, expected) in [
        ("gender.memberOf('x')", Ok(Some(true))),
        ("maritalStatus.coding.subsumes(Coding)", Err(ErrorKind::Semantic)),
        ("conformsTo('x')", Ok(Some(true))),
        ("name[0].conformsTo('x')", Err(ErrorKind::Evaluation)),
    ] {
        let answer = Expression::compile(text, &r4, Some("Patient"), Mode::Strict).and_then(|expression| {
            expression.evaluate(&document, tree.root(), &environment).map(|answer| answer.truth())
        });
        assert_eq!(answer.map_err(|error| error.kind), expected, "{text}");
    }
}

#[test]
fn errors_tell_their_kind_and_place() {
    let r4 = Definitions::r4();
    for (text, kind, line, column) in [
        ("name.\n  given(", ErrorKind::Syntax, 2, 9),
        ("name.given1", ErrorKind::Semantic, 1, 6),
        ("name.where(\n  foo = 1)", ErrorKind::Semantic, 2, 3),
        ("name.frobnicate()", ErrorKind::Semantic, 1, 6),
        ("name.first(1)", ErrorKind::Semantic, 1, 6),
        ("name.ofType(Nonsense)", ErrorKind::Semantic, 1, 6),
        ("%nonsense", ErrorKind::Semantic, 1, 1),
        ("'a", ErrorKind::Syntax, 1, 1),
        ("2147483648", ErrorKind::Syntax, 1, 1),
        ("@2020-02-30", ErrorKind::Syntax, 1, 1),
        ("'a'.matches('(')", ErrorKind::Semantic, 1, 5),
        ("a ! b", ErrorKind::Syntax, 1, 3),
        ("", ErrorKind::Syntax, 1, 1),
    ] {
        let error = Expression::compile(text, &r4, Some("Patient"), Mode::Strict).unwrap_err();
        assert_eq!((error.kind, error.position.line, error.position.column), (kind, line, column), "{text}: {error}");
    }
    for text in
        ["1 + 'a'", "now()", "$index", "$total", "name.single()", "name.given + 'x'", "gender = (1 | 2).single()"]
    {
        let json = r#"{"resourceType":"Patient","name":[{"given":["a","b"]},{}]}"#;
        assert_eq!(eval(text, json), Err(ErrorKind::Evaluation), "{text}");
    }
}

#[test]
fn what_is_unknown_is_absent_where_that_is_asked_for() {
    let tree = tree_of(r#"{"resourceType":"Patient","foo":{"bar":[1,2]},"name":[{"baz":"x"}]}"#);
    let lenient = |text: &str| eval_with(text, &tree, tree.root(), Mode::Lenient, Budget::default());
    assert_eq!(lenient("name.given1.exists()").as_deref(), Ok("false"));
    assert_eq!(lenient("Observation.value").as_deref(), Ok(""));
    assert_eq!(eval_with("name.given1", &tree, tree.root(), Mode::Strict, Budget::default()), Err(ErrorKind::Semantic));
    // Resources that the definitions do not have are gone through by their names.
    let other = tree_of(r#"{"resourceType":"Novelty","a":{"b":["c","d"]},"d":"2020"}"#);
    let eval = |text: &str| eval_with(text, &other, other.root(), Mode::Strict, Budget::default());
    assert_eq!(eval("a.b").as_deref(), Ok("c,d"));
    assert_eq!(eval("descendants().count()").as_deref(), Ok("4"));
}

#[test]
fn budgets_hold() {
    let tree = tree_of(PATIENT);
    let small = Budget { steps_max: 10_000, text_bytes_max: 10_000 };
    let run = |text: &str| eval_with(text, &tree, tree.root(), Mode::Strict, small);
    let digits = "(0|1|2|3|4|5|6|7|8|9)";
    let nested = format!("{digits}.select({digits}.select({digits}.select({digits}.select($this)))).count()");
    assert_eq!(run(&nested), Err(ErrorKind::Budget));
    assert_eq!(
        run(&format!("{digits}.aggregate($total & $total & 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 'a')")),
        Err(ErrorKind::Budget)
    );
    assert_eq!(run(&format!("{digits}.aggregate($total.replace('a', 'aaaaaaaaaa'), 'a')")), Err(ErrorKind::Budget));
    assert_eq!(run("name.repeat($this)").as_deref(), Ok("HumanName,HumanName"));
    assert_eq!(run("repeat($index)"), Err(ErrorKind::Evaluation));
    for deep in [
        format!("{}1{}", "(".repeat(500), ")".repeat(500)),
        format!("1{}", " + 1".repeat(500)),
        format!("name{}", ".first()".repeat(500)),
        format!("{}1", "-".repeat(500)),
        "a".repeat(100_000),
    ] {
        assert_eq!(run(&deep), Err(ErrorKind::Budget));
    }
    // Up to its limit, depth costs no stack to speak of.
    assert_eq!(run(&format!("name{}.count()", ".tail()".repeat(150))).as_deref(), Ok("0"));
}

#[test]
fn equality_goes_deep_and_keeps_to_what_is_known() {
    let json = r#"{"resourceType":"Patient","contact":[
        {"name":{"family":"a","given":["x","y"]}},
        {"name":{"given":["x","y"],"family":"a"}},
        {"name":{"given":["y","x"],"family":"a"}}],
        "identifier":[{"period":{"start":"2020"}},{"period":{"start":"2020-01"}}]}"#;
    check(
        json,
        &[
            ("contact[0].name = contact[1].name", "true"),
            ("contact[0].name = contact[2].name", "false"),
            ("contact[0].name ~ contact[2].name", "true"),
            ("contact.name.distinct().count()", "2"),
            ("contact.name.isDistinct()", "false"),
            ("contact[0].name in contact[1].name", "true"),
            ("contact[0].name | contact[1].name", "HumanName"),
            ("identifier[0].period = identifier[1].period", ""),
            ("identifier[0].period ~ identifier[1].period", "false"),
            ("(1 | 1.0 | '1').count()", "2"),
            ("1 'g' in (1000 'mg' | 2 'g')", "true"),
        ],
    );
}

#[test]
fn numbers_dates_and_quantities() {
    check(
        PATIENT,
        &[
            ("0.1 + 0.2 = 0.3", "true"),
            ("1 / 3", "0.3333333333333333333333333333"),
            ("2147483647 + 1", ""),
            ("7922816251426433759354395033.0 * 100", ""),
            ("7 div 2", "3"),
            ("-7 mod 2", "-1"),
            ("1.50", "1.50"),
            ("2.power(10)", "1024"),
            ("8.log(2)", "3"),
            ("1.exp().round(5)", "2.71828"),
            ("@2020-01-31 + 1 month", "2020-02-29"),
            ("@T10:00 + 90 minutes", "11:30"),
            ("@2020-01-01 - 1 day", "2019-12-31"),
            ("4 days + 12 hours", "4.5 days"),
            ("1 'm' + 1 's'", ""),
            ("3 'm' * 2", "6 'm'"),
            ("5 'mg' > 4999 'ug'", "true"),
            ("'5 \\'mg\\''.toQuantity() = 0.005 'g'", "true"),
            ("'2020-02-30'.toDate()", ""),
            ("@2020-01-01T10:00:00Z.toTime()", ""),
            ("@2020-01-01T10:00:00Z.convertsToTime()", "false"),
            ("@T10:00.toTime() | 'T11:00'.toTime()", "10:00,11:00"),
            ("'1e3'.toDecimal()", ""),
            ("1.toString() & 1.50.toString()", "11.50"),
        ],
    );
}

#[test]
fn answers_are_written_as_json() {
    let tree = tree_of(PATIENT);
    let r4 = Definitions::r4();
    let host = Offline::new(&r4);
    let environment = Environment::new(&host);
    let document = Document::new(&tree);
    for (text, expected) in [
        ("1.50", "\"1.50\""),
        ("1", "1"),
        ("true", "true"),
        ("'a\"'", "\"a\\\"\""),
        ("@2020-01", "\"2020-01\""),
        ("@T10:00", "\"10:00\""),
        ("1.0 'mg'", "{\"value\":\"1.0\",\"code\":\"mg\"}"),
        ("2 weeks", "{\"value\":\"2\",\"unit\":\"week\"}"),
        ("name.family.extension.value", "\"1.50\""),
        ("generalPractitioner[3]", "{\"display\":\"d\"}"),
        ("birthDate", "null"),
        ("gender", "\"male\""),
    ] {
        let expression = Expression::compile(text, &r4, Some("Patient"), Mode::Strict).unwrap();
        let answer = expression.evaluate(&document, tree.root(), &environment).unwrap();
        let mut json = Vec::new();
        answer.values[0].write_json(&mut json);
        assert_eq!(String::from_utf8(json).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn debug_output_holds_no_value() {
    let tree = tree_of(PATIENT);
    let r4 = Definitions::r4();
    let host = Offline::new(&r4);
    let environment = Environment::new(&host);
    let document = Document::new(&tree);
    let expression = Expression::compile("name.family | 'secret'", &r4, None, Mode::Strict).unwrap();
    let answer = expression.evaluate(&document, tree.root(), &environment).unwrap();
    let debug = format!("{answer:?}");
    assert!(!debug.contains('Ó') && !debug.contains("secret"), "{debug}");
}
