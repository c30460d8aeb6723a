//! The written form of primitive values, by the regular expressions and ranges of FHIR R4 datatypes.html#primitive. Takes the text,
//! gives the rule that it breaks. Written out by hand: each is one pass over the bytes.

use super::rules::{self, Rule};
use crate::definitions::primitive::Primitive;
use crate::xhtml;

/// datatypes.html#string: 1 MB (1024*1024 characters).
const STRING_CHARS_MAX: usize = 1024 * 1024;

/// The JSON kind of a primitive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    Boolean,
    Number,
    Text,
}

pub(crate) fn written(primitive: Primitive) -> Written {
    match primitive {
        Primitive::Boolean => Written::Boolean,
        Primitive::Decimal | Primitive::Integer | Primitive::PositiveInt | Primitive::UnsignedInt => Written::Number,
        _ => Written::Text,
    }
}

/// The rule that a text (of a number: its JSON text) breaks, if any.
pub(crate) fn broken_rule(primitive: Primitive, text: &str) -> Option<&'static Rule> {
    let bytes = text.as_bytes();
    if bytes.is_empty() {
        return Some(&rules::EMPTY);
    }
    let (fits, rule) = match primitive {
        Primitive::Boolean => return None,
        Primitive::Base64Binary => (base64(bytes), &rules::BASE64),
        Primitive::Canonical if no_space(bytes) => (is_absolute(text), &rules::CANONICAL_RELATIVE),
        Primitive::Canonical => (false, &rules::CANONICAL),
        Primitive::Code => (code(bytes), &rules::CODE),
        Primitive::Date => (date(bytes), &rules::DATE),
        Primitive::DateTime => (date_time(bytes), &rules::DATE_TIME),
        // A JSON number always has the form of a decimal; what it lacks is only a bound.
        Primitive::Decimal => (bytes.len() <= 64, &rules::DECIMAL),
        Primitive::ElementId => (no_space(bytes), &rules::ELEMENT_ID),
        Primitive::Id => (id(bytes), &rules::ID),
        Primitive::Instant => (instant(bytes), &rules::INSTANT),
        Primitive::Integer => (integer(text, i64::from(i32::MIN)), &rules::INTEGER),
        Primitive::PositiveInt => (integer(text, 1), &rules::POSITIVE_INT),
        Primitive::UnsignedInt => (integer(text, 0), &rules::UNSIGNED_INT),
        Primitive::Oid => (oid(text), &rules::OID),
        Primitive::Time => (time(bytes) == Some(bytes.len()), &rules::TIME),
        Primitive::Uri => (uri(text), &rules::URI),
        Primitive::Url => (no_space(bytes), &rules::URL),
        Primitive::Uuid => (uuid(bytes), &rules::UUID),
        Primitive::Xhtml => (xhtml::is_allowed(text), &rules::XHTML),
        Primitive::Markdown | Primitive::String => return string(text, primitive),
    };
    if fits { None } else { Some(rule) }
}

fn string(text: &str, primitive: Primitive) -> Option<&'static Rule> {
    let bytes = text.as_bytes();
    if bytes.len() > STRING_CHARS_MAX && text.chars().count() > STRING_CHARS_MAX {
        return Some(&rules::TOO_LONG);
    }
    let mut blank = true;
    let mut control = false;
    for &byte in bytes {
        if byte <= b' ' {
            // `[ \r\n\t\S]+`: of the white space that \s means, vertical tab and form feed are left.
            if (byte == 0x0b || byte == 0x0c) && primitive == Primitive::String {
                return Some(&rules::STRING);
            }
            control |= !matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        } else {
            blank = false;
        }
    }
    if control {
        Some(&rules::CONTROL)
    } else if blank {
        Some(&rules::STRING_BLANK)
    } else {
        None
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

fn no_space(bytes: &[u8]) -> bool {
    !bytes.iter().any(|&byte| is_space(byte))
}

/// `[^\s]+(\s[^\s]+)*`
fn code(bytes: &[u8]) -> bool {
    let mut space = true;
    for &byte in bytes {
        let is = is_space(byte);
        if is && space {
            return false;
        }
        space = is;
    }
    !space
}

fn id(bytes: &[u8]) -> bool {
    bytes.len() <= 64 && bytes.iter().all(|&b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
}

/// `[0]|[-+]?[1-9][0-9]*`, within 32 bits.
fn integer(text: &str, min: i64) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let form =
        digits.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || digits.starts_with(|c| ('1'..='9').contains(&c)));
    form && text.parse::<i64>().is_ok_and(|number| (min..=i64::from(i32::MAX)).contains(&number))
}

