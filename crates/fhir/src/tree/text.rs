//! The text of strings: escapes checked, read and written as the canonical form writes them.

use super::error::SyntaxErrorKind::{self, InvalidEscape, LoneSurrogate, UnexpectedEnd};

/// An escape: the character, where it ends, and whether the canonical form spells it so too.
pub(crate) struct Escape {
    pub(crate) character: char,
    pub(crate) end: usize,
    pub(crate) canonical: bool,
}

/// Reads the escape that starts with the backslash at `at` (RFC 8259 §7); both halves of a surrogate pair are one.
pub(crate) fn escape(bytes: &[u8], at: usize) -> Result<Escape, SyntaxErrorKind> {
    let character = match bytes.get(at + 1).ok_or(UnexpectedEnd)? {
        b'"' => '"',
        b'\\' => '\\',
        b'/' => return Ok(Escape { character: '/', end: at + 2, canonical: false }),
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => return unicode_escape(bytes, at),
        _ => return Err(InvalidEscape),
    };
    Ok(Escape { character, end: at + 2, canonical: true })
}

fn unicode_escape(bytes: &[u8], at: usize) -> Result<Escape, SyntaxErrorKind> {
    let high = hex(bytes, at + 2)?;
    if let Some(character) = char::from_u32(high) {
        // The canonical form spells `\u00xx` only where no shorter escape exists, and in lower case.
        let short = matches!(character, '\u{8}' | '\t' | '\n' | '\u{c}' | '\r');
        let lower = bytes.get(at..at + 6).is_some_and(|text| !text.iter().any(u8::is_ascii_uppercase));
        return Ok(Escape { character, end: at + 6, canonical: high < 0x20 && !short && lower });
    }
    if high >= 0xdc00 || bytes.get(at + 6..at + 8) != Some(b"\\u") {
        return Err(LoneSurrogate);
    }
    let low = hex(bytes, at + 8)?;
    if !(0xdc00..0xe000).contains(&low) {
        return Err(LoneSurrogate);
    }
    let character = char::from_u32(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00)).ok_or(LoneSurrogate)?;
    Ok(Escape { character, end: at + 12, canonical: false })
}

fn hex(bytes: &[u8], at: usize) -> Result<u32, SyntaxErrorKind> {
    let digits = bytes.get(at..at + 4).ok_or(UnexpectedEnd)?;
    digits.iter().try_fold(0, |value, &digit| Ok(value << 4 | char::from(digit).to_digit(16).ok_or(InvalidEscape)?))
}

/// The text that the inside of a string means; the parser has checked its escapes.
pub(crate) fn unescape(inside: &[u8]) -> String {
    let mut text = String::with_capacity(inside.len());
    let mut rest = inside;
    while let Some(stop) = memchr::memchr(b'\\', rest) {
        text.push_str(std::str::from_utf8(rest.get(..stop).unwrap_or_default()).unwrap_or_default());
        let Ok(escape) = escape(rest, stop) else { return text };
        text.push(escape.character);
        rest = rest.get(escape.end..).unwrap_or_default();
    }
    text.push_str(std::str::from_utf8(rest).unwrap_or_default());
    text
}

/// Gives `put` the string as the canonical form writes it, quotes included: `\"` `\\` `\b` `\t` `\n` `\f` `\r`, other
/// characters below U+0020 as `\u00xx` in lower case, all else as itself.
pub(crate) fn write_string(text: &str, mut put: impl FnMut(&[u8])) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    put(b"\"");
    let bytes = text.as_bytes();
    let mut from = 0;
    loop {
        let stop = super::scan::string_stop(bytes, from);
        put(bytes.get(from..stop).unwrap_or_default());
        let Some(&byte) = bytes.get(stop) else { break };
        match byte {
            b'"' => put(b"\\\""),
            b'\\' => put(b"\\\\"),
            0x08 => put(b"\\b"),
            b'\t' => put(b"\\t"),
            b'\n' => put(b"\\n"),
            0x0c => put(b"\\f"),
            b'\r' => put(b"\\r"),
            _ => {
                put(b"\\u00");
                put(&[HEX[usize::from(byte >> 4 & 15)], HEX[usize::from(byte & 15)]]);
            }
        }
        from = stop + 1;
    }
    put(b"\"");
}

/// Where the name of the member whose value starts at `value` starts: at its opening quote.
pub(crate) fn name_start(bytes: &[u8], value: usize) -> usize {
    let before = bytes.get(..value).unwrap_or_default();
    let Some(close) = memchr::memrchr(b'"', before) else { return value };
    let mut end = close;
    loop {
        let Some(open) = memchr::memrchr(b'"', bytes.get(..end).unwrap_or_default()) else { return value };
        // A quote within the name stands behind an odd number of backslashes.
        let inside = bytes.get(..open).unwrap_or_default();
        if inside.iter().rev().take_while(|&&byte| byte == b'\\').count() % 2 == 0 {
            return open;
        }
        end = open;
    }
}
