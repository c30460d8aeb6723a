//! Reads tokens into an expression, by precedence (FHIRPath N1, section "Operator Precedence"). Bounds how deep it nests,
//! so that nothing later that recurses over it can run out of stack.

use super::ast::{Expr, Literal, Node, Operator, TypeName};
use super::error::Fault;
use super::lexer::{self, Token};
use super::number;
use super::quantity::{Calendar, Quantity, Unit};
use super::temporal::Temporal;

/// Parts within parts: `a.b.c` is three deep, as is `1 + 1 + 1`.
const DEPTH_MAX: u16 = 200;
/// Bytes of an expression.
const BYTES_MAX: usize = 64 << 10;

/// Reads an expression.
pub(super) fn parse(text: &str) -> Result<Expr, Fault> {
    if text.len() > BYTES_MAX {
        return Err(Fault::budget(0, "Expected a shorter expression"));
    }
    let mut parser = Parser { tokens: lexer::tokens(text)?, next: 0, open: 0 };
    let expr = parser.expression(0)?;
    match parser.peek() {
        Token::End => Ok(expr),
        _ => Err(Fault::syntax(parser.at(), "Expected an operator or the end of the expression")),
    }
}

struct Parser<'s> {
    tokens: Vec<(Token<'s>, u32)>,
    next: usize,
    /// Expressions that are being read within each other.
    open: u16,
}

/// How tightly the path operators and signs bind; binary operators bind less.
const SIGN: u8 = 20;

/// A binary operator and how tightly it binds.
fn binary(token: &Token<'_>) -> Option<(Option<Operator>, u8)> {
    Some(match token {
        Token::Symbol("*") => (Some(Operator::Multiply), 18),
        Token::Symbol("/") => (Some(Operator::Divide), 18),
        Token::Word("div") => (Some(Operator::Div), 18),
        Token::Word("mod") => (Some(Operator::Mod), 18),
        Token::Symbol("+") => (Some(Operator::Add), 16),
        Token::Symbol("-") => (Some(Operator::Subtract), 16),
        Token::Symbol("&") => (Some(Operator::Concatenate), 16),
        // `is` and `as` take a type, not an expression.
        Token::Word("is" | "as") => (None, 14),
        Token::Symbol("|") => (Some(Operator::Union), 12),
        Token::Symbol("<=") => (Some(Operator::LessOrEqual), 10),
        Token::Symbol("<") => (Some(Operator::Less), 10),
        Token::Symbol(">") => (Some(Operator::Greater), 10),
        Token::Symbol(">=") => (Some(Operator::GreaterOrEqual), 10),
        Token::Symbol("=") => (Some(Operator::Equal), 8),
        Token::Symbol("!=") => (Some(Operator::NotEqual), 8),
        Token::Symbol("~") => (Some(Operator::Equivalent), 8),
        Token::Symbol("!~") => (Some(Operator::NotEquivalent), 8),
        Token::Word("in") => (Some(Operator::In), 6),
        Token::Word("contains") => (Some(Operator::Contains), 6),
        Token::Word("and") => (Some(Operator::And), 4),
        Token::Word("or") => (Some(Operator::Or), 3),
        Token::Word("xor") => (Some(Operator::Xor), 3),
        Token::Word("implies") => (Some(Operator::Implies), 2),
        _ => return None,
    })
}