/// `urn:oid:[0-2](\.(0|[1-9][0-9]*))+`
fn oid(text: &str) -> bool {
    let Some(arcs) = text.strip_prefix("urn:oid:") else { return false };
    let mut arcs = arcs.split('.');
    let first = arcs.next().is_some_and(|arc| matches!(arc, "0" | "1" | "2"));
    let mut count = 0;
    let rest = arcs.all(|arc| {
        count += 1;
        arc == "0" || (arc.starts_with(|c| ('1'..='9').contains(&c)) && arc.bytes().all(|b| b.is_ascii_digit()))
    });
    first && rest && count > 0
}

/// `urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-…`
fn uuid(bytes: &[u8]) -> bool {
    bytes.strip_prefix(b"urn:uuid:").is_some_and(|uuid| uuid_digits(uuid, |b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

fn uuid_digits(uuid: &[u8], digit: impl Fn(u8) -> bool) -> bool {
    uuid.len() == 36
        && uuid.iter().enumerate().all(|(place, &byte)| match place {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => digit(byte),
        })
}

/// Absolute, or the id of what is contained (references.html#canonical).
fn is_absolute(canonical: &str) -> bool {
    canonical.starts_with('#') || canonical.contains(':')
}

/// `\S*`. What claims to be a UUID or an OID is one, as a URN; RFC 4122 lets the UUID of a URN be in upper case.
fn uri(text: &str) -> bool {
    let bytes = text.as_bytes();
    if !no_space(bytes) || bytes.starts_with(b"oid:") || bytes.starts_with(b"uuid:") {
        return false;
    }
    if let Some(uuid) = bytes.strip_prefix(b"urn:uuid:") {
        let uuid = uuid.split(|&b| b == b'#').next().unwrap_or_default();
        return uuid_digits(uuid, |b| b.is_ascii_hexdigit());
    }
    !bytes.starts_with(b"urn:oid:") || oid(text)
}

/// `(\s*([0-9a-zA-Z\+\/=]){4}\s*)+`, with the padding at the end and nowhere else.
fn base64(bytes: &[u8]) -> bool {
    let (mut digits, mut padding) = (0_usize, 0_usize);
    for &byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'+' | b'/' if padding == 0 => digits += 1,
            b'=' => padding += 1,
            _ if is_space(byte) => {}
            _ => return false,
        }
    }
    digits > 0 && padding <= 2 && (digits + padding) % 4 == 0
}

fn two(bytes: &[u8], at: usize) -> Option<u32> {
    let pair = bytes.get(at..at + 2)?;
    if pair.iter().all(u8::is_ascii_digit) {
        Some(u32::from(pair[0] - b'0') * 10 + u32::from(pair[1] - b'0'))
    } else {
        None
    }
}

/// A date of any precision; 4, 7 or 10 bytes.
fn date(bytes: &[u8]) -> bool {
    let (Some(century), Some(years)) = (two(bytes, 0), two(bytes, 2)) else { return false };
    let year = century * 100 + years;
    if year == 0 {
        return false;
    }
    if bytes.len() == 4 {
        return true;
    }
    let Some(month) = two(bytes, 5).filter(|month| bytes[4] == b'-' && (1..=12).contains(month)) else { return false };
    if bytes.len() == 7 {
        return true;
    }
    let days = match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    bytes.len() == 10 && bytes[7] == b'-' && two(bytes, 8).is_some_and(|day| (1..=days).contains(&day))
}

/// `hh:mm:ss(.f+)?`; gives where it ends.
fn time(bytes: &[u8]) -> Option<usize> {
    let clock = two(bytes, 0)? <= 23
        && bytes.get(2) == Some(&b':')
        && two(bytes, 3)? <= 59
        && bytes.get(5) == Some(&b':')
        // 60: a leap second.
        && two(bytes, 6)? <= 60;
    if !clock {
        return None;
    }
    if bytes.get(8) != Some(&b'.') {
        return Some(8);
    }
    let fraction = bytes[9..].iter().take_while(|b| b.is_ascii_digit()).count();
    if fraction == 0 { None } else { Some(9 + fraction) }
}

/// `Z|(\+|-)((0[0-9]|1[0-3]):[0-5][0-9]|14:00)`
fn zone(bytes: &[u8]) -> bool {
    match bytes {
        [b'Z'] => true,
        [b'+' | b'-', rest @ ..] if rest.len() == 5 && rest[2] == b':' => match (two(rest, 0), two(rest, 3)) {
            (Some(14), Some(0)) => true,
            (Some(hours), Some(minutes)) => hours <= 13 && minutes <= 59,
            _ => false,
        },
        _ => false,
    }
}

fn instant(bytes: &[u8]) -> bool {
    let (Some(day), Some(b'T'), Some(rest)) = (bytes.get(..10), bytes.get(10), bytes.get(11..)) else { return false };
    date(day) && time(rest).is_some_and(|end| zone(&rest[end..]))
}

fn date_time(bytes: &[u8]) -> bool {
    if bytes.len() <= 10 { date(bytes) } else { instant(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(primitive: Primitive, good: &[&str], bad: &[&str]) {
        for text in good {
            assert_eq!(broken_rule(primitive, text), None, "{text:?}");
        }
        for text in bad {
            assert!(broken_rule(primitive, text).is_some(), "{text:?}");
        }
    }

    #[test]
    fn numbers() {
        check(
            Primitive::Integer,
            &["0", "-1", "2147483647", "-2147483648"],
            &["-0", "01", "1.0", "1e2", "2147483648", "-2147483649", "99999999999999999999"],
        );
        check(Primitive::UnsignedInt, &["0", "7"], &["-1", "2147483648"]);
        check(Primitive::PositiveInt, &["1"], &["0", "-1"]);
        check(Primitive::Decimal, &["0", "1.00", "-0.5", "1e-7"], &[]);
    }

    #[test]
    fn dates_and_times() {
        check(
            Primitive::Date,
            &["2024", "2024-02", "2024-02-29", "2000-02-29", "0001-01-01"],
            &[
                "0000",
                "24",
                "2023-02-29",
                "1900-02-29",
                "2024-13",
                "2024-00",
                "2024-04-31",
                "2024-1-1",
                "2024-01-01T00:00:00Z",
                "2024-01-",
                "2024/01",
            ],
        );
        check(
            Primitive::DateTime,
            &[
                "2024",
                "2024-02-29",
                "2024-02-29T23:59:60Z",
                "2024-01-01T00:00:00.123456789+14:00",
                "2024-01-01T00:00:00-13:59",
            ],
            &[
                "2024-01-01T00:00Z",
                "2024-01-01T00:00:00",
                "2024-01-01T24:00:00Z",
                "2024-01-01T00:00:00+14:01",
                "2024-01-01T00:00:00.Z",
                "2024-01-01 00:00:00Z",
                "2024-01-01T00:00:00z",
            ],
        );
        check(Primitive::Instant, &["2024-01-01T00:00:00Z"], &["2024", "2024-01-01", "2024-01-01T00:00:00"]);
        check(
            Primitive::Time,
            &["00:00:00", "23:59:60.5"],
            &["24:00:00", "00:00", "00:00:00Z", "00:00:00.", "0:00:00"],
        );
    }

    #[test]
    fn identifiers() {
        check(Primitive::Id, &["a", "A-1.b", &"x".repeat(64)], &["", "a b", "a_b", "ä", &"x".repeat(65)]);
        check(
            Primitive::Oid,
            &["urn:oid:1.2.840", "urn:oid:2.0"],
            &["1.2.3", "urn:oid:3.1", "urn:oid:1", "urn:oid:1.02", "urn:oid:1..2", "urn:oid:1.x"],
        );
        check(
            Primitive::Uuid,
            &["urn:uuid:c757873d-ec9a-4326-a141-556f43239520"],
            &[
                "c757873d-ec9a-4326-a141-556f43239520",
                "urn:uuid:C757873D-EC9A-4326-A141-556F43239520",
                "urn:uuid:c757873dec9a4326a141556f43239520",
            ],
        );
        check(
            Primitive::Uri,
            &["http://a", "a b".split(' ').next().unwrap_or(""), "urn:uuid:C757873D-EC9A-4326-A141-556F43239520"],
            &["a b", "urn:oid:x", "urn:uuid:1", "http://a\n", "oid:1.2.3", "uuid:c757873d-ec9a-4326-a141-556f43239520"],
        );
        check(
            Primitive::Canonical,
            &["http://a.b/c|1", "#a", "urn:uuid:c757873d-ec9a-4326-a141-556f43239520"],
            &["a/b", "a b"],
        );
        check(Primitive::Code, &["a", "a b"], &[" a", "a ", "a  b", "\t"]);
    }

    #[test]
    fn texts_and_bytes() {
        check(Primitive::String, &["a", " a ", "line\nline", "\u{85}x"], &["", " ", "\n", "a\u{0b}", "a\u{0}"]);
        check(Primitive::Markdown, &["# a\n"], &["", "  "]);
        assert_eq!(broken_rule(Primitive::String, &"x".repeat(STRING_CHARS_MAX)), None);
        assert_eq!(broken_rule(Primitive::String, &"x".repeat(STRING_CHARS_MAX + 1)), Some(&rules::TOO_LONG));
        check(
            Primitive::Base64Binary,
            &["AAAA", "AA==", "AAA=", "AA AA\n", "AAAA AAA="],
            &["A", "AAA", "=AAA", "AA=A", "A===", "AA-_", "====", " "],
        );
        check(
            Primitive::Xhtml,
            &[
                "<div xmlns=\"http://www.w3.org/1999/xhtml\">x</div>",
                " <div\nlang='en' xmlns='http://www.w3.org/1999/xhtml'>x</div> ",
            ],
            &[
                "text",
                "<div>x</div>",
                "<p xmlns=\"http://www.w3.org/1999/xhtml\">x</p>",
                "<div xmlns=\"http://www.w3.org/1999/xhtml\">x",
            ],
        );
    }
}
