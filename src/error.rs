//! The three kinds of failure, and their one translation to HTTP and FHIR.
//!
//! Takes: a cause, found by a stage or an adapter. Gives: an [`Error`] that knows its HTTP status, its FHIR issue
//! type and its severity. Never: carries a value of a health record; only locations, rule ids and what was expected.
//!
//! - A **refusal** is the sender's or the policy's, and final: 4xx.
//! - An **outage** is a peer's or a limit's, and retryable: it names the peer and says when to come again.
//! - A **defect** is ours: an invariant broke. It is a 500, a metric and, once known, a failing test.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use http::StatusCode;
use sluice_fhir::outcome::{Issue, IssueType, Severity};

/// The result of a stage.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure on the way of a unit or of a question.
///
/// What the sender may see stands in the issues; what only the operator may see stands in the internal text. Neither
/// holds a value of a health record.
#[derive(Debug, Clone, PartialEq)]
pub struct Error(Box<Inner>);

#[derive(Debug, Clone, PartialEq)]
struct Inner {
    kind: Kind,
    issues: Vec<Issue>,
    internal: Cow<'static, str>,
    retry_after: Option<Duration>,
}

/// Who is to act on a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Final: the sender changes the request, or a policy changes.
    Refusal(Refusal),
    /// Retryable: this peer, or this limit, does not serve now.
    Outage(Peer),
    /// Ours to mend.
    Defect,
}

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Several resources match where one was meant (412).
    Ambiguous,
    /// Another state of the resource stands (409).
    Conflict,
    /// A policy says no (403).
    Forbidden,
    /// It was deleted (410).
    Gone,
    /// Well formed, and against the rules (422).
    Invalid,
    /// Not JSON, or not FHIR R4 (400).
    Malformed,
    /// The method does not apply (405).
    Method,
    /// Nothing stands there, or nothing that the caller may know of (404).
    NotFound,
    /// A format is asked for that is not served (406).
    NotAcceptable,
    /// `If-Match` or `If-None-Exist` did not hold (412).
    Precondition,
    /// The request came too slowly (408).
    Timeout,
    /// More bytes, entries or nesting than the limits allow (413).
    TooLarge,
    /// The caller is over its share (429).
    TooMany,
    /// No caller could be made out (401).
    Unauthenticated,
    /// The media type or the content coding is not taken (415).
    UnsupportedMedia,
}

/// Who does not serve now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Peer {
    /// The message broker.
    Broker,
    /// Our own capacity: a limit of concurrency, bytes or time.
    Capacity,
    /// The holder of a patient's policies, or of who a subject is.
    Custodian,
    /// The ledger, or our mirror of it.
    Ledger,
    /// The durable store.
    Store,
    /// The terminology service.
    Terminology,
    /// The hospital's FHIR server.
    Upstream,
    /// The hospital's FHIR server, which took the request and did not answer in time.
    UpstreamSilent,
}

/// How a kind is told to the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Face {
    /// The HTTP status.
    pub status: StatusCode,
    /// The FHIR issue type, <http://hl7.org/fhir/R4/valueset-issue-type.html>.
    pub issue: IssueType,
    /// The FHIR issue severity.
    pub severity: Severity,
}

impl Kind {
    /// The single translation. It has no wildcard, so a new kind does not compile until its face is decided.
    pub fn face(self) -> Face {
        let (status, issue, severity) = match self {
            Self::Refusal(refusal) => match refusal {
                Refusal::Ambiguous => (412, IssueType::MultipleMatches, Severity::Error),
                Refusal::Conflict => (409, IssueType::Conflict, Severity::Error),
                Refusal::Forbidden => (403, IssueType::Forbidden, Severity::Error),
                Refusal::Gone => (410, IssueType::Deleted, Severity::Error),
                Refusal::Invalid => (422, IssueType::Processing, Severity::Error),
                Refusal::Malformed => (400, IssueType::Structure, Severity::Fatal),
                Refusal::Method => (405, IssueType::NotSupported, Severity::Error),
                Refusal::NotFound => (404, IssueType::NotFound, Severity::Error),
                Refusal::NotAcceptable => (406, IssueType::NotSupported, Severity::Error),
                Refusal::Precondition => (412, IssueType::Conflict, Severity::Error),
                Refusal::Timeout => (408, IssueType::Timeout, Severity::Error),
                Refusal::TooLarge => (413, IssueType::TooLong, Severity::Error),
                Refusal::TooMany => (429, IssueType::Throttled, Severity::Error),
                Refusal::Unauthenticated => (401, IssueType::Login, Severity::Error),
                Refusal::UnsupportedMedia => (415, IssueType::NotSupported, Severity::Error),
            },
            Self::Outage(peer) => match peer {
                Peer::Broker | Peer::Custodian | Peer::Ledger | Peer::Store | Peer::Terminology => {
                    (503, IssueType::Transient, Severity::Error)
                }
                Peer::Capacity => (503, IssueType::Throttled, Severity::Error),
                Peer::Upstream => (502, IssueType::Transient, Severity::Error),
                Peer::UpstreamSilent => (504, IssueType::Timeout, Severity::Error),
            },
            Self::Defect => (500, IssueType::Exception, Severity::Fatal),
        };
        Face { status: StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), issue, severity }
    }
}

