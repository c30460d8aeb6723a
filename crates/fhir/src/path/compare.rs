//! Equal, equivalent, before: between items and between collections. Three-valued: what precision, zone or unit leave open
//! is no answer. Sets of items are kept by a number that equal items share, so that they cost no more than they hold.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash as _, Hasher as _, RandomState};

use rust_decimal::Decimal;

use super::ast::Operator;
use super::error::Fault;
use super::eval::{Outcome, Run, only};
use super::item::{Collection, Element, Item};
use super::navigate;
use super::number;
use super::quantity::Quantity;
use super::temporal::{Kind, Temporal};
use super::types::Type;

/// Two items in types that can be compared with each other.
enum Pair<'a> {
    Booleans(bool, bool),
    Numbers(Decimal, Decimal),
    Strings(std::borrow::Cow<'a, str>, std::borrow::Cow<'a, str>),
    Moments(Temporal, Temporal),
    Quantities(Box<Quantity>, Box<Quantity>),
    /// Of different kinds.
    Apart,
}

fn pair<'a>(left: Item<'a>, right: Item<'a>) -> Pair<'a> {
    match (left, right) {
        (Item::Boolean(left), Item::Boolean(right)) => Pair::Booleans(left, right),
        (Item::Integer(left), Item::Integer(right)) => Pair::Numbers(left.into(), right.into()),
        (Item::Integer(left), Item::Decimal(right)) => Pair::Numbers(left.into(), right),
        (Item::Decimal(left), Item::Integer(right)) => Pair::Numbers(left, right.into()),
        (Item::Decimal(left), Item::Decimal(right)) => Pair::Numbers(left, right),
        (Item::String(left), Item::String(right)) => Pair::Strings(left, right),
        (Item::Quantity(left), Item::Quantity(right)) => Pair::Quantities(left, right),
        (Item::Quantity(left), Item::Integer(right)) => Pair::Quantities(left, Box::new(Quantity::plain(right.into()))),
        (Item::Quantity(left), Item::Decimal(right)) => Pair::Quantities(left, Box::new(Quantity::plain(right))),
        (Item::Integer(left), Item::Quantity(right)) => Pair::Quantities(Box::new(Quantity::plain(left.into())), right),
        (Item::Decimal(left), Item::Quantity(right)) => Pair::Quantities(Box::new(Quantity::plain(left)), right),
        (Item::Temporal(left), Item::Temporal(right)) if (left.kind == Kind::Time) == (right.kind == Kind::Time) => {
            Pair::Moments(left, right)
        }
        _ => Pair::Apart,
    }
}

impl<'a> Run<'a> {
    /// Whether two items are equal; None if it cannot be told.
    pub(super) fn equal(&self, left: &Item<'a>, right: &Item<'a>, at: u32) -> Result<Option<bool>, Fault> {
        self.charge(at, 1)?;
        if let (Item::Element(left), Item::Element(right)) = (left, right)
            && left.identity() == right.identity()
        {
            return Ok(Some(true));
        }
        match (self.system(left), self.system(right)) {
            (Some(left), Some(right)) => Ok(match pair(left, right) {
                Pair::Booleans(left, right) => Some(left == right),
                Pair::Numbers(left, right) => Some(left == right),
                Pair::Strings(left, right) => Some(left == right),
                Pair::Moments(left, right) => left.compare(right).map(Ordering::is_eq),
                Pair::Quantities(left, right) => left.compare(&right).map(Ordering::is_eq),
                Pair::Apart => Some(false),
            }),
            (None, None) => match (left, right) {
                (Item::Element(left), Item::Element(right)) => self.deep(*left, *right, at, false),
                (Item::TypeInfo { namespace: a, name: b }, Item::TypeInfo { namespace: c, name: d }) => {
                    Ok(Some(a == c && b == d))
                }
                _ => Ok(Some(false)),
            },
            // A Quantity that has no UCUM unit is still an element like others.
            _ => match (left, right) {
                (Item::Element(left), Item::Element(right)) => self.deep(*left, *right, at, false),
                _ => Ok(Some(false)),
            },
        }
    }

    /// Whether two items mean about the same.
    fn equivalent(&self, left: &Item<'a>, right: &Item<'a>, at: u32) -> Result<bool, Fault> {
        self.charge(at, 1)?;
        match (self.system(left), self.system(right)) {
            (Some(left), Some(right)) => Ok(match pair(left, right) {
                Pair::Booleans(left, right) => left == right,
                Pair::Numbers(left, right) => number::equivalent(left, right),
                Pair::Strings(left, right) => {
                    self.charge(at, (left.len() + right.len()) / 16)?;
                    normalized(&left) == normalized(&right)
                }
                Pair::Moments(left, right) => left.compare(right) == Some(Ordering::Equal),
                Pair::Quantities(left, right) => left.equivalent(&right),
                Pair::Apart => false,
            }),
            _ => match (left, right) {
                (Item::Element(left), Item::Element(right)) => Ok(self.deep(*left, *right, at, true)? == Some(true)),
                _ => Ok(false),
            },
        }
    }

