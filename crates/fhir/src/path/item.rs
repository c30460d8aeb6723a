//! What an expression works on: items, and collections of them. An item of the record is a place in its tree, not a copy.

use std::borrow::Cow;

use rust_decimal::Decimal;

use super::ast::Literal;
use super::quantity::Quantity;
use super::temporal::Temporal;
use super::types::Type;
use crate::definitions::TypeId;
use crate::tree::{Node, NodeId, Tree};

/// An element of the record: a value, or the extensions of a primitive without one, or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Element {
    value: u32,
    companion: u32,
    pub(crate) ty: Type,
}

const NONE: u32 = u32::MAX;

impl Element {
    pub(crate) fn new(value: Option<Node<'_>>, companion: Option<Node<'_>>, ty: Type) -> Self {
        let id = |node: Option<Node<'_>>| node.map_or(NONE, |node| node.id().0);
        Self { value: id(value), companion: id(companion), ty }
    }

    /// The node of its value; none of a primitive that has extensions only.
    pub(crate) fn value(self, tree: &Tree) -> Option<Node<'_>> {
        (self.value != NONE).then(|| tree.node(NodeId(self.value)))
    }

    /// The node of a primitive's id and extensions.
    pub(crate) fn companion(self, tree: &Tree) -> Option<Node<'_>> {
        (self.companion != NONE).then(|| tree.node(NodeId(self.companion)))
    }

    /// The node of its value, or of its extensions if it has none.
    pub(crate) fn node(self, tree: &Tree) -> Option<Node<'_>> {
        self.value(tree).or_else(|| self.companion(tree))
    }

    /// A number that no other element of the tree has.
    pub(super) fn identity(self) -> (u32, u32) {
        (self.value, self.companion)
    }
}

/// One item.
#[derive(Debug, Clone)]
pub(crate) enum Item<'a> {
    Element(Element),
    Boolean(bool),
    Integer(i64),
    Decimal(Decimal),
    String(Cow<'a, str>),
    Temporal(Temporal),
    Quantity(Box<Quantity>),
    /// What `type()` gives.
    TypeInfo {
        namespace: &'static str,
        name: &'a str,
    },
    /// A resource that is not at hand, but whose type its reference tells.
    Elsewhere(TypeId),
}

impl<'a> From<&'a Literal> for Item<'a> {
    fn from(literal: &'a Literal) -> Self {
        match literal {
            Literal::Boolean(value) => Self::Boolean(*value),
            Literal::Integer(value) => Self::Integer(*value),
            Literal::Decimal(value) => Self::Decimal(*value),
            Literal::String(text) => Self::String(Cow::Borrowed(text)),
            Literal::Temporal(value) => Self::Temporal(*value),
            Literal::Quantity(value) => Self::Quantity(value.clone()),
        }
    }
}

/// Items in order. Most collections have none or one, and cost no allocation.
#[derive(Debug, Clone, Default)]
pub(crate) enum Collection<'a> {
    #[default]
    Empty,
    One(Item<'a>),
    Many(Vec<Item<'a>>),
}

impl<'a> Collection<'a> {
    pub(super) fn as_slice(&self) -> &[Item<'a>] {
        match self {
            Self::Empty => &[],
            Self::One(item) => std::slice::from_ref(item),
            Self::Many(items) => items,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.as_slice().len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }

    pub(super) fn iter(&self) -> std::slice::Iter<'_, Item<'a>> {
        self.as_slice().iter()
    }

    pub(super) fn push(&mut self, item: Item<'a>) {
        *self = match std::mem::take(self) {
            Self::Empty => Self::One(item),
            Self::One(first) => Self::Many(vec![first, item]),
            Self::Many(mut items) => {
                items.push(item);
                Self::Many(items)
            }
        };
    }

    pub(super) fn append(&mut self, other: Self) {
        match (&mut *self, other) {
            (_, Self::Empty) => {}
            (Self::Empty, other) => *self = other,
            (Self::Many(items), other) => items.extend(other.into_vec()),
            (_, other) => other.into_vec().into_iter().for_each(|item| self.push(item)),
        }
    }

    pub(crate) fn into_vec(self) -> Vec<Item<'a>> {
        match self {
            Self::Empty => Vec::new(),
            Self::One(item) => vec![item],
            Self::Many(items) => items,
        }
    }

    /// The only item, or None if there is none; Err if there are several.
    pub(super) fn only(&self) -> Result<Option<&Item<'a>>, ()> {
        match self.as_slice() {
            [] => Ok(None),
            [item] => Ok(Some(item)),
            _ => Err(()),
        }
    }
}

impl<'a> From<Vec<Item<'a>>> for Collection<'a> {
    fn from(mut items: Vec<Item<'a>>) -> Self {
        match items.len() {
            0 => Self::Empty,
            1 => items.pop().map_or(Self::Empty, Self::One),
            _ => Self::Many(items),
        }
    }
}

impl<'a> From<Option<Item<'a>>> for Collection<'a> {
    fn from(item: Option<Item<'a>>) -> Self {
        item.map_or(Self::Empty, Self::One)
    }
}

impl From<bool> for Collection<'_> {
    fn from(value: bool) -> Self {
        Self::One(Item::Boolean(value))
    }
}

impl From<Option<bool>> for Collection<'_> {
    fn from(value: Option<bool>) -> Self {
        Self::from(value.map(Item::Boolean))
    }
}

impl<'a> FromIterator<Item<'a>> for Collection<'a> {
    fn from_iter<I: IntoIterator<Item = Item<'a>>>(items: I) -> Self {
        let mut all = Self::Empty;
        items.into_iter().for_each(|item| all.push(item));
        all
    }
}
