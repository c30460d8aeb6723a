//! The words of XML 1.0: characters, names, attributes, references; read, and written so that they are read as they were.

use std::borrow::Cow;

use super::ATTRIBUTES_MAX;
use super::error::XmlErrorKind::{
    self, DuplicateAttribute, Entity, InvalidAttribute, InvalidName, InvalidReference, TooManyAttributes,
};

pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A fault and its byte offset in the text that was looked at.
pub(super) type Fault = (XmlErrorKind, usize);

/// An attribute as it is spelled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attribute<'x> {
    /// Name, with its prefix.
    pub(super) name: &'x str,
    /// Between the quotes.
    pub(super) value: &'x str,
    /// Where the name starts and where the value does.
    pub(super) at: usize,
    pub(super) value_at: usize,
}

/// The first character that XML 1.0 does not allow (§2.2), by its offset.
pub(super) fn forbidden(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let control = bytes.iter().position(|byte| *byte < 0x20 && !matches!(byte, b'\t' | b'\n' | b'\r'));
    let beyond = text.find(['\u{fffe}', '\u{ffff}']);
    match (control, beyond) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

fn is_allowed(character: char) -> bool {
    !matches!(character, '\0'..'\t' | '\u{b}' | '\u{c}' | '\u{e}'..' ' | '\u{fffe}' | '\u{ffff}')
}

/// White space of XML (§2.3).
pub(super) fn is_space(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'))
}

/// Whether a text is a name of XML without a prefix (Namespaces in XML, NCName).
pub(super) fn is_name(text: &str) -> bool {
    let starts = |c: char| {
        matches!(c, 'A'..='Z' | 'a'..='z' | '_' | '\u{c0}'..='\u{d6}' | '\u{d8}'..='\u{f6}' | '\u{f8}'..='\u{2ff}'
            | '\u{370}'..='\u{37d}' | '\u{37f}'..='\u{1fff}' | '\u{200c}' | '\u{200d}' | '\u{2070}'..='\u{218f}'
            | '\u{2c00}'..='\u{2fef}' | '\u{3001}'..='\u{d7ff}' | '\u{f900}'..='\u{fdcf}' | '\u{fdf0}'..='\u{fffd}'
            | '\u{10000}'..='\u{effff}')
    };
    let goes_on = |c: char| {
        starts(c) || matches!(c, '-' | '.' | '0'..='9' | '\u{b7}' | '\u{300}'..='\u{36f}' | '\u{203f}' | '\u{2040}')
    };
    text.starts_with(starts) && text.chars().all(goes_on)
}

/// A name as prefix and local name.
pub(super) fn split(name: &str) -> (Option<&str>, &str) {
    name.split_once(':').map_or((None, name), |(prefix, local)| (Some(prefix), local))
}

/// Splits the inside of a tag into the name and the attributes (§3.1), which are put into `attributes`.
pub(super) fn tag<'x>(inside: &'x str, attributes: &mut Vec<Attribute<'x>>) -> Result<&'x str, Fault> {
    let bytes = inside.as_bytes();
    let space = |mut at: usize| {
        while bytes.get(at).is_some_and(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')) {
            at += 1;
        }
        at
    };
    let word = |at: usize| {
        let rest = bytes.get(at..).unwrap_or_default();
        let end =
            rest.iter().position(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b'=' | b'"' | b'\'' | b'<'));
        at + end.unwrap_or(rest.len())
    };
    let named = |from: usize, to: usize, kind| {
        let name = inside.get(from..to).ok_or((kind, from))?;
        let (prefix, local) = split(name);
        if is_name(local) && prefix.is_none_or(is_name) { Ok(name) } else { Err((kind, from)) }
    };
    attributes.clear();
    let end = word(0);
    let element = named(0, end, InvalidName)?;
    let mut at = end;
    loop {
        let start = space(at);
        if start == bytes.len() {
            return Ok(element);
        }
        if start == at {
            return Err((InvalidAttribute, at));
        }
        let end = word(start);
        let name = named(start, end, InvalidAttribute)?;
        let equals = space(end);
        if bytes.get(equals) != Some(&b'=') {
            return Err((InvalidAttribute, equals));
        }
        let open = space(equals + 1);
        let Some(quote @ (b'"' | b'\'')) = bytes.get(open) else { return Err((InvalidAttribute, open)) };
        let rest = bytes.get(open + 1..).unwrap_or_default();
        let length = memchr::memchr(*quote, rest).ok_or((InvalidAttribute, open))?;
        let value = inside.get(open + 1..open + 1 + length).ok_or((InvalidAttribute, open))?;
        if let Some(less) = value.find('<') {
            return Err((InvalidAttribute, open + 1 + less));
        }
        if attributes.len() == ATTRIBUTES_MAX {
            return Err((TooManyAttributes, start));
        }
        if attributes.iter().any(|other| other.name == name) {
            return Err((DuplicateAttribute, start));
        }
        attributes.push(Attribute { name, value, at: start, value_at: open + 1 });
        at = open + length + 2;
    }
}

/// What an attribute's value means (§3.3.3): references replaced, white space that is written out made spaces.
pub(super) fn attribute_value(raw: &str) -> Result<Cow<'_, str>, Fault> {
    let bytes = raw.as_bytes();
    if !bytes.iter().any(|byte| matches!(byte, b'&' | b'\t' | b'\r' | b'\n')) {
        return Ok(Cow::Borrowed(raw));
    }
    let mut value = String::with_capacity(raw.len());
    let mut at = 0;
    while let Some(rest) = raw.get(at..).filter(|rest| !rest.is_empty()) {
        let plain = rest.find(['&', '\t', '\r', '\n']).unwrap_or(rest.len());
        value.push_str(rest.get(..plain).unwrap_or_default());
        at += plain;
        match bytes.get(at) {
            Some(b'&') => {
                let (character, end) = reference(raw, at)?;
                value.push(character);
                at = end;
            }
            Some(byte) => {
                value.push(' ');
                // A line end of two characters is one (§2.11).
                at += 1 + usize::from(*byte == b'\r' && bytes.get(at + 1) == Some(&b'\n'));
            }
            None => {}
        }
    }
    Ok(Cow::Owned(value))
}

