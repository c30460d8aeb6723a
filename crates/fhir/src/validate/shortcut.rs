//! Shortcuts through invariants. Most are alternatives of which one is that an element is absent, as in `value.empty() or …`: so most
//! elements satisfy them by what they lack, which the walk knows by then. Takes an expression and the shape of the
//! element, gives alternatives that are told at once; where none of them holds, the invariant itself is asked.

use crate::definitions::program::{Seen, Shape};
use crate::tree::{Kind, Node};

/// One alternative of an invariant.
#[derive(Debug, PartialEq, Eq)]
enum Alternative {
    /// A field is there, or is not.
    Present(u16, bool),
    /// `(start <= end)`: the times of two members, by their names.
    Ordered(Box<str>, Box<str>),
}

/// Alternatives, any of which satisfies the invariant. None of them: nothing can be told.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Shortcut(Box<[Alternative]>);

impl Shortcut {
    /// The shortcut through an expression, on elements of a shape.
    pub(super) fn new(expression: &str, shape: &Shape) -> Self {
        let Some(terms) = alternatives(expression) else { return Self::default() };
        Self(terms.into_iter().filter_map(|term| alternative(term.trim(), shape)).collect())
    }

    /// Whether the invariant holds of an element that has these fields; false if that is not told at once.
    #[inline]
    pub(super) fn holds(&self, node: Node<'_>, seen: &Seen) -> bool {
        self.0.iter().any(|alternative| match alternative {
            Alternative::Present(field, wanted) => seen.contains(*field) == *wanted,
            Alternative::Ordered(first, second) => is_ordered(node, first, second),
        })
    }
}

/// The terms of an expression that are joined by `or`; None if other operators that bind as loosely are in it.
fn alternatives(expression: &str) -> Option<Vec<&str>> {
    let mut terms = Vec::new();
    let (mut depth, mut quoted, mut begin) = (0_u32, false, 0);
    for (at, byte) in expression.bytes().enumerate() {
        match byte {
            b'\'' => quoted = !quoted,
            // A quote within a string, a name in back quotes, a comment: not worth reading here.
            b'\\' | b'`' | b'/' => return None,
            b'(' if !quoted => depth += 1,
            b')' if !quoted => depth = depth.checked_sub(1)?,
            b' ' if !quoted && depth == 0 => {
                let rest = &expression[at..];
                if rest.starts_with(" implies ") || rest.starts_with(" xor ") {
                    return None;
                }
                if rest.starts_with(" or ") && at >= begin {
                    terms.push(&expression[begin..at]);
                    begin = at + " or ".len();
                }
            }
            _ => {}
        }
    }
    terms.push(expression.get(begin..)?);
    (depth == 0 && !quoted).then_some(terms)
}

fn alternative(term: &str, shape: &Shape) -> Option<Alternative> {
    if let Some((first, second)) = term.strip_prefix('(').and_then(|t| t.strip_suffix(')')?.split_once(" <= ")) {
        let is_time = |name: &str| is_name(name) && shape.slot(name).is_some_and(|slot| !shape.field(slot).repeats);
        return (is_time(first) && is_time(second)).then(|| Alternative::Ordered(first.into(), second.into()));
    }
    let (name, rest) = term.split_once('.')?;
    if !is_name(name) {
        return None;
    }
    let field = match shape.slot(name) {
        Some(slot) if shape.field(slot).is_choice => return None,
        Some(slot) => slot.field,
        None => shape.choice(name)?,
    };
    match rest {
        "exists()" => Some(Alternative::Present(field, true)),
        "empty()" | "exists().not()" | "hasValue().not()" => Some(Alternative::Present(field, false)),
        // From nothing a path of members and conditions leads to nothing.
        _ => is_path(rest.strip_suffix(".empty()")?).then_some(Alternative::Present(field, false)),
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Whether it is a path of members, `where(…)` and `select(…)` alone.
fn is_path(path: &str) -> bool {
    let mut depth = 0_u32;
    let mut outer = String::new();
    for c in path.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ if depth == 0 => outer.push(c),
            _ => {}
        }
        if c == '(' && depth == 1 {
            outer.push('(');
        }
    }
    outer
        .split('.')
        .all(|step| is_name(step.strip_prefix("where(").unwrap_or(step)) || matches!(step, "where(" | "select("))
}