    /// Whether two elements hold the same, whatever the order of their members.
    fn deep(&self, left: Element, right: Element, at: u32, loosely: bool) -> Result<Option<bool>, Fault> {
        let list = |element: Element| {
            let mut list = Vec::new();
            navigate::children(self.definitions, self.tree(), element, &mut |name, child| list.push((name, child)));
            // Items of one name stay in their order.
            list.sort_by_key(|(name, _)| *name);
            list
        };
        let (mut left, mut right) = (list(left), list(right));
        self.charge(at, left.len() + right.len())?;
        if loosely {
            // Ids of elements mean nothing to whom they are alike.
            left.retain(|(name, _)| *name != "id");
            right.retain(|(name, _)| *name != "id");
        }
        if left.len() != right.len() || left.iter().zip(&right).any(|(left, right)| left.0 != right.0) {
            return Ok(Some(false));
        }
        if loosely {
            // Items of one name stand beside each other, and may be in any order there.
            let same = |left: &(&str, Element), right: &(&str, Element)| left.0 == right.0;
            for (left, right) in left.chunk_by(same).zip(right.chunk_by(same)) {
                let items = |list: &[(&str, Element)]| list.iter().map(|(_, item)| Item::Element(*item)).collect();
                if !self.equivalent_all(&items(left), &items(right), at)? {
                    return Ok(Some(false));
                }
            }
            return Ok(Some(true));
        }
        let mut answer = Some(true);
        for ((_, left), (_, right)) in left.into_iter().zip(right) {
            match self.equal(&Item::Element(left), &Item::Element(right), at)? {
                Some(false) => return Ok(Some(false)),
                Some(true) => {}
                None => answer = None,
            }
        }
        Ok(answer)
    }

    /// `=` between collections.
    pub(super) fn equal_all(
        &self,
        left: &Collection<'a>,
        right: &Collection<'a>,
        at: u32,
    ) -> Result<Option<bool>, Fault> {
        if left.is_empty() || right.is_empty() {
            return Ok(None);
        }
        if left.len() != right.len() {
            return Ok(Some(false));
        }
        let mut answer = Some(true);
        for (left, right) in left.iter().zip(right.iter()) {
            match self.equal(left, right, at)? {
                Some(false) => return Ok(Some(false)),
                Some(true) => {}
                None => answer = None,
            }
        }
        Ok(answer)
    }

    /// `~` between collections: in any order.
    pub(super) fn equivalent_all(&self, left: &Collection<'a>, right: &Collection<'a>, at: u32) -> Result<bool, Fault> {
        if left.len() != right.len() {
            return Ok(false);
        }
        let mut left_over: Vec<&Item<'a>> = right.iter().collect();
        'items: for item in left.iter() {
            for place in 0..left_over.len() {
                if self.equivalent(item, left_over[place], at)? {
                    left_over.swap_remove(place);
                    continue 'items;
                }
            }
            return Ok(false);
        }
        Ok(true)
    }

    /// `<`, `<=`, `>`, `>=`
    pub(super) fn compare(
        &self,
        operator: Operator,
        left: &Collection<'a>,
        right: &Collection<'a>,
        at: u32,
    ) -> Outcome<'a> {
        let (Some(left), Some(right)) = (only(left, at)?, only(right, at)?) else {
            return Ok(Collection::Empty);
        };
        let order = self.order(left, right, at)?;
        Ok(Collection::from(order.map(|order| match operator {
            Operator::Less => order.is_lt(),
            Operator::LessOrEqual => order.is_le(),
            Operator::Greater => order.is_gt(),
            _ => order.is_ge(),
        })))
    }

    /// Which item comes first; None if it cannot be told, an error if the two do not compare.
    pub(super) fn order(&self, left: &Item<'a>, right: &Item<'a>, at: u32) -> Result<Option<Ordering>, Fault> {
        self.charge(at, 1)?;
        let mismatch = || Fault::evaluation(at, "Expected two numbers, strings, dates, times or quantities");
        let (Some(left_value), Some(right_value)) = (self.system(left), self.system(right)) else {
            let empty = self.is_empty_primitive(left) || self.is_empty_primitive(right);
            let quantities = [left, right].iter().all(|item| {
                let ty = self.type_of(item);
                ty.is_quantity(self.definitions) || matches!(ty, Type::System(super::types::System::Quantity))
            });
            return if empty || quantities { Ok(None) } else { Err(mismatch()) };
        };
        match pair(left_value, right_value) {
            Pair::Numbers(left, right) => Ok(Some(left.cmp(&right))),
            Pair::Strings(left, right) => Ok(Some(left.cmp(&right))),
            Pair::Moments(left, right) => Ok(left.compare(right)),
            Pair::Quantities(left, right) => Ok(left.compare(&right)),
            Pair::Booleans(..) | Pair::Apart => Err(mismatch()),
        }
    }

    /// `in`
    pub(super) fn is_in(&self, item: &Collection<'a>, items: &Collection<'a>, at: u32) -> Outcome<'a> {
        let Some(item) = only(item, at)? else { return Ok(Collection::Empty) };
        for other in items.iter() {
            if self.equal(item, other, at)? == Some(true) {
                return Ok(Collection::from(true));
            }
        }
        Ok(Collection::from(false))
    }

    /// Each item once, at its first place.
    pub(super) fn distinct(&self, items: Collection<'a>, at: u32) -> Outcome<'a> {
        if items.len() < 2 {
            return Ok(items);
        }
        let mut set = Set::default();
        let mut kept = Vec::new();
        for item in items.into_vec() {
            if set.insert(self, &item, at)? {
                kept.push(item);
            }
        }
        Ok(Collection::from(kept))
    }
}

