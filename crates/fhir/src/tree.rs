//! A JSON document as an arena of nodes over its own bytes.
//!
//! Takes bytes and limits, gives a [`Tree`] or the exact reason and place why not. Text is never changed: numbers stay as
//! they are spelled (`1.00`), strings are unescaped when asked for, every value knows its span. Never recurses on the
//! input's depth, never allocates per node, never repeats a word of the document in an error.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;

mod error;
mod names;
mod node;
mod parse;
mod position;
mod scan;
pub(crate) mod text;

pub use error::{Position, SyntaxError, SyntaxErrorKind};
pub(crate) use names::KNOWN;
pub use names::{NameId, known, known_len, known_text};
pub use node::{Children, Descendants, Find, Node};
pub(crate) use position::{advance, position};

/// What a document may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Length of the document in bytes. Above 4 GiB - 1 is the same as that.
    pub bytes_max: usize,
    /// Objects and arrays within each other.
    pub depth_max: usize,
    /// Values in the document. Above about 16 million is the same as that. A node takes 20 bytes.
    pub nodes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes_max: 64 << 20, depth_max: 64, nodes_max: 4_000_000 }
    }
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `null`
    Null,
    /// `true` or `false`
    Bool,
    /// A number, kept by its text.
    Number,
    /// A string.
    String,
    /// An array.
    Array,
    /// An object; no member twice.
    Object,
}

/// The number of a node in its tree, in document order; the root is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub(crate) u32);

impl NodeId {
    /// The id as an index for tables by node: below [`Tree::len`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A parsed document: its bytes and its nodes. Holds at least one node.
pub struct Tree {
    bytes: Bytes,
    nodes: Vec<Raw>,
    extra: names::Extra,
    positions: position::Positions,
}

/// A node as the arena holds it, in document order: its children, if any, start right behind it.
#[derive(Clone, Copy)]
struct Raw {
    start: u32,
    end: u32,
    parent: u32,
    /// The node behind this one and all that it holds.
    next: u32,
    /// See [`tag`].
    tag: u32,
}

/// No node.
const NONE: u32 = u32::MAX;

/// What a node's `tag` packs: a name id or the index in an array, the kind, and flags.
mod tag {
    use super::Kind;

    const NUMBER_MASK: u32 = (1 << 24) - 1;
    pub(super) const NULL: u32 = 0;
    pub(super) const BOOL: u32 = 1 << 24;
    pub(super) const NUMBER: u32 = 2 << 24;
    pub(super) const STRING: u32 = 3 << 24;
    pub(super) const ARRAY: u32 = 4 << 24;
    pub(super) const OBJECT: u32 = 5 << 24;
    /// The node is a member; its number is its name's id.
    pub(super) const NAMED: u32 = 1 << 27;
    /// The string holds escapes.
    pub(super) const ESCAPED: u32 = 1 << 28;
    /// The text of the value is its canonical form.
    pub(super) const VERBATIM: u32 = 1 << 29;
    /// The label of the root.
    pub(super) const ROOT: u32 = 1 << 30;
    /// Not a node: a name that is being read.
    pub(super) const NAMELESS: u32 = u32::MAX;

    #[inline]
    pub(super) fn kind(tag: u32) -> Kind {
        match tag & (7 << 24) {
            NULL => Kind::Null,
            BOOL => Kind::Bool,
            NUMBER => Kind::Number,
            STRING => Kind::String,
            ARRAY => Kind::Array,
            _ => Kind::Object,
        }
    }

    #[inline]
    pub(super) fn number(tag: u32) -> u32 {
        tag & NUMBER_MASK
    }

    /// The kind and the flags of a value, without its name or index.
    #[inline]
    pub(super) fn unlabelled(tag: u32) -> u32 {
        tag & !(NUMBER_MASK | NAMED)
    }
}

impl Tree {
    /// Parses a document: one JSON value (RFC 8259), UTF-8 without byte order mark, no member twice in an object (after
    /// unescaping), no half of a surrogate pair alone, all within the limits.
    pub fn parse(bytes: Bytes, limits: &Limits) -> Result<Self, SyntaxError> {
        let fault = |kind, offset| parse::Failure { kind, offset, parent: NONE, pending: None };
        let mut parsed = parse::Parsed::default();
        // The largest offset is kept for "no node".
        let bytes_max = limits.bytes_max.min(NONE as usize - 1);
        let outcome = if bytes.len() > bytes_max {
            Err(fault(SyntaxErrorKind::TooLong, 0))
        } else if bytes.starts_with(b"\xef\xbb\xbf") {
            Err(fault(SyntaxErrorKind::ByteOrderMark, 0))
        } else {
            match std::str::from_utf8(&bytes) {
                Err(error) => Err(fault(SyntaxErrorKind::NotUtf8, error.valid_up_to())),
                Ok(_) => parse::parse(&bytes, limits, &mut parsed),
            }
        };
        let tree = Self { bytes, nodes: parsed.nodes, extra: parsed.extra, positions: position::Positions::default() };
        match outcome {
            Ok(()) => Ok(tree),
            Err(failure) => Err(SyntaxError {
                kind: failure.kind,
                offset: failure.offset,
                position: position(&tree.bytes, failure.offset),
                path: node::path_of(&tree, failure.parent, failure.pending),
            }),
        }
    }

