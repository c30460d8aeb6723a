//! Arithmetic on numbers, strings, quantities and dates; the functions on numbers. What overflows, or divides by zero, is
//! empty (FHIRPath N1, "Math"); operands that do not go together are an error.

use std::borrow::Cow;

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive as _;

use super::ast::Operator;
use super::error::Fault;
use super::eval::{Outcome, Run, only};
use super::functions::Function;
use super::item::{Collection, Item};
use super::number;
use super::quantity::Quantity;
use super::temporal::{Kind, Temporal};

fn integer<'a>(value: Option<i64>) -> Collection<'a> {
    Collection::from(value.filter(|value| number::is_integer(*value)).map(Item::Integer))
}

fn decimal<'a>(value: Option<Decimal>) -> Collection<'a> {
    Collection::from(value.map(Item::Decimal))
}

impl<'a> Run<'a> {
    pub(super) fn negate(&self, operand: &Collection<'a>, at: u32) -> Outcome<'a> {
        let Some(item) = only(operand, at)? else { return Ok(Collection::Empty) };
        match self.system(item) {
            Some(Item::Integer(value)) => Ok(integer(value.checked_neg())),
            Some(Item::Decimal(value)) => Ok(decimal(Some(if value.is_zero() { value } else { -value }))),
            Some(Item::Quantity(quantity)) => {
                let negative = Quantity { value: -quantity.value, unit: quantity.unit };
                Ok(Collection::One(Item::Quantity(Box::new(negative))))
            }
            _ => Err(Fault::evaluation(at, "Expected a number or a quantity behind the sign")),
        }
    }

    pub(super) fn arithmetic(
        &self,
        operator: Operator,
        left: &Collection<'a>,
        right: &Collection<'a>,
        at: u32,
    ) -> Outcome<'a> {
        if operator == Operator::Concatenate {
            let text = |items: &Collection<'a>| self.string(items, at).map(Option::unwrap_or_default);
            let (left, right) = (text(left)?, text(right)?);
            self.charge_text(at, left.len() + right.len())?;
            return Ok(Collection::One(Item::String(left + right)));
        }
        let (Some(left), Some(right)) = (only(left, at)?, only(right, at)?) else {
            return Ok(Collection::Empty);
        };
        let (Some(left_value), Some(right_value)) = (self.system(left), self.system(right)) else {
            if self.is_empty_primitive(left) || self.is_empty_primitive(right) {
                return Ok(Collection::Empty);
            }
            return Err(Fault::evaluation(at, "Expected values that can be calculated with"));
        };
        match (left_value, right_value) {
            (Item::Integer(left), Item::Integer(right)) => Ok(integers(operator, left, right)),
            (Item::Integer(left), Item::Decimal(right)) => Ok(decimals(operator, left.into(), right)),
            (Item::Decimal(left), Item::Integer(right)) => Ok(decimals(operator, left, right.into())),
            (Item::Decimal(left), Item::Decimal(right)) => Ok(decimals(operator, left, right)),
            (Item::String(left), Item::String(right)) if operator == Operator::Add => {
                self.charge_text(at, left.len() + right.len())?;
                Ok(Collection::One(Item::String(left + Cow::clone(&right))))
            }
            (Item::Temporal(left), Item::Quantity(right)) => moved(operator, left, &right, at),
            (Item::Quantity(left), Item::Quantity(right)) => quantities(operator, &left, &right, at),
            (Item::Quantity(left), Item::Integer(right)) => {
                quantities(operator, &left, &Quantity::plain(right.into()), at)
            }
            (Item::Quantity(left), Item::Decimal(right)) => quantities(operator, &left, &Quantity::plain(right), at),
            (Item::Integer(left), Item::Quantity(right)) => {
                quantities(operator, &Quantity::plain(left.into()), &right, at)
            }
            (Item::Decimal(left), Item::Quantity(right)) => quantities(operator, &Quantity::plain(left), &right, at),
            _ => Err(Fault::evaluation(at, "Expected two values that can be calculated with each other")),
        }
    }