/// Without regard to case and kinds of white space (FHIRPath N1, `~` of strings).
fn normalized(text: &str) -> String {
    text.chars().map(|c| if c.is_whitespace() { ' ' } else { c }).flat_map(char::to_lowercase).collect()
}

/// A set of items, by `=`.
#[derive(Default)]
pub(super) struct Set<'a> {
    items: HashMap<u64, Vec<Item<'a>>>,
    /// Keyed at random, so that nobody can send items that collide.
    state: RandomState,
}

impl<'a> Set<'a> {
    /// All items of a collection.
    pub(super) fn of(run: &Run<'a>, items: &Collection<'a>, at: u32) -> Result<Self, Fault> {
        let mut set = Self::default();
        for item in items.iter() {
            set.insert(run, item, at)?;
        }
        Ok(set)
    }

    /// Adds an item; false if an equal one was there.
    pub(super) fn insert(&mut self, run: &Run<'a>, item: &Item<'a>, at: u32) -> Result<bool, Fault> {
        let key = self.key(run, item, at)?;
        if self.find(run, key, item, at)? {
            return Ok(false);
        }
        self.items.entry(key).or_default().push(item.clone());
        Ok(true)
    }

    pub(super) fn contains(&self, run: &Run<'a>, item: &Item<'a>, at: u32) -> Result<bool, Fault> {
        self.find(run, self.key(run, item, at)?, item, at)
    }

    fn find(&self, run: &Run<'a>, key: u64, item: &Item<'a>, at: u32) -> Result<bool, Fault> {
        for other in self.items.get(&key).into_iter().flatten() {
            if run.equal(item, other, at)? == Some(true) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A number that equal items share.
    fn key(&self, run: &Run<'a>, item: &Item<'a>, at: u32) -> Result<u64, Fault> {
        run.charge(at, 1)?;
        let mut hasher = self.state.build_hasher();
        match run.system(item) {
            Some(Item::Boolean(value)) => value.hash(&mut hasher),
            Some(Item::Integer(value)) => Decimal::from(value).normalize().hash(&mut hasher),
            Some(Item::Decimal(value)) => value.normalize().hash(&mut hasher),
            Some(Item::String(text)) => text.hash(&mut hasher),
            // Equal ones may look different, and a quantity may equal a number: few of them are ever in one set.
            Some(_) => {}
            None => {
                if let Item::Element(element) = item
                    && let Some(node) = element.value(run.tree())
                {
                    return self.shape(run, node, at);
                }
            }
        }
        Ok(hasher.finish())
    }

    /// Of an object, by the names and the plain strings in it, in whatever order.
    fn shape(&self, run: &Run<'a>, node: crate::tree::Node<'a>, at: u32) -> Result<u64, Fault> {
        let mut sum = 0_u64;
        let inside = node.descendants();
        run.charge(at, inside.len())?;
        for node in inside {
            let name = node.name_id().map(crate::tree::NameId::index);
            // What begins with a digit may be a date, which can be written in several ways.
            let text = node.as_str().filter(|text| !text.starts_with(|first: char| first.is_ascii_digit()));
            sum = sum.wrapping_add(self.state.hash_one((name, text)));
        }
        Ok(sum)
    }
}
