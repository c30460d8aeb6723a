//! One pass over the bytes of a document, into the arena. Obeys RFC 8259 strictly, and refuses besides what RFC 7493
//! (I-JSON) refuses: duplicate members and lone surrogates. Never recurses: how deep the input nests costs no stack.

use super::error::SyntaxErrorKind::{
    self as Kind, ControlCharacter, DuplicateMember, ExpectedColon, ExpectedCommaOrArrayEnd, ExpectedCommaOrObjectEnd,
    ExpectedName, ExpectedNameOrEnd, ExpectedValue, InvalidLiteral, InvalidNumber, TooDeep, TooManyNodes, TrailingData,
    UnexpectedEnd,
};
use super::names::{Extra, KNOWN, Known};
use super::text;
use super::{Limits, NONE, Raw, scan, tag};

/// What a parse gives: the arena in document order, and the names that are not FHIR's.
#[derive(Default)]
pub(super) struct Parsed {
    pub(super) nodes: Vec<Raw>,
    pub(super) extra: Extra,
}

/// Where and why a parse ended: the container it was in, and the member or item it was about to add.
pub(super) struct Failure {
    pub(super) kind: Kind,
    pub(super) offset: usize,
    pub(super) parent: u32,
    pub(super) pending: Option<u32>,
}

/// Nodes, names and array indexes are numbered in 24 bits.
const NODES_MAX: usize = (1 << 24) - 8192;

/// Parses a document whose length and encoding have been checked.
pub(super) fn parse(bytes: &[u8], limits: &Limits, parsed: &mut Parsed) -> Result<(), Failure> {
    // Pretty-printed FHIR has a node for every 40 to 60 bytes, compact FHIR for every 20 to 30.
    parsed.nodes.reserve((bytes.len() / 40).min(limits.nodes_max) + 8);
    let mut parser = Parser {
        bytes,
        known: &KNOWN,
        nodes: &mut parsed.nodes,
        extra: &mut parsed.extra,
        names: Vec::with_capacity(64),
        stamps: Vec::new(),
        parent: NONE,
        depth: 0,
        depth_max: limits.depth_max,
        nodes_max: limits.nodes_max.min(NODES_MAX),
        dirty: 0,
    };
    parser.run().map_err(|(kind, offset, pending)| Failure { kind, offset, parent: parser.parent, pending })
}

struct Parser<'a> {
    bytes: &'a [u8],
    known: &'a Known,
    nodes: &'a mut Vec<Raw>,
    extra: &'a mut Extra,
    /// The names of the members of all open objects.
    names: Vec<u32>,
    /// For large objects: the last object that a name was seen in.
    stamps: Vec<u32>,
    /// The innermost open container. While open, its `next` holds where its names start, or how many items it has.
    parent: u32,
    depth: usize,
    depth_max: usize,
    nodes_max: usize,
    /// The end of the last piece of text that the canonical form would write otherwise. What starts behind it and ends
    /// before the next such piece is its own canonical form.
    dirty: usize,
}

type Fault = (Kind, usize, Option<u32>);

