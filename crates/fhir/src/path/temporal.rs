//! Dates, times and what is known of them: a partial date knows its year, or its year and month. Takes and gives text;
//! compares in three values (before, after or equal, cannot be told); adds calendar durations. Reads no clock.
//!
//! Unlike [`crate::datetime`], which reads FHIR's own primitives as spans, this follows FHIRPath: precision by precision,
//! with hours and minutes that may be missing and zones that may be unknown.

use std::cmp::Ordering;
use std::fmt;

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive as _;

use super::quantity::Calendar;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Date,
    DateTime,
    Time,
}

/// The last part that is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    Year,
    Month,
    Day,
    Hour,
    Minute,
    /// With or without a fraction: FHIRPath counts them as one.
    Second,
}

/// A date, a date with a time, or a time of day. Parts that are not given are at their least.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Temporal {
    pub(crate) kind: Kind,
    pub(super) last: Part,
    year: i32,
    month: u8,
    day: u8,
    hour: u8,
    minute: u8,
    second: u8,
    nanos: u32,
    /// Digits of the fraction that are given.
    digits: u8,
    /// Minutes east of UTC.
    zone: Option<i16>,
}

/// Zones on earth reach from 12 hours west to 14 hours east.
const ZONE_WEST: i64 = -12 * 60;
const ZONE_EAST: i64 = 14 * 60;
const NANOS_PER_S: i128 = 1_000_000_000;

impl Temporal {
    const LEAST: Self = Self {
        kind: Kind::Date,
        last: Part::Year,
        year: 1,
        month: 1,
        day: 1,
        hour: 0,
        minute: 0,
        second: 0,
        nanos: 0,
        digits: 0,
        zone: None,
    };

    /// Reads `YYYY`, `YYYY-MM` or `YYYY-MM-DD`.
    pub(crate) fn date(text: &str) -> Option<Self> {
        let mut read = Self::LEAST;
        let mut parts = text.split('-');
        read.year = fixed(parts.next()?, 4, 1, 9999)?;
        if let Some(month) = parts.next() {
            read.month = small(fixed(month, 2, 1, 12)?)?;
            read.last = Part::Month;
        }
        if let Some(day) = parts.next() {
            read.day = small(fixed(day, 2, 1, days_in(read.year, read.month))?)?;
            read.last = Part::Day;
        }
        parts.next().is_none().then_some(read)
    }

    /// Reads a date, or a date with `T` and any part of a time, or with a whole one and a zone.
    pub(crate) fn date_time(text: &str) -> Option<Self> {
        let Some((date, clock)) = text.split_once('T') else {
            return Self::date(text).map(|read| Self { kind: Kind::DateTime, ..read });
        };
        let read = Self { kind: Kind::DateTime, ..Self::date(date)? };
        if clock.is_empty() {
            return Some(read);
        }
        if read.last != Part::Day {
            return None;
        }
        let (clock, zone) = match clock.find(['Z', '+', '-']) {
            None => (clock, None),
            Some(place) => (clock.get(..place)?, Some(clock.get(place..)?)),
        };
        let mut read = read.with_clock(clock)?;
        if let Some(zone) = zone {
            read.zone = Some(offset(zone)?);
        }
        Some(read)
    }

    /// Reads `hh`, `hh:mm` or `hh:mm:ss` with or without a fraction.
    pub(crate) fn time(text: &str) -> Option<Self> {
        Self { kind: Kind::Time, ..Self::LEAST }.with_clock(text)
    }

