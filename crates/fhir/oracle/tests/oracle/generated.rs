//! Expressions made from the members that a resource has: every function and operator on every kind of value.

use crate::Comparison;
use crate::corpus::{self, Place};

/// `P` stands for a path that leads somewhere, `Q` for another of the same kind. For values of every kind:
const ANY: &[&str] = &[
    "P",
    "P.count()",
    "P.exists()",
    "P.empty()",
    "P.first()",
    "P.last()",
    "P.tail()",
    "P.skip(1)",
    "P.take(2)",
    "P.single()",
    "P.distinct()",
    "P.distinct().count()",
    "P.isDistinct()",
    "P.children().count()",
    "P.descendants().count()",
    "P.all($this.exists())",
    "P.where($this = P.first())",
    "P.select($this)",
    "P = P",
    "P ~ P",
    "P != P",
    "P !~ P",
    "P.first() = P.last()",
    "P = Q",
    "P ~ Q",
    "P | Q",
    "(P | P).count()",
    "P.union(Q).count()",
    "P.combine(Q).count()",
    "P.intersect(P).count()",
    "P.exclude(P.first()).count()",
    "P.supersetOf(Q)",
    "P.subsetOf(P)",
    "P.first() in P",
    "P contains P.last()",
    "P.exists() and Q.exists()",
    "P.exists() or Q.empty()",
    "P.exists() xor Q.exists()",
    "P.exists() implies Q.exists()",
    "iif(P.exists(), P.count(), 0)",
    "P.repeat($this.children()).count()",
    "P.aggregate($total + 1, 0)",
    "P.first().hasValue()",
    "P.extension.count()",
    "%resource.P.count()",
    "P[0]",
    "P[1]",
    "P.trace('x').count()",
    "P.where(false)",
    "P.select($index)",
];
const STRINGS: &[&str] = &[
    "P.first() < P.last()",
    "P.first() <= Q.first()",
    "P.first() > Q.first()",
    "P.first() & Q.first()",
    "P.first() + Q.first()",
    "P.first() + 'x'",
    "P.first().toString()",
    "P.first().toInteger()",
    "P.first().toDecimal()",
    "P.first().toDate()",
    "P.first().toDateTime()",
    "P.first().toTime()",
    "P.first().toBoolean()",
    "P.first().toQuantity()",
    "P.first().convertsToInteger()",
    "P.first().convertsToDecimal()",
    "P.first().convertsToDate()",
    "P.first().convertsToDateTime()",
    "P.first().convertsToTime()",
    "P.first().convertsToBoolean()",
    "P.first().convertsToQuantity()",
    "P.first().convertsToString()",
    "P.first().length()",
    "P.first().substring(1)",
    "P.first().substring(1, 2)",
    "P.first().substring(-1)",
    "P.first().indexOf('a')",
    "P.first().startsWith('h')",
    "P.first().endsWith('e')",
    "P.first().contains('e')",
    "P.first().upper()",
    "P.first().lower()",
    "P.first().replace('e', 'x')",
    "P.first().matches('^[a-z]+$')",
    "P.first().replaceMatches('[aeiou]', '_')",
    "P.first().toChars().count()",
    "P is string",
    "P.ofType(string)",
    "P.first() as string",
    "P.exists($this is string)",
    "P.first() ~ 'MALE'",
    "P.first().length() > 3",
];
const NUMBERS: &[&str] = &[
    "P.first() < P.last()",
    "P.first() <= Q.first()",
    "P.first() > Q.first()",
    "P.first() + 1",
    "P.first() - 1",
    "P.first() * 2",
    "P.first() / 2",
    "P.first() / 0",
    "P.first() div 2",
    "P.first() mod 2",
    "-P.first()",
    "P.first() + Q.first()",
    "P.first().abs()",
    "P.first().ceiling()",
    "P.first().floor()",
    "P.first().round(1)",
    "P.first().truncate()",
    "P.first().toString()",
    "P.first().toInteger()",
    "P.first().toDecimal()",
    "P.first().toBoolean()",
    "P.first().convertsToInteger()",
    "P.first().convertsToDecimal()",
    "P.first().convertsToString()",
    "P.first() ~ 1.0",
    "P.first() = 1",
    "P.first().sqrt() >= 0",
    "P.first().power(2)",
];
const TIMES: &[&str] = &[
    "P.first() < P.last()",
    "P.first() <= Q.first()",
    "P.first() > Q.first()",
    "P.first() + 1 day",
    "P.first() - 1 year",
    "P.first() + 1 month",
    "P.first() + 36 hours",
    "P.first() >= @2000-01-01",
    "P.first() < @2012-01-01T00:00:00Z",
    "P.first() = @2012-01-01",
    "P.first() ~ @2012",
    "P.first().toString()",
    "P.first().toDate()",
    "P.first().toDateTime()",
    "P.first().toTime()",
    "P.first().convertsToDate()",
    "P.first().convertsToDateTime()",
    "P.first().convertsToTime()",
    "P.first().convertsToString()",
];
const BOOLEANS: &[&str] = &[
    "P.first() and true",
    "P.first() or false",
    "P.first() xor Q.first()",
    "P.first() implies Q.first()",
    "P.not()",
    "P.allTrue()",
    "P.anyTrue()",
    "P.allFalse()",
    "P.anyFalse()",
    "P.first().toString()",
    "P.first().toInteger()",
    "P.first().toDecimal()",
    "P.first().toBoolean()",
    "P.first().convertsToInteger()",
    "iif(P.first(), 'a', 'b')",
    "P.first() = true",
];

