//! FHIR `date`, `dateTime` and `instant`: a text with a precision, read as the span of time that it covers.
//!
//! Takes the text of a primitive, gives the half-open span [start, end) in microseconds since 1970-01-01T00:00:00Z:
//! `2022` covers a year, `2022-06-13` a day, `2022-06-13T10:00:00Z` a second (FHIR R4 datatypes, date and dateTime).
//! Never guesses: a time without a zone, a 31 June or a year 0 is an error. Never reads a clock.
//!
//! A text without a time of day has no zone. Between two such texts the calendar compares; between one with a zone and
//! one without, both readings (UTC, and the local clock of the text that has a zone) must agree, else the answer is
//! unknown (`None`), so that a caller can fail closed.

use std::cmp::Ordering;

/// How much of the text was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Precision {
    /// `YYYY`
    Year,
    /// `YYYY-MM`
    Month,
    /// `YYYY-MM-DD`
    Day,
    /// `YYYY-MM-DDThh:mm:ss` and a zone
    Second,
    /// The same with a fraction of a second. More than six digits are cut to a span of one microsecond.
    Fraction,
}

/// Why a text is not a FHIR date or time. Says what was expected, never the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DateTimeError {
    /// Neither `YYYY[-MM[-DD[Thh:mm:ss[.f]zone]]]`.
    #[error("expected YYYY, YYYY-MM, YYYY-MM-DD or YYYY-MM-DDThh:mm:ss with a zone")]
    Form,
    /// A month, day, hour, minute, second or offset outside its range.
    #[error("expected a date and a time that exist in the calendar")]
    Range,
    /// A time of day without `Z` or an offset.
    #[error("expected a zone after the time of day")]
    Zone,
}

/// A point on the time line, as a text gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Point {
    /// Microseconds since 1970-01-01T00:00:00Z; of a text without a zone, as if it were UTC.
    pub utc_micros: i64,
    /// Offset from UTC in seconds; `None` for a text without a time of day.
    pub offset_s: Option<i32>,
}

impl Point {
    /// Compares two points; `None` where it would depend on a zone that was not given.
    pub fn compare(self, other: Self) -> Option<Ordering> {
        let utc = self.utc_micros.cmp(&other.utc_micros);
        match (self.offset_s, other.offset_s) {
            (None, None) | (Some(_), Some(_)) => Some(utc),
            (None, Some(_)) | (Some(_), None) => (self.local_micros().cmp(&other.local_micros()) == utc).then_some(utc),
        }
    }

    fn local_micros(self) -> i64 {
        self.utc_micros + i64::from(self.offset_s.unwrap_or(0)) * MICROS_PER_S
    }

    fn at_or_before(self, other: Self) -> Option<bool> {
        // Equality in only one of two readings is still "at or before" in both, so compare the two readings apart.
        let utc = self.utc_micros <= other.utc_micros;
        if self.offset_s.is_some() == other.offset_s.is_some() {
            return Some(utc);
        }
        (utc == (self.local_micros() <= other.local_micros())).then_some(utc)
    }
}

/// A half-open span of time; a missing bound is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Span {
    /// First point inside.
    pub start: Option<Point>,
    /// First point after.
    pub end: Option<Point>,
}

impl Span {
    /// Whether all of `self` lies inside `outer`; `None` where that hangs on a zone that was not given.
    pub fn within(&self, outer: &Self) -> Option<bool> {
        let start = match (outer.start, self.start) {
            (None, _) => Some(true),
            (Some(_), None) => Some(false),
            (Some(outer), Some(inner)) => outer.at_or_before(inner),
        };
        let end = match (outer.end, self.end) {
            (None, _) => Some(true),
            (Some(_), None) => Some(false),
            (Some(outer), Some(inner)) => inner.at_or_before(outer),
        };
        and(start, end)
    }

    /// Whether the two spans have a moment in common; `None` where that hangs on a zone that was not given.
    pub fn overlaps(&self, other: &Self) -> Option<bool> {
        let before_end = |start: Option<Point>, end: Option<Point>| match (start, end) {
            (Some(start), Some(end)) => end.at_or_before(start).map(|over| !over),
            (None, _) | (_, None) => Some(true),
        };
        and(before_end(self.start, other.end), before_end(other.start, self.end))
    }

    /// Whether the span ends before it starts, or at it, and so covers nothing.
    pub fn is_empty(&self) -> bool {
        matches!((self.start, self.end), (Some(start), Some(end)) if end.at_or_before(start) != Some(false))
    }
}

/// Three-valued conjunction: false wins over unknown.
fn and(left: Option<bool>, right: Option<bool>) -> Option<bool> {
    match (left, right) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    }
}

/// A date or time that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DateTime {
    /// What was given.
    pub precision: Precision,
    /// First point covered.
    pub start: Point,
    /// First point after it.
    pub end: Point,
}

