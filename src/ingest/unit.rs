//! The unit: what is accepted or refused as one.
//!
//! Takes: split entries. Gives: [`Received`], whose existence proves that its bytes are within the limits, that its
//! caller is known and when it came. Never: judges content.

use std::sync::Arc;

use sluice_fhir::outcome::Issue;
use sluice_fhir::tree::{Position, Tree};
use time::OffsetDateTime;

use crate::config::Right;
use crate::error::{Error, Kind, Refusal, Result};

/// An institution, or one of its devices, that a listener has authenticated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The institution's id, as on the ledger.
    pub institution: Arc<str>,
    /// The device or client within the institution, if the credential names one.
    pub device: Option<Arc<str>>,
    /// What it may do.
    pub may: Arc<[Right]>,
    /// The roles in which it may act.
    pub roles: Arc<[String]>,
    /// Its purpose of use (v3 PurposeOfUse code), from the credential, never from the body.
    pub purpose: Option<Arc<str>>,
}

impl Caller {
    /// Holds that it may do this.
    ///
    /// # Errors
    /// 403 where the settings do not say so.
    pub fn needs(&self, right: Right) -> Result<()> {
        if self.may.contains(&right) {
            return Ok(());
        }
        let (rule, text) = lacking(right);
        Err(Error::refusal(Refusal::Forbidden, rule, text))
    }

    /// Holds that it may send something at all, before any of it is read.
    ///
    /// # Errors
    /// 403 where the settings do not say so.
    pub fn sends(&self) -> Result<()> {
        if self.may.contains(&Right::Consent) { Ok(()) } else { self.needs(Right::Write) }
    }

    /// Holds that it may send a resource of this type, which stands here.
    pub(super) fn sends_there(&self, resource_type: &str, place: &Place) -> Result<()> {
        let right = Right::to_send(resource_type);
        if self.may.contains(&right) {
            return Ok(());
        }
        let (rule, text) = lacking(right);
        let face = Kind::Refusal(Refusal::Forbidden).face();
        let issue = Issue {
            severity: face.severity,
            code: face.issue,
            rule: rule.into(),
            expression: Some(resource_type.to_owned()),
            position: Some(Position { line: 1, column: 1 }),
            text: text.to_owned(),
            about: None,
        };
        Err(Error::refused(Refusal::Forbidden, vec![place.relocate(issue)]))
    }
}

/// Rule id and text of a refusal for want of this right.
fn lacking(right: Right) -> (&'static str, &'static str) {
    match right {
        Right::Read => ("caller.read", "a caller that the settings let read"),
        Right::Write => ("caller.write", "a caller that the settings let send resources"),
        Right::Consent => ("caller.consent", "a caller that the settings let send Consents"),
    }
}

/// What came with the request, for every entry alike.
#[derive(Debug, Clone)]
pub struct Context {
    /// Who sent it.
    pub caller: Caller,
    /// When its last byte was read.
    pub received_at: OffsetDateTime,
    /// `Idempotency-Key` or `X-Request-Id`, as sent; within the limits of a key.
    pub idempotency_key: Option<Arc<str>>,
    /// What the answer is to hold (`Prefer: return=…`).
    pub prefer: Prefer,
    /// W3C `traceparent`, if it was well formed.
    pub traceparent: Option<Arc<str>>,
    /// W3C `tracestate`, if that was and it is too.
    pub tracestate: Option<Arc<str>>,
    /// `Bundle.meta.security` of the Bundle that the entries came in, as its JSON stands there: they hold for each.
    pub labels: Option<Arc<str>>,
}

/// RFC 7240 `return`, with FHIR's third value (FHIR R4 http.html#return).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Prefer {
    /// `return=minimal`: no body of the resource.
    #[default]
    Minimal,
    /// `return=representation`: the resource as stored.
    Representation,
    /// `return=OperationOutcome`: what was found, warnings included.
    Outcome,
}

/// What kind of unit it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A transaction Bundle: all of it or nothing.
    Transaction,
    /// A document or message Bundle: one resource, never rewritten, since it may be signed.
    Sealed,
    /// One resource: posted alone, or an entry of a batch, of a collection or of an NDJSON stream.
    Single,
}

/// What is asked for with a resource (FHIR R4 http.html).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Interaction {
    /// `POST [type]`, with `If-None-Exist` if it is conditional.
    Create {
        /// The search of a conditional create, without the leading `?`.
        if_none_exist: Option<String>,
    },
    /// `PUT [type]/[id]`, with the version that `If-Match` names.
    Update {
        /// The id in the URL.
        id: String,
        /// The version that must be the current one.
        if_match: Option<u64>,
    },
    /// No request was given (a collection, a bulk line): kept under the id it carries, or under a new one.
    Keep,
}

