//! The pieces of a document: tags, text, comments, references, each with its place.

use std::ops::Range;

use quick_xml::errors::{Error, IllFormedError, SyntaxError};
use quick_xml::events::Event;

use super::error::XmlErrorKind::{self, DocumentType, InvalidMarkup, InvalidReference, MismatchedEnd, UnexpectedEnd};
use super::lexical::Fault;

/// quick-xml's reader finds the markup and holds end tags against start tags; what stands in it is read here.
pub(super) type Markup<'x> = quick_xml::Reader<&'x [u8]>;

pub(super) fn markup(source: &str) -> Markup<'_> {
    let mut markup = quick_xml::Reader::from_str(source);
    markup.config_mut().check_comments = true;
    markup
}

/// The next piece of markup or text, and where it stands.
pub(super) fn next<'x>(markup: &mut Markup<'x>) -> Result<(Event<'x>, Range<usize>), Fault> {
    // A document is in memory, so that its offsets are of the machine's size.
    let offset = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX);
    let start = offset(markup.buffer_position());
    match markup.read_event() {
        Ok(event) => Ok((event, start..offset(markup.buffer_position()))),
        Err(error) => Err((kind_of(&error), offset(markup.error_position()))),
    }
}

fn kind_of(error: &Error) -> XmlErrorKind {
    match error {
        Error::Syntax(SyntaxError::UnclosedDoctype) | Error::IllFormed(IllFormedError::MissingDoctypeName) => {
            DocumentType
        }
        Error::Syntax(SyntaxError::InvalidBangMarkup) => InvalidMarkup,
        Error::Syntax(_) => UnexpectedEnd,
        Error::IllFormed(IllFormedError::MismatchedEndTag { .. } | IllFormedError::UnmatchedEndTag(_)) => MismatchedEnd,
        Error::IllFormed(IllFormedError::UnclosedReference) => InvalidReference,
        _ => InvalidMarkup,
    }
}