impl DateTime {
    /// Reads a FHIR `date` or `dateTime`. The leap second `:60` is taken for the first second of the next minute.
    pub fn parse(text: &str) -> Result<Self, DateTimeError> {
        let bytes = text.as_bytes();
        let year = number(bytes, 0, 4)?;
        if year == 0 {
            return Err(DateTimeError::Range);
        }
        let span = |precision, from: (i64, i64, i64), to: (i64, i64, i64)| {
            let point = |(y, m, d)| Point { utc_micros: days(y, m, d) * MICROS_PER_DAY, offset_s: None };
            Self { precision, start: point(from), end: point(to) }
        };
        if bytes.len() == 4 {
            return Ok(span(Precision::Year, (year, 1, 1), (year + 1, 1, 1)));
        }
        let month = part(bytes, 4, b'-')?;
        if !(1..=12).contains(&month) {
            return Err(DateTimeError::Range);
        }
        if bytes.len() == 7 {
            let next = if month == 12 { (year + 1, 1, 1) } else { (year, month + 1, 1) };
            return Ok(span(Precision::Month, (year, month, 1), next));
        }
        let day = part(bytes, 7, b'-')?;
        if day < 1 || day > days_in(year, month) {
            return Err(DateTimeError::Range);
        }
        if bytes.len() == 10 {
            let start = days(year, month, day) * MICROS_PER_DAY;
            let point = |utc_micros| Point { utc_micros, offset_s: None };
            return Ok(Self { precision: Precision::Day, start: point(start), end: point(start + MICROS_PER_DAY) });
        }
        Self::with_time(bytes, days(year, month, day))
    }

    /// Reads a FHIR `instant`: a `dateTime` with a time of day and a zone.
    pub fn parse_instant(text: &str) -> Result<Self, DateTimeError> {
        let read = Self::parse(text)?;
        if read.precision < Precision::Second { Err(DateTimeError::Form) } else { Ok(read) }
    }

    /// The span covered.
    pub fn span(&self) -> Span {
        Span { start: Some(self.start), end: Some(self.end) }
    }

    fn with_time(bytes: &[u8], day: i64) -> Result<Self, DateTimeError> {
        let (hour, minute, second) = (part(bytes, 10, b'T')?, part(bytes, 13, b':')?, part(bytes, 16, b':')?);
        if hour > 23 || minute > 59 || second > 60 {
            return Err(DateTimeError::Range);
        }
        let mut rest = bytes.get(19..).unwrap_or_default();
        let (mut fraction, mut width, mut precision) = (0, MICROS_PER_S, Precision::Second);
        if let Some(digits) = rest.strip_prefix(b".") {
            let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if count == 0 {
                return Err(DateTimeError::Form);
            }
            for digit in digits.iter().take(count.min(6)) {
                width /= 10;
                fraction += i64::from(digit - b'0') * width;
            }
            (rest, precision) = (digits.get(count..).unwrap_or_default(), Precision::Fraction);
        }
        let offset_s = offset(rest)?;
        let local = day * MICROS_PER_DAY + ((hour * 60 + minute) * 60 + second) * MICROS_PER_S + fraction;
        let start = local - i64::from(offset_s) * MICROS_PER_S;
        let point = |utc_micros| Point { utc_micros, offset_s: Some(offset_s) };
        Ok(Self { precision, start: point(start), end: point(start + width) })
    }
}

const MICROS_PER_S: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_S;

fn number(bytes: &[u8], at: usize, len: usize) -> Result<i64, DateTimeError> {
    let digits = bytes.get(at..at + len).ok_or(DateTimeError::Form)?;
    digits.iter().try_fold(0, |sum, byte| {
        if byte.is_ascii_digit() { Ok(sum * 10 + i64::from(byte - b'0')) } else { Err(DateTimeError::Form) }
    })
}

/// Two digits behind a separator.
fn part(bytes: &[u8], at: usize, separator: u8) -> Result<i64, DateTimeError> {
    if bytes.get(at) == Some(&separator) { number(bytes, at + 1, 2) } else { Err(DateTimeError::Form) }
}

