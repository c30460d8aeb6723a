//! What holds for any expression: it is refused or it answers, within its budget, always the same; and some laws of
//! FHIRPath over what it answers.

use proptest::prelude::*;
use sluice_fhir::definitions::Definitions;
use sluice_fhir::path::{Budget, Document, Environment, ErrorKind, Expression, Mode, Offline};

/// What an expression gives for the suite's patient: each item's type and text.
fn eval(text: &str, mode: Mode) -> Result<Vec<(String, Option<String>)>, ErrorKind> {
    let definitions = Definitions::r4();
    let tree = super::tree(&crate::files::archive(super::SUITE)["input/patient-example.json"]);
    let host = Offline::new(&definitions);
    let budget = Budget { steps_max: 100_000, text_bytes_max: 1 << 16 };
    let environment = Environment { now: Some("2026-03-04T05:06:07Z"), budget, ..Environment::new(&host) };
    let expression = Expression::compile(text, &definitions, Some("Patient"), mode).map_err(|error| error.kind)?;
    let document = Document::new(&tree);
    let answer = expression.evaluate(&document, tree.root(), &environment).map_err(|error| error.kind)?;
    let item = |value: &sluice_fhir::path::Value<'_>| {
        let mut json = Vec::new();
        value.write_json(&mut json);
        assert!(serde_json::from_slice::<serde_json::Value>(&json).is_ok());
        (value.type_name().to_owned(), value.text().map(std::borrow::Cow::into_owned))
    };
    Ok(answer.values.iter().map(item).collect())
}

/// Expressions that mostly mean something.
fn expression() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "name",
        "name.given",
        "birthDate",
        "active",
        "telecom",
        "$this",
        "{}",
        "1",
        "0.50",
        "-3",
        "'a'",
        "'2020-01'",
        "true",
        "@2020-02-29",
        "@2020-02-29T10:00:00Z",
        "@T10:30",
        "3 days",
        "1.5 'mg'",
        "%resource",
        "deceased",
        "contact.name",
        "identifier.period",
    ])
    .prop_map(str::to_owned);
    leaf.prop_recursive(5, 40, 3, |inner| {
        let operators = vec![
            "+", "-", "*", "/", "div", "mod", "&", "|", "=", "!=", "~", "!~", "<", "<=", ">", ">=", "in", "contains",
            "and", "or", "xor", "implies",
        ];
        let functions = vec![
            "empty",
            "not",
            "allTrue",
            "anyFalse",
            "count",
            "distinct",
            "isDistinct",
            "single",
            "first",
            "last",
            "tail",
            "toBoolean",
            "toInteger",
            "toDecimal",
            "toString",
            "toDate",
            "toDateTime",
            "toTime",
            "toQuantity",
            "convertsToQuantity",
            "upper",
            "length",
            "toChars",
            "trim",
            "abs",
            "ceiling",
            "exp",
            "floor",
            "ln",
            "sqrt",
            "round",
            "truncate",
            "children",
            "descendants",
            "type",
            "lowBoundary",
            "highBoundary",
            "precision",
            "sort",
            "hasValue",
            "getValue",
            "resolve",
            "htmlChecks",
            "today",
            "now",
            "timeOfDay",
            "join",
        ];
        let with_argument = vec![
            "where",
            "select",
            "all",
            "exists",
            "repeat",
            "aggregate",
            "subsetOf",
            "supersetOf",
            "skip",
            "take",
            "intersect",
            "exclude",
            "union",
            "combine",
            "indexOf",
            "substring",
            "startsWith",
            "contains",
            "matches",
            "split",
            "log",
            "power",
            "round",
            "comparable",
            "sort",
            "extension",
            "memberOf",
            "conformsTo",
            "encode",
            "join",
            "lowBoundary",
        ];
        prop_oneof![
            (inner.clone(), prop::sample::select(operators), inner.clone())
                .prop_map(|(a, op, b)| format!("({a} {op} {b})")),
            (inner.clone(), prop::sample::select(functions)).prop_map(|(a, f)| format!("({a}).{f}()")),
            (inner.clone(), prop::sample::select(with_argument), inner.clone())
                .prop_map(|(a, f, b)| format!("({a}).{f}({b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a})[{b}]")),
            (inner.clone(), inner.clone(), inner.clone()).prop_map(|(a, b, c)| format!("iif({a}, {b}, {c})")),
            (inner.clone(), prop::sample::select(vec!["given", "value", "start", "id", "extension"]))
                .prop_map(|(a, m)| format!("({a}).{m}")),
            (inner, prop::sample::select(vec!["is string", "as HumanName", "is System.Integer"]))
                .prop_map(|(a, t)| format!("({a} {t})")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_refused_or_answered(text in "\\PC{0,60}") {
        let _ = eval(&text, Mode::Strict);
    }

    #[test]
    fn tokens_in_any_order_are_refused_or_answered(tokens in prop::collection::vec(prop::sample::select(vec![
        "(", ")", "[", "]", "{", "}", ".", ",", "name", "where", "$this", "$index", "%resource", "@2020", "@T10", "'", "`", "1", "1.5", "'mg'", "is",
        "as", "in", "contains", "and", "div", "-", "+", "|", "=", "~", "!", "/*", "//", "\\", "days", "true",
    ]), 0..24)) {
        let _ = eval(&tokens.join(" "), Mode::Lenient);
    }

    #[test]
    fn expressions_give_the_same_answer_every_time(text in expression()) {
        let first = eval(&text, Mode::Lenient);
        prop_assert_eq!(&first, &eval(&text, Mode::Lenient));
        // Where strictness does not refuse it, it changes nothing.
        let strict = eval(&text, Mode::Strict);
        if strict != Err(ErrorKind::Semantic) {
            prop_assert_eq!(first, strict);
        }
    }

    #[test]
    fn laws_hold(a in expression(), b in expression()) {
        let eval = |text: String| eval(&text, Mode::Lenient);
        let (Ok(left), Ok(right)) = (eval(a.clone()), eval(b.clone())) else { return Ok(()) };
        let same = |x: String, y: String| {
            let (x, y) = (eval(x), eval(y));
            // A limit may be met from one side only.
            x == y || x == Err(ErrorKind::Budget) || y == Err(ErrorKind::Budget)
        };
        let pairs = [
            (format!("({a}) = ({b})"), format!("({b}) = ({a})")),
            (format!("(({a}) | ({b})).count()"), format!("(({b}) | ({a})).count()")),
            (format!("(({a}).distinct()).count()"), format!("({a}).distinct().distinct().count()")),
            (format!("({a}) != ({b})"), format!("(({a}) = ({b})).not()")),
        ];
        for (x, y) in pairs {
            prop_assert!(same(x.clone(), y.clone()), "{} / {}", x, y);
        }
        if let Ok(union) = eval(format!("({a}).combine({b})")) {
            prop_assert_eq!(union.len(), left.len() + right.len());
        }
    }
}
