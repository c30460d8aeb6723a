//! An expression ready to run: operations in a row that refer to each other by number, with names, types and patterns
//! looked up. Belongs to the definitions it was compiled for.

use regex::Regex;

use super::ast::{Literal, Operator};
use super::functions::Function;
use super::types::{Place, TypeTest};
use crate::definitions::TypeId;
use crate::tree::NameId;

/// The number of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Id(pub(super) u32);

/// A compiled expression.
#[derive(Debug)]
pub(crate) struct Program {
    pub(super) operations: Vec<(Operation, u32)>,
    pub(super) root: Id,
}

#[derive(Debug)]
pub(super) enum Operation {
    Empty,
    Literal(Literal),
    This,
    Index,
    Total,
    Variable(Variable),
    Member(Id, Step),
    /// The type's name at the start of a path: what is of that type.
    Root(Id, TypeId),
    Item(Id, Id),
    Negate(Id),
    Plus(Id),
    Binary(Operator, Id, Id),
    Is(Id, TypeTest),
    As(Id, TypeTest),
    OfType(Id, TypeTest),
    Call(Function, Id, Box<[Id]>),
    /// `sort`, with for each key whether it sorts downwards.
    Sort(Id, Box<[(Id, bool)]>),
    /// A function on a regular expression that is known beforehand.
    Pattern(Function, Id, Box<Regex>, Option<Id>),
}

/// A variable of the environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Variable {
    Context,
    Resource,
    RootResource,
}

/// A step to members of a name.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) name: Box<str>,
    /// The id of the name, if it is one of FHIR R4's.
    pub(super) id: Option<NameId>,
    /// Where the member is found in the types that are expected here. In others it is looked up.
    pub(super) known: Box<[((TypeId, u16), Place)]>,
}

impl Program {
    pub(super) fn operation(&self, id: Id) -> (&Operation, u32) {
        static EMPTY: Operation = Operation::Empty;
        self.operations.get(id.0 as usize).map_or((&EMPTY, 0), |(operation, at)| (operation, *at))
    }
}
