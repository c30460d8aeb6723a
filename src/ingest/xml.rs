//! Reads a body in FHIR's XML.
//!
//! Takes: a body that can be held whole. Gives: what the same body in JSON gives; lines and columns are those of the XML.
//! Never: streams, since XML says only by the definitions what it holds: beyond the bound of one unit it is JSON that is
//! taken.

use std::borrow::Cow;

use sluice_fhir::definitions::Definitions;
use sluice_fhir::outcome::{Issue, IssueType, Severity};
use sluice_fhir::tree::{self, Tree};
use sluice_fhir::xml::{self, XmlError};

use super::source::Source;
use crate::error::{Error, Refusal, Result};
use crate::store::spool::Spool;

/// Reads a body of at most `bytes_max` bytes.
///
/// # Errors
/// 415 for a longer one, 400 for what is not FHIR's XML within the limits.
pub(super) fn read(spool: Spool, bytes_max: usize, limits: &tree::Limits) -> Result<Tree> {
    if spool.len() > bytes_max as u64 {
        let text = format!("FHIR's XML of at most {bytes_max} bytes; what is longer is taken as application/fhir+json");
        return Err(Error::refusal(Refusal::UnsupportedMedia, "http.content-type", text));
    }
    let text = Source::new(spool)?.whole(bytes_max)?;
    let limits = tree::Limits { bytes_max, ..*limits };
    xml::read(&text, &limits, &Definitions::r4()).map_err(syntax)
}

fn syntax(error: XmlError) -> Error {
    let issue = Issue {
        severity: Severity::Fatal,
        code: IssueType::Structure,
        rule: Cow::Borrowed("xml"),
        expression: Some(error.path),
        position: Some(error.position),
        text: error.kind.text().to_owned(),
        about: None,
    };
    Error::refused(Refusal::Malformed, vec![issue])
}
