//! FHIRPath (N1, with what FHIR R4 adds) over the tree of a resource.
//!
//! An [`Expression`] is compiled once for the definitions and the type it will be applied to, and run many times: it works on
//! places of the tree, copies no part of it, and gives items that point back there. Decimals are exact, partial dates and
//! times compare in three values, quantities by UCUM. Each run is bounded in steps and in text that it makes.
//! Does no I/O and reads no clock: the time is told by the caller, and what lies outside of the document is asked of a
//! [`Host`], which may not know.

mod ast;
mod calls;
mod compare;
mod compile;
mod convert;
mod error;
mod eval;
mod fhir;
mod functions;
mod host;
mod item;
mod lexer;
mod math;
mod navigate;
mod number;
mod parser;
mod program;
mod quantity;
mod temporal;
mod text;
mod types;
mod value;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

pub use error::{ErrorKind, PathError};
pub use host::{Conformance, Host, Offline};
pub use value::Value;

use crate::bundle::{Index, Target};
use crate::definitions::Definitions;
use crate::tree::{Node, NodeId, Tree};
use eval::{Focus, Run};
use item::Collection;
pub(crate) use item::Element;
pub(crate) use navigate::{compare_quantities, elements_at, locate, resource};
use program::Program;
pub(crate) use types::Type;

/// How names that the definitions do not know are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// An error, where the types are known: a misspelt element never passes for an absent one.
    Strict,
    /// Absent elements, as FHIRPath's evaluation has it.
    Lenient,
}

/// What one run may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Operations, and items that they look at.
    pub steps_max: u64,
    /// Bytes of text that is made by it, by concatenation for one.
    pub text_bytes_max: usize,
}

impl Default for Budget {
    /// Ten million steps, about a second; 16 MiB of text.
    fn default() -> Self {
        Self { steps_max: 10_000_000, text_bytes_max: 16 << 20 }
    }
}

/// What a run is given from outside.
#[derive(Clone, Copy)]
pub struct Environment<'e> {
    /// Answers about terminology and profiles.
    pub host: &'e dyn Host,
    /// The time for `now()`, `today()` and `timeOfDay()`, as a FHIR instant; without it they are errors.
    pub now: Option<&'e str>,
    /// What it may cost.
    pub budget: Budget,
}

impl<'e> Environment<'e> {
    /// With this host, no time, and the default budget.
    pub fn new(host: &'e dyn Host) -> Self {
        Self { host, now: None, budget: Budget::default() }
    }
}

/// A document that expressions are run on, with what they look up in it again and again.
pub struct Document<'t> {
    tree: &'t Tree,
    bundles: RefCell<HashMap<NodeId, Rc<BundleIndex>>>,
    /// Steps that all runs together may still take.
    steps_left: Cell<u64>,
}

/// Who is who in a Bundle, and where its entries are.
struct BundleIndex {
    index: Index,
    entries: Vec<NodeId>,
}

impl<'t> Document<'t> {
    /// A document.
    pub fn new(tree: &'t Tree) -> Self {
        Self::within(tree, u64::MAX)
    }

    /// A document on which all runs together take no more than so many steps.
    pub fn within(tree: &'t Tree, steps_max: u64) -> Self {
        Self { tree, bundles: RefCell::default(), steps_left: Cell::new(steps_max) }
    }

    /// Steps that may still be taken.
    pub fn steps_left(&self) -> u64 {
        self.steps_left.get()
    }

    /// Takes steps from those that are left.
    pub(crate) fn charge(&self, steps: u64) {
        self.steps_left.set(self.steps_left.get().saturating_sub(steps));
    }

