//! The functions on strings. Positions count characters. Regular expressions are those of the `regex` crate: linear in the
//! text, whatever the pattern; look-around and back references are refused.

use std::borrow::Cow;

use regex::{Regex, RegexBuilder};

use super::error::Fault;
use super::eval::{Outcome, Run};
use super::functions::Function;
use super::item::{Collection, Item};
use crate::tree::text::write_string;

/// Bytes of a pattern's compiled form.
const REGEX_BYTES_MAX: usize = 1 << 20;
/// Bytes of a pattern that comes from the data, which is built anew each time.
const PATTERN_BYTES_MAX: usize = 4096;

/// Builds a regular expression; `.` matches line ends too (FHIRPath N1, matches). None if it cannot be built.
pub(super) fn regex(pattern: &str, whole: bool) -> Option<Regex> {
    let whole = if whole { format!("^(?:{pattern})$") } else { pattern.to_owned() };
    RegexBuilder::new(&whole).dot_matches_new_line(true).size_limit(REGEX_BYTES_MAX).build().ok()
}

fn integer<'a>(value: usize) -> Collection<'a> {
    Collection::One(Item::Integer(i64::try_from(value).unwrap_or(i64::MAX)))
}

impl<'a> Run<'a> {
    /// Functions on one string.
    pub(super) fn strings(
        &self,
        function: Function,
        text: &Cow<'a, str>,
        arguments: &[Collection<'a>],
        at: u32,
    ) -> Outcome<'a> {
        self.charge(at, text.len() / 32)?;
        let argument = |place: usize| arguments.get(place).map_or(Ok(None), |argument| self.string(argument, at));
        // A function of an argument that is empty gives nothing.
        macro_rules! given {
            ($argument:expr) => {
                match $argument {
                    Some(value) => value,
                    None => return Ok(Collection::Empty),
                }
            };
        }
        match function {
            Function::Length => Ok(integer(text.chars().count())),
            Function::Upper => self.text(at, text.to_uppercase()),
            Function::Lower => self.text(at, text.to_lowercase()),
            Function::Trim => self.text(at, text.trim().to_owned()),
            Function::StartsWith => Ok(Collection::from(text.starts_with(&*given!(argument(0)?)))),
            Function::EndsWith => Ok(Collection::from(text.ends_with(&*given!(argument(0)?)))),
            Function::Contains => Ok(Collection::from(text.contains(&*given!(argument(0)?)))),
            Function::IndexOf | Function::LastIndexOf => {
                let part = given!(argument(0)?);
                let found = if function == Function::IndexOf { text.find(&*part) } else { text.rfind(&*part) };
                Ok(match found {
                    Some(place) => integer(text.get(..place).map_or(0, |before| before.chars().count())),
                    None => Collection::One(Item::Integer(-1)),
                })
            }
            Function::Substring => {
                let start = arguments.first().map_or(Ok(None), |start| self.integer(start, at))?;
                let length = match arguments.get(1) {
                    None => usize::MAX,
                    Some(length) => match self.integer(length, at)? {
                        // An empty length is as if it were not given.
                        None => usize::MAX,
                        Some(length) => usize::try_from(length).unwrap_or(0),
                    },
                };
                let Some(start) = start.and_then(|start| usize::try_from(start).ok()) else {
                    return Ok(Collection::Empty);
                };
                if start >= text.chars().count() {
                    return Ok(Collection::Empty);
                }
                self.text(at, text.chars().skip(start).take(length).collect())
            }
            Function::ToChars => {
                self.charge_text(at, text.len())?;
                Ok(text.chars().map(|char| Item::String(Cow::Owned(char.to_string()))).collect())
            }
            Function::Split => {
                let separator = given!(argument(0)?);
                self.charge_text(at, text.len())?;
                if separator.is_empty() {
                    return Ok(text.chars().map(|char| Item::String(Cow::Owned(char.to_string()))).collect());
                }
                Ok(text.split(&*separator).map(|part| Item::String(Cow::Owned(part.to_owned()))).collect())
            }
            Function::Replace => {
                let (part, with) = (given!(argument(0)?), given!(argument(1)?));
                let places = if part.is_empty() { text.chars().count() + 1 } else { text.matches(&*part).count() };
                // Counted before it is built.
                self.charge_text(at, text.len().saturating_add(places.saturating_mul(with.len())))?;
                self.text(at, text.replace(&*part, &with))
            }
            Function::Matches | Function::MatchesFull => {
                let pattern = given!(argument(0)?);
                let regex = self.built(&pattern, function == Function::MatchesFull, at)?;
                Ok(Collection::from(regex.is_match(text)))
            }
            Function::ReplaceMatches => {
                let pattern = given!(argument(0)?);
                let regex = self.built(&pattern, false, at)?;
                self.replace_matches(text, &regex, arguments.get(1).unwrap_or(&Collection::Empty), at)
            }
            Function::Encode | Function::Decode => {
                let format = given!(argument(0)?);
                let encode = function == Function::Encode;
                let result = match &*format {
                    "hex" if encode => Some(hex(text.as_bytes())),
                    "hex" => unhex(text).and_then(|bytes| String::from_utf8(bytes).ok()),
                    "base64" | "urlbase64" if encode => Some(base64(text.as_bytes(), &*format == "urlbase64")),
                    "base64" | "urlbase64" => {
                        unbase64(text, &*format == "urlbase64").and_then(|bytes| String::from_utf8(bytes).ok())
                    }
                    _ => return Err(Fault::evaluation(at, "Expected one of hex, base64 and urlbase64")),
                };
                result.map_or(Ok(Collection::Empty), |text| self.text(at, text))
            }
            Function::Escape | Function::Unescape => {
                let format = given!(argument(0)?);
                let escape = function == Function::Escape;
                let result = match &*format {
                    "html" if escape => html(text),
                    "html" => unhtml(text),
                    "json" if escape => {
                        let mut quoted = Vec::new();
                        write_string(text, |piece| quoted.extend_from_slice(piece));
                        let inside = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
                        String::from_utf8_lossy(inside).into_owned()
                    }
                    "json" => crate::tree::text::unescape(text.as_bytes()),
                    _ => return Err(Fault::evaluation(at, "Expected one of html and json")),
                };
                self.text(at, result)
            }
            _ => Ok(Collection::Empty),
        }
    }