impl<'s> Parser<'s> {
    fn peek(&self) -> &Token<'s> {
        self.tokens.get(self.next).map_or(&Token::End, |(token, _)| token)
    }

    fn at(&self) -> u32 {
        self.tokens.get(self.next).or(self.tokens.last()).map_or(0, |&(_, at)| at)
    }

    fn take(&mut self) -> Token<'s> {
        let token = self.peek().clone();
        self.next += 1;
        token
    }

    fn symbol(&mut self, symbol: &str) -> bool {
        let is = matches!(self.peek(), Token::Symbol(found) if *found == symbol);
        if is {
            self.next += 1;
        }
        is
    }

    fn expect(&mut self, symbol: &str) -> Result<(), Fault> {
        let at = self.at();
        if self.symbol(symbol) { Ok(()) } else { Err(Fault::syntax(at, format!("Expected {symbol}"))) }
    }

    fn build(at: u32, node: Node) -> Result<Expr, Fault> {
        let below = match &node {
            Node::Member(input, _) => input.as_ref().map_or(0, |input| input.depth),
            Node::Call(input, _, arguments) => {
                arguments.iter().map(|a| a.depth).chain(input.as_ref().map(|i| i.depth)).max().unwrap_or(0)
            }
            Node::Item(a, b) | Node::Binary(_, a, b) => a.depth.max(b.depth),
            Node::Sign(_, a) | Node::Is(a, _) | Node::As(a, _) => a.depth,
            _ => 0,
        };
        if below >= DEPTH_MAX {
            return Err(Fault::budget(at, "Expected an expression that nests less deeply"));
        }
        Ok(Expr { at, depth: below + 1, node })
    }

    /// An expression whose operators bind more tightly than `least`.
    fn expression(&mut self, least: u8) -> Result<Expr, Fault> {
        self.open += 1;
        if self.open > DEPTH_MAX {
            return Err(Fault::budget(self.at(), "Expected an expression that nests less deeply"));
        }
        let mut left = self.unary()?;
        while let Some((operator, binds)) = binary(self.peek()) {
            if binds <= least {
                break;
            }
            let at = self.at();
            let word = self.take();
            let node = if let Some(operator) = operator {
                let right = self.expression(binds)?;
                Node::Binary(operator, Box::new(left), Box::new(right))
            } else {
                let name = self.type_name()?;
                if word == Token::Word("is") { Node::Is(Box::new(left), name) } else { Node::As(Box::new(left), name) }
            };
            left = Self::build(at, node)?;
        }
        self.open -= 1;
        Ok(left)
    }

    fn unary(&mut self) -> Result<Expr, Fault> {
        let at = self.at();
        let negative = matches!(self.peek(), Token::Symbol("-"));
        if !negative && !matches!(self.peek(), Token::Symbol("+")) {
            return self.path();
        }
        self.next += 1;
        let operand = self.expression(SIGN)?;
        Self::build(at, Node::Sign(negative, Box::new(operand)))
    }

    /// A term and what is done to it: `.name`, `.name(…)`, `[…]`.
    fn path(&mut self) -> Result<Expr, Fault> {
        let mut left = self.term()?;
        loop {
            let at = self.at();
            if self.symbol(".") {
                let at = self.at();
                let node = match self.take() {
                    Token::Word(name) => self.invocation(Some(left), name.to_owned())?,
                    Token::Delimited(name) => self.invocation(Some(left), name)?,
                    // `a.$this` is `a`, item by item.
                    Token::Special("this") => continue,
                    _ => return Err(Fault::syntax(at, "Expected a name after the dot")),
                };
                left = Self::build(at, node)?;
            } else if self.symbol("[") {
                let place = self.expression(0)?;
                self.expect("]")?;
                left = Self::build(at, Node::Item(Box::new(left), Box::new(place)))?;
            } else {
                return Ok(left);
            }
        }
    }

    fn invocation(&mut self, input: Option<Expr>, name: String) -> Result<Node, Fault> {
        let input = input.map(Box::new);
        if !self.symbol("(") {
            return Ok(Node::Member(input, name));
        }
        let mut arguments = Vec::new();
        if !self.symbol(")") {
            loop {
                arguments.push(self.expression(0)?);
                if !self.symbol(",") {
                    break;
                }
            }
            self.expect(")")?;
        }
        Ok(Node::Call(input, name, arguments))
    }

    fn term(&mut self) -> Result<Expr, Fault> {
        let at = self.at();
        let node = match self.take() {
            Token::Word("true") => Node::Literal(Literal::Boolean(true)),
            Token::Word("false") => Node::Literal(Literal::Boolean(false)),
            Token::Word(name) => self.invocation(None, name.to_owned())?,
            Token::Delimited(name) => self.invocation(None, name)?,
            Token::String(text) => Node::Literal(Literal::String(text.into())),
            Token::Number(text) => self.number(text, at)?,
            Token::Date(text) => Self::moment(Temporal::date(text), at)?,
            Token::DateTime(text) => Self::moment(Temporal::date_time(text), at)?,
            Token::Time(text) => Self::moment(Temporal::time(text), at)?,
            Token::Variable(name) => Node::Variable(name.into_owned()),
            Token::Special("this") => Node::This,
            Token::Special("index") => Node::Index,
            Token::Special("total") => Node::Total,
            Token::Symbol("(") => {
                let inner = self.expression(0)?;
                self.expect(")")?;
                return Ok(inner);
            }
            Token::Symbol("{") => {
                self.expect("}")?;
                Node::Empty
            }
            _ => return Err(Fault::syntax(at, "Expected a value, a name or (")),
        };
        Self::build(at, node)
    }

    fn moment(read: Option<Temporal>, at: u32) -> Result<Node, Fault> {
        let read = read.ok_or_else(|| Fault::syntax(at, "Expected a date or a time that exists"))?;
        Ok(Node::Literal(Literal::Temporal(read)))
    }

    /// A number, or with a unit behind it a quantity.
    fn number(&mut self, text: &str, at: u32) -> Result<Node, Fault> {
        let unit = match self.peek() {
            Token::String(unit) => Some(Unit::quoted(unit)),
            Token::Word(word) => Calendar::named(word).map(Unit::Calendar),
            _ => None,
        };
        let decimal = || number::parse(text).ok_or_else(|| Fault::syntax(at, "Expected a number of at most 28 digits"));
        Ok(Node::Literal(if let Some(unit) = unit {
            self.next += 1;
            Literal::Quantity(Box::new(Quantity { value: decimal()?, unit }))
        } else if text.contains('.') {
            Literal::Decimal(decimal()?)
        } else {
            let integer = text.parse().ok().filter(|integer| number::is_integer(*integer));
            Literal::Integer(integer.ok_or_else(|| Fault::syntax(at, "Expected an integer below 2147483648"))?)
        }))
    }

    fn type_name(&mut self) -> Result<TypeName, Fault> {
        let first = self.name()?;
        if !self.symbol(".") {
            return Ok(TypeName { namespace: None, name: first });
        }
        Ok(TypeName { namespace: Some(first), name: self.name()? })
    }

    fn name(&mut self) -> Result<String, Fault> {
        let at = self.at();
        match self.take() {
            Token::Word(name) => Ok(name.to_owned()),
            Token::Delimited(name) => Ok(name),
            _ => Err(Fault::syntax(at, "Expected the name of a type")),
        }
    }
}