    /// The tree of a document that stands for another: positions are those of the other one, where the values stand that
    /// start at these offsets, in ascending order.
    pub(crate) fn placed(self, places: Vec<(u32, Position)>) -> Self {
        Self { positions: position::Positions::elsewhere(places), ..self }
    }

    /// The document's value.
    pub fn root(&self) -> Node<'_> {
        Node { tree: self, id: 0 }
    }

    /// The node with this id; the root, if the id is of another tree and too large.
    pub fn node(&self, id: NodeId) -> Node<'_> {
        Node { tree: self, id: if id.index() < self.nodes.len() { id.0 } else { 0 } }
    }

    /// How many nodes there are: at least one.
    #[expect(clippy::len_without_is_empty, reason = "a document holds a value, so no tree is empty")]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The document as it was given.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The document as it was given.
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// Line and column of a byte offset.
    pub fn position(&self, offset: usize) -> Position {
        self.positions.of(&self.bytes, offset)
    }

    /// A value of the document as a document of its own: what [`Tree::parse`] would make of its text. Shares the bytes, and
    /// reads them again only if there are names in the document that FHIR R4 does not have.
    ///
    /// # Errors
    /// Beyond the limits; nothing else can be wrong with it.
    pub fn part(&self, id: NodeId, limits: &Limits) -> Result<Self, SyntaxError> {
        let node = self.node(id);
        let base = node.id().0;
        let root = self.raw(base);
        let bytes = self.bytes.slice(node.span());
        let nodes = self.nodes.get(base as usize..root.next as usize).unwrap_or_default();
        if self.extra.len() > 0 || bytes.len() > limits.bytes_max || nodes.len() > limits.nodes_max {
            let part = Self::parse(bytes, limits)?;
            return Ok(Self { positions: self.positions.part(node.span()), ..part });
        }
        let mut nodes: Vec<Raw> = nodes
            .iter()
            .map(|node| Raw {
                start: node.start - root.start,
                end: node.end - root.start,
                parent: node.parent.wrapping_sub(base),
                next: node.next - base,
                tag: node.tag,
            })
            .collect();
        if let Some(first) = nodes.first_mut() {
            first.parent = NONE;
            first.tag = tag::ROOT | tag::unlabelled(root.tag);
        }
        Ok(Self { bytes, nodes, extra: names::Extra::default(), positions: self.positions.part(node.span()) })
    }

    /// The root's `resourceType`.
    pub fn resource_type(&self) -> Option<&str> {
        self.root().resource_type()
    }

    #[inline]
    fn raw(&self, id: u32) -> Raw {
        self.nodes.get(id as usize).copied().unwrap_or(Raw { start: 0, end: 0, parent: NONE, next: NONE, tag: 0 })
    }

    fn text(&self, start: usize, end: usize) -> &str {
        // The document is UTF-8 and tokens start and end at characters.
        self.bytes.get(start..end).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
    }

    /// The text of a name of this tree.
    pub fn name(&self, id: NameId) -> &str {
        match KNOWN.names.get(id.index()) {
            Some(name) => name,
            None => self.extra.text(&self.bytes, id.index() - KNOWN.names.len()),
        }
    }

    /// The id of a name in this tree, if it is one of FHIR R4's or the document has it.
    pub fn name_id(&self, name: &str) -> Option<NameId> {
        known(name).or_else(|| {
            let index = self.extra.find(&self.bytes, name.as_bytes())?;
            u32::try_from(KNOWN.names.len() + index).ok().map(NameId)
        })
    }

    fn string(&self, node: Raw) -> Cow<'_, str> {
        let (start, end) = (node.start as usize + 1, (node.end as usize).saturating_sub(1));
        if node.tag & tag::ESCAPED == 0 {
            Cow::Borrowed(self.text(start, end))
        } else {
            Cow::Owned(text::unescape(self.bytes.get(start..end).unwrap_or_default()))
        }
    }
}

/// Says how large it is and nothing of what it holds.
impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tree")
            .field("bytes", &self.bytes.len())
            .field("nodes", &self.nodes.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
