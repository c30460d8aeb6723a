//! A value in a tree: what it is, where it is, what it holds.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::iter::FusedIterator;
use std::ops::Range;

use super::{KNOWN, Kind, NONE, NameId, NodeId, Position, Raw, Tree, tag};

/// A value in a [`Tree`]; as cheap to copy as a reference.
#[derive(Clone, Copy)]
pub struct Node<'t> {
    pub(super) tree: &'t Tree,
    pub(super) id: u32,
}

/// Two nodes are the same if they are the same place of the same tree.
impl PartialEq for Node<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && std::ptr::eq(self.tree, other.tree)
    }
}

impl Eq for Node<'_> {}

/// Says which node it is and nothing of what it holds.
impl fmt::Debug for Node<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("id", &self.id).field("kind", &self.kind()).field("span", &self.span()).finish()
    }
}

impl<'t> Node<'t> {
    #[inline]
    fn raw_node(self) -> Raw {
        self.tree.raw(self.id)
    }

    #[inline]
    fn at(self, id: u32) -> Self {
        Self { tree: self.tree, id }
    }

    /// Its number in its tree.
    pub fn id(self) -> NodeId {
        NodeId(self.id)
    }

    /// Its tree.
    pub fn tree(self) -> &'t Tree {
        self.tree
    }

    /// What it is.
    #[inline]
    pub fn kind(self) -> Kind {
        tag::kind(self.raw_node().tag)
    }

    /// Whether it is an object.
    pub fn is_object(self) -> bool {
        self.kind() == Kind::Object
    }

    /// Whether it is an array.
    pub fn is_array(self) -> bool {
        self.kind() == Kind::Array
    }

    /// The id of its name, if it is a member of an object.
    #[inline]
    pub fn name_id(self) -> Option<NameId> {
        let tag = self.raw_node().tag;
        (tag & tag::NAMED != 0).then(|| NameId(tag::number(tag)))
    }

    /// Its name, unescaped, if it is a member of an object.
    pub fn name(self) -> Option<&'t str> {
        self.name_id().map(|id| self.tree.name(id))
    }

    /// Its place, from 0, if it is an item of an array.
    pub fn index(self) -> Option<u32> {
        let tag = self.raw_node().tag;
        (tag & (tag::NAMED | tag::ROOT) == 0).then(|| tag::number(tag))
    }

    /// The object or array that holds it; none of the root.
    pub fn parent(self) -> Option<Self> {
        let parent = self.raw_node().parent;
        (parent != NONE).then(|| self.at(parent))
    }

    /// The member with this name, if it is an object that has one. Linear in the object's members.
    #[inline]
    pub fn member(self, name: &str) -> Option<Self> {
        self.tree.name_id(name).and_then(|id| self.member_id(id))
    }

    /// The member with the name of this id, if it is an object that has one. Linear in the object's members.
    #[inline]
    pub fn member_id(self, name: NameId) -> Option<Self> {
        self.children().find(|child| child.name_id() == Some(name))
    }

    /// The members of an object, in document order; none of any other value.
    pub fn members(self) -> Children<'t> {
        if self.is_object() { self.children() } else { Children { node: self, end: self.id } }
    }

    /// The items of an array, in order; none of any other value.
    pub fn items(self) -> Children<'t> {
        if self.is_array() { self.children() } else { Children { node: self, end: self.id } }
    }

    /// The members of an object or the items of an array.
    #[inline]
    pub fn children(self) -> Children<'t> {
        let end = self.raw_node().next;
        Children { node: self.at(self.id + 1), end }
    }

    /// All values within this one, in document order, without itself.
    pub fn descendants(self) -> Descendants<'t> {
        Descendants { tree: self.tree, ids: self.id + 1..self.raw_node().next }
    }

    /// How many members or items it has. Linear in that number.
    pub fn len(self) -> usize {
        self.children().count()
    }

    /// Whether it has no members or items.
    pub fn is_empty(self) -> bool {
        self.raw_node().next == self.id + 1
    }

    /// The text of a string, unescaped; copied only if it holds escapes.
    pub fn as_str(self) -> Option<Cow<'t, str>> {
        let node = self.raw_node();
        (tag::kind(node.tag) == Kind::String).then(|| self.tree.string(node))
    }

    /// Whether it is a string that means this text.
    pub fn is_str(self, text: &str) -> bool {
        let node = self.raw_node();
        tag::kind(node.tag) == Kind::String
            && if node.tag & tag::ESCAPED == 0 {
                self.raw().get(1..self.raw().len() - 1) == Some(text.as_bytes())
            } else {
                self.tree.string(node) == text
            }
    }

    /// The text of a number, as it is spelled.
    pub fn number(self) -> Option<&'t str> {
        let node = self.raw_node();
        (tag::kind(node.tag) == Kind::Number).then(|| self.tree.text(node.start as usize, node.end as usize))
    }

    /// Whether it is `true` or `false`.
    pub fn as_bool(self) -> Option<bool> {
        (self.kind() == Kind::Bool).then(|| self.raw() == b"true")
    }

    /// The text of the value, quotes and brackets included.
    #[inline]
    pub fn raw(self) -> &'t [u8] {
        let node = self.raw_node();
        self.tree.bytes.get(node.start as usize..node.end as usize).unwrap_or_default()
    }

    /// Where the value's text stands in the document.
    pub fn span(self) -> Range<usize> {
        let node = self.raw_node();
        node.start as usize..node.end as usize
    }

    /// Where the value, with its name if it has one, stands in the document.
    pub fn member_span(self) -> Range<usize> {
        let Range { start, end } = self.span();
        if self.name_id().is_some() { super::text::name_start(&self.tree.bytes, start)..end } else { start..end }
    }

    /// Line and column of the value.
    pub fn position(self) -> Position {
        self.tree.position(self.span().start)
    }

    /// Whether the text of the value is its canonical form.
    #[inline]
    pub(crate) fn is_verbatim(self) -> bool {
        self.raw_node().tag & tag::VERBATIM != 0
    }

    /// The string member `resourceType`, if it has one that needs no unescaping.
    pub fn resource_type(self) -> Option<&'t str> {
        let node = self.member_id(NameId(KNOWN.resource_type))?.raw_node();
        (tag::kind(node.tag) == Kind::String && node.tag & tag::ESCAPED == 0)
            .then(|| self.tree.text(node.start as usize + 1, node.end as usize - 1))
    }

    /// The innermost resource that holds this node, or this node if it is one.
    pub fn resource(self) -> Option<Self> {
        std::iter::successors(Some(self), |node| node.parent())
            .find(|node| node.is_object() && node.resource_type().is_some())
    }

    /// All values on a path of member names, arrays flattened at every step: `find(&["code", "coding"])` of an
    /// Observation gives each Coding.
    pub fn find<'p>(self, path: &'p [&'p str]) -> Find<'t, 'p> {
        Find { path, stack: vec![(self, 0)] }
    }

    /// The FHIRPath location: `Bundle.entry[3].resource.name[0].given[1]`. A root that is no resource is `$this`. Names
    /// that are no identifiers of up to 64 characters are written `` `?` ``: no text but element names gets into a path.
    pub fn path(self) -> String {
        let node = self.raw_node();
        path_of(self.tree, node.parent, (node.parent != NONE).then_some(node.tag))
    }
}

