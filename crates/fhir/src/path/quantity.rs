//! Quantities with UCUM units or calendar durations: compared, added, multiplied exactly, by octofhir-ucum's tables. What
//! has no common dimension cannot be told. FHIRPath N1, "Quantity" and "Time-valued Quantities".

use std::cmp::Ordering;
use std::fmt;

use octofhir_ucum::{EvalResult, Number};
use rust_decimal::Decimal;

use super::number;

/// A unit of time by its word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Calendar {
    Year,
    Month,
    Week,
    Day,
    Hour,
    Minute,
    Second,
    Millisecond,
}

impl Calendar {
    const ALL: [(Self, &'static str, &'static str); 8] = [
        (Self::Year, "year", "a"),
        (Self::Month, "month", "mo"),
        (Self::Week, "week", "wk"),
        (Self::Day, "day", "d"),
        (Self::Hour, "hour", "h"),
        (Self::Minute, "minute", "min"),
        (Self::Second, "second", "s"),
        (Self::Millisecond, "millisecond", "ms"),
    ];

    /// By its word in singular or plural.
    pub(super) fn named(word: &str) -> Option<Self> {
        let singular = word.strip_suffix('s').unwrap_or(word);
        Self::ALL.iter().find(|(_, name, _)| *name == singular).map(|&(unit, ..)| unit)
    }

    fn entry(self) -> (&'static str, &'static str) {
        Self::ALL.iter().find(|(unit, ..)| *unit == self).map_or(("", ""), |&(_, name, code)| (name, code))
    }

    /// Whether it counts within a day.
    pub(super) fn is_of_day(self) -> bool {
        matches!(self, Self::Hour | Self::Minute | Self::Second | Self::Millisecond)
    }

    /// The UCUM unit of the same length: a year and a month of the calendar have none.
    fn definite(self) -> Option<&'static str> {
        (!matches!(self, Self::Year | Self::Month)).then(|| self.entry().1)
    }
}

/// A unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unit {
    Calendar(Calendar),
    Ucum(Box<str>),
}

impl Unit {
    /// A unit between quotes: UCUM, or the word of a calendar's unit.
    pub(super) fn quoted(text: &str) -> Self {
        Calendar::named(text).map_or_else(|| Self::Ucum(text.into()), Self::Calendar)
    }

    fn code(&self) -> &str {
        match self {
            Self::Calendar(unit) => unit.entry().1,
            Self::Ucum(code) => code,
        }
    }

    /// As a unit to add to a date: the calendar's, or a UCUM unit of definite length.
    pub(super) fn duration(&self) -> Option<Calendar> {
        match self {
            Self::Calendar(unit) => Some(*unit),
            Self::Ucum(code) => {
                let found = Calendar::ALL.iter().find(|(_, _, ucum)| *ucum == &**code).map(|&(unit, ..)| unit);
                found.filter(|unit| unit.definite().is_some())
            }
        }
    }
}

/// A number with a unit.
#[derive(Debug, Clone)]
pub(crate) struct Quantity {
    pub(super) value: Decimal,
    pub(super) unit: Unit,
}

/// Units longer than this are not looked at.
const UNIT_BYTES_MAX: usize = 200;

fn evaluate(code: &str) -> Option<EvalResult> {
    if code.len() > UNIT_BYTES_MAX {
        return None;
    }
    octofhir_ucum::evaluate(&octofhir_ucum::parse_expression(code).ok()?).ok()
}

