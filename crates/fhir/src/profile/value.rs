//! Values of definitions against values of resources: equal to a fixed one, or containing a pattern (FHIR R4
//! elementdefinition.html, fixed[x] and pattern[x]).

use rust_decimal::Decimal;

use crate::tree::{Kind, Node};

/// Whether both are the same value, member by member.
pub(crate) fn equals(a: Node<'_>, b: Node<'_>) -> bool {
    match (a.kind(), b.kind()) {
        (Kind::Object, Kind::Object) => {
            a.len() == b.len()
                && a.members().all(|member| {
                    member.name().and_then(|name| b.member(name)).is_some_and(|other| equals(member, other))
                })
        }
        (Kind::Array, Kind::Array) => a.len() == b.len() && a.items().zip(b.items()).all(|(a, b)| equals(a, b)),
        _ => is_same(a, b),
    }
}

/// Whether a value has all that a pattern has. Of a list each item of the pattern must be found.
pub(crate) fn contains(value: Node<'_>, pattern: Node<'_>) -> bool {
    match (value.kind(), pattern.kind()) {
        (Kind::Object, Kind::Object) => pattern.members().all(|member| {
            member.name().and_then(|name| value.member(name)).is_some_and(|found| contains(found, member))
        }),
        (Kind::Array, Kind::Array) => pattern.items().all(|wanted| value.items().any(|found| contains(found, wanted))),
        _ => is_same(value, pattern),
    }
}

/// Whether two primitives are the same; numbers by value.
fn is_same(a: Node<'_>, b: Node<'_>) -> bool {
    match (a.kind(), b.kind()) {
        (Kind::String, Kind::String) => a.as_str() == b.as_str(),
        (Kind::Number, Kind::Number) => a.raw() == b.raw() || decimal(a).zip(decimal(b)).is_some_and(|(a, b)| a == b),
        (Kind::Bool, Kind::Bool) | (Kind::Null, Kind::Null) => a.raw() == b.raw(),
        _ => false,
    }
}

/// A number by its value; None beyond what is exact.
pub(crate) fn decimal(node: Node<'_>) -> Option<Decimal> {
    let text = node.number()?;
    text.parse().ok().or_else(|| Decimal::from_scientific(text).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Limits, Tree};

    #[test]
    fn fixed_values_and_patterns() {
        let tree = |text: &str| Tree::parse(text.to_owned().into(), &Limits::default()).unwrap();
        let both =
            |a: &str, b: &str| (equals(tree(a).root(), tree(b).root()), contains(tree(a).root(), tree(b).root()));
        let coding = r#"{"coding":[{"system":"a","code":"b"},{"system":"c","code":"d"}],"text":"x"}"#;
        assert_eq!(both(coding, coding), (true, true));
        assert_eq!(both(coding, r#"{"coding":[{"code":"d"}]}"#), (false, true));
        assert_eq!(both(coding, r#"{"coding":[{"system":"a","code":"d"}]}"#), (false, false));
        assert_eq!(both(r#"{"a":1.0}"#, r#"{"a":1.00}"#), (true, true));
        assert_eq!(both(r#"{"a":10}"#, r#"{"a":1e1}"#), (true, true));
        assert_eq!(both(r#"{"a":"1"}"#, r#"{"a":1}"#), (false, false));
        assert_eq!(both(r#"{"a":true}"#, r#"{"a":true,"b":1}"#), (false, false));
    }
}