    pub(crate) fn tree(&self) -> &'t Tree {
        self.tree
    }

    /// The resource that a reference names, if the document has it: in its container, or in its Bundle.
    pub(crate) fn resource_at(&self, text: &str, here: Node<'t>) -> Option<Node<'t>> {
        let resource = here.resource()?;
        // What contains it, if it is contained.
        let holder = resource.parent().filter(|parent| parent.name() == Some("contained"));
        let container = holder.and_then(Node::parent).unwrap_or(resource);
        if let Some(id) = text.strip_prefix('#') {
            if id.is_empty() {
                return Some(container);
            }
            let mut contained = container.member("contained").into_iter().flat_map(Node::items);
            return contained.find(|node| node.member("id").is_some_and(|found| found.is_str(id)));
        }
        let entry = container.parent().filter(|_| container.name() == Some("resource"))?;
        let number = entry.index()? as usize;
        let bundle = entry.parent().and_then(Node::parent).filter(|bundle| bundle.resource_type() == Some("Bundle"))?;
        self.entry(bundle, text, number)?.member("resource")
    }

    /// The entry that a reference in another entry names.
    fn entry(&self, bundle: Node<'t>, reference: &str, from_entry: usize) -> Option<Node<'t>> {
        let known = self.bundles.borrow().get(&bundle.id()).cloned();
        let index = known.unwrap_or_else(|| {
            let entries = bundle.member("entry").into_iter().flat_map(Node::items).map(Node::id).collect();
            let index = Rc::new(BundleIndex { index: Index::new(bundle), entries });
            self.bundles.borrow_mut().insert(bundle.id(), Rc::clone(&index));
            index
        });
        let Target::Entry(found) = index.index.resolve(reference, from_entry) else { return None };
        index.entries.get(found).map(|entry| self.tree.node(*entry))
    }
}

/// A compiled expression. Cheap to keep, shared between threads.
#[derive(Debug)]
pub struct Expression {
    text: Box<str>,
    definitions: Arc<Definitions>,
    program: Program,
}

impl Expression {
    /// Compiles an expression that will be applied to elements of that type (a resource type, a data type), or of any.
    pub fn compile(
        text: &str,
        definitions: &Arc<Definitions>,
        context: Option<&str>,
        mode: Mode,
    ) -> Result<Self, PathError> {
        let context = context.and_then(|name| definitions.type_named(name)).map(|id| Type::of(definitions, id));
        let program = compile(text, definitions, context, mode)?;
        Ok(Self { text: text.into(), definitions: Arc::clone(definitions), program })
    }

    /// The expression as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Runs it on the element at a node of a document: a resource, or anything inside of one.
    pub fn evaluate<'a>(
        &'a self,
        document: &'a Document<'a>,
        node: Node<'a>,
        environment: &'a Environment<'a>,
    ) -> Result<Answer<'a>, PathError> {
        let context = locate(&self.definitions, node);
        let focus = Focus { context, ..focus(&self.definitions, node) };
        let (items, is_known) = run(&self.program, &self.definitions, document, environment, focus)
            .map_err(|fault| fault.located(&self.text))?;
        let values = items.into_vec().into_iter().map(|item| Value::new(item, document.tree, &self.definitions));
        Ok(Answer { values: values.collect(), is_known })
    }
}

/// What an expression gave.
#[derive(Debug)]
pub struct Answer<'a> {
    /// The items, in order.
    pub values: Vec<Value<'a>>,
    /// False if something was asked on the way that cannot be known here (a code's membership, a resource that is
    /// elsewhere): then what the answer lacks may be there.
    pub is_known: bool,
}

impl Answer<'_> {
    /// The answer as a truth value (FHIRPath N1, singleton evaluation): None if it is empty or has several items.
    pub fn truth(&self) -> Option<bool> {
        match &*self.values {
            [value] => Some(value.as_bool().unwrap_or(true)),
            _ => None,
        }
    }
}

/// An invariant, ready to be asked of elements of one type.
#[derive(Debug)]
pub(crate) struct Invariant(Program);

/// What an invariant says of an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Holds,
    Broken,
    /// It cannot be told here: what it asks about lies elsewhere, or it could not be worked out.
    Open,
}

impl Invariant {
    /// Compiles it, leniently: what the definitions say is taken as they say it.
    pub(crate) fn compile(text: &str, definitions: &Definitions, ty: Type) -> Result<Self, PathError> {
        compile(text, definitions, Some(ty), Mode::Lenient).map(Self)
    }

