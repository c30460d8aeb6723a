//! Why a document is not taken, and where.

use std::fmt;

/// A place in a document, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Line, from 1; lines end at line feeds.
    pub line: u32,
    /// Column, from 1, in characters.
    pub column: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// The exact cause for which a document is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SyntaxErrorKind {
    /// The document is longer than the limit.
    TooLong,
    /// There are more containers within each other than the limit.
    TooDeep,
    /// There are more values than the limit.
    TooManyNodes,
    /// The document starts with a byte order mark.
    ByteOrderMark,
    /// The bytes are not UTF-8.
    NotUtf8,
    /// The document ends within a value, or holds none.
    UnexpectedEnd,
    /// A value was expected.
    ExpectedValue,
    /// A member name was expected.
    ExpectedName,
    /// A member name or `}` was expected.
    ExpectedNameOrEnd,
    /// `:` was expected after a member name.
    ExpectedColon,
    /// `,` or `}` was expected after a member.
    ExpectedCommaOrObjectEnd,
    /// `,` or `]` was expected after an item.
    ExpectedCommaOrArrayEnd,
    /// A number does not follow the grammar of RFC 8259 §6.
    InvalidNumber,
    /// A word is not `true`, `false` or `null`.
    InvalidLiteral,
    /// A string holds a character below U+0020 that is not escaped.
    ControlCharacter,
    /// A string holds an escape that is not one of RFC 8259 §7.
    InvalidEscape,
    /// A string holds half of a surrogate pair.
    LoneSurrogate,
    /// An object names a member twice.
    DuplicateMember,
    /// Something follows the document's one value.
    TrailingData,
}

impl SyntaxErrorKind {
    /// What was expected, without a word of the document.
    pub fn text(self) -> &'static str {
        match self {
            Self::TooLong => "the document is longer than allowed",
            Self::TooDeep => "the document is nested deeper than allowed",
            Self::TooManyNodes => "the document holds more values than allowed",
            Self::ByteOrderMark => "expected JSON without a byte order mark",
            Self::NotUtf8 => "expected UTF-8",
            Self::UnexpectedEnd => "the document ends too early",
            Self::ExpectedValue => "expected a value",
            Self::ExpectedName => "expected a member name",
            Self::ExpectedNameOrEnd => "expected a member name or `}`",
            Self::ExpectedColon => "expected `:`",
            Self::ExpectedCommaOrObjectEnd => "expected `,` or `}`",
            Self::ExpectedCommaOrArrayEnd => "expected `,` or `]`",
            Self::InvalidNumber => "expected a number as JSON writes it",
            Self::InvalidLiteral => "expected `true`, `false` or `null`",
            Self::ControlCharacter => "expected control characters to be escaped",
            Self::InvalidEscape => "expected an escape of JSON",
            Self::LoneSurrogate => "expected both halves of a surrogate pair",
            Self::DuplicateMember => "expected each member once",
            Self::TrailingData => "expected nothing after the value",
        }
    }
}

/// Why and where a document is refused. Says what was expected, never what stood there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}, at {position} ({path})", .kind.text())]
pub struct SyntaxError {
    /// The exact cause.
    pub kind: SyntaxErrorKind,
    /// The byte offset of the fault.
    pub offset: usize,
    /// The same for people.
    pub position: Position,
    /// The FHIRPath location of the value that the parser was in.
    pub path: String,
}
