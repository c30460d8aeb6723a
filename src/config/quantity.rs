//! Quantities as they are typed: a whole number and its unit, as in "5s" and "16MiB".
//!
//! Takes text; gives a [`Duration`] or a number of bytes. Never guesses a unit: a bare number is refused, since a
//! time-out of 5 is as likely to be meant in minutes as in milliseconds.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

const MILLISECONDS: [(&str, u64); 5] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const BYTES: [(&str, u64); 5] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

/// A span of time as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span(pub(super) Duration);

/// An amount of bytes as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Size(pub(super) u64);

impl Span {
    pub(super) const fn milliseconds(milliseconds: u64) -> Self {
        Self(Duration::from_millis(milliseconds))
    }
    pub(super) const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

impl Size {
    pub(super) const fn kib(kib: u64) -> Self {
        Self(kib << 10)
    }
    pub(super) const fn mib(mib: u64) -> Self {
        Self(mib << 20)
    }
    pub(super) const fn gib(gib: u64) -> Self {
        Self(gib << 30)
    }
}

/// A type that is typed as a whole number and a unit.
trait Quantity: Sized {
    const UNITS: &'static [(&'static str, u64)];
    const EXPECTED: &'static str;
    fn from_base(base: u64) -> Self;
    fn base(&self) -> u64;
}

impl Quantity for Span {
    const UNITS: &'static [(&'static str, u64)] = &MILLISECONDS;
    const EXPECTED: &'static str = r#"a time with its unit, as in "250ms", "5s", "2m", "1h" or "7d""#;
    fn from_base(base: u64) -> Self {
        Self::milliseconds(base)
    }
    fn base(&self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }
}

impl Quantity for Size {
    const UNITS: &'static [(&'static str, u64)] = &BYTES;
    const EXPECTED: &'static str = r#"a size with its unit, as in "512B", "64KiB", "16MiB" or "2GiB""#;
    fn from_base(base: u64) -> Self {
        Self(base)
    }
    fn base(&self) -> u64 {
        self.0
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(self, f)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(self, f)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Typed(std::marker::PhantomData))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Typed(std::marker::PhantomData))
    }
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Time".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$", "description": Span::EXPECTED })
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9]+(B|KiB|MiB|GiB|TiB)$", "description": Size::EXPECTED })
    }
}

struct Typed<Q>(std::marker::PhantomData<Q>);

impl<Q: Quantity> Visitor<'_> for Typed<Q> {
    type Value = Q;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Q::EXPECTED)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Q, E> {
        parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

/// `None` for anything but decimal digits and one of the units, or above what 64 bits hold.
fn parse<Q: Quantity>(text: &str) -> Option<Q> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = Q::UNITS.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor).map(Q::from_base)
}

/// In the largest unit that leaves a whole number.
fn write<Q: Quantity>(quantity: &Q, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let base = quantity.base();
    let fits = |(_, factor): &&(&str, u64)| base >= *factor && base.is_multiple_of(*factor);
    let (unit, factor) = Q::UNITS.iter().rev().find(fits).unwrap_or(&Q::UNITS[0]);
    write!(f, "{}{unit}", base / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_and_a_unit() {
        assert_eq!(parse(r"250ms"), Some(Span::milliseconds(250)));
        assert_eq!(parse("90m"), Some(Span::seconds(5400)));
        assert_eq!(parse("7d"), Some(Span::seconds(7 * 86_400)));
        assert_eq!(parse("0B"), Some(Size(0)));
        assert_eq!(parse("16MiB"), Some(Size::mib(16)));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "5", "s", "5 s", "-5s", "1.5s", "5S", "5sec", "99999999999999999999s", "300000000000000000d"] {
            assert_eq!(parse::<Span>(text), None, "{text}");
        }
        for text in ["16", "16MB", "16M", "16mib", "0x10B", "99999999TiB"] {
            assert_eq!(parse::<Size>(text), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn written_and_read_again(base in 0_u64..1 << 50) {
            proptest::prop_assert_eq!(parse::<Span>(&Span::milliseconds(base).to_string()), Some(Span::milliseconds(base)));
            proptest::prop_assert_eq!(parse::<Size>(&Size(base).to_string()), Some(Size(base)));
        }
    }
}