impl Error {
    /// A refusal with every issue found; never empty in what the sender sees: without an issue, `text` makes one.
    pub fn refusal(refusal: Refusal, rule: &'static str, text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Refusal(refusal), rule, text.into(), None)
    }

    /// A refusal that was found out by a stage with issues of its own.
    pub fn refused(refusal: Refusal, issues: Vec<Issue>) -> Self {
        let internal = Cow::Borrowed("refused with issues");
        Self(Box::new(Inner { kind: Kind::Refusal(refusal), issues, internal, retry_after: None }))
    }

    /// An outage of `peer`. The sender is told the peer's name and when to come again, not the text.
    pub fn outage(peer: Peer, retry_after: Duration, internal: impl Into<Cow<'static, str>>) -> Self {
        let text = match peer {
            Peer::Broker => "the message broker does not serve now",
            Peer::Capacity => "the gateway is at its limit",
            Peer::Custodian => "what the subject decided cannot be established now",
            Peer::Ledger => "the ledger does not serve now",
            Peer::Store => "the store does not serve now",
            Peer::Terminology => "the terminology service does not serve now",
            Peer::Upstream => "the FHIR server behind the gateway does not serve now",
            Peer::UpstreamSilent => "the FHIR server behind the gateway did not answer in time",
        };
        let mut error = Self::new(Kind::Outage(peer), "outage", Cow::Borrowed(text), Some(retry_after));
        error.0.internal = internal.into();
        error
    }

    /// A defect of ours. The sender learns nothing but that.
    pub fn defect(internal: impl Into<Cow<'static, str>>) -> Self {
        let mut error = Self::new(Kind::Defect, "defect", Cow::Borrowed("a defect of the gateway"), None);
        error.0.internal = internal.into();
        error
    }

    fn new(kind: Kind, rule: &'static str, text: Cow<'static, str>, retry_after: Option<Duration>) -> Self {
        let face = kind.face();
        let issue = Issue {
            severity: face.severity,
            code: face.issue,
            rule: Cow::Borrowed(rule),
            expression: None,
            position: None,
            text: text.clone().into_owned(),
            about: None,
        };
        Self(Box::new(Inner { kind, issues: vec![issue], internal: text, retry_after }))
    }

    /// Who is to act.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// What the sender is told, in the order found; for an `OperationOutcome`.
    pub fn issues(&self) -> &[Issue] {
        &self.0.issues
    }

    /// For an outage: when to come again (`Retry-After`).
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The rule id of the first issue: what a metric or a log line names.
    pub fn rule(&self) -> &str {
        self.0.issues.first().map_or("", |issue| &issue.rule)
    }
}

/// For the log: kind, rule and the operator's text.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}: {}", self.0.kind, self.rule(), self.0.internal)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_4xx_and_an_outage_5xx() {
        let refusal = Error::refusal(Refusal::Forbidden, "consent.denied", "a policy of the subject");
        assert_eq!(refusal.kind().face().status, 403);
        let outage = Error::outage(Peer::Ledger, Duration::from_secs(5), "mirror older than the bound");
        assert_eq!(outage.kind().face().status, 503);
        assert_eq!(outage.retry_after(), Some(Duration::from_secs(5)));
        assert!(!outage.issues()[0].text.contains("mirror"), "the sender does not see the operator's text");
        assert_eq!(Error::defect("x").kind().face().status, 500);
    }
}