    /// Functions on one number; `item` is the input in FHIRPath's own types.
    pub(super) fn math(
        &self,
        function: Function,
        item: &Item<'a>,
        arguments: &[Collection<'a>],
        at: u32,
    ) -> Outcome<'a> {
        if function == Function::Abs
            && let Item::Quantity(quantity) = item
        {
            let positive = Quantity { value: quantity.value.abs(), unit: quantity.unit.clone() };
            return Ok(Collection::One(Item::Quantity(Box::new(positive))));
        }
        let value = match item {
            Item::Integer(value) => Decimal::from(*value),
            Item::Decimal(value) => *value,
            _ => return Err(Fault::evaluation(at, format!("Expected a number for {}", function.name()))),
        };
        let is_integer = matches!(item, Item::Integer(_));
        let argument = || self.decimal_of(arguments.first(), at);
        let by_f64 =
            |compute: fn(f64) -> f64| decimal(number::to_f64(value).and_then(|value| number::from_f64(compute(value))));
        Ok(match function {
            Function::Abs if is_integer => integer(value.abs().to_i64()),
            Function::Abs => decimal(Some(value.abs())),
            Function::Ceiling => integer(value.ceil().to_i64()),
            Function::Floor => integer(value.floor().to_i64()),
            Function::Truncate => integer(value.trunc().to_i64()),
            Function::Exp => by_f64(f64::exp),
            Function::Ln if value <= Decimal::ZERO => Collection::Empty,
            Function::Ln => by_f64(f64::ln),
            Function::Sqrt => decimal(number::sqrt(value)),
            Function::Log => {
                let Some(base) = argument()? else { return Ok(Collection::Empty) };
                if value <= Decimal::ZERO || base <= Decimal::ZERO || base == Decimal::ONE {
                    return Ok(Collection::Empty);
                }
                let result = number::to_f64(value).zip(number::to_f64(base)).map(|(value, base)| match base {
                    2.0 => value.log2(),
                    10.0 => value.log10(),
                    base => value.log(base),
                });
                decimal(result.and_then(number::from_f64))
            }
            Function::Power => {
                let Some(exponent) = argument()? else { return Ok(Collection::Empty) };
                let result = number::power(value, exponent);
                match arguments.first().and_then(|exponent| exponent.iter().next()).and_then(|item| self.system(item)) {
                    Some(Item::Integer(exponent)) if is_integer && exponent >= 0 => {
                        integer(result.and_then(|result| result.to_i64()))
                    }
                    _ => decimal(result),
                }
            }
            Function::Round => {
                let digits = match arguments.first() {
                    None => 0,
                    Some(digits) => match self.integer(digits, at)? {
                        None => return Ok(Collection::Empty),
                        Some(digits) => u32::try_from(digits)
                            .map_err(|_| Fault::evaluation(at, "Expected digits to round to that are not negative"))?,
                    },
                };
                decimal(Some(number::round(value, digits.min(number::SCALE_MAX))))
            }
            _ => Collection::Empty,
        })
    }

    fn decimal_of(&self, argument: Option<&Collection<'a>>, at: u32) -> Result<Option<Decimal>, Fault> {
        let Some(item) = argument.map_or(Ok(None), |argument| only(argument, at))? else { return Ok(None) };
        match self.system(item) {
            Some(Item::Integer(value)) => Ok(Some(value.into())),
            Some(Item::Decimal(value)) => Ok(Some(value)),
            _ => Err(Fault::evaluation(at, "Expected a number")),
        }
    }
}

fn integers<'a>(operator: Operator, left: i64, right: i64) -> Collection<'a> {
    match operator {
        Operator::Add => integer(left.checked_add(right)),
        Operator::Subtract => integer(left.checked_sub(right)),
        Operator::Multiply => integer(left.checked_mul(right)),
        Operator::Div => integer(left.checked_div(right)),
        Operator::Mod => integer(left.checked_rem(right)),
        _ => decimals(operator, left.into(), right.into()),
    }
}

fn decimals<'a>(operator: Operator, left: Decimal, right: Decimal) -> Collection<'a> {
    match operator {
        Operator::Add => decimal(left.checked_add(right)),
        Operator::Subtract => decimal(left.checked_sub(right)),
        Operator::Multiply => decimal(left.checked_mul(right)),
        Operator::Divide => decimal(left.checked_div(right)),
        Operator::Div => integer(left.checked_div(right).and_then(|quotient| quotient.trunc().to_i64())),
        _ => decimal(left.checked_rem(right)),
    }
}

fn quantities<'a>(operator: Operator, left: &Quantity, right: &Quantity, at: u32) -> Outcome<'a> {
    let result = match operator {
        Operator::Add => left.add(right, false),
        Operator::Subtract => left.add(right, true),
        Operator::Multiply => left.multiply(right),
        Operator::Divide => left.divide(right),
        _ => return Err(Fault::evaluation(at, "Expected numbers for div and mod")),
    };
    Ok(Collection::from(result.map(|quantity| Item::Quantity(Box::new(quantity)))))
}

/// A date or time plus or minus a duration.
fn moved<'a>(operator: Operator, from: Temporal, by: &Quantity, at: u32) -> Outcome<'a> {
    let amount = match operator {
        Operator::Add => by.value,
        Operator::Subtract => -by.value,
        _ => return Err(Fault::evaluation(at, "Expected + or - between a date and a duration")),
    };
    let unit = by.unit.duration();
    let unit =
        unit.ok_or_else(|| Fault::evaluation(at, "Expected a duration of definite length or of the calendar"))?;
    if from.kind == Kind::Time && !unit.is_of_day() {
        return Err(Fault::evaluation(at, "Expected hours or less to add to a time"));
    }
    Ok(Collection::from(from.add(amount, unit).map(Item::Temporal)))
}
