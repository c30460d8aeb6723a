//! consent: whether a record may be collected, told or shown, by what its patients decided.
//!
//! Takes FHIR Consents as trees, a request and a resource; gives a decision with its reason. The decision itself is pure:
//! it reads no clock, no ledger and no settings; the [`door`] is where these come in. What can't be read is never relied
//! on: it leads to deny or to undecidable, never to a permit and never to an error.
//!
//! - [`policy`] compiles a Consent; [`facets`] draws from a resource what a decision needs; [`decide`] decides.
//! - [`codes`] has the code systems' hierarchies, [`labels`] the step that labels sensitive records.
//! - [`pseudonym`] names subjects on the ledger and towards subscribers, [`identify`] from what a hospital writes;
//!   [`subjects`] finds whom a unit is about; [`mirror`] is the local map of the ledger, which [`follow`] fills;
//!   [`openings`] keeps the policies that the ledger commits to; [`unfiled`] tells whose Consents it does not know yet.
//! - [`selftest`] asks the doors for what they must deny.
//! - [`exchange`] is the one-line JSON form of a decision, which the command `consent decide` speaks; [`explain`] says
//!   what each Consent contributed to it.

pub mod codes;
pub mod decide;
pub mod door;
pub mod exchange;
pub mod explain;
pub mod facets;
pub mod follow;
pub mod identify;
pub mod labels;
pub mod mirror;
pub mod names;
pub mod openings;
pub mod policy;
pub mod pseudonym;
pub mod selftest;
pub mod subjects;
pub mod unfiled;
