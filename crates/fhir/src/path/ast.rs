//! An expression as it is written: what the parser gives and the compiler takes.

use rust_decimal::Decimal;

use super::quantity::Quantity;
use super::temporal::Temporal;

/// A part of an expression.
#[derive(Debug)]
pub(super) struct Expr {
    /// Where it is written: of an operation, its operator.
    pub(super) at: u32,
    /// How deep it nests.
    pub(super) depth: u16,
    pub(super) node: Node,
}

#[derive(Debug)]
pub(super) enum Node {
    Literal(Literal),
    /// `{}`
    Empty,
    This,
    Index,
    Total,
    /// `%name`
    Variable(String),
    /// `input.name`, or `name` alone.
    Member(Option<Box<Expr>>, String),
    /// `input.name(…)`, or `name(…)` alone.
    Call(Option<Box<Expr>>, String, Vec<Expr>),
    /// `input[place]`
    Item(Box<Expr>, Box<Expr>),
    /// `-a` (true) or `+a`
    Sign(bool, Box<Expr>),
    Binary(Operator, Box<Expr>, Box<Expr>),
    /// `a is T`
    Is(Box<Expr>, TypeName),
    /// `a as T`
    As(Box<Expr>, TypeName),
}

/// A type as it is written.
#[derive(Debug, Clone)]
pub(super) struct TypeName {
    pub(super) namespace: Option<String>,
    pub(super) name: String,
}

/// A literal, read.
#[derive(Debug, Clone)]
pub(crate) enum Literal {
    Boolean(bool),
    Integer(i64),
    Decimal(Decimal),
    String(Box<str>),
    Temporal(Temporal),
    Quantity(Box<Quantity>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    Multiply,
    Divide,
    Div,
    Mod,
    Add,
    Subtract,
    Concatenate,
    Union,
    LessOrEqual,
    Less,
    Greater,
    GreaterOrEqual,
    Equal,
    NotEqual,
    Equivalent,
    NotEquivalent,
    In,
    Contains,
    And,
    Or,
    Xor,
    Implies,
}