    /// Asks it of an element of a resource (in its container). Empty is neither true nor false, and so not broken.
    pub(crate) fn ask<'a>(
        &'a self,
        definitions: &'a Definitions,
        document: &'a Document<'a>,
        environment: &'a Environment<'a>,
        (node, ty): (Node<'a>, Type),
        (resource, root): (Node<'a>, Node<'a>),
    ) -> Verdict {
        let item = Element::new(Some(node), None, ty);
        self.ask_item(definitions, document, environment, item, (resource, root))
    }

    /// The same of an element that may have no value, but extensions only.
    pub(crate) fn ask_item<'a>(
        &'a self,
        definitions: &'a Definitions,
        document: &'a Document<'a>,
        environment: &'a Environment<'a>,
        context: Element,
        (resource, root): (Node<'a>, Node<'a>),
    ) -> Verdict {
        let focus = Focus {
            context,
            resource: navigate::resource(definitions, resource),
            root: navigate::resource(definitions, root),
        };
        let Ok((items, is_known)) = run(&self.0, definitions, document, environment, focus) else {
            return Verdict::Open;
        };
        match items.as_slice() {
            [item::Item::Boolean(false)] if is_known => Verdict::Broken,
            [item::Item::Boolean(false)] => Verdict::Open,
            _ => Verdict::Holds,
        }
    }

    /// Whether what it gives of a resource (in its container) has an element among it; None where that cannot be told.
    pub(crate) fn gives<'a>(
        &'a self,
        definitions: &'a Definitions,
        document: &'a Document<'a>,
        environment: &'a Environment<'a>,
        (resource, root): (Node<'a>, Node<'a>),
        wanted: Node<'a>,
    ) -> Option<bool> {
        let resource = navigate::resource(definitions, resource);
        let focus = Focus { context: resource, resource, root: navigate::resource(definitions, root) };
        let (items, is_known) = run(&self.0, definitions, document, environment, focus).ok()?;
        let is_wanted = |item: &item::Item<'_>| match item {
            item::Item::Element(element) => {
                [element.value(document.tree), element.companion(document.tree)].contains(&Some(wanted))
            }
            _ => false,
        };
        if items.iter().any(is_wanted) { Some(true) } else { is_known.then_some(false) }
    }
}

/// Whether a text is FHIRPath by its grammar.
pub(crate) fn is_expression(text: &str) -> bool {
    parser::parse(text).is_ok()
}

/// Reads and compiles an expression.
fn compile(text: &str, definitions: &Definitions, context: Option<Type>, mode: Mode) -> Result<Program, PathError> {
    let expr = parser::parse(text).map_err(|fault| fault.located(text))?;
    compile::compile(definitions, &expr, context, mode).map_err(|fault| fault.located(text))
}

/// The resource that holds a node, and what contains that.
fn focus(definitions: &Definitions, node: Node<'_>) -> Focus {
    let resource = node.resource().unwrap_or(node);
    let holder = resource.parent().filter(|parent| parent.name() == Some("contained"));
    let root = holder.and_then(Node::parent).unwrap_or(resource);
    let resource = navigate::resource(definitions, resource);
    Focus { context: resource, resource, root: navigate::resource(definitions, root) }
}

/// Runs a program; tells whether all that it asked was known.
fn run<'a>(
    program: &'a Program,
    definitions: &'a Definitions,
    document: &'a Document<'a>,
    environment: &'a Environment<'a>,
    focus: Focus,
) -> Result<(Collection<'a>, bool), error::Fault> {
    let steps_max = environment.budget.steps_max.min(document.steps_left());
    let run = Run {
        program,
        definitions,
        document,
        environment,
        focus,
        steps_left: Cell::new(steps_max),
        bytes_left: Cell::new(environment.budget.text_bytes_max),
        unknown: Cell::new(false),
    };
    let items = run.start();
    document.charge(steps_max - run.steps_left.get());
    let items = items?;
    Ok((items, !run.unknown.get()))
}

#[cfg(test)]
mod tests;