    fn with_clock(mut self, text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        self.hour = small(fixed(parts.next()?, 2, 0, 23)?)?;
        self.last = Part::Hour;
        if let Some(minute) = parts.next() {
            self.minute = small(fixed(minute, 2, 0, 59)?)?;
            self.last = Part::Minute;
        }
        if let Some(second) = parts.next() {
            let (second, fraction) = second.split_once('.').map_or((second, None), |(s, f)| (s, Some(f)));
            // A leap second is the last second of its minute: no arithmetic knows it.
            self.second = small(fixed(second, 2, 0, 60)?.min(59))?;
            self.last = Part::Second;
            if let Some(fraction) = fraction {
                if fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
                    return None;
                }
                // Digits beyond nanoseconds are cut.
                let kept = fraction.get(..fraction.len().min(9))?;
                self.digits = u8::try_from(kept.len()).ok()?;
                self.nanos = kept.parse::<u32>().ok()? * 10_u32.pow(9 - u32::from(self.digits));
            }
        }
        parts.next().is_none().then_some(self)
    }

    /// The date part of a date with a time.
    pub(super) fn to_date(self) -> Option<Self> {
        let kept = Self { kind: Kind::Date, last: self.last.min(Part::Day), ..Self::LEAST };
        (self.kind != Kind::Time).then_some(Self { year: self.year, month: self.month, day: self.day, ..kept })
    }

    /// A date as a date with a time that is not given.
    pub(super) fn to_date_time(self) -> Option<Self> {
        (self.kind != Kind::Time).then_some(Self { kind: Kind::DateTime, ..self })
    }

    /// The time of day of a date with a time.
    pub(super) fn to_time(self) -> Option<Self> {
        let least = Self { kind: Kind::Time, year: 1, month: 1, day: 1, zone: None, ..self };
        (self.last >= Part::Hour).then_some(least)
    }

    /// Which comes first; None where the precision or a zone that is not given leaves it open. Both must be times, or
    /// neither.
    pub(super) fn compare(self, other: Self) -> Option<Ordering> {
        match (self.zone, other.zone) {
            (Some(_), None) => self.against_unzoned(other),
            (None, Some(_)) => other.against_unzoned(self).map(Ordering::reverse),
            (Some(here), Some(there)) if here != there => self.in_utc().by_parts(other.in_utc()),
            _ => self.by_parts(other),
        }
    }

    fn by_parts(self, other: Self) -> Option<Ordering> {
        let order = self.parts().cmp(&other.parts());
        let shared = self.last.min(other.last) as usize;
        let (mine, theirs) = (self.parts(), other.parts());
        let given = mine.iter().zip(&theirs).take(shared + 1);
        match given.map(|(a, b)| a.cmp(b)).find(|order| order.is_ne()) {
            Some(order) => Some(order),
            None if self.last == other.last => Some(order),
            None => None,
        }
    }

    /// Year to second, the fraction within the second.
    fn parts(self) -> [i64; 6] {
        [
            i64::from(self.year),
            i64::from(self.month),
            i64::from(self.day),
            i64::from(self.hour),
            i64::from(self.minute),
            i64::from(self.second) * 1_000_000_000 + i64::from(self.nanos),
        ]
    }

    /// Decided only if it is the same wherever on earth the other one was written.
    fn against_unzoned(self, other: Self) -> Option<Ordering> {
        let ((start, end), (other_start, other_end)) = (self.span(), other.span());
        let minutes = |minutes: i64| i128::from(minutes) * 60 * NANOS_PER_S;
        if end <= other_start - minutes(ZONE_EAST) {
            Some(Ordering::Less)
        } else if start >= other_end - minutes(ZONE_WEST) {
            Some(Ordering::Greater)
        } else {
            None
        }
    }

    /// First and last nanosecond that it may mean, in UTC if it has a zone, half-open.
    fn span(self) -> (i128, i128) {
        let start = self.nanos_from_epoch() - i128::from(self.zone.unwrap_or(0)) * 60 * NANOS_PER_S;
        let seconds: i128 = match self.last {
            Part::Year => 366 * 86400,
            Part::Month => 31 * 86400,
            Part::Day => 86400,
            Part::Hour => 3600,
            Part::Minute => 60,
            Part::Second => return (start, start + 1),
        };
        (start, start + seconds * NANOS_PER_S)
    }

    fn nanos_from_epoch(self) -> i128 {
        let day = i128::from(days(self.year, self.month, self.day));
        let second = i128::from(self.hour) * 3600 + i128::from(self.minute) * 60 + i128::from(self.second);
        (day * 86400 + second) * NANOS_PER_S + i128::from(self.nanos)
    }

    fn in_utc(self) -> Self {
        let zone = i128::from(self.zone.unwrap_or(0));
        let moved = self.at_nanos(self.nanos_from_epoch() - zone * 60 * NANOS_PER_S).unwrap_or(self);
        Self { zone: Some(0), ..moved }
    }

    /// The same kind and precision at another moment; None outside the years 1 to 9999.
    fn at_nanos(self, nanos: i128) -> Option<Self> {
        let (day, within) = (nanos.div_euclid(86400 * NANOS_PER_S), nanos.rem_euclid(86400 * NANOS_PER_S));
        let (year, month, day) = civil(i64::try_from(day).ok()?);
        let second = within / NANOS_PER_S;
        let part = |number: i128| u8::try_from(number).ok();
        (1..=9999).contains(&year).then_some(Self {
            year,
            month,
            day,
            hour: part(second / 3600)?,
            minute: part(second / 60 % 60)?,
            second: part(second % 60)?,
            nanos: u32::try_from(within % NANOS_PER_S).ok()?,
            ..self
        })
    }

    /// Adds so many of a calendar's units; parts of units longer than a second are cut off, and units finer than what is
    /// given count only as far as they fill one that is (FHIRPath N1, date/time arithmetic). None: no such date.
    pub(super) fn add(self, amount: Decimal, unit: Calendar) -> Option<Self> {
        let whole = amount.trunc().to_i64()?;
        if self.kind == Kind::Time {
            let seconds = match unit {
                Calendar::Hour => whole.checked_mul(3600)?,
                Calendar::Minute => whole.checked_mul(60)?,
                Calendar::Second | Calendar::Millisecond => return self.add_fraction(amount, unit, true),
                _ => return None,
            };
            return self.shifted(i128::from(seconds) * NANOS_PER_S, true);
        }
        match unit {
            Calendar::Year => self.add_months(whole.checked_mul(12)?),
            Calendar::Month => self.add_months(whole),
            Calendar::Week => self.add_days(whole.checked_mul(7)?),
            Calendar::Day => self.add_days(whole),
            _ if self.last <= Part::Day => {
                let per_day = match unit {
                    Calendar::Hour => 24,
                    Calendar::Minute => 24 * 60,
                    Calendar::Second => 86400,
                    _ => 86_400_000,
                };
                self.add_days(whole / per_day)
            }
            Calendar::Hour => self.shifted(i128::from(whole) * 3600 * NANOS_PER_S, false),
            Calendar::Minute if self.last == Part::Hour => self.add(Decimal::from(whole / 60), Calendar::Hour),
            Calendar::Minute => self.shifted(i128::from(whole) * 60 * NANOS_PER_S, false),
            _ if self.last < Part::Second => {
                let seconds = if unit == Calendar::Second { whole } else { whole / 1000 };
                self.add(Decimal::from(seconds / 60), Calendar::Minute)
            }
            _ => self.add_fraction(amount, unit, false),
        }
    }

    fn add_fraction(self, amount: Decimal, unit: Calendar, wraps: bool) -> Option<Self> {
        let per_unit = if unit == Calendar::Second { 1_000_000_000 } else { 1_000_000 };
        let nanos = amount.checked_mul(Decimal::from(per_unit))?.trunc().to_i128()?;
        if self.last < Part::Second {
            return self.shifted(nanos / (60 * NANOS_PER_S) * 60 * NANOS_PER_S, wraps);
        }
        let mut moved = self.shifted(nanos, wraps)?;
        if moved.nanos != 0 {
            // As many digits as it takes, three at a time: milliseconds, microseconds, nanoseconds.
            let needed = if moved.nanos % 1_000_000 == 0 {
                3
            } else if moved.nanos % 1000 == 0 {
                6
            } else {
                9
            };
            let fits = moved.nanos % 10_u32.pow(9 - u32::from(moved.digits.min(9))) == 0;
            moved.digits = if fits { moved.digits } else { needed };
        }
        Some(moved)
    }

    fn shifted(self, nanos: i128, wraps: bool) -> Option<Self> {
        let at = self.nanos_from_epoch().checked_add(nanos)?;
        let at = if wraps {
            at.rem_euclid(86400 * NANOS_PER_S) + i128::from(days(1, 1, 1)) * 86400 * NANOS_PER_S
        } else {
            at
        };
        self.at_nanos(at)
    }

    fn add_days(self, count: i64) -> Option<Self> {
        match self.last {
            // As many as fill the unit that is given.
            Part::Year => self.add_months(count / 365 * 12),
            Part::Month => self.add_months(count / 30),
            _ => self.shifted(i128::from(count) * 86400 * NANOS_PER_S, false),
        }
    }

    fn add_months(self, count: i64) -> Option<Self> {
        let count = if self.last == Part::Year { count / 12 * 12 } else { count };
        let months = (i64::from(self.year) * 12 + i64::from(self.month) - 1).checked_add(count)?;
        let (year, month) =
            (i32::try_from(months.div_euclid(12)).ok()?, small(i32::try_from(months.rem_euclid(12)).ok()? + 1)?);
        // The 31st of a shorter month is its last day.
        let day = self.day.min(small(days_in(year, month))?);
        (1..=9999).contains(&year).then_some(Self { year, month, day, ..self })
    }

    /// How many digits are given: 4 for a year, 8 for a day, 17 for a date with milliseconds, 9 for such a time.
    pub(super) fn precision(self) -> u32 {
        let date = match self.last {
            Part::Year => 4,
            Part::Month => 6,
            Part::Day => 8,
            Part::Hour => 10,
            Part::Minute => 12,
            Part::Second => 14 + u32::from(self.digits),
        };
        if self.kind == Kind::Time { date - 8 } else { date }
    }

    /// The first (or last) moment that it may mean, with so many digits; None if there is no such precision.
    pub(super) fn boundary(self, digits: Option<u32>, low: bool) -> Option<Self> {
        let (whole, most) = match self.kind {
            Kind::Date => (8, 8),
            Kind::DateTime => (17, 17),
            Kind::Time => (17, 9),
        };
        let digits = digits.unwrap_or(most);
        let digits = if self.kind == Kind::Time { digits + 8 } else { digits };
        let last = match digits {
            4 => Part::Year,
            6 => Part::Month,
            8 => Part::Day,
            10 => Part::Hour,
            12 => Part::Minute,
            14 | 17 => Part::Second,
            _ => return None,
        };
        if digits > whole && self.kind == Kind::Date || self.kind == Kind::Time && digits < 10 {
            return None;
        }
        let mut bound = self;
        if self.last < Part::Month {
            bound.month = if low { 1 } else { 12 };
        }
        if self.last < Part::Day {
            bound.day = if low { 1 } else { small(days_in(bound.year, bound.month))? };
        }
        if self.last < Part::Hour {
            bound.hour = if low { 0 } else { 23 };
            bound.minute = if low { 0 } else { 59 };
        }
        // An hour that is given alone is the hour's first minute: FHIR has no time without minutes.
        if self.last < Part::Second {
            bound.second = if low { 0 } else { 59 };
        }
        let known = 10_u32.pow(9 - u32::from(self.digits.min(9)));
        bound.nanos = if low { self.nanos } else { self.nanos + known - 1 };
        bound.last = last;
        bound.digits = if digits == 17 { 3 } else { 0 };
        bound.nanos -= bound.nanos % if digits == 17 { 1_000_000 } else { 1_000_000_000 };
        bound.zone = if self.kind != Kind::DateTime || last < Part::Hour {
            None
        } else {
            self.zone.or(Some(if low { 14 * 60 } else { -12 * 60 }))
        };
        Some(bound.cut())
    }

    /// Sets what is not given to its least.
    fn cut(mut self) -> Self {
        if self.last < Part::Month {
            self.month = 1;
        }
        if self.last < Part::Day {
            self.day = 1;
        }
        if self.last < Part::Hour {
            self.hour = 0;
        }
        if self.last < Part::Minute {
            self.minute = 0;
        }
        if self.last < Part::Second {
            (self.second, self.nanos, self.digits) = (0, 0, 0);
        }
        self
    }
}