    fn built(&self, pattern: &str, whole: bool, at: u32) -> Result<Regex, Fault> {
        self.charge(at, 100 + pattern.len())?;
        let regex = (pattern.len() <= PATTERN_BYTES_MAX).then(|| regex(pattern, whole)).flatten();
        regex.ok_or_else(|| Fault::evaluation(at, "Expected a regular expression that is understood here"))
    }

    pub(super) fn replace_matches(
        &self,
        text: &str,
        regex: &Regex,
        substitution: &Collection<'a>,
        at: u32,
    ) -> Outcome<'a> {
        let Some(substitution) = self.string(substitution, at)? else { return Ok(Collection::Empty) };
        // An empty pattern matches nothing that could be replaced.
        if regex.as_str().is_empty() {
            return self.text(at, text.to_owned());
        }
        let matches = regex.find_iter(text).count();
        self.charge_text(at, text.len().saturating_add(matches.saturating_mul(substitution.len())))?;
        self.text(at, regex.replace_all(text, groups(&substitution).as_str()).into_owned())
    }

    /// `join`, which takes many strings.
    pub(super) fn join(&self, items: &Collection<'a>, separator: Option<&Collection<'a>>, at: u32) -> Outcome<'a> {
        let separator = match separator {
            None => Cow::Borrowed(""),
            Some(separator) => self.string(separator, at)?.unwrap_or_default(),
        };
        let mut text = String::new();
        let mut is_first = true;
        for item in items.iter() {
            let Some(part) = self.string(&Collection::One(item.clone()), at)? else { continue };
            self.charge_text(at, part.len() + separator.len())?;
            if !is_first {
                text.push_str(&separator);
            }
            is_first = false;
            text.push_str(&part);
        }
        if items.is_empty() { Ok(Collection::Empty) } else { Ok(Collection::One(Item::String(Cow::Owned(text)))) }
    }
}

