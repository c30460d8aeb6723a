//! A document in one of FHIR's formats as a tree.
//!
//! Takes its bytes, and where they are from; gives the tree, or why and where it is none. Never: guesses by content.

use std::path::Path;

use bytes::Bytes;
use sluice_fhir::definitions::Definitions;
use sluice_fhir::outcome::{Issue, IssueType, Severity};
use sluice_fhir::tree::{Limits, SyntaxError, SyntaxErrorKind, Tree};
use sluice_fhir::xml::{self, XmlError};

/// A format of FHIR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Form {
    /// FHIR's JSON
    Json,
    /// FHIR's XML
    Xml,
}

impl Form {
    /// As told; else XML if the file's name ends in `.xml`, and JSON if not.
    pub(super) fn of(told: Option<Self>, file: &Path) -> Self {
        let is_xml = file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("xml"));
        told.unwrap_or(if is_xml { Self::Xml } else { Self::Json })
    }

    /// Reads a document.
    pub(super) fn read(self, text: Bytes) -> Result<Tree, Unread> {
        match self {
            Self::Json => Tree::parse(text, &Limits::default()).map_err(Unread::Json),
            Self::Xml => xml::read(&text, &Limits::default(), &Definitions::r4()).map_err(Unread::Xml),
        }
    }
}

/// Why a document is not read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unread {
    #[error(transparent)]
    Json(SyntaxError),
    #[error(transparent)]
    Xml(XmlError),
}

impl Unread {
    /// The one issue of a document that is not read.
    pub(super) fn into_issue(self) -> Issue {
        let (too_much, format, path, position, text) = match self {
            Self::Json(error) => {
                let too_much = matches!(
                    error.kind,
                    SyntaxErrorKind::TooLong | SyntaxErrorKind::TooDeep | SyntaxErrorKind::TooManyNodes
                );
                (too_much, "json", error.path, error.position, error.kind.text())
            }
            Self::Xml(error) => (error.kind.is_limit(), "xml", error.path, error.position, error.kind.text()),
        };
        Issue {
            severity: Severity::Fatal,
            code: if too_much { IssueType::TooLong } else { IssueType::Structure },
            rule: if too_much { "limits.document" } else { format }.into(),
            expression: Some(path).filter(|path| !path.is_empty()),
            position: Some(position),
            text: text.to_owned(),
            about: None,
        }
    }
}
