//! Runs a program on a place of a document. Each operation and each item costs a step of the budget; recursion is as deep
//! as the expression, which the parser has bounded.

use std::borrow::Cow;
use std::cell::Cell;

use super::ast::Operator;
use super::error::Fault;
use super::functions::Function;
use super::item::{Collection, Element, Item};
use super::program::{Id, Operation, Program, Variable};
use super::{Document, Environment};
use crate::definitions::Definitions;
use crate::tree::Tree;

/// What an expression is run on.
#[derive(Clone, Copy)]
pub(crate) struct Focus {
    /// `$this` and `%context`.
    pub(crate) context: Element,
    /// `%resource`
    pub(crate) resource: Element,
    /// `%rootResource`: the container, if the resource is contained.
    pub(crate) root: Element,
}

/// One run.
pub(super) struct Run<'a> {
    pub(super) program: &'a Program,
    pub(super) definitions: &'a Definitions,
    pub(super) document: &'a Document<'a>,
    pub(super) environment: &'a Environment<'a>,
    pub(super) focus: Focus,
    pub(super) steps_left: Cell<u64>,
    pub(super) bytes_left: Cell<usize>,
    /// Something was asked that cannot be known here; the answer is not to be relied on.
    pub(super) unknown: Cell<bool>,
}

/// Where an operation runs: for which item of which collection.
#[derive(Clone, Copy)]
pub(super) struct Frame<'f, 'a> {
    pub(super) this: &'f Collection<'a>,
    pub(super) index: Option<i64>,
    pub(super) total: Option<&'f Collection<'a>>,
}

pub(super) type Outcome<'a> = Result<Collection<'a>, Fault>;