/// `$1` and `${name}` as the regex crate reads them: it would take `$1a` for a group named `1a`.
fn groups(substitution: &str) -> String {
    let mut text = String::with_capacity(substitution.len() + 8);
    let mut rest = substitution;
    while let Some(place) = rest.find('$') {
        let (before, after) = rest.split_at(place);
        text.push_str(before);
        let after = after.get(1..).unwrap_or_default();
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        if digits > 0 {
            let (number, left) = after.split_at(digits);
            text.push_str("${");
            text.push_str(number);
            text.push('}');
            rest = left;
        } else {
            text.push('$');
            rest = after;
        }
    }
    text.push_str(rest);
    text
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|digit| char::from_digit(u32::from(digit), 16))
        .collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = text.chars().map(|char| char.to_digit(16)).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    digits.chunks(2).map(|pair| u8::try_from(pair.first()? * 16 + pair.get(1)?).ok()).collect()
}

const BASE64: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// RFC 4648, padded; `url` is its URL-safe alphabet.
fn base64(bytes: &[u8], url: bool) -> String {
    let digit = |value: u32| match value {
        62 => {
            if url {
                '-'
            } else {
                '+'
            }
        }
        63 => {
            if url {
                '_'
            } else {
                '/'
            }
        }
        value => BASE64.get(value as usize).map_or('=', |&byte| char::from(byte)),
    };
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |place: usize| u32::from(chunk.get(place).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            text.push(if place > chunk.len() { '=' } else { digit(bits >> (18 - 6 * place) & 63) });
        }
    }
    text
}

fn unbase64(text: &str, url: bool) -> Option<Vec<u8>> {
    let value = |byte: u8| match byte {
        b'+' if !url => Some(62),
        b'/' if !url => Some(63),
        b'-' if url => Some(62),
        b'_' if url => Some(63),
        byte => BASE64.iter().position(|&digit| digit == byte).and_then(|place| u32::try_from(place).ok()),
    };
    let digits = text.trim_end_matches('=').as_bytes();
    let mut bytes = Vec::with_capacity(digits.len());
    for chunk in digits.chunks(4) {
        let mut bits = 0;
        for place in 0..4 {
            bits = bits << 6 | chunk.get(place).map_or(Some(0), |&byte| value(byte))?;
        }
        let [_, high, middle, low] = u32::to_be_bytes(bits);
        bytes.extend([high, middle, low].into_iter().take(chunk.len().checked_sub(1).filter(|&count| count > 0)?));
    }
    Some(bytes)
}

const ENTITIES: [(char, &str); 5] = [('&', "&amp;"), ('<', "&lt;"), ('>', "&gt;"), ('"', "&quot;"), ('\'', "&#39;")];

fn html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match ENTITIES.iter().find(|(special, _)| *special == char) {
            Some((_, entity)) => escaped.push_str(entity),
            None => escaped.push(char),
        }
    }
    escaped
}

fn unhtml(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(place) = rest.find('&') {
        let (before, after) = rest.split_at(place);
        plain.push_str(before);
        if let Some((special, entity)) = ENTITIES.iter().find(|(_, entity)| after.starts_with(entity)) {
            plain.push(*special);
            rest = after.get(entity.len()..).unwrap_or_default();
        } else {
            plain.push('&');
            rest = after.get(1..).unwrap_or_default();
        }
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_come_back() {
        for length in 0..20 {
            let bytes: Vec<u8> = (0..length).map(|byte: u8| byte.wrapping_mul(37) ^ 0xfb).collect();
            for url in [false, true] {
                assert_eq!(unbase64(&base64(&bytes, url), url), Some(bytes.clone()));
            }
            assert_eq!(unhex(&hex(&bytes)), Some(bytes));
        }
        assert_eq!(unbase64("a", false), None);
        assert_eq!(unhex("0g"), None);
        assert_eq!(unhtml(&html("<a href=\"x\">'&amp;'</a>")), "<a href=\"x\">'&amp;'</a>");
        assert_eq!(groups("$1a-$$2"), "${1}a-$${2}");
    }
}
