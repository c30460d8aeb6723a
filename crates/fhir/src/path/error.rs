//! Why an expression was refused or gave no answer, and where in the expression. Names functions and elements, which
//! stand in the expression and in the definitions; never a value of the record.

use std::borrow::Cow;

use crate::tree::Position;

/// What kind of fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The text is no FHIRPath expression.
    Syntax,
    /// It names what does not exist: an element, a type, a function, a variable.
    Semantic,
    /// What it was applied to does not fit: several items where one is expected, operands of types that do not go together.
    Evaluation,
    /// It reached a limit of the [`Budget`](super::Budget).
    Budget,
}

/// An expression's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {}, column {}: {text}", position.line, position.column)]
pub struct PathError {
    /// What kind it is.
    pub kind: ErrorKind,
    /// Where in the expression, in bytes.
    pub offset: usize,
    /// Where in the expression, as line and column.
    pub position: Position,
    /// What was expected.
    pub text: Cow<'static, str>,
}

/// A fault before its line and column are counted.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub(crate) kind: ErrorKind,
    pub(crate) at: u32,
    pub(crate) text: Cow<'static, str>,
}

impl Fault {
    pub(crate) fn syntax(at: u32, text: impl Into<Cow<'static, str>>) -> Self {
        Self { kind: ErrorKind::Syntax, at, text: text.into() }
    }

    pub(crate) fn semantic(at: u32, text: impl Into<Cow<'static, str>>) -> Self {
        Self { kind: ErrorKind::Semantic, at, text: text.into() }
    }

    pub(crate) fn evaluation(at: u32, text: impl Into<Cow<'static, str>>) -> Self {
        Self { kind: ErrorKind::Evaluation, at, text: text.into() }
    }

    pub(crate) fn budget(at: u32, text: &'static str) -> Self {
        Self { kind: ErrorKind::Budget, at, text: Cow::Borrowed(text) }
    }

    /// With its line and column in the expression.
    pub(crate) fn located(self, expression: &str) -> PathError {
        let offset = (self.at as usize).min(expression.len());
        let before = expression.get(..offset).unwrap_or_default();
        let line = before.bytes().filter(|&byte| byte == b'\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let position = Position { line: small(line), column: small(column) };
        PathError { kind: self.kind, offset, position, text: self.text }
    }
}