impl<'a> Run<'a> {
    pub(super) fn tree(&self) -> &'a Tree {
        self.document.tree
    }

    /// All of the program.
    pub(super) fn start(&self) -> Outcome<'a> {
        let this = Collection::One(Item::Element(self.focus.context));
        self.eval(self.program.root, Frame { this: &this, index: None, total: None })
    }

    /// Takes steps from the budget.
    pub(super) fn charge(&self, at: u32, steps: usize) -> Result<(), Fault> {
        let left = self.steps_left.get().checked_sub(steps as u64);
        self.steps_left.set(left.unwrap_or(0));
        left.map(drop).ok_or_else(|| Fault::budget(at, "Expected an answer within the limit of steps"))
    }

    /// Takes bytes of new text from the budget.
    pub(super) fn charge_text(&self, at: u32, bytes: usize) -> Result<(), Fault> {
        let left = self.bytes_left.get().checked_sub(bytes);
        self.bytes_left.set(left.unwrap_or(0));
        left.map(drop).ok_or_else(|| Fault::budget(at, "Expected an answer within the limit of text"))?;
        self.charge(at, bytes / 64)
    }

    /// New text as an answer.
    pub(super) fn text(&self, at: u32, text: String) -> Outcome<'a> {
        self.charge_text(at, text.len())?;
        Ok(Collection::One(Item::String(Cow::Owned(text))))
    }

    pub(super) fn eval(&self, id: Id, frame: Frame<'_, 'a>) -> Outcome<'a> {
        let (operation, at) = self.program.operation(id);
        self.charge(at, 1)?;
        match operation {
            Operation::Empty => Ok(Collection::Empty),
            Operation::Literal(literal) => Ok(Collection::One(Item::from(literal))),
            Operation::This => Ok(frame.this.clone()),
            Operation::Index => match frame.index {
                Some(index) => Ok(Collection::One(Item::Integer(index))),
                None => Err(Fault::evaluation(at, "Expected $index only where items are gone through")),
            },
            Operation::Total => match frame.total {
                Some(total) => Ok(total.clone()),
                None => Err(Fault::evaluation(at, "Expected $total only in aggregate()")),
            },
            Operation::Variable(variable) => Ok(Collection::One(Item::Element(match variable {
                Variable::Context => self.focus.context,
                Variable::Resource => self.focus.resource,
                Variable::RootResource => self.focus.root,
            }))),
            Operation::Member(input, step) => {
                let input = self.eval(*input, frame)?;
                let mut found = Collection::Empty;
                for item in input.iter() {
                    self.members(item, step, &mut found);
                }
                self.charge(at, input.len() + found.len())?;
                Ok(found)
            }
            Operation::Root(input, id) => {
                let input = self.eval(*input, frame)?;
                let fits = |item: &&Item<'a>| {
                    self.type_of(item).passes(self.definitions, super::types::TypeTest::Fhir(*id), false)
                };
                Ok(input.iter().filter(fits).cloned().collect())
            }
            Operation::Item(input, place) => {
                let (input, place) = (self.eval(*input, frame)?, self.eval(*place, frame)?);
                let Some(place) = self.integer(&place, at)? else { return Ok(Collection::Empty) };
                let item = usize::try_from(place).ok().and_then(|place| input.as_slice().get(place));
                Ok(Collection::from(item.cloned()))
            }
            Operation::Negate(operand) => {
                let operand = self.eval(*operand, frame)?;
                self.negate(&operand, at)
            }
            Operation::Plus(operand) => {
                let operand = self.eval(*operand, frame)?;
                self.negate(&operand, at)?;
                Ok(operand)
            }
            Operation::Binary(operator, left, right) => self.binary(*operator, *left, *right, at, frame),
            Operation::Is(operand, test) => {
                let operand = self.eval(*operand, frame)?;
                let Some(item) = only(&operand, at)? else { return Ok(Collection::Empty) };
                Ok(Collection::from(self.type_of(item).passes(self.definitions, *test, false)))
            }
            Operation::As(operand, test) => {
                let operand = self.eval(*operand, frame)?;
                let Some(item) = only(&operand, at)? else { return Ok(Collection::Empty) };
                let is = self.type_of(item).passes(self.definitions, *test, true);
                Ok(if is { operand } else { Collection::Empty })
            }
            Operation::OfType(operand, test) => {
                let operand = self.eval(*operand, frame)?;
                let fits = |item: &Item<'a>| self.type_of(item).passes(self.definitions, *test, true);
                Ok(operand.into_vec().into_iter().filter(fits).collect())
            }
            Operation::Call(function, input, arguments) => self.call(*function, *input, arguments, at, frame),
            Operation::Sort(input, keys) => {
                let input = self.eval(*input, frame)?;
                self.sort(input, keys, at)
            }
            Operation::Pattern(function, input, regex, substitution) => {
                let input = self.eval(*input, frame)?;
                let Some(text) = self.string(&input, at)? else { return Ok(Collection::Empty) };
                if *function != Function::ReplaceMatches {
                    self.charge(at, text.len() / 16)?;
                    return Ok(Collection::from(regex.is_match(&text)));
                }
                let substitution = match substitution {
                    Some(substitution) => self.eval(*substitution, frame)?,
                    None => Collection::Empty,
                };
                self.replace_matches(&text, regex, &substitution, at)
            }
        }
    }

    /// A single item as a truth value: what is there and no Boolean is true (FHIRPath N1, singleton evaluation).
    pub(super) fn truth(&self, items: &Collection<'a>, at: u32) -> Result<Option<bool>, Fault> {
        let Some(item) = only(items, at)? else { return Ok(None) };
        Ok(match self.system(item) {
            Some(Item::Boolean(value)) => Some(value),
            // A boolean that has extensions but no value is not known.
            None if self.is_empty_primitive(item) => None,
            _ => Some(true),
        })
    }

    /// A single Boolean.
    pub(super) fn boolean(&self, items: &Collection<'a>, at: u32) -> Result<Option<bool>, Fault> {
        let Some(item) = only(items, at)? else { return Ok(None) };
        match self.system(item) {
            Some(Item::Boolean(value)) => Ok(Some(value)),
            None if self.is_empty_primitive(item) => Ok(None),
            _ => Err(Fault::evaluation(at, "Expected true or false")),
        }
    }

    /// A single string.
    pub(super) fn string(&self, items: &Collection<'a>, at: u32) -> Result<Option<Cow<'a, str>>, Fault> {
        let Some(item) = only(items, at)? else { return Ok(None) };
        match self.system(item) {
            Some(Item::String(text)) => Ok(Some(text)),
            // Dates are written as strings in FHIR, and are asked for their parts.
            Some(Item::Temporal(value)) if matches!(item, Item::Element(_)) => Ok(Some(Cow::Owned(value.to_string()))),
            None if self.is_empty_primitive(item) => Ok(None),
            _ => Err(Fault::evaluation(at, "Expected a string")),
        }
    }

    /// A single integer.
    pub(super) fn integer(&self, items: &Collection<'a>, at: u32) -> Result<Option<i64>, Fault> {
        let Some(item) = only(items, at)? else { return Ok(None) };
        match self.system(item) {
            Some(Item::Integer(value)) => Ok(Some(value)),
            None if self.is_empty_primitive(item) => Ok(None),
            _ => Err(Fault::evaluation(at, "Expected an integer")),
        }
    }

    fn binary(&self, operator: Operator, left: Id, right: Id, at: u32, frame: Frame<'_, 'a>) -> Outcome<'a> {
        let left = self.eval(left, frame)?;
        if let Operator::And | Operator::Or | Operator::Implies = operator {
            // The right side is not looked at if the left one decides.
            let left = self.truth(&left, at)?;
            match (operator, left) {
                (Operator::And, Some(false)) => return Ok(Collection::from(false)),
                (Operator::Or, Some(true)) | (Operator::Implies, Some(false)) => return Ok(Collection::from(true)),
                _ => {}
            }
            let right = self.eval(right, frame)?;
            let right = self.truth(&right, at)?;
            return Ok(Collection::from(match operator {
                Operator::And if right == Some(false) => Some(false),
                Operator::Or | Operator::Implies if right == Some(true) => Some(true),
                _ => left.and(right),
            }));
        }
        let right = self.eval(right, frame)?;
        match operator {
            Operator::Xor => {
                let (left, right) = (self.truth(&left, at)?, self.truth(&right, at)?);
                Ok(Collection::from(left.zip(right).map(|(left, right)| left != right)))
            }
            Operator::Equal => Ok(Collection::from(self.equal_all(&left, &right, at)?)),
            Operator::NotEqual => Ok(Collection::from(self.equal_all(&left, &right, at)?.map(|equal| !equal))),
            Operator::Equivalent => Ok(Collection::from(self.equivalent_all(&left, &right, at)?)),
            Operator::NotEquivalent => Ok(Collection::from(!self.equivalent_all(&left, &right, at)?)),
            Operator::Less | Operator::LessOrEqual | Operator::Greater | Operator::GreaterOrEqual => {
                self.compare(operator, &left, &right, at)
            }
            Operator::Union => {
                let mut all = left;
                all.append(right);
                self.distinct(all, at)
            }
            Operator::In => self.is_in(&left, &right, at),
            Operator::Contains => self.is_in(&right, &left, at),
            _ => self.arithmetic(operator, &left, &right, at),
        }
    }
}

/// The only item of a collection; None of an empty one, an error of several.
pub(super) fn only<'c, 'a>(items: &'c Collection<'a>, at: u32) -> Result<Option<&'c Item<'a>>, Fault> {
    items.only().map_err(|()| Fault::evaluation(at, "Expected at most one item"))
}
