//! Integers and decimals: exact where FHIRPath is exact (28 digits), rounded to 15 digits where it takes logarithms and
//! roots. What does not fit is no value, never a wrong one.

use rust_decimal::{Decimal, RoundingStrategy};

/// Digits behind the point that a decimal can have here.
pub(super) const SCALE_MAX: u32 = 28;

/// Reads digits with an optional sign, fraction and exponent.
pub(super) fn parse(text: &str) -> Option<Decimal> {
    if text.contains(['e', 'E']) {
        return Decimal::from_scientific(text).ok();
    }
    Decimal::from_str_exact(text).ok()
}

/// Whether a number fits FHIRPath's Integer.
pub(super) fn is_integer(number: i64) -> bool {
    i32::try_from(number).is_ok()
}

/// Rounds half away from zero.
pub(super) fn round(value: Decimal, digits: u32) -> Decimal {
    value.round_dp_with_strategy(digits, RoundingStrategy::MidpointAwayFromZero)
}

/// Digits behind the point, without trailing zeros.
fn precision(value: Decimal) -> u32 {
    value.normalize().scale()
}

/// Equal to the precision of the less precise one (FHIRPath N1, `~`).
pub(super) fn equivalent(left: Decimal, right: Decimal) -> bool {
    let digits = precision(left).min(precision(right));
    round(left, digits) == round(right, digits)
}

/// A computed approximation as a decimal.
pub(super) fn from_f64(value: f64) -> Option<Decimal> {
    if !value.is_finite() {
        return None;
    }
    let text = format!("{value:.15e}");
    Decimal::from_scientific(&text).ok().map(|decimal| decimal.round_sf(15).unwrap_or(decimal).normalize())
}

pub(super) fn to_f64(value: Decimal) -> Option<f64> {
    // The way by text rounds once.
    value.to_string().parse().ok()
}

/// Exact where it can be.
pub(super) fn sqrt(value: Decimal) -> Option<Decimal> {
    if value.is_sign_negative() && !value.is_zero() {
        return None;
    }
    from_f64(to_f64(value)?.sqrt())
}

/// Exact for whole exponents.
pub(super) fn power(base: Decimal, exponent: Decimal) -> Option<Decimal> {
    if exponent.fract().is_zero()
        && let Ok(mut left) = i64::try_from(exponent.trunc().mantissa())
        && exponent.trunc().scale() == 0
    {
        let negative = left < 0;
        left = left.checked_abs()?;
        let (mut result, mut square) = (Decimal::ONE, base);
        while left > 0 {
            if left & 1 == 1 {
                result = result.checked_mul(square)?;
            }
            left >>= 1;
            if left > 0 {
                square = square.checked_mul(square)?;
            }
        }
        return if negative { Decimal::ONE.checked_div(result) } else { Some(result) };
    }
    from_f64(to_f64(base)?.powf(to_f64(exponent)?))
}

/// The least value that rounds to this one, to `digits` behind the point (FHIRPath `lowBoundary`).
pub(super) fn low_boundary(value: Decimal, digits: u32) -> Option<Decimal> {
    if value.is_sign_negative() && !value.is_zero() {
        return high_boundary(-value, digits).map(|high| -high);
    }
    let low = value.checked_sub(half_unit(value)?)?;
    rescaled(low.round_dp_with_strategy(digits, RoundingStrategy::ToNegativeInfinity), digits)
}

/// The greatest value that rounds to this one, to `digits` behind the point (FHIRPath `highBoundary`).
pub(super) fn high_boundary(value: Decimal, digits: u32) -> Option<Decimal> {
    if value.is_sign_negative() && !value.is_zero() {
        return low_boundary(-value, digits).map(|low| -low);
    }
    let high = value.checked_add(half_unit(value)?)?;
    rescaled(round(high, digits), digits)
}

/// Half of the last digit that is given.
fn half_unit(value: Decimal) -> Option<Decimal> {
    Decimal::try_from_i128_with_scale(5, value.scale() + 1).ok()
}

/// With exactly so many digits behind the point.
fn rescaled(mut value: Decimal, digits: u32) -> Option<Decimal> {
    let before = value;
    value.rescale(digits);
    // Where there is no room for the zeros, `rescale` does what it can.
    (value.scale() == digits && value == before).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(text: &str) -> Decimal {
        parse(text).unwrap()
    }

    #[test]
    fn text_is_read_exactly_or_not_at_all() {
        assert_eq!(decimal("1.00").to_string(), "1.00");
        assert_eq!(decimal("1e-7").to_string(), "0.0000001");
        assert_eq!(parse("1.0e"), None);
        assert_eq!(parse("99999999999999999999999999999999"), None);
        assert_eq!(parse("0.00000000000000000000000000000000001"), None);
    }

    #[test]
    fn powers_roots_and_boundaries() {
        assert_eq!(power(decimal("2.5"), decimal("2")), Some(decimal("6.25")));
        assert_eq!(power(decimal("2"), decimal("-1")), Some(decimal("0.5")));
        assert_eq!(power(decimal("-1"), decimal("0.5")), None);
        assert_eq!(power(decimal("10"), decimal("1000000")), None);
        assert_eq!(sqrt(decimal("81")), Some(decimal("9")));
        assert_eq!(low_boundary(decimal("1.587"), 8).unwrap().to_string(), "1.58650000");
        assert_eq!(high_boundary(decimal("-1.587"), 2).unwrap().to_string(), "-1.58");
        assert_eq!(low_boundary(decimal("79228162514264337593543950335"), 2), None);
        assert!(equivalent(decimal("0.6666666"), decimal("0.67")));
    }
}