/// As FHIR writes it, without `@` or `T` in front.
impl fmt::Display for Temporal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind != Kind::Time {
            write!(f, "{:04}", self.year)?;
            if self.last >= Part::Month {
                write!(f, "-{:02}", self.month)?;
            }
            if self.last >= Part::Day {
                write!(f, "-{:02}", self.day)?;
            }
            if self.last >= Part::Hour {
                f.write_str("T")?;
            }
        }
        if self.last >= Part::Hour {
            write!(f, "{:02}", self.hour)?;
        }
        if self.last >= Part::Minute {
            write!(f, ":{:02}", self.minute)?;
        }
        if self.last >= Part::Second {
            write!(f, ":{:02}", self.second)?;
        }
        if self.digits > 0 {
            let digits = usize::from(self.digits);
            write!(f, ".{:0digits$}", self.nanos / 10_u32.pow(9 - u32::from(self.digits.min(9))))?;
        }
        match self.zone {
            None => Ok(()),
            Some(0) => f.write_str("Z"),
            Some(zone) => {
                let sign = if zone < 0 { '-' } else { '+' };
                write!(f, "{sign}{:02}:{:02}", zone.unsigned_abs() / 60, zone.unsigned_abs() % 60)
            }
        }
    }
}

/// A number of exactly so many digits within a range.
fn fixed(text: &str, digits: usize, least: i32, most: i32) -> Option<i32> {
    let is_number = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| is_number && (least..=most).contains(number))
}

