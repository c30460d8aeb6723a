//! Conversions between FHIRPath's types (FHIRPath N1, "Conversion"), boundaries and precisions.

use std::borrow::Cow;

use rust_decimal::Decimal;

use super::functions::Function;
use super::item::Item;
use super::number;
use super::quantity::Quantity;
use super::temporal::{self, Temporal};

/// A value as text; None of what has none.
pub(super) fn to_text(item: &Item<'_>) -> Option<String> {
    Some(match item {
        Item::Boolean(value) => value.to_string(),
        Item::Integer(value) => value.to_string(),
        Item::Decimal(value) => value.to_string(),
        Item::String(text) => text.to_string(),
        Item::Temporal(value) => value.to_string(),
        Item::Quantity(quantity) => quantity.to_string(),
        Item::Element(_) | Item::TypeInfo { .. } | Item::Elsewhere(_) => return None,
    })
}

/// What a value is as another type; None if it cannot be that.
pub(super) fn convert<'a>(function: Function, item: &Item<'a>) -> Option<Item<'a>> {
    match function {
        Function::ToBoolean | Function::ConvertsToBoolean => to_boolean(item).map(Item::Boolean),
        Function::ToInteger | Function::ConvertsToInteger => to_integer(item).map(Item::Integer),
        Function::ToDecimal | Function::ConvertsToDecimal => to_decimal(item).map(Item::Decimal),
        Function::ToString | Function::ConvertsToString => to_text(item).map(|text| Item::String(Cow::Owned(text))),
        Function::ToDate | Function::ConvertsToDate => match item {
            Item::Temporal(value) => value.to_date(),
            // A date with a time is read, and its date taken.
            Item::String(text) => Temporal::date_time(text).and_then(Temporal::to_date),
            _ => None,
        }
        .map(Item::Temporal),
        Function::ToDateTime | Function::ConvertsToDateTime => match item {
            Item::Temporal(value) => value.to_date_time(),
            Item::String(text) => Temporal::date_time(text),
            _ => None,
        }
        .map(Item::Temporal),
        Function::ToTime | Function::ConvertsToTime => match item {
            // A date with a time is none: N1 converts times and strings alone.
            Item::Temporal(value) => (value.kind == temporal::Kind::Time).then_some(*value),
            Item::String(text) => Temporal::time(text.strip_prefix('T').unwrap_or(text)),
            _ => None,
        }
        .map(Item::Temporal),
        Function::ToQuantity | Function::ConvertsToQuantity => {
            to_quantity(item).map(|quantity| Item::Quantity(Box::new(quantity)))
        }
        _ => None,
    }
}

fn to_boolean(item: &Item<'_>) -> Option<bool> {
    match item {
        Item::Boolean(value) => Some(*value),
        Item::Integer(1) => Some(true),
        Item::Integer(0) => Some(false),
        Item::Decimal(value) if *value == Decimal::ONE => Some(true),
        Item::Decimal(value) if value.is_zero() => Some(false),
        Item::String(text) => match &*text.to_ascii_lowercase() {
            "true" | "t" | "yes" | "y" | "1" | "1.0" => Some(true),
            "false" | "f" | "no" | "n" | "0" | "0.0" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

fn to_integer(item: &Item<'_>) -> Option<i64> {
    match item {
        Item::Boolean(value) => Some(i64::from(*value)),
        Item::Integer(value) => Some(*value),
        Item::String(text) => {
            let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
            let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|number| is_number && number::is_integer(*number))
        }
        _ => None,
    }
}

fn to_decimal(item: &Item<'_>) -> Option<Decimal> {
    match item {
        Item::Boolean(value) => Some(Decimal::from(u8::from(*value))),
        Item::Integer(value) => Some(Decimal::from(*value)),
        Item::Decimal(value) => Some(*value),
        Item::String(text) => {
            let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
            let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
            let are_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            (are_digits(whole) && are_digits(fraction))
                .then(|| number::parse(text.strip_prefix('+').unwrap_or(text)))
                .flatten()
        }
        _ => None,
    }
}

pub(super) fn to_quantity(item: &Item<'_>) -> Option<Quantity> {
    match item {
        Item::Quantity(quantity) => Some((**quantity).clone()),
        Item::String(text) => Quantity::parse(text),
        Item::Boolean(_) | Item::Integer(_) | Item::Decimal(_) => to_decimal(item).map(Quantity::plain),
        _ => None,
    }
}

/// Digits that a decimal's boundary has if none are asked for.
const DECIMAL_DIGITS: u32 = 8;

/// `lowBoundary` and `highBoundary`; None where there is no such precision.
pub(super) fn boundary<'a>(item: &Item<'a>, digits: Option<i64>, low: bool) -> Option<Item<'a>> {
    let digits = match digits {
        None => None,
        Some(digits) => Some(u32::try_from(digits).ok().filter(|&digits| digits <= number::SCALE_MAX)?),
    };
    let decimal = |value: Decimal| {
        let digits = digits.unwrap_or(DECIMAL_DIGITS);
        if low { number::low_boundary(value, digits) } else { number::high_boundary(value, digits) }
    };
    match item {
        Item::Integer(value) => decimal(Decimal::from(*value)).map(Item::Decimal),
        Item::Decimal(value) => decimal(*value).map(Item::Decimal),
        Item::Quantity(quantity) => {
            let value = decimal(quantity.value)?;
            Some(Item::Quantity(Box::new(Quantity { value, unit: quantity.unit.clone() })))
        }
        Item::Temporal(value) => value.boundary(digits, low).map(Item::Temporal),
        _ => None,
    }
}

/// `precision`: digits behind the point, or digits of a date or time.
pub(super) fn precision<'a>(item: &Item<'a>) -> Option<Item<'a>> {
    match item {
        Item::Integer(_) => Some(Item::Integer(0)),
        Item::Decimal(value) => Some(Item::Integer(value.scale().into())),
        Item::Temporal(value) => Some(Item::Integer(value.precision().into())),
        _ => None,
    }
}