impl Quantity {
    /// Reads `4.5 'mg'`, `3 days` or `7`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim_matches([' ', '\t', '\r', '\n']);
        let split = text.find([' ', '\t', '\'']).unwrap_or(text.len());
        let (digits, rest) = (text.get(..split)?, text.get(split..)?.trim_start());
        let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'+'));
        let value = number::parse(digits).filter(|_| is_plain && !digits.ends_with('.') && !digits.starts_with('.'))?;
        if rest.is_empty() {
            return Some(Self::plain(value));
        }
        let unit = match rest.strip_prefix('\'') {
            Some(quoted) => {
                let code = quoted.strip_suffix('\'').filter(|code| !code.is_empty() && !code.contains('\''))?;
                Unit::quoted(code)
            }
            None => Unit::Calendar(Calendar::named(rest)?),
        };
        Some(Self { value, unit })
    }

    /// `code` and the UCUM unit, or `unit` and the word.
    pub(super) fn unit_name(&self) -> (&'static str, &str) {
        match &self.unit {
            Unit::Ucum(code) => ("code", code),
            Unit::Calendar(unit) => ("unit", unit.entry().0),
        }
    }

    /// A number without a unit.
    pub(super) fn plain(value: Decimal) -> Self {
        Self { value, unit: Unit::Ucum("1".into()) }
    }

    /// Which is less; None if they do not compare.
    pub(super) fn compare(&self, other: &Self) -> Option<Ordering> {
        if self.unit == other.unit {
            return Some(self.value.cmp(&other.value));
        }
        if let (Unit::Calendar(left), Unit::Calendar(right)) = (&self.unit, &other.unit)
            && let (Some(left), Some(right)) = (months(*left), months(*right))
        {
            return Some((self.value.checked_mul(left)?).cmp(&other.value.checked_mul(right)?));
        }
        let (left, right) = (self.definite()?, other.definite()?);
        let difference = left.minus(&right)?;
        Some(if difference.is_zero() {
            Ordering::Equal
        } else if difference.is_negative() {
            Ordering::Less
        } else {
            Ordering::Greater
        })
    }

    /// Equal to the precision of the less precise one; a calendar's year is about a UCUM year.
    pub(super) fn equivalent(&self, other: &Self) -> bool {
        if self.unit == other.unit || self.unit.code() == other.unit.code() {
            return number::equivalent(self.value, other.value);
        }
        // Compared in the unit of the one, and as precisely as the coarser of both is given in it.
        let in_mine = other.convert(&self.unit).map(|value| (self.value, value.normalize()));
        in_mine.is_some_and(|(left, right)| number::equivalent(left, right))
    }

    /// Whether both measure the same kind of thing.
    pub(super) fn is_comparable(&self, other: &Self) -> bool {
        let (left, right) = (evaluate(self.unit.code()), evaluate(other.unit.code()));
        left.zip(right).is_some_and(|(left, right)| left.is_commensurable(&right))
    }

    /// The value in another unit.
    fn convert(&self, unit: &Unit) -> Option<Decimal> {
        if self.unit == *unit {
            return Some(self.value);
        }
        let (from, to) = (evaluate(self.unit.code())?, evaluate(unit.code())?);
        if !from.is_commensurable(&to) || from.special.is_some() || to.special.is_some() {
            return None;
        }
        decimal(Number::parse(&self.value.to_string())?.checked_mul(from.factor)?.checked_div(to.factor)?)
    }

    pub(super) fn add(&self, other: &Self, subtract: bool) -> Option<Self> {
        let right = other.convert(&self.unit)?;
        let value = if subtract { self.value.checked_sub(right) } else { self.value.checked_add(right) };
        Some(Self { value: value?, unit: self.unit.clone() })
    }

    pub(super) fn multiply(&self, other: &Self) -> Option<Self> {
        let unit = match (self.unit.code(), other.unit.code()) {
            ("1", code) | (code, "1") => code.to_owned(),
            (left, right) => format!("{}.{}", factor(left), factor(right)),
        };
        Self { value: self.value.checked_mul(other.value)?, unit: Unit::Ucum(unit.into()) }.checked()
    }

    pub(super) fn divide(&self, other: &Self) -> Option<Self> {
        let unit = match (self.unit.code(), other.unit.code()) {
            (code, "1") => code.to_owned(),
            (left, right) if left == right => String::from("1"),
            (left, right) => format!("{}/{}", factor(left), factor(right)),
        };
        Self { value: self.value.checked_div(other.value)?, unit: Unit::Ucum(unit.into()) }.checked()
    }

    /// Only with a unit that UCUM has.
    fn checked(self) -> Option<Self> {
        evaluate(self.unit.code()).map(|_| self)
    }

    /// In base units, with what they are.
    fn definite(&self) -> Option<Definite> {
        let code = match &self.unit {
            Unit::Calendar(unit) => unit.definite()?,
            Unit::Ucum(code) => code,
        };
        let unit = evaluate(code)?;
        let value = Number::parse(&self.value.to_string())?;
        let value = if unit.special.is_none() {
            value.checked_mul(unit.factor)?
        } else {
            // Temperatures are linear with an offset; other special units do not compare.
            let linear = octofhir_ucum::get_canonical_units(code).ok()?;
            value.checked_mul(linear.factor)?.checked_add(linear.offset)?
        };
        Some(Definite { value, unit })
    }
}