/// The character that the reference at `at` means, and where it ends (§4.1, §4.6).
pub(super) fn reference(text: &str, at: usize) -> Result<(char, usize), Fault> {
    let bytes = text.as_bytes().get(at + 1..).unwrap_or_default();
    // The longest is a number with leading zeros; nobody needs more of those.
    let length = memchr::memchr(b';', bytes.get(..32.min(bytes.len())).unwrap_or_default());
    let length = length.ok_or((InvalidReference, at))?;
    let name = text.get(at + 1..at + 1 + length).ok_or((InvalidReference, at))?;
    let character = match name {
        "amp" => '&',
        "apos" => '\'',
        "gt" => '>',
        "lt" => '<',
        "quot" => '"',
        _ => {
            let Some(number) = name.strip_prefix('#') else {
                return Err((if is_name(name) { Entity } else { InvalidReference }, at));
            };
            let (digits, radix) = number.strip_prefix('x').map_or((number, 10), |digits| (digits, 16));
            let code = digits.bytes().all(|digit| char::from(digit).is_digit(radix));
            let code = code.then(|| u32::from_str_radix(digits, radix).ok()).flatten();
            code.and_then(char::from_u32).filter(|c| is_allowed(*c)).ok_or((InvalidReference, at))?
        }
    };
    Ok((character, at + length + 2))
}

/// Writes the value of an attribute, without the quotes, which are double; None if a character cannot be written.
pub(super) fn write_attribute(text: &str, out: &mut Vec<u8>) -> Option<()> {
    forbidden(text).is_none().then_some(())?;
    for byte in text.bytes() {
        match byte {
            b'&' => out.extend_from_slice(b"&amp;"),
            b'<' => out.extend_from_slice(b"&lt;"),
            b'>' => out.extend_from_slice(b"&gt;"),
            b'"' => out.extend_from_slice(b"&quot;"),
            b'\t' => out.extend_from_slice(b"&#x9;"),
            b'\n' => out.extend_from_slice(b"&#xA;"),
            b'\r' => out.extend_from_slice(b"&#xD;"),
            _ => out.push(byte),
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_those_of_xml() {
        let mut attributes = Vec::new();
        let name = tag("a:b  c='1' \n d = \"x'y\" e:f=''", &mut attributes).unwrap();
        let found: Vec<_> = attributes.iter().map(|a| (a.name, a.value, a.at, a.value_at)).collect();
        assert_eq!((name, &found[..]), ("a:b", &[("c", "1", 5, 8), ("d", "x'y", 13, 18), ("e:f", "", 23, 28)][..]));
        for (text, kind, at) in [
            ("", InvalidName, 0),
            ("1a", InvalidName, 0),
            ("a:b:c", InvalidName, 0),
            (":a", InvalidName, 0),
            ("a b", InvalidAttribute, 3),
            ("a b=c", InvalidAttribute, 4),
            ("a b='1'c='2'", InvalidAttribute, 7),
            ("a b='1", InvalidAttribute, 4),
            ("a b='<'", InvalidAttribute, 5),
            ("a b='' b=''", DuplicateAttribute, 7),
            ("a=''", InvalidAttribute, 1),
        ] {
            assert_eq!(tag(text, &mut attributes).unwrap_err(), (kind, at), "{text}");
        }
        let many: Vec<_> = (0..=ATTRIBUTES_MAX).map(|n| format!("a{n}=''")).collect();
        assert_eq!(tag(&format!("a {}", many.join(" ")), &mut attributes).unwrap_err().0, TooManyAttributes);
    }

    #[test]
    fn values_are_written_as_they_are_read() {
        for (raw, value) in [
            ("a", "a"),
            ("a\r\nb\nc\td\re", "a b c d e"),
            ("&lt;&gt;&amp;&apos;&quot;", "<>&'\""),
            ("&#10;&#xa;&#x0A;&#128512;é", "\n\n\n😀é"),
            ("&amp;lt;", "&lt;"),
        ] {
            assert_eq!(attribute_value(raw).unwrap(), value);
            let mut written = Vec::new();
            write_attribute(value, &mut written).unwrap();
            assert_eq!(attribute_value(std::str::from_utf8(&written).unwrap()).unwrap(), value);
        }
        for (raw, kind, at) in [
            ("a&nbsp;", Entity, 1),
            ("&", InvalidReference, 0),
            ("& ;", InvalidReference, 0),
            ("&;", InvalidReference, 0),
            ("&#0;", InvalidReference, 0),
            ("&#1;", InvalidReference, 0),
            ("&#;", InvalidReference, 0),
            ("&#x;", InvalidReference, 0),
            ("&#+5;", InvalidReference, 0),
            ("&#X41;", InvalidReference, 0),
            ("&#xd800;", InvalidReference, 0),
            ("&#xffff;", InvalidReference, 0),
            ("&#x110000;", InvalidReference, 0),
            ("&é", InvalidReference, 0),
        ] {
            assert_eq!(attribute_value(raw).unwrap_err(), (kind, at), "{raw}");
        }
        assert!(write_attribute("\u{1}", &mut Vec::new()).is_none());
        assert!(write_attribute("\u{ffff}", &mut Vec::new()).is_none());
    }
}