/// What else a value of a type is asked.
fn templates(ty: &str) -> &'static [&'static str] {
    match ty {
        // Of a code or a URI the oracle does not take the text.
        "string" | "markdown" => STRINGS,
        "decimal" | "integer" | "positiveInt" | "unsignedInt" => NUMBERS,
        "date" | "dateTime" | "instant" | "time" => TIMES,
        "boolean" => BOOLEANS,
        _ => &[],
    }
}

/// Paths of one resource that are taken, and expressions made for each.
const PATHS: usize = 12;
const EXPRESSIONS: usize = 12;

#[test]
fn generated_expressions() {
    let core = corpus::core();
    let elements = corpus::elements(&core);
    let mut comparison = Comparison::new("generated");
    // The same numbers in each run.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for document in corpus::documents(&core, 6) {
        let paths = corpus::paths(&elements, &document);
        if paths.is_empty() {
            continue;
        }
        let place = Place { path: Vec::new(), of: document.value["resourceType"].as_str().map(str::to_owned) };
        for _ in 0..PATHS {
            let (p, ty) = &paths[next(paths.len())];
            let alike: Vec<_> = paths.iter().filter(|(_, other)| other == ty).collect();
            let more = templates(ty);
            for _ in 0..EXPRESSIONS {
                let (q, _) = alike[next(alike.len())];
                let template =
                    if more.is_empty() || next(3) == 0 { ANY[next(ANY.len())] } else { more[next(more.len())] };
                let id = if ANY.contains(&template) { template.to_owned() } else { format!("{template} of {ty}") };
                comparison.ask(&id, &fill(template, p, q), &document, &place);
            }
        }
    }
    comparison.end();
}

fn fill(template: &str, p: &str, q: &str) -> String {
    let letters: Vec<char> = template.chars().collect();
    let mut filled = String::new();
    for (at, c) in letters.iter().enumerate() {
        let beside = |at: Option<usize>| at.and_then(|at| letters.get(at)).is_some_and(|c| c.is_ascii_alphanumeric());
        match c {
            'P' | 'Q' if !beside(at.checked_sub(1)) && !beside(Some(at + 1)) => {
                filled.push_str(if *c == 'P' { p } else { q });
            }
            _ => filled.push(*c),
        }
    }
    filled
}
