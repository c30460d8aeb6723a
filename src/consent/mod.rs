//! consent
pub mod door;
pub mod identify;
pub mod pseudonym;
pub mod subjects;
