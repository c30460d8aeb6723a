//! Who knows what a value set holds.
//!
//! Takes: a code and a value set. Gives: whether the code is in it: yes, no, or that nobody can tell. Two implementations: the
//! packages of this gateway ([`Local`]), and a FHIR terminology server ([`Remote`]), which is asked over the network. Never:
//! takes silence for an answer: a server that does not answer is [`Unavailable`], not a yes and not a no.

mod breaker;
mod cache;
mod local;
mod parameters;
mod remote;

pub use local::Local;
pub use remote::Remote;

use std::time::Duration;

use futures_util::future::BoxFuture;
pub use sluice_fhir::definitions::valueset::Membership;

/// A code and the value set that it should be in. Holds a value of a record: never to be logged.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Question {
    /// The canonical of the value set, with a version or without.
    pub value_set: String,
    /// The code's system; None where the value set implies it.
    pub system: Option<String>,
    /// The version of the system.
    pub version: Option<String>,
    /// The code.
    pub code: String,
}

/// Nobody answers now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Unavailable {
    /// For the operator: why.
    pub why: &'static str,
    /// When to ask again.
    pub retry_after: Duration,
}

/// Answers questions about value sets. A code without a system is a member by that of any member.
pub trait Terminology: Send + Sync {
    /// Whether the code is a member of the value set.
    ///
    /// # Errors
    /// [`Unavailable`], if that cannot be found out now.
    fn member<'a>(&'a self, question: &'a Question) -> BoxFuture<'a, Result<Membership, Unavailable>>;
}
