//! Splits a Bundle into its entries while its bytes pass.
//!
//! Takes: chunks of bytes in order. Gives: each member of the Bundle and each element of `entry`, with line and
//! column, as slices of the chunk where they lie in one. Never: holds more than one member or entry; looks inside an
//! entry (the tree's parser does, strictly, on the slice).

use bytes::{Bytes, BytesMut};
use sluice_fhir::tree::Position;

/// What bounds a Bundle before its entries are looked at.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of one entry, or of one other member.
    pub piece_bytes_max: usize,
    /// Elements of `entry`.
    pub entries_max: usize,
    /// Nesting, counted from the Bundle.
    pub depth_max: u32,
}

/// A part of the Bundle, complete and balanced, not yet known to be strict JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// A member other than `entry`.
    Member {
        /// Its name, unescaped.
        name: String,
        /// The text of its value.
        text: Bytes,
        /// Where the value starts.
        at: Position,
    },
    /// An element of `entry`.
    Entry {
        /// Its number, from 0.
        index: usize,
        /// Its text.
        text: Bytes,
        /// Where it starts.
        at: Position,
    },
}

/// Why a body is not a Bundle that can be split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// Something else was expected here.
    #[error("expected {expected}")]
    Expected {
        /// What.
        expected: &'static str,
        /// Where.
        at: Position,
    },
    /// A member's name stands twice.
    #[error("a member of this name stands in the Bundle already")]
    DuplicateMember {
        /// Where the second one starts.
        at: Position,
    },
    /// The body ended within the Bundle.
    #[error("the body ends before the Bundle does")]
    Truncated {
        /// Where it ended.
        at: Position,
    },
    /// Nested too deeply.
    #[error("nesting is limited")]
    TooDeep {
        /// Where the limit was passed.
        at: Position,
    },
    /// An entry or a member is too large.
    #[error("the size of one entry is limited")]
    TooLarge {
        /// Where it starts.
        at: Position,
    },
    /// Too many entries.
    #[error("the number of entries is limited")]
    TooMany {
        /// Where the first entry too many starts.
        at: Position,
    },
}

impl SplitError {
    /// Where it was found.
    pub fn at(&self) -> Position {
        match *self {
            Self::Expected { at, .. }
            | Self::DuplicateMember { at }
            | Self::Truncated { at }
            | Self::TooDeep { at }
            | Self::TooLarge { at }
            | Self::TooMany { at } => at,
        }
    }
}

/// Where the scan stands between two tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before `{`.
    Start,
    /// After `{`: a name or `}`.
    FirstName,
    /// After `,`: a name.
    Name,
    /// After a name: `:`.
    Colon,
    /// After `:`: a value.
    Value,
    /// After a value: `,` or `}`.
    AfterValue,
    /// After `[` of `entry`: an element or `]`.
    FirstEntry,
    /// After `,` in `entry`: an element.
    Entry,
    /// After an element: `,` or `]`.
    AfterEntry,
    /// After the closing `}`: nothing but white space.
    End,
}

/// What is being gathered until it is balanced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gather {
    Name,
    Member,
    Entry,
}

/// The lexical state within a value that is being gathered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Within {
    /// Outside of strings, in an object or array this deep.
    Nested(u32),
    /// In a string, in an object or array this deep.
    Text { depth: u32, escaped: bool },
    /// In a number or literal at depth 0: ends at the first delimiter.
    Bare,
}

/// The bytes that matter outside of strings.
const STRUCTURAL: [bool; 256] = {
    let mut table = [false; 256];
    table[b'"' as usize] = true;
    table[b'{' as usize] = true;
    table[b'}' as usize] = true;
    table[b'[' as usize] = true;
    table[b']' as usize] = true;
    table
};

/// The scanner. Feed it all chunks, then call [`Splitter::finish`].
#[derive(Debug)]
pub struct Splitter {
    limits: Limits,
    state: State,
    gather: Option<(Gather, Within, Position)>,
    /// Bytes of the piece that came in earlier chunks.
    held: BytesMut,
    name: String,
    names: Vec<String>,
    entries: usize,
    at: Position,
    failed: bool,
}