/// The path of a member or item that is or would be in `parent`. The tree may be half built.
pub(super) fn path_of(tree: &Tree, parent: u32, pending: Option<u32>) -> String {
    let mut labels: Vec<u32> = pending.filter(|tag| tag & tag::ROOT == 0).into_iter().collect();
    let mut id = parent;
    while id != NONE {
        let node = tree.raw(id);
        if node.parent != NONE {
            labels.push(node.tag);
        }
        id = node.parent;
    }
    // Half built, the root does not know its end yet; its members do.
    let mut path = Children { node: Node { tree, id: 1 }, end: u32::try_from(tree.nodes.len()).unwrap_or(NONE) }
        .find(|node| node.name_id() == Some(NameId(KNOWN.resource_type)) && node.raw_node().parent == 0)
        .and_then(Node::as_str)
        .filter(|name| is_identifier(name))
        .map_or_else(|| String::from("$this"), Cow::into_owned);
    for label in labels.into_iter().rev() {
        if label & tag::NAMED == 0 {
            // Writing to a String cannot fail.
            let _ = write!(path, "[{}]", tag::number(label));
        } else {
            let name = tree.name(NameId(tag::number(label)));
            path.push('.');
            path.push_str(if is_identifier(name) { name } else { "`?`" });
        }
    }
    path
}

fn is_identifier(name: &str) -> bool {
    name.len() <= 64
        && name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// The members of an object or the items of an array, in document order.
#[derive(Clone)]
pub struct Children<'t> {
    node: Node<'t>,
    end: u32,
}

impl<'t> Iterator for Children<'t> {
    type Item = Node<'t>;

    #[inline]
    fn next(&mut self) -> Option<Node<'t>> {
        if self.node.id >= self.end {
            return None;
        }
        let node = self.node;
        // A container that is still being read knows no end: it is the last.
        self.node.id = node.raw_node().next.max(node.id + 1);
        Some(node)
    }
}

impl FusedIterator for Children<'_> {}

/// All values within one, in document order.
#[derive(Clone)]
pub struct Descendants<'t> {
    tree: &'t Tree,
    ids: Range<u32>,
}

impl<'t> Iterator for Descendants<'t> {
    type Item = Node<'t>;

    #[inline]
    fn next(&mut self) -> Option<Node<'t>> {
        self.ids.next().map(|id| Node { tree: self.tree, id })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.ids.size_hint()
    }
}

impl ExactSizeIterator for Descendants<'_> {}

impl FusedIterator for Descendants<'_> {}

/// The values on a path of member names; see [`Node::find`].
pub struct Find<'t, 'p> {
    path: &'p [&'p str],
    /// What is still to be looked at, the next last: a value, and how many steps of the path led to it.
    stack: Vec<(Node<'t>, usize)>,
}

impl<'t> Iterator for Find<'t, '_> {
    type Item = Node<'t>;

    fn next(&mut self) -> Option<Node<'t>> {
        while let Some((node, step)) = self.stack.pop() {
            if node.is_array() {
                let from = self.stack.len();
                self.stack.extend(node.children().map(|item| (item, step)));
                if let Some(items) = self.stack.get_mut(from..) {
                    items.reverse();
                }
            } else if let Some(name) = self.path.get(step) {
                self.stack.extend(node.member(name).map(|member| (member, step + 1)));
            } else {
                return Some(node);
            }
        }
        None
    }
}