fn small(number: i32) -> Option<u8> {
    u8::try_from(number).ok()
}

/// `Z`, `+hh:mm` or `-hh:mm` in minutes.
fn offset(text: &str) -> Option<i16> {
    if text == "Z" {
        return Some(0);
    }
    let (hours, minutes) = text.get(1..)?.split_once(':')?;
    let total = i16::try_from(fixed(hours, 2, 0, 14)? * 60 + fixed(minutes, 2, 0, 59)?).ok()?;
    match text.as_bytes().first()? {
        b'+' => Some(total),
        b'-' => Some(-total),
        _ => None,
    }
}

fn days_in(year: i32, month: u8) -> i32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days from 1970-01-01 in the proleptic Gregorian calendar, by years that start in March.
fn days(year: i32, month: u8, day: u8) -> i64 {
    let year = i64::from(year) - i64::from(month <= 2);
    let month = (i64::from(month) + 9) % 12;
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * month + 2) / 5 + i64::from(day) - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The reverse of [`days`].
fn civil(days: i64) -> (i32, u8, u8) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    // Far outside the years that are let through, the year saturates and is refused.
    (i32::try_from(year).unwrap_or(i32::MAX), u8::try_from(month).unwrap_or(1), u8::try_from(day).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Temporal {
        Temporal::date_time(text).unwrap()
    }

    #[test]
    fn days_and_civil_are_each_others_reverse() {
        for day in (-719_000..2_932_000).step_by(37) {
            let (year, month, of_month) = civil(day);
            assert_eq!(days(year, month, of_month), day);
        }
        assert_eq!(days(1970, 1, 1), 0);
    }

    #[test]
    fn text_comes_back_as_it_was() {
        for text in
            ["2015", "2015-02", "2015-02-04", "2015-02-04T14", "2015-02-04T14:34:28.120+10:00", "2015-02-04T14:34:28Z"]
        {
            assert_eq!(at(text).to_string(), text);
        }
        for text in [
            "15",
            "2015-13",
            "2015-02-30",
            "2015-02T10",
            "2015-02-04T25",
            "2015-02-04T10:00:00+15:00",
            "2015-02-04T10:00:00.",
            "",
        ] {
            assert!(Temporal::date_time(text).is_none(), "{text}");
        }
        assert_eq!(Temporal::time("10:30").unwrap().to_string(), "10:30");
    }

    #[test]
    fn what_precision_or_zone_leave_open_is_not_decided() {
        for (left, right, order) in [
            ("2018-03", "2018-03-01", None),
            ("2018-03", "2018-04-01", Some(Ordering::Less)),
            ("2012-04-15T15:00:00Z", "2012-04-15T10:00:00", None),
            ("2012-04-15T15:00:00Z", "2012-04-17T10:00:00", Some(Ordering::Less)),
            ("2012-04-15T15:00:00+02:00", "2012-04-15T16:00:00+03:00", Some(Ordering::Equal)),
            ("2012-04-15T15:30:31", "2012-04-15T15:30:31.0", Some(Ordering::Equal)),
            ("1974-12-25", "2026-01-01T00:00:00Z", Some(Ordering::Less)),
        ] {
            assert_eq!(at(left).compare(at(right)), order, "{left} {right}");
            assert_eq!(at(right).compare(at(left)), order.map(Ordering::reverse), "{right} {left}");
        }
    }

    #[test]
    fn durations_are_added_as_the_calendar_has_them() {
        for (text, amount, unit, sum) in [
            ("2020-01-31", 1, Calendar::Month, Some("2020-02-29")),
            ("2020-02-29", 1, Calendar::Year, Some("2021-02-28")),
            ("2014", 24, Calendar::Month, Some("2016")),
            ("2019-01", 59, Calendar::Day, Some("2019-02")),
            ("2019-01-01", 23, Calendar::Hour, Some("2019-01-01")),
            ("2019-12-31T23:59:59Z", 1, Calendar::Second, Some("2020-01-01T00:00:00Z")),
            ("2019-12-31T23:59:59.5Z", 1, Calendar::Millisecond, Some("2019-12-31T23:59:59.501Z")),
            ("9999-12-31", 1, Calendar::Day, None),
            ("0001-01-01", -1, Calendar::Day, None),
        ] {
            assert_eq!(at(text).add(Decimal::from(amount), unit).map(|sum| sum.to_string()).as_deref(), sum, "{text}");
        }
        let wrapped = Temporal::time("23:30").unwrap().add(Decimal::ONE, Calendar::Hour).unwrap();
        assert_eq!(wrapped.to_string(), "00:30");
    }
}