fn offset(rest: &[u8]) -> Result<i32, DateTimeError> {
    let sign = match rest.first() {
        None => return Err(DateTimeError::Zone),
        Some(b'Z') if rest.len() == 1 => return Ok(0),
        Some(b'+') => 1,
        Some(b'-') => -1,
        Some(_) => return Err(DateTimeError::Form),
    };
    if rest.len() != 6 {
        return Err(DateTimeError::Form);
    }
    let (hours, minutes) = (number(rest, 1, 2)?, part(rest, 3, b':')?);
    if hours > 14 || minutes > 59 || (hours == 14 && minutes > 0) {
        return Err(DateTimeError::Range);
    }
    Ok(sign * i32::try_from((hours * 60 + minutes) * 60).unwrap_or_default())
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let before = year - 1;
    let leap_days = before / 4 - before / 100 + before / 400;
    let in_year: i64 = (1..month).map(|month| days_in(year, month)).sum();
    before * 365 + leap_days + in_year + day - 1 - 719_162
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(text: &str) -> Span {
        DateTime::parse(text).unwrap().span()
    }

    #[test]
    fn a_text_covers_what_it_says() {
        let micros = |text: &str| {
            let read = DateTime::parse(text).unwrap();
            (read.start.utc_micros, read.end.utc_micros - read.start.utc_micros)
        };
        assert_eq!(micros("1970"), (0, 365 * MICROS_PER_DAY));
        assert_eq!(micros("2000-02"), (951_782_400_000_000 - 28 * MICROS_PER_DAY, 29 * MICROS_PER_DAY));
        assert_eq!(micros("2000-02-29"), (951_782_400_000_000, MICROS_PER_DAY));
        assert_eq!(micros("1969-12-31"), (-MICROS_PER_DAY, MICROS_PER_DAY));
        assert_eq!(micros("2022-06-13T10:00:00Z"), (1_655_114_400_000_000, MICROS_PER_S));
        assert_eq!(micros("2022-06-13T12:30:00+02:30"), (1_655_114_400_000_000, MICROS_PER_S));
        assert_eq!(micros("2022-06-13T10:00:00.25Z"), (1_655_114_400_250_000, 10_000));
        assert_eq!(micros("2022-06-13T10:00:00.1234567Z"), (1_655_114_400_123_456, 1));
        assert_eq!(micros("2016-12-31T23:59:60Z").0, micros("2017-01-01T00:00:00Z").0);
    }

    #[test]
    fn what_is_no_date_is_refused() {
        use DateTimeError::{Form, Range, Zone};
        for (text, error) in [
            ("", Form),
            ("22", Form),
            ("0000", Range),
            ("2022-13", Range),
            ("2022-00", Range),
            ("2022-02-29", Range),
            ("1900-02-29", Range),
            ("2022-06-31", Range),
            ("2022-6-1", Form),
            ("2022-06-13T10:00", Form),
            ("2022-06-13T10:00:00", Zone),
            ("2022-06-13T24:00:00Z", Range),
            ("2022-06-13T10:00:00.Z", Form),
            ("2022-06-13T10:00:00+15:00", Range),
            ("2022-06-13T10:00:00+14:01", Range),
            ("2022-06-13T10:00:00Z ", Form),
            ("2022-06-13 10:00:00Z", Form),
            (" 2022", Form),
            ("２０２２", Form),
            ("+022", Form),
        ] {
            assert_eq!(DateTime::parse(text), Err(error), "{text:?}");
        }
        assert_eq!(DateTime::parse_instant("2022-06-13"), Err(Form));
        assert!(DateTime::parse_instant("2022-06-13T10:00:00Z").is_ok());
    }

    #[test]
    fn within_and_overlaps() {
        let year = span("2022");
        assert_eq!(span("2022-12-31").within(&year), Some(true));
        assert_eq!(span("2023-01-01").within(&year), Some(false));
        assert_eq!(span("2023").overlaps(&year), Some(false));
        assert_eq!(span("2022-12").overlaps(&year), Some(true));
        let open = Span { start: year.start, end: None };
        assert_eq!(open.within(&year), Some(false));
        assert_eq!(year.within(&open), Some(true));
        assert_eq!(open.overlaps(&span("2030")), Some(true));
        assert_eq!(open.overlaps(&span("2021")), Some(false));
        assert!(Span { start: year.end, end: year.start }.is_empty());
        assert!(!year.is_empty());
    }

    #[test]
    fn a_missing_zone_decides_nothing() {
        let day = span("2022-12-31");
        // 23:30 in New York is the 31st there and the 1st in UTC: who is right is not said.
        assert_eq!(span("2022-12-31T23:30:00-05:00").within(&day), None);
        assert_eq!(span("2022-12-31T23:30:00-05:00").overlaps(&day), None);
        assert_eq!(span("2022-12-31T12:00:00-05:00").within(&day), Some(true));
        assert_eq!(span("2023-01-02T12:00:00-05:00").overlaps(&day), Some(false));
        // With both zones given there is nothing to guess.
        assert_eq!(span("2022-12-31T23:30:00-05:00").overlaps(&span("2023-01-01T04:30:00Z")), Some(true));
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,40}") {
            let _ = DateTime::parse(&text);
        }

        #[test]
        fn days_follow_each_other(day in -700_000i64..2_900_000) {
            // Below the year wanted, before and after 1970.
            let (mut year, mut rest) = (1970 + day.div_euclid(366).min(day.div_euclid(365)) - 2, day);
            while days(year + 1, 1, 1) <= rest { year += 1; }
            rest -= days(year, 1, 1);
            let mut month = 1;
            while rest >= days_in(year, month) { rest -= days_in(year, month); month += 1; }
            proptest::prop_assume!((1..=9999).contains(&year));
            let text = format!("{year:04}-{month:02}-{:02}", rest + 1);
            proptest::prop_assert_eq!(DateTime::parse(&text).unwrap().start.utc_micros, day * MICROS_PER_DAY);
        }
    }
}
