//! Cuts an expression into tokens (FHIRPath N1, appendix B). Takes text, gives tokens with their places, or the place of
//! the first fault. Dates and times are recognised by their form here, and read by [`super::temporal`].

use std::borrow::Cow;

use super::error::Fault;

/// Tokens in an expression.
const TOKENS_MAX: usize = 20_000;

/// A token.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token<'s> {
    /// A word: an identifier or a keyword, as the place demands.
    Word(&'s str),
    /// An identifier between backticks.
    Delimited(String),
    String(String),
    Number(&'s str),
    /// Without `@`.
    Date(&'s str),
    /// Without `@`.
    DateTime(&'s str),
    /// Without `@T`.
    Time(&'s str),
    /// `%name`
    Variable(Cow<'s, str>),
    /// `$this`, without `$`.
    Special(&'s str),
    /// An operator or a bracket.
    Symbol(&'static str),
    End,
}

/// Longer ones first.
const SYMBOLS: [&str; 24] = [
    "<=", ">=", "!=", "!~", ".", ",", "(", ")", "[", "]", "{", "}", "+", "-", "*", "/", "&", "|", "<", ">", "=", "~",
    "!", ";",
];

/// Cuts an expression into tokens, the last of which is [`Token::End`].
pub(super) fn tokens(text: &str) -> Result<Vec<(Token<'_>, u32)>, Fault> {
    let mut lexer = Lexer { text, at: 0 };
    let mut tokens = Vec::new();
    loop {
        lexer.space()?;
        let at = lexer.place();
        if tokens.len() >= TOKENS_MAX {
            return Err(Fault::budget(at, "Expected a shorter expression"));
        }
        let token = lexer.token()?;
        let is_end = token == Token::End;
        tokens.push((token, at));
        if is_end {
            return Ok(tokens);
        }
    }
}

struct Lexer<'s> {
    text: &'s str,
    at: usize,
}

impl<'s> Lexer<'s> {
    fn place(&self) -> u32 {
        u32::try_from(self.at).unwrap_or(u32::MAX)
    }

    fn rest(&self) -> &'s str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> u8 {
        self.text.as_bytes().get(self.at).copied().unwrap_or(0)
    }

    /// White space and comments.
    fn space(&mut self) -> Result<(), Fault> {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start_matches([' ', '\t', '\r', '\n', '\u{a0}', '\u{feff}']);
            self.at += rest.len() - trimmed.len();
            if trimmed.starts_with("//") {
                self.at += trimmed.find('\n').unwrap_or(trimmed.len());
            } else if let Some(comment) = trimmed.strip_prefix("/*") {
                let end = comment.find("*/").ok_or_else(|| Fault::syntax(self.place(), "Expected */ at the end"))?;
                self.at += end + 4;
            } else {
                return Ok(());
            }
        }
    }

    fn token(&mut self) -> Result<Token<'s>, Fault> {
        let at = self.place();
        match self.peek() {
            0 if self.rest().is_empty() => Ok(Token::End),
            b'\'' => Ok(Token::String(self.quoted('\'')?)),
            b'`' => Ok(Token::Delimited(self.quoted('`')?)),
            b'"' => Ok(Token::Delimited(self.quoted('"')?)),
            b'0'..=b'9' => Ok(Token::Number(self.number())),
            b'@' => self.moment(),
            b'$' => {
                self.at += 1;
                let word = self.word();
                if word.is_empty() {
                    Err(Fault::syntax(at, "Expected a name after $"))
                } else {
                    Ok(Token::Special(word))
                }
            }
            b'%' => {
                self.at += 1;
                let name = match self.peek() {
                    b'`' => Cow::Owned(self.quoted('`')?),
                    b'"' => Cow::Owned(self.quoted('"')?),
                    b'\'' => Cow::Owned(self.quoted('\'')?),
                    _ => Cow::Borrowed(self.word()),
                };
                if name.is_empty() {
                    Err(Fault::syntax(at, "Expected a name after %"))
                } else {
                    Ok(Token::Variable(name))
                }
            }
            byte if byte.is_ascii_alphabetic() || byte == b'_' => Ok(Token::Word(self.word())),
            _ => {
                let symbol = SYMBOLS.iter().find(|symbol| self.rest().starts_with(**symbol));
                let symbol = symbol.ok_or_else(|| Fault::syntax(at, "Expected no such character here"))?;
                self.at += symbol.len();
                Ok(Token::Symbol(symbol))
            }
        }
    }

    fn take(&mut self, accept: impl Fn(u8) -> bool) -> &'s str {
        let rest = self.rest();
        let length = rest.bytes().take_while(|&byte| accept(byte)).count();
        self.at += length;
        rest.get(..length).unwrap_or_default()
    }

    fn word(&mut self) -> &'s str {
        self.take(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    }

    fn number(&mut self) -> &'s str {
        let from = self.at;
        self.take(|byte| byte.is_ascii_digit());
        // A dot is part of the number only if a digit follows: `1.toString()`.
        if self.peek() == b'.' && self.text.as_bytes().get(self.at + 1).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
            self.take(|byte| byte.is_ascii_digit());
        }
        self.text.get(from..self.at).unwrap_or_default()
    }

    /// `@` and a date, a date with a time, or a time.
    fn moment(&mut self) -> Result<Token<'s>, Fault> {
        let at = self.place();
        self.at += 1;
        let from = self.at;
        if self.peek() == b'T' {
            self.at += 1;
            self.clock();
            let text = self.text.get(from + 1..self.at).unwrap_or_default();
            return if text.is_empty() {
                Err(Fault::syntax(at, "Expected a time after @T"))
            } else {
                Ok(Token::Time(text))
            };
        }
        let digit = |byte: u8| byte.is_ascii_digit();
        self.take(digit);
        while self.peek() == b'-' && self.text.as_bytes().get(self.at + 1).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
            self.take(digit);
        }
        let date = self.text.get(from..self.at).unwrap_or_default();
        if date.is_empty() {
            return Err(Fault::syntax(at, "Expected a date or a time after @"));
        }
        if self.peek() != b'T' {
            return Ok(Token::Date(date));
        }
        self.at += 1;
        self.clock();
        if self.peek() == b'Z' {
            self.at += 1;
        } else if matches!(self.peek(), b'+' | b'-')
            && self.text.as_bytes().get(self.at + 3) == Some(&b':')
            && self.text.as_bytes().get(self.at + 1).is_some_and(u8::is_ascii_digit)
        {
            self.at += 1;
            self.take(|byte| byte.is_ascii_digit() || byte == b':');
        }
        Ok(Token::DateTime(self.text.get(from..self.at).unwrap_or_default()))
    }

    /// `hh:mm:ss.fff`, any part of it from the left.
    fn clock(&mut self) {
        self.take(|byte| byte.is_ascii_digit() || byte == b':');
        if self.peek() == b'.' && self.text.as_bytes().get(self.at + 1).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
            self.take(|byte| byte.is_ascii_digit());
        }
    }

    /// Text between two equal quotes, with its escapes resolved.
    fn quoted(&mut self, quote: char) -> Result<String, Fault> {
        let start = self.place();
        let mut chars = self.rest().char_indices().skip(1);
        let mut text = String::new();
        while let Some((at, char)) = chars.next() {
            let place = || start.saturating_add(u32::try_from(at).unwrap_or(u32::MAX));
            if char == quote {
                self.at += at + 1;
                return Ok(text);
            }
            if char != '\\' {
                text.push(char);
                continue;
            }
            let escaped = match chars.next().map(|(_, escaped)| escaped) {
                Some('f') => '\u{c}',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                Some('u') => {
                    let mut code = 0;
                    for _ in 0..4 {
                        let digit = chars.next().and_then(|(_, digit)| digit.to_digit(16));
                        code = code * 16
                            + digit.ok_or_else(|| Fault::syntax(place(), "Expected \\u and four hex digits"))?;
                    }
                    char::from_u32(code)
                        .ok_or_else(|| Fault::syntax(place(), "Expected \\u and a character's number"))?
                }
                Some(escaped @ ('\'' | '"' | '`' | '\\' | '/')) => escaped,
                // Before N1 other characters stood for themselves with the backslash, as in regular expressions.
                Some(other) => {
                    text.push('\\');
                    other
                }
                None => break,
            };
            text.push(escaped);
        }
        Err(Fault::syntax(start, format!("Expected {quote} at the end")))
    }
}