/// Whether two times that are written alike, zone included, stand in order. False may mean that it is not told.
fn is_ordered(node: Node<'_>, first: &str, second: &str) -> bool {
    let raw = |name: &str| node.member(name).filter(|member| member.kind() == Kind::String).map(Node::raw);
    let (Some(first), Some(second)) = (raw(first), raw(second)) else { return false };
    // With the quotes: `"2020-01-01T00:00:00` are 20 characters, and what follows is the fraction and the zone.
    let seconds = first.len().min(20);
    first.len() == second.len()
        && first.len() >= 12
        && first[seconds..] == second[seconds..]
        && first[..seconds] <= second[..seconds]
        && [first, second].iter().all(|text| is_written_as_time(text))
}

fn is_written_as_time(text: &[u8]) -> bool {
    text.iter().skip(1).take(19).enumerate().all(|(at, byte)| match at {
        4 | 7 => *byte == b'-' || *byte == b'"',
        10 => *byte == b'T' || *byte == b'"',
        13 | 16 => *byte == b':',
        _ => byte.is_ascii_digit(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definitions::Definitions;
    use crate::tree::{Limits, Tree};

    fn shape<'d>(definitions: &'d Definitions, name: &str) -> &'d Shape {
        definitions.program(definitions.type_named(name).unwrap()).shape(0).unwrap()
    }

    #[test]
    fn alternatives_by_presence_are_told_and_others_are_not() {
        let r4 = Definitions::r4();
        let observation = shape(&r4, "Observation");
        let present = |name: &str, wanted| {
            let field = observation.choice(name).or_else(|| Some(observation.slot(name)?.field)).unwrap();
            Alternative::Present(field, wanted)
        };
        let of = |text: &str| Shortcut::new(text, observation).0.into_vec();
        assert_eq!(
            of("dataAbsentReason.empty() or value.empty()"),
            [present("dataAbsentReason", false), present("value", false)]
        );
        assert_eq!(
            of("value.empty() or component.code.where(coding.intersect(%resource.code.coding).exists()).empty()"),
            [present("value", false), present("component", false)]
        );
        assert_eq!(of("value.exists()"), [present("value", true)]);
        for nothing in [
            "value.empty() implies component.exists()",
            "value.empty() xor component.exists()",
            "value.empty() and component.exists()",
            "component.count().empty()",
            "component.exists().empty()",
            "(value.empty() or component.empty())",
            "nonsense.empty()",
            "value.empty() or 'it\\'s' = code",
            "component.code.where(a.empty()) or",
        ] {
            assert_eq!(of(nothing), [], "{nothing}");
        }
        assert_eq!(of("code = ' or value.empty() or ' or value.empty()"), [present("value", false)]);
    }

    #[test]
    fn times_that_are_written_alike_are_compared() {
        let ordered = |text: &str| {
            let tree = Tree::parse(text.to_owned().into(), &Limits::default()).unwrap();
            is_ordered(tree.root(), "a", "b")
        };
        assert!(ordered(r#"{"a":"2020-01-01","b":"2020-01-01"}"#));
        assert!(ordered(r#"{"a":"2020-01-01T00:00:00+01:00","b":"2020-01-01T00:00:01+01:00"}"#));
        for not_told in [
            r#"{"a":"2020-01-02","b":"2020-01-01"}"#,
            r#"{"a":"2020-01-01T00:00:00+01:00","b":"2020-01-01T00:00:01+02:00"}"#,
            r#"{"a":"2020-01-01T00:00:00.1Z","b":"2020-01-01T00:00:00.2Z"}"#,
            r#"{"a":"2020-01-01","b":"2020-01-01T00:00:01+02:00"}"#,
            r#"{"a":"2020","b":"2021"}"#,
            r#"{"a":"nonsense 1","b":"nonsense 2"}"#,
            r#"{"a":"2020-01-01"}"#,
            r#"{"a":1,"b":2}"#,
        ] {
            assert!(!ordered(not_told), "{not_told}");
        }
    }
}