struct Definite {
    value: Number,
    unit: EvalResult,
}

impl Definite {
    fn minus(&self, other: &Self) -> Option<Number> {
        if self.unit.is_commensurable(&other.unit) { self.value.checked_sub(other.value) } else { None }
    }
}

/// How many months one is, of the units that are months.
fn months(unit: Calendar) -> Option<Decimal> {
    match unit {
        Calendar::Year => Some(Decimal::from(12)),
        Calendar::Month => Some(Decimal::ONE),
        _ => None,
    }
}

/// A unit as a factor of another.
fn factor(code: &str) -> String {
    if code.contains(['/', '.']) { format!("({code})") } else { code.to_owned() }
}

fn decimal(value: Number) -> Option<Decimal> {
    let (digits, exponent) = value.to_integer_and_exponent();
    if exponent <= 0 {
        return Decimal::try_from_i128_with_scale(digits, exponent.unsigned_abs()).ok();
    }
    let power = 10_i128.checked_pow(exponent.unsigned_abs())?;
    Decimal::try_from_i128_with_scale(digits.checked_mul(power)?, 0).ok()
}

/// `4.5 'mg'`, `1 week`
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.unit {
            Unit::Ucum(code) => write!(f, "{} '{code}'", self.value),
            Unit::Calendar(unit) => {
                let plural = if self.value.abs() == Decimal::ONE { "" } else { "s" };
                write!(f, "{} {}{plural}", self.value, unit.entry().0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantity(text: &str) -> Quantity {
        Quantity::parse(text).unwrap()
    }

    #[test]
    fn units_are_converted_exactly() {
        for (left, right, order) in [
            ("4.0000 'g'", "4000.0 'mg'", Some(Ordering::Equal)),
            ("1 '[in_i]'", "2.54 'cm'", Some(Ordering::Equal)),
            ("7 days", "1 'wk'", Some(Ordering::Equal)),
            ("1 year", "12 months", Some(Ordering::Equal)),
            ("1 year", "1 'a'", None),
            ("1 year", "365 days", None),
            ("1 'g'", "1 'm'", None),
            ("37 'Cel'", "98.6 '[degF]'", Some(Ordering::Equal)),
            ("1 'nonsense'", "1 'g'", None),
        ] {
            assert_eq!(quantity(left).compare(&quantity(right)), order, "{left} {right}");
        }
        assert!(quantity("4 'g'").equivalent(&quantity("4040 'mg'")));
        assert!(quantity("1 year").equivalent(&quantity("1 'a'")));
        assert_eq!(quantity("1 'm'").add(&quantity("2 'cm'"), false).unwrap().to_string(), "1.02 'm'");
        assert_eq!(quantity("4.0 'g'").divide(&quantity("2.0 'm'")).unwrap().to_string(), "2 'g/m'");
        for text in ["1 wk", "mg", "1 ''", "1 'mg", "1.", ".5", "1e3 'g'", "", "1  dayss"] {
            assert!(Quantity::parse(text).is_none(), "{text}");
        }
    }
}