impl Parser<'_> {
    fn run(&mut self) -> Result<(), Fault> {
        let mut at = self.space(0);
        let mut label = tag::ROOT;
        loop {
            at = self.value(at, label)?;
            // Behind a value: close what ends here, or go on to the next member or item.
            loop {
                let Some(&Raw { tag: container, .. }) = self.nodes.get(self.parent as usize) else {
                    at = self.space(at);
                    return if at == self.bytes.len() { Ok(()) } else { Err((TrailingData, at, None)) };
                };
                at = if self.at(at) > b' ' { at } else { self.space(at) };
                let byte = self.at(at);
                if tag::kind(container) == super::Kind::Object {
                    if byte == b',' {
                        at = self.space(at + 1);
                        (label, at) = self.name(at, ExpectedName)?;
                        break;
                    }
                    if byte != b'}' {
                        return Err(self.fault(ExpectedCommaOrObjectEnd, at, None));
                    }
                } else {
                    if byte == b',' {
                        at = self.space(at + 1);
                        label = self.item();
                        break;
                    }
                    if byte != b']' {
                        return Err(self.fault(ExpectedCommaOrArrayEnd, at, None));
                    }
                }
                at += 1;
                self.close(at)?;
            }
        }
    }

    /// Reads the value at `at`: all of a scalar or an empty container, else up to the first value within it. Gives where
    /// it ends.
    fn value(&mut self, mut at: usize, mut label: u32) -> Result<usize, Fault> {
        loop {
            match self.at(at) {
                b'"' => {
                    let (end, flags) = self.string(at + 1, label)?;
                    self.push(at, end, label | tag::STRING | flags)?;
                    return Ok(end);
                }
                b'{' => {
                    self.open(at, label | tag::OBJECT)?;
                    at = self.space(at + 1);
                    if self.at(at) == b'}' {
                        self.close(at + 1)?;
                        return Ok(at + 1);
                    }
                    (label, at) = self.name(at, ExpectedNameOrEnd)?;
                }
                b'[' => {
                    self.open(at, label | tag::ARRAY)?;
                    at = self.space(at + 1);
                    if self.at(at) == b']' {
                        self.close(at + 1)?;
                        return Ok(at + 1);
                    }
                    label = self.item();
                }
                b'-' | b'0'..=b'9' => {
                    let end = self.number(at, label)?;
                    self.push(at, end, label | tag::NUMBER | tag::VERBATIM)?;
                    return Ok(end);
                }
                b't' => return self.literal(at, b"true", label | tag::BOOL),
                b'f' => return self.literal(at, b"false", label | tag::BOOL),
                b'n' => return self.literal(at, b"null", label | tag::NULL),
                _ => return Err(self.fault(ExpectedValue, at, Some(label))),
            }
        }
    }

    #[inline]
    fn at(&self, at: usize) -> u8 {
        // No token of JSON holds or starts with NUL, so the end reads as a fault everywhere.
        self.bytes.get(at).copied().unwrap_or(0)
    }

    fn fault(&self, kind: Kind, at: usize, pending: Option<u32>) -> Fault {
        (if at >= self.bytes.len() { UnexpectedEnd } else { kind }, at.min(self.bytes.len()), pending)
    }

    #[inline]
    fn space(&mut self, at: usize) -> usize {
        let end = scan::space_end(self.bytes, at);
        if end != at {
            self.dirty = end;
        }
        end
    }

    #[inline]
    fn push(&mut self, start: usize, end: usize, tag: u32) -> Result<(), Fault> {
        let id = self.nodes.len();
        if id >= self.nodes_max {
            return Err((TooManyNodes, start, Some(tag)));
        }
        if id == self.nodes.capacity() {
            self.nodes.reserve_exact((id / 2).min(self.nodes_max - id) + 1);
        }
        self.nodes.push(Raw { start: u32(start), end: u32(end), parent: self.parent, next: u32(id + 1), tag });
        Ok(())
    }

    fn open(&mut self, at: usize, tag: u32) -> Result<(), Fault> {
        if self.depth >= self.depth_max {
            return Err((TooDeep, at, Some(tag)));
        }
        let id = u32(self.nodes.len());
        self.push(at, at, tag)?;
        self.depth += 1;
        self.parent = id;
        let held = if tag::kind(tag) == super::Kind::Object { u32(self.names.len()) } else { 0 };
        if let Some(node) = self.nodes.last_mut() {
            node.next = held;
        }
        Ok(())
    }

    fn close(&mut self, end: usize) -> Result<(), Fault> {
        let next = u32(self.nodes.len());
        let Some(&node) = self.nodes.get(self.parent as usize) else { return Ok(()) };
        if tag::kind(node.tag) == super::Kind::Object {
            let held = node.next as usize;
            if self.has_duplicate(held) {
                return Err(self.duplicate());
            }
            self.names.truncate(held);
        }
        let verbatim = if self.dirty <= node.start as usize { tag::VERBATIM } else { 0 };
        if let Some(open) = self.nodes.get_mut(self.parent as usize) {
            open.end = u32(end);
            open.next = next;
            open.tag |= verbatim;
        }
        self.parent = node.parent;
        self.depth -= 1;
        Ok(())
    }

    /// The label of the next item of the innermost array.
    #[inline]
    fn item(&mut self) -> u32 {
        self.nodes.get_mut(self.parent as usize).map_or(0, |array| {
            let index = array.next;
            array.next += 1;
            index
        })
    }

    /// Reads a name, its colon and the space around: the label of the member, and where its value starts.
    #[inline]
    fn name(&mut self, at: usize, expected: Kind) -> Result<(u32, usize), Fault> {
        if self.at(at) != b'"' {
            return Err(self.fault(expected, at, None));
        }
        let start = at + 1;
        let end = scan::string_stop(self.bytes, start);
        let (id, mut at) = if self.at(end) == b'"' {
            let id = match self.known.find(self.bytes.get(start..end).unwrap_or_default()) {
                Some(id) => id,
                None => self.extra_name(start, end)?,
            };
            (id, end + 1)
        } else {
            self.escaped_name(start)?
        };
        let held = self.nodes.get(self.parent as usize).map_or(0, |object| object.next as usize);
        if self.names.len() > held {
            // In order is known of FHIR's names alone; of others it is not worth finding out.
            let last = self.names.last().copied().unwrap_or(0);
            if last >= id || id as usize >= self.known.names.len() {
                self.dirty = at;
            }
        }
        self.names.push(id);
        let label = id | tag::NAMED;
        if self.at(at) != b':' {
            at = self.space(at);
            if self.at(at) != b':' {
                return Err(self.fault(ExpectedColon, at, Some(label)));
            }
        }
        at += 1;
        if self.at(at) == b' ' && self.at(at + 1) > b' ' {
            at += 1;
            self.dirty = at;
        } else {
            at = self.space(at);
        }
        Ok((label, at))
    }

    #[cold]
    fn extra_name(&mut self, start: usize, end: usize) -> Result<u32, Fault> {
        let index = self.extra.intern(self.bytes, start, end);
        self.extra_id(index, start)
    }

    #[cold]
    fn escaped_name(&mut self, start: usize) -> Result<(u32, usize), Fault> {
        let (end, flags) = self.string(start, tag::NAMELESS)?;
        let name = text::unescape(self.bytes.get(start..end - 1).unwrap_or_default());
        if flags & tag::VERBATIM == 0 {
            self.dirty = end;
        }
        let id = if let Some(id) = self.known.find(name.as_bytes()) {
            id
        } else {
            let index = self.extra.intern_unescaped(self.bytes, &name);
            self.extra_id(index, start)?
        };
        Ok((id, end))
    }

    fn extra_id(&self, index: usize, at: usize) -> Result<u32, Fault> {
        let id = self.known.names.len() + index;
        if id < NODES_MAX { Ok(u32(id)) } else { Err((TooManyNodes, at, None)) }
    }

    /// Reads a string whose text starts at `start`: where it ends, behind the quote, and its flags.
    #[inline]
    fn string(&mut self, start: usize, label: u32) -> Result<(usize, u32), Fault> {
        let end = scan::string_stop(self.bytes, start);
        if self.at(end) == b'"' { Ok((end + 1, tag::VERBATIM)) } else { self.escaped_string(end, label) }
    }

    fn escaped_string(&mut self, mut at: usize, label: u32) -> Result<(usize, u32), Fault> {
        let pending = (label != tag::NAMELESS).then_some(label);
        let mut verbatim = tag::VERBATIM;
        loop {
            match self.at(at) {
                b'"' => return Ok((at + 1, tag::ESCAPED | verbatim)),
                b'\\' => {
                    let escape = text::escape(self.bytes, at).map_err(|kind| self.fault(kind, at, pending))?;
                    if !escape.canonical {
                        verbatim = 0;
                        self.dirty = escape.end;
                    }
                    at = escape.end;
                }
                _ => return Err(self.fault(ControlCharacter, at, pending)),
            }
            at = scan::string_stop(self.bytes, at);
        }
    }

    /// RFC 8259 §6.
    #[inline]
    fn number(&self, at: usize, label: u32) -> Result<usize, Fault> {
        let digits = |mut at: usize| {
            while self.at(at).is_ascii_digit() {
                at += 1;
            }
            at
        };
        let some_digits = |at: usize| {
            let end = digits(at);
            if end > at { Ok(end) } else { Err(self.fault(InvalidNumber, at, Some(label))) }
        };
        let start = at + usize::from(self.at(at) == b'-');
        let mut at = if self.at(start) == b'0' { start + 1 } else { some_digits(start)? };
        if self.at(at) == b'.' {
            at = some_digits(at + 1)?;
        }
        if matches!(self.at(at), b'e' | b'E') {
            at += 1;
            at = some_digits(at + usize::from(matches!(self.at(at), b'+' | b'-')))?;
        }
        if self.at(at).is_ascii_digit() { Err(self.fault(InvalidNumber, at, Some(label))) } else { Ok(at) }
    }

    fn literal(&mut self, at: usize, word: &[u8], tag: u32) -> Result<usize, Fault> {
        let end = at + word.len();
        let rest = self.bytes.get(at..).unwrap_or_default();
        if !rest.starts_with(word) {
            let same = rest.iter().zip(word).take_while(|(a, b)| a == b).count();
            return Err(self.fault(InvalidLiteral, at + same, Some(tag)));
        }
        self.push(at, end, tag | tag::VERBATIM)?;
        Ok(end)
    }

    /// Whether the names from `held` on hold one twice; in time linear in their number.
    #[inline]
    fn has_duplicate(&mut self, held: usize) -> bool {
        let names = self.names.get(held..).unwrap_or_default();
        let mut seen = 0_u64;
        let mut doubt = false;
        for &name in names {
            let bit = 1 << (name & 63);
            doubt |= seen & bit != 0;
            seen |= bit;
        }
        if !doubt {
            return false;
        }
        if names.len() <= 16 {
            return names
                .iter()
                .enumerate()
                .any(|(index, name)| names.iter().skip(index + 1).any(|other| other == name));
        }
        self.stamps.resize(self.known.names.len() + self.extra.len(), NONE);
        for &name in names {
            if let Some(stamp) = self.stamps.get_mut(name as usize) {
                if *stamp == self.parent {
                    return true;
                }
                *stamp = self.parent;
            }
        }
        false
    }

    /// Where the innermost object, all of whose members are read, names one again.
    #[cold]
    fn duplicate(&self) -> Fault {
        let mut seen = std::collections::HashSet::new();
        let mut at = self.parent as usize + 1;
        while let Some(member) = self.nodes.get(at) {
            if !seen.insert(tag::number(member.tag)) {
                return (DuplicateMember, text::name_start(self.bytes, member.start as usize), Some(member.tag));
            }
            at = member.next as usize;
        }
        (DuplicateMember, self.bytes.len(), None)
    }
}

/// Offsets fit: documents of 4 GiB and more are refused before.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "`Tree::parse` refuses documents whose offsets do not fit")]
fn u32(offset: usize) -> u32 {
    offset as u32
}