impl Splitter {
    /// A scanner at the first byte of the body.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: State::Start,
            gather: None,
            held: BytesMut::new(),
            name: String::new(),
            names: Vec::new(),
            entries: 0,
            at: Position { line: 1, column: 1 },
            failed: false,
        }
    }

    /// Takes the next chunk and gives the pieces that end in it.
    ///
    /// # Errors
    /// The first fault. After it the scanner only repeats that the body is truncated.
    pub fn feed(&mut self, chunk: &Bytes, pieces: &mut Vec<Piece>) -> Result<(), SplitError> {
        if self.failed {
            return Err(SplitError::Truncated { at: self.at });
        }
        self.run(chunk, pieces).inspect_err(|_| self.failed = true)
    }

    /// Says whether the Bundle is complete.
    ///
    /// # Errors
    /// [`SplitError::Truncated`] if it is not.
    pub fn finish(&self) -> Result<(), SplitError> {
        if self.state == State::End && !self.failed { Ok(()) } else { Err(SplitError::Truncated { at: self.at }) }
    }

    fn run(&mut self, chunk: &Bytes, pieces: &mut Vec<Piece>) -> Result<(), SplitError> {
        let mut i = 0;
        // Where the piece that is being gathered starts in this chunk.
        let mut from = 0;
        while i < chunk.len() {
            if let Some((gather, within, start)) = self.gather {
                let (next, rest) = self.scan(chunk, i, within)?;
                let size = self.held.len() + next - from;
                if size > self.limits.piece_bytes_max {
                    return Err(SplitError::TooLarge { at: start });
                }
                i = next;
                if let Some(within) = rest {
                    self.gather = Some((gather, within, start));
                } else {
                    let text = self.take(chunk, from, next);
                    self.gather = None;
                    self.complete(gather, text, start, pieces)?;
                }
                continue;
            }
            let byte = chunk[i];
            if matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
                self.step(byte);
                i += 1;
                continue;
            }
            if let Some((gather, within)) = self.token(byte)? {
                self.gather = Some((gather, within, self.at));
                from = i;
                if within == Within::Bare {
                    continue;
                }
            }
            self.step(byte);
            i += 1;
        }
        if self.gather.is_some() {
            self.held.extend_from_slice(&chunk[from..]);
        }
        Ok(())
    }

    /// One significant byte between pieces: the next state, or the start of a piece.
    fn token(&mut self, byte: u8) -> Result<Option<(Gather, Within)>, SplitError> {
        let at = self.at;
        let expected = |expected| Err(SplitError::Expected { expected, at });
        let text = Within::Text { depth: 0, escaped: false };
        self.state = match (self.state, byte) {
            (State::Start, b'{') => State::FirstName,
            (State::FirstName | State::Name, b'"') => return Ok(Some((Gather::Name, text))),
            (State::FirstName | State::AfterValue, b'}') => State::End,
            (State::Colon, b':') => State::Value,
            (State::Value, b'[') if self.name == "entry" => State::FirstEntry,
            (State::Value, _) if self.name == "entry" => return expected("an array of entries"),
            (State::Value, b'{' | b'[') => return Ok(Some((Gather::Member, Within::Nested(1)))),
            (State::Value, b'"') => return Ok(Some((Gather::Member, text))),
            (State::Value, b'-' | b'0'..=b'9' | b't' | b'f' | b'n') => {
                return Ok(Some((Gather::Member, Within::Bare)));
            }
            (State::AfterValue, b',') => State::Name,
            (State::FirstEntry | State::Entry, b'{') => {
                if self.entries == self.limits.entries_max {
                    return Err(SplitError::TooMany { at });
                }
                return Ok(Some((Gather::Entry, Within::Nested(1))));
            }
            (State::FirstEntry | State::AfterEntry, b']') => State::AfterValue,
            (State::AfterEntry, b',') => State::Entry,
            (State::Start, _) => return expected("a JSON object"),
            (State::FirstName, _) => return expected("a member's name or }"),
            (State::Name, _) => return expected("a member's name"),
            (State::Colon, _) => return expected(":"),
            (State::Value, _) => return expected("a JSON value"),
            (State::AfterValue, _) => return expected(", or }"),
            (State::FirstEntry, _) => return expected("an entry or ]"),
            (State::Entry, _) => return expected("an entry"),
            (State::AfterEntry, _) => return expected(", or ]"),
            (State::End, _) => return expected("nothing after the Bundle"),
        };
        Ok(None)
    }

    /// Runs through a piece from `i` to its end or the chunk's. Gives where it stopped, and the lexical state if the
    /// piece goes on.
    fn scan(&mut self, chunk: &[u8], from: usize, mut within: Within) -> Result<(usize, Option<Within>), SplitError> {
        let mut i = from;
        let ended = loop {
            let Some(rest) = chunk.get(i..).filter(|rest| !rest.is_empty()) else { break false };
            match within {
                Within::Bare => {
                    let bare = |byte: &u8| !matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n');
                    let length = rest.iter().take_while(|byte| bare(byte)).count();
                    i += length;
                    if length < rest.len() {
                        break true;
                    }
                }
                Within::Text { depth, escaped: true } => {
                    within = Within::Text { depth, escaped: false };
                    i += 1;
                }
                Within::Text { depth, escaped: false } => {
                    let Some(found) = memchr::memchr2(b'"', b'\\', rest) else {
                        i = chunk.len();
                        continue;
                    };
                    i += found + 1;
                    if rest[found] == b'\\' {
                        within = Within::Text { depth, escaped: true };
                    } else if depth == 0 {
                        break true;
                    } else {
                        within = Within::Nested(depth);
                    }
                }
                Within::Nested(depth) => {
                    let Some(found) = rest.iter().position(|byte| STRUCTURAL[usize::from(*byte)]) else {
                        i = chunk.len();
                        continue;
                    };
                    i += found + 1;
                    within = match rest[found] {
                        b'"' => Within::Text { depth, escaped: false },
                        b'{' | b'[' if depth >= self.limits.depth_max => {
                            self.advance(&chunk[from..i - 1]);
                            return Err(SplitError::TooDeep { at: self.at });
                        }
                        b'{' | b'[' => Within::Nested(depth + 1),
                        _ if depth == 1 => break true,
                        _ => Within::Nested(depth - 1),
                    };
                }
            }
        };
        self.advance(&chunk[from..i]);
        Ok((i, (!ended).then_some(within)))
    }

    fn take(&mut self, chunk: &Bytes, from: usize, to: usize) -> Bytes {
        if self.held.is_empty() {
            return chunk.slice(from..to);
        }
        self.held.extend_from_slice(&chunk[from..to]);
        self.held.split().freeze()
    }

    fn complete(
        &mut self,
        gather: Gather,
        text: Bytes,
        at: Position,
        pieces: &mut Vec<Piece>,
    ) -> Result<(), SplitError> {
        match gather {
            Gather::Name => {
                self.name = serde_json::from_slice(&text)
                    .map_err(|_| SplitError::Expected { expected: "a member's name in JSON", at })?;
                if self.names.contains(&self.name) {
                    return Err(SplitError::DuplicateMember { at });
                }
                // A Bundle has a dozen members; more are unknown ones, and bounded so that this stays cheap.
                if self.names.len() == 64 {
                    return Err(SplitError::Expected { expected: "at most 64 members in a Bundle", at });
                }
                self.names.push(self.name.clone());
                self.state = State::Colon;
            }
            Gather::Member => {
                pieces.push(Piece::Member { name: self.name.clone(), text, at });
                self.state = State::AfterValue;
            }
            Gather::Entry => {
                pieces.push(Piece::Entry { index: self.entries, text, at });
                self.entries += 1;
                self.state = State::AfterEntry;
            }
        }
        Ok(())
    }

    /// Counts lines, and columns in characters: the continuation bytes of UTF-8 do not count.
    fn advance(&mut self, bytes: &[u8]) {
        let mut line = bytes;
        if let Some(last) = memchr::memrchr(b'\n', bytes) {
            let lines = memchr::memchr_iter(b'\n', bytes).count();
            self.at.line = self.at.line.saturating_add(u32::try_from(lines).unwrap_or(u32::MAX));
            self.at.column = 1;
            line = &bytes[last + 1..];
        }
        let columns = line.iter().filter(|byte| **byte & 0xC0 != 0x80).count();
        self.at.column = self.at.column.saturating_add(u32::try_from(columns).unwrap_or(u32::MAX));
    }

    fn step(&mut self, byte: u8) {
        if byte == b'\n' {
            self.at.line = self.at.line.saturating_add(1);
            self.at.column = 1;
        } else if byte & 0xC0 != 0x80 {
            self.at.column = self.at.column.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests;
