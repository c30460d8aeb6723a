//! The pure core of FHIR R4: a resource as a tree over its own bytes, its canonical form and digests, its references,
//! its compartment, and the outcome of checking it.
//!
//! Takes bytes, gives trees, digests, edits and issues. Does no I/O, reads no clock and no settings, never panics on input.

pub mod bundle;
pub mod canonical;
pub mod compartment;
pub mod datetime;
pub mod definitions;
pub mod edit;
pub mod outcome;
pub mod package;
pub mod path;
pub mod profile;
pub mod reference;
pub mod release;
pub mod resource_type;
pub mod tree;
pub mod validate;
pub mod xhtml;
pub mod xml;