/// One resource with what was asked for it.
#[derive(Debug)]
pub struct Entry {
    /// The resource.
    pub tree: Tree,
    /// Its `resourceType`, known to be a string; whether R4 has such a type is for later.
    pub resource_type: Arc<str>,
    /// What was asked for.
    pub interaction: Interaction,
    /// `Bundle.entry.fullUrl`, if it came in a Bundle.
    pub full_url: Option<Arc<str>>,
    /// Where it stood in what was sent.
    pub place: Place,
}

/// Where a resource stood in the body that was sent, so that issues can name line, column and path there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The first byte's line and column, from 1.
    pub start: Position,
    /// The number of the entry or line, from 0; none for a resource sent alone.
    pub index: Option<usize>,
    /// What stands for the resource's root in a path: `Bundle.entry[3].resource`; empty where the root is the body.
    pub prefix: String,
}

impl Place {
    /// The place of a resource that is the whole body.
    pub fn body() -> Self {
        Self { start: Position { line: 1, column: 1 }, index: None, prefix: String::new() }
    }

    /// The place of the resource of entry `index` of a Bundle.
    pub fn entry(index: usize, start: Position) -> Self {
        Self { start, index: Some(index), prefix: format!("Bundle.entry[{index}].resource") }
    }

    /// The place of line `index` (from 0) of an NDJSON stream.
    pub fn line(index: usize) -> Self {
        let line = u32::try_from(index).unwrap_or(u32::MAX).saturating_add(1);
        Self { start: Position { line, column: 1 }, index: Some(index), prefix: String::new() }
    }

    /// Moves a position within the resource to the body's lines and columns.
    pub fn position(&self, within: Position) -> Position {
        let column = if within.line == 1 { self.start.column + within.column - 1 } else { within.column };
        Position { line: self.start.line + within.line - 1, column }
    }

    /// Moves an issue that was found in the resource to where it stands in the body.
    pub fn relocate(&self, mut issue: Issue) -> Issue {
        issue.position = issue.position.map(|position| self.position(position));
        if !self.prefix.is_empty() {
            issue.expression = issue.expression.map(|path| match path.find(['.', '[']) {
                Some(end) => format!("{}{}", self.prefix, &path[end..]),
                None => self.prefix.clone(),
            });
        }
        issue
    }
}

/// A unit within the limits, of a known caller that may send all of it. Only `ingest` makes one.
#[derive(Debug)]
pub struct Received {
    context: Context,
    shape: Shape,
    entries: Vec<Entry>,
    neighbours: Option<Arc<super::neighbours::Neighbours>>,
}

impl Received {
    /// A unit of these entries.
    ///
    /// # Errors
    /// 403 at the first entry that its caller may not send.
    pub(super) fn new(context: Context, shape: Shape, entries: Vec<Entry>) -> Result<Self> {
        for entry in &entries {
            context.caller.sends_there(&entry.resource_type, &entry.place)?;
        }
        Ok(Self { context, shape, entries, neighbours: None })
    }

    /// A unit that was received and staged before a crash, as it was then; for `stage`, which has kept it.
    pub(crate) fn again(
        context: Context,
        shape: Shape,
        entries: Vec<Entry>,
        neighbours: Option<Arc<super::neighbours::Neighbours>>,
    ) -> Self {
        Self { context, shape, entries, neighbours }
    }

    pub(super) fn among(mut self, neighbours: Arc<super::neighbours::Neighbours>) -> Self {
        self.neighbours = Some(neighbours);
        self
    }

    /// What came with the request.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// What kind of unit it is.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The resources, in the order sent. A unit that is not a transaction has exactly one.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// What was sent of it, in bytes.
    pub fn bytes(&self) -> usize {
        self.entries.iter().map(|entry| entry.tree.bytes().len()).sum()
    }

    /// Hands its parts on: context, shape, entries, and who else came in the same stream.
    pub fn into_parts(self) -> (Context, Shape, Vec<Entry>, Option<Arc<super::neighbours::Neighbours>>) {
        (self.context, self.shape, self.entries, self.neighbours)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_moves_positions_of_the_first_line_only_by_column() {
        let place = Place::entry(3, Position { line: 10, column: 5 });
        assert_eq!(place.position(Position { line: 1, column: 2 }), Position { line: 10, column: 6 });
        assert_eq!(place.position(Position { line: 4, column: 2 }), Position { line: 13, column: 2 });
    }
}
